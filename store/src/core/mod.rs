//! The decisions of the store, apart from all input and output.
//!
//! Nothing here has a descriptor, a clock or a thread: what happens comes in as calls, time as a parameter, and what
//! is to be done goes out as return values. The [daemon](crate::daemon) carries it out.
//!
//! * [`slots`]: which client has which slot, who is attached to whom, and when a slot may be used again;
//! * [`segments`]: what is leased, adopted and retired, and what that leaves free;
//! * [`waiters`]: requests that are answered later, in order, at the latest at their deadline;
//! * [`turns`]: whom of them nobody may pass for a while;
//! * [`names`]: names, and how long ago each was asked for;
//! * [`holds`]: how often the daemon itself wants an object kept;
//! * [`knots`]: references that lead back to where they come from;
//! * [`channels`]: who is connected with whom.
//!
//! Clients are known here by their slot, which is theirs alone until everybody has forgotten them.

pub(crate) mod channels;
pub(crate) mod holds;
pub(crate) mod knots;
pub(crate) mod names;
pub(crate) mod segments;
pub(crate) mod slots;
pub(crate) mod turns;
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
