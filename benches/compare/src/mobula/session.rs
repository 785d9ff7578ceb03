//! A session: how long it takes to begin and to end, and the one that calls are measured in.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mobula::prelude::*;

use super::calls::{Total, successor};
use super::jobs;
use crate::peer::{self, Failure, Figure, check};
use crate::side::Side;

/// Room for the largest array of all, and for one that takes its place.
const CAPACITY_BYTES: u64 = 6 << 30;

/// A session, and the values that rows keep in it between their rounds.
pub(super) struct Running {
    // References end before their session.
    pub(super) actor: Option<ActorHandle<Total>>,
    pub(super) total: i64,
    pub(super) array: Option<(usize, ObjectRef<Tensor<f64>>)>,
    pub(super) done: Vec<ObjectRef<i64>>,
    pub(super) holder: Option<ObjectRef<Vec<ObjectRef<i64>>>>,
    pub(super) kept: jobs::Kept,
    workers: usize,
    scratch: PathBuf,
    _session: mobula::Session,
}

/// A resource of the session, of which there is one.
pub(super) const LICENCE: &str = "licence";

impl Running {
    pub(super) fn start(scratch: &Path, workers: usize, spin: Option<Duration>) -> Result<Self, Failure> {
        let builder = builder(scratch, workers);
        let session = match spin {
            Some(spin) => builder.spin(spin),
            None => builder,
        }
        .init()?;
        check(successor::remote(1).get()? == 2, "a task's result")?;
        let (actor, total, array, done, holder) = (None, 0, None, Vec::new(), None);
        let (kept, scratch) = (jobs::Kept::default(), scratch.to_owned());
        Ok(Self { actor, total, array, done, holder, kept, workers, scratch, _session: session })
    }

    /// A directory for files of the rows.
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// Drops everything that takes much memory.
    pub(super) fn rest(&mut self) {
        (self.array, self.done, self.holder) = (None, Vec::new(), None);
        self.kept = jobs::Kept::default();
    }

    /// Has both workers run something, so that the session is as it is in use.
    pub(super) fn warm(&mut self) -> Figure {
        let results = mobula::get((0..1000).map(successor::remote))?;
        check(results.into_iter().eq(1..=1000), "the tasks' results")?;
        Ok(0.0)
    }

    /// Ten actors, each with a process of its own, and the first call of each.
    pub(super) fn actors_10(&mut self) -> Figure {
        let start = Instant::now();
        let actors: Vec<_> = (0..10).map(|_| Total::remote()).collect();
        let results = mobula::get(actors.iter().map(|actor| actor.add(1)))?;
        let taken = start.elapsed();
        check(results == [1; 10], "ten actors' first calls")?;
        drop(actors);
        // They end by themselves; the next round should not start beside that.
        std::thread::sleep(Duration::from_millis(100));
        Ok(taken.as_secs_f64())
    }
}

pub(super) fn builder(scratch: &Path, workers: usize) -> mobula::Builder {
    mobula::Builder::new()
        .workers(workers)
        .capacity_bytes(CAPACITY_BYTES)
        .resources([(LICENCE, 1)])
        .session_dir(scratch.join("sessions"))
}

/// From nothing to a task's result.
pub(super) fn init(scratch: &Path, running: &mut Option<Running>) -> Figure {
    *running = None;
    Ok(begin_and_end(scratch)?.0)
}

/// From a session that has run a task to nothing.
pub(super) fn shutdown(scratch: &Path, running: &mut Option<Running>) -> Figure {
    *running = None;
    Ok(begin_and_end(scratch)?.1)
}

/// From nothing to a task's result, in a session that has another driver.
pub(super) fn join(scratch: &Path, running: &mut Option<Running>) -> Figure {
    *running = None;
    let address = builder(scratch, 2).start()?;
    let joined = join_at(&address);
    mobula::stop(&address)?;
    joined
}

fn join_at(address: &Path) -> Figure {
    let mut other = Side::peer(&["driver", address.to_str().unwrap_or_default()])?;
    other.ask("join")?;
    let start = Instant::now();
    let session = mobula::Builder::new().address(address).init()?;
    check(successor::remote(1).get()? == 2, "a task's result")?;
    let joined = start.elapsed().as_secs_f64();
    drop(session);
    Ok(joined)
}

/// The other driver: joins when it is asked to, and stays.
pub(crate) fn drive(address: &Path) -> Result<(), Failure> {
    let mut session = None;
    peer::serve(|_| {
        if session.is_none() {
            session = Some(mobula::Builder::new().address(address).init()?);
        }
        check(successor::remote(1).get()? == 2, "a task's result")?;
        Ok(0.0)
    })
}

fn begin_and_end(scratch: &Path) -> Result<(f64, f64), Failure> {
    let start = Instant::now();
    let session = builder(scratch, 2).init()?;
    check(successor::remote(1).get()? == 2, "a task's result")?;
    let begun = start.elapsed().as_secs_f64();
    let start = Instant::now();
    drop(session);
    Ok((begun, start.elapsed().as_secs_f64()))
}
