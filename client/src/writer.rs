//! Writing an object: [`ObjectWriter`] gives writable store memory until the object is sealed.

use std::fmt;
use std::ops::{Deref, DerefMut};

use mobula_protocol::id::ObjectId;

use crate::draft::Draft;
use crate::error::ClientError;
use crate::object::{Handle, Object};
use crate::owner::Owner;

/// Length, format and references of an object that is to be made.
///
/// ```
/// use mobula_client::Layout;
///
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let part = client.put(b"a part")?;
/// let layout = Layout::new(100).format(7).references(vec![part.handle()]);
/// let object = client.create(layout)?.seal();
/// assert_eq!((object.len(), object.format(), object.references().len()), (100, 7, 1));
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Layout {
    length: u64,
    format: u32,
    references: Vec<Handle>,
}

impl Layout {
    /// An object with a payload of `length` bytes, of format 0 and without references.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// assert_eq!(client.create(Layout::new(100))?.len(), 100);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[inline]
    pub fn new(length: u64) -> Self {
        Self { length, ..Self::default() }
    }

    /// The format tag of the payload, which tells readers how to interpret the bytes. Default: 0, for plain bytes.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// assert_eq!(client.create(Layout::new(0).format(7))?.seal().format(), 7);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[inline]
    pub fn format(mut self, format: u32) -> Self {
        self.format = format;
        self
    }

    /// Objects that it keeps alive for as long as it lives itself. Default: none.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let part = client.put(b"a part")?;
    /// let whole = client.create(Layout::new(0).references(vec![part.handle()]))?.seal();
    /// let id = part.id();
    /// drop(part);
    /// assert!(client.contains(id)?, "it is kept by the whole");
    /// drop(whole);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[inline]
    pub fn references(mut self, references: Vec<Handle>) -> Self {
        self.references = references;
        self
    }
}

/// Store memory to write an object into, in place: derefs to `&mut [u8]`, 64-byte aligned.
///
/// At first the bytes are those that an earlier object of this client left there. No other process sees them before
/// [`seal`](Self::seal). A writer that is dropped unsealed frees its memory, and there is no object.
///
/// ```
/// use mobula_client::Layout;
///
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let mut writer = client.create(Layout::new(1000))?;
/// for (at, byte) in writer.iter_mut().enumerate() {
///     *byte = at as u8;
/// }
/// let object = writer.seal();
/// assert_eq!(object[255], 255);
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[must_use]
pub struct ObjectWriter {
    draft: Draft,
}

impl ObjectWriter {
    #[inline]
    pub(crate) fn new(owner: &Owner, layout: Layout) -> Result<Self, ClientError> {
        let Layout { length, format, references } = layout;
        let references = references.into_iter().map(Handle::into_reference);
        Ok(Self { draft: Draft::new(owner, length, format, references)? })
    }

    /// The id that the object will have once it is sealed. Until then no process can get it.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let writer = client.create(Layout::new(0))?;
    /// let id = writer.id();
    /// assert!(!client.contains(id)?);
    /// let object = writer.seal();
    /// assert_eq!(object.id(), id);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.draft.id()
    }

    /// Makes the object visible to every process, for good: one atomic store, at any size. No copy and no message.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let mut writer = client.create(Layout::new(5))?;
    /// writer.copy_from_slice(b"hello");
    /// let object = writer.seal();
    /// assert_eq!(&other.get(object.id())?[..], b"hello");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Panics
    /// In a forked child, as all access to the bytes does.
    #[inline]
    pub fn seal(self) -> Object {
        let (reference, located) = self.draft.seal();
        Object::at(reference, located)
    }

    pub(crate) fn into_draft(self) -> Draft {
        self.draft
    }
}

impl Deref for ObjectWriter {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.draft
    }
}

impl DerefMut for ObjectWriter {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.draft
    }
}

impl fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter").field("id", &self.id()).field("bytes", &self.draft.length()).finish()
    }
}
