//! Worker leases: which call goes to which leased worker, and how many more workers to request. This part decides
//! without links; the submitter carries the decisions out.
//!
//! A request for a worker is never forgotten. While a call waits here, no leased worker has room for it, and the head
//! knows that this process wants a worker, or a grant is on its way. So after every change (a call is declined, a
//! worker is recalled or gone, a call comes late) the submitter asks two questions: [`next`](Leases::next), until it
//! returns `None`, and [`want`](Leases::want). The head's simulation explores this (`head/pool/calls`).
//!
//! All calls here demand the same resources; [`LeasesByDemand`](super::demands::LeasesByDemand) has leases for each
//! demand.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;
use rustc_hash::FxHashMap;

use crate::definition::Key;

/// A worker is sent calls that are together likely to run for this long.
const AHEAD_NANOS: u64 = 200_000;
/// This time while many more calls wait. The caller sleeps for a part of this time, and handles the results together.
const AHEAD_NANOS_MANY: u64 = 3_000_000;
/// A call that runs for at most this long may have one more call behind it, while many calls wait.
const PAIR_NANOS_MAX: u64 = 5_000_000;
/// The time of a call counts at most as this many times that of the calls before it, plus `SURPRISE_NANOS`.
const SURPRISE_MAX: u64 = 4;
const SURPRISE_NANOS: u64 = 1_000;
/// The most calls that are sent ahead to one worker.
const AHEAD_MAX: u64 = 256;
/// The approximate time in which a caller sends a call and receives its result.
const SEND_NANOS: u64 = 500;
/// The most workers requested at a time.
const WANT_MAX: usize = 64;
/// An idle lease is kept this long, because the next call often comes soon.
pub(crate) const LEASE_KEPT: Duration = Duration::from_millis(50);

/// Calls `C` that wait for workers, and the workers, which are reached by a `W`.
pub(crate) struct Leases<C, W> {
    waiting: VecDeque<(Key, C)>,
    leases: FxHashMap<OwnerId, Lease<W>>,
    /// The number of workers that were requested from the head, less those that it has granted since.
    wanted: usize,
    /// How long a call of each function runs, as a moving average.
    run_nanos: FxHashMap<Key, u64>,
    /// The worker that got the last call.
    chosen_last: Option<OwnerId>,
}

struct Lease<W> {
    worker: W,
    /// Calls that were sent and are not over.
    in_flight: u64,
    /// It declined a call, and has not finished one since.
    paused: bool,
    /// The head wants it back.
    recalled: bool,
    idle_since: Instant,
}

/// A worker that has room for one more call.
#[derive(Debug)]
pub(crate) struct Room<'a, W> {
    id: OwnerId,
    pub(crate) worker: &'a W,
    in_flight: &'a mut u64,
}

impl<W> Room<'_, W> {
    /// A call has been sent to the worker, whose number this returns.
    pub(crate) fn take(self) -> OwnerId {
        *self.in_flight += 1;
        self.id
    }
}

/// A lease that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) worker: OwnerId,
    /// The worker declined the last call: it is busy with calls of other processes.
    pub(crate) is_busy: bool,
}

impl<C, W> Default for Leases<C, W> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            leases: FxHashMap::default(),
            wanted: 0,
            run_nanos: FxHashMap::default(),
            chosen_last: None,
        }
    }
}

impl<C, W> Leases<C, W> {
    pub(crate) fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Whether calls wait for a worker.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The number of calls that wait for a worker.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The calls that wait for a worker.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &C> {
        self.waiting.iter().map(|(_, call)| call)
    }

    /// Whether it has a worker, a call that waits, or a request at the head.
    pub(crate) fn is_in_use(&self) -> bool {
        !self.leases.is_empty() || self.has_waiting() || self.wanted > 0
    }

    // ---- calls ----

    /// The worker that a new call can go to at once. `None` while other calls wait: they go first.
    pub(crate) fn room_at_once(&mut self, key: Key) -> Option<Room<'_, W>> {
        if self.waiting.is_empty() { self.room(key) } else { None }
    }

    pub(crate) fn worker(&self, worker: OwnerId) -> Option<&W> {
        Some(&self.leases.get(&worker)?.worker)
    }

    /// A call waits for a worker.
    pub(crate) fn queue(&mut self, key: Key, call: C) {
        self.waiting.push_back((key, call));
    }

    /// Queues a call again, before the calls that have not been sent yet.
    pub(crate) fn queue_again(&mut self, key: Key, call: C) {
        self.waiting.push_front((key, call));
    }

    /// The next call that waits, and the worker that has room for it.
    pub(crate) fn next(&mut self) -> Option<(C, Room<'_, W>)> {
        let (key, _) = self.waiting.front()?;
        let id = self.worker_with_room(*key)?;
        let lease = self.leases.get_mut(&id)?;
        let (_, call) = self.waiting.pop_front()?;
        Some((call, lease.room(id)))
    }

    /// Removes and returns those of the calls that wait.
    pub(crate) fn take_if(&mut self, is_chosen: impl Fn(&C) -> bool) -> Vec<C> {
        let mut taken = Vec::new();
        let waiting = std::mem::take(&mut self.waiting);
        for (key, call) in waiting {
            if is_chosen(&call) { taken.push(call) } else { self.waiting.push_back((key, call)) }
        }
        taken
    }

    /// A call that was sent to a worker has been removed there before it began. Returns whether [leases have
    /// ended](Self::take_ended) with it.
    pub(crate) fn call_removed(&mut self, worker: OwnerId, now: impl FnOnce() -> Instant) -> bool {
        let Some(lease) = self.leases.get_mut(&worker) else { return false };
        lease.in_flight = lease.in_flight.saturating_sub(1);
        let is_idle = lease.in_flight == 0;
        if is_idle && self.waiting.is_empty() {
            lease.idle_since = now();
        }
        is_idle && lease.recalled
    }

    /// Removes and returns all calls that wait: there will be no workers for them.
    pub(crate) fn take_waiting(&mut self) -> Vec<C> {
        self.wanted = 0;
        self.waiting.drain(..).map(|(_, call)| call).collect()
    }

    /// A call that was sent to a worker is over. `ran_nanos` is how long it ran; `None` means that the worker declined
    /// it. Returns whether [leases have ended](Self::take_ended) with it.
    pub(crate) fn call_over(
        &mut self,
        worker: OwnerId,
        key: Key,
        ran_nanos: Option<u64>,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        if let Some(nanos) = ran_nanos {
            let seen = self.run_nanos.entry(key).or_insert(nanos);
            // A call that was interrupted by the kernel says little about the function.
            let nanos = nanos.min(seen.saturating_mul(SURPRISE_MAX).saturating_add(SURPRISE_NANOS));
            *seen = (seen.saturating_mul(7).saturating_add(nanos)) / 8;
        }
        let Some(lease) = self.leases.get_mut(&worker) else { return false };
        lease.in_flight = lease.in_flight.saturating_sub(1);
        lease.paused = ran_nanos.is_none();
        let is_idle = lease.in_flight == 0;
        // A worker that declines is busy with calls of other processes: its lease is given back.
        lease.recalled |= lease.paused && is_idle;
        // While calls wait, the worker gets the next one and is not idle.
        if is_idle && self.waiting.is_empty() {
            lease.idle_since = now();
        }
        is_idle && lease.recalled
    }

    /// The workers that have calls of this process.
    pub(crate) fn at_work(&self) -> impl Iterator<Item = &W> {
        self.leases.values().filter(|lease| lease.in_flight > 0).map(|lease| &lease.worker)
    }

    // ---- workers ----

    /// The number of workers to request from the head; `None` if the last request still holds.
    pub(crate) fn want(&mut self) -> Option<u32> {
        let wanted = self.waiting.len().min(WANT_MAX);
        if wanted == self.wanted || wanted < self.wanted && wanted > 0 {
            return None;
        }
        self.wanted = wanted;
        Some(wanted as u32)
    }

    /// The head has granted a worker; `None` if the worker cannot be reached.
    pub(crate) fn granted(&mut self, id: OwnerId, worker: Option<W>, now: Instant) {
        self.wanted = self.wanted.saturating_sub(1);
        if let Some(worker) = worker {
            let lease = Lease { worker, in_flight: 0, paused: false, recalled: false, idle_since: now };
            self.leases.insert(id, lease);
        }
    }

    /// The head wants a worker back, as soon as its calls are over.
    pub(crate) fn recall(&mut self, worker: OwnerId) {
        if let Some(lease) = self.leases.get_mut(&worker) {
            lease.recalled = true;
        }
    }

    /// Removes the lease of a worker that can no longer be reached.
    pub(crate) fn gone(&mut self, worker: OwnerId) -> Option<W> {
        self.leases.remove(&worker).map(|lease| lease.worker)
    }

    /// Removes and returns the leases that are over: the head wants the worker back, or the worker has been idle for
    /// [`LEASE_KEPT`].
    pub(crate) fn take_ended(&mut self, now: Instant) -> Vec<Ended> {
        let ended = self.leases.extract_if(|_, lease| {
            lease.in_flight == 0 && (lease.recalled || now.duration_since(lease.idle_since) >= LEASE_KEPT)
        });
        ended.map(|(worker, lease)| Ended { worker, is_busy: lease.paused }).collect()
    }

    /// The number of calls of this length that a worker may have.
    fn ahead(&self, nanos: u64) -> u64 {
        let few = (AHEAD_NANOS / (nanos + 1)).clamp(1, AHEAD_MAX);
        // The rest, which divides, is only needed for calls that wait.
        if self.waiting.is_empty() {
            return few;
        }
        let pair = if nanos <= PAIR_NANOS_MAX { 2 } else { 1 };
        let many = (AHEAD_NANOS_MANY / (nanos + 1)).clamp(pair, AHEAD_MAX);
        // At most half of a worker's share: workers that come late find calls, and all workers end together.
        let share = self.waiting.len() / (2 * self.leases.len().max(1));
        (share as u64).clamp(few, many)
    }

    /// Room for one more call of this function; `None` if no worker has any.
    fn room(&mut self, key: Key) -> Option<Room<'_, W>> {
        let id = self.worker_with_room(key)?;
        Some(self.leases.get_mut(&id)?.room(id))
    }

    /// The leased worker that gets one more call of this function.
    ///
    /// It is the worker with the fewest calls, with one exception. A call that runs in less time than it takes to send
    /// goes to a worker that is busy already, as long as that one has room: a second worker would only take a processor
    /// away from the caller.
    fn worker_with_room(&mut self, key: Key) -> Option<OwnerId> {
        let nanos = self.run_nanos.get(&key).copied();
        let ahead = nanos.map_or(1, |nanos| self.ahead(nanos));
        let has_room = |lease: &Lease<W>| !lease.paused && !lease.recalled && lease.in_flight < ahead;
        let is_packed = nanos.is_some_and(|nanos| nanos < SEND_NANOS);
        let last = self
            .chosen_last
            .filter(|_| is_packed)
            .filter(|last| self.leases.get(last).is_some_and(|lease| lease.in_flight > 0 && has_room(lease)));
        if last.is_none() {
            let open = self.leases.iter().filter(|(_, lease)| has_room(lease));
            let in_flight = |(_, lease): &(&OwnerId, &Lease<W>)| lease.in_flight;
            let chosen = if is_packed { open.max_by_key(in_flight) } else { open.min_by_key(in_flight) };
            self.chosen_last = chosen.map(|(worker, _)| *worker);
        }
        self.chosen_last
    }
}

impl<W> Lease<W> {
    fn room(&mut self, id: OwnerId) -> Room<'_, W> {
        Room { id, worker: &self.worker, in_flight: &mut self.in_flight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::from_bits(1);

    /// Leases of some workers that have run a call of this length, and calls that wait.
    struct Queue {
        leases: Leases<u64, ()>,
        workers: Vec<OwnerId>,
    }

    impl Queue {
        fn new(workers: u64, nanos: u64, waiting: u64) -> Self {
            let workers: Vec<_> = (1..=workers).map(OwnerId::from_bits).collect();
            let mut leases = Leases::default();
            workers.iter().for_each(|worker| leases.granted(*worker, Some(()), Instant::now()));
            leases.call_over(workers[0], KEY, Some(nanos), Instant::now);
            (0..waiting).for_each(|call| leases.queue(KEY, call));
            Self { leases, workers }
        }

        /// Sends calls as long as a worker has room. Returns how many each has then.
        fn send(&mut self) -> Vec<u64> {
            while let Some((_, room)) = self.leases.next() {
                room.take();
            }
            self.workers.iter().map(|worker| self.leases.leases[worker].in_flight).collect()
        }
    }

    #[test]
    fn a_worker_has_calls_for_milliseconds_while_many_more_wait() {
        assert_eq!(Queue::new(2, 9_999, 10_000).send(), [256, 256], "the most calls");
        assert_eq!(Queue::new(2, 99_999, 1_000).send(), [30, 30]);
        assert_eq!(Queue::new(2, 4_999_999, 1_000).send(), [2, 2], "one runs and one is next");
        assert_eq!(Queue::new(2, 5_000_001, 1_000).send(), [1, 1], "a call behind it would wait for long");
    }

    #[test]
    fn few_calls_are_spread_as_they_can_be_run() {
        assert_eq!(Queue::new(2, 99_999, 6).send(), [2, 2]);
        assert_eq!(Queue::new(2, 999_999, 3).send(), [1, 1]);
        // At least as many calls as were sent are left for workers that come late.
        let mut queue = Queue::new(1, 99_999, 40);
        let sent = queue.send()[0];
        assert!((2..=20).contains(&sent) && queue.leases.waiting.len() as u64 >= sent, "{sent}");
    }

    #[test]
    fn one_call_that_took_long_changes_little() {
        let mut queue = Queue::new(1, 10_000, 0);
        queue.leases.call_over(queue.workers[0], KEY, Some(3_000_000_000), Instant::now);
        let seen = queue.leases.run_nanos[&KEY];
        assert!((10_001..20_000).contains(&seen), "{seen}");
        // A function that has changed is known after some calls.
        (0..40)
            .for_each(|_| _ = queue.leases.call_over(queue.workers[0], KEY, Some(3_000_000), Instant::now));
        assert!(queue.leases.run_nanos[&KEY] > 2_000_000);
    }
}
