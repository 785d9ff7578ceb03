//! The parts of one client, as its clones, its background thread and its objects share them.
//!
//! Each part knows the connection, and none of the others. An operation is handed the parts that it needs.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::channel::Channels;
use crate::daemon::connection::Connection;
use crate::daemon::escrow::Escrow;
use crate::event::EventSource;
use crate::owner::Owner;
use crate::reader::peers::Peers;
use crate::spill::jobs::SpillJobs;

/// The state behind a [`Client`](crate::Client).
pub(crate) struct Shared {
    /// The name that people see this client by.
    pub(crate) label: String,
    pub(crate) connection: Arc<Connection>,
    /// This client's own objects.
    pub(crate) owner: Owner,
    /// The other clients whose objects are used here.
    pub(crate) peers: Peers,
    pub(crate) channels: Arc<Channels>,
    pub(crate) events: EventSource,
    pub(crate) spill_jobs: SpillJobs,
    pub(crate) escrow: Escrow,
    /// The daemon's control memory, for the next daemon.
    pub(crate) daemon_control: OwnedFd,
    /// Whether the daemon tells this client which names change.
    pub(crate) watches_names: AtomicBool,
}

impl Shared {
    /// The last [`Client`](crate::Client) is gone: from now on this stays only while anything of it is in use.
    pub(crate) fn close(self: &Arc<Self>) {
        if self.connection.is_child() {
            // Nothing is counted in a forked child, so the drop of the last object is not noticed there. And another
            // thread of the parent's may have a lock for ever.
            std::mem::forget(self.clone());
            return;
        }
        self.owner.close(self.clone());
        self.owner.collect();
        self.peers.forget_all();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.connection.close();
    }
}
