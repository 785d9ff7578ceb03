//! Calls that wait for each other in a circle. If these fail, a program hangs without a word, or gets an error although
//! its calls would have ended.

use std::path::PathBuf;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use mobula::prelude::*;
use mobula::{ActorOptions, Builder, Error, Failure, WaitingCall};
use mobula_tests::{PATIENCE, eventually, session, session_with};

/// Calls others, which it is given, and waits for them.
struct Node {
    next: Option<ActorHandle<Node>>,
}

#[mobula::remote]
impl Node {
    fn new() -> Self {
        Self { next: None }
    }

    fn join(&mut self, next: ActorHandle<Node>) {
        self.next = Some(next);
    }

    fn leave(&mut self) {
        self.next = None;
    }

    fn one(&self) -> u32 {
        1
    }

    /// Calls the next actor's method of the same name, so many times.
    fn around(&self, steps: u32) -> mobula::Result<u32> {
        match (&self.next, steps) {
            (Some(next), 1..) => Ok(1 + next.around(steps - 1).get()?),
            _ => Ok(0),
        }
    }

    /// Waits for one of two results, of which the first never comes.
    fn either(&self, never: ObjectRef<u32>, file: PathBuf) -> mobula::Result<u32> {
        let own = self.next.as_ref().expect("it is given").one();
        let there = waits_for::remote(file);
        let (ready, _) = mobula::wait([own, there], 1, None)?;
        drop(never);
        ready[0].get()
    }

    /// Waits for two results, of which the first never comes, and the second fails.
    fn until_one_fails(&self, file: PathBuf) -> mobula::Result<Vec<u32>> {
        let own = self.next.as_ref().expect("it is given").one();
        mobula::get([own, fails_after::remote(file)])
    }

    /// Waits for itself, but not for ever.
    fn for_a_while(&self) -> mobula::Result<u32> {
        let own = self.next.as_ref().expect("it is given");
        match own.one().get_timeout(Duration::from_millis(700)) {
            Err(Error::Timeout { .. }) => Ok(7),
            other => other,
        }
    }

    /// Waits for a function that calls this actor.
    fn through_a_function(&self) -> mobula::Result<u32> {
        one_of::remote(self.next.as_ref().expect("it is given").clone()).get()
    }

    fn one_of_wide(&self, wide: ActorHandle<Wide>) -> mobula::Result<u32> {
        wide.one().get()
    }

    /// The second item is one of another actor.
    #[remote(streaming)]
    fn ones(&self, other: ActorHandle<Node>) -> impl Iterator<Item = mobula::Result<u32>> + use<> {
        std::iter::once(Ok(1)).chain(std::iter::once_with(move || other.one().get()))
    }

    /// The second item comes when the file is there.
    #[remote(streaming)]
    fn later(&self, file: PathBuf) -> impl Iterator<Item = mobula::Result<u32>> + use<> {
        std::iter::once(Ok(1)).chain(std::iter::once_with(move || waits_for::remote(file).get()))
    }

    /// Takes the items of an actor that waits for this one.
    fn takes_own(&self, from: ActorHandle<Node>) -> mobula::Result<u32> {
        from.ones(self.next.clone().expect("it is given")).map(|item| item.get()).sum()
    }

    fn takes_later(&self, from: ActorHandle<Node>, file: PathBuf) -> mobula::Result<u32> {
        from.later(file).map(|item| item.get()).sum()
    }

    /// Waits for a call that another process has made.
    fn of_another(&self, results: Vec<ObjectRef<u32>>) -> mobula::Result<u32> {
        results[0].get()
    }

    /// The same, and writes a file first.
    fn of_another_begun(&self, results: Vec<ObjectRef<u32>>, begun: PathBuf) -> mobula::Result<u32> {
        std::fs::write(begun, "").expect("the directory is there");
        results[0].get()
    }
}

/// Runs two calls at a time.
struct Wide {
    own: Mutex<Option<ActorHandle<Wide>>>,
    node: Mutex<Option<ActorHandle<Node>>>,
    both: Barrier,
}

#[mobula::remote(max_concurrency = 2)]
impl Wide {
    fn new() -> Self {
        Self { own: Mutex::default(), node: Mutex::default(), both: Barrier::new(2) }
    }

    fn join(&self, own: ActorHandle<Wide>, node: ActorHandle<Node>) {
        *self.own.lock().unwrap() = Some(own);
        *self.node.lock().unwrap() = Some(node);
    }

    fn leave(&self) {
        *self.own.lock().unwrap() = None;
        *self.node.lock().unwrap() = None;
    }

    fn own(&self) -> ActorHandle<Wide> {
        self.own.lock().unwrap().clone().expect("it is given")
    }

    fn one(&self) -> u32 {
        1
    }

    fn alone(&mut self) -> u32 {
        1
    }

    /// Waits for itself, when both places are taken.
    fn waits_for_itself(&self) -> mobula::Result<u32> {
        self.both.wait();
        self.own().one().get()
    }

    /// The same, through another actor.
    fn waits_for_a_node(&self) -> mobula::Result<u32> {
        self.both.wait();
        let node = self.node.lock().unwrap().clone().expect("it is given");
        node.one_of_wide(self.own()).get()
    }

    /// Has the other place meanwhile.
    fn waits_for_a_file(&self, file: PathBuf) -> mobula::Result<u32> {
        self.both.wait();
        waits_for::remote(file).get()
    }

    /// While it runs, no method with `&mut self` does.
    fn waits_for_one_alone(&self) -> mobula::Result<u32> {
        self.own().alone().get()
    }

    fn waits_beside_itself(&self) -> mobula::Result<u32> {
        self.own().one().get()
    }
}

#[mobula::remote]
fn one_of(node: ActorHandle<Node>) -> mobula::Result<u32> {
    node.one().get()
}

#[mobula::remote]
fn waits_for(file: PathBuf) -> u32 {
    eventually("the file is there", || file.exists());
    3
}

#[mobula::remote]
fn fails_after(file: PathBuf) -> Result<u32, String> {
    waits_for(file);
    Err("it fails".to_owned())
}

/// Holds what the next one needs, and waits for it.
#[mobula::remote(num_cpus = 0, resources = [("licence", 1)])]
fn nested(depth: u32) -> mobula::Result<u32> {
    if depth == 0 { Ok(0) } else { Ok(1 + nested::remote(depth - 1).get()?) }
}

/// The circle that a call has failed with, somewhere behind it.
fn cycle_of<T: std::fmt::Debug>(result: mobula::Result<T>) -> Vec<WaitingCall> {
    let mut failure = match result {
        Err(error) => Failure::from(error),
        Ok(value) => panic!("{value:?}, and no deadlock"),
    };
    loop {
        failure = match failure {
            Failure::Deadlock { cycle } => return cycle,
            Failure::Task(error) => match error.cause {
                Some(cause) => *cause,
                None => panic!("{error}"),
            },
            other => panic!("{other}"),
        };
    }
}

fn ring(size: usize) -> Vec<ActorHandle<Node>> {
    let nodes: Vec<_> = (0..size).map(|_| Node::remote()).collect();
    for (node, next) in nodes.iter().zip(nodes.iter().cycle().skip(1)) {
        node.join(next.clone()).get().unwrap();
    }
    nodes
}

fn part(nodes: &[ActorHandle<Node>]) {
    nodes.iter().for_each(|node| node.leave().get().unwrap());
}

#[test]
fn an_actor_that_waits_for_itself_gets_an_error() {
    let _session = session(1);
    let nodes = ring(1);
    let cycle = cycle_of(nodes[0].around(2).get());
    assert_eq!(cycle.len(), 1, "{cycle:?}");
    let WaitingCall { function, waits_for, at, .. } = &cycle[0];
    assert_eq!(
        (function.as_str(), waits_for.as_str()),
        ("deadlocks::Node::around", "deadlocks::Node::around")
    );
    assert!(at.as_ref().is_some_and(|at| at.contains("tests/deadlocks.rs:")), "{at:?}");
    // It goes on with the next call.
    assert_eq!(nodes[0].one().get().unwrap(), 1);
    part(&nodes);
}

#[test]
fn each_of_a_circle_of_actors_gets_the_circle() {
    let _session = session(2);
    for size in [2, 5] {
        let nodes = ring(size);
        let cycle = cycle_of(nodes[0].around(size as u32 + 1).get());
        assert_eq!(cycle.len(), size, "{cycle:?}");
        let text = Failure::Deadlock { cycle: cycle.clone() }.to_string();
        assert!(text.contains("waits for deadlocks::Node::around at"), "{text}");
        // As many steps as there are actors end at the actor that began; one less needs no actor twice.
        assert_eq!(nodes[0].around(size as u32 - 1).get().unwrap(), size as u32 - 1);
        part(&nodes);
    }
}

#[test]
fn functions_and_results_of_others_may_be_in_a_circle() {
    let _session = session(2);
    let nodes = ring(1);
    let cycle = cycle_of(nodes[0].through_a_function().get());
    let functions: Vec<_> = cycle.iter().map(|call| call.function.as_str()).collect();
    assert_eq!(functions.len(), 2, "{cycle:?}");
    assert!(
        functions.contains(&"deadlocks::one_of")
            && functions.contains(&"deadlocks::Node::through_a_function")
    );
    part(&nodes);
    // The driver has made the call that the actor waits for, and that waits for the actor.
    let (a, b) = (Node::remote(), Node::remote());
    b.join(a.clone()).get().unwrap();
    let file = tempfile::tempdir().unwrap().path().join("never");
    let waits = a.of_another(vec![b.around(1)]);
    // One of both came first: then nothing waits.
    if waits.get_timeout(Duration::from_millis(50)).is_err() {
        let _ = waits.get();
    }
    drop(file);
    part(&[a, b]);
}

#[test]
fn calls_that_wait_for_what_they_hold_get_an_error() {
    let _session = session_with(Builder::new().workers(2).resources([("licence", 2)]));
    assert_eq!(nested::remote(1).get().unwrap(), 1);
    let cycle = cycle_of(nested::remote(2).get());
    assert!(cycle.iter().all(|call| call.function == "deadlocks::nested"), "{cycle:?}");
    // The resources that they held are free again.
    assert_eq!(nested::remote(1).get().unwrap(), 1);
    // So is an actor that waits for a resource that its maker holds.
    let options = || ActorOptions::new().num_cpus(0).resources([("licence", 1)]);
    let nodes: Vec<_> = (0..2).map(|_| Node::options(options()).remote()).collect();
    assert_eq!(mobula::get(nodes.iter().map(|node| node.one())).unwrap(), [1, 1]);
}

#[test]
fn what_may_still_come_is_no_deadlock() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let _session = session(2);
    let nodes = ring(1);
    // A time limit.
    assert_eq!(nodes[0].for_a_while().get().unwrap(), 7);
    // Any of several results.
    let waits = nodes[0].either(mobula::put(&1).unwrap(), file.clone());
    assert!(matches!(waits.get_timeout(Duration::from_millis(1500)), Err(Error::Timeout { .. })));
    std::fs::write(&file, "").unwrap();
    assert_eq!(waits.get_timeout(PATIENCE).unwrap(), 3);
    // All of several results, of which one fails.
    let failing = directory.path().join("failing");
    let waits = nodes[0].until_one_fails(failing.clone());
    assert!(matches!(waits.get_timeout(Duration::from_millis(1500)), Err(Error::Timeout { .. })));
    std::fs::write(&failing, "").unwrap();
    let text = waits.get_timeout(PATIENCE).unwrap_err().to_string();
    assert!(text.contains("it fails"), "{text}");
    part(&nodes);
    // Long waits in a line, and calls that wait behind each other.
    let (a, b) = (Node::remote(), Node::remote());
    a.join(b.clone()).get().unwrap();
    let later = directory.path().join("later");
    let result = waits_for::remote(later.clone());
    let begun = directory.path().join("begun");
    let behind = b.of_another_begun(vec![result], begun.clone());
    // Else the call of the other caller may come first.
    eventually("the call has begun", || begun.exists());
    let around: Vec<_> = (0..3).map(|_| a.around(1)).collect();
    assert!(matches!(mobula::get_timeout(&around, Duration::from_millis(1500)), Err(Error::Timeout { .. })));
    std::fs::write(&later, "").unwrap();
    assert_eq!(behind.get_timeout(PATIENCE).unwrap(), 3);
    assert_eq!(mobula::get(&around).unwrap(), [1, 1, 1]);
    part(&[a, b]);
}

fn wide() -> (ActorHandle<Wide>, ActorHandle<Node>) {
    let (wide, node) = (Wide::remote(), Node::remote());
    wide.join(wide.clone(), node.clone()).get().unwrap();
    (wide, node)
}

/// The circles of the calls that fail: at least one. The failure of one may free a place, and then the other ends well.
fn deadlocks_of(results: [ObjectRef<u32>; 2]) -> Vec<Vec<WaitingCall>> {
    let failed = results.into_iter().map(|result| result.get()).filter(|result| !matches!(result, Ok(1)));
    let cycles: Vec<_> = failed.map(cycle_of).collect();
    assert!(!cycles.is_empty(), "no call fails");
    cycles
}

fn functions(cycle: &[WaitingCall]) -> Vec<&str> {
    cycle.iter().map(|call| call.function.strip_prefix("deadlocks::").unwrap_or(&call.function)).collect()
}

#[test]
fn an_actor_all_of_whose_places_wait_for_it_gets_an_error_in_each() {
    let _session = session(1);
    let (wide, _node) = wide();
    let cycles = deadlocks_of([wide.waits_for_itself(), wide.waits_for_itself()]);
    assert_eq!(cycles.len(), 2, "one process waits, so both get the error");
    for cycle in cycles {
        assert_eq!(functions(&cycle), ["Wide::waits_for_itself"; 2], "{cycle:?}");
        assert!(cycle.iter().all(|call| call.pid == cycle[0].pid), "{cycle:?}");
        assert!(cycle.iter().all(|call| call.waits_for.ends_with("Wide::one")), "{cycle:?}");
    }
    // Both places are free again.
    assert_eq!(wide.waits_beside_itself().get().unwrap(), 1);
    for cycle in deadlocks_of([wide.waits_for_a_node(), wide.waits_for_a_node()]) {
        let mut functions = functions(&cycle);
        functions.sort_unstable();
        let expected = ["Node::one_of_wide", "Wide::waits_for_a_node", "Wide::waits_for_a_node"];
        assert_eq!(functions, expected, "{cycle:?}");
    }
    let cycle = cycle_of(wide.waits_for_one_alone().get());
    assert_eq!(functions(&cycle), ["Wide::waits_for_one_alone"], "{cycle:?}");
    assert!(cycle[0].waits_for.ends_with("Wide::alone"), "{cycle:?}");
    wide.leave().get().unwrap();
}

#[test]
fn a_place_that_comes_free_is_no_deadlock() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let _session = session(1);
    let (wide, _node) = wide();
    // One place waits for the other, and that one for a function.
    let waits = wide.waits_for_itself();
    let other = wide.waits_for_a_file(file.clone());
    assert!(matches!(waits.get_timeout(Duration::from_millis(1500)), Err(Error::Timeout { .. })));
    std::fs::write(&file, "").unwrap();
    assert_eq!(other.get_timeout(PATIENCE).unwrap(), 3);
    assert_eq!(waits.get_timeout(PATIENCE).unwrap(), 1);
    wide.leave().get().unwrap();
}

#[test]
fn an_item_that_only_the_one_that_takes_it_could_bring_is_a_deadlock() {
    let _session = session(2);
    let (nodes, producer) = (ring(1), Node::remote());
    let cycle = cycle_of(nodes[0].takes_own(producer.clone()).get());
    let mut functions = functions(&cycle);
    functions.sort_unstable();
    assert_eq!(functions, ["Node::ones", "Node::takes_own"], "{cycle:?}");
    let takes = cycle.iter().find(|call| call.function.ends_with("takes_own")).expect("it is there");
    assert!(takes.waits_for.ends_with("Node::ones"), "{cycle:?}");
    // One that may come is none.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let takes = nodes[0].takes_later(producer.clone(), file.clone());
    let asks = producer.one();
    assert!(matches!(takes.get_timeout(Duration::from_millis(1500)), Err(Error::Timeout { .. })));
    std::fs::write(&file, "").unwrap();
    assert_eq!(takes.get_timeout(PATIENCE).unwrap(), 4);
    assert_eq!(asks.get().unwrap(), 1);
    part(&nodes);
}
