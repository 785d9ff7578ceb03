//! The rules of permits, without processes: the holders, and the calls that wait.
//!
//! Calls get permits in the order in which they asked. So a call for many permits is not overtaken for ever by calls
//! for few.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::util::waiting::extract;

/// The answer to a call for permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::util) enum Grant {
    /// The caller has them. `after_death`: a process died while it had all permits, and that was not cleared yet.
    Granted { after_death: bool },
    /// They are not free.
    Busy,
    /// There are not as many permits. The value is their number.
    TooMany(u32),
}

/// The place of an answer.
pub(in crate::util) trait Asker {
    fn give(self, grant: Grant);
    /// Whether the caller lives, and wants the answer.
    fn is_wanted(&self) -> bool;
}

/// The permits of the processes `C`, and the waiting calls, with the places `R` of their answers.
pub(super) struct Permits<C, R> {
    total: u32,
    free: u32,
    held: FxHashMap<(C, u64), u32>,
    waiting: VecDeque<PendingAcquire<C, R>>,
    after_death: bool,
}

struct PendingAcquire<C, R> {
    call: (C, u64),
    count: u32,
    reply: R,
}

impl<C: Copy + Eq + Hash, R: Asker> Permits<C, R> {
    pub(super) fn new(total: u32) -> Self {
        Self { total, free: total, held: FxHashMap::default(), waiting: VecDeque::new(), after_death: false }
    }

    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// A call asks for permits. Its number identifies it.
    pub(super) fn acquire(&mut self, call: (C, u64), count: u32, waits: bool, reply: R) {
        if count > self.total {
            return reply.give(Grant::TooMany(self.total));
        }
        let waiting = PendingAcquire { call, count, reply };
        if self.waiting.is_empty() && count <= self.free {
            self.grant(waiting);
        } else if waits {
            self.waiting.push_back(waiting);
        } else {
            waiting.reply.give(Grant::Busy);
        }
    }

    /// The permits of a call come back, or a waiting call is given up.
    pub(super) fn release(&mut self, call: (C, u64)) {
        if let Some(count) = self.held.remove(&call) {
            self.free += count;
        }
        for waiting in extract(&mut self.waiting, |waiting| waiting.call == call) {
            waiting.reply.give(Grant::Busy);
        }
        self.settle();
    }

    /// Adds permits.
    pub(super) fn add(&mut self, count: u32) {
        let count = count.min(u32::MAX - self.total);
        self.total += count;
        self.free += count;
        self.settle();
    }

    /// Removes permits for ever: their holder does not return them.
    pub(super) fn forget(&mut self, call: (C, u64)) {
        if let Some(count) = self.held.remove(&call) {
            self.total -= count;
            // Calls for more than there are now would wait for ever.
            let total = self.total;
            for waiting in extract(&mut self.waiting, |waiting| waiting.count > total) {
                waiting.reply.give(Grant::TooMany(total));
            }
            self.settle();
        }
    }

    /// Clears the note of a death.
    pub(super) fn clear_death(&mut self) {
        self.after_death = false;
    }

    /// A process is gone: its permits come back, and its waiting calls are removed.
    pub(super) fn caller_gone(&mut self, caller: C) {
        self.waiting.retain(|waiting| waiting.call.0 != caller);
        for (_, count) in self.held.extract_if(|call, _| call.0 == caller) {
            self.after_death |= count == self.total;
            self.free += count;
        }
        self.settle();
    }

    fn grant(&mut self, waiting: PendingAcquire<C, R>) {
        self.free -= waiting.count;
        self.held.insert(waiting.call, waiting.count);
        waiting.reply.give(Grant::Granted { after_death: self.after_death });
    }

    fn settle(&mut self) {
        while let Some(first) = self.waiting.front() {
            let is_wanted = first.reply.is_wanted();
            if is_wanted && first.count > self.free {
                return;
            }
            if let Some(first) = self.waiting.pop_front()
                && is_wanted
            {
                self.grant(first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::*;

    struct Place(Rc<RefCell<Option<Grant>>>);

    impl Asker for Place {
        fn give(self, grant: Grant) {
            assert!(self.0.borrow_mut().replace(grant).is_none(), "a call is answered once");
        }

        fn is_wanted(&self) -> bool {
            true
        }
    }

    /// Random calls and deaths: the permits that are taken never exceed the number of permits, and no call waits
    /// although its permits are free.
    #[test]
    fn permits_are_neither_lost_nor_made() {
        for seed in 1..=2000_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut below = |end: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % end
            };
            let total = 1 + below(5) as u32;
            let mut permits = Permits::<u64, Place>::new(total);
            let mut calls = BTreeMap::new();
            for number in 0..below(150) {
                let position = below(5) as usize;
                match below(4) {
                    0 | 1 => {
                        let (call, count) = ((below(4), number), below(u64::from(total) + 2) as u32);
                        let place = Rc::default();
                        permits.acquire(call, count, below(3) > 0, Place(Rc::clone(&place)));
                        calls.insert(call, (count, place));
                    }
                    2 => {
                        if let Some(call) = calls.keys().nth(position).copied() {
                            calls.remove(&call);
                            permits.release(call);
                        }
                    }
                    _ => {
                        let caller = below(4);
                        calls.retain(|call, _| call.0 != caller);
                        permits.caller_gone(caller);
                    }
                }
                let is_granted = |grant: &RefCell<_>| matches!(*grant.borrow(), Some(Grant::Granted { .. }));
                let held: u32 =
                    calls.values().filter(|(_, grant)| is_granted(grant)).map(|(count, _)| count).sum();
                assert_eq!(held + permits.free(), total, "seed {seed}");
                let first = permits.waiting.front();
                assert!(first.is_none_or(|first| first.count > permits.free), "seed {seed}");
            }
        }
    }

    #[test]
    fn the_death_of_a_process_with_all_permits_is_told() {
        let mut permits = Permits::<u64, Place>::new(3);
        let ask = |permits: &mut Permits<_, _>, call, count| {
            let place = Rc::default();
            permits.acquire(call, count, true, Place(Rc::clone(&place)));
            place
        };
        ask(&mut permits, (1, 0), 1);
        let all = ask(&mut permits, (2, 1), 3);
        permits.caller_gone(1);
        assert_eq!(all.take(), Some(Grant::Granted { after_death: false }));
        let next = ask(&mut permits, (3, 2), 1);
        permits.caller_gone(2);
        assert_eq!(next.take(), Some(Grant::Granted { after_death: true }));
        permits.clear_death();
        assert_eq!(ask(&mut permits, (4, 3), 1).take(), Some(Grant::Granted { after_death: false }));
    }
}
