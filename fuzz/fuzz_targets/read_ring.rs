//! A ring with an untrusted other end: the peer writes any bytes into its memory, at any time. A consumer takes records
//! that lie in that memory, or says that it is corrupt. A producer never takes back what it has acknowledged.
#![no_main]

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::memory::{PAGE_BYTES, SharedMemory};
use mobula_shm::ring::{PushError, end_bytes, open};

const DATA_BYTES: u32 = 4096;
/// Where a ring's data begins; the words before it are the peer's position, its head, and its wish for room.
const DATA: usize = PAGE_BYTES as usize;

// `seeds.rs` knows these in their order, with the bytes of their fields.
#[derive(Debug, Arbitrary)]
enum Step {
    /// The peer stores a word somewhere in its end.
    Write {
        word: u16,
        value: u64,
    },
    /// The peer moves one of its counters by a little.
    Move {
        head: bool,
        by: i16,
    },
    /// The peer writes a length at the place of the next record, as an honest one would, or nearly.
    Announce {
        length: u16,
    },
    Next,
    Advance,
    Push {
        length: u16,
    },
    Consumed,
}

struct Ends {
    mine: SharedMemory,
    theirs: SharedMemory,
}

thread_local! {
    static ENDS: Ends = {
        let end = || {
            let memory = SharedMemory::create(c"fuzz", end_bytes(DATA_BYTES)).expect("memory");
            memory.allocate(0..memory.bytes()).expect("memory");
            memory
        };
        Ends { mine: end(), theirs: end() }
    };
}

fuzz_target!(|steps: Vec<Step>| ENDS.with(|ends| run(ends, &steps)));

fn run(ends: &Ends, steps: &[Step]) {
    let bytes = end_bytes(DATA_BYTES) as usize;
    let peer = WriteMapping::map(ends.theirs.writable(), 0, bytes).expect("a mapping");
    let own = WriteMapping::map(ends.mine.writable(), 0, bytes).expect("a mapping");
    for mapping in [&peer, &own] {
        mapping.store_words(0, &[0; 256]);
    }
    peer.store_words(DATA, &[0; DATA_BYTES as usize]);
    let read_only = ends.theirs.read_only().expect("a descriptor");
    let (mut producer, mut consumer) =
        open(ends.mine.writable(), read_only.as_fd(), DATA_BYTES).expect("a channel");
    let (mut record, mut is_corrupt) = (Vec::new(), false);
    let (mut pushed, mut consumed) = (0, 0);
    for step in steps {
        match *step {
            Step::Write { word, value } => {
                let offset = usize::from(word) * 8 % bytes;
                peer.word64(offset).store(value, Ordering::SeqCst);
            }
            Step::Move { head, by } => {
                let word = peer.word64(if head { 64 } else { 0 });
                word.store(word.load(Ordering::Relaxed).wrapping_add_signed(by.into()), Ordering::SeqCst);
            }
            Step::Announce { length } => {
                let head = own.word64(64).load(Ordering::Relaxed);
                let place = DATA + (head % u64::from(DATA_BYTES)) as usize;
                peer.word64(place).store(length.into(), Ordering::Relaxed);
                let tail = head + 8 + u64::from(length).next_multiple_of(8);
                peer.word64(0).store(tail, Ordering::SeqCst);
            }
            Step::Next if is_corrupt => {}
            Step::Next => match consumer.next(&mut record) {
                Ok(true) => {
                    let head = own.word64(64).load(Ordering::Relaxed);
                    let byte = |position: u64| {
                        let place = DATA + (position % u64::from(DATA_BYTES) & !7) as usize;
                        peer.word64(place).load(Ordering::Relaxed).to_ne_bytes()[position as usize % 8]
                    };
                    assert!(record.len() <= DATA_BYTES as usize / 4);
                    let expected: Vec<u8> = (head + 8..).take(record.len()).map(byte).collect();
                    assert_eq!(record, expected);
                }
                Ok(false) => assert!(consumer.is_empty()),
                Err(_) => is_corrupt = true,
            },
            Step::Advance => drop(consumer.advance()),
            Step::Push { length } => match producer.push(&vec![7; length.into()]) {
                Ok(position) => {
                    assert!(position >= pushed + u64::from(length));
                    pushed = position;
                }
                Err(PushError::TooLarge) => assert!(usize::from(length) > producer.record_bytes_max()),
                Err(PushError::Full) => assert!(!producer.has_room_for(length.into())),
                Err(error) => panic!("{error}"),
            },
            Step::Consumed => {
                let now = producer.consumed();
                assert!(consumed <= now && now <= pushed, "{consumed}, then {now}, of {pushed}");
                consumed = now;
            }
        }
        assert!(
            pushed - consumed.max(producer.consumed()) <= u64::from(DATA_BYTES),
            "more is sent than there is room for"
        );
        let _ = consumer.peek().is_empty();
    }
}
