//! Memory of an object, as Python sees it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use mobula_client::Object;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

/// A part of an object's bytes, which the object keeps where they are. It is read by the buffer protocol, without a
/// copy, and never written.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct Memory {
    object: Object,
    range: Range<usize>,
}

/// How many parts of objects Python has.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// How many views of the store's memory this process has: a forked child cannot read them.
#[pyfunction]
pub(crate) fn memory_count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

impl Drop for Memory {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Memory {
    /// `None` if the object has no such part.
    pub(crate) fn new(object: Object, range: Range<usize>) -> Option<Self> {
        object.get(range.clone())?;
        COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self { object, range })
    }
}

#[pymethods]
impl Memory {
    /// # Safety
    /// Called by the interpreter, with a view that it owns.
    // SAFETY: the signature is the buffer protocol's; the body says why it keeps to it.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: std::ffi::c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let Some(bytes) = this.object.get(this.range.clone()) else {
            return Err(PyBufferError::new_err("the object has no such bytes"));
        };
        let (pointer, length) = (bytes.as_ptr(), bytes.len());
        // SAFETY: the interpreter passes a view that may be filled. The bytes stay where they are, unchanged, as long
        // as the object in `slf` lives, to which the view gets a reference of its own. The view is read-only, so nobody
        // writes through the pointer.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), pointer.cast_mut().cast(), length as isize, 1, flags)
        };
        if filled < 0 { Err(PyErr::fetch(slf.py())) } else { Ok(()) }
    }

    fn __len__(&self) -> usize {
        self.range.len()
    }
}
