//! The calls of each function in numbers. They are exact even if events were overwritten.

use std::collections::BTreeMap;

use mobula_client::internal::recorder::{Counter, HISTOGRAM, bucket_start};
use serde::Serialize;

use super::snapshot::Snapshot;

/// The calls of a function. Times are in seconds.
///
/// In a program that was started with `MOBULA_EVENTS=all`:
/// ```
/// # #[mobula::remote]
/// # fn square(x: i64) -> i64 { x * x }
/// # // SAFETY: no other thread reads the environment yet.
/// # unsafe { std::env::set_var("MOBULA_EVENTS", "all") };
/// let _mobula = mobula::init()?;
/// assert_eq!(mobula::get((1..4).map(square::remote))?, [1, 4, 9]);
/// let summary = mobula::state::summary()?;
/// let square = summary.iter().find(|it| it.function.ends_with("square")).expect("it was called");
/// println!("{} calls took {} s, the longest {:?} s", square.made, square.total_s, square.max_s);
/// assert_eq!((square.made, square.failed), (3, 0));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct FunctionSummary {
    /// The function, or the class and the method.
    pub function: String,
    /// Calls that were made; if the callers do not count them, calls that have begun.
    pub made: u64,
    /// Calls that wait for arguments, for a worker, or for calls before them; `None` if the callers do not count them.
    pub pending: Option<u64>,
    /// Calls that run.
    pub running: u64,
    /// Calls that have succeeded.
    pub finished: u64,
    /// Calls that have failed.
    pub failed: u64,
    /// The median of their times: half of the calls took longer.
    pub p50_s: Option<f64>,
    /// One call of a hundred took longer.
    pub p99_s: Option<f64>,
    /// The mean of their times.
    pub mean_s: Option<f64>,
    /// The longest time.
    pub max_s: Option<f64>,
    /// The time of all of them together.
    pub total_s: f64,
}

/// The counts of a function in all processes.
struct Sum {
    counters: [u64; 8],
    /// Calls that the living processes have made and that are not over.
    open: u64,
    running: u64,
    histogram: [u64; HISTOGRAM],
}

impl Default for Sum {
    fn default() -> Self {
        Self { counters: [0; 8], open: 0, running: 0, histogram: [0; HISTOGRAM] }
    }
}

impl Sum {
    fn of(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// The ticks that this part of the calls did not exceed.
    fn quantile(&self, part: f64) -> Option<f64> {
        let all: u64 = self.histogram.iter().sum();
        let rank = ((all as f64 * part).ceil() as u64).max(1);
        let mut before = 0;
        let bucket = self.histogram.iter().position(|count| {
            before += count;
            before >= rank
        })?;
        let (start, max) = (bucket_start(bucket) as f64, self.of(Counter::TicksMax) as f64);
        if bucket + 1 == HISTOGRAM {
            // All longer times are in the last one, so its middle says nothing. They are taken as evenly spread.
            let count = self.histogram[bucket];
            let part = (rank + count).saturating_sub(before) as f64 / count as f64;
            return Some(start + (max - start).max(0.0) * part);
        }
        Some(((start + bucket_start(bucket + 1) as f64) / 2.0).min(max))
    }
}

impl Snapshot {
    /// The calls by function, those that took the most time first.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let summary = mobula::state::look()?.summary();
    /// let failing: Vec<_> = summary.iter().filter(|function| function.failed > 0).collect();
    /// assert!(failing.is_empty());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn summary(&self) -> Vec<FunctionSummary> {
        const COUNTERS: [Counter; 8] = [
            Counter::Made,
            Counter::Sent,
            Counter::Ended,
            Counter::Failed,
            Counter::Ran,
            Counter::RanFailed,
            Counter::Ticks,
            Counter::TicksMax,
        ];
        let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
        for process in &self.processes {
            for (number, counts) in (0..).zip(&process.counts) {
                if COUNTERS.iter().all(|counter| counts.get(*counter) == 0) {
                    continue;
                }
                let sum = sums.entry(process.name(number)).or_default();
                for counter in COUNTERS {
                    let (at, count) = (&mut sum.counters[counter as usize], counts.get(counter));
                    *at =
                        if counter == Counter::TicksMax { count.max(*at) } else { at.saturating_add(count) };
                }
                let over = counts.get(Counter::Ended).saturating_add(counts.get(Counter::Failed));
                if !process.dead {
                    sum.open = sum.open.saturating_add(counts.get(Counter::Made).saturating_sub(over));
                }
                for (at, count) in sum.histogram.iter_mut().zip(counts.histogram) {
                    *at += u64::from(count);
                }
            }
            for run in process.running().iter().filter(|_| !process.dead) {
                sums.entry(process.name(run.name)).or_default().running += 1;
            }
        }
        let mut summary: Vec<FunctionSummary> =
            sums.iter().map(|(name, sum)| self.function(name, sum)).collect();
        summary.sort_by(|one, other| other.total_s.total_cmp(&one.total_s));
        summary
    }

    fn function(&self, name: &str, sum: &Sum) -> FunctionSummary {
        let seconds = |ticks: f64| self.length(ticks as u64) as f64 / 1e9;
        let (ran, ticks) = (sum.of(Counter::Ran), sum.of(Counter::Ticks));
        // If a caller does not count its calls, the processes that run them do.
        let (made, finished, failed) = match sum.of(Counter::Made) {
            0 => {
                let failed = sum.of(Counter::RanFailed);
                let finished = ran.saturating_sub(failed);
                (ran.saturating_add(sum.running), finished, failed.max(sum.of(Counter::Failed)))
            }
            made => (made, sum.of(Counter::Ended), sum.of(Counter::Failed)),
        };
        FunctionSummary {
            function: name.to_owned(),
            made,
            pending: (sum.of(Counter::Made) > 0).then(|| sum.open.saturating_sub(sum.running)),
            running: sum.running,
            finished,
            failed,
            p50_s: sum.quantile(0.5).map(seconds),
            p99_s: sum.quantile(0.99).map(seconds),
            mean_s: (ticks > 0).then(|| seconds(ticks as f64 / ran as f64)),
            max_s: (ticks > 0).then(|| seconds(sum.of(Counter::TicksMax) as f64)),
            total_s: seconds(ticks as f64),
        }
    }
}
