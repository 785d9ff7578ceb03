//! Spilling: how this client's objects go to files when the store is full, and come back.
//!
//! # Going
//!
//! The daemon asks for it, when freeing has not made room. Sealed bytes do not change, so an object is written first, and
//! whether it goes is decided afterwards: [`Own::spill`] does the handshake for it, in which it either leaves its memory
//! or stays as it was. Only a whole segment gives room back to others, so segments are emptied one after the other, the
//! one that was used least recently first, and only such in which nobody uses any bytes. What is small goes into one file
//! together, what is large alone; a file that nothing is left in goes back to the daemon. A disk that is full, or fails,
//! is noticed before anything has left its memory.
//!
//! # Coming back
//!
//! Whoever wants the bytes of a spilled object has pinned them first, so that the object stays once it is back. A thread
//! of this client brings it back itself; for another client the daemon asks. Two threads that want the same object
//! bring it back once. Where there is no memory for it, and none can be made, it stays where it is, and whoever wants the
//! bytes [reads them there](crate::spill::copy).
//!
//! # Threads
//!
//! Both take their time, and need the daemon's answers, which the client's thread receives: so they have threads of
//! their own, which exist while there is something to do. Spilling has one to itself, because bringing back may have to
//! wait until it has made room.

pub(crate) mod copy;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::{Refusal, Reply, Request};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::spill::{HEADER_BYTES, RECORD_ALIGNMENT, Record, SpillPlace};
use mobula_shm::table::Location;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use parking_lot::{Condvar, Mutex};

use crate::daemon::connection::Connection;
use crate::error::ClientError;
use crate::object::Handle;
use crate::shared::Shared;
use crate::writer::{Layout, ObjectWriter};

/// Bytes of the files that small objects share.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// An object of so many bytes has a file to itself.
const ALONE_BYTES_MIN: u64 = 16 << 20;
/// Bytes that are written, or read, in one go.
const PIECE_BYTES: usize = 1 << 20;
/// How long it may take to find out that the disk takes nothing.
const DISK_PATIENCE: Duration = Duration::from_millis(250);
/// Threads that bring back what other clients want.
const RESTORERS_MAX: usize = 4;

/// The files of this client's spilled objects, and who works on them.
pub(crate) struct Spills {
    connection: Arc<Connection>,
    files: Mutex<BTreeMap<u32, SpillFile>>,
    jobs: Mutex<Jobs>,
    /// Entries that a thread is bringing back.
    returning: Mutex<HashSet<u32>>,
    returned: Condvar,
}

/// A file that this client has spilled into.
struct SpillFile {
    file: Arc<File>,
    bytes: u64,
    /// Objects in it; one more while it is being filled.
    records: u64,
}

#[derive(Default)]
struct Jobs {
    /// Bytes that are to be spilled.
    spill: Option<u64>,
    is_spilling: bool,
    restores: VecDeque<ObjectId>,
    restorers: usize,
}

impl Spills {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            files: Mutex::default(),
            jobs: Mutex::default(),
            returning: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// What another daemon has to know: number, bytes and descriptor of each file.
    pub(crate) fn files(&self) -> Vec<(u32, u64, Arc<File>)> {
        let files = self.files.lock();
        files.iter().map(|(number, known)| (*number, known.bytes, known.file.clone())).collect()
    }

    /// An object is no longer in a file; the last one lets the file go.
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

    /// A file, by its number.
    pub(crate) fn file(&self, number: u32) -> Option<Arc<File>> {
        self.files.lock().get(&number).map(|known| known.file.clone())
    }

    fn add_record(&self, file: u32) {
        if let Some(known) = self.files.lock().get_mut(&file) {
            known.records += 1;
        }
    }

    /// Asks the daemon for a file. It is there until `remove_record` is called once more than `add_record`.
    fn make_file(&self, bytes: u64) -> Result<(u32, Arc<File>), ClientError> {
        let request = Request::SpillFile { bytes };
        // A file of the daemon before is nothing any more.
        let (_still, answer) = loop {
            let answer = self.connection.request("make a spill file", &request)?;
            if let Some(still) = self.connection.hold_still(answer.daemon) {
                break (still, answer);
            }
        };
        let Reply::SpillFileMade { file: number } = answer.reply else {
            return Err(ClientError::BadReply(format!("{:?}", answer.reply)));
        };
        let [descriptor]: [OwnedFd; 1] = answer.descriptors()?;
        let file = Arc::new(File::from(descriptor));
        self.files.lock().insert(number, SpillFile { file: file.clone(), bytes, records: 1 });
        Ok((number, file))
    }
}

// ---- going ----

/// Begins to spill, in a thread of its own.
pub(crate) fn spill_soon(shared: &Arc<Shared>, bytes: u64) {
    let mut jobs = shared.own.spills.jobs.lock();
    jobs.spill = Some(jobs.spill.unwrap_or(0).max(bytes));
    if jobs.is_spilling {
        return;
    }
    jobs.is_spilling = true;
    drop(jobs);
    let spiller = shared.clone();
    if let Err(error) = spawn("mobula-spill", move || work_off_spills(&spiller)) {
        let mut jobs = shared.own.spills.jobs.lock();
        (jobs.spill, jobs.is_spilling) = (None, false);
        drop(jobs);
        let failure = Some(format!("no thread to spill with: {error}"));
        shared.connection.tell(&Request::Spilled { bytes: 0, failure });
    }
}

fn work_off_spills(shared: &Arc<Shared>) {
    // A file over the process's limit is an error in this thread, and no signal that ends a process of somebody else's.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    let _ = signals.thread_block();
    loop {
        let mut jobs = shared.own.spills.jobs.lock();
        let Some(wanted) = jobs.spill.take() else {
            jobs.is_spilling = false;
            return;
        };
        drop(jobs);
        let (bytes, result) = spill(shared, wanted);
        let failure = result.err().map(|error| match error {
            // The daemon's own words.
            ClientError::Refused(Refusal::SpillFailed { reason, .. }) => reason,
            error => error.to_string(),
        });
        shared.connection.tell(&Request::Spilled { bytes, failure });
    }
}

/// A segment that is to be emptied, and the objects in it.
pub(crate) struct Leaving {
    /// In the allocator's books.
    pub(crate) number: u32,
    pub(crate) bytes: u64,
    pub(crate) objects: Vec<ObjectId>,
}

/// Empties segments of `wanted` bytes, as far as there are any; returns the bytes of those that were released.
fn spill(shared: &Arc<Shared>, wanted: u64) -> (u64, Result<(), ClientError>) {
    // The daemon has asked for this before, but the answer need not have been in time.
    shared.collect();
    shared.release_empty(u64::MAX);
    let leaving = shared.own.choose_leaving(wanted);
    let objects = leaving.iter().flat_map(|segment| &segment.objects);
    // What is freed meanwhile leaves without us.
    let handles: Vec<Handle> = objects.filter_map(|object| Handle::hold(shared, *object).ok()).collect();
    let mut result = Ok(());
    for batch in batches(shared, handles) {
        result = spill_batch(shared, batch);
        if result.is_err() {
            break;
        }
    }
    let mut released = 0;
    for segment in leaving {
        if let Some(id) = shared.own.end_leaving(segment.number) {
            shared.connection.tell(&Request::Release { segment: id });
            released += segment.bytes;
        }
    }
    (released, result)
}

/// Parts objects into those that share a file.
fn batches(shared: &Shared, handles: Vec<Handle>) -> Vec<Vec<Handle>> {
    let file_bytes_max = FILE_BYTES_MAX.min(file_size_limit());
    let (mut alone, mut together, mut bytes) = (Vec::new(), vec![Vec::new()], 0);
    for handle in handles {
        let length = record_bytes(shared, &handle);
        if length >= ALONE_BYTES_MIN {
            alone.push(vec![handle]);
            continue;
        }
        if bytes + length > file_bytes_max {
            together.push(Vec::new());
            bytes = 0;
        }
        bytes += length;
        together.last_mut().expect("there is one from the beginning").push(handle);
    }
    together.extend(alone);
    together.retain(|batch| !batch.is_empty());
    together
}

/// What the record of a sealed object of this client's takes.
fn record_bytes(shared: &Shared, handle: &Handle) -> u64 {
    let location = shared.own.location(handle.id().index());
    Record::of(handle.id().to_bytes(), &location).bytes().expect("an object that is in memory has a record")
}

/// Writes objects into one file, and then lets those go that nobody uses by now.
fn spill_batch(shared: &Shared, batch: Vec<Handle>) -> Result<(), ClientError> {
    let own = &shared.own;
    let bytes = batch.iter().map(|handle| record_bytes(shared, handle)).sum();
    let (number, file) = own.spills.make_file(bytes)?;
    failpoint(Failpoint::SpillMade);
    let places = write(&file, number, bytes, &batch);
    if let Ok(places) = &places {
        failpoint(Failpoint::SpillWritten);
        for (handle, place) in batch.iter().zip(places) {
            own.spills.add_record(number);
            if !own.spill(handle.id(), *place) {
                own.spills.remove_record(number);
            }
        }
    }
    own.spills.remove_record(number);
    places.map(drop)
}

/// Writes the records of objects, and sees to it that the disk has them.
fn write(file: &File, number: u32, bytes: u64, batch: &[Handle]) -> Result<Vec<SpillPlace>, ClientError> {
    let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
    preallocate(file, bytes)?;
    let mut out = Output { file, buffer: Vec::with_capacity(PIECE_BYTES), written: 0 };
    let mut places = Vec::with_capacity(batch.len());
    for handle in batch {
        let object = handle.object()?;
        let references: Vec<u8> = object.references().iter().flat_map(|id| id.to_bytes()).collect();
        let location = Location {
            length: object.len() as u64,
            format: object.format(),
            references: (references.len() / ObjectId::BYTES) as u32,
            ..Location::default()
        };
        let record = Record::of(handle.id().to_bytes(), &location);
        let padding =
            if references.is_empty() { 0 } else { object.len().next_multiple_of(16) - object.len() };
        let padding = &[0; 16][..padding];
        let mut checksum = record.checksum();
        [&object[..], padding, &references].into_iter().for_each(|part| checksum.add(part));
        let header = record.header(checksum.finish());
        places.push(SpillPlace::new(number, out.offset()).ok_or_else(too_large)?);
        [&header[..], &object, padding, &references].into_iter().try_for_each(|part| out.put(part))?;
        out.align()?;
    }
    out.flush()?;
    // A disk that fails says so while the memory still has everything.
    file.sync_data()?;
    Ok(places)
}

/// Takes the room on the disk now: one that is full must be noticed before the kernel has taken the bytes.
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes as i64) {
            Err(Errno::EINTR) => {}
            // Not every file system can.
            Ok(()) | Err(Errno::EOPNOTSUPP) => return Ok(()),
            Err(Errno::EFBIG) => {
                let text = format!(
                    "a file of {bytes} bytes is over the limit of file sizes of process {} (RLIMIT_FSIZE, `ulimit -f`), \
                     which is {}: raise it",
                    std::process::id(),
                    file_size_limit()
                );
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Bytes of the largest file that this process may write.
fn file_size_limit() -> u64 {
    getrlimit(Resource::RLIMIT_FSIZE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Small writes in one, large ones as they are.
struct Output<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    written: u64,
}

impl Output<'_> {
    fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > PIECE_BYTES {
            self.flush()?;
        }
        if bytes.len() < PIECE_BYTES / 4 {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> io::Result<()> {
        let offset = self.offset();
        let padding = offset.next_multiple_of(RECORD_ALIGNMENT) - offset;
        self.put(&[0; RECORD_ALIGNMENT as usize][..padding as usize])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

// ---- coming back ----

/// Brings an object of this client's back into memory. The caller uses it, for its bytes or as a handle.
///
/// # Errors
/// [`Refusal::SpillDamaged`]; [`Refusal::NotRestored`] where the file cannot be read; as for a put, where there is no
/// room in time.
pub(crate) fn restore(shared: &Arc<Shared>, object: ObjectId) -> Result<(), ClientError> {
    let spills = &shared.own.spills;
    let mut returning = spills.returning.lock();
    while !returning.insert(object.index()) {
        spills.returned.wait(&mut returning);
    }
    drop(returning);
    let result = restore_alone(shared, object);
    spills.returning.lock().remove(&object.index());
    spills.returned.notify_all();
    result
}

fn restore_alone(shared: &Arc<Shared>, object: ObjectId) -> Result<(), ClientError> {
    let Some((location, place)) = shared.own.spilled(object) else {
        // Another thread was faster.
        return Ok(());
    };
    let not_restored = |reason: String| ClientError::from(Refusal::NotRestored { object, reason });
    let damaged = || ClientError::from(Refusal::SpillDamaged { object });
    let file = shared.own.spills.file(place.file());
    let file = file.ok_or_else(|| not_restored("its file is not known".to_owned()))?;
    let record = Record::of(object.to_bytes(), &location);
    let extent = record.extent().ok_or_else(damaged)?;
    // While the disk takes nothing, nobody makes room: whoever wants the bytes reads them from the file.
    shared.find_room(extent, DISK_PATIENCE).or_else(|error| match error {
        ClientError::Refused(Refusal::SpillFailed { .. }) => Err(error),
        _ => Ok(()),
    })?;
    // Memory for payload and references.
    let mut writer = ObjectWriter::begin(shared, Layout { length: extent, ..Layout::default() })?;
    let read = |bytes: &mut [u8], offset| {
        file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(),
            _ => not_restored(error.to_string()),
        })
    };
    let mut header = [0; HEADER_BYTES];
    read(&mut header, place.offset())?;
    let claimed = record.claimed_checksum(&header).ok_or_else(damaged)?;
    let mut checksum = record.checksum();
    let mut offset = place.offset() + HEADER_BYTES as u64;
    for piece in writer.chunks_mut(PIECE_BYTES) {
        read(piece, offset)?;
        checksum.add(piece);
        offset += piece.len() as u64;
    }
    if checksum.finish() != claimed {
        return Err(damaged());
    }
    failpoint(Failpoint::RestoreRead);
    if writer.bring_back(object, &location) {
        shared.own.spills.remove_record(place.file());
    }
    Ok(())
}

/// Begins to bring back what another client wants, in a thread of its own.
pub(crate) fn restore_soon(shared: &Arc<Shared>, object: ObjectId) {
    let mut jobs = shared.own.spills.jobs.lock();
    jobs.restores.push_back(object);
    if jobs.restorers == RESTORERS_MAX {
        return;
    }
    jobs.restorers += 1;
    drop(jobs);
    let restorer = shared.clone();
    if let Err(error) = spawn("mobula-restore", move || work_off_restores(&restorer)) {
        let mut jobs = shared.own.spills.jobs.lock();
        jobs.restorers -= 1;
        let left = if jobs.restorers == 0 { std::mem::take(&mut jobs.restores) } else { VecDeque::new() };
        drop(jobs);
        for object in left {
            let refusal = Some(Refusal::NotRestored { object, reason: format!("no thread for it: {error}") });
            shared.connection.tell(&Request::Restored { object, refusal });
        }
    }
}

fn work_off_restores(shared: &Arc<Shared>) {
    loop {
        let mut jobs = shared.own.spills.jobs.lock();
        let Some(object) = jobs.restores.pop_front() else {
            jobs.restorers -= 1;
            return;
        };
        drop(jobs);
        // The handle keeps it from being freed meanwhile.
        let restored = Handle::hold(shared, object).and_then(|_handle| restore(shared, object));
        let refusal = restored.err().map(|error| match error {
            ClientError::Refused(refusal) => refusal,
            ClientError::NoSuchObject { .. } => Refusal::NoSuchObject { object },
            error => Refusal::NotRestored { object, reason: error.to_string() },
        });
        shared.connection.tell(&Request::Restored { object, refusal });
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(work).map(drop)
}
