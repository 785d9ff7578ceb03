//! Arrow data taken apart: a schema, and for each array, children after their parents, its length and its buffers.
//!
//! `visible` takes arrays apart. Putting them together is here: it follows the schema and goes through Arrow's own
//! validation; before that, it refuses the types and lengths that Arrow would panic on, or reserve memory for.
//!
//! The buffers come from memory that a faulty owner can still write, and Arrow relies on data that it has validated: it
//! hands text out as `&str`, and follows offsets without checking them again. So validated data lies in a copy that no
//! other process can write: offsets, sizes, views, type ids, run ends, the keys of dictionaries, and text. Bits are
//! copied too: Arrow counts them, and reserves memory by that count before it reads them once more. Numbers and bytes
//! stay where they lie, because every value of them is valid. The bytes behind views are copied, because the views
//! repeat the first of these bytes.

use std::fmt;
use std::sync::Arc;

use crate::arrow::array::{ArrayData, ArrayRef, BufferSpec, layout, make_array};
use crate::arrow::buffer::{BooleanBuffer, Buffer as ArrowBuffer, NullBuffer};
use crate::arrow::datatypes::{DataType, Schema, TimeUnit};
use crate::arrow::error::ArrowError;
use bytemuck::Pod;
use serde::{Deserialize, Serialize};

use super::visible::push_array;
use crate::value::ValueError;
use crate::value::buffer::Buffer;
use crate::value::copied::Form;

/// A table taken apart.
#[derive(Serialize, Deserialize)]
pub struct Parts {
    schema: Arc<Schema>,
    rows: u64,
    /// In depth-first order.
    nodes: Vec<Node>,
}

impl fmt::Debug for Parts {
    /// Shows the type and the numbers. The buffers are left out, because they may be gigabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("schema", &self.schema)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// An array without its type and its children.
#[derive(Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) length: u64,
    /// Bits of booleans, or elements of runs, at the start that do not belong to the array.
    pub(super) offset: u64,
    pub(super) nulls: Option<Validity>,
    /// If the first buffer has the offsets of text or lists, the data that they point into begins at the first offset,
    /// which need not be zero. So offsets from the middle of an array need not be rewritten.
    pub(super) buffers: Vec<Buffer>,
}

/// One bit for each element: set when it is there.
#[derive(Serialize, Deserialize)]
pub(super) struct Validity {
    pub(super) bits: Buffer,
    /// Bits at the start that do not belong to the array.
    pub(super) offset: u64,
}

impl Parts {
    /// Takes a table apart.
    pub(super) fn of_columns(
        schema: Arc<Schema>,
        rows: usize,
        columns: impl IntoIterator<Item = ArrayData>,
    ) -> Self {
        let mut nodes = Vec::new();
        for column in columns {
            push_array(&column, &mut nodes);
        }
        Self { schema, rows: rows as u64, nodes }
    }

    /// Puts a table together.
    pub(super) fn into_columns(self) -> Result<(Arc<Schema>, usize, Vec<ArrayRef>), ValueError> {
        let mut nodes = self.nodes.into_iter();
        let mut columns = Vec::new();
        for field in self.schema.fields() {
            let array = next_array(&mut nodes, field.data_type(), Role::Values, DEPTH_MAX)?;
            columns.push(make_array(array));
        }
        match nodes.len() {
            0 => Ok((self.schema, self.rows as usize, columns)),
            extra => Err(invalid(format!("{extra} arrays more than the schema has"))),
        }
    }
}

/// Types nest no deeper than this, so that a forged schema cannot exhaust the stack.
const DEPTH_MAX: usize = 64;

/// The role of an array in its parent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Values,
    /// Numbers by which the elements of other arrays are found.
    RunEnds,
}

/// Puts the next array and its children together, as `data_type` says.
fn next_array(
    nodes: &mut std::vec::IntoIter<Node>,
    data_type: &DataType,
    role: Role,
    depth: usize,
) -> Result<ArrayData, ValueError> {
    let Some(deeper) = depth.checked_sub(1) else {
        return Err(invalid(format!("the type nests deeper than {DEPTH_MAX}")));
    };
    let Some(node) = nodes.next() else {
        return Err(invalid(format!("there is no array for a column of {data_type}")));
    };
    let (length, offset) = (node.length as usize, node.offset as usize);
    check_type(data_type, length, offset, node.nulls.is_some())?;
    let mut children = Vec::new();
    for (index, child) in child_types(data_type).into_iter().enumerate() {
        let run_ends = matches!(data_type, DataType::RunEndEncoded(_, _)) && index == 0;
        let role = if run_ends { Role::RunEnds } else { Role::Values };
        children.push(next_array(nodes, child, role, deeper)?);
    }
    let buffers = settled(node.buffers, data_type, role);
    let valid = offset == 0 && is_valid_text(data_type, length, &buffers);
    let builder = ArrayData::builder(data_type.clone())
        .len(length)
        .offset(offset)
        .nulls(node.nulls.map(|validity| validity.into_nulls(length)).transpose()?)
        .buffers(buffers)
        .child_data(children)
        .align_buffers(true);
    // SAFETY: validation is left out only for text or bytes that `is_valid_text` has found valid, in buffers that no
    // other process can write: `settled` has copied the offsets and the text. These types have two buffers and no
    // children, and `into_nulls` has made as many bits as there are elements.
    Ok(unsafe { builder.skip_validation(valid) }.build()?)
}

/// Whether these are valid buffers of `length` byte strings, or texts of ASCII alone, from the first offset on. ASCII
/// text can begin and end at any byte, so one check of all offsets and one of all bytes are enough. Arrow's own
/// validation checks one text after the other, which takes several times as long; it decides about all other arrays.
fn is_valid_text(data_type: &DataType, length: usize, buffers: &[ArrowBuffer]) -> bool {
    let [offsets, bytes] = buffers else { return false };
    match data_type {
        DataType::Utf8 => shown::<i32>(offsets, length, bytes).is_some_and(<[u8]>::is_ascii),
        DataType::LargeUtf8 => shown::<i64>(offsets, length, bytes).is_some_and(<[u8]>::is_ascii),
        DataType::Binary => shown::<i32>(offsets, length, bytes).is_some(),
        DataType::LargeBinary => shown::<i64>(offsets, length, bytes).is_some(),
        _ => false,
    }
}

/// The bytes of `length` elements, if the offsets are in order and within the bytes.
fn shown<'a, O>(offsets: &[u8], length: usize, bytes: &'a [u8]) -> Option<&'a [u8]>
where
    O: Pod + PartialOrd + TryInto<usize>,
{
    let offsets = bytemuck::try_cast_slice::<u8, O>(offsets).ok()?.get(..length.checked_add(1)?)?;
    // Without an early end, so that several are compared at once.
    let in_order = offsets.windows(2).fold(true, |in_order, pair| in_order & (pair[0] <= pair[1]));
    let [first, end] = [offsets[0], offsets[length]].map(|offset| offset.try_into().ok());
    bytes.get(first?..end?).filter(|_| in_order)
}

/// The buffers in a form that Arrow may rely on: validated buffers are copies, and no buffer ends with a part of an
/// element, on which Arrow panics.
fn settled(buffers: Vec<Buffer>, data_type: &DataType, role: Role) -> Vec<ArrowBuffer> {
    let mut specs = layout(data_type).buffers.into_iter();
    let settle = |(index, buffer): (usize, Buffer)| {
        let whole = match specs.next() {
            Some(BufferSpec::FixedWidth { byte_width, .. }) if byte_width > 0 => {
                buffer.slice(..buffer.len() - buffer.len() % byte_width)
            }
            _ => buffer,
        };
        let settled = match copied_form(data_type, role, index) {
            Some(form) => whole.copied_out(form),
            None => whole,
        };
        settled.into_bytes().into()
    };
    buffers.into_iter().enumerate().map(settle).collect()
}

/// The form in which a buffer is copied; `None` for plain data, which stays where it lies.
fn copied_form(data_type: &DataType, role: Role, index: usize) -> Option<Form> {
    match data_type {
        DataType::Binary | DataType::LargeBinary if index == 1 => None,
        DataType::FixedSizeBinary(_) => None,
        DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(_, _) if index == 0 => {
            Some(Form::Offsets32)
        }
        DataType::LargeUtf8 | DataType::LargeBinary | DataType::LargeList(_) if index == 0 => {
            Some(Form::Offsets64)
        }
        other if other.primitive_width().is_some() && role == Role::Values => None,
        _ => Some(Form::Unchanged),
    }
}

impl Validity {
    fn into_nulls(self, length: usize) -> Result<NullBuffer, ValueError> {
        let (offset, bits) = (self.offset as usize, self.bits.len() as u128 * 8);
        if offset as u128 + length as u128 > bits {
            return Err(invalid(format!("{length} validity bits from bit {offset}, but there are {bits}")));
        }
        let bits = self.bits.copied_out(Form::Unchanged).into_bytes();
        Ok(NullBuffer::new(BooleanBuffer::new(bits.into(), offset, length)))
    }
}

/// The types of an array's children.
fn child_types(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => vec![field.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::Dictionary(_, values) => vec![values],
        DataType::RunEndEncoded(run_ends, values) => vec![run_ends.data_type(), values.data_type()],
        _ => Vec::new(),
    }
}

/// Checks the conditions that Arrow's validation takes for granted.
fn check_type(data_type: &DataType, length: usize, offset: usize, nulls: bool) -> Result<(), ValueError> {
    let refused = |why: &str| Err(invalid(format!("{data_type} of length {length} from {offset}: {why}")));
    match data_type {
        DataType::FixedSizeBinary(size) | DataType::FixedSizeList(_, size) => {
            let elements = length.checked_add(offset).zip(usize::try_from(*size).ok());
            if elements.is_none_or(|(count, size)| count.checked_mul(size).is_none()) {
                return refused("no such size");
            }
        }
        DataType::Dictionary(keys, _) if !keys.is_dictionary_key_type() => return refused("no such keys"),
        DataType::RunEndEncoded(ends, _) if !ends.data_type().is_run_ends_type() => {
            return refused("no such run ends");
        }
        DataType::Time32(TimeUnit::Microsecond | TimeUnit::Nanosecond)
        | DataType::Time64(TimeUnit::Second | TimeUnit::Millisecond) => return refused("no such unit"),
        _ => {}
    }
    // Arrow checks such children against a mask that it first expands to one bit for each of them.
    if let DataType::FixedSizeList(field, _) = data_type
        && nulls
        && !field.is_nullable()
        && takes_no_memory(field.data_type())
    {
        return refused("elements that take no memory cannot be counted");
    }
    Ok(())
}

/// Whether an array can be longer than the bits it takes.
fn takes_no_memory(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null | DataType::FixedSizeBinary(0) | DataType::RunEndEncoded(_, _) => true,
        DataType::FixedSizeList(field, size) => *size == 0 || takes_no_memory(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| takes_no_memory(field.data_type())),
        _ => false,
    }
}

pub(super) fn invalid(reason: String) -> ValueError {
    ValueError::Arrow(ArrowError::InvalidArgumentError(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_valid(data_type: &DataType, offsets: &[i32], length: usize, bytes: &[u8]) -> bool {
        let offsets = ArrowBuffer::from_slice_ref(offsets);
        is_valid_text(data_type, length, &[offsets, ArrowBuffer::from_slice_ref(bytes)])
    }

    /// Arrow does not check accepted data again, so a mistake here would be undefined behaviour.
    #[test]
    fn only_ascii_text_with_offsets_in_order_and_within_it_is_not_validated_by_arrow() {
        let check = |offsets: &[i32], length, bytes: &[u8], text, binary| {
            let found = [DataType::Utf8, DataType::Binary].map(|of| is_valid(&of, offsets, length, bytes));
            assert_eq!(found, [text, binary], "{offsets:?} {length} {bytes:?}");
        };
        check(&[0, 2, 2, 5], 3, b"abcde", true, true);
        check(&[0, 2, 2, 5], 2, b"abcde", true, true);
        check(&[1, 2, 4], 2, b"abcde", true, true);
        check(&[0], 0, b"", true, true);
        // Bytes that are not shown are no text.
        check(&[1, 2], 1, b"\xc3a\xa4", true, true);
        check(&[0, 2], 1, b"\xc3\xa4", false, true);
        check(&[0, 1, 2], 2, b"\xc3\xa4", false, true);
        // Too few offsets, offsets beyond the bytes, below zero, and out of order, also where the last is right again.
        check(&[0, 2], 2, b"abcde", false, false);
        check(&[], 0, b"abcde", false, false);
        check(&[0, 6], 1, b"abcde", false, false);
        check(&[0, 9, 5], 2, b"abcde", false, false);
        check(&[-1, 5], 1, b"abcde", false, false);
        check(&[0, -1, 5], 2, b"abcde", false, false);
        check(&[3, 2], 1, b"abcde", false, false);
        check(&[0, 2], usize::MAX, b"abcde", false, false);
        let of_64_bits = ArrowBuffer::from_slice_ref([0_i64, 1 << 32]);
        assert!(!is_valid_text(
            &DataType::LargeUtf8,
            1,
            &[of_64_bits, ArrowBuffer::from_slice_ref(b"abcde")]
        ));
        assert!(!is_valid_text(&DataType::Int64, 1, &[ArrowBuffer::from_slice_ref([1_i64])]));
    }
}
