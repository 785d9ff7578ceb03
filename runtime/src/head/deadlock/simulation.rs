//! Deadlocks among simulated processes. A seed decides which calls they make, which results they wait for, and which
//! record arrives next.
//!
//! A driver calls actors and functions. These run random scripts: they call others, pass references on, and wait for
//! all or for any of their results, some for a limited time. Functions hold a resource, of which there are few units.
//! Records between two processes stay in order, and the seed decides how late they arrive.
//!
//! The head's answers are compared with a model that has no sets and no circles: it runs a copy of the whole session,
//! in several orders, until nothing moves. The processes of a reported deadlock must still wait then; otherwise the
//! report was a false alarm. And with the head's reports every call must end; otherwise the head overlooked a deadlock.
//!
//! Seeds and replays are those of the [pool](super::super::pool)'s simulation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::super::pool::simulated::{Random, for_each_seed};
use super::*;
use crate::resources::Amounts;

/// The most rounds, in each of which everything continues a little, until all calls are over.
const ROUNDS_MAX: usize = 2000;
/// The orders in which the model lets a session run on.
const ORDERS: u64 = 3;
const HEAD: usize = usize::MAX;
const DRIVER: usize = 0;

#[test]
fn every_deadlock_is_reported_and_nothing_else() {
    let deadlocks = std::cell::Cell::new((0, 0));
    for_each_seed("deadlock", |seed| {
        let reports = Session::new(seed).run();
        let (schedules, all) = deadlocks.get();
        deadlocks.set((schedules + usize::from(reports > 0), all + reports));
    });
    let (schedules, reports) = deadlocks.get();
    println!("{schedules} schedules had deadlocks, {reports} waits were reported");
}

/// The actions of a call.
#[derive(Debug)]
enum Op {
    /// Makes a call, and passes on references that it has. The call may need one of them as an argument.
    Call { target: Target, script: Script, given: Vec<usize>, argument: Option<usize> },
    /// Waits for these results that it has: for all, or for any of them.
    Wait { of: Vec<usize>, all: bool, timed: bool },
}

type Script = Rc<Vec<Op>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Actor(usize),
    /// A call of a function that holds this many units of the resource.
    Function(u32),
}

#[derive(Debug, Clone)]
struct Call {
    caller: usize,
    target: Target,
    script: Script,
    /// References that it has: calls.
    refs: Vec<usize>,
    argument: Option<usize>,
    /// The process that it was sent to.
    at: Option<usize>,
    /// The caller knows that it is over.
    is_over: bool,
    has_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Driver,
    /// Runs one call at a time.
    Serial,
    /// Runs several at a time, none of which waits.
    Concurrent,
    /// Runs one call of a function, which holds this many units.
    Worker(u32),
}

#[derive(Debug, Clone)]
struct Process {
    kind: Kind,
    queue: VecDeque<usize>,
    /// The running call, and its next step.
    running: Option<(usize, usize)>,
    wait: Option<Wait>,
    waits_last: u64,
}

#[derive(Debug, Clone)]
struct Wait {
    number: u64,
    of: Vec<usize>,
    all: bool,
    timed: bool,
    /// The reports to the head.
    told: Option<Waits>,
}

#[derive(Debug, Clone)]
enum Record {
    Call(usize),
    Result(usize, bool),
    Told(Option<Waits>),
    Ask(u64, Vec<(OwnerId, u64)>),
    Answer(u64, Option<Waits>, Vec<(OwnerId, u64)>),
    AskPromise(u64, ObjectId),
    Promise(u64, ObjectId, Vec<Need>),
    Deadlock(u64),
}

#[derive(Clone)]
struct Session {
    random: Random,
    processes: Vec<Process>,
    calls: Vec<Call>,
    wires: BTreeMap<(usize, usize), VecDeque<Record>>,
    /// The units of the resource that are free, and all of them.
    free: u32,
    units: u32,
    head: Deadlocks,
    /// Whether the processes report to the head. In the model they do not.
    tells: bool,
    now: Instant,
    reports: usize,
}

fn id(process: usize) -> OwnerId {
    OwnerId::new(1, process as u64)
}

fn demand(units: u32) -> Demand {
    let amounts = Amounts { num_cpus: Some(0.0), ..Amounts::default() };
    let unit = [("unit".to_owned(), f64::from(units))].into_iter().collect();
    Demand::of(Amounts { resources: Some(unit), ..amounts }.resolve(0.0).expect("it can be"))
}

/// The head's knowledge of the simulated session.
struct Known<'a>(&'a Session);

impl World for Known<'_> {
    fn actor(&self, _: u64) -> ActorIs {
        ActorIs::There
    }

    fn holders(&self, wanted: &Demand, stuck: &BTreeSet<OwnerId>) -> Option<Vec<OwnerId>> {
        let mut held = 0;
        let mut holders = Vec::new();
        for (number, process) in self.0.processes.iter().enumerate() {
            if let Kind::Worker(units @ 1..) = process.kind
                && stuck.contains(&id(number))
            {
                held += units;
                holders.push(id(number));
            }
        }
        let wanted = wanted.get("unit") as u32;
        (wanted + held > self.0.units && wanted > 0 && !holders.is_empty()).then_some(holders)
    }
}

impl Session {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let kinds: Vec<Kind> = (0..1 + random.below(5))
            .map(|_| if random.below(4) == 0 { Kind::Concurrent } else { Kind::Serial })
            .collect();
        let units = 1 + random.below(3) as u32;
        let process =
            |kind| Process { kind, queue: VecDeque::new(), running: None, wait: None, waits_last: 0 };
        let mut session = Self {
            processes: std::iter::once(Kind::Driver).chain(kinds).map(process).collect(),
            calls: Vec::new(),
            wires: BTreeMap::new(),
            free: units,
            units,
            head: Deadlocks::default(),
            tells: true,
            now: Instant::now(),
            reports: 0,
            random,
        };
        for _ in 0..1 + session.random.below(4) {
            let target = session.target();
            let script = session.script(target, 0);
            session.call(DRIVER, target, script, Vec::new(), None);
        }
        session
    }

    fn target(&mut self) -> Target {
        match self.random.below(3) {
            0 => Target::Function(self.random.below(self.units as usize + 1) as u32),
            _ => Target::Actor(1 + self.random.below(self.processes.len() - 1)),
        }
    }

    /// The script of a call of this target.
    fn script(&mut self, target: Target, depth: usize) -> Script {
        let is_leaf =
            matches!(target, Target::Actor(actor) if self.processes[actor].kind == Kind::Concurrent);
        let mut ops = Vec::new();
        if is_leaf || depth > 3 {
            return ops.into();
        }
        for _ in 0..self.random.below(4) {
            let of = (0..1 + self.random.below(2)).map(|_| self.random.below(8)).collect();
            if self.random.below(5) < 3 {
                let target = self.target();
                let script = self.script(target, depth + 1);
                let argument = (self.random.below(4) == 0).then(|| self.random.below(8));
                ops.push(Op::Call { target, script, given: of, argument });
            } else {
                let (all, timed) = (self.random.below(3) > 0, self.random.below(8) == 0);
                ops.push(Op::Wait { of, all, timed });
            }
        }
        if self.random.below(3) > 0 {
            ops.push(Op::Wait { of: (0..8).collect(), all: self.random.below(4) > 0, timed: false });
        }
        ops.into()
    }

    fn run(mut self) -> usize {
        for _ in 0..ROUNDS_MAX {
            if self.calls.iter().all(|call| call.is_over) {
                return self.reports;
            }
            for _ in 0..20 {
                self.step_any();
            }
            self.now += Duration::from_millis(self.random.below(30) as u64);
            self.head_steps();
        }
        panic!("calls do not end, and nothing is reported: {:#?}", self.processes);
    }

    // ---- the session ----

    /// Something happens, if anything can.
    fn step_any(&mut self) -> bool {
        let wires: Vec<_> = self.wires.keys().copied().collect();
        match (self.random.any(&wires), self.random.below(2)) {
            (Some(wire), 0) => {
                self.deliver(wire);
                true
            }
            _ => {
                let process = self.random.below(self.processes.len());
                self.grant() | self.step(process)
            }
        }
    }

    fn call(
        &mut self,
        caller: usize,
        target: Target,
        script: Script,
        refs: Vec<usize>,
        argument: Option<usize>,
    ) -> usize {
        let number = self.calls.len();
        let (at, is_over, has_failed) = (None, false, false);
        self.calls.push(Call { caller, target, script, refs, argument, at, is_over, has_failed });
        self.send_if_ready(number);
        number
    }

    /// Sends a call to its actor. That of a function waits for a worker.
    fn send_if_ready(&mut self, number: usize) {
        let call = &self.calls[number];
        let is_ready = call.argument.is_none_or(|argument| self.calls[argument].is_over);
        if let (Target::Actor(actor), true, None) = (call.target, is_ready, call.at) {
            let caller = call.caller;
            self.calls[number].at = Some(actor);
            self.send(caller, actor, Record::Call(number));
        }
    }

    /// Gives a call of a function a worker, if there is one that waits and that may have it.
    fn grant(&mut self) -> bool {
        let waits = |call: &Call| {
            let is_ready = call.argument.is_none_or(|argument| self.calls[argument].is_over);
            let fits = matches!(call.target, Target::Function(units) if units <= self.free);
            call.at.is_none() && is_ready && fits
        };
        let waiting: Vec<_> = (0..self.calls.len()).filter(|number| waits(&self.calls[*number])).collect();
        let Some(number) = self.random.any(&waiting) else { return false };
        let Target::Function(units) = self.calls[number].target else { unreachable!("a function") };
        self.free -= units;
        let (kind, queue) = (Kind::Worker(units), VecDeque::new());
        self.processes.push(Process { kind, queue, running: None, wait: None, waits_last: 0 });
        let (caller, worker) = (self.calls[number].caller, self.processes.len() - 1);
        self.calls[number].at = Some(worker);
        self.send(caller, worker, Record::Call(number));
        true
    }

    fn step(&mut self, number: usize) -> bool {
        let process = &mut self.processes[number];
        if process.kind == Kind::Driver {
            return false;
        }
        let Some((call, op)) = process.running else {
            let Some(next) = process.queue.pop_front() else { return false };
            process.running = Some((next, 0));
            return true;
        };
        if process.wait.is_some() {
            return self.step_wait(number);
        }
        let script = self.calls[call].script.clone();
        let Some(op_now) = script.get(op) else {
            self.finish(number, false);
            return true;
        };
        self.processes[number].running = Some((call, op + 1));
        let refs = self.calls[call].refs.clone();
        let of = |positions: &[usize]| -> Vec<usize> {
            let found: BTreeSet<usize> = positions.iter().filter_map(|at| refs.get(*at).copied()).collect();
            found.into_iter().collect()
        };
        match op_now {
            Op::Call { target, script, given, argument } => {
                let argument = argument.and_then(|at| refs.get(at).copied());
                let made = self.call(number, *target, script.clone(), of(given), argument);
                self.calls[call].refs.insert(0, made);
            }
            Op::Wait { of: positions, all, timed } => {
                let of = of(positions);
                if !of.is_empty() {
                    let process = &mut self.processes[number];
                    process.waits_last += 1;
                    let (all, timed, told) = (*all, *timed, None);
                    process.wait = Some(Wait { number: process.waits_last, of, all, timed, told });
                }
            }
        }
        true
    }

    /// A process that waits looks, tells the head, or gives up.
    fn step_wait(&mut self, number: usize) -> bool {
        let wait = self.processes[number].wait.clone().expect("it waits");
        let over = wait.of.iter().filter(|call| self.calls[**call].is_over);
        let (count, has_failed) =
            (over.clone().count(), over.clone().any(|call| self.calls[*call].has_failed));
        let is_over = if wait.all { count == wait.of.len() || has_failed } else { count > 0 };
        if is_over {
            self.end_wait(number);
            // A call that gets a failure fails, mostly.
            if wait.all && has_failed {
                self.finish(number, true);
            }
            return true;
        }
        if wait.timed {
            self.end_wait(number);
            return true;
        }
        if self.tells && self.random.below(3) == 0 {
            let waits = self.waits_of(number);
            if wait.told != waits {
                self.send(number, HEAD, Record::Told(waits.clone()));
                self.processes[number].wait.as_mut().expect("it waits").told = waits;
                return true;
            }
        }
        false
    }

    fn end_wait(&mut self, number: usize) {
        let wait = self.processes[number].wait.take();
        if wait.is_some_and(|wait| wait.told.is_some()) {
            self.send(number, HEAD, Record::Told(None));
        }
    }

    fn finish(&mut self, number: usize, has_failed: bool) {
        let Some((call, _)) = self.processes[number].running.take() else { return };
        if let Kind::Worker(units) = self.processes[number].kind {
            self.free += units;
            self.processes[number].kind = Kind::Worker(0);
        }
        let caller = self.calls[call].caller;
        self.send(number, caller, Record::Result(call, has_failed));
    }

    fn send(&mut self, from: usize, to: usize, record: Record) {
        self.wires.entry((from, to)).or_default().push_back(record);
    }

    fn deliver(&mut self, wire: (usize, usize)) {
        let Some(records) = self.wires.get_mut(&wire) else { return };
        let record = records.pop_front().expect("no wire is empty");
        if records.is_empty() {
            self.wires.remove(&wire);
        }
        let (from, to) = wire;
        match record {
            Record::Call(call) if self.processes[to].kind == Kind::Concurrent => {
                let caller = self.calls[call].caller;
                self.send(to, caller, Record::Result(call, false));
            }
            Record::Call(call) => self.processes[to].queue.push_back(call),
            Record::Result(call, has_failed) => {
                (self.calls[call].is_over, self.calls[call].has_failed) = (true, has_failed);
                for other in 0..self.calls.len() {
                    self.send_if_ready(other);
                }
            }
            Record::Told(waits) => self.head.on_told(id(from), waits, self.now),
            Record::Ask(round, calls) => {
                let holds = calls.into_iter().filter(|(_, task)| self.holds(to, *task as usize)).collect();
                let waits = self.waits_of(to);
                self.send(to, HEAD, Record::Answer(round, waits, holds));
            }
            Record::Answer(round, waits, holds) => self.head.on_answer(id(from), round, waits, holds),
            Record::AskPromise(round, object) => {
                let needs = self.needs_of(object.index() as usize, to);
                self.send(to, HEAD, Record::Promise(round, object, needs));
            }
            Record::Promise(round, object, needs) => self.head.on_promise(object, round, needs),
            Record::Deadlock(wait) => {
                if self.processes[to].wait.as_ref().is_some_and(|now| now.number == wait) {
                    self.end_wait(to);
                    self.finish(to, true);
                }
            }
        }
    }

    // ---- what processes say ----

    fn holds(&self, process: usize, call: usize) -> bool {
        let process = &self.processes[process];
        process.queue.contains(&call) || process.running.is_some_and(|(running, _)| running == call)
    }

    fn waits_of(&self, process: usize) -> Option<Waits> {
        let wait = self.processes[process].wait.as_ref().filter(|wait| !wait.timed)?;
        let results: Vec<_> = wait
            .of
            .iter()
            .filter(|call| !self.calls[**call].is_over)
            .map(|call| self.needs_of(*call, process))
            .collect();
        let needed = if wait.all { results.len() as u32 } else { 1 };
        let (function, waits_for) = (String::new(), String::new());
        Some(Waits { number: wait.number, function, waits_for, at: None, needed, results })
    }

    /// The needs of a result, as this process knows them.
    fn needs_of(&self, number: usize, process: usize) -> Vec<Need> {
        let call = &self.calls[number];
        if call.is_over {
            return vec![Need::Unknown];
        }
        if call.caller != process {
            return vec![Need::Promise { object: ObjectId::new(id(call.caller), number as u32, 1) }];
        }
        match (call.argument.filter(|argument| !self.calls[*argument].is_over), call.at, call.target) {
            (Some(argument), None, _) => self.needs_of(argument, process),
            (_, Some(at), _) => vec![Need::Call { process: id(at), task: number as u64 }],
            (None, None, Target::Function(units)) => vec![Need::Worker { demand: demand(units) }],
            (None, None, Target::Actor(_)) => vec![Need::Unknown],
        }
    }

    // ---- the head ----

    fn head_steps(&mut self) {
        let mut head = std::mem::take(&mut self.head);
        let steps = head.step(&Known(self), self.now);
        self.head = head;
        for step in steps {
            match step {
                Step::Ask { process, round, calls } => {
                    self.send(HEAD, process.epoch() as usize, Record::Ask(round, calls));
                }
                Step::AskPromise { object, round } => {
                    let owner = object.owner().epoch() as usize;
                    self.send(HEAD, owner, Record::AskPromise(round, object));
                }
                Step::Report(Deadlocked { process, wait, cycle }) => {
                    let process = process.epoch() as usize;
                    assert_eq!(cycle[0].0, id(process), "the circle begins elsewhere");
                    for order in 0..ORDERS {
                        assert!(
                            self.waits_for_ever(process, wait, order),
                            "a false alarm: {process} would have gone on"
                        );
                    }
                    self.reports += 1;
                    self.send(HEAD, process, Record::Deadlock(wait));
                }
            }
        }
    }

    /// Whether a process is still in this wait when nothing moves any more.
    fn waits_for_ever(&self, process: usize, wait: u64, order: u64) -> bool {
        let mut model = self.clone();
        model.tells = false;
        model.random = Random::new(order + 1);
        // Earlier reports, and reports that are on their way, would end waits.
        model.wires.retain(|(from, to), _| *from != HEAD && *to != HEAD);
        let mut still = 0;
        while still < 50 * model.processes.len() {
            still = if model.step_any() { 0 } else { still + 1 };
        }
        model.processes[process].wait.as_ref().is_some_and(|now| now.number == wait)
    }
}
