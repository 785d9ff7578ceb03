//! Placement groups: if these fail, calls that need each other begin one by one and wait for ever, resources are given
//! out twice, or are lost when a group is removed.

use std::path::PathBuf;
use std::time::Duration;

use mobula::{
    ActorHandle, ActorOptions, Builder, Bundle, Error, ExitReason, Failure, GroupState, ObjectRef,
    PlacementGroup, PlacementOptions, Strategy, TaskOptions, available_resources, placement_groups,
};
use mobula_tests::{eventually, is_running, session_lock};

const PATIENCE: Duration = Duration::from_secs(60);

#[mobula::remote]
fn square(x: u64) -> u64 {
    x * x
}

/// Runs until the file is gone.
#[mobula::remote]
fn last_as_long_as(file: PathBuf) -> u32 {
    std::fs::write(&file, "").unwrap();
    while file.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::process::id()
}

/// Waits for a call in the same bundle, to which it has given its CPU.
#[mobula::remote]
fn nested(group: PlacementGroup, depth: u64) -> mobula::Result<u64> {
    if depth == 0 {
        return Ok(0);
    }
    let options = TaskOptions::new().placement(group.bundle(0)?);
    Ok(nested::options(options).remote(group.clone(), depth - 1).get()? + 1)
}

struct Holder;

#[mobula::remote(num_cpus = 1, max_restarts = 5)]
impl Holder {
    fn new() -> Self {
        Self
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn make_group(&self) -> mobula::Result<PlacementGroup> {
        PlacementGroup::new([cpu()])
    }
}

fn cpu() -> Bundle {
    Bundle::new().num_cpus(1)
}

fn free() -> f64 {
    available_resources().unwrap().num_cpus()
}

fn failure<T>(result: mobula::Result<T>) -> Failure {
    match result {
        Err(Error::Failed(failure)) => failure,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it succeeded"),
    }
}

fn holder(group: &PlacementGroup, bundle: usize) -> ActorHandle<Holder> {
    Holder::options(ActorOptions::new().placement(group.bundle(bundle).unwrap())).remote()
}

#[test]
fn a_group_has_all_its_bundles_or_none() {
    let _lock = session_lock();
    let _mobula = Builder::new().num_cpus(3).init().unwrap();
    let first = PlacementGroup::new([cpu(), cpu()]).unwrap();
    assert!(first.wait(PATIENCE).unwrap());
    assert_eq!(free(), 1.0);
    // The second has none of its CPUs while one is missing, so a call has the free one.
    let second = PlacementGroup::new([cpu(), cpu()]).unwrap();
    assert!(!second.wait(Duration::from_millis(50)).unwrap());
    assert_eq!(square::remote(3).get().unwrap(), 9);
    let waiting = square::options(TaskOptions::new().placement(second.any())).remote(4);
    assert!(matches!(waiting.get_timeout(Duration::from_millis(50)), Err(Error::Timeout { .. })));
    first.remove().unwrap();
    assert!(second.wait(PATIENCE).unwrap());
    assert_eq!(waiting.get().unwrap(), 16);
    let states: Vec<_> = placement_groups().unwrap().iter().map(|info| info.state).collect();
    assert_eq!(states, [GroupState::Removed, GroupState::Created]);
    second.remove().unwrap();
    second.remove().unwrap();
    eventually("all is free", || free() == 3.0);
}

#[test]
fn calls_and_actors_have_what_their_bundle_has() {
    let _lock = session_lock();
    let directory = tempfile::tempdir().unwrap();
    let _mobula = Builder::new().num_cpus(4).resources([("disk", 2)]).init().unwrap();
    let group = PlacementGroup::new([cpu(), Bundle::new().num_cpus(2).resources([("disk", 1)])]).unwrap();
    let actor = holder(&group, 0);
    let pid = actor.pid().get().unwrap();
    // Its bundle has no more: a call there waits, and one in the other bundle runs.
    let file = |name: &str| directory.path().join(name);
    let in_bundle = |bundle: usize, name: &str| {
        let options = TaskOptions::new().placement(group.bundle(bundle).unwrap());
        last_as_long_as::options(options).remote(file(name))
    };
    let (behind, first, second) = (in_bundle(0, "behind"), in_bundle(1, "first"), in_bundle(1, "second"));
    let third = in_bundle(1, "third");
    eventually("two run", || file("first").exists() && file("second").exists());
    assert!(!file("behind").exists() && !file("third").exists());
    assert_eq!(free(), 1.0, "the rest of the session is not theirs");
    std::fs::remove_file(file("first")).unwrap();
    first.get().unwrap();
    eventually("the third runs", || file("third").exists());
    drop(actor);
    eventually("the actor's bundle is free", || file("behind").exists());
    assert!(!is_running(pid));
    for (name, call) in [("behind", behind), ("second", second), ("third", third)] {
        std::fs::remove_file(file(name)).unwrap();
        call.get().unwrap();
    }
    // A demand that no bundle can meet is an error at once.
    let error =
        failure(square::options(TaskOptions::new().num_cpus(3).placement(group.any())).remote(1).get());
    assert!(matches!(error, Failure::NeverFitsBundle { .. }), "{error}");
    assert!(matches!(failure(group.bundle(2)), Failure::BadOption { .. }));
    assert_eq!(
        nested::options(TaskOptions::new().placement(group.bundle(0).unwrap()))
            .remote(group, 5)
            .get()
            .unwrap(),
        5
    );
}

#[test]
fn a_group_that_is_removed_ends_what_is_in_it() {
    let _lock = session_lock();
    let directory = tempfile::tempdir().unwrap();
    let _mobula = Builder::new().num_cpus(4).init().unwrap();
    for round in 0..3 {
        let group = PlacementGroup::new([cpu(), cpu(), cpu()]).unwrap();
        let actor = holder(&group, 0);
        let pid = actor.pid().get().unwrap();
        let placed =
            |retries: u32| TaskOptions::new().placement(group.bundle(1).unwrap()).max_retries(retries);
        let file = directory.path().join(format!("running{round}"));
        let running = last_as_long_as::options(placed(0)).remote(file.clone());
        let waiting = square::options(placed(0)).remote(2);
        let outside = square::remote(5);
        eventually("the call runs", || file.exists());
        let unstarted: ObjectRef<u32> = holder(&group, 0).pid();
        group.remove().unwrap();
        let reason = match failure(running.get()) {
            Failure::WorkerDied { reason, .. } => reason,
            failure => panic!("{failure:?}"),
        };
        assert_eq!(reason, ExitReason::PlacementGroupRemoved);
        assert!(matches!(failure(waiting.get()), Failure::PlacementGroupRemoved));
        for call in [actor.pid(), unstarted] {
            let failure = failure(call.get()).to_string();
            assert!(failure.contains("placement group was removed"), "{failure}");
        }
        eventually("its process ends", || !is_running(pid));
        assert_eq!(outside.get().unwrap(), 25);
        // Nothing more begins in it.
        assert!(matches!(
            failure(square::options(placed(3)).remote(2).get()),
            Failure::PlacementGroupRemoved
        ));
        let failure = failure(holder(&group, 2).pid().get()).to_string();
        assert!(failure.contains("placement group was removed"), "{failure}");
        assert!(matches!(group.wait(PATIENCE), Err(Error::Failed(Failure::PlacementGroupRemoved))));
        eventually("all is free", || free() == 4.0);
    }
}

#[test]
fn groups_have_names_and_end_with_the_actor_that_made_them() {
    let _lock = session_lock();
    let _mobula = Builder::new().num_cpus(3).init().unwrap();
    let named = |name: &str| PlacementOptions::new().name(name).strategy(Strategy::Spread);
    let group = PlacementGroup::with(named("training"), [cpu()]).unwrap();
    assert_eq!(PlacementGroup::named(None, "training").unwrap(), group);
    assert!(matches!(failure(PlacementGroup::with(named("training"), [cpu()])), Failure::NameTaken { .. }));
    group.remove().unwrap();
    assert!(PlacementGroup::named(None, "training").is_err());
    let again = PlacementGroup::with(named("training"), [cpu()]).unwrap();
    assert!(again.wait(PATIENCE).unwrap());
    let holder = Holder::remote();
    let of_actor = holder.make_group().get().unwrap();
    assert!(of_actor.wait(PATIENCE).unwrap());
    assert_eq!(free(), 0.0);
    mobula::kill(&holder).unwrap();
    eventually("its group is removed", || free() == 2.0);
}

#[test]
fn what_can_never_be_is_an_error_at_once() {
    let _lock = session_lock();
    let _mobula = Builder::new().num_cpus(2).init().unwrap();
    let strict = || PlacementOptions::new().strategy(Strategy::StrictSpread);
    let error = failure(PlacementGroup::with(strict(), [cpu(), cpu()]));
    assert!(matches!(&error, Failure::BadOption { option, .. } if option == "strategy"), "{error}");
    assert!(PlacementGroup::with(strict(), [cpu()]).unwrap().wait(PATIENCE).unwrap());
    assert!(matches!(failure(PlacementGroup::new([cpu(), cpu(), cpu()])), Failure::NeverFits { .. }));
    assert!(matches!(failure(PlacementGroup::new([])), Failure::BadOption { .. }));
    assert!(matches!(failure(PlacementGroup::new([Bundle::new()])), Failure::BadOption { .. }));
}

#[test]
fn a_group_gets_its_turn_although_small_calls_never_cease() {
    let _lock = session_lock();
    let _mobula = Builder::new().num_cpus(2).init().unwrap();
    let mut calls: Vec<ObjectRef<u64>> = Vec::new();
    let group = PlacementGroup::new([cpu(), cpu()]).unwrap();
    eventually("the group has both CPUs", || {
        calls.extend((0..100).map(square::remote));
        group.wait(Duration::from_millis(20)).unwrap()
    });
    group.remove().unwrap();
    mobula::get(calls).unwrap();
}
