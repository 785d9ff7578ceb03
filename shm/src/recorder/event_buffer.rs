//! An event buffer: the last events of one kind. A new event overwrites the oldest one.
//!
//! An event is 8 words, a cache line. The first word, its *tag*, has the low half of the event's number, counted from
//! 1, in its upper half. The writer clears the tag, stores the other words, stores the tag, and counts the event. So a
//! writer that is killed in between leaves an event without a tag, which counts as none.
//!
//! A reader copies the words between two looks at the tag. If both find the number that it expects, then no store of
//! another event can be among the words: the writer would have cleared the tag before, and the reader would have seen
//! that. A reader that is too slow finds another number, and knows that the event was overwritten.
//!
//! Proved by exploring this code: `shm/tests/loom/recorder.rs`.

use crate::mapping::{ReadMapping, WriteMapping};
use crate::recorder::layout::{EVENT_BYTES, EVENT_WORDS};
use crate::sync::{Ordering, fence};

/// Where a buffer lies in a mapping.
#[derive(Debug, Clone, Copy)]
pub struct BufferLayout {
    /// Of the number of events that were ever written.
    pub written: usize,
    /// Of the first event.
    pub events: usize,
    /// Events that there is room for.
    pub capacity: usize,
}

impl BufferLayout {
    #[inline]
    fn event(&self, number: u64) -> usize {
        self.events + (number % self.capacity as u64) as usize * EVENT_BYTES
    }
}

/// The number of an event as its tag has it.
#[inline]
fn mark(number: u64) -> u64 {
    number.wrapping_add(1) << 32
}

/// Writes an event: the low half of the tag, and the other words. One thread at a time.
#[inline]
pub fn write(mapping: &WriteMapping, place: BufferLayout, low: u32, words: [u64; EVENT_WORDS - 1]) {
    let written = mapping.word64(place.written);
    let number = written.load(Ordering::Relaxed);
    let event = mapping.words64::<EVENT_WORDS>(place.event(number));
    event[0].store(0, Ordering::Relaxed);
    // Release: the cleared tag comes before the words. Pairs with the reader's fence: a reader that has copied one of
    // these words finds the tag cleared, or that of a later event.
    fence(Ordering::Release);
    for at in 0..words.len() {
        event[at + 1].store(words[at], Ordering::Relaxed);
    }
    // Release: the words come before. Pairs with the reader's first look at the tag.
    event[0].store(mark(number) | u64::from(low), Ordering::Release);
    // Release: the event comes before its count.
    written.store(number + 1, Ordering::Release);
}

/// The number of events that were ever written, as the writer says.
pub fn written(mapping: &ReadMapping, place: BufferLayout) -> u64 {
    // Acquire: pairs with the count in `write`.
    mapping.load64_acquire(place.written)
}

/// The event of a number, tag first; `None` if it was overwritten, or is not there.
pub fn read(mapping: &ReadMapping, place: BufferLayout, number: u64) -> Option<[u64; EVENT_WORDS]> {
    let event = place.event(number);
    // Acquire: pairs with the tag in `write`; the words of the event come after.
    let tag = mapping.load64_acquire(event);
    if tag >> 32 != mark(number) >> 32 {
        return None;
    }
    let mut words = mapping.load_words64::<EVENT_WORDS>(event);
    // Acquire: the words come before the second look. Pairs with the writer's fence.
    fence(Ordering::Acquire);
    if mapping.load64_relaxed(event) != tag {
        return None;
    }
    words[0] = tag;
    Some(words)
}
