//! The placement groups of a driver: their names, their states, and the processes that wait for them. The
//! [pool](super::pool) has their resources.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Failure;
use crate::mail::link::{Link, TooLarge};
use crate::resources::GroupState;
use crate::wire::{FromHead, GroupRecord, NewGroup};

/// The most removed groups that are remembered.
const REMOVED_MAX: usize = 100;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Groups {
    all: BTreeMap<u64, Group>,
    /// Heads number their groups differently.
    number_last: u64,
    awaited: Vec<Awaited>,
}

struct Group {
    made: NewGroup,
    state: GroupState,
    /// The actor with which it ends.
    creator: Option<u64>,
}

struct Awaited {
    by: Arc<Link>,
    request: u64,
    group: u64,
}

impl Groups {
    /// The groups of a head that shares its session with others. `number` is the one before the first group.
    pub(super) fn shared(number: u64) -> Self {
        Self { number_last: number, ..Self::default() }
    }

    /// Adds a group. Returns its number.
    pub(super) fn make(&mut self, made: NewGroup, creator: Option<u64>) -> Result<u64, Failure> {
        let is_taken = |group: &Group| {
            group.state != GroupState::Removed
                && group.made.name == made.name
                && group.made.namespace == made.namespace
        };
        if !made.name.is_empty() && self.all.values().any(is_taken) {
            return Err(Failure::NameTaken { name: made.name });
        }
        self.number_last += 1;
        let creator = creator.filter(|_| !made.is_detached);
        self.all.insert(self.number_last, Group { made, state: GroupState::Pending, creator });
        Ok(self.number_last)
    }

    /// A group is removed. Returns `false` if there is none.
    pub(super) fn remove(&mut self, group: u64) -> bool {
        let Some(removed) = self.all.get_mut(&group).filter(|group| group.state != GroupState::Removed)
        else {
            return false;
        };
        removed.state = GroupState::Removed;
        let gone = self.all.iter().filter(|(_, group)| group.state == GroupState::Removed);
        let gone: Vec<u64> = gone.map(|(number, _)| *number).collect();
        for number in &gone[..gone.len().saturating_sub(REMOVED_MAX)] {
            self.all.remove(number);
        }
        true
    }

    /// The groups whose actors do not live any more.
    pub(super) fn without_actor(&self, is_living: impl Fn(u64) -> bool) -> Vec<u64> {
        let is_over = |group: &Group| {
            group.state != GroupState::Removed && group.creator.is_some_and(|actor| !is_living(actor))
        };
        self.all.iter().filter(|(_, group)| is_over(group)).map(|(number, _)| *number).collect()
    }

    /// A process waits until a group has its resources, or is removed.
    pub(super) fn ask(&mut self, by: &Arc<Link>, request: u64, group: u64) {
        self.awaited.push(Awaited { by: by.clone(), request, group });
    }

    pub(super) fn on_caller_gone(&mut self, link: &Arc<Link>) {
        self.awaited.retain(|awaited| !Arc::ptr_eq(&awaited.by, link));
    }

    /// Answers the processes whose groups have their resources now, or are removed.
    pub(super) fn settle(&mut self, is_placed: impl Fn(u64) -> Option<bool>) {
        for (number, group) in &mut self.all {
            if group.state == GroupState::Pending && is_placed(*number) == Some(true) {
                group.state = GroupState::Created;
            }
        }
        for Awaited { by, request, .. } in
            self.awaited.extract_if(.., |awaited| is_placed(awaited.group) != Some(false))
        {
            let _ = by.send(&FromHead::GroupSettled { request }, Vec::new());
        }
    }

    pub(super) fn list(&self, to: &Link, request: u64) {
        let record = |(group, it): (&u64, &Group)| GroupRecord {
            group: *group,
            made: it.made.clone(),
            state: it.state,
        };
        let groups = Ok(self.all.iter().map(record).collect());
        if let Err(TooLarge) = to.send(&FromHead::Groups { request, groups }, Vec::new()) {
            let failure = Failure::Other("there are too many placement groups to be listed".into());
            let _ = to.send(&FromHead::Groups { request, groups: Err(failure) }, Vec::new());
        }
    }
}
