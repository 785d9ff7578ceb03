//! Reads the metrics of all processes of a session.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use super::file::DIRECTORY;
use super::{MetricDescription, MetricKind};

/// The most bytes of a file of metrics; a longer file is ignored.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The most values of a series.
const VALUES_MAX: usize = 10_000;

/// How often the files are read again, if processes have made or taken over files meanwhile.
const READINGS_MAX: usize = 10;

/// A series of one process.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MetricSeries {
    /// The process. It may have ended.
    pub pid: u32,
    /// Its description.
    pub description: MetricDescription,
    /// The value; for a histogram, the counts of its buckets, the count of larger values, and the sum.
    pub values: Vec<f64>,
}

/// The metrics of all processes of the session with this store, also of those that have ended. Reads one file for each.
#[must_use]
pub fn metrics_of_session(socket: &Path) -> Vec<MetricSeries> {
    let Some(session) = socket.parent() else { return Vec::new() };
    let directory = session.join(DIRECTORY);
    let mut files = files_of(&directory);
    let mut all = Vec::new();
    for _ in 0..READINGS_MAX {
        all.clear();
        for (pid, path) in &files {
            let is_small =
                path.symlink_metadata().is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES_MAX);
            if let (true, Ok(bytes)) = (is_small, std::fs::read(path)) {
                read(*pid, &bytes, &mut all);
            }
        }
        // A file that is taken over gets another name, and could be missed or read twice.
        let after = files_of(&directory);
        if after == files {
            break;
        }
        files = after;
    }
    all
}

/// The files of metrics in a directory, with the processes that write them.
fn files_of(directory: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> =
        entries.flatten().filter_map(|entry| Some((pid_of(&entry)?, entry.path()))).collect();
    files.sort();
    files
}

/// The process of a file of metrics; `None` if it is another file, or not finished.
pub(super) fn pid_of(entry: &DirEntry) -> Option<u32> {
    entry.file_name().to_str()?.split_once('-')?.0.parse().ok()
}

/// The complete records of a file.
pub(super) fn read(pid: u32, mut bytes: &[u8], all: &mut Vec<MetricSeries>) {
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let Ok(description) = serde_json::from_slice::<MetricDescription>(&bytes[..end]) else { return };
        let count = match description.kind {
            MetricKind::Histogram => description.bounds.len() + 2,
            _ => 1,
        };
        if count > VALUES_MAX {
            return;
        }
        let (from, to) = (end + 1, end + 1 + count * 8);
        let Some(words) = bytes.get(from..to) else { return };
        let values = words.chunks_exact(8).map(|word| f64::from_le_bytes(word.try_into().expect("8 bytes")));
        all.push(MetricSeries { pid, description, values: values.collect() });
        bytes = &bytes[to..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::file::MetricFile;

    #[test]
    fn what_is_written_is_read_back() {
        let session = tempfile::tempdir().unwrap();
        let file = MetricFile::make(session.path()).unwrap();
        let describe = |name: &str, kind, bounds: &[f64]| MetricDescription {
            name: name.into(),
            help: "two\nlines".into(),
            kind,
            tags: vec![("k".into(), "v \"\\".into())],
            bounds: bounds.to_vec(),
        };
        let (counter, histogram) =
            (describe("c", MetricKind::Counter, &[]), describe("h", MetricKind::Histogram, &[1.0]));
        let one = file.append(&counter, &[1.0]).unwrap();
        let two = file.append(&histogram, &[0.0; 3]).unwrap();
        one.write(&[5.5]);
        two.write(&[1.0, 2.0, 30.0]);
        let found = metrics_of_session(&session.path().join("store.sock"));
        let values: Vec<_> =
            found.iter().map(|series| (&series.description, series.values.clone())).collect();
        assert_eq!(values, [(&counter, vec![5.5]), (&histogram, vec![1.0, 2.0, 30.0])]);
        assert!(found.iter().all(|series| series.pid == std::process::id()));
    }

    #[test]
    fn the_file_of_an_ended_process_is_taken_over() {
        let session = tempfile::tempdir().unwrap();
        let socket = session.path().join("store.sock");
        let describe = |name: &str, kind, bounds: &[f64]| MetricDescription {
            name: name.into(),
            help: String::new(),
            kind,
            tags: Vec::new(),
            bounds: bounds.to_vec(),
        };
        let counter = describe("counter", MetricKind::Counter, &[]);
        let gauge = describe("gauge", MetricKind::Gauge, &[]);
        let histogram = describe("histogram", MetricKind::Histogram, &[1.0]);
        let values = || {
            let mut all: Vec<_> = metrics_of_session(&socket)
                .into_iter()
                .map(|series| (series.description.name, series.values))
                .collect();
            all.sort_by(|one, other| one.0.cmp(&other.0));
            all
        };
        let (counted, measured) = ("counter".to_owned(), "histogram".to_owned());
        for round in 1..=5 {
            let sum = f64::from(round);
            let file = MetricFile::make(session.path()).unwrap();
            assert!(round == 1 || values()[0] == (counted.clone(), vec![2.0 * (sum - 1.0)]));
            let one = file.append(&counter, &[0.0]).unwrap();
            file.append(&gauge, &[7.0]).unwrap();
            file.append(&histogram, &[1.0, 0.0, 0.5]).unwrap();
            one.write(&[2.0]);
            let expected = [
                (counted.clone(), vec![2.0 * sum]),
                ("gauge".to_owned(), vec![7.0]),
                (measured.clone(), vec![sum, 0.0, 0.5 * sum]),
            ];
            assert_eq!(values(), expected);
            // One that lives keeps its file.
            if round == 5 {
                let other = MetricFile::make(session.path()).unwrap();
                other.append(&counter, &[100.0]).unwrap();
                assert!(values().contains(&(counted.clone(), vec![2.0 * sum])));
                assert_eq!(std::fs::read_dir(session.path().join(DIRECTORY)).unwrap().count(), 2);
            } else {
                assert_eq!(std::fs::read_dir(session.path().join(DIRECTORY)).unwrap().count(), 1);
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        let session = tempfile::tempdir().unwrap();
        let file = MetricFile::make(session.path()).unwrap();
        let counter = MetricDescription {
            name: "c".into(),
            help: String::new(),
            kind: MetricKind::Counter,
            tags: Vec::new(),
            bounds: Vec::new(),
        };
        file.append(&counter, &[1.0]).unwrap();
        let path = std::fs::read_dir(session.path().join(DIRECTORY)).unwrap().next().unwrap().unwrap().path();
        let bytes = std::fs::read(path).unwrap();
        for length in 0..bytes.len() {
            let mut all = Vec::new();
            read(1, &bytes[..length], &mut all);
            assert!(all.is_empty(), "{length}");
        }
    }
}
