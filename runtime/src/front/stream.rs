//! Streams: calls whose results come one after the other, while they run.

use std::panic::Location;
use std::sync::Arc;
use std::task::{Context, Poll};

use smallvec::smallvec;

use crate::call::items::Items;
use crate::call::options::TaskOptions;
use crate::call::outcome::Settled;
use crate::call::result_cell::ResultCell;
use crate::call::task::{ResultCells, Target};
use crate::call::waiter::Waiter;
use crate::definition::Definition;
use crate::error::Failure;
use crate::front::arguments::ArgumentList;
use crate::front::function::submit;
use crate::front::future::Registered;
use crate::front::reference::Ref;
use crate::mail::waiters::Mail;
use crate::runtime::told::{Awaits, WaitReporter};
use crate::runtime::{Behind, Runtime, current};
use crate::submit::Awaited;
use crate::wire::Returns;

/// The items of a call that makes a stream. Dropping it cancels the call.
#[derive(Debug)]
#[must_use]
pub struct ItemStream {
    /// The result of the call: the end of the stream.
    cell: Arc<ResultCell>,
    end: Ref,
    items: Arc<Items>,
    /// The last item was returned.
    is_over: bool,
    registered: Option<Registered>,
}

/// Calls a function that makes a stream. At most `in_flight_max` items are sent and not taken yet
/// ([`UNLIMITED`](crate::UNLIMITED): any number). An error becomes the last item.
pub fn call_streaming(
    function: Definition,
    arguments: ArgumentList,
    in_flight_max: u32,
    options: TaskOptions,
) -> ItemStream {
    let (returns, items) = (Returns::Stream(in_flight_max), Items::new(in_flight_max));
    let target = Target::Function { key: function.key, name: function.name };
    let cells = submit(target, arguments, returns, Some(items.clone()), options);
    ItemStream::new(cells, items)
}

impl ItemStream {
    pub(crate) fn new(cells: ResultCells, items: Arc<Items>) -> Self {
        let cell = cells.into_iter().next().expect("a stream has one result");
        Self { end: Ref::to_result(cell.clone()), cell, items, is_over: false, registered: None }
    }

    /// The result of the call, which is there when the stream has ended.
    pub fn end(&self) -> &Ref {
        &self.end
    }

    /// Waits for the next item; `None` behind the last one. If the stream fails, its last item is the failure.
    #[track_caller]
    pub fn wait(&mut self) -> Option<Ref> {
        let at = Location::caller();
        loop {
            if let Some(next) = self.next_if_there() {
                return next;
            }
            let runtime = match current::runtime_of(self.cell.session) {
                Ok(runtime) => runtime,
                Err(error) => return self.fail(error.into()),
            };
            let is_there = || self.is_any_there().then_some(());
            let awaits = || {
                let results = vec![Awaited::Item(self.cell.call, self.items.count())];
                Some(Awaits { needed: 1, results, at })
            };
            let reporter = WaitReporter::new(&runtime, true, awaits);
            let found = runtime.wait_for_results(None, &reporter, || Behind::Item(self.cell.call), is_there);
            drop(reporter);
            match found {
                Ok(Some(())) => {}
                Ok(None) => {
                    let failure = without_end(&runtime);
                    return self.fail(failure);
                }
                Err(failure) => return self.fail(failure),
            }
        }
    }

    /// Waits like [`wait`](Self::wait), for a task of an executor, which is woken when the next item is there.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Ref>> {
        self.poll_for(context, Self::next_if_there, Self::fail)
    }

    /// Whether the next item is there, or the end. Like [`poll`](Self::poll), but it takes no item, so the function
    /// that makes the items gets no more room for them.
    pub fn poll_there(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // The next look says what the failure is.
        self.poll_for(context, |stream| stream.is_any_there().then_some(()), |_, _| ())
    }

    fn poll_for<T>(
        &mut self,
        context: &mut Context<'_>,
        look: impl Fn(&mut Self) -> Option<T>,
        failed: impl Fn(&mut Self, Failure) -> T,
    ) -> Poll<T> {
        let polled = self.poll_registered(context, look, failed);
        if polled.is_ready() {
            self.unregister();
        }
        polled
    }

    fn poll_registered<T>(
        &mut self,
        context: &mut Context<'_>,
        look: impl Fn(&mut Self) -> Option<T>,
        failed: impl Fn(&mut Self, Failure) -> T,
    ) -> Poll<T> {
        if let Some(found) = look(self) {
            return Poll::Ready(found);
        }
        let runtime = match current::runtime_of(self.cell.session) {
            Ok(runtime) => runtime,
            Err(error) => return Poll::Ready(failed(self, error.into())),
        };
        match &self.registered {
            None => runtime.look_for_future(|| self.is_any_there()),
            Some(_) => _ = runtime.look(),
        }
        if let Some(found) = look(self) {
            return Poll::Ready(found);
        }
        if self.registered.as_ref().is_none_or(|registered| registered.waiter.has_ended()) {
            self.unregister();
            let waiter = Waiter::new(1, true);
            match Registered::new(&runtime, waiter, smallvec![self.cell.clone()]) {
                Ok(registered) => self.registered = Some(registered),
                Err(error) => return Poll::Ready(failed(self, error.into())),
            }
        }
        if let Some(Registered { waiter, .. }) = &self.registered {
            waiter.set_waker(context.waker());
            self.items.set_waiter(Some(waiter.clone()));
        }
        if let Some(executor) = &runtime.executor {
            executor.wake_when_cancelled(context.waker());
        }
        // An item that came before has woken nothing.
        if let Some(found) = look(self) {
            return Poll::Ready(found);
        }
        if runtime.is_cancelled() || runtime.is_over() {
            return Poll::Ready(failed(self, without_end(&runtime)));
        }
        Poll::Pending
    }

    fn unregister(&mut self) {
        if self.registered.take().is_some() {
            self.items.set_waiter(None);
        }
    }

    /// Whether the next item is there, or the end.
    fn is_any_there(&self) -> bool {
        self.is_over || self.items.is_any_there() || self.cell.is_ready()
    }

    /// The next item, or `None` behind the last one, if that is known.
    fn next_if_there(&mut self) -> Option<Option<Ref>> {
        if self.is_over {
            return Some(None);
        }
        // This comes first: every item comes before the end.
        let has_ended = self.cell.is_ready();
        if let Some((item, tell)) = self.items.take() {
            if let (Some(taken), Ok(runtime)) = (tell, current::runtime_of(self.cell.session)) {
                runtime.submitter.tell_taken(self.cell.call, taken);
            }
            return Some(Some(self.settled(item)));
        }
        if !has_ended {
            return None;
        }
        if let Some(failure) = self.cell.failure() {
            return Some(self.fail(failure));
        }
        if let Err(failure) = self.items.check_length() {
            return Some(self.fail(failure));
        }
        self.is_over = true;
        Some(None)
    }

    /// The last item is a failure.
    fn fail(&mut self, failure: Failure) -> Option<Ref> {
        self.is_over = true;
        Some(self.settled(Settled::failed(failure)))
    }

    fn settled(&self, settled: Settled) -> Ref {
        Ref::to_result(ResultCell::settled(self.cell.session, settled))
    }
}

/// The reason why a wait has ended without an item.
fn without_end(runtime: &Runtime) -> Failure {
    if runtime.is_cancelled() { Failure::Cancelled } else { Failure::SessionOver }
}

impl Drop for ItemStream {
    fn drop(&mut self) {
        self.unregister();
        self.items.drop_all();
        if self.cell.is_ready() {
            return;
        }
        if let Ok(runtime) = current::runtime_of(self.cell.session) {
            let call = self.cell.call;
            runtime.submitter.cancel(&|task| task.id == call, false, true);
            runtime.submitter.wake_futures();
        }
    }
}
