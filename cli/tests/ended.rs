//! A person asks about an actor or a process that has ended. If this fails, the answer is that nothing is known of it,
//! or that it crashed when somebody has killed it.

use std::path::Path;
use std::time::Duration;

use mobula::{ActorOptions, Error, TaskOptions};
use mobula_cli_support::watched::{Watched, session, session_with};
use mobula_cli_support::{check_fails, eventually, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

struct Scores;

#[mobula::remote]
impl Scores {
    fn new(path: String) -> Result<Self, String> {
        match path.is_empty() {
            true => Ok(Self),
            false => Err(format!("the file {path} is missing\nsecond line")),
        }
    }

    fn pid(&self) -> u32 {
        println!("asked for the pid");
        std::process::id()
    }
}

/// Leaves a mark, and runs until its process ends.
#[mobula::remote]
fn marks_and_sleeps() {
    mobula::mark("epoch", 7);
    drop(mobula::span("load"));
    loop {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The record of a process once it has all of its parts.
fn postmortem(watched: &Watched, target: &str, reason: &str) -> Value {
    let mut found = Value::Null;
    eventually(&format!("{target} has ended: {reason}"), || {
        let output =
            run(["postmortem", target, "--json", "--socket", &watched.socket], Path::new("/nowhere"));
        found = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        found["reason"] == reason
    });
    found
}

fn running(watched: &Watched, function: &str) -> String {
    let mut pid = Value::Null;
    eventually("the call runs", || {
        pid = watched.ask(&["list", "workers", "--function", function])["workers"][0]["pid"].clone();
        !pid.is_null()
    });
    pid.to_string()
}

#[test]
fn times_count_back_from_the_end() {
    let watched = session(1);
    let call = marks_and_sleeps::options(TaskOptions::new().max_retries(0)).remote();
    let pid = running(&watched, "*marks_and_sleeps");
    // The last event is older than any rounding of times.
    std::thread::sleep(Duration::from_millis(50));
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    call.get().unwrap_err();
    let found = postmortem(&watched, &pid, "signal 9");
    let last = found["events"].as_array().unwrap().last().unwrap();
    assert!(found["ended"].as_f64().unwrap() - last["at"].as_f64().unwrap() >= 0.05, "{found}");
    assert!(last["text"].as_str().unwrap().starts_with("span load of "), "{found}");
    let text = watched.text(&["postmortem", &pid]);
    assert!(text.contains("\n  it ended ") && text.contains(" ago\n"), "{text}");
    assert!(text.contains(" before: mark epoch 7\n") && !text.contains("0.00 µs before"), "{text}");
    // Three digits and a unit, as everywhere.
    let took = last["text"].as_str().unwrap().trim_start_matches("span load of ");
    let (number, unit) = took.split_once(' ').unwrap();
    assert!(number.len() <= 4 && ["µs", "ms", "s"].contains(&unit), "{took}");
}

#[test]
fn what_was_killed_on_request_is_said() {
    let watched = session_with(1, None);
    let call = marks_and_sleeps::options(TaskOptions::new().max_retries(0)).remote();
    let pid = running(&watched, "*marks_and_sleeps");
    watched.ask(&["kill", &pid]);
    call.get().unwrap_err();
    postmortem(&watched, &pid, "killed on request");
    // By the program, and by the command.
    let by_program = Scores::options(ActorOptions::new().name("one")).remote(String::new());
    by_program.pid().get().unwrap();
    mobula::kill(&by_program).unwrap();
    let found = postmortem(&watched, "one", "killed on request");
    assert_eq!(found["actor"]["death"], "it was killed by `kill`");
    let by_command = Scores::options(ActorOptions::new().name("two").max_restarts(1)).remote(String::new());
    by_command.pid().get().unwrap();
    watched.ask(&["kill", "--restart", "two"]);
    let found = postmortem(&watched, "two", "killed on request");
    assert_eq!(found["actor"]["death"], Value::Null, "it was restarted");
    let status = watched.ask(&["status"])["session"]["unusual"].to_string();
    assert!(
        status.contains(&format!("process {pid} ended")) && status.contains("killed on request"),
        "{status}"
    );
}

#[test]
fn an_ended_actor_is_known_by_its_name() {
    let watched = session_with(1, None);
    let actor = Scores::options(ActorOptions::new().name("sy")).remote(String::new());
    let pid = actor.pid().get().unwrap();
    eventually("its output is read", || watched.text(&["logs", "sy"]).contains("asked for the pid"));
    mobula::kill(&actor).unwrap();
    postmortem(&watched, "sy", "killed on request");
    let check = || {
        let why = watched.ask(&["why", "sy"]);
        assert_eq!((&why["end"], &why["chain"][0]["kind"]), (&"dead".into(), &"actor".into()), "{why}");
        assert!(why["text"].as_str().unwrap().contains("killed by `kill`"), "{why}");
        assert!(watched.text(&["logs", "sy"]).contains(&format!("(Scores pid={pid}) asked for the pid")));
        let words = ["stack", "sy", "--socket", &watched.socket];
        check_fails(3, words, Path::new("/nowhere"), &["actor sy has ended", "`mobula postmortem sy`"]);
    };
    check();
    let row = watched.ask(&["list", "actors"])["actors"][0].clone();
    assert_eq!((&row["name"], &row["state"], &row["pid"]), (&"sy".into(), &"dead".into(), &pid.into()));
    // Its name is free. The other one is meant as long as it lives.
    let other = Scores::options(ActorOptions::new().name("sy")).remote(String::new());
    let its = other.pid().get().unwrap().to_string();
    eventually("the other one is found", || watched.ask(&["why", "sy"])["chain"][1]["id"] == its);
    mobula::kill(&other).unwrap();
    drop((actor, other));
    // The head forgets actors without handles, and keeps their names with their processes.
    eventually("they are forgotten", || watched.ask(&["list", "actors"])["total"] == 0);
    assert_eq!(watched.ask(&["why", "sy"])["end"], "dead");
    let words = ["stack", "sy", "--socket", &watched.socket];
    check_fails(3, words, Path::new("/nowhere"), &["actor sy has ended"]);
}

#[test]
fn the_reason_of_a_failed_constructor_is_shown() {
    let watched = session_with(1, None);
    let actor = Scores::options(ActorOptions::new().name("broken")).remote("scores.csv".to_owned());
    let error = actor.pid().get().unwrap_err();
    assert!(matches!(error, Error::Failed(_)), "{error}");
    let found = postmortem(&watched, "broken", "exit 0");
    assert!(found["actor"]["death"].as_str().unwrap().contains("the file scores.csv is missing"), "{found}");
    let text = watched.text(&["postmortem", "broken"]);
    assert!(
        text.contains("  the actor has ended: ") && text.contains("the file scores.csv is missing …"),
        "{text}"
    );
    let list = watched.text(&["list", "actors"]);
    assert!(list.lines().next().unwrap().ends_with("DEATH"), "{list}");
    assert!(
        list.contains("its constructor failed: ") && list.contains("the file scores.csv is missing …"),
        "{list}"
    );
}
