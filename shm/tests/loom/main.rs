//! The lock-free parts under a model checker: every order in which the threads of a small model can run, with two
//! preemptions at least, and every value that the memory model lets a load see. `just loom` runs it.
//!
//! # What runs
//!
//! The code itself: `mobula_shm`'s pins, tables, directory, rings and their words, over atomics and mappings that are
//! the checker's (`mobula_shm::sync`, `mobula_shm::model`), and the client's counts, whose file is included. Where a
//! protocol goes on in another crate, with sockets and locks that the checker cannot run, a model follows that code
//! line by line and says which.
//!
//! # What it proves, and what not
//!
//! *All* behaviours of these models within the bound, of the language's memory model as loom knows it: a processor that
//! reorders more than this machine's is covered. There is no `SeqCst` access in it, which loom takes for less than it
//! is: each handshake stands on fences, in the code as it is shipped. Three things are not as in the language:
//!
//! * A load never sees a store that comes later in its thread's time: loom runs each thread in its order.
//! * Where threads wait for each other without sleeping, only the first few rounds are explored in every order.
//! * The models are small: two or three processes, two or three objects, two or three records.
//!
//! An object's bytes are a cell whose accesses loom checks for races: a reader that may still read what its owner
//! writes again is found even where it would have read the right value.
//!
//! # What shows that it can fail
//!
//! Beside each model stands the mistake that it is there to find, planted by a switch that exists only here: an
//! ordering that is weakened, a fence that is left out, or two steps in the wrong order. The test demands that a
//! failure is found, and which.

#![cfg(mobula_loom)]

mod compaction;
mod counts;
mod doorbell;
mod handshake;
mod promise;
mod ring;
mod spilling;
mod takeover;

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
    let began = Instant::now();
    let executions = explore_all(name, model);
    println!("{name}: {executions} executions in {} ms", began.elapsed().as_millis());
}

/// Explores a model in which somebody is killed before its first store, its second one, and so on, until it ends by
/// itself: the model gets the number of stores, and says whether there was a next one.
fn holds_wherever_it_is_killed(name: &str, model: impl Fn(usize) -> bool + Copy + Send + Sync + 'static) {
    let began = Instant::now();
    let (mut executions, mut stores) = (0, 0);
    loop {
        let was_killed = Arc::new(AtomicBool::new(false));
        let seen = was_killed.clone();
        executions += explore_all(name, move || _ = was_killed.fetch_or(model(stores), Ordering::Relaxed));
        if !seen.load(Ordering::Relaxed) {
            break;
        }
        stores += 1;
    }
    let milliseconds = began.elapsed().as_millis();
    println!("{name}: {executions} executions in {milliseconds} ms, killed at {stores} places");
    assert!(stores > 3, "nobody is killed in the midst of anything");
}

/// The executions of a model that holds.
fn explore_all(name: &str, model: impl Fn() + Send + Sync + 'static) -> usize {
    let (executions, failure) = explore(as_it_is, model);
    if let Some(failure) = failure {
        panic!("{name}: {failure} in execution {executions}");
    }
    executions
}

/// Explores a model with a mistake in it, until the failure is found that it leads to, and no other one.
fn fails(
    name: &str,
    expected: &str,
    weaken: fn(Access) -> Ordering,
    model: impl Fn() + Send + Sync + 'static,
) {
    let (executions, failure) = quietly(|| explore(weaken, model));
    let failure = failure.unwrap_or_else(|| panic!("{name}: the mistake was not found"));
    println!("{name}: found in execution {executions}");
    assert!(failure.contains(expected), "{name}: found something else: {failure}");
}

/// Nothing is weakened.
fn as_it_is(access: Access) -> Ordering {
    access.ordering
}

/// The executions explored, and how the last one failed.
fn explore(
    weaken: fn(Access) -> Ordering,
    model: impl Fn() + Send + Sync + 'static,
) -> (usize, Option<String>) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
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

/// An object's bytes, in the way in which they are shared: without any atomics.
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
