//! The state of the session, for `mobula.util.state`.

use mobula_runtime::Error;
use mobula_runtime::state::Observer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::raised;

/// A part of the state of the session, as a JSON text: see [`Observer::json`].
#[pyfunction]
pub(crate) fn state(py: Python<'_>, what: &str) -> PyResult<String> {
    let found = py.detach(|| -> Result<_, Error> { Ok(Observer::here()?.json(what)?) });
    let found = found.map_err(|error| raised(py, error))?;
    found.ok_or_else(|| PyValueError::new_err(format!("a session has no {what:?}")))
}
