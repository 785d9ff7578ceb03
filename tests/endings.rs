//! The ends of workers and actors. If these fail, a user whose function exits, crashes, uses up its stack or the memory
//! is told only that a process is gone. Or a call that had not begun fails with the process that it was sent to.

use std::path::{Path, PathBuf};

use mobula::{ActorEnd, ActorOptions, Builder, Error, ExitReason, Failure};
use mobula_tests::{PATIENCE, eventually, is_running, session, session_with};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The end that a process is to take.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
enum End {
    Exits,
    Aborts,
    Overflows,
    WritesToNowhere,
    IsKilled,
    IsTerminated,
    IsSegfaultedByHand,
    RealTimeSignal,
}

const ENDS: [(End, ExitReason, &str); 8] = [
    (End::Exits, ExitReason::Exited { code: 7 }, "it exited with code 7"),
    (End::Aborts, ExitReason::Killed { signal: libc::SIGABRT }, "it was killed by SIGABRT"),
    (End::Overflows, ExitReason::StackOverflow, "its stack overflowed"),
    (End::WritesToNowhere, ExitReason::Killed { signal: libc::SIGSEGV }, "it was killed by SIGSEGV"),
    (End::IsKilled, ExitReason::Killed { signal: libc::SIGKILL }, "killed by SIGKILL (out of memory?)"),
    (End::IsTerminated, ExitReason::Killed { signal: libc::SIGTERM }, "it was killed by SIGTERM"),
    (End::IsSegfaultedByHand, ExitReason::Killed { signal: libc::SIGSEGV }, "it was killed by SIGSEGV"),
    (End::RealTimeSignal, ExitReason::Killed { signal: 40 }, "it was killed by signal 40"),
];

impl End {
    fn come(self) -> u64 {
        match self {
            Self::Exits => std::process::exit(7),
            Self::Aborts => std::process::abort(),
            Self::Overflows => recurse(1),
            // SAFETY: it is not sound, on purpose: the process ends.
            Self::WritesToNowhere => unsafe {
                std::ptr::without_provenance_mut::<u64>(8).write_volatile(1);
                0
            },
            Self::IsKilled => self.signal(libc::SIGKILL),
            Self::IsTerminated => self.signal(libc::SIGTERM),
            Self::IsSegfaultedByHand => self.signal(libc::SIGSEGV),
            Self::RealTimeSignal => self.signal(40),
        }
    }

    fn signal(self, signal: i32) -> u64 {
        // SAFETY: sends this process a signal that ends it.
        unsafe { libc::kill(libc::getpid(), signal) };
        std::thread::sleep(PATIENCE);
        0
    }
}

#[allow(unconditional_recursion, reason = "on purpose")]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box([depth; 100])[3] + recurse(depth + 1)
}

#[mobula::remote]
fn ends(end: End) -> u64 {
    end.come()
}

#[mobula::remote]
fn pid() -> u32 {
    std::process::id()
}

struct Mortal;

#[mobula::remote]
impl Mortal {
    fn new() -> Self {
        Self
    }

    fn ends(&self, end: End) -> u64 {
        end.come()
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// Adds a line to a file, and returns once there is a file beside it.
#[mobula::remote]
fn notes(log: PathBuf, id: u64, until: Option<PathBuf>) -> u64 {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    file.write_all(format!("{id}\n").as_bytes()).unwrap();
    while until.as_ref().is_some_and(|until| !until.exists()) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    id
}

fn noted(log: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn send(signal: Signal, pid: u32) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// Stops a process, and waits until none of its threads runs any more.
fn stop(pid: u32) {
    send(Signal::SIGSTOP, pid);
    let is_stopped = |thread: std::fs::DirEntry| {
        // One that has ended meanwhile runs no more either.
        let status = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        status
            .rsplit(')')
            .next()
            .and_then(|rest| rest.trim_start().chars().next())
            .is_none_or(|state| state == 'T')
    };
    eventually("the process has stopped", || {
        std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(is_stopped)
    });
}

#[test]
fn an_error_says_how_the_process_ended_of_a_function_and_of_an_actor() {
    for forward in [true, false] {
        let builder = Builder::new().workers(1).capacity_bytes(64 << 20).forward_output(forward);
        let _session = session_with(builder);
        for (end, expected, text) in ENDS {
            let error = ends::remote(end).get_timeout(PATIENCE).unwrap_err();
            assert!(error.to_string().contains(text), "{end:?}: {error}");
            let Error::Failed(Failure::WorkerDied { function, pid, reason }) = error else {
                panic!("{end:?}: {error}")
            };
            assert!(function.ends_with("ends") && pid != 0, "{function} in {pid}");
            assert_eq!(reason, expected, "{end:?}");

            let error = Mortal::remote().ends(end).get_timeout(PATIENCE).unwrap_err();
            assert!(error.to_string().contains(text), "{end:?}: {error}");
            let Error::Failed(Failure::ActorDied { cause, .. }) = error else { panic!("{end:?}: {error}") };
            assert_eq!(cause, ActorEnd::Process { reason: expected, restarts: 0 }, "{end:?}");

            let options = ActorOptions::new().max_restarts(1);
            let error = Mortal::options(options).remote().ends(end).get_timeout(PATIENCE).unwrap_err();
            let Error::Failed(Failure::ActorUnavailable { reason, .. }) = error else {
                panic!("{end:?}: {error}")
            };
            assert_eq!(reason, expected, "{end:?}");
        }
        // An end that was asked for has none.
        let mortal = Mortal::remote();
        mobula::kill(&mortal).unwrap();
        let error = mortal.ends(End::Exits).get_timeout(PATIENCE).unwrap_err();
        assert!(
            matches!(error, Error::Failed(Failure::ActorDied { cause: ActorEnd::Killed, .. })),
            "{error}"
        );
    }
}

#[test]
fn calls_that_had_not_begun_go_to_another_process() {
    let _session = session(1);
    for _ in 0..20 {
        // It has just been used, so the next call goes to it, dead or not.
        let before = pid::remote().get_timeout(PATIENCE).unwrap();
        send(Signal::SIGKILL, before);
        eventually("the process is gone", || !is_running(before));
        assert_ne!(pid::remote().get_timeout(PATIENCE).unwrap(), before);
    }
    for _ in 0..5 {
        // It never takes records off its ring.
        let before = pid::remote().get_timeout(PATIENCE).unwrap();
        stop(before);
        let calls: Vec<_> = (0..5).map(|_| pid::remote()).collect();
        send(Signal::SIGKILL, before);
        for call in calls {
            assert_ne!(call.get_timeout(PATIENCE).unwrap(), before);
        }
    }
}

#[test]
fn a_call_that_had_begun_is_not_repeated_and_those_behind_it_run_once() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let log = directory.path().join(round.to_string());
        // Short calls are sent ahead, many at a time.
        (0..20).for_each(|_| assert!(pid::remote().get_timeout(PATIENCE).unwrap() > 0));
        let worker = pid::remote().get_timeout(PATIENCE).unwrap();
        assert_eq!(notes::remote(log.clone(), 0, None).get_timeout(PATIENCE).unwrap(), 0);
        let begun = notes::remote(log.clone(), 1, Some(directory.path().join("never")));
        let behind: Vec<_> = (2..10).map(|id| notes::remote(log.clone(), id, None)).collect();
        eventually("the call has begun", || noted(&log).contains(&1));
        send(Signal::SIGKILL, worker);
        let error = begun.get_timeout(PATIENCE).unwrap_err();
        assert!(matches!(error, Error::Failed(Failure::WorkerDied { .. })), "{error}");
        for (id, call) in (2..).zip(behind) {
            assert_eq!(call.get_timeout(PATIENCE).unwrap(), id);
        }
        let mut noted = noted(&log);
        noted.sort_unstable();
        assert_eq!(noted, (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn calls_of_an_actor_that_had_not_begun_wait_for_its_next_process() {
    let _session = session(1);
    let mortal = Mortal::options(ActorOptions::new().max_restarts(5)).remote();
    for _ in 0..5 {
        let before = mortal.pid().get_timeout(PATIENCE).unwrap();
        stop(before);
        let calls: Vec<_> = (0..5).map(|_| mortal.pid()).collect();
        send(Signal::SIGKILL, before);
        for call in calls {
            assert_ne!(call.get_timeout(PATIENCE).unwrap(), before);
        }
    }
}

// ---- destructors ----

/// Says in a file that it was dropped, with what it gets from the session then.
struct Testament {
    path: PathBuf,
}

#[mobula::remote]
impl Testament {
    fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn waits_for(&self, file: PathBuf) {
        std::fs::write(file.with_extension("begun"), "").unwrap();
        while !file.exists() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl Drop for Testament {
    fn drop(&mut self) {
        let bytes = mobula::put(&vec![7u8; 200_000]).unwrap();
        let length = bytes.get().unwrap().len();
        std::fs::write(&self.path, length.to_string()).unwrap();
    }
}

#[test]
fn an_actors_destructor_runs_with_its_last_handle_and_with_the_session() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let said = |name: &str| std::fs::read_to_string(file(name)).unwrap_or_default();
    let session = session(1);
    let dropped = Testament::remote(file("dropped"));
    let killed = Testament::remote(file("killed"));
    let kept: Vec<_> = (0..3).map(|number| Testament::remote(file(&number.to_string()))).collect();
    for actor in kept.iter().chain([&dropped, &killed]) {
        actor.pid().get_timeout(PATIENCE).unwrap();
    }
    drop(dropped);
    eventually("the destructor has run", || said("dropped") == "200000");
    mobula::kill(&killed).unwrap();
    let lock = session.end();
    for name in ["0", "1", "2"] {
        assert_eq!(said(name), "200000", "{name}");
    }
    assert!(!file("killed").exists());
    drop(lock);
}

#[test]
fn a_session_ends_although_an_actor_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("testament");
    let session = session(1);
    let actor = Testament::remote(path.clone());
    let pid = actor.pid().get_timeout(PATIENCE).unwrap();
    let _call = actor.waits_for(directory.path().join("never"));
    eventually("the call has begun", || directory.path().join("never.begun").exists());
    let lock = session.end();
    assert!(!is_running(pid) && !path.exists());
    drop(lock);
}
