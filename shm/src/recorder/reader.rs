//! A recorder as every other process sees it. The writer may have stored any value in any word: each word is copied
//! once, then checked, then used. The time of a reader is bounded by the size of the recorder, whatever numbers the
//! recorder contains.

use std::io;
use std::os::fd::BorrowedFd;

use crate::clock::Moment;
use crate::mapping::ReadMapping;
use crate::memory::check_received;
use crate::recorder::event_buffer::{self, BufferLayout};
use crate::recorder::layout::{
    self, COUNTERS, Counter, EVENT_VALUES, HEADER_KINDS, HEADER_LAYOUT, HEADER_NAMES, HEADER_NANOS,
    HEADER_QUEUES, HEADER_RUN, HEADER_TICKS, HEADER_WAITS, HISTOGRAM, LAYOUT, NAME_BYTES_MAX, NAMES_MAX,
    Queue, RECORDER_BYTES, WAITS,
};
use crate::recorder::{EventBuffer, Kind, ORIGINS, WaitFor};
use crate::sync::{Ordering, fence};
use crate::table::TABLE_BYTES;

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The kind, which says what the detail and the values mean.
    pub kind: Kind,
    /// A small number; [`Kind`] lists its meaning for each kind.
    pub detail: u8,
    /// The number of a name.
    pub name: u16,
    /// The tick at which it was recorded.
    pub tick: u64,
    /// The values; [`Kind`] lists their meanings for each kind.
    pub values: [u64; EVENT_VALUES],
}

/// The events that a reader found in a buffer.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// In the order in which they were recorded.
    pub events: Vec<Event>,
    /// The number of the next event.
    pub next: u64,
    /// Events that were overwritten before this reader came to them.
    pub lost: u64,
}

/// The call that runs in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The tick at which it began.
    pub since: u64,
    /// Its number, as its caller counts.
    pub task: u64,
    /// The process that made it.
    pub caller: u64,
    /// The number of its function's name.
    pub name: u16,
}

/// A thread that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The tick at which it began.
    pub since: u64,
    /// The reason of the wait.
    pub what: WaitFor,
    /// The two values of the reason, as [`WaitFor`] lists them.
    pub values: [u64; 2],
}

/// The counts of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    counters: [u64; COUNTERS],
    /// Calls that ran, by their ticks: see [`bucket_start`](super::bucket_start).
    pub histogram: [u32; HISTOGRAM],
}

impl Counts {
    /// One of the numbers.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }
}

/// The recorder of a process, mapped read-only.
#[derive(Debug)]
pub struct Reader {
    mapping: ReadMapping,
}

impl Reader {
    /// Maps the recorder in a control memory; `None` where nothing is recorded, or in another layout.
    ///
    /// # Errors
    /// The system's, and `InvalidData` for a memory that is too short, or may still shrink.
    pub fn map(control: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        check_received(control, TABLE_BYTES + RECORDER_BYTES)?;
        let mapping = ReadMapping::map(control, TABLE_BYTES, RECORDER_BYTES as usize)?;
        // Acquire: the rest of the header was stored before.
        let is_one = mapping.load64_acquire(HEADER_LAYOUT) == LAYOUT;
        Ok(is_one.then_some(Self { mapping }))
    }

    /// When the process began it.
    pub fn began(&self) -> Moment {
        Moment {
            ticks: self.mapping.load64_relaxed(HEADER_TICKS),
            nanos: self.mapping.load64_relaxed(HEADER_NANOS),
        }
    }

    /// Whether events of this kind are recorded.
    pub fn records(&self, kind: Kind) -> bool {
        self.mapping.load64_relaxed(HEADER_KINDS) & u64::from(kind.bit()) != 0
    }

    /// Whether the entries of the process's table contain the times and places at which its objects were made.
    pub fn notes_origins(&self) -> bool {
        self.mapping.load64_relaxed(HEADER_KINDS) & u64::from(ORIGINS) != 0
    }

    /// The events of a buffer from number `from` on, as far as they are there.
    pub fn events(&self, buffer: EventBuffer, from: u64) -> Seen {
        let (events, capacity) = layout::event_buffer(buffer);
        let place = BufferLayout { written: layout::written(buffer), events, capacity };
        let written = event_buffer::written(&self.mapping, place);
        let first = from.max(written.saturating_sub(capacity as u64));
        let mut seen = Seen { events: Vec::new(), next: written, lost: first.saturating_sub(from) };
        for number in first..written {
            match event_buffer::read(&self.mapping, place, number) {
                Some([tag, tick, values @ ..]) => {
                    // A kind that no honest process writes is no event.
                    if let Some(kind) = Kind::from_bits((tag >> 24) as u8) {
                        let (detail, name) = ((tag >> 16) as u8, tag as u16);
                        seen.events.push(Event { kind, detail, name, tick, values });
                    }
                }
                None => seen.lost += 1,
            }
        }
        seen
    }

    /// The number of events that were ever recorded in a buffer, as the process says.
    pub fn written(&self, buffer: EventBuffer) -> u64 {
        self.mapping.load64_relaxed(layout::written(buffer))
    }

    /// The names, the first of which has number 1. Bytes that are no text become `�`.
    pub fn names(&self) -> Vec<String> {
        // Acquire: the names were stored before.
        let count = self.mapping.load64_acquire(HEADER_NAMES).min(NAMES_MAX as u64 - 1) as usize;
        let text = |number: usize| {
            let record = layout::name(number);
            let length = self.mapping.load64_acquire(record).saturating_sub(1).min(NAME_BYTES_MAX as u64);
            let mut bytes = Vec::new();
            self.mapping.load_words(record + size_of::<u64>(), length as usize, &mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        (1..=count).map(text).collect()
    }

    /// The counts of a name; of name 0, those of calls for whose names there was no room.
    pub fn counts(&self, name: usize) -> Option<Counts> {
        if name >= NAMES_MAX {
            return None;
        }
        let counts = layout::counts(name);
        let buckets = counts + COUNTERS * size_of::<u64>();
        let load = |at: usize| self.mapping.load32_relaxed(buckets + at * size_of::<u32>());
        Some(Counts { counters: self.mapping.load_words64(counts), histogram: std::array::from_fn(load) })
    }

    /// The length of a queue of the process, as the process recorded it.
    pub fn queue(&self, queue: Queue) -> u64 {
        self.mapping.load64_relaxed(HEADER_QUEUES + queue as usize * size_of::<u64>())
    }

    /// The call that runs, if one does.
    pub fn run(&self) -> Option<Run> {
        let [since, task, caller, name, ..] = self.published(HEADER_RUN)?;
        Some(Run { since, task, caller, name: name as u16 })
    }

    /// The threads that wait.
    pub fn waits(&self) -> Vec<Wait> {
        let place = |place: usize| self.published(HEADER_WAITS + place * 64);
        (0..WAITS)
            .filter_map(place)
            .map(|[since, what, one, other, ..]| {
                let what = u8::try_from(what).map_or(WaitFor::Unknown, WaitFor::from_bits);
                Wait { since, what, values: [one, other] }
            })
            .collect()
    }

    /// The current state that a process records; `None` if it records none, or changes it all the time.
    fn published(&self, at: usize) -> Option<[u64; 7]> {
        const ATTEMPTS: usize = 16;
        for _ in 0..ATTEMPTS {
            // Acquire: pairs with the first word in `Recorder::publish`; the values come after.
            let first = self.mapping.load64_acquire(at);
            if first == 0 {
                return None;
            }
            let values = self.mapping.load_words64::<7>(at + size_of::<u64>());
            // Acquire: the values come before the second look. Pairs with the writer's fence.
            fence(Ordering::Acquire);
            if self.mapping.load64_relaxed(at) == first {
                return Some(values);
            }
        }
        None
    }
}
