//! Sessions: if these fail, processes, sockets or shared memory stay behind, or a misuse goes unexplained.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mobula::prelude::*;
use mobula::{Builder, Error, Failure};
use mobula_tests::{PATIENCE, eventually, is_running, session, session_lock};

#[mobula::remote]
fn pid() -> u32 {
    std::process::id()
}

#[mobula::remote]
fn init_again() -> String {
    match mobula::init() {
        Ok(_) => "started".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[mobula::remote]
fn speak(what: String) {
    println!("{what}");
    eprintln!("{what} on stderr");
    print!("no newline");
}

/// Panics here and in a thread of its own.
#[mobula::remote]
fn panics(what: String) {
    let named = std::thread::Builder::new().name("of-a-user".to_owned());
    let thread = named.spawn(|| panic!("in a thread")).unwrap();
    thread.join().unwrap_err();
    panic!("{what}");
}

#[mobula::remote]
fn threads() -> Vec<String> {
    threads_of(std::process::id())
}

/// The names of a process's threads, as `top` shows them.
fn threads_of(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(name).map(|name| name.trim_end().to_owned()).collect()
}

#[mobula::remote]
fn byte_of(bytes: Vec<u8>, at: usize) -> u8 {
    bytes[at]
}

#[mobula::remote]
fn sleep_forever() {
    loop {
        std::thread::park();
    }
}

struct Parrot;

#[mobula::remote]
impl Parrot {
    fn new() -> Self {
        Self
    }

    fn say(&self, what: String) {
        println!("{what}");
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// Everything that a session leaves in the system, to be found gone.
struct Traces {
    pids: BTreeSet<u32>,
    socket: PathBuf,
}

impl Traces {
    /// Of the processes that have the session's socket in their environment or are this process's children.
    fn of(session: &mobula::Session, workers: &[u32]) -> Self {
        let mut pids: BTreeSet<u32> = workers.iter().copied().collect();
        let clients = session.client().stats().unwrap().clients;
        pids.extend(clients.iter().map(|client| client.pid).filter(|pid| *pid != std::process::id()));
        Self { pids, socket: session.socket().to_owned() }
    }

    fn are_gone(&self) -> bool {
        !self.socket.parent().is_some_and(Path::exists) && !self.pids.iter().any(|pid| is_running(*pid))
    }
}

/// This test binary again, running one of the `child_…` tests below.
fn start_child(test: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--ignored"])
        .env("MOBULA_TEST_CHILD", "1")
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_child() -> bool {
    std::env::var_os("MOBULA_TEST_CHILD").is_some()
}

#[test]
fn everything_is_gone_when_the_guard_is_dropped_and_the_next_session_starts() {
    let _lock = session_lock();
    for _ in 0..3 {
        let session = Builder::new().workers(2).capacity_bytes(64 << 20).init().unwrap();
        let parrot = Parrot::remote();
        let pids = [pid::remote().get().unwrap(), parrot.pid().get().unwrap()];
        let traces = Traces::of(&session, &pids);
        assert!(traces.pids.len() >= 2 && traces.socket.exists());
        assert!(mobula::is_initialized());
        drop(session);
        assert!(!mobula::is_initialized());
        assert!(traces.are_gone(), "{:?}", traces.pids);
    }
}

#[test]
fn a_directory_that_was_given_stays_and_what_a_killed_session_left_in_it_goes() {
    let _lock = session_lock();
    let base = tempfile::tempdir().unwrap();
    let left_over = base.path().join("session-1-0");
    std::fs::create_dir(&left_over).unwrap();
    std::fs::write(left_over.join("lock"), "").unwrap();
    let abandoned = base.path().join("new-1-0");
    std::fs::create_dir(&abandoned).unwrap();
    std::fs::File::open(&abandoned).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let [unrelated, fresh] = ["unrelated", "new-2-0"].map(|name| base.path().join(name));
    std::fs::create_dir(&unrelated).unwrap();
    std::fs::create_dir(&fresh).unwrap();
    let builder = Builder::new().workers(1).capacity_bytes(64 << 20).session_dir(base.path());
    let session = builder.init().unwrap();
    assert!(session.socket().starts_with(base.path()));
    assert!(!left_over.exists() && !abandoned.exists() && unrelated.exists() && fresh.exists());
    drop(session);
    std::fs::remove_dir(unrelated).unwrap();
    std::fs::remove_dir(fresh).unwrap();
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

/// In containers that share a directory, more than one process has this number.
#[test]
fn a_session_takes_another_name_where_a_process_of_the_same_number_has_one() {
    use nix::fcntl::{Flock, FlockArg};
    let _lock = session_lock();
    let base = tempfile::tempdir().unwrap();
    let name = |number: u32| base.path().join(format!("session-{}-{number}", std::process::id()));
    std::fs::create_dir(name(0)).unwrap();
    let lock = std::fs::File::create(name(0).join("lock")).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    let builder = Builder::new().workers(1).capacity_bytes(64 << 20).session_dir(base.path());
    let session = builder.init().unwrap();
    assert_eq!(session.socket().parent(), Some(name(1).as_path()));
    assert!(name(0).exists());
    drop((session, lock));
}

#[test]
fn everything_is_gone_after_a_panic() {
    let _lock = session_lock();
    let mut traces = None;
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let session = Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
        traces = Some(Traces::of(&session, &[pid::remote().get().unwrap()]));
        let _busy = sleep_forever::remote();
        panic!("on purpose");
    }));
    assert!(panic.is_err());
    assert!(traces.unwrap().are_gone());
}

#[test]
#[ignore = "run as a child by another test"]
fn child_is_killed() {
    if !is_child() {
        return;
    }
    let session = Builder::new().workers(2).capacity_bytes(64 << 20).init().unwrap();
    let parrot = Parrot::remote();
    let workers = [pid::remote().get().unwrap(), parrot.pid().get().unwrap()];
    let traces = Traces::of(&session, &workers);
    let pids: Vec<String> = traces.pids.iter().map(u32::to_string).collect();
    println!("\ntraces {} {}", traces.socket.display(), pids.join(" "));
    sleep_forever::remote().get().unwrap();
}

#[test]
fn everything_is_gone_when_the_driver_is_killed() {
    let mut child = start_child("child_is_killed");
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let line = stdout.lines().map_while(Result::ok).find(|line| line.starts_with("traces ")).unwrap();
    let mut words = line.split(' ').skip(1);
    let traces = Traces {
        socket: words.next().unwrap().into(),
        pids: words.map(|pid| pid.parse().unwrap()).collect(),
    };
    assert!(traces.pids.iter().all(|pid| is_running(*pid)) && traces.socket.exists());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    eventually("the killed driver's session is gone", || traces.are_gone());
}

#[test]
fn a_session_goes_on_when_its_store_is_killed() {
    let _lock = session_lock();
    let session = Builder::new().workers(2).capacity_bytes(64 << 20).init().unwrap();
    let parrot = Parrot::remote();
    let its_pid = parrot.pid().get().unwrap();
    let stored = mobula::put(&vec![7u8; 1 << 20]).unwrap();
    for round in 0..5 {
        let store = children_called("mobula-store");
        assert_eq!(store.len(), 1, "round {round}: {store:?}");
        kill_process(store[0]);
        // Calls to those who know each other go on meanwhile, and what needs the store waits for the next one.
        assert_eq!(parrot.pid().get().unwrap(), its_pid, "round {round}");
        assert_eq!(byte_of::remote(&stored, 9).get().unwrap(), 7, "round {round}");
        assert_ne!(Parrot::remote().pid().get().unwrap(), its_pid, "round {round}");
        let another = mobula::put(&vec![round as u8; 9 << 20]).unwrap();
        assert_eq!(byte_of::remote(&another, 1000).get().unwrap(), round as u8, "round {round}");
        eventually("another store is there", || {
            children_called("mobula-store").iter().any(|pid| *pid != store[0])
        });
    }
    assert_eq!(stored.get().unwrap(), vec![7u8; 1 << 20]);
    drop(session);
}

#[test]
fn a_worker_that_starts_while_the_store_is_started_again_waits_for_it() {
    use nix::fcntl::{Flock, FlockArg};
    let _lock = session_lock();
    let session = Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
    let worker = pid::remote().get().unwrap();
    // No store starts in a directory that is locked: as on a machine that takes its time.
    let directory = std::fs::File::open(session.socket().parent().unwrap()).unwrap();
    let lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
    let store = children_called("mobula-store");
    kill_process(store[0]);
    kill_process(worker);
    eventually("the worker is gone", || !is_running(worker));
    let next = pid::remote();
    let mut another = Vec::new();
    eventually("another worker is there", || {
        another = children_called("mobula-worker");
        !another.is_empty()
    });
    // Long enough for one that does not wait to end.
    let early = next.get_timeout(std::time::Duration::from_secs(1));
    assert!(matches!(early, Err(Error::Timeout { .. })), "{early:?}");
    drop(lock);
    assert_eq!(vec![next.get().unwrap()], another);
}

#[test]
fn when_the_store_is_lost_for_good_every_wait_ends_also_those_that_begin_then() {
    let _lock = session_lock();
    let session = Builder::new().workers(2).capacity_bytes(64 << 20).init().unwrap();
    let parrot = Parrot::remote();
    parrot.pid().get().unwrap();
    let endless = sleep_forever::remote();
    // Without its directory no other store can take its place.
    std::fs::remove_dir_all(session.socket().parent().unwrap()).unwrap();
    for store in children_called("mobula-store") {
        kill_process(store);
    }
    assert!(endless.get().is_err());
    for _ in 0..100 {
        assert!(pid::remote().get().is_err());
        assert!(parrot.pid().get().is_err());
    }
    // Each of these asks the head, or waits for news from it. They return, with any result.
    let _ = mobula::kill(&parrot);
    let _ = mobula::get_actor::<Parrot>("nobody");
    assert!(Parrot::remote().pid().get().is_err());
    drop(session);
}

fn kill_process(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Processes that this one has started, by the name that they were given.
fn children_called(name: &str) -> Vec<u32> {
    let this = std::process::id().to_string();
    let is_it = |pid: &u32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        // Behind the program's name, which may have spaces in it: the state, and the parent.
        let parent = read("stat")
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1))
            .map(str::to_owned);
        parent.as_ref() == Some(&this) && read("cmdline").starts_with(name)
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_string_lossy().parse().ok());
    pids.filter(is_it).collect()
}

#[test]
fn a_second_session_in_one_process_is_an_error() {
    let _session = session(1);
    assert!(matches!(mobula::init(), Err(Error::AlreadyInitialized)));
    assert!(init_again::remote().get().unwrap().contains("worker process"));
    assert!(pid::remote().get().unwrap() > 0);
}

#[test]
fn who_joins_shares_the_session_which_ends_with_the_last_guard() {
    let _lock = session_lock();
    let builder = || Builder::new().workers(1).capacity_bytes(64 << 20);
    for _ in 0..10 {
        // Like the tests of one process, some begin while the session of others starts, runs or ends.
        std::thread::scope(|scope| {
            for x in 0..6 {
                scope.spawn(move || {
                    let session = builder().init_or_join().unwrap();
                    let bytes = mobula::put(&vec![x; 200_000]).unwrap();
                    assert_eq!(byte_of::remote(&bytes, 7).get().unwrap(), x);
                    assert!(mobula::is_initialized());
                    assert!(session.socket().exists());
                });
            }
        });
        assert!(!mobula::is_initialized());
    }
    let first = builder().init().unwrap();
    let second = builder().init_or_join().unwrap();
    assert_eq!(first.socket(), second.socket());
    assert!(matches!(builder().init(), Err(Error::AlreadyInitialized)));
    drop(first);
    assert!(pid::remote().get().unwrap() > 0);
    let traces = Traces::of(&second, &[]);
    drop(second);
    assert!(traces.are_gone());
    // One that does not start leaves room for the next.
    assert!(matches!(builder().capacity_bytes(1 << 60).init_or_join(), Err(Error::Start(_))));
    drop(builder().init_or_join().unwrap());
}

#[test]
fn without_a_session_everything_says_so() {
    let _lock = session_lock();
    let check = |error: Error| {
        assert!(matches!(error, Error::NotInitialized), "{error:?}");
        assert!(error.to_string().contains("call `init` first"), "{error}");
    };
    check(pid::remote().get().unwrap_err());
    check(mobula::put(&1).unwrap_err());
    check(Parrot::remote().pid().get().unwrap_err());
    check(mobula::get_actor::<Parrot>("x").unwrap_err());
    check(mobula::wait(vec![pid::remote()], 1, None).unwrap_err());
}

#[test]
fn results_of_a_session_that_is_over_stay_readable_if_they_were_got() {
    let lock = session_lock();
    let session = Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
    let reference = mobula::put(&Tensor::from_shape_vec(&[3], vec![1.0, 2.0, 3.0]).unwrap()).unwrap();
    let got = reference.get().unwrap();
    drop(session);
    assert_eq!(got.as_slice(), [1.0, 2.0, 3.0]);
    assert!(matches!(reference.get(), Err(Error::Failed(Failure::SessionOver))));
    drop(lock);
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let _lock = session_lock();
    let check = |builder: Builder, expected: &str| {
        let error = builder.init().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!mobula::is_initialized());
    };
    check(Builder::new().workers(0), "workers cannot be 0");
    check(Builder::new().capacity_bytes(0), "capacity_bytes cannot be 0");
    check(Builder::new().capacity_bytes(1 << 60), "memory");
    check(Builder::new().session_dir("/proc/nowhere"), "/proc/nowhere");
    // And after all that, one that can be.
    drop(Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap());
}

#[test]
fn workers_of_another_build_and_workers_that_do_not_start_are_errors() {
    let _lock = session_lock();
    let check = |program: &str, expected: &str| {
        let _session =
            Builder::new().workers(1).capacity_bytes(64 << 20).worker_program(program).init().unwrap();
        let error = pid::remote().get().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let error = Parrot::remote().pid().get().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(env!("CARGO_BIN_EXE_mobula-test-other-build"), "another build");
    check("/bin/true", "do not come up");
    check("/nonexistent/program", "cannot be started");
}

#[test]
fn actors_for_whom_no_process_comes_up_do_not_take_others_with_them() {
    let _lock = session_lock();
    let directory = tempfile::tempdir().unwrap();
    let (program, gate) = (directory.path().join("program"), directory.path().join("gate"));
    // The first worker comes up when there is a gate, and no other one does.
    let script = format!(
        "#!/bin/sh\n\
         mkdir {first} 2> /dev/null || exit 1\n\
         until [ -e {gate} ]; do sleep 0.01; done\n\
         exec {this} \"$@\"\n",
        first = directory.path().join("first").display(),
        gate = gate.display(),
        this = std::env::current_exe().unwrap().display(),
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let _session = Builder::new().workers(1).capacity_bytes(64 << 20).worker_program(program).init().unwrap();
    let (first, second) = (Parrot::remote(), Parrot::remote());
    let error = second.pid().get_timeout(PATIENCE).unwrap_err().to_string();
    assert!(error.contains("do not come up"), "{error}");
    std::fs::write(gate, "").unwrap();
    first.pid().get_timeout(PATIENCE).unwrap();
}

#[test]
#[ignore = "run as a child by another test"]
fn child_that_prints() {
    if !is_child() {
        return;
    }
    let _session = Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
    speak::remote("hello".to_owned()).get().unwrap();
    println!("\ntask {}", pid::remote().get().unwrap());
    let parrot = Parrot::remote();
    parrot.say("polly".to_owned()).get().unwrap();
    println!("\nactor {}", parrot.pid().get().unwrap());
    panics::remote("in a task,\nin two lines".to_owned()).get().unwrap_err();
}

#[test]
fn what_workers_print_reaches_the_drivers_output_with_a_prefix() {
    let mut child = start_child("child_that_prints");
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success(), "{stdout}{stderr}");
    let pid_of = |what: &str| {
        let line = stdout.lines().find_map(|line| line.strip_prefix(what));
        line.unwrap_or_else(|| panic!("no {what:?} in {stdout}")).trim().to_owned()
    };
    let (task, actor) = (pid_of("task "), pid_of("actor "));
    for (text, line) in [
        (&stdout, format!("(speak pid={task}) hello")),
        (&stderr, format!("(speak pid={task}) hello on stderr")),
        (&stdout, format!("(speak pid={task}) no newline")),
        (&stdout, format!("(Parrot pid={actor}) polly")),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in {text}");
    }
    // A panic's text has no empty line, and says which thread it was. The actor may have taken the first worker.
    let panics = stderr.lines().filter(|line| line.starts_with("(panics pid="));
    let panics: Vec<_> = panics.filter_map(|line| Some(line.split_once(") ")?.1)).collect();
    let [in_thread, its_message, .., in_task, first, second] = &panics[..] else { panic!("{stderr}") };
    assert!(in_thread.starts_with("thread 'of-a-user' panicked at tests/sessions.rs:"), "{stderr}");
    assert_eq!(*its_message, "in a thread");
    assert!(in_task.starts_with("thread 'mobula-worker' panicked at tests/sessions.rs:"), "{stderr}");
    assert_eq!([*first, *second], ["in a task,", "in two lines"]);
    assert!(panics.iter().all(|text| !text.is_empty()), "{stderr}");
}

#[test]
fn every_thread_has_a_name() {
    let _session = session(1);
    // A thread that has just begun has its maker's name for a moment.
    let check = |names: &dyn Fn() -> Vec<String>, expected: &[&str]| {
        eventually("all threads have their names", || {
            expected.iter().all(|expected| names().iter().any(|name| name == expected))
        });
    };
    let worker = || threads::remote().get().unwrap();
    check(&worker, &["mobula-worker", "mobula-client", "mobula-poller", "mobula-lifeline"]);
    let [store] = children_called("mobula-store")[..] else { panic!("one store") };
    let store = || threads_of(store);
    check(&store, &["mobula-store", "mobula-lifeline"]);
    for name in worker().iter().chain(&store()) {
        assert!(name.starts_with("mobula-"), "{name}");
    }
    // The test harness has threads of its own here.
    let driver = || threads_of(std::process::id());
    check(&driver, &["mobula-head", "mobula-client", "mobula-poller", "mobula-restart"]);
}

/// A driver gives back the descriptors that it has for a process (a channel, a table, bells: some five) when that
/// process ends, also while no thread of the driver calls or waits for anything.
#[test]
fn what_a_driver_has_of_ended_processes_goes_back_while_it_is_idle() {
    const ACTORS: usize = 4;
    let _session = session(1);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(pid::remote().get().unwrap() > 0);
    let before = open();
    let parrots: Vec<_> = (0..ACTORS).map(|_| Parrot::remote()).collect();
    for parrot in &parrots {
        parrot.say("hello".to_owned()).get().unwrap();
    }
    let with_actors = open();
    assert!(
        with_actors >= before + 3 * ACTORS,
        "{before} descriptors, and {with_actors} with {ACTORS} actors"
    );
    // Nobody looks at the driver's mail from here on: the process of a handle's actor ends some time after it.
    drop(parrots);
    eventually("the descriptors go back", || open() < before + ACTORS);
}

#[test]
fn a_forked_child_gets_a_clear_error_and_the_parent_is_unharmed() {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    let session = session(1);
    let reference = mobula::put(&vec![7u8; 100_000]).unwrap();
    let pending = sleep_forever::remote();
    // SAFETY: the child only calls into mobula, which takes no lock that another thread of the parent may hold while
    // it refuses a forked child, and exits.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let refused = |text: String| text.contains("forked child");
            let all = refused(reference.get().unwrap_err().to_string())
                && refused(mobula::put(&1).unwrap_err().to_string())
                && refused(pid::remote().get().unwrap_err().to_string())
                && refused(mobula::wait(vec![pending.clone()], 1, None).unwrap_err().to_string());
            drop((reference, pending, session));
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(if all { 7 } else { 1 }) };
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 7));
        }
    }
    assert_eq!(reference.get().unwrap(), vec![7u8; 100_000]);
    assert!(session.session.socket().exists());
    drop(pending);
}
