//! Retries because of errors: if these fail, a call is retried too often, not often enough, or never comes to its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobula::{Builder, Error, Failure, ObjectRef, TaskError, TaskErrorKind, TaskOptions};
use mobula_tests::session_with;

/// Counts an attempt in a file, and returns its number, from 1 on.
fn attempt(tries: &Path) -> usize {
    let number = attempts(tries) + 1;
    std::fs::write(tries, vec![0; number]).expect("the directory is there");
    number
}

fn attempts(tries: &Path) -> usize {
    std::fs::read(tries).map_or(0, |tried| tried.len())
}

/// Each attempt but the last does what a letter of `plan` says.
#[mobula::remote(retry_exceptions = true)]
fn follow(plan: String, tries: PathBuf) -> Result<usize, String> {
    let number = attempt(&tries);
    match plan.as_bytes().get(number - 1) {
        Some(b'e') => Err(format!("error of attempt {number}")),
        Some(b'p') => panic!("panic of attempt {number}"),
        Some(b'd') => std::process::abort(),
        _ => Ok(number),
    }
}

#[mobula::remote(num_returns = 2, max_retries = unlimited, retry_exceptions = true)]
fn pair(tries: PathBuf) -> Result<(usize, usize), String> {
    match attempt(&tries) {
        number @ 1..6 => Err(format!("error of attempt {number}")),
        number => Ok((number, number)),
    }
}

#[mobula::remote(max_retries = 9, retry_exceptions = true)]
fn too_large(tries: PathBuf) -> Vec<u8> {
    attempt(&tries);
    vec![1; 64 << 20]
}

#[mobula::remote]
fn one() -> u32 {
    1
}

#[test]
fn errors_and_panics_and_deaths_are_retried_together_up_to_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(2).capacity_bytes(64 << 20));
    let usual = TaskOptions::new;
    for (number, (plan, options, expected, tried)) in [
        ("", usual(), Ok(1), 1),
        ("epe", usual(), Ok(4), 4), // 3 retries, where nothing is said
        ("eeee", usual(), Err("error of attempt 4"), 4),
        ("eeep", usual(), Err("panic of attempt 4"), 4),
        ("e", usual().max_retries(0), Err("error of attempt 1"), 1),
        ("pp", usual().max_retries(1), Err("panic of attempt 2"), 2),
        ("ede", usual(), Ok(4), 4),
        ("dde", usual().max_retries(2), Err("error of attempt 3"), 3),
        ("eeeeeeeeee", usual().max_retries(mobula::UNLIMITED), Ok(11), 11),
        ("e", usual().retry_exceptions(false), Err("error of attempt 1"), 1),
        ("e", usual().retry_exceptions(false).max_retries(5), Err("error of attempt 1"), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let tries = directory.path().join(number.to_string());
        let result = follow::options(options).remote(plan.to_owned(), tries.clone()).get();
        match (result, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{plan}"),
            (Err(Error::Task(error)), Err(expected)) => assert_eq!(error.message, expected, "{plan}"),
            (result, _) => panic!("{plan}: {result:?}"),
        }
        assert_eq!(attempts(&tries), tried, "{plan}");
    }
}

fn is_of_first_two_attempts(error: &TaskError) -> bool {
    error.message.ends_with("attempt 1") || error.message.ends_with("attempt 2")
}

/// As `follow`, without another word about errors.
#[mobula::remote(retry_if = is_of_first_two_attempts)]
fn follow_if(plan: String, tries: PathBuf) -> Result<usize, String> {
    follow(plan, tries)
}

#[test]
fn the_program_says_which_errors_are_retried() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(2).capacity_bytes(64 << 20));
    let usual = TaskOptions::new;
    for (number, (plan, options, expected, tried)) in [
        ("e", usual(), Ok(2), 2),
        ("ep", usual(), Ok(3), 3),
        ("eee", usual(), Err("error of attempt 3"), 3),
        ("ee", usual().max_retries(1), Err("error of attempt 2"), 2),
        ("ee", usual().retry_delay(Duration::from_millis(5)), Ok(3), 3),
        ("e", usual().retry_exceptions(false), Err("error of attempt 1"), 1),
        ("ee", usual().retry_if(|_| false), Err("error of attempt 1"), 1),
        ("pe", usual().retry_if(|error| error.kind == TaskErrorKind::Panicked), Err("error of attempt 2"), 2),
        // The function is not asked when a process dies.
        ("de", usual().retry_if(|_| false), Err("error of attempt 2"), 2),
        (
            "ee",
            usual().retry_if(|error| panic!("it panics because of {error}")),
            Err("error of attempt 1"),
            1,
        ),
        // Nor when there is no retry left.
        ("e", usual().max_retries(0).retry_if(|_| std::process::abort()), Err("error of attempt 1"), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let tries = directory.path().join(number.to_string());
        let result = follow_if::options(options).remote(plan.to_owned(), tries.clone()).get();
        match (result, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{plan}"),
            (Err(Error::Task(error)), Err(expected)) => assert_eq!(error.message, expected, "{plan}"),
            (result, _) => panic!("{plan}: {result:?}"),
        }
        assert_eq!(attempts(&tries), tried, "{plan}");
    }
    let awaited = follow_if::remote("ee".to_owned(), directory.path().join("awaited"));
    assert_eq!(pollster::block_on(awaited.get_async()).unwrap(), 3);
    // Calls of other functions may be made, and waited for, where the program is asked.
    let asks = usual().retry_if(|_| one::remote().get().is_ok_and(|one| one == 1));
    assert_eq!(
        follow_if::options(asks).remote("eee".to_owned(), directory.path().join("asks")).get().unwrap(),
        4
    );
}

static IS_ASKED: AtomicBool = AtomicBool::new(false);
static MAY_ANSWER: AtomicBool = AtomicBool::new(false);

fn answers_late(_: &TaskError) -> bool {
    IS_ASKED.store(true, Ordering::SeqCst);
    mobula_tests::eventually("it may answer", || MAY_ANSWER.load(Ordering::SeqCst));
    true
}

#[test]
fn a_call_that_is_cancelled_while_the_program_decides_is_not_retried() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    let tries = directory.path().join("tries");
    let options = TaskOptions::new().retry_if(answers_late);
    let call = follow_if::options(options).remote("e".to_owned(), tries.clone());
    let other = call.clone();
    let waits = std::thread::spawn(move || other.get());
    mobula_tests::eventually("the program is asked", || IS_ASKED.load(Ordering::SeqCst));
    call.cancel().unwrap();
    assert!(matches!(call.get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    MAY_ANSWER.store(true, Ordering::SeqCst);
    assert!(matches!(waits.join().unwrap(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    assert_eq!((one::remote().get().unwrap(), attempts(&tries)), (1, 1));
}

#[test]
fn all_results_of_a_call_are_those_of_its_last_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    let (first, second): (ObjectRef<usize>, ObjectRef<usize>) = pair::remote(directory.path().join("tries"));
    assert_eq!((first.get().unwrap(), second.get().unwrap()), (6, 6));
}

#[test]
fn a_result_that_cannot_be_stored_is_no_reason_to_run_again() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(16 << 20).spill_bytes_max(0));
    let tries = directory.path().join("tries");
    match too_large::remote(tries.clone()).get() {
        Err(Error::Task(error)) => assert_eq!(error.kind, TaskErrorKind::NotReturned),
        other => panic!("{other:?}"),
    }
    assert_eq!(attempts(&tries), 1);
}

#[test]
fn retries_wait_longer_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    let begin = Instant::now();
    let options = TaskOptions::new().retry_delay(Duration::from_millis(40));
    let result = follow::options(options).remote("eee".to_owned(), directory.path().join("tries")).get();
    assert_eq!(result.unwrap(), 4);
    // At least half of 40, 80 and 160.
    assert!(begin.elapsed() >= Duration::from_millis(140), "{:?}", begin.elapsed());
}

#[test]
fn a_call_that_is_cancelled_is_not_retried() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    for (number, delay) in [Duration::from_millis(20), Duration::from_secs(3600)].into_iter().enumerate() {
        let tries = directory.path().join(number.to_string());
        let options = TaskOptions::new().max_retries(mobula::UNLIMITED).retry_delay(delay);
        let waits = follow::options(options).remote("e".repeat(10_000), tries.clone());
        mobula_tests::eventually("it has failed once", || attempts(&tries) > 0);
        waits.cancel().unwrap();
        assert!(matches!(waits.get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
        // At most the attempt that ran ends: it is behind this call.
        one::remote().get().unwrap();
        let tried = attempts(&tries);
        // A retry would come within this time.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(attempts(&tries), tried);
    }
}

#[test]
fn a_call_that_waits_for_its_retry_takes_no_worker_and_ends_with_the_session() {
    let directory = tempfile::tempdir().unwrap();
    let session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    let tries = directory.path().join("tries");
    let options = TaskOptions::new().retry_delay(Duration::from_secs(3600));
    let waits = follow::options(options).remote("e".to_owned(), tries.clone());
    mobula_tests::eventually("it has failed once", || attempts(&tries) == 1);
    for _ in 0..10 {
        assert_eq!(one::remote().get().unwrap(), 1);
    }
    assert!(matches!(waits.get_timeout(Duration::from_millis(10)), Err(Error::Timeout { .. })));
    let _lock = session.end();
    assert!(matches!(waits.get(), Err(Error::Failed(Failure::SessionOver))));
    assert_eq!(attempts(&tries), 1);
}
