//! Sessions where something that a process usually has is missing, closed, full or limited.
//!
//! If these fail, a program that works at its author's desk does one of these in a container, under a service manager,
//! or behind `|`:
//!
//! - it loses output;
//! - it hangs;
//! - it dies.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mobula::{Builder, Error};
use mobula_client::{Client, ClientError, Handle};
use mobula_tests::{PATIENCE, eventually, is_running, session_processes};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[mobula::remote]
fn pid() -> u32 {
    std::process::id()
}

#[mobula::remote]
fn length(bytes: Vec<u8>) -> usize {
    bytes.len()
}

struct Counter(u64);

#[mobula::remote]
impl Counter {
    fn new() -> Self {
        Self(0)
    }

    fn count(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
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

/// All that a session does works: tasks, actors, objects, and a worker and a store in the place of killed ones.
fn check_session(session: &mobula::Session) {
    let large = mobula::put(&vec![7u8; 1 << 20]).unwrap();
    assert_eq!(square::remote(3).get_timeout(PATIENCE).unwrap(), 9);
    assert_eq!(length::remote(&large).get_timeout(PATIENCE).unwrap(), 1 << 20);
    let counter = Counter::remote();
    assert_eq!(counter.count().get_timeout(PATIENCE).unwrap(), 1);
    let worker = pid::remote().get_timeout(PATIENCE).unwrap();
    let store = store_of(session.socket());
    for killed in [worker, store] {
        kill(killed);
        eventually("a killed process is gone", || !is_running(killed));
    }
    let options = mobula::TaskOptions::new().max_retries(3);
    assert_ne!(pid::options(options).remote().get_timeout(PATIENCE).unwrap(), worker);
    assert_eq!(counter.count().get_timeout(PATIENCE).unwrap(), 2);
    eventually("another store is there", || {
        session_processes(session.socket()).into_iter().any(|pid| is_store(pid) && pid != store)
    });
    assert_eq!(large.get().unwrap(), vec![7u8; 1 << 20]);
}

/// Puts bytes that stay in the store while the handle lives, and can be spilled.
fn put(client: &Client, byte: u8, length: usize) -> Result<Handle, ClientError> {
    Ok(client.put(&vec![byte; length])?.handle())
}

fn store_of(socket: &Path) -> u32 {
    let store = session_processes(socket).into_iter().find(|pid| is_store(*pid));
    store.expect("a session has a store")
}

fn is_store(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"mobula-store"))
}

fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
}

/// Runs a child, which must end well. Returns its standard error.
fn run(mut command: Command) -> String {
    stderr_of(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
}

/// The same behind a shell's commands that give it other surroundings, in namespaces of its own; `None`, said aloud,
/// where the machine does not permit that.
fn run_behind(script: &str, test: &str) -> Option<String> {
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-e", "-c", script]);
        command
    };
    if !unshared(script).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!("SKIP: this process may not do `{script}` in a namespace of its own");
        return None;
    }
    let plain = child(test);
    let mut command = unshared(&format!("{script}; exec \"$0\" \"$@\""));
    command
        .arg(plain.get_program())
        .args(plain.get_args())
        .env("MOBULA_TEST_CHILD", "1")
        .stdin(Stdio::null());
    command.env_remove("XDG_RUNTIME_DIR").env_remove("TMPDIR");
    Some(run(command))
}

/// The text of the error with which a session does not start.
fn refusal(builder: Builder) -> String {
    match builder.init() {
        Err(Error::Start(text)) => text,
        other => panic!("{other:?}"),
    }
}

// ---- standard input and output ----

/// Numbers of standard descriptors that are closed, as digits.
const CLOSED: &str = "MOBULA_TEST_CLOSED";

#[test]
fn standard_descriptors_may_be_closed() {
    for closed in ["0", "1", "2", "01", "02", "12", "012"] {
        let mut command = child("child_with_closed_descriptors");
        run({
            command.env(CLOSED, closed);
            command
        });
    }
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_closed_descriptors() {
    as_child(|| {
        let closed = std::env::var(CLOSED).unwrap();
        let closed: Vec<i32> = closed.bytes().map(|digit| i32::from(digit - b'0')).collect();
        let target = |pid: u32, number: i32| std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
        for number in &closed {
            nix::unistd::close(*number).unwrap();
        }
        let session = small().init().unwrap();
        let check_standard = || {
            for number in &closed {
                // One that is being opened has the number for a moment.
                eventually("what is closed in the driver stays so", || {
                    target(std::process::id(), *number).is_err()
                });
            }
            for pid in session_processes(session.socket()) {
                for number in 0..3 {
                    // One that has just ended has none.
                    let Ok(target) = target(pid, number) else { continue };
                    let target = target.to_string_lossy().into_owned();
                    let is_ours = ["memfd", "socket", "anon_inode"].iter().any(|kind| target.contains(kind));
                    assert!(!is_ours, "{number} of process {pid} is {target}");
                }
            }
        };
        check_standard();
        check_session(&session);
        prints::remote(10).get().unwrap();
        check_standard();
        drop(session);
    });
}

const LINES: u32 = 20_000;

#[test]
#[ignore = "run as a child by another test"]
fn child_whose_worker_prints() {
    as_child(|| {
        let _session = small().init().unwrap();
        prints::remote(LINES).get().unwrap();
    });
}

/// A pipe that somebody has made non-blocking, reader first, and a child with it as its output.
fn with_non_blocking_output(test: &str) -> (OwnedFd, OwnedFd, Child) {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let output = writer.try_clone().unwrap();
    let child = child(test).stdout(output).stderr(Stdio::piped()).spawn().unwrap();
    (reader, writer, child)
}

/// Waits until a pipe takes no more. Its number of bytes does not tell: a part of each of its pages may be empty.
fn until_full(writer: impl AsFd) {
    eventually("the pipe is full", || {
        let mut writers = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
        poll(&mut writers, PollTimeout::ZERO).unwrap() == 0
    });
}

#[test]
fn all_lines_reach_an_output_that_is_non_blocking_and_read_slowly() {
    let (reader, writer, child) = with_non_blocking_output("child_whose_worker_prints");
    until_full(&writer);
    drop(writer);
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
fn a_driver_may_hold_the_lock_of_its_output_while_it_waits_for_workers_that_print() {
    let mut child = child("child_that_holds_the_lock_of_its_output");
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let lines = output.lines().map_while(Result::ok).filter(|line| line.contains(") line ")).count();
    assert_eq!(lines, LINES as usize);
    let said = stderr_of(child);
    assert!(!said.contains("lost"), "{said}");
}

#[test]
#[ignore = "run as a child by another test"]
fn child_that_holds_the_lock_of_its_output() {
    as_child(|| {
        let session = small().init().unwrap();
        let locked = std::io::stdout().lock();
        prints::remote(LINES).get_timeout(PATIENCE).unwrap();
        drop(session);
        drop(locked);
    });
}

#[test]
fn output_that_nobody_can_read_any_more_is_said_to_be_lost_once() {
    let (reader, writer, child) = with_non_blocking_output("child_whose_worker_prints");
    // The test harness has printed what it had to say.
    until_full(&writer);
    drop(reader);
    let said = stderr_of(child);
    assert_eq!(
        said.matches("cannot be written to standard output, and is lost: Broken pipe").count(),
        1,
        "{said}"
    );
    // The log files lose nothing while the session is there.
    assert!(!said.contains("log files"), "{said}");
}

#[test]
fn output_that_nobody_reads_holds_up_no_session_that_ends_and_is_said_to_be_lost() {
    let (reader, _writer, child) =
        with_non_blocking_output("child_whose_worker_prints_and_is_not_waited_for");
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
        until_full(std::io::stdout());
        // Its worker waits, and nobody else does.
        assert_eq!(square::remote(3).get_timeout(mobula_tests::PATIENCE).unwrap(), 9);
        drop((printing, session));
    });
}

#[test]
#[ignore = "run as a child by another test"]
fn child_that_cannot_print_errors() {
    as_child(|| {
        let session = small().init().unwrap();
        check_session(&session);
        // Another store that is killed is said as well.
        check_session(&session);
    });
}

#[test]
fn a_session_goes_on_when_nobody_can_read_or_nobody_reads_standard_error() {
    for is_closed in [true, false] {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let is_full = || nix::unistd::write(&writer, &[b'.'; 512]) == Err(nix::errno::Errno::EAGAIN);
        while !is_closed && !is_full() {}
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let reader = (!is_closed).then_some(reader);
        let mut command = child("child_that_cannot_print_errors");
        let status = command.stdout(Stdio::null()).stderr(writer).status().unwrap();
        assert!(status.success(), "closed: {is_closed}");
        drop(reader);
    }
}

// ---- directories ----

#[test]
fn relative_paths_stay_what_they_were_when_the_process_changes_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    for variable in [true, false] {
        let mut command = child("child_with_relative_paths");
        command.current_dir(directory.path()).env("XDG_RUNTIME_DIR", "runtime").env("TMPDIR", "temporary");
        command.env("MOBULA_TEST_SESSION_DIR", if variable { "rel/dir" } else { "" });
        for name in ["runtime", "temporary", "spill"] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        run(command);
    }
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_relative_paths() {
    as_child(|| {
        let _ = std::fs::remove_file("program");
        symlink(std::env::current_exe().unwrap(), "program").unwrap();
        let builder = small().worker_program("./program").spill_directory("spill");
        let spill_directory = std::env::current_dir().unwrap().join("spill");
        let session_dir = std::env::var_os("MOBULA_TEST_SESSION_DIR").filter(|path| !path.is_empty());
        let builder = match session_dir {
            Some(path) => builder.session_dir(path),
            None => builder,
        };
        let session = builder.init().unwrap();
        std::env::set_current_dir("/").unwrap();
        assert!(session.socket().is_absolute());
        check_session(&session);
        // More than there is room for.
        let client = session.client();
        let large: Vec<_> = (0..5).map(|byte| put(&client, byte, 16 << 20).unwrap()).collect();
        assert!(std::fs::read_dir(spill_directory).unwrap().count() > 0);
        assert_eq!(large[0].object().unwrap()[1000], 0);
        drop((large, client));
        let directory = session.socket().parent().unwrap().to_owned();
        drop(session);
        assert!(!directory.exists());
    });
}

#[test]
fn directories_need_not_have_names_that_are_text() {
    use std::os::unix::ffi::OsStrExt;
    let base = tempfile::tempdir().unwrap();
    let directory = base.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&directory).unwrap();
    for variable in ["MOBULA_TEST_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR"] {
        let mut command = child("child_with_a_directory_that_is_not_text");
        command.env_remove("XDG_RUNTIME_DIR").env(variable, &directory);
        run(command);
    }
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_a_directory_that_is_not_text() {
    as_child(|| {
        let builder = match std::env::var_os("MOBULA_TEST_DIRECTORY") {
            Some(directory) => small().session_dir(&directory).spill_directory(&directory),
            None => small(),
        };
        let session = builder.init().unwrap();
        assert!(session.socket().to_str().is_none(), "{session:?}");
        check_session(&session);
        drop(session);
        drop(small().init_or_join().unwrap());
    });
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_a_session() {
    as_child(|| {
        let session = small().init().unwrap();
        check_session(&session);
        if let Some(directory) = std::env::var_os("MOBULA_TEST_EXPECTED") {
            assert!(session.socket().starts_with(&directory), "{session:?} is not in {directory:?}");
        }
        assert!(mobula::sessions().contains(&session.socket().to_owned()));
    });
}

#[test]
fn a_runtime_directory_with_a_long_path_is_used() {
    let base = tempfile::tempdir().unwrap();
    let long = base.path().join("x".repeat(120)).join("y".repeat(120));
    std::fs::create_dir_all(&long).unwrap();
    let mut command = child("child_with_a_session");
    command.env("XDG_RUNTIME_DIR", &long).env("MOBULA_TEST_EXPECTED", &long);
    run(command);
    assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
}

#[test]
fn without_a_directory_to_write_to_the_next_one_is_used_and_without_any_all_are_named() {
    let read_only = |directory: &str| format!("mount -t tmpfs -o ro none {directory}");
    run_behind(&read_only("/tmp"), "child_with_a_session");
    let all = ["/tmp", "/var/tmp", "/dev/shm"].map(read_only).join("; ");
    run_behind(&all, "child_without_directories");
}

#[test]
#[ignore = "run as a child by another test"]
fn child_without_directories() {
    as_child(|| {
        let text = refusal(small());
        for expected in ["/tmp/mobula-", "/var/tmp/mobula-", "/dev/shm/mobula-", "Read-only", "TMPDIR"] {
            assert!(text.contains(expected), "{text}");
        }
    });
}

#[test]
fn without_proc_that_is_what_the_error_says() {
    run_behind("mount -t tmpfs none /proc", "child_without_proc");
}

#[test]
#[ignore = "run as a child by another test"]
fn child_without_proc() {
    as_child(|| {
        let text = refusal(small());
        assert!(text.contains("/proc is not mounted") && text.contains("mount -t proc"), "{text}");
    });
}

#[test]
fn a_umask_takes_nothing_away_from_a_session() {
    let base = tempfile::tempdir().unwrap();
    let mut command = child("child_with_a_umask");
    command.env("XDG_RUNTIME_DIR", base.path());
    run(command);
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_a_umask() {
    use std::os::unix::fs::PermissionsExt;
    as_child(|| {
        nix::sys::stat::umask(nix::sys::stat::Mode::all());
        let session = small().init().unwrap();
        check_session(&session);
        // The superuser may do anything, whatever the modes are; so they are looked at.
        let directory = session.socket().parent().unwrap();
        let base = directory.parent().unwrap();
        for (path, expected) in [(base, 0o700), (directory, 0o700), (&directory.join("lock"), 0o600)] {
            let mode = path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, expected, "{path:?} has the mode {mode:o}");
        }
        let mode = session.socket().metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o600, 0o600, "the socket has the mode {mode:o}");
    });
}

// ---- sessions in other directories ----

#[test]
fn sessions_in_a_directory_of_their_own_are_listed_and_what_leads_to_them_ends_with_them() {
    let base = tempfile::tempdir().unwrap();
    let (runtime, elsewhere) = (base.path().join("runtime"), base.path().join("elsewhere"));
    std::fs::create_dir(&runtime).unwrap();
    let known = runtime.join("mobula");
    for ends in ["dropped", "killed", "killed with its store"] {
        let mut command = child("child_with_a_session_elsewhere");
        command.env("XDG_RUNTIME_DIR", &runtime).env("MOBULA_TEST_SESSION_DIR", &elsewhere);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let socket = said(&mut child, "socket ");
        assert!(socket.starts_with(&elsewhere), "{socket:?}");
        assert_eq!(listed(&runtime), std::slice::from_ref(&socket), "{ends}");
        // Files that others may have put there lead nowhere, and are left alone.
        std::fs::write(known.join("link-nonsense"), b"no link").unwrap();
        symlink("/dev/zero", known.join("session-1-1")).unwrap();
        symlink("/", known.join("link-1-1")).unwrap();
        nix::unistd::mkfifo(&known.join("session-fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let with_fifo = known.join("session-2-2");
        std::fs::create_dir(&with_fifo).unwrap();
        nix::unistd::mkfifo(&with_fifo.join("lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(listed(&runtime), std::slice::from_ref(&socket), "{ends}");
        for name in ["link-nonsense", "session-1-1", "link-1-1", "session-fifo"] {
            std::fs::remove_file(known.join(name)).unwrap();
        }
        std::fs::remove_dir_all(with_fifo).unwrap();
        match ends {
            "dropped" => drop(child.stdin.take()),
            "killed" => child.kill().unwrap(),
            _ => {
                let store = store_of(&socket);
                nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(store as i32),
                    nix::sys::signal::Signal::SIGSTOP,
                )
                .unwrap();
                child.kill().unwrap();
                kill(store);
            }
        }
        child.wait().unwrap();
        eventually("the session has ended", || session_processes(&socket).is_empty());
        assert!(listed(&runtime).is_empty(), "{ends}");
        if ends == "killed with its store" {
            // Nobody was left to do it; the next session does.
            let mut command = self::child("child_with_a_session");
            command.env("XDG_RUNTIME_DIR", &runtime);
            run(command);
        }
        eventually("nothing is left", || !known.exists());
    }
}

/// The rest of the line that a child prints with this at its beginning.
fn said(child: &mut Child, what: &str) -> PathBuf {
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let line =
        stdout.lines().map_while(Result::ok).find_map(|line| Some(line.strip_prefix(what)?.to_owned()));
    line.expect("the child says it").into()
}

/// The sessions that a process finds with this runtime directory.
fn listed(runtime: &Path) -> Vec<PathBuf> {
    let mut command = child("child_that_lists_sessions");
    // Others of this user's may be in the common directories.
    command.env("XDG_RUNTIME_DIR", runtime).stdout(Stdio::piped());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("session "));
    let base = runtime.parent().unwrap();
    lines.map(PathBuf::from).filter(|socket| socket.starts_with(base)).collect()
}

#[test]
#[ignore = "run as a child by another test"]
fn child_that_lists_sessions() {
    as_child(|| {
        println!();
        for socket in mobula::sessions() {
            println!("session {}", socket.display());
        }
    });
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_a_session_elsewhere() {
    as_child(|| {
        let directory = std::env::var_os("MOBULA_TEST_SESSION_DIR").unwrap();
        let session = small().session_dir(directory).init().unwrap();
        println!("\nsocket {}", session.socket().display());
        // Until it is told to end, or killed.
        let _ = std::io::stdin().read(&mut [0]);
        drop(session);
    });
}

// ---- limits ----

/// A soft limit, and a hard one.
fn limited(test: &str, soft: u64, hard: u64) {
    let mut command = child(test);
    command.env("MOBULA_TEST_LIMITS", format!("{soft} {hard}"));
    run(command);
}

/// Takes on the limits that `limited` gave.
fn take_on(resource: Resource) -> (u64, u64) {
    let limits = std::env::var("MOBULA_TEST_LIMITS").unwrap();
    let (soft, hard) = limits.split_once(' ').unwrap();
    let (soft, hard) = (soft.parse().unwrap(), hard.parse().unwrap());
    setrlimit(resource, soft, hard).unwrap();
    (soft, hard)
}

#[test]
fn a_limit_of_file_sizes_kills_nobody() {
    for limit in [1 << 20, 1 << 30] {
        limited("child_with_a_limit_of_file_sizes", limit, u64::MAX);
        limited("child_with_a_limit_of_file_sizes", limit, limit);
    }
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_a_limit_of_file_sizes() {
    as_child(|| {
        let (soft, hard) = take_on(Resource::RLIMIT_FSIZE);
        let spill = tempfile::tempdir().unwrap();
        let builder = Builder::new().workers(1).capacity_bytes(16 << 20).spill_directory(spill.path());
        if soft == hard {
            let text = refusal(builder);
            return assert!(text.contains("RLIMIT_FSIZE") && text.contains("ulimit -f"), "{text}");
        }
        let session = builder.init().unwrap();
        check_session(&session);
        assert_eq!(getrlimit(Resource::RLIMIT_FSIZE).unwrap(), (soft, hard), "this process keeps its limit");
        // Spilled by this process, whose limit counts: small ones in files that are small enough, large ones not.
        let client = session.client();
        let small: Vec<_> = (0..400).map(|_| put(&client, 1, 100 << 10).unwrap()).collect();
        assert_eq!(small[0].object().unwrap()[1000], 1);
        drop(small);
        let large: Result<Vec<_>, _> = (0..4).map(|_| put(&client, 2, 6 << 20)).collect();
        match large {
            Ok(_) => assert!(soft > 6 << 20, "6 MiB in a file of 1 MiB"),
            Err(error) => {
                let text = error.to_string();
                assert!(soft < 6 << 20 && text.contains("RLIMIT_FSIZE"), "{text}");
            }
        }
    });
}

#[test]
fn a_low_limit_of_descriptors_is_raised_or_named() {
    limited("child_with_few_descriptors", 24, 24);
    limited("child_with_few_descriptors", 24, 4096);
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_few_descriptors() {
    as_child(|| {
        let (soft, hard) = take_on(Resource::RLIMIT_NOFILE);
        if soft == hard {
            let text = refusal(small());
            let expected = ["RLIMIT_NOFILE", "of the 24 descriptors", "ulimit -n"];
            return assert!(expected.iter().all(|expected| text.contains(expected)), "{text}");
        }
        let session = small().init().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        // Used up, and some closed again.
        drop(session);
        let mut used: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        used.truncate(used.len().saturating_sub(10));
        let text = refusal(small());
        assert!(text.contains("RLIMIT_NOFILE") && text.contains("or close some"), "{text}");
        drop(used);
        let session = small().init().unwrap();
        let counters: Vec<_> = (0..20).map(|_| Counter::remote()).collect();
        for counter in &counters {
            assert_eq!(counter.count().get_timeout(PATIENCE).unwrap(), 1);
        }
        check_session(&session);
    });
}

#[test]
fn a_limit_of_memory_or_of_threads_is_named() {
    for (resource, limits) in [("RLIMIT_AS", [600 << 20, 300 << 20]), ("RLIMIT_NPROC", [1, 4])] {
        let errors = limits.map(|limit| {
            let mut command = child("child_with_a_limit");
            command.env("MOBULA_TEST_LIMITS", format!("{limit} {limit}")).env("MOBULA_TEST_LIMIT", resource);
            // Another user may not use the directories of this one.
            command.env_remove("XDG_RUNTIME_DIR").env_remove("TMPDIR");
            run(command)
        });
        // Else the limits were high enough, and nothing was shown.
        assert!(errors.iter().any(|error| error.contains(resource)), "no session was refused: {errors:?}");
    }
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_a_limit() {
    as_child(|| {
        let name = std::env::var("MOBULA_TEST_LIMIT").unwrap();
        let is_of_threads = name == "RLIMIT_NPROC";
        if is_of_threads && nix::unistd::geteuid().is_root() {
            // No limit of threads holds for the superuser. The files of the process itself in /proc stay its own.
            nix::unistd::setuid(nix::unistd::Uid::from_raw(65_533)).unwrap();
            nix::sys::prctl::set_dumpable(true).unwrap();
        }
        take_on(if is_of_threads { Resource::RLIMIT_NPROC } else { Resource::RLIMIT_AS });
        match small().init() {
            // It is enough.
            Ok(session) => drop(session),
            Err(error) => {
                eprintln!("{error}");
                assert!(error.to_string().contains(&name), "{error}");
            }
        }
    });
}

// ---- containers ----

/// A control group of version 1 or 2, for this process's children; removed on drop.
struct Group {
    directories: Vec<PathBuf>,
}

impl Group {
    /// `None`, said aloud, where this process may not make one that limits memory.
    fn with_memory(bytes: u64) -> Option<Self> {
        let name = format!("mobula-test-{}", std::process::id());
        let version_one = [
            ("memory", "memory.limit_in_bytes", bytes.to_string()),
            ("cpu", "cpu.cfs_quota_us", "100000".to_owned()),
        ];
        let make = |directory: PathBuf, files: &[(&str, &str)]| -> std::io::Result<Self> {
            std::fs::create_dir(&directory)?;
            let group = Self { directories: vec![directory.clone()] };
            files.iter().try_for_each(|(file, text)| std::fs::write(directory.join(file), text))?;
            Ok(group)
        };
        let root = Path::new("/sys/fs/cgroup");
        let limit = bytes.to_string();
        let made = if root.join("memory").is_dir() {
            let parts = version_one
                .iter()
                .map(|(controller, file, text)| make(root.join(controller).join(&name), &[(file, text)]));
            parts.collect::<Result<Vec<_>, _>>().map(|parts| Self {
                directories: parts
                    .into_iter()
                    .flat_map(|mut part| std::mem::take(&mut part.directories))
                    .collect(),
            })
        } else {
            make(root.join(&name), &[("memory.max", &limit), ("cpu.max", "100000 100000")])
        };
        made.inspect_err(|error| println!("SKIP: this process may not make a control group: {error}")).ok()
    }

    /// Runs a child in it.
    fn run(&self, test: &str) {
        let plain = child(test);
        let enter: Vec<_> = self
            .directories
            .iter()
            .map(|path| format!("echo $$ > {}/cgroup.procs", path.display()))
            .collect();
        let mut command = Command::new("sh");
        command.args(["-e", "-c", &format!("{}; exec \"$0\" \"$@\"", enter.join("; "))]);
        command
            .arg(plain.get_program())
            .args(plain.get_args())
            .env("MOBULA_TEST_CHILD", "1")
            .stdin(Stdio::null());
        run(command);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in &self.directories {
            eventually("the control group is removed", || {
                std::fs::remove_dir(directory).is_ok() || !directory.exists()
            });
        }
    }
}

#[test]
fn in_a_control_group_its_limits_count() {
    if let Some(group) = Group::with_memory(300 << 20) {
        group.run("child_in_a_control_group");
    }
}

#[test]
#[ignore = "run as a child by another test"]
fn child_in_a_control_group() {
    as_child(|| {
        let error = Builder::new().capacity_bytes(301 << 20).init().unwrap_err().to_string();
        assert!(error.contains("control group"), "{error}");
        let session = Builder::new().init().unwrap();
        assert_eq!(mobula::cluster_resources().unwrap().num_cpus(), 1.0);
        let capacity_bytes = session.client().stats().unwrap().totals.capacity_bytes;
        assert!(capacity_bytes <= 90 << 20, "{capacity_bytes}");
        // Three times as much as there is room for in memory.
        let client = session.client();
        let values: Vec<_> = (0..14).map(|byte| put(&client, byte, 20 << 20).unwrap()).collect();
        for (value, byte) in values.iter().zip(0..) {
            assert_eq!(value.object().unwrap()[1000], byte);
        }
    });
}

#[test]
fn there_are_as_many_workers_as_processors_to_run_on() {
    run(child("child_on_one_processor"));
}

#[test]
#[ignore = "run as a child by another test"]
fn child_on_one_processor() {
    as_child(|| {
        // SAFETY: a set of bits, of which all zeroes are one; the calls read and write just it, by its length.
        unsafe {
            let mut allowed: libc::cpu_set_t = std::mem::zeroed();
            let bytes = size_of_val(&allowed);
            assert_eq!(libc::sched_getaffinity(0, bytes, &raw mut allowed), 0);
            let first = (0..libc::CPU_SETSIZE as usize).find(|cpu| libc::CPU_ISSET(*cpu, &allowed)).unwrap();
            libc::CPU_ZERO(&mut allowed);
            libc::CPU_SET(first, &mut allowed);
            assert_eq!(libc::sched_setaffinity(0, bytes, &raw const allowed), 0);
        }
        let session = Builder::new().init().unwrap();
        assert_eq!(mobula::cluster_resources().unwrap().num_cpus(), 1.0);
        pid::remote().get().unwrap();
        let processes = session_processes(session.socket());
        let workers = processes.iter().filter(|pid| !is_store(**pid)).count();
        assert_eq!(workers, 1, "{processes:?}");
    });
}

#[test]
fn environment_variables_give_what_a_program_leaves_open() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = child("child_with_variables");
    command.env("MOBULA_SESSION_DIR", directory.path()).env("MOBULA_CAPACITY", "64M");
    command.env("MOBULA_NUM_CPUS", "1.5").env("MOBULA_RESOURCES", "disk=2");
    run(command);
    let mut command = child("child_with_a_bad_variable");
    command.env("MOBULA_CAPACITY", "plenty").env("MOBULA_NUM_CPUS", "1.5");
    run(command);
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_variables() {
    as_child(|| {
        let directory = std::env::var_os("MOBULA_SESSION_DIR").expect("it is set");
        let session = Builder::new().memory(1000).init().unwrap();
        assert!(session.socket().starts_with(directory), "{session:?}");
        assert_eq!(session.client().capacity_bytes(), 64 << 20);
        let resources = mobula::cluster_resources().unwrap().to_string();
        assert_eq!(resources, "1.5 CPU, 2 disk, 1000 bytes of memory");
        check_session(&session);
        drop(session);
        // The program has the last word.
        let _session =
            Builder::new().workers(2).memory(1000).capacity_bytes(32 << 20).init_or_join().unwrap();
        let resources = mobula::cluster_resources().unwrap().to_string();
        assert_eq!(resources, "2 CPU, 2 disk, 1000 bytes of memory");
    });
}

#[test]
#[ignore = "run as a child by another test"]
fn child_with_a_bad_variable() {
    as_child(|| {
        let error = Builder::new().init().unwrap_err();
        assert!(matches!(error, Error::Config { field: "MOBULA_CAPACITY", .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("MOBULA_CAPACITY cannot be \"plenty\": a number of bytes"), "{text}");
    });
}
