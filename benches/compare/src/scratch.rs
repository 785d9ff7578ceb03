//! Where the harness and the rivals put their files, and how everything goes away again, also on Ctrl-C and on a panic.
//!
//! The harness is the reaper of whatever descends from it, so that it finds every process that it has caused: those that
//! a rival leaves behind become its own children.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use tempfile::TempDir;

use crate::procfs;

/// Where things lie in memory that has names.
const MEMORY: &str = "/dev/shm";

/// Directories that go with this value, and with them whatever was started.
pub(crate) struct Scratch {
    directory: TempDir,
    memory: TempDir,
    iceoryx_prefix: String,
}

impl Scratch {
    /// Makes the directories, and sees to it that a signal clears up too. To be called on the only thread.
    pub(crate) fn make() -> std::io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        // Blocked before there is a second thread, so that only the one below takes them. Processes that are started
        // do not inherit that.
        signals.thread_block()?;
        // Short, because sockets' paths are.
        let directory = tempfile::Builder::new().prefix("mobula-cmp-").tempdir()?;
        let base = if Path::new(MEMORY).is_dir() { PathBuf::from(MEMORY) } else { std::env::temp_dir() };
        let memory = tempfile::Builder::new().prefix("mobula-cmp-").tempdir_in(base)?;
        let scratch =
            Self { directory, memory, iceoryx_prefix: format!("mobula_cmp_{}_", std::process::id()) };
        let paths = [scratch.directory().to_owned(), scratch.memory().to_owned()];
        let prefix = scratch.iceoryx_prefix.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let signal = signals.wait();
            clear(&paths, &prefix);
            eprintln!("\nended by a signal; nothing is written");
            std::process::exit(signal.map_or(1, |signal| 128 + signal as i32));
        })?;
        Ok(scratch)
    }

    /// Files of all kinds.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Files in memory.
    pub(crate) fn memory(&self) -> &Path {
        self.memory.path()
    }

    /// What the names of iceoryx2's shared memory begin with.
    pub(crate) fn iceoryx_prefix(&self) -> &str {
        &self.iceoryx_prefix
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        clear(&[self.directory().to_owned(), self.memory().to_owned()], &self.iceoryx_prefix);
    }
}

/// Ends every process that descends from this one, and removes what they have left.
fn clear(paths: &[PathBuf], prefix: &str) {
    for _ in 0..100 {
        let left = procfs::descendants(std::process::id());
        if left.is_empty() {
            break;
        }
        procfs::end(&left);
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == nix::sys::wait::WaitStatus::StillAlive {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for entry in std::fs::read_dir(MEMORY).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    for path in paths {
        let _ = std::fs::remove_dir_all(path);
    }
}
