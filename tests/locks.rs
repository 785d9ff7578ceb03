//! `mobula::util`'s locks: if these fail, two processes write at a time, a permit is lost with a process that dies, a
//! wait does not end, or a shared value is made twice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula::prelude::*;
use mobula::util::{self, Barrier, BarrierError, RwLock, Semaphore, Signal};
use mobula::{ActorOptions, TaskOptions};
use mobula_tests::{PATIENCE, Random, eventually, session};
use nix::sys::signal::{Signal as Kill, kill};
use nix::unistd::Pid;

const SHORT: Duration = Duration::from_millis(20);

fn write_pid(place: &Path) {
    let whole = place.with_extension("new");
    std::fs::write(&whole, std::process::id().to_string()).expect("the directory is there");
    std::fs::rename(whole, place).expect("the directory is there");
}

fn pid_in(place: &Path) -> Pid {
    eventually("the process says which it is", || place.exists());
    Pid::from_raw(std::fs::read_to_string(place).unwrap().parse().unwrap())
}

fn until_asleep(pid: Pid) {
    eventually("the process waits", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:\tS"))
    });
}

fn once() -> TaskOptions {
    TaskOptions::new().max_retries(0)
}

/// Has a permit until it is killed.
#[mobula::remote]
fn hold(semaphore: Semaphore, place: PathBuf) -> Result<()> {
    let _permit = semaphore.acquire()?;
    write_pid(&place);
    loop {
        std::thread::park();
    }
}

#[mobula::remote]
fn wait_for_permit(semaphore: Semaphore, place: PathBuf) -> Result<()> {
    write_pid(&place);
    semaphore.acquire_many(2).map(drop)
}

#[mobula::remote]
fn write(lock: RwLock, place: PathBuf) -> Result<()> {
    let _lease = lock.write()?;
    write_pid(&place);
    loop {
        std::thread::park();
    }
}

/// Adds one to a number in a file, in two steps.
#[mobula::remote]
fn add_one(lock: RwLock, file: PathBuf, times: u32) -> Result<()> {
    for _ in 0..times {
        let _lease = lock.write()?;
        let number: u64 = std::fs::read_to_string(&file).expect("it is there").parse().expect("a number");
        std::thread::yield_now();
        std::fs::write(&file, (number + 1).to_string()).expect("the disk has room");
    }
    Ok(())
}

#[mobula::remote]
fn at_barrier(barrier: Barrier, place: PathBuf) -> Result<bool> {
    write_pid(&place);
    Ok(barrier.wait()?)
}

#[mobula::remote]
fn rounds(barrier: Barrier, count: u32) -> Result<u32> {
    let mut led = 0;
    for _ in 0..count {
        led += u32::from(barrier.wait()?);
    }
    Ok(led)
}

#[mobula::remote]
fn at_signal(signal: Signal) -> Result<()> {
    signal.wait()
}

#[mobula::remote]
fn use_shared(directory: PathBuf) -> Result<usize> {
    let made = || {
        write_pid(&directory.join(format!("made-{}", std::process::id())));
        Ok(vec![1_u8; 100_000])
    };
    let numbers = util::shared("numbers", made)?;
    std::thread::sleep(Duration::from_millis(1));
    Ok(numbers.get()?.len())
}

#[mobula::remote]
fn dies_in_making(place: PathBuf) -> Result<()> {
    util::shared::<u64>("doomed", || {
        write_pid(&place);
        loop {
            std::thread::park();
        }
    })
    .map(drop)
}

#[test]
fn a_process_that_dies_gives_its_permit_back() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let semaphore = Semaphore::new(1);
    for round in 0..3 {
        let place = directory.path().join(round.to_string());
        let doomed = hold::options(once()).remote(semaphore.clone(), place.clone());
        let pid = pid_in(&place);
        assert!(semaphore.try_acquire().unwrap().is_none());
        assert!(semaphore.acquire_timeout(1, SHORT).unwrap().is_none());
        kill(pid, Kill::SIGKILL).unwrap();
        drop(semaphore.acquire_timeout(1, PATIENCE).unwrap().expect("it comes back"));
        assert!(doomed.get().is_err());
    }
}

#[test]
fn a_process_that_dies_while_it_waits_holds_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let semaphore = Semaphore::new(2);
    let permit = semaphore.acquire().unwrap();
    let place = directory.path().join("waits");
    let doomed = wait_for_permit::options(once()).remote(semaphore.clone(), place.clone());
    let pid = pid_in(&place);
    until_asleep(pid);
    eventually("the other one waits", || semaphore.try_acquire().unwrap().is_none());
    kill(pid, Kill::SIGKILL).unwrap();
    let other = semaphore.acquire_timeout(1, PATIENCE).unwrap().expect("nobody is before it");
    assert!(doomed.get().is_err());
    drop((permit, other));
    eventually("both come back", || semaphore.available_permits().unwrap() == 2);
}

#[test]
fn permits_are_counted() {
    let _session = session(1);
    let semaphore = Semaphore::new(3);
    let two = semaphore.acquire_many(2).unwrap();
    assert!(semaphore.acquire_timeout(2, SHORT).unwrap().is_none());
    // The wait that was given up takes nothing.
    let one = semaphore.try_acquire().unwrap().expect("one is there");
    semaphore.add_permits(1).unwrap();
    assert_eq!(semaphore.available_permits().unwrap(), 1);
    one.forget();
    drop(two);
    eventually("they come back", || semaphore.available_permits().unwrap() == 3);
    assert!(semaphore.acquire_many(4).is_err());
    let permit = pollster::block_on(semaphore.acquire_async(3)).unwrap();
    drop(permit);
    let named = || Semaphore::with_options(1, ActorOptions::new().name("one").get_if_exists(true));
    assert_eq!(named(), named());
}

#[test]
fn a_writer_is_alone() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(3);
    let file = directory.path().join("number");
    std::fs::write(&file, "0").unwrap();
    let lock = RwLock::new();
    mobula::get((0..3).map(|_| add_one::remote(lock.clone(), file.clone(), 50))).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "150");
    let readers = (lock.read().unwrap(), lock.read().unwrap());
    assert!(lock.write_timeout(SHORT).unwrap().is_none());
    assert!(lock.try_read().unwrap().is_some());
    drop(readers);
    let writer = lock.write_timeout(PATIENCE).unwrap().expect("the readers are gone");
    assert!(lock.try_read().unwrap().is_none());
    assert!(!writer.is_after_death());
}

#[test]
fn the_death_of_a_writer_is_told_until_it_is_dealt_with() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let lock = RwLock::new();
    let place = directory.path().join("writer");
    let doomed = write::options(once()).remote(lock.clone(), place.clone());
    kill(pid_in(&place), Kill::SIGKILL).unwrap();
    let lease = lock.read_timeout(PATIENCE).unwrap().expect("the writer is dead");
    assert!(lease.is_after_death());
    drop(lease);
    let lease = lock.write_timeout(PATIENCE).unwrap().expect("the reader is gone");
    assert!(lease.is_after_death());
    lease.clear_death().unwrap();
    drop(lease);
    assert!(!lock.read().unwrap().is_after_death());
    assert!(doomed.get().is_err());
}

#[test]
fn a_barrier_opens_for_all_and_again() {
    let _session = session(4);
    let barrier = Barrier::new(4);
    let led = mobula::get((0..4).map(|_| rounds::remote(barrier.clone(), 50))).unwrap();
    assert_eq!(led.iter().sum::<u32>(), 50);
    assert!(matches!(barrier.wait_timeout(SHORT), Err(BarrierError::Timeout)));
}

#[test]
fn a_barrier_breaks_when_a_process_dies_at_it() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let barrier = Barrier::new(3);
    let place = directory.path().join("doomed");
    let doomed = at_barrier::options(once()).remote(barrier.clone(), place.clone());
    let pid = pid_in(&place);
    let other = barrier.clone();
    let waiter = std::thread::spawn(move || other.wait_timeout(PATIENCE));
    eventually("both wait", || barrier.waiting().unwrap() == 2);
    kill(pid, Kill::SIGKILL).unwrap();
    let broken = waiter.join().unwrap();
    assert!(matches!(broken, Err(BarrierError::Broken)), "{broken:?}");
    assert!(doomed.get().is_err());
    // The next ones are not concerned.
    let barriers: Vec<_> = (0..2)
        .map(|_| {
            let barrier = barrier.clone();
            std::thread::spawn(move || barrier.wait_timeout(PATIENCE))
        })
        .collect();
    barrier.wait_timeout(PATIENCE).unwrap();
    assert!(barriers.into_iter().all(|waiter| waiter.join().unwrap().is_ok()));
}

#[test]
fn a_signal_ends_all_waits() {
    let _session = session(3);
    let signal = Signal::new();
    assert!(!signal.wait_timeout(SHORT).unwrap());
    let waiters: Vec<_> = (0..3).map(|_| at_signal::remote(signal.clone())).collect();
    signal.set().unwrap();
    mobula::get(waiters).unwrap();
    assert!(signal.wait_timeout(PATIENCE).unwrap());
    signal.clear().unwrap();
    assert!(!signal.is_set().unwrap());
    assert!(!signal.wait_timeout(SHORT).unwrap());
}

#[test]
fn a_shared_value_is_made_once() {
    let seed = std::env::var("MOBULA_SEED").map_or(5, |seed| seed.parse().expect("MOBULA_SEED is a number"));
    println!("MOBULA_SEED={seed}");
    let mut random = Random::from_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let _session = session(4);
    // Some process has it all the time.
    let kept = util::shared("numbers", || {
        write_pid(&directory.path().join("made-by-the-driver"));
        Ok(vec![1_u8; 100_000])
    });
    let kept = kept.unwrap();
    let calls = 20 + random.below(20);
    let lengths = mobula::get((0..calls).map(|_| use_shared::remote(directory.path().to_owned()))).unwrap();
    assert!(lengths.iter().all(|length| *length == 100_000));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    // When no process has it any more, one of several processes makes it again.
    drop(kept);
    let other = tempfile::tempdir().unwrap();
    let lengths = mobula::get((0..8).map(|_| use_shared::remote(other.path().to_owned()))).unwrap();
    assert!(lengths.iter().all(|length| *length == 100_000));
}

#[test]
fn a_shared_value_whose_maker_fails_or_dies_is_made_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let failed = util::shared::<u64>("doomed", || Err(mobula::Failure::Other("no".to_owned()).into()));
    assert!(failed.is_err());
    let place = directory.path().join("maker");
    let doomed = dies_in_making::options(once()).remote(place.clone());
    let pid = pid_in(&place);
    let waiter = std::thread::spawn(|| util::shared("doomed", || Ok(7_u64)).and_then(|value| value.get()));
    std::thread::sleep(SHORT);
    kill(pid, Kill::SIGKILL).unwrap();
    assert_eq!(waiter.join().unwrap().unwrap(), 7);
    assert!(doomed.get().is_err());
}
