//! Memory is leased, waited for and given back, and every byte is counted once. If this fails, a store runs full
//! although nobody uses it, or promises what it does not have.

mod common;

use std::collections::VecDeque;
use std::os::fd::AsFd;

use common::{MIB, TestStore, eventually, segment};
use mobula_protocol::message::{Notice, Refusal, Reply, Request};
use mobula_shm::memory::{PAGE_BYTES, punch_hole};
use mobula_shm::pins::HELD;
use mobula_shm::table::{ENTRIES_MAX, State};

#[test]
fn leasing_and_releasing_returns_to_the_start() {
    let store = TestStore::start();
    let (mut client, mut reader) = (store.client(), store.client());
    let before = client.totals();
    let small = client.lease(1);
    assert_eq!(small.bytes, PAGE_BYTES);
    let large = client.lease(4 * MIB);
    let totals = client.totals();
    assert_eq!((totals.leased_bytes, totals.segments), (4 * MIB + PAGE_BYTES, 2));
    assert_eq!(totals.free_bytes, 12 * MIB - PAGE_BYTES);

    reader.attach(client.owner);
    let map = Request::MapSegment { owner: client.owner, segment: large.number };
    for _ in 0..2 {
        assert_eq!(reader.call(&map).0, Reply::SegmentMapped { bytes: large.bytes });
    }
    client.done(&Request::Release { segment: small.number });
    client.done(&Request::Release { segment: large.number });
    let retired = Notice::SegmentRetired { owner: client.owner, segment: large.number };
    reader.raw.notice(|notice| *notice == retired);
    assert_eq!(client.totals().retired_bytes, 4 * MIB);
    assert_eq!(reader.refusal(&map), Refusal::NoSuchSegment { owner: client.owner, segment: large.number });
    reader.done(&Request::UnmapSegment { owner: client.owner, segment: large.number });
    assert_eq!(client.totals(), before);
    let refusal = client.refusal(&Request::Release { segment: small.number });
    assert_eq!(refusal, Refusal::NoSuchSegment { owner: client.owner, segment: small.number });
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let store = TestStore::start();
    let mut client = store.client();
    for bytes in [16 * MIB + 1, u64::MAX] {
        let refusal = client.refusal(&Request::Lease { bytes, timeout_ms: u64::MAX });
        assert_eq!(refusal, Refusal::TooLarge { requested_bytes: bytes, capacity_bytes: 16 * MIB });
    }
}

#[test]
fn a_full_store_says_so_after_the_timeout_and_asks_everyone_to_reclaim() {
    let store = TestStore::start();
    let (mut holder, mut asker) = (store.client(), store.client());
    holder.lease(15 * MIB);
    let full = Refusal::StoreFull { requested_bytes: 2 * MIB, capacity_bytes: 16 * MIB, free_bytes: MIB };
    for timeout_ms in [0, 30] {
        assert_eq!(asker.refusal(&Request::Lease { bytes: 2 * MIB, timeout_ms }), full);
    }
    let (notice, _) = holder.raw.notice(|notice| matches!(notice, Notice::Reclaim { .. }));
    assert_eq!(notice, Notice::Reclaim { bytes: MIB });
}

#[test]
fn waiting_requests_are_served_in_order_and_small_ones_pass_one_that_is_too_large() {
    let store = TestStore::start();
    let (mut holder, mut asker) = (store.client(), store.client());
    let (first, second) = (holder.lease(8 * MIB), holder.lease(8 * MIB));
    let mut ask = |bytes| asker.raw.send(&Request::Lease { bytes, timeout_ms: u64::MAX });
    let (large, small, medium) = (ask(16 * MIB), ask(MIB), ask(6 * MIB));
    holder.done(&Request::Release { segment: first.number });
    let (reply, descriptors) = asker.raw.reply(small);
    let small = segment(reply, &descriptors);
    let (reply, descriptors) = asker.raw.reply(medium);
    let medium = segment(reply, &descriptors);
    assert!(small.number < medium.number, "served out of order");
    for released in [&small, &medium] {
        asker.done(&Request::Release { segment: released.number });
    }
    holder.done(&Request::Release { segment: second.number });
    let (reply, descriptors) = asker.raw.reply(large);
    assert_eq!(segment(reply, &descriptors).bytes, 16 * MIB);
}

/// Small requests get all memory that is given back, until the large request has its turn.
#[test]
fn a_large_request_is_not_passed_by_small_ones_for_ever() {
    let store = TestStore::start();
    let (mut holder, mut large, mut small) = (store.client(), store.client(), store.client());
    let mut held: VecDeque<u32> = (0..16).map(|_| holder.lease(MIB).number).collect();
    let waiting = large.raw.send(&Request::Lease { bytes: 12 * MIB, timeout_ms: 60_000 });
    let (mut passed, mut asked) = (0, VecDeque::new());
    while !large.raw.has_reply(waiting) {
        // One segment is given back. Another client asks for it at once, and gives it back in turn.
        if let Some(number) = held.pop_front() {
            holder.done(&Request::Release { segment: number });
        }
        if asked.is_empty() {
            asked.push_back(small.raw.send(&Request::Lease { bytes: MIB, timeout_ms: 60_000 }));
        }
        small.totals();
        if small.raw.has_reply(asked[0]) {
            let (reply, descriptors) = small.raw.reply(asked.pop_front().unwrap());
            let number = segment(reply, &descriptors).number;
            small.done(&Request::Release { segment: number });
            held.push_back(holder.lease_within(MIB, 60_000).number);
            passed += 1;
        }
        large.totals();
    }
    assert!(passed > 0, "nobody was served before");
    let (reply, descriptors) = large.raw.reply(waiting);
    let leased = segment(reply, &descriptors);
    assert_eq!(leased.bytes, 12 * MIB);
    // And then the small one has its room again.
    large.done(&Request::Release { segment: leased.number });
    if let Some(asked) = asked.pop_front() {
        assert!(matches!(small.raw.reply(asked).0, Reply::Leased { .. }));
    }
}

#[test]
fn a_request_that_is_withdrawn_gets_nothing_and_keeps_nobody() {
    let store = TestStore::start();
    let (mut holder, mut asker) = (store.client(), store.client());
    let segment = holder.lease(16 * MIB);
    let waiting = asker.raw.send(&Request::Lease { bytes: MIB, timeout_ms: u64::MAX });
    // Somebody else's request, and one that was never made, stay out of it.
    holder.done(&Request::Withdraw { correlation: waiting });
    asker.done(&Request::Withdraw { correlation: waiting + 100 });
    asker.done(&Request::Withdraw { correlation: waiting });
    assert!(matches!(asker.raw.reply(waiting).0, Reply::Failed { refusal: Refusal::StoreFull { .. } }));
    holder.done(&Request::Release { segment: segment.number });
    assert_eq!(holder.totals().free_bytes, 16 * MIB);
}

#[test]
fn the_death_of_a_holder_serves_who_waits() {
    let store = TestStore::start();
    let (mut holder, mut asker) = (store.client(), store.client());
    holder.lease(16 * MIB);
    let waiting = asker.raw.send(&Request::Lease { bytes: 16 * MIB, timeout_ms: u64::MAX });
    drop(holder);
    assert!(matches!(asker.raw.reply(waiting).0, Reply::Leased { .. }));
}

#[test]
fn a_waiting_client_that_dies_gets_nothing() {
    let store = TestStore::start();
    let (mut holder, mut asker) = (store.client(), store.client());
    let leased = holder.lease(16 * MIB);
    asker.raw.send(&Request::Lease { bytes: 16 * MIB, timeout_ms: u64::MAX });
    asker.totals();
    drop(asker);
    eventually("the asker is gone", || holder.totals().clients == 1);
    holder.done(&Request::Release { segment: leased.number });
    assert_eq!(holder.totals().free_bytes, 16 * MIB);
}

#[test]
fn nobody_waits_more_often_than_the_limit() {
    let store = TestStore::with(|config| config.waiters_max(2));
    let mut client = store.client();
    client.lease(16 * MIB);
    client.raw.send(&Request::Lease { bytes: 1, timeout_ms: u64::MAX });
    client.raw.send(&Request::Lookup { name: b"x".to_vec(), timeout_ms: u64::MAX });
    let limit = Refusal::LimitReached { limit: "waiters_max".into(), max: 2 };
    assert_eq!(client.refusal(&Request::Lease { bytes: 1, timeout_ms: u64::MAX }), limit);
    assert_eq!(client.refusal(&Request::Lookup { name: b"y".to_vec(), timeout_ms: 1 }), limit);
}

#[test]
fn every_pin_that_may_be_written_has_memory_behind_it() {
    let pages = |file: &std::os::fd::OwnedFd| nix::sys::stat::fstat(file).unwrap().st_blocks / 8;
    let store = TestStore::with(|config| config.table_entries_initial(4096));
    let (mut owner, mut reader) = (store.client(), store.client());
    let all = |owner: &common::Client, reader: &common::Client| {
        (pages(&owner.control), pages(&reader.control), pages(&owner.daemon_control))
    };
    // 4096 entries of 64 bytes are 64 pages, and there is one before them.
    let (table, of_daemon) = (65, pages(&owner.daemon_control) - 8);
    // And as many pins of four bytes are four pages: the owner's own, then its readers' and the daemon's.
    assert_eq!(all(&owner, &reader), (table + 4, table + 4, of_daemon + 8));
    reader.attach(owner.owner);
    assert_eq!(all(&owner, &reader), (table + 4, table + 8, of_daemon + 8));
    owner.call(&Request::GrowTable { entries: 8192 });
    assert_eq!(all(&owner, &reader), (table + 64 + 8, table + 12, of_daemon + 12));
}

#[test]
fn a_table_grows_and_its_pins_with_it() {
    let store = TestStore::with(|config| config.table_entries_initial(64));
    let (mut client, mut reader) = (store.client(), store.client());
    reader.attach(client.owner);
    assert_eq!(client.call(&Request::GrowTable { entries: 10 }).0, Reply::TableGrown { entries: 64 });
    assert_eq!(client.call(&Request::GrowTable { entries: 65 }).0, Reply::TableGrown { entries: 128 });
    assert_eq!(client.call(&Request::GrowTable { entries: 9999 }).0, Reply::TableGrown { entries: 9999 });
    let directory = mobula_shm::directory::DirectoryReader::map(
        std::os::fd::AsFd::as_fd(&client.daemon_control),
        client.slots,
    )
    .unwrap();
    assert_eq!(directory.committed(client.owner.slot()), 9999);
    assert_eq!(directory.readers(client.owner.slot()), 1);
    let refusal = client.refusal(&Request::GrowTable { entries: ENTRIES_MAX + 1 });
    assert_eq!(refusal, Refusal::LimitReached { limit: "table_entries_max".into(), max: ENTRIES_MAX.into() });
    let segment = client.lease(PAGE_BYTES);
    let object = client.seal(9998, &segment, 0, &[]);
    reader.pins_on(client.owner).set(9998, HELD);
    assert_eq!(reader.publish(b"last", object), Reply::Done {});
}

#[test]
fn pressure_evicts_what_only_a_name_holds_and_spares_what_is_pinned() {
    let store = TestStore::start();
    let (mut owner, mut reader) = (store.client(), store.client());
    let segment = owner.lease(15 * MIB);
    let objects: Vec<_> =
        (0..3).map(|index| owner.seal(index, &segment, u64::from(index) * 64, &[])).collect();
    for (object, name) in objects.iter().zip([b"a", b"b", b"c"]) {
        assert_eq!(owner.publish(name, *object), Reply::Done {});
    }
    reader.attach(owner.owner);
    reader.pins_on(owner.owner).set(1, HELD);
    // A request that does not wait costs no client a name.
    reader.refusal(&Request::Lease { bytes: 2 * MIB, timeout_ms: 0 });
    assert_eq!(owner.totals().names, 3);
    reader.refusal(&Request::Lease { bytes: 2 * MIB, timeout_ms: 1 });
    assert_eq!(reader.lookup(b"b"), Reply::Found { object: objects[1] });
    for evicted in [b"a", b"c"] {
        assert_eq!(reader.lookup(evicted), Reply::Failed { refusal: Refusal::NoSuchName {} });
    }
    owner.raw.notice(|notice| matches!(notice, Notice::Reclaim { .. }));
    owner.set(0, 1, State::Free);
}

/// Another client gets the pages that a client has given back. The daemon compares the client's statement with the
/// kernel's.
#[test]
fn pages_that_went_back_to_the_system_do_not_count() {
    let store = TestStore::start();
    let (mut holder, mut asker) = (store.client(), store.client());
    let (reply, descriptors) = holder.call(&Request::Lease { bytes: 14 * MIB, timeout_ms: 0 });
    let leased = segment(reply, &descriptors);
    let waiting = asker.raw.send(&Request::Lease { bytes: 8 * MIB, timeout_ms: 60_000 });
    let (notice, _) = holder.raw.notice(|notice| matches!(notice, Notice::PunchHoles { .. }));
    assert_eq!(notice, Notice::PunchHoles { bytes: 6 * MIB });
    // No page is missing yet, although the client says so.
    holder.done(&Request::HolesPunched { segment: leased.number });
    assert_eq!(holder.totals().leased_bytes, 14 * MIB);
    let refusal = holder.refusal(&Request::HolesPunched { segment: leased.number + 1 });
    assert_eq!(refusal, Refusal::NoSuchSegment { owner: holder.owner, segment: leased.number + 1 });

    // Whole huge pages: the kernel may be unable to split one for a moment.
    punch_hole(descriptors[0].as_fd(), 2 * MIB..8 * MIB).unwrap();
    holder.done(&Request::HolesPunched { segment: leased.number });
    let (reply, descriptors) = asker.raw.reply(waiting);
    let granted = segment(reply, &descriptors);
    let totals = holder.totals();
    assert_eq!((totals.leased_bytes, totals.free_bytes), (16 * MIB, 0));
    // Pages that come again by themselves are no lease.
    leased.mapping.word64(2 * MIB as usize).store(1, std::sync::atomic::Ordering::Relaxed);
    holder.done(&Request::HolesPunched { segment: leased.number });
    assert_eq!(holder.totals().free_bytes, 0);
    holder.done(&Request::Release { segment: leased.number });
    asker.done(&Request::Release { segment: granted.number });
    assert_eq!(holder.totals().free_bytes, 16 * MIB);
}

/// A client that dies after it has given pages back, and before it says so, keeps nobody from them.
#[test]
fn pages_that_the_dead_gave_back_do_not_count() {
    let store = TestStore::start();
    let (mut holder, mut reader) = (store.client(), store.client());
    let (reply, descriptors) = holder.call(&Request::Lease { bytes: 15 * MIB, timeout_ms: 0 });
    let leased = segment(reply, &descriptors);
    holder.seal(0, &leased, 0, &[]);
    reader.attach(holder.owner);
    reader.pins_on(holder.owner).set(0, HELD);
    punch_hole(descriptors[0].as_fd(), 2 * MIB..15 * MIB).unwrap();
    drop(holder);
    eventually("it is taken over, with what it has", || reader.totals().orphaned_bytes == 2 * MIB);
}
