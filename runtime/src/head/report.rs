//! The head's answer to an observer.

use std::time::Instant;

use super::pool::{Caller, Job};
use super::state::State;
use crate::resources::Resources;
use crate::wire::{HeadState, ProcessRecord, WantRecord};

impl State {
    /// The state of the head, as a record.
    pub(super) fn report(&self, now: Instant) -> HeadState {
        let amounts = |resources: &Resources| {
            resources.iter().map(|(name, amount)| (name.to_owned(), amount)).collect()
        };
        let processes = self.pool.all().map(|worker| ProcessRecord {
            pid: worker.pid,
            owner: worker.link.as_ref().map(|link| link.peer().bits()),
            job: job(&worker.job, worker.is_blocked()).to_owned(),
            actor: match worker.job {
                Job::Actor { actor } => Some(actor),
                _ => None,
            },
            holds: worker.holds().to_string(),
            lessee: worker.leased_to().map(|caller| caller.peer().bits()),
            given_nanos: worker.given().map(|given| now.saturating_duration_since(given).as_nanos() as u64),
            waits: worker.link.as_ref().and_then(|link| self.deadlocks.told(link.peer())),
        });
        let wants = self.pool.waiting_demands().map(|(caller, demand, workers, since)| WantRecord {
            caller: caller.map(|caller| caller.peer().bits()),
            demand: demand.to_string(),
            amounts: amounts(demand),
            workers,
            waited_nanos: now.saturating_duration_since(since).as_nanos() as u64,
        });
        HeadState {
            resources: amounts(&self.pool.total()),
            used: amounts(&self.pool.used()),
            processes: processes.collect(),
            wants: wants.collect(),
            actors: self.actors.report(),
            actor_processes: self.actors.former().cloned().collect(),
        }
    }
}

fn job(job: &Job, is_blocked: bool) -> &'static str {
    match job {
        Job::Starting { .. } => "starting",
        Job::Idle { .. } => "idle",
        Job::Leased { .. } if is_blocked => "blocked",
        Job::Leased { .. } => "leased",
        Job::Finishing { .. } => "finishing",
        Job::Actor { .. } => "actor",
        Job::Exiting { .. } => "exiting",
    }
}
