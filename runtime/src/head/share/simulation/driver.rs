//! A driver of the simulation: its head's side of the division, its pool, and its processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use super::super::Share;
use crate::demand::Demand;
use crate::head::pool::simulated::End;
use crate::head::pool::{Caller, Decision, Pool};
use crate::resources::Resources;
use crate::simulated::Random;

const CALLERS: usize = 2;
/// Tokens of processes begin behind it.
const TOKENS: u64 = 100;

/// A process of a driver.
#[derive(Default)]
struct Process {
    is_registered: bool,
    gpus: Vec<usize>,
    /// The caller to which it is leased, and the demand of its calls.
    lease: Option<(End, Demand)>,
    /// The demand of its actor.
    actor: Option<Demand>,
    /// Its call goes on without its caller, and has given its CPUs back.
    finishing: Option<Demand>,
    is_recalled: bool,
    is_asked: bool,
}

impl Process {
    /// The resources of the session that it has.
    fn held(&self) -> Resources {
        let demand = match (&self.lease, &self.actor, &self.finishing) {
            (Some((_, demand)), ..) | (_, Some(demand), _) => Resources::clone(demand),
            (.., Some(demand)) => demand.without_cpus(),
            _ => Resources::default(),
        };
        demand.on_gpus(&self.gpus).into_owned()
    }
}

pub(super) struct Driver {
    pub(super) share: Share,
    pool: Pool<End>,
    processes: BTreeMap<u64, Process>,
    token_last: u64,
    /// The number of workers that each caller wants for calls of each demand.
    wants: BTreeMap<(u64, usize), u32>,
    /// The actors that wait, and their demands.
    actors: BTreeMap<u64, usize>,
    actor_last: u64,
}

impl Driver {
    pub(super) fn new(kept: usize, total: Resources) -> Self {
        Self {
            share: Share::new(PathBuf::from("/nowhere")),
            pool: Pool::new(kept, usize::MAX, total),
            processes: BTreeMap::new(),
            token_last: TOKENS,
            wants: BTreeMap::new(),
            actors: BTreeMap::new(),
            actor_last: 0,
        }
    }

    // ---- its state ----

    pub(super) fn is_connected(&self) -> bool {
        self.share.descriptor().is_some()
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = u64> {
        self.share.leases.keys().copied()
    }

    /// The resources for which it has leases.
    pub(super) fn leased(&self) -> Resources {
        let mut leased = Resources::default();
        self.share.leases.values().for_each(|held| leased.add(&held.lease.resources()));
        leased
    }

    /// The resources that its processes have.
    pub(super) fn used(&self) -> Resources {
        let mut used = Resources::default();
        self.processes.values().for_each(|process| used.add(&process.held()));
        used
    }

    pub(super) fn waits(&self) -> bool {
        !self.wants.is_empty() || !self.actors.is_empty()
    }

    /// The demands that are not served.
    pub(super) fn waiting(&self, demands: &[Demand]) -> Vec<String> {
        let wanted = self.wants.keys().map(|(_, which)| which).chain(self.actors.values());
        wanted.map(|which| demands[*which].to_string()).collect()
    }

    // ---- what its callers and processes do ----

    /// A caller wants workers, or does not any more.
    pub(super) fn want(&mut self, random: &mut Random, demands: &[Demand], now: Instant) {
        let (caller, which) = (random.below(CALLERS) as u64, random.below(demands.len()));
        let workers = random.below(5) as u32;
        self.set_want(caller, which, &demands[which], workers, now);
    }

    /// A caller wants many workers of the usual demand.
    pub(super) fn want_all(&mut self, now: Instant) {
        self.set_want(0, 0, &Demand::default(), 50, now);
    }

    fn set_want(&mut self, caller: u64, which: usize, demand: &Demand, workers: u32, now: Instant) {
        self.pool.want(&End(caller), demand.clone(), workers, now);
        self.wants.remove(&(caller, which));
        if workers > 0 {
            self.wants.insert((caller, which), workers);
        }
    }

    pub(super) fn add_actor(&mut self, which: usize) {
        self.actor_last += 1;
        self.actors.insert(self.actor_last, which);
    }

    pub(super) fn register_one(&mut self, random: &mut Random, now: Instant) {
        let starting = self.chosen(|process| !process.is_registered);
        if let Some(token) = random.any(&starting) {
            self.register(token, now);
        }
    }

    fn register(&mut self, token: u64, now: Instant) {
        self.pool.register(token, &End(token), now);
        self.process(token).is_registered = true;
    }

    /// A call of a worker ends, and its caller keeps the worker for the next one or gives it back.
    pub(super) fn go_on(&mut self, random: &mut Random, now: Instant) {
        let asked = self.chosen(|process| process.is_asked);
        if let Some(token) = random.any(&asked) {
            return self.set_free(token, now);
        }
        let leased = self.chosen(|process| process.lease.is_some());
        if let Some(token) = random.any(&leased)
            && (self.process(token).is_recalled || random.below(3) == 0)
        {
            let is_busy = random.below(8) == 0;
            self.give_back(token, is_busy, now);
        }
    }

    fn give_back(&mut self, token: u64, is_busy: bool, now: Instant) {
        let process = self.process(token);
        let (caller, demand) = process.lease.take().expect("it is leased");
        process.is_recalled = false;
        process.finishing = is_busy.then_some(demand);
        self.pool.give_back(&caller, End(token).peer(), is_busy, now);
    }

    fn set_free(&mut self, token: u64, now: Instant) {
        let process = self.process(token);
        (process.is_asked, process.finishing) = (false, None);
        self.pool.set_free(End(token).peer(), now);
    }

    /// A process dies: mostly one with an actor.
    pub(super) fn end_one(&mut self, random: &mut Random) {
        let is_any = random.below(4) == 0;
        let chosen = self.chosen(|process| is_any || process.actor.is_some());
        if let Some(token) = random.any(&chosen) {
            self.remove(token);
        }
    }

    fn remove(&mut self, token: u64) {
        self.processes.remove(&token);
        assert!(self.pool.remove(token).is_some(), "the pool has lost {token}");
    }

    // ---- the end of a schedule ----

    pub(super) fn end_one_actor(&mut self) {
        if let Some(token) = self.chosen(|process| process.actor.is_some()).first().copied() {
            self.remove(token);
        }
    }

    /// All actors end, also those that wait.
    pub(super) fn end_actors(&mut self) {
        self.actors.clear();
        self.chosen(|process| process.actor.is_some()).into_iter().for_each(|token| self.remove(token));
    }

    /// Processes start and are free as they should, and calls that are recalled end, and one that is not.
    pub(super) fn finish_some(&mut self, random: &mut Random, now: Instant) {
        self.chosen(|process| !process.is_registered).into_iter().for_each(|token| self.register(token, now));
        self.chosen(|process| process.is_asked).into_iter().for_each(|token| self.set_free(token, now));
        let leased = self.chosen(|process| process.lease.is_some());
        let one = random.any(&leased);
        for token in leased {
            if self.process(token).is_recalled || Some(token) == one {
                self.give_back(token, false, now);
            }
        }
    }

    /// All calls end, and nothing is wanted.
    pub(super) fn finish_all(&mut self, now: Instant) {
        assert!(self.wants.is_empty(), "the driver was served");
        self.chosen(|process| !process.is_registered).into_iter().for_each(|token| self.register(token, now));
        self.chosen(|process| process.is_asked).into_iter().for_each(|token| self.set_free(token, now));
        let leased = self.chosen(|process| process.lease.is_some());
        leased.into_iter().for_each(|token| self.give_back(token, false, now));
    }

    // ---- its head ----

    /// Decides as the head does.
    pub(super) fn arrange(&mut self, demands: &[Demand], now: Instant) {
        self.pool.want_actors(self.actors.iter().map(|(actor, which)| (*actor, &demands[*which])), now);
        let recalls = self.share.before(&mut self.pool, now);
        for decision in recalls.into_iter().chain(self.pool.arrange(now)) {
            self.carry_out(decision, demands);
        }
        self.share.after(&mut self.pool, now);
        for process in self.pool.lacking(0, now) {
            self.token_last += 1;
            let gpus = process.gpus.clone();
            self.pool.add(self.token_last, 1, process, now);
            self.processes.insert(self.token_last, Process { gpus, ..Process::default() });
        }
        for decision in self.pool.end_surplus(0, now) {
            self.carry_out(decision, demands);
        }
        for token in self.pool.kill_late(now) {
            self.remove(token);
        }
    }

    fn carry_out(&mut self, decision: Decision<End>, demands: &[Demand]) {
        match decision {
            Decision::Grant { caller, demand, worker, .. } => {
                let which = demands.iter().position(|other| *other == demand).expect("one of them");
                let left = self.wants.get_mut(&(caller.0, which)).expect("it is wanted");
                *left -= 1;
                if *left == 0 {
                    self.wants.remove(&(caller.0, which));
                }
                self.process(worker.epoch()).lease = Some((caller, demand));
            }
            Decision::Place { actor, token } => {
                let which = self.actors.remove(&actor).expect("it waits");
                self.process(token).actor = Some(demands[which].clone());
            }
            Decision::Recall { worker, .. } => self.process(worker.epoch()).is_recalled = true,
            Decision::AskWhetherFree { worker, .. } => self.process(worker.0).is_asked = true,
            Decision::End { token } => self.remove(token),
        }
    }

    fn process(&mut self, token: u64) -> &mut Process {
        self.processes.get_mut(&token).expect("it is there")
    }

    fn chosen(&self, is_chosen: impl Fn(&Process) -> bool) -> Vec<u64> {
        self.processes.iter().filter(|(_, process)| is_chosen(process)).map(|(token, _)| *token).collect()
    }
}
