//! Rings: records from one process to one other, without a system call.
//!
//! A channel joins two processes. Each has one memory (its *end*) that it writes and the other reads:
//!
//! | offset | field | written by the end's process |
//! |---|---|---|
//! | 0 | `tail` | bytes that it has published in its own data, ever |
//! | 64 | `head` | bytes that it has consumed of the *other* end's data, ever |
//! | 128 | `starved` | it has records waiting for room in its own data |
//! | 192 | `mark` | its progress with the consumed records, as the two processes count it |
//! | 256 | `idle` | odd while it does not look at the other end's data |
//! | 4096 | data | its records: a word with the length, the bytes, padding to 8 |
//!
//! A record counts once `tail` has passed it: a producer that dies halfway has published nothing. A consumer copies
//! a record out before it reads it, and checks the length of the copy. Both counters only grow (2⁶⁴ bytes last).
//!
//! `head` is also the acknowledgement: the consumer has handled each record that the head has passed, so the producer
//! can drop the objects that it held for the record.
//!
//! `mark` outlives its process, like the whole end: from it, the producer learns which record a killed consumer had
//! begun.
//!
//! # Idle rings
//!
//! A process with many channels does not look at each of them all the time. It makes a ring *idle*, and the producer
//! then rings the process's [bell](crate::bell) for the next record, also if the process is awake:
//!
//! ```text
//! consumer                               producer
//! idle.store(odd)                        publish
//! fence(SeqCst)                          fence(SeqCst)
//! look at the ring once more             idle.load() odd, and not the one that was rung for last?
//! nothing: look no more                  ring, for an idle ring
//! ```
//!
//! This is the bell's own handshake for one ring: either the producer sees that the ring is idle, or the consumer sees
//! the record. The word counts too, so the producer rings once for each time that the ring is idle. A consumer that
//! looks at the ring again makes the word even, and looks once: a producer that found the word even may have found the
//! process awake while it was about to sleep without a look at this ring. A process that lies about the word delays its
//! own records, or costs the other end a system call for each record that it is sent.
//!
//! Proved by exploring this code: `shm/tests/loom/ring.rs` (records arrive whole and in order across the wrap; a
//! producer without room hears of it), and `shm/tests/loom/idle.rs` (no record stays unseen in an idle ring).

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::failpoints::{Failpoint, failpoint};
use crate::mapping::{ReadMapping, WriteMapping};
use crate::memory::PAGE_BYTES;
use crate::sync::{Ordering, fence};

const TAIL: usize = 0;
const HEAD: usize = 64;
const STARVED: usize = 128;
const MARK: usize = 192;
const IDLE: usize = 256;
const DATA: usize = PAGE_BYTES as usize;
const WORD: usize = 8;
/// The least bytes of data; a model could not fill a page.
const DATA_BYTES_MIN: u64 = if cfg!(mobula_loom) { 4 * WORD as u64 } else { PAGE_BYTES };

/// Bytes of the memory of an end whose data has `data_bytes`.
pub fn end_bytes(data_bytes: u32) -> u64 {
    PAGE_BYTES + u64::from(data_bytes)
}

/// Where the words of an end are.
#[cfg(mobula_loom)]
pub(crate) fn end_words(data_bytes: u32) -> impl Iterator<Item = usize> {
    [TAIL, HEAD, STARVED, MARK, IDLE].into_iter().chain((DATA..DATA + data_bytes as usize).step_by(WORD))
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// No room now; the consumer will ring when it has made some.
    Full,
    /// The record is larger than a quarter of the ring.
    TooLarge,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => {
                "the ring has no room for the record now: send it again when the other end has rung"
            }
            Self::TooLarge => {
                "the record is larger than a quarter of the ring: put it into the store, and send its id"
            }
        })
    }
}

impl std::error::Error for PushError {}

/// The other process wrote a value that no correct process writes; the channel must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer wrote an impossible position or length into its ring")
    }
}

impl std::error::Error for Corrupt {}

/// Maps both ends of a channel: `mine` writable, `theirs` read-only.
///
/// # Errors
/// The system's; `InvalidInput` unless `data_bytes` is a power of two of at least a page.
pub fn open(
    mine: BorrowedFd<'_>,
    theirs: BorrowedFd<'_>,
    data_bytes: u32,
) -> io::Result<(Producer, Consumer)> {
    if !data_bytes.is_power_of_two() || u64::from(data_bytes) < DATA_BYTES_MIN {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mine = Arc::new(WriteMapping::map(mine, 0, end_bytes(data_bytes) as usize)?);
    let theirs = Arc::new(ReadMapping::map(theirs, 0, end_bytes(data_bytes) as usize)?);
    let capacity = u64::from(data_bytes);
    let producer = Producer {
        mine: mine.clone(),
        theirs: theirs.clone(),
        capacity,
        tail: 0,
        head_seen: 0,
        starved: false,
        rung_for: 0,
    };
    Ok((producer, Consumer { mine, theirs, capacity, head: 0, pending: None }))
}

/// The sending half of an end.
#[derive(Debug)]
pub struct Producer {
    mine: Arc<WriteMapping>,
    theirs: Arc<ReadMapping>,
    capacity: u64,
    tail: u64,
    head_seen: u64,
    /// The value of `starved`.
    starved: bool,
    /// The value of the consumer's `idle` for which its bell was rung last.
    rung_for: u64,
}

impl Producer {
    /// The largest record it takes.
    pub fn record_bytes_max(&self) -> usize {
        (self.capacity / 4) as usize
    }

    /// Publishes one record; returns the position behind it. Ring the peer's bell if it sleeps.
    ///
    /// # Errors
    /// [`PushError::Full`], after which the peer rings back once there is room; [`PushError::TooLarge`].
    #[inline]
    pub fn push(&mut self, record: &[u8]) -> Result<u64, PushError> {
        if record.len() > self.record_bytes_max() {
            return Err(PushError::TooLarge);
        }
        let needed = needed(record.len());
        if !self.has_room(needed) {
            // Relaxed: the fence puts it before the look at the head.
            self.mine.word64(STARVED).store(1, Ordering::Relaxed);
            // SeqCst: pairs with the consumer's fence in `Consumer::advance`. Either the head is seen here, or the flag
            // there.
            fence(Ordering::SeqCst);
            failpoint(Failpoint::PushStarved);
            self.starved = true;
            if !self.has_room(needed) {
                return Err(PushError::Full);
            }
        }
        if self.starved {
            self.mine.word64(STARVED).store(0, Ordering::Relaxed);
            self.starved = false;
        }
        self.mine.word64(self.offset(self.tail)).store(record.len() as u64, Ordering::Relaxed);
        failpoint(Failpoint::PushBegun);
        let start = self.offset(self.tail + WORD as u64);
        let (first, second) = record.split_at(record.len().min(DATA + self.capacity as usize - start));
        self.mine.store_words(start, first);
        if !second.is_empty() {
            self.mine.store_words(DATA, second);
        }
        failpoint(Failpoint::PushWritten);
        self.tail += needed;
        // Release: publishes the record. The fence that puts it before the look at the sleeper is the waker's (see
        // `bell`).
        self.mine.word64(TAIL).store(self.tail, Ordering::Release);
        failpoint(Failpoint::PushPublished);
        Ok(self.tail)
    }

    /// Whether a record of this many bytes finds room now.
    #[inline]
    pub fn has_room_for(&mut self, bytes: usize) -> bool {
        self.has_room(needed(bytes))
    }

    /// The position up to which the consumer has acknowledged records.
    #[inline]
    pub fn consumed(&mut self) -> u64 {
        // Acquire: everything that the consumer did with the records comes before.
        let head = self.theirs.load64_acquire(HEAD);
        // A head that goes backwards or runs ahead is forged: the last one counts.
        if head >= self.head_seen && head <= self.tail {
            self.head_seen = head;
        }
        self.head_seen
    }

    /// The last [mark](Marker::set) of the consumer's process; 0 before the first. It is only that process's word.
    #[inline]
    pub fn mark(&self) -> u64 {
        // Relaxed: it is final once the kernel has said that the process has ended.
        self.theirs.load64_relaxed(MARK)
    }

    /// Whether the consumer's process does not look at the ring, so that its bell has to be rung for the record that
    /// was published: `true` once for each time that the ring is idle. Costs one load, which must follow a SeqCst fence
    /// behind [`push`](Self::push).
    #[inline]
    pub fn finds_idle(&mut self) -> bool {
        // Relaxed: the fence puts what was published before the load; it pairs with the fence in `Peek::begin_idle`.
        let idle = self.theirs.load64_relaxed(IDLE);
        idle % 2 == 1 && std::mem::replace(&mut self.rung_for, idle) != idle
    }

    #[inline]
    fn has_room(&mut self, needed: u64) -> bool {
        let fits = |head: u64| self.capacity - (self.tail - head) >= needed;
        fits(self.head_seen) || {
            let head = self.consumed();
            self.capacity - (self.tail - head) >= needed
        }
    }

    #[inline]
    fn offset(&self, position: u64) -> usize {
        offset(position, self.capacity)
    }
}

/// Where in an end's memory a position of its data lies. The capacity is a power of two.
#[inline]
fn offset(position: u64, capacity: u64) -> usize {
    DATA + (position & (capacity - 1)) as usize
}

/// Bytes that a record takes in the data.
#[inline]
fn needed(bytes: usize) -> u64 {
    (WORD + bytes.next_multiple_of(WORD)) as u64
}

/// The receiving half of an end.
#[derive(Debug)]
pub struct Consumer {
    mine: Arc<WriteMapping>,
    theirs: Arc<ReadMapping>,
    capacity: u64,
    head: u64,
    /// Position behind the record that was copied out but is not acknowledged yet.
    pending: Option<u64>,
}

impl Consumer {
    /// Whether a record is waiting. Costs one load.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // Acquire: as in `next`. As the sleeper's last look it comes after the sleeper's fence (see `bell`).
        self.theirs.load64_acquire(TAIL) == self.head
    }

    /// Copies the next record into `record`; `false` when there is none. Call [`advance`](Self::advance) once
    /// it has been dealt with.
    ///
    /// # Errors
    /// [`Corrupt`] when the producer wrote nonsense; the channel is of no more use.
    #[inline]
    pub fn next(&mut self, record: &mut Vec<u8>) -> Result<bool, Corrupt> {
        // Acquire: pairs with the store in `Producer::push`; the record comes before.
        let tail = self.theirs.load64_acquire(TAIL);
        if tail == self.head {
            return Ok(false);
        }
        let available = tail.checked_sub(self.head).filter(|n| *n <= self.capacity && *n >= WORD as u64);
        let available = available.ok_or(Corrupt)?;
        let length = self.theirs.load64_relaxed(offset(self.head, self.capacity));
        let padded = length.checked_next_multiple_of(WORD as u64).ok_or(Corrupt)?;
        if padded > available - WORD as u64 || length > self.capacity / 4 {
            return Err(Corrupt);
        }
        record.clear();
        let start = offset(self.head + WORD as u64, self.capacity);
        let length = length as usize;
        let first = length.min(DATA + self.capacity as usize - start);
        // Relaxed: ordered behind the load of the tail. A peer that rewrites published bytes spoils what it sent.
        self.theirs.load_words(start, first, record);
        if first < length {
            self.theirs.load_words(DATA, length - first, record);
        }
        self.pending = Some(self.head + WORD as u64 + padded);
        failpoint(Failpoint::PopCopied);
        Ok(true)
    }

    /// Acknowledges the record from [`next`](Self::next); `true` when the producer waits for room and its bell should
    /// be rung.
    #[inline]
    pub fn advance(&mut self) -> bool {
        let Some(head) = self.pending.take() else { return false };
        self.head = head;
        // Release: the record has been dealt with before.
        self.mine.word64(HEAD).store(head, Ordering::Release);
        // SeqCst: pairs with the producer's fence behind its flag (see `Producer::push`).
        fence(Ordering::SeqCst);
        failpoint(Failpoint::PopAdvanced);
        self.theirs.load64_relaxed(STARVED) != 0
    }

    /// A marker for a thread that handles records later than they are received.
    pub fn marker(&self) -> Marker {
        Marker { mine: self.mine.clone() }
    }

    /// A view of the ring for threads that do not receive themselves.
    pub fn peek(&self) -> Peek {
        Peek { mine: self.mine.clone(), theirs: self.theirs.clone() }
    }
}

/// Tells the producer how many of the consumed records the consumer's process has begun.
#[derive(Debug)]
pub struct Marker {
    mine: Arc<WriteMapping>,
}

impl Marker {
    /// Sets the mark, for one thread. One store.
    #[inline]
    pub fn set(&self, mark: u64) {
        // Relaxed: no process reads it before this one has ended.
        self.mine.word64(MARK).store(mark, Ordering::Relaxed);
    }

    /// Sets the mark like [`set`](Self::set), for several threads: the largest number stays. One read-modify-write.
    pub fn raise(&self, mark: u64) {
        self.mine.word64(MARK).fetch_max(mark, Ordering::Relaxed);
    }
}

/// Shows whether records wait to be handled.
#[derive(Debug)]
pub struct Peek {
    mine: Arc<WriteMapping>,
    theirs: Arc<ReadMapping>,
}

impl Peek {
    /// Whether every record that was sent has been handled. Two loads.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // Acquire, both: as in `Consumer::is_empty`; everything that was done with a record comes before.
        self.theirs.load64_acquire(TAIL) == self.mine.word64(HEAD).load(Ordering::Acquire)
    }

    /// Makes the ring idle: this process no longer looks at it until its bell is rung for an idle ring. Returns `false`
    /// if a record is there: then the process continues to look. One thread at a time calls this or
    /// [`end_idle`](Self::end_idle).
    pub fn begin_idle(&self) -> bool {
        let word = self.mine.word64(IDLE);
        // Another odd number, whether the word was odd or even. Relaxed: the fence puts it before the look.
        word.store(word.load(Ordering::Relaxed).wrapping_add(1) | 1, Ordering::Relaxed);
        // SeqCst: pairs with the fence between the producer's `push` and `Producer::finds_idle`.
        fence(Ordering::SeqCst);
        let is_idle = self.is_empty();
        if !is_idle {
            self.end_idle();
        }
        is_idle
    }

    /// Makes the ring active: this process looks at it again from now on. Returns `true` if a record is there: then a
    /// thread that is about to sleep may not know yet that it must look at this ring, and has to be woken.
    pub fn end_idle(&self) -> bool {
        let word = self.mine.word64(IDLE);
        // Relaxed: the fence puts it before the look.
        word.store(word.load(Ordering::Relaxed).wrapping_add(1) & !1, Ordering::Relaxed);
        // SeqCst: a producer that finds the word even, and the process awake, has published before its own fence.
        fence(Ordering::SeqCst);
        !self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SharedMemory;
    use std::os::fd::AsFd;

    struct Ends {
        left: (Producer, Consumer),
        right: (Producer, Consumer),
        raw_left: WriteMapping,
    }

    fn ends() -> Ends {
        let bytes = end_bytes(4096);
        let (a, b) = (SharedMemory::create(c"a", bytes).unwrap(), SharedMemory::create(c"b", bytes).unwrap());
        let (ar, br) = (a.read_only().unwrap(), b.read_only().unwrap());
        Ends {
            left: open(a.writable(), br.as_fd(), 4096).unwrap(),
            right: open(b.writable(), ar.as_fd(), 4096).unwrap(),
            raw_left: WriteMapping::map(a.writable(), 0, bytes as usize).unwrap(),
        }
    }

    #[test]
    fn records_of_every_length_arrive_in_order_across_the_wrap() {
        let mut ends = ends();
        let (producer, consumer) = (&mut ends.left.0, &mut ends.right.1);
        let mut record = Vec::new();
        for length in (0..=producer.record_bytes_max()).chain(0..200) {
            let sent: Vec<u8> = (0..length).map(|i| (i + length) as u8).collect();
            let position = producer.push(&sent).unwrap();
            assert!(consumer.next(&mut record).unwrap());
            assert_eq!(record, sent);
            assert!(producer.consumed() < position, "acknowledged before it was dealt with");
            consumer.advance();
            assert_eq!(producer.consumed(), position);
        }
        assert!(!consumer.next(&mut record).unwrap());
    }

    #[test]
    fn a_full_ring_refuses_and_its_consumer_is_told_to_ring() {
        let mut ends = ends();
        let (producer, consumer) = (&mut ends.left.0, &mut ends.right.1);
        assert_eq!(producer.push(&[0; 4096]), Err(PushError::TooLarge));
        let mut sent = 0;
        while producer.push(&[7; 100]).is_ok() {
            sent += 1;
        }
        assert_eq!(producer.push(&[7; 100]), Err(PushError::Full));
        let mut record = Vec::new();
        assert!(consumer.next(&mut record).unwrap());
        assert!(consumer.advance(), "the starved producer would never hear of the room");
        producer.push(&[8; 100]).unwrap();
        for _ in 0..sent {
            assert!(consumer.next(&mut record).unwrap());
            assert!(!consumer.advance());
        }
        assert_eq!(record, [8; 100]);
    }

    #[test]
    fn a_mark_is_seen_at_the_other_end_alone() {
        let ends = ends();
        ends.right.1.marker().set(7);
        assert_eq!((ends.left.0.mark(), ends.right.0.mark()), (7, 0));
    }

    #[test]
    fn impossible_positions_and_lengths_are_corrupt() {
        for (tail, length) in [(4, 0), (8, 1), (8, u64::MAX), (4096 + 8, 8), (u64::MAX, 8), (2048, 1025)] {
            let mut ends = ends();
            ends.raw_left.word64(DATA).store(length, Ordering::Relaxed);
            ends.raw_left.word64(TAIL).store(tail, Ordering::SeqCst);
            assert_eq!(ends.right.1.next(&mut Vec::new()), Err(Corrupt), "tail {tail}, length {length}");
        }
    }

    #[test]
    fn an_idle_ring_is_rung_for_once() {
        let mut ends = ends();
        let (producer, consumer) = (&mut ends.left.0, &mut ends.right.1);
        let peek = consumer.peek();
        producer.push(&[1]).unwrap();
        assert!(!producer.finds_idle());
        assert!(!peek.begin_idle(), "a record is there");
        assert!(!producer.finds_idle());
        assert!(consumer.next(&mut Vec::new()).unwrap());
        assert!(!peek.begin_idle(), "the record is being handled");
        consumer.advance();
        for _ in 0..2 {
            assert!(peek.begin_idle());
            producer.push(&[2]).unwrap();
            assert!(producer.finds_idle());
            assert!(!producer.finds_idle(), "it was rung for");
            assert!(consumer.next(&mut Vec::new()).unwrap());
            consumer.advance();
        }
        assert!(!peek.end_idle());
        producer.push(&[3]).unwrap();
        assert!(!producer.finds_idle());
        assert!(peek.end_idle(), "a record is there");
    }

    #[test]
    fn a_lying_idle_word_costs_a_ring_for_each_lie_and_nothing_else() {
        let mut ends = ends();
        let producer = &mut ends.right.0;
        for (idle, rings) in [(u64::MAX, true), (u64::MAX, false), (2, false), (1, true), (u64::MAX, true)] {
            ends.raw_left.word64(IDLE).store(idle, Ordering::SeqCst);
            producer.push(&[1]).unwrap();
            assert_eq!(producer.finds_idle(), rings, "{idle}");
        }
        let (consumer, mut record) = (&mut ends.left.1, Vec::new());
        for _ in 0..5 {
            assert!(consumer.next(&mut record).unwrap());
            consumer.advance();
        }
        // A word that its own process finds spoiled goes on from there.
        assert!(consumer.peek().begin_idle());
        producer.push(&[1]).unwrap();
        assert!(producer.finds_idle());
    }

    #[test]
    fn a_lying_head_gives_no_room() {
        let mut ends = ends();
        for head in [1 << 40, u64::MAX] {
            ends.raw_left.word64(HEAD).store(head, Ordering::SeqCst);
            assert_eq!(ends.right.0.consumed(), 0);
        }
    }
}
