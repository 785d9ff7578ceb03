//! Bringing back what a dead owner has spilled: into segments in the owner's name, a slice at a time.
//!
//! An object that somebody waits for is read from its file into memory, compared with its checksum, and only then shown
//! as sealed: one store of its word. Small ones share segments. What cannot be had for lack of memory waits for it, as
//! leases do, behind nobody who fits.
//!
//! What has come back keeps its record, so that it can go again at once: when memory is short, what nobody uses the bytes
//! of is spilled again by the handshake alone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Refusal;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::memory::round_up_to_pages;
use mobula_shm::pins::try_spill;
use mobula_shm::spill::{Checksum, HEADER_BYTES, Record, SpillPlace};
use mobula_shm::table::{ALIGNMENT, Location, State, Word};

use crate::daemon::client::record::Owner;
use crate::daemon::{Daemon, limit_reached};
use crate::memory::{Memory, no_memory};

/// Bytes that are read in one go, before others are served.
const SLICE_BYTES: u64 = 4 << 20;
/// Objects of so many bytes share segments.
const SMALL_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a segment that is shared.
const SHARED_SEGMENT_BYTES: u64 = 1 << 20;

/// An object that is on its way back.
pub(crate) struct Bringing {
    object: ObjectId,
    location: Location,
    record: Record,
    extent: u64,
    file: Arc<File>,
    place: SpillPlace,
    /// None while there is no room.
    target: Option<Target>,
}

/// How far an object has come.
struct Target {
    room: Room,
    claimed: u64,
    checksum: Checksum,
    done: u64,
}

/// Memory in a segment of a dead owner's.
#[derive(Debug, Clone)]
struct Room {
    segment: u32,
    offset: u64,
    memory: Memory,
}

/// A segment that small objects share, and what of it is used.
#[derive(Debug)]
pub(crate) struct SharedSegment {
    pub(crate) number: u32,
    memory: Memory,
    bytes: u64,
    used: u64,
}

impl Bringing {
    /// Bytes that must be free before it can go on.
    fn needs(&self) -> u64 {
        if self.target.is_some() { 0 } else { round_up_to_pages(self.extent).unwrap_or(u64::MAX) }
    }
}

impl Daemon {
    /// Begins to bring an object of a dead owner's back, unless that has begun.
    pub(crate) fn bring_back(&mut self, object: ObjectId, now: Instant) {
        if self.spilling.bringing.iter().any(|bringing| bringing.object == object) {
            return;
        }
        if !self.is_spilled(object) {
            // Its owner has brought it back, and died before it said so; or it is gone: whoever asked looks again.
            return self.answer_restores(object, None);
        }
        match self.find_record(object) {
            Ok(bringing) => {
                let missing = bringing.needs().saturating_sub(self.segments.free());
                self.spilling.bringing.push(bringing);
                if missing > 0 {
                    self.begin_pressure(missing, now);
                }
            }
            Err(refusal) => self.answer_restores(object, Some(refusal)),
        }
    }

    /// Goes on with the first object for which there is room.
    pub(crate) fn bring_next(&mut self, now: Instant) {
        let Some(at) = self.next_bringing() else { return };
        let mut bringing = self.spilling.bringing.remove(at);
        let object = bringing.object;
        // Nobody waits any more, or it is gone.
        let wanted = self.spilling.is_waited_for(object) && self.is_spilled(object);
        let outcome = if wanted { self.bring_slice(&mut bringing) } else { Ok(true) };
        match outcome {
            // Behind the others.
            Ok(false) => self.spilling.bringing.push(bringing),
            Ok(true) => {
                if !wanted {
                    self.give_up_room(&bringing);
                }
                self.answer_restores(object, None);
                self.sweep.run_soon(now);
            }
            Err(refusal) => {
                self.give_up_room(&bringing);
                self.answer_restores(object, Some(refusal));
            }
        }
    }

    /// Whether there is something to go on with now.
    pub(crate) fn can_bring(&self) -> bool {
        self.next_bringing().is_some()
    }

    /// Bytes that are missing for the first object that waits for memory.
    pub(crate) fn missing_to_bring(&self) -> u64 {
        let free = self.segments.free();
        self.spilling
            .bringing
            .iter()
            .map(|bringing| bringing.needs().saturating_sub(free))
            .find(|missing| *missing > 0)
            .unwrap_or(0)
    }

    /// Lets what has come back go again that nobody uses the bytes of, until segments of `missing` bytes are empty.
    pub(crate) fn send_away(&mut self, missing: u64) {
        let mut empty = Vec::new();
        let mut bytes = 0;
        for (slot, owner) in &mut self.owners {
            let Some(mut adoption) = owner.adoption.take() else { continue };
            for _ in 0..adoption.count_back() {
                if bytes >= missing {
                    break;
                }
                let Some(index) = adoption.next_back() else { break };
                if !spill_again(owner, index) {
                    adoption.stays_back(index);
                } else if let Some(segment) = adoption.went_again(index) {
                    bytes += self.segments.get(*slot, segment).map_or(0, |segment| segment.bytes);
                    empty.push((*slot, segment));
                }
            }
            owner.adoption = Some(adoption);
        }
        for (slot, segment) in empty {
            self.retire(slot, segment);
        }
    }

    /// While the disk takes nothing, nobody makes room: whoever waits for an object that there is no memory for reads it in
    /// its file.
    pub(crate) fn give_up_bringing(&mut self, now: Instant) {
        let Some(reason) = self.spill_failure(now) else { return };
        let (capacity_bytes, free_bytes) = (self.config.capacity_bytes, self.segments.free());
        let too_large = |bringing: &Bringing| {
            let requested_bytes = bringing.needs();
            (requested_bytes > free_bytes).then_some((bringing.object, requested_bytes))
        };
        let given_up: Vec<_> = self.spilling.bringing.iter().filter_map(too_large).collect();
        for (object, requested_bytes) in given_up {
            let reason = reason.clone();
            let refusal = Refusal::SpillFailed { requested_bytes, capacity_bytes, free_bytes, reason };
            self.answer_restores(object, Some(refusal));
        }
    }

    /// An owner is about to be forgotten: none of its objects comes back.
    pub(crate) fn stop_bringing(&mut self, owner: u16) {
        let of_owner = |bringing: &mut Bringing| bringing.object.owner().slot() == owner;
        let stopped: Vec<_> = self.spilling.bringing.extract_if(.., of_owner).collect();
        for bringing in stopped {
            self.give_up_room(&bringing);
            let object = bringing.object;
            self.answer_restores(object, Some(Refusal::NoSuchObject { object }));
        }
    }

    fn next_bringing(&self) -> Option<usize> {
        let free = self.segments.free();
        self.spilling
            .bringing
            .iter()
            .position(|bringing| bringing.needs() <= free || !self.spilling.is_waited_for(bringing.object))
    }

    fn is_spilled(&self, object: ObjectId) -> bool {
        let owner = self.owners.get(&object.owner().slot()).filter(|owner| owner.id == object.owner());
        let state = owner.and_then(|owner| owner.state_of(object.index(), object.generation()));
        state == Some(State::Spilled)
    }

    /// What a dead owner's table says about a spilled object, checked against what there is.
    fn find_record(&self, object: ObjectId) -> Result<Bringing, Refusal> {
        let (slot, index) = (object.owner().slot(), object.index());
        let damaged = Refusal::SpillDamaged { object };
        let Some(owner) = self.owners.get(&slot) else { return Err(Refusal::NoSuchObject { object }) };
        let location = owner.location(index);
        let record = Record::of(object.to_bytes(), &location);
        let (Some(extent), Some(place)) = (record.extent(), owner.view.spill_place(index)) else {
            return Err(damaged);
        };
        if extent > self.config.capacity_bytes {
            return Err(damaged);
        }
        let file = self.spilling.file(slot, place.file()).ok_or(damaged)?.clone();
        Ok(Bringing { object, location, record, extent, file, place, target: None })
    }

    /// The next slice; `true` when the object is back.
    fn bring_slice(&mut self, bringing: &mut Bringing) -> Result<bool, Refusal> {
        let object = bringing.object;
        let damaged = || Refusal::SpillDamaged { object };
        let mut target = match bringing.target.take() {
            Some(target) => target,
            None => {
                let mut header = [0; HEADER_BYTES];
                read(&bringing.file, &mut header, bringing.place.offset(), object)?;
                let claimed = bringing.record.claimed_checksum(&header).ok_or_else(damaged)?;
                let room = self.room_for(object, bringing.extent)?;
                Target { room, claimed, checksum: bringing.record.checksum(), done: 0 }
            }
        };
        let end = bringing.extent.min(target.done + SLICE_BYTES);
        let result = target.copy_until(end, bringing);
        failpoint(Failpoint::OrphanRestoreRead);
        let is_whole = end == bringing.extent;
        let matches = target.checksum.finish() == target.claimed;
        let room = target.room.clone();
        // Also when it failed: then the room is given up.
        bringing.target = Some(target);
        result?;
        if !is_whole {
            return Ok(false);
        }
        if !matches {
            return Err(damaged());
        }
        self.show_back(bringing, &room);
        Ok(true)
    }

    /// The object is in memory as it was: one store says so.
    fn show_back(&mut self, bringing: &Bringing, room: &Room) {
        let (slot, index) = (bringing.object.owner().slot(), bringing.object.index());
        let Some(owner) = self.owners.get_mut(&slot) else { return };
        let location = Location { segment: room.segment, offset: room.offset, ..bringing.location };
        owner.view.fill(index, &location);
        failpoint(Failpoint::OrphanRestoreFilled);
        let sealed = Word::new(bringing.object.generation(), State::Sealed);
        // Release: the location and the bytes come before.
        owner.view.word(index).store(sealed.bits(), Ordering::Release);
        failpoint(Failpoint::OrphanRestoreStored);
        if let Some(adoption) = &mut owner.adoption {
            adoption.came_back(index, room.segment);
        }
    }

    /// Memory in the name of an object's owner. It counts as used by an object until it is given up.
    fn room_for(&mut self, object: ObjectId, extent: u64) -> Result<Room, Refusal> {
        let slot = object.owner().slot();
        let too_little = || Refusal::NotRestored { object, reason: "there is no memory for it".to_owned() };
        let adoption = self.owners.get_mut(&slot).and_then(|owner| owner.adoption.as_mut());
        let Some(adoption) = adoption else { return Err(Refusal::NoSuchObject { object }) };
        if extent <= SMALL_BYTES_MAX
            && let Some(shared) = &mut adoption.shared_segment
            && shared.used + extent <= shared.bytes
        {
            let room = Room { segment: shared.number, offset: shared.used, memory: shared.memory.clone() };
            shared.used = (shared.used + extent).next_multiple_of(ALIGNMENT);
            adoption.count_segment(room.segment);
            return Ok(room);
        }
        if self.segments.count() >= self.config.segments_max {
            return Err(limit_reached("segments_max", self.config.segments_max as u64));
        }
        let exact = round_up_to_pages(extent).ok_or_else(too_little)?;
        let is_shared = extent <= SMALL_BYTES_MAX && SHARED_SEGMENT_BYTES <= self.segments.free();
        let bytes = if is_shared { SHARED_SEGMENT_BYTES } else { exact };
        if bytes > self.segments.free() {
            return Err(too_little());
        }
        let memory = Memory::segment(bytes).map_err(|error| no_memory(bytes, &error))?;
        if is_shared {
            memory.allocate_slice(0..bytes).map_err(|error| no_memory(bytes, &error))?;
        }
        let number = self.segments.lease(slot, bytes, memory.clone());
        self.segments.adopt(slot);
        adoption.count_segment(number);
        if is_shared {
            let used = extent.next_multiple_of(ALIGNMENT);
            adoption.shared_segment = Some(SharedSegment { number, memory: memory.clone(), bytes, used });
        }
        Ok(Room { segment: number, offset: 0, memory })
    }

    fn give_up_room(&mut self, bringing: &Bringing) {
        let Some(target) = &bringing.target else { return };
        let slot = bringing.object.owner().slot();
        let adoption = self.owners.get_mut(&slot).and_then(|owner| owner.adoption.as_mut());
        if let Some(empty) = adoption.and_then(|adoption| adoption.uncount_segment(target.room.segment)) {
            self.retire(slot, empty);
        }
    }
}

impl Target {
    fn copy_until(&mut self, end: u64, bringing: &Bringing) -> Result<(), Refusal> {
        let mut buffer = vec![0; (end - self.done).min(1 << 20) as usize];
        let (object, memory) = (bringing.object, &self.room.memory);
        let start = self.room.offset;
        memory
            .allocate_slice(start + self.done..start + end)
            .map_err(|error| no_memory(bringing.extent, &error))?;
        while self.done < end {
            let piece = (end - self.done).min(buffer.len() as u64);
            let buffer = &mut buffer[..piece as usize];
            let from = bringing.place.offset() + HEADER_BYTES as u64 + self.done;
            read(&bringing.file, buffer, from, object)?;
            self.checksum.add(buffer);
            memory.write(start + self.done, buffer).map_err(|error| no_memory(bringing.extent, &error))?;
            self.done += piece;
        }
        Ok(())
    }
}

/// Lets an entry that has come back, and still has its record, go from memory; `false` if somebody uses its bytes.
fn spill_again(owner: &Owner, index: u32) -> bool {
    let word = owner.word(index);
    // Seen before the handshake, it spares readers the sight of `Dying`.
    word.state() == Some(State::Sealed)
        && !owner.is_mapped(index)
        && try_spill(owner.view.word(index), word.generation(), || owner.is_mapped(index), || ())
}

/// Fills a buffer from a file; a file that ends too soon is damaged.
fn read(file: &File, buffer: &mut [u8], offset: u64, object: ObjectId) -> Result<(), Refusal> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Refusal::SpillDamaged { object },
        _ => Refusal::NotRestored { object, reason: error.to_string() },
    })
}
