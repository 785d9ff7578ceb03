//! How to connect to a store.

use std::path::Path;
use std::time::Duration;

use mobula_protocol::message::LABEL_BYTES_MAX;

use crate::daemon::connection::Timeouts;

/// How to connect to a store: a label and three timeouts, each with a default. A setter takes the options and returns
/// them, and [`connect`](Self::connect) ends the chain.
///
/// ```
/// use std::time::Duration;
/// use mobula_client::ConnectOptions;
///
/// # let store = mobula_test_store::start();
/// # let socket = store.socket();
/// let options = ConnectOptions::new().label("reader 1").lease_timeout(Duration::from_secs(2));
/// let client = options.connect(&socket)?;
/// assert_eq!(client.stats()?.clients[0].label, "reader 1");
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ConnectOptions {
    pub(crate) label: String,
    pub(crate) timeouts: Timeouts,
    /// The kinds of events that are recorded.
    pub(crate) events: u32,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let program = std::env::args_os().next().unwrap_or_default();
        let label = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let [answer, memory, reconnect] = [Duration::from_secs(10); 3];
        Self { label, timeouts: Timeouts { answer, memory, reconnect }, events: 0 }
    }
}

impl ConnectOptions {
    /// The defaults: the program's name as the label, and 10 s for each of the three timeouts.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let socket = store.socket();
    /// let client = mobula_client::ConnectOptions::new().connect(&socket)?;
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// The name that people see this client by, as in [`Client::stats`](crate::Client::stats). It is cut to 256 bytes.
    /// Default: the program's name.
    ///
    /// ```
    /// # use mobula_client::ConnectOptions;
    /// # let store = mobula_test_store::start();
    /// # let socket = store.socket();
    /// let client = ConnectOptions::new().label("the cache").connect(&socket)?;
    /// assert_eq!(client.stats()?.clients[0].label, "the cache");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        let max = self.label.floor_char_boundary(LABEL_BYTES_MAX);
        self.label.truncate(max);
        self
    }

    /// The kinds of events that this client records: a bit for each. Default: none.
    // For the runtime, which records calls beside the client's own events.
    #[doc(hidden)]
    pub fn events(mut self, kinds: u32) -> Self {
        self.events = kinds;
        self
    }

    /// How long a put waits for room in a full store before it fails with
    /// [`Refusal::StoreFull`](crate::Refusal::StoreFull). Default: 10 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula_client::{ClientError, ConnectOptions, Layout, Refusal};
    ///
    /// # let store = mobula_test_store::start();
    /// # let socket = store.socket();
    /// let client = ConnectOptions::new().lease_timeout(Duration::from_millis(1)).connect(&socket)?;
    /// let _most = client.create(Layout::new(client.capacity_bytes() * 3 / 4))?;
    /// let error = client.create(Layout::new(client.capacity_bytes() / 2)).unwrap_err();
    /// assert!(matches!(error, ClientError::Refused(Refusal::StoreFull { .. })));
    /// # Ok::<(), ClientError>(())
    /// ```
    pub fn lease_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.memory = timeout;
        self
    }

    /// How long the daemon may take to answer before a request fails with
    /// [`ClientError::Timeout`](crate::ClientError::Timeout). Default: 10 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use mobula_client::ConnectOptions;
    /// # let store = mobula_test_store::start();
    /// # let socket = store.socket();
    /// let client = ConnectOptions::new().answer_timeout(Duration::from_secs(60)).connect(&socket)?;
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.answer = timeout;
        self
    }

    /// How long this client looks for another daemon in the place of one that was killed. It hands its descriptors over
    /// to the new daemon, and continues; requests wait meanwhile. When the time has passed, the store is lost
    /// permanently; with a timeout of zero, at once. Default: 10 s.
    ///
    /// A daemon that ends on purpose says goodbye, and the client looks for no other one.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use mobula_client::ConnectOptions;
    /// # let store = mobula_test_store::start();
    /// # let socket = store.socket();
    /// // The daemon may be restarted within a day.
    /// let client = ConnectOptions::new().resume_timeout(Duration::from_secs(86_400)).connect(&socket)?;
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    pub fn resume_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.reconnect = timeout;
        self
    }
}
