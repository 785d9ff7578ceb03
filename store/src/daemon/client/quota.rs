//! Quotas: what one client, or all clients of one user together, may have at a time.
//!
//! Who is at its quota of bytes is treated as everyone is when the store is full, but alone: it waits up to its timeout,
//! meanwhile it is asked to free what it can, and only names of its own objects are taken away. What a client has given
//! back counts as its own while others still have it mapped; what the dead have left counts as their user's.

use mobula_protocol::message::Refusal;
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::PIN_BYTES;
use mobula_shm::ring::end_bytes;
use mobula_shm::table::ENTRY_BYTES;

use crate::daemon::{Daemon, limit_reached};

/// Whose memory is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Client(u16),
    User(u32),
    Store,
}

impl Daemon {
    /// Why a client cannot have a lease of so many bytes now: where they are missing, and how many.
    pub(crate) fn shortage(&self, client: u16, bytes: u64) -> Option<(Scope, u64)> {
        let missing = |used: u64, max: u64| used.saturating_add(bytes).saturating_sub(max);
        let (client_max, user_max) = (self.config.client_bytes_max, self.config.user_bytes_max);
        // What is not limited is not counted either.
        if client_max < self.config.capacity_bytes {
            let missing = missing(self.segments.charged(client).1, client_max);
            if missing > 0 {
                return Some((Scope::Client(client), missing));
            }
        }
        if user_max < self.config.capacity_bytes {
            let user = self.owners[&client].user;
            let missing = missing(self.charged_to_user(user), user_max);
            if missing > 0 {
                return Some((Scope::User(user), missing));
            }
        }
        let missing = bytes.saturating_sub(self.segments.free());
        (missing > 0).then_some((Scope::Store, missing))
    }

    /// Whether an owner's objects count where memory is short.
    pub(crate) fn is_within(&self, scope: Scope, owner: u16) -> bool {
        match scope {
            Scope::Client(client) => owner == client,
            Scope::User(user) => self.owners.get(&owner).is_some_and(|owner| owner.user == user),
            Scope::Store => true,
        }
    }

    /// The refusal of a lease that is over a quota; `None` for the store itself.
    pub(crate) fn over_quota(&self, scope: Scope, requested: u64) -> Option<Refusal> {
        let (limit, max, used) = match scope {
            Scope::Client(client) => {
                ("client_bytes_max", self.config.client_bytes_max, self.segments.charged(client).1)
            }
            Scope::User(user) => ("user_bytes_max", self.config.user_bytes_max, self.charged_to_user(user)),
            Scope::Store => return None,
        };
        Some(Refusal::QuotaReached { limit: limit.to_owned(), max, used, requested })
    }

    /// Refuses at once what no waiting can bring below a quota.
    pub(crate) fn check_quotas(&self, client: u16, bytes: u64) -> Result<(), Refusal> {
        let scopes = [
            (Scope::Client(client), self.config.client_bytes_max),
            (Scope::User(self.owners[&client].user), self.config.user_bytes_max),
        ];
        match scopes
            .into_iter()
            .find(|(_, max)| bytes > *max)
            .and_then(|(scope, _)| self.over_quota(scope, bytes))
        {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Refuses a client one segment more than it may have.
    pub(crate) fn check_segments(&self, client: u16) -> Result<(), Refusal> {
        let limits = [
            ("segments_max", self.segments.count(), self.config.segments_max),
            ("segments_client_max", self.segments.charged(client).0, self.config.segments_client_max),
        ];
        match limits.into_iter().find(|(_, used, max)| used >= max) {
            Some((limit, _, max)) => Err(limit_reached(limit, max as u64)),
            None => Ok(()),
        }
    }

    /// Refuses tables, pins or channels beyond what all of them may take.
    pub(crate) fn check_bookkeeping(&self, requested: u64) -> Result<(), Refusal> {
        let tables = self.owners.values().map(|owner| {
            let pinned_by = 2 + self.slots.reader_count(owner.id.slot()) as u64;
            PAGE_BYTES + u64::from(owner.entries) * (ENTRY_BYTES + pinned_by * PIN_BYTES)
        });
        let used = tables.sum::<u64>() + self.channels.count() as u64 * self.channel_bytes();
        let max = self.config.bookkeeping_bytes_max;
        if used.saturating_add(requested) > max {
            return Err(Refusal::QuotaReached {
                limit: "bookkeeping_bytes_max".to_owned(),
                max,
                used,
                requested,
            });
        }
        Ok(())
    }

    /// What a new client's table and pins take.
    pub(crate) fn client_bytes(&self) -> u64 {
        PAGE_BYTES + u64::from(self.config.table_entries_initial) * (ENTRY_BYTES + 2 * PIN_BYTES)
    }

    /// What a channel takes.
    pub(crate) fn channel_bytes(&self) -> u64 {
        2 * end_bytes(self.config.ring_bytes)
    }

    fn charged_to_user(&self, user: u32) -> u64 {
        let owned = self.owners.iter().filter(|(_, owner)| owner.user == user);
        owned.map(|(slot, _)| self.segments.charged(*slot).1).sum()
    }
}
