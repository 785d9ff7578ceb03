//! Memory that runs short. If these fail, the kernel ends the driver or the store with everything in it, a process is
//! ended that should not be, a call is not retried, or its error does not say what to do.
//!
//! Most of these give the session files of their own that say how much memory is in use. So nothing else on the machine
//! matters, and the memory of the machine is not used up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mobula::{ActorEnd, Builder, Error, ExitReason, Failure, MemoryLimit, TaskOptions};
use mobula_store::machine::{Version, memory_groups};
use mobula_tests::{PATIENCE, Random, TestSession, eventually, session_with};

/// Memory that a call holds.
const HELD: usize = 64 << 20;
/// Between two looks, where a test must say in time that there is memory again.
const UNHURRIED: Duration = Duration::from_secs(3);

/// A machine with 1000 MiB, as its files say.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(machine.0.path().join("proc")).unwrap();
        machine.uses(100);
        machine
    }

    fn uses(&self, megabytes: u64) {
        let (total, available) = (1000 << 10, (1000 - megabytes) << 10);
        let text = format!("MemTotal: {total} kB\nMemAvailable: {available} kB\nShmem: 2048 kB\n");
        std::fs::write(self.0.path().join("proc/meminfo"), text).unwrap();
    }

    fn session(&self, workers: usize, interval: Duration) -> TestSession {
        self.session_with(Builder::new(), workers, interval)
    }

    fn session_with(&self, builder: Builder, workers: usize, interval: Duration) -> TestSession {
        let builder = builder.memory_root(self.0.path()).memory_monitor_interval(interval);
        session_with(builder.workers(workers).capacity_bytes(64 << 20))
    }
}

/// Files in which attempts of a call note that they have begun.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Notes(PathBuf);

impl Notes {
    fn in_directory(directory: &Path, name: &str) -> Self {
        Self(directory.join(name))
    }

    /// Notes that an attempt has begun. Returns its number, from 1 on.
    fn begin(&self) -> usize {
        let pids = self.pids().iter().map(|pid| format!("{pid}\n")).collect::<String>();
        // Never to be seen half.
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{pids}{}\n", std::process::id())).unwrap();
        std::fs::rename(new, &self.0).unwrap();
        self.pids().len()
    }

    /// The processes of the attempts.
    fn pids(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn wait_for_attempt(&self, number: usize) {
        eventually("the attempt has begun", || self.pids().len() >= number);
    }

    fn release(&self) {
        std::fs::write(self.0.with_extension("go"), "").unwrap();
    }

    fn wait_for_release(&self) {
        eventually("the test goes on", || self.0.with_extension("go").exists());
    }
}

/// Holds memory until the test says so. Returns the number of the attempt.
#[mobula::remote]
fn holds(notes: Notes) -> usize {
    let memory = std::hint::black_box(vec![1u8; HELD]);
    let attempt = notes.begin();
    notes.wait_for_release();
    drop(memory);
    attempt
}

/// Holds memory in its first attempt, dies in the second, and returns in the third.
#[mobula::remote(max_retries = 1)]
fn unlucky(notes: Notes) -> usize {
    let memory = std::hint::black_box(vec![1u8; HELD]);
    match notes.begin() {
        1 => notes.wait_for_release(),
        2 => std::process::abort(),
        _ => {}
    }
    drop(memory);
    notes.pids().len()
}

#[mobula::remote]
fn one() -> u32 {
    1
}

struct Keeper(Vec<u8>);

#[mobula::remote]
impl Keeper {
    fn new() -> Self {
        Self(std::hint::black_box(vec![1; HELD]))
    }

    fn keeps(&self) -> usize {
        self.0.len()
    }
}

/// Checks that a process was ended because this machine's memory was short.
fn assert_is_short(reason: ExitReason, text: &str) {
    let ExitReason::OutOfMemory { limit, used_bytes, limit_bytes, shared_bytes, own_bytes } = reason else {
        panic!("{reason:?}");
    };
    assert_eq!((limit, used_bytes, limit_bytes), (MemoryLimit::Machine, 990 << 20, 1000 << 20));
    assert_eq!(shared_bytes, 2 << 20);
    assert!((HELD as u64..4 * HELD as u64).contains(&own_bytes), "{own_bytes}");
    for part in ["990.0 MiB of 1000.0 MiB of the machine", "2.0 MiB for shared memory", "fewer such calls"] {
        assert!(text.contains(part), "{text}");
    }
}

/// The most memory that a process which was ended had, as the head recorded it.
fn peak_of(pid: u32) -> u64 {
    let mut peak = None;
    eventually("the end is recorded", || {
        let found = mobula::state::look().unwrap().postmortem(&pid.to_string()).ok();
        let found = found.filter(|found| found.reason.as_deref() == Some("out of memory"));
        peak = found.and_then(|found| found.peak_memory_bytes);
        peak.is_some()
    });
    peak.unwrap()
}

#[test]
fn a_call_and_an_actor_that_are_ended_fail_with_the_figures() {
    let (machine, directory) = (Machine::new(), tempfile::tempdir().unwrap());
    let _session = machine.session(1, Duration::from_millis(10));
    // It may be retried, but it is the only one.
    for (number, retries) in [0, mobula::UNLIMITED].into_iter().enumerate() {
        let notes = Notes::in_directory(directory.path(), &number.to_string());
        let call = holds::options(TaskOptions::new().max_retries(retries)).remote(notes.clone());
        notes.wait_for_attempt(1);
        machine.uses(990);
        let error = call.get_timeout(PATIENCE).unwrap_err();
        machine.uses(100);
        let Error::Failed(Failure::WorkerDied { pid, reason, .. }) = error else { panic!("{error:?}") };
        assert_is_short(reason, &error.to_string());
        assert_eq!(notes.pids(), [pid]);
        assert!(peak_of(pid) >= HELD as u64);
    }
    let keeper = Keeper::remote();
    assert_eq!(keeper.keeps().get().unwrap(), HELD);
    machine.uses(990);
    let error = loop {
        if let Err(error) = keeper.keeps().get_timeout(PATIENCE) {
            break error;
        }
    };
    machine.uses(100);
    let Error::Failed(Failure::ActorDied { cause: ActorEnd::Process { reason, .. }, .. }) = error else {
        panic!("{error:?}");
    };
    assert_is_short(reason, &error.to_string());
    assert_eq!(one::remote().get().unwrap(), 1, "the session goes on");
}

#[test]
fn processes_that_use_little_are_not_ended() {
    let machine = Machine::new();
    let _session = machine.session(1, Duration::from_millis(1));
    machine.uses(990);
    let begin = Instant::now();
    let mut calls = 0;
    while calls < 100 || begin.elapsed() < Duration::from_millis(500) {
        assert_eq!(one::remote().get().unwrap(), 1);
        calls += 1;
    }
}

/// Leaves memory in its process.
#[mobula::remote]
fn leaves_memory() -> u32 {
    static LEFT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    LEFT.get_or_init(|| std::hint::black_box(vec![1; HELD]));
    std::process::id()
}

#[test]
fn an_idle_process_is_ended_before_any_call() {
    let (machine, directory) = (Machine::new(), tempfile::tempdir().unwrap());
    let _session = machine.session(2, UNHURRIED);
    let running = Notes::in_directory(directory.path(), "running");
    let call = holds::options(TaskOptions::new().max_retries(1)).remote(running.clone());
    running.wait_for_attempt(1);
    let idle = leaves_memory::remote().get().unwrap();
    let free = || mobula::available_resources().unwrap().num_cpus();
    eventually("its lease has ended", || free() == 1.0);
    machine.uses(990);
    eventually("the idle process is ended", || !mobula_tests::is_running(idle));
    machine.uses(100);
    assert_eq!(one::remote().get().unwrap(), 1, "another one takes its place");
    running.release();
    assert_eq!(call.get_timeout(PATIENCE).unwrap(), 1, "it was left alone");
}

#[test]
fn the_newest_call_that_may_be_retried_is_ended_and_retried_on_a_count_of_its_own() {
    let (machine, directory) = (Machine::new(), tempfile::tempdir().unwrap());
    let session = machine.session(4, UNHURRIED);
    let notes = |name: &str| Notes::in_directory(directory.path(), name);
    let (first, unlucky_notes, last) = (notes("first"), notes("unlucky"), notes("last"));
    let retried = TaskOptions::new().max_retries(5);
    let first_call = holds::options(retried).remote(first.clone());
    first.wait_for_attempt(1);
    let unlucky_call = unlucky::remote(unlucky_notes.clone());
    unlucky_notes.wait_for_attempt(1);
    // It is newer, but may not be retried.
    let last_call = holds::remote(last.clone());
    last.wait_for_attempt(1);

    machine.uses(990);
    let ended = unlucky_notes.pids()[0];
    eventually("a process is ended", || !mobula_tests::is_running(ended));
    machine.uses(100);
    // Its one ordinary retry is left for its death in the second attempt.
    assert_eq!(unlucky_call.get_timeout(PATIENCE).unwrap(), 3);
    for (call, notes) in [(first_call, first), (last_call, last)] {
        notes.release();
        assert_eq!(call.get_timeout(PATIENCE).unwrap(), 1, "it was left alone");
    }
    drop(session);

    // Without such retries, it fails.
    let session = machine.session_with(Builder::new().task_oom_retries(0), 4, UNHURRIED);
    let (older, newer) = (notes("older"), notes("newer"));
    let retried = || TaskOptions::new().max_retries(5);
    let older_call = holds::options(retried()).remote(older.clone());
    older.wait_for_attempt(1);
    let newer_call = holds::options(retried()).remote(newer.clone());
    newer.wait_for_attempt(1);
    machine.uses(990);
    let error = newer_call.get_timeout(PATIENCE).unwrap_err();
    machine.uses(100);
    let Error::Failed(Failure::WorkerDied { reason, .. }) = error else { panic!("{error:?}") };
    assert_is_short(reason, &error.to_string());
    older.release();
    assert_eq!(older_call.get_timeout(PATIENCE).unwrap(), 1);
    drop(session);
}

// ---- memory that runs short again and again ----

/// Holds some memory for a moment, and counts how often it was begun.
#[mobula::remote]
fn adds(begun: PathBuf, a: u64, b: u64) -> u64 {
    use std::io::Write;
    let memory = std::hint::black_box(vec![1u8; 4 << 20]);
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(begun).unwrap();
    file.write_all(b"x").unwrap();
    std::thread::sleep(Duration::from_millis(b % 20));
    drop(memory);
    a + b
}

/// The same in calls of its own.
#[mobula::remote]
fn adds_by_others(directory: PathBuf, a: u64, b: u64) -> mobula::Result<u64> {
    let memory = std::hint::black_box(vec![1u8; 4 << 20]);
    let retried = || TaskOptions::new().max_retries(1);
    let sums: Vec<_> = (0..3)
        .map(|number| adds::options(retried()).remote(directory.join(number.to_string()), a, b))
        .collect();
    let sums = mobula::get(&sums)?;
    drop(memory);
    Ok(sums[0])
}

/// Whether memory was short for this call, or for one that it made.
fn is_for_memory(error: &Error) -> bool {
    let is_its = |failure: &Failure| {
        matches!(failure, Failure::WorkerDied { reason: ExitReason::OutOfMemory { .. }, .. })
    };
    match error {
        Error::Failed(failure) => is_its(failure),
        Error::Task(error) => error.cause.as_deref().is_some_and(is_its),
        _ => false,
    }
}

#[test]
fn every_call_ends_with_its_value_or_the_reason_however_often_memory_is_short() {
    let seed = std::env::var("MOBULA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("MOBULA_SEED={seed}");
    let mut random = Random::from_seed(seed);
    let (machine, directory) = (Machine::new(), tempfile::tempdir().unwrap());
    let _session = machine.session(4, Duration::from_millis(5));
    let mut calls = Vec::new();
    for number in 0..60u64 {
        let retries = [0, 1, mobula::UNLIMITED][random.below(3) as usize];
        let options = TaskOptions::new().max_retries(retries);
        let place = directory.path().join(number.to_string());
        let is_outer = random.below(4) == 0;
        let call = if is_outer {
            std::fs::create_dir(&place).unwrap();
            adds_by_others::options(options).remote(place.clone(), 1000, number)
        } else {
            adds::options(options).remote(place.clone(), 1000, number)
        };
        calls.push((number, retries, is_outer, place, call));
        if random.below(3) == 0 {
            machine.uses([100, 990][random.below(2) as usize]);
            std::thread::sleep(Duration::from_millis(random.below(40)));
        }
    }
    machine.uses(100);
    let mut failed = 0;
    for (number, retries, is_outer, place, call) in calls {
        match call.get_timeout(PATIENCE) {
            Ok(sum) => assert_eq!(sum, 1000 + number),
            Err(error) => {
                assert!(is_for_memory(&error), "{error}");
                failed += 1;
            }
        }
        if retries == 0 && !is_outer {
            let begun = std::fs::read(place).map_or(0, |begun| begun.len());
            assert!(begun <= 1, "a call that may not be retried was begun {begun} times");
        }
    }
    println!("{failed} of 60 calls failed");
    assert_eq!(one::remote().get().unwrap(), 1, "the session goes on");
}

// ---- a real control group ----

const GROUP: &str = "MOBULA_TEST_GROUP";
const GROUP_BYTES: usize = 512 << 20;

/// A group inside the group of this process.
struct Group(PathBuf);

impl Group {
    /// `Err` says why there can be none.
    fn new() -> Result<Self, String> {
        let outer =
            memory_groups(Path::new("/")).into_iter().next().ok_or("no control group limits memory here")?;
        let group = Self(outer.directory.join(format!("mobula-test-{}", std::process::id())));
        let explain = |error: std::io::Error| format!("{}: {error}", group.0.display());
        std::fs::create_dir(&group.0).map_err(explain)?;
        let file = match outer.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        std::fs::write(group.0.join(file), GROUP_BYTES.to_string()).map_err(explain)?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually("the group is empty", || std::fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_real_control_group_does_not_run_out_of_memory() {
    let group = match Group::new() {
        Ok(group) => group,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let driver = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "driver_in_a_control_group", "--ignored", "--nocapture"])
        .env(GROUP, &group.0)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&driver.stdout) + String::from_utf8_lossy(&driver.stderr);
    assert!(driver.status.success() && text.contains("1 passed"), "{text}");
    // The head has asked the caller what runs there.
    let line = text.lines().find(|line| line.starts_with("mobula: memory is short: ")).expect(&text);
    assert!(line.contains("(out_of_memory::takes_much) with "), "{line}");
}

/// Takes more of the group's memory than it may.
#[mobula::remote(max_retries = 3)]
fn takes_much(notes: Notes) -> usize {
    let memory = std::hint::black_box(vec![1u8; GROUP_BYTES * 8 / 10]);
    notes.begin();
    notes.wait_for_release();
    memory.len()
}

#[test]
#[ignore = "the test of a control group runs it, in a process of its own"]
fn driver_in_a_control_group() {
    let Some(group) = std::env::var_os(GROUP) else { return };
    std::fs::write(Path::new(&group).join("cgroup.procs"), std::process::id().to_string()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let _session =
        session_with(Builder::new().workers(1).capacity_bytes(32 << 20).memory_usage_threshold(0.7));
    let error =
        takes_much::remote(Notes::in_directory(directory.path(), "notes")).get_timeout(PATIENCE).unwrap_err();
    let Error::Failed(Failure::WorkerDied { pid, reason, .. }) = &error else { panic!("{error:?}") };
    let ExitReason::OutOfMemory { limit, limit_bytes, own_bytes, .. } = *reason else { panic!("{error}") };
    assert!(peak_of(*pid) > GROUP_BYTES as u64 / 3);
    assert_eq!((limit, limit_bytes), (MemoryLimit::ControlGroup, GROUP_BYTES as u64));
    assert!(own_bytes as usize > GROUP_BYTES / 3, "{error}");
    assert_eq!(one::remote().get().unwrap(), 1, "the session goes on");
}
