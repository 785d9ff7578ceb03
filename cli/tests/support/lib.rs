//! Support for the tests of the command: the program as a child process, waits for its effects, a session that it
//! looks at ([`watched`]), and [`peers`] of its servers.

pub mod peers;
pub mod watched;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mobula_client::{Client, ClientError, ConnectOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything that must happen may take. Nothing waits this long unless the test fails.
pub const SOON: Duration = Duration::from_secs(60);
/// Bytes of a mebibyte.
pub const MIB: u64 = 1 << 20;

/// The path of the program. Cargo builds it with its tests, and puts them into a directory beside it.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).expect("a test is in a directory of cargo's").join("mobula")
}

/// The program with these words; no session of the person who runs the tests is seen by it.
pub fn mobula(words: impl IntoIterator<Item = impl AsRef<OsStr>>, runtime_directory: &Path) -> Command {
    let mut command = Command::new(program());
    command
        .args(words)
        .env("XDG_RUNTIME_DIR", runtime_directory)
        .env_remove("MOBULA_LOG")
        .stdin(Stdio::null());
    command
}

/// The output and the exit status of the program.
pub fn run(words: impl IntoIterator<Item = impl AsRef<OsStr>>, runtime_directory: &Path) -> Output {
    let child =
        mobula(words, runtime_directory).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Running { child: Some(child) }.output()
}

/// Checks that the program fails with exit code 1, and one line that contains all of `expected`.
pub fn check_refused(
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    runtime_directory: &Path,
    expected: &[&str],
) {
    check_fails(1, words, runtime_directory, expected);
}

/// Checks that the program fails with this exit code, and one line that contains all of `expected`.
pub fn check_fails(
    code: i32,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    runtime_directory: &Path,
    expected: &[&str],
) {
    let output = run(words, runtime_directory);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty());
    assert!(text.starts_with("error: ") && text.lines().count() == 1, "not one line of error: {text:?}");
    for expected in expected {
        assert!(text.contains(expected), "{text:?} does not say {expected:?}");
    }
}

/// A `mobula store` in a directory of its own.
#[derive(Debug)]
pub struct Store {
    /// Where it and what belongs to it are.
    pub directory: TempDir,
    /// Where it listens.
    pub socket: PathBuf,
    process: Running,
}

impl Store {
    /// Starts it, and waits until it listens.
    pub fn start() -> Self {
        Self::start_logging_to(Stdio::null(), "info")
    }

    /// The same with a log of so much.
    pub fn start_logging_to(log: Stdio, level: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("store.sock");
        let words = ["store", "--capacity", "16MiB", "--socket"];
        let mut command = mobula(words, directory.path());
        let child = command.arg(&socket).stderr(log).env("MOBULA_LOG", level).spawn().unwrap();
        let mut store = Self { directory, socket, process: Running { child: Some(child) } };
        let start = Instant::now();
        loop {
            match Client::connect(&store.socket) {
                Ok(_) => return store,
                Err(ClientError::NoStore { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(store.process.is_running(), "the store ended");
            assert!(start.elapsed() < SOON, "the store does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A client that calls itself this.
    pub fn client(&self, label: &str) -> Client {
        ConnectOptions::new().label(label).connect(&self.socket).unwrap()
    }

    /// Sends a signal; returns the directory once the store has ended well.
    pub fn end(mut self, signal: Signal) -> TempDir {
        self.process.signal(signal);
        assert!(self.process.wait().success(), "{signal} is no good end");
        self.directory
    }
}

/// A child process that does not outlive the test.
#[derive(Debug)]
struct Running {
    child: Option<Child>,
}

impl Running {
    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it is taken only at the end")
    }

    fn is_running(&mut self) -> bool {
        self.child().try_wait().unwrap().is_none()
    }

    fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.child().id() as i32), signal).unwrap();
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        eventually("the process ends", || !self.is_running());
        self.child().wait().unwrap()
    }

    /// For little output, which fits a pipe.
    fn output(mut self) -> Output {
        self.wait();
        let child = self.child.take().expect("it is taken only here");
        child.wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The names in a directory.
pub fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}
