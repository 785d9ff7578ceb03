//! The times of a word count beside those of its [rivals](crate::rivals), from files to totals.

use std::num::NonZeroUsize;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

use crate::output::Outcome;
use crate::report::Total;
use crate::{Article, rivals};

/// Counts with Mobula, with one thread and with rayon, in turn, so that what else the machine does meets all of them.
/// Returns a table of their times.
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
    let mut rows: [Row; 3] =
        [Row::new("Mobula", &with_mobula), Row::new("one thread", &one_thread), Row::new("rayon", &rayon)];
    // Once without the clock: the files come into memory, and rayon's threads start.
    let expected = rayon()?;
    for _ in 0..times.get() {
        for row in &mut rows {
            let found = row.measure()?;
            if found != expected {
                return Err(
                    format!("check failed: {} counted {found:?}, rayon {expected:?}", row.name).into()
                );
            }
        }
    }

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
    lines.push(format!("busy: processor time of all processes and threads; {times} runs of each, in turn"));
    Ok(lines.join("\n") + "\n")
}

/// One way to count, and its times.
struct Row<'a> {
    name: &'static str,
    count: &'a dyn Fn() -> Outcome<Total>,
    seconds: Vec<f64>,
    busy_seconds: Vec<f64>,
}

impl<'a> Row<'a> {
    fn new(name: &'static str, count: &'a dyn Fn() -> Outcome<Total>) -> Self {
        Self { name, count, seconds: Vec::new(), busy_seconds: Vec::new() }
    }

    fn measure(&mut self) -> Outcome<Total> {
        let (started, busy_before) = (Instant::now(), busy_seconds()?);
        let total = (self.count)()?;
        self.seconds.push(started.elapsed().as_secs_f64());
        self.busy_seconds.push(busy_seconds()? - busy_before);
        Ok(total)
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
