//! Where the bytes of an object lie: its [`Location`] in memory, and its [`SpillLocation`] in a file. An entry of the
//! [table](crate::table) has room for both.

/// Alignment of the bytes of every object, as Arrow wants it.
pub const ALIGNMENT: u64 = 64;
/// Where records begin.
pub const RECORD_ALIGNMENT: u64 = 64;
/// Words of a location in an entry, behind the place of the state word.
pub(crate) const LOCATION_WORDS: usize = 4;

/// Where the bytes of an object lie, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Location {
    /// Number among the owner's segments.
    pub segment: u32,
    /// Byte offset in the segment: a multiple of [`ALIGNMENT`], below 256 GiB. An entry has no room for any other.
    pub offset: u64,
    /// Bytes of the payload.
    pub length: u64,
    /// Format tag of the payload, which the store does not interpret.
    pub format: u32,
    /// Ids of other objects that this one keeps alive; 16 bytes each, behind the payload at
    /// [`references_offset`](Self::references_offset).
    pub references: u32,
}

impl Location {
    /// Bytes of one recorded reference.
    pub const REFERENCE_BYTES: u64 = 16;

    /// As an entry's words, of which the first is the state word's place.
    #[inline]
    pub(crate) fn to_words(self) -> [u64; LOCATION_WORDS] {
        let what = u64::from(self.format) | u64::from(self.references) << 32;
        [0, place_bits(self.segment, self.offset), self.length, what]
    }

    #[inline]
    pub(crate) fn from_words(words: [u64; LOCATION_WORDS]) -> Self {
        let [_, place, length, what] = words;
        let (segment, offset) = ((place >> 32) as u32, u64::from(place as u32) * ALIGNMENT);
        Self { segment, offset, length, format: what as u32, references: (what >> 32) as u32 }
    }

    /// Where the recorded references begin; `None` where a forged length overflows.
    #[inline]
    pub fn references_offset(&self) -> Option<u64> {
        self.offset.checked_add(self.length)?.checked_next_multiple_of(16)
    }

    /// Bytes of payload and references together, from `offset`.
    #[inline]
    pub fn extent(length: u64, references: u32) -> Option<u64> {
        let payload =
            if references == 0 { length } else { length.checked_next_multiple_of(Self::REFERENCE_BYTES)? };
        payload.checked_add(u64::from(references) * Self::REFERENCE_BYTES)
    }

    /// Whether payload and references lie inside a segment of `segment_bytes`.
    #[inline]
    pub fn fits(&self, segment_bytes: u64) -> bool {
        let end = if self.references == 0 {
            self.offset.checked_add(self.length)
        } else {
            self.references_offset()
                .and_then(|start| start.checked_add(u64::from(self.references) * Self::REFERENCE_BYTES))
        };
        end.is_some_and(|end| end <= segment_bytes)
    }
}

/// Where bytes lie, as one word. An offset that does not fit becomes the largest one, which lies in no segment, so
/// readers refuse it.
#[inline]
pub(crate) fn place_bits(segment: u32, offset: u64) -> u64 {
    let units = u32::try_from(offset / ALIGNMENT).unwrap_or(u32::MAX);
    u64::from(segment) << 32 | u64::from(units)
}

/// The position of a spill record: one of its owner's files, and an offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpillLocation {
    file: u32,
    /// In units of [`RECORD_ALIGNMENT`].
    offset_units: u32,
}

impl SpillLocation {
    /// A place in a file; `None` for an offset at which no record begins, and for file 0, which does not exist.
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
