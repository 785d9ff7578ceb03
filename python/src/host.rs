//! The host of Python programs: in a worker, which is an interpreter, it runs their functions and actors.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use mobula_client::Client;
use mobula_runtime::{
    Failure, Host, Instance, Invocation, Key, OwnedCall, Payload, PushError, Returns, TaskError,
    TaskErrorKind, TaskId, label,
};
use parking_lot::Mutex;
use pyo3::exceptions::{PyKeyboardInterrupt, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::call::Header;
use crate::interpreter::{Attribute, without_lock};
use crate::reply::Reply;
use crate::streaming::StreamCall;
use crate::value::{self, Value};

static HOST: Python3 = Python3 { functions: Mutex::new(None), uses: AtomicU64::new(0) };
static IS_HERE: AtomicBool = AtomicBool::new(false);
/// The thread that runs calls, which is the interpreter's main thread: signal handlers run there.
static MAIN_THREAD: OnceLock<libc::pthread_t> = OnceLock::new();
/// A call was interrupted, and the next one must not hear of it.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The call that runs, where calls run one after the other.
static RUNNING: Mutex<Option<RunningCall>> = Mutex::new(None);

/// The data about the running call that a program can ask for.
#[derive(Clone)]
struct RunningCall {
    id: TaskId,
    attempt: u16,
    name: Arc<str>,
    /// The text from the caller about the call; see [`TaskOptions`](crate::options::TaskOptions).
    told: Option<String>,
}

/// The id of the running call, the number of its retries, the name of its function, and the caller's text about it.
/// `None` in a driver, and in an actor that may have several calls under way.
#[pyfunction]
pub(crate) fn running_call() -> Option<(String, u16, String, Option<String>)> {
    let running = RUNNING.lock().clone()?;
    Some((running.id.to_string(), running.attempt, running.name.to_string(), running.told))
}

/// Sets the running call.
fn set_running(on: &Invocation<'_>, name: &Arc<str>, told: Option<&str>) {
    let told = told.map(str::to_owned);
    let running = on.call().map(|(id, attempt)| RunningCall { id, attempt, name: name.clone(), told });
    *RUNNING.lock() = running;
}

/// The key of the function that calls others by their names, for callers in other languages. Its first argument is the
/// module and the name there, and its result a value that all languages read.
const BY_NAME: Key = Key::exported("mobula.call");

static BY_NAME_FOUND: Attribute = Attribute::new("mobula._worker", "by_name");
static DESCRIBE: Attribute = Attribute::new("mobula._worker", "describe");
static FLUSH: Attribute = Attribute::new("mobula._worker", "flush");
static END: Attribute = Attribute::new("mobula._worker", "end");
static FUNCTION_OF: Attribute = Attribute::new("mobula._worker", "function_of");
static GENERATOR: Attribute = Attribute::new("types", "GeneratorType");
static RETRIED_ITEMS: Attribute = Attribute::new("mobula._retries", "RetriedItems");
static RUNNER: Attribute = Attribute::new("mobula._worker", "runner");
static METHOD: Attribute = Attribute::new("mobula._worker", "method");
static RESULTS: Attribute = Attribute::new("mobula._worker", "results");

/// Becomes what the role says, and does not return. The process must have done nothing else.
#[pyfunction]
pub(crate) fn run_role(py: Python<'_>, role: &str) -> PyResult<()> {
    let Some(role) = role.strip_prefix(mobula_runtime::ROLE) else {
        return Err(PyValueError::new_err("a worker is started by a session of mobula, and not by hand"));
    };
    IS_HERE.store(true, Ordering::Relaxed);
    // SAFETY: it returns the calling thread's own number.
    let _ = MAIN_THREAD.set(unsafe { libc::pthread_self() });
    py.detach(|| mobula_runtime::run_role(role, &HOST))
}

/// Whether this process is a worker.
pub(crate) fn is_here() -> bool {
    IS_HERE.load(Ordering::Relaxed)
}

/// A number that two versions of this package do not share.
pub(crate) fn build_id() -> u64 {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    hasher.finish()
}

/// See the module's documentation.
struct Python3 {
    /// The functions that this process has run most recently.
    functions: Mutex<Option<FxHashMap<Key, Known>>>,
    /// How many calls have begun.
    uses: AtomicU64,
}

/// A function that this process has run.
struct Known {
    function: Py<PyAny>,
    name: Arc<str>,
    /// How many calls of it have begun here, where its worker ends after some.
    calls: u32,
    /// When it was called last: a number that grows.
    used: u64,
}

/// The functions that a worker keeps, with the values that they capture.
const FUNCTIONS_MAX: usize = 256;

thread_local! {
    /// The name in the last label.
    static LABELLED: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Host for Python3 {
    fn build_id(&self) -> u64 {
        build_id()
    }

    /// Raises `KeyboardInterrupt` in the function, as Ray does: by the signal, which also ends a sleep.
    fn interrupt(&self) {
        if let Some(thread) = MAIN_THREAD.get() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            // SAFETY: the thread lives as long as the process. Python has a handler for the signal. If user code has
            // taken it away, the signal ends the process, which is what the program then asks for.
            unsafe { libc::pthread_kill(*thread, libc::SIGINT) };
        }
    }

    fn call(&self, function: Key, on: &mut Invocation<'_>) -> Result<(), Failure> {
        Python::attach(|py| {
            let was_interrupted = INTERRUPTED.swap(false, Ordering::SeqCst);
            if was_interrupted {
                // It was for the call before this one, which may have ended by itself. The thread has the signal when
                // it comes back from the next system call. A later one still finds that this call goes on.
                std::thread::yield_now();
                let _ = py.check_signals();
            }
            let found = if function == BY_NAME { named(py, on) } else { self.function(py, function, on) };
            let called = found.and_then(|(callee, name)| {
                label_output(py, &name);
                on.set_name("", &name);
                set_running(on, &name, None);
                // This call may have been cancelled before it came here, and its signal with the one before.
                if (was_interrupted || INTERRUPTED.load(Ordering::SeqCst)) && mobula_runtime::is_cancelled() {
                    return Err((PyKeyboardInterrupt::new_err("the call was cancelled"), name.to_string()));
                }
                let outcome = match function == BY_NAME {
                    true => run_named(py, &callee, on),
                    false => self.run(py, function, (&callee, &name), on),
                };
                outcome.map_err(|error| (error, name.to_string()))
            });
            called.map_err(|(error, name)| failure(py, &name, &error))
        })
    }

    fn construct(&self, _class: Key, on: &mut Invocation<'_>) -> Result<Box<dyn Instance>, Failure> {
        Python::attach(|py| {
            let class = argument(py, on).map_err(|error| failure(py, "actor", &error))?;
            let name = name_of(&class);
            label_output(py, &name);
            let mut construct = || {
                let (concurrency, names) = header(py, on)?;
                let runner = RUNNER.get(py)?.call1((concurrency,))?;
                let state = call_named(py, &class, on, &names)?;
                Ok((state.unbind(), runner.extract::<Option<Py<PyAny>>>()?))
            };
            let made = construct();
            let (state, runner) = made.map_err(|error| failure(py, &format!("{name}.__init__"), &error))?;
            let methods = FxHashMap::default();
            Ok(Box::new(Actor { name, state: Some(state), runner, methods }) as Box<dyn Instance>)
        })
    }

    fn function_name(&self, _function: Key) -> String {
        LABELLED.with_borrow(Clone::clone)
    }

    // The name of a method is in the call, which its caller knows.
    fn has_places(&self) -> bool {
        false
    }

    fn idle(&self) {
        Python::attach(flush);
    }
}

impl Python3 {
    fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed)
    }

    /// The function of this key, which is read from the first argument once. Takes that argument.
    fn function<'py>(
        &self,
        py: Python<'py>,
        key: Key,
        on: &mut Invocation<'_>,
    ) -> Result<(Bound<'py, PyAny>, Arc<str>), (PyErr, String)> {
        let unknown = |error| (error, "function".to_owned());
        let known = |functions: &mut FxHashMap<Key, Known>| {
            let known = functions.get_mut(&key)?;
            known.used = self.next_use();
            Some((known.function.clone_ref(py), known.name.clone()))
        };
        let found = self.functions.lock().as_mut().and_then(known);
        if let Some((found, name)) = found {
            skip_argument(on).map_err(unknown)?;
            return Ok((found.into_bound(py), name));
        }
        let function = argument(py, on).map_err(unknown)?;
        let (name, used): (Arc<str>, _) = (name_of(&function).into(), self.next_use());
        let known = Known { function: function.clone().unbind(), name: name.clone(), calls: 0, used };
        let mut functions = self.functions.lock();
        let all = functions.get_or_insert_default();
        let before = all.insert(key, known);
        // A function is read again if it is called again. One whose calls are counted must stay.
        let oldest = all.iter().filter(|(_, known)| known.calls == 0).min_by_key(|(_, known)| known.used);
        let oldest = oldest.map(|(key, _)| *key).filter(|_| all.len() > FUNCTIONS_MAX);
        let oldest = oldest.and_then(|key| all.remove(&key));
        drop(functions);
        // With what they capture, whose destructors run now.
        drop((before, oldest));
        Ok((function, name))
    }

    /// Runs a function. The process ends behind the last call that the function may have in it.
    fn run(
        &self,
        py: Python<'_>,
        key: Key,
        (callee, name): (&Bound<'_, PyAny>, &Arc<str>),
        on: &mut Invocation<'_>,
    ) -> PyResult<()> {
        let (header, names) = header(py, on)?;
        let (max_calls, told) = header.split_once('\u{1}').unwrap_or((&header, ""));
        if !told.is_empty() {
            set_running(on, name, Some(told));
        }
        if let Ok(max_calls) = max_calls.parse::<u32>() {
            let mut functions = self.functions.lock();
            let known = functions.as_mut().and_then(|functions| functions.get_mut(&key));
            let is_last = known.is_some_and(|known| {
                known.calls += 1;
                known.calls >= max_calls
            });
            drop(functions);
            if is_last {
                on.set_spent();
            }
        }
        give(&call_named(py, callee, on, &names)?, on)
    }
}

/// The function that a caller in another language names.
fn named<'py>(
    py: Python<'py>,
    on: &mut Invocation<'_>,
) -> Result<(Bound<'py, PyAny>, Arc<str>), (PyErr, String)> {
    let name = argument(py, on).map_err(|error| (error, "function".to_owned()))?;
    let found = BY_NAME_FOUND.get(py).and_then(|by_name| by_name.call1((&name,)));
    let found = found.map_err(|error| (error, name.to_string()))?;
    let name = name_of(&found).into();
    Ok((found, name))
}

/// Calls it, and hands over a value that the caller's language reads.
fn run_named(py: Python<'_>, callee: &Bound<'_, PyAny>, on: &mut Invocation<'_>) -> PyResult<()> {
    let result = call_named(py, callee, on, &[])?;
    match on.returns() {
        Returns::One => {
            give_one(py, on, value::encode_portable(&result)?).map_err(|error| not_given(py, error))
        }
        _ => Err(PyTypeError::new_err("a call from another language has one result")),
    }
}

/// An actor in its process.
struct Actor {
    name: String,
    /// `None` once it is dropped.
    state: Option<Py<PyAny>>,
    /// The runner of its calls; `None` if they run one at a time, here.
    runner: Option<Py<PyAny>>,
    /// The methods that were called.
    methods: FxHashMap<String, Method>,
}

/// A method that is a function of the class. Nearly all methods are.
struct Method {
    name: Py<PyString>,
    function: Py<PyAny>,
    /// The name with that of the class.
    shown: Arc<str>,
}

impl Actor {
    /// The function to call with the state in front of the arguments, if the method is such a function.
    fn function_of<'py>(
        &mut self,
        state: &Bound<'py, PyAny>,
        method: &str,
    ) -> PyResult<Option<(Bound<'py, PyAny>, Arc<str>)>> {
        let (py, class) = (state.py(), state.get_type());
        let known = match self.methods.get(method) {
            Some(known) => known,
            None => {
                let function = FUNCTION_OF.get(py)?.call1((&class, method))?;
                if function.is_none() {
                    return Ok(None);
                }
                let (name, shown) = (PyString::intern(py, method).unbind(), self.name_of(method).into());
                let known = Method { name, function: function.unbind(), shown };
                self.methods.entry(method.to_owned()).or_insert(known)
            }
        };
        // The program may have replaced the method.
        let found = class.getattr(known.name.bind(py)).ok();
        let found = found.filter(|found| found.is(&known.function));
        Ok(found.map(|found| (found, known.shown.clone())))
    }

    /// The name of a method for errors.
    fn name_of(&self, method: &str) -> String {
        match short(method) {
            "" => self.name.clone(),
            method => format!("{}.{method}", self.name),
        }
    }
}

/// The name of a method in a header, without the parts after it.
fn short(method: &str) -> &str {
    method.split(['\u{1}', '\u{2}']).next().unwrap_or_default()
}

impl Instance for Actor {
    fn call(&mut self, _method: u32, on: &mut Invocation<'_>) -> Result<(), Failure> {
        Python::attach(|py| {
            label_output(py, &self.name);
            let Some(state) = self.state.as_ref().map(|state| state.bind(py).clone()) else {
                return Err(Failure::Other("a method was called on an actor that has ended".into()));
            };
            let mut method = String::new();
            let outcome = (|| {
                let names;
                (method, names) = header(py, on)?;
                on.set_name(&self.name, short(&method));
                if self.runner.is_none()
                    && let Some((function, shown)) = self.function_of(&state, &method)?
                {
                    set_running(on, &shown, None);
                    let (arguments, keywords) = arguments(py, on, Some(state), &names)?;
                    return give(&function.call(arguments, keywords.as_ref())?, on);
                }
                if self.runner.is_none()
                    && let Some((_, group)) = method.split_once('\u{1}')
                {
                    let text =
                        format!("the actor has no concurrency group {group:?}: it runs one call at a time");
                    return Err(PyValueError::new_err(text));
                }
                let bound = METHOD.get(py)?.call1((state, &method))?;
                let Some(runner) = &self.runner else {
                    set_running(on, &self.name_of(&method).into(), None);
                    let result = call_named(py, &bound, on, &names)?;
                    return give(&result, on);
                };
                let (arguments, keywords) = arguments(py, on, None, &names)?;
                let later = on.later().ok_or_else(|| PyTypeError::new_err("the answer cannot come later"))?;
                let name = self.name_of(&method);
                let running =
                    on.call().map(|(id, attempt)| (id.to_string(), attempt, name.clone(), None::<()>));
                let reply = Bound::new(py, Reply::new(later, name))?;
                let submitted = (&method, bound, arguments, keywords, &reply, running);
                if let Err(error) = runner.call_method1(py, intern!(py, "submit"), submitted) {
                    reply.get().fail(py, error.into_value(py).into_bound(py).into_any())?;
                }
                Ok(())
            })();
            outcome.map_err(|error| failure(py, &self.name_of(&method), &error))
        })
    }

    fn is_concurrent(&self) -> bool {
        self.runner.is_some()
    }

    fn begin(&mut self, method: u32, call: OwnedCall) {
        if !matches!(call.returns(), Returns::Stream(_)) {
            return call.run_queued(|on| self.call(method, on));
        }
        Python::attach(|py| {
            let (Some(state), Some(runner)) = (&self.state, &self.runner) else { return };
            label_output(py, &self.name);
            let method = call.peek(|payload, client| header_of(py, payload, client));
            let method = method.and_then(Result::ok).map_or_else(String::new, |(method, _)| method);
            let stream = StreamCall::new(call, state.clone_ref(py), self.name_of(&method));
            let Ok(stream) = Bound::new(py, stream) else { return };
            if let Err(error) = runner.call_method1(py, intern!(py, "stream"), (&method, &stream)) {
                // If it has begun, it answers itself.
                let _ = stream.get().fail(py, error.into_value(py).into_bound(py).into_any());
            }
        });
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        Python::attach(|py| {
            drop(self.state.take());
            // The process ends without the end of an interpreter.
            let _ = END.get(py).and_then(|end| end.call0());
        });
    }
}

/// Calls the method of an actor that the call names, with the call's arguments.
pub(crate) fn call_method<'py>(
    state: &Bound<'py, PyAny>,
    on: &mut Invocation<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = state.py();
    let (method, names) = header(py, on)?;
    on.set_name(&name_of(&state.get_type()), short(&method));
    let bound = METHOD.get(py)?.call1((state, &method))?;
    call_named(py, &bound, on, &names)
}

/// Calls with the arguments that are left, the last of which have these names.
fn call_named<'py>(
    py: Python<'py>,
    callee: &Bound<'py, PyAny>,
    on: &mut Invocation<'_>,
    names: &[String],
) -> PyResult<Bound<'py, PyAny>> {
    let (arguments, keywords) = arguments(py, on, None, names)?;
    callee.call(arguments, keywords.as_ref())
}

/// The remaining arguments. The last ones have these names. Another argument may stand in front of them.
fn arguments<'py>(
    py: Python<'py>,
    on: &mut Invocation<'_>,
    first: Option<Bound<'py, PyAny>>,
    names: &[String],
) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
    let count = (on.argument_count() - on.taken()) as usize;
    let positional = count.checked_sub(names.len()).ok_or_else(|| {
        PyTypeError::new_err(
            "the call has more names than arguments: was it made by another version of mobula?",
        )
    })?;
    let mut arguments: SmallVec<[_; 8]> = first.into_iter().collect();
    for _ in 0..positional {
        arguments.push(argument(py, on)?);
    }
    let arguments = PyTuple::new(py, arguments)?;
    if names.is_empty() {
        return Ok((arguments, None));
    }
    let keywords = PyDict::new(py);
    for name in names {
        keywords.set_item(name, argument(py, on)?)?;
    }
    Ok((arguments, Some(keywords)))
}

/// The next argument.
fn argument<'py>(py: Python<'py>, on: &mut Invocation<'_>) -> PyResult<Bound<'py, PyAny>> {
    let (payload, client) = next(on)?;
    value::of_payload(py, client, payload)
}

fn skip_argument(on: &mut Invocation<'_>) -> PyResult<()> {
    next(on).map(drop)
}

fn next<'a>(on: &'a mut Invocation<'_>) -> PyResult<(Payload<'a>, &'a Client)> {
    let position = on.taken() + 1;
    let taken = on.next().ok_or_else(|| PyTypeError::new_err(format!("argument {position} is missing")))?;
    taken.map_err(|malformed| PyTypeError::new_err(format!("argument {position}: {malformed}")))
}

/// The method and the names of the header, which is the next argument.
fn header(py: Python<'_>, on: &mut Invocation<'_>) -> PyResult<(String, Vec<String>)> {
    let (payload, client) = next(on)?;
    header_of(py, payload, client)
}

fn header_of(py: Python<'_>, payload: Payload<'_>, client: &Client) -> PyResult<(String, Vec<String>)> {
    let parsed = |text| {
        let (method, names) = Header::parse(text);
        (method.to_owned(), names.map(str::to_owned).collect())
    };
    if let Some(text) = value::text_of_payload(&payload) {
        return Ok(parsed(text));
    }
    // With many arguments, it is in an object.
    let header = value::of_payload(py, client, payload)?;
    Ok(parsed(header.cast::<PyString>()?.to_str()?))
}

fn name_of(callee: &Bound<'_, PyAny>) -> String {
    let name = callee.getattr(intern!(callee.py(), "__qualname__")).and_then(|name| name.extract());
    name.unwrap_or_else(|_| "function".to_owned())
}

/// Hands over what the function has returned, as the caller wants it.
pub(crate) fn give(result: &Bound<'_, PyAny>, on: &mut Invocation<'_>) -> PyResult<()> {
    let (py, returns) = (result.py(), on.returns());
    let Returns::Stream(_) = returns else {
        return give_all(result, returns, &mut |value| give_one(py, on, value));
    };
    for item in result.try_iter()? {
        let encoded = value::encode(&item?)?;
        // SAFETY: the closure has the call, of which nothing is Python's, and the encoded item, whose buffers take the
        // lock by themselves when they are given back.
        let is_wanted = unsafe { without_lock(py, || on.give_item(|out| encoded.write(out))) };
        if !is_wanted.map_err(|error| not_given(py, error))? {
            break;
        }
    }
    give_all(&py.None().into_bound(py), Returns::One, &mut |value| give_one(py, on, value))
}

fn give_one(py: Python<'_>, on: &mut Invocation<'_>, value: Value) -> Result<(), PushError<Failure>> {
    let is_stored = value.is_stored();
    let give = || on.give(|out| value.write(out));
    if !is_stored {
        return give();
    }
    // SAFETY: the closure has the call, of which nothing is Python's, and the encoded value, whose buffers take the
    // lock by themselves when they are given back.
    unsafe { without_lock(py, give) }
}

/// Whether the function is a generator, whose caller wants its first item alone.
fn is_generator(result: &Bound<'_, PyAny>) -> PyResult<bool> {
    let (py, class) = (result.py(), result.get_type());
    Ok(class.is(GENERATOR.get(py)?) || class.is(RETRIED_ITEMS.get(py)?))
}

/// Hands over what the function has returned, in as many parts as the caller wants.
pub(crate) fn give_all(
    result: &Bound<'_, PyAny>,
    returns: Returns,
    give: &mut dyn FnMut(Value) -> Result<(), PushError<Failure>>,
) -> PyResult<()> {
    let py = result.py();
    let mut give_one =
        |part: &Bound<'_, PyAny>| give(value::encode(part)?).map_err(|error| not_given(py, error));
    match returns {
        Returns::One if is_generator(result)? => give_one(&RESULTS.get(py)?.call1((result, 1))?.get_item(0)?),
        Returns::One | Returns::Stream(_) => give_one(result),
        Returns::Tuple(count) | Returns::List(count) => {
            for part in RESULTS.get(py)?.call1((result, count))?.try_iter()? {
                give_one(&part?)?;
            }
            Ok(())
        }
    }
}

fn not_given(py: Python<'_>, error: PushError<Failure>) -> PyErr {
    crate::error::raised(py, Failure::from(error))
}

/// The failure for an exception: its text with the traceback, and itself.
pub(crate) fn failure(py: Python<'_>, name: &str, error: &PyErr) -> Failure {
    let described = DESCRIBE
        .get(py)
        .and_then(|describe| describe.call1((error.value(py), error.traceback(py)))?.extract());
    let (text, pickled): (String, Option<Bound<'_, PyBytes>>) =
        described.unwrap_or_else(|_| (error.to_string(), None));
    let failed = TaskError::new(name, TaskErrorKind::Returned, text);
    match pickled {
        Some(pickled) => failed.with_value(pickled.as_bytes()).into(),
        None => failed.into(),
    }
}

/// Labels the output that follows with the name of a function or an actor.
fn label_output(py: Python<'_>, name: &str) {
    let is_new = LABELLED.with_borrow_mut(|labelled| {
        let is_new = labelled != name;
        if is_new {
            name.clone_into(labelled);
        }
        is_new
    });
    if is_new {
        flush(py);
        label(name);
    }
}

/// Writes out what Python code has printed.
fn flush(py: Python<'_>) {
    // User code may have closed its output, or put something else in its place.
    let _ = FLUSH.get(py).and_then(|flush| flush.call0());
}
