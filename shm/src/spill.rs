//! How an object lies in a spill file: a record, written by the object's owner, read back by the owner or, once that has
//! died, by the daemon.
//!
//! # Layout of a record
//!
//! | bytes | field |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 16 | the object's id |
//! | 8 | bytes of the payload |
//! | 4 | what the payload is |
//! | 4 | number of references |
//! | 8 | checksum of everything else |
//! | 16 | zero |
//! | … | payload and references, as they lie in a segment (see [`Location`]) |
//!
//! Records begin at multiples of [`RECORD_ALIGNMENT`]. What comes from a file is believed when the header is that of the
//! object that is looked for, and the checksum matches: a disk that lies is an error, never wrong bytes.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::table::Location;

/// Bytes of a record before the payload.
pub const HEADER_BYTES: usize = 64;
/// Where records begin.
pub const RECORD_ALIGNMENT: u64 = 64;
/// How every record begins.
pub const MAGIC: [u8; 8] = *b"mbl spl\x01";

/// Bytes of the header that the checksum covers.
const CHECKED_BYTES: usize = 40;

/// Where a record lies: in which of its owner's files, and where in there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpillPlace {
    file: u32,
    /// In units of [`RECORD_ALIGNMENT`].
    offset_units: u32,
}

impl SpillPlace {
    /// A place in a file; `None` for an offset at which no record begins, and for file 0, which there is not.
    pub fn new(file: u32, offset: u64) -> Option<Self> {
        let offset_units = u32::try_from(offset / RECORD_ALIGNMENT).ok()?;
        (file != 0 && offset.is_multiple_of(RECORD_ALIGNMENT)).then_some(Self { file, offset_units })
    }

    /// The file's number among its owner's.
    pub fn file(self) -> u32 {
        self.file
    }

    /// Byte offset of the record in the file.
    pub fn offset(self) -> u64 {
        u64::from(self.offset_units) * RECORD_ALIGNMENT
    }

    /// As it is stored; never 0.
    pub fn to_bits(self) -> u64 {
        u64::from(self.file) << 32 | u64::from(self.offset_units)
    }

    /// As it was loaded; `None` for no place.
    pub fn from_bits(bits: u64) -> Option<Self> {
        let (file, offset_units) = ((bits >> 32) as u32, bits as u32);
        (file != 0).then_some(Self { file, offset_units })
    }
}

/// What a record's header says of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The object's id, as bytes.
    pub id: [u8; 16],
    /// Bytes of the payload.
    pub length: u64,
    /// What the payload is.
    pub format: u32,
    /// Number of references behind the payload.
    pub references: u32,
}

impl Record {
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
    pub fn checksum(&self) -> Checksum {
        let mut checksum = Checksum(XxHash3_64::new());
        checksum.add(&self.header(0)[..CHECKED_BYTES]);
        checksum
    }

    /// The header as bytes.
    pub fn header(&self, checksum: u64) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..24].copy_from_slice(&self.id);
        header[24..32].copy_from_slice(&self.length.to_le_bytes());
        header[32..36].copy_from_slice(&self.format.to_le_bytes());
        header[36..40].copy_from_slice(&self.references.to_le_bytes());
        header[40..48].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// The checksum that a header in a file claims, if the header is just that of this record.
    pub fn claimed_checksum(&self, header: &[u8; HEADER_BYTES]) -> Option<u64> {
        let checksum = u64::from_le_bytes(header[40..48].try_into().expect("eight bytes"));
        (*header == self.header(checksum)).then_some(checksum)
    }
}

/// A checksum in the making: XXH3 with 64 bits, which no accident passes, and which costs less than reading the memory.
#[derive(Clone)]
pub struct Checksum(XxHash3_64);

impl Checksum {
    /// Takes the next bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The checksum of all that was taken in.
    pub fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Checksum").field(&self.finish()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record { id: [7; 16], length: 1000, format: 3, references: 2 }
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_never_zero() {
        for (file, offset) in [(1, 0), (u32::MAX, 64), (5, u64::from(u32::MAX) * 64)] {
            let place = SpillPlace::new(file, offset).unwrap();
            assert_eq!((place.file(), place.offset()), (file, offset));
            assert_ne!(place.to_bits(), 0);
            assert_eq!(SpillPlace::from_bits(place.to_bits()), Some(place));
        }
        assert_eq!(SpillPlace::from_bits(99), None);
        assert_eq!(SpillPlace::new(0, 64), None);
        assert_eq!(SpillPlace::new(1, 65), None);
        assert_eq!(SpillPlace::new(1, 1 << 40), None);
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
            // What is flipped is noticed here, or is the checksum itself, which then does not match.
            assert!(claimed.is_none() || (claimed != Some(42) && (40..48).contains(&(bit / 8))), "bit {bit}");
        }
        assert_eq!(Record { length: 1001, ..record }.claimed_checksum(&header), None);
    }

    #[test]
    fn a_checksum_covers_header_and_bytes_in_whatever_pieces() {
        let record = record();
        let bytes: Vec<u8> = (0..record.extent().unwrap()).map(|at| at as u8).collect();
        let of = |record: &Record, bytes: &[u8], piece: usize| {
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
        assert_ne!(of(&Record { id: [8; 16], ..record }, &bytes, 64), whole);
    }

    #[test]
    fn a_record_has_room_for_all_of_it_and_lengths_that_lie_have_none() {
        assert_eq!(record().bytes(), Some(64 + 1088));
        assert_eq!(Record { length: 0, references: 0, ..record() }.bytes(), Some(64));
        assert_eq!(Record { length: u64::MAX, ..record() }.bytes(), None);
        assert_eq!(Record { length: u64::MAX - 70, references: 0, ..record() }.bytes(), None);
    }
}
