//! The answer to a call that is given later, and by another thread than the one that took the call.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use mobula_client::Client;

use crate::call::payload::{Encoded, Payloads, PushError, Written};
use crate::error::{Failure, TaskError, TaskErrorKind};
use crate::executor::Executor;
use crate::mail::link::Link;
use crate::record::RunBeside;
use crate::runtime::current;
use crate::under_way::UnderWay;
use crate::wire::{Call, Returns};
use crate::worker::{fail, reply, say_begun};

/// The place of an answer. Results go there until [`finish`](Self::finish). Dropping it without that is a failure,
/// which the caller gets.
pub struct Reply {
    client: Client,
    to: Arc<Link>,
    /// The number of the call's record, as the caller counts.
    number: u64,
    task: u64,
    returns: Returns,
    /// The caller is told when the call begins.
    has_limits: bool,
    results: Payloads,
    call: Arc<UnderWay>,
    /// The call's record; `None`: calls are not recorded.
    run: Option<Arc<RunBeside>>,
    is_over: bool,
}

impl Reply {
    pub(crate) fn new(
        client: Client,
        to: Arc<Link>,
        number: u64,
        call: &Call,
        under_way: Arc<UnderWay>,
        run: Option<Arc<RunBeside>>,
    ) -> Self {
        let Call { task, returns, limits, .. } = *call;
        Self {
            client,
            to,
            number,
            task,
            returns,
            has_limits: limits.is_some(),
            results: Payloads::default(),
            call: under_way,
            run,
            is_over: false,
        }
    }

    /// The call begins now: if this process dies, the call is not sent again as one that had not begun. For a host that
    /// took the call by [`OwnedCall::run_queued`](crate::OwnedCall::run_queued). One store, if calls are not recorded,
    /// and the call has no time limits.
    pub fn begin(&self) {
        if self.has_limits {
            say_begun(&self.to, self.task);
        }
        self.to.begin_beside(self.number);
        if let Some(run) = &self.run {
            run.begin();
        }
    }

    /// The number of results that the caller wants, and their shape.
    #[must_use]
    pub fn returns(&self) -> Returns {
        self.returns
    }

    /// The number of the process that made the call. It is unique among the callers of this process.
    #[must_use]
    pub fn caller(&self) -> u64 {
        self.to.id
    }

    /// Gives the next result, as [`Invocation::give`](crate::Invocation::give) does.
    ///
    /// # Errors
    /// The error of `write`, or that of the store.
    pub fn give<A: Encoded, E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written<A>, E>,
    ) -> Result<(), PushError<E>> {
        self.results.push(&self.client, write)
    }

    /// Answers the call: with the results that were given, or with a failure.
    pub fn finish(mut self, outcome: Result<(), Failure>) {
        self.answer(outcome);
    }

    /// Whether the call was cancelled. Costs one load.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.call.is_cancelled()
    }

    /// Becomes ready when the call is cancelled.
    pub fn poll_cancelled(&self, context: &mut Context<'_>) -> Poll<()> {
        self.call.wake_when_changed(context.waker());
        if self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the caller still wants the answer: the call was not cancelled, and the caller's process is there. Two
    /// loads.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.is_cancelled() && !self.to.is_closed()
    }

    /// Becomes ready when the caller does not want the answer any more.
    pub fn poll_unwanted(&self, context: &mut Context<'_>) -> Poll<()> {
        self.call.wake_when_changed(context.waker());
        if self.is_wanted() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn answer(&mut self, outcome: Result<(), Failure>) {
        self.is_over = true;
        // Before the caller can look.
        if let Some(run) = &self.run {
            run.over(outcome.is_err());
        }
        let runtime = current::runtime();
        let executor = runtime.as_ref().ok().and_then(|runtime| runtime.executor.as_ref());
        match outcome {
            Ok(()) => reply(&self.to, self.task, std::mem::take(&mut self.results), 0),
            // The head answers it: the actor has ended.
            Err(_) if executor.is_some_and(Executor::exits) => {}
            Err(failure) => fail(&self.to, self.task, failure, 0),
        }
        if let (Ok(runtime), Some(executor)) = (&runtime, executor) {
            runtime.answered(executor, &self.to, self.task, &self.call);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_over {
            let message = "the reply was dropped without an answer".to_owned();
            self.answer(Err(TaskError::new("a method", TaskErrorKind::NotAnswered, message).into()));
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("task", &self.task).field("returns", &self.returns).finish()
    }
}
