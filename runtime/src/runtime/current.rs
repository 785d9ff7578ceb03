//! The [`Runtime`] of this process: there is one at a time, from the start of a session to its end.

use std::ops::Deref;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::{ArcSwapOption, Guard};
use mobula_client::ClientError;
use mobula_client::internal::explained;

use super::Runtime;
use crate::error::{Error, Failure, Result};
use crate::session_number::SessionNumber;
use crate::submit;

static RUNTIME: ArcSwapOption<Runtime> = ArcSwapOption::const_empty();

/// The runtime of this process, borrowed without a change of its reference count.
#[derive(Debug)]
pub struct RuntimeRef(Guard<Option<Arc<Runtime>>>);

impl Deref for RuntimeRef {
    type Target = Arc<Runtime>;

    #[inline]
    fn deref(&self) -> &Arc<Runtime> {
        self.0.as_ref().expect("there was one when it was borrowed, and what is borrowed does not change")
    }
}

/// The runtime of this process.
///
/// # Errors
/// [`Error::NotInitialized`], [`Error::ThreadEnding`]; [`ClientError::ForkedChild`].
pub fn runtime() -> Result<RuntimeRef> {
    let runtime = RUNTIME.load();
    let client = runtime.as_ref().map(|runtime| &runtime.client).ok_or(Error::NotInitialized)?;
    if client.is_forked_child() {
        return Err(ClientError::ForkedChild.into());
    }
    if !submit::is_there() {
        return Err(Error::ThreadEnding);
    }
    Ok(RuntimeRef(runtime))
}

/// The runtime of this process, for a reference or an actor of the session with this number.
///
/// # Errors
/// As [`runtime`], and [`Failure::SessionOver`] when the session has ended.
pub fn runtime_of(session: SessionNumber) -> Result<RuntimeRef> {
    match runtime() {
        Ok(runtime) if runtime.is_of(session) => Ok(runtime),
        Err(Error::NotInitialized) if session == SessionNumber::NONE => Err(Error::NotInitialized),
        Ok(_) | Err(Error::NotInitialized) => Err(Failure::SessionOver.into()),
        Err(error) => Err(error),
    }
}

/// The number of the session that this process has now.
pub fn number() -> SessionNumber {
    RUNTIME.load().as_ref().map_or(SessionNumber::NONE, |runtime| runtime.session)
}

/// Whether this process has a session: its own, or, in a worker, its driver's. Costs a load.
///
/// ```
/// assert!(!mobula::is_initialized());
/// let session = mobula::init()?;
/// assert!(mobula::is_initialized());
/// drop(session);
/// assert!(!mobula::is_initialized());
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use]
pub fn is_initialized() -> bool {
    RUNTIME.load().is_some()
}

/// Whether this process is a worker of a session.
pub(crate) fn is_worker() -> bool {
    RUNTIME.load().as_ref().is_some_and(|runtime| runtime.executor.is_some())
}

/// Makes `runtime` the runtime of this process, and starts its background poller.
pub(crate) fn start(runtime: &Arc<Runtime>) -> Result<JoinHandle<()>> {
    RUNTIME.store(Some(runtime.clone()));
    let poller = runtime.clone();
    std::thread::Builder::new()
        .name("mobula-poller".into())
        .stack_size(512 << 10)
        .spawn(move || poller.run_poller())
        .map_err(|error| Error::Start(explained(&error)))
}

/// From now on this process has no runtime.
pub(crate) fn forget() {
    RUNTIME.store(None);
}
