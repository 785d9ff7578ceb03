//! Sessions that run out of descriptors: if these fail, a call hangs for good because a channel could not be opened, or
//! nothing works any more when there are descriptors again.
//!
//! Each runs in a process of its own, whose limits are its own.

use std::fs::File;
use std::process::Command;

use mobula::{Builder, Error, Failure};
use mobula_tests::PATIENCE;
use nix::sys::resource::{Resource, setrlimit};

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

/// Calls from another process, which opens channels of its own.
#[mobula::remote]
fn square_elsewhere(x: i64) -> mobula::Result<i64> {
    square::remote(x).get()
}

/// Opens all that this process may, and calls an actor then.
#[mobula::remote]
fn call_while_short(free: usize) -> i64 {
    let all = all_but(free);
    let short = Echo::remote();
    let result = end_of(short.say(free as i64).get_timeout(PATIENCE));
    drop(all);
    result + end_of(short.say(free as i64).get_timeout(PATIENCE))
}

struct Echo;

#[mobula::remote]
impl Echo {
    fn new() -> Self {
        Self
    }

    fn say(&self, x: i64) -> i64 {
        x
    }
}

/// Descriptors for all but so many of those that this process may have.
fn all_but(free: usize) -> Vec<File> {
    let mut all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    all.truncate(all.len().saturating_sub(free));
    all
}

/// Accepts any end of a call but a timeout. Returns 1 for a result and 0 for an error.
#[track_caller]
fn end_of<T>(result: mobula::Result<T>) -> i64 {
    match result {
        Ok(_) => 1,
        Err(Error::Timeout { .. }) => panic!("no end within {PATIENCE:?}"),
        Err(_) => 0,
    }
}

/// This test binary again, running one of the `child_…` tests below with so many descriptors.
fn in_child(test: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--ignored"])
        .env("MOBULA_TEST_CHILD", "1")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    println!("{}", text(&output.stdout));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn is_child_with(descriptors: u64) -> bool {
    let is_child = std::env::var_os("MOBULA_TEST_CHILD").is_some();
    if is_child {
        // The hard limit too: a session raises the soft one.
        setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors).unwrap();
    }
    is_child
}

#[test]
fn calls_end_however_few_descriptors_are_left_and_work_when_there_are_some_again() {
    in_child("child_that_is_short_of_descriptors");
}

#[test]
#[ignore = "run as a child by another test"]
fn child_that_is_short_of_descriptors() {
    if !is_child_with(160) {
        return;
    }
    let _session = Builder::new().workers(1).capacity_bytes(64 << 20).max_processes(50).init().unwrap();
    assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
    let lasting = Echo::remote();
    assert_eq!(lasting.say(1).get_timeout(PATIENCE).unwrap(), 1);
    for free in 0..30 {
        let all = all_but(free);
        let (actor, before) = (Echo::remote(), Echo::remote());
        let calls = [actor.say(2), before.say(3), square::remote(3), actor.say(4)];
        let ended: i64 = calls.iter().map(|call| end_of(call.get_timeout(PATIENCE))).sum();
        let elsewhere = end_of(square_elsewhere::remote(3).get_timeout(PATIENCE));
        // There is a channel to it.
        assert_eq!(lasting.say(5).get_timeout(PATIENCE).unwrap(), 5, "with {free} descriptors");
        drop(all);
        let again = end_of(actor.say(6).get_timeout(PATIENCE));
        println!(
            "{free} descriptors: {ended} of 4 calls, {elsewhere} elsewhere, then {again} of 1 succeeded"
        );
        assert_eq!(square::remote(4).get_timeout(PATIENCE).unwrap(), 16, "after {free} descriptors");
        assert_eq!(square_elsewhere::remote(4).get_timeout(PATIENCE).unwrap(), 16);
        assert_eq!(Echo::remote().say(7).get_timeout(PATIENCE).unwrap(), 7, "after {free} descriptors");
    }
}

#[test]
fn calls_of_a_worker_that_is_short_of_descriptors_end() {
    in_child("child_whose_worker_is_short_of_descriptors");
}

#[test]
#[ignore = "run as a child by another test"]
fn child_whose_worker_is_short_of_descriptors() {
    if !is_child_with(160) {
        return;
    }
    let _session = Builder::new().workers(1).capacity_bytes(64 << 20).max_processes(50).init().unwrap();
    for free in 0..20 {
        let result = call_while_short::remote(free).get_timeout(PATIENCE);
        println!("{free} descriptors in the worker: {result:?}");
        end_of(result);
        assert_eq!(
            square_elsewhere::remote(4).get_timeout(PATIENCE).unwrap(),
            16,
            "after {free} descriptors"
        );
    }
}

#[test]
fn more_actors_than_there_are_descriptors_for_answer_or_say_why_not() {
    in_child("child_with_many_actors");
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_many_actors() {
    if !is_child_with(128) {
        return;
    }
    // By default as many processes as the limits have room for; a higher maximum changes nothing.
    for max in [None, Some(100)] {
        let builder = Builder::new().workers(1).capacity_bytes(64 << 20);
        let builder = match max {
            Some(max) => builder.max_processes(max),
            None => builder,
        };
        let _session = builder.init().unwrap();
        let actors: Vec<_> = (0..40).map(|_| Echo::remote()).collect();
        let answers = actors.iter().map(|actor| end_of(actor.say(1).get_timeout(PATIENCE))).sum::<i64>();
        println!("{answers} of 40 actors answer");
        assert!(answers > 0);
        for refused in &actors[answers as usize..] {
            let error = refused.say(1).get_timeout(PATIENCE).unwrap_err();
            let is_limit =
                matches!(error, Error::Failed(Failure::ProcessLimit { limit, in_use }) if in_use <= limit);
            assert!(is_limit && error.to_string().contains("RLIMIT_NOFILE"), "{error:?}");
        }
        drop(actors);
        let works_again = || Echo::remote().say(2).get_timeout(PATIENCE).is_ok_and(|two| two == 2);
        mobula_tests::eventually("an actor finds room again", works_again);
        assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
    }
}
