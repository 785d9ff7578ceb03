//! The bytes of a payload: its header, its table of buffers, and where its parts lie. The layout is in the
//! [module's](super) documentation.
//!
//! Reading checks every number before it is used, and reserves no memory. [`Layout`] has the numbers of the header,
//! checked against the payload's length. A buffer's record is read when the buffer is requested.

use std::ops::Range;

use super::ValueError;

/// Every inline buffer starts at a multiple of this: Arrow and wide vector instructions need this alignment.
pub(super) const ALIGNMENT: usize = 64;

/// Bytes of the header before the table of buffers.
pub(super) const HEADER_BYTES: usize = 24;

/// Bytes of a buffer's record.
pub(super) const RECORD_BYTES: usize = 24;

const MAGIC: [u8; 4] = *b"Mbv\x02";

/// The part of a type's name that is stored and compared.
pub(super) fn stored_name(type_name: &'static str) -> &'static [u8] {
    &type_name.as_bytes()[..type_name.len().min(usize::from(u16::MAX))]
}

/// Where the parts of a payload lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) buffers: u32,
    pub(super) references: u32,
    pub(super) type_name: Range<usize>,
    pub(super) stream: Range<usize>,
}

impl Layout {
    /// The layout of a payload that is about to be written.
    pub(super) fn new(buffers: usize, references: usize, type_name: usize, stream: usize) -> Self {
        let name_start = HEADER_BYTES + buffers * RECORD_BYTES;
        let stream_start = name_start + type_name;
        Self {
            buffers: u32::try_from(buffers).expect("each buffer got a 32-bit index"),
            references: u32::try_from(references).expect("each reference got a 32-bit position"),
            type_name: name_start..stream_start,
            stream: stream_start..stream_start + stream,
        }
    }

    /// Writes the header.
    pub(super) fn write(&self, out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.buffers.to_le_bytes());
        out[8..16].copy_from_slice(&(self.stream.len() as u64).to_le_bytes());
        out[16..20].copy_from_slice(&self.references.to_le_bytes());
        out[20..22].copy_from_slice(&(self.type_name.len() as u16).to_le_bytes());
        out[22..24].fill(0);
    }

    /// Reads the header at the front of `payload`, which may be only the first part of it, and checks that the payload
    /// of `available` bytes has all the parts that it names.
    pub(super) fn read(payload: &[u8], available: usize) -> Result<Self, ValueError> {
        if !payload.starts_with(&MAGIC) {
            return Err(ValueError::UnknownPayload { found: payload[..payload.len().min(4)].to_vec() });
        }
        let available = available as u64;
        let reach = |part, start: u64, length: u64| {
            let end = start.saturating_add(length);
            if end <= available { Ok(end) } else { Err(ValueError::Truncated { part, end, available }) }
        };
        reach("the header", 0, HEADER_BYTES as u64)?;
        let buffers = u32_at(payload, 4);
        let table_bytes = u64::from(buffers) * RECORD_BYTES as u64;
        let table_end = reach("the table of buffers", HEADER_BYTES as u64, table_bytes)?;
        let name_end = reach("the type's name", table_end, u64::from(u32_at(payload, 20) & 0xffff))?;
        let stream_end = reach("the stream", name_end, u64_at(payload, 8))?;
        Ok(Self {
            buffers,
            references: u32_at(payload, 16),
            type_name: table_end as usize..name_end as usize,
            stream: name_end as usize..stream_end as usize,
        })
    }
}

/// A buffer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BufferRecord {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// The position among the references of the object that the buffer lies in; `None`: in the payload itself.
    pub(super) reference: Option<u32>,
}

impl BufferRecord {
    /// Writes the record of buffer `index`.
    pub(super) fn write(self, payload: &mut [u8], index: usize) {
        let record = &mut payload[HEADER_BYTES + index * RECORD_BYTES..][..RECORD_BYTES];
        record[..8].copy_from_slice(&self.offset.to_le_bytes());
        record[8..16].copy_from_slice(&self.length.to_le_bytes());
        let home = self.reference.map_or(0, |position| position + 1);
        record[16..20].copy_from_slice(&home.to_le_bytes());
        record[20..].fill(0);
    }

    /// Reads the record of buffer `index` in a payload's table.
    pub(super) fn read(table: &[u8], index: u32) -> Result<Self, ValueError> {
        let (records, _) = table.as_chunks::<RECORD_BYTES>();
        let record = records.get(index as usize);
        let count = records.len() as u32;
        let record = record.ok_or(ValueError::NoSuchBuffer { buffer: index, count })?;
        Ok(Self {
            offset: u64_at(record, 0),
            length: u64_at(record, 8),
            reference: u32_at(record, 16).checked_sub(1),
        })
    }

    /// The bytes that the record means, out of `available`.
    pub(super) fn range(self, buffer: u32, available: usize) -> Result<Range<usize>, ValueError> {
        let Self { offset, length, .. } = self;
        match offset.checked_add(length) {
            Some(end) if end <= available as u64 => Ok(offset as usize..end as usize),
            _ => {
                let available = available as u64;
                Err(ValueError::BufferOutOfBounds { buffer, offset, length, available })
            }
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
