//! The times of a job beside those of its rivals.

use std::num::NonZeroUsize;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

use crate::output::Outcome;
use crate::report::Total;
use crate::{Article, rivals};

/// Counts words with Mobula, with one thread and with rayon, from files to totals. They do so in turn, so that what
/// else the machine does meets all of them. Returns a table of their times.
///
/// # Errors
/// When one cannot count, or counts something else than the others.
pub fn compare(
    times: NonZeroUsize,
    articles: &[Article],
    top: usize,
    with_mobula: impl Fn() -> Outcome<Total>,
) -> Outcome<String> {
    let one_thread = || Ok(Total::new(&rivals::one_thread(articles)?, top));
    let rayon = || Ok(Total::new(&rivals::rayon(articles)?, top));
    let ways: [&dyn Fn() -> Outcome<Total>; 3] = [&with_mobula, &one_thread, &rayon];
    let mut rows = ["Mobula", "one thread", "rayon"].map(Times::new);
    // Once without the clock: the files come into memory, and rayon's threads start.
    let expected = rayon()?;
    for _ in 0..times.get() {
        for (row, way) in rows.iter_mut().zip(ways) {
            let found = row.measure(way)?;
            if found != expected {
                return Err(
                    format!("check failed: {} counted {found:?}, rayon {expected:?}", row.name).into()
                );
            }
        }
    }
    Ok(table(&rows, times))
}

/// A table of the times of Mobula, which is the first, and its rivals.
pub fn table(rows: &[Times], times: NonZeroUsize) -> String {
    let mobula = &rows[0];
    let mut lines = vec![format!(
        "{:<10}  {:>8} {:>17}  {:>8}  {:>12}",
        "seconds", "median", "least–most", "busy", "Mobula's is"
    )];
    lines.extend(rows.iter().map(|row| {
        let ([seconds, busy], [least, most]) = (row.medians(), row.spread());
        let spread = format!("{least:.3}–{most:.3}");
        let ratio = match row.name == mobula.name {
            true => String::new(),
            false => format!("{:.2} × this", mobula.medians()[0] / seconds),
        };
        format!("{:<10}  {seconds:>8.3} {spread:>17}  {busy:>8.3}  {ratio:>12}", row.name)
    }));
    lines.push(format!(
        "busy: processor time of all threads, and of all processes that have ended; {times} runs of each, in turn"
    ));
    lines.join("\n") + "\n"
}

/// One way to do a job, and its times.
#[derive(Debug)]
pub struct Times {
    name: &'static str,
    seconds: Vec<f64>,
    busy_seconds: Vec<f64>,
}

impl Times {
    /// No times yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, seconds: Vec::new(), busy_seconds: Vec::new() }
    }

    /// Does the job once.
    ///
    /// # Errors
    /// Those of the job.
    pub fn measure<T>(&mut self, job: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let (started, busy_before) = (Instant::now(), busy_seconds()?);
        let result = job()?;
        self.seconds.push(started.elapsed().as_secs_f64());
        self.busy_seconds.push(busy_seconds()? - busy_before);
        Ok(result)
    }

    /// Of the time, and of the processors' time.
    fn medians(&self) -> [f64; 2] {
        [&self.seconds, &self.busy_seconds].map(|values| {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
        })
    }

    /// The least and the most time.
    fn spread(&self) -> [f64; 2] {
        [f64::min, f64::max].map(|pick| self.seconds.iter().copied().reduce(pick).unwrap_or(f64::NAN))
    }
}

/// The processors' time of this process so far, and of the processes that it started and that have ended.
fn busy_seconds() -> Outcome<f64> {
    let mut seconds = 0.0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            seconds += time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        }
    }
    Ok(seconds)
}
