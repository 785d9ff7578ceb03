//! Costs of a call that a clock cannot measure reliably: heap allocations, on both sides, copied bytes, and how often a
//! waiting thread is woken. If these fail, every call of a program has become slower by the additional ones.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use std::time::{Duration, Instant};

use mobula::prelude::*;
use mobula::value::encode;
use mobula_tests::{session, session_with, sleeps_of};
use nix::unistd::gettid;

/// Calls that are counted, after as many that are not.
const CALLS: u64 = 2_000;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, which counts what each thread asks it for.
struct Counting;

// SAFETY: every call is passed on as it came; counting touches a thread-local cell, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[mobula::remote]
fn successor(x: i64) -> i64 {
    x + 1
}

/// Computes for so many microseconds.
#[mobula::remote]
fn computes(micros: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {}
}

struct Total {
    value: i64,
}

#[mobula::remote]
impl Total {
    fn new() -> Self {
        Self { value: 0 }
    }

    fn add(&mut self, x: i64) -> i64 {
        self.value += x;
        self.value
    }

    fn ends(&self, tensor: Tensor<f64>) -> (f64, f64) {
        let elements = tensor.as_slice();
        (elements[0], elements[elements.len() - 1])
    }

    fn allocations(&self) -> u64 {
        ALLOCATIONS.get()
    }
}

/// Allocations of this thread for each of `CALLS` runs of `call`, rounded; the rare growth of a table does not count.
fn allocations_of(mut call: impl FnMut()) -> u64 {
    (0..CALLS).for_each(|_| call());
    let before = ALLOCATIONS.get();
    (0..CALLS).for_each(|_| call());
    (ALLOCATIONS.get() - before + CALLS / 2) / CALLS
}

#[test]
fn a_call_allocates_the_task_and_its_result_cell_and_nothing_in_the_worker() {
    let _session = session(2);
    let task = allocations_of(|| assert_eq!(successor::remote(1).get().unwrap(), 2));
    let actor = Total::remote();
    let method = allocations_of(|| _ = actor.add(1).get().unwrap());
    assert_eq!(actor.add(0).get().unwrap(), 2 * CALLS as i64);
    println!("allocations of the caller: {task} a task, {method} a call of an actor");
    assert!(task <= 2 && method <= 2, "{task}, {method}");

    let before = actor.allocations().get().unwrap();
    (0..CALLS).for_each(|_| _ = actor.add(1).get().unwrap());
    let in_worker = actor.allocations().get().unwrap() - before;
    println!("allocations of the actor's process: {in_worker} for {CALLS} calls");
    // Memory for arguments and results is used again and again.
    assert!(in_worker <= CALLS / 10, "{in_worker}");
}

#[test]
fn many_calls_at_once_allocate_no_more_for_each() {
    let _session = session(2);
    let actor = Total::remote();
    let mut results = Vec::with_capacity(CALLS as usize);
    let mut all = || {
        let before = ALLOCATIONS.get();
        results.extend((0..CALLS).map(|_| actor.add(1)));
        let values = mobula::get(&results).unwrap();
        assert!(values.is_sorted() && values.len() as u64 == CALLS);
        results.clear();
        ALLOCATIONS.get() - before
    };
    let (first, second) = (all(), all());
    println!("allocations of the caller: {first}, then {second}, for {CALLS} calls");
    // A call that finds the ring full waits in a list.
    assert!(second <= CALLS * 3 + CALLS / 10, "{second}");
}

#[test]
fn passing_a_stored_array_copies_none_of_it_and_allocates_the_same_whatever_its_size() {
    let _session = session(1);
    let actor = Total::remote();
    let counts = [1_000_000, 30_000_000].map(|bytes: usize| {
        let mut tensor = TensorMut::<f64>::zeros(&[bytes / size_of::<f64>()]).unwrap();
        *tensor.as_mut_slice().last_mut().unwrap() = 1.0;
        let tensor = tensor.seal();
        assert_eq!(encode(&tensor).unwrap().copied_bytes(), 0);
        let stored = mobula::put(&tensor).unwrap();
        allocations_of(|| assert_eq!(actor.ends(&stored).get().unwrap(), (0.0, 1.0)))
    });
    println!("allocations of the caller: {counts:?}");
    assert_eq!(counts[0], counts[1]);
}

/// Attempts at a count that a busy machine may spoil.
const ATTEMPTS: usize = 5;

#[test]
fn a_thread_that_waits_for_many_results_is_woken_for_many_at_a_time() {
    // Nothing is seen without being woken.
    let _session =
        session_with(mobula::Builder::new().workers(2).capacity_bytes(64 << 20).spin(Duration::ZERO));
    let sleeps = || {
        let results: Vec<_> = (0..CALLS).map(|_| computes::remote(40)).collect();
        let before = sleeps_of(gettid());
        mobula::get(&results).unwrap();
        sleeps_of(gettid()) - before
    };
    let counts: Vec<u64> = (0..ATTEMPTS).map(|_| sleeps()).collect();
    println!("sleeps of a thread that waits for {CALLS} results: {counts:?}");
    assert!(counts.iter().any(|sleeps| *sleeps < CALLS / 4), "{counts:?}");
}
