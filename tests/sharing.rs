//! Sharing: if these fail, a process reads other bytes than were put, loses what it holds, keeps what it dropped, or
//! finds under a name what does not belong there.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use bytes::Bytes;
use mobula::arrow::buffer::Buffer;
use mobula_client::{Client, ClientError, Layout, Object, ObjectId, Refusal};
use mobula_tests::{
    PATIENCE, Random, Store, error_kind, eventually, fill, is_content_of, kind_of, put_content, put_layout,
};

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const CAPACITY: u64 = 32 << 20;

/// Waits until an object is gone: its owner notices by itself that its readers have let go.
fn is_gone(client: &Client, id: ObjectId) {
    // A deleted object is not there either, but `Deleted`, until its last holder has let go.
    eventually("the object is gone", || matches!(client.get(id), Err(ClientError::NoSuchObject { .. })));
}

// ---- bytes ----

#[test]
fn what_one_process_puts_another_reads_at_once_byte_for_byte() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut one, mut other) = (store.peer(), store.peer());
    for length in [0, 1, 7, 8, 9, 100, 4096, 65_537, 1 << 20, 5_000_001] {
        let id = one.id(format_args!("put {length}"));
        let object = client.get(id).unwrap();
        assert_eq!(object.len(), length);
        assert!(is_content_of(&object, id), "{length} bytes");
        other.ok(format_args!("get {id}"));
        let mine = put_content(&client, length as u64).unwrap();
        one.ok(format_args!("get {}", mine.id()));
        other.ok(format_args!("get {}", mine.id()));
        for peer in [&mut one, &mut other] {
            peer.ok(format_args!("drop {id}"));
            peer.ok(format_args!("drop {}", mine.id()));
        }
    }
    store.is_empty_again(&client);
}

#[test]
fn an_object_carries_its_format_and_its_references() {
    let store = Store::start(PEER, CAPACITY);
    let (client, reader) = (store.client(), store.client());
    let inner: Vec<_> = (0..3).map(|_| put_content(&client, 10).unwrap()).collect();
    for length in [0, 1, 1000] {
        let references = inner.iter().map(Object::handle).collect();
        let outer = put_layout(&client, Layout::new(length).format(77).references(references)).unwrap();
        let read = reader.get(outer.id()).unwrap();
        assert_eq!((read.len() as u64, read.format()), (length, 77));
        assert_eq!(read.references(), inner.iter().map(Object::id).collect::<Vec<_>>());
        assert!(is_content_of(&read, outer.id()));
    }
}

#[test]
fn a_reader_that_writes_into_an_object_dies_and_changes_nothing() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let object = put_content(&client, 1000).unwrap();
    assert_eq!(peer.ask(format_args!("scribble {}", object.id())).unwrap_err(), "Gone");
    assert_eq!(peer.wait().signal(), Some(libc::SIGSEGV));
    assert!(is_content_of(&object, object.id()));
}

#[test]
fn bytes_and_buffers_of_an_object_are_its_memory_and_outlive_everything_else() {
    let store = Store::start(PEER, CAPACITY);
    let mut peer = store.peer();
    let client = store.client();
    let mine = put_content(&client, 10_000).unwrap();
    let theirs = client.get(peer.id("put 20000")).unwrap();
    let ids = [mine.id(), theirs.id()];
    let addresses = [mine.as_ptr(), theirs.as_ptr()];
    let [mine_bytes, theirs_bytes] = [Bytes::from(mine.clone()), Bytes::from(theirs.clone())];
    let [mine_buffer, theirs_buffer] = [Buffer::from(Bytes::from(mine)), Buffer::from(Bytes::from(theirs))];
    drop(client);
    for (at, (bytes, buffer)) in
        [(&mine_bytes, &mine_buffer), (&theirs_bytes, &theirs_buffer)].iter().enumerate()
    {
        assert_eq!((bytes.as_ptr(), buffer.as_ptr()), (addresses[at], addresses[at]), "copied");
    }
    // Their owners let go, one by ending.
    peer.ok(format_args!("drop {}", ids[1]));
    peer.kill();
    let other = store.client();
    for _ in 0..20 {
        drop(put_content(&other, 1 << 20).unwrap());
    }
    let slice = theirs_bytes.slice(..);
    drop(theirs_bytes);
    for (bytes, id) in
        [(&mine_bytes[..], ids[0]), (&slice, ids[1]), (&mine_buffer, ids[0]), (&theirs_buffer, ids[1])]
    {
        assert!(is_content_of(bytes, id), "object {id}");
    }
    drop((mine_bytes, mine_buffer, slice, theirs_buffer));
    store.is_empty_again(&other);
    eventually("the clients are gone", || other.stats().unwrap().totals.clients == 1);
}

#[test]
fn an_object_of_a_client_that_is_gone_can_still_be_used_in_every_way() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let object = put_content(&client, 100).unwrap();
    drop(client);
    let handle = object.handle();
    drop(object);
    let object = handle.object().unwrap();
    assert!(is_content_of(&object.clone(), object.id()));
    let other = store.client();
    assert!(is_content_of(&other.get(object.id()).unwrap(), object.id()));
}

// ---- unsealed and deleted ----

#[test]
fn what_is_not_sealed_cannot_be_had_by_anybody() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let mut writer = client.create(Layout::new(100)).unwrap();
    let id = writer.id();
    fill(&mut writer, id);
    assert_eq!(error_kind(client.get(id)), "NoSuchObject");
    assert_eq!(peer.ask(format_args!("get {id}")).unwrap_err(), "NoSuchObject");
    assert_eq!(error_kind(client.publish("unsealed", id)), "NoSuchObject");
    let object = writer.seal();
    assert_eq!(object.id(), id);
    peer.ok(format_args!("get {id}"));
}

#[test]
fn the_id_of_an_aborted_object_never_comes_to_mean_another() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let mut aborted: Vec<ObjectId> = Vec::new();
    for _ in 0..3000 {
        aborted.push(client.create(Layout::new(64)).unwrap().id());
    }
    // A promise is kept with the memory of a writer, whose own id is then nobody's.
    let promise = client.promise().unwrap();
    let writer = client.create(Layout::new(64)).unwrap();
    aborted.push(writer.id());
    let promised = promise.handle().clone();
    promise.fulfil(writer);
    assert!(promised.is_ready().unwrap());
    // So many objects that every entry is used again.
    let objects: Vec<_> = (0..6000).map(|_| put_content(&client, 64).unwrap()).collect();
    for id in &aborted {
        assert_eq!(error_kind(client.get(*id)), "NoSuchObject", "{id}");
        assert!(objects.iter().all(|object| object.id() != *id));
    }
    for id in aborted.iter().step_by(100) {
        assert_eq!(peer.ask(format_args!("get {id}")).unwrap_err(), "NoSuchObject");
    }
    drop((objects, promised));
    store.is_empty_again(&client);
}

#[test]
fn a_deleted_object_stays_with_those_who_have_it_and_nobody_else_gets_it() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut holder, mut stranger) = (store.peer(), store.peer());
    let object = put_content(&client, 1000).unwrap();
    let id = object.id();
    holder.ok(format_args!("get {id}"));
    client.delete(id).unwrap();
    assert_eq!(error_kind(client.delete(id)), "NoSuchObject");
    assert_eq!(stranger.ask(format_args!("get {id}")).unwrap_err(), "Deleted");
    assert_eq!(error_kind(client.get(id)), "Deleted");
    assert!(!client.contains(id).unwrap());
    assert!(is_content_of(&object, id));
    // A handle that there was before still gives the bytes.
    assert!(is_content_of(&object.handle().object().unwrap(), id));
    drop(object);
    for _ in 0..1000 {
        drop(put_content(&client, 1000).unwrap());
    }
    holder.ok("verify");
    holder.ok(format_args!("drop {id}"));
    is_gone(&client, id);
    store.is_empty_again(&client);
}

#[test]
fn an_object_is_there_exactly_while_somebody_holds_it() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let object = put_content(&client, 1000).unwrap();
    let id = object.id();
    assert!(client.contains(id).unwrap());
    // By a handle here.
    let handle = object.handle();
    drop(object);
    assert!(client.contains(id).unwrap());
    // By a handle elsewhere.
    peer.ok(format_args!("hold {id}"));
    drop(handle);
    assert!(client.contains(id).unwrap());
    // By bytes elsewhere.
    peer.ok(format_args!("drop {id}"));
    let object = client.get(id);
    // The owner may or may not have noticed yet; a client that gets it in between has it.
    if let Ok(object) = &object {
        assert!(is_content_of(object, id));
    }
    drop(object);
    is_gone(&client, id);
    assert_eq!(peer.ask(format_args!("get {id}")).unwrap_err(), "NoSuchObject");
}

// ---- names ----

#[test]
fn a_name_leads_to_its_object_until_it_is_taken_away() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let object = put_content(&client, 1000).unwrap();
    let id = object.id();
    assert_eq!(client.lookup("it").unwrap(), None);
    client.publish("it", id).unwrap();
    client.publish("it", id).expect("the same again is the same");
    client.publish(b"\x00\xff", id).expect("not only text");
    // The name alone keeps it.
    drop(object);
    assert_eq!(client.lookup("it").unwrap(), Some(id));
    assert_eq!(peer.id("get-named it"), id);
    peer.ok(format_args!("drop {id}"));
    let info = &client.list().unwrap()[0];
    assert!(info.named && info.object == id);
    client.unpublish("it").unwrap();
    assert_eq!(error_kind(client.unpublish("it")), "NoSuchName");
    assert_eq!(client.lookup("it").unwrap(), None);
    assert!(client.contains(id).unwrap(), "it has another name");
    client.unpublish(b"\x00\xff").unwrap();
    is_gone(&client, id);
    store.is_empty_again(&client);
}

#[test]
fn a_name_belongs_to_one_object_at_a_time() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let (first, second) = (put_content(&client, 1).unwrap(), peer.id("put 1"));
    client.publish("mine", first.id()).unwrap();
    match client.publish("mine", second).unwrap_err() {
        ClientError::Refused(Refusal::NameTaken { object }) => assert_eq!(object, first.id()),
        other => panic!("{other}"),
    }
    assert_eq!(peer.ask(format_args!("publish mine {second}")).unwrap_err(), "NameTaken");
    client.unpublish("mine").unwrap();
    peer.ok(format_args!("publish mine {second}"));
    assert_eq!(client.lookup("mine").unwrap(), Some(second));
    // A deleted object has no use for its name.
    client.publish("other", first.id()).unwrap();
    client.delete(first.id()).unwrap();
    assert_eq!(client.lookup("other").unwrap(), None);
    client.publish("other", second).unwrap();
}

#[test]
fn names_are_listed_in_order_however_many_there_are() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let object = put_content(&client, 1).unwrap();
    // More than one message holds.
    let mut expected: Vec<String> = (0..2000).map(|n| format!("{:->40}", n * 7919 % 2000)).collect();
    for name in &expected {
        client.publish(name, object.id()).unwrap();
    }
    expected.sort();
    let listed = client.names().unwrap();
    assert!(listed.iter().all(|info| info.object == object.id()));
    let names: Vec<String> = listed.into_iter().map(|info| String::from_utf8(info.name).unwrap()).collect();
    assert_eq!(names, expected);
    assert_eq!(client.stats().unwrap().totals.names, 2000);
}

#[test]
fn names_have_bounds() {
    let store = Store::start(PEER, CAPACITY);
    let object = put_content(&store.client(), 1).unwrap();
    let client = store.client();
    client.publish([b'x'; 1024], object.id()).unwrap();
    assert_eq!(client.lookup([b'x'; 1024]).unwrap(), Some(object.id()));
    for length in [1025, 100_000] {
        assert_eq!(error_kind(client.publish(vec![b'x'; length], object.id())), "LimitReached");
        assert_eq!(error_kind(client.lookup(vec![b'x'; length])), "LimitReached");
        assert_eq!(error_kind(client.unpublish(vec![b'x'; length])), "LimitReached");
    }
    assert_eq!(client.lookup("").unwrap(), None);
    assert_eq!(error_kind(client.unpublish("")), "NoSuchName");
    assert_eq!(error_kind(client.publish("", object.id())), "BadRequest");
    // The client can go on after any of these requests.
    assert_eq!(client.names().unwrap().len(), 1);
}

#[test]
fn who_waits_for_a_name_gets_it_when_it_comes() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut waiter, mut second_waiter) = (store.peer(), store.peer());
    waiter.send("get-named later");
    second_waiter.send("get-named later");
    assert_eq!(error_kind(client.get_named("later", Duration::ZERO)), "NoSuchName");
    assert_eq!(error_kind(client.get_named("later", Duration::from_millis(20))), "NoSuchName");
    let object = put_content(&client, 1000).unwrap();
    client.publish("later", object.id()).unwrap();
    for waiter in [&mut waiter, &mut second_waiter] {
        assert_eq!(waiter.answer().as_deref(), Ok(&*object.id().to_string()));
    }
    // And this process can wait for another, while its other threads go on.
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| client.get_named("elsewhere", PATIENCE).map(|object| object.id()));
        client.stats().unwrap();
        let theirs = waiter.id("put 10");
        waiter.ok(format_args!("publish elsewhere {theirs}"));
        assert_eq!(wait.join().unwrap().unwrap(), theirs);
    });
}

// ---- promises ----

#[test]
fn who_waits_for_a_promised_object_gets_it_when_it_is_there() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut maker, mut waiter) = (store.peer(), store.peer());
    for length in [0, 1, 100_000] {
        let id = maker.id("promise");
        assert_eq!(error_kind(client.get(id)), "NotReady");
        assert!(!client.contains(id).unwrap());
        waiter.send(format_args!("wait {id}"));
        maker.ok(format_args!("fulfil {id} {length}"));
        assert_eq!(waiter.answer().as_deref(), Ok(&*id.to_string()));
        assert!(is_content_of(&client.get(id).unwrap(), id));
    }
    // One that is dropped is lost at once, for those who wait as well.
    let promise = client.promise().unwrap();
    let kept = promise.handle().clone();
    waiter.send(format_args!("wait {}", kept.id()));
    eventually("the waiter waits", || kept.is_held_elsewhere(2));
    drop(promise);
    assert_eq!(waiter.answer().unwrap_err(), "Lost");
    assert_eq!(kind_of(&kept.object().unwrap_err()), "Lost");
    assert_eq!(error_kind(client.get(kept.id())), "Lost");
}

// ---- keeping ----

#[test]
fn memory_that_somebody_pins_is_never_used_again() {
    const STEPS: u64 = 20_000;
    let store = Store::start(PEER, 4 << 20);
    let client = store.client();
    let mut random = Random::from_environment();
    let mut readers = [store.peer(), store.peer()];
    for reader in &mut readers {
        reader.send(format_args!("look-seed {}", 1 + random.below(u64::MAX)));
    }
    let mut live: Vec<Object> = Vec::new();
    let mut past: Vec<ObjectId> = Vec::new();
    for _ in 0..STEPS {
        match random.below(8) {
            0..=2 => {
                let length_max = [100, 3000, 40_000][random.below(3) as usize];
                let length = random.below(length_max);
                let object = put_content(&client, length).unwrap();
                past.push(object.id());
                live.push(object);
            }
            3..=5 if !live.is_empty() => {
                let victim = random.below(live.len() as u64) as usize;
                drop(live.swap_remove(victim));
            }
            // A reader looks, at any moment from now on, at an object that lives or that has lived.
            _ if !past.is_empty() => {
                let recent = past.len() - random.below(past.len().min(30) as u64) as usize - 1;
                let reader = &mut readers[random.below(2) as usize];
                assert!(reader.send(format_args!("look {}", past[recent])), "{:?}", reader.answer());
            }
            _ => {}
        }
        if live.len() > 20 {
            drop(live.swap_remove(random.below(20) as usize));
        }
    }
    assert!(live.iter().all(|object| is_content_of(object, object.id())));
    drop(live);
    for reader in &mut readers {
        println!("read and gone: {}", reader.ok("look-report"));
    }
    store.is_empty_again(&client);
}

#[test]
fn a_pin_keeps_bytes_that_their_owner_has_dropped_while_it_puts_a_lot_more() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let mut random = Random::from_environment();
    let mut kept = Vec::new();
    for round in 0..200 {
        let objects: Vec<_> = (0..10).map(|_| put_content(&client, random.below(100_000)).unwrap()).collect();
        let one = objects[random.below(10) as usize].id();
        peer.ok(format_args!("get {one}"));
        kept.push(one);
        drop(objects);
        if round % 20 == 19 {
            peer.ok("verify");
            for id in kept.drain(..) {
                peer.ok(format_args!("drop {id}"));
            }
        }
    }
    store.is_empty_again(&client);
}

#[test]
fn an_object_keeps_what_it_refers_to_alive() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut maker, mut reader) = (store.peer(), store.peer());
    // A chain across two owners: ours refers to theirs, which refers to ours.
    let innermost = put_content(&client, 1000).unwrap();
    let inner = maker.id(format_args!("put-with 10 {}", innermost.id()));
    let references = vec![client.hold(inner).unwrap()];
    let outer = put_layout(&client, Layout::new(5).references(references)).unwrap();
    let ids = [innermost.id(), inner, outer.id()];
    drop(innermost);
    maker.ok(format_args!("drop {inner}"));
    reader.ok(format_args!("hold {}", outer.id()));
    drop(outer);
    // Only the reader's handle on the outermost is left.
    for _ in 0..100 {
        drop(put_content(&client, 10_000).unwrap());
        let id = maker.id("put 1000");
        maker.ok(format_args!("drop {id}"));
    }
    for id in ids {
        reader.ok(format_args!("get {id}"));
        reader.ok(format_args!("drop {id}"));
        // The outermost must be held throughout.
        if id != ids[2] {
            reader.ok(format_args!("hold {}", ids[2]));
        }
    }
    for id in ids {
        is_gone(&client, id);
    }
    store.is_empty_again(&client);
}

#[test]
fn an_object_keeps_what_it_refers_to_alive_after_its_owner_has_died() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut maker, mut reader, mut bystander) = (store.peer(), store.peer(), store.peer());
    let mine = put_content(&client, 1000).unwrap();
    let theirs = maker.id("put 2000");
    let others = bystander.id("put 3000");
    let outer = maker.id(format_args!("put-with 10 {} {theirs} {others}", mine.id()));
    reader.ok(format_args!("hold {outer}"));
    let my_id = mine.id();
    drop(mine);
    bystander.ok(format_args!("drop {others}"));
    maker.kill();
    eventually("the daemon has taken over its objects", || client.stats().unwrap().totals.dead_clients == 1);
    // And the owner of another one dies after it.
    bystander.kill();
    eventually("so has this one's", || client.stats().unwrap().totals.dead_clients == 2);
    for _ in 0..100 {
        drop(put_content(&client, 10_000).unwrap());
    }
    for id in [my_id, theirs, others, outer] {
        assert!(is_content_of(&client.get(id).unwrap(), id), "{id}");
    }
    reader.ok(format_args!("drop {outer}"));
    for id in [outer, my_id, theirs, others] {
        is_gone(&client, id);
    }
    store.is_empty_again(&client);
}
