//! The records that processes of a session send each other through their rings.
//!
//! `call` has those of callers and the processes that run their calls, and `head` those from and to the head, with
//! `state` for an observer. All but
//! the most frequent ones are encoded by `codec`. A [`Failure`](crate::error::Failure) that is stored in place of a
//! result has the same encoding.

mod call;
mod codec;
mod head;
mod state;
#[cfg(test)]
mod tests;
mod waits;

pub(crate) use self::call::{
    Call, CallBegin, Callee, Cancel, CancelPromised, Item, NoResults, Results, StreamEnd, Taken, ToCaller,
    ToWorker,
};
pub use self::call::{CallContext, Returns};
pub(crate) use self::codec::{append, read, to_vec};
pub use self::head::NamedActor;
pub(crate) use self::head::{
    CancelCall, FoundActor, FromHead, GroupRecord, NewActor, NewGroup, Obeyed, ReservedActor, RunningCall,
    ToHead,
};
pub(crate) use self::state::{ActorProcess, ActorRecord, HeadState, ProcessRecord, ToldWait, WantRecord};
pub(crate) use self::waits::{Held, NEEDS_MAX, Need, RESULTS_MAX, WAITS_MAX, Waits};
