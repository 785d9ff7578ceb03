//! The contents of the store: all state of the daemon, except the queue for memory.
//!
//! Memory can come from every part of the contents: from names, from orphans, from spilling. So the queue for
//! [memory](crate::daemon::memory) uses the contents, and the contents do not know the queue.

use std::io;
use std::time::Instant;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Refusal;

use crate::config::Config;
use crate::daemon::answer::{Answer, Outcome, Patient};
use crate::daemon::names::NamedObjects;
use crate::daemon::orphans::Orphans;
use crate::daemon::registry::Registry;
use crate::daemon::spill::policy::SpillPolicy;
use crate::daemon::spill::waiting::RestoreRequests;
use crate::memory::Memory;

/// Clients with their belongings, names, spilled objects and orphans.
pub(crate) struct Contents {
    pub(crate) registry: Registry,
    pub(crate) names: NamedObjects,
    pub(crate) spill_policy: SpillPolicy,
    pub(crate) restore_requests: RestoreRequests,
    pub(crate) orphans: Orphans,
}

impl Contents {
    /// A store without clients, on the daemon's control memory. `epoch` tells its owners from those of stores before
    /// it.
    pub(crate) fn new(config: Config, epoch: u64, control: Memory) -> io::Result<Self> {
        let registry = Registry::new(config, epoch, control)?;
        Ok(Self {
            names: NamedObjects::new(&registry)?,
            registry,
            spill_policy: SpillPolicy::default(),
            restore_requests: RestoreRequests::new(),
            orphans: Orphans::default(),
        })
    }

    /// A living client has died.
    pub(crate) fn client_died(&mut self, slot: u16, now: Instant) {
        let id = self.registry.owners[&slot].id;
        self.names.client_died(slot);
        self.spill_policy.forget(slot);
        self.restore_requests.forget(slot, id);
        let Self { registry, names, restore_requests, orphans, .. } = self;
        orphans.owner_died(registry, names, restore_requests, slot, now);
    }

    /// Goes on with the remaining objects of all dead owners, one slice of each.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let Self { registry, names, restore_requests, orphans, .. } = self;
        orphans.sweep(registry, names, restore_requests, now);
    }

    /// Goes on with the takeover of one dead owner.
    pub(crate) fn take_over(&mut self, slot: u16, now: Instant) {
        let Self { registry, names, restore_requests, orphans, .. } = self;
        orphans.take_over(registry, names, restore_requests, slot, now);
    }

    /// Lets a client wait until an object of another owner is back in memory.
    pub(crate) fn restore(&mut self, request: Patient, object: ObjectId) -> Outcome {
        let Self { registry, restore_requests, orphans, .. } = self;
        let (answer, by_daemon) = restore_requests.wait(registry, request, object)?;
        if by_daemon {
            orphans.restore(registry, restore_requests, object);
        }
        Ok(answer)
    }

    /// An owner has restored an object of its own, or could not.
    pub(crate) fn restored(&mut self, client: u16, object: ObjectId, refusal: Option<Refusal>) -> Outcome {
        self.restore_requests.restored(&mut self.registry, client, object, refusal)?;
        Answer::done()
    }

    /// Reads the next slice of an orphan that is being restored.
    pub(crate) fn go_on_restoring(&mut self) {
        let Self { registry, restore_requests, orphans, .. } = self;
        orphans.restores().go_on(registry, restore_requests);
    }

    /// Begins to evict orphans, unless that is going on.
    pub(crate) fn evict_orphans(&mut self, now: Instant) {
        self.orphans.evict(&mut self.registry, &mut self.spill_policy, now);
    }

    /// Continues the eviction of orphans; `true` when it has ended without an error.
    pub(crate) fn go_on_evicting(&mut self, now: Instant) -> bool {
        self.orphans.go_on_evicting(&mut self.registry, &mut self.spill_policy, now)
    }

    /// While spilling fails, no memory comes free: clients read objects from their files instead.
    pub(crate) fn give_up_restores(&mut self, now: Instant) {
        let Some(reason) = self.spill_policy.failure(now) else { return };
        let Self { registry, restore_requests, orphans, .. } = self;
        orphans.restores().give_up(registry, restore_requests, &reason);
    }

    /// Whether an orphan can be restored further now.
    pub(crate) fn can_restore(&self) -> bool {
        self.orphans.can_restore(&self.registry, &self.restore_requests)
    }

    /// Bytes that are missing for the first orphan that is to be restored.
    pub(crate) fn missing_to_restore(&self) -> u64 {
        self.orphans.missing_bytes(&self.registry)
    }
}
