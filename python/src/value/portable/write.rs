//! Writing values.

use mobula_client::Handle;
use mobula_runtime::{Encoded, format};
use pyo3::exceptions::{PyRecursionError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple,
};

use super::{DEPTH_MAX, ELEMENTS, HEADER_BYTES, MAGIC, RECORD_BYTES, extension, marker};
use crate::interpreter::Attribute;
use crate::value::encode::{Buffer, is_array};
use crate::value::{ALIGNMENT, kind, numbers};

/// Longer bytes go beside the stream.
const BESIDE_BYTES_MIN: usize = 4096;
/// An extension's marker, length and type.
const EXT_HEAD_BYTES: usize = 6;

static TO_PARTS: Attribute = Attribute::new("mobula._arrow", "to_parts");

/// A value that is ready to be written.
#[derive(Debug)]
pub(crate) struct Portable {
    stream: Vec<u8>,
    buffers: Vec<Buffer>,
    /// Where each buffer starts.
    starts: Vec<usize>,
    length: usize,
}

/// Encodes a value. Its large memory is copied later, when the value is written.
///
/// # Errors
/// A part of it has no form that other languages read.
pub(crate) fn encode(value: &Bound<'_, PyAny>) -> PyResult<Portable> {
    let mut writer = Writer { stream: Vec::new(), buffers: Vec::new() };
    writer.write(value, DEPTH_MAX)?;
    let Writer { stream, buffers } = writer;
    let mut length = HEADER_BYTES + buffers.len() * RECORD_BYTES + stream.len();
    let mut starts = Vec::with_capacity(buffers.len());
    for buffer in &buffers {
        let start = if buffer.len() == 0 { 0 } else { length.next_multiple_of(ALIGNMENT) };
        starts.push(start);
        length = length.max(start + buffer.len());
    }
    Ok(Portable { stream, buffers, starts, length })
}

impl Encoded for Portable {
    fn payload_bytes(&self) -> usize {
        self.length
    }

    fn format(&self) -> u32 {
        match *self.stream {
            [marker::EXT_32, _, _, _, _, extension::TENSOR, ..] => format::TENSOR,
            [marker::EXT_32, _, _, _, _, extension::ARROW, ..] => format::ARROW,
            _ => format::PLAIN,
        }
    }

    fn references(&self) -> &[Handle] {
        &[]
    }

    fn write_into(&self, out: &mut [u8]) {
        let mut head =
            Vec::with_capacity(HEADER_BYTES + self.buffers.len() * RECORD_BYTES + self.stream.len());
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&(self.buffers.len() as u32).to_le_bytes());
        head.extend_from_slice(&(self.stream.len() as u64).to_le_bytes());
        // No references, and a type without a name.
        head.extend_from_slice(&[0; 8]);
        for (buffer, start) in self.buffers.iter().zip(&self.starts) {
            head.extend_from_slice(&(*start as u64).to_le_bytes());
            head.extend_from_slice(&(buffer.len() as u64).to_le_bytes());
            // In the payload itself.
            head.extend_from_slice(&[0; 8]);
        }
        head.extend_from_slice(&self.stream);
        out[..head.len()].copy_from_slice(&head);
        let mut end = head.len();
        for (buffer, &start) in self.buffers.iter().zip(&self.starts).filter(|(buffer, _)| buffer.len() > 0) {
            out[end..start].fill(0);
            end = start + buffer.len();
            buffer.copy_to(&mut out[start..end]);
        }
    }
}

struct Writer {
    stream: Vec<u8>,
    buffers: Vec<Buffer>,
}

impl Writer {
    fn write(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
        let deeper = || {
            let text = "the value nests too deep for another language";
            depth.checked_sub(1).ok_or_else(|| PyRecursionError::new_err(text))
        };
        if value.is_none() {
            self.stream.push(marker::NIL);
        } else if let Ok(boolean) = value.cast_exact::<PyBool>() {
            self.stream.push(if boolean.is_true() { marker::TRUE } else { marker::FALSE });
        } else if let Ok(number) = value.cast_exact::<PyInt>() {
            self.write_int(number)?;
        } else if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.put(marker::F64, &number.value().to_be_bytes());
        } else if let Ok(text) = value.cast_exact::<PyString>() {
            self.write_text(text.to_str()?)?;
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            self.write_bytes(bytes)?;
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            match numbers::pack(list) {
                Some((kind, numbers)) => self.write_numbers(kind, &numbers)?,
                None => self.write_items(list.len(), list.iter(), deeper()?)?,
            }
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.write_items(tuple.len(), tuple.iter(), deeper()?)?;
        } else if let Ok(map) = value.cast_exact::<PyDict>() {
            let deeper = deeper()?;
            self.put_length(map.len(), 0x80, [marker::MAP_16, marker::MAP_32])?;
            for (key, item) in map {
                self.write(&key, deeper)?;
                self.write(&item, deeper)?;
            }
        } else if is_array(value) {
            self.write_array(value)?;
        } else {
            self.write_other(value, deeper()?)?;
        }
        Ok(())
    }

    /// Writes a value of a class that other packages have.
    fn write_other(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
        let py = value.py();
        let class = value.get_type();
        let module = class.module().map(|module| module.to_string()).unwrap_or_default();
        let is_buffer = value.is_instance_of::<PyMemoryView>()
            || value.is_exact_instance_of::<PyByteArray>()
            || (module == "pyarrow.lib" && class.name()? == "Buffer");
        if is_buffer {
            return self.write_buffer(value);
        }
        if module == "numpy" && value.hasattr(intern!(py, "item"))? {
            // A number of numpy's.
            return self.write(&value.call_method0(intern!(py, "item"))?, depth);
        }
        if value.hasattr(intern!(py, "__arrow_c_stream__"))?
            || value.hasattr(intern!(py, "__arrow_c_array__"))?
        {
            let parts = TO_PARTS.get(py)?.call1((value,))?;
            return self.write_extension(extension::ARROW, |writer| writer.write(&parts, depth));
        }
        Err(PyTypeError::new_err(format!(
            "a value of class {} cannot go to another language: None, bool, int, float, str, bytes, list, tuple, dict, \
             arrays of numpy and Arrow data can",
            class.fully_qualified_name()?
        )))
    }

    fn write_int(&mut self, number: &Bound<'_, PyInt>) -> PyResult<()> {
        if let Ok(number) = number.extract::<i64>() {
            match number {
                0.. => self.write_unsigned(number as u64),
                -32.. => self.stream.push(number as u8),
                -0x80.. => self.put(marker::I8, &(number as i8).to_be_bytes()),
                -0x8000.. => self.put(marker::I16, &(number as i16).to_be_bytes()),
                -0x8000_0000.. => self.put(marker::I32, &(number as i32).to_be_bytes()),
                _ => self.put(marker::I64, &number.to_be_bytes()),
            }
        } else if let Ok(number) = number.extract::<u64>() {
            self.write_unsigned(number);
        } else if let Ok(number) = number.extract::<i128>() {
            self.put_extension(extension::SIGNED, &number.to_le_bytes())?;
        } else if let Ok(number) = number.extract::<u128>() {
            self.put_extension(extension::UNSIGNED, &number.to_le_bytes())?;
        } else {
            let text = "an int of more than 128 bits cannot go to another language";
            return Err(PyValueError::new_err(text));
        }
        Ok(())
    }

    fn write_unsigned(&mut self, number: u64) {
        match number {
            0..=0x7f => self.stream.push(number as u8),
            0x80..=0xff => self.put(marker::U8, &[number as u8]),
            0x100..=0xffff => self.put(marker::U16, &(number as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.put(marker::U32, &(number as u32).to_be_bytes()),
            _ => self.put(marker::U64, &number.to_be_bytes()),
        }
    }

    fn write_text(&mut self, text: &str) -> PyResult<()> {
        match text.len() {
            length @ 0..=31 => self.stream.push(0xa0 | length as u8),
            length @ 32..=0xff => self.put(marker::STR_8, &[length as u8]),
            length => self.put_long(length, [marker::STR_16, marker::STR_32])?,
        }
        self.stream.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn write_bytes(&mut self, bytes: &Bound<'_, PyBytes>) -> PyResult<()> {
        let data = bytes.as_bytes();
        if data.len() >= BESIDE_BYTES_MIN {
            let index = self.add_buffer(Buffer::new(bytes.as_any())?);
            return self.put_extension(extension::BYTES_BESIDE, &index.to_le_bytes());
        }
        match data.len() {
            length @ 0..=0xff => self.put(marker::BIN_8, &[length as u8]),
            length => self.put_long(length, [marker::BIN_16, marker::BIN_32])?,
        }
        self.stream.extend_from_slice(data);
        Ok(())
    }

    fn write_numbers(&mut self, kind: u8, numbers: &[u8]) -> PyResult<()> {
        let letter = match kind {
            kind::NARROW_INTS => b'i',
            kind::INTS => b'q',
            _ => b'd',
        };
        self.put_extension(extension::NUMBERS, &[&[letter], numbers].concat())
    }

    fn write_items<'py>(
        &mut self,
        length: usize,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
        depth: usize,
    ) -> PyResult<()> {
        self.put_length(length, 0x90, [marker::ARRAY_16, marker::ARRAY_32])?;
        for item in items {
            self.write(&item, depth)?;
        }
        Ok(())
    }

    fn write_buffer(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let index = self.add_buffer(Buffer::new(value)?);
        self.write_extension(extension::BUFFER, |writer| {
            writer.write_unsigned(index.into());
            Ok(())
        })
    }

    /// Writes an array of numpy, in row-major order.
    fn write_array(&mut self, array: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = array.py();
        let name = array.getattr(intern!(py, "dtype"))?.getattr(intern!(py, "str"))?.extract::<String>()?;
        let element = ELEMENTS.iter().find(|(_, dtype)| *dtype == name).map(|(element, _)| *element);
        let element = element.ok_or_else(|| {
            let text =
                format!("an array of dtype {name} cannot go to another language: one of numbers or bool can");
            PyTypeError::new_err(text)
        })?;
        let is_row_major =
            array.getattr(intern!(py, "flags"))?.getattr(intern!(py, "c_contiguous"))?.is_truthy()?;
        let array =
            if is_row_major { array.clone() } else { array.call_method1(intern!(py, "copy"), ("C",))? };
        let shape = array.getattr(intern!(py, "shape"))?.extract::<Vec<u64>>()?;
        // A single number has no buffer.
        let array = if shape.is_empty() { array.call_method1(intern!(py, "reshape"), (1,))? } else { array };
        let buffer = Buffer::new(&array)?;
        let index = self.add_buffer(buffer);
        self.write_extension(extension::TENSOR, |writer| {
            writer.put_length(3, 0x80, [marker::MAP_16, marker::MAP_32])?;
            writer.write_text("element")?;
            writer.write_text(element)?;
            writer.write_text("shape")?;
            writer.put_length(shape.len(), 0x90, [marker::ARRAY_16, marker::ARRAY_32])?;
            shape.iter().for_each(|length| writer.write_unsigned(*length));
            writer.write_text("buffer")?;
            writer.write_extension(extension::BUFFER, |writer| {
                writer.write_unsigned(index.into());
                Ok(())
            })
        })
    }

    fn add_buffer(&mut self, buffer: Buffer) -> u32 {
        self.buffers.push(buffer);
        self.buffers.len() as u32 - 1
    }

    /// Writes an extension whose data is a value. Readers tell tensors and Arrow data by a head of this form.
    fn write_extension(&mut self, code: u8, content: impl FnOnce(&mut Self) -> PyResult<()>) -> PyResult<()> {
        let start = self.stream.len();
        self.put(marker::EXT_32, &[0, 0, 0, 0, code]);
        content(self)?;
        let length = wide(self.stream.len() - start - EXT_HEAD_BYTES)?;
        self.stream[start + 1..start + 5].copy_from_slice(&length);
        Ok(())
    }

    fn put_extension(&mut self, code: u8, data: &[u8]) -> PyResult<()> {
        match data.len() {
            length @ 0..=0xff => self.put(marker::EXT_8, &[length as u8]),
            length => self.put_long(length, [marker::EXT_16, marker::EXT_32])?,
        }
        self.stream.push(code);
        self.stream.extend_from_slice(data);
        Ok(())
    }

    fn put_length(&mut self, length: usize, short: u8, long: [u8; 2]) -> PyResult<()> {
        match length {
            0..=15 => self.stream.push(short | length as u8),
            _ => self.put_long(length, long)?,
        }
        Ok(())
    }

    fn put_long(&mut self, length: usize, [medium, long]: [u8; 2]) -> PyResult<()> {
        match u16::try_from(length) {
            Ok(length) => self.put(medium, &length.to_be_bytes()),
            Err(_) => self.put(long, &wide(length)?),
        }
        Ok(())
    }

    fn put(&mut self, marker: u8, bytes: &[u8]) {
        self.stream.push(marker);
        self.stream.extend_from_slice(bytes);
    }
}

fn wide(length: usize) -> PyResult<[u8; 4]> {
    let text = "a part of the value is longer than 4 GiB, and no array: other languages cannot read it";
    u32::try_from(length).map(u32::to_be_bytes).map_err(|_| PyValueError::new_err(text))
}
