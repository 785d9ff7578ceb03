//! The pool among callers and workers that are simulated: what they ask for, and when they die, follows from a seed.
//!
//! A schedule is the life of one session. Processes are started and register, late or never; callers want workers, use
//! them, and give them back, also when they are asked to; workers call others and wait for them; anybody dies at any
//! time. After each step the pool must agree with a simple model, and in the end everybody gets what he wants.
//!
//! A schedule that fails prints the line that replays it. More of them: `MOBULA_SCHEDULES=10000`, from `MOBULA_SEED`
//! on.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Schedules of an ordinary run.
const SCHEDULES: u64 = 1000;
/// Steps of a schedule, before everything ends.
const STEPS: u64 = 300;
/// The most rounds until every caller that waits must have been served.
const ROUNDS_MAX: u32 = 500;

#[test]
fn every_schedule_gives_workers_to_those_who_want_them() {
    for_each_seed("simulation", |seed| Schedule::new(seed).run());
}

/// Runs the simulation of this module's name for each seed that is asked for.
pub(super) fn for_each_seed(module: &'static str, run: impl Fn(u64)) {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse().expect("a number"));
    let first = number("MOBULA_SEED");
    let count = number("MOBULA_SCHEDULES").unwrap_or(if first.is_some() { 1 } else { SCHEDULES });
    let (first, began) = (first.unwrap_or(0), Instant::now());
    for seed in first..first + count {
        let _replay = Replay { module, seed };
        run(seed);
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("{count} schedules of the head's {module}, {:.0} a minute", count as f64 / minutes);
}

/// Says how to see a failure again.
struct Replay {
    module: &'static str,
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { module, seed } = self;
            eprintln!("replay: MOBULA_SEED={seed} cargo test -p mobula --lib pool::{module} -- --nocapture");
        }
    }
}

/// xorshift64*.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn any<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// The other end of a link: drivers have small numbers, the workers those of their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End(pub(super) u64);

impl Caller for End {
    fn id(&self) -> u64 {
        self.0
    }

    fn peer(&self) -> OwnerId {
        OwnerId::new(1, self.0)
    }
}

const DRIVERS: u64 = 3;
/// Tokens begin behind it.
const TOKENS: u64 = 100;

/// A worker, as the model knows it.
#[derive(Debug, Default)]
struct Process {
    registered: bool,
    lessee: Option<End>,
    recalled: bool,
    blocked: bool,
    broken: bool,
    exiting: bool,
    actor: bool,
    /// It may still run what somebody asked of it, and has been asked whether it does.
    finishing: Option<Instant>,
    asked: bool,
}

impl Process {
    fn is_idle(&self) -> bool {
        let Self { registered, lessee, blocked, broken, exiting, actor, finishing, .. } = self;
        let is_busy = *blocked || *broken || *exiting || *actor || finishing.is_some();
        *registered && lessee.is_none() && !is_busy
    }
}

struct Schedule {
    random: Random,
    pool: Pool<End>,
    places: usize,
    now: Instant,
    token_last: u64,
    processes: BTreeMap<u64, Process>,
    /// How many workers each caller still wants.
    wants: BTreeMap<End, u32>,
    /// Actors that wait for a process.
    actors: usize,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let places = 1 + random.below(4);
        Self {
            random,
            pool: Pool::new(places, usize::MAX),
            places,
            now: Instant::now(),
            token_last: TOKENS,
            processes: BTreeMap::new(),
            wants: BTreeMap::new(),
            actors: 0,
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.arrange();
            self.check();
        }
        self.end();
    }

    fn step(&mut self) {
        let token = self.any_process(|_| true);
        match self.random.below(16) {
            0 | 1 => {
                if let Some(token) = self.any_process(|process| !process.registered) {
                    self.register(token);
                }
            }
            2..=4 => {
                let caller = self.any_caller();
                let workers = self.random.below(4) as u32;
                self.want(caller, workers);
            }
            5..=7 => {
                if let Some(token) = self.any_process(|process| process.lessee.is_some()) {
                    let is_busy = self.random.below(8) == 0;
                    self.give_back(token, is_busy);
                }
            }
            8 => {
                if let Some(token) = self.any_process(|process| process.recalled) {
                    self.give_back(token, false);
                } else if let Some(token) = self.any_process(|process| process.asked) {
                    self.set_free(token);
                }
            }
            // A worker calls others, and waits for them: only one that runs a call does.
            9 | 10 => {
                if let Some(token) = self.any_process(|process| process.lessee.is_some() && !process.blocked)
                {
                    self.set_blocked(token, true);
                    self.want(End(token), 1);
                }
            }
            11 => {
                if let Some(token) = self.any_process(|process| process.blocked) {
                    self.set_blocked(token, false);
                }
            }
            12 => self.actors += usize::from(self.random.below(4) == 0),
            13 => {
                let time = Duration::from_millis(self.random.below(800) as u64);
                self.pass(time);
            }
            14 => {
                if let Some(token) = token.filter(|_| self.random.below(4) == 0) {
                    self.die(token);
                }
            }
            _ => {
                if let Some(token) = token.filter(|token| self.processes[token].registered)
                    && self.random.below(8) == 0
                {
                    self.pool.set_broken(End(token).peer(), self.now);
                    self.processes.get_mut(&token).expect("just found").broken = true;
                }
            }
        }
    }

    // ---- what happens ----

    fn register(&mut self, token: u64) {
        assert!(self.pool.is_starting(token));
        self.pool.register(token, &End(token), self.now);
        self.processes.get_mut(&token).expect("just found").registered = true;
    }

    fn want(&mut self, caller: End, workers: u32) {
        self.pool.want(&caller, workers);
        self.wants.remove(&caller);
        if workers > 0 {
            self.wants.insert(caller, workers);
        }
    }

    fn give_back(&mut self, token: u64, is_busy: bool) {
        let process = self.processes.get_mut(&token).expect("just found");
        let lessee = process.lessee.take().expect("it is leased");
        process.recalled = false;
        process.finishing = is_busy.then_some(self.now);
        self.pool.give_back(&lessee, End(token).peer(), is_busy, self.now);
    }

    fn set_free(&mut self, token: u64) {
        let process = self.processes.get_mut(&token).expect("just found");
        (process.finishing, process.asked) = (None, false);
        self.pool.set_free(End(token).peer(), self.now);
    }

    fn set_blocked(&mut self, token: u64, blocked: bool) {
        self.pool.set_blocked(End(token).peer(), blocked);
        self.processes.get_mut(&token).expect("just found").blocked = blocked;
    }

    /// A process ends: its link is closed, before or after that is noticed.
    fn die(&mut self, token: u64) {
        let was = self.processes.remove(&token).expect("just found");
        if was.registered && self.random.below(2) == 0 {
            self.close(End(token));
            assert!(self.pool.remove(token).is_some());
        } else {
            assert!(self.pool.remove(token).is_some());
            self.close(End(token));
        }
        assert!(self.pool.remove(token).is_none());
    }

    fn close(&mut self, end: End) {
        self.pool.caller_gone(&end, self.now);
        self.wants.remove(&end);
        for process in self.processes.values_mut().filter(|process| process.lessee == Some(end)) {
            (process.lessee, process.recalled) = (None, false);
            process.finishing = Some(self.now);
        }
    }

    /// Time passes; who takes too long to end is killed.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for token in self.pool.kill_late(self.now) {
            let process = &self.processes[&token];
            assert!(process.exiting || process.broken, "{token} was killed: {process:?}");
            self.die(token);
        }
    }

    // ---- what is decided ----

    /// Carries out the decisions as the head does.
    fn arrange(&mut self) {
        while self.actors > 0 {
            let Some((token, _)) = self.pool.idle() else { break };
            assert!(self.processes[&token].is_idle(), "an actor got {:?}", self.processes[&token]);
            self.pool.place(token, 7);
            self.processes.get_mut(&token).expect("it runs").actor = true;
            self.actors -= 1;
        }
        for decision in self.pool.arrange() {
            self.carry_out(decision);
        }
        for _ in 0..self.pool.lacking(self.actors, self.now) {
            self.token_last += 1;
            self.pool.add(self.token_last, 1, self.now);
            self.processes.insert(self.token_last, Process::default());
        }
        for token in self.pool.surplus(self.now) {
            let process = self.processes.get_mut(&token).expect("it runs");
            assert!(process.is_idle(), "ended as more than is needed: {process:?}");
            process.exiting = true;
            self.pool.exit(token, self.now);
        }
    }

    fn carry_out(&mut self, decision: Decision<End>) {
        match decision {
            Decision::Grant { caller, worker, .. } => {
                // Workers that have given up a place go first.
                let gave_up = |end: &End| self.processes.get(&end.0).is_some_and(|process| process.blocked);
                assert!(gave_up(&caller) || !self.wants.keys().any(gave_up), "{caller:?} was not next");
                let wanted = self.wants.get_mut(&caller).expect("somebody who wants none got one");
                *wanted -= 1;
                self.wants.retain(|_, workers| *workers > 0);
                let process = self.processes.get_mut(&worker.epoch()).expect("it runs");
                assert!(process.is_idle(), "granted: {process:?}");
                process.lessee = Some(caller);
                assert!(self.busy() <= self.places, "more calls run than there are places");
            }
            Decision::Recall { lessee, worker } => {
                assert!(!self.processes.values().any(|process| process.recalled), "two are recalled at once");
                let poor = self.wants.keys().any(|caller| self.leases_of(*caller) == 0);
                assert!(poor, "recalled for nobody");
                let most = self.processes.values().filter(|process| !process.blocked);
                let most =
                    most.filter_map(|process| process.lessee).map(|lessee| self.leases_of(lessee)).max();
                assert_eq!(Some(self.leases_of(lessee)), most, "recalled from one who has less than others");
                let process = self.processes.get_mut(&worker.epoch()).expect("it runs");
                assert_eq!(process.lessee, Some(lessee));
                process.recalled = true;
            }
            Decision::AskWhetherFree { worker } => {
                let process = self.processes.get_mut(&worker.0).expect("it runs");
                assert!(process.finishing.is_some() && !process.asked, "asked for nothing: {process:?}");
                process.asked = true;
            }
        }
    }

    // ---- what must hold ----

    fn check(&self) {
        let idle = self.processes.values().any(Process::is_idle);
        let wanted = !self.wants.is_empty() && self.busy() < self.places;
        assert!(!(idle && (wanted || self.actors > 0)), "somebody waits, and a worker is idle");
        let is_late = |since: Instant| self.now.duration_since(since) >= FREE_PATIENCE;
        let serving = self
            .processes
            .values()
            .filter(|process| !(process.blocked || process.broken || process.exiting || process.actor))
            .filter(|process| !process.finishing.is_some_and(is_late));
        assert!(serving.count() >= self.places, "fewer workers than places");
        let starting = self.processes.values().filter(|process| !process.registered).count();
        assert!(starting >= self.actors, "an actor waits for a process that nobody starts");
        let poor = self.wants.keys().any(|caller| self.leases_of(*caller) == 0);
        let others = self.processes.values().any(|process| process.lessee.is_some() && !process.blocked);
        let comes = (starting > 0 && self.busy() < self.places)
            || self.processes.values().any(|process| process.recalled);
        assert!(!poor || comes || !others, "nothing is done for one who has none");
        let ends = self.processes.values().any(|process| process.exiting || process.broken);
        assert!(!ends || self.pool.timeout(self.now).is_some(), "nobody looks whether it ends");
        let is_forgotten = |process: &Process| process.finishing.is_some() && !process.asked;
        assert!(!self.processes.values().any(is_forgotten), "nobody asks whether it is free");
    }

    /// Calls that run.
    fn busy(&self) -> usize {
        self.processes.values().filter(|process| process.lessee.is_some() && !process.blocked).count()
    }

    fn leases_of(&self, caller: End) -> usize {
        self.processes.values().filter(|process| process.lessee == Some(caller)).count()
    }

    // ---- the end ----

    /// Everybody is served by and by, when calls end; and what is not needed is gone a little later.
    fn end(mut self) {
        let mut rounds = 0;
        while !self.wants.is_empty() || self.actors > 0 {
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "not served: {:?}, {} actors", self.wants, self.actors);
            let starting = self.all(|process| !process.registered);
            starting.into_iter().for_each(|token| self.register(token));
            // A call ends, the innermost first: those that wait for others go on only when nobody else can.
            let running = self.all(|process| process.lessee.is_some() && !process.blocked);
            match running.last() {
                // Some are left busy, and never say that they are free.
                Some(token) => self.give_back(*token, token % 8 == 0),
                None => self.all(|process| process.blocked).into_iter().for_each(|token| {
                    self.set_blocked(token, false);
                }),
            }
            self.pass(Duration::from_millis(50));
            self.arrange();
            self.check();
        }
        for driver in 0..DRIVERS {
            self.close(End(driver));
        }
        for token in self.all(|process| process.blocked) {
            self.set_blocked(token, false);
        }
        for token in self.all(|process| process.lessee.is_some()) {
            self.give_back(token, false);
        }
        self.arrange();
        for token in self.all(|process| process.asked) {
            self.set_free(token);
        }
        for _ in 0..40 {
            self.pass(Duration::from_millis(250));
            self.arrange();
            self.all(|process| !process.registered).into_iter().for_each(|token| self.register(token));
            self.check();
        }
        let ordinary: BTreeSet<u64> = self.all(|process| !process.actor).into_iter().collect();
        assert_eq!(ordinary.len(), self.places, "{:?}", self.processes);
    }

    // ---- choosing ----

    fn all(&self, is_wanted: impl Fn(&Process) -> bool) -> Vec<u64> {
        let wanted = self.processes.iter().filter(|(_, process)| is_wanted(process));
        wanted.map(|(token, _)| *token).collect()
    }

    fn any_process(&mut self, is_wanted: impl Fn(&Process) -> bool) -> Option<u64> {
        let wanted = self.all(is_wanted);
        (!wanted.is_empty()).then(|| wanted[self.random.below(wanted.len())])
    }

    /// A driver, or a worker that runs a call.
    fn any_caller(&mut self) -> End {
        let calls = self.any_process(|process| process.lessee.is_some() && !process.broken);
        match calls.filter(|_| self.random.below(3) == 0) {
            Some(token) => End(token),
            None => End(self.random.below(DRIVERS as usize) as u64),
        }
    }
}
