//! References to objects, and the operations on them: `put`, `get`, `wait`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use mobula_client::Client;
use mobula_runtime::{
    Error, Inline, InlineBytes, Ref, RefId, Resolved, Result, RuntimeRef, SessionNumber, wait_all,
};
use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::{self, Reference, References, Source};

/// A reference to an object: a value that was [`put`], or the result of a remote call, which need not be there yet.
///
/// It can be cloned, given as an argument (the call gets the value), or sent inside a value (the receiver gets the
/// reference). The object lives while any process has a reference to it. A clone is an addition to a count; it does not
/// copy the value.
///
/// ```
/// use mobula::prelude::*;
///
/// #[remote]
/// fn total(numbers: Vec<i64>) -> i64 {
///     numbers.iter().sum()
/// }
///
/// #[remote]
/// fn larger(a: i64, b: i64) -> i64 {
///     a.max(b)
/// }
///
/// let _mobula = init()?;
/// let numbers: ObjectRef<Vec<i64>> = put(&vec![1, 2, 3])?;
/// let six: ObjectRef<i64> = total::remote(&numbers); // returns at once
/// let result = larger::remote(six, 5); // runs when `six` is there
/// assert_eq!(result.get()?, 6);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// A reference is equal to its clones, in all processes, and to no other. The values do not matter: two calls of one
/// function give two references, and so do two puts of one value. So it can be the key of a map.
///
/// # Dropping
///
/// Dropping the references to a call's result does not cancel the call: the call runs, or waits until a worker is free,
/// and its result is dropped. The drop waits for nothing. It is allowed after the session has ended.
///
/// So this type is not `#[must_use]`: a call may be made for its effect alone, as in Ray. But no process learns whether
/// such a call has failed. If that matters, keep the reference and [`get`](Self::get) it.
///
/// ```
/// use mobula::prelude::*;
///
/// struct Log(Vec<String>);
///
/// #[remote]
/// impl Log {
///     fn new() -> Self {
///         Log(Vec::new())
///     }
///     fn append(&mut self, line: String) {
///         self.0.push(line);
///     }
///     fn lines(&self) -> Vec<String> {
///         self.0.clone()
///     }
/// }
///
/// let _mobula = init()?;
/// let log = Log::remote();
/// log.append("started".to_owned()); // runs, although its reference is dropped
/// assert_eq!(log.lines().get()?, ["started"]);
/// # Ok::<(), mobula::Error>(())
/// ```
pub struct ObjectRef<T> {
    pub(crate) to: Ref,
    of: PhantomData<fn() -> T>,
}

impl<T> ObjectRef<T> {
    pub(crate) fn new(to: Ref) -> Self {
        Self { to, of: PhantomData }
    }

    /// The reference to the one result of a call.
    #[inline]
    pub(crate) fn first_of(mut refs: impl Iterator<Item = Ref>) -> Self {
        Self::new(refs.next().expect("each call has at least as many references as it was made for"))
    }

    /// The id that the reference shares with its clones in all processes, and with no other reference. It never
    /// changes. Costs a copy of 16 bytes.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let (one, other) = (mobula::put(&7)?, mobula::put(&7)?);
    /// assert_eq!(one.id(), one.clone().id());
    /// assert_ne!(one.id(), other.id());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> RefId {
        self.to.id()
    }

    /// Whether [`get`](Self::get) would return (a value or an error) without waiting. Costs one or two loads. It does
    /// not look for new results, so a loop that only asks this may never end: see [`wait`].
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert!(mobula::put(&7)?.is_ready());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.to.is_ready()
    }
}

impl<T: DeserializeOwned> ObjectRef<T> {
    /// Waits for the object and returns its value.
    ///
    /// ```
    /// use mobula::{Error, TaskErrorKind};
    ///
    /// #[mobula::remote]
    /// fn parse(text: String) -> Result<i64, std::num::ParseIntError> {
    ///     text.parse()
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// assert_eq!(parse::remote("12".to_owned()).get()?, 12);
    /// match parse::remote("twelve".to_owned()).get() {
    ///     Err(Error::Task(error)) => {
    ///         assert_eq!(error.kind, TaskErrorKind::Returned);
    ///         assert_eq!(error.message, "invalid digit found in string");
    ///     }
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Cost
    /// The value is decoded from a copy of its small parts. The carriers [`Bytes`](crate::value::Bytes),
    /// [`Tensor`](crate::value::Tensor) and `Arrow` in it borrow from the store's memory, however large they are; a
    /// `Vec` or a `String` is copied out. No system call, unless this thread has to sleep until the object is there,
    /// and no message to the daemon after the first object of an owner. Each `get` decodes again.
    ///
    /// # Errors
    /// - [`Error::Task`](crate::Error::Task): the function or method returned an error or panicked.
    /// - [`Error::Failed`](crate::Error::Failed): there is no result. The [`Failure`](crate::Failure) says why, such as
    ///   [`WorkerDied`](crate::Failure::WorkerDied), [`ObjectLost`](crate::Failure::ObjectLost), or
    ///   [`SessionOver`](crate::Failure::SessionOver) when the reference's session has ended.
    /// - [`Error::Value`](crate::Error::Value): the bytes do not hold a `T`.
    /// - [`Error::Store`](crate::Error::Store): the object cannot be mapped or restored.
    #[track_caller]
    pub fn get(&self) -> Result<T> {
        let runtime = runtime_of(self.to.session())?;
        if !self.is_ready() {
            wait_all(&runtime, std::slice::from_ref(self), None)?;
        }
        read(&self.to, runtime.client())
    }

    /// Waits for the value like [`get`](Self::get), but gives up after `timeout`. The call continues, and a later `get`
    /// can return its result.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::Error;
    ///
    /// #[mobula::remote]
    /// fn sleeps() {
    ///     std::thread::sleep(Duration::from_secs(3600));
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let slow = sleeps::remote();
    /// let error = slow.get_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert!(matches!(error, Error::Timeout { ready: 0, wanted: 1, .. }));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout), and those of `get`.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        let runtime = runtime_of(self.to.session())?;
        wait_all(&runtime, std::slice::from_ref(self), Some(timeout))?;
        read(&self.to, runtime.client())
    }
}

/// Puts a value into the store and returns a reference to it. Every process of the session can read the value from
/// there, any number of times.
///
/// ```
/// use mobula::prelude::*;
///
/// #[remote]
/// fn element(table: Vec<f64>, index: usize) -> f64 {
///     table[index]
/// }
///
/// let _mobula = init()?;
/// let table = put(&vec![0.5, 1.5, 2.5])?; // written once, read by three calls
/// let elements = get((0..3).map(|index| element::remote(&table, index)))?;
/// assert_eq!(elements, [0.5, 1.5, 2.5]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// A reference in the value stays a reference, and keeps its object alive; `put` does not wait for it. So a reference
/// to a reference has a type of its own, and cannot be taken for the value:
///
/// ```
/// use mobula::prelude::*;
///
/// let _mobula = init()?;
/// let seven = put(&7)?;
/// let kept: ObjectRef<ObjectRef<i32>> = put(&seven)?;
/// drop(seven);
/// assert_eq!(kept.get()?.get()?, 7);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Cost
/// The value is encoded in memory of this process, and then copied into shared memory. Texts, byte strings and vectors
/// of numbers of 64 KiB or more are copied once: each is written into an object of its own, to which the new object
/// refers. Carriers ([`Bytes`](crate::value::Bytes), [`Tensor`](crate::value::Tensor), `Arrow`) are copied once, too;
/// carriers whose memory is in the store already are not copied: the new object refers to their objects. There is no
/// system call and no message to the daemon while the leased memory of this process has room.
///
/// # Errors
/// - [`Error::Value`](crate::Error::Value): the value cannot be encoded.
/// - [`Error::Store`](crate::Error::Store): there is no room for it, or the store is gone.
/// - [`Error::NotInitialized`](crate::Error::NotInitialized): this process has no session.
#[track_caller]
pub fn put<T: Serialize>(value: &T) -> Result<ObjectRef<T>> {
    let runtime = runtime()?;
    let place = std::panic::Location::caller();
    let _made_at = runtime.made_at(|| format!("{}:{}", place.file(), place.line()));
    let encoded = value::encode_for_session(value)?;
    let handle = runtime.store(&encoded)?;
    Ok(ObjectRef::new(Ref::to_object(handle, None)))
}

/// The value that a reference refers to, decoded. The reference must be ready.
pub(crate) fn read<T: DeserializeOwned>(to: &Ref, client: &Client) -> Result<T> {
    Ok(match to.resolve(client)? {
        Resolved::Inline(Inline { format, value, references }) => match value {
            InlineBytes::Many(bytes) => value::decode(Source::tagged(format, bytes, references))?,
            few => value::decode_borrowed(format, &few, References::Held(references))?,
        },
        Resolved::Stored(object) => value::decode(Source::object_of(client, object))?,
    })
}

/// Waits for all objects and returns their values, in order. Takes references, or borrows of them. The first failure
/// is reported without waiting for the rest.
///
/// ```
/// #[mobula::remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = mobula::init()?;
/// let squares: Vec<_> = (0..4).map(|x| square::remote(x)).collect(); // all of them run at the same time
/// assert_eq!(mobula::get(&squares)?, [0, 1, 4, 9]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// Each value costs as much as with [`ObjectRef::get`].
///
/// # Errors
/// Those of [`ObjectRef::get`], and [`Error::NotInitialized`](crate::Error::NotInitialized).
#[track_caller]
pub fn get<T: DeserializeOwned>(
    refs: impl IntoIterator<Item = impl std::borrow::Borrow<ObjectRef<T>>>,
) -> Result<Vec<T>> {
    get_within(refs, None)
}

/// Waits for the values like [`get`], but gives up after `timeout`, which is for all objects together. The calls go on.
///
/// ```
/// use std::time::Duration;
///
/// #[mobula::remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = mobula::init()?;
/// let squares: Vec<_> = (0..4).map(|x| square::remote(x)).collect();
/// assert_eq!(mobula::get_timeout(&squares, Duration::from_secs(60))?, [0, 1, 4, 9]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// [`Error::Timeout`](crate::Error::Timeout), which says how many of the objects were there, and those of [`get`].
pub fn get_timeout<T: DeserializeOwned>(
    refs: impl IntoIterator<Item = impl std::borrow::Borrow<ObjectRef<T>>>,
    timeout: Duration,
) -> Result<Vec<T>> {
    get_within(refs, Some(timeout))
}

#[track_caller]
fn get_within<T: DeserializeOwned>(
    refs: impl IntoIterator<Item = impl std::borrow::Borrow<ObjectRef<T>>>,
    timeout: Option<Duration>,
) -> Result<Vec<T>> {
    let runtime = runtime()?;
    let refs: Vec<ObjectRef<T>> = refs.into_iter().map(|reference| reference.borrow().clone()).collect();
    wait_all(&runtime, &refs, timeout)?;
    refs.iter().map(|reference| read(&reference.to, runtime.client())).collect()
}

/// References to objects of one type.
///
/// ```
/// use mobula::Refs;
///
/// fn sum(parts: &Refs<u64>) -> mobula::Result<u64> {
///     Ok(mobula::get(parts)?.iter().sum())
/// }
///
/// let _mobula = mobula::init()?;
/// assert_eq!(sum(&vec![mobula::put(&2)?, mobula::put(&3)?])?, 5);
/// # Ok::<(), mobula::Error>(())
/// ```
pub type Refs<T> = Vec<ObjectRef<T>>;

/// Waits until `num_ready` of the references are ready, or `timeout` has passed (`None`: without end). Returns those
/// that are ready, at most `num_ready` of them, and all others, both in the order in which they came. Takes references,
/// or borrows of them, which it clones.
///
/// A failed task is ready: `get` returns its error at once.
///
/// ```
/// #[mobula::remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = mobula::init()?;
/// let mut pending: Vec<_> = (0..8).map(|x| square::remote(x)).collect();
/// let mut sum = 0;
/// while !pending.is_empty() {
///     let (ready, rest) = mobula::wait(pending, 1, None)?; // in the order in which they finish
///     sum += ready[0].get()?;
///     pending = rest;
/// }
/// assert_eq!(sum, 140);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// Costs a look (one or two loads) at the references up to the last one that it returns as ready, and a system call
/// only where this thread has to sleep. It reads no value.
///
/// # Errors
/// - [`Error::Config`](crate::Error::Config): `num_ready` is more than the number of references.
/// - [`Error::NotInitialized`](crate::Error::NotInitialized): this process has no session.
/// - [`Failure::SessionOver`](crate::Failure::SessionOver): one of them is of a session that has ended, and not enough
///   before it are ready.
#[track_caller]
pub fn wait<T>(
    refs: impl IntoIterator<Item = impl IntoRef<T>>,
    num_ready: usize,
    timeout: Option<Duration>,
) -> Result<(Refs<T>, Refs<T>)> {
    mobula_runtime::wait(&*runtime()?, IntoRef::into_refs(refs), num_ready, timeout)
}

/// A reference, or a borrow of one, which is cloned. Functions that wait take either.
///
/// ```
/// use mobula::{IntoRef, ObjectRef};
///
/// fn first<T>(refs: impl IntoIterator<Item = impl IntoRef<T>>) -> Option<ObjectRef<T>> {
///     refs.into_iter().next().map(IntoRef::into_ref)
/// }
///
/// let _mobula = mobula::init()?;
/// let refs = vec![mobula::put(&1)?, mobula::put(&2)?];
/// assert_eq!(first(&refs), first(refs));
/// # Ok::<(), mobula::Error>(())
/// ```
pub trait IntoRef<T>: sealed::Sealed {
    /// The reference.
    ///
    /// ```
    /// use mobula::IntoRef;
    ///
    /// let _mobula = mobula::init()?;
    /// let reference = mobula::put(&1)?;
    /// assert_eq!((&reference).into_ref(), reference);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    fn into_ref(self) -> ObjectRef<T>;

    /// Several of them. A vector of references stays as it is: no element is moved.
    #[doc(hidden)]
    fn into_refs(refs: impl IntoIterator<Item = Self>) -> Refs<T>
    where
        Self: Sized,
    {
        refs.into_iter().map(Self::into_ref).collect()
    }
}

mod sealed {
    /// No other type is a reference.
    pub trait Sealed {}

    impl<T> Sealed for super::ObjectRef<T> {}
    impl<T> Sealed for &super::ObjectRef<T> {}
}

impl<T> IntoRef<T> for ObjectRef<T> {
    fn into_ref(self) -> Self {
        self
    }

    fn into_refs(refs: impl IntoIterator<Item = Self>) -> Refs<T> {
        refs.into_iter().collect()
    }
}

impl<T> IntoRef<T> for &ObjectRef<T> {
    fn into_ref(self) -> ObjectRef<T> {
        self.clone()
    }
}

/// The runtime of this process, for a thread that can still read and write values.
pub(crate) fn runtime() -> Result<RuntimeRef> {
    check_thread(mobula_runtime::runtime()?)
}

/// The runtime of this process, for items that came from the session with this number.
fn runtime_of(session: SessionNumber) -> Result<RuntimeRef> {
    check_thread(mobula_runtime::runtime_of(session)?)
}

/// Refuses a thread that is ending: it drops its thread-local values, also those for reading and writing values.
fn check_thread(runtime: RuntimeRef) -> Result<RuntimeRef> {
    if value::context::is_there() { Ok(runtime) } else { Err(Error::ThreadEnding) }
}

// For the runtime's functions that wait for references of any type. `Ref` is no type of programs.
#[doc(hidden)]
impl<T> AsRef<Ref> for ObjectRef<T> {
    fn as_ref(&self) -> &Ref {
        &self.to
    }
}

impl<T> Clone for ObjectRef<T> {
    fn clone(&self) -> Self {
        Self::new(self.to.clone())
    }
}

impl<T> PartialEq for ObjectRef<T> {
    fn eq(&self, other: &Self) -> bool {
        self.to.id() == other.to.id()
    }
}

impl<T> Eq for ObjectRef<T> {}

impl<T> PartialOrd for ObjectRef<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By [`id`](ObjectRef::id): an order for maps and sets, which is independent of the values.
impl<T> Ord for ObjectRef<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.to.id().cmp(&other.to.id())
    }
}

impl<T> Hash for ObjectRef<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to.id().hash(state);
    }
}

// No lock is held, and no state half changed, while user code runs, which may panic.
impl<T> UnwindSafe for ObjectRef<T> {}
impl<T> RefUnwindSafe for ObjectRef<T> {}

impl<T> fmt::Debug for ObjectRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectRef<{}>({}, {:?})", std::any::type_name::<T>(), self.to.id(), self.to)
    }
}

impl<T> Serialize for ObjectRef<T> {
    /// Writes its position among the references of the value that is being encoded, and its own id if it differs from
    /// the object's.
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let (handle, id) = self.to.export().map_err(S::Error::custom)?;
        (Reference(handle), id).serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for ObjectRef<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (Reference(handle), id) = <(Reference, Option<RefId>)>::deserialize(deserializer)?;
        Ok(Self::new(Ref::to_object(handle, id)))
    }
}
