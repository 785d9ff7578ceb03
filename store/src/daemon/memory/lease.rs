//! Leases: granting them, letting requests wait for room, and making room.
//!
//! # Making room
//!
//! Capacity comes back when owners release segments. While a request waits, the daemon takes away the names that
//! nobody used for longest and whose objects nothing else keeps, sweeps what it has adopted, and asks everyone who has
//! leases to free what they can. When that has not helped within [`FIRST_PERIOD`], owners are asked to shrink the segments
//! in which objects lie, and to [spill](crate::daemon::spill::files) what is held but not in use. All of it again every [`PRESSURE_PERIOD`], because nobody tells
//! the daemon when a reader lets go. A request that does not wait costs nobody a name: what it might have brought would
//! come too late.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use mobula_protocol::id::ObjectId;

use mobula_protocol::message::{Notice, Refusal, Reply};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::memory::round_up_to_pages;
use mobula_shm::pins::PIN_BYTES;
use mobula_shm::table::{ENTRY_BYTES, State};

use crate::core::waiters::{Waiter, deadline};
use crate::daemon::client::quota::Scope;
use crate::daemon::memory::prefault::Filling;
use crate::daemon::{Answer, Daemon, Outcome, limit_reached};
use crate::memory::{Memory, no_memory};

/// How long owners have for freeing what nobody uses before they are asked to spill; short, because a program that puts
/// more than there is room for waits so long again and again.
const FIRST_PERIOD: Duration = Duration::from_millis(10);
/// How often room is made while somebody waits for it; time enough for owners to give back what was evicted before.
const PRESSURE_PERIOD: Duration = Duration::from_millis(100);
/// Requests that cannot wait make everyone reclaim no more often than this.
const RECLAIM_PERIOD: Duration = Duration::from_millis(10);
/// Names that are looked at in one search for something to evict.
const EVICTION_LOOKS_MAX: usize = 4096;

/// A lease that somebody waits for.
#[derive(Debug)]
pub(crate) struct Wanted {
    bytes: u64,
    /// From then on the request may have a [turn](crate::core::turns).
    turn_from: Instant,
}

/// When room is made next.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    due: Option<Instant>,
    /// Who has been asked to reclaim, and until when not again.
    reclaim_from: BTreeMap<Scope, Instant>,
    /// How often less was used, and who had the turn, when the waiting requests were last looked through. While that
    /// is so, and nobody's quota has changed, none of them fits.
    seen: Option<(u64, Option<u64>)>,
}

impl Pressure {
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Something counts as a user's no more.
    pub(crate) fn look_again(&mut self) {
        self.seen = None;
    }
}

impl Daemon {
    /// Leases a segment, now or as soon as there is room.
    pub(crate) fn lease(
        &mut self,
        client: u16,
        correlation: u64,
        requested_bytes: u64,
        timeout_ms: u64,
        now: Instant,
    ) -> Outcome {
        let capacity_bytes = self.config.capacity_bytes;
        let bytes = round_up_to_pages(requested_bytes.max(1)).filter(|bytes| *bytes <= capacity_bytes);
        let bytes = bytes.ok_or(Refusal::TooLarge { requested_bytes, capacity_bytes })?;
        self.check_quotas(client, bytes)?;
        if let Some((scope, missing)) = self.shortage(client, bytes) {
            if timeout_ms > 0 {
                self.evict(scope, missing, now);
            }
            self.make_room(scope, missing, now);
        }
        if self.shortage(client, bytes).is_none() && self.turn(now).is_none() {
            return self.grant(client, correlation, bytes);
        }
        if timeout_ms == 0 {
            return Err(self.no_room(client, bytes, now));
        }
        self.check_waiters(client)?;
        let wants = Wanted { bytes, turn_from: self.turns.earliest(now, Duration::from_millis(timeout_ms)) };
        self.leases.push(Waiter { client, correlation, deadline: deadline(now, timeout_ms), wants });
        self.pressure.due.get_or_insert(now + FIRST_PERIOD);
        Ok(Answer::Later)
    }

    /// A client has found memory of its own, and waits for a lease no longer.
    pub(crate) fn withdraw(&mut self, client: u16, withdrawn: u64, now: Instant) -> Outcome {
        let ticket = self.leases.find(client, withdrawn);
        if let Some(waiter) = ticket.and_then(|ticket| self.leases.take(ticket)) {
            // Every request is answered once.
            let refusal = self.no_room(client, waiter.wants.bytes, now);
            self.reply(client, withdrawn, &Reply::Failed { refusal }, Vec::new());
        }
        Answer::done()
    }

    /// Makes room for what waits for memory without having asked for a lease.
    pub(crate) fn begin_pressure(&mut self, missing: u64, now: Instant) {
        self.evict(Scope::Store, missing, now);
        self.make_room(Scope::Store, missing, now);
        self.pressure.due.get_or_insert(now + FIRST_PERIOD);
    }

    /// Bytes that the store misses for the request that has the turn, or else for whoever has waited longest.
    pub(crate) fn missing_bytes(&mut self, now: Instant) -> u64 {
        let turn = self.turn(now);
        let waiting = self.leases.iter().filter(|(ticket, _)| turn.is_none_or(|turn| *ticket == turn));
        let mut shortages =
            waiting.filter_map(|(_, waiter)| self.shortage(waiter.client, waiter.wants.bytes));
        match shortages.find(|(scope, _)| *scope == Scope::Store) {
            Some((_, missing)) => missing,
            None => self.missing_to_bring(),
        }
    }

    /// Bytes that each client and user at its quota misses for the first of its requests.
    fn quota_shortages(&self) -> BTreeMap<Scope, u64> {
        let mut short = BTreeMap::new();
        for (_, waiter) in self.leases.iter() {
            if let Some((scope, missing)) = self.shortage(waiter.client, waiter.wants.bytes)
                && scope != Scope::Store
            {
                short.entry(scope).or_insert(missing);
            }
        }
        short
    }

    /// A client gives a segment back.
    pub(crate) fn release(&mut self, client: u16, number: u32) -> Outcome {
        if self.retire(client, number) {
            Answer::done()
        } else {
            let owner = self.owners[&client].id;
            Err(Refusal::NoSuchSegment { owner, segment: number })
        }
    }

    /// A client has given pages of a segment back to the system. How many, the kernel says.
    pub(crate) fn shrunk(&mut self, client: u16, number: u32) -> Outcome {
        let owner = self.owners[&client].id;
        let no_such_segment = Refusal::NoSuchSegment { owner, segment: number };
        // Of one that is still being made, pages are missing that will come.
        let is_coming =
            self.fillings.iter().any(|filling| (filling.client, filling.segment) == (client, number));
        self.segments.get(client, number).filter(|_| !is_coming).ok_or(no_such_segment)?;
        self.count_pages(client, number);
        Answer::done()
    }

    /// Asks the kernel how many pages a segment has.
    pub(crate) fn count_pages(&mut self, owner: u16, number: u32) {
        let Some(segment) = self.segments.get(owner, number) else { return };
        match segment.memory.allocated_bytes() {
            Ok(allocated) => self.segments.count_anew(owner, number, allocated),
            Err(error) => tracing::warn!(owner, number, %error, "cannot count the pages of a segment"),
        }
    }

    /// No object lies in a segment any more: tells those who have it mapped. `false` when there is no such segment.
    pub(crate) fn retire(&mut self, owner: u16, number: u32) -> bool {
        let Some(mappers) = self.segments.release(owner, number) else { return false };
        failpoint(Failpoint::RetireReleased);
        let retired = Notice::SegmentRetired { owner: self.owners[&owner].id, segment: number };
        let told: BTreeSet<u16> = mappers.into_iter().chain(self.end_custody(owner, number)).collect();
        for client in told {
            self.notify(client, &retired, Vec::new());
        }
        true
    }

    /// Gives a client's table, and all pins on it, memory for more entries: at least twice as many as before, so that
    /// growing costs little for each of them.
    pub(crate) fn grow_table(&mut self, client: u16, needed: u32) -> Outcome {
        let max = self.config.table_entries_max;
        if needed > max {
            return Err(limit_reached("table_entries_max", max.into()));
        }
        let owner = &self.owners[&client];
        let before = owner.entries;
        let entries = if needed <= before { before } else { needed.max(before.saturating_mul(2)).min(max) };
        let pinned_by = 2 + self.slots.reader_count(client) as u64;
        self.check_bookkeeping(u64::from(entries - before) * (ENTRY_BYTES + pinned_by * PIN_BYTES))?;
        let new = before..entries;
        let allocate = || {
            owner.control.allocate_entries(new.clone())?;
            self.control.allocate_pins(client, new.clone())?;
            let readers = self.slots.readers(client);
            let readers = readers.iter().chain([&client]).filter_map(|reader| self.owners.get(reader));
            readers.map(|reader| &reader.control).try_for_each(|pins| pins.allocate_pins(client, new.clone()))
        };
        allocate().map_err(|error| {
            no_memory(u64::from(entries - before) * (ENTRY_BYTES + 2 * PIN_BYTES), &error)
        })?;
        failpoint(Failpoint::GrowAllocated);
        if let Some(owner) = self.owners.get_mut(&client) {
            owner.entries = entries;
        }
        self.directory_writer.set_committed(client, entries);
        Ok(Answer::Now(Reply::TableGrown { entries }, Vec::new()))
    }

    /// Grants every waiting request that fits, in order, as far as nobody has the turn.
    pub(crate) fn serve_leases(&mut self, now: Instant) {
        if self.leases.is_empty() {
            if self.missing_to_bring() == 0 {
                self.pressure.due = None;
            }
            return;
        }
        loop {
            let turn = self.turn(now);
            let seen = Some((self.segments.lessened(), turn));
            if self.pressure.seen == seen {
                return;
            }
            let next = self.leases.first(|ticket, waiter| {
                turn.is_none_or(|turn| ticket <= turn)
                    && self.shortage(waiter.client, waiter.wants.bytes).is_none()
            });
            let Some(waiter) = next.and_then(|ticket| self.leases.take(ticket)) else {
                self.pressure.seen = seen;
                return;
            };
            let (reply, parcels) = match self.grant(waiter.client, waiter.correlation, waiter.wants.bytes) {
                Ok(Answer::Now(reply, parcels)) => (reply, parcels),
                Ok(Answer::Later) => continue,
                Err(refusal) => (Reply::Failed { refusal }, Vec::new()),
            };
            self.reply(waiter.client, waiter.correlation, &reply, parcels);
        }
    }

    /// Answers the requests that have waited long enough.
    pub(crate) fn expire_leases(&mut self, now: Instant) {
        while let Some((_, waiter)) = self.leases.expired(now) {
            let refusal = self.no_room(waiter.client, waiter.wants.bytes, now);
            self.reply(waiter.client, waiter.correlation, &Reply::Failed { refusal }, Vec::new());
        }
    }

    /// Makes room for the request that has the turn, or else for the one that has waited longest; and for the first of
    /// each client and user that is at its quota.
    pub(crate) fn relieve(&mut self, now: Instant) {
        self.pressure.due = None;
        for (scope, missing) in self.quota_shortages() {
            self.evict(scope, missing, now);
            self.make_more_room(scope, missing, now);
        }
        let missing = self.missing_bytes(now);
        if missing > 0 {
            self.evict(Scope::Store, missing, now);
            self.make_more_room(Scope::Store, missing, now);
            let missing = self.missing_bytes(now);
            self.ask_to_spill(missing, now);
            if missing > 0 {
                self.empty_adopted(now);
                self.give_up_bringing(now);
            }
        }
        if missing > 0 || !self.leases.is_empty() {
            self.pressure.due = Some(now + PRESSURE_PERIOD);
        }
    }

    /// The ticket of the request that nobody may pass at the moment. Who is at its quota gets no turn: what others give
    /// back would not help it.
    fn turn(&mut self, now: Instant) -> Option<u64> {
        let due = self.leases.iter().filter(|(_, waiter)| {
            let shortage = self.shortage(waiter.client, waiter.wants.bytes);
            shortage.is_none_or(|(scope, _)| scope == Scope::Store)
        });
        let waiting = due.map(|(ticket, waiter)| (ticket, waiter.wants.turn_from));
        let mut turns = self.turns;
        let turn = turns.advance(now, waiting);
        self.turns = turns;
        turn
    }

    /// Refuses a request that would wait when the client has too many that do.
    pub(crate) fn check_waiters(&self, client: u16) -> Result<(), Refusal> {
        let waiting = self.leases.count(client) + self.lookups.count(client) + self.spilling.count(client);
        if waiting < self.config.waiters_max {
            Ok(())
        } else {
            Err(limit_reached("waiters_max", self.config.waiters_max as u64))
        }
    }

    /// The only place where a segment is made. Its bytes count from now on, although its pages may still have to come.
    fn grant(&mut self, client: u16, correlation: u64, bytes: u64) -> Outcome {
        self.check_segments(client)?;
        let memory = Memory::segment(bytes).map_err(|error| no_memory(bytes, &error))?;
        let segment = self.segments.lease(client, bytes, memory.clone());
        self.fill(Filling { client, correlation, segment, memory, bytes, filled: 0 })
    }

    fn make_room(&mut self, scope: Scope, missing: u64, now: Instant) {
        self.sweep(now);
        self.send_away(missing);
        self.pressure.reclaim_from.retain(|_, from| *from > now);
        if self.pressure.reclaim_from.contains_key(&scope) {
            return;
        }
        self.pressure.reclaim_from.insert(scope, now + RECLAIM_PERIOD);
        self.notify_holders(scope, &Notice::Reclaim { bytes: missing });
    }

    /// As [`make_room`](Self::make_room), for when that was not enough: owners also give back unused pages of segments that
    /// still hold objects.
    fn make_more_room(&mut self, scope: Scope, missing: u64, now: Instant) {
        self.sweep(now);
        self.send_away(missing);
        self.pressure.reclaim_from.insert(scope, now + RECLAIM_PERIOD);
        self.notify_holders(scope, &Notice::PunchHoles { bytes: missing });
    }

    /// Tells everyone alive who has leases where memory is short.
    fn notify_holders(&mut self, scope: Scope, notice: &Notice) {
        let living = self.owners.iter().filter(|(_, owner)| owner.is_alive()).map(|(slot, _)| *slot);
        let living = living.filter(|slot| self.is_within(scope, *slot));
        let holders: Vec<u16> = living.filter(|slot| self.segments.held_by(*slot).0 > 0).collect();
        for holder in holders {
            self.notify(holder, notice, Vec::new());
        }
    }

    /// Takes names away, the least recently used first, until objects of `missing` bytes have lost theirs. An object is
    /// used as recently as the last of its names.
    fn evict(&mut self, scope: Scope, missing: u64, now: Instant) {
        let mut evicted = Vec::new();
        let mut passed: HashMap<ObjectId, Vec<Vec<u8>>> = HashMap::new();
        let (mut bytes, mut looks) = (0u64, 0);
        for (name, object) in self.names.least_recent().take(EVICTION_LOOKS_MAX) {
            if bytes >= missing {
                break;
            }
            looks += 1;
            let names = passed.entry(object).or_default();
            names.push(name.to_vec());
            if names.len() < self.names.count_of(object) as usize {
                continue;
            }
            let Some(owner) = self.owners.get(&object.owner().slot()) else { continue };
            let kept = self.holds.count(object.owner(), object.index()) as usize > names.len()
                || !self.is_within(scope, object.owner().slot());
            // What is in a file takes no memory.
            let in_memory = owner.word(object.index()).state() != Some(State::Spilled);
            if !kept && in_memory && !owner.is_pinned(object.index()) {
                bytes = bytes.saturating_add(owner.location(object.index()).length);
                evicted.append(names);
            }
        }
        for name in evicted {
            tracing::debug!(name = %String::from_utf8_lossy(&name), "evicted");
            self.drop_name(&name, now);
        }
        if bytes < missing && looks == EVICTION_LOOKS_MAX {
            // What is kept is in use: the next search begins behind it, or it would never come to the others.
            passed.values().flatten().for_each(|name| self.names.touch(name));
        }
    }

    /// Why a client's request is not granted after all.
    fn no_room(&mut self, client: u16, requested_bytes: u64, now: Instant) -> Refusal {
        let shortage = self.shortage(client, requested_bytes);
        if let Some(refusal) = shortage.and_then(|(scope, _)| self.over_quota(scope, requested_bytes)) {
            return refusal;
        }
        let free_bytes = if self.turn(now).is_some() { 0 } else { self.segments.free() };
        let capacity_bytes = self.config.capacity_bytes;
        match self.spill_failure(now) {
            Some(reason) => Refusal::SpillFailed { requested_bytes, capacity_bytes, free_bytes, reason },
            None => Refusal::StoreFull { requested_bytes, capacity_bytes, free_bytes },
        }
    }
}
