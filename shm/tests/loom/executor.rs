//! The progress of the calls of a process (`runtime/src/executor/progress.rs`, included unchanged): the head is told
//! when the running call waits, and when no call is left, and a call that may be declined does not stay behind a
//! waiting one.
//!
//! The queue and the messages follow `runtime/src/executor/mod.rs`: `next`, `call_changed`, `on_call`,
//! `decline_waiting`, `say_if_free`, `set_spent`.

#[path = "../../../runtime/src/executor/progress.rs"]
#[expect(dead_code, reason = "the background poller's looks are no part of a model")]
mod progress;

use std::sync::Arc;

use loom::thread::spawn;
use mobula_shm::model::atomics::{Access, Kind};

use self::progress::Progress;
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
}

struct Process {
    progress: Progress,
    /// How many calls wait.
    queue: Mutex<u32>,
    declined: Mutex<u32>,
    /// The reports to the head: whether the running call waits.
    blocked: Mutex<Vec<bool>>,
    /// The number of reports that no call is left.
    free: Mutex<u32>,
    mistake: Mistake,
}

impl Process {
    fn with_calls(calls: u32, mistake: Mistake) -> Arc<Self> {
        Arc::new(Self {
            progress: Progress::new(),
            queue: Mutex::new(calls),
            declined: Mutex::new(0),
            blocked: Mutex::new(Vec::new()),
            free: Mutex::new(0),
            mistake,
        })
    }

    fn begin_call(&self) {
        if self.mistake == Mistake::LooksFirst {
            self.call_changed();
        }
        let mut queue = self.queue.lock();
        *queue -= 1;
        self.progress.begin();
        drop(queue);
        if self.mistake != Mistake::LooksFirst {
            self.call_changed();
        }
    }

    fn end_call(&self) {
        self.progress.end();
        self.call_changed();
    }

    fn call_changed(&self) {
        if self.progress.is_of_interest() {
            self.tell_whether_blocked();
            self.say_if_free();
        }
    }

    fn begin_wait(&self) {
        self.progress.begin_wait();
        self.tell_whether_blocked();
    }

    fn end_wait(&self) {
        self.progress.end_wait();
        self.tell_whether_blocked();
    }

    fn tell_whether_blocked(&self) {
        self.progress.tell_whether_blocked(|is_blocked| {
            if is_blocked {
                self.decline_waiting();
            }
            self.blocked.lock().push(is_blocked);
        });
    }

    fn say_if_free(&self) {
        if !self.progress.is_asked() {
            return;
        }
        let queue = self.queue.lock();
        let is_free = *queue == 0 && self.progress.take_asked();
        drop(queue);
        if is_free {
            *self.free.lock() += 1;
        }
    }

    fn on_call(&self) {
        let before = self.mistake == Mistake::ChecksUnlocked && self.progress.declines();
        let mut queue = self.queue.lock();
        let declines =
            if self.mistake == Mistake::ChecksUnlocked { before } else { self.progress.declines() };
        if declines {
            drop(queue);
            *self.declined.lock() += 1;
        } else {
            *queue += 1;
        }
    }

    fn decline_waiting(&self) {
        let waiting = std::mem::take(&mut *self.queue.lock());
        *self.declined.lock() += waiting;
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
    let ask = |process: &Process| {
        process.progress.ask();
        process.say_if_free();
    };
    process.beside(ask, |process| {
        process.begin_call();
        process.end_call();
    });
    assert_eq!(*process.free.lock(), 1, "how often the head was told that no call is left");
}

/// A call arrives while the running call begins to wait.
fn arrives(mistake: Mistake) {
    let process = Process::with_calls(1, mistake);
    process.begin_call();
    process.beside(Process::on_call, Process::begin_wait);
    assert_eq!(
        (*process.queue.lock(), *process.declined.lock()),
        (0, 1),
        "calls that stay and that go elsewhere"
    );
}

/// A call arrives while the process decides to begin no more calls.
fn arrives_late(mistake: Mistake) {
    let process = Process::with_calls(0, mistake);
    process.beside(Process::on_call, |process| {
        process.progress.set_spent();
        process.decline_waiting();
    });
    assert_eq!(
        (*process.queue.lock(), *process.declined.lock()),
        (0, 1),
        "calls that stay and that go elsewhere"
    );
}

#[test]
fn the_head_learns_what_becomes_of_calls() {
    holds("a call that waits", || waits(Mistake::None));
    holds("waits of two threads", wait_within_a_call);
    holds("no call is left", || asks(Mistake::None));
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
