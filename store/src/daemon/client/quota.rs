//! Quotas: the limits of one client, and of all clients of one user together.
//!
//! A client at its quota of bytes is treated as all clients are when the store is full, but alone: it waits up to its
//! timeout, is asked to free what it can, and loses only names of its own objects. Segments that a client has given
//! back count as its own while others have them mapped. Memory that dead clients have left counts as their user's.

use mobula_protocol::message::Refusal;
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::PIN_BYTES;
use mobula_shm::ring::end_bytes;
use mobula_shm::table::ENTRY_BYTES;

use crate::daemon::answer::limit_reached;
use crate::daemon::registry::Registry;

/// The part of the store in which memory is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// A client is at its quota.
    Client(u16),
    /// The clients of a user are at their quota.
    User(u32),
    /// The store is full.
    Store,
}

/// Why a client cannot have a lease of this size now: where bytes are missing, and how many; `None` if it can.
pub(crate) fn shortage(registry: &Registry, client: u16, bytes: u64) -> Option<(Scope, u64)> {
    let missing = |used: u64, max: u64| used.saturating_add(bytes).saturating_sub(max);
    let (client_max, user_max) = (registry.config.client_bytes_max, registry.config.user_bytes_max);
    // A quota that limits nothing costs no counting.
    if client_max < registry.config.capacity_bytes {
        let missing = missing(registry.segments.charged(client).1, client_max);
        if missing > 0 {
            return Some((Scope::Client(client), missing));
        }
    }
    if user_max < registry.config.capacity_bytes {
        let user = registry.owners[&client].user;
        let missing = missing(charged_to_user(registry, user), user_max);
        if missing > 0 {
            return Some((Scope::User(user), missing));
        }
    }
    let missing = bytes.saturating_sub(registry.segments.free());
    (missing > 0).then_some((Scope::Store, missing))
}

/// Whether an owner's objects count where memory is short.
pub(crate) fn is_within(registry: &Registry, scope: Scope, owner: u16) -> bool {
    match scope {
        Scope::Client(client) => owner == client,
        Scope::User(user) => registry.owners.get(&owner).is_some_and(|owner| owner.user == user),
        Scope::Store => true,
    }
}

/// The refusal of a lease that is over a quota; `None` for the store itself.
pub(crate) fn over_quota(registry: &Registry, scope: Scope, requested: u64) -> Option<Refusal> {
    let (limit, max, used) = match scope {
        Scope::Client(client) => {
            ("client_bytes_max", registry.config.client_bytes_max, registry.segments.charged(client).1)
        }
        Scope::User(user) => {
            ("user_bytes_max", registry.config.user_bytes_max, charged_to_user(registry, user))
        }
        Scope::Store => return None,
    };
    Some(Refusal::QuotaReached { limit: limit.to_owned(), max, used, requested })
}

/// Refuses a request that alone is over a quota, so waiting would not help.
pub(crate) fn check_quotas(registry: &Registry, client: u16, bytes: u64) -> Result<(), Refusal> {
    let scopes = [
        (Scope::Client(client), registry.config.client_bytes_max),
        (Scope::User(registry.owners[&client].user), registry.config.user_bytes_max),
    ];
    let over = scopes.into_iter().find(|(_, max)| bytes > *max);
    match over.and_then(|(scope, _)| over_quota(registry, scope, bytes)) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

/// Refuses a client one segment more than it may have.
pub(crate) fn check_segments(registry: &Registry, client: u16) -> Result<(), Refusal> {
    let limits = [
        ("segments_max", registry.segments.count(), registry.config.segments_max),
        ("segments_client_max", registry.segments.charged(client).0, registry.config.segments_client_max),
    ];
    match limits.into_iter().find(|(_, used, max)| used >= max) {
        Some((limit, _, max)) => Err(limit_reached(limit, max as u64)),
        None => Ok(()),
    }
}

/// Refuses tables, pins or channels beyond the limit for all of them. If the request is not refused, its bytes count.
pub(crate) fn check_bookkeeping(registry: &Registry, requested: u64) -> Result<(), Refusal> {
    let max = registry.config.bookkeeping_bytes_max;
    registry.bookkeeping.take(requested, max, || bookkeeping_bytes(registry)).map_err(|used| {
        Refusal::QuotaReached { limit: "bookkeeping_bytes_max".to_owned(), max, used, requested }
    })
}

/// Bytes of all tables, pins and channels.
fn bookkeeping_bytes(registry: &Registry) -> u64 {
    let tables = registry.owners.values().map(|owner| {
        let pinned_by = 2 + registry.slots.reader_count(owner.id.slot()) as u64;
        PAGE_BYTES + u64::from(owner.entries) * (ENTRY_BYTES + pinned_by * PIN_BYTES)
    });
    tables.sum::<u64>() + registry.channels.count() as u64 * channel_bytes(registry)
}

/// Bytes of a new client's table and pins.
pub(crate) fn client_bytes(registry: &Registry) -> u64 {
    PAGE_BYTES + u64::from(registry.config.table_entries_initial) * (ENTRY_BYTES + 2 * PIN_BYTES)
}

/// Bytes of a channel.
pub(crate) fn channel_bytes(registry: &Registry) -> u64 {
    2 * end_bytes(registry.config.ring_bytes)
}

fn charged_to_user(registry: &Registry, user: u32) -> u64 {
    let owned = registry.owners.iter().filter(|(_, owner)| owner.user == user);
    owned.map(|(slot, _)| registry.segments.charged(*slot).1).sum()
}
