//! Spill records of objects, as the client writes and reads them: [`mobula_shm::spill`] with objects and the client's
//! errors.

use std::fs::File;
use std::io;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Refusal;
use mobula_shm::spill::{self, RecordHeader, SpillLocation};
use mobula_shm::table::Location;

use crate::error::ClientError;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes of the spill record of an object, up to where the next one may begin.
pub(crate) fn record_bytes(object: ObjectId, location: &Location) -> u64 {
    RecordHeader::of(object.to_bytes(), location).bytes().expect("an object that is in memory has a record")
}

/// Writes records into an empty file, one behind the other.
pub(crate) struct RecordWriter<'a> {
    records: spill::RecordWriter<'a>,
}

impl<'a> RecordWriter<'a> {
    /// Writes into the file that its owner knows by `number`.
    pub(crate) fn new(file: &'a File, number: u32) -> Self {
        Self { records: spill::RecordWriter::new(file, number, 0) }
    }

    /// Writes the record of an object; returns where it lies.
    pub(crate) fn write(
        &mut self,
        object: ObjectId,
        format: u32,
        payload: &[u8],
        references: &[ObjectId],
    ) -> io::Result<SpillLocation> {
        let location = Location {
            length: payload.len() as u64,
            format,
            references: references.len() as u32,
            ..Location::default()
        };
        let references: Vec<u8> = references.iter().flat_map(|id| id.to_bytes()).collect();
        let padding =
            if references.is_empty() { 0 } else { payload.len().next_multiple_of(16) - payload.len() };
        self.records.begin(RecordHeader::of(object.to_bytes(), &location))?;
        [payload, &[0; 16][..padding], &references]
            .into_iter()
            .try_for_each(|part| self.records.add(part))?;
        self.records.end()
    }

    /// Waits until the disk has all records. An error of the disk appears here, while the memory still has every
    /// object.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.records.sync()
    }
}

/// Reads one record, and accepts it only if header and checksum are those of the requested object.
///
/// The file is not mapped: its owner can cut it short and the disk can fail, and then a page that cannot be read is a
/// signal and not an error.
pub(crate) struct RecordReader<'a> {
    record: spill::RecordReader<&'a File>,
    object: ObjectId,
    /// Bytes of payload and references.
    extent: u64,
}

impl<'a> RecordReader<'a> {
    /// Reads the header of the record at `offset`, which must be that of an object with this location in the table.
    ///
    /// # Errors
    /// [`Refusal::SpillDamaged`]; [`Refusal::NotRestored`] where the file cannot be read.
    pub(crate) fn open(
        file: &'a File,
        offset: u64,
        object: ObjectId,
        location: &Location,
    ) -> Result<Self, ClientError> {
        let record = RecordHeader::of(object.to_bytes(), location);
        let opened = spill::RecordReader::open(record, file, offset);
        let opened = opened.map_err(|error| not_read(object, &error))?;
        let damaged = || ClientError::from(Refusal::SpillDamaged { object });
        let extent = record.extent().ok_or_else(damaged)?;
        // The length comes from a peer: the file must have as many bytes, before memory is taken for them.
        let length = file.metadata().map_err(|error| not_read(object, &error))?.len();
        if offset.checked_add(extent).is_none_or(|end| length < end) {
            return Err(damaged());
        }
        Ok(Self { record: opened, object, extent })
    }

    /// Bytes of payload and references.
    pub(crate) fn extent(&self) -> u64 {
        self.extent
    }

    /// Reads payload and references into `target`, of [`extent`](Self::extent) bytes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn read(mut self, target: &mut [u8]) -> Result<(), ClientError> {
        let read = target.chunks_mut(PIECE_BYTES).try_for_each(|piece| self.record.read(piece));
        read.and_then(|()| self.record.finish()).map_err(|error| not_read(self.object, &error))
    }
}

fn not_read(object: ObjectId, error: &io::Error) -> ClientError {
    ClientError::from(match error.kind() {
        io::ErrorKind::InvalidData => Refusal::SpillDamaged { object },
        _ => Refusal::NotRestored { object, reason: error.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use mobula_protocol::id::OwnerId;
    use mobula_shm::spill::HEADER_BYTES;

    fn object(index: u32) -> ObjectId {
        ObjectId::new(OwnerId::new(3, 4), index, 6)
    }

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn read_back(
        file: &File,
        offset: u64,
        object: ObjectId,
        location: &Location,
    ) -> Result<Vec<u8>, ClientError> {
        let reader = RecordReader::open(file, offset, object, location)?;
        let mut content = vec![0; reader.extent() as usize];
        reader.read(&mut content).map(|()| content)
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let file = file(&[]);
        let mut writer = RecordWriter::new(&file, 5);
        let payloads: Vec<Vec<u8>> =
            [0, 1, 100, 70_000, 3 << 20].iter().map(|length| vec![*length as u8; *length]).collect();
        let references = [object(8), object(9)];
        let mut write = |at: usize, payload: &[u8], references: &[ObjectId]| {
            writer.write(object(at as u32), 7, payload, references)
        };
        let places: Vec<_> = payloads
            .iter()
            .enumerate()
            .map(|(at, payload)| write(at, payload, &references[..at % 3]).unwrap())
            .collect();
        writer.finish().unwrap();
        for (at, (payload, place)) in payloads.iter().zip(places).enumerate() {
            let length = payload.len() as u64;
            let location = Location { length, format: 7, references: (at % 3) as u32, ..Location::default() };
            let content = read_back(&file, place.offset(), object(at as u32), &location).unwrap();
            assert_eq!((place.file(), &content[..payload.len()]), (5, &payload[..]), "{length} bytes");
            let ids = &references[..at % 3];
            let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_bytes()).collect();
            assert!(content.ends_with(&ids), "{length} bytes");
        }
    }

    #[test]
    fn what_is_damaged_cut_short_or_of_another_object_is_not_believed() {
        let written = file(&[]);
        let mut writer = RecordWriter::new(&written, 1);
        writer.write(object(0), 7, &[9; 64], &[]).unwrap();
        let place = writer.write(object(5), 7, &[3; 1000], &[object(1), object(2)]).unwrap();
        writer.finish().unwrap();
        let location = Location { segment: 1, offset: 64, length: 1000, format: 7, references: 2 };
        let (at, length) = (place.offset() as usize, HEADER_BYTES + 1008 + 32);
        let mut bytes = vec![0; at + length];
        written.read_exact_at(&mut bytes, 0).unwrap();
        assert!(read_back(&file(&bytes), place.offset(), object(5), &location).is_ok());

        let fails = |bytes: &[u8], offset: u64, object: ObjectId, location: &Location| {
            let error = read_back(&file(bytes), offset, object, location).unwrap_err();
            assert!(matches!(error, ClientError::Refused(Refusal::SpillDamaged { .. })), "{error}");
        };
        for damaged_at in [at, at + 12, at + 42, at + 72, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[damaged_at] ^= 1;
            fails(&damaged, place.offset(), object(5), &location);
        }
        fails(&bytes[..bytes.len() - 1], place.offset(), object(5), &location);
        fails(&bytes, 0, object(5), &location);
        fails(&bytes, place.offset(), object(6), &location);
        for length in [999, 1 << 50, u64::MAX] {
            fails(&bytes, place.offset(), object(5), &Location { length, ..location });
        }
    }
}
