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
//! The path of a task through this crate: `call` (its arguments become payloads) → `submit` (its arguments are there, a
//! worker has room) → `mail` (a record in a ring) → in the worker: `worker` (decoded, run, encoded) → `mail` → `submit` →
//! `call` (its result arrives) → [`ObjectRef::get`]. The `head` hands out workers and keeps the actors; `session` starts and
//! ends it all, and `takeover` makes a worker of the same program.

mod actor;
mod call;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod mail;
mod portable;
pub mod prelude;
mod process;
mod registry;
mod session;
mod sources;
mod submit;
mod takeover;
pub mod value;
mod wire;
mod worker;

pub use mobula_macros::remote;

pub use crate::actor::{Actor, ActorHandle, ActorOptions, get_actor, kill};
pub use crate::call::arguments::IntoArg;
pub use crate::call::object_ref::{ObjectRef, Refs, get, get_timeout, put, wait};
pub use crate::call::ref_id::RefId;
pub use crate::call::task::{TaskOptions, UNLIMITED};
pub use crate::error::{Error, ExitReason, Failure, Result, TaskError, TaskErrorKind};
pub use crate::session::{Builder, Session, init, init_or_join, is_initialized, sessions};
pub use crate::takeover::become_worker;

/// What the code that the macros write refers to. Not for use by hand; it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use linkme;

    pub use crate::actor::{Create, MethodCall, RawActor};
    pub use crate::call::arguments::{
        Arguments, IntoArg, Outcome, ReturnTuple, constructed, constructed_fallible, downcast, fallible,
        fallible_list, fallible_tuple, infallible, infallible_list, infallible_tuple,
    };
    pub use crate::call::task::{Call, with_defaults};
    pub use crate::portable::Portable;
    pub use crate::registry::{CLASSES, Class, Construction, FUNCTIONS, Function, Method};
    pub use crate::sources::{OfBox, OfError, OfText, Returned};
}
