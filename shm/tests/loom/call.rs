//! What a wait has to do with: results, as far as [`mail`](crate::mail) asks for them, and the futures that wait for
//! them, which are the runtime's (`runtime/src/call/waiter.rs`, included as it is).

#[path = "../../../runtime/src/call/waiter.rs"]
pub(crate) mod waiter;

pub(crate) mod result_cell {
    use crate::sync::{AtomicBool, Ordering};

    /// As the runtime's, without a value.
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
