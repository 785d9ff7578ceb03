//! Streams: the function (`flight.rs`, `under_way.rs` and `queue.rs` of the runtime, included unchanged) never has more
//! items in flight than the caller allows (`runtime/src/call/items.rs`, included unchanged), and does not sleep while
//! there is room, after a cancel, or after its caller is gone.
//!
//! A function that waits on its thread follows `runtime/src/worker/stream.rs` (`send`), and waits as
//! [`mail`](crate::mail) explores it. A function that is a future is woken as [`cancel`](crate::cancel) does it. The
//! mail follows `runtime/src/executor/mod.rs` (`on_record`), the caller `runtime/src/front/stream.rs`
//! (`next_if_there`, `poll_registered`).

#[path = "../../../runtime/src/worker/flight.rs"]
mod flight;

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Plain;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use loom::thread::spawn;
use mobula_shm::model::atomics::{Access, Kind};

use self::flight::{Flight, Way};
use crate::call::items::Items;
use crate::call::outcome::Settled;
use crate::call::waiter::Waiter;
use crate::cancel::Task;
use crate::executor::Call;
use crate::executor::queue::{CallId, Calls};
use crate::mail::Bell;
use crate::mail::waiters::{Awaited, Mail, Waiters};
use crate::sync::Ordering::{self, Acquire, Relaxed, Release, SeqCst};
use crate::sync::{AtomicBool, Mutex};
use crate::{as_it_is, fails, holds};

const CALL: CallId = CallId { link: 1, task: 1 };
const NEXT: CallId = CallId { link: 1, task: 2 };

#[derive(Clone, Copy, PartialEq)]
enum Mistake {
    None,
    /// A thread that has handled a report does not tell the thread that waits.
    DoesNotAnnounce,
    AnnouncesFirst,
    /// A report looks for the call with the queue locked, and notes the items afterwards.
    NotesUnlocked,
    /// A future of the caller looks first, and registers then.
    LooksFirst,
}

/// A record to the process that makes the items; or the end of its link to the caller.
#[derive(Clone, Copy)]
enum Record {
    Taken(CallId, u64),
    Cancel(CallId),
    Gone,
}

/// How the caller ends.
#[derive(Clone, Copy)]
enum End {
    /// It takes all items.
    Takes,
    Cancels,
    Dies,
}

/// The process that makes the items, and the caller's end of the stream.
struct World {
    calls: Calls<Call>,
    bell: Bell,
    waiters: Arc<Waiters>,
    records: Mutex<Vec<Record>>,
    is_closed: AtomicBool,
    mistake: Mistake,
    items: Arc<Items>,
    in_flight_max: u64,
    /// How many items the caller has taken. The checker does not see it, and it changes nothing that the model does.
    taken: Plain,
    caller: Arc<Task>,
}

impl World {
    fn new(in_flight_max: u32, mistake: Mistake) -> Arc<Self> {
        let (calls, bell) = (Calls::new(), Bell::default());
        calls.lock().work.extend([Call(CALL), Call(NEXT)]);
        calls.take(&mut calls.lock());
        Arc::new(Self {
            calls,
            waiters: Waiters::new(bell.clone(), Duration::ZERO),
            bell,
            records: Mutex::new(Vec::new()),
            is_closed: AtomicBool::new(false),
            mistake,
            items: Items::new(in_flight_max),
            in_flight_max: in_flight_max.into(),
            taken: Plain::new(0),
            caller: Arc::default(),
        })
    }

    // ---- the process that makes the items ----

    /// As `ItemSink::push`, and the arrival of the item at the caller.
    fn push(&self, flight: &Flight<'_>) {
        let position = flight.sent();
        let taken = self.taken.load(Relaxed);
        assert!(position < taken + self.in_flight_max, "{position} were sent, {taken} taken");
        let arrival = self.items.arrive(position, || Some(Settled)).expect("no more than may be in flight");
        assert_eq!(arrival.tell, None, "there is one attempt");
        if let Some(waker) = arrival.waiter.and_then(|waiter| waiter.one_is_ready(false)) {
            waker.wake();
        }
        flight.count();
    }

    fn is_wanted(&self, flight: &Flight<'_>) -> bool {
        !flight.is_cancelled() && !self.is_closed.load(Acquire)
    }

    /// As `ItemSink::send` does it for each item. Returns the number of items sent.
    fn make_on_a_thread(&self, count: u64) -> u64 {
        let flight = Flight::new(self.calls.only(), self.in_flight_max as u32);
        while flight.sent() < count {
            self.push(&flight);
            let may_go_on = || flight.may_go_on(self).then_some(());
            if may_go_on().is_none() {
                self.waiters.wait(self, None, || None, Awaited::default, may_go_on);
            }
            if !self.is_wanted(&flight) {
                break;
            }
        }
        flight.sent()
    }

    /// As a future that polls for room before each item.
    fn make_as_a_future(&self, count: u64) {
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        let flight = Flight::new(self.calls.only(), self.in_flight_max as u32);
        while flight.sent() < count {
            match flight.poll_room(&Context::from_waker(&waker), || self.is_wanted(&flight)) {
                Poll::Ready(true) => self.push(&flight),
                Poll::Ready(false) => break,
                Poll::Pending => task.sleep(),
            }
        }
    }

    /// As `Executor::on_record` and `on_caller_gone`, with the wakers of each woken.
    fn handle(&self, record: Record) {
        let wakers = match record {
            Record::Taken(call, items) if self.mistake == Mistake::NotesUnlocked => {
                let is_there = self.calls.find(&self.calls.lock(), call).is_some();
                if is_there { self.calls.only().set_items_taken(items) } else { Vec::new() }
            }
            Record::Taken(call, items) => self.calls.items_taken(call, items),
            Record::Cancel(call) => {
                let queue = self.calls.lock();
                self.calls.find(&queue, call).map(|call| call.cancel()).unwrap_or_default()
            }
            Record::Gone => {
                self.is_closed.store(true, Release);
                self.calls.wakers_of(&self.calls.lock(), CALL.link)
            }
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    // ---- the caller ----

    fn send(&self, record: Record) {
        self.records.lock().push(record);
        self.bell.ring();
    }

    /// As `ItemStream::next_if_there`. Returns whether an item was there.
    fn take(&self, tell: impl FnOnce(Record)) -> bool {
        let Some((_, told)) = self.items.take() else { return false };
        self.taken.fetch_add(1, Relaxed);
        if let Some(items) = told {
            tell(Record::Taken(CALL, items));
        }
        true
    }

    /// As `ItemStream::poll_registered` does it, until an item is there.
    fn take_next(&self, tell: impl Fn(Record)) {
        let waker = Waker::from(self.caller.clone());
        let mut registered: Option<Arc<Waiter>> = None;
        loop {
            if self.mistake == Mistake::LooksFirst && self.take(&tell) {
                return;
            }
            if registered.as_ref().is_none_or(|waiter| waiter.has_ended()) {
                registered = Some(Waiter::new(1, true));
            }
            if let Some(waiter) = &registered {
                waiter.set_waker(&waker);
                self.items.set_waiter(Some(waiter.clone()));
            }
            if self.mistake != Mistake::LooksFirst && self.take(&tell) {
                return;
            }
            self.caller.sleep();
        }
    }

    /// Takes items, and ends then. `tell` brings a record to the other process.
    fn consume(&self, count: u64, end: End, tell: impl Fn(Record)) {
        for _ in 0..count {
            self.take_next(&tell);
        }
        match end {
            End::Takes => {}
            End::Cancels => tell(Record::Cancel(CALL)),
            End::Dies => tell(Record::Gone),
        }
    }
}

impl Way for World {
    fn is_closed(&self) -> bool {
        self.is_closed.load(Acquire)
    }

    fn is_backlogged(&self) -> bool {
        false
    }
}

impl Mail for World {
    fn look(&self) -> bool {
        let records = std::mem::take(&mut *self.records.lock());
        if records.is_empty() {
            return false;
        }
        if self.mistake == Mistake::AnnouncesFirst {
            self.waiters.announce();
        }
        records.into_iter().for_each(|record| self.handle(record));
        if !matches!(self.mistake, Mistake::AnnouncesFirst | Mistake::DoesNotAnnounce) {
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

/// A function waits on its thread, which handles the mail. The caller takes so many items of three, and ends then.
fn waits_on_a_thread(in_flight_max: u32, taken: u64, end: End) {
    let world = World::new(in_flight_max, Mistake::None);
    let caller = {
        let world = world.clone();
        spawn(move || world.consume(taken, end, |record| world.send(record)))
    };
    let sent = world.make_on_a_thread(3);
    caller.join().unwrap();
    assert!(sent <= taken + u64::from(in_flight_max));
}

/// The same function and the same caller, and another thread that handles the mail: it makes a call.
fn waits_beside_a_thread_that_looks() {
    let world = World::new(1, Mistake::None);
    let caller = {
        let world = world.clone();
        spawn(move || world.consume(2, End::Takes, |record| world.send(record)))
    };
    let other = {
        let world = world.clone();
        spawn(move || _ = world.look())
    };
    assert_eq!(world.make_on_a_thread(2), 2);
    [caller, other].into_iter().for_each(|thread| thread.join().unwrap());
}

/// A function waits for a record that another thread handles.
fn another_thread_handles_the_mail(record: Record, mistake: Mistake) {
    let world = World::new(1, mistake);
    world.records.lock().push(record);
    if let Record::Taken(_, items) = record {
        world.taken.store(items, Relaxed);
    }
    let other = {
        let world = world.clone();
        spawn(move || _ = world.look())
    };
    world.make_on_a_thread(if matches!(record, Record::Taken(..)) { 1 } else { 2 });
    other.join().unwrap();
}

/// A function that is a future, and a caller whose records are handled at once.
fn waits_as_a_future(in_flight_max: u32, taken: u64, end: End, mistake: Mistake) {
    let world = World::new(in_flight_max, mistake);
    let caller = {
        let world = world.clone();
        spawn(move || world.consume(taken, end, |record| world.handle(record)))
    };
    world.make_as_a_future(3);
    caller.join().unwrap();
}

/// The report about a call comes when it is over, and the next call, which makes a stream too, has begun or begins.
fn a_late_report(mistake: Mistake) {
    let world = World::new(2, mistake);
    let late = {
        let world = world.clone();
        spawn(move || world.handle(Record::Taken(CALL, 2)))
    };
    world.calls.over();
    world.calls.take(&mut world.calls.lock());
    let flight = Flight::new(world.calls.only(), 2);
    [(), ()].iter().for_each(|()| flight.count());
    assert!(!flight.may_go_on(&*world), "items of another stream count as taken");
    late.join().unwrap();
    assert!(!flight.may_go_on(&*world), "items of another stream count as taken");
    // Its own count.
    world.handle(Record::Taken(NEXT, 1));
    assert!(flight.may_go_on(&*world));
}

/// Two threads of the caller report, and the later report comes first.
fn reports_in_any_order() {
    let world = World::new(1, Mistake::None);
    let other = {
        let world = world.clone();
        spawn(move || world.handle(Record::Taken(CALL, 1)))
    };
    world.handle(Record::Taken(CALL, 2));
    other.join().unwrap();
    assert_eq!(world.calls.only().items_taken(), 2);
}

const TAKEN: Record = Record::Taken(CALL, 1);

#[test]
fn a_function_that_waits_on_its_thread_goes_on_when_it_may() {
    holds("a stream, one in flight", || waits_on_a_thread(1, 3, End::Takes));
    holds("a stream, two in flight", || waits_on_a_thread(2, 3, End::Takes));
    holds("a stream beside a thread that looks", waits_beside_a_thread_that_looks);
    holds("a stream that is cancelled", || waits_on_a_thread(1, 1, End::Cancels));
    holds("a stream whose caller dies", || waits_on_a_thread(1, 1, End::Dies));
    for (name, record) in [("taken", TAKEN), ("cancelled", Record::Cancel(CALL)), ("gone", Record::Gone)] {
        holds(&format!("another thread handles the mail: {name}"), move || {
            another_thread_handles_the_mail(record, Mistake::None);
        });
    }
}

#[test]
fn a_function_that_is_a_future_goes_on_when_it_may() {
    holds("a future, one in flight", || waits_as_a_future(1, 3, End::Takes, Mistake::None));
    holds("a future, two in flight", || waits_as_a_future(2, 3, End::Takes, Mistake::None));
    holds("a future that is cancelled", || waits_as_a_future(1, 1, End::Cancels, Mistake::None));
    holds("a future whose caller dies", || waits_as_a_future(1, 1, End::Dies, Mistake::None));
}

#[test]
fn a_report_counts_for_its_call_and_as_far_as_it_is_news() {
    holds("a late report", || a_late_report(Mistake::None));
    holds("reports in any order", reports_in_any_order);
}

/// Breaks: a thread that looks between the announcement and the change sleeps on, or is never told.
#[test]
fn planted_news_that_is_not_announced() {
    for (name, record) in [("taken", TAKEN), ("cancelled", Record::Cancel(CALL)), ("gone", Record::Gone)] {
        fails(&format!("announces first: {name}"), "deadlock", as_it_is, move || {
            another_thread_handles_the_mail(record, Mistake::AnnouncesFirst);
        });
        fails(&format!("does not announce: {name}"), "deadlock", as_it_is, move || {
            another_thread_handles_the_mail(record, Mistake::DoesNotAnnounce);
        });
    }
}

/// Breaks: the thread that announces sees nobody asleep, and the one that goes to sleep sees no arrival.
#[test]
fn planted_looks_that_are_not_ordered_behind_what_they_follow() {
    let weaken = |access: Access| match access.kind {
        Kind::Load if access.ordering == SeqCst => Acquire,
        _ => access.ordering,
    };
    fails("a stream without order", "deadlock", weaken as fn(Access) -> Ordering, || {
        another_thread_handles_the_mail(TAKEN, Mistake::None);
    });
}

/// Breaks: the next call begins between the look and the note.
#[test]
fn planted_a_note_without_the_lock() {
    fails("notes unlocked", "items of another stream", as_it_is, || a_late_report(Mistake::NotesUnlocked));
}

/// Breaks: the item comes between the look and the registration.
#[test]
fn planted_a_caller_that_looks_before_it_is_registered() {
    fails("the caller looks first", "deadlock", as_it_is, || {
        waits_as_a_future(1, 3, End::Takes, Mistake::LooksFirst);
    });
}
