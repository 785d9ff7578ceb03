//! Options of actors and of their calls in random combinations: if this fails, two features that work alone do not
//! work together. Actors run one call at a time, several on threads, or futures. They have restarts, retries of calls,
//! limits of pending calls, demands, and placement groups. Their calls have time limits, retries of their own, several
//! results, streams and children, fail, panic and exit; they are cancelled, by a guard or with the stream, or
//! forgotten. The processes of actors are killed, and the actors too, and their groups are removed.
//!
//! Each call ends with its value or with one of its possible errors. It runs no more often than allowed, and in its
//! turn, unless an error makes it run again. Calls that depend on it end in the same way. At the end all resources are
//! free, and no object is left.
//! `MOBULA_ROUNDS` sets the number of rounds, each with a seed of its own, `MOBULA_SEED` the first seed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula::prelude::*;
use mobula::{
    ActorOptions, Bundle, CancelOnDrop, CancelOptions, Error, Failure, MethodOptions, ObjectRefStream,
    PlacementGroup, UNLIMITED,
};
use mobula_tests::planned::{Attempts, End, Treatment, pass, read_numbers};
use mobula_tests::{PATIENCE, Random, eventually, session_with};
use serde::{Deserialize, Serialize};

const ROUNDS: u64 = 8;
const ACTORS: u64 = 2;
const CALLS: u64 = 8;
const ITEMS_MAX: u64 = 6;

/// The actions of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    attempts: Attempts,
    millis: u64,
    /// The number of items of a stream. A bad attempt ends after the first half of them.
    items: u64,
    has_child: bool,
    /// It runs again after its errors, behind later calls.
    retries_errors: bool,
}

impl Plan {
    fn random(random: &mut Random, number: u64) -> Self {
        Self {
            attempts: Attempts {
                number,
                end: End::random(random),
                bad: if random.below(3) > 0 { 0 } else { random.below(4) },
            },
            millis: random.below(15),
            items: random.below(ITEMS_MAX + 1),
            has_child: random.below(4) == 0,
            retries_errors: false,
        }
    }

    /// The number of attempts that end with an error.
    fn errors(&self) -> u64 {
        if self.attempts.end == End::Exit { 0 } else { self.attempts.bad }
    }

    fn value(&self) -> u64 {
        10 * self.attempts.number
    }

    fn child(&self) -> Option<ObjectRef<u64>> {
        self.has_child.then(|| double::remote(self.attempts.number))
    }

    /// The value of an attempt, or its end.
    fn end(&self, is_bad: bool, child: Option<mobula::Result<u64>>) -> Result<u64, String> {
        if is_bad {
            return self.attempts.fail();
        }
        match child {
            // That of a call that was cancelled, whose value nobody gets.
            Some(Err(_)) => Ok(0),
            Some(Ok(child)) => Ok(self.value() - 2 * self.attempts.number + child),
            None => Ok(self.value()),
        }
    }

    fn run(&self, directory: &Path) -> Result<u64, String> {
        let (is_bad, child) = (self.attempts.begin(directory), self.child());
        pass(Duration::from_millis(self.millis));
        self.end(is_bad, child.map(|child| child.get()))
    }

    async fn run_async(&self, directory: &Path) -> Result<u64, String> {
        let (is_bad, child) = (self.attempts.begin(directory), self.child());
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(self.millis)) => {}
            () = mobula::cancelled() => {}
        }
        let child = match child {
            Some(child) => Some(child.get_async().await),
            None => None,
        };
        self.end(is_bad, child)
    }

    fn stream(self, directory: &Path) -> impl Iterator<Item = Result<u64, String>> + use<> {
        let is_bad = self.attempts.begin(directory);
        // A bad attempt ends also if it has no items.
        let count = self.items.max(is_bad.into());
        (0..count).map(move |item| {
            pass(Duration::from_millis(self.millis / ITEMS_MAX));
            if is_bad && item >= self.items / 2 { self.attempts.fail() } else { Ok(self.value() + item) }
        })
    }
}

fn pair_of(value: Result<u64, String>) -> Result<(u64, u64), String> {
    value.map(|value| (value, value + 1))
}

#[mobula::remote(num_cpus = 0.1)]
fn double(number: u64) -> u64 {
    2 * number
}

#[mobula::remote(num_cpus = 0.1)]
fn successor(value: u64) -> u64 {
    value + 1
}

/// Runs one call at a time.
struct Single {
    /// The number of the last call of this process.
    last: u64,
}

impl Single {
    /// The calls of one caller begin in their order, whatever becomes of the others. A call that is retried because of
    /// a death was sent before those that follow.
    fn in_turn(&mut self, directory: &Path, plan: &Plan) {
        let number = plan.attempts.number;
        if plan.retries_errors && plan.attempts.count(directory) > 0 {
            return;
        }
        if number <= self.last {
            // No call is supposed to end like this.
            eprintln!("call {number} came after {}", self.last);
            std::process::abort();
        }
        self.last = number;
    }
}

#[mobula::remote]
impl Single {
    fn new() -> Self {
        Self { last: 0 }
    }

    fn value(&mut self, directory: PathBuf, plan: Plan) -> Result<u64, String> {
        self.in_turn(&directory, &plan);
        plan.run(&directory)
    }

    #[remote(num_returns = 2)]
    fn pair(&mut self, directory: PathBuf, plan: Plan) -> Result<(u64, u64), String> {
        self.in_turn(&directory, &plan);
        pair_of(plan.run(&directory))
    }

    #[remote(streaming, max_in_flight = 2)]
    fn stream(&mut self, directory: PathBuf, plan: Plan) -> impl Iterator<Item = Result<u64, String>> {
        self.in_turn(&directory, &plan);
        plan.stream(&directory)
    }
}

/// Runs calls on threads.
struct Threads;

#[mobula::remote(max_concurrency = 2)]
impl Threads {
    fn new() -> Self {
        Self
    }

    fn value(&self, directory: PathBuf, plan: Plan) -> Result<u64, String> {
        plan.run(&directory)
    }

    /// Alone.
    #[remote(num_returns = 2)]
    fn pair(&mut self, directory: PathBuf, plan: Plan) -> Result<(u64, u64), String> {
        pair_of(plan.run(&directory))
    }

    #[remote(streaming, max_in_flight = 2)]
    fn stream(&self, directory: PathBuf, plan: Plan) -> impl Iterator<Item = Result<u64, String>> {
        plan.stream(&directory)
    }
}

/// Runs calls as futures, except for streams.
struct Futures;

#[mobula::remote]
impl Futures {
    fn new() -> Self {
        Self
    }

    async fn value(&self, directory: PathBuf, plan: Plan) -> Result<u64, String> {
        plan.run_async(&directory).await
    }

    #[remote(num_returns = 2)]
    async fn pair(&self, directory: PathBuf, plan: Plan) -> Result<(u64, u64), String> {
        pair_of(plan.run_async(&directory).await)
    }

    #[remote(streaming, max_in_flight = 2)]
    fn stream(&self, directory: PathBuf, plan: Plan) -> impl Iterator<Item = Result<u64, String>> {
        plan.stream(&directory)
    }
}

enum Handle {
    Single(ActorHandle<Single>),
    Threads(ActorHandle<Threads>),
    Futures(ActorHandle<Futures>),
}

/// Does the same with the handle of any class.
macro_rules! with {
    ($handle:expr, |$any:ident| $what:expr) => {
        match $handle {
            Handle::Single($any) => $what,
            Handle::Threads($any) => $what,
            Handle::Futures($any) => $what,
        }
    };
}

/// The end of an actor while its calls are under way, if it has one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Live,
    ProcessKilled(u64),
    Killed,
    GroupRemoved,
}

/// An actor, its options, and its calls.
struct Made {
    handle: Handle,
    told: String,
    max_restarts: u64,
    max_task_retries: u64,
    has_pending_limit: bool,
    fate: Fate,
    group: Option<PlacementGroup>,
    calls: Vec<Call>,
}

struct Call {
    plan: Plan,
    /// In place of the actor's.
    max_task_retries: Option<u64>,
    has_limit: bool,
    options: MethodOptions,
    treatment: Treatment,
    what: What,
}

enum What {
    Value(ObjectRef<u64>, ObjectRef<u64>),
    Guarded(CancelOnDrop<u64>, ObjectRef<u64>),
    Pair(ObjectRef<u64>, ObjectRef<u64>),
    Stream(ObjectRefStream<u64>),
    Nothing,
}

/// The name of an error.
fn word(error: &Error) -> String {
    let told = match error {
        Error::Failed(failure) => format!("{failure:?}"),
        Error::Task(error) => format!("{:?}", error.kind),
        error => format!("{error:?}"),
    };
    told.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn few_or_unlimited(random: &mut Random) -> u64 {
    match random.below(4) {
        3 => UNLIMITED.into(),
        few => few,
    }
}

impl Made {
    fn new(random: &mut Random, directory: &Path, actor: u64) -> Self {
        let (max_restarts, max_task_retries) = (few_or_unlimited(random), few_or_unlimited(random));
        let mut options = ActorOptions::new()
            .max_restarts(max_restarts as u32)
            .max_task_retries(max_task_retries as u32)
            .num_cpus([0.0, 0.5, 1.0][random.below(3) as usize]);
        let has_pending_limit = random.below(6) == 0;
        if has_pending_limit {
            options = options.max_pending_calls(1 + random.below(CALLS) as u32);
        }
        if random.below(5) == 0 {
            options = options.env_vars([("COMBINED", random.below(2).to_string())]);
        }
        let fate = match random.below(8) {
            0..=3 => Fate::Live,
            4 | 5 => Fate::ProcessKilled(1 + random.below(2)),
            6 => Fate::Killed,
            _ => Fate::GroupRemoved,
        };
        // Other actors may have all of them until they end.
        let mut group = None;
        if fate == Fate::GroupRemoved || random.below(4) == 0 {
            let bundle = Bundle::new().num_cpus(1).resources([("disk", 1.0)]);
            let made = PlacementGroup::new([bundle]);
            let made = made.expect("the session has such a bundle");
            options = options.placement(made.bundle(0).expect("it has one"));
            group = Some(made);
        } else if random.below(4) == 0 {
            options = options.num_gpus([0.5, 1.0][random.below(2) as usize]);
        }
        if random.below(4) == 0 {
            options = options.resources([("disk", 1.0)]);
        }
        let class = random.below(3);
        let told = format!("class {class}, {fate:?}, {options:?}");
        let handle = match class {
            0 => Handle::Single(Single::options(options).remote()),
            1 => {
                let concurrency = 1 + random.below(3) as u32;
                Handle::Threads(Threads::options(options.max_concurrency(concurrency)).remote())
            }
            _ if random.below(2) == 0 => {
                Handle::Futures(Futures::options(options.max_concurrency(2)).remote())
            }
            _ => Handle::Futures(Futures::options(options).remote()),
        };
        let calls = (1..=CALLS).map(|number| Call::new(random, directory, &handle, 100 * actor + number));
        let calls = calls.collect();
        Self { told, max_restarts, max_task_retries, has_pending_limit, fate, group, calls, handle }
    }

    /// Does to the actor what happens to it.
    fn meet_fate(&self) {
        match self.fate {
            Fate::Live => {}
            Fate::ProcessKilled(times) => {
                for _ in 0..times {
                    with!(&self.handle, |handle| mobula::kill_process(handle)).unwrap();
                }
            }
            Fate::Killed => with!(&self.handle, |handle| mobula::kill(handle)).unwrap(),
            Fate::GroupRemoved => self.group.as_ref().expect("it has one").remove().unwrap(),
        }
    }

    /// The most processes of the actor that die.
    fn deaths_max(&self) -> u64 {
        let killed = match self.fate {
            Fate::ProcessKilled(times) => times,
            _ => 0,
        };
        let exits = |call: &Call| match call.plan.attempts.end {
            End::Exit => call.plan.attempts.bad.min(1 + self.retries_max(call)),
            _ => 0,
        };
        killed + self.calls.iter().map(exits).sum::<u64>()
    }

    /// How often a call may be retried.
    fn retries_max(&self, call: &Call) -> u64 {
        call.max_task_retries.unwrap_or(self.max_task_retries)
    }

    fn is_ended(&self) -> bool {
        matches!(self.fate, Fate::Killed | Fate::GroupRemoved)
    }

    /// Whether a call may end with this error.
    fn may_fail(&self, call: &Call, error: &Error) -> bool {
        let (deaths_max, retries_max) = (self.deaths_max(), self.retries_max(call));
        let errors = if call.plan.retries_errors { call.plan.errors() } else { 0 };
        let is_cancelled = matches!(call.treatment, Treatment::Cancel | Treatment::DropGuard);
        match error {
            Error::Failed(Failure::TaskCancelled { .. }) => is_cancelled,
            Error::Failed(Failure::TaskTimedOut { .. }) => call.has_limit,
            Error::Failed(Failure::PendingCallsLimitExceeded { .. }) => self.has_pending_limit,
            Error::Failed(Failure::PlacementGroupRemoved) => self.fate == Fate::GroupRemoved,
            Error::Failed(Failure::ActorUnavailable { .. }) => deaths_max + errors > retries_max,
            Error::Failed(Failure::ActorDied { .. }) => self.is_ended() || deaths_max > self.max_restarts,
            Error::Task(error) => {
                let is_last = !call.plan.retries_errors || deaths_max + errors > retries_max;
                call.plan.attempts.bad > 0 && call.plan.attempts.fails_with(&error.kind) && is_last
            }
            _ => false,
        }
    }

    /// Whether a call may end with its value.
    fn may_succeed(&self, call: &Call) -> bool {
        // Another attempt follows only where a process dies, or where errors are retried.
        let bad = call.plan.attempts.bad;
        let again = self.deaths_max() + if call.plan.retries_errors { call.plan.errors() } else { 0 };
        bad == 0 || bad <= again.min(self.retries_max(call))
    }

    /// Checks the ends of the calls, and returns a word for each.
    ///
    /// At the same time: a call that is retried may run behind a later stream, which waits until its items are taken.
    fn check(&mut self, directory: &Path) -> Vec<String> {
        let take = |call: &mut Call| std::mem::replace(&mut call.what, What::Nothing);
        let whats: Vec<_> = self.calls.iter_mut().map(take).collect();
        let actor = &*self;
        std::thread::scope(|scope| {
            let check = |(call, what)| scope.spawn(move || actor.check_call(directory, call, what));
            let checks: Vec<_> = self.calls.iter().zip(whats).map(check).collect();
            checks.into_iter().flat_map(|check| check.join().expect("its message is above")).collect()
        })
    }

    fn check_call(&self, directory: &Path, call: &Call, what: What) -> Vec<String> {
        let told = format!("{:?}, {:?}, {:?}, {}", call.plan, call.treatment, call.options, self.told);
        let mut ends =
            vec![self.check_end(call, what, &told).map_or_else(|error| word(&error), str::to_owned)];
        let attempts = call.plan.attempts.count(directory);
        assert!(attempts <= 1 + self.retries_max(call), "{attempts} attempts: {told}");
        let is_by_errors = call.plan.retries_errors && call.plan.errors() > 0;
        let retried = if is_by_errors { "retried because of errors" } else { "retried" };
        ends.extend((attempts > 1).then(|| retried.to_owned()));
        ends
    }

    fn check_end(&self, call: &Call, what: What, told: &str) -> Result<&'static str, Error> {
        let plan = &call.plan;
        match what {
            What::Value(first, second) | What::Pair(first, second) => {
                match (first.get_timeout(PATIENCE), second.get_timeout(PATIENCE)) {
                    (Ok(first), Ok(second)) => {
                        assert_eq!((first, second), (plan.value(), plan.value() + 1), "{told}");
                        assert!(self.may_succeed(call), "{told}");
                        Ok("value")
                    }
                    (Err(error), Err(_)) => {
                        assert!(self.may_fail(call, &error), "{told}: {error:?}");
                        Err(error)
                    }
                    outcome => panic!("{told}: {outcome:?}"),
                }
            }
            What::Stream(mut stream) => {
                let (taken, error) = read_numbers(&mut stream, plan.value(), told);
                match error {
                    None => {
                        assert_eq!(taken, plan.items, "{told}");
                        assert!(self.may_succeed(call), "{told}");
                        Ok("stream")
                    }
                    Some(error) => {
                        assert!(self.may_fail(call, &error), "{told}: {error:?}");
                        Err(error)
                    }
                }
            }
            What::Guarded(..) | What::Nothing => Ok("forgotten"),
        }
    }
}

impl Call {
    fn new(random: &mut Random, directory: &Path, handle: &Handle, number: u64) -> Self {
        let mut plan = Plan::random(random, number);
        let treatment = Treatment::random(random);
        let limit = |random: &mut Random| Duration::from_millis(random.below(120));
        let (has_limit, mut options) = (random.below(3) == 0, MethodOptions::new());
        if has_limit {
            options = match random.below(3) {
                0 => options.timeout(limit(random)),
                1 => options.deadline(limit(random)),
                _ => options.timeout(limit(random)).deadline(limit(random)),
            };
        }
        let max_task_retries = (random.below(2) == 0).then(|| few_or_unlimited(random));
        if let Some(retries) = max_task_retries {
            options = options.max_task_retries(retries as u32);
        }
        let (retry_exceptions, retry_if) = (random.below(4), random.below(4));
        if retry_exceptions < 2 {
            options = options.retry_exceptions(retry_exceptions == 0);
        }
        options = match retry_if {
            0 => options.retry_if(|_| true),
            1 => options.retry_if(|_| false),
            _ => options,
        };
        plan.retries_errors = match retry_exceptions {
            0 => retry_if != 1,
            1 => false,
            _ => retry_if == 0,
        };
        if random.below(3) == 0 {
            options = options.retry_delay(Duration::from_millis(random.below(10)));
        }
        let (directory, given) = (directory.to_owned(), options.clone());
        let kind = random.below(3);
        plan.has_child &= kind != 0;
        let made = plan.clone();
        let what = match kind {
            0 => What::Stream(with!(handle, |handle| handle.options(options).stream(directory, made))),
            1 => {
                let (first, second) = with!(handle, |handle| handle.options(options).pair(directory, made));
                What::Pair(first, second)
            }
            _ => {
                let value = with!(handle, |handle| handle.options(options).value(directory, made));
                let next = successor::remote(&value);
                match treatment {
                    Treatment::DropGuard => What::Guarded(value.cancel_on_drop(), next),
                    _ => What::Value(value, next),
                }
            }
        };
        Self { plan, max_task_retries, has_limit, options: given, treatment, what }
    }

    /// Does to the call what the caller does at some time.
    fn treat(&mut self) {
        match (self.treatment, &self.what) {
            (Treatment::Cancel, What::Value(reference, _) | What::Pair(_, reference)) => {
                reference.cancel().unwrap();
            }
            (Treatment::Cancel, What::Stream(stream)) => stream.cancel().unwrap(),
            // Refused, unless it is over.
            (Treatment::CancelByForce, What::Value(reference, _) | What::Pair(reference, _)) => {
                let refused = mobula::cancel_with([reference], CancelOptions::new().force(true));
                assert!(matches!(refused, Ok(()) | Err(Error::Config { .. })), "{refused:?}");
            }
            (Treatment::DropGuard, What::Pair(first, second)) => {
                drop(first.clone().cancel_on_drop());
                self.what = What::Pair(first.clone(), second.clone());
            }
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
}

#[test]
fn calls_of_random_actors_end_as_they_may() {
    let mut random = Random::from_environment();
    let rounds = std::env::var("MOBULA_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let builder = mobula::Builder::new().num_cpus(3).num_gpus(1).resources([("disk", 1.0)]);
    let session = session_with(builder.capacity_bytes(64 << 20).forward_output(false));
    let objects = session.session.client().list().unwrap().len();
    // Calls without a waiting caller may begin after their round.
    let mut ends = BTreeMap::new();
    let directories = tempfile::tempdir().unwrap();
    for round in 0..rounds {
        if round > 0 {
            let seed = 1 + random.below(u64::MAX / 2);
            println!("the same as round {round}: MOBULA_SEED={seed} MOBULA_ROUNDS=1");
            random = Random::from_seed(seed);
        }
        let directory = directories.path().join(round.to_string());
        std::fs::create_dir(&directory).unwrap();
        let mut actors: Vec<_> =
            (0..ACTORS).map(|number| Made::new(&mut random, &directory, number)).collect();
        std::thread::sleep(Duration::from_millis(random.below(60)));
        let is_treated_first = random.below(2) == 0;
        for actor in &mut actors {
            if is_treated_first {
                actor.calls.iter_mut().for_each(Call::treat);
            }
            actor.meet_fate();
            if !is_treated_first {
                actor.calls.iter_mut().for_each(Call::treat);
            }
        }
        // Beside each other: one may wait for what the other has until it ends.
        let each = |mut actor: Made| {
            let ends = actor.check(&directory);
            if let Some(group) = &actor.group {
                group.remove().unwrap();
            }
            ends
        };
        std::thread::scope(|scope| {
            let checks: Vec<_> = actors.into_iter().map(|actor| scope.spawn(|| each(actor))).collect();
            for end in checks.into_iter().flat_map(|check| check.join().expect("its message is above")) {
                *ends.entry(end).or_insert(0u64) += 1;
            }
        });
        let total = mobula::cluster_resources().unwrap();
        let is_free = || mobula::available_resources().unwrap() == total;
        eventually("everything is given back", is_free);
        eventually("no object is left", || session.session.client().list().unwrap().len() <= objects);
    }
    println!("{ends:?}");
}
