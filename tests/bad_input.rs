//! Bad input: a wrong path, an old id, a full store, a fork. If these fail, such a mistake has one of these effects:
//!
//! - wrong bytes, a hang, or a crash;
//! - an error that does not say what to do;
//! - damage to other objects or clients.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mobula_client::{Client, ClientError, ConnectOptions, ObjectId, OwnerId, Refusal};
use mobula_tests::{Random, Store, error_kind, eventually, fill, is_content_of, put_content};

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const CAPACITY: u64 = 8 << 20;

// ---- no store ----

#[test]
fn where_no_store_listens_the_error_names_the_path_and_says_how_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    let check = |path: &Path, reason: &str| {
        let error = Client::connect(path).unwrap_err();
        assert!(matches!(error, ClientError::NoStore { .. }), "{error:?}");
        let text = error.to_string();
        for expected in [path.to_str().unwrap(), reason, "mobula-store --socket"] {
            assert!(text.contains(expected), "{text:?} does not say {expected:?}");
        }
    };
    check(&directory.path().join("nothing"), "No such file");
    check(&directory.path().join("no/directory"), "No such file");
    let file = directory.path().join("file");
    std::fs::write(&file, "text").unwrap();
    check(&file, "onnection refused");
    check(directory.path(), "onnection refused");
    let long = directory.path().join("x".repeat(200));
    // Only the length of the last part is limited.
    check(&long, "200");
    check(Path::new(""), "");
    assert_eq!(std::fs::read(&file).unwrap(), b"text");

    // One that was killed.
    let mut store = Store::start(PEER, CAPACITY);
    store.daemon_process().kill();
    check(&store.socket(), "onnection refused");
    // One that listens, but is no store.
    let path = directory.path().join("stranger");
    let _stranger = std::os::unix::net::UnixListener::bind(&path).unwrap();
    check(&path, "rotocol wrong type");
}

#[test]
fn a_store_that_does_not_answer_the_first_word_is_given_up() {
    let mut store = Store::start(PEER, CAPACITY);
    store.daemon_process().signal(nix::sys::signal::Signal::SIGSTOP);
    let options = ConnectOptions::new().answer_timeout(Duration::from_millis(20));
    assert_eq!(error_kind(options.connect(store.socket())), "Timeout");
    store.daemon_process().signal(nix::sys::signal::Signal::SIGCONT);
    let client = store.client();
    eventually("the one that gave up is gone", || client.stats().unwrap().totals.clients == 1);
}

// ---- another user ----

#[test]
fn another_user_of_the_machine_is_kept_out_even_where_the_files_would_let_it_in() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: only root can start a process as another user");
        return;
    }
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let object = client.put(b"private").unwrap();
    // Where the other user can execute it, wherever this checkout lies.
    let open_to_all = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("peer");
    std::fs::copy(PEER, &program).unwrap();
    open_to_all(directory.path());
    open_to_all(&program);
    let connect_as = |user: u32| {
        let output = Command::new(&program)
            .args(["client".as_ref(), store.socket().as_os_str()])
            .uid(user)
            // Without commands it ends once it is connected.
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let nobody = 65534;
    let same_user = connect_as(0);
    assert!(same_user.starts_with("ok "), "{same_user}");
    // The directory's mode keeps it from the socket.
    assert_eq!(connect_as(nobody), "error NoStore");
    // With the files open to everyone, the daemon itself checks the user of each connection.
    open_to_all(store.directory());
    std::fs::set_permissions(store.socket(), Permissions::from_mode(0o777)).unwrap();
    assert_eq!(connect_as(nobody), "error StoreLost");
    assert_eq!(&client.get(object.id()).unwrap()[..], b"private");
    eventually("nobody else is connected", || client.stats().unwrap().totals.clients == 1);
}

// ---- a full store ----

#[test]
fn a_store_that_is_full_of_what_is_held_says_so_with_the_numbers() {
    let store = Store::start(PEER, CAPACITY);
    let mut holder = store.peer();
    let options = ConnectOptions::new().lease_timeout(Duration::from_millis(100));
    let client = store.client_with(options);
    let held = holder.id(format_args!("put {}", CAPACITY - 8192));
    let check = |length: u64, free: u64| match put_content(&client, length).unwrap_err() {
        ClientError::Refused(Refusal::StoreFull { requested_bytes, capacity_bytes, free_bytes }) => {
            assert_eq!((requested_bytes, capacity_bytes, free_bytes), (length, CAPACITY, free));
        }
        other => panic!("{other}"),
    };
    check(CAPACITY, 8192);
    check(16384, 8192);
    let small = put_content(&client, 8192).unwrap();
    check(4096, 0);
    assert!(is_content_of(&client.get(held).unwrap(), held));
    // As soon as there is room, it takes objects again.
    holder.ok(format_args!("drop {held}"));
    let large = put_content(&client, CAPACITY - 8192).unwrap();
    drop((small, large));
    store.is_empty_again(&client);
}

#[test]
fn a_put_that_waits_for_room_gets_it_from_another_process() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut holder = store.peer();
    let held = holder.id(format_args!("put {CAPACITY}"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put_content(&client, CAPACITY).map(|object| object.len() as u64));
        // It asks again and again meanwhile; whenever the room comes, it gets it.
        client.stats().unwrap();
        holder.ok(format_args!("drop {held}"));
        assert_eq!(waiting.join().unwrap().unwrap(), CAPACITY);
    });
    // The same within one process: another thread lets go.
    let held = put_content(&client, CAPACITY).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| put_content(&client, CAPACITY).map(|object| object.len() as u64));
        client.stats().unwrap();
        drop(held);
        assert_eq!(waiting.join().unwrap().unwrap(), CAPACITY);
    });
}

// ---- ids that mean nothing ----

#[test]
fn a_stale_id_is_an_error_even_when_its_entry_is_used_again() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let mut stale = Vec::new();
    for _ in 0..10_000 {
        let object = put_content(&client, 64).unwrap();
        stale.push(object.id());
    }
    let live: Vec<_> = (0..2000).map(|_| put_content(&client, 64).unwrap()).collect();
    assert!(
        live.iter().any(|object| stale.iter().any(|id| id.index() == object.id().index())),
        "no entry was used again"
    );
    for id in &stale {
        assert_eq!(error_kind(client.get(*id)), "NoSuchObject");
        assert!(!client.contains(*id).unwrap());
        assert_eq!(error_kind(client.hold(*id)), "NoSuchObject");
        assert_eq!(error_kind(client.delete(*id)), "NoSuchObject");
    }
    for id in stale.iter().step_by(50) {
        assert_eq!(peer.ask(format_args!("get {id}")).unwrap_err(), "NoSuchObject");
    }
    assert_eq!(error_kind(client.publish("stale", stale[0])), "NoSuchObject");
    assert!(live.iter().all(|object| is_content_of(object, object.id())));
}

#[test]
fn a_forged_id_is_an_error_or_the_object_that_really_has_it() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let reader = store.client();
    let mut peer = store.peer();
    let mut random = Random::from_environment();
    let mut live: Vec<_> = (0..100).map(|n| put_content(&client, n * 10).unwrap()).collect();
    live.extend((0..100).map(|n| client.get(peer.id(format_args!("put {}", n * 10))).unwrap()));
    live.extend((0..100).map(|n| put_content(&reader, n * 10).unwrap()));
    let _promise = client.promise().unwrap();
    let _unsealed = client.create(mobula_client::Layout::new(10)).unwrap();
    let word = |random: &mut Random| random.below(u64::MAX);
    for attempt in 0..10_000 {
        let real = live[random.below(live.len() as u64) as usize].id();
        let id = match attempt % 5 {
            // A few bits, a field, or everything is wrong.
            0 | 1 => {
                let mut bytes = real.to_bytes();
                for _ in 0..=random.below(3) {
                    let bit = random.below(128);
                    bytes[bit as usize / 8] ^= 1 << (bit % 8);
                }
                ObjectId::from_bytes(bytes)
            }
            2 => ObjectId::new(real.owner(), random.below(1 << 10) as u32, random.below(4) as u32),
            3 => {
                let owner = OwnerId::new(random.below(8) as u16, real.owner().epoch());
                ObjectId::new(owner, real.index(), real.generation())
            }
            _ => {
                let owner = OwnerId::from_bits(word(&mut random));
                ObjectId::new(owner, word(&mut random) as u32, word(&mut random) as u32)
            }
        };
        let exists = live.iter().find(|object| object.id() == id);
        match (reader.get(id), exists) {
            (Ok(object), Some(real)) => {
                assert!(is_content_of(&object, id) && object.len() == real.len());
            }
            (Err(ClientError::NoSuchObject { .. } | ClientError::NotReady { .. }), None) => {}
            (result, _) => panic!("{id}: {result:?}"),
        }
        if attempt % 10 == 0 {
            assert_eq!(reader.contains(id).unwrap(), exists.is_some(), "{id}");
        }
        if attempt % 100 == 0 && exists.is_none() {
            assert!(reader.publish("forged", id).is_err());
            assert!(reader.hold(id).is_err() || client.contains(id).is_ok());
            assert!(reader.delete(id).is_err());
        }
    }
    // Nobody was harmed.
    for object in &live {
        assert!(is_content_of(object, object.id()));
        assert!(is_content_of(&reader.get(object.id()).unwrap(), object.id()));
    }
    peer.ok("verify");
    peer.ok("stats");
}

#[test]
fn an_id_of_another_store_means_nothing() {
    let (store, other) = (Store::start(PEER, CAPACITY), Store::start(PEER, CAPACITY));
    let (client, stranger) = (store.client(), other.client());
    let (second, second_stranger) = (store.client(), other.client());
    let theirs = [put_content(&stranger, 10).unwrap(), put_content(&second_stranger, 10).unwrap()];
    let mine = [put_content(&client, 10).unwrap(), put_content(&second, 10).unwrap()];
    for (mine, theirs) in mine.iter().zip(&theirs) {
        // All that differs is the owner's epoch.
        let (a, b) = (mine.id(), theirs.id());
        assert_eq!(
            (a.owner().slot(), a.index(), a.generation()),
            (b.owner().slot(), b.index(), b.generation())
        );
        for client in [&client, &second] {
            assert_eq!(error_kind(client.get(b)), "NoSuchObject");
            assert_eq!(error_kind(client.hold(b)), "NoSuchObject");
            assert_eq!(error_kind(client.publish("foreign", b)), "NoSuchObject");
            assert_eq!(error_kind(client.delete(b)), "NotOwner");
            assert!(!client.contains(b).unwrap());
            assert!(is_content_of(&client.get(a).unwrap(), a));
        }
    }
}

#[test]
fn the_id_of_a_client_that_had_the_same_slot_means_nothing() {
    let store = Store::start_for(PEER, CAPACITY, 8);
    let observer = store.client();
    let mut seen: Vec<ObjectId> = Vec::new();
    let mut again = 0;
    for _ in 0..20 {
        let mut peer = store.peer();
        let id = peer.id("put 100");
        again += seen.iter().filter(|old| old.owner().slot() == id.owner().slot()).count();
        for old in &seen {
            assert_ne!(*old, id);
            assert_eq!(peer.ask(format_args!("get {old}")).unwrap_err(), "NoSuchObject", "{old} of {id}");
        }
        peer.ok("stats");
        _ = observer.get(id).unwrap();
        seen.push(id);
        peer.kill();
        eventually("its slot is free", || {
            let totals = observer.stats().unwrap().totals;
            (totals.clients, totals.dead_clients) == (1, 0)
        });
    }
    assert!(again > 0, "no slot was used again");
    for id in seen {
        assert_eq!(error_kind(observer.get(id)), "NoSuchObject");
    }
}

// ---- forbidden operations ----

#[test]
fn a_promise_has_no_bytes_yet() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let promise = client.promise().unwrap();
    let id = promise.handle().id();
    let error = client.get(id).unwrap_err();
    assert!(matches!(error, ClientError::NotReady { object } if object == id), "{error:?}");
    assert_eq!(error_kind(promise.handle().object()), "NotReady");
    assert_eq!(peer.ask(format_args!("get {id}")).unwrap_err(), "NotReady");
    assert!(!promise.handle().is_ready().unwrap());
}

#[test]
fn only_its_owner_deletes_an_object() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let theirs = peer.id("put 100");
    let held = client.get(theirs).unwrap();
    match client.delete(theirs).unwrap_err() {
        ClientError::NotOwner { object, owner, operation } => {
            assert_eq!((object, owner, operation), (theirs, theirs.owner(), "delete"));
        }
        other => panic!("{other}"),
    }
    assert!(is_content_of(&held, theirs));
    peer.ok("verify");
    peer.ok(format_args!("get {theirs}"));
}

#[test]
fn what_a_forked_child_may_not_do_is_said_clearly_and_harms_nobody() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut parent, mut reader) = (store.peer(), store.peer());
    let mine = put_content(&client, 1000).unwrap();
    let before = parent.id("put 5000");
    reader.ok(format_args!("get {before}"));
    let promised = parent.id("promise");
    let unsealed = parent.id("begin 100");
    for _ in 0..5 {
        let said = parent.ok(format_args!("fork {}", mine.id()));
        for line in said.split('|') {
            let (operation, result) = line.split_once(": ").unwrap_or((line, ""));
            let expected = match operation {
                "deref of one's own"
                | "references of one's own"
                | "deref of another's"
                | "references of another's" => "not mapped in a forked child",
                "release_unused" | "a client of its own" => "done",
                _ => "a forked child must connect for itself",
            };
            assert!(result.contains(expected), "{line}");
        }
        assert_eq!(said.split('|').count(), 18, "{said}");
        // The parent has everything that it had, and can do what it could.
        parent.ok("verify");
        parent.ok("stats");
        let after = parent.id("put 100000");
        reader.ok(format_args!("get {after}"));
        assert!(is_content_of(&client.get(before).unwrap(), before));
        assert_eq!(parent.ask(format_args!("get {unsealed}")).unwrap_err(), "NoSuchObject");
    }
    // The parent's object stays, although the child has dropped it.
    let id = mine.id();
    drop(mine);
    parent.ok("verify");
    assert!(client.contains(id).unwrap());
    reader.ok("verify");
    parent.ok(format_args!("fulfil {promised} 100"));
    reader.ok(format_args!("get {promised}"));
    eventually("the children's clients are gone", || client.stats().unwrap().totals.clients == 3);
    for peer in [&mut parent, &mut reader] {
        assert!(peer.end().success());
    }
    store.is_empty_again(&client);
}

#[test]
fn clones_and_threads_share_one_client() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let client = client.clone();
            scope.spawn(move || {
                for length in 0..500 {
                    let mut writer = client.create(mobula_client::Layout::new(length)).unwrap();
                    let id = writer.id();
                    fill(&mut writer, id);
                    let object = writer.seal();
                    let again = client.get(id).unwrap();
                    drop(object);
                    assert!(is_content_of(&again, id));
                }
            });
        }
    });
    assert_eq!(client.live_objects(), 0);
    store.is_empty_again(&client);
}
