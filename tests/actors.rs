//! Actors: if these fail, state is lost or mixed up, calls run out of order, or processes stay behind.

use mobula::prelude::*;
use mobula::{ActorOptions, Error, Failure};
use mobula_tests::{eventually, is_running, session};

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
            assert!(said.contains(cause), "{said}");
        }
        other => panic!("{other:?}"),
    };
    let counter = Counter::remote(0);
    let pid = counter.pid().get().unwrap();
    mobula::kill(&counter).unwrap();
    check(counter.value().get(), "killed by `mobula::kill`");
    eventually("the actor's process is gone", || !is_running(pid));
    let counter = Counter::remote(0);
    let crash = counter.crash();
    check(counter.value().get(), "signal 6");
    assert!(crash.get().is_err());
    check(counter.value().get(), "signal 6");
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
