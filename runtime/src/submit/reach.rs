//! Channels to the processes that run calls of this one.
//!
//! An actor may have a handle to itself. Its calls to itself go through a channel within the process. So they take the
//! path of all calls, and keep their order.
//!
//! A process that is short of descriptors or memory can neither open nor accept a channel. No call may hang for that
//! reason: the calls that would be sent fail with it, and the next call tries again.

use std::sync::Arc;

use mobula_client::{Channel, Client, ClientError, OwnerId, Refusal};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::error::Failure;
use crate::mail::link::Link;
use crate::mail::links::Links;

/// Why a process cannot be reached.
pub(super) enum NotReached {
    /// The process or the session is gone. The head says what happens to the calls.
    Gone,
    /// There is no room for a channel to it.
    NoRoom(Failure),
}

impl From<ClientError> for NotReached {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(Refusal::NoSuchOwner { .. }) | ClientError::StoreLost => Self::Gone,
            error => Self::NoRoom(Failure::Unreachable { reason: error.to_string() }),
        }
    }
}

/// The channels that this process has opened. They stay open when a lease ends.
pub(super) struct Reach {
    client: Client,
    links: Arc<Links>,
    opened: Mutex<FxHashMap<OwnerId, Arc<Link>>>,
    /// Held while a channel is opened.
    opening: Mutex<()>,
}

impl Reach {
    pub(super) fn new(client: Client, links: Arc<Links>) -> Self {
        Self { client, links, opened: Mutex::default(), opening: Mutex::default() }
    }

    /// The link to a process that runs calls. The first use opens it, which waits for the daemon's answer. The link may
    /// be closed by the time that it is returned.
    pub(super) fn link_to(&self, process: OwnerId) -> Result<Arc<Link>, NotReached> {
        // One thread at a time: a second channel to the same process would stay open unused.
        let _opening = self.opening.lock();
        if let Some(link) = self.opened.lock().get(&process) {
            return Ok(link.clone());
        }
        let opened =
            if process == self.client.id() { self.loop_back() } else { self.client.connect_to(process) };
        let channel = opened.inspect_err(|error| {
            tracing::debug!(%process, %error, "no channel could be opened to a process");
        })?;
        let link = Arc::new(Link::new(channel, false));
        // This comes before `add`: a link that closes later is removed again.
        self.opened.lock().insert(process, link.clone());
        if !self.links.add(&link) {
            link.close();
            self.forget(&link);
        }
        Ok(link)
    }

    /// Opens a channel to this process itself. Its other end receives calls like the channels that other processes
    /// opened.
    fn loop_back(&self) -> Result<Channel, ClientError> {
        let [own, other] = self.client.loop_back()?;
        self.links.add(&Arc::new(Link::new(other, true)));
        Ok(own)
    }

    /// The link of this number to a process, if it is open.
    pub(super) fn open_link(&self, process: OwnerId, link: u64) -> Option<Arc<Link>> {
        self.opened.lock().get(&process).filter(|open| open.id == link).cloned()
    }

    /// A link is lost.
    pub(super) fn forget(&self, link: &Link) {
        let mut opened = self.opened.lock();
        if opened.get(&link.peer).is_some_and(|other| other.id == link.id) {
            opened.remove(&link.peer);
        }
    }
}
