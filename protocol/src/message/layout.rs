//! The layout that all messages have, and the macro that declares one direction of them.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | [`VERSION`] |
//! | 2 | opcode |
//! | 4 | zero |
//! | 8 | correlation number; 0 in notices |
//! | … | the fields, in the order of their declaration, as [`field`](super::field) encodes them |

use bytes::{Buf, BufMut};

use crate::VERSION;
use crate::message::error::DecodeError;

/// Bytes before the fields.
pub const HEADER_BYTES: usize = 16;

/// Opcodes of notices; those of requests are smaller, those of replies larger.
const NOTICES: std::ops::Range<u16> = 64..128;

/// Whether bytes are a notice. A client must know this before it decodes them: a reply has the same layout.
pub fn is_notice(bytes: &[u8]) -> bool {
    bytes.get(2..4).is_some_and(|opcode| NOTICES.contains(&u16::from_le_bytes([opcode[0], opcode[1]])))
}

pub(super) fn encode_header(out: &mut Vec<u8>, opcode: u16, correlation: u64) {
    out.put_u16_le(VERSION);
    out.put_u16_le(opcode);
    out.put_u32_le(0);
    out.put_u64_le(correlation);
}

/// Takes opcode and correlation number from the front of the input.
pub(super) fn decode_header(input: &mut &[u8]) -> Result<(u16, u64), DecodeError> {
    if input.len() < HEADER_BYTES {
        return Err(DecodeError::Truncated);
    }
    let version = input.get_u16_le();
    if version != VERSION {
        return Err(DecodeError::Version { theirs: version });
    }
    let opcode = input.get_u16_le();
    let reserved = input.get_u32_le();
    if reserved != 0 {
        return Err(DecodeError::BadField { field: "reserved", value: u64::from(reserved) });
    }
    Ok((opcode, input.get_u64_le()))
}

/// Declares an enum of messages with their opcodes, and how they are encoded, decoded and shown.
macro_rules! messages {
    ($(#[$doc:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_doc:meta])* $opcode:literal => $variant:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        })*
    }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        #[non_exhaustive]
        $vis enum $name {
            $($(#[$variant_doc])* $variant { $($(#[$field_doc])* $field: $type,)* },)*
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant { $($field,)* } => f
                        .debug_struct(stringify!($variant))
                        $(.field(stringify!($field), &$crate::message::field::Shown($field)))*
                        .finish(),)*
                }
            }
        }

        impl $name {
            /// The message as bytes, with the correlation number that ties a reply to its request.
            pub fn encode(&self, correlation: u64) -> Vec<u8> {
                use $crate::message::{field::Field, layout::encode_header};
                let mut out = Vec::with_capacity(64);
                match self {
                    $(Self::$variant { $($field,)* } => {
                        encode_header(&mut out, $opcode, correlation);
                        $(Field::put($field, &mut out);)*
                    })*
                }
                out
            }

            /// The message and its correlation number.
            ///
            /// # Errors
            /// [`DecodeError`](crate::message::DecodeError) for anything that [`encode`](Self::encode) does not make.
            pub fn decode(mut input: &[u8]) -> Result<(u64, Self), $crate::message::error::DecodeError> {
                use $crate::message::{error::DecodeError, field::Field, layout::decode_header};
                let (opcode, correlation) = decode_header(&mut input)?;
                let message = match opcode {
                    $($opcode => Self::$variant { $($field: Field::take(&mut input)?,)* },)*
                    other => return Err(DecodeError::Opcode(other)),
                };
                if !input.is_empty() {
                    return Err(DecodeError::Trailing(input.len()));
                }
                Ok((correlation, message))
            }
        }
    };
}
pub(super) use messages;
