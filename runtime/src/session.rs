//! A session: the store, the head and the workers of one driver, from `init` to the drop of its guard.
//!
//! Everything a session has hangs on one *lifeline*: a pipe whose only writer is the driver. Store and workers end when
//! it is closed, which the kernel does however the driver ends.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobula_client::{Client, ClientError, ConnectOptions};
use nix::fcntl::{Flock, FlockArg};
use parking_lot::RwLock;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::head::{Head, HeadOptions};
use crate::takeover::{ROLE, Role, StoreRole, inherited};
use crate::value;

/// How long the embedded store may take to start.
const STORE_START: Duration = Duration::from_secs(10);
/// How long processes may take to end by themselves.
const END_PATIENCE: Duration = Duration::from_secs(2);

static CORE: RwLock<Option<Arc<Core>>> = RwLock::new(None);
static STARTED: AtomicBool = AtomicBool::new(false);

/// The runtime of this process.
pub(crate) fn core() -> Result<Arc<Core>> {
    let core = CORE.read().clone().ok_or(Error::NotInitialized)?;
    if core.client.is_forked_child() {
        return Err(ClientError::ForkedChild.into());
    }
    Ok(core)
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
/// # Errors
/// [`Error::AlreadyInitialized`], [`Error::InWorker`], [`Error::Start`].
pub fn init() -> Result<Session> {
    Builder::new().init()
}

/// Whether this process has a session.
pub fn is_initialized() -> bool {
    CORE.read().is_some()
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
    capacity_bytes: Option<u64>,
    session_dir: Option<PathBuf>,
    forward_output: bool,
    worker_program: PathBuf,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            capacity_bytes: None,
            session_dir: None,
            forward_output: true,
            worker_program: "/proc/self/exe".into(),
        }
    }
}

impl Builder {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tasks that run at the same time: so many worker processes, and more while some of them wait for results of
    /// others. Default: one for each core. At least 1.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// What the store may hold, in bytes. Default: 30 % of the machine's memory. At least 1, at most the memory.
    pub fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.capacity_bytes = Some(bytes);
        self
    }

    /// Where the session's directory, with the store's socket, is made. Default: `$XDG_RUNTIME_DIR/mobula`, or
    /// `/tmp/mobula-UID`.
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

    /// The program that workers run. Default: this one. It must be the same build: a worker of another one is refused.
    pub fn worker_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.worker_program = program.into();
        self
    }

    /// Starts the session. Workers start meanwhile.
    ///
    /// # Errors
    /// As [`init`], and [`Error::Config`] for what cannot be.
    pub fn init(self) -> Result<Session> {
        if CORE.read().as_ref().is_some_and(|core| core.executor.is_some()) {
            return Err(Error::InWorker);
        }
        self.check()?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(Error::AlreadyInitialized);
        }
        Session::start(self).inspect_err(|_| STARTED.store(false, Ordering::Release))
    }

    fn check(&self) -> Result<()> {
        let cannot = |field, value: String, expected: &str| {
            Err(Error::Config { field, value, expected: expected.to_owned() })
        };
        if self.workers == 0 || self.workers > 1000 {
            return cannot("workers", self.workers.to_string(), "between 1 and 1000 processes");
        }
        if self.capacity_bytes == Some(0) {
            return cannot("capacity_bytes", "0".into(), "at least 1 byte");
        }
        Ok(())
    }
}

/// Keeps a session alive; the session ends when it is dropped.
///
/// Values and buffers that were got stay readable afterwards; references that were not resolved give
/// [`Error::NotInitialized`].
#[must_use = "the session ends when this is dropped: bind it, as in `let _mobula = mobula::init()?`"]
pub struct Session {
    directory: Option<Directory>,
    socket: PathBuf,
    store: Child,
    head: Option<Head>,
    core: Arc<Core>,
    courier: Option<std::thread::JoinHandle<()>>,
    /// The only writer of the pipe that all processes of the session watch.
    lifeline: Option<OwnedFd>,
}

impl Session {
    fn start(options: Builder) -> Result<Self> {
        let start = |error: &dyn std::fmt::Display| Error::Start(error.to_string());
        let directory = Directory::make(options.session_dir.clone()).map_err(|error| start(&error))?;
        let socket = directory.path.join("store.sock");
        let (watched, lifeline) = lifeline().map_err(|error| start(&error))?;
        let capacity_bytes = options.capacity_bytes.unwrap_or_else(default_capacity);
        let mut store = start_store(&socket, capacity_bytes, &watched)?;
        let begin = || -> Result<_> {
            let client =
                ConnectOptions::new().label(format!("driver {}", std::process::id())).connect(&socket)?;
            let head = Head::start(HeadOptions {
                socket: socket.clone(),
                workers: options.workers,
                forward_output: options.forward_output,
                program: options.worker_program.clone(),
                lifeline: watched,
            })?;
            let core = Core::new(client, None);
            let courier = start_core(&core)?;
            let link = crate::link::Link::new(core.client.connect_to(head.id())?, false);
            core.set_head(Arc::new(link));
            Ok((head, core, courier))
        };
        match begin() {
            Ok((head, core, courier)) => {
                let (directory, head) = (Some(directory), Some(head));
                let (courier, lifeline) = (Some(courier), Some(lifeline));
                Ok(Self { directory, socket, store, head, core, courier, lifeline })
            }
            Err(error) => {
                forget_core();
                drop(lifeline);
                end(&mut store);
                Err(error)
            }
        }
    }

    /// The socket of the session's store, for tools and clients of other programs.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The client of this process's, for what the runtime does not cover: names, raw objects, statistics.
    pub fn client(&self) -> Client {
        self.core.client.clone()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("socket", &self.socket).finish()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // All of it belongs to the parent of a forked child.
        if self.core.client.is_forked_child() {
            std::mem::forget((
                self.head.take(),
                self.courier.take(),
                self.lifeline.take(),
                self.directory.take(),
            ));
            return;
        }
        forget_core();
        self.core.on_session_over();
        self.core.stop();
        if let Some(courier) = self.courier.take() {
            let _ = courier.join();
        }
        // Store and workers end when this is closed; the head sees the workers off.
        drop(self.lifeline.take());
        drop(self.head.take());
        end(&mut self.store);
        drop(self.directory.take());
        STARTED.store(false, Ordering::Release);
    }
}

/// Makes a core this process's, with its courier.
pub(crate) fn start_core(core: &Arc<Core>) -> Result<std::thread::JoinHandle<()>> {
    *CORE.write() = Some(core.clone());
    value::install_client(core.client.clone());
    let courier = core.clone();
    std::thread::Builder::new()
        .name("mobula-courier".into())
        .stack_size(512 << 10)
        .spawn(move || courier.run_courier())
        .map_err(|error| Error::Start(error.to_string()))
}

fn forget_core() {
    *CORE.write() = None;
    value::remove_client();
}

/// The read end, which every process of the session inherits, and the only write end.
fn lifeline() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // The read end passes on to processes that this one starts; what else inherits it can do nothing with it.
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    Ok((read, write))
}

fn default_capacity() -> u64 {
    let total = nix::sys::sysinfo::sysinfo().map_or(4 << 30, |info| info.ram_total());
    (total / 10 * 3).max(64 << 20).min(total)
}

/// Starts the store as a process of its own, and waits until it can be connected to.
fn start_store(socket: &Path, capacity_bytes: u64, lifeline: &OwnedFd) -> Result<Child> {
    let role = StoreRole { socket: socket.to_owned(), capacity_bytes, lifeline: lifeline.as_raw_fd() };
    let mut child = Command::new("/proc/self/exe")
        .arg0("mobula-store")
        .env(ROLE, Role::Store(role).to_variable())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| Error::Start(format!("the store's process: {error}")))?;
    let said = child.stdout.take().map(|stdout| read_line_within(stdout, STORE_START)).unwrap_or_default();
    match said.as_str() {
        "ready" => Ok(child),
        "" => {
            let _ = child.kill();
            let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(Error::Start(format!("the store did not come up: {how}")))
        }
        said => {
            let _ = child.wait();
            Err(Error::Start(said.to_owned()))
        }
    }
}

fn read_line_within(stdout: std::process::ChildStdout, timeout: Duration) -> String {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    if !matches!(poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout), Ok(1..)) {
        return String::new();
    }
    let mut line = String::new();
    let _ = BufReader::new(stdout.take(4096)).read_line(&mut line);
    line.trim_end().to_owned()
}

/// The store's process: its main function. Returns the exit code.
pub(crate) fn run_store(role: &StoreRole) -> i32 {
    let lifeline = inherited(role.lifeline);
    // This process is there for the store alone.
    if let Err(error) = mobula_store::raise_descriptor_limit() {
        eprintln!("mobula: the store keeps the usual limit of descriptors: {error}");
    }
    let config = mobula_store::Config::new(&role.socket, role.capacity_bytes);
    let server = match mobula_store::Server::bind(config) {
        Ok(server) => server,
        Err(error) => {
            println!("{error}");
            return 1;
        }
    };
    println!("ready");
    // Whoever reads has got what it waited for; the pipe's end tells it that there is no more.
    let _ = nix::unistd::close(1);
    let code = match server.run_while_open(lifeline) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("mobula: the store ended: {error}");
            1
        }
    };
    // The driver may be gone: then nobody else removes the session's directory.
    if let Some(directory) = role.socket.parent() {
        let _ = std::fs::remove_dir_all(directory);
        let _ = directory.parent().map(std::fs::remove_dir);
    }
    code
}

/// Waits for a process that has been told to end; kills it if it does not.
fn end(child: &mut Child) {
    let deadline = Instant::now() + END_PATIENCE;
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    if !crate::head::has_ended_before(pid, deadline) {
        let _ = child.kill();
    }
    let _ = child.wait();
}

/// The directory of a session; removed on drop.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Held while the session lives: a directory whose lock is free is left over from one that was killed.
    _lock: Flock<std::fs::File>,
}

const LOCK: &str = "lock";
const SESSION: &str = "session-";

impl Directory {
    fn make(base: Option<PathBuf>) -> std::io::Result<Self> {
        let base = base.unwrap_or_else(sessions_dir);
        let context = |what: &str, path: &Path, error: std::io::Error| {
            std::io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
        };
        if let Err(error) = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&base) {
            return Err(context("cannot make the directory", &base, error));
        }
        let owner = std::fs::symlink_metadata(&base)?;
        if !owner.is_dir() || owner.uid() != nix::unistd::geteuid().as_raw() {
            let message = format!("{} is not a directory of this user's: give another one", base.display());
            return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, message));
        }
        remove_left_over(&base);
        // Under another name until it is locked, so that nobody takes it for left over.
        let (mut number, pid) = (0, std::process::id());
        let (fresh, path) = loop {
            let fresh = base.join(format!("new-{pid}-{number}"));
            match std::fs::DirBuilder::new().mode(0o700).create(&fresh) {
                Ok(()) => break (fresh, base.join(format!("{SESSION}{pid}-{number}"))),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(context("cannot make the directory", &fresh, error)),
            }
        };
        let lock = std::fs::File::create(fresh.join(LOCK))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        std::fs::rename(&fresh, &path).map_err(|error| context("cannot make the directory", &path, error))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        // The base goes too when this was the last session in it.
        let _ = self.path.parent().map(std::fs::remove_dir);
    }
}

/// Where sessions are made, unless a builder says otherwise.
fn sessions_dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_dir()) {
        Some(runtime) => Path::new(&runtime).join("mobula"),
        None => PathBuf::from(OsString::from(format!("/tmp/mobula-{}", nix::unistd::geteuid()))),
    }
}

/// Sessions of this user's that are running: their stores' sockets.
///
/// ```
/// let _mobula = mobula::init()?;
/// assert!(mobula::sessions().contains(&_mobula.socket().to_owned()));
/// # Ok::<(), mobula::Error>(())
/// ```
pub fn sessions() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(sessions_dir()) else { return Vec::new() };
    let mut sockets: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_live(path) == Some(true))
        .map(|path| path.join("store.sock"))
        .collect();
    sockets.sort();
    sockets
}

/// Whether the session of a directory is alive; `None` for a directory that is not (yet) a session's.
fn is_live(directory: &Path) -> Option<bool> {
    directory.file_name()?.to_str()?.strip_prefix(SESSION)?;
    let lock = std::fs::File::open(directory.join(LOCK)).ok()?;
    match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(_free) => Some(false),
        Err(_) => Some(true),
    }
}

/// Removes what sessions left whose driver and store were killed together.
fn remove_left_over(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_live(&path) == Some(false) {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}
