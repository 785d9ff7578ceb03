//! Metrics of a program: counters, gauges and histograms of each process. `mobula metrics` adds them up and exports
//! them.
//!
//! Each process has its own values. It writes them into a file of the session, one 8-byte word each. So
//! other processes read them without a message, and they remain when the process is killed. A change costs a lock of
//! this process and one system call. Without a session, a change stays in the process, and the file of the next session
//! starts with it.

mod file;
mod read;

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use self::file::{MetricFile, ValuesOffset};
pub use self::read::{MetricSeries, metrics_of_session};
use crate::error::{Error, Result};
use crate::runtime::current;
use crate::session_number::SessionNumber;

/// The most series of a process. More are an error, because tags with always new values would fill the memory.
const SERIES_MAX: usize = 10_000;

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MetricKind {
    /// A number that grows.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// The numbers of values between boundaries.
    Histogram,
}

/// The description of a series: its metric, and the tags that distinguish it from the other series of the metric.
///
/// Fronts make this themselves, so a new field is a breaking change.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MetricDescription {
    /// The name of the metric.
    pub name: String,
    /// A description for people.
    pub help: String,
    /// Its kind.
    pub kind: MetricKind,
    /// The tags: names with values that distinguish the series of one metric.
    pub tags: Vec<(String, String)>,
    /// The upper ends of a histogram's buckets.
    pub bounds: Vec<f64>,
}

/// One series of a metric of this process. Clones, and series with the same name and tags, share one value.
#[derive(Debug, Clone)]
pub struct Series(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    description: MetricDescription,
    /// The value; for a histogram, the counts of its buckets, the count of larger values, and the sum.
    values: Vec<f64>,
    /// The offset of the values in the session's file.
    offset: Option<(SessionNumber, ValuesOffset)>,
}

/// The series of this process, by name and tags.
type Known = FxHashMap<(String, Vec<(String, String)>), Series>;
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
/// The file of this process in its session.
static FILE: Mutex<Option<(SessionNumber, Arc<MetricFile>)>> = Mutex::new(None);

impl Series {
    /// The series with this name and these tags. It is made at the first use.
    ///
    /// # Errors
    /// [`Error::Config`]: a name or the boundaries are invalid, a metric of another kind has the name, or there are too
    /// many series.
    pub fn new(description: MetricDescription) -> Result<Self> {
        check(&description)?;
        let mut known = KNOWN.lock();
        let key = (description.name.clone(), description.tags.clone());
        if let Some(series) = known.get(&key) {
            let its = &series.0.lock().description;
            if its.kind != description.kind || its.bounds != description.bounds {
                let expected = "the same kind and boundaries as before".to_owned();
                return Err(Error::Config { field: "name", value: description.name, expected });
            }
            return Ok(series.clone());
        }
        if known.len() >= SERIES_MAX {
            let expected = format!("at most {SERIES_MAX} combinations of names and tags in a process");
            return Err(Error::Config { field: "tags", value: format!("{:?}", description.tags), expected });
        }
        let length = match description.kind {
            MetricKind::Histogram => description.bounds.len() + 2,
            _ => 1,
        };
        let state = State { description, values: vec![0.0; length], offset: None };
        let series = Self(Arc::new(Mutex::new(state)));
        known.insert(key, series.clone());
        Ok(series)
    }

    /// Adds to the value.
    pub fn add(&self, amount: f64) {
        self.change(|values, _| values[0] += amount);
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.change(|values, _| values[0] = value);
    }

    /// Counts a value of a histogram.
    pub fn observe(&self, value: f64) {
        self.change(|values, bounds| {
            let bucket = bounds.partition_point(|bound| *bound < value);
            values[bucket] += 1.0;
            *values.last_mut().expect("a histogram has a sum") += value;
        });
    }

    /// The value; for a histogram, the counts of its buckets, the count of larger values, and the sum.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        self.0.lock().values.clone()
    }

    fn change(&self, change: impl FnOnce(&mut [f64], &[f64])) {
        let mut state = self.0.lock();
        let State { values, description, .. } = &mut *state;
        change(values, &description.bounds);
        state.publish();
    }
}

impl State {
    /// Writes the values into the file of the session, if there is one. If that fails, the values stay in this process
    /// only.
    fn publish(&mut self) {
        let session = current::number();
        if session == SessionNumber::NONE {
            return;
        }
        match &self.offset {
            Some((of, offset)) if *of == session => offset.write(&self.values),
            _ => {
                let offset = file_of(session).and_then(|file| file.append(&self.description, &self.values));
                self.offset = offset.map(|offset| (session, offset));
            }
        }
    }
}

/// The file of this process in the session; `None` if it cannot be made.
fn file_of(session: SessionNumber) -> Option<Arc<MetricFile>> {
    let mut file = FILE.lock();
    if let Some((of, file)) = &*file
        && *of == session
    {
        return Some(file.clone());
    }
    let made = {
        let runtime = current::runtime().ok()?;
        MetricFile::make(runtime.directory.as_deref()?)
    };
    match made {
        Ok(made) => {
            let made = Arc::new(made);
            *file = Some((session, made.clone()));
            Some(made)
        }
        Err(error) => {
            tracing::warn!(%error, "the metrics of this process are not exported");
            None
        }
    }
}

fn check(description: &MetricDescription) -> Result<()> {
    let is_name = |name: &str, letters: &str| {
        name.chars().enumerate().all(|(at, letter)| {
            letter.is_ascii_alphabetic() || letters.contains(letter) || (at > 0 && letter.is_ascii_digit())
        }) && !name.is_empty()
    };
    let bad = |field, value: &str, expected: &str| {
        Err(Error::Config { field, value: value.to_owned(), expected: expected.to_owned() })
    };
    if !is_name(&description.name, "_:") {
        return bad("name", &description.name, "letters, digits, _ and :, and no digit first");
    }
    for (tag, _) in &description.tags {
        if !is_name(tag, "_") || tag.starts_with("__") || tag == "le" {
            return bad("tag", tag, "letters, digits and _, no digit first, not __ first, and not le");
        }
    }
    let is_growing = description.bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if !is_growing || description.bounds.iter().any(|bound| !bound.is_finite()) {
        return bad(
            "bounds",
            &format!("{:?}", description.bounds),
            "numbers, each larger than the one before",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(name: &str, kind: MetricKind) -> MetricDescription {
        MetricDescription {
            name: name.into(),
            help: String::new(),
            kind,
            tags: Vec::new(),
            bounds: Vec::new(),
        }
    }

    #[test]
    fn series_of_one_name_are_one() {
        let one = Series::new(description("series_of_one_name", MetricKind::Counter)).unwrap();
        let other = Series::new(description("series_of_one_name", MetricKind::Counter)).unwrap();
        one.add(1.0);
        other.add(2.0);
        assert_eq!(one.values(), [3.0]);
        assert!(Series::new(description("series_of_one_name", MetricKind::Gauge)).is_err());
        for name in ["", "1st", "a-b", "ä"] {
            assert!(Series::new(description(name, MetricKind::Gauge)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_histogram_counts_up_to_and_with_its_boundaries() {
        let bounds = vec![1.0, 2.0];
        let description = MetricDescription { bounds, ..description("boundaries", MetricKind::Histogram) };
        let series = Series::new(description).unwrap();
        [0.5, 1.0, 1.5, 2.0, 3.0].into_iter().for_each(|value| series.observe(value));
        assert_eq!(series.values(), [2.0, 2.0, 1.0, 8.0]);
    }
}
