//! Mobula: tasks, actors and objects for the processes of one machine, on shared memory.
//!
//! ```
//! use mobula::prelude::*;
//!
//! #[mobula::remote]
//! fn square(x: i64) -> i64 {
//!     x * x
//! }
//!
//! struct Counter {
//!     value: i64,
//! }
//!
//! #[mobula::remote]
//! impl Counter {
//!     fn new() -> Self {
//!         Counter { value: 0 }
//!     }
//!     fn increment(&mut self) -> i64 {
//!         self.value += 1;
//!         self.value
//!     }
//! }
//!
//! fn main() -> mobula::Result<()> {
//!     let _mobula = mobula::init()?; // store, workers; all gone when dropped
//!
//!     let nine: ObjectRef<i64> = square::remote(3);
//!     let eighty_one = square::remote(nine); // a value or a reference to one
//!     assert_eq!(eighty_one.get()?, 81);
//!
//!     let counters: Vec<_> = (0..3).map(|_| Counter::remote()).collect();
//!     let ones = mobula::get(counters.iter().map(|c| c.increment()))?;
//!     assert_eq!(ones, [1, 1, 1]);
//!     Ok(())
//! }
//! ```
//!
//! This crate is the Rust face of Mobula: it has the types. `value` turns values into bytes and back, for all types
//! with serde's traits. `#[remote]` registers functions and classes (`registry`). `function` and `actor` make calls
//! from `arguments`, and `object_ref` gets their results. A worker is the same program, which `takeover` turns into a
//! worker. There, `host` runs the calls: `invocation` decodes their arguments, and `results` passes on their results.
//! The crate `mobula-runtime` does everything between a call and its result, and knows no types.

#![warn(missing_debug_implementations)]

mod actor;
mod arguments;
#[cfg(feature = "arrow")]
pub mod arrow;
mod cancel;
mod completed;
mod event;
mod function;
mod future;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod invocation;
pub mod metrics;
mod object_ref;
#[cfg(feature = "opentelemetry")]
pub mod opentelemetry;
mod panics;
mod portable;
pub mod prelude;
pub mod python;
mod ref_stream;
mod registry;
mod reply;
mod results;
mod session;
mod sources;
pub mod state;
mod takeover;
pub mod testing;
pub mod util;
pub mod value;

pub use mobula_client::{Client, ClientError, ObjectId, Refusal};
pub use mobula_macros::{remote, worker_init};
pub use mobula_runtime::{
    ActorEnd, ActorOptions, Bundle, CancelOptions, Error, ExitReason, Failure, GroupInfo, GroupState,
    Lifetime, MemoryLimit, MethodOptions, NamedActor, ObjectProblem, Placement, PlacementGroup,
    PlacementOptions, RefId, Resources, Result, Session, SpanGuard, StoreFailure, Strategy, TaskError,
    TaskErrorKind, TaskOptions, TimeLimit, UNLIMITED, UtilFailure, WaitingCall, available_resources,
    cluster_resources, gpu_ids, is_initialized, list_named_actors, mark, placement_groups, restarted,
    sessions, span,
};

/// The crate of the store's client, which [`Session::client`] returns: raw objects, names, promises, statistics.
pub use mobula_client as client;

// Crates whose types stand in signatures of this crate, in the version that they mean.
/// The crate `bytes`. Its `Bytes` become [`value::Bytes`] without a copy, and the reverse.
pub use bytes;
/// The crate `half`, which has the elements `f16` and `bf16` of tensors.
#[cfg(feature = "half")]
pub use half;
/// The crate `ndarray`. Its views show tensors.
#[cfg(feature = "ndarray")]
pub use ndarray;
/// The crate `num_complex`, which has the complex elements of tensors.
#[cfg(feature = "complex")]
pub use num_complex;
/// The crate `tracing_subscriber`. A [`TracingLayer`] is a layer of its subscribers.
#[cfg(feature = "tracing")]
pub use tracing_subscriber;

pub use crate::actor::{
    Actor, ActorHandle, exit_actor, get_actor, get_actor_in, kill, kill_process, terminate,
};
pub use crate::arguments::IntoArg;
pub use crate::cancel::{CancelOnDrop, cancel, cancel_with, cancelled, is_cancelled};
pub use crate::completed::{AsCompleted, as_completed};
#[cfg(feature = "tracing")]
pub use crate::event::TracingLayer;
pub use crate::future::{GetAllFuture, GetFuture, WaitFuture, get_async, wait_async};
pub use crate::object_ref::{IntoRef, ObjectRef, Refs, get, get_timeout, put, wait};
pub use crate::ref_stream::ObjectRefStream;
pub use crate::reply::{Caller, Reply};
pub use crate::session::{Builder, init, init_or_join, stop};
pub use crate::state::timeline;
pub use crate::takeover::become_worker;
pub use crate::util::map;

/// Items that the macros' code refers to. They are not for use by hand, and change without notice.
#[doc(hidden)]
pub mod __private {
    pub use linkme;
    pub use mobula_runtime::ArgumentList;

    pub use crate::event::EventNumber;

    pub use crate::actor::{RawActor, constructor_arguments, create};
    pub use crate::arguments::IntoArg;
    pub use crate::function::IN_FLIGHT_MAX;
    pub use crate::host::concurrent::{downcast_mut, downcast_ref};
    pub use crate::invocation::{Arguments, downcast};
    pub use crate::portable::Portable;
    pub use crate::registry::{
        BoxedOutcome, CLASSES, Calling, Class, Concurrency, Construction, FUNCTIONS, Function, Method,
        Outcome, SharedConstruction, SharedState, WORKER_INITS, WorkerInit, max_calls_with_gpus,
    };
    pub use crate::reply::take_reply;
    pub use crate::results::{
        ReturnTuple, constructed, constructed_fallible, constructed_shared, constructed_shared_fallible,
        fallible, fallible_dynamic, fallible_init, fallible_list, fallible_tuple, infallible,
        infallible_dynamic, infallible_list, infallible_tuple, streamed, streamed_fallible,
    };
    #[cfg(feature = "tokio")]
    pub use crate::results::{
        streamed_async, streamed_async_fallible, streamed_from, streamed_from_fallible,
    };
    pub use crate::sources::{OfBox, OfError, OfSendBox, OfText, Returned};
}
