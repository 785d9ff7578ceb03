//! The kernel's account of a process: its descriptors, its mappings, its memory.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The shared memories of Mobula that a process has open, by their names: for each the files (by inode), once each.
pub(crate) fn memories_open(pid: u32) -> BTreeMap<String, BTreeSet<u64>> {
    let mut open: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if let Some(name) = memory_name(&target.to_string_lossy())
            && let Ok(metadata) = std::fs::metadata(entry.path())
        {
            open.entry(name).or_default().insert(metadata.ino());
        }
    }
    open
}

/// Bytes of all shared memories that a process has open, as far as they have pages.
pub(crate) fn memory_bytes(pid: u32) -> u64 {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if memory_name(&target.to_string_lossy()).is_some()
            && let Ok(metadata) = std::fs::metadata(entry.path())
        {
            files.insert(metadata.ino(), metadata.blocks() * 512);
        }
    }
    files.values().sum()
}

/// How many files below a directory a process has open, with a name or without, each counted once.
pub(crate) fn files_open(pid: u32, directory: &Path) -> usize {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if target.starts_with(directory)
            && let Ok(metadata) = std::fs::metadata(entry.path())
            && metadata.is_file()
        {
            files.insert(metadata.ino());
        }
    }
    files.len()
}

/// How many descriptors a process has.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The threads of a process: the name of each, its state, and the function of the kernel that it sleeps in.
pub(crate) fn threads(pid: u32) -> String {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |path: &Path, name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
    let threads = entries.map(|entry| {
        let path = entry.path();
        let stat = read(&path, "stat");
        let state = stat.rsplit(')').next().unwrap_or_default().split_whitespace().next().unwrap_or("?");
        format!("{} {state} {}", read(&path, "comm").trim(), read(&path, "wchan"))
    });
    threads.collect::<Vec<_>>().join(", ")
}

/// A mapping of a shared memory of Mobula.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) name: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Where in the memory it begins.
    pub(crate) offset: u64,
    pub(crate) writable: bool,
}

/// The mappings of Mobula's memories in a process (`self` or a number).
pub(crate) fn mappings(pid: &str) -> Vec<Mapping> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter_map(mapping).collect()
}

/// A line of `/proc/PID/maps`; `None` where it is about something else.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    let name = memory_name(words.nth(2)?)?;
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let offset = u64::from_str_radix(offset, 16).ok()?;
    Some(Mapping { name, start, end, offset, writable: rights.starts_with("rw") })
}

/// `segment` for `/memfd:mobula-segment (deleted)`.
fn memory_name(target: &str) -> Option<String> {
    let name = target.strip_prefix("/memfd:mobula-")?;
    Some(name.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Private memory of a process, in bytes.
pub(crate) fn private_bytes(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_read() {
        let line = "7f0000000000-7f0000200000 rw-s 00001000 00:01 77    /memfd:mobula-control (deleted)";
        let (start, end) = (0x7f00_0000_0000, 0x7f00_0020_0000);
        let name = "control".to_owned();
        let expected = Mapping { name, start, end, offset: 0x1000, writable: true };
        assert_eq!(mapping(line), Some(expected));
        assert_eq!(mapping("7f0000000000-7f0000200000 r--p 00000000 00:01 77    /usr/lib/libc.so"), None);
        assert_eq!(mapping("7f0000000000-7f0000200000 rw-p 00000000 00:00 0"), None);
    }
}
