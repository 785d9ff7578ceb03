//! A spilled object comes back into memory.
//!
//! A thread that wants the bytes of a spilled object has borrowed them first, so that the object stays once it is back.
//! A thread of its owner restores it itself; for another client the daemon asks the owner. Two threads that want the
//! same object restore it once. If there is no memory for it, and none can be freed, it stays in its file, and the
//! reader [copies it](crate::spill::copy).

use std::time::Duration;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::{Refusal, Request};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::recorder::{Kind, WaitFor};

use crate::draft::Draft;
use crate::error::ClientError;
use crate::owner::Owner;
use crate::recorders::id_words;
use crate::reference::{Reference, Source};
use crate::spill::record::RecordReader;

/// How long it may take to find out that the disk is full.
const DISK_PATIENCE: Duration = Duration::from_millis(250);

/// Has a spilled object restored: by this thread, or by its owner at the daemon's request. The reference must be a
/// borrow, so that the object stays in memory.
///
/// # Errors
/// [`Refusal::SpillDamaged`]; [`Refusal::NotRestored`] where the file cannot be read; the errors of a put, where there
/// is no room in time; the daemon's.
#[cold]
pub(crate) fn restore(borrow: &Reference) -> Result<(), ClientError> {
    let object = borrow.id();
    match borrow.source() {
        Source::Own(owner) => restore_own(owner, object),
        Source::Peer(peer) => {
            let timeout = peer.connection.timeouts().memory;
            let request = Request::Restore { object, timeout_ms: timeout.as_millis() as u64 };
            let recorder = peer.connection.recorder();
            let _waiting = recorder.map(|recorder| recorder.wait(WaitFor::Restore, id_words(object)));
            peer.connection.request_within("restore a spilled object", &request, timeout).map(drop)
        }
    }
}

/// Restores an object of this client's, to which the caller has a reference.
///
/// # Errors
/// As [`restore`].
pub(crate) fn restore_own(owner: &Owner, object: ObjectId) -> Result<(), ClientError> {
    let _alone = owner.spilled.begin_restoring(object.index());
    let Some((location, place)) = owner.table.spill_record(object) else {
        // Another thread was faster.
        return Ok(());
    };
    let file = owner.spilled.file(place.file()).ok_or_else(|| {
        let reason = "its spill file is not known".to_owned();
        ClientError::from(Refusal::NotRestored { object, reason })
    })?;
    let record = RecordReader::open(&file, place.offset(), object, &location)?;
    // While the disk is full, nobody makes room: the reader copies the object instead.
    owner.find_room(record.extent(), DISK_PATIENCE).or_else(|error| match error {
        ClientError::Refused(Refusal::SpillFailed { .. }) => Err(error),
        _ => Ok(()),
    })?;
    // Memory for payload and references together.
    let mut draft = Draft::new(owner, record.extent(), 0, std::iter::empty())?;
    record.read(&mut draft)?;
    failpoint(Failpoint::RestoreRead);
    if draft.restore(object, &location) {
        owner.spilled.remove_record(place.file());
        if let Some(recorder) = owner.connection.recorder() {
            let [low, high] = id_words(object);
            recorder.note(Kind::Restored, 0, 0, [low, high, location.length, owner.leased_bytes(), 0, 0]);
        }
    }
    Ok(())
}
