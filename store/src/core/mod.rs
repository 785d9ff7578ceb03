//! The decisions of the store, apart from all input and output.
//!
//! Nothing here has a descriptor, a clock or a thread. Events come in as calls, and time as a parameter. Decisions go
//! out as return values, and the [daemon](crate::daemon) carries them out.
//!
//! * [`slots`]: the slot of each client, the owners that each client is attached to, and the time when a slot may be
//!   used again;
//! * [`segments`]: the leased, orphaned and retired segments, and the bytes that they leave free;
//! * [`waiters`]: requests that are answered later, in order, and no later than their deadline;
//! * [`fair`]: the choice of the request that has a reservation, so that no request starves;
//! * [`names`]: names, and how long ago each was looked up;
//! * [`holds`]: how many reasons the daemon has to pin an object;
//! * [`cycles`]: references through which an object keeps itself alive;
//! * [`channels`]: the pairs of connected clients;
//! * [`bookkeeping`]: the memory of tables, pins and channels together.
//!
//! A client is identified here by its slot. The slot stays the client's until every other client has forgotten the
//! client.

pub(crate) mod bookkeeping;
pub(crate) mod channels;
pub(crate) mod cycles;
pub(crate) mod fair;
pub(crate) mod holds;
pub(crate) mod names;
pub(crate) mod segments;
pub(crate) mod slots;
pub(crate) mod waiters;

#[cfg(test)]
pub(crate) mod random {
    //! Numbers for tests that print their seed: xorshift64*, which is enough to shuffle operations.

    /// A generator that gives the same numbers for the same seed.
    pub(crate) struct Random(u64);

    impl Random {
        pub(crate) fn new(seed: u64) -> Self {
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
        }

        /// A number below `bound`.
        pub(crate) fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
        }
    }
}
