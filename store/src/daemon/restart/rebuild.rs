//! Going on in the place of a daemon that was killed, with what its [clients hand back](crate::daemon::restart::collect).
//!
//! Tables, pins, segments, the directory and the names are memory that outlived the daemon; its own books are made anew
//! from what the clients say they have. Whatever it was in the middle of is finished or undone:
//!
//! | found | means |
//! |---|---|
//! | an owner that has not come back, of whom somebody has the table | it has died: adopted, from the beginning |
//! | one of whom nobody has it | nothing of it was held: forgotten |
//! | an owner that the directory no longer knows, to which somebody is attached | forgotten before: its slot is vacant when the last has detached |
//! | a reader that its owner knows, but that is not attached (any more) | died or detached: the owner is told |
//! | a reader that its owner does not know | attached just before: the owner is told, and counts it |
//! | a segment that a reader has mapped and its living owner does not have | retired |
//! | a channel of which one end is left | closed |
//! | pins of the daemon's that neither a name nor an adopted object explains | taken back |
//!
//! All of it can be done again by the next daemon, if this one is killed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Reply};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::directory::Record;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::memory::identity;
use mobula_shm::pins::PinWriter;
use mobula_shm::table::{ENTRIES_MAX, TableWriter};

use crate::config::Config;
use crate::core::segments::Class;
use crate::core::slots::Life;
use crate::daemon::Daemon;
use crate::daemon::client::record::Owner;
use crate::daemon::orphans::takeover::Adoption;
use crate::daemon::restart::collect::{Claim, Peer, Returned};
use crate::memory::{Memory, Parcel};

/// A client that goes on: the key of its connection, and its slot.
pub(crate) type Resumed = (u64, u16);

impl Daemon {
    /// A store that goes on with what came back. The replies that tell the clients so are in the outbox.
    pub(crate) fn resume(
        config: Config,
        epoch: u64,
        returned: Returned,
        now: Instant,
    ) -> io::Result<(Self, Vec<Resumed>)> {
        let Returned { control, occupied, claims } = returned;
        let mut daemon = Self::with(config, epoch, control)?;
        let mut resumed = Vec::new();
        let mut attached: BTreeMap<u16, (OwnerId, BTreeMap<OwnerId, Peer>)> = BTreeMap::new();
        let mut known: BTreeMap<u16, (u64, BTreeSet<OwnerId>)> = BTreeMap::new();
        let mut channels = BTreeMap::new();
        for (key, claim) in claims {
            let (id, correlation) = (claim.owner, claim.correlation);
            let Claim { owner, readers_heard, .. } = claim;
            let (peers, said) = daemon.resume_client(claim, &occupied)?;
            attached.insert(id.slot(), (id, peers));
            known.insert(id.slot(), (readers_heard, said.readers));
            channels.insert(owner, said.channels);
            resumed.push((key, id.slot()));
            // First of all that it gets.
            daemon.reply(id.slot(), correlation.unwrap_or(0), &Reply::Resumed {}, Vec::new());
        }
        failpoint(Failpoint::RestartLiving);
        daemon.resume_the_dead(&occupied, &attached, now)?;
        daemon.resume_readers(attached);
        daemon.resume_introductions(known);
        daemon.resume_channels(&channels);
        let looked_through = daemon.look_through_the_dead(now);
        daemon.resume_custody();
        daemon.resume_names();
        failpoint(Failpoint::RestartNames);
        if looked_through {
            daemon.drop_unexplained_pins();
        }
        failpoint(Failpoint::RestartDone);
        tracing::info!(clients = resumed.len(), "the store goes on in the place of one that was killed");
        Ok((daemon, resumed))
    }

    /// A client that has come back.
    fn resume_client(
        &mut self,
        claim: Claim,
        occupied: &BTreeMap<u16, Record>,
    ) -> io::Result<(BTreeMap<OwnerId, Peer>, Said)> {
        let Claim { owner: id, pid, label, control, bell, segments, spill_files, .. } = claim;
        let slot = id.slot();
        let entries = occupied.get(&slot).map_or(0, |record| record.committed.min(ENTRIES_MAX));
        self.slots.resume(id, Life::Living);
        let view = TableWriter::map(control.writable())?;
        let daemon_pins = PinWriter::map(self.control.writable(), slot)?;
        let bell = Arc::new(bell);
        let owner = Owner::new(id, pid, label, entries, control, view, bell, daemon_pins);
        self.owners.insert(slot, owner);
        self.segments.leased_up_to(slot, claim.segment_last);
        for (number, bytes, memory) in segments {
            self.segments.resume(slot, number, Class::Leased, bytes, memory);
            self.count_pages(slot, number);
        }
        for (number, bytes, file) in spill_files {
            self.spilling.resume_file(slot, number, bytes, file);
        }
        Ok((claim.peers, Said { readers: claim.readers, channels: claim.channels }))
    }

    /// Owners that have not come back, but of whom somebody has something.
    fn resume_the_dead(
        &mut self,
        occupied: &BTreeMap<u16, Record>,
        attached: &BTreeMap<u16, (OwnerId, BTreeMap<OwnerId, Peer>)>,
        now: Instant,
    ) -> io::Result<()> {
        for (id, peer) in attached.values().flat_map(|(_, peers)| peers) {
            let slot = id.slot();
            if self.owners.get(&slot).is_some_and(|owner| owner.id == *id) {
                continue;
            }
            match occupied.get(&slot) {
                Some(record) if record.epoch == id.epoch() => {
                    if let Err(error) = self.resume_dead(*id, *record, peer, now) {
                        tracing::warn!(%id, %error, "what a dead client has left cannot be taken over");
                    }
                }
                _ if peer.attached => _ = self.slots.resume(*id, Life::Forgotten),
                _ => {}
            }
        }
        for (slot, _) in occupied.iter().filter(|(slot, _)| !self.owners.contains_key(slot)) {
            self.directory_writer.clear_owner(*slot);
            self.control.free_pins(*slot);
        }
        Ok(())
    }

    fn resume_dead(&mut self, id: OwnerId, record: Record, peer: &Peer, now: Instant) -> io::Result<()> {
        let slot = id.slot();
        let bytes = control_bytes(self.config.slots());
        let control = Memory::returned_read_only(peer.control.try_clone()?, bytes)?;
        let view = TableWriter::map(control.writable())?;
        let daemon_pins = PinWriter::map(self.control.writable(), slot)?;
        let bell = Arc::new(Bell::from_descriptor(peer.bell.try_clone()?));
        let entries = record.committed.min(ENTRIES_MAX);
        if !self.slots.resume(id, Life::Adopted) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let label = "died before the store was started again".to_owned();
        let mut owner = Owner::new(id, record.process, label, entries, control, view, bell, daemon_pins);
        // Its own pins count no more.
        owner.remove_reader(slot);
        owner.adoption = Some(Adoption::begin(now + self.config.adoption_grace, self.config.references_max));
        self.owners.insert(slot, owner);
        failpoint(Failpoint::RestartDead);
        Ok(())
    }

    /// Who is attached to whom, and has which segments mapped.
    fn resume_readers(&mut self, attached: BTreeMap<u16, (OwnerId, BTreeMap<OwnerId, Peer>)>) {
        for (reader, (_, peers)) in attached {
            let control = self.owners[&reader].control.clone();
            for (id, peer) in peers {
                let slot = id.slot();
                if self.slots.life(id) == Life::Vacant || slot == reader {
                    continue;
                }
                if peer.attached {
                    self.slots.attach(reader, slot);
                }
                if self.slots.life(id) == Life::Forgotten {
                    self.notify(reader, &Notice::OwnerForgotten { owner: id }, Vec::new());
                }
                let Some(owner) = self.owners.get_mut(&slot).filter(|owner| owner.id == id) else { continue };
                if !is_control_of(owner, &peer) {
                    tracing::warn!(reader, %id, "a client has another control memory of an owner than the owner itself");
                    continue;
                }
                if peer.attached {
                    owner.add_reader(reader, control.clone());
                } else if let Some(adoption) = &mut owner.adoption {
                    adoption.custodian = Some(reader);
                }
                if let Some(adoption) = &mut owner.adoption {
                    adoption.entrusted.extend(peer.kept.keys());
                }
                let alive = owner.is_alive();
                for (number, (bytes, descriptor)) in peer.mapped {
                    let class = if alive { Class::Retired } else { Class::Adopted };
                    self.resume_segment(id, number, class, bytes, descriptor);
                    self.segments.resume_map(reader, slot, number);
                    if self.segments.get(slot, number).is_none() {
                        // It may not have heard of that before the daemon was killed.
                        let retired = Notice::SegmentRetired { owner: id, segment: number };
                        self.notify(reader, &retired, Vec::new());
                    }
                }
                for (number, (bytes, descriptor)) in peer.kept.into_iter().filter(|_| !alive) {
                    self.resume_segment(id, number, Class::Adopted, bytes, descriptor);
                }
                for (number, (bytes, file)) in peer.kept_files.into_iter().filter(|_| !alive) {
                    self.spilling.resume_file(slot, number, bytes, file);
                }
            }
        }
    }

    /// A segment that its owner has not handed back, unless another reader was faster.
    fn resume_segment(&mut self, owner: OwnerId, number: u32, class: Class, bytes: u64, descriptor: OwnedFd) {
        if self.segments.contains(owner.slot(), number) {
            return;
        }
        match Memory::returned_read_only(descriptor, bytes) {
            Ok(memory) => {
                self.segments.resume(owner.slot(), number, class, bytes, memory);
                self.count_pages(owner.slot(), number);
            }
            Err(error) => tracing::warn!(%owner, number, %error, "a segment cannot be taken over"),
        }
    }

    /// What the dead had is taken over before anything is let go of: their objects keep others. `false` when something
    /// cannot be read for now, and is tried again later; then what it keeps is not known.
    fn look_through_the_dead(&mut self, now: Instant) -> bool {
        for slot in self.dead() {
            let mut before = None;
            while let Some(next) = self.next_to_take(slot).filter(|next| before != Some(*next)) {
                before = Some(next);
                self.take_over(slot, now);
            }
        }
        self.dead().into_iter().all(|slot| self.next_to_take(slot).is_none())
    }

    fn next_to_take(&self, slot: u16) -> Option<u32> {
        self.owners.get(&slot)?.adoption.as_ref()?.next_to_take()
    }

    fn dead(&self) -> Vec<u16> {
        self.owners.iter().filter(|(_, owner)| !owner.is_alive()).map(|(slot, _)| *slot).collect()
    }

    /// Who keeps something of the dead may not have been given all of it.
    fn resume_custody(&mut self) {
        for slot in self.dead() {
            for keeper in self.keepers(slot) {
                self.entrust_reader(keeper, slot);
            }
        }
    }

    /// Tells every owner of the readers that it does not know, and of those that are gone.
    fn resume_introductions(&mut self, known: BTreeMap<u16, (u64, BTreeSet<OwnerId>)>) {
        for (slot, (heard, known)) in known {
            let readers = self.slots.readers(slot);
            let readers: Vec<&Owner> = readers.iter().filter_map(|reader| self.owners.get(reader)).collect();
            let mut notices = Vec::new();
            for reader in readers.iter().filter(|reader| !known.contains(&reader.id)) {
                let Ok(parcel) = reader.control.to_read() else { continue };
                let joined = Notice::ReaderJoined { reader: reader.id };
                notices.push((joined, vec![parcel, Parcel::Bell(reader.bell.clone())]));
            }
            let joined = notices.len() as u64;
            for gone in known.iter().filter(|known| !readers.iter().any(|reader| reader.id == **known)) {
                notices.push((Notice::ReaderGone { reader: *gone }, Vec::new()));
            }
            // Before they are told, as ever; and it is never what the owner has heard while it has one to hear of.
            self.directory_writer.set_readers(slot, heard.wrapping_add(joined));
            failpoint(Failpoint::RestartReaders);
            for (notice, parcels) in notices {
                self.notify(slot, &notice, parcels);
            }
        }
    }

    fn resume_channels(&mut self, channels: &BTreeMap<OwnerId, BTreeMap<u64, OwnerId>>) {
        for (one, theirs) in channels {
            for (channel, other) in theirs {
                let both = channels.get(other).is_some_and(|of_other| of_other.get(channel) == Some(one));
                if both {
                    self.channels.resume(*channel, [one.slot(), other.slot()]);
                } else {
                    self.notify(one.slot(), &Notice::ChannelClosed { channel: *channel }, Vec::new());
                }
            }
        }
    }

    /// The names whose objects are still there, with the daemon's holds on them.
    fn resume_names(&mut self) {
        for place in 0..self.name_records.used() {
            let Some((name, object)) = self.name_records.load(place) else { continue };
            let object = ObjectId::from_bytes(object);
            if self.names.get(&name).is_none() && self.hold(object) {
                self.names.insert_at(place, name, object);
            } else {
                self.name_records.clear(place);
            }
        }
    }

    /// Takes back the pins of the daemon before that have no reason any more.
    fn drop_unexplained_pins(&mut self) {
        for owner in self.owners.values() {
            owner.daemon_pins.retain(owner.entries, |index| self.holds.contains(owner.id, index));
        }
    }
}

/// What else a client has said.
struct Said {
    readers: BTreeSet<OwnerId>,
    channels: BTreeMap<u64, OwnerId>,
}

fn is_control_of(owner: &Owner, peer: &Peer) -> bool {
    let ours = identity(owner.control.writable()).ok();
    ours.is_some() && ours == identity(peer.control.as_fd()).ok()
}
