//! Unused objects are freed, in batches.
//!
//! An object that this process does not use any more waits in the *retire list* until one of these happens:
//!
//! - the list has [`BATCH`] objects;
//! - an object that is large, or that keeps others alive, joins it;
//! - memory is short;
//! - the background thread looks.
//!
//! All of them are then freed together: the fence of the handshake ([`mobula_shm::pins`]) and the look at every
//! reader's pins are paid once for all. An object that another process still pins moves on to the *retry list*, at
//! which only [`Owner::free_retry_list`] and [`Owner::collect`] look.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use mobula_shm::pins::{Candidate, free_together};
use mobula_shm::table::{State as ObjectState, Word};

use crate::counting::count::{Busy, Unused};
use crate::owner::entries::Retired;
use crate::owner::{Owner, ReferencesToEnd};

/// Objects that are freed together.
pub(crate) const BATCH: usize = 32;

impl Owner {
    /// Frees the objects of the retire list that no other process uses; `true` if there were any.
    pub(crate) fn free_retire_list(&self) -> bool {
        self.freeing(|to_end| self.free_list(|retired| &mut retired.retire, to_end))
    }

    /// Looks again at the objects that other processes still used; `true` if any was freed.
    pub(crate) fn free_retry_list(&self) -> bool {
        self.freeing(|to_end| self.free_list(|retired| &mut retired.retry, to_end))
    }

    /// Frees every object that can be freed; `true` if there were any.
    pub(crate) fn collect(&self) -> bool {
        self.freeing(|to_end| self.reclaim(true, to_end))
    }

    /// Frees the retire list, and the retry list too if `all` is set. The caller ends the references in `to_end`.
    pub(crate) fn reclaim(&self, all: bool, to_end: &mut ReferencesToEnd) -> bool {
        // The retry list first: objects of the retire list may move there now.
        let freed = all && self.free_list(|retired| &mut retired.retry, to_end);
        self.free_list(|retired| &mut retired.retire, to_end) || freed
    }

    /// Frees objects, and ends the references that they kept.
    fn freeing(&self, free: impl FnOnce(&mut ReferencesToEnd) -> bool) -> bool {
        let mut to_end = ReferencesToEnd::new();
        let freed = free(&mut to_end);
        self.end_all(to_end);
        freed
    }

    /// Works off the objects that are in a list now; they may come into a list again.
    fn free_list(
        &self,
        list: impl Fn(&mut Retired) -> &mut VecDeque<u32>,
        to_end: &mut ReferencesToEnd,
    ) -> bool {
        let (mut left, mut freed) = (usize::MAX, false);
        while left > 0 {
            let mut batch = [0; BATCH];
            let mut state = self.state.lock();
            let list = list(&mut state.retired);
            left = left.min(list.len());
            let len = left.min(BATCH);
            left -= len;
            for (place, index) in batch.iter_mut().zip(list.drain(..len)) {
                *place = index;
            }
            drop(state);
            freed |= self.free_batch(&batch[..len], to_end);
        }
        freed
    }

    /// Frees objects from a list that no process uses, and puts the others into a list again, if they belong into one.
    /// `true` if any was freed.
    fn free_batch(&self, indices: &[u32], to_end: &mut ReferencesToEnd) -> bool {
        let mut locked: [Option<Busy<'_>>; BATCH] = [const { None }; BATCH];
        let mut candidates: [Candidate<'_>; BATCH] = std::array::from_fn(|_| self.no_candidate());
        let mut len = 0;
        for &index in indices {
            match self.table.known_count(index).lock_unused() {
                Unused::Locked(mut busy) => {
                    let word = self.table.atomic_word(index);
                    let from = Word::from_bits(word.load(Ordering::Relaxed));
                    if from.state().is_some_and(is_freed_from) {
                        candidates[len] = Candidate { index, word, from, held: false };
                        locked[len] = Some(busy);
                        len += 1;
                    } else {
                        busy.unqueue();
                        busy.finish();
                    }
                }
                // The next release looks after it.
                Unused::InUse => {}
                Unused::Busy => self.state.lock().retired.retire.push_back(index),
            }
        }
        let candidates = &mut candidates[..len];
        if candidates.is_empty() {
            return false;
        }
        free_together(candidates, |candidates| self.readers.mark_held(candidates));
        let (mut freed, mut records) = (false, Vec::new());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for (candidate, busy) in candidates.iter().zip(&mut locked) {
            let mut busy = busy.take().expect("locked with the candidate");
            if candidate.held {
                state.retired.retry.push_back(candidate.index);
            } else {
                freed = true;
                if candidate.from.state() == Some(ObjectState::Spilled) {
                    records.extend(self.table.take_spill_location(candidate.index));
                }
                if let Some(allocation) = state.entries.vacate(candidate.index, to_end) {
                    state.segments.allocator.free(allocation);
                }
                busy.unqueue();
            }
            busy.finish();
        }
        drop(guard);
        records.into_iter().for_each(|place| self.spilled.remove_record(place.file()));
        freed
    }

    fn no_candidate(&self) -> Candidate<'_> {
        Candidate { index: 0, word: self.table.atomic_word(0), from: Word::from_bits(0), held: false }
    }
}

/// Whether an object is let go of in a state.
fn is_freed_from(state: ObjectState) -> bool {
    use ObjectState::{Deleted, Lost, Sealed, Spilled};
    matches!(state, Sealed | Deleted | Spilled | Lost)
}
