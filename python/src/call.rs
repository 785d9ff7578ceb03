//! Calls: of functions, and what calls of functions and of actors' methods have in common.
//!
//! The key of a function is a hash of its pickle and of the objects that it refers to, so all processes agree on it. A
//! call has, in front of the arguments that the program gives:
//!
//! - for a function and a constructor, a reference to the object with the pickle, which a worker reads once,
//! - the [`Header`]: the method, and the names of the arguments that were given by name.

use std::sync::Arc;

use mobula_runtime::{ArgumentList, Key, Ref, Returns, SessionNumber};
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::error::{raised, raised_by_store};
use crate::reference::ObjectRef;
use crate::value;

/// The text in front of the arguments of a call. It begins with one of these:
///
/// - for a method: its name;
/// - for a constructor: how the actor's calls run;
/// - for a function: the number of calls after which its worker ends.
///
/// The names of the keyword arguments follow, each after a zero byte.
pub(crate) struct Header;

impl Header {
    const SEPARATOR: char = '\0';

    fn text(method: &str, names: &Bound<'_, PyDict>) -> PyResult<String> {
        let mut text = method.to_owned();
        for name in names.keys() {
            text.push(Self::SEPARATOR);
            text.push_str(name.cast::<PyString>()?.to_str()?);
        }
        Ok(text)
    }

    /// The method and the names in a header.
    pub(crate) fn parse(text: &str) -> (&str, impl Iterator<Item = &str>) {
        let mut parts = text.split(Self::SEPARATOR);
        (parts.next().unwrap_or_default(), parts)
    }
}

/// Adds the header and the arguments of a call.
pub(crate) fn push_arguments(
    list: &mut ArgumentList,
    method: &str,
    arguments: &Bound<'_, PyTuple>,
    names: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    match names {
        None => value::text(method),
        Some(names) => value::text(&Header::text(method, names)?),
    }
    .push_to(arguments.py(), list);
    for argument in arguments.iter_borrowed() {
        push(list, &argument)?;
    }
    for argument in names.into_iter().flat_map(|names| names.values()) {
        push(list, &argument)?;
    }
    Ok(())
}

fn push(list: &mut ArgumentList, argument: &Bound<'_, PyAny>) -> PyResult<()> {
    match argument.cast_exact::<ObjectRef>() {
        Ok(reference) => list.push_reference(&reference.get().to),
        Err(_) => value::encode(argument)?.push_to(argument.py(), list),
    }
    Ok(())
}

/// How many results a call has, as its caller wants them.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Count(u32),
    /// A stream, of which at most so many items are in flight.
    Stream(u32),
}

impl Wanted {
    /// From the option `num_returns`: a number, or -1 for a stream.
    pub(crate) fn new(num_returns: i64, in_flight_max: u32) -> PyResult<Self> {
        match num_returns {
            -1 => Ok(Self::Stream(in_flight_max)),
            _ => u32::try_from(num_returns).map(Self::Count).map_err(|_| {
                PyValueError::new_err(format!("num_returns cannot be {num_returns}: a number, at least 0"))
            }),
        }
    }

    /// The arguments of [`new`](Self::new).
    pub(crate) fn numbers(self) -> (i64, u32) {
        match self {
            Self::Count(count) => (count.into(), 1),
            Self::Stream(in_flight_max) => (-1, in_flight_max),
        }
    }

    pub(crate) fn returns(self) -> Returns {
        match self {
            // A call has at least one result, which nobody sees here.
            Self::Count(0 | 1) => Returns::One,
            Self::Count(count) => Returns::List(count),
            Self::Stream(in_flight_max) => Returns::Stream(in_flight_max),
        }
    }

    /// The results for the caller.
    pub(crate) fn references(
        self,
        py: Python<'_>,
        mut refs: impl Iterator<Item = Ref>,
    ) -> PyResult<Py<PyAny>> {
        let new = |to: Ref| Ok::<_, PyErr>(Bound::new(py, ObjectRef { to })?.into_any().unbind());
        match self {
            Self::Count(0) => Ok(py.None()),
            Self::Count(1) => refs.next().map_or_else(|| Ok(py.None()), new),
            _ => {
                let all = refs.map(new).collect::<PyResult<Vec<_>>>()?;
                Ok(PyList::new(py, all)?.into_any().unbind())
            }
        }
    }
}

/// A function or a class of the program, as calls and actors name it. It is pickled once in each session, at its first
/// use, with the references and the actor handles that it captures.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct Function {
    name: Arc<str>,
    /// The name for errors.
    shown: String,
    function: Py<PyAny>,
    exported: Mutex<Option<Exported>>,
}

/// A function in a session.
struct Exported {
    session: SessionNumber,
    key: Key,
    /// The object with the pickle.
    stored: Ref,
}

#[pymethods]
impl Function {
    #[new]
    fn new(name: &str, shown: String, function: Py<PyAny>) -> Self {
        Self { name: name.into(), shown, function, exported: Mutex::new(None) }
    }

    // Its captured values may refer to the remote function that has this.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)
    }
}

impl Function {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The key, and the arguments of a call of it, behind this header.
    pub(crate) fn arguments(
        &self,
        py: Python<'_>,
        header: &str,
        arguments: &Bound<'_, PyTuple>,
        names: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<(Key, ArgumentList)> {
        let mut list = ArgumentList::default();
        let key = self.push_to(py, &mut list)?;
        push_arguments(&mut list, header, arguments, names)?;
        Ok((key, list))
    }

    /// Adds a reference to the pickle. Returns the function's key.
    fn push_to(&self, py: Python<'_>, list: &mut ArgumentList) -> PyResult<Key> {
        let runtime = mobula_runtime::runtime().map_err(|error| raised(py, error))?;
        let session = mobula_runtime::number();
        if let Some(exported) = &*self.exported.lock()
            && exported.session == session
        {
            list.push_reference(&exported.stored);
            return Ok(exported.key);
        }
        let (key, value) = value::export(self.function.bind(py), &self.name, &self.shown)?;
        let handle = py.detach(|| runtime.store(&value)).map_err(|error| raised_by_store(py, error))?;
        let exported = Exported { session, key: Key::from_bits(key), stored: Ref::to_object(handle, None) };
        list.push_reference(&exported.stored);
        let key = exported.key;
        let before = self.exported.lock().replace(exported);
        drop(before);
        Ok(key)
    }
}
