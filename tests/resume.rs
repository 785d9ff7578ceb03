//! The daemon is killed, and another one takes its place: if these fail, a crash of one process takes everybody's data
//! with it, or gives somebody the wrong bytes.

use std::process::Command;
use std::time::Duration;

use mobula_client::{ConnectOptions, Event, Events, Layout, Object, Stats};
use mobula_protocol::socket::Socket;
use mobula_tests::{
    PATIENCE, Process, Random, Store, error_kind, eventually, fill, first_ok, is_content_of, put_content,
};
use nix::sys::signal::Signal;

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const CAPACITY: u64 = 64 << 20;

/// The accounts of a store, apart from the processes' names.
fn summary(stats: &Stats) -> Vec<(u64, bool, u64, u32, u64, u64, u64)> {
    let mut summary: Vec<_> = stats
        .clients
        .iter()
        .map(|client| {
            let (owner, segments) = (client.owner.bits(), client.segments);
            let counts = (client.objects, client.object_bytes, client.pins);
            (owner, client.dead, client.leased_bytes, segments, counts.0, counts.1, counts.2)
        })
        .collect();
    summary.sort_unstable();
    summary
}

fn wait_for_resumption(events: &Events) {
    loop {
        match events.next_within(PATIENCE).expect("the client is taken up") {
            Event::StoreResumed => return,
            Event::StoreLost => panic!("the store is lost"),
            _ => {}
        }
    }
}

#[test]
fn everything_that_anybody_has_outlives_the_daemon() {
    let mut store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let events = client.events();
    let (mut living, mut mortal, mut named) = (store.peer(), store.peer(), store.peer());
    let mine = put_content(&client, 3000).unwrap();
    let large = put_content(&client, 9 << 20).unwrap();
    let (theirs, unseen) = (living.id("put 10000"), living.id("put 2000000"));
    living.ok(format_args!("get {}", mine.id()));
    let seen = client.get(theirs).unwrap();
    let promised = living.id("promise");
    let waited_for = client.hold(promised).unwrap();
    // Of the dead: held and mapped, held only, held by an object, held by a name only.
    let (mapped, held) = (mortal.id("put 5000"), mortal.id("put 3000000"));
    let inner = mortal.id("put 700");
    let outer = mortal.id(format_args!("put-with 100 {inner}"));
    let mapped = client.get(mapped).unwrap();
    let held = client.hold(held).unwrap();
    let outer = client.hold(outer).unwrap();
    let by_name = named.id("put 1234");
    named.ok(format_args!("publish name {by_name}"));
    client.publish("mine", mine.id()).unwrap();
    mortal.kill();
    named.kill();
    eventually("the dead clients are listed", || client.stats().unwrap().totals.dead_clients == 2);
    // Within one look at their tables, the held objects of the dead go into escrow with this client.
    eventually("nothing is kept that nobody holds", || {
        client.stats().unwrap().clients.iter().all(|client| !client.dead || client.objects <= 4)
    });
    let many: Vec<Object> = (0..6000).map(|_| put_content(&client, 100).unwrap()).collect();
    let before = client.stats().unwrap();

    for round in 0..3 {
        store.daemon_process().kill();
        // Memory that is leased is used as before.
        let meanwhile = put_content(&client, 500).unwrap();
        assert!(is_content_of(&meanwhile, meanwhile.id()) && is_content_of(&seen, theirs));
        drop(meanwhile);
        _ = client.live_objects();
        store.start_again();
        wait_for_resumption(&events);
        eventually("the statistics are the same", || summary(&client.stats().unwrap()) == summary(&before));
        let names: Vec<_> =
            client.names().unwrap().into_iter().map(|info| (info.name, info.object)).collect();
        assert_eq!(names, [(b"mine".to_vec(), mine.id()), (b"name".to_vec(), by_name)], "round {round}");
    }

    assert!(is_content_of(&client.get(unseen).unwrap(), unseen));
    assert!(is_content_of(&mapped, mapped.id()));
    assert!(is_content_of(&held.object().unwrap(), held.id()));
    assert_eq!(outer.object().unwrap().references(), [inner]);
    assert!(is_content_of(&client.get(inner).unwrap(), inner));
    assert!(is_content_of(&client.get_named("name", Duration::ZERO).unwrap(), by_name));
    assert!(
        is_content_of(&large, large.id()) && many.iter().all(|object| is_content_of(object, object.id()))
    );
    let mut reader = store.peer();
    for id in [mine.id(), large.id(), theirs, held.id(), many[5999].id()] {
        reader.ok(format_args!("get {id}"));
    }
    living.ok(format_args!("fulfil {promised} 100"));
    eventually("the promise is kept", || waited_for.is_ready().unwrap());
    assert!(is_content_of(&waited_for.object().unwrap(), promised));
    living.ok("verify");

    // And everything can go.
    client.unpublish("mine").unwrap();
    client.unpublish("name").unwrap();
    drop((mine, large, seen, waited_for, mapped, held, outer, many));
    living.kill();
    reader.kill();
    store.is_empty_again(&client);
}

#[test]
fn what_is_asked_while_there_is_no_daemon_waits_for_the_next_one() {
    let mut store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let theirs = peer.id("put 1000");
    let held = put_content(&client, CAPACITY / 2).unwrap();
    let ask = |what: fn(&mobula_client::Client) -> bool| {
        let client = client.clone();
        std::thread::spawn(move || what(&client))
    };
    // Waits since before.
    let name = ask(|client| client.get_named("late", PATIENCE).is_ok());
    let room = ask(|client| put_content(client, CAPACITY / 2 + (8 << 20)).is_ok());
    eventually("both have asked", || client.stats().is_ok());
    store.daemon_process().kill();
    // Asks now.
    let stats = ask(|client| client.stats().is_ok());
    let listed = ask(|client| client.list().is_ok());
    let got = std::thread::spawn({
        let client = client.clone();
        move || is_content_of(&client.get(theirs).unwrap(), theirs)
    });
    store.start_again();
    assert!(stats.join().unwrap() && listed.join().unwrap() && got.join().unwrap());
    let late = put_content(&client, 10).unwrap();
    client.publish("late", late.id()).unwrap();
    assert!(name.join().unwrap());
    drop(held);
    assert!(room.join().unwrap());
}

#[test]
fn who_dies_while_there_is_no_daemon_has_died() {
    let mut store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let events = client.events();
    let (mut owner, mut reader) = (store.peer(), store.peer());
    let theirs = owner.id("put 50000");
    let promised = owner.id("promise");
    let kept = client.get(theirs).unwrap();
    let lost = client.hold(promised).unwrap();
    let mine = put_content(&client, 100_000).unwrap();
    let id = mine.id();
    reader.ok(format_args!("get {id}"));
    store.daemon_process().kill();
    owner.kill();
    reader.kill();
    drop(mine);
    store.start_again();
    wait_for_resumption(&events);
    // The object that the reader had pinned is free, once its owner has heard that the reader is gone.
    eventually("the dead reader keeps nothing", || {
        let stats = client.stats().unwrap();
        stats.totals.clients == 1 && client.live_objects() == 0
    });
    assert_eq!(error_kind(lost.object()), "Lost");
    assert!(is_content_of(&kept, theirs) && is_content_of(&client.get(theirs).unwrap(), theirs));
    drop((kept, lost));
    store.is_empty_again(&client);
}

#[test]
fn a_client_that_was_stopped_while_the_others_came_back_is_a_stranger_and_harms_nobody() {
    let mut store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let events = client.events();
    let mut stopped = store.peer();
    let theirs = stopped.id("put 50000");
    let kept = client.get(theirs).unwrap();
    stopped.signal(Signal::SIGSTOP);
    store.daemon_process().kill();
    store.start_again();
    wait_for_resumption(&events);
    let stats = client.stats().unwrap();
    assert!(stats.clients.iter().any(|client| client.dead), "{stats:#?}");
    stopped.signal(Signal::SIGCONT);
    eventually("it learns that its store is lost", || stopped.ask("stats") == Err("StoreLost".to_owned()));
    stopped.ok("verify");
    assert!(is_content_of(&client.get(theirs).unwrap(), theirs));
    drop(kept);
    store.is_empty_again(&client);
}

#[test]
fn who_does_not_want_to_wait_for_another_daemon_is_told_that_the_store_is_lost() {
    let mut store = Store::start(PEER, CAPACITY);
    let patience = Duration::from_millis(50);
    let options = ConnectOptions::new().answer_timeout(patience).lease_timeout(patience);
    // On a busy machine, the daemon does not answer in time at once.
    let (client, mine) = first_ok("the daemon answers in time", || {
        let client = options.clone().resume_timeout(Duration::MAX).connect(store.socket())?;
        let mine = put_content(&client, 1000)?;
        Ok((client, mine))
    });
    let events = client.events();
    store.daemon_process().kill();
    assert_eq!(error_kind(client.stats()), "StoreLost");
    assert_eq!(error_kind(put_content(&client, CAPACITY / 2)), "StoreLost");
    assert_eq!(error_kind(client.get_named("nothing", patience)), "StoreLost");
    // It was only their own patience: the store comes back.
    store.start_again();
    wait_for_resumption(&events);
    eventually("the next daemon answers in time", || client.stats().is_ok());
    assert!(is_content_of(&client.get(mine.id()).unwrap(), mine.id()));
}

#[test]
fn a_daemon_that_ends_on_purpose_is_not_waited_for() {
    let mut store = Store::start(PEER, CAPACITY);
    let client = store.client_with(ConnectOptions::new().resume_timeout(Duration::MAX));
    let events = client.events();
    let mine = put_content(&client, 1000).unwrap();
    assert!(store.daemon_process().end().success());
    assert!(matches!(events.next_within(PATIENCE), Some(Event::StoreLost)));
    assert_eq!(error_kind(client.stats()), "StoreLost");
    assert!(is_content_of(&mine, mine.id()));
}

/// A process that is killed closes its connections before the socket that it listens on. If this fails, a client that
/// comes at that moment takes the dying daemon for another one, which refuses it.
#[test]
fn a_hello_does_not_stay_with_a_daemon_that_dies_while_it_listens() {
    const DYING: &str = "MOBULA_TEST_DYING";
    if let Some(path) = std::env::var_os(DYING) {
        let listener = Socket::listen(path.as_ref(), 5).unwrap();
        for _ in 0..2 {
            eventually("the client comes", || listener.accept().unwrap().is_some());
        }
        std::fs::remove_file(path).unwrap();
        return;
    }
    let mut store = Store::start(PEER, CAPACITY);
    store.daemon_process().kill();
    let socket = store.socket();
    std::fs::remove_file(&socket).unwrap();
    let dying = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_hello_does_not_stay_with_a_daemon_that_dies_while_it_listens"])
        .env(DYING, &socket)
        .spawn();
    let mut dying = dying.unwrap();
    eventually("it listens", || socket.exists());
    let client = std::thread::spawn(move || {
        ConnectOptions::new().answer_timeout(PATIENCE).resume_timeout(PATIENCE).connect(&socket)
    });
    assert!(dying.wait().unwrap().success());
    store.start_again();
    let client = client.join().unwrap().unwrap();
    let object = put_content(&client, 1000).unwrap();
    assert!(is_content_of(&object, object.id()));
}

/// `MOBULA_KILLS=200` for a long run. The program in `chaos/` does the same with clients that die as well.
#[test]
fn random_kills_of_the_daemon_leave_everything_in_order() {
    const PROCESSES: usize = 4;
    let kills = std::env::var("MOBULA_KILLS").map_or(25, |kills| kills.parse().expect("a number"));
    let mut store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut random = Random::from_environment();
    let start = |store: &Store, random: &mut Random| {
        let mut peer = store.peer();
        peer.send(format_args!("churn {}", 1 + random.below(u64::MAX)));
        peer
    };
    let mut peers: Vec<Process> = (0..PROCESSES).map(|_| start(&store, &mut random)).collect();
    let mut kept: Vec<Object> = Vec::new();
    for kill in 0..kills {
        let victim = random.below(PROCESSES as u64) as usize;
        for _ in 0..random.below(4) {
            assert_eq!(peers[victim].answer().as_deref(), Ok("step"), "kill {kill}");
        }
        let references = kept.iter().take(2).map(Object::handle).collect();
        let layout = Layout::new(random.below(1000)).references(references);
        let mut writer = client.create(layout).unwrap();
        let id = writer.id();
        store.daemon_process().kill();
        fill(&mut writer, id);
        kept.push(writer.seal());
        store.start_again();
        for (at, peer) in peers.iter_mut().enumerate() {
            while let Some(line) = peer.try_answer() {
                assert!(!line.starts_with("error"), "kill {kill}, process {at}: {line}");
            }
        }
        if let Some(id) = client.lookup(format!("name-{}", random.below(32))).unwrap()
            && let Ok(object) = client.get(id)
        {
            assert!(is_content_of(&object, id), "kill {kill}: {id}");
            kept.push(object);
        }
        for object in &kept {
            assert!(is_content_of(object, object.id()), "kill {kill}: {}", object.id());
        }
        while kept.len() > 8 {
            _ = kept.swap_remove(random.below(8) as usize);
        }
    }
    peers.iter_mut().for_each(Process::kill);
    for object in &kept {
        assert!(is_content_of(&client.get(object.id()).unwrap(), object.id()), "{}", object.id());
    }
    println!("{kills} kills of the daemon");
    drop(kept);
    for info in client.names().unwrap() {
        client.unpublish(&info.name).unwrap();
    }
    store.is_empty_again(&client);
    assert_eq!(client.stats().unwrap().totals.clients, 1);
}
