//! Fair queueing: a request for much memory is served although requests for less keep coming.
//!
//! A request that fits is served, even before older ones that wait for more than is free: a large request does not
//! delay small ones. But an endless series of small requests would take all memory that is given back. So a request
//! that has been passed over for a *period* gets a *reservation*: until it is served, or for one period at most, later
//! requests are granted nothing, and memory that is given back gathers for it. Then all requests may pass again, for
//! one period at least, and the next request in the queue gets the next reservation, in rotation.
//!
//! So a small request waits for a large one for one period at most, as long as there is room for it. A large request is
//! served, at the latest, when clients return enough memory during its reservation.

use std::time::{Duration, Instant};

/// The request that has a reservation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FairQueueing {
    period: Duration,
    /// Ticket of the request that has the reservation, or had the last one.
    ticket: u64,
    /// When the current reservation ends.
    ends: Option<Instant>,
    /// The earliest moment at which the next reservation may begin.
    next_from: Option<Instant>,
}

impl FairQueueing {
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, ticket: 0, ends: None, next_from: None }
    }

    /// The earliest moment at which a request that comes now may get a reservation. It is well before the request gives
    /// up.
    pub(crate) fn earliest(&self, now: Instant, timeout: Duration) -> Instant {
        now + self.period.min(timeout / 2)
    }

    /// When the current reservation ends.
    pub(crate) fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Ends the reservation that is over, and begins one if it is time; returns the ticket that has it. `waiting` are
    /// all requests that more room would serve, in order: the ticket of each, and the moment from which it may get a
    /// reservation.
    pub(crate) fn reserved(
        &mut self,
        now: Instant,
        waiting: impl Iterator<Item = (u64, Instant)> + Clone,
    ) -> Option<u64> {
        if let Some(ends) = self.ends {
            if now < ends && waiting.clone().any(|(ticket, _)| ticket == self.ticket) {
                return Some(self.ticket);
            }
            // Counted from when the end is noticed: other requests have their time, however late that is.
            self.ends = None;
            self.next_from = Some(now + self.period);
        }
        if self.next_from.is_some_and(|from| now < from) {
            return None;
        }
        let mut due = waiting.filter(|(_, from)| *from <= now).map(|(ticket, _)| ticket);
        let first = due.next()?;
        let next = |ticket: &u64| *ticket > self.ticket;
        self.ticket = if next(&first) { first } else { due.find(next).unwrap_or(first) };
        self.ends = Some(now + self.period);
        Some(self.ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::random::Random;

    const PERIOD: Duration = Duration::from_millis(100);

    #[test]
    fn a_request_that_is_passed_over_gets_a_reservation_then_others_may_pass_and_then_the_next_gets_one() {
        let (start, mut fair) = (Instant::now(), FairQueueing::new(PERIOD));
        let at = |ms: u64| start + Duration::from_millis(ms);
        let waiting = [(1, at(100)), (2, at(100)), (7, at(150))];
        let mut seen = Vec::new();
        for ms in (0..1000).step_by(50) {
            seen.push(fair.reserved(at(ms), waiting.iter().copied()).unwrap_or(0));
        }
        assert_eq!(seen, [0, 0, 1, 1, 0, 0, 2, 2, 0, 0, 7, 7, 0, 0, 1, 1, 0, 0, 2, 2]);
    }

    #[test]
    fn a_reservation_ends_with_the_request_that_has_it() {
        let (start, mut fair) = (Instant::now(), FairQueueing::new(PERIOD));
        let waiting = [(1, start), (2, start)];
        assert_eq!(fair.reserved(start, waiting.into_iter()), Some(1));
        assert_eq!(fair.reserved(start, waiting[1..].iter().copied()), None);
        assert_eq!(fair.earliest(start, Duration::from_millis(10)), start + Duration::from_millis(5));
    }

    /// A store of 100 units in which small requests come without end, each for a random time; a large one needs all.
    #[test]
    fn a_large_request_is_served_and_small_ones_never_wait_long_for_it() {
        // Miri is slow.
        const SEEDS: u64 = if cfg!(miri) { 2 } else { 200 };
        for seed in 0..SEEDS {
            let (mut random, start) = (Random::new(seed), Instant::now());
            let mut fair = FairQueueing::new(PERIOD);
            // When each lease is given back, and how much it is.
            let (mut free, mut held) = (60, vec![(1 + random.below(60), 40u64)]);
            // The tickets that wait, with the time at which each came and what it wants.
            let (mut waiting, mut next_ticket) = (vec![(1u64, 0u64, 100u64)], 2);
            let mut passed = 0;
            for ms in 0..5000 {
                let now = start + Duration::from_millis(ms);
                held.retain(|(ends, units)| {
                    let over = *ends <= ms;
                    free += if over { *units } else { 0 };
                    !over
                });
                waiting.push((next_ticket, ms, 1 + random.below(4)));
                next_ticket += 1;
                loop {
                    let short = waiting
                        .iter()
                        .map(|(ticket, came, _)| (*ticket, start + Duration::from_millis(*came) + PERIOD));
                    let reserved = fair.reserved(now, short);
                    let fits = |(ticket, _, wants): &(u64, u64, u64)| {
                        *wants <= free && reserved.is_none_or(|reserved| *ticket <= reserved)
                    };
                    let Some(place) = waiting.iter().position(fits) else { break };
                    let (ticket, came, wants) = waiting.remove(place);
                    assert!(
                        ticket == 1 || ms - came <= 2 * 100,
                        "seed {seed}: {ticket} waited {}",
                        ms - came
                    );
                    passed += u64::from(waiting.first().is_some_and(|(first, ..)| *first == 1));
                    free -= wants;
                    held.push((ms + 1 + random.below(60), wants));
                }
                if waiting.first().is_none_or(|(ticket, ..)| *ticket != 1) {
                    break;
                }
            }
            assert!(passed > 0, "seed {seed}: no request was served before the large one");
            let first = waiting.first().map(|(ticket, ..)| *ticket);
            assert_ne!(first, Some(1), "seed {seed}: the large request starved");
        }
    }
}
