//! Spilled objects in this process's own memory: for when the store has no memory to bring one back into, and none can be
//! made because the disk is full or everything is in use.
//!
//! An object that a process holds must stay readable. So its record is read from its file, through a read-only descriptor,
//! into memory of the reader's own, and is believed only if the checksum matches. The object stays spilled for all other
//! processes, and it is not freed, because the reader has pinned its bytes. The copy lives as long as the reader's object
//! and its clones. It uses memory of this process, not of the store. Each further get makes a new copy.
//!
//! The file is not mapped: its owner can cut it short and the disk can fail, and then a page that cannot be read is a signal
//! and not an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Refusal;
use mobula_shm::spill::{HEADER_BYTES, Record};
use mobula_shm::table::{ALIGNMENT, Location};

use crate::error::ClientError;

/// Payload and references of an object, aligned as in a segment.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Never changed again.
    bytes: Vec<u8>,
    start: usize,
}

impl Copied {
    /// Reads the record of an object, of which the table says what it is.
    ///
    /// # Errors
    /// [`Refusal::SpillDamaged`]; [`Refusal::NotRestored`] where the file cannot be read, or this process has no memory.
    pub(crate) fn read(
        object: ObjectId,
        location: &Location,
        file: &File,
        offset: u64,
    ) -> Result<Arc<Self>, ClientError> {
        let not_restored = |reason: String| ClientError::from(Refusal::NotRestored { object, reason });
        let damaged = || ClientError::from(Refusal::SpillDamaged { object });
        let record = Record::of(object.to_bytes(), location);
        let extent = record.extent().and_then(|extent| usize::try_from(extent).ok()).ok_or_else(damaged)?;
        let mut bytes = Vec::new();
        // What a peer says of its length is not what there is: a file has an end.
        let length = file.metadata().map_err(|error| not_restored(error.to_string()))?.len();
        if length < extent as u64 {
            return Err(damaged());
        }
        bytes
            .try_reserve_exact(extent + ALIGNMENT as usize)
            .map_err(|_| not_restored(format!("this process has no {extent} bytes of memory for it")))?;
        bytes.resize(extent + ALIGNMENT as usize, 0);
        let start = bytes.as_ptr().align_offset(ALIGNMENT as usize);
        let read = |bytes: &mut [u8], offset| {
            file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => damaged(),
                _ => not_restored(error.to_string()),
            })
        };
        let mut header = [0; HEADER_BYTES];
        read(&mut header, offset)?;
        let claimed = record.claimed_checksum(&header).ok_or_else(damaged)?;
        let target = &mut bytes[start..start + extent];
        read(target, offset + HEADER_BYTES as u64)?;
        let mut checksum = record.checksum();
        checksum.add(target);
        if checksum.finish() != claimed {
            return Err(damaged());
        }
        Ok(Arc::new(Self { bytes, start }))
    }

    /// Where the payload begins; the references follow as in a segment.
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        NonNull::from(&self.bytes[self.start..]).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobula_protocol::id::OwnerId;

    #[test]
    fn a_record_is_read_as_it_was_written_and_nothing_else_is_believed() {
        let object = ObjectId::new(OwnerId::new(3, 4), 5, 6);
        let location = Location { segment: 1, offset: 64, length: 1000, format: 7, references: 2 };
        let record = Record::of(object.to_bytes(), &location);
        let content: Vec<u8> = (0..record.extent().unwrap()).map(|at| (at * 7) as u8).collect();
        let mut checksum = record.checksum();
        checksum.add(&content);
        let written = [&[9; 128][..], &record.header(checksum.finish()), &content].concat();
        let file = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(bytes, 0).unwrap();
            file
        };
        let copied = Copied::read(object, &location, &file(&written), 128).unwrap();
        assert_eq!(copied.bytes[copied.start..][..content.len()], content);
        assert!(copied.pointer().as_ptr().addr().is_multiple_of(ALIGNMENT as usize));

        let fails = |bytes: &[u8], location: &Location, offset| {
            let error = Copied::read(object, location, &file(bytes), offset).unwrap_err();
            assert!(matches!(error, ClientError::Refused(Refusal::SpillDamaged { .. })), "{error}");
        };
        for at in [128, 140, 170, 200, written.len() - 1] {
            let mut damaged = written.clone();
            damaged[at] ^= 1;
            fails(&damaged, &location, 128);
        }
        fails(&written[..written.len() - 1], &location, 128);
        fails(&written, &location, 64);
        fails(&written, &Location { length: 999, ..location }, 128);
        fails(&written, &Location { length: u64::MAX, ..location }, 128);
        fails(&written, &Location { length: 1 << 50, ..location }, 128);
    }
}
