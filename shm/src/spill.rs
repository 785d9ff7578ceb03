//! How objects lie in a spill file: one spill record each. The object's owner writes the records, by a
//! [`RecordWriter`], or the daemon does after the owner's death. The owner, the daemon and readers read them, by a
//! [`RecordReader`].
//!
//! # Layout of a record
//!
//! | bytes | field |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 16 | the object's id |
//! | 8 | bytes of the payload |
//! | 4 | format tag of the payload |
//! | 4 | number of references |
//! | 8 | checksum of everything else |
//! | 16 | zero |
//! | … | payload and references, as they lie in a segment (see [`Location`]) |
//!
//! Records begin at multiples of [`RECORD_ALIGNMENT`]. A record is valid if its header names the requested object and
//! the checksum matches: a damaged file is an error, never wrong bytes.

use std::borrow::Borrow;
use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::FileExt;

use twox_hash::XxHash3_64;

use crate::location::Location;
pub use crate::location::{RECORD_ALIGNMENT, SpillLocation};

/// Bytes of a record before the payload.
pub const HEADER_BYTES: usize = 64;
/// The first bytes of every record.
pub const MAGIC: [u8; 8] = *b"mbl spl\x01";

/// Bytes of the header that the checksum covers.
const CHECKED_BYTES: usize = 40;
/// Bytes that a writer gathers before it writes them.
const BUFFER_BYTES: usize = 1 << 20;

/// The header of a spill record; it identifies the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// The object's id, as bytes.
    pub id: [u8; 16],
    /// Bytes of the payload.
    pub length: u64,
    /// Format tag of the payload.
    pub format: u32,
    /// Number of references behind the payload.
    pub references: u32,
}

impl RecordHeader {
    /// The record of an object.
    pub fn of(id: [u8; 16], location: &Location) -> Self {
        let Location { length, format, references, .. } = *location;
        Self { id, length, format, references }
    }

    /// Bytes of payload and references; `None` where a forged length overflows.
    pub fn extent(&self) -> Option<u64> {
        Location::extent(self.length, self.references)
    }

    /// Bytes of the whole record, up to where the next one may begin; `None` where a forged length overflows.
    pub fn bytes(&self) -> Option<u64> {
        self.extent()?.checked_add(HEADER_BYTES as u64)?.checked_next_multiple_of(RECORD_ALIGNMENT)
    }

    /// A checksum to which payload and references are still to be [added](Checksum::add).
    fn checksum(&self) -> Checksum {
        let mut checksum = Checksum(XxHash3_64::new());
        checksum.add(&self.header(0)[..CHECKED_BYTES]);
        checksum
    }

    /// The header as bytes.
    fn header(&self, checksum: u64) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..24].copy_from_slice(&self.id);
        header[24..32].copy_from_slice(&self.length.to_le_bytes());
        header[32..36].copy_from_slice(&self.format.to_le_bytes());
        header[36..40].copy_from_slice(&self.references.to_le_bytes());
        header[40..48].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// The checksum in a header, if the rest of the header is that of this record.
    fn claimed_checksum(&self, header: &[u8; HEADER_BYTES]) -> Option<u64> {
        let checksum = u64::from_le_bytes(header[40..48].try_into().expect("eight bytes"));
        (*header == self.header(checksum)).then_some(checksum)
    }
}

/// A checksum that is being computed: XXH3 with 64 bits. It detects accidental damage, and costs less than reading the
/// memory.
struct Checksum(XxHash3_64);

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Checksum").field(&self.finish()).finish()
    }
}

/// Writes the records of objects one after the other into a file.
///
/// It gathers small pieces and writes large ones as they are. Records are safe on the disk only after
/// [`sync`](Self::sync).
#[derive(Debug)]
pub struct RecordWriter<'a> {
    file: &'a File,
    number: u32,
    /// The record that is being written: where it begins, and what it is.
    current: Option<(u64, RecordHeader, Checksum)>,
    /// Bytes that are not in the file yet; they belong behind `written`.
    buffer: Vec<u8>,
    written: u64,
}

impl<'a> RecordWriter<'a> {
    /// A writer into the file with this number among its owner's, from a byte offset on.
    pub fn new(file: &'a File, number: u32, start: u64) -> Self {
        Self { file, number, current: None, buffer: Vec::new(), written: start }
    }

    /// Begins a record, of which payload and references are still to be [added](Self::add).
    ///
    /// # Errors
    /// The system's.
    pub fn begin(&mut self, record: RecordHeader) -> io::Result<()> {
        self.current = Some((self.offset(), record, record.checksum()));
        self.append(&[0; HEADER_BYTES])
    }

    /// Adds the next bytes of the record: payload, padding or references, as they lie in a segment.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((_, _, checksum)) = &mut self.current {
            checksum.add(bytes);
        }
        self.append(bytes)
    }

    /// Ends the record; returns where it lies.
    ///
    /// # Errors
    /// The system's; `FileTooLarge` for a place that cannot be noted.
    ///
    /// # Panics
    /// When no record was begun.
    pub fn end(&mut self) -> io::Result<SpillLocation> {
        let (offset, record, checksum) = self.current.take().expect("a record was begun");
        let header = record.header(checksum.finish());
        match offset.checked_sub(self.written) {
            Some(start) => self.buffer[start as usize..][..HEADER_BYTES].copy_from_slice(&header),
            None => self.file.write_all_at(&header, offset)?,
        }
        let end = self.offset();
        let padding = (end.next_multiple_of(RECORD_ALIGNMENT) - end) as usize;
        self.append(&[0; RECORD_ALIGNMENT as usize][..padding])?;
        SpillLocation::new(self.number, offset).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
    }

    /// Waits until the disk has all records.
    ///
    /// # Errors
    /// The system's. A disk that fails says so here.
    pub fn sync(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }

    fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_small = bytes.len() < BUFFER_BYTES / 4;
        if !is_small || self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if is_small {
            self.buffer.extend_from_slice(bytes);
        } else {
            self.file.write_all_at(bytes, self.written)?;
            self.written += bytes.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Reads the record of one object, in pieces, and checks it.
#[derive(Debug)]
pub struct RecordReader<F> {
    file: F,
    /// Where the next piece lies.
    offset: u64,
    claimed: u64,
    checksum: Checksum,
}

impl<F: Borrow<File>> RecordReader<F> {
    /// Begins to read what should be this record, at an offset of a file.
    ///
    /// # Errors
    /// `InvalidData` where the file has another record or none there, else the system's.
    pub fn open(record: RecordHeader, file: F, offset: u64) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        read_at(file.borrow(), &mut header, offset)?;
        let claimed = record.claimed_checksum(&header).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { file, offset: offset + HEADER_BYTES as u64, claimed, checksum: record.checksum() })
    }

    /// Reads the next bytes of payload and references. Do not rely on them before [`finish`](Self::finish).
    ///
    /// # Errors
    /// `InvalidData` where the file ends, else the system's.
    pub fn read(&mut self, piece: &mut [u8]) -> io::Result<()> {
        read_at(self.file.borrow(), piece, self.offset)?;
        self.checksum.add(piece);
        self.offset += piece.len() as u64;
        Ok(())
    }

    /// Compares the checksum, after all bytes were read.
    ///
    /// # Errors
    /// `InvalidData` where it does not match.
    pub fn finish(&self) -> io::Result<()> {
        if self.checksum.finish() == self.claimed { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// The ids of the references in a record, `max` at most. Nothing is checked: an owner may have written anything.
///
/// # Errors
/// `InvalidData` where the file ends, else the system's.
pub fn read_references(
    record: RecordHeader,
    file: &File,
    offset: u64,
    max: usize,
) -> io::Result<Vec<[u8; 16]>> {
    let bytes = u64::from(record.references) * Location::REFERENCE_BYTES;
    let start = record.extent().and_then(|extent| (offset + HEADER_BYTES as u64).checked_add(extent - bytes));
    let start = start.ok_or(io::ErrorKind::InvalidData)?;
    let mut ids = vec![[0; 16]; (record.references as usize).min(max)];
    read_at(file, ids.as_flattened_mut(), start)?;
    Ok(ids)
}

/// Fills a buffer; a file that ends too soon is damaged.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::ErrorKind::InvalidData.into(),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RecordHeader {
        RecordHeader { id: [7; 16], length: 1000, format: 3, references: 2 }
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_never_zero() {
        for (file, offset) in [(1, 0), (u32::MAX, 64), (5, u64::from(u32::MAX) * 64)] {
            let place = SpillLocation::new(file, offset).unwrap();
            assert_eq!((place.file(), place.offset()), (file, offset));
            assert_ne!(place.to_bits(), 0);
            assert_eq!(SpillLocation::from_bits(place.to_bits()), Some(place));
        }
        assert_eq!(SpillLocation::from_bits(99), None);
        assert_eq!(SpillLocation::new(0, 64), None);
        assert_eq!(SpillLocation::new(1, 65), None);
        assert_eq!(SpillLocation::new(1, 1 << 40), None);
    }

    #[test]
    fn a_header_is_believed_only_for_the_object_that_it_is_of() {
        let record = record();
        let header = record.header(42);
        assert_eq!(record.claimed_checksum(&header), Some(42));
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = header;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let claimed = record.claimed_checksum(&damaged);
            // A flipped bit is noticed here, or is one of the checksum, which then does not match.
            assert!(claimed.is_none() || (claimed != Some(42) && (40..48).contains(&(bit / 8))), "bit {bit}");
        }
        assert_eq!(RecordHeader { length: 1001, ..record }.claimed_checksum(&header), None);
    }

    #[test]
    fn a_checksum_covers_header_and_bytes_in_whatever_pieces() {
        let record = record();
        let bytes: Vec<u8> = (0..record.extent().unwrap()).map(|at| at as u8).collect();
        let of = |record: &RecordHeader, bytes: &[u8], piece: usize| {
            let mut checksum = record.checksum();
            bytes.chunks(piece).for_each(|piece| checksum.add(piece));
            checksum.finish()
        };
        let whole = of(&record, &bytes, bytes.len());
        for piece in [1, 7, 64, 1000] {
            assert_eq!(of(&record, &bytes, piece), whole);
        }
        let mut damaged = bytes.clone();
        damaged[500] ^= 1;
        assert_ne!(of(&record, &damaged, 64), whole);
        assert_ne!(of(&RecordHeader { id: [8; 16], ..record }, &bytes, 64), whole);
    }

    #[test]
    fn a_record_has_room_for_all_of_it_and_lengths_that_lie_have_none() {
        assert_eq!(record().bytes(), Some(64 + 1088));
        assert_eq!(RecordHeader { length: 0, references: 0, ..record() }.bytes(), Some(64));
        assert_eq!(RecordHeader { length: u64::MAX, ..record() }.bytes(), None);
        assert_eq!(RecordHeader { length: u64::MAX - 70, references: 0, ..record() }.bytes(), None);
    }

    #[test]
    fn records_are_read_as_they_were_written_and_damaged_ones_are_not() {
        let file = tempfile::tempfile().unwrap();
        let mut writer = RecordWriter::new(&file, 3, 64);
        // Small ones share a write; one is larger than the buffer, and its header is written afterwards.
        let lengths = [0, 1, 1000, 100, BUFFER_BYTES as u64 + 5, 7];
        let content = |length: u64| (0..length).map(|at| (at * 7) as u8).collect::<Vec<u8>>();
        let record = |length| RecordHeader { id: [7; 16], length, format: 1, references: 0 };
        let places = lengths.map(|length| {
            writer.begin(record(length)).unwrap();
            content(length).chunks(1 << 21).for_each(|piece| writer.add(piece).unwrap());
            writer.end().unwrap()
        });
        writer.sync().unwrap();
        let read = |length: u64, offset| -> io::Result<Vec<u8>> {
            let mut reader = RecordReader::open(record(length), &file, offset)?;
            let mut bytes = vec![0; length as usize];
            bytes.chunks_mut(300_000).try_for_each(|piece| reader.read(piece))?;
            reader.finish().map(|()| bytes)
        };
        for (length, place) in lengths.into_iter().zip(places) {
            assert_eq!(read(length, place.offset()).unwrap(), content(length), "{length}");
            assert_eq!(read(length + 1, place.offset()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let last = places[5].offset();
        for at in [last, last + 20, last + 44, last + 64, last + 70] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert_eq!(read(7, last).unwrap_err().kind(), io::ErrorKind::InvalidData, "{at}");
            file.write_all_at(&byte, at).unwrap();
        }
        file.set_len(last + 70).unwrap();
        assert_eq!(read(7, last).unwrap_err().kind(), io::ErrorKind::InvalidData, "cut short");
    }
}
