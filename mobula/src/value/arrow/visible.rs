//! The visible parts of an array's buffers and children: only these travel.
//!
//! An array may be a slice, or refer to its elements in any order, so it may show only a small part of its memory.
//! Buffers are cut to the visible range, which copies nothing. Views, list views and dense unions may use few elements
//! of a wide range, for example after a filter. Then their visible parts are copied together first. A range that lies
//! in the store is not copied: it is passed on by reference.
//!
//! All values of a dictionary travel. The numbering of the values, and values that no key uses, are the user's data,
//! like the categories of a column.

use std::ops::Range;

use crate::arrow::array::ArrayData;
use crate::arrow::buffer::Buffer as ArrowBuffer;
use crate::arrow::datatypes::{ArrowNativeType, DataType, UnionFields, UnionMode};
use arrow_data::transform::MutableArrayData;

use super::parts::{Node, Validity};
use super::views::visible_views;
use crate::value::buffer::Buffer;
use crate::value::copied::Form;
use crate::value::region::Region;

/// Appends an array and its children.
pub(super) fn push_array(array: &ArrayData, nodes: &mut Vec<Node>) {
    let nulls = array.nulls().map(|nulls| {
        let (bits, offset) = cut_bits(nulls.inner().inner(), nulls.offset(), array.len());
        Validity { bits, offset }
    });
    let Visible { offset, buffers, children } = visible(array);
    nodes.push(Node { length: array.len() as u64, offset, nulls, buffers });
    children.iter().for_each(|child| push_array(child, nodes));
}

struct Visible {
    /// The number of elements at the start that are not visible.
    offset: u64,
    buffers: Vec<Buffer>,
    children: Vec<ArrayData>,
}

fn visible(array: &ArrayData) -> Visible {
    let (offset, length) = (array.offset(), array.len());
    let all = |buffers, children| Visible { offset: 0, buffers, children };
    let children =
        |visible: &dyn Fn(&ArrayData) -> ArrayData| array.child_data().iter().map(visible).collect();
    match array.data_type() {
        DataType::Boolean => {
            let (bits, offset) = cut_bits(&array.buffers()[0], offset, length);
            Visible { offset, buffers: vec![bits], children: vec![] }
        }
        DataType::Utf8 | DataType::Binary => all(visible_text::<i32>(array), vec![]),
        DataType::LargeUtf8 | DataType::LargeBinary => all(visible_text::<i64>(array), vec![]),
        DataType::Utf8View | DataType::BinaryView => all(visible_views(array), vec![]),
        DataType::List(_) | DataType::Map(_, _) => visible_list::<i32>(array),
        DataType::LargeList(_) => visible_list::<i64>(array),
        DataType::ListView(_) => visible_list_view::<i32>(array),
        DataType::LargeListView(_) => visible_list_view::<i64>(array),
        DataType::Struct(_) => all(vec![], children(&|child| child.slice(offset, length))),
        DataType::FixedSizeList(_, size) => {
            let size = *size as usize;
            all(vec![], children(&|child| child.slice(offset * size, length * size)))
        }
        DataType::Union(_, UnionMode::Sparse) => {
            all(vec![cut_elements(array, 0, size_of::<i8>())], children(&|child| child.slice(offset, length)))
        }
        DataType::Union(fields, UnionMode::Dense) => visible_union(array, fields),
        DataType::RunEndEncoded(run_ends, _) => match run_ends.data_type() {
            DataType::Int16 => visible_runs::<i16>(array),
            DataType::Int32 => visible_runs::<i32>(array),
            _ => visible_runs::<i64>(array),
        },
        DataType::Dictionary(keys, _) => {
            let width = keys.primitive_width().expect("keys are integers");
            all(vec![cut_elements(array, 0, width)], children(&ArrayData::clone))
        }
        DataType::FixedSizeBinary(width) => all(vec![cut_elements(array, 0, *width as usize)], vec![]),
        other => {
            let width = other.primitive_width();
            all(width.map(|width| cut_elements(array, 0, width)).into_iter().collect(), vec![])
        }
    }
}

/// Strings or byte strings: offsets, and the bytes between the first and the last.
fn visible_text<O: ArrowNativeType>(array: &ArrayData) -> Vec<Buffer> {
    let (offsets, Range { start, end }) = visible_offsets::<O>(array);
    vec![offsets, as_buffer(cut(&array.buffers()[1], start, end - start))]
}

/// The visible offsets, and the range of the data that they point into.
fn visible_offsets<O: ArrowNativeType>(array: &ArrayData) -> (Buffer, Range<usize>) {
    if array.is_empty() {
        return (Buffer::default(), 0..0);
    }
    let width = size_of::<O>();
    let visible = cut(&array.buffers()[0], array.offset() * width, (array.len() + 1) * width);
    let offsets = visible.typed_data::<O>();
    let range = offsets[0].as_usize()..offsets[array.len()].as_usize();
    let form = if width == size_of::<i32>() { Form::Offsets32 } else { Form::Offsets64 };
    (Buffer::found_in(bytes::Bytes::from_owner(visible), form), range)
}

/// Lists: offsets, and the elements between the first and the last.
fn visible_list<O: ArrowNativeType>(array: &ArrayData) -> Visible {
    let (offsets, range) = visible_offsets::<O>(array);
    Visible { offset: 0, buffers: vec![offsets], children: vec![sliced(&array.child_data()[0], range)] }
}

/// Lists by offsets and sizes, and the elements that they show.
fn visible_list_view<O: ArrowNativeType>(array: &ArrayData) -> Visible {
    let width = size_of::<O>();
    let [offsets, sizes] =
        [0, 1].map(|index| cut(&array.buffers()[index], array.offset() * width, array.len() * width));
    let lists = || {
        let lists = offsets.typed_data::<O>().iter().zip(sizes.typed_data::<O>()).enumerate();
        lists.map(|(row, (offset, size))| (row, offset.as_usize(), size.as_usize()))
    };
    let child = &array.child_data()[0];
    let mut range = Span::default();
    let mut shown = 0;
    for (row, offset, size) in lists() {
        range.add(offset, size);
        shown += if array.is_valid(row) { size } else { 0 };
    }
    let range = range.range();
    let valid = lists().filter(|(row, _, _)| array.is_valid(*row));
    let parts = valid.map(|(_, offset, size)| offset..offset + size);
    if let Some(child) = gathered(child, range.clone(), shown, parts) {
        let mut next = 0;
        let moved = lists().map(|(row, _, size)| {
            let (offset, size) = if array.is_valid(row) { (next, size) } else { (0, 0) };
            next += size;
            (O::usize_as(offset), O::usize_as(size))
        });
        let (offsets, sizes): (Vec<O>, Vec<O>) = moved.unzip();
        let buffers = [ArrowBuffer::from_vec(offsets), ArrowBuffer::from_vec(sizes)].map(as_buffer);
        return Visible { offset: 0, buffers: buffers.into(), children: vec![child] };
    }
    // A list without elements may begin anywhere.
    let offsets = if range.start == 0 && lists().all(|(_, offset, _)| offset <= range.end) {
        offsets
    } else {
        let moved = lists().map(|(_, offset, size)| if size == 0 { 0 } else { offset - range.start });
        ArrowBuffer::from_vec(moved.map(O::usize_as).collect())
    };
    Visible {
        offset: 0,
        buffers: vec![as_buffer(offsets), as_buffer(sizes)],
        children: vec![sliced(child, range)],
    }
}

/// A dense union's type ids and offsets, and the elements that they show of each child.
fn visible_union(array: &ArrayData, fields: &UnionFields) -> Visible {
    let type_ids = cut(&array.buffers()[0], array.offset(), array.len());
    let offsets = cut(&array.buffers()[1], array.offset() * size_of::<i32>(), array.len() * size_of::<i32>());
    let rows = || type_ids.typed_data::<i8>().iter().zip(offsets.typed_data::<i32>());
    let mut moved = offsets.typed_data::<i32>().to_vec();
    let mut changed = false;
    let mut visible_child = |type_id: i8, child: &ArrayData| {
        let of_type = || {
            rows().enumerate().filter(|(_, (id, _))| **id == type_id).map(|(row, (_, offset))| (row, *offset))
        };
        let mut range = Span::default();
        of_type().for_each(|(_, offset)| range.add(offset as usize, 1));
        let range = range.range();
        let places = of_type().map(|(_, offset)| offset as usize..offset as usize + 1);
        if let Some(child) = gathered(child, range.clone(), of_type().count(), places) {
            changed = true;
            of_type().zip(0..).for_each(|((row, _), place)| moved[row] = place);
            child
        } else {
            changed |= range.start > 0;
            of_type().for_each(|(row, offset)| moved[row] = offset - range.start as i32);
            sliced(child, range)
        }
    };
    let children = fields.iter().zip(array.child_data());
    let children = children.map(|((type_id, _), child)| visible_child(type_id, child)).collect();
    let offsets = if changed { ArrowBuffer::from_vec(moved) } else { offsets };
    Visible { offset: 0, buffers: vec![as_buffer(type_ids), as_buffer(offsets)], children }
}

/// Runs: the visible ones. Elements before the first of them count as its own, so that the ends stay as they are.
fn visible_runs<R: ArrowNativeType>(array: &ArrayData) -> Visible {
    let run_ends = &array.child_data()[0];
    let ends = &run_ends.buffer::<R>(0)[..run_ends.len()];
    let run_of = |element: usize| ends.partition_point(|end| end.as_usize() <= element);
    let (offset, runs) = match array.len().checked_sub(1) {
        None => (0, 0..0),
        Some(last) => (array.offset() as u64, run_of(array.offset())..run_of(array.offset() + last) + 1),
    };
    let children = array.child_data().iter().map(|child| sliced(child, runs.clone())).collect();
    Visible { offset, buffers: vec![], children }
}

/// The elements of `parts`, in a child of their own, if they are a small part of `range`, so that the copy is
/// worthwhile, and their memory would travel.
fn gathered(
    child: &ArrayData,
    range: Range<usize>,
    shown: usize,
    parts: impl Iterator<Item = Range<usize>>,
) -> Option<ArrayData> {
    if !is_strewn(shown, range.len()) || lies_in_store(child) || has_runs(child.data_type()) {
        return None;
    }
    // Where elements cannot be gathered, the range is as good.
    let mut gathered = MutableArrayData::try_new(vec![child], false, shown).ok()?;
    for part in parts.filter(|part| !part.is_empty()) {
        gathered.try_extend(0, part.start, part.end).ok()?;
    }
    Some(gathered.freeze())
}

/// Whether a type has runs at any depth. Each part of them that is gathered costs a walk through all of them.
fn has_runs(of: &DataType) -> bool {
    match of {
        DataType::RunEndEncoded(_, _) => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_runs(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| has_runs(field.data_type())),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_runs(item.data_type()),
        _ => false,
    }
}

/// Whether only a small part of a range is visible, so that the rest should not travel.
pub(super) fn is_strewn(shown: usize, range: usize) -> bool {
    shown < range / 2
}

fn lies_in_store(array: &ArrayData) -> bool {
    let nulls = array.nulls().map(|nulls| nulls.inner().inner());
    let mut buffers = array.buffers().iter().chain(nulls).filter(|buffer| !buffer.is_empty());
    buffers.all(|buffer| Region::find(buffer, Form::Unchanged).is_some())
        && array.child_data().iter().all(lies_in_store)
}

/// A range that grows to include the ranges that it is given.
#[derive(Clone, Copy, Default)]
pub(super) struct Span(Option<(usize, usize)>);

impl Span {
    pub(super) fn add(&mut self, start: usize, length: usize) {
        if length > 0 {
            let (first, last) = self.0.unwrap_or((usize::MAX, 0));
            self.0 = Some((first.min(start), last.max(start + length)));
        }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.0.map_or(0..0, |(start, end)| start..end)
    }
}

fn sliced(child: &ArrayData, range: Range<usize>) -> ArrayData {
    child.slice(range.start, range.len())
}

/// The visible elements of a buffer of numbers.
fn cut_elements(array: &ArrayData, index: usize, width: usize) -> Buffer {
    as_buffer(cut(&array.buffers()[index], array.offset() * width, array.len() * width))
}

/// The bytes that hold the bits, and the bits at their start that do not count.
fn cut_bits(buffer: &ArrowBuffer, offset: usize, length: usize) -> (Buffer, u64) {
    let skipped = offset % 8;
    (as_buffer(cut(buffer, offset / 8, (skipped + length).div_ceil(8))), skipped as u64)
}

pub(super) fn cut(buffer: &ArrowBuffer, start: usize, length: usize) -> ArrowBuffer {
    // An empty array's buffer may be shorter than its offset.
    if length == 0 { ArrowBuffer::default() } else { buffer.slice_with_length(start, length) }
}

pub(super) fn as_buffer(buffer: ArrowBuffer) -> Buffer {
    if buffer.is_empty() { Buffer::default() } else { Buffer::found(bytes::Bytes::from_owner(buffer)) }
}
