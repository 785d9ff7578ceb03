//! Who gets which worker, and how many there are: decided here, without links or processes, and carried out by the
//! [state](super::state).
//!
//! Places, not processes, are scarce: as many calls of functions may run as the session has workers. A worker whose
//! call waits for results of others has given its place up, so there can be more processes than places. Places go to
//! those first who have given one up, the latest of them before the earlier: deep recursion finishes what it began
//! before it begins more.
//!
//! There is a limit to all processes, of which actors leave so many that calls have their places. When it is reached
//! and all that run wait for others, whoever wants one more gets an error instead: nothing else would go on. The limit
//! is lower while the driver has no room for so many.
//!
//! A call whose caller has died runs on, but nobody waits for it, and it may never end: its worker holds no place, and
//! nobody gets it until it says that it is free.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;

#[cfg(test)]
mod calls;
#[cfg(test)]
mod simulation;

/// A worker beyond what is needed ends after being idle for this long.
const SURPLUS_KEPT: Duration = Duration::from_secs(1);
/// How long a process may take until it registers. One that takes longer never will: what it said was lost, or it
/// hangs.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a process that was told to exit may take.
pub(super) const EXIT_PATIENCE: Duration = Duration::from_secs(2);
/// A worker whose lease ended while it may have been busy says within this time that it is free, unless it is busy.
const FREE_PATIENCE: Duration = Duration::from_millis(100);
/// How long nothing may go on for want of processes, before somebody who wants one is refused: calls whose waits have
/// timeouts may go on by themselves.
const STUCK_PATIENCE: Duration = Duration::from_millis(500);
/// The same when actors may still produce what the calls wait for, and no blocked call needs the process.
const STUCK_PATIENCE_FOR_ACTORS: Duration = Duration::from_secs(30);
/// A session may have so many processes whatever room there is: a worker, and an actor or what the worker's call waits
/// for. If they cannot be started, the system says why.
const PROCESSES_MIN: usize = 2;
/// So many processes that are only there because calls wait are worth a word, or half of all that there may be.
const BLOCKED_WORTH_SAYING: usize = 64;
/// How long a process may go on that cannot be talked to any more. Mostly it is ending, and how it ends is worth
/// knowing.
const BROKEN_PATIENCE: Duration = Duration::from_millis(100);

/// The other end of a link to the head: whoever wants workers, and the workers themselves.
pub(super) trait Caller: Clone {
    /// Which link.
    fn id(&self) -> u64;
    /// Which process.
    fn peer(&self) -> OwnerId;
}

/// A process of the session, besides the driver.
pub(super) struct Worker<C> {
    pub(super) pid: u32,
    /// Once it has registered.
    pub(super) link: Option<C>,
    pub(super) job: Job,
    /// Whom it is leased to.
    lessee: Option<C>,
    /// Its call waits for results of others.
    blocked: bool,
    /// Since when it cannot be talked to any more: its connection is closed, or what it writes makes no sense.
    pub(super) broken: Option<Instant>,
    /// It took too long to end, and was killed.
    pub(super) killed: bool,
}

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    Starting {
        since: Instant,
    },
    Idle {
        since: Instant,
    },
    Leased {
        recalled: bool,
    },
    /// Nobody has it any more, but it may still run what somebody asked of it.
    Finishing {
        since: Instant,
        asked: bool,
    },
    Actor {
        actor: u64,
    },
    Exiting {
        since: Instant,
    },
}

impl<C: Caller> Worker<C> {
    fn is_leased_to(&self, caller: &C) -> bool {
        matches!(self.job, Job::Leased { .. })
            && self.lessee.as_ref().is_some_and(|lessee| lessee.id() == caller.id())
    }

    fn end_lease(&mut self, is_busy: bool, now: Instant) {
        self.job =
            if is_busy { Job::Finishing { since: now, asked: false } } else { Job::Idle { since: now } };
        self.lessee = None;
    }

    fn is_at(&self, peer: OwnerId) -> bool {
        self.link.as_ref().is_some_and(|link| link.peer() == peer)
    }

    /// Whether it has taken longer to start, or to end, than it may.
    fn is_late(&self, now: Instant) -> bool {
        let is_late = match self.job {
            Job::Starting { since } => now.duration_since(since) > START_PATIENCE,
            Job::Exiting { since } => now.duration_since(since) > EXIT_PATIENCE,
            _ => false,
        };
        is_late || self.broken.is_some_and(|since| now.duration_since(since) > BROKEN_PATIENCE)
    }

    /// Whether it will do something, be it to end, that others may wait for.
    fn goes_on(&self, now: Instant) -> bool {
        match self.job {
            Job::Starting { .. } | Job::Exiting { .. } => true,
            Job::Idle { .. } | Job::Leased { .. } => self.broken.is_some() || !self.blocked,
            Job::Finishing { since, .. } => now.duration_since(since) < FREE_PATIENCE,
            Job::Actor { .. } => self.broken.is_some(),
        }
    }

    /// Whether it is, or could soon be, running a call that somebody waits for.
    fn serves(&self, now: Instant) -> bool {
        let has_part = match self.job {
            Job::Starting { .. } | Job::Idle { .. } | Job::Leased { .. } => true,
            Job::Finishing { since, .. } => now.duration_since(since) < FREE_PATIENCE,
            Job::Actor { .. } | Job::Exiting { .. } => false,
        };
        has_part && !self.blocked && self.broken.is_none()
    }
}

struct Want<C> {
    caller: C,
    workers: u32,
}

/// What callers are to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision<C> {
    /// A worker is leased to a caller.
    Grant { caller: C, worker: OwnerId, pid: u32 },
    /// Somebody else has none at all.
    Recall { lessee: C, worker: OwnerId },
    /// A worker is to say when it is free.
    AskWhetherFree { worker: C },
}

/// Who is refused a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused<C> {
    /// Of the calls that a caller wants workers for.
    Caller(C),
    /// An actor that waits for one.
    Actor,
}

/// The workers of a session, by their tokens, and who wants some.
pub(super) struct Pool<C> {
    places: usize,
    processes_max: usize,
    /// How many more processes the driver has room for.
    room: usize,
    workers: HashMap<u64, Worker<C>>,
    wants: Vec<Want<C>>,
    /// Since when nothing goes on for want of processes.
    stuck: Option<Instant>,
    has_said_blocked: bool,
}

impl<C: Caller> Pool<C> {
    /// `processes_max` is more than `places`.
    pub(super) fn new(places: usize, processes_max: usize) -> Self {
        let (workers, wants) = (HashMap::new(), Vec::new());
        let room = usize::MAX;
        Self { places, processes_max, room, workers, wants, stuck: None, has_said_blocked: false }
    }

    /// How long nothing has to be looked after.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let exiting = self.workers.values().any(|worker| matches!(worker.job, Job::Exiting { .. }));
        let own = (self.surplus_count(now) > 0 || exiting).then_some(SURPLUS_KEPT / 4);
        let starting = (self.starting() > 0).then_some(START_PATIENCE / 4);
        let broken = self.workers.values().any(|worker| worker.broken.is_some());
        let broken = broken.then_some(BROKEN_PATIENCE / 4);
        let finishing = self
            .workers
            .values()
            .any(|worker| matches!(worker.job, Job::Finishing { .. }) && worker.serves(now));
        let finishing = finishing.then_some(FREE_PATIENCE / 4);
        let stuck = self.stuck.map(|_| STUCK_PATIENCE / 4);
        [own, starting, broken, finishing, stuck].into_iter().flatten().min()
    }

    // ---- what callers and workers say ----

    /// So many more workers would be welcome; replaces what the caller said before.
    pub(super) fn want(&mut self, caller: &C, workers: u32) {
        self.wants.retain(|want| want.caller.id() != caller.id());
        if workers > 0 {
            self.wants.push(Want { caller: caller.clone(), workers });
        }
    }

    /// There will be no more workers; who wanted some, where none of those that there are will have time for them.
    pub(super) fn give_up_wants(&mut self, now: Instant) -> Vec<C> {
        if self.serving(now) > 0 {
            return Vec::new();
        }
        self.wants.drain(..).map(|want| want.caller).collect()
    }

    /// Whether workers are wanted, and none of those that there are, or that start, will have time.
    pub(super) fn is_hopeless(&self, now: Instant) -> bool {
        !self.wants.is_empty() && self.serving(now) == 0
    }

    /// A caller does not need a worker any more that was leased to it. It is busy if it may still run what others have
    /// asked of it.
    pub(super) fn give_back(&mut self, caller: &C, worker: OwnerId, is_busy: bool, now: Instant) {
        let mut workers = self.workers.values_mut();
        if let Some(worker) = workers.find(|each| each.is_at(worker) && each.is_leased_to(caller)) {
            worker.end_lease(is_busy, now);
        }
    }

    /// A worker that was asked says that nothing is left of what it was asked to run.
    pub(super) fn set_free(&mut self, peer: OwnerId, now: Instant) {
        let Some(worker) = self.workers.values_mut().find(|worker| worker.is_at(peer)) else { return };
        if matches!(worker.job, Job::Finishing { asked: true, .. }) {
            worker.job = Job::Idle { since: now };
        }
    }

    /// A worker waits for results of others, or goes on.
    pub(super) fn set_blocked(&mut self, peer: OwnerId, blocked: bool) {
        if let Some(worker) = self.workers.values_mut().find(|worker| worker.is_at(peer)) {
            worker.blocked = blocked;
        }
    }

    /// Whether a process has registered, and not ended.
    pub(super) fn has(&self, peer: OwnerId) -> bool {
        self.workers.values().any(|worker| worker.is_at(peer))
    }

    /// A process cannot be talked to any more.
    pub(super) fn set_broken(&mut self, peer: OwnerId, now: Instant) {
        if let Some(worker) = self.workers.values_mut().find(|worker| worker.is_at(peer)) {
            worker.broken.get_or_insert(now);
        }
    }

    /// A link is closed: its caller wants nothing any more, and if it is a worker's, that is broken.
    pub(super) fn caller_gone(&mut self, caller: &C, now: Instant) {
        self.want(caller, 0);
        for worker in self.workers.values_mut().filter(|worker| worker.is_leased_to(caller)) {
            worker.end_lease(true, now);
        }
        self.set_broken(caller.peer(), now);
    }

    // ---- processes ----

    /// A process has been started.
    pub(super) fn add(&mut self, token: u64, pid: u32, now: Instant) {
        let worker = Worker {
            pid,
            link: None,
            job: Job::Starting { since: now },
            lessee: None,
            blocked: false,
            broken: None,
            killed: false,
        };
        self.workers.insert(token, worker);
    }

    /// Whether a process was started and has not registered.
    pub(super) fn is_starting(&self, token: u64) -> bool {
        self.workers.get(&token).is_some_and(|worker| worker.link.is_none())
    }

    /// A process that was started is ready to serve.
    pub(super) fn register(&mut self, token: u64, link: &C, now: Instant) {
        let Some(worker) = self.workers.get_mut(&token) else { return };
        worker.link = Some(link.clone());
        if matches!(worker.job, Job::Starting { .. }) {
            worker.job = Job::Idle { since: now };
        }
    }

    /// A process is to end, and is asked to by the caller.
    pub(super) fn exit(&mut self, token: u64, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&token) {
            worker.job = Job::Exiting { since: now };
        }
    }

    /// Whether a process that was told to end has not.
    pub(super) fn is_any_exiting(&self) -> bool {
        self.workers.values().any(|worker| matches!(worker.job, Job::Exiting { .. }))
    }

    /// A process has ended; what it was.
    pub(super) fn remove(&mut self, token: u64) -> Option<Worker<C>> {
        self.workers.remove(&token)
    }

    /// Processes that take longer to end than they may, to be killed.
    pub(super) fn kill_late(&mut self, now: Instant) -> Vec<u64> {
        let late = self.workers.iter_mut().filter(|(_, worker)| worker.is_late(now));
        late.map(|(token, worker)| {
            worker.killed = true;
            *token
        })
        .collect()
    }

    pub(super) fn link(&self, token: u64) -> Option<&C> {
        self.workers.get(&token)?.link.as_ref()
    }

    pub(super) fn pid(&self, token: u64) -> Option<u32> {
        Some(self.workers.get(&token)?.pid)
    }

    // ---- deciding ----

    /// A process without work. The one that was used last is the warmest.
    pub(super) fn idle(&self) -> Option<(u64, &C)> {
        let idle = self.workers.iter().filter_map(|(token, worker)| match (worker.job, &worker.link) {
            (Job::Idle { since }, Some(link)) if !worker.blocked && worker.broken.is_none() => {
                Some((since, *token, link))
            }
            _ => None,
        });
        idle.max_by_key(|(since, token, _)| (*since, *token)).map(|(_, token, link)| (token, link))
    }

    /// Whether there may be one more actor: calls of functions keep their places.
    pub(super) fn has_room_for_actor(&self) -> bool {
        self.actors() + self.places < self.limit()
    }

    /// The limit of processes, and how many there are.
    pub(super) fn processes(&self) -> (usize, usize) {
        (self.limit(), self.workers.len())
    }

    /// How many processes start, and have yet to take what they take in the driver.
    pub(super) fn starting(&self) -> usize {
        self.workers.values().filter(|worker| matches!(worker.job, Job::Starting { .. })).count()
    }

    /// How many processes are there, or on their way, for actors that wait for one.
    pub(super) fn coming(&self) -> usize {
        let comes = |worker: &&Worker<C>| matches!(worker.job, Job::Starting { .. } | Job::Idle { .. });
        self.workers.values().filter(comes).count()
    }

    /// The driver has room for so many more processes; by the limit of its descriptors alone, for `in_limit` together.
    pub(super) fn set_room(&mut self, in_limit: usize, more: usize) {
        // One for an actor, or for what a call waits for, whatever the limit says.
        let in_limit = in_limit.max(self.places + 1);
        self.room = more.min(in_limit.saturating_sub(self.workers.len()));
    }

    fn limit(&self) -> usize {
        let with_room = self.workers.len().saturating_add(self.room);
        // Calls have one place whatever room there is.
        self.processes_max.min(with_room.max(self.actors() + 1).max(PROCESSES_MIN))
    }

    fn actors(&self) -> usize {
        self.workers.values().filter(|worker| matches!(worker.job, Job::Actor { .. })).count()
    }

    /// Processes that are only there because calls wait for others, when that is worth a word for the first time.
    pub(super) fn many_blocked(&mut self) -> Option<usize> {
        let blocked = self.workers.values().filter(|worker| worker.blocked).count();
        let worth_saying = BLOCKED_WORTH_SAYING.max(4 * self.places).min(self.limit() / 2).max(1);
        let is_new = blocked >= worth_saying
            && !std::mem::replace(&mut self.has_said_blocked, blocked >= worth_saying);
        is_new.then_some(blocked)
    }

    /// An idle process becomes an actor's.
    pub(super) fn place(&mut self, token: u64, actor: u64) {
        if let Some(worker) = self.workers.get_mut(&token) {
            worker.job = Job::Actor { actor };
        }
    }

    /// Hands out what there is, and takes back what others need more.
    pub(super) fn arrange(&mut self) -> Vec<Decision<C>> {
        let mut decisions = Vec::new();
        while let Some(grant) = self.grant() {
            decisions.push(grant);
        }
        decisions.extend(self.recall());
        decisions.extend(self.ask_whether_free());
        decisions
    }

    /// How many processes are to be started, where so many actors wait for one.
    pub(super) fn lacking(&self, actors: usize, now: Instant) -> usize {
        let lacking =
            self.places.saturating_sub(self.serving(now)).max(actors.saturating_sub(self.starting()));
        lacking.min(self.limit().saturating_sub(self.workers.len()))
    }

    /// Who is not to get the process that it wants, because there are as many as there may be and none of them goes on.
    pub(super) fn refuse(&mut self, actors: usize, now: Instant) -> Option<Refused<C>> {
        let is_full = self.workers.len() >= self.limit();
        let waits = actors > 0 || !self.wants.is_empty();
        if !(is_full && waits) || self.workers.values().any(|worker| worker.goes_on(now)) {
            self.stuck = None;
            return None;
        }
        let stuck = now.duration_since(*self.stuck.get_or_insert(now));
        // The innermost call, whose caller then goes on; else one that holds up nobody.
        let position = self.wants.iter().rposition(|want| self.is_blocked(want));
        let has_actors = self.workers.values().any(|worker| matches!(worker.job, Job::Actor { .. }));
        let patience = match position {
            None if has_actors => STUCK_PATIENCE_FOR_ACTORS,
            _ => STUCK_PATIENCE,
        };
        if stuck < patience {
            return None;
        }
        self.stuck = None;
        match position.or(self.wants.len().checked_sub(1)) {
            Some(position) => Some(Refused::Caller(self.wants.remove(position).caller)),
            None => Some(Refused::Actor),
        }
    }

    /// Processes that have been idle for long, and are more than are needed.
    pub(super) fn surplus(&self, now: Instant) -> Vec<u64> {
        let idle = self.workers.iter().filter(|(_, worker)| {
            matches!(worker.job, Job::Idle { since } if now.duration_since(since) >= SURPLUS_KEPT)
                && worker.serves(now)
        });
        idle.map(|(token, _)| *token).take(self.surplus_count(now)).collect()
    }

    fn serving(&self, now: Instant) -> usize {
        self.workers.values().filter(|worker| worker.serves(now)).count()
    }

    /// Places that are taken.
    fn busy(&self) -> usize {
        let is_busy = |worker: &&Worker<C>| !worker.blocked && matches!(worker.job, Job::Leased { .. });
        self.workers.values().filter(is_busy).count()
    }

    fn surplus_count(&self, now: Instant) -> usize {
        self.serving(now).saturating_sub(self.places)
    }

    fn leases_of(&self, caller: &C) -> usize {
        self.workers.values().filter(|worker| worker.is_leased_to(caller)).count()
    }

    /// Whether who wants a worker is one that waits.
    fn is_blocked(&self, want: &Want<C>) -> bool {
        self.workers.values().any(|worker| worker.blocked && worker.is_at(want.caller.peer()))
    }

    fn grant(&mut self) -> Option<Decision<C>> {
        if self.wants.is_empty() || self.busy() >= self.places {
            return None;
        }
        let (token, link) = self.idle()?;
        let process = link.peer();
        let position = self.wants.iter().rposition(|want| self.is_blocked(want)).unwrap_or(0);
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
        Some(Decision::Grant { caller, worker: process, pid: worker.pid })
    }

    /// Takes a worker back from a caller that has several (or has it idle), for one that has none.
    fn recall(&mut self) -> Option<Decision<C>> {
        let without = self.wants.iter().any(|want| self.leases_of(&want.caller) == 0);
        let pending =
            self.workers.values().any(|worker| matches!(worker.job, Job::Leased { recalled: true }));
        // While all places are taken, neither an idle worker nor one that is starting helps anybody.
        let comes = self.starting() > 0 && self.busy() < self.places;
        if !without || pending || comes {
            return None;
        }
        let richest = self
            .workers
            .iter()
            .filter(|(_, worker)| matches!(worker.job, Job::Leased { .. }) && !worker.blocked)
            .filter_map(|(token, worker)| Some((self.leases_of(worker.lessee.as_ref()?), *token)))
            .max();
        let worker = self.workers.get_mut(&richest?.1).expect("just found");
        worker.job = Job::Leased { recalled: true };
        let (lessee, link) = (worker.lessee.as_ref()?, worker.link.as_ref()?);
        Some(Decision::Recall { lessee: lessee.clone(), worker: link.peer() })
    }

    fn ask_whether_free(&mut self) -> Vec<Decision<C>> {
        let to_ask = self.workers.values_mut().filter_map(|worker| match (&mut worker.job, &worker.link) {
            (Job::Finishing { asked, .. }, Some(link)) if !*asked => {
                *asked = true;
                Some(Decision::AskWhetherFree { worker: link.clone() })
            }
            _ => None,
        });
        to_ask.collect()
    }
}
