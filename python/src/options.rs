//! The options of calls and actors, as the package hands them over: built once, used by many calls.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;

use crate::placement::Place;

/// Sets the options that were given, each by the setter of its name.
macro_rules! set_given {
    ($options:ident: $($name:ident),+) => {
        $(if let Some(value) = $name {
            $options = $options.$name(value);
        })+
    };
}

type Amounts = Option<HashMap<String, f64>>;

/// Options of a call.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct TaskOptions {
    pub(crate) of_core: mobula_runtime::TaskOptions,
    /// The text for the worker in front of the arguments: the number of calls of the function after which the worker
    /// ends, or nothing; then, after the character 1, the data that the call may ask for.
    pub(crate) header: String,
}

#[pymethods]
impl TaskOptions {
    #[new]
    #[pyo3(signature = (
        *, num_cpus, num_gpus, memory, resources, max_calls, max_retries, retry_exceptions, retry_delay, timeout,
        deadline, env_vars, working_dir, told, placement=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        num_cpus: Option<f64>,
        num_gpus: Option<f64>,
        memory: Option<u64>,
        resources: Amounts,
        max_calls: u32,
        max_retries: Option<i64>,
        retry_exceptions: Option<bool>,
        retry_delay: Option<f64>,
        timeout: Option<f64>,
        deadline: Option<f64>,
        env_vars: Option<HashMap<String, String>>,
        working_dir: Option<PathBuf>,
        told: Option<&str>,
        placement: Option<Place>,
    ) -> PyResult<Self> {
        let placement = placement.map(|place| crate::placement::placement(py, place)).transpose()?;
        let mut options = mobula_runtime::TaskOptions::new();
        let max_retries = max_retries.map(times);
        let [retry_delay, timeout, deadline] = [retry_delay, timeout, deadline].map(duration);
        set_given!(options: num_cpus, num_gpus, memory, resources, max_retries, retry_exceptions, retry_delay);
        set_given!(options: timeout, deadline, env_vars, working_dir, placement);
        let mut header = if max_calls == 0 { String::new() } else { max_calls.to_string() };
        if let Some(told) = told {
            header.push('\u{1}');
            header.push_str(told);
        }
        Ok(Self { of_core: options, header })
    }
}

/// Options of an actor.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct ActorOptions(pub(crate) mobula_runtime::ActorOptions);

#[pymethods]
impl ActorOptions {
    #[new]
    #[pyo3(signature = (
        *, name, namespace, get_if_exists, detached, max_pending_calls, num_cpus, num_gpus, memory, resources,
        max_restarts, max_task_retries, env_vars, working_dir, placement=None, description=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        name: Option<String>,
        namespace: Option<String>,
        get_if_exists: Option<bool>,
        detached: bool,
        max_pending_calls: Option<u32>,
        num_cpus: Option<f64>,
        num_gpus: Option<f64>,
        memory: Option<u64>,
        resources: Amounts,
        max_restarts: Option<i64>,
        max_task_retries: Option<i64>,
        env_vars: Option<HashMap<String, String>>,
        working_dir: Option<PathBuf>,
        placement: Option<Place>,
        description: Option<String>,
    ) -> PyResult<Self> {
        let placement = placement.map(|place| crate::placement::placement(py, place)).transpose()?;
        let mut options = mobula_runtime::ActorOptions::new();
        let (max_restarts, max_task_retries) = (max_restarts.map(times), max_task_retries.map(times));
        let lifetime = detached.then_some(mobula_runtime::Lifetime::Detached);
        set_given!(options: name, namespace, get_if_exists, lifetime, max_pending_calls);
        set_given!(options: num_cpus, num_gpus, memory, resources, max_restarts, max_task_retries);
        set_given!(options: env_vars, working_dir, placement, description);
        Ok(Self(options))
    }
}

/// The options of the calls of a method: the most seconds that a call may run, the most that it may take from its
/// making to its end, and how often it is retried when its process dies.
pub(crate) type OfMethod = (Option<f64>, Option<f64>, Option<i64>);

/// These options for the core.
pub(crate) fn method_options((timeout, deadline, retries): OfMethod) -> mobula_runtime::MethodOptions {
    let mut options = mobula_runtime::MethodOptions::new();
    let [timeout, deadline] = [timeout, deadline].map(duration);
    let max_task_retries = retries.map(times);
    set_given!(options: timeout, deadline, max_task_retries);
    options
}

/// A time in seconds; `None`, which is no limit, also if it is longer than any clock runs.
fn duration(seconds: Option<f64>) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds?).ok()
}

/// A number of times, which is -1 where there is no limit.
fn times(times: i64) -> u32 {
    u32::try_from(times).unwrap_or(mobula_runtime::UNLIMITED)
}
