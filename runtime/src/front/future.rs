//! Waiting for references as a future.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;

use crate::call::result_cell::ResultCell;
use crate::call::waiter::Waiter;
use crate::error::{Error, Failure, Result};
use crate::front::reference::{Ref, check_session};
use crate::mail::waiters::Mail;
use crate::runtime::{Runtime, current};

/// A wait for references that is polled; see [`poll`](Self::poll). It can be dropped at any time.
#[derive(Debug)]
pub struct Waiting {
    refs: SmallVec<[Ref; 1]>,
    /// The number of references that are waited for.
    wanted: usize,
    ends_on_failure: bool,
    registered: Option<Registered>,
}

/// The registration of the future with the results, which wake it.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) runtime: Weak<Runtime>,
    pub(super) waiter: Arc<Waiter>,
    pub(super) cells: SmallVec<[Arc<ResultCell>; 1]>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.upgrade() {
            runtime.submitter.end_future(&self.waiter, &self.cells);
            runtime.future_waited(self.waiter.took());
            if let (Some(executor), Some(head)) = (&runtime.executor, runtime.head()) {
                executor.end_wait(head);
            }
        }
    }
}

impl Registered {
    pub(super) fn new(
        runtime: &Arc<Runtime>,
        waiter: Arc<Waiter>,
        cells: SmallVec<[Arc<ResultCell>; 1]>,
    ) -> Result<Self> {
        let registered = Self { runtime: Arc::downgrade(runtime), waiter, cells };
        // The place of a worker is free while its call waits.
        if let (Some(executor), Some(head)) = (&runtime.executor, runtime.head()) {
            executor.begin_wait(head);
        }
        runtime.submitter.begin_future(&registered.waiter, &registered.cells)?;
        Ok(registered)
    }
}

impl Waiting {
    /// A wait for all references, which ends early when one has failed.
    pub fn for_all(refs: impl IntoIterator<Item = Ref>) -> Self {
        let refs: SmallVec<[Ref; 1]> = refs.into_iter().collect();
        Self { wanted: refs.len(), refs, ends_on_failure: true, registered: None }
    }

    /// A wait for `num_ready` of the references. A failed reference counts as ready.
    ///
    /// # Errors
    /// [`Error::Config`] when `num_ready` is more than there are.
    pub fn for_some(refs: impl IntoIterator<Item = Ref>, num_ready: usize) -> Result<Self> {
        let refs: SmallVec<[Ref; 1]> = refs.into_iter().collect();
        if num_ready > refs.len() {
            let expected = format!("at most the {} references that were given", refs.len());
            return Err(Error::Config { field: "num_ready", value: num_ready.to_string(), expected });
        }
        Ok(Self { refs, wanted: num_ready, ends_on_failure: false, registered: None })
    }

    /// The references that are waited for.
    pub fn refs(&self) -> &[Ref] {
        &self.refs
    }

    /// Handles the mail, and looks whether the wait is over. If it is not, the task of `context` is woken when it is.
    ///
    /// The first poll spins for some microseconds, as a thread does before it sleeps, unless other futures wait. No
    /// system call, unless the background poller sleeps and has to be woken.
    ///
    /// # Errors
    /// The failure of a reference, where all are waited for; [`Failure::Cancelled`]; [`Error::NotInitialized`];
    /// [`Failure::SessionOver`] when a reference belongs to a session that has ended, or the session ends meanwhile;
    /// those of the store.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let polled = self.poll_registered(context);
        if polled.is_ready() {
            self.registered = None;
        }
        polled
    }

    fn poll_registered(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let runtime = match self.refs.first() {
            Some(first) => current::runtime_of(first.session())?,
            None => current::runtime()?,
        };
        check_session(&runtime, &self.refs)?;
        if let ready @ Poll::Ready(_) = self.look(&runtime) {
            return ready;
        }
        match &self.registered {
            None => runtime.look_for_future(|| self.look(&runtime).is_ready()),
            Some(_) => _ = runtime.look(),
        }
        if let ready @ Poll::Ready(_) = self.look(&runtime) {
            return ready;
        }
        let registered = match self.registered.take() {
            Some(registered) if !registered.waiter.has_ended() => registered,
            // Results may have come that are themselves promises of other processes.
            _ => self.register(&runtime)?,
        };
        registered.waiter.set_waker(context.waker());
        if let Some(executor) = &runtime.executor {
            executor.wake_when_cancelled(context.waker());
        }
        self.registered = Some(registered);
        // A result that came before the waker was set has woken nothing.
        ready!(self.look(&runtime))?;
        Poll::Ready(Ok(()))
    }

    fn register(&self, runtime: &Arc<Runtime>) -> Result<Registered> {
        let pending = self.refs.iter().filter(|reference| !reference.is_ready());
        let cells: SmallVec<[Arc<ResultCell>; 1]> = pending.map(Ref::to_cell).collect();
        let ready = self.refs.len() - cells.len();
        let waiter = Waiter::new(self.wanted.saturating_sub(ready), self.ends_on_failure);
        Registered::new(runtime, waiter, cells)
    }

    fn look(&self, runtime: &Runtime) -> Poll<Result<()>> {
        let failure = || self.refs.iter().find_map(Ref::failure);
        if self.ends_on_failure
            && let Some(failure) = failure()
        {
            return Poll::Ready(Err(failure.into()));
        }
        if self.refs.iter().filter(|reference| reference.is_ready()).take(self.wanted).count() == self.wanted
        {
            return Poll::Ready(Ok(()));
        }
        match runtime.is_cancelled() {
            true => Poll::Ready(Err(Failure::Cancelled.into())),
            false if runtime.is_over() => Poll::Ready(Err(Failure::SessionOver.into())),
            false => Poll::Pending,
        }
    }
}
