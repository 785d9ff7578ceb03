//! The session of this process: one at a time, which others of the process may join.

use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};

use super::Running;
use crate::error::{Error, Result};

static CURRENT: Mutex<Current> = Mutex::new(Current::None);
static CHANGED: Condvar = Condvar::new();

enum Current {
    None,
    Starting,
    /// Until its last guard is dropped; from there on it ends.
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

/// Starts a session, if there is none.
pub(super) fn start(start: impl FnOnce() -> Result<Running>) -> Result<Arc<Running>> {
    let mut current = CURRENT.lock();
    if !matches!(*current, Current::None) {
        return Err(Error::AlreadyInitialized);
    }
    *current = Current::Starting;
    drop(current);
    begin(start)
}

/// Joins the session that there is, or starts one. Waits for one that starts or ends.
pub(super) fn start_or_join(start: impl FnOnce() -> Result<Running>) -> Result<Arc<Running>> {
    let mut current = CURRENT.lock();
    while !matches!(*current, Current::None) {
        if let Some(session) = current.session() {
            return Ok(session);
        }
        CHANGED.wait(&mut current);
    }
    *current = Current::Starting;
    drop(current);
    begin(start)
}

fn begin(start: impl FnOnce() -> Result<Running>) -> Result<Arc<Running>> {
    let failed = Failed;
    let session = Arc::new(start()?);
    std::mem::forget(failed);
    *CURRENT.lock() = Current::Running(Arc::downgrade(&session));
    CHANGED.notify_all();
    Ok(session)
}

/// A start that ends with an error, or by a panic: dropped, it lets the next session start.
struct Failed;

impl Drop for Failed {
    fn drop(&mut self) {
        ended();
    }
}

/// The session has ended: the next one can start.
pub(super) fn ended() {
    *CURRENT.lock() = Current::None;
    CHANGED.notify_all();
}
