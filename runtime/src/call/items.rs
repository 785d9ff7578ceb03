//! The items of a stream that have arrived, and that the caller has not taken.
//!
//! An attempt of the call sends its items from the first one on. After a retry, items come again that were there
//! before: they are left out, and the stream goes on behind them. The call's result cell is settled when the stream has
//! ended.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::call::outcome::Settled;
use crate::call::waiter::Waiter;

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
    /// An item was lost, and what came behind it was left out.
    is_short: bool,
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
    /// The worker is told that so many items are taken.
    pub(crate) tell: Option<u64>,
}

impl Items {
    pub(crate) fn new(in_flight_max: u32) -> Arc<Self> {
        Arc::new(Self { in_flight_max, state: Mutex::default() })
    }

    /// Adds the item at a position of the stream. `settled` reads it, or returns `None` if it is lost with its worker.
    pub(crate) fn arrive(&self, position: u64, settled: impl FnOnce() -> Option<Settled>) -> Arrival {
        let mut state = self.state.lock();
        let mut arrival = Arrival::default();
        if position == 0 && state.count > 0 {
            // Another attempt begins, which knows nothing of what was taken.
            state.told = state.taken;
            arrival.tell = Some(state.taken);
        }
        if position < state.count {
            return arrival;
        }
        let item = if position == state.count { settled() } else { None };
        let Some(item) = item else {
            state.is_short = true;
            return arrival;
        };
        state.is_short = false;
        state.count += 1;
        if !state.is_dropped {
            state.arrived.push_back(item);
        }
        arrival.waiter = state.waiter.take();
        arrival
    }

    /// Takes the next item, and the number of items taken if the worker is to be told.
    pub(crate) fn take(&self) -> Option<(Settled, Option<u64>)> {
        let mut state = self.state.lock();
        let item = state.arrived.pop_front()?;
        state.taken += 1;
        // Half of those in flight at once: a record for each would cost as much as the item.
        let period = u64::from(self.in_flight_max / 2).max(1);
        let is_told = self.in_flight_max != u32::MAX && state.taken - state.told >= period;
        if is_told {
            state.told = state.taken;
        }
        Some((item, is_told.then_some(state.taken)))
    }

    /// Whether an item is there.
    pub(crate) fn is_any_there(&self) -> bool {
        !self.state.lock().arrived.is_empty()
    }

    /// Whether an item was lost, and no other attempt has sent it again.
    pub(crate) fn is_short(&self) -> bool {
        self.state.lock().is_short
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

#[cfg(test)]
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

    /// A worker, as the protocol has it: it sends while fewer than `in_flight_max` items are not taken, dies at any
    /// time, and another attempt begins from the first item on. The caller sees each item once, in order, and no
    /// attempt is ever more than `in_flight_max` ahead.
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
            let (length, in_flight_max) = (next() % 60, next() % 9 + 1);
            let items = Items::new(in_flight_max as u32);
            let (mut sent, mut known, mut taken) = (0, 0, 0);
            let mut steps = 0;
            while taken < length {
                steps += 1;
                assert!(steps < 100_000, "MOBULA_SEED={seed}: the stream stands still");
                match next() % 16 {
                    0 if steps < 2000 => (sent, known) = (0, 0),
                    1..=8 if sent < length && sent - known.min(sent) < in_flight_max => {
                        let arrival = items.arrive(sent, || Some(item(sent)));
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
            assert!(items.take().is_none() && !items.is_short(), "MOBULA_SEED={seed}");
        }
    }

    #[test]
    fn what_comes_behind_a_lost_item_is_left_out_until_the_item_comes_again() {
        let items = Items::new(8);
        items.arrive(0, || Some(item(0)));
        items.arrive(1, || None);
        items.arrive(2, || Some(item(2)));
        assert!(items.is_short());
        assert_eq!(number(&items.take().unwrap().0), 0);
        assert!(items.take().is_none());
        for position in 0..3 {
            let tell = items.arrive(position, || Some(item(position))).tell;
            assert_eq!(tell, (position == 0).then_some(1));
        }
        let rest: Vec<_> = std::iter::from_fn(|| items.take()).map(|(item, _)| number(&item)).collect();
        assert_eq!(rest, [1, 2]);
        assert!(!items.is_short());
    }
}
