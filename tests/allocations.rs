//! The heap: if this fails, putting, getting, cloning or dropping an object allocates or frees heap memory once
//! everything is warm, and so waits now and then for the allocator and its other users.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use mobula_tests::{Store, is_content_of, put_content};

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const COUNT: usize = 10_000;

/// The system's allocator; counts what the threads that want it ask for.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and is not measured.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: everything is passed on to the system's allocator as it came; counting does not allocate (a constant
// initialiser and no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls to the allocator by this thread while `step` runs [`COUNT`] times, after as many times to warm up.
///
/// The lowest of three counts: the first time in its life that a thread has to wait for a lock, because the client's
/// own thread has it just then, a place is made for it to wait in.
fn calls(mut step: impl FnMut()) -> u64 {
    (0..COUNT).for_each(|_| step());
    let mut count = || {
        let before = CALLS.get();
        (0..COUNT).for_each(|_| step());
        CALLS.get() - before
    };
    (0..3).map(|_| count()).min().expect("three counts")
}

#[test]
fn the_allocator_is_counted() {
    assert_eq!(calls(|| drop(black_box(Box::new(7)))), 2 * COUNT as u64);
}

#[test]
fn nothing_on_the_hot_path_touches_the_heap() {
    let store = Store::start(PEER, 256 << 20);
    let (owner, reader) = (store.client(), store.client());
    for bytes in [0, 8, 1000, 10_000, 20_000, 100_000, 5 << 20] {
        let value = vec![7; bytes];
        if bytes < 1 << 20 {
            assert_eq!(calls(|| drop(owner.put(&value).unwrap())), 0, "put and drop of {bytes} bytes");
        } else {
            let layout = || mobula_client::Layout::new(bytes as u64);
            let step = || drop(owner.create(layout()).unwrap().seal());
            assert_eq!(calls(step), 0, "create, seal and drop of {bytes} bytes");
        }
    }
    // Many at a time, of several sizes.
    let mut kept = std::collections::VecDeque::with_capacity(1000);
    let (mut at, values) = (0, [vec![1; 8], vec![2; 100], vec![3; 3000], vec![4; 30_000]]);
    let churn = calls(|| {
        if kept.len() == 500 {
            kept.pop_front();
        }
        kept.push_back(owner.put(&values[at % 4]).unwrap());
        at += 1;
    });
    assert_eq!(churn, 0, "put and drop beside others");
    drop(kept);

    for length in [0, 1000] {
        let object = put_content(&owner, length).unwrap();
        let id = object.id();
        assert_eq!(calls(|| drop(reader.get(id).unwrap())), 0, "first get and drop");
        assert_eq!(calls(|| drop(owner.get(id).unwrap())), 0, "get and drop of one's own");
        let held = reader.get(id).unwrap();
        assert_eq!(calls(|| drop(reader.get(id).unwrap())), 0, "get again and drop");
        for object in [&object, &held] {
            assert_eq!(calls(|| drop(object.clone())), 0, "clone and drop");
            let handle = object.handle();
            assert_eq!(calls(|| drop(handle.clone())), 0, "clone and drop of a handle");
            assert_eq!(calls(|| drop(handle.object().unwrap())), 0, "bytes of a handle");
            assert_eq!(calls(|| drop(handle.watch().unwrap())), 0, "watch and drop");
        }
        for client in [&owner, &reader] {
            assert_eq!(calls(|| drop(client.hold(id).unwrap())), 0, "hold and drop");
            assert_eq!(calls(|| assert!(client.contains(id).unwrap())), 0, "contains");
        }
        assert!(is_content_of(&held, id));
    }
}
