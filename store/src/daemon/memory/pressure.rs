//! Making room: the daemon takes memory back while a request waits for it.
//!
//! Capacity comes back when owners release segments. The daemon removes the names that nobody has used for longest and
//! whose objects nothing else keeps, sweeps the orphans, evicts restored orphans, and asks all clients that have leases
//! to free what they can. A request that does not wait removes no name: the memory would come too late for it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Notice;
use mobula_shm::table::State;

use crate::daemon::client::quota::{self, Scope};
use crate::daemon::contents::Contents;
use crate::daemon::orphans::restore::evict_restored;
use crate::daemon::registry::Registry;

/// Clients are asked to reclaim no more often than this.
const RECLAIM_PERIOD: Duration = Duration::from_millis(10);
/// Names that one search for names to remove looks at.
const NAME_LOOKS_MAX: usize = 4096;

/// The scopes whose clients have been asked to reclaim, and the moment before which they are not asked again.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    asked_until: BTreeMap<Scope, Instant>,
}

impl Pressure {
    /// Sweeps, and asks the clients of a scope to free what they can.
    pub(crate) fn reclaim(&mut self, contents: &mut Contents, scope: Scope, missing: u64, now: Instant) {
        contents.sweep(now);
        evict_restored(&mut contents.registry, missing);
        self.asked_until.retain(|_, until| *until > now);
        if self.asked_until.contains_key(&scope) {
            return;
        }
        self.asked_until.insert(scope, now + RECLAIM_PERIOD);
        notify_holders(&mut contents.registry, scope, &Notice::Reclaim { bytes: missing });
    }

    /// As [`reclaim`](Self::reclaim). Clients also punch holes into segments in which objects lie. This is called when
    /// `reclaim` was not enough.
    pub(crate) fn punch_holes(&mut self, contents: &mut Contents, scope: Scope, missing: u64, now: Instant) {
        contents.sweep(now);
        evict_restored(&mut contents.registry, missing);
        self.asked_until.insert(scope, now + RECLAIM_PERIOD);
        notify_holders(&mut contents.registry, scope, &Notice::PunchHoles { bytes: missing });
    }
}

/// Removes names, the least recently used first, until objects of `missing` bytes have lost their names. The last use
/// of any of its names counts as the last use of an object. Returns the bytes.
pub(crate) fn remove_names(contents: &mut Contents, scope: Scope, missing: u64) -> u64 {
    let (registry, names) = (&mut contents.registry, &mut contents.names);
    let mut removed = Vec::new();
    let mut passed: HashMap<ObjectId, Vec<Vec<u8>>> = HashMap::new();
    let (mut bytes, mut looks) = (0u64, 0);
    for (name, object) in names.known().least_recent().take(NAME_LOOKS_MAX) {
        if bytes >= missing {
            break;
        }
        looks += 1;
        let passed = passed.entry(object).or_default();
        passed.push(name.to_vec());
        if passed.len() < names.known().count_of(object) as usize {
            continue;
        }
        let Some(owner) = registry.owners.get(&object.owner().slot()) else { continue };
        let is_kept = registry.holds.count(object.owner(), object.index()) as usize > passed.len()
            || !quota::is_within(registry, scope, object.owner().slot());
        // A spilled object takes no memory.
        let in_memory = owner.word(object.index()).state() != Some(State::Spilled);
        if !is_kept && in_memory && !owner.is_pinned(object.index()) {
            bytes = bytes.saturating_add(owner.location(object.index()).length);
            removed.append(passed);
        }
    }
    for name in removed {
        tracing::debug!(name = %String::from_utf8_lossy(&name), "removed a name to make room");
        names.remove(registry, &name);
    }
    if bytes < missing && looks == NAME_LOOKS_MAX {
        // The names that stay are in use. The next search begins behind them, or it would never come to the others.
        names.touch(passed.values().flatten());
    }
    bytes
}

/// Tells every living client of a scope that has leases where memory is short.
fn notify_holders(registry: &mut Registry, scope: Scope, notice: &Notice) {
    let living = registry.living().filter(|slot| quota::is_within(registry, scope, *slot));
    let holders: Vec<u16> = living.filter(|slot| registry.segments.held_by(*slot).0 > 0).collect();
    for holder in holders {
        registry.notify(holder, notice, Vec::new());
    }
}
