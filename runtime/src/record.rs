//! The record of the calls that this process makes and runs: events and counts in the client's
//! [recorder](mobula_client::internal::recorder), which others can read while it runs and after its death.
//!
//! A process records its running call, the lengths of its queues, and the waits of its sleeping threads, by plain
//! stores. If the [environment](crate::process) asks for it, the process also counts the calls that it makes, and
//! records an event when a call is made and one when it runs. It records rare events always, because their cost does
//! not matter: a failed call, and a result that is promised to another process.

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use mobula_client::internal::clock::{self, Moment, Stopwatch};
use mobula_client::internal::origin;
use mobula_client::internal::recorder::{
    Cause, Counter, EVENT_VALUES, EventBuffer, Kind, Queue, Recorder, WaitFor,
};
use mobula_client::{Client, ObjectId, OwnerId};
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::call::result_cell::ResultCell;
use crate::call::task::{Target, Task};
use crate::definition::Name;
use crate::error::{ExitReason, Failure};

/// The most functions and methods whose numbers a process keeps at hand.
const KNOWN_MAX: usize = 4096;

/// The recorder of the calls that are made. It is part of the submitter's state, and so under its lock.
#[derive(Debug)]
pub(crate) struct Calls {
    recorder: Arc<Recorder>,
    known: FxHashMap<(u64, u64), Known>,
    /// The name that was used last. The next call often has the same one.
    last: ((u64, u64), u16),
}

/// The number of a name.
#[derive(Debug)]
struct Known {
    number: u16,
    /// The names. Calls identify a name by the address of its text, so the texts must stay alive here.
    _names: [Option<Name>; 2],
}

impl Calls {
    pub(crate) fn of(client: &Client) -> Option<Self> {
        const OF_CALLERS: [Kind; 4] = [Kind::Made, Kind::Sent, Kind::Blocked, Kind::Ended];
        let recorder = client.recorder()?.clone();
        OF_CALLERS.into_iter().any(|kind| recorder.records(kind)).then(|| Self {
            recorder,
            known: FxHashMap::default(),
            last: ((0, 0), 0),
        })
    }

    /// A call was made, and sent at once.
    #[inline]
    pub(crate) fn sent_at_once(&mut self, task: &Task, to: OwnerId) {
        let name = self.name(&task.target);
        self.recorder.count(name, Counter::Made);
        self.recorder.count(name, Counter::Sent);
        let to = to.bits();
        self.record(Kind::Sent, 0, name, [task.id, task.parent, to, actor_of(task), 0, sizes(task)]);
    }

    /// A call was made, and waits for a worker or for its actor.
    #[inline]
    pub(crate) fn made(&mut self, task: &Task) {
        let name = self.name(&task.target);
        self.recorder.count(name, Counter::Made);
        self.record(Kind::Made, 0, name, [task.id, task.parent, actor_of(task), 0, 0, sizes(task)]);
    }

    /// A call was made, and waits for this argument.
    pub(crate) fn blocked(&mut self, task: &Task, argument: &ResultCell) {
        let name = self.name(&task.target);
        self.recorder.count(name, Counter::Made);
        let (what, [one, other]) = waits_for(argument, |_| (WaitFor::Call, 0));
        let values = [task.id, task.parent, one, other, actor_of(task), sizes(task)];
        self.record(Kind::Blocked, what as u8, name, values);
    }

    /// The arguments of a call that waited for them are there: it waits for a worker or for its actor.
    pub(crate) fn unblocked(&mut self, task: &Task) {
        let name = self.name(&task.target);
        self.record(Kind::Made, 0, name, [task.id, task.parent, actor_of(task), 0, 0, sizes(task)]);
    }

    /// A call that waited was sent.
    #[inline]
    pub(crate) fn sent(&mut self, task: &Task) {
        let name = self.name(&task.target);
        self.recorder.count(name, Counter::Sent);
    }

    /// A call has ended well.
    #[inline]
    pub(crate) fn ended(&mut self, task: &Task, on: OwnerId) {
        let name = self.name(&task.target);
        self.recorder.count(name, Counter::Ended);
        self.record(Kind::Ended, 0, name, [task.id, on.bits(), 0, 0, 0, 0]);
    }

    #[inline]
    fn record(&self, kind: Kind, detail: u8, name: u16, values: [u64; EVENT_VALUES]) {
        if self.recorder.records(kind) {
            self.recorder.record(EventBuffer::Made, kind, detail, name, values);
        }
    }

    /// The number of a call's name.
    #[inline]
    fn name(&mut self, target: &Target) -> u16 {
        let key = match target {
            Target::Function { key, .. } => (key.bits(), u64::MAX),
            Target::Method { class, name, .. } => (address(class), address(name)),
            Target::Constructor { class, .. } => (address(class), 0),
        };
        if self.last.0 == key {
            return self.last.1;
        }
        let number = self.known.get(&key).map(|known| known.number);
        let number = number.unwrap_or_else(|| self.learn(key, target));
        self.last = (key, number);
        number
    }

    #[cold]
    fn learn(&mut self, key: (u64, u64), target: &Target) -> u16 {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let number = self.recorder.name(&target.name());
        let names = match target {
            Target::Function { .. } => [None, None],
            Target::Method { class, name, .. } => [Some(class.clone()), Some(name.clone())],
            Target::Constructor { class, .. } => [Some(class.clone()), None],
        };
        self.known.insert(key, Known { number, _names: names });
        number
    }
}

/// The sizes of a call's arguments, as [`Kind::Made`] has them.
#[inline]
fn sizes(task: &Task) -> u64 {
    let arguments = &task.arguments;
    let part = |count: usize| u64::from(u16::try_from(count).unwrap_or(u16::MAX));
    let bytes = u32::try_from(arguments.values.bytes().len()).unwrap_or(u32::MAX);
    u64::from(bytes) | part(arguments.values.held().len()) << 32 | part(arguments.results.len()) << 48
}

/// The actor whose method a call is; 0: it is of a function.
fn actor_of(task: &Task) -> u64 {
    match task.target {
        Target::Method { actor, .. } => actor,
        Target::Function { .. } | Target::Constructor { .. } => 0,
    }
}

fn address(name: &Name) -> u64 {
    name.as_ptr().addr() as u64
}

/// Records the length of one of this process's queues. The queue is locked.
#[inline]
pub(crate) fn queue(recorder: Option<&Arc<Recorder>>, queue: Queue, calls: usize) {
    if let Some(recorder) = recorder {
        recorder.set_queue(queue, calls);
    }
}

/// The wait of a thread for this result. `place` returns the wait of a call that was not sent, and the second value of
/// that wait.
pub(crate) fn waits_for(
    result: &ResultCell,
    place: impl FnOnce(u64) -> (WaitFor, u64),
) -> (WaitFor, [u64; 2]) {
    match result.foreign_promise() {
        Some(promise) => (WaitFor::Object, id_words(promise.id())),
        None => {
            let (what, at) = place(result.call);
            (what, [result.call, at])
        }
    }
}

/// An object as the values of an event have it.
fn id_words(object: ObjectId) -> [u64; 2] {
    let id = u128::from_le_bytes(object.to_bytes());
    [id as u64, (id >> 64) as u64]
}

/// An object was promised: the result of this call.
pub(crate) fn promised(client: &Client, object: ObjectId, call: u64) {
    if let Some(recorder) = client.recorder() {
        let [low, high] = id_words(object);
        recorder.note(Kind::Promised, 0, 0, [low, high, call, 0, 0, 0]);
    }
}

/// A process that the head started has ended, perhaps because it was killed on request. Its peak of memory has two
/// numbers, as [`Kind::Process`] has them.
pub(crate) fn process_ended(
    client: &Client,
    process: OwnerId,
    pid: u32,
    (reason, is_on_request): (ExitReason, bool),
    peak: [u64; 2],
) {
    let (how, number) = match reason {
        ExitReason::Exited { code } => (1, code as u64),
        ExitReason::Killed { signal } => (2, signal as u64),
        ExitReason::OutOfMemory { .. } => (3, 0),
        _ => (4, 0),
    };
    if let Some(recorder) = client.recorder() {
        recorder.note(
            Kind::Process,
            is_on_request.into(),
            0,
            [process.bits(), pid.into(), how, number, peak[0], peak[1]],
        );
    }
}

/// A mark of the program.
pub(crate) fn mark(client: &Client, name: &str, value: i64) {
    if let Some(recorder) = client.recorder().filter(|recorder| recorder.records(Kind::Mark)) {
        recorder.note(Kind::Mark, 0, recorder.name(name), [value.cast_unsigned(), 0, 0, 0, 0, 0]);
    }
}

/// A span of the program, which ends now.
pub(crate) fn span(client: &Client, name: &str, since: u64) {
    if let Some(recorder) = client.recorder().filter(|recorder| recorder.records(Kind::Span)) {
        recorder.note(Kind::Span, 0, recorder.name(name), [since, 0, 0, 0, 0, 0]);
    }
}

/// A call has failed. Any thread may say so.
pub(crate) fn failed(client: &Client, task: &Task, failure: &Failure) {
    let Some(recorder) = client.recorder() else { return };
    // The head knows what became of an actor.
    if let Target::Constructor { .. } = task.target {
        return;
    }
    let (cause, pid) = match failure {
        Failure::Task(_) => (Cause::Function, 0),
        Failure::WorkerDied { reason: ExitReason::OutOfMemory { .. }, pid, .. } => (Cause::OutOfMemory, *pid),
        Failure::WorkerDied { pid, .. }
        | Failure::ActorDied { pid, .. }
        | Failure::ActorUnavailable { pid, .. } => (Cause::Died, *pid),
        Failure::TaskCancelled { .. } | Failure::Cancelled => (Cause::Cancelled, 0),
        Failure::TaskTimedOut { .. } => (Cause::TimedOut, 0),
        _ => (Cause::Other, 0),
    };
    let name = recorder.name(&task.target.name());
    recorder.note_failed(cause as u8, name, [task.id, pid.into(), 0, 0, 0, 0]);
}

/// The recorder of the calls that run. The thread that runs them uses it.
#[derive(Debug)]
pub(crate) struct Runs {
    recorder: Option<Arc<Recorder>>,
    watch: Stopwatch,
    names: RefCell<Names>,
    /// The name of the call that runs.
    name: Cell<u16>,
}

/// The numbers of the names that the host has given.
#[derive(Debug, Default)]
struct Names {
    known: FxHashMap<u64, Said>,
    last: Said,
}

/// The names from the host: the class, if a method runs, and the function.
#[derive(Debug, Default, Clone)]
struct Said {
    class: String,
    function: String,
    number: u16,
}

impl Said {
    fn is(&self, class: &str, function: &str) -> bool {
        self.function == function && self.class == class
    }
}

impl Names {
    fn number(&mut self, recorder: &Recorder, class: &str, function: &str) -> u16 {
        if self.last.is(class, function) {
            return self.last.number;
        }
        let hash = FxBuildHasher.hash_one((class, function));
        let known = self.known.get(&hash).filter(|said| said.is(class, function));
        let said = known.cloned().unwrap_or_else(|| {
            let number = number_of(recorder, class, function);
            let said = Said { class: class.to_owned(), function: function.to_owned(), number };
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(hash, said.clone());
            said
        });
        self.last.clone_from(&said);
        said.number
    }
}

/// The number of a function's name, or of that of a method of a class.
fn number_of(recorder: &Recorder, class: &str, function: &str) -> u16 {
    match class {
        "" => recorder.name(function),
        class => recorder.name(&format!("{class}::{function}")),
    }
}

/// A call that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) task: u64,
    pub(crate) caller: OwnerId,
    pub(crate) since: u64,
}

impl Runs {
    pub(crate) fn of(client: &Client) -> Self {
        Self {
            recorder: client.recorder().cloned(),
            watch: Stopwatch::new(Moment::now()),
            names: RefCell::default(),
            name: Cell::new(0),
        }
    }

    /// Converts a number of ticks to nanoseconds.
    pub(crate) fn nanos(&self, ticks: u64) -> u64 {
        self.watch.nanos(ticks)
    }

    /// A call begins.
    #[inline]
    pub(crate) fn begin(&self, run: Run) {
        self.name.set(0);
        if let Some(recorder) = &self.recorder {
            recorder.begin_run(run.since, run.task, run.caller.bits(), 0);
        }
    }

    /// The host says what runs: a function, or a method of a class.
    #[inline]
    pub(crate) fn name(&self, class: &str, function: &str) {
        if let Some(recorder) = &self.recorder {
            let number = self.names.borrow_mut().number(recorder, class, function);
            self.name.set(number);
            recorder.name_run(number);
            if recorder.notes_origins() {
                origin::set_place(number);
            }
        }
    }

    /// The call is over. The times of methods are recorded only if each call is.
    #[inline]
    pub(crate) fn over(&self, run: Run, now: u64, failed: bool, is_function: bool) {
        let Some(recorder) = &self.recorder else { return };
        let name = self.name.get();
        if recorder.records(Kind::Ran) {
            let values = [run.task, run.caller.bits(), run.since, 0, 0, 0];
            recorder.ran(name, now.saturating_sub(run.since), failed);
            recorder.record_at(EventBuffer::Ran, now, Kind::Ran, failed.into(), name, values);
        } else if is_function {
            recorder.ran(name, now.saturating_sub(run.since), failed);
        } else {
            recorder.count(name, Counter::Ran);
            if failed {
                recorder.count(name, Counter::RanFailed);
            }
        }
        recorder.end_run();
    }
}

/// A call that runs in an actor beside others, on any thread. The recorder has room for only one running call of a
/// process, so such a call also has an event when it begins. The code that answers the call records its end.
#[derive(Debug)]
pub(crate) struct RunBeside {
    recorder: Arc<Recorder>,
    task: u64,
    caller: OwnerId,
    /// The number of its function's name; 0: the host has not said it yet.
    name: AtomicU16,
    /// When it began; 0: it only waits in a queue of the host.
    since: AtomicU64,
}

impl RunBeside {
    /// A call that has not begun; `None`: calls that run are not recorded. An empty name is not known.
    pub(crate) fn new(
        client: &Client,
        task: u64,
        caller: OwnerId,
        name: impl FnOnce() -> String,
    ) -> Option<Self> {
        let recorder = client.recorder().filter(|recorder| recorder.records(Kind::Began))?.clone();
        let name = match name() {
            name if name.is_empty() => 0,
            name => recorder.name(&name),
        };
        Some(Self { recorder, task, caller, name: name.into(), since: AtomicU64::new(0) })
    }

    /// The host says what runs: a function, or a method of a class.
    pub(crate) fn set_name(&self, class: &str, function: &str) {
        if self.name.load(Ordering::Relaxed) == 0 {
            let name = number_of(&self.recorder, class, function);
            self.name.store(name, Ordering::Relaxed);
            if self.since.load(Ordering::Relaxed) != 0 {
                self.note_began(name);
            }
        }
    }

    /// The call begins. If its name is not known yet, it gets its event with the name.
    pub(crate) fn begin(&self) {
        if self.since.compare_exchange(0, clock::ticks(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let name = self.name.load(Ordering::Relaxed);
            if name != 0 {
                self.note_began(name);
            }
        }
    }

    fn note_began(&self, name: u16) {
        self.recorder.note(Kind::Began, 0, name, [self.task, self.caller.bits(), 0, 0, 0, 0]);
    }

    /// The call is over. One that has not begun did not run.
    pub(crate) fn over(&self, failed: bool) {
        let since = self.since.load(Ordering::Relaxed);
        if since != 0 {
            let name = self.name.load(Ordering::Relaxed);
            self.recorder.note_ran(since, name, failed, [self.task, self.caller.bits()]);
        }
    }
}

/// The clock of events, now.
#[inline]
pub(crate) fn now() -> u64 {
    clock::ticks()
}
