//! The errors of bytes that are not a valid message.

use crate::VERSION;

/// Bytes that are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the message needs.
    #[error("the message is shorter than its fields")]
    Truncated,
    /// More bytes than the message needs.
    #[error("{0} bytes follow the message's last field")]
    Trailing(usize),
    /// The other side speaks another version.
    #[error("protocol version {theirs}, expected {VERSION}: use the same build of Mobula on both sides")]
    Version {
        /// The version in the message.
        theirs: u16,
    },
    /// No message in this direction has the opcode.
    #[error("unknown opcode {0}")]
    Opcode(u16),
    /// A field has a value that it cannot have.
    #[error("field {field} cannot be {value}")]
    BadField {
        /// The field, or the type of the field.
        field: &'static str,
        /// The value in the message.
        value: u64,
    },
    /// Text that is not UTF-8.
    #[error("a text field is not UTF-8")]
    NotText,
}
