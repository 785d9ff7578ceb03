//! The context in which a call is made: it travels with the call to the process that runs it.

use std::sync::OnceLock;

use crate::wire::CallContext;

static SOURCE: OnceLock<fn() -> Option<CallContext>> = OnceLock::new();

/// Sets the function that is asked for the context of each call that this process makes. The thread that makes the call
/// asks it, and holds no lock meanwhile. The process that runs the call gets the context by
/// [`Invocation::context`](crate::Invocation::context). Only the first function of a process is set.
///
/// Without a function, this costs a call one load and a branch. A call without a context adds no byte to the record.
pub fn set_context_source(source: fn() -> Option<CallContext>) {
    let _ = SOURCE.set(source);
}

/// The context of a call that this thread makes now.
#[inline]
pub(super) fn current() -> Option<CallContext> {
    SOURCE.get().and_then(|source| source())
}
