//! Calls that wait for others, inside calls, on any thread: if these fail, a call hangs although there are workers for
//! it, or says nothing of why it cannot go on.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use mobula::prelude::*;
use mobula::{Builder, Error, Failure};
use mobula_tests::{PATIENCE, TestSession, eventually, is_asleep, is_running, session, session_with};
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

// ---- threads of a caller ----

/// Makes a call that waits for a file, and returns the reference to its result.
#[mobula::remote]
fn asks(says: PathBuf, gate: PathBuf) -> ObjectRef<()> {
    waits_for::remote(says, gate)
}

/// Waits for a result on a thread of its own, which sleeps when this returns.
fn wait_on_a_thread(result: ObjectRef<()>) -> JoinHandle<()> {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        send.send(nix::unistd::gettid()).unwrap();
        result.get().unwrap();
    });
    let id = receive.recv().unwrap();
    eventually("a thread waits", || is_asleep(id));
    thread
}

#[test]
fn a_thread_hears_of_another_processs_promise_while_a_second_thread_waits_for_something_else() {
    let _session = session(4);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let nested = asks::remote(at("child"), at("gate")).get().unwrap();
    pid_in(&at("child"));
    // This thread sleeps on the bell, for itself and for the next one.
    let first = wait_on_a_thread(waits_for::remote(at("first"), at("first_gate")));
    let second = wait_on_a_thread(nested);
    std::fs::write(at("gate"), "").unwrap();
    eventually("the promised result arrives", || second.is_finished());
    assert!(!first.is_finished());
    std::fs::write(at("first_gate"), "").unwrap();
    first.join().unwrap();
    second.join().unwrap();
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

// ---- waits at odd places ----

#[test]
fn timeouts_may_be_as_long_or_as_short_as_they_like() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let slow = waits_for::remote(directory.path().join("says"), gate.clone());
    for timeout in [Duration::ZERO, Duration::from_nanos(1)] {
        assert!(matches!(slow.get_timeout(timeout), Err(Error::Timeout { ready: 0, wanted: 1, .. })));
        assert!(mobula::wait([slow.clone()], 1, Some(timeout)).unwrap().0.is_empty());
    }
    let long = [
        Duration::MAX,
        Duration::from_secs(u64::MAX / 2),
        Duration::from_secs(1 << 61),
        Duration::from_secs(1 << 40),
    ];
    std::thread::scope(|scope| {
        // One of them leads, and sleeps on the bell; the others follow.
        let waits = long.map(|timeout| {
            let slow = slow.clone();
            scope.spawn(move || {
                slow.get_timeout(timeout).unwrap();
                mobula::wait([slow], 1, Some(timeout)).unwrap()
            })
        });
        std::fs::write(&gate, "").unwrap();
        for wait in waits {
            assert_eq!(wait.join().unwrap().0.len(), 1);
        }
    });
    let ready = square::remote(3);
    ready.get().unwrap();
    assert_eq!(ready.get_timeout(Duration::ZERO).unwrap(), 9);
}

/// Calls, and gets the result, when it is dropped.
struct CallsInDrop {
    results: std::sync::mpsc::Sender<mobula::Result<i64>>,
}

impl Drop for CallsInDrop {
    fn drop(&mut self) {
        let result = square::remote(3).get_timeout(PATIENCE);
        let _ = self.results.send(result);
        let put = mobula::put(&vec![1.0; 100]).and_then(|reference| Ok(reference.get()?.len() as i64));
        let _ = self.results.send(put);
    }
}

thread_local! {
    static FIRST: std::cell::RefCell<Vec<CallsInDrop>> = const { std::cell::RefCell::new(Vec::new()) };
    static LAST: std::cell::RefCell<Vec<CallsInDrop>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[test]
fn a_get_in_a_destructor_gets_the_result_or_says_why_not() {
    let session = session(1);
    let (results, received) = std::sync::mpsc::channel();
    drop(CallsInDrop { results: results.clone() });
    assert_eq!(received.recv().unwrap().unwrap(), 9);
    assert_eq!(received.recv().unwrap().unwrap(), 100);
    // While a thread unwinds.
    let its = results.clone();
    std::thread::spawn(move || {
        let _calls = CallsInDrop { results: its };
        panic!("on purpose");
    })
    .join()
    .unwrap_err();
    assert_eq!(received.recv().unwrap().unwrap(), 9);
    assert_eq!(received.recv().unwrap().unwrap(), 100);
    // While the values of a thread are dropped, before and after those that mobula has there.
    let its = results.clone();
    std::thread::spawn(move || {
        FIRST.with_borrow_mut(|first| first.push(CallsInDrop { results: its.clone() }));
        assert_eq!(square::remote(2).get().unwrap(), 4);
        LAST.with_borrow_mut(|last| last.push(CallsInDrop { results: its }));
    })
    .join()
    .unwrap();
    for _ in 0..4 {
        match received.recv_timeout(PATIENCE).unwrap() {
            Ok(9 | 100) => {}
            Err(Error::ThreadEnding) => {}
            other => panic!("{other:?}"),
        }
    }
    // While the session ends, and after it.
    let directory = tempfile::tempdir().unwrap();
    let never = waits_for::remote(directory.path().join("says"), directory.path().join("gate"));
    pid_in(&directory.path().join("says"));
    let gets = std::thread::spawn(move || never.get());
    drop(session);
    gets.join().unwrap().unwrap_err();
    drop(CallsInDrop { results });
    assert!(matches!(received.recv().unwrap(), Err(Error::NotInitialized)));
}

/// Returns the result of a call while its process gets signals all the time.
#[mobula::remote]
fn is_interrupted(calls: i64) -> i64 {
    interrupted(|| (0..calls).map(|x| square::remote(x).get().unwrap()).sum())
}

extern "C" fn does_nothing(_: libc::c_int) {}

/// Runs `work` while its thread is sent signals, which interrupt its waits.
fn interrupted<T>(work: impl FnOnce() -> T) -> T {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
    let action = SigAction::new(SigHandler::Handler(does_nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it may run anywhere.
    unsafe { sigaction(Signal::SIGUSR2, &action).unwrap() };
    // SAFETY: asks for this thread's number.
    let thread = unsafe { libc::pthread_self() };
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                // SAFETY: the thread waits below for this one to end.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let result = work();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        result
    })
}

#[test]
fn signals_that_interrupt_a_wait_do_not_end_it() {
    let _session = session(2);
    let sum = |calls: i64| (0..calls).map(|x| x * x).sum::<i64>();
    let results = interrupted(|| {
        let here: i64 = (0..200).map(|x| square::remote(x).get_timeout(PATIENCE).unwrap()).sum();
        let large = mobula::put(&vec![1u8; 3_000_000]).unwrap().get().unwrap().len();
        let (ready, _) = mobula::wait([Nine::remote().get()], 1, Some(PATIENCE)).unwrap();
        let there = is_interrupted::remote(200).get_timeout(PATIENCE).unwrap();
        (here, large, ready[0].get_timeout(PATIENCE).unwrap(), there)
    });
    assert_eq!(results, (sum(200), 3_000_000, 9, sum(200)));
}

// ---- the limit of processes ----

const PROCESSES_MAX: usize = 12;

fn few_processes(workers: usize) -> TestSession {
    session_with(Builder::new().workers(workers).capacity_bytes(64 << 20).max_processes(PROCESSES_MAX))
}

/// Returns the depth, or the reason why it did not go deeper.
#[mobula::remote]
fn deep(n: u32) -> mobula::Result<u32> {
    if n == 0 { Ok(0) } else { Ok(deep::remote(n - 1).get()? + 1) }
}

/// The same, but what fails below ends here.
#[mobula::remote]
fn as_deep_as_possible(n: u32) -> u32 {
    match as_deep_as_possible::remote(n - 1).get_timeout(PATIENCE) {
        Ok(depth) => depth + 1,
        Err(Error::Failed(Failure::ProcessLimit { limit: PROCESSES_MAX, in_use: PROCESSES_MAX })) => 1,
        Err(error) => panic!("{error:?}"),
    }
}

#[mobula::remote]
fn gets(reference: Vec<ObjectRef<()>>) -> mobula::Result<()> {
    reference[0].get()
}

#[mobula::remote]
fn after(_before: ()) {}

#[track_caller]
fn is_limit<T: std::fmt::Debug>(result: mobula::Result<T>) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains("max_processes"), "{error}");
    let is_limit = match &error {
        Error::Failed(failure) => {
            matches!(failure, Failure::ProcessLimit { limit: PROCESSES_MAX, in_use: ..=PROCESSES_MAX })
        }
        // Of the call that needed the process, through those that waited for it.
        Error::Task(task) => task.message.contains("12 of at most 12 processes"),
        _ => false,
    };
    assert!(is_limit, "{error:?}");
}

#[test]
fn recursion_goes_as_deep_as_there_are_processes_and_then_says_why_no_deeper() {
    for workers in [1, 3] {
        let session = few_processes(workers);
        assert_eq!(
            deep::remote(PROCESSES_MAX as u32 - 1).get_timeout(PATIENCE).unwrap(),
            PROCESSES_MAX as u32 - 1
        );
        is_limit(deep::remote(1000).get_timeout(PATIENCE));
        assert_eq!(as_deep_as_possible::remote(1000).get_timeout(PATIENCE).unwrap(), PROCESSES_MAX as u32);
        // Everything works as before, and what is too much ends.
        let squares: Vec<_> = (0..100).map(square::remote).collect();
        mobula::get_timeout(&squares, PATIENCE).unwrap();
        assert_eq!(deep::remote(5).get_timeout(PATIENCE).unwrap(), 5);
        eventually("what is more than needed has ended", || {
            session.session.client().stats().unwrap().clients.len() == 2 + workers
        });
    }
}

#[test]
fn blocked_calls_that_others_go_on_for_are_waited_for() {
    let _session = few_processes(2);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let slow = waits_for::remote(directory.path().join("says"), gate.clone());
    pid_in(&directory.path().join("says"));
    let blocked: Vec<_> = (0..40).map(|_| gets::remote(vec![slow.clone()])).collect();
    let count = || _session.session.client().stats().unwrap().clients.len();
    eventually("there are as many processes as there may be", || count() == 2 + PROCESSES_MAX);
    std::fs::write(gate, "").unwrap();
    for call in blocked {
        call.get_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn calls_that_wait_for_one_that_finds_no_process_end() {
    let _session = few_processes(2);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let held = waits_for::remote(directory.path().join("says"), gate.clone());
    pid_in(&directory.path().join("says"));
    // All others wait for `last`. It can run when this call is over, and has its turn behind the calls that wait for
    // it.
    let last = after::remote(&held);
    let waits: Vec<_> = (0..40).map(|_| gets::remote(vec![last.clone()])).collect();
    let count = || _session.session.client().stats().unwrap().clients.len();
    eventually("there are as many processes as there may be", || count() == 2 + PROCESSES_MAX);
    std::fs::write(gate, "").unwrap();
    for call in waits.iter().chain([&last]) {
        if let Err(error) = call.get_timeout(PATIENCE) {
            is_limit::<()>(Err(error));
        }
    }
    assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
}

#[test]
fn actors_take_the_places_of_those_whose_last_handles_are_gone() {
    let _session = few_processes(2);
    for _ in 0..5 {
        let actors: Vec<_> = (0..PROCESSES_MAX - 2).map(|_| Nine::remote()).collect();
        for actor in &actors {
            assert_eq!(actor.get().get_timeout(PATIENCE).unwrap(), 9);
        }
    }
}

#[test]
fn actors_beyond_the_limit_say_so_and_leave_room_for_calls() {
    let _session = few_processes(2);
    let actors: Vec<_> = (0..PROCESSES_MAX + 3).map(|_| Nine::remote()).collect();
    let (there, refused) = actors.split_at(PROCESSES_MAX - 2);
    for actor in there {
        assert_eq!(actor.get().get_timeout(PATIENCE).unwrap(), 9);
    }
    for actor in refused {
        is_limit(actor.get().get_timeout(PATIENCE));
    }
    assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
    assert_eq!(deep::remote(1).get_timeout(PATIENCE).unwrap(), 1);
    is_limit(deep::remote(2).get_timeout(PATIENCE));
    drop(actors);
    eventually("there is room for an actor again", || Nine::remote().get().get_timeout(PATIENCE).is_ok());
}

#[test]
fn a_limit_that_cannot_be_is_refused() {
    let _lock = mobula_tests::session_lock();
    for max in [0, 2, 30_001, usize::MAX] {
        let error = Builder::new().workers(2).max_processes(max).init().unwrap_err().to_string();
        assert!(error.contains("max_processes") && error.contains("more than the 2 workers"), "{error}");
    }
}
