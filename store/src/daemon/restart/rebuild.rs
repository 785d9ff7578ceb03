//! The second half of a restart: the store is rebuilt from the state that its [clients have handed
//! back](super::collect).
//!
//! Tables, pins, segments, the directory and the names are memory that has outlived the killed daemon. This daemon
//! makes its own state anew from the state of the clients. It finishes or undoes the operations in which the other was
//! killed:
//!
//! | found | meaning | done |
//! |---|---|---|
//! | an owner that has not come back; a client has descriptors of it | it is dead | taken over from the beginning |
//! | an owner that has not come back; no client has descriptors of it | no client held an object of it | forgotten |
//! | an owner that is not in the directory; a client is attached to it | it was forgotten | its slot stays taken |
//! | an owner that is not in the directory; a client holds it in escrow | it was forgotten | the client is told |
//! | a reader that its owner knows, and that is not attached | it has died or detached | the owner is told |
//! | an attached reader that its owner does not know | it had just attached | the owner is told, and it is counted |
//! | a segment that a reader has mapped, and its living owner does not have | it was given back | retired |
//! | a channel with one end | the other end has died or closed it | closed |
//! | a pin of the daemon that no name and no orphan explains | its reason is gone | taken back |
//!
//! If this daemon is killed meanwhile, the next one can repeat all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Notice, Reply};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::directory::SlotRecord;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::memory::identity;
use mobula_shm::pins::PinWriter;
use mobula_shm::table::{ENTRIES_MAX, TableWriter};

use crate::config::Config;
use crate::core::segments::Phase;
use crate::core::slots::Life;
use crate::daemon::contents::Contents;
use crate::daemon::orphans::escrow;
use crate::daemon::registry::Registry;
use crate::daemon::registry::owner::Owner;
use crate::daemon::registry::remaining::RemainingObjects;
use crate::daemon::restart::collect::{Claim, Peer, Returned};
use crate::memory::{Attachment, Memory};

/// A client that has been resumed: the key of its connection, and its slot.
pub(crate) type Resumed = (u64, u16);

/// Rebuilds the contents of a store from the state that came back. The outbox then has the reply to each client that
/// came back.
pub(crate) fn rebuild(
    config: Config,
    epoch: u64,
    returned: Returned,
    now: Instant,
) -> io::Result<(Contents, Vec<Resumed>)> {
    let Returned { control, occupied, claims } = returned;
    let mut contents = Contents::new(config, epoch, control)?;
    let registry = &mut contents.registry;
    let mut resumed = Vec::new();
    let mut claimed = Vec::new();
    for (key, claim) in claims {
        let (slot, correlation) = (claim.owner.slot(), claim.correlation);
        claimed.push(resume_client(registry, claim, &occupied)?);
        resumed.push((key, slot));
        // The first message that the client gets.
        registry.reply(slot, correlation.unwrap_or(0), &Reply::Resumed {}, Vec::new());
    }
    failpoint(Failpoint::RestartLiving);
    resume_the_dead(registry, &occupied, &claimed, now);
    for client in &mut claimed {
        resume_peers(registry, client.owner.slot(), std::mem::take(&mut client.peers));
    }
    resume_readers(registry, &claimed);
    resume_channels(registry, &claimed);
    let is_complete = take_over_the_dead(&mut contents, now);
    complete_escrow(&mut contents.registry);
    contents.names.resume(&mut contents.registry);
    failpoint(Failpoint::RestartNames);
    if is_complete {
        drop_unexplained_pins(&contents.registry);
    }
    failpoint(Failpoint::RestartDone);
    tracing::info!(clients = resumed.len(), "the store goes on in the place of one that was killed");
    Ok((contents, resumed))
}

/// The part of a claim that is about other owners, after the client itself has been resumed.
struct Claimed {
    owner: OwnerId,
    readers_heard: u64,
    readers: BTreeSet<OwnerId>,
    peers: BTreeMap<OwnerId, Peer>,
    channels: BTreeMap<u64, OwnerId>,
}

/// Resumes a client that has come back, with its own memory.
fn resume_client(
    registry: &mut Registry,
    claim: Claim,
    occupied: &BTreeMap<u16, SlotRecord>,
) -> io::Result<Claimed> {
    let Claim { owner: id, pid, label, control, bell, segments, spill_files, .. } = claim;
    let slot = id.slot();
    let entries = occupied.get(&slot).map_or(0, |record| record.committed.min(ENTRIES_MAX));
    registry.slots.resume(id, Life::Living);
    let view = TableWriter::map(control.writable())?;
    let daemon_pins = PinWriter::map(registry.control.writable(), slot)?;
    let owner = Owner::new(id, pid, label, entries, control, view, Arc::new(bell), daemon_pins);
    registry.owners.insert(slot, owner);
    registry.segments.leased_up_to(slot, claim.segment_last);
    for (number, bytes, memory) in segments {
        registry.segments.resume(slot, number, Phase::Leased, bytes, memory);
        registry.count_pages(slot, number);
    }
    for (number, bytes, file) in spill_files {
        registry.spill_files.resume(slot, number, bytes, file);
    }
    let Claim { readers_heard, readers, peers, channels, .. } = claim;
    Ok(Claimed { owner: id, readers_heard, readers, peers, channels })
}

/// Resumes, as dead, the owners that have not come back and of which a client has descriptors.
fn resume_the_dead(
    registry: &mut Registry,
    occupied: &BTreeMap<u16, SlotRecord>,
    claimed: &[Claimed],
    now: Instant,
) {
    for (id, peer) in claimed.iter().flat_map(|client| &client.peers) {
        let slot = id.slot();
        if registry.owner(*id).is_some() {
            continue;
        }
        match occupied.get(&slot) {
            Some(record) if record.epoch == id.epoch() => {
                if let Err(error) = resume_dead(registry, *id, *record, peer, now) {
                    tracing::warn!(%id, %error, "the objects of a dead client cannot be taken over");
                }
            }
            _ if peer.attached => _ = registry.slots.resume(*id, Life::Forgotten),
            _ => {}
        }
    }
    for (slot, _) in occupied.iter().filter(|(slot, _)| !registry.owners.contains_key(slot)) {
        registry.directory.clear_owner(*slot);
        registry.control.free_pins(*slot);
    }
}

fn resume_dead(
    registry: &mut Registry,
    id: OwnerId,
    record: SlotRecord,
    peer: &Peer,
    now: Instant,
) -> io::Result<()> {
    let slot = id.slot();
    let bytes = control_bytes(registry.config.slots());
    let control = Memory::returned_read_only(peer.control.try_clone()?, bytes)?;
    let view = TableWriter::map(control.writable())?;
    let daemon_pins = PinWriter::map(registry.control.writable(), slot)?;
    let bell = Arc::new(Bell::from_descriptor(peer.bell.try_clone()?));
    let entries = record.committed.min(ENTRIES_MAX);
    if !registry.slots.resume(id, Life::Dead) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let label = "died before the store was started again".to_owned();
    let mut owner = Owner::new(id, record.process, label, entries, control, view, bell, daemon_pins);
    // The pins of a dead owner do not count.
    owner.remove_reader(slot);
    owner.remaining =
        Some(RemainingObjects::new(now + registry.config.orphan_grace, registry.config.references_max));
    registry.owners.insert(slot, owner);
    failpoint(Failpoint::RestartDead);
    Ok(())
}

/// Resumes what a client has of other owners: attachments, mapped segments, and descriptors in escrow.
fn resume_peers(registry: &mut Registry, reader: u16, peers: BTreeMap<OwnerId, Peer>) {
    let control = registry.owners[&reader].control.clone();
    for (id, peer) in peers {
        let slot = id.slot();
        if slot == reader {
            continue;
        }
        let is_known = registry.slots.life(id) != Life::Vacant;
        if peer.attached && is_known {
            registry.slots.attach(reader, slot);
        }
        // The killed daemon may have forgotten an owner and not told the client, which may only hold its descriptors in
        // escrow.
        if registry.slots.life(id) == Life::Forgotten || !is_known && !peer.attached {
            registry.notify(reader, &Notice::OwnerForgotten { owner: id }, Vec::new());
        }
        let Some(owner) = registry.owners.get_mut(&slot).filter(|owner| owner.id == id) else { continue };
        if !is_control_of(owner, &peer) {
            tracing::warn!(reader, %id, "a client has another control memory of an owner than the owner itself");
            continue;
        }
        if peer.attached {
            owner.add_reader(reader, control.clone());
        } else if let Some(remaining) = &mut owner.remaining {
            remaining.escrow_holder = Some(reader);
        }
        if let Some(remaining) = &mut owner.remaining {
            remaining.escrowed.extend(peer.escrowed.keys());
        }
        let is_alive = owner.is_alive();
        for (number, (bytes, descriptor)) in peer.mapped {
            let phase = if is_alive { Phase::Retired } else { Phase::Orphaned };
            resume_segment(registry, id, number, phase, bytes, descriptor);
            registry.segments.resume_map(reader, slot, number);
            if registry.segments.get(slot, number).is_none() {
                // The daemon may have been killed before it told the client.
                let retired = Notice::SegmentRetired { owner: id, segment: number };
                registry.notify(reader, &retired, Vec::new());
            }
        }
        for (number, (bytes, descriptor)) in peer.escrowed.into_iter().filter(|_| !is_alive) {
            resume_segment(registry, id, number, Phase::Orphaned, bytes, descriptor);
        }
        for (number, (bytes, file)) in peer.escrowed_files.into_iter().filter(|_| !is_alive) {
            registry.spill_files.resume(slot, number, bytes, file);
        }
    }
}

/// Resumes a segment that its owner has not handed back, unless another reader has brought it already.
fn resume_segment(
    registry: &mut Registry,
    owner: OwnerId,
    number: u32,
    phase: Phase,
    bytes: u64,
    descriptor: OwnedFd,
) {
    if registry.segments.contains(owner.slot(), number) {
        return;
    }
    match Memory::returned_read_only(descriptor, bytes) {
        Ok(memory) => {
            registry.segments.resume(owner.slot(), number, phase, bytes, memory);
            registry.count_pages(owner.slot(), number);
        }
        Err(error) => tracing::warn!(%owner, number, %error, "a segment cannot be taken over"),
    }
}

/// Tells each owner which readers it does not know yet, and which are gone.
fn resume_readers(registry: &mut Registry, claimed: &[Claimed]) {
    for Claimed { owner, readers_heard, readers: known, .. } in claimed {
        let slot = owner.slot();
        let readers = registry.slots.readers(slot);
        let readers: Vec<&Owner> = readers.iter().filter_map(|reader| registry.owners.get(reader)).collect();
        let mut notices = Vec::new();
        for reader in readers.iter().filter(|reader| !known.contains(&reader.id)) {
            let Ok(control) = reader.control.to_read() else { continue };
            let joined = Notice::ReaderJoined { reader: reader.id };
            notices.push((joined, vec![control, Attachment::Bell(reader.bell.clone())]));
        }
        let joined = notices.len() as u64;
        for gone in known.iter().filter(|known| !readers.iter().any(|reader| reader.id == **known)) {
            notices.push((Notice::ReaderGone { reader: *gone }, Vec::new()));
        }
        // Before the notices, as always: while a notice is on its way, the count differs from the owner's.
        registry.directory.set_readers(slot, readers_heard.wrapping_add(joined));
        failpoint(Failpoint::RestartReaders);
        for (notice, attachments) in notices {
            registry.notify(slot, &notice, attachments);
        }
    }
}

/// Resumes the channels that have both ends, and closes the others.
fn resume_channels(registry: &mut Registry, claimed: &[Claimed]) {
    let channels: BTreeMap<OwnerId, &BTreeMap<u64, OwnerId>> =
        claimed.iter().map(|client| (client.owner, &client.channels)).collect();
    for (one, theirs) in &channels {
        for (channel, other) in *theirs {
            let both = channels.get(other).is_some_and(|of_other| of_other.get(channel) == Some(one));
            if both {
                registry.channels.resume(*channel, [one.slot(), other.slot()]);
            } else {
                registry.notify(one.slot(), &Notice::ChannelClosed { channel: *channel }, Vec::new());
            }
        }
    }
}

/// Takes over all objects of dead owners before any is freed, because they keep other objects alive. Returns `false` if
/// an object cannot be read for now. It is tried again later, and until then it is not known which objects it keeps.
fn take_over_the_dead(contents: &mut Contents, now: Instant) -> bool {
    let next_to_take = |contents: &Contents, slot| contents.registry.remaining(slot)?.next_to_take;
    for slot in contents.registry.dead() {
        let mut before = None;
        while let Some(next) = next_to_take(contents, slot).filter(|next| before != Some(*next)) {
            before = Some(next);
            contents.take_over(slot, now);
        }
    }
    contents.registry.dead().into_iter().all(|slot| next_to_take(contents, slot).is_none())
}

/// Sends escrow holders what they lack: the daemon may have been killed before it had sent them everything.
fn complete_escrow(registry: &mut Registry) {
    for slot in registry.dead() {
        for holder in registry.escrow_holders(slot) {
            escrow::add_holder(registry, holder, slot);
        }
    }
}

/// Takes back the pins of the killed daemon that no longer have a reason.
fn drop_unexplained_pins(registry: &Registry) {
    for owner in registry.owners.values() {
        owner.daemon_pins.retain(owner.entries, |index| registry.holds.contains(owner.id, index));
    }
}

fn is_control_of(owner: &Owner, peer: &Peer) -> bool {
    let ours = identity(owner.control.writable()).ok();
    ours.is_some() && ours == identity(peer.control.as_fd()).ok()
}
