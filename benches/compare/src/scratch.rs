//! The places of the harness's and the rivals' files, and their removal, also on Ctrl-C and on a panic.
//!
//! The harness is the reaper of all its descendants. So it finds every process that it has caused: processes that a
//! rival leaves behind become its own children.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use tempfile::TempDir;

use crate::procfs;

/// The directory for files in memory.
const MEMORY: &str = "/dev/shm";
/// The beginning of the names of the harness's own files. Its process number follows, so that files left by a harness
/// that was killed are known: their owner is gone.
const NAME: &str = "mobula_cmp_";

/// Whether a signal has come.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Directories that go with this value, and with them every process that was started.
pub(crate) struct Scratch {
    directory: TempDir,
    memory: TempDir,
    iceoryx_prefix: String,
}

impl Scratch {
    /// Makes the directories, and sees to it that a signal clears up too. To be called on the only thread.
    pub(crate) fn make() -> std::io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        // Blocked before there is a second thread, so that only the one below takes them.
        let signals = ending();
        signals.thread_block()?;
        // Short, because sockets' paths are.
        let base = if Path::new(MEMORY).is_dir() { PathBuf::from(MEMORY) } else { std::env::temp_dir() };
        for place in [&std::env::temp_dir(), &base] {
            remove_left_over(place);
        }
        let prefix = format!("{NAME}{}_", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let memory = tempfile::Builder::new().prefix(&prefix).tempdir_in(base)?;
        let scratch = Self { directory, memory, iceoryx_prefix: prefix };
        let paths = [scratch.directory().to_owned(), scratch.memory().to_owned()];
        let prefix = scratch.iceoryx_prefix.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let signal = signals.wait();
            ENDING.store(true, Ordering::Release);
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

    /// The beginning of the names of iceoryx2's shared memory.
    pub(crate) fn iceoryx_prefix(&self) -> &str {
        &self.iceoryx_prefix
    }
}

/// Does not return when a signal has come: answers of contenders that are being ended mean nothing.
pub(crate) fn go_on() {
    while ENDING.load(Ordering::Acquire) {
        std::thread::park();
    }
}

/// Lets a signal end this process again: a mask is inherited, and a program that a side starts may be ended by a
/// signal.
pub(crate) fn end_by_signals() -> nix::Result<()> {
    ending().thread_unblock()
}

/// The signals that end the harness.
fn ending() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        clear(&[self.directory().to_owned(), self.memory().to_owned()], &self.iceoryx_prefix);
    }
}

/// Removes files of harnesses that were killed.
fn remove_left_over(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = owner_of(&name.to_string_lossy());
        if owner.is_some_and(|owner| procfs::process(owner).is_none()) {
            let _ = std::fs::remove_dir_all(entry.path());
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The process that a file is named after.
fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(NAME)?.split_once('_')?.0.parse().ok()
}

/// Ends every process that descends from this one, and removes their files.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_names_its_owner() {
        assert_eq!(owner_of("mobula_cmp_641_kvXvLw"), Some(641));
        assert_eq!(owner_of("mobula_cmp_641_9204dd.node.0_10_0.global_mgmt"), Some(641));
        assert_eq!(owner_of("mobula_cmp_x_kvXvLw"), None);
        assert_eq!(owner_of("mobula-641"), None);
    }
}
