//! A call of an actor that may have several under way: with its arguments, so that any thread can run it.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use mobula_client::{Client, Handle};

use super::answer::{fail, reply, reply_with_end, say_begun};
use super::serve::end_forked_child;
use super::stream::Items;
use crate::call::payload::{self, Payload};
use crate::call::task_id::TaskId;
use crate::error::{Failure, TaskError, TaskErrorKind};
use crate::executor::Executor;
use crate::host::invocation::Invocation;
use crate::host::reply::Reply;
use crate::mail::link::Link;
use crate::record::RunBeside;
use crate::runtime::{Runtime, current};
use crate::under_way::{self, UnderWay};
use crate::wire::{Call, Callee, NoResults, Returns, StreamEnd};

/// A call that has left the queue of its process. Dropping it without running it is a failure, which the caller gets.
pub struct OwnedCall(Option<Parts>);

struct Parts {
    from: Arc<Link>,
    /// The number of the call's record, as the caller counts.
    number: u64,
    call: Call,
    record: Vec<u8>,
    /// The objects that the arguments name, if the caller may be gone meanwhile.
    #[expect(dead_code, reason = "held, not read")]
    held: Vec<Handle>,
    under_way: Arc<UnderWay>,
    /// Its record, which the answer ends; `None`: calls are not recorded.
    run: Option<Arc<RunBeside>>,
}

impl OwnedCall {
    pub(super) fn new(
        executor: &Executor,
        from: Arc<Link>,
        number: u64,
        call: Call,
        record: Vec<u8>,
        held: Vec<Handle>,
    ) -> Self {
        let under_way = executor.under_way(&from, call.task);
        Self(Some(Parts { from, number, call, record, held, under_way, run: None }))
    }

    pub(super) fn callee(&self) -> Option<Callee> {
        self.0.as_ref().map(|parts| parts.call.callee)
    }

    /// The number of results that the caller wants, and their shape.
    #[must_use]
    pub fn returns(&self) -> Returns {
        self.0.as_ref().map_or(Returns::One, |parts| parts.call.returns)
    }

    /// The id of the call, and the number of its retries so far.
    #[must_use]
    pub fn id(&self) -> Option<(TaskId, u16)> {
        self.0.as_ref().map(|parts| (TaskId::new(parts.from.peer, parts.call.task), parts.call.attempt))
    }

    /// Reads the first argument without removing it; `None` if there is none.
    pub fn peek<R>(&self, look: impl FnOnce(Payload<'_>, &Client) -> R) -> Option<R> {
        let runtime = current::runtime().ok()?;
        let parts = self.0.as_ref().filter(|parts| parts.call.arguments > 0)?;
        let mut rest = parts.record.get(parts.call.bytes()..)?;
        let first = payload::take(&mut rest).ok()?;
        Some(look(first, &runtime.client))
    }

    /// Runs the call on this thread, and answers it: with the results that `run` gives, or with its failure. A call
    /// that its caller no longer wants does not run.
    pub fn run(self, run: impl FnOnce(&mut Invocation<'_>) -> Result<(), Failure>) {
        self.run_as(true, run);
    }

    /// Runs the call like [`run`](Self::run), but it only joins a queue of the host: `run` takes its arguments and its
    /// [`later`](Invocation::later) answer, and [`Reply::begin`] says when it begins. If this process dies before that,
    /// the call waits for the next process of the actor.
    pub fn run_queued(self, run: impl FnOnce(&mut Invocation<'_>) -> Result<(), Failure>) {
        self.run_as(false, run);
    }

    fn run_as(self, begins: bool, run: impl FnOnce(&mut Invocation<'_>) -> Result<(), Failure>) {
        let Some((parts, runtime)) = self.begin() else { return };
        if begins {
            parts.begin();
        }
        let executor = runtime.executor.as_ref().expect("a worker has one");
        let _entered = under_way::enter(parts.under_way.clone());
        parts.with_invocation(&runtime, executor, run);
    }

    /// Runs the call as a future: `run` is polled by any executor, on one thread.
    pub async fn run_async(self, run: impl AsyncFnOnce(&mut Invocation<'_>) -> Result<(), Failure>) {
        let Some((parts, runtime)) = self.begin() else { return };
        parts.begin();
        let executor = runtime.executor.as_ref().expect("a worker has one");
        let under_way = parts.under_way.clone();
        let mut running = pin!(parts.with_invocation_async(&runtime, executor, run));
        poll_fn(|context| {
            let _entered = under_way::enter(under_way.clone());
            running.as_mut().poll(context)
        })
        .await;
    }

    /// Does not run the call, and gives no answer: the process ends, and the caller learns of that.
    pub fn abandon(mut self) {
        self.0 = None;
    }

    /// Answers the call with a failure, and does not run it.
    pub fn fail(mut self, failure: Failure) {
        if let Some(parts) = self.0.take() {
            parts.fail(failure);
        }
    }

    /// The parts of a call that is still wanted. The others are answered.
    fn begin(mut self) -> Option<(Parts, Arc<Runtime>)> {
        let runtime = current::runtime().ok()?.clone();
        let mut parts = self.0.take()?;
        let executor = runtime.executor.as_ref()?;
        let task = parts.call.task;
        let is_detached = parts.call.is_detached;
        let is_too_late = parts.call.limits.is_some_and(|limits| limits.is_past());
        let is_orphaned = parts.from.is_closed() && !is_detached && !executor.watches_callers();
        if is_too_late || parts.under_way.is_cancelled() || is_orphaned {
            let removed = NoResults::Removed { task };
            let _ = parts.from.send_with(Vec::new(), |record| removed.append_to(record));
            runtime.answered(executor, &parts.from, task, &parts.under_way);
            return None;
        }
        let caller = parts.from.peer;
        let run = RunBeside::new(&runtime.client, task, caller, || executor.name_of(parts.call.callee));
        parts.run = run.map(Arc::new);
        Some((parts, runtime))
    }
}

impl Parts {
    /// The call begins now.
    fn begin(&self) {
        if self.call.limits.is_some() {
            say_begun(&self.from, self.call.task);
        }
        self.from.begin_beside(self.number);
        if let Some(run) = &self.run {
            run.begin();
        }
    }

    fn items<'a>(&'a self, runtime: &'a Runtime) -> Option<Items<'a>> {
        let Returns::Stream(in_flight_max) = self.call.returns else { return None };
        Some(Items::new(runtime, &self.from, self.call.task, in_flight_max, &self.under_way))
    }

    fn invocation<'a>(&mut self, runtime: &'a Runtime) -> Invocation<'a> {
        let (at, count, returns) = (self.call.bytes(), self.call.arguments, self.call.returns);
        let record = std::mem::take(&mut self.record);
        let context = self.call.context(&record);
        let mut on = Invocation::new(&runtime.client, record, at, count, returns);
        on.set_call(TaskId::new(self.from.peer, self.call.task), self.call.attempt);
        on.set_context(context);
        on
    }

    fn reply(&self, runtime: &Runtime) -> Reply {
        self.under_way.set_may_be_later();
        let (client, from, call) = (runtime.client.clone(), self.from.clone(), self.under_way.clone());
        Reply::new(client, from, self.number, &self.call, call, self.run.clone())
    }

    fn with_invocation(
        mut self,
        runtime: &Runtime,
        executor: &Executor,
        run: impl FnOnce(&mut Invocation<'_>) -> Result<(), Failure>,
    ) {
        let mut on = self.invocation(runtime);
        let (items, later) = (self.items(runtime), || self.reply(runtime));
        on.set_beside(self.run.as_deref());
        match &items {
            Some(items) => on.set_items(items),
            None => on.set_later(&later),
        }
        let outcome = run(&mut on);
        end_forked_child(runtime);
        self.answer(runtime, executor, on, items.as_ref(), outcome);
    }

    async fn with_invocation_async(
        mut self,
        runtime: &Runtime,
        executor: &Executor,
        run: impl AsyncFnOnce(&mut Invocation<'_>) -> Result<(), Failure>,
    ) {
        let mut on = self.invocation(runtime);
        let (items, later) = (self.items(runtime), || self.reply(runtime));
        on.set_beside(self.run.as_deref());
        match &items {
            Some(items) => on.set_items(items),
            None => on.set_later(&later),
        }
        let outcome = run(&mut on).await;
        end_forked_child(runtime);
        self.answer(runtime, executor, on, items.as_ref(), outcome);
    }

    fn answer(
        &self,
        runtime: &Runtime,
        executor: &Executor,
        on: Invocation<'_>,
        items: Option<&Items<'_>>,
        outcome: Result<(), Failure>,
    ) {
        let task = self.call.task;
        // Then the reply answers the call, and ends its record.
        if items.is_none() && !on.may_be_later() {
            return;
        }
        if let Some(run) = &self.run {
            run.over(outcome.is_err());
        }
        let (results, _) = on.into_parts();
        match (outcome, items) {
            // The head answers it: the call has ended the actor.
            (Err(_), _) if executor.exits() => return,
            (Ok(()), None) => reply(&self.from, task, results, 0),
            (Ok(()), Some(items)) => {
                let end = StreamEnd { task, items: items.sent(), ran_nanos: 0 };
                reply_with_end(&self.from, end, results);
            }
            (Err(failure), _) => fail(&self.from, task, failure, 0),
        }
        runtime.answered(executor, &self.from, task, &self.under_way);
    }

    fn fail(self, failure: Failure) {
        fail(&self.from, self.call.task, failure, 0);
        if let Ok(runtime) = current::runtime()
            && let Some(executor) = &runtime.executor
        {
            runtime.answered(executor, &self.from, self.call.task, &self.under_way);
        }
    }
}

impl Drop for OwnedCall {
    fn drop(&mut self) {
        if let Some(parts) = self.0.take() {
            let message = "the call was dropped before it ran".to_owned();
            parts.fail(TaskError::new("a method", TaskErrorKind::NotAnswered, message).into());
        }
    }
}

impl fmt::Debug for OwnedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedCall").field(&self.0.as_ref().map(|parts| parts.call.task)).finish()
    }
}
