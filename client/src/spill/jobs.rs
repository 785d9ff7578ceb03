//! The work that waits for threads that spill or restore, and how many such threads there are.
//!
//! Spilling has a thread of its own, because restoring may have to wait until that thread has made room.

use std::collections::VecDeque;

use mobula_protocol::id::ObjectId;
use parking_lot::Mutex;

/// Threads that restore.
const RESTORERS_MAX: usize = 4;

/// The work of one client.
#[derive(Default)]
pub(crate) struct SpillJobs {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes to spill.
    spill: Option<u64>,
    is_spilling: bool,
    restores: VecDeque<ObjectId>,
    restorers: usize,
}

impl SpillJobs {
    /// Adds bytes to spill; `true` if a thread must be started for it.
    pub(crate) fn add_spill(&self, bytes: u64) -> bool {
        let mut state = self.state.lock();
        state.spill = Some(state.spill.unwrap_or(0).max(bytes));
        !std::mem::replace(&mut state.is_spilling, true)
    }

    /// The bytes that the spilling thread is to spill next; `None` ends it.
    pub(crate) fn next_spill(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let next = state.spill.take();
        state.is_spilling = next.is_some();
        next
    }

    /// Adds an object to restore; `true` if a thread must be started for it.
    pub(crate) fn add_restore(&self, object: ObjectId) -> bool {
        let mut state = self.state.lock();
        state.restores.push_back(object);
        let is_one_more = state.restorers < RESTORERS_MAX;
        state.restorers += usize::from(is_one_more);
        is_one_more
    }

    /// The object that a restoring thread is to restore next; `None` ends it.
    pub(crate) fn next_restore(&self) -> Option<ObjectId> {
        let mut state = self.state.lock();
        let next = state.restores.pop_front();
        state.restorers -= usize::from(next.is_none());
        next
    }

    /// A restoring thread could not be started. Returns the objects that no thread will restore.
    pub(crate) fn give_up_restorer(&self) -> VecDeque<ObjectId> {
        let mut state = self.state.lock();
        state.restorers -= 1;
        if state.restorers == 0 { std::mem::take(&mut state.restores) } else { VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobula_protocol::id::OwnerId;

    #[test]
    fn one_thread_spills_and_ends_when_nothing_is_left() {
        let jobs = SpillJobs::default();
        assert!(jobs.add_spill(10));
        assert!(!jobs.add_spill(30) && !jobs.add_spill(20));
        assert_eq!((jobs.next_spill(), jobs.next_spill()), (Some(30), None));
        assert!(jobs.add_spill(5));
    }

    #[test]
    fn a_few_threads_restore_and_objects_without_one_are_given_up() {
        let object = |index| ObjectId::new(OwnerId::new(1, 1), index, 0);
        let jobs = SpillJobs::default();
        let started = (0..10).filter(|index| jobs.add_restore(object(*index))).count();
        assert_eq!(started, RESTORERS_MAX);
        assert_eq!(jobs.next_restore(), Some(object(0)));
        (0..RESTORERS_MAX - 1).for_each(|_| assert!(jobs.give_up_restorer().is_empty()));
        assert_eq!(jobs.give_up_restorer().len(), 9);
        assert!(jobs.add_restore(object(0)));
        assert_eq!((jobs.next_restore(), jobs.next_restore()), (Some(object(0)), None));
    }
}
