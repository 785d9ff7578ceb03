//! The policy that decides which owner is asked to spill, and when.
//!
//! While a request for memory waits and freeing has not helped, one owner after the other is asked to spill, the one
//! with the most memory first. The daemon does not ask an owner again for a while if it had nothing to spill. An owner
//! that does not answer delays the next question only for [`ANSWER_PATIENCE`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mobula_protocol::message::{Notice, Refusal};

use crate::daemon::registry::Registry;

/// An owner is asked for at least this part of the capacity, so that not every lease has to wait for a round.
const PART_OF_CAPACITY: u64 = 8;
/// How long the daemon waits for one owner before it also asks another.
const ANSWER_PATIENCE: Duration = Duration::from_millis(200);
/// How long an owner that had nothing to spill is not asked again.
const SPENT_PERIOD: Duration = Duration::from_millis(100);
/// How long a failure is the reason that a full store gives.
const FAILURE_PERIOD: Duration = Duration::from_secs(10);
/// Bytes of a client's reason that are kept.
const REASON_BYTES_MAX: usize = 512;

/// The owners that were asked, and how spilling went.
#[derive(Debug, Default)]
pub(crate) struct SpillPolicy {
    /// Owners that have been asked to spill and have not answered, and since when.
    asked: BTreeMap<u16, Instant>,
    /// Owners that had nothing to spill, and when that was.
    spent: BTreeMap<u16, Instant>,
    /// The last failure.
    failure: Option<(Instant, String)>,
}

impl SpillPolicy {
    /// Asks the next owner to spill, so that `missing` bytes come free.
    pub(crate) fn ask(&mut self, registry: &mut Registry, missing: u64, now: Instant) {
        if missing == 0 || !registry.spill_files.have_disk() {
            return;
        }
        if self.asked.values().any(|since| now < *since + ANSWER_PATIENCE) {
            return;
        }
        self.spent.retain(|_, since| now < *since + SPENT_PERIOD);
        let askable =
            registry.living().filter(|slot| !self.asked.contains_key(slot) && !self.spent.contains_key(slot));
        let with_memory = askable.map(|slot| (registry.segments.held_by(slot).1, slot));
        let Some((1.., owner)) = with_memory.max() else { return };
        self.asked.insert(owner, now);
        let bytes = missing.max(registry.config.capacity_bytes / PART_OF_CAPACITY);
        registry.notify(owner, &Notice::Spill { bytes }, Vec::new());
    }

    /// An owner has spilled segments of this many bytes, or has failed.
    pub(crate) fn answered(&mut self, client: u16, bytes: u64, failure: Option<String>, now: Instant) {
        self.asked.remove(&client);
        if let Some(mut reason) = failure {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            self.failed(reason, now);
        } else if bytes > 0 {
            self.failure = None;
        }
        if bytes == 0 {
            self.spent.insert(client, now);
        }
    }

    /// Notes that spilling has failed.
    pub(crate) fn failed(&mut self, reason: String, now: Instant) {
        tracing::warn!(reason, "spilling has failed");
        self.failure = Some((now, reason));
    }

    /// Notes that no file was made to spill into.
    pub(crate) fn refused(&mut self, refusal: Refusal, now: Instant) {
        let reason = match refusal {
            Refusal::SpillFailed { reason, .. } => reason,
            refusal => refusal.to_string(),
        };
        self.failed(reason, now);
    }

    /// Why spilling has not made room, if it was tried lately.
    pub(crate) fn failure(&self, now: Instant) -> Option<String> {
        let (since, reason) = self.failure.as_ref()?;
        (now < *since + FAILURE_PERIOD).then(|| reason.clone())
    }

    /// A client has died: it will not answer.
    pub(crate) fn forget(&mut self, client: u16) {
        self.asked.remove(&client);
        self.spent.remove(&client);
    }
}
