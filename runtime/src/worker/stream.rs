//! The items of a stream on their way to the caller.
//!
//! The process sends an item as soon as the function has made it. When as many items are in flight as the caller
//! allows, the function waits. Meanwhile its CPUs are free for other calls: the caller may need these calls before it
//! can take the next item.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::call::payload::Payloads;
use crate::executor::Executor;
use crate::host::invocation::ItemSink;
use crate::mail::link::Link;
use crate::mail::waiters::Mail;
use crate::runtime::{Behind, Runtime};
use crate::under_way::UnderWay;
use crate::wire::Item;

/// See the module's documentation.
pub(super) struct Items<'a> {
    runtime: &'a Runtime,
    executor: &'a Executor,
    to: &'a Link,
    task: u64,
    /// The most items that are sent and not taken.
    in_flight_max: u64,
    sent: Cell<u64>,
    /// This call, in an actor that may have several calls under way.
    under_way: Option<Arc<UnderWay>>,
}

impl<'a> Items<'a> {
    pub(super) fn new(
        runtime: &'a Runtime,
        executor: &'a Executor,
        to: &'a Link,
        task: u64,
        in_flight_max: u32,
        under_way: Option<Arc<UnderWay>>,
    ) -> Self {
        executor.begin_stream();
        // A caller that allows none would wait for ever.
        let in_flight_max = in_flight_max.max(1).into();
        Self { runtime, executor, to, task, in_flight_max, sent: Cell::new(0), under_way }
    }

    fn is_cancelled(&self) -> bool {
        match &self.under_way {
            Some(call) => call.is_cancelled(),
            None => self.runtime.is_cancelled(),
        }
    }

    fn taken(&self) -> u64 {
        match &self.under_way {
            Some(call) => call.items_taken(),
            None => self.executor.items_taken(),
        }
    }

    /// How many items were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether there is room for another item: in flight, and in the ring. There is always room if the caller is gone,
    /// because nothing is kept for it.
    fn has_room(&self) -> bool {
        self.to.is_closed() || self.is_within_flight() && !self.to.is_backlogged()
    }

    fn is_within_flight(&self) -> bool {
        self.sent.get().saturating_sub(self.taken()) < self.in_flight_max
    }
}

impl ItemSink for Items<'_> {
    fn push(&self, mut item: Payloads) {
        let held = item.take_held();
        let position = self.sent.get();
        let sent = self.to.send_with(held, |record| {
            Item { task: self.task, position }.append_to(record);
            record.extend_from_slice(item.bytes());
        });
        debug_assert!(sent.is_ok(), "a payload fits a record");
        self.sent.set(position + 1);
    }

    /// The room in the ring does not count: the records that wait for it are no more than the items in flight.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<bool> {
        if let Some(call) = &self.under_way {
            call.wake_when_changed(context.waker());
        }
        if !self.is_wanted() {
            return Poll::Ready(false);
        }
        if self.is_within_flight() { Poll::Ready(true) } else { Poll::Pending }
    }

    fn send(&self, item: Payloads) -> bool {
        self.push(item);
        if !self.has_room() {
            let may_go_on = || (self.has_room() || self.is_cancelled()).then_some(());
            self.runtime.wait(None, || Behind::Unknown, may_go_on);
        }
        self.is_wanted()
    }

    fn is_wanted(&self) -> bool {
        // A function that never waits learns here that it was cancelled.
        if self.to.has_mail() {
            self.runtime.look();
        }
        !self.is_cancelled() && !self.runtime.is_over() && !self.to.is_closed()
    }
}
