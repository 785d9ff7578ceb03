//! A recorder as its own process sees it, which writes it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::{Moment, Stopwatch, ticks};
use crate::mapping::WriteMapping;
use crate::page::PAGE_BYTES;
use crate::recorder::event_buffer::{self, BufferLayout};
use crate::recorder::layout::{
    self, COUNTERS, Counter, EVENT_BYTES, EVENT_VALUES, EVENT_WORDS, HEADER_KINDS, HEADER_LAYOUT,
    HEADER_NAMES, HEADER_NANOS, HEADER_QUEUES, HEADER_RUN, HEADER_TICKS, HEADER_WAITS, LAYOUT,
    NAME_BYTES_MAX, NAMES_MAX, Queue, RECORDER_BYTES, WAITS,
};
use crate::recorder::{EventBuffer, Kind, ORIGINS, WaitFor};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::table::TABLE_BYTES;

/// Words of the running call and of a wait.
const SLOT_WORDS: usize = 8;
/// The word of the running call that has the number of its name.
const RUN_NAME: usize = 4;
/// The word that counts the publications in this place. Readers do not use it.
const PUBLISHED: usize = SLOT_WORDS - 1;

/// The recorder of this process; see the [module's documentation](super).
pub struct Recorder {
    mapping: WriteMapping,
    /// The kinds that are recorded.
    kinds: u32,
    watch: Stopwatch,
    names: Mutex<HashMap<Box<str>, u16>>,
    other: Mutex<()>,
    /// The places of waits that are taken.
    waits: AtomicU32,
    /// Event buffers whose pages could not be allocated: a bit for each.
    lost_buffers: AtomicU32,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Maps the recorder in a client's control memory, and begins it. `kinds` are the [bits](Kind::bit) of the events
    /// that are recorded.
    ///
    /// # Errors
    /// The system's.
    pub fn map(control: BorrowedFd<'_>, kinds: u32) -> io::Result<Self> {
        let mapping = WriteMapping::map(control, TABLE_BYTES, RECORDER_BYTES as usize)?;
        mapping.populate(0, PAGE_BYTES as usize)?;
        let now = Moment::now();
        mapping.word64(HEADER_TICKS).store(now.ticks, Ordering::Relaxed);
        mapping.word64(HEADER_NANOS).store(now.nanos, Ordering::Relaxed);
        mapping.word64(HEADER_KINDS).store(kinds.into(), Ordering::Relaxed);
        // Release: for a reader that finds the layout.
        mapping.word64(HEADER_LAYOUT).store(LAYOUT, Ordering::Release);
        Ok(Self {
            mapping,
            kinds,
            watch: Stopwatch::new(now),
            names: Mutex::default(),
            other: Mutex::default(),
            waits: AtomicU32::new(0),
            lost_buffers: AtomicU32::new(0),
        })
    }

    /// Whether events of this kind are recorded. Costs one load.
    #[inline]
    pub fn records(&self, kind: Kind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// Whether entries contain the times and places at which their objects were made. Costs one load.
    #[inline]
    pub fn notes_origins(&self) -> bool {
        self.kinds & ORIGINS != 0
    }

    /// Converts a number of ticks to nanoseconds.
    #[inline]
    pub fn nanos(&self, ticks: u64) -> u64 {
        self.watch.nanos(ticks)
    }

    // ---- events ----

    /// Records an event with the present time, of any kind. The caller keeps the buffer's other writers out, and has
    /// asked [`records`](Self::records).
    #[inline]
    pub fn record(
        &self,
        buffer: EventBuffer,
        kind: Kind,
        detail: u8,
        name: u16,
        values: [u64; EVENT_VALUES],
    ) {
        self.record_at(buffer, ticks(), kind, detail, name, values);
    }

    /// Records an event with a time that was read before.
    #[inline]
    pub fn record_at(
        &self,
        buffer: EventBuffer,
        tick: u64,
        kind: Kind,
        detail: u8,
        name: u16,
        values: [u64; EVENT_VALUES],
    ) {
        let (events, capacity) = layout::event_buffer(buffer);
        let place = BufferLayout { written: layout::written(buffer), events, capacity };
        if self.mapping.word64(place.written).load(Ordering::Relaxed) == 0 && !self.has_pages(buffer, place) {
            return;
        }
        let low = u32::from(kind as u8) << 24 | u32::from(detail) << 16 | u32::from(name);
        let mut words = [0; EVENT_WORDS - 1];
        words[0] = tick;
        words[1..].copy_from_slice(&values);
        event_buffer::write(&self.mapping, place, low, words);
    }

    /// Records an event in [`EventBuffer::Other`], if its kind is recorded. Any thread may.
    pub fn note(&self, kind: Kind, detail: u8, name: u16, values: [u64; EVENT_VALUES]) {
        if self.records(kind) {
            let tick = ticks();
            let _alone = unpoisoned(self.other.lock());
            self.record_at(EventBuffer::Other, tick, kind, detail, name, values);
        }
    }

    /// Notes a call that counts as failed.
    pub fn note_failed(&self, detail: u8, name: u16, values: [u64; EVENT_VALUES]) {
        let tick = ticks();
        let _alone = unpoisoned(self.other.lock());
        self.count(name, Counter::Failed);
        if self.records(Kind::Failed) {
            self.record_at(EventBuffer::Other, tick, Kind::Failed, detail, name, values);
        }
    }

    /// Notes a call that was run, which counts with its time.
    pub fn note_ran(&self, since: u64, name: u16, failed: bool, [task, caller]: [u64; 2]) {
        let now = ticks();
        let _alone = unpoisoned(self.other.lock());
        self.ran(name, now.saturating_sub(since), failed);
        if self.records(Kind::Ran) {
            self.record_at(
                EventBuffer::Other,
                now,
                Kind::Ran,
                failed.into(),
                name,
                [task, caller, since, 0, 0, 0],
            );
        }
    }

    /// Allocates the pages of a buffer before its first event.
    #[cold]
    fn has_pages(&self, buffer: EventBuffer, place: BufferLayout) -> bool {
        let bit = 1 << buffer as u32;
        if self.lost_buffers.load(std::sync::atomic::Ordering::Relaxed) & bit != 0 {
            return false;
        }
        let has = self.mapping.populate(place.events, place.capacity * EVENT_BYTES).is_ok();
        if !has {
            self.lost_buffers.fetch_or(bit, std::sync::atomic::Ordering::Relaxed);
        }
        has
    }

    // ---- names and counts ----

    /// The number of a name: the same for the same text. 0 when there is no room for another one. Takes a lock, and
    /// compares text: keep what it returns.
    pub fn name(&self, text: &str) -> u16 {
        let mut names = unpoisoned(self.names.lock());
        if let Some(number) = names.get(text) {
            return *number;
        }
        let number = names.len() + 1;
        if number >= NAMES_MAX || !self.has_page_of_name(number) {
            return 0;
        }
        let cut = text.floor_char_boundary(NAME_BYTES_MAX);
        let record = layout::name(number);
        self.mapping.store_words(record + size_of::<u64>(), &text.as_bytes()[..cut]);
        // Release: the text comes before its length.
        self.mapping.word64(record).store(cut as u64 + 1, Ordering::Release);
        self.mapping.word64(HEADER_NAMES).store(number as u64, Ordering::Release);
        names.insert(text.into(), number as u16);
        number as u16
    }

    /// Whether the pages that a name and its counts need are there.
    fn has_page_of_name(&self, number: usize) -> bool {
        let page_of = |offset: usize| offset / PAGE_BYTES as usize;
        let is_there = |at: usize, before: usize| number > 1 && page_of(at) == page_of(before);
        [layout::name, layout::counts].into_iter().all(|place| {
            let (at, before) = (place(number), place(number - 1));
            is_there(at, before)
                || self.mapping.populate(page_of(at) * PAGE_BYTES as usize, PAGE_BYTES as usize).is_ok()
        })
    }

    /// Adds one to a number of a name. One thread at a time for each counter.
    #[inline]
    pub fn count(&self, name: u16, counter: Counter) {
        self.add(name, counter, 1);
    }

    #[inline]
    fn add(&self, name: u16, counter: Counter, by: u64) {
        let word = self.counter(name, counter);
        word.store(word.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    #[inline]
    fn counter(&self, name: u16, counter: Counter) -> &AtomicU64 {
        self.mapping.word64(layout::counts(Self::index(name)) + counter as usize * size_of::<u64>())
    }

    /// A name's place. Name 0 has counts too: those of all calls for which there was no room.
    #[inline]
    fn index(name: u16) -> usize {
        usize::from(name) % NAMES_MAX
    }

    /// Counts a call that was run, and its time. One thread at a time.
    #[inline]
    pub fn ran(&self, name: u16, took: u64, failed: bool) {
        self.count(name, Counter::Ran);
        if failed {
            self.count(name, Counter::RanFailed);
        }
        self.add(name, Counter::Ticks, took);
        let longest = self.counter(name, Counter::TicksMax);
        if longest.load(Ordering::Relaxed) < took {
            longest.store(took, Ordering::Relaxed);
        }
        let buckets = layout::counts(Self::index(name)) + COUNTERS * size_of::<u64>();
        let bucket = self.mapping.word32(buckets + layout::bucket(took) * size_of::<u32>());
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    // ---- what is going on now ----

    /// Records the length of one of this process's queues. One store. Only one thread at a time may call this for each
    /// queue.
    #[inline]
    pub fn set_queue(&self, queue: Queue, calls: usize) {
        let word = self.mapping.word64(HEADER_QUEUES + queue as usize * size_of::<u64>());
        word.store(calls as u64, Ordering::Relaxed);
    }

    /// A call begins to run here. The thread that runs calls says so.
    #[inline]
    pub fn begin_run(&self, since: u64, task: u64, caller: u64, name: u16) {
        self.publish(HEADER_RUN, since, [task, caller, name.into(), 0, 0]);
    }

    /// The name of the call that runs.
    #[inline]
    pub fn name_run(&self, name: u16) {
        // A reader finds the name, or none.
        self.mapping.word64(HEADER_RUN + RUN_NAME * size_of::<u64>()).store(name.into(), Ordering::Relaxed);
    }

    /// No call runs any more.
    #[inline]
    pub fn end_run(&self) {
        self.clear(HEADER_RUN);
    }

    /// This thread begins to wait; it waits until what this returns is dropped.
    pub fn wait(&self, what: WaitFor, values: [u64; 2]) -> WaitGuard<'_> {
        let since = ticks();
        let place = self.take_place(self.waits.load(std::sync::atomic::Ordering::Relaxed));
        if let Some(place) = place {
            self.publish(wait_place(place), since, [what as u64, values[0], values[1], 0, 0]);
        }
        WaitGuard { recorder: self, what, values, since, place }
    }

    /// Takes a free place; `None`: all are taken.
    fn take_place(&self, mut taken: u32) -> Option<usize> {
        const _: () = assert!(WAITS == 32);
        loop {
            let place = (!taken).trailing_zeros();
            if place as usize >= WAITS {
                return None;
            }
            let bit = 1 << place;
            let before = self.waits.fetch_or(bit, std::sync::atomic::Ordering::AcqRel);
            if before & bit == 0 {
                return Some(place as usize);
            }
            taken = before;
        }
    }

    /// Publishes a current state in the way in which an event is written: the first word is cleared first, and stored
    /// last.
    #[inline]
    fn publish(&self, at: usize, since: u64, values: [u64; SLOT_WORDS - 3]) {
        let words = self.mapping.words64::<SLOT_WORDS>(at);
        words[0].store(0, Ordering::Relaxed);
        // Release: pairs with the fence of the reader, which finds the first word changed.
        fence(Ordering::Release);
        for position in 0..values.len() {
            words[position + 2].store(values[position], Ordering::Relaxed);
        }
        words[1].store(since, Ordering::Relaxed);
        let number = words[PUBLISHED].load(Ordering::Relaxed).wrapping_add(1);
        words[PUBLISHED].store(number, Ordering::Relaxed);
        // Release: after the values. A reader that finds the same number twice has read one publication.
        words[0].store(number << 1 | 1, Ordering::Release);
    }

    #[inline]
    fn clear(&self, at: usize) {
        self.mapping.word64(at).store(0, Ordering::Relaxed);
    }
}

fn wait_place(place: usize) -> usize {
    HEADER_WAITS + place * SLOT_WORDS * size_of::<u64>()
}

/// A lock whose thread has panicked can still be used: no data under these locks is ever half changed.
fn unpoisoned<'a, T>(locked: Result<MutexGuard<'a, T>, PoisonError<MutexGuard<'a, T>>>) -> MutexGuard<'a, T> {
    locked.unwrap_or_else(PoisonError::into_inner)
}

/// A thread that waits; see [`Recorder::wait`].
#[derive(Debug)]
pub struct WaitGuard<'a> {
    recorder: &'a Recorder,
    what: WaitFor,
    values: [u64; 2],
    since: u64,
    place: Option<usize>,
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.recorder.clear(wait_place(place));
            self.recorder.waits.fetch_and(!(1 << place), std::sync::atomic::Ordering::AcqRel);
        }
        let values = [self.since, self.values[0], self.values[1], 0, 0, 0];
        self.recorder.note(Kind::Waited, self.what as u8, 0, values);
    }
}
