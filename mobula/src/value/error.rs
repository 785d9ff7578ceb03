//! Why a value could not be written or read.
//!
//! Any wrong bytes of another process are an error here, and never a panic. Each error carries the numbers that show
//! whether a payload was cut or forged.

use mobula_client::ClientError;

/// Why a value could not become bytes, or bytes a value.
///
/// Calls, `put` and `get` report it inside [`Error::Value`](crate::Error::Value):
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use mobula::Error;
/// use mobula::value::ValueError;
///
/// let _mobula = mobula::init()?;
/// let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(1); // which serde refuses to write
/// match mobula::put(&before_1970) {
///     Err(Error::Value(error)) => {
///         let error = error.downcast_ref::<ValueError>().expect("of a Rust program");
///         assert!(matches!(error, ValueError::Unwritable { type_name: "std::time::SystemTime", .. }));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The bytes hold a value of another type.
    #[error("asked for a value of type `{expected}`, but it is a `{found}`")]
    WrongType {
        /// The type that was asked for.
        expected: &'static str,
        /// The type that was written.
        found: String,
    },
    /// The format tag says that this is something other than a value.
    #[error(
        "this is no value, but {} (format tag {format})",
        mobula_runtime::format::shown(*format)
    )]
    NotAValue {
        /// The tag; see [`format`](super::format).
        format: u32,
    },
    /// The bytes do not begin as a payload of this version does.
    #[error("not a payload of this version: it begins with {found:02x?}")]
    UnknownPayload {
        /// The first bytes, up to four.
        found: Vec<u8>,
    },
    /// The payload ends before a part that its header promises.
    #[error("the payload is cut short: {part} ends at byte {end}, but there are only {available}")]
    Truncated {
        /// The part of the payload that is missing.
        part: &'static str,
        /// Where it would end.
        end: u64,
        /// Bytes of the payload.
        available: u64,
    },
    /// A buffer lies outside the memory that the payload gives for it.
    #[error(
        "buffer {buffer} ({length} bytes at {offset}) lies outside the {available} bytes that the payload gives \
         for its memory"
    )]
    BufferOutOfBounds {
        /// The number of the buffer in the payload.
        buffer: u32,
        /// The offset at which the payload says that it starts.
        offset: u64,
        /// The length in bytes that the payload gives for it.
        length: u64,
        /// Bytes of the payload, or of the object.
        available: u64,
    },
    /// The stream names a buffer that the payload does not have.
    #[error("the stream names buffer {buffer}, but the payload has {count}")]
    NoSuchBuffer {
        /// The index of the buffer that the stream names.
        buffer: u32,
        /// How many there are.
        count: u32,
    },
    /// The stream names the same buffers repeatedly, so that their copies would take more memory than the payload.
    #[error(
        "the stream names buffers repeatedly: with buffer {buffer}, the copies exceed the {available} bytes of the \
         payload"
    )]
    CopiedAgain {
        /// The index of the buffer that the stream names.
        buffer: u32,
        /// Bytes of the payload, and of the objects that its buffers lie in.
        available: u64,
    },
    /// The payload names more references than came with it.
    #[error("the payload names reference {reference}, but {count} came with it")]
    NoSuchReference {
        /// The number of the reference in the payload.
        reference: u32,
        /// How many there are.
        count: u32,
    },
    /// The type cannot be read from the stream.
    #[error("the bytes do not hold a `{type_name}`: {reason}")]
    Unreadable {
        /// The type that was asked for.
        type_name: &'static str,
        /// The reason that its reading gave.
        reason: String,
    },
    /// To write or read the value would take more of the stack than the thread has left.
    #[error("the value nests deeper than the stack of this thread allows")]
    TooDeep,
    /// There are bytes in the stream after the end of the value.
    #[error("{extra} bytes follow the end of a `{type_name}`")]
    TrailingBytes {
        /// The type that was asked for.
        type_name: &'static str,
        /// The number of bytes after the end.
        extra: usize,
    },
    /// The type's `Serialize` refused.
    #[error("cannot write a `{type_name}`: {reason}")]
    Unwritable {
        /// The type.
        type_name: &'static str,
        /// The reason that its writing gave.
        reason: String,
    },
    /// The shape does not fit the number of elements, or is larger than memory.
    #[error("the shape {shape:?} does not hold {elements} elements")]
    Shape {
        /// The shape.
        shape: Vec<usize>,
        /// How many elements there are.
        elements: usize,
    },
    /// Some bytes of a tensor are not valid elements.
    #[error("the tensor has bytes that are no `{element}`")]
    Elements {
        /// The elements' type.
        element: &'static str,
    },
    /// Arrow data that is not valid: lengths, offsets, text or types do not fit together.
    #[cfg(feature = "arrow")]
    #[error("not valid Arrow data: {0}")]
    Arrow(#[from] crate::arrow::error::ArrowError),
    /// There is no session, so there is no store memory.
    #[error("this process has no session: call `mobula::init()` first")]
    NoSession,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] ClientError),
}

impl From<ValueError> for mobula_runtime::Error {
    fn from(error: ValueError) -> Self {
        match error {
            ValueError::NoSession => Self::NotInitialized,
            ValueError::Store(error) => Self::Store(error),
            error => Self::Value(Box::new(error)),
        }
    }
}

impl From<ValueError> for mobula_runtime::Failure {
    fn from(error: ValueError) -> Self {
        mobula_runtime::Error::from(error).into()
    }
}
