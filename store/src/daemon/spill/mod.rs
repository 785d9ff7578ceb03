//! The daemon's part in spilling: files, the choice of the owner that spills, and clients that wait for objects.
//!
//! The owner decides which objects go into a file, and when.

pub(crate) mod disk;
pub(crate) mod files;
pub(crate) mod policy;
pub(crate) mod waiting;

use mobula_protocol::message::Reply;

use crate::daemon::answer::{Answer, Outcome};
use crate::daemon::registry::Registry;
use crate::memory::Attachment;

/// Makes a file for a client to spill into.
pub(crate) fn make_file(registry: &mut Registry, client: u16, bytes: u64) -> Outcome {
    let free_bytes = registry.segments.free();
    let (file, descriptor) = registry.spill_files.make(&registry.config, free_bytes, client, bytes)?;
    Ok(Answer::Now(Reply::SpillFileMade { file }, vec![Attachment::File(descriptor)]))
}

/// A client needs a file no more.
pub(crate) fn discard_file(registry: &mut Registry, client: u16, file: u32) -> Outcome {
    // A client may discard a file of which it has never heard, because the reply was lost: that is no reason to end it.
    registry.spill_files.discard(client, file);
    Answer::done()
}
