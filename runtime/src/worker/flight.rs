//! The items of a stream in flight: those that are sent and that the caller has not taken. There are never more than
//! the caller allows.
//!
//! The thread that runs the call sends and counts, and the thread that handles the mail notes how many items were
//! taken, in the call's [`UnderWay`]. Before an item is sent, the function waits for room, on its thread or as a
//! future. Both kinds of waits end also when the call is cancelled or its caller is gone. The module
//! [`under_way`](crate::under_way) says why neither sleeps through a change. This file knows no links and no messages.
//! `shm/tests/loom/stream.rs` explores it.

use std::cell::Cell;
use std::task::{Context, Poll};

use crate::under_way::UnderWay;

/// See the module's documentation.
pub(crate) struct Flight<'a> {
    call: &'a UnderWay,
    /// The most items in flight.
    max: u64,
    sent: Cell<u64>,
}

/// The way to the caller.
pub(crate) trait Way {
    /// Whether the caller is gone. Then there is always room, because nothing is kept for it.
    fn is_closed(&self) -> bool;

    /// Whether records wait for room in the ring.
    fn is_backlogged(&self) -> bool;
}

impl<'a> Flight<'a> {
    pub(crate) fn new(call: &'a UnderWay, max: u32) -> Self {
        // The last call of the process may have made a stream, too.
        call.set_items_sent(0);
        // A caller that allows none would wait for ever.
        Self { call, max: max.max(1).into(), sent: Cell::new(0) }
    }

    /// How many items were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Counts an item that is sent now.
    pub(crate) fn count(&self) {
        self.sent.set(self.sent.get() + 1);
        self.call.set_items_sent(self.sent.get());
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.call.is_cancelled()
    }

    fn has_room(&self) -> bool {
        self.sent.get().saturating_sub(self.call.items_taken()) < self.max
    }

    /// Whether a thread need not wait any longer: there is room for another item, in flight and in the ring; or the
    /// caller wants no more.
    pub(crate) fn may_go_on(&self, way: &impl Way) -> bool {
        way.is_closed() || self.call.is_cancelled() || self.has_room() && !way.is_backlogged()
    }

    /// For a future: becomes ready with `true` when there is room for another item, and with `false` when no more
    /// `is_wanted`. The room in the ring does not count: the records that wait for it are no more than the items in
    /// flight.
    pub(crate) fn poll_room(&self, context: &Context<'_>, is_wanted: impl FnOnce() -> bool) -> Poll<bool> {
        self.call.wake_when_changed(context.waker());
        // After the future was registered: a change that came before has woken nothing.
        if !is_wanted() {
            return Poll::Ready(false);
        }
        if self.has_room() { Poll::Ready(true) } else { Poll::Pending }
    }
}
