//! The simulation's model of the workers, and of the session's resources.

use super::super::*;
use super::Schedule;
use crate::head::pool::simulated::End;

/// A worker, as the model knows it.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) environment: Environment,
    pub(super) gpus: Vec<usize>,
    pub(super) registered: bool,
    pub(super) lessee: Option<End>,
    /// The demand of its calls, while it may run any.
    pub(super) demand: Demand,
    pub(super) recalled: bool,
    pub(super) blocked: bool,
    pub(super) broken: bool,
    pub(super) exiting: bool,
    /// It begins no more calls.
    pub(super) spent: bool,
    /// It is spent, and keeps its resources other than CPUs until it has ended.
    pub(super) keeps: bool,
    pub(super) actor: bool,
    /// It may still run a call of an earlier caller, and has been asked whether it does.
    pub(super) finishing: Option<Instant>,
    pub(super) asked: bool,
}

/// A placement group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) bundles: Vec<Resources>,
    pub(super) held: Resources,
    pub(super) is_placed: bool,
}

impl Process {
    pub(super) fn is_idle(&self) -> bool {
        let Self { registered, lessee, blocked, broken, exiting, spent, actor, finishing, .. } = self;
        let is_busy = *blocked || *broken || *exiting || *spent || *actor || finishing.is_some();
        *registered && lessee.is_none() && !is_busy
    }

    /// Whether it could begin a call of this environment.
    pub(super) fn serves(&self, environment: &Environment) -> bool {
        self.is_idle() && self.environment == *environment
    }

    /// The part that it has of each of its GPUs.
    pub(super) fn part_of_each_gpu(&self) -> f64 {
        if self.gpus.is_empty() { 0.0 } else { self.held().num_gpus().min(1.0) }
    }

    /// Whether it was recalled, and holds a CPU until it is given back.
    pub(super) fn comes_back(&self) -> bool {
        self.recalled && !self.blocked
    }

    /// Its part of the session's resources.
    pub(super) fn held(&self) -> Resources {
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

impl Schedule {
    pub(super) fn is_uniform(&self) -> bool {
        self.demands.len() == 1
    }

    /// All resources, with those that groups offer to calls and actors.
    pub(super) fn offered(&self) -> Resources {
        let mut offered = self.total.clone();
        for (number, group) in self.groups.iter().filter(|(_, group)| group.is_placed) {
            offered.add(&Resources::of_group(*number, &group.bundles));
        }
        offered
    }

    /// The resources that are taken, counted afresh.
    pub(super) fn used(&self) -> Resources {
        let mut used = Resources::default();
        self.processes.values().for_each(|process| used.add(&process.held()));
        let placed = self.groups.values().filter(|group| group.is_placed);
        placed.for_each(|group| used.add(&group.held));
        used
    }

    pub(super) fn fits(&self, which: usize) -> bool {
        let demand = &self.demands[which];
        let has_room = |gpu: &usize| self.has_room(demand, *gpu);
        demand.fits(&self.offered(), [&self.used()])
            && (0..self.total.gpu_count()).filter(has_room).count() >= demand.num_gpus().ceil() as usize
    }

    /// Whether a process other than the caller's could begin a call of this demand.
    pub(super) fn can_any_serve(&self, caller: End, which: usize) -> bool {
        let demand = &self.demands[which];
        let has_room = |process: &Process| process.gpus.iter().all(|gpu| self.has_room(demand, *gpu));
        let mut others = self.processes.iter().filter(|(token, _)| **token != caller.0);
        others.any(|(_, process)| process.serves(demand.environment()) && has_room(process))
    }

    pub(super) fn has_room(&self, demand: &Demand, gpu: usize) -> bool {
        self.part_taken(gpu) + demand.num_gpus().min(1.0) <= 1.0
    }

    /// The part of a GPU that is taken. All parts here are quarters, so the sum is exact.
    pub(super) fn part_taken(&self, gpu: usize) -> f64 {
        let of_it = self.processes.values().filter(|process| process.gpus.contains(&gpu));
        of_it.map(Process::part_of_each_gpu).sum()
    }

    pub(super) fn is_poor(&self, caller: End, which: usize) -> bool {
        let is_its =
            |process: &Process| process.lessee == Some(caller) && process.demand == self.demands[which];
        !self.processes.values().any(is_its)
    }

    pub(super) fn leases_of(&self, caller: End) -> usize {
        self.processes.values().filter(|process| process.lessee == Some(caller)).count()
    }
}
