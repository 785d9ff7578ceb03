//! The results that waits need: a simple result cell for [`mail`](crate::mail), and the runtime's own futures that wait
//! for results (`runtime/src/call/waiter.rs`, included unchanged). For [`stream`](crate::stream), the items that a
//! caller has not taken (`runtime/src/call/items.rs`, included unchanged), without values.

#[path = "../../../runtime/src/call/items.rs"]
#[expect(dead_code, reason = "the end of a stream, and streams without a limit, are no part of a model")]
pub(crate) mod items;
#[path = "../../../runtime/src/call/waiter.rs"]
pub(crate) mod waiter;

pub(crate) mod options {
    pub(crate) const UNLIMITED: u32 = u32::MAX;
}

pub(crate) mod outcome {
    #[derive(Debug)]
    pub(crate) struct Settled;
}

pub(crate) mod result_cell {
    use crate::sync::{AtomicBool, Ordering};

    /// Like the runtime's result cell, without a value.
    #[derive(Debug, Default)]
    pub(crate) struct ResultCell(AtomicBool);

    impl ResultCell {
        pub(crate) fn is_ready(&self) -> bool {
            self.0.load(Ordering::Acquire)
        }

        pub(crate) fn settle(&self) {
            self.0.store(true, Ordering::Release);
        }
    }
}
