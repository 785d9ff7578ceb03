//! A person ends processes, actors and calls of a session from another terminal. If this fails, a person must end the
//! whole session because of one stuck call, or a script that kills a call does not get the outcome.

use std::path::Path;
use std::time::Duration;

use mobula::{ActorOptions, Error, Failure, TaskOptions};
use mobula_cli_support::watched::{Watched, session};
use mobula_cli_support::{check_fails, eventually};
use serde_json::Value;

/// Commands that these tests run again and again.
trait Steered {
    /// Checks that a command fails.
    fn fails(&self, code: i32, words: &[&str], expected: &[&str]);

    /// The running call of a function: its id, and its worker's pid.
    fn running(&self, function: &str) -> (String, String);
}

impl Steered for Watched {
    fn fails(&self, code: i32, words: &[&str], expected: &[&str]) {
        let words: Vec<&str> = words.iter().copied().chain(["--socket", &self.socket]).collect();
        check_fails(code, words, Path::new("/nowhere"), expected);
    }

    fn running(&self, function: &str) -> (String, String) {
        let function = format!("control::{function}");
        let mut found = Value::Null;
        eventually("the call runs", || {
            let all = self.ask(&["list", "tasks", "--function", &function, "--state", "running"]);
            found = all["tasks"][0].clone();
            found["worker_pid"].is_number()
        });
        (found["task"].as_str().unwrap().to_owned(), found["worker_pid"].to_string())
    }
}

/// Runs for a time that no test waits for.
#[mobula::remote]
fn sleeps() {
    std::thread::sleep(Duration::from_secs(3600));
}

/// Runs until it is cancelled.
#[mobula::remote]
fn looks() {
    while !mobula::is_cancelled() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[mobula::remote]
fn calls_another() {
    looks::remote().get().unwrap();
}

#[mobula::remote]
fn quick() -> u32 {
    std::process::id()
}

struct Counter(u32);

#[mobula::remote]
impl Counter {
    fn new() -> Self {
        Self(0)
    }

    fn next(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }

    fn looks(&self) {
        while !mobula::is_cancelled() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn is_gone(pid: &str) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_process_is_killed_and_its_call_is_retried_or_fails() {
    let watched = session(1);
    let fails = sleeps::options(TaskOptions::new().max_retries(0)).remote();
    let (_, pid) = watched.running("sleeps");
    let killed = watched.ask(&["kill", &pid]);
    assert_eq!((&killed["kind"], killed["pid"].to_string()), (&"process".into(), pid.clone()));
    assert!(is_gone(&pid), "the command waits until it has ended");
    let error = fails.get().unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::WorkerDied { .. })), "{error}");
    let again = sleeps::options(TaskOptions::new().max_retries(1)).remote();
    let (task, first) = watched.running("sleeps");
    watched.ask(&["kill", &first]);
    let mut second = String::new();
    eventually("it runs again", || {
        let (its, pid) = watched.running("sleeps");
        second = pid;
        its == task && second != first
    });
    // By its call: it is over, and is not retried.
    let killed = watched.ask(&["kill", &task]);
    assert_eq!((&killed["kind"], &killed["id"]), (&"task".into(), &task.clone().into()));
    assert!(matches!(again.get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    eventually("its process ends", || is_gone(&second));
    assert_ne!(quick::remote().get().unwrap().to_string(), second, "another worker takes its place");
}

#[test]
fn an_idle_worker_is_killed_and_another_takes_its_place() {
    let watched = session(1);
    let first = quick::remote().get().unwrap();
    watched.ask(&["kill", &first.to_string()]);
    assert_ne!(quick::remote().get().unwrap(), first);
}

#[test]
fn a_cancelled_call_is_over_and_so_are_those_that_it_made() {
    let watched = session(2);
    let outer = calls_another::remote();
    watched.running("looks");
    let (task, _) = watched.running("calls_another");
    let cancelled = watched.ask(&["cancel", &task]);
    assert_eq!(cancelled["id"], task);
    assert!(matches!(outer.get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    eventually("nothing runs", || {
        watched.ask(&["list", "tasks", "--state", "running"])["tasks"].as_array().unwrap().is_empty()
    });
    watched.fails(3, &["cancel", &task], &[&task, "over"]);
    // One that has not begun.
    let holds = [looks::remote(), looks::remote()];
    let waits = quick::remote();
    let mut pending = Value::Null;
    eventually("the call is listed", || {
        pending =
            watched.ask(&["list", "tasks", "--state", "pending", "--function", "*quick"])["tasks"][0].clone();
        pending.is_object()
    });
    watched.ask(&["cancel", pending["task"].as_str().unwrap()]);
    assert!(matches!(waits.get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    mobula::cancel(&holds).unwrap();
}

#[test]
fn an_actor_is_killed_for_good_or_restarted() {
    let watched = session(1);
    let options = || ActorOptions::new().max_restarts(5);
    let actor = Counter::options(options().name("counter")).remote();
    assert_eq!(actor.next().get().unwrap(), 1);
    let runs = actor.looks();
    let (task, pid) = watched.running("Counter::looks");
    watched.fails(4, &["cancel", "--force", &task], &[&task, "actor"]);
    watched.ask(&["cancel", &task]);
    assert!(runs.get().is_err());
    let killed = watched.ask(&["kill", "--restart", "counter"]);
    assert_eq!((&killed["kind"], killed["pid"].to_string()), (&"actor".into(), pid));
    let mut next = None;
    eventually("it is restarted, without its state", || {
        next = actor.next().get().ok();
        next.is_some()
    });
    assert_eq!(next, Some(1));
    let killed = watched.ask(&["kill", "counter"]);
    assert!(is_gone(&killed["pid"].to_string()));
    let error = actor.next().get().unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::ActorDied { .. })), "{error}");
    watched.fails(3, &["kill", killed["id"].as_str().unwrap()], &["over"]);
    watched.fails(3, &["kill", "counter"], &["counter", "actor"]);
}

#[test]
fn what_cannot_be_done_is_said_with_an_exit_code() {
    let watched = session(1);
    let own = std::process::id().to_string();
    watched.fails(4, &["kill", &own], &[&own, "driver"]);
    watched.fails(3, &["kill", "1"], &["\"1\""]);
    watched.fails(3, &["cancel", "1.1"], &["1.1"]);
    watched.fails(4, &["cancel", &own], &["is a process", "`mobula kill"]);
    watched.fails(3, &["cancel", "999999"], &["task"]);
    let actor = Counter::options(ActorOptions::new().name("counter")).remote();
    actor.next().get().unwrap();
    watched.fails(4, &["cancel", "counter"], &["is an actor", "`mobula kill counter`"]);
    watched.fails(3, &["cancel", "nobody"], &["nobody"]);
    watched.fails(3, &["cancel", &format!("{own}.999999")], &["over"]);
    let words = ["kill", "1", "--socket", "/nowhere/store.sock"];
    check_fails(1, words, Path::new("/nowhere"), &["/nowhere/store.sock"]);
    let mut watched = watched;
    watched.end();
    watched.fails(1, &["kill", "1"], &[&watched.socket]);
}
