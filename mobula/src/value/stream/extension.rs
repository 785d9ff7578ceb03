//! The extensions of MessagePack in the stream, by their types, and the types of values that use an extension.

pub(super) const SOME: u8 = 1;
pub(super) const SIGNED: u8 = 2;
pub(super) const UNSIGNED: u8 = 3;
pub(super) const NUMBERS: u8 = 4;
pub(super) const NUMBERS_BESIDE: u8 = 5;
pub(super) const TEXT_BESIDE: u8 = 6;
pub(super) const BYTES_BESIDE: u8 = 7;
pub(super) const BUFFER: u8 = 8;
pub(super) const REFERENCE: u8 = 9;
pub(super) const TENSOR: u8 = 10;
pub(super) const ARROW: u8 = 11;

/// A type that has an extension of its own. It is written as a newtype struct of this name, whose content asks
/// [`take_invitation`](crate::value::context::take_invitation) whether it goes into the extension: any other format
/// only sees a newtype struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
    Buffer,
    Reference,
    Tensor,
    Arrow,
}

impl Extension {
    /// The name of the newtype struct. No Rust type has such a name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Buffer => "$mobula::buffer",
            Self::Reference => "$mobula::reference",
            Self::Tensor => "$mobula::tensor",
            Self::Arrow => "$mobula::arrow",
        }
    }

    /// The extension of this name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        if !name.starts_with('$') {
            return None;
        }
        [Self::Buffer, Self::Reference, Self::Tensor, Self::Arrow]
            .into_iter()
            .find(|extension| extension.name() == name)
    }

    /// The extension's type.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Buffer => BUFFER,
            Self::Reference => REFERENCE,
            Self::Tensor => TENSOR,
            Self::Arrow => ARROW,
        }
    }
}
