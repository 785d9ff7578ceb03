//! The file of a process's metrics. Each series is one record: it is appended once, and its values are written in
//! offset.
//!
//! A record is a line of JSON, filled with blanks so that it ends at a multiple of 8 bytes, and then its values, 8
//! bytes each, as little-endian floating-point numbers. The process is the only writer.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::MetricDescription;

/// The name of the directory in the session's directory.
pub(super) const DIRECTORY: &str = "metrics";

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct MetricFile {
    file: Arc<File>,
    /// The offset of the next record.
    end: Mutex<u64>,
}

/// The offset of the values of a series.
#[derive(Debug)]
pub(super) struct ValuesOffset {
    file: Arc<File>,
    at: u64,
}

impl MetricFile {
    /// Makes the file of this process.
    pub(super) fn make(session: &Path) -> std::io::Result<Self> {
        let directory = session.join(DIRECTORY);
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&directory)?;
        // A process id may be used again.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = directory.join(format!("{}-{now}", std::process::id()));
        let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let file = File::options().write(true).create_new(true).mode(0o600).custom_flags(flags).open(path)?;
        Ok(Self { file: Arc::new(file), end: Mutex::new(0) })
    }

    /// Appends a series. `None` if the disk is full.
    pub(super) fn append(&self, description: &MetricDescription, values: &[f64]) -> Option<ValuesOffset> {
        let mut end = self.end.lock();
        let mut record = serde_json::to_vec(description).ok()?;
        while !(record.len() + 1).is_multiple_of(8) {
            record.push(b' ');
        }
        record.push(b'\n');
        let at = *end + record.len() as u64;
        record.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.file.write_all_at(&record, *end).ok()?;
        *end += record.len() as u64;
        Some(ValuesOffset { file: self.file.clone(), at })
    }
}

impl ValuesOffset {
    /// Writes the values.
    pub(super) fn write(&self, values: &[f64]) {
        let written = match values {
            [value] => self.file.write_all_at(&value.to_le_bytes(), self.at),
            values => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.file.write_all_at(&bytes, self.at)
            }
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a metric cannot be written");
        }
    }
}
