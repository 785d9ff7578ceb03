//! The cost of the commands in a session that has made many calls. If it grew with the calls, the commands would be
//! useless for a long session.

use std::path::Path;
use std::time::{Duration, Instant};

use mobula::ObjectRef;
use mobula_cli_support::run;
use mobula_cli_support::watched::{Watched, session};

#[mobula::remote]
fn successor(x: u64) -> u64 {
    x + 1
}

/// Makes calls, until `until` calls were made in all.
fn call(made: &mut u64, until: u64) {
    while *made < until {
        let results: Vec<ObjectRef<u64>> = (0..1000).map(successor::remote).collect();
        assert_eq!(mobula::get(&results).unwrap().len(), 1000);
        *made += 1000;
    }
}

fn median_of_command(watched: &Watched, words: &[&str]) -> Duration {
    let words: Vec<&str> = words.iter().copied().chain(["--json", "--socket", &watched.socket]).collect();
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let start = Instant::now();
            let output = run(&words, Path::new("/nowhere"));
            assert!(output.status.success() && output.stdout.len() > 10);
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// Memory of this process and of its children: private and shared, in kB.
fn memory(watched: &Watched) -> u64 {
    let workers = watched.ask(&["list", "workers"]);
    let pids = workers["workers"].as_array().unwrap().iter().map(|row| row["pid"].as_u64().unwrap());
    let pss = |pid: u64| {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap_or("Pss: 0 kB").to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    pids.map(pss).sum()
}

/// Prints what commands take after 10,000, 100,000 and 1,000,000 calls, each of which is three events, and how much
/// memory the session has. In a release build, on a machine that does nothing else:
/// `cargo test --release -p mobula-cli --test large -- --ignored --nocapture`.
#[test]
#[ignore = "it measures, which takes a quiet machine"]
fn a_million_calls() {
    let watched = session(2);
    let (mut made, start) = (0, Instant::now());
    for until in [10_000, 100_000, 1_000_000] {
        call(&mut made, until);
        let rate = made as f64 / start.elapsed().as_secs_f64();
        println!("{made} calls, {rate:.0} a second, {} kB", memory(&watched));
        for words in [
            &["list", "tasks", "--limit", "100"][..],
            &["list", "tasks", "--sort", "ran_s"],
            &["summary", "tasks"],
            &["status"],
            &["memory"],
        ] {
            println!("  mobula {}: {:?}", words.join(" "), median_of_command(&watched, words));
        }
    }
    let summary = watched.ask(&["summary", "tasks"]);
    assert_eq!(summary["functions"][0]["made"], made);
}
