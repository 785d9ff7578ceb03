//! The session of this process: there is one at a time, and other parts of the program may join it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use mobula_client::ClientError;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Running;
use crate::error::{Error, Result};

static CURRENT: Mutex<Current> = Mutex::new(Current::None);
static CHANGED: Condvar = Condvar::new();
/// The id of the process whose session that is; 0: there is none. A forked child has a copy of both.
static PROCESS: AtomicU32 = AtomicU32::new(0);

enum Current {
    None,
    Starting,
    /// A session runs until its last guard is dropped. From then on it ends.
    Running(Weak<Running>),
}

impl Current {
    fn session(&self) -> Option<Arc<Running>> {
        match self {
            Self::Running(session) => session.upgrade(),
            _ => None,
        }
    }
}

/// Starts a session; an error if there is one.
pub(super) fn start(start: impl FnOnce() -> Result<Running>) -> Result<Arc<Running>> {
    check_process()?;
    let current = CURRENT.lock();
    if !matches!(*current, Current::None) {
        return Err(Error::AlreadyInitialized);
    }
    begin(current, start)
}

/// Joins the session of this process, or starts one. Waits for a session that starts or ends.
pub(super) fn start_or_join(start: impl FnOnce() -> Result<Running>) -> Result<Arc<Running>> {
    check_process()?;
    let mut current = CURRENT.lock();
    while !matches!(*current, Current::None) {
        if let Some(session) = current.session() {
            return Ok(session);
        }
        CHANGED.wait(&mut current);
    }
    begin(current, start)
}

/// In a forked child, the session is its parent's: nobody there ends it, nor what is starting or ending. Looked at
/// before the lock, which a thread of the parent may have had.
fn check_process() -> Result<()> {
    let process = PROCESS.load(Ordering::Acquire);
    if process == 0 || process == std::process::id() { Ok(()) } else { Err(ClientError::ForkedChild.into()) }
}

fn begin(
    mut current: MutexGuard<'_, Current>,
    start: impl FnOnce() -> Result<Running>,
) -> Result<Arc<Running>> {
    PROCESS.store(std::process::id(), Ordering::Release);
    *current = Current::Starting;
    drop(current);
    let failed = Failed;
    let session = Arc::new(start()?);
    std::mem::forget(failed);
    *CURRENT.lock() = Current::Running(Arc::downgrade(&session));
    CHANGED.notify_all();
    Ok(session)
}

/// Dropped after a start that failed or panicked, it lets the next session start.
struct Failed;

impl Drop for Failed {
    fn drop(&mut self) {
        ended();
    }
}

/// The session has ended: the next one can start.
pub(super) fn ended() {
    let mut current = CURRENT.lock();
    *current = Current::None;
    PROCESS.store(0, Ordering::Release);
    drop(current);
    CHANGED.notify_all();
}
