//! A head's side of the division: the leases that its driver has, and its requests for more.
//!
//! ```text
//! Held ──► Recalled ──► returned      as soon as its resources are free
//!             │
//!             └──► Kept ──► returned  actors have it; it is returned when they do not need it any more
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_client::internal::Socket;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::PollFlags;

use super::super::pool::{Caller, Decision, Pool};
use super::server::Connection;
use super::{FromSession, Lease, ToSession};
use crate::mail::link::Link;
use crate::resources::Resources;

/// The time after which a lease that is not needed is returned.
const IDLE_KEPT: Duration = Duration::from_secs(1);
/// The most leases for one demand that are asked for at a time.
const WANTED_MAX: u32 = 1024;
/// The name of the file by which drivers end processes one at a time.
const MEMORY_LOCK: &str = "memory";

/// See the module's documentation.
pub(in crate::head) struct Share {
    /// `None` while there is no process of the session.
    connection: Option<Connection>,
    pub(super) leases: BTreeMap<u64, Held>,
    /// The leases that were asked for last, and have not come.
    asked: HashMap<Resources, u32>,
    /// Since when some lease has not been needed.
    idle: Option<Instant>,
    /// The processes that asked what is free, with the numbers of their questions.
    questions: VecDeque<(Arc<Link>, u64)>,
    answers: Vec<(Arc<Link>, u64, Resources)>,
    /// The file that is locked by the driver that ends a process because memory is short.
    lock_file: PathBuf,
    lock: Option<Flock<File>>,
}

pub(super) struct Held {
    pub(super) lease: Lease,
    stage: Stage,
    /// No call has had its resources yet.
    is_new: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Held,
    Recalled,
    Kept,
}

impl Share {
    /// Without leases, in the session of a directory.
    pub(in crate::head) fn new(directory: PathBuf) -> Self {
        Self {
            questions: VecDeque::new(),
            answers: Vec::new(),
            lock_file: directory.join(MEMORY_LOCK),
            lock: None,
            connection: None,
            leases: BTreeMap::new(),
            asked: HashMap::new(),
            idle: None,
        }
    }

    /// There is a connection to the session's process, maybe to one that takes the place of another.
    pub(in crate::head) fn connected(&mut self, socket: Socket) {
        if let Err(error) = socket.set_nonblocking() {
            return tracing::error!(%error, "the connection to the session's process");
        }
        let mut connection = Connection::new(socket);
        // The new session process recalls these leases again if necessary.
        self.leases.values_mut().for_each(|held| held.stage = Stage::Held);
        let leases = self.leases.values().map(|held| held.lease.clone()).collect();
        connection.send(&ToSession::Join { leases });
        self.asked.clear();
        let asked = self.questions.drain(..);
        self.answers.extend(asked.map(|(link, request)| (link, request, Resources::default())));
        self.connection = Some(connection);
    }

    /// The descriptor to wait for.
    pub(in crate::head) fn descriptor(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.connection.as_ref().map(|connection| (connection.as_fd(), connection.events()))
    }

    /// The time until work is due without a message; `None`: no work is due.
    pub(in crate::head) fn timeout(&self, now: Instant) -> Option<Duration> {
        self.idle.map(|since| (since + IDLE_KEPT).saturating_duration_since(now))
    }

    /// Handles the messages that have arrived, and returns leases. It is called before the pool hands anything out,
    /// because other drivers may need some resources more. Returns the decisions that the pool carries out.
    pub(in crate::head) fn before<C: Caller>(
        &mut self,
        pool: &mut Pool<C>,
        now: Instant,
    ) -> Vec<Decision<C>> {
        self.receive();
        self.account(pool);
        self.give_back(pool, now);
        self.recall(pool)
    }

    /// Asks for the resources that the pool lacks. It is called after the pool has handed out the resources that it
    /// has.
    pub(in crate::head) fn after<C: Caller>(&mut self, pool: &mut Pool<C>, now: Instant) {
        self.note_used(pool, now);
        // Those that came and were recalled together, and that no call can use.
        self.give_back(pool, now);
        let wanted = pool.lacked(WANTED_MAX, now);
        let is_idle = wanted.is_empty() && !self.unneeded(pool).is_empty();
        self.idle = if is_idle { self.idle.or(Some(now)) } else { None };
        let Some(connection) = &mut self.connection else { return };
        let over: Vec<_> =
            self.asked.keys().filter(|demand| !wanted.contains_key(*demand)).cloned().collect();
        for (demand, leases) in over.into_iter().map(|demand| (demand, 0)).chain(wanted) {
            if self.asked.get(&demand).copied().unwrap_or(0) != leases {
                connection.send(&ToSession::Want { demand: demand.clone(), leases });
                self.asked.insert(demand, leases);
            }
        }
        self.asked.retain(|_, leases| *leases > 0);
    }

    fn receive(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        connection.flush();
        while let Some(message) = connection.receive() {
            match message {
                FromSession::Granted(lease) => {
                    if let Some(asked) = self.asked.get_mut(&lease.demand) {
                        *asked = asked.saturating_sub(1);
                    }
                    self.leases.insert(lease.number, Held { lease, stage: Stage::Held, is_new: true });
                }
                FromSession::Recall { lease } => {
                    if let Some(held) = self.leases.get_mut(&lease) {
                        held.stage = Stage::Recalled;
                    }
                }
                FromSession::Free { resources } => {
                    let asked = self.questions.pop_front();
                    self.answers.extend(asked.map(|(link, request)| (link, request, resources)));
                }
            }
        }
        if connection.is_closed() {
            self.connection = None;
            // Nobody knows what others have.
            let asked = self.questions.drain(..);
            self.answers.extend(asked.map(|(link, request)| (link, request, Resources::default())));
        }
    }

    // ---- what is free ----

    /// A process asks which resources no driver uses.
    pub(in crate::head) fn ask_free(&mut self, link: &Arc<Link>, request: u64) {
        match &mut self.connection {
            Some(connection) => {
                connection.send(&ToSession::AskFree);
                self.questions.push_back((link.clone(), request));
            }
            None => self.answers.push((link.clone(), request, Resources::default())),
        }
    }

    /// The answers that have come: the free resources that are not this driver's.
    pub(in crate::head) fn take_answers(&mut self) -> Vec<(Arc<Link>, u64, Resources)> {
        std::mem::take(&mut self.answers)
    }

    // ---- memory ----

    /// Whether this driver has the lock, and may end a process because memory is short: only one does at a time.
    pub(in crate::head) fn try_lock(&mut self) -> bool {
        if self.lock.is_none() {
            let file = File::options().create(true).append(true).open(&self.lock_file).ok();
            self.lock = file.and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok());
        }
        self.lock.is_some()
    }

    /// The process has ended, or there was none to end.
    pub(in crate::head) fn unlock(&mut self) {
        self.lock = None;
    }

    // ---- leases ----

    /// Lets the pool hand out the resources for which there are leases.
    fn account<C: Caller>(&self, pool: &mut Pool<C>) {
        let mut here = Resources::default();
        self.leases.values().for_each(|held| here.add(&held.lease.resources()));
        pool.set_here(&here);
    }

    /// The leases whose resources are not in use.
    fn unneeded<C: Caller>(&self, pool: &Pool<C>) -> Vec<u64> {
        let free = pool.free_with_gpus();
        let is_free = |held: &&Held| held.lease.resources().is_within(&free);
        self.leases.values().filter(is_free).map(|held| held.lease.number).collect()
    }

    /// Notes which leases have been of use. A new one that waits only for a process is kept until then, also if it is
    /// recalled: where many drivers want, the session's process recalls a lease at the moment at which it grants it.
    /// Drivers that returned it at once would pass it around, and no call would ever run.
    fn note_used<C: Caller>(&mut self, pool: &Pool<C>, now: Instant) {
        let free = pool.free_with_gpus();
        let is_awaited = pool.awaits_process(now);
        for held in self.leases.values_mut() {
            held.is_new &= is_awaited && held.lease.resources().is_within(&free);
        }
    }

    /// The free resources, without those of new leases.
    fn spare<C: Caller>(&self, pool: &Pool<C>) -> Resources {
        let mut new = Resources::default();
        self.leases.values().filter(|held| held.is_new).for_each(|held| new.add(&held.lease.resources()));
        pool.free_with_gpus().less(&new)
    }

    /// Returns the leases that were recalled, as far as they are free, and those that were free for a while.
    fn give_back<C: Caller>(&mut self, pool: &mut Pool<C>, now: Instant) {
        let is_over = self.idle.is_some_and(|since| now >= since + IDLE_KEPT);
        let due: Vec<u64> = self
            .leases
            .values()
            .filter(|held| is_over || held.stage != Stage::Held)
            .map(|held| held.lease.number)
            .collect();
        for number in due {
            let Some(held) = self.leases.get(&number) else { continue };
            if held.lease.resources().is_within(&self.spare(pool)) {
                let Some(connection) = &mut self.connection else { return };
                connection.send(&ToSession::Return { lease: number });
                self.leases.remove(&number);
                self.account(pool);
            }
        }
    }

    /// Makes room for the leases that were recalled and are not free.
    fn recall<C: Caller>(&mut self, pool: &mut Pool<C>) -> Vec<Decision<C>> {
        let of_actors = pool.of_actors();
        let (mut owed, mut left) = (Resources::default(), Resources::default());
        self.leases.values().for_each(|held| left.add(&held.lease.resources()));
        for held in self.leases.values_mut().filter(|held| held.stage == Stage::Recalled) {
            let resources = held.lease.resources();
            let without = left.less(&resources);
            if of_actors.at_most(&left).is_within(&without) {
                left = without;
                owed.add(&resources);
            } else if let Some(connection) = &mut self.connection {
                held.stage = Stage::Kept;
                connection.send(&ToSession::Keep { lease: held.lease.number });
            }
        }
        if owed.is_nothing() { Vec::new() } else { pool.recall_for(&owed) }
    }
}
