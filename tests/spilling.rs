//! Spilling: if these fail, a program that keeps more than the store can hold gets stuck, gets wrong bytes, or loses
//! what it had in memory when a disk is full.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mobula::prelude::*;
use mobula_client::{Client, ClientError, ConnectOptions, Handle, Layout, ObjectId, Refusal};
use mobula_tests::{
    Random, Store, error_kind, eventually, first_ok, is_content_of, put_content, put_layout, segments_mapped,
    session_lock, session_with,
};
use tempfile::TempDir;

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const MIB: u64 = 1 << 20;
const PLENTY: u64 = 1 << 40;

/// A directory to spill into, on a disk if there is one.
fn spill_directory() -> TempDir {
    tempfile::Builder::new().prefix("mobula-spill-test-").tempdir_in("/var/tmp").unwrap()
}

fn names(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Everything below a directory, itself excluded.
fn all_below(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in names(directory) {
        if path.is_dir() {
            all.extend(all_below(&path));
        }
        all.push(path);
    }
    all
}

fn hold_content(client: &Client, length: u64) -> Handle {
    put_content(client, length).unwrap_or_else(|error| panic!("{length} bytes: {error}")).handle()
}

fn verify(client: &Client, handle: &Handle) {
    let object = client.get(handle.id()).unwrap_or_else(|error| panic!("{handle:?}: {error}"));
    assert!(is_content_of(&object, handle.id()), "wrong bytes in {handle:?}");
}

/// Puts objects of random lengths until they are `total` bytes.
fn working_set(client: &Client, random: &mut Random, total: u64, length_max: u64) -> Vec<Handle> {
    let (mut handles, mut bytes) = (Vec::new(), 0);
    while bytes < total {
        let length = random.below(length_max);
        handles.push(hold_content(client, length));
        bytes += length;
    }
    handles
}

#[test]
fn four_times_the_capacity_is_written_and_read_back_in_any_order() {
    const CAPACITY: u64 = 32 * MIB;
    let _lock = session_lock();
    let directory = spill_directory();
    let store = Store::start_spilling(PEER, CAPACITY, directory.path(), PLENTY);
    let client = store.client();
    let mut random = Random::from_environment();
    let start = Instant::now();
    // Large ones, and then so many small ones that they share files.
    let mut handles = working_set(&client, &mut random, 3 * CAPACITY, 3 * MIB);
    handles.extend(working_set(&client, &mut random, CAPACITY, 40_000));
    let written = start.elapsed();
    let stats = client.stats().unwrap();
    assert!(stats.spilled_bytes() >= 3 * CAPACITY, "{stats:#?}");
    assert_eq!(stats.objects(), handles.len() as u64);
    // Files are as large as what is in them, and a little more; nothing in them has a name.
    assert!(stats.totals.spill_bytes >= stats.spilled_bytes());
    assert!(stats.totals.spill_bytes < stats.spilled_bytes() + stats.spilled_bytes() / 2, "{stats:#?}");
    assert_eq!(all_below(directory.path()).len(), 1, "{:?}", all_below(directory.path()));
    let spilled = client.list().unwrap().iter().filter(|info| info.spilled).count();
    assert_eq!(spilled as u64, stats.spilled_objects());

    // By their owner, and by another process that holds none of them.
    let mut peer = store.peer();
    let reads = handles.len().min(800);
    let start = Instant::now();
    for _ in 0..reads {
        let handle = &handles[random.below(handles.len() as u64) as usize];
        if random.below(2) == 0 {
            verify(&client, handle);
        } else {
            peer.ok(format_args!("read {}", handle.id()));
        }
    }
    println!(
        "{} objects of {} MiB put through a store of {} MiB in {written:?}; {reads} read back in {:?}",
        handles.len(),
        4 * CAPACITY / MIB,
        CAPACITY / MIB,
        start.elapsed()
    );
    // Every one of them, in the end.
    handles.iter().for_each(|handle| verify(&client, handle));
    // One process maps no more segments than the store has.
    assert!(segments_mapped(peer.pid) as u64 <= client.stats().unwrap().totals.segments.into());
    drop(handles);
    store.is_empty_again(&client);
    drop((client, peer, store));
    assert!(names(directory.path()).len() <= 1, "{:?}", names(directory.path()));
}

#[test]
fn what_is_mapped_stays_where_it_is_and_what_is_held_comes_back_to_its_holder() {
    const CAPACITY: u64 = 16 * MIB;
    let _lock = session_lock();
    let directory = spill_directory();
    let store = Store::start_spilling(PEER, CAPACITY, directory.path(), PLENTY);
    let client = store.client();
    let mut peer = store.peer();
    let mapped_here = put_content(&client, MIB).unwrap();
    let mapped_there = hold_content(&client, MIB);
    peer.ok(format_args!("get {}", mapped_there.id()));
    let held_there: Vec<Handle> = (0..4).map(|_| hold_content(&client, MIB / 2)).collect();
    for handle in &held_there {
        peer.ok(format_args!("hold {}", handle.id()));
    }
    let held_there: Vec<ObjectId> = held_there.into_iter().map(|handle| handle.id()).collect();
    let address = mapped_here.as_ptr();
    let rest: Vec<Handle> = (0..64).map(|_| hold_content(&client, MIB)).collect();

    let listed = client.list().unwrap();
    let is_spilled = |id| listed.iter().find(|info| info.object == id).expect("listed").spilled;
    assert!(!is_spilled(mapped_here.id()) && !is_spilled(mapped_there.id()));
    assert!(rest.iter().filter(|handle| is_spilled(handle.id())).count() >= 48);
    // Nobody here uses them any more, and they are not lost.
    assert_eq!(mapped_here.as_ptr(), address);
    assert!(is_content_of(&mapped_here, mapped_here.id()));
    peer.ok("verify");
    for id in &held_there {
        peer.ok(format_args!("read {id}"));
    }
    peer.ok("drop-all");
    for id in &held_there {
        let gone = || matches!(client.get(*id), Err(ClientError::NoSuchObject { .. }));
        eventually("what nobody holds is freed", || {
            _ = client.live_objects();
            gone()
        });
    }
    drop((rest, mapped_here, mapped_there));
    store.is_empty_again(&client);
}

#[test]
fn references_and_names_keep_what_is_spilled() {
    const CAPACITY: u64 = 8 * MIB;
    let _lock = session_lock();
    let directory = spill_directory();
    let store = Store::start_spilling(PEER, CAPACITY, directory.path(), PLENTY);
    let client = store.client();
    let inner: Vec<Handle> = (0..3).map(|at| hold_content(&client, MIB / 2 + at)).collect();
    let inner_ids: Vec<ObjectId> = inner.iter().map(Handle::id).collect();
    let layout = Layout::new(MIB / 2 + 5).format(77).references(inner);
    let outer = put_layout(&client, layout).unwrap().handle();
    let named = hold_content(&client, MIB / 2);
    client.publish("named", named.id()).unwrap();
    let rest: Vec<Handle> = (0..32).map(|_| hold_content(&client, MIB)).collect();
    let spilled = |id| client.list().unwrap().iter().any(|info| info.object == id && info.spilled);
    assert!(spilled(outer.id()) && inner_ids.iter().all(|id| spilled(*id)) && spilled(named.id()));

    let object = outer.object().unwrap();
    assert_eq!((object.format(), object.references()), (77, inner_ids.clone()));
    assert!(is_content_of(&object, outer.id()));
    let mut peer = store.peer();
    for id in inner_ids.iter().chain([&named.id()]) {
        peer.ok(format_args!("read {id}"));
    }
    peer.ok("get-named named");
    // A deleted object is still there for clients that have it.
    let deleted = &rest[0];
    client.delete(deleted.id()).unwrap();
    assert_eq!(error_kind(client.get(deleted.id())), "Deleted");
    assert!(is_content_of(&deleted.object().unwrap(), deleted.id()));
    peer.ok("drop-all");
    client.unpublish("named").unwrap();
    drop((object, outer, named, rest));
    store.is_empty_again(&client);
}

#[test]
fn an_owner_that_dies_leaves_what_it_has_spilled_to_those_who_hold_it() {
    const CAPACITY: u64 = 32 * MIB;
    let _lock = session_lock();
    let directory = spill_directory();
    let store = Store::start_spilling(PEER, CAPACITY, directory.path(), PLENTY);
    let client = store.client();
    let (mut owner, mut reader) = (store.peer(), store.peer());
    let large = owner.ok(format_args!("put-held {} 4", 6 * MIB + 1));
    let small = owner.ok(format_args!("put-held {} 400", 20_000));
    let ids: Vec<ObjectId> = large.split(' ').chain(small.split(' ')).map(|id| id.parse().unwrap()).collect();
    reader.ok(format_args!("hold-all {large} {small}"));
    // One of them is known only through another.
    let outer = owner.id(format_args!("put-with 100000 {}", ids[0]));
    owner.ok(format_args!("drop {outer}"));
    reader.ok("stats");
    let outer = {
        let outer = owner.id(format_args!("put-with {MIB} {}", ids[0]));
        reader.ok(format_args!("hold {outer}"));
        owner.ok(format_args!("drop {outer}"));
        outer
    };
    reader.ok(format_args!("drop {}", ids[0]));
    owner.ok(format_args!("put-held {MIB} 60"));
    let listed = client.list().unwrap();
    let is_spilled = |id| listed.iter().find(|info| info.object == id).is_some_and(|info| info.spilled);
    let spilled = ids.iter().filter(|id| is_spilled(**id)).count();
    assert!(spilled > 300, "only {spilled} of {} are spilled", ids.len());
    assert!(is_spilled(outer) && is_spilled(ids[0]));
    owner.kill();
    // Read by a client that asks while the daemon is taking over, and by the client that holds them.
    assert!(is_content_of(&client.get(ids[3]).unwrap(), ids[3]));
    for id in ids.iter().rev() {
        reader.ok(format_args!("read {id}"));
        assert!(is_content_of(&client.get(*id).unwrap(), *id), "wrong bytes in {id}");
    }
    assert_eq!(client.get(outer).unwrap().references(), [ids[0]]);
    reader.ok("drop-all");
    store.is_empty_again(&client);
}

#[test]
fn what_is_spilled_outlives_the_daemon() {
    const CAPACITY: u64 = 16 * MIB;
    let _lock = session_lock();
    let directory = spill_directory();
    let mut store = Store::start_spilling(PEER, CAPACITY, directory.path(), PLENTY);
    let (mut owner, mut reader) = (store.peer(), store.peer());
    let ids = owner.ok(format_args!("put-held {} 64", MIB / 2));
    reader.ok(format_args!("hold-all {ids}"));
    let client = store.client();
    let before = client.stats().unwrap();
    assert!(before.spilled_bytes() >= CAPACITY, "{before:#?}");
    drop(client);

    store.daemon_process().kill();
    store.start_again();
    let client = store.client();
    let after = client.stats().unwrap();
    assert_eq!(after.spilled_bytes(), before.spilled_bytes());
    assert_eq!(after.totals.spill_bytes, before.totals.spill_bytes);
    for id in ids.split(' ') {
        reader.ok(format_args!("read {id}"));
        owner.ok(format_args!("read {id}"));
    }
    // And when the owner has died before, by the client that holds the object.
    owner.kill();
    eventually("the owner is dead", || client.stats().unwrap().totals.dead_clients == 1);
    // All notices for it come before the answer.
    reader.ok("stats");
    drop(client);
    store.daemon_process().kill();
    store.start_again();
    for id in ids.split(' ') {
        reader.ok(format_args!("read {id}"));
    }
    reader.ok("drop-all");
    let client = store.client();
    store.is_empty_again(&client);
}

#[test]
fn nothing_is_spilled_into_what_is_not_a_directory_of_ones_own() {
    let _lock = session_lock();
    let directory = spill_directory();
    let start = |spill: &Path| {
        let config = mobula_store::Config::new(directory.path().join("store.sock"), MIB);
        mobula_store::Server::bind(config.spill_directory(spill)).map(drop)
    };
    let real = directory.path().join("real");
    std::fs::create_dir(&real).unwrap();
    start(&real).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    for (path, expected) in [
        (link.as_path(), "symbolic link"),
        (&directory.path().join("nothing"), "No such file"),
        (Path::new("/proc/self/status"), "not a directory"),
    ] {
        let error = start(path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("spill"), "{error}");
    }
    // And nothing is left of it.
    assert_eq!(names(directory.path()).len(), 2, "{:?}", names(directory.path()));
}

/// Fills a store that cannot spill (any more), and checks that this is said, and that nothing was lost.
fn check_that_a_failing_disk_loses_nothing(store: &Store, expected: &str) {
    let options = || ConnectOptions::new().lease_timeout(Duration::from_secs(4));
    let client = store.client_with(options());
    let mut peer = store.peer();
    let mut handles = Vec::new();
    let error = loop {
        match put_content(&client, MIB / 2) {
            Ok(object) => handles.push(object.handle()),
            Err(error) => break error,
        }
        assert!(handles.len() < 10_000, "the disk takes everything");
    };
    let text = error.to_string();
    assert!(matches!(error, ClientError::Refused(Refusal::SpillFailed { .. })), "{error:?}");
    assert!(text.contains(expected) && text.contains("full"), "{text:?} does not say {expected:?}");
    println!("{text}");
    let in_memory = client.list().unwrap().into_iter().filter(|info| !info.spilled);
    let in_memory: Vec<ObjectId> = in_memory.map(|info| info.object).collect();
    assert!(!in_memory.is_empty());
    for id in in_memory {
        assert!(is_content_of(&client.get(id).unwrap(), id), "wrong bytes in {id}");
        peer.ok(format_args!("read {id}"));
    }
    // All objects that were spilled before are there, too: there is room to restore them once others are let go of.
    handles.truncate(handles.len() - 4);
    for handle in handles.drain(..) {
        verify(&client, &handle);
    }
    store.is_empty_again(&client);
}

#[test]
fn a_limit_of_bytes_is_a_clear_error_and_loses_nothing() {
    let _lock = session_lock();
    let directory = spill_directory();
    let store = Store::start_spilling(PEER, 8 * MIB, directory.path(), 16 * MIB);
    check_that_a_failing_disk_loses_nothing(&store, "spill_bytes_max");
}

#[test]
fn a_full_disk_is_a_clear_error_and_loses_nothing() {
    let _lock = session_lock();
    let directory = spill_directory();
    let store = Store::start_spilling_into_mount(PEER, 8 * MIB, directory.path(), "size=12m,mode=700");
    if let Some(store) = store {
        check_that_a_failing_disk_loses_nothing(&store, "No space left");
    }
}

/// Memory is full, nothing can go out, and everything that is held can be read all the same: by its owner and by
/// others, one after the other and all at once, and when the owner is dead.
#[test]
fn what_is_held_is_readable_when_memory_and_disk_are_full() {
    const OBJECT: u64 = 10 * MIB;
    let _lock = session_lock();
    let directory = spill_directory();
    let store = Store::start_spilling_into_mount(PEER, 64 * MIB, directory.path(), "size=30m,mode=700");
    let Some(store) = store else { return };
    // Memory is waited for as long as it may become free, which it cannot here.
    let client = store.client_with(ConnectOptions::new().lease_timeout(Duration::from_secs(1)));
    let mut owner = store.peer();
    let theirs = owner.ok(format_args!("put-held {OBJECT} 4"));
    let ids: Vec<ObjectId> = theirs.split(' ').map(|id| id.parse().unwrap()).collect();
    let mut held: Vec<Handle> = ids.iter().map(|id| client.hold(*id).unwrap()).collect();
    held.extend((0..4).map(|_| {
        // Others go out meanwhile, which takes longer than this client waits if the machine is busy.
        first_ok("there is room", || put_content(&client, OBJECT)).handle()
    }));
    assert!(client.stats().unwrap().totals.spill_bytes > 0, "nothing is in files");
    held.iter().for_each(|handle| verify(&client, handle));
    let check_all_at_once = || {
        let objects: Vec<_> = held.iter().map(|handle| handle.object().unwrap()).collect();
        for object in &objects {
            assert!(object.as_ptr().addr().is_multiple_of(64) && is_content_of(object, object.id()));
            assert!(is_content_of(&object.clone(), object.id()));
        }
    };
    check_all_at_once();
    owner.kill();
    check_all_at_once();
    held.iter().for_each(|handle| verify(&client, handle));
    drop(held);
    store.is_empty_again(&client);
}

#[test]
fn a_read_only_disk_is_a_clear_error_and_loses_nothing() {
    let _lock = session_lock();
    let directory = spill_directory();
    let store = Store::start_spilling_into_mount(PEER, 8 * MIB, directory.path(), "size=12m,mode=700,ro");
    if let Some(store) = store {
        check_that_a_failing_disk_loses_nothing(&store, "Read-only file system");
    }
}

/// Spill files of a store: they have no name, but its daemon has them open.
fn spill_files(store: &mut Store, directory: &Path) -> Vec<PathBuf> {
    let descriptors = names(Path::new(&format!("/proc/{}/fd", store.daemon_process().pid)));
    let is_spill_file = |path: &PathBuf| {
        std::fs::read_link(path)
            .is_ok_and(|to| to.starts_with(directory) && to.to_string_lossy().contains("(deleted)"))
    };
    descriptors.into_iter().filter(is_spill_file).collect()
}

#[test]
fn a_damaged_file_is_an_error_and_never_wrong_bytes() {
    use std::os::unix::fs::FileExt;
    let _lock = session_lock();
    let directory = spill_directory();
    let mut store = Store::start_spilling(PEER, 8 * MIB, directory.path(), PLENTY);
    let client = store.client();
    let (mut owner, mut reader) = (store.peer(), store.peer());
    let theirs = owner.ok(format_args!("put-held {} 12", MIB / 2));
    let theirs: Vec<&str> = theirs.split(' ').collect();
    reader.ok(format_args!("hold-all {}", theirs.join(" ")));
    let ours: Vec<Handle> = (0..24).map(|_| hold_content(&client, MIB / 2)).collect();
    owner.ok(format_args!("put-held {} 12", MIB / 2));
    let is_spilled: Vec<ObjectId> =
        client.list().unwrap().into_iter().filter(|info| info.spilled).map(|info| info.object).collect();
    assert!(theirs.iter().any(|id| is_spilled.contains(&id.parse().unwrap())));
    let files = spill_files(&mut store, directory.path());
    assert_eq!(files.len(), client.stats().unwrap().totals.spill_files as usize);
    for path in files {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 1000).unwrap();
        file.write_all_at(&[byte[0] ^ 4], 1000).unwrap();
    }
    let mut damaged = 0;
    let mut check = |result: Result<(), String>| match result {
        Ok(()) => {}
        Err(kind) => {
            assert_eq!(kind, "SpillDamaged");
            damaged += 1;
        }
    };
    for handle in &ours {
        let read = client.get(handle.id()).map(|object| assert!(is_content_of(&object, handle.id())));
        check(read.map_err(|error| mobula_tests::kind_of(&error)));
    }
    for id in &theirs {
        check(reader.ask(format_args!("read {id}")).map(drop));
    }
    owner.kill();
    for id in &theirs {
        check(reader.ask(format_args!("read {id}")).map(drop));
    }
    assert!(damaged >= 3, "only {damaged} objects were found damaged");
    drop(ours);
    reader.ok("drop-all");
    store.is_empty_again(&client);
}

/// Numbers that only this seed makes, 1 MiB of them.
#[mobula::remote]
fn numbers(seed: u64) -> Tensor<u64> {
    let numbers = (0..MIB / 8).map(|at| (seed ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    Tensor::from_shape_vec(&[MIB as usize / 8], numbers).expect("as many as the shape says")
}

#[mobula::remote]
fn is_of(numbers: Tensor<u64>, seed: u64) -> bool {
    let expected = |at: u64| (seed ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let numbers = numbers.as_slice();
    numbers.len() as u64 == MIB / 8 && (0..).zip(numbers).all(|(at, number)| *number == expected(at))
}

#[test]
fn a_session_keeps_four_times_what_its_store_can_hold() {
    const CAPACITY: u64 = 32 * MIB;
    let directory = spill_directory();
    let builder = mobula::Builder::new().workers(2).capacity_bytes(CAPACITY);
    let session = session_with(builder.spill_directory(directory.path()));
    let count = 4 * CAPACITY / MIB;
    let arrays: Vec<ObjectRef<Tensor<u64>>> = (0..count).map(numbers::remote).collect();
    // In the driver, and as an argument.
    for (seed, array) in (0..).zip(&arrays) {
        if seed % 4 == 0 {
            assert!(is_of(array.get().unwrap(), seed), "array {seed}");
        }
    }
    let stats = session.session.client().stats().unwrap();
    assert!(stats.spilled_bytes() >= 2 * CAPACITY, "{stats:#?}");
    let checked = arrays.iter().zip(0..).map(|(array, seed)| is_of::remote(array.clone(), seed));
    for (seed, is_right) in checked.collect::<Vec<_>>().into_iter().enumerate() {
        assert!(is_right.get().unwrap(), "array {seed}");
    }
    drop(arrays);
    drop(session);
    assert!(names(directory.path()).is_empty(), "{:?}", names(directory.path()));
}
