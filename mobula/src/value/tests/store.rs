//! A store for the tests that need one: a daemon in a thread, and clients of it in this process. Two clients map an
//! object at two addresses, as two processes would.

use std::ops::Deref;
use std::path::PathBuf;
use std::thread::JoinHandle;

use mobula_client::{Client, Layout, Object};
use mobula_store::{Config, RunError, Server, Stopper};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::value::{Encoded, Source, ValueError, decode, encode, format};

/// A running store and its first client. It ends when dropped.
pub(super) struct Store {
    client: Client,
    socket: PathBuf,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), RunError>>>,
    _directory: TempDir,
}

impl Store {
    pub(super) fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("store.sock");
        let server = Server::bind(Config::new(&socket, 64 << 20)).unwrap();
        let stopper = server.stopper();
        let thread = Some(std::thread::spawn(move || server.run()));
        let client = Client::connect(&socket).unwrap();
        Self { client, socket, stopper, thread, _directory: directory }
    }

    /// Another client of the same store.
    pub(super) fn another_client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }
}

impl Deref for Store {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("started").expect("the store panicked").expect("the store ended well");
        }
    }
}

/// Puts a value as the runtime does.
pub(super) fn put<T: Serialize + ?Sized>(client: &Client, value: &T) -> Object {
    put_encoded(client, &encode(value).unwrap(), format::PLAIN)
}

pub(super) fn put_encoded(client: &Client, encoded: &Encoded, format: u32) -> Object {
    let references = encoded.references().to_vec();
    let mut writer =
        client.create(Layout::new(encoded.len() as u64).format(format).references(references)).unwrap();
    encoded.write_into(&mut writer);
    writer.seal()
}

/// Gets a value as the runtime does.
pub(super) fn get<T: DeserializeOwned>(client: &Client, object: &Object) -> Result<T, ValueError> {
    let object = client.get(object.id())?;
    let references = object.references().into_iter().map(|id| client.hold(id).unwrap()).collect();
    decode(Source::object(object, references))
}
