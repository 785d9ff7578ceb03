//! The state of the pool, for observers.

use std::time::Instant;

use super::wants::Requester;
use super::{Caller, Job, Pool, Worker};
use crate::demand::Demand;
use crate::resources::Resources;

impl<C: Caller> Pool<C> {
    /// The resources of the session.
    pub(in crate::head) fn total(&self) -> Resources {
        self.ledger.total().clone().of_session()
    }

    /// The resources that the processes of this driver have.
    pub(in crate::head) fn used(&self) -> Resources {
        self.ledger.used()
    }

    /// All processes.
    pub(in crate::head) fn all(&self) -> impl Iterator<Item = &Worker<C>> {
        self.workers.all().map(|(_, worker)| worker)
    }

    /// The demands that are not met: the caller (`None`: an actor), the demand, the number of workers, and since when.
    pub(in crate::head) fn waiting_demands(
        &self,
    ) -> impl Iterator<Item = (Option<&C>, &Demand, u32, Instant)> {
        self.wants.iter().map(|want| {
            let caller = match &want.requester {
                Requester::Caller(caller) => Some(caller),
                Requester::Actor(_) | Requester::Group(_) => None,
            };
            (caller, &want.demand, want.workers, want.since)
        })
    }
}

impl<C> Worker<C> {
    /// Whether its call waits for results of other calls.
    pub(in crate::head) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The caller to which it is leased.
    pub(in crate::head) fn leased_to(&self) -> Option<&C> {
        self.lessee.as_ref()
    }

    /// When it was leased, or became an actor's; `None`: it is neither.
    pub(in crate::head) fn given(&self) -> Option<Instant> {
        self.given
            .filter(|_| matches!(self.job, Job::Leased { .. } | Job::Finishing { .. } | Job::Actor { .. }))
    }

    /// The resources that it holds.
    pub(in crate::head) fn holds(&self) -> Resources {
        self.held.clone().of_session()
    }
}
