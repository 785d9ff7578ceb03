//! GPUs: if these fail, two calls use one GPU that each takes for its own, a call sees other GPUs than it was given, or
//! a GPU is never given out again. The sessions only say that they have GPUs: nothing here uses one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use mobula::{ActorHandle, ActorOptions, Builder, Error, Failure, TaskOptions};
use mobula_tests::{TestSession, eventually, is_running, session_with};

const VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// The GPUs that the first code of the program in this process saw.
static SEEN: OnceLock<Option<String>> = OnceLock::new();

fn visible() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

#[mobula::worker_init]
fn look() {
    SEEN.set(visible()).expect("it runs once");
}

/// The GPUs of the running call, which its process has seen from its start on.
fn own_gpus() -> Vec<String> {
    let gpus = mobula::gpu_ids().expect("there is a session");
    assert_eq!(visible(), Some(gpus.join(",")));
    assert_eq!(SEEN.get(), Some(&visible()));
    gpus
}

/// Fails if another call has one of the GPUs at the same time.
#[mobula::remote(num_gpus = 1)]
fn exclusive(directory: PathBuf) -> (u32, Vec<String>) {
    let gpus = own_gpus();
    let files: Vec<_> = gpus.iter().map(|gpu| directory.join(gpu)).collect();
    for file in &files {
        File::create_new(file).expect("no other call has this GPU");
    }
    std::thread::sleep(Duration::from_millis(2));
    for file in &files {
        std::fs::remove_file(file).expect("it is there");
    }
    (std::process::id(), gpus)
}

#[mobula::remote(num_gpus = 1, max_calls = unlimited)]
fn again() -> u32 {
    std::process::id()
}

/// The GPUs of a call, and the variable that it sees.
type Seen = (Vec<String>, Option<String>);

#[mobula::remote]
fn without() -> Seen {
    (mobula::gpu_ids().expect("there is a session"), visible())
}

#[mobula::remote]
fn free() -> mobula::Result<(f64, f64)> {
    let free = mobula::available_resources()?;
    Ok((free.num_cpus(), free.num_gpus()))
}

/// The free GPUs while this call waits, and the GPUs of a call that it makes.
#[mobula::remote(num_gpus = 1)]
fn nested() -> mobula::Result<((f64, f64), Seen)> {
    Ok((free::remote().get()?, without::remote().get()?))
}

/// Its process dies in the first attempt.
#[mobula::remote(num_gpus = 2, max_retries = 1)]
fn unlucky(marker: PathBuf) -> Vec<String> {
    if File::create_new(marker).is_ok() {
        std::process::abort();
    }
    own_gpus()
}

struct Holder;

#[mobula::remote]
impl Holder {
    fn new() -> Self {
        Holder
    }
    fn gpus(&self) -> Vec<String> {
        own_gpus()
    }
    fn crash(&self) {
        std::process::abort();
    }
}

fn session(cpus: f64, gpus: u32) -> TestSession {
    session_with(Builder::new().workers(1).num_cpus(cpus).num_gpus(gpus).capacity_bytes(64 << 20))
}

fn gpus(amount: f64) -> TaskOptions {
    TaskOptions::new().num_gpus(amount)
}

fn holder(gpus: f64) -> ActorHandle<Holder> {
    Holder::options(ActorOptions::new().num_cpus(0).num_gpus(gpus)).remote()
}

#[test]
fn whole_gpus_are_for_one_call_at_a_time() {
    let _session = session(8.0, 4);
    let directory = tempfile::tempdir().unwrap();
    let amounts = [1.0, 2.0, 1.0, 4.0, 1.0, 3.0];
    let calls: Vec<_> = (0..48)
        .map(|n| exclusive::options(gpus(amounts[n % 6])).remote(directory.path().to_owned()))
        .collect();
    let mut used = BTreeSet::new();
    for (n, (_, gpus)) in mobula::get(&calls).unwrap().into_iter().enumerate() {
        assert_eq!(gpus.len() as f64, amounts[n % 6]);
        assert_eq!(gpus.iter().collect::<BTreeSet<_>>().len(), gpus.len(), "{gpus:?}");
        used.extend(gpus);
    }
    assert!(used.into_iter().eq(["0", "1", "2", "3"].map(str::to_owned)));
    eventually("all are free again", || mobula::available_resources().unwrap().num_gpus() == 4.0);
}

#[test]
fn parts_share_a_gpu_and_never_more_than_there_is_of_it() {
    let _session = session(1.0, 2);
    let holders: Vec<_> = (0..6).map(|_| holder(0.25)).collect();
    let mut parts = BTreeMap::new();
    for holder in holders {
        let gpus = holder.gpus().get().unwrap();
        assert_eq!(gpus.len(), 1);
        parts.entry(gpus[0].clone()).or_insert_with(Vec::new).push(holder);
    }
    let counts = parts.iter().map(|(gpu, holders)| (&**gpu, holders.len()));
    assert!(counts.eq([("0", 4), ("1", 2)]), "parts are packed");
    // Half of one GPU is left, and no whole one.
    assert_eq!(mobula::available_resources().unwrap().num_gpus(), 0.5);
    let whole = exclusive::options(gpus(1.0)).remote(tempfile::tempdir().unwrap().keep());
    let half = holder(0.5);
    assert_eq!(half.gpus().get().unwrap(), ["1"]);
    assert!(mobula::wait([&whole], 1, Some(Duration::ZERO)).unwrap().0.is_empty());
    parts.remove("1");
    drop(half);
    assert_eq!(whole.get().unwrap().1, ["1"]);
}

#[test]
fn an_actor_keeps_its_gpus_for_life() {
    let _session = session(2.0, 3);
    let options = ActorOptions::new().num_gpus(2).max_restarts(1);
    let actor = Holder::options(options).remote();
    let own = actor.gpus().get().unwrap();
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        let (_, other) = exclusive::remote(directory.path().to_owned()).get().unwrap();
        assert!(!own.contains(&other[0]));
        assert_eq!(actor.gpus().get().unwrap(), own);
    }
    // With GPUs it has a CPU, too.
    eventually("the calls are over", || {
        let free = mobula::available_resources().unwrap();
        (free.num_cpus(), free.num_gpus()) == (1.0, 1.0)
    });
    actor.crash().get().unwrap_err();
    assert_eq!(actor.gpus().get().unwrap().len(), 2);
    drop(actor);
    eventually("all are free again", || mobula::available_resources().unwrap().num_gpus() == 3.0);
}

#[test]
fn a_call_that_waits_gives_its_cpu_back_and_keeps_its_gpu() {
    let _session = session(1.0, 1);
    let (free, (own, seen)) = nested::remote().get().unwrap();
    assert_eq!(free, (0.0, 0.0), "the inner call has the CPU, and the outer one the GPU");
    assert_eq!((own, seen.as_deref()), (vec![], Some("")), "GPUs are not inherited");
}

#[test]
fn what_can_never_be_is_an_error_at_once() {
    let _session = session(2.0, 4);
    let directory = PathBuf::from("/");
    match exclusive::options(gpus(5.0)).remote(directory.clone()).get().unwrap_err() {
        Error::Failed(failure @ Failure::NeverFits { .. }) => {
            let text = failure.to_string();
            assert!(text.contains("5 GPU") && text.contains("4 GPU"), "{text}");
        }
        other => panic!("{other}"),
    }
    let error = holder(4.5).gpus().get().unwrap_err();
    assert!(
        matches!(&error, Error::Failed(Failure::BadOption { option, .. }) if option == "num_gpus"),
        "{error}"
    );
    assert!(error.to_string().contains("a part of one GPU, or a whole number"), "{error}");
    drop(_session);
    let error = Builder::new().num_gpus(1001).init().unwrap_err().to_string();
    assert!(error.starts_with("num_gpus cannot be 1001"), "{error}");
}

#[test]
fn processes_see_what_they_were_given_and_nothing_else() {
    let _session = session(2.0, 2);
    assert_eq!(without::remote().get().unwrap(), (vec![], Some(String::new())));
    let own = TaskOptions::new().env_vars([(VARIABLE, "9")]);
    assert_eq!(without::options(own.clone()).remote().get().unwrap(), (vec![], Some("9".to_owned())));
    let (given, seen) = without::options(own.num_gpus(1)).remote().get().unwrap();
    assert_eq!(Some(given.join(",")), seen, "the session's word counts where it gives GPUs");
    assert!(mobula::gpu_ids().unwrap().is_empty(), "the driver has none");
    let shown = mobula::cluster_resources().unwrap();
    assert_eq!(shown.iter().filter(|(name, _)| name.contains("GPU")).collect::<Vec<_>>(), [("GPU", 2.0)]);
    assert_eq!(mobula::available_resources().unwrap().get("GPU:0"), 0.0, "single ones are the head's alone");
}

#[test]
fn a_session_without_gpus_leaves_the_variable_alone() {
    let _session = session(1.0, 0);
    assert_eq!(without::remote().get().unwrap(), (vec![], visible()));
}

#[test]
fn a_process_runs_one_call_of_a_function_with_gpus_unless_it_says_otherwise() {
    let _session = session(1.0, 1);
    let directory = tempfile::tempdir().unwrap();
    let run = || exclusive::remote(directory.path().to_owned()).get().unwrap().0;
    let pids: BTreeSet<u32> = (0..4).map(|_| run()).collect();
    assert_eq!(pids.len(), 4);
    for pid in pids {
        eventually("it has ended", || !is_running(pid));
    }
    let pid = again::remote().get().unwrap();
    assert_eq!([(); 20].map(|()| again::remote().get().unwrap()), [pid; 20]);
}

#[test]
fn gpus_come_back_from_processes_that_die() {
    let _session = session(1.0, 2);
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let gpus = unlucky::remote(directory.path().join(round.to_string())).get().unwrap();
        assert_eq!(gpus, ["0", "1"]);
    }
    eventually("all are free again", || mobula::available_resources().unwrap().num_gpus() == 2.0);
}

/// Runs in a process of its own, whose variable names GPUs.
#[test]
fn names_in_the_variable_are_those_of_the_gpus() {
    const NAMES: &str = "7,GPU-a1b2,3";
    if visible().as_deref() != Some(NAMES) {
        let name = "names_in_the_variable_are_those_of_the_gpus";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = child.args(["--exact", name]).env(VARIABLE, NAMES).status().unwrap();
        assert!(ended.success(), "{ended}");
        return;
    }
    let _session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    assert_eq!(mobula::cluster_resources().unwrap().num_gpus(), 3.0);
    let directory = tempfile::tempdir().unwrap();
    let all = exclusive::options(gpus(3.0)).remote(directory.path().to_owned()).get().unwrap().1;
    assert_eq!(all, ["7", "GPU-a1b2", "3"]);
    assert_eq!(holder(1.0).gpus().get().unwrap(), ["7"]);
    drop(_session);
    let error = Builder::new().num_gpus(4).init().unwrap_err().to_string();
    assert!(error.contains("at most the 3 that CUDA_VISIBLE_DEVICES names"), "{error}");
}
