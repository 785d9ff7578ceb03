//! Rings: records arrive whole and in order, and a producer that found no room is woken when there is room.
//!
//! A producer that finds no room goes to sleep as `runtime/src/mail/waiters.rs` does: after a last look at the room
//! (`runtime/src/mail/link.rs`, `Link::has_work`). A consumer that has dealt with a record wakes the producer as
//! `client/src/channel.rs` does (`Receiver::done`).

use std::os::fd::AsFd;

use loom::thread::spawn;
use mobula_shm::model::File;
use mobula_shm::model::atomics::{Access, Kind};
use mobula_shm::ring::{self, Consumer, Producer, PushError};
use mobula_shm::sync::Ordering::{self, Acquire, Relaxed, SeqCst};

use crate::doorbell::Process;
use crate::{as_it_is, fails, holds};

/// Two records fit.
const DATA_BYTES: u32 = 32;
/// The number of records that bring the position to the middle of a lap, before there is a second thread.
const BEFORE: u64 = 3;
/// The number of records in which two laps end.
const RECORDS: u64 = 4;

const TAIL: usize = 0;
const HEAD: usize = 64;
const STARVED: usize = 128;

fn push_and_receive(looks: bool) {
    let (left, right) = (File::ring("left", DATA_BYTES), File::ring("right", DATA_BYTES));
    let (mut producer, _) = ring::open(left.as_fd(), right.as_fd(), DATA_BYTES).unwrap();
    let (_, mut consumer) = ring::open(right.as_fd(), left.as_fd(), DATA_BYTES).unwrap();
    for number in 0..BEFORE {
        producer.push(&record(number)).unwrap();
        assert!(receive(&mut consumer, number));
        consumer.advance();
    }
    let (sender, receiver) = (Process::new("sender"), Process::new("receiver"));
    let (to_sender, to_receiver) = (sender.waker(), receiver.waker());
    let receiver = spawn(move || {
        for number in BEFORE..BEFORE + RECORDS {
            while !receive(&mut consumer, number) {
                receiver.sleep(|| !consumer.is_empty());
            }
            if consumer.advance() {
                to_sender.wake();
            }
        }
    });
    for number in BEFORE..BEFORE + RECORDS {
        send(&mut producer, &sender, number, looks);
        to_receiver.wake();
    }
    receiver.join().unwrap();
}

/// Sends a record, sleeping until there is room for it.
fn send(producer: &mut Producer, process: &Process, number: u64, looks: bool) {
    loop {
        match producer.push(&record(number)) {
            Ok(_) => return,
            Err(PushError::Full) => {
                let has_room = || looks && producer.has_room_for(record(number).len());
                process.sleep(has_room);
            }
            Err(error) => panic!("a record of {} bytes: {error}", record(number).len()),
        }
    }
}

/// Whether there is a record, which must be this one.
fn receive(consumer: &mut Consumer, number: u64) -> bool {
    let mut received = Vec::new();
    let any = consumer.next(&mut received).unwrap_or_else(|corrupt| panic!("not what was sent: {corrupt}"));
    assert!(!any || received == record(number), "not what was sent: {received:?} for {number}");
    any
}

/// Some are shorter than the word that they lie in.
fn record(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(2) { 8 } else { 5 };
    vec![number as u8 + 1; length]
}

#[test]
fn records_arrive_whole_and_in_order_and_a_full_ring_is_heard_of() {
    holds("ring", || push_and_receive(true));
}

/// Breaks: a record counts before its bytes are there.
#[test]
fn planted_a_tail_before_its_data() {
    let weaken = |access: Access| match access.kind {
        Kind::Store if access.file == "left" && access.offset == TAIL => Relaxed,
        _ => access.ordering,
    };
    fails("tail before the data", "not what was sent", weaken, || push_and_receive(true));
}

/// Breaks: the same, from the consumer's side.
#[test]
fn planted_a_tail_that_does_not_acquire() {
    let weaken = |access: Access| match access.kind {
        Kind::Fence if access.file == "left" && access.offset == TAIL && access.ordering == Acquire => {
            Relaxed
        }
        _ => access.ordering,
    };
    fails("tail without acquire", "not what was sent", weaken, || push_and_receive(true));
}

fn without_the_producers_fence(access: Access) -> Ordering {
    match access.kind {
        Kind::Fence if access.offset == STARVED && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    }
}

fn without_the_consumers_fence(access: Access) -> Ordering {
    match access.kind {
        Kind::Fence if access.offset == HEAD && access.file == "right" && access.ordering == SeqCst => {
            Relaxed
        }
        _ => access.ordering,
    }
}

/// Breaks: the consumer makes room and does not see that the producer waits for it; the producer does not see the room.
#[test]
fn planted_a_side_without_its_fence() {
    let check = |name, weaken| fails(name, "deadlock", weaken, push_to_one_who_makes_room_once);
    check("starved without fence", without_the_producers_fence as fn(Access) -> Ordering);
    check("head without fence", without_the_consumers_fence);
}

#[test]
fn room_that_is_made_once_is_heard_of() {
    holds("room made once", push_to_one_who_makes_room_once);
}

/// A full ring whose consumer makes room once. The producer blocks on its bell alone: nothing but the ring's own flag
/// says whether it is rung, and nothing but the ring's own look whether it blocks.
fn push_to_one_who_makes_room_once() {
    let (left, right) = (File::ring("left", DATA_BYTES), File::ring("right", DATA_BYTES));
    let (mut producer, _) = ring::open(left.as_fd(), right.as_fd(), DATA_BYTES).unwrap();
    let (_, mut consumer) = ring::open(right.as_fd(), left.as_fd(), DATA_BYTES).unwrap();
    producer.push(&record(0)).unwrap();
    producer.push(&record(1)).unwrap();
    let process = Process::new("producer");
    let bell = process.bell();
    let receiver = spawn(move || {
        assert!(receive(&mut consumer, 0));
        if consumer.advance() {
            bell.ring();
        }
    });
    while producer.push(&record(2)) == Err(PushError::Full) {
        process.bell().wait();
    }
    receiver.join().unwrap();
}

/// Breaks: room that was made between the look and the sleep.
#[test]
fn planted_a_sleep_without_a_last_look_at_the_room() {
    fails("sleep without a look at the room", "deadlock", as_it_is, || push_and_receive(false));
}
