//! The calling side: calls that wait for their arguments, for a worker or for their actor; calls that run; and the
//! results that come back.
//!
//! Calls of functions that demand the same resources wait in one queue for whichever leased worker has room. How many
//! are sent ahead to a worker depends on how long the function has been seen to run: many of the short ones, one of the
//! long ones. Calls of an actor wait in the actor's own queue, so that they stay in order: one whose arguments are not
//! there holds the later ones back.
//!
//! | part | what it knows |
//! |---|---|
//! | [`Dependencies`] | which calls wait for which arguments |
//! | [`Classes`] | the leased workers, and which of them gets which call, for each demand |
//! | [`Actors`] | where each actor is, and the queue of its calls |
//! | [`RunningCalls`] | the calls that were sent |
//! | [`Delayed`] | calls that failed, and when each is retried |
//! | [`Reach`] | the channels to workers and actors |
//! | [`Questions`] | questions to the head that a thread waits for |
//! | [`Settler`] | how many calls and promises are not settled |
//!
//! The parts do not know each other. The [`Submitter`] connects them: this file has the way of a call out, `incoming`
//! what comes back, and `cancel` what is taken back. Nothing here runs user code or decodes values. Opening a channel
//! waits for the daemon's answer; `State` is not locked meanwhile.

mod actors;
mod cancel;
pub(crate) mod classes;
mod delayed;
mod dependencies;
mod incoming;
pub(crate) mod leases;
mod questions;
mod reach;
mod running;
mod settler;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use mobula_client::{Client, ClientError, Handle};
use parking_lot::Mutex;

use self::actors::{Actors, Next};
use self::classes::Classes;
use self::delayed::Delayed;
use self::dependencies::Dependencies;
pub(crate) use self::dependencies::is_there;
use self::leases::Ended;
pub(crate) use self::questions::{Answer, Found, Questions};
use self::reach::{NotReached, Reach};
use self::running::RunningCalls;
use self::settler::Settler;
use crate::call::outcome::Settled;
use crate::call::result_cell::ResultCell;
use crate::call::task::{Target, Task};
use crate::call::waiter::{Dependent, Waiter};
use crate::error::{Failure, Result};
use crate::mail::link::{Link, TooLarge};
use crate::mail::links::Links;
use crate::mail::pace;
use crate::mail::waiters::Waiters;
use crate::session_number::SessionNumber;
use crate::wire::{Call, Callee, ToHead};

/// When more calls than this are under way, each keeps only the memory that it needs.
const CROWD: usize = 4096;
/// A thread that makes calls looks at the mail after so many calls.
const LOOK_PERIOD: u64 = 64;
/// The same after a call that could not be sent at once.
const LOOK_PERIOD_WAITING: u64 = 8;

/// The calls of this process whose results are not there yet; see the module's documentation.
pub(crate) struct Submitter {
    session: SessionNumber,
    client: Client,
    links: Arc<Links>,
    waiters: Arc<Waiters>,
    pub(crate) questions: Questions,
    settler: Settler,
    dependencies: Dependencies,
    reach: Reach,
    state: Mutex<State>,
    id_last: AtomicU64,
    /// Whether there are leases, actors whose channels were lost, or calls to be retried later, to be read without the
    /// lock.
    has_leases: AtomicBool,
    has_lost_actors: AtomicBool,
    has_delayed: AtomicBool,
}

#[derive(Default)]
struct State {
    leases: Classes<Arc<Task>, Worker>,
    actors: Actors,
    running: RunningCalls,
    delayed: Delayed,
}

/// A worker on lease.
struct Worker {
    link: Arc<Link>,
    pid: u32,
}

/// The outcome of the attempt to send a call at once.
enum Sent {
    Now,
    /// It waits for room in the ring.
    Backlogged,
    /// It has to wait for something.
    Not(Arc<Task>),
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
            settler: Settler::new(client.clone()),
            dependencies: Dependencies::default(),
            reach: Reach::new(client.clone(), links.clone()),
            state: Mutex::default(),
            id_last: AtomicU64::new(0),
            has_leases: AtomicBool::new(false),
            has_lost_actors: AtomicBool::new(false),
            has_delayed: AtomicBool::new(false),
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

    /// Whether a thread must look at the mail although none waits: calls are unsent, or promises unsettled.
    pub(crate) fn is_busy(&self) -> bool {
        self.settler.is_busy()
    }

    /// Whether a promise of another process that a call waits for is settled. Costs one load while no call waits.
    pub(crate) fn has_ready_foreign(&self) -> bool {
        self.dependencies.any_settled()
    }

    /// Whether [`return_idle_workers`](Self::return_idle_workers), [`reach_lost_actors`](Self::reach_lost_actors) or
    /// [`retry_delayed`](Self::retry_delayed) may have something to do later, for which nothing comes.
    pub(crate) fn needs_ticks(&self) -> bool {
        [&self.has_leases, &self.has_lost_actors, &self.has_delayed]
            .iter()
            .any(|has| has.load(Ordering::Acquire))
    }

    /// Notes what `needs_ticks` reads.
    fn note(&self, state: &State) {
        self.has_leases.store(!state.leases.is_empty(), Ordering::Release);
        self.has_lost_actors.store(state.actors.any_lost(), Ordering::Release);
        self.has_delayed.store(!state.delayed.is_empty(), Ordering::Release);
    }

    /// How long a thread that waits for the result of this call may nap: the call is not about to be over, no worker
    /// has to wait for the calls that are queued here, and no future for the thread.
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
        let (handle, promised) = self.settler.export(cell)?;
        if promised {
            self.waiters.wake_poller();
        }
        Ok(handle)
    }

    // ---- a call's way out ----

    /// Accepts a call, which is sent as soon as its arguments are there and a process can run it. Returns `true` when
    /// it is time to look at the mail.
    ///
    /// A thread that makes many calls without waiting for them looks now and then, so that results do not pile up and
    /// the next calls find room.
    pub(crate) fn submit(&self, task: Arc<Task>) -> bool {
        let number = task.id;
        let period = match self.send_at_once(task) {
            Sent::Now => LOOK_PERIOD,
            Sent::Backlogged => LOOK_PERIOD_WAITING,
            Sent::Not(mut task) => {
                if self.settler.is_crowded() {
                    give_back_spare_memory(&mut task);
                }
                self.submit_waiting(&task);
                LOOK_PERIOD_WAITING
            }
        };
        if period == LOOK_PERIOD_WAITING {
            self.waiters.call_waits();
        }
        number.is_multiple_of(period)
    }

    /// Sends a call that does not have to wait: the short path, which most calls take.
    fn send_at_once(&self, mut task: Arc<Task>) -> Sent {
        if task.arguments.results().next().is_some() {
            return Sent::Not(task);
        }
        let mut state = self.state.lock();
        let State { leases, actors, running, .. } = &mut *state;
        // Checked with the state locked: the end of the session fails every call that is in it.
        if self.waiters.is_over() {
            return Sent::Not(task);
        }
        let (link, callee, worker) = match task.target {
            Target::Method { actor, method, .. } => match actors.link_at_once(actor) {
                Some(link) => (link, Callee::Method(method), None),
                None => return Sent::Not(task),
            },
            Target::Function { key, .. } => {
                let leases = leases.of(&task.demand);
                let Some(id) = leases.worker_at_once(key) else { return Sent::Not(task) };
                let Some(worker) = leases.worker(id) else { return Sent::Not(task) };
                (&worker.link, Callee::Function(key), Some(id))
            }
            Target::Constructor { .. } => return Sent::Not(task),
        };
        let Ok(number) = self.send(link, &task, callee) else {
            // The call fails again on the long path, which settles its results.
            return Sent::Not(task);
        };
        let sent = if link.holds_anything() { Sent::Backlogged } else { Sent::Now };
        if matches!(sent, Sent::Backlogged) && running.is_crowded() {
            give_back_spare_memory(&mut task);
        }
        let demand = task.demand.clone();
        running.sent(task, link, number);
        if let Some(worker) = worker {
            leases.of(&demand).sent(worker);
        }
        sent
    }

    /// Accepts a call that has to wait for its arguments, for a worker, or for earlier calls.
    fn submit_waiting(&self, task: &Arc<Task>) {
        self.settler.begin(1);
        if self.waiters.is_over() {
            return self.fail_unsent(task, &Failure::SessionOver);
        }
        if let Target::Method { actor, .. } = task.target {
            let mut state = self.state.lock();
            self.watch_actor(actor, &mut state);
            state.actors.queue(actor, task.clone());
        }
        if let Err(error) = self.dependencies.wait_for_arguments(task) {
            self.dependencies.release(task);
            return self.fail_unsent(task, &error.into());
        }
        // A promise may have been settled before its owner could see the watch.
        self.submit_what_became_ready();
        self.one_argument_ready(task);
    }

    /// Handles the promises of other processes that are settled. Returns whether there were any.
    pub(crate) fn submit_what_became_ready(&self) -> bool {
        let settled = self.dependencies.take_settled();
        let any = !settled.is_empty();
        settled.into_iter().for_each(|dependent| self.on_ready(dependent, false));
        any
    }

    /// A result is there that a call or a future waits for.
    fn on_ready(&self, dependent: Dependent, has_failed: bool) {
        match dependent {
            Dependent::Task(task) => self.one_argument_ready(&task),
            Dependent::Waiter(waiter) => {
                if let Some(waker) = waiter.one_is_ready(has_failed) {
                    self.settler.wake_later(waker);
                }
            }
        }
    }

    /// Counts one argument as ready, and sends the call if it was the last.
    fn one_argument_ready(&self, task: &Arc<Task>) {
        Dependencies::one_is_ready(task, |task| self.on_arguments_ready(task));
    }

    fn on_arguments_ready(&self, task: &Arc<Task>) {
        // Locked, so that who cancels the call finds it in one place or the other.
        let mut state = self.state.lock();
        if !self.dependencies.release(task) {
            return;
        }
        let failed = task.arguments.results().find_map(|cell| cell.failure());
        if failed.is_none()
            && let Target::Function { key, .. } = task.target
        {
            state.leases.of(&task.demand).queue(key, task.clone());
        }
        drop(state);
        if let Some(failure) = failed {
            return self.fail_unsent(task, &failure);
        }
        match task.target {
            Target::Function { .. } => self.send_ready(),
            Target::Method { actor, .. } => match self.actor_failure(actor) {
                Some((pid, failure)) => self.fail_unsent(task, &task.target.failure_of_actor(pid, &failure)),
                None => self.send_to_actor(actor),
            },
            Target::Constructor { actor, .. } => self.start_actor(actor, task),
        }
    }

    /// Sends queued calls of functions to workers that have room for them, and asks for more workers if need be.
    fn send_ready(&self) {
        let mut failed = Vec::new();
        let mut state = self.state.lock();
        let State { leases, running, .. } = &mut *state;
        while let Some((task, id)) = leases.next() {
            let Target::Function { key, .. } = task.target else { unreachable!("only functions queue here") };
            let worker = leases.worker(id).expect("one that is leased");
            match self.send(&worker.link, &task, Callee::Function(key)) {
                Ok(number) => {
                    let demand = task.demand.clone();
                    running.sent(task, &worker.link, number);
                    leases.of(&demand).sent(id);
                    self.settler.end(1);
                }
                Err(failure) => failed.push((task, failure)),
            }
        }
        for (demand, workers) in leases.wants() {
            if let Some(head) = self.links.head() {
                let _ = head.send(&ToHead::Want { demand, workers }, Vec::new());
            }
        }
        drop(state);
        for (task, failure) in failed {
            self.fail_unsent(&task, &failure);
        }
    }

    /// Sends the calls at the front of an actor's queue whose arguments are there.
    fn send_to_actor(&self, actor: u64) {
        let mut failed = Vec::new();
        let mut state = self.state.lock();
        let State { actors, running, .. } = &mut *state;
        let needs_channel = loop {
            let (link, task) = match actors.next(actor) {
                Next::Send(link, task) => (link, task),
                Next::Reach => break true,
                Next::Nothing => break false,
            };
            // An argument failed: the call has failed already, or fails when the thread that handles it gets to it.
            let has_failed = task.arguments.results().any(|cell| cell.failure().is_some());
            if has_failed || task.results.iter().all(|cell| cell.is_ready()) {
                continue;
            }
            let Target::Method { method, .. } = task.target else { unreachable!("only methods queue here") };
            match self.send(link, &task, Callee::Method(method)) {
                Ok(number) => {
                    running.sent(task, link, number);
                    self.settler.end(1);
                }
                Err(failure) => failed.push((task, failure)),
            }
        };
        drop(state);
        for (task, failure) in failed {
            self.fail_unsent(&task, &failure);
        }
        if needs_channel {
            // The channel could not be opened before: this call tries again.
            self.reach_actor(actor);
        }
    }

    /// Sends one call. Returns the number of its record. The task keeps the objects alive that the record names.
    fn send(&self, link: &Link, task: &Task, callee: Callee) -> Result<u64, Failure> {
        let call =
            Call { task: task.id, callee, returns: task.returns, arguments: task.arguments.count() as u32 };
        self.send_arguments(task, |payloads| {
            link.send_with(Vec::new(), |record| {
                call.append_to(record);
                record.extend_from_slice(payloads);
            })
        })
    }

    /// Sends a record with a task's arguments. Small arguments are in the record. If they do not fit together, all
    /// arguments go through the store.
    fn send_arguments<T>(
        &self,
        task: &Task,
        send: impl Fn(&[u8]) -> Result<T, TooLarge>,
    ) -> Result<T, Failure> {
        let sent = match task.arguments.as_given() {
            Some(payloads) => send(payloads),
            None => send(&task.arguments.resolve(&self.client, self.session, false)?),
        };
        sent.or_else(|TooLarge| {
            send(&task.arguments.resolve(&self.client, self.session, true)?).map_err(|TooLarge| {
                let (function, count) = (task.target.name(), task.arguments.count());
                Failure::TooManyArguments { function, count }
            })
        })
    }

    // ---- workers and actors ----

    /// Gives a worker back to the head.
    fn end_lease(&self, Ended { worker, is_busy }: Ended) {
        if let Some(head) = self.links.head() {
            let _ = head.send(&ToHead::Return { worker, is_busy }, Vec::new());
        }
    }

    /// Gives back workers that have had nothing to do for a while, or that the head wants back.
    pub(crate) fn return_idle_workers(&self) {
        let mut state = self.state.lock();
        let ended = state.leases.take_ended(Instant::now());
        self.note(&state);
        drop(state);
        ended.into_iter().for_each(|ended| self.end_lease(ended));
    }

    /// Sends the calls whose retry is due. Returns `true` if others are soon.
    pub(crate) fn retry_delayed(&self) -> bool {
        if !self.has_delayed.load(Ordering::Acquire) {
            return false;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        let due = state.delayed.take_due(now);
        let any = !due.is_empty();
        for task in due {
            if let Target::Function { key, .. } = task.target {
                state.leases.of(&task.demand).queue(key, task.clone());
            }
        }
        self.note(&state);
        let is_any_near = state.delayed.is_any_near(now);
        drop(state);
        if any {
            self.waiters.call_waits();
            self.send_ready();
        }
        is_any_near
    }

    /// Sends the head a constructor whose arguments are there.
    fn start_actor(&self, actor: u64, task: &Arc<Task>) {
        self.settler.end(1);
        let Some(head) = self.links.head() else { return };
        let arguments = task.arguments.count() as u32;
        let sent = self.send_arguments(task, |payloads| {
            head.send(&ToHead::StartActor { actor, arguments, payloads }, task.arguments.held())
        });
        if let Err(failure) = sent {
            let _ = head.send(&ToHead::AbandonActor { actor, failure }, Vec::new());
        }
    }

    /// Asks the head to end an actor.
    pub(crate) fn kill_actor(&self, actor: u64) {
        let Some(head) = self.links.head() else { return };
        self.watch_actor(actor, &mut self.state.lock());
        let _ = head.send(&ToHead::KillActor { actor }, Vec::new());
    }

    /// Asks the head, the first time, to say where an actor is and what becomes of it.
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
        let ready = self.settler.settle(cell, settled);
        if has_failed {
            // This comes after the failure is visible: a thread that sees the count looks for the failure.
            self.waiters.add_failure();
        }
        for dependent in ready {
            self.on_ready(dependent, has_failed);
        }
    }

    fn settle_all(&self, task: &Task, failure: &Failure) {
        for cell in &task.results {
            self.settle(cell, Settled::failed(failure.clone()));
        }
        self.waiters.announce();
    }

    fn fail_unsent(&self, task: &Arc<Task>, failure: &Failure) {
        self.settler.end(1);
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
        self.settler.end_all();
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
        self.settler.begin_future();
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
        self.settler.end_future();
    }

    /// A future that waits for something else than results is to be woken.
    pub(crate) fn wake_later(&self, waker: Waker) {
        self.settler.wake_later(waker);
    }

    /// Whether a future waits: then a thread must look at the mail at once when something comes.
    pub(crate) fn any_future(&self) -> bool {
        self.settler.any_future()
    }

    /// Whether futures are to be woken. One load.
    pub(crate) fn has_woken(&self) -> bool {
        self.settler.has_woken()
    }

    /// Wakes the futures whose results are there. Runs code of executors: nothing may be locked.
    pub(crate) fn wake_futures(&self) {
        if self.settler.has_woken() {
            self.settler.take_woken().into_iter().for_each(Waker::wake);
        }
    }
}

/// The memory of the arguments goes to the next call, but for what they need. For a call that was just made.
fn give_back_spare_memory(task: &mut Arc<Task>) {
    if let Some(task) = Arc::get_mut(task) {
        task.arguments.values.give_back_spare_memory();
    }
}
