//! The kernel's figures about processes: descent, CPU time, memory.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that is not mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    started: u64,
}

/// The fields of `/proc/PID/stat` from the state on, which follows the name in brackets.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn field(fields: &[String], number: usize) -> Option<u64> {
    // The manual counts from 1, and the state is number 3.
    fields.get(number - 3)?.parse().ok()
}

/// The process with a number now.
pub(crate) fn process(pid: u32) -> Option<Process> {
    Some(Process { pid, started: field(&stat(pid)?, 22)? })
}

/// All processes that descend from one, without itself; those that are only waiting to be reaped too.
pub(crate) fn descendants(root: u32) -> Vec<Process> {
    let mut children: HashMap<u32, Vec<Process>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(fields) = stat(pid) else { continue };
        if let (Some(parent), Some(started)) = (field(&fields, 4), field(&fields, 22)) {
            children.entry(parent as u32).or_default().push(Process { pid, started });
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            next.push(child.pid);
            found.push(child);
        }
    }
    found
}

/// The oldest of a process's children.
pub(crate) fn first_child(parent: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Sends a signal to a process and all that descend from it.
pub(crate) fn signal_tree(root: u32, signal: Signal) {
    let tree = descendants(root);
    let _ = kill(Pid::from_raw(root as i32), signal);
    for child in tree {
        let _ = kill(Pid::from_raw(child.pid as i32), signal);
    }
}

/// Kills those of the processes that are still there.
pub(crate) fn end(processes: &[Process]) {
    for was in processes {
        if process(was.pid) == Some(*was) {
            let _ = kill(Pid::from_raw(was.pid as i32), Signal::SIGKILL);
        }
    }
}

/// CPU time that all threads of a process and its descendants have used. Threads that have ended since do not count.
pub(crate) fn cpu_time(root: u32) -> Duration {
    let mut nanoseconds = 0;
    for pid in tree(root) {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            // Finer than the hundredths of a second in `stat`.
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            nanoseconds +=
                text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(nanoseconds)
}

/// Memory that a process and its descendants take: private memory, their part of the memory that they share with
/// others, and all shared memory that they have open, mapped or not.
pub(crate) fn memory_bytes(root: u32) -> u64 {
    let (mut own, mut shared) = (0, 0);
    let (mut files, mut file_bytes) = (HashSet::new(), 0);
    for pid in tree(root) {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kilobytes = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        own += kilobytes("Pss:").saturating_sub(kilobytes("Pss_Shmem:"));
        shared += kilobytes("Pss_Shmem:");
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            if !target.starts_with("/memfd:") && !target.starts_with("/dev/shm/") {
                continue;
            }
            if let Ok(metadata) = std::fs::metadata(entry.path())
                && files.insert((metadata.dev(), metadata.ino()))
            {
                file_bytes += metadata.blocks() * 512;
            }
        }
    }
    own + shared.max(file_bytes)
}

fn tree(root: u32) -> Vec<u32> {
    let children = descendants(root).into_iter().map(|process| process.pid);
    std::iter::once(root).chain(children).collect()
}
