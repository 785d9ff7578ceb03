//! The pool with simulated callers and workers. A seed decides what they ask for, and when they die.
//!
//! A schedule is the life of one session. Processes are started and register, late or never; callers want workers, use
//! them, and give them back, by themselves or when they are asked to; workers call others and wait for them; any
//! process dies at any time. After each step the pool must agree with a simple [model], and at the end every caller
//! gets its workers.
//!
//! In half of the schedules all calls demand one CPU, and the model predicts each decision exactly. In the others,
//! their demands are random. Then the test checks:
//!
//! - no more is granted than there is, and no GPU is given out above 1;
//! - a demand that fits and may be served is served;
//! - each caller is served eventually, however much it demands;
//! - everything is given back.
//!
//! These schedules also make and remove placement groups: each group gets all that it demands
//! or nothing, and its calls and actors take their resources from it.
//!
//! [Seeds](crate::simulated) are those of all simulations.

use std::collections::{BTreeMap, BTreeSet};

use self::model::{Group, Process};
use super::simulated::{End, Offer};
use super::*;
use crate::resources::Amounts;
use crate::simulated::{Random, for_each_seed};

mod decisions;
mod model;

/// Steps of a schedule, before everything ends.
const STEPS: u64 = 300;
/// The most rounds until every caller that waits must have been served.
const ROUNDS_MAX: u32 = 500;

#[test]
fn every_schedule_gives_workers_to_those_who_want_them() {
    for_each_seed("pool::simulation", |seed| Schedule::new(seed).run());
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

const DRIVERS: u64 = 3;
/// Tokens begin behind it.
const TOKENS: u64 = 100;

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
    /// The number of workers that each caller still wants for calls of each demand, and since when.
    wants: BTreeMap<(End, usize), (u32, Instant)>,
    /// Actors that wait for a process, and demand nothing.
    actors: usize,
    /// Actors that wait for a process and for resources: their numbers, and which demand.
    demanding: BTreeMap<u64, usize>,
    /// The placement groups, in schedules whose demands are random.
    groups: BTreeMap<u64, Group>,
    group_last: u64,
    /// The demands within groups that are removed.
    gone: BTreeSet<usize>,
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
            groups: BTreeMap::new(),
            group_last: 0,
            gone: BTreeSet::new(),
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
                    let which = self.any_demand();
                    self.actor_last += 1;
                    self.demanding.insert(self.actor_last, which);
                }
                4 if !self.is_uniform() => self.add_group(),
                5 => {
                    if let Some(group) = self.groups.keys().next().copied() {
                        self.remove_group(group);
                    }
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
        let which = self.any_demand();
        self.pool.want(&caller, self.demands[which].clone(), workers, self.now);
        let since = self.wants.remove(&(caller, which)).map_or(self.now, |(_, since)| since);
        if workers > 0 {
            self.wants.insert((caller, which), (workers, since));
        }
    }

    /// A placement group of one bundle, or of two.
    fn add_group(&mut self) {
        let without_gpus = |demand: &&Demand| demand.gpu_count() == 0 && !demand.is_nothing();
        let bundles: Vec<Resources> = self
            .demands
            .iter()
            .filter(without_gpus)
            .filter(|demand| demand.group().is_none())
            .map(|demand| Resources::clone(demand))
            .take(1 + self.random.below(2))
            .collect();
        let mut held = Resources::default();
        bundles.iter().for_each(|bundle| held.add(bundle));
        if held.is_within(&self.total) {
            self.group_last += 1;
            self.pool.add_group(self.group_last, &bundles, self.now);
            self.groups.insert(self.group_last, Group { bundles, held, is_placed: false });
        }
    }

    /// A group is removed. Its calls and actors are killed.
    fn remove_group(&mut self, number: u64) {
        self.groups.remove(&number);
        let is_of_it = |demand: &Demand| demand.group() == Some(number);
        let of_it = self.demands.iter().enumerate().filter(|(_, demand)| is_of_it(demand));
        self.gone.extend(of_it.map(|(which, _)| which));
        self.wants.retain(|(_, which), _| !self.gone.contains(which));
        self.demanding.retain(|_, which| !self.gone.contains(which));
        for (token, actor) in self.pool.remove_group(number).processes {
            assert_eq!(actor.is_some(), self.processes[&token].actor);
            assert!(is_of_it(&self.processes[&token].demand), "it is not in the group");
            self.die(token);
        }
        assert_eq!(self.pool.is_group_placed(number), None);
    }

    /// Notes the groups that have their resources: from now on, calls and actors may be in them.
    fn note_placed(&mut self) {
        for (number, group) in &mut self.groups {
            if !group.is_placed && self.pool.is_group_placed(*number) == Some(true) {
                group.is_placed = true;
                for (bundle, resources) in group.bundles.iter().enumerate() {
                    let bundle = Some(bundle).filter(|_| self.random.below(3) > 0);
                    let demand = Demand::of(resources.within_group(*number, bundle));
                    if !self.demands.contains(&demand) {
                        self.demands.push(demand);
                    }
                }
            }
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

    /// Time passes. Processes that take too long to end are killed.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for token in self.pool.kill_late(self.now) {
            let process = &self.processes[&token];
            assert!(process.exiting || process.broken, "{token} was killed: {process:?}");
            self.die(token);
        }
    }

    // ---- the end ----

    /// When calls end, every caller is served eventually. Processes that are not needed are gone a little later.
    fn end(mut self) {
        let mut rounds = 0;
        while !self.wants.is_empty()
            || self.actors > 0
            || !self.demanding.is_empty()
            || !self.groups.is_empty()
        {
            rounds += 1;
            // Groups get their resources one after the other, and are removed.
            let placed = self.groups.iter().find(|(_, group)| group.is_placed);
            if let Some(group) = placed.map(|(number, _)| *number) {
                self.remove_group(group);
            }
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

    /// A random demand of calls and actors.
    fn any_demand(&mut self) -> usize {
        let which = self.random.below(self.demands.len());
        if self.gone.contains(&which) { 0 } else { which }
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
