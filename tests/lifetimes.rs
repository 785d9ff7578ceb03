//! How actors begin and end. If these fail, a destructor does not run and what it was to save is lost, an actor that
//! was to live on is gone, two processes get two actors by one name, or an actor that was ended comes back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula::prelude::*;
use mobula::{
    ActorEnd, ActorOptions, Builder, Error, ExitReason, Failure, Lifetime, get_actor_in, kill, kill_process,
    list_named_actors, restarted, terminate,
};
use mobula_tests::{PATIENCE, eventually, is_running, session, session_with};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Notes what happens to it in a file.
struct Noted {
    log: PathBuf,
    /// The destructor waits for this file.
    until: Option<PathBuf>,
}

#[mobula::remote]
impl Noted {
    fn new(log: PathBuf) -> Self {
        note(&log, if restarted() { "restarted" } else { "born" });
        Self { log, until: None }
    }

    fn note(&mut self, what: String) -> String {
        note(&self.log, &what);
        what
    }

    fn process(&self) -> u32 {
        std::process::id()
    }

    fn is_restarted(&self) -> bool {
        restarted()
    }

    /// Returns once the file is there.
    fn wait_for(&self, file: PathBuf) {
        eventually("the file is there", || file.exists());
    }

    fn drops_behind(&mut self, file: PathBuf) {
        self.until = Some(file);
    }

    fn retire(&mut self) -> u32 {
        note(&self.log, "retires");
        mobula::exit_actor()
    }

    /// Makes a detached actor, from this process.
    fn make_detached(&self, name: String) {
        drop(Noted::options(detached(&name).max_restarts(5)).remote(self.log.clone()));
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(file) = &self.until {
            eventually("the file is there", || file.exists());
        }
        note(&self.log, "dropped");
    }
}

/// Of another class.
struct Other;

#[mobula::remote]
impl Other {
    fn new() -> Self {
        Self
    }

    fn process(&self) -> u32 {
        std::process::id()
    }
}

struct Limited;

#[mobula::remote(max_pending_calls = 2, lifetime = scoped)]
impl Limited {
    fn new() -> Self {
        Self
    }

    fn wait_for(&self, file: PathBuf) {
        eventually("the file is there", || file.exists());
    }

    fn one(&self) -> u32 {
        1
    }
}

#[mobula::remote]
fn one_of(limited: ActorHandle<Limited>) -> mobula::Result<u32> {
    limited.one().get()
}

#[mobula::remote]
fn make(name: String, log: PathBuf) -> mobula::Result<u32> {
    let noted = Noted::options(detached(&name).max_restarts(5)).remote(log);
    noted.process().get()
}

#[mobula::remote]
fn get_or_make(log: PathBuf) -> mobula::Result<u32> {
    let options = ActorOptions::new().name("one").get_if_exists(true).lifetime(Lifetime::Detached);
    Noted::options(options).remote(log).process().get()
}

#[mobula::remote]
fn names() -> mobula::Result<Vec<String>> {
    Ok(list_named_actors(false)?.into_iter().map(|named| named.name).collect())
}

#[mobula::remote]
fn exits() {
    mobula::exit_actor()
}

fn detached(name: &str) -> ActorOptions {
    ActorOptions::new().name(name).lifetime(Lifetime::Detached)
}

fn note(log: &Path, what: &str) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
    file.write_all(format!("{what}\n").as_bytes()).unwrap();
}

fn notes(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn send(signal: Signal, pid: u32) {
    nix::sys::signal::kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// The end of the actor that a call fails with.
fn end_of<T: std::fmt::Debug>(result: mobula::Result<T>) -> ActorEnd {
    match result {
        Err(Error::Failed(Failure::ActorDied { cause, .. })) => cause,
        other => panic!("{other:?}"),
    }
}

/// The process of an actor that is not this one any more.
fn next_process(noted: &ActorHandle<Noted>, before: u32) -> u32 {
    let mut process = before;
    eventually("the actor has another process", || {
        process = noted.process().get().unwrap_or(before);
        process != before
    });
    process
}

#[test]
fn a_kill_of_an_actor_that_has_no_process_counts_as_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let _session = session_with(Builder::new().workers(1).resources([("place", 1)]));
    let in_place = || ActorOptions::new().num_cpus(0).resources([("place", 1)]);
    let before = Noted::options(in_place()).remote(directory.path().join("before"));
    before.process().get().unwrap();
    let mortal = Noted::options(in_place().max_restarts(1)).remote(log.clone());
    let noted = Noted::options(in_place().max_restarts(3)).remote(log.clone());
    for _ in 0..2 {
        kill_process(&mortal).unwrap();
        kill_process(&noted).unwrap();
    }
    // It could be restarted once.
    assert_eq!(end_of(mortal.process().get()), ActorEnd::Killed);
    drop(before);
    let process = noted.process().get().unwrap();
    assert_eq!(notes(&log), ["restarted"]);
    kill_process(&noted).unwrap();
    let process = next_process(&noted, process);
    assert!(noted.is_restarted().get().unwrap());
    send(Signal::SIGKILL, process);
    let reason = ExitReason::Killed { signal: libc::SIGKILL };
    eventually("the actor is over", || noted.process().get().is_err());
    assert_eq!(end_of(noted.process().get()), ActorEnd::Process { reason, restarts: 3 });
}

#[test]
fn a_name_is_one_actor_s_in_its_namespace() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let _session = session_with(Builder::new().workers(2).namespace("ours"));
    let a = Noted::options(ActorOptions::new().name("a")).remote(log.clone());
    let theirs = Noted::options(ActorOptions::new().name("a").namespace("theirs")).remote(log.clone());
    assert_ne!(a, theirs);
    assert_eq!(get_actor::<Noted>("a").unwrap(), a);
    assert_eq!(get_actor_in::<Noted>("a", "ours").unwrap(), a);
    assert_eq!(get_actor_in::<Noted>("a", "theirs").unwrap(), theirs);
    assert!(matches!(get_actor_in::<Noted>("a", "nobody's"), Err(Error::NoSuchActor { .. })));
    let again = Noted::options(ActorOptions::new().name("a")).remote(log.clone());
    assert!(matches!(again.process().get(), Err(Error::Failed(Failure::NameTaken { .. }))));
    // Workers have the session's namespace.
    assert_eq!(names::remote().get().unwrap(), ["a"]);
    let all = list_named_actors(true).unwrap();
    let all: Vec<_> = all.iter().map(|named| (named.namespace.as_str(), named.name.as_str())).collect();
    assert_eq!(all, [("ours", "a"), ("theirs", "a")]);
    // More of them than fit one record, in order.
    let name = |n: usize| format!("{n:04}{}", "x".repeat(500));
    let many: Vec<_> = (0..20)
        .map(|n| Other::options(ActorOptions::new().name(name(n)).namespace("many")).remote())
        .collect();
    let listed = list_named_actors(true).unwrap();
    let listed: Vec<_> =
        listed.into_iter().filter(|named| named.namespace == "many").map(|named| named.name).collect();
    assert_eq!(listed, (0..20).map(name).collect::<Vec<_>>());
    drop(many);
    // A name is free when its actor has ended.
    kill(&a).unwrap();
    assert!(list_named_actors(false).unwrap().is_empty());
    let bad = Noted::options(ActorOptions::new().name("b").namespace("")).remote(log);
    assert!(matches!(bad.process().get(), Err(Error::Failed(Failure::BadOption { .. }))));
}

#[test]
fn of_all_that_ask_for_an_actor_if_it_exists_one_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let _session = session(4);
    let calls: Vec<_> = (0..16).map(|_| get_or_make::remote(log.clone())).collect();
    let processes = mobula::get(&calls).unwrap();
    assert!(processes.iter().all(|process| *process == processes[0]), "{processes:?}");
    assert_eq!(notes(&log), ["born"]);
    let options = || ActorOptions::new().get_if_exists(true);
    let of_another = Other::options(options().name("one")).remote();
    match of_another.process().get() {
        Err(Error::Failed(Failure::WrongActorClass { expected, found, .. })) => {
            assert_eq!((expected.as_str(), found.as_str()), ("lifetimes::Other", "lifetimes::Noted"));
        }
        other => panic!("{other:?}"),
    }
    let nameless = Other::options(options()).remote();
    assert!(matches!(nameless.process().get(), Err(Error::Failed(Failure::BadOption { .. }))));
    kill(&get_actor::<Noted>("one").unwrap()).unwrap();
}

#[test]
fn a_detached_actor_lives_until_it_is_killed_whoever_has_made_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let _session = session(1);
    // By the driver, by a worker, and by an actor that ends.
    drop(Noted::options(detached("by-driver").max_restarts(5)).remote(log.clone()));
    make::remote("by-worker".to_owned(), log.clone()).get().unwrap();
    let maker = Noted::remote(directory.path().join("maker"));
    maker.make_detached("by-actor".to_owned()).get().unwrap();
    kill(&maker).unwrap();
    for name in ["by-driver", "by-worker", "by-actor"] {
        let process = get_actor::<Noted>(name).unwrap().process().get().unwrap();
        // Its own process ends, while there is no handle, and it starts again.
        send(Signal::SIGKILL, process);
        eventually("it has no process", || !is_running(process));
        let process = next_process(&get_actor::<Noted>(name).unwrap(), process);
        let scoped = Noted::remote(directory.path().join("scoped"));
        let scoped_process = scoped.process().get().unwrap();
        drop(scoped);
        eventually("an actor that is not detached ends", || !is_running(scoped_process));
        assert!(is_running(process), "{name}");
        kill(&get_actor::<Noted>(name).unwrap()).unwrap();
        eventually("it ends", || !is_running(process));
        assert!(matches!(get_actor::<Noted>(name), Err(Error::NoSuchActor { .. })));
    }
}

#[test]
fn so_many_calls_of_a_handle_are_pending_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let _session = session(1);
    let limited = Limited::remote();
    let (first, second) = (limited.wait_for(file.clone()), limited.clone().one());
    // A handle that went through a task counts for itself.
    let through = one_of::remote(limited.clone());
    match limited.one().get() {
        Err(Error::Failed(Failure::PendingCallsLimitExceeded { class, method, limit })) => {
            assert_eq!((class.as_str(), method.as_str(), limit), ("lifetimes::Limited", "one", 2));
        }
        other => panic!("{other:?}"),
    }
    std::fs::write(&file, "").unwrap();
    first.get().unwrap();
    assert_eq!((second.get().unwrap(), through.get().unwrap()), (1, 1));
    // A caller that has taken a result can make one more call.
    for _ in 0..1000 {
        let calls = [limited.one(), limited.one()];
        assert_eq!(mobula::get(&calls).unwrap(), [1, 1]);
    }
    // Calls whose references are dropped count, too, until they are over.
    for _ in 0..100 {
        drop(limited.one());
    }
    eventually("there is room", || limited.one().get().is_ok());
    let none = Limited::options(ActorOptions::new().max_pending_calls(0)).remote();
    assert!(matches!(none.one().get(), Err(Error::Failed(Failure::BadOption { .. }))));
}

#[test]
fn an_actor_that_exits_is_dropped_and_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let _session = session(1);
    let noted = Noted::options(ActorOptions::new().max_restarts(5).max_task_retries(5)).remote(log.clone());
    let process = noted.process().get().unwrap();
    let (before, exit, behind) =
        (noted.note("before".to_owned()), noted.retire(), noted.note("behind".to_owned()));
    assert_eq!(before.get().unwrap(), "before");
    assert_eq!(end_of(exit.get()), ActorEnd::Exited);
    assert_eq!(end_of(behind.get()), ActorEnd::Exited);
    assert_eq!(end_of(noted.process().get()), ActorEnd::Exited);
    eventually("its process ends", || !is_running(process));
    assert_eq!(notes(&log), ["born", "before", "retires", "dropped"]);
    // No function and no driver is an actor.
    match exits::remote().get() {
        Err(Error::Task(error)) => assert!(error.message.contains("this process is no actor"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(mobula_runtime::exit_actor(), Err(Error::NotInActor)));
}

#[test]
fn an_actor_that_is_terminated_finishes_what_it_was_told_before() {
    let directory = tempfile::tempdir().unwrap();
    let (log, file) = (directory.path().join("log"), directory.path().join("file"));
    let _session = session(1);
    let noted = Noted::options(ActorOptions::new().name("noted").max_restarts(5)).remote(log.clone());
    let process = noted.process().get().unwrap();
    drop(noted.wait_for(file.clone()));
    let calls: Vec<_> = (0..50).map(|n| noted.note(n.to_string())).collect();
    let error = terminate(&noted, Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, Error::Timeout { ready: 0, wanted: 1, .. }), "{error}");
    let late = noted.note("late".to_owned());
    std::fs::write(&file, "").unwrap();
    terminate(&noted, PATIENCE).unwrap();
    assert!(!is_running(process));
    assert_eq!(mobula::get(&calls).unwrap().len(), 50);
    assert_eq!(end_of(late.get()), ActorEnd::Exited);
    let told = (0..50).map(|n| n.to_string());
    let all: Vec<_> = ["born".to_owned()].into_iter().chain(told).chain(["dropped".to_owned()]).collect();
    assert_eq!(notes(&log), all);
    assert!(matches!(get_actor::<Noted>("noted"), Err(Error::NoSuchActor { .. })));
    // An actor that has ended has ended.
    terminate(&noted, PATIENCE).unwrap();
}

#[test]
fn a_session_that_is_shut_down_waits_for_destructors() {
    let directory = tempfile::tempdir().unwrap();
    let (log, file) = (directory.path().join("log"), directory.path().join("file"));
    let session = session(1);
    let noted = Noted::options(detached("noted")).remote(log.clone());
    noted.drops_behind(file.clone()).get().unwrap();
    let thread = std::thread::spawn({
        let (log, file) = (log.clone(), file.clone());
        move || {
            // Longer than the drop of a session would wait.
            std::thread::sleep(Duration::from_millis(2500));
            assert_eq!(notes(&log), ["born"]);
            std::fs::write(&file, "").unwrap();
        }
    });
    let (shut_down, _lock) = session.shutdown(PATIENCE);
    shut_down.unwrap();
    thread.join().unwrap();
    assert_eq!(notes(&log), ["born", "dropped"]);
}

#[test]
fn a_session_that_is_shut_down_kills_actors_that_take_too_long() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let session = session(1);
    let (slow, quick) = (Noted::remote(log.clone()), Noted::remote(log.clone()));
    let processes = mobula::get([slow.process(), quick.process()]).unwrap();
    slow.drops_behind(directory.path().join("never")).get().unwrap();
    let (shut_down, _lock) = session.shutdown(Duration::from_millis(300));
    let error = shut_down.unwrap_err();
    assert!(matches!(error, Error::Timeout { wanted: 1, .. }), "{error}");
    assert!(!processes.into_iter().any(is_running));
    assert_eq!(notes(&log), ["born", "born", "dropped"]);
}

#[test]
fn an_actor_that_gets_sigterm_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (log, file) = (directory.path().join("log"), directory.path().join("file"));
    let _session = session(1);
    let noted = Noted::options(ActorOptions::new().max_restarts(1)).remote(log.clone());
    // While it has nothing to do.
    let process = noted.process().get().unwrap();
    send(Signal::SIGTERM, process);
    let process = next_process(&noted, process);
    assert_eq!(notes(&log), ["born", "dropped", "restarted"]);
    // While it runs a call, which is finished.
    let call = noted.wait_for(file.clone());
    eventually("the call runs", || {
        notes(&log).len() == 3 && noted.process().get_timeout(Duration::ZERO).is_err()
    });
    send(Signal::SIGTERM, process);
    std::fs::write(&file, "").unwrap();
    let reason = ExitReason::Killed { signal: libc::SIGTERM };
    let finished = call.get();
    assert!(finished.is_ok() || end_of(finished) == ActorEnd::Process { reason, restarts: 1 });
    eventually("the actor is over", || noted.process().get().is_err());
    assert_eq!(end_of(noted.process().get()), ActorEnd::Process { reason, restarts: 1 });
    assert_eq!(notes(&log)[3..], ["dropped"]);
}
