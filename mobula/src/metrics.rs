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
//! with the same name and tags share one value. To make the same metric again costs a look into a table.
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
    /// ```
    /// use mobula::metrics::{Counter, Gauge};
    ///
    /// Counter::new("pages_read", "Pages that were read")?.inc();
    /// // The same metric: it has the same name.
    /// assert_eq!(Counter::new("pages_read", "Pages that were read")?.value(), 1.0);
    /// assert!(Gauge::new("pages_read", "Pages that were read").is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): the name is invalid, or a metric of another kind has it.
    pub fn new(name: &str, help: &str) -> Result<Self> {
        let (description, series) = tagged(&described(MetricKind::Counter, name, help), [])?;
        Ok(Self { description, series })
    }

    /// The series of this metric with exactly these tags.
    ///
    /// ```
    /// let errors = mobula::metrics::Counter::new("request_errors", "Requests that failed")?;
    /// errors.tagged([("status", "404")])?.inc();
    /// errors.tagged([("status", "500")])?.add(2.0);
    /// assert_eq!(errors.tagged([("status", "404")])?.value(), 1.0);
    /// assert!(errors.tagged([("a status", "404")]).is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): a tag's name is invalid, or there are too many combinations.
    pub fn tagged<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let (description, series) = tagged(&self.description, tags)?;
        Ok(Self { description, series })
    }

    /// Adds one.
    ///
    /// ```
    /// let frames = mobula::metrics::Counter::new("frames", "Frames that were drawn")?;
    /// frames.inc();
    /// assert_eq!(frames.value(), 1.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn inc(&self) {
        self.series.add(1.0);
    }

    /// Adds an amount.
    ///
    /// ```
    /// let bytes = mobula::metrics::Counter::new("bytes_sent", "Bytes that were sent")?;
    /// bytes.add(4096.0);
    /// bytes.add(0.5);
    /// assert_eq!(bytes.value(), 4096.5);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Panics
    /// The amount is negative, or not a number.
    pub fn add(&self, amount: f64) {
        assert!(amount >= 0.0, "a counter grows: {amount} cannot be added to {}", self.description.name);
        self.series.add(amount);
    }

    /// The count of this process.
    ///
    /// ```
    /// let retries = mobula::metrics::Counter::new("retries", "Requests that were sent again")?;
    /// assert_eq!(retries.value(), 0.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
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
    /// ```
    /// use mobula::metrics::Gauge;
    ///
    /// let temperature = Gauge::new("temperature_celsius", "Temperature of the room")?;
    /// temperature.set(-3.5);
    /// assert!(Gauge::new("temperature in °C", "no such name").is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): the name is invalid, or a metric of another kind has it.
    pub fn new(name: &str, help: &str) -> Result<Self> {
        let (description, series) = tagged(&described(MetricKind::Gauge, name, help), [])?;
        Ok(Self { description, series })
    }

    /// The series of this metric with exactly these tags.
    ///
    /// ```
    /// let rows = mobula::metrics::Gauge::new("table_rows", "Rows of a table")?;
    /// rows.tagged([("table", "users")])?.set(7.0);
    /// assert_eq!(rows.tagged([("table", "orders")])?.value(), 0.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): a tag's name is invalid, or there are too many combinations.
    pub fn tagged<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let (description, series) = tagged(&self.description, tags)?;
        Ok(Self { description, series })
    }

    /// Sets the value.
    ///
    /// ```
    /// let loss = mobula::metrics::Gauge::new("loss", "Loss of the last epoch")?;
    /// [0.9, 0.4].map(|value| loss.set(value));
    /// assert_eq!(loss.value(), 0.4);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn set(&self, value: f64) {
        self.series.set(value);
    }

    /// Adds an amount, which may be negative.
    ///
    /// ```
    /// let open = mobula::metrics::Gauge::new("open_files", "Files that are open")?;
    /// open.add(3.0);
    /// open.add(-2.0);
    /// assert_eq!(open.value(), 1.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn add(&self, amount: f64) {
        self.series.add(amount);
    }

    /// The value in this process.
    ///
    /// ```
    /// let free = mobula::metrics::Gauge::new("free_seats", "Seats that are free")?;
    /// assert_eq!(free.value(), 0.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
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
    /// ```
    /// use mobula::metrics::Histogram;
    ///
    /// let sizes = Histogram::new("message_bytes", "Sizes of messages", [64.0, 1024.0])?;
    /// assert_eq!(sizes.counts().len(), 3);
    /// assert!(Histogram::new("falling", "boundaries must grow", [2.0, 1.0]).is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
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
    /// ```
    /// let seconds = mobula::metrics::Histogram::new("query_seconds", "Time of queries", [0.01, 0.1])?;
    /// let of_reads = seconds.tagged([("kind", "read")])?;
    /// of_reads.observe(0.05);
    /// assert_eq!((of_reads.counts(), seconds.sum()), (vec![0, 1, 0], 0.0));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config): a tag's name is invalid, or there are too many combinations.
    pub fn tagged<'a>(&self, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let (description, series) = tagged(&self.description, tags)?;
        Ok(Self { description, series })
    }

    /// Counts a value. A value on a boundary counts below it.
    ///
    /// ```
    /// let ages = mobula::metrics::Histogram::new("cache_age_seconds", "Ages of cached rows", [1.0, 60.0])?;
    /// ages.observe(60.0);
    /// assert_eq!(ages.counts(), [0, 1, 0]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn observe(&self, value: f64) {
        self.series.observe(value);
    }

    /// The values that this process has counted in each bucket.
    ///
    /// ```
    /// let waits = mobula::metrics::Histogram::new("wait_seconds", "Time to wait", [0.1, 1.0])?;
    /// [0.05, 0.5, 5.0].map(|seconds| waits.observe(seconds));
    /// assert_eq!(waits.counts(), [1, 1, 1]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        let values = self.series.values();
        values[..values.len() - 1].iter().map(|count| *count as u64).collect()
    }

    /// The sum of the values that this process has counted.
    ///
    /// ```
    /// let batches = mobula::metrics::Histogram::new("batch_rows", "Rows of batches", [10.0])?;
    /// [8.0, 24.0].map(|rows| batches.observe(rows));
    /// assert_eq!(batches.sum(), 32.0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.series.values().last().copied().unwrap_or_default()
    }
}
