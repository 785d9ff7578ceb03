//! What the head knows, and what it decides: who gets which worker, and how many there are.
//!
//! Places, not processes, are scarce: as many calls of functions may run as the session has workers. A worker whose
//! call waits for results of others has given its place up, so there can be more processes than places. Places go to
//! those first who have given one up, the latest of them before the earlier: deep recursion finishes what it began
//! before it begins more.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_client::{Client, OwnerId};

use super::actors::Actors;
use super::processes::{self, Processes};
use crate::error::Failure;
use crate::link::Link;
use crate::message::{self, FromHead, ToHead};
use crate::registry;

/// A worker beyond what is needed ends after being idle for this long.
const SURPLUS_KEPT: Duration = Duration::from_secs(1);
/// So many processes in a row that do not come up, and there will be none.
const START_FAILURES_MAX: u32 = 3;
/// How long a process that was told to exit may take.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a process may go on that cannot be talked to any more. Mostly it is ending, and how it ends is worth knowing.
const BROKEN_PATIENCE: Duration = Duration::from_millis(100);

/// A process of the session, besides the driver.
pub(super) struct Worker {
    pub(super) pid: u32,
    pub(super) link: Option<Arc<Link>>,
    pub(super) job: Job,
    /// Whom it is leased to.
    lessee: Option<Arc<Link>>,
    /// Its call waits for results of others.
    blocked: bool,
    /// Since when it cannot be talked to any more: its connection is closed, or what it writes makes no sense.
    broken: Option<Instant>,
    /// It took too long to end, and was killed.
    killed: bool,
}

impl Worker {
    fn is_leased_to(&self, caller: &Link) -> bool {
        matches!(self.job, Job::Leased { .. })
            && self.lessee.as_ref().is_some_and(|link| link.id == caller.id)
    }

    /// Nobody has it any more; it may still be busy with what was asked of it.
    fn end_lease(&mut self) {
        self.job = Job::Idle { since: Instant::now() };
        self.lessee = None;
    }

    fn is_at(&self, peer: OwnerId) -> bool {
        self.link.as_ref().is_some_and(|own| own.peer == peer)
    }

    /// Whether it has taken longer to end than it may.
    fn is_late(&self) -> bool {
        matches!(self.job, Job::Exiting { since } if since.elapsed() > EXIT_PATIENCE)
            || self.broken.is_some_and(|since| since.elapsed() > BROKEN_PATIENCE)
    }
}

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    Starting,
    Idle { since: Instant },
    Leased { recalled: bool },
    Actor { actor: u64 },
    Exiting { since: Instant },
}

struct Want {
    caller: Arc<Link>,
    workers: u32,
}

/// See the module's documentation.
pub(super) struct State {
    places: usize,
    pub(super) processes: Processes,
    pub(super) workers: HashMap<u64, Worker>,
    wants: Vec<Want>,
    pub(super) actors: Actors,
    start_failures: u32,
    is_store_lost: bool,
}

impl State {
    pub(super) fn new(places: usize, processes: Processes) -> Self {
        Self {
            places,
            processes,
            workers: HashMap::new(),
            wants: Vec::new(),
            actors: Actors::default(),
            start_failures: 0,
            is_store_lost: false,
        }
    }

    /// How long nothing has to be looked after.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let surplus = self.surplus() > 0;
        let exiting = self.workers.values().any(|worker| matches!(worker.job, Job::Exiting { .. }));
        let own = (surplus || exiting).then_some(SURPLUS_KEPT / 4);
        let broken = self.workers.values().any(|worker| worker.broken.is_some());
        let broken = broken.then_some(BROKEN_PATIENCE / 4);
        [own, broken, self.actors.timeout()].into_iter().flatten().min()
    }

    pub(super) fn something_happened(&mut self) {
        self.actors.look_soon();
    }

    /// Without the store no process can be started, and none that runs can be reached.
    pub(super) fn store_lost(&mut self) {
        self.is_store_lost = true;
    }

    // ---- what callers and workers say ----

    pub(super) fn on_record(&mut self, client: &Client, from: &Arc<Link>, record: &[u8]) {
        let record = match message::read(record) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(peer = %from.peer, %error, "a record that cannot be read");
                // Closed, it is dealt with as the link of a process that is gone.
                return from.close();
            }
        };
        match record {
            ToHead::Register { token, pid, fingerprint } => self.register(from, token, pid, fingerprint),
            ToHead::Want { workers } => {
                if workers > 0 {
                    self.try_again();
                }
                self.wants.retain(|want| !Arc::ptr_eq(&want.caller, from));
                if workers > 0 {
                    self.wants.push(Want { caller: from.clone(), workers });
                }
            }
            ToHead::Return { worker } => {
                if let Some(worker) = self.workers.values_mut().find(|each| {
                    each.link.as_ref().is_some_and(|link| link.peer == worker) && each.is_leased_to(from)
                }) {
                    worker.end_lease();
                }
            }
            ToHead::Blocked => self.set_blocked(from, true),
            ToHead::Unblocked => self.set_blocked(from, false),
            ToHead::Broken { process } => self.set_broken(process),
            ToHead::ReserveActor { request, actor } => self.actors.reserve(client, from, request, actor),
            ToHead::StartActor { actor, arguments, payloads } => {
                self.try_again();
                self.actors.start(client, actor, arguments, payloads);
            }
            ToHead::AbandonActor { actor, failure } => self.end_actor(actor, failure),
            ToHead::WatchActor { actor } => self.actors.watch(from, actor),
            ToHead::FindActor { request, name } => self.actors.find(from, request, name),
            ToHead::KillActor { actor } => {
                self.end_actor(actor, Failure::Other("it was killed by `mobula::kill`".into()));
            }
            ToHead::Constructed { actor, result } => self.on_constructed(from, actor, result),
        }
    }

    fn register(&mut self, from: &Arc<Link>, token: u64, pid: u32, fingerprint: u64) {
        let Some(worker) = self.workers.get_mut(&token).filter(|worker| worker.link.is_none()) else {
            return tracing::warn!(pid, "a process registered that was not started here");
        };
        if fingerprint != registry::fingerprint() {
            self.processes.kill(token);
            worker.job = Job::Exiting { since: Instant::now() };
            self.start_failures = START_FAILURES_MAX;
            let message = format!(
                "the worker program is another build than the driver (process {pid}): workers must run the same binary"
            );
            return self.no_workers(&message);
        }
        self.start_failures = 0;
        worker.link = Some(from.clone());
        if worker.job == Job::Starting {
            worker.job = Job::Idle { since: Instant::now() };
        }
    }

    fn set_blocked(&mut self, from: &Arc<Link>, blocked: bool) {
        if let Some(worker) = self.workers.values_mut().find(|worker| worker.is_at(from.peer)) {
            worker.blocked = blocked;
        }
    }

    fn set_broken(&mut self, process: OwnerId) {
        if let Some(worker) = self.workers.values_mut().find(|worker| worker.is_at(process)) {
            worker.broken.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn on_link_closed(&mut self, link: &Arc<Link>) {
        self.wants.retain(|want| !Arc::ptr_eq(&want.caller, link));
        for worker in self.workers.values_mut() {
            if worker.is_leased_to(link) {
                worker.end_lease();
            }
        }
        self.set_broken(link.peer);
        for actor in self.actors.on_caller_gone(link) {
            self.end_actor(actor, Failure::Other("its creator died before it was started".into()));
        }
    }

    // ---- processes ----

    /// Passes output on, and deals with processes that have ended.
    pub(super) fn look_after_processes(&mut self, client: &Client) {
        self.processes.forward_output();
        for (token, pid, status) in self.processes.ended() {
            // What it said before it ended still counts.
            if let Some(link) = self.workers.get(&token).and_then(|worker| worker.link.clone()) {
                link.receive_the_rest(&mut |record| self.on_record(client, &link, record));
            }
            let Some(worker) = self.workers.remove(&token) else { continue };
            let how = match worker.broken {
                Some(_) if worker.killed => {
                    "it had closed its connections, or wrote nonsense to them, and was killed".into()
                }
                _ => processes::how(status),
            };
            // That it was killed from outside says nothing about whether the next one comes up.
            let failed = worker.link.is_none() && status.signal() != Some(libc::SIGKILL);
            if failed && !matches!(worker.job, Job::Exiting { .. }) {
                self.start_failures += 1;
                if self.start_failures >= START_FAILURES_MAX {
                    self.no_workers(&format!("worker processes do not come up: {how} before it could serve"));
                }
            }
            if let Job::Actor { actor } = worker.job {
                self.actors.process_ended(actor, pid, how);
            }
        }
        for (token, worker) in self.workers.iter_mut().filter(|(_, worker)| worker.is_late()) {
            worker.killed = true;
            self.processes.kill(*token);
        }
    }

    /// Whoever asks anew is worth another try at starting processes.
    fn try_again(&mut self) {
        if self.start_failures >= START_FAILURES_MAX {
            self.start_failures = 0;
        }
    }

    fn no_workers(&mut self, message: &str) {
        let failure = Failure::Other(message.to_owned());
        for want in self.wants.drain(..) {
            let _ = want.caller.send(&FromHead::NoWorkers { failure: failure.clone() }, Vec::new());
        }
        for actor in self.actors.waiting() {
            self.actors.over(actor, 0, failure.clone());
        }
    }

    /// `false` if the system refuses.
    fn start_process(&mut self) -> bool {
        match self.processes.start() {
            Ok((token, pid)) => {
                let worker = Worker {
                    pid,
                    link: None,
                    job: Job::Starting,
                    lessee: None,
                    blocked: false,
                    broken: None,
                    killed: false,
                };
                self.workers.insert(token, worker);
                true
            }
            Err(error) => {
                self.start_failures += 1;
                if self.start_failures >= START_FAILURES_MAX {
                    self.no_workers(&format!("a worker process cannot be started: {error}"));
                }
                false
            }
        }
    }

    /// Tells a process to end when its work is done.
    pub(super) fn exit(&mut self, token: u64) {
        if let Some(worker) = self.workers.get_mut(&token) {
            worker.job = Job::Exiting { since: Instant::now() };
            if let Some(link) = &worker.link {
                let _ = link.send(&FromHead::Exit, Vec::new());
            }
        }
    }

    // ---- deciding ----

    /// Hands out what there is, and starts or ends processes as needed.
    pub(super) fn arrange(&mut self) {
        if self.is_store_lost {
            return;
        }
        self.place_actors();
        self.grant();
        self.recall();
        let lacking = self.places.saturating_sub(self.serving());
        let lacking = lacking.max(self.actors.waiting().len().saturating_sub(self.starting()));
        for _ in 0..lacking {
            // Nothing would wake the head for another try later.
            while self.start_failures < START_FAILURES_MAX && !self.start_process() {}
        }
        self.end_surplus();
    }

    /// Processes that are, or could be, running a call of a function.
    fn serving(&self) -> usize {
        let serves = |worker: &Worker| {
            !worker.blocked
                && worker.broken.is_none()
                && matches!(worker.job, Job::Starting | Job::Idle { .. } | Job::Leased { .. })
        };
        self.workers.values().filter(|worker| serves(worker)).count()
    }

    fn starting(&self) -> usize {
        self.workers.values().filter(|worker| worker.job == Job::Starting).count()
    }

    fn surplus(&self) -> usize {
        self.serving().saturating_sub(self.places)
    }

    fn idle_worker(&self) -> Option<u64> {
        let idle = self.workers.iter().filter_map(|(token, worker)| match worker.job {
            Job::Idle { since } if worker.link.is_some() && !worker.blocked && worker.broken.is_none() => {
                Some((since, *token))
            }
            _ => None,
        });
        // The one that was used last is the warmest.
        idle.max().map(|(_, token)| token)
    }

    fn place_actors(&mut self) {
        for actor in self.actors.waiting() {
            let Some(token) = self.idle_worker() else { return };
            let worker = self.workers.get_mut(&token).expect("just found");
            let link = worker.link.as_ref().expect("an idle worker has registered");
            if self.actors.place(actor, token, link) {
                worker.job = Job::Actor { actor };
            }
        }
    }

    fn grant(&mut self) {
        loop {
            let busy = self
                .workers
                .values()
                .filter(|worker| !worker.blocked && matches!(worker.job, Job::Leased { .. }));
            if self.wants.is_empty() || busy.count() >= self.places {
                return;
            }
            let Some(token) = self.idle_worker() else { return };
            let is_blocked = |want: &Want| {
                self.workers.values().any(|worker| worker.blocked && worker.is_at(want.caller.peer))
            };
            let position = self.wants.iter().rposition(is_blocked).unwrap_or(0);
            let want = &mut self.wants[position];
            want.workers -= 1;
            let caller = want.caller.clone();
            if want.workers == 0 {
                self.wants.remove(position);
            } else if position == 0 {
                // Those that wait take turns.
                self.wants.rotate_left(1);
            }
            let worker = self.workers.get_mut(&token).expect("just found");
            worker.job = Job::Leased { recalled: false };
            worker.lessee = Some(caller.clone());
            let process = worker.link.as_ref().expect("an idle worker has registered").peer;
            let _ = caller.send(&FromHead::Granted { worker: process, pid: worker.pid }, Vec::new());
        }
    }

    /// Takes a worker back from a caller that has several (or has it idle), for one that has none.
    fn recall(&mut self) {
        let leases_of =
            |caller: &Link| self.workers.values().filter(|worker| worker.is_leased_to(caller)).count();
        let without = self.wants.iter().any(|want| leases_of(&want.caller) == 0);
        let pending =
            self.workers.values().any(|worker| matches!(worker.job, Job::Leased { recalled: true }));
        if !without || pending || self.idle_worker().is_some() || self.starting() > 0 {
            return;
        }
        let richest = self
            .workers
            .iter()
            .filter(|(_, worker)| matches!(worker.job, Job::Leased { .. }) && !worker.blocked)
            .filter_map(|(token, worker)| Some((leases_of(worker.lessee.as_ref()?), *token)))
            .max();
        let Some((_, token)) = richest else { return };
        let worker = self.workers.get_mut(&token).expect("just found");
        worker.job = Job::Leased { recalled: true };
        if let (Some(lessee), Some(link)) = (&worker.lessee, &worker.link) {
            let _ = lessee.send(&FromHead::Recall { worker: link.peer }, Vec::new());
        }
    }

    fn end_surplus(&mut self) {
        for _ in 0..self.surplus() {
            let idle = self.workers.iter().find(|(_, worker)| {
                matches!(worker.job, Job::Idle { since } if since.elapsed() >= SURPLUS_KEPT)
                    && !worker.blocked
            });
            let Some(token) = idle.map(|(token, _)| *token) else { return };
            self.exit(token);
        }
    }

    // ---- actors ----

    /// Ends actors that nobody has a handle to any more.
    pub(super) fn look_after_actors(&mut self) {
        for actor in self.actors.out_of_scope() {
            let token = self.actors.process_of(actor);
            self.actors.over(actor, 0, Failure::Other("its last handle is gone".into()));
            if let Some(token) = token {
                self.exit(token);
            }
        }
    }

    fn end_actor(&mut self, actor: u64, failure: Failure) {
        let token = self.actors.process_of(actor);
        let pid = token.and_then(|token| self.workers.get(&token)).map_or(0, |worker| worker.pid);
        self.actors.over(actor, pid, failure);
        if let Some(token) = token {
            if let Some(worker) = self.workers.get_mut(&token) {
                worker.job = Job::Exiting { since: Instant::now() };
            }
            self.processes.kill(token);
        }
    }

    fn on_constructed(&mut self, from: &Arc<Link>, actor: u64, result: Result<(), Failure>) {
        let token = self.actors.process_of(actor);
        let worker = token.and_then(|token| Some((token, self.workers.get(&token)?)));
        // Of a process that was the actor's before, nobody wants to know any more.
        let Some((token, worker)) = worker.filter(|(_, worker)| worker.is_at(from.peer)) else { return };
        let pid = worker.pid;
        match result {
            Ok(()) => self.actors.alive(actor, from.peer, pid),
            Err(failure) => {
                let class = self.actors.class_name(actor);
                let failure = match failure {
                    Failure::Task(error) => Failure::ConstructorFailed { class, error },
                    failure => failure,
                };
                self.actors.over(actor, pid, failure);
                self.exit(token);
            }
        }
    }
}
