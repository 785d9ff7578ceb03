//! A session: the store, the head and the workers of one driver, from `init` to the drop of its guard.
//!
//! Everything a session has hangs on one [lifeline](crate::process::lifeline): store and workers end when the driver
//! says so, or has ended, however that happened.

mod current;
mod directory;
mod options;
pub(crate) mod store;
mod surroundings;

use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use mobula_client::{Client, ClientError, ConnectOptions};

use self::directory::Directory;
pub use self::directory::sessions;
pub use self::options::{Launch, SessionOptions};
use self::store::Store;
use crate::error::{Error, Failure, Result};
use crate::head::{Head, HeadOptions};
use crate::process::lifeline::Lifeline;
use crate::process::role::StoreRole;
use crate::runtime::Runtime;
use crate::session_number::SessionNumber;
use crate::submit;

static RUNTIME: ArcSwapOption<Runtime> = ArcSwapOption::const_empty();

/// The runtime of this process, borrowed: it costs no count.
pub struct RuntimeRef(Guard<Option<Arc<Runtime>>>);

impl Deref for RuntimeRef {
    type Target = Arc<Runtime>;

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
        Ok(runtime) if session == runtime.session || session == SessionNumber::NONE => Ok(runtime),
        Err(Error::NotInitialized) if session == SessionNumber::NONE => Err(Error::NotInitialized),
        Ok(_) | Err(Error::NotInitialized) => Err(Failure::SessionOver.into()),
        Err(error) => Err(error),
    }
}

/// The number of the session that this process has now.
pub fn number() -> SessionNumber {
    RUNTIME.load().as_ref().map_or(SessionNumber::NONE, |runtime| runtime.session)
}

/// Whether this process has a session.
pub fn is_initialized() -> bool {
    RUNTIME.load().is_some()
}

/// Keeps a session alive. The session ends when its last guard is dropped.
///
/// Actors end first: the destructors of their state run, and may still use the session. One that runs a call ends
/// behind it; one that has not ended after 2 seconds is killed. Then all other processes end, even during a call. When
/// the driver itself is killed, or exits without dropping this, its processes are killed at once, and no destructor
/// runs.
///
/// Values and buffers that were got stay readable afterwards. References and actor handles do not outlast it: every
/// operation on them then is [`Failure::SessionOver`], also when another session has begun, except that dropping them
/// is fine.
#[must_use = "the session ends when this is dropped: bind it, as in `let _mobula = mobula::init()?`"]
pub struct Session {
    running: Arc<Running>,
}

// Of what a panic may interrupt, nothing is half changed that a session relies on.
impl UnwindSafe for Session {}
impl RefUnwindSafe for Session {}

impl Session {
    /// The socket of the session's store, for tools and clients of other programs.
    pub fn socket(&self) -> &Path {
        &self.running.socket
    }

    /// The client of this process, for what the runtime does not cover: names, raw objects, statistics.
    pub fn client(&self) -> Client {
        self.running.runtime.client.clone()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("socket", &self.running.socket).finish()
    }
}

/// A session and everything that belongs to it. Dropping it ends the session.
struct Running {
    directory: Option<Directory>,
    socket: PathBuf,
    store: Option<Store>,
    head: Option<Head>,
    runtime: Arc<Runtime>,
    poller: Option<std::thread::JoinHandle<()>>,
    lifeline: Option<Arc<Lifeline>>,
}

impl Running {
    fn start(options: SessionOptions) -> Result<Self> {
        surroundings::prepare()?;
        let start = |error: &dyn std::fmt::Display| Error::Start(error.to_string());
        let directory = Directory::make(options.session_dir.as_deref()).map_err(|error| start(&error))?;
        let socket = directory.path.join("store.sock");
        let lifeline = Arc::new(Lifeline::new().map_err(|error| start(&error))?);
        let capacity_bytes = options.capacity_bytes.unwrap_or_else(surroundings::default_capacity_bytes);
        let spill_directory = options.spill_directory.as_deref().map(surroundings::absolute).transpose()?;
        let spill_directory = spill_directory.or_else(mobula_store::Config::default_spill_directory);
        let absolute = |launch: Launch| -> Result<Launch> {
            // A bare name is looked up in PATH.
            let is_path = launch.program.components().count() > 1;
            let program = if is_path { surroundings::absolute(&launch.program)? } else { launch.program };
            Ok(Launch { program, ..launch })
        };
        let (launch, store_launch) = (absolute(options.launch)?, absolute(options.store_launch)?);
        let processes_max =
            options.max_processes.unwrap_or_else(|| surroundings::default_processes_max(options.workers));
        let role = StoreRole {
            socket: socket.clone().into(),
            capacity_bytes,
            clients_max: surroundings::clients_max(processes_max),
            spill_directory: spill_directory.filter(|_| options.spill_bytes_max != Some(0)).map(Into::into),
            spill_bytes_max: options.spill_bytes_max,
            lifeline: lifeline.watched(),
            link: directory.link.clone().map(Into::into),
        };
        let store = Store::start(store_launch, role)?;
        let (mut head, mut runtime, mut poller) = (None, None, None);
        let begin = || -> Result<Arc<Runtime>> {
            let client =
                ConnectOptions::new().label(format!("driver {}", std::process::id())).connect(&socket)?;
            let head = head.insert(Head::start(HeadOptions {
                socket: socket.clone(),
                workers: options.workers,
                processes_max,
                forward_output: options.forward_output,
                spin: options.spin,
                launch,
                build_id: options.build_id,
                lifeline: lifeline.clone(),
            })?);
            let runtime = runtime.insert(Runtime::new(client, None, options.spin));
            poller = Some(start_runtime(runtime)?);
            let link = crate::mail::link::Link::new(runtime.client.connect_to(head.id())?, false);
            runtime.set_head(Arc::new(link));
            Ok(runtime.clone())
        };
        match begin() {
            Ok(runtime) => {
                let (directory, store, lifeline) = (Some(directory), Some(store), Some(lifeline));
                Ok(Self { directory, socket, store, head, runtime, poller, lifeline })
            }
            Err(error) => {
                forget_runtime();
                if let Some(runtime) = runtime {
                    runtime.stop();
                }
                if let Some(poller) = poller {
                    let _ = poller.join();
                }
                // Before the head, which waits for its workers, and they for that.
                lifeline.cut();
                drop((store, head));
                Err(error)
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // In a forked child, all of this belongs to the parent.
        if self.runtime.client.is_forked_child() {
            std::mem::forget((
                self.head.take(),
                self.poller.take(),
                self.lifeline.take(),
                self.directory.take(),
                self.store.take(),
            ));
            return;
        }
        forget_runtime();
        self.runtime.on_session_over();
        self.runtime.stop();
        if let Some(poller) = self.poller.take() {
            let _ = poller.join();
        }
        // The actors end while everything is there that their destructors may use.
        if let Some(head) = &self.head {
            head.end_actors();
        }
        // Store and workers end by themselves then. The head waits for the workers.
        if let Some(lifeline) = &self.lifeline {
            lifeline.cut();
        }
        // The store ends before the head: a restarted store would need what belongs to the head.
        drop(self.store.take());
        drop(self.head.take());
        drop(self.directory.take());
        current::ended();
    }
}

/// Makes `runtime` the runtime of this process, and starts its background poller.
pub(crate) fn start_runtime(runtime: &Arc<Runtime>) -> Result<std::thread::JoinHandle<()>> {
    RUNTIME.store(Some(runtime.clone()));
    let poller = runtime.clone();
    std::thread::Builder::new()
        .name("mobula-poller".into())
        .stack_size(512 << 10)
        .spawn(move || poller.run_poller())
        .map_err(|error| Error::Start(error.to_string()))
}

fn forget_runtime() {
    RUNTIME.store(None);
}
