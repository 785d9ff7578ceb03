//! The scenarios: a row and a module for each.

mod calls;
mod daemon;
mod failpoints;
mod kills;
mod scribble;
pub(crate) mod sharing;
mod soak;
mod stops;

use std::fmt;
use std::time::{Duration, Instant};

use crate::{Options, Violation};

/// One way of breaking things.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Runs it with a seed, and adds its figures.
    pub(crate) run: fn(&Options, u64, &mut Figures) -> Result<(), Violation>,
}

/// All of them, in the order in which they are run.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "kills", about: "clients are killed at random times", run: kills::run },
    Scenario {
        name: "spilling",
        about: "clients are killed at random times, while their objects are spilled and restored",
        run: kills::run_spilling,
    },
    Scenario {
        name: "failpoints",
        about: "clients are killed at every failpoint of every operation",
        run: failpoints::run,
    },
    Scenario {
        name: "daemon",
        about: "the daemon is killed, at random times and at every failpoint, and another takes its place",
        run: daemon::run,
    },
    Scenario {
        name: "stops",
        about: "every process is stopped for a while, one after the other",
        run: stops::run,
    },
    Scenario {
        name: "scribble",
        about: "clients fill all memory that they can write with random words",
        run: scribble::run,
    },
    Scenario {
        name: "calls",
        about: "workers are killed, while calls are cancelled, retried, and streams read in part",
        run: calls::run,
    },
    Scenario {
        name: "sharing",
        about: "ten drivers share a session; drivers, workers, the session's process and heads are killed",
        run: sharing::run,
    },
    Scenario { name: "soak", about: "clients work, and memory returns to where it began", run: soak::run },
];

/// Clients of a store.
const CLIENTS: usize = 4;

/// The figures of a scenario.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// The scenario whose figures are added.
    pub(crate) scenario: &'static str,
    rows: Vec<(&'static str, String, String)>,
}

impl Figures {
    /// Adds a figure of the scenario that runs.
    pub(crate) fn add(&mut self, what: impl Into<String>, value: impl fmt::Display) {
        self.rows.push((self.scenario, what.into(), value.to_string()));
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(_, what, _)| what.len()).max().unwrap_or(0);
        for (scenario, what, value) in &self.rows {
            writeln!(f, "{scenario:9} {what:width$}  {value}")?;
        }
        Ok(())
    }
}

/// Says now and then how far a scenario is.
struct Progress {
    next: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { next: Instant::now() }
    }

    fn show(&mut self, text: impl FnOnce() -> String) {
        if Instant::now() >= self.next {
            println!("    {}", text());
            self.next = Instant::now() + Duration::from_secs(5);
        }
    }
}

/// The value that a fraction of all are not above, in milliseconds.
fn percentile_ms(times: &mut [Duration], fraction: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len() as f64 * fraction).ceil() as usize).saturating_sub(1);
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let mut times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile_ms(&mut times, 0.5), 50.0);
        assert_eq!(percentile_ms(&mut times, 0.99), 99.0);
        assert_eq!(percentile_ms(&mut times, 1.0), 100.0);
        assert_eq!(percentile_ms(&mut [], 0.5), 0.0);
    }
}
