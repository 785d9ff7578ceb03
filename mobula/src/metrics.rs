//! Metrics of a program: counters, gauges and histograms, which `mobula metrics` exports for Prometheus.
//!
//! ```
//! use mobula::metrics::{Counter, Gauge, Histogram};
//! use mobula::prelude::*;
//!
//! #[remote]
//! fn work(item: u64) -> mobula::Result<u64> {
//!     let items = Counter::new("items", "Items that were worked on")?;
//!     items.inc();
//!     Histogram::new("item_size", "Sizes of items", [10.0, 100.0, 1000.0])?.observe(item as f64);
//!     Ok(item)
//! }
//!
//! let _mobula = init()?;
//! Gauge::new("queue", "Items that wait")?.set(2.0);
//! mobula::get([work::remote(7), work::remote(70)])?;
//! # Ok::<(), mobula::Error>(())
//! ```
//!
//! Each process of the session has its own values. `mobula metrics` adds up counters and histograms of all processes,
//! also of those that have ended, and shows a gauge for each living process, with its pid. All metrics of a process
//! with the same name and tags share one value. To make one again costs a look into a table.
//!
//! A change takes a lock of this process and, in a session, one system call. The memory and the file are limited: a
//! process may have 10,000 combinations of names and tags.

use mobula_runtime::metrics::{MetricDescription, MetricKind, Series};

use crate::Result;

/// The description of a metric with a name.
fn described(kind: MetricKind, name: &str, help: &str) -> MetricDescription {
    let (name, help) = (name.to_owned(), help.to_owned());
    MetricDescription { name, help, kind, tags: Vec::new(), bounds: Vec::new() }
}

/// The series of a metric with these tags.
fn tagged<'a>(
    description: &MetricDescription,
    tags: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(MetricDescription, Series)> {
    let mut tags: Vec<_> =
        tags.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    tags.sort_unstable();
    let description = MetricDescription { tags, ..description.clone() };
    Ok((description.clone(), Series::new(description)?))
}

/// A number that grows. Its name in the export ends in `_total`.
///
/// ```
/// let requests = mobula::metrics::Counter::new("requests", "Requests that came in")?;
/// let of_users = requests.tagged([("path", "/users")])?;
/// of_users.inc();
/// of_users.add(2.0);
/// assert_eq!(of_users.value(), 3.0);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Counter {
    description: MetricDescription,
    series: Series,
}

impl Counter {
    /// The counter with this name.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): the name is invalid, or a metric of another kind has it.
    pub fn new(name: &str, help: &str) -> Result<Self> {
        let (description, series) = tagged(&described(MetricKind::Counter, name, help), [])?;
        Ok(Self { description, series })
    }

    /// The series of this metric with exactly these tags.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): a tag's name is invalid, or there are too many combinations.
    pub fn tagged<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let (description, series) = tagged(&self.description, tags)?;
        Ok(Self { description, series })
    }

    /// Adds one.
    pub fn inc(&self) {
        self.series.add(1.0);
    }

    /// Adds an amount.
    ///
    /// # Panics
    /// The amount is negative, or not a number.
    pub fn add(&self, amount: f64) {
        assert!(amount >= 0.0, "a counter grows: {amount} cannot be added to {}", self.description.name);
        self.series.add(amount);
    }

    /// The count of this process.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.series.values()[0]
    }
}

/// A number that goes up and down.
///
/// ```
/// let waiting = mobula::metrics::Gauge::new("waiting", "Requests that wait")?;
/// waiting.set(5.0);
/// waiting.add(-1.0);
/// assert_eq!(waiting.value(), 4.0);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gauge {
    description: MetricDescription,
    series: Series,
}

impl Gauge {
    /// The gauge with this name.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): the name is invalid, or a metric of another kind has it.
    pub fn new(name: &str, help: &str) -> Result<Self> {
        let (description, series) = tagged(&described(MetricKind::Gauge, name, help), [])?;
        Ok(Self { description, series })
    }

    /// The series of this metric with exactly these tags.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): a tag's name is invalid, or there are too many combinations.
    pub fn tagged<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let (description, series) = tagged(&self.description, tags)?;
        Ok(Self { description, series })
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.series.set(value);
    }

    /// Adds an amount, which may be negative.
    pub fn add(&self, amount: f64) {
        self.series.add(amount);
    }

    /// The value in this process.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.series.values()[0]
    }
}

/// The numbers of values between boundaries, and the sum of the values.
///
/// ```
/// let seconds = mobula::metrics::Histogram::new("load_seconds", "Time to load", [0.1, 1.0, 10.0])?;
/// seconds.observe(0.5);
/// seconds.observe(1.0);
/// assert_eq!((seconds.counts(), seconds.sum()), (vec![0, 2, 0, 0], 1.5));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Histogram {
    description: MetricDescription,
    series: Series,
}

impl Histogram {
    /// The histogram with this name, and buckets up to each of these boundaries and above the last one.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): the name or the boundaries are invalid, or another metric has the name.
    pub fn new(name: &str, help: &str, boundaries: impl IntoIterator<Item = f64>) -> Result<Self> {
        let bounds = boundaries.into_iter().collect();
        let description = MetricDescription { bounds, ..described(MetricKind::Histogram, name, help) };
        let (description, series) = tagged(&description, [])?;
        Ok(Self { description, series })
    }

    /// The series of this metric with exactly these tags.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): a tag's name is invalid, or there are too many combinations.
    pub fn tagged<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let (description, series) = tagged(&self.description, tags)?;
        Ok(Self { description, series })
    }

    /// Counts a value. A value on a boundary counts below it.
    pub fn observe(&self, value: f64) {
        self.series.observe(value);
    }

    /// The values that this process has counted in each bucket.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        let values = self.series.values();
        values[..values.len() - 1].iter().map(|count| *count as u64).collect()
    }

    /// The sum of the values that this process has counted.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.series.values().last().copied().unwrap_or_default()
    }
}
