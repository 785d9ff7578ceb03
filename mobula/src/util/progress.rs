//! A line on the terminal that shows the progress of a piece of work.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The line changes no more often than this.
const PERIOD: Duration = Duration::from_millis(100);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Progress {
    what: String,
    done: u64,
    total: Option<u64>,
    began: Instant,
    /// When the line was written last.
    shown: Option<Instant>,
}

impl Progress {
    /// `None` if standard error is no terminal.
    pub(super) fn on_terminal(what: String, total: Option<u64>) -> Option<Self> {
        let progress = Self { what, done: 0, total, began: Instant::now(), shown: None };
        std::io::stderr().is_terminal().then_some(progress)
    }

    pub(super) fn one_more(&mut self) {
        self.done += 1;
        let now = Instant::now();
        if self.shown.is_none_or(|shown| now.duration_since(shown) >= PERIOD) {
            self.shown = Some(now);
            self.show(now, "");
        }
    }

    /// The line stays as it is, and the next output begins after it.
    pub(super) fn end(self) {
        self.show(Instant::now(), "\n");
    }

    fn show(&self, now: Instant, end: &str) {
        let line = self.line(now.duration_since(self.began));
        // To the beginning of the line, and nothing left behind it. A terminal that is gone is no reason to end.
        let _ = write!(std::io::stderr().lock(), "\r{line}\x1b[K{end}");
    }

    fn line(&self, elapsed: Duration) -> String {
        let Self { what, done, total, .. } = self;
        let rate = *done as f64 / elapsed.as_secs_f64().max(0.001);
        match total {
            Some(total) if *total > 0 => {
                let percent = 100 * done / total;
                let left = total.saturating_sub(*done) as f64 / rate.max(0.001);
                format!("{what} {done}/{total}, {percent} %, {rate:.1}/s, {left:.0} s left")
            }
            _ => format!("{what} {done}, {rate:.1}/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_is_done_and_when_the_rest_will_be() {
        let mut progress = Progress {
            what: "frames".into(),
            done: 450,
            total: Some(1000),
            began: Instant::now(),
            shown: None,
        };
        let line = progress.line(Duration::from_secs(10));
        assert_eq!(line, "frames 450/1000, 45 %, 45.0/s, 12 s left");
        progress.total = None;
        assert_eq!(progress.line(Duration::from_secs(10)), "frames 450, 45.0/s");
        (progress.total, progress.done) = (Some(0), 0);
        assert_eq!(progress.line(Duration::ZERO), "frames 0, 0.0/s");
    }
}
