//! The sweep: frees the orphans that no client pins.
//!
//! It uses the same handshake as owners do, and goes through the remaining objects in slices. A segment without objects
//! is retired, a spill file without objects is discarded. Segments in which a client holds an object go into [escrow].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::try_free;
use mobula_shm::table::{State, Word};

use crate::daemon::orphans::escrow;
use crate::daemon::orphans::takeover::free;
use crate::daemon::registry::Registry;

/// How soon the next sweep comes after one that has freed something.
pub(crate) const SWEEP_PERIOD_MIN: Duration = Duration::from_millis(10);
/// How late the next sweep comes when nothing changes.
const SWEEP_PERIOD_MAX: Duration = Duration::from_millis(250);

/// The time of the next sweep; none while no client is dead.
#[derive(Debug, Default)]
pub(crate) struct SweepTimer {
    due: Option<Instant>,
    period: Duration,
}

impl SweepTimer {
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Something has happened that may free objects.
    pub(crate) fn run_soon(&mut self, now: Instant) {
        self.due = Some(now);
        self.period = SWEEP_PERIOD_MIN;
    }

    /// The next sweep comes then at the latest.
    pub(crate) fn run_at(&mut self, then: Instant) {
        self.due = Some(self.due.map_or(then, |due| due.min(then)));
    }

    /// The next sweep comes after the current period.
    pub(crate) fn run_later(&mut self, now: Instant) {
        self.run_at(now + self.period.max(SWEEP_PERIOD_MIN));
    }

    /// A sweep begins, which sets the timer anew.
    pub(crate) fn begin(&mut self) {
        self.due = None;
    }

    /// A sweep ends: the period becomes longer while nothing is freed.
    pub(crate) fn end(&mut self, freed: bool, anybody_dead: bool) {
        let longer = (self.period * 2).clamp(SWEEP_PERIOD_MIN, SWEEP_PERIOD_MAX);
        self.period = if freed { SWEEP_PERIOD_MIN } else { longer };
        if !anybody_dead {
            self.due = None;
        }
    }
}

/// The result of one slice of a sweep.
pub(crate) struct Swept {
    /// Whether another slice may free more.
    pub(crate) goes_on: bool,
    /// Whether no object is left.
    pub(crate) is_empty: bool,
}

/// Frees the objects in the next slice of the remaining objects that no client pins, once the grace is over. Puts
/// segments in which a client holds an object into escrow.
pub(crate) fn sweep_slice(registry: &mut Registry, slot: u16, now: Instant) -> Option<Swept> {
    let slice_max = registry.config.sweep_entries_max;
    let owner = registry.owners.get_mut(&slot)?;
    let mut remaining = owner.remaining.take()?;
    remaining.rewind();
    let in_grace = now < remaining.grace_ends;
    let (mut freed, mut segments, mut files) = (false, Vec::new(), Vec::new());
    let mut let_go = Vec::new();
    let mut held_segments = BTreeSet::new();
    for _ in 0..slice_max {
        let Some(entry) = remaining.current() else { break };
        let held = || registry.holds.contains(owner.id, entry.index) || owner.is_pinned(entry.index);
        // Most entries that stay are pinned. Looking first saves their readers from seeing `Dying`.
        let is_held = held();
        if is_held {
            let segment = remaining.segment_of(entry.index);
            held_segments.extend(segment.filter(|segment| !remaining.escrowed.contains(segment)));
        }
        let stays = is_held || in_grace;
        if stays || !try_free_orphan(owner.view.word(entry.index), entry.generation, held) {
            remaining.advance();
            continue;
        }
        freed = true;
        failpoint(Failpoint::SweepFreed);
        let emptied = remaining.remove_current();
        segments.extend(emptied.segment);
        files.extend(emptied.file);
        let_go.extend(remaining.take_references(entry.index));
    }
    let (unfinished, is_empty) = (remaining.current().is_some(), remaining.count() == 0);
    remaining.looked_at_all |= !unfinished;
    owner.remaining = Some(remaining);
    escrow::deposit_segments(registry, slot, held_segments);
    for number in segments {
        registry.retire(slot, number);
    }
    for file in files {
        escrow::discard_spill_file(registry, slot, file);
    }
    for object in let_go {
        registry.let_go(object);
    }
    Some(Swept { goes_on: freed || unfinished, is_empty })
}

fn try_free_orphan(word: &AtomicU64, generation: u32, held: impl Fn() -> bool) -> bool {
    let seen = Word::from_bits(word.load(Ordering::Relaxed));
    match seen.state() {
        Some(from @ (State::Sealed | State::Deleted | State::Spilled)) if seen.generation() == generation => {
            try_free(word, generation, from, held)
        }
        // A lost promise has no bytes to protect. It never becomes `Dying`: the next daemon would take it for an
        // object.
        Some(State::Lost) if seen.generation() == generation && held() => false,
        // The daemon wrote none of these: some process still writes into a dead client's table.
        _ => {
            free(word, generation);
            true
        }
    }
}
