//! Reads the metrics of all processes of a session.

use std::path::Path;

use super::file::DIRECTORY;
use super::{MetricDescription, MetricKind};

/// The most bytes of a file of metrics; a longer file is ignored.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The most values of a series.
const VALUES_MAX: usize = 10_000;

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
    let Ok(entries) = std::fs::read_dir(session.join(DIRECTORY)) else { return Vec::new() };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split_once('-')?.0.parse().ok());
        let is_small = entry.metadata().is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES_MAX);
        if let (Some(pid), true, Ok(bytes)) = (pid, is_small, std::fs::read(entry.path())) {
            read(pid, &bytes, &mut all);
        }
    }
    all
}

/// The complete records of a file.
fn read(pid: u32, mut bytes: &[u8], all: &mut Vec<MetricSeries>) {
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
