//! Cancelling: if these fail, cancelled work goes on taking places, a result comes although its call was cancelled, or
//! a call is lost that nobody cancelled.

use std::path::PathBuf;
use std::time::Duration;

use mobula::{ActorOptions, CancelOptions, Error, Failure, ObjectRef, TaskOptions};
use mobula_tests::{PATIENCE, eventually, is_running, session};

/// Leaves a file when it begins, and returns once there is another one.
#[mobula::remote]
fn gated(began: PathBuf, gate: PathBuf) -> u32 {
    std::fs::write(&began, std::process::id().to_string()).unwrap();
    while !gate.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    7
}

/// Runs until it is cancelled, and leaves a file then.
#[mobula::remote]
fn until_cancelled(began: PathBuf, noticed: PathBuf) {
    std::fs::write(&began, std::process::id().to_string()).unwrap();
    while !mobula::is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(&noticed, "").unwrap();
}

/// The same as a future.
#[mobula::remote]
fn awaits_cancellation(began: PathBuf, noticed: PathBuf) {
    std::fs::write(&began, std::process::id().to_string()).unwrap();
    pollster::block_on(mobula::cancelled());
    std::fs::write(&noticed, "").unwrap();
}

/// Waits for a call of its own, and leaves the error in a file.
#[mobula::remote]
fn waits_for_a_child(began: PathBuf, noticed: PathBuf, error: PathBuf) {
    let failed = until_cancelled::remote(began, noticed).get().unwrap_err();
    std::fs::write(&error, failed.to_string()).unwrap();
}

#[mobula::remote]
fn spins(began: PathBuf) {
    std::fs::write(&began, std::process::id().to_string()).unwrap();
    loop {
        std::hint::spin_loop();
    }
}

#[mobula::remote]
fn pid() -> u32 {
    std::process::id()
}

#[mobula::remote]
fn double(x: u32) -> u32 {
    2 * x
}

#[mobula::remote(num_returns = 2)]
fn two(began: PathBuf, gate: PathBuf) -> (u32, u32) {
    std::fs::write(&began, "").unwrap();
    while !gate.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    (1, 2)
}

struct Slow(Vec<u32>);

#[mobula::remote]
impl Slow {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(&mut self, x: u32, gate: PathBuf) {
        std::fs::write(gate.with_file_name("began"), "").unwrap();
        while !gate.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.0.push(x);
    }

    fn until_cancelled(&self, began: PathBuf, noticed: PathBuf) {
        until_cancelled(began, noticed);
    }

    fn all(&self) -> Vec<u32> {
        self.0.clone()
    }
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str) {
        std::fs::write(self.path(name), "").unwrap();
    }

    /// The text that a call writes into a file.
    fn text(&self, name: &str) -> String {
        let mut text = String::new();
        eventually(name, || {
            text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            !text.is_empty()
        });
        text
    }

    /// The process of a call that has begun.
    fn pid(&self, name: &str) -> u32 {
        self.text(name).parse().unwrap()
    }

    fn appears(&self, name: &str) {
        eventually(name, || self.path(name).exists());
    }
}

fn is_cancelled<T>(result: mobula::Result<T>, function: &str) {
    match result {
        Err(Error::Failed(Failure::TaskCancelled { function: name, by })) => {
            assert!(name.ends_with(function), "{name}");
            assert_eq!(by, std::process::id());
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("there is a result"),
    }
}

#[test]
fn calls_that_have_not_begun_never_run_and_free_their_places() {
    let session = session(1);
    let files = Files::new();
    let first = gated::remote(files.path("first"), files.path("gate"));
    files.pid("first");
    let waiting: Vec<_> =
        (0..4000).map(|n| gated::remote(files.path(&format!("call {n}")), files.path("gate"))).collect();
    let dependents: Vec<_> = waiting.iter().take(100).map(double::remote).collect();
    mobula::cancel(&waiting).unwrap();
    let last = double::remote(21);
    for reference in &waiting {
        is_cancelled(reference.get_timeout(PATIENCE), "gated");
    }
    for reference in dependents {
        is_cancelled(reference.get_timeout(PATIENCE), "gated");
    }
    files.write("gate");
    assert_eq!(last.get_timeout(PATIENCE).unwrap(), 42);
    assert_eq!(first.get_timeout(PATIENCE).unwrap(), 7);
    // One that is over stays as it is.
    first.cancel().unwrap();
    assert_eq!(first.get().unwrap(), 7);
    let ran = (0..4000).filter(|n| files.path(&format!("call {n}")).exists()).count();
    assert_eq!(ran, 0, "cancelled calls have run");
    drop(session);
}

#[test]
fn calls_that_wait_for_arguments_are_removed() {
    let session = session(2);
    let files = Files::new();
    let first = gated::remote(files.path("first"), files.path("gate"));
    let actor = Slow::remote();
    let (task, method) = (double::remote(&first), actor.add(&first, files.path("gate")));
    mobula::cancel([&task]).unwrap();
    method.cancel().unwrap();
    is_cancelled(task.get_timeout(PATIENCE), "double");
    is_cancelled(method.get_timeout(PATIENCE), "Slow::add");
    files.write("gate");
    assert_eq!(first.get_timeout(PATIENCE).unwrap(), 7);
    // The actor goes on without the cancelled call.
    actor.add(1, files.path("gate"));
    assert_eq!(actor.all().get_timeout(PATIENCE).unwrap(), [1]);
    drop(session);
}

#[test]
fn a_running_call_learns_of_it() {
    let session = session(2);
    let files = Files::new();
    let asks = until_cancelled::remote(files.path("asks"), files.path("asked"));
    let awaits = awaits_cancellation::remote(files.path("awaits"), files.path("awaited"));
    let workers = [files.pid("asks"), files.pid("awaits")];
    mobula::cancel([&asks, &awaits]).unwrap();
    is_cancelled(asks.get_timeout(PATIENCE), "until_cancelled");
    is_cancelled(awaits.get_timeout(PATIENCE), "awaits_cancellation");
    files.appears("asked");
    files.appears("awaited");
    // The next call is not cancelled, in whichever worker it runs.
    let next = until_cancelled::remote(files.path("next"), files.path("no"));
    assert!(workers.contains(&files.pid("next")));
    assert!(next.get_timeout(Duration::from_millis(20)).is_err() && !files.path("no").exists());
    next.cancel().unwrap();
    files.appears("no");
    drop(session);
}

#[test]
fn the_calls_of_a_cancelled_call_are_cancelled_and_what_waits_in_it_ends() {
    let session = session(2);
    for (recursive, file) in [(true, "yes"), (false, "no")] {
        let files = Files::new();
        let [began, noticed, error] = ["began", "noticed", "error"].map(|name| files.path(name));
        let parent = waits_for_a_child::remote(began, noticed, error);
        files.pid("began");
        mobula::cancel_with([&parent], CancelOptions::new().recursive(recursive)).unwrap();
        is_cancelled(parent.get_timeout(PATIENCE), "waits_for_a_child");
        let text = files.text("error");
        if recursive {
            files.appears("noticed");
            assert!(text.contains("cancelled"), "{file}: {text}");
        } else {
            assert!(text.contains("the call that waited here"), "{file}: {text}");
            assert!(!files.path("noticed").exists());
        }
    }
    drop(session);
}

#[test]
fn by_force_the_worker_ends_and_no_other_call_is_lost() {
    let session = session(1);
    let files = Files::new();
    let options = TaskOptions::new().max_retries(3);
    let stuck = spins::options(options).remote(files.path("began"));
    let worker = files.pid("began");
    let behind: Vec<_> = (0..10).map(double::remote).collect();
    mobula::cancel_with([&stuck], CancelOptions::new().force(true)).unwrap();
    is_cancelled(stuck.get_timeout(PATIENCE), "spins");
    for (x, reference) in (0..).zip(behind) {
        assert_eq!(reference.get_timeout(PATIENCE).unwrap(), 2 * x);
    }
    eventually("the worker ends", || !is_running(worker));
    assert_ne!(pid::remote().get_timeout(PATIENCE).unwrap(), worker);
    drop(session);
}

#[test]
fn calls_of_an_actor_are_cancelled_but_never_by_force() {
    let session = session(1);
    let files = Files::new();
    let actor = Slow::remote();
    let calls: Vec<_> = (0..5).map(|x| actor.add(x, files.path("gate"))).collect();
    files.appears("began");
    let error = mobula::cancel_with(&calls, CancelOptions::new().force(true)).unwrap_err();
    assert!(matches!(error, Error::Config { field: "force", .. }), "{error}");
    mobula::cancel(&calls[2..4]).unwrap();
    // The first call runs, and never waits.
    is_cancelled(calls[2].get_timeout(PATIENCE), "Slow::add");
    is_cancelled(calls[3].get_timeout(PATIENCE), "Slow::add");
    files.write("gate");
    assert_eq!(actor.all().get_timeout(PATIENCE).unwrap(), [0, 1, 4]);
    drop(session);
}

/// The method never waits, so another thread of the actor must handle the mail.
#[test]
fn a_running_method_learns_of_it() {
    let session = session(1);
    let files = Files::new();
    let actor = Slow::remote();
    let running = actor.until_cancelled(files.path("began"), files.path("noticed"));
    files.appears("began");
    let behind = actor.all();
    running.cancel().unwrap();
    is_cancelled(running.get_timeout(PATIENCE), "Slow::until_cancelled");
    files.appears("noticed");
    assert!(behind.get_timeout(PATIENCE).unwrap().is_empty());
    drop(session);
}

#[test]
fn one_result_of_several_stands_for_the_call() {
    let session = session(1);
    let files = Files::new();
    let (one, other) = two::remote(files.path("began"), files.path("gate"));
    files.appears("began");
    one.cancel().unwrap();
    is_cancelled(one.get_timeout(PATIENCE), "two");
    is_cancelled(other.get_timeout(PATIENCE), "two");
    files.write("gate");
    drop(session);
}

#[test]
fn a_dropped_guard_cancels_and_a_dropped_reference_does_not() {
    let session = session(2);
    let files = Files::new();
    drop(until_cancelled::remote(files.path("guarded"), files.path("noticed")).cancel_on_drop());
    let running = until_cancelled::remote(files.path("runs"), files.path("noticed too")).cancel_on_drop();
    files.pid("runs");
    drop(running);
    files.appears("noticed too");
    drop(gated::remote(files.path("began"), files.path("gate")));
    files.pid("began");
    drop(session);
}

/// Is cancelled, and finds an actor afterwards.
#[mobula::remote]
fn finds_an_actor_when_cancelled(began: PathBuf, found: PathBuf) {
    std::fs::write(&began, std::process::id().to_string()).unwrap();
    while !mobula::is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let found_by_name = mobula::get_actor::<Slow>("slow").map(|_| ());
    std::fs::write(&found, format!("{found_by_name:?}")).unwrap();
}

/// Awaits a result that is not of a call of its own, and leaves the error in a file.
#[mobula::remote]
fn awaits(began: PathBuf, results: Vec<ObjectRef<u32>>, error: PathBuf) {
    std::fs::write(&began, std::process::id().to_string()).unwrap();
    let failed = pollster::block_on(results[0].get_async()).unwrap_err();
    std::fs::write(&error, failed.to_string()).unwrap();
}

#[test]
fn a_cancelled_call_still_hears_the_head() {
    let session = session(1);
    let files = Files::new();
    let _slow = Slow::options(ActorOptions::new().name("slow")).remote();
    let call = finds_an_actor_when_cancelled::remote(files.path("began"), files.path("found"));
    files.pid("began");
    call.cancel().unwrap();
    assert_eq!(files.text("found"), "Ok(())");
    drop(session);
}

#[test]
fn an_await_ends_with_the_call_that_is_awaited_and_with_the_call_that_awaits() {
    let session = session(2);
    let files = Files::new();
    let gated = gated::remote(files.path("gated"), files.path("gate"));
    let call = awaits::remote(files.path("began"), vec![gated.clone()], files.path("error"));
    files.pid("began");
    call.cancel().unwrap();
    let text = files.text("error");
    assert!(text.contains("the call that waited here"), "{text}");
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let awaiting = tokio.spawn(gated.get_async());
    gated.cancel().unwrap();
    is_cancelled(tokio.block_on(awaiting).unwrap(), "gated");
    files.write("gate");
    drop(session);
}

/// The parent of a call that it waits for.
#[mobula::remote]
fn has_a_child(began: PathBuf, noticed: PathBuf, own: PathBuf) {
    let child = until_cancelled::remote(began, noticed);
    std::fs::write(&own, std::process::id().to_string()).unwrap();
    let _ = child.get();
}

#[test]
fn the_calls_of_a_killed_process_are_cancelled() {
    let session = session(2);
    let files = Files::new();
    let [began, noticed, own] = ["began", "noticed", "own"].map(|name| files.path(name));
    let parent = has_a_child::remote(began, noticed, own);
    files.pid("began");
    let pid = i32::try_from(files.pid("own")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    files.appears("noticed");
    assert!(matches!(parent.get(), Err(Error::Failed(Failure::WorkerDied { .. }))));
    drop(session);
}

/// Makes a call that it does not wait for.
#[mobula::remote]
fn makes_a_call(began: PathBuf, noticed: PathBuf) -> ObjectRef<()> {
    until_cancelled::remote(began, noticed)
}

/// Cancels calls of its caller, and returns its process.
#[mobula::remote(num_cpus = 0)]
fn cancels(calls: Vec<ObjectRef<u32>>, force: bool) -> mobula::Result<u32> {
    mobula::cancel_with(&calls, CancelOptions::new().force(force))?;
    Ok(std::process::id())
}

#[mobula::remote]
fn sends_back(calls: Vec<ObjectRef<u32>>) -> Vec<ObjectRef<u32>> {
    calls
}

#[mobula::remote]
fn waits_for_ever(began: PathBuf) -> u32 {
    std::fs::write(&began, std::process::id().to_string()).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_call_of_another_process_is_cancelled_through_a_reference_to_its_result() {
    let session = session(2);
    let files = Files::new();
    let call = makes_a_call::remote(files.path("began"), files.path("noticed")).get().unwrap();
    files.pid("began");
    call.cancel().unwrap();
    is_cancelled(call.get_timeout(PATIENCE), "until_cancelled");
    files.appears("noticed");
    // It is over, and stays as it is.
    call.cancel().unwrap();
    let guarded = makes_a_call::remote(files.path("other"), files.path("noticed too")).get().unwrap();
    files.pid("other");
    drop(guarded.cancel_on_drop());
    files.appears("noticed too");
    drop(session);
}

#[test]
fn a_call_of_this_process_is_cancelled_by_another() {
    let session = session(1);
    let files = Files::new();
    let first = gated::remote(files.path("first"), files.path("gate"));
    let mut calls: Vec<_> =
        (0..50).map(|n| gated::remote(files.path(&n.to_string()), files.path("gate"))).collect();
    files.pid("first");
    let dependent = double::remote(&calls[7]);
    calls.push(first);
    let pid = cancels::remote(calls.clone(), false).get_timeout(PATIENCE).unwrap();
    for call in calls.iter().chain([&dependent]) {
        match call.get_timeout(PATIENCE) {
            Err(Error::Failed(Failure::TaskCancelled { by, .. })) => assert_eq!(by, pid),
            other => panic!("{other:?}"),
        }
    }
    files.write("gate");
    assert_eq!(double::remote(1).get_timeout(PATIENCE).unwrap(), 2);
    assert!((0..50).all(|n| !files.path(&n.to_string()).exists()), "cancelled calls have run");
    let stuck = waits_for_ever::remote(files.path("stuck"));
    let worker = files.pid("stuck");
    cancels::remote(vec![stuck.clone()], true).get_timeout(PATIENCE).unwrap();
    assert!(matches!(stuck.get_timeout(PATIENCE), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    eventually("the worker ends", || !is_running(worker));
    drop(session);
}

#[test]
fn a_reference_that_was_away_cancels_the_call_of_this_process() {
    let session = session(2);
    let files = Files::new();
    let call = gated::remote(files.path("began"), files.path("gate"));
    let away = sends_back::remote(vec![call.clone()]).get_timeout(PATIENCE).unwrap();
    mobula::cancel(&away).unwrap();
    is_cancelled(call.get_timeout(PATIENCE), "gated");
    is_cancelled(away[0].get_timeout(PATIENCE), "gated");
    files.write("gate");
    drop(session);
}

/// Says at its end whether it was cancelled.
#[mobula::remote(detached)]
fn detached(began: PathBuf, gate: PathBuf, done: PathBuf) {
    std::fs::write(&began, std::process::id().to_string()).unwrap();
    while !gate.exists() {
        // Looks at the mail, too.
        let _ = mobula::is_cancelled();
        std::thread::sleep(Duration::from_millis(1));
    }
    std::fs::write(&done, format!("cancelled: {}", mobula::is_cancelled())).unwrap();
}

/// The parent of a detached call, of another that is detached by its options, and of one that is not.
#[mobula::remote]
fn has_detached_children(directory: PathBuf) {
    let path = |name: &str| directory.join(name);
    detached::remote(path("a began"), path("gate"), path("a done"));
    let options = TaskOptions::new().detached(true);
    gated::options(options).remote(path("b began"), path("gate"));
    let child = until_cancelled::remote(path("began"), path("noticed"));
    std::fs::write(path("own"), std::process::id().to_string()).unwrap();
    let _ = child.get();
    std::fs::write(path("over"), "").unwrap();
}

#[test]
fn detached_calls_outlive_the_call_that_made_them() {
    let session = session(4);
    for is_killed in [false, true] {
        let files = Files::new();
        let parent = has_detached_children::remote(files.path(""));
        ["a began", "b began", "began"].iter().for_each(|name| _ = files.pid(name));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(files.pid("own")).unwrap());
        if is_killed {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            assert!(matches!(parent.get(), Err(Error::Failed(Failure::WorkerDied { .. }))));
        } else {
            parent.cancel().unwrap();
            files.appears("over");
        }
        files.appears("noticed");
        assert!(!files.path("a done").exists());
        files.write("gate");
        assert_eq!(files.text("a done"), "cancelled: false");
        // Their workers, which the dead process had on lease, serve others: all places are free.
        let names = ["w", "x", "y", "z"];
        let others = names.map(|name| gated::remote(files.path(name), files.path("last gate")));
        names.iter().for_each(|name| _ = files.pid(name));
        files.write("last gate");
        assert_eq!(mobula::get(others).unwrap(), [7; 4]);
    }
    drop(session);
}

/// Calls are cancelled at every moment of their lives: each has its result or was cancelled, and nothing is left.
#[test]
fn calls_cancelled_at_any_moment_end_one_way_or_the_other() {
    let session = session(2);
    let rounds: u32 = std::env::var("MOBULA_ROUNDS").map_or(200, |rounds| rounds.parse().unwrap());
    let (mut results, mut cancelled) = (0, 0);
    for round in 0..rounds {
        let calls: Vec<_> = (0..round % 60 + 1).map(double::remote).collect();
        let chained: Vec<_> = calls.iter().map(double::remote).collect();
        let force = CancelOptions::new().force(round % 16 == 0);
        if round % 3 == 0 {
            std::thread::sleep(Duration::from_micros(u64::from(round)));
        }
        mobula::cancel_with(&calls, force).unwrap();
        for (x, reference) in (0..).zip(&chained) {
            match reference.get_timeout(PATIENCE) {
                Ok(value) => {
                    assert_eq!(value, 4 * x);
                    results += 1;
                }
                Err(Error::Failed(Failure::TaskCancelled { .. })) => cancelled += 1,
                Err(error) => panic!("round {round}: {error}"),
            }
        }
    }
    println!("{results} results, {cancelled} cancelled");
    assert_eq!(double::remote(1).get_timeout(PATIENCE).unwrap(), 2);
    drop(session);
}
