//! The work of a process, as its [queue](super::queue) has it, and the effects of records on it.

use std::sync::Arc;
use std::task::Waker;

use mobula_client::{Handle, OwnerId};

use crate::definition::Key;
use crate::executor::queue::{CallId, Waits};
use crate::mail::link::Link;
use crate::wire::{Call, CallContext, Callee, CancelPromised, NoResults};

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

/// The facts about the call that was taken last.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(super) id: CallId,
    /// The process that made it.
    pub(super) caller: OwnerId,
    pub(super) callee: Callee,
    pub(super) has_limits: bool,
    pub(super) is_detached: bool,
}

impl Waits for Work {
    type Taken = Taken;

    fn call(&self) -> Option<CallId> {
        let Self::Call { from, call, .. } = self else { return None };
        Some(from.call_id(call.task))
    }

    fn taken(&self) -> Option<Taken> {
        let Self::Call { from, call, .. } = self else { return None };
        let (caller, callee, is_detached) = (from.peer, call.callee, call.is_detached);
        let (id, has_limits) = (from.call_id(call.task), call.limits.is_some());
        Some(Taken { id, caller, callee, has_limits, is_detached })
    }
}

impl Link {
    /// The address of a call that came through this link.
    pub(super) fn call_id(&self, task: u64) -> CallId {
        CallId { link: self.id, task }
    }
}

/// The running call, after it was cancelled; by default no call, and threads that are woken.
#[derive(Debug, Default)]
pub(crate) struct Cancelled {
    /// Its [number](crate::under_way::UnderWay::number).
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

/// Whether another process may run the call instead: only if its caller still lives and can send it.
pub(super) fn may_be_declined(from: &Link, call: &Call) -> bool {
    matches!(call.callee, Callee::Function(_)) && !(call.is_detached && from.is_peer_gone())
}

pub(super) fn decline(from: &Link, task: u64) {
    let _ = from.send_with(Vec::new(), |record| NoResults::Declined { task }.append_to(record));
}
