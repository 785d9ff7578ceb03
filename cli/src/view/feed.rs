//! The stream of figures to a page, as server-sent events: first `history`, then `look` for each look.
//!
//! There is no queue for each browser: one that is slow gets the last look when it has taken the one before, and looks
//! in between are left out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use crate::http::Sink;
use crate::live::{Live, Sample, Update};

/// A sign of life while nothing changes, by which a connection is noticed whose browser is gone.
const SIGN: Duration = Duration::from_secs(10);
/// Rows of each table that a page gets. Beyond that nobody reads, and `mobula list` has filters.
const ROWS_MAX: usize = 500;

/// The events, each made once for all pages.
pub(super) struct Feed {
    live: Arc<Live>,
    last: Mutex<(u64, Arc<str>)>,
}

impl Feed {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self { live, last: Mutex::new((0, Arc::from(""))) }
    }

    /// Writes events until the browser is gone, or takes one too slowly.
    pub(super) fn write_to(&self, mut sink: Sink<'_>) -> io::Result<()> {
        // A browser that has lost the connection comes back after this time, in milliseconds.
        sink.send(&format!(
            "retry: 1000\n{}",
            event("history", &json!({ "points": self.live.history() }).to_string())
        ))?;
        let mut seen = 0;
        loop {
            match self.live.wait(seen, SIGN) {
                Some(update) => {
                    seen = update.number;
                    sink.send(&self.event(&update))?;
                }
                None => sink.send(":\n\n")?,
            }
        }
    }

    fn event(&self, update: &Update) -> Arc<str> {
        let mut last = self.last.lock();
        if last.0 != update.number || last.1.is_empty() {
            *last = (update.number, Arc::from(event("look", &look_json(update))));
        }
        last.1.clone()
    }
}

fn event(name: &str, json: &str) -> String {
    // JSON has no line ends outside of its texts, and escapes those within.
    format!("event: {name}\ndata: {json}\n\n")
}

/// A look as the page gets it.
fn look_json(update: &Update) -> String {
    let shown = update.look.as_ref().map(|look| shown(&look.sample));
    let (sample, left_out) = shown.map_or((None, json!({})), |(sample, left_out)| (Some(sample), left_out));
    json!({ "number": update.number, "session": update.session, "sample": sample, "left_out": left_out })
        .to_string()
}

/// The sample with so many rows as a page shows, and how many rows are left out, by table.
fn shown(sample: &Sample) -> (Sample, serde_json::Value) {
    fn first<T: Clone>(rows: &[T]) -> (Vec<T>, usize) {
        (rows.iter().take(ROWS_MAX).cloned().collect(), rows.len().saturating_sub(ROWS_MAX))
    }
    let (workers, more_workers) = first(&sample.workers);
    let (functions, more_functions) = first(&sample.functions);
    let (actors, more_actors) = first(&sample.actors);
    let (wanted, more_wanted) = first(&sample.wanted);
    let left_out = json!({
        "workers": more_workers, "functions": more_functions, "actors": more_actors, "wanted": more_wanted,
    });
    let (resources, store, figures) =
        (sample.resources.clone(), sample.store.clone(), sample.figures.clone());
    let unknown = sample.unknown.clone();
    (Sample { workers, functions, actors, wanted, resources, store, figures, unknown, ..*sample }, left_out)
}
