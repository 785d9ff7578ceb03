//! Code that the tests share: one session at a time in a process, waiting for conditions, and stores of their own.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mobula_client::{Client, ClientError, ConnectOptions, Layout, Object, ObjectId, Stats};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub mod carriers;
mod content;
pub mod hostile;
pub mod planned;

pub use content::{Random, fill, is_content_of};

/// How long a condition may take to come true before a test fails. Generous: it only ends tests that have failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

static SESSION_LOCK: Mutex<()> = Mutex::new(());

/// Whether a thread of this process sleeps.
pub fn is_asleep(thread: Pid) -> bool {
    status_of(thread, "State:").starts_with('S')
}

/// How often a thread of this process has gone to sleep.
pub fn sleeps_of(thread: Pid) -> u64 {
    status_of(thread, "voluntary_ctxt_switches:").parse().expect("the kernel counts them")
}

fn status_of(thread: Pid, field: &str) -> String {
    let status =
        std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).expect("the thread is there");
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    value.expect("the field is there").trim().to_owned()
}

/// A session that no other test of this process runs beside.
pub struct TestSession {
    /// Dropped first: the lock is free when everything of the session is gone.
    pub session: mobula::Session,
    lock: MutexGuard<'static, ()>,
}

impl TestSession {
    /// Ends the session. While what this returns lives, no other test of this process begins one, which would have the
    /// same directory.
    pub fn end(self) -> MutexGuard<'static, ()> {
        drop(self.session);
        self.lock
    }

    /// Shuts the session down. While the guard lives, no other test of this process begins one.
    pub fn shutdown(self, timeout: Duration) -> (mobula::Result<()>, MutexGuard<'static, ()>) {
        (self.session.shutdown(timeout), self.lock)
    }
}

/// Starts a session with `workers` workers and a small store, in a directory of its own.
pub fn session(workers: usize) -> TestSession {
    session_with(mobula::Builder::new().workers(workers).capacity_bytes(256 << 20))
}

/// Starts a session as the builder says.
pub fn session_with(builder: mobula::Builder) -> TestSession {
    let lock = session_lock();
    TestSession { session: builder.init().expect("a session starts"), lock }
}

/// Waits until no other test of this process has a session.
pub fn session_lock() -> MutexGuard<'static, ()> {
    SESSION_LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tries until there is no error. For clients with so little patience that a busy machine uses it up.
///
/// # Panics
/// When there still is one after [`PATIENCE`].
pub fn first_ok<T>(what: &str, mut attempt: impl FnMut() -> Result<T, ClientError>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process exists and is not just waiting to be reaped.
pub fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// The processes that belong to the session with this socket: its store, its workers, and the processes that they have
/// forked. They are known by the arguments that they were started with. Zombies, and the driver, are not among them.
pub fn session_processes(socket: &Path) -> Vec<u32> {
    use std::os::unix::ffi::OsStrExt;
    let name: String = socket.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let belongs = |pid: &u32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.windows(name.len()).any(|part| part == name.as_bytes()) && is_running(*pid)
    };
    pids.filter(belongs).collect()
}

impl Random {
    /// The sequence of the seed in `MOBULA_SEED`, or of the time; printed, so that a failure can be replayed.
    pub fn from_environment() -> Self {
        let seed = std::env::var("MOBULA_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |now| now.as_nanos() as u64)
        };
        let seed = seed.unwrap_or_else(now).max(1);
        println!("MOBULA_SEED={seed}");
        Self::from_seed(seed)
    }
}

// ---- stores and processes that use them ----

/// Puts an object with the content of its id.
///
/// # Errors
/// The client's.
pub fn put_content(client: &Client, length: u64) -> Result<Object, ClientError> {
    put_layout(client, Layout::new(length))
}

/// The same for any layout.
///
/// # Errors
/// The client's.
pub fn put_layout(client: &Client, layout: Layout) -> Result<Object, ClientError> {
    let mut writer = client.create(layout)?;
    let id = writer.id();
    fill(&mut writer, id);
    Ok(writer.seal())
}

/// The name of an error's kind, as its type spells it.
pub fn kind_of(error: &ClientError) -> String {
    let text = match error {
        ClientError::Refused(refusal) => format!("{refusal:?}"),
        other => format!("{other:?}"),
    };
    text.chars().take_while(|letter| letter.is_alphanumeric()).collect()
}

/// The kind of the error that a result should be.
///
/// # Panics
/// When it is none.
pub fn error_kind<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => kind_of(&error),
    }
}

/// Where a store's daemon spills.
struct Spill {
    directory: PathBuf,
    bytes_max: u64,
    /// Options of a file system of its own there.
    mount: Option<String>,
}

/// A store's daemon in a directory of its own; killed, and the directory removed, on drop.
pub struct Store {
    program: &'static str,
    capacity_bytes: u64,
    clients_max: u32,
    spill: Option<Spill>,
    daemon: Process,
    directory: TempDir,
}

impl Store {
    /// Starts a daemon. `program` is `mobula-test-peer`.
    pub fn start(program: &'static str, capacity_bytes: u64) -> Self {
        Self::start_for(program, capacity_bytes, 64)
    }

    /// The same, for so many clients at a time.
    pub fn start_for(program: &'static str, capacity_bytes: u64, clients_max: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("mobula-test-").tempdir().unwrap();
        let socket = directory.path().join("store.sock");
        let daemon = Self::daemon(program, &socket, capacity_bytes, clients_max, None);
        Self { program, capacity_bytes, clients_max, spill: None, daemon, directory }
    }

    /// Starts a daemon that spills up to so many bytes into a directory.
    pub fn start_spilling(
        program: &'static str,
        capacity_bytes: u64,
        spill_directory: &Path,
        spill_bytes_max: u64,
    ) -> Self {
        let spill = Spill { directory: spill_directory.to_owned(), bytes_max: spill_bytes_max, mount: None };
        Self::start_spilling_as(program, capacity_bytes, spill)
    }

    /// Starts a daemon that spills into a directory at which it alone sees a file system in memory, mounted with
    /// `options`; `None`, said aloud, where that is not possible.
    pub fn start_spilling_into_mount(
        program: &'static str,
        capacity_bytes: u64,
        spill_directory: &Path,
        options: &str,
    ) -> Option<Self> {
        let script = "mount -t tmpfs -o size=1m none \"$0\"";
        let can = Command::new("unshare").args(["-m", "sh", "-c", script]).arg(spill_directory).status();
        if !can.is_ok_and(|status| status.success()) {
            println!("SKIP: this process may not mount a file system of its own");
            return None;
        }
        let (directory, mount) = (spill_directory.to_owned(), Some(options.to_owned()));
        Some(Self::start_spilling_as(program, capacity_bytes, Spill { directory, bytes_max: 1 << 40, mount }))
    }

    fn start_spilling_as(program: &'static str, capacity_bytes: u64, spill: Spill) -> Self {
        let directory = tempfile::Builder::new().prefix("mobula-test-").tempdir().unwrap();
        let (socket, clients_max) = (directory.path().join("store.sock"), 64);
        let spill = Some(spill);
        let daemon = Self::daemon(program, &socket, capacity_bytes, clients_max, spill.as_ref());
        Self { program, capacity_bytes, clients_max, spill, daemon, directory }
    }

    /// The same with other limits, by the names of their fields.
    pub fn start_with(program: &'static str, capacity_bytes: u64, limits: &[(&str, u64)]) -> Self {
        Self::start_by(Command::new(program), program, capacity_bytes, limits)
    }

    /// The same, the daemon started by another command line, which gets the arguments.
    pub fn start_by(
        mut command: Command,
        program: &'static str,
        capacity_bytes: u64,
        limits: &[(&str, u64)],
    ) -> Self {
        let directory = tempfile::Builder::new().prefix("mobula-test-").tempdir().unwrap();
        let (socket, clients_max) = (directory.path().join("store.sock"), 64);
        command.arg("store").arg(socket).arg(capacity_bytes.to_string()).arg(clients_max.to_string());
        command.args(limits.iter().map(|(limit, value)| format!("{limit}={value}")));
        let mut daemon = Process::start(command);
        assert_eq!(daemon.answer().as_deref(), Ok("ready"), "the daemon starts");
        Self { program, capacity_bytes, clients_max, spill: None, daemon, directory }
    }

    fn daemon(
        program: &str,
        socket: &Path,
        capacity_bytes: u64,
        clients_max: u32,
        spill: Option<&Spill>,
    ) -> Process {
        let mut command = match spill {
            Some(Spill { directory, mount: Some(options), .. }) => {
                let script = format!("mount -t tmpfs -o {options} none \"$0\" && exec \"$@\"");
                let mut command = Command::new("unshare");
                command.args(["-m", "sh", "-c", &script]).arg(directory).arg(program);
                command
            }
            _ => Command::new(program),
        };
        command.arg("store").arg(socket).arg(capacity_bytes.to_string()).arg(clients_max.to_string());
        if let Some(Spill { directory, bytes_max, .. }) = spill {
            command.arg(directory).arg(bytes_max.to_string());
        }
        let mut daemon = Process::start(command);
        assert_eq!(daemon.answer().as_deref(), Ok("ready"), "the daemon starts");
        daemon
    }

    /// Starts another daemon at the path of one that has ended.
    pub fn start_again(&mut self) {
        self.daemon = Self::daemon(
            self.program,
            &self.socket(),
            self.capacity_bytes,
            self.clients_max,
            self.spill.as_ref(),
        );
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory().join("store.sock")
    }

    /// The program that its daemon is, and its peers.
    pub fn program(&self) -> &'static str {
        self.program
    }

    /// The directory of the socket.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The daemon, to be asked nothing.
    pub fn daemon_process(&mut self) -> &mut Process {
        &mut self.daemon
    }

    /// This process as a client.
    pub fn client(&self) -> Client {
        Client::connect(self.socket()).expect("the store takes a client")
    }

    /// The same, with options.
    pub fn client_with(&self, options: ConnectOptions) -> Client {
        options.connect(self.socket()).expect("the store takes a client")
    }

    /// Another process as a client.
    pub fn peer(&self) -> Process {
        let mut command = Command::new(self.program);
        command.arg("client").arg(self.socket());
        self.peer_by(command)
    }

    /// The same, which waits for no other daemon when this one is killed.
    pub fn impatient_peer(&self) -> Process {
        let mut command = Command::new(self.program);
        command.arg("client").arg(self.socket()).arg("impatient");
        self.peer_by(command)
    }

    /// The same, started by another command line.
    pub fn peer_by(&self, command: Command) -> Process {
        let mut peer = Process::start(command);
        let hello = peer.answer().expect("the peer connects");
        peer.pid = hello.parse().expect("the peer says its pid");
        peer
    }

    /// Waits until a store counts no object and no byte but the capacity.
    pub fn is_empty_again(&self, client: &Client) {
        let capacity = self.capacity_bytes;
        let is_empty = |stats: &Stats| {
            let totals = &stats.totals;
            let used = totals.leased_bytes + totals.orphaned_bytes + totals.retired_bytes;
            used == 0
                && totals.free_bytes == capacity
                && (totals.spill_bytes, totals.spill_files) == (0, 0)
                && (totals.segments, totals.names, totals.dead_clients) == (0, 0, 0)
                && (stats.objects(), stats.pins()) == (0, 0)
        };
        let mut last = client.stats().unwrap();
        let start = Instant::now();
        while !is_empty(&last) {
            assert!(start.elapsed() < PATIENCE, "the store is not empty again: {last:#?}");
            std::thread::sleep(Duration::from_millis(5));
            last = client.stats().unwrap();
        }
    }

    /// Segments that the daemon has open.
    pub fn segments_open(&self) -> usize {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.daemon.pid)).unwrap();
        let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| target.to_string_lossy().contains("mobula-segment")).count()
    }
}

/// Segments that a process has mapped.
pub fn segments_mapped(pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains("mobula-segment")).count()
}

/// A child process that takes commands, a line each, and answers each with a line; killed on drop. `peer.rs` has the
/// commands.
pub struct Process {
    child: Child,
    commands: Option<ChildStdin>,
    lines: Receiver<String>,
    /// The process that answers; of a peer that a tool started, not that tool's.
    pub pid: u32,
}

impl Process {
    /// Starts one.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { pid: child.id(), commands: child.stdin.take(), child, lines }
    }

    /// Sends a command, and waits for its answer: `Ok` with what it says, or `Err` with the kind of the error.
    ///
    /// # Errors
    /// The kind of the error that the peer reported, or `Gone` when the peer did not answer any more.
    pub fn ask(&mut self, command: impl Display) -> Result<String, String> {
        if !self.send(command) {
            return Err("Gone".to_owned());
        }
        self.answer()
    }

    /// The same for a command that must succeed.
    pub fn ok(&mut self, command: impl Display) -> String {
        let text = command.to_string();
        self.ask(command).unwrap_or_else(|error| panic!("{text:.80}: {error}"))
    }

    /// The same for a command that answers with an id.
    pub fn id(&mut self, command: impl Display) -> ObjectId {
        self.ok(command).parse().expect("an id")
    }

    /// Sends a command; `false` when the process is gone.
    pub fn send(&mut self, command: impl Display) -> bool {
        let commands = self.commands.as_mut().expect("not closed");
        commands.write_all(format!("{command}\n").as_bytes()).is_ok()
    }

    /// Waits for the answer to a command that was sent.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn answer(&mut self) -> Result<String, String> {
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err("Gone".to_owned()),
            Err(error) => panic!("process {} does not answer: {error}", self.pid),
        };
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("ok", answer) => Ok(answer.to_owned()),
            ("error", kind) => Err(kind.to_owned()),
            _ => panic!("process {} says {line:?}", self.pid),
        }
    }

    /// Whether an answer has come already.
    pub fn try_answer(&mut self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid as i32), signal).expect("the process is there");
    }

    /// Kills the process, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "process {} ended by itself", self.pid);
    }

    /// Ends its commands, and waits until it has ended by itself.
    pub fn end(&mut self) -> ExitStatus {
        self.commands = None;
        self.wait()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "process {} does not end", self.pid);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its commands end too, which is what a traced peer ends by.
        self.commands = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
