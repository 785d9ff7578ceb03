//! Clients that wait for names that are not published yet.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::core::waiters::{Waiter, Waiters};

/// The lookups that wait, in order and by name.
#[derive(Debug)]
pub(crate) struct Lookups {
    waiters: Waiters<Vec<u8>>,
    by_name: BTreeSet<(Vec<u8>, u64)>,
}

impl Lookups {
    pub(crate) fn new() -> Self {
        Self { waiters: Waiters::new(), by_name: BTreeSet::new() }
    }

    /// How many lookups of a client wait.
    pub(crate) fn count(&self, client: u16) -> usize {
        self.waiters.count(client)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiters.next_deadline()
    }

    /// A client has died: it waits no more.
    pub(crate) fn forget(&mut self, client: u16) {
        for (ticket, waiter) in self.waiters.forget(client) {
            self.by_name.remove(&(waiter.wants, ticket));
        }
    }

    pub(crate) fn push(&mut self, waiter: Waiter<Vec<u8>>) {
        let name = waiter.wants.clone();
        let ticket = self.waiters.push(waiter);
        self.by_name.insert((name, ticket));
    }

    /// Takes out all lookups of a name, to be answered.
    pub(crate) fn take(&mut self, name: &[u8]) -> Vec<Waiter<Vec<u8>>> {
        let range = (name.to_vec(), 0)..=(name.to_vec(), u64::MAX);
        let tickets: Vec<_> = self.by_name.range(range).cloned().collect();
        tickets
            .into_iter()
            .filter_map(|entry| {
                self.by_name.remove(&entry);
                self.waiters.take(entry.1)
            })
            .collect()
    }

    /// Takes out a lookup whose deadline has passed.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<Waiter<Vec<u8>>> {
        let (ticket, waiter) = self.waiters.expired(now)?;
        self.by_name.remove(&(waiter.wants.clone(), ticket));
        Some(waiter)
    }
}
