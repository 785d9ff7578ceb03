//! The names of actors in a session that drivers share. They are names in the store, so all drivers see the same actor
//! behind a name, and a name survives the death of the session's process.
//!
//! A name of the store keeps its object alive. So the name does not refer to the object of the actor's token. It refers
//! to an empty object of the actor's head, whose id says which head that is.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use mobula_client::{Client, ClientError, OwnerId, Refusal};
use nix::fcntl::{Flock, FlockArg};

use crate::error::Failure;

/// The beginning of actors' names in the store.
const PREFIX: &str = "mobula/actor/";
/// Separates the namespace from the name. Neither of them contains it.
const SEPARATOR: char = '\0';
/// The file that is locked while the name of a driver that has ended is taken over.
const LOCK: &str = "names";

/// See the module's documentation.
pub(super) struct SharedNames {
    client: Client,
    lock: PathBuf,
}

impl SharedNames {
    pub(super) fn new(client: Client, directory: PathBuf) -> Self {
        Self { client, lock: directory.join(LOCK) }
    }

    /// Takes a name for an actor of this head.
    pub(super) fn publish(&self, namespace: &str, name: &str) -> Result<(), Failure> {
        let here = self.client.put(&[])?;
        let shared = shared(namespace, name);
        let taken = |error: ClientError| match error {
            ClientError::Refused(Refusal::NameTaken { .. }) => Failure::NameTaken { name: name.to_owned() },
            error => error.into(),
        };
        match self.client.publish(&shared, here.id()) {
            Err(ClientError::Refused(Refusal::NameTaken { .. })) => {
                // One driver at a time removes the name of one that has ended, and looks again before it does.
                let lock = File::options().create(true).append(true).open(&self.lock).ok();
                let _lock = lock.and_then(|lock| Flock::lock(lock, FlockArg::LockExclusive).ok());
                if self.client.lookup(&shared)?.is_some_and(|holder| !self.is_there(holder.owner())) {
                    self.client.unpublish(&shared)?;
                }
                self.client.publish(&shared, here.id()).map_err(taken)
            }
            result => result.map_err(taken),
        }
    }

    /// The name of an actor that has ended is free.
    pub(super) fn unpublish(&self, namespace: &str, name: &str) {
        if let Err(error) = self.client.unpublish(shared(namespace, name)) {
            tracing::warn!(%error, name, "the name of an actor that has ended");
        }
    }

    /// The head of the actor that has a name.
    pub(super) fn head_of(&self, namespace: &str, name: &str) -> Option<OwnerId> {
        let object = self.client.lookup(shared(namespace, name)).ok()??;
        Some(object.owner())
    }

    /// The namespaces and names of the actors of all drivers that live.
    pub(super) fn list(&self) -> Vec<(String, String)> {
        let (mut heads, mut listed) = (HashMap::new(), Vec::new());
        for info in self.client.names().unwrap_or_default() {
            let name = std::str::from_utf8(&info.name).ok().and_then(|name| name.strip_prefix(PREFIX));
            let Some((namespace, name)) = name.and_then(|name| name.split_once(SEPARATOR)) else { continue };
            let head = info.object.owner();
            if *heads.entry(head).or_insert_with(|| self.is_there(head)) {
                listed.push((namespace.to_owned(), name.to_owned()));
            }
        }
        listed
    }

    /// Whether a head lives.
    fn is_there(&self, head: OwnerId) -> bool {
        head == self.client.id()
            || !matches!(self.client.connect_to(head), Err(ClientError::Refused(Refusal::NoSuchOwner { .. })))
    }
}

/// The name in the store.
fn shared(namespace: &str, name: &str) -> String {
    format!("{PREFIX}{namespace}{SEPARATOR}{name}")
}
