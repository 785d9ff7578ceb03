//! The calling side: calls that wait for their arguments, for a worker or for their actor; those that run; and what
//! comes back.
//!
//! Calls of functions wait in one queue for whichever leased worker has room. How many are sent ahead to a worker
//! depends on how long the function has been seen to run: many of the short ones, one of the long ones. Calls of an
//! actor wait in the actor's own queue, so that they stay in order: one whose arguments are not there holds the later
//! ones back.
//!
//! Nothing here runs user code or decodes values, and nothing waits while the books are locked but for the daemon's
//! answer when a channel is opened.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mobula_client::{Handle, OwnerId, Watch};
use parking_lot::Mutex;

use crate::core::Core;
use crate::error::{Failure, Result};
use crate::link::{Link, TooLarge};
use crate::message::{Callee, FoundActor, FromHead, Payload, ReservedActor, ToCaller, ToHead, ToWorker};
use crate::registry::{Class, Key};
use crate::slot::{Inline, Settled, Slot};
use crate::task::{Target, Task, TaskArg};

/// A worker gets calls that together are likely to run for this long.
const AHEAD_NANOS: u64 = 200_000;
const AHEAD_MAX: u64 = 256;
/// Workers asked for at a time.
const WANT_MAX: usize = 64;
/// An idle lease is kept this long, because the next call often comes soon.
const LEASE_KEPT: Duration = Duration::from_millis(50);

thread_local! {
    /// Calls whose arguments are there, while this thread deals with another one.
    static TURN: RefCell<Option<VecDeque<Arc<Task>>>> = const { RefCell::new(None) };
}

/// What this process has called and not yet got.
#[derive(Default)]
pub(crate) struct Submitter {
    books: Mutex<Books>,
    id_last: AtomicU64,
    /// Calls that have not been sent, and promises that have not been kept.
    unsettled: AtomicUsize,
    has_leases: AtomicBool,
}

#[derive(Default)]
struct Books {
    ready: VecDeque<Arc<Task>>,
    leases: HashMap<OwnerId, Lease>,
    /// Links that this process opened; they stay when a lease ends.
    links: HashMap<OwnerId, Arc<Link>>,
    running: HashMap<u64, Running>,
    wanted: usize,
    run_nanos: HashMap<Key, u64>,
    actors: HashMap<u64, ActorState>,
    requests: HashMap<u64, Answer>,
    /// Calls that wait for results that other processes promised.
    foreign: Vec<(Watch, Arc<Slot>, Arc<Task>)>,
}

impl Books {
    /// The leased worker with the least to do, if that is little enough for one more call of this function.
    fn worker_with_room(&self, key: Key) -> Option<OwnerId> {
        let ahead =
            self.run_nanos.get(&key).map_or(1, |nanos| (AHEAD_NANOS / (nanos + 1)).clamp(1, AHEAD_MAX));
        let open = self.leases.iter().filter(|(_, lease)| !lease.paused && !lease.recalled);
        let (worker, lease) = open.min_by_key(|(_, lease)| lease.in_flight)?;
        (lease.in_flight < ahead).then_some(*worker)
    }
}

struct Lease {
    link: Arc<Link>,
    pid: u32,
    in_flight: u64,
    /// It declined a call, and has not finished one since.
    paused: bool,
    /// The head wants it back.
    recalled: bool,
    idle_since: Instant,
}

struct Running {
    task: Arc<Task>,
    on: OwnerId,
    link: u64,
}

impl Running {
    fn new(task: Arc<Task>, link: &Link) -> Self {
        Self { task, on: link.peer, link: link.id }
    }
}

/// An argument as a record is to name it.
enum Input {
    Inline(Inline),
    Stored(Handle),
}

impl Input {
    fn payload(&self) -> Payload<'_> {
        match self {
            Self::Inline(inline) => Payload::Inline {
                bytes: &inline.bytes,
                references: inline.references.iter().map(Handle::id).collect(),
            },
            Self::Stored(handle) => Payload::Stored(handle.id()),
        }
    }

    fn handles(&self) -> Vec<Handle> {
        match self {
            Self::Inline(inline) => inline.references.clone(),
            Self::Stored(handle) => vec![handle.clone()],
        }
    }
}

enum ActorState {
    /// Asked for, with the calls that wait.
    Unknown {
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

enum Answer {
    Reserved(Result<(u64, Handle), Failure>),
    Found(Option<(u64, Key, String, Handle)>),
}

impl Submitter {
    pub(crate) fn next_id(&self) -> u64 {
        self.id_last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether somebody must look at the mail although nobody waits.
    pub(crate) fn is_busy(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) > 0
    }

    pub(crate) fn has_leases(&self) -> bool {
        self.has_leases.load(Ordering::Acquire)
    }

    /// Counts promises that stand for results still to come.
    pub(crate) fn promised(&self, count: usize) {
        self.unsettled.fetch_add(count, Ordering::AcqRel);
    }

    fn settled(&self, count: usize) {
        self.unsettled.fetch_sub(count, Ordering::AcqRel);
    }
}

impl Core {
    // ---- making calls ----

    /// Takes a call on: it is sent as soon as its arguments are there and somebody can run it.
    pub(crate) fn submit(self: &Arc<Self>, task: Arc<Task>) {
        self.submitter.promised(1);
        if self.is_over() {
            return self.fail_unsent(&task, &Failure::SessionOver);
        }
        if let Target::Method { actor, .. } = task.target {
            self.queue_for_actor(actor, task.clone());
        }
        for argument in &task.arguments {
            let TaskArg::Result(slot) = argument else { continue };
            // Counted first: the result may come at any moment.
            task.unready.fetch_add(1, Ordering::AcqRel);
            if slot.add_dependent(&task) {
                continue;
            }
            if let Some(handle) = slot.foreign_promise() {
                let watch = (handle.watch(), slot.clone(), task.clone());
                self.submitter.books.lock().foreign.push(watch);
                continue;
            }
            task.unready.fetch_sub(1, Ordering::AcqRel);
        }
        self.one_argument_ready(&task);
        if self.submitter.is_busy() {
            self.wake_courier();
        }
    }

    /// Counts down; the last one sends the call.
    ///
    /// One call's failure may settle the arguments of the next, and so on along chains of any length. So what becomes
    /// ready meanwhile waits for its turn instead of being dealt with in depth.
    fn one_argument_ready(self: &Arc<Self>, task: &Arc<Task>) {
        if task.unready.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let is_turn = TURN.with_borrow_mut(|turn| match turn {
            Some(waiting) => {
                waiting.push_back(task.clone());
                false
            }
            None => {
                *turn = Some(VecDeque::new());
                true
            }
        });
        if !is_turn {
            return;
        }
        let mut next = Some(task.clone());
        while let Some(task) = next {
            self.on_arguments_ready(&task);
            next = TURN.with_borrow_mut(|turn| {
                let next = turn.as_mut().and_then(VecDeque::pop_front);
                if next.is_none() {
                    *turn = None;
                }
                next
            });
        }
    }

    fn on_arguments_ready(self: &Arc<Self>, task: &Arc<Task>) {
        let failed = task.arguments.iter().find_map(|argument| match argument {
            TaskArg::Result(slot) => match slot.outcome() {
                Some(Settled::Failed(failure)) => Some(failure),
                _ => None,
            },
            _ => None,
        });
        if let Some(failure) = failed {
            return self.fail_unsent(task, &failure);
        }
        match task.target {
            Target::Function { .. } => {
                self.submitter.books.lock().ready.push_back(task.clone());
                self.send_ready();
            }
            Target::Method { actor, .. } => match self.actor_failure(actor) {
                Some((pid, failure)) => self.fail_unsent(task, &of_actor(&task.target, pid, &failure)),
                None => self.send_to_actor(actor),
            },
            Target::Constructor { actor, .. } => self.start_actor(actor, task),
        }
    }

    /// Calls whose foreign arguments have come; `true` if there were any.
    pub(crate) fn submit_what_became_ready(self: &Arc<Self>) -> bool {
        let ready: Vec<_> = {
            let mut books = self.submitter.books.lock();
            if books.foreign.is_empty() {
                return false;
            }
            books.foreign.extract_if(.., |(_, slot, _)| slot.is_ready()).collect()
        };
        for (_, _, task) in &ready {
            self.one_argument_ready(task);
        }
        !ready.is_empty()
    }

    /// Sends queued calls of functions to workers that have room for them, and asks for more workers if need be.
    fn send_ready(self: &Arc<Self>) {
        let mut failed = Vec::new();
        let mut books = self.submitter.books.lock();
        while let Some(task) = books.ready.front() {
            let Target::Function { key, .. } = task.target else { unreachable!("only functions queue here") };
            let Some(worker) = books.worker_with_room(key) else { break };
            let task = books.ready.pop_front().expect("just looked at");
            let lease = books.leases.get_mut(&worker).expect("just found");
            match self.send(&lease.link, &task, Callee::Function(key)) {
                Ok(()) => {
                    lease.in_flight += 1;
                    let running = Running::new(task, &lease.link);
                    books.running.insert(running.task.id, running);
                    self.submitter.settled(1);
                }
                Err(failure) => failed.push((task, failure)),
            }
        }
        self.tell_wants(&mut books);
        drop(books);
        for (task, failure) in failed {
            self.fail_unsent(&task, &failure);
        }
    }

    fn tell_wants(&self, books: &mut Books) {
        let wanted = books.ready.len().min(WANT_MAX);
        if wanted == books.wanted || wanted < books.wanted && wanted > 0 {
            return;
        }
        books.wanted = wanted;
        if let Some(head) = self.head() {
            let _ = head.send(&ToHead::Want { workers: wanted as u32 }, Vec::new());
        }
    }

    fn queue_for_actor(self: &Arc<Self>, actor: u64, task: Arc<Task>) {
        let mut books = self.submitter.books.lock();
        match books.actors.get_mut(&actor) {
            Some(ActorState::Unknown { queue } | ActorState::At { queue, .. }) => queue.push_back(task),
            // It fails when its arguments are there, as it would have if it had been sent.
            Some(ActorState::Over { .. }) => {}
            None => {
                books.actors.insert(actor, ActorState::Unknown { queue: VecDeque::from([task]) });
                if let Some(head) = self.head() {
                    let _ = head.send(&ToHead::WatchActor { actor }, Vec::new());
                }
            }
        }
    }

    /// Sends the calls at the front of an actor's queue whose arguments are there.
    fn send_to_actor(self: &Arc<Self>, actor: u64) {
        let mut failed = Vec::new();
        {
            let mut books = self.submitter.books.lock();
            let books = &mut *books;
            let Some(ActorState::At { link, queue, .. }) = books.actors.get_mut(&actor) else { return };
            // A closed link means that the head is about to say what became of the actor.
            while !link.is_closed()
                && let Some(task) = queue.pop_front_if(|task| task.unready.load(Ordering::Acquire) == 0)
            {
                // It has failed already, for want of an argument.
                if task.results.iter().all(|slot| slot.is_ready()) {
                    continue;
                }
                let Target::Method { method, .. } = task.target else {
                    unreachable!("only methods queue here")
                };
                match self.send(link, &task, Callee::Method(method)) {
                    Ok(()) => {
                        books.running.insert(task.id, Running::new(task, link));
                        self.submitter.settled(1);
                    }
                    Err(failure) => failed.push((task, failure)),
                }
            }
        }
        for (task, failure) in failed {
            self.fail_unsent(&task, &failure);
        }
    }

    fn actor_failure(&self, actor: u64) -> Option<(u32, Failure)> {
        match self.submitter.books.lock().actors.get(&actor) {
            Some(ActorState::Over { pid, failure }) => Some((*pid, failure.clone())),
            _ => None,
        }
    }

    /// Sends one call.
    fn send(&self, link: &Link, task: &Task, callee: Callee) -> Result<(), Failure> {
        self.send_inputs(task, |inputs| {
            let arguments = inputs.iter().map(Input::payload).collect();
            let record = ToWorker::Call { task: task.id, callee, returns: task.returns, arguments };
            // The task itself keeps what the record names, until it is over.
            link.send(&record, Vec::new())
        })
    }

    /// Sends a record with a task's arguments: small ones in it, or, where that is too much, all through the store.
    fn send_inputs(
        &self,
        task: &Task,
        send: impl Fn(&[Input]) -> Result<(), TooLarge>,
    ) -> Result<(), Failure> {
        send(&self.inputs(task, false)?).or_else(|TooLarge| {
            send(&self.inputs(task, true)?)
                .map_err(|TooLarge| Failure::Other("too many arguments for a record".into()))
        })
    }

    /// A task's arguments as a record names them. The task keeps the objects alive until it is over.
    fn inputs(&self, task: &Task, all_stored: bool) -> Result<Vec<Input>, Failure> {
        let input = |argument: &TaskArg| match argument {
            TaskArg::Inline(inline) if !all_stored => Ok(Input::Inline(inline.clone())),
            TaskArg::Inline(inline) => {
                let slot = Slot::settled(Settled::Inline(inline.clone()));
                Ok(Input::Stored(slot.escape(&self.client)?.0))
            }
            TaskArg::Stored(handle) => Ok(Input::Stored(handle.clone())),
            TaskArg::Result(slot) => match slot.outcome() {
                Some(Settled::Inline(inline)) if !all_stored => Ok(Input::Inline(inline)),
                Some(Settled::Failed(failure)) => Err(failure),
                Some(Settled::Stored(handle)) => Ok(Input::Stored(handle)),
                _ => Ok(Input::Stored(slot.escape(&self.client)?.0)),
            },
        };
        task.arguments.iter().map(input).collect()
    }

    // ---- what comes back ----

    /// A record from a worker or actor that runs calls of this process.
    pub(crate) fn on_results(self: &Arc<Self>, link: &Arc<Link>, record: &[u8]) {
        match postcard::from_bytes(record) {
            Ok(ToCaller::Results { task, first, results, ran_nanos }) => {
                let results = results.into_iter().map(|payload| self.settled_from(payload)).collect();
                self.on_some_results(link, task, first, results, ran_nanos);
            }
            Ok(ToCaller::Failed { task, failure, ran_nanos }) => {
                if let Some(running) = self.end_call(link, task, Some(ran_nanos)) {
                    self.settle_all(&running.task, &failure);
                }
            }
            Ok(ToCaller::Declined { task }) => {
                if let Some(running) = self.end_call(link, task, None) {
                    self.submitter.promised(1);
                    let mut books = self.submitter.books.lock();
                    books.ready.push_front(running.task);
                    if let Some(lease) = books.leases.get_mut(&link.peer) {
                        lease.paused = true;
                        // It is busy with what others asked of it: its place is better used elsewhere.
                        lease.recalled |= lease.in_flight == 0;
                    }
                    drop(books);
                    self.return_idle_workers();
                }
            }
            Err(error) => {
                tracing::error!(peer = %link.peer, %error, "a record that cannot be read");
                return;
            }
        }
        self.send_ready();
    }

    /// A result as it came; the objects that it names are held from here on.
    fn settled_from(&self, payload: Payload<'_>) -> Settled {
        let held = match payload {
            Payload::Stored(object) => self.client.hold(object).map(Settled::Stored),
            Payload::Inline { bytes, references } => {
                let handles = references.into_iter().map(|object| self.client.hold(object));
                handles.collect::<Result<Vec<_>, _>>().map(|references| {
                    Settled::Inline(Inline { bytes: Bytes::copy_from_slice(bytes), references })
                })
            }
        };
        held.unwrap_or_else(|error| Settled::Failed(error.into()))
    }

    fn on_some_results(
        self: &Arc<Self>,
        link: &Arc<Link>,
        task: u64,
        first: u32,
        results: Vec<Settled>,
        ran_nanos: Option<u64>,
    ) {
        let running = {
            let books = self.submitter.books.lock();
            let Some(running) = books.running.get(&task).filter(|running| running.link == link.id) else {
                return;
            };
            running.task.clone()
        };
        for (slot, settled) in running.results.iter().skip(first as usize).zip(results) {
            self.settle(slot, settled);
        }
        if ran_nanos.is_some() && self.end_call(link, task, ran_nanos).is_some() {
            // A worker that says it is done without having sent every result leaves none pending.
            let missing = Failure::Other(format!("{} sent too few results", running.target.name()));
            self.settle_all(&running, &missing);
        }
    }

    /// Takes a call off the books; its worker has room again.
    fn end_call(&self, link: &Link, task: u64, ran_nanos: Option<u64>) -> Option<Running> {
        let mut books = self.submitter.books.lock();
        if books.running.get(&task).is_none_or(|running| running.link != link.id) {
            return None;
        }
        let running = books.running.remove(&task)?;
        if let Some(lease) = books.leases.get_mut(&running.on) {
            lease.in_flight = lease.in_flight.saturating_sub(1);
            lease.idle_since = Instant::now();
            lease.paused &= ran_nanos.is_none();
        }
        if let (Target::Function { key, .. }, Some(nanos)) = (&running.task.target, ran_nanos) {
            let seen = books.run_nanos.entry(*key).or_insert(nanos);
            *seen = (*seen * 7 + nanos) / 8;
        }
        Some(running)
    }

    fn settle(self: &Arc<Self>, slot: &Slot, settled: Settled) {
        let (dependents, promised) = slot.settle(&self.client, settled);
        if promised {
            self.submitter.settled(1);
        }
        for task in dependents {
            self.one_argument_ready(&task);
        }
    }

    fn settle_all(self: &Arc<Self>, task: &Task, failure: &Failure) {
        for slot in &task.results {
            self.settle(slot, Settled::Failed(failure.clone()));
        }
        self.announce();
    }

    fn fail_unsent(self: &Arc<Self>, task: &Arc<Task>, failure: &Failure) {
        self.submitter.settled(1);
        if let Target::Constructor { actor, .. } = task.target
            && let Some(head) = self.head()
        {
            let _ = head.send(&ToHead::AbandonActor { actor, failure: failure.clone() }, Vec::new());
        }
        self.settle_all(task, failure);
        if let Target::Method { actor, .. } = task.target {
            self.send_to_actor(actor);
        }
    }

    /// A process that ran calls of this one is gone (or a link to it is).
    pub(crate) fn on_worker_gone(self: &Arc<Self>, link: &Arc<Link>) {
        let (again, lost, pid) = {
            let mut books = self.submitter.books.lock();
            if books.links.get(&link.peer).is_some_and(|other| other.id == link.id) {
                books.links.remove(&link.peer);
            }
            let pid = books.leases.remove(&link.peer).map_or(0, |lease| lease.pid);
            self.submitter.has_leases.store(!books.leases.is_empty(), Ordering::Release);
            // What became of an actor, and so of its calls, the head will say.
            let lost = books.running.extract_if(|_, running| {
                running.link == link.id && matches!(running.task.target, Target::Function { .. })
            });
            let (again, lost): (Vec<_>, Vec<_>) = lost
                .map(|(_, running)| running.task)
                .partition(|task| task.retries_left.load(Ordering::Relaxed) > 0);
            (again, lost, pid)
        };
        for task in again {
            task.retries_left.fetch_sub(1, Ordering::Relaxed);
            self.submitter.promised(1);
            self.submitter.books.lock().ready.push_front(task);
        }
        for task in lost {
            let how = "its process ended during the call, or with the call in its queue".to_owned();
            self.settle_all(&task, &Failure::WorkerDied { function: task.target.name(), pid, how });
        }
        self.send_ready();
    }

    // ---- the head ----

    /// A record from the head.
    pub(crate) fn on_head(self: &Arc<Self>, record: &[u8]) {
        let record = match postcard::from_bytes(record) {
            Ok(record) => record,
            Err(error) => return tracing::error!(%error, "a record of the head's that cannot be read"),
        };
        match record {
            FromHead::Granted { worker, pid } => self.on_granted(worker, pid),
            FromHead::NoWorkers { failure } => {
                let ready = {
                    let mut books = self.submitter.books.lock();
                    books.wanted = 0;
                    std::mem::take(&mut books.ready)
                };
                for task in ready {
                    self.fail_unsent(&task, &failure);
                }
            }
            FromHead::Recall { worker } => self.recall(worker),
            FromHead::ActorReserved { request, result } => {
                let held =
                    result.and_then(|ReservedActor { actor, token }| Ok((actor, self.client.hold(token)?)));
                self.submitter.books.lock().requests.insert(request, Answer::Reserved(held));
            }
            FromHead::ActorFound { request, actor } => {
                let found = actor.and_then(|FoundActor { actor, token, class, class_name }| {
                    Some((actor, class, class_name, self.client.hold(token).ok()?))
                });
                self.submitter.books.lock().requests.insert(request, Answer::Found(found));
            }
            FromHead::ActorAt { actor, process } => self.on_actor_at(actor, process),
            FromHead::ActorOver { actor, pid, failure } => self.on_actor_over(actor, pid, &failure),
            FromHead::Construct { actor, class, arguments } => {
                if let Some(executor) = &self.executor {
                    executor.on_construct(actor, class, &arguments);
                }
            }
            FromHead::Exit => {
                if let Some(executor) = &self.executor {
                    executor.stop();
                }
            }
        }
    }

    fn on_granted(self: &Arc<Self>, worker: OwnerId, pid: u32) {
        let link = self.link_to(worker);
        let mut books = self.submitter.books.lock();
        books.wanted = books.wanted.saturating_sub(1);
        match link {
            Some(link) => {
                let idle_since = Instant::now();
                let lease = Lease { link, pid, in_flight: 0, paused: false, recalled: false, idle_since };
                books.leases.insert(worker, lease);
                self.submitter.has_leases.store(true, Ordering::Release);
                drop(books);
                self.wake_courier();
                self.send_ready();
            }
            None => {
                drop(books);
                self.return_worker(worker);
            }
        }
    }

    /// The link to a process that runs calls; opened the first time.
    fn link_to(self: &Arc<Self>, process: OwnerId) -> Option<Arc<Link>> {
        if let Some(link) = self.submitter.books.lock().links.get(&process) {
            return Some(link.clone());
        }
        let channel = self.client.connect_to(process).inspect_err(|error| {
            tracing::debug!(%process, %error, "a process was gone before a call reached it");
        });
        let link = Arc::new(Link::new(channel.ok()?, false));
        self.add_link(link.clone());
        self.submitter.books.lock().links.insert(process, link.clone());
        Some(link)
    }

    fn return_worker(&self, worker: OwnerId) {
        if let Some(head) = self.head() {
            let _ = head.send(&ToHead::Return { worker }, Vec::new());
        }
    }

    /// Another process of the session has no worker at all: this one goes back as soon as it is done.
    fn recall(&self, worker: OwnerId) {
        let mut books = self.submitter.books.lock();
        if let Some(lease) = books.leases.get_mut(&worker) {
            lease.recalled = true;
        }
        drop(books);
        self.return_idle_workers();
    }

    /// Gives back workers that have had nothing to do for a while, or that the head wants back.
    pub(crate) fn return_idle_workers(&self) {
        let mut books = self.submitter.books.lock();
        let now = Instant::now();
        let idle = books.leases.extract_if(|_, lease| {
            lease.in_flight == 0 && (lease.recalled || now.duration_since(lease.idle_since) >= LEASE_KEPT)
        });
        let idle: Vec<_> = idle.map(|(worker, _)| worker).collect();
        self.submitter.has_leases.store(!books.leases.is_empty(), Ordering::Release);
        drop(books);
        for worker in idle {
            self.return_worker(worker);
        }
    }

    // ---- actors ----

    /// A place for an actor, and what keeps it. A round trip to the head.
    pub(crate) fn reserve_actor(
        self: &Arc<Self>,
        class: &'static Class,
        name: Option<&str>,
    ) -> Result<(u64, Handle), Failure> {
        let request = self.submitter.next_id();
        let message = ToHead::ReserveActor { request, class: class.key(), class_name: class.name, name };
        match self.ask_head(request, &message)? {
            Answer::Reserved(result) => result,
            Answer::Found(_) => Err(Failure::Other("the head answered another question".into())),
        }
    }

    #[expect(clippy::type_complexity, reason = "the parts of a handle, taken apart at once")]
    pub(crate) fn find_actor(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Option<(u64, Key, String, Handle)>, Failure> {
        let request = self.submitter.next_id();
        match self.ask_head(request, &ToHead::FindActor { request, name })? {
            Answer::Found(found) => Ok(found),
            Answer::Reserved(_) => Err(Failure::Other("the head answered another question".into())),
        }
    }

    pub(crate) fn kill_actor(&self, actor: u64) {
        if let Some(head) = self.head() {
            let _ = head.send(&ToHead::KillActor { actor }, Vec::new());
        }
    }

    fn ask_head(self: &Arc<Self>, request: u64, message: &ToHead<'_>) -> Result<Answer, Failure> {
        let head = self.head().ok_or(Failure::SessionOver)?;
        head.send(message, Vec::new())
            .map_err(|TooLarge| Failure::Other("a name of more bytes than a record takes".into()))?;
        let answer = self.wait(None, || {
            let answer = self.submitter.books.lock().requests.remove(&request);
            answer.map(Ok).or_else(|| head.is_closed().then_some(Err(Failure::SessionOver)))
        });
        answer.unwrap_or(Err(Failure::SessionOver))
    }

    /// The arguments of a constructor are there.
    fn start_actor(self: &Arc<Self>, actor: u64, task: &Arc<Task>) {
        self.submitter.settled(1);
        let Some(head) = self.head() else { return };
        let sent = self.send_inputs(task, |inputs| {
            let arguments = inputs.iter().map(Input::payload).collect();
            let held = inputs.iter().flat_map(Input::handles).collect();
            head.send(&ToHead::StartActor { actor, arguments }, held)
        });
        if let Err(failure) = sent {
            let _ = head.send(&ToHead::AbandonActor { actor, failure }, Vec::new());
        }
    }

    fn on_actor_at(self: &Arc<Self>, actor: u64, process: OwnerId) {
        // If it is gone already, the head will say so.
        let Some(link) = self.link_to(process) else { return };
        let mut books = self.submitter.books.lock();
        let queue = match books.actors.remove(&actor) {
            Some(ActorState::Unknown { queue } | ActorState::At { queue, .. }) => queue,
            _ => VecDeque::new(),
        };
        books.actors.insert(actor, ActorState::At { link, queue });
        drop(books);
        self.send_to_actor(actor);
    }

    fn on_actor_over(self: &Arc<Self>, actor: u64, pid: u32, failure: &Failure) {
        let (queue, running): (VecDeque<_>, Vec<_>) = {
            let mut books = self.submitter.books.lock();
            let queue = match books.actors.insert(actor, ActorState::Over { pid, failure: failure.clone() }) {
                Some(ActorState::Unknown { queue } | ActorState::At { queue, .. }) => queue,
                _ => VecDeque::new(),
            };
            let is_its = |running: &Running| matches!(running.task.target, Target::Method { actor: its, .. } if its == actor);
            let running =
                books.running.extract_if(|_, running| is_its(running)).map(|(_, running)| running.task);
            (queue, running.collect())
        };
        for task in &running {
            self.settle_all(task, &of_actor(&task.target, pid, failure));
        }
        for task in &queue {
            // One that waits for arguments fails now, and is done with when they come.
            if !task.results.iter().all(|slot| slot.is_ready()) {
                self.settle_all(task, &of_actor(&task.target, pid, failure));
            }
            if task.unready.load(Ordering::Acquire) == 0 {
                self.submitter.settled(1);
            }
        }
    }

    // ---- the end ----

    /// Nothing that is pending will come any more.
    pub(crate) fn fail_everything(self: &Arc<Self>, failure: &Failure) {
        let (unsent, running) = {
            let mut books = self.submitter.books.lock();
            let mut unsent: Vec<_> = std::mem::take(&mut books.ready).into();
            unsent.extend(std::mem::take(&mut books.foreign).into_iter().map(|(_, _, task)| task));
            for (_, state) in std::mem::take(&mut books.actors) {
                if let ActorState::Unknown { queue } | ActorState::At { queue, .. } = state {
                    unsent.extend(queue);
                }
            }
            (unsent, std::mem::take(&mut books.running))
        };
        for task in unsent.iter().chain(running.values().map(|running| &running.task)) {
            self.settle_all(task, failure);
        }
        self.submitter.unsettled.store(0, Ordering::Release);
    }
}

/// Why a call of an actor that is over failed.
fn of_actor(target: &Target, pid: u32, failure: &Failure) -> Failure {
    match (target, failure) {
        (Target::Method { class, name, .. }, Failure::Other(cause)) => Failure::ActorDied {
            class: (*class).to_owned(),
            method: (*name).to_owned(),
            pid,
            cause: cause.clone(),
        },
        _ => failure.clone(),
    }
}
