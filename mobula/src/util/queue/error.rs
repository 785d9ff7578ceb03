//! The errors of puts and gets.

use std::fmt;

use mobula_runtime::{Error, Failure, UtilFailure};

/// The reason why an item was not put. It contains the item of [`put`](super::Queue::put) and its variants, or the
/// items of [`put_many`](super::Queue::put_many) that are not in the queue.
///
/// ```
/// use mobula::util::{PutError, Queue};
///
/// let _mobula = mobula::init()?;
/// let queue = Queue::new(1);
/// queue.put("first".to_owned())?;
/// let Err(PutError::Full(item)) = queue.put_nowait("second".to_owned()) else { panic!("it is full") };
/// assert_eq!(item, "second");
/// # Ok::<(), mobula::Error>(())
/// ```
#[non_exhaustive]
pub enum PutError<T> {
    /// The queue is full, or was full until the timeout.
    Full(T),
    /// The queue was [closed](super::Queue::close).
    Closed(T),
    /// The queue's actor cannot be reached, or the item cannot be encoded. In the first case the item may be in the
    /// queue; in the second it is not.
    Failed {
        /// The item.
        item: T,
        /// The reason.
        error: Box<Error>,
    },
}

impl<T> PutError<T> {
    /// The item.
    ///
    /// ```
    /// use mobula::util::Queue;
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = Queue::new(1);
    /// queue.put(1)?;
    /// assert_eq!(queue.put_nowait(2).unwrap_err().into_item(), 2);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn into_item(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) | Self::Failed { item, .. } => item,
        }
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("Full(..)"),
            Self::Closed(_) => f.write_str("Closed(..)"),
            Self::Failed { error, .. } => write!(f, "Failed({error:?})"),
        }
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => UtilFailure::QueueFull.fmt(f),
            Self::Closed(_) => UtilFailure::QueueClosed.fmt(f),
            Self::Failed { error, .. } => error.fmt(f),
        }
    }
}

impl<T> std::error::Error for PutError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full(_) => Some(&UtilFailure::QueueFull),
            Self::Closed(_) => Some(&UtilFailure::QueueClosed),
            Self::Failed { error, .. } => Some(error),
        }
    }
}

/// Drops the item. This is for functions that return a [`Result`](crate::Result).
impl<T> From<PutError<T>> for Error {
    fn from(error: PutError<T>) -> Self {
        match error {
            PutError::Full(_) => Failure::Util(UtilFailure::QueueFull).into(),
            PutError::Closed(_) => Failure::Util(UtilFailure::QueueClosed).into(),
            PutError::Failed { error, .. } => *error,
        }
    }
}

/// The reason why no item was taken.
///
/// ```
/// use mobula::util::{GetError, Queue};
///
/// let _mobula = mobula::init()?;
/// let queue = Queue::<u64>::new(0);
/// assert!(matches!(queue.get_nowait(), Err(GetError::Empty)));
/// queue.close()?;
/// assert!(matches!(queue.get(), Err(GetError::Closed)));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum GetError {
    /// The queue has no item, or not as many as asked for, or had none until the timeout.
    Empty,
    /// The queue was [closed](super::Queue::close), and has no item left.
    Closed,
    /// The queue's actor cannot be reached, or the item is not a `T`.
    Failed(Error),
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => UtilFailure::QueueEmpty.fmt(f),
            Self::Closed => UtilFailure::QueueClosed.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Empty => Some(&UtilFailure::QueueEmpty),
            Self::Closed => Some(&UtilFailure::QueueClosed),
            Self::Failed(error) => Some(error),
        }
    }
}

impl From<Error> for GetError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<GetError> for Error {
    fn from(error: GetError) -> Self {
        match error {
            GetError::Empty => Failure::Util(UtilFailure::QueueEmpty).into(),
            GetError::Closed => Failure::Util(UtilFailure::QueueClosed).into(),
            GetError::Failed(error) => error,
        }
    }
}
