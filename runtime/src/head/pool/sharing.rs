//! Pools that share resources. A pool that has a share hands out the resources that it has, says which it lacks, and
//! gives back resources that other pools need more. One pool divides the resources among the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::wants::{Requester, Want};
use super::{Caller, Decision, Job, Lack, Pool};
use crate::demand::Demand;
use crate::resources::Resources;

impl<C: Caller> Pool<C> {
    /// Sets the resources that are here. Other drivers may have the others.
    pub(in crate::head) fn set_here(&mut self, here: &Resources) {
        self.ledger.set_here(here);
    }

    /// The demands that do not fit into the free resources, and the number of each, at most `max`. While a want
    /// reserves, those are left out that could not have the resources even if these came.
    pub(in crate::head) fn lacked(&self, max: u32, now: Instant) -> HashMap<Resources, u32> {
        let (mut free, mut lacked) = (self.ledger.free_with_gpus(), HashMap::new());
        let reserved = self.reserving(now).and_then(|position| self.wants.iter().nth(position));
        let may_go = |want: &Want<C>| match reserved {
            Some(reserved) if std::ptr::eq(reserved, want) => true,
            Some(_) if self.is_running(want) && self.is_poor(want) => true,
            Some(reserved) => !want.demand.overlaps(&reserved.demand),
            None => true,
        };
        // The resources of a placement group belong to this driver already.
        for want in self.wants.iter().filter(|want| want.demand.group().is_none() && may_go(want)) {
            for _ in 0..want.workers.min(max) {
                let taken = want.demand.on_gpus(&self.ledger.best_gpus(&want.demand, &free)).into_owned();
                if taken.is_within(&free) {
                    free.subtract(&taken);
                } else {
                    *lacked.entry(Resources::clone(&want.demand)).or_insert(0) += 1;
                }
            }
        }
        lacked
    }

    /// Whether a caller or an actor waits for a process alone: it may have the resources that it demands.
    pub(in crate::head) fn awaits_process(&self, now: Instant) -> bool {
        self.next_want(|want| !want.is_group(), now).is_some()
    }

    /// The resources that actors and placement groups have.
    pub(in crate::head) fn of_actors(&self) -> Resources {
        let mut of_actors = Resources::default();
        let actors = self.workers.all().filter(|(_, worker)| matches!(worker.job, Job::Actor { .. }));
        actors.for_each(|(_, worker)| of_actors.add(&worker.held));
        self.groups.held().for_each(|held| of_actors.add(held));
        of_actors
    }

    /// The time until a want begins or ends to reserve.
    pub(in crate::head) fn wants_change_in(&self, now: Instant) -> Option<Duration> {
        self.wants.iter().filter(|want| self.is_poor(want)).map(|want| want.changes_in(now)).min()
    }

    /// Recalls workers until the `owed` resources are free or about to be free.
    pub(in crate::head) fn recall_for(&mut self, owed: &Resources) -> Vec<Decision<C>> {
        let mut decisions = Vec::new();
        loop {
            let lack = self.ledger.lack(owed, &self.comes_back());
            let recall =
                if lack.is_nothing() { None } else { self.recall_from_richest(|held| held.overlaps(&lack)) };
            match recall {
                Some(recall) => decisions.push(recall),
                None => return decisions,
            }
        }
    }

    /// Recalls a worker from the caller that has most of them, for one that wants more and has at least two fewer.
    pub(in crate::head) fn level(&mut self, now: Instant) -> Option<Decision<C>> {
        let leased =
            |caller: &C| self.workers.leased_to(caller).filter(|(_, worker)| !worker.is_recalled()).count();
        let (poorest, demand) = self
            .wants
            .iter()
            .filter_map(|want| match &want.requester {
                Requester::Caller(caller) => Some((leased(caller), &want.demand)),
                Requester::Actor(_) | Requester::Group(_) => None,
            })
            .min_by_key(|(count, _)| *count)?;
        let demand = demand.clone();
        let Lack::Resources { lack, .. } = self.lack(&demand, now) else { return None };
        let recallable =
            self.workers.active().filter(|(_, worker)| worker.is_recallable() && worker.held.overlaps(&lack));
        let richest =
            recallable.filter_map(|(token, worker)| Some((leased(worker.lessee.as_ref()?), token))).max()?;
        if richest.0 >= poorest + 2 { self.recall_worker(richest.1) } else { None }
    }

    /// Leases a process to a caller that has had it all the time.
    pub(in crate::head) fn lease(&mut self, token: u64, caller: &C, demand: Demand, now: Instant) {
        self.change(token, |worker| {
            worker.demand = demand;
            worker.given = Some(now);
            worker.job = Job::Leased { recalled: false };
            worker.lessee = Some(caller.clone());
        });
    }

    /// The caller of a worker keeps it for as long as it likes, as an actor does.
    pub(in crate::head) fn set_kept(&mut self, token: u64) {
        self.change(token, |worker| worker.job = Job::Actor { actor: token });
    }

    /// Removes what is leased to nobody.
    pub(in crate::head) fn remove_idle(&mut self) {
        let idle = self.workers.active().filter(|(_, worker)| worker.is_idle()).map(|(token, _)| token);
        for token in idle.collect::<Vec<_>>() {
            self.remove(token);
        }
    }

    /// The GPUs of a process.
    pub(in crate::head) fn gpus(&self, token: u64) -> Vec<usize> {
        self.workers.get(token).map(|worker| worker.gpus.clone()).unwrap_or_default()
    }
}
