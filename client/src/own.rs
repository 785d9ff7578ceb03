//! This client as an owner: its table, its memory, and the freeing of what nobody uses.
//!
//! Lock order: a lock of [`Counts`], then `state`, then `readers`. References that a freed object kept are handed
//! back to the caller and dropped outside of all of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_shm::bell::Bell;
use mobula_shm::directory::DirectoryReader;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::pins::{PinReader, PinWriter, WAITING, try_free};
use mobula_shm::table::{ENTRIES_MAX, Location, State, TableWriter, Word};
use parking_lot::{Mutex, RwLock};

use crate::allocator::{Allocation, Allocator};
use crate::counts::{Counts, Use};
use crate::object::Handle;

/// What an entry of the table needs in the owner's heap.
#[derive(Debug, Default)]
struct Entry {
    allocation: Option<Allocation>,
    /// What the object keeps alive. Boxed twice, so that the many without cost one word.
    #[expect(clippy::box_collection, reason = "a word instead of three for each of a million entries")]
    references: Option<Box<Vec<Handle>>>,
}

struct Books {
    allocator: Allocator,
    segments: HashMap<u32, Arc<WriteMapping>>,
    entries: Vec<Entry>,
    /// Indices to use again: first in, first out, so that a generation lasts long.
    vacant: VecDeque<u32>,
    entries_committed: u32,
    /// Entries that this process does not use any more, but others did when it last looked.
    deferred: Vec<u32>,
    live: u64,
}

/// A client that may pin our objects.
struct Reader {
    id: OwnerId,
    pins: PinReader,
    bell: Option<Bell>,
}

/// An entry and memory, taken but not yet visible to anybody.
pub(crate) struct Begun {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    pub(crate) place: Option<(Allocation, Arc<WriteMapping>)>,
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
    pub(crate) counts: Counts,
    table: TableWriter,
    pins: PinWriter,
    directory: Arc<DirectoryReader>,
    books: Mutex<Books>,
    readers: RwLock<Vec<Reader>>,
    /// How many readers have ever joined, as far as we have heard.
    readers_heard: AtomicU64,
}

impl Own {
    pub(crate) fn new(
        id: OwnerId,
        table: TableWriter,
        pins: PinWriter,
        daemon_pins: PinReader,
        directory: Arc<DirectoryReader>,
        entries_committed: u32,
    ) -> Self {
        let books = Books {
            allocator: Allocator::new(),
            segments: HashMap::new(),
            entries: Vec::new(),
            vacant: VecDeque::new(),
            entries_committed,
            deferred: Vec::new(),
            live: 0,
        };
        let daemon = Reader { id: OwnerId::new(0, 0), pins: daemon_pins, bell: None };
        Self {
            id,
            counts: Counts::new(),
            table,
            pins,
            directory,
            books: Mutex::new(books),
            readers: RwLock::new(vec![daemon]),
            readers_heard: AtomicU64::new(0),
        }
    }

    // ---- making objects ----

    /// Takes an entry and `bytes` of memory, counted as used for `kind`.
    pub(crate) fn begin(&self, bytes: u64, kind: Use) -> Result<Begun, Need> {
        let mut books = self.books.lock();
        let place = match bytes {
            0 => None,
            _ => {
                let allocation = books.allocator.allocate(bytes).ok_or(Need::Memory)?;
                Some((allocation, books.segments[&allocation.segment].clone()))
            }
        };
        let index = match books.take_index() {
            Ok(index) => index,
            Err(need) => {
                if let Some((allocation, _)) = place {
                    books.allocator.free(allocation);
                }
                return Err(need);
            }
        };
        books.entries[index as usize].allocation = place.as_ref().map(|(allocation, _)| *allocation);
        drop(books);
        let generation = Word::from_bits(self.table.word(index).load(Ordering::Relaxed)).generation();
        self.counts.acquire(index, kind, |bits| self.pins.set(index, bits));
        Ok(Begun { index, generation, place })
    }

    /// Gives back what was begun and never shown.
    pub(crate) fn abort(&self, index: u32, kind: Use) {
        self.counts.release(index, kind, |_| self.pins.clear(index));
        let mut books = self.books.lock();
        if let Some(allocation) = books.entries[index as usize].allocation.take() {
            books.allocator.free(allocation);
        }
        self.vacate(&mut books, index);
    }

    /// Lets an entry that was begun, and never sealed, be used again. Its maker may have told others the id, so that
    /// must not come to mean the next object.
    fn vacate(&self, books: &mut Books, index: u32) {
        let word = self.table.word(index);
        let generation = Word::from_bits(word.load(Ordering::Relaxed)).generation();
        word.store(Word::new(generation.wrapping_add(1), State::Free).bits(), Ordering::Release);
        books.vacant.push_back(index);
    }

    /// Makes a begun object visible: from here on its bytes never change.
    pub(crate) fn seal(&self, index: u32, generation: u32, location: &Location, references: Vec<Handle>) {
        {
            let mut books = self.books.lock();
            books.live += 1;
            if !references.is_empty() {
                books.entries[index as usize].references = Some(Box::new(references));
            }
        }
        self.table.fill(index, location);
        // Release: publishes the bytes and the location to whoever finds the word sealed.
        self.table.word(index).store(Word::new(generation, State::Sealed).bits(), Ordering::Release);
    }

    /// Shows a begun object as promised.
    pub(crate) fn promise(&self, index: u32, generation: u32) {
        self.books.lock().live += 1;
        self.table.word(index).store(Word::new(generation, State::Promised).bits(), Ordering::Release);
    }

    /// Keeps a promise with what was begun under another index, which becomes vacant.
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
            let entry = &mut books.entries[promised.index() as usize];
            entry.allocation = allocation;
            if !references.is_empty() {
                entry.references = Some(Box::new(references));
            }
            self.vacate(&mut books, written);
        }
        self.table.fill(promised.index(), location);
        self.settle(promised, State::Sealed);
    }

    /// Ends a promise that will not be kept.
    pub(crate) fn break_promise(&self, promised: ObjectId) {
        self.settle(promised, State::Lost);
    }

    fn settle(&self, promised: ObjectId, state: State) {
        let word = Word::new(promised.generation(), state);
        // SeqCst: pairs with the waiter, who sets its pin's WAITING bit and then looks at the word once more.
        self.table.word(promised.index()).store(word.bits(), Ordering::SeqCst);
        for reader in self.readers.read().iter() {
            if reader.pins.get(promised.index()) & WAITING != 0
                && let Some(bell) = &reader.bell
            {
                bell.ring();
            }
        }
    }

    // ---- using objects ----

    pub(crate) fn word(&self, index: u32) -> Word {
        Word::from_bits(self.table.word(index).load(Ordering::SeqCst))
    }

    pub(crate) fn location(&self, index: u32) -> Location {
        self.table.location(index)
    }

    pub(crate) fn mapping(&self, segment: u32) -> Option<Arc<WriteMapping>> {
        self.books.lock().segments.get(&segment).cloned()
    }

    pub(crate) fn entries_committed(&self) -> u32 {
        self.directory.committed(self.id.slot())
    }

    pub(crate) fn acquire(&self, index: u32, kind: Use) {
        self.counts.acquire(index, kind, |bits| self.pins.set(index, bits));
    }

    /// Ends a use; frees the object if it was the last one anywhere. What the object kept goes to `garbage`.
    pub(crate) fn release(&self, index: u32, kind: Use, garbage: &mut Vec<Handle>) {
        self.counts.release(index, kind, |bits| {
            if bits != 0 {
                return self.pins.set(index, bits);
            }
            self.pins.clear(index);
            let mut books = self.books.lock();
            if !self.free(&mut books, index, garbage) {
                books.deferred.push(index);
            }
        });
    }

    /// Refuses new uses of an object; `false` if it is not there.
    pub(crate) fn delete(&self, object: ObjectId, garbage: &mut Vec<Handle>) -> bool {
        let sealed = Word::new(object.generation(), State::Sealed).bits();
        let deleted = Word::new(object.generation(), State::Deleted).bits();
        let mut books = self.books.lock();
        let word = self.table.word(object.index());
        if word.compare_exchange(sealed, deleted, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return false;
        }
        drop(books);
        if let Some(_unused) = self.counts.lock_unused(object.index()) {
            books = self.books.lock();
            if !self.free(&mut books, object.index(), garbage) {
                books.deferred.push(object.index());
            }
        }
        true
    }

    /// Looks again at what others still used; `true` if anything was freed.
    pub(crate) fn collect(&self, garbage: &mut Vec<Handle>) -> bool {
        let deferred = std::mem::take(&mut self.books.lock().deferred);
        let mut still = Vec::new();
        let mut freed = false;
        for index in deferred {
            // In use here again: the next release looks after it.
            let Some(_unused) = self.counts.lock_unused(index) else { continue };
            if self.free(&mut self.books.lock(), index, garbage) {
                freed = true;
            } else {
                still.push(index);
            }
        }
        self.books.lock().deferred.append(&mut still);
        freed
    }

    /// Frees an entry that this process does not use, unless somebody else does. `true` when there is nothing left to
    /// look after.
    fn free(&self, books: &mut Books, index: u32, garbage: &mut Vec<Handle>) -> bool {
        let word = self.table.word(index);
        let now = Word::from_bits(word.load(Ordering::Relaxed));
        let Some(state @ (State::Sealed | State::Deleted | State::Lost)) = now.state() else { return true };
        let readers = self.readers.read();
        let held = || {
            self.directory.readers(self.id.slot()) != self.readers_heard.load(Ordering::Acquire)
                || readers.iter().any(|reader| reader.pins.get(index) != 0)
        };
        if !try_free(word, now.generation(), state, held) {
            return false;
        }
        let entry = &mut books.entries[index as usize];
        if let Some(references) = entry.references.take() {
            garbage.extend(*references);
        }
        if let Some(allocation) = entry.allocation.take() {
            books.allocator.free(allocation);
        }
        books.vacant.push_back(index);
        books.live -= 1;
        true
    }

    // ---- memory and readers, as the daemon gives and takes them ----

    pub(crate) fn add_segment(&self, id: u32, mapping: WriteMapping) {
        let mut books = self.books.lock();
        books.allocator.add_segment(id, mapping.len() as u64);
        books.segments.insert(id, Arc::new(mapping));
    }

    /// Takes out the segments that have been empty since `before`, to be given back.
    pub(crate) fn take_empty_segments(&self, before: u64) -> Vec<u32> {
        let mut books = self.books.lock();
        let mut empty = books.allocator.empty_since(before);
        empty.retain(|id| books.allocator.remove_segment(*id));
        for id in &empty {
            books.segments.remove(id);
        }
        empty
    }

    pub(crate) fn has_segments(&self) -> bool {
        self.books.lock().allocator.has_segments()
    }

    pub(crate) fn set_now(&self, now: u64) {
        self.books.lock().allocator.set_now(now);
    }

    /// Bytes of all leases.
    pub(crate) fn leased_bytes(&self) -> u64 {
        self.books.lock().segments.values().map(|mapping| mapping.len() as u64).sum()
    }

    pub(crate) fn grow_table(&self, entries: u32) {
        self.books.lock().entries_committed = entries.min(ENTRIES_MAX);
    }

    pub(crate) fn reader_joined(&self, id: OwnerId, pins: PinReader, bell: Bell) {
        self.readers.write().push(Reader { id, pins, bell: Some(bell) });
        // Release, and after the push: who sees the count also sees the reader.
        self.readers_heard.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn reader_gone(&self, id: OwnerId) {
        self.readers.write().retain(|reader| reader.id != id);
    }

    /// Whether nobody at all uses the object, in any process, beyond `expected` handles of this one.
    pub(crate) fn is_held_elsewhere(&self, index: u32, expected: u64) -> bool {
        self.counts.handles(index) > expected
            || self.directory.readers(self.id.slot()) != self.readers_heard.load(Ordering::Acquire)
            || self.readers.read().iter().any(|reader| reader.pins.get(index) != 0)
    }

    /// Takes this process's pin on an entry of its own back.
    pub(crate) fn unpin(&self, index: u32) {
        self.pins.clear(index);
    }

    /// The flag of the bell's protocol.
    pub(crate) fn sleeping(&self) -> &AtomicU32 {
        self.table.sleeping()
    }

    /// Objects that are alive, promised ones included.
    pub(crate) fn live(&self) -> u64 {
        self.books.lock().live
    }
}

impl Books {
    fn take_index(&mut self) -> Result<u32, Need> {
        let next = self.entries.len() as u32;
        // An index rests a while before it is used again, as long as there are fresh ones.
        if next < self.entries_committed && self.vacant.len() < 1024 {
            self.entries.push(Entry::default());
            return Ok(next);
        }
        if let Some(index) = self.vacant.pop_front() {
            return Ok(index);
        }
        if next < self.entries_committed {
            self.entries.push(Entry::default());
            return Ok(next);
        }
        Err(Need::Entries { at_least: next.saturating_add(1) })
    }
}
