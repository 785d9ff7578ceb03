//! Cancelling calls: the caller cancels a call, and the running call asks whether it was cancelled.

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Deref;

use mobula_runtime::{CancelOptions, Ref, Result};

use crate::object_ref::{IntoRef, ObjectRef, runtime};

/// Cancels the calls whose results these are; see [`ObjectRef::cancel`].
///
/// ```
/// #[mobula::remote]
/// fn sleeps(seconds: u64) {
///     std::thread::sleep(std::time::Duration::from_secs(seconds));
/// }
///
/// let _mobula = mobula::Builder::new().workers(1).init()?;
/// let calls: Vec<_> = (0..1000).map(|_| sleeps::remote(3600)).collect();
/// mobula::cancel(&calls[1..])?; // 999 calls that wait: they are gone
/// mobula::cancel_with(&calls[..1], mobula::CancelOptions::new().force(true))?; // and the one that may run
/// sleeps::remote(0).get()?;
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// As [`ObjectRef::cancel`].
pub fn cancel<T>(refs: impl IntoIterator<Item = impl IntoRef<T>>) -> Result<()> {
    cancel_with(refs, CancelOptions::new())
}

/// Cancels like [`cancel`], with options: by force, or not recursively.
///
/// ```
/// use mobula::{CancelOptions, Failure};
///
/// #[mobula::remote]
/// fn spins() {
///     loop {}
/// }
///
/// let _mobula = mobula::init()?;
/// let call = spins::remote();
/// mobula::cancel_with([&call], CancelOptions::new().force(true))?;
/// let error = call.get().unwrap_err();
/// assert!(matches!(error, mobula::Error::Failed(Failure::TaskCancelled { .. })));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// As [`ObjectRef::cancel`], and [`Error::Config`](crate::Error::Config) where a call of an actor would be cancelled by
/// force: that would end the actor.
pub fn cancel_with<T>(refs: impl IntoIterator<Item = impl IntoRef<T>>, options: CancelOptions) -> Result<()> {
    let refs: Vec<Ref> = refs.into_iter().map(|reference| reference.into_ref().to).collect();
    mobula_runtime::cancel(&*runtime()?, &refs, options)
}

/// Whether the call that runs in this process was cancelled: a long call asks at intervals, and returns early. Always
/// false in a driver.
///
/// ```
/// /// Goes through its work piece by piece, as long as somebody wants the result.
/// #[mobula::remote]
/// fn work(pieces: u64) -> u64 {
///     (0..pieces).take_while(|_| !mobula::is_cancelled()).sum()
/// }
///
/// let _mobula = mobula::init()?;
/// assert_eq!(work::remote(10).get()?, 45);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// In an actor with several calls at a time, it is the call that this thread, or this future, runs.
///
/// Costs a look at the mail of the process, some 100 ns; no system call.
#[must_use]
pub fn is_cancelled() -> bool {
    mobula_runtime::is_cancelled()
}

/// Waits as a future until the call that runs in this process is cancelled: one side of a `select!`. In a driver it
/// waits for ever. The process notices a cancellation within 160 ms while no thread of it waits or asks.
///
/// ```
/// # async fn request() -> u32 { 7 }
/// /// Gives the request up when nobody wants the answer any more.
/// #[mobula::remote]
/// fn fetch() -> Option<u32> {
///     let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
///     runtime.block_on(async {
///         tokio::select! {
///             answer = request() => Some(answer),
///             () = mobula::cancelled() => None,
///         }
///     })
/// }
///
/// let _mobula = mobula::init()?;
/// assert_eq!(fetch::remote().get()?, Some(7));
/// # Ok::<(), mobula::Error>(())
/// ```
pub fn cancelled() -> impl Future<Output = ()> {
    poll_fn(mobula_runtime::poll_cancelled)
}

impl<T> ObjectRef<T> {
    /// Cancels the call whose result this is. Its result is there at once, for each thread that waits for it and each
    /// call that has it as an argument: [`Failure::TaskCancelled`](crate::Failure::TaskCancelled). It is never retried.
    ///
    /// ```
    /// use mobula::{Error, Failure};
    ///
    /// #[mobula::remote]
    /// fn sleeps() {
    ///     std::thread::sleep(std::time::Duration::from_secs(3600));
    /// }
    ///
    /// #[mobula::remote]
    /// fn after(_: ()) {}
    ///
    /// let _mobula = mobula::Builder::new().workers(1).init()?;
    /// let (running, waiting) = (sleeps::remote(), sleeps::remote());
    /// let dependent = after::remote(&waiting);
    /// waiting.cancel()?;
    /// for reference in [waiting, dependent] {
    ///     assert!(matches!(reference.get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    /// }
    /// # drop(running);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// - A call that has not begun is removed, and never runs.
    /// - A call that runs continues, but learns of the cancellation by [`is_cancelled`], [`cancelled`], and each `get`
    ///   or `wait` in it, which returns [`Failure::Cancelled`](crate::Failure::Cancelled). The calls that it made are
    ///   cancelled too. With [`force`](CancelOptions::force) its process is ended, and replaced.
    /// - A call that is over stays as it is.
    ///
    /// A call whose caller has died is cancelled in the same way. Dropping a reference cancels nothing; see
    /// [`cancel_on_drop`](Self::cancel_on_drop).
    ///
    /// # Cost
    /// A look at each call of this process that is not over, and a record to the process that has the call. To cancel
    /// many, give them together to [`cancel`]. A call that another process has made is cancelled by that process, soon:
    /// this one sends it a record.
    ///
    /// # Errors
    /// [`Failure::SessionOver`](crate::Failure::SessionOver); [`Failure::Unreachable`](crate::Failure::Unreachable)
    /// when there is no room for a channel to the other process.
    pub fn cancel(&self) -> Result<()> {
        cancel([self])
    }

    /// Cancels the call when the returned guard is dropped, if it is not over then: for servers whose clients leave.
    ///
    /// ```
    /// #[mobula::remote]
    /// fn answer(question: u32) -> u32 {
    ///     question + 1
    /// }
    ///
    /// /// A handler: an executor drops its future when the client leaves.
    /// async fn handle(question: u32) -> mobula::Result<u32> {
    ///     let call = answer::remote(question).cancel_on_drop();
    ///     call.get_async().await
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// assert_eq!(pollster::block_on(handle(41))?, 42);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop(self)
    }
}

/// A reference that cancels its call when it is dropped; see [`ObjectRef::cancel_on_drop`].
///
/// ```
/// #[mobula::remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = mobula::init()?;
/// let nine: mobula::CancelOnDrop<i64> = square::remote(3).cancel_on_drop();
/// assert_eq!(nine.get()?, 9);
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "the call is cancelled when this is dropped"]
pub struct CancelOnDrop<T>(ObjectRef<T>);

impl<T> Deref for CancelOnDrop<T> {
    type Target = ObjectRef<T>;

    fn deref(&self) -> &ObjectRef<T> {
        &self.0
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if !self.0.is_ready() {
            // If the session is over, there is nothing to cancel.
            let _ = self.0.cancel();
        }
    }
}

impl<T> fmt::Debug for CancelOnDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelOnDrop").field(&self.0).finish()
    }
}
