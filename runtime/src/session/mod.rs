//! A session: the store, the head and the workers of one driver, from `init` to the drop of its guard.
//!
//! `options` says how it is started, and `environment` fills in the options that the program leaves open. `running`
//! starts and ends its parts; `current` allows a process only one session at a time. `store` is the driver's side of
//! the session's store, and `store_process` is the store's process. `directory` is the session's place in the file
//! system, and `surroundings` are the resources that it needs.

mod current;
mod directory;
mod environment;
mod gpus;
mod options;
mod running;
pub(crate) mod shared;
mod store;
pub(crate) mod store_process;
mod surroundings;

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mobula_client::Client;

use self::current::Current;
pub use self::directory::sessions;
pub use self::options::SessionOptions;
use self::running::Running;
pub use self::shared::{shared_session, start_shared, stop_shared};
use crate::error::{Error, Result};
use crate::runtime;

/// Starts a session. Workers start meanwhile.
///
/// # Errors
/// [`Error::AlreadyInitialized`], [`Error::InWorker`], [`Error::Start`], [`Error::Config`] for options that cannot be;
/// `ClientError::ForkedChild` in a process that was forked while its parent had a session.
pub fn start(options: SessionOptions) -> Result<Session> {
    let options = complete(options)?;
    Ok(Session { current: current::start(|| Running::start(options))? })
}

/// Joins the session that this process has, which stays as it was configured, or starts one with these options.
/// Waits for a session that is starting or ending.
///
/// # Errors
/// As [`start`], but for [`Error::AlreadyInitialized`].
pub fn start_or_join(options: SessionOptions) -> Result<Session> {
    let options = complete(options)?;
    Ok(Session { current: current::start_or_join(|| Running::start(options))? })
}

/// Keeps a session alive. The session ends when its last guard is dropped.
///
/// Actors end first: the destructors of their state run, and may still use the session. An actor that runs a call ends
/// after it. An actor that has not ended after 2 seconds is killed. Then all other processes end, even during a call.
/// When the driver itself is killed, or exits without dropping this, its processes are killed at once, and no
/// destructor runs.
///
/// Values and buffers that the program has received stay readable afterwards. References and actor handles do not
/// outlast the session: every operation on them fails with [`Failure::SessionOver`](crate::Failure::SessionOver), even
/// when another session has begun. They can still be dropped.
///
/// ```
/// use mobula::{Error, Failure};
///
/// let session = mobula::init()?;
/// let three = mobula::put(&3)?;
/// drop(session); // ends the store and the workers, and waits for that
/// assert!(matches!(three.get(), Err(Error::Failed(Failure::SessionOver))));
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "the session ends when this is dropped: bind it, as in `let _mobula = mobula::init()?`"]
pub struct Session {
    current: Arc<Current>,
}

// Of what a panic may interrupt, nothing is half changed that a session relies on.
impl UnwindSafe for Session {}
impl RefUnwindSafe for Session {}

impl Session {
    /// Ends the session as its drop does, and gives its actors `timeout`: each finishes the call that it runs, and its
    /// destructor runs and may use the session. What they print still appears. Returns when all processes of the
    /// session have ended.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// struct Log {
    ///     file: std::path::PathBuf,
    ///     lines: Vec<String>,
    /// }
    ///
    /// #[mobula::remote]
    /// impl Log {
    ///     fn new(file: std::path::PathBuf) -> Self {
    ///         Log { file, lines: Vec::new() }
    ///     }
    ///     fn add(&mut self, line: String) {
    ///         self.lines.push(line);
    ///     }
    /// }
    ///
    /// impl Drop for Log {
    ///     fn drop(&mut self) {
    ///         let _ = std::fs::write(&self.file, self.lines.join("\n"));
    ///     }
    /// }
    ///
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let file = directory.path().join("log");
    /// let session = mobula::init()?;
    /// let log = Log::remote(file.clone());
    /// log.add("one".to_owned()).get()?;
    /// session.shutdown(Duration::from_secs(30))?;
    /// assert_eq!(std::fs::read_to_string(&file).expect("the destructor has run"), "one");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// Calls that have not begun do not run: to finish them first, get their results, or terminate the actors
    /// (`mobula::terminate`). If the session has other guards, it continues, and ends with the last of them.
    ///
    /// # Errors
    /// [`Error::Timeout`]: some actors did not end in time, and were killed. `wanted` is the number of those that were,
    /// and `ready` is 0. The session has ended all the same.
    pub fn shutdown(self, timeout: Duration) -> Result<()> {
        let Some(Current { mut running, claim }) = Arc::into_inner(self.current) else { return Ok(()) };
        let killed = running.end(timeout);
        drop(running);
        drop(claim);
        if killed == 0 { Ok(()) } else { Err(Error::Timeout { waited: timeout, ready: 0, wanted: killed }) }
    }

    /// The socket of the session's store, for tools and clients of other programs.
    ///
    /// ```
    /// let session = mobula::init()?;
    /// let object = session.client().put(b"from this program")?;
    /// // In another program, which got the path and the id in any way:
    /// let client = mobula::Client::connect(session.socket())?;
    /// assert_eq!(&client.get(object.id())?[..], b"from this program");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.current.running.socket
    }

    /// The client of this process, for raw objects, names and statistics. It is a clone of the client that the session
    /// itself uses, which costs an addition to a count.
    ///
    /// ```
    /// let session = mobula::init()?;
    /// let client = session.client();
    /// let object = client.put(b"raw bytes")?;
    /// client.publish("greeting", object.id())?;
    /// // In any process of the session, which may wait for the name:
    /// let same = client.get_named("greeting", std::time::Duration::from_secs(10))?;
    /// assert_eq!(&same[..], b"raw bytes");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn client(&self) -> Client {
        self.current.running.runtime.client.clone()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("socket", &self.current.running.socket).finish()
    }
}

/// The options, completed from the environment and valid in this process.
fn complete(options: SessionOptions) -> Result<SessionOptions> {
    if runtime::current::is_worker() {
        return Err(Error::InWorker);
    }
    environment::complete(options, |name| std::env::var_os(name))
}
