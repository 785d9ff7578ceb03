//! Costs that must not grow with the number of actors, of pending calls, or of calling threads.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use mobula::prelude::*;

use super::actors::Adder;
use super::calls::successor;
use super::session::{Running, builder};
use crate::peer::{Failure, Figure, check, median_of, median_of_batches};

/// Room for all actors and nested calls.
const PROCESSES_MAX: usize = 1200;
/// Calls that a thread makes at once.
const AT_ONCE: i64 = 1_000;
/// Longer than an actor takes to end.
const PATIENCE: Duration = Duration::from_secs(60);

#[mobula::remote]
fn deep(levels: u32) -> mobula::Result<u32> {
    if levels == 0 { Ok(0) } else { Ok(deep::remote(levels - 1).get()? + 1) }
}

/// An actor whose first call does not end before a file is there.
pub(super) struct Gate;

#[mobula::remote]
impl Gate {
    fn new() -> Self {
        Self
    }

    fn wait(&mut self, file: PathBuf) {
        while !file.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn successor(&mut self, x: i64) -> i64 {
        x + 1
    }
}

/// A session with more and more actors.
pub(super) struct Crowd {
    actors: Vec<ActorHandle<Adder>>,
    _session: mobula::Session,
}

impl Crowd {
    pub(super) fn start(scratch: &Path) -> Result<Self, Failure> {
        Ok(Self { actors: Vec::new(), _session: start(scratch)? })
    }

    /// Has so many actors, each of which has answered a call. The last one is that which is called.
    fn have(&mut self, count: usize) -> Result<&ActorHandle<Adder>, Failure> {
        while self.actors.len() < count {
            self.actors.push(first_call(1)?);
        }
        self.actors.last().ok_or_else(|| Failure::Error("no actor".into()))
    }

    /// A call of one of so many actors and its result, back to back.
    pub(super) fn call(&mut self, count: usize, budget: Duration) -> Figure {
        const BATCH: usize = 200;
        let actor = self.have(count)?;
        median_of_batches(budget, BATCH, || {
            (0..BATCH as i64).try_for_each(|x| check(actor.successor(x).get()? == x + 1, "an actor's answer"))
        })
    }

    /// A call of one of so many actors, for whose result the caller sleeps.
    pub(super) fn call_asleep(&mut self, count: usize, budget: Duration) -> Figure {
        let actor = self.have(count)?;
        median_of_batches(budget, 1, || check(actor.successor_later(1).get()? == 2, "an actor's answer"))
    }

    /// A task and its result beside them, back to back.
    pub(super) fn task(&mut self, count: usize, budget: Duration) -> Figure {
        const BATCH: usize = 200;
        self.have(count)?;
        median_of_batches(budget, BATCH, || {
            (0..BATCH as i64).try_for_each(|x| check(successor::remote(x).get()? == x + 1, "a task's result"))
        })
    }

    /// The start of one more actor and its first call. It ends before the next one starts.
    pub(super) fn start_one(&mut self, count: usize, budget: Duration) -> Figure {
        self.have(count)?;
        median_of(budget, || {
            let start = Instant::now();
            let actor = first_call(2)?;
            let taken = start.elapsed().as_secs_f64();
            mobula::terminate(&actor, PATIENCE)?;
            Ok(taken)
        })
    }
}

fn first_call(x: i64) -> Result<ActorHandle<Adder>, Failure> {
    let actor = Adder::remote();
    check(actor.successor(x).get()? == x + 1, "an actor's first answer")?;
    Ok(actor)
}

fn start(scratch: &Path) -> Result<mobula::Session, Failure> {
    let session = builder(scratch, 2).max_processes(PROCESSES_MAX).init()?;
    check(successor::remote(1).get()? == 2, "a task's result")?;
    Ok(session)
}

/// The time of each level of calls that wait for one another, in a new session: each level starts a process.
pub(super) fn nested(scratch: &Path, levels: u32) -> Figure {
    let _session = start(scratch)?;
    let start = Instant::now();
    check(deep::remote(levels).get()? == levels, "as many levels")?;
    Ok(start.elapsed().as_secs_f64() / f64::from(levels))
}

/// The private memory that this process takes for each of so many calls whose results are pending.
pub(super) fn pending(scratch: &Path, count: usize) -> Figure {
    let _session = start(scratch)?;
    let directory = tempfile::tempdir_in(scratch)?;
    let (gate, open) = (Gate::remote(), directory.path().join("open"));
    check(gate.successor(1).get()? == 2, "an actor's answer")?;
    let mut results = Vec::with_capacity(count);
    gate.wait(open.clone());
    let before = private_bytes()?;
    results.extend((0..count as i64).map(|x| gate.successor(x)));
    let more = private_bytes()?.saturating_sub(before);
    std::fs::write(&open, "")?;
    for (x, result) in (0..).zip(results) {
        check(result.get()? == x + 1, "an actor's answer")?;
    }
    Ok(more as f64 / count as f64)
}

fn private_bytes() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes << 10)
        .ok_or_else(|| Failure::Error("no RssAnon in the status".into()))
}

/// The work of each of some threads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Call,
    CallMany,
    Get,
    Put,
}

impl Running {
    /// The rate of so many threads together, which call one actor, get one object, or put.
    pub(super) fn threads(&mut self, work: Work, threads: usize, budget: Duration) -> Figure {
        let (actor, object) = (first_call(1)?, mobula::put(&42_i64)?);
        let once = |x: i64| -> Result<i64, Failure> {
            match work {
                Work::Call => check(actor.successor(x).get()? == x + 1, "an actor's answer")?,
                Work::CallMany => {
                    let results: Vec<_> = (0..AT_ONCE).map(|x| actor.successor(x)).collect();
                    let results = mobula::get(&results)?;
                    check(results.into_iter().eq(1..=AT_ONCE), "an actor's answers")?;
                    return Ok(AT_ONCE);
                }
                Work::Get => check(object.get()? == 42, "an object's value")?,
                Work::Put => _ = std::hint::black_box(mobula::put(&x)?),
            }
            Ok(1)
        };
        // The clock is read once for many of the short ones.
        let batch = if matches!(work, Work::Get | Work::Put) { 100 } else { 1 };
        let together = Barrier::new(threads);
        let run = || -> Result<f64, Failure> {
            (0..batch).try_for_each(|x| once(x).map(drop))?;
            together.wait();
            let (start, mut done) = (Instant::now(), 0);
            while start.elapsed() < budget {
                for x in 0..batch {
                    done += once(x)?;
                }
            }
            Ok(done as f64 / start.elapsed().as_secs_f64())
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            let rates = running.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Failure::Error("a calling thread has failed".into())))
            });
            rates.sum()
        })
    }
}
