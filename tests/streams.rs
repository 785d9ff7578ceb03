//! Streams: if these fail, items of a running function come late, twice or never, a function that nobody listens to
//! goes on, or a long stream fills the memory.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use mobula::value::Bytes;
use mobula::{Error, Failure, ObjectRef, TaskErrorKind, TaskOptions};
use mobula_tests::{eventually, is_running, session};

/// The lengths of items that are in a record, and that are not.
const SHORT: usize = 16;
const LONG: usize = 8192;
/// Items of a long stream in an ordinary run, and those after which memory must not grow any more.
const ITEMS: u64 = 200_000;
const FIRST: u64 = 20_000;
/// After how many items the memory is looked at.
const EACH: u64 = 1000;
/// How much more memory a part of the session may have in the end, for everything else than the stream.
const MORE_BYTES: u64 = 4 << 20;

/// Leaves a file of its number with each item that is made.
fn made(directory: &Path) -> u64 {
    std::fs::read_to_string(directory.join("made")).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn note_made(directory: &Path, count: u64) {
    let next = directory.join("next");
    std::fs::write(&next, count.to_string()).unwrap();
    std::fs::rename(next, directory.join("made")).unwrap();
}

#[mobula::remote(streaming)]
fn numbers(count: u64) -> impl Iterator<Item = u64> {
    0..count
}

/// The second item waits for a file.
#[mobula::remote(streaming)]
fn gated(gate: PathBuf) -> impl Iterator<Item = u64> {
    (0..2).inspect(move |number| {
        while *number > 0 && !gate.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

#[mobula::remote(streaming, max_in_flight = 4)]
fn counted(directory: PathBuf) -> impl Iterator<Item = u64> {
    (0..).inspect(move |number| note_made(&directory, number + 1))
}

#[mobula::remote(streaming)]
fn fails_at(position: u64) -> impl Iterator<Item = Result<u64, String>> {
    (0..10).map(move |number| if number == position { Err("no".to_owned()) } else { Ok(number) })
}

#[mobula::remote(streaming)]
fn panics_at(position: u64) -> Box<dyn Iterator<Item = u64>> {
    Box::new((0..10).inspect(move |number| assert_ne!(*number, position, "enough")))
}

/// Its process dies in front of the item, if it does so for the first time.
#[mobula::remote(streaming, max_in_flight = 3)]
fn dies_at(position: u64, marker: PathBuf) -> impl Iterator<Item = u64> {
    (0..10).inspect(move |number| {
        if *number == position && !marker.exists() {
            std::fs::write(&marker, "").unwrap();
            std::process::abort();
        }
    })
}

/// The process, and then items that have their numbers in front. Each hundredth is too long for a record.
#[mobula::remote(streaming)]
fn short_and_long(count: u64) -> impl Iterator<Item = Bytes> {
    let item = |number: u64| {
        let mut item = number.to_le_bytes().to_vec();
        item.resize(if number.is_multiple_of(100) { LONG } else { SHORT }, number as u8);
        Bytes::from(item)
    };
    std::iter::once(Bytes::from(std::process::id().to_le_bytes().to_vec())).chain((0..count).map(item))
}

/// Notes whether it was cancelled when its iterator is dropped.
#[mobula::remote(streaming, max_in_flight = 2)]
fn notes_its_end(directory: PathBuf) -> impl Iterator<Item = u64> {
    struct Noted(PathBuf, u64);
    impl Iterator for Noted {
        type Item = u64;
        fn next(&mut self) -> Option<u64> {
            self.1 += 1;
            note_made(&self.0, self.1);
            Some(self.1)
        }
    }
    impl Drop for Noted {
        fn drop(&mut self) {
            std::fs::write(self.0.join("cancelled"), mobula::is_cancelled().to_string()).unwrap();
        }
    }
    Noted(directory, 0)
}

#[mobula::remote(streaming, max_in_flight = 4)]
fn large(count: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|number| vec![number as u8; 1 << 20])
}

#[mobula::remote(streaming)]
fn list(count: u64) -> Vec<u64> {
    (0..count).collect()
}

#[mobula::remote(num_returns = dynamic)]
fn parts(count: u64) -> Result<Vec<u64>, String> {
    if count == 13 { Err("no".to_owned()) } else { Ok((0..count).collect()) }
}

struct Counter(u64);

#[mobula::remote]
impl Counter {
    fn new() -> Self {
        Self(0)
    }

    #[remote(streaming, max_in_flight = 2)]
    fn next_numbers(&mut self, count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|_| {
            self.0 += 1;
            self.0
        })
    }

    #[remote(streaming)]
    fn dies(&self) -> impl Iterator<Item = u64> {
        (0..).inspect(|number| {
            if *number == 3 {
                std::process::abort();
            }
        })
    }
}

#[mobula::remote]
fn double(x: u64) -> u64 {
    2 * x
}

/// Takes a stream in a worker.
#[mobula::remote]
fn sums(count: u64) -> mobula::Result<u64> {
    numbers::remote(count).map(|number| number.get()).sum()
}

fn values<T: serde::de::DeserializeOwned>(stream: impl Iterator<Item = ObjectRef<T>>) -> Vec<T> {
    stream.map(|item| item.get().unwrap()).collect()
}

#[test]
fn an_item_can_be_used_while_the_function_runs() {
    let session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let mut stream = gated::remote(gate.clone());
    let completed = stream.completed();
    let first = stream.next().unwrap();
    assert_eq!(double::remote(&first).get().unwrap(), 0);
    assert!(!completed.is_ready(), "the function has still to make an item");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(values(&mut stream), [1]);
    assert!(stream.next().is_none() && stream.next().is_none());
    completed.get().unwrap();
    drop(session);
}

#[test]
fn streams_of_any_length_come_whole_and_in_order() {
    let session = session(2);
    for count in [0, 1, 2, 127, 128, 129, 5000] {
        assert!(values(numbers::remote(count)).into_iter().eq(0..count), "{count}");
        assert!(values(list::remote(count)).into_iter().eq(0..count), "{count}");
        for max_in_flight in [0, 1, 2, 3, mobula::UNLIMITED] {
            let stream = numbers::max_in_flight(max_in_flight).remote(count.min(300));
            assert!(values(stream).into_iter().eq(0..count.min(300)), "{count} with {max_in_flight}");
        }
    }
    drop(session);
}

#[test]
fn the_function_is_never_more_than_max_in_flight_ahead() {
    let session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let mut stream = counted::remote(directory.path().to_owned());
    for taken in 0..200 {
        let is_ahead = || made(directory.path()) > taken;
        eventually("the function is ahead", is_ahead);
        let count = made(directory.path());
        assert!(count <= taken + 4, "{count} made, {taken} taken");
        assert_eq!(stream.next().unwrap().get().unwrap(), taken);
    }
    // It waits, and its place is free for another call.
    assert_eq!(double::remote(4).get().unwrap(), 8);
    drop(stream);
    drop(session);
}

#[test]
fn an_error_is_the_last_item() {
    let session = session(1);
    for position in [0, 1, 7] {
        let mut failing = fails_at::remote(position);
        let mut panicking = panics_at::remote(position);
        for number in 0..position {
            assert_eq!(failing.next().unwrap().get().unwrap(), number);
            assert_eq!(panicking.next().unwrap().get().unwrap(), number);
        }
        for (stream, kind) in [
            (&mut failing as &mut dyn Iterator<Item = ObjectRef<u64>>, TaskErrorKind::Returned),
            (&mut panicking, TaskErrorKind::Panicked),
        ] {
            match stream.next().unwrap().get() {
                Err(Error::Task(error)) => assert_eq!(error.kind, kind),
                other => panic!("{other:?}"),
            }
            assert!(stream.next().is_none());
        }
    }
    drop(session);
}

#[test]
fn the_death_of_the_worker_is_the_last_item() {
    let session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let mut stream = dies_at::remote(5, directory.path().join("marker"));
    for number in 0..5 {
        assert_eq!(stream.next().unwrap().get().unwrap(), number);
    }
    let error = stream.next().unwrap().get().unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::WorkerDied { .. })), "{error}");
    assert!(stream.next().is_none());
    drop(session);
}

#[test]
fn a_retried_stream_goes_on_behind_what_has_come() {
    let session = session(1);
    for position in [0, 1, 5, 9] {
        let directory = tempfile::tempdir().unwrap();
        let options = TaskOptions::new().max_retries(1);
        let stream = dies_at::options(options).remote(position, directory.path().join("marker"));
        assert!(values(stream).into_iter().eq(0..10), "{position}");
    }
    drop(session);
}

#[test]
fn a_dropped_stream_ends_its_function() {
    let session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let mut stream = notes_its_end::remote(directory.path().to_owned());
    let first = stream.next().unwrap();
    eventually("the function waits", || made(directory.path()) >= 2);
    drop(stream);
    eventually("the function has ended", || directory.path().join("cancelled").exists());
    let is_cancelled = || std::fs::read_to_string(directory.path().join("cancelled")).unwrap();
    eventually("it has noted how", || !is_cancelled().is_empty());
    assert_eq!(is_cancelled(), "true");
    let count = made(directory.path());
    assert!(count <= 3, "{count} items made");
    assert_eq!(first.get().unwrap(), 1);
    assert_eq!(double::remote(4).get().unwrap(), 8);
    assert_eq!(made(directory.path()), count);
    drop(session);
}

#[test]
fn a_cancelled_stream_ends_with_that_error() {
    let session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let mut stream = notes_its_end::remote(directory.path().to_owned());
    assert_eq!(stream.next().unwrap().get().unwrap(), 1);
    stream.cancel().unwrap();
    let error = stream.by_ref().last().unwrap().get().unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::TaskCancelled { .. })), "{error}");
    assert!(stream.next().is_none());
    eventually("the function has ended", || directory.path().join("cancelled").exists());
    drop(session);
}

#[test]
fn large_items_are_freed_as_they_are_taken() {
    let session = session(1);
    let (before, mut most) = (session.session.client().stats().unwrap().objects(), 0);
    for (number, item) in large::remote(100).enumerate() {
        let value = item.get().unwrap();
        assert!(value.len() == 1 << 20 && value.iter().all(|byte| *byte == number as u8));
        most = most.max(session.session.client().stats().unwrap().objects());
    }
    assert!(most <= before + 64, "{most} objects after {before}");
    drop(session);
}

/// `MOBULA_ITEMS` makes it longer.
#[test]
fn a_long_stream_needs_no_more_memory_than_a_short_one() {
    let session = session(1);
    let items = std::env::var("MOBULA_ITEMS").map_or(100_000, |items| items.parse().unwrap());
    let mut sum = 0;
    let mut before = 0;
    for (number, item) in (0..).zip(numbers::remote(items)) {
        sum += item.get().unwrap();
        if number == 10_000 {
            before = resident_kib();
        }
    }
    assert_eq!(sum, (0..items).sum::<u64>());
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more after {items} items than after 10,000");
    drop(session);
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_stream_is_taken_in_a_task() {
    let session = session(1);
    assert_eq!(sums::remote(1000).get().unwrap(), 499_500);
    drop(session);
}

#[test]
fn a_method_of_an_actor_makes_a_stream() {
    let session = session(1);
    let counter = Counter::remote();
    assert!(values(counter.next_numbers(100)).into_iter().eq(1..=100));
    let mut dropped = counter.next_numbers(1_000_000);
    assert_eq!(dropped.next().unwrap().get().unwrap(), 101);
    drop(dropped);
    let next = values(counter.next_numbers(1))[0];
    assert!((102..=104).contains(&next), "{next}");
    let mut dying = counter.dies();
    assert_eq!(values(dying.by_ref().take(3)), [0, 1, 2]);
    let error = dying.next().unwrap().get().unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::ActorDied { .. })), "{error}");
    assert!(dying.next().is_none());
    drop(session);
}

#[test]
fn a_list_of_any_length_is_a_list_of_references() {
    let session = session(1);
    for count in [0, 1, 100] {
        let list: Vec<ObjectRef<u64>> = parts::remote(count).get().unwrap();
        assert!(values(list.into_iter()).into_iter().eq(0..count), "{count}");
    }
    assert!(parts::remote(13).get().is_err());
    drop(session);
}

#[test]
fn a_stream_is_awaited_under_any_executor() {
    let session = session(2);
    let check = async || {
        let mut stream = numbers::remote(1000);
        for number in 0..500 {
            assert_eq!(stream.next_async().await.unwrap().await.unwrap(), number);
        }
        for number in 500..1000 {
            let next = std::future::poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await;
            assert_eq!(next.unwrap().await.unwrap(), number);
        }
        assert!(stream.next_async().await.is_none());
        let mut failing = fails_at::remote(0);
        assert!(failing.next_async().await.unwrap().await.is_err());
        assert!(failing.next_async().await.is_none());
    };
    pollster::block_on(check());
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(check());
    drop(session);
}

/// The memory of a process that is its own, in bytes.
fn private_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the system says so");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
}

/// `MOBULA_ITEMS` sets the number of items.
#[test]
fn a_stream_of_any_length_takes_no_more_memory_than_its_first_items() {
    let session = session(1);
    let count = std::env::var("MOBULA_ITEMS").map_or(ITEMS, |count| count.parse().expect("a number"));
    let mut stream = short_and_long::remote(count);
    let pid = stream.next().expect("it begins with it").get().unwrap();
    let worker = u32::from_le_bytes(pid[..].try_into().unwrap());
    // The memory of this process, of the worker, and of the store, and the objects in it.
    let used = || {
        let stats = session.session.client().stats().expect("the store counts");
        let objects = stats.clients.iter().map(|client| client.object_bytes).sum();
        let store = stats.totals.capacity_bytes - stats.totals.free_bytes;
        [private_bytes(std::process::id()), private_bytes(worker), store, objects]
    };
    let (mut first, mut most) = ([0; 4], [0; 4]);
    let mut next = 0u64;
    for item in stream {
        let item = item.get().unwrap();
        let length = if next.is_multiple_of(100) { LONG } else { SHORT };
        assert_eq!((&item[..8], item.len()), (&next.to_le_bytes()[..], length), "item {next}");
        assert_eq!(item[length - 1], if length > 8 { next as u8 } else { item[7] });
        next += 1;
        if next.is_multiple_of(EACH) {
            let now = used();
            most = std::array::from_fn(|of| now[of].max(most[of]));
            if next <= FIRST {
                first = most;
            }
        }
    }
    assert_eq!(next, count);
    println!("{count} items: bytes after {FIRST}: {first:?}, most: {most:?}");
    // If each item left as little as 32 bytes, it would be more.
    for (first, most) in first.iter().zip(most) {
        assert!(most <= first + MORE_BYTES, "{first} bytes first, then {most}");
    }
}

/// Sends items for ever, also when nobody wants any. Registered by hand: a function of `#[remote]` ends then.
fn flood(arguments: &mut mobula::__private::Arguments<'_, '_>) -> mobula::__private::Outcome {
    loop {
        mobula::__private::streamed(arguments.wanted(), [std::process::id()])?;
    }
}

#[mobula::__private::linkme::distributed_slice(mobula::__private::FUNCTIONS)]
#[linkme(crate = mobula::__private::linkme)]
static FLOOD: mobula::__private::Function = mobula::__private::Function::new("flood", flood);

#[test]
fn a_worker_that_sends_more_items_than_may_be_in_flight_is_ended() {
    let _session = session(1);
    let mut stream: mobula::ObjectRefStream<u32> =
        FLOOD.call_streaming(TaskOptions::new(), mobula::__private::ArgumentList::default(), 4);
    let pid = stream.next().unwrap().get().unwrap();
    // It waits until an item is taken. From now on it waits no more, and goes on sending.
    stream.cancel().unwrap();
    eventually("its process has ended", || !is_running(pid));
    let items: Vec<_> = stream.map(|item| item.get()).collect();
    // As many as may be in flight, and the error behind them.
    assert!(items.len() <= 4 + 1 && matches!(items.last(), Some(Err(Error::Failed(_)))), "{items:?}");
    let numbers: Vec<u64> = numbers::remote(3).map(|item| item.get().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2], "the session goes on");
}
