//! Objects in use: an [`Object`] gives its sealed bytes where they lie, a [`Handle`] only keeps an object alive.
//!
//! Both are references that are counted within the process. The first reference to an object pins it; the last one
//! takes the pin back, and lets the object be freed where this client owns it. To clone and to drop are memory
//! operations.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Refusal;
use mobula_shm::table::{Location, State};

use crate::counting::count::Kind;
use crate::error::ClientError;
use crate::located::Located;
use crate::owner::Owner;
use crate::reader::peers::Peers;
use crate::reference::Reference;
use crate::spill::copy::{Copied, copy_spilled};
use crate::spill::restore::restore;

/// The number of times that a reader asks for a spilled object to be restored.
const RESTORES_MAX: usize = 16;

/// Keeps an object alive without mapping its bytes.
///
/// Clone and drop are memory operations. The object is freed when no process has a handle to it or borrows its bytes
/// any more. A clone panics when this process has 16,777,215 handles to the object, which is as many as it can count.
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let object = client.put(b"kept")?;
/// let handle = object.handle();
/// drop(object);
/// // Its bytes may be spilled to disk now, and come back.
/// assert_eq!(&handle.object()?[..], b"kept");
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Handle {
    reference: Reference,
}

impl Handle {
    #[inline]
    pub(crate) fn hold(owner: &Owner, peers: &Peers, id: ObjectId) -> Result<Self, ClientError> {
        let reference = Reference::acquire(owner, peers, id, Kind::Handle)?;
        reference.state()?;
        Ok(Self { reference })
    }

    /// Made of a reference of kind `Handle`.
    pub(crate) fn of(reference: Reference) -> Self {
        Self { reference }
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(crate) fn into_reference(self) -> Reference {
        self.reference
    }

    /// The id of the object. Two loads.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"kept")?;
    /// assert_eq!(object.handle().id(), object.id());
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.reference.id()
    }

    /// Whether the bytes are there: `false` while the object is promised. Costs one load.
    ///
    /// ```
    /// use mobula_client::ClientError;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let promise = client.promise()?;
    /// let handle = promise.handle().clone();
    /// assert!(!handle.is_ready()?);
    /// drop(promise);
    /// assert!(matches!(handle.is_ready(), Err(ClientError::Lost { .. })));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Lost`]: the bytes never will be there. [`ClientError::ForkedChild`]: this is a forked child.
    pub fn is_ready(&self) -> Result<bool, ClientError> {
        if self.reference.is_child() {
            return Err(ClientError::ForkedChild);
        }
        match self.reference.state() {
            Ok(State::Promised) => Ok(false),
            Ok(State::Lost) => Err(ClientError::Lost { object: self.id() }),
            // Deleted for others; a process that holds it keeps it.
            Ok(_) | Err(ClientError::Deleted { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The bytes of the object, without a copy. Memory operations only, once a segment is mapped; the first object of a
    /// segment costs a round trip. A spilled object is restored first. Where the store has no memory for it, and none
    /// can be made, it is read into this process's own memory.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let handle = client.put(b"kept")?.handle();
    /// assert_eq!(&handle.object()?[..], b"kept");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// - [`ClientError::NotReady`]: the object is promised. [`ClientError::Lost`]: it never will be there.
    /// - [`Refusal::SpillDamaged`], [`Refusal::NotRestored`] and the errors of a put: it is spilled.
    /// - [`ClientError::TooManyReferences`]: its bytes are borrowed 1,048,575 times in this process.
    pub fn object(&self) -> Result<Object, ClientError> {
        if self.reference.is_child() {
            return Err(ClientError::ForkedChild);
        }
        // Borrowed first: until then a sealed object may be spilled.
        let reference = self.reference.again(Kind::Borrow)?;
        let state = match reference.state() {
            // For others; a process that holds it keeps it.
            Err(ClientError::Deleted { .. }) => State::Sealed,
            state => state?,
        };
        Object::of_state(reference, state)
    }

    /// Says in this client's pin that a thread is going to sleep until the promised object is there: its owner then
    /// rings this client's bell. Look at [`is_ready`](Self::is_ready) once more before sleeping, as
    /// [`Client::sleep`](crate::Client::sleep) does. Memory operations only.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let promise = client.promise()?;
    /// let handle = other.hold(promise.handle().id())?;
    /// let _watch = handle.watch()?;
    /// drop(promise);
    /// while matches!(handle.is_ready(), Ok(false)) {
    ///     other.sleep(None, || !matches!(handle.is_ready(), Ok(false)));
    /// }
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// [`ClientError::TooManyReferences`]: 262,143 threads and calls of this process wait for it already.
    pub fn watch(&self) -> Result<Watch, ClientError> {
        Ok(Watch { reference: self.reference.again(Kind::Wait)? })
    }

    /// Whether anyone else, in this process or another, keeps the object beside `own_handles` handles of this process.
    /// Only its owner can tell: `true` for objects of others. Looks at the pins of each reader; no message.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let handle = client.put(b"kept")?.handle();
    /// assert!(!handle.is_held_elsewhere(1));
    /// let held = other.hold(handle.id())?;
    /// assert!(handle.is_held_elsewhere(1));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn is_held_elsewhere(&self, own_handles: u64) -> bool {
        self.reference.is_held_elsewhere(own_handles)
    }
}

/// While it lives, the owner of a promised object rings this client when the promise is settled; see
/// [`Handle::watch`].
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let promise = client.promise()?;
/// let watch = promise.handle().watch()?;
/// client.sleep(Some(std::time::Duration::from_millis(1)), || false);
/// drop(watch);
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[must_use]
pub struct Watch {
    reference: Reference,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.reference.id()).finish()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.id()).finish()
    }
}

/// Sealed bytes, read where they lie; derefs to `&[u8]`, 64-byte aligned.
///
/// The bytes never change, and the memory stays while the object (or a clone, or a `Bytes` made from it) lives,
/// whatever happens to its owner or the daemon. Clone and drop are memory operations. A clone panics when the bytes are
/// borrowed in this process 1,048,575 times, which is as many as it can count.
///
/// A forked child has no objects: nothing would keep them there. They are not mapped in its memory, so to deref an
/// object panics, and to read a slice or a `Bytes` from before the fork ends the child with SIGSEGV. The child can
/// connect to the store for itself.
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let object = client.put(b"sealed bytes")?;
/// let same = object.clone();
/// assert_eq!(same.as_ptr(), object.as_ptr(), "a clone has the same bytes, not a copy");
/// assert!(object.starts_with(b"sealed"));
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[must_use]
pub struct Object {
    reference: Reference,
    pointer: NonNull<u8>,
    length: usize,
    format: u32,
    references: u32,
    /// The memory that `pointer` points into, where that is not the store's.
    copied: Option<Arc<Copied>>,
}

// SAFETY: an object gives out shared access to bytes that nobody writes while it lives (see `deref`), in whatever
// thread. Its parts but the pointer to them are Send.
unsafe impl Send for Object {}
// SAFETY: threads that share it read those bytes. Its parts but the pointer to them are Sync.
unsafe impl Sync for Object {}

impl Object {
    #[inline]
    pub(crate) fn get(owner: &Owner, peers: &Peers, id: ObjectId) -> Result<Self, ClientError> {
        match Reference::borrow(owner, peers, id)? {
            (reference, Ok(located)) => Ok(Self::at(reference, located)),
            (reference, Err(state)) => Self::of_state(reference, state),
        }
    }

    /// Made of a borrow of a sealed object, and of where it lies.
    #[inline]
    pub(crate) fn at(reference: Reference, located: Located) -> Self {
        let Location { length, format, references, .. } = located.location;
        let (pointer, length) = (located.pointer, length as usize);
        Self { reference, pointer, length, format, references, copied: None }
    }

    /// Made of a borrow, and of the state that the borrow saw.
    #[inline]
    fn of_state(reference: Reference, state: State) -> Result<Self, ClientError> {
        match state {
            State::Sealed => Self::of_sealed(reference),
            State::Spilled => Self::of_spilled(reference),
            State::Lost => Err(ClientError::Lost { object: reference.id() }),
            _ => Err(ClientError::NotReady { object: reference.id() }),
        }
    }

    #[inline]
    fn of_sealed(reference: Reference) -> Result<Self, ClientError> {
        let located = reference.locate()?;
        Ok(Self::at(reference, located))
    }

    #[cold]
    fn of_spilled(reference: Reference) -> Result<Self, ClientError> {
        for _ in 0..RESTORES_MAX {
            if let Err(error) = restore(&reference) {
                match copy_spilled(&reference) {
                    Ok(Some((copied, location))) => {
                        let (pointer, copied) = (copied.pointer(), Some(copied));
                        return Ok(Self { copied, ..Self::at(reference, Located { pointer, location }) });
                    }
                    // It is in memory after all.
                    Ok(None) => {}
                    Err(damaged @ ClientError::Refused(Refusal::SpillDamaged { .. })) => return Err(damaged),
                    // The first error is why the file was read at all.
                    Err(_) => return Err(error),
                }
            }
            match reference.state() {
                // Its owner was looking whether to free it when the daemon looked.
                Ok(State::Spilled) => {}
                Ok(State::Sealed) | Err(ClientError::Deleted { .. }) => return Self::of_sealed(reference),
                Ok(_) => break,
                Err(error) => return Err(error),
            }
        }
        let reason = "its owner says that it was restored, and it was not".to_owned();
        Err(Refusal::NotRestored { object: reference.id(), reason }.into())
    }

    /// The id of the object, by which any process of the same store can get it. Two loads.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"sealed bytes")?;
    /// assert_eq!(client.get(object.id())?.id(), object.id());
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn id(&self) -> ObjectId {
        self.reference.id()
    }

    /// The format tag of the bytes, as the maker of the object gave it; 0 for plain bytes.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// const TEXT: u32 = 17;
    /// let writer = client.create(Layout::new(0).format(TEXT))?;
    /// assert_eq!(writer.seal().format(), TEXT);
    /// assert_eq!(client.put(b"plain")?.format(), 0);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn format(&self) -> u32 {
        self.format
    }

    /// A handle that keeps the object alive without its bytes. Memory operations only.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let handle = client.put(b"kept")?.handle();
    /// assert!(handle.is_ready()?);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Panics
    /// As a clone of a handle.
    pub fn handle(&self) -> Handle {
        Handle::of(self.reference.again_or_panic(Kind::Handle))
    }

    /// The objects that this one keeps alive, in the order in which they were given. Copies their ids.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let part = client.put(b"a part")?;
    /// let whole = client.create(Layout::new(0).references(vec![part.handle()]))?.seal();
    /// assert_eq!(whole.references(), [part.id()]);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Panics
    /// In a forked child.
    #[must_use]
    pub fn references(&self) -> Vec<ObjectId> {
        self.assert_process();
        let count = self.references as usize;
        if count == 0 {
            return Vec::new();
        }
        // The payload begins at a multiple of 64, so this is where `Location::references_offset` says.
        let start = self.length.next_multiple_of(ObjectId::BYTES);
        // SAFETY: payload and references were found to lie inside the mapping (in `Owner::reserve` or
        // `Reference::locate`), which the counted reference keeps, or inside the copy (in `Copied::read`), which this
        // object keeps. They were sealed together, and nobody writes them while the object is pinned, as the reference
        // does: all as for the payload in `deref`. A forked child never comes here: it has panicked before.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.pointer.byte_add(start).as_ptr(), count * ObjectId::BYTES)
        };
        let (ids, _) = bytes.as_chunks::<{ ObjectId::BYTES }>();
        ids.iter().map(|id| ObjectId::from_bytes(*id)).collect()
    }

    /// No memory of the store is mapped in a forked child. Costs one load.
    #[inline]
    fn assert_process(&self) {
        if self.reference.is_child() {
            self.refuse_child();
        }
    }

    #[cold]
    fn refuse_child(&self) -> ! {
        panic!(
            "object {} belongs to the parent process: the memory of the store is not mapped in a forked child, \
             which must connect for itself",
            self.reference.id()
        );
    }
}

impl Deref for Object {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.assert_process();
        // SAFETY: `pointer..pointer + length` was found to lie inside a mapping, when it was reserved or located. The
        // counted reference keeps that mapping: an owner does not give back a segment in which an entry has memory, and
        // evicts no object whose bytes are borrowed; a reader keeps the segment that it borrows bytes from. A forked
        // child, in which none of that is mapped, has panicked. The bytes are initialised: the file's zeros, or what
        // was written. The object was sealed, and the reference keeps it pinned: its owner neither writes nor reuses
        // the memory. A writer of its own client ends when it seals, and every other process has the memory mapped
        // read-only. Or the pointer points into `copied`, which has as many bytes behind it, and which this object
        // keeps and nobody changes.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for Object {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for Object {
    #[inline]
    fn clone(&self) -> Self {
        let Self { pointer, length, format, references, .. } = *self;
        let (reference, copied) = (self.reference.again_or_panic(Kind::Borrow), self.copied.clone());
        Self { reference, pointer, length, format, references, copied }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("id", &self.id()).field("bytes", &self.length).finish()
    }
}

impl From<Object> for bytes::Bytes {
    /// Gives the bytes, without a copy, to crates that take [`Bytes`](bytes::Bytes). They keep the object alive.
    fn from(object: Object) -> Self {
        bytes::Bytes::from_owner(object)
    }
}
