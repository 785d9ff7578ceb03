//! Reading values. Nothing in a payload is trusted to be where it says: each number is checked before it is used, and
//! the header and the stream are copied first.

use std::ops::Range;

use mobula_client::{Client, ClientError, Handle, Object};
use mobula_runtime::{Failure, Inline, Payload, Resolved, format, stored};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::memory::Memory;
use super::{HEADER_BYTES, RECORD_BYTES, context, kind, numbers, portable};
use crate::error::{raised, raised_by_store};
use crate::interpreter::Attribute;

static LOADS: Attribute = Attribute::new("_pickle", "loads");
static ARRAY: Attribute = Attribute::new("numpy", "ndarray");

/// The value of a reference that is ready.
pub(crate) fn of_resolved<'py>(
    py: Python<'py>,
    client: &Client,
    value: Resolved,
) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Resolved::Inline(Inline { format, value, references }) => {
            decode(py, format, &value, None, references)
        }
        Resolved::Stored(object) => of_object(py, client, object),
    }
}

/// The value of an argument.
pub(crate) fn of_payload<'py>(
    py: Python<'py>,
    client: &Client,
    payload: Payload<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    match payload {
        Payload::Inline { format, value, references } => {
            let references = references.iter().map(|id| client.hold(id)).collect::<Result<Vec<_>, _>>();
            decode(py, format, value, None, references.map_err(|error| raised_by_store(py, error))?)
        }
        Payload::Stored(id) => {
            // An object that was spilled is read from the disk.
            let found = py
                .detach(|| client.hold(id).map_err(Failure::from).and_then(|handle| stored(client, handle)));
            of_object(py, client, found.map_err(|failure| raised(py, failure))?)
        }
    }
}

/// The text of an argument, if the argument is a text in the record.
pub(crate) fn text_of_payload<'a>(payload: &Payload<'a>) -> Option<&'a str> {
    match *payload {
        Payload::Inline { format: format::PYTHON, value: [kind::STR, text @ ..], .. } => {
            str::from_utf8(text).ok()
        }
        _ => None,
    }
}

/// The value of an object.
pub(crate) fn of_object<'py>(
    py: Python<'py>,
    client: &Client,
    object: Object,
) -> PyResult<Bound<'py, PyAny>> {
    let references: Result<Vec<Handle>, ClientError> =
        object.references().into_iter().map(|id| client.hold(id)).collect();
    let references = references.map_err(|error| raised_by_store(py, error))?;
    decode(py, object.format(), &object.clone(), Some(object), references)
}

fn damaged(what: &str) -> PyErr {
    PyValueError::new_err(format!(
        "a value cannot be read: {what}; was it written by another version of mobula?"
    ))
}

/// Reads a payload. Its buffers are views of the object that it lies in, or copies where it lies in none.
fn decode<'py>(
    py: Python<'py>,
    format: u32,
    payload: &[u8],
    object: Option<Object>,
    references: Vec<Handle>,
) -> PyResult<Bound<'py, PyAny>> {
    if format != format::PYTHON {
        return match format::is_payload(format) {
            true => portable::decode(py, payload, object, references),
            false => Err(damaged(&format!("it is {}", format::shown(format)))),
        };
    }
    let (&first, data) = payload.split_first().ok_or_else(|| damaged("it is empty"))?;
    let number = || data.first_chunk::<8>().copied().ok_or_else(|| damaged("its number is cut short"));
    Ok(match first {
        kind::NONE => py.None().into_bound(py),
        kind::TRUE => PyBool::new(py, true).to_owned().into_any(),
        kind::FALSE => PyBool::new(py, false).to_owned().into_any(),
        kind::INT => PyInt::new(py, i64::from_le_bytes(number()?)).into_any(),
        kind::FLOAT => PyFloat::new(py, f64::from_le_bytes(number()?)).into_any(),
        kind::STR => {
            // Copied before it is looked at.
            let text = String::from_utf8(data.to_vec()).map_err(|_| damaged("its text is not UTF-8"))?;
            PyString::new(py, &text).into_any()
        }
        kind::BYTES => PyBytes::new(py, data).into_any(),
        kind::ARRAY | kind::PICKLE | kind::LONG_BYTES => {
            let parts = Parts::read(payload, object)?;
            match first {
                kind::ARRAY => parts.into_array(py)?,
                kind::PICKLE => parts.unpickle(py, references)?,
                _ => match &parts.buffers[..] {
                    [range] => PyBytes::new(py, &payload[range.clone()]).into_any(),
                    _ => return Err(damaged("its bytes are missing")),
                },
            }
        }
        kind::NARROW_INTS | kind::INTS | kind::FLOATS => {
            let numbers = Parts::read(payload, object)?.stream;
            let list = numbers::unpack(py, first, &numbers);
            list.ok_or_else(|| damaged("its numbers are cut short"))??.into_any()
        }
        _ => return Err(damaged("its kind is not known")),
    })
}

/// Whether numpy knows an element type of numbers by this name: byte order, kind and size, such as `<f8`. It would take
/// the bytes for the addresses of objects, if the name said so.
fn is_number_type(name: &str) -> bool {
    match name.as_bytes() {
        [b'<' | b'>' | b'|' | b'=', b'b' | b'i' | b'u' | b'f' | b'c', size @ ..] => {
            matches!(size.len(), 1..=2) && size.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

/// The parts of a payload, each of which lies in it.
struct Parts<'a> {
    payload: &'a [u8],
    object: Option<Object>,
    stream: Vec<u8>,
    buffers: Vec<Range<usize>>,
}

impl<'a> Parts<'a> {
    fn read(payload: &'a [u8], object: Option<Object>) -> PyResult<Self> {
        let short = || damaged("it is cut short");
        let header: [u8; HEADER_BYTES] = *payload.first_chunk().ok_or_else(short)?;
        let [_, _, _, _, a, b, c, d, length @ ..] = header;
        let (count, length) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(length));
        let table_bytes = usize::try_from(u64::from(count) * RECORD_BYTES as u64).map_err(|_| short())?;
        let stream_start = HEADER_BYTES.saturating_add(table_bytes);
        let table = payload.get(HEADER_BYTES..stream_start).ok_or_else(short)?;
        let stream_end = usize::try_from(length).ok().and_then(|length| stream_start.checked_add(length));
        let stream = payload.get(stream_start..stream_end.ok_or_else(short)?).ok_or_else(short)?.to_vec();
        let (records, _) = table.as_chunks::<RECORD_BYTES>();
        let range = |record: &[u8; RECORD_BYTES]| {
            let number = |at: usize| {
                let bytes = record[at..at + 8].try_into().map_err(|_| short())?;
                usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| short())
            };
            let (start, length) = (number(0)?, number(8)?);
            let end = start.checked_add(length).filter(|end| *end <= payload.len()).ok_or_else(short)?;
            Ok(start..end)
        };
        let buffers = records.iter().map(range).collect::<PyResult<_>>()?;
        Ok(Self { payload, object, stream, buffers })
    }

    /// A buffer that Python reads.
    fn buffer<'py>(&self, py: Python<'py>, range: &Range<usize>) -> PyResult<Bound<'py, PyAny>> {
        match &self.object {
            Some(object) => {
                let memory = Memory::new(object.clone(), range.clone());
                Ok(Bound::new(py, memory.ok_or_else(|| damaged("a buffer is cut short"))?)?.into_any())
            }
            None => Ok(PyBytes::new(py, &self.payload[range.clone()]).into_any()),
        }
    }

    fn into_array(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let short = || damaged("its array is cut short");
        let mut rest = &self.stream[..];
        let mut take = |length: usize| {
            let (taken, behind) = rest.split_at_checked(length).ok_or_else(short)?;
            rest = behind;
            Ok::<_, PyErr>(taken)
        };
        let name_length = take(1)?[0];
        let name = str::from_utf8(take(name_length.into())?).map_err(|_| short())?;
        if !is_number_type(name) {
            return Err(damaged("the type of its array is none of numbers"));
        }
        let is_fortran = take(1)?[0] != 0;
        let dimensions = take(1)?[0];
        let mut shape = Vec::with_capacity(dimensions.into());
        for _ in 0..dimensions {
            shape.push(u64::from_le_bytes(take(8)?.try_into().map_err(|_| short())?));
        }
        let [range] = &self.buffers[..] else { return Err(short()) };
        let (shape, buffer) = (PyTuple::new(py, shape)?, self.buffer(py, range)?);
        // numpy checks that the buffer has so many elements.
        if !is_fortran {
            return ARRAY.get(py)?.call1((shape, name, buffer));
        }
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "order"), intern!(py, "F"))?;
        ARRAY.get(py)?.call((shape, name, buffer), Some(&keywords))
    }

    fn unpickle(self, py: Python<'_>, references: Vec<Handle>) -> PyResult<Bound<'_, PyAny>> {
        let keywords = PyDict::new(py);
        if !self.buffers.is_empty() {
            let buffers = self.buffers.iter().map(|range| self.buffer(py, range));
            let buffers = buffers.collect::<PyResult<Vec<_>>>()?;
            keywords.set_item(intern!(py, "buffers"), PyList::new(py, buffers)?)?;
        }
        let pickled = PyBytes::new(py, &self.stream);
        context::reading(references, || LOADS.get(py)?.call((pickled,), Some(&keywords)))
    }
}
