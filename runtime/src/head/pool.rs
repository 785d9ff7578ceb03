//! The pool of workers: which caller gets which worker, and how many workers there are. This part decides without links
//! or processes; the [state](super::state) carries the decisions out.
//!
//! [Resources](Resources), not processes, are scarce: a caller gets a worker for calls of one demand when the demand
//! fits into the [free](ledger) resources. A worker holds the resources that its calls demand until its lease ends. A
//! worker whose call waits for results of other calls has given its CPUs back, and nothing else, so there can be more
//! processes than CPUs. Free CPUs go first to workers that have given some back. The worker that gave its CPUs back
//! last gets them first, so the innermost calls finish first. All others are served [in rotation](wants).
//!
//! A worker that has reached the limit of calls of a function is *spent*: it begins no more calls, its caller gives it
//! back, and it ends. The resources of its calls, other than CPUs, are free when it has ended, unless it waits for
//! calls that it made. A process that is not needed is spent, too, so that it ends only when the calls that it made are
//! over: it may have passed on references to their results.
//!
//! A process has the [environment](Environment) that it was started in, and runs calls of this environment alone. The
//! same holds for its GPUs: a call that demands GPUs runs in a process that has this number of GPUs, when enough of
//! them is free.
//!
//! Some processes, of the usual environment, are *kept*: a fixed number of them always exists or is starting. More
//! start for demands that fit. When the limit of processes is reached, idle ones make room for processes of other
//! environments.
//!
//! All processes together have a limit, and actors leave enough of it for the kept processes. When the limit is reached
//! and all running calls wait for others, the next request gets an error, because otherwise no call would continue. The
//! limit is lower while the driver has room for fewer processes.
//!
//! A call whose caller has died is orphaned: it continues to run, but no process waits for it, and it may never end.
//! Its worker holds no CPUs, and no caller gets the worker until the worker says that it is free.

use std::time::{Duration, Instant};

use mobula_client::OwnerId;

pub(super) use self::caller::Caller;
pub(super) use self::groups::Evicted;
use self::groups::Groups;
use self::ledger::Ledger;
pub(super) use self::supply::NewProcess;
use self::wants::{Requester, Want, Wants};
use self::worker::{BROKEN_PATIENCE, FREE_PATIENCE, START_PATIENCE};
pub(super) use self::worker::{Job, Worker};
use self::workers::Workers;
use crate::demand::Demand;
use crate::environment::Environment;
use crate::resources::Resources;

mod caller;
#[cfg(test)]
mod calls;
mod groups;
mod ledger;
mod report;
mod sharing;
#[cfg(test)]
pub(super) mod simulated;
#[cfg(test)]
mod simulation;
mod supply;
mod wants;
mod worker;
mod workers;

/// A worker that is not needed ends after being idle for this long.
const SURPLUS_KEPT: Duration = Duration::from_secs(1);
/// The longest time in which a process that was told to exit may end.
pub(crate) const EXIT_PATIENCE: Duration = Duration::from_secs(2);
/// How long no call may continue for lack of processes, before a caller that wants one is refused. Until then, calls
/// whose waits have timeouts may continue by themselves.
const STUCK_PATIENCE: Duration = Duration::from_millis(500);
/// This time when actors may still produce the results that the calls wait for, and no blocked call needs the process.
const STUCK_PATIENCE_FOR_ACTORS: Duration = Duration::from_secs(30);
/// The number of processes that a session may have even without room: a worker, and an actor or the process that the
/// worker's call waits for. If they cannot be started, the system's error gives the reason.
const PROCESSES_MIN: usize = 2;
/// The head logs a warning when this many processes wait for other calls, or half of the limit.
const BLOCKED_WORTH_SAYING: usize = 64;

/// A decision that the state carries out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision<C> {
    /// A worker is leased to a caller.
    Grant { caller: C, demand: Demand, worker: OwnerId, pid: u32 },
    /// A process becomes an actor's, which demands resources.
    Place { actor: u64, token: u64 },
    /// Another caller has no worker.
    Recall { lessee: C, worker: OwnerId },
    /// A worker must say when it is free. If it is spent, it begins no more calls.
    AskWhetherFree { worker: C, is_spent: bool },
    /// A process ends.
    End { token: u64 },
}

/// The request for a process that is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused<C> {
    /// Calls of this demand, for which a caller wants workers.
    Caller(C, Demand),
    /// An actor that waits for a process; `None`: the first that demands nothing.
    Actor(Option<u64>),
}

/// The reason why a caller waits.
enum Lack {
    /// Nothing is missing, or the missing process or resource is about to come.
    Nothing,
    /// The limit of processes is reached.
    Process,
    Resources {
        lack: Resources,
        /// The demand that lacks it, with the best GPUs: those that lack least of it.
        demand: Resources,
    },
}

/// The workers of a session, by their tokens, and the callers that want workers.
pub(super) struct Pool<C> {
    /// The number of processes that are kept for calls.
    kept: usize,
    ledger: Ledger,
    processes_max: usize,
    /// The number of processes for which the driver still has room.
    room: usize,
    workers: Workers<C>,
    wants: Wants<C>,
    /// Since when no call continues because processes are missing.
    stuck: Option<Instant>,
    has_said_blocked: bool,
    groups: Groups,
}

impl<C: Caller> Pool<C> {
    /// `processes_max` is more than `kept`.
    pub(super) fn new(kept: usize, processes_max: usize, total: Resources) -> Self {
        let (workers, wants) = (Workers::new(), Wants::new());
        let (ledger, room) = (Ledger::new(total), usize::MAX);
        let (stuck, has_said_blocked, groups) = (None, false, Groups::default());
        Self { kept, ledger, processes_max, room, workers, wants, stuck, has_said_blocked, groups }
    }

    /// The resources that are free.
    pub(super) fn free(&self) -> Resources {
        self.ledger.free()
    }

    /// The resources that are free, with single GPUs.
    pub(super) fn free_with_gpus(&self) -> Resources {
        self.ledger.free_with_gpus()
    }

    /// The time until work is due without a record or an event; `None`: no work is due.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let own = (self.surplus_count(now) > 0 || self.is_any_exiting()).then_some(SURPLUS_KEPT / 4);
        let others = self.workers.active().any(|(_, worker)| self.is_spare(worker));
        let others = others.then_some(SURPLUS_KEPT / 4);
        let starting = (self.starting() > 0).then_some(START_PATIENCE / 4);
        let broken = self.workers.active().any(|(_, worker)| worker.broken.is_some());
        let broken = broken.then_some(BROKEN_PATIENCE / 4);
        let is_finishing = |worker: &Worker<C>| worker.is_finishing(now) || worker.is_ending(now);
        let finishing = self.workers.active().any(|(_, worker)| is_finishing(worker));
        let finishing = finishing.then_some(FREE_PATIENCE / 4);
        let stuck = self.stuck.map(|_| STUCK_PATIENCE / 4);
        let wants = self.wants_change_in(now);
        [own, others, starting, broken, finishing, stuck, wants].into_iter().flatten().min()
    }

    // ---- what callers and workers say ----

    /// A caller wants this many more workers for calls of a demand. Replaces its earlier request.
    pub(super) fn want(&mut self, caller: &C, demand: Demand, workers: u32, now: Instant) {
        self.wants.set(caller, demand, workers, now);
    }

    /// No more workers of an environment will start. Returns the callers that want workers of it, and the demands of
    /// their calls, if no existing worker will be free for them.
    pub(super) fn give_up_wants(&mut self, environment: &Environment, now: Instant) -> Vec<(C, Demand)> {
        if self.serving(environment, now) > 0 {
            return Vec::new();
        }
        // `Actors` informs the actors.
        let callers =
            self.wants.take_all_of(environment).into_iter().filter_map(|want| match want.requester {
                Requester::Caller(caller) => Some((caller, want.demand)),
                Requester::Actor(_) | Requester::Group(_) => None,
            });
        callers.collect()
    }

    /// Sets the actors that demand something and wait for a process. It replaces all earlier ones.
    pub(super) fn want_actors<'a>(&mut self, actors: impl Iterator<Item = (u64, &'a Demand)>, now: Instant) {
        self.wants.set_actors(actors.collect(), now);
    }

    /// Whether workers of an environment are wanted, and no existing or starting one will be free.
    pub(super) fn is_hopeless(&self, environment: &Environment, now: Instant) -> bool {
        self.wants.iter().any(|want| !want.is_group() && want.demand.environment() == environment)
            && self.serving(environment, now) == 0
    }

    /// A caller gives back its leased worker. The worker is busy if it may still run calls of other processes.
    pub(super) fn give_back(&mut self, caller: &C, worker: OwnerId, is_busy: bool, now: Instant) {
        let leased = self.workers.at(worker).filter(|(_, worker)| worker.is_leased_to(caller));
        if let Some((token, _)) = leased {
            self.end_lease(token, is_busy, now);
        }
    }

    /// A worker answers that it has no calls left.
    pub(super) fn set_free(&mut self, peer: OwnerId, now: Instant) {
        let Some((token, worker)) = self.workers.at(peer) else { return };
        if matches!(worker.job, Job::Finishing { asked: true, .. }) {
            self.change(token, |worker| worker.job = Job::Idle { since: now });
        }
    }

    /// A worker begins or ends to wait for results of other calls.
    pub(super) fn set_blocked(&mut self, peer: OwnerId, blocked: bool) {
        if let Some((token, _)) = self.workers.at(peer) {
            self.change(token, |worker| worker.blocked = blocked);
        }
    }

    /// A worker begins no more calls. Its caller gives it back. It ends when it has no calls left, and no calls that it
    /// made are running: if some are running now, it `waits`.
    pub(super) fn set_spent(&mut self, peer: OwnerId, waits: bool, now: Instant) {
        // A second report is ignored: the worker may already have returned these resources.
        let Some((token, _)) = self.workers.at(peer).filter(|(_, worker)| !worker.spent) else { return };
        self.change(token, |worker| worker.set_spent(!waits, now));
    }

    /// The processes among `stuck` that hold resources without which a demand never fits.
    pub(super) fn holders(
        &self,
        demand: &Resources,
        is_stuck: impl Fn(OwnerId) -> bool,
    ) -> Option<Vec<OwnerId>> {
        let (mut held, mut holders) = (Resources::default(), Vec::new());
        for (_, worker) in self.workers.all() {
            let Some(peer) = worker.link.as_ref().map(Caller::peer) else { continue };
            if worker.held.overlaps(demand) && is_stuck(peer) {
                held.add(&worker.held);
                holders.push(peer);
            }
        }
        (!holders.is_empty() && !demand.fits(self.ledger.total(), [&held])).then_some(holders)
    }

    /// The process id of a process that has registered.
    pub(super) fn pid_at(&self, peer: OwnerId) -> Option<u32> {
        self.workers.at(peer).map(|(_, worker)| worker.pid)
    }

    /// The actor in a process.
    pub(super) fn actor_at(&self, peer: OwnerId) -> Option<u64> {
        match self.workers.at(peer)?.1.job {
            Job::Actor { actor } => Some(actor),
            _ => None,
        }
    }

    /// Whether a process has registered, and not ended.
    pub(super) fn has(&self, peer: OwnerId) -> bool {
        self.workers.at(peer).is_some()
    }

    /// A process is broken: it can no longer send or receive records.
    pub(super) fn set_broken(&mut self, peer: OwnerId, now: Instant) {
        if let Some((token, _)) = self.workers.at(peer) {
            self.workers.change(token, |worker| _ = worker.broken.get_or_insert(now));
        }
    }

    /// A link is closed: all wants of its caller end. If the link is a worker's, the worker is broken.
    pub(super) fn caller_gone(&mut self, caller: &C, now: Instant) {
        self.wants.forget(caller);
        let leased: Vec<u64> = self.workers.leased_to(caller).map(|(token, _)| token).collect();
        for token in leased {
            self.end_lease(token, true, now);
        }
        self.set_broken(caller.peer(), now);
    }

    // ---- processes ----

    /// A process has been started.
    pub(super) fn add(&mut self, token: u64, pid: u32, process: NewProcess, now: Instant) {
        let NewProcess { environment, gpus } = process;
        let worker = Worker {
            pid,
            environment,
            gpus,
            link: None,
            job: Job::Starting { since: now },
            lessee: None,
            given: None,
            demand: Demand::nothing(),
            held: Resources::default(),
            blocked: false,
            spent: false,
            keeps: false,
            broken: None,
            killed: false,
        };
        self.workers.add(token, worker);
    }

    /// Whether a process was started and has not ended.
    pub(super) fn is_there(&self, token: u64) -> bool {
        self.workers.get(token).is_some()
    }

    /// Whether a process was started and has not registered.
    pub(super) fn is_starting(&self, token: u64) -> bool {
        self.workers.get(token).is_some_and(|worker| worker.link.is_none())
    }

    /// A process that was started has registered and can serve.
    pub(super) fn register(&mut self, token: u64, link: &C, now: Instant) {
        self.workers.change(token, |worker| {
            worker.link = Some(link.clone());
            if matches!(worker.job, Job::Starting { .. }) {
                worker.job = Job::Idle { since: now };
            }
        });
    }

    /// A process must end. The caller of this function tells it so.
    pub(super) fn exit(&mut self, token: u64, now: Instant) {
        self.exit_within(token, now, EXIT_PATIENCE);
    }

    /// A process must end, and is killed if it has not ended when the time is over.
    pub(super) fn exit_within(&mut self, token: u64, now: Instant, patience: Duration) {
        let until = now.checked_add(patience).unwrap_or(now + START_PATIENCE);
        self.change(token, |worker| worker.job = Job::Exiting { until });
    }

    /// A process is killed. If it is idle, no caller may get it any more.
    pub(super) fn exit_if_idle(&mut self, token: u64, now: Instant) {
        if self.workers.get(token).is_some_and(Worker::is_idle) {
            self.exit(token, now);
        }
    }

    /// Whether there is a process that was told to end and has not ended.
    pub(super) fn is_any_exiting(&self) -> bool {
        self.workers.active().any(|(_, worker)| matches!(worker.job, Job::Exiting { .. }))
    }

    /// Removes a process that has ended, and returns it.
    pub(super) fn remove(&mut self, token: u64) -> Option<Worker<C>> {
        let mut worker = self.workers.remove(token)?;
        self.ledger.replace(&mut worker.held, Resources::default());
        self.settle_groups();
        Some(worker)
    }

    /// The processes that take too long to end, and were not returned before. They must be killed.
    pub(super) fn kill_late(&mut self, now: Instant) -> Vec<u64> {
        let late = self.workers.active().filter(|(_, worker)| worker.is_late(now) && !worker.killed);
        let late: Vec<u64> = late.map(|(token, _)| token).collect();
        for token in &late {
            self.workers.change(*token, |worker| worker.killed = true);
        }
        late
    }

    /// The existing processes, each with the caller to which it is leased and the time since when it has been leased or
    /// an actor's. Takes a time that grows with the number of processes.
    pub(super) fn living(&self) -> impl Iterator<Item = (u64, &Worker<C>, Option<&C>, Instant)> {
        self.workers.all().filter_map(|(token, worker)| match worker.job {
            _ if worker.broken.is_some() || worker.killed => None,
            Job::Idle { since } => Some((token, worker, None, since)),
            Job::Leased { .. } | Job::Finishing { .. } | Job::Actor { .. } => {
                Some((token, worker, worker.lessee.as_ref(), worker.given?))
            }
            Job::Starting { .. } | Job::Exiting { .. } => None,
        })
    }

    pub(super) fn link(&self, token: u64) -> Option<&C> {
        self.workers.get(token)?.link.as_ref()
    }

    /// The environment that a process was started in.
    pub(super) fn environment(&self, token: u64) -> Environment {
        self.workers.get(token).map(|worker| worker.environment.clone()).unwrap_or_default()
    }

    pub(super) fn pid(&self, token: u64) -> Option<u32> {
        Some(self.workers.get(token)?.pid)
    }

    /// The process with a pid.
    pub(super) fn token_of_pid(&self, pid: u32) -> Option<u64> {
        self.workers.all().find(|(_, worker)| worker.pid == pid).map(|(token, _)| token)
    }

    // ---- deciding ----

    /// A process of the usual environment without work.
    pub(super) fn idle_usual(&self) -> Option<(u64, &C)> {
        self.idle(|worker| worker.environment.is_usual())
    }

    /// A process without work among these. The one that was used last is the warmest.
    fn idle(&self, is_it: impl Fn(&Worker<C>) -> bool) -> Option<(u64, &C)> {
        let idle = self.workers.active().filter_map(|(token, worker)| match (worker.job, &worker.link) {
            (Job::Idle { since }, Some(link)) if worker.is_idle() && is_it(worker) => {
                Some((since, token, link))
            }
            _ => None,
        });
        idle.max_by_key(|(since, token, _)| (*since, *token)).map(|(_, token, link)| (token, link))
    }

    /// An idle process becomes an actor's, which demands nothing.
    pub(super) fn place(&mut self, token: u64, actor: u64, now: Instant) {
        self.change(token, |worker| {
            worker.job = Job::Actor { actor };
            worker.given = Some(now);
            worker.demand = Demand::nothing();
        });
    }

    /// An actor no longer needs the process that was kept for it.
    pub(super) fn set_idle(&mut self, token: u64, now: Instant) {
        self.change(token, |worker| worker.job = Job::Idle { since: now });
    }

    /// Hands out workers, and recalls workers that other callers need more.
    pub(super) fn arrange(&mut self, now: Instant) -> Vec<Decision<C>> {
        let mut decisions = self.recall_spent();
        while let Some(grant) = self.grant(now) {
            decisions.push(grant);
        }
        decisions.extend(self.recall(now));
        decisions.extend(self.ask_whether_free());
        decisions
    }

    /// The number of workers that do not rest for which something holds.
    fn count(&self, is_it: impl Fn(&Worker<C>) -> bool) -> usize {
        self.workers.active().filter(|(_, worker)| is_it(worker)).count()
    }

    // ---- changes ----

    /// Changes a worker, and what it holds.
    fn change(&mut self, token: u64, change: impl FnOnce(&mut Worker<C>)) {
        let ledger = &mut self.ledger;
        self.workers.change(token, |worker| {
            change(worker);
            worker.charge(ledger);
        });
    }

    fn end_lease(&mut self, token: u64, is_busy: bool, now: Instant) {
        self.change(token, |worker| worker.end_lease(is_busy, now));
    }

    // ---- wants ----

    /// Whether the caller has no worker for calls of this demand.
    fn is_poor(&self, want: &Want<C>) -> bool {
        match &want.requester {
            Requester::Caller(caller) => {
                !self.workers.leased_to(caller).any(|(_, worker)| worker.demand == want.demand)
            }
            Requester::Actor(_) | Requester::Group(_) => true,
        }
    }

    /// Whether the caller that wants a worker is a blocked worker.
    fn is_blocked(&self, want: &Want<C>) -> bool {
        let Requester::Caller(caller) = &want.requester else { return false };
        self.workers.at(caller.peer()).is_some_and(|(_, worker)| worker.blocked)
    }

    /// Whether the caller that wants a worker runs a call that has begun.
    fn is_running(&self, want: &Want<C>) -> bool {
        let Requester::Caller(caller) = &want.requester else { return false };
        let worker = self.workers.at(caller.peer());
        worker.is_some_and(|(_, worker)| matches!(worker.job, Job::Leased { .. }))
    }

    /// The want whose demand no other caller may use: the oldest one that reserves. A want that has to wait for an
    /// actor does not reserve, because actors may live for ever.
    fn reserving(&self, now: Instant) -> Option<usize> {
        let reserves = |want: &Want<C>| want.is_reserving(now) && self.is_poor(want);
        // Mostly none does.
        if !self.wants.iter().any(reserves) {
            return None;
        }
        let of_actors = self.of_actors();
        let can_come = |want: &Want<C>| self.ledger.has_but(&want.demand, &of_actors);
        let wants = self.wants.iter().enumerate().filter(|(_, want)| reserves(want) && can_come(want));
        wants.min_by_key(|(_, want)| want.since).map(|(position, _)| position)
    }

    /// The want that is served next, among those whose demand fits and for which `can_be` holds.
    fn next_want(&self, can_be: impl Fn(&Want<C>) -> bool, now: Instant) -> Option<usize> {
        let reserving = self.reserving(now);
        let reserved = reserving.and_then(|position| self.wants.iter().nth(position));
        let may_go = |want: &Want<C>| can_be(want) && self.fits_beside(reserved, want);
        let blocked = self.wants.iter().rposition(|want| self.is_blocked(want) && may_go(want));
        let has_all = |want: &Want<C>| can_be(want) && self.ledger.has(&want.demand);
        let reserving = reserving.filter(|_| reserved.is_some_and(has_all));
        blocked.or(reserving).or_else(|| self.wants.iter().position(may_go))
    }

    /// Whether a demand fits beside the taken and the reserved resources.
    fn fits_beside(&self, reserved: Option<&Want<C>>, want: &Want<C>) -> bool {
        match reserved {
            // A call that has begun may finish with the resources that it needs: the reservation may be waiting for its
            // end.
            Some(_) if self.is_running(want) && self.is_poor(want) => self.ledger.has(&want.demand),
            Some(reserved) if std::ptr::eq(reserved, want) => self.ledger.has(&want.demand),
            Some(reserved) => self.ledger.has_beside(&want.demand, &reserved.demand),
            None => self.ledger.has(&want.demand),
        }
    }

    /// Whether a process is of the environment of a demand, and enough of its GPUs is free.
    fn suits(&self, worker: &Worker<C>, demand: &Demand) -> bool {
        worker.environment == *demand.environment()
            && (worker.gpus.is_empty() || self.ledger.has_on(demand, &worker.gpus))
    }

    /// Whether a process can serve a want. It cannot serve its own, because a process opens no channel to itself. A
    /// process whose call has ended may still want a worker, for the calls that its call made.
    fn can_serve(&self, worker: &Worker<C>, want: &Want<C>) -> bool {
        self.suits(worker, &want.demand) && !want.requester.is_in(worker.process())
    }

    fn grant(&mut self, now: Instant) -> Option<Decision<C>> {
        if self.wants.is_empty() {
            return None;
        }
        let idle = self.workers.active().map(|(_, worker)| worker).filter(|worker| worker.is_idle());
        let idle: Vec<&Worker<C>> = idle.collect();
        if idle.is_empty() && !self.wants.iter().any(Want::is_group) {
            return None;
        }
        let can_be =
            |want: &Want<C>| want.is_group() || idle.iter().any(|worker| self.can_serve(worker, want));
        let position = self.next_want(can_be, now)?;
        let want = self.wants.iter().nth(position)?;
        if let Requester::Group(group) = want.requester {
            self.wants.served(position, now);
            self.place_group(group);
            return self.grant(now);
        }
        let (token, link) = self.idle(|worker| self.can_serve(worker, want))?;
        let process = link.peer();
        let (requester, demand) = self.wants.served(position, now);
        let pid = self.pid(token)?;
        let given = requester.clone();
        self.change(token, |worker| {
            worker.demand = demand.clone();
            worker.given = Some(now);
            match given {
                Requester::Caller(caller) => {
                    worker.job = Job::Leased { recalled: false };
                    worker.lessee = Some(caller);
                }
                Requester::Actor(actor) => worker.job = Job::Actor { actor },
                // It has no process.
                Requester::Group(_) => {}
            }
        });
        match requester {
            Requester::Caller(caller) => Some(Decision::Grant { caller, demand, worker: process, pid }),
            Requester::Actor(actor) => Some(Decision::Place { actor, token }),
            Requester::Group(_) => None,
        }
    }

    /// Recalls workers for a caller that has none, from callers that have several workers, or idle ones. It recalls one
    /// if that is enough, and the necessary number for a caller that reserves.
    fn recall(&mut self, now: Instant) -> Vec<Decision<C>> {
        let reserving = self.reserving(now);
        let poor = (0..).zip(self.wants.iter()).filter(|(position, want)| {
            reserving.map_or_else(|| self.is_poor(want), |reserving| *position == reserving)
        });
        let demands: Vec<_> = poor.map(|(_, want)| (want.demand.clone(), want.is_group())).collect();
        let mut decisions = Vec::new();
        for (demand, is_group) in demands {
            loop {
                let (lack, demand) = match self.lack(&demand, now) {
                    Lack::Nothing => return decisions,
                    Lack::Process if is_group => return decisions,
                    Lack::Process => Default::default(),
                    Lack::Resources { lack, demand } => (lack, demand),
                };
                let helps = |held: &Resources| match reserving {
                    Some(_) if !lack.is_nothing() => held.overlaps(&lack),
                    // Calls that go on after a wait have taken more than there is: that is not for this one to mend.
                    _ => lack.at_most(&demand).is_within(held),
                };
                match self.recall_from_richest(helps) {
                    Some(recall) => decisions.push(recall),
                    None => break,
                }
            }
        }
        decisions
    }

    /// The resources that a demand lacks after all returning resources have come back.
    fn lack(&self, demand: &Demand, now: Instant) -> Lack {
        let is_recalled = |worker: &Worker<C>| worker.is_recalled() && !worker.blocked;
        let coming = self.comes_back();
        let on_gpus = self.ledger.on_best_gpus(demand, &coming);
        let lack = self.ledger.lack(&on_gpus, &coming);
        if !lack.is_nothing() {
            return Lack::Resources { lack, demand: on_gpus };
        }
        let is_any =
            |is_it: &dyn Fn(&Worker<C>) -> bool| self.workers.active().any(|(_, worker)| is_it(worker));
        let is_of_it = |worker: &Worker<C>| worker.environment == *demand.environment();
        let comes = is_any(&|worker| worker.is_starting() && is_of_it(worker)) || is_any(&is_recalled);
        // Another process starts, unless one that is there may soon be free. Idle ones of other environments end.
        let starts = match self.workers.len() < self.limit() {
            true => !is_any(&|worker| worker.is_finishing(now) && is_of_it(worker)),
            false => {
                is_any(&|worker| worker.is_ending(now))
                    || is_any(&|worker| worker.is_idle() && !self.suits(worker, demand))
            }
        };
        if comes || starts { Lack::Nothing } else { Lack::Process }
    }

    /// The resources that are about to come back.
    pub(super) fn comes_back(&self) -> Resources {
        let comes = |worker: &Worker<C>| {
            worker.is_recalled() && !worker.blocked || matches!(worker.job, Job::Exiting { .. })
        };
        let mut coming = Resources::default();
        let going = self.workers.active().filter(|(_, worker)| comes(worker));
        going.for_each(|(_, worker)| coming.add(&worker.held));
        coming
    }

    /// Recalls one of the workers whose resources help, from the caller that has most of them.
    fn recall_from_richest(&mut self, helps: impl Fn(&Resources) -> bool) -> Option<Decision<C>> {
        let richest = self
            .workers
            .active()
            .filter(|(_, worker)| worker.is_recallable() && helps(&worker.held))
            .filter_map(|(token, worker)| {
                Some((self.workers.leased_to(worker.lessee.as_ref()?).count(), token))
            })
            .max();
        self.recall_worker(richest?.1)
    }

    /// Recalls the workers that begin no more calls.
    fn recall_spent(&mut self) -> Vec<Decision<C>> {
        let is_leased = |worker: &Worker<C>| matches!(worker.job, Job::Leased { recalled: false });
        let spent = self.workers.active().filter(|(_, worker)| worker.spent && is_leased(worker));
        let spent: Vec<u64> = spent.map(|(token, _)| token).collect();
        spent.into_iter().filter_map(|token| self.recall_worker(token)).collect()
    }

    fn recall_worker(&mut self, token: u64) -> Option<Decision<C>> {
        self.workers.change(token, |worker| worker.job = Job::Leased { recalled: true });
        let worker = self.workers.get(token)?;
        let (lessee, link) = (worker.lessee.as_ref()?, worker.link.as_ref()?);
        Some(Decision::Recall { lessee: lessee.clone(), worker: link.peer() })
    }

    /// Asks the workers that may still have calls, and were not asked yet.
    pub(super) fn ask_whether_free(&mut self) -> Vec<Decision<C>> {
        let to_ask = self.workers.active().filter_map(|(token, worker)| match (worker.job, &worker.link) {
            (Job::Finishing { since, asked: false }, Some(link)) => {
                Some((token, since, worker.spent, link.clone()))
            }
            _ => None,
        });
        let to_ask: Vec<_> = to_ask.collect();
        let ask = |(token, since, is_spent, worker)| {
            self.workers.change(token, |worker| worker.job = Job::Finishing { since, asked: true });
            Decision::AskWhetherFree { worker, is_spent }
        };
        to_ask.into_iter().map(ask).collect()
    }
}
