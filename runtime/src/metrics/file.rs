//! The file of a process's metrics. Each series is one record: it is appended once, and its values are written in
//! place.
//!
//! A record is a line of JSON, filled with blanks so that it ends at a multiple of 8 bytes, and then its values, 8
//! bytes each, as little-endian floating-point numbers. The process is the only writer, and has a lock on the file
//! while it lives.
//!
//! A new process takes over the file of one that has ended, if there is one, and adds to its values. So a session has
//! as many files as it had processes at one time, however many processes end.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::read::{pid_of, read};
use super::{MetricDescription, MetricKind};

/// The name of the directory in the session's directory.
pub(super) const DIRECTORY: &str = "metrics";

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct MetricFile {
    file: Arc<File>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The offset of the next record.
    end: u64,
    /// The series of the ended process that this process has not used yet.
    taken_over: Vec<(MetricDescription, ValuesOffset)>,
}

/// The offset of the values of a series.
#[derive(Debug)]
pub(super) struct ValuesOffset {
    file: Arc<File>,
    at: u64,
    /// The values of ended processes, which those of this process are added to; empty: there are none.
    before: Vec<f64>,
}

impl MetricFile {
    /// Makes the file of this process, or takes over that of a process that has ended.
    pub(super) fn make(session: &Path) -> io::Result<Self> {
        let directory = session.join(DIRECTORY);
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&directory)?;
        // A process id may be used again.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name = format!("{}-{now}", std::process::id());
        // Readers ignore this name.
        let unfinished = directory.join(format!(".{name}"));
        let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let file =
            File::options().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&unfinished)?;
        file.try_lock().map_err(io::Error::from)?;
        let made = Self { file: Arc::new(file), state: Mutex::default() };
        match unused(&directory) {
            // Its name goes to the new file, so that readers see one of the two at each time.
            Some((ended, path)) if made.take_over(&ended) => {
                fs::rename(&unfinished, &path)?;
                fs::rename(&path, directory.join(name))?;
            }
            _ => fs::rename(&unfinished, directory.join(name))?,
        }
        Ok(made)
    }

    /// Copies what an ended process has counted. Its gauges end with it.
    fn take_over(&self, ended: &File) -> bool {
        let mut bytes = Vec::new();
        let Ok(_) = io::Read::read_to_end(&mut &*ended, &mut bytes) else { return false };
        let mut all = Vec::new();
        read(0, &bytes, &mut all);
        let mut taken_over = Vec::new();
        for series in all.into_iter().filter(|series| series.description.kind != MetricKind::Gauge) {
            let Some(mut offset) = self.append(&series.description, &series.values) else { return false };
            offset.before = series.values;
            taken_over.push((series.description, offset));
        }
        self.state.lock().taken_over = taken_over;
        true
    }

    /// Appends a series. `None` if the disk is full.
    pub(super) fn append(&self, description: &MetricDescription, values: &[f64]) -> Option<ValuesOffset> {
        let mut state = self.state.lock();
        if let Some(at) = state.taken_over.iter().position(|(known, _)| known == description) {
            let (_, offset) = state.taken_over.swap_remove(at);
            offset.write(values);
            return Some(offset);
        }
        let mut record = serde_json::to_vec(description).ok()?;
        while !(record.len() + 1).is_multiple_of(8) {
            record.push(b' ');
        }
        record.push(b'\n');
        let at = state.end + record.len() as u64;
        record.extend(bytes_of(values.iter().copied()));
        self.file.write_all_at(&record, state.end).ok()?;
        state.end += record.len() as u64;
        Some(ValuesOffset { file: self.file.clone(), at, before: Vec::new() })
    }
}

impl ValuesOffset {
    /// Writes the values.
    pub(super) fn write(&self, values: &[f64]) {
        let before = self.before.iter().copied().chain(std::iter::repeat(0.0));
        let written = match (values, self.before.as_slice()) {
            ([value], []) => self.file.write_all_at(&value.to_le_bytes(), self.at),
            _ => {
                let sums = values.iter().zip(before).map(|(value, before)| value + before);
                self.file.write_all_at(&bytes_of(sums), self.at)
            }
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a metric cannot be written");
        }
    }
}

/// The file of a process that has ended, with a lock that keeps others from taking it over.
fn unused(directory: &Path) -> Option<(File, std::path::PathBuf)> {
    let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        pid_of(&entry)?;
        let file = File::options().read(true).custom_flags(flags).open(&path).ok()?;
        file.try_lock().ok()?;
        // Another process may have taken it over just before.
        path.exists().then_some((file, path))
    })
}

fn bytes_of(values: impl Iterator<Item = f64>) -> Vec<u8> {
    values.flat_map(f64::to_le_bytes).collect()
}
