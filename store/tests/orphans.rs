//! Clients die, and their objects stay exactly as long as others use them. If this fails, a reader's bytes change under
//! it, a waiter hangs on a promise that nobody keeps, or a store fills up with objects that nobody can reach.

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Client, MIB, SOON, TestStore, eventually};
use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Refusal, Reply, Request, Totals};
use mobula_shm::mapping::ReadMapping;
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::{HELD, MAPPED, PinReader, WAITING};
use mobula_shm::table::{Location, State, Word};

const LONG: Duration = Duration::from_secs(3600);

fn is_empty(totals: &Totals) -> bool {
    totals.free_bytes == totals.capacity_bytes && totals.dead_clients == 0 && totals.segments == 0
}

/// Sees that an owner has died and been taken over.
fn told_of_death(reader: &mut Client, owner: OwnerId) {
    reader.raw.notice(|notice| *notice == Notice::OwnerDied { owner });
}

/// Whether the daemon pins a client's entry.
fn daemon_holds(client: &Client, index: u32) -> bool {
    PinReader::map(client.daemon_control.as_fd(), client.owner.slot()).unwrap().get(index) != 0
}

#[test]
fn a_pin_keeps_an_object_of_the_dead_until_it_is_taken_back() {
    let store = TestStore::start();
    let (mut owner, mut reader) = (store.client(), store.client());
    let (kept, dropped) = (owner.lease(MIB), owner.lease(2 * MIB));
    kept.mapping.word64(8).store(42, Ordering::Relaxed);
    owner.seal(5, &kept, 0, &[]);
    owner.seal(6, &dropped, 0, &[]);
    let id = owner.owner;
    let table = reader.attach(id);
    let pins = reader.pins_on(id);
    pins.set(5, HELD);
    drop(owner);
    told_of_death(&mut reader, id);
    eventually("only what is pinned is left", || reader.totals().orphaned_bytes == MIB);

    assert_eq!(table.word(5), Word::new(0, State::Sealed));
    assert_eq!(table.word(6), Word::new(1, State::Free));
    assert_eq!(reader.call(&Request::Attach { owner: id }).0, Reply::Attached { dead: true });
    let (reply, descriptors) = reader.call(&Request::MapSegment { owner: id, segment: kept.number });
    assert_eq!(reply, Reply::SegmentMapped { bytes: MIB });
    let bytes = ReadMapping::map(descriptors[0].as_fd(), 0, MIB as usize).unwrap();
    assert_eq!(bytes.load64_relaxed(8), 42);

    pins.clear(5);
    let retired = Notice::SegmentRetired { owner: id, segment: kept.number };
    reader.raw.notice(|notice| *notice == retired);
    assert_eq!(reader.totals().retired_bytes, MIB, "memory that is still mapped was freed");
    reader.raw.notice(|notice| *notice == Notice::OwnerForgotten { owner: id });
    reader.done(&Request::Detach { owner: id });
    assert!(is_empty(&reader.totals()));
    assert_eq!(reader.refusal(&Request::Attach { owner: id }), Refusal::NoSuchOwner { owner: id });
}

#[test]
fn a_promise_of_the_dead_is_lost_and_who_waits_for_it_is_told() {
    let store = TestStore::start();
    let (owner, mut reader) = (store.client(), store.client());
    owner.set(3, 9, State::Promised);
    let id = owner.owner;
    let table = reader.attach(id);
    let pins = reader.pins_on(id);
    pins.set(3, HELD | WAITING);
    assert_eq!(table.word(3), Word::new(9, State::Promised));
    drop(owner);
    told_of_death(&mut reader, id);
    assert_eq!(table.word(3), Word::new(9, State::Lost));
    pins.clear(3);
    reader.raw.notice(|notice| *notice == Notice::OwnerForgotten { owner: id });
    assert_eq!(table.word(3), Word::new(10, State::Free));
}

#[test]
fn what_an_object_of_the_dead_refers_to_stays_pinned_with_it() {
    let store = TestStore::start();
    let (mut inner, mut outer, mut reader) = (store.client(), store.client(), store.client());
    let segment = inner.lease(PAGE_BYTES);
    let leaf = inner.seal(7, &segment, 0, &[]);
    let stale = ObjectId::new(inner.owner, 8, 3);
    outer.attach(inner.owner);
    outer.pins_on(inner.owner).set(7, HELD);
    let segment = outer.lease(PAGE_BYTES);
    let middle = outer.seal(1, &segment, 0, &[leaf, stale, leaf]);
    outer.seal(2, &segment, 256, &[middle]);
    let id = outer.owner;
    reader.attach(id);
    let pins = reader.pins_on(id);
    pins.set(2, HELD);
    drop(outer);

    // When the inner owner hears that the dead reader's pins are void, the daemon's must be there.
    inner.raw.notice(|notice| *notice == Notice::ReaderGone { reader: id });
    assert!(daemon_holds(&inner, 7), "the inner object could have been freed");
    assert!(!daemon_holds(&inner, 8), "an object that is not there is held");
    pins.clear(2);
    eventually("the references are let go", || !daemon_holds(&inner, 7));
    eventually("the dead owner is forgotten", || reader.totals().dead_clients == 0);
}

#[test]
fn references_across_two_dead_owners_unravel() {
    let store = TestStore::start();
    let (mut a, mut b, mut reader) = (store.client(), store.client(), store.client());
    let segment = a.lease(PAGE_BYTES);
    let leaf = a.seal(0, &segment, 0, &[]);
    let segment = b.lease(PAGE_BYTES);
    b.attach(a.owner);
    b.pins_on(a.owner).set(0, HELD);
    b.seal(0, &segment, 0, &[leaf]);
    let (a_id, b_id) = (a.owner, b.owner);
    let table = reader.attach(a_id);
    reader.attach(b_id);
    let pins = reader.pins_on(b_id);
    pins.set(0, HELD);
    drop(b);
    told_of_death(&mut reader, b_id);
    drop(a);
    told_of_death(&mut reader, a_id);
    assert_eq!(table.word(0), Word::new(0, State::Sealed));
    assert_eq!(reader.totals().dead_clients, 2);
    pins.clear(0);
    eventually("both are forgotten", || is_empty(&reader.totals()));
}

#[test]
fn what_was_made_to_refer_to_what_keeps_it_is_not_kept_for_ever() {
    let store = TestStore::start();
    let (mut mad, mut owner, mut reader) = (store.client(), store.client(), store.client());
    let segment = mad.lease(PAGE_BYTES);
    let first = mad.seal(0, &segment, 0, &[]);
    owner.attach(mad.owner);
    let theirs = owner.pins_on(mad.owner);
    theirs.set(0, HELD);
    let its_own = owner.lease(PAGE_BYTES);
    let later = owner.seal(3, &its_own, 0, &[first]);
    let harmless = owner.seal(4, &its_own, 256, &[]);
    mad.attach(owner.owner);
    let made_up = ObjectId::new(owner.owner, u32::MAX, 0);
    mad.seal(0, &segment, 0, &[later, harmless, made_up]);
    let id = mad.owner;
    reader.attach(id);
    drop(mad);
    told_of_death(&mut reader, id);
    // The owner of the later one lets go of it: nobody else has it, so it would be free.
    assert!(!daemon_holds(&owner, 3), "two objects keep each other for ever");
    assert!(daemon_holds(&owner, 4), "what leads nowhere is kept");
    theirs.clear(0);
    eventually("the rest goes", || !daemon_holds(&owner, 4));
    eventually("the dead owner is forgotten", || reader.totals().dead_clients == 0);
}

#[test]
fn who_waits_for_what_its_owner_has_just_brought_back_is_told_to_look_again() {
    let store = TestStore::start();
    let (mut owner, mut reader) = (store.client(), store.client());
    let segment = owner.lease(PAGE_BYTES);
    owner.seal(3, &segment, 0, &[]);
    let object = owner.set(3, 0, State::Spilled);
    let (id, table) = (owner.owner, reader.attach(owner.owner));
    reader.pins_on(id).set(3, HELD | MAPPED);
    let waiting = reader.raw.send(&Request::Restore { object, timeout_ms: SOON.as_millis() as u64 });
    owner.raw.notice(|notice| *notice == Notice::RestoreWanted { object });
    // It dies when the object is back, and before it has said so.
    owner.set(3, 0, State::Sealed);
    drop(owner);
    assert_eq!(reader.raw.reply(waiting).0, Reply::Done {});
    assert_eq!(table.word(3), Word::new(0, State::Sealed));
}

#[test]
fn who_leaves_nothing_is_forgotten_at_once_whatever_the_grace() {
    let store = TestStore::with(|config| config.orphan_grace(LONG));
    let (mut owner, mut reader) = (store.client(), store.client());
    owner.lease(MIB);
    let id = owner.owner;
    reader.attach(id);
    drop(owner);
    told_of_death(&mut reader, id);
    reader.raw.notice(|notice| *notice == Notice::OwnerForgotten { owner: id });
    assert!(is_empty(&reader.totals()));
}

#[test]
fn within_the_grace_what_nobody_pins_can_still_be_pinned() {
    let store = TestStore::with(|config| config.orphan_grace(LONG));
    let (mut owner, mut reader) = (store.client(), store.client());
    let segment = owner.lease(MIB);
    owner.seal(0, &segment, 0, &[]);
    let id = owner.owner;
    drop(owner);
    eventually("the owner is taken over", || reader.totals().dead_clients == 1);
    reader.refusal(&Request::Lease { bytes: 16 * MIB, timeout_ms: 0 });
    let table = reader.attach(id);
    reader.pins_on(id).set(0, HELD);
    assert_eq!(table.word(0), Word::new(0, State::Sealed));
    assert_eq!(reader.totals().orphaned_bytes, MIB);
}

#[test]
fn what_the_owner_was_doing_when_it_died_is_finished_or_undone() {
    let store = TestStore::start();
    let (mut owner, mut reader) = (store.client(), store.client());
    let segment = owner.lease(PAGE_BYTES);
    for index in 0..3 {
        owner.seal(index, &segment, 0, &[]);
    }
    owner.set(1, 0, State::Dying);
    owner.set(2, 0, State::Deleted);
    let id = owner.owner;
    let table = reader.attach(id);
    for index in 0..3 {
        reader.pins_on(id).set(index, HELD);
    }
    drop(owner);
    told_of_death(&mut reader, id);
    for (index, state) in [(0, State::Sealed), (1, State::Sealed), (2, State::Deleted)] {
        assert_eq!(table.word(index), Word::new(0, state));
    }
}

#[test]
fn the_pins_of_the_dead_hold_nothing_of_their_own() {
    let store = TestStore::start();
    let (mut owner, mut watcher) = (store.client(), store.client());
    let segment = owner.lease(MIB);
    owner.seal(0, &segment, 0, &[]);
    owner.pins_on(owner.owner).set(0, HELD);
    drop(owner);
    eventually("everything is given back", || watcher.totals().clients == 1 && is_empty(&watcher.totals()));
}

#[test]
fn a_reader_that_dies_pins_nothing_more() {
    let store = TestStore::start();
    let (mut owner, mut reader, mut watcher) = (store.client(), store.client(), store.client());
    let segment = owner.lease(MIB);
    owner.seal(0, &segment, 0, &[]);
    let (id, reader_id) = (owner.owner, reader.owner);
    reader.attach(id);
    owner.raw.notice(|notice| *notice == Notice::ReaderJoined { reader: reader_id });
    reader.pins_on(id).set(0, HELD);
    reader.call(&Request::MapSegment { owner: id, segment: segment.number });
    drop(owner);
    told_of_death(&mut reader, id);
    assert_eq!(watcher.totals().orphaned_bytes, MIB);
    drop(reader);
    eventually("everything is given back", || is_empty(&watcher.totals()));
}

#[test]
fn an_empty_object_of_the_dead_stays_although_it_lies_in_no_segment() {
    let store = TestStore::start();
    let (owner, mut reader) = (store.client(), store.client());
    owner.table.fill(3, &Location::default());
    owner.set(3, 0, State::Sealed);
    let id = owner.owner;
    let table = reader.attach(id);
    let pins = reader.pins_on(id);
    pins.set(3, HELD);
    drop(owner);
    told_of_death(&mut reader, id);
    reader.totals();
    assert_eq!(table.word(3), Word::new(0, State::Sealed));
    pins.clear(3);
    reader.raw.notice(|notice| *notice == Notice::OwnerForgotten { owner: id });
    assert_eq!(table.word(3), Word::new(1, State::Free));
}

#[test]
fn a_table_full_of_nonsense_harms_nobody() {
    let store = TestStore::with(|config| config.sweep_entries_max(100));
    let mut bystander = store.client();
    for round in 0..4u64 {
        let mut owner = store.client();
        let segment = owner.lease(MIB);
        let mut state = 0x9e37_79b9_7f4a_7c15 ^ round;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for index in 0..owner.entries {
            let few = random() % 4 == 0;
            let location = Location {
                segment: if few { random() as u32 } else { segment.number },
                offset: if few { random() } else { random() % MIB },
                length: if few { random() } else { random() % PAGE_BYTES },
                format: 0,
                references: if few { random() as u32 } else { (random() % 5) as u32 },
            };
            owner.table.fill(index, &location);
            let word = if few { random() } else { (random() << 32) | (random() % 7) };
            owner.table.word(index).store(word, Ordering::SeqCst);
        }
        drop(owner);
        eventually(&format!("round {round}: nothing is left"), || is_empty(&bystander.totals()));
    }
}

#[test]
fn large_tables_are_taken_over_in_slices() {
    let store = TestStore::with(|config| config.sweep_entries_max(7).table_entries_initial(4096));
    let (mut owner, mut reader) = (store.client(), store.client());
    let segment = owner.lease(PAGE_BYTES);
    for index in 0..1000 {
        owner.seal(index, &segment, 0, &[]);
    }
    owner.set(4000, 0, State::Promised);
    let id = owner.owner;
    let table = reader.attach(id);
    reader.pins_on(id).set(500, HELD);
    drop(owner);
    told_of_death(&mut reader, id);
    eventually("all but the pinned one are freed", || {
        let word = |index| table.word(index).state();
        (0..1000).all(|index| (word(index) == Some(State::Free)) == (index != 500))
            && word(4000) == Some(State::Free)
    });
    reader.done(&Request::Detach { owner: id });
    eventually("nothing is left", || is_empty(&reader.totals()));
}

#[test]
fn a_slot_is_used_again_only_when_every_reader_has_let_go() {
    let store = TestStore::with(|config| config.clients_max(2));
    let (owner, mut reader) = (store.client(), store.client());
    let id = owner.owner;
    reader.attach(id);
    reader.pins_on(id).set(0, HELD);
    drop(owner);
    reader.raw.notice(|notice| *notice == Notice::OwnerForgotten { owner: id });
    let mut refused = common::RawClient::new(store.connect());
    let limit = Refusal::LimitReached { limit: "clients_max".into(), max: 2 };
    let (reply, _) = refused.call(&Request::Hello { label: "third".into(), serial: 1 });
    assert_eq!(reply, Reply::Failed { refusal: limit });
    reader.done(&Request::Detach { owner: id });
    let next = store.client();
    assert_eq!(next.owner.slot(), id.slot());
    assert_ne!(next.owner.epoch(), id.epoch());
    reader.attach(next.owner);
    let pins = PinReader::map(reader.control.as_fd(), id.slot()).unwrap();
    assert_eq!(pins.get(0), 0, "a pin on the slot's last owner holds the next one's object");
}

#[test]
fn clients_that_come_and_go_leave_nothing() {
    let store = TestStore::start();
    let mut watcher = store.client();
    for round in 0..100u32 {
        let (mut a, mut b) = (store.client(), store.client());
        a.attach(b.owner);
        b.attach(a.owner);
        let segment = a.lease(PAGE_BYTES);
        let object = a.seal(round, &segment, 0, &[]);
        b.pins_on(a.owner).set(round, HELD);
        let name = round.to_string().into_bytes();
        assert_eq!(b.publish(&name, object), Reply::Done {});
        drop((a, b));
        eventually("the name is all that holds", || watcher.totals().dead_clients == 1);
        watcher.done(&Request::Unpublish { name });
        eventually("nothing is left", || is_empty(&watcher.totals()));
    }
}
