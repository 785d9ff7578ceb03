//! Records of the program itself: series of metrics, and marks and spans of the timeline.

use mobula_runtime::SpanGuard;
use mobula_runtime::metrics::{MetricDescription, MetricKind, Series as CoreSeries};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::raised;

/// One series of a metric of this process.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct Series(CoreSeries);

#[pymethods]
impl Series {
    #[new]
    fn new(
        py: Python<'_>,
        kind: &str,
        name: String,
        help: String,
        tags: Vec<(String, String)>,
        bounds: Vec<f64>,
    ) -> PyResult<Self> {
        let kind = match kind {
            "counter" => MetricKind::Counter,
            "gauge" => MetricKind::Gauge,
            "histogram" => MetricKind::Histogram,
            other => return Err(PyValueError::new_err(format!("there is no metric of the kind {other:?}"))),
        };
        let description = MetricDescription { name, help, kind, tags, bounds };
        CoreSeries::new(description).map(Self).map_err(|error| raised(py, error))
    }

    fn add(&self, amount: f64) {
        self.0.add(amount);
    }

    fn set(&self, value: f64) {
        self.0.set(value);
    }

    fn observe(&self, value: f64) {
        self.0.observe(value);
    }

    /// The value; for a histogram, the counts of its buckets, and the sum.
    fn values(&self) -> Vec<f64> {
        self.0.values()
    }
}

/// Records a mark.
#[pyfunction]
pub(crate) fn mark(name: &str, value: i64) {
    mobula_runtime::mark(name, value);
}

/// A span that has begun.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct Span(Mutex<Option<SpanGuard>>);

#[pymethods]
impl Span {
    #[new]
    fn new(name: String) -> Self {
        Self(Mutex::new(Some(mobula_runtime::span(name))))
    }

    /// Ends the span. Does nothing the second time.
    fn end(&self) {
        let span = self.0.lock().take();
        drop(span);
    }
}
