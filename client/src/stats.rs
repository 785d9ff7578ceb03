//! A store in numbers.

/// A row of [`Stats::clients`].
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let stats = client.stats()?;
/// assert_eq!((stats.clients[0].owner, stats.clients[0].pid), (client.id(), std::process::id()));
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[doc(inline)]
pub use mobula_protocol::message::ClientInfo;

/// A row of [`Client::names`](crate::Client::names).
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let object = client.put(b"hello")?;
/// client.publish("greeting", object.id())?;
/// let info = &client.names()?[0];
/// assert_eq!((&info.name[..], info.object), (&b"greeting"[..], object.id()));
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[doc(inline)]
pub use mobula_protocol::message::NameInfo;

/// A name that was given or removed: [`Event::NameChanged`](crate::Event::NameChanged).
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let mut events = client.events();
/// client.watch_names()?;
/// client.publish("greeting", client.put(b"hello")?.id())?;
/// let Some(mobula_client::Event::NameChanged(change)) = events.next() else { panic!("no event") };
/// assert_eq!((&change.name[..], change.object.is_some()), (&b"greeting"[..], true));
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[doc(inline)]
pub use mobula_protocol::message::NameChange;

/// A row of [`Client::list`](crate::Client::list).
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let _object = client.put(b"hello")?;
/// let info = &client.list()?[0];
/// assert_eq!((info.bytes, info.holders, info.spilled), (5, 1, false));
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[doc(inline)]
pub use mobula_protocol::message::ObjectInfo;

/// A row of [`Client::segments`](crate::Client::segments).
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let _object = client.put(b"hello")?;
/// let info = &client.segments()?[0];
/// assert!(info.page_bytes <= info.bytes && !info.orphaned && !info.retired);
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[doc(inline)]
pub use mobula_protocol::message::SegmentInfo;

/// A row of [`Client::locations`](crate::Client::locations).
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let _object = client.put(b"hello")?;
/// assert_eq!(client.locations()?[0].bytes, 5);
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[doc(inline)]
pub use mobula_protocol::message::LocationInfo;

/// The sums of a store: [`Stats::totals`].
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let totals = client.stats()?.totals;
/// println!("{} of {} bytes are free", totals.free_bytes, totals.capacity_bytes);
/// assert_eq!(totals.clients, 1);
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[doc(inline)]
pub use mobula_protocol::message::Totals;

/// A store in numbers; see [`Client::stats`](crate::Client::stats). The rows were read one page after the other, so
/// they are not of one moment.
///
/// ```
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let _object = client.put(&[7; 1000])?;
/// let stats = client.stats()?;
/// assert_eq!(stats.clients[0].owner, client.id());
/// assert!(stats.totals.leased_bytes >= stats.object_bytes());
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The store as a whole.
    pub totals: Totals,
    /// Each client, and each dead one of which objects remain.
    pub clients: Vec<ClientInfo>,
}

impl Stats {
    /// Statistics that consist of these parts: for a program that shows or checks statistics, and its tests.
    ///
    /// ```
    /// use mobula_client::{Stats, Totals};
    ///
    /// let stats = Stats::new(Totals::default(), Vec::new());
    /// assert_eq!(stats.objects(), 0);
    /// ```
    #[must_use]
    pub fn new(totals: Totals, clients: Vec<ClientInfo>) -> Self {
        Self { totals, clients }
    }

    /// Objects of all clients.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let _objects = [client.put(b"one")?, client.put(b"two")?];
    /// assert_eq!(client.stats()?.objects(), 2);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.sum(|client| client.objects)
    }

    /// Bytes of all objects' payloads.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let _objects = [client.put(b"one")?, client.put(b"four")?];
    /// assert_eq!(client.stats()?.object_bytes(), 7);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn object_bytes(&self) -> u64 {
        self.sum(|client| client.object_bytes)
    }

    /// Objects of all clients that are spilled to disk.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// // This store has no directory to spill into.
    /// assert_eq!(client.stats()?.spilled_objects(), 0);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn spilled_objects(&self) -> u64 {
        self.sum(|client| client.spilled_objects)
    }

    /// Bytes of the payloads of [spilled objects](Self::spilled_objects).
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let stats = client.stats()?;
    /// assert_eq!(stats.object_bytes() - stats.spilled_bytes(), 0, "nothing is in memory");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn spilled_bytes(&self) -> u64 {
        self.sum(|client| client.spilled_bytes)
    }

    /// Objects that clients pin, counted for each client.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let (one, other) = (store.client(), store.client());
    /// let object = one.put(b"held by two clients")?;
    /// let _same = other.get(object.id())?;
    /// assert_eq!(one.stats()?.pins(), 2);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn pins(&self) -> u64 {
        self.sum(|client| client.pins)
    }

    /// Lengths come from the owners, and may be anything.
    fn sum(&self, number: impl Fn(&ClientInfo) -> u64) -> u64 {
        self.clients.iter().map(number).fold(0, u64::saturating_add)
    }
}
