//! Placement groups in the head: it makes and removes them, and ends the calls and actors of a removed group.

use std::sync::Arc;
use std::time::Instant;

use super::State;
use crate::error::{ActorEnd, Failure};
use crate::head::pool::Evicted;
use crate::mail::link::Link;
use crate::resources::Resources;
use crate::wire::{FromHead, NewGroup};

impl State {
    pub(super) fn make_group(&mut self, from: &Arc<Link>, request: u64, group: NewGroup) {
        let bundles = group.bundles.clone();
        let creator = self.pool.actor_at(from.peer);
        let result = self.groups.make(group, creator);
        if let Ok(group) = &result {
            self.pool.add_group(*group, &bundles, Instant::now());
        }
        let _ = from.send(&FromHead::GroupMade { request, result }, Vec::new());
    }

    /// Gives the resources of a group back, and ends its calls and actors.
    pub(super) fn remove_group(&mut self, group: u64) {
        if !self.groups.remove(group) {
            return;
        }
        let Evicted { processes, callers } = self.pool.remove_group(group);
        for (caller, demand) in callers {
            let failure = Failure::PlacementGroupRemoved;
            let _ = caller.send(&FromHead::NoWorkers { demand, failure }, Vec::new());
        }
        for (token, actor) in processes {
            self.evicted.insert(token);
            match actor {
                Some(actor) => {
                    let failure = self.actors.died(actor, ActorEnd::PlacementGroupRemoved);
                    self.actor_processes().end(actor, failure);
                }
                None => self.processes.kill(token),
            }
        }
        self.end_actors_without_group();
    }

    pub(super) fn is_in_removed_group(&self, demand: &Resources) -> bool {
        demand.group().is_some_and(|group| self.pool.is_group_placed(group).is_none())
    }

    /// Ends the actors that wait for a process in a group that is removed.
    pub(super) fn end_actors_without_group(&mut self) {
        let lost = self.actors.demanding().filter(|(_, demand)| self.is_in_removed_group(demand));
        for actor in lost.map(|(actor, _)| actor).collect::<Vec<_>>() {
            self.actors.over(actor, 0, self.actors.died(actor, ActorEnd::PlacementGroupRemoved));
        }
    }

    /// Answers the processes that wait for groups, and removes the groups of actors that have ended.
    pub(in crate::head) fn look_after_groups(&mut self) {
        for group in self.groups.without_actor(|actor| self.actors.is_living(actor)) {
            self.remove_group(group);
        }
        let pool = &self.pool;
        self.groups.settle(|group| pool.is_group_placed(group));
    }
}
