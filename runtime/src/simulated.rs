//! The common part of the simulations: seeds, and random numbers.
//!
//! A schedule that fails prints the line that replays it. More of them: `MOBULA_SCHEDULES=10000`, from `MOBULA_SEED`
//! on.

use std::time::Instant;

/// Schedules of an ordinary run.
const SCHEDULES: u64 = 1000;

/// Runs the simulation in this module for each seed that is asked for.
pub(crate) fn for_each_seed(module: &'static str, run: impl Fn(u64)) {
    for_each_of(SCHEDULES, module, run);
}

/// As [`for_each_seed`], for a simulation that takes long: an ordinary run has this many schedules.
pub(crate) fn for_each_of(schedules: u64, module: &'static str, run: impl Fn(u64)) {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse().expect("a number"));
    let first = number("MOBULA_SEED");
    let count = number("MOBULA_SCHEDULES").unwrap_or(if first.is_some() { 1 } else { schedules });
    let (first, began) = (first.unwrap_or(0), Instant::now());
    for seed in first..first + count {
        let _replay = Replay { module, seed };
        run(seed);
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("{count} schedules of {module}, {:.0} a minute", count as f64 / minutes);
}

/// Prints the line that replays a failure.
struct Replay {
    module: &'static str,
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { module, seed } = self;
            eprintln!(
                "replay: MOBULA_SEED={seed} cargo test -p mobula-runtime --lib {module} -- --nocapture"
            );
        }
    }
}

/// xorshift64*.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn any<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}
