//! Time limits: if these fail, a caller waits for a call longer than it said, a call runs after its deadline, or a
//! limit ends a call that was in time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mobula::{Error, Failure, MethodOptions, TaskError, TaskOptions, TimeLimit};
use mobula_tests::{eventually, session};

const SHORT: Duration = Duration::from_millis(30);
/// Long enough for a call to begin, and to make its own.
const ENOUGH: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

/// Runs until it is cancelled, and leaves a file then.
#[mobula::remote]
fn until_cancelled(noticed: PathBuf) -> u32 {
    run_until_cancelled(&noticed)
}

/// Makes three items, and the next one when it is cancelled. Leaves a file when no item is wanted any more.
#[mobula::remote(streaming, timeout = ENOUGH)]
fn three_items(noticed: PathBuf) -> impl Iterator<Item = u32> {
    (0..3).chain(std::iter::from_fn(move || {
        until_cancelled(noticed.clone());
        Some(3)
    }))
}

/// Waits for a call of its own, and leaves the error in a file.
#[mobula::remote(timeout = ENOUGH)]
fn waits_for_a_child(noticed: PathBuf, error: PathBuf) {
    let failed = until_cancelled::remote(noticed).get().unwrap_err();
    std::fs::write(&error, failed.to_string()).unwrap();
}

#[mobula::remote(deadline = Duration::from_millis(30))]
fn leaves(file: PathBuf) -> u32 {
    std::fs::write(&file, "").unwrap();
    7
}

#[mobula::remote]
fn sleeps(time: Duration) -> u32 {
    std::thread::sleep(time);
    1
}

/// Returns once there is this file.
#[mobula::remote]
fn gated(gate: PathBuf) -> u32 {
    while !gate.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    1
}

#[mobula::remote]
fn add(x: u32, y: u32) -> u32 {
    x + y
}

/// Runs too long once, and dies once.
#[mobula::remote(max_retries = unlimited, retry_exceptions = true)]
fn unlucky(tries: PathBuf) -> usize {
    match attempt(&tries) {
        0 => std::process::abort(),
        1 => panic!("the second attempt"),
        number => number,
    }
}

/// Fails once.
#[mobula::remote(timeout = ENOUGH, max_retries = 1, retry_if = is_slowly_yes)]
fn fails_once(tries: PathBuf) -> Result<usize, String> {
    match attempt(&tries) {
        0 => Err("the first attempt".to_owned()),
        number => Ok(number),
    }
}

fn is_slowly_yes(_: &TaskError) -> bool {
    std::thread::sleep(ENOUGH + SHORT);
    true
}

fn run_until_cancelled(noticed: &Path) -> u32 {
    while !mobula::is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(noticed, "").unwrap();
    0
}

/// The number of this attempt, from 0 on.
fn attempt(tries: &Path) -> usize {
    let number = std::fs::read(tries).map_or(0, |tried| tried.len());
    std::fs::write(tries, vec![0; number + 1]).unwrap();
    number
}

/// Runs one call at a time.
struct Single;

#[mobula::remote(max_restarts = unlimited, max_task_retries = unlimited)]
impl Single {
    const LIMIT: Duration = SHORT;

    fn new() -> Self {
        Self
    }

    #[remote(timeout = Self::LIMIT)]
    fn until_cancelled(&self, noticed: PathBuf) -> u32 {
        run_until_cancelled(&noticed)
    }

    fn gated(&self, gate: PathBuf) -> u32 {
        while !gate.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        1
    }

    #[remote(deadline = Duration::from_millis(30))]
    fn leaves(&self, file: PathBuf) -> u32 {
        std::fs::write(file, "").unwrap();
        7
    }

    fn sleeps(&self, time: Duration) -> u32 {
        std::thread::sleep(time);
        1
    }

    #[remote(timeout = ENOUGH)]
    fn add(&self, x: u32, y: u32) -> u32 {
        x + y
    }

    #[remote(streaming, timeout = ENOUGH)]
    fn three_items(&self, noticed: PathBuf) -> impl Iterator<Item = u32> {
        (0..3).chain(std::iter::from_fn(move || {
            run_until_cancelled(&noticed);
            Some(3)
        }))
    }

    #[remote(num_returns = 2, timeout = LONG, deadline = LONG)]
    fn dies_once(&self, tries: PathBuf) -> (usize, u32) {
        match attempt(&tries) {
            0 => std::process::abort(),
            number => (number, 2),
        }
    }

    fn dies(&self) {
        std::process::abort();
    }
}

/// Runs two calls at a time, and futures.
struct Several(std::sync::atomic::AtomicU32);

#[mobula::remote(max_concurrency = 2)]
impl Several {
    fn new() -> Self {
        Self(0.into())
    }

    #[remote(timeout = SHORT)]
    fn until_cancelled(&self, noticed: PathBuf) -> u32 {
        run_until_cancelled(&noticed)
    }

    #[remote(timeout = SHORT)]
    async fn awaits(&self, noticed: PathBuf) -> u32 {
        mobula::cancelled().await;
        std::fs::write(noticed, "").unwrap();
        0
    }

    #[remote(timeout = ENOUGH)]
    fn counts(&self) -> u32 {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

fn is_timed_out<T>(result: mobula::Result<T>, name: &str, expected: TimeLimit) {
    match result {
        Err(Error::Failed(Failure::TaskTimedOut { function, limit, .. })) => {
            assert!(function.ends_with(name) && limit == expected, "{function}, {limit:?}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("there is a result"),
    }
}

#[test]
fn a_call_that_runs_too_long_fails_for_all_who_need_it_and_is_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let noticed = directory.path().join("noticed");
    let call = until_cancelled::options(TaskOptions::new().timeout(SHORT)).remote(noticed.clone());
    let dependent = add::remote(&call, 1);
    let other = call.clone();
    let waiter = std::thread::spawn(move || other.get());
    is_timed_out(call.get(), "until_cancelled", TimeLimit::Timeout);
    is_timed_out(waiter.join().unwrap(), "until_cancelled", TimeLimit::Timeout);
    is_timed_out(dependent.get(), "until_cancelled", TimeLimit::Timeout);
    eventually("it is cancelled", || noticed.exists());
    // The workers serve on.
    assert_eq!(mobula::get((0..20).map(|x| add::remote(x, 1))).unwrap(), (1..21).collect::<Vec<_>>());
}

#[test]
fn a_stream_that_runs_too_long_ends_with_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let noticed = directory.path().join("noticed");
    let mut items: Vec<_> = three_items::remote(noticed.clone()).collect();
    is_timed_out(items.pop().unwrap().get(), "three_items", TimeLimit::Timeout);
    assert_eq!(mobula::get(&items).unwrap(), [0, 1, 2]);
    eventually("it is cancelled", || noticed.exists());
}

#[test]
fn a_limit_is_kept_while_no_thread_waits() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let noticed = directory.path().join("noticed");
    let call = until_cancelled::options(TaskOptions::new().timeout(SHORT)).remote(noticed.clone());
    // This thread looks at a file only.
    eventually("it is cancelled", || noticed.exists());
    is_timed_out(call.get(), "until_cancelled", TimeLimit::Timeout);
}

#[test]
fn the_calls_that_a_late_call_made_are_cancelled_too() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let (noticed, error) = (directory.path().join("noticed"), directory.path().join("error"));
    let call = waits_for_a_child::remote(noticed.clone(), error.clone());
    is_timed_out(call.get(), "waits_for_a_child", TimeLimit::Timeout);
    eventually("the child is cancelled", || noticed.exists());
    eventually("its own wait ends", || error.exists());
}

#[test]
fn a_timeout_does_not_count_the_time_before_the_run() {
    let _session = session(1);
    let before = sleeps::remote(ENOUGH + SHORT);
    let behind = add::options(TaskOptions::new().timeout(ENOUGH)).remote(1, 2);
    let waits = add::options(TaskOptions::new().timeout(ENOUGH)).remote(&before, 2);
    assert_eq!((behind.get().unwrap(), waits.get().unwrap()), (3, 3));
}

#[test]
fn a_call_that_has_not_begun_at_its_deadline_never_runs() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let gate = directory.path().join("gate");
    let before = gated::remote(gate.clone());
    let files: Vec<_> = (0..50).map(|number| directory.path().join(number.to_string())).collect();
    let late: Vec<_> = files.iter().map(|file| leaves::remote(file.clone())).collect();
    let dependent = add::remote(&late[0], 1);
    for call in &late {
        is_timed_out(call.get(), "leaves", TimeLimit::Deadline);
    }
    is_timed_out(dependent.get(), "leaves", TimeLimit::Deadline);
    assert!(!before.is_ready());
    std::fs::write(&gate, "").unwrap();
    assert_eq!(before.get().unwrap(), 1);
    let past = TaskOptions::new().deadline_at(Instant::now());
    is_timed_out(leaves::options(past).remote(files[0].clone()).get(), "leaves", TimeLimit::Deadline);
    assert_eq!(add::remote(1, 1).get().unwrap(), 2);
    assert!(files.iter().all(|file| !file.exists()));
}

#[test]
fn a_deadline_includes_the_retries_and_a_timeout_is_of_each_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let options = TaskOptions::new().timeout(LONG).deadline(LONG);
    assert_eq!(unlucky::options(options).remote(directory.path().join("a")).get().unwrap(), 2);
    let waits = TaskOptions::new().retry_delay(LONG).deadline(Duration::from_millis(500));
    let call = unlucky::options(waits).remote(directory.path().join("b"));
    is_timed_out(call.get(), "unlucky", TimeLimit::Deadline);
}

#[test]
fn the_time_in_which_the_program_decides_on_a_retry_is_not_that_of_an_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let call = fails_once::remote(directory.path().join("tries"));
    // Another thread decides, and this one sees the time pass.
    assert_eq!(call.get().unwrap(), 1);
}

#[test]
fn many_calls_with_limits_are_in_time() {
    let _session = session(2);
    let options = || TaskOptions::new().timeout(LONG).deadline(LONG);
    let calls: Vec<_> = (0..3000).map(|x| add::options(options()).remote(x, 1)).collect();
    assert_eq!(mobula::get(&calls).unwrap(), (1..3001).collect::<Vec<_>>());
    assert!(matches!(
        sleeps::options(options()).remote(Duration::from_millis(300)).get_timeout(SHORT),
        Err(Error::Timeout { .. })
    ));
}

#[test]
fn a_method_has_the_limit_of_its_attribute_or_of_its_call() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let single = Single::remote();
    let twice = single.options(MethodOptions::new().timeout(2 * SHORT));
    for (number, expected) in [SHORT, 2 * SHORT].into_iter().enumerate() {
        let noticed = directory.path().join(number.to_string());
        let call = match number {
            0 => single.until_cancelled(noticed.clone()),
            _ => twice.until_cancelled(noticed.clone()),
        };
        let dependent = add::remote(&call, 1);
        is_timed_out(dependent.get(), "Single::until_cancelled", TimeLimit::Timeout);
        let Err(Error::Failed(Failure::TaskTimedOut { after, .. })) = call.get() else {
            panic!("it was in time")
        };
        assert_eq!(after, expected);
        eventually("it is cancelled", || noticed.exists());
    }
    // Options of the call that are not set leave those of the attribute.
    let deadline = single.options(MethodOptions::new().deadline(LONG));
    let call = deadline.until_cancelled(directory.path().join("deadline"));
    is_timed_out(call.get(), "Single::until_cancelled", TimeLimit::Timeout);
    // The actor goes on.
    assert_eq!(mobula::get((0..20).map(|x| single.add(x, 1))).unwrap(), (1..21).collect::<Vec<_>>());
}

#[test]
fn a_stream_of_a_method_that_runs_too_long_ends_with_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let (single, noticed) = (Single::remote(), directory.path().join("noticed"));
    let mut items: Vec<_> = single.three_items(noticed.clone()).collect();
    is_timed_out(items.pop().unwrap().get(), "Single::three_items", TimeLimit::Timeout);
    assert_eq!(mobula::get(&items).unwrap(), [0, 1, 2]);
    eventually("it is cancelled", || noticed.exists());
    assert_eq!(single.add(1, 2).get().unwrap(), 3);
}

#[test]
fn the_time_in_the_queue_of_an_actor_counts_for_a_deadline_and_not_for_a_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let single = Single::remote();
    let before = single.sleeps(ENOUGH + SHORT);
    assert_eq!((single.add(1, 2).get().unwrap(), before.get().unwrap()), (3, 1));

    let gate = directory.path().join("gate");
    let before = single.gated(gate.clone());
    let files: Vec<_> = (0..50).map(|number| directory.path().join(number.to_string())).collect();
    let late: Vec<_> = files.iter().map(|file| single.leaves(file.clone())).collect();
    // The argument of this one, and of all behind it, is not there.
    let waits = single.options(MethodOptions::new().deadline(SHORT)).add(gated::remote(gate.clone()), 1);
    for call in &late {
        is_timed_out(call.get(), "Single::leaves", TimeLimit::Deadline);
    }
    is_timed_out(waits.get(), "Single::add", TimeLimit::Deadline);
    assert!(!before.is_ready());
    std::fs::write(&gate, "").unwrap();
    assert_eq!(before.get().unwrap(), 1);
    let past = single.options(MethodOptions::new().deadline_at(Instant::now()));
    is_timed_out(past.leaves(files[0].clone()).get(), "Single::leaves", TimeLimit::Deadline);
    assert_eq!(single.add(1, 1).get().unwrap(), 2);
    assert!(files.iter().all(|file| !file.exists()));
}

#[test]
fn limits_of_methods_go_on_when_the_actor_starts_again() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let single = Single::remote();
    let (number, two) = single.dies_once(directory.path().join("tries"));
    assert_eq!((number.get().unwrap(), two.get().unwrap()), (1, 2));
    // It is retried until then.
    let call = single.options(MethodOptions::new().deadline(ENOUGH)).dies();
    is_timed_out(call.get(), "Single::dies", TimeLimit::Deadline);
    // Its last attempt may end the process under this one.
    assert_eq!(single.options(MethodOptions::new().timeout(LONG)).add(1, 2).get().unwrap(), 3);
}

#[test]
fn calls_of_an_actor_with_several_at_a_time_have_limits_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let several = Several::remote();
    let files: Vec<_> = (0..20).map(|number| directory.path().join(number.to_string())).collect();
    let calls: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(number, file)| match number % 2 {
            0 => several.until_cancelled(file.clone()),
            _ => several.awaits(file.clone()),
        })
        .collect();
    let counted: Vec<_> = (0..10).map(|_| several.counts()).collect();
    for (number, call) in calls.iter().enumerate() {
        let name = if number % 2 == 0 { "until_cancelled" } else { "awaits" };
        is_timed_out(call.get(), name, TimeLimit::Timeout);
    }
    eventually("each one ran until it was cancelled", || files.iter().all(|file| file.exists()));
    let mut counted = mobula::get(&counted).unwrap();
    counted.sort_unstable();
    assert_eq!(counted, (0..10).collect::<Vec<_>>());
}

#[test]
fn calls_reach_their_limits_although_no_thread_waits_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let noticed = |name: &str| directory.path().join(name);
    let (single, several) = (Single::remote(), Several::remote());
    // From here on, calls are sent at once. Mostly no thread of this process is awake when the next ones are made.
    assert_eq!((single.add(1, 2).get().unwrap(), several.counts().get().unwrap()), (3, 0));
    std::thread::sleep(SHORT);
    let kept = [single.until_cancelled(noticed("single")), several.awaits(noticed("several"))];
    for name in ["single", "several"] {
        eventually("it is cancelled", || noticed(name).exists());
    }
    assert!(kept.iter().all(|call| call.get().is_err()));
}
