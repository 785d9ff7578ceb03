//! Calls that wait for others, inside calls, on any thread: if these fail, a call hangs although there are workers for it,
//! or says nothing of why it cannot go on.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use mobula::{Error, Failure};
use mobula_tests::{PATIENCE, eventually, is_running, session};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

/// Says its process, and waits for a file.
#[mobula::remote]
fn waits_for(says: PathBuf, gate: PathBuf) {
    write_whole(&says, std::process::id());
    while !gate.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Says its process, and waits for a call that waits for a file.
#[mobula::remote]
fn parent_of_one_that_waits(says: PathBuf, child_says: PathBuf, gate: PathBuf) -> mobula::Result<()> {
    write_whole(&says, std::process::id());
    waits_for::remote(child_says, gate).get()
}

fn write_whole(path: &Path, what: impl std::fmt::Display) {
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, what.to_string()).unwrap();
    std::fs::rename(unfinished, path).unwrap();
}

fn pid_in(path: &Path) -> u32 {
    eventually("a call says where it runs", || path.exists());
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

// ---- calls that nobody waits for any more ----

#[test]
fn no_call_waits_behind_one_whose_caller_is_dead() {
    for workers in [1, 4] {
        let _session = session(workers);
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let parent = parent_of_one_that_waits::remote(at("parent"), at("child"), at("gate"));
        let child = pid_in(&at("child"));
        kill(Pid::from_raw(pid_in(&at("parent")) as i32), Signal::SIGKILL).unwrap();
        let error = parent.get_timeout(PATIENCE).unwrap_err();
        assert!(matches!(error, Error::Failed(Failure::WorkerDied { .. })), "{error:?}");
        // The child has no end as long as this does not make one, and its process was the last to be used.
        for x in 0..20 {
            assert_eq!(square::remote(x).get_timeout(PATIENCE).unwrap(), x * x);
        }
        assert!(is_running(child), "a call whose caller has died runs on");
        // Once it is over, its process is one like others, and ends because there are more than are needed.
        std::fs::write(at("gate"), "").unwrap();
        eventually("what is more than needed has ended", || {
            let clients = _session.session.client().stats().unwrap().clients.len();
            // This process, its head, and the workers.
            clients == 2 + workers
        });
        assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
    }
}

// ---- threads of a call ----

/// Waits on a thread of its own, in several ways.
#[mobula::remote]
fn waits_on_a_thread(way: u32) -> i64 {
    std::thread::spawn(move || match way {
        0 => square::remote(3).get().unwrap(),
        1 => square::remote(3).get_timeout(PATIENCE).unwrap(),
        2 => {
            let (ready, _) = mobula::wait([square::remote(3)], 1, None).unwrap();
            ready[0].get().unwrap()
        }
        3 => Nine::remote().get().get().unwrap(),
        _ => waits_on_a_thread::remote(way - 4).get().unwrap(),
    })
    .join()
    .unwrap()
}

/// Many threads, each of which waits for calls that wait on threads.
#[mobula::remote]
fn waits_on_many_threads(threads: i64) -> i64 {
    let wait =
        |x: i64| square::remote(x).get().unwrap() + waits_on_a_thread::remote((x % 8) as u32).get().unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|x| scope.spawn(move || wait(x))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

/// Leaves a thread behind that waits for a call, or waits for the thread that the last call has left behind.
#[mobula::remote]
fn leaves_a_thread_or_joins_it(x: i64) -> i64 {
    static LEFT: Mutex<Option<JoinHandle<i64>>> = Mutex::new(None);
    let mut left = LEFT.lock().unwrap();
    match left.take() {
        Some(thread) => thread.join().unwrap(),
        None => {
            *left = Some(std::thread::spawn(move || square::remote(x).get().unwrap()));
            -1
        }
    }
}

struct Nine;

#[mobula::remote]
impl Nine {
    fn new() -> Self {
        Self
    }

    fn get(&self) -> i64 {
        9
    }
}

#[test]
fn a_thread_that_waits_inside_a_call_gives_the_place_up() {
    let _session = session(1);
    for way in 0..8 {
        assert_eq!(waits_on_a_thread::remote(way).get_timeout(PATIENCE).unwrap(), 9, "way {way}");
    }
    let both: Vec<_> = (0..2).map(|_| waits_on_a_thread::remote(4)).collect();
    assert_eq!(both[0].get_timeout(PATIENCE).unwrap() + both[1].get_timeout(PATIENCE).unwrap(), 18);
    let threads = 12;
    let squares: i64 = (0..threads).map(|x| x * x).sum();
    let sum = waits_on_many_threads::remote(threads).get_timeout(PATIENCE).unwrap();
    assert_eq!(sum, squares + 9 * threads);
}

#[test]
fn a_thread_that_a_call_leaves_behind_waits_for_the_next_one_too() {
    let _session = session(1);
    let calls: Vec<_> = (0..200).map(leaves_a_thread_or_joins_it::remote).collect();
    let results = calls.iter().map(|call| call.get_timeout(PATIENCE).unwrap());
    assert!(results.filter(|result| *result >= 0).count() > 0, "no call found a thread");
}

#[test]
fn the_place_is_taken_back_when_the_wait_is_over() {
    let session = session(1);
    for _ in 0..20 {
        assert_eq!(waits_on_a_thread::remote(0).get_timeout(PATIENCE).unwrap(), 9);
    }
    eventually("one worker is left", || session.session.client().stats().unwrap().clients.len() == 3);
    assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
}
