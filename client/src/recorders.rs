//! The events of this client and of others: see [`mobula_shm::recorder`].

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Reply, Request};
use mobula_shm::recorder::{Reader, Recorder};
use mobula_shm::table::{ENTRIES_MAX, TableReader};

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
    /// Its table, if it contains the times and places at which objects were made.
    origins: Option<TableReader>,
}

impl Recorded {
    /// The time and the place at which the object with this index was made: the tick, and the number of the name;
    /// `None` if they were not recorded.
    pub fn origin(&self, index: u32) -> Option<(u64, u16)> {
        let origins = self.origins.as_ref().filter(|_| index < ENTRIES_MAX)?;
        Some(origins.origin(index)).filter(|(tick, _)| *tick != 0)
    }
}

/// Begins to record events of these kinds. If that fails, the client works without events.
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
            let origins = reader.notes_origins().then(|| TableReader::map(control.as_fd())).transpose()?;
            all.push(Recorded { owner, pid, label, dead, reader, origins });
        }
    }
}

/// An object as the values of an event have it.
pub(crate) fn id_words(object: ObjectId) -> [u64; 2] {
    let id = u128::from_le_bytes(object.to_bytes());
    [id as u64, (id >> 64) as u64]
}
