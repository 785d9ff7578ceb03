//! Prefaulting: the pages of a lease are allocated before it is handed out, a slice at a time.
//!
//! The kernel takes a twentieth of a second for a gigabyte of zeroed huge pages, and many times that where it has only
//! small ones, or must make room first. The work is done in slices, and other clients are served between them. So a
//! large lease delays only its own client.

use std::collections::VecDeque;

use mobula_protocol::message::{Refusal, Reply};
use mobula_shm::failpoints::{Failpoint, failpoint};

use crate::daemon::answer::{Answer, Outcome, no_memory};
use crate::daemon::registry::Registry;
use crate::memory::Memory;

/// Bytes that are allocated in one slice.
const SLICE_BYTES: u64 = 16 << 20;

/// A granted lease of which pages are missing.
#[derive(Debug)]
pub(crate) struct Prefault {
    pub(crate) client: u16,
    pub(crate) correlation: u64,
    pub(crate) segment: u32,
    pub(crate) memory: Memory,
    pub(crate) bytes: u64,
    /// Bytes of the pages that are there.
    pub(crate) done: u64,
}

/// The leases of which pages are missing, in order.
#[derive(Debug, Default)]
pub(crate) struct Prefaults {
    queue: VecDeque<Prefault>,
}

impl Prefaults {
    /// Allocates the next slice of a lease. Answers the lease after the last slice, or puts it behind the others.
    pub(crate) fn allocate(&mut self, registry: &mut Registry, mut lease: Prefault) -> Outcome {
        let Prefault { client, segment, bytes, .. } = lease;
        if registry.segments.get(client, segment).is_none() {
            // Its client gave it back before it got it.
            let owner = registry.owners[&client].id;
            return Err(Refusal::NoSuchSegment { owner, segment });
        }
        let end = bytes.min(lease.done + SLICE_BYTES);
        if let Err(error) = lease.memory.allocate_slice(lease.done..end) {
            registry.retire(client, segment);
            return Err(no_memory(bytes, &error));
        }
        failpoint(Failpoint::LeasePrefaulted);
        if end == bytes {
            return Ok(Answer::Now(Reply::Leased { segment, bytes }, vec![lease.memory.to_write()]));
        }
        lease.done = end;
        self.queue.push_back(lease);
        Ok(Answer::Later)
    }

    /// Goes on with the next lease.
    pub(crate) fn go_on(&mut self, registry: &mut Registry) {
        let Some(lease) = self.queue.pop_front() else { return };
        let (client, correlation) = (lease.client, lease.correlation);
        match self.allocate(registry, lease) {
            Ok(Answer::Now(reply, attachments)) => registry.reply(client, correlation, &reply, attachments),
            Ok(Answer::Later) => {}
            Err(refusal) => registry.reply(client, correlation, &Reply::Failed { refusal }, Vec::new()),
        }
    }

    /// Whether pages of a segment are still to be allocated.
    pub(crate) fn contains(&self, client: u16, segment: u32) -> bool {
        self.queue.iter().any(|lease| (lease.client, lease.segment) == (client, segment))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A client has died: its leases end.
    pub(crate) fn forget(&mut self, client: u16) {
        self.queue.retain(|lease| lease.client != client);
    }
}
