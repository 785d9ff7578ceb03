//! Sessions where something of what a process usually has is missing, closed, full or limited: if these fail, a program
//! that works at its author's desk loses output, hangs or dies in a container, under a service manager, or behind `|`.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use mobula::Builder;
use mobula_tests::eventually;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[mobula::remote]
fn prints(lines: u32) {
    for line in 0..lines {
        println!("line {line} of what a worker has to say");
    }
}

/// This test binary again, to run one of the `child_…` tests below.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--ignored"]).env("MOBULA_TEST_CHILD", "1");
    command.stdin(Stdio::null());
    command
}

/// Runs what a child is there for, and ends it: the test harness is not to print anything into the output that is
/// tested. Nothing, in a process that is no child.
fn as_child(run: impl FnOnce()) {
    if std::env::var_os("MOBULA_TEST_CHILD").is_none() {
        return;
    }
    let end = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    // SAFETY: ends the process.
    unsafe { libc::_exit(if end.is_ok() { 0 } else { 1 }) }
}

fn small() -> Builder {
    Builder::new().workers(1).capacity_bytes(64 << 20)
}

/// All that a child writes to standard error, and that it ended well.
fn stderr_of(mut child: Child) -> String {
    let mut text = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

// ---- standard output ----

const LINES: u32 = 20_000;

#[test]
#[ignore = "run as a child by another test"]
fn child_whose_worker_prints() {
    as_child(|| {
        let _session = small().init().unwrap();
        prints::remote(LINES).get().unwrap();
    });
}

/// A pipe that somebody has made non-blocking, and a child with it as its output.
fn with_non_blocking_output(test: &str) -> (OwnedFd, Child) {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let child = child(test).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    (reader, child)
}

/// Waits until a pipe takes no more.
fn until_full(pipe: &OwnedFd) {
    let capacity = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).unwrap();
    eventually("the pipe is full", || {
        let mut bytes: libc::c_int = 0;
        // SAFETY: writes one int, to a local.
        assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
        bytes > capacity - 8192
    });
}

#[test]
fn all_lines_reach_an_output_that_is_non_blocking_and_read_slowly() {
    let (reader, child) = with_non_blocking_output("child_whose_worker_prints");
    until_full(&reader);
    let mut output = BufReader::with_capacity(512, std::fs::File::from(reader));
    let (mut text, mut expected) = (String::new(), 0..LINES);
    while output.read_line(&mut text).unwrap() > 0 {
        // Others run in between, so that the pipe is full most of the time.
        std::thread::yield_now();
        if let Some((prefix, line)) = text.trim_end().split_once(") ") {
            assert!(prefix.starts_with("(prints pid="), "{text:?}");
            let number = expected.next().expect("each line comes once");
            assert_eq!(line, format!("line {number} of what a worker has to say"));
        }
        text.clear();
    }
    assert_eq!(expected, LINES..LINES, "the lines from here on are lost");
    let said = stderr_of(child);
    assert!(!said.contains("lost"), "{said}");
}

#[test]
fn output_that_nobody_can_read_any_more_is_said_to_be_lost_once() {
    let (reader, child) = with_non_blocking_output("child_whose_worker_prints");
    drop(reader);
    let said = stderr_of(child);
    assert_eq!(
        said.matches("cannot be written to standard output and is lost: Broken pipe").count(),
        1,
        "{said}"
    );
}

#[test]
fn output_that_nobody_reads_holds_up_no_session_that_ends_and_is_said_to_be_lost() {
    let (reader, child) = with_non_blocking_output("child_whose_worker_prints_and_is_not_waited_for");
    let said = stderr_of(child);
    assert!(said.contains("bytes that workers printed are lost: nobody has read"), "{said}");
    drop(reader);
}

#[test]
#[ignore = "run as a child by another test"]
fn child_whose_worker_prints_and_is_not_waited_for() {
    as_child(|| {
        let session = small().workers(2).init().unwrap();
        let printing = prints::remote(LINES);
        until_full(&std::io::stdout().as_fd().try_clone_to_owned().unwrap());
        // Its worker waits, and nobody else does.
        assert_eq!(square::remote(3).get_timeout(mobula_tests::PATIENCE).unwrap(), 9);
        drop((printing, session));
    });
}
