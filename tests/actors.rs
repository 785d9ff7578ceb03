//! Actors: if these fail, state is lost or mixed up, calls run out of order, or processes stay behind.

use std::io::Write;
use std::path::{Path, PathBuf};

use mobula::prelude::*;
use mobula::{ActorEnd, ActorOptions, Error, ExitReason, Failure};
use mobula_tests::{PATIENCE, eventually, is_running, session};

struct Counter {
    value: i64,
}

#[mobula::remote]
impl Counter {
    fn new(start: i64) -> Self {
        Self { value: start }
    }

    fn add(&mut self, by: i64) -> i64 {
        self.value += by;
        self.value
    }

    fn value(&self) -> i64 {
        self.value
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn fail(&mut self) -> Result<i64, String> {
        Err(format!("value is {}", self.value))
    }

    fn padded(&self, bytes: usize) -> Vec<u8> {
        vec![7; bytes]
    }

    fn touch(&self, path: String) {
        std::fs::write(path, "").unwrap();
    }

    fn crash(&mut self) {
        std::process::abort();
    }

    #[remote(num_returns = 2)]
    fn both(&self) -> (i64, String) {
        (self.value, self.value.to_string())
    }
}

/// Cannot be encoded.
#[derive(Clone, serde::Deserialize)]
struct Stubborn;

impl serde::Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it stays here"))
    }
}

struct Rooted;

#[mobula::remote]
impl Rooted {
    fn new(_stubborn: Stubborn) -> Self {
        Rooted
    }

    fn one(&self) -> u8 {
        1
    }
}

#[test]
fn a_constructor_argument_that_cannot_be_encoded_is_the_error_of_each_call() {
    let _session = session(1);
    let rooted = Rooted::remote(Stubborn);
    for _ in 0..2 {
        let error = rooted.one().get().unwrap_err().to_string();
        assert!(error.contains("it stays here"), "{error}");
    }
}

struct Picky;

#[mobula::remote]
impl Picky {
    fn new(ok: bool) -> Result<Self, String> {
        if ok { Ok(Self) } else { Err("not like this".to_owned()) }
    }

    fn ping(&self) -> bool {
        true
    }
}

/// Holds a handle to another actor.
struct Keeper {
    counter: ActorHandle<Counter>,
}

#[mobula::remote]
impl Keeper {
    fn new(counter: ActorHandle<Counter>) -> Self {
        Self { counter }
    }

    fn add(&self, by: i64) -> mobula::Result<i64> {
        self.counter.add(by).get()
    }
}

#[mobula::remote]
fn add_through(counter: ActorHandle<Counter>, by: i64) -> mobula::Result<i64> {
    counter.add(by).get()
}

#[mobula::remote]
fn slow_one() -> i64 {
    std::thread::sleep(std::time::Duration::from_millis(50));
    1
}

#[mobula::remote]
fn make_counter() -> ActorHandle<Counter> {
    Counter::remote(7)
}

/// Dies when it is told to, and is started again.
struct Phoenix {
    log: PathBuf,
    births: usize,
}

#[mobula::remote(max_restarts = unlimited)]
impl Phoenix {
    fn new(log: PathBuf, births: Vec<u8>) -> Result<Self, String> {
        note(&log, "born");
        if log.with_extension("barren").exists() {
            return Err("not again".to_owned());
        }
        Ok(Self { log, births: births.len() })
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn argument_bytes(&self) -> usize {
        self.births
    }

    fn note(&mut self, what: String) -> String {
        note(&self.log, &what);
        what
    }

    fn die(&mut self) {
        note(&self.log, "die");
        std::process::abort();
    }

    /// Dies the first time.
    fn die_once(&mut self, what: String) -> String {
        let is_first = std::fs::File::create_new(self.log.with_extension("died")).is_ok();
        note(&self.log, &what);
        if is_first {
            std::process::abort();
        }
        what
    }
}

#[mobula::remote]
fn pid_through(phoenix: ActorHandle<Phoenix>) -> mobula::Result<u32> {
    phoenix.pid().get()
}

/// Adds a line to a file.
fn note(log: &Path, what: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    file.write_all(format!("{what}\n").as_bytes()).unwrap();
}

/// The notes in the log.
fn notes(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
}

/// Waits until a call of an actor that is starting again gets through.
fn pid_of(phoenix: &ActorHandle<Phoenix>) -> u32 {
    loop {
        match phoenix.pid().get_timeout(PATIENCE) {
            Ok(pid) => return pid,
            Err(Error::Failed(Failure::ActorUnavailable { class, .. })) => {
                assert_eq!(class, "actors::Phoenix")
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn a_killed_actor_starts_again_with_its_arguments_its_name_and_its_handles() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    // Large enough to lie in the store, where nobody else has it.
    let phoenix = Phoenix::options(ActorOptions::new().name("phoenix")).remote(log.clone(), vec![7; 300_000]);
    let first = phoenix.pid().get().unwrap();
    let boxed = mobula::put(&vec![phoenix.clone()]).unwrap();
    let mut pid = first;
    for _ in 0..4 {
        kill(pid);
        let next = pid_of(&phoenix);
        assert_ne!(pid, next);
        pid = next;
        assert_eq!(phoenix.argument_bytes().get().unwrap(), 300_000);
        assert_eq!(mobula::get_actor::<Phoenix>("phoenix").unwrap().pid().get().unwrap(), pid);
        assert_eq!(boxed.get().unwrap()[0].pid().get().unwrap(), pid);
        assert_eq!(pid_through::remote(phoenix.clone()).get().unwrap(), pid);
    }
    assert_eq!(notes(&log), ["born"; 5]);
    // It ends with its last handle all the same.
    drop((phoenix, boxed));
    eventually("the actor's process is gone", || !is_running(pid));
    eventually("its name is free", || mobula::get_actor::<Phoenix>("phoenix").is_err());
    assert_eq!(notes(&log).len(), 5);
}

#[test]
fn without_retries_a_call_that_was_under_way_fails_and_later_ones_wait() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let phoenix = Phoenix::remote(log.clone(), vec![]);
    phoenix.pid().get().unwrap();
    let death = phoenix.die();
    match death.get() {
        Err(Error::Failed(Failure::ActorUnavailable { class, method, pid, reason })) => {
            assert_eq!((class.as_str(), method.as_str()), ("actors::Phoenix", "die"));
            assert_ne!(pid, 0);
            assert_eq!(reason, ExitReason::Killed { signal: libc::SIGABRT });
        }
        other => panic!("{other:?}"),
    }
    // Known to be starting again: these wait, and keep their order.
    let later: Vec<_> = (0..50).map(|i| phoenix.note(i.to_string())).collect();
    let expected: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    assert_eq!(mobula::get(&later).unwrap(), expected);
    assert_eq!(notes(&log)[..3], ["born", "die", "born"]);
    assert_eq!(notes(&log)[3..], expected);
}

#[test]
fn with_retries_calls_are_sent_again_in_order() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let options = ActorOptions::new().max_restarts(1).max_task_retries(1);
    let phoenix = Phoenix::options(options).remote(log.clone(), vec![]);
    phoenix.pid().get().unwrap();
    let calls: Vec<_> = (0..40)
        .map(|i| if i == 20 { phoenix.die_once(i.to_string()) } else { phoenix.note(i.to_string()) })
        .collect();
    let expected: Vec<String> = (0..40).map(|i| i.to_string()).collect();
    assert_eq!(mobula::get(&calls).unwrap(), expected);
    // Once the one that died, each time in order; an earlier call does not run again unless its result was lost.
    let notes = notes(&log);
    let second = notes.iter().rposition(|note| note == "born").unwrap();
    assert_eq!(notes[..second], [vec!["born".to_owned()], expected[..=20].to_vec()].concat());
    let again = &notes[second + 1..];
    assert_eq!(again, &expected[40 - again.len()..]);
    assert!(again.len() >= 20, "{again:?}");
}

#[test]
fn an_actor_is_started_again_no_more_often_than_asked_for() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let options = ActorOptions::new().max_restarts(2).max_task_retries(mobula::UNLIMITED);
    let phoenix = Phoenix::options(options).remote(log.clone(), vec![]);
    match phoenix.die().get() {
        Err(Error::Failed(Failure::ActorDied { cause, .. })) => {
            let reason = ExitReason::Killed { signal: libc::SIGABRT };
            assert_eq!(cause, ActorEnd::Process { reason, restarts: 2 });
            assert!(cause.to_string().ends_with("SIGABRT, after 2 restarts"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(notes(&log), ["born", "die", "born", "die", "born", "die"]);
    assert!(matches!(phoenix.pid().get(), Err(Error::Failed(Failure::ActorDied { .. }))));
    // Fewer retries than restarts: the call fails, the actor lives.
    let options = ActorOptions::new().max_task_retries(1);
    let phoenix = Phoenix::options(options).remote(log.with_extension("2"), vec![]);
    assert!(matches!(phoenix.die().get(), Err(Error::Failed(Failure::ActorUnavailable { .. }))));
    phoenix.pid().get().unwrap();
    assert_eq!(notes(&log.with_extension("2")), ["born", "die", "born", "die", "born"]);
}

#[test]
fn what_ends_an_actor_for_good_is_not_followed_by_a_start() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    // Ended on purpose.
    let phoenix = Phoenix::remote(log.clone(), vec![]);
    let pid = phoenix.pid().get().unwrap();
    mobula::kill(&phoenix).unwrap();
    assert!(matches!(phoenix.pid().get(), Err(Error::Failed(Failure::ActorDied { .. }))));
    eventually("the actor's process is gone", || !is_running(pid));
    // A constructor that refuses the second time.
    let phoenix = Phoenix::remote(log.clone(), vec![]);
    let pid = phoenix.pid().get().unwrap();
    std::fs::write(log.with_extension("barren"), "").unwrap();
    kill(pid);
    let waiting = loop {
        match phoenix.pid().get() {
            // It was sent before the death was known.
            Ok(old) => assert_eq!(old, pid),
            Err(Error::Failed(Failure::ActorUnavailable { .. })) => {}
            other => break other,
        }
    };
    match waiting {
        Err(Error::Failed(Failure::ConstructorFailed { error, .. })) => {
            assert!(error.message.contains("not again"))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(notes(&log), ["born"; 3]);
}

#[test]
fn calls_of_one_caller_run_in_order_and_share_state() {
    let _session = session(2);
    let counter = Counter::remote(10);
    let sums: Vec<_> = (0..2_000).map(|_| counter.add(1)).collect();
    assert_eq!(mobula::get(&sums).unwrap(), (11..2_011).collect::<Vec<i64>>());
    let (number, text) = counter.both();
    assert_eq!((number.get().unwrap(), text.get().unwrap()), (2_010, "2010".to_owned()));
    assert_ne!(counter.pid().get().unwrap(), std::process::id());
}

#[test]
fn results_that_find_no_room_in_the_ring_arrive_once_there_is_some() {
    let _session = session(2);
    let counter = Counter::remote(0);
    let directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let padded: Vec<_> = (0..100).map(|_| counter.padded(3_000)).collect();
        let marker = directory.path().join(round.to_string());
        let touched = counter.touch(marker.to_str().unwrap().to_owned());
        // Nobody here looks at the results before the last call has run.
        eventually("all calls have run", || marker.exists());
        assert!(mobula::get(&padded).unwrap().iter().all(|bytes| bytes.len() == 3_000));
        touched.get().unwrap();
    }
}

#[test]
fn a_call_that_waits_for_its_argument_holds_the_later_ones_back() {
    let _session = session(2);
    let counter = Counter::remote(0);
    let first = counter.add(slow_one::remote());
    let second = counter.add(10);
    assert_eq!((first.get().unwrap(), second.get().unwrap()), (1, 11));
}

#[test]
fn constructor_arguments_may_be_references_and_constructors_may_fail() {
    let _session = session(2);
    let counter = Counter::remote(slow_one::remote());
    assert_eq!(counter.value().get().unwrap(), 1);
    assert!(Picky::remote(true).ping().get().unwrap());
    match Picky::remote(false).ping().get() {
        Err(Error::Failed(Failure::ConstructorFailed { class, error })) => {
            assert_eq!(class, "actors::Picky");
            assert!(error.message.contains("not like this"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_of_methods_keep_the_actor_alive() {
    let _session = session(2);
    let counter = Counter::remote(3);
    let error = counter.fail().get().unwrap_err().to_string();
    assert!(error.contains("Counter::fail") && error.contains("value is 3"), "{error}");
    assert_eq!(counter.add(1).get().unwrap(), 4);
}

#[test]
fn handles_go_to_tasks_and_actors_and_into_values() {
    let _session = session(2);
    let counter = Counter::remote(0);
    assert_eq!(add_through::remote(counter.clone(), 5).get().unwrap(), 5);
    let keeper = Keeper::remote(counter.clone());
    assert_eq!(keeper.add(2).get().unwrap(), 7);
    let boxed = mobula::put(&vec![counter]).unwrap();
    // Only the object and the keeper have a handle now.
    assert_eq!(boxed.get().unwrap()[0].add(1).get().unwrap(), 8);
    let made = make_counter::remote().get().unwrap();
    assert_eq!(made.add(1).get().unwrap(), 8);
}

#[test]
fn an_actor_ends_with_its_last_handle() {
    let _session = session(2);
    let counter = Counter::remote(0);
    let keeper = Keeper::remote(counter.clone());
    keeper.add(1).get().unwrap();
    let pid = counter.pid().get().unwrap();
    drop(counter);
    assert_eq!(keeper.add(1).get().unwrap(), 2);
    assert!(is_running(pid));
    drop(keeper);
    eventually("the actor's process is gone", || !is_running(pid));
}

#[test]
fn a_killed_or_crashed_actor_fails_its_calls() {
    let _session = session(2);
    let check = |result: mobula::Result<i64>, cause: &str| match result {
        Err(Error::Failed(Failure::ActorDied { class, pid, cause: said, .. })) => {
            assert_eq!(class, "actors::Counter");
            assert_ne!(pid, 0);
            assert!(said.to_string().contains(cause), "{said}");
        }
        other => panic!("{other:?}"),
    };
    let counter = Counter::remote(0);
    let pid = counter.pid().get().unwrap();
    mobula::kill(&counter).unwrap();
    check(counter.value().get(), "killed by `kill`");
    eventually("the actor's process is gone", || !is_running(pid));
    let counter = Counter::remote(0);
    let crash = counter.crash();
    check(counter.value().get(), "SIGABRT");
    assert!(crash.get().is_err());
    check(counter.value().get(), "SIGABRT");
}

#[test]
fn names_find_living_actors_of_the_right_class() {
    let _session = session(2);
    let counter = Counter::options(ActorOptions::new().name("scores")).remote(1);
    counter.add(1).get().unwrap();
    let same: ActorHandle<Counter> = mobula::get_actor("scores").unwrap();
    assert_eq!(same.add(1).get().unwrap(), 3);
    assert!(matches!(mobula::get_actor::<Picky>("scores"), Err(Error::WrongActorClass { .. })));
    assert!(matches!(mobula::get_actor::<Picky>("nobody"), Err(Error::NoSuchActor { .. })));
    let second = Counter::options(ActorOptions::new().name("scores")).remote(1);
    assert!(matches!(second.value().get(), Err(Error::Failed(Failure::NameTaken { .. }))));
    drop((counter, same));
    eventually("the name is free again", || {
        matches!(mobula::get_actor::<Counter>("scores"), Err(Error::NoSuchActor { .. }))
    });
    let third = Counter::options(ActorOptions::new().name("scores")).remote(5);
    assert_eq!(third.value().get().unwrap(), 5);
}
