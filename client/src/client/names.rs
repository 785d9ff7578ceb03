//! Names of objects. The daemon keeps them, so each operation is a round trip.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::{NAME_BYTES_MAX, NameInfo, Refusal, Reply, Request};

use super::Client;
use crate::error::ClientError;
use crate::object::Object;

impl Client {
    /// Gives an object a name, which keeps it alive. A round trip.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let object = client.put(b"sealed bytes")?;
    /// client.publish("greeting", object.id())?;
    /// drop(object);
    /// assert_eq!(&other.get_named("greeting", std::time::Duration::ZERO)?[..], b"sealed bytes");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// - [`Refusal::NameTaken`]: another object has the name.
    /// - [`Refusal::NoSuchObject`]: the object does not exist.
    /// - [`Refusal::LimitReached`]: the name has more than 1024 bytes, or the store has as many names as it may have.
    /// - [`Refusal::BadRequest`]: the name is empty.
    pub fn publish(&self, name: impl AsRef<[u8]>, object: ObjectId) -> Result<(), ClientError> {
        let name = checked_name(name.as_ref())?;
        // The daemon would end the connection for an impossible name.
        if name.is_empty() {
            return Err(Refusal::BadRequest { reason: "an empty name".into() }.into());
        }
        let request = Request::Publish { name, object };
        self.ask_for_done("publish", &request)
    }

    /// The object that has a name now. A round trip.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// assert_eq!(client.lookup("greeting")?, None);
    /// let object = client.put(b"hello")?;
    /// client.publish("greeting", object.id())?;
    /// assert_eq!(client.lookup("greeting")?, Some(object.id()));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked. If no object has the name, the result is `None`.
    pub fn lookup(&self, name: impl AsRef<[u8]>) -> Result<Option<ObjectId>, ClientError> {
        match self.lookup_within(name.as_ref(), Duration::ZERO) {
            Ok(object) => Ok(Some(object)),
            Err(ClientError::Refused(Refusal::NoSuchName {})) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of the object that has a name. Waits until an object is published under the name. A round trip, and
    /// then the cost of [`get`](Self::get).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// std::thread::spawn(move || other.publish("greeting", other.put(b"hello")?.id()));
    /// let greeting = client.get_named("greeting", Duration::from_secs(10))?;
    /// assert_eq!(&greeting[..], b"hello");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// [`Refusal::NoSuchName`]: no object had the name within `timeout`. And those of [`get`](Self::get).
    pub fn get_named(&self, name: impl AsRef<[u8]>, timeout: Duration) -> Result<Object, ClientError> {
        self.get(self.lookup_within(name.as_ref(), timeout)?)
    }

    /// Removes a name from its object. The name no longer keeps the object alive. A round trip.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"hello")?;
    /// client.publish("greeting", object.id())?;
    /// client.unpublish("greeting")?;
    /// assert_eq!(client.lookup("greeting")?, None);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// [`Refusal::NoSuchName`]: no object has the name.
    pub fn unpublish(&self, name: impl AsRef<[u8]>) -> Result<(), ClientError> {
        self.ask_for_done("unpublish", &Request::Unpublish { name: checked_name(name.as_ref())? })
    }

    /// All names, in order. A round trip for each page.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"hello")?;
    /// client.publish("greeting", object.id())?;
    /// let names = client.names()?;
    /// assert_eq!((&names[0].name[..], names[0].object), (&b"greeting"[..], object.id()));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn names(&self) -> Result<Vec<NameInfo>, ClientError> {
        let mut all: Vec<NameInfo> = Vec::new();
        loop {
            let after = all.last().map(|info| info.name.clone()).unwrap_or_default();
            match self.ask("list names", &Request::ListNames { after })? {
                Reply::Names { names, more } => {
                    let goes_on = names.last().map(|info| &info.name) > all.last().map(|info| &info.name);
                    all.extend(names);
                    if !more {
                        return Ok(all);
                    }
                    ClientError::check_goes_on(goes_on)?;
                }
                other => return Err(ClientError::unexpected(&other)),
            }
        }
    }

    /// From now on each name that any client gives or removes is an [event](Self::events) of this client. A round
    /// trip.
    ///
    /// When the daemon is killed and another one takes its place, names that change before
    /// [`Event::StoreResumed`](crate::Event::StoreResumed) make no event.
    ///
    /// ```
    /// use mobula_client::Event;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let mut events = client.events();
    /// client.watch_names()?;
    /// let object = other.put(b"hello")?;
    /// other.publish("greeting", object.id())?;
    /// other.unpublish("greeting")?;
    ///
    /// let Some(Event::NameChanged(given)) = events.next() else { panic!("no event") };
    /// assert_eq!((given.name, given.object.map(|object| object.bytes)), (b"greeting".to_vec(), Some(5)));
    /// let Some(Event::NameChanged(removed)) = events.next() else { panic!("no event") };
    /// assert_eq!((removed.name, removed.object), (b"greeting".to_vec(), None));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn watch_names(&self) -> Result<(), ClientError> {
        self.ask_for_done("watch names", &Request::WatchNames {})?;
        self.shared().watches_names.store(true, Ordering::Release);
        Ok(())
    }

    fn lookup_within(&self, name: &[u8], timeout: Duration) -> Result<ObjectId, ClientError> {
        let timeout_ms = timeout.as_millis().min(u128::from(u64::MAX)) as u64;
        let request = Request::Lookup { name: checked_name(name)?, timeout_ms };
        match self.shared().connection.request_within("look a name up", &request, timeout)?.reply {
            Reply::Found { object } => Ok(object),
            other => Err(ClientError::unexpected(&other)),
        }
    }
}

fn checked_name(name: &[u8]) -> Result<Vec<u8>, ClientError> {
    if name.len() > NAME_BYTES_MAX {
        let max = NAME_BYTES_MAX as u64;
        return Err(Refusal::LimitReached { limit: "name_bytes_max".into(), max }.into());
    }
    Ok(name.to_vec())
}
