//! The items of a stream on their way to the caller.
//!
//! The process sends an item as soon as the function has made it. When as many items are in flight as the caller
//! allows, the function waits. Meanwhile its CPUs are free for other calls: the caller may need these calls before it
//! can take the next item.

use std::task::{Context, Poll};

use crate::call::payload::Payloads;
use crate::host::invocation::ItemSink;
use crate::mail::link::Link;
use crate::mail::waiters::Mail;
use crate::runtime::{Behind, Runtime};
use crate::under_way::UnderWay;
use crate::wire::Item;
use crate::worker::flight::{Flight, Way};

/// See the module's documentation.
pub(super) struct Items<'a> {
    runtime: &'a Runtime,
    to: &'a Link,
    task: u64,
    flight: Flight<'a>,
}

impl<'a> Items<'a> {
    pub(super) fn new(
        runtime: &'a Runtime,
        to: &'a Link,
        task: u64,
        in_flight_max: u32,
        call: &'a UnderWay,
    ) -> Self {
        Self { runtime, to, task, flight: Flight::new(call, in_flight_max) }
    }

    /// How many items were sent.
    pub(super) fn sent(&self) -> u64 {
        self.flight.sent()
    }
}

impl ItemSink for Items<'_> {
    fn push(&self, mut item: Payloads) {
        let held = item.take_held();
        let position = self.flight.sent();
        let sent = self.to.send_with(held, |record| {
            Item { task: self.task, position }.append_to(record);
            record.extend_from_slice(item.bytes());
        });
        debug_assert!(sent.is_ok(), "a payload fits a record");
        self.flight.count();
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<bool> {
        self.flight.poll_room(context, || self.is_wanted())
    }

    fn send(&self, item: Payloads) -> bool {
        self.push(item);
        let may_go_on = || self.flight.may_go_on(self.to).then_some(());
        if may_go_on().is_none() {
            self.runtime.wait(None, || Behind::Reader(self.to.peer), may_go_on);
        }
        self.is_wanted()
    }

    fn is_wanted(&self) -> bool {
        // A function that never waits learns here that it was cancelled.
        if self.to.has_mail() {
            self.runtime.look();
        }
        !self.flight.is_cancelled() && !self.runtime.is_over() && !self.to.is_closed()
    }
}

impl Way for Link {
    fn is_closed(&self) -> bool {
        self.is_closed()
    }

    fn is_backlogged(&self) -> bool {
        self.is_backlogged()
    }
}
