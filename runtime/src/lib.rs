//! The core of Mobula: tasks, actors, scheduling, workers and sessions, for any language.
//!
//! This crate works with function keys, object ids and [payloads](Payload): bytes with a [format tag](mod@format), and
//! the objects that they refer to. It knows no types. A *front* turns values of its language into payloads and back,
//! and gives the core a [`Host`], which runs its functions. The Rust front is the crate `mobula`, which programs use.
//!
//! ```text
//! front (caller)                                            front (callee)
//!   value → payload → ArgumentList → submit ──record──► worker → Invocation → Host::call
//!   value ← Resolved ← Ref ← results        ◄──record── worker ← Invocation::give
//! ```
//!
//! The path of a task through this crate:
//!
//! 1. `front` has the functions that a front calls.
//! 2. `call`: its arguments are payloads.
//! 3. `submit`: it waits until its arguments are there and a worker has room.
//! 4. `wire`, `mail`: it is a record in a ring.
//! 5. In the worker, it waits in the queue of `executor`, and runs in `worker` and `host`.
//! 6. `wire`, `mail`, `submit`, `call`: its outcome comes back to a cell, which a [`Ref`] points to.
//!
//! Every process of a session has a `runtime`, which connects these parts. The `head` starts processes and hands out
//! workers, `session` starts and ends it all, and `entry` is where a process that was started begins. `process` is the
//! operating system. Only `host` and `worker` import each other: a call that left the queue is a type of
//! `worker`, and runs in `host`.

#![warn(missing_debug_implementations)]

mod call;
pub mod control;
mod definition;
mod demand;
mod entry;
mod environment;
mod error;
mod executor;
pub mod format;
mod front;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod host;
mod launch;
pub mod logs;
mod mail;
pub mod metrics;
mod process;
mod record;
mod resources;
mod runtime;
mod session;
mod session_number;
#[cfg(test)]
mod simulated;
pub mod state;
mod submit;
mod sync;
mod under_way;
mod wire;
pub mod words;
mod worker;

pub use crate::call::inline::{Inline, InlineBytes};
pub use crate::call::method_options::MethodOptions;
pub use crate::call::options::{TaskOptions, UNLIMITED};
pub use crate::call::outcome::stored;
pub use crate::call::payload::{Encoded, Malformed, ObjectIds, Payload, PushError, Written};
pub use crate::call::ref_id::RefId;
pub use crate::call::task_id::TaskId;
pub use crate::definition::{Definition, Key, Name};
pub use crate::entry::run_role;
pub use crate::error::{
    ActorEnd, Error, ExitReason, Failure, MemoryLimit, ObjectProblem, Result, StoreFailure, TaskError,
    TaskErrorKind, TimeLimit, UtilFailure, WaitingCall,
};
pub use crate::executor::places::{PlacedWait, Places};
pub use crate::front::actor::{
    ActorRef, ExportedActor, actor_number, exit_actor, list_named_actors, restarted,
};
pub use crate::front::actor_options::{ActorOptions, Lifetime};
pub use crate::front::arguments::ArgumentList;
pub use crate::front::cancel::{CancelOptions, cancel, is_cancelled, poll_cancelled};
pub use crate::front::context::set_context_source;
pub use crate::front::function::call_function;
pub use crate::front::future::Waiting;
pub use crate::front::made_at::MadeAt;
pub use crate::front::mark::{SpanGuard, mark, span};
pub use crate::front::placement::{Bundle, GroupInfo, PlacementGroup, PlacementOptions, placement_groups};
pub use crate::front::reference::{Ref, Resolved, WaitInSlices, wait, wait_all, wait_any};
pub use crate::front::resources::{available_resources, cluster_resources, gpu_ids};
pub use crate::front::stream::{ItemStream, call_streaming};
pub use crate::host::invocation::Invocation;
pub use crate::host::reply::Reply;
pub use crate::host::{Host, Instance};
pub use crate::launch::Launch;
pub use crate::process::output::{OutputSink, label};
pub use crate::process::role::ROLE;
pub use crate::process::stack;
pub use crate::resources::{Amounts, GroupState, Placement, Resources, Strategy};
pub use crate::runtime::Runtime;
pub use crate::runtime::current::{RuntimeRef, is_initialized, number, runtime, runtime_of};
pub use crate::session::{
    Session, SessionOptions, sessions, shared_session, start, start_or_join, start_shared, stop_shared,
};
pub use crate::session_number::SessionNumber;
pub use crate::wire::{CallContext, NamedActor, Returns};
pub use crate::worker::OwnedCall;
