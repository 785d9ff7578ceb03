//! The cost of objects: put, create and seal, get, clone, hold, and look up by name, from 8 bytes to 64 MiB; and their
//! cost beside many readers and many other objects.
//!
//! `cargo bench -p mobula-benches --bench objects`; with `-- --test` each runs once, to check that it works.
//!
//! The store runs in a thread of this process, and two clients talk to it: the owner puts, the reader gets. On the hot
//! path the daemon has no part, so it makes no difference that it is not a process of its own; a name lookup is a round
//! trip to its thread.

use std::hint::black_box;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use mobula_client::{Client, ConnectOptions, Layout, Object};
use mobula_store::{Config, RunError, Server, Stopper};
use tempfile::TempDir;

const CAPACITY_BYTES: u64 = 512 << 20;
const SIZES: [(&str, usize); 5] =
    [("8 B", 8), ("1 KiB", 1 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("64 MiB", 64 << 20)];
/// Objects of one batch, made before it is measured and freed after it.
const BATCH: u64 = 1000;
/// Objects of which a program has a handle each.
const HANDLES: u64 = 10_000;
/// Clients that have read of the owner, and stay.
const READERS: usize = 64;
/// Objects that are alive beside those that are measured.
const LIVE: usize = 1_000_000;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(50)
        .configure_from_args();
    let store = Store::start();
    put(&mut criterion, &store.client("owner"));
    create_and_seal(&mut criterion, &store.client("owner"));
    get(&mut criterion, &store.client("owner"), &store.client("reader"));
    uses(&mut criterion, &store.client("owner"), &store.client("reader"));
    crowded(&mut criterion, &store);
    look_up(&mut criterion, &store.client("owner"), &store.client("reader"));
    criterion.final_summary();
}

/// Put, check and drop: the memory that one object leaves is the next one's, as in a program that runs for long.
fn put(criterion: &mut Criterion, owner: &Client) {
    let mut group = criterion.benchmark_group("put");
    for (name, bytes) in SIZES {
        let value = pattern(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let object = owner.put(&value).expect("the store has room");
                check_ends(&object, &value);
            });
        });
        let object = owner.put(&value).expect("the store has room");
        assert!(object[..] == value[..], "{name}: the bytes are not those that were put");
    }
    group.finish();
}

/// The rest of a put when its producer writes the bytes in place.
fn create_and_seal(criterion: &mut Criterion, owner: &Client) {
    let mut group = criterion.benchmark_group("create and seal");
    for (name, bytes) in SIZES {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let layout = Layout::new(bytes as u64);
                let object = owner.create(layout).expect("the store has room").seal();
                assert_eq!(black_box(object).len(), bytes);
            });
        });
    }
    group.finish();
}

/// Get in another client than the one that put. It is attached to the owner, and has the segment mapped: both happen
/// once.
fn get(criterion: &mut Criterion, owner: &Client, reader: &Client) {
    let mut group = criterion.benchmark_group("get");
    for (name, bytes) in [SIZES[0], SIZES[3]] {
        let value = pattern(bytes);
        let object = owner.put(&value).expect("the store has room");
        let held = reader.get(object.id()).expect("it is sealed");
        assert!(held[..] == value[..], "{name}: the bytes are not those that were put");
        group.bench_function(BenchmarkId::new("again while held", name), |bencher| {
            bencher.iter(|| {
                let again = reader.get(black_box(object.id())).expect("it is held");
                check_ends(&again, &value);
            });
        });
        group.bench_function(BenchmarkId::new("again after the last was dropped", name), |bencher| {
            // The first get pins the object, the drop takes the pin back.
            let object = owner.put(&value).expect("the store has room");
            bencher.iter(|| {
                let again = reader.get(black_box(object.id())).expect("its owner holds it");
                check_ends(&again, &value);
            });
        });
        group.bench_function(BenchmarkId::new("fresh", name), |bencher| {
            let batch = BATCH.min(CAPACITY_BYTES / 8 / bytes as u64);
            bencher.iter_batched(
                || owner.put(&value).expect("the store has room"),
                |object| {
                    let fresh = reader.get(object.id()).expect("it is sealed");
                    check_ends(&fresh, &value);
                    (fresh, object)
                },
                BatchSize::NumIterations(batch),
            );
        });
    }
    group.finish();
}

/// Operations on an object that one has; every figure includes the drop.
fn uses(criterion: &mut Criterion, owner: &Client, reader: &Client) {
    let object = owner.put(&pattern(1000)).expect("the store has room");
    let mut group = criterion.benchmark_group("use");
    for (whose, object) in
        [("own", object.clone()), ("another's", reader.get(object.id()).expect("it is sealed"))]
    {
        group.bench_function(BenchmarkId::new("clone an object", whose), |bencher| {
            bencher.iter(|| assert_eq!(black_box(object.clone()).len(), 1000));
        });
        let handle = object.handle();
        group.bench_function(BenchmarkId::new("clone a handle", whose), |bencher| {
            bencher.iter(|| assert_eq!(black_box(handle.clone()).id(), handle.id()));
        });
        group.bench_function(BenchmarkId::new("bytes of a handle", whose), |bencher| {
            bencher.iter(|| assert_eq!(black_box(handle.object().expect("it is sealed")).len(), 1000));
        });
    }
    let objects: Vec<_> = (0..HANDLES).map(|_| owner.put(b"held").expect("the store has room")).collect();
    for (whose, client) in [("own", owner), ("another's", reader)] {
        group.throughput(Throughput::Elements(HANDLES));
        group.bench_function(BenchmarkId::new("hold 10,000", whose), |bencher| {
            bencher.iter(|| {
                let hold = |object: &Object| client.hold(object.id()).expect("its owner has it");
                let handles: Vec<_> = objects.iter().map(hold).collect();
                assert_eq!(handles.len(), objects.len());
            });
        });
    }
    group.finish();
}

/// The same put and get where the owner has many readers, and then where it has many objects.
fn crowded(criterion: &mut Criterion, store: &Store) {
    let (owner, reader) = (store.client("owner"), store.client("reader"));
    let object = owner.put(b"known to all").expect("the store has room");
    let mut group = criterion.benchmark_group("crowded");
    let mut measure = |beside: &str| {
        group.bench_function(BenchmarkId::new("put", beside), |bencher| {
            bencher.iter(|| check_ends(&owner.put(b"8 bytes.").expect("the store has room"), b"8 bytes."));
        });
        group.bench_function(BenchmarkId::new("get", beside), |bencher| {
            bencher.iter(|| check_ends(&reader.get(object.id()).expect("its owner has it"), b"known to all"));
        });
    };
    measure("1 reader");
    let readers: Vec<_> = (0..READERS).map(|_| store.client("another reader")).collect();
    let read: Vec<_> = readers.iter().map(|reader| reader.get(object.id()).expect("it is sealed")).collect();
    // An owner frees nothing before it has heard of all its readers.
    let last = owner.put(b"to be freed").expect("the store has room").id();
    while owner.contains(last).expect("the store answers") {
        owner.release_unused();
    }
    measure("64 readers");
    drop((read, readers));
    let live: Vec<_> = (0..LIVE).map(|_| owner.put(b"alive").expect("the store has room").handle()).collect();
    measure("1,000,000 objects");
    assert_eq!(owner.live_objects(), live.len() as u64 + 1);
    drop(live);
    group.finish();
}

/// A round trip to the daemon.
fn look_up(criterion: &mut Criterion, owner: &Client, reader: &Client) {
    let object = owner.put(b"named").expect("the store has room");
    owner.publish("the name", object.id()).expect("the name is free");
    let mut group = criterion.benchmark_group("name");
    group.bench_function("look up", |bencher| {
        bencher.iter(|| {
            let found = reader.lookup("the name").expect("the store answers");
            assert_eq!(found, Some(object.id()));
        });
    });
    group.bench_function("look up and get", |bencher| {
        bencher.iter(|| {
            let found = reader.get_named("the name", Duration::ZERO).expect("it is published");
            assert_eq!(&found[..], b"named");
        });
    });
    group.finish();
}

/// Bytes of which no two neighbours, and no two pages, are the same.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 ^ (at >> 12) as u8).collect()
}

/// A check that costs nothing: the last put wrote these bytes.
#[inline]
fn check_ends(object: &Object, value: &[u8]) {
    assert_eq!(object.len(), value.len());
    assert_eq!((object.first(), object.last()), (value.first(), value.last()));
}

/// A store in a thread, and the directory of its socket; both end when this is dropped.
struct Store {
    socket: PathBuf,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), RunError>>>,
    _directory: TempDir,
}

impl Store {
    fn start() -> Self {
        let directory = TempDir::new().expect("a directory for the socket");
        let socket = directory.path().join("store.sock");
        let server = Server::bind(Config::new(&socket, CAPACITY_BYTES)).expect("the store starts");
        let stopper = server.stopper();
        let thread = Some(std::thread::spawn(move || server.run()));
        Self { socket, stopper, thread, _directory: directory }
    }

    fn client(&self, label: &str) -> Client {
        ConnectOptions::new().label(label).connect(&self.socket).expect("the store takes clients")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join().expect("the store does not panic");
            ended.expect("the store runs until it is stopped");
        }
    }
}
