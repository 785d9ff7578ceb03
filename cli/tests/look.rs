//! A command finds the slow, stuck or dead part of a session. If this fails, a program that hangs cannot be
//! explained while it does, and scripts that read the JSON break.

use std::path::Path;
use std::time::{Duration, Instant};

use mobula::{ActorHandle, ActorOptions, ObjectRef, Reply, TaskOptions};
use mobula_cli_support::eventually;
use mobula_cli_support::watched::{Gate, Watched, session, session_with};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Questions that these tests ask a session again and again.
trait Calls {
    /// The calls of a function in a state.
    fn tasks(&self, function: &str, state: &str) -> Vec<Value>;

    /// Waits for the first of them.
    fn task(&self, function: &str, state: &str) -> Value;

    /// The row of a function.
    fn summary(&self, function: &str) -> Value;
}

impl Calls for Watched {
    fn tasks(&self, function: &str, state: &str) -> Vec<Value> {
        let found =
            self.ask(&["list", "tasks", "--function", &format!("look::{function}"), "--state", state]);
        found["tasks"].as_array().unwrap().clone()
    }

    fn task(&self, function: &str, state: &str) -> Value {
        let mut found = Vec::new();
        eventually(&format!("{function} is {state}"), || {
            found = self.tasks(function, state);
            !found.is_empty()
        });
        found.remove(0)
    }

    fn summary(&self, function: &str) -> Value {
        let all = self.ask(&["summary", "tasks"]);
        let rows = all["functions"].as_array().unwrap();
        rows.iter().find(|row| row["function"] == format!("look::{function}")).cloned().unwrap_or(Value::Null)
    }
}

#[mobula::remote]
fn quick(x: i64) -> i64 {
    x + 1
}

#[mobula::remote]
fn computes(millis: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(millis) {}
}

/// Runs until the file is gone.
#[mobula::remote]
fn runs_while(path: String) {
    while Path::new(&path).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Uses so much memory, removes the file, and runs on.
#[mobula::remote]
fn fills(bytes: usize, path: String) {
    let memory = std::hint::black_box(vec![1_u8; bytes]);
    std::fs::remove_file(path).unwrap();
    loop {
        std::hint::black_box(&memory);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[mobula::remote]
fn waits_for(path: String) {
    runs_while::remote(path).get().unwrap();
}

#[mobula::remote]
fn after(_before: ()) {}

#[mobula::remote]
fn fails() -> Result<(), String> {
    Err("on purpose".to_owned())
}

struct Keeper(Vec<Vec<ObjectRef<Vec<u8>>>>);

#[mobula::remote]
impl Keeper {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn keep(&mut self, objects: Vec<ObjectRef<Vec<u8>>>) {
        self.0.push(objects);
    }
}

struct Slow;

#[mobula::remote]
impl Slow {
    fn new() -> Self {
        Self
    }

    fn run(&self, path: String) {
        while Path::new(&path).exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

struct Concurrent;

#[mobula::remote(max_concurrency = 2)]
impl Concurrent {
    fn new() -> Self {
        Self
    }

    fn run(&self, path: String) {
        while Path::new(&path).exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn fail(&self) -> Result<u32, String> {
        Err(std::process::id().to_string())
    }
}

/// Answers when another call tells it to.
struct Later(Vec<Reply<u32>>);

#[mobula::remote]
impl Later {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn ask(&mut self, reply: Reply<u32>) {
        self.0.push(reply);
    }

    fn asked(&self) -> usize {
        self.0.len()
    }

    fn answer(&mut self) {
        self.0.drain(..).for_each(|reply| reply.send(1));
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}

#[test]
fn a_slow_function_stands_out_in_the_summary() {
    let watched = session(2);
    let quick: Vec<ObjectRef<i64>> = (0..200).map(quick::remote).collect();
    mobula::get(&quick).unwrap();
    (0..3).for_each(|_| computes::remote(30).get().unwrap());
    fails::remote().get().unwrap_err();
    let (quick, slow, failing) =
        (watched.summary("quick"), watched.summary("computes"), watched.summary("fails"));
    assert_eq!((&quick["made"], &quick["finished"], &quick["failed"]), (&200.into(), &200.into(), &0.into()));
    assert_eq!((&slow["made"], &slow["finished"], &slow["pending"]), (&3.into(), &3.into(), &0.into()));
    assert_eq!((&failing["failed"], &failing["finished"]), (&1.into(), &0.into()));
    let p50 = |row: &Value| row["p50_s"].as_f64().unwrap();
    assert!(p50(&slow) > 0.02 && p50(&quick) < p50(&slow), "{slow} {quick}");
    let text = watched.text(&["summary", "tasks"]);
    assert!(text.starts_with("  FUNCTION") && text.contains("computes"), "{text}");
    let failed = watched.tasks("fails", "failed");
    assert_eq!(failed[0]["cause"], "function");
    assert_eq!(watched.tasks("quick", "finished").len(), 100, "the limit");
}

#[test]
fn a_running_call_and_the_chain_behind_it_are_found() {
    let watched = session(2);
    let gate = Gate::closed();
    let waiting = waits_for::remote(gate.path());
    let inner = watched.task("runs_while", "running");
    let outer = watched.task("waits_for", "running");
    // The worker of the outer call says what it waits for once it sleeps.
    eventually("the worker waits", || {
        let why = watched.ask(&["why", outer["task"].as_str().unwrap()]);
        why["end"] == "computes" && why["chain"].as_array().unwrap().len() == 4
    });
    let why = watched.ask(&["why", outer["task"].as_str().unwrap()]);
    let links: Vec<&str> =
        why["chain"].as_array().unwrap().iter().map(|link| link["kind"].as_str().unwrap()).collect();
    assert_eq!(links, ["task", "process", "task", "process"], "{why}");
    assert_eq!(why["chain"][2]["id"], inner["task"]);
    assert!(why["text"].as_str().unwrap().contains("runs_while"), "{why}");
    let workers = watched.ask(&["list", "workers", "--function", "*runs_while"]);
    assert_eq!(workers["workers"][0]["pid"], inner["worker_pid"]);
    drop(gate);
    waiting.get().unwrap();
    assert_eq!(watched.task("waits_for", "finished")["task"], outer["task"]);
}

#[test]
fn a_call_that_lacks_a_resource_says_who_has_it() {
    let watched = session(1);
    let gate = Gate::closed();
    let running = runs_while::options(TaskOptions::new().num_cpus(1)).remote(gate.path());
    let holder = watched.task("runs_while", "running");
    let starved = quick::options(TaskOptions::new().num_cpus(1)).remote(1);
    let blocked = after::remote(&running);
    let task = watched.task("quick", "pending");
    let mut why = Value::Null;
    eventually("the head knows what is wanted", || {
        why = watched.ask(&["why", task["task"].as_str().unwrap()]);
        why["end"] == "worker" || why["text"].as_str().unwrap().contains("runs_while")
    });
    let text = why["text"].as_str().unwrap();
    assert!(text.contains(&holder["worker_pid"].to_string()) || text.contains("runs_while"), "{why}");
    let pending = watched.task("after", "pending_arguments");
    assert_eq!(pending["waits_for"], holder["task"]);
    drop(gate);
    starved.get().unwrap();
    blocked.get().unwrap();
}

#[test]
fn the_status_says_who_waits_for_what_also_without_events() {
    for events in [None, Some("none")] {
        let watched = session_with(1, events);
        let gate = Gate::closed();
        let running = runs_while::options(TaskOptions::new().num_cpus(1)).remote(gate.path());
        let starved: Vec<_> = (0..3).map(quick::remote).collect();
        let mut status = Value::Null;
        eventually("the head knows what is wanted, and for how long", || {
            status = watched.ask(&["status"])["session"].clone();
            status["unusual"].to_string().contains("waited for 1 CPU")
        });
        let queue = &status["queues"][0];
        assert_eq!((&queue["kind"], &queue["waits_for"]), (&"resources".into(), &"1 CPU".into()), "{status}");
        assert_eq!(queue["pid"], std::process::id());
        assert!(
            queue["calls"].as_u64().unwrap() >= 1 && queue["waited_s"].as_f64().unwrap() > 0.0,
            "{status}"
        );
        assert_eq!((&status["workers"]["leased"], &status["resources"][0]["free"]), (&1.into(), &0.0.into()));
        assert_eq!(status["drivers"][0]["pid"], std::process::id());
        assert_eq!(status["unusual"][0]["command"], "mobula list workers");
        if events.is_none() {
            assert_eq!(queue["calls"], 3, "{status}");
            let running = watched.task("runs_while", "running");
            let workers = watched.ask(&["list", "workers", "--state", "leased"]);
            assert_eq!(workers["workers"][0]["task"], running["task"], "{workers}");
        }
        drop(gate);
        running.get().unwrap();
        mobula::get(&starved).unwrap();
        let text = watched.text(&["status"]);
        assert!(text.contains("  workers   1 (") && text.contains(" of 1 CPU used\n"), "{text}");
    }
}

#[test]
fn objects_names_and_drivers_are_listed_filtered_and_sorted() {
    let watched = session(1);
    let _objects = [mobula::put(&vec![1u8; 5_000]).unwrap(), mobula::put(&vec![1u8; 50_000]).unwrap()];
    let _actor = Slow::options(ActorOptions::new().name("slow")).remote();
    let sizes = |words: &[&str]| -> Vec<u64> {
        let found = watched.ask(&[&["list", "objects"], words].concat());
        let rows = found["objects"].as_array().unwrap();
        rows.iter().map(|row| row["bytes"].as_u64().unwrap()).collect()
    };
    let ours = sizes(&["--where", &format!("owner_pid={}", std::process::id()), "--where", "bytes!=0"]);
    assert!(ours[0] >= 50_000 && ours[1] >= 5_000 && ours[1] < ours[0], "{ours:?}");
    assert_eq!(sizes(&["--sort", "bytes", "--limit", "1"]), [ours[0]]);
    assert_eq!(sizes(&["--sort", "bytes", "--reverse"]).last(), Some(&ours[0]));
    assert_eq!(sizes(&["--state", "spilled"]), [0; 0]);
    eventually("the actor has its name", || {
        let names = watched.ask(&["list", "names", "--where", "kind=actor"]);
        names["names"][0]["name"] == "slow" && names["total"] == 1
    });
    let drivers = watched.ask(&["list", "drivers"]);
    assert_eq!((&drivers["drivers"][0]["pid"], &drivers["total"]), (&std::process::id().into(), &1.into()));
    assert!(watched.text(&["list", "objects"]).starts_with("  OBJECT"), "a table");
    mobula_cli_support::check_fails(
        2,
        ["list", "workers", "--sort", "nonsense", "--socket", &watched.socket],
        Path::new("/nowhere"),
        &["nonsense", "pid"],
    );
}

#[test]
fn the_holder_of_leaked_references_is_found() {
    let watched = session_with(1, None);
    let keeper = Keeper::options(ActorOptions::new().name("keeper")).remote();
    for _ in 0..10 {
        let object = mobula::put(&vec![7u8; 100_000]).unwrap();
        keeper.keep(vec![object]).get().unwrap();
    }
    let _mine = mobula::put(&vec![7u8; 200_000]).unwrap();
    let mut found = Value::Null;
    eventually("the driver has let go of what the actor keeps", || {
        found = watched.ask(&["memory", "--min-bytes", "97KiB"]);
        let first = &found["groups"][0];
        first["kind"] == "actor_state"
            && first["objects"] == 10
            && first["alone_bytes"].as_u64() > Some(999_999)
    });
    assert!(found["groups"][0]["holder"].as_str().unwrap().ends_with("look::Keeper"), "{found}");
    assert_eq!(found["held"].as_array().unwrap().len(), 11);
    let mine = &found["held"][0];
    assert_eq!(
        (&mine["owner_pid"], &mine["format"]),
        (&std::process::id().into(), &"plain".into()),
        "{mine}"
    );
    assert_eq!(
        mine["holds"],
        serde_json::json!([{ "kind": "handle", "pid": std::process::id(), "by": null }])
    );
    let text = watched.text(&["memory"]);
    assert!(text.contains("by holder") && text.contains("actor_state"), "{text}");
}

#[test]
fn a_busy_actor_is_at_the_end_of_the_chain() {
    let watched = session(1);
    let gate = Gate::closed();
    let actor = Slow::options(ActorOptions::new().name("slow")).remote();
    let pid = actor.pid().get().unwrap();
    let running = actor.run(gate.path());
    let waiting = actor.pid();
    watched.task("Slow::run", "running");
    let task = watched.task("Slow::pid", "pending");
    let why = watched.ask(&["why", task["task"].as_str().unwrap()]);
    assert_eq!(why["end"], "computes", "{why}");
    let last = why["chain"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((last["kind"].as_str(), last["id"].as_str()), (Some("process"), Some(&*pid.to_string())));
    assert_eq!(watched.ask(&["why", "slow"])["end"], "computes");
    let actors = watched.ask(&["list", "actors"]);
    let row = &actors["actors"][0];
    assert_eq!((&row["name"], &row["state"], &row["pid"]), (&"slow".into(), &"alive".into(), &pid.into()));
    drop(gate);
    running.get().unwrap();
    waiting.get().unwrap();
}

#[test]
fn the_calls_that_an_actor_runs_side_by_side_are_all_seen() {
    let watched = session(1);
    let gate = Gate::closed();
    let actor = Concurrent::remote();
    let running = [actor.run(gate.path()), actor.run(gate.path())];
    eventually("both run", || watched.tasks("Concurrent::run", "running").len() == 2);
    for kind in ["workers", "actors"] {
        let rows = watched.ask(&["list", kind, "--function", "*Concurrent::run"]);
        let row = &rows[kind][0];
        assert_eq!((&rows["total"], &row["running"]), (&1.into(), &2.into()), "{rows}");
        let text = watched.text(&["list", kind]);
        assert!(text.contains("Concurrent::run and 1 more"), "{text}");
    }
    drop(gate);
    mobula::get(&running).unwrap();
    eventually("both are over", || watched.tasks("Concurrent::run", "finished").len() == 2);
    let error = actor.fail().get().unwrap_err().to_string();
    let failed = watched.task("Concurrent::fail", "failed");
    assert!(error.contains(&failed["worker_pid"].to_string()), "{error} {failed}");
    assert!(failed["ran_s"].as_f64().unwrap() < 60.0);
    let summary = watched.summary("Concurrent::run");
    assert_eq!((&summary["finished"], summary["p50_s"].is_number()), (&2.into(), true), "{summary}");
}

#[test]
fn a_call_that_is_answered_later_runs_until_then() {
    let watched = session(1);
    let actor = Later::remote();
    let asked = actor.ask();
    // The method has returned, and its reply is held.
    assert_eq!(actor.asked().get().unwrap(), 1);
    let running = watched.task("Later::ask", "running");
    let summary = watched.summary("Later::ask");
    assert_eq!(
        (&summary["running"], &summary["pending"], &summary["finished"], &summary["p50_s"]),
        (&1.into(), &0.into(), &0.into(), &Value::Null),
        "{summary}"
    );
    let why = watched.ask(&["why", running["task"].as_str().unwrap()]);
    assert_eq!((&why["end"], &why["chain"][1]["kind"]), (&"computes".into(), &"process".into()), "{why}");
    assert!(why["chain"][1]["text"].as_str().unwrap().ends_with("has one call under way"), "{why}");
    actor.answer().get().unwrap();
    assert_eq!(asked.get().unwrap(), 1);
    // The record of the end comes before the answer.
    let finished = watched.tasks("Later::ask", "finished").remove(0);
    assert_eq!(finished["task"], running["task"]);
    let ran = |task: &Value| task["ran_s"].as_f64().unwrap();
    assert!(ran(&finished) >= ran(&running), "{finished} {running}");
    let summary = watched.summary("Later::ask");
    assert_eq!((&summary["running"], &summary["finished"]), (&0.into(), &1.into()), "{summary}");
    assert!(summary["max_s"].as_f64().unwrap() >= ran(&running), "{summary} {running}");

    // A reply that is dropped ends its call too.
    let forgotten = actor.ask();
    assert_eq!(actor.asked().get().unwrap(), 1);
    assert_eq!(watched.tasks("Later::ask", "running").len(), 1);
    actor.forget().get().unwrap();
    forgotten.get().unwrap_err();
    assert_eq!(watched.tasks("Later::ask", "running").len(), 0);
    assert_eq!(watched.task("Later::ask", "failed")["cause"], "function");
}

#[test]
fn a_killed_process_leaves_what_it_did() {
    let watched = session(1);
    let gate = Gate::closed();
    let running = runs_while::options(TaskOptions::new().max_retries(0)).remote(gate.path());
    let task = watched.task("runs_while", "running");
    let pid = task["worker_pid"].as_u64().unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    running.get().unwrap_err();
    let mut found = Value::Null;
    eventually("the end is recorded", || {
        let all = watched.ask(&["postmortem"]);
        let processes = all["processes"].as_array().unwrap();
        found = processes.iter().find(|process| process["pid"] == pid).cloned().unwrap_or(Value::Null);
        found["reason"] == "signal 9"
    });
    assert_eq!((&found["task"], &found["function"]), (&task["task"], &"look::runs_while".into()));
    let lost = found["lost_tasks"].as_array().unwrap();
    assert!(lost[0].as_str().unwrap().ends_with(" look::runs_while"), "{found}");
    let text = watched.text(&["postmortem", &pid.to_string()]);
    assert!(text.contains("signal 9") && text.contains("it ran look::runs_while"), "{text}");
    let failed = watched.task("runs_while", "failed");
    assert_eq!((&failed["task"], &failed["cause"]), (&task["task"], &"process_died".into()));
}

/// Runs a call that has its process killed. Returns the pid and the error.
fn killed(watched: &Watched, actor: &ActorHandle<Slow>, gate: &Gate) -> (u32, String) {
    let pid = actor.pid().get().unwrap();
    let running = actor.run(gate.path());
    eventually("the call runs", || {
        watched.tasks("Slow::run", "running").iter().any(|task| task["worker_pid"] == pid)
    });
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    (pid, running.get().unwrap_err().to_string())
}

/// Waits for the record of the process that an actor had last.
fn postmortem(watched: &Watched, target: &str, pid: u32) -> Value {
    let mut found = Value::Null;
    eventually(&format!("process {pid} of {target} is found"), || {
        let words = ["postmortem", target, "--json", "--socket", &watched.socket];
        let output = mobula_cli_support::run(words, Path::new("/nowhere"));
        found = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        found["pid"] == pid && found["reason"] == "signal 9"
    });
    found
}

#[test]
fn an_actor_that_is_gone_is_found_by_its_name() {
    let watched = session(1);
    let gate = Gate::closed();
    let actor = Slow::options(ActorOptions::new().name("gone")).remote();
    let (pid, error) = killed(&watched, &actor, &gate);
    assert!(error.contains(&format!("`mobula postmortem {pid}`")), "{error}");
    let found = postmortem(&watched, "gone", pid);
    assert_eq!((&found["actor"]["name"], &found["actor"]["pids"]), (&"gone".into(), &vec![pid].into()));
    // Without handles the head forgets the actor, and another one may have the name.
    drop(actor);
    eventually("it is forgotten", || watched.ask(&["list", "actors"])["total"] == 0);
    let other = Slow::options(ActorOptions::new().name("gone")).remote();
    assert_ne!(other.pid().get().unwrap(), pid);
    postmortem(&watched, "gone", pid);
    postmortem(&watched, &format!("actor:{}", found["actor"]["actor"]), pid);
    let text = watched.text(&["postmortem", "gone"]);
    assert!(text.contains("it was actor ") && text.contains("Slow \"gone\"\n"), "{text}");
}

#[test]
fn the_earlier_processes_of_an_actor_are_found() {
    let watched = session(1);
    let gate = Gate::closed();
    let actor = Slow::options(ActorOptions::new().name("restarted").max_restarts(5)).remote();
    let (first, error) = killed(&watched, &actor, &gate);
    assert!(error.contains(&format!("`mobula postmortem {first}`")), "{error}");
    postmortem(&watched, "restarted", first);
    let (second, _) = killed(&watched, &actor, &gate);
    let found = postmortem(&watched, "restarted", second);
    assert_eq!(found["actor"]["pids"], Value::from(vec![first, second]), "{found}");
    assert_eq!(watched.ask(&["postmortem", &first.to_string()])["actor"], found["actor"]);
    let text = watched.text(&["postmortem", "restarted"]);
    assert!(text.contains(&format!("other processes of this actor that ended: {first}\n")), "{text}");
    drop(gate);
    assert!(![first, second].contains(&actor.pid().get().unwrap()), "it was restarted");
}

#[test]
fn the_memory_of_a_killed_process_is_known() {
    let watched = session(1);
    let gate = Gate::closed();
    let running = fills::options(TaskOptions::new().max_retries(0)).remote(256 << 20, gate.path());
    eventually("it has the memory", || !Path::new(&gate.path()).exists());
    let pid = watched.task("fills", "running")["worker_pid"].as_u64().unwrap() as u32;
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    running.get().unwrap_err();
    let found = postmortem(&watched, &pid.to_string(), pid);
    let bytes = found["peak_memory_bytes"].as_u64().unwrap();
    assert!((256 << 20..400 << 20).contains(&bytes), "{found}");
    assert_eq!(found["is_peak_exact"], true);
    let text = watched.text(&["postmortem", &pid.to_string()]);
    assert!(text.contains("  its memory: ") && text.contains(" MiB at its peak\n"), "{text}");
    drop(watched);
    // A process begins with the number of the driver, which is larger than all that this one uses.
    let large = std::hint::black_box(vec![1_u8; 200 << 20]);
    let watched = session(1);
    let actor = Slow::remote();
    let (pid, _) = killed(&watched, &actor, &Gate::closed());
    let found = postmortem(&watched, &pid.to_string(), pid);
    assert_eq!(found["is_peak_exact"], false, "{found}");
    assert!(found["peak_memory_bytes"].as_u64().unwrap() >= large.len() as u64, "{found}");
    assert!(watched.text(&["postmortem", &pid.to_string()]).contains(" at most\n"));
}

#[test]
fn the_timeline_is_what_trace_viewers_read() {
    let watched = session(2);
    mobula::mark("epoch", 7);
    drop(mobula::span("load"));
    let calls: Vec<_> = (0..20).map(|_| computes::remote(1)).collect();
    mobula::get(&calls).unwrap();
    let trace = watched.ask(&["timeline"]);
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |ph: &str| events.iter().filter(|event| event["ph"] == ph).collect::<Vec<_>>();
    for event in events {
        assert!(event["name"].is_string() && event["pid"].is_u64() && event["tid"].is_u64(), "{event}");
        assert!(event["ts"].as_f64().unwrap() >= 0.0, "{event}");
    }
    let runs: Vec<_> = of("X").into_iter().filter(|event| event["name"] == "look::computes").collect();
    assert_eq!(runs.len(), 20);
    assert!(runs.iter().all(|run| run["dur"].as_f64().unwrap() >= 900.0), "a millisecond each");
    // Each arrow has two ends, and goes forward in time.
    let calls = |ph| of(ph).into_iter().filter(|event| event["name"] == "call").collect::<Vec<_>>();
    let (starts, ends) = (calls("s"), calls("f"));
    assert_eq!((starts.len(), ends.len()), (20, 20));
    for start in starts {
        let end = ends.iter().find(|end| end["id"] == start["id"]).expect("the other end");
        assert!(start["ts"].as_f64() <= end["ts"].as_f64(), "{start} {end}");
        assert_ne!(start["pid"], end["pid"]);
    }
    let mark = of("i").into_iter().find(|event| event["name"] == "epoch").expect("the mark");
    assert_eq!(mark["args"]["value"], 7);
    assert!(of("X").iter().any(|event| event["name"] == "load"));
    let named: Vec<_> = of("M").into_iter().filter(|event| event["name"] == "process_name").collect();
    assert!(named.iter().any(|event| event["args"]["name"].as_str().unwrap().starts_with("worker ")));
    let file = tempfile::NamedTempFile::new().unwrap();
    watched.text(&["timeline", "-o", file.path().to_str().unwrap()]);
    let written: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    assert!(written["traceEvents"].is_array());
}

#[test]
fn what_is_not_there_is_an_error_in_one_line() {
    let watched = session(1);
    mobula_cli_support::check_fails(
        3,
        ["why", "1.1", "--socket", &watched.socket],
        Path::new("/nowhere"),
        &["1.1", "no task"],
    );
    mobula_cli_support::check_fails(
        3,
        ["postmortem", "1", "--socket", &watched.socket],
        Path::new("/nowhere"),
        &["no task"],
    );
}

#[test]
fn calls_that_wait_are_counted_by_default_too_and_what_is_not_counted_is_unknown() {
    let watched = session_with(1, None);
    let gate = Gate::closed();
    let actor = Slow::remote();
    let running = actor.run(gate.path());
    let waiting: Vec<_> = (0..3).map(|_| actor.pid()).collect();
    let mut top = Value::Null;
    eventually("the calls wait", || {
        top = watched.ask(&["top", "--interval", "0.1"]);
        top["actors"][0]["queue"] == 3
    });
    assert_eq!(top["actors"][0]["in_flight"], 1, "{top}");
    assert_eq!(top["figures"]["pending"], 3, "{top}");
    assert_eq!(watched.ask(&["list", "actors"])["actors"][0]["queued"], 3);
    let metrics = watched.text(&["metrics"]);
    let pending = metrics.lines().find(|line| line.starts_with("mobula_actor_pending_tasks{"));
    assert!(pending.is_some_and(|line| line.ends_with(" 3") || line.ends_with(" 3.0")), "{metrics}");
    let summary = watched.summary("Slow::run");
    assert_eq!((&summary["running"], &summary["pending"]), (&1.into(), &Value::Null), "{summary}");
    drop(gate);
    running.get().unwrap();
    mobula::get(&waiting).unwrap();
}

#[test]
fn a_process_that_is_stopped_is_the_end_of_the_chain() {
    let watched = session(1);
    let actor = Slow::remote();
    let pid = actor.pid().get().unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGSTOP).unwrap();
    let waiting = actor.pid();
    let mut why = Value::Null;
    eventually("the process is stopped", || {
        why = watched.ask(&["why", &pid.to_string()]);
        why["end"] == "stopped"
    });
    assert!(why["text"].as_str().unwrap().contains(&format!("kill -CONT {pid}")), "{why}");
    kill(Pid::from_raw(pid as i32), Signal::SIGCONT).unwrap();
    assert_eq!(waiting.get().unwrap(), pid);
}

#[mobula::remote(streaming)]
fn numbers() -> impl Iterator<Item = u64> {
    0..1_000_000
}

#[test]
fn a_stream_that_nobody_reads_waits_for_its_reader() {
    let watched = session(1);
    let stream = numbers::remote();
    let mut why = Value::Null;
    eventually("it waits for its reader", || {
        let tasks = watched.tasks("numbers", "running");
        let Some(task) = tasks.first() else { return false };
        why = watched.ask(&["why", task["task"].as_str().unwrap()]);
        why["chain"][1]["text"].as_str().is_some_and(|text| text.ends_with("which reads its stream"))
    });
    assert_eq!(why["chain"][2]["id"], std::process::id().to_string(), "{why}");
    drop(stream);
}
