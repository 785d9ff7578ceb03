//! Memory: if these fail, an object that should fit does not, a store that is not full says that it is, or memory
//! that nobody uses any more is never given back.

use std::time::{Duration, Instant};

use mobula_client::{Client, ClientError, ConnectOptions, Handle, Layout, Refusal};
use mobula_tests::{
    PATIENCE, Random, Store, eventually, fill, is_content_of, put_content, segments_mapped, session_lock,
};

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");

#[test]
fn an_object_has_any_length_from_nothing_to_the_whole_store() {
    const CAPACITY: u64 = 4 << 20;
    let _lock = session_lock();
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    for length in
        [0, 1, 63, 64, 65, 4095, 4096, 4097, 16 << 10, (16 << 10) + 1, 1 << 20, CAPACITY - 1, CAPACITY]
    {
        let object = put_content(&client, length).unwrap_or_else(|error| panic!("{length} bytes: {error}"));
        assert_eq!(object.len() as u64, length);
        assert!(object.as_ptr().addr().is_multiple_of(64), "{length} bytes at {:?}", object.as_ptr());
        let id = object.id();
        peer.ok(format_args!("get {id}"));
        drop(object);
        // Kept by the peer alone.
        assert!(is_content_of(&client.get(id).unwrap(), id));
        peer.ok(format_args!("drop {id}"));
    }
    store.is_empty_again(&client);
}

#[test]
fn one_byte_more_than_the_whole_store_is_refused_with_both_numbers() {
    const CAPACITY: u64 = 4 << 20;
    let _lock = session_lock();
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let kept = put_content(&client, 100).unwrap();
    for length in [CAPACITY + 1, CAPACITY + 4096, 1 << 40, u64::MAX - 64, u64::MAX] {
        let error = client.create(Layout::new(length)).unwrap_err();
        match &error {
            ClientError::Refused(Refusal::TooLarge { requested_bytes, capacity_bytes }) => {
                assert_eq!((*requested_bytes, *capacity_bytes), (length, CAPACITY));
            }
            other => panic!("{length} bytes: {other}"),
        }
        let text = error.to_string();
        assert!(text.contains(&length.to_string()) && text.contains(&CAPACITY.to_string()), "{text}");
    }
    // The references count too.
    let references = vec![kept.handle()];
    assert!(client.create(Layout::new(CAPACITY).references(references)).is_err());
    drop(kept);
    // And no memory was taken for refused requests.
    drop(put_content(&client, CAPACITY).unwrap());
    store.is_empty_again(&client);
}

#[test]
fn a_million_objects_live_at_a_time() {
    const COUNT: usize = 1_000_000;
    let _lock = session_lock();
    let store = Store::start(PEER, 96 << 20);
    let client = store.client();
    let mut peer = store.peer();
    let mut random = Random::from_environment();
    let handles: Vec<_> = (0..COUNT).map(|_| put_content(&client, 8).unwrap().handle()).collect();
    assert_eq!(client.live_objects(), COUNT as u64);
    let stats = client.stats().unwrap();
    assert_eq!((stats.objects(), stats.object_bytes()), (COUNT as u64, 8 * COUNT as u64));
    assert_eq!(stats.pins(), COUNT as u64);
    let listed = client.list().unwrap();
    assert_eq!(listed.len(), COUNT);
    assert!(listed.iter().all(|info| (info.bytes, info.holders, info.promised) == (8, 1, false)));
    for at in (0..100).map(|_| random.below(COUNT as u64) as usize).chain([0, COUNT - 1]) {
        peer.ok(format_args!("get {}", handles[at].id()));
        peer.ok(format_args!("drop {}", handles[at].id()));
    }
    drop(handles);
    store.is_empty_again(&client);
}

#[test]
fn a_loop_that_puts_and_drops_runs_on_for_a_thousand_times_the_capacity() {
    const CAPACITY: u64 = 8 << 20;
    let _lock = session_lock();
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut peer = store.peer();
    let before = client.stats().unwrap().totals;
    let mut random = Random::from_environment();
    let (mut total, mut count) = (0, 0u64);
    let mut kept = std::collections::VecDeque::new();
    while total < 1000 * CAPACITY {
        let length_max = [100, 10_000, 1 << 20, CAPACITY][random.below(4) as usize];
        let length = random.below(length_max + 1);
        // Some are kept for a while, so that the free memory is in pieces; not while one needs all of it.
        if length > CAPACITY / 4 {
            kept.clear();
        }
        let mut writer = client
            .create(Layout::new(length))
            .unwrap_or_else(|error| panic!("object {count} of {length} bytes: {error}"));
        // The ends are enough: the middle is as large as the memory, and other tests cover it.
        let (id, edge) = (writer.id(), writer.len().min(64));
        let start = writer.len() - edge;
        fill(&mut writer[..edge], id);
        fill(&mut writer[start..], id);
        let object = writer.seal();
        if count.is_multiple_of(64) {
            // A reader maps what it reads, and must let it go for the loop to run on.
            peer.ok(format_args!("hold {id}"));
            peer.ok(format_args!("drop {id}"));
        }
        if length < CAPACITY / 100 {
            kept.push_back(object);
        }
        if kept.len() > 16 {
            let oldest = kept.pop_front().expect("not empty");
            let edge = oldest.len().min(64);
            assert!(is_content_of(&oldest[oldest.len() - edge..], oldest.id()));
        }
        total += length;
        count += 1;
    }
    drop(kept);
    println!("{count} objects, {total} bytes");
    store.is_empty_again(&client);
    assert_eq!(client.stats().unwrap().totals, before);
}

/// Objects of which nobody has the bytes mapped keep no more than they need, wherever they lie: while they take less
/// than half of the capacity, one of a quarter finds room. `MOBULA_ROUNDS` says how often it is tried.
#[test]
fn a_store_that_is_half_empty_has_room_for_a_quarter() {
    const CAPACITY: u64 = 8 << 20;
    let _lock = session_lock();
    let rounds = std::env::var("MOBULA_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10u64);
    let first: u64 = Random::from_environment().below(u64::MAX - rounds);
    let store = Store::start(PEER, CAPACITY);
    let (mut most_wasted, mut longest) = (0, Duration::ZERO);
    for seed in first..first + rounds {
        let mut random = Random::from_seed(seed.max(1));
        let clients: Vec<Client> = (0..1 + random.below(3))
            .map(|_| store.client_with(ConnectOptions::new().lease_timeout(Duration::from_millis(150))))
            .collect();
        let held = fill_and_thin_out(&clients, &mut random, CAPACITY / 2);
        let before = Instant::now();
        let client = &clients[random.below(clients.len() as u64) as usize];
        let large = loop {
            match client.create(Layout::new(CAPACITY / 4)) {
                Ok(large) => break large,
                // The clients are impatient; the machine may be slow.
                Err(_) if before.elapsed() < PATIENCE => {}
                Err(error) => panic!("seed {seed}: {error}; {:?}", client.stats()),
            }
        };
        longest = longest.max(before.elapsed());
        if rounds > 100 {
            // Counts the memory that is still available, in pieces. The rest is lost to the places of the small
            // objects.
            let piece = || client.create(Layout::new(32 << 10)).ok();
            // Tries a few times: the clients are impatient.
            let pieces: Vec<_> = std::iter::from_fn(|| (0..8).find_map(|_| piece())).collect();
            let live = held.iter().map(|(_, bytes)| bytes).sum::<u64>();
            let wasted = CAPACITY - live - CAPACITY / 4 - ((pieces.len() as u64) << 15);
            if wasted > most_wasted {
                most_wasted = wasted;
                let (count, clients) = (held.len(), clients.len());
                println!(
                    "seed {seed}: {wasted} bytes wasted for {count} objects of {live} in {clients} clients"
                );
            }
        }
        for (handle, _) in &held {
            assert!(is_content_of(&handle.object().unwrap(), handle.id()), "seed {seed}: {}", handle.id());
        }
        drop((large, held));
        drop(clients);
    }
    println!("{rounds} rounds: at most {longest:?} waited, and {most_wasted} bytes of {CAPACITY} wasted");
}

/// Puts objects of some sizes until a store is full, and lets go of any until so many bytes are left, or fewer. Returns
/// the held objects with their bytes in steps of 64, as objects are aligned.
fn fill_and_thin_out(clients: &[Client], random: &mut Random, left: u64) -> Vec<(Handle, u64)> {
    let (mut held, mut live) = (Vec::new(), 0);
    let length_max = [64, 300, 5_000, 20_000, 300_000];
    let kinds = 1 + random.below(length_max.len() as u64);
    let kind = random.below(length_max.len() as u64);
    loop {
        let client = &clients[random.below(clients.len() as u64) as usize];
        let max = length_max[((kind + random.below(kinds)) % length_max.len() as u64) as usize];
        let length = 1 + random.below(max);
        // Full is full: it is not waited for.
        let Ok(object) = put_content(client, length) else { break };
        let bytes = length.next_multiple_of(64);
        held.push((object.handle(), bytes));
        live += bytes;
    }
    let left = random.below(left);
    while live > left {
        let (_, bytes) = held.swap_remove(random.below(held.len() as u64) as usize);
        live -= bytes;
    }
    held
}

#[test]
fn memory_that_is_idle_goes_back_to_the_system() {
    let _lock = session_lock();
    let store = Store::start(PEER, 64 << 20);
    let client = store.client();
    let mut peer = store.peer();
    let objects: Vec<_> = (0..8).map(|_| put_content(&client, 4 << 20).unwrap()).collect();
    for object in &objects {
        peer.ok(format_args!("get {}", object.id()));
    }
    let here = std::process::id();
    assert!(store.segments_open() > 0 && segments_mapped(here) > 0 && segments_mapped(peer.pid) > 0);
    let ids: Vec<_> = objects.iter().map(mobula_client::Object::id).collect();
    drop(objects);
    for id in ids {
        peer.ok(format_args!("drop {id}"));
    }
    // Nobody does anything any more, not even look at the statistics.
    eventually("this process maps no segment", || segments_mapped(here) == 0);
    eventually("the reader maps no segment", || segments_mapped(peer.pid) == 0);
    eventually("the daemon has no segment open", || store.segments_open() == 0);
    store.is_empty_again(&client);
}

#[test]
fn one_process_gets_the_memory_that_another_no_longer_uses() {
    const CAPACITY: u64 = 16 << 20;
    let _lock = session_lock();
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut one, mut other) = (store.peer(), store.peer());
    for _ in 0..10 {
        // Each leaves its memory leased for as long as it may: the other's put has to ask for it.
        for peer in [&mut one, &mut other] {
            let id = peer.id(format_args!("put {}", CAPACITY - 4096));
            assert!(is_content_of(&client.get(id).unwrap(), id));
            peer.ok(format_args!("drop {id}"));
        }
    }
    store.is_empty_again(&client);
}
