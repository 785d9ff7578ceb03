//! The answers to calls of an actor that has several of them under way.

use std::task::{Context, Poll};

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::host::{failure, give_all};
use crate::waiting::Notifier;

/// The place of an answer. Dropping it without one is an error, which the caller gets.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct Reply {
    reply: Mutex<Option<mobula_runtime::Reply>>,
    name: String,
}

impl Reply {
    pub(crate) fn new(reply: mobula_runtime::Reply, name: String) -> Self {
        Self { reply: Mutex::new(Some(reply)), name }
    }

    fn take(&self) -> PyResult<mobula_runtime::Reply> {
        self.reply.lock().take().ok_or_else(|| PyRuntimeError::new_err("the call is answered already"))
    }
}

#[pymethods]
impl Reply {
    /// Answers with the return value of the method.
    fn give(&self, result: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut reply = self.take()?;
        let returns = reply.returns();
        let py = result.py();
        let given = give_all(result, returns, &mut |value| {
            let is_stored = value.is_stored();
            let give = || reply.give(|out| value.write(out));
            if is_stored { py.detach(give) } else { give() }
        });
        reply.finish(given.map_err(|error| failure(result.py(), &self.name, &error)));
        Ok(())
    }

    /// Answers with an exception.
    pub(crate) fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        let reply = self.take()?;
        reply.finish(Err(failure(py, &self.name, &PyErr::from_value(error))));
        Ok(())
    }

    /// The call begins now, unless it was cancelled: then it returns false.
    fn begin(&self) -> bool {
        let reply = self.reply.lock();
        let Some(reply) = reply.as_ref().filter(|reply| !reply.is_cancelled()) else { return false };
        reply.begin();
        true
    }

    /// Whether the call was cancelled. If not, the notifier notes `number` once it is.
    fn is_cancelled(&self, notifier: &Notifier, number: u64) -> bool {
        let waker = notifier.waker(number);
        self.reply
            .lock()
            .as_ref()
            .is_some_and(|reply| reply.poll_cancelled(&mut Context::from_waker(&waker)) == Poll::Ready(()))
    }
}
