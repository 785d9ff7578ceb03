//! Each symptom of a program leads to its cause in at most two commands, as `docs/what-to-type.md` says, by what is
//! recorded by default. If this fails, a person follows the page and finds nothing.

use std::path::Path;
use std::time::Duration;

use mobula::prelude::*;
use mobula::value::Bytes;
use mobula::{ActorOptions, TaskOptions};
use mobula_cli_support::eventually;
use mobula_cli_support::watched::{Gate, Watched, session_with, with, with_call_sites};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const MIB: usize = 1 << 20;

/// Waits for an unusual thing of a kind.
fn unusual(watched: &Watched, kind: &str) -> Value {
    let mut found = Value::Null;
    eventually(&format!("the status says that something is {kind}"), || {
        let status = watched.ask(&["status"]);
        let all = status["session"]["unusual"].as_array().unwrap().clone();
        found = all.into_iter().find(|unusual| unusual["kind"] == kind).unwrap_or(Value::Null);
        !found.is_null()
    });
    found
}

/// The command that a status names, without `mobula` itself.
fn named(unusual: &Value) -> Vec<String> {
    let command = unusual["command"].as_str().unwrap();
    command.split(' ').skip(1).map(str::to_owned).collect()
}

fn ask_named(watched: &Watched, unusual: &Value) -> Value {
    let words = named(unusual);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    watched.show(&["status"]);
    watched.show(&words);
    watched.ask(&words)
}

#[mobula::remote]
fn quick() {}

#[mobula::remote]
fn slow() {
    std::thread::sleep(Duration::from_millis(30));
}

#[mobula::remote]
fn runs_while(path: String) {
    while Path::new(&path).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[mobula::remote]
fn makes(bytes: usize) -> mobula::Result<usize> {
    let object = mobula::put(&Bytes::from(vec![1_u8; bytes]))?;
    Ok(object.get()?.len())
}

struct Pair;

#[mobula::remote]
impl Pair {
    fn new() -> Self {
        Self
    }

    fn one(&self) -> u32 {
        1
    }

    /// Waits for the other one, but not for ever.
    fn asks(&self, other: ActorHandle<Pair>, file: String) -> mobula::Result<u32> {
        eventually("both have begun", || !Path::new(&file).exists());
        other.one().get_timeout(Duration::from_secs(60))
    }
}

#[test]
fn a_slow_function() {
    let watched = session_with(2, None);
    (0..20).for_each(|_| quick::remote().get().unwrap());
    (0..5).for_each(|_| slow::remote().get().unwrap());
    let summary = watched.ask(&["summary", "tasks"]);
    watched.show(&["summary", "tasks"]);
    let first = &summary["functions"][0];
    assert_eq!((&first["function"], &first["finished"]), (&"symptoms::slow".into(), &5.into()), "{summary}");
    assert!(first["p50_s"].as_f64().unwrap() > 0.02, "{summary}");
}

#[test]
fn a_starved_resource() {
    let watched = with(None, |builder| builder.workers(2).num_cpus(2).resources([("licence", 1)]));
    let gate = Gate::closed();
    let options = || TaskOptions::new().resources([("licence", 1)]);
    let running = runs_while::options(options()).remote(gate.path());
    eventually("it has the licence", || {
        !watched.ask(&["list", "workers", "--function", "*runs_while"])["workers"][0].is_null()
    });
    let starved = quick::options(options()).remote();
    let found = unusual(&watched, "starved");
    assert!(found["text"].as_str().unwrap().contains("1 licence"), "{found}");
    let workers = ask_named(&watched, &found);
    let is_holder = |row: &&Value| row["holds"].as_str().unwrap().contains("licence");
    let holder = workers["workers"].as_array().unwrap().iter().find(is_holder).expect("the holder is listed");
    assert_eq!(holder["function"], "symptoms::runs_while");
    drop(gate);
    running.get().unwrap();
    starved.get().unwrap();
}

#[test]
fn a_demand_that_the_session_never_meets() {
    let watched = with(None, |builder| builder.workers(1).num_cpus(1).resources([("licence", 1)]));
    // A session refuses calls that it can never run; here it is enough that the head does not have it now.
    let impossible = quick::options(TaskOptions::new().resources([("licence", 2)])).remote();
    if impossible.get_timeout(Duration::from_millis(100)).is_err_and(|error| !is_timeout(&error)) {
        return;
    }
    let found = unusual(&watched, "impossible");
    assert!(found["text"].as_str().unwrap().contains("1 licence in all"), "{found}");
}

fn is_timeout(error: &mobula::Error) -> bool {
    matches!(error, mobula::Error::Timeout { .. })
}

#[test]
fn a_deadlock() {
    let watched = session_with(1, None);
    let gate = Gate::closed();
    let (one, other) = (Pair::remote(), Pair::remote());
    let waiting = [one.asks(other.clone(), gate.path()), other.asks(one.clone(), gate.path())];
    eventually("both run", || {
        let workers = watched.ask(&["list", "workers", "--function", "*Pair::asks"]);
        workers["total"] == 2
    });
    let pid = watched.ask(&["list", "workers", "--function", "*Pair::asks"])["workers"][0]["pid"].to_string();
    drop(gate);
    let mut why = Value::Null;
    eventually("they wait for each other", || {
        why = watched.ask(&["why", &pid]);
        why["end"] == "deadlock"
    });
    watched.show(&["list", "workers"]);
    watched.show(&["why", &pid]);
    assert!(why["chain"].to_string().contains("Pair::asks"), "{why}");
    mobula::kill(&one).unwrap();
    mobula::kill(&other).unwrap();
    waiting.into_iter().for_each(|waiting| _ = waiting.get().unwrap_err());
}

#[test]
fn a_killed_worker() {
    let watched = session_with(1, None);
    let gate = Gate::closed();
    let running = runs_while::options(TaskOptions::new().max_retries(0)).remote(gate.path());
    let mut pid = Value::Null;
    eventually("it runs", || {
        pid = watched.ask(&["list", "workers", "--function", "*runs_while"])["workers"][0]["pid"].clone();
        !pid.is_null()
    });
    kill(Pid::from_raw(pid.as_i64().unwrap() as i32), Signal::SIGKILL).unwrap();
    let error = running.get().unwrap_err().to_string();
    assert!(error.contains(&format!("`mobula postmortem {pid}`")), "{error}");
    let found = unusual(&watched, "died");
    assert!(found["text"].as_str().unwrap().contains("signal 9"), "{found}");
    let postmortem = ask_named(&watched, &found);
    assert_eq!(postmortem["pid"], pid);
    assert_eq!(
        (&postmortem["reason"], &postmortem["function"]),
        (&"signal 9".into(), &"symptoms::runs_while".into())
    );
    assert!(postmortem["lost_tasks"][0].as_str().unwrap().ends_with("symptoms::runs_while"), "{postmortem}");
}

#[test]
fn a_full_store() {
    let watched = session_with(1, None);
    // The bytes are in use, so that they cannot be spilled.
    let in_use: Vec<Bytes> =
        (0..14).map(|_| mobula::put(&Bytes::from(vec![1_u8; 4 * MIB])).unwrap().get().unwrap()).collect();
    let waiting = makes::remote(32 * MIB);
    let found = unusual(&watched, "memory");
    assert!(found["text"].as_str().unwrap().contains("1 thread waits"), "{found}");
    let memory = ask_named(&watched, &found);
    let first = &memory["groups"][0];
    assert_eq!(
        (&first["kind"], &first["pid"]),
        (&"bytes_in_use".into(), &std::process::id().into()),
        "{memory}"
    );
    assert!(first["alone_bytes"].as_u64().unwrap() >= 14 * 4 * MIB as u64, "{memory}");
    drop(in_use);
    assert_eq!(waiting.get().unwrap(), 32 * MIB);
}

#[test]
fn a_leak_of_references() {
    let watched = with_call_sites(|builder| builder.workers(1).capacity_bytes(64 << 20));
    let leaked: Vec<_> = (0..50).map(|_| mobula::put(&vec![1_u8; 100_000]).unwrap()).collect();
    let line = line!() - 1;
    let _other = mobula::put(&vec![1_u8; 100_000]).unwrap();
    watched.show(&["memory", "--limit", "3"]);
    let memory = watched.ask(&["memory"]);
    let site = &memory["sites"][0];
    assert_eq!(
        (&site["made_at"], &site["objects"]),
        (&format!("cli/tests/symptoms.rs:{line}").into(), &50.into())
    );
    let group = &memory["groups"][0];
    assert_eq!((&group["pid"], &group["objects"]), (&std::process::id().into(), &51.into()), "{memory}");
    drop(leaked);
}

#[test]
fn a_spilling_storm() {
    let directory = tempfile::Builder::new().prefix("mobula-spill-test-").tempdir_in("/var/tmp").unwrap();
    let watched =
        with(None, |builder| builder.workers(1).capacity_bytes(64 << 20).spill_directory(directory.path()));
    let kept: Vec<ObjectRef<Bytes>> =
        (0..30).map(|_| mobula::put(&Bytes::from(vec![1_u8; 4 * MIB])).unwrap()).collect();
    kept.iter().for_each(|kept| assert_eq!(kept.get().unwrap().len(), 4 * MIB));
    let found = unusual(&watched, "spilling");
    let memory = ask_named(&watched, &found);
    let first = &memory["groups"][0];
    assert_eq!((&first["kind"], &first["objects"]), (&"handle".into(), &30.into()), "{memory}");
    assert!(memory["held"].to_string().contains("spilled"), "{memory}");
}

#[test]
fn an_actor_that_is_behind() {
    let watched = session_with(1, None);
    let gate = Gate::closed();
    let (one, other) = (Pair::options(ActorOptions::new().name("one")).remote(), Pair::remote());
    let running = one.asks(other, gate.path());
    let mut queued: Vec<ObjectRef<u32>> = (0..20).map(|_| one.one()).collect();
    let mut queue = Value::Null;
    eventually("its queue is seen", || {
        let status = watched.ask(&["status"]);
        queue = status["session"]["queues"][0].clone();
        queue["kind"] == "actor" && queue["calls"] == 20
    });
    assert!(queue["waits_for"].as_str().unwrap().contains("Pair"), "{queue}");
    watched.show(&["status"]);
    watched.show(&["why", "one"]);
    let why = watched.ask(&["why", "one"]);
    assert_eq!(why["end"], "computes", "{why}");
    drop(gate);
    running.get().unwrap();
    queued.drain(..).for_each(|queued| assert_eq!(queued.get().unwrap(), 1));
}
