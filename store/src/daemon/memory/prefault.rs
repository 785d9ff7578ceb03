//! Allocating the pages of a lease, a slice at a time.
//!
//! The kernel takes a twentieth of a second for a gigabyte of zeroed huge pages, and many times that where it has only
//! small ones, or must make room first. In slices, between which everyone else is served, a large lease costs only its
//! own client that time.

use mobula_protocol::message::{Refusal, Reply};
use mobula_shm::failpoints::{Failpoint, failpoint};

use crate::daemon::{Answer, Daemon, Outcome};
use crate::memory::{Memory, no_memory};

/// Bytes that are allocated in one go.
const SLICE_BYTES: u64 = 16 << 20;

/// A granted lease of which pages are missing.
#[derive(Debug)]
pub(crate) struct Filling {
    pub(crate) client: u16,
    pub(crate) correlation: u64,
    pub(crate) segment: u32,
    pub(crate) memory: Memory,
    pub(crate) bytes: u64,
    pub(crate) filled: u64,
}

impl Daemon {
    /// Allocates the next slice; answers the lease after the last one, or puts it behind the others.
    pub(crate) fn fill(&mut self, mut filling: Filling) -> Outcome {
        let Filling { client, segment, bytes, .. } = filling;
        if self.segments.get(client, segment).is_none() {
            // Its client gave it back unseen.
            let owner = self.owners[&client].id;
            return Err(Refusal::NoSuchSegment { owner, segment });
        }
        let end = bytes.min(filling.filled + SLICE_BYTES);
        if let Err(error) = filling.memory.allocate_slice(filling.filled..end) {
            self.retire(client, segment);
            return Err(no_memory(bytes, &error));
        }
        failpoint(Failpoint::LeasePrefaulted);
        if end == bytes {
            return Ok(Answer::Now(Reply::Leased { segment, bytes }, vec![filling.memory.to_write()]));
        }
        filling.filled = end;
        self.fillings.push_back(filling);
        Ok(Answer::Later)
    }

    /// Goes on with the lease whose turn it is.
    pub(crate) fn fill_next(&mut self) {
        let Some(filling) = self.fillings.pop_front() else { return };
        let (client, correlation) = (filling.client, filling.correlation);
        match self.fill(filling) {
            Ok(Answer::Now(reply, parcels)) => self.reply(client, correlation, &reply, parcels),
            Ok(Answer::Later) => {}
            Err(refusal) => self.reply(client, correlation, &Reply::Failed { refusal }, Vec::new()),
        }
    }
}
