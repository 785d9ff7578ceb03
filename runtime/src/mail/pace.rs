//! The pace at which another process completes the calls that were sent to it. It decides how long a thread that waits
//! for a result may *nap*.
//!
//! A result that arrives wakes a sleeping thread. This costs a system call on one side and two context switches on the
//! other. On a busy machine it also takes a processor from a worker, for one result that is of no use alone. So a
//! thread whose result comes behind many others naps: it blocks for a moment in which no process wakes it, and then
//! handles the results that have gathered. At this pace, the awaited call is over after a certain time. The thread naps
//! for at most half of it, so it is awake before that result comes.

use std::time::{Duration, Instant};

/// The longest nap. The workers have calls for a multiple of it; see `submit/leases`.
const NAP_MAX: Duration = Duration::from_micros(500);
/// The shortest nap. The kernel may let a thread sleep for longer than it wants to, by about this time.
const NAP_MIN: Duration = Duration::from_micros(50);

/// How long a thread naps if its result cannot come before `time`; `None` if a nap is not worthwhile.
pub(crate) fn nap(time: Duration) -> Option<Duration> {
    Some((time / 2).min(NAP_MAX)).filter(|nap| *nap >= NAP_MIN)
}

/// The pace of one process. Its calls are numbered in the order in which they are sent and run.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    seen: Option<Progress>,
    /// The time from the beginning of a call to that of the next.
    each: Option<Duration>,
}

/// The progress of the calls at some time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) at: Instant,
    /// The number of the last call that was sent.
    pub(crate) sent: u64,
    /// The number of the last call that has begun.
    pub(crate) begun: u64,
}

impl Pace {
    /// The time of the calls before the call of this number, beginning with the running one. `None` while the pace is
    /// not known, because the process had nothing to do meanwhile or has begun no call. `None` also while the process
    /// is slow: a nap would then gather at most one result.
    pub(crate) fn until(&mut self, number: u64, now: Progress) -> Option<Duration> {
        match self.seen {
            // The call that runs may have begun before.
            Some(seen) if seen.begun == now.begun => {}
            // A process that has begun the last call may have had nothing to do since.
            Some(seen) if seen.begun < now.begun && now.begun < seen.sent => {
                let begun = u32::try_from(now.begun - seen.begun).unwrap_or(u32::MAX);
                let each = now.at.saturating_duration_since(seen.at) / begun;
                // A process that was interrupted by the kernel goes on faster than it seems, and must not wait for
                // calls.
                self.each =
                    Some(self.each.filter(|old| *old < each).map_or(each, |old| old + (each - old) / 8));
                self.seen = Some(now);
            }
            _ => (self.each, self.seen) = (None, Some(now)),
        }
        let each = self.each.filter(|each| *each <= NAP_MAX)?;
        let before = u32::try_from(number.saturating_sub(now.begun)).unwrap_or(u32::MAX);
        Some(each.saturating_mul(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// A process that has 100 calls, and is looked at now and then.
    struct Looks {
        pace: Pace,
        start: Instant,
    }

    impl Looks {
        fn new() -> Self {
            Self { pace: Pace::default(), start: Instant::now() }
        }

        fn until(&mut self, number: u64, at_micros: u64, sent: u64, begun: u64) -> Option<Duration> {
            self.pace.until(number, Progress { at: self.start + micros(at_micros), sent, begun })
        }
    }

    #[test]
    fn the_pace_follows_a_quick_process_at_once_and_a_slow_one_little_by_little() {
        let mut looks = Looks::new();
        assert_eq!(looks.until(100, 0, 100, 1), None, "nothing is known yet");
        assert_eq!(looks.until(100, 100, 100, 11), Some(micros(890)));
        assert_eq!(looks.until(100, 300, 150, 21), Some(Duration::from_nanos(79 * 11_250)));
        assert_eq!(looks.until(21, 300, 150, 21), Some(Duration::ZERO), "it runs");
        assert_eq!(looks.until(3, 300, 150, 21), Some(Duration::ZERO), "it is over");
    }

    #[test]
    fn a_look_too_soon_changes_nothing() {
        let mut looks = Looks::new();
        looks.until(100, 0, 100, 1);
        assert_eq!(looks.until(100, 1, 100, 1), None);
        assert_eq!(looks.until(100, 100, 100, 2), Some(micros(9800)));
        assert_eq!(looks.until(100, 101, 100, 2), Some(micros(9800)));
        assert_eq!(looks.until(100, 10_000, 100, 3), None, "it is slow");
    }

    /// Otherwise the naps of a thread that makes one call after the other would set the pace of the next nap.
    #[test]
    fn calls_one_after_the_other_set_no_pace() {
        let mut looks = Looks::new();
        for call in 1..100 {
            assert_eq!(looks.until(call, 100 * call, call, call - 1), None);
        }
    }

    #[test]
    fn a_process_that_had_nothing_to_do_has_no_pace() {
        let mut looks = Looks::new();
        looks.until(10, 0, 10, 1);
        assert_eq!(looks.until(10, 80, 10, 9), Some(micros(10)));
        assert_eq!(looks.until(10, 90, 10, 10), None, "it may have waited since");
        // It waited for call 11 for an unknown time.
        assert_eq!(looks.until(20, 1_000_000, 20, 12), None);
        assert_eq!(looks.until(20, 1_000_010, 20, 13), Some(micros(70)));
    }

    #[test]
    fn a_nap_is_half_of_the_time_and_neither_short_nor_long() {
        assert_eq!(nap(micros(99)), None);
        assert_eq!(nap(micros(100)), Some(micros(50)));
        assert_eq!(nap(micros(900)), Some(micros(450)));
        assert_eq!(nap(Duration::MAX), Some(NAP_MAX));
    }
}
