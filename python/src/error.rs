//! Errors of the core as Python's exceptions: the classes are in `mobula.exceptions`.

use mobula_client::{ClientError, Refusal};
use mobula_runtime::{ActorEnd, Error, ExitReason, Failure, StoreFailure, TaskError, TaskErrorKind};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::interpreter::Attribute;

static OF_TASK: Attribute = Attribute::new("mobula.exceptions", "_of_task");
static OF_KIND: Attribute = Attribute::new("mobula.exceptions", "_of_kind");

/// The exception for an error.
pub(crate) fn raised(py: Python<'_>, error: impl Into<Error>) -> PyErr {
    let error = error.into();
    let exception = match &error {
        Error::Task(error) => of_task(py, error),
        Error::Failed(failure) => of_failure(py, failure),
        Error::Timeout { .. } => of_kind(py, "GetTimeoutError", &error.to_string()),
        Error::NotInitialized => {
            let text = "mobula is not initialized: call `mobula.init()` first";
            of_kind(py, "RaySystemError", text)
        }
        Error::AlreadyInitialized => {
            let text = "mobula is already initialized in this process: call `mobula.shutdown()` first, or \
                        `mobula.init(ignore_reinit_error=True)`";
            of_kind(py, "RuntimeError", text)
        }
        Error::InWorker => of_kind(py, "RuntimeError", &error.to_string()),
        Error::NotInActor => of_kind(py, "TypeError", "exit_actor API is called on a non-actor worker."),
        Error::Config { .. } | Error::NoSuchActor { .. } | Error::WrongActorClass { .. } => {
            of_kind(py, "ValueError", &error.to_string())
        }
        Error::Store(error) => of_store(py, &error.into(), &error.to_string()),
        _ => of_kind(py, "RaySystemError", &error.to_string()),
    };
    exception.unwrap_or_else(|error| error)
}

fn of_failure(py: Python<'_>, failure: &Failure) -> PyResult<PyErr> {
    let text = failure.to_string();
    let kind = match failure {
        Failure::Task(error) => return of_task(py, error),
        Failure::Store { kind, .. } => return of_store(py, kind, &text),
        Failure::WorkerDied { reason: ExitReason::OutOfMemory { .. }, .. }
        | Failure::ActorDied {
            cause: ActorEnd::Process { reason: ExitReason::OutOfMemory { .. }, .. },
            ..
        } => "OutOfMemoryError",
        Failure::PlacementGroupRemoved
        | Failure::WorkerDied { reason: ExitReason::PlacementGroupRemoved, .. } => {
            "TaskPlacementGroupRemoved"
        }
        Failure::ActorDied { cause: ActorEnd::PlacementGroupRemoved, .. } => "ActorPlacementGroupRemoved",
        Failure::WorkerDied { .. } | Failure::NoWorkers { .. } => "WorkerCrashedError",
        Failure::ActorDied { cause: ActorEnd::Killed, .. } => {
            // Programs look for Ray's words.
            let text = format!("{text}. The actor is dead because it was killed by `ray.kill`.");
            return of_kind(py, "ActorDiedError", &text);
        }
        Failure::ActorDied { cause: ActorEnd::Exited, .. } => {
            let text = text.replace("`terminate`", "`__ray_terminate__`");
            return of_kind(py, "ActorDiedError", &text);
        }
        Failure::Deadlock { .. } => "DeadlockError",
        Failure::PendingCallsLimitExceeded { .. } => "PendingCallsLimitExceeded",
        Failure::ActorDied { .. } | Failure::ConstructorFailed { .. } => "ActorDiedError",
        Failure::ActorUnavailable { .. } | Failure::Unreachable { .. } => "ActorUnavailableError",
        Failure::TaskCancelled { .. } | Failure::Cancelled => "TaskCancelledError",
        Failure::TaskTimedOut { .. } => "TaskTimedOutError",
        Failure::Timeout { .. } => "GetTimeoutError",
        Failure::ObjectLost { .. } | Failure::ItemsLost { .. } => "ObjectLostError",
        Failure::NameTaken { .. }
        | Failure::NameTooLong { .. }
        | Failure::NoSuchActor { .. }
        | Failure::WrongActorClass { .. }
        | Failure::BadOption { .. }
        | Failure::NeverFits { .. }
        | Failure::NeverFitsBundle { .. }
        | Failure::TooManyArguments { .. } => "ValueError",
        _ => "RaySystemError",
    };
    of_kind(py, kind, &text)
}

fn of_store(py: Python<'_>, kind: &StoreFailure, text: &str) -> PyResult<PyErr> {
    let kind = match kind {
        StoreFailure::Refused(
            Refusal::StoreFull { .. } | Refusal::TooLarge { .. } | Refusal::NoMemory { .. },
        ) => "ObjectStoreFullError",
        StoreFailure::Object { .. } => "ObjectLostError",
        StoreFailure::ForkedChild => "RuntimeError",
        _ => "RaySystemError",
    };
    of_kind(py, kind, text)
}

fn of_task(py: Python<'_>, error: &TaskError) -> PyResult<PyErr> {
    // The worker died under a call that this call waited for, and so on: the cause says it better.
    let value = error.value.as_deref().map(|value| PyBytes::new(py, value));
    let did_run = matches!(error.kind, TaskErrorKind::Returned | TaskErrorKind::Panicked);
    let text = if did_run { error.message.clone() } else { error.to_string() };
    let exception = OF_TASK.get(py)?.call1((&error.function, error.pid, text, value))?;
    Ok(PyErr::from_value(exception))
}

fn of_kind(py: Python<'_>, kind: &str, text: &str) -> PyResult<PyErr> {
    Ok(PyErr::from_value(OF_KIND.get(py)?.call1((kind, text))?))
}

/// The exception for an error of the store's client.
pub(crate) fn raised_by_store(py: Python<'_>, error: ClientError) -> PyErr {
    raised(py, Error::Store(error))
}
