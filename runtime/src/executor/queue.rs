//! The work that waits in a process, and the call that was taken last. The [executor](super::Executor) keeps it behind
//! a lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use mobula_client::{Handle, OwnerId};
use rustc_hash::FxHashMap;

use crate::definition::Key;
use crate::mail::link::Link;
use crate::under_way::UnderWay;
use crate::wire::{Call, CallContext, Callee, CancelPromised, NoResults};

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) work: VecDeque<Work>,
    /// Memory for later records.
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) taken: Option<Taken>,
    /// Futures of the running call that are woken when it is cancelled.
    pub(super) cancel_wakers: Vec<Waker>,
    /// The calls under way in an actor that runs several at a time, by the numbers of their links and of the calls.
    pub(super) under_way: FxHashMap<(u64, u64), Arc<UnderWay>>,
}

/// The call that was taken last.
#[derive(Debug)]
pub(super) struct Taken {
    /// The number of the link through which it came, and its own number.
    pub(super) link: u64,
    pub(super) task: u64,
    /// The process that made it.
    pub(super) caller: OwnerId,
    pub(super) callee: Callee,
    pub(super) has_limits: bool,
    pub(super) is_detached: bool,
}

impl Queue {
    /// Whether this call was taken last.
    pub(super) fn has_taken(&self, link: &Link, task: u64) -> bool {
        self.taken.as_ref().is_some_and(|taken| (taken.link, taken.task) == (link.id, task))
    }
}

/// The running call, after it was cancelled.
#[derive(Debug)]
pub(crate) struct Cancelled {
    /// Its number, as [`Executor::call_number`](super::Executor::call_number) counts.
    pub(crate) call: u64,
    /// The calls that it made are cancelled too.
    pub(crate) recursive: bool,
    pub(crate) wakers: Vec<Waker>,
}

/// An effect of a record on the calls that this process made, or on futures.
#[derive(Debug)]
pub(crate) enum Ordered {
    /// The running call was cancelled.
    Cancelled(Cancelled),
    /// One of them is to be cancelled.
    CancelPromised(CancelPromised),
    /// Futures of a call must be woken.
    Wake(Vec<Waker>),
}

#[derive(Debug)]
pub(crate) enum Work {
    /// A call. The arguments are still in the record.
    Call {
        from: Arc<Link>,
        /// The number of the record in its link, as the caller counts records.
        number: u64,
        call: Call,
        record: Vec<u8>,
        /// Handles to the objects that the arguments name, for a caller that may be gone before the call begins.
        held: Vec<Handle>,
    },
    Construct {
        actor: u64,
        class: Key,
        arguments: u32,
        context: Option<CallContext>,
        payloads: Vec<u8>,
    },
    /// The process is spent: the calls that it made end before it does.
    AwaitCalls,
    /// A caller is gone, and the actor must be told: the number of its link.
    CallerGone(u64),
}

/// Whether another process may run the call instead: only if its caller still lives and can send it.
pub(super) fn may_be_declined(from: &Link, call: &Call) -> bool {
    matches!(call.callee, Callee::Function(_)) && !(call.is_detached && from.is_peer_gone())
}

pub(super) fn decline(from: &Link, task: u64) {
    let _ = from.send_with(Vec::new(), |record| NoResults::Declined { task }.append_to(record));
}
