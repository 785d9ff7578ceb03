//! Streams: calls whose results come one after the other.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use mobula_runtime::{ItemStream, Ref};
use parking_lot::{Mutex, MutexGuard};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::reference::ObjectRef;
use crate::waiting::Notifier;

/// How often a waiting thread looks whether a signal has come.
const SIGNALS_INTERVAL: Duration = Duration::from_millis(20);

/// The results of a call that come while it runs.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct Items {
    items: Mutex<ItemStream>,
    end: Ref,
}

impl Items {
    pub(crate) fn new(items: ItemStream) -> Self {
        Self { end: items.end().clone(), items: Mutex::new(items) }
    }

    fn poll(&self, waker: &Waker) -> PyResult<Poll<Option<Ref>>> {
        Ok(self.locked()?.poll(&mut Context::from_waker(waker)))
    }

    fn locked(&self) -> PyResult<MutexGuard<'_, ItemStream>> {
        self.items.try_lock().ok_or_else(|| {
            PyRuntimeError::new_err("another thread takes an item of this stream: let one thread do it")
        })
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[pymethods]
impl Items {
    /// Waits for the next item, at most so many seconds. Returns the item, `None` behind the last, and `False` when the
    /// time has passed.
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let limit = timeout.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let started = std::time::Instant::now();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            if let Poll::Ready(item) = py.detach(|| self.poll(&waker))? {
                return item_or_none(py, item);
            }
            let left = limit.map(|limit| limit.saturating_sub(started.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false.into_pyobject(py)?.to_owned().into_any().unbind());
            }
            py.detach(|| thread::park_timeout(left.unwrap_or(SIGNALS_INTERVAL).min(SIGNALS_INTERVAL)));
            py.check_signals()?;
        }
    }

    /// Looks for the next item. Returns as `next`; where none is there, the notifier notes `number` once one may be.
    fn poll_next(&self, py: Python<'_>, notifier: &Notifier, number: u64) -> PyResult<Py<PyAny>> {
        match py.detach(|| self.poll(&notifier.waker(number)))? {
            Poll::Ready(item) => item_or_none(py, item),
            Poll::Pending => Ok(false.into_pyobject(py)?.to_owned().into_any().unbind()),
        }
    }

    /// Whether the next item is there, or the end, without taking it. If not, the notifier notes `number` once it may
    /// be.
    fn poll_there(&self, py: Python<'_>, notifier: &Notifier, number: u64) -> PyResult<bool> {
        let waker = notifier.waker(number);
        py.detach(|| Ok(self.locked()?.poll_there(&mut Context::from_waker(&waker)).is_ready()))
    }

    /// The reference to the end: ready when the call is over.
    fn completed(&self) -> ObjectRef {
        ObjectRef { to: self.end.clone() }
    }
}

fn item_or_none(py: Python<'_>, item: Option<Ref>) -> PyResult<Py<PyAny>> {
    match item {
        Some(to) => Ok(Bound::new(py, ObjectRef { to })?.into_any().unbind()),
        None => Ok(py.None()),
    }
}
