//! The clients that may pin this client's objects, and the looks at their pins.
//!
//! A reader that the owner has not heard of may hold anything. The daemon counts the readers in its directory before it
//! allows a new reader to pin, so as long as the owner has heard of fewer, every object counts as held.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_shm::bell::Bell;
use mobula_shm::directory::DirectoryReader;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::{Candidate, MAPPED, PinReader, WAITING};
use parking_lot::RwLock;

/// The pins of entries are looked at together if the entries are at most this far apart.
const NEAR: u32 = 4096;

/// All readers of one owner's objects.
pub(crate) struct Readers {
    owner: OwnerId,
    directory: Arc<DirectoryReader>,
    /// The first is the daemon, which pins the objects that have names.
    readers: RwLock<Vec<Reader>>,
    /// The number of readers that have ever joined, as far as this client has heard.
    heard: AtomicU64,
}

/// A client that may pin this owner's objects.
struct Reader {
    id: OwnerId,
    pins: PinReader,
    bell: Option<Bell>,
}

impl Readers {
    pub(crate) fn new(owner: OwnerId, directory: Arc<DirectoryReader>, daemon_pins: PinReader) -> Self {
        let daemon = Reader { id: OwnerId::new(0, 0), pins: daemon_pins, bell: None };
        Self { owner, directory, readers: RwLock::new(vec![daemon]), heard: AtomicU64::new(0) }
    }

    // ---- as the daemon announces them ----

    /// A reader may pin from now on. A reader that is announced twice is known once.
    pub(crate) fn join(&self, id: OwnerId, pins: PinReader, bell: Bell) {
        let mut readers = self.readers.write();
        if readers.iter().any(|reader| reader.id == id) {
            return;
        }
        readers.push(Reader { id, pins, bell: Some(bell) });
        failpoint(Failpoint::ReaderNoted);
        // Release, and after the push: a thread that sees the count also sees the reader.
        self.heard.fetch_add(1, Ordering::Release);
        // It may wait already for a promise that was settled before it was known here.
        if let Some(bell) = readers.last().and_then(|reader| reader.bell.as_ref()) {
            bell.ring();
        }
    }

    /// A reader has come and gone without having been known here.
    pub(crate) fn miss(&self) {
        self.heard.fetch_add(1, Ordering::Release);
    }

    /// A reader is gone.
    pub(crate) fn leave(&self, id: OwnerId) {
        self.readers.write().retain(|reader| reader.id != id);
    }

    /// The readers that are known, without the daemon; and the number that have ever joined, as far as is known.
    pub(crate) fn known(&self) -> (Vec<OwnerId>, u64) {
        let known = self.readers.read().iter().skip(1).map(|reader| reader.id).collect();
        (known, self.heard.load(Ordering::Acquire))
    }

    // ---- looks at their pins ----

    /// Whether another process has a reference to an entry's object.
    pub(crate) fn hold(&self, index: u32) -> bool {
        self.are_pending() || self.readers.read().iter().any(|reader| reader.pins.get(index) != 0)
    }

    /// Whether another process has a borrow of an entry's object.
    pub(crate) fn borrow(&self, index: u32) -> bool {
        self.are_pending() || self.readers.read().iter().any(|reader| reader.pins.get(index) & MAPPED != 0)
    }

    /// Marks the candidates that another process has references to.
    pub(crate) fn mark_held(&self, candidates: &mut [Candidate<'_>]) {
        let readers = self.readers.read();
        if self.are_pending() {
            candidates.iter_mut().for_each(|candidate| candidate.held = true);
            return;
        }
        let range = near_range(candidates);
        for reader in readers.iter() {
            if range.clone().is_some_and(|range| !reader.pins.may_hold(range)) {
                continue;
            }
            for candidate in candidates.iter_mut() {
                candidate.held |= reader.pins.get(candidate.index) != 0;
            }
        }
    }

    /// Rings the readers that wait for a promise, which has just been settled.
    pub(crate) fn ring_waiting(&self, promised: ObjectId) {
        for reader in self.readers.read().iter() {
            if reader.pins.get(promised.index()) & WAITING != 0
                && let Some(bell) = &reader.bell
            {
                bell.ring();
                failpoint(Failpoint::SettleRung);
            }
        }
    }

    /// Whether the daemon has allowed a reader that is not known here.
    fn are_pending(&self) -> bool {
        // Acquire: pairs with `join`.
        self.directory.readers(self.owner.slot()) != self.heard.load(Ordering::Acquire)
    }
}

/// The range of the candidates' indices, if they are neighbours. As a rule, entries that are freed together were made
/// together: then a look or two at the whole range shows that a reader has none of them.
fn near_range(candidates: &[Candidate<'_>]) -> Option<RangeInclusive<u32>> {
    let indices = candidates.iter().map(|candidate| candidate.index);
    let (first, last) = indices.fold((u32::MAX, 0), |(first, last), at| (first.min(at), last.max(at)));
    (last - first < NEAR).then_some(first..=last)
}
