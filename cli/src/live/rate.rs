//! Rates of numbers that only grow, from two samples of each.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// The last values of numbers, by key.
#[derive(Debug)]
pub(super) struct Rates<K> {
    last: HashMap<K, (u64, Instant)>,
    now: HashMap<K, (u64, Instant)>,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self { last: HashMap::new(), now: HashMap::new() }
    }
}

impl<K: Eq + Hash> Rates<K> {
    /// The growth of a number per second. `None` if it was not in the sample before, or has become smaller: another
    /// process has the pid, or the counts of a function were lost with a process.
    pub(super) fn of(&mut self, key: K, value: u64, at: Instant) -> Option<f64> {
        let before = self.last.get(&key).copied();
        self.now.insert(key, (value, at));
        let (last, then) = before?;
        let seconds = at.checked_duration_since(then)?.as_secs_f64();
        let more = value.checked_sub(last)?;
        (seconds > 0.0).then(|| more as f64 / seconds)
    }

    /// Ends a sample: numbers that were not asked for in it are forgotten.
    pub(super) fn end(&mut self) {
        self.last = std::mem::take(&mut self.now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_takes_two_looks_and_a_number_that_grows() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(rates.of("calls", 10, at(0)), None);
        rates.end();
        assert_eq!(rates.of("calls", 30, at(2)), Some(10.0));
        assert_eq!(rates.of("calls", 30, at(2)), Some(10.0), "asked twice in one look");
        rates.end();
        assert_eq!(rates.of("calls", 5, at(4)), None, "it became less");
        rates.end();
        assert_eq!(rates.of("calls", 6, at(5)), Some(1.0));
        rates.end();
        assert_eq!(rates.of("calls", 7, at(5)), None, "no time has passed");
    }

    #[test]
    fn what_is_not_asked_for_is_forgotten() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for number in 0..1000_u64 {
            rates.of(number, 1, start);
            rates.end();
        }
        assert_eq!((rates.last.len(), rates.now.len()), (1, 0));
    }
}
