//! The description of a session that drivers share, in a file of its directory: its process reads it at each start,
//! also after a kill, and drivers read it when they join.
//!
//! The first line gives the version of the layout, so a program with another version gets an error and does not misread
//! the rest.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::options::SessionOptions;
use super::super::surroundings;
use crate::error::{Error, Result};
use crate::head::MemoryOptions;
use crate::resources::Resources;
use crate::wire;

const FILE: &str = "session";
/// The first line. Its number is the version of the layout of the rest, and of the records between drivers and the
/// session's process.
const FIRST_LINE: &str = concat!("mobula session 1, started by mobula ", env!("CARGO_PKG_VERSION"), "\n");

/// See the module's documentation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) capacity_bytes: u64,
    pub(super) spill_directory: Option<OsString>,
    pub(super) spill_bytes_max: Option<u64>,
    pub(super) resources: Resources,
    /// The names of the GPUs.
    pub(super) gpus: Vec<String>,
    pub(super) memory: MemoryOptions,
    /// The link to the session's directory. It is removed with the directory.
    pub(super) link: Option<OsString>,
}

impl Description {
    pub(super) fn of(options: &SessionOptions, link: Option<&Path>) -> Result<Self> {
        let capacity_bytes = options.capacity_bytes.unwrap_or_else(surroundings::default_capacity_bytes);
        Ok(Self {
            capacity_bytes,
            spill_directory: surroundings::spill_directory(options)?,
            spill_bytes_max: options.spill_bytes_max,
            resources: options.resources(capacity_bytes)?,
            gpus: options.gpu_names()?,
            memory: options.memory(),
            link: link.map(Into::into),
        })
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let mut bytes = FIRST_LINE.as_bytes().to_vec();
        wire::append(self, &mut bytes);
        // Under another name until it is whole.
        let part = directory.join(format!("{FILE}.part"));
        std::fs::write(&part, bytes)?;
        std::fs::rename(&part, directory.join(FILE))
    }

    /// Reads the description of a session.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let bad = |reason: String| {
            Error::Start(format!("the session in {} cannot be joined: {reason}", directory.display()))
        };
        let bytes = std::fs::read(&path).map_err(|error| bad(error.to_string()))?;
        match bytes.strip_prefix(FIRST_LINE.as_bytes()) {
            Some(rest) => wire::read(rest).map_err(|error| bad(format!("{}: {error}", path.display()))),
            None => {
                let line =
                    String::from_utf8_lossy(bytes.split(|byte| *byte == b'\n').next().unwrap_or_default());
                Err(bad(format!(
                    "its file begins with {line:?}, and this program's would with {FIRST_LINE:?}"
                )))
            }
        }
    }

    /// Whether there is one: the session in this directory is shared, and was not stopped.
    pub(super) fn is_in(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// When the session in this directory was started.
    pub(super) fn written(directory: &Path) -> Option<std::time::SystemTime> {
        std::fs::metadata(directory.join(FILE)).ok()?.modified().ok()
    }
}
