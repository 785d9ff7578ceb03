//! Copies of spilled objects in this process's own memory. They are made when the store has no memory to restore an
//! object, and can free none because the disk is full or every byte is borrowed.
//!
//! An object that a process holds must stay readable. So its spill record is read from its file, through a read-only
//! descriptor, into memory of the reader's own. The object stays spilled for all other processes, and it is not freed,
//! because the reader borrows its bytes. The copy lives as long as the reader's object and its clones. It uses memory
//! of this process, not of the store. Each further get makes a new copy.

use std::fs::File;
use std::ptr::NonNull;
use std::sync::Arc;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::{Refusal, Reply, Request};
use mobula_shm::table::{ALIGNMENT, Location};

use crate::error::ClientError;
use crate::reference::{Reference, Source};
use crate::spill::record::RecordReader;

/// Payload and references of an object, aligned as in a segment.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Never changed again.
    bytes: Vec<u8>,
    start: usize,
}

/// Reads a spilled object; `None` if it is in memory by now. The reference must be a borrow, so that its file stays.
///
/// # Errors
/// As [`RecordReader::open`]; [`Refusal::NotRestored`] where this process has no memory; the daemon's.
#[cold]
pub(crate) fn copy_spilled(borrow: &Reference) -> Result<Option<(Arc<Copied>, Location)>, ClientError> {
    let object = borrow.id();
    let (location, file, offset) = match borrow.source() {
        Source::Own(owner) => {
            let Some((location, place)) = owner.table.spill_record(object) else { return Ok(None) };
            let Some(file) = owner.spilled.file(place.file()) else { return Ok(None) };
            (location, file, place.offset())
        }
        Source::Peer(peer) => {
            let request = Request::OpenSpilled { object };
            let answer = peer.connection.request("open a spilled object", &request)?;
            let offset = match answer.reply {
                Reply::SpillFileOpened { offset } => offset,
                Reply::Done {} => return Ok(None),
                other => return Err(ClientError::unexpected(&other)),
            };
            let [descriptor] = answer.descriptors()?;
            (peer.location(object.index()), Arc::new(File::from(descriptor)), offset)
        }
    };
    let copied = Copied::read(RecordReader::open(&file, offset, object, &location)?, object)?;
    Ok(Some((Arc::new(copied), location)))
}

impl Copied {
    fn read(record: RecordReader<'_>, object: ObjectId) -> Result<Self, ClientError> {
        let no_memory = || {
            let reason = format!("this process has no {} bytes of memory for it", record.extent());
            ClientError::from(Refusal::NotRestored { object, reason })
        };
        let extent = usize::try_from(record.extent()).map_err(|_| no_memory())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(extent + ALIGNMENT as usize).map_err(|_| no_memory())?;
        bytes.resize(extent + ALIGNMENT as usize, 0);
        let start = bytes.as_ptr().align_offset(ALIGNMENT as usize);
        record.read(&mut bytes[start..start + extent])?;
        Ok(Self { bytes, start })
    }

    /// Where the payload begins; the references follow as in a segment.
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        NonNull::from(&self.bytes[self.start..]).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spill::record::RecordWriter;
    use mobula_protocol::id::OwnerId;

    #[test]
    fn a_copy_has_the_bytes_and_is_aligned_as_in_a_segment() {
        let object = ObjectId::new(OwnerId::new(3, 4), 5, 6);
        let file = tempfile::tempfile().unwrap();
        let mut writer = RecordWriter::new(&file, 1);
        let content: Vec<u8> = (0..1000).map(|at| (at * 7) as u8).collect();
        let place = writer.write(object, 7, &content, &[]).unwrap();
        writer.finish().unwrap();
        let location = Location { length: 1000, format: 7, ..Location::default() };
        let record = RecordReader::open(&file, place.offset(), object, &location).unwrap();
        let copied = Copied::read(record, object).unwrap();
        assert_eq!(copied.bytes[copied.start..][..content.len()], content);
        assert!(copied.pointer().as_ptr().addr().is_multiple_of(ALIGNMENT as usize));
    }
}
