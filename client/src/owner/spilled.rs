//! The files of this client's spilled objects, and the objects that a thread is restoring.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mobula_protocol::message::{Reply, Request};
use parking_lot::{Condvar, Mutex};

use crate::daemon::connection::Connection;
use crate::error::ClientError;

/// Where this client's spilled objects are.
pub(crate) struct Spilled {
    connection: Arc<Connection>,
    files: Mutex<BTreeMap<u32, SpillFile>>,
    /// Entries that a thread is restoring.
    restoring: Mutex<HashSet<u32>>,
    restored: Condvar,
}

struct SpillFile {
    file: Arc<File>,
    bytes: u64,
    /// Spill records in it; one more while it is being filled.
    records: u64,
}

/// A thread restores an entry's object alone. When this is dropped, others look again.
pub(crate) struct Restoring<'a> {
    spilled: &'a Spilled,
    index: u32,
}

impl Spilled {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, files: Mutex::default(), restoring: Mutex::default(), restored: Condvar::new() }
    }

    /// Asks the daemon for a file. It stays until its last record is removed, and one record more: the caller removes
    /// that when it has filled the file.
    pub(crate) fn make_file(&self, bytes: u64) -> Result<(u32, Arc<File>), ClientError> {
        let request = Request::SpillFile { bytes };
        let (_still, answer) = self.connection.request_still("make a spill file", &request)?;
        let Reply::SpillFileMade { file: number } = answer.reply else {
            return Err(ClientError::unexpected(&answer.reply));
        };
        let [descriptor]: [OwnedFd; 1] = answer.descriptors()?;
        let file = Arc::new(File::from(descriptor));
        self.files.lock().insert(number, SpillFile { file: file.clone(), bytes, records: 1 });
        Ok((number, file))
    }

    /// A file, by its number.
    pub(crate) fn file(&self, number: u32) -> Option<Arc<File>> {
        self.files.lock().get(&number).map(|known| known.file.clone())
    }

    /// An object is in a file now.
    pub(crate) fn add_record(&self, file: u32) {
        if let Some(known) = self.files.lock().get_mut(&file) {
            known.records += 1;
        }
    }

    /// An object is no longer in a file. With the last one, the file goes back to the daemon.
    pub(crate) fn remove_record(&self, file: u32) {
        let mut files = self.files.lock();
        let Some(known) = files.get_mut(&file) else { return };
        known.records -= 1;
        if known.records > 0 {
            return;
        }
        files.remove(&file);
        drop(files);
        self.connection.tell(&Request::DiscardSpillFile { file });
    }

    /// Number, bytes and descriptor of each file.
    pub(crate) fn files(&self) -> Vec<(u32, u64, Arc<File>)> {
        let files = self.files.lock();
        files.iter().map(|(number, known)| (*number, known.bytes, known.file.clone())).collect()
    }

    /// Waits until no other thread restores an entry's object.
    pub(crate) fn begin_restoring(&self, index: u32) -> Restoring<'_> {
        let mut restoring = self.restoring.lock();
        while !restoring.insert(index) {
            self.restored.wait(&mut restoring);
        }
        Restoring { spilled: self, index }
    }
}

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        self.spilled.restoring.lock().remove(&self.index);
        self.spilled.restored.notify_all();
    }
}
