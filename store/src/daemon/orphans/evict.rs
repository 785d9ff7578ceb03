//! Eviction of orphans: the daemon spills objects that dead owners have left in memory. Without it, a store that is
//! full of orphans would stay full.
//!
//! The daemon does as an owner does, one segment at a time: it writes all objects of the segment into a file first, and
//! then lets each go from memory by the handshake, unless a client uses its bytes. Writing and syncing can take long,
//! so a thread does that, one segment at a time. The thread touches only the file and the segment, whose objects do not
//! change.

use std::fs::File;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::Refusal;
use mobula_shm::pins::try_spill;
use mobula_shm::spill::{RecordHeader, RecordWriter, SpillLocation};
use mobula_shm::table::{Location, State};

use crate::daemon::orphans::escrow;
use crate::daemon::registry::Registry;
use crate::daemon::registry::owner::Owner;
use crate::memory::Memory;

/// How often the daemon looks whether the segment is on the disk.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// Bytes that are copied at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// A segment whose objects are being written into a file.
pub(crate) struct Eviction {
    owner: OwnerId,
    file: u32,
    objects: Vec<(ObjectId, Location)>,
    writing: JoinHandle<io::Result<Vec<SpillLocation>>>,
    look_at: Instant,
}

impl Eviction {
    /// Begins to evict a segment of a dead owner; `None` when there is none.
    ///
    /// # Errors
    /// The refusal of a spill file.
    pub(crate) fn begin(registry: &mut Registry, now: Instant) -> Result<Option<Self>, Refusal> {
        let Some((slot, segment, indices)) = evictable_segment(registry) else { return Ok(None) };
        let (owner, Some(known)) = (&registry.owners[&slot], registry.segments.get(slot, segment)) else {
            return Ok(None);
        };
        let (id, memory, segment_bytes) = (owner.id, known.memory.clone(), known.bytes);
        let mut bytes = 0u64;
        let mut objects = Vec::with_capacity(indices.len());
        for index in indices {
            let (word, location) = (owner.word(index), owner.location(index));
            let object = ObjectId::new(id, index, word.generation());
            let record_bytes = RecordHeader::of(object.to_bytes(), &location).bytes();
            // Some process writes into a dead client's table: then nothing of it is evicted.
            let (true, Some(record_bytes)) = (location.fits(segment_bytes), record_bytes) else {
                return Ok(None);
            };
            objects.push((object, location));
            bytes += record_bytes;
        }
        let free_bytes = registry.segments.free();
        let (number, file) = registry.spill_files.make(&registry.config, free_bytes, slot, bytes)?;
        let to_write = objects.clone();
        let write = move || write(&memory, &file, number, &to_write);
        let Ok(writing) = std::thread::Builder::new().name("mobula-evict".into()).spawn(write) else {
            registry.spill_files.discard(slot, number);
            return Ok(None);
        };
        // In escrow from the beginning: if this daemon is killed later, the next one has the file.
        if let Some(remaining) = registry.remaining_mut(slot) {
            remaining.count_file(number);
        }
        escrow::deposit_spill_files(registry, slot);
        Ok(Some(Self { owner: id, file: number, objects, writing, look_at: now + LOOK_PERIOD }))
    }

    /// When to look again whether the segment is [written](Self::is_written).
    pub(crate) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Whether everything is on the disk, or could not be written. If not, sets when to look again.
    pub(crate) fn is_written(&mut self, now: Instant) -> bool {
        if !self.writing.is_finished() {
            self.look_at = now + LOOK_PERIOD;
            return false;
        }
        true
    }

    /// Lets the objects go from memory that have been written.
    ///
    /// # Errors
    /// Why they could not be written.
    pub(crate) fn finish(self, registry: &mut Registry) -> io::Result<()> {
        let Self { owner: id, file, objects, writing, .. } = self;
        let places = writing.join().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        let slot = id.slot();
        let Some(owner) = registry.owners.get_mut(&slot).filter(|owner| owner.id == id) else {
            return Ok(());
        };
        let Some(mut remaining) = owner.remaining.take() else { return Ok(()) };
        let mut empty = Vec::new();
        if let Ok(places) = &places {
            for ((object, _), place) in objects.into_iter().zip(places) {
                if remaining.is_only_in_memory(object.index()) && spill(owner, object, *place) {
                    empty.extend(remaining.evicted_into(object.index(), file));
                }
            }
        }
        let is_unused = remaining.uncount_file(file).is_some();
        owner.remaining = Some(remaining);
        if is_unused {
            escrow::discard_spill_file(registry, slot, file);
        }
        for segment in empty {
            registry.retire(slot, segment);
        }
        places.map(drop)
    }
}

/// A segment of a dead owner in which no client uses any bytes, and the entries in it.
fn evictable_segment(registry: &Registry) -> Option<(u16, u32, Vec<u32>)> {
    registry.owners.iter().find_map(|(slot, owner)| {
        let remaining = owner.remaining.as_ref().filter(|remaining| remaining.is_taken_over())?;
        let is_unused =
            |index: &u32| owner.word(*index).state() == Some(State::Sealed) && !owner.is_mapped(*index);
        let mut segments = remaining.unspilled_segments().into_iter();
        let (segment, entries) = segments.find(|(_, entries)| entries.iter().all(is_unused))?;
        Some((*slot, segment, entries))
    })
}

/// Lets an object go whose record is on the disk; `false` if it stays.
fn spill(owner: &Owner, object: ObjectId, place: SpillLocation) -> bool {
    let index = object.index();
    owner.state_of(index, object.generation()) == Some(State::Sealed)
        && !owner.is_mapped(index)
        && try_spill(
            owner.view.word(index),
            object.generation(),
            || owner.is_mapped(index),
            || owner.view.set_spill_location(index, Some(place)),
        )
}

/// Writes the records of objects, and waits until the disk has them.
fn write(
    memory: &Memory,
    file: &File,
    number: u32,
    objects: &[(ObjectId, Location)],
) -> io::Result<Vec<SpillLocation>> {
    let mut writer = RecordWriter::new(file, number, 0);
    let mut places = Vec::with_capacity(objects.len());
    for (object, location) in objects {
        let record = RecordHeader::of(object.to_bytes(), location);
        let extent = record.extent().ok_or(io::ErrorKind::InvalidData)?;
        writer.begin(record)?;
        let (mut done, mut piece) = (0, vec![0; extent.min(PIECE_BYTES) as usize]);
        while done < extent {
            let piece = &mut piece[..(extent - done).min(PIECE_BYTES) as usize];
            memory.read(location.offset + done, piece)?;
            writer.add(piece)?;
            done += piece.len() as u64;
        }
        places.push(writer.end()?);
    }
    writer.sync()?;
    Ok(places)
}
