//! Waiting in an event loop: without a thread for each wait, and without polling.
//!
//! A [`Notifier`] has a descriptor that an event loop watches. A wait has a number; the waker of the wait writes it
//! down and makes the descriptor readable. Wakers run in threads of the core, and do not need the interpreter's lock.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::error::raised;
use crate::reference::ObjectRef;

struct Notes {
    event: EventFd,
    /// The numbers of the waits that were woken.
    numbers: Mutex<Vec<u64>>,
}

/// Tells an event loop which waits to look at.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct Notifier(Arc<Notes>);

impl Notifier {
    /// Notes this number when it is woken.
    pub(crate) fn waker(&self, number: u64) -> Waker {
        Waker::from(Arc::new(Note { notes: self.0.clone(), number }))
    }
}

struct Note {
    notes: Arc<Notes>,
    number: u64,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        let is_first = {
            let mut numbers = self.notes.numbers.lock();
            numbers.push(self.number);
            numbers.len() == 1
        };
        if is_first {
            // It fails only when the count is at its end: then the descriptor is readable already.
            let _ = self.notes.event.write(1);
        }
    }
}

#[pymethods]
impl Notifier {
    #[new]
    fn new() -> PyResult<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| PyOSError::new_err((errno as i32, errno.desc())))?;
        Ok(Self(Arc::new(Notes { event, numbers: Mutex::new(Vec::new()) })))
    }

    /// The descriptor, which is readable when `take` has something.
    fn fileno(&self) -> RawFd {
        use std::os::fd::AsFd;
        self.0.event.as_fd().as_raw_fd()
    }

    /// The numbers of the waits that may be over.
    fn take(&self) -> Vec<u64> {
        // In this order: a number that comes in between makes the descriptor readable again.
        let _ = self.0.event.read();
        std::mem::take(&mut *self.0.numbers.lock())
    }
}

/// A wait for one reference.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct Waiting(Mutex<mobula_runtime::Waiting>);

#[pymethods]
impl Waiting {
    #[new]
    fn new(reference: &ObjectRef) -> Self {
        Self(Mutex::new(mobula_runtime::Waiting::for_all([reference.to.clone()])))
    }

    /// Whether the value or an error is there. If not, the notifier notes `number` once it may be.
    fn poll(&self, py: Python<'_>, notifier: &Notifier, number: u64) -> PyResult<bool> {
        let waker = notifier.waker(number);
        let polled = py.detach(|| self.0.lock().poll(&mut Context::from_waker(&waker)));
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(raised(py, error)),
        }
    }
}
