//! The session of this process, from `init` to `shutdown`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use mobula_runtime::{Error, Launch, OutputSink, Resources, Session, SessionOptions};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raised;
use crate::host;
use crate::interpreter::Attribute;

/// Keeps the session of this process alive; `None`: there is none, or this is a worker.
static SESSION: Mutex<Option<Session>> = Mutex::new(None);

/// Starts a session, or joins the one at an address. Its workers and its store are started by these commands. Returns
/// the socket of its store.
#[pyfunction]
#[pyo3(signature = (
    command, store_command, *, address, num_cpus, num_gpus, memory, resources, object_store_memory,
    log_to_driver, namespace, spill_directory
))]
#[expect(clippy::too_many_arguments, reason = "the keyword arguments of `mobula.init`")]
pub(crate) fn start(
    py: Python<'_>,
    command: Vec<OsString>,
    store_command: Vec<OsString>,
    address: Option<PathBuf>,
    num_cpus: Option<f64>,
    num_gpus: Option<f64>,
    memory: Option<u64>,
    resources: Option<HashMap<String, f64>>,
    object_store_memory: Option<u64>,
    log_to_driver: Option<bool>,
    namespace: Option<String>,
    spill_directory: Option<PathBuf>,
) -> PyResult<PathBuf> {
    let mut options = SessionOptions::new(host::build_id(), launch(command));
    options.store_launch = launch(store_command);
    options.address = address;
    options.amounts.num_cpus = num_cpus;
    options.amounts.num_gpus = num_gpus;
    options.amounts.memory = memory;
    options.amounts.resources = resources.map(|resources| resources.into_iter().collect());
    options.capacity_bytes = object_store_memory;
    options.forward_output = log_to_driver;
    options.output = Some(OutputSink::new(show));
    options.namespace = namespace;
    options.spill_directory = spill_directory;
    py.detach(|| {
        let session = mobula_runtime::start(options)?;
        let socket = session.socket().to_owned();
        let before = SESSION.lock().replace(session);
        drop(before);
        Ok::<_, Error>(socket)
    })
    .map_err(|error| raised(py, error))
}

/// Runs the command `mobula` with these arguments, and returns its exit code. `session_command` starts the process of a
/// session.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, session_command: Vec<OsString>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| mobula_cli::run(launch(session_command), arguments))
}

/// Writes the output of workers into `sys.stdout` and `sys.stderr`, if the program has replaced them: notebooks do, and
/// tests, and `contextlib.redirect_stdout`.
fn show(is_error: bool, lines: &[u8]) -> io::Result<bool> {
    static SHOW: Attribute = Attribute::new("mobula._output", "show");
    let show = |py: Python<'_>| SHOW.get(py)?.call1((is_error, PyBytes::new(py, lines)))?.extract();
    match Python::try_attach(|py| show(py).map_err(|error: PyErr| io::Error::other(error.to_string()))) {
        Some(taken) => taken,
        // The interpreter ends.
        None => Ok(false),
    }
}

fn launch(command: Vec<OsString>) -> Launch {
    let mut command = command.into_iter();
    let mut launch = Launch::program(command.next().unwrap_or_default());
    launch.arguments = command.collect();
    launch.is_renamed = false;
    launch
}

/// Ends the session: actors first, then workers and store. Does nothing where there is none.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    py.detach(|| {
        let session = SESSION.lock().take();
        drop(session);
    });
}

/// Whether this process has a session, as its driver or as one of its workers.
#[pyfunction]
pub(crate) fn is_initialized() -> bool {
    mobula_runtime::is_initialized()
}

/// The number of this process in its session, as hexadecimal digits; empty without a session.
#[pyfunction]
pub(crate) fn process_id() -> String {
    mobula_runtime::runtime()
        .map(|runtime| format!("{:016x}", runtime.client().id().bits()))
        .unwrap_or_default()
}

/// Whether this process is a worker.
#[pyfunction]
pub(crate) fn is_worker() -> bool {
    host::is_here()
}

/// Whether the running call was cancelled.
#[pyfunction]
pub(crate) fn is_cancelled() -> bool {
    mobula_runtime::is_cancelled()
}

/// The resources of the session, by their names.
#[pyfunction]
pub(crate) fn cluster_resources(py: Python<'_>) -> PyResult<HashMap<String, f64>> {
    let resources = mobula_runtime::cluster_resources().map_err(|error| raised(py, error))?;
    Ok(amounts(&resources))
}

/// The names of the GPUs that this process has.
#[pyfunction]
pub(crate) fn gpu_ids(py: Python<'_>) -> PyResult<Vec<String>> {
    mobula_runtime::gpu_ids().map_err(|error| raised(py, error))
}

/// The resources that no call and no actor has at the moment.
#[pyfunction]
pub(crate) fn available_resources(py: Python<'_>) -> PyResult<HashMap<String, f64>> {
    let resources = py.detach(mobula_runtime::available_resources);
    Ok(amounts(&resources.map_err(|error| raised(py, error))?))
}

pub(crate) fn amounts(resources: &Resources) -> HashMap<String, f64> {
    resources.iter().map(|(name, amount)| (name.to_owned(), amount)).collect()
}
