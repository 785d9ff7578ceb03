//! Tasks that do what no task should: if these fail, one of them takes others down with it, hangs its caller, or leaves
//! something behind that outlives the session.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mobula::prelude::*;
use mobula::{Builder, Error, Failure, TaskErrorKind};
use mobula_tests::{PATIENCE, eventually, is_running, session, session_processes};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

/// An actor with state that has no part in the cases beside it.
struct Bystander {
    calls: u64,
}

#[mobula::remote]
impl Bystander {
    fn new() -> Self {
        Self { calls: 0 }
    }

    fn count(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }
}

/// Runs hostile code in a session of its own: others are unharmed meanwhile, and nothing is left of it afterwards.
fn check(hostile: impl FnOnce()) {
    let session = session(3);
    let socket = session.session.socket().to_owned();
    let bystander = Bystander::remote();
    assert_eq!(bystander.count().get().unwrap(), 1);
    hostile();
    for call in 2..20 {
        assert_eq!(bystander.count().get_timeout(PATIENCE).unwrap(), call);
        // A call that shared its worker with hostile code may go down with it; the next calls do not.
        let squares: Vec<_> =
            (0..20).map(|x| square::options(mobula::TaskOptions::new().max_retries(3)).remote(x)).collect();
        let squares = mobula::get_timeout(&squares, PATIENCE).unwrap();
        assert!(squares.iter().zip(0..).all(|(square, x)| *square == x * x));
    }
    let ending = Instant::now();
    drop(bystander);
    let _lock = session.end();
    println!("the session ended in {:?}", ending.elapsed());
    assert!(!socket.parent().unwrap().exists());
    eventually("no process of the session is left", || session_processes(&socket).is_empty());
}

fn died<T: std::fmt::Debug>(result: mobula::Result<T>) {
    match result {
        Err(Error::Failed(Failure::WorkerDied { pid, .. })) => assert_ne!(pid, 0),
        other => panic!("{other:?}"),
    }
}

fn panicked<T: std::fmt::Debug>(result: mobula::Result<T>) {
    match result {
        Err(Error::Task(error)) => assert_eq!(error.kind, TaskErrorKind::Panicked),
        other => panic!("{other:?}"),
    }
}

// ---- forks ----

/// The acts of a task's child.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum InChild {
    Sleeps,
    Exits,
    Panics,
    Returns,
    UsesTheClient,
}

/// The child's process id.
#[mobula::remote]
fn forks(what: InChild) -> i32 {
    // SAFETY: what the child does is what is tested; this process has threads, of whose locks the child needs none.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child.as_raw(),
        ForkResult::Child => match what {
            InChild::Sleeps => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            InChild::Exits => std::process::exit(3),
            InChild::Panics => panic!("in the child"),
            InChild::Returns => -1,
            InChild::UsesTheClient => {
                let refused = |text: String| text.contains("forked child");
                let all = refused(mobula::put(&1).unwrap_err().to_string())
                    && refused(square::remote(2).get().unwrap_err().to_string());
                // SAFETY: ends the child.
                unsafe { libc::_exit(if all { 7 } else { 1 }) }
            }
        },
    }
}

/// The exit code of a child, if this is the worker that has it.
#[mobula::remote]
fn reaps(child: i32) -> Option<i32> {
    match waitpid(Pid::from_raw(child), None) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        _ => None,
    }
}

#[test]
fn a_task_may_fork_and_its_child_is_no_second_worker() {
    check(|| {
        let child = forks::remote(InChild::Sleeps).get().unwrap();
        assert!(is_running(child as u32));
        for what in [InChild::Exits, InChild::Panics, InChild::Returns, InChild::UsesTheClient] {
            for _ in 0..5 {
                let child = forks::remote(what).get().unwrap();
                assert!(child > 0, "{what:?}: the child's result came through");
                eventually("the child has ended", || !is_running(child as u32));
                // Either worker may be the one that forked.
                let code = (0..100).find_map(|_| reaps::remote(child).get().unwrap());
                match what {
                    InChild::Exits => assert_eq!(code, Some(3)),
                    InChild::UsesTheClient => assert_eq!(code, Some(7)),
                    _ => {}
                }
            }
        }
        assert!(is_running(child as u32));
    });
}

#[test]
fn what_a_task_started_ends_with_its_worker() {
    check(|| {
        let keeper = Forker::remote();
        let (child, pid) = (keeper.fork().get().unwrap(), keeper.pid().get().unwrap());
        assert!(is_running(child as u32));
        nix::sys::signal::kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        eventually("the child of a killed actor is gone", || !is_running(child as u32));
        let keeper = Forker::remote();
        let child = keeper.fork().get().unwrap();
        drop(keeper);
        eventually("the child of an actor that ended is gone", || !is_running(child as u32));
    });
}

struct Forker;

#[mobula::remote]
impl Forker {
    fn new() -> Self {
        Self
    }

    fn fork(&self) -> i32 {
        forks(InChild::Sleeps)
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

// ---- descriptors ----

/// Closes everything but what was asked to be kept.
fn close_all() {
    // SAFETY: takes descriptors away from their owners in this process: that is the test.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
}

#[mobula::remote]
fn closes_all() -> u8 {
    close_all();
    7
}

#[mobula::remote]
fn closes_all_and_goes_on() {
    close_all();
    loop {
        std::hint::spin_loop();
    }
}

struct Closer;

#[mobula::remote(max_restarts = 1)]
impl Closer {
    fn new() -> Self {
        Self
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn close_all(&self) -> u8 {
        close_all();
        7
    }
}

#[test]
fn a_task_that_closes_all_descriptors_ends_its_process_and_nothing_hangs() {
    check(|| {
        for _ in 0..3 {
            match closes_all::remote().get_timeout(PATIENCE) {
                Ok(result) => assert_eq!(result, 7),
                other => died(other),
            }
        }
        died(closes_all_and_goes_on::remote().get_timeout(PATIENCE));
        let closer = Closer::remote();
        let pid = closer.pid().get().unwrap();
        match closer.close_all().get_timeout(PATIENCE) {
            Ok(result) => assert_eq!(result, 7),
            Err(Error::Failed(Failure::ActorUnavailable { .. })) => {}
            other => panic!("{other:?}"),
        }
        eventually("the process is gone", || !is_running(pid));
        eventually("the actor has started again", || match closer.pid().get_timeout(PATIENCE) {
            Ok(other) => other != pid,
            Err(Error::Failed(Failure::ActorUnavailable { .. })) => false,
            Err(error) => panic!("{error:?}"),
        });
    });
}

// ---- ends ----

/// The ways in which a task ends its process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum End {
    Exit,
    ExitAtOnce,
    Abort,
    Signal,
    OverflowTheStack,
    OverflowTheStackWhileReturning,
    PanicInDropOfAPanic,
    AllocateAll,
}

#[mobula::remote]
fn ends(how: End) -> Deep {
    match how {
        End::Exit => std::process::exit(0),
        // SAFETY: ends the process.
        End::ExitAtOnce => unsafe { libc::_exit(0) },
        End::Abort => std::process::abort(),
        End::Signal => raise(Signal::SIGSEGV).unwrap(),
        End::OverflowTheStack => _ = recurse(),
        End::OverflowTheStackWhileReturning => return Deep::nested(10_000_000),
        End::PanicInDropOfAPanic => {
            let _bomb = Bomb;
            panic!("the first one");
        }
        End::AllocateAll => _ = std::hint::black_box(Vec::<u8>::with_capacity(isize::MAX as usize)),
    }
    Deep::default()
}

#[expect(unconditional_recursion, reason = "that is what is tested")]
fn recurse() -> u64 {
    std::hint::black_box(recurse()) + 1
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a drop");
    }
}

/// A value nested to any depth.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Deep(Option<Box<Deep>>);

impl Deep {
    fn nested(levels: usize) -> Self {
        (0..levels).fold(Self::default(), |deep, _| Self(Some(Box::new(deep))))
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        // Level by level: a drop in depth would be what overflows the stack.
        let mut next = self.0.take();
        while let Some(mut deep) = next {
            next = deep.0.take();
        }
    }
}

#[test]
fn a_task_that_ends_its_process_is_an_error_of_its_own_call() {
    check(|| {
        for how in [
            End::Exit,
            End::ExitAtOnce,
            End::Abort,
            End::Signal,
            End::OverflowTheStack,
            End::PanicInDropOfAPanic,
            End::AllocateAll,
        ] {
            println!("{how:?}");
            died(ends::remote(how).get_timeout(PATIENCE));
        }
        // Noticed in time, it costs no process.
        match ends::remote(End::OverflowTheStackWhileReturning).get_timeout(PATIENCE) {
            Err(Error::Task(error)) => {
                assert_eq!(error.kind, TaskErrorKind::NotReturned);
                assert!(error.message.contains("nests deeper"), "{}", error.message);
            }
            other => panic!("{other:?}"),
        }
    });
}

// ---- panics ----

#[mobula::remote]
fn panics_with_a_payload_that_panics() {
    std::panic::panic_any(Bomb);
}

#[mobula::remote]
fn panics_in_a_drop() {
    drop(Bomb);
}

#[derive(Debug, Serialize, Deserialize)]
struct PanicsWhenRead(#[serde(deserialize_with = "panic_reading")] u8);

fn panic_reading<'de, D: serde::Deserializer<'de>>(_: D) -> Result<u8, D::Error> {
    panic!("in Deserialize");
}

#[mobula::remote]
fn takes_what_panics(_: PanicsWhenRead) {}

struct Explosive;

#[mobula::remote]
impl Explosive {
    fn new() -> Self {
        Self
    }

    fn ping(&self) -> u8 {
        1
    }
}

impl Drop for Explosive {
    fn drop(&mut self) {
        panic!("in the state's drop");
    }
}

#[test]
fn panics_of_every_kind_stay_with_their_call() {
    check(|| {
        for _ in 0..3 {
            panicked(panics_with_a_payload_that_panics::remote().get());
            panicked(panics_in_a_drop::remote().get());
            panicked(takes_what_panics::remote(PanicsWhenRead(1)).get());
        }
        let explosive = Explosive::remote();
        assert_eq!(explosive.ping().get().unwrap(), 1);
    });
}

// ---- signals ----

/// Does not listen to anything that can be ignored, and never returns.
#[mobula::remote]
fn ignores_everything() {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).unwrap();
    loop {
        std::hint::spin_loop();
    }
}

/// Stops its whole process.
#[mobula::remote]
fn stops() {
    raise(Signal::SIGSTOP).unwrap();
}

#[test]
fn a_session_ends_although_tasks_ignore_signals() {
    check(|| {
        drop(ignores_everything::remote());
        drop(ignores_everything::remote());
    });
}

#[test]
fn a_session_ends_although_a_worker_is_stopped() {
    let session = session(1);
    let socket = session.session.socket().to_owned();
    let stopped = stops::remote();
    assert!(stopped.get_timeout(Duration::from_millis(200)).is_err());
    let ending = Instant::now();
    let _lock = session.end();
    println!("the session ended in {:?}", ending.elapsed());
    eventually("no process of the session is left", || session_processes(&socket).is_empty());
}

// ---- the process's own state ----

#[mobula::remote]
fn changes_its_process() -> mobula::Result<u64> {
    std::env::set_current_dir("/").unwrap();
    nix::sys::stat::umask(nix::sys::stat::Mode::all());
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None).unwrap();
    for resource in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_STACK, Resource::RLIMIT_CORE] {
        let (_, hard) = getrlimit(resource).unwrap();
        setrlimit(resource, hard, hard).unwrap();
    }
    square::remote(3).get().map(|nine| nine as u64)
}

#[mobula::remote]
fn reads_stdin() -> Result<usize, String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| error.to_string())
}

/// Leaves threads behind that use the session as long as they can.
#[mobula::remote]
fn leaves_threads() {
    for _ in 0..3 {
        std::thread::spawn(|| {
            while let Ok(reference) = mobula::put(&vec![1u8; 10_000]) {
                let _ = square::remote(4).get();
                let _ = reference.get();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

/// Loses the objects that it holds.
#[mobula::remote]
fn forgets(bytes: Bytes) -> usize {
    for _ in 0..10 {
        std::mem::forget(mobula::put(&bytes).unwrap());
        std::mem::forget(square::remote(1));
        std::mem::forget(bytes.clone());
    }
    bytes.len()
}

#[test]
fn what_a_task_does_to_its_process_stays_there() {
    check(|| {
        for _ in 0..4 {
            assert_eq!(changes_its_process::remote().get_timeout(PATIENCE).unwrap(), 9);
            assert_eq!(reads_stdin::remote().get_timeout(PATIENCE).unwrap(), 0);
            leaves_threads::remote().get_timeout(PATIENCE).unwrap();
        }
        for _ in 0..20 {
            assert_eq!(
                forgets::remote(Bytes::from(vec![1; 100_000])).get_timeout(PATIENCE).unwrap(),
                100_000
            );
        }
    });
}

// ---- results ----

#[mobula::remote]
fn returns_too_much() -> Bytes {
    Bytes::from(vec![1; 1 << 30])
}

#[mobula::remote]
fn asks_the_store_for_too_much() -> mobula::Result<usize> {
    Ok(mobula::value::BytesMut::create(1 << 50)?.len())
}

#[mobula::remote]
fn returns_many(count: usize) -> Vec<String> {
    vec![String::new(); count]
}

#[mobula::remote]
fn nests(levels: usize) -> Deep {
    Deep::nested(levels)
}

#[test]
fn results_too_large_too_deep_or_too_many_are_errors() {
    check(|| {
        match returns_too_much::remote().get_timeout(PATIENCE) {
            Err(Error::Task(error)) => assert_eq!(error.kind, TaskErrorKind::NotReturned),
            other => panic!("{other:?}"),
        }
        let error = asks_the_store_for_too_much::remote().get_timeout(PATIENCE).unwrap_err().to_string();
        assert!(error.contains("asks_the_store_for_too_much"), "{error}");
        let parts = returns_many::num_returns(20_000).remote(20_000);
        assert_eq!(mobula::get_timeout(&parts, PATIENCE).unwrap().len(), 20_000);
        // A thread with a smaller stack need not be able to read a value that another thread can write.
        let mut deepest = 0;
        for levels in [100, 1_000, 10_000, 100_000, 1_000_000] {
            match nests::remote(levels).get_timeout(PATIENCE) {
                Ok(deep) => {
                    drop(deep);
                    deepest = levels;
                }
                Err(Error::Task(error)) => assert_eq!(error.kind, TaskErrorKind::NotReturned),
                Err(Error::Value(error)) => assert!(error.to_string().contains("nests deeper"), "{error}"),
                Err(error) => panic!("{error:?}"),
            }
        }
        println!("{deepest} levels were read");
        assert!((100..1_000_000).contains(&deepest));
    });
}

// ---- output ----

/// The endless output of a task.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Output {
    Lines,
    NoLines,
    EmptyLines,
    Binary,
    Labels,
}

#[mobula::remote]
fn floods(what: Output, megabytes: usize) {
    use std::io::Write;
    let piece: Vec<u8> = match what {
        Output::Lines => b"(driver pid=1) a line that looks as if it were somebody else's\n".repeat(1000),
        Output::NoLines => vec![b'x'; 64 << 10],
        Output::EmptyLines => vec![b'\n'; 64 << 10],
        Output::Binary => (0..=255u8).rev().cycle().take(64 << 10).collect(),
        // A name of the longest kind, and then as many lines as possible that would each get it.
        Output::Labels => {
            let name = [vec![0x1e], vec![b'n'; 60 << 10], vec![0x1e]].concat();
            [name, vec![b'\n'; 4 << 10]].concat()
        }
    };
    for _ in 0..(megabytes << 20) / piece.len() {
        std::io::stdout().write_all(&piece).unwrap();
        std::io::stderr().write_all(&piece).unwrap();
    }
}

/// This test binary again, running one of the `child_…` tests below.
fn start_child(test: &str, argument: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--ignored"])
        .env("MOBULA_TEST_CHILD", argument)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn argument() -> Option<String> {
    std::env::var("MOBULA_TEST_CHILD").ok()
}

fn memory_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

const FLOOD_MEGABYTES: usize = 40;

#[test]
#[ignore = "run as a child by another test"]
fn child_is_flooded() {
    let Some(argument) = argument() else { return };
    let _session = Builder::new()
        .workers(2)
        .capacity_bytes(64 << 20)
        .forward_output(argument == "forwarded")
        .init()
        .unwrap();
    assert_eq!(square::remote(3).get().unwrap(), 9);
    let before = memory_bytes();
    for what in [Output::Lines, Output::NoLines, Output::EmptyLines, Output::Binary, Output::Labels] {
        // Empty lines grow a prefix each.
        let megabytes = if matches!(what, Output::EmptyLines | Output::Labels) { 2 } else { FLOOD_MEGABYTES };
        let flood = floods::remote(what, megabytes);
        let mut calls = 0;
        while !flood.is_ready() {
            // The head looks after others meanwhile.
            let bystander = Bystander::remote();
            assert_eq!(bystander.count().get_timeout(PATIENCE).unwrap(), 1);
            calls += 1;
        }
        flood.get_timeout(PATIENCE).unwrap();
        let grown = memory_bytes().saturating_sub(before) >> 20;
        eprintln!("\nflood {what:?}: {calls} actors were made meanwhile, {grown} MiB more memory");
        assert!(grown < 200, "{what:?}: {grown} MiB");
    }
}

#[test]
fn floods_of_output_are_passed_on_or_discarded_and_hold_nobody_up() {
    for how in ["forwarded", "discarded"] {
        let mut child = start_child("child_is_flooded", how);
        let drain = |stream: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let (mut bytes, mut said) = (0, Vec::new());
                let mut lines = BufReader::new(stream);
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).unwrap() > 0 {
                    bytes += line.len();
                    if line.starts_with(b"flood ") {
                        said.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                    }
                    line.clear();
                }
                (bytes, said)
            })
        };
        let stdout = drain(Box::new(child.stdout.take().unwrap()));
        let stderr = drain(Box::new(child.stderr.take().unwrap()));
        let (printed, _) = stdout.join().unwrap();
        let (_, said) = stderr.join().unwrap();
        assert!(child.wait().unwrap().success(), "{said:#?}");
        println!("{how}: {} MB on stdout\n{}", printed / 1_000_000, said.join("\n"));
        assert_eq!(said.len(), 5);
        match how {
            "forwarded" => assert!(printed > (3 * FLOOD_MEGABYTES) << 20, "{printed}"),
            _ => assert!(printed < 1 << 20, "{printed}"),
        }
    }
}

#[test]
#[ignore = "run as a child by another test"]
fn child_is_not_read() {
    if argument().is_none() {
        return;
    }
    let session = Builder::new().workers(2).capacity_bytes(64 << 20).init().unwrap();
    println!("\nsocket {}", session.socket().display());
    let flood = floods::remote(Output::Lines, FLOOD_MEGABYTES);
    assert!(flood.get_timeout(Duration::from_millis(500)).is_err());
    assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
}

#[test]
fn a_session_ends_although_nobody_reads_what_it_prints() {
    let mut child = start_child("child_is_not_read", "1");
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("socket ") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0);
    }
    let socket = line.trim_end().trim_start_matches("socket ").to_owned();
    let socket = Path::new(&socket);
    eventually("the session is over", || !socket.parent().unwrap().exists());
    eventually("no process of the session is left", || session_processes(socket).is_empty());
    // Closes the pipes: the rest of the child's output does not block it any more.
    drop(stdout);
    drop(child.stderr.take());
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), None);
}

// ---- the driver ----

#[test]
#[ignore = "run as a child by another test"]
fn child_has_hostile_tasks() {
    if argument().is_none() {
        return;
    }
    let session = Builder::new().workers(4).capacity_bytes(64 << 20).init().unwrap();
    let child = forks::remote(InChild::Sleeps).get().unwrap();
    let calls = (ignores_everything::remote(), stops::remote(), leaves_threads::remote());
    calls.2.get().unwrap();
    let forker = Forker::remote();
    let other_child = forker.fork().get().unwrap();
    println!("\nready {} {child} {other_child}", session.socket().display());
    let _ = calls.0.get();
}

#[test]
fn a_killed_driver_takes_hostile_tasks_and_their_children_with_it() {
    let mut child = start_child("child_has_hostile_tasks", "1");
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let line = stdout.lines().map_while(Result::ok).find(|line| line.starts_with("ready ")).unwrap();
    let socket = Path::new(line.split(' ').nth(1).unwrap());
    // The driver's own arguments do not have it.
    let running = session_processes(socket).len();
    assert!(running >= 8, "{running} processes");
    child.kill().unwrap();
    let killed = Instant::now();
    child.wait().unwrap();
    eventually("no process of the session is left", || session_processes(socket).is_empty());
    println!("{running} processes were gone {:?} after the driver", killed.elapsed());
    eventually("the directory is gone", || !socket.parent().unwrap().exists());
}
