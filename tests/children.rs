//! Programs that use children and signals of their own. If these fail, a driver that ignores SIGCHLD, waits for any
//! child, or forks never hears that a worker has died, hangs when its session ends, or leaves the session's processes
//! behind.
//!
//! Each driver is this test binary again, running one of the `child_…` tests below: signals are a whole process's.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mobula::{Builder, Error, Failure};
use mobula_client::ClientError;
use mobula_tests::{PATIENCE, eventually, is_running, session_processes};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[mobula::remote]
fn exits(code: i32) {
    std::process::exit(code)
}

/// The signals that are blocked in a worker, and whether it hears of its children.
#[mobula::remote]
fn signals() -> (Vec<i32>, bool) {
    let mask = SigSet::thread_get_mask().unwrap();
    // A child that is waited for is there to be waited for.
    let waited = Command::new("true").status().is_ok_and(|status| status.success());
    (mask.iter().map(|signal| signal as i32).collect(), waited)
}

/// A process that forks, so that it has something to leave behind.
#[mobula::remote]
fn forks() -> i32 {
    // SAFETY: the child only sleeps.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
        ForkResult::Parent { child } => child.as_raw(),
    }
}

struct Mortal;

#[mobula::remote]
impl Mortal {
    fn new() -> Self {
        Self
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

// ---- news of children ----

/// The ways in which a driver treats its children.
const WAYS: [&str; 4] = ["ignores", "wants none", "waits for all", "has inherited"];

extern "C" fn wait_for_all(_: libc::c_int) {
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
        waitpid(None, Some(WaitPidFlag::WNOHANG))
    {}
}

fn set_sigchld(way: &str) {
    let (handler, flags) = match way {
        "ignores" => (SigHandler::SigIgn, SaFlags::empty()),
        "wants none" => (SigHandler::SigDfl, SaFlags::SA_NOCLDWAIT),
        "waits for all" => (SigHandler::Handler(wait_for_all), SaFlags::SA_RESTART),
        _ => return,
    };
    // SAFETY: the handler only makes system calls.
    unsafe { sigaction(Signal::SIGCHLD, &SigAction::new(handler, flags, SigSet::empty())) }.unwrap();
}

#[test]
#[ignore = "run as a child by another test"]
fn child_whose_workers_die() {
    let Some(way) = argument() else { return };
    set_sigchld(&way);
    let session = Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
    let socket = session.socket().to_owned();
    for code in [7, 8] {
        let failed = exits::remote(code).get_timeout(PATIENCE).unwrap_err();
        assert!(matches!(failed, Error::Failed(Failure::WorkerDied { .. })), "{failed}");
        assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
    }
    let mortal = Mortal::remote();
    let pid = mortal.pid().get_timeout(PATIENCE).unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    eventually("the actor's death is noticed", || mortal.pid().get_timeout(PATIENCE).is_err());
    // A process that a worker has forked ends with the worker.
    let left = forks::remote().get_timeout(PATIENCE).unwrap();
    let _ = exits::remote(9).get_timeout(PATIENCE);
    eventually("the forked process is gone", || !is_running(left as u32));
    // Another store takes the place of one that is killed.
    let store = session_processes(&socket).into_iter().find(|pid| is_called(*pid, "mobula-store")).unwrap();
    kill(Pid::from_raw(store as i32), Signal::SIGKILL).unwrap();
    let bytes = mobula::put(&vec![5u8; 9 << 20]).unwrap();
    assert_eq!(bytes.get().unwrap().len(), 9 << 20);
    drop((bytes, mortal));
    drop(session);
    assert_eq!(session_processes(&socket), [] as [u32; 0]);
    assert!(!socket.parent().unwrap().exists());
}

fn is_called(pid: u32, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(name)
}

#[test]
fn a_driver_that_hears_nothing_of_its_children_has_a_session_like_any_other() {
    let children = WAYS.map(|way| {
        let mut command = child_command("child_whose_workers_die", way);
        if way == "has inherited" {
            // SAFETY: sets a disposition.
            unsafe {
                command.pre_exec(|| {
                    libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                    Ok(())
                });
            }
        }
        command.spawn().unwrap()
    });
    for (way, child) in WAYS.into_iter().zip(children) {
        let output = child.wait_with_output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && stdout.contains("1 passed"), "{way}: {stdout}{stderr}");
        // The store was killed once, and no more than that was said of it.
        assert_eq!(stderr.matches("is started again").count(), 1, "{way}: {stderr}");
    }
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_blocked_signals() {
    let Some(way) = argument() else { return };
    set_sigchld(&way);
    SigSet::all().thread_block().unwrap();
    let _session = Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
    assert_eq!(signals::remote().get_timeout(PATIENCE).unwrap(), (vec![], true));
}

#[test]
fn workers_begin_with_signals_as_a_program_expects_them() {
    let output = child_command("child_with_blocked_signals", "ignores").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

// ---- a child that the driver has forked ----

/// The ends of a driver that has forked.
const ENDS: [&str; 3] = ["drops", "exits", "is killed"];

#[test]
#[ignore = "run as a child by another test"]
fn child_that_forks() {
    let Some(end) = argument() else { return };
    let session = Builder::new().workers(2).capacity_bytes(64 << 20).init().unwrap();
    assert_eq!(square::remote(3).get().unwrap(), 9);
    // SAFETY: the child only sleeps; it has all of the session's descriptors meanwhile.
    let heir = match unsafe { fork() }.unwrap() {
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
        ForkResult::Parent { child } => child,
    };
    println!("\nforked {} {heir}", session.socket().display());
    match end.as_str() {
        "exits" => std::process::exit(3),
        "drops" => {
            drop(session);
            println!("\ndropped");
        }
        _ => {}
    }
    loop {
        nix::unistd::pause();
    }
}

#[test]
fn a_session_ends_although_a_child_that_the_driver_has_forked_goes_on() {
    for end in ENDS {
        let mut driver = child_command("child_that_forks", end).spawn().unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let forked = lines.find(|line| line.starts_with("forked ")).expect("the driver has forked");
        let words: Vec<&str> = forked.split(' ').collect();
        let (socket, heir) = (PathBuf::from(words[1]), Heir(words[2].parse().unwrap()));
        match end {
            "drops" => assert!(lines.any(|line| line == "dropped"), "the drop waits for the child"),
            "exits" => assert_eq!(driver.wait().unwrap().code(), Some(3)),
            _ => kill_driver(&mut driver),
        }
        let is_over =
            |socket: &Path| session_processes(socket).is_empty() && !socket.parent().unwrap().exists();
        eventually("the session is over", || is_over(&socket));
        assert!(heir.is_running(), "{end}: the child has ended first");
        let _ = driver.kill();
        driver.wait().unwrap();
    }
}

#[test]
#[ignore = "run as a child by another test"]
fn child_whose_child_drops_the_session() {
    if argument().is_none() {
        return;
    }
    let session = Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
    // SAFETY: what the child calls takes no lock that a thread of its parent has; then it ends at once.
    let heir = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let is_refused = |result: mobula::Result<mobula::Session>| {
                matches!(result, Err(Error::Store(ClientError::ForkedChild)))
            };
            let before = is_refused(mobula::init_or_join());
            drop(session);
            let code = if before && is_refused(mobula::init_or_join()) && is_refused(mobula::init()) {
                0
            } else {
                1
            };
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) };
        }
        ForkResult::Parent { child } => child,
    };
    let mut status = WaitStatus::StillAlive;
    let guard = Heir(heir.as_raw() as u32);
    eventually("the child has been refused a session", || {
        status = waitpid(heir, Some(WaitPidFlag::WNOHANG)).unwrap();
        status != WaitStatus::StillAlive
    });
    std::mem::forget(guard);
    assert_eq!(status, WaitStatus::Exited(heir, 0));
    assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
    drop(session);
    // Without one to inherit, a child is like any other process; so is this one.
    drop(mobula::init_or_join().unwrap());
}

#[test]
fn a_forked_child_that_drops_its_parents_session_gets_no_other_and_does_not_hang() {
    let output = child_command("child_whose_child_drops_the_session", "drops").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn kill_driver(driver: &mut Child) {
    driver.kill().unwrap();
    assert_eq!(driver.wait().unwrap().signal(), Some(libc::SIGKILL));
}

/// A child of a driver's, killed on drop.
struct Heir(u32);

impl Heir {
    fn is_running(&self) -> bool {
        is_running(self.0)
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0 as i32), Signal::SIGKILL);
    }
}

// ---- drivers ----

fn child_command(test: &str, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--ignored"])
        .env("MOBULA_TEST_CHILD", argument)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn argument() -> Option<String> {
    std::env::var("MOBULA_TEST_CHILD").ok()
}
