//! Workers that end after some calls of a function (`max_calls`), or because they are not needed. If these fail:
//!
//! - the worker goes on;
//! - a call that waits at it is lost, or runs twice;
//! - a result is lost with the worker.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mobula::{ObjectRef, TaskOptions};
use mobula_tests::{eventually, is_running, session, session_processes};

/// The most calls that one process has run of each function here.
const LIMIT: usize = 3;

/// Fails where it has run before.
#[mobula::remote(max_calls = 3)]
fn once(directory: PathBuf, number: usize) -> (u32, usize) {
    File::create_new(directory.join(number.to_string())).expect("it has not run before");
    (std::process::id(), number)
}

#[mobula::remote]
fn plain() -> u32 {
    std::process::id()
}

#[mobula::remote(max_calls = 1)]
fn large(byte: u8) -> (u32, Vec<u8>) {
    (std::process::id(), vec![byte; 1 << 20])
}

#[mobula::remote]
fn slow(begun: PathBuf, go: PathBuf) -> u32 {
    File::create(begun).expect("the directory is there");
    eventually("it may end", || go.exists());
    7
}

/// Returns a reference to the result of a call that it does not wait for, and makes another one for its effect.
#[mobula::remote(max_calls = 1)]
fn hands_on(directory: PathBuf) -> (u32, ObjectRef<u32>) {
    once::remote(directory.clone(), 0);
    (std::process::id(), slow::remote(directory.join("begun"), directory.join("go")))
}

#[mobula::remote(max_calls = 1)]
fn depth(left: u32) -> mobula::Result<Vec<u32>> {
    let mut pids = if left == 0 { Vec::new() } else { depth::remote(left - 1).get()? };
    pids.push(std::process::id());
    Ok(pids)
}

#[mobula::remote(max_calls = 1)]
fn fails(panics: bool) -> Result<u32, String> {
    assert!(!panics, "in process {}", std::process::id());
    Err(std::process::id().to_string())
}

#[mobula::remote(streaming, max_calls = 2)]
fn count(to: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..to).map(|number| (std::process::id(), number))
}

fn assert_at_most(limit: usize, pids: impl IntoIterator<Item = u32>) {
    let mut calls = HashMap::new();
    pids.into_iter().for_each(|pid| *calls.entry(pid).or_insert(0) += 1);
    assert!(calls.values().all(|count| *count <= limit), "{calls:?}");
}

#[test]
fn many_calls_at_once_run_once_each_and_no_process_runs_more_than_it_may() {
    let session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let calls: Vec<_> = (0..100).map(|number| once::remote(directory.path().to_owned(), number)).collect();
    // Calls of another function wait among them.
    let others: Vec<_> = (0..100).map(|_| plain::remote()).collect();
    let results = mobula::get(&calls).unwrap();
    assert!(results.iter().map(|(_, number)| *number).eq(0..100));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 100);
    assert_at_most(LIMIT, results.iter().map(|(pid, _)| *pid));
    mobula::get(&others).unwrap();
    let socket = session.session.socket().to_owned();
    eventually("two workers are left beside the store", || session_processes(&socket).len() == 3);
    plain::remote().get().unwrap();
}

#[test]
fn calls_in_a_loop_use_each_process_to_its_end() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let run = |number| once::remote(directory.path().to_owned(), number).get().unwrap().0;
    let pids: Vec<u32> = (0..12).map(run).collect();
    assert_at_most(LIMIT, pids.iter().copied());
    for calls in pids.chunks(LIMIT) {
        assert!(calls.iter().all(|pid| *pid == calls[0]), "{pids:?}");
    }
    // Calls of another function do not count.
    let pid = plain::remote().get().unwrap();
    assert_eq!([(); 8].map(|()| plain::remote().get().unwrap()), [pid; 8]);
}

#[test]
fn results_outlive_their_processes() {
    let _session = session(2);
    let results: Vec<_> = (0..16).map(large::remote).collect();
    let (ready, _) = mobula::wait(&results, results.len(), None).unwrap();
    assert_eq!(ready.len(), 16);
    // They are read when each process has ended.
    let pids: Vec<u32> = results.iter().map(|result| result.get().unwrap().0).collect();
    assert_at_most(1, pids.iter().copied());
    for pid in pids {
        eventually("it has ended", || !is_running(pid));
    }
    for (byte, result) in (0..).zip(&results) {
        assert_eq!(result.get().unwrap().1, vec![byte; 1 << 20]);
    }
}

#[test]
fn a_process_ends_after_the_calls_that_it_made() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let (pid, inner) = hands_on::remote(directory.path().to_owned()).get().unwrap();
    eventually("the inner calls run", || {
        directory.path().join("begun").exists() && directory.path().join("0").exists()
    });
    // It is spent, and other calls go elsewhere, but it waits for the result that it has handed on.
    assert_ne!(plain::remote().get().unwrap(), pid);
    assert!(is_running(pid));
    File::create(directory.path().join("go")).unwrap();
    assert_eq!(inner.get().unwrap(), 7);
    eventually("it has ended", || !is_running(pid));
}

#[test]
fn calls_that_wait_for_calls_of_the_same_function_come_to_their_ends() {
    let _session = session(1);
    for _ in 0..3 {
        let pids = depth::remote(6).get().unwrap();
        assert_eq!(pids.len(), 7);
        assert_at_most(1, pids);
    }
}

#[test]
fn calls_that_fail_count_and_are_retried_elsewhere() {
    let _session = session(1);
    let pids = [(); 4].map(|()| fails::remote(false).get().unwrap_err().to_string());
    assert!((1..4).all(|n| pids[n] != pids[n - 1]), "{pids:?}");
    let retried = TaskOptions::new().retry_exceptions(true).max_retries(3);
    let error = fails::options(retried).remote(true).get().unwrap_err().to_string();
    assert!(error.contains("panicked in process"), "{error}");
}

#[test]
fn streams_end_before_their_processes() {
    let _session = session(2);
    let streams: Vec<_> = (0..6).map(|_| count::max_in_flight(4).remote(100)).collect();
    let mut pids = Vec::new();
    for stream in streams {
        let items: Vec<(u32, u32)> = stream.map(|item| item.get().unwrap()).collect();
        assert!(items.iter().map(|(_, number)| *number).eq(0..100));
        assert!(items.iter().all(|(pid, _)| *pid == items[0].0));
        pids.push(items[0].0);
    }
    assert_at_most(2, pids);
}

/// Makes a call that it does not wait for, and returns a reference to its result.
#[mobula::remote(num_cpus = 0)]
fn hands_on_and_is_idle(directory: PathBuf) -> (u32, ObjectRef<u32>) {
    let call = slow::options(TaskOptions::new().num_cpus(0.0));
    (std::process::id(), call.remote(directory.join("begun"), directory.join("go")))
}

#[test]
fn a_process_that_is_not_needed_ends_after_the_calls_that_it_made() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    // A process of its own environment is not kept when it is idle.
    let elsewhere = TaskOptions::new().env_vars([("SURPLUS", "1")]);
    let (pid, inner) =
        hands_on_and_is_idle::options(elsewhere).remote(directory.path().to_owned()).get().unwrap();
    eventually("the inner call runs", || directory.path().join("begun").exists());
    // The time in which an idle process is kept passes. Whenever it is over, the process waits for the inner call.
    let begun = Instant::now();
    while is_running(pid) && begun.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(is_running(pid), "the result that it has handed on is lost");
    File::create(directory.path().join("go")).unwrap();
    assert_eq!(inner.get().unwrap(), 7);
    eventually("it has ended", || !is_running(pid));
}
