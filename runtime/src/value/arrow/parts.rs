//! Arrow data taken apart: a schema, and for each array, children after their parents, its length and its buffers.
//!
//! Taking apart cuts each buffer down to what the array shows of it, where that costs no copy of the data. Putting
//! together follows the schema and goes through Arrow's own validation; before that, it refuses the types and lengths
//! that Arrow would panic on, or reserve memory for.

use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, BufferSpec, layout, make_array};
use arrow::buffer::{BooleanBuffer, Buffer as ArrowBuffer, NullBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Schema, TimeUnit};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use crate::value::ValueError;
use crate::value::buffer::Buffer;

/// A table taken apart.
#[derive(Serialize, Deserialize)]
pub struct Parts {
    schema: Arc<Schema>,
    rows: u64,
    /// In depth-first order.
    nodes: Vec<Node>,
}

/// An array without its type and its children.
#[derive(Serialize, Deserialize)]
struct Node {
    length: u64,
    /// Elements (bits, of booleans) at the start of the buffers and the children that do not belong to the array.
    offset: u64,
    nulls: Option<Validity>,
    buffers: Vec<Buffer>,
}

/// One bit for each element: set when it is there.
#[derive(Serialize, Deserialize)]
struct Validity {
    bits: Buffer,
    /// Bits at the start that do not belong to the array.
    offset: u64,
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
            columns.push(make_array(next_array(&mut nodes, field.data_type(), DEPTH_MAX)?));
        }
        match nodes.len() {
            0 => Ok((self.schema, self.rows as usize, columns)),
            extra => Err(invalid(format!("{extra} arrays more than the schema has"))),
        }
    }
}

/// Types nest no deeper than this, so that a forged schema cannot exhaust the stack.
const DEPTH_MAX: usize = 64;

fn push_array(array: &ArrayData, nodes: &mut Vec<Node>) {
    let (offset, length) = (array.offset(), array.len());
    let elements_of = |buffer: &ArrowBuffer, width: usize| lend(cut(buffer, offset * width, length * width));
    let mut node = Node {
        length: length as u64,
        offset: 0,
        nulls: array.nulls().map(|nulls| {
            let (bits, offset) = cut_bits(nulls.inner().inner(), nulls.offset(), length);
            Validity { bits, offset }
        }),
        buffers: Vec::new(),
    };
    match array.data_type() {
        DataType::Boolean => {
            let (bits, bit_offset) = cut_bits(&array.buffers()[0], offset, length);
            node.buffers.push(bits);
            node.offset = bit_offset;
            nodes.push(node);
        }
        DataType::Utf8 | DataType::Binary => push_text::<i32>(array, node, nodes),
        DataType::LargeUtf8 | DataType::LargeBinary => push_text::<i64>(array, node, nodes),
        DataType::List(_) | DataType::Map(_, _) => push_list::<i32>(array, node, nodes),
        DataType::LargeList(_) => push_list::<i64>(array, node, nodes),
        DataType::Struct(_) => {
            nodes.push(node);
            push_children(array, nodes, |child| child.slice(offset, length));
        }
        DataType::FixedSizeList(_, size) => {
            let size = *size as usize;
            nodes.push(node);
            push_children(array, nodes, |child| child.slice(offset * size, length * size));
        }
        DataType::Dictionary(keys, _) => {
            let width = keys.primitive_width().expect("keys are integers");
            node.buffers.push(elements_of(&array.buffers()[0], width));
            nodes.push(node);
            push_children(array, nodes, ArrayData::clone);
        }
        DataType::FixedSizeBinary(width) => {
            node.buffers.push(elements_of(&array.buffers()[0], *width as usize));
            nodes.push(node);
        }
        other => {
            if let Some(width) = other.primitive_width() {
                node.buffers.push(elements_of(&array.buffers()[0], width));
            } else {
                node.buffers.extend(array.buffers().iter().cloned().map(lend));
                node.offset = offset as u64;
            }
            nodes.push(node);
            push_children(array, nodes, ArrayData::clone);
        }
    }
}

fn push_children(array: &ArrayData, nodes: &mut Vec<Node>, visible: impl Fn(&ArrayData) -> ArrayData) {
    for child in array.child_data() {
        push_array(&visible(child), nodes);
    }
}

/// Strings or byte strings: offsets, and the bytes between the first and the last.
fn push_text<O: ArrowNativeType>(array: &ArrayData, mut node: Node, nodes: &mut Vec<Node>) {
    let (offsets, start, end) = cut_offsets::<O>(array);
    node.buffers = vec![offsets, lend(cut(&array.buffers()[1], start, end - start))];
    nodes.push(node);
}

/// Lists: offsets, and the elements between the first and the last.
fn push_list<O: ArrowNativeType>(array: &ArrayData, mut node: Node, nodes: &mut Vec<Node>) {
    let (offsets, start, end) = cut_offsets::<O>(array);
    node.buffers = vec![offsets];
    nodes.push(node);
    push_children(array, nodes, |child| child.slice(start, end - start));
}

/// The visible offsets, and the range that they need of what they point into.
///
/// Of a slice from the middle, offsets that have to be copied in any case are made to start at zero, so that what lies
/// before stays behind. Offsets in the store are passed on as they are: then what lies before goes with them.
fn cut_offsets<O: ArrowNativeType>(array: &ArrayData) -> (Buffer, usize, usize) {
    if array.is_empty() {
        return (Buffer::default(), 0, 0);
    }
    let width = size_of::<O>();
    let visible = cut(&array.buffers()[0], array.offset() * width, (array.len() + 1) * width);
    let offsets = visible.typed_data::<O>();
    let (start, end) = (offsets[0].as_usize(), offsets[array.len()].as_usize());
    let lent = lend(visible.clone());
    if start == 0 || lent.object_id().is_some() {
        return (lent, 0, end);
    }
    let shifted: Vec<O> = offsets.iter().map(|offset| O::usize_as(offset.as_usize() - start)).collect();
    (lend(ArrowBuffer::from_vec(shifted)), start, end)
}

fn cut(buffer: &ArrowBuffer, start: usize, length: usize) -> ArrowBuffer {
    // An empty array's buffer may be shorter than its offset.
    if length == 0 { ArrowBuffer::default() } else { buffer.slice_with_length(start, length) }
}

/// The bytes that hold the bits, and the bits at their start that do not count.
fn cut_bits(buffer: &ArrowBuffer, offset: usize, length: usize) -> (Buffer, u64) {
    let skipped = offset % 8;
    (lend(cut(buffer, offset / 8, (skipped + length).div_ceil(8))), skipped as u64)
}

fn lend(buffer: ArrowBuffer) -> Buffer {
    if buffer.is_empty() { Buffer::default() } else { Buffer::found(bytes::Bytes::from_owner(buffer)) }
}

/// Puts the next array and its children together, as `data_type` says.
fn next_array(
    nodes: &mut std::vec::IntoIter<Node>,
    data_type: &DataType,
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
    for child in child_types(data_type) {
        children.push(next_array(nodes, child, deeper)?);
    }
    Ok(ArrayData::builder(data_type.clone())
        .len(length)
        .offset(offset)
        .nulls(node.nulls.map(|validity| validity.into_nulls(length)).transpose()?)
        .buffers(whole_elements(node.buffers, data_type))
        .child_data(children)
        .align_buffers(true)
        .build()?)
}

/// The buffers, without the part of an element that one may end with: Arrow panics on it.
fn whole_elements(buffers: Vec<Buffer>, data_type: &DataType) -> Vec<ArrowBuffer> {
    let mut specs = layout(data_type).buffers.into_iter();
    let whole = |buffer: Buffer| match specs.next() {
        Some(BufferSpec::FixedWidth { byte_width, .. }) if byte_width > 0 => {
            let length = buffer.len() - buffer.len() % byte_width;
            buffer.slice(..length).into_bytes().into()
        }
        _ => buffer.into_bytes().into(),
    };
    buffers.into_iter().map(whole).collect()
}

impl Validity {
    fn into_nulls(self, length: usize) -> Result<NullBuffer, ValueError> {
        let (offset, bits) = (self.offset as usize, self.bits.len() as u128 * 8);
        if offset as u128 + length as u128 > bits {
            return Err(invalid(format!("{length} validity bits from bit {offset}, but there are {bits}")));
        }
        Ok(NullBuffer::new(BooleanBuffer::new(self.bits.into_bytes().into(), offset, length)))
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

/// Refuses what Arrow's validation takes for granted.
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
