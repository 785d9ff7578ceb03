//! The flight recorder: a reader finds an event whole, or finds that it was overwritten.

use std::os::fd::AsFd;

use loom::thread::spawn;
use mobula_shm::mapping::{ReadMapping, WriteMapping};
use mobula_shm::model::File;
use mobula_shm::model::atomics::{Access, Kind};
use mobula_shm::recorder::EVENT_WORDS;
use mobula_shm::recorder::event_buffer::{BufferLayout, read, write, written};
use mobula_shm::sync::Ordering::{self, Acquire, Relaxed, Release};

use crate::{fails, holds};

const WRITTEN: usize = 0;
const EVENTS: usize = 64;
const CAPACITY: usize = 1;
/// The first is there before the reader is, so that the second overwrites it.
const COUNT: u64 = 2;

fn place() -> BufferLayout {
    BufferLayout { written: WRITTEN, events: EVENTS, capacity: CAPACITY }
}

/// The words of an event: all the same, so that a word of another event is noticed.
fn words(number: u64) -> [u64; EVENT_WORDS - 1] {
    [number + 1; EVENT_WORDS - 1]
}

fn write_and_read() {
    let all = (0..CAPACITY * EVENT_WORDS).map(|word| EVENTS + word * size_of::<u64>());
    let file = File::new("buffer", [WRITTEN].into_iter().chain(all), []);
    let len = EVENTS + CAPACITY * EVENT_WORDS * size_of::<u64>();
    let writer = WriteMapping::map(file.as_fd(), 0, len).unwrap();
    let reader = ReadMapping::map(file.as_fd(), 0, len).unwrap();
    write(&writer, place(), 0, words(0));
    let writing = spawn(move || (1..COUNT).for_each(|number| write(&writer, place(), 0, words(number))));
    let count = written(&reader, place());
    assert!((1..=COUNT).contains(&count), "not what was written: {count} events");
    for number in 0..COUNT {
        if let Some([tag, read @ ..]) = read(&reader, place(), number) {
            assert_eq!((tag >> 32, read), (number + 1, words(number)), "not what was written");
        }
    }
    writing.join().unwrap();
    let last = read(&reader, place(), COUNT - 1);
    assert!(last.is_some_and(|[_, read @ ..]| read == words(COUNT - 1)), "not what was written: the last");
}

#[test]
fn an_event_is_found_whole_or_not_at_all() {
    holds("recorder", write_and_read);
}

/// Breaks: the words of the next event under the tag of the last.
#[test]
fn planted_a_tag_that_is_cleared_too_late() {
    let weaken = |access: Access| match (access.kind, access.ordering) {
        (Kind::Fence, Release) => Relaxed,
        (_, ordering) => ordering,
    };
    fails("tag cleared too late", "not what was written", weaken, write_and_read);
}

/// Breaks: a tag before its words.
#[test]
fn planted_a_tag_before_its_words() {
    let weaken = |access: Access| match access.kind {
        Kind::Store if access.offset == EVENTS => Relaxed,
        _ => access.ordering,
    };
    fails("tag before the words", "not what was written", weaken, write_and_read);
}

/// Breaks: the reader's words may be older than its first look at the tag, or younger than its second.
#[test]
fn planted_a_reader_without_its_fences() {
    let weaken = |access: Access| -> Ordering {
        match (access.kind, access.ordering) {
            (Kind::Fence, Acquire) => Relaxed,
            (_, ordering) => ordering,
        }
    };
    fails("reader without fences", "not what was written", weaken, write_and_read);
}
