//! The visible parts of an array of views: its views, and the bytes that the long views point to.

use std::ops::Range;

use crate::arrow::array::ArrayData;
use crate::arrow::buffer::Buffer as ArrowBuffer;

use super::visible::{Span, as_buffer, cut, is_strewn};
use crate::value::buffer::Buffer;

/// Bytes of a value that lies in its view.
const INLINE_BYTES_MAX: u32 = 12;
/// Bytes that a view can point to: its offset is signed to other readers of Arrow data.
const DATA_BYTES_MAX: usize = i32::MAX as usize;

/// The visible views, and the buffers with their visible parts.
pub(super) fn visible_views(array: &ArrayData) -> Vec<Buffer> {
    let (views, data) = array.buffers().split_first().expect("views are the first buffer");
    let width = size_of::<u128>();
    let views = cut(views, array.offset() * width, array.len() * width);
    let homes = homes(array, views.typed_data(), data);
    let mut buffers = Vec::with_capacity(1 + data.len());
    let mut places = Vec::with_capacity(data.len());
    for (home, buffer) in homes.iter().zip(data) {
        let Range { start, end } = home.span.range();
        places.push(if start == end {
            Place::Nowhere
        } else if is_strewn(home.shown, end - start) {
            // A buffer that would go by reference is gathered too: every reader copies it.
            Place::Gathered
        } else {
            buffers.push(as_buffer(cut(buffer, start, end - start)));
            Place::Moved { buffer: buffers.len() as u32 - 1, less: start as u32 }
        });
    }
    let stays = |(index, place): (usize, &Place)| match *place {
        Place::Nowhere => true,
        Place::Moved { buffer, less } => buffer as usize == index && less == 0,
        Place::Gathered => false,
    };
    let views = if places.iter().enumerate().all(stays) {
        views
    } else {
        let mut gathered = Gathered { before: buffers.len(), buffers: vec![Vec::new()] };
        let moved = moved(array, views.typed_data(), data, &places, &mut gathered);
        let gathered = gathered.buffers.into_iter().filter(|bytes| !bytes.is_empty());
        buffers.extend(gathered.map(|bytes| as_buffer(ArrowBuffer::from_vec(bytes))));
        ArrowBuffer::from_vec(moved)
    };
    buffers.insert(0, as_buffer(views));
    buffers
}

/// The visible part of a buffer.
#[derive(Clone, Default)]
struct Home {
    span: Span,
    shown: usize,
}

/// The new place of a buffer's visible part.
enum Place {
    /// The buffer has no visible part.
    Nowhere,
    /// In another buffer, which begins `less` bytes later.
    Moved { buffer: u32, less: u32 },
    /// Among the gathered bytes.
    Gathered,
}

fn homes(array: &ArrayData, views: &[u128], data: &[ArrowBuffer]) -> Vec<Home> {
    let mut homes = vec![Home::default(); data.len()];
    for (row, view) in views.iter().enumerate() {
        if let Some(long) = Long::of(*view) {
            let home = &mut homes[long.buffer as usize];
            home.span.add(long.offset as usize, long.length as usize);
            home.shown += if array.is_valid(row) { long.length as usize } else { 0 };
        }
    }
    homes
}

fn moved(
    array: &ArrayData,
    views: &[u128],
    data: &[ArrowBuffer],
    places: &[Place],
    gathered: &mut Gathered,
) -> Vec<u128> {
    let view = |(row, view): (usize, &u128)| match Long::of(*view) {
        None => *view,
        Some(_) if array.is_null(row) => 0,
        Some(long) => match places[long.buffer as usize] {
            Place::Nowhere => unreachable!("it is shown"),
            Place::Moved { buffer, less } => Long { buffer, offset: long.offset - less, ..long }.view(*view),
            Place::Gathered => {
                let start = long.offset as usize;
                let bytes = &data[long.buffer as usize][start..start + long.length as usize];
                gathered.add(bytes).view(*view)
            }
        },
    };
    views.iter().enumerate().map(view).collect()
}

/// A view of a value that does not lie in it.
struct Long {
    length: u32,
    buffer: u32,
    offset: u32,
}

impl Long {
    fn of(view: u128) -> Option<Self> {
        let length = view as u32;
        let long = Self { length, buffer: (view >> 64) as u32, offset: (view >> 96) as u32 };
        (length > INLINE_BYTES_MAX).then_some(long)
    }

    /// The view, with the length and the first bytes of `old`.
    fn view(&self, old: u128) -> u128 {
        u128::from(old as u64) | u128::from(self.buffer) << 64 | u128::from(self.offset) << 96
    }
}

/// The bytes of values, one behind the other.
struct Gathered {
    /// How many buffers there are before these.
    before: usize,
    buffers: Vec<Vec<u8>>,
}

impl Gathered {
    fn add(&mut self, bytes: &[u8]) -> Long {
        let fits = self.buffers.last().is_some_and(|last| last.len() + bytes.len() <= DATA_BYTES_MAX);
        if !fits {
            self.buffers.push(Vec::new());
        }
        let index = self.before + self.buffers.len() - 1;
        let last = self.buffers.last_mut().expect("there is at least one");
        let offset = last.len() as u32;
        last.extend_from_slice(bytes);
        Long { length: bytes.len() as u32, buffer: index as u32, offset }
    }
}
