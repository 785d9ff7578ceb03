//! Restoring the spilled objects of a dead owner, into segments in the owner's name, a slice at a time.
//!
//! An object that a client waits for is read from its file into memory, compared with its checksum, and only then shown
//! as sealed: one store of its state word. Small objects share segments. If there is no memory for an object, it waits,
//! as leases do, and does not delay smaller objects that fit.
//!
//! A restored object keeps its spill record, so it can be evicted again at once: when memory is short, an object whose
//! bytes nobody uses becomes spilled again by the handshake alone.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Refusal;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::memory::round_up_to_pages;
use mobula_shm::pins::try_spill;
use mobula_shm::spill::{RecordHeader, RecordReader, SpillLocation};
use mobula_shm::table::{ALIGNMENT, Location, State, Word};

use crate::daemon::answer::{limit_reached, no_memory};
use crate::daemon::registry::Registry;
use crate::daemon::registry::owner::Owner;
use crate::daemon::registry::remaining::SharedSegment;
use crate::daemon::spill::waiting::RestoreRequests;
use crate::memory::Memory;

/// Bytes that are read before other clients are served.
const SLICE_BYTES: u64 = 4 << 20;
/// Bytes that are read at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// The largest objects that share segments.
const SMALL_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a segment that objects share.
const SHARED_SEGMENT_BYTES: u64 = 1 << 20;

/// The objects of the dead that are being restored, in order.
#[derive(Default)]
pub(crate) struct OrphanRestores {
    queue: Vec<Restore>,
    /// Whether an object has come that waits for memory, since this was last asked.
    lacks_memory: bool,
}

/// An object that is being restored.
struct Restore {
    object: ObjectId,
    location: Location,
    record: RecordHeader,
    extent: u64,
    file: Arc<File>,
    place: SpillLocation,
    /// `None` while there is no memory for it.
    target: Option<Target>,
}

/// How much of an object has been restored.
struct Target {
    room: Room,
    reader: RecordReader<Arc<File>>,
    done: u64,
}

/// Memory in a segment of a dead owner.
#[derive(Debug, Clone)]
struct Room {
    segment: u32,
    offset: u64,
    memory: Memory,
}

impl OrphanRestores {
    /// Begins to restore an object of a dead owner, unless that has begun.
    pub(crate) fn begin(
        &mut self,
        registry: &mut Registry,
        requests: &mut RestoreRequests,
        object: ObjectId,
    ) {
        if self.queue.iter().any(|restore| restore.object == object) {
            return;
        }
        if !is_spilled(registry, object) {
            // Its owner has restored it, and died before it said so; or the object is gone. The client looks again.
            return requests.answer(registry, object, None);
        }
        match Restore::of(registry, object) {
            Ok(restore) => {
                self.lacks_memory |= restore.needs() > registry.segments.free();
                self.queue.push(restore);
            }
            Err(refusal) => requests.answer(registry, object, Some(refusal)),
        }
    }

    /// Goes on with the first object for which there is memory.
    pub(crate) fn go_on(&mut self, registry: &mut Registry, requests: &mut RestoreRequests) {
        let Some(at) = self.next(registry, requests) else { return };
        let mut restore = self.queue.remove(at);
        let object = restore.object;
        // Else no client waits any more, or the object is gone.
        let is_wanted = requests.is_waited_for(object) && is_spilled(registry, object);
        let outcome = if is_wanted { restore.read_slice(registry) } else { Ok(true) };
        match outcome {
            // Behind the others.
            Ok(false) => self.queue.push(restore),
            Ok(true) => {
                if !is_wanted {
                    restore.give_up_room(registry);
                }
                requests.answer(registry, object, None);
                registry.note_orphans_changed();
            }
            Err(refusal) => {
                restore.give_up_room(registry);
                requests.answer(registry, object, Some(refusal));
            }
        }
    }

    /// Whether [`go_on`](Self::go_on) has something to do now.
    pub(crate) fn can_go_on(&self, registry: &Registry, requests: &RestoreRequests) -> bool {
        self.next(registry, requests).is_some()
    }

    /// Bytes that are missing for the first object that waits for memory.
    pub(crate) fn missing_bytes(&self, registry: &Registry) -> u64 {
        let free = registry.segments.free();
        let missing = self.queue.iter().map(|restore| restore.needs().saturating_sub(free));
        missing.into_iter().find(|missing| *missing > 0).unwrap_or(0)
    }

    /// Whether an object has come that waits for memory, since the last call.
    pub(crate) fn take_lack_of_memory(&mut self) -> bool {
        std::mem::take(&mut self.lacks_memory)
    }

    /// Spilling has failed, so no memory comes free: clients that wait for an object without memory read it from its
    /// file.
    pub(crate) fn give_up(&mut self, registry: &mut Registry, requests: &mut RestoreRequests, reason: &str) {
        let (capacity_bytes, free_bytes) = (registry.config.capacity_bytes, registry.segments.free());
        for restore in &self.queue {
            let requested_bytes = restore.needs();
            if requested_bytes > free_bytes {
                let reason = reason.to_owned();
                let refusal = Refusal::SpillFailed { requested_bytes, capacity_bytes, free_bytes, reason };
                requests.answer(registry, restore.object, Some(refusal));
            }
        }
    }

    /// An owner is about to be forgotten: none of its objects is restored any more.
    pub(crate) fn stop(&mut self, registry: &mut Registry, requests: &mut RestoreRequests, owner: u16) {
        let of_owner = |restore: &mut Restore| restore.object.owner().slot() == owner;
        let stopped: Vec<_> = self.queue.extract_if(.., of_owner).collect();
        for restore in stopped {
            restore.give_up_room(registry);
            let object = restore.object;
            requests.answer(registry, object, Some(Refusal::NoSuchObject { object }));
        }
    }

    fn next(&self, registry: &Registry, requests: &RestoreRequests) -> Option<usize> {
        let free = registry.segments.free();
        self.queue
            .iter()
            .position(|restore| restore.needs() <= free || !requests.is_waited_for(restore.object))
    }
}

/// Evicts restored objects whose bytes nobody uses, until segments of `missing` bytes are empty.
pub(crate) fn evict_restored(registry: &mut Registry, missing: u64) {
    let mut empty = Vec::new();
    let mut bytes = 0;
    for (slot, owner) in &mut registry.owners {
        let Some(mut remaining) = owner.remaining.take() else { continue };
        for _ in 0..remaining.restored_count() {
            if bytes >= missing {
                break;
            }
            let Some(index) = remaining.next_restored() else { break };
            if !spill_again(owner, index) {
                remaining.keep_restored(index);
            } else if let Some(segment) = remaining.evicted(index) {
                bytes += registry.segments.get(*slot, segment).map_or(0, |segment| segment.bytes);
                empty.push((*slot, segment));
            }
        }
        owner.remaining = Some(remaining);
    }
    for (slot, segment) in empty {
        registry.retire(slot, segment);
    }
}

impl Restore {
    /// A spilled object, as the table of its dead owner describes it.
    fn of(registry: &Registry, object: ObjectId) -> Result<Self, Refusal> {
        let damaged = Refusal::SpillDamaged { object };
        let (slot, index) = (object.owner().slot(), object.index());
        let Some(owner) = registry.owners.get(&slot) else { return Err(Refusal::NoSuchObject { object }) };
        let location = owner.location(index);
        let record = RecordHeader::of(object.to_bytes(), &location);
        let (Some(extent), Some(place)) = (record.extent(), owner.view.spill_location(index)) else {
            return Err(damaged);
        };
        if extent > registry.config.capacity_bytes {
            return Err(damaged);
        }
        let file = registry.spill_files.get(slot, place.file()).ok_or(damaged)?.clone();
        Ok(Self { object, location, record, extent, file, place, target: None })
    }

    /// Bytes that must be free before the object can be read.
    fn needs(&self) -> u64 {
        if self.target.is_some() { 0 } else { round_up_to_pages(self.extent).unwrap_or(u64::MAX) }
    }

    /// Reads the next slice; `true` when the object is restored.
    fn read_slice(&mut self, registry: &mut Registry) -> Result<bool, Refusal> {
        let object = self.object;
        if self.target.is_none() {
            let reader = RecordReader::open(self.record, self.file.clone(), self.place.offset());
            let reader = reader.map_err(|error| not_read(object, &error))?;
            let room = room_for(registry, object, self.extent)?;
            self.target = Some(Target { room, reader, done: 0 });
        }
        let (extent, Some(target)) = (self.extent, &mut self.target) else { return Ok(false) };
        let end = extent.min(target.done + SLICE_BYTES);
        let copied = target.copy_until(end, object, extent);
        failpoint(Failpoint::OrphanRestoreRead);
        copied?;
        if end < extent {
            return Ok(false);
        }
        target.reader.finish().map_err(|error| not_read(object, &error))?;
        let room = target.room.clone();
        self.show(registry, &room);
        Ok(true)
    }

    /// Shows the object as sealed, by one store.
    fn show(&self, registry: &mut Registry, room: &Room) {
        let (slot, index) = (self.object.owner().slot(), self.object.index());
        let Some(owner) = registry.owners.get_mut(&slot) else { return };
        let location = Location { segment: room.segment, offset: room.offset, ..self.location };
        owner.view.fill(index, &location);
        failpoint(Failpoint::OrphanRestoreFilled);
        let sealed = Word::new(self.object.generation(), State::Sealed);
        // Release: the location and the bytes come before.
        owner.view.word(index).store(sealed.bits(), Ordering::Release);
        failpoint(Failpoint::OrphanRestoreStored);
        if let Some(remaining) = &mut owner.remaining {
            remaining.restored(index, room.segment);
        }
    }

    fn give_up_room(&self, registry: &mut Registry) {
        let Some(target) = &self.target else { return };
        let slot = self.object.owner().slot();
        let remaining = registry.remaining_mut(slot);
        if let Some(empty) = remaining.and_then(|remaining| remaining.uncount_segment(target.room.segment)) {
            registry.retire(slot, empty);
        }
    }
}

impl Target {
    /// Copies from the file into memory, up to `end` of the object's `extent` bytes.
    fn copy_until(&mut self, end: u64, object: ObjectId, extent: u64) -> Result<(), Refusal> {
        let mut buffer = vec![0; (end - self.done).min(PIECE_BYTES) as usize];
        let (memory, start) = (&self.room.memory, self.room.offset);
        let refuse = |error| no_memory(extent, &error);
        memory.allocate_slice(start + self.done..start + end).map_err(refuse)?;
        while self.done < end {
            let piece = (end - self.done).min(buffer.len() as u64);
            let buffer = &mut buffer[..piece as usize];
            self.reader.read(buffer).map_err(|error| not_read(object, &error))?;
            memory.write(start + self.done, buffer).map_err(refuse)?;
            self.done += piece;
        }
        Ok(())
    }
}

/// Memory in the name of an object's owner. It counts as used by an object until it is given up.
fn room_for(registry: &mut Registry, object: ObjectId, extent: u64) -> Result<Room, Refusal> {
    let slot = object.owner().slot();
    let too_little = || Refusal::NotRestored { object, reason: "there is no memory for it".to_owned() };
    let remaining = registry.owners.get_mut(&slot).and_then(|owner| owner.remaining.as_mut());
    let Some(remaining) = remaining else { return Err(Refusal::NoSuchObject { object }) };
    if extent <= SMALL_BYTES_MAX
        && let Some(shared) = &mut remaining.shared_segment
        && shared.used + extent <= shared.bytes
    {
        let room = Room { segment: shared.number, offset: shared.used, memory: shared.memory.clone() };
        shared.used = (shared.used + extent).next_multiple_of(ALIGNMENT);
        remaining.count_segment(room.segment);
        return Ok(room);
    }
    let segments_max = registry.config.segments_max;
    if registry.segments.count() >= segments_max {
        return Err(limit_reached("segments_max", segments_max as u64));
    }
    let exact = round_up_to_pages(extent).ok_or_else(too_little)?;
    let free = registry.segments.free();
    let is_shared = extent <= SMALL_BYTES_MAX && SHARED_SEGMENT_BYTES <= free;
    let bytes = if is_shared { SHARED_SEGMENT_BYTES } else { exact };
    if bytes > free {
        return Err(too_little());
    }
    let memory = Memory::segment(bytes).map_err(|error| no_memory(bytes, &error))?;
    if is_shared {
        memory.allocate_slice(0..bytes).map_err(|error| no_memory(bytes, &error))?;
    }
    let number = registry.segments.lease(slot, bytes, memory.clone());
    registry.segments.owner_died(slot);
    remaining.count_segment(number);
    if is_shared {
        let used = extent.next_multiple_of(ALIGNMENT);
        remaining.shared_segment = Some(SharedSegment { number, memory: memory.clone(), bytes, used });
    }
    Ok(Room { segment: number, offset: 0, memory })
}

/// Whether an object is spilled and nothing else.
fn is_spilled(registry: &Registry, object: ObjectId) -> bool {
    let owner = registry.owner(object.owner());
    owner.and_then(|owner| owner.state_of(object.index(), object.generation())) == Some(State::Spilled)
}

/// Spills a restored object again. It still has its record. `false` if a client uses its bytes.
fn spill_again(owner: &Owner, index: u32) -> bool {
    let word = owner.word(index);
    // Looking before the handshake saves readers from seeing `Dying`.
    word.state() == Some(State::Sealed)
        && !owner.is_mapped(index)
        && try_spill(owner.view.word(index), word.generation(), || owner.is_mapped(index), || ())
}

/// The refusal where a record cannot be read.
fn not_read(object: ObjectId, error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::InvalidData => Refusal::SpillDamaged { object },
        _ => Refusal::NotRestored { object, reason: error.to_string() },
    }
}
