//! Deadlocks among simulated processes. A seed decides which calls they make, which results they wait for, and which
//! record arrives next.
//!
//! A driver calls actors and functions. These run random scripts: they call others, pass references on, and wait for
//! all or for any of their results, some for a limited time. Functions hold a resource, of which there are few units.
//! Actors run one call at a time or several, of which some run alone. Calls may give items of a stream, for which
//! their callers wait.
//! Records between two processes stay in order, and the seed decides how late they arrive.
//!
//! The head's answers are compared with a model that has no sets and no circles: it runs a copy of the whole session,
//! in several orders, until nothing moves. The processes of a reported deadlock must still wait then; otherwise the
//! report was a false alarm. And with the head's reports every call must end; otherwise the head overlooked a deadlock.
//!
//! [Seeds](crate::simulated) are those of all simulations.

mod reports;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::*;
use crate::resources::Amounts;
use crate::simulated::{Random, for_each_seed};

/// The most rounds, in each of which everything continues a little, until all calls are over.
const ROUNDS_MAX: usize = 2000;
/// The orders in which the model lets a session run on.
const ORDERS: u64 = 3;
const HEAD: usize = usize::MAX;
const DRIVER: usize = 0;

#[test]
fn every_deadlock_is_reported_and_nothing_else() {
    let deadlocks = std::cell::Cell::new((0, 0));
    for_each_seed("deadlock::simulation", |seed| {
        let reports = Session::new(seed).run();
        let (schedules, all) = deadlocks.get();
        deadlocks.set((schedules + usize::from(reports > 0), all + reports));
    });
    let (schedules, reports) = deadlocks.get();
    println!("{schedules} schedules had deadlocks, {reports} waits were reported");
}

/// The actions of a call.
#[derive(Debug, Clone)]
enum Op {
    /// Makes a call, and passes on references that it has. The call may need one of them as an argument.
    Call { target: Target, is_alone: bool, script: Script, given: Vec<usize>, argument: Option<usize> },
    /// Waits for these results that it has: for all, or for any of them.
    Wait { of: Vec<usize>, all: bool, timed: bool },
    /// Waits for the next item of this call, or for its end.
    Next { of: usize, timed: bool },
    /// Gives an item.
    Give,
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
    /// No other call of the actor runs beside it.
    is_alone: bool,
    script: Script,
    /// References that it has: calls.
    refs: Vec<usize>,
    argument: Option<usize>,
    /// The process that it was sent to.
    at: Option<usize>,
    /// The items that it has given, that have arrived at its caller, and that were taken there.
    given: u64,
    arrived: u64,
    taken: u64,
    /// The caller knows that it is over.
    is_over: bool,
    has_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Driver,
    /// Runs one call at a time.
    Serial,
    /// Runs so many calls at a time. Those that run alone wait until no other one runs, and later ones wait for them.
    Wide(usize),
    /// Runs one call of a function, which holds this many units.
    Worker(u32),
}

#[derive(Debug, Clone)]
struct Process {
    kind: Kind,
    queue: VecDeque<usize>,
    running: Vec<Running>,
    waits_last: u64,
}

#[derive(Debug, Clone)]
struct Running {
    call: usize,
    /// The next step.
    op: usize,
    wait: Option<Wait>,
}

#[derive(Debug, Clone)]
struct Wait {
    number: u64,
    of: Vec<usize>,
    all: bool,
    timed: bool,
    /// It waits for the item at this position, too.
    item: Option<u64>,
    /// The reports to the head.
    told: Option<Waits>,
}

#[derive(Debug, Clone)]
enum Record {
    Call(usize),
    Result(usize, bool),
    Item(usize),
    Told(Waits),
    Over(u64),
    Ask(u64, Vec<(OwnerId, u64)>),
    Answer(u64, Vec<Waits>, Vec<Held>),
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
    /// The records of this process to other processes arrive late.
    slow: Option<usize>,
}

fn id(process: usize) -> OwnerId {
    OwnerId::new(1, process as u64)
}

fn demand(units: u32) -> Demand {
    let amounts = Amounts { num_cpus: Some(0.0), ..Amounts::default() };
    let unit = [("unit".to_owned(), f64::from(units))].into_iter().collect();
    Demand::of(Amounts { resources: Some(unit), ..amounts }.resolve(0.0).expect("it can be"))
}

impl Process {
    fn new(kind: Kind) -> Self {
        Self { kind, queue: VecDeque::new(), running: Vec::new(), waits_last: 0 }
    }

    /// The sets of running calls that hold back a call which has not begun, if any do: of each set, one must end.
    fn held_back(&self, call: usize, calls: &[Call]) -> Option<Vec<Vec<usize>>> {
        let places = if let Kind::Wide(places) = self.kind { places } else { 1 };
        let is_alone = |running: &Running| calls[running.call].is_alone;
        let all: Vec<usize> = (0..self.running.len()).collect();
        if all.len() == places || self.running.iter().any(is_alone) {
            return Some(vec![all]);
        }
        // The first of the queue waits until none runs, or begins before this one.
        let front = *self.queue.front()?;
        let is_held = calls[front].is_alone && !all.is_empty();
        (is_held || front != call)
            .then(|| all.into_iter().filter(|_| is_held).map(|place| vec![place]).collect())
    }

    fn place_of(&self, wait: u64) -> Option<usize> {
        let is_it = |running: &Running| running.wait.as_ref().is_some_and(|now| now.number == wait);
        self.running.iter().position(is_it)
    }

    /// The waits that only results end.
    fn untimed(&self) -> impl Iterator<Item = &Wait> {
        self.running.iter().filter_map(|running| running.wait.as_ref()).filter(|wait| !wait.timed)
    }
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
            .map(|_| if random.below(3) == 0 { Kind::Wide(1 + random.below(3)) } else { Kind::Serial })
            .collect();
        let units = 1 + random.below(3) as u32;
        let mut session = Self {
            processes: std::iter::once(Kind::Driver).chain(kinds).map(Process::new).collect(),
            calls: Vec::new(),
            wires: BTreeMap::new(),
            free: units,
            units,
            head: Deadlocks::default(),
            tells: true,
            now: Instant::now(),
            reports: 0,
            slow: None,
            random,
        };
        session.slow = (session.random.below(2) == 0).then(|| 1 + session.random.below(6));
        for _ in 0..1 + session.random.below(4) {
            let target = session.target();
            let (is_alone, script) = (session.random.below(4) == 0, session.script(0));
            session.call(DRIVER, target, is_alone, script, Vec::new(), None);
        }
        session
    }

    fn target(&mut self) -> Target {
        match self.random.below(3) {
            0 => Target::Function(self.random.below(self.units as usize + 1) as u32),
            _ => Target::Actor(1 + self.random.below(self.processes.len() - 1)),
        }
    }

    /// The script of a call.
    fn script(&mut self, depth: usize) -> Script {
        let mut ops = Vec::new();
        if depth > 3 {
            return ops.into();
        }
        for _ in 0..self.random.below(4) {
            let of = (0..1 + self.random.below(2)).map(|_| self.random.below(8)).collect();
            if self.random.below(4) == 0 {
                let (of, timed) = (self.random.below(8), self.random.below(8) == 0);
                ops.push(if self.random.below(2) == 0 { Op::Give } else { Op::Next { of, timed } });
            } else if self.random.below(5) < 3 {
                let target = self.target();
                let (is_alone, script) = (self.random.below(4) == 0, self.script(depth + 1));
                let argument = (self.random.below(4) == 0).then(|| self.random.below(8));
                // A stream begins with items, for which its caller waits.
                let items = if self.random.below(4) == 0 { 1 + self.random.below(2) } else { 0 };
                let script =
                    Script::new((0..items).map(|_| Op::Give).chain(script.iter().cloned()).collect());
                ops.push(Op::Call { target, is_alone, script, given: of, argument });
                for _ in 0..items {
                    ops.push(Op::Next { of: 0, timed: false });
                }
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
            (Some((from, to)), 0) => {
                let is_late = self.slow == Some(from) && to != HEAD && self.random.below(64) > 0;
                if !is_late {
                    self.deliver((from, to));
                }
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
        is_alone: bool,
        script: Script,
        refs: Vec<usize>,
        argument: Option<usize>,
    ) -> usize {
        let number = self.calls.len();
        self.calls.push(Call {
            caller,
            target,
            is_alone,
            script,
            refs,
            argument,
            at: None,
            given: 0,
            arrived: 0,
            taken: 0,
            is_over: false,
            has_failed: false,
        });
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
        self.processes.push(Process::new(Kind::Worker(units)));
        let (caller, worker) = (self.calls[number].caller, self.processes.len() - 1);
        self.calls[number].at = Some(worker);
        self.send(caller, worker, Record::Call(number));
        true
    }

    /// A process begins a call, or one of its calls does a step.
    fn step(&mut self, number: usize) -> bool {
        let process = &mut self.processes[number];
        if process.kind == Kind::Driver {
            return false;
        }
        if let Some(next) = process.queue.front()
            && process.held_back(*next, &self.calls).is_none()
        {
            let running = Running { call: *next, op: 0, wait: None };
            process.queue.pop_front();
            process.running.push(running);
            return true;
        }
        if process.running.is_empty() {
            return false;
        }
        let place = self.random.below(process.running.len());
        let Running { call, op, wait } = &mut process.running[place];
        let call = *call;
        if wait.is_some() {
            return self.step_wait(number, place);
        }
        let script = self.calls[call].script.clone();
        let Some(op_now) = script.get(*op) else {
            self.finish(number, place, false);
            return true;
        };
        *op += 1;
        let refs = self.calls[call].refs.clone();
        let of = |positions: &[usize]| -> Vec<usize> {
            let found: BTreeSet<usize> = positions.iter().filter_map(|at| refs.get(*at).copied()).collect();
            found.into_iter().collect()
        };
        match op_now {
            Op::Call { target, is_alone, script, given, argument } => {
                let argument = argument.and_then(|at| refs.get(at).copied());
                let made = self.call(number, *target, *is_alone, script.clone(), of(given), argument);
                self.calls[call].refs.insert(0, made);
            }
            Op::Wait { of: positions, all, timed } => {
                let of = of(positions);
                if !of.is_empty() {
                    let process = &mut self.processes[number];
                    process.waits_last += 1;
                    let (all, timed, item, told) = (*all, *timed, None, None);
                    process.running[place].wait =
                        Some(Wait { number: process.waits_last, of, all, timed, item, told });
                }
            }
            Op::Next { of, timed } => {
                // A stream stays in its process.
                let its = refs.get(*of).filter(|call| self.calls[**call].caller == number);
                if let Some(its) = its.copied() {
                    let process = &mut self.processes[number];
                    process.waits_last += 1;
                    let (of, all, item) = (vec![its], false, Some(self.calls[its].taken));
                    let (timed, told) = (*timed, None);
                    process.running[place].wait =
                        Some(Wait { number: process.waits_last, of, all, timed, item, told });
                }
            }
            Op::Give => {
                let caller = self.calls[call].caller;
                self.calls[call].given += 1;
                self.send(number, caller, Record::Item(call));
            }
        }
        true
    }

    /// A call that waits looks, tells the head, or gives up.
    fn step_wait(&mut self, number: usize, place: usize) -> bool {
        let wait = self.processes[number].running[place].wait.clone().expect("it waits");
        let over = wait.of.iter().filter(|call| self.calls[**call].is_over);
        let (count, has_failed) =
            (over.clone().count(), over.clone().any(|call| self.calls[*call].has_failed));
        let is_over = if wait.all { count == wait.of.len() || has_failed } else { count > 0 };
        let is_there = wait.item.is_some_and(|position| self.calls[wait.of[0]].arrived > position);
        if is_there {
            self.calls[wait.of[0]].taken += 1;
        }
        if is_over || is_there {
            self.end_wait(number, place);
            // A call that gets a failure fails, mostly.
            if wait.all && has_failed {
                self.finish(number, place, true);
            }
            return true;
        }
        if wait.timed {
            self.end_wait(number, place);
            return true;
        }
        if self.tells && self.random.below(3) == 0 {
            let waits = self.waits_of(number, &wait);
            if wait.told.as_ref() != Some(&waits) {
                self.send(number, HEAD, Record::Told(waits.clone()));
                self.processes[number].running[place].wait.as_mut().expect("it waits").told = Some(waits);
                return true;
            }
        }
        false
    }

    fn end_wait(&mut self, number: usize, place: usize) {
        let wait = self.processes[number].running[place].wait.take();
        if let Some(wait) = wait.filter(|wait| wait.told.is_some()) {
            self.send(number, HEAD, Record::Over(wait.number));
        }
    }

    fn finish(&mut self, number: usize, place: usize, has_failed: bool) {
        let Running { call, .. } = self.processes[number].running.remove(place);
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
            Record::Call(call) => self.processes[to].queue.push_back(call),
            Record::Item(call) => self.calls[call].arrived += 1,
            Record::Result(call, has_failed) => {
                (self.calls[call].is_over, self.calls[call].has_failed) = (true, has_failed);
                for other in 0..self.calls.len() {
                    self.send_if_ready(other);
                }
            }
            Record::Told(waits) => self.head.on_told(id(from), waits, self.now),
            Record::Over(wait) => self.head.on_over(id(from), wait),
            Record::Ask(round, calls) => {
                let holds = calls.into_iter().filter_map(|call| self.held(to, call)).collect();
                let waits = self.processes[to].untimed().map(|wait| self.waits_of(to, wait)).collect();
                self.send(to, HEAD, Record::Answer(round, waits, holds));
            }
            Record::Answer(round, waits, holds) => self.head.on_answer(id(from), round, waits, holds),
            Record::AskPromise(round, object) => {
                let needs = self.needs_of(object.index() as usize, to);
                self.send(to, HEAD, Record::Promise(round, object, needs));
            }
            Record::Promise(round, object, needs) => self.head.on_promise(object, round, needs),
            Record::Deadlock(wait) => {
                if let Some(place) = self.processes[to].place_of(wait) {
                    self.end_wait(to, place);
                    self.finish(to, place, true);
                }
            }
        }
    }
}
