//! The calling side: calls that wait for their arguments, for a worker or for their actor; calls that run; and the
//! results that come back.
//!
//! Calls of functions that demand the same resources wait in one queue until any leased worker has room. The number of
//! calls that are sent ahead to a worker depends on the measured run time of the function: many short calls, or one
//! long call. Calls of an actor wait in the actor's own queue, so that they stay in order: a call whose arguments are
//! not there holds the later ones back.
//!
//! | part | what it knows |
//! |---|---|
//! | [`Dependencies`] | which calls wait for which arguments |
//! | [`LeasesByDemand`] | the leased workers, and which of them gets which call, for each demand |
//! | [`Actors`] | where each actor is, and the queue of its calls |
//! | [`RunningCalls`] | the calls that were sent |
//! | [`Delayed`] | calls that failed, and when each is retried |
//! | [`Limits`] | when calls reach their time limits |
//! | [`Reach`] | the channels to workers and actors |
//! | [`Questions`] | questions to the head that a thread waits for |
//! | [`PendingResults`] | how many calls and promises are not settled |
//!
//! The parts do not know each other. The [`Submitter`] connects them: `outgoing` sends calls, `incoming` handles
//! records that come back, and `cancel` takes calls back. Nothing here runs user code or decodes values. Opening a
//! channel waits for the daemon's answer; `State` is not locked meanwhile.

mod actors;
mod cancel;
mod delayed;
pub(crate) mod demands;
mod dependencies;
mod incoming;
pub(crate) mod leases;
mod limits;
mod needs;
mod outgoing;
mod pending_results;
mod questions;
mod reach;
mod running;
#[cfg(test)]
mod simulation;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use mobula_client::internal::recorder::Queue;
use mobula_client::{Client, ClientError, Handle};
use parking_lot::Mutex;
use smallvec::SmallVec;

use self::actors::Actors;
use self::delayed::Delayed;
use self::demands::LeasesByDemand;
use self::dependencies::Dependencies;
pub(crate) use self::dependencies::is_there;
use self::leases::Ended;
use self::limits::Limits;
pub(crate) use self::needs::{Awaited, awaited};
use self::pending_results::PendingResults;
pub(crate) use self::questions::{Answer, Found, Questions};
use self::reach::{NotReached, Reach};
use self::running::RunningCalls;
use crate::call::outcome::Settled;
use crate::call::result_cell::{Dependent, ResultCell};
use crate::call::task::{Target, Task};
use crate::call::waiter::Waiter;
use crate::call::watched::{Watched, WatchedCalls};
use crate::error::{Failure, Result, TimeLimit};
use crate::mail::link::Link;
use crate::mail::links::Links;
use crate::mail::pace;
use crate::mail::waiters::Waiters;
use crate::record::{self, Calls};
use crate::session_number::SessionNumber;
use crate::wire::ToHead;

/// When more calls than this are under way, each keeps only the memory that it needs.
const CROWD: usize = 4096;
/// The value if no time is due.
const NEVER: u64 = u64::MAX;

/// The calls of this process whose results are not there yet; see the module's documentation.
pub(crate) struct Submitter {
    session: SessionNumber,
    client: Client,
    links: Arc<Links>,
    waiters: Arc<Waiters>,
    pub(crate) questions: Questions,
    pending_results: PendingResults,
    dependencies: Dependencies,
    reach: Reach,
    state: Mutex<State>,
    id_last: AtomicU64,
    watched: WatchedCalls,
    /// Whether there are leases, or actors whose channels were lost, to be read without the lock.
    has_leases: AtomicBool,
    has_lost_actors: AtomicBool,
    /// Whether there may be unfinished calls whose results are forgotten.
    has_forgotten: AtomicBool,
    /// When a call is to be retried, or reaches a limit: nanoseconds since `began`, or [`NEVER`].
    due: AtomicU64,
    began: Instant,
}

#[derive(Default)]
struct State {
    leases: LeasesByDemand<Arc<Task>, Worker>,
    actors: Actors,
    running: RunningCalls,
    delayed: Delayed,
    limits: Limits,
    /// The recorder of the calls, if they are recorded.
    calls: Option<Calls>,
}

impl State {
    /// How often a call may be retried.
    fn retries_max(&self, task: &Task) -> u32 {
        let of_actor = match task.target {
            Target::Method { actor, .. } => self.actors.max_task_retries(actor),
            Target::Function { .. } | Target::Constructor { .. } => 0,
        };
        task.retries_max(of_actor)
    }
}

/// A worker on lease.
struct Worker {
    link: Arc<Link>,
    pid: u32,
}

impl Submitter {
    pub(crate) fn new(
        session: SessionNumber,
        client: Client,
        links: Arc<Links>,
        waiters: Arc<Waiters>,
    ) -> Self {
        Self {
            session,
            questions: Questions::new(client.clone(), links.clone()),
            pending_results: PendingResults::new(client.clone()),
            dependencies: Dependencies::new(client.recorder().cloned()),
            reach: Reach::new(client.clone(), links.clone()),
            state: Mutex::new(State { calls: Calls::of(&client), ..State::default() }),
            id_last: AtomicU64::new(0),
            watched: WatchedCalls::default(),
            has_leases: AtomicBool::new(false),
            has_lost_actors: AtomicBool::new(false),
            has_forgotten: AtomicBool::new(false),
            due: AtomicU64::new(NEVER),
            began: Instant::now(),
            client,
            links,
            waiters,
        }
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.id_last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The number of calls made so far.
    pub(crate) fn calls(&self) -> u64 {
        self.id_last.load(Ordering::Relaxed)
    }

    /// Whether a thread must look at the mail although none waits: calls are unsent, or promises unsettled, or calls
    /// are there that are watched.
    pub(crate) fn is_busy(&self) -> bool {
        self.pending_results.is_busy() || self.watched.count() > 0
    }

    /// Whether calls of this process are not over, or promises of their results not settled.
    pub(crate) fn has_calls(&self) -> bool {
        // Both with the state locked: a call that is sent, or comes back, is counted in one of them meanwhile.
        let state = self.state.lock();
        !state.running.is_empty() || self.pending_results.is_any_unsettled()
    }

    /// Whether a promise of another process that a call waits for is settled. Costs one load while no call waits.
    pub(crate) fn has_ready_foreign(&self) -> bool {
        self.dependencies.any_settled()
    }

    /// Whether [`return_idle_workers`](Self::return_idle_workers), [`reach_lost_actors`](Self::reach_lost_actors) or
    /// [`look_after_forgotten`](Self::look_after_forgotten) may have work later for which no record arrives.
    pub(crate) fn needs_ticks(&self) -> bool {
        // SeqCst: the background poller reads them after it has said that it sleeps.
        let all = [&self.has_leases, &self.has_lost_actors, &self.has_forgotten];
        all.iter().any(|has| has.load(Ordering::SeqCst))
    }

    /// The last reference to the result of a call that is not over is gone. Two loads, mostly.
    pub(crate) fn result_is_forgotten(&self) {
        if !self.has_forgotten.load(Ordering::Acquire) {
            self.has_forgotten.store(true, Ordering::SeqCst);
        }
        self.waiters.wake_sleeping_poller();
    }

    /// Forgotten results need no ticks when no call is left.
    pub(crate) fn look_after_forgotten(&self) {
        // A call that is forgotten from here on says so again.
        if self.has_forgotten.swap(false, Ordering::SeqCst) && self.has_calls() {
            self.has_forgotten.store(true, Ordering::SeqCst);
        }
    }

    /// When [`on_time`](Self::on_time) has something to do. Costs one load.
    pub(crate) fn due(&self) -> Option<Instant> {
        let nanos = self.due.load(Ordering::SeqCst);
        if nanos == NEVER { None } else { self.began.checked_add(Duration::from_nanos(nanos)) }
    }

    /// Notes what `needs_ticks` and `due` read.
    fn note(&self, state: &State) {
        self.has_leases.store(!state.leases.is_empty(), Ordering::Release);
        self.has_lost_actors.store(state.actors.any_lost(), Ordering::Release);
        self.note_due(state);
    }

    /// Notes what `due` reads. Returns whether that is sooner than before.
    fn note_due(&self, state: &State) -> bool {
        let first = [state.delayed.first(), state.limits.first()].into_iter().flatten().min();
        let nanos = first.map_or(NEVER, |due| {
            u64::try_from(due.saturating_duration_since(self.began).as_nanos()).unwrap_or(NEVER)
        });
        // Written with the state locked. SeqCst: this swap comes before the check of what the background poller does.
        self.due.swap(nanos, Ordering::SeqCst) > nanos
    }

    /// How long a thread that waits for the result of this call may nap. `None` in three cases:
    ///
    /// - the call is about to be over;
    /// - a worker would have to wait for the calls that are queued here;
    /// - a future would have to wait for this thread.
    pub(crate) fn nap(&self, call: u64, now: Instant) -> Option<Duration> {
        if self.any_future() {
            return None;
        }
        let state = self.state.lock();
        let State { leases, running, .. } = &*state;
        let mut time = match running.position(call) {
            Some((process, link, number)) => {
                self.reach.open_link(process, link)?.calls_before(Some(number), now)?
            }
            None if leases.has_waiting() => Duration::MAX,
            None => return None,
        };
        for worker in leases.at_work() {
            time = time.min(worker.link.calls_before(None, now)?);
        }
        pace::nap(time)
    }

    /// Exports a result: returns a handle to the object that holds or will hold it.
    pub(crate) fn export(&self, cell: &ResultCell) -> Result<Handle, ClientError> {
        let (handle, promised) = self.pending_results.export(cell)?;
        if promised {
            self.waiters.wake_poller();
        }
        Ok(handle)
    }

    // ---- workers and actors ----

    /// Gives a worker back to the head.
    fn end_lease(&self, Ended { worker, is_busy }: Ended) {
        if let Some(head) = self.links.head() {
            let _ = head.send(&ToHead::Return { worker, is_busy }, Vec::new());
        }
    }

    /// Lets observers see how many calls wait for a worker.
    fn note_waiting(&self, state: &State) {
        record::queue(self.client.recorder(), Queue::ForWorker, state.leases.waiting_count());
    }

    /// Gives back workers that have had nothing to do for a while, or that the head wants back.
    pub(crate) fn return_idle_workers(&self) {
        let mut state = self.state.lock();
        let ended = state.leases.take_ended(Instant::now());
        self.note(&state);
        drop(state);
        ended.into_iter().for_each(|ended| self.end_lease(ended));
    }

    // ---- what is done at its time ----

    /// Sends the calls whose retry is due, and ends those that have reached a limit. Costs one load if there is
    /// nothing.
    pub(crate) fn on_time(&self) {
        let now = Instant::now();
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let mut state = self.state.lock();
        let retried = state.delayed.take_due(now);
        let any = !retried.is_empty();
        let mut actors: SmallVec<[u64; 4]> = SmallVec::new();
        for task in retried {
            match task.target {
                Target::Function { key, .. } => state.leases.of(&task.demand).queue(key, task.clone()),
                Target::Method { actor, .. } => {
                    state.actors.queue_again(actor, task);
                    if !actors.contains(&actor) {
                        actors.push(actor);
                    }
                }
                Target::Constructor { .. } => {}
            }
        }
        let reached = state.limits.take_due(now);
        self.note(&state);
        drop(state);
        if !reached.is_empty() {
            self.time_out(&reached);
        }
        if any {
            self.waiters.call_waits();
            self.send_ready();
        }
        for actor in actors {
            self.send_to_actor(actor);
        }
    }

    /// A call is made for which a thread must look although none waits.
    pub(crate) fn watch_call(&self) -> Watched {
        self.watched.one_more()
    }

    /// A call reaches a limit at this time, unless it is over by then.
    fn limit(&self, task: &Arc<Task>, due: Instant, limit: TimeLimit) {
        let mut state = self.state.lock();
        state.limits.add(due, task, limit, self.watched.count());
        let is_sooner = self.note_due(&state);
        drop(state);
        if is_sooner {
            self.waiters.tick_sooner();
        }
    }

    /// A call with limits has begun to run.
    fn on_begun(&self, link: &Link, task: u64) {
        let Some(task) = self.state.lock().running.get(link, task).cloned() else { return };
        if let Some(due) = task.limits().and_then(|limits| limits.attempt_begins(Instant::now())) {
            self.limit(&task, due, TimeLimit::Timeout);
        }
    }

    /// Sends the head a constructor whose arguments are there.
    fn start_actor(&self, actor: u64, task: &Arc<Task>) {
        self.pending_results.end(1);
        let Some(head) = self.links.head() else { return };
        let (arguments, context) = (task.arguments.count() as u32, task.context().copied());
        let sent = self.send_arguments(task, |payloads| {
            let start = ToHead::StartActor { actor, arguments, context, payloads };
            head.send(&start, task.arguments.held())
        });
        if let Err(failure) = sent {
            let _ = head.send(&ToHead::AbandonActor { actor, failure }, Vec::new());
        }
    }

    /// Asks the head to end an actor, or only its process if it may be restarted.
    pub(crate) fn kill_actor(&self, actor: u64, restarts: bool) {
        let Some(head) = self.links.head() else { return };
        self.watch_actor(actor, &mut self.state.lock());
        let _ = head.send(&ToHead::KillActor { actor, restarts }, Vec::new());
    }

    /// Asks the head, the first time, to report where an actor is and how its state changes.
    fn watch_actor(&self, actor: u64, state: &mut State) {
        if state.actors.add(actor)
            && let Some(head) = self.links.head()
        {
            let _ = head.send(&ToHead::WatchActor { actor }, Vec::new());
        }
    }

    /// How the actor ended, with the number of its process; `None` while it has not.
    pub(crate) fn actor_failure(&self, actor: u64) -> Option<(u32, Failure)> {
        self.state.lock().actors.failure(actor)
    }

    /// Opens the channel to an actor whose process is known, and sends the calls that wait for it.
    fn reach_actor(&self, actor: u64) {
        let Some(process) = self.state.lock().actors.process_to_reach(actor) else { return };
        match self.reach.link_to(process) {
            Ok(link) => {
                let mut state = self.state.lock();
                let reached = state.actors.reached(actor, &link);
                self.note(&state);
                drop(state);
                if reached {
                    self.send_to_actor(actor);
                }
            }
            Err(NotReached::Gone) => {}
            Err(NotReached::NoRoom(failure)) => {
                let ready = self.state.lock().actors.take_ready(actor);
                ready.iter().for_each(|task| self.fail_unsent(task, &failure));
            }
        }
    }

    // ---- calls that fail ----

    /// Settles one result. Calls that waited for it may be sent now, and futures be woken.
    fn settle(&self, cell: &ResultCell, settled: Settled) {
        let has_failed = matches!(settled, Settled::Failed(_));
        let ready = self.pending_results.settle(cell, settled);
        if has_failed {
            // This comes after the failure is visible: a thread that sees the count looks for the failure.
            self.waiters.add_failure();
        }
        for dependent in ready {
            self.on_ready(dependent, has_failed);
        }
    }

    /// Ends a call with a failure. A call that was cancelled has the failure that [`cancel_with`](Self::cancel_with)
    /// gives it, also if its process dies before that.
    fn settle_all(&self, task: &Task, failure: &Failure) {
        if !task.is_cancelled.load(Ordering::Relaxed) {
            self.settle_results(task, failure);
        }
    }

    fn settle_results(&self, task: &Task, failure: &Failure) {
        // The end of a call that is over is settled once more in vain.
        if task.results.iter().any(|cell| !cell.is_ready()) {
            record::failed(&self.client, task, failure);
        }
        for cell in &task.results {
            self.settle(cell, Settled::failed(failure.clone()));
        }
        self.waiters.announce();
    }

    fn fail_unsent(&self, task: &Arc<Task>, failure: &Failure) {
        self.pending_results.end(1);
        if let Target::Constructor { actor, .. } = task.target
            && let Some(head) = self.links.head()
        {
            let _ = head.send(&ToHead::AbandonActor { actor, failure: failure.clone() }, Vec::new());
        }
        self.settle_all(task, failure);
        if let Target::Method { actor, .. } = task.target {
            self.send_to_actor(actor);
        }
    }

    /// Fails all calls whose results are not there yet. Futures that wait for promises of other processes end.
    pub(crate) fn fail_everything(&self, failure: &Failure) {
        let foreign = self.dependencies.take_all();
        let calls = {
            let mut state = self.state.lock();
            let mut calls = state.leases.take_all_waiting();
            calls.extend(state.actors.take_all());
            calls.extend(state.running.take_all());
            calls.extend(state.delayed.take_all());
            calls
        };
        for dependent in foreign {
            match dependent {
                Dependent::Task(task) => self.settle_all(&task, failure),
                waiter => self.on_ready(waiter, true),
            }
        }
        for task in &calls {
            self.settle_all(task, failure);
        }
        self.pending_results.end_all();
    }

    // ---- futures ----

    /// Makes a future wait for results.
    ///
    /// # Errors
    /// A promise of another process cannot be watched.
    pub(crate) fn begin_future(
        &self,
        waiter: &Arc<Waiter>,
        cells: &[Arc<ResultCell>],
    ) -> Result<(), ClientError> {
        self.pending_results.begin_future();
        self.waiters.call_waits();
        for cell in cells {
            if self.dependencies.add(cell, Dependent::Waiter(waiter.clone()))?.is_some() {
                // The future looks again itself.
                drop(waiter.one_is_ready(cell.failure().is_some()));
            }
        }
        Ok(())
    }

    /// The future does not wait any more.
    pub(crate) fn end_future(&self, waiter: &Arc<Waiter>, cells: &[Arc<ResultCell>]) {
        cells.iter().for_each(|cell| cell.remove_waiter(waiter));
        self.dependencies.remove_waiter(waiter);
        self.pending_results.end_future();
    }

    /// Wakes later a future that does not wait for results.
    pub(crate) fn wake_later(&self, waker: Waker) {
        self.pending_results.wake_later(waker);
    }

    /// Whether a future waits: then a thread must look at the mail at once when something comes.
    pub(crate) fn any_future(&self) -> bool {
        self.pending_results.any_future()
    }

    /// Whether [`wake_futures`](Self::wake_futures) has something to do. Costs one load.
    pub(crate) fn has_woken(&self) -> bool {
        self.pending_results.has_woken()
    }

    /// Wakes the futures whose results are there, and asks the program whether failed calls are retried. Runs code of
    /// executors and of the program: nothing may be locked.
    pub(crate) fn wake_futures(&self) {
        while self.pending_results.has_woken() {
            self.pending_results.take_woken().into_iter().for_each(Waker::wake);
            self.decide_retries();
        }
    }
}
