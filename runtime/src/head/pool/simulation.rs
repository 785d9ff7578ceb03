//! The pool among callers and workers that are simulated: what they ask for, and when they die, follows from a seed.
//!
//! A schedule is the life of one session. Processes are started and register, late or never; callers want workers, use
//! them, and give them back, also when they are asked to; workers call others and wait for them; anybody dies at any
//! time. After each step the pool must agree with a simple model, and in the end everybody gets what he wants.
//!
//! In half of the schedules all calls demand one CPU, and what is decided can be told exactly. In the others, their
//! demands are random. Then no more is granted than there is, no GPU is given out above 1, what fits and may go runs,
//! each caller is served by and by however much it demands, and everything is given back.
//!
//! A schedule that fails prints the line that replays it. More of them: `MOBULA_SCHEDULES=10000`, from `MOBULA_SEED`
//! on.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::environment::EnvironmentOptions;
use crate::resources::Amounts;

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

/// Small demands come without end, and at each time a call for one of them runs.
#[test]
fn a_large_demand_is_served_although_small_ones_never_cease() {
    let both = Amounts { num_cpus: Some(2.0), ..Amounts::default() }.resolve(0.0).expect("it can be");
    let mut pool = Pool::new(2, usize::MAX, both.clone());
    let (small, large) = (End(0), End(1));
    let (mut now, mut token_last, mut calls) = (Instant::now(), TOKENS, Vec::new());
    for step in 0..2000 {
        pool.want(&small, Demand::default(), 4, now);
        if step == 100 {
            pool.want(&large, Demand::of(both.clone()), 1, now);
        }
        for decision in pool.arrange(now) {
            match decision {
                Decision::Grant { caller, .. } if caller == large => return,
                Decision::Grant { worker, .. } => calls.push((worker, now + Duration::from_millis(35))),
                _ => {}
            }
        }
        for process in pool.lacking(0, now) {
            token_last += 1;
            pool.add(token_last, 1, process, now);
            pool.register(token_last, &End(token_last), now);
        }
        // One a step, so that they do not all end at the same time.
        if let Some(position) = calls.iter().position(|(_, end)| *end <= now) {
            pool.give_back(&small, calls.remove(position).0, false, now);
        }
        now += Duration::from_millis(10);
    }
    panic!(
        "the large demand waited for {:?}",
        now.duration_since(pool.wants.iter().next().expect("it waits").since)
    );
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
            eprintln!(
                "replay: MOBULA_SEED={seed} cargo test -p mobula-runtime --lib pool::{module} -- --nocapture"
            );
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

/// The resources of a session, and the demands of its calls.
pub(super) struct Offer {
    pub(super) kept: usize,
    pub(super) total: Resources,
    /// The first is the usual demand, which fits.
    pub(super) demands: Vec<Demand>,
}

impl Offer {
    pub(super) fn random(random: &mut Random) -> Self {
        let kept = 1 + random.below(4);
        let amounts = |cpus: f64, disk: f64, gpus: f64| {
            let resources = Some(vec![("disk".to_owned(), disk)]);
            Amounts { num_cpus: Some(cpus), num_gpus: Some(gpus), resources, ..Amounts::default() }
                .resolve(1.0)
                .expect("they can be")
        };
        if random.below(2) == 0 {
            return Self { kept, total: amounts(kept as f64, 0.0, 0.0), demands: vec![Demand::default()] };
        }
        let (cpus, disks, gpus) = (1 + random.below(4), random.below(3), random.below(4));
        let mut demands = vec![Demand::default(), Demand::of(amounts(0.25, 0.0, 0.0))];
        for _ in 0..1 + random.below(3) {
            let cpus = [0.0, 0.25, 0.5, 1.0 + random.below(cpus) as f64][random.below(4)];
            let disk = random.below(2 * disks + 1) as f64 / 2.0;
            let environment = [None, None, Some("A"), Some("B")][random.below(4)].map(environment);
            let gpu = match random.below(2) {
                _ if gpus == 0 => 0.0,
                0 => [0.25, 0.5, 0.75, 0.0][random.below(4)],
                _ => random.below(gpus + 1) as f64,
            };
            let demand = Demand::within(environment.unwrap_or_default(), amounts(cpus, disk, gpu));
            if !demands.contains(&demand) {
                demands.push(demand);
            }
        }
        Self { kept, total: amounts(cpus as f64, disks as f64, gpus as f64), demands }
    }
}

/// An environment with a variable of this name.
fn environment(name: &str) -> Environment {
    let env_vars = Some(EnvironmentOptions::variables([(name, "1")]));
    Environment::USUAL.with(&EnvironmentOptions { env_vars, working_dir: None }).expect("it can be")
}

/// A worker, as the model knows it.
#[derive(Debug, Default)]
struct Process {
    environment: Environment,
    gpus: Vec<usize>,
    registered: bool,
    lessee: Option<End>,
    /// The demand of its calls, while it may run any.
    demand: Demand,
    recalled: bool,
    blocked: bool,
    broken: bool,
    exiting: bool,
    /// It begins no more calls.
    spent: bool,
    /// It is spent, and keeps what is not CPUs until it has ended.
    keeps: bool,
    actor: bool,
    /// It may still run what somebody asked of it, and has been asked whether it does.
    finishing: Option<Instant>,
    asked: bool,
}

impl Process {
    fn is_idle(&self) -> bool {
        let Self { registered, lessee, blocked, broken, exiting, spent, actor, finishing, .. } = self;
        let is_busy = *blocked || *broken || *exiting || *spent || *actor || finishing.is_some();
        *registered && lessee.is_none() && !is_busy
    }

    /// Whether it could begin a call of this environment.
    fn serves(&self, environment: &Environment) -> bool {
        self.is_idle() && self.environment == *environment
    }

    /// The part that it has of each of its GPUs.
    fn part_of_each_gpu(&self) -> f64 {
        if self.gpus.is_empty() { 0.0 } else { self.held().num_gpus().min(1.0) }
    }

    /// Whether it was recalled, and holds a CPU until it is given back.
    fn comes_back(&self) -> bool {
        self.recalled && !self.blocked
    }

    /// Its part of the session's resources.
    fn held(&self) -> Resources {
        match (self.lessee, self.finishing) {
            _ if self.actor => Resources::clone(&self.demand),
            (Some(_), _) if !self.blocked => Resources::clone(&self.demand),
            (None, Some(_)) if self.spent && !self.keeps => Resources::default(),
            (Some(_), _) | (_, Some(_)) => self.demand.without_cpus(),
            (None, None) if self.keeps => self.demand.without_cpus(),
            (None, None) => Resources::default(),
        }
    }
}

struct Schedule {
    random: Random,
    pool: Pool<End>,
    /// The number of processes that are kept.
    kept: usize,
    total: Resources,
    /// The demands that calls may have. The first is the usual demand.
    demands: Vec<Demand>,
    now: Instant,
    token_last: u64,
    actor_last: u64,
    processes: BTreeMap<u64, Process>,
    /// How many workers each caller still wants for calls of which demand, and since when.
    wants: BTreeMap<(End, usize), (u32, Instant)>,
    /// Actors that wait for a process, and demand nothing.
    actors: usize,
    /// Actors that wait for a process and for resources: their numbers, and which demand.
    demanding: BTreeMap<u64, usize>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let Offer { kept, total, demands } = Offer::random(&mut random);
        Self {
            random,
            pool: Pool::new(kept, usize::MAX, total.clone()),
            kept,
            total,
            demands,
            now: Instant::now(),
            token_last: TOKENS,
            actor_last: 0,
            processes: BTreeMap::new(),
            wants: BTreeMap::new(),
            actors: 0,
            demanding: BTreeMap::new(),
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
                    if self.random.below(16) == 0 {
                        self.set_spent(token);
                    }
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
            12 => match self.random.below(8) {
                0 | 1 => self.actors += 1,
                2 => {
                    let which = self.random.below(self.demands.len());
                    self.actor_last += 1;
                    self.demanding.insert(self.actor_last, which);
                }
                3 => {
                    // One ends before it has begun.
                    self.demanding.pop_first();
                }
                _ => {}
            },
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
                let is_there = |process: &Process| process.registered && !process.actor && !process.exiting;
                if let Some(token) = token.filter(|token| is_there(&self.processes[token]))
                    && self.random.below(8) == 0
                {
                    self.set_spent(token);
                } else if let Some(token) = token.filter(|token| self.processes[token].registered)
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
        let which = self.random.below(self.demands.len());
        self.pool.want(&caller, self.demands[which].clone(), workers, self.now);
        let since = self.wants.remove(&(caller, which)).map_or(self.now, |(_, since)| since);
        if workers > 0 {
            self.wants.insert((caller, which), (workers, since));
        }
    }

    fn give_back(&mut self, token: u64, is_busy: bool) {
        let process = self.processes.get_mut(&token).expect("just found");
        let lessee = process.lessee.take().expect("it is leased");
        process.recalled = false;
        process.finishing = (is_busy || process.spent).then_some(self.now);
        self.pool.give_back(&lessee, End(token).peer(), is_busy, self.now);
    }

    /// A worker begins no more calls.
    fn set_spent(&mut self, token: u64) {
        let waits = self.random.below(2) == 0;
        self.pool.set_spent(End(token).peer(), waits, self.now);
        let process = self.processes.get_mut(&token).expect("just found");
        if process.spent {
            return;
        }
        (process.spent, process.keeps) = (true, !waits);
        if process.lessee.is_none() && process.finishing.is_none() {
            (process.demand, process.finishing) = (Demand::nothing(), Some(self.now));
        }
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
        self.wants.retain(|(caller, _), _| *caller != end);
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
            let Some((token, _)) = self.pool.idle_usual() else { break };
            let is_right = self.processes[&token].serves(&Environment::USUAL);
            assert!(is_right, "an actor got {:?}", self.processes[&token]);
            self.pool.place(token, 7, self.now);
            let process = self.processes.get_mut(&token).expect("it runs");
            (process.actor, process.demand) = (true, Demand::nothing());
            self.actors -= 1;
        }
        let demanding = self.demanding.iter().map(|(actor, which)| (*actor, &self.demands[*which]));
        self.pool.want_actors(demanding, self.now);
        for decision in self.pool.arrange(self.now) {
            self.carry_out(decision);
        }
        for process in self.pool.lacking(self.actors, self.now) {
            self.token_last += 1;
            self.pool.add(self.token_last, 1, process.clone(), self.now);
            let NewProcess { environment, gpus } = process;
            assert!(gpus.is_sorted_by(|a, b| a < b) && gpus.iter().all(|gpu| *gpu < self.total.gpu_count()));
            self.processes.insert(self.token_last, Process { environment, gpus, ..Process::default() });
        }
        for decision in self.pool.end_surplus(self.actors, self.now) {
            if let Decision::AskWhetherFree { worker, is_spent: true } = &decision {
                let process = self.processes.get_mut(&worker.0).expect("it runs");
                if process.is_idle() {
                    // It is not needed, and ends when it has no calls left.
                    (process.demand, process.finishing) = (Demand::nothing(), Some(self.now));
                    process.spent = true;
                }
            }
            self.carry_out(decision);
        }
    }

    fn carry_out(&mut self, decision: Decision<End>) {
        match decision {
            Decision::Grant { caller, demand, worker, .. } => {
                // Workers that have given up CPUs go first.
                let gave_up = |end: End| self.processes.get(&end.0).is_some_and(|process| process.blocked);
                let runs = |end: End| self.processes.get(&end.0).is_some_and(|other| other.lessee.is_some());
                let has_process =
                    |which: usize| self.processes.values().any(|process| self.can_serve(process, which));
                let is_first = |(end, which): &(End, usize)| {
                    has_process(*which)
                        && gave_up(*end)
                        && runs(*end)
                        && self.is_poor(*end, *which)
                        && self.fits(*which)
                };
                assert!(gave_up(caller) || !self.wants.keys().any(is_first), "{caller:?} was not next");
                let which = self.demands.iter().position(|other| *other == demand).expect("one of them");
                assert!(self.fits(which), "more is granted than there is");
                let want = (caller, which);
                let (wanted, since) = self.wants.get_mut(&want).expect("somebody who wants none got one");
                (*wanted, *since) = (*wanted - 1, self.now);
                self.wants.retain(|_, (workers, _)| *workers > 0);
                let process = self.processes.get_mut(&worker.epoch()).expect("it runs");
                assert!(process.serves(demand.environment()), "granted: {process:?}");
                assert_eq!(process.gpus.len(), demand.num_gpus().ceil() as usize);
                (process.lessee, process.demand) = (Some(caller), demand);
            }
            Decision::Recall { lessee, worker } if self.processes[&worker.epoch()].spent => {
                let process = self.processes.get_mut(&worker.epoch()).expect("it runs");
                assert!(process.lessee == Some(lessee) && !process.recalled, "{process:?}");
                process.recalled = true;
            }
            Decision::Recall { lessee, worker } => {
                let poor = self.wants.keys().any(|(caller, which)| self.is_poor(*caller, *which));
                assert!(poor || !self.demanding.is_empty(), "recalled for nobody");
                if self.is_uniform() {
                    let mut used = self.used();
                    let coming = self.processes.values().filter(|process| process.comes_back());
                    coming.for_each(|process| used.subtract(&process.demand));
                    let is_enough = self.demands[0].is_within(&self.total.less(&used));
                    // Where one is free already, a process is missing.
                    assert!(!is_enough || self.fits(0), "recalled although enough comes back");
                    let most =
                        self.processes.values().filter(|process| !process.blocked && !process.recalled);
                    let most = most.filter_map(|process| process.lessee).map(|lessee| self.leases_of(lessee));
                    let has = Some(self.leases_of(lessee));
                    assert_eq!(has, most.max(), "recalled from one who has less than others");
                }
                let process = self.processes.get_mut(&worker.epoch()).expect("it runs");
                assert_eq!(process.lessee, Some(lessee));
                process.recalled = true;
            }
            Decision::Place { actor, token } => {
                let which = self.demanding.remove(&actor).expect("it waits");
                assert!(self.fits(which), "an actor has more than there is");
                let demand = self.demands[which].clone();
                let process = self.processes.get_mut(&token).expect("it runs");
                assert!(process.serves(demand.environment()), "an actor got {process:?}");
                assert_eq!(process.gpus.len(), demand.num_gpus().ceil() as usize);
                (process.actor, process.demand) = (true, demand);
            }
            Decision::AskWhetherFree { worker, is_spent } => {
                let process = self.processes.get_mut(&worker.0).expect("it runs");
                assert!(process.finishing.is_some() && !process.asked, "asked for nothing: {process:?}");
                assert_eq!(process.spent, is_spent, "{process:?}");
                process.asked = true;
            }
            Decision::End { token } => {
                let process = self.processes.get_mut(&token).expect("it runs");
                let is_over = process.spent && process.lessee.is_none() && process.finishing.is_none();
                assert!(is_over, "ended, although it may have calls: {process:?}");
                process.exiting = true;
                self.pool.exit(token, self.now);
            }
        }
    }

    // ---- what must hold ----

    fn check(&self) {
        let used = self.used();
        assert_eq!(self.pool.free(), self.total.less(&used), "what is free");
        // One that has waited for long reserves what it demands.
        let is_long = |since: &Instant| self.now.duration_since(*since) >= Duration::from_millis(100);
        let waits = self.wants.values().any(|(_, since)| is_long(since)) || !self.demanding.is_empty();
        let reserves = !self.is_uniform() && waits;
        let starting = self.processes.values().filter(|process| !process.registered);
        let starting: Vec<_> = starting.map(|process| &process.environment).collect();
        for (_, which) in self.wants.keys() {
            let demand = &self.demands[*which];
            if reserves || !self.fits(*which) {
                continue;
            }
            let environment = demand.environment();
            let idle = self.processes.values().any(|process| self.can_serve(process, *which));
            assert!(!idle, "somebody waits, and a worker is idle");
            let is_finishing =
                |process: &Process| process.finishing.is_some() && process.environment == *environment;
            let finishing = self.processes.values().any(is_finishing);
            let comes = finishing || starting.contains(&environment);
            assert!(comes, "no process starts for a call that fits");
        }
        let idle = self.processes.values().any(|process| process.serves(&Environment::USUAL));
        assert!(!(idle && self.actors > 0), "an actor waits, and a worker is idle");
        assert!(used.without_cpus().is_within(&self.total), "more is taken than there is");
        for gpu in 0..self.total.gpu_count() {
            assert!(
                self.part_taken(gpu) <= 1.0,
                "GPU {gpu} is given out more than once: {:?}",
                self.processes
            );
        }
        let is_late = |since: Instant| self.now.duration_since(since) >= FREE_PATIENCE;
        let serving = self
            .processes
            .values()
            .filter(|process| !(process.blocked || process.broken || process.exiting || process.actor))
            .filter(|process| !process.spent)
            .filter(|process| !process.finishing.is_some_and(is_late) && process.environment.is_usual());
        assert!(serving.count() >= self.kept, "fewer workers than are kept");
        let usual = starting.iter().filter(|environment| environment.is_usual()).count();
        assert!(usual >= self.actors, "an actor waits for a process that nobody starts");
        if self.is_uniform() {
            let poor = self.wants.keys().any(|(caller, which)| self.is_poor(*caller, *which));
            let others = self.processes.values().any(|process| process.lessee.is_some() && !process.blocked);
            let comes =
                (!starting.is_empty() && self.fits(0)) || self.processes.values().any(Process::comes_back);
            assert!(!poor || comes || !others, "nothing is done for one who has none");
        }
        let waits = self.wants.keys().any(|(caller, which)| self.is_poor(*caller, *which));
        assert!(
            !waits || self.pool.timeout(self.now).is_some(),
            "nobody looks whether it has waited for long"
        );
        let ends = self.processes.values().any(|process| process.exiting || process.broken);
        assert!(!ends || self.pool.timeout(self.now).is_some(), "nobody looks whether it ends");
        let is_forgotten = |process: &Process| process.finishing.is_some() && !process.asked;
        assert!(!self.processes.values().any(is_forgotten), "nobody asks whether it is free");
    }

    fn is_uniform(&self) -> bool {
        self.demands.len() == 1
    }

    /// The resources that are taken, counted afresh.
    fn used(&self) -> Resources {
        let mut used = Resources::default();
        self.processes.values().for_each(|process| used.add(&process.held()));
        used
    }

    fn fits(&self, which: usize) -> bool {
        let demand = &self.demands[which];
        let has_room = |gpu: &usize| self.has_room(demand, *gpu);
        demand.fits(&self.total, [&self.used()])
            && (0..self.total.gpu_count()).filter(has_room).count() >= demand.num_gpus().ceil() as usize
    }

    /// Whether a process could begin a call of this demand.
    fn can_serve(&self, process: &Process, which: usize) -> bool {
        let demand = &self.demands[which];
        process.serves(demand.environment()) && process.gpus.iter().all(|gpu| self.has_room(demand, *gpu))
    }

    fn has_room(&self, demand: &Demand, gpu: usize) -> bool {
        self.part_taken(gpu) + demand.num_gpus().min(1.0) <= 1.0
    }

    /// The part of a GPU that is taken. All parts here are quarters, so the sum is exact.
    fn part_taken(&self, gpu: usize) -> f64 {
        let of_it = self.processes.values().filter(|process| process.gpus.contains(&gpu));
        of_it.map(Process::part_of_each_gpu).sum()
    }

    fn is_poor(&self, caller: End, which: usize) -> bool {
        let is_its =
            |process: &Process| process.lessee == Some(caller) && process.demand == self.demands[which];
        !self.processes.values().any(is_its)
    }

    fn leases_of(&self, caller: End) -> usize {
        self.processes.values().filter(|process| process.lessee == Some(caller)).count()
    }

    // ---- the end ----

    /// Everybody is served by and by, when calls end; and what is not needed is gone a little later.
    fn end(mut self) {
        let mut rounds = 0;
        while !self.wants.is_empty() || self.actors > 0 || !self.demanding.is_empty() {
            rounds += 1;
            let actors = (self.actors, &self.demanding);
            assert!(rounds < ROUNDS_MAX, "not served: {:?}, actors {actors:?}", self.wants);
            // Actors end, too.
            if let Some(token) = self.any_process(|process| process.actor && !process.held().is_nothing()) {
                self.die(token);
            }
            let starting = self.all(|process| !process.registered);
            starting.into_iter().for_each(|token| self.register(token));
            // A call ends, the innermost first: those that wait for others go on only when nobody else can.
            let running = self.all(|process| process.lessee.is_some() && !process.blocked);
            match running.last() {
                // Some are left busy, and never say that they are free. They hold nothing that others may need.
                Some(token) => {
                    let is_held = !self.processes[token].demand.without_cpus().is_nothing();
                    self.give_back(*token, token % 8 == 0 && !is_held);
                }
                None => self.all(|process| process.blocked).into_iter().for_each(|token| {
                    self.set_blocked(token, false);
                }),
            }
            for token in self.all(|process| process.asked && (process.spent || !process.held().is_nothing()))
            {
                self.set_free(token);
            }
            self.pass(Duration::from_millis(50));
            self.arrange();
            self.check();
        }
        for token in self.all(|process| process.actor) {
            self.die(token);
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
            self.all(|process| process.asked).into_iter().for_each(|token| self.set_free(token));
            self.arrange();
            self.check();
        }
        let ordinary: BTreeSet<u64> = self.all(|process| !process.actor).into_iter().collect();
        // Those of other environments have been idle for long.
        assert_eq!(ordinary.len(), self.kept, "{:?}", self.processes);
        assert_eq!(self.pool.free(), self.total, "not everything was given back");
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
