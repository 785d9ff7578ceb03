//! The reports of this process to the head about its waits, so that the head finds deadlocks.
//!
//! Only the waits of threads that run calls are reported, and only if nothing else can end them: neither the wait nor
//! the call has a time limit. A wait is reported when it has lasted for [`TELL_AFTER`], because most waits are over
//! before. Later changes are reported too, at growing intervals.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula_client::internal::recorder::WaitFor;
use mobula_client::{ObjectId, OwnerId};
use parking_lot::Mutex;

use super::{BegunWait, Runtime};
use crate::error::{Failure, WaitingCall};
use crate::executor;
use crate::submit::Awaited;
pub(crate) use crate::wire::RESULTS_MAX;
use crate::wire::{Held, Need, ToHead, WAITS_MAX, Waits};

/// How long a wait lasts before it is reported to the head.
const TELL_AFTER: Duration = Duration::from_millis(100);
/// The longest pause between two checks for changes.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The reason of a wait.
#[derive(Debug, Clone)]
pub(crate) struct Awaits {
    /// How many of the results must come, or fail, before the wait can end.
    pub(crate) needed: usize,
    /// The results that are not there, at most [`RESULTS_MAX`].
    pub(crate) results: Vec<Awaited>,
    pub(crate) at: &'static Location<'static>,
}

/// The waits of the threads that run calls, as they were reported.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// By their numbers.
    current: Mutex<BTreeMap<u64, Current>>,
    number_last: AtomicU64,
    /// The circles of the waits that are known to be deadlocks, by the numbers of the waits.
    deadlocks: Mutex<BTreeMap<u64, Vec<WaitingCall>>>,
    /// To be read without the lock.
    has_deadlock: AtomicBool,
}

#[derive(Debug)]
struct Current {
    call: executor::WaitingCall,
    function: String,
    waits_for: String,
    awaits: Awaits,
    /// The last report to the head.
    told: Option<Waits>,
}

impl Runtime {
    /// The head asks what this process waits for. Any thread answers.
    pub(super) fn answer_waits(&self, round: u64, calls: &[(OwnerId, u64)]) {
        let (Some(head), Some(executor)) = (self.head(), &self.executor) else { return };
        // First which waits there are, then which calls they hold up, then which of them are not over: a wait that is
        // in the answer has held up its calls throughout.
        let waits: Vec<_> =
            self.told.current.lock().iter().map(|(number, current)| (*number, current.call)).collect();
        let mut holds = executor.holds(calls, &waits);
        if !executor.is_concurrent() {
            let me = self.client.id();
            let own = calls.iter().filter(|(caller, task)| *caller == me && self.is_to_itself(*task));
            let behind: Vec<Vec<u64>> = waits.iter().map(|(number, _)| vec![*number]).collect();
            holds.extend(own.map(|(caller, task)| Held {
                caller: *caller,
                task: *task,
                behind: behind.clone(),
                items: 0,
            }));
        }
        let mut current = self.told.current.lock();
        let waits = current.iter_mut().map(|(number, current)| {
            let waits = self.waits(*number, current);
            current.told = Some(waits.clone());
            waits
        });
        let waits = waits.collect();
        let _ = head.send(&ToHead::AllWaits { round, waits, holds }, Vec::new());
    }

    /// The head asks what a promise of this process needs.
    pub(super) fn answer_promise(&self, round: u64, object: ObjectId) {
        if let Some(head) = self.head() {
            let call = self.submitter.promised_call(object);
            let needs = call.map_or_else(|| vec![Need::Unknown], |call| self.needs(call));
            let _ = head.send(&ToHead::PromiseNeeds { round, object, needs }, Vec::new());
        }
    }

    /// The waits of these numbers can never end. All of them get the error, although the end of one frees others.
    pub(super) fn on_deadlocks(&self, cycles: Vec<(u64, Vec<WaitingCall>)>) {
        let current = self.told.current.lock();
        let mut deadlocks = self.told.deadlocks.lock();
        deadlocks.extend(cycles.into_iter().filter(|(wait, _)| current.contains_key(wait)));
        if deadlocks.is_empty() {
            return;
        }
        self.told.has_deadlock.store(true, Ordering::SeqCst);
        drop((current, deadlocks));
        // The threads sleep for results, and this is a failure of them.
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

    /// The needs of an item of a call of this process, as those of its result.
    fn needs_of_item(&self, call: u64, position: u64) -> Vec<Need> {
        let mut needs = self.submitter.needs_of_item(call, position);
        for need in &mut needs {
            if self.is_own_actor(need) {
                *need = Need::Item { process: self.client.id(), task: call, position };
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

    fn waits(&self, number: u64, current: &Current) -> Waits {
        let Current { function, waits_for, awaits, .. } = current;
        let needs = |result: &Awaited| match result {
            Awaited::Call(call) => self.needs(*call),
            Awaited::Item(call, position) => self.needs_of_item(*call, *position),
            Awaited::Promise(object) => vec![Need::Promise { object: *object }],
        };
        let executor = self.executor.as_ref();
        let has_places = executor.is_some_and(|executor| executor.has_places());
        Waits {
            number,
            function: function.clone(),
            waits_for: waits_for.clone(),
            at: has_places.then(|| awaits.at.to_string()),
            is_only: executor.is_some_and(|executor| !executor.is_concurrent()),
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
        let runs_here = || self.runtime.executor.as_ref().is_some_and(|executor| executor.runs_here());
        if !self.may_tell.get_or_init(runs_here) {
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
        let Some(call) = executor.waiting_call() else { return };
        let told = &self.runtime.told;
        let number =
            self.number.get().unwrap_or_else(|| told.number_last.fetch_add(1, Ordering::Relaxed) + 1);
        let waits_for = awaits.results.iter().find_map(|result| match result {
            Awaited::Call(call) | Awaited::Item(call, _) => self.runtime.submitter.name_of(*call),
            Awaited::Promise(_) => None,
        });
        let function = executor.waiting_name(&call);
        let mut current = told.current.lock();
        let before = current.remove(&number).and_then(|current| current.told);
        if current.len() >= WAITS_MAX {
            return;
        }
        self.number.set(Some(number));
        let waits_for = waits_for.unwrap_or_default();
        let mut now = Current { call, function, waits_for, awaits, told: None };
        let waits = self.runtime.waits(number, &now);
        if before.as_ref() != Some(&waits) {
            let _ = head.send(&ToHead::Waits(waits.clone()), Vec::new());
        }
        now.told = Some(waits);
        current.insert(number, now);
    }

    /// Whether the wait is a deadlock. Costs one load while none is known.
    pub(super) fn is_deadlocked(&self) -> bool {
        let told = &self.runtime.told;
        let is_it = || self.number.get().is_some_and(|wait| told.deadlocks.lock().contains_key(&wait));
        told.has_deadlock.load(Ordering::SeqCst) && is_it()
    }

    /// The failure of the wait, if it is a deadlock.
    pub(super) fn deadlock(&self) -> Option<Failure> {
        if !self.is_deadlocked() {
            return None;
        }
        let cycle = self.runtime.told.take_deadlock(self.number.get()?)?;
        Some(Failure::Deadlock { cycle })
    }
}

impl Told {
    fn take_deadlock(&self, wait: u64) -> Option<Vec<WaitingCall>> {
        let mut deadlocks = self.deadlocks.lock();
        let cycle = deadlocks.remove(&wait);
        self.has_deadlock.store(!deadlocks.is_empty(), Ordering::SeqCst);
        cycle
    }
}

impl<F> Drop for WaitReporter<'_, F> {
    fn drop(&mut self) {
        let Some(wait) = self.number.get() else { return };
        let told = &self.runtime.told;
        let is_told = told.current.lock().remove(&wait).is_some();
        if told.has_deadlock.load(Ordering::SeqCst) {
            let _ = told.take_deadlock(wait);
        }
        if let Some(head) = self.runtime.head().filter(|_| is_told) {
            let _ = head.send(&ToHead::WaitOver { wait }, Vec::new());
        }
    }
}
