//! Spill files: the daemon makes them, counts their bytes, and keeps a descriptor of each for the time after the
//! owner's death. It looks into a file only then.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mobula_protocol::message::Refusal;

use crate::config::Config;
use crate::daemon::answer::limit_reached;
use crate::daemon::spill::disk::Disk;
use crate::memory::Attachment;

/// All spill files, by their owner's slot and their number.
#[derive(Debug, Default)]
pub(crate) struct SpillFiles {
    disk: Option<Disk>,
    files: BTreeMap<(u16, u32), SpillFile>,
    last_number: u32,
    bytes: u64,
}

#[derive(Debug)]
struct SpillFile {
    file: Arc<File>,
    bytes: u64,
}

impl SpillFiles {
    /// From now on files are made on this disk, or not at all.
    pub(crate) fn set_disk(&mut self, disk: Option<Disk>) {
        self.disk = disk;
    }

    /// The disk, for another daemon of this store.
    pub(crate) fn take_disk(&mut self) -> Option<Disk> {
        self.disk.take()
    }

    /// Whether files can be made.
    pub(crate) fn have_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Bytes and number of all files.
    pub(crate) fn usage(&self) -> (u64, usize) {
        (self.bytes, self.files.len())
    }

    /// Makes a file for `bytes` of an owner's objects. A refusal says that `free_bytes` of the capacity are free.
    pub(crate) fn make(
        &mut self,
        config: &Config,
        free_bytes: u64,
        owner: u16,
        bytes: u64,
    ) -> Result<(u32, Arc<File>), Refusal> {
        let capacity_bytes = config.capacity_bytes;
        let failed =
            |reason| Refusal::SpillFailed { requested_bytes: bytes, capacity_bytes, free_bytes, reason };
        let Some(disk) = &mut self.disk else {
            return Err(failed("the store has no directory to spill into".to_owned()));
        };
        if self.files.len() >= config.spill_files_max {
            return Err(limit_reached("spill_files_max", config.spill_files_max as u64));
        }
        if self.bytes.checked_add(bytes).is_none_or(|sum| sum > config.spill_bytes_max) {
            return Err(limit_reached("spill_bytes_max", config.spill_bytes_max));
        }
        let file = disk
            .create()
            .map_err(|error| failed(format!("cannot make a file in {}: {error}", disk.path().display())))?;
        let file = Arc::new(file);
        self.last_number = self.last_number.wrapping_add(1).max(1);
        self.bytes += bytes;
        self.files.insert((owner, self.last_number), SpillFile { file: file.clone(), bytes });
        Ok((self.last_number, file))
    }

    /// Takes over a file that has outlived the previous daemon.
    pub(crate) fn resume(&mut self, owner: u16, number: u32, bytes: u64, file: File) {
        if number == 0 || self.files.contains_key(&(owner, number)) {
            return;
        }
        self.last_number = self.last_number.max(number);
        self.bytes = self.bytes.saturating_add(bytes);
        self.files.insert((owner, number), SpillFile { file: Arc::new(file), bytes });
    }

    /// A file of an owner.
    pub(crate) fn get(&self, owner: u16, number: u32) -> Option<&Arc<File>> {
        self.files.get(&(owner, number)).map(|known| &known.file)
    }

    /// A new descriptor of an owner's file that can only read, to send, and the bytes that the file counts as.
    pub(crate) fn to_read(&self, owner: u16, number: u32) -> Option<(Attachment, u64)> {
        let known = self.files.get(&(owner, number))?;
        let path = format!("/proc/self/fd/{}", known.file.as_raw_fd());
        Some((Attachment::File(Arc::new(File::open(path).ok()?)), known.bytes))
    }

    /// No spill record in a file is needed any more; `false` when there is no such file.
    pub(crate) fn discard(&mut self, owner: u16, number: u32) -> bool {
        let Some(discarded) = self.files.remove(&(owner, number)) else { return false };
        self.bytes -= discarded.bytes;
        true
    }

    /// Discards all files of an owner but those that are needed.
    pub(crate) fn discard_all_but(&mut self, owner: u16, is_needed: impl Fn(u32) -> bool) {
        let files = self.files.range((owner, 0)..=(owner, u32::MAX)).map(|((_, number), _)| *number);
        let files: Vec<u32> = files.filter(|number| !is_needed(*number)).collect();
        for number in files {
            self.discard(owner, number);
        }
    }
}
