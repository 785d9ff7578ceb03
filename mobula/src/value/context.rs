//! The buffers and references that go beside the stream while a value is written or read.
//!
//! `serde` has no room for a companion of the stream, so the companions wait on a stack of the thread: `encode` and
//! `decode` push one and pop it again, also when they unwind. The types that take part look at the top one. A stack
//! rather than a slot, because an implementation of `Serialize` or `Deserialize` may itself encode or decode.
//!
//! Rule: no user code runs while a stack is borrowed.

use std::cell::{Cell, RefCell};

use mobula_client::{Handle, ObjectId};
use rustc_hash::FxHashMap;

use super::ValueError;
use super::buffer::Buffer;
use super::decode::Decoding;

/// Whether this thread can still encode and decode. A thread that ends drops its thread-local values, also these.
pub(crate) fn is_there() -> bool {
    ENCODING.try_with(|_| ()).is_ok() && DECODING.try_with(|_| ()).is_ok()
}

/// The position of the handle's object among the references of the payload that is being written, where it is added
/// unless it is there already. `None` when nothing is being encoded.
pub(super) fn add_reference(handle: Handle) -> Option<u32> {
    with_top(&ENCODING, |beside| beside.get_or_insert_default().add_reference(handle))
}

/// A reference of the payload that is being read, by its position. `None` when nothing is being decoded.
pub(super) fn reference(index: u32) -> Option<Result<Handle, Box<ValueError>>> {
    with_top(&DECODING, |decoding| decoding.reference(index))
}

/// Runs `write`, which writes the content of an extension of the stream, and begins with [`take_invitation`]. Another
/// format, which user code may run at the same time, gives no invitation.
pub(super) fn invited<R>(write: impl FnOnce() -> R) -> R {
    INVITED.set(true);
    let result = write();
    INVITED.set(false);
    result
}

/// Returns true once, if the caller is the content of an extension that our writer has begun.
pub(super) fn take_invitation() -> bool {
    INVITED.take()
}

/// Turns `error` into the deserializer's own, and keeps it for [`decode`](super::decode) to return: `serde`'s errors are
/// texts.
pub(crate) fn refuse<E: serde::de::Error>(error: impl Into<Box<ValueError>>) -> E {
    let error = error.into();
    let refusal = E::custom(&error);
    let _replaced = with_top(&DECODING, |decoding| decoding.refusal.replace(error));
    refusal
}

/// The buffers and references beside a stream that is being written. Mostly there are none, which costs nothing.
pub(super) type Beside = Option<Box<Encoding>>;

/// The buffers and references beside a stream that is being written, where there are any.
#[derive(Default)]
pub(super) struct Encoding {
    /// In the order of their indices.
    buffers: Vec<Placed>,
    /// In the order of their positions, each object once.
    references: Vec<Handle>,
    /// By address, length, and whether it goes by reference: a buffer that several carriers share is written once. The
    /// same memory may go both ways: the offsets of an Arrow array, read from a copy, are not what the object has.
    buffer_indices: FxHashMap<(usize, usize, bool), u32>,
    reference_positions: FxHashMap<ObjectId, u32>,
}

/// A buffer, and in which object it lies already.
pub(super) struct Placed {
    pub(super) buffer: Buffer,
    /// Position among the references, and offset in that object.
    pub(super) external: Option<(u32, u64)>,
}

impl Encoding {
    /// The buffers in the order of their indices, the references in that of their positions.
    pub(super) fn into_parts(self) -> (Vec<Placed>, Vec<Handle>) {
        (self.buffers, self.references)
    }

    fn add_buffer(&mut self, buffer: &Buffer) -> u32 {
        // Everything that was added is kept alive here, so the same address is the same memory.
        let region = buffer.region().filter(|_| !buffer.is_empty());
        let key = (buffer.as_ptr().addr(), buffer.len(), region.is_some());
        if let Some(&index) = self.buffer_indices.get(&key) {
            return index;
        }
        let index = self.buffers.len() as u32;
        let external = region.map(|region| {
            let offset = region.offset_of(buffer);
            (self.add_reference(region.handle()), offset)
        });
        self.buffers.push(Placed { buffer: buffer.clone(), external });
        self.buffer_indices.insert(key, index);
        index
    }

    fn add_reference(&mut self, handle: Handle) -> u32 {
        *self.reference_positions.entry(handle.id()).or_insert_with(|| {
            self.references.push(handle);
            self.references.len() as u32 - 1
        })
    }
}

/// The index of `buffer` in the payload that is being written. `None` when nothing is being encoded.
pub(super) fn add_buffer(buffer: &Buffer) -> Option<u32> {
    with_top(&ENCODING, |beside| beside.get_or_insert_default().add_buffer(buffer))
}

/// A buffer of the payload that is being read.
pub(super) fn buffer(index: u32) -> Result<Buffer, ValueError> {
    let read = with_top(&DECODING, |decoding| decoding.buffer(index));
    read.unwrap_or(Err(ValueError::NoSuchBuffer { buffer: index, count: 0 }))
}

/// A buffer of the payload that is being read, to be copied out of it.
pub(super) fn buffer_to_copy(index: u32) -> Result<Buffer, ValueError> {
    let read = with_top(&DECODING, |decoding| decoding.buffer_to_copy(index));
    read.unwrap_or(Err(ValueError::NoSuchBuffer { buffer: index, count: 0 }))
}

/// Runs `write`, and returns the buffers and references that it put beside the stream.
pub(super) fn encoding<R>(write: impl FnOnce() -> R) -> (R, Beside) {
    within(&ENCODING, None, write)
}

/// Runs `read` with `decoding` beside the stream, and gives it back.
pub(super) fn decoding<R>(decoding: Decoding, read: impl FnOnce() -> R) -> (R, Decoding) {
    within(&DECODING, decoding, read)
}

thread_local! {
    static INVITED: Cell<bool> = const { Cell::new(false) };
    static ENCODING: Stack<Beside> = const { RefCell::new(Vec::new()) };
    static DECODING: Stack<Decoding> = const { RefCell::new(Vec::new()) };
}

type Stack<C> = RefCell<Vec<C>>;
type StackKey<C> = std::thread::LocalKey<Stack<C>>;

fn with_top<C, R>(stack: &'static StackKey<C>, work: impl FnOnce(&mut C) -> R) -> Option<R> {
    stack.with_borrow_mut(|stack| stack.last_mut().map(work))
}

fn within<C, R>(stack: &'static StackKey<C>, companion: C, work: impl FnOnce() -> R) -> (R, C) {
    struct Pop<C: 'static>(&'static StackKey<C>);

    impl<C> Drop for Pop<C> {
        fn drop(&mut self) {
            // Values that unwinding leaves are dropped only after the stack is no longer borrowed.
            drop(self.0.with_borrow_mut(Vec::pop));
        }
    }

    stack.with_borrow_mut(|stack| stack.push(companion));
    let pop = Pop(stack);
    let result = work();
    std::mem::forget(pop);
    let companion = stack.with_borrow_mut(Vec::pop).expect("each level takes its own companion off again");
    (result, companion)
}
