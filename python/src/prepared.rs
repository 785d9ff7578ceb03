//! Calls that a program makes many times. The parts that are the same for all calls of a function, or of an actor's
//! method, are prepared once.
//!
//! These are what `f.remote` and `actor.method.remote` are. A call with arguments by position alone, as many as the
//! function takes, runs no Python code in the caller.

use std::sync::Arc;

use mobula_runtime::{ArgumentList, Definition, Name, SessionNumber, call_function, call_streaming};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::actor::Actor;
use crate::call::{Function, Wanted, push_arguments};
use crate::error::raised;
use crate::interpreter::Attribute;
use crate::options::{OfMethod, TaskOptions, method_options};
use crate::stream::Items;

static GENERATOR: Attribute = Attribute::new("mobula._stream", "ObjectRefGenerator");

/// The arguments that a function takes.
struct Takes {
    /// The number of arguments that fits, if all are given by position.
    least: usize,
    most: usize,
    /// Checks all other arguments, and raises if they do not fit. `None` if the signature is unknown: then all fit.
    check: Option<Py<PyAny>>,
}

impl Takes {
    fn check(&self, arguments: &Bound<'_, PyTuple>, names: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let is_simple = names.is_none_or(|names| names.is_empty());
        if is_simple && (self.least..=self.most).contains(&arguments.len()) {
            return Ok(());
        }
        let Some(check) = &self.check else { return Ok(()) };
        let py = arguments.py();
        match names {
            Some(names) => check.call1(py, (arguments, names)).map(drop),
            None => check.call1(py, (arguments, PyDict::new(py))).map(drop),
        }
    }
}

/// The class of a stream's generator in the caller.
fn generator(py: Python<'_>, items: mobula_runtime::ItemStream) -> PyResult<Py<PyAny>> {
    Ok(GENERATOR.get(py)?.call1((Items::new(items),))?.unbind())
}

/// A remote function with options, in one session.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct PreparedFunction {
    session: SessionNumber,
    function: Py<Function>,
    options: mobula_runtime::TaskOptions,
    header: String,
    wanted: Wanted,
    takes: Takes,
    /// Makes the call in another session, which may have another environment.
    otherwise: Py<PyAny>,
}

#[pymethods]
impl PreparedFunction {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the package alone makes these")]
    fn new(
        function: Py<Function>,
        options: &TaskOptions,
        num_returns: i64,
        in_flight_max: u32,
        least: usize,
        most: usize,
        check: Option<Py<PyAny>>,
        otherwise: Py<PyAny>,
    ) -> PyResult<Self> {
        Ok(Self {
            session: mobula_runtime::number(),
            function,
            options: options.of_core.clone(),
            header: options.header.clone(),
            wanted: Wanted::new(num_returns, in_flight_max)?,
            takes: Takes { least, most, check },
            otherwise,
        })
    }

    /// Calls the function. Returns a reference, a list of them, or a stream.
    #[pyo3(signature = (*arguments, **names))]
    fn __call__(
        &self,
        py: Python<'_>,
        arguments: &Bound<'_, PyTuple>,
        names: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        if mobula_runtime::number() != self.session || self.session == SessionNumber::NONE {
            return self.otherwise.call(py, arguments, names);
        }
        self.takes.check(arguments, names)?;
        let called = self.function.get();
        let (key, list) = called.arguments(py, &self.header, arguments, names)?;
        let function = Definition { key, name: Name::Shared(called.name().clone()) };
        match self.wanted {
            Wanted::Stream(in_flight_max) => {
                generator(py, call_streaming(function, list, in_flight_max, self.options.clone()))
            }
            wanted => {
                wanted.references(py, call_function(function, list, wanted.returns(), self.options.clone()))
            }
        }
    }

    /// Pickles `remote` as an attribute of the function.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, NamedAttribute<'py>)> {
        static GETATTR: Attribute = Attribute::new("builtins", "getattr");
        let function = self.otherwise.bind(py).getattr(intern!(py, "__self__"))?;
        Ok((GETATTR.get(py)?.clone(), (function, "remote")))
    }

    // The remote function has this, and this has a method of it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.takes.check)?;
        visit.call(&self.otherwise)
    }
}

/// An object, and the name of an attribute that it has.
type NamedAttribute<'py> = (Bound<'py, PyAny>, &'static str);

/// A method of an actor. Keeps the actor alive.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct PreparedMethod {
    actor: Py<Actor>,
    name: Arc<str>,
    /// The name, and after it the data about the call for the actor's process.
    called: String,
    wanted: Wanted,
    options: OfMethod,
    takes: Takes,
}

#[pymethods]
impl PreparedMethod {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the package alone makes these")]
    fn new(
        actor: Py<Actor>,
        called: String,
        num_returns: i64,
        in_flight_max: u32,
        options: OfMethod,
        least: usize,
        most: usize,
        check: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let name = called.split(['\u{1}', '\u{2}']).next().unwrap_or_default();
        Ok(Self {
            actor,
            name: name.into(),
            called,
            wanted: Wanted::new(num_returns, in_flight_max)?,
            options,
            takes: Takes { least, most, check },
        })
    }

    /// Calls the method. Returns a reference, a list of them, or a stream.
    #[pyo3(signature = (*arguments, **names))]
    fn __call__(
        &self,
        py: Python<'_>,
        arguments: &Bound<'_, PyTuple>,
        names: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        self.takes.check(arguments, names)?;
        let mut list = ArgumentList::default();
        push_arguments(&mut list, &self.called, arguments, names)?;
        let name = Name::Shared(self.name.clone());
        let actor = self.actor.get().to();
        actor.check_pending(&name).map_err(|error| raised(py, error))?;
        let actor = actor.clone();
        let actor = match self.options {
            (None, None, None) => actor,
            options => actor.with_options(method_options(options)),
        };
        match self.wanted {
            Wanted::Stream(in_flight_max) => {
                generator(py, actor.call_streaming(0, name, list, in_flight_max))
            }
            wanted => wanted.references(py, actor.call(0, name, list, wanted.returns())),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.takes.check)
    }

    /// Pickles this as an attribute of the method, in a value that mobula pickles.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Parts)> {
        let this = slf.get();
        let (num_returns, in_flight_max) = this.wanted.numbers();
        let Takes { least, most, check } = &this.takes;
        let py = slf.py();
        let check = check.as_ref().map(|check| check.clone_ref(py));
        let actor = this.actor.clone_ref(py);
        let called = this.called.clone();
        let parts = (actor, called, num_returns, in_flight_max, this.options, *least, *most, check);
        Ok((slf.get_type().into_any(), parts))
    }
}

/// The arguments of [`PreparedMethod::new`].
type Parts = (Py<Actor>, String, i64, u32, OfMethod, usize, usize, Option<Py<PyAny>>);
