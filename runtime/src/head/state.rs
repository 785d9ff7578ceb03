//! The head's state. It handles the records that the head receives, and carries out the decisions of the
//! [pool](super::pool) about workers and of the [actors](super::actors) about actors. It has the processes of the
//! session and the links to them.

mod deadlocks;
mod elsewhere;
mod groups;
mod memory;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use mobula_client::internal::{Socket, explained};
use mobula_client::{Client, OwnerId};

use super::actors::{ActorProcesses, Actors};
use super::deadlock::Deadlocks;
use super::deaths::Deaths;
use super::detached::{Detached, DetachedHead, OnDetached};
use super::ends::Ends;
use super::foreign::{Foreign, numbers_of};
use super::groups::Groups;
use super::memory::Monitor;
use super::names::SharedNames;
use super::orders::Orders;
use super::pool::{Caller, Decision, Job, NewProcess, Pool, Refused};
use super::processes::{Ended, Processes};
use super::share::Share;
use super::start_failures::StartFailures;
use crate::environment::Environment;
use crate::error::{ExitReason, Failure, TaskError};
use crate::mail::link::Link;
use crate::mail::links::Links;
use crate::process::{descriptors, output};
use crate::record;
use crate::resources::Resources;
use crate::wire::{self, FromHead, ToHead};

/// The state of the head; see the module's documentation.
pub(super) struct State {
    pub(super) processes: Processes,
    pub(super) pool: Pool<Arc<Link>>,
    /// The build of the driver's host. Workers must have the same.
    build_id: u64,
    pub(super) actors: Actors<Arc<Link>>,
    deaths: Deaths,
    ends: Ends<Arc<Link>>,
    groups: Groups,
    /// The processes that are killed because their placement groups were removed.
    evicted: HashSet<u64>,
    pub(super) orders: Orders,
    pub(super) deadlocks: Deadlocks,
    /// The links by the processes at their other ends.
    pub(super) links: HashMap<OwnerId, Arc<Link>>,
    memory: Option<Monitor>,
    /// The part in a session that other drivers share.
    pub(super) share: Option<Share>,
    /// The actors of these drivers.
    foreign: Option<Foreign>,
    /// The head of this driver's detached actors, in such a session.
    detached_head: Option<(DetachedHead, OnDetached)>,
    /// This head keeps the detached actors of a driver.
    detached: Option<Detached>,
    /// The driver that waits until every process that was told to end has ended, and the number of processes that did
    /// not end in time.
    ending: Option<(Sender<usize>, usize)>,
    start_failures: StartFailures,
    is_store_lost: bool,
}

impl State {
    pub(super) fn new(
        pool: Pool<Arc<Link>>,
        processes: Processes,
        build_id: u64,
        memory: Option<Monitor>,
    ) -> Self {
        Self {
            processes,
            pool,
            build_id,
            actors: Actors::new(),
            deaths: Deaths::default(),
            ends: Ends::new(),
            groups: Groups::default(),
            evicted: HashSet::new(),
            orders: Orders::default(),
            deadlocks: Deadlocks::default(),
            links: HashMap::new(),
            memory,
            share: None,
            foreign: None,
            detached_head: None,
            detached: None,
            ending: None,
            start_failures: StartFailures::default(),
            is_store_lost: false,
        }
    }

    /// The time until work is due without a record or an event; `None`: no work is due.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let memory = self.memory.as_ref().and_then(|monitor| monitor.timeout(now));
        let share = self.share.as_ref().and_then(|share| share.timeout(now));
        let deadlocks = self.deadlocks.timeout(now);
        let detached = self.detached.as_ref().and_then(|detached| detached.timeout(now));
        let all = [self.pool.timeout(now), self.actors.timeout(now), memory, share, deadlocks, detached];
        all.into_iter().flatten().min()
    }

    pub(super) fn something_happened(&mut self) {
        self.actors.look_soon();
    }

    /// Without the store no process can be started, and none that runs can be reached.
    pub(super) fn store_lost(&mut self) {
        self.is_store_lost = true;
    }

    /// Other drivers share the session, which has this directory.
    pub(super) fn share(&mut self, client: &Client, links: &Arc<Links>, directory: PathBuf) {
        let names = || SharedNames::new(client.clone(), directory.clone());
        self.actors = Actors::shared(names(), numbers_of(client.id()));
        self.groups = Groups::shared(numbers_of(client.id()));
        self.foreign = Some(Foreign::new(client.clone(), links.clone(), names(), self.build_id));
        self.share = Some(Share::new(directory));
    }

    /// There is a connection to the process of the session.
    pub(super) fn connected(&mut self, socket: Socket) {
        if let Some(share) = &mut self.share {
            share.connected(socket);
        }
    }

    // ---- what callers and workers say ----

    pub(super) fn on_record(&mut self, client: &Client, from: &Arc<Link>, record: &[u8]) {
        if !from.incoming {
            return self.on_record_of_head(from, record);
        }
        let record = match wire::read(record) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(peer = %from.peer, %error, "a record that cannot be read");
                // A closed link is handled like the link of a process that is gone.
                return from.close();
            }
        };
        match record {
            ToHead::Register { token, pid, build_id } => self.register(from, token, pid, build_id),
            ToHead::InitFailed { token, error } => self.on_init_failed(from, token, error),
            ToHead::Want { demand, workers } => {
                if workers > 0 {
                    self.try_again();
                }
                if workers > 0 && self.is_in_removed_group(&demand) {
                    let failure = Failure::PlacementGroupRemoved;
                    let _ = from.send(&FromHead::NoWorkers { demand, failure }, Vec::new());
                } else {
                    self.pool.want(from, demand, workers, Instant::now());
                }
            }
            ToHead::AskResources { request } => match &mut self.share {
                Some(share) => share.ask_free(from, request),
                None => answer_free(from, request, self.pool.free()),
            },
            ToHead::MakeGroup { request, group } => self.make_group(from, request, group),
            ToHead::AwaitGroup { request, group } => self.groups.ask(from, request, group),
            ToHead::RemoveGroup { request, group } => {
                self.remove_group(group);
                let _ = from.send(&FromHead::GroupSettled { request }, Vec::new());
            }
            ToHead::ListGroups { request } => self.groups.list(from, request),
            ToHead::AskState => {
                let _ = from.send(&FromHead::State(self.report(Instant::now())), Vec::new());
            }
            ToHead::Return { worker, is_busy } => {
                self.pool.give_back(from, worker, is_busy, Instant::now());
            }
            ToHead::Free => self.pool.set_free(from.peer, Instant::now()),
            ToHead::Spent { waits } => self.pool.set_spent(from.peer, waits, Instant::now()),
            ToHead::Blocked => self.pool.set_blocked(from.peer, true),
            ToHead::Unblocked => self.pool.set_blocked(from.peer, false),
            ToHead::Broken { process } => self.pool.set_broken(process, Instant::now()),
            ToHead::AskDeath { process } => {
                // A process that still runs cannot send or receive any more, and does not run for long.
                self.pool.set_broken(process, Instant::now());
                self.deaths.ask(from, process, self.pool.has(process));
            }
            ToHead::Runs { worker, call } => {
                if let Some(monitor) = &mut self.memory {
                    monitor.answered(worker, call);
                }
            }
            ToHead::ReserveActor { request, actor } => self.reserve_actor(client, from, request, actor),
            ToHead::StartActor { actor, arguments, context, payloads } => match &mut self.foreign {
                Some(foreign) if foreign.is_elsewhere(actor) => {
                    foreign.start(actor, arguments, context, payloads);
                }
                _ => {
                    self.try_again();
                    self.actors.start(client, actor, arguments, context, payloads);
                    self.end_actors_without_group();
                }
            },
            ToHead::AbandonActor { actor, failure } => match &mut self.foreign {
                Some(foreign) if foreign.is_elsewhere(actor) => foreign.abandon(actor, failure),
                _ => self.actor_processes().end(actor, failure),
            },
            ToHead::WatchActor { actor } => self.watch_actor(from, actor),
            ToHead::FindActor { request, namespace, name } => {
                self.find_actor(from, request, namespace, name);
            }
            ToHead::ListActors { request, namespace } => self.actors.list(from, request, namespace),
            ToHead::AwaitActorEnd { request, actor } => match &mut self.foreign {
                Some(foreign) if foreign.is_elsewhere(actor) => foreign.await_end(from, request, actor),
                _ => self.ends.ask(from, request, actor),
            },
            ToHead::Waits(waits) => self.on_waits(from, waits),
            ToHead::WaitOver { wait } => self.deadlocks.on_over(from.peer, wait),
            ToHead::AllWaits { round, waits, holds } => self.on_all_waits(from, round, waits, holds),
            ToHead::PromiseNeeds { round, object, needs } => {
                self.on_promise_needs(from, round, object, needs)
            }
            ToHead::ActorExits { actor } => self.actor_processes().end_itself(from, actor),
            ToHead::KillActor { actor, restarts } => match &mut self.foreign {
                Some(foreign) if foreign.is_elsewhere(actor) => foreign.kill(actor, restarts),
                _ => self.actor_processes().kill(actor, restarts),
            },
            ToHead::Introduce { build_id } => {
                if let Some(foreign) = &mut self.foreign {
                    foreign.introduce(from, build_id);
                }
            }
            ToHead::Constructed { actor, result } => {
                self.actor_processes().constructed(from, actor, result);
            }
            ToHead::KillProcess { request, pid } => self.kill_process(from, request, pid),
            ToHead::CancelCall { request, process, cancel } => {
                self.cancel_call(from, request, process, cancel);
            }
            ToHead::CallCancelled { request, outcome } => self.orders.answered(from.peer, request, outcome),
        }
    }

    fn register(&mut self, from: &Arc<Link>, token: u64, pid: u32, build_id: u64) {
        if !self.pool.is_starting(token) {
            tracing::warn!(pid, "a process registered that was not started here, or could not be watched");
            let _ = from.send(&FromHead::Exit, Vec::new());
            return;
        }
        // A program of another language knows functions by the names that they are exported as.
        if build_id != self.build_id && self.pool.environment(token).program().is_none() {
            self.processes.kill(token);
            let reason = format!(
                "the worker program is another build than the driver (process {pid}): workers must run the same binary"
            );
            return self.cannot_serve(token, &Failure::NoWorkers { reason });
        }
        self.start_failures.one_came_up(&self.pool.environment(token));
        self.pool.register(token, from, Instant::now());
    }

    /// The code that a process runs before it serves has failed.
    fn on_init_failed(&mut self, from: &Arc<Link>, token: u64, error: TaskError) {
        let _ = from.send(&FromHead::Exit, Vec::new());
        if self.pool.is_starting(token) {
            self.cannot_serve(token, &Failure::WorkerInitFailed { error });
        }
    }

    /// A process has come up, and ends without serving. Another one of its environment would not serve either.
    fn cannot_serve(&mut self, token: u64, failure: &Failure) {
        self.pool.exit(token, Instant::now());
        let environment = self.pool.environment(token);
        self.start_failures.give_up(environment.clone());
        self.no_workers(&environment, failure);
    }

    pub(super) fn on_link_opened(&mut self, link: &Arc<Link>) {
        self.links.insert(link.peer, link.clone());
    }

    pub(super) fn on_link_closed(&mut self, link: &Arc<Link>) {
        self.pool.caller_gone(link, Instant::now());
        self.deaths.on_caller_gone(link);
        self.ends.on_caller_gone(link);
        self.groups.on_caller_gone(link);
        self.orders.on_link_gone(link);
        if let Some(foreign) = &mut self.foreign {
            foreign.on_link_closed(link);
        }
        self.deadlocks.forget(link.peer);
        self.links.remove(&link.peer);
        self.actor_processes().caller_gone(link);
    }

    // ---- processes ----

    /// Forwards output, and handles processes that have ended.
    pub(super) fn look_after_processes(&mut self, client: &Client) {
        self.processes.forward_output();
        for Ended { token, pid, reason, peak, is_on_request } in self.processes.ended() {
            // The records that it sent before it ended still count.
            if let Some(link) = self.pool.link(token).cloned() {
                link.receive_the_rest(&mut |record| self.on_record(client, &link, record));
            }
            let Some(worker) = self.pool.remove(token) else { continue };
            if worker.link.is_some() {
                // The memory and the place of the process are free for another.
                self.try_again();
            }
            // The process may have been ending by itself when it was killed as unreachable. Then that is how it ended.
            let may_be_the_kill =
                matches!(reason, ExitReason::Killed { signal: libc::SIGKILL } | ExitReason::Unknown);
            let was_out_of_reach = worker.broken.is_some() || worker.link.is_none();
            let ended = self.memory.as_mut().and_then(|monitor| monitor.ended(token, Instant::now()));
            let is_evicted = self.evicted.remove(&token) && may_be_the_kill;
            let (reason, memory_retries) = match ended.filter(|_| may_be_the_kill) {
                _ if is_evicted => (ExitReason::PlacementGroupRemoved, 0),
                Some(end) => (end.reason, end.retries),
                None if worker.killed && may_be_the_kill && was_out_of_reach => (ExitReason::Disconnected, 0),
                None => (reason, 0),
            };
            if worker.link.is_none() && !matches!(worker.job, Job::Exiting { .. }) {
                self.did_not_come_up(&worker.environment, reason);
            }
            if let Some(link) = &worker.link {
                let peak = [peak.bytes, peak.first_bytes];
                record::process_ended(client, link.peer, pid, (reason, is_on_request), peak);
                self.deaths.died(link.peer, reason, memory_retries);
            }
            if let Job::Actor { actor } = worker.job {
                self.actors.process_ended(actor, pid, reason);
            }
        }
        for token in self.pool.kill_late(Instant::now()) {
            self.processes.kill(token);
            if let Some((_, late)) = &mut self.ending {
                *late += 1;
            }
        }
        if !self.pool.is_any_exiting()
            && let Some((ended, late)) = self.ending.take()
        {
            let _ = ended.send(late);
        }
        let Self { ends, orders, actors, pool, .. } = self;
        orders.look(|token| pool.is_there(token));
        ends.answer(|actor| {
            actors.last_process(actor).is_some_and(|last| last.is_none_or(|token| !pool.is_there(token)))
        });
    }

    fn did_not_come_up(&mut self, environment: &Environment, reason: ExitReason) {
        self.start_failures.one_did_not_come_up(environment, reason);
        if self.has_given_up(environment) {
            let reason =
                format!("worker processes{environment} do not come up: {reason} before it could serve");
            self.no_workers(environment, &Failure::NoWorkers { reason });
        }
    }

    /// Whether no more processes of an environment are started.
    fn has_given_up(&self, environment: &Environment) -> bool {
        self.start_failures.are_too_many(environment)
    }

    /// A new request, and a process that becomes free, are reasons to try again to start processes.
    fn try_again(&mut self) {
        self.start_failures.try_again();
    }

    /// No more processes of an environment will start: fails the requests that no existing or starting process can
    /// serve.
    fn no_workers(&mut self, environment: &Environment, failure: &Failure) {
        for (caller, demand) in self.pool.give_up_wants(environment, Instant::now()) {
            let _ = caller.send(&FromHead::NoWorkers { demand, failure: failure.clone() }, Vec::new());
        }
        let usual = self.actors.waiting().copied().filter(|_| environment.is_usual());
        let demanding = self.actors.demanding().filter(|(_, demand)| demand.environment() == environment);
        let waiting = usual.chain(demanding.map(|(actor, _)| actor));
        let beyond: Vec<u64> = waiting.skip(self.pool.coming(environment)).collect();
        for actor in beyond {
            self.actors.over(actor, 0, failure.clone());
        }
    }

    /// Starts a process. Returns `false` if the system refuses.
    fn start_process(&mut self, process: &NewProcess) -> bool {
        let NewProcess { environment, gpus } = process;
        match self.processes.start(environment, gpus) {
            Ok((token, pid)) => {
                self.pool.add(token, pid, process.clone(), Instant::now());
                true
            }
            Err(error) => {
                self.start_failures.one_was_not_started(environment);
                if self.has_given_up(environment) {
                    let error = explained(&error);
                    let reason = format!("a worker process{environment} cannot be started: {error}");
                    self.no_workers(environment, &Failure::NoWorkers { reason });
                }
                false
            }
        }
    }

    // ---- deciding ----

    /// Hands out workers, and starts or ends processes as needed.
    pub(super) fn arrange(&mut self) {
        if self.is_store_lost {
            return;
        }
        let now = Instant::now();
        self.measure_room();
        self.actor_processes().place_waiting();
        // Leases that other drivers need more are returned first.
        let recalls = self.share.as_mut().map(|share| share.before(&mut self.pool, now)).unwrap_or_default();
        if let Some(share) = &mut self.share {
            for (link, request, elsewhere) in share.take_answers() {
                let mut free = self.pool.free();
                free.add(&elsewhere);
                answer_free(&link, request, free);
            }
        }
        for decision in recalls.into_iter().chain(self.pool.arrange(now)) {
            self.carry_out(decision);
        }
        if let Some(share) = &mut self.share {
            share.after(&mut self.pool, now);
        }
        // The processes that were started will never serve: the head tries once more. If that fails too, no caller
        // waits for more workers.
        self.start_failures.try_once_more(|environment| self.pool.is_hopeless(environment, now));
        for process in self.pool.lacking(self.actors.waiting().len(), now) {
            // Nothing would wake the head for another try later.
            while !self.has_given_up(&process.environment) && !self.start_process(&process) {}
        }
        for decision in self.pool.end_surplus(self.actors.waiting().len(), now) {
            self.carry_out(decision);
        }
        match self.pool.refuse(self.actors.waiting().len(), now) {
            Some(Refused::Caller(caller, demand)) => {
                let no_workers = FromHead::NoWorkers { demand, failure: self.pool.process_limit() };
                let _ = caller.send(&no_workers, Vec::new());
            }
            Some(Refused::Actor(actor)) => {
                if let Some(actor) = actor.or(self.actors.first_waiting()) {
                    self.actors.over(actor, 0, self.pool.process_limit());
                }
            }
            None => {}
        }
        if let Some(blocked) = self.pool.many_blocked() {
            let (limit, in_use) = self.pool.processes();
            tracing::warn!(blocked, in_use, limit, "processes are there only because calls wait for others");
            output::say(format_args!(
                "{blocked} of the session's {in_use} processes are there only because their calls wait for others; \
                 there may be {limit} (the session's option `max_processes`)"
            ));
        }
    }

    fn carry_out(&mut self, decision: Decision<Arc<Link>>) {
        match decision {
            Decision::Grant { caller, demand, worker, pid } => {
                let _ = caller.send(&FromHead::Granted { demand, worker, pid }, Vec::new());
            }
            Decision::Place { actor, token } => self.actor_processes().place(actor, token),
            Decision::Recall { lessee, worker } => {
                let _ = lessee.send(&FromHead::Recall { worker }, Vec::new());
            }
            Decision::AskWhetherFree { worker, is_spent } => {
                let _ = worker.send(&FromHead::SayWhenFree { is_spent }, Vec::new());
            }
            Decision::End { token } => self.actor_processes().exit(token),
        }
    }

    /// Determines how many more processes this process has room for. The program changes that by opening and closing
    /// descriptors.
    fn measure_room(&mut self) {
        let more = descriptors::room_now(self.pool.starting());
        self.pool.set_room(descriptors::processes_in_limit(), more);
    }

    // ---- actors ----

    pub(super) fn actor_processes(&mut self) -> ActorProcesses<'_, Arc<Link>, Processes> {
        let Self { actors, pool, processes, .. } = self;
        ActorProcesses { actors, pool, processes, now: Instant::now() }
    }

    /// Ends actors to which no handle is left.
    pub(super) fn look_after_actors(&mut self) {
        self.actor_processes().end_without_handles();
    }

    /// Ends all actors at the end of the session. Those that have not ended when the time is over are killed, and
    /// counted.
    pub(super) fn end_actors(&mut self, ended: Sender<usize>, patience: Duration) {
        self.actor_processes().end_all(patience);
        self.ending = Some((ended, 0));
    }
}

impl Caller for Arc<Link> {
    fn id(&self) -> u64 {
        self.id
    }

    fn peer(&self) -> OwnerId {
        self.peer
    }
}

fn answer_free(link: &Link, request: u64, free: Resources) {
    let _ = link.send(&FromHead::Resources { request, free }, Vec::new());
}
