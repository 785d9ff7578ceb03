//! Cancelling (`runtime/src/executor/queue.rs` and `runtime/src/under_way.rs`, included unchanged): a cancel removes a
//! call that has not begun, or is seen by the call that runs, on each of its threads and in each of its futures; and it
//! is seen by no other call, whether that one comes next or runs beside it.
//!
//! The cancel follows `runtime/src/executor/mod.rs` (`on_cancel`, `on_caller_gone`), and its wakers are woken as
//! `runtime/src/runtime/mod.rs` does it, with nothing locked. The futures follow `runtime/src/front/cancel.rs`
//! (`poll_cancelled`) and `runtime/src/host/reply.rs` (`poll_unwanted`).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Plain;
use std::task::{Wake, Waker};

use loom::thread::spawn;

use crate::doorbell::Bell;
use crate::executor::Call;
use crate::executor::queue::{CallId, Calls};
use crate::sync::AtomicBool;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::under_way::{self, UnderWay};
use crate::{as_it_is, fails, holds};

const FIRST: CallId = CallId { link: 1, task: 1 };
const SECOND: CallId = CallId { link: 1, task: 2 };
const OF_OTHER_LINK: CallId = CallId { link: 2, task: 1 };

#[derive(Clone, Copy, PartialEq)]
enum Mistake {
    None,
    /// A future looks first, and registers then.
    LooksFirst,
    /// A cancel looks for the call with the queue locked, and marks it afterwards.
    MarksUnlocked,
    /// A thread does not say which of several calls it runs, and enters the last one.
    EntersAnother,
    /// A caller that is gone is noted after the futures were woken.
    WakesFirst,
}

/// A task of an executor, with a thread of its own, and the number of its wake-ups.
#[derive(Default)]
pub(crate) struct Task {
    bell: Bell,
    woken: Plain,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        // The checker does not see it, and it changes nothing that the model does.
        self.woken.fetch_add(1, Relaxed);
        self.bell.ring();
    }
}

impl Task {
    pub(crate) fn sleep(&self) {
        self.bell.wait();
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Relaxed) > 0
    }
}

struct Process {
    calls: Calls<Call>,
    /// Whether the first link is closed.
    is_closed: AtomicBool,
    mistake: Mistake,
}

/// The effect of a cancel.
#[derive(Debug, PartialEq)]
enum Cancelled {
    Removed,
    /// The call with this number runs.
    Marked(u64),
    TooLate,
}

impl Process {
    fn with(calls: impl IntoIterator<Item = CallId>, mistake: Mistake) -> Arc<Self> {
        let process = Self { calls: Calls::new(), is_closed: AtomicBool::new(false), mistake };
        process.calls.lock().work.extend(calls.into_iter().map(Call));
        Arc::new(process)
    }

    /// As `Executor::next`.
    fn next(&self) -> Option<CallId> {
        let mut queue = self.calls.lock();
        let taken = self.calls.take(&mut queue);
        drop(queue);
        taken.map(|(work, _)| work.0)
    }

    /// As `Executor::on_cancel`, and what follows it.
    fn cancel(&self, call: CallId) -> Cancelled {
        let mut queue = self.calls.lock();
        let is_removed = queue.remove(call);
        let marked = if self.mistake == Mistake::MarksUnlocked {
            let number = self.calls.find(&queue, call).map(UnderWay::number);
            drop(queue);
            number.map(|number| (number, self.calls.only().cancel()))
        } else {
            let marked = self.calls.find(&queue, call).map(|call| (call.number(), call.cancel()));
            drop(queue);
            marked
        };
        match marked {
            Some((number, wakers)) => {
                assert!(!is_removed, "a call waits and runs");
                wakers.into_iter().for_each(Waker::wake);
                Cancelled::Marked(number)
            }
            None if is_removed => Cancelled::Removed,
            None => Cancelled::TooLate,
        }
    }

    fn is_cancelled(&self) -> bool {
        self.calls.with_running(UnderWay::is_cancelled).unwrap_or_default()
    }

    /// One poll, as `poll_cancelled`.
    fn polls_cancelled(&self, task: &Arc<Task>) -> bool {
        let register =
            || _ = self.calls.with_running(|call| call.wake_when_changed(&Waker::from(task.clone())));
        if self.mistake == Mistake::LooksFirst {
            let is_cancelled = self.is_cancelled();
            register();
            return is_cancelled;
        }
        register();
        self.is_cancelled()
    }

    /// A future of the running call. The model is stuck if it is not woken.
    fn wait_until_cancelled(&self) {
        let task = Arc::new(Task::default());
        while !self.polls_cancelled(&task) {
            task.sleep();
        }
    }

    /// A call that runs to its end, and that nobody cancels.
    fn run_undisturbed(&self) {
        let task = Arc::new(Task::default());
        assert!(!self.polls_cancelled(&task), "a cancel of another call is seen");
        assert!(!self.is_cancelled() && !task.is_woken(), "a cancel of another call is seen");
    }

    /// Cancels a call on another thread while `work` is done on this one.
    fn cancelling(self: &Arc<Self>, call: CallId, work: impl FnOnce(&Arc<Self>)) -> Cancelled {
        let process = self.clone();
        let mail = spawn(move || process.cancel(call));
        work(self);
        mail.join().unwrap()
    }
}

/// The first call waits until it is cancelled, on one thread or two. The second one is not cancelled.
fn waits_for_its_cancel(threads: usize, mistake: Mistake) {
    let process = Process::with([FIRST, SECOND], mistake);
    let mut has_begun = false;
    let cancelled = process.cancelling(FIRST, |process| {
        while let Some(call) = process.next() {
            if call == FIRST {
                has_begun = true;
                let beside = (threads > 1).then(|| {
                    let process = process.clone();
                    spawn(move || process.wait_until_cancelled())
                });
                process.wait_until_cancelled();
                beside.into_iter().for_each(|thread| thread.join().unwrap());
            } else {
                process.run_undisturbed();
            }
            process.calls.over();
        }
    });
    let expected = if has_begun { Cancelled::Marked(1) } else { Cancelled::Removed };
    assert_eq!(cancelled, expected);
}

/// The first call ends by itself, and the second one begins, while the first one is cancelled.
fn ends_by_itself(mistake: Mistake) {
    let process = Process::with([FIRST, SECOND], mistake);
    let (mut has_begun, mut has_seen) = (false, false);
    let (task_before, task) = (Arc::new(Task::default()), Arc::new(Task::default()));
    let cancelled = process.cancelling(FIRST, |process| {
        let mut next = process.next();
        if next == Some(FIRST) {
            has_begun = true;
            has_seen = process.polls_cancelled(&task_before);
            process.calls.over();
            next = process.next();
        }
        assert_eq!(next, Some(SECOND));
        assert!(!process.polls_cancelled(&task), "a cancel of another call is seen");
    });
    assert!(!process.is_cancelled() && !task.is_woken(), "a cancel of another call is seen");
    assert_eq!(Arc::strong_count(&task_before), 1, "a future of a call that is over is kept");
    match cancelled {
        Cancelled::Removed => assert!(!has_begun, "a call that was removed has begun"),
        Cancelled::Marked(number) => assert!(has_begun && number == 1),
        Cancelled::TooLate => assert!(has_begun && !has_seen),
    }
    process.calls.over();
    assert_eq!(process.cancel(SECOND), Cancelled::TooLate, "a call that is over is cancelled");
    assert!(!process.is_cancelled(), "a call that is over is cancelled");
}

/// Two calls run, each on a thread of its own, and the first one is cancelled.
fn two_under_way(mistake: Mistake) {
    let process = Process::with([FIRST, OF_OTHER_LINK], mistake);
    process.calls.set_concurrent();
    assert_eq!([process.next(), process.next()], [Some(FIRST), Some(OF_OTHER_LINK)]);
    let run = |call: CallId, body: fn(&Process)| {
        let process = process.clone();
        spawn(move || {
            let entered = if process.mistake == Mistake::EntersAnother { OF_OTHER_LINK } else { call };
            let own = process.calls.under_way(entered).unwrap();
            assert!(!process.is_cancelled(), "a thread without a call sees a cancel");
            let entered = under_way::enter(own);
            body(&process);
            drop(entered);
            process.calls.answered(call, &process.calls.under_way(call).unwrap());
        })
    };
    let threads = [run(FIRST, Process::wait_until_cancelled), run(OF_OTHER_LINK, Process::run_undisturbed)];
    assert_eq!(process.cancel(FIRST), Cancelled::Marked(1));
    assert!(!process.is_cancelled(), "a thread without a call sees a cancel");
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(process.cancel(OF_OTHER_LINK), Cancelled::TooLate);
    assert_eq!(process.calls.lock().count_under_way(), 0);
}

/// The caller has the failure of a call, and sends the call again, before the state of the first attempt is removed.
fn sent_again() {
    let process = Process::with([FIRST], Mistake::None);
    process.calls.set_concurrent();
    assert_eq!(process.next(), Some(FIRST));
    let first = process.calls.under_way(FIRST).unwrap();
    let thread = {
        let process = process.clone();
        spawn(move || process.calls.answered(FIRST, &first))
    };
    process.calls.lock().work.push_back(Call(FIRST));
    assert_eq!(process.next(), Some(FIRST));
    let second = process.calls.under_way(FIRST).expect("the second attempt is under way");
    thread.join().unwrap();
    assert_eq!(process.cancel(FIRST), Cancelled::Marked(2));
    assert!(second.is_cancelled());
}

/// The caller of a call goes while a future waits for that.
fn caller_goes(mistake: Mistake) {
    let process = Process::with([FIRST], mistake);
    process.calls.set_concurrent();
    assert_eq!(process.next(), Some(FIRST));
    let mail = {
        let process = process.clone();
        spawn(move || {
            let wake = || {
                let wakers = process.calls.wakers_of(&process.calls.lock(), FIRST.link);
                wakers.into_iter().for_each(Waker::wake);
            };
            if process.mistake == Mistake::WakesFirst {
                wake();
            }
            process.is_closed.store(true, Release);
            if process.mistake != Mistake::WakesFirst {
                wake();
            }
        })
    };
    let (own, task) = (process.calls.under_way(FIRST).unwrap(), Arc::new(Task::default()));
    loop {
        own.wake_when_changed(&Waker::from(task.clone()));
        if process.is_closed.load(Acquire) {
            break;
        }
        task.sleep();
    }
    mail.join().unwrap();
}

#[test]
fn a_cancel_is_seen_by_its_call_and_by_no_other() {
    holds("a call that waits for its cancel", || waits_for_its_cancel(1, Mistake::None));
    holds("a call that waits on two threads", || waits_for_its_cancel(2, Mistake::None));
    holds("a cancel, and the next call", || ends_by_itself(Mistake::None));
    holds("a cancel of one of two calls", || two_under_way(Mistake::None));
    holds("a caller that goes", || caller_goes(Mistake::None));
    holds("a call that is sent again", sent_again);
}

/// Breaks: the cancel comes between the look and the registration.
#[test]
fn planted_a_look_before_the_future_is_registered() {
    fails("looks first", "deadlock", as_it_is, || waits_for_its_cancel(1, Mistake::LooksFirst));
    fails("looks first, of two", "deadlock", as_it_is, || two_under_way(Mistake::LooksFirst));
}

/// Breaks: the next call begins between the look and the mark.
#[test]
fn planted_a_mark_without_the_lock() {
    let expected = "a cancel of another call is seen";
    fails("marks unlocked", expected, as_it_is, || ends_by_itself(Mistake::MarksUnlocked));
}

/// Breaks: a call that is not cancelled sees a cancel, or the cancelled one does not.
#[test]
fn planted_a_thread_that_enters_another_call() {
    fails("enters another call", "deadlock", as_it_is, || two_under_way(Mistake::EntersAnother));
}

/// Breaks: the future registers again, still finds its caller there, and sleeps.
#[test]
fn planted_a_caller_that_is_noted_too_late() {
    fails("wakes first", "deadlock", as_it_is, || caller_goes(Mistake::WakesFirst));
}
