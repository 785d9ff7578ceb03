//! The interpreter: objects of Python modules that this crate calls, and its lock.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// A module's attribute, looked up once.
pub(crate) struct Attribute {
    module: &'static str,
    name: &'static str,
    found: PyOnceLock<Py<PyAny>>,
}

impl Attribute {
    pub(crate) const fn new(module: &'static str, name: &'static str) -> Self {
        Self { module, name, found: PyOnceLock::new() }
    }

    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        let found = self
            .found
            .get_or_try_init(py, || Ok::<_, PyErr>(py.import(self.module)?.getattr(self.name)?.unbind()))?;
        Ok(found.bind(py))
    }
}

/// Does something that waits without the interpreter's lock, on this thread, with values that must not go to
/// another one. For other values, [`Python::detach`] is enough.
///
/// # Safety
/// `work` captures nothing that is bound to the lock: no `Python`, no `Bound`, no borrow of one.
pub(crate) unsafe fn without_lock<R>(py: Python<'_>, work: impl FnOnce() -> R) -> R {
    struct Here<T>(T);

    // SAFETY: `detach` asks for `Send` in order to keep out values that are bound to the interpreter's lock, which the
    // caller has ruled out. It runs the closure on this thread.
    unsafe impl<T> Send for Here<T> {}

    impl<R, F: FnOnce() -> R> Here<F> {
        fn run(self) -> Here<R> {
            Here((self.0)())
        }
    }

    let work = Here(work);
    py.detach(move || work.run()).0
}
