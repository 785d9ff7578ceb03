//! Runs user code and handles its failures: a panic becomes an error, a panic in a destructor does not end the process,
//! and an error gets the name of the function.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mobula_runtime::{Failure, TaskError, TaskErrorKind};

/// Runs user code. A panic becomes an error.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(panic)))
}

/// The failure for a caught panic.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Failure {
    let message = panic_message(&*panic);
    drop_guarded(panic);
    TaskError::new("", TaskErrorKind::Panicked, message).into()
}

/// Drops a value of user code. Its destructor may panic, and the destructor of the panic's value may panic, too.
pub(super) fn drop_guarded<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        std::mem::forget(panic);
    }
}

/// Adds the function's name to errors of user code.
pub(crate) fn named(name: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Task(mut error) if error.function.is_empty() => {
            name.clone_into(&mut error.function);
            error.into()
        }
        failure => failure,
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".into())
}

/// The failure if the worker does not have the function or class that a call names.
pub(super) fn not_registered(what: &str) -> Failure {
    let message = format!("the {what} is not registered in this worker: is it another build of the program?");
    TaskError::new(what, TaskErrorKind::NotCalled, message).into()
}
