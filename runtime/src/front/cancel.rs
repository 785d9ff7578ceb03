//! Cancelling calls, and asking whether the running call was cancelled.

use std::task::{Context, Poll};

use rustc_hash::FxHashSet;

use crate::call::task::Target;
use crate::error::{Error, Result};
use crate::front::reference::{Ref, check_session};
use crate::mail::waiters::Mail;
use crate::runtime::{Runtime, current};

/// How calls are cancelled.
///
/// ```
/// use mobula::CancelOptions;
///
/// #[mobula::remote]
/// fn spins() {
///     loop {}
/// }
///
/// let _mobula = mobula::Builder::new().workers(1).init()?;
/// let call = spins::remote();
/// mobula::cancel_with([&call], CancelOptions::new().force(true))?; // its worker ends, and another takes its place
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "options have no effect before calls are cancelled with them"]
pub struct CancelOptions {
    force: bool,
    recursive: bool,
}

impl Default for CancelOptions {
    fn default() -> Self {
        Self { force: false, recursive: true }
    }
}

impl CancelOptions {
    /// The defaults: a running call is told, and so are the calls that it made.
    ///
    /// ```
    /// let options = mobula::CancelOptions::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the worker of a running call is ended. The calls behind it go to other workers. Not for calls of actors.
    /// Default: no.
    ///
    /// ```
    /// let options = mobula::CancelOptions::new().force(true);
    /// ```
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// Whether the calls that a running call made are cancelled too. Default: yes.
    ///
    /// ```
    /// let options = mobula::CancelOptions::new().recursive(false);
    /// ```
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }
}

/// Cancels the calls whose results these are. Those of another process are cancelled by that process, when it has read
/// the record that this one sends.
///
/// # Errors
/// [`Error::Config`] where a call of an actor is cancelled with force; nothing is cancelled then.
/// [`Failure::SessionOver`](crate::Failure::SessionOver); [`Failure::Unreachable`](crate::Failure::Unreachable) when
/// there is no room for a channel to another process.
pub fn cancel(runtime: &Runtime, refs: &[Ref], options: CancelOptions) -> Result<()> {
    check_session(runtime, refs)?;
    let (mut tasks, mut of_others) = (FxHashSet::default(), Vec::new());
    for reference in refs.iter().filter(|reference| !reference.is_ready()) {
        match reference.foreign_promise().map(|promise| promise.id()) {
            // A reference to a result of this process may have come back inside a value.
            Some(promise) if promise.owner() == runtime.client.id() => {
                tasks.extend(runtime.submitter.promised_call(promise));
            }
            Some(promise) => of_others.push(promise),
            None => tasks.extend(reference.task()),
        }
    }
    let CancelOptions { force, recursive } = options;
    if force
        && runtime
            .submitter
            .any(&|task| tasks.contains(&task.id) && matches!(task.target, Target::Method { .. }))
    {
        let expected = "false where calls of actors are cancelled: end the actor instead (`kill`)";
        return Err(Error::Config { field: "force", value: "true".into(), expected: expected.into() });
    }
    if !tasks.is_empty() {
        runtime.submitter.cancel(&|task| tasks.contains(&task.id), force, recursive);
        runtime.submitter.wake_futures();
    }
    Ok(runtime.submitter.cancel_of_others(&of_others, force, recursive)?)
}

/// Whether the call that runs in this process was cancelled. Looks at the mail.
#[must_use]
pub fn is_cancelled() -> bool {
    current::runtime()
        .is_ok_and(|runtime| runtime.executor.is_some() && (runtime.look(), runtime.is_cancelled()).1)
}

/// Waits as a future until the call that runs in this process is cancelled.
pub fn poll_cancelled(context: &mut Context<'_>) -> Poll<()> {
    let Ok(runtime) = current::runtime() else { return Poll::Pending };
    let Some(executor) = &runtime.executor else { return Poll::Pending };
    executor.wake_when_cancelled(context.waker());
    if is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
}
