//! Encodes a value into a payload, in two steps. [`encode`] walks the value and finds the size of the payload. Then
//! [`Encoded::write_into`] writes the payload to its final position, which is the only copy of its buffers.

use std::fmt;

use mobula_client::Handle;
use mobula_runtime::Written;
use serde::Serialize;

use super::buffer::Buffer;
use super::encoding::{Beside, Destination, Placed};
use super::payload::{self, ALIGNMENT, BufferRecord, Layout};
use super::{ValueError, context, stream};

/// The first step from a value to a payload: walks `value`. Its carriers are shared, not copied; everything else is
/// written into the stream, on the heap. No system call, no message to the daemon, and no session needed, unless a
/// reference to a result in the value has to become an object of the store first.
///
/// Calls, [`put`](crate::put()) and [`get`](crate::get()) do this themselves. It is for programs that carry payloads in
/// another way: through [`Client`](crate::Client), in a file, by a socket.
///
/// ```
/// use mobula::value::{Source, decode, encode};
///
/// let value = vec![("manta".to_owned(), 9.1), ("mobula".to_owned(), 5.2)];
/// let payload = encode(&value)?.to_vec();
/// let back: Vec<(String, f64)> = decode(Source::heap(payload, vec![]))?;
/// assert_eq!(back, value);
/// # Ok::<(), mobula::value::ValueError>(())
/// ```
///
/// # Errors
///
/// - [`ValueError::Unwritable`]: the value's `Serialize` refuses.
/// - [`ValueError::TooDeep`]: the value nests deeper than the stack of this thread allows.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, ValueError> {
    encode_to(Destination::Anywhere, value)
}

/// As [`encode`], for a payload that stays in the session: large text, bytes and lists of numbers become objects of
/// their own, and are copied once.
///
/// # Errors
///
/// Those of [`encode`], and [`ValueError::Store`] when the store has no room.
pub(crate) fn encode_for_session<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, ValueError> {
    encode_to(Destination::Session, value)
}

fn encode_to<T: Serialize + ?Sized>(to: Destination, value: &T) -> Result<Encoded, ValueError> {
    let mut stream = Vec::with_capacity(64);
    let (written, beside) = context::encoding::<T>(to, || stream::append(value, &mut stream));
    written?;
    Ok(Encoded::new(std::any::type_name::<T>(), stream, beside))
}

/// Appends the payload of `value`, which stays in the session, to `out`, if it is a stream without other parts.
///
/// # Errors
///
/// Those of [`encode_for_session`]; `out` is unchanged then.
pub(crate) fn append<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Written<Encoded>, ValueError> {
    let start = out.len();
    let type_name = payload::stored_name(std::any::type_name::<T>());
    out.resize(start + payload::HEADER_BYTES, 0);
    out.extend_from_slice(type_name);
    let stream_start = out.len();
    let (written, beside) = context::encoding::<T>(Destination::Session, || stream::append(value, out));
    let stream_bytes = out.len() - stream_start;
    match (written, beside) {
        (Ok(()), None) => {
            Layout::new(0, 0, type_name.len(), stream_bytes).write(&mut out[start..]);
            Ok(Written::Whole { format: stream::format_of(&out[stream_start..]) })
        }
        (written, beside) => {
            let stream = out[stream_start..].to_vec();
            out.truncate(start);
            written.map(|()| Written::Apart(Encoded::new(std::any::type_name::<T>(), stream, beside)))
        }
    }
}

/// A value on its way into a payload: its length is known, and its buffers are not copied yet.
///
/// ```
/// use mobula::client::Layout;
/// use mobula::value::{Bytes, Source, decode, encode};
///
/// let session = mobula::init()?;
/// let client = session.client();
/// let encoded = encode(&("name", Bytes::from(vec![7; 1 << 20])))?;
/// // Straight into the memory of the store: the megabyte is copied once.
/// let layout = Layout::new(encoded.len() as u64)
///     .format(encoded.format())
///     .references(encoded.references().to_vec());
/// let mut writer = client.create(layout)?;
/// encoded.write_into(&mut writer);
/// let object = writer.seal();
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "no payload is written before `write_into` or `to_vec` is called"]
pub struct Encoded {
    type_name: &'static [u8],
    stream: Vec<u8>,
    buffers: Vec<(BufferRecord, Buffer)>,
    references: Vec<Handle>,
    layout: Layout,
    length: usize,
    copied_bytes: u64,
}

impl Encoded {
    fn new(name: &'static str, stream: Vec<u8>, beside: Beside) -> Self {
        let (placed, references) = beside.map_or_else(Default::default, |beside| beside.into_parts());
        let type_name = payload::stored_name(name);
        let layout = Layout::new(placed.len(), references.len(), type_name.len(), stream.len());
        let mut length = layout.stream.end;
        let mut copied_bytes = 0;
        let mut place = |Placed { buffer, external }| {
            let (offset, reference) = match external {
                Some((reference, offset)) => (offset, Some(reference)),
                None if buffer.is_empty() => (0, None),
                None => {
                    let offset = length.next_multiple_of(ALIGNMENT);
                    length = offset + buffer.len();
                    copied_bytes += buffer.len() as u64;
                    (offset as u64, None)
                }
            };
            (BufferRecord { offset, length: buffer.len() as u64, reference }, buffer)
        };
        let buffers = placed.into_iter().map(&mut place).collect();
        Self { type_name, stream, buffers, references, layout, length, copied_bytes }
    }

    /// Bytes of the payload.
    ///
    /// ```
    /// let encoded = mobula::value::encode(&[1, 2, 3])?;
    /// assert_eq!(encoded.len(), encoded.to_vec().len());
    /// # Ok::<(), mobula::value::ValueError>(())
    /// ```
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no payload is empty")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// The tag that tells how the payload is to be read; see [`format`](super::format).
    ///
    /// ```
    /// use mobula::value::{Tensor, encode, format};
    ///
    /// assert_eq!(encode(&"text")?.format(), format::PLAIN);
    /// assert_eq!(encode(&Tensor::from(vec![1, 2, 3]))?.format(), format::TENSOR);
    /// # Ok::<(), mobula::value::ValueError>(())
    /// ```
    #[must_use]
    pub fn format(&self) -> u32 {
        stream::format_of(&self.stream)
    }

    /// How many bytes of buffers [`write_into`](Self::write_into) copies: none when all of them lie in the store.
    ///
    /// ```
    /// use mobula::value::{Bytes, BytesMut, encode};
    ///
    /// let _mobula = mobula::init()?;
    /// assert_eq!(encode(&Bytes::from(vec![7; 1000]))?.copied_bytes(), 1000);
    /// assert_eq!(encode(&BytesMut::create(1000)?.seal())?.copied_bytes(), 0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Every object of the store that the value refers to, each once, in the order in which [`decode`](super::decode)
    /// needs them. The payload itself does not keep them alive: an object does, if its [`Layout`] has them.
    ///
    /// [`Layout`]: mobula_client::Layout
    ///
    /// ```
    /// use mobula::value::encode;
    ///
    /// let _mobula = mobula::init()?;
    /// let inner = mobula::put(&"inner".to_owned())?;
    /// assert_eq!(encode(&(1, inner))?.references().len(), 1);
    /// assert_eq!(encode(&(1, 2))?.references().len(), 0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn references(&self) -> &[Handle] {
        &self.references
    }

    /// Writes the payload, every byte of `out`, which may be memory of the store. Copies
    /// [`copied_bytes`](Self::copied_bytes) and the stream.
    ///
    /// ```
    /// let encoded = mobula::value::encode(&7)?;
    /// let mut payload = vec![0; encoded.len()];
    /// encoded.write_into(&mut payload);
    /// assert_eq!(payload, encoded.to_vec());
    /// # Ok::<(), mobula::value::ValueError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `out` is not exactly [`len`](Self::len) bytes long.
    pub fn write_into(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.length, "the payload needs exactly the memory that it asked for");
        self.layout.write(out);
        out[self.layout.type_name.clone()].copy_from_slice(self.type_name);
        out[self.layout.stream.clone()].copy_from_slice(&self.stream);
        let mut written = self.layout.stream.end;
        for (index, (record, buffer)) in self.buffers.iter().enumerate() {
            record.write(out, index);
            if record.reference.is_none() && !buffer.is_empty() {
                let start = record.offset as usize;
                // The memory may hold the bytes of an earlier object.
                out[written..start].fill(0);
                written = start + buffer.len();
                mobula_client::internal::copy(&mut out[start..written], buffer);
            }
        }
    }

    /// The payload on the heap. Copies as [`write_into`](Self::write_into) does.
    ///
    /// ```
    /// let payload = mobula::value::encode(&7)?.to_vec();
    /// assert!(payload.starts_with(b"Mbv"));
    /// # Ok::<(), mobula::value::ValueError>(())
    /// ```
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut payload = vec![0; self.length];
        self.write_into(&mut payload);
        payload
    }
}

impl fmt::Debug for Encoded {
    /// Shows the lengths. The bytes are left out, because they may be gigabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("type", &String::from_utf8_lossy(self.type_name))
            .field("length", &self.length)
            .field("copied_bytes", &self.copied_bytes)
            .field("references", &self.references.len())
            .finish()
    }
}

impl mobula_runtime::Encoded for Encoded {
    fn payload_bytes(&self) -> usize {
        self.len()
    }

    fn format(&self) -> u32 {
        self.format()
    }

    fn references(&self) -> &[Handle] {
        self.references()
    }

    fn write_into(&self, out: &mut [u8]) {
        self.write_into(out);
    }
}
