//! Waiting as a future: if these fail, an `await` never returns, blocks its executor's thread, or leaves something
//! behind when it is dropped.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mobula::prelude::*;
use mobula::{Builder, Error, Failure, TaskErrorKind};
use mobula_tests::{PATIENCE, eventually, session};

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

/// Returns `x` once there is a file of that path.
#[mobula::remote]
fn gated(gate: PathBuf, x: i64) -> i64 {
    while !gate.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    x
}

#[mobula::remote]
fn fails() -> Result<i64, String> {
    Err("no".to_owned())
}

#[mobula::remote]
fn dies() -> i64 {
    std::process::abort()
}

/// A reference to a call that waits at a gate: a promise of another process for who receives it.
#[mobula::remote]
fn passed_on(gate: PathBuf) -> Vec<ObjectRef<i64>> {
    vec![gated::remote(gate, 7)]
}

/// Awaits in a worker.
#[mobula::remote]
fn awaits(depth: u32) -> u32 {
    if depth == 0 { 0 } else { pollster::block_on(awaits::remote(depth - 1)).unwrap() + 1 }
}

fn tokio_threads(threads: usize) -> tokio::runtime::Runtime {
    let mut builder = match threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.max(1)).enable_time().build().unwrap()
}

struct Gates(tempfile::TempDir);

impl Gates {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, gate: usize) -> PathBuf {
        self.0.path().join(gate.to_string())
    }

    fn open(&self, gate: usize) {
        std::fs::write(self.path(gate), "").unwrap();
    }
}

#[test]
fn an_await_returns_what_get_returns() {
    let session = session(2);
    let check = async || {
        assert_eq!(square::remote(3).await.unwrap(), 9);
        assert_eq!(mobula::put(&4_i64).unwrap().await.unwrap(), 4);
        let reference = square::remote(5);
        assert_eq!((&reference).await.unwrap(), 25);
        assert_eq!(reference.get_async().await.unwrap(), 25);
        match fails::remote().await {
            Err(Error::Task(error)) => {
                assert_eq!((error.kind, &*error.message), (TaskErrorKind::Returned, "no"))
            }
            other => panic!("{other:?}"),
        }
        let died = dies::remote().await.unwrap_err();
        assert!(matches!(died, Error::Failed(Failure::WorkerDied { .. })), "{died}");
        let squares: Vec<_> = (0..100).map(square::remote).collect();
        let expected: Vec<i64> = (0..100).map(|x| x * x).collect();
        assert_eq!(mobula::get_async(&squares).await.unwrap(), expected);
        assert_eq!(mobula::get_async(Vec::<ObjectRef<i64>>::new()).await.unwrap(), [0_i64; 0]);
    };
    pollster::block_on(check());
    for threads in 0..3 {
        tokio_threads(threads).block_on(check());
    }
    drop(session);
}

#[test]
fn the_first_failure_ends_a_wait_for_all_and_counts_in_a_wait_for_some() {
    let session = session(3);
    let gates = Gates::new();
    pollster::block_on(async {
        let refs = [gated::remote(gates.path(0), 1), fails::remote(), gated::remote(gates.path(0), 3)];
        assert!(matches!(mobula::get_async(&refs).await, Err(Error::Task(_))));
        let (ready, rest) = mobula::wait_async(&refs, 1).await.unwrap();
        assert_eq!((ready, rest), (vec![refs[1].clone()], vec![refs[0].clone(), refs[2].clone()]));
        let error = mobula::wait_async(&refs, 4).await.unwrap_err();
        assert!(matches!(error, Error::Config { field: "num_ready", .. }), "{error}");
        gates.open(0);
        let (ready, rest) = mobula::wait_async(refs.clone(), 3).await.unwrap();
        assert_eq!((ready, rest), (refs.to_vec(), vec![]));
    });
    drop(session);
}

/// One thread runs both: the awaiting tasks, and the one that opens the gate for them.
#[test]
fn who_awaits_leaves_the_thread_to_others() {
    let session = session(2);
    let gates = Gates::new();
    let sums: Vec<i64> = tokio_threads(0).block_on(async {
        let local = tokio::task::LocalSet::new();
        let awaiting: Vec<_> = (0..200)
            .map(|x| {
                let reference = gated::remote(gates.path(0), x);
                local.spawn_local(async move { reference.await.unwrap() })
            })
            .collect();
        local
            .run_until(async {
                tokio::task::yield_now().await;
                gates.open(0);
                let mut all = Vec::new();
                for task in awaiting {
                    all.push(task.await.unwrap());
                }
                all
            })
            .await
    });
    assert_eq!(sums, (0..200).collect::<Vec<i64>>());
    drop(session);
}

#[test]
fn a_wait_needs_no_thread_of_its_own() {
    let session = session(1);
    let gates = Gates::new();
    let tokio = tokio_threads(2);
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let first = tokio.spawn(gated::remote(gates.path(0), 0).get_async());
    let few = threads();
    let tasks: Vec<_> = (1..500).map(|x| tokio.spawn(gated::remote(gates.path(0), x).get_async())).collect();
    assert!(threads() <= few, "{} threads, {few} with one wait", threads());
    gates.open(0);
    assert_eq!(tokio.block_on(first).unwrap().unwrap(), 0);
    for (x, task) in (1..).zip(tasks) {
        assert_eq!(tokio.block_on(task).unwrap().unwrap(), x);
    }
    drop(session);
}

#[test]
fn a_future_may_be_dropped_and_made_again() {
    let session = session(1);
    let gates = Gates::new();
    let reference = gated::remote(gates.path(0), 7);
    tokio_threads(1).block_on(async {
        for _ in 0..1000 {
            tokio::select! {
                biased;
                value = &reference => panic!("{value:?} came through a closed gate"),
                () = tokio::task::yield_now() => {}
            }
        }
        let soon = Duration::from_millis(1);
        tokio::time::timeout(soon, reference.get_async()).await.expect_err("the gate is closed");
        gates.open(0);
        assert_eq!(reference.await.unwrap(), 7);
    });
    drop(session);
}

#[test]
fn promises_of_other_processes_can_be_awaited() {
    let session = session(2);
    let gates = Gates::new();
    let passed = passed_on::remote(gates.path(0)).get().unwrap();
    tokio_threads(1).block_on(async {
        let awaiting = tokio::spawn(passed[0].get_async());
        let (ready, rest) = mobula::wait_async(&passed, 0).await.unwrap();
        assert_eq!((ready.len(), rest.len()), (0, 1));
        gates.open(0);
        assert_eq!(awaiting.await.unwrap().unwrap(), 7);
    });
    drop(session);
}

#[test]
fn a_worker_that_awaits_gives_its_place_up() {
    let session = session(1);
    assert_eq!(awaits::remote(5).get_timeout(PATIENCE).unwrap(), 5);
    drop(session);
}

#[test]
fn the_end_of_the_session_ends_every_await() {
    let session = session(1);
    let gates = Gates::new();
    let tokio = tokio_threads(1);
    let own = tokio.spawn(gated::remote(gates.path(0), 1).get_async());
    let waiting = gated::remote(gates.path(0), 2);
    let queued = tokio.spawn(mobula::get_async(vec![waiting.clone()]));
    let some = tokio.spawn(mobula::wait_async(vec![waiting], 1));
    let lock = session.end();
    let is_over = |error: &Error| matches!(error, Error::Failed(Failure::SessionOver));
    assert!(is_over(&tokio.block_on(own).unwrap().unwrap_err()));
    assert!(is_over(&tokio.block_on(queued).unwrap().unwrap_err()));
    assert!(is_over(&tokio.block_on(some).unwrap().unwrap_err()));
    drop(lock);
}

#[test]
fn completed_references_come_in_the_order_in_which_they_complete() {
    let session = session(4);
    let gates = Gates::new();
    let refs: Vec<_> = (0..4).map(|x| gated::remote(gates.path(x), x as i64)).collect();
    let mut completed = mobula::as_completed(&refs);
    for gate in [2, 0, 3, 1] {
        gates.open(gate);
        let (index, reference) = completed.next().unwrap();
        assert_eq!((index, reference.get().unwrap()), (gate, gate as i64));
    }
    assert!(completed.next().is_none());
    let many: Vec<_> = (0..1000).map(square::remote).collect();
    let mut seen: Vec<usize> = mobula::as_completed(many).map(|(index, _)| index).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    // A failed one is ready, and so is each one of a session that is over.
    assert!(mobula::as_completed([fails::remote()]).next().unwrap().1.get().is_err());
    let left = mobula::as_completed([gated::remote(gates.path(9), 1)]);
    let lock = session.end();
    let errors: Vec<_> = left.map(|(_, reference)| reference.get().unwrap_err()).collect();
    assert!(matches!(errors[..], [Error::Failed(Failure::SessionOver)]), "{errors:?}");
    drop(lock);
}

#[test]
#[ignore = "run as a child by another test"]
fn child_that_blocks_an_executors_thread() {
    if std::env::var_os("MOBULA_TEST_CHILD").is_none() {
        return;
    }
    let _session = Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
    let gates = Gates::new();
    let (a, b) = (gated::remote(gates.path(0), 1), gated::remote(gates.path(0), 2));
    let tokio = tokio_threads(2);
    let blocked = [a, b].map(|reference| tokio.spawn(async move { reference.get().unwrap() }));
    gates.open(0);
    for task in blocked {
        tokio.block_on(task).unwrap();
    }
}

/// A wait may be so short that its thread does not sleep; then nothing is said.
#[test]
fn a_get_that_blocks_an_executors_thread_says_once_what_to_write() {
    let _lock = mobula_tests::session_lock();
    let mut said = 0;
    eventually("a thread sleeps", || {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_blocks_an_executors_thread", "--ignored", "--nocapture"])
            .env("MOBULA_TEST_CHILD", "1")
            .output()
            .unwrap();
        assert!(output.status.success());
        said = String::from_utf8_lossy(&output.stderr).matches("write `reference.await`").count();
        said > 0
    });
    assert_eq!(said, 1);
}
