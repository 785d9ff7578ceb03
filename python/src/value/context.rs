//! The references in a value: while a value is pickled, they are collected; while it is read, they are given out.
//!
//! `pickle` has no room for a companion, so it waits on a stack of the thread. A stack rather than a slot, because the
//! methods that pickle an object may themselves put or get values.

use std::cell::RefCell;

use mobula_client::{Handle, ObjectId};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

thread_local! {
    static WRITING: RefCell<Vec<Vec<Handle>>> = const { RefCell::new(Vec::new()) };
    static READING: RefCell<Vec<Vec<Handle>>> = const { RefCell::new(Vec::new()) };
}

/// Collects the references of the values that `write` pickles.
pub(super) fn writing<R>(write: impl FnOnce() -> R) -> (R, Vec<Handle>) {
    WRITING.with_borrow_mut(|stack| stack.push(Vec::new()));
    // No Python code unwinds through this: an exception is a result.
    let result = write();
    (result, WRITING.with_borrow_mut(Vec::pop).unwrap_or_default())
}

/// Gives these references to the values that `read` unpickles.
pub(super) fn reading<R>(references: Vec<Handle>, read: impl FnOnce() -> R) -> R {
    READING.with_borrow_mut(|stack| stack.push(references));
    let result = read();
    let read = READING.with_borrow_mut(Vec::pop);
    drop(read);
    result
}

/// A reference in a pickle: its position among the references of the value, and the object, which tells a reference of
/// this value from one of another value.
pub(crate) type Place = (u32, [u8; ObjectId::BYTES]);

/// Adds a reference to the value that is being pickled. Returns its place.
pub(crate) fn add(handle: Handle) -> PyResult<Place> {
    WRITING.with_borrow_mut(|stack| {
        let references = stack.last_mut().ok_or_else(|| {
            PyTypeError::new_err(
                "a reference or an actor handle can only be pickled by mobula, inside a value that is put, passed to \
                 a call or returned from one: then the store knows who holds its object",
            )
        })?;
        let object = handle.id().to_bytes();
        references.push(handle);
        Ok((references.len() as u32 - 1, object))
    })
}

/// The reference at this place of the value that is being read.
pub(crate) fn reference((position, object): Place) -> PyResult<Handle> {
    let found = READING.with_borrow(|stack| {
        let found = stack.last().and_then(|references| references.get(position as usize));
        found.filter(|handle| handle.id().to_bytes() == object).cloned()
    });
    found.ok_or_else(|| {
        PyValueError::new_err(
            "a pickled reference or actor handle is not of the value that is being read: each is read within its own \
             value alone",
        )
    })
}
