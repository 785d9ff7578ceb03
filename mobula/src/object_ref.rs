//! References to objects, and the operations on them: `put`, `get`, `wait`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use mobula_client::Client;
use mobula_runtime::{Inline, InlineBytes, Ref, RefId, Resolved, Result, wait_all};
use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::session::{runtime, runtime_of};
use crate::value::{self, Reference, References, Source};

/// A reference to an object: a value that was [`put`], or the result of a remote call, which need not be there yet.
///
/// It can be cloned, given as an argument (the call gets the value), or sent inside a value (the receiver gets the
/// reference). The object lives while any process has a reference to it.
///
/// A reference is equal to its clones, in all processes, and to no other. The values make no difference: two calls of
/// one function give two references, and so do two puts of one value. So it can be the key of a map.
///
/// Dropping the references to a call's result does not cancel the call: the call runs, or waits for its turn, and its
/// result is dropped. The drop waits for nothing. It is allowed after the session has ended.
pub struct ObjectRef<T> {
    to: Ref,
    of: PhantomData<fn() -> T>,
}

impl<T> ObjectRef<T> {
    pub(crate) fn new(to: Ref) -> Self {
        Self { to, of: PhantomData }
    }

    /// The reference to the one result of a call.
    pub(crate) fn first_of(mut refs: impl Iterator<Item = Ref>) -> Self {
        Self::new(refs.next().expect("each call has at least as many references as it was made for"))
    }

    /// The id that the reference shares with its clones in all processes, and with no other reference. It never
    /// changes.
    pub fn id(&self) -> RefId {
        self.to.id()
    }

    /// Whether [`get`](Self::get) would return (a value or an error) without waiting. Does not look for new results:
    /// see [`wait`].
    pub fn is_ready(&self) -> bool {
        self.to.is_ready()
    }
}

impl<T: DeserializeOwned> ObjectRef<T> {
    /// Waits for the object and returns its value. Large arrays in it are not copied: they lie in the store.
    ///
    /// # Errors
    /// The failure of the task; [`Failure::SessionOver`](crate::Failure::SessionOver) when the reference's session has
    /// ended.
    pub fn get(&self) -> Result<T> {
        let runtime = runtime_of(self.to.session())?;
        if !self.is_ready() {
            wait_all(&runtime, std::slice::from_ref(self), None)?;
        }
        read(&self.to, runtime.client())
    }

    /// As [`get`](Self::get), but gives up after `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout), and those of `get`.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        let runtime = runtime_of(self.to.session())?;
        wait_all(&runtime, std::slice::from_ref(self), Some(timeout))?;
        read(&self.to, runtime.client())
    }
}

/// Puts a value into the store, once, and returns a reference to it. Arrays that lie in the store already are not
/// copied.
///
/// # Errors
/// [`Error::Value`](crate::Error::Value) when it cannot be encoded, [`Error::Store`](crate::Error::Store) when there is no room for it.
pub fn put<T: Serialize>(value: &T) -> Result<ObjectRef<T>> {
    let runtime = runtime()?;
    let encoded = value::encode(value)?;
    let handle = runtime.store(&encoded)?;
    Ok(ObjectRef::new(Ref::to_object(handle, None)))
}

/// The value that a reference refers to, decoded. The reference must be ready.
fn read<T: DeserializeOwned>(to: &Ref, client: &Client) -> Result<T> {
    Ok(match to.resolve(client)? {
        Resolved::Inline(Inline { format, value, references }) => match value {
            InlineBytes::Many(bytes) => value::decode(Source::tagged(format, bytes, references))?,
            few => value::decode_lent(format, &few, References::Held(references))?,
        },
        Resolved::Stored(object) => value::decode(Source::object_of(client, object))?,
    })
}

/// Waits for all objects and returns their values, in order. The first that fails is reported without waiting for the
/// rest.
///
/// # Errors
/// Those of [`ObjectRef::get`].
pub fn get<T: DeserializeOwned>(
    refs: impl IntoIterator<Item = impl std::borrow::Borrow<ObjectRef<T>>>,
) -> Result<Vec<T>> {
    get_within(refs, None)
}

/// As [`get`], but gives up after `timeout`.
///
/// # Errors
/// [`Error::Timeout`](crate::Error::Timeout), and those of [`ObjectRef::get`].
pub fn get_timeout<T: DeserializeOwned>(
    refs: impl IntoIterator<Item = impl std::borrow::Borrow<ObjectRef<T>>>,
    timeout: Duration,
) -> Result<Vec<T>> {
    get_within(refs, Some(timeout))
}

fn get_within<T: DeserializeOwned>(
    refs: impl IntoIterator<Item = impl std::borrow::Borrow<ObjectRef<T>>>,
    timeout: Option<Duration>,
) -> Result<Vec<T>> {
    let runtime = runtime()?;
    let refs: Vec<ObjectRef<T>> = refs.into_iter().map(|reference| reference.borrow().clone()).collect();
    wait_all(&runtime, &refs, timeout)?;
    refs.iter().map(|reference| read(&reference.to, runtime.client())).collect()
}

/// References of one type.
pub type Refs<T> = Vec<ObjectRef<T>>;

/// Waits until `num_ready` of the references are ready, or `timeout` has passed (`None`: without end). Returns those
/// that are ready, at most `num_ready` of them, and all others, both in the order in which they came.
///
/// A failed task is ready: `get` returns its error at once.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) when `num_ready` is more than there are; [`Error::NotInitialized`](crate::Error::NotInitialized); [`Failure::SessionOver`](crate::Failure::SessionOver) when
/// one of them is of a session that has ended.
pub fn wait<T>(
    refs: impl IntoIterator<Item = ObjectRef<T>>,
    num_ready: usize,
    timeout: Option<Duration>,
) -> Result<(Refs<T>, Refs<T>)> {
    mobula_runtime::wait(&*runtime()?, refs.into_iter().collect(), num_ready, timeout)
}

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
    /// Writes its position among the references of the value that is being encoded, and its own id where that is not
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
