//! The references of orphans: read from their segments or spill files, and freed of reference cycles.
//!
//! The dead client wrote the references, so they may be wrong. They are only used to keep objects, never to find bytes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;

use mobula_protocol::id::ObjectId;
use mobula_shm::mapping::ReadMapping;
use mobula_shm::spill::{RecordHeader, SpillLocation, read_references};
use mobula_shm::table::{Location, State};

use crate::core::cycles;
use crate::core::segments::{Segment, Segments};
use crate::daemon::registry::Registry;
use crate::memory::Memory;

/// A client's segments, mapped as far as references have to be read from them.
pub(crate) struct MappedSegments<'a> {
    slot: u16,
    segments: &'a Segments<Memory>,
    mappings: BTreeMap<u32, Option<ReadMapping>>,
}

impl<'a> MappedSegments<'a> {
    pub(crate) fn new(slot: u16, segments: &'a Segments<Memory>) -> Self {
        Self { slot, segments, mappings: BTreeMap::new() }
    }

    /// The segment in which an object lies; an object without bytes lies in none. `None` for a location where the
    /// client cannot have put an object.
    pub(crate) fn segment_of(&self, location: &Location) -> Option<Option<u32>> {
        if Location::extent(location.length, location.references) == Some(0) {
            return Some(None);
        }
        let segment = self.segments.get(self.slot, location.segment)?;
        location.fits(segment.bytes).then_some(Some(location.segment))
    }

    /// The references of an object whose location fits its segment, `max` at most; `None` when they cannot be read for
    /// now.
    pub(crate) fn references(&mut self, location: &Location, max: usize) -> Option<Vec<ObjectId>> {
        let (Some(start), Some(segment)) =
            (location.references_offset(), self.segments.get(self.slot, location.segment))
        else {
            return Some(Vec::new());
        };
        let mapping = self.mappings.entry(location.segment).or_insert_with(|| map(segment)).as_ref()?;
        let count = location.references as usize;
        if count > max {
            tracing::warn!(slot = self.slot, count, max, "not all references are followed");
        }
        let word = |offset: u64| mapping.load64_relaxed(offset as usize).to_le_bytes();
        let reference = |number: usize| {
            let offset = start + number as u64 * Location::REFERENCE_BYTES;
            let mut bytes = [0; ObjectId::BYTES];
            bytes[..8].copy_from_slice(&word(offset));
            bytes[8..].copy_from_slice(&word(offset + 8));
            ObjectId::from_bytes(bytes)
        };
        Some((0..count.min(max)).map(reference).collect())
    }
}

/// The references in the spill record of an entry, `max` at most.
pub(crate) fn spilled_references(
    file: &File,
    place: SpillLocation,
    location: &Location,
    max: usize,
) -> Vec<ObjectId> {
    // The object of the record does not matter here.
    let record = RecordHeader::of([0; ObjectId::BYTES], location);
    match read_references(record, file, place.offset(), max) {
        Ok(ids) => ids.into_iter().map(ObjectId::from_bytes).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot read the references of a spilled object of a dead client");
            Vec::new()
        }
    }
}

/// Removes, from the references of a dead client's objects, each one through which an object would keep itself alive
/// for ever; see [`cycles`].
pub(crate) fn cut_cycles(registry: &Registry, slot: u16, recorded: &mut [(u32, Vec<ObjectId>)]) {
    let Some(owner) = registry.owners.get(&slot) else { return };
    let object = |index: u32| ObjectId::new(owner.id, index, owner.word(index).generation());
    let mut ours: HashMap<ObjectId, Vec<ObjectId>> =
        recorded.iter_mut().map(|(index, references)| (object(*index), std::mem::take(references))).collect();
    let mut mapped: HashMap<u16, MappedSegments<'_>> = HashMap::new();
    let refers = |object: ObjectId| references_of(registry, object, &mut mapped);
    cycles::cut(&mut ours, refers, registry.config.references_max);
    for (index, references) in recorded {
        *references = ours.remove(&object(*index)).unwrap_or_default();
    }
}

/// The references of an object, for a listing. Those of an object in a spill file of a living client are left
/// out, because reading them would wait for a disk.
pub(crate) fn references_in_memory<'a>(
    registry: &'a Registry,
    object: ObjectId,
    mapped: &mut HashMap<u16, MappedSegments<'a>>,
) -> Vec<ObjectId> {
    let owner = registry.owner(object.owner());
    let state = owner.and_then(|owner| owner.state_of(object.index(), object.generation()));
    if state == Some(State::Spilled) { Vec::new() } else { references_of(registry, object, mapped) }
}

/// The references of any object: from the remaining objects of its dead owner, or from the memory of its living owner.
fn references_of<'a>(
    registry: &'a Registry,
    object: ObjectId,
    mapped: &mut HashMap<u16, MappedSegments<'a>>,
) -> Vec<ObjectId> {
    let (slot, index) = (object.owner().slot(), object.index());
    let Some(owner) = registry.owner(object.owner()) else { return Vec::new() };
    if let Some(remaining) = owner.remaining.as_ref().filter(|remaining| remaining.has_taken(index)) {
        return remaining.references(index).to_vec();
    }
    // The state first: a forged index may lie beyond the table.
    let Some(state) = owner.state_of(index, object.generation()) else { return Vec::new() };
    let (location, max) = (owner.location(index), registry.config.references_max);
    if location.references == 0 {
        return Vec::new();
    }
    let references = match state {
        State::Spilled => owner.view.spill_location(index).and_then(|place| {
            let file = registry.spill_files.get(slot, place.file())?;
            Some(spilled_references(file, place, &location, max))
        }),
        State::Sealed | State::Dying | State::Deleted => {
            let mapped = mapped.entry(slot).or_insert_with(|| MappedSegments::new(slot, &registry.segments));
            mapped.segment_of(&location).and_then(|_| mapped.references(&location, max))
        }
        State::Free | State::Promised | State::Lost => None,
    };
    references.unwrap_or_default()
}

fn map(segment: &Segment<Memory>) -> Option<ReadMapping> {
    ReadMapping::map(segment.memory.writable(), 0, segment.bytes as usize)
        .inspect_err(|error| tracing::warn!(%error, "cannot read the references of a client"))
        .ok()
}
