//! The number of processes in each environment: which processes start, which end, and which requests are refused when
//! the limit is reached.

use std::time::Instant;

use mobula_client::OwnerId;

use super::wants::{Requester, Want};
use super::{
    BLOCKED_WORTH_SAYING, Caller, Decision, Job, PROCESSES_MIN, Pool, Refused, STUCK_PATIENCE,
    STUCK_PATIENCE_FOR_ACTORS, SURPLUS_KEPT, Worker,
};
use crate::environment::Environment;
use crate::error::Failure;
use crate::resources::Resources;

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::head) struct NewProcess {
    pub(in crate::head) environment: Environment,
    /// The numbers of the GPUs that it can use, as many as the environment says.
    pub(in crate::head) gpus: Vec<usize>,
}

impl NewProcess {
    const USUAL: Self = Self { environment: Environment::USUAL, gpus: Vec::new() };

    fn is_usual(&self) -> bool {
        self.environment.is_usual()
    }

    /// Whether a process is one like this.
    fn is<C>(&self, worker: &Worker<C>) -> bool {
        worker.environment == self.environment && worker.gpus == self.gpus
    }
}

/// The processes of one environment that could be granted.
struct Grantable {
    environment: Environment,
    /// The resources that are left, with single GPUs.
    free: Resources,
    /// Each process that comes, and that is not counted yet, and its GPUs.
    coming: Vec<(Option<OwnerId>, Vec<usize>)>,
    count: usize,
    /// The GPUs of each process that has to start.
    lacking: Vec<Vec<usize>>,
}

impl<C: Caller> Pool<C> {
    /// The processes to start, when this many actors wait for a usual process.
    pub(in crate::head) fn lacking(&self, actors: usize, now: Instant) -> Vec<NewProcess> {
        let mut lacking = self.needed(actors, now);
        lacking.truncate(self.limit().saturating_sub(self.workers.len()));
        lacking
    }

    /// The processes to start if there were no limit. Processes of other environments come first, because usual ones
    /// may be kept without need.
    fn needed(&self, actors: usize, now: Instant) -> Vec<NewProcess> {
        let mut needed = Vec::new();
        let mut for_usual = 0;
        for Grantable { environment, lacking, .. } in self.grantable(now) {
            if environment.is_usual() {
                for_usual = lacking.len();
            } else {
                let new = |gpus| NewProcess { environment: environment.clone(), gpus };
                needed.extend(lacking.into_iter().map(new));
            }
        }
        let starting = self.count(|worker| worker.is_starting() && worker.environment.is_usual());
        let for_calls = self.kept.saturating_sub(self.serving(&Environment::USUAL, now));
        let for_actors = actors.saturating_sub(starting);
        let usual = for_calls.max(for_actors).max(for_usual);
        needed.extend(std::iter::repeat_n(NewProcess::USUAL, usual));
        needed
    }

    /// The request to refuse, when the limit of processes is reached and no process continues.
    pub(in crate::head) fn refuse(&mut self, actors: usize, now: Instant) -> Option<Refused<C>> {
        let is_full = self.workers.len() >= self.limit();
        // A placement group needs no process.
        let last = self.wants.iter().rposition(|want| !want.is_group());
        let waits = actors > 0 || last.is_some();
        if !(is_full && waits) || self.workers.active().any(|(_, worker)| worker.goes_on(now)) {
            self.stuck = None;
            return None;
        }
        let stuck = now.duration_since(*self.stuck.get_or_insert(now));
        // The innermost blocked call is refused, so that its caller goes on; if there is none, a request that blocks no
        // call.
        let position = self.wants.iter().rposition(|want| self.is_blocked(want));
        let has_actors = self.workers.actors() > 0;
        let patience = match position {
            None if has_actors => STUCK_PATIENCE_FOR_ACTORS,
            _ => STUCK_PATIENCE,
        };
        if stuck < patience {
            return None;
        }
        self.stuck = None;
        match position.or(last) {
            Some(position) => {
                let want = self.wants.remove(position);
                match want.requester {
                    Requester::Caller(caller) => Some(Refused::Caller(caller, want.demand)),
                    Requester::Actor(actor) => Some(Refused::Actor(Some(actor))),
                    Requester::Group(_) => None,
                }
            }
            None => Some(Refused::Actor(None)),
        }
    }

    /// Ends the processes that are spent and have no calls left. Makes processes that are not needed spent. `actors` is
    /// the number of actors that wait for a usual process.
    pub(in crate::head) fn end_surplus(&mut self, actors: usize, now: Instant) -> Vec<Decision<C>> {
        for token in self.surplus(actors, now) {
            self.change(token, |worker| worker.set_spent(false, now));
        }
        let over = self.workers.active().filter(|(_, worker)| worker.is_over()).map(|(token, _)| token);
        let mut decisions: Vec<_> = over.map(|token| Decision::End { token }).collect();
        decisions.extend(self.ask_whether_free());
        decisions
    }

    /// The processes that have been idle for a while and are not needed, and idle ones that prevent the start of
    /// processes of other environments.
    fn surplus(&self, actors: usize, now: Instant) -> Vec<u64> {
        let idle = self.workers.active().filter(|(_, worker)| {
            matches!(worker.job, Job::Idle { since } if now.duration_since(since) >= SURPLUS_KEPT)
                && worker.serves(now)
        });
        let (usual, others): (Vec<_>, Vec<_>) = idle.partition(|(_, worker)| worker.environment.is_usual());
        let usual = usual.into_iter().take(self.surplus_count(now));
        let others = others.into_iter().filter(|(_, worker)| self.is_spare(worker));
        let mut surplus: Vec<u64> = usual.chain(others).map(|(token, _)| token).collect();
        let needed = self.needed(actors, now);
        let is_ending = |worker: &Worker<C>| worker.is_ending(now) || worker.is_over();
        let comes_free = surplus.len() + self.count(is_ending);
        let room = self.limit().saturating_sub(self.workers.len()) + comes_free;
        // A kept process makes room for a call; the process of a call makes no room for a kept one.
        let mut missing = needed.iter().skip(room).peekable();
        if let Some(first) = missing.peek().copied() {
            let count = missing.filter(|process| first.is_usual() || !process.is_usual()).count();
            let in_the_way = self
                .workers
                .active()
                .filter(|(token, worker)| worker.is_idle() && !first.is(worker) && !surplus.contains(token));
            let in_the_way: Vec<u64> = in_the_way.map(|(token, _)| token).take(count).collect();
            surplus.extend(in_the_way);
        }
        surplus
    }

    /// Whether it is an idle process of an environment other than the usual one, and no caller wants it.
    pub(super) fn is_spare(&self, worker: &Worker<C>) -> bool {
        let is_wanted = || self.wants.iter().any(|want| *want.demand.environment() == worker.environment);
        !worker.environment.is_usual() && worker.is_idle() && !is_wanted()
    }

    pub(super) fn serving(&self, environment: &Environment, now: Instant) -> usize {
        self.count(|worker| worker.environment == *environment && worker.serves(now))
    }

    /// The number of workers of each environment that could be granted, at most the number that is kept, if there were
    /// enough processes and only this environment.
    fn grantable(&self, now: Instant) -> Vec<Grantable> {
        let reserved = self.reserving(now).and_then(|position| self.wants.iter().nth(position));
        let mut grantable: Vec<Grantable> = Vec::new();
        let fits = |want: &&Want<C>| !want.is_group() && self.fits_beside(reserved, want);
        for want in self.wants.iter().filter(fits) {
            let environment = want.demand.environment();
            let position = grantable.iter().position(|other| other.environment == *environment);
            let position = position.unwrap_or_else(|| {
                let is_coming =
                    |worker: &Worker<C>| worker.is_starting() || worker.is_idle() || worker.is_finishing(now);
                let coming = self.workers.active().map(|(_, worker)| worker);
                let coming = coming.filter(|worker| worker.environment == *environment && is_coming(worker));
                grantable.push(Grantable {
                    environment: environment.clone(),
                    free: self.ledger.free_with_gpus(),
                    coming: coming.map(|worker| (worker.process(), worker.gpus.clone())).collect(),
                    count: 0,
                    lacking: Vec::new(),
                });
                grantable.len() - 1
            });
            let Grantable { free, coming, count, lacking, .. } = &mut grantable[position];
            for _ in 0..want.workers {
                let can_serve = |(process, gpus): &(Option<OwnerId>, Vec<usize>)| {
                    !want.requester.is_in(*process) && want.demand.on_gpus(gpus).is_within(free)
                };
                let comes = coming.iter().position(can_serve).map(|position| coming.remove(position).1);
                let is_lacking = comes.is_none();
                let gpus = comes.unwrap_or_else(|| self.ledger.best_gpus(&want.demand, free));
                let taken = want.demand.on_gpus(&gpus);
                if *count == self.kept || !taken.is_within(free) {
                    break;
                }
                free.subtract(&taken);
                *count += 1;
                if is_lacking {
                    lacking.push(gpus);
                }
            }
        }
        grantable
    }

    pub(super) fn surplus_count(&self, now: Instant) -> usize {
        self.serving(&Environment::USUAL, now).saturating_sub(self.kept)
    }

    // ---- the limit ----

    /// Whether there may be one more actor: enough processes are left for calls of functions.
    pub(in crate::head) fn has_room_for_actor(&self) -> bool {
        self.workers.actors() + self.kept < self.limit()
    }

    /// The limit of processes, and their number.
    pub(in crate::head) fn processes(&self) -> (usize, usize) {
        (self.limit(), self.workers.len())
    }

    /// The failure of a call or an actor that needs a process beyond the limit.
    pub(in crate::head) fn process_limit(&self) -> Failure {
        let (limit, in_use) = self.processes();
        Failure::ProcessLimit { limit, in_use }
    }

    /// The number of processes that are starting, and do not use all their descriptors in the driver yet.
    pub(in crate::head) fn starting(&self) -> usize {
        self.count(Worker::is_starting)
    }

    /// The number of processes that are there or starting for actors that wait for one of this environment.
    pub(in crate::head) fn coming(&self, environment: &Environment) -> usize {
        let is_coming = |worker: &Worker<C>| matches!(worker.job, Job::Starting { .. } | Job::Idle { .. });
        self.count(|worker| is_coming(worker) && worker.environment == *environment)
    }

    /// Says for how many more processes the driver has room. By the limit of its descriptors alone, there is room for
    /// `in_limit` together.
    pub(in crate::head) fn set_room(&mut self, in_limit: usize, more: usize) {
        // Always one more than are kept, for an actor or for a call that another call waits for.
        let in_limit = in_limit.max(self.kept + 1);
        self.room = more.min(in_limit.saturating_sub(self.workers.len()));
    }

    pub(super) fn limit(&self) -> usize {
        let with_room = self.workers.len().saturating_add(self.room);
        // Calls have one process even without room.
        self.processes_max.min(with_room.max(self.workers.actors() + 1).max(PROCESSES_MIN))
    }

    /// The number of processes that exist only because calls wait for others, if a warning is due for the first time.
    pub(in crate::head) fn many_blocked(&mut self) -> Option<usize> {
        let blocked = self.workers.blocked();
        let worth_saying = BLOCKED_WORTH_SAYING.max(4 * self.kept).min(self.limit() / 2).max(1);
        let is_new = blocked >= worth_saying
            && !std::mem::replace(&mut self.has_said_blocked, blocked >= worth_saying);
        is_new.then_some(blocked)
    }
}
