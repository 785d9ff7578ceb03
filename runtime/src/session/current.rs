//! The session of this process: there is one at a time, and other parts of the program may join it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use mobula_client::ClientError;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::running::Running;
use crate::error::{Error, Result};

static STATE: Mutex<State> = Mutex::new(State::None);
static CHANGED: Condvar = Condvar::new();
/// The id of the process whose session that is; 0: there is none. A forked child has a copy of both.
static PROCESS: AtomicU32 = AtomicU32::new(0);

enum State {
    None,
    Starting,
    /// A session runs until its last guard is dropped. From then on it ends.
    Running(Weak<Current>),
}

impl State {
    fn session(&self) -> Option<Arc<Current>> {
        match self {
            Self::Running(session) => session.upgrade(),
            _ => None,
        }
    }
}

/// The session of this process. The next one can start when this one has ended.
pub(super) struct Current {
    pub(super) running: Running,
    // Behind the session, so that it is dropped when the session has ended.
    pub(super) claim: SessionClaim,
}

/// The claim of the only session of this process, from its start, which may fail, to its end.
pub(super) struct SessionClaim;

impl SessionClaim {
    fn take(mut state: MutexGuard<'_, State>) -> Self {
        PROCESS.store(std::process::id(), Ordering::Release);
        *state = State::Starting;
        Self
    }
}

impl Drop for SessionClaim {
    fn drop(&mut self) {
        // A forked child has a copy of its parent's session, whose claim is the parent's.
        if check_process().is_err() {
            return;
        }
        let mut state = STATE.lock();
        *state = State::None;
        PROCESS.store(0, Ordering::Release);
        drop(state);
        CHANGED.notify_all();
    }
}

/// Starts a session; an error if there is one.
pub(super) fn start(start: impl FnOnce() -> Result<Running>) -> Result<Arc<Current>> {
    check_process()?;
    let state = STATE.lock();
    if !matches!(*state, State::None) {
        return Err(Error::AlreadyInitialized);
    }
    start_in(SessionClaim::take(state), start)
}

/// Joins the session of this process, or starts one. Waits for a session that starts or ends.
pub(super) fn start_or_join(start: impl FnOnce() -> Result<Running>) -> Result<Arc<Current>> {
    check_process()?;
    let mut state = STATE.lock();
    while !matches!(*state, State::None) {
        if let Some(session) = state.session() {
            return Ok(session);
        }
        CHANGED.wait(&mut state);
    }
    start_in(SessionClaim::take(state), start)
}

/// In a forked child, the session belongs to its parent: the child must not end it, and must not wait for a start or an
/// end. This is checked before the lock is taken, because a thread of the parent may have held it.
fn check_process() -> Result<()> {
    let process = PROCESS.load(Ordering::Acquire);
    if process == 0 || process == std::process::id() { Ok(()) } else { Err(ClientError::ForkedChild.into()) }
}

fn start_in(claim: SessionClaim, start: impl FnOnce() -> Result<Running>) -> Result<Arc<Current>> {
    let session = Arc::new(Current { running: start()?, claim });
    *STATE.lock() = State::Running(Arc::downgrade(&session));
    CHANGED.notify_all();
    Ok(session)
}
