//! This client as an owner: its table, its memory, and the freeing of what nobody uses.
//!
//! # Freeing
//!
//! An object that this process has let go of waits in a list, `pending`, until there are [`BATCH`] of them, or one that
//! is large or keeps others alive, or until memory is short or the client's thread comes by. They are then freed
//! together: the fence of the handshake ([`mobula_shm::pins`]) and the look at every reader's pins are paid once for
//! all of them. What others still use moves on to the list `deferred`, which only [`Own::free_deferred`]
//! looks at.
//!
//! | an entry's count | the entry | is left by |
//! |---|---|---|
//! | 0 | is vacant, or a fresh one | `begin`, which has it to itself |
//! | uses | is being made, or an object in use | the last `release` |
//! | `QUEUED` | is an object that waits in exactly one list | `acquire` (it stays in its list), or being freed |
//! | uses and `QUEUED` | is an object in use again | the next look at the list, which forgets it |
//!
//! # Who keeps the client
//!
//! What is used here needs the client's memory and books, although nothing that is used refers to them by an `Arc`: a
//! client that is closed while objects are in use keeps itself, in `books.keeper`, until the last one is let go of.
//!
//! # Spilling
//!
//! An object of which this process does not use the bytes can go to a file, also one that is held, here or elsewhere:
//! under its busy count, by a handshake of its own (see [`crate::spill`]). It has no memory then, and its table entry
//! says where its record lies. It is freed as others are.
//!
//! # Moving
//!
//! A small object of which nobody uses the bytes can lie anywhere: when memory is short, such objects move together, under
//! their busy counts and by the same handshake, so that pages come free ([`Own::pack`]).
//!
//! Lock order: a [`Busy`] count, then `books`, then `readers`. Nobody waits for a count while holding a
//! lock. References that a freed object kept are handed back to the caller and dropped outside of all of them.

pub(crate) mod alloc;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_shm::bell::Bell;
use mobula_shm::directory::DirectoryReader;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::mapping::WriteMapping;
use mobula_shm::memory::punch_hole;
use mobula_shm::pins::{
    Candidate, MAPPED, PinReader, PinWriter, WAITING, free_together, try_move, try_spill,
};
use mobula_shm::spill::SpillPlace;
use mobula_shm::table::{ENTRIES_MAX, Location, State, TableWriter, Word};
use parking_lot::{Mutex, RwLock};

use crate::counting::count::{Busy, Chunks, Count, TooMany, Unused, Use};
use crate::object::Handle;
use crate::owner::alloc::{Allocation, Allocator, Packing, UnusedPages};
use crate::shared::Shared;
use crate::spill::{Leaving, Spills};

/// Objects that are freed together.
const BATCH: usize = 32;
/// Entries that are no further apart than this are looked at together.
const NEAR: u32 = 4096;
/// Objects that are moved in one go.
const MOVES_MAX: usize = 1 << 15;
/// Books of fewer entries stay as they are.
const SHRINK_ENTRIES_MIN: usize = 1 << 16;
/// An object of so many bytes is not kept waiting.
const LARGE_BYTES_MIN: u64 = 64 << 10;

/// What an entry of the table needs in the owner's heap.
#[derive(Debug, Default)]
struct Entry {
    allocation: Option<Allocation>,
    /// Place in `Books::kept`, plus one; 0 for an object that keeps no others alive.
    kept: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

struct Segment {
    id: u32,
    mapping: WriteMapping,
    /// For the next daemon, and to give pages back by.
    descriptor: Arc<OwnedFd>,
}

/// What another daemon has to know of an owner, beside its table and its pins.
pub(crate) struct Holdings {
    /// Number, bytes, and a descriptor of each segment.
    pub(crate) segments: Vec<(u32, u64, OwnedFd)>,
    /// The largest number of a segment so far.
    pub(crate) segment_last: u32,
    /// Who is known as a reader.
    pub(crate) readers: Vec<OwnerId>,
    /// How many readers have ever joined, as far as we have heard.
    pub(crate) readers_heard: u64,
}

struct Books {
    allocator: Allocator,
    /// By the allocator's numbers.
    segments: Vec<Option<Segment>>,
    /// The largest id of a segment so far.
    segment_last: u32,
    entries: Vec<Entry>,
    /// What objects keep alive.
    kept: Vec<Vec<Handle>>,
    kept_vacant: Vec<u32>,
    /// Indices to use again: first in, first out, so that a generation lasts long.
    vacant: VecDeque<u32>,
    entries_committed: u32,
    /// Entries that this process does not use any more.
    pending: VecDeque<u32>,
    /// Entries that this process does not use any more, but others did when it last looked.
    deferred: VecDeque<u32>,
    /// Entries that this process uses.
    in_use: u32,
    /// Objects begun so far.
    begun: u64,
    shrinking: Shrinking,
    closed: bool,
    /// Once closed, and while anything is in use.
    keeper: Option<Arc<Shared>>,
}

/// The last look whether these books have grown too large.
#[derive(Debug, Default)]
struct Shrinking {
    /// Objects begun, and vacant entries, by then.
    seen: (u64, usize),
    /// Whether what can be done has been done since.
    done: bool,
}

/// A client that may pin our objects.
struct Reader {
    id: OwnerId,
    pins: PinReader,
    bell: Option<Bell>,
}

/// An entry and memory, taken but not yet visible to anybody, with one use counted: see [`Usage::begin`].
///
/// [`Usage::begin`]: crate::reference::Usage::begin
pub(crate) struct Begun<'a> {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    pub(crate) count: &'a Count,
    pub(crate) place: Option<Place>,
}

/// Memory for an object.
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    /// As many bytes as were asked for, and mapped for as long as the entry is not vacant.
    pub(crate) pointer: NonNull<u8>,
}

/// What must be asked of the daemon before an object can be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Memory,
    Entries { at_least: u32 },
}

/// The owner's side of everything.
pub(crate) struct Own {
    pub(crate) id: OwnerId,
    counts: Chunks<Count>,
    table: TableWriter,
    pins: PinWriter,
    directory: Arc<DirectoryReader>,
    books: Mutex<Books>,
    readers: RwLock<Vec<Reader>>,
    /// How many readers have ever joined, as far as we have heard.
    readers_heard: AtomicU64,
    /// What is in files.
    pub(crate) spills: Spills,
    /// The client that this is a part of.
    client: Weak<Shared>,
}

impl Own {
    #[expect(clippy::too_many_arguments, reason = "all of it came with the daemon's welcome")]
    pub(crate) fn new(
        id: OwnerId,
        table: TableWriter,
        pins: PinWriter,
        daemon_pins: PinReader,
        directory: Arc<DirectoryReader>,
        entries_committed: u32,
        spills: Spills,
        client: Weak<Shared>,
    ) -> Self {
        let books = Books {
            allocator: Allocator::new(),
            segments: Vec::new(),
            segment_last: 0,
            entries: Vec::new(),
            kept: Vec::new(),
            kept_vacant: Vec::new(),
            vacant: VecDeque::new(),
            entries_committed,
            pending: VecDeque::new(),
            deferred: VecDeque::new(),
            in_use: 0,
            begun: 0,
            shrinking: Shrinking::default(),
            closed: false,
            keeper: None,
        };
        let daemon = Reader { id: OwnerId::new(0, 0), pins: daemon_pins, bell: None };
        Self {
            id,
            counts: Chunks::new(),
            table,
            pins,
            directory,
            books: Mutex::new(books),
            readers: RwLock::new(vec![daemon]),
            readers_heard: AtomicU64::new(0),
            spills,
            client,
        }
    }

    // ---- making objects ----

    /// Takes an entry and `bytes` of memory, with one use counted.
    pub(crate) fn begin(&self, bytes: u64, kind: Use) -> Result<Begun<'_>, Need> {
        let mut books = self.books.lock();
        let (index, place) = books.begin(bytes)?;
        books.in_use += 1;
        books.begun += 1;
        drop(books);
        // The entry is vacant: its count is zero, which nobody else changes, and its pin nobody else writes.
        let generation = Word::from_bits(self.table.word(index).load(Ordering::Relaxed)).generation();
        self.pins.set_own(index, kind.pin_bits());
        failpoint(Failpoint::CreatePinned);
        let count = self.counts.get_or_make(index);
        count.begin(kind);
        Ok(Begun { index, generation, count, place })
    }

    /// Makes a begun object visible: from here on its bytes never change.
    #[inline]
    pub(crate) fn seal(&self, index: u32, generation: u32, location: &Location, references: Vec<Handle>) {
        if !references.is_empty() {
            self.books.lock().keep(index, references);
        }
        self.table.fill(index, location);
        failpoint(Failpoint::SealFilled);
        // Release: publishes the bytes and the location to whoever finds the word sealed.
        self.table.word(index).store(Word::new(generation, State::Sealed).bits(), Ordering::Release);
        failpoint(Failpoint::SealStored);
    }

    /// Shows a begun object as promised.
    pub(crate) fn promise(&self, index: u32, generation: u32) {
        self.table.word(index).store(Word::new(generation, State::Promised).bits(), Ordering::Release);
        failpoint(Failpoint::PromiseStored);
    }

    /// Keeps a promise with what was begun under another index, which becomes vacant when its use ends.
    pub(crate) fn fulfil(
        &self,
        promised: ObjectId,
        written: u32,
        location: &Location,
        references: Vec<Handle>,
    ) {
        {
            let mut books = self.books.lock();
            let allocation = books.entries[written as usize].allocation.take();
            books.entries[promised.index() as usize].allocation = allocation;
            if !references.is_empty() {
                books.keep(promised.index(), references);
            }
        }
        self.table.fill(promised.index(), location);
        failpoint(Failpoint::FulfilFilled);
        self.settle(promised, State::Sealed);
    }

    /// Ends a promise that will not be kept.
    pub(crate) fn break_promise(&self, promised: ObjectId) {
        self.settle(promised, State::Lost);
    }

    fn settle(&self, promised: ObjectId, state: State) {
        self.table.settle(promised.index(), Word::new(promised.generation(), state));
        failpoint(Failpoint::SettleStored);
        for reader in self.readers.read().iter() {
            if reader.pins.get(promised.index()) & WAITING != 0
                && let Some(bell) = &reader.bell
            {
                bell.ring();
                failpoint(Failpoint::SettleRung);
            }
        }
    }

    // ---- using objects ----

    pub(crate) fn word(&self, index: u32) -> Word {
        // Acquire: pairs with the sealing store.
        Word::from_bits(self.table.word(index).load(Ordering::Acquire))
    }

    /// What an object of this client's is. Of a spilled one, segment and offset mean nothing.
    pub(crate) fn location(&self, index: u32) -> Location {
        self.table.location(index)
    }

    /// The client that this is a part of; there is one while anything is in use.
    pub(crate) fn client(&self) -> Option<Arc<Shared>> {
        self.client.upgrade()
    }

    /// Where an object that is used here for its bytes lies, and what it is.
    pub(crate) fn locate(&self, index: u32) -> Option<(NonNull<u8>, Location)> {
        let location = self.table.location(index);
        let bytes = Location::extent(location.length, location.references)?;
        if bytes == 0 {
            return Some((crate::object::dangling(), location));
        }
        let books = self.books.lock();
        let allocation = books.entries.get(index as usize)?.allocation?;
        let segment = books.segments[allocation.segment as usize].as_ref()?;
        Some((segment.mapping.pointer(allocation.offset() as usize, bytes as usize), location))
    }

    /// Counts a use of an entry, whatever is in it; `None` where there is nothing. Memory operations only.
    #[inline]
    pub(crate) fn acquire(&self, index: u32, kind: Use) -> Result<Option<&Count>, TooMany> {
        let Some(count) = self.counts.get(index) else { return Ok(None) };
        let counted = count.add(kind) || self.acquire_first(index, count, kind)?;
        Ok(counted.then_some(count))
    }

    /// The first use of its kind; `false` where there is nothing.
    pub(crate) fn acquire_first(&self, index: u32, count: &Count, kind: Use) -> Result<bool, TooMany> {
        let Some(mut busy) = count.lock_known() else { return Ok(false) };
        let first = busy.is_unused();
        busy.add(kind)?;
        self.pins.set_own(index, busy.pin_bits());
        if first {
            self.books.lock().in_use += 1;
        }
        busy.finish();
        Ok(true)
    }

    /// Ends the last use of a kind; the last one of all lets the object be freed. What a freed object kept goes to
    /// `garbage`.
    ///
    /// Unless this returns the client, to be dropped when nothing of it is needed any more, other threads may have
    /// ended it: the last access to it is the store of the count, or to unlock the books.
    ///
    /// # Safety
    /// A use of this kind of the entry at `index` is counted in `count`, and is ended by this call. That it is counted keeps the
    /// client until then, and nothing needs to keep it longer.
    pub(crate) unsafe fn release_last(
        own: NonNull<Self>,
        index: u32,
        count: NonNull<Count>,
        kind: Use,
        garbage: &mut Vec<Handle>,
    ) -> Option<Arc<Shared>> {
        // No reference to any of it is an argument, which would have to be valid until the end.
        //
        // SAFETY: the use keeps the client, of which both are parts, until the count is stored, and the books are unlocked,
        // below. Neither is used after that.
        let (this, count) = unsafe { (own.as_ref(), count.as_ref()) };
        let mut busy = count.lock();
        busy.sub(kind);
        if !busy.is_unused() {
            this.pins.set_own(index, busy.pin_bits());
            busy.finish();
            return None;
        }
        this.pins.set_own(index, 0);
        let word = Word::from_bits(this.table.word(index).load(Ordering::Relaxed));
        // Who asked for a deleted object is told that it is gone, once it is: it may be in either list.
        let deleted = word.state() == Some(State::Deleted);
        let mut urgent = deleted;
        let client = {
            let mut books = this.books.lock();
            books.in_use -= 1;
            // The last one that a closed client was kept for.
            let mut client = if books.in_use == 0 { books.keeper.take() } else { None };
            if word.state() == Some(State::Free) {
                // It was begun and never sealed, or has become another, promised one.
                this.vacate(&mut books, index, word);
            } else if busy.queue() {
                books.pending.push_back(index);
                let location = this.table.location(index);
                urgent |= books.pending.len() >= BATCH
                    || location.length >= LARGE_BYTES_MIN
                    || location.references > 0
                    || books.closed
                    // Without leases the client's thread does not come by.
                    || !books.allocator.has_segments();
            }
            if urgent && client.is_none() {
                // It cannot be gone yet: it is in use until the lock is free.
                client = this.client.upgrade();
            }
            // Inside the lock, so that whoever finds nothing in use also finds this thread done with the count.
            busy.finish();
            client
        };
        let client = client?;
        if deleted {
            client.own.collect(garbage);
        } else if urgent {
            client.own.free_pending(garbage);
        }
        Some(client)
    }

    /// Refuses new uses of an object; `false` if it is not there.
    pub(crate) fn delete(&self, object: ObjectId) -> bool {
        let Some(count) = self.counts.get(object.index()) else { return false };
        // Busy: it is not being freed meanwhile.
        let Some(busy) = count.lock_known() else { return false };
        let sealed = Word::new(object.generation(), State::Sealed).bits();
        let deleted = Word::new(object.generation(), State::Deleted).bits();
        let word = self.table.word(object.index());
        // Release, as every store of the word: those that hold the object follow its location, deleted or not.
        let done = word.compare_exchange(sealed, deleted, Ordering::Release, Ordering::Relaxed).is_ok();
        failpoint(Failpoint::DeleteStored);
        busy.finish();
        done
    }

    // ---- freeing objects ----

    /// Frees what has been let go of, as far as nobody else uses it; `true` if there was anything.
    pub(crate) fn free_pending(&self, garbage: &mut Vec<Handle>) -> bool {
        self.free_list(|books| &mut books.pending, garbage)
    }

    /// Looks again at what others still used; `true` if anything was freed.
    pub(crate) fn free_deferred(&self, garbage: &mut Vec<Handle>) -> bool {
        self.free_list(|books| &mut books.deferred, garbage)
    }

    /// Frees whatever can be.
    pub(crate) fn collect(&self, garbage: &mut Vec<Handle>) -> bool {
        // First what was deferred before: what is pending may be deferred now.
        let freed = self.free_deferred(garbage);
        self.free_pending(garbage) || freed
    }

    /// Works off what is in a list now; it may be put into one again.
    fn free_list(&self, list: impl Fn(&mut Books) -> &mut VecDeque<u32>, garbage: &mut Vec<Handle>) -> bool {
        let (mut left, mut freed) = (usize::MAX, false);
        while left > 0 {
            let mut batch = [0; BATCH];
            let mut books = self.books.lock();
            let list = list(&mut books);
            left = left.min(list.len());
            let len = left.min(BATCH);
            left -= len;
            for (place, index) in batch.iter_mut().zip(list.drain(..len)) {
                *place = index;
            }
            drop(books);
            freed |= self.free_batch(&batch[..len], garbage);
        }
        freed
    }

    /// Frees entries from a list that nobody uses, here or elsewhere; puts the others into a list again, if they belong
    /// into one. `true` if anything was freed.
    fn free_batch(&self, indices: &[u32], garbage: &mut Vec<Handle>) -> bool {
        let mut locked: [Option<Busy<'_>>; BATCH] = [const { None }; BATCH];
        let mut candidates: [Candidate<'_>; BATCH] = std::array::from_fn(|_| self.no_candidate());
        let mut len = 0;
        for &index in indices {
            match self.counts.get_or_make(index).lock_unused() {
                Unused::Locked(mut busy) => {
                    let word = self.table.word(index);
                    let from = Word::from_bits(word.load(Ordering::Relaxed));
                    let free = [State::Sealed, State::Deleted, State::Spilled, State::Lost];
                    if from.state().is_some_and(|state| free.contains(&state)) {
                        candidates[len] = Candidate { index, word, from, held: false };
                        locked[len] = Some(busy);
                        len += 1;
                    } else {
                        // Not a state that an object is let go of in.
                        busy.unqueue();
                        busy.finish();
                    }
                }
                // The next release looks after it.
                Unused::InUse => {}
                Unused::Busy => self.books.lock().pending.push_back(index),
            }
        }
        let candidates = &mut candidates[..len];
        if candidates.is_empty() {
            return false;
        }
        free_together(candidates, |candidates| self.look(candidates));
        let (mut freed, mut records) = (false, Vec::new());
        let mut books = self.books.lock();
        for (candidate, busy) in candidates.iter().zip(&mut locked) {
            let mut busy = busy.take().expect("locked with the candidate");
            if candidate.held {
                books.deferred.push_back(candidate.index);
            } else {
                freed = true;
                if candidate.from.state() == Some(State::Spilled) {
                    records.extend(self.table.spill_place(candidate.index));
                    self.table.set_spill_place(candidate.index, None);
                }
                books.end(candidate.index, garbage);
                busy.unqueue();
            }
            busy.finish();
        }
        drop(books);
        records.into_iter().for_each(|place| self.spills.remove_record(place.file()));
        freed
    }

    fn no_candidate(&self) -> Candidate<'_> {
        Candidate { index: 0, word: self.table.word(0), from: Word::from_bits(0), held: false }
    }

    /// Looks at every reader's pins.
    fn look(&self, candidates: &mut [Candidate<'_>]) {
        let readers = self.readers.read();
        // A reader that we have not heard of may hold anything. Acquire: pairs with `reader_joined`.
        let unknown = self.directory.readers(self.id.slot()) != self.readers_heard.load(Ordering::Acquire);
        if unknown {
            candidates.iter_mut().for_each(|candidate| candidate.held = true);
            return;
        }
        // Entries that are freed together were made together, as a rule: their pins are neighbours, and a look or two
        // at the whole range shows that a reader has none of them.
        let indices = candidates.iter().map(|candidate| candidate.index);
        let (first, last) = indices.fold((u32::MAX, 0), |(first, last), at| (first.min(at), last.max(at)));
        let are_near = last - first < NEAR;
        for reader in readers.iter() {
            if are_near && !reader.pins.may_hold(first..=last) {
                continue;
            }
            for candidate in candidates.iter_mut() {
                candidate.held |= reader.pins.get(candidate.index) != 0;
            }
        }
    }

    /// Lets an entry that was begun, and never sealed, be used again. Its maker may have told others the id, so that
    /// must not come to mean the next object.
    fn vacate(&self, books: &mut Books, index: u32, word: Word) {
        let next = Word::new(word.generation().wrapping_add(1), State::Free);
        self.table.word(index).store(next.bits(), Ordering::Release);
        failpoint(Failpoint::AbortFreed);
        books.end(index, &mut Vec::new());
    }

    // ---- spilling objects ----

    /// Segments of `wanted` bytes that could be emptied now, the one that was used least recently first. Nothing is
    /// allocated in them until [`end_leaving`](Self::end_leaving).
    pub(crate) fn choose_leaving(&self, wanted: u64) -> Vec<Leaving> {
        let mut books = self.books.lock();
        let mut entries: Vec<Vec<u32>> = books.segments.iter().map(|_| Vec::new()).collect();
        for (index, entry) in books.entries.iter().enumerate() {
            if let Some(allocation) = &entry.allocation {
                entries[allocation.segment as usize].push(index as u32);
            }
        }
        let (mut chosen, mut bytes) = (Vec::new(), 0);
        let least_recent: Vec<u32> = books.allocator.least_recent().collect();
        for number in least_recent {
            if bytes >= wanted {
                break;
            }
            if books.segments[number as usize].is_none() {
                continue;
            }
            let segment_bytes = books.allocator.pages_bytes(number);
            let in_it = std::mem::take(&mut entries[number as usize]);
            let Some(objects) = in_it.into_iter().map(|index| self.may_spill(index)).collect() else {
                continue;
            };
            bytes += segment_bytes;
            books.allocator.leave(number);
            chosen.push(Leaving { number, bytes: segment_bytes, objects });
        }
        chosen
    }

    /// Lets a segment go that was chosen, and returns its id, if it is empty now; else it is used again.
    pub(crate) fn end_leaving(&self, number: u32) -> Option<u32> {
        let mut books = self.books.lock();
        if !books.allocator.remove_segment(number) {
            books.allocator.stay(number);
            return None;
        }
        let segment = books.segments[number as usize].take();
        drop(books);
        segment.map(|segment| segment.id)
    }

    /// The object in an entry, if it is sealed and nobody seems to use its bytes.
    fn may_spill(&self, index: u32) -> Option<ObjectId> {
        let word = self.word(index);
        let is_lent_here = self.counts.get(index).is_none_or(|count| count.is_lent());
        let may = word.state() == Some(State::Sealed) && !is_lent_here && !self.is_mapped_elsewhere(index);
        may.then(|| ObjectId::new(self.id, index, word.generation()))
    }

    /// Whether another process may have an object's bytes.
    fn is_mapped_elsewhere(&self, index: u32) -> bool {
        // A reader that we have not heard of may have anything. Acquire: pairs with `reader_joined`.
        self.directory.readers(self.id.slot()) != self.readers_heard.load(Ordering::Acquire)
            || self.readers.read().iter().any(|reader| reader.pins.get(index) & MAPPED != 0)
    }

    /// Lets an object go from its memory, of which there is a record at `place`; `false` if it stays because somebody
    /// uses its bytes, or it is not sealed. The caller has a handle.
    pub(crate) fn spill(&self, object: ObjectId, place: SpillPlace) -> bool {
        let index = object.index();
        let sealed = Word::new(object.generation(), State::Sealed);
        // Busy: nobody here is lent the bytes meanwhile.
        let busy = self.counts.get_or_make(index).lock();
        if !busy.is_without(Use::Bytes) || self.word(index) != sealed {
            return false;
        }
        let spilled = try_spill(
            self.table.word(index),
            object.generation(),
            || self.is_mapped_elsewhere(index),
            || self.table.set_spill_place(index, Some(place)),
        );
        if spilled {
            failpoint(Failpoint::SpillStored);
            let mut books = self.books.lock();
            if let Some(allocation) = books.entries[index as usize].allocation.take() {
                books.allocator.free(allocation);
            }
        }
        busy.finish();
        spilled
    }

    /// What a spilled object is, and where its record lies; `None` if it is not spilled.
    pub(crate) fn spilled(&self, object: ObjectId) -> Option<(Location, SpillPlace)> {
        let index = object.index();
        // An id that was never given out may have an index that there is not.
        self.counts.get(index)?;
        if self.word(index) != Word::new(object.generation(), State::Spilled) {
            return None;
        }
        Some((self.table.location(index), self.table.spill_place(index)?))
    }

    /// Gives a spilled object the memory of what was begun under another index, which becomes vacant when its use ends;
    /// `false` if it is not spilled any more. The caller uses the object.
    pub(crate) fn bring_back(&self, object: ObjectId, written: u32, location: &Location) -> bool {
        let index = object.index();
        let busy = self.counts.get_or_make(index).lock();
        if self.spilled(object).is_none() {
            return false;
        }
        let mut books = self.books.lock();
        let allocation = books.entries[written as usize].allocation.take();
        books.entries[index as usize].allocation = allocation;
        drop(books);
        self.table.fill(index, location);
        failpoint(Failpoint::RestoreFilled);
        // Release: as for an object that is sealed for the first time.
        self.table.word(index).store(Word::new(object.generation(), State::Sealed).bits(), Ordering::Release);
        failpoint(Failpoint::RestoreStored);
        self.table.set_spill_place(index, None);
        busy.finish();
        true
    }

    // ---- moving objects ----

    /// Moves small objects of which nobody uses the bytes together, so that pages come free.
    pub(crate) fn pack(&self) {
        let books = self.books.lock();
        let Some(mut packing) = books.allocator.begin_packing() else { return };
        let ranked = |(index, entry): (usize, &Entry)| {
            Some((books.allocator.rank(&packing, entry.allocation?)?, index as u32))
        };
        let mut order: Vec<_> = books.entries.iter().enumerate().filter_map(ranked).collect();
        drop(books);
        // The last ones first, into the first places that are free.
        order.sort_unstable();
        let moved = order.into_iter().rev().filter(|(_, index)| self.move_object(*index, &mut packing));
        let _objects = moved.take(MOVES_MAX).count();
    }

    /// Moves an object to a better place, if there is one, it is sealed, and nobody uses its bytes.
    fn move_object(&self, index: u32, packing: &mut Packing) -> bool {
        // Busy: nobody here is lent the bytes meanwhile, and it is not being freed.
        let Some(busy) = self.counts.get(index).and_then(Count::lock_known) else { return false };
        let word = self.word(index);
        if word.state() != Some(State::Sealed)
            || !busy.is_without(Use::Bytes)
            || self.is_mapped_elsewhere(index)
        {
            return false;
        }
        let location = self.table.location(index);
        let mut guard = self.books.lock();
        let books = &mut *guard;
        let (Some(from), Some(bytes)) = (
            books.entries[index as usize].allocation,
            Location::extent(location.length, location.references),
        ) else {
            return false;
        };
        let Some(to) = books.allocator.take_better(packing, from) else { return false };
        let [source, target] = [from, to].map(|place| {
            let segment =
                books.segments[place.segment as usize].as_ref().expect("an allocation's segment is mapped");
            (segment.id, segment.mapping.pointer(place.offset() as usize, bytes as usize))
        });
        // SAFETY: both ranges lie inside mappings, which stay while the books are locked; they are different slots, so they
        // do not overlap. The source is sealed, so nobody writes it; the target was free until now, so nobody uses it.
        unsafe { target.1.copy_from_nonoverlapping(source.1, bytes as usize) };
        let moved = try_move(
            self.table.word(index),
            word.generation(),
            || self.is_mapped_elsewhere(index),
            || self.table.set_place(index, target.0, to.offset()),
        );
        if moved {
            failpoint(Failpoint::CompactStored);
            books.entries[index as usize].allocation = Some(to);
        }
        books.allocator.free(if moved { from } else { to });
        drop(guard);
        busy.finish();
        moved
    }

    // ---- the client's end ----

    /// From now on the client lives only as long as anything is in use. What is not is freed by the caller.
    pub(crate) fn close(&self, client: &Arc<Shared>) {
        let mut books = self.books.lock();
        books.closed = true;
        if books.in_use > 0 {
            books.keeper = Some(client.clone());
        }
    }

    // ---- memory and readers, as the daemon gives and takes them ----

    pub(crate) fn add_segment(&self, id: u32, mapping: WriteMapping, descriptor: OwnedFd) {
        let mut books = self.books.lock();
        books.segment_last = books.segment_last.max(id);
        let number = books.allocator.add_segment(mapping.len() as u64) as usize;
        if number == books.segments.len() {
            books.segments.push(None);
        }
        books.segments[number] = Some(Segment { id, mapping, descriptor: Arc::new(descriptor) });
    }

    /// Takes out the segments that have been empty since `before`, to be given back.
    pub(crate) fn take_empty_segments(&self, before: u64) -> Vec<u32> {
        let mut taken = Vec::new();
        let mut books = self.books.lock();
        for number in books.allocator.empty_since(before) {
            if books.allocator.remove_segment(number) {
                taken.extend(books.segments[number as usize].take());
            }
        }
        drop(books);
        taken.into_iter().map(|segment| segment.id).collect()
    }

    /// Gives unused pages of segments that are in use back to the system, `wanted` bytes or all there are. Returns the ids of
    /// these segments, for the daemon, and the number of bytes. Pages of slabs are given back only if `packed`, that is,
    /// after [`pack`](Self::pack). (A huge page that the kernel cannot split at that moment stays, and counts, until its
    /// segment goes.)
    pub(crate) fn shrink(&self, wanted: u64, packed: bool) -> (BTreeSet<u32>, u64) {
        let mut books = self.books.lock();
        let allocator = &mut books.allocator;
        let unused = if packed { allocator.take_unused(wanted) } else { allocator.take_unused_runs(wanted) };
        let known = |part: &UnusedPages| {
            let segment = books.segments[part.segment as usize].as_ref()?;
            Some((segment.id, segment.descriptor.clone(), *part))
        };
        let parts: Vec<_> = unused.iter().filter_map(known).collect();
        drop(books);
        let (mut shrunk, mut bytes) = (BTreeSet::new(), 0);
        for (id, descriptor, UnusedPages { offset, bytes: length, .. }) in parts {
            match punch_hole(descriptor.as_fd(), offset..offset + length) {
                Ok(()) => {
                    failpoint(Failpoint::HolePunched);
                    shrunk.insert(id);
                    bytes += length;
                }
                // They go with the segment, then.
                Err(error) => tracing::warn!(id, %error, "cannot give pages of a segment back"),
            }
        }
        (shrunk, bytes)
    }

    /// Whether an object of so many bytes would find room.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let mut books = self.books.lock();
        let found = books.allocator.allocate(bytes);
        found.inspect(|found| books.allocator.free(*found)).is_some()
    }

    /// What another daemon has to know.
    pub(crate) fn holdings(&self) -> io::Result<Holdings> {
        let books = self.books.lock();
        let segments =
            books.segments.iter().flatten().map(|segment| {
                Ok((segment.id, segment.mapping.len() as u64, segment.descriptor.try_clone()?))
            });
        let (segments, segment_last) = (segments.collect::<io::Result<_>>()?, books.segment_last);
        drop(books);
        // The first is the daemon itself.
        let readers = self.readers.read().iter().skip(1).map(|reader| reader.id).collect();
        let readers_heard = self.readers_heard.load(Ordering::Acquire);
        Ok(Holdings { segments, segment_last, readers, readers_heard })
    }

    /// Whether there is anything to look after: memory, objects that are to be freed, or books that are too large.
    pub(crate) fn has_work(&self) -> bool {
        let books = self.books.lock();
        books.allocator.has_segments()
            || !books.pending.is_empty()
            || !books.deferred.is_empty()
            || books.are_too_large()
    }

    /// Lets the heap have back what the books took for objects that are gone; `true` if that was much. Does nothing while
    /// objects come and go: it wants two calls without any in between.
    pub(crate) fn shrink_books(&self) -> bool {
        let mut books = self.books.lock();
        let seen = (books.begun, books.vacant.len());
        if books.shrinking.seen != seen {
            books.shrinking = Shrinking { seen, done: false };
            return false;
        }
        books.are_too_large() && books.shrink()
    }

    pub(crate) fn set_now(&self, now: u64) {
        self.books.lock().allocator.set_now(now);
    }

    /// Bytes of the pages of all leases.
    pub(crate) fn leased_bytes(&self) -> u64 {
        self.books.lock().allocator.held_bytes()
    }

    pub(crate) fn grow_table(&self, entries: u32) {
        self.books.lock().entries_committed = entries.min(ENTRIES_MAX);
    }

    /// A reader may pin our objects. One that is introduced twice is known once.
    pub(crate) fn reader_joined(&self, id: OwnerId, pins: PinReader, bell: Bell) {
        let mut readers = self.readers.write();
        if readers.iter().any(|reader| reader.id == id) {
            return;
        }
        readers.push(Reader { id, pins, bell: Some(bell) });
        failpoint(Failpoint::ReaderNoted);
        // Release, and after the push: who sees the count also sees the reader.
        self.readers_heard.fetch_add(1, Ordering::Release);
        // It may wait already for a promise that was settled before it was known here.
        if let Some(bell) = readers.last().and_then(|reader| reader.bell.as_ref()) {
            bell.ring();
        }
    }

    /// A reader has come and gone without having been met.
    pub(crate) fn reader_missed(&self) {
        self.readers_heard.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn reader_gone(&self, id: OwnerId) {
        self.readers.write().retain(|reader| reader.id != id);
    }

    /// Whether nobody at all uses the object, in any process, beyond `expected` handles of this one.
    pub(crate) fn is_held_elsewhere(&self, index: u32, count: &Count, expected: u64) -> bool {
        count.handles() > expected
            || self.directory.readers(self.id.slot()) != self.readers_heard.load(Ordering::Acquire)
            || self.readers.read().iter().any(|reader| reader.pins.get(index) != 0)
    }

    /// The table, of which one's own header is a part.
    pub(crate) fn table(&self) -> &TableWriter {
        &self.table
    }

    /// Objects that are alive, those included that are promised or being made.
    pub(crate) fn live(&self) -> u64 {
        let books = self.books.lock();
        (books.entries.len() - books.vacant.len()) as u64
    }
}

impl Books {
    fn begin(&mut self, bytes: u64) -> Result<(u32, Option<Place>), Need> {
        let index = self.peek_index()?;
        let (mut allocation, mut place) = (None, None);
        if bytes > 0 {
            let found = self.allocator.allocate(bytes).ok_or(Need::Memory)?;
            let segment =
                self.segments[found.segment as usize].as_ref().expect("an allocation's segment is mapped");
            let pointer = segment.mapping.pointer(found.offset() as usize, bytes as usize);
            place = Some(Place { segment: segment.id, offset: found.offset(), pointer });
            allocation = Some(found);
        }
        self.take_index(index);
        self.entries[index as usize].allocation = allocation;
        Ok((index, place))
    }

    /// The index that the next object gets.
    fn peek_index(&self) -> Result<u32, Need> {
        let next = self.entries.len() as u32;
        let fresh = next < self.entries_committed;
        match self.vacant.front() {
            // An index rests a while before it is used again, as long as there are fresh ones.
            Some(_) if fresh && self.vacant.len() < 1024 => Ok(next),
            Some(vacant) => Ok(*vacant),
            None if fresh => Ok(next),
            None => Err(Need::Entries { at_least: next.saturating_add(1) }),
        }
    }

    fn take_index(&mut self, index: u32) {
        if index as usize == self.entries.len() {
            self.entries.push(Entry::default());
        } else {
            self.vacant.pop_front();
        }
    }

    /// Whether they are large, mostly about entries that are vacant, and not as small already as they can be.
    fn are_too_large(&self) -> bool {
        let (entries, vacant) = (self.entries.len(), self.vacant.len());
        let is_done = self.shrinking.done && self.shrinking.seen == (self.begun, vacant);
        entries >= SHRINK_ENTRIES_MIN && vacant >= entries / 2 && !is_done
    }

    /// Forgets the vacant entries behind the last one that is not; `true` if those were many. They are fresh ones again: their
    /// generations stand in the table.
    fn shrink(&mut self) -> bool {
        let mut is_vacant = vec![false; self.entries.len()];
        self.vacant.iter().for_each(|index| is_vacant[*index as usize] = true);
        let len = is_vacant.iter().rposition(|vacant| !vacant).map_or(0, |last| last + 1);
        let many = self.entries.len() - len >= SHRINK_ENTRIES_MIN / 2;
        if many {
            self.entries.truncate(len);
            self.entries.shrink_to_fit();
            self.vacant.retain(|index| (*index as usize) < len);
            self.vacant.shrink_to_fit();
            self.pending.shrink_to_fit();
            self.deferred.shrink_to_fit();
        }
        self.shrinking = Shrinking { seen: (self.begun, self.vacant.len()), done: true };
        many
    }

    /// Notes what an object keeps alive.
    fn keep(&mut self, index: u32, references: Vec<Handle>) {
        let at = match self.kept_vacant.pop() {
            Some(at) => {
                self.kept[at as usize] = references;
                at
            }
            None => {
                self.kept.push(references);
                self.kept.len() as u32 - 1
            }
        };
        self.entries[index as usize].kept = at + 1;
    }

    /// Takes back all that an entry had.
    fn end(&mut self, index: u32, garbage: &mut Vec<Handle>) {
        let entry = &mut self.entries[index as usize];
        if let Some(allocation) = entry.allocation.take() {
            self.allocator.free(allocation);
        }
        if let Some(at) = entry.kept.checked_sub(1) {
            entry.kept = 0;
            garbage.append(&mut self.kept[at as usize]);
            self.kept[at as usize] = Vec::new();
            self.kept_vacant.push(at);
        }
        self.vacant.push_back(index);
    }
}
