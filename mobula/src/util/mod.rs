//! Tools for common patterns, made of the calls and actors that every program has: maps over many items, reductions,
//! pools of actors, queues and locks between processes.
//!
//! ```
//! use mobula::prelude::*;
//! use mobula::util;
//!
//! #[remote]
//! fn square(x: i64) -> i64 {
//!     x * x
//! }
//!
//! #[remote]
//! fn add(a: i64, b: i64) -> i64 {
//!     a + b
//! }
//!
//! let _mobula = init()?;
//! let squares: Vec<i64> = util::map(0..100, |x| square::remote(x)).collect::<Result<_>>()?;
//! assert_eq!(squares[99], 99 * 99);
//!
//! let sum = util::reduce((0..100).map(|x| square::remote(x)), |a, b| add::remote(a, b));
//! assert_eq!(sum.expect("there are items").get()?, squares.iter().sum::<i64>());
//! # Ok::<(), mobula::Error>(())
//! ```

mod actor_pool;
mod barrier;
mod map;
mod permits;
mod progress;
mod queue;
mod reduce;
mod rw_lock;
mod semaphore;
mod shared;
mod signal;
mod waiting;

pub use self::actor_pool::{ActorPool, PoolMap};
pub use self::barrier::{Barrier, BarrierError};
pub use self::map::{Map, map};
pub use self::queue::{GetError, PutError, Queue};
pub use self::reduce::reduce;
pub use self::rw_lock::{Lease, RwLock};
pub use self::semaphore::{Permit, Semaphore};
pub use self::shared::{Shared, shared};
pub use self::signal::Signal;
