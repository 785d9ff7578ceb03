//! Spilling what the dead have left in memory: nobody else can, and a store that is full of it would stay so.
//!
//! As an owner does, a segment at a time: the objects are written into a file first, and then each leaves its memory by
//! the handshake, or stays because somebody uses its bytes. Writing and syncing may take their time, so a thread does
//! that, one batch at a time; it touches nothing but the file and the segment, whose objects do not change.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_shm::pins::try_spill;
use mobula_shm::spill::{HEADER_BYTES, Record, SpillPlace};
use mobula_shm::table::{Location, State};

use crate::daemon::Daemon;
use crate::daemon::client::record::Owner;
use crate::memory::Memory;

/// How soon it is looked again whether a batch is on the disk.
const LOOK_PERIOD: Duration = Duration::from_millis(5);
/// Bytes that are copied in one go.
const PIECE_BYTES: u64 = 1 << 20;

/// A segment whose objects are being written into a file.
pub(crate) struct Emptying {
    owner: OwnerId,
    file: u32,
    objects: Vec<Leaving>,
    writing: JoinHandle<io::Result<()>>,
    look_at: Instant,
}

/// An object, and where its record will be.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    object: ObjectId,
    location: Location,
    place: SpillPlace,
}

impl Daemon {
    /// Begins to empty a segment of a dead owner's, unless that goes on already or there is none.
    pub(crate) fn empty_adopted(&mut self, now: Instant) {
        if self.spilling.emptying.is_some() || !self.spilling.can_spill() {
            return;
        }
        let Some((slot, segment, indices)) = self.segment_to_empty() else { return };
        let (owner, Some(known)) = (&self.owners[&slot], self.segments.get(slot, segment)) else { return };
        let (id, memory, segment_bytes) = (owner.id, known.memory.clone(), known.bytes);
        let mut bytes = 0u64;
        let mut objects = Vec::with_capacity(indices.len());
        for index in indices {
            let (word, location) = (owner.word(index), owner.location(index));
            let object = ObjectId::new(id, index, word.generation());
            let record_bytes = Record::of(object.to_bytes(), &location).bytes();
            // Somebody scribbles into a dead client's table: then nothing of it goes anywhere.
            let (true, Some(record_bytes)) = (location.fits(segment_bytes), record_bytes) else { return };
            objects.push((object, location, bytes));
            bytes += record_bytes;
        }
        let (number, file) = match self.make_spill_file(slot, bytes) {
            Ok(made) => made,
            Err(refusal) => return self.spilling.fail(refusal, now),
        };
        let place = |(object, location, offset)| {
            Some(Leaving { object, location, place: SpillPlace::new(number, offset)? })
        };
        let objects: Option<Vec<Leaving>> = objects.into_iter().map(place).collect();
        let begun = objects.map(|objects| {
            let to_write = objects.clone();
            let write = move || write(&memory, &file, &to_write);
            let writing = std::thread::Builder::new().name("mobula-emptying".into()).spawn(write)?;
            Ok::<_, io::Error>((objects, writing))
        });
        match begun {
            Some(Ok((objects, writing))) => {
                // Kept from the beginning: a daemon that is killed later leaves it to the next.
                if let Some(adoption) = self.owners.get_mut(&slot).and_then(|owner| owner.adoption.as_mut()) {
                    adoption.count_file(number);
                }
                self.entrust_spill_files(slot);
                let look_at = now + LOOK_PERIOD;
                self.spilling.emptying =
                    Some(Emptying { owner: id, file: number, objects, writing, look_at });
            }
            _ => _ = self.spilling.discard(slot, number),
        }
    }

    /// Lets the objects go that have been written meanwhile.
    pub(crate) fn go_on_emptying(&mut self, now: Instant) {
        let Some(emptying) = &mut self.spilling.emptying else { return };
        if !emptying.is_written() {
            emptying.look_at = now + LOOK_PERIOD;
            return;
        }
        let Some(Emptying { owner: id, file, objects, writing, .. }) = self.spilling.emptying.take() else {
            return;
        };
        let result = writing.join().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        let slot = id.slot();
        let Some(owner) = self.owners.get_mut(&slot).filter(|owner| owner.id == id) else { return };
        let Some(mut adoption) = owner.adoption.take() else { return };
        let mut empty = Vec::new();
        let is_written = result.is_ok();
        match result {
            Ok(()) => {
                for leaving in objects {
                    if adoption.is_in_memory(leaving.object.index()) && spill(owner, &leaving) {
                        empty.extend(adoption.went(leaving.object.index(), file));
                    }
                }
            }
            Err(error) => self.spilling.fail_because(error.to_string(), now),
        }
        let unused = adoption.uncount_file(file).is_some();
        owner.adoption = Some(adoption);
        if unused {
            self.discard_adopted_file(slot, file);
        }
        for segment in empty {
            self.retire(slot, segment);
        }
        if is_written && self.missing_bytes(now) > 0 {
            self.empty_adopted(now);
        }
    }

    /// A segment of a dead owner's of which nobody uses any bytes, and the entries in it.
    fn segment_to_empty(&self) -> Option<(u16, u32, Vec<u32>)> {
        self.owners.iter().find_map(|(slot, owner)| {
            let adoption = owner.adoption.as_ref().filter(|adoption| adoption.is_taken_over())?;
            let may_go =
                |index: &u32| owner.word(*index).state() == Some(State::Sealed) && !owner.is_mapped(*index);
            let mut segments = adoption.entries_in_memory().into_iter();
            let (segment, entries) = segments.find(|(_, entries)| entries.iter().all(may_go))?;
            Some((*slot, segment, entries))
        })
    }
}

impl Emptying {
    pub(crate) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Whether everything is on the disk, or could not be written.
    pub(crate) fn is_written(&self) -> bool {
        self.writing.is_finished()
    }
}

/// Lets an object go whose record is on the disk; `false` if it stays.
fn spill(owner: &Owner, leaving: &Leaving) -> bool {
    let Leaving { object, place, .. } = *leaving;
    let index = object.index();
    owner.state_of(index, object.generation()) == Some(State::Sealed)
        && !owner.is_mapped(index)
        && try_spill(
            owner.view.word(index),
            object.generation(),
            || owner.is_mapped(index),
            || owner.view.set_spill_place(index, Some(place)),
        )
}

/// Writes records, and waits until the disk has them.
fn write(memory: &Memory, file: &Arc<File>, objects: &[Leaving]) -> io::Result<()> {
    for Leaving { object, location, place } in objects {
        let record = Record::of(object.to_bytes(), location);
        let extent = record.extent().ok_or(io::ErrorKind::InvalidData)?;
        let (mut checksum, mut done) = (record.checksum(), 0);
        let mut piece = vec![0; extent.min(PIECE_BYTES) as usize];
        while done < extent {
            let piece = &mut piece[..(extent - done).min(PIECE_BYTES) as usize];
            memory.read(location.offset + done, piece)?;
            checksum.add(piece);
            file.write_all_at(piece, place.offset() + HEADER_BYTES as u64 + done)?;
            done += piece.len() as u64;
        }
        file.write_all_at(&record.header(checksum.finish()), place.offset())?;
    }
    file.sync_data()
}
