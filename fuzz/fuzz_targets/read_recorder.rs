//! A recorder with an untrusted writer: it writes any words, at any time. A reader reads what lies there, in bounded
//! time and memory, and never an event that is not there.
#![no_main]

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mobula_shm::clock::{Moment, Scale};
use mobula_shm::mapping::WriteMapping;
use mobula_shm::memory::SharedMemory;
use mobula_shm::recorder::{EventBuffer, Kind, NAME_BYTES_MAX, Queue, RECORDER_BYTES, Reader, Recorder};
use mobula_shm::table::TABLE_BYTES;

// `seeds.rs` knows these in their order, with the bytes of their fields.
#[derive(Debug, Arbitrary)]
enum Step {
    /// A word anywhere in the recorder.
    Write {
        word: u32,
        value: u64,
    },
    /// A word of the header, or of the first events.
    Spoil {
        word: u8,
        value: u64,
    },
    /// An honest event.
    Record {
        buffer: u8,
        value: u64,
    },
    Name {
        text: [u8; 4],
    },
    Read {
        from: u64,
    },
}

thread_local! {
    static MEMORY: SharedMemory = {
        let memory = SharedMemory::create(c"fuzz", TABLE_BYTES + RECORDER_BYTES).expect("memory");
        memory.allocate(TABLE_BYTES..TABLE_BYTES + RECORDER_BYTES).expect("memory");
        memory
    };
}

fuzz_target!(|steps: Vec<Step>| MEMORY.with(|memory| run(memory, &steps)));

fn run(memory: &SharedMemory, steps: &[Step]) {
    let bytes = RECORDER_BYTES as usize;
    let hostile = WriteMapping::map(memory.writable(), TABLE_BYTES, bytes).expect("a mapping");
    hostile.store_words(0, &[0; 16384]);
    let recorder = Recorder::map(memory.writable(), u32::MAX).expect("a mapping");
    let read_only = memory.read_only().expect("a descriptor");
    let reader = Reader::map(read_only.as_fd()).expect("a mapping").expect("it was begun");
    for step in steps {
        match *step {
            Step::Write { word, value } => {
                hostile.word64(word as usize % (bytes / 8) * 8).store(value, Ordering::SeqCst);
            }
            Step::Spoil { word, value } => {
                let place = if word < 128 { usize::from(word) } else { 512 + usize::from(word - 128) };
                hostile.word64(place * 8).store(value, Ordering::SeqCst);
            }
            Step::Record { buffer, value } => {
                recorder.record(EventBuffer::ALL[usize::from(buffer) % 3], Kind::Mark, buffer, 0, [value; 6]);
            }
            Step::Name { text } => _ = recorder.name(&String::from_utf8_lossy(&text)),
            Step::Read { from } => read(&reader, from),
        }
    }
    read(&reader, 0);
}

fn read(reader: &Reader, from: u64) {
    let scale = Scale::between(reader.began(), Moment::now());
    for buffer in EventBuffer::ALL {
        let seen = reader.events(buffer, from);
        assert!(seen.events.len() <= 4096);
        assert!(seen.events.len() as u64 <= seen.next.saturating_sub(from));
        seen.events.iter().for_each(|event| _ = scale.nanos(event.tick));
    }
    let names = reader.names();
    assert!(names.len() < 512);
    // A byte that is no text becomes three.
    assert!(names.iter().all(|name| name.len() <= 3 * NAME_BYTES_MAX));
    for name in 0..600 {
        assert_eq!(reader.counts(name).is_some(), name < 512);
    }
    let _ = reader.run().map(|run| scale.length(run.since));
    assert!(reader.waits().len() <= 32);
    let _ = [Queue::ForWorker, Queue::ForArguments, Queue::Arrived].map(|queue| reader.queue(queue));
    let _ = reader.notes_origins();
}
