//! Writing values.

use std::ptr;

use mobula_client::Handle;
use mobula_runtime::{ArgumentList, Encoded, Failure, Written, format};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use smallvec::SmallVec;

use super::portable::{self, Portable};
use super::{ALIGNMENT, HEADER_BYTES, RECORD_BYTES, context, kind, numbers};
use crate::interpreter::Attribute;
use crate::reference::ObjectRef;

/// A value with more bytes or references goes into the store, whatever it is for.
const INLINE_BYTES_MAX: usize = 4096;
const INLINE_REFERENCES_MAX: usize = 32;
/// Longer bytes are not copied twice.
const SHORT_BYTES_MAX: usize = 1024;
/// A deeper value is left to `cloudpickle`, which pickles every value.
const PLAIN_DEPTH_MAX: usize = 8;

static DUMPS: Attribute = Attribute::new("_pickle", "dumps");
static DUMPS_ANYTHING: Attribute = Attribute::new("mobula._serialization", "dumps");

/// A value that is ready to be written.
#[derive(Debug)]
pub(crate) enum Value {
    /// The whole payload.
    Whole(SmallVec<[u8; 40]>),
    /// A payload with buffers or references.
    Parts(Parts),
    /// A payload that programs of other languages read.
    Portable(Portable),
}

/// A payload with buffers or references.
#[derive(Debug)]
pub(crate) struct Parts {
    kind: u8,
    stream: Vec<u8>,
    buffers: Vec<Buffer>,
    references: Vec<Handle>,
    /// Where each buffer starts.
    starts: SmallVec<[usize; 2]>,
    length: usize,
}

/// The memory of a Python object, which stays where it is while this lives.
pub(super) struct Buffer(PyUntypedBuffer);

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len_bytes())
    }
}

impl Buffer {
    pub(super) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if !buffer.is_c_contiguous() && !buffer.is_fortran_contiguous() {
            return Err(PyBufferError::new_err("the buffer has gaps"));
        }
        Ok(Self(buffer))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// Copies the memory, byte by byte.
    pub(super) fn copy_to(&self, out: &mut [u8]) {
        let length = out.len().min(self.0.len_bytes());
        // SAFETY: the buffer is contiguous (see `new`), so that many bytes lie behind its pointer. The object keeps
        // them there while it is exported, which it is until the buffer is dropped. `out` is memory of a record or of
        // an object that is not sealed, so the two do not overlap. No reference to the bytes is made: another thread of
        // the program that writes them meanwhile makes the copy a mixture of old and new bytes, each of which is a
        // byte.
        unsafe { ptr::copy_nonoverlapping(self.0.buf_ptr().cast::<u8>(), out.as_mut_ptr(), length) };
    }
}

impl Parts {
    fn new(kind: u8, stream: Vec<u8>, buffers: Vec<Buffer>, references: Vec<Handle>) -> Self {
        let mut length = HEADER_BYTES + buffers.len() * RECORD_BYTES + stream.len();
        let mut starts = SmallVec::new();
        for buffer in &buffers {
            let start = length.next_multiple_of(ALIGNMENT);
            starts.push(start);
            length = start + buffer.0.len_bytes();
        }
        Self { kind, stream, buffers, references, starts, length }
    }
}

impl Encoded for Parts {
    fn payload_bytes(&self) -> usize {
        self.length
    }

    fn format(&self) -> u32 {
        format::PYTHON
    }

    fn references(&self) -> &[Handle] {
        &self.references
    }

    fn write_into(&self, out: &mut [u8]) {
        let mut head = vec![0; HEADER_BYTES];
        head[0] = self.kind;
        head[4..8].copy_from_slice(&(self.buffers.len() as u32).to_le_bytes());
        head[8..16].copy_from_slice(&(self.stream.len() as u64).to_le_bytes());
        for (buffer, start) in self.buffers.iter().zip(&self.starts) {
            head.extend_from_slice(&(*start as u64).to_le_bytes());
            head.extend_from_slice(&(buffer.0.len_bytes() as u64).to_le_bytes());
        }
        head.extend_from_slice(&self.stream);
        out[..head.len()].copy_from_slice(&head);
        let mut end = head.len();
        for (buffer, &start) in self.buffers.iter().zip(&self.starts) {
            out[end..start].fill(0);
            end = start + buffer.0.len_bytes();
            buffer.copy_to(&mut out[start..end]);
        }
    }
}

impl Value {
    /// Writes the value, as the core asks for it.
    pub(crate) fn write(self, out: &mut Vec<u8>) -> Result<Written<Self>, Failure> {
        Ok(match self {
            Self::Whole(bytes) => {
                out.extend_from_slice(&bytes);
                Written::Whole { format: format::PYTHON }
            }
            value => Written::Apart(value),
        })
    }

    /// Adds the value to the arguments of a call.
    pub(crate) fn push_to(self, py: Python<'_>, arguments: &mut ArgumentList) {
        let is_stored = self.is_stored();
        let push = || arguments.push_value(|out| self.write(out));
        if is_stored { py.detach(push) } else { push() }
    }

    /// Whether the value goes into the store, where it is copied, and where it may have to wait for room.
    pub(crate) fn is_stored(&self) -> bool {
        self.len() > INLINE_BYTES_MAX || self.references().len() > INLINE_REFERENCES_MAX
    }

    /// The number of bytes that are copied when it is written.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Parts(parts) => parts.length,
            Self::Portable(portable) => portable.payload_bytes(),
        }
    }

    fn one(kind: u8, data: &[u8]) -> Self {
        let mut bytes = SmallVec::with_capacity(1 + data.len());
        bytes.push(kind);
        bytes.extend_from_slice(data);
        Self::Whole(bytes)
    }
}

impl Encoded for Value {
    fn payload_bytes(&self) -> usize {
        self.len()
    }

    fn format(&self) -> u32 {
        match self {
            Self::Portable(portable) => portable.format(),
            Self::Whole(_) | Self::Parts(_) => format::PYTHON,
        }
    }

    fn references(&self) -> &[Handle] {
        match self {
            Self::Whole(_) | Self::Portable(_) => &[],
            Self::Parts(parts) => &parts.references,
        }
    }

    fn write_into(&self, out: &mut [u8]) {
        match self {
            Self::Whole(bytes) => out.copy_from_slice(bytes),
            Self::Parts(parts) => parts.write_into(out),
            Self::Portable(portable) => portable.write_into(out),
        }
    }
}

/// Encodes a value. Its large memory is copied later, when the value is written.
///
/// # Errors
/// The error of pickling the value.
pub(crate) fn encode(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_none() {
        return Ok(Value::one(kind::NONE, &[]));
    }
    if value.is_exact_instance_of::<PyInt>() {
        if let Ok(number) = value.extract::<i64>() {
            return Ok(Value::one(kind::INT, &number.to_le_bytes()));
        }
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        return Ok(Value::one(kind::FLOAT, &number.value().to_le_bytes()));
    } else if let Ok(boolean) = value.cast_exact::<PyBool>() {
        return Ok(Value::one(if boolean.is_true() { kind::TRUE } else { kind::FALSE }, &[]));
    } else if let Ok(text) = value.cast_exact::<PyString>() {
        // Text with lone surrogates is no UTF-8.
        if let Ok(text) = text.to_str() {
            return Ok(Value::one(kind::STR, text.as_bytes()));
        }
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        if bytes.as_bytes().len() <= SHORT_BYTES_MAX {
            return Ok(Value::one(kind::BYTES, bytes.as_bytes()));
        }
        let buffers = vec![Buffer::new(value)?];
        return Ok(Value::Parts(Parts::new(kind::LONG_BYTES, Vec::new(), buffers, Vec::new())));
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        if let Some((kind, numbers)) = numbers::pack(list) {
            return Ok(Value::Parts(Parts::new(kind, numbers, Vec::new(), Vec::new())));
        }
    } else if let Some(array) = encode_array(value)? {
        return Ok(array);
    }
    pickle(value)
}

/// Encodes `None`.
pub(crate) fn none() -> Value {
    Value::one(kind::NONE, &[])
}

/// Encodes a text.
pub(crate) fn text(text: &str) -> Value {
    Value::one(kind::STR, text.as_bytes())
}

/// Encodes a value for a program of another language.
///
/// # Errors
/// A part of it has no form that other languages read.
pub(crate) fn encode_portable(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    portable::encode(value).map(Value::Portable)
}

/// An array of numpy whose memory has no gaps, and whose elements are numbers: its type, order and shape.
fn encode_array(value: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    let py = value.py();
    if !is_array(value) {
        return Ok(None);
    }
    let kind_of = value.getattr(intern!(py, "dtype"))?;
    let letter = kind_of.getattr(intern!(py, "kind"))?;
    if !matches!(letter.cast::<PyString>()?.to_str()?, "b" | "i" | "u" | "f" | "c") {
        return Ok(None);
    }
    let name = kind_of.getattr(intern!(py, "str"))?;
    let name = name.cast::<PyString>()?.to_str()?;
    // Arrays with gaps are pickled, which copies their elements; others may have an element type without a buffer.
    let Ok(buffer) = Buffer::new(value) else { return Ok(None) };
    let is_fortran = !buffer.0.is_c_contiguous();
    let mut stream = Vec::with_capacity(32);
    stream.push(name.len() as u8);
    stream.extend_from_slice(name.as_bytes());
    stream.push(u8::from(is_fortran));
    stream.push(buffer.0.dimensions() as u8);
    for length in buffer.0.shape() {
        stream.extend_from_slice(&(*length as u64).to_le_bytes());
    }
    Ok(Some(Value::Parts(Parts::new(kind::ARRAY, stream, vec![buffer], Vec::new()))))
}

/// Whether the value is an array of numpy, and of no class that is derived from it.
pub(super) fn is_array(value: &Bound<'_, PyAny>) -> bool {
    static ARRAY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let (py, class) = (value.py(), value.get_type());
    if let Some(array) = ARRAY.get(py) {
        return class.is(array);
    }
    // No array exists before numpy is imported, and importing it takes long.
    let is_it = class.name().is_ok_and(|name| name == "ndarray")
        && class.module().is_ok_and(|module| module == "numpy");
    if is_it {
        let _ = ARRAY.set(py, class.unbind());
    }
    is_it
}

fn pickle(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let py = value.py();
    // A class and a function of the program itself must travel as they are, which only `cloudpickle` can do.
    let dumps = if is_plain(value, PLAIN_DEPTH_MAX) { &DUMPS } else { &DUMPS_ANYTHING };
    // It returns nothing, which says that the buffer is beside the pickle now.
    let buffers = PyList::empty(py);
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "buffer_callback"), buffers.getattr(intern!(py, "append"))?)?;
    let (pickled, references) = context::writing(|| dumps.get(py)?.call((value, 5), Some(&keywords)));
    let pickled = pickled?;
    let stream = pickled.cast::<PyBytes>()?.as_bytes().to_vec();
    let buffers = buffers
        .iter()
        .map(|buffer| Buffer::new(&buffer.call_method0(intern!(py, "raw"))?))
        .collect::<PyResult<Vec<_>>>()?;
    Ok(Value::Parts(Parts::new(kind::PICKLE, stream, buffers, references)))
}

/// Encodes a function or a class, with the values that it captures. Returns its key, too: a hash of the pickle, and of
/// the objects that it refers to, which have only positions in the pickle.
///
/// # Errors
/// The error of pickling it.
pub(crate) fn export(function: &Bound<'_, PyAny>, name: &str, shown: &str) -> PyResult<(u64, Value)> {
    static PICKLED: Attribute = Attribute::new("mobula._serialization", "pickled");
    static KEY: Attribute = Attribute::new("mobula._serialization", "key");
    let py = function.py();
    let (pickled, references) = context::writing(|| PICKLED.get(py)?.call1((function, name, shown)));
    let pickled = pickled?.cast_into::<PyBytes>()?;
    let stream = pickled.as_bytes().to_vec();
    let ids: Vec<u8> = references.iter().flat_map(|handle| handle.id().to_bytes()).collect();
    let key = KEY.get(py)?.call1((pickled, PyBytes::new(py, &ids)))?.extract()?;
    Ok((key, Value::Parts(Parts::new(kind::PICKLE, stream, Vec::new(), references))))
}

/// Whether the value consists of objects that every process unpickles alike: numbers, text, bytes, arrays, references,
/// and containers of them.
fn is_plain(value: &Bound<'_, PyAny>, depth: usize) -> bool {
    let is_leaf = value.is_none()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PyBool>();
    if is_leaf {
        return true;
    }
    let Some(deeper) = depth.checked_sub(1) else { return false };
    if let Ok(list) = value.cast_exact::<PyList>() {
        list.iter().all(|item| is_plain(&item, deeper))
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        tuple.iter().all(|item| is_plain(&item, deeper))
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        dict.iter().all(|(key, item)| is_plain(&key, deeper) && is_plain(&item, deeper))
    } else {
        value.is_exact_instance_of::<ObjectRef>() || is_array(value) && !has_objects(value)
    }
}

/// Whether the elements of an array are Python objects, of any class.
fn has_objects(array: &Bound<'_, PyAny>) -> bool {
    let has =
        || array.getattr(intern!(array.py(), "dtype"))?.getattr(intern!(array.py(), "hasobject"))?.extract();
    has().unwrap_or(true)
}
