//! Processes that use an object in several ways and threads at a time. If these fail:
//!
//! - a process loses the object;
//! - it reads the bytes of another object;
//! - it keeps the object for ever;
//! - a client that ends takes objects with it that are still used.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mobula_client::{Client, ClientError, Handle, Layout, Object, ObjectId};
use mobula_tests::{Random, Store, error_kind, eventually, is_content_of, put_content, put_layout};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const CAPACITY: u64 = 64 << 20;

/// A model of the objects and handles that this process has.
#[derive(Default)]
struct Had {
    objects: Vec<Object>,
    handles: Vec<Handle>,
    /// The uses of each object by all clients of this process; they keep it.
    uses: HashMap<ObjectId, u32>,
    /// Deleted: new uses are refused.
    deleted: Vec<ObjectId>,
    gone: Vec<ObjectId>,
}

impl Had {
    fn take(&mut self, object: Object) {
        assert!(is_content_of(&object, object.id()), "{}", object.id());
        *self.uses.entry(object.id()).or_default() += 1;
        self.objects.push(object);
    }

    fn hold(&mut self, handle: Handle) {
        *self.uses.entry(handle.id()).or_default() += 1;
        self.handles.push(handle);
    }

    fn let_go(&mut self, id: ObjectId) {
        let uses = self.uses.get_mut(&id).expect("it was had");
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(&id);
            self.gone.push(id);
        }
    }
}

#[test]
fn random_uses_of_random_objects_by_clients_that_come_and_go() {
    const STEPS: usize = 40_000;
    let store = Store::start(PEER, CAPACITY);
    let witness = store.client();
    let mut random = Random::from_environment();
    let mut clients: Vec<Client> = (0..4).map(|_| store.client()).collect();
    let mut had = Had::default();
    for step in 0..STEPS {
        let client = clients[random.below(4) as usize].clone();
        let any = |random: &mut Random, length: usize| random.below(length as u64) as usize;
        // So much at a time fits the store.
        let more = had.objects.len() + had.handles.len() < 300 && random.below(2) == 0;
        match if more { random.below(54) } else { 54 + random.below(46) } {
            0..25 => {
                let length = [0, 8, 1000, 100_000][any(&mut random, 4)];
                had.take(put_content(&client, length).unwrap());
            }
            25..30 if !had.handles.is_empty() => {
                // One that keeps others alive, for as long as it is had itself.
                let at = any(&mut random, had.handles.len());
                let references = vec![had.handles[at].clone()];
                had.take(put_layout(&client, Layout::new(10).references(references)).unwrap());
            }
            30..34 => {
                let promise = client.promise().unwrap();
                let id = promise.handle().id();
                assert_eq!(error_kind(client.get(id)), "NotReady");
                let handle = promise.handle().clone();
                let _watch = handle.watch().unwrap();
                let mut writer = client.create(Layout::new(100)).unwrap();
                mobula_tests::fill(&mut writer, id);
                promise.fulfil(writer);
                had.hold(handle);
            }
            34..36 => drop(client.create(Layout::new(1000)).unwrap()),
            36..50 if !had.objects.is_empty() => {
                let object = &had.objects[any(&mut random, had.objects.len())];
                let id = object.id();
                match random.below(4) {
                    0 => had.take(object.clone()),
                    1 => had.hold(object.handle()),
                    // By another client than the one that has it, perhaps.
                    2 if !had.deleted.contains(&id) => had.take(client.get(id).unwrap()),
                    3 if !had.deleted.contains(&id) => had.hold(client.hold(id).unwrap()),
                    _ => assert_eq!(error_kind(client.get(id)), "Deleted"),
                }
            }
            50..54 if !had.handles.is_empty() => {
                let object = had.handles[any(&mut random, had.handles.len())].object().unwrap();
                had.take(object);
            }
            54..74 if !had.objects.is_empty() => {
                let object = had.objects.swap_remove(any(&mut random, had.objects.len()));
                assert!(is_content_of(&object, object.id()), "step {step}: {}", object.id());
                let id = object.id();
                drop(object);
                had.let_go(id);
            }
            74..90 if !had.handles.is_empty() => {
                let handle = had.handles.swap_remove(any(&mut random, had.handles.len()));
                let id = handle.id();
                drop(handle);
                had.let_go(id);
            }
            90..97 if !had.gone.is_empty() => {
                // It may be there for a moment, or because another one keeps it; then it is what it was.
                let id = had.gone[any(&mut random, had.gone.len())];
                if let Ok(object) = client.get(id) {
                    assert!(is_content_of(&object, id), "step {step}: {id}");
                }
            }
            97 if !had.objects.is_empty() => {
                let id = had.objects[any(&mut random, had.objects.len())].id();
                if let Some(owner) = clients.iter().find(|client| client.id() == id.owner()) {
                    match owner.delete(id) {
                        Ok(()) => had.deleted.push(id),
                        Err(error) => {
                            assert_eq!(mobula_tests::kind_of(&error), "NoSuchObject", "step {step}")
                        }
                    }
                }
            }
            98 if random.below(8) == 0 => {
                // The objects that the old client owns or uses stay; its slot is free once all of them are gone.
                clients[any(&mut random, 4)] = store.client();
            }
            _ => {}
        }
    }
    for object in &had.objects {
        assert!(is_content_of(object, object.id()));
    }
    drop((had, clients));
    store.is_empty_again(&witness);
    eventually("the other clients are gone", || witness.stats().unwrap().totals.clients == 1);
}

#[test]
fn threads_that_use_what_others_let_go_of_read_what_belongs_to_the_id() {
    const ROUNDS: u64 = 3000;
    let store = Store::start(PEER, CAPACITY);
    let (owner, reader) = (store.client(), store.client());
    // Ids that were given out lately; most of them are still there when they are read, some are not.
    let recent: Mutex<Vec<ObjectId>> = Mutex::default();
    let (done, read, gone) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (recent, done, read, gone) = (&recent, &done, &read, &gone);
            let client = if thread % 2 == 0 { &owner } else { &reader };
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let ids = recent.lock().unwrap().clone();
                    for id in ids {
                        match client.get(id) {
                            Ok(object) => {
                                let handle = object.handle();
                                let clone = object.clone();
                                drop(object);
                                assert!(is_content_of(&clone, id), "{id}");
                                drop(clone);
                                assert!(is_content_of(&handle.object().unwrap(), id), "{id}");
                                read.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => {
                                assert_eq!(mobula_tests::kind_of(&error), "NoSuchObject", "{id}");
                                gone.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
        let mut kept = Vec::new();
        for round in 0..ROUNDS {
            kept.extend((0..8).map(|at| put_content(&owner, (round + at) % 200).unwrap()));
            *recent.lock().unwrap() = kept.iter().map(Object::id).collect();
            if kept.len() > 32 {
                kept.drain(..16);
            }
        }
        // Until each kind of outcome was seen.
        eventually("the readers read", || read.load(Ordering::Relaxed) > ROUNDS);
        done.store(true, Ordering::Relaxed);
    });
    println!("{} read, {} gone", read.into_inner(), gone.into_inner());
    drop(reader);
    store.is_empty_again(&owner);
}

#[test]
fn the_last_use_of_a_closed_client_ends_it_in_whatever_thread_it_is() {
    let store = Store::start(PEER, CAPACITY);
    let (witness, other) = (store.client(), store.client());
    for round in 0..50 {
        let client = store.client();
        let theirs = put_content(&other, 100).unwrap();
        let mut uses: Vec<Object> = (0..4).map(|_| put_content(&client, 1000).unwrap()).collect();
        uses.extend((0..2).map(|_| client.get(theirs.id()).unwrap()));
        let references = uses.iter().map(Object::handle).collect();
        uses.push(put_layout(&client, Layout::new(1).references(references)).unwrap());
        if round % 2 == 0 {
            // Others keep some of it for a while.
            uses.push(witness.get(uses[0].id()).unwrap());
        }
        let start = Arc::new(std::sync::Barrier::new(uses.len() + 1));
        let threads: Vec<_> = uses
            .into_iter()
            .map(|object| {
                let start = start.clone();
                std::thread::spawn(move || {
                    start.wait();
                    assert!(is_content_of(&object, object.id()));
                    drop(object);
                })
            })
            .collect();
        start.wait();
        drop(client);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(theirs);
    }
    store.is_empty_again(&witness);
    eventually("the closed clients are gone", || witness.stats().unwrap().totals.clients == 2);
}

/// The handle that an object keeps may be another client's: it ends with the client that owned the object, although the
/// object lives on.
#[test]
fn a_reference_that_an_object_keeps_ends_with_the_client_of_the_object() {
    let store = Store::start(PEER, CAPACITY);
    let (witness, owner, other) = (store.client(), store.client(), store.client());
    let kept = put_content(&other, 1000).unwrap();
    let references = vec![kept.handle()];
    let object = put_layout(&owner, Layout::new(1).references(references)).unwrap();
    let held = witness.get(object.id()).unwrap();
    drop((object, kept, owner, other));
    eventually("both clients are gone", || {
        let clients = witness.stats().unwrap().clients;
        clients.iter().filter(|client| !client.dead).count() == 1
    });
    drop(held);
    store.is_empty_again(&witness);
}

#[test]
fn a_forked_child_may_drop_its_client_before_its_objects() {
    let store = Store::start(PEER, CAPACITY);
    let other = store.client();
    let theirs_put = put_content(&other, 1000).unwrap();
    let client = store.client();
    let (mine, theirs) = (put_content(&client, 1000).unwrap(), client.get(theirs_put.id()).unwrap());
    let child = fork(|| {
        let (client, mine, theirs) = (client.clone(), mine.clone(), theirs.clone());
        drop(client);
        // If anything of the client was freed, these allocations come to lie there.
        let filler: Vec<Vec<u8>> = (0..1000).map(|at| vec![0xff; at * 16]).collect();
        drop((mine.clone(), mine.handle(), theirs.clone()));
        drop((mine, theirs, filler));
        0
    });
    assert_eq!(ended(child), WaitStatus::Exited(child, 0));
    // Unharmed.
    assert!(is_content_of(&mine, mine.id()) && is_content_of(&theirs, theirs.id()));
    drop((client, mine, theirs, theirs_put));
    store.is_empty_again(&other);
}

/// A forked child that does something and exits with the result.
fn fork(child: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the child uses only what is being tested, which takes no lock that another thread of the parent may have,
    // and the allocator, which the C library keeps usable in a child.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => {
            std::panic::set_hook(Box::new(|_| {}));
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: ends the child without the parent's cleanup.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => child,
    }
}

fn ended(child: Pid) -> WaitStatus {
    waitpid(child, None).unwrap()
}

/// Nothing holds an object in a forked child, so the child cannot look at it by any access from before the fork.
#[test]
fn a_forked_child_sees_no_bytes_of_any_object() {
    let store = Store::start(PEER, CAPACITY);
    let (other, client) = (store.client(), store.client());
    let put = put_content(&other, 1000).unwrap();
    let (mine, theirs) = (put_content(&client, 1000).unwrap(), client.get(put.id()).unwrap());
    for object in [&mine, &theirs] {
        let said = fork(|| {
            let panic = std::panic::catch_unwind(|| object[0]).expect_err("it can be looked at");
            let text = panic.downcast_ref::<String>().expect("a text");
            i32::from(!(text.contains(&object.id().to_string()) && text.contains("forked child")))
        });
        assert_eq!(ended(said), WaitStatus::Exited(said, 0), "{}", object.id());
        // These types have no way to say so.
        let (slice, bytes) = (&object[..], bytes::Bytes::from(object.clone()));
        let buffer = mobula::arrow::buffer::Buffer::from(bytes.clone());
        let look = |bytes: &[u8]| i32::from(std::hint::black_box(bytes)[7]);
        for child in [fork(|| look(slice)), fork(|| look(&bytes)), fork(|| look(&buffer))] {
            assert!(
                matches!(ended(child), WaitStatus::Signaled(_, Signal::SIGSEGV, _)),
                "a child has looked at {}",
                object.id()
            );
        }
    }
    // Other things may lie in a child where mappings were, and stay when those are dropped there.
    let child = fork(|| {
        let mappings: Vec<Box<[u8]>> = (0..64).map(|_| vec![7; 1 << 20].into_boxed_slice()).collect();
        drop((client.clone(), mine.clone(), theirs.clone()));
        i32::from(!mappings.iter().all(|mapping| mapping.iter().all(|byte| *byte == 7)))
    });
    assert_eq!(ended(child), WaitStatus::Exited(child, 0));
    assert!(is_content_of(&mine, mine.id()) && is_content_of(&theirs, theirs.id()));
}

/// A process takes as many borrows of one object as it can count.
#[test]
fn a_borrow_too_many_is_an_error_that_names_the_limit() {
    const BORROWS_MAX: u64 = (1 << 20) - 1;
    let store = Store::start(PEER, CAPACITY);
    let (other, client) = (store.client(), store.client());
    let put = put_content(&other, 1000).unwrap();
    for object in [put_content(&client, 1000).unwrap(), client.get(put.id()).unwrap()] {
        let (id, handle) = (object.id(), object.handle());
        // One is there already.
        (1..BORROWS_MAX).for_each(|_| std::mem::forget(client.get(id).unwrap()));
        for refused in [client.get(id), handle.object()] {
            match refused.unwrap_err() {
                ClientError::TooManyReferences { object, max, .. } => {
                    assert_eq!((object, max), (id, BORROWS_MAX))
                }
                other => panic!("{other}"),
            }
        }
        let text = client.get(id).unwrap_err().to_string();
        assert!(text.contains("1048575 borrows"), "{text}");
        // There is room for one again.
        assert!(is_content_of(&object, id));
        drop(object);
        assert!(is_content_of(&handle.object().unwrap(), id));
    }
}
