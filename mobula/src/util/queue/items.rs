//! The decisions of the queue's actor: it gives items to consumers, and lets calls wait. It knows neither values nor
//! processes, so tests need none.
//!
//! An item is in one place at a time:
//!
//! ```text
//! putter's call ──room──► items ──given──► in transit ──receipt──► the consumer's
//!       │                   ▲                  │
//!       └─ given up,        └──────────────────┘
//!          caller gone        given up, caller gone
//! ```
//!
//! A consumer sends the receipt before its `get` returns. If the process dies before that, or its wait times out, the
//! item in transit comes back to the front of the queue.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::util::waiting::extract;

/// The answer to a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PutAnswer {
    /// The queue has all items.
    Done,
    /// It has this number of them, and no room for the others.
    Full(usize),
    /// It has this number of them, and is closed.
    Closed(usize),
}

/// The answer to a get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GetAnswer<I> {
    Items(Vec<I>),
    /// There are not as many as asked for.
    Empty,
    /// There are none, and the queue is closed.
    Closed,
}

/// The place of an answer.
pub(super) trait Answer<A> {
    fn give(self, answer: A);
    /// Whether the caller is there, and wants the answer.
    fn is_wanted(&self) -> bool;
}

/// The id of a call: the process that made it, and the number that this process gave it.
pub(super) type Call<C> = (C, u64);

/// The number of items that a get takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// The least number of items; with fewer the answer is `Empty`.
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) waits: bool,
}

/// The state of a queue: items `I`, processes `C`, answers to puts `P`, answers to gets `G`.
pub(super) struct Items<C, I, P, G> {
    capacity: usize,
    items: VecDeque<I>,
    /// Puts that wait for room, in their order. Only while the queue is full.
    putters: VecDeque<Putter<C, I, P>>,
    /// Gets that wait for items, in their order. Only while the queue is empty.
    getters: VecDeque<Getter<C, G>>,
    /// Items that were given and have no receipt.
    in_transit: FxHashMap<Call<C>, Vec<I>>,
    is_closed: bool,
}

struct Putter<C, I, P> {
    call: Call<C>,
    items: VecDeque<I>,
    /// The number of its items that are in the queue.
    accepted: usize,
    reply: P,
}

struct Getter<C, G> {
    call: Call<C>,
    most: usize,
    reply: G,
}

impl<C, I, P, G> Items<C, I, P, G>
where
    C: Copy + Eq + Hash,
    I: Clone,
    P: Answer<PutAnswer>,
    G: Answer<GetAnswer<I>>,
{
    /// An empty queue with room for this number of items; 0 for any number.
    pub(super) fn new(maxsize: usize) -> Self {
        Self {
            capacity: if maxsize == 0 { usize::MAX } else { maxsize },
            items: VecDeque::new(),
            putters: VecDeque::new(),
            getters: VecDeque::new(),
            in_transit: FxHashMap::default(),
            is_closed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The room for more items. Items that came back may exceed the limit.
    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.items.len())
    }

    /// Adds items. A put that `waits` adds each item as soon as there is room; any other put adds all items at once, or
    /// none.
    pub(super) fn put(&mut self, call: Call<C>, items: Vec<I>, waits: bool, reply: P) {
        if self.is_closed {
            return reply.give(PutAnswer::Closed(0));
        }
        let has_room = items.len() <= self.room() && self.putters.is_empty();
        match (has_room, waits) {
            (true, _) => {
                self.items.extend(items);
                reply.give(PutAnswer::Done);
            }
            (false, false) => reply.give(PutAnswer::Full(0)),
            (false, true) => {
                self.putters.push_back(Putter { call, items: items.into(), accepted: 0, reply });
            }
        }
        self.settle();
    }

    /// Takes items from the front.
    pub(super) fn get(&mut self, call: Call<C>, wanted: Wanted, reply: G) {
        let Wanted { least, most, waits } = wanted;
        if self.items.len() >= least {
            self.give(Getter { call, most, reply });
        } else if waits {
            self.getters.push_back(Getter { call, most, reply });
        } else if self.is_over() {
            reply.give(GetAnswer::Closed);
        } else {
            reply.give(GetAnswer::Empty);
        }
        self.settle();
    }

    /// The caller of a get has its items.
    pub(super) fn received(&mut self, call: Call<C>) {
        self.in_transit.remove(&call);
        self.settle();
    }

    /// The caller gives a call up: a waiting get, a get whose items have no receipt, or a waiting put. The answer to a
    /// put is the number of its items that stay in the queue.
    pub(super) fn give_up(&mut self, call: Call<C>) {
        if let Some(items) = self.in_transit.remove(&call) {
            self.take_back(items);
        }
        for getter in extract(&mut self.getters, |getter| getter.call == call) {
            getter.reply.give(GetAnswer::Empty);
        }
        for putter in extract(&mut self.putters, |putter| putter.call == call) {
            putter.reply.give(PutAnswer::Full(putter.accepted));
        }
        self.settle();
    }

    /// A process is gone: its waiting calls are removed, and items in transit to it come back.
    pub(super) fn caller_gone(&mut self, caller: C) {
        self.getters.retain(|getter| getter.call.0 != caller);
        self.putters.retain(|putter| putter.call.0 != caller);
        let mut lost: Vec<_> = self.in_transit.extract_if(|call, _| call.0 == caller).collect();
        // The items that were given last come back first, which keeps their order.
        lost.sort_unstable_by_key(|(call, _)| std::cmp::Reverse(call.1));
        lost.into_iter().for_each(|(_, items)| self.take_back(items));
        self.settle();
    }

    /// Closes the queue for new items. Its items can still be taken.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        for putter in self.putters.drain(..) {
            putter.reply.give(PutAnswer::Closed(putter.accepted));
        }
        self.settle();
    }

    /// Whether the queue is closed and empty, and no item can come back.
    fn is_over(&self) -> bool {
        self.is_closed && self.items.is_empty() && self.in_transit.is_empty()
    }

    fn take_back(&mut self, items: Vec<I>) {
        items.into_iter().rev().for_each(|item| self.items.push_front(item));
    }

    fn give(&mut self, getter: Getter<C, G>) {
        let count = getter.most.min(self.items.len());
        let items: Vec<I> = self.items.drain(..count).collect();
        self.in_transit.insert(getter.call, items.clone());
        getter.reply.give(GetAnswer::Items(items));
    }

    /// Answers the calls that can be answered.
    fn settle(&mut self) {
        loop {
            while let room @ 1.. = self.room()
                && let Some(putter) = self.putters.front_mut()
            {
                let count = putter.items.len().min(room);
                self.items.extend(putter.items.drain(..count));
                putter.accepted += count;
                if putter.items.is_empty()
                    && let Some(putter) = self.putters.pop_front()
                {
                    putter.reply.give(PutAnswer::Done);
                }
            }
            if self.items.is_empty() {
                break;
            }
            match self.getters.pop_front() {
                Some(getter) if getter.reply.is_wanted() => self.give(getter),
                Some(_) => {}
                None => break,
            }
        }
        if self.is_over() {
            self.getters.drain(..).for_each(|getter| getter.reply.give(GetAnswer::Closed));
        }
    }
}

#[cfg(test)]
mod tests;
