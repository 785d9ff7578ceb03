//! Leases: granting them, and the queue of requests that wait for room.
//!
//! While a request waits, room is [made](super::pressure). When that has not helped within [`FIRST_PERIOD`], owners
//! punch holes into the segments in which objects lie, and [spill](crate::daemon::spill::policy) objects that are not
//! in use. All of it is repeated every [`PRESSURE_PERIOD`], because no message tells the daemon when a reader drops an
//! object.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mobula_protocol::message::{Refusal, Reply};
use mobula_shm::memory::round_up_to_pages;

use crate::config::Config;
use crate::core::fair::FairQueueing;
use crate::core::waiters::Waiters;
use crate::daemon::answer::{Answer, Outcome, Patient, no_memory};
use crate::daemon::client::quota::{self, Scope};
use crate::daemon::contents::Contents;
use crate::daemon::memory::prefault::{Prefault, Prefaults};
use crate::daemon::memory::pressure::{Pressure, remove_names};
use crate::daemon::registry::Registry;
use crate::memory::Memory;

/// How long owners have for freeing objects that nobody uses before they are asked to spill. It is short, because a
/// program that puts more than fits waits for this time repeatedly.
const FIRST_PERIOD: Duration = Duration::from_millis(10);
/// How often room is made while a request waits for it: enough time for owners to give memory back.
const PRESSURE_PERIOD: Duration = Duration::from_millis(100);

/// A lease that a client waits for.
#[derive(Debug)]
struct Wanted {
    bytes: u64,
    /// The earliest moment at which the request may get a [reservation](crate::core::fair).
    reservation_from: Instant,
}

/// The leases that clients wait for.
pub(crate) struct Leases {
    queue: Waiters<Wanted>,
    fair: FairQueueing,
    prefaults: Prefaults,
    pressure: Pressure,
    /// When room is made next.
    pressure_due: Option<Instant>,
    /// The [relief count](Registry::relief_count) and the reservation of the last look through the queue. While they
    /// are the same, no request in the queue fits.
    looked_through: Option<(u64, Option<u64>)>,
}

impl Leases {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            queue: Waiters::new(),
            fair: FairQueueing::new(config.lease_reservation),
            prefaults: Prefaults::default(),
            pressure: Pressure::default(),
            pressure_due: None,
            looked_through: None,
        }
    }

    // ---- requests ----

    /// Leases a segment, now or as soon as there is room.
    pub(crate) fn lease(
        &mut self,
        contents: &mut Contents,
        request: Patient,
        requested_bytes: u64,
    ) -> Outcome {
        let (client, now) = (request.client, request.now);
        let capacity_bytes = contents.registry.config.capacity_bytes;
        let bytes = round_up_to_pages(requested_bytes.max(1)).filter(|bytes| *bytes <= capacity_bytes);
        let bytes = bytes.ok_or(Refusal::TooLarge { requested_bytes, capacity_bytes })?;
        quota::check_quotas(&contents.registry, client, bytes)?;
        if let Some((scope, missing)) = quota::shortage(&contents.registry, client, bytes) {
            if request.timeout_ms > 0 {
                remove_names(contents, scope, missing);
            }
            self.pressure.reclaim(contents, scope, missing, now);
        }
        let registry = &mut contents.registry;
        if quota::shortage(registry, client, bytes).is_none() && self.reserved(registry, now).is_none() {
            return self.grant(registry, client, request.correlation, bytes);
        }
        if request.timeout_ms == 0 {
            return Err(self.no_room(contents, client, bytes, now));
        }
        let timeout = Duration::from_millis(request.timeout_ms);
        let wanted = Wanted { bytes, reservation_from: self.fair.earliest(now, timeout) };
        self.queue.push(request.waits_for(wanted)?);
        self.pressure_due.get_or_insert(now + FIRST_PERIOD);
        Ok(Answer::Later)
    }

    /// A client has found memory of its own, and no longer waits for a lease.
    pub(crate) fn withdraw(
        &mut self,
        contents: &mut Contents,
        client: u16,
        withdrawn: u64,
        now: Instant,
    ) -> Outcome {
        let ticket = self.queue.find(client, withdrawn);
        if let Some(waiter) = ticket.and_then(|ticket| self.queue.take(ticket)) {
            // Every request is answered once.
            let refusal = self.no_room(contents, client, waiter.wants.bytes, now);
            contents.registry.reply(client, withdrawn, &Reply::Failed { refusal }, Vec::new());
        }
        Answer::done()
    }

    /// A client gives a segment back.
    pub(crate) fn release(&mut self, registry: &mut Registry, client: u16, segment: u32) -> Outcome {
        if registry.retire(client, segment) {
            return Answer::done();
        }
        Err(Refusal::NoSuchSegment { owner: registry.owners[&client].id, segment })
    }

    /// A client has punched holes into a segment. The kernel says how many pages are left.
    pub(crate) fn holes_punched(&mut self, registry: &mut Registry, client: u16, segment: u32) -> Outcome {
        // Of a segment that is still being prefaulted, pages are missing that will come.
        let is_coming = self.prefaults.contains(client, segment);
        if is_coming || registry.segments.get(client, segment).is_none() {
            return Err(Refusal::NoSuchSegment { owner: registry.owners[&client].id, segment });
        }
        registry.count_pages(client, segment);
        Answer::done()
    }

    // ---- the queue ----

    /// Grants every waiting request that fits, in order, as far as no other has a reservation.
    pub(crate) fn serve(&mut self, contents: &mut Contents, now: Instant) {
        if self.queue.is_empty() {
            if contents.missing_to_restore() == 0 {
                self.pressure_due = None;
            }
            return;
        }
        let registry = &mut contents.registry;
        loop {
            let reserved = self.reserved(registry, now);
            let seen = Some((registry.relief_count(), reserved));
            if self.looked_through == seen {
                return;
            }
            let next = self.queue.first(|ticket, waiter| {
                reserved.is_none_or(|reserved| ticket <= reserved)
                    && quota::shortage(registry, waiter.client, waiter.wants.bytes).is_none()
            });
            let Some(waiter) = next.and_then(|ticket| self.queue.take(ticket)) else {
                self.looked_through = seen;
                return;
            };
            let (client, correlation) = (waiter.client, waiter.correlation);
            match self.grant(registry, client, correlation, waiter.wants.bytes) {
                Ok(Answer::Now(reply, attachments)) => {
                    registry.reply(client, correlation, &reply, attachments);
                }
                Ok(Answer::Later) => {}
                Err(refusal) => {
                    registry.reply(client, correlation, &Reply::Failed { refusal }, Vec::new());
                }
            }
        }
    }

    /// Answers the requests whose deadline has passed.
    pub(crate) fn expire(&mut self, contents: &mut Contents, now: Instant) {
        while let Some((_, waiter)) = self.queue.expired(now) {
            let refusal = self.no_room(contents, waiter.client, waiter.wants.bytes, now);
            let reply = Reply::Failed { refusal };
            contents.registry.reply(waiter.client, waiter.correlation, &reply, Vec::new());
        }
    }

    /// Allocates the next slice of a lease that is being prefaulted.
    pub(crate) fn go_on_prefaulting(&mut self, registry: &mut Registry) {
        self.prefaults.go_on(registry);
    }

    /// How many requests of a client wait.
    pub(crate) fn waiting(&self, client: u16) -> usize {
        self.queue.count(client)
    }

    /// A client has died: it waits no more.
    pub(crate) fn client_died(&mut self, client: u16) {
        self.queue.forget(client);
        self.prefaults.forget(client);
    }

    /// When this has something to do.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let prefault = (!self.prefaults.is_empty()).then_some(now);
        let reservation = self.fair.ends().filter(|_| !self.queue.is_empty());
        [prefault, reservation, self.queue.next_deadline(), self.pressure_due].into_iter().flatten().min()
    }

    // ---- making room ----

    /// Makes room for an orphan that is to be restored.
    pub(crate) fn make_room_to_restore(&mut self, contents: &mut Contents, now: Instant) {
        let missing = contents.missing_to_restore();
        if missing > 0 {
            remove_names(contents, Scope::Store, missing);
            self.pressure.reclaim(contents, Scope::Store, missing, now);
            self.pressure_due.get_or_insert(now + FIRST_PERIOD);
        }
    }

    pub(crate) fn pressure_is_due(&self, now: Instant) -> bool {
        self.pressure_due.is_some_and(|due| due <= now)
    }

    /// Makes room for the request that has a reservation, or else for the oldest one; and for the oldest request of
    /// each client and user that is at its quota.
    pub(crate) fn make_room(&mut self, contents: &mut Contents, now: Instant) {
        self.pressure_due = None;
        for (scope, missing) in self.quota_shortages(&contents.registry) {
            remove_names(contents, scope, missing);
            self.pressure.punch_holes(contents, scope, missing, now);
        }
        let missing = self.missing_bytes(contents, now);
        if missing > 0 {
            remove_names(contents, Scope::Store, missing);
            self.pressure.punch_holes(contents, Scope::Store, missing, now);
            if self.ask_to_spill(contents, now) > 0 {
                contents.evict_orphans(now);
                contents.give_up_restores(now);
            }
        }
        if missing > 0 || !self.queue.is_empty() {
            self.pressure_due = Some(now + PRESSURE_PERIOD);
        }
    }

    /// Asks an owner to spill if memory is missing; returns the number of missing bytes.
    pub(crate) fn ask_to_spill(&mut self, contents: &mut Contents, now: Instant) -> u64 {
        let missing = self.missing_bytes(contents, now);
        contents.spill_policy.ask(&mut contents.registry, missing, now);
        missing
    }

    /// Bytes that the store lacks for the request that has a reservation, or else for the oldest one.
    pub(crate) fn missing_bytes(&mut self, contents: &Contents, now: Instant) -> u64 {
        let registry = &contents.registry;
        let reserved = self.reserved(registry, now);
        let waiting =
            self.queue.iter().filter(|(ticket, _)| reserved.is_none_or(|reserved| *ticket == reserved));
        let mut shortages =
            waiting.filter_map(|(_, waiter)| quota::shortage(registry, waiter.client, waiter.wants.bytes));
        match shortages.find(|(scope, _)| *scope == Scope::Store) {
            Some((_, missing)) => missing,
            None => contents.missing_to_restore(),
        }
    }

    /// When the current reservation ends.
    #[cfg(test)]
    pub(crate) fn reservation_ends(&self) -> Option<Instant> {
        self.fair.ends()
    }

    /// Bytes that each client and user at its quota lacks for its oldest request.
    fn quota_shortages(&self, registry: &Registry) -> BTreeMap<Scope, u64> {
        let mut short = BTreeMap::new();
        for (_, waiter) in self.queue.iter() {
            if let Some((scope, missing)) = quota::shortage(registry, waiter.client, waiter.wants.bytes)
                && scope != Scope::Store
            {
                short.entry(scope).or_insert(missing);
            }
        }
        short
    }

    /// The ticket of the request that has a reservation. A client at its quota gets none: the memory that others give
    /// back would not help it.
    fn reserved(&mut self, registry: &Registry, now: Instant) -> Option<u64> {
        let served_by_others = self.queue.iter().filter(|(_, waiter)| {
            let shortage = quota::shortage(registry, waiter.client, waiter.wants.bytes);
            shortage.is_none_or(|(scope, _)| scope == Scope::Store)
        });
        let waiting = served_by_others.map(|(ticket, waiter)| (ticket, waiter.wants.reservation_from));
        self.fair.reserved(now, waiting)
    }

    /// Makes a segment. No other function does that. Its bytes count from now on, although its pages may not be
    /// allocated yet.
    fn grant(&mut self, registry: &mut Registry, client: u16, correlation: u64, bytes: u64) -> Outcome {
        quota::check_segments(registry, client)?;
        let memory = Memory::segment(bytes).map_err(|error| no_memory(bytes, &error))?;
        let segment = registry.segments.lease(client, bytes, memory.clone());
        let lease = Prefault { client, correlation, segment, memory, bytes, done: 0 };
        self.prefaults.allocate(registry, lease)
    }

    /// Why a client's request is not granted.
    fn no_room(&mut self, contents: &Contents, client: u16, requested_bytes: u64, now: Instant) -> Refusal {
        let registry = &contents.registry;
        let shortage = quota::shortage(registry, client, requested_bytes);
        if let Some(refusal) =
            shortage.and_then(|(scope, _)| quota::over_quota(registry, scope, requested_bytes))
        {
            return refusal;
        }
        let free_bytes = if self.reserved(registry, now).is_some() { 0 } else { registry.segments.free() };
        let capacity_bytes = registry.config.capacity_bytes;
        match contents.spill_policy.failure(now) {
            Some(reason) => Refusal::SpillFailed { requested_bytes, capacity_bytes, free_bytes, reason },
            None => Refusal::StoreFull { requested_bytes, capacity_bytes, free_bytes },
        }
    }
}
