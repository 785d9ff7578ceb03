//! Placement groups: resources that are taken together, in bundles, and kept until the group is removed.
//!
//! ```text
//! Waiting ──► Placed ──► Removed ──► forgotten, when no process holds a resource of it
//! ```
//!
//! A group waits among the [wants](super::wants) like an actor that demands the sum of the bundles. So it is served in
//! its turn, and can reserve. When it has the sum, the [ledger](super::ledger) gets more resources: those of the group,
//! with names of their own. Calls and actors in the group demand these, and are served like all others.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use super::wants::Requester;
use super::{Caller, Job, Pool};
use crate::demand::Demand;
use crate::resources::Resources;

/// The groups; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<u64, Group>);

#[derive(Debug)]
struct Group {
    demand: Resources,
    /// The resources that it offers to calls and actors.
    offer: Resources,
    /// With single GPUs.
    held: Resources,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Placed,
    Removed,
}

impl Groups {
    /// The part of the session's resources that each group has taken.
    pub(super) fn held(&self) -> impl Iterator<Item = &Resources> {
        self.0.values().map(|group| &group.held)
    }
}

/// The processes and callers of a group that is removed.
pub(in crate::head) struct Evicted<C> {
    /// The processes whose calls or actors hold resources of it, each with its actor.
    pub(in crate::head) processes: Vec<(u64, Option<u64>)>,
    /// The callers that wanted workers in it.
    pub(in crate::head) callers: Vec<(C, Demand)>,
}

impl<C: Caller> Pool<C> {
    /// A group with these bundles is wanted.
    pub(in crate::head) fn add_group(&mut self, group: u64, bundles: &[Resources], now: Instant) {
        let mut demand = Resources::default();
        bundles.iter().for_each(|bundle| demand.add(bundle));
        let (offer, held) = (Resources::of_group(group, bundles), Resources::default());
        self.wants.add_group(group, Demand::of(demand.clone()), now);
        self.groups.0.insert(group, Group { demand, offer, held, stage: Stage::Waiting });
    }

    /// Whether a group has its resources; `None`: there is no such group, or not any more.
    pub(in crate::head) fn is_group_placed(&self, group: u64) -> Option<bool> {
        let group = self.groups.0.get(&group).filter(|group| group.stage != Stage::Removed)?;
        Some(group.stage == Stage::Placed)
    }

    /// The group has its resources.
    pub(super) fn place_group(&mut self, group: u64) {
        let Some(group) = self.groups.0.get_mut(&group) else { return };
        group.stage = Stage::Placed;
        self.ledger.replace(&mut group.held, group.demand.clone());
        self.ledger.add_group(&group.offer);
    }

    /// Removes a group. Its resources are free when the processes in it have ended.
    pub(in crate::head) fn remove_group(&mut self, number: u64) -> Evicted<C> {
        let mut evicted = Evicted { processes: Vec::new(), callers: Vec::new() };
        let Some(group) = self.groups.0.get_mut(&number).filter(|group| group.stage != Stage::Removed) else {
            return evicted;
        };
        group.stage = Stage::Removed;
        for want in self.wants.remove_group(number) {
            if let Requester::Caller(caller) = want.requester {
                evicted.callers.push((caller, want.demand));
            }
        }
        for (token, worker) in self.workers.all() {
            if worker.held.group() == Some(number)
                || worker.demand.group() == Some(number) && !worker.is_idle()
            {
                let actor = match worker.job {
                    Job::Actor { actor } => Some(actor),
                    _ => None,
                };
                evicted.processes.push((token, actor));
            }
        }
        self.settle_groups();
        evicted
    }

    /// Gives back the resources of the removed groups in which nothing runs any more.
    pub(super) fn settle_groups(&mut self) {
        if !self.groups.0.values().any(|group| group.stage == Stage::Removed) {
            return;
        }
        let in_use: HashSet<u64> = self.workers.all().filter_map(|(_, worker)| worker.held.group()).collect();
        let ledger = &mut self.ledger;
        let is_over =
            |number: &u64, group: &mut Group| group.stage == Stage::Removed && !in_use.contains(number);
        for (_, mut group) in self.groups.0.extract_if(.., is_over) {
            if !group.held.is_nothing() {
                ledger.remove_group(&group.offer);
            }
            ledger.replace(&mut group.held, Resources::default());
        }
    }
}
