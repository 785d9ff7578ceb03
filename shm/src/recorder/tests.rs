//! The events, names and counts of a recorder as its readers see them, also while they are overwritten.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::memory::SharedMemory;
use crate::table::TABLE_BYTES;

const ALL: u32 = u32::MAX;

fn memory() -> SharedMemory {
    SharedMemory::create(c"test", TABLE_BYTES + RECORDER_BYTES).unwrap()
}

fn pair(kinds: u32) -> (Recorder, Reader) {
    let memory = memory();
    let recorder = Recorder::map(memory.writable(), kinds).unwrap();
    let reader = Reader::map(memory.read_only().unwrap().as_fd()).unwrap().unwrap();
    (recorder, reader)
}

fn values(first: u64) -> [u64; EVENT_VALUES] {
    std::array::from_fn(|at| first.wrapping_add(at as u64))
}

#[test]
fn a_reader_finds_the_last_events_and_knows_how_many_it_missed() {
    let (recorder, reader) = pair(ALL);
    assert_eq!((reader.events(EventBuffer::Made, 0).events.len(), reader.written(EventBuffer::Made)), (0, 0));
    for number in 0..10_000 {
        recorder.record(EventBuffer::Made, Kind::Sent, 7, 3, values(number));
    }
    let seen = reader.events(EventBuffer::Made, 0);
    let numbers: Vec<u64> = seen.events.iter().map(|event| event.values[0]).collect();
    assert_eq!(numbers, (10_000 - 4096..10_000).collect::<Vec<_>>());
    assert_eq!((seen.next, seen.lost), (10_000, 10_000 - 4096));
    let event = seen.events[0];
    assert_eq!((event.kind, event.detail, event.name, event.values), (Kind::Sent, 7, 3, values(5904)));
    assert!(seen.events.is_sorted_by_key(|event| event.tick));
    recorder.record(EventBuffer::Made, Kind::Ended, 0, 0, values(1));
    let seen = reader.events(EventBuffer::Made, seen.next);
    assert_eq!((seen.events.len(), seen.lost), (1, 0));
    assert_eq!(reader.events(EventBuffer::Ran, 0).events.len(), 0, "each buffer has its own");
}

#[test]
fn a_reader_never_finds_words_of_two_events_in_one() {
    let (recorder, reader) = pair(ALL);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..3_000_000 {
                recorder.record_at(EventBuffer::Other, number, Kind::Mark, 0, 0, values(number));
            }
            is_over.store(true, Ordering::Release);
        });
        let (mut next, mut found, mut lost) = (0, 0, 0);
        loop {
            let was_over = is_over.load(Ordering::Acquire);
            let seen = reader.events(EventBuffer::Other, next);
            for event in &seen.events {
                assert_eq!(event.values, values(event.tick));
            }
            (next, found, lost) = (seen.next, found + seen.events.len() as u64, lost + seen.lost);
            if was_over {
                break;
            }
        }
        assert_eq!(found + lost, 3_000_000);
        assert!(found >= 1024, "the last ones are there");
    });
}

#[test]
fn what_goes_on_now_is_seen_whole() {
    let (recorder, reader) = pair(ALL);
    assert_eq!((reader.run(), reader.waits().len()), (None, 0));
    recorder.begin_run(5, 6, 7, 8);
    assert_eq!(reader.run(), Some(Run { since: 5, task: 6, caller: 7, name: 8 }));
    let one = recorder.wait(WaitFor::Memory, [9, 0]);
    let other = recorder.wait(WaitFor::Call, [1, 2]);
    let waits: Vec<_> = reader.waits().iter().map(|wait| (wait.what, wait.values)).collect();
    assert_eq!(waits, [(WaitFor::Memory, [9, 0]), (WaitFor::Call, [1, 2])]);
    drop(one);
    assert_eq!(reader.waits().len(), 1);
    drop(other);
    recorder.end_run();
    assert_eq!((reader.run(), reader.waits().len()), (None, 0));
    let waited = reader.events(EventBuffer::Other, 0).events;
    assert_eq!(waited.iter().map(|event| event.kind).collect::<Vec<_>>(), [Kind::Waited; 2]);
    recorder.set_queue(Queue::Arrived, 3);
    assert_eq!((reader.queue(Queue::Arrived), reader.queue(Queue::ForWorker)), (3, 0));
    // More threads than there are places: the others wait unseen, and nothing of theirs stays behind.
    let many: Vec<_> = (0..100).map(|_| recorder.wait(WaitFor::Unknown, [0; 2])).collect();
    assert_eq!(reader.waits().len(), 32);
    drop(many);
    assert_eq!(reader.waits().len(), 0);
}

#[test]
fn names_and_counts_are_read_as_they_were_written() {
    let (recorder, reader) = pair(ALL);
    let long = "ö".repeat(100);
    let (one, other) = (recorder.name("square"), recorder.name(&long));
    assert_eq!((one, other, recorder.name("square")), (1, 2, 1));
    assert_eq!(reader.names(), ["square".to_owned(), "ö".repeat(60)]);
    recorder.count(one, Counter::Made);
    for took in [1000, 2000, 3000] {
        recorder.ran(one, took, took == 3000);
    }
    let counts = reader.counts(1).unwrap();
    let expected = HashMap::from([(0, 1), (4, 3), (5, 1), (6, 6000), (7, 3000)]);
    for (at, counter) in
        [Counter::Made, Counter::Sent, Counter::Ended, Counter::Failed].into_iter().enumerate()
    {
        assert_eq!(counts.get(counter), expected.get(&at).copied().unwrap_or(0));
    }
    assert_eq!(
        (counts.get(Counter::Ran), counts.get(Counter::Ticks), counts.get(Counter::TicksMax)),
        (3, 6000, 3000)
    );
    assert_eq!(counts.histogram.iter().sum::<u32>(), 3);
    // There is an end to names, and none to calls.
    let last = (0..1000).map(|number| recorder.name(&number.to_string())).last();
    assert_eq!((last, reader.names().len()), (Some(0), 511));
    recorder.ran(0, 1, false);
    assert_eq!(reader.counts(0).unwrap().get(Counter::Ran), 1);
    assert!(reader.counts(512).is_none());
}

#[test]
fn a_recorder_takes_no_more_memory_than_it_says_and_most_of_it_never() {
    let memory = memory();
    let before = memory.allocated_bytes().unwrap();
    let recorder = Recorder::map(memory.writable(), ALL).unwrap();
    assert_eq!(memory.allocated_bytes().unwrap() - before, 4096);
    for number in 0..100_000 {
        recorder.record(EventBuffer::Ran, Kind::Ran, 0, 0, values(number));
    }
    assert_eq!(memory.allocated_bytes().unwrap() - before, 4096 + (256 << 10));
}

#[test]
fn nothing_is_read_where_nothing_was_recorded() {
    let memory = memory();
    assert!(Reader::map(memory.read_only().unwrap().as_fd()).unwrap().is_none());
    let short = SharedMemory::create(c"test", TABLE_BYTES).unwrap();
    assert!(Reader::map(short.read_only().unwrap().as_fd()).is_err());
    let recorder = Recorder::map(memory.writable(), Kind::Mark.bit()).unwrap();
    recorder.note(Kind::Leased, 0, 0, values(1));
    recorder.note(Kind::Mark, 0, 0, values(2));
    let reader = Reader::map(memory.read_only().unwrap().as_fd()).unwrap().unwrap();
    assert_eq!(reader.events(EventBuffer::Other, 0).events.len(), 1);
    assert!(reader.records(Kind::Mark) && !reader.records(Kind::Leased));
}
