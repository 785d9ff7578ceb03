//! References to the items of a stream, which come while its function runs.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use mobula_runtime::{CancelOptions, ItemStream, Result};

use crate::object_ref::{ObjectRef, runtime};

/// The results of a function with `#[remote(streaming)]`: references, each of which can be used at once, while the
/// function still runs.
///
/// ```
/// use mobula::ObjectRefStream;
///
/// #[mobula::remote(streaming)]
/// fn squares(count: u64) -> impl Iterator<Item = u64> {
///     (0..count).map(|x| x * x)
/// }
///
/// #[mobula::remote]
/// fn double(x: u64) -> u64 {
///     2 * x
/// }
///
/// let _mobula = mobula::init()?;
/// let stream: ObjectRefStream<u64> = squares::remote(4);
/// // Each item is passed on as soon as it is there.
/// let doubled: Vec<_> = stream.map(double::remote).collect();
/// assert_eq!(mobula::get(&doubled)?, [0, 2, 8, 18]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// It is an [`Iterator`], whose `next` waits for the next item. In `async` code, [`next_async`](Self::next_async) does
/// so without a thread, and the type is a `futures::Stream`. Where the traits of both are in scope, name the one that
/// is meant: `StreamExt::map(stream, …)`.
///
/// # Back-pressure
///
/// The function is never more than `max_in_flight` items (default: 128) ahead of the items that were taken from the
/// stream: then it waits. So the memory of a stream is bounded, even if the stream is long. The CPUs of a function that
/// waits are free for other calls.
///
/// ```
/// #[mobula::remote(streaming, max_in_flight = 8)]
/// fn numbers() -> impl Iterator<Item = u64> {
///     0..
/// }
///
/// let _mobula = mobula::init()?;
/// let first: mobula::Result<Vec<u64>> = numbers::remote().take(3).map(|number| number.get()).collect();
/// assert_eq!(first?, [0, 1, 2]); // the rest is never made
///
/// let one_at_a_time = numbers::max_in_flight(1).remote();
/// # drop(one_at_a_time);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
///
/// The stream ends with the first error: an item that is an `Err`, a panic, the end of the worker, a cancellation.
/// That is the last item, a reference whose `get` returns the error.
///
/// ```
/// #[mobula::remote(streaming)]
/// fn parsed(texts: Vec<String>) -> impl Iterator<Item = Result<i64, std::num::ParseIntError>> {
///     texts.into_iter().map(|text| text.parse())
/// }
///
/// let _mobula = mobula::init()?;
/// let texts = ["1", "two", "3"].map(str::to_owned).to_vec();
/// let mut numbers = parsed::remote(texts);
/// assert_eq!(numbers.next().expect("the first").get()?, 1);
/// assert!(numbers.next().expect("the second").get().is_err());
/// assert!(numbers.next().is_none());
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// With `max_retries`, a function whose worker has died runs again from its beginning, and the stream continues after
/// the items that have already come. So the function must make the same items each time.
///
/// # Methods
///
/// A method of an actor with `#[remote(streaming)]` returns a stream, too. Later calls of the actor run when the stream
/// has ended; in an actor with several calls at a time, they run beside it.
///
/// ```
/// struct Lines(Vec<String>);
///
/// #[mobula::remote]
/// impl Lines {
///     fn new(text: String) -> Self {
///         Lines(text.lines().map(str::to_owned).collect())
///     }
///     #[remote(streaming, max_in_flight = 16)]
///     fn all(&self) -> impl Iterator<Item = String> {
///         self.0.iter().cloned()
///     }
/// }
///
/// let _mobula = mobula::init()?;
/// let lines = Lines::remote("one\ntwo".to_owned());
/// assert_eq!(lines.all().last().expect("two lines").get()?, "two");
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Dropping
///
/// Dropping the stream cancels the call: the function's iterator is not asked for another item, and
/// [`is_cancelled`](crate::is_cancelled) is true in it. References that were taken stay as they are.
///
/// A stream stays in its process. Its items, like all references, can go to others.
#[must_use = "the call is cancelled when its stream is dropped"]
pub struct ObjectRefStream<T> {
    items: ItemStream,
    of: PhantomData<fn() -> T>,
}

impl<T> ObjectRefStream<T> {
    pub(crate) fn new(items: ItemStream) -> Self {
        Self { items, of: PhantomData }
    }

    /// Waits for the next item without a thread; `None` behind the last one. The future may be dropped at any time, and
    /// no item is lost.
    ///
    /// ```
    /// #[mobula::remote(streaming)]
    /// fn letters(text: String) -> Vec<char> {
    ///     text.chars().collect()
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let text = pollster::block_on(async {
    ///     let mut letters = letters::remote("ab".to_owned());
    ///     let mut text = String::new();
    ///     while let Some(letter) = letters.next_async().await {
    ///         text.push(letter.await?);
    ///     }
    ///     Ok::<_, mobula::Error>(text)
    /// })?;
    /// assert_eq!(text, "ab");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn next_async(&mut self) -> impl Future<Output = Option<ObjectRef<T>>> {
        std::future::poll_fn(|context| self.poll(context))
    }

    /// A reference that is ready when the function has returned its last item: to its error, if it has failed.
    ///
    /// ```
    /// #[mobula::remote(streaming)]
    /// fn none() -> Vec<u8> {
    ///     Vec::new()
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let stream = none::remote();
    /// stream.completed().get()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn completed(&self) -> ObjectRef<()> {
        ObjectRef::new(self.items.end().clone())
    }

    /// Cancels the call, as [`ObjectRef::cancel`] does. The items that are there can be taken; behind them comes the
    /// error.
    ///
    /// ```
    /// #[mobula::remote(streaming)]
    /// fn numbers() -> impl Iterator<Item = u64> {
    ///     0..
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let stream = numbers::remote();
    /// stream.cancel()?;
    /// assert!(stream.last().expect("the error").get().is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ObjectRef::cancel`].
    pub fn cancel(&self) -> Result<()> {
        self.cancel_with(CancelOptions::new())
    }

    /// Cancels the stream like [`cancel`](Self::cancel), with options.
    ///
    /// ```
    /// # #[mobula::remote(streaming)]
    /// # fn numbers() -> impl Iterator<Item = u64> {
    /// #     0..
    /// # }
    /// # let _mobula = mobula::init()?;
    /// let stream = numbers::remote();
    /// stream.cancel_with(mobula::CancelOptions::new().force(true))?; // ends its process
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`cancel_with`](crate::cancel_with).
    pub fn cancel_with(&self, options: CancelOptions) -> Result<()> {
        mobula_runtime::cancel(&*runtime()?, std::slice::from_ref(self.items.end()), options)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<ObjectRef<T>>> {
        self.items.poll(context).map(|item| item.map(ObjectRef::new))
    }
}

impl<T> Iterator for ObjectRefStream<T> {
    type Item = ObjectRef<T>;

    #[track_caller]
    fn next(&mut self) -> Option<ObjectRef<T>> {
        self.items.wait().map(ObjectRef::new)
    }
}

impl<T> FusedIterator for ObjectRefStream<T> {}

impl<T> futures_core::Stream for ObjectRefStream<T> {
    type Item = ObjectRef<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ObjectRef<T>>> {
        self.poll(context)
    }
}

impl<T> fmt::Debug for ObjectRefStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectRefStream").field("end", self.items.end()).finish()
    }
}
