//! Requests that are answered later: in the order in which they came, and no later than their deadline.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// One request that waits for a `T`.
#[derive(Debug)]
pub(crate) struct Waiter<T> {
    /// Slot of the client.
    pub(crate) client: u16,
    /// Correlation number of the request.
    pub(crate) correlation: u64,
    /// When the request ends without an answer; `None` for never.
    pub(crate) deadline: Option<Instant>,
    /// The thing that it waits for.
    pub(crate) wants: T,
}

/// The requests that wait for a `T`, by ticket: a request with a smaller ticket came earlier.
#[derive(Debug)]
pub(crate) struct Waiters<T> {
    waiting: BTreeMap<u64, Waiter<T>>,
    deadlines: BTreeSet<(Instant, u64)>,
    counts: HashMap<u16, usize>,
    last: u64,
}

impl<T> Waiters<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: BTreeMap::new(), deadlines: BTreeSet::new(), counts: HashMap::new(), last: 0 }
    }

    /// Adds a request behind all others; returns its ticket.
    pub(crate) fn push(&mut self, waiter: Waiter<T>) -> u64 {
        self.last += 1;
        *self.counts.entry(waiter.client).or_default() += 1;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.insert((deadline, self.last));
        }
        self.waiting.insert(self.last, waiter);
        self.last
    }

    /// Takes a request out, to be answered.
    pub(crate) fn take(&mut self, ticket: u64) -> Option<Waiter<T>> {
        let waiter = self.waiting.remove(&ticket)?;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        if let Some(count) = self.counts.get_mut(&waiter.client) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&waiter.client);
            }
        }
        Some(waiter)
    }

    /// The first ticket, in order, whose request can be served.
    ///
    /// A request that cannot be served yet does not delay the ones behind it, except while it has a
    /// [reservation](super::fair).
    pub(crate) fn first(&self, mut can_serve: impl FnMut(u64, &Waiter<T>) -> bool) -> Option<u64> {
        self.iter().find(|(ticket, waiter)| can_serve(*ticket, waiter)).map(|(ticket, _)| ticket)
    }

    /// All that wait, in order, with their tickets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Waiter<T>)> + Clone {
        self.waiting.iter().map(|(ticket, waiter)| (*ticket, waiter))
    }

    /// The ticket of a client's request; `None` when it does not wait.
    pub(crate) fn find(&self, client: u16, correlation: u64) -> Option<u64> {
        if self.count(client) == 0 {
            return None;
        }
        let is_it = |waiter: &Waiter<T>| (waiter.client, waiter.correlation) == (client, correlation);
        self.first(|_, waiter| is_it(waiter))
    }

    /// Takes out a request whose deadline has passed.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<(u64, Waiter<T>)> {
        let (deadline, ticket) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        Some((ticket, self.take(ticket)?))
    }

    /// Takes out every request of a client that has died.
    pub(crate) fn forget(&mut self, client: u16) -> Vec<(u64, Waiter<T>)> {
        let of_client = self.waiting.iter().filter(|(_, waiter)| waiter.client == client);
        let tickets: Vec<u64> = of_client.map(|(ticket, _)| *ticket).collect();
        tickets.into_iter().filter_map(|ticket| Some((ticket, self.take(ticket)?))).collect()
    }

    /// How many requests of a client wait.
    pub(crate) fn count(&self, client: u16) -> usize {
        self.counts.get(&client).copied().unwrap_or(0)
    }

    /// When the next request gives up.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Whether no request waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The moment `timeout_ms` from now; `None` for one beyond the clock.
pub(crate) fn deadline(now: Instant, timeout_ms: u64) -> Option<Instant> {
    now.checked_add(Duration::from_millis(timeout_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiters(now: Instant, wants: &[u64]) -> Waiters<u64> {
        let mut waiters = Waiters::new();
        for (number, wants) in wants.iter().enumerate() {
            let deadline = deadline(now, 10 * (number as u64 + 1));
            waiters.push(Waiter {
                client: number as u16 % 2,
                correlation: number as u64,
                deadline,
                wants: *wants,
            });
        }
        waiters
    }

    #[test]
    fn everyone_who_fits_is_served_in_order_past_one_who_does_not() {
        let mut waiters = waiters(Instant::now(), &[8, 2, 9, 1, 3]);
        let (mut free, mut served) = (6, Vec::new());
        while let Some(ticket) = waiters.first(|_, waiter| waiter.wants <= free) {
            let waiter = waiters.take(ticket).unwrap();
            free -= waiter.wants;
            served.push(waiter.wants);
        }
        assert_eq!((served, free), (vec![2, 1, 3], 0));
        assert_eq!(waiters.iter().next().unwrap().1.wants, 8);
        // A client's own request is found by what ties the reply to it, and nobody else's.
        assert_eq!((waiters.find(0, 0), waiters.find(0, 2), waiters.find(1, 0)), (Some(1), Some(3), None));
    }

    #[test]
    fn who_waits_gives_up_at_its_deadline_and_not_before() {
        let now = Instant::now();
        let mut waiters = waiters(now, &[1, 2, 3]);
        assert!(waiters.expired(now).is_none());
        assert_eq!(waiters.next_deadline(), deadline(now, 10));
        let later = now + Duration::from_millis(20);
        assert_eq!(waiters.expired(later).unwrap().1.wants, 1);
        assert_eq!(waiters.expired(later).unwrap().1.wants, 2);
        assert!(waiters.expired(later).is_none());
        assert_eq!((waiters.count(0), waiters.count(1)), (1, 0));
    }

    #[test]
    fn the_gone_wait_no_more() {
        let mut waiters = waiters(Instant::now(), &[1, 2, 3]);
        assert_eq!(waiters.forget(0).len(), 2);
        assert_eq!(waiters.forget(1).len(), 1);
        assert!(waiters.is_empty() && waiters.next_deadline().is_none());
    }

    #[test]
    fn the_longest_timeout_never_ends() {
        let now = Instant::now();
        assert!(deadline(now, u64::MAX).is_none_or(|deadline| deadline > now));
    }
}
