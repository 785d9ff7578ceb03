//! Orphans: the objects of dead owners.
//!
//! 1. *[Takeover](takeover).* The daemon becomes the one writer of the dead client's table.
//! 2. *Detaching.* Only then do the dead client's own pins cease to count. The client may have kept objects alive
//!    through an object that others can still reach; the daemon keeps those objects now.
//! 3. *[Sweep](sweep).* After a grace period, for ids that are still on their way to a client, every entry that no
//!    client pins is freed. An owner without entries is forgotten. Segments in which a client holds an object go into
//!    [escrow].
//!
//! Objects that the client had spilled stay in its files until a client [waits](restore) for them. When memory is
//! short, objects that it had in memory are [evicted](evict). Everything goes in slices, between which clients are
//! served.

use std::time::Instant;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Notice;
use mobula_shm::failpoints::{Failpoint, failpoint};

use crate::daemon::client::{attach, channels};
use crate::daemon::names::NamedObjects;
use crate::daemon::registry::Registry;
use crate::daemon::registry::remaining::RemainingObjects;
use crate::daemon::spill::policy::SpillPolicy;
use crate::daemon::spill::waiting::RestoreRequests;

pub(crate) mod escrow;
pub(crate) mod evict;
pub(crate) mod references;
pub(crate) mod restore;
pub(crate) mod sweep;
pub(crate) mod takeover;

use evict::Eviction;
use restore::OrphanRestores;
use sweep::{SWEEP_PERIOD_MIN, SweepTimer, Swept};
use takeover::Progress;

/// The work on orphans that is going on.
#[derive(Default)]
pub(crate) struct Orphans {
    sweep: SweepTimer,
    restores: OrphanRestores,
    /// The segment that is being written into a file.
    eviction: Option<Eviction>,
}

impl Orphans {
    /// A client's process or its connection is gone: its objects are orphans from now on.
    pub(crate) fn owner_died(
        &mut self,
        registry: &mut Registry,
        names: &mut NamedObjects,
        requests: &mut RestoreRequests,
        slot: u16,
        now: Instant,
    ) {
        let grace_ends = now + registry.config.orphan_grace;
        let remaining = RemainingObjects::new(grace_ends, registry.config.references_max);
        let Some(owner) = registry.owners.get_mut(&slot) else { return };
        owner.remaining = Some(remaining);
        channels::disconnect_all(registry, slot);
        registry.slots.die(slot);
        registry.segments.owner_died(slot);
        // It may have punched holes, and died before it said so.
        registry.segments.numbers(slot).into_iter().for_each(|number| registry.count_pages(slot, number));
        failpoint(Failpoint::TakeoverBegun);
        self.take_over(registry, names, requests, slot, now);
        escrow::holder_died(registry, slot);
    }

    /// Goes on with the remaining objects of all dead owners, one slice of each.
    pub(crate) fn sweep(
        &mut self,
        registry: &mut Registry,
        names: &mut NamedObjects,
        requests: &mut RestoreRequests,
        now: Instant,
    ) {
        self.sweep.begin();
        let mut freed = false;
        for slot in registry.dead() {
            let Some(remaining) = registry.remaining(slot) else { continue };
            if !remaining.is_taken_over() {
                self.take_over(registry, names, requests, slot, now);
            } else if now < remaining.grace_ends && remaining.looked_at_all {
                self.sweep.run_at(remaining.grace_ends);
            } else {
                if let Some(Swept { goes_on, is_empty }) = sweep::sweep_slice(registry, slot, now) {
                    freed |= goes_on;
                    if is_empty {
                        self.forget(registry, names, requests, slot);
                    }
                }
                self.sweep.run_later(now);
            }
        }
        self.sweep.end(freed, !registry.dead().is_empty());
    }

    /// Takes over the next slice of a dead client's table, and finishes the takeover after the last one.
    pub(crate) fn take_over(
        &mut self,
        registry: &mut Registry,
        names: &mut NamedObjects,
        requests: &mut RestoreRequests,
        slot: u16,
        now: Instant,
    ) {
        match takeover::take_slice(registry, slot) {
            Some(Progress::Done) => self.finish_takeover(registry, names, requests, slot, now),
            Some(Progress::More) => self.sweep.run_soon(now),
            Some(Progress::Stuck) => self.sweep.run_at(now + SWEEP_PERIOD_MIN),
            None => {}
        }
    }

    /// Begins to restore an object that a client waits for.
    pub(crate) fn restore(
        &mut self,
        registry: &mut Registry,
        requests: &mut RestoreRequests,
        object: ObjectId,
    ) {
        self.restores.begin(registry, requests, object);
    }

    /// The objects that are being restored.
    pub(crate) fn restores(&mut self) -> &mut OrphanRestores {
        &mut self.restores
    }

    /// Whether an object can be restored further now.
    pub(crate) fn can_restore(&self, registry: &Registry, requests: &RestoreRequests) -> bool {
        self.restores.can_go_on(registry, requests)
    }

    /// Bytes that are missing for the first object that is to be restored.
    pub(crate) fn missing_bytes(&self, registry: &Registry) -> u64 {
        self.restores.missing_bytes(registry)
    }

    /// Begins to evict a segment of a dead owner, unless an eviction is running or there is none.
    pub(crate) fn evict(&mut self, registry: &mut Registry, policy: &mut SpillPolicy, now: Instant) {
        if self.eviction.is_some() || !registry.spill_files.have_disk() {
            return;
        }
        match Eviction::begin(registry, now) {
            Ok(eviction) => self.eviction = eviction,
            Err(refusal) => policy.refused(refusal, now),
        }
    }

    /// Continues the running eviction; `true` when it has ended without an error.
    pub(crate) fn go_on_evicting(
        &mut self,
        registry: &mut Registry,
        policy: &mut SpillPolicy,
        now: Instant,
    ) -> bool {
        let Some(eviction) = self.eviction.take_if(|eviction| eviction.is_written(now)) else { return false };
        match eviction.finish(registry) {
            Ok(()) => true,
            Err(error) => {
                policy.failed(error.to_string(), now);
                false
            }
        }
    }

    /// The eviction that is running.
    #[cfg(test)]
    pub(crate) fn eviction(&mut self) -> Option<&mut Eviction> {
        self.eviction.as_mut()
    }

    /// Something has happened that may free objects.
    pub(crate) fn sweep_soon(&mut self, now: Instant) {
        self.sweep.run_soon(now);
    }

    pub(crate) fn sweep_is_due(&self, now: Instant) -> bool {
        self.sweep.is_due(now)
    }

    /// When [`sweep`](Self::sweep) or [`go_on_evicting`](Self::go_on_evicting) have something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let eviction = self.eviction.as_ref().map(Eviction::look_at);
        [self.sweep.due(), eviction].into_iter().flatten().min()
    }

    /// The daemon is now the writer of a dead client's whole table. The client's own pins and mappings cease to count,
    /// and its readers are told.
    fn finish_takeover(
        &mut self,
        registry: &mut Registry,
        names: &mut NamedObjects,
        requests: &mut RestoreRequests,
        slot: u16,
        now: Instant,
    ) {
        let readers = registry.slots.readers(slot);
        for owner in registry.slots.attached(slot) {
            attach::end_attachment(registry, slot, owner);
        }
        let Some(owner) = registry.owners.get_mut(&slot) else { return };
        owner.remove_reader(slot);
        failpoint(Failpoint::TakeoverDetached);
        let id = owner.id;
        let Some(remaining) = &owner.remaining else { return };
        let (is_empty, grace_ends) = (remaining.count() == 0, remaining.grace_ends);
        tracing::info!(%id, objects = remaining.count(), "client has died");
        let mut unused = registry.segments.numbers(slot);
        unused.retain(|number| !remaining.uses_segment(*number));
        registry.spill_files.discard_all_but(slot, |number| remaining.uses_file(number));
        for number in unused {
            registry.retire(slot, number);
        }
        for object in requests.waited_for(id) {
            self.restores.begin(registry, requests, object);
        }
        escrow::deposit_spill_files(registry, slot);
        names.remove_lost(registry, id);
        for reader in readers {
            // A process that waits for a promise hears of it from its client, which rings its own bell. The daemon
            // rings no bell: a client that has one can fill it, and can make the descriptor that all share a blocking
            // one.
            registry.notify(reader, &Notice::OwnerDied { owner: id }, Vec::new());
        }
        if is_empty {
            self.forget(registry, names, requests, slot);
        } else {
            self.sweep.run_soon(now);
            self.sweep.run_at(grace_ends);
        }
    }

    /// The last object of a dead client is gone.
    fn forget(
        &mut self,
        registry: &mut Registry,
        names: &mut NamedObjects,
        requests: &mut RestoreRequests,
        slot: u16,
    ) {
        self.restores.stop(registry, requests, slot);
        let holders = registry.escrow_holders(slot);
        let Some(owner) = registry.forget(slot) else { return };
        names.forget_owner(owner);
        for holder in holders {
            registry.notify(holder, &Notice::OwnerForgotten { owner }, Vec::new());
        }
        tracing::debug!(%owner, "owner is forgotten");
        if registry.slots.forget(slot) {
            registry.vacate(slot);
        }
    }
}
