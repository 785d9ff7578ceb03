//! A small encoded value in this process's heap: an argument or a result that does not go through the store.

use std::ops::Deref;

use bytes::Bytes;
use mobula_client::Handle;

/// A small encoded value and what it refers to.
///
/// Fronts take this apart, so a new field is a breaking change.
#[derive(Debug, Clone)]
pub struct Inline {
    /// The value's [tag](crate::format).
    pub format: u32,
    /// Its bytes.
    pub value: InlineBytes,
    /// The objects that it refers to.
    pub references: Vec<Handle>,
}

/// The bytes of a small value: in place if they are few, such as those of a number, else in the heap.
#[derive(Clone)]
pub enum InlineBytes {
    /// The first `count` of `bytes`.
    Few {
        /// The number of bytes.
        count: u8,
        /// The bytes, with zeros behind them.
        bytes: [u8; InlineBytes::FEW_MAX],
    },
    /// Bytes in the heap. Clones share them.
    Many(Bytes),
}

impl InlineBytes {
    /// The most bytes in place. With the count and the discriminant they fill a cache line.
    pub const FEW_MAX: usize = 62;

    pub(crate) fn copy_of(value: &[u8]) -> Self {
        let mut bytes = [0; Self::FEW_MAX];
        match bytes.get_mut(..value.len()) {
            Some(few) => {
                few.copy_from_slice(value);
                Self::Few { count: value.len() as u8, bytes }
            }
            None => Self::Many(Bytes::copy_from_slice(value)),
        }
    }
}

impl Deref for InlineBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Few { count, bytes } => &bytes[..usize::from(*count)],
            Self::Many(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for InlineBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
