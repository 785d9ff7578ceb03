//! The heap after a spike: if these fail, a program that once had many calls under way, or many objects, keeps the
//! memory of that until it ends.

use std::path::PathBuf;

use mobula_tests::{Store, eventually, put_content, session, session_lock};

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const MIB: u64 = 1 << 20;

#[mobula::remote]
fn square(x: u64) -> u64 {
    x * x
}

/// Keeps its worker until the file is there.
#[mobula::remote]
fn occupies_until(gate: PathBuf) {
    eventually("the gate opens", || gate.exists());
}

/// Bytes of memory that are this process's alone: its heap, above all.
fn private_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the system says so");
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// The same when nothing is left of the memory that tests before have freed.
fn private_bytes_at_first() -> u64 {
    mobula_client::internal::heap::trim();
    private_bytes()
}

#[test]
fn many_calls_leave_nothing_behind_in_the_heap_of_who_made_them() {
    const CALLS: u64 = 100_000;
    let _session = session(1);
    assert_eq!(square::remote(3).get().unwrap(), 9);
    let directory = tempfile::tempdir().unwrap();
    let before = private_bytes_at_first();
    for round in 0..3 {
        // All calls are pending at once: the only worker is occupied until they have been made.
        let gate = directory.path().join(round.to_string());
        let occupied = occupies_until::remote(gate.clone());
        let refs: Vec<_> = (0..CALLS).map(square::remote).collect();
        assert!(private_bytes() > before + 24 * MIB, "so many calls take no memory: this test shows nothing");
        std::fs::write(gate, []).unwrap();
        let results = mobula::get(&refs).unwrap();
        assert_eq!(results.iter().sum::<u64>(), (0..CALLS).map(|x| x * x).sum::<u64>());
        occupied.get().unwrap();
    }
    eventually("the memory of the calls is given back", || private_bytes() < before + 12 * MIB);
}

struct Counter;

#[mobula::remote]
impl Counter {
    fn new() -> Self {
        Self
    }

    fn square(&self, x: u64) -> u64 {
        x * x
    }

    fn occupy_until(&self, gate: PathBuf) {
        eventually("the gate opens", || gate.exists());
    }
}

/// Bytes of a pending call, with the reference to its result.
const PENDING_BYTES_MAX: u64 = 720;

#[test]
fn a_pending_call_takes_little_memory() {
    const CALLS: u64 = 200_000;
    let _session = session(1);
    let actor = Counter::remote();
    assert_eq!(square::remote(3).get().unwrap() + actor.square(4).get().unwrap(), 25);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let (occupied, occupied_actor) = (occupies_until::remote(gate.clone()), actor.occupy_until(gate.clone()));
    let each = |call: &dyn Fn(u64) -> mobula::ObjectRef<u64>| {
        let before = private_bytes_at_first();
        let refs: Vec<_> = (0..CALLS).map(call).collect();
        (private_bytes().saturating_sub(before) / CALLS, refs)
    };
    let (of_task, of_tasks) = each(&square::remote);
    let (of_method, of_methods) = each(&|x| actor.square(x));
    println!("bytes of a pending call: {of_task} of a function, {of_method} of a method");
    std::fs::write(gate, []).unwrap();
    for refs in [of_tasks, of_methods] {
        let sum: u64 = mobula::get(&refs).unwrap().iter().sum();
        assert_eq!(sum, (0..CALLS).map(|x| x * x).sum::<u64>());
    }
    occupied.get().unwrap();
    occupied_actor.get().unwrap();
    assert!(of_task.max(of_method) <= PENDING_BYTES_MAX, "{of_task} and {of_method} bytes");
}

#[test]
fn many_objects_leave_little_behind_in_the_heap_of_their_owner() {
    const OBJECTS: usize = 1_000_000;
    let _lock = session_lock();
    let store = Store::start(PEER, 96 << 20);
    let client = store.client();
    let kept = put_content(&client, 8).unwrap();
    let before = private_bytes_at_first();
    // Once more with a few objects that stay, wherever they are.
    for _ in 0..2 {
        let mut handles: Vec<_> = (0..OBJECTS).map(|_| client.put(b"8 bytes.").unwrap().handle()).collect();
        assert!(
            private_bytes() > before + 24 * MIB,
            "so many objects take no memory: this test shows nothing"
        );
        handles.truncate(100);
        handles.shrink_to_fit();
        // Some memory stays: the count of each, and the part that the C library keeps at the end of a thread's heap.
        eventually("the memory of the objects is given back", || private_bytes() < before + 18 * MIB);
        // The objects that stayed, and those that come later, have the right bytes.
        assert!(handles.iter().all(|handle| *handle.object().unwrap() == *b"8 bytes."));
        assert_eq!(client.live_objects(), 101);
    }
    assert!(mobula_tests::is_content_of(&kept, kept.id()));
    drop(kept);
    store.is_empty_again(&client);
}
