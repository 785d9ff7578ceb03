//! The results that waits need: a simple result cell for [`mail`](crate::mail), and the runtime's own futures that wait
//! for results (`runtime/src/call/waiter.rs`, included unchanged).

#[path = "../../../runtime/src/call/waiter.rs"]
pub(crate) mod waiter;

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
