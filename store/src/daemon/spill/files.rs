//! Spilling: files for owners to spill into, the question whom to ask for it, and bringing objects back.
//!
//! What goes into a file, and when, is its owner's business: the daemon makes the file, counts its bytes, keeps a
//! descriptor of it for the time after the owner's death, and looks into it only then. Who wants a spilled object of
//! somebody else's asks the daemon, which asks the owner; for an owner that has died, it brings the object back itself
//! ([`bringing`](crate::daemon::orphans::restore)).
//!
//! While a request for memory waits and freeing has not helped, one owner after the other is asked to spill, the one with
//! the most memory first. Who answers that it had nothing is left alone for a while; who does not answer holds nobody up.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Refusal, Reply};
use mobula_shm::table::State;

use crate::core::waiters::{Waiter, Waiters, deadline};
use crate::daemon::orphans::evict::Emptying;
use crate::daemon::orphans::restore::Bringing;
use crate::daemon::spill::disk::Disk;
use crate::daemon::{Answer, Daemon, Outcome, bad_request, limit_reached};
use crate::memory::Parcel;

/// An owner is asked for at least this part of the capacity, so that not every lease has to wait for a round.
const PART_OF_CAPACITY: u64 = 8;
/// How long one owner is waited for before another is asked as well.
const ANSWER_PATIENCE: Duration = Duration::from_millis(200);
/// How long an owner that had nothing to spill is not asked again.
const SPENT_PERIOD: Duration = Duration::from_millis(100);
/// How long a failure is the reason that a full store gives.
const FAILURE_PERIOD: Duration = Duration::from_secs(10);
/// Bytes of a reason that a client gives.
const REASON_BYTES_MAX: usize = 512;

/// What the daemon knows of spilled objects.
pub(crate) struct Spilling {
    disk: Option<Disk>,
    /// By their owner's slot and their number.
    files: BTreeMap<(u16, u32), SpillFile>,
    last_file: u32,
    bytes: u64,
    /// Owners that have been asked to spill and have not answered, and since when.
    asked: BTreeMap<u16, Instant>,
    /// Owners that had nothing to spill, and when that was.
    spent: BTreeMap<u16, Instant>,
    /// What went wrong last.
    failure: Option<(Instant, String)>,
    /// Clients that wait for objects.
    restores: Waiters<ObjectId>,
    /// What living owners have been asked to bring back.
    wanted: HashSet<ObjectId>,
    /// What the daemon brings back.
    pub(crate) bringing: Vec<Bringing>,
    /// What of the dead is being spilled.
    pub(crate) emptying: Option<Emptying>,
}

struct SpillFile {
    file: Arc<File>,
    bytes: u64,
}

impl Spilling {
    pub(crate) fn new() -> Self {
        Self {
            disk: None,
            files: BTreeMap::new(),
            last_file: 0,
            bytes: 0,
            asked: BTreeMap::new(),
            spent: BTreeMap::new(),
            failure: None,
            restores: Waiters::new(),
            wanted: HashSet::new(),
            bringing: Vec::new(),
            emptying: None,
        }
    }

    /// Bytes and number of all files.
    pub(crate) fn usage(&self) -> (u64, usize) {
        (self.bytes, self.files.len())
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let emptying = self.emptying.as_ref().map(Emptying::look_at);
        [self.restores.next_deadline(), emptying].into_iter().flatten().min()
    }

    /// Whether there is a place for spilled objects.
    pub(crate) fn can_spill(&self) -> bool {
        self.disk.is_some()
    }

    /// Notes why something was not spilled.
    pub(crate) fn fail(&mut self, refusal: Refusal, now: Instant) {
        self.fail_because(
            match refusal {
                Refusal::SpillFailed { reason, .. } => reason,
                refusal => refusal.to_string(),
            },
            now,
        );
    }

    /// The same in words.
    pub(crate) fn fail_because(&mut self, reason: String, now: Instant) {
        tracing::warn!(reason, "spilling has failed");
        self.failure = Some((now, reason));
    }

    /// How many requests of a client wait.
    pub(crate) fn count(&self, client: u16) -> usize {
        self.restores.count(client)
    }

    /// Whether anybody waits for an object.
    pub(crate) fn is_waited_for(&self, object: ObjectId) -> bool {
        self.restores.first(|_, waiter| waiter.wants == object).is_some()
    }

    /// A file that has outlived the daemon before.
    pub(crate) fn resume_file(&mut self, owner: u16, number: u32, bytes: u64, file: File) {
        if number == 0 || self.files.contains_key(&(owner, number)) {
            return;
        }
        self.last_file = self.last_file.max(number);
        self.bytes = self.bytes.saturating_add(bytes);
        self.files.insert((owner, number), SpillFile { file: Arc::new(file), bytes });
    }

    /// A file of an owner's, to be kept by another client as well: to be read, and what it counts as.
    pub(crate) fn to_keep(&self, owner: u16, number: u32) -> Option<(Parcel, u64)> {
        let known = self.files.get(&(owner, number))?;
        let path = format!("/proc/self/fd/{}", known.file.as_raw_fd());
        Some((Parcel::File(Arc::new(File::open(path).ok()?)), known.bytes))
    }

    /// A file of an owner's.
    pub(crate) fn file(&self, owner: u16, number: u32) -> Option<&Arc<File>> {
        self.files.get(&(owner, number)).map(|known| &known.file)
    }

    /// No record in a file is needed any more; `false` when there is no such file.
    pub(crate) fn discard(&mut self, owner: u16, number: u32) -> bool {
        let Some(discarded) = self.files.remove(&(owner, number)) else { return false };
        self.bytes -= discarded.bytes;
        true
    }

    /// Discards all files of an owner but those to be kept.
    pub(crate) fn discard_all_but(&mut self, owner: u16, keep: impl Fn(u32) -> bool) {
        let files = self.files.range((owner, 0)..=(owner, u32::MAX)).map(|((_, number), _)| *number);
        let files: Vec<u32> = files.filter(|number| !keep(*number)).collect();
        for number in files {
            self.discard(owner, number);
        }
    }

    /// A client has died: it neither waits nor answers any more.
    pub(crate) fn forget(&mut self, client: u16, id: OwnerId) {
        self.restores.forget(client);
        self.asked.remove(&client);
        self.spent.remove(&client);
        self.wanted.retain(|object| object.owner() != id);
    }

    /// The objects of an owner that are waited for.
    pub(crate) fn waited_for(&self, owner: OwnerId) -> Vec<ObjectId> {
        let wanted = self.restores.iter().map(|(_, waiter)| waiter.wants);
        wanted.filter(|object| object.owner() == owner).collect()
    }

    fn next_file(&mut self) -> u32 {
        self.last_file = self.last_file.wrapping_add(1).max(1);
        self.last_file
    }
}

impl Daemon {
    /// From now on objects are spilled, if there is a place for them.
    pub(crate) fn spill_into(&mut self, disk: Option<Disk>) {
        self.spilling.disk = disk;
    }

    /// The place for spilled objects, for another daemon of this store.
    pub(crate) fn take_disk(&mut self) -> Option<Disk> {
        self.spilling.disk.take()
    }

    // ---- files ----

    /// Makes a file for a client to spill into.
    pub(crate) fn spill_file(&mut self, client: u16, bytes: u64) -> Outcome {
        let (file, descriptor) = self.make_spill_file(client, bytes)?;
        Ok(Answer::Now(Reply::SpillFileMade { file }, vec![Parcel::File(descriptor)]))
    }

    /// Makes a file for objects of an owner's.
    pub(crate) fn make_spill_file(&mut self, owner: u16, bytes: u64) -> Result<(u32, Arc<File>), Refusal> {
        let (capacity_bytes, free_bytes) = (self.config.capacity_bytes, self.segments.free());
        let failed =
            |reason| Refusal::SpillFailed { requested_bytes: bytes, capacity_bytes, free_bytes, reason };
        let (max, files_max) = (self.config.spill_bytes_max, self.config.spill_files_max);
        let spilling = &mut self.spilling;
        let Some(disk) = &mut spilling.disk else {
            return Err(failed("the store has no directory to spill into".to_owned()));
        };
        if spilling.files.len() >= files_max {
            return Err(limit_reached("spill_files_max", files_max as u64));
        }
        if spilling.bytes.checked_add(bytes).is_none_or(|sum| sum > max) {
            return Err(limit_reached("spill_bytes_max", max));
        }
        let file = match disk.create() {
            Ok(file) => Arc::new(file),
            Err(error) => {
                return Err(failed(format!("cannot make a file in {}: {error}", disk.path().display())));
            }
        };
        let number = spilling.next_file();
        spilling.bytes += bytes;
        spilling.files.insert((owner, number), SpillFile { file: file.clone(), bytes });
        Ok((number, file))
    }

    /// A client needs a file no more.
    pub(crate) fn discard_spill_file(&mut self, client: u16, file: u32) -> Outcome {
        // A file of which it does not know that it got it is no reason to end it.
        self.spilling.discard(client, file);
        Answer::done()
    }

    // ---- making room ----

    /// Asks the next owner to spill, so that `missing` bytes come free.
    pub(crate) fn ask_to_spill(&mut self, missing: u64, now: Instant) {
        let spilling = &mut self.spilling;
        if spilling.disk.is_none() || missing == 0 {
            return;
        }
        if spilling.asked.values().any(|since| now < *since + ANSWER_PATIENCE) {
            return;
        }
        spilling.spent.retain(|_, since| now < *since + SPENT_PERIOD);
        let askable = self.owners.iter().filter(|(slot, owner)| {
            owner.is_alive() && !spilling.asked.contains_key(slot) && !spilling.spent.contains_key(slot)
        });
        let with_memory = askable.map(|(slot, _)| (self.segments.held_by(*slot).1, *slot));
        let Some((1.., owner)) = with_memory.max() else { return };
        spilling.asked.insert(owner, now);
        let bytes = missing.max(self.config.capacity_bytes / PART_OF_CAPACITY);
        self.notify(owner, &Notice::Spill { bytes }, Vec::new());
    }

    /// An owner has spilled, or has not.
    pub(crate) fn spilled(
        &mut self,
        client: u16,
        bytes: u64,
        failure: Option<String>,
        now: Instant,
    ) -> Outcome {
        self.spilling.asked.remove(&client);
        if let Some(mut reason) = failure {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            self.spilling.fail_because(reason, now);
        } else if bytes > 0 {
            self.spilling.failure = None;
        }
        if bytes == 0 {
            self.spilling.spent.insert(client, now);
        }
        self.serve_leases(now);
        let missing = self.missing_bytes(now);
        self.ask_to_spill(missing, now);
        Answer::done()
    }

    /// Why spilling has not made room, if it was tried lately.
    pub(crate) fn spill_failure(&self, now: Instant) -> Option<String> {
        let (since, reason) = self.spilling.failure.as_ref()?;
        (now < *since + FAILURE_PERIOD).then(|| reason.clone())
    }

    // ---- coming back ----

    /// Lets a client wait until an object of another's is back in memory.
    pub(crate) fn restore(
        &mut self,
        client: u16,
        correlation: u64,
        object: ObjectId,
        timeout_ms: u64,
        now: Instant,
    ) -> Outcome {
        let (id, slot) = (object.owner(), object.owner().slot());
        if slot == client {
            return Err(bad_request("Restore of an object of one's own"));
        }
        let owner = self.owners.get(&slot).filter(|owner| owner.id == id);
        let Some(owner) = owner.filter(|_| self.slots.is_attached(client, slot)) else {
            return Err(Refusal::NoSuchObject { object });
        };
        match owner.state_of(object.index(), object.generation()) {
            Some(State::Spilled) => {}
            // It is back, or will be what it was in a moment: whoever asked looks again.
            Some(State::Sealed | State::Dying | State::Deleted) => return Answer::done(),
            _ => return Err(Refusal::NoSuchObject { object }),
        }
        let is_alive = owner.is_alive();
        // While its table is still being taken over, the end of that begins it.
        let is_adopted = owner.adoption.as_ref().is_some_and(|adoption| adoption.is_taken_over());
        self.check_waiters(client)?;
        let waiter = Waiter { client, correlation, deadline: deadline(now, timeout_ms), wants: object };
        self.spilling.restores.push(waiter);
        if is_alive {
            if self.spilling.wanted.insert(object) {
                self.notify(slot, &Notice::RestoreWanted { object }, Vec::new());
            }
        } else if is_adopted {
            self.bring_back(object, now);
        }
        Ok(Answer::Later)
    }

    /// Lets a client read the file in which another's object is.
    pub(crate) fn open_spilled(&mut self, client: u16, object: ObjectId) -> Outcome {
        let (id, slot) = (object.owner(), object.owner().slot());
        let owner = self.owners.get(&slot).filter(|owner| owner.id == id);
        let Some(owner) = owner.filter(|_| self.slots.is_attached(client, slot)) else {
            return Err(Refusal::NoSuchObject { object });
        };
        match owner.state_of(object.index(), object.generation()) {
            Some(State::Spilled) => {}
            // As in `restore`.
            Some(State::Sealed | State::Dying | State::Deleted) => return Answer::done(),
            _ => return Err(Refusal::NoSuchObject { object }),
        }
        let place = owner.view.spill_place(object.index());
        let opened =
            place.and_then(|place| Some((self.spilling.to_keep(slot, place.file())?, place.offset())));
        let Some(((file, _), offset)) = opened else {
            // It came back between the two looks.
            if owner.state_of(object.index(), object.generation()) != Some(State::Spilled) {
                return Answer::done();
            }
            let reason = "its file cannot be opened".to_owned();
            return Err(Refusal::NotRestored { object, reason });
        };
        Ok(Answer::Now(Reply::SpillFileOpened { offset }, vec![file]))
    }

    /// An owner has brought an object back, or could not.
    pub(crate) fn restored(&mut self, client: u16, object: ObjectId, refusal: Option<Refusal>) -> Outcome {
        if object.owner() != self.owners[&client].id {
            return Err(bad_request("Restored for an object of somebody else"));
        }
        self.spilling.wanted.remove(&object);
        self.answer_restores(object, refusal);
        Answer::done()
    }

    /// Tells everyone who waits for an object what became of it.
    pub(crate) fn answer_restores(&mut self, object: ObjectId, refusal: Option<Refusal>) {
        let reply = match refusal {
            None => Reply::Done {},
            // What an owner says must not look like an end of the connection.
            Some(Refusal::BadRequest { reason }) => {
                Reply::Failed { refusal: Refusal::NotRestored { object, reason } }
            }
            Some(refusal) => Reply::Failed { refusal },
        };
        while let Some(ticket) = self.spilling.restores.first(|_, waiter| waiter.wants == object) {
            let Some(waiter) = self.spilling.restores.take(ticket) else { break };
            self.reply(waiter.client, waiter.correlation, &reply, Vec::new());
        }
    }

    /// Answers those who have waited long enough.
    pub(crate) fn expire_restores(&mut self, now: Instant) {
        while let Some((_, waiter)) = self.spilling.restores.expired(now) {
            let object = waiter.wants;
            let alive = self
                .owners
                .get(&object.owner().slot())
                .is_some_and(|owner| owner.id == object.owner() && owner.is_alive());
            let reason =
                if alive { "its owner did not do it in time" } else { "no memory came free in time" };
            let refusal = Refusal::NotRestored { object, reason: reason.to_owned() };
            self.reply(waiter.client, waiter.correlation, &Reply::Failed { refusal }, Vec::new());
        }
    }
}
