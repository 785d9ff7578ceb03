//! Errors that end the command with an exit code of their own.

use std::error::Error;
use std::fmt;

use mobula_runtime::control::ControlError;
use mobula_runtime::state::NoSuchTarget;

/// The exit codes of commands that name a process, an actor or a call.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  it is done
  1  the session cannot be asked
  2  the words on the command line make no sense
  3  there is no such call, process or actor, or it is over
  4  it cannot be done to this one: the message says what can
  5  nobody has answered in time; it may still be done";

/// An error with its exit code.
#[derive(Debug)]
pub(crate) struct Exit {
    code: u8,
    text: String,
}

impl Exit {
    /// The words on the command line make no sense.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { code: 2, text: text.into() }
    }

    /// There is no such call, process or actor, or it is over.
    pub(crate) fn over(text: impl Into<String>) -> Self {
        Self { code: 3, text: text.into() }
    }

    /// It cannot be done to this one. The text says what can.
    pub(crate) fn impossible(text: impl Into<String>) -> Self {
        Self { code: 4, text: text.into() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Exit {}

/// The exit code for an error.
pub(crate) fn code(error: &(dyn Error + 'static)) -> u8 {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        return exit.code;
    }
    match error.downcast_ref::<ControlError>() {
        Some(ControlError::NoSuchTarget(_) | ControlError::Over { .. }) => 3,
        Some(
            ControlError::Ambiguous { .. } | ControlError::IsDriver { .. } | ControlError::IsOfActor { .. },
        ) => 4,
        Some(ControlError::NoAnswer { .. }) => 5,
        None if error.is::<NoSuchTarget>() => 3,
        _ => 1,
    }
}
