//! The bell: no wake-up is lost, and a burst of records rings once.
//!
//! The sleeper follows `client/src/event.rs` (`EventSource::sleep`), the waker `client/src/reader/peer.rs`
//! (`Peer::wake_for`). The bell itself, an eventfd, is a flag that a thread waits for.

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread::spawn;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::model::File;
use mobula_shm::model::atomics::{Access, Kind};
use mobula_shm::ring::{self, Consumer, Producer};
use mobula_shm::sync::Ordering::{self, Relaxed, SeqCst};
use mobula_shm::sync::{AtomicU32, fence};
use mobula_shm::table::{TableReader, TableWriter};

use crate::{as_it_is, fails, holds};

const SLEEPS: usize = 64;
const DATA_BYTES: u32 = 32;

/// As `mobula_shm::bell::Bell`, without a descriptor.
#[derive(Default)]
pub(crate) struct Bell {
    rings: Mutex<u32>,
    rung: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rings.lock().unwrap() += 1;
        self.rung.notify_one();
    }

    /// Blocks until the bell rings, and forgets all rings.
    pub(crate) fn wait(&self) {
        let mut rings = self.rings.lock().unwrap();
        while *rings == 0 {
            rings = self.rung.wait(rings).unwrap();
        }
        *rings = 0;
    }
}

/// A process that sleeps.
pub(crate) struct Process {
    table: Arc<File>,
    writer: TableWriter,
    bell: Arc<Bell>,
}

/// Another process's view of it.
pub(crate) struct Waker {
    _table: Arc<File>,
    reader: TableReader,
    bell: Arc<Bell>,
    rung_for: AtomicU32,
}

impl Process {
    pub(crate) fn new(name: &'static str) -> Self {
        let table = Arc::new(File::table(name, 0));
        let writer = TableWriter::map(table.as_fd()).unwrap();
        Self { table, writer, bell: Arc::default() }
    }

    pub(crate) fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker {
            _table: self.table.clone(),
            reader: TableReader::map(self.table.as_fd()).unwrap(),
            bell: self.bell(),
            rung_for: AtomicU32::new(0),
        }
    }

    pub(crate) fn sleep(&self, ready: impl FnOnce() -> bool) {
        let _asleep = self.writer.begin_sleep();
        if !ready() {
            self.bell.wait();
        }
    }
}

impl Waker {
    /// Rings if the process sleeps. Returns the sleep that it rang for, if it rang.
    pub(crate) fn wake(&self) -> Option<u32> {
        self.wake_for(|| false)
    }

    /// The same, and rings if the ring is idle.
    pub(crate) fn wake_for(&self, finds_idle: impl FnOnce() -> bool) -> Option<u32> {
        let sleep = self.reader.sleep();
        let is_idle = finds_idle();
        let rung_for = sleep.filter(|sleep| self.rung_for.swap(*sleep, Relaxed) != *sleep);
        if is_idle || rung_for.is_some() {
            self.bell.ring();
        }
        rung_for
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Sleeping {
    AsItIs,
    LooksFirst,
    DoesNotCount,
}

/// One process sends two records, and the other sleeps whenever there is none. The sender must not ring twice for one
/// sleep.
fn send_to_a_sleeper(sleeping: Sleeping, wake: fn(&Waker) -> Option<u32>) {
    let (left, right) = (File::ring("left", DATA_BYTES), File::ring("right", DATA_BYTES));
    let (producer, _) = ring::open(left.as_fd(), right.as_fd(), DATA_BYTES).unwrap();
    let (_, consumer) = ring::open(right.as_fd(), left.as_fd(), DATA_BYTES).unwrap();
    let process = Process::new("sleeper");
    let waker = process.waker();
    let sender = spawn(move || send(producer, &waker, wake));
    receive(consumer, &process, sleeping);
    let rung_for = sender.join().unwrap();
    assert!(rung_for[0].is_none() || rung_for[0] != rung_for[1], "rung twice for one sleep");
}

fn send(mut producer: Producer, waker: &Waker, wake: fn(&Waker) -> Option<u32>) -> [Option<u32>; 2] {
    [1, 2].map(|number| {
        producer.push(&[number]).unwrap();
        wake(waker)
    })
}

fn receive(mut consumer: Consumer, process: &Process, sleeping: Sleeping) {
    let mut record = Vec::new();
    for number in [1, 2] {
        while !consumer.next(&mut record).unwrap() {
            match sleeping {
                Sleeping::AsItIs => process.sleep(|| !consumer.is_empty()),
                Sleeping::LooksFirst => {
                    let ready = !consumer.is_empty();
                    process.sleep(|| ready);
                }
                Sleeping::DoesNotCount => {
                    let raw = WriteMapping::map(process.table.as_fd(), 0, 4096).unwrap();
                    raw.word32(SLEEPS).store(1, Relaxed);
                    fence(SeqCst);
                    if consumer.is_empty() {
                        process.bell.wait();
                    }
                    raw.word32(SLEEPS).store(0, Relaxed);
                }
            }
        }
        assert_eq!(record, [number]);
        consumer.advance();
    }
}

fn send_to_one_who_sleeps_as_it_should() {
    send_to_a_sleeper(Sleeping::AsItIs, Waker::wake);
}

#[test]
fn no_wake_up_is_lost_and_a_burst_rings_once() {
    holds("doorbell", send_to_one_who_sleeps_as_it_should);
}

/// Breaks: the waker does not see the sleep, and the sleeper does not see the record.
#[test]
fn planted_a_side_without_its_fence() {
    let check = |name, weaken: fn(Access) -> Ordering| {
        fails(name, "deadlock", weaken, send_to_one_who_sleeps_as_it_should);
    };
    check("sleep without fence", |access| match access.kind {
        Kind::Fence if access.file == "sleeper" && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    });
    // The waker's last access is to the tail that it has published.
    check("wake without fence", |access| match access.kind {
        Kind::Fence if access.file == "left" && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    });
}

/// Breaks: a record that is sent between the look and the sleep is not rung for.
#[test]
fn planted_a_last_look_before_the_sleep() {
    fails("look, then sleep", "deadlock", as_it_is, || {
        send_to_a_sleeper(Sleeping::LooksFirst, Waker::wake);
    });
}

/// Breaks: the waker takes the next sleep for the one that it has rung for.
#[test]
fn planted_sleeps_that_are_not_counted() {
    fails("sleeps not counted", "deadlock", as_it_is, || {
        send_to_a_sleeper(Sleeping::DoesNotCount, Waker::wake);
    });
}

/// Breaks: a burst costs a system call for each record.
#[test]
fn planted_a_waker_that_does_not_remember() {
    fails("rings always", "rung twice for one sleep", as_it_is, || {
        send_to_a_sleeper(Sleeping::AsItIs, |waker| {
            let sleep = waker.reader.sleep()?;
            waker.bell.ring();
            Some(sleep)
        });
    });
}
