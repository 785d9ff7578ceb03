//! Objects go to files.
//!
//! The daemon asks for it, when freeing has not made room. Sealed bytes do not change, so an object is written first.
//! Then [`Owner::evict`] runs the handshake, in which the object either leaves its memory or stays as it was. Only a
//! whole segment gives room to other clients. So segments are evicted one after the other, the least recently used ones
//! first, and only those in which no process borrows any bytes. Small objects go into one file together, a large one
//! has a file to itself. A file with no record left goes back to the daemon. A disk that is full, or fails, is noticed
//! before any object has left its memory.

use std::fs::File;
use std::io;

use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::recorder::Kind;
use mobula_shm::spill::SpillLocation;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{Resource, getrlimit};

use crate::error::ClientError;
use crate::object::Handle;
use crate::owner::Owner;
use crate::reader::peers::Peers;
use crate::recorders::id_words;
use crate::spill::record::{RecordWriter, record_bytes};

/// Bytes of the files that small objects share.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// An object of at least this size has a file to itself.
const ALONE_BYTES_MIN: u64 = 16 << 20;

/// Evicts segments of `wanted` bytes, as far as there are any; returns the bytes of those that were released.
pub(crate) fn spill(owner: &Owner, peers: &Peers, wanted: u64) -> (u64, Result<(), ClientError>) {
    // The daemon has asked for this before, but it may not have been done in time.
    owner.collect();
    owner.release_empty(u64::MAX);
    let evicting = owner.begin_evicting(wanted);
    let objects = evicting.iter().flat_map(|segment| &segment.objects);
    // An object that is freed meanwhile leaves its memory in any case.
    let handles: Vec<Handle> =
        objects.filter_map(|object| Handle::hold(owner, peers, *object).ok()).collect();
    let mut result = Ok(());
    for batch in batches(owner, handles) {
        result = spill_batch(owner, batch);
        if result.is_err() {
            break;
        }
    }
    let mut released = 0;
    for segment in evicting {
        if let Some(id) = owner.end_evicting(&segment) {
            owner.release(id);
            released += segment.bytes;
        }
    }
    (released, result)
}

/// Parts objects into those that share a file.
fn batches(owner: &Owner, handles: Vec<Handle>) -> Vec<Vec<Handle>> {
    let file_bytes_max = FILE_BYTES_MAX.min(file_size_limit());
    let (mut alone, mut together, mut bytes) = (Vec::new(), vec![Vec::new()], 0);
    for handle in handles {
        let length = bytes_of(owner, &handle);
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

/// Bytes of the spill record of a sealed object of this client's.
fn bytes_of(owner: &Owner, handle: &Handle) -> u64 {
    record_bytes(handle.id(), &owner.table.location(handle.id().index()))
}

/// Writes objects into one file, and then evicts those whose bytes nobody borrows by now.
fn spill_batch(owner: &Owner, batch: Vec<Handle>) -> Result<(), ClientError> {
    let bytes = batch.iter().map(|handle| bytes_of(owner, handle)).sum();
    let (number, file) = owner.spilled.make_file(bytes)?;
    failpoint(Failpoint::SpillMade);
    let places = write(&file, number, bytes, &batch);
    if let Ok(places) = &places {
        failpoint(Failpoint::SpillWritten);
        for (handle, place) in batch.iter().zip(places) {
            owner.spilled.add_record(number);
            if !owner.evict(handle.id(), *place) {
                owner.spilled.remove_record(number);
            } else if let Some(recorder) = owner.connection.recorder() {
                let [low, high] = id_words(handle.id());
                let bytes = bytes_of(owner, handle);
                recorder.note(Kind::Spilled, 0, 0, [low, high, bytes, owner.leased_bytes(), 0, 0]);
            }
        }
    }
    owner.spilled.remove_record(number);
    places.map(drop)
}

/// Writes the spill records of objects, and waits until the disk has them.
fn write(file: &File, number: u32, bytes: u64, batch: &[Handle]) -> Result<Vec<SpillLocation>, ClientError> {
    preallocate(file, bytes)?;
    let mut writer = RecordWriter::new(file, number);
    let mut places = Vec::with_capacity(batch.len());
    for handle in batch {
        let object = handle.object()?;
        places.push(writer.write(object.id(), object.format(), &object, &object.references())?);
    }
    writer.finish()?;
    Ok(places)
}

/// Takes the room on the disk now: a full disk must be noticed before the kernel has taken the bytes.
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes as i64) {
            Err(Errno::EINTR) => {}
            // Not every file system supports it.
            Ok(()) | Err(Errno::EOPNOTSUPP) => return Ok(()),
            Err(Errno::EFBIG) => {
                let text = format!(
                    "a file of {bytes} bytes is over the limit of file sizes of process {} (RLIMIT_FSIZE, \
                     `ulimit -f`), which is {}: raise it",
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
