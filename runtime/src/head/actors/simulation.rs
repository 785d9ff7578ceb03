//! The actors of a session with a real pool, and with simulated processes, links and store. A seed decides which
//! process does what, which record arrives next, and which process dies.
//!
//! A driver and workers make actors, of some names and with random options; they start them, or abandon them; they pass
//! handles on, drop them, watch actors, find them by their names, kill them, and wait for their ends. Constructors
//! succeed or fail, actors end themselves, and any process except the driver dies at any time. The head learns of it
//! late.
//!
//! After each step, a [model] says what each actor must be, and which records the head must have sent since, to whom
//! and in which order. It also says which processes the head must have killed. Besides:
//!
//! - a name belongs to one living actor, and is free as soon as that one is over;
//! - an actor without handles ends soon, unless it is detached; no other actor ends for lack of handles;
//! - actors that wait for the same get processes in their order, and no two are in one process;
//! - an actor that is over is forgotten soon, if nobody has a handle to it;
//! - at the end, when others make room, each actor that waits is constructed; then all end, and everything is free.
//!
//! [Seeds](crate::simulated) are those of all simulations.

mod model;
mod outside;
mod steps;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use self::model::{CLASS, Model, Spec, Stage, pid};
use self::outside::{End, Handle, Killed, Post, Tokens, Told};
use super::{ActorProcesses, Actors};
use crate::call::options::UNLIMITED;
use crate::demand::Demand;
use crate::error::{ActorEnd, ExitReason, Failure, TaskError, TaskErrorKind};
use crate::head::ends::Ends;
use crate::head::pool::{Decision, Job, Pool, Refused};
use crate::resources::{Amounts, Resources};
use crate::simulated::{Random, for_each_seed};

const STEPS: usize = 250;
/// The most rounds at the end until all actors that wait are constructed.
const ROUNDS_MAX: usize = 500;
/// How soon actors without handles end.
const SOON: Duration = Duration::from_millis(500);
const DRIVER: u64 = 1;
/// Tokens of workers begin behind it.
const TOKENS: u64 = 100;
/// Requests begin behind it, so that no request has the number of an actor.
const REQUESTS: u64 = 1 << 32;
/// The names of actors. One of them is in two namespaces.
const NAMES: [(&str, &str); 3] = [("a", "counter"), ("b", "counter"), ("a", "queue")];

#[test]
fn every_actor_has_the_stages_that_its_options_say() {
    for_each_seed("actors::simulation", |seed| Session::new(seed).run());
}

/// A record to the head.
enum Record {
    Reserve(u64, Spec),
    /// Whether the arguments can be read.
    Start(u64, bool),
    Abandon(u64, Failure),
    Watch(u64),
    Find(u64, (&'static str, &'static str)),
    /// Whether the actor may be restarted.
    Kill(u64, bool),
    AwaitEnd(u64, u64),
    Constructed(u64, Result<(), Failure>),
    Exits(u64),
    /// The link is closed.
    Closed,
}

/// A process of the session.
#[derive(Default)]
struct Process {
    is_registered: bool,
    /// The actor that it has been told to construct.
    actor: Option<u64>,
    is_constructed: bool,
    /// It has been told to end.
    exits: bool,
    /// It is to say when it has no work.
    is_asked: bool,
    /// Its handles, with the actors.
    handles: Vec<(u64, Handle)>,
    /// The actors that it has reserved, and has not started.
    reserved: Vec<u64>,
    /// The actors for whose end it waits, with its requests.
    awaited: Vec<(u64, u64, Handle)>,
}

struct Session {
    random: Random,
    actors: Actors<End>,
    pool: Pool<End>,
    ends: Ends<End>,
    killed: Killed,
    tokens: Tokens,
    post: Rc<RefCell<Post>>,
    total: Resources,
    is_limited: bool,
    now: Instant,
    token_last: u64,
    request_last: u64,
    processes: BTreeMap<u64, Process>,
    /// The records that are on their way to the head.
    wires: BTreeMap<u64, VecDeque<Record>>,
    /// Processes that have died, and whose deaths the head has not noticed.
    unnoticed: BTreeSet<u64>,
    /// The processes that the pool ends: they are told so.
    surplus: Vec<u64>,
    model: Model,
}

impl Session {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let kept = 1 + random.below(2);
        let total = cpus(1.0 + random.below(3) as f64);
        let is_limited = random.below(3) == 0;
        let processes_max = if is_limited { kept + 1 + random.below(3) } else { usize::MAX };
        let now = Instant::now();
        Self {
            random,
            actors: Actors::new(),
            pool: Pool::new(kept, processes_max, total.clone()),
            ends: Ends::new(),
            killed: Killed::default(),
            tokens: Tokens::default(),
            post: Rc::default(),
            total,
            is_limited,
            now,
            token_last: TOKENS,
            request_last: REQUESTS,
            processes: BTreeMap::from([(DRIVER, Process { is_registered: true, ..Process::default() })]),
            wires: BTreeMap::new(),
            unnoticed: BTreeSet::new(),
            surplus: Vec::new(),
            model: Model::default(),
        }
    }

    fn run(mut self) {
        self.arrange();
        for _ in 0..STEPS {
            self.step();
            self.arrange();
            self.check();
        }
        self.end();
    }

    // ---- the head ----

    fn lives(&mut self) -> ActorProcesses<'_, End, Killed> {
        let Self { actors, pool, killed, now, .. } = self;
        ActorProcesses { actors, pool, processes: killed, now: *now }
    }

    /// Decides as the head does after each record and event.
    fn arrange(&mut self) {
        self.model.turn += 1;
        self.answer_awaited();
        self.note();
        self.lives().end_without_handles();
        self.note();
        self.lives().place_waiting();
        let now = self.now;
        for decision in self.pool.arrange(now) {
            self.carry_out(decision);
        }
        self.note();
        let waiting = self.actors.waiting().len();
        for process in self.pool.lacking(waiting, now) {
            self.token_last += 1;
            self.pool.add(self.token_last, pid(self.token_last), process, now);
            self.processes.insert(self.token_last, Process::default());
        }
        for decision in self.pool.end_surplus(waiting, now) {
            self.carry_out(decision);
        }
        match self.pool.refuse(waiting, now) {
            Some(Refused::Actor(actor)) => {
                if let Some(actor) = actor.or(self.actors.first_waiting()) {
                    self.actors.over(actor, 0, self.pool.process_limit());
                }
            }
            Some(Refused::Caller(..)) => panic!("there are no calls"),
            None => {}
        }
        self.note();
    }

    fn carry_out(&mut self, decision: Decision<End>) {
        match decision {
            Decision::Place { actor, token } => self.lives().place(actor, token),
            Decision::End { token } => {
                self.surplus.push(token);
                self.lives().exit(token);
            }
            Decision::AskWhetherFree { worker, .. } => {
                // It may be dead.
                if let Some(process) = self.processes.get_mut(&worker.process) {
                    process.is_asked = true;
                }
            }
            Decision::Grant { .. } | Decision::Recall { .. } => panic!("there are no calls"),
        }
    }

    fn is_there(&self, token: u64) -> bool {
        self.pool.is_there(token)
    }

    /// Whether a process, or a record, has a handle to an actor.
    fn is_held(&self, actor: u64) -> bool {
        let post = self.post.borrow();
        let in_records = post.queues.values().flatten().any(|(told, held)| {
            let is_it = match told {
                Told::Reserved { actor: Ok(its), .. } => *its == actor,
                Told::Found { actor: Some((its, _)), .. } => *its == actor,
                _ => false,
            };
            is_it && !held.is_empty()
        });
        let has_one = |process: &Process| {
            let held = process.handles.iter().map(|(its, _)| its);
            held.chain(process.awaited.iter().map(|(_, its, _)| its)).any(|its| *its == actor)
        };
        in_records || self.processes.values().any(has_one)
    }

    // ---- what must hold ----

    /// Tells the model what the head has decided by itself, and compares all that it has said with the model.
    fn note(&mut self) {
        self.note_forgotten();
        self.note_ends();
        let unseen = std::mem::take(&mut self.post.borrow_mut().unseen);
        for (process, told) in &unseen {
            if let Told::Construct { actor, restarts } = told {
                // It may have died, and the head has not noticed it.
                let is_registered = self.processes.get(process).is_none_or(|process| process.is_registered);
                assert!(is_registered, "{process} does not serve yet, and gets an actor");
                self.model.placed(*actor, *process, *restarts);
            }
        }
        let mut expected = std::mem::take(&mut self.model.told);
        expected.extend(std::mem::take(&mut self.surplus).into_iter().map(|token| (token, Told::Exit)));
        assert_eq!(
            by_subject(unseen),
            by_subject(expected),
            "the head has said something else (left) than due (right)"
        );
        let (mut killed, mut due) =
            (std::mem::take(&mut self.killed.0), std::mem::take(&mut self.model.killed));
        killed.sort_unstable();
        due.sort_unstable();
        assert_eq!(killed, due, "the head has killed other processes (left) than due (right)");
        for token in killed {
            if self.processes.contains_key(&token) {
                self.die(token);
            }
        }
    }

    /// The head has ended actors by itself: for lack of handles, or because they can never be constructed.
    fn note_ends(&mut self) {
        for number in self.model.chosen(|actor| !actor.is_over()) {
            let record = self.actors.actors.get(&number);
            let failure = match record.map(|record| &record.stage) {
                Some(super::Stage::Over { failure, .. }) => failure.clone(),
                _ => continue,
            };
            match failure {
                Failure::ActorDied { cause: ActorEnd::LastHandleGone, .. } => {
                    assert!(!self.is_held(number), "{number} has ended, and there are handles to it");
                    self.model.last_handle_gone(number);
                }
                Failure::ProcessLimit { .. } if self.is_limited => self.model.refused(number, failure),
                Failure::TooManyArguments { .. } if self.model.actors[&number].spec.is_too_large => {
                    self.model.refused(number, failure);
                }
                failure => panic!("{number} has ended: {failure}"),
            }
        }
    }

    /// The head has forgotten actors.
    fn note_forgotten(&mut self) {
        for number in self.model.chosen(|_| true) {
            if !self.actors.actors.contains_key(&number) {
                assert!(self.model.actors[&number].is_over(), "the living actor {number} is forgotten");
                assert!(!self.is_held(number), "{number} is forgotten, and there are handles to it");
                self.model.actors.remove(&number);
            }
        }
    }

    fn check(&mut self) {
        for (number, expected) in &self.model.actors {
            let record = &self.actors.actors[number];
            let is_it = match (&record.stage, &expected.stage) {
                (super::Stage::Reserved { .. }, Stage::Reserved) => true,
                (super::Stage::Waiting { .. }, Stage::Waiting) => true,
                (super::Stage::Constructing { process }, Stage::Constructing(its)) => process == its,
                (super::Stage::Alive { process, .. }, Stage::Alive(its)) => process == its,
                (super::Stage::Over { failure, .. }, Stage::Over { failure: its, .. }) => failure == its,
                _ => false,
            };
            assert!(is_it, "{number} is in another stage than {:?}", expected.stage);
            assert_eq!(record.restarts, expected.restarts, "restarts of {number}");
            let is_within =
                expected.spec.max_restarts == UNLIMITED || record.restarts <= expected.spec.max_restarts;
            assert!(is_within, "{number} was restarted {} times", record.restarts);
            if let Some(process) = expected.process() {
                assert!(self.is_there(process), "the process of {number} is gone");
                let job = self.job(process);
                let is_its = matches!(job, Some(Job::Actor { actor }) if actor == *number);
                assert!(is_its, "the process of {number} is {job:?}");
            }
        }
        for (namespace, name) in NAMES {
            let is_taken = self.model.named((namespace, name)).is_some();
            assert_eq!(self.actors.has_name(namespace, name), is_taken, "the name {name} in {namespace}");
        }
        let waits = self.model.chosen(|actor| actor.stage == Stage::Waiting && !actor.spec.has_demand);
        assert!(
            waits.is_empty() || self.pool.idle_usual().is_none(),
            "{waits:?} wait, and a process is idle"
        );
    }

    /// Time passes. Then no actor is left that has no handles and should have ended, nor one that should be forgotten.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for token in self.pool.kill_late(self.now) {
            if self.processes.contains_key(&token) {
                let job = self.job(token);
                assert!(!matches!(job, Some(Job::Actor { .. })), "{token} is killed, and an actor is in it");
                self.die(token);
            }
        }
        self.note();
        self.lives().end_without_handles();
        self.note();
        if time < SOON {
            return;
        }
        // Those whose ends have just been noticed are forgotten at the next look.
        self.now += SOON;
        self.lives().end_without_handles();
        self.note();
        for (number, record) in &self.actors.actors {
            let expected = &self.model.actors[number];
            if expected.spec.is_detached && !expected.is_over() || expected.stage == Stage::Reserved {
                continue;
            }
            assert!(
                self.is_held(*number),
                "{number} has no handles, and is not forgotten: {:?}",
                record.is_over()
            );
        }
    }

    fn job(&self, token: u64) -> Option<Job> {
        self.pool.all().find(|worker| worker.pid == pid(token)).map(|worker| worker.job)
    }

    // ---- the end ----

    /// When others make room, each actor that waits is constructed. Then the session ends.
    fn end(mut self) {
        let mut rounds = 0;
        loop {
            self.settle();
            let waiting =
                self.model.chosen(|actor| matches!(actor.stage, Stage::Waiting | Stage::Constructing(_)));
            if waiting.is_empty() {
                break;
            }
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "these actors wait: {waiting:?}");
            let alive = self.model.chosen(|actor| matches!(actor.stage, Stage::Alive(_)));
            if let Some(actor) = self.random.any(&alive) {
                self.send(DRIVER, Record::Kill(actor, false));
            }
            self.pass(Duration::from_millis(100));
        }
        self.check();
        while !self.processes[&DRIVER].handles.is_empty() {
            self.await_end(DRIVER);
        }
        self.settle();
        self.model.session_ends();
        self.lives().end_all(Duration::from_secs(5));
        self.note();
        self.check();
        // Some do not end by themselves, and are killed.
        if self.random.below(2) == 0 {
            self.pass(Duration::from_secs(6));
        }
        self.settle();
        let has_actor = |process: &Process| process.actor.is_some();
        assert!(!self.processes.values().any(has_actor), "a process with an actor is left");
        assert!(
            self.processes[&DRIVER].awaited.is_empty(),
            "the driver waits for the ends of actors that are over"
        );
        self.processes.values_mut().for_each(|process| process.handles.clear());
        self.post.borrow_mut().queues.clear();
        self.pass(SOON);
        self.check();
        assert!(self.actors.actors.is_empty(), "actors that are over are not forgotten");
        assert!(self.actors.names.is_empty() && self.actors.first_waiting().is_none());
        assert!(self.actors.first_demanding().is_none());
        assert_eq!(self.pool.free(), self.total, "not everything was given back");
    }

    /// Everything that is on its way arrives, and each process takes its next step.
    fn settle(&mut self) {
        for _ in 0..4 {
            while let Some(from) = self.wires.keys().next().copied() {
                self.deliver(from);
                self.arrange();
            }
            for token in self.unnoticed.clone() {
                self.notice(token);
                self.arrange();
            }
            let tokens: Vec<u64> = self.processes.keys().copied().collect();
            for token in tokens {
                while self.processes.contains_key(&token) && self.receive(token) {}
                if self.processes.contains_key(&token) {
                    self.go_on(token, false);
                }
                self.arrange();
            }
            self.check();
        }
    }
}

fn cpus(cpus: f64) -> Resources {
    Amounts { num_cpus: Some(cpus), ..Amounts::default() }.resolve(cpus).expect("it can be")
}

/// The records by the process to which they go, and what they are about. Only these groups have an order.
fn by_subject(told: Vec<(u64, Told)>) -> BTreeMap<(u64, u64), Vec<Told>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    told.into_iter().for_each(|(to, told)| groups.entry((to, told.subject())).or_default().push(told));
    groups
}
