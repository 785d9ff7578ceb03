//! A remote function or method that failed.

use std::cell::Cell;
use std::error::Error as StdError;
use std::fmt;
use std::iter;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Failure;

/// Bytes of an error message that travel; longer ones are cut.
const MESSAGE_BYTES_MAX: usize = 4096;
/// A longer encoded error does not travel.
const VALUE_BYTES_MAX: usize = 8 << 10;
/// Sources of an error that its message shows.
const SOURCES_MAX: usize = 64;
/// The most errors that an error keeps of tasks that failed with each other's failure.
const CAUSES_MAX: usize = 64;

/// How a remote function or method failed.
///
/// ```
/// use mobula::{Error, TaskErrorKind};
///
/// #[mobula::remote]
/// fn checked(x: i64) -> Result<i64, String> {
///     if x > 100 { Err(format!("{x} is too large")) } else { Ok(100 / x) }
/// }
///
/// let _mobula = mobula::init()?;
/// let kind = |result: mobula::Result<i64>| match result {
///     Err(Error::Task(error)) => Some(error.kind),
///     _ => None,
/// };
/// assert_eq!(kind(checked::remote(5).get()), None);
/// assert_eq!(kind(checked::remote(101).get()), Some(TaskErrorKind::Returned));
/// assert_eq!(kind(checked::remote(0).get()), Some(TaskErrorKind::Panicked));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskErrorKind {
    /// It returned an `Err`.
    Returned,
    /// It panicked.
    Panicked,
    /// It could not be called: an argument did not decode, or the function is not registered.
    NotCalled,
    /// Its result could not be encoded or stored.
    NotReturned,
    /// It kept its reply, and dropped it without an answer.
    NotAnswered,
}

/// The error of a remote function or method: where it failed, how, and its own message.
///
/// ```
/// use mobula::{Error, TaskErrorKind};
///
/// #[mobula::remote]
/// fn port(text: String) -> Result<u16, std::num::ParseIntError> {
///     text.parse()
/// }
///
/// let _mobula = mobula::init()?;
/// let Err(Error::Task(error)) = port::remote("80800".to_owned()).get() else { panic!("it fits no u16") };
/// assert_eq!(error.kind, TaskErrorKind::Returned);
/// assert!(error.function.ends_with("port"));
/// assert_ne!(error.pid, std::process::id()); // it ran in another process
/// assert_eq!(error.message, "number too large to fit in target type");
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskError {
    /// The function, with its module, or `Class::method`.
    pub function: String,
    /// The process that ran it.
    pub pid: u32,
    /// How it failed.
    pub kind: TaskErrorKind,
    /// The error's `Display` with its sources, or the panic's message.
    pub message: String,
    /// The error in the front's own language, in that front's encoding. Other fronts cannot read it. The Rust front has
    /// none.
    #[doc(hidden)]
    pub value: Option<Arc<[u8]>>,
    /// The failure that caused this one. If the function returned a [`mobula::Error`](super::Error) that it got from
    /// another task, it is that task's failure. If the store had no room for a value that the function put or returned,
    /// it is the store's.
    pub cause: Option<Box<Failure>>,
}

impl TaskError {
    /// An error of this process: for fronts, and for tests of code that handles errors. A message of more than 4 KiB is
    /// cut.
    ///
    /// ```
    /// use mobula::{TaskError, TaskErrorKind};
    ///
    /// let error = TaskError::new("fetch", TaskErrorKind::Returned, "not found".to_owned());
    /// assert_eq!(error.to_string(), format!("fetch failed in process {}: not found", std::process::id()));
    /// ```
    #[must_use]
    pub fn new(function: &str, kind: TaskErrorKind, mut message: String) -> Self {
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message.push('…');
        }
        Self {
            function: function.to_owned(),
            pid: std::process::id(),
            kind,
            message,
            value: None,
            cause: None,
        }
    }

    /// Adds the error in the encoding of the front's own language. A value that is too long for a record is
    /// left out: then only the text travels.
    #[doc(hidden)]
    #[must_use]
    pub fn with_value(mut self, value: &[u8]) -> Self {
        self.value = (value.len() <= VALUE_BYTES_MAX).then(|| value.into());
        self
    }

    /// Adds the failure that it comes from.
    ///
    /// ```
    /// use std::error::Error;
    /// use mobula::{Failure, TaskError, TaskErrorKind};
    ///
    /// let error = TaskError::new("fetch", TaskErrorKind::Returned, "no name".to_owned());
    /// let error = error.caused_by(Failure::NoSuchActor { name: "cache".to_owned() });
    /// assert!(error.source().is_some_and(|source| source.to_string().contains("\"cache\"")));
    /// ```
    #[must_use]
    pub fn caused_by(self, cause: impl Into<Failure>) -> Self {
        Self { cause: Some(Box::new(cause.into())), ..self }
    }

    /// The error that a function returned. `error` is the same error with its sources, if it has any. If one of them
    /// comes from an operation of the runtime, it is the cause. The message has the texts of all sources.
    ///
    /// ```
    /// use mobula::TaskError;
    ///
    /// let invalid = "x".parse::<u8>().unwrap_err();
    /// assert_eq!(TaskError::returned(&invalid, Some(&invalid)).message, "invalid digit found in string");
    /// assert_eq!(TaskError::returned(&"a text", None).message, "a text");
    /// ```
    #[must_use]
    pub fn returned<E: fmt::Display>(shown: &E, error: Option<&(dyn StdError + 'static)>) -> Self {
        // The alternate form shows the sources of errors that know how.
        let mut message = format!("{shown:#}");
        let mut cause = error.and_then(Failure::of);
        let source = error.and_then(StdError::source);
        for source in iter::successors(source, |source| (**source).source()).take(SOURCES_MAX) {
            let text = source.to_string();
            if !message.ends_with(&text) && !message.contains(&format!("{text}: ")) {
                message = format!("{message}: {text}");
            }
            cause = cause.or_else(|| Failure::of(source));
        }
        let task = Self { cause: cause.map(Box::new), ..Self::new("", TaskErrorKind::Returned, message) };
        task.cut()
    }

    /// A copy with no more causes than travel.
    pub(super) fn cut(&self) -> Self {
        let (errors, end) = self.errors();
        ErrorInChain::join(errors, end.cloned())
            .expect("there is at least one error, and no more than allowed")
    }

    /// The chain of causes: the errors of the tasks that failed with each other's failure, from this one on, and the
    /// failure at its end.
    fn errors(&self) -> (Vec<ErrorInChain>, Option<&Failure>) {
        let mut errors = vec![ErrorInChain::of(None, self)];
        let mut cause = self.cause.as_deref();
        let end = loop {
            let (class, error) = match cause {
                Some(Failure::Task(error)) => (None, error),
                Some(Failure::ConstructorFailed { class, error }) => (Some(class), error),
                end => break end,
            };
            if errors.len() > CAUSES_MAX {
                break None;
            }
            errors.push(ErrorInChain::of(class, error));
            cause = error.cause.as_deref();
        };
        (errors, end)
    }
}

/// An error without its cause. A chain of errors travels as a list of these, so that a long chain needs no deep
/// recursion to read or write.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ErrorInChain {
    /// The actor's class, if this is the constructor's error that caused the error before it.
    class: Option<String>,
    function: String,
    pid: u32,
    kind: TaskErrorKind,
    message: String,
    value: Option<Arc<[u8]>>,
}

impl ErrorInChain {
    fn of(class: Option<&String>, error: &TaskError) -> Self {
        let TaskError { function, pid, kind, message, value, cause: _ } = error;
        let (function, message, value) = (function.clone(), message.clone(), value.clone());
        Self { class: class.cloned(), function, pid: *pid, kind: *kind, message, value }
    }

    /// The first error of the list. Each error is caused by the next one, and the last one by the failure. `None` if
    /// the list is empty or too long.
    fn join(errors: Vec<Self>, end: Option<Failure>) -> Option<TaskError> {
        if errors.len() > CAUSES_MAX + 1 {
            return None;
        }
        let mut errors = errors.into_iter();
        let first = errors.next()?;
        let cause = errors.rfold(end, |cause, mut each| {
            let class = each.class.take();
            let error = each.into_error(cause);
            Some(match class {
                Some(class) => Failure::ConstructorFailed { class, error },
                None => Failure::Task(error),
            })
        });
        Some(first.into_error(cause))
    }

    fn into_error(self, cause: Option<Failure>) -> TaskError {
        let Self { class: _, function, pid, kind, message, value } = self;
        TaskError { function, pid, kind, message, value, cause: cause.map(Box::new) }
    }
}

impl Serialize for TaskError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.errors().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TaskError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let _reading =
            Reading::begin().ok_or_else(|| de::Error::custom("a task's error within another one"))?;
        let (errors, end) = Deserialize::deserialize(deserializer)?;
        ErrorInChain::join(errors, end)
            .ok_or_else(|| de::Error::custom("a task's error without an error, or with too many causes"))
    }
}

thread_local! {
    static IS_READING: Cell<bool> = const { Cell::new(false) };
}

/// Marks that this thread is reading a task's error. The failure at the end of the list contains no task's error,
/// because all of them are in the list. If it does contain one, it was forged to cause deep recursion.
struct Reading;

impl Reading {
    fn begin() -> Option<Self> {
        (!IS_READING.replace(true)).then(|| Self)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        IS_READING.set(false);
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, pid, kind, message, .. } = self;
        let verb = match kind {
            TaskErrorKind::Returned => "failed",
            TaskErrorKind::Panicked => "panicked",
            TaskErrorKind::NotCalled => "could not be called",
            TaskErrorKind::NotReturned => "returned a value that could not be stored or sent",
            TaskErrorKind::NotAnswered => "did not answer",
        };
        write!(f, "{function} {verb} in process {pid}: {message}")
    }
}

impl StdError for TaskError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
