//! Death: if these fail, a process that is killed takes others with it: they hang, read wrong bytes or lose what they
//! hold; or what it had is never given back.

use std::time::Duration;

use mobula_client::{ClientError, ConnectOptions, Event, Object, Refusal};
use mobula_tests::{
    PATIENCE, Process, Random, Store, error_kind, eventually, is_content_of, kind_of, put_content,
};
use nix::sys::signal::Signal;

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const CAPACITY: u64 = 32 << 20;

// ---- a client dies ----

#[test]
fn objects_of_a_killed_owner_stay_with_those_who_hold_them_and_the_rest_goes() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut owner, mut holder, mut stranger) = (store.peer(), store.peer(), store.peer());
    let held = owner.id("put 100000");
    let handle_only = owner.id("put 1000");
    let named = owner.id("put 10");
    let unheld = owner.id("put 5000000");
    owner.ok(format_args!("publish kept {named}"));
    holder.ok(format_args!("get {held}"));
    holder.ok(format_args!("hold {handle_only}"));
    let mine = client.get(held).unwrap();
    owner.kill();
    eventually("the daemon has taken over", || client.stats().unwrap().totals.dead_clients == 1);
    eventually("what nobody holds is gone", || !client.contains(unheld).unwrap());
    assert_eq!(error_kind(client.get(unheld)), "NoSuchObject");
    // The rest is there, for those who hold it and for those who have never met its owner.
    holder.ok("verify");
    assert!(is_content_of(&mine, held));
    for id in [held, handle_only, named] {
        stranger.ok(format_args!("get {id}"));
        stranger.ok(format_args!("drop {id}"));
    }
    assert_eq!(stranger.id("get-named kept"), named);
    stranger.ok(format_args!("drop {named}"));
    drop(mine);
    holder.ok(format_args!("drop {handle_only}"));
    eventually("the handle is gone", || !client.contains(handle_only).unwrap());
    holder.ok("verify");
    holder.ok(format_args!("drop {held}"));
    client.unpublish("kept").unwrap();
    store.is_empty_again(&client);
}

#[test]
fn a_killed_reader_keeps_nothing() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut reader = store.peer();
    let objects: Vec<_> = (0..4).map(|_| put_content(&client, CAPACITY / 8).unwrap()).collect();
    for object in &objects {
        reader.ok(format_args!("get {}", object.id()));
        reader.ok(format_args!("hold {}", object.id()));
    }
    let ids: Vec<_> = objects.iter().map(Object::id).collect();
    drop(objects);
    // It keeps them while it lives, even if it does nothing at all.
    reader.signal(Signal::SIGSTOP);
    assert!(ids.iter().all(|id| client.contains(*id).unwrap()));
    reader.kill();
    // All the memory there is can be had again.
    drop(put_content(&client, CAPACITY).unwrap());
    store.is_empty_again(&client);
}

#[test]
fn what_a_killed_process_was_writing_is_reclaimed() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut writer = store.peer();
    let unsealed = writer.id(format_args!("begin {}", CAPACITY / 2));
    let also_unsealed = writer.id("begin 100");
    assert!(client.stats().unwrap().totals.leased_bytes > CAPACITY / 2);
    writer.kill();
    drop(put_content(&client, CAPACITY).unwrap());
    for id in [unsealed, also_unsealed] {
        assert_eq!(error_kind(client.get(id)), "NoSuchObject");
    }
    store.is_empty_again(&client);
}

#[test]
fn who_waits_for_what_a_killed_process_promised_is_told() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut owner, mut waiter) = (store.peer(), store.peer());
    let id = owner.id("promise");
    let handle = client.hold(id).unwrap();
    let events = client.events();
    waiter.send(format_args!("wait {id}"));
    eventually("the waiter waits", || client.list().unwrap()[0].holders == 3);
    owner.kill();
    assert_eq!(waiter.answer().unwrap_err(), "Lost");
    loop {
        match events.next_within(PATIENCE).expect("the death is told") {
            Event::OwnerDied(owner) if owner == id.owner() => break,
            _ => {}
        }
    }
    assert_eq!(kind_of(&handle.is_ready().unwrap_err()), "Lost");
    assert_eq!(error_kind(handle.object()), "Lost");
    drop(handle);
    store.is_empty_again(&client);
}

#[test]
fn a_stopped_process_holds_up_nobody() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut stopped, mut reader) = (store.peer(), store.peer());
    let theirs = stopped.id("put 1000");
    let mine = put_content(&client, 1000).unwrap();
    stopped.ok(format_args!("get {}", mine.id()));
    stopped.signal(Signal::SIGSTOP);
    reader.ok(format_args!("get {theirs}"));
    assert!(is_content_of(&client.get(theirs).unwrap(), theirs));
    reader.ok(format_args!("get {}", mine.id()));
    for _ in 0..1000 {
        drop(put_content(&client, 10_000).unwrap());
    }
    client.stats().unwrap();
    stopped.signal(Signal::SIGCONT);
    stopped.ok("verify");
}

#[test]
fn a_hundred_random_kills_leave_everything_in_order() {
    const KILLS: usize = 100;
    const PROCESSES: usize = 4;
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut random = Random::from_environment();
    let start = |random: &mut Random| {
        let mut peer = store.peer();
        peer.send(format_args!("churn {}", 1 + random.below(u64::MAX)));
        peer
    };
    let mut peers: Vec<Process> = (0..PROCESSES).map(|_| start(&mut random)).collect();
    let mut kept: Vec<Object> = Vec::new();
    for kill in 0..KILLS {
        let victim = random.below(PROCESSES as u64) as usize;
        // It dies somewhere in the middle of its next steps.
        for _ in 0..random.below(4) {
            assert_eq!(peers[victim].answer().as_deref(), Ok("step"), "kill {kill}");
        }
        peers[victim].kill();
        peers[victim] = start(&mut random);
        for (at, peer) in peers.iter_mut().enumerate() {
            while let Some(line) = peer.try_answer() {
                assert!(!line.starts_with("error"), "kill {kill}, process {at}: {line}");
            }
        }
        // This process reads along, and keeps some while their owners die.
        if let Some(id) = client.lookup(format!("name-{}", random.below(32))).unwrap()
            && let Ok(object) = client.get(id)
        {
            assert!(is_content_of(&object, id), "kill {kill}: {id}");
            kept.push(object);
        }
        if kept.len() > 8 {
            let object = kept.swap_remove(random.below(8) as usize);
            assert!(is_content_of(&object, object.id()), "kill {kill}: {}", object.id());
        }
    }
    peers.iter_mut().for_each(Process::kill);
    for object in &kept {
        assert!(is_content_of(object, object.id()), "{}", object.id());
        assert!(object.references().iter().all(|id| is_content_of(&client.get(*id).unwrap(), *id)));
    }
    drop(kept);
    // The daemon still carries out requests that a dead process had sent: such a request may publish a name, or take
    // one away.
    eventually("all deaths are noticed", || client.stats().unwrap().totals.clients == 1);
    for info in client.names().unwrap() {
        let result = client.unpublish(&info.name);
        // The daemon itself takes a name away whose object turns out to be lost with its owner.
        let is_gone = matches!(result, Ok(()) | Err(ClientError::Refused(Refusal::NoSuchName { .. })));
        assert!(is_gone, "{result:?}");
    }
    store.is_empty_again(&client);
}

// ---- the daemon dies ----

#[test]
fn a_killed_daemon_ends_what_needs_it_and_nothing_else() {
    let mut store = Store::start(PEER, CAPACITY);
    // Nobody will take its place, and they do not wait for that.
    let client = store.client_with(ConnectOptions::new().resume_timeout(Duration::ZERO));
    let events = client.events();
    let (mut peer, mut stranger) = (store.impatient_peer(), store.impatient_peer());
    let theirs = peer.id("put 10000");
    let promised = peer.id("promise");
    let strangers = stranger.id("put 10");
    let held = client.get(theirs).unwrap();
    let mine = put_content(&client, 1000).unwrap();
    peer.ok(format_args!("get {}", mine.id()));
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || error_kind(client.get_named("never", PATIENCE))
    });
    // Its request is behind the other's, so that one has been sent.
    eventually("a thread waits for a name", || client.stats().is_ok());
    store.daemon_process().kill();

    assert_eq!(waiting.join().unwrap(), "StoreLost");
    loop {
        if let Event::StoreLost = events.next_within(PATIENCE).expect("the loss is told") {
            break;
        }
    }
    assert_eq!(error_kind(client.stats()), "StoreLost");
    assert_eq!(error_kind(client.lookup("name")), "StoreLost");
    assert_eq!(error_kind(client.publish("name", mine.id())), "StoreLost");
    assert_eq!(error_kind(put_content(&client, CAPACITY / 2)), "StoreLost");
    assert_eq!(error_kind(client.get(strangers)), "StoreLost");
    assert_eq!(peer.ask("stats").unwrap_err(), "StoreLost");
    // Held objects stay, and leased memory is used as before.
    assert!(is_content_of(&held, theirs) && is_content_of(&mine, mine.id()));
    peer.ok("verify");
    for _ in 0..1000 {
        let object = put_content(&client, 1000).unwrap();
        peer.ok(format_args!("get {}", object.id()));
        peer.ok(format_args!("drop {}", object.id()));
    }
    assert!(is_content_of(&client.get(theirs).unwrap(), theirs));
    // Even promises between those who know each other.
    let handle = client.hold(promised).unwrap();
    let _watch = handle.watch().unwrap();
    peer.send(format_args!("fulfil {promised} 100"));
    while !handle.is_ready().unwrap() {
        client.sleep(Some(PATIENCE), || handle.is_ready().unwrap());
    }
    peer.answer().unwrap();
    assert!(is_content_of(&handle.object().unwrap(), promised));
}

#[test]
fn a_daemon_that_does_not_answer_is_waited_for_no_longer_than_one_is_willing_to() {
    let mut store = Store::start(PEER, CAPACITY);
    let other = store.client();
    let objects: Vec<_> = (0..200).map(|_| put_content(&other, 70_000).unwrap()).collect();
    let patience = Duration::from_millis(50);
    let impatient = || {
        let options = ConnectOptions::new().answer_timeout(patience).lease_timeout(patience);
        let mut client = None;
        eventually("the daemon answers in time", || {
            client = options.clone().connect(store.socket()).ok();
            client.is_some()
        });
        client.expect("just made")
    };
    let clients = [impatient(), impatient()];
    let mut read = Vec::new();
    for (client, object) in
        clients.iter().flat_map(|client| objects.iter().map(move |object| (client, object)))
    {
        eventually("the daemon answers in time", || {
            read.extend(client.get(object.id()));
            read.last().is_some_and(|last| last.id() == object.id())
        });
    }
    store.daemon_process().signal(Signal::SIGSTOP);
    // More than a socket holds.
    std::thread::scope(|scope| {
        for client in clients.iter().flat_map(|client| [client; 16]) {
            scope.spawn(|| {
                for _ in 0..32 {
                    assert_eq!(error_kind(client.stats()), "Timeout");
                }
            });
        }
    });
    for client in &clients {
        assert_eq!(error_kind(put_content(client, CAPACITY / 4)), "Timeout");
        assert!(is_content_of(&client.get(objects[0].id()).unwrap(), objects[0].id()));
    }
    // Letting go does not wait either, of everything or of a client.
    drop((read, objects));
    let [client, dropped] = clients;
    drop(dropped);
    store.daemon_process().signal(Signal::SIGCONT);
    eventually("the daemon answers again", || client.stats().is_ok());
    // Memory that was granted to clients that had given up is not lost.
    store.is_empty_again(&other);
    eventually("the other one is gone", || other.stats().unwrap().totals.clients == 2);
}

#[test]
fn a_new_daemon_takes_the_place_of_one_whose_clients_do_not_wait_for_that() {
    let mut store = Store::start(PEER, CAPACITY);
    let before = store.client_with(ConnectOptions::new().resume_timeout(Duration::ZERO));
    let events = before.events();
    let old = put_content(&before, 1000).unwrap();
    store.daemon_process().kill();
    assert!(matches!(events.next_within(PATIENCE), Some(Event::StoreLost)));
    store.start_again();
    let after = store.client();
    let new = put_content(&after, 1000).unwrap();
    assert_ne!(old.id(), new.id());
    // Ids of the store before mean nothing in this one, though they have the same slot and entry.
    assert_eq!(old.id().owner().slot(), new.id().owner().slot());
    assert_eq!(error_kind(after.get(old.id())), "NoSuchObject");
    assert_eq!(error_kind(store.client().get(old.id())), "NoSuchObject");
    assert!(is_content_of(&old, old.id()));
}

#[test]
fn nothing_is_left_behind_whoever_dies() {
    let mut store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let theirs = peer.id("put 1000000");
    let kept = client.get(theirs).unwrap();
    peer.kill();
    store.daemon_process().kill();
    assert!(is_content_of(&kept, theirs));
    drop((kept, client));
    let left = |directory: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    // A killed daemon cannot remove its socket; the next one does.
    assert_eq!(left(store.directory()), ["store.sock"]);
    store.start_again();
    let client = store.client();
    let object = put_content(&client, 1000).unwrap();
    assert!(store.daemon_process().end().success());
    assert!(is_content_of(&object, object.id()));
    assert_eq!(left(store.directory()), [] as [&str; 0]);
    let shared = left(std::path::Path::new("/dev/shm"));
    assert!(!shared.iter().any(|name| name.contains("mobula")), "{shared:?}");
}
