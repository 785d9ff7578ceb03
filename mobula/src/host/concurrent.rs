//! An actor with several calls at a time: its state, and the threads that run its calls.
//!
//! The process's main thread takes the calls from the queue, and [`Lanes`] decides which of them begin. A call that
//! blocks runs on one of the actor's threads, which are started when they are needed and stay. A call of an `async`
//! method runs on [`the loop`](super::asynchronous), a thread of its own.

use std::any::Any;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mobula_runtime::{Failure, Instance, Invocation, OwnedCall, PlacedWait, Places, TaskId};
use parking_lot::{Condvar, Mutex, RwLock};

use super::call_span::in_span;
use super::lanes::{Begun, LaneWait, Lanes};
use super::user_code::{drop_guarded, guarded, not_registered};
use crate::invocation::Arguments;
use crate::registry::{Calling, Class, Concurrency, Method, SharedState};
use crate::reply;

#[cfg(feature = "tokio")]
use super::asynchronous::Loop;
#[cfg(feature = "tokio")]
use super::call_span::in_span_async;

/// The default limit of calls of `async` methods under way at a time.
const ASYNC_MAX: usize = 1000;

/// An actor in its process.
pub(crate) struct ConcurrentActor(Arc<Shared>);

/// The state that the threads of the actor share.
pub(crate) struct Shared {
    class: &'static Class,
    /// `None` once it is dropped. [`Lanes`] decides which calls run, so that no thread waits here.
    state: RwLock<Option<Box<SharedState>>>,
    gate: Mutex<Gate>,
    /// Calls have begun for which a thread is wanted.
    begun: Condvar,
    /// A call is over while the actor ends.
    over: Condvar,
}

struct Gate {
    lanes: Lanes<Job>,
    /// The calls that have begun, and that no thread has yet.
    begun: VecDeque<Begun<Job>>,
    /// How many threads wait for a call.
    idle: usize,
    is_closing: bool,
    #[cfg(feature = "tokio")]
    of_futures: Option<Loop>,
}

/// A call, and its method.
pub(crate) struct Job {
    pub(crate) method: &'static Method,
    pub(crate) call: OwnedCall,
}

impl ConcurrentActor {
    /// Makes the actor. `state` is its constructor, which runs on the thread of the actor's futures.
    pub(crate) fn make(
        class: &'static Class,
        concurrency: Concurrency,
        state: impl FnOnce() -> Result<Box<SharedState>, Failure>,
    ) -> Result<Self, Failure> {
        #[cfg(feature = "tokio")]
        let of_futures = if class.has_futures() { Some(Loop::start()?) } else { None };
        let state = {
            #[cfg(feature = "tokio")]
            let _entered = of_futures.as_ref().map(Loop::enter);
            RwLock::new(Some(state()?))
        };
        let max = concurrency.max.map(|max| max as usize);
        // A lane for threads, and one for futures.
        let mut places = vec![max.unwrap_or(1), max.unwrap_or(ASYNC_MAX)];
        places.extend(concurrency.groups.iter().flat_map(|(_, max)| [*max as usize; 2]));
        let gate = Gate {
            lanes: Lanes::new(places),
            begun: VecDeque::new(),
            idle: 0,
            is_closing: false,
            #[cfg(feature = "tokio")]
            of_futures,
        };
        let gate = Mutex::new(gate);
        Ok(Self(Arc::new(Shared { class, state, gate, begun: Condvar::new(), over: Condvar::new() })))
    }
}

impl Instance for ConcurrentActor {
    /// All calls begin by [`begin`](Self::begin).
    fn call(&mut self, _: u32, _: &mut Invocation<'_>) -> Result<(), Failure> {
        Err(not_registered("method"))
    }

    fn is_concurrent(&self) -> bool {
        true
    }

    fn places(&self) -> Option<Arc<dyn Places>> {
        Some(self.0.clone())
    }

    fn begin(&mut self, method: u32, call: OwnedCall) {
        let Some(method) = self.0.class.methods.get(method as usize) else {
            return call.fail(not_registered("method"));
        };
        let mut gate = self.0.gate.lock();
        let (lane, access) = (method.lane(), method.access());
        gate.lanes.push(lane, access, Job { method, call });
        self.0.begin_calls(&mut gate, false);
    }
}

impl Places for Shared {
    fn behind(&self, call: TaskId, waits: &[PlacedWait]) -> Vec<Vec<u64>> {
        let waits = waits.iter().filter_map(|PlacedWait { wait, method, .. }| {
            let method = self.class.methods.get(*method as usize)?;
            Some(LaneWait { lane: method.lane(), access: method.access(), wait: *wait })
        });
        let waits: Vec<_> = waits.collect();
        let is_it = |job: &Job| job.call.id().is_some_and(|(id, _)| id == call);
        self.gate.lock().lanes.behind(is_it, &waits)
    }
}

impl Shared {
    /// Begins the calls that can begin. `takes_one`: this thread takes one of them.
    fn begin_calls(self: &Arc<Self>, gate: &mut Gate, takes_one: bool) {
        while let Some(begun) = gate.lanes.next() {
            #[cfg(feature = "tokio")]
            if begun.job.method.call.is_future()
                && let Some(of_futures) = &gate.of_futures
            {
                of_futures.begin(self, begun);
                continue;
            }
            gate.begun.push_back(begun);
            let takers = gate.idle + usize::from(takes_one);
            if gate.begun.len() > takers {
                self.start_thread(gate);
            } else {
                self.begun.notify_one();
            }
        }
    }

    /// Starts a thread. If the system allows no more threads, an existing thread takes the call when it is free.
    fn start_thread(self: &Arc<Self>, gate: &mut Gate) {
        #[cfg(feature = "tokio")]
        let runtime = gate.of_futures.as_ref().map(Loop::handle);
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("mobula-call".to_owned()).spawn(move || {
            #[cfg(feature = "tokio")]
            let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
            shared.run_calls();
        });
        if let Err(error) = thread
            && let Some(begun) = gate.begun.pop_back()
        {
            let Begun { lane, access, job } = begun;
            gate.lanes.over(lane, access);
            let needed = "a thread for a call of an actor with several at a time".to_owned();
            job.call.fail(Failure::System { needed, errno: error.raw_os_error() });
        }
    }

    /// Runs calls until the actor ends. A thread of the actor does only this.
    fn run_calls(self: Arc<Self>) {
        let mut gate = self.gate.lock();
        loop {
            if gate.is_closing {
                self.over.notify_all();
                return;
            }
            let Some(Begun { lane, access, job }) = gate.begun.pop_front() else {
                gate.idle += 1;
                self.begun.wait(&mut gate);
                gate.idle -= 1;
                continue;
            };
            drop(gate);
            self.run(job);
            gate = self.gate.lock();
            gate.lanes.over(lane, access);
            self.begin_calls(&mut gate, true);
        }
    }

    fn run(&self, Job { method, call }: Job) {
        let run = |on: &mut Invocation<'_>| {
            let (context, arguments) = (on.context(), &mut Arguments::new(on));
            let run = || {
                guarded(|| match method.call {
                    Calling::Beside(call) => {
                        call(&**self.state.read().as_ref().ok_or_else(ended)?, arguments)
                    }
                    Calling::Alone(call) => {
                        call(&mut **self.state.write().as_mut().ok_or_else(ended)?, arguments)
                    }
                    _ => Err(not_registered("method")),
                })
            };
            in_span(context, || self.name(method), || reply::answering_panics(run))
        };
        // Nothing unwinds from here: the thread has a place that it must give back.
        let _ = catch_unwind(AssertUnwindSafe(|| call.run(run)));
    }

    fn name(&self, method: &Method) -> Cow<'static, str> {
        format!("{}::{}", self.class.name, method.name).into()
    }
}

#[cfg(feature = "tokio")]
impl Shared {
    /// Runs the call of an `async` method, as a future of the loop. Dropping the future abandons the call.
    #[expect(
        clippy::await_holding_lock,
        reason = "the lanes let no call begin that would wait for the state"
    )]
    pub(super) async fn run_future(self: Arc<Self>, Begun { lane, access, job }: Begun<Job>) {
        let Job { method, call } = job;
        call.run_async(async |on| {
            let (context, arguments) = (on.context(), &mut Arguments::new(on));
            let run = async {
                match method.call {
                    Calling::FutureBeside(call) => {
                        let state = self.state.read();
                        let state = state.as_ref().ok_or_else(ended)?;
                        super::asynchronous::guarded(|| call(&**state, arguments)).await
                    }
                    Calling::FutureAlone(call) => {
                        let mut state = self.state.write();
                        let state = state.as_mut().ok_or_else(ended)?;
                        super::asynchronous::guarded(|| call(&mut **state, arguments)).await
                    }
                    _ => Err(not_registered("method")),
                }
            };
            in_span_async(context, || self.name(method), run).await
        })
        .await;
        let mut gate = self.gate.lock();
        gate.lanes.over(lane, access);
        self.begin_calls(&mut gate, false);
    }
}

impl Drop for ConcurrentActor {
    /// The calls that run on threads are finished. Those that wait, and those of `async` methods, are abandoned.
    fn drop(&mut self) {
        let shared = &self.0;
        let mut gate = shared.gate.lock();
        gate.is_closing = true;
        let mut abandoned = gate.lanes.take_waiting();
        while let Some(Begun { lane, access, job }) = gate.begun.pop_front() {
            gate.lanes.over(lane, access);
            abandoned.push(job);
        }
        abandoned.into_iter().for_each(|job| job.call.abandon());
        #[cfg(feature = "tokio")]
        if let Some(of_futures) = gate.of_futures.take() {
            parking_lot::MutexGuard::unlocked(&mut gate, || of_futures.stop());
        }
        shared.begun.notify_all();
        // The lanes of threads.
        let lanes = || (0..2 + 2 * shared.class.groups()).step_by(2);
        while gate.lanes.running(lanes()) > 0 {
            shared.over.wait(&mut gate);
        }
        drop(gate);
        drop_guarded(shared.state.write().take());
    }
}

fn ended() -> Failure {
    Failure::Other("a method was called on an actor that has ended".to_owned())
}

/// The state of an actor with several calls at a time, as its class's type.
///
/// # Errors
/// When it is of another class.
pub fn downcast_ref<T: Any>(state: &SharedState) -> Result<&T, Failure> {
    state.downcast_ref().ok_or_else(crate::invocation::wrong_class::<T>)
}

/// Gives the state to a method that runs alone.
///
/// # Errors
/// When it is of another class.
pub fn downcast_mut<T: Any>(state: &mut SharedState) -> Result<&mut T, Failure> {
    state.downcast_mut().ok_or_else(crate::invocation::wrong_class::<T>)
}
