//! The calling side: calls that wait for their arguments, for a worker or for their actor; calls that run; and the
//! results that come back.
//!
//! Calls of functions wait in one queue for whichever leased worker has room. How many are sent ahead to a worker
//! depends on how long the function has been seen to run: many of the short ones, one of the long ones. Calls of an
//! actor wait in the actor's own queue, so that they stay in order: one whose arguments are not there holds the later
//! ones back.
//!
//! This file makes calls. `leases` decides which worker gets which call, `reach` opens the channels to workers and
//! actors, `results` handles the results, `workers` handles the records from the head, and `actors` has the queues of
//! actors.
//!
//! Nothing here runs user code or decodes values. Opening a channel waits for the daemon's answer; only `connecting` is
//! locked meanwhile, not `State`.

mod actors;
pub(crate) mod leases;
mod reach;
mod results;
mod workers;

use mobula_client::{Client, ClientError, Handle, OwnerId, Watch};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use self::leases::Leases;
use crate::call::result_cell::ResultCell;
use crate::call::task::{Target, Task};
use crate::definition::Key;
use crate::error::{Failure, Result};
use crate::mail::link::{Link, TooLarge};
use crate::mail::links::Links;
use crate::mail::waiters::Waiters;
use crate::session_number::SessionNumber;
use crate::wire::{Call, Callee};

/// A thread that makes calls looks at the mail after so many calls.
const LOOK_PERIOD: u64 = 64;
/// The same after a call that could not be sent at once.
const LOOK_PERIOD_WAITING: u64 = 8;

thread_local! {
    /// Calls whose arguments became ready while this thread handles another call; `None` when it handles none.
    static READY: RefCell<Option<VecDeque<Arc<Task>>>> = const { RefCell::new(None) };
}

/// Whether this thread can still make calls. A thread that ends drops its thread-local values, `READY` among them.
pub(crate) fn is_there() -> bool {
    READY.try_with(|_| ()).is_ok()
}

/// The calls of this process whose results are not there yet.
pub(crate) struct Submitter {
    session: SessionNumber,
    client: Client,
    links: Arc<Links>,
    waiters: Arc<Waiters>,
    state: Mutex<State>,
    /// Held while a channel is opened.
    connecting: Mutex<()>,
    id_last: AtomicU64,
    /// The number of calls that have not been sent and of promises that have not been settled.
    unsettled: AtomicUsize,
    /// The number of entries in [`State::foreign`], to be read without the lock.
    foreign: AtomicUsize,
    has_leases: AtomicBool,
    has_lost_actors: AtomicBool,
    /// How many calls have failed, so that a wait for many results can tell that one has failed without checking each.
    failures: AtomicU64,
}

#[derive(Default)]
struct State {
    leases: Leases<Arc<Task>, Worker>,
    /// Links that this process opened; they stay when a lease ends.
    links: FxHashMap<OwnerId, Arc<Link>>,
    running: FxHashMap<u64, Running>,
    actors: FxHashMap<u64, ActorState>,
    /// Actors whose channels were lost, and since when.
    lost_actors: FxHashMap<u64, Instant>,
    requests: FxHashMap<u64, Answer>,
    /// Calls of functions that were sent to processes that are gone, until the head says how those ended. An entry for
    /// each lost link: a process may have had more than one.
    dying: FxHashMap<OwnerId, Vec<Dying>>,
    /// Calls that wait for promises of other processes, with the cell and a watch for each such argument.
    foreign: Vec<(Watch, Arc<ResultCell>, Arc<Task>)>,
}

/// A worker on lease.
struct Worker {
    link: Arc<Link>,
    pid: u32,
}

struct Running {
    task: Arc<Task>,
    on: OwnerId,
    link: u64,
    /// The number of the record in which the call was sent.
    number: u64,
}

impl Running {
    fn new(task: Arc<Task>, link: &Link, number: u64) -> Self {
        Self { task, on: link.peer, link: link.id, number }
    }
}

/// A lost link to a process that is gone, and the calls that were sent through it.
struct Dying {
    link: Arc<Link>,
    pid: u32,
    calls: Vec<Running>,
}

/// The outcome of the attempt to send a call at once.
enum Sent {
    Now,
    /// It waits for room in the ring.
    Backlogged,
    /// It has to wait for something.
    Not(Arc<Task>),
}

enum ActorState {
    /// The head was asked for the actor's process. The calls wait.
    Unknown {
        queue: VecDeque<Arc<Task>>,
    },
    /// The actor's process is known, and no channel to it is open yet.
    Known {
        process: OwnerId,
        queue: VecDeque<Arc<Task>>,
    },
    At {
        link: Arc<Link>,
        queue: VecDeque<Arc<Task>>,
    },
    Over {
        pid: u32,
        failure: Failure,
    },
}

impl ActorState {
    /// The calls that wait.
    fn queue(&mut self) -> Option<&mut VecDeque<Arc<Task>>> {
        match self {
            Self::Unknown { queue } | Self::Known { queue, .. } | Self::At { queue, .. } => Some(queue),
            Self::Over { .. } => None,
        }
    }
}

/// An actor that was found by its name.
pub(crate) struct Found {
    pub(crate) actor: u64,
    pub(crate) class: Key,
    pub(crate) class_name: String,
    /// Keeps it alive.
    pub(crate) token: Handle,
}

pub(crate) enum Answer {
    Reserved(Result<(u64, Handle), Failure>),
    Found(Option<Found>),
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
            client,
            links,
            waiters,
            state: Mutex::default(),
            connecting: Mutex::default(),
            id_last: AtomicU64::new(0),
            unsettled: AtomicUsize::new(0),
            foreign: AtomicUsize::new(0),
            has_leases: AtomicBool::new(false),
            has_lost_actors: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        }
    }

    /// How many calls have failed, ever.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Exports a result: returns a handle to the object that holds or will hold it.
    pub(crate) fn export(&self, cell: &ResultCell) -> Result<Handle, ClientError> {
        let (handle, promised) = cell.export(&self.client)?;
        if promised {
            self.promised(1);
            self.waiters.wake_poller();
        }
        Ok(handle)
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
        self.unsettled.load(Ordering::SeqCst) > 0
    }

    /// Whether a promise of another process that a call waits for is settled. Costs one load while no call waits.
    pub(crate) fn has_ready_foreign(&self) -> bool {
        self.foreign.load(Ordering::Acquire) > 0
            && self.state.lock().foreign.iter().any(|(_, cell, _)| cell.is_ready())
    }

    pub(crate) fn has_leases(&self) -> bool {
        self.has_leases.load(Ordering::Acquire)
    }

    /// Counts calls and promises that are not settled yet.
    pub(crate) fn promised(&self, count: usize) {
        // SeqCst: before the look at what the background poller does.
        self.unsettled.fetch_add(count, Ordering::SeqCst);
    }

    fn settled(&self, count: usize) {
        self.unsettled.fetch_sub(count, Ordering::AcqRel);
    }
}

impl Submitter {
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
            Sent::Not(task) => {
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
    fn send_at_once(&self, task: Arc<Task>) -> Sent {
        if task.arguments.results().next().is_some() {
            return Sent::Not(task);
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        // Checked with the state locked: the end of the session fails every call that is in it.
        if self.waiters.is_over() {
            return Sent::Not(task);
        }
        let (link, callee, worker) = match task.target {
            Target::Method { actor, method, .. } => match state.actors.get(&actor) {
                // Earlier calls go first.
                Some(ActorState::At { link, queue }) if queue.is_empty() && !link.is_closed() => {
                    (link, Callee::Method(method), None)
                }
                _ => return Sent::Not(task),
            },
            Target::Function { key, .. } => {
                let Some(id) = state.leases.worker_at_once(key) else { return Sent::Not(task) };
                let Some(worker) = state.leases.worker(id) else { return Sent::Not(task) };
                (&worker.link, Callee::Function(key), Some(id))
            }
            Target::Constructor { .. } => return Sent::Not(task),
        };
        let Ok(number) = self.send(link, &task, callee) else {
            // The call fails again on the long path, which settles its results.
            return Sent::Not(task);
        };
        let sent = if link.holds_anything() { Sent::Backlogged } else { Sent::Now };
        let running = Running::new(task, link, number);
        state.running.insert(running.task.id, running);
        if let Some(worker) = worker {
            state.leases.sent(worker);
        }
        sent
    }

    /// Accepts a call that has to wait for its arguments, for a worker, or for earlier calls.
    fn submit_waiting(&self, task: &Arc<Task>) {
        self.promised(1);
        if self.waiters.is_over() {
            return self.fail_unsent(task, &Failure::SessionOver);
        }
        if let Target::Method { actor, .. } = task.target {
            self.queue_for_actor(actor, task.clone());
        }
        for cell in task.arguments.results() {
            // Counted first: the result may come at any moment.
            task.unready.fetch_add(1, Ordering::AcqRel);
            if cell.add_dependent(task) {
                continue;
            }
            if let Some(handle) = cell.foreign_promise() {
                let watch = match handle.watch() {
                    Ok(watch) => (watch, cell.clone(), task.clone()),
                    // It stays counted as unready, so that nothing sends it.
                    Err(error) => return self.fail_unsent(task, &error.into()),
                };
                self.state.lock().foreign.push(watch);
                self.foreign.fetch_add(1, Ordering::AcqRel);
                // The result may have arrived before its owner could see the watch.
                if cell.is_ready() {
                    self.submit_what_became_ready();
                }
                continue;
            }
            task.unready.fetch_sub(1, Ordering::AcqRel);
        }
        self.one_argument_ready(task);
    }

    /// Counts one argument as ready, and sends the call if it was the last.
    ///
    /// One call's failure may settle the arguments of the next, and so on along chains of any length. So a call that
    /// becomes ready meanwhile goes to `READY`, and the outermost invocation handles it. The recursion has one level.
    fn one_argument_ready(&self, task: &Arc<Task>) {
        if task.unready.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let is_outermost = READY.with_borrow_mut(|ready| match ready {
            Some(ready) => {
                ready.push_back(task.clone());
                false
            }
            None => {
                *ready = Some(VecDeque::new());
                true
            }
        });
        if !is_outermost {
            return;
        }
        let mut next = Some(task.clone());
        while let Some(task) = next {
            self.on_arguments_ready(&task);
            next = READY.with_borrow_mut(|calls| {
                let next = calls.as_mut().and_then(VecDeque::pop_front);
                if next.is_none() {
                    *calls = None;
                }
                next
            });
        }
    }

    fn on_arguments_ready(&self, task: &Arc<Task>) {
        let failed = task.arguments.results().find_map(|cell| cell.failure());
        if let Some(failure) = failed {
            return self.fail_unsent(task, &failure);
        }
        match task.target {
            Target::Function { key, .. } => {
                self.state.lock().leases.queue(key, task.clone());
                self.send_ready();
            }
            Target::Method { actor, .. } => match self.actor_failure(actor) {
                Some((pid, failure)) => self.fail_unsent(task, &task.target.failure_of_actor(pid, &failure)),
                None => self.send_to_actor(actor),
            },
            Target::Constructor { actor, .. } => self.start_actor(actor, task),
        }
    }

    /// Sends the calls whose promised arguments are there. Returns whether there were any.
    pub(crate) fn submit_what_became_ready(&self) -> bool {
        if !self.has_ready_foreign() {
            return false;
        }
        let ready: Vec<_> =
            self.state.lock().foreign.extract_if(.., |(_, cell, _)| cell.is_ready()).collect();
        self.foreign.fetch_sub(ready.len(), Ordering::AcqRel);
        for (_, _, task) in &ready {
            self.one_argument_ready(task);
        }
        !ready.is_empty()
    }

    /// Sends queued calls of functions to workers that have room for them, and asks for more workers if need be.
    fn send_ready(&self) {
        let mut failed = Vec::new();
        let mut state = self.state.lock();
        while let Some((task, id)) = state.leases.next() {
            let Target::Function { key, .. } = task.target else { unreachable!("only functions queue here") };
            let worker = state.leases.worker(id).expect("one that is leased");
            match self.send(&worker.link, &task, Callee::Function(key)) {
                Ok(number) => {
                    let running = Running::new(task, &worker.link, number);
                    state.running.insert(running.task.id, running);
                    state.leases.sent(id);
                    self.settled(1);
                }
                Err(failure) => failed.push((task, failure)),
            }
        }
        self.tell_wants(&mut state);
        drop(state);
        for (task, failure) in failed {
            self.fail_unsent(&task, &failure);
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

    /// Fails all calls whose results are not there yet.
    pub(crate) fn fail_everything(&self, failure: &Failure) {
        let (unsent, running) = {
            let mut state = self.state.lock();
            let mut unsent = state.leases.take_waiting();
            unsent.extend(std::mem::take(&mut state.foreign).into_iter().map(|(_, _, task)| task));
            for (_, mut actor) in std::mem::take(&mut state.actors) {
                unsent.extend(actor.queue().map(std::mem::take).unwrap_or_default());
            }
            let dying =
                std::mem::take(&mut state.dying).into_values().flatten().flat_map(|dying| dying.calls);
            unsent.extend(dying.map(|running| running.task));
            (unsent, std::mem::take(&mut state.running))
        };
        for task in unsent.iter().chain(running.values().map(|running| &running.task)) {
            self.settle_all(task, failure);
        }
        self.unsettled.store(0, Ordering::Release);
    }
}
