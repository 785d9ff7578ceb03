//! The common part of the simulations with a pool: the ends of links, and the resources of a session.

use super::*;
use crate::environment::EnvironmentOptions;
use crate::resources::Amounts;
use crate::simulated::Random;

/// The other end of a link: drivers have small numbers, the workers those of their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::head) struct End(pub(in crate::head) u64);

impl Caller for End {
    fn id(&self) -> u64 {
        self.0
    }

    fn peer(&self) -> OwnerId {
        OwnerId::new(1, self.0)
    }
}

/// The resources of a session, and the demands of its calls.
pub(in crate::head) struct Offer {
    pub(in crate::head) kept: usize,
    pub(in crate::head) total: Resources,
    /// The first is the usual demand, which fits.
    pub(in crate::head) demands: Vec<Demand>,
}

impl Offer {
    pub(in crate::head) fn random(random: &mut Random) -> Self {
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
