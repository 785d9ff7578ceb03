//! The items of a stream that have arrived, and that the caller has not taken yet.
//!
//! An attempt of the call sends its items from the first one on. After a retry, items that arrived before arrive again:
//! they are left out, and the stream continues behind them. The call's result cell is settled when the stream has
//! ended. The end carries the number of items, so that a stream which lacks some is never taken for a whole one.
//!
//! The worker waits while as many items are in flight as the caller allows. The positions of the items show whether a
//! worker waits as it must, so a faulty worker cannot fill the caller's memory. `shm/tests/loom/stream.rs` explores
//! both sides.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::call::options::UNLIMITED;
use crate::call::outcome::Settled;
use crate::call::waiter::Waiter;
use crate::error::Failure;
use crate::sync::Mutex;

/// A worker that may have at most so many items in flight is told of each one that is taken, and goes on at once.
/// With more, it is told of half of them together: a record for each would cost as much as the item.
const TOLD_OF_EACH: u32 = 16;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Items {
    in_flight_max: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    arrived: VecDeque<Settled>,
    /// How many items have arrived and been taken since the beginning, and the number taken that the worker knows.
    count: u64,
    taken: u64,
    told: u64,
    /// The number of items that the process reports, once the stream has ended without an error.
    length: Option<u64>,
    /// The caller wants no more.
    is_dropped: bool,
    /// The future that waits for the next item.
    waiter: Option<Arc<Waiter>>,
}

/// The consequences of an item's arrival.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// It waited for the item.
    pub(crate) waiter: Option<Arc<Waiter>>,
    /// The number of taken items that the worker is told.
    pub(crate) tell: Option<u64>,
}

/// The worker has sent more items than may be in flight.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Items {
    pub(crate) fn new(in_flight_max: u32) -> Arc<Self> {
        // As the worker does it: a caller that allows none would wait for ever.
        Arc::new(Self { in_flight_max: in_flight_max.max(1), state: Mutex::default() })
    }

    /// Adds the item at a position of the stream. `settled` reads it, or returns `None` if it is lost with its worker.
    /// Items behind a lost one are left out.
    ///
    /// # Errors
    /// [`TooMany`]: the item is not read, and not kept.
    pub(crate) fn arrive(
        &self,
        position: u64,
        settled: impl FnOnce() -> Option<Settled>,
    ) -> Result<Arrival, TooMany> {
        let mut state = self.state.lock();
        let mut arrival = Arrival::default();
        if position == 0 && state.count > 0 {
            // Another attempt begins, which knows nothing of the items that were taken.
            state.told = state.taken;
            arrival.tell = Some(state.taken);
        }
        if position < state.count {
            return Ok(arrival);
        }
        // The worker knows of no more items taken than it was told.
        if self.is_limited() && position - state.told >= self.in_flight_max.into() {
            return Err(TooMany);
        }
        let item = if position == state.count { settled() } else { None };
        let Some(item) = item else { return Ok(arrival) };
        state.count += 1;
        if !state.is_dropped {
            state.arrived.push_back(item);
        }
        arrival.waiter = state.waiter.take();
        Ok(arrival)
    }

    /// The stream has ended without an error, and its process reports the number of items that it has made.
    pub(crate) fn end(&self, length: u64) {
        self.state.lock().length = Some(length);
    }

    /// Takes the next item, and the number of items taken if the worker is to be told.
    pub(crate) fn take(&self) -> Option<(Settled, Option<u64>)> {
        let mut state = self.state.lock();
        let item = state.arrived.pop_front()?;
        state.taken += 1;
        let period = if self.in_flight_max <= TOLD_OF_EACH { 1 } else { u64::from(self.in_flight_max / 2) };
        let is_told = self.is_limited() && state.taken - state.told >= period;
        if is_told {
            state.told = state.taken;
        }
        Some((item, is_told.then_some(state.taken)))
    }

    /// The number of items that have arrived: the position of the next one.
    pub(crate) fn count(&self) -> u64 {
        self.state.lock().count
    }

    /// Whether an item is there.
    pub(crate) fn is_any_there(&self) -> bool {
        !self.state.lock().arrived.is_empty()
    }

    /// Whether the stream, which has ended without an error, has all its items.
    ///
    /// # Errors
    /// The number of items that arrived differs from the number that its process has made.
    pub(crate) fn check_length(&self) -> Result<(), Failure> {
        let State { count, length, .. } = *self.state.lock();
        if length == Some(count) { Ok(()) } else { Err(Failure::ItemsLost { arrived: count, made: length }) }
    }

    /// Whether only a number of items may be in flight.
    fn is_limited(&self) -> bool {
        self.in_flight_max != UNLIMITED
    }

    /// The future that is told of the next item.
    pub(crate) fn set_waiter(&self, waiter: Option<Arc<Waiter>>) {
        self.state.lock().waiter = waiter;
    }

    /// The caller wants no more items.
    pub(crate) fn drop_all(&self) {
        let mut state = self.state.lock();
        state.is_dropped = true;
        let items = std::mem::take(&mut state.arrived);
        drop(state);
        drop(items);
    }
}

// The models of `shm/tests/loom` include this file, and have no values.
#[cfg(all(test, not(mobula_loom)))]
mod tests {
    use super::*;
    use crate::call::inline::{Inline, InlineBytes};
    use crate::format;

    fn item(number: u64) -> Settled {
        let value = InlineBytes::copy_of(&number.to_le_bytes());
        Settled::Inline(Inline { format: format::PLAIN, value, references: Vec::new() })
    }

    fn number(settled: &Settled) -> u64 {
        match settled {
            Settled::Inline(inline) => u64::from_le_bytes(inline.value[..].try_into().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    /// A worker that follows the protocol: it sends while fewer than `in_flight_max` items are not taken, dies at any
    /// time, and another attempt begins with the first item. The caller sees each item once, in order, and no attempt
    /// is ever more than `in_flight_max` ahead.
    #[test]
    fn each_item_is_taken_once_and_in_order_however_often_the_worker_dies() {
        let seed = std::env::var("MOBULA_SEED").ok().and_then(|seed| seed.parse().ok());
        for seed in seed.map_or(0..300, |seed: u64| seed..seed + 1) {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed ^ (mixed >> 27)
            };
            let (length, in_flight_max) = (next() % 90, next() % 40 + 1);
            let items = Items::new(in_flight_max as u32);
            let (mut sent, mut known, mut taken) = (0, 0, 0);
            let mut steps = 0;
            while taken < length {
                steps += 1;
                assert!(steps < 100_000, "MOBULA_SEED={seed}: the stream stands still");
                match next() % 16 {
                    0 if steps < 2000 => (sent, known) = (0, 0),
                    1..=8 if sent < length && sent - known.min(sent) < in_flight_max => {
                        let arrival = items.arrive(sent, || Some(item(sent))).unwrap();
                        sent += 1;
                        known = known.max(arrival.tell.unwrap_or(0));
                    }
                    _ => {
                        let Some((settled, tell)) = items.take() else { continue };
                        assert_eq!(number(&settled), taken, "MOBULA_SEED={seed}");
                        taken += 1;
                        known = known.max(tell.unwrap_or(0));
                        assert!(known <= taken, "MOBULA_SEED={seed}");
                    }
                }
                assert!(sent <= taken + in_flight_max, "MOBULA_SEED={seed}: {sent} sent, {taken} taken");
            }
            items.end(length);
            assert!(items.take().is_none(), "MOBULA_SEED={seed}");
            items.check_length().unwrap_or_else(|failure| panic!("MOBULA_SEED={seed}: {failure}"));
        }
    }

    /// A hostile worker may send any position, and does not wait. The caller never keeps more items than may be in
    /// flight, no matter how many it has taken and reported.
    #[test]
    fn a_worker_that_does_not_wait_is_noticed_before_it_fills_the_memory() {
        for in_flight_max in [0, 1, 7, 16, 17, 40] {
            let (items, allowed) = (Items::new(in_flight_max), u64::from(in_flight_max.max(1)));
            for round in 0..3 {
                let first = round * allowed;
                for position in first..first + allowed {
                    items.arrive(position, || Some(item(position))).unwrap();
                }
                let kept = |_| panic!("an item too many was read");
                for position in [first + allowed, first + allowed + 1, u64::MAX] {
                    assert_eq!(items.arrive(position, || kept(())).unwrap_err(), TooMany, "{position}");
                }
                // Those that were there before are left out, as after a retry: they take no memory.
                assert!((0..first + allowed).all(|position| items.arrive(position, || kept(())).is_ok()));
                let mut told = 0;
                let numbers: Vec<_> = std::iter::from_fn(|| items.take())
                    .map(|(settled, tell)| {
                        told = tell.unwrap_or(told);
                        number(&settled)
                    })
                    .collect();
                assert_eq!(numbers, (first..first + allowed).collect::<Vec<_>>());
                // Items that were taken, and not reported, are in flight as far as the worker knows.
                let untold = first + allowed - told;
                let most = if allowed <= TOLD_OF_EACH.into() { 0 } else { allowed / 2 };
                assert!(untold <= most, "{untold} of {allowed}");
                items.arrive(0, || kept(())).unwrap();
            }
        }
        let endless = Items::new(UNLIMITED);
        assert!((0..1000).all(|position| endless.arrive(position, || Some(item(position))).is_ok()));
    }

    #[test]
    fn a_stream_that_ends_well_without_its_last_items_is_an_error() {
        let items = Items::new(8);
        for position in 0..3 {
            items.arrive(position, || Some(item(position))).unwrap();
        }
        let text = items.check_length().unwrap_err().to_string();
        assert!(text.contains("3 items") && text.contains("does not say"), "{text}");
        for length in [0, 2, 4, u64::MAX] {
            items.end(length);
            let text = items.check_length().unwrap_err().to_string();
            assert!(text.contains("3 items") && text.contains(&format!("made {length}:")), "{text}");
        }
        items.end(3);
        items.check_length().unwrap();
    }

    #[test]
    fn what_comes_behind_a_lost_item_is_left_out_until_the_item_comes_again() {
        let items = Items::new(8);
        items.arrive(0, || Some(item(0))).unwrap();
        items.arrive(1, || None).unwrap();
        items.arrive(2, || Some(item(2))).unwrap();
        items.end(3);
        assert!(items.check_length().is_err());
        assert_eq!(number(&items.take().unwrap().0), 0);
        assert!(items.take().is_none());
        for position in 0..3 {
            let tell = items.arrive(position, || Some(item(position))).unwrap().tell;
            assert_eq!(tell, (position == 0).then_some(1));
        }
        let rest: Vec<_> = std::iter::from_fn(|| items.take()).map(|(item, _)| number(&item)).collect();
        assert_eq!(rest, [1, 2]);
        items.check_length().unwrap();
    }
}
