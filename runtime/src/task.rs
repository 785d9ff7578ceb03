//! A call on its way: its options, its encoded arguments, and the slots that its results go to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize};

use mobula_client::Handle;
use serde::Serialize;

use crate::arguments::{Arg, IntoArg, ReturnTuple, SlotOf};
use crate::error::Failure;
use crate::message::Returns;
use crate::object_ref::ObjectRef;
use crate::registry::{Function, Key};
use crate::session;
use crate::slot::{Inline, Settled, Slot};
use crate::value;

/// Options of a call.
///
/// ```
/// # use mobula::TaskOptions;
/// let options = TaskOptions::new().max_retries(3);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TaskOptions {
    pub(crate) max_retries: Option<u32>,
}

impl TaskOptions {
    /// The defaults: no retries.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the call is begun again when the process that runs it dies. Default: 0, at most once. An `Err` or a
    /// panic is a result, and not retried.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// What is not set here, as `defaults` has it.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self { max_retries: self.max_retries.or(defaults.max_retries) }
    }
}

/// The options of a call, where the caller left them open as the attribute has them.
#[doc(hidden)]
pub fn with_defaults(options: TaskOptions, defaults: TaskOptions) -> TaskOptions {
    options.or(defaults)
}

/// What a task runs.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Function {
        key: Key,
        name: &'static str,
    },
    Method {
        actor: u64,
        method: u32,
        class: &'static str,
        name: &'static str,
        /// Keeps the actor alive until the call is over.
        #[expect(dead_code, reason = "held, not read")]
        token: Arc<Handle>,
    },
    /// The start of an actor: its arguments go to the head.
    Constructor {
        actor: u64,
        class: &'static str,
    },
}

impl Target {
    /// As people read it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Function { name, .. } => (*name).to_owned(),
            Self::Method { class, name, .. } => format!("{class}::{name}"),
            Self::Constructor { class, .. } => format!("{class}::new"),
        }
    }
}

/// An argument, encoded.
#[derive(Debug)]
pub(crate) enum TaskArg {
    Inline(Inline),
    Stored(Handle),
    /// The result of another task, resolved before this one is sent.
    Result(Arc<Slot>),
}

/// A call that was made.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) target: Target,
    pub(crate) arguments: Vec<TaskArg>,
    pub(crate) returns: Returns,
    pub(crate) results: Vec<Arc<Slot>>,
    /// Arguments that are still pending, and one more while the task is being submitted.
    pub(crate) unready: AtomicUsize,
    pub(crate) retries_left: AtomicU32,
}

/// Arguments being collected; what the macros' code builds calls with.
#[derive(Debug)]
pub(crate) struct ArgumentList {
    arguments: Vec<TaskArg>,
    failure: Option<Failure>,
}

impl ArgumentList {
    pub(crate) fn new() -> Self {
        Self { arguments: Vec::new(), failure: None }
    }

    pub(crate) fn push<T: Serialize>(&mut self, argument: impl IntoArg<T>) {
        let encoded = match argument.into_arg() {
            Arg::Reference(reference) => Ok(TaskArg::Result(reference.0)),
            Arg::Value(value) => encode_argument(&value),
        };
        match encoded {
            Ok(argument) => self.arguments.push(argument),
            Err(failure) => self.failure = self.failure.take().or(Some(failure)),
        }
    }

    pub(crate) fn finish(self) -> Result<Vec<TaskArg>, Failure> {
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.arguments),
        }
    }
}

fn encode_argument<T: Serialize>(value: &T) -> Result<TaskArg, Failure> {
    let core = session::core()?;
    let encoded = value::encode(value)?;
    match core.inline(&encoded) {
        Some(inline) => Ok(TaskArg::Inline(inline)),
        None => Ok(TaskArg::Stored(core.store(&encoded)?)),
    }
}

/// A call of a remote function, being put together by the macros' code.
#[derive(Debug)]
pub struct Call {
    function: &'static Function,
    options: TaskOptions,
    arguments: ArgumentList,
}

impl Call {
    /// A call without arguments yet.
    pub fn new(function: &'static Function, options: TaskOptions) -> Self {
        Self { function, options, arguments: ArgumentList::new() }
    }

    /// Encodes the next argument: one copy of what is not in the store, into a record if it is small, else into the
    /// store.
    pub fn argument<T: Serialize>(mut self, argument: impl IntoArg<T>) -> Self {
        self.arguments.push(argument);
        self
    }

    /// Makes the call; its result is one object.
    pub fn submit<T>(self) -> ObjectRef<T> {
        ObjectRef::new(self.make(Returns::One).remove(0))
    }

    /// Makes the call; each element of its result is an object.
    pub fn submit_tuple<T: ReturnTuple>(self) -> T::References {
        T::references(self.make(Returns::Tuple(T::COUNT)).into_iter().map(SlotOf).collect())
    }

    /// Makes the call; each of the `count` elements of its result is an object.
    pub fn submit_list<T>(self, count: usize) -> Vec<ObjectRef<T>> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.make(Returns::List(count)).into_iter().map(ObjectRef::new).collect()
    }

    fn make(self, returns: Returns) -> Vec<Arc<Slot>> {
        let target = Target::Function { key: self.function.key(), name: self.function.name };
        submit(target, self.arguments, returns, self.options)
    }
}

/// Makes a call; the slots of its results.
pub(crate) fn submit(
    target: Target,
    arguments: ArgumentList,
    returns: Returns,
    options: TaskOptions,
) -> Vec<Arc<Slot>> {
    let failed = |failure: Failure| {
        (0..returns.count()).map(|_| Slot::settled(Settled::Failed(failure.clone()))).collect::<Vec<_>>()
    };
    let core = match session::core() {
        Ok(core) => core,
        Err(error) => return failed(error.into()),
    };
    let arguments = match arguments.finish() {
        Ok(arguments) => arguments,
        Err(failure) => return failed(failure),
    };
    let results: Vec<_> = (0..returns.count()).map(|_| Slot::pending()).collect();
    let task = Task {
        id: core.submitter.next_id(),
        target,
        arguments,
        returns,
        results: results.clone(),
        unready: AtomicUsize::new(1),
        retries_left: AtomicU32::new(options.max_retries.unwrap_or(0)),
    };
    core.submit(Arc::new(task));
    results
}
