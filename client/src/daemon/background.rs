//! The client's one thread: it receives what the daemon sends, and looks after memory.
//!
//! While there are leases it also wakes by itself, from 10 ms apart to half a second when there is nothing to do: an
//! object that others still used when it was dropped here is looked at again, the last few that were dropped are freed,
//! a segment that has been empty for a while goes back to the daemon, and memory of the books for objects that are gone goes
//! back to the heap. Without leases, and with books that are no larger than they must be, it sleeps until the daemon speaks.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Notice, Reply, Request};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::heap;
use mobula_shm::memory::check_received;
use mobula_shm::pins::PinReader;

use crate::channel::{Event, Incoming};
use crate::daemon::connection::{Connection, Received};
use crate::daemon::reconnect;
use crate::shared::{Custody, Shared};
use crate::spill;

const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_millis(500);
/// How long an empty segment is kept, because it is warm.
const KEEP_EMPTY_MS: u64 = 1000;

/// Runs until the store is lost or the client is gone.
pub(crate) fn run(connection: &Arc<Connection>, client: &Weak<Shared>) {
    let (mut tick, mut unmet) = (TICK_MIN, Vec::new());
    loop {
        let timeout = match client.upgrade() {
            Some(shared) => {
                let work = shared.may_have_work() || connection.has_unsent() || !unmet.is_empty();
                work.then_some(tick)
            }
            None => return,
        };
        let received = connection.receive(timeout);
        if let Received::HungUp = received {
            // The client may end meanwhile.
            let found = !connection.is_ending() && reconnect::find_another(connection, client);
            if !found {
                connection.lose();
            }
            let Some(shared) = client.upgrade() else { return };
            event(&shared, if found { Event::StoreResumed } else { Event::StoreLost });
            if !found {
                return;
            }
            // The next daemon introduces everyone whom this client does not know.
            unmet.clear();
            continue;
        }
        let Some(shared) = client.upgrade() else { return };
        match received {
            Received::Notice(notice, descriptors) => {
                if let Err(error) = handle(&shared, notice, descriptors, &mut unmet) {
                    tracing::error!(%error, "could not act on a notice from the store");
                    tick = TICK_MIN;
                }
            }
            // Whoever asked for it has given up waiting: the lease is nobody's.
            Received::Orphan(Reply::Leased { segment, .. }) => {
                connection.tell(&Request::Release { segment });
            }
            Received::Orphan(Reply::Connected { channel, .. }) => {
                connection.tell(&Request::Disconnect { channel });
            }
            Received::Orphan(_) | Received::HungUp => {}
            Received::Nothing => {
                tick = if tidy(&shared) { TICK_MIN } else { (tick * 2).min(TICK_MAX) };
                for reader in &unmet {
                    connection.tell(&Request::RepeatReader { reader: *reader });
                }
            }
        }
    }
}

/// Frees and gives back what can be; `true` if there was anything that nobody else would have looked after.
fn tidy(shared: &Arc<Shared>) -> bool {
    let now = shared.now_ms();
    shared.own.set_now(now);
    let freed = shared.free_deferred();
    // While a program puts and drops there is always some, and it works that off itself: no reason to come back soon.
    shared.free_pending();
    let released = now.checked_sub(KEEP_EMPTY_MS).is_some_and(|before| shared.release_empty(before));
    if shared.own.shrink_books() {
        heap::trim();
    }
    freed || released
}

/// `unmet` are the readers that could not be met for lack of descriptors or memory. Until they are, nothing is freed,
/// because they may pin anything.
fn handle(
    shared: &Arc<Shared>,
    notice: Notice,
    mut descriptors: Vec<OwnedFd>,
    unmet: &mut Vec<OwnerId>,
) -> Result<(), Box<dyn std::error::Error>> {
    use std::os::fd::AsFd;
    let mut take = || {
        if descriptors.is_empty() { Err("a descriptor is missing") } else { Ok(descriptors.remove(0)) }
    };
    match notice {
        Notice::ReaderJoined { reader } => {
            unmet.retain(|known| *known != reader);
            unmet.push(reader);
            let (control, bell) = (take()?, take()?);
            let slot = shared.own.id.slot();
            check_received(control.as_fd(), control_bytes(u32::from(slot) + 1))?;
            let pins = PinReader::map(control.as_fd(), slot)?;
            shared.own.reader_joined(reader, pins, Bell::check_received(bell)?);
            unmet.pop();
        }
        Notice::ReaderGone { reader } => {
            if unmet.contains(&reader) {
                unmet.retain(|known| *known != reader);
                shared.own.reader_missed();
            }
            shared.own.reader_gone(reader);
            shared.collect();
        }
        Notice::OwnerDied { owner } => event(shared, Event::OwnerDied(owner)),
        Notice::OwnerForgotten { owner } => {
            drop(shared.custody.lock().remove(&owner));
            shared.forget_peer(owner);
        }
        Notice::SegmentRetired { owner, segment } => {
            let mut custody = shared.custody.lock();
            drop(custody.get_mut(&owner).and_then(|custody| custody.segments.remove(&segment)));
            drop(custody);
            if let Some(peer) = shared.known_peer(owner) {
                peer.retire(segment);
            }
        }
        Notice::EscrowOwner { owner } => {
            let (control, bell) = (take()?, take()?);
            let (segments, spill_files) = (BTreeMap::new(), BTreeMap::new());
            let custody = Custody { control, bell, segments, spill_files };
            shared.custody.lock().entry(owner).or_insert(custody);
        }
        Notice::EscrowSegment { owner, segment, bytes } => {
            let descriptor = take()?;
            if let Some(custody) = shared.custody.lock().get_mut(&owner) {
                custody.segments.insert(segment, (bytes, descriptor));
            }
        }
        Notice::EscrowSpillFile { owner, file, bytes } => {
            let descriptor = take()?;
            if let Some(custody) = shared.custody.lock().get_mut(&owner) {
                custody.spill_files.insert(file, (bytes, descriptor));
            }
        }
        Notice::SpillFileRetired { owner, file } => {
            let mut custody = shared.custody.lock();
            drop(custody.get_mut(&owner).and_then(|custody| custody.spill_files.remove(&file)));
        }
        Notice::Closing {} => shared.connection.daemon_ends(),
        Notice::Reclaim { .. } => {
            shared.collect();
            shared.release_empty(u64::MAX);
        }
        Notice::PunchHoles { bytes } => {
            shared.collect();
            shared.release_empty(u64::MAX);
            shared.shrink(bytes);
        }
        Notice::Spill { bytes } => spill::spill_soon(shared, bytes),
        Notice::RestoreWanted { object } => spill::restore_soon(shared, object),
        Notice::ChannelOpened { channel, peer, data_bytes } => {
            let ends = take().and_then(|mine| Ok((mine, take()?)));
            let (mine, theirs) = ends.inspect_err(|_| {
                // The other end hears that nobody is there, and whoever waits here that it need not.
                shared.connection.tell(&Request::Disconnect { channel });
                event(shared, Event::ChannelClosed(channel));
            })?;
            shared.channels.lock().insert(channel, peer);
            event(shared, Event::ChannelOpened(Incoming { channel, peer, data_bytes, mine, theirs }));
        }
        Notice::ChannelClosed { channel } => {
            shared.channels.lock().remove(&channel);
            event(shared, Event::ChannelClosed(channel));
        }
        other => tracing::warn!(?other, "a notice of a kind that this build does not know"),
    }
    Ok(())
}

fn event(shared: &Shared, event: Event) {
    if let Some(events) = &*shared.events.lock() {
        let _ = events.send(event);
    }
    // Whoever sleeps on the bell looks at the events too.
    shared.bell.ring();
}
