//! The decisions of the store, apart from all input and output.
//!
//! Nothing here has a descriptor, a clock or a thread: events come in as calls, time as a parameter, and what is to be
//! done goes out as return values. The [daemon](crate::daemon) carries it out.
//!
//! * [`slots`]: which client has which slot, who is attached to whom, and when a slot may be used again;
//! * [`segments`]: which segments are leased, orphaned or retired, and how many bytes that leaves free;
//! * [`waiters`]: requests that are answered later, in order, at the latest at their deadline;
//! * [`fair`]: which of them has a reservation, so that none starves;
//! * [`names`]: names, and how long ago each was looked up;
//! * [`holds`]: how many reasons the daemon has to pin an object;
//! * [`cycles`]: references that lead back to their object;
//! * [`channels`]: which clients are connected.
//!
//! A client is known here by its slot, which is its own until every other client has forgotten it.

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
