//! A sampler on a thread of its own, the last look, and the history.

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

/// What has become of the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "reason", rename_all = "snake_case")]
pub(crate) enum Session {
    /// It answers.
    Running,
    /// Its store did not answer at the last look. It may yet.
    Silent(String),
    /// It is over. Nothing changes any more.
    Ended(String),
}

/// The last look, and how many there were.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    /// Grows with each look, also with one that failed.
    pub(crate) number: u64,
    pub(crate) session: Session,
    /// The last look that succeeded; `None` before the first one.
    pub(crate) look: Option<Arc<Look>>,
}

/// Looks at a session in the background, until it is dropped or the session ends.
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
    /// Connects to the session's store, and begins to look.
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

    /// Waits for a look after number `seen`, and returns the last one; `None` after the timeout.
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

    /// The figures of the last looks.
    pub(crate) fn history(&self) -> History {
        self.shared.state.lock().history.clone()
    }

    /// The time between two looks, from now on.
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
            // A look that waits for a store that is stopped ends at the client's timeout: nobody waits for that.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    /// Looks once. Returns whether there is anything more to see.
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

    /// Waits for the time of the next look. Returns `false` if there is to be none.
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
