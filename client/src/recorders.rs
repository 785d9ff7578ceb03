//! The events of this client and of others: see [`mobula_shm::recorder`].

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Reply, Request};
use mobula_shm::recorder::{Reader, Recorder};

use crate::daemon::connection::Connection;
use crate::error::ClientError;

/// The events of a client, alive or dead.
#[derive(Debug)]
pub struct Recorded {
    /// The client.
    pub owner: OwnerId,
    /// Its process; 0 where the daemon cannot see it.
    pub pid: u32,
    /// Its name for people.
    pub label: String,
    /// Whether it has died.
    pub dead: bool,
    /// Its events.
    pub reader: Reader,
}

/// Begins to record events of these kinds. A client without events is as good as any.
pub(crate) fn begin(control: BorrowedFd<'_>, kinds: u32) -> Option<Arc<Recorder>> {
    if kinds == 0 {
        return None;
    }
    match Recorder::map(control, kinds) {
        Ok(recorder) => Some(Arc::new(recorder)),
        Err(error) => {
            tracing::warn!(%error, "no events are recorded");
            None
        }
    }
}

/// The events of all clients that record some, in the order in which they have connected. A round trip for each.
pub(crate) fn all(connection: &Connection) -> Result<Vec<Recorded>, ClientError> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let answer = connection.request("ask for events", &Request::NextRecorder { after })?;
        let (owner, pid, label, dead) = match &answer.reply {
            Reply::Recorder { owner, pid, label, dead } => (*owner, *pid, label.clone(), *dead),
            Reply::Done {} => return Ok(all),
            other => return Err(ClientError::unexpected(other)),
        };
        let [control] = answer.descriptors()?;
        ClientError::check_goes_on(owner.epoch() > after)?;
        after = owner.epoch();
        if let Some(reader) = Reader::map(control.as_fd())? {
            all.push(Recorded { owner, pid, label, dead, reader });
        }
    }
}

/// An object as the values of an event have it.
pub(crate) fn id_words(object: ObjectId) -> [u64; 2] {
    let id = u128::from_le_bytes(object.to_bytes());
    [id as u64, (id >> 64) as u64]
}
