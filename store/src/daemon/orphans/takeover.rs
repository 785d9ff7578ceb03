//! Orphan takeover: the daemon becomes the one writer of a dead client's table.
//!
//! Promises become `Lost`, operations in which the client died are finished or undone, and the objects that its objects
//! refer to are pinned in the daemon's name. Tables can be large, so a takeover goes in slices. The daemon checks each
//! entry first: an entry with invalid values counts as free.

use std::sync::atomic::{AtomicU64, Ordering};

use mobula_protocol::id::ObjectId;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::table::{State, Word};

use crate::daemon::orphans::references::{MappedSegments, cut_cycles, spilled_references};
use crate::daemon::registry::Registry;
use crate::daemon::registry::remaining::Home;

/// The progress of a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The whole table is taken over.
    Done,
    /// There are more entries.
    More,
    /// The references of an object cannot be read for now.
    Stuck,
}

/// Takes over the next slice of a dead client's table; `None` when nothing is left to take over.
pub(crate) fn take_slice(registry: &mut Registry, slot: u16) -> Option<Progress> {
    let owner = registry.owners.get_mut(&slot)?;
    let remaining = owner.remaining.as_mut()?;
    let start = remaining.next_to_take?;
    let slice_max = registry.config.sweep_entries_max;
    let mut end = owner.entries.min(start.saturating_add(slice_max));
    let mut mapped = MappedSegments::new(slot, &registry.segments);
    let (mut recorded, mut followed, mut stuck) = (Vec::new(), 0, None);
    for index in start..end {
        // Following references makes a slice long, as entries do.
        if followed >= slice_max as usize {
            end = index;
            break;
        }
        let word = owner.view.word(index);
        // Acquire: the owner's earlier stores come before.
        let seen = Word::from_bits(word.load(Ordering::Acquire));
        let generation = seen.generation();
        match seen.state() {
            Some(State::Free) => {}
            Some(State::Promised | State::Lost) => {
                // Release: for the clients that wait for it. They are told afterwards, whether their pins say that they
                // wait or not.
                word.store(Word::new(generation, State::Lost).bits(), Ordering::Release);
                failpoint(Failpoint::TakeoverLost);
                remaining.add(index, generation, Home::default());
            }
            // The owner died while it freed or spilled the object. With a place in a file it is spilled; see `table`.
            Some(state @ (State::Spilled | State::Dying))
                if state == State::Spilled || owner.view.spill_location(index).is_some() =>
            {
                let (location, place) = (owner.view.location(index), owner.view.spill_location(index));
                let file =
                    place.and_then(|place| Some((place, registry.spill_files.get(slot, place.file())?)));
                let Some((place, file)) = file else {
                    free(word, generation);
                    continue;
                };
                if state == State::Dying {
                    word.store(Word::new(generation, State::Spilled).bits(), Ordering::Release);
                    failpoint(Failpoint::TakeoverSpilled);
                }
                if location.references > 0 {
                    let references = spilled_references(file, place, &location, remaining.references_left);
                    remaining.references_left -= references.len();
                    followed += references.len();
                    recorded.push((index, references));
                }
                remaining.add(index, generation, Home { file: Some(place.file()), segment: None });
            }
            Some(state @ (State::Sealed | State::Dying | State::Deleted)) => {
                let location = owner.view.location(index);
                let Some(segment) = mapped.segment_of(&location) else {
                    free(word, generation);
                    continue;
                };
                if state == State::Dying {
                    word.store(Word::new(generation, State::Sealed).bits(), Ordering::Release);
                    failpoint(Failpoint::TakeoverSealed);
                }
                // It may still have a spill record, which is not used any more.
                owner.view.set_spill_location(index, None);
                if location.references > 0 {
                    let references = mapped.references(&location, remaining.references_left);
                    let Some(references) = references else {
                        // The dead client's pins keep the objects that it refers to until this has been read.
                        stuck = Some(index);
                        break;
                    };
                    remaining.references_left -= references.len();
                    followed += references.len();
                    recorded.push((index, references));
                }
                remaining.add(index, generation, Home { segment, file: None });
            }
            Some(State::Spilled) | None => free(word, generation),
        }
    }
    let done = stuck.is_none() && end == owner.entries;
    remaining.next_to_take = if done { None } else { Some(stuck.unwrap_or(end)) };
    failpoint(Failpoint::TakeoverSliced);
    cut_cycles(registry, slot, &mut recorded);
    for (index, references) in recorded {
        let held: Vec<ObjectId> = references.into_iter().filter(|object| registry.hold(*object)).collect();
        if let Some(remaining) = registry.remaining_mut(slot) {
            remaining.set_references(index, held);
        }
    }
    Some(match (done, stuck) {
        (true, _) => Progress::Done,
        (false, None) => Progress::More,
        (false, Some(_)) => Progress::Stuck,
    })
}

/// Frees an entry: its next object has the next generation.
pub(crate) fn free(word: &AtomicU64, generation: u32) {
    word.store(Word::new(generation.wrapping_add(1), State::Free).bits(), Ordering::Release);
}
