//! Sessions with more than a thousand processes: if these fail, many blocked calls, deep recursion, or many actors hang
//! instead of ending with a result or with the limit of processes.
//!
//! They take minutes and gigabytes, so they are not part of an ordinary run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mobula::{Builder, Error, Failure, ObjectRef};
use mobula_tests::{TestSession, eventually, session_with};

/// Blocked calls and levels of recursion.
const CALLS: usize = 1100;
const ACTORS: usize = 1500;
/// How long a call may take to end, in any way.
const PATIENCE: Duration = Duration::from_secs(600);

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[mobula::remote]
fn waits_for(says: PathBuf, gate: PathBuf) -> i64 {
    std::fs::write(says, "").unwrap();
    eventually("the gate opens", || gate.exists());
    7
}

#[mobula::remote]
fn gets(reference: Vec<ObjectRef<i64>>) -> mobula::Result<i64> {
    reference[0].get()
}

#[mobula::remote]
fn deep(n: u32) -> mobula::Result<u32> {
    if n == 0 { Ok(0) } else { Ok(deep::remote(n - 1).get()? + 1) }
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

/// With the limit of processes as it is by itself, or with another.
fn session(max_processes: Option<usize>) -> TestSession {
    let builder = Builder::new().workers(2).capacity_bytes(256 << 20);
    session_with(match max_processes {
        Some(max) => builder.max_processes(max),
        None => builder,
    })
}

/// Each result is the expected one, or says that there are too many processes; how many of each.
fn ends<T: PartialEq + std::fmt::Debug>(
    results: impl IntoIterator<Item = mobula::Result<T>>,
    expected: &T,
) -> [usize; 2] {
    let mut ends = [0; 2];
    for result in results {
        match result {
            Ok(value) => {
                assert_eq!(value, *expected);
                ends[0] += 1;
            }
            Err(error) => {
                let is_limit = match &error {
                    Error::Failed(Failure::ProcessLimit { limit, in_use }) => in_use <= limit,
                    Error::Task(task) => task.message.contains("processes are in use"),
                    _ => false,
                };
                assert!(is_limit, "{error:?}");
                ends[1] += 1;
            }
        }
    }
    ends
}

/// Memory that the session's processes have, together and without what they share, and how many they are.
fn memory_of(session: &TestSession) -> (usize, u64) {
    let pids = mobula_tests::session_processes(session.session.socket());
    let private = |pid: &u32| {
        let rollup = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("smaps_rollup"));
        let rows = rollup.unwrap_or_default();
        let rows: BTreeMap<&str, &str> = rows.lines().filter_map(|line| line.split_once(':')).collect();
        let kib =
            |name| rows.get(name).and_then(|row| row.split_whitespace().next()?.parse().ok()).unwrap_or(0u64);
        kib("Private_Clean") + kib("Private_Dirty")
    };
    (pids.len(), pids.iter().map(private).sum::<u64>() >> 10)
}

fn check(what: &str, max_processes: Option<usize>, run: impl FnOnce(&TestSession) -> [usize; 2]) {
    let session = session(max_processes);
    let began = Instant::now();
    let [there, refused] = run(&session);
    let took = began.elapsed();
    let (processes, mib) = memory_of(&session);
    println!(
        "{what}, limit {max_processes:?}: {there} succeed, {refused} refused, {took:.1?}; then {processes} processes \
         with {mib} MiB of their own"
    );
    // Everything works as before.
    assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
    let ends = Instant::now();
    drop(session);
    println!("the session ended in {:.1?}", ends.elapsed());
}

const LIMITS: [Option<usize>; 2] = [None, Some(4000)];

#[test]
#[ignore = "minutes and gigabytes: cargo test -p mobula-tests --test crowds -- --ignored --nocapture --test-threads 1"]
fn many_blocked_calls() {
    for limit in LIMITS {
        check("blocked calls", limit, |session| {
            let directory = tempfile::tempdir().unwrap();
            let (says, gate) = (directory.path().join("says"), directory.path().join("gate"));
            let slow = waits_for::remote(says.clone(), gate.clone());
            eventually("it runs", || says.exists());
            let blocked: Vec<_> = (0..CALLS).map(|_| gets::remote(vec![slow.clone()])).collect();
            let began = Instant::now();
            let mut most = (0, 0);
            while most.0 < CALLS && began.elapsed() < Duration::from_secs(200) {
                most = most.max(memory_of(session));
                std::thread::sleep(Duration::from_millis(500));
            }
            println!("at most {} processes, with {} MiB of their own", most.0, most.1);
            std::fs::write(gate, "").unwrap();
            ends(blocked.iter().map(|call| call.get_timeout(PATIENCE)), &7)
        });
    }
}

#[test]
#[ignore = "minutes and gigabytes: cargo test -p mobula-tests --test crowds -- --ignored --nocapture --test-threads 1"]
fn deep_recursion() {
    for limit in LIMITS {
        check("recursion", limit, |_| {
            let depth = CALLS as u32;
            ends([deep::remote(depth).get_timeout(PATIENCE)], &depth)
        });
    }
}

#[test]
#[ignore = "minutes and gigabytes: cargo test -p mobula-tests --test crowds -- --ignored --nocapture --test-threads 1"]
fn many_actors() {
    for limit in LIMITS {
        check("actors", limit, |session| {
            let actors: Vec<_> = (0..ACTORS).map(|_| Echo::remote()).collect();
            let calls: Vec<_> = actors.iter().map(|actor| actor.say(1)).collect();
            let ends = ends(calls.iter().map(|call| call.get_timeout(PATIENCE)), &1);
            let (processes, mib) = memory_of(session);
            println!("{processes} processes, with {mib} MiB of their own");
            ends
        });
    }
}
