//! The failures of a front's tools for common patterns, such as queues and barriers.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a tool of `mobula::util` did not do what was asked. A task that fails with it has [`Failure::Util`] as its
/// cause.
///
/// ```
/// use mobula::util::Queue;
/// use mobula::{Error, Failure, UtilFailure};
///
/// #[mobula::remote]
/// fn fills(queue: Queue<u32>) -> mobula::Result<()> {
///     queue.put_nowait(1)?;
///     queue.put_nowait(2)?;
///     Ok(())
/// }
///
/// let _mobula = mobula::init()?;
/// let Err(Error::Task(error)) = fills::remote(Queue::new(1)).get() else { panic!("there is room for one item") };
/// assert!(matches!(error.cause.as_deref(), Some(Failure::Util(UtilFailure::QueueFull))));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// [`Failure::Util`]: crate::Failure::Util
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum UtilFailure {
    /// The queue has no room for an item, or had none until the timeout.
    QueueFull,
    /// The queue was closed. It takes no more items, or has none left.
    QueueClosed,
    /// The queue has fewer items than requested, or had none until the timeout.
    QueueEmpty,
    /// Another caller has left the barrier: it has died, or its wait has timed out.
    BarrierBroken,
    /// Not all callers came to the barrier within the timeout.
    BarrierTimeout,
    /// Calls wait in an `ActorPool` that has no actor.
    PoolEmpty,
    /// There are fewer permits than requested.
    TooFewPermits {
        /// The number of permits that were requested.
        requested: u32,
        /// The number of permits that there are.
        permits: u32,
    },
}

impl fmt::Display for UtilFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "the queue is full: take items out, wait longer, or make it larger",
            Self::QueueClosed => "the queue is closed: it takes no more items, or has none left",
            Self::QueueEmpty => "the queue does not have as many items as requested: wait longer",
            Self::BarrierBroken => "another caller has left the barrier: it died, or its wait timed out",
            Self::BarrierTimeout => "not all callers came to the barrier in time",
            Self::PoolEmpty => {
                "the pool has no actor that could run the calls that wait: add one with `push`"
            }
            Self::TooFewPermits { requested, permits } => {
                return write!(
                    f,
                    "{requested} permits were requested, and there are {permits}: request fewer"
                );
            }
        })
    }
}

impl StdError for UtilFailure {}
