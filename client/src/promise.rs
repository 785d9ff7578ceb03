//! An object that is still to be made: a [`Promise`] has its id already.

use std::fmt;

use mobula_shm::table::Location;

use crate::counting::count::Kind;
use crate::error::ClientError;
use crate::object::Handle;
use crate::owner::Owner;
use crate::reference::{Reference, Source};
use crate::writer::ObjectWriter;

/// An object that is not there yet. Its id can be passed on, and a process that holds it can wait for it; see
/// [`Handle::watch`].
///
/// If a promise is dropped unfulfilled, or its process dies, the object is lost: waiters get
/// [`ClientError::Lost`].
///
/// ```
/// use mobula_client::Layout;
///
/// # let store = mobula_test_store::start();
/// # let (client, other) = (store.client(), store.client());
/// let promise = client.promise()?;
/// let result = other.hold(promise.handle().id())?;
/// let mut writer = client.create(Layout::new(2))?;
/// writer.copy_from_slice(b"42");
/// promise.fulfil(writer);
/// assert_eq!(&result.object()?[..], b"42");
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[must_use]
pub struct Promise {
    handle: Handle,
    is_open: bool,
}

impl Promise {
    pub(crate) fn new(owner: &Owner) -> Result<Self, ClientError> {
        let reserved = owner.reserve(Location::default(), Kind::Handle)?;
        owner.table.promise(reserved.id);
        Ok(Self { handle: Handle::of(Reference::of_raw(reserved.reference)), is_open: true })
    }

    /// Keeps the promised object alive, and has the id by which others hold it.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let promise = client.promise()?;
    /// let id = promise.handle().id();
    /// assert!(!other.contains(id)?, "not yet");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Keeps the promise with the writer's content, and wakes the threads and processes that wait for it. No copy, and
    /// no message; a system call for each process that sleeps.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let promise = client.promise()?;
    /// let handle = promise.handle().clone();
    /// promise.fulfil(client.create(Layout::new(0))?);
    /// assert!(handle.is_ready()?);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Panics
    /// In a forked child.
    pub fn fulfil(mut self, writer: ObjectWriter) {
        writer.into_draft().fulfil(self.handle.id());
        self.is_open = false;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.is_open
            && !self.handle.reference().is_child()
            && let Source::Own(owner) = self.handle.reference().source()
        {
            owner.break_promise(self.handle.id());
        }
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Promise").field(&self.handle.id()).finish()
    }
}
