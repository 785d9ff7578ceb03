//! The serving side: calls that arrived, run one after the other by the process's main thread.
//!
//! A call that has not begun is not bound to this process. When the running call waits for results of others, or runs
//! for long, the calls of functions behind it are declined, and their callers send them elsewhere: so nothing waits
//! behind what it is waited for by, and a long call holds up no short ones. Calls of an actor stay: they are bound to
//! its state and its order.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use mobula_client::Handle;
use parking_lot::Mutex;

use crate::arguments::{Arguments, Returned, ReturnsWanted};
use crate::core::Core;
use crate::error::{Failure, TaskError, TaskErrorKind};
use crate::link::Link;
use crate::logs;
use crate::message::{Callee, Payload, Returns, ToCaller, ToHead, ToWorker};
use crate::registry::{self, Key};
use crate::slot::{Inline, Settled, source};

/// Results that go into one record, in bytes; a ring's record has room for them.
const RESULTS_BYTES_MAX: usize = 8 << 10;

thread_local! {
    /// Whether this thread is the one that runs calls, and is running one.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// What this process runs for others.
#[derive(Debug, Default)]
pub(crate) struct Executor {
    queue: Mutex<VecDeque<Work>>,
    /// The process is, or becomes, an actor.
    is_actor: AtomicBool,
    /// The running call waits for results of others.
    blocked: AtomicBool,
    stopping: AtomicBool,
    /// Calls begun so far, how many of them are over, and how many had begun when the courier last looked.
    begun: AtomicU64,
    over: AtomicU64,
    begun_before: AtomicU64,
}

#[derive(Debug)]
enum Work {
    Call { from: Arc<Link>, task: u64, callee: Callee, returns: Returns, arguments: Vec<Input> },
    Construct { actor: u64, class: Key, arguments: Vec<Input> },
}

/// An argument, out of the record that it came in.
#[derive(Debug)]
enum Input {
    Inline { bytes: Bytes, references: Vec<mobula_client::ObjectId> },
    Stored(mobula_client::ObjectId),
}

impl Input {
    fn of(payload: &Payload<'_>) -> Self {
        match payload {
            Payload::Stored(object) => Self::Stored(*object),
            Payload::Inline { bytes, references } => {
                Self::Inline { bytes: Bytes::copy_from_slice(bytes), references: references.clone() }
            }
        }
    }
}

impl Executor {
    // ---- arriving, on whatever thread deals with the mail ----

    pub(crate) fn on_call(&self, from: &Arc<Link>, record: &[u8]) {
        let (task, callee, returns, arguments) = match postcard::from_bytes(record) {
            Ok(ToWorker::Call { task, callee, returns, arguments }) => (task, callee, returns, arguments),
            Err(error) => {
                tracing::error!(peer = %from.peer, %error, "a call that cannot be read");
                return;
            }
        };
        if matches!(callee, Callee::Function(_)) && self.blocked.load(Ordering::Acquire) {
            let _ = from.send(&ToCaller::Declined { task }, Vec::new());
            return;
        }
        let arguments = arguments.iter().map(Input::of).collect();
        self.queue.lock().push_back(Work::Call { from: from.clone(), task, callee, returns, arguments });
    }

    pub(crate) fn on_construct(&self, actor: u64, class: Key, arguments: &[Payload<'_>]) {
        self.is_actor.store(true, Ordering::Release);
        let arguments = arguments.iter().map(Input::of).collect();
        self.queue.lock().push_front(Work::Construct { actor, class, arguments });
    }

    /// Nobody waits for the results of its calls any more.
    pub(crate) fn on_caller_gone(&self, link: &Arc<Link>) {
        self.queue.lock().retain(|work| !matches!(work, Work::Call { from, .. } if Arc::ptr_eq(from, link)));
    }

    /// The process is to end when the running call is over.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    // ---- not holding others up ----

    /// Whether a call of a function runs, or ran since this was last asked: then others may be sent ahead to this
    /// process, and wait behind it.
    pub(crate) fn is_active(&self) -> bool {
        let begun = self.begun.load(Ordering::SeqCst);
        !self.is_actor.load(Ordering::Acquire)
            && (begun != self.over.load(Ordering::Acquire)
                || begun != self.begun_before.load(Ordering::Acquire))
    }

    /// Declines what waits, if the call that runs now already ran when this was last asked.
    pub(crate) fn decline_behind_a_long_call(&self) {
        let begun = self.begun.load(Ordering::Acquire);
        let runs = begun != self.over.load(Ordering::Acquire);
        if self.begun_before.swap(begun, Ordering::AcqRel) == begun && runs {
            self.decline_waiting();
        }
    }

    fn decline_waiting(&self) {
        let mut declined = Vec::new();
        self.queue.lock().retain(|work| match work {
            Work::Call { from, task, callee: Callee::Function(_), .. } => {
                declined.push((from.clone(), *task));
                false
            }
            _ => true,
        });
        for (from, task) in declined {
            let _ = from.send(&ToCaller::Declined { task }, Vec::new());
        }
    }

    /// The running call is about to wait: others may have this process's place until the guard is dropped. `None` on
    /// threads that run no call, and in actors, which have no place among the workers.
    pub(crate) fn give_place_up<'a>(&'a self, head: &'a Arc<Link>) -> Option<PlaceGivenUp> {
        if !RUNNING.get()
            || self.is_actor.load(Ordering::Acquire)
            || self.blocked.swap(true, Ordering::AcqRel)
        {
            return None;
        }
        self.decline_waiting();
        let _ = head.send(&ToHead::Blocked, Vec::new());
        Some(PlaceGivenUp { head: head.clone() })
    }

    // ---- running, on the main thread ----

    /// Runs what arrives until the session, or this process's part in it, is over.
    pub(crate) fn serve(&self, core: &Arc<Core>) {
        let mut actor: Option<(&'static registry::Class, Box<dyn Any>)> = None;
        loop {
            let next = core.wait(None, || {
                if self.stopping.load(Ordering::Acquire) {
                    return Some(None);
                }
                self.queue.lock().pop_front().map(Some)
            });
            let Some(Some(work)) = next else { break };
            // SeqCst: before the look at whether the courier sleeps.
            self.begun.fetch_add(1, Ordering::SeqCst);
            if !self.is_actor.load(Ordering::Acquire) {
                core.call_begins();
            }
            match work {
                Work::Construct { actor: id, class, arguments } => {
                    let result = construct(core, class, arguments).map(|made| actor = Some(made));
                    if let Some(head) = core.head() {
                        let _ = head.send(&ToHead::Constructed { actor: id, result }, Vec::new());
                    }
                }
                Work::Call { from, task, callee, returns, arguments } => {
                    let started = Instant::now();
                    let outcome = run(core, callee, arguments, actor.as_mut());
                    let ran_nanos = started.elapsed().as_nanos() as u64;
                    reply(core, &from, task, returns, outcome, ran_nanos);
                }
            }
            let _ = std::io::stdout().flush();
            self.over.fetch_add(1, Ordering::AcqRel);
        }
        // The state's destructor runs, as that of any value whose owner is done.
        drop(actor);
        let _ = std::io::stdout().flush();
    }
}

/// See [`Executor::give_place_up`].
pub(crate) struct PlaceGivenUp {
    head: Arc<Link>,
}

impl Drop for PlaceGivenUp {
    fn drop(&mut self) {
        if let Some(executor) = crate::session::core().ok().as_ref().and_then(|core| core.executor.as_ref()) {
            executor.blocked.store(false, Ordering::Release);
        }
        let _ = self.head.send(&ToHead::Unblocked, Vec::new());
    }
}

fn construct(
    core: &Arc<Core>,
    class: Key,
    arguments: Vec<Input>,
) -> Result<(&'static registry::Class, Box<dyn Any>), Failure> {
    let class = registry::class(class).ok_or_else(|| not_registered("actor class"))?;
    let name = format!("{}::new", class.name);
    logs::label(class.name);
    let mut arguments = arguments_of(core, arguments);
    guarded(&name, || (class.construct)(&mut arguments)).map(|state| (class, state))
}

fn run(
    core: &Arc<Core>,
    callee: Callee,
    arguments: Vec<Input>,
    actor: Option<&mut (&'static registry::Class, Box<dyn Any>)>,
) -> Result<(String, Box<dyn Returned>), Failure> {
    let mut arguments = arguments_of(core, arguments);
    match callee {
        Callee::Function(key) => {
            let function = registry::function(key).ok_or_else(|| not_registered("function"))?;
            logs::label(function.name);
            let outcome = guarded(function.name, || (function.call)(&mut arguments))?;
            Ok((function.name.to_owned(), outcome))
        }
        Callee::Method(index) => {
            let (class, state) = actor.ok_or_else(|| {
                Failure::Other("a method was called before the actor of this process was constructed".into())
            })?;
            let method = class.methods.get(index as usize).ok_or_else(|| not_registered("method"))?;
            let name = format!("{}::{}", class.name, method.name);
            let outcome = guarded(&name, || (method.call)(&mut **state, &mut arguments))?;
            Ok((name, outcome))
        }
    }
}

/// Runs user code: a panic becomes an error, and errors learn the function's name.
fn guarded<T>(name: &str, call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    RUNNING.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    RUNNING.set(false);
    let failure = match result {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(failure)) => failure,
        Err(panic) => TaskError::new(name, TaskErrorKind::Panicked, panic_message(&*panic)).into(),
    };
    Err(named(name, failure))
}

fn named(name: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Task(mut error) if error.function.is_empty() => {
            name.clone_into(&mut error.function);
            error.into()
        }
        failure => failure,
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".into())
}

fn not_registered(what: &str) -> Failure {
    let message = format!("the {what} is not registered in this worker: is it another build of the program?");
    TaskError::new(what, TaskErrorKind::NotCalled, message).into()
}

fn arguments_of(core: &Core, inputs: Vec<Input>) -> Arguments {
    let settled = |input| -> Result<Settled, Failure> {
        Ok(match input {
            Input::Stored(object) => Settled::Stored(core.client.hold(object)?),
            Input::Inline { bytes, references } => {
                let references = references.into_iter().map(|object| core.client.hold(object));
                Settled::Inline(Inline { bytes, references: references.collect::<Result<_, _>>()? })
            }
        })
    };
    Arguments::new(inputs.into_iter().map(|input| source(&core.client, settled(input)?)).collect())
}

/// Sends the results: small ones in records, large ones by way of the store.
fn reply(
    core: &Core,
    to: &Link,
    task: u64,
    returns: Returns,
    outcome: Result<(String, Box<dyn Returned>), Failure>,
    ran_nanos: u64,
) {
    let encoded = outcome.and_then(|(name, returned)| {
        let encoded = catch_unwind(AssertUnwindSafe(|| returned.encode(ReturnsWanted(returns))))
            .unwrap_or_else(|panic| {
                Err(TaskError::new(&name, TaskErrorKind::Panicked, panic_message(&*panic)).into())
            });
        let results = encoded.map_err(|failure| named(&name, failure))?;
        results
            .iter()
            .map(|encoded| match core.inline(encoded) {
                Some(inline) => Ok(Settled::Inline(inline)),
                None => core.store(encoded).map(Settled::Stored),
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TaskError::new(&name, TaskErrorKind::NotReturned, error.to_string()).into())
    });
    let results = match encoded {
        Ok(results) => results,
        Err(failure) => {
            let _ = to.send(&ToCaller::Failed { task, failure, ran_nanos }, Vec::new());
            return;
        }
    };
    let (mut first, mut part, mut held, mut bytes) = (0, Vec::new(), Vec::<Handle>::new(), 0);
    for (position, settled) in results.iter().enumerate() {
        let payload = match settled {
            Settled::Stored(handle) => {
                held.push(handle.clone());
                Payload::Stored(handle.id())
            }
            Settled::Inline(inline) => {
                held.extend(inline.references.iter().cloned());
                let references = inline.references.iter().map(Handle::id).collect();
                Payload::Inline { bytes: &inline.bytes, references }
            }
            Settled::Failed(_) => unreachable!("failures were sent above"),
        };
        bytes += 64
            + match &payload {
                Payload::Inline { bytes, references } => bytes.len() + 32 * references.len(),
                Payload::Stored(_) => 0,
            };
        part.push(payload);
        let last = position + 1 == results.len();
        if last || bytes > RESULTS_BYTES_MAX {
            let next = first + part.len() as u32;
            let ran_nanos = last.then_some(ran_nanos);
            let record = ToCaller::Results { task, first, results: std::mem::take(&mut part), ran_nanos };
            let sent = to.send(&record, std::mem::take(&mut held));
            debug_assert!(sent.is_ok(), "a part of the results fits a record");
            (first, bytes) = (next, 0);
        }
    }
    if results.is_empty() {
        let record = ToCaller::Results { task, first: 0, results: Vec::new(), ran_nanos: Some(ran_nanos) };
        let _ = to.send(&record, Vec::new());
    }
}
