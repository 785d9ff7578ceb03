//! `mobula::util::Queue`: if these fail, items are lost or come twice when processes die or give up, a full queue takes
//! more items, a wait does not end, or large values are copied through the queue's process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula::prelude::*;
use mobula::util::{GetError, PutError, Queue};
use mobula::value::{Bytes, BytesMut};
use mobula::{ActorOptions, Error, Failure, TaskOptions};
use mobula_tests::{PATIENCE, Random, eventually, session};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SHORT: Duration = Duration::from_millis(20);

#[mobula::remote]
fn produce(queue: Queue<u64>, numbers: std::ops::Range<u64>, batch: usize) -> Result<()> {
    let numbers: Vec<u64> = numbers.collect();
    for part in numbers.chunks(batch) {
        match part {
            [one] => queue.put(*one)?,
            many => queue.put_many(many.to_vec())?,
        }
    }
    Ok(())
}

#[mobula::remote]
fn consume(queue: Queue<u64>, batch: usize) -> Result<Vec<u64>> {
    if batch == 1 {
        return queue.iter().collect();
    }
    let mut all = Vec::new();
    loop {
        match queue.get_many(batch) {
            Ok(items) => all.extend(items),
            Err(GetError::Closed) => return Ok(all),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Says which process it is, and waits for an item.
#[mobula::remote(max_retries = 0)]
fn get_one(queue: Queue<u64>, place: PathBuf) -> Result<u64> {
    write_pid(&place);
    Ok(queue.get()?)
}

#[mobula::remote(max_retries = 0)]
fn put_one(queue: Queue<u64>, item: u64, place: PathBuf) -> Result<()> {
    write_pid(&place);
    Ok(queue.put(item)?)
}

#[mobula::remote]
fn length(queue: Queue<Bytes>) -> Result<(usize, bool)> {
    let bytes = queue.get()?;
    Ok((bytes.len(), bytes.object_id().is_some()))
}

fn write_pid(place: &Path) {
    let whole = place.with_extension("new");
    std::fs::write(&whole, std::process::id().to_string()).expect("the directory is there");
    std::fs::rename(whole, place).expect("the directory is there");
}

fn pid_in(place: &Path) -> Pid {
    eventually("the process says which it is", || place.exists());
    Pid::from_raw(std::fs::read_to_string(place).unwrap().parse().unwrap())
}

/// Waits until the process sleeps in its wait for the queue.
fn until_asleep(pid: Pid) {
    eventually("the process waits", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tS"))
    });
}

#[test]
fn every_item_comes_out_once() {
    let _session = session(4);
    for (maxsize, put_batch, get_batch) in [(0, 1, 1), (3, 1, 1), (5, 7, 3), (0, 50, 20)] {
        let queue = Queue::new(maxsize);
        let producers: Vec<_> =
            (0..2).map(|n| produce::remote(queue.clone(), n * 500..(n + 1) * 500, put_batch)).collect();
        let consumers: Vec<_> = (0..2).map(|_| consume::remote(queue.clone(), get_batch)).collect();
        mobula::get(producers).unwrap();
        queue.close().unwrap();
        let parts = mobula::get(consumers).unwrap();
        for part in &parts {
            // One consumer gets the items of one producer in their order.
            for producer in 0..2 {
                assert!(part.iter().filter(|item| *item / 500 == producer).is_sorted());
            }
        }
        let mut all = parts.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000), "maxsize {maxsize}, batches of {put_batch} and {get_batch}");
    }
}

#[test]
fn a_full_queue_gives_the_value_back() {
    let _session = session(1);
    let queue = Queue::new(2);
    queue.put("a".to_owned()).unwrap();
    queue.put_nowait("b".to_owned()).unwrap();
    assert!(queue.full().unwrap());
    let Err(PutError::Full(item)) = queue.put_nowait("c".to_owned()) else { panic!("it is full") };
    let Err(PutError::Full(item)) = queue.put_timeout(item, SHORT) else { panic!("it is full") };
    let Err(PutError::Full(items)) = queue.put_nowait_batch(vec![item]) else { panic!("it is full") };
    assert_eq!(items, ["c"]);
    // An item whose put was given up is not put later.
    assert_eq!(queue.get().unwrap(), "a");
    assert_eq!(queue.size().unwrap(), 1);
    let rest = queue.put_many_timeout(vec!["d".to_owned(), "e".to_owned()], SHORT);
    let Err(PutError::Full(rest)) = rest else { panic!("there is room for one") };
    assert_eq!(rest, ["e"]);
    assert_eq!(queue.get_many(9).unwrap(), ["b", "d"]);
    assert!(queue.empty().unwrap());
}

#[test]
fn an_empty_queue_says_so() {
    let _session = session(1);
    let queue = Queue::<u64>::new(0);
    assert!(matches!(queue.get_nowait(), Err(GetError::Empty)));
    assert!(matches!(queue.get_timeout(SHORT), Err(GetError::Empty)));
    assert!(matches!(queue.get_many_timeout(3, SHORT), Err(GetError::Empty)));
    queue.put(1).unwrap();
    assert!(matches!(queue.get_nowait_batch(2), Err(GetError::Empty)));
    assert_eq!(queue.get_nowait_batch(1).unwrap(), [1]);
    // A get that was given up takes nothing.
    queue.put(2).unwrap();
    assert_eq!(queue.get().unwrap(), 2);
    queue.close().unwrap();
    assert!(matches!(queue.get_timeout(SHORT), Err(GetError::Closed)));
    assert!(matches!(queue.put(3), Err(PutError::Closed(3))));
}

#[test]
fn futures_wait_and_can_be_dropped() {
    let _session = session(1);
    let queue = Queue::new(1);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        assert!(tokio::time::timeout(SHORT, queue.get_async()).await.is_err());
        queue.put_async(1).await.unwrap();
        assert!(tokio::time::timeout(SHORT, queue.put_async(2)).await.is_err());
        let other = queue.clone();
        let putter = tokio::spawn(async move { other.put_async(3).await.unwrap() });
        assert_eq!(queue.get_async().await.unwrap(), 1);
        assert_eq!(queue.get_async().await.unwrap(), 3);
        putter.await.unwrap();
    });
    assert!(queue.empty().unwrap());
}

#[test]
fn an_item_on_its_way_to_a_consumer_that_dies_goes_to_another() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    for round in 0..5 {
        let queue = Queue::new(0);
        let place = directory.path().join(round.to_string());
        let doomed = get_one::remote(queue.clone(), place.clone());
        let pid = pid_in(&place);
        until_asleep(pid);
        // Stopped in its wait: the items are given to it, and it cannot take them.
        kill(pid, Signal::SIGSTOP).unwrap();
        queue.put_many(vec![1, 2]).unwrap();
        kill(pid, Signal::SIGKILL).unwrap();
        let mut items = vec![queue.get_timeout(PATIENCE).unwrap(), queue.get_timeout(PATIENCE).unwrap()];
        items.sort_unstable();
        assert_eq!(items, [1, 2]);
        assert!(doomed.get().is_err());
    }
}

#[test]
fn kills_at_random_times_lose_no_item_of_the_living() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(3);
    let queue = Queue::new(4);
    let seed = std::env::var("MOBULA_SEED").map_or(11, |seed| seed.parse().expect("MOBULA_SEED is a number"));
    println!("MOBULA_SEED={seed}");
    let mut random = Random::from_seed(seed);
    let producer = produce::remote(queue.clone(), 0..300, 1);
    let mut got = Vec::new();
    let mut deaths = 0;
    for round in 0..15 {
        let place = directory.path().join(round.to_string());
        let doomed = get_one::remote(queue.clone(), place.clone());
        let pid = pid_in(&place);
        let pause = random.below(300);
        std::thread::sleep(Duration::from_micros(pause));
        // The consumer may have its item already, and be a worker for another call.
        let _ = kill(pid, Signal::SIGKILL);
        match doomed.get() {
            Ok(item) => got.push(item),
            // It may have died with an item that its get had returned.
            Err(_) => deaths += 1,
        }
        got.push(queue.get_timeout(PATIENCE).unwrap());
    }
    while got.len() + deaths < 300 || !producer.is_ready() {
        match queue.get_timeout(Duration::from_secs(1)) {
            Ok(item) => got.push(item),
            Err(GetError::Empty) if producer.is_ready() => break,
            Err(GetError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
    }
    producer.get().unwrap();
    while let Ok(item) = queue.get_nowait() {
        got.push(item);
    }
    got.sort_unstable();
    assert!(got.is_sorted_by(|a, b| a < b), "no item comes twice");
    assert!(got.len() + deaths >= 300, "{} items, {deaths} deaths", got.len());
}

#[test]
fn a_producer_that_dies_while_it_waits_takes_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let queue = Queue::new(1);
    queue.put(1).unwrap();
    let place = directory.path().join("producer");
    let doomed = put_one::remote(queue.clone(), 2, place.clone());
    let pid = pid_in(&place);
    until_asleep(pid);
    kill(pid, Signal::SIGKILL).unwrap();
    assert!(doomed.get().is_err());
    // Items of a producer that is dead now stay.
    let other = directory.path().join("other");
    let putter = put_one::remote(queue.clone(), 3, other.clone());
    let pid = pid_in(&other);
    assert_eq!(queue.get().unwrap(), 1);
    putter.get().unwrap();
    let _ = kill(pid, Signal::SIGKILL);
    let mut rest = Vec::new();
    eventually("the last item comes", || {
        rest.extend(queue.get_timeout(SHORT));
        rest.last() == Some(&3)
    });
    // The put of the producer that died may have been accepted before the queue heard of its death.
    assert!(rest == [3] || rest == [2, 3], "{rest:?}");
}

#[test]
fn large_values_stay_where_they_are() {
    let _session = session(2);
    let queue = Queue::new(0);
    let mut made = BytesMut::create(8 << 20).unwrap();
    made[..3].copy_from_slice(b"abc");
    let made = made.seal();
    queue.put(made.clone()).unwrap();
    let back = queue.get().unwrap();
    assert_eq!(back.object_id(), made.object_id());
    assert_eq!(&back[..3], b"abc");
    // Bytes of the heap go into the store once.
    queue.put(Bytes::from(vec![7; 1 << 20])).unwrap();
    assert_eq!(length::remote(queue.clone()).get().unwrap(), (1 << 20, true));
}

#[test]
fn references_and_handles_are_items() {
    let _session = session(2);
    let queue = Queue::new(0);
    let inner = Queue::new(0);
    queue.put((mobula::put(&7_u64).unwrap(), inner.clone())).unwrap();
    let (seven, other): (ObjectRef<u64>, Queue<u64>) = queue.get().unwrap();
    assert_eq!(seven.get().unwrap(), 7);
    other.put(8).unwrap();
    assert_eq!(inner.get().unwrap(), 8);
    assert_eq!(other, inner);
}

#[test]
fn an_item_of_another_type_is_an_error() {
    let _session = session(1);
    let words = Queue::with_options(0, ActorOptions::new().name("words"));
    words.put("one".to_owned()).unwrap();
    let numbers = Queue::<u64>::named("words").unwrap();
    assert!(matches!(numbers.get(), Err(GetError::Failed(Error::Value(_)))));
    assert!(matches!(Queue::<u64>::named("verbs"), Err(Error::NoSuchActor { .. })));
}

#[test]
fn calls_of_a_queue_that_ends_fail() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let queue = Queue::new(1);
    let place = directory.path().join("waits");
    let waiting = get_one::options(TaskOptions::new().max_retries(0)).remote(queue.clone(), place.clone());
    pid_in(&place);
    queue.shutdown(true, Duration::ZERO).unwrap();
    assert!(matches!(waiting.get(), Err(Error::Failed(Failure::ActorDied { .. }) | Error::Task(_))));
    let Err(PutError::Failed { item: 5, error }) = queue.put(5) else { panic!("it has ended") };
    assert!(matches!(*error, Error::Failed(Failure::ActorDied { .. })), "{error}");
    assert!(matches!(queue.get_nowait(), Err(GetError::Failed(_))));
}
