//! Gives the types in a value access to the parts beside its stream: the [buffers and references](super::encoding) of
//! the payload that is being written, and [those](super::decoding) of the payload that is being read.
//!
//! `serde` cannot pass these parts along with the stream, so a stack of the thread has them: `encode` and `decode` push
//! an element and pop it again, also when they unwind. The types that need the parts use the top element. It is a
//! stack, because an implementation of `Serialize` or `Deserialize` may itself encode or decode.
//!
//! Rule: no user code runs while a stack is borrowed.

use std::any::TypeId;
use std::cell::{Cell, RefCell};

use mobula_client::{Handle, Layout, ObjectWriter};

use super::buffer::Buffer;
use super::decoding::Decoding;
use super::encoding::{Beside, Destination, Writing};
use super::{ValueError, format};

/// Whether this thread can still encode and decode. A thread that ends drops its thread-local values, also these.
pub(crate) fn is_there() -> bool {
    ENCODING.try_with(|_| ()).is_ok() && DECODING.try_with(|_| ()).is_ok()
}

/// The position of the handle's object among the references of the payload that is being written, where it is added
/// unless it is there already. `None` when nothing is being encoded.
pub(super) fn add_reference(handle: Handle) -> Option<u32> {
    with_top(&ENCODING, |writing| writing.beside.get_or_insert_default().add_reference(handle))
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

/// Turns `error` into the deserializer's own, and keeps it for [`decode`](super::decode) to return: errors of `serde`
/// are texts.
pub(crate) fn refuse<E: serde::de::Error>(error: impl Into<Box<ValueError>>) -> E {
    let error = error.into();
    let refusal = E::custom(&error);
    let _replaced = with_top(&DECODING, |decoding| decoding.refusal.replace(error));
    refusal
}

/// The index of `buffer` in the payload that is being written. `None` when nothing is being encoded.
pub(super) fn add_buffer(buffer: &Buffer) -> Option<u32> {
    with_top(&ENCODING, |writing| writing.beside.get_or_insert_default().add_buffer(buffer))
}

/// Memory of the store for a buffer that is not written yet: an object of its own, so that the buffer is copied once.
/// `None` for a small buffer, or if the payload may not refer to objects. An error of the store ends the writing.
pub(super) fn memory_for(bytes: usize) -> Result<Option<ObjectWriter>, StoreRefused> {
    // Below, a second copy in the processor's caches costs less than another object.
    const BYTES_MIN: usize = 64 << 10;
    if bytes < BYTES_MIN || with_top(&ENCODING, |writing| writing.to) != Some(Destination::Session) {
        return Ok(None);
    }
    let create =
        |client: mobula_client::Client| Ok(client.create(Layout::new(bytes as u64).format(format::RAW))?);
    super::client().and_then(create).map(Some).map_err(|error| {
        let refusal = Some(Box::new(error));
        let _replaced = with_top(&ENCODING, |writing| std::mem::replace(&mut writing.refusal, refusal));
        StoreRefused
    })
}

/// The store has no memory. The reason is kept until the end of the writing, because errors of `serde` are texts.
#[derive(Debug)]
pub(super) struct StoreRefused;

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

/// Runs `write`, which writes a `T`, and returns the buffers and references that it put beside the stream.
///
/// # Errors
/// Those of `write`, or of the store.
pub(super) fn encoding<T: ?Sized>(
    to: Destination,
    write: impl FnOnce() -> Result<(), ValueError>,
) -> (Result<(), ValueError>, Beside) {
    if !needs_companion::<T>() {
        return (write(), None);
    }
    let (written, Writing { beside, refusal, .. }) = within(&ENCODING, Writing::to(to), write);
    (refusal.map_or(written, |refusal| Err(*refusal)), beside)
}

/// Runs `read`, which reads a `T`, with `decoding` beside the stream, and gives it back.
pub(super) fn decoding<T, R>(decoding: Decoding, read: impl FnOnce() -> R) -> (R, Decoding) {
    if needs_companion::<T>() { within(&DECODING, decoding, read) } else { (read(), decoding) }
}

/// Whether values of a type can have buffers or references beside their stream: all types except numbers and equally
/// simple ones. An optimizing compiler evaluates this at compile time.
#[inline]
fn needs_companion<T: ?Sized>() -> bool {
    macro_rules! ids {
        ($($simple:ty)*) => { [$(TypeId::of::<$simple>()),*] };
    }
    let simple = ids!(() bool char u8 i8 u16 i16 u32 i32 u64 i64 usize isize u128 i128 f32 f64);
    !simple.contains(&typeid::of::<T>())
}

thread_local! {
    static INVITED: Cell<bool> = const { Cell::new(false) };
    static ENCODING: Stack<Writing> = const { RefCell::new(Vec::new()) };
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
