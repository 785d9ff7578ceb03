//! The handle to a queue that processes share. An actor (`actor`) has the items, decides by the rules in `items`, and
//! never decodes a value (`item`).

mod actor;
mod error;
mod item;
mod items;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use mobula_runtime::{ActorOptions, Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::actor::QueueActor;
pub use self::error::{GetError, PutError};
use self::item::Item;
use self::items::{GetAnswer, PutAnswer, Wanted};
use super::waiting::{PendingCall, next_number};
use crate::actor::ActorHandle;

/// The longest wait, after the timeout of a put, for the answer whether its items are in the queue.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// A first-in-first-out queue between processes, with any number of producers and consumers. It can have a limit: then
/// producers wait for room.
///
/// A handle can be cloned, given as an argument, or sent inside a value. The queue lives until its last handle is gone.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::util::Queue;
///
/// #[remote]
/// fn produce(numbers: Queue<u64>) -> Result<()> {
///     for number in 0..100 {
///         numbers.put(number)?; // waits while ten are there
///     }
///     numbers.close()
/// }
///
/// let _mobula = init()?;
/// let numbers = Queue::new(10);
/// let producer = produce::remote(numbers.clone());
/// let sum: u64 = numbers.iter().collect::<Result<Vec<_>>>()?.iter().sum();
/// assert_eq!(sum, 4950);
/// producer.get()?;
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # When a process dies
///
/// - An item is in the queue when its put has returned. The death of a producer or a consumer does not remove it.
/// - A producer that dies in a put may or may not have put the item.
/// - An item belongs to a consumer when its get returns. If the consumer dies before that, or its get times out, the
///   item comes back to the front of the queue, and goes to the next consumer. Each item goes to one consumer only.
/// - If a consumer dies later, the items that its gets returned are lost.
/// - The items are in a process of the queue. If that process dies, they are lost, and every call fails with
///   [`Failure::ActorDied`](crate::Failure::ActorDied).
///
/// # Cost
///
/// A put or a get is a call of an actor, for which the caller waits. A get also sends a receipt. There is no system
/// call while all processes are awake. [`put_many`](Self::put_many) and [`get_many`](Self::get_many) share these costs
/// among many items.
///
/// Small values travel through the queue's process. A value of more than 2 KiB, or with references in it, is put into
/// the store by its producer, and its consumer reads it there. The queue only has a reference to it, and copies
/// nothing.
///
/// # Ray
///
/// This is `ray.util.queue.Queue`, with its names: [`put`](Self::put), [`get`](Self::get),
/// [`put_nowait`](Self::put_nowait), [`get_nowait`](Self::get_nowait), [`put_nowait_batch`](Self::put_nowait_batch),
/// [`get_nowait_batch`](Self::get_nowait_batch), [`put_async`](Self::put_async), [`get_async`](Self::get_async),
/// [`size`](Self::size), [`empty`](Self::empty), [`full`](Self::full), [`shutdown`](Self::shutdown).
pub struct Queue<T> {
    actor: ActorHandle<QueueActor>,
    maxsize: usize,
    of: PhantomData<fn(T) -> T>,
}

impl<T> Queue<T> {
    /// Makes a queue with room for `maxsize` items; 0 for any number.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let jobs = mobula::util::Queue::new(100);
    /// jobs.put("paint".to_owned())?;
    /// assert_eq!(jobs.get()?, "paint");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// Costs the start of a process. If that fails, the calls report it.
    #[must_use]
    pub fn new(maxsize: usize) -> Self {
        Self::with_options(maxsize, ActorOptions::new())
    }

    /// Makes a queue whose process has these options: a name, resources, a lifetime.
    ///
    /// ```
    /// use mobula::ActorOptions;
    /// use mobula::util::Queue;
    ///
    /// let _mobula = mobula::init()?;
    /// let jobs = Queue::with_options(100, ActorOptions::new().name("jobs"));
    /// jobs.put(7)?;
    /// assert_eq!(Queue::<i32>::named("jobs")?.get()?, 7);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn with_options(maxsize: usize, options: ActorOptions) -> Self {
        Self { actor: QueueActor::options(options).remote(maxsize), maxsize, of: PhantomData }
    }

    /// Finds the queue with this name, which [`with_options`](Self::with_options) gave it in any process of the
    /// session. Its items must have the type `T`; otherwise a get fails.
    ///
    /// ```
    /// # use mobula::ActorOptions;
    /// # use mobula::util::Queue;
    /// # let _mobula = mobula::init()?;
    /// let jobs = Queue::<String>::with_options(0, ActorOptions::new().name("jobs"));
    /// assert_eq!(Queue::<String>::named("jobs")?, jobs);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get_actor`](crate::get_actor).
    pub fn named(name: &str) -> Result<Self> {
        let actor = crate::get_actor::<QueueActor>(name)?;
        let maxsize = actor.maxsize().get()?;
        Ok(Self { actor, maxsize, of: PhantomData })
    }

    /// The most items of the queue; 0 for any number.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert_eq!(mobula::util::Queue::<u8>::new(8).maxsize(), 8);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn maxsize(&self) -> usize {
        self.maxsize
    }

    /// The number of items in the queue at some moment during this call. Costs a call.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::new(0);
    /// queue.put_many(vec![1, 2, 3])?;
    /// assert_eq!(queue.size()?, 3);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// The queue's actor cannot be reached.
    pub fn size(&self) -> Result<usize> {
        self.actor.size().get()
    }

    /// Whether the queue had no item at some moment during this call. Costs a call.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert!(mobula::util::Queue::<u8>::new(0).empty()?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn empty(&self) -> Result<bool> {
        Ok(self.size()? == 0)
    }

    /// Whether the queue had no room at some moment during this call. Costs a call, if there is a limit.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::new(1);
    /// queue.put(1)?;
    /// assert!(queue.full()?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn full(&self) -> Result<bool> {
        Ok(self.maxsize > 0 && self.size()? >= self.maxsize)
    }

    /// Closes the queue for new items: producers get [`PutError::Closed`], also those that wait for room, and consumers
    /// get [`GetError::Closed`] after the last item. A closed queue stays closed.
    ///
    /// ```
    /// use mobula::util::{PutError, Queue};
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = Queue::new(0);
    /// queue.put_many(vec![1, 2])?;
    /// queue.close()?;
    /// assert!(matches!(queue.put(3), Err(PutError::Closed(3))));
    /// assert_eq!(queue.iter().collect::<mobula::Result<Vec<_>>>()?, [1, 2]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn close(&self) -> Result<()> {
        self.actor.close().get()
    }

    /// Ends the queue's process; the items in the queue are lost. Waiting calls and later calls fail. With `force` the
    /// process ends at once; otherwise after the calls that this process has made, and at the latest after the grace
    /// period.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::<u64>::new(0);
    /// queue.shutdown(false, Duration::from_secs(5))?;
    /// assert!(queue.put(1).is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`terminate`](crate::terminate), except for the timeout.
    pub fn shutdown(&self, force: bool, grace_period: Duration) -> Result<()> {
        if !force {
            match crate::terminate(&self.actor, grace_period) {
                Err(Error::Timeout { .. }) => {}
                ended => return ended,
            }
        }
        crate::kill(&self.actor)
    }
}

impl<T: Serialize> Queue<T> {
    /// Adds an item, and waits for room.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::new(2);
    /// queue.put("item".to_owned())?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PutError::Closed`], [`PutError::Failed`].
    pub fn put(&self, item: T) -> Result<(), PutError<T>> {
        self.put_one(item, true, None)
    }

    /// Puts an item like [`put`](Self::put), with a timeout.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::util::{PutError, Queue};
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = Queue::new(1);
    /// queue.put(1)?;
    /// let second = queue.put_timeout(2, Duration::from_millis(10));
    /// assert!(matches!(second, Err(PutError::Full(2))));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// After the timeout it asks the queue whether the item was put at the last moment, which takes a call.
    ///
    /// # Errors
    /// [`PutError::Full`], and those of `put`.
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_one(item, true, Some(timeout))
    }

    /// Adds an item if there is room.
    ///
    /// ```
    /// use mobula::util::{PutError, Queue};
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = Queue::new(1);
    /// queue.put_nowait(1)?;
    /// assert!(matches!(queue.put_nowait(2), Err(PutError::Full(2))));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PutError::Full`], and those of [`put`](Self::put).
    pub fn put_nowait(&self, item: T) -> Result<(), PutError<T>> {
        self.put_one(item, false, None)
    }

    /// Puts an item like [`put`](Self::put), for `async` code. If the future is dropped before it is ready, the item
    /// may or may not be in the queue.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::new(2);
    /// pollster::block_on(queue.put_async(1))?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `put`.
    pub async fn put_async(&self, item: T) -> Result<(), PutError<T>> {
        let answer = match Item::new(&item) {
            Ok(encoded) => self.begin_put(vec![encoded], true).wait_async().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => put_one_answer(answer.unwrap_or(PutAnswer::Full(0)), item),
            Err(error) => Err(PutError::Failed { item, error: Box::new(error) }),
        }
    }

    /// Adds all items in their order, each when there is room, and waits until all are in the queue. Items of other
    /// producers do not come between them. One call for any number of items.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::new(0);
    /// queue.put_many((0..1000).collect())?;
    /// assert_eq!(queue.size()?, 1000);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put). The error has the items that are not in the queue.
    pub fn put_many(&self, items: Vec<T>) -> Result<(), PutError<Vec<T>>> {
        self.put_list(items, true, None)
    }

    /// Puts items like [`put_many`](Self::put_many), with a timeout.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::util::{PutError, Queue};
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = Queue::new(2);
    /// let Err(PutError::Full(rest)) = queue.put_many_timeout(vec![1, 2, 3], Duration::from_millis(10)) else {
    ///     panic!("there is room for two")
    /// };
    /// assert_eq!(rest, [3]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PutError::Full`] with the items that are not in the queue, and those of `put_many`.
    pub fn put_many_timeout(&self, items: Vec<T>, timeout: Duration) -> Result<(), PutError<Vec<T>>> {
        self.put_list(items, true, Some(timeout))
    }

    /// Adds all items if there is room for all of them, and none otherwise.
    ///
    /// ```
    /// use mobula::util::{PutError, Queue};
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = Queue::new(2);
    /// assert!(matches!(queue.put_nowait_batch(vec![1, 2, 3]), Err(PutError::Full(_))));
    /// queue.put_nowait_batch(vec![1, 2])?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PutError::Full`], and those of [`put`](Self::put).
    pub fn put_nowait_batch(&self, items: Vec<T>) -> Result<(), PutError<Vec<T>>> {
        self.put_list(items, false, None)
    }

    fn put_one(&self, item: T, waits: bool, timeout: Option<Duration>) -> Result<(), PutError<T>> {
        match Item::new(&item).and_then(|encoded| self.put_items(vec![encoded], waits, timeout)) {
            Ok(answer) => put_one_answer(answer, item),
            Err(error) => Err(PutError::Failed { item, error: Box::new(error) }),
        }
    }

    fn put_list(
        &self,
        mut items: Vec<T>,
        waits: bool,
        timeout: Option<Duration>,
    ) -> Result<(), PutError<Vec<T>>> {
        let encoded: Result<Vec<Item>> = items.iter().map(Item::new).collect();
        match encoded.and_then(|encoded| self.put_items(encoded, waits, timeout)) {
            Ok(PutAnswer::Done) => Ok(()),
            Ok(PutAnswer::Full(accepted)) => Err(PutError::Full(items.split_off(accepted.min(items.len())))),
            Ok(PutAnswer::Closed(accepted)) => {
                Err(PutError::Closed(items.split_off(accepted.min(items.len()))))
            }
            Err(error) => Err(PutError::Failed { item: items, error: Box::new(error) }),
        }
    }
}

fn put_one_answer<T>(answer: PutAnswer, item: T) -> Result<(), PutError<T>> {
    match answer {
        PutAnswer::Done | PutAnswer::Full(1..) | PutAnswer::Closed(1..) => Ok(()),
        PutAnswer::Full(0) => Err(PutError::Full(item)),
        PutAnswer::Closed(0) => Err(PutError::Closed(item)),
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Takes the first item, and waits for one.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::new(0);
    /// queue.put((1, "one".to_owned()))?;
    /// assert_eq!(queue.get()?, (1, "one".to_owned()));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`GetError::Closed`], [`GetError::Failed`].
    pub fn get(&self) -> Result<T, GetError> {
        self.first(true, None)
    }

    /// Takes an item like [`get`](Self::get), with a timeout.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::util::{GetError, Queue};
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = Queue::<u64>::new(0);
    /// assert!(matches!(queue.get_timeout(Duration::from_millis(10)), Err(GetError::Empty)));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`GetError::Empty`], and those of `get`.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.first(true, Some(timeout))
    }

    /// Takes the first item, if there is one.
    ///
    /// ```
    /// use mobula::util::{GetError, Queue};
    ///
    /// let _mobula = mobula::init()?;
    /// assert!(matches!(Queue::<u64>::new(0).get_nowait(), Err(GetError::Empty)));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`GetError::Empty`], and those of [`get`](Self::get).
    pub fn get_nowait(&self) -> Result<T, GetError> {
        self.first(false, None)
    }

    /// Takes an item like [`get`](Self::get), for `async` code. If the future is dropped before it is ready, the item
    /// stays in the queue. So it can be used in a `select!` or with a timeout.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::new(0);
    /// queue.put(1)?;
    /// assert_eq!(pollster::block_on(queue.get_async())?, 1);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `get`.
    pub async fn get_async(&self) -> Result<T, GetError> {
        let number = next_number();
        let mut get = self.begin_get(number, Wanted { least: 1, most: 1, waits: true });
        let answer = get.wait_async().await?;
        one(self.received(number, answer)?)
    }

    /// Takes up to `most` items, and waits for the first of them. One call for any number of items.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::new(0);
    /// queue.put_many((0..10).collect())?;
    /// assert_eq!(queue.get_many(4)?, [0, 1, 2, 3]);
    /// assert_eq!(queue.get_many(100)?, [4, 5, 6, 7, 8, 9]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_many(&self, most: usize) -> Result<Vec<T>, GetError> {
        self.list(Wanted { least: 1.min(most), most, waits: true }, None)
    }

    /// Takes items like [`get_many`](Self::get_many), with a timeout for the first one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::util::{GetError, Queue};
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = Queue::<u64>::new(0);
    /// assert!(matches!(queue.get_many_timeout(8, Duration::from_millis(10)), Err(GetError::Empty)));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`GetError::Empty`], and those of `get`.
    pub fn get_many_timeout(&self, most: usize, timeout: Duration) -> Result<Vec<T>, GetError> {
        self.list(Wanted { least: 1.min(most), most, waits: true }, Some(timeout))
    }

    /// Takes `count` items if there are as many, and none otherwise.
    ///
    /// ```
    /// use mobula::util::{GetError, Queue};
    ///
    /// let _mobula = mobula::init()?;
    /// let queue = Queue::new(0);
    /// queue.put_many(vec![1, 2])?;
    /// assert!(matches!(queue.get_nowait_batch(3), Err(GetError::Empty)));
    /// assert_eq!(queue.get_nowait_batch(2)?, [1, 2]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`GetError::Empty`], and those of [`get`](Self::get).
    pub fn get_nowait_batch(&self, count: usize) -> Result<Vec<T>, GetError> {
        self.list(Wanted { least: count, most: count, waits: false }, None)
    }

    /// Takes items, one after the other, and waits for each, until the queue is [closed](Self::close) and empty.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queue = mobula::util::Queue::new(0);
    /// queue.put_many(vec![1, 2, 3])?;
    /// queue.close()?;
    /// let mut sum = 0;
    /// for item in queue.iter() {
    ///     sum += item?;
    /// }
    /// assert_eq!(sum, 6);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Result<T>> + use<'_, T> {
        std::iter::from_fn(|| match self.get() {
            Ok(item) => Some(Ok(item)),
            Err(GetError::Closed) => None,
            Err(error) => Some(Err(error.into())),
        })
    }

    fn first(&self, waits: bool, timeout: Option<Duration>) -> Result<T, GetError> {
        one(self.get_items(Wanted { least: 1, most: 1, waits }, timeout)?)
    }

    fn list(&self, wanted: Wanted, timeout: Option<Duration>) -> Result<Vec<T>, GetError> {
        let items = self.get_items(wanted, timeout)?;
        Ok(items.into_iter().map(Item::value).collect::<Result<_>>()?)
    }
}

/// Calls of the actor.
impl<T> Queue<T> {
    fn begin_put(&self, items: Vec<Item>, waits: bool) -> PendingCall<PutAnswer, impl FnOnce() + use<'_, T>> {
        let number = next_number();
        PendingCall::new(self.actor.put(number, items, waits), move || _ = self.actor.give_up(number))
    }

    fn put_items(&self, items: Vec<Item>, waits: bool, timeout: Option<Duration>) -> Result<PutAnswer> {
        let mut put = self.begin_put(items, waits);
        if let Some(answer) = put.wait(timeout)? {
            return Ok(answer);
        }
        put.give_up();
        let no_answer = Error::Timeout { waited: ANSWER_PATIENCE, ready: 0, wanted: 1 };
        put.wait(Some(ANSWER_PATIENCE))?.ok_or(no_answer)
    }

    fn begin_get(
        &self,
        number: u64,
        wanted: Wanted,
    ) -> PendingCall<GetAnswer<Item>, impl FnOnce() + use<'_, T>> {
        PendingCall::new(self.actor.get(number, wanted), move || _ = self.actor.give_up(number))
    }

    fn get_items(&self, wanted: Wanted, timeout: Option<Duration>) -> Result<Vec<Item>, GetError> {
        let number = next_number();
        let answer = self.begin_get(number, wanted).wait(timeout)?;
        self.received(number, answer)
    }

    /// Sends the receipt for items before the caller gets them.
    fn received(&self, number: u64, answer: Option<GetAnswer<Item>>) -> Result<Vec<Item>, GetError> {
        match answer {
            Some(GetAnswer::Items(items)) => {
                self.actor.received(number);
                Ok(items)
            }
            Some(GetAnswer::Empty) | None => Err(GetError::Empty),
            Some(GetAnswer::Closed) => Err(GetError::Closed),
        }
    }
}

fn one<T: DeserializeOwned>(items: Vec<Item>) -> Result<T, GetError> {
    let item = items.into_iter().next().ok_or(GetError::Empty)?;
    Ok(item.value()?)
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), maxsize: self.maxsize, of: PhantomData }
    }
}

/// A handle is equal to all other handles to the same queue, in every process.
impl<T> PartialEq for Queue<T> {
    fn eq(&self, other: &Self) -> bool {
        self.actor == other.actor
    }
}

impl<T> Eq for Queue<T> {}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("actor", &self.actor).field("maxsize", &self.maxsize).finish()
    }
}

impl<T> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.actor, self.maxsize).serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (actor, maxsize) = Deserialize::deserialize(deserializer)?;
        Ok(Self { actor, maxsize, of: PhantomData })
    }
}
