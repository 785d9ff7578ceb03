//! Environments of workers: if these fail, a call runs in a process with the variables or the directory of another
//! call, or one that names a directory that is not there waits for ever, or keeps others from their workers.

use std::path::PathBuf;

use mobula::{ActorOptions, Builder, Error, Failure, TaskOptions};
use mobula_tests::{eventually, is_running, session, session_processes, session_with};

const NAME: &str = "MOBULA_TEST_VARIABLE";

/// The process, its variable, and its directory.
#[mobula::remote]
fn surroundings() -> (u32, Option<String>, PathBuf) {
    let directory = std::env::current_dir().expect("there is one");
    (std::process::id(), std::env::var(NAME).ok(), directory)
}

/// Returns the surroundings of a call that it makes.
#[mobula::remote]
fn nested(variables: Vec<(String, String)>) -> mobula::Result<(u32, Option<String>, PathBuf)> {
    if variables.is_empty() {
        return surroundings::remote().get();
    }
    surroundings::options(TaskOptions::new().env_vars(variables)).remote().get()
}

#[mobula::remote(env_vars = [(NAME, "attribute")])]
fn of_attribute() -> Option<String> {
    std::env::var(NAME).ok()
}

struct Surrounded;

#[mobula::remote]
impl Surrounded {
    fn new() -> Self {
        Surrounded
    }
    fn variable(&self) -> Option<String> {
        std::env::var(NAME).ok()
    }
    fn of_its_calls(&self) -> mobula::Result<Option<String>> {
        Ok(surroundings::remote().get()?.1)
    }
    fn crash(&self) {
        std::process::abort();
    }
}

fn variable(value: &str) -> TaskOptions {
    TaskOptions::new().env_vars([(NAME, value)])
}

#[test]
fn calls_run_in_processes_of_their_environment_alone() {
    let session = session(2);
    let calls: Vec<_> = (0..60)
        .map(|n| match n % 3 {
            0 => surroundings::remote(),
            1 => surroundings::options(variable("one")).remote(),
            _ => surroundings::options(variable("two")).remote(),
        })
        .collect();
    let mut pids = [Vec::new(), Vec::new(), Vec::new()];
    for (n, (pid, variable, _)) in mobula::get(&calls).unwrap().into_iter().enumerate() {
        assert_eq!(variable.as_deref(), [None, Some("one"), Some("two")][n % 3]);
        pids[n % 3].push(pid);
    }
    assert!(pids[0].iter().all(|pid| !pids[1].contains(pid) && !pids[2].contains(pid)));
    assert!(pids[1].iter().all(|pid| !pids[2].contains(pid)), "two environments shared a process");
    // A process is used again, and ends when it has been idle for a while.
    let (again, ..) = surroundings::options(variable("one")).remote().get().unwrap();
    eventually("processes of environments end when they are idle", || !is_running(again));
    // The store, and the workers that are kept.
    let socket = session.session.socket().to_owned();
    eventually("only what is kept is left", || session_processes(&socket).len() <= 3);
}

#[test]
fn calls_inherit_variables_and_the_directory_and_add_to_them() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let (_, variable_there, directory_there) = nested::options(variable("outer").working_dir(&path))
        .remote(Vec::<(String, String)>::new())
        .get()
        .unwrap();
    assert_eq!((variable_there.as_deref(), directory_there), (Some("outer"), path.clone()));
    let other = vec![("OTHER".to_owned(), "1".to_owned())];
    let added = nested::options(variable("outer").working_dir(&path)).remote(other).get().unwrap();
    assert_eq!((added.1.as_deref(), added.2), (Some("outer"), path));
    let replaced = vec![(NAME.to_owned(), "inner".to_owned())];
    let (_, replaced, _) = nested::options(variable("outer")).remote(replaced).get().unwrap();
    assert_eq!(replaced.as_deref(), Some("inner"));
    assert_eq!(of_attribute::remote().get().unwrap().as_deref(), Some("attribute"));
    assert_eq!(of_attribute::options(variable("call")).remote().get().unwrap().as_deref(), Some("call"));
}

#[test]
fn an_actor_has_its_environment_also_after_a_restart() {
    let _session = session(1);
    let options = ActorOptions::new().env_vars([(NAME, "actor")]).max_restarts(1);
    let actor = Surrounded::options(options).remote();
    assert_eq!(actor.variable().get().unwrap().as_deref(), Some("actor"));
    assert_eq!(actor.of_its_calls().get().unwrap().as_deref(), Some("actor"));
    actor.crash().get().unwrap_err();
    assert_eq!(actor.variable().get().unwrap().as_deref(), Some("actor"));
    assert_eq!(Surrounded::remote().variable().get().unwrap(), None);
}

#[test]
fn an_invalid_option_is_an_error_before_a_worker_starts() {
    let session = session(1);
    let pid = surroundings::remote().get().unwrap().0;
    let before = session_processes(session.session.socket());
    let error = surroundings::options(TaskOptions::new().working_dir("/does/not/exist")).remote().get();
    let error = error.unwrap_err();
    assert!(matches!(&error, Error::Failed(Failure::BadOption { option, .. }) if option == "working_dir"));
    assert!(error.to_string().contains("/does/not/exist"), "{error}");
    let error = Surrounded::options(ActorOptions::new().env_vars([("A=B", "1")])).remote().variable().get();
    assert!(error.unwrap_err().to_string().contains("A=B"));
    assert_eq!(session_processes(session.session.socket()), before);
    assert_eq!(surroundings::remote().get().unwrap().0, pid);
}

#[test]
fn processes_that_cannot_start_fail_their_own_calls_and_no_others() {
    let _session = session(1);
    let broken = || TaskOptions::new().env_vars([("LD_PRELOAD", ""), ("LD_LIBRARY_PATH", "/does/not/exist")]);
    // The loader ignores what is not there, so the process comes up.
    surroundings::options(broken()).remote().get().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let gone = directory.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    // The only CPU is taken while the directory goes away, and no process can start in it any more.
    let (blocker, go) = (directory.path().join("begun"), directory.path().join("go"));
    let blocking = block::remote(blocker.clone(), go.clone());
    eventually("it runs", || blocker.exists());
    let lost = surroundings::options(TaskOptions::new().working_dir(&gone)).remote();
    std::fs::remove_dir(&gone).unwrap();
    std::fs::write(&go, "").unwrap();
    blocking.get().unwrap();
    let error = lost.get().unwrap_err();
    assert!(matches!(&error, Error::Failed(Failure::NoWorkers { .. })), "{error}");
    assert!(error.to_string().contains(&*gone.to_string_lossy()), "{error}");
    assert_eq!(surroundings::remote().get().unwrap().1, None);
}

#[mobula::remote]
fn block(begun: PathBuf, go: PathBuf) {
    std::fs::write(begun, "").expect("the directory is there");
    eventually("it may end", || go.exists());
}

#[test]
fn environments_share_the_processes_that_there_may_be() {
    let _session = session_with(Builder::new().workers(1).max_processes(2).capacity_bytes(64 << 20));
    // One more than the usual one at a time: each makes room for the next.
    for round in 0..2 {
        for name in ["a", "b", "c"] {
            let (_, value, _) = surroundings::options(variable(name)).remote().get().unwrap();
            assert_eq!(value.as_deref(), Some(name), "round {round}");
        }
        assert_eq!(surroundings::remote().get().unwrap().1, None);
    }
}
