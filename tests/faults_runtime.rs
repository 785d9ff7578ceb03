//! Workers, actors and drivers that are killed while they work: if these fail, a call hangs, runs more often than it
//! may, is lost although it may be tried again, or something stays behind.
//!
//! `MOBULA_KILLS` says how many workers and actors are killed (200), `MOBULA_DRIVER_KILLS` how many drivers (15), and
//! `MOBULA_SEED` replays what was chosen at random. The full run:
//!
//! ```console
//! $ MOBULA_KILLS=2000 MOBULA_DRIVER_KILLS=200 cargo test -p mobula-tests --test faults_runtime -- --nocapture
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula::prelude::*;
use mobula::{ActorOptions, Builder, Error, Failure, TaskOptions, UNLIMITED};
use mobula_client::Client;
use mobula_tests::{PATIENCE, Random, eventually, is_running, session, session_lock, session_processes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WORKERS: usize = 3;
const LARGE_BYTES: usize = 200_000;

// ---- the calls ----

/// Adds a line to a file, whole or not at all.
fn note(log: &Path, line: impl std::fmt::Display) {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn notes(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Something to be killed in.
fn work(id: u64) {
    std::thread::sleep(Duration::from_micros(id % 7 * 100));
}

#[mobula::remote]
fn noted(log: PathBuf, id: u64) -> u64 {
    note(&log, id);
    work(id);
    id
}

#[mobula::remote(max_retries = unlimited)]
fn quiet(id: u64) -> u64 {
    work(id);
    id
}

/// Calls others, and waits for them.
#[mobula::remote]
fn nested(log: PathBuf, id: u64) -> mobula::Result<u64> {
    note(&log, id);
    let parts: Vec<_> = (0..3).map(|_| quiet::remote(id)).collect();
    Ok(mobula::get(&parts)?.into_iter().sum::<u64>() / 3)
}

/// Takes and returns what goes through the store.
#[mobula::remote]
fn large(log: PathBuf, id: u64, bytes: Bytes) -> Bytes {
    note(&log, id);
    work(id);
    Bytes::from(bytes.iter().map(|byte| byte.wrapping_add(1)).collect::<Vec<u8>>())
}

#[mobula::remote(max_retries = unlimited)]
fn is_all(bytes: Bytes, byte: u8, id: u64) -> u64 {
    assert!(bytes.len() == LARGE_BYTES && bytes.iter().all(|each| *each == byte), "wrong bytes");
    id
}

/// Notes its births and its calls.
struct Diary {
    log: PathBuf,
    ballast: Bytes,
}

const BORN: &str = "born";

#[mobula::remote]
impl Diary {
    fn new(log: PathBuf, ballast: Bytes) -> Self {
        note(&log, BORN);
        Self { log, ballast }
    }

    fn note(&self, id: u64) -> u64 {
        assert!(
            self.ballast.len() == LARGE_BYTES && self.ballast.iter().all(|byte| *byte == 9),
            "wrong bytes"
        );
        note(&self.log, id);
        work(id);
        id
    }
}

// ---- the killers ----

/// Kills workers and actors of a session, at random times, until enough of them are dead.
struct Killer {
    killed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Killer {
    fn start(socket: PathBuf, wanted: u64, mut random: Random) -> Self {
        let (killed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, is_over) = (killed.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while count.load(Ordering::Relaxed) < wanted && !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(random.below(20_000)));
                let victims = workers(&socket);
                let Some(victim) = victims.get(random.below(victims.len() as u64) as usize) else { continue };
                if kill(Pid::from_raw(*victim as i32), Signal::SIGKILL).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { killed, stop, thread: Some(thread) }
    }

    fn is_done(&self) -> bool {
        self.thread.as_ref().is_some_and(std::thread::JoinHandle::is_finished)
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// The session's processes but its store.
fn workers(socket: &Path) -> Vec<u32> {
    called(socket, "mobula-worker")
}

/// The session's processes of this name.
fn called(socket: &Path, name: &str) -> Vec<u32> {
    let is_called = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(name))
    };
    let mut pids = session_processes(socket);
    pids.retain(is_called);
    pids
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

// ---- workers and actors ----

/// A call that was made, and what was promised about it.
struct Made {
    id: u64,
    kind: &'static str,
    reference: ObjectRef<u64>,
    /// How often the call may run.
    runs_max: u64,
    /// Whether it must succeed, whichever process dies.
    succeeds: bool,
}

#[derive(Default)]
struct Tally {
    made: u64,
    failed: u64,
}

#[test]
fn killed_workers_and_actors_hang_nobody_and_nothing_runs_more_often_than_it_may() {
    let wanted = environment("MOBULA_KILLS", 200);
    let mut random = Random::from_environment();
    let session = session(WORKERS);
    let (client, socket) = (session.session.client(), session.session.socket().to_owned());
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("calls");
    quiet::remote(1).get().unwrap();
    // Each worker has its channel to the head. The driver has one to the head and one to the worker of the first call.
    // All that they take is counted.
    eventually("the workers are there", || client.stats().unwrap().totals.channels as usize == WORKERS + 2);
    let before = Traces::of(&client, &socket);

    let diary = |name: &str, options: ActorOptions| {
        let log = directory.path().join(name);
        // Nobody but the head has it, from here on.
        (Diary::options(options).remote(log.clone(), Bytes::from(vec![9; LARGE_BYTES])), log)
    };
    // At most once, in order; at least once, in order; and one that is over after a while.
    let (once, once_log) = diary("once", ActorOptions::new().name("once").max_restarts(UNLIMITED));
    let (again, again_log) =
        diary("again", ActorOptions::new().max_restarts(UNLIMITED).max_task_retries(UNLIMITED));
    let (mut mortals, mut mortal_logs) = (Vec::new(), Vec::new());

    let start = Instant::now();
    let killer = Killer::start(socket.clone(), wanted, Random::from_seed(random.below(u64::MAX)));
    let mut tallies: HashMap<&'static str, Tally> = HashMap::new();
    let mut executions_max: HashMap<u64, (u64, bool)> = HashMap::new();
    let (mut next_id, mut slowest) = (0, Duration::ZERO);
    while !killer.is_done() {
        if mortals.len() < 2 {
            let (mortal, log) =
                diary(&format!("mortal-{}", mortal_logs.len()), ActorOptions::new().max_restarts(2));
            mortals.push(mortal);
            mortal_logs.push(log);
        }
        let same = mobula::get_actor::<Diary>("once").unwrap();
        let mut calls = Vec::new();
        for _ in 0..80 {
            next_id += 1;
            let id = next_id;
            let retries = |max: u32| TaskOptions::new().max_retries(max);
            let plain = |max: u32| noted::options(retries(max)).remote(log.clone(), id);
            let (kind, reference, runs_max, succeeds) = match random.below(9) {
                0 => ("task", plain(0), 1, false),
                1 => ("task, 2 retries", plain(2), 3, false),
                2 => ("task, unlimited", plain(UNLIMITED), u64::MAX, true),
                3 => ("nested", nested::remote(log.clone(), id), 1, false),
                4 => {
                    let nested = nested::options(retries(UNLIMITED)).remote(log.clone(), id);
                    ("nested, unlimited", nested, u64::MAX, true)
                }
                5 => {
                    let byte = id as u8;
                    let sent = Bytes::from(vec![byte; LARGE_BYTES]);
                    let back = large::options(retries(UNLIMITED)).remote(log.clone(), id, sent);
                    ("large, a chain", is_all::remote(back, byte.wrapping_add(1), id), u64::MAX, true)
                }
                6 if id % 2 == 0 => ("actor, restarts", same.note(id), 1, false),
                6 => ("actor, restarts", once.note(id), 1, false),
                7 => ("actor, restarts and retries", again.note(id), u64::MAX, true),
                _ => {
                    let mortal = &mortals[random.below(mortals.len() as u64) as usize];
                    ("actor, 2 restarts", mortal.note(id), 1, false)
                }
            };
            calls.push(Made { id, kind, reference, runs_max, succeeds });
        }
        drop(same);
        for Made { id, kind, reference, runs_max, succeeds } in calls {
            let waiting = Instant::now();
            let result = reference.get_timeout(PATIENCE);
            slowest = slowest.max(waiting.elapsed());
            let tally = tallies.entry(kind).or_default();
            tally.made += 1;
            match &result {
                Ok(value) => assert_eq!(*value, id, "{kind}"),
                Err(Error::Failed(
                    Failure::WorkerDied { .. } | Failure::ActorUnavailable { .. } | Failure::ActorDied { .. },
                )) if !succeeds => tally.failed += 1,
                Err(error) => panic!("{kind}, call {id}: {error:?}"),
            }
            if let Err(Error::Failed(Failure::ActorDied { .. })) = result {
                assert_eq!(kind, "actor, 2 restarts");
            }
            executions_max.insert(id, (runs_max, result.is_ok()));
        }
        // Those that are over make room for others.
        mortals.retain(|mortal| {
            !matches!(mortal.note(0).get_timeout(PATIENCE), Err(Error::Failed(Failure::ActorDied { .. })))
        });
    }
    let killed = killer.killed.load(Ordering::Relaxed);
    drop(killer);
    println!(
        "{killed} processes killed in {:.1?} while {next_id} calls were made; slowest {slowest:.1?}",
        start.elapsed()
    );
    let mut tallies: Vec<_> = tallies.into_iter().collect();
    tallies.sort_by_key(|(kind, _)| *kind);
    for (kind, Tally { made, failed }) in &tallies {
        println!("  {kind}: {made} calls, {failed} failed");
    }
    assert!(killed >= wanted);

    // How often each ran.
    let mut runs: HashMap<u64, u64> = HashMap::new();
    let mut restarts = 0;
    let all_logs = [log, once_log.clone(), again_log.clone()].into_iter().chain(mortal_logs.clone());
    for line in all_logs.flat_map(|log| notes(&log)) {
        match line.parse() {
            Ok(id) => *runs.entry(id).or_default() += 1,
            Err(_) => restarts += 1,
        }
    }
    let mut most = 0;
    for (id, (runs_max, succeeded)) in &executions_max {
        let runs = runs.get(id).copied().unwrap_or(0);
        assert!(runs <= *runs_max, "call {id} ran {runs} times");
        assert!(runs >= 1 || !succeeded, "call {id} succeeded, and did not run");
        most = most.max(runs);
    }
    println!("  no call ran more often than it may; the most retried one ran {most} times");
    println!("  {} actors were born {restarts} times", mortal_logs.len() + 2);

    // Actors: their order, and how often they were born.
    let ids = |lines: &[String]| lines.iter().filter_map(|line| line.parse().ok()).collect::<Vec<u64>>();
    for (at, log) in std::iter::once(&once_log).chain(&mortal_logs).enumerate() {
        let lines = notes(log);
        let ids: Vec<u64> = ids(&lines).into_iter().filter(|id| *id != 0).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{log:?}: calls ran out of order, or twice");
        let births = lines.iter().filter(|line| *line == BORN).count();
        assert!(at == 0 || births <= 3, "{log:?}: born {births} times");
    }
    for life in notes(&again_log).split(|line| line == BORN) {
        assert!(ids(life).is_sorted_by(|a, b| a < b), "{life:?}: calls ran out of order");
    }

    // And nothing is left of any of it.
    drop((once, again, mortals));
    before.are_back(&client, &socket);
    assert_eq!(quiet::remote(5).get().unwrap(), 5);
    drop(client);
    let _lock = session.end();
    assert!(!socket.parent().unwrap().exists());
    eventually("no process of the session is left", || session_processes(&socket).is_empty());
}

/// As many recorders of dead clients as a store keeps: its default. Each has two descriptors.
const RECORDERS_MAX: usize = 32;

/// The resources of a session in the system.
#[derive(Debug)]
struct Traces {
    objects: u64,
    pins: u64,
    driver_descriptors: BTreeMap<String, usize>,
    driver_mappings: BTreeMap<String, usize>,
    store_descriptors: BTreeMap<String, usize>,
}

impl Traces {
    fn of(client: &Client, socket: &Path) -> Self {
        let stats = client.stats().unwrap();
        let store = called(socket, "mobula-store")[0];
        Self {
            objects: stats.objects(),
            pins: stats.pins(),
            driver_descriptors: descriptors("self"),
            driver_mappings: mappings(),
            store_descriptors: descriptors(&store.to_string()),
        }
    }

    /// Waits until it is all as it was, but for what is kept to be used again.
    fn are_back(&self, client: &Client, socket: &Path) {
        let start = Instant::now();
        loop {
            let now = Self::of(client, socket);
            let stats = client.stats().unwrap();
            let processes = workers(socket).len();
            let is_back = (now.objects, now.pins) == (self.objects, self.pins)
                && (stats.totals.dead_clients, stats.totals.orphaned_bytes, stats.totals.names) == (0, 0, 0)
                // The driver, the head, and the workers.
                && stats.totals.clients as usize == WORKERS + 2
                && processes == WORKERS
                && zombies() == 0
                // Every worker and the driver may know each other now: a table, pins both ways, and a channel.
                && count(&now.driver_descriptors) <= count(&self.driver_descriptors) + 8
                && count(&now.driver_mappings) <= count(&self.driver_mappings) + 32
                // The recorders of the processes that died last are kept.
                && count(&now.store_descriptors) <= count(&self.store_descriptors) + 8 + 2 * RECORDERS_MAX;
            if is_back {
                println!("  before: {self:?}\n  after:  {now:?}");
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "something is left: {now:#?}\nof {self:#?}\n{processes} workers, {} zombies, {stats:#?}",
                zombies()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn count(kinds: &BTreeMap<String, usize>) -> usize {
    kinds.values().sum()
}

/// How many mappings of shared memory this process has, by kind.
fn mappings() -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for kind in maps.lines().filter_map(|line| line.split("memfd:").nth(1)) {
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

/// How many descriptors a process has, by kind.
fn descriptors(process: &str) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    for target in entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()) {
        let kind = target.to_string_lossy().split(':').take(2).collect::<Vec<_>>().join(":");
        let kind = kind.trim_end_matches(|letter: char| !letter.is_alphabetic() && letter != ')').to_owned();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// Children of this process that nobody has waited for.
fn zombies() -> usize {
    let this = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap();
    let stats = processes.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let is_ours = |stat: &String| {
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(&this)
    };
    stats.filter(is_ours).count()
}

// ---- drivers ----

#[test]
#[ignore = "run as a child by another test"]
fn child_is_a_driver_under_load() {
    if std::env::var_os("MOBULA_TEST_CHILD").is_none() {
        return;
    }
    let session = Builder::new().workers(WORKERS).capacity_bytes(128 << 20).init().unwrap();
    let directory = tempfile::tempdir().unwrap();
    println!("\nsession {} {}", session.socket().display(), directory.path().display());
    let log = directory.path().join("log");
    let options = ActorOptions::new().max_restarts(UNLIMITED).max_task_retries(UNLIMITED);
    let diary = Diary::options(options).remote(log.clone(), Bytes::from(vec![9; LARGE_BYTES]));
    for id in 1.. {
        let large = large::remote(log.clone(), id, Bytes::from(vec![1; LARGE_BYTES]));
        let nested: Vec<_> = (0..20).map(|_| nested::remote(log.clone(), id)).collect();
        let notes: Vec<_> = (0..20).map(|_| diary.note(id)).collect();
        mobula::get(&nested).unwrap();
        mobula::get(&notes).unwrap();
        large.get().unwrap();
    }
}

#[test]
fn a_killed_driver_takes_its_session_with_it() {
    // No other session of this process, whose load would be measured too.
    let _lock = session_lock();
    let wanted = environment("MOBULA_DRIVER_KILLS", 15);
    let mut random = Random::from_environment();
    let mut took = Vec::new();
    let mut processes = 0;
    for _ in 0..wanted {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_is_a_driver_under_load", "--nocapture", "--ignored"])
            .env("MOBULA_TEST_CHILD", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let line = stdout.lines().map_while(Result::ok).find(|line| line.starts_with("session ")).unwrap();
        let mut words = line.split(' ').skip(1).map(PathBuf::from);
        let (socket, scratch) = (words.next().unwrap(), words.next().unwrap());
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        processes += session_processes(&socket).len();
        let killed = Instant::now();
        child.kill().unwrap();
        eventually("the killed driver's session is gone", || {
            session_processes(&socket).is_empty() && !socket.parent().unwrap().exists()
        });
        took.push(killed.elapsed());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!is_running(child.id()));
        let _ = std::fs::remove_dir_all(scratch);
    }
    took.sort_unstable();
    let (median, max) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{wanted} drivers killed, with {processes} processes of their sessions: gone within {median:.1?} (median), \
         {max:.1?} (at most)"
    );
}
