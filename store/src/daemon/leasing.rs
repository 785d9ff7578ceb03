//! Leases: granting them, letting requests wait for room, and making room.
//!
//! # Making room
//!
//! Capacity comes back when owners release segments. While a request waits, the daemon takes away the names that
//! nobody used for longest and whose objects nothing else keeps, sweeps what it has adopted, and asks everyone who has
//! leases to free what they can. When that has not helped within [`FIRST_PERIOD`], owners are asked to
//! [spill](super::spilling) what is held but not in use. All of it again every [`PRESSURE_PERIOD`], because nobody tells
//! the daemon when a reader lets go. A request that does not wait costs nobody a name: what it might have brought would
//! come too late.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use mobula_protocol::id::ObjectId;

use mobula_protocol::message::{Notice, Refusal, Reply};
use mobula_shm::memory::round_up_to_pages;
use mobula_shm::pins::PIN_BYTES;
use mobula_shm::steps::{Step, step};
use mobula_shm::table::{ENTRIES_MAX, ENTRY_BYTES, State};

use super::filling::Filling;
use super::{Answer, Daemon, Outcome, limit_reached};
use crate::core::waiters::{Waiter, deadline};
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
pub(super) struct Wanted {
    bytes: u64,
    /// From then on the request may have a [turn](crate::core::turns).
    turn_from: Instant,
}

/// When room is made next.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    due: Option<Instant>,
    reclaim_from: Option<Instant>,
    /// What was free, and who had the turn, when the waiting requests were last looked through.
    seen: (u64, Option<u64>),
}

impl Pressure {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

impl Daemon {
    /// Leases a segment, now or as soon as there is room.
    pub(super) fn lease(
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
        if bytes > self.segments.free() {
            if timeout_ms > 0 {
                self.evict(bytes - self.segments.free(), now);
            }
            self.make_room(bytes - self.segments.free(), now);
        }
        if bytes <= self.segments.free() && self.turn(now).is_none() {
            return self.grant(client, correlation, bytes);
        }
        if timeout_ms == 0 {
            return Err(self.store_full(bytes, now));
        }
        self.check_waiters(client)?;
        let wants = Wanted { bytes, turn_from: self.turns.earliest(now, Duration::from_millis(timeout_ms)) };
        self.leases.push(Waiter { client, correlation, deadline: deadline(now, timeout_ms), wants });
        self.pressure.due.get_or_insert(now + FIRST_PERIOD);
        Ok(Answer::Later)
    }

    /// A client has found memory of its own, and waits for a lease no longer.
    pub(super) fn withdraw(&mut self, client: u16, withdrawn: u64, now: Instant) -> Outcome {
        let ticket = self.leases.find(client, withdrawn);
        if let Some(waiter) = ticket.and_then(|ticket| self.leases.take(ticket)) {
            // Every request is answered once.
            let refusal = self.store_full(waiter.wants.bytes, now);
            self.reply(client, withdrawn, &Reply::Failed { refusal }, Vec::new());
        }
        Answer::done()
    }

    /// Makes room for what waits for memory without having asked for a lease.
    pub(super) fn begin_pressure(&mut self, missing: u64, now: Instant) {
        self.evict(missing, now);
        self.make_room(missing, now);
        self.pressure.due.get_or_insert(now + FIRST_PERIOD);
    }

    /// Bytes that are missing for the request that has the turn, or else for whoever has waited longest.
    pub(super) fn missing_bytes(&mut self, now: Instant) -> u64 {
        let turn = self.turn(now);
        let waiting = self.leases.iter().find(|(ticket, _)| turn.is_none_or(|turn| *ticket == turn));
        match waiting {
            Some((_, waiter)) => waiter.wants.bytes.saturating_sub(self.segments.free()),
            None => self.missing_to_bring(),
        }
    }

    /// A client gives a segment back.
    pub(super) fn release(&mut self, client: u16, number: u32) -> Outcome {
        if self.retire(client, number) {
            Answer::done()
        } else {
            let owner = self.owners[&client].id;
            Err(Refusal::NoSuchSegment { owner, segment: number })
        }
    }

    /// No object lies in a segment any more: tells those who have it mapped. `false` when there is no such segment.
    pub(super) fn retire(&mut self, owner: u16, number: u32) -> bool {
        let Some(mappers) = self.segments.release(owner, number) else { return false };
        step(Step::RetireReleased);
        let retired = Notice::SegmentRetired { owner: self.owners[&owner].id, segment: number };
        let told: BTreeSet<u16> = mappers.into_iter().chain(self.end_custody(owner, number)).collect();
        for client in told {
            self.notify(client, &retired, Vec::new());
        }
        true
    }

    /// Gives a client's table, and all pins on it, memory for more entries: at least twice as many as before, so that
    /// growing costs little for each of them.
    pub(super) fn grow_table(&mut self, client: u16, needed: u32) -> Outcome {
        if needed > ENTRIES_MAX {
            return Err(limit_reached("table_entries_max", ENTRIES_MAX.into()));
        }
        let owner = &self.owners[&client];
        let before = owner.entries;
        let entries = if needed <= before { before } else { needed.max(before * 2).min(ENTRIES_MAX) };
        let new = before..entries;
        let allocate = || {
            owner.table.allocate_entries(new.clone())?;
            self.pin_file.allocate_pins(client, new.clone())?;
            let readers = self.slots.readers(client);
            let readers = readers.iter().chain([&client]).filter_map(|reader| self.owners.get(reader));
            readers
                .filter_map(|reader| reader.pin_file.as_ref())
                .try_for_each(|pin_file| pin_file.allocate_pins(client, new.clone()))
        };
        allocate().map_err(|error| {
            no_memory(u64::from(entries - before) * (ENTRY_BYTES + 2 * PIN_BYTES), &error)
        })?;
        step(Step::GrowAllocated);
        if let Some(owner) = self.owners.get_mut(&client) {
            owner.entries = entries;
        }
        self.directory_writer.set_committed(client, entries);
        Ok(Answer::Now(Reply::TableGrown { entries }, Vec::new()))
    }

    /// Grants every waiting request that fits, in order, as far as nobody has the turn.
    pub(super) fn serve_leases(&mut self, now: Instant) {
        if self.leases.is_empty() {
            if self.missing_to_bring() == 0 {
                self.pressure.due = None;
            }
            return;
        }
        loop {
            let (free, turn) = (self.segments.free(), self.turn(now));
            if self.pressure.seen == (free, turn) {
                return;
            }
            let next = self
                .leases
                .first(|ticket, waiter| waiter.wants.bytes <= free && turn.is_none_or(|turn| ticket <= turn));
            let Some(waiter) = next.and_then(|ticket| self.leases.take(ticket)) else {
                self.pressure.seen = (free, turn);
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
    pub(super) fn expire_leases(&mut self, now: Instant) {
        while let Some((_, waiter)) = self.leases.expired(now) {
            let refusal = self.store_full(waiter.wants.bytes, now);
            self.reply(waiter.client, waiter.correlation, &Reply::Failed { refusal }, Vec::new());
        }
    }

    /// Makes room for the request that has the turn, or else for the one that has waited longest.
    pub(super) fn relieve(&mut self, now: Instant) {
        self.pressure.due = None;
        let missing = self.missing_bytes(now);
        if missing > 0 || !self.leases.is_empty() {
            self.evict(missing, now);
            self.make_room(missing, now);
            let missing = self.missing_bytes(now);
            self.ask_to_spill(missing, now);
            if missing > 0 {
                self.empty_adopted(now);
            }
            self.pressure.due = Some(now + PRESSURE_PERIOD);
        }
    }

    /// The ticket of the request that nobody may pass at the moment.
    fn turn(&mut self, now: Instant) -> Option<u64> {
        let waiting = self.leases.iter().map(|(ticket, waiter)| (ticket, waiter.wants.turn_from));
        self.turns.advance(now, waiting)
    }

    /// Refuses a request that would wait when the client has too many that do.
    pub(super) fn check_waiters(&self, client: u16) -> Result<(), Refusal> {
        let waiting = self.leases.count(client) + self.lookups.count(client) + self.spilling.count(client);
        if waiting < self.config.waiters_max {
            Ok(())
        } else {
            Err(limit_reached("waiters_max", self.config.waiters_max as u64))
        }
    }

    /// The only place where a segment is made. Its bytes count from now on, although its pages may still have to come.
    fn grant(&mut self, client: u16, correlation: u64, bytes: u64) -> Outcome {
        if self.segments.count() >= self.config.segments_max {
            return Err(limit_reached("segments_max", self.config.segments_max as u64));
        }
        let memory = Memory::segment(bytes).map_err(|error| no_memory(bytes, &error))?;
        let segment = self.segments.lease(client, bytes, memory.clone());
        self.fill(Filling { client, correlation, segment, memory, bytes, filled: 0 })
    }

    fn make_room(&mut self, missing: u64, now: Instant) {
        self.sweep(now);
        self.send_away(missing);
        if self.pressure.reclaim_from.is_some_and(|from| now < from) {
            return;
        }
        self.pressure.reclaim_from = Some(now + RECLAIM_PERIOD);
        let living = self.owners.iter().filter(|(_, owner)| owner.is_alive()).map(|(slot, _)| *slot);
        let holders: Vec<u16> = living.filter(|slot| self.segments.held_by(*slot).0 > 0).collect();
        for holder in holders {
            self.notify(holder, &Notice::Reclaim { bytes: missing }, Vec::new());
        }
    }

    /// Takes names away, the least recently used first, until objects of `missing` bytes have lost theirs. An object is
    /// used as recently as the last of its names.
    fn evict(&mut self, missing: u64, now: Instant) {
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
            let kept = self.holds.count(object.owner(), object.index()) as usize > names.len();
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

    fn store_full(&mut self, requested_bytes: u64, now: Instant) -> Refusal {
        let free_bytes = if self.turn(now).is_some() { 0 } else { self.segments.free() };
        let capacity_bytes = self.config.capacity_bytes;
        match self.spill_failure(now) {
            Some(reason) => Refusal::SpillFailed { requested_bytes, capacity_bytes, free_bytes, reason },
            None => Refusal::StoreFull { requested_bytes, capacity_bytes, free_bytes },
        }
    }
}
