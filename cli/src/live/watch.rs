//! A sampler on a thread of its own, with the last sample and the history.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mobula_client::ClientError;
use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::history::{History, Point};
use super::sample::Look;
use super::sampler::Sampler;

/// The state of the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "reason", rename_all = "snake_case")]
pub(crate) enum Session {
    /// It answers.
    Running,
    /// Its store did not answer the last time. It may answer later.
    Silent(String),
    /// It has ended. Nothing changes any more.
    Ended(String),
}

/// The last sample, and the number of samples.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    /// Grows with each sample, also with one that failed.
    pub(crate) number: u64,
    pub(crate) session: Session,
    /// The last sample that succeeded; `None` before the first one.
    pub(crate) look: Option<Arc<Look>>,
}

/// Samples a session in the background, until it is dropped or the session ends.
#[derive(Debug)]
pub(crate) struct Live {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    update: Update,
    history: History,
    interval: Duration,
    is_stopping: bool,
}

impl Live {
    /// Connects to the session's store, and starts sampling.
    pub(crate) fn start(socket: PathBuf, interval: Duration) -> Result<Self, ClientError> {
        let mut sampler = Sampler::connect(&socket)?;
        let update = Update { number: 0, session: Session::Running, look: None };
        let state = State { update, history: History::default(), interval, is_stopping: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let looking = shared.clone();
        let thread = std::thread::Builder::new()
            .name("looker".to_owned())
            .spawn(move || while looking.look(&mut sampler) && looking.pause() {})
            .map_err(|error| ClientError::NoStore { path: socket, reason: error })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The last look.
    pub(crate) fn latest(&self) -> Update {
        self.shared.state.lock().update.clone()
    }

    /// Waits for a sample after number `seen`, and returns the last one; `None` after the timeout.
    pub(crate) fn wait(&self, seen: u64, timeout: Duration) -> Option<Update> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.state.lock();
        while state.update.number <= seen {
            if self.shared.changed.wait_until(&mut state, deadline).timed_out() && state.update.number <= seen
            {
                return None;
            }
        }
        Some(state.update.clone())
    }

    /// The figures of the last samples.
    pub(crate) fn history(&self) -> History {
        self.shared.state.lock().history.clone()
    }

    /// Sets the time between two samples.
    pub(crate) fn set_interval(&self, interval: Duration) {
        self.shared.state.lock().interval = interval;
        self.shared.changed.notify_all();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shared.state.lock().is_stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A sample of a stopped store ends at the client's timeout. The thread is not joined, so nothing waits for
            // it.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    /// Takes a sample. Returns whether to continue.
    fn look(&self, sampler: &mut Sampler) -> bool {
        let looked = sampler.look();
        let mut state = self.state.lock();
        state.update.number += 1;
        match looked {
            Ok(look) => {
                state.history.push(Point::from(&look.sample));
                state.update.session = Session::Running;
                state.update.look = Some(Arc::new(look));
            }
            Err(error) if has_ended(&error) => {
                state.update.session = Session::Ended("the session has ended".to_owned());
            }
            Err(error) => state.update.session = Session::Silent(error.to_string()),
        }
        let goes_on = !matches!(state.update.session, Session::Ended(_)) && !state.is_stopping;
        drop(state);
        self.changed.notify_all();
        goes_on
    }

    /// Waits for the time of the next sample. Returns `false` if there is none.
    fn pause(&self) -> bool {
        let began = Instant::now();
        let mut state = self.state.lock();
        while !state.is_stopping {
            let deadline = began + state.interval;
            if Instant::now() >= deadline {
                return true;
            }
            self.changed.wait_until(&mut state, deadline);
        }
        false
    }
}

/// Whether a store that answers with this error is gone for good.
fn has_ended(error: &ClientError) -> bool {
    matches!(error, ClientError::StoreLost | ClientError::NoStore { .. } | ClientError::Refused(_))
}
