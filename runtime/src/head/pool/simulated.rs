//! The common part of the two simulations of the pool: seeds, random numbers, and the resources of a session.
//!
//! A schedule that fails prints the line that replays it. More of them: `MOBULA_SCHEDULES=10000`, from `MOBULA_SEED`
//! on.

use super::*;
use crate::environment::EnvironmentOptions;
use crate::resources::Amounts;

/// Schedules of an ordinary run.
const SCHEDULES: u64 = 1000;

/// Runs the simulation of this module's name for each seed that is asked for.
pub(in crate::head) fn for_each_seed(module: &'static str, run: impl Fn(u64)) {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse().expect("a number"));
    let first = number("MOBULA_SEED");
    let count = number("MOBULA_SCHEDULES").unwrap_or(if first.is_some() { 1 } else { SCHEDULES });
    let (first, began) = (first.unwrap_or(0), Instant::now());
    for seed in first..first + count {
        let _replay = Replay { module, seed };
        run(seed);
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("{count} schedules of the head's {module}, {:.0} a minute", count as f64 / minutes);
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
                "replay: MOBULA_SEED={seed} cargo test -p mobula-runtime --lib pool::{module} -- --nocapture"
            );
        }
    }
}

/// xorshift64*.
#[derive(Clone)]
pub(in crate::head) struct Random(u64);

impl Random {
    pub(in crate::head) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(in crate::head) fn any<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }

    pub(in crate::head) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// The other end of a link: drivers have small numbers, the workers those of their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End(pub(super) u64);

impl Caller for End {
    fn id(&self) -> u64 {
        self.0
    }

    fn peer(&self) -> OwnerId {
        OwnerId::new(1, self.0)
    }
}

/// The resources of a session, and the demands of its calls.
pub(super) struct Offer {
    pub(super) kept: usize,
    pub(super) total: Resources,
    /// The first is the usual demand, which fits.
    pub(super) demands: Vec<Demand>,
}

impl Offer {
    pub(super) fn random(random: &mut Random) -> Self {
        let kept = 1 + random.below(4);
        let amounts = |cpus: f64, disk: f64, gpus: f64| {
            let resources = Some(vec![("disk".to_owned(), disk)]);
            Amounts { num_cpus: Some(cpus), num_gpus: Some(gpus), resources, ..Amounts::default() }
                .resolve(1.0)
                .expect("they can be")
        };
        if random.below(2) == 0 {
            return Self { kept, total: amounts(kept as f64, 0.0, 0.0), demands: vec![Demand::default()] };
        }
        let (cpus, disks, gpus) = (1 + random.below(4), random.below(3), random.below(4));
        let mut demands = vec![Demand::default(), Demand::of(amounts(0.25, 0.0, 0.0))];
        for _ in 0..1 + random.below(3) {
            let cpus = [0.0, 0.25, 0.5, 1.0 + random.below(cpus) as f64][random.below(4)];
            let disk = random.below(2 * disks + 1) as f64 / 2.0;
            let environment = [None, None, Some("A"), Some("B")][random.below(4)].map(environment);
            let gpu = match random.below(2) {
                _ if gpus == 0 => 0.0,
                0 => [0.25, 0.5, 0.75, 0.0][random.below(4)],
                _ => random.below(gpus + 1) as f64,
            };
            let demand = Demand::within(environment.unwrap_or_default(), amounts(cpus, disk, gpu));
            if !demands.contains(&demand) {
                demands.push(demand);
            }
        }
        Self { kept, total: amounts(cpus as f64, disks as f64, gpus as f64), demands }
    }
}

/// An environment with a variable of this name.
fn environment(name: &str) -> Environment {
    let env_vars = Some(EnvironmentOptions::variables([(name, "1")]));
    Environment::USUAL.with(&EnvironmentOptions { env_vars, ..Default::default() }).expect("it can be")
}
