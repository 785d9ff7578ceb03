//! The records of calls and results. They are the most frequent records, so they have a fixed layout, followed by
//! [payloads](crate::call::payload).

use std::time::Instant;

use bytemuck::{Pod, Zeroable};
use mobula_client::ObjectId;
use serde::{Deserialize, Serialize};

use super::codec::{append, read};
use crate::definition::Key;
use crate::error::Failure;

/// The function or method that a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callee {
    Function(Key),
    Method(u32),
}

impl Callee {
    /// The method of every actor that ends it. It is no method of the class.
    pub(crate) const TERMINATE: Self = Self::Method(u32::MAX);
}

/// The number of objects that the result of a call becomes.
///
/// This is exhaustive on purpose: a front handles each variant, so a new one must be an error of its compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// One, of any type.
    One,
    /// The elements of a tuple of this many.
    Tuple(u32),
    /// The elements of a list that must be this long.
    List(u32),
    /// A stream of items, each of which is an object. The number is the limit of items in flight: items that are sent
    /// and not yet taken by the caller. The one result of the call is its end.
    Stream(u32),
}

impl Returns {
    /// The number of objects.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::One | Self::Stream(_) => 1,
            Self::Tuple(count) | Self::List(count) => count as usize,
        }
    }
}

/// A call, from a caller to the process that runs it. The payloads of the arguments follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// The number of the call, chosen by the caller. The results contain it.
    pub(crate) task: u64,
    pub(crate) callee: Callee,
    pub(crate) returns: Returns,
    /// How many payloads follow.
    pub(crate) arguments: u32,
    /// Whether and when the call may begin, if it has time limits: its caller is told when it does.
    pub(crate) limits: Option<CallBegin>,
    /// Whether the call continues when its caller is gone.
    pub(crate) is_detached: bool,
    /// The number of retries so far.
    pub(crate) attempt: u16,
    /// A [context](Self::context) stands in the record.
    pub(crate) is_traced: bool,
}

/// The context in which a call was made, as the front of the caller describes it to the front of the process that runs
/// the call. The core only carries it.
///
/// It has a fixed length in each record, so it cannot grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext(pub [u8; Self::BYTES]);

impl CallContext {
    /// Its length.
    pub const BYTES: usize = 32;
}

/// The time by which a call must begin. After it, the call never runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallBegin {
    /// In nanoseconds of the clock that all processes share; `u64::MAX`: at any time.
    by_nanos: u64,
}

impl CallBegin {
    pub(crate) fn by(deadline: Option<Instant>) -> Self {
        let in_nanos = |deadline: Instant| {
            let left = deadline.saturating_duration_since(Instant::now()).as_nanos();
            monotonic_nanos().saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
        };
        Self { by_nanos: deadline.map_or(u64::MAX, in_nanos) }
    }

    /// Whether it is too late.
    pub(crate) fn is_past(self) -> bool {
        self.by_nanos != u64::MAX && monotonic_nanos() >= self.by_nanos
    }
}

/// The clock behind `Instant`, which is the same in all processes of a machine.
fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `clock_gettime` writes one `timespec`, to which the pointer is valid. Every kernel has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// The layout of a [`Call`] in a record.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct CallLayout {
    task: u64,
    /// A function's key, or a method's number.
    callee: u64,
    is_method: u32,
    /// The low bits: 0 for one result, 1 for those of a tuple, 2 for those of a list, 3 for a stream. The bits above
    /// are flags. The upper 16 bits are the number of retries.
    shape: u32,
    returns: u32,
    arguments: u32,
}

// It moves through queues, so the context stays in the record until the call begins.
const _: () = assert!(size_of::<Call>() <= 56);

impl Call {
    /// Appends the call. `context` is there if the call [is traced](Self::is_traced).
    pub(crate) fn append_to(&self, record: &mut Vec<u8>, context: Option<&CallContext>) {
        debug_assert_eq!(self.is_traced, context.is_some());
        let (is_method, callee) = match self.callee {
            Callee::Function(key) => (0, key.bits()),
            Callee::Method(method) => (1, u64::from(method)),
        };
        let (shape, returns) = match self.returns {
            Returns::One => (0, 1),
            Returns::Tuple(count) => (1, count),
            Returns::List(count) => (2, count),
            Returns::Stream(in_flight_max) => (3, in_flight_max),
        };
        let Self { task, arguments, limits, is_detached, attempt, .. } = *self;
        let shape = shape | u32::from(attempt) << ATTEMPT_SHIFT;
        let shape = if limits.is_some() { shape | LIMITED } else { shape };
        let shape = if is_detached { shape | DETACHED } else { shape };
        let shape = if context.is_some() { shape | TRACED } else { shape };
        let layout = CallLayout { task, callee, is_method, shape, returns, arguments };
        record.extend_from_slice(bytemuck::bytes_of(&layout));
        if let Some(CallBegin { by_nanos }) = limits {
            record.extend_from_slice(&by_nanos.to_le_bytes());
        }
        if let Some(context) = context {
            record.extend_from_slice(&context.0);
        }
    }

    /// The call at the front of a record; `None` if there is no call. Its payloads begin after [`bytes`](Self::bytes).
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        let layout: CallLayout = bytemuck::pod_read_unaligned(record.get(..Self::BYTES)?);
        let callee = match layout.is_method {
            0 => Callee::Function(Key::from_bits(layout.callee)),
            1 => Callee::Method(u32::try_from(layout.callee).ok()?),
            _ => return None,
        };
        let limits = match layout.shape & LIMITED {
            0 => None,
            _ => {
                let by_nanos = record.get(Self::BYTES..Self::BYTES + size_of::<u64>())?;
                Some(CallBegin { by_nanos: u64::from_le_bytes(by_nanos.try_into().ok()?) })
            }
        };
        let is_detached = layout.shape & DETACHED != 0;
        let is_traced = layout.shape & TRACED != 0;
        let attempt = (layout.shape >> ATTEMPT_SHIFT) as u16;
        let returns = match layout.shape as u16 & !(LIMITED | DETACHED | TRACED) as u16 {
            0 => Returns::One,
            1 => Returns::Tuple(layout.returns),
            2 => Returns::List(layout.returns),
            3 => Returns::Stream(layout.returns),
            _ => return None,
        };
        let CallLayout { task, arguments, .. } = layout;
        let call = Self { task, callee, returns, arguments, limits, is_detached, attempt, is_traced };
        (record.len() >= call.bytes()).then_some(call)
    }

    /// The context in which the call was made, from the record that the call was read from.
    pub(crate) fn context(&self, record: &[u8]) -> Option<CallContext> {
        let end = self.is_traced.then(|| self.bytes())?;
        let context = record.get(end - CallContext::BYTES..end)?;
        context.try_into().ok().map(CallContext)
    }

    /// The length of the call without its payloads.
    pub(crate) fn bytes(&self) -> usize {
        let limits = if self.limits.is_some() { size_of::<u64>() } else { 0 };
        let context = if self.is_traced { CallContext::BYTES } else { 0 };
        Self::BYTES + limits + context
    }

    /// The length of a call without limits, context and payloads.
    pub(crate) const BYTES: usize = size_of::<CallLayout>();
}

/// A bit of the shape: the time by which the call must begin follows.
const LIMITED: u32 = 1 << 8;
/// A bit of the shape: the call continues when its caller is gone.
const DETACHED: u32 = 1 << 9;
/// A bit of the shape: the context in which the call was made follows.
const TRACED: u32 = 1 << 10;
/// The number of retries is above the other bits of the shape.
const ATTEMPT_SHIFT: u32 = 16;

/// Cancels a call that was sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cancel {
    /// The number of the call, as the caller chose it.
    pub(crate) task: u64,
    /// If the call runs, its process ends.
    pub(crate) force: bool,
    /// If the call runs, the calls that it made are cancelled too.
    pub(crate) recursive: bool,
}

/// In place of the mark that a call is a method's.
const CANCEL: u32 = 2;

impl Cancel {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        let Self { task, force, recursive } = *self;
        let (callee, shape) = (u64::from(force), u32::from(recursive));
        let layout = CallLayout { task, callee, is_method: CANCEL, shape, returns: 0, arguments: 0 };
        record.extend_from_slice(bytemuck::bytes_of(&layout));
    }
}

/// Cancels a call of the process that this is sent to, by the promise of its result: for another process that has a
/// reference to the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CancelPromised {
    pub(crate) promise: ObjectId,
    /// As in [`Cancel`].
    pub(crate) force: bool,
    pub(crate) recursive: bool,
    /// The id of the process that cancels the call.
    pub(crate) by: u32,
}

/// In place of the mark that a call is a method's.
const CANCEL_PROMISED: u32 = 4;

impl CancelPromised {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        let Self { promise, force, recursive, by } = *self;
        let id = u128::from_le_bytes(promise.to_bytes());
        let (task, callee) = (id as u64, (id >> 64) as u64);
        let (shape, returns) = (u32::from(recursive), u32::from(force));
        let layout = CallLayout { task, callee, is_method: CANCEL_PROMISED, shape, returns, arguments: by };
        record.extend_from_slice(bytemuck::bytes_of(&layout));
    }

    fn of(layout: CallLayout) -> Self {
        let CallLayout { task, callee, shape, returns, arguments: by, .. } = layout;
        let id = u128::from(task) | u128::from(callee) << 64;
        let promise = ObjectId::from_bytes(id.to_le_bytes());
        Self { promise, force: returns != 0, recursive: shape != 0, by }
    }
}

/// The caller has taken items of a stream: the same number of further items may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The number of the call, as the caller chose it.
    pub(crate) task: u64,
    /// How many items the caller has taken since the beginning of the stream.
    pub(crate) items: u64,
}

/// In place of the mark that a call is a method's.
const TAKEN: u32 = 3;

impl Taken {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        let Self { task, items } = *self;
        let layout = CallLayout { task, callee: items, is_method: TAKEN, shape: 0, returns: 0, arguments: 0 };
        record.extend_from_slice(bytemuck::bytes_of(&layout));
    }
}

/// A record to a process that runs calls, or that made a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToWorker {
    /// The payloads of the arguments follow.
    Call(Call),
    Cancel(Cancel),
    Taken(Taken),
    CancelPromised(CancelPromised),
}

impl ToWorker {
    /// The record, or the beginning of it; `None` if it is none.
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        let layout: CallLayout = bytemuck::pod_read_unaligned(record.get(..Call::BYTES)?);
        let CallLayout { task, callee, shape, is_method, .. } = layout;
        match is_method {
            CANCEL => Some(Self::Cancel(Cancel { task, force: callee != 0, recursive: shape != 0 })),
            TAKEN => Some(Self::Taken(Taken { task, items: callee })),
            CANCEL_PROMISED => Some(Self::CancelPromised(CancelPromised::of(layout))),
            _ => Call::read(record).map(Self::Call),
        }
    }
}

/// Some of a call's results, to the caller. Their payloads follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Results {
    pub(crate) task: u64,
    /// Position of the first of these results.
    pub(crate) first: u32,
    /// How many payloads follow.
    pub(crate) count: u32,
    /// Whether the call is over with these results.
    pub(crate) is_last: bool,
    /// How long the call ran, in the record with the last of its results; 0 for a method.
    pub(crate) ran_nanos: u64,
}

/// The layout of [`Results`] in a record.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ResultsLayout {
    kind: u32,
    is_last: u32,
    task: u64,
    ran_nanos: u64,
    first: u32,
    count: u32,
}

/// Kinds of records to a caller.
const RESULTS: u32 = 0;
const NO_RESULTS: u32 = 1;
const ITEM: u32 = 2;
const STREAM_END: u32 = 3;
const KIND_BYTES: usize = size_of::<u32>();

impl Results {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        let Self { task, first, count, is_last, ran_nanos } = *self;
        let layout =
            ResultsLayout { kind: RESULTS, is_last: u32::from(is_last), task, ran_nanos, first, count };
        record.extend_from_slice(bytemuck::bytes_of(&layout));
    }
}

/// An item of a stream, to the caller. Its payload follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) task: u64,
    /// How many items of the stream were sent before it.
    pub(crate) position: u64,
}

/// The layout of an [`Item`] in a record.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ItemLayout {
    kind: u32,
    zero: u32,
    task: u64,
    position: u64,
}

impl Item {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        let Self { task, position } = *self;
        record.extend_from_slice(bytemuck::bytes_of(&ItemLayout { kind: ITEM, zero: 0, task, position }));
    }
}

/// A stream has ended without an error, to the caller. The payload of the call's one result follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamEnd {
    pub(crate) task: u64,
    /// How many items were sent.
    pub(crate) items: u64,
    /// How long the call ran; 0 for a method.
    pub(crate) ran_nanos: u64,
}

/// The layout of a [`StreamEnd`] in a record.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct StreamEndLayout {
    kind: u32,
    zero: u32,
    task: u64,
    items: u64,
    ran_nanos: u64,
}

impl StreamEnd {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        let Self { task, items, ran_nanos } = *self;
        let layout = StreamEndLayout { kind: STREAM_END, zero: 0, task, items, ran_nanos };
        record.extend_from_slice(bytemuck::bytes_of(&layout));
    }
}

/// Records without results, to the caller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NoResults {
    /// The call failed.
    Failed { task: u64, failure: Failure, ran_nanos: u64 },
    /// The call has not begun, and another process should run it: this one will be busy for long.
    Declined { task: u64 },
    /// The call, which has limits, begins to run.
    Begun { task: u64 },
    /// The call has not begun, and was cancelled, or its deadline has passed.
    Removed { task: u64 },
}

impl NoResults {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        record.extend_from_slice(&NO_RESULTS.to_le_bytes());
        append(self, record);
    }
}

/// A record to a caller.
#[derive(Debug)]
pub(crate) enum ToCaller<'a> {
    /// Results, and the payloads that follow them.
    Results(Results, &'a [u8]),
    /// An item, and the payload that follows it.
    Item(Item, &'a [u8]),
    /// The end of a stream, and the payload that follows it.
    StreamEnd(StreamEnd, &'a [u8]),
    NoResults(NoResults),
}

impl<'a> ToCaller<'a> {
    /// Reads a record to a caller; `None` if it is none.
    pub(crate) fn read(record: &'a [u8]) -> Option<Self> {
        match u32::from_le_bytes(record.get(..KIND_BYTES)?.try_into().ok()?) {
            RESULTS => {
                let (layout, payloads) = record.split_at_checked(size_of::<ResultsLayout>())?;
                let ResultsLayout { task, first, count, is_last, ran_nanos, .. } =
                    bytemuck::pod_read_unaligned(layout);
                let is_last = is_last != 0;
                Some(Self::Results(Results { task, first, count, is_last, ran_nanos }, payloads))
            }
            ITEM => {
                let (layout, payload) = record.split_at_checked(size_of::<ItemLayout>())?;
                let ItemLayout { task, position, .. } = bytemuck::pod_read_unaligned(layout);
                Some(Self::Item(Item { task, position }, payload))
            }
            STREAM_END => {
                let (layout, payload) = record.split_at_checked(size_of::<StreamEndLayout>())?;
                let StreamEndLayout { task, items, ran_nanos, .. } = bytemuck::pod_read_unaligned(layout);
                Some(Self::StreamEnd(StreamEnd { task, items, ran_nanos }, payload))
            }
            NO_RESULTS => read(&record[KIND_BYTES..]).ok().map(Self::NoResults),
            _ => None,
        }
    }
}
