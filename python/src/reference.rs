//! References to objects, and the operations on them.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use mobula_runtime::{CancelOptions, Error, Ref, RefId, WaitInSlices};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::error::{raised, raised_by_store};
use crate::interpreter::Attribute;
use crate::value::context::Place;
use crate::value::{self, context};

/// How often a waiting thread looks whether a signal has come. Python notes signals in a handler of its own, and only
/// a thread with the interpreter's lock can raise what they mean.
const SIGNALS_INTERVAL: Duration = Duration::from_millis(20);

static RESTORED: Attribute = Attribute::new("mobula._mobula", "reference_restored");

/// A reference to an object: a value that was put, or the result of a call, which need not be there yet.
#[pyclass(frozen, weakref, generic, module = "mobula")]
pub(crate) struct ObjectRef {
    pub(crate) to: Ref,
}

#[pymethods]
impl ObjectRef {
    /// The id as hexadecimal digits: the same in all processes, and of no other reference.
    fn hex(&self) -> String {
        digits(&self.binary())
    }

    /// The id as bytes.
    fn binary(&self) -> [u8; 16] {
        bytes_of(self.to.id())
    }

    /// The id of the call whose result this is, as hexadecimal digits; `None` if another process has made the call.
    fn _task_id(&self) -> Option<String> {
        self.to.task_id().map(|id| id.to_string())
    }

    /// The id of the call whose result this is; nil for an object that was put, and for a call of another process.
    fn task_id<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static TASK_ID: Attribute = Attribute::new("mobula._ids", "of_task");
        TASK_ID.get(py)?.call1((self._task_id(),))
    }

    /// The digits of the store's object that has the value; `None` if there is none.
    fn _object_id(&self) -> Option<String> {
        self.to.object().map(|object| digits(&bytes_of(object)))
    }

    /// The id of the driver of this process.
    fn job_id<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static JOB_ID: Attribute = Attribute::new("mobula._ids", "of_this_driver");
        JOB_ID.get(py)?.call0()
    }

    /// Whether the value or the error is there.
    fn is_ready(&self) -> bool {
        self.to.is_ready()
    }

    fn __repr__(&self) -> String {
        format!("ObjectRef({})", self.hex())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().to.id() == self.to.id())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.to.id().hash(&mut hasher);
        hasher.finish()
    }

    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static AWAIT: Attribute = Attribute::new("mobula._waiting", "wait_for");
        AWAIT.get(slf.py())?.call1((slf,))?.call_method0(intern!(slf.py(), "__await__"))
    }

    /// The result as a `concurrent.futures.Future`.
    fn future<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static FUTURE: Attribute = Attribute::new("mobula._waiting", "future");
        FUTURE.get(slf.py())?.call1((slf,))
    }

    /// The result as a `Future` of the running event loop.
    fn as_future<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static AS_FUTURE: Attribute = Attribute::new("mobula._waiting", "as_future");
        AS_FUTURE.get(slf.py())?.call1((slf,))
    }

    /// Calls a function with the value or the error, on a thread of its own, as soon as it is there.
    fn _on_completed(slf: &Bound<'_, Self>, callback: &Bound<'_, PyAny>) -> PyResult<()> {
        static ON_COMPLETED: Attribute = Attribute::new("mobula._waiting", "on_completed");
        ON_COMPLETED.get(slf.py())?.call1((slf, callback)).map(drop)
    }

    // A copy is the same reference.
    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    /// Pickles the reference within a value that mobula pickles.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Restored)> {
        let (handle, id) = py.detach(|| self.to.export()).map_err(|error| raised(py, error))?;
        let place = context::add(handle)?;
        Ok((RESTORED.get(py)?.clone(), (place, id.map(Into::into))))
    }
}

fn bytes_of(id: RefId) -> [u8; 16] {
    let (high, low): (u64, u64) = id.into();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    bytes
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parts of a pickled reference: its place among the value's references, and its id if that is not the object's.
type Restored = (Place, Option<(u64, u64)>);

/// A reference that was pickled within a value.
#[pyfunction]
pub(crate) fn reference_restored(place: Place, id: Option<(u64, u64)>) -> PyResult<ObjectRef> {
    Ok(ObjectRef { to: Ref::to_object(context::reference(place)?, id.map(RefId::from)) })
}

/// Copies a value into the store.
#[pyfunction]
pub(crate) fn put(value: &Bound<'_, PyAny>) -> PyResult<ObjectRef> {
    let py = value.py();
    let encoded = value::encode(value)?;
    let runtime = mobula_runtime::runtime().map_err(|error| raised(py, error))?;
    let _made_at = runtime.made_at(|| place_of(py).unwrap_or_else(|_| "?".to_owned()));
    // The store may have to wait for room.
    let stored = py.detach(|| runtime.store(&encoded));
    let handle = stored.map_err(|error| raised_by_store(py, error))?;
    Ok(ObjectRef { to: Ref::to_object(handle, None) })
}

/// The line of the program that called the package.
fn place_of(py: Python<'_>) -> PyResult<String> {
    // The frame of the package's own function is the innermost.
    let frame = py.import("sys")?.call_method1("_getframe", (1,))?;
    let file: String = frame.getattr("f_code")?.getattr("co_filename")?.extract()?;
    let line: u32 = frame.getattr("f_lineno")?.extract()?;
    Ok(format!("{file}:{line}"))
}

/// Waits for the value of a reference, or for the values of all references of a list.
#[pyfunction]
pub(crate) fn get<'py>(refs: &Bound<'py, PyAny>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
    let py = refs.py();
    if let Ok(reference) = refs.cast_exact::<ObjectRef>() {
        let to = &reference.get().to;
        if !to.is_ready() {
            wait_for_all(py, std::slice::from_ref(to), timeout)?;
        }
        return resolve(py, to);
    }
    let refs = refs.cast::<PyList>()?;
    let refs: Vec<Ref> =
        refs.iter().map(|item| Ok(item.cast::<ObjectRef>()?.get().to.clone())).collect::<PyResult<_>>()?;
    if !refs.iter().all(Ref::is_ready) {
        wait_for_all(py, &refs, timeout)?;
    }
    let values = PyList::empty(py);
    for to in &refs {
        values.append(resolve(py, to)?)?;
    }
    Ok(values.into_any())
}

/// The value of a reference that is ready.
pub(crate) fn resolve<'py>(py: Python<'py>, to: &Ref) -> PyResult<Bound<'py, PyAny>> {
    let runtime = mobula_runtime::runtime_of(to.session()).map_err(|error| raised(py, error))?;
    // An object that was spilled is read from the disk.
    let resolved = match to.is_stored() {
        true => py.detach(|| to.resolve(runtime.client())),
        false => to.resolve(runtime.client()),
    };
    value::of_resolved(py, runtime.client(), resolved.map_err(|failure| raised(py, failure))?)
}

fn wait_for_all(py: Python<'_>, refs: &[Ref], timeout: Option<f64>) -> PyResult<()> {
    let started = Instant::now();
    if wait_interruptibly(py, refs, None, timeout.map(duration).transpose()?)? {
        return Ok(());
    }
    let (waited, wanted) = (started.elapsed(), refs.len());
    let ready = refs.iter().filter(|to| to.is_ready()).count();
    Err(raised(py, Error::Timeout { waited, ready, wanted }))
}

/// Waits for all, or for `num_ready` of them, and lets signal handlers run meanwhile: Ctrl-C ends the wait. Returns
/// whether they are ready before the time has passed.
fn wait_interruptibly(
    py: Python<'_>,
    refs: &[Ref],
    num_ready: Option<usize>,
    limit: Option<Duration>,
) -> PyResult<bool> {
    let started = Instant::now();
    let done = py.detach(|| {
        let runtime = mobula_runtime::runtime()?;
        let slices = WaitInSlices::new(&runtime, refs, num_ready, limit.is_none());
        loop {
            let left = limit.map_or(SIGNALS_INTERVAL, |limit| limit.saturating_sub(started.elapsed()));
            if slices.wait(left.min(SIGNALS_INTERVAL))? {
                return Ok(Ok(true));
            }
            if limit.is_some_and(|limit| started.elapsed() >= limit) {
                return Ok(Ok(false));
            }
            // Python notes signals, and only a thread with the interpreter's lock can raise what they mean.
            if let Err(raised) = Python::attach(|py| py.check_signals()) {
                return Ok(Err(raised));
            }
        }
    });
    done.map_err(|error: Error| raised(py, error))?
}

pub(crate) fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!("timeout cannot be {seconds}: a number of seconds, at least 0"))
    })
}

/// Waits until `num_returns` references are ready, or the time has passed. Returns the ready ones and the others, both
/// in the order in which they were given.
#[pyfunction]
pub(crate) fn wait<'py>(
    refs: &Bound<'py, PyList>,
    num_returns: usize,
    timeout: Option<f64>,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let py = refs.py();
    let limit = timeout.map(duration).transpose()?;
    let all: Vec<Ref> =
        refs.iter().map(|item| Ok(item.cast::<ObjectRef>()?.get().to.clone())).collect::<PyResult<_>>()?;
    wait_interruptibly(py, &all, Some(num_returns), limit)?;
    let (found, rest) = (PyList::empty(py), PyList::empty(py));
    for (to, item) in all.iter().zip(refs) {
        let is_found = found.len() < num_returns && to.is_ready();
        if is_found { &found } else { &rest }.append(item)?;
    }
    Ok((found, rest))
}

/// Cancels the calls whose results these are.
#[pyfunction]
pub(crate) fn cancel(py: Python<'_>, refs: &Bound<'_, PyList>, force: bool, recursive: bool) -> PyResult<()> {
    let refs: Vec<Ref> =
        refs.iter().map(|item| Ok(item.cast::<ObjectRef>()?.get().to.clone())).collect::<PyResult<_>>()?;
    py.detach(|| {
        let runtime = mobula_runtime::runtime()?;
        mobula_runtime::cancel(&runtime, &refs, CancelOptions::new().force(force).recursive(recursive))
    })
    .map_err(|error| raised(py, error))
}
