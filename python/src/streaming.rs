//! Streams of an actor with several calls under way: each runs separately, on a thread or an event loop.
//!
//! The actor's runner (`mobula._concurrency`) gets a [`StreamCall`]. A thread runs it completely. An event loop opens
//! it as an [`OpenStream`], and sends the items as they come.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mobula_runtime::{Failure, Invocation, OwnedCall};
use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::raised;
use crate::host::{call_method, failure, give};
use crate::interpreter::without_lock;
use crate::value::{self, Value};
use crate::waiting::Notifier;

/// A call whose results are a stream, with its arguments. If it is dropped, the caller gets a failure.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct StreamCall {
    call: Mutex<Option<OwnedCall>>,
    state: Py<PyAny>,
    /// The method for errors.
    name: String,
}

impl StreamCall {
    pub(crate) fn new(call: OwnedCall, state: Py<PyAny>, name: String) -> Self {
        Self { call: Mutex::new(Some(call)), state, name }
    }

    fn take(&self) -> PyResult<OwnedCall> {
        self.call.lock().take().ok_or_else(|| PyRuntimeError::new_err("the call has begun already"))
    }
}

#[pymethods]
impl StreamCall {
    /// The data that the method can ask for about its call.
    fn running(&self) -> Option<(String, u16, String, Option<String>)> {
        let (id, attempt) = self.call.lock().as_ref()?.id()?;
        Some((id.to_string(), attempt, self.name.clone(), None))
    }

    /// Runs the method on this thread, and sends its items.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        self.take()?.run(|on| {
            let run = |on: &mut Invocation<'_>| give(&call_method(self.state.bind(py), on)?, on);
            run(on).map_err(|error| failure(py, &self.name, &error))
        });
        Ok(())
    }

    /// Answers with an exception.
    pub(crate) fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        self.take()?.fail(failure(py, &self.name, &PyErr::from_value(error)));
        Ok(())
    }

    /// Calls the method on this thread of an event loop. Returns the stream, and the generator that the method
    /// returned. `None` if the call was cancelled, or the method has raised. The notifier reports `number` when the
    /// stream needs a look.
    fn open(
        &self,
        py: Python<'_>,
        notifier: &Notifier,
        number: u64,
    ) -> PyResult<Option<(Py<OpenStream>, Py<PyAny>)>> {
        let call = self.take()?;
        let shared = Rc::new(Shared::default());
        let (state, name, inner) = (self.state.clone_ref(py), self.name.clone(), shared.clone());
        let running = call.run_async(async move |on: &mut Invocation<'_>| {
            let called = Python::attach(|py| {
                let called = call_method(state.bind(py), on);
                called.map(Bound::unbind).map_err(|error| failure(py, &name, &error))
            });
            inner.items.set(Some(called?));
            poll_fn(|context| inner.poll(on, context)).await
        });
        let running: Running = Box::pin(running);
        let (running, name) = (RefCell::new(Some(running)), self.name.clone());
        let stream = OpenStream { running, waker: notifier.waker(number), shared, name };
        stream.poll(py);
        let Some(items) = stream.shared.items.take() else { return Ok(None) };
        Ok(Some((Py::new(py, stream)?, items)))
    }
}

/// The state that the future of a stream and the event loop share.
#[derive(Default)]
struct Shared {
    /// The generator that the method returned.
    items: Cell<Option<Py<PyAny>>>,
    /// The items to send.
    given: RefCell<Vec<Value>>,
    /// The result of the method, if it has ended.
    end: Cell<Option<Result<(), Failure>>>,
    /// Whether the caller wants another item; `None`: not yet.
    wants: Cell<Option<bool>>,
    /// The error of an item that could not be sent.
    failed: Cell<Option<Failure>>,
}

impl Shared {
    fn poll(&self, on: &mut Invocation<'_>, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        for value in self.given.take() {
            if let Err(error) = on.push_item(|out| value.write(out)) {
                self.failed.set(Some(error.into()));
            }
        }
        match self.end.take() {
            Some(Ok(())) => {
                return Poll::Ready(on.give(|out| value::none().write(out)).map_err(Failure::from));
            }
            Some(Err(failure)) => return Poll::Ready(Err(failure)),
            None => {}
        }
        self.wants.set(match on.poll_wants_item(context) {
            Poll::Ready(wants) => Some(wants),
            Poll::Pending => None,
        });
        Poll::Pending
    }
}

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// A stream whose method runs on an event loop. Only the loop's thread uses it.
#[pyclass(unsendable, module = "mobula._mobula")]
pub(crate) struct OpenStream {
    /// `None` when it is over.
    running: RefCell<Option<Running>>,
    waker: Waker,
    shared: Rc<Shared>,
    name: String,
}

impl OpenStream {
    fn poll(&self, py: Python<'_>) {
        let Some(mut running) = self.running.take() else { return };
        let poll = || running.as_mut().poll(&mut Context::from_waker(&self.waker));
        // SAFETY: the closure has the future, whose Python objects are owned and not bound: what it does with them, it
        // does with the lock that it takes itself. The store may have to wait for room.
        let polled = unsafe { without_lock(py, poll) };
        if polled.is_pending() {
            self.running.replace(Some(running));
        }
    }
}

#[pymethods]
impl OpenStream {
    /// Sends an item. Returns the result of `wants`.
    fn give(&self, item: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
        self.shared.given.borrow_mut().push(value::encode(item)?);
        self.wants(item.py())
    }

    /// Whether the caller wants another item: `False` when it wants no more, and `None` when it does not want one yet.
    /// In this case the notifier reports the number when that may have changed.
    fn wants(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        self.poll(py);
        match self.shared.failed.take() {
            Some(failure) => Err(raised(py, failure)),
            None if self.running.borrow().is_none() => Ok(Some(false)),
            None => Ok(self.shared.wants.get()),
        }
    }

    /// Ends the stream: with an exception, or without.
    fn end(&self, py: Python<'_>, error: Option<Bound<'_, PyAny>>) {
        let failed = error.map(|error| failure(py, &self.name, &PyErr::from_value(error)));
        self.shared.end.set(Some(failed.map_or(Ok(()), Err)));
        self.poll(py);
    }
}
