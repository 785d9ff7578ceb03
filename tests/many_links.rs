//! Many links: if these fail, a call costs the more the more actors a program has, or a record that comes through a
//! link which was not used for a while is not heard of, and a call hangs.

use std::path::PathBuf;

use mobula::prelude::*;
use mobula_tests::{PATIENCE, eventually, session};

/// More than a process looks at, at the same time.
const CROWD: usize = 72;
const BESIDE: usize = 20;
/// Calls after which the links that none of them used are idle.
const MANY: i64 = 1000;
/// The links that may stay active: to the head, and to the actor that is called; and the one that was called before.
const ACTIVE_MAX: usize = 3;

struct Total {
    value: i64,
}

#[mobula::remote]
impl Total {
    fn new() -> Self {
        Self { value: 0 }
    }

    fn add(&mut self, x: i64) -> i64 {
        self.value += x;
        self.value
    }

    /// Waits for a file.
    fn add_when_open(&mut self, x: i64, gate: PathBuf) -> i64 {
        eventually("the gate opens", || gate.exists());
        self.add(x)
    }

    /// Adds to another actor, and says how many links this process looks at.
    fn add_to(&self, other: ActorHandle<Total>, x: i64) -> mobula::Result<(i64, usize)> {
        Ok((other.add(x).get()?, active_links()))
    }
}

fn active_links() -> usize {
    mobula_runtime::runtime().expect("a session runs").active_links()
}

/// Calls one actor until the links to others are idle.
fn call_many_times(actor: &ActorHandle<Total>) {
    for _ in 0..MANY {
        actor.add(0).get().unwrap();
    }
}

#[test]
fn a_waiting_thread_looks_at_the_links_in_use_alone() {
    let _session = session(1);
    let actors: Vec<_> = (0..BESIDE).map(|_| Total::remote()).collect();
    for actor in &actors {
        assert_eq!(actor.add(1).get().unwrap(), 1);
    }
    call_many_times(&actors[0]);
    assert!(active_links() <= ACTIVE_MAX, "{} links are active beside {BESIDE} idle actors", active_links());
    // The others answer as before, and only those in use are looked at.
    for actor in &actors[1..] {
        assert_eq!(actor.add(1).get().unwrap(), 2);
    }
    call_many_times(&actors[1]);
    assert!(active_links() <= ACTIVE_MAX, "{} links are active beside {BESIDE} idle actors", active_links());
}

#[test]
fn an_answer_through_an_idle_link_wakes_the_caller() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let (slow, quick) = (Total::remote(), Total::remote());
    for round in 1..=3 {
        let gate = directory.path().join(round.to_string());
        let late = slow.add_when_open(1, gate.clone());
        call_many_times(&quick);
        assert!(active_links() < ACTIVE_MAX, "the link to the slow actor is not idle");
        let opens = std::thread::spawn(move || std::fs::write(gate, "").unwrap());
        assert_eq!(late.get_timeout(PATIENCE).unwrap(), round);
        opens.join().unwrap();
    }
}

#[test]
fn an_answer_through_an_idle_link_is_seen_by_a_caller_that_never_waits_for_it() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let (slow, quick) = (Total::remote(), Total::remote());
    let gate = directory.path().join("gate");
    let late = slow.add_when_open(1, gate.clone());
    call_many_times(&quick);
    std::fs::write(gate, "").unwrap();
    let start = std::time::Instant::now();
    while !late.is_ready() {
        assert!(start.elapsed() < PATIENCE, "the answer is not seen");
        quick.add(0).get().unwrap();
    }
    assert_eq!(late.get().unwrap(), 1);
}

#[test]
fn answers_of_more_actors_than_are_looked_at_arrive() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let actors: Vec<_> = (0..CROWD).map(|_| Total::remote()).collect();
    for round in 1..=3 {
        let gate = directory.path().join(round.to_string());
        let late: Vec<_> = actors.iter().map(|actor| actor.add_when_open(1, gate.clone())).collect();
        std::fs::write(gate, "").unwrap();
        for result in late {
            assert_eq!(result.get_timeout(PATIENCE).unwrap(), round);
        }
    }
}

#[test]
fn a_call_through_an_idle_link_is_served() {
    let _session = session(1);
    let served = Total::remote();
    let callers: Vec<_> = (0..6).map(|_| Total::remote()).collect();
    let mut total = 0;
    for _ in 0..3 {
        for caller in &callers {
            let (sum, active) = caller.add_to(served.clone(), 1).get_timeout(PATIENCE).unwrap();
            total += 1;
            assert_eq!(sum, total);
            assert!(active <= ACTIVE_MAX);
        }
        // Meanwhile the links to the other callers become idle.
        call_many_times(&served);
    }
}
