//! Ids. An object's id *is* its address: its owner, its entry in the owner's table, and its generation among the
//! successive objects of that entry. Nothing is hashed, and no message is needed to find the object.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A client, for as long as the daemon remembers it: its slot, and the epoch that tells it from others that had the
/// slot before.
///
/// ```
/// # use mobula_protocol::id::OwnerId;
/// let owner = OwnerId::new(3, 99);
/// assert_eq!((owner.slot(), owner.epoch()), (3, 99));
/// assert_eq!(owner.to_string(), "3@000000000063");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnerId(u64);

impl OwnerId {
    const EPOCH_MASK: u64 = (1 << 48) - 1;

    /// The owner in `slot` with the lower 48 bits of `epoch`.
    ///
    /// ```
    /// # use mobula_protocol::id::OwnerId;
    /// assert_eq!(OwnerId::new(3, 1 << 48 | 99), OwnerId::new(3, 99));
    /// ```
    #[must_use]
    pub fn new(slot: u16, epoch: u64) -> Self {
        Self(u64::from(slot) << 48 | epoch & Self::EPOCH_MASK)
    }

    /// The index of the owner's record in the directory, and of its extent in every client's pins.
    ///
    /// ```
    /// # use mobula_protocol::id::OwnerId;
    /// assert_eq!(OwnerId::new(3, 99).slot(), 3);
    /// ```
    #[must_use]
    pub fn slot(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The epoch: 48 bits, never used twice by a daemon.
    ///
    /// ```
    /// # use mobula_protocol::id::OwnerId;
    /// assert_eq!(OwnerId::new(3, 99).epoch(), 99);
    /// ```
    #[must_use]
    pub fn epoch(self) -> u64 {
        self.0 & Self::EPOCH_MASK
    }

    /// The id as one word: the slot in its upper 16 bits, and the epoch.
    ///
    /// ```
    /// # use mobula_protocol::id::OwnerId;
    /// assert_eq!(OwnerId::new(3, 99).bits(), 3 << 48 | 99);
    /// ```
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The id that is this [word](Self::bits). Every word is some owner's id, which need not exist.
    ///
    /// ```
    /// # use mobula_protocol::id::OwnerId;
    /// let owner = OwnerId::new(3, 99);
    /// assert_eq!(OwnerId::from_bits(owner.bits()), owner);
    /// ```
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:012x}", self.slot(), self.epoch())
    }
}

/// An object: owner slot (16 bits), entry index (32), generation (32), owner epoch (48).
///
/// ```
/// # use mobula_protocol::id::{ObjectId, OwnerId};
/// let id = ObjectId::new(OwnerId::new(3, 99), 5, 6);
/// assert_eq!(id.to_string(), "0003-00000005-00000006-000000000063");
/// assert_eq!("0003-00000005-00000006-000000000063".parse::<ObjectId>()?, id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Fields", into = "Fields")]
pub struct ObjectId {
    owner: OwnerId,
    /// The index in the upper half, and the generation. Two words are passed in registers; three fields would be
    /// passed in memory.
    entry: u64,
}

impl ObjectId {
    /// Bytes of an id where it is stored.
    pub const BYTES: usize = 16;

    /// The object in entry `index` of `owner`'s table, in its `generation`.
    ///
    /// ```
    /// # use mobula_protocol::id::{ObjectId, OwnerId};
    /// let id = ObjectId::new(OwnerId::new(3, 99), 5, 6);
    /// assert_eq!((id.index(), id.generation()), (5, 6));
    /// ```
    #[must_use]
    pub fn new(owner: OwnerId, index: u32, generation: u32) -> Self {
        Self { owner, entry: u64::from(index) << 32 | u64::from(generation) }
    }

    /// The client that made it.
    ///
    /// ```
    /// # use mobula_protocol::id::{ObjectId, OwnerId};
    /// let owner = OwnerId::new(3, 99);
    /// assert_eq!(ObjectId::new(owner, 5, 6).owner(), owner);
    /// ```
    #[must_use]
    pub fn owner(self) -> OwnerId {
        self.owner
    }

    /// Its entry in the owner's table.
    ///
    /// ```
    /// # use mobula_protocol::id::{ObjectId, OwnerId};
    /// assert_eq!(ObjectId::new(OwnerId::new(3, 99), 5, 6).index(), 5);
    /// ```
    #[must_use]
    pub fn index(self) -> u32 {
        (self.entry >> 32) as u32
    }

    /// The number of the object among those that used the entry.
    ///
    /// ```
    /// # use mobula_protocol::id::{ObjectId, OwnerId};
    /// assert_eq!(ObjectId::new(OwnerId::new(3, 99), 5, 6).generation(), 6);
    /// ```
    #[must_use]
    pub fn generation(self) -> u32 {
        self.entry as u32
    }

    /// Sixteen bytes, little-endian: owner, index, generation.
    ///
    /// ```
    /// # use mobula_protocol::id::{ObjectId, OwnerId};
    /// let bytes = ObjectId::new(OwnerId::new(3, 99), 5, 6).to_bytes();
    /// assert_eq!(bytes, [99, 0, 0, 0, 0, 0, 3, 0, 5, 0, 0, 0, 6, 0, 0, 0]);
    /// ```
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.owner.bits().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.index().to_le_bytes());
        bytes[12..].copy_from_slice(&self.generation().to_le_bytes());
        bytes
    }

    /// The inverse of [`to_bytes`](Self::to_bytes). Any bytes are some id, which need not exist.
    ///
    /// ```
    /// # use mobula_protocol::id::{ObjectId, OwnerId};
    /// let id = ObjectId::new(OwnerId::new(3, 99), 5, 6);
    /// assert_eq!(ObjectId::from_bytes(id.to_bytes()), id);
    /// ```
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let word = u128::from_le_bytes(bytes);
        Self::new(OwnerId::from_bits(word as u64), (word >> 64) as u32, (word >> 96) as u32)
    }
}

/// An id as it is in messages.
#[derive(Serialize, Deserialize)]
struct Fields {
    owner: OwnerId,
    index: u32,
    generation: u32,
}

impl From<Fields> for ObjectId {
    fn from(fields: Fields) -> Self {
        Self::new(fields.owner, fields.index, fields.generation)
    }
}

impl From<ObjectId> for Fields {
    fn from(id: ObjectId) -> Self {
        Self { owner: id.owner(), index: id.index(), generation: id.generation() }
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ObjectId {
    /// 32 hexadecimal digits in groups: slot, index, generation, epoch.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slot, epoch) = (self.owner.slot(), self.owner.epoch());
        write!(f, "{slot:04x}-{:08x}-{:08x}-{epoch:012x}", self.index(), self.generation())
    }
}

/// The text is not an object id.
///
/// ```
/// # use mobula_protocol::id::{ObjectId, ParseIdError};
/// let error: ParseIdError = "no id".parse::<ObjectId>().unwrap_err();
/// assert!(error.to_string().starts_with("not an object id: \"no id\""));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an object id: {0:?} (expected hexadecimal SLOT-INDEX-GENERATION-EPOCH of 4, 8, 8 and 12 digits)"
)]
pub struct ParseIdError(String);

impl FromStr for ObjectId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseIdError(text.to_owned());
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|group| group.len()).ne([4, 8, 8, 12])
            || !text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
        {
            return Err(error());
        }
        let number = |group: usize| u64::from_str_radix(groups[group], 16).map_err(|_| error());
        let owner = OwnerId::new(number(0)? as u16, number(3)?);
        Ok(Self::new(owner, number(1)? as u32, number(2)? as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_bytes_and_text() {
        for (slot, epoch, index, generation) in
            [(0, 0, 0, 0), (u16::MAX, (1 << 48) - 1, u32::MAX, u32::MAX), (7, 0xabcdef, 3, 9)]
        {
            let id = ObjectId::new(OwnerId::new(slot, epoch), index, generation);
            assert_eq!((id.owner().slot(), id.owner().epoch()), (slot, epoch));
            assert_eq!(ObjectId::from_bytes(id.to_bytes()), id);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "1-2-3-4",
            "0000-00000000-00000000-00000000000g",
            "0000-00000000-00000000-0000000000000",
            "é",
        ] {
            assert!(text.parse::<ObjectId>().is_err(), "{text:?}");
        }
    }
}
