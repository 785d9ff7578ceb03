//! A machine with files that say how much memory is in use, so that memory is short when the scenario says so.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;

use crate::Violation;

const TOTAL_KIB: u64 = 100 << 10;

/// See the module's documentation.
pub(super) struct Machine {
    root: TempDir,
    meminfo: File,
}

impl Machine {
    pub(super) fn new() -> Result<Self, Violation> {
        let root = tempfile::tempdir()?;
        std::fs::create_dir(root.path().join("proc"))?;
        let meminfo = File::create(root.path().join("proc/meminfo"))?;
        let machine = Self { root, meminfo };
        machine.set_short(false)?;
        Ok(machine)
    }

    /// The directory with the files, in place of the root.
    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(super) fn set_short(&self, is_short: bool) -> Result<(), Violation> {
        let available = if is_short { TOTAL_KIB / 100 } else { TOTAL_KIB / 2 };
        // The session keeps the file open. The text has one length, so it is never seen half.
        let text = format!("MemTotal: {TOTAL_KIB} kB\nMemAvailable: {available:>10} kB\nShmem: 0 kB\n");
        Ok(self.meminfo.write_all_at(text.as_bytes(), 0)?)
    }
}
