//! Reading values. Nothing in a payload is trusted to be where it says: each number is checked before it is used, and
//! everything but the buffers is copied first.

use std::ops::Range;

use mobula_client::{Handle, Object};
use mobula_runtime::Ref;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList, PyMemoryView, PyString, PyTuple};
use pyo3::{IntoPyObjectExt, intern};

use super::{DEPTH_MAX, ELEMENTS, HEADER_BYTES, MAGIC, RECORD_BYTES, extension, marker};
use crate::error::raised_by_store;
use crate::interpreter::Attribute;
use crate::reference::ObjectRef;
use crate::value::memory::Memory;

static ARRAY: Attribute = Attribute::new("numpy", "ndarray");
static FROM_PARTS: Attribute = Attribute::new("mobula._arrow", "from_parts");

/// Reads a payload. Its buffers are views of the object that it lies in, or copies where it lies in none.
pub(crate) fn decode<'py>(
    py: Python<'py>,
    payload: &[u8],
    object: Option<Object>,
    references: Vec<Handle>,
) -> PyResult<Bound<'py, PyAny>> {
    let short = || damaged("it is cut short");
    let header: [u8; HEADER_BYTES] = *payload.first_chunk().ok_or_else(short)?;
    if !header.starts_with(&MAGIC) {
        return Err(damaged("it is of another version"));
    }
    let [buffers, name_length] = [u32_at(&header, 4), u32_at(&header, 20) & 0xffff];
    let stream_length = usize::try_from(u64_at(&header, 8)).map_err(|_| short())?;
    let table_end =
        (buffers as usize).checked_mul(RECORD_BYTES).and_then(|bytes| bytes.checked_add(HEADER_BYTES));
    let table_end = table_end.ok_or_else(short)?;
    let stream_start = table_end.checked_add(name_length as usize).ok_or_else(short)?;
    let stream_end = stream_start.checked_add(stream_length).ok_or_else(short)?;
    let table = payload.get(HEADER_BYTES..table_end).ok_or_else(short)?.to_vec();
    let stream = payload.get(stream_start..stream_end).ok_or_else(short)?.to_vec();
    let mut reader = Reader { py, payload, object, references, table, rest: &stream };
    let value = reader.value(DEPTH_MAX)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(damaged("bytes follow its stream")) }
}

fn damaged(what: &str) -> PyErr {
    PyValueError::new_err(format!("a value of another language cannot be read: {what}"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    payload: &'a [u8],
    object: Option<Object>,
    references: Vec<Handle>,
    /// The records of the buffers.
    table: Vec<u8>,
    /// The unread part of the stream.
    rest: &'a [u8],
}

/// Where the bytes of a buffer lie.
enum Place {
    /// In this object.
    Object(Object, Range<usize>),
    /// In the payload, which is in memory of this process.
    Payload(Range<usize>),
}

impl<'a, 'py> Reader<'a, 'py> {
    fn value(&mut self, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let deeper = || depth.checked_sub(1).ok_or_else(|| damaged("it nests too deep"));
        Ok(match self.array::<1>()?[0] {
            byte @ 0..=0x7f => number(py, byte)?,
            byte @ 0x80..=0x8f => self.map((byte & 0x0f).into(), deeper()?)?,
            byte @ 0x90..=0x9f => self.list((byte & 0x0f).into(), deeper()?)?,
            byte @ 0xa0..=0xbf => self.text((byte & 0x1f).into())?,
            byte @ 0xe0.. => number(py, byte as i8)?,
            marker::NIL => py.None().into_bound(py),
            marker::FALSE => PyBool::new(py, false).to_owned().into_any(),
            marker::TRUE => PyBool::new(py, true).to_owned().into_any(),
            marker::U8 => number(py, u8::from_be_bytes(self.array()?))?,
            marker::U16 => number(py, u16::from_be_bytes(self.array()?))?,
            marker::U32 => number(py, u32::from_be_bytes(self.array()?))?,
            marker::U64 => number(py, u64::from_be_bytes(self.array()?))?,
            marker::I8 => number(py, i8::from_be_bytes(self.array()?))?,
            marker::I16 => number(py, i16::from_be_bytes(self.array()?))?,
            marker::I32 => number(py, i32::from_be_bytes(self.array()?))?,
            marker::I64 => number(py, i64::from_be_bytes(self.array()?))?,
            marker::F32 => PyFloat::new(py, f32::from_be_bytes(self.array()?).into()).into_any(),
            marker::F64 => PyFloat::new(py, f64::from_be_bytes(self.array()?)).into_any(),
            byte @ marker::STR_8..=marker::STR_32 => {
                let length = self.length(byte - marker::STR_8)?;
                self.text(length)?
            }
            byte @ marker::BIN_8..=marker::BIN_32 => {
                let length = self.length(byte - marker::BIN_8)?;
                PyBytes::new(py, self.take(length)?).into_any()
            }
            byte @ marker::ARRAY_16..=marker::ARRAY_32 => {
                let length = self.length(byte - marker::ARRAY_16 + 1)?;
                self.list(length, deeper()?)?
            }
            byte @ marker::MAP_16..=marker::MAP_32 => {
                let length = self.length(byte - marker::MAP_16 + 1)?;
                self.map(length, deeper()?)?
            }
            byte @ marker::FIXEXT_1..=marker::FIXEXT_16 => {
                self.extension(1 << (byte - marker::FIXEXT_1), deeper()?)?
            }
            byte @ marker::EXT_8..=marker::EXT_32 => {
                let length = self.length(byte - marker::EXT_8)?;
                self.extension(length, deeper()?)?
            }
            _ => return Err(damaged("its stream is no MessagePack")),
        })
    }

    fn extension(&mut self, length: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let code = self.array::<1>()?[0];
        let data = self.take(length)?;
        Ok(match code {
            extension::SOME => py.None().into_bound(py),
            extension::SIGNED => number(py, i128::from_le_bytes(whole(data)?))?,
            extension::UNSIGNED => number(py, u128::from_le_bytes(whole(data)?))?,
            extension::NUMBERS => {
                let (letter, numbers) = data.split_first().ok_or_else(|| damaged("a list is cut short"))?;
                list_of_numbers(py, *letter, numbers)?
            }
            extension::NUMBERS_BESIDE => {
                let [letter, index @ ..] = whole::<5>(data)?;
                let numbers = self.copied(u32::from_le_bytes(index))?;
                list_of_numbers(py, letter, &numbers)?
            }
            extension::TEXT_BESIDE => {
                let text = self.copied(u32::from_le_bytes(whole(data)?))?;
                let text = String::from_utf8(text).map_err(|_| damaged("its text is not UTF-8"))?;
                PyString::new(py, &text).into_any()
            }
            extension::BYTES_BESIDE => {
                PyBytes::new(py, &self.copied(u32::from_le_bytes(whole(data)?))?).into_any()
            }
            extension::BUFFER => {
                let index = self.within(data, depth)?.extract()?;
                PyMemoryView::from(&self.memory(index)?)?.into_any()
            }
            extension::REFERENCE => {
                let [position] = self.within(data, depth)?.extract::<[u32; 1]>()?;
                let handle = self.references.get(position as usize).cloned();
                let handle = handle.ok_or_else(|| damaged("a reference is missing"))?;
                Bound::new(py, ObjectRef { to: Ref::to_object(handle, None) })?.into_any()
            }
            extension::TENSOR => self.within(data, depth).and_then(|parts| tensor(&parts))?,
            extension::ARROW => FROM_PARTS.get(py)?.call1((self.within(data, depth)?,))?,
            _ => return Err(damaged("it has a part that this version does not know")),
        })
    }

    /// The one value that an extension's data is.
    fn within(&mut self, data: &'a [u8], depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let behind = std::mem::replace(&mut self.rest, data);
        let value = self.value(depth)?;
        let left = std::mem::replace(&mut self.rest, behind);
        if left.is_empty() { Ok(value) } else { Err(damaged("bytes follow a part of it")) }
    }

    fn list(&mut self, length: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        // No memory is reserved for a length that nothing backs.
        let list = PyList::empty(self.py);
        for _ in 0..length {
            list.append(self.value(depth)?)?;
        }
        Ok(list.into_any())
    }

    fn map(&mut self, length: usize, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let map = PyDict::new(self.py);
        for _ in 0..length {
            let key = self.value(depth)?;
            // A list is no key of a dict.
            let key = match key.cast::<PyList>() {
                Ok(list) => list.to_tuple().into_any(),
                Err(_) => key,
            };
            map.set_item(key, self.value(depth)?)?;
        }
        Ok(map.into_any())
    }

    fn text(&mut self, length: usize) -> PyResult<Bound<'py, PyAny>> {
        let text = str::from_utf8(self.take(length)?).map_err(|_| damaged("its text is not UTF-8"))?;
        Ok(PyString::new(self.py, text).into_any())
    }

    /// A length of 1, 2 or 4 bytes, by the position of its marker among three.
    fn length(&mut self, width: u8) -> PyResult<usize> {
        Ok(match width {
            0 => u8::from_be_bytes(self.array()?).into(),
            1 => u16::from_be_bytes(self.array()?).into(),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        whole(self.take(N)?)
    }

    fn take(&mut self, length: usize) -> PyResult<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| damaged("its stream is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    // ---- buffers ----

    fn place(&self, index: u32) -> PyResult<Place> {
        let missing = || damaged("a buffer is missing");
        let (records, _) = self.table.as_chunks::<RECORD_BYTES>();
        let record = records.get(index as usize).ok_or_else(missing)?;
        let start = usize::try_from(u64_at(record, 0)).map_err(|_| missing())?;
        let length = usize::try_from(u64_at(record, 8)).map_err(|_| missing())?;
        let range = start..start.checked_add(length).ok_or_else(missing)?;
        let (object, available) = match (u32_at(record, 16), &self.object) {
            (0, Some(object)) => (Some(object.clone()), object.len()),
            (0, None) => (None, self.payload.len()),
            (reference, _) => {
                let handle = self.references.get(reference as usize - 1).ok_or_else(missing)?;
                let object = handle.object().map_err(|error| raised_by_store(self.py, error))?;
                let length = object.len();
                (Some(object), length)
            }
        };
        if range.end > available {
            return Err(missing());
        }
        Ok(object.map_or(Place::Payload(range.clone()), |object| Place::Object(object, range)))
    }

    /// The bytes of a buffer, copied.
    fn copied(&self, index: u32) -> PyResult<Vec<u8>> {
        Ok(match self.place(index)? {
            Place::Object(object, range) => object[range].to_vec(),
            Place::Payload(range) => self.payload[range].to_vec(),
        })
    }

    /// A buffer that Python reads where it lies.
    fn memory(&self, index: u32) -> PyResult<Bound<'py, PyAny>> {
        match self.place(index)? {
            Place::Object(object, range) => {
                let memory = Memory::new(object, range).ok_or_else(|| damaged("a buffer is missing"))?;
                Ok(Bound::new(self.py, memory)?.into_any())
            }
            Place::Payload(range) => Ok(PyBytes::new(self.py, &self.payload[range]).into_any()),
        }
    }
}

fn number<'py>(py: Python<'py>, number: impl IntoPyObjectExt<'py>) -> PyResult<Bound<'py, PyAny>> {
    number.into_bound_py_any(py)
}

fn whole<const N: usize>(bytes: &[u8]) -> PyResult<[u8; N]> {
    bytes.try_into().map_err(|_| damaged("a part of it has another length"))
}

fn list_of_numbers<'py>(py: Python<'py>, letter: u8, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    macro_rules! list {
        ($number:ty) => {{
            let (numbers, rest) = bytes.as_chunks::<{ size_of::<$number>() }>();
            if !rest.is_empty() {
                return Err(damaged("a list of numbers is cut short"));
            }
            PyList::new(py, numbers.iter().map(|bytes| <$number>::from_le_bytes(*bytes)))?.into_any()
        }};
    }
    Ok(match letter {
        b'b' => list!(i8),
        b'h' => list!(i16),
        b'i' => list!(i32),
        b'q' => list!(i64),
        // A list of `u8` is a list, as one of all other numbers.
        b'B' => PyList::new(py, bytes)?.into_any(),
        b'H' => list!(u16),
        b'I' => list!(u32),
        b'Q' => list!(u64),
        b'f' => list!(f32),
        b'd' => list!(f64),
        _ => return Err(damaged("a list is of numbers that this version does not know")),
    })
}

/// The array of numpy that a tensor's parts make up.
fn tensor<'py>(parts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = parts.py();
    let element = parts.get_item(intern!(py, "element"))?.extract::<String>()?;
    let dtype = ELEMENTS.iter().find(|(name, _)| *name == element).map(|(_, dtype)| *dtype);
    let dtype = dtype.ok_or_else(|| damaged(&format!("numpy has no type for the elements {element}")))?;
    let shape = PyTuple::new(py, parts.get_item(intern!(py, "shape"))?.extract::<Vec<u64>>()?)?;
    // numpy checks that the buffer has so many elements.
    let array = ARRAY.get(py)?.call1((shape, dtype, parts.get_item(intern!(py, "buffer"))?))?;
    array.getattr(intern!(py, "flags"))?.setattr(intern!(py, "writeable"), false)?;
    Ok(array)
}
