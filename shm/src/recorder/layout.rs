//! Where everything lies in a recorder's memory.

use crate::page::PAGE_BYTES;
use crate::recorder::EventBuffer;

/// The number in the first word of a recorder with this layout; 0 where nothing is recorded.
pub(super) const LAYOUT: u64 = 0x6d6f_6275_6c61_0002;

pub(super) const HEADER_LAYOUT: usize = 0;
pub(super) const HEADER_TICKS: usize = 8;
pub(super) const HEADER_NANOS: usize = 16;
pub(super) const HEADER_KINDS: usize = 24;
pub(super) const HEADER_NAMES: usize = 32;
/// The numbers of events, a cache line each.
pub(super) const HEADER_WRITTEN: usize = 64;
/// The running call, a cache line.
pub(super) const HEADER_RUN: usize = 256;
/// The lengths of the queues, a word each.
pub(super) const HEADER_QUEUES: usize = 320;
/// The waits, a cache line each.
pub(super) const HEADER_WAITS: usize = 512;
/// The number of threads whose waits are seen.
pub(super) const WAITS: usize = 32;

/// Words of an event.
pub const EVENT_WORDS: usize = 8;
/// Words of an event beside its tag and its time.
pub const EVENT_VALUES: usize = EVENT_WORDS - 2;
pub(super) const EVENT_BYTES: usize = EVENT_WORDS * size_of::<u64>();

/// Events of each buffer.
const EVENTS: [usize; 3] = [4096, 4096, 1024];
const EVENT_BUFFERS: usize = PAGE_BYTES as usize;

/// Names in a recorder. Number 0 names nothing.
pub(super) const NAMES_MAX: usize = 512;
pub(super) const NAME_RECORD_BYTES: usize = 128;
/// Bytes of a name; a longer one is cut.
pub const NAME_BYTES_MAX: usize = NAME_RECORD_BYTES - size_of::<u64>();
const NAMES: usize = EVENT_BUFFERS + (EVENTS[0] + EVENTS[1] + EVENTS[2]) * EVENT_BYTES;
const COUNTS: usize = NAMES + NAMES_MAX * NAME_RECORD_BYTES;
const COUNTS_BYTES: usize = 512;

/// Bytes of a recorder.
pub const RECORDER_BYTES: u64 = (COUNTS + NAMES_MAX * COUNTS_BYTES) as u64;
const _: () = assert!(RECORDER_BYTES.is_multiple_of(PAGE_BYTES));
const _: () = assert!(HEADER_WAITS + WAITS * 64 <= EVENT_BUFFERS);

/// The queues of a process, whose lengths it records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Calls that this process made, and that wait for a worker.
    ForWorker = 0,
    /// Calls that this process made, and that wait for arguments.
    ForArguments = 1,
    /// Calls that arrived here, and have not begun.
    Arrived = 2,
}

/// A number that is kept for each name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Calls that this process has made.
    Made = 0,
    /// Those of them that were sent to a process.
    Sent = 1,
    /// Those of them that have succeeded.
    Ended = 2,
    /// Those of them that have failed.
    Failed = 3,
    /// Calls that this process has run.
    Ran = 4,
    /// Those of them that have failed.
    RanFailed = 5,
    /// The ticks that they took together.
    Ticks = 6,
    /// The ticks of the longest.
    TicksMax = 7,
}

/// Words of counters at the beginning of a name's counts.
pub(super) const COUNTERS: usize = 8;
/// Buckets of the histogram of times: four for each doubling.
pub const HISTOGRAM: usize = (COUNTS_BYTES - COUNTERS * size_of::<u64>()) / size_of::<u32>();
/// The first bucket has all times below.
const FIRST_BITS: u32 = 9;

/// The bucket of a number of ticks.
#[inline]
pub(super) fn bucket(ticks: u64) -> usize {
    let ticks = ticks.max(1 << FIRST_BITS);
    let octave = ticks.ilog2();
    let quarter = (ticks >> (octave - 2)) & 3;
    (((octave - FIRST_BITS) * 4) as usize + quarter as usize).min(HISTOGRAM - 1)
}

/// The ticks with which a bucket begins.
pub fn bucket_start(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket as u32 / 4 + FIRST_BITS, bucket as u64 % 4);
    (4 + quarter) << (octave - 2)
}

/// Where a buffer begins, and its number of events.
pub(super) fn event_buffer(buffer: EventBuffer) -> (usize, usize) {
    let before: usize = EVENTS[..buffer as usize].iter().sum();
    (EVENT_BUFFERS + before * EVENT_BYTES, EVENTS[buffer as usize])
}

/// Where the number of a buffer's events is.
pub(super) fn written(buffer: EventBuffer) -> usize {
    HEADER_WRITTEN + buffer as usize * 64
}

/// Where a name is.
pub(super) fn name(number: usize) -> usize {
    NAMES + number * NAME_RECORD_BYTES
}

/// Where the counts of a name are.
pub(super) fn counts(number: usize) -> usize {
    COUNTS + number * COUNTS_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_bucket_that_begins_before_it() {
        for ticks in (0..60).flat_map(|bits| [(1u64 << bits) - 1, 1 << bits, (1 << bits) + (1 << bits) / 3]) {
            let found = bucket(ticks);
            assert!(found == 0 || bucket_start(found) <= ticks, "{ticks} in {found}");
            assert!(found == HISTOGRAM - 1 || ticks < bucket_start(found + 1), "{ticks} in {found}");
        }
    }

    #[test]
    fn nothing_overlaps() {
        let (made, ran, other) = (
            event_buffer(EventBuffer::Made),
            event_buffer(EventBuffer::Ran),
            event_buffer(EventBuffer::Other),
        );
        let end = |(start, events): (usize, usize)| start + events * EVENT_BYTES;
        assert_eq!((end(made), end(ran), end(other)), (ran.0, other.0, name(0)));
        assert_eq!((name(NAMES_MAX), counts(NAMES_MAX) as u64), (counts(0), RECORDER_BYTES));
    }
}
