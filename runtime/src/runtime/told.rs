//! The report of this process to the head about its wait, so that the head finds deadlocks.
//!
//! Only the wait of the thread that runs the calls is reported, and only if nothing else can end it: the process runs
//! one call at a time, and neither the wait nor the call has a time limit. The wait is reported when it has lasted for
//! [`TELL_AFTER`], because most waits are over before. Later changes are reported too, at growing intervals.

use std::cell::{Cell, OnceCell};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula_client::internal::recorder::WaitFor;
use mobula_client::{ObjectId, OwnerId};
use parking_lot::Mutex;

use super::{BegunWait, Runtime};
use crate::error::{Failure, WaitingCall};
use crate::submit::Awaited;
use crate::wire::{Need, ToHead, Waits};

/// How long a wait lasts before it is reported to the head.
const TELL_AFTER: Duration = Duration::from_millis(100);
/// The longest pause between two checks for changes.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The most results of a wait that are reported.
pub(crate) const RESULTS_MAX: usize = 64;

/// The reason of a wait.
#[derive(Debug, Clone)]
pub(crate) struct Awaits {
    /// How many of the results must come.
    pub(crate) needed: usize,
    /// The results that are not there, at most [`RESULTS_MAX`].
    pub(crate) results: Vec<Awaited>,
    pub(crate) at: &'static Location<'static>,
}

/// The wait of the thread that runs the calls, as it was reported.
#[derive(Debug, Default)]
pub(super) struct Told {
    current: Mutex<Option<Current>>,
    number_last: AtomicU64,
    /// The number of the wait that is known to be a deadlock, and the circle.
    deadlock: Mutex<Option<(u64, Vec<WaitingCall>)>>,
    /// To be read without the lock.
    has_deadlock: AtomicBool,
}

#[derive(Debug)]
struct Current {
    number: u64,
    function: String,
    waits_for: String,
    awaits: Awaits,
    /// The last report to the head.
    told: Option<Waits>,
}

impl Runtime {
    /// The head asks what this process waits for. Any thread answers.
    pub(super) fn answer_wait(&self, round: u64, calls: Vec<(OwnerId, u64)>) {
        let (Some(head), Some(executor)) = (self.head(), &self.executor) else { return };
        // First: the wait that is told then began before, and has not ended since.
        let mut holds = executor.holds(calls.clone());
        let me = self.client.id();
        let own = calls.into_iter().filter(|(caller, task)| *caller == me && self.is_to_itself(*task));
        holds.extend(own);
        let mut current = self.told.current.lock();
        let waits = current.as_mut().map(|current| {
            let waits = self.waits(current);
            current.told = Some(waits.clone());
            waits
        });
        let _ = head.send(&ToHead::Waits { round, waits, holds }, Vec::new());
    }

    /// The head asks what a promise of this process needs.
    pub(super) fn answer_promise(&self, round: u64, object: ObjectId) {
        if let Some(head) = self.head() {
            let call = self.submitter.promised_call(object);
            let needs = call.map_or_else(|| vec![Need::Unknown], |call| self.needs(call));
            let _ = head.send(&ToHead::PromiseNeeds { round, object, needs }, Vec::new());
        }
    }

    /// The wait of this number can never end.
    pub(super) fn on_deadlock(&self, wait: u64, cycle: Vec<WaitingCall>) {
        if self.told.current.lock().as_ref().is_none_or(|current| current.number != wait) {
            return;
        }
        *self.told.deadlock.lock() = Some((wait, cycle));
        self.told.has_deadlock.store(true, Ordering::SeqCst);
        // The thread sleeps for a result, and this is a failure of it.
        self.waiters.add_failure();
        self.waiters.announce();
    }

    /// The needs of the result of a call of this process. A call of an actor to itself counts as sent to it: it runs
    /// behind the call that made it.
    fn needs(&self, call: u64) -> Vec<Need> {
        let mut needs = self.submitter.needs_of(call);
        for need in &mut needs {
            if self.is_own_actor(need) {
                *need = Need::Call { process: self.client.id(), task: call };
            }
        }
        needs
    }

    fn is_to_itself(&self, call: u64) -> bool {
        self.submitter.needs_of(call).iter().any(|need| self.is_own_actor(need))
    }

    fn is_own_actor(&self, need: &Need) -> bool {
        let own = self.executor.as_ref().and_then(|executor| executor.actor());
        matches!(need, Need::Actor { actor } if Some(*actor) == own)
    }

    fn waits(&self, current: &Current) -> Waits {
        let Current { number, function, waits_for, awaits, .. } = current;
        let needs = |result: &Awaited| match result {
            Awaited::Call(call) => self.needs(*call),
            Awaited::Promise(object) => vec![Need::Promise { object: *object }],
        };
        let has_places = self.executor.as_ref().is_some_and(|executor| executor.has_places());
        Waits {
            number: *number,
            function: function.clone(),
            waits_for: waits_for.clone(),
            at: has_places.then(|| awaits.at.to_string()),
            needed: awaits.needed as u32,
            results: awaits.results.iter().map(needs).collect(),
        }
    }
}

/// Reports one wait to the head. Dropped when the wait is over.
pub(crate) struct WaitReporter<'a, F> {
    runtime: &'a Runtime,
    /// The reason of the wait; `None` if it is not reported.
    awaits: F,
    may_tell: OnceCell<bool>,
    /// When to look next, and the pause before.
    next: Cell<Option<(Instant, Duration)>>,
    /// The number of the wait, once it is reported.
    number: Cell<Option<u64>>,
    /// Made when the thread sleeps for the first time.
    begun: OnceCell<BegunWait<'a>>,
}

impl<'a, F: Fn() -> Option<Awaits>> WaitReporter<'a, F> {
    /// For a wait that is `is_endless` if nothing but the results ends it.
    pub(crate) fn new(runtime: &'a Runtime, is_endless: bool, awaits: F) -> Self {
        let may_tell = OnceCell::new();
        if !is_endless || runtime.executor.is_none() {
            let _ = may_tell.set(false);
        }
        Self {
            runtime,
            awaits,
            may_tell,
            next: Cell::new(None),
            number: Cell::new(None),
            begun: OnceCell::new(),
        }
    }

    /// The thread is about to sleep, for `what`. Returns the time at which it must wake to report.
    pub(super) fn sleeps(&self, what: impl Fn() -> (WaitFor, [u64; 2])) -> Option<Instant> {
        self.begun.get_or_init(|| self.runtime.begin_wait(what()));
        let is_bound = || self.runtime.executor.as_ref().is_some_and(|executor| executor.is_bound_to_wait());
        if !self.may_tell.get_or_init(is_bound) {
            return None;
        }
        let now = Instant::now();
        let (due, pause) = self.next.get().unwrap_or((now + TELL_AFTER, TELL_AFTER));
        if due > now {
            self.next.set(Some((due, pause)));
            return Some(due);
        }
        self.tell();
        let pause = (pause * 2).min(PAUSE_MAX);
        self.next.set(Some((now + pause, pause)));
        Some(now + pause)
    }

    fn tell(&self) {
        let (Some(head), Some(executor)) = (self.runtime.head(), &self.runtime.executor) else { return };
        let Some(awaits) = (self.awaits)().filter(|awaits| !awaits.results.is_empty()) else { return };
        let told = &self.runtime.told;
        let number =
            self.number.get().unwrap_or_else(|| told.number_last.fetch_add(1, Ordering::Relaxed) + 1);
        self.number.set(Some(number));
        let waits_for = awaits.results.iter().find_map(|result| match result {
            Awaited::Call(call) => self.runtime.submitter.name_of(*call),
            Awaited::Promise(_) => None,
        });
        let function = executor.running_name();
        let mut current = told.current.lock();
        let before = current.take().and_then(|current| current.told);
        let waits_for = waits_for.unwrap_or_default();
        let mut now = Current { number, function, waits_for, awaits, told: None };
        let waits = self.runtime.waits(&now);
        if before.as_ref() != Some(&waits) {
            let record = ToHead::Waits { round: 0, waits: Some(waits.clone()), holds: Vec::new() };
            let _ = head.send(&record, Vec::new());
        }
        now.told = Some(waits);
        *current = Some(now);
    }

    /// Whether the wait is a deadlock. Costs one load while none is known.
    pub(super) fn is_deadlocked(&self) -> bool {
        let told = &self.runtime.told;
        let is_it =
            || told.deadlock.lock().as_ref().is_some_and(|(wait, _)| Some(*wait) == self.number.get());
        told.has_deadlock.load(Ordering::SeqCst) && is_it()
    }

    /// The failure of the wait, if it is a deadlock.
    pub(super) fn deadlock(&self) -> Option<Failure> {
        if !self.is_deadlocked() {
            return None;
        }
        let (_, cycle) = self.runtime.told.deadlock.lock().take()?;
        self.runtime.told.has_deadlock.store(false, Ordering::SeqCst);
        Some(Failure::Deadlock { cycle })
    }
}

impl<F> Drop for WaitReporter<'_, F> {
    fn drop(&mut self) {
        if self.number.get().is_none() {
            return;
        }
        let is_told = self.runtime.told.current.lock().take().is_some();
        if let Some(head) = self.runtime.head().filter(|_| is_told) {
            let over = ToHead::Waits { round: 0, waits: None, holds: Vec::new() };
            let _ = head.send(&over, Vec::new());
        }
    }
}
