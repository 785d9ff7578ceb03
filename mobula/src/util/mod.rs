//! Tools for common patterns, made of the calls and actors that every program has: maps over many items, reductions,
//! pools of actors.
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
mod map;
mod progress;
mod reduce;

pub use self::actor_pool::{ActorPool, PoolMap};
pub use self::map::{Map, map};
pub use self::reduce::reduce;
