//! Functions and classes of Rust programs, as Python calls them: by the names that these export them under.
//!
//! The processes that run them are the Rust program's own, started again. Arguments go as values that all languages
//! read. A call of a method has its name as the first argument.

use std::path::PathBuf;
use std::sync::Arc;

use mobula_runtime::{ActorRef, ArgumentList, Definition, Key, Launch, Name, call_function, call_streaming};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::call::Wanted;
use crate::error::{raised, raised_by_store};
use crate::options::{ActorOptions, TaskOptions};
use crate::reference::ObjectRef;
use crate::stream::Items;
use crate::value;

/// A function that a Rust program exports.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct RustFunction {
    program: PathBuf,
    name: Arc<str>,
}

#[pymethods]
impl RustFunction {
    #[new]
    fn new(program: PathBuf, name: &str) -> Self {
        Self { program, name: name.into() }
    }

    /// Calls the function. Returns a reference, a list of them, or a stream.
    fn call(
        &self,
        py: Python<'_>,
        arguments: &Bound<'_, PyTuple>,
        options: &TaskOptions,
        num_returns: i64,
        in_flight_max: u32,
    ) -> PyResult<Py<PyAny>> {
        let wanted = Wanted::new(num_returns, in_flight_max)?;
        let mut list = ArgumentList::default();
        push_all(&mut list, arguments)?;
        let options = options.of_core.clone().program(Launch::program(&self.program));
        let function = definition(&self.name);
        match wanted {
            Wanted::Stream(in_flight_max) => {
                let items = call_streaming(function, list, in_flight_max, options);
                Ok(Bound::new(py, Items::new(items))?.into_any().unbind())
            }
            _ => wanted.references(py, call_function(function, list, wanted.returns(), options)),
        }
    }
}

/// An actor of a class that a Rust program exports. It ends with the last reference to this.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct RustActor {
    to: ActorRef,
}

#[pymethods]
impl RustActor {
    /// Starts an actor. Its class runs the constructor in a process of its own.
    #[new]
    fn new(
        py: Python<'_>,
        program: PathBuf,
        name: &str,
        options: &ActorOptions,
        arguments: &Bound<'_, PyTuple>,
    ) -> PyResult<Self> {
        let mut list = ArgumentList::default();
        push_all(&mut list, arguments)?;
        let options = options.0.clone().program(Launch::program(program));
        // The head says whether the name is free.
        let to = py.detach(|| ActorRef::create(definition(&name.into()), &options, list));
        if let Err(error) = to.export() {
            return Err(raised(py, error));
        }
        Ok(Self { to })
    }

    /// Calls a method. Returns a reference, a list of them, or a stream.
    fn call(
        &self,
        py: Python<'_>,
        method: &str,
        arguments: &Bound<'_, PyTuple>,
        num_returns: i64,
        in_flight_max: u32,
    ) -> PyResult<Py<PyAny>> {
        let wanted = Wanted::new(num_returns, in_flight_max)?;
        let mut list = ArgumentList::default();
        push(&mut list, PyString::new(py, method).as_any())?;
        push_all(&mut list, arguments)?;
        let (actor, name) = (self.to.clone(), Name::Shared(method.into()));
        match wanted {
            Wanted::Stream(in_flight_max) => {
                let items = actor.call_streaming(0, name, list, in_flight_max);
                Ok(Bound::new(py, Items::new(items))?.into_any().unbind())
            }
            _ => wanted.references(py, actor.call(0, name, list, wanted.returns())),
        }
    }

    /// Ends the actor at once.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.to.kill()).map_err(|error| raised(py, error))
    }
}

/// Copies a value into the store, in a format that all languages read.
#[pyfunction]
pub(crate) fn put_portable(value: &Bound<'_, PyAny>) -> PyResult<ObjectRef> {
    let py = value.py();
    let encoded = value::encode_portable(value)?;
    let runtime = mobula_runtime::runtime().map_err(|error| raised(py, error))?;
    // The store may have to wait for room.
    let handle = py.detach(|| runtime.store(&encoded)).map_err(|error| raised_by_store(py, error))?;
    Ok(ObjectRef { to: mobula_runtime::Ref::to_object(handle, None) })
}

fn definition(name: &Arc<str>) -> Definition {
    Definition { key: Key::exported(name), name: Name::Shared(name.clone()) }
}

fn push_all(list: &mut ArgumentList, arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
    arguments.iter_borrowed().try_for_each(|argument| push(list, &argument))
}

fn push(list: &mut ArgumentList, argument: &Bound<'_, PyAny>) -> PyResult<()> {
    match argument.cast_exact::<ObjectRef>() {
        Ok(reference) => list.push_reference(&reference.get().to),
        Err(_) => value::encode_portable(argument)?.push_to(argument.py(), list),
    }
    Ok(())
}
