//! Waiting for references without a thread: in `async` code, under any executor.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mobula_runtime::{Result, Waiting};
use serde::de::DeserializeOwned;

use crate::object_ref::{IntoRef, ObjectRef, Refs, read, runtime};

/// The value of one reference, to be awaited; see [`ObjectRef::get_async`].
///
/// ```
/// use mobula::GetFuture;
///
/// #[mobula::remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = mobula::init()?;
/// let nine: GetFuture<i64> = square::remote(3).get_async();
/// assert_eq!(pollster::block_on(nine)?, 9);
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "a future does nothing before it is awaited"]
pub struct GetFuture<T> {
    waiting: Waiting,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Future for GetFuture<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        ready!(self.waiting.poll(context))?;
        Poll::Ready(read(&self.waiting.refs()[0], runtime()?.client()))
    }
}

/// The values of several references, to be awaited; see [`get_async`].
///
/// ```
/// let _mobula = mobula::init()?;
/// let future: mobula::GetAllFuture<i64> = mobula::get_async([mobula::put(&1)?, mobula::put(&2)?]);
/// assert_eq!(pollster::block_on(future)?, [1, 2]);
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "a future does nothing before it is awaited"]
pub struct GetAllFuture<T> {
    waiting: Waiting,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Future for GetAllFuture<T> {
    type Output = Result<Vec<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Vec<T>>> {
        ready!(self.waiting.poll(context))?;
        let runtime = runtime()?;
        Poll::Ready(self.waiting.refs().iter().map(|to| read(to, runtime.client())).collect())
    }
}

/// Some of several references, to be awaited; see [`wait_async`].
///
/// ```
/// let _mobula = mobula::init()?;
/// let future: mobula::WaitFuture<i64> = mobula::wait_async([mobula::put(&1)?], 1);
/// let (ready, rest) = pollster::block_on(future)?;
/// assert_eq!((ready.len(), rest.len()), (1, 0));
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "a future does nothing before it is awaited"]
pub struct WaitFuture<T> {
    /// `None` once the references have been given back.
    refs: Option<Refs<T>>,
    num_ready: usize,
    /// The wait, or the reason why there is none.
    waiting: Result<Waiting, Option<mobula_runtime::Error>>,
}

impl<T> Future for WaitFuture<T> {
    type Output = Result<(Refs<T>, Refs<T>)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.waiting {
            Ok(waiting) => ready!(waiting.poll(context))?,
            Err(error) => {
                return Poll::Ready(Err(error.take().expect("a future is polled until it is ready")));
            }
        }
        let refs = self.refs.take().expect("a future is polled until it is ready");
        let mut left = self.num_ready;
        let is_one = |reference: &ObjectRef<T>| {
            let is_one = left > 0 && reference.is_ready();
            left -= usize::from(is_one);
            is_one
        };
        Poll::Ready(Ok(refs.into_iter().partition(is_one)))
    }
}

/// Waits for all objects and returns their values, in order: [`get`](crate::get()) for `async` code. The first failure
/// is reported without waiting for the rest.
///
/// ```
/// #[mobula::remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = mobula::init()?;
/// let squares = pollster::block_on(async {
///     let squares: Vec<_> = (0..4).map(|x| square::remote(x)).collect();
///     mobula::get_async(&squares).await
/// })?;
/// assert_eq!(squares, [0, 1, 4, 9]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Cost
/// No thread waits: a background thread of the process handles the mail while none of the program's threads does, and
/// wakes the task. Before that, if no other Mobula future waits, the first poll spins for some microseconds (at most
/// [`Builder::spin`](crate::Builder::spin)), as a `get` does before it sleeps. So a result that comes soon costs no
/// switch between threads. Each poll checks each reference. The future may be dropped at any time; the calls continue.
/// For a time limit, use that of the executor, such as `tokio::time::timeout`.
///
/// # Errors
/// Those of [`ObjectRef::get`], and [`Error::NotInitialized`](crate::Error::NotInitialized).
pub fn get_async<T>(refs: impl IntoIterator<Item = impl IntoRef<T>>) -> GetAllFuture<T> {
    let refs = refs.into_iter().map(|reference| reference.into_ref().to);
    GetAllFuture { waiting: Waiting::for_all(refs), of: PhantomData }
}

/// Waits until `num_ready` of the references are ready: [`wait`](crate::wait) for `async` code. Returns those that are
/// ready, at most `num_ready` of them, and all others, both in the order in which they came.
///
/// ```
/// #[mobula::remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = mobula::init()?;
/// let pending: Vec<_> = (0..4).map(|x| square::remote(x)).collect();
/// let (ready, rest) = pollster::block_on(mobula::wait_async(pending, 3))?;
/// assert_eq!((ready.len(), rest.len()), (3, 1));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// The cost is that of [`get_async`], and no value is read.
///
/// # Errors
/// As [`wait`](crate::wait).
pub fn wait_async<T>(refs: impl IntoIterator<Item = impl IntoRef<T>>, num_ready: usize) -> WaitFuture<T> {
    let refs: Refs<T> = IntoRef::into_refs(refs);
    let waiting = Waiting::for_some(refs.iter().map(|reference| reference.to.clone()), num_ready);
    WaitFuture { refs: Some(refs), num_ready, waiting: waiting.map_err(Some) }
}

impl<T: DeserializeOwned> ObjectRef<T> {
    /// Waits for the object and returns its value: [`get`](Self::get) for `async` code. `reference.await` does the
    /// same.
    ///
    /// ```
    /// #[mobula::remote]
    /// fn square(x: i64) -> i64 {
    ///     x * x
    /// }
    ///
    /// # fn run(future: impl Future<Output = mobula::Result<()>>) -> mobula::Result<()> { pollster::block_on(future) }
    /// let _mobula = mobula::init()?;
    /// run(async {
    ///     assert_eq!(square::remote(3).get_async().await?, 9);
    ///     assert_eq!(square::remote(4).await?, 16);
    ///     Ok(())
    /// })?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// The cost is that of [`get_async`](crate::get_async).
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    pub fn get_async(&self) -> GetFuture<T> {
        GetFuture { waiting: Waiting::for_all([self.to.clone()]), of: PhantomData }
    }
}

impl<T: DeserializeOwned> IntoFuture for ObjectRef<T> {
    type Output = Result<T>;
    type IntoFuture = GetFuture<T>;

    fn into_future(self) -> GetFuture<T> {
        self.get_async()
    }
}

impl<T: DeserializeOwned> IntoFuture for &ObjectRef<T> {
    type Output = Result<T>;
    type IntoFuture = GetFuture<T>;

    fn into_future(self) -> GetFuture<T> {
        self.get_async()
    }
}

impl<T> fmt::Debug for GetFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetFuture").field("refs", &self.waiting.refs()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for GetAllFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetAllFuture").field("refs", &self.waiting.refs()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for WaitFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFuture").field("refs", &self.refs).field("num_ready", &self.num_ready).finish()
    }
}
