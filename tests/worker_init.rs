//! `#[worker_init]`: if these fail, a worker runs calls before what it needs is set up, sets it up twice, or a program
//! whose set-up fails hangs, starts processes without end, or cannot find out why.

use std::sync::Mutex;

use mobula::{ActorOptions, Error, Failure, TaskErrorKind, TaskOptions};
use mobula_tests::{eventually, session, session_processes};

/// The functions that have run in this process.
static RAN: Mutex<Vec<&str>> = Mutex::new(Vec::new());

/// Fails if a call or an actor asked for it.
const FAIL: &str = "MOBULA_TEST_INIT";

fn ran(name: &'static str) {
    RAN.lock().expect("no thread panicked").push(name);
}

#[mobula::worker_init]
fn second() {
    assert!(!mobula::is_initialized(), "the process is a part of the session already");
    ran("second");
    assert_ne!(std::env::var(FAIL).as_deref(), Ok("panic"), "the pool has no threads");
}

mod a {
    use super::*;

    #[mobula::worker_init]
    fn first() -> std::io::Result<()> {
        ran("a::first");
        match std::env::var(FAIL).as_deref() {
            Ok("error") => Err(std::io::Error::other("no room for a log")),
            Ok("exit") => std::process::exit(3),
            _ => Ok(()),
        }
    }
}

#[mobula::worker_init]
fn third() -> Result<(), Box<dyn std::error::Error>> {
    ran("third");
    Ok(())
}

#[mobula::remote]
fn what_ran() -> (u32, Vec<String>) {
    let ran = RAN.lock().expect("no thread panicked");
    (std::process::id(), ran.iter().map(|name| (*name).to_owned()).collect())
}

struct Inspector;

#[mobula::remote]
impl Inspector {
    fn new() -> Self {
        Inspector
    }
    fn what_ran(&self) -> Vec<String> {
        what_ran().1
    }
}

fn failing(how: &str) -> TaskOptions {
    TaskOptions::new().env_vars([(FAIL, how)])
}

#[test]
fn each_worker_runs_them_once_and_in_order_before_its_calls() {
    let _session = session(2);
    let calls: Vec<_> = (0..50).map(|_| what_ran::remote()).collect();
    for (_, ran) in mobula::get(&calls).unwrap() {
        assert_eq!(ran, ["a::first", "second", "third"]);
    }
    assert_eq!(Inspector::remote().what_ran().get().unwrap(), ["a::first", "second", "third"]);
    assert!(RAN.lock().unwrap().is_empty(), "the driver is no worker");
}

#[test]
fn an_error_and_a_panic_fail_the_calls_and_say_why() {
    let session = session(2);
    for (how, name, kind, message) in [
        ("error", "worker_init::a::first", TaskErrorKind::Returned, "no room for a log"),
        ("panic", "worker_init::second", TaskErrorKind::Panicked, "the pool has no threads"),
    ] {
        let calls: Vec<_> = (0..20).map(|_| what_ran::options(failing(how)).remote()).collect();
        for call in &calls {
            match call.get().unwrap_err() {
                Error::Failed(Failure::WorkerInitFailed { error }) => {
                    assert_eq!((&*error.function, error.kind), (name, kind));
                    assert!(error.message.contains(message), "{error}");
                }
                other => panic!("{other}"),
            }
        }
        let text = calls[0].get().unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(message), "{text}");
        let actor = Inspector::options(ActorOptions::new().env_vars([(FAIL, how)])).remote();
        let error = actor.what_ran().get().unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(message), "{error}");
        // Other calls run on.
        what_ran::remote().get().unwrap();
    }
    // Nothing is started again and again.
    let socket = session.session.socket().to_owned();
    eventually("the store and two workers are left", || session_processes(&socket).len() == 3);
}

#[test]
fn a_worker_that_ends_meanwhile_is_an_error_too() {
    let _session = session(1);
    let error = what_ran::options(failing("exit")).remote().get().unwrap_err();
    assert!(matches!(&error, Error::Failed(Failure::NoWorkers { .. })), "{error}");
    what_ran::remote().get().unwrap();
}
