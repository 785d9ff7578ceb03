//! The lock-free parts under a model checker. It explores every order in which the threads of a small model can run,
//! with at least two preemptions, and every value that the memory model lets a load see. `just loom` runs it.
//!
//! # What runs
//!
//! The shipped code runs: the pins, tables, directory and rings of `mobula_shm`, and included files of other crates.
//! From the client these are the counts; from the runtime the waits for mail, the queue of calls and their progress,
//! cancelling, the items of streams in flight, and the futures that wait for results. Its atomics, locks and mappings
//! are those of the checker (`mobula_shm::sync`, `mobula_shm::model`, `sync`). Some protocols go on in code with
//! sockets that the checker cannot run. There a model follows that code line by line, and its file says which code.
//!
//! # What it proves, and what it does not prove
//!
//! It explores *all* behaviours of these models within the bound, by the memory model of the language as loom
//! implements it. So processors that reorder more than this machine are covered. loom treats a `SeqCst` access as
//! weaker than it is: the handshakes of processes use fences, and an access of the runtime's is one behind a fence
//! (`mobula_shm::model::atomics`). Three things differ from the language:
//!
//! * A load never sees a store that its thread does later: loom runs each thread in its order.
//! * If threads wait for each other without sleeping, only the first few rounds are explored in every order.
//! * The models are small: two or three processes, two or three objects, two or three records.
//!
//! The bytes of an object are a cell, and loom checks the accesses to it for races. So loom finds a reader that can
//! still read while the owner writes again, even if the reader would have read the right value.
//!
//! # Planted mistakes show that it can fail
//!
//! Beside each model stand the mistakes that it must find. A switch that exists only here plants them: an ordering that
//! is weakened, a fence that is left out, or two steps in the wrong order. The test demands that loom finds the failure
//! that the mistake leads to, and no other.

#![cfg(mobula_loom)]

mod call;
mod cancel;
mod compaction;
mod counts;
mod doorbell;
mod error;
mod executor;
mod future;
mod handshake;
mod idle;
mod mail;
mod promise;
mod recorder;
mod ring;
mod spilling;
mod stream;
mod sync;
mod takeover;
#[expect(dead_code, reason = "the models do not search for deadlocks")]
#[path = "../../../runtime/src/under_way.rs"]
mod under_way;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Instant;

use mobula_shm::model::atomics::{Access, Settings, begin_execution, with_settings};

/// The number of preemptions, unless `LOOM_MAX_PREEMPTIONS` says otherwise. A switch away from a thread that has to
/// wait does not count.
const PREEMPTIONS: usize = 2;

/// Explores a model that holds.
fn holds(name: &str, model: impl Fn() + Send + Sync + 'static) {
    holds_with(PREEMPTIONS, name, model);
}

/// The same with at least so many preemptions, for three threads that get in each other's way.
fn holds_with(preemptions: usize, name: &str, model: impl Fn() + Send + Sync + 'static) {
    let began = Instant::now();
    let executions = explore_all(preemptions, name, model);
    println!("{name}: {executions} executions in {} ms", began.elapsed().as_millis());
}

/// Explores a model in which a process is killed before its first store, then before its second one, and so on, until
/// it ends by itself. The model gets the number of stores, and returns whether the process was killed.
fn holds_wherever_it_is_killed(name: &str, model: impl Fn(usize) -> bool + Copy + Send + Sync + 'static) {
    let began = Instant::now();
    let (mut executions, mut stores) = (0, 0);
    loop {
        let was_killed = Arc::new(AtomicBool::new(false));
        let seen = was_killed.clone();
        executions +=
            explore_all(PREEMPTIONS, name, move || _ = was_killed.fetch_or(model(stores), Ordering::Relaxed));
        if !seen.load(Ordering::Relaxed) {
            break;
        }
        stores += 1;
    }
    let milliseconds = began.elapsed().as_millis();
    println!("{name}: {executions} executions in {milliseconds} ms, killed at {stores} places");
    assert!(stores > 3, "the process is never killed in the middle of an operation");
}

/// The executions of a model that holds.
fn explore_all(preemptions: usize, name: &str, model: impl Fn() + Send + Sync + 'static) -> usize {
    let (executions, failure) = explore(preemptions, as_it_is, model);
    if let Some(failure) = failure {
        panic!("{name}: {failure} in execution {executions}");
    }
    executions
}

/// Explores a model with a mistake in it, and checks that it leads to the expected failure.
fn fails(
    name: &str,
    expected: &str,
    weaken: fn(Access) -> Ordering,
    model: impl Fn() + Send + Sync + 'static,
) {
    fails_with(PREEMPTIONS, name, expected, weaken, model);
}

/// The same with at least so many preemptions.
fn fails_with(
    preemptions: usize,
    name: &str,
    expected: &str,
    weaken: fn(Access) -> Ordering,
    model: impl Fn() + Send + Sync + 'static,
) {
    let (executions, failure) = quietly(|| explore(preemptions, weaken, model));
    let failure = failure.unwrap_or_else(|| panic!("{name}: the mistake was not found"));
    println!("{name}: found in execution {executions}");
    assert!(failure.contains(expected), "{name}: found something else: {failure}");
}

/// Weakens nothing.
fn as_it_is(access: Access) -> Ordering {
    access.ordering
}

/// Explores a model. Returns the number of executions, and the failure of the last one.
fn explore(
    preemptions: usize,
    weaken: fn(Access) -> Ordering,
    model: impl Fn() + Send + Sync + 'static,
) -> (usize, Option<String>) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.max(Some(preemptions));
    builder.max_branches = 10_000;
    let check = || {
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            begin_execution();
            model();
        });
    };
    let result = catch_unwind(AssertUnwindSafe(|| with_settings(Settings { weaken }, check)));
    let failure = result.err().map(|payload| match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().map_or("no message", |message| message).to_owned(),
    });
    (executions.load(Ordering::Relaxed), failure)
}

/// Runs code that is expected to panic, without the panic's message.
fn quietly<R>(run: impl FnOnce() -> R) -> R {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = run();
    QUIET.set(false);
    result
}

/// The bytes of an object. They are shared without atomics.
struct Bytes(loom::cell::UnsafeCell<u64>);

// SAFETY: the accesses are checked by loom, which ends the model before a racing one is done.
unsafe impl Sync for Bytes {}
// SAFETY: it is a number.
unsafe impl Send for Bytes {}

impl Bytes {
    fn new(value: u64) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    fn read(&self) -> u64 {
        // SAFETY: loom ends the model when the access races with a write.
        self.0.with(|bytes| unsafe { *bytes })
    }

    fn write(&self, value: u64) {
        // SAFETY: loom ends the model when the access races with another one.
        self.0.with_mut(|bytes| unsafe { *bytes = value });
    }
}
