//! Resources: if these fail, calls that run at the same time take more than there is, a call that demands much waits
//! for ever behind small ones, or a dead process keeps what it had.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobula::{
    ActorOptions, Builder, Error, Failure, Resources, TaskOptions, available_resources, cluster_resources,
};
use mobula_tests::{Random, eventually, session_with};

/// Marks the calls that run, as files of a directory. The name says what the call demands, in quarters.
struct Running(PathBuf);

impl Running {
    fn begin(directory: &Path, quarters: u32) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = directory.join(format!("{quarters}-{}-{number}", std::process::id()));
        std::fs::write(&file, "").expect("the directory is there");
        Self(file)
    }

    /// The quarters of all calls that run.
    fn quarters(directory: &Path) -> u32 {
        let files = std::fs::read_dir(directory).expect("the directory is there");
        let names = files.map(|file| file.expect("an entry").file_name().into_string().expect("a name"));
        names
            .map(|name| name.split('-').next().expect("it begins so").parse::<u32>().expect("a number"))
            .sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("nobody else removes it");
    }
}

/// Runs for some milliseconds, and returns the quarters that were taken when it began.
#[mobula::remote(num_cpus = 0.25)]
fn take(directory: PathBuf, quarters: u32, milliseconds: u64) -> u32 {
    let _running = Running::begin(&directory, quarters);
    std::thread::sleep(Duration::from_millis(milliseconds));
    Running::quarters(&directory)
}

/// Runs until the quarters of all calls that run are so many.
#[mobula::remote]
fn take_with_others(directory: PathBuf, quarters: u32, together: u32, done: PathBuf) {
    let _running = Running::begin(&directory, quarters);
    eventually("the others run too", || Running::quarters(&directory) >= together || done.exists());
    // The others may still be looking for this one.
    let _ = std::fs::write(done, "");
}

#[mobula::remote]
fn pid() -> u32 {
    std::process::id()
}

#[mobula::remote]
fn free() -> mobula::Result<Resources> {
    available_resources()
}

#[mobula::remote]
fn dies(started: PathBuf) {
    std::fs::write(started, "").expect("the directory is there");
    std::process::abort();
}

/// Waits for a call of another function.
#[mobula::remote]
fn free_while_it_waits(demand: f64) -> mobula::Result<Resources> {
    free::options(TaskOptions::new().num_cpus(demand)).remote().get()
}

fn all_is_free_again() {
    let all = cluster_resources().unwrap();
    eventually("everything is given back", || available_resources().unwrap() == all);
}

#[test]
fn calls_of_all_demands_never_take_more_than_there_is() {
    let mut random = Random::from_environment();
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().num_cpus(2).workers(2));
    let calls: Vec<_> = (0..120)
        .map(|_| {
            let quarters = [1, 2, 4, 8][random.below(4) as usize];
            let options = TaskOptions::new().num_cpus(f64::from(quarters) / 4.0);
            take::options(options).remote(directory.path().to_owned(), quarters, random.below(6))
        })
        .collect();
    let most = mobula::get(&calls).unwrap().into_iter().max();
    assert!(most <= Some(8), "{most:?} quarters of 2 CPUs were taken");
    all_is_free_again();
}

#[test]
fn calls_that_demand_little_run_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().num_cpus(1));
    let (running, done) = (directory.path().join("running"), directory.path().join("done"));
    std::fs::create_dir(&running).unwrap();
    for (cpus, quarters, count) in [(0.25, 1, 4), (0.0, 1, 5)] {
        let options = || TaskOptions::new().num_cpus(cpus);
        let calls: Vec<_> = (0..count)
            .map(|_| {
                take_with_others::options(options()).remote(running.clone(), quarters, count, done.clone())
            })
            .collect();
        mobula::get(calls).unwrap();
        std::fs::remove_file(&done).unwrap();
    }
}

#[test]
fn a_demand_that_never_fits_is_an_error_that_names_demand_and_offer() {
    let _session = session_with(Builder::new().num_cpus(2).memory(1000).resources([("disk", 1)]));
    let never = [
        (TaskOptions::new().num_cpus(2.0001), "2.0001 CPU"),
        (TaskOptions::new().memory(1001), "1 CPU, 1001 bytes of memory"),
        (TaskOptions::new().resources([("disk", 1.5)]), "1 CPU, 1.5 disk"),
        (TaskOptions::new().num_cpus(0).resources([("tape", 1)]), "1 tape"),
    ];
    for (options, demand) in never {
        let error = pid::options(options).remote().get().unwrap_err();
        let Error::Failed(Failure::NeverFits { function, .. }) = &error else { panic!("{error:?}") };
        assert_eq!(function, "resources::pid");
        let text = error.to_string();
        let named = format!("demands {demand}, and the session has 2 CPU, 1 disk, 1000 bytes of memory");
        assert!(text.contains(&named), "{text}");
    }
    let fits = TaskOptions::new().num_cpus(2).memory(1000).resources([("disk", 1)]);
    pid::options(fits).remote().get().unwrap();
}

#[test]
fn an_amount_that_cannot_be_is_an_error_that_names_it() {
    let _session = session_with(Builder::new().num_cpus(2));
    for (options, expected) in [
        (TaskOptions::new().num_cpus(-1), "num_cpus cannot be -1 CPU: 0, or a number from 0.0001 on"),
        (TaskOptions::new().num_cpus(f64::NAN), "num_cpus cannot be NaN CPU"),
        (TaskOptions::new().resources([("disk", 0.00001)]), "resources cannot be 0.00001 disk"),
        (TaskOptions::new().resources([("CPU", 1)]), "resources cannot be \"CPU\": names of your own"),
    ] {
        let error = pid::options(options).remote().get().unwrap_err();
        assert!(matches!(&error, Error::Failed(Failure::BadOption { .. })), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_session_with_resources_that_cannot_be_does_not_start() {
    for (builder, expected) in [
        (Builder::new().num_cpus(-2), "num_cpus cannot be -2 CPU"),
        (Builder::new().resources([("", 1)]), "resources cannot be \"\""),
    ] {
        let error = builder.init().unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn without_a_cpu_a_session_runs_only_calls_that_demand_none() {
    let _session = session_with(Builder::new().num_cpus(0));
    let error = pid::remote().get().unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::NeverFits { .. })), "{error:?}");
    pid::options(TaskOptions::new().num_cpus(0)).remote().get().unwrap();
}

#[test]
fn a_call_that_waits_gives_its_cpus_back_and_nothing_else() {
    let _session = session_with(Builder::new().num_cpus(1).memory(1000).resources([("disk", 2)]));
    let all = || TaskOptions::new().num_cpus(1).memory(600).resources([("disk", 1.5)]);
    let free = free_while_it_waits::options(all()).remote(1.0).get().unwrap();
    assert_eq!(free.to_string(), "0.5 disk, 400 bytes of memory", "the inner call has the CPU");
    let free = free_while_it_waits::options(all()).remote(0.25).get().unwrap();
    assert_eq!(free.to_string(), "0.75 CPU, 0.5 disk, 400 bytes of memory");
    all_is_free_again();
}

#[test]
fn a_process_that_dies_gives_everything_back() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().num_cpus(2).memory(1000).resources([("disk", 1)]));
    for round in 0..3 {
        let options = TaskOptions::new().num_cpus(2).memory(1000).resources([("disk", 1)]);
        let error =
            dies::options(options).remote(directory.path().join(format!("{round}"))).get().unwrap_err();
        assert!(matches!(error, Error::Failed(Failure::WorkerDied { .. })), "{error:?}");
    }
    all_is_free_again();
}

#[test]
fn other_resources_are_shared_as_cpus_are() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().num_cpus(8).workers(1).resources([("disk", 0.5)]));
    let disk = || TaskOptions::new().resources([("disk", 0.25)]);
    let calls: Vec<_> =
        (0..20).map(|_| take::options(disk()).remote(directory.path().to_owned(), 1, 2)).collect();
    let most = mobula::get(calls).unwrap().into_iter().max();
    assert!(most <= Some(2), "{most:?} had a disk of two");
}

#[test]
fn a_call_that_demands_much_is_not_passed_by_small_ones_for_ever() {
    let _session = session_with(Builder::new().num_cpus(2));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Several threads, so that one CPU or the other is always taken.
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    pid::remote().get().unwrap();
                }
            });
        }
        pid::remote().get().unwrap();
        for _ in 0..3 {
            let all = pid::options(TaskOptions::new().num_cpus(2)).remote();
            let result = all.get_timeout(Duration::from_secs(60));
            stop.store(result.is_err(), Ordering::Relaxed);
            result.expect("the small calls let it through");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn calls_of_one_demand_stay_on_their_warm_worker() {
    let _session = session_with(Builder::new().num_cpus(2).workers(1));
    let half = || TaskOptions::new().num_cpus(0.5);
    let first = pid::options(half()).remote().get().unwrap();
    for _ in 0..200 {
        // A busy machine may take longer than the worker is kept: then the same one is granted again.
        assert_eq!(pid::options(half()).remote().get().unwrap(), first);
    }
}

#[test]
fn more_workers_than_are_kept_start_for_calls_that_fit_and_end_later() {
    let directory = tempfile::tempdir().unwrap();
    let session = session_with(Builder::new().num_cpus(4).workers(1));
    let (running, done) = (directory.path().join("running"), directory.path().join("done"));
    std::fs::create_dir(&running).unwrap();
    let calls: Vec<_> =
        (0..4).map(|_| take_with_others::remote(running.clone(), 4, 16, done.clone())).collect();
    mobula::get(calls).unwrap();
    let workers = || mobula_tests::session_processes(session.session.socket()).len() - 1;
    eventually("the workers that are not kept end", || workers() == 1);
}

struct Holder(u32);

#[mobula::remote]
impl Holder {
    fn new() -> Self {
        Holder(0)
    }

    fn increment(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }

    fn crash(&self) {
        std::process::abort()
    }
}

#[mobula::remote(num_cpus = 2, resources = [("disk", 1)])]
impl Large {
    fn new() -> Self {
        Large
    }

    fn works(&self) -> bool {
        true
    }
}

struct Large;

#[test]
fn an_actor_has_what_it_demands_for_life() {
    let _session = session_with(Builder::new().num_cpus(4).resources([("disk", 1)]));
    let large = Large::remote();
    assert!(large.works().get().unwrap());
    assert_eq!(available_resources().unwrap().num_cpus(), 2.0);
    let waits = Large::remote();
    let works = waits.works();
    assert!(matches!(works.get_timeout(Duration::from_millis(50)), Err(Error::Timeout { .. })));
    // The others go on meanwhile, however long it waits.
    for _ in 0..10 {
        pid::options(TaskOptions::new().num_cpus(2)).remote().get().unwrap();
    }
    drop(large);
    assert!(works.get().unwrap(), "it has what the first one gave back");
    mobula::kill(&waits).unwrap();
    all_is_free_again();
}

#[test]
fn an_actor_gets_its_cpus_from_callers_that_keep_workers_warm() {
    let _session = session_with(Builder::new().num_cpus(2));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    pid::remote().get().unwrap();
                }
            });
        }
        pid::remote().get().unwrap();
        let actor = Holder::options(ActorOptions::new().num_cpus(2)).remote();
        let result = actor.increment().get_timeout(Duration::from_secs(60));
        drop(actor);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(result.expect("the calls let it through"), 1);
    });
    all_is_free_again();
}

#[test]
fn an_actor_that_is_restarted_has_its_resources_again() {
    let _session = session_with(Builder::new().num_cpus(2).memory(100));
    let options = ActorOptions::new().num_cpus(1).memory(100).max_restarts(1);
    let actor = Holder::options(options).remote();
    assert_eq!(actor.increment().get().unwrap(), 1);
    assert!(actor.crash().get().is_err());
    assert_eq!(actor.increment().get().unwrap(), 1);
    assert_eq!(available_resources().unwrap().to_string(), "1 CPU");
    assert!(actor.crash().get().is_err());
    all_is_free_again();
}

#[test]
fn an_actor_that_demands_nothing_is_placed_although_all_cpus_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().num_cpus(1));
    let (running, done) = (directory.path().join("running"), directory.path().join("done"));
    std::fs::create_dir(&running).unwrap();
    let busy = take_with_others::remote(running.clone(), 4, 8, done.clone());
    eventually("the CPU is taken", || Running::quarters(&running) == 4);
    let actor = Holder::remote();
    assert_eq!(actor.increment().get().unwrap(), 1);
    let memory_alone = Holder::options(ActorOptions::new().memory(1)).remote();
    assert_eq!(memory_alone.increment().get().unwrap(), 1);
    std::fs::write(done, "").unwrap();
    busy.get().unwrap();
}

#[test]
fn an_actor_whose_demand_never_fits_is_an_error_of_its_calls() {
    let _session = session_with(Builder::new().num_cpus(1));
    let large = Large::remote();
    let error = large.works().get().unwrap_err();
    let Error::Failed(Failure::NeverFits { function, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(function, "resources::Large::new");
    // Where it says nothing about CPUs, an actor that demands something else has one.
    let options = || ActorOptions::new().resources([("disk", 1)]);
    let error = Holder::options(options()).remote().increment().get().unwrap_err();
    assert!(error.to_string().contains("demands 1 CPU, 1 disk"), "{error}");
}
