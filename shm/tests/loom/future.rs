//! A future that waits for results (`runtime/src/call/waiter.rs`, included unchanged): its task is woken when the
//! results are there, whichever threads bring them, and no wake-up is lost during the poll that registers the task.
//!
//! The poll follows `runtime/src/front/future.rs`: set the waker, then look. The results are counted as
//! `runtime/src/submit/incoming.rs` does: settle, count, wake with nothing locked.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Plain;
use std::task::{Wake, Waker};

use loom::thread::spawn;

use crate::call::result_cell::ResultCell;
use crate::call::waiter::Waiter;
use crate::sync::Ordering::Relaxed;
use crate::{as_it_is, fails, holds};

/// A task of an executor: counts its wake-ups. The checker does not see it, and it changes nothing that the model does.
#[derive(Default)]
struct Task(Plain);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

struct Wait {
    waiter: Arc<Waiter>,
    results: [ResultCell; 2],
}

impl Wait {
    fn new(ends_on_failure: bool) -> Arc<Self> {
        Arc::new(Self { waiter: Waiter::new(2, ends_on_failure), results: Default::default() })
    }

    fn bring(&self, result: usize, has_failed: bool) {
        self.results[result].settle();
        if let Some(waker) = self.waiter.one_is_ready(has_failed) {
            waker.wake();
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Poll {
    AsItIs,
    LooksFirst,
}

/// Two threads bring a result each, while a task polls.
fn two_bring(poll: Poll) {
    let (wait, task) = (Wait::new(false), Arc::new(Task::default()));
    let waker = Waker::from(task.clone());
    let threads = [0, 1].map(|result| {
        let wait = wait.clone();
        spawn(move || wait.bring(result, false))
    });
    let is_ready = match poll {
        Poll::AsItIs => {
            wait.waiter.set_waker(&waker);
            wait.waiter.has_ended()
        }
        Poll::LooksFirst => {
            let has_ended = wait.waiter.has_ended();
            wait.waiter.set_waker(&waker);
            has_ended
        }
    };
    if is_ready {
        assert!(wait.results.iter().all(ResultCell::is_ready), "a wait is over without its results");
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(is_ready || task.0.load(Relaxed) > 0, "a task is not woken");
    assert!(task.0.load(Relaxed) <= 1, "a task is woken twice");
}

#[test]
fn a_task_is_woken_when_its_results_are_there() {
    holds("a future of two results", || two_bring(Poll::AsItIs));
    holds("a future that a failure ends", || {
        let (wait, task) = (Wait::new(true), Arc::new(Task::default()));
        wait.waiter.set_waker(&Waker::from(task.clone()));
        let other = {
            let wait = wait.clone();
            spawn(move || wait.bring(0, true))
        };
        wait.bring(1, false);
        other.join().unwrap();
        assert_eq!(task.0.load(Relaxed), 1, "how often the task was woken");
    });
}

/// Breaks: the last result comes between the look and the registration.
#[test]
fn planted_a_look_before_the_waker_is_set() {
    fails("looks, then registers", "a task is not woken", as_it_is, || two_bring(Poll::LooksFirst));
}

/// Breaks: the task finds the wait over, and a result not there.
#[test]
fn planted_a_count_that_publishes_nothing() {
    fails(
        "counts without order",
        "a wait is over without its results",
        |_| Relaxed,
        || {
            two_bring(Poll::AsItIs);
        },
    );
}
