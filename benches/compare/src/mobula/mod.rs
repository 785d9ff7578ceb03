//! Mobula's side of the comparison: one process that is the owner of objects and the driver of a session, by the public
//! interface alone, as a program of its users' would be.
//!
//! * [`store`] starts a store, as a process of its own, and [`reader`] is another client of it;
//! * [`objects`] has their measurements;
//! * [`actors`] has many calls at a time, many callers, and queues;
//! * [`calls`] has the tasks and actors, [`ways`] other ways to call, and [`session`] their beginning and end; [`jobs`]
//!   has whole jobs;
//! * [`crowd`] has the measurements with more actors, calls and threads, and [`growth`] those with more objects and
//!   clients.

mod actors;
mod calls;
mod crowd;
mod growth;
mod jobs;
mod objects;
pub(crate) mod reader;
pub(crate) mod session;
pub(crate) mod store;
mod ways;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crowd::{Crowd, Work};

use crate::jobs::WORKERS;
use crate::peer::{self, Failure, budget, error};
use crate::texts::Texts;

/// Takes commands, each of which ends with its budget.
///
/// `spin` is how long the processes of its sessions look for mail before they sleep, if not for as long as they do
/// anyway.
pub(crate) fn serve(scratch: &Path, spin: Option<Duration>) -> Result<(), Failure> {
    let mut side =
        Side { scratch: scratch.to_owned(), spin, objects: None, session: None, crowd: None, growth: None };
    peer::serve(|words| {
        let (Some((work, rest)), Some(last)) = (words.split_first(), words.last()) else {
            return error("no work");
        };
        if *work == "rest" {
            (side.growth, side.crowd) = (None, None);
            if let Some(objects) = &mut side.objects {
                objects.rest();
            }
            if let Some(session) = &mut side.session {
                session.rest();
            }
            return Ok(0.0);
        }
        let (numbers, budget) = (&rest[..rest.len().saturating_sub(1)], budget(last)?);
        let number = |at: usize| -> Result<usize, Failure> {
            match numbers.get(at) {
                Some(word) => Ok(word.parse()?),
                None => error(format!("{work} needs more numbers")),
            }
        };
        match *work {
            "put" => side.objects()?.put(number(0)?, budget),
            "get-first" => side.objects()?.get_first(number(0)?, budget),
            "get-held" => side.objects()?.get_held(number(0)?, budget),
            "seal" => side.objects()?.seal(number(0)?, budget),
            "put-large" => side.objects()?.put_large(number(0)?, budget),
            "put-large-first" => objects::put_large_first(&side.scratch, number(0)?),
            "read-large-first" => side.objects()?.read_large_first(number(0)?),
            "value-put" => side.session(2)?.put(budget),
            "actor-call" => side.session(2)?.actor_call(budget),
            "actor-call-asleep" => {
                let pause = Duration::from_micros(number(0)? as u64);
                side.session(2)?.actor_call_asleep(pause, budget)
            }
            "actor-many" => side.session(2)?.actor_many(budget),
            "async-calls" => side.session(2)?.async_calls(budget),
            "many-to-many" => side.session(number(0)?)?.many_to_many(number(0)?, budget),
            "queue" => side.session(2)?.queue(number(0)? as u64, number(1)?, budget),
            "task-call" => side.session(2)?.task_call(budget),
            "task-many" => side.session(number(0)?)?.task_many(budget),
            "task-await" => side.session(2)?.task_await(budget),
            "cancel-many" => side.session(2)?.cancel_many(false, budget),
            "cancel-many-next" => side.session(2)?.cancel_many(true, budget),
            "stream" => side.session(2)?.stream(number(0)? as u64, budget),
            "limited" => side.session(2)?.limited(budget),
            "call-while-busy" => side.session(number(0)?)?.call_while_busy(budget),
            "wait-1k" => side.session(2)?.wait_1k(budget),
            "wait-1k-done" => side.session(2)?.wait_1k_done(budget),
            "refs-10k" => side.session(2)?.refs_10k(budget),
            "pass" => side.session(2)?.pass(number(0)?, false, budget),
            "pass-asleep" => side.session(2)?.pass(number(0)?, true, budget),
            "make" => side.session(2)?.make(number(0)?, budget),
            "job-words" => {
                let texts = Texts::open(&side.scratch, number(0)?)?;
                side.session(WORKERS)?.count_words(&texts)
            }
            // The first sort makes its memory, the second finds it.
            "job-sort-new" => side.session(WORKERS)?.sort(number(0)? / size_of::<u64>()),
            "job-sort" => {
                let (elements, session) = (number(0)? / size_of::<u64>(), side.session(WORKERS)?);
                session.sort(elements)?;
                session.sort(elements)
            }
            "job-groups" => side.session(WORKERS)?.group_by(number(0)?),
            "job-tasks" => side.session(WORKERS)?.tasks(number(0)? as u64),
            "job-server" => side.session(WORKERS)?.train(number(0)? / size_of::<f32>()),
            "job-chain" => side.session(WORKERS)?.chain(number(0)? as u64),
            "spin" => side.session(WORKERS)?.spin(number(0)? as u64, budget),
            "actors-10" => side.session(2)?.actors_10(),
            "warm" => side.session(2)?.warm(),
            "init" => session::init(&side.scratch, &mut side.session),
            "shutdown" => session::shutdown(&side.scratch, &mut side.session),
            "join" => session::join(&side.scratch, &mut side.session),
            "crowd-actor-call" => side.crowd()?.call(number(0)?, budget),
            "crowd-actor-call-asleep" => side.crowd()?.call_asleep(number(0)?, budget),
            "crowd-task-call" => side.crowd()?.task(number(0)?, budget),
            "crowd-start" => side.crowd()?.start_one(number(0)?, budget),
            "nested" => crowd::nested(side.alone(), number(0)? as u32),
            "pending" => crowd::pending(side.alone(), number(0)?),
            "threads-call" => side.session(2)?.threads(Work::Call, number(0)?, budget),
            "threads-call-many" => side.session(2)?.threads(Work::CallMany, number(0)?, budget),
            "threads-get" => side.session(2)?.threads(Work::Get, number(0)?, budget),
            "threads-put" => side.session(2)?.threads(Work::Put, number(0)?, budget),
            "live-of" => side.growth()?.live_of(number(0)?, number(1)?),
            "live-put" => side.growth()?.live_put(number(0)?, budget),
            "live-get" => side.growth()?.live_get(number(0)?, false, budget),
            "live-get-random" => side.growth()?.live_get(number(0)?, true, budget),
            "clients-put" => side.growth()?.clients_put(number(0)?, budget),
            "clients-get" => side.growth()?.clients_get(number(0)?, budget),
            _ => error("no such work"),
        }
    })
}

struct Side {
    scratch: PathBuf,
    spin: Option<Duration>,
    objects: Option<objects::Objects>,
    session: Option<session::Running>,
    crowd: Option<Crowd>,
    growth: Option<growth::Growth>,
}

impl Side {
    fn objects(&mut self) -> Result<&mut objects::Objects, Failure> {
        match &mut self.objects {
            Some(objects) => Ok(objects),
            none => Ok(none.insert(objects::Objects::new(&self.scratch)?)),
        }
    }

    fn growth(&mut self) -> Result<&mut growth::Growth, Failure> {
        match &mut self.growth {
            Some(growth) => Ok(growth),
            none => Ok(none.insert(growth::Growth::new(&self.scratch)?)),
        }
    }

    /// A session with so many workers: the one that is there, or a new one in its place.
    fn session(&mut self, workers: usize) -> Result<&mut session::Running, Failure> {
        self.crowd = None;
        if self.session.as_ref().is_some_and(|session| session.workers() != workers) {
            self.session = None;
        }
        match &mut self.session {
            Some(session) => Ok(session),
            none => Ok(none.insert(session::Running::start(&self.scratch, workers, self.spin)?)),
        }
    }

    /// A session with many actors, in the place of the one that is there.
    fn crowd(&mut self) -> Result<&mut Crowd, Failure> {
        self.session = None;
        match &mut self.crowd {
            Some(crowd) => Ok(crowd),
            none => Ok(none.insert(Crowd::start(&self.scratch)?)),
        }
    }

    /// Ends the session that is there, for one that lasts for one measurement; returns its directory.
    fn alone(&mut self) -> &Path {
        (self.session, self.crowd) = (None, None);
        &self.scratch
    }
}
