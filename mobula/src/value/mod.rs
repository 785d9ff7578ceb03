//! Values: the encoding of any type with `serde`'s traits as bytes that another process can use, and back.
//!
//! A value becomes a *payload* of two parts. Small things go through a *stream*. It is MessagePack and describes
//! itself: every attribute of `serde` and every type of its data model is preserved, and another language can read it.
//! Large arrays leave the stream: the carriers [`Bytes`], [`Tensor`] and [`Arrow`] put their memory beside it as
//! *buffers*, at any depth of a user's type, and on reading they borrow from the memory that the payload lies in, which
//! they keep alive. A buffer that lies in the store already is not copied again: the payload names the object, and
//! where in it. Large plain text, bytes and lists of numbers are buffers too, but they are copied when they are read.
//!
//! ```text
//! encode:  T ──serde──► stream + buffers + references ──write_into──► payload
//! decode:  payload + references ──check──► stream ──serde──► T, its carriers borrowing from the payload
//! ```
//!
//! ```
//! use std::collections::BTreeMap;
//! use mobula::value::{decode, encode, Bytes, Source, Tensor};
//!
//! let value = BTreeMap::from([("ones".to_owned(), Tensor::from_shape_vec(&[2, 3], vec![1.0_f32; 6])?)]);
//! let encoded = encode(&value)?;
//! assert_eq!(encoded.copied_bytes(), 24);
//! let back: BTreeMap<String, Tensor<f32>> = decode(Source::heap(encoded.to_vec(), vec![]))?;
//! assert_eq!(back, value);
//! # Ok::<(), mobula::value::ValueError>(())
//! ```
//!
//! # The payload
//!
//! All numbers are little-endian, but for MessagePack's own in the stream. A payload comes from another process, so
//! nothing in it is trusted. A faulty owner can still write an object's bytes. So everything up to the end of the
//! stream is copied, each byte once, and only the copy is read. Each number is checked against lengths known here, and
//! then used. No memory is reserved for a count before the bytes that back the count have been seen. Buffers stay where
//! they are. They hold plain data, of which every value is valid; text is checked in its copy.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 3 | magic `Mbv` |
//! | 3 | 1 | version, 2 |
//! | 4 | 4 | number of buffers, *b* |
//! | 8 | 8 | length of the stream, *s* |
//! | 16 | 4 | number of references |
//! | 20 | 2 | length of the type's name, *t* |
//! | 22 | 2 | zero |
//! | 24 | 24·*b* | the buffers, one record each |
//! | 24 + 24·*b* | *t* | the type's name, as [`std::any::type_name`] has it (cut at 65535 bytes) |
//! | … + *t* | *s* | the stream |
//! | … | | the inline buffers, each at the next multiple of 64, the gaps filled with zeros |
//!
//! A buffer's record:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | where it starts: inline, from the start of the payload; external, from the start of the object |
//! | 8 | 8 | its length |
//! | 16 | 4 | 0: inline; *n* > 0: external, in the payload's reference *n* − 1 |
//! | 20 | 4 | zero |
//!
//! References are store objects. The payload holds only their number. The code that carries the payload carries the ids
//! beside it, where the store can see them (an object's header, a call's record in a ring), and gives them back to
//! [`decode`] in the same order. In the stream a carrier has the index of its buffer; a reference to another object is
//! its position among the references. The documentation of `stream` says how each value looks there.
//!
//! The type's name is a check: Rust reads a value as the type that it was put as. Another language passes over the name
//! where it reads, and leaves it empty where it writes: such a value is read as any type that its stream fits.
//!
//! Beside a payload goes a tag that says how its bytes are to be read; see [`mod@format`].
//!
//! # Work of other modules
//!
//! This module neither allocates in the store (but for [`BytesMut`] and [`TensorMut`], which the user fills) nor sends
//! anything, and knows no tasks. The types that hold references to objects live with the runtime and use `Reference`.
//!
//! # Limits
//!
//! In a `serde` format other than this one, also within an implementation of `Serialize`, a carrier writes its bytes in
//! line. A carrier in a newtype variant of an internally tagged enum does the same, because a tag is added to it there.
//!
//! A value that a type's own `Serialize` refuses, or that `serde` refuses for it, is [`ValueError::Unwritable`], which
//! names the type and the field. Examples are a time before 1970 in a `SystemTime`, a path that is no text, and a
//! tagged variant that is no map. Where `serde` buffers values (`untagged`, `flatten`, internally and adjacently tagged
//! enums), it cannot hold an integer of more than 64 bits: reading one is an error there. A flattened map cannot have
//! bytes as keys: reading one is an error, too.
//!
//! In such a buffer, bytes of a type other than [`Bytes`] (for example of `serde_bytes`) are a list of numbers, as in
//! JSON, because `serde` also reads bytes as text. Only 4 KiB or more that are not UTF-8 stay bytes. So the choice
//! among `untagged` variants is that of `serde_json`: text and bytes are distinguished, and the first variant that can
//! read the value takes it. A `Vec<u64>` takes bytes, and a `ByteBuf` takes text. A type of any value, such as an enum
//! with a variant for each kind, gets a list in place of bytes, as it always does from JSON. [`Bytes`] are never
//! mistaken for another type.
//!
//! Text, bytes and lists of numbers that a payload has beside the stream are copied out once each: a forged payload
//! cannot make more of them than it has. There are exceptions: carriers that have to copy a buffer, and may name it
//! several times. These are a [`Tensor`] that is not aligned, or of `bool`, and [`Arrow`] data in which a part is named
//! with many lengths.
//!
//! The stack of the thread that writes or reads a recursive user type limits its depth: a value that comes near the end
//! of the stack is [`ValueError::TooDeep`].

pub use mobula_runtime::format;

#[cfg(feature = "arrow")]
mod arrow;
mod buffer;
mod bytes;
pub(crate) mod context;
mod copied;
mod decode;
mod decoding;
mod element;
mod encode;
mod encoding;
mod error;
mod payload;
mod reference;
mod region;
pub(crate) mod stream;
mod tensor;
mod writable;

#[cfg(all(test, feature = "arrow", feature = "ndarray"))]
mod tests;

#[cfg(feature = "arrow")]
pub use self::arrow::{Arrow, ArrowValue};
pub use self::bytes::Bytes;
pub(crate) use self::decode::decode_borrowed;
pub use self::decode::{Source, decode};
pub(crate) use self::decoding::References;
pub use self::element::Element;
pub use self::encode::{Encoded, encode};
pub(crate) use self::encode::{append, encode_for_session};
pub use self::error::ValueError;
pub(crate) use self::reference::Reference;
pub use self::tensor::Tensor;
pub use self::writable::{BytesMut, TensorMut};

/// The client in whose store the writable carriers get their memory, while the process has a session.
pub(crate) fn client() -> Result<mobula_client::Client, ValueError> {
    match mobula_runtime::runtime() {
        Ok(runtime) => Ok(runtime.client().clone()),
        Err(mobula_runtime::Error::Store(error)) => Err(error.into()),
        Err(_) => Err(ValueError::NoSession),
    }
}
