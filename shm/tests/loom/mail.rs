//! Threads that wait for mail (`runtime/src/mail/waiters.rs`, included unchanged): each of them finds its result,
//! although only one of them sleeps on the bell, and any of them handles the records of all.
//!
//! A record is the number of the result that it settles. The process that sends it rings always, as it does for an idle
//! link; `doorbell` explores when it has to. Threads do not spin, and there is no background poller, because both
//! depend on time.

#[path = "../../../runtime/src/mail/waiters.rs"]
#[expect(dead_code, reason = "there is no time in a model, and no background poller")]
pub(crate) mod waiters;

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::thread::spawn;
use mobula_shm::model::atomics::{Access, Kind};

use self::waiters::{Awaited, Mail, Waiters};
use crate::call::result_cell::ResultCell;
use crate::sync::Mutex;
use crate::sync::Ordering::{self, Acquire, SeqCst};
use crate::{as_it_is, doorbell, fails, holds};

/// As the client's, for one process.
#[derive(Default, Clone)]
pub(crate) struct Bell(Arc<doorbell::Bell>);

impl Bell {
    pub(crate) fn ring(&self) {
        self.0.ring();
    }

    pub(crate) fn sleep(&self, _: Option<Duration>, ready: impl FnOnce() -> bool) {
        if !ready() {
            self.0.wait();
        }
    }

    pub(crate) fn nap(&self, _: Duration) {
        unreachable!("there is no time in a model");
    }
}

pub(crate) mod link {
    pub(crate) fn take_found_asleep() -> bool {
        false
    }
}

pub(crate) mod spin {
    use std::time::{Duration, Instant};

    /// As the runtime's, with a longest time of zero.
    pub(crate) struct Spin;

    impl Spin {
        pub(crate) fn new(_: Duration) -> Self {
            Self
        }

        pub(crate) fn until(&self, _: bool, _: u32, _: impl Fn() -> bool) -> bool {
            false
        }

        pub(crate) fn slept(&self, _: Instant) {}

        pub(crate) fn waited(&self, _: Duration) {}
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mistake {
    None,
    AnnouncesFirst,
    DoesNotAnnounce,
}

/// A process with two calls under way.
struct Process {
    bell: Bell,
    waiters: Arc<Waiters>,
    results: [Arc<ResultCell>; 2],
    records: Mutex<Vec<usize>>,
    mistake: Mistake,
}

impl Process {
    fn new(mistake: Mistake) -> Arc<Self> {
        let bell = Bell::default();
        let waiters = Waiters::new(bell.clone(), Duration::ZERO);
        Arc::new(Self {
            bell,
            waiters,
            results: Default::default(),
            records: Mutex::new(Vec::new()),
            mistake,
        })
    }

    /// Another process sends a record.
    fn send(&self, result: usize) {
        self.records.lock().push(result);
        self.bell.ring();
    }

    /// As `ObjectRef::get` does. Returns whether the result is there.
    fn get(&self, result: usize) -> bool {
        let result = &self.results[result];
        let awaited = || Awaited { result: Some(result.clone()), nap: None };
        let found = self.waiters.wait(self, None, || None, awaited, || result.is_ready().then_some(()));
        found.is_some()
    }
}

impl Mail for Process {
    fn look(&self) -> bool {
        let records = std::mem::take(&mut *self.records.lock());
        if records.is_empty() {
            return false;
        }
        if self.mistake == Mistake::AnnouncesFirst {
            self.waiters.announce();
        }
        records.into_iter().for_each(|result| self.results[result].settle());
        if self.mistake == Mistake::None {
            self.waiters.announce();
        }
        true
    }

    fn has_work(&self) -> impl Fn() -> bool + '_ {
        || !self.records.lock().is_empty()
    }

    fn has_events(&self) -> bool {
        false
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn calls(&self) -> u64 {
        0
    }

    fn has_futures(&self) -> bool {
        false
    }

    fn needs_ticks(&self) -> bool {
        false
    }

    fn due(&self) -> Option<Instant> {
        None
    }

    fn tick(&self) -> bool {
        false
    }
}

/// Two threads wait, each for one of two results.
fn two_wait(mistake: Mistake) {
    let process = Process::new(mistake);
    let other = {
        let process = process.clone();
        spawn(move || assert!(process.get(0)))
    };
    let sender = {
        let process = process.clone();
        spawn(move || {
            process.send(1);
            process.send(0);
        })
    };
    assert!(process.get(1));
    sender.join().unwrap();
    other.join().unwrap();
}

/// One thread waits, and another one finds its result: it handles the mail for a call that it makes.
fn one_waits_and_another_finds(mistake: Mistake) {
    let process = Process::new(mistake);
    process.records.lock().push(0);
    let finder = {
        let process = process.clone();
        spawn(move || _ = process.look())
    };
    assert!(process.get(0));
    finder.join().unwrap();
}

#[test]
fn each_thread_finds_its_result() {
    holds("two threads wait", || two_wait(Mistake::None));
    holds("another thread finds the result", || one_waits_and_another_finds(Mistake::None));
}

#[test]
fn each_wait_ends_with_the_session() {
    holds("the session ends", || {
        let process = Process::new(Mistake::None);
        let ends = {
            let process = process.clone();
            spawn(move || {
                process.waiters.end();
                process.waiters.announce();
            })
        };
        assert!(!process.get(0));
        ends.join().unwrap();
    });
}

fn loads_without_order(access: Access) -> Ordering {
    match access.kind {
        Kind::Load if access.ordering == SeqCst => Acquire,
        _ => access.ordering,
    }
}

/// Breaks: the thread that announces sees nobody asleep, and the one that goes to sleep sees no arrival.
#[test]
fn planted_looks_that_are_not_ordered_behind_what_they_follow() {
    fails("announce without order", "deadlock", loads_without_order, || {
        one_waits_and_another_finds(Mistake::None);
    });
}

/// Breaks: a thread that looks between the announcement and the result sleeps on.
#[test]
fn planted_an_announcement_before_the_result() {
    fails("announces first", "deadlock", as_it_is, || two_wait(Mistake::AnnouncesFirst));
}

/// Breaks: a thread that has found another one's result leaves it asleep.
#[test]
fn planted_a_thread_that_keeps_what_it_finds_to_itself() {
    fails("does not announce", "deadlock", as_it_is, || {
        one_waits_and_another_finds(Mistake::DoesNotAnnounce);
    });
}
