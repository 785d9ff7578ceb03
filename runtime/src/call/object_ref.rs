//! References to objects, and what can be done with them: `put`, `get`, `wait`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mobula_client::{Client, ClientError, Handle};
use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::call::ref_id::RefId;
use crate::call::result_cell::{self, Settled, Slot};
use crate::error::{Error, Failure, Result};
use crate::mail::Core;
use crate::session::{self, SessionNumber};
use crate::value::{self, Reference};

/// A reference to an object: a value that was [`put`], or the result of a remote call, which need not be there yet.
///
/// It can be cloned, given as an argument (the call gets the value), or sent inside a value (the receiver gets the
/// reference). The object lives while any process has a reference to it.
///
/// A reference is equal to its clones, in whatever process they are, and to no other, whatever the values are: two calls
/// of one function give two references, and so do two puts of one value. So it can be the key of a map.
///
/// Dropping the references to a call's result does not cancel the call: it runs, or waits for its turn to run, and what
/// it returns is let go. Nor does it wait for anything, and it is fine after the session has ended.
pub struct ObjectRef<T> {
    to: Referent,
    id: RefId,
    of: PhantomData<fn() -> T>,
}

/// What a reference refers to.
#[derive(Debug, Clone)]
pub(crate) enum Referent {
    /// A result of a call, where it arrives.
    Slot(Arc<Slot>),
    /// An object that was put, or whose id came inside a value: it may be a result that another process promised.
    Held(Handle, SessionNumber),
}

impl Referent {
    /// The session that it came from.
    pub(crate) fn session(&self) -> SessionNumber {
        match self {
            Self::Slot(slot) => slot.session,
            Self::Held(_, session) => *session,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Slot(slot) => slot.is_ready(),
            // An error is a result too.
            Self::Held(handle, _) => !matches!(handle.is_ready(), Ok(false)),
        }
    }

    /// What there is, once it is ready here; a stored object may still be a promise.
    pub(crate) fn outcome(&self) -> Option<Settled> {
        match self {
            Self::Slot(slot) => slot.outcome(),
            Self::Held(handle, _) => Some(Settled::Stored(handle.clone())),
        }
    }

    /// A slot of it, to wait for.
    pub(crate) fn into_slot(self) -> Arc<Slot> {
        match self {
            Self::Slot(slot) => slot,
            Self::Held(handle, session) => Slot::settled(session, Settled::Stored(handle)),
        }
    }

    fn failure(&self) -> Option<Failure> {
        match self {
            Self::Slot(slot) => slot.failure(),
            Self::Held(..) => None,
        }
    }

    fn foreign_promise(&self) -> Option<Handle> {
        match self {
            Self::Slot(slot) => slot.foreign_promise(),
            Self::Held(handle, _) => (!self.is_ready()).then(|| handle.clone()),
        }
    }

    fn read<T: DeserializeOwned>(&self, client: &Client) -> Result<T> {
        match self {
            Self::Slot(slot) => slot.read(client),
            Self::Held(handle, _) => Ok(value::decode(result_cell::stored(client, handle.clone())?)?),
        }
    }

    fn escape(&self, core: &Core) -> std::result::Result<Handle, ClientError> {
        match self {
            Self::Slot(slot) => core.escape(slot),
            Self::Held(handle, _) => Ok(handle.clone()),
        }
    }
}

impl<T> ObjectRef<T> {
    /// A reference to the result of a call, which nobody else has yet.
    pub(crate) fn new(slot: Arc<Slot>) -> Self {
        Self::with_id(RefId::unique(), Referent::Slot(slot))
    }

    fn with_id(id: RefId, to: Referent) -> Self {
        Self { to, id, of: PhantomData }
    }

    pub(crate) fn referent(&self) -> &Referent {
        &self.to
    }

    /// What tells the reference, and its clones in all processes, from all others. It never changes.
    pub fn id(&self) -> RefId {
        self.id
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
    /// What the task failed with; [`Failure::SessionOver`] when the reference's session has ended.
    pub fn get(&self) -> Result<T> {
        let core = session::core_of(self.to.session())?;
        if !self.is_ready() {
            wait_all(&core, std::slice::from_ref(self), None)?;
        }
        self.to.read(&core.client)
    }

    /// As [`get`](Self::get), but gives up after `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], and those of `get`.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        let core = session::core_of(self.to.session())?;
        wait_all(&core, std::slice::from_ref(self), Some(timeout))?;
        self.to.read(&core.client)
    }
}

/// Puts a value into the store, once, and returns a reference to it. Arrays that lie in the store already are not
/// copied.
///
/// # Errors
/// [`Error::Value`] when it cannot be encoded, [`Error::Store`] when there is no room for it.
pub fn put<T: Serialize>(value: &T) -> Result<ObjectRef<T>> {
    let core = session::core()?;
    let encoded = value::encode(value)?;
    let handle = core.store(&encoded)?;
    Ok(ObjectRef::with_id(RefId::of(handle.id()), Referent::Held(handle, core.session)))
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
/// [`Error::Timeout`], and those of [`ObjectRef::get`].
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
    let core = session::core()?;
    let refs: Vec<ObjectRef<T>> = refs.into_iter().map(|reference| reference.borrow().clone()).collect();
    check_session(&core, &refs)?;
    wait_all(&core, &refs, timeout)?;
    refs.iter().map(|reference| reference.to.read(&core.client)).collect()
}

/// References of one type.
pub type Refs<T> = Vec<ObjectRef<T>>;

/// Waits until `num_ready` of the references are ready, or `timeout` has passed (`None`: without end). Returns those
/// that are ready, at most `num_ready` of them, and all others, both in the order in which they came.
///
/// A failed task is ready: `get` returns its error at once.
///
/// # Errors
/// [`Error::Config`] when `num_ready` is more than there are; [`Error::NotInitialized`]; [`Failure::SessionOver`] when
/// one of them is of a session that has ended.
pub fn wait<T>(
    refs: impl IntoIterator<Item = ObjectRef<T>>,
    num_ready: usize,
    timeout: Option<Duration>,
) -> Result<(Refs<T>, Refs<T>)> {
    let core = session::core()?;
    let mut rest: Refs<T> = refs.into_iter().collect();
    check_session(&core, &rest)?;
    if num_ready > rest.len() {
        let expected = format!("at most the {} references that were given", rest.len());
        return Err(Error::Config { field: "num_ready", value: num_ready.to_string(), expected });
    }
    // Where the first of them are that are ready; those that are not yet are looked at again.
    let mut positions = SmallVec::<[usize; 8]>::new();
    let mut enough = || {
        positions.clear();
        let ready = rest.iter().enumerate().filter(|(_, reference)| reference.to.is_ready());
        positions.extend(ready.map(|(position, _)| position).take(num_ready));
        (positions.len() >= num_ready).then_some(())
    };
    if enough().is_none() {
        let _watches = watches(&rest)?;
        core.wait(deadline(timeout), enough);
    }
    let ready = match positions[..] {
        // One at a time is how most loops wait.
        [position] => vec![rest.remove(position)],
        _ => {
            let (mut at, mut next) = (0, positions.iter().peekable());
            let is_ready = |_: &mut ObjectRef<T>| {
                at += 1;
                next.next_if(|position| **position == at - 1).is_some()
            };
            rest.extract_if(.., is_ready).collect()
        }
    };
    Ok((ready, rest))
}

/// Refuses references of a session that has ended.
fn check_session<T>(core: &Core, refs: &[ObjectRef<T>]) -> Result<()> {
    let is_of_it = |session: SessionNumber| session == core.session || session == SessionNumber::NONE;
    if refs.iter().all(|reference| is_of_it(reference.to.session())) {
        Ok(())
    } else {
        Err(Failure::SessionOver.into())
    }
}

/// Waits until all are ready, or one has failed.
fn wait_all<T>(core: &Arc<Core>, refs: &[ObjectRef<T>], timeout: Option<Duration>) -> Result<()> {
    let _watches = watches(refs)?;
    let mut next = 0;
    let mut failures_seen = None;
    let mut failed = None;
    let done = core.wait(deadline(timeout), || {
        while next < refs.len() && refs[next].to.is_ready() {
            next += 1;
        }
        if next == refs.len() {
            return Some(());
        }
        // A later one that failed ends the wait for an earlier one that is not there yet.
        let failures = core.failures.load(Ordering::Acquire);
        if failures_seen.replace(failures) != Some(failures) {
            failed = refs[next..].iter().find_map(|reference| reference.to.failure());
        }
        failed.is_some().then_some(())
    });
    if let Some(failure) = failed {
        return Err(failure.into());
    }
    match done {
        Some(()) => Ok(()),
        None if core.is_over() => Err(Failure::SessionOver.into()),
        None => Err(Error::Timeout {
            waited: timeout.unwrap_or_default(),
            ready: refs.iter().filter(|reference| reference.to.is_ready()).count(),
            wanted: refs.len(),
        }),
    }
}

fn watches<T>(refs: &[ObjectRef<T>]) -> Result<Vec<mobula_client::Watch>> {
    let promises = refs.iter().filter_map(|reference| reference.to.foreign_promise());
    Ok(promises.map(|handle| handle.watch()).collect::<std::result::Result<_, _>>()?)
}

fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

impl<T> Clone for ObjectRef<T> {
    fn clone(&self) -> Self {
        Self::with_id(self.id, self.to.clone())
    }
}

impl<T> PartialEq for ObjectRef<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl<T> Eq for ObjectRef<T> {}

impl<T> Hash for ObjectRef<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

// No lock is held, and no state half changed, while code of users runs that may panic.
impl<T> UnwindSafe for ObjectRef<T> {}
impl<T> RefUnwindSafe for ObjectRef<T> {}

impl<T> fmt::Debug for ObjectRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectRef<{}>({}, {:?})", std::any::type_name::<T>(), self.id, self.to)
    }
}

impl<T> Serialize for ObjectRef<T> {
    /// As its position among the references of the value that is being encoded, and its own id where that is not the
    /// object's.
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let core = session::core_of(self.to.session()).map_err(S::Error::custom)?;
        let handle = self.to.escape(&core).map_err(S::Error::custom)?;
        let id = (self.id != RefId::of(handle.id())).then_some(self.id);
        (Reference(handle), id).serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for ObjectRef<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (Reference(handle), id) = <(Reference, Option<RefId>)>::deserialize(deserializer)?;
        let id = id.unwrap_or_else(|| RefId::of(handle.id()));
        Ok(Self::with_id(id, Referent::Held(handle, session::number())))
    }
}
