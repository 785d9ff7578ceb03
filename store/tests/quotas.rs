//! The quotas of one client and of one user. If this fails, a client takes memory that belongs to all, or is refused
//! memory that it may have.

mod common;

use common::{MIB, TestStore, eventually, segment};
use mobula_protocol::message::{Notice, Refusal, Reply, Request};
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::HELD;

fn quota(limit: &str, max: u64, used: u64, requested: u64) -> Refusal {
    Refusal::QuotaReached { limit: limit.to_owned(), max, used, requested }
}

fn limit(limit: &str, max: u64) -> Refusal {
    Refusal::LimitReached { limit: limit.to_owned(), max }
}

#[test]
fn a_client_has_no_more_than_its_quota_and_what_readers_keep_of_it_counts() {
    let store = TestStore::with(|config| config.client_bytes_max(4 * MIB));
    let (mut client, mut reader) = (store.client(), store.client());
    let ask = |bytes, timeout_ms| Request::Lease { bytes, timeout_ms };
    // It can never fit: no reason to wait.
    let refusal = client.refusal(&ask(5 * MIB, u64::MAX));
    assert_eq!(refusal, quota("client_bytes_max", 4 * MIB, 0, 5 * MIB));
    client.lease(PAGE_BYTES);
    let leased = client.lease(3 * MIB);
    reader.attach(client.owner);
    reader.call(&Request::MapSegment { owner: client.owner, segment: leased.number });
    client.done(&Request::Release { segment: leased.number });
    for timeout_ms in [0, 1] {
        let refusal = client.refusal(&ask(2 * MIB, timeout_ms));
        assert_eq!(refusal, quota("client_bytes_max", 4 * MIB, 3 * MIB + PAGE_BYTES, 2 * MIB));
    }
    // The daemon asks this client alone to free memory; others have room.
    client.raw.notice(|notice| matches!(notice, Notice::Reclaim { .. }));
    reader.lease(4 * MIB);
    // A client that waits at its quota is served when the reader lets go.
    let waiting = client.raw.send(&ask(2 * MIB, 60_000));
    client.totals();
    reader.done(&Request::UnmapSegment { owner: client.owner, segment: leased.number });
    let (reply, descriptors) = client.raw.reply(waiting);
    assert_eq!(segment(reply, &descriptors).bytes, 2 * MIB);
}

#[test]
fn who_waits_at_its_quota_is_served_though_another_takes_what_it_gives_back() {
    let store = TestStore::with(|config| {
        config.client_bytes_max(4 * MIB).lease_reservation(std::time::Duration::from_secs(3600))
    });
    let mut others = [store.client(), store.client(), store.client()];
    for (other, mib) in others.iter_mut().zip([4, 4, 3]) {
        other.lease(mib * MIB);
    }
    let (mut client, mut large) = (store.client(), store.client());
    let leased = client.lease(4 * MIB);
    // One is free. The large request is the first in the queue, the other fits but for the quota.
    let ask = |bytes| Request::Lease { bytes, timeout_ms: u64::MAX };
    let (waits, waits_at_quota) = (large.raw.send(&ask(4 * MIB)), client.raw.send(&ask(MIB)));
    assert_eq!((large.totals().free_bytes, client.totals().free_bytes), (MIB, MIB));
    client.done(&Request::Release { segment: leased.number });
    assert!(matches!(large.raw.reply(waits).0, Reply::Leased { .. }));
    assert!(matches!(client.raw.reply(waits_at_quota).0, Reply::Leased { .. }));
}

#[test]
fn who_waits_at_a_quota_takes_names_of_its_own_only() {
    let store = TestStore::with(|config| config.client_bytes_max(4 * MIB));
    let (mut client, mut other) = (store.client(), store.client());
    for (owner, name) in [(&mut client, b"mine".as_slice()), (&mut other, b"theirs".as_slice())] {
        let leased = owner.lease(4 * MIB);
        let object = owner.seal(0, &leased, 0, &[]);
        assert_eq!(owner.publish(name, object), Reply::Done {});
    }
    client.refusal(&Request::Lease { bytes: MIB, timeout_ms: 1 });
    assert_eq!(other.lookup(b"mine"), Reply::Failed { refusal: Refusal::NoSuchName {} });
    assert!(matches!(other.lookup(b"theirs"), Reply::Found { .. }));
}

#[test]
fn all_clients_of_a_user_share_its_quota_with_the_dead() {
    let store = TestStore::with(|config| config.user_bytes_max(8 * MIB));
    let (mut one, mut two) = (store.client(), store.client());
    let leased = one.lease(5 * MIB);
    let object = one.seal(0, &leased, 0, &[]);
    two.attach(one.owner);
    two.pins_on(one.owner).set(0, HELD);
    let refusal = two.refusal(&Request::Lease { bytes: 4 * MIB, timeout_ms: 1 });
    assert_eq!(refusal, quota("user_bytes_max", 8 * MIB, 5 * MIB, 4 * MIB));
    let owner = one.owner;
    drop(one);
    eventually("it is taken over", || two.totals().dead_clients == 1);
    let refusal = two.refusal(&Request::Lease { bytes: 4 * MIB, timeout_ms: 1 });
    assert_eq!(refusal, quota("user_bytes_max", 8 * MIB, 5 * MIB, 4 * MIB));
    assert_eq!(object.owner(), owner);
    two.pins_on(owner).set(0, 0);
    assert_eq!(two.lease_within(4 * MIB, 60_000).bytes, 4 * MIB);
}

#[test]
fn who_is_at_its_quota_holds_up_nobody() {
    let store = TestStore::with(|config| {
        config.client_bytes_max(4 * MIB).lease_reservation(std::time::Duration::ZERO)
    });
    let (mut client, mut other) = (store.client(), store.client());
    client.lease(4 * MIB);
    client.raw.send(&Request::Lease { bytes: MIB, timeout_ms: u64::MAX });
    client.totals();
    for _ in 0..4 {
        let leased = other.lease(4 * MIB);
        other.done(&Request::Release { segment: leased.number });
    }
}

#[test]
fn every_number_of_things_that_a_client_has_is_limited() {
    let store = TestStore::with(|config| {
        config
            .segments_client_max(2)
            .channels_client_max(1)
            .attached_client_max(1)
            .table_entries_initial(64)
            .table_entries_max(100)
    });
    let (mut client, mut peer, mut third) = (store.client(), store.client(), store.client());
    client.lease(PAGE_BYTES);
    client.lease(PAGE_BYTES);
    let lease = Request::Lease { bytes: PAGE_BYTES, timeout_ms: u64::MAX };
    assert_eq!(client.refusal(&lease), limit("segments_client_max", 2));
    peer.lease(PAGE_BYTES);

    client.call(&Request::Connect { peer: peer.owner });
    // Either end counts.
    let refusal = third.refusal(&Request::Connect { peer: peer.owner });
    assert_eq!(refusal, limit("channels_client_max", 1));

    client.attach(peer.owner);
    client.attach(peer.owner);
    let refusal = client.refusal(&Request::Attach { owner: third.owner });
    assert_eq!(refusal, limit("attached_client_max", 1));
    client.done(&Request::Detach { owner: peer.owner });
    client.attach(third.owner);

    assert_eq!(client.call(&Request::GrowTable { entries: 65 }).0, Reply::TableGrown { entries: 100 });
    let refusal = client.refusal(&Request::GrowTable { entries: 101 });
    assert_eq!(refusal, limit("table_entries_max", 100));
}

#[test]
fn tables_pins_and_channels_have_a_limit_of_their_own() {
    // Of a client with 64 entries: a page, 64 bytes each for them, and two pins of four bytes.
    const CLIENT: u64 = PAGE_BYTES + 64 * (64 + 8);
    let store =
        TestStore::with(|config| config.table_entries_initial(64).bookkeeping_bytes_max(2 * CLIENT + 64 * 4));
    let (mut one, two) = (store.client(), store.client());
    one.attach(two.owner);
    let full = |used, requested| quota("bookkeeping_bytes_max", 2 * CLIENT + 256, used, requested);
    assert_eq!(one.refusal(&Request::GrowTable { entries: 65 }), full(2 * CLIENT + 256, 64 * 72));
    assert!(matches!(one.refusal(&Request::Connect { peer: two.owner }), Refusal::QuotaReached { .. }));
    let mut third = common::RawClient::new(store.connect());
    let (reply, _) = third.call(&Request::Hello { label: "third".into(), serial: 1 });
    assert_eq!(reply, Reply::Failed { refusal: full(2 * CLIENT + 256, CLIENT) });
    // The bookkeeping memory of a client that has left is free for the next one.
    drop(two);
    eventually("there is room again", || one.totals().clients == 1);
    store.client();
}
