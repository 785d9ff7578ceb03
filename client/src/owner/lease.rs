//! Memory comes from the daemon, as leases of whole segments, and goes back.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mobula_protocol::message::{Refusal, Reply, Request};
use mobula_shm::clock;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::mapping::WriteMapping;
use mobula_shm::memory::{check_received, punch_hole, round_up_to_pages};
use mobula_shm::recorder::{Kind, WaitFor};
use mobula_shm::table::ENTRIES_MAX;

use crate::daemon::connection::Answer;
use crate::error::ClientError;
use crate::owner::create::Missing;
use crate::owner::{Owner, State};

/// Bytes of the first lease for small objects; later ones grow with the memory that is already leased.
const LEASE_BYTES_MIN: u64 = 1 << 20;
const LEASE_BYTES_MAX: u64 = 64 << 20;
/// The interval at which a thread that waits for a lease checks this client's own memory: some of it may have been
/// freed.
const LEASE_LOOK: Duration = Duration::from_millis(50);

impl Owner {
    /// Frees objects, and asks the daemon for the missing memory, until `reserve` succeeds.
    #[cold]
    pub(super) fn make_room<T>(
        &self,
        mut missing: Missing,
        bytes: u64,
        mut reserve: impl FnMut(&mut State) -> Result<T, Missing>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now().checked_add(self.connection.timeouts().memory);
        loop {
            match missing {
                Missing::Entries(full) => {
                    if !self.free_retire_list() {
                        self.grow_table(full.entries_needed)?;
                    }
                }
                Missing::Memory => {
                    if !self.collect() {
                        self.lease(bytes, deadline)?;
                    }
                }
            }
            let reserved = reserve(&mut self.state.lock());
            missing = match reserved {
                Ok(reserved) => return Ok(reserved),
                Err(missing) => missing,
            };
        }
    }

    /// Waits, `patience` at most, until there is room for an object of so many bytes, which other threads may take.
    pub(crate) fn find_room(&self, bytes: u64, patience: Duration) -> Result<(), ClientError> {
        if bytes == 0 || self.has_room(bytes) {
            return Ok(());
        }
        self.lease(bytes, Instant::now().checked_add(patience.min(self.connection.timeouts().memory)))
    }

    /// Whether there is anything to look after, now or in a moment.
    pub(crate) fn may_have_work(&self) -> bool {
        // The lease first: it is counted until its segment is in the state.
        self.leasing.load(Ordering::Acquire) > 0 || self.has_work()
    }

    // ---- giving back ----

    /// Gives back segments that have been empty since `before`; `true` if there were any.
    pub(crate) fn release_empty(&self, before: u64) -> bool {
        let empty = self.state.lock().segments.remove_empty(before);
        for segment in &empty {
            failpoint(Failpoint::ReleaseTaken);
            self.release(*segment);
            failpoint(Failpoint::ReleaseTold);
        }
        !empty.is_empty()
    }

    /// Gives a segment back that was unmapped.
    pub(crate) fn release(&self, segment: u32) {
        self.connection.tell(&Request::Release { segment });
    }

    /// Gives the system `wanted` bytes of unused pages back, of segments in which objects lie. Compacts small objects
    /// where that helps.
    pub(crate) fn punch_holes(&self, wanted: u64) {
        let given_back = self.give_back_pages(wanted, false);
        if given_back < wanted {
            self.compact();
            // Whole segments may be empty now.
            self.release_empty(u64::MAX);
            self.give_back_pages(wanted - given_back, true);
        }
    }

    /// Returns the bytes that went back. (A huge page that the kernel cannot split at that moment stays, and counts,
    /// until its segment goes.)
    fn give_back_pages(&self, wanted: u64, is_compacted: bool) -> u64 {
        let unused = self.state.lock().segments.take_unused(wanted, is_compacted);
        let (mut segments, mut bytes) = (BTreeSet::new(), 0);
        for part in unused {
            match punch_hole(part.descriptor.as_fd(), part.offset..part.offset + part.bytes) {
                Ok(()) => {
                    failpoint(Failpoint::HolePunched);
                    segments.insert(part.segment);
                    bytes += part.bytes;
                }
                // They go with the segment, then.
                Err(error) => {
                    tracing::warn!(segment = part.segment, %error, "cannot give pages of a segment back");
                }
            }
        }
        for segment in segments {
            self.connection.tell(&Request::HolesPunched { segment });
            failpoint(Failpoint::HoleTold);
        }
        bytes
    }

    // ---- asking for more ----

    fn grow_table(&self, entries_needed: u32) -> Result<(), ClientError> {
        if entries_needed > ENTRIES_MAX {
            let limit = Refusal::LimitReached { limit: "ENTRIES_MAX".into(), max: u64::from(ENTRIES_MAX) };
            return Err(limit.into());
        }
        let request = Request::GrowTable { entries: entries_needed };
        match self.connection.request("grow the object table", &request)?.reply {
            Reply::TableGrown { entries } if entries >= entries_needed => {
                failpoint(Failpoint::GrowGranted);
                self.state.lock().entries.set_committed(entries.min(ENTRIES_MAX));
                Ok(())
            }
            other => Err(ClientError::unexpected(&other)),
        }
    }

    /// Gets memory in which `bytes` fit: a generous lease if the store has room for it, otherwise a lease of the needed
    /// size, for which it waits. Returns early, without a lease, if this client's own memory has room meanwhile.
    fn lease(&self, bytes: u64, deadline: Option<Instant>) -> Result<(), ClientError> {
        let leased_bytes = self.leased_bytes();
        let mut generous = leased_bytes.clamp(LEASE_BYTES_MIN, LEASE_BYTES_MAX).min(self.capacity_bytes / 8);
        // In a store that is nearly full, half of it, and so on: many small segments are of no use to anyone.
        while bytes < generous {
            if self.request_lease(generous, Duration::ZERO).is_ok() {
                return Ok(());
            }
            generous = if generous > LEASE_BYTES_MIN { (generous / 2).max(LEASE_BYTES_MIN) } else { 0 };
        }
        self.release_empty(u64::MAX);
        // This client's own unused pages may be enough: then nobody has to wait.
        match self.request_lease(bytes, Duration::ZERO) {
            Err(ClientError::Refused(
                Refusal::StoreFull { free_bytes, .. } | Refusal::SpillFailed { free_bytes, .. },
            )) => self.punch_holes(bytes.saturating_sub(free_bytes)),
            Err(ClientError::Refused(Refusal::QuotaReached { max, used, .. })) => {
                self.punch_holes(bytes.saturating_sub(max.saturating_sub(used)));
            }
            granted => return granted,
        }
        let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        // For a request that does not wait at all, the daemon takes no names away.
        self.request_lease(bytes, left.max(Duration::from_millis(1)))
    }

    fn request_lease(&self, bytes: u64, timeout: Duration) -> Result<(), ClientError> {
        self.leasing.fetch_add(1, Ordering::AcqRel);
        let result = self.wait_for_lease(bytes, timeout);
        // Release: a thread that sees it gone also sees the segment.
        self.leasing.fetch_sub(1, Ordering::Release);
        result
    }

    fn wait_for_lease(&self, bytes: u64, timeout: Duration) -> Result<(), ClientError> {
        failpoint(Failpoint::LeaseAsked);
        let request =
            Request::Lease { bytes, timeout_ms: timeout.as_millis().min(u128::from(u64::MAX)) as u64 };
        let has_room = || {
            self.collect();
            let has_room = self.has_room(bytes);
            if !has_room {
                self.release_empty(u64::MAX);
            }
            has_room
        };
        let asked = clock::ticks();
        let answer = {
            // A request that the daemon answers at once is no wait.
            let recorder = self.connection.recorder().filter(|_| !timeout.is_zero());
            let _waiting = recorder.map(|recorder| recorder.wait(WaitFor::Memory, [bytes, 0]));
            self.connection.request_unless("lease memory", &request, timeout, LEASE_LOOK, has_room)?
        };
        let Some(answer) = answer else { return Ok(()) };
        if let Some(recorder) = self.connection.recorder() {
            let leased_bytes = self.leased_bytes().saturating_add(bytes);
            recorder.note(Kind::Leased, 0, 0, [bytes, asked, leased_bytes, 0, 0, 0]);
        }
        // A lease of the old daemon is worth nothing: the caller looks again, and asks the new one.
        let Some(_still) = self.connection.hold_still(answer.daemon) else { return Ok(()) };
        self.add_segment(bytes, answer)
    }

    fn add_segment(&self, requested_bytes: u64, answer: Answer) -> Result<(), ClientError> {
        let (segment, bytes) = match answer.reply {
            Reply::Leased { segment, bytes } if Some(bytes) == round_up_to_pages(requested_bytes) => {
                (segment, bytes)
            }
            other => return Err(ClientError::unexpected(&other)),
        };
        failpoint(Failpoint::LeaseGranted);
        let mapping = answer.descriptors().and_then(|[descriptor]| {
            check_received(descriptor.as_fd(), bytes)?;
            Ok((WriteMapping::map(descriptor.as_fd(), 0, bytes as usize)?, descriptor))
        });
        let (mapping, descriptor) =
            mapping.inspect_err(|_| self.connection.tell(&Request::Release { segment }))?;
        self.state.lock().segments.add(segment, mapping, descriptor);
        failpoint(Failpoint::LeaseNoted);
        Ok(())
    }

    /// The bytes of memory that this client has.
    pub(crate) fn leased_bytes(&self) -> u64 {
        self.state.lock().segments.leased_bytes()
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.state.lock().segments.have_room(bytes)
    }
}
