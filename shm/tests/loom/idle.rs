//! Idle rings: no record stays unseen in a ring that its consumer does not look at.
//!
//! The consumer follows `runtime/src/mail/links.rs` (`settle`, `add_active`, `tidy`), the producer
//! `client/src/channel.rs` (`Sender::send`) and `client/src/reader/peer.rs` (`Peer::wake_for`).

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::thread::spawn;
use mobula_shm::model::File;
use mobula_shm::model::atomics::{Access, Kind};
use mobula_shm::ring::{self, Consumer, Peek, Producer};
use mobula_shm::sync::AtomicU32;
use mobula_shm::sync::Ordering::{self, Acquire, Relaxed, Release, SeqCst};

use crate::doorbell::{Process, Waker};
use crate::{as_it_is, fails, fails_with, holds, holds_with};

const DATA_BYTES: u32 = 32;
const IDLE: usize = 256;
/// The number of preemptions with which three threads meet in the worst order.
const ACTIVE_PREEMPTIONS: usize = 4;

fn channel() -> (Producer, Consumer) {
    let (left, right) = (File::ring("left", DATA_BYTES), File::ring("right", DATA_BYTES));
    let (producer, _) = ring::open(left.as_fd(), right.as_fd(), DATA_BYTES).unwrap();
    let (_, consumer) = ring::open(right.as_fd(), left.as_fd(), DATA_BYTES).unwrap();
    (producer, consumer)
}

/// Sends a record, and rings if the ring is idle or the process sleeps. Returns whether it rang for the idle ring.
fn send(producer: &mut Producer, waker: &Waker, number: u8) -> bool {
    producer.push(&[number]).unwrap();
    let mut is_idle = false;
    waker.wake_for(|| {
        is_idle = producer.finds_idle();
        is_idle
    });
    is_idle
}

/// The consumer never looks at the ring unless it was rung. Two records are sent.
fn receive_when_rung(begin_idle: fn(&Peek) -> bool) {
    let (mut producer, mut consumer) = channel();
    let process = Process::new("sleeper");
    let waker = process.waker();
    let sender = spawn(move || [1, 2].map(|number| send(&mut producer, &waker, number)));
    let (peek, mut record, mut received) = (consumer.peek(), Vec::new(), 0);
    let mut times_idle = 0;
    while received < 2 {
        times_idle += 1;
        if begin_idle(&peek) {
            // Nothing is looked at before the bell rings, which it may do for another reason.
            process.sleep(|| false);
        }
        while consumer.next(&mut record).unwrap() {
            received += 1;
            assert_eq!(record, [received]);
            consumer.advance();
        }
    }
    let rings = sender.join().unwrap().into_iter().filter(|rang| *rang).count();
    assert!(rings <= times_idle, "rung twice for one time");
}

#[test]
fn no_record_stays_unseen_in_an_idle_ring() {
    holds("idle ring", || receive_when_rung(Peek::begin_idle));
}

fn without_the_consumers_fence(access: Access) -> Ordering {
    match access.kind {
        Kind::Fence if access.file == "right" && access.offset == IDLE && access.ordering == SeqCst => {
            Relaxed
        }
        _ => access.ordering,
    }
}

fn without_the_producers_fence(access: Access) -> Ordering {
    match access.kind {
        Kind::Fence if access.file == "left" && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    }
}

/// Breaks: the producer does not see that the ring is idle, and the consumer does not see the record.
#[test]
fn planted_a_side_without_its_fence() {
    // The process sleeps without a fence too: otherwise that one would do.
    let check = |name, weaken| fails(name, "deadlock", weaken, || receive_without_sleep(Peek::begin_idle));
    check("idle without fence", without_the_consumers_fence as fn(Access) -> Ordering);
    check("idle found without fence", without_the_producers_fence);
}

#[test]
fn an_idle_ring_is_rung_for_although_the_process_is_awake() {
    holds("idle ring of an awake process", || receive_without_sleep(Peek::begin_idle));
}

/// The consumer's process is awake, as far as the producer can see. The bell is all that the consumer waits for.
fn receive_without_sleep(begin_idle: fn(&Peek) -> bool) {
    let (mut producer, mut consumer) = channel();
    let process = Process::new("awake");
    let (waker, bell) = (process.waker(), process.bell());
    let sender = spawn(move || _ = [1, 2].map(|number| send(&mut producer, &waker, number)));
    let (peek, mut record, mut received) = (consumer.peek(), Vec::new(), 0);
    while received < 2 {
        if begin_idle(&peek) {
            bell.wait();
        }
        while consumer.next(&mut record).unwrap() {
            received += 1;
            assert_eq!(record, [received]);
            consumer.advance();
        }
    }
    sender.join().unwrap();
}

/// Breaks: a record that is sent between the look and the ring's becoming idle.
#[test]
fn planted_a_last_look_before_the_ring_is_idle() {
    fails("look, then idle", "deadlock", as_it_is, || {
        receive_without_sleep(|peek| {
            let is_empty = peek.is_empty();
            peek.begin_idle();
            is_empty
        });
    });
}

/// One thread is about to sleep, and looks at the rings that are on a list. The other makes an idle ring active: it
/// puts the ring on the list.
fn make_active_beside_a_sleeper(looks: bool) {
    let (mut producer, mut consumer) = channel();
    let process = Process::new("sleeper");
    let (waker, bell, peek) = (process.waker(), process.bell(), consumer.peek());
    assert!(peek.begin_idle());
    let is_listed = Arc::new(AtomicU32::new(0));
    let listed = is_listed.clone();
    let sleeper = spawn(move || {
        let (peek, mut record) = (consumer.peek(), Vec::new());
        // A ring of the bell stands for a look at all idle rings as well.
        process.sleep(|| is_listed.load(Acquire) == 1 && !peek.is_empty());
        assert!(consumer.next(&mut record).unwrap(), "rung for nothing");
        consumer.advance();
    });
    let other = spawn(move || {
        listed.store(1, Release);
        if peek.end_idle() && looks {
            bell.ring();
        }
    });
    send(&mut producer, &waker, 1);
    sleeper.join().unwrap();
    other.join().unwrap();
}

#[test]
fn a_ring_can_become_active_beside_a_thread_that_goes_to_sleep() {
    holds_with(ACTIVE_PREEMPTIONS, "idle ring becomes active", || make_active_beside_a_sleeper(true));
}

/// Breaks: the producer finds the ring active and the process awake, and the sleeper does not know the ring.
#[test]
fn planted_a_ring_that_becomes_active_without_a_look() {
    fails_with(ACTIVE_PREEMPTIONS, "active without a look", "deadlock", as_it_is, || {
        make_active_beside_a_sleeper(false)
    });
}
