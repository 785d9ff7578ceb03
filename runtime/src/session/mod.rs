//! A session: the store, the head and the workers of one driver, from `init` to the drop of its guard.
//!
//! Everything a session has hangs on one [lifeline](crate::process::lifeline): store and workers end when the driver says so, or
//! has ended, however that happened.

mod current;
mod directory;
pub(crate) mod store;
mod surroundings;

use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use mobula_client::{Client, ClientError, ConnectOptions};

use self::directory::Directory;
pub use self::directory::sessions;
use self::store::Store;
use crate::error::{Error, Failure, Result};
use crate::head::{Head, HeadOptions};
use crate::mail::Core;
use crate::mail::spin::SPIN_DEFAULT;
use crate::process::lifeline::Lifeline;
use crate::submit;
use crate::takeover::{StoreRole, takes_over};
use crate::value;

const THIS_PROGRAM: &str = "/proc/self/exe";

static CORE: ArcSwapOption<Core> = ArcSwapOption::const_empty();

/// The runtime of this process, borrowed: it costs no count.
pub(crate) struct CoreRef(Guard<Option<Arc<Core>>>);

impl Deref for CoreRef {
    type Target = Arc<Core>;

    fn deref(&self) -> &Arc<Core> {
        self.0.as_ref().expect("there was one when it was borrowed, and what is borrowed does not change")
    }
}

/// The runtime of this process.
pub(crate) fn core() -> Result<CoreRef> {
    let core = CORE.load();
    let client = core.as_ref().map(|core| &core.client).ok_or(Error::NotInitialized)?;
    if client.is_forked_child() {
        return Err(ClientError::ForkedChild.into());
    }
    if !(value::context::is_there() && submit::is_there()) {
        return Err(Error::ThreadEnding);
    }
    Ok(CoreRef(core))
}

/// The runtime of this process, for what came from the session with this number.
pub(crate) fn core_of(session: SessionNumber) -> Result<CoreRef> {
    match core() {
        Ok(core) if session == core.session || session == SessionNumber::NONE => Ok(core),
        Err(Error::NotInitialized) if session == SessionNumber::NONE => Err(Error::NotInitialized),
        Ok(_) | Err(Error::NotInitialized) => Err(Failure::SessionOver.into()),
        Err(error) => Err(error),
    }
}

/// The number of the session that this process has now.
pub(crate) fn number() -> SessionNumber {
    CORE.load().as_ref().map_or(SessionNumber::NONE, |core| core.session)
}

/// Tells the sessions that this process has had apart: what came from one is of no use in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionNumber(u32);

impl SessionNumber {
    /// Of what came from no session.
    pub(crate) const NONE: Self = Self(0);

    /// For the next session.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Starts a session with the default [options](Builder): a store, and a worker for each core. Everything is gone when
/// the returned guard is dropped, also by a panic, and when the process is killed.
///
/// ```
/// let _mobula = mobula::init()?;
/// let three = mobula::put(&3)?;
/// assert_eq!(three.get()?, 3);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// Raises the soft limit of open descriptors of this process, to 65,536 where the hard limit allows that; what it starts
/// from then on inherits it.
///
/// # Errors
/// [`Error::AlreadyInitialized`], [`Error::InWorker`], [`Error::Start`]; [`ClientError::ForkedChild`] in a process that was
/// forked while its parent had a session.
pub fn init() -> Result<Session> {
    Builder::new().init()
}

/// Joins the session that this process has, or starts one as [`init`] does. It ends when the last of its guards is
/// dropped.
///
/// For tests, which run at the same time in one process, and for libraries that need a session and do not know whether
/// their program has one:
///
/// ```
/// fn test_of_one_thing() -> mobula::Result<()> {
///     let _mobula = mobula::init_or_join()?;
///     assert_eq!(mobula::put(&1)?.get()?, 1);
///     Ok(())
/// }
///
/// // The test harness calls each in a thread of its own.
/// let another = std::thread::spawn(test_of_one_thing);
/// test_of_one_thing()?;
/// another.join().expect("it does not panic")?;
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// As [`init`], but for [`Error::AlreadyInitialized`].
pub fn init_or_join() -> Result<Session> {
    Builder::new().init_or_join()
}

/// Whether this process has a session.
pub fn is_initialized() -> bool {
    CORE.load().is_some()
}

/// How to start a session.
///
/// ```
/// let _mobula = mobula::Builder::new().workers(1).capacity_bytes(64 << 20).init()?;
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Builder {
    workers: usize,
    max_processes: Option<usize>,
    capacity_bytes: Option<u64>,
    spill_directory: Option<PathBuf>,
    spill_bytes_max: Option<u64>,
    session_dir: Option<PathBuf>,
    forward_output: bool,
    spin: Duration,
    worker_program: Option<PathBuf>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            max_processes: None,
            capacity_bytes: None,
            spill_directory: None,
            spill_bytes_max: None,
            session_dir: None,
            forward_output: true,
            spin: SPIN_DEFAULT,
            worker_program: None,
        }
    }
}

impl Builder {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tasks that run at the same time: so many worker processes, and more while some of them wait for results of
    /// others. Default: one for each core that this process may run on, by its affinity mask and the quotas
    /// of its control groups. At least 1.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Processes that the session may have at a time: workers, also those whose calls only wait for others, and actors.
    /// Beyond that, calls wait for processes to become free; where none will, because all wait for others, one of the
    /// calls that need one more is [`Failure::ProcessLimit`]. So is an actor that would leave fewer than
    /// [`workers`](Self::workers) for calls.
    ///
    /// There are fewer while this process has no descriptors for so many (`RLIMIT_NOFILE`, 10 for each): no process is
    /// started that it could not serve.
    ///
    /// Default: what the limits of this process, its control groups and the machine have room for: descriptors (10 in
    /// this process for each), processes and threads, and 16 MiB of memory for each. More than `workers`, at most 30,000.
    pub fn max_processes(mut self, processes: usize) -> Self {
        self.max_processes = Some(processes);
        self
    }

    /// What the store may hold, in bytes. Default: 30 % of the memory that the machine, or the control group (container)
    /// that this process is in, has. At least 1, at most that memory.
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.capacity_bytes = Some(bytes);
        self
    }

    /// Where objects go that are held but not in use when the store is full; it makes a directory of its own in there, and
    /// leaves nothing behind. Should be on a disk. Default: `/var/tmp`, if there is one.
    pub fn spill_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spill_directory = Some(directory.into());
        self
    }

    /// What such objects may take on the disk, in bytes; 0: none goes there, and a store that is full stays full.
    /// Default: eight times the capacity.
    pub fn spill_bytes_max(mut self, bytes: u64) -> Self {
        self.spill_bytes_max = Some(bytes);
        self
    }

    /// Where the session's directory, with the store's socket, is made. Default: `$XDG_RUNTIME_DIR/mobula`, or the first of
    /// `mobula-UID` in `$TMPDIR`, `/tmp`, `/var/tmp` and `/dev/shm` that can be made.
    pub fn session_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.session_dir = Some(directory.into());
        self
    }

    /// Whether what workers print appears in this process's output, with a prefix. Default: yes. If not, it is
    /// discarded.
    pub fn forward_output(mut self, forward: bool) -> Self {
        self.forward_output = forward;
        self
    }

    /// For how long, at most, a process of the session that waits looks whether something has come before it sleeps;
    /// zero: not at all. Default: 30 µs, about what the answer of a process that sleeps takes.
    ///
    /// Less, or not at all, is spent on it by itself where it has not paid off lately, as on a machine whose cores are
    /// all busy.
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// The program that workers run. Default: this one. It must be the same build: a worker of another one is refused.
    ///
    /// Where mobula is in a library that this program has loaded while it ran (`dlopen`), there is no default: see
    /// [`become_worker`](crate::become_worker).
    pub fn worker_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.worker_program = Some(program.into());
        self
    }

    /// Starts the session. Workers start meanwhile.
    ///
    /// # Errors
    /// As [`init`], and [`Error::Config`] for what cannot be.
    pub fn init(self) -> Result<Session> {
        self.check()?;
        Ok(Session { running: current::start(|| Running::start(self))? })
    }

    /// Joins the session that this process has, which stays as it was configured, or starts this one. Waits for one that
    /// is starting or ending. See [`init_or_join`].
    ///
    /// # Errors
    /// As [`init`](Self::init), but for [`Error::AlreadyInitialized`].
    pub fn init_or_join(self) -> Result<Session> {
        self.check()?;
        Ok(Session { running: current::start_or_join(|| Running::start(self))? })
    }

    fn check(&self) -> Result<()> {
        if CORE.load().as_ref().is_some_and(|core| core.executor.is_some()) {
            return Err(Error::InWorker);
        }
        let cannot = |field, value: String, expected: &str| {
            Err(Error::Config { field, value, expected: expected.to_owned() })
        };
        if self.workers == 0 || self.workers > 1000 {
            return cannot("workers", self.workers.to_string(), "between 1 and 1000 processes");
        }
        if let Some(max) = self.max_processes
            && (max <= self.workers || max > surroundings::PROCESSES_MAX)
        {
            let expected =
                format!("more than the {} workers, at most {}", self.workers, surroundings::PROCESSES_MAX);
            return cannot("max_processes", max.to_string(), &expected);
        }
        if self.capacity_bytes == Some(0) {
            return cannot("capacity_bytes", "0".into(), "at least 1 byte");
        }
        if self.worker_program.is_none() && !takes_over() {
            let expected = "mobula is in a library that this program has loaded, or the C library is linked statically, so \
                            that its copies do not become workers by themselves: call `mobula::become_worker()` first in \
                            `main`, or name a program here that does";
            return cannot("worker_program", "this program".into(), expected);
        }
        Ok(())
    }
}

/// Keeps a session alive; the session ends when it, the last guard of it, is dropped.
///
/// Actors end first: the destructors of their state run, and may still use the session. One that runs a call ends behind
/// it; one that has not ended after 2 seconds is killed. Then all other processes end, whatever they do. When the driver
/// itself is killed, or exits without dropping this, its processes are killed at once, and no destructor runs.
///
/// Values and buffers that were got stay readable afterwards. References and actor handles do not outlast it: whatever
/// is done with them then is [`Failure::SessionOver`], also when another session has begun, except that dropping them is
/// fine.
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

    /// The client of this process's, for what the runtime does not cover: names, raw objects, statistics.
    pub fn client(&self) -> Client {
        self.running.core.client.clone()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("socket", &self.running.socket).finish()
    }
}

/// A session and all that it has. Ends when it is dropped.
struct Running {
    directory: Option<Directory>,
    socket: PathBuf,
    store: Option<Store>,
    head: Option<Head>,
    core: Arc<Core>,
    courier: Option<std::thread::JoinHandle<()>>,
    lifeline: Option<Arc<Lifeline>>,
}

impl Running {
    fn start(options: Builder) -> Result<Self> {
        surroundings::prepare()?;
        let start = |error: &dyn std::fmt::Display| Error::Start(error.to_string());
        let directory = Directory::make(options.session_dir.as_deref()).map_err(|error| start(&error))?;
        let socket = directory.path.join("store.sock");
        let lifeline = Arc::new(Lifeline::new().map_err(|error| start(&error))?);
        let capacity_bytes = options.capacity_bytes.unwrap_or_else(surroundings::default_capacity_bytes);
        let spill_directory = options.spill_directory.as_deref().map(surroundings::absolute).transpose()?;
        let spill_directory = spill_directory.or_else(mobula_store::Config::default_spill_directory);
        // A name alone is looked for in PATH.
        let program = match options.worker_program {
            Some(path) if path.components().count() > 1 => surroundings::absolute(&path)?,
            Some(name) => name,
            None => PathBuf::from(THIS_PROGRAM),
        };
        let processes_max =
            options.max_processes.unwrap_or_else(|| surroundings::default_processes_max(options.workers));
        let store_program = if takes_over() { PathBuf::from(THIS_PROGRAM) } else { program.clone() };
        let role = StoreRole {
            socket: socket.clone().into(),
            capacity_bytes,
            clients_max: surroundings::clients_max(processes_max),
            spill_directory: spill_directory.filter(|_| options.spill_bytes_max != Some(0)).map(Into::into),
            spill_bytes_max: options.spill_bytes_max,
            lifeline: lifeline.watched(),
            link: directory.link.clone().map(Into::into),
        };
        let store = Store::start(store_program, role)?;
        let (mut head, mut core, mut courier) = (None, None, None);
        let begin = || -> Result<Arc<Core>> {
            let client =
                ConnectOptions::new().label(format!("driver {}", std::process::id())).connect(&socket)?;
            let head = head.insert(Head::start(HeadOptions {
                socket: socket.clone(),
                workers: options.workers,
                processes_max,
                forward_output: options.forward_output,
                spin: options.spin,
                program,
                lifeline: lifeline.clone(),
            })?);
            let core = core.insert(Core::new(client, None, options.spin));
            courier = Some(start_core(core)?);
            let link = crate::mail::link::Link::new(core.client.connect_to(head.id())?, false);
            core.set_head(Arc::new(link));
            Ok(core.clone())
        };
        match begin() {
            Ok(core) => {
                let (directory, store, lifeline) = (Some(directory), Some(store), Some(lifeline));
                Ok(Self { directory, socket, store, head, core, courier, lifeline })
            }
            Err(error) => {
                forget_core();
                if let Some(core) = core {
                    core.stop();
                }
                if let Some(courier) = courier {
                    let _ = courier.join();
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
        // All of it belongs to the parent of a forked child.
        if self.core.client.is_forked_child() {
            std::mem::forget((
                self.head.take(),
                self.courier.take(),
                self.lifeline.take(),
                self.directory.take(),
                self.store.take(),
            ));
            return;
        }
        forget_core();
        self.core.on_session_over();
        self.core.stop();
        if let Some(courier) = self.courier.take() {
            let _ = courier.join();
        }
        // While everything is there that their destructors may use.
        if let Some(head) = &self.head {
            head.end_actors();
        }
        // Store and workers end by themselves then; the head sees the workers off.
        if let Some(lifeline) = &self.lifeline {
            lifeline.cut();
        }
        // The store first: what it would be started with again belongs to the head.
        drop(self.store.take());
        drop(self.head.take());
        drop(self.directory.take());
        current::ended();
    }
}

/// Makes a core this process's, with its courier.
pub(crate) fn start_core(core: &Arc<Core>) -> Result<std::thread::JoinHandle<()>> {
    CORE.store(Some(core.clone()));
    value::install_client(core.client.clone());
    let courier = core.clone();
    std::thread::Builder::new()
        .name("mobula-courier".into())
        .stack_size(512 << 10)
        .spawn(move || courier.run_courier())
        .map_err(|error| Error::Start(error.to_string()))
}

fn forget_core() {
    CORE.store(None);
    value::remove_client();
}
