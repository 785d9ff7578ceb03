//! The hot path: if these fail, putting or getting an object that needs no new memory costs a system call or a
//! message, or waits for the daemon.
//!
//! The peer runs under `strace`, which writes down the system calls of each of its threads; the peer marks where the
//! counted part begins and ends. Where the system does not allow tracing, the tests say so and pass.

use std::path::Path;
use std::process::{Command, Stdio};

use mobula_tests::{Process, Store, put_content};
use nix::sys::signal::Signal;

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const COUNT: usize = 10_000;
/// Parts that are counted; see [`check_parts`].
const ROUNDS: usize = 3;

#[test]
fn puts_and_drops_make_no_system_call() {
    let Some(trace) = Trace::begin() else { return };
    let mut store = Store::start(PEER, 64 << 20);
    let mut peer = trace.peer(&store);
    for round in 0..ROUNDS {
        peer.ok(format_args!("count-puts running-{round} {COUNT}"));
    }
    // The peer leases what it needs before the daemon is stopped.
    store.daemon_process().signal(Signal::SIGSTOP);
    for round in 0..ROUNDS {
        peer.ok(format_args!("count-puts stopped-{round} {COUNT}"));
    }
    store.daemon_process().signal(Signal::SIGCONT);
    assert!(peer.end().success());
    trace.check_parts("running");
    trace.check_parts("stopped");
}

#[test]
fn gets_and_drops_make_no_system_call() {
    let Some(trace) = Trace::begin() else { return };
    let mut store = Store::start(PEER, 64 << 20);
    let client = store.client();
    let mut peer = trace.peer(&store);
    // Every 50th object is read first, so that each segment is mapped before the others are counted.
    let objects: Vec<_> =
        (0..COUNT * ROUNDS * 2 + 2000).map(|_| put_content(&client, 100).unwrap()).collect();
    let (mapping, counted): (Vec<_>, Vec<_>) = objects.iter().enumerate().partition(|(at, _)| at % 50 == 0);
    let ids: Vec<u8> =
        mapping.iter().chain(&counted).flat_map(|(_, object)| object.id().to_bytes()).collect();
    let ids = client.put(&ids).unwrap();
    peer.ok(format_args!("count-gets mapping {} 0 {}", ids.id(), mapping.len()));
    let mut from = mapping.len();
    let mut count = |peer: &mut Process, part: &str| {
        for round in 0..ROUNDS {
            peer.ok(format_args!("count-gets {part}-{round} {} {from} {}", ids.id(), from + COUNT));
            from += COUNT;
        }
    };
    count(&mut peer, "running");
    store.daemon_process().signal(Signal::SIGSTOP);
    count(&mut peer, "stopped");
    store.daemon_process().signal(Signal::SIGCONT);
    assert!(peer.end().success());
    trace.check_parts("running");
    trace.check_parts("stopped");
}

/// A file that `strace` writes.
struct Trace {
    directory: tempfile::TempDir,
}

impl Trace {
    /// `None`, with a line that says so, where tracing does not work.
    fn begin() -> Option<Self> {
        let trace = Self { directory: tempfile::tempdir().unwrap() };
        let tried = trace.strace("true").stderr(Stdio::null()).status();
        if !tried.is_ok_and(|status| status.success()) || !trace.text().contains("exit") {
            println!("SKIP: strace does not work here, so no system calls were counted");
            return None;
        }
        Some(trace)
    }

    fn strace(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-s", "64", "-o"]).arg(self.file()).arg(program.as_ref());
        command
    }

    fn peer(&self, store: &Store) -> Process {
        let mut command = self.strace(PEER);
        command.arg("client").arg(store.socket());
        store.peer_by(command)
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("trace")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap_or_default()
    }

    /// Looks at what lies between the marks of each round of a part.
    ///
    /// No round may have a message of any thread. The marking thread may wait for a lock that the client's own thread
    /// holds at that moment. So at least one round must have none of its other system calls, and no round may have any
    /// but waits for a lock.
    fn check_parts(&self, part: &str) {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        // The trace would show a message if there was one: saying hello is one.
        assert!(text.contains("sendmsg("), "the trace shows no message at all");
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            let find = |what: &str| {
                let mark = format!("\"mark {part}-{round} {what}\"");
                lines.iter().position(|line| line.contains(&mark)).expect("the mark was made")
            };
            let (begin, end) = (find("begin"), find("end"));
            let thread = lines[begin].split(' ').next().expect("a line begins with the thread's number");
            let between = &lines[begin + 1..end];
            for line in between {
                let is_message = ["sendmsg(", "sendto(", "sendmmsg("].iter().any(|call| line.contains(call));
                assert!(!is_message, "{part}-{round}: a message: {line}");
            }
            // A call that another thread's line interrupts has a second line, which is not a second call.
            let is_mine = |line: &&&str| line.split(' ').next() == Some(thread) && !line.contains(" <... ");
            let mine: Vec<&str> = between.iter().filter(is_mine).copied().collect();
            for line in &mine {
                let is_lock = ["futex", "sched_yield"].iter().any(|call| line.contains(call));
                assert!(is_lock, "{part}-{round}, {COUNT} times and drops: {line}\n{mine:#?}");
            }
            rounds.push(mine.len());
        }
        println!("{part}: system calls in each round of {COUNT}: {rounds:?}");
        assert!(rounds.contains(&0), "{part}: every round of {COUNT} waited for a lock: {rounds:?}");
    }
}
