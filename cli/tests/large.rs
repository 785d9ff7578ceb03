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

/// The time of a command: the median of some runs, without the time that it waits on purpose.
fn median_of_command(watched: &Watched, words: &[&str], waits: Duration) -> Duration {
    let words: Vec<&str> = words.iter().copied().chain(["--json", "--socket", &watched.socket]).collect();
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let start = Instant::now();
            let output = run(&words, Path::new("/nowhere"));
            assert!(output.status.success() && output.stdout.len() > 10);
            start.elapsed().saturating_sub(waits)
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

/// Memory of this process and of its workers, private and shared, in kB: the pid and the proportional set size of each.
fn memory(watched: &Watched) -> Vec<(u64, u64)> {
    let workers = watched.ask(&["list", "workers"]);
    let pids = workers["workers"].as_array().unwrap().iter().map(|row| row["pid"].as_u64().unwrap());
    let pss = |pid: u64| {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap_or("Pss: 0 kB").to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    pids.map(|pid| (pid, pss(pid))).collect()
}

/// No process has a tenth more memory than before.
fn check_flat(before: &[(u64, u64)], now: &[(u64, u64)]) {
    for (pid, pss) in now {
        let Some((_, before)) = before.iter().find(|(of, _)| of == pid) else { continue };
        assert!(pss * 10 <= before * 11, "process {pid} had {before} kB and has {pss} kB");
    }
}

/// Prints what commands take after 10,000, 100,000 and 1,000,000 calls, each of which is three events, and how much
/// memory the session has. A person compares the times, in a release build on a machine that does nothing else:
/// `just large`. The test checks that all calls are counted, and that the memory of the workers does not grow with them
/// once every part of the recorders has been written. This process also reads what the commands print.
#[test]
#[ignore = "it measures, which takes a quiet machine"]
fn a_million_calls() {
    let watched = session(2);
    let (mut made, start) = (0, Instant::now());
    let mut written = Vec::new();
    let is_worker = |(pid, _): &(u64, u64)| *pid != u64::from(std::process::id());
    for until in [10_000, 100_000, 1_000_000] {
        call(&mut made, until);
        let rate = made as f64 / start.elapsed().as_secs_f64();
        let now = memory(&watched);
        let kilobytes: u64 = now.iter().map(|(_, pss)| pss).sum();
        println!("\n{made} calls, {rate:.0} a second, {kilobytes} kB");
        println!("  {:<44} {:>10}", "COMMAND", "TIME");
        let interval = Duration::from_millis(100);
        for (words, waits) in [
            (&["list", "tasks", "--limit", "100"][..], Duration::ZERO),
            (&["list", "tasks", "--sort", "ran_s"], Duration::ZERO),
            (&["summary", "tasks"], Duration::ZERO),
            // Two samples with a time between them.
            (&["top", "--interval", "0.1"], interval),
            (&["status"], Duration::ZERO),
            (&["memory"], Duration::ZERO),
        ] {
            let (command, time) = (words.join(" "), median_of_command(&watched, words, waits));
            println!("  mobula {command:<37} {:>7.1} ms", time.as_secs_f64() * 1e3);
        }
        let summary = watched.ask(&["summary", "tasks"]);
        let row = &summary["functions"][0];
        assert_eq!((&row["made"], &row["finished"]), (&made.into(), &made.into()), "{row}");
        let listed = watched.ask(&["list", "tasks", "--limit", "100"]);
        assert_eq!(listed["tasks"].as_array().unwrap().len(), 100);
        match until {
            100_000 => written = now.into_iter().filter(is_worker).collect(),
            _ => check_flat(&written, &now),
        }
    }
}

/// The seconds for which [`flat`] runs.
fn seconds() -> f64 {
    let seconds = std::env::var("MOBULA_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.unwrap_or(60.0)
}

/// Records 10,000 marks and 10,000 events of calls a second, and prints the memory of each process. After a tenth of
/// the time every part of the recorders has been written. From then on the memory grows by a tenth at most.
/// `MOBULA_SECONDS=600` is ten minutes, the default is one.
#[test]
#[ignore = "it takes a minute, or as long as MOBULA_SECONDS says"]
fn flat() {
    /// The parts of the time in which memory is measured.
    const PARTS: u32 = 10;
    const TICK: Duration = Duration::from_millis(10);
    // Each call is three events.
    const CALLS_A_TICK: u64 = 34;
    const MARKS_A_TICK: i64 = 100;
    let watched = session(2);
    let (start, part) = (Instant::now(), Duration::from_secs_f64(seconds() / f64::from(PARTS)));
    let (mut ticks, mut first) = (0_u32, Vec::new());
    println!("{:>8} {:>10} {:>10}  PSS IN KB, BY PID", "SECONDS", "MARKS", "EVENTS");
    for number in 1..=PARTS {
        while start.elapsed() < part * number {
            (0..MARKS_A_TICK).for_each(|number| mobula::mark("tick", number));
            let results: Vec<ObjectRef<u64>> = (0..CALLS_A_TICK).map(successor::remote).collect();
            assert_eq!(mobula::get(&results).unwrap().len(), results.len());
            ticks += 1;
            // Ticks that came late are made up for.
            std::thread::sleep((TICK * ticks).saturating_sub(start.elapsed()));
        }
        let now = memory(&watched);
        let (marks, events) = (i64::from(ticks) * MARKS_A_TICK, u64::from(ticks) * CALLS_A_TICK * 3);
        println!("{:>8.0} {marks:>10} {events:>10}  {now:?}", start.elapsed().as_secs_f64());
        match number {
            1 => first = now,
            _ => check_flat(&first, &now),
        }
    }
}
