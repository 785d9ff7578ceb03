//! The client's background thread: it receives the daemon's messages, and does the regular work on memory.
//!
//! While the client has leases, the thread also wakes by itself: every 10 ms at first, and at growing intervals while
//! there is nothing to do, up to half a second. At each tick it
//!
//! * looks again at the retry list: objects that other clients still used when this client dropped them;
//! * frees the objects of the retire list;
//! * gives a segment back that has been empty for a while;
//! * gives the heap's free pages back after many objects are gone.
//!
//! Without leases, and with a small state of the owner, the thread sleeps until the daemon sends something.

mod notices;
pub(crate) mod reconnect;

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Reply, Request};
use mobula_shm::heap;

use crate::daemon::connection::{Connection, Received};
use crate::event::Event;
use crate::owner::Owner;
use crate::shared::Shared;

const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_millis(500);
/// How long an empty segment is kept, because its pages are warm.
const KEEP_EMPTY_MS: u64 = 1000;

/// Runs until the store is lost or the client is gone.
pub(crate) fn run(connection: &Connection, client: &Weak<Shared>) {
    let began = Instant::now();
    let (mut tick, mut pending) = (TICK_MIN, PendingReaders::default());
    let mut ticked = began;
    loop {
        let timeout = match client.upgrade() {
            Some(shared) => {
                let has_work =
                    shared.owner.may_have_work() || connection.has_unsent() || !pending.readers.is_empty();
                has_work.then(|| tick.saturating_sub(ticked.elapsed()))
            }
            None => return,
        };
        let received = connection.receive(timeout);
        if let Received::HungUp = received {
            // The client may end meanwhile.
            let is_found = !connection.is_ending() && reconnect::find_another(connection, client);
            if !is_found {
                connection.lose();
            }
            let Some(shared) = client.upgrade() else { return };
            if is_found && shared.watches_names.load(Ordering::Acquire) {
                connection.tell(&Request::WatchNames {});
            }
            shared.events.send(if is_found { Event::StoreResumed } else { Event::StoreLost });
            if !is_found {
                return;
            }
            // The next daemon announces every reader that this client does not know.
            pending.readers.clear();
            continue;
        }
        let Some(shared) = client.upgrade() else { return };
        match received {
            Received::Notice(notice, descriptors) => {
                if let Err(error) = notices::handle(&shared, notice, descriptors, &mut pending) {
                    tracing::error!(%error, "could not act on a notice from the store");
                    tick = TICK_MIN;
                }
            }
            Received::Unclaimed(reply) => give_back(connection, &reply),
            // A reply is no tick: a tick looks at every object that others hold, and a program that names objects has
            // many of those, and a reply for each.
            Received::Nothing if ticked.elapsed() < tick => {}
            Received::Nothing => {
                ticked = Instant::now();
                let now_ms = began.elapsed().as_millis() as u64;
                tick = if tidy(&shared.owner, now_ms) { TICK_MIN } else { (tick * 2).min(TICK_MAX) };
                for reader in &pending.readers {
                    connection.tell(&Request::RepeatReader { reader: *reader });
                }
            }
            Received::HungUp => {}
        }
    }
}

/// Readers that the daemon has announced, and whose pins could not be mapped for lack of descriptors or memory. Nothing
/// is freed until they are mapped, because these readers may pin any object.
#[derive(Default)]
struct PendingReaders {
    readers: Vec<OwnerId>,
}

/// Frees objects and gives memory back. Returns `true` if there was any work that no other thread would have done.
fn tidy(owner: &Owner, now_ms: u64) -> bool {
    owner.set_now(now_ms);
    let freed = owner.free_retry_list();
    // While a program puts and drops, the retire list is never empty, and the program's own threads free it. That is no
    // reason to tick again soon.
    owner.free_retire_list();
    let released = now_ms.checked_sub(KEEP_EMPTY_MS).is_some_and(|before| owner.release_empty(before));
    if owner.trim() {
        heap::trim();
    }
    freed || released
}

/// Gives back the lease or the channel of a reply that came after its requester had given up.
fn give_back(connection: &Connection, reply: &Reply) {
    match reply {
        Reply::Leased { segment, .. } => connection.tell(&Request::Release { segment: *segment }),
        Reply::Connected { channel, .. } => connection.tell(&Request::Disconnect { channel: *channel }),
        _ => {}
    }
}
