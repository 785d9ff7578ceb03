//! Names: published, waited for, taken away, and gone with their objects. If this fails, a lookup finds what is not
//! there, or hangs although it is.

mod common;

use common::{Client, TestStore, eventually};
use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{NAME_BYTES_MAX, Refusal, Reply, Request};
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::table::State;

fn sealed(client: &mut Client, index: u32) -> ObjectId {
    let segment = client.lease(PAGE_BYTES);
    client.seal(index, &segment, 0, &[])
}

#[test]
fn a_name_stands_for_one_object_until_it_is_taken_away() {
    let store = TestStore::start();
    let (mut owner, mut other) = (store.client(), store.client());
    let (first, second) = (sealed(&mut owner, 0), sealed(&mut owner, 1));
    assert_eq!(owner.publish(b"x", first), Reply::Done {});
    assert_eq!(other.publish(b"x", first), Reply::Done {});
    let taken = Refusal::NameTaken { object: first };
    assert_eq!(other.publish(b"x", second), Reply::Failed { refusal: taken });
    assert_eq!(other.lookup(b"x"), Reply::Found { object: first });
    other.done(&Request::Unpublish { name: b"x".to_vec() });
    assert_eq!(other.lookup(b"x"), Reply::Failed { refusal: Refusal::NoSuchName {} });
    assert_eq!(other.refusal(&Request::Unpublish { name: b"x".to_vec() }), Refusal::NoSuchName {});
}

#[test]
fn a_lookup_waits_for_its_name_and_not_for_others() {
    let store = TestStore::start();
    let (mut owner, mut other) = (store.client(), store.client());
    let object = sealed(&mut owner, 0);
    let mut wait = |name: &[u8]| {
        let timeout_ms = u64::MAX;
        other.raw.send(&Request::Lookup { name: name.to_vec(), timeout_ms })
    };
    let (first, second, third) = (wait(b"x"), wait(b"xx"), wait(b"x"));
    assert_eq!(owner.publish(b"x", object), Reply::Done {});
    assert_eq!(other.raw.reply(first).0, Reply::Found { object });
    assert_eq!(other.raw.reply(third).0, Reply::Found { object });
    assert_eq!(owner.publish(b"xx", object), Reply::Done {});
    assert_eq!(other.raw.reply(second).0, Reply::Found { object });
}

#[test]
fn a_lookup_gives_up_at_its_timeout() {
    let store = TestStore::start();
    let mut client = store.client();
    let refusal = client.refusal(&Request::Lookup { name: b"never".to_vec(), timeout_ms: 20 });
    assert_eq!(refusal, Refusal::NoSuchName {});
}

#[test]
fn only_objects_that_exist_get_names() {
    let store = TestStore::start();
    let mut client = store.client();
    let object = sealed(&mut client, 0);
    let owner = client.owner;
    for missing in [
        ObjectId::new(owner, 0, 1),
        ObjectId::new(owner, 1, 0),
        ObjectId::new(owner, u32::MAX, 0),
        ObjectId::new(OwnerId::new(owner.slot(), owner.epoch() + 1), 0, 0),
        ObjectId::new(OwnerId::new(u16::MAX, 1), 0, 0),
        ObjectId::new(OwnerId::new(0, 0), 0, 0),
    ] {
        let refusal = Refusal::NoSuchObject { object: missing };
        assert_eq!(client.publish(b"x", missing), Reply::Failed { refusal });
    }
    assert_eq!(client.publish(b"x", object), Reply::Done {});
    client.set(0, 0, State::Deleted);
    assert_eq!(client.lookup(b"x"), Reply::Failed { refusal: Refusal::NoSuchName {} });
    assert_eq!(client.totals().names, 0);
}

#[test]
fn an_owner_stopped_while_it_looks_for_pins_stops_nobody() {
    let store = TestStore::start();
    let mut client = store.client();
    let object = sealed(&mut client, 0);
    client.set(0, 0, State::Dying);
    assert_eq!(client.publish(b"x", object), Reply::Done {});
    client.set(0, 1, State::Free);
    assert_eq!(client.lookup(b"x"), Reply::Failed { refusal: Refusal::NoSuchName {} });
}

#[test]
fn a_name_keeps_the_object_of_a_dead_owner() {
    let store = TestStore::start();
    let (mut owner, mut other) = (store.client(), store.client());
    let (object, id) = (sealed(&mut owner, 0), owner.owner);
    let promise = owner.set(1, 0, State::Promised);
    assert_eq!(owner.publish(b"kept", object), Reply::Done {});
    assert_eq!(owner.publish(b"lost", promise), Reply::Done {});
    drop(owner);
    eventually("the owner is taken over", || other.totals().dead_clients == 1);
    assert_eq!(other.lookup(b"kept"), Reply::Found { object });
    assert_eq!(other.lookup(b"lost"), Reply::Failed { refusal: Refusal::NoSuchName {} });
    assert_eq!(other.publish(b"again", object), Reply::Done {});
    other.done(&Request::Unpublish { name: b"kept".to_vec() });
    assert_eq!(other.lookup(b"again"), Reply::Found { object });
    other.done(&Request::Unpublish { name: b"again".to_vec() });
    eventually("the owner is forgotten", || other.totals().dead_clients == 0);
    assert_eq!(other.refusal(&Request::Attach { owner: id }), Refusal::NoSuchOwner { owner: id });
}

#[test]
fn limits_and_impossible_names() {
    let store = TestStore::with(|config| config.names_max(1));
    let mut client = store.client();
    let object = sealed(&mut client, 0);
    let long = vec![b'x'; NAME_BYTES_MAX + 1];
    let too_long = Refusal::LimitReached { limit: "name_bytes_max".into(), max: NAME_BYTES_MAX as u64 };
    assert_eq!(client.publish(&long, object), Reply::Failed { refusal: too_long });
    assert_eq!(client.publish(&long[1..], object), Reply::Done {});
    let refusal = Refusal::LimitReached { limit: "names_max".into(), max: 1 };
    assert_eq!(client.publish(b"second", object), Reply::Failed { refusal });
    client.raw.send(&Request::Publish { name: Vec::new(), object });
    client.raw.expect_refusal_and_end("empty name");
}

#[test]
fn names_and_objects_are_listed_page_by_page() {
    let store = TestStore::with(|config| config.table_entries_initial(2048));
    let mut client = store.client();
    let segment = client.lease(PAGE_BYTES);
    let objects: Vec<_> = (0..2000).map(|index| client.seal(index, &segment, 0, &[])).collect();
    let mut expected = Vec::new();
    for object in &objects[..100] {
        let name = format!("{:01000}", object.index()).into_bytes();
        assert_eq!(client.publish(&name, *object), Reply::Done {});
        expected.push((name, *object));
    }
    let (mut listed, mut after, mut pages) = (Vec::new(), Vec::new(), 0);
    loop {
        let Reply::Names { names, more } = client.call(&Request::ListNames { after }).0 else { panic!() };
        listed.extend(names.into_iter().map(|info| (info.name, info.object)));
        after = listed.last().unwrap().0.clone();
        pages += 1;
        if !more {
            break;
        }
    }
    assert!(pages > 1);
    assert_eq!(listed, expected);

    let (mut listed, mut cursor) = (Vec::new(), Some(0));
    while let Some(at) = cursor {
        let Reply::Objects { objects, next } = client.call(&Request::ListObjects { cursor: at }).0 else {
            panic!()
        };
        listed.extend(objects);
        cursor = next;
    }
    assert_eq!(listed.iter().map(|info| info.object).collect::<Vec<_>>(), objects);
    assert_eq!(listed.iter().filter(|info| info.named).count(), 100);
    assert!(listed.iter().all(|info| (info.bytes, info.format, info.holders) == (64, 7, 0)));

    let Reply::Clients { clients, next: None } = client.call(&Request::ListClients { cursor: 0 }).0 else {
        panic!()
    };
    let info = &clients[0];
    assert_eq!((info.owner, info.label.as_str(), info.pid), (client.owner, "test", std::process::id()));
    assert_eq!((info.objects, info.object_bytes, info.leased_bytes), (2000, 128_000, PAGE_BYTES));
}
