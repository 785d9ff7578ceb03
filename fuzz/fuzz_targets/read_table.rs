//! An untrusted object table and untrusted pins with any words in them. Every location that is read from them lies
//! inside the memory that it is checked against, or is refused.
#![no_main]

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mobula_shm::control::{control_bytes, pin_extent_offset};
use mobula_shm::mapping::{ReadMapping, WriteMapping};
use mobula_shm::memory::{PAGE_BYTES, SharedMemory};
use mobula_shm::pins::{PIN_BYTES, PinReader};
use mobula_shm::table::{ENTRY_BYTES, Location, State, TABLE_BYTES, TableReader};

/// The number of entries that fit the page behind the header.
const ENTRIES: u32 = 64;
const TABLE_BYTES_USED: u64 = 2 * PAGE_BYTES;
/// Two groups of pins.
const PIN_BYTES_USED: u64 = 2 * PAGE_BYTES;
const SEGMENT_BYTES: u64 = 2 * PAGE_BYTES;

// `seeds.rs` knows these in their order, with the bytes of their fields.
#[derive(Debug, Arbitrary)]
enum Step {
    /// The owner stores a word in its header or its entries.
    Write { word: u16, value: u64 },
    /// The owner says where an object lies, nearly as it could be.
    Place { entry: u8, offset: i16, length: i16, references: u8 },
    /// The reader stores a word among its pins.
    Pin { word: u16, value: u32 },
    /// Another process reads an entry.
    Read { entry: u8 },
    /// The owner looks at a range of pins.
    Look { first: u16, count: u16 },
}

/// The memory that the owner, or the reader with its pins, writes, and the view that others have of it.
struct Memories {
    owner: WriteMapping,
    reader: WriteMapping,
    table: TableReader,
    pins: PinReader,
    segment: ReadMapping,
}

thread_local! {
    static MEMORIES: Memories = {
        let memory = |bytes: u64, allocated: Range<u64>| {
            let memory = SharedMemory::create(c"fuzz", bytes).expect("memory");
            memory.allocate(allocated).expect("memory");
            let read_only = memory.read_only().expect("a descriptor");
            (memory, read_only)
        };
        let (table, table_read_only) = memory(TABLE_BYTES, 0..TABLE_BYTES_USED);
        let first_pin = pin_extent_offset(0);
        let (pins, pins_read_only) = memory(control_bytes(1), first_pin..first_pin + PIN_BYTES_USED);
        let (_, segment) = memory(SEGMENT_BYTES, 0..SEGMENT_BYTES);
        Memories {
            owner: WriteMapping::map(table.writable(), 0, TABLE_BYTES_USED as usize).expect("a mapping"),
            reader: WriteMapping::map(pins.writable(), first_pin, PIN_BYTES_USED as usize).expect("a mapping"),
            table: TableReader::map(table_read_only.as_fd()).expect("a mapping"),
            pins: PinReader::map(pins_read_only.as_fd(), 0).expect("a mapping"),
            segment: ReadMapping::map(segment.as_fd(), 0, SEGMENT_BYTES as usize).expect("a mapping"),
        }
    };
}

fuzz_target!(|steps: Vec<Step>| MEMORIES.with(|memories| run(memories, &steps)));

fn run(memories: &Memories, steps: &[Step]) {
    let Memories { owner, reader, table, pins, segment } = memories;
    owner.store_words(0, &[0; TABLE_BYTES_USED as usize]);
    reader.store_words(0, &[0; PIN_BYTES_USED as usize]);
    for step in steps {
        match *step {
            Step::Write { word, value } => {
                owner
                    .word64(usize::from(word) * 8 % TABLE_BYTES_USED as usize)
                    .store(value, Ordering::SeqCst);
            }
            Step::Place { entry, offset, length, references } => {
                let at = PAGE_BYTES as usize + usize::from(entry) % ENTRIES as usize * ENTRY_BYTES as usize;
                let store = |word: usize, value: u64| {
                    owner.word64(at + word * 8).store(value, Ordering::SeqCst);
                };
                // Around the ends of the segment, and of the numbers.
                store(2, SEGMENT_BYTES.wrapping_add_signed(i64::from(offset) * 16));
                store(3, (length as u64).wrapping_mul(16));
                store(4, references.into());
                store(0, State::Sealed as u64);
            }
            Step::Pin { word, value } => {
                reader.word32(usize::from(word) * 4 % PIN_BYTES_USED as usize).store(value, Ordering::SeqCst);
            }
            Step::Read { entry } => read(table, segment, u32::from(entry) % ENTRIES),
            Step::Look { first, count } => {
                let entries = (PIN_BYTES_USED / PIN_BYTES) as u32;
                let first = u32::from(first) % entries;
                let last = first.saturating_add(count.into()).min(entries - 1);
                let may_hold = pins.may_hold(first..=last);
                // The bits of a pin are honest; whether a group counts them is the reader's own business.
                let _ = std::hint::black_box((may_hold, pins.get(first), pins.get(last)));
            }
        }
        let _ = table.sleep();
    }
}

/// Reads an entry as the client and the daemon do.
fn read(table: &TableReader, segment: &ReadMapping, entry: u32) {
    let word = table.word(entry);
    let state = word.state();
    assert!(state.is_none_or(|state| (word.bits() & 0xffff_ffff) == state as u64));
    let location = table.location(entry);
    if !location.fits(segment.len() as u64) {
        return;
    }
    let extent = Location::extent(location.length, location.references).expect("what fits has a length");
    assert!(location.offset <= segment.len() as u64 && extent <= segment.len() as u64);
    let bytes = segment.pointer(location.offset as usize, location.length as usize);
    // SAFETY: it was found to lie inside the mapping, which nobody writes here.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), location.length as usize) };
    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    let references = location.references_offset().expect("what fits has an end");
    for reference in 0..u64::from(location.references) {
        let offset = references + reference * Location::REFERENCE_BYTES;
        let _ = std::hint::black_box(segment.load64_relaxed(offset as usize));
        let _ = std::hint::black_box(segment.load64_relaxed(offset as usize + 8));
    }
    std::hint::black_box(sum);
}
