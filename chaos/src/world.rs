//! A store, its clients, and the supervisor among them, which keeps the accounts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mobula_client::{Client, ConnectOptions, OwnerId};
use mobula_shm::failpoints::Failpoint;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::content::Random;
use crate::load::PRIVATE;
use crate::message::{Command, Ledger, Load, Report, Room, Work};
use crate::oracle::{Known, Seen, disagreements, reach};
use crate::process::{PATIENCE, Process, was_killed};
use crate::store::spill_directory;
use crate::{Violation, procfs};

/// Comparisons of the accounts until a disagreement counts, however long they take.
const COMPARISONS_MIN: u32 = 50;

/// A store with clients at work.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) store: Process,
    pub(crate) client: Client,
    pub(crate) clients: Vec<Worker>,
    pub(crate) suspects: HashSet<OwnerId>,
    /// Owners that have died at the same time as the daemon.
    bereft: HashSet<OwnerId>,
    /// Owners that have died since the accounts were compared.
    died: HashSet<OwnerId>,
    /// How often the accounts were compared.
    pub(crate) audits: u64,
    /// The most that was in files at a quiet point.
    pub(crate) spilled_bytes: u64,
    room: Room,
    directory: TempDir,
}

/// A client's process.
pub(crate) struct Worker {
    pub(crate) process: Process,
    owner: Option<OwnerId>,
    /// Whether it may die at any time, at a failpoint or because it scribbles.
    pub(crate) may_die: bool,
}

impl Worker {
    /// Its id, once it is connected; `None` when it has died before.
    pub(crate) fn owner(&mut self) -> Result<Option<OwnerId>, Violation> {
        while self.owner.is_none() {
            match self.process.report()? {
                Some(Report::Ready { owner }) => self.owner = owner,
                Some(_) => {}
                None => return Ok(None),
            }
        }
        Ok(self.owner)
    }
}

impl Worker {
    /// Its id, if it has reported it so far.
    fn owner_so_far(&mut self) -> Option<OwnerId> {
        if self.owner.is_none()
            && let Some(Report::Ready { owner }) = self.process.report_so_far()
        {
            self.owner = owner;
        }
        self.owner
    }
}

impl World {
    /// A store with so many clients, all of whose choices follow from the seed.
    pub(crate) fn start(seed: u64, clients: usize, room: Room) -> Result<Self, Violation> {
        let directory = tempfile::Builder::new().prefix("mobula-chaos-").tempdir()?;
        let socket = directory.path().join("store.sock");
        std::fs::create_dir(spill_directory(&socket))?;
        let store = start_store(&socket, room, None)?;
        let client = ConnectOptions::new()
            .label("supervisor")
            .answer_timeout(PATIENCE)
            .resume_timeout(PATIENCE)
            .connect(&socket)?;
        let mut world = Self {
            random: Random::from_seed(seed),
            store,
            client,
            clients: Vec::new(),
            suspects: HashSet::new(),
            bereft: HashSet::new(),
            died: HashSet::new(),
            audits: 0,
            spilled_bytes: 0,
            room,
            directory,
        };
        for _ in 0..clients {
            world.add()?;
        }
        Ok(world)
    }

    /// Starts a client's process, which connects while we go on.
    fn new_worker(&mut self) -> Result<Worker, Violation> {
        let seed = 1 + self.random.below(u64::MAX - 1);
        let arguments = [
            "client".to_owned(),
            self.socket().display().to_string(),
            seed.to_string(),
            self.room.word().to_owned(),
        ];
        let mut process = Process::start(&arguments)?;
        for suspect in &self.suspects {
            process.send(&Command::Suspect(*suspect));
        }
        for bereft in &self.bereft {
            process.send(&Command::Bereft(*bereft));
        }
        Ok(Worker { process, owner: None, may_die: false })
    }

    pub(crate) fn room(&self) -> Room {
        self.room
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("store.sock")
    }

    // ---- deaths ----

    /// Kills a client, and another takes its place. Returns how long the store took to give back all that was the dead
    /// one's alone.
    pub(crate) fn kill(&mut self, at: usize) -> Result<Duration, Violation> {
        let pid = self.clients[at].process.pid;
        let killed = Instant::now();
        self.clients[at].process.signal(Signal::SIGKILL);
        self.await_reclaimed(pid, killed)?;
        let taken = killed.elapsed();
        self.bury(at)?;
        Ok(taken)
    }

    /// Waits for a client that is dead, or about to be, and puts another in its place.
    pub(crate) fn bury(&mut self, at: usize) -> Result<(), Violation> {
        let status = self.clients[at].process.wait()?;
        if !was_killed(status) && !self.clients[at].may_die {
            return Err(self.crash(at, &format!("{status}")));
        }
        // Its last report may not have been read.
        self.died.extend(self.clients[at].owner()?);
        self.clients[at] = self.new_worker()?;
        Ok(())
    }

    // ---- the daemon ----

    /// Has the daemon die when it passes a failpoint.
    pub(crate) fn arm_store(&mut self, failpoint: Failpoint, nth: u64) {
        self.store.send(&Command::Arm { failpoint: failpoint.name().to_owned(), nth, victim: 0 });
    }

    /// Whether the daemon has died where it was meant to.
    pub(crate) fn store_is_dead(&mut self) -> Result<bool, Violation> {
        match self.store.ended()? {
            None => Ok(false),
            Some(status) if was_killed(status) => Ok(true),
            Some(status) => Err(Violation(format!("the store has ended: {status}"))),
        }
    }

    /// Kills the daemon, unless it is dead, and waits until it is.
    pub(crate) fn kill_store(&mut self) -> Result<(), Violation> {
        self.store.signal(Signal::SIGKILL);
        self.store.wait()?;
        // A client that has died just before, or dies now, may take objects with it that others hold and no client has
        // mapped.
        let mut bereft = std::mem::take(&mut self.died);
        bereft
            .extend(self.clients.iter_mut().filter(|worker| worker.may_die).filter_map(Worker::owner_so_far));
        for owner in bereft {
            if self.bereft.insert(owner) {
                for worker in &mut self.clients {
                    worker.process.send(&Command::Bereft(owner));
                }
            }
        }
        Ok(())
    }

    /// Another daemon takes the place of the one that is dead, and perhaps dies at a failpoint.
    pub(crate) fn start_store(&mut self, die: Option<(Failpoint, u64)>) -> Result<(), Violation> {
        self.store = start_store(&self.socket(), self.room, die)?;
        Ok(())
    }

    fn crash(&self, at: usize, status: &str) -> Violation {
        let process = &self.clients[at].process;
        process
            .complaint()
            .unwrap_or_else(|| Violation(format!("process {} ended by itself: {status}", process.pid)))
    }

    fn await_reclaimed(&self, pid: u32, killed: Instant) -> Result<(), Violation> {
        loop {
            let stats = self.client.stats()?;
            let Some(row) = stats.clients.iter().find(|row| row.pid == pid) else { return Ok(()) };
            let owner = row.owner;
            // Objects that others may hold are theirs to drop; the rest is gone when no private object is listed.
            if row.dead
                && !self
                    .client
                    .list()?
                    .iter()
                    .any(|info| info.object.owner() == owner && info.format == PRIVATE)
            {
                return Ok(());
            }
            if killed.elapsed() > PATIENCE {
                return Err(Violation(format!(
                    "the memory of {owner} is not given back within {PATIENCE:?}"
                )));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Checks that no process has died or complained that was not meant to.
    pub(crate) fn check(&mut self) -> Result<(), Violation> {
        if let Some(status) = self.store.ended()? {
            return Err(Violation(format!("the store has ended: {status}")));
        }
        for at in 0..self.clients.len() {
            if let Some(complaint) = self.clients[at].process.complaint() {
                return Err(complaint);
            }
            if !self.clients[at].may_die
                && let Some(status) = self.clients[at].process.ended()?
            {
                return Err(self.crash(at, &format!("{status}")));
            }
        }
        Ok(())
    }

    /// Arms a failpoint in the process of a client, or for a client's death in the daemon.
    pub(crate) fn arm(&mut self, passer: Passer, failpoint: Failpoint, nth: u64, victim: usize) {
        self.clients[victim].may_die = true;
        let arm = |victim| Command::Arm { failpoint: failpoint.name().to_owned(), nth, victim };
        match passer {
            Passer::Itself => self.clients[victim].process.send(&arm(0)),
            Passer::Daemon => {
                let pid = self.clients[victim].process.pid;
                self.store.send(&arm(pid));
            }
        }
    }

    /// Nobody dies at a failpoint any more.
    pub(crate) fn disarm(&mut self) {
        for worker in &mut self.clients {
            worker.process.send(&Command::Disarm);
        }
        self.store.send(&Command::Disarm);
    }

    // ---- other harm ----

    /// Stops a client, or lets it go on; the daemon, with the number behind the last client's.
    pub(crate) fn stop(&self, at: usize, signal: Signal) {
        self.clients.get(at).map_or(&self.store, |worker| &worker.process).signal(signal);
    }

    /// An owner is about to scribble: when this returns, everyone knows.
    pub(crate) fn suspect(&mut self, owner: OwnerId) -> Result<(), Violation> {
        self.suspects.insert(owner);
        for worker in &mut self.clients {
            worker.process.send(&Command::Suspect(owner));
        }
        self.ledgers(&Command::Pause)?;
        self.resume(Load::Everything);
        Ok(())
    }

    /// The last client goes: in order, or killed.
    pub(crate) fn take_away(&mut self, in_order: bool) -> Result<(), Violation> {
        let at = self.clients.len() - 1;
        // In the middle of connecting, there is no order yet.
        self.clients[at].owner()?;
        if in_order {
            let status = self.clients[at].process.close()?;
            if !status.success() {
                return Err(self.crash(at, &format!("{status}")));
            }
        } else {
            self.clients[at].process.signal(Signal::SIGKILL);
            self.clients[at].process.wait()?;
        }
        self.clients.pop();
        Ok(())
    }

    /// One more client.
    pub(crate) fn add(&mut self) -> Result<(), Violation> {
        let worker = self.new_worker()?;
        self.clients.push(worker);
        Ok(())
    }

    // ---- quiet points ----

    /// Every client goes on.
    pub(crate) fn resume(&mut self, load: Load) {
        for worker in &mut self.clients {
            worker.process.send(&Command::Resume(load));
        }
    }

    /// The work of a client since the last question; `None` for a client that is not there.
    pub(crate) fn work(&mut self, at: usize) -> Result<Option<Work>, Violation> {
        let worker = &mut self.clients[at];
        worker.process.send(&Command::AskWork);
        loop {
            match worker.process.report()? {
                Some(Report::Work(work)) => return Ok(Some(work)),
                Some(Report::Ready { owner }) => worker.owner = owner,
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Ends all work for now, and waits until the accounts agree. Clients that die meanwhile, as they may, are
    /// replaced.
    pub(crate) fn audit(&mut self) -> Result<(), Violation> {
        self.audit_after(&Command::Pause)
    }

    /// Audits when all clients have let go of everything, and no name is left: then nothing may be left.
    pub(crate) fn audit_empty(&mut self) -> Result<(), Violation> {
        self.ledgers(&Command::LetGo)?;
        for name in self.client.names()? {
            let _taken_away_by_eviction = self.client.unpublish(&name.name);
        }
        // Nothing is left of those who have scribbled either.
        self.suspects.clear();
        self.bereft.clear();
        self.audit_after(&Command::LetGo)?;
        let stats = self.client.stats()?;
        let totals = &stats.totals;
        let left = stats.objects() + stats.pins() + totals.names + u64::from(totals.spill_files);
        if totals.free_bytes != totals.capacity_bytes || left > 0 {
            return Err(Violation(format!("the store is not empty: {stats:?}")));
        }
        Ok(())
    }

    /// Compares the accounts until they agree. A message on its way between processes takes processor time, not clock
    /// time: on a machine that has none to give, a single comparison may take longer than the patience. So a
    /// disagreement counts only after a number of comparisons, in each of which every process has answered.
    fn audit_after(&mut self, command: &Command) -> Result<(), Violation> {
        let began = Instant::now();
        for comparison in 1u32.. {
            let living = self.ledgers(command)?;
            let found = self.compare(living);
            self.check()?;
            match found {
                Ok(found) if found.is_empty() => {
                    self.audits += 1;
                    self.died.clear();
                    return Ok(());
                }
                Ok(found) if began.elapsed() > PATIENCE && comparison >= COMPARISONS_MIN => {
                    let (found, took) = (found.join("; "), began.elapsed());
                    return Err(Violation(format!(
                        "the accounts do not agree in {comparison} comparisons within {took:.1?}: {found}"
                    )));
                }
                Ok(_) => std::thread::sleep(Duration::from_millis(2)),
                Err(violation) => return Err(violation),
            }
        }
        unreachable!("comparisons go on until they end it")
    }

    fn compare(&mut self, living: Vec<(OwnerId, Ledger)>) -> Result<Vec<String>, Violation> {
        let names = self.client.names()?;
        let alive = reach(&self.client, &living, &names, &self.suspects, &self.bereft)?;
        let mut written_segments = HashMap::new();
        for worker in &self.clients {
            let Some(owner) = worker.owner else { continue };
            let mappings = procfs::mappings(&worker.process.pid.to_string());
            let written =
                mappings.iter().filter(|mapping| mapping.writable && mapping.name == "segment").count();
            written_segments.insert(owner, written);
        }
        let memories = procfs::memories_open(self.store.pid);
        let daemon_memories: BTreeMap<String, usize> =
            memories.into_iter().map(|(kind, files)| (kind, files.len())).collect();
        let seen = Seen {
            stats: self.client.stats()?,
            objects: self.client.list()?,
            names,
            daemon_memories,
            daemon_spill_files: procfs::files_open(self.store.pid, &spill_directory(&self.socket())),
            written_segments,
        };
        self.spilled_bytes = self.spilled_bytes.max(seen.stats.totals.spill_bytes);
        let (suspects, bereft) = (self.suspects.clone(), self.bereft.clone());
        Ok(disagreements(&seen, &Known { asker: self.client.id(), living, alive, suspects, bereft }))
    }

    /// Has every client end its work, and say what it has.
    fn ledgers(&mut self, command: &Command) -> Result<Vec<(OwnerId, Ledger)>, Violation> {
        self.disarm();
        for worker in &mut self.clients {
            worker.process.send(command);
        }
        let mut ledgers = Vec::new();
        for at in 0..self.clients.len() {
            loop {
                match self.ledger(at)? {
                    Some(ledger) => {
                        ledgers.push(ledger);
                        break;
                    }
                    None if self.clients[at].may_die => {
                        self.bury(at)?;
                        self.clients[at].process.send(command);
                    }
                    None => {
                        let status = self.clients[at].process.wait()?;
                        return Err(self.crash(at, &format!("{status}")));
                    }
                }
            }
        }
        Ok(ledgers)
    }

    fn ledger(&mut self, at: usize) -> Result<Option<(OwnerId, Ledger)>, Violation> {
        let worker = &mut self.clients[at];
        loop {
            match worker.process.report()? {
                Some(Report::Ready { owner }) => worker.owner = owner,
                Some(Report::Paused(ledger)) => {
                    let owner = worker.owner.expect("it is ready before it is paused");
                    return Ok(Some((owner, ledger)));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Lets everything go, everyone end, and the store: nothing may be left.
    pub(crate) fn end(mut self) -> Result<u64, Violation> {
        self.audit_empty()?;
        for mut worker in std::mem::take(&mut self.clients) {
            let status = worker.process.close()?;
            if !status.success() {
                return Err(Violation(format!("process {} ended with {status}", worker.process.pid)));
            }
        }
        self.audit_empty()?;
        drop(self.client);
        let status = self.store.close()?;
        if !status.success() {
            return Err(Violation(format!("the store ended with {status}")));
        }
        // Where it spilled is ours, and must be empty: else this fails.
        std::fs::remove_dir(spill_directory(&self.directory.path().join("store.sock")))?;
        let left: Vec<_> =
            std::fs::read_dir(self.directory.path())?.flatten().map(|entry| entry.path()).collect();
        if !left.is_empty() {
            return Err(Violation(format!("left behind: {left:?}")));
        }
        Ok(self.audits)
    }
}

fn start_store(socket: &Path, room: Room, die: Option<(Failpoint, u64)>) -> Result<Process, Violation> {
    let mut arguments = vec!["store".to_owned(), socket.display().to_string(), room.word().to_owned()];
    if let Some((failpoint, nth)) = die {
        arguments.extend([failpoint.name().to_owned(), nth.to_string()]);
    }
    let mut store = Process::start(&arguments)?;
    match store.report()? {
        Some(Report::Ready { .. }) => Ok(store),
        _ => Err(Violation("the store does not start".to_owned())),
    }
}

/// The process that passes an armed failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passer {
    /// The client that dies.
    Itself,
    /// The daemon, while the client dies.
    Daemon,
}
