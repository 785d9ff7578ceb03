//! The queue of a process and the progress of its calls (`runtime/src/executor/queue.rs` and `progress.rs`, included
//! unchanged): the head is told when the running call waits, and when no call is left, and a call that may be declined
//! does not stay behind a waiting one. [`cancel`](crate::cancel) explores which call a cancel is for.
//!
//! The messages follow `runtime/src/executor/mod.rs`: `call_changed`, `on_call`, `on_cancel`, `decline_waiting`,
//! `decline_behind_a_long_call`, `say_if_free`, `set_spent`.

#[path = "../../../runtime/src/executor/progress.rs"]
#[expect(dead_code, reason = "whether the background poller has to look is no part of a model")]
pub(crate) mod progress;
#[path = "../../../runtime/src/executor/queue.rs"]
#[expect(dead_code, reason = "facts about calls, and their number, are no part of a model")]
pub(crate) mod queue;

use std::sync::Arc;

use loom::thread::spawn;
use mobula_shm::model::atomics::{Access, Kind};

use self::queue::{CallId, Calls, Waits};
use crate::sync::Mutex;
use crate::sync::Ordering::{self, Acquire, SeqCst};
use crate::{as_it_is, fails, holds};

#[derive(Clone, Copy, PartialEq)]
enum Mistake {
    None,
    /// A call that arrives is checked before the queue is locked.
    ChecksUnlocked,
    /// A call that begins is announced before it has begun.
    LooksFirst,
    /// A call that leaves the queue without having begun is not looked at as the last one.
    RemovesSilently,
}

/// A call, and nothing of it but its address.
pub(crate) struct Call(pub(crate) CallId);

impl Waits for Call {
    type Taken = ();

    fn call(&self) -> Option<CallId> {
        Some(self.0)
    }

    fn taken(&self) -> Option<()> {
        Some(())
    }
}

const CALL: CallId = CallId { link: 1, task: 1 };

struct Process {
    calls: Calls<Call>,
    declined: Mutex<usize>,
    /// The reports to the head: whether the running call waits.
    blocked: Mutex<Vec<bool>>,
    /// The number of reports that no call is left.
    free: Mutex<u32>,
    mistake: Mistake,
}

impl Process {
    fn with_calls(calls: u32, mistake: Mistake) -> Arc<Self> {
        let process = Self {
            calls: Calls::new(),
            declined: Mutex::new(0),
            blocked: Mutex::new(Vec::new()),
            free: Mutex::new(0),
            mistake,
        };
        process.calls.lock().work.extend((0..calls).map(|_| Call(CALL)));
        Arc::new(process)
    }

    fn waiting(&self) -> usize {
        self.calls.lock().work.len()
    }

    fn begin_call(&self) {
        if self.mistake == Mistake::LooksFirst {
            self.call_changed();
        }
        assert!(self.calls.take(&mut self.calls.lock()).is_some());
        if self.mistake != Mistake::LooksFirst {
            self.call_changed();
        }
    }

    fn end_call(&self) {
        self.calls.over();
        self.call_changed();
    }

    fn call_changed(&self) {
        if self.calls.progress.is_of_interest() {
            self.tell_whether_blocked();
            self.say_if_free();
        }
    }

    fn begin_wait(&self) {
        self.calls.progress.begin_wait();
        self.tell_whether_blocked();
    }

    fn end_wait(&self) {
        self.calls.progress.end_wait();
        self.tell_whether_blocked();
    }

    fn tell_whether_blocked(&self) {
        self.calls.progress.tell_whether_blocked(|is_blocked| {
            if is_blocked {
                self.decline_waiting();
            }
            self.blocked.lock().push(is_blocked);
        });
    }

    fn say_if_free(&self) {
        if !self.calls.progress.is_asked() {
            return;
        }
        let queue = self.calls.lock();
        let is_free = queue.work.is_empty() && self.calls.progress.take_asked();
        drop(queue);
        if is_free {
            *self.free.lock() += 1;
        }
    }

    fn on_call(&self) {
        let before = self.mistake == Mistake::ChecksUnlocked && self.calls.progress.declines();
        let mut queue = self.calls.lock();
        let declines =
            if self.mistake == Mistake::ChecksUnlocked { before } else { self.calls.progress.declines() };
        if declines {
            drop(queue);
            *self.declined.lock() += 1;
        } else {
            queue.work.push_back(Call(CALL));
        }
    }

    fn decline_waiting(&self) {
        let waiting = std::mem::take(&mut self.calls.lock().work);
        *self.declined.lock() += waiting.len();
    }

    fn on_cancel(&self) {
        let is_removed = self.calls.lock().remove(CALL);
        if is_removed && self.mistake != Mistake::RemovesSilently {
            self.say_if_free();
        }
    }

    fn decline_behind_a_long_call(&self) {
        let (has_begun, runs) = self.calls.progress.look();
        if !has_begun && runs {
            self.decline_waiting();
            if self.mistake != Mistake::RemovesSilently {
                self.say_if_free();
            }
        }
    }

    fn on_say_when_free(&self) {
        self.calls.progress.ask();
        self.say_if_free();
    }

    /// Does one thing on another thread while `work` is done on this one.
    fn beside(self: &Arc<Self>, other: fn(&Self), work: impl FnOnce(&Self)) {
        let process = self.clone();
        let other = spawn(move || other(&process));
        work(self);
        other.join().unwrap();
    }

    /// The last report to the head.
    fn is_blocked(&self) -> bool {
        self.blocked.lock().last().copied().unwrap_or_default()
    }
}

/// A call begins and ends, while another thread of the process begins and ends a wait.
fn waits(mistake: Mistake) {
    let process = Process::with_calls(1, mistake);
    process.beside(Process::begin_wait, Process::begin_call);
    assert!(process.is_blocked(), "the place of a call that waits is not free");
    process.beside(Process::end_wait, Process::end_call);
    assert!(!process.is_blocked(), "the place of a process that does not wait is free");
    let blocked = process.blocked.lock();
    assert!(blocked.windows(2).all(|two| two[0] != two[1]), "the head was told twice: {:?}", &blocked[..]);
}

/// A wait within a call, while the call of another wait ends.
fn wait_within_a_call() {
    let process = Process::with_calls(1, Mistake::None);
    process.begin_call();
    let wait = |process: &Process| {
        process.begin_wait();
        process.end_wait();
    };
    process.beside(wait, |process| {
        wait(process);
        process.end_call();
    });
    assert!(!process.is_blocked(), "the place of a process that does not wait is free");
}

/// The head asks whether a call is left, while the last one begins and ends.
fn asks(mistake: Mistake) {
    let process = Process::with_calls(1, mistake);
    process.beside(Process::on_say_when_free, |process| {
        process.begin_call();
        process.end_call();
    });
    assert_eq!(*process.free.lock(), 1, "how often the head was told that no call is left");
}

/// The head has asked. A call runs and ends, while the call behind it leaves the queue or begins.
fn asks_and_the_queue_is_emptied(empty: fn(&Process), mistake: Mistake) {
    let process = Process::with_calls(2, mistake);
    process.begin_call();
    let _ = process.calls.progress.look();
    process.on_say_when_free();
    let run_the_rest = |process: &Process| {
        process.end_call();
        while process.calls.take(&mut process.calls.lock()).is_some() {
            process.call_changed();
            process.end_call();
        }
    };
    process.beside(run_the_rest, empty);
    assert_eq!(*process.free.lock(), 1, "how often the head was told that no call is left");
}

/// A call arrives while the running call begins to wait.
fn arrives(mistake: Mistake) {
    let process = Process::with_calls(1, mistake);
    process.begin_call();
    process.beside(Process::on_call, Process::begin_wait);
    assert_eq!(
        (process.waiting(), *process.declined.lock()),
        (0, 1),
        "calls that stay and that go elsewhere"
    );
}

/// A call arrives while the process decides to begin no more calls.
fn arrives_late(mistake: Mistake) {
    let process = Process::with_calls(0, mistake);
    process.beside(Process::on_call, |process| {
        process.calls.progress.set_spent();
        process.decline_waiting();
    });
    assert_eq!(
        (process.waiting(), *process.declined.lock()),
        (0, 1),
        "calls that stay and that go elsewhere"
    );
}

#[test]
fn the_head_learns_what_becomes_of_calls() {
    holds("a call that waits", || waits(Mistake::None));
    holds("waits of two threads", wait_within_a_call);
    holds("no call is left", || asks(Mistake::None));
    holds("no call is left, one was cancelled", || {
        asks_and_the_queue_is_emptied(Process::on_cancel, Mistake::None);
    });
    holds("no call is left, one was declined", || {
        asks_and_the_queue_is_emptied(Process::decline_behind_a_long_call, Mistake::None);
    });
    holds("a call behind one that waits", || arrives(Mistake::None));
    holds("a call for a process that is spent", || arrives_late(Mistake::None));
}

fn loads_without_order(access: Access) -> Ordering {
    match access.kind {
        Kind::Load if access.ordering == SeqCst => Acquire,
        _ => access.ordering,
    }
}

/// Breaks: the thread that runs calls sees nobody wait, and the one that waits sees no call.
#[test]
fn planted_looks_that_are_not_ordered_behind_what_they_follow() {
    let check = |name, expected, model: fn(Mistake)| {
        fails(name, expected, loads_without_order, move || model(Mistake::None));
    };
    check("a wait without order", "the place of a call that waits is not free", waits);
    check("an end without order", "how often the head was told", asks);
}

/// Breaks: the thread that waits looks between the look and the beginning.
#[test]
fn planted_a_look_before_the_call_has_begun() {
    fails("looks, then begins", "the place of a call that waits is not free", as_it_is, || {
        waits(Mistake::LooksFirst);
    });
}

/// Breaks: the queue is emptied between the check and the arrival.
#[test]
fn planted_a_check_without_the_lock() {
    let expected = "calls that stay and that go elsewhere";
    fails("checks unlocked", expected, as_it_is, || arrives(Mistake::ChecksUnlocked));
    fails("checks unlocked, spent", expected, as_it_is, || arrives_late(Mistake::ChecksUnlocked));
}

/// Breaks: the running call ends before the queue is empty, and no call ends afterwards.
#[test]
fn planted_a_queue_that_is_emptied_in_silence() {
    let expected = "how often the head was told that no call is left";
    let check = |name, empty: fn(&Process)| {
        fails(name, expected, as_it_is, move || {
            asks_and_the_queue_is_emptied(empty, Mistake::RemovesSilently)
        });
    };
    check("cancelled in silence", Process::on_cancel);
    check("declined in silence", Process::decline_behind_a_long_call);
}
