//! Pressure: if these fail, one client takes what belongs to all, a full store or a short machine is more than an
//! error, or many clients that do nothing slow down the few that do something.

use std::process::Command;
use std::time::{Duration, Instant};

use mobula_client::{Client, Layout, ObjectId};
use mobula_tests::{Process, Random, Store, error_kind, eventually, is_content_of, kind_of, put_content};

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const CAPACITY: u64 = 16 << 20;

// ---- a full store ----

/// Every byte that a store has is leased, written, and read by others; and then there is an error, and nothing else.
#[test]
fn a_store_is_filled_to_its_last_byte_and_read_again() {
    const PEERS: u64 = 4;
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let mut random = Random::from_environment();
    let mut peers: Vec<Process> = (0..PEERS).map(|_| store.peer()).collect();
    let (mut ids, mut left) = (Vec::new(), CAPACITY);
    while left > 0 {
        // Whole pages, large enough to get a segment each, so that nothing is left over between them.
        let length = (CAPACITY / 8 + random.below(256) * 4096).min(left);
        let owner = random.below(PEERS) as usize;
        ids.push((owner, peers[owner].id(format_args!("put {length}"))));
        left -= length;
    }
    let totals = client.stats().unwrap().totals;
    assert_eq!((totals.leased_bytes, totals.free_bytes), (CAPACITY, 0));
    for (owner, id) in &ids {
        let reader = (owner + 1) % peers.len();
        peers[reader].ok(format_args!("get {id}"));
        assert!(is_content_of(&client.get(*id).unwrap(), *id));
    }
    // The store has not one byte more for any client.
    let impatient = store.client_with(mobula_client::ConnectOptions::new().lease_timeout(Duration::ZERO));
    for length in [1, 4096, CAPACITY] {
        assert_eq!(error_kind(impatient.create(Layout::new(length))), "StoreFull");
    }
    for peer in &mut peers {
        peer.ok("verify");
    }
    peers.iter_mut().for_each(|peer| assert!(peer.end().success(), "it did not end in order"));
    store.is_empty_again(&client);
}

/// Names of objects that nobody uses make room, those that were used least recently first.
#[test]
fn puts_evict_named_objects_that_nobody_uses_and_no_others() {
    const LENGTH: u64 = 1 << 20;
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut owner, mut reader) = (store.peer(), store.peer());
    let ids: Vec<ObjectId> = (0..12).map(|_| owner.id(format_args!("put {LENGTH}"))).collect();
    for (at, id) in ids.iter().enumerate() {
        owner.ok(format_args!("publish name-{at} {id}"));
        owner.ok(format_args!("drop {id}"));
    }
    reader.ok(format_args!("get {}", ids[0]));
    // The names that were asked for last go last.
    for at in [1, 2, 3] {
        assert_eq!(client.lookup(format!("name-{at}")).unwrap(), Some(ids[at]));
    }
    let large = put_content(&client, 10 * LENGTH).unwrap();
    let left: Vec<String> =
        client.names().unwrap().iter().map(|info| String::from_utf8_lossy(&info.name).into_owned()).collect();
    println!("left of twelve: {left:?}");
    assert!(left.contains(&"name-0".to_owned()), "it was in use");
    assert!(!left.contains(&"name-4".to_owned()), "it was the least recently used");
    let recent = |name: &str| left.iter().any(|left| left == name);
    // No name that was used later went while an older one stayed.
    let by_use: Vec<bool> =
        [4, 5, 6, 7, 8, 9, 10, 11, 1, 2, 3].map(|at| recent(&format!("name-{at}"))).to_vec();
    assert!(by_use.is_sorted(), "{by_use:?}");
    reader.ok("verify");
    assert!(is_content_of(&large, large.id()));
}

// ---- quotas ----

/// A client at its quota frees what it can of its own, waits, and is told what it has; others do not notice.
#[test]
fn a_client_at_its_quota_frees_its_own_and_harms_nobody() {
    let store = Store::start_with(PEER, CAPACITY, &[("client_bytes_max", 4 << 20)]);
    let client = store.client();
    let (mut greedy, mut other) = (store.peer(), store.peer());
    let first = greedy.id("put 2000000");
    let second = greedy.id("put 2000000");
    // A dropped object is free for its owner again, even if it has a name: nobody uses it.
    let mut last = second;
    for round in 0..10 {
        greedy.ok(format_args!("publish greedy-{round} {last}"));
        greedy.ok(format_args!("drop {last}"));
        last = greedy.id("put 2000000");
    }
    greedy.ok("verify");
    // The objects of others are not touched for it.
    let named = other.id("put 100");
    other.ok(format_args!("publish other {named}"));
    other.ok(format_args!("drop {named}"));
    let hasty =
        store.client_with(mobula_client::ConnectOptions::new().lease_timeout(Duration::from_millis(1)));
    let kept = put_content(&hasty, 3 << 20).unwrap();
    let error = hasty.create(Layout::new(2 << 20)).unwrap_err();
    assert_eq!(kind_of(&error), "QuotaReached");
    let text = error.to_string();
    assert!(text.contains("client_bytes_max = 4194304") && text.contains("2097152"), "{text}");
    let error = hasty.create(Layout::new(5 << 20)).unwrap_err();
    assert_eq!(kind_of(&error), "QuotaReached");
    assert_eq!(client.lookup("other").unwrap(), Some(named));
    // There is room for everyone else.
    other.ok("put 3000000");
    drop(kept);
    // It is as hasty as before, and the machine may be slow.
    eventually("its own memory is free again", || put_content(&hasty, 4 << 20).is_ok());
    assert!(greedy.ok("verify") == "2" && client.contains(first).unwrap());
}

#[test]
fn all_clients_of_a_user_share_its_quota_and_what_the_dead_left_counts() {
    let store = Store::start_with(PEER, CAPACITY, &[("user_bytes_max", 8 << 20)]);
    let client =
        store.client_with(mobula_client::ConnectOptions::new().lease_timeout(Duration::from_millis(1)));
    let (mut one, mut other) = (store.peer(), store.peer());
    let theirs = one.id("put 3000000");
    other.ok("put 3000000");
    other.ok(format_args!("get {theirs}"));
    assert_eq!(error_kind(client.create(Layout::new(3 << 20))), "QuotaReached");
    one.kill();
    eventually("its owner is dead", || client.stats().unwrap().totals.dead_clients == 1);
    assert_eq!(error_kind(client.create(Layout::new(3 << 20))), "QuotaReached");
    other.ok("verify");
    other.ok(format_args!("drop {theirs}"));
    eventually("what it left is gone", || client.stats().unwrap().totals.dead_clients == 0);
    // The client is hasty, and the machine may be slow.
    eventually("there is room again", || put_content(&client, 3 << 20).is_ok());
}

// ---- descriptors ----

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn pidfds(pid: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok);
    open.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target.ends_with("[pidfd]")))
        .count()
}

/// A daemon that has no descriptors for one client more says so, serves those that it has, and takes in others when
/// some have gone.
#[test]
fn a_daemon_without_descriptors_says_so_and_goes_on_when_there_are_some() {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", PEER]);
    let mut store = Store::start_by(limited, PEER, CAPACITY, &[]);
    let pid = store.daemon_process().pid;
    let client = store.client();
    client.stats().unwrap();
    let before = descriptors(pid);
    for round in 0..3 {
        let (mut crowd, mut refused) = (Vec::new(), Vec::new());
        while refused.len() < 5 {
            assert!(crowd.len() < 64, "the limit is never reached");
            match Client::connect(store.socket()) {
                Ok(client) => crowd.push(client),
                Err(error) => refused.push(error),
            }
        }
        for error in &refused {
            assert_eq!(kind_of(error), "NoMemory", "{error}");
        }
        println!("round {round}: {} clients of 64 descriptors, then: {}", crowd.len(), refused[0]);
        // Connected clients go on; a request that needs one more descriptor is refused.
        let kinds: Vec<String> = (0..8)
            .filter_map(|_| put_content(&crowd[0], 1 << 20).err())
            .map(|error| kind_of(&error))
            .collect();
        assert!(kinds.iter().all(|kind| kind == "NoMemory"), "{kinds:?}");
        client.stats().unwrap();
        // By now nobody's process is watched any more; a death is noticed all the same.
        crowd.truncate(crowd.len() - 2);
        let clients = |count: usize| client.stats().unwrap().totals.clients as usize == count;
        eventually("two have gone", || clients(crowd.len() + 1));
        let watched = pidfds(pid);
        let mut late = store.peer();
        assert!(clients(crowd.len() + 2));
        assert_eq!(pidfds(pid), watched, "descriptors are scarce, and are spent on watching processes");
        late.kill();
        eventually("a killed client is gone", || clients(crowd.len() + 1));
        drop(crowd);
        eventually("their descriptors are free again", || descriptors(pid) == before);
        drop(put_content(&client, 1 << 20).unwrap());
        client.release_unused();
        store.is_empty_again(&client);
    }
}

/// A client that has no descriptors left gets errors, loses nothing, and goes on when there are some again.
#[test]
fn a_client_without_descriptors_gets_errors_and_goes_on_when_there_are_some() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (mut poor, mut other) = (store.peer(), store.peer());
    let (mine, theirs) = (put_content(&client, 100_000).unwrap(), other.id("put 1000"));
    let own = poor.id("put 1000");
    for round in 0..3 {
        poor.ok("exhaust-descriptors");
        // An operation that needs no descriptor works.
        poor.ok("verify");
        let small = poor.id("put 100");
        poor.ok(format_args!("drop {small}"));
        for needy in [format!("get {}", mine.id()), format!("get {theirs}"), "put 5000000".to_owned()] {
            match poor.ask(&needy) {
                Err(error) => assert_eq!(error, "System", "{needy}"),
                // It may still have mapped memory from a round before.
                Ok(id) => {
                    assert!(round > 0, "{needy} needs a descriptor");
                    poor.ok(format_args!("drop {id}"));
                }
            }
        }
        // Somebody meets it just then: it cannot look at their pins, and must not free anything for that long.
        let mut reader = store.peer();
        reader.ok(format_args!("get {own}"));
        poor.ok("relax");
        for needy in [format!("get {}", mine.id()), format!("get {theirs}"), "put 5000000".to_owned()] {
            let id = poor.id(&needy);
            poor.ok(format_args!("drop {id}"));
        }
        reader.ok("verify");
    }
    poor.ok(format_args!("drop {own}"));
    eventually("what it let go of is freed", || !client.contains(own).unwrap());
    drop(mine);
    drop(other);
    poor.ok("release");
    store.is_empty_again(&client);
}

// ---- clients that do nothing ----

/// Clients that are connected and do nothing cost memory, and nobody any time. `MOBULA_IDLE_CLIENTS` says how many;
/// each takes four of the daemon's descriptors, and three once they are scarce.
#[test]
fn many_idle_clients_cost_nobody_time() {
    let asked = std::env::var("MOBULA_IDLE_CLIENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
    let possible = limit / 4 * 3 / 4 + limit / 4 / 3;
    let count = possible.saturating_sub(100).min(asked);
    if count < asked {
        println!("SKIP in part: {limit} descriptors are enough for {count} idle clients of {asked}");
    }
    let mut store = Store::start_for(PEER, CAPACITY, count as u32 + 64);
    let pid = store.daemon_process().pid;
    let (client, mut other) = (store.client(), store.peer());
    let id = other.id("put 1000");
    other.ok(format_args!("publish name {id}"));
    let shared_alone = machine_shared_mib();
    let (alone, memory_alone, descriptors_alone) =
        (latencies(&client, id, pid), Memory::of(pid), descriptors(pid));
    let begun = Instant::now();
    let mut crowd = Vec::new();
    for first in (0..count).step_by(500) {
        let mut process = store.peer();
        process.send(format_args!("crowd {}", 500.min(count - first)));
        crowd.push(process);
    }
    for process in &mut crowd {
        process.answer().expect("they connect");
    }
    println!("{count} idle clients in {} processes, connected in {:?}", crowd.len(), begun.elapsed());
    let memory = Memory::of(pid);
    println!(
        "daemon: {memory_alone:?}, {descriptors_alone} descriptors before; {memory:?}, {} descriptors now",
        descriptors(pid)
    );
    // Of all processes: those of other tests, too.
    println!("shared memory of the machine: {shared_alone} MiB before, {} MiB now", machine_shared_mib());
    let cpu = cpu_time(pid);
    let window = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let (cpu, window) = (cpu_time(pid) - cpu, window.elapsed());
    println!("daemon: {cpu:?} of processor time in {window:?} of idleness");
    assert!(cpu < window / 5, "an idle store is busy: {cpu:?} of {window:?}");
    let crowded = latencies(&client, id, pid);
    println!(
        "put and get {:?} alone, {:?} beside them; round trip to the daemon {:?}, {:?}; daemon {:?}, {:?}",
        alone.put_and_get,
        crowded.put_and_get,
        alone.round_trip,
        crowded.round_trip,
        alone.daemon,
        crowded.daemon
    );
    // The daemon's processor time, because a machine that is busy makes all else slow.
    let limit = alone.daemon * 20 + Duration::from_millis(500);
    assert!(crowded.daemon < limit, "the daemon took {:?}, over {limit:?}", crowded.daemon);
    let begun = Instant::now();
    drop(crowd);
    // Thousands die at once: a client that asks just then waits for its turn, and may lose its patience.
    let mut slowest = Duration::ZERO;
    eventually("they are gone", || {
        let asked = Instant::now();
        let _late_at_worst = client.lookup("name");
        slowest = slowest.max(asked.elapsed());
        client.stats().is_ok_and(|stats| stats.totals.clients == 2)
    });
    eventually("their descriptors are closed", || descriptors(pid) <= descriptors_alone);
    println!("all of them are killed, and nothing of them is left, after {:?};", begun.elapsed());
    println!("meanwhile a round trip took {slowest:?} at most");
}

/// The times of a client, as medians, and the processor time of the daemon for all its requests.
struct Latencies {
    put_and_get: Duration,
    round_trip: Duration,
    daemon: Duration,
}

fn latencies(client: &Client, id: ObjectId, daemon_pid: u32) -> Latencies {
    let median = |operation: &dyn Fn()| {
        let mut times: Vec<Duration> = (0..500)
            .map(|_| {
                let begun = Instant::now();
                operation();
                begun.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let before = cpu_time(daemon_pid);
    let put_and_get = median(&|| drop((put_content(client, 1000).unwrap(), client.get(id).unwrap())));
    let round_trip = median(&|| assert_eq!(client.lookup("name").unwrap(), Some(id)));
    Latencies { put_and_get, round_trip, daemon: cpu_time(daemon_pid) - before }
}

/// The memory of a process, in KiB.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
struct Memory {
    rss_kib: u64,
    pss_kib: u64,
    shared_kib: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |text: &str, field: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Self {
            rss_kib: number(&rollup, "Rss:"),
            pss_kib: number(&rollup, "Pss:"),
            shared_kib: number(&status, "RssShmem:"),
        }
    }
}

/// Shared memory that the kernel has given out, in MiB.
fn machine_shared_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Shmem:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Processor time that a process has used.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
