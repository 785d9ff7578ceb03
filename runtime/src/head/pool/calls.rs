//! The pool with the callers' real [leases](LeasesByDemand), simulated workers, and simulated records between all of
//! them. A seed decides which of them makes the next step.
//!
//! - Callers make calls, in half of the lives with random demands, and calls make calls. Some have time limits, some
//!   are detached. Each attempt has its whole time, and no limit ends a call between two attempts. They are cancelled,
//!   by their callers or by other processes, wherever they are, with or without the calls that they have made, and also
//!   by force. Those that fail are retried, at once or after a while, or when the program has decided it.
//! - Some make streams, whose callers take the items, or drop the stream. Each item is taken once and in order, and no
//!   more items are in flight than allowed, however often the call is retried.
//! - Workers run them, and wait for others. A worker declines the calls that would wait behind its own, and declines
//!   all calls when it is spent.
//! - The head ends processes that are not needed, and one when memory is short. Any process except the head dies at any
//!   time, and the others learn of it late.
//!
//! After each step, the head knows each call that waits. No process that the head ends has calls. At the end no process
//! dies. Every call must then finish. Two kinds may not: a call whose caller died and that is not detached; and, if
//! there are enough processes, one more call. In half of the lives there is a limit of processes, and a call may also
//! finish with an error. In half of the lives the driver's room for processes sets the limit, and the room changes.
//!
//! [Seeds](crate::simulated) are those of all simulations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::stream::Stream;
use super::simulated::{End, Offer};
use super::*;
use crate::call::limits::{CallLimits, Deadline, LimitOptions};
use crate::definition::Key;
use crate::error::TimeLimit;
use crate::simulated::{Random, for_each_seed};
use crate::submit::demands::LeasesByDemand;
use crate::submit::leases::Ended;

mod caller;
mod head;
mod stream;
mod worker;

const STEPS: usize = 400;
/// The most rounds at the end of a life. In each round everything continues a little.
const ROUNDS_MAX: usize = 3000;
/// Records of a round.
const RECORDS_MAX: usize = 20_000;
const DRIVERS: u64 = 2;
const HEAD: u64 = 50;
/// Tokens of workers begin behind it.
const TOKENS: u64 = 100;
/// The greatest depth of calls that make calls.
const DEPTH_MAX: usize = 4;
/// The number of processes for which the driver has room is below this, where it is limited.
const ROOM_MAX: usize = 8;
/// How long calls of each function run: those of the first are sent ahead, those of the third in pairs while many wait,
/// and those of the last never.
const RAN_NANOS: [u64; 4] = [100, 20_000, 2_000_000, 10_000_000];
/// How often a call is retried whose worker was ended because memory was short.
const MEMORY_RETRIES: u32 = 2;

#[test]
fn every_call_comes_to_its_end() {
    for_each_seed("pool::calls", |seed| Life::new(seed).run());
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    // To the head.
    /// The number of the demand, and the number of workers wanted for it.
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
    AskDeath(u64),
    /// Whether a call of the sender runs in this worker.
    Runs(u64, bool),
    // From the head.
    Granted(usize, u64),
    Recall(u64),
    /// Whether it is spent.
    SayWhenFree(bool),
    NoWorkers(usize),
    /// Whether memory was short.
    Died(u64, bool),
    AskCall(u64),
    // Between a caller and a worker.
    Call(u64),
    Begun(u64),
    Done(u64),
    Declined(u64),
    Cancel(u64, How),
    Removed(u64),
    /// The item of a stream at a position, and whether it lies in the worker's memory.
    Item(u64, u64, bool),
    /// How many items the stream has; the call is done.
    StreamEnd(u64, u64),
    /// The number of items of a call that were taken.
    Taken(u64, u64),
    /// From any process to the caller of a call.
    CancelPromised(u64, How),
    /// The other end is gone.
    Closed,
}

/// How a call is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct How {
    /// The process that runs it ends.
    force: bool,
    /// The calls that it has made are cancelled too.
    recursive: bool,
}

impl How {
    const USUAL: Self = Self { force: false, recursive: true };

    fn random(random: &mut Random) -> Self {
        Self { force: random.below(4) == 0, recursive: random.below(4) > 0 }
    }
}

/// The calls that a process has made.
#[derive(Default)]
struct Process {
    leases: LeasesByDemand<u64, ()>,
    /// The worker to which each call was sent.
    sent: BTreeMap<u64, u64>,
    /// Calls that had begun in workers that are gone, until the head says how those ended.
    lost: BTreeMap<u64, u64>,
    /// Calls that are retried at these times.
    delayed: BTreeSet<(Instant, u64)>,
    /// Calls that failed, and are retried if the program says so.
    undecided: BTreeSet<u64>,
    /// The times at which calls reach their limits.
    limits: BTreeSet<(Instant, u64, TimeLimit)>,
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
    /// The running call was cancelled, or no process waits for it.
    cancelled: bool,
    /// The number of items that the running call has sent, and the number that were taken as far as it knows.
    items_sent: u64,
    items_taken: u64,
    /// It waits until items are taken, and not for a call that it has made.
    waits_for_room: bool,
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
    /// The program decides whether it is retried because of an error.
    is_asked: bool,
    memory_retries: u32,
    is_detached: bool,
    /// How long each attempt may run, and when the call must be over.
    limits: CallLimits,
    /// The stream that the call makes.
    stream: Option<Stream>,
    /// When the attempt that was sent last began.
    begun: Option<Instant>,
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
    /// Processes that were ended because memory was short.
    short_of_memory: BTreeSet<u64>,
    /// The callers that asked how these processes ended, before the head knew it.
    asked_deaths: BTreeSet<(u64, u64)>,
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
            short_of_memory: BTreeSet::new(),
            asked_deaths: BTreeSet::new(),
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
        match self.random.below(50) {
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
                if let Some(caller) = self.any_caller() {
                    self.end_leases(caller);
                }
            }
            36 => {
                // At times so long that processes that are not needed end.
                let millis = if self.random.below(8) == 0 { 1500 } else { 60 };
                self.now += Duration::from_millis(self.random.below(millis) as u64);
                if self.room != usize::MAX {
                    self.room = self.random.below(ROOM_MAX);
                }
                self.arrange();
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
                if let Some(call) = self.any_call() {
                    let how = How::random(&mut self.random);
                    self.cancel(call, how);
                }
            }
            40 => {
                if let Some(call) = self.any_call()
                    && let Some(by) = self.any_caller().filter(|by| *by != self.calls[&call].caller)
                {
                    let how = How::random(&mut self.random);
                    self.send(by, self.calls[&call].caller, Record::CancelPromised(call, how));
                }
            }
            41 => {
                if let Some(caller) = self.any_caller() {
                    self.on_time(caller);
                }
            }
            42 => {
                if self.random.below(3) == 0 {
                    self.memory_is_short();
                }
            }
            43..=45 => {
                if let Some(call) = self.any_stream() {
                    self.take_item(call);
                }
            }
            46 => {
                if let Some(call) = self.any_stream().filter(|_| self.random.below(4) == 0) {
                    self.drop_stream(call);
                }
            }
            47 => {
                if let Some(caller) = self.any_caller() {
                    self.decide(caller);
                }
            }
            _ => {
                if let Some(token) = self.random.any(&self.unnoticed.clone()) {
                    self.notice(token);
                }
            }
        }
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
        match wire {
            (from, HEAD) => self.deliver_to_head(from, record),
            (HEAD, to) => self.deliver_from_head(to, record),
            (from, to) => self.deliver_between(from, to, record),
        }
    }

    fn deliver_from_head(&mut self, to: u64, record: Record) {
        match record {
            Record::Granted(demand, worker) => self.on_granted(to, demand, worker),
            Record::Recall(worker) => {
                self.process(to).leases.recall(end(worker));
                self.end_leases(to);
            }
            Record::NoWorkers(demand) => self.on_no_workers(to, demand),
            Record::Died(worker, was_memory_short) => self.on_died(to, worker, was_memory_short),
            Record::AskCall(worker) => {
                let is_it = |(call, at): (&u64, &u64)| *at == worker && self.calls[call].begun.is_some();
                let runs = self.callers[&to].sent.iter().any(is_it);
                self.send(to, HEAD, Record::Runs(worker, runs));
            }
            Record::SayWhenFree(is_spent) => self.on_say_when_free(to, is_spent),
            record => panic!("the head has sent {record:?}"),
        }
    }

    fn deliver_between(&mut self, from: u64, to: u64, record: Record) {
        match record {
            Record::Call(call) => self.on_call(to, from, call),
            Record::Cancel(call, how) => self.on_cancel(to, from, call, how),
            Record::Begun(call) => self.on_begun(to, from, call),
            Record::Done(call) => {
                // Some functions fail.
                let has_failed = self.calls[&call].stream.is_some() || self.random.below(8) == 0;
                self.on_over(to, call, Some(self.ran_nanos(call)), has_failed);
            }
            Record::Item(call, position, is_stored) => self.on_item(to, from, call, position, is_stored),
            Record::StreamEnd(call, length) => {
                self.on_stream_end(to, from, call, length);
                self.on_over(to, call, Some(self.ran_nanos(call)), false);
            }
            Record::Taken(call, items) => self.on_taken(to, from, call, items),
            Record::Declined(call) => self.on_over(to, call, None, false),
            Record::Removed(call) => self.on_removed(to, call),
            Record::CancelPromised(call, how) => {
                if !self.calls[&call].is_over {
                    self.cancel(call, how);
                }
            }
            Record::Closed => {
                if self.servers.contains_key(&to) {
                    self.on_caller_gone(to, from);
                }
                self.on_worker_gone(to, from);
            }
            record => panic!("no process sends {record:?} to another"),
        }
    }

    // ---- what must hold ----

    fn check(&self) {
        for (id, _) in self.callers.iter().filter(|(_, caller)| caller.leases.has_waiting()) {
            let is_known = self.pool.wants.iter().any(|want| want.requester.is(&End(*id)));
            let tells = self.on_wire(*id, HEAD, |record| matches!(record, Record::Want(_, 1..)));
            let is_answer = |record: &Record| matches!(record, Record::Granted(..) | Record::NoWorkers(_));
            let comes = self.on_wire(HEAD, *id, is_answer);
            assert!(is_known || tells || comes, "a call of {id} waits, and the head does not know");
        }
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
        while !self.left(held).is_empty() {
            rounds += 1;
            let left = self.left(held);
            assert!(rounds < ROUNDS_MAX, "calls wait, {} kept, {held:?} runs: {left:?}", self.kept);
            self.round(|life, caller, call| {
                // A call that nobody waits for has no end, unless it holds what others wait for.
                let on = life.servers.iter().find(|(_, server)| server.running == Some((caller, call)));
                let worker = on.and_then(|(token, _)| life.pool.workers.get(*token));
                let holds = worker.is_some_and(|worker| !worker.held.without_cpus().is_nothing());
                let is_awaited = life.callers.contains_key(&caller) || life.calls[&call].is_detached;
                Some(call) != held && (is_awaited || holds)
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
        let has_one = |server: &Server| server.running.is_some() || !server.queue.is_empty();
        assert!(!self.servers.values().any(has_one), "a call was begun, or waits, and does not end");
        for (id, call) in &mut self.calls {
            if let Some(stream) = &mut call.stream {
                stream.check(*id);
            }
        }
    }

    /// Everything continues, except calls that have no end.
    fn round(&mut self, has_end: impl Fn(&Self, u64, u64) -> bool) {
        let mut delivered = 0;
        loop {
            // One may end yet that was chosen before.
            for token in self.unnoticed.clone() {
                self.notice(token);
            }
            let Some((wire, _)) = self.wires.first_key_value() else { break };
            self.deliver(*wire);
            self.check();
            delivered += 1;
            let left = || self.left(None);
            assert!(delivered < RECORDS_MAX, "records go to and fro, {} kept: {:?}", self.kept, left());
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
                Some((caller, call)) if self.has_items_left(token, call) => self.produce(token, caller, call),
                Some((_, call)) if self.waits_for_others(token, call) => self.block(token),
                Some((caller, call)) if has_end(self, caller, call) => self.finish(token, caller, call),
                Some(_) => self.decline_queue(token),
            }
        }
        for call in self.streams() {
            self.take_item(call);
        }
        for caller in self.callers.keys().copied().collect::<Vec<_>>() {
            self.on_time(caller);
            self.decide(caller);
            self.end_leases(caller);
        }
        self.now += Duration::from_millis(30);
        self.arrange();
    }

    /// The calls that are not over. Three kinds are left out: the call that is held, the calls that wait for it, and
    /// those for which no process waits.
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

    // ---- choosing ----

    fn any_server(&mut self, is_wanted: impl Fn(&Server) -> bool) -> Option<u64> {
        let wanted = self.servers.iter().filter(|(_, server)| is_wanted(server));
        let wanted: Vec<_> = wanted.map(|(token, _)| *token).collect();
        self.random.any(&wanted)
    }

    fn any_caller(&mut self) -> Option<u64> {
        let callers: Vec<_> = self.callers.keys().copied().collect();
        self.random.any(&callers)
    }

    /// A call that is not over, and whose caller lives.
    fn any_call(&mut self) -> Option<u64> {
        let is_there = |call: &Call| !call.is_over && self.callers.contains_key(&call.caller);
        let calls: Vec<_> = self.calls.iter().filter(|(_, call)| is_there(call)).map(|(id, _)| *id).collect();
        self.random.any(&calls)
    }

    /// The calls that make streams for processes that live.
    fn streams(&self) -> Vec<u64> {
        let is_one = |call: &Call| call.stream.is_some() && self.callers.contains_key(&call.caller);
        self.calls.iter().filter(|(_, call)| is_one(call)).map(|(id, _)| *id).collect()
    }

    fn any_stream(&mut self) -> Option<u64> {
        let streams = self.streams();
        self.random.any(&streams)
    }

    fn ran_nanos(&self, call: u64) -> u64 {
        RAN_NANOS[self.calls[&call].function]
    }

    fn number_of(&self, demand: &Demand) -> usize {
        self.demands.iter().position(|other| other == demand).expect("one of them")
    }

    fn process(&mut self, id: u64) -> &mut Process {
        self.callers.get_mut(&id).expect("it lives")
    }

    fn server(&mut self, token: u64) -> &mut Server {
        self.servers.get_mut(&token).expect("it lives")
    }

    fn made(&mut self, call: u64) -> &mut Call {
        self.calls.get_mut(&call).expect("it was made")
    }
}

fn end(process: u64) -> OwnerId {
    End(process).peer()
}

fn key(function: usize) -> Key {
    Key::from_bits(function as u64)
}
