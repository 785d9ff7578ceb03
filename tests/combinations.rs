//! Options in random combinations: if this fails, two features of calls that work alone do not work together. Calls
//! have retries, time limits, children and demands, make streams, end their workers after some calls, fail, panic and
//! exit; they are cancelled, by force, by a guard or with the stream, or forgotten.
//!
//! Each call ends with its value or with one of its possible errors. It runs no more often than allowed. Calls that
//! depend on it end in the same way. At the end all resources are free, and no object is left. `MOBULA_ROUNDS` sets the
//! number of rounds, `MOBULA_SEED` the first seed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula::prelude::*;
use mobula::{CancelOnDrop, CancelOptions, Error, Failure, ObjectRefStream, TaskOptions};
use mobula_tests::planned::{Attempts, End, Treatment, pass, read_numbers};
use mobula_tests::{PATIENCE, Random, eventually, session_with};
use serde::{Deserialize, Serialize};

const ROUNDS: u64 = 12;
const CALLS: u64 = 12;
const ITEMS_MAX: u64 = 6;

/// The actions of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    attempts: Attempts,
    millis: u64,
    /// The number of items of a stream. A bad attempt ends after the first half of them.
    items: u64,
    children: Vec<Plan>,
}

impl Plan {
    fn random(random: &mut Random, number: u64, depth: u64) -> Self {
        let children = if depth < 2 && random.below(4) == 0 { 1 + random.below(2) } else { 0 };
        let child = |random: &mut Random, child| {
            let plan = Plan::random(random, 100 * number + child + 1, depth + 1);
            Plan { attempts: Attempts { bad: 0, ..plan.attempts }, ..plan }
        };
        Self {
            attempts: Attempts {
                number,
                end: End::random(random),
                bad: if random.below(2) == 0 { 0 } else { random.below(4) },
            },
            millis: random.below(20),
            items: random.below(ITEMS_MAX + 1),
            children: (0..children).map(|number| child(random, number)).collect(),
        }
    }

    fn value(&self) -> u64 {
        self.attempts.number + self.children.iter().map(Self::value).sum::<u64>()
    }
}

fn run(directory: &Path, plan: &Plan) -> Result<u64, String> {
    let is_bad = plan.attempts.begin(directory);
    let call = |child: &Plan| work::remote(directory.to_owned(), child.clone());
    let children: Vec<_> = plan.children.iter().map(call).collect();
    pass(Duration::from_millis(plan.millis));
    let sum: u64 = children.iter().filter_map(|child| child.get().ok()).sum();
    if is_bad { plan.attempts.fail() } else { Ok(plan.attempts.number + sum) }
}

#[mobula::remote]
fn work(directory: PathBuf, plan: Plan) -> Result<u64, String> {
    run(&directory, &plan)
}

#[mobula::remote(max_calls = 2)]
fn work_in_a_process_that_ends(directory: PathBuf, plan: Plan) -> Result<u64, String> {
    run(&directory, &plan)
}

#[mobula::remote(streaming, max_in_flight = 2)]
fn stream(directory: PathBuf, plan: Plan) -> impl Iterator<Item = Result<u64, String>> {
    let is_bad = plan.attempts.begin(&directory);
    (0..plan.items).map(move |item| {
        pass(Duration::from_millis(plan.millis / ITEMS_MAX));
        if is_bad && item >= plan.items / 2 { plan.attempts.fail() } else { Ok(plan.attempts.number + item) }
    })
}

#[mobula::remote]
fn successor(value: u64) -> u64 {
    value + 1
}

#[derive(Debug)]
struct Options {
    max_retries: u64,
    retry_exceptions: bool,
    has_limit: bool,
    options: TaskOptions,
}

impl Options {
    /// A stream that waits until its items are taken gives back only its CPUs. Those of this test wait until
    /// the calls before them are checked, so they must not hold what these need.
    fn random(random: &mut Random, is_stream: bool) -> Self {
        let (max_retries, retry_exceptions) = (random.below(3), random.below(2) == 0);
        let mut options = TaskOptions::new()
            .max_retries(max_retries as u32)
            .retry_exceptions(retry_exceptions)
            .retry_delay(Duration::from_millis(random.below(5)))
            .num_cpus([0.0, 0.5, 1.0, 2.0][random.below(4) as usize])
            .detached(random.below(4) == 0);
        let limit = |random: &mut Random| Duration::from_millis(random.below(60));
        let has_limit = random.below(3) == 0;
        if has_limit {
            options = match random.below(2) {
                0 => options.timeout(limit(random)),
                _ => options.deadline(limit(random)),
            };
        }
        if random.below(6) == 0 && !is_stream {
            options = options.resources([("disk", 1.0)]);
        }
        if random.below(6) == 0 {
            options = options.env_vars([("COMBINED", random.below(2).to_string())]);
        }
        Self { max_retries, retry_exceptions, has_limit, options }
    }

    /// How often the call may run.
    fn attempts_max(&self, plan: &Plan) -> u64 {
        match plan.attempts.end {
            End::Exit => 1 + self.max_retries,
            _ if self.retry_exceptions => 1 + self.max_retries,
            _ => 1,
        }
    }
}

/// One call, and what may become of it.
struct Made {
    plan: Plan,
    options: Options,
    treatment: Treatment,
    what: What,
}

enum What {
    Value(ObjectRef<u64>, ObjectRef<u64>),
    Guarded(CancelOnDrop<u64>, ObjectRef<u64>),
    Stream(ObjectRefStream<u64>),
    Nothing,
}

impl Made {
    fn new(random: &mut Random, directory: &Path, number: u64) -> Self {
        let (mut plan, kind) = (Plan::random(random, number, 0), random.below(3));
        let options = Options::random(random, kind == 0);
        let treatment = Treatment::random(random);
        let directory = directory.to_owned();
        let given = options.options.clone();
        let what = match kind {
            0 => {
                plan.children.clear();
                What::Stream(stream::options(given).remote(directory, plan.clone()))
            }
            _ => {
                let reference = match kind {
                    1 => work::options(given).remote(directory, plan.clone()),
                    _ => work_in_a_process_that_ends::options(given).remote(directory, plan.clone()),
                };
                let next = successor::remote(&reference);
                match treatment {
                    Treatment::DropGuard => What::Guarded(reference.cancel_on_drop(), next),
                    _ => What::Value(reference, next),
                }
            }
        };
        Self { plan, options, treatment, what }
    }

    /// Does to the call what the caller does at some time.
    fn treat(&mut self) {
        let force = CancelOptions::new().force(true);
        match (self.treatment, &self.what) {
            (Treatment::Cancel, What::Value(reference, _)) => reference.cancel().unwrap(),
            (Treatment::Cancel, What::Stream(stream)) => stream.cancel().unwrap(),
            (Treatment::CancelByForce, What::Value(reference, _)) => {
                mobula::cancel_with([reference], force).unwrap();
            }
            (Treatment::CancelByForce, What::Stream(stream)) => stream.cancel_with(force).unwrap(),
            (Treatment::DropGuard, What::Stream(_)) | (Treatment::Forget, _) => self.what = What::Nothing,
            (Treatment::DropGuard, What::Guarded(..)) => {
                let What::Guarded(guard, next) = std::mem::replace(&mut self.what, What::Nothing) else {
                    unreachable!("it was just looked at");
                };
                let reference = ObjectRef::clone(&guard);
                drop(guard);
                self.what = What::Value(reference, next);
            }
            _ => {}
        }
    }

    /// Whether the call may end with this error.
    fn may_fail(&self, error: &Error) -> bool {
        let attempts_max = self.options.attempts_max(&self.plan);
        let is_bad = self.plan.attempts.bad >= attempts_max;
        let is_cancelled = !matches!(self.treatment, Treatment::Wait | Treatment::Forget);
        match error {
            Error::Failed(Failure::TaskCancelled { .. }) => is_cancelled,
            Error::Failed(Failure::TaskTimedOut { .. }) => self.options.has_limit,
            Error::Failed(Failure::WorkerDied { .. }) => is_bad && self.plan.attempts.end == End::Exit,
            Error::Task(error) => is_bad && self.plan.attempts.fails_with(&error.kind),
            _ => false,
        }
    }

    fn check(&mut self, directory: &Path) {
        let told = format!("{:?}, {:?}, {:?}", self.plan, self.options, self.treatment);
        let mut what = std::mem::replace(&mut self.what, What::Nothing);
        match &mut what {
            What::Value(reference, next) => {
                match (reference.get_timeout(PATIENCE), next.get_timeout(PATIENCE)) {
                    (Ok(value), Ok(next)) => {
                        assert_eq!((value, next), (self.plan.value(), value + 1), "{told}")
                    }
                    (Err(error), Err(_)) => assert!(self.may_fail(&error), "{told}: {error:?}"),
                    outcome => panic!("{told}: {outcome:?}"),
                }
            }
            What::Stream(stream) => {
                let (taken, error) = read_numbers(stream, self.plan.attempts.number, &told);
                match error {
                    None => assert_eq!(taken, self.plan.items, "{told}"),
                    Some(error) => assert!(self.may_fail(&error), "{told}: {error:?}"),
                }
            }
            What::Guarded(..) | What::Nothing => {}
        }
        let attempts = self.plan.attempts.count(directory);
        assert!(attempts <= self.options.attempts_max(&self.plan), "{attempts} attempts: {told}");
    }
}

#[test]
fn calls_with_random_options_end_as_they_may() {
    let mut random = Random::from_environment();
    let rounds = std::env::var("MOBULA_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let builder = mobula::Builder::new().num_cpus(2).resources([("disk", 1.0)]).capacity_bytes(64 << 20);
    let session = session_with(builder.forward_output(false));
    let objects = session.session.client().list().unwrap().len();
    // Calls without a waiting caller may begin after their round.
    let directories = tempfile::tempdir().unwrap();
    for round in 0..rounds {
        let directory = directories.path().join(round.to_string());
        std::fs::create_dir(&directory).unwrap();
        let mut calls: Vec<_> =
            (1..=CALLS).map(|number| Made::new(&mut random, &directory, number)).collect();
        std::thread::sleep(Duration::from_millis(random.below(40)));
        calls.iter_mut().for_each(Made::treat);
        calls.iter_mut().for_each(|call| call.check(&directory));
        drop(calls);
        let total = mobula::cluster_resources().unwrap();
        let is_free = || mobula::available_resources().unwrap() == total;
        eventually("everything is given back", is_free);
        eventually("no object is left", || session.session.client().list().unwrap().len() <= objects);
    }
}
