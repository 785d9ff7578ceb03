//! Clients that are told which names are given and removed.
//!
//! The changes of one request are told together: making room can remove thousands of names at once, and the queue of a
//! client has a limit.

use std::collections::BTreeSet;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::{NameChange, Notice};
use mobula_protocol::socket::MESSAGE_BYTES_MAX;

use crate::core::names::Names;
use crate::daemon::client::list::object_info;
use crate::daemon::registry::Registry;

/// Bytes of a notice's changes. The rest is for the header and the fields around them.
const CHANGES_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 64;
/// Bytes of a change without its name, at most.
const CHANGE_BYTES: usize = 64;

/// The clients that watch, and the changes that they have not been told of yet.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    clients: BTreeSet<u16>,
    changes: Vec<NameChange>,
}

impl Watchers {
    pub(crate) fn add(&mut self, client: u16) {
        self.clients.insert(client);
    }

    /// A client has died: it is told nothing more.
    pub(crate) fn forget(&mut self, client: u16) {
        self.clients.remove(&client);
    }

    pub(crate) fn name_given(&mut self, registry: &Registry, names: &Names, name: Vec<u8>, object: ObjectId) {
        if self.clients.is_empty() {
            return;
        }
        let info = registry.owner(object.owner()).and_then(|owner| object_info(names, owner, object.index()));
        // The object can be gone by now, whatever its owner does: then its name is removed soon.
        self.changes.extend(info.map(|info| NameChange::new(name, Some(info))));
    }

    pub(crate) fn name_removed(&mut self, name: &[u8]) {
        if !self.clients.is_empty() {
            self.changes.push(NameChange::new(name, None));
        }
    }

    /// Tells the clients of the changes since the last call.
    pub(crate) fn tell(&mut self, registry: &mut Registry) {
        let (mut page, mut bytes) = (Vec::new(), 0);
        for change in std::mem::take(&mut self.changes) {
            let length = CHANGE_BYTES + change.name.len();
            if bytes + length > CHANGES_BYTES_MAX {
                self.send(registry, std::mem::take(&mut page));
                bytes = 0;
            }
            bytes += length;
            page.push(change);
        }
        if !page.is_empty() {
            self.send(registry, page);
        }
    }

    fn send(&self, registry: &mut Registry, changes: Vec<NameChange>) {
        let notice = Notice::NamesChanged { changes };
        for client in &self.clients {
            registry.notify(*client, &notice, Vec::new());
        }
    }
}
