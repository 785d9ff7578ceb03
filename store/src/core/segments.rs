//! Segments and the capacity that they use up.
//!
//! | phase | means | its bytes count as |
//! |---|---|---|
//! | `Leased` | a living client puts objects in it | leased |
//! | `Orphaned` | its client is dead, and objects remain | orphaned |
//! | `Retired` | no object lies in it, but a client still has it mapped | retired |
//!
//! The segment's pages count: the whole length at first, and less after its owner has given pages back.
//!
//! A segment in no phase is removed together with its memory. It is never leased to a second client, so no client finds
//! another client's bytes in its memory. `M` is that memory; this module knows nothing else of it.

use std::collections::{BTreeMap, BTreeSet};

/// The phase of a segment; the module's documentation has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Leased,
    Orphaned,
    Retired,
}

/// One segment.
#[derive(Debug)]
pub(crate) struct Segment<M> {
    /// Its length.
    pub(crate) bytes: u64,
    /// The bytes that count for it: those of its pages.
    counted: u64,
    /// Its phase.
    pub(crate) phase: Phase,
    /// Its memory.
    pub(crate) memory: M,
    mappers: BTreeSet<u16>,
}

impl<M> Segment<M> {
    /// Its bytes for the accounting.
    pub(crate) fn counted(&self) -> u64 {
        self.counted
    }

    /// Clients that have it mapped to read.
    pub(crate) fn readers(&self) -> usize {
        self.mappers.len()
    }
}

/// Bytes by the phases of their segments.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) leased: u64,
    pub(crate) orphaned: u64,
    pub(crate) retired: u64,
}

/// All segments, by their owner's slot and their number among the owner's.
#[derive(Debug)]
pub(crate) struct Segments<M> {
    capacity: u64,
    usage: Usage,
    segments: BTreeMap<(u16, u32), Segment<M>>,
    last: BTreeMap<u16, u32>,
    lessened: u64,
}

impl<M> Segments<M> {
    pub(crate) fn new(capacity: u64) -> Self {
        let (segments, last) = (BTreeMap::new(), BTreeMap::new());
        Self { capacity, usage: Usage::default(), segments, last, lessened: 0 }
    }

    /// Bytes that can be leased now.
    pub(crate) fn free(&self) -> u64 {
        // A store that goes on with another's segments may have been given less capacity than they take.
        let used = self.usage.leased + self.usage.orphaned + self.usage.retired;
        self.capacity.saturating_sub(used)
    }

    /// Bytes that are used, by phase.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Counts a new segment of `owner`'s; returns its number. Numbers begin with 1 and are used once.
    ///
    /// # Panics
    /// When it does not fit: ask [`free`](Self::free) first.
    pub(crate) fn lease(&mut self, owner: u16, bytes: u64, memory: M) -> u32 {
        assert!(bytes <= self.free(), "leased more than is free");
        let last = self.last.entry(owner).or_default();
        // Four billion leases of one client later, old numbers are long out of use. A client can claim any numbers from
        // another store.
        let taken = |number: u32| self.segments.contains_key(&(owner, number));
        *last = last.wrapping_add(1).max(1);
        while taken(*last) {
            *last = last.wrapping_add(1).max(1);
        }
        let number = *last;
        self.usage.leased += bytes;
        let segment =
            Segment { bytes, counted: bytes, phase: Phase::Leased, memory, mappers: BTreeSet::new() };
        self.segments.insert((owner, number), segment);
        number
    }

    /// Counts a segment that another store leased; `false` when the number is taken, or no store can have leased so
    /// many bytes. Its whole length counts until it is [counted anew](Self::count_anew).
    pub(crate) fn resume(&mut self, owner: u16, number: u32, phase: Phase, bytes: u64, memory: M) -> bool {
        let used = self.usage.leased + self.usage.orphaned + self.usage.retired;
        if self.contains(owner, number) || used.checked_add(bytes).is_none_or(|sum| sum > i64::MAX as u64) {
            return false;
        }
        self.leased_up_to(owner, number);
        *bytes_of(&mut self.usage, phase) += bytes;
        let segment = Segment { bytes, counted: bytes, phase, memory, mappers: BTreeSet::new() };
        self.segments.insert((owner, number), segment);
        true
    }

    /// Numbers of an owner's up to this one were used before.
    pub(crate) fn leased_up_to(&mut self, owner: u16, number: u32) {
        let last = self.last.entry(owner).or_default();
        *last = number.max(*last);
    }

    /// Whether there is a segment, in any phase.
    pub(crate) fn contains(&self, owner: u16, number: u32) -> bool {
        self.segments.contains_key(&(owner, number))
    }

    /// Notes that `reader` still has a segment mapped, in any phase; `false` when there is no such segment.
    pub(crate) fn resume_map(&mut self, reader: u16, owner: u16, number: u32) -> bool {
        let Some(segment) = self.segments.get_mut(&(owner, number)) else { return false };
        segment.mappers.insert(reader);
        true
    }

    /// A segment that has, or may have, objects in it.
    pub(crate) fn get(&self, owner: u16, number: u32) -> Option<&Segment<M>> {
        self.segments.get(&(owner, number)).filter(|segment| segment.phase != Phase::Retired)
    }

    /// No object lies in a segment any more. Returns the readers that have to unmap it before its bytes are free.
    /// `None` when there is no such segment.
    pub(crate) fn release(&mut self, owner: u16, number: u32) -> Option<Vec<u16>> {
        self.get(owner, number)?;
        self.set_phase(owner, number, Phase::Retired);
        let mappers = self.segments[&(owner, number)].mappers.iter().copied().collect();
        self.drop_unmapped(owner, number);
        Some(mappers)
    }

    /// Notes how many bytes of pages a segment has by now. It never counts as more than before: pages come with the
    /// lease.
    pub(crate) fn count_anew(&mut self, owner: u16, number: u32, allocated: u64) {
        let Some(segment) = self.segments.get_mut(&(owner, number)) else { return };
        if allocated < segment.counted {
            *bytes_of(&mut self.usage, segment.phase) -= segment.counted - allocated;
            segment.counted = allocated;
            self.lessened += 1;
        }
    }

    /// Notes that `reader` has a segment mapped; returns the segment, or `None` when there is no such segment.
    pub(crate) fn map(&mut self, reader: u16, owner: u16, number: u32) -> Option<&Segment<M>> {
        let segment = self.segments.get_mut(&(owner, number))?;
        if segment.phase == Phase::Retired {
            return None;
        }
        segment.mappers.insert(reader);
        Some(segment)
    }

    /// Notes that `reader` no longer has a segment mapped.
    pub(crate) fn unmap(&mut self, reader: u16, owner: u16, number: u32) {
        if let Some(segment) = self.segments.get_mut(&(owner, number)) {
            segment.mappers.remove(&reader);
            self.drop_unmapped(owner, number);
        }
    }

    /// Notes that `reader` has no segment of `owner`'s mapped.
    pub(crate) fn unmap_owner(&mut self, reader: u16, owner: u16) {
        for number in self.numbers(owner) {
            self.unmap(reader, owner, number);
        }
    }

    /// An owner has died.
    pub(crate) fn owner_died(&mut self, owner: u16) {
        for number in self.numbers(owner) {
            if self.segments[&(owner, number)].phase == Phase::Leased {
                self.set_phase(owner, number, Phase::Orphaned);
            }
        }
    }

    /// An owner's slot is vacant: its next owner counts from the beginning.
    pub(crate) fn vacate(&mut self, owner: u16) {
        debug_assert!(self.numbers(owner).is_empty(), "a vacant slot has segments");
        self.last.remove(&owner);
    }

    /// The numbers of an owner's segments, the retired included.
    pub(crate) fn numbers(&self, owner: u16) -> Vec<u32> {
        self.segments.range((owner, 0)..=(owner, u32::MAX)).map(|((_, number), _)| *number).collect()
    }

    /// How many segments are leased to an owner, and their bytes.
    pub(crate) fn held_by(&self, owner: u16) -> (u32, u64) {
        let segments = self.segments.range((owner, 0)..=(owner, u32::MAX));
        let held = segments.filter(|(_, segment)| segment.phase != Phase::Retired);
        held.fold((0, 0), |(count, bytes), (_, segment)| (count + 1, bytes + segment.counted))
    }

    /// The number of segments, and of bytes, that count as an owner's. Segments that it has given back count while
    /// other clients have them mapped.
    pub(crate) fn charged(&self, owner: u16) -> (usize, u64) {
        let segments = self.segments.range((owner, 0)..=(owner, u32::MAX));
        segments.fold((0, 0), |(count, bytes), (_, segment)| (count + 1, bytes + segment.counted))
    }

    /// All segments in any phase, from this owner's slot and number on.
    pub(crate) fn from(&self, first: (u16, u32)) -> impl Iterator<Item = ((u16, u32), &Segment<M>)> {
        self.segments.range(first..).map(|(place, segment)| (*place, segment))
    }

    /// The number of segments.
    pub(crate) fn count(&self) -> usize {
        self.segments.len()
    }

    /// How often the bytes that count have become less.
    pub(crate) fn lessened(&self) -> u64 {
        self.lessened
    }

    fn set_phase(&mut self, owner: u16, number: u32, phase: Phase) {
        let segment = self.segments.get_mut(&(owner, number)).expect("the caller has just found it");
        *bytes_of(&mut self.usage, segment.phase) -= segment.counted;
        *bytes_of(&mut self.usage, phase) += segment.counted;
        segment.phase = phase;
    }

    fn drop_unmapped(&mut self, owner: u16, number: u32) {
        let segment = &self.segments[&(owner, number)];
        if segment.phase == Phase::Retired && segment.mappers.is_empty() {
            self.usage.retired -= segment.counted;
            self.segments.remove(&(owner, number));
            self.lessened += 1;
        }
    }
}

fn bytes_of(usage: &mut Usage, phase: Phase) -> &mut u64 {
    match phase {
        Phase::Leased => &mut usage.leased,
        Phase::Orphaned => &mut usage.orphaned,
        Phase::Retired => &mut usage.retired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::random::Random;

    /// A segment in the plainest form: recomputed from scratch after every step.
    #[derive(Debug)]
    struct Model {
        owner: u16,
        number: u32,
        counted: u64,
        phase: Phase,
        mappers: Vec<u16>,
    }

    #[test]
    fn random_operations_agree_with_a_list() {
        // Miri is slow.
        const SEEDS: u64 = if cfg!(miri) { 2 } else { 100 };
        for seed in 0..SEEDS {
            let (mut random, mut segments) = (Random::new(seed), Segments::new(1000));
            let mut model: Vec<Model> = Vec::new();
            for step in 0..500 {
                let (owner, reader) = (random.below(4) as u16, random.below(4) as u16);
                let target = match model.len() {
                    0 => (owner, 1),
                    len => {
                        let any = &model[random.below(len as u64) as usize];
                        (any.owner, any.number)
                    }
                };
                let known = model.iter_mut().find(|known| (known.owner, known.number) == target);
                match random.below(7) {
                    0 | 1 => {
                        let bytes = 1 + random.below(200);
                        if bytes <= segments.free() {
                            let number = segments.lease(owner, bytes, ());
                            let phase = Phase::Leased;
                            model.push(Model { owner, number, counted: bytes, phase, mappers: Vec::new() });
                        }
                    }
                    2 => {
                        let released = segments.release(target.0, target.1);
                        let known = known.filter(|known| known.phase != Phase::Retired);
                        assert_eq!(released.is_some(), known.is_some(), "seed {seed}, step {step}");
                        if let Some(known) = known {
                            known.phase = Phase::Retired;
                        }
                    }
                    3 => {
                        let mapped = segments.map(reader, target.0, target.1).is_some();
                        let known = known.filter(|known| known.phase != Phase::Retired);
                        assert_eq!(mapped, known.is_some(), "seed {seed}, step {step}");
                        if let Some(known) = known.filter(|known| !known.mappers.contains(&reader)) {
                            known.mappers.push(reader);
                        }
                    }
                    4 => {
                        let allocated = random.below(200);
                        segments.count_anew(target.0, target.1, allocated);
                        if let Some(known) = known {
                            known.counted = known.counted.min(allocated);
                        }
                    }
                    5 => {
                        segments.unmap_owner(reader, owner);
                        for known in model.iter_mut().filter(|known| known.owner == owner) {
                            known.mappers.retain(|mapper| *mapper != reader);
                        }
                    }
                    _ => {
                        segments.owner_died(owner);
                        for known in model.iter_mut().filter(|known| known.owner == owner) {
                            if known.phase == Phase::Leased {
                                known.phase = Phase::Orphaned;
                            }
                        }
                    }
                }
                model.retain(|known| known.phase != Phase::Retired || !known.mappers.is_empty());
                let sum = |phase| {
                    model.iter().filter(|known| known.phase == phase).map(|known| known.counted).sum()
                };
                let (leased, orphaned, retired) =
                    (sum(Phase::Leased), sum(Phase::Orphaned), sum(Phase::Retired));
                assert_eq!(segments.usage(), Usage { leased, orphaned, retired }, "seed {seed}, step {step}");
                assert_eq!(segments.free(), 1000 - leased - orphaned - retired, "seed {seed}, step {step}");
                assert_eq!(segments.count(), model.len(), "seed {seed}, step {step}");
            }
        }
    }

    #[test]
    fn what_another_store_leased_counts_and_its_numbers_are_not_used_again() {
        let mut segments = Segments::new(100);
        assert!(segments.resume(1, 7, Phase::Leased, 60, ()));
        assert!(!segments.resume(1, 7, Phase::Leased, 60, ()), "counted twice");
        assert!(segments.resume(2, 1, Phase::Retired, 50, ()) && segments.resume_map(1, 2, 1));
        assert!(!segments.resume_map(1, 2, 9));
        assert_eq!((segments.free(), segments.usage()), (0, Usage { leased: 60, orphaned: 0, retired: 50 }));
        segments.unmap(1, 2, 1);
        assert_eq!(segments.free(), 40);
        segments.leased_up_to(1, 9);
        assert_eq!(segments.lease(1, 10, ()), 10);
    }

    #[test]
    fn a_released_segment_stays_counted_until_the_last_mapper_is_gone() {
        let mut segments = Segments::new(100);
        let number = segments.lease(1, 60, ());
        assert!(segments.map(2, 1, number).is_some() && segments.map(3, 1, number).is_some());
        assert_eq!(segments.release(1, number), Some(vec![2, 3]));
        assert_eq!(segments.release(1, number), None);
        assert!(segments.map(4, 1, number).is_none(), "a retired segment was mapped anew");
        segments.unmap(2, 1, number);
        assert_eq!((segments.free(), segments.usage().retired), (40, 60));
        assert_eq!(
            (segments.charged(1), segments.held_by(1), segments.charged(2)),
            ((1, 60), (0, 0), (0, 0))
        );
        segments.unmap_owner(3, 1);
        assert_eq!(segments.free(), 100);
        assert_eq!(segments.lease(1, 1, ()), number + 1);
    }
}
