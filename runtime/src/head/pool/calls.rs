//! The pool among callers as they are, with [their leases](Classes), simulated workers, and the records on their way
//! between all of them: which of these goes on next follows from a seed.
//!
//! Callers make calls, in half of the lives with random demands, and calls make calls; callers cancel some, wherever
//! they are; workers run them, wait for others, and decline what has to wait behind them, or everything once they are
//! spent; anybody but the head dies at
//! any time, which the others hear late. After each step, a call that waits is known to the head. In the end nobody
//! dies any more, and every call must come to its end, although calls whose callers are dead never do, and one more
//! does not either if there are places enough. In half of the lives there is a limit of processes, and calls come to
//! their ends by being refused, too; so it is in half of them because the driver has no room for more processes, which
//! changes all the time.
//!
//! Seeds and replays are those of the [other simulation](super::simulation).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::simulation::{End, Offer, Random, for_each_seed};
use super::*;
use crate::definition::Key;
use crate::submit::classes::Classes;
use crate::submit::leases::Ended;

const STEPS: usize = 400;
/// Rounds in which all that runs goes on a little.
const ROUNDS_MAX: usize = 3000;
/// Records of a round.
const RECORDS_MAX: usize = 20_000;
const DRIVERS: u64 = 2;
const HEAD: u64 = 50;
/// Tokens of workers begin behind it.
const TOKENS: u64 = 100;
/// How deep calls make calls.
const DEPTH_MAX: usize = 4;
/// Processes that the driver has room for, where that is limited, are fewer.
const ROOM_MAX: usize = 8;
/// How long calls of each function run: those of the first are sent ahead, those of the third in pairs while many wait,
/// and those of the last never.
const RAN_NANOS: [u64; 4] = [100, 20_000, 2_000_000, 10_000_000];

#[test]
fn every_call_comes_to_its_end() {
    for_each_seed("calls", |seed| Life::new(seed).run());
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    // To the head.
    /// So many workers, for calls of which demand.
    Want(usize, u32),
    Return {
        worker: u64,
        is_busy: bool,
    },
    Blocked,
    Unblocked,
    Free,
    /// Whether it waits for calls that it made.
    Spent(bool),
    // From the head.
    Granted(usize, u64),
    Recall(u64),
    /// Whether it is spent.
    SayWhenFree(bool),
    NoWorkers(usize),
    // Between a caller and a worker.
    Call(u64),
    Done(u64),
    Declined(u64),
    Cancel(u64),
    Removed(u64),
    /// The other end is gone.
    Closed,
}

/// The calls that a process has made.
#[derive(Default)]
struct Process {
    leases: Classes<u64, ()>,
    /// The worker to which each call was sent.
    sent: BTreeMap<u64, u64>,
    linked: BTreeSet<u64>,
}

/// The calls of a worker.
#[derive(Default)]
struct Server {
    registered: bool,
    queue: VecDeque<(u64, u64)>,
    running: Option<(u64, u64)>,
    blocked: bool,
    asked: bool,
    /// It begins no more calls.
    spent: bool,
}

struct Call {
    caller: u64,
    parent: Option<u64>,
    depth: usize,
    function: usize,
    demand: usize,
    may_retry: bool,
    is_over: bool,
}

struct Life {
    random: Random,
    pool: Pool<End>,
    kept: usize,
    total: Resources,
    demands: Vec<Demand>,
    processes_max: usize,
    /// The number of processes for which the driver has room.
    room: usize,
    now: Instant,
    token_last: u64,
    wires: BTreeMap<(u64, u64), VecDeque<Record>>,
    callers: BTreeMap<u64, Process>,
    servers: BTreeMap<u64, Server>,
    /// Dead processes that the head has not noticed yet.
    unnoticed: Vec<u64>,
    calls: BTreeMap<u64, Call>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let Offer { kept, total, demands } = Offer::random(&mut random);
        let processes_max = if random.below(2) == 0 { usize::MAX } else { kept + 1 + random.below(4) };
        let room = if random.below(2) == 0 { usize::MAX } else { random.below(ROOM_MAX) };
        let mut life = Self {
            random,
            pool: Pool::new(kept, processes_max, total.clone()),
            kept,
            total,
            demands,
            processes_max,
            room,
            now: Instant::now(),
            token_last: TOKENS,
            wires: BTreeMap::new(),
            callers: (0..DRIVERS).map(|driver| (driver, Process::default())).collect(),
            servers: BTreeMap::new(),
            unnoticed: Vec::new(),
            calls: BTreeMap::new(),
        };
        life.arrange();
        life
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.end();
    }

    fn step(&mut self) {
        match self.random.below(42) {
            0..=17 => {
                let wires: Vec<_> = self.wires.keys().copied().collect();
                if let Some(wire) = self.random.any(&wires) {
                    self.deliver(wire);
                }
            }
            18..=20 => {
                let driver = self.random.below(DRIVERS as usize) as u64;
                self.call(driver, None);
            }
            21..=33 => {
                if let Some(token) = self.any_server(|server| server.registered) {
                    self.go_on(token);
                }
            }
            34 | 35 => {
                let callers: Vec<_> = self.callers.keys().copied().collect();
                if let Some(caller) = self.random.any(&callers) {
                    self.end_leases(caller);
                }
            }
            36 => {
                self.now += Duration::from_millis(self.random.below(60) as u64);
                if self.room != usize::MAX {
                    self.room = self.random.below(ROOM_MAX);
                    self.arrange();
                }
            }
            37 => {
                if let Some(token) = self.any_server(|server| !server.registered) {
                    self.register(token);
                }
            }
            38 => {
                if let Some(token) = self.any_server(|_| true).filter(|_| self.random.below(3) == 0) {
                    self.die(token);
                }
            }
            39 => {
                let callers = &self.callers;
                let is_there = |call: &Call| !call.is_over && callers.contains_key(&call.caller);
                let calls: Vec<_> =
                    self.calls.iter().filter(|(_, call)| is_there(call)).map(|(id, _)| *id).collect();
                if let Some(call) = self.random.any(&calls) {
                    self.cancel(call);
                }
            }
            _ => {
                if let Some(token) = self.random.any(&self.unnoticed.clone()) {
                    self.notice(token);
                }
            }
        }
    }

    // ---- callers ----

    fn call(&mut self, caller: u64, parent: Option<u64>) {
        let id = self.calls.len() as u64;
        let depth = parent.map_or(0, |parent| self.calls[&parent].depth + 1);
        let function = self.random.below(RAN_NANOS.len());
        // A call that holds what the calls that it waits for demand would wait for ever.
        let held = |call: u64| self.demands[self.calls[&call].demand].without_cpus();
        let mut above = parent;
        let mut is_held = false;
        while let Some(call) = above {
            is_held |= !held(call).is_nothing();
            above = self.calls[&call].parent;
        }
        let mut demand = self.random.below(self.demands.len());
        if is_held && !self.demands[demand].without_cpus().is_nothing() {
            demand = 0;
        }
        let may_retry = self.random.below(2) == 0;
        self.calls.insert(id, Call { caller, parent, depth, function, demand, may_retry, is_over: false });
        let leases = self.callers.get_mut(&caller).expect("it lives").leases.of(&self.demands[demand]);
        match leases.worker_at_once(key(function)) {
            Some(worker) => {
                leases.sent(worker);
                self.send_call(caller, id, worker.epoch());
            }
            None => {
                leases.queue(key(function), id);
                self.send_ready(caller);
            }
        }
    }

    fn send_call(&mut self, caller: u64, call: u64, worker: u64) {
        self.callers.get_mut(&caller).expect("it lives").sent.insert(call, worker);
        self.send(caller, worker, Record::Call(call));
    }

    fn send_ready(&mut self, caller: u64) {
        while let Some((call, worker)) = self.callers.get_mut(&caller).expect("it lives").leases.next() {
            let demand = &self.demands[self.calls[&call].demand];
            self.callers.get_mut(&caller).expect("it lives").leases.of(demand).sent(worker);
            self.send_call(caller, call, worker.epoch());
        }
        for (demand, workers) in self.callers.get_mut(&caller).expect("it lives").leases.wants() {
            let demand = self.number_of(&demand);
            self.send(caller, HEAD, Record::Want(demand, workers));
        }
    }

    /// Cancels a call. It is over at once, and what it has made is cancelled where it runs.
    fn cancel(&mut self, call: u64) {
        self.calls.get_mut(&call).expect("it was made").is_over = true;
        let caller = self.calls[&call].caller;
        let its = self.callers.get_mut(&caller).expect("it lives");
        let removed = its.leases.take_if(|other| *other == call);
        assert!(removed.is_empty() || !its.sent.contains_key(&call), "a call that was sent waits");
        if let Some(worker) = its.sent.get(&call).copied() {
            self.send(caller, worker, Record::Cancel(call));
        }
        self.send_ready(caller);
    }

    /// A worker hears that a call was cancelled.
    fn on_cancel(&mut self, token: u64, caller: u64, call: u64) {
        let server = self.servers.get_mut(&token).expect("it lives");
        let before = server.queue.len();
        server.queue.retain(|other| *other != (caller, call));
        if server.queue.len() < before {
            self.send(token, caller, Record::Removed(call));
            self.say_if_free(token);
        } else if server.running == Some((caller, call)) {
            let is_its = |other: &Call| other.parent == Some(call) && other.caller == token && !other.is_over;
            let made: Vec<_> =
                self.calls.iter().filter(|(_, other)| is_its(other)).map(|(id, _)| *id).collect();
            made.into_iter().for_each(|call| self.cancel(call));
        }
    }

    fn on_removed(&mut self, caller: u64, call: u64) {
        let its = self.callers.get_mut(&caller).expect("it lives");
        let Some(worker) = its.sent.remove(&call) else { return };
        let demand = &self.demands[self.calls[&call].demand];
        if its.leases.of(demand).call_removed(end(worker), || self.now) {
            self.end_leases(caller);
        }
        self.send_ready(caller);
    }

    /// Ends the leases that are over, for any reason.
    fn end_leases(&mut self, caller: u64) {
        let leases = &mut self.callers.get_mut(&caller).expect("it lives").leases;
        for Ended { worker, is_busy } in leases.take_ended(self.now) {
            self.send(caller, HEAD, Record::Return { worker: worker.epoch(), is_busy });
        }
    }

    fn queue_again(&mut self, caller: u64, call: u64) {
        let function = key(self.calls[&call].function);
        let demand = &self.demands[self.calls[&call].demand];
        self.callers.get_mut(&caller).expect("it lives").leases.of(demand).queue_again(function, call);
    }

    fn on_over(&mut self, caller: u64, call: u64, ran_nanos: Option<u64>) {
        let function = key(self.calls[&call].function);
        let its = self.callers.get_mut(&caller).expect("it lives");
        let Some(worker) = its.sent.remove(&call) else { return };
        let demand = &self.demands[self.calls[&call].demand];
        if its.leases.of(demand).call_over(end(worker), function, ran_nanos, || self.now) {
            self.end_leases(caller);
        }
        let has_failed = ran_nanos.is_some() && self.random.below(8) == 0;
        let call_over = self.calls.get_mut(&call).expect("it was made");
        if call_over.is_over {
            // It was cancelled.
        } else if has_failed && std::mem::take(&mut call_over.may_retry) {
            // An error of the function: the call comes back later, behind the others.
            let demand = &self.demands[call_over.demand];
            self.callers.get_mut(&caller).expect("it lives").leases.of(demand).queue(function, call);
        } else if ran_nanos.is_some() {
            call_over.is_over = true;
        } else {
            self.queue_again(caller, call);
        }
        self.send_ready(caller);
    }

    fn on_worker_gone(&mut self, caller: u64, worker: u64) {
        let its = self.callers.get_mut(&caller).expect("it lives");
        its.linked.remove(&worker);
        if its.leases.gone(end(worker)).is_some() {
            self.send(caller, HEAD, Record::Return { worker, is_busy: true });
        }
        let its = self.callers.get_mut(&caller).expect("it lives");
        let lost: Vec<_> = its.sent.extract_if(.., |_, at| *at == worker).map(|(call, _)| call).collect();
        for call in lost {
            let lost = self.calls.get_mut(&call).expect("it was made");
            if !lost.is_over && std::mem::take(&mut lost.may_retry) {
                self.queue_again(caller, call);
            } else {
                lost.is_over = true;
            }
        }
        self.send_ready(caller);
    }

    fn on_granted(&mut self, caller: u64, demand: usize, worker: u64) {
        let is_reached = self.servers.contains_key(&worker);
        let its = self.callers.get_mut(&caller).expect("it lives");
        its.leases.of(&self.demands[demand]).granted(end(worker), is_reached.then_some(()), self.now);
        if is_reached {
            its.linked.insert(worker);
        } else {
            self.send(caller, HEAD, Record::Return { worker, is_busy: false });
        }
        self.send_ready(caller);
    }

    // ---- workers ----

    fn register(&mut self, token: u64) {
        self.servers.get_mut(&token).expect("it lives").registered = true;
        self.pool.register(token, &End(token), self.now);
        self.arrange();
    }

    /// A worker does one thing of those that it could.
    fn go_on(&mut self, token: u64) {
        let choice = self.random.below(4);
        let server = self.servers.get_mut(&token).expect("it lives");
        let Some((caller, call)) = server.running else {
            server.running = server.queue.pop_front();
            return self.say_if_free(token);
        };
        if server.blocked {
            return self.unblock_if_done(token);
        }
        match choice {
            0 if self.calls[&call].depth < DEPTH_MAX => self.call(token, Some(call)),
            1 => self.decline_queue(token),
            2 if self.waits_for_others(token, call) => self.block(token),
            // Nobody waits for it, and it has no end.
            _ if !self.callers.contains_key(&caller) => self.decline_queue(token),
            _ => self.finish(token, caller, call),
        }
    }

    /// Whether this attempt at the call has made calls that are not over.
    fn waits_for_others(&self, token: u64, call: u64) -> bool {
        let is_its = |other: &Call| other.parent == Some(call) && other.caller == token;
        self.calls.values().any(|other| is_its(other) && !other.is_over)
    }

    fn block(&mut self, token: u64) {
        self.servers.get_mut(&token).expect("it lives").blocked = true;
        self.decline_queue(token);
        self.send(token, HEAD, Record::Blocked);
    }

    fn unblock_if_done(&mut self, token: u64) {
        let server = &self.servers[&token];
        if server.running.is_some_and(|(_, call)| !self.waits_for_others(token, call)) {
            self.servers.get_mut(&token).expect("it lives").blocked = false;
            self.send(token, HEAD, Record::Unblocked);
        }
    }

    fn finish(&mut self, token: u64, caller: u64, call: u64) {
        let is_spent = self.random.below(12) == 0;
        let server = self.servers.get_mut(&token).expect("it lives");
        server.running = None;
        if is_spent && !server.spent {
            server.spent = true;
            self.decline_queue(token);
            self.send(token, HEAD, Record::Spent(self.has_calls(token)));
        }
        self.send(token, caller, Record::Done(call));
        self.say_if_free(token);
    }

    /// Whether calls that this process made are not over.
    fn has_calls(&self, token: u64) -> bool {
        let its = &self.callers[&token];
        !its.sent.is_empty() || its.leases.has_waiting()
    }

    /// The head ends a worker: no call is lost with it.
    fn check_end(&self, token: u64) {
        let has_one = |caller: &Process| caller.sent.values().any(|worker| *worker == token);
        let is_lost = self.callers.values().any(has_one) || self.has_calls(token);
        assert!(!is_lost, "{token} is ended with calls");
    }

    fn decline_queue(&mut self, token: u64) {
        let queue = std::mem::take(&mut self.servers.get_mut(&token).expect("it lives").queue);
        for (caller, call) in queue {
            self.send(token, caller, Record::Declined(call));
        }
    }

    fn say_if_free(&mut self, token: u64) {
        if self.servers[&token].spent && self.has_calls(token) {
            return;
        }
        let server = self.servers.get_mut(&token).expect("it lives");
        if server.running.is_none() && server.queue.is_empty() && std::mem::take(&mut server.asked) {
            self.send(token, HEAD, Record::Free);
        }
    }

    // ---- death ----

    fn die(&mut self, token: u64) {
        let its = self.callers.remove(&token).unwrap_or_default();
        self.servers.remove(&token);
        self.wires.retain(|(_, to), _| *to != token);
        for worker in its.linked {
            self.send(token, worker, Record::Closed);
        }
        let users: Vec<_> =
            self.callers.iter().filter(|(_, caller)| caller.linked.contains(&token)).collect();
        let users: Vec<_> = users.into_iter().map(|(user, _)| *user).collect();
        for user in users {
            self.send(token, user, Record::Closed);
        }
        self.send(token, HEAD, Record::Closed);
        self.unnoticed.push(token);
    }

    /// The head notices that a process has ended, before or after its link is closed.
    fn notice(&mut self, token: u64) {
        self.unnoticed.retain(|other| *other != token);
        while self.wires.get(&(token, HEAD)).is_some_and(|wire| wire[0] != Record::Closed) {
            self.deliver((token, HEAD));
        }
        assert!(self.pool.remove(token).is_some());
        self.arrange();
    }

    // ---- records ----

    fn send(&mut self, from: u64, to: u64, record: Record) {
        if to == HEAD || self.callers.contains_key(&to) {
            self.wires.entry((from, to)).or_default().push_back(record);
        }
    }

    fn deliver(&mut self, wire: (u64, u64)) {
        let Some(records) = self.wires.get_mut(&wire) else { return };
        let record = records.pop_front().expect("no wire is empty");
        if records.is_empty() {
            self.wires.remove(&wire);
        }
        let (from, to) = wire;
        match record {
            Record::Want(demand, workers) => {
                self.pool.want(&End(from), self.demands[demand].clone(), workers, self.now);
            }
            Record::Return { worker, is_busy } => {
                self.pool.give_back(&End(from), end(worker), is_busy, self.now);
            }
            Record::Blocked => self.pool.set_blocked(end(from), true),
            Record::Unblocked => self.pool.set_blocked(end(from), false),
            Record::Spent(waits) => self.pool.set_spent(end(from), waits, self.now),
            Record::Free => self.pool.set_free(end(from), self.now),
            Record::Closed if to == HEAD => self.pool.caller_gone(&End(from), self.now),
            Record::Granted(demand, worker) => self.on_granted(to, demand, worker),
            Record::Recall(worker) => {
                self.callers.get_mut(&to).expect("it lives").leases.recall(end(worker));
                self.end_leases(to);
            }
            Record::SayWhenFree(is_spent) => {
                let server = self.servers.get_mut(&to).expect("it lives");
                server.asked = true;
                if is_spent && !std::mem::replace(&mut server.spent, true) {
                    self.decline_queue(to);
                }
                self.say_if_free(to);
            }
            Record::NoWorkers(demand) => {
                let leases = &mut self.callers.get_mut(&to).expect("it lives").leases;
                for call in leases.of(&self.demands[demand]).take_waiting() {
                    self.calls.get_mut(&call).expect("it was made").is_over = true;
                }
            }
            Record::Call(call) => {
                let server = self.servers.get_mut(&to).expect("it lives");
                if server.blocked || server.spent {
                    self.send(to, from, Record::Declined(call));
                } else {
                    server.queue.push_back((from, call));
                }
            }
            Record::Done(call) => {
                let ran_nanos = RAN_NANOS[self.calls[&call].function];
                self.on_over(to, call, Some(ran_nanos));
            }
            Record::Declined(call) => self.on_over(to, call, None),
            Record::Cancel(call) => self.on_cancel(to, from, call),
            Record::Removed(call) => self.on_removed(to, call),
            Record::Closed => {
                if let Some(server) = self.servers.get_mut(&to) {
                    server.queue.retain(|(caller, _)| *caller != from);
                    self.say_if_free(to);
                }
                self.on_worker_gone(to, from);
            }
        }
        if to == HEAD {
            self.arrange();
        }
    }

    /// Carries out the decisions as the head does.
    fn arrange(&mut self) {
        let there = self.servers.len() + self.unnoticed.len();
        self.pool.set_room(usize::MAX, self.room.saturating_sub(there));
        for decision in self.pool.arrange(self.now) {
            self.carry_out(decision);
        }
        for process in self.pool.lacking(0, self.now) {
            self.token_last += 1;
            self.pool.add(self.token_last, 1, process, self.now);
            self.servers.insert(self.token_last, Server::default());
            self.callers.insert(self.token_last, Process::default());
        }
        for decision in self.pool.end_surplus(0, self.now) {
            self.carry_out(decision);
        }
        if let Some(refused) = self.pool.refuse(0, self.now) {
            let Refused::Caller(caller, demand) = refused else {
                panic!("an actor is refused, and there is none")
            };
            let may_be = self.processes_max.min(self.room.max(PROCESSES_MIN));
            assert!(self.servers.len() + self.unnoticed.len() >= may_be, "refused with room for more");
            let demand = self.number_of(&demand);
            self.send(HEAD, caller.0, Record::NoWorkers(demand));
        }
        assert!(self.servers.len() <= self.processes_max, "more processes than there may be");
    }

    fn carry_out(&mut self, decision: Decision<End>) {
        match decision {
            Decision::Grant { caller, demand, worker, .. } => {
                let demand = self.number_of(&demand);
                self.send(HEAD, caller.0, Record::Granted(demand, worker.epoch()));
            }
            Decision::Recall { lessee, worker } => {
                self.send(HEAD, lessee.0, Record::Recall(worker.epoch()));
            }
            Decision::Place { .. } => panic!("an actor is placed, and there is none"),
            Decision::AskWhetherFree { worker, is_spent } => {
                self.send(HEAD, worker.0, Record::SayWhenFree(is_spent));
            }
            Decision::End { token } => {
                self.pool.exit(token, self.now);
                // It may be dead already.
                if self.servers.contains_key(&token) {
                    self.check_end(token);
                    self.die(token);
                }
            }
        }
    }

    // ---- what must hold ----

    fn check(&self) {
        for (id, _) in self.callers.iter().filter(|(_, caller)| caller.leases.has_waiting()) {
            let is_known = self.pool.wants.iter().any(|want| want.seeker.is(&End(*id)));
            let tells = self.on_wire(*id, HEAD, |record| matches!(record, Record::Want(_, 1..)));
            let is_answer = |record: &Record| matches!(record, Record::Granted(..) | Record::NoWorkers(_));
            let comes = self.on_wire(HEAD, *id, is_answer);
            assert!(is_known || tells || comes, "a call of {id} waits, and the head does not know");
        }
    }

    fn number_of(&self, demand: &Demand) -> usize {
        self.demands.iter().position(|other| other == demand).expect("one of them")
    }

    fn on_wire(&self, from: u64, to: u64, is_meant: impl Fn(&Record) -> bool) -> bool {
        self.wires.get(&(from, to)).is_some_and(|wire| wire.iter().any(is_meant))
    }

    fn end(mut self) {
        // One more call that has no end, where that leaves a place for others.
        let leaves =
            self.servers.values().filter(|server| !server.blocked).filter_map(|server| server.running);
        let leaves: Vec<u64> = leaves.map(|(_, call)| call).collect();
        let held = self.random.any(&leaves).filter(|_| {
            self.kept > 1
                && self.demands.len() == 1
                && self.processes_max == usize::MAX
                && self.room == usize::MAX
        });
        let mut rounds = 0;
        while self.is_anything_left(held) {
            rounds += 1;
            assert!(
                rounds < ROUNDS_MAX,
                "calls wait, {} kept, {held:?} runs: {:?}",
                self.kept,
                self.left(held)
            );
            self.round(|life, caller, call| {
                // A call that nobody waits for has no end, unless it holds what others wait for.
                let on = life.servers.iter().find(|(_, server)| server.running == Some((caller, call)));
                let worker = on.and_then(|(token, _)| life.pool.workers.get(*token));
                let holds = worker.is_some_and(|worker| !worker.held.without_cpus().is_nothing());
                Some(call) != held && (life.callers.contains_key(&caller) || holds)
            });
        }
        // Now all calls end, and with them all leases.
        for _ in 0..100 {
            self.round(|_, _, _| true);
        }
        let in_use = self.pool.workers.all().filter(|(_, worker)| {
            matches!(worker.job, Job::Leased { .. } | Job::Finishing { .. }) || worker.blocked
        });
        assert_eq!(in_use.count(), 0, "a worker is not given back");
        assert_eq!(self.pool.free(), self.total, "not everything was given back");
    }

    /// Everything goes on but calls that have no end.
    fn round(&mut self, has_end: impl Fn(&Self, u64, u64) -> bool) {
        for token in self.unnoticed.clone() {
            self.notice(token);
        }
        let mut delivered = 0;
        while let Some((wire, _)) = self.wires.first_key_value() {
            self.deliver(*wire);
            self.check();
            delivered += 1;
            assert!(
                delivered < RECORDS_MAX,
                "records go to and fro, {} kept: {:?}",
                self.kept,
                self.left(None)
            );
        }
        for token in self.servers.keys().copied().collect::<Vec<_>>() {
            // It may have ended as more than is needed.
            let Some(server) = self.servers.get(&token) else { continue };
            if !server.registered {
                self.register(token);
                continue;
            }
            match server.running {
                None => self.go_on(token),
                Some(_) if server.blocked => self.unblock_if_done(token),
                Some((_, call)) if self.waits_for_others(token, call) => self.block(token),
                Some((caller, call)) if has_end(self, caller, call) => self.finish(token, caller, call),
                Some(_) => self.decline_queue(token),
            }
        }
        for caller in self.callers.keys().copied().collect::<Vec<_>>() {
            self.end_leases(caller);
        }
        self.now += Duration::from_millis(30);
        self.arrange();
    }

    fn is_anything_left(&self, held: Option<u64>) -> bool {
        !self.left(held).is_empty()
    }

    /// Calls that are not over, but the one that is held and those that wait for it, and those that nobody waits for.
    fn left(&self, held: Option<u64>) -> Vec<u64> {
        let mut excused = BTreeSet::new();
        let mut waits = held;
        while let Some(call) = waits.filter(|call| excused.insert(*call)) {
            waits = self.calls[&call].parent;
        }
        let left = self.calls.iter().filter(|(id, call)| {
            !call.is_over && self.callers.contains_key(&call.caller) && !excused.contains(id)
        });
        left.map(|(id, _)| *id).collect()
    }

    fn any_server(&mut self, is_wanted: impl Fn(&Server) -> bool) -> Option<u64> {
        let wanted = self.servers.iter().filter(|(_, server)| is_wanted(server));
        let wanted: Vec<_> = wanted.map(|(token, _)| *token).collect();
        self.random.any(&wanted)
    }
}

fn end(process: u64) -> OwnerId {
    End(process).peer()
}

fn key(function: usize) -> Key {
    Key::from_bits(function as u64)
}
