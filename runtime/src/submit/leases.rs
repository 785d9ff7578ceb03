//! Which call goes to which leased worker, and how many more workers to ask for: decided here, without links, and carried
//! out by the submitter.
//!
//! A want is never forgotten. While a call waits here, no leased worker has room for it, and the head has been told that
//! this process wants a worker, or the grant is on its way. So whatever changes (a call is declined, a worker is recalled
//! or gone, a call comes late), the same two questions follow: [`next`](Leases::next), until there is none, and
//! [`want`](Leases::want). The head's simulation explores it (`head/pool/calls`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;
use rustc_hash::FxHashMap;

use crate::host::Key;

/// A worker gets calls that together are likely to run for this long.
const AHEAD_NANOS: u64 = 200_000;
const AHEAD_MAX: u64 = 256;
/// About what it costs a caller to send a call and to take its result.
const SEND_NANOS: u64 = 500;
/// Workers asked for at a time.
const WANT_MAX: usize = 64;
/// An idle lease is kept this long, because the next call often comes soon.
pub(crate) const LEASE_KEPT: Duration = Duration::from_millis(50);

/// Calls `C` that wait for workers, and the workers, which are reached by a `W`.
pub(crate) struct Leases<C, W> {
    waiting: VecDeque<(Key, C)>,
    leases: FxHashMap<OwnerId, Lease<W>>,
    /// How many workers the head knows to be wanted, less those that it has granted since.
    wanted: usize,
    run_nanos: FxHashMap<Key, u64>,
    /// Which worker got the last call.
    chosen_last: Option<OwnerId>,
}

struct Lease<W> {
    worker: W,
    in_flight: u64,
    /// It declined a call, and has not finished one since.
    paused: bool,
    /// The head wants it back.
    recalled: bool,
    idle_since: Instant,
}

/// A lease that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) worker: OwnerId,
    /// The worker declined the last call: it is busy with what others have asked of it.
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

    // ---- calls ----

    /// The worker that a new call can go to at once. None while others wait: they go first.
    pub(crate) fn worker_at_once(&mut self, key: Key) -> Option<OwnerId> {
        if self.waiting.is_empty() { self.worker_with_room(key) } else { None }
    }

    pub(crate) fn worker(&self, worker: OwnerId) -> Option<&W> {
        Some(&self.leases.get(&worker)?.worker)
    }

    /// A call has been sent to a worker.
    pub(crate) fn sent(&mut self, worker: OwnerId) {
        if let Some(lease) = self.leases.get_mut(&worker) {
            lease.in_flight += 1;
        }
    }

    /// A call waits for a worker.
    pub(crate) fn queue(&mut self, key: Key, call: C) {
        self.waiting.push_back((key, call));
    }

    /// A call waits once more, before those that have not had a worker yet.
    pub(crate) fn queue_again(&mut self, key: Key, call: C) {
        self.waiting.push_front((key, call));
    }

    /// The next call that waits, and the worker that has room for it.
    pub(crate) fn next(&mut self) -> Option<(C, OwnerId)> {
        let (key, _) = self.waiting.front()?;
        let worker = self.worker_with_room(*key)?;
        let (_, call) = self.waiting.pop_front()?;
        Some((call, worker))
    }

    /// All calls that wait: there will be no workers for them.
    pub(crate) fn take_waiting(&mut self) -> Vec<C> {
        self.wanted = 0;
        self.waiting.drain(..).map(|(_, call)| call).collect()
    }

    /// A call that was sent to a worker is over, after so long; without a time, it was declined. Whether
    /// [leases have ended](Self::take_ended) with it.
    pub(crate) fn call_over(
        &mut self,
        worker: OwnerId,
        key: Key,
        ran_nanos: Option<u64>,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        if let Some(nanos) = ran_nanos {
            let seen = self.run_nanos.entry(key).or_insert(nanos);
            *seen = (seen.saturating_mul(7).saturating_add(nanos)) / 8;
        }
        let Some(lease) = self.leases.get_mut(&worker) else { return false };
        lease.in_flight = lease.in_flight.saturating_sub(1);
        lease.paused = ran_nanos.is_none();
        let is_idle = lease.in_flight == 0;
        // It is busy with what others asked of it: its place is better used elsewhere.
        lease.recalled |= lease.paused && is_idle;
        // While others wait, it will not be idle.
        if is_idle && self.waiting.is_empty() {
            lease.idle_since = now();
        }
        is_idle && lease.recalled
    }

    // ---- workers ----

    /// What the head is to be told: so many more workers would be welcome.
    pub(crate) fn want(&mut self) -> Option<u32> {
        let wanted = self.waiting.len().min(WANT_MAX);
        if wanted == self.wanted || wanted < self.wanted && wanted > 0 {
            return None;
        }
        self.wanted = wanted;
        Some(wanted as u32)
    }

    /// The head has granted a worker; `None` where it cannot be reached.
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

    /// A worker cannot be reached any more.
    pub(crate) fn gone(&mut self, worker: OwnerId) -> Option<W> {
        self.leases.remove(&worker).map(|lease| lease.worker)
    }

    /// Takes the leases that are over: the head wants the worker back, or it has had nothing to do for a while.
    pub(crate) fn take_ended(&mut self, now: Instant) -> Vec<Ended> {
        let ended = self.leases.extract_if(|_, lease| {
            lease.in_flight == 0 && (lease.recalled || now.duration_since(lease.idle_since) >= LEASE_KEPT)
        });
        ended.map(|(worker, lease)| Ended { worker, is_busy: lease.paused }).collect()
    }

    /// The leased worker that is to have one more call of this function, if any has room for it.
    ///
    /// That is the one with the least to do; but calls that are over sooner than they are sent keep one worker busy at
    /// most, and go to one that is at work already, as long as it has room: a second one would only take a processor
    /// away from whoever makes the calls.
    fn worker_with_room(&mut self, key: Key) -> Option<OwnerId> {
        let nanos = self.run_nanos.get(&key).copied();
        let ahead = nanos.map_or(1, |nanos| (AHEAD_NANOS / (nanos + 1)).clamp(1, AHEAD_MAX));
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
