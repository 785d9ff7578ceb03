//! The daemon without sockets: random requests and deaths from a seed. The test sets the time.
//!
//! Memory is real, so that takeovers have tables and pins to look at; clients write them here as they would elsewhere.

use std::time::{Duration, Instant};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{NameChange, Notice, Reply, Request, Totals, is_notice};
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::{HELD, PinWriter};
use mobula_shm::table::{Location, State, TableWriter, Word};

use super::*;
use crate::core::random::Random;

const CAPACITY: u64 = 64 * PAGE_BYTES;
const CLIENTS: u64 = 5;

/// A daemon, the clients that it believes to have, and a clock.
struct World {
    daemon: Daemon,
    now: Instant,
    clients: Vec<TestClient>,
    answered: u64,
}

/// The mappings of a client process.
struct TestClient {
    id: OwnerId,
    table: TableWriter,
    control: Memory,
    segments: Vec<u32>,
}

impl World {
    fn new() -> Self {
        let config = Config::new("/unused", CAPACITY)
            .clients_max(8)
            .table_entries_initial(16)
            .sweep_entries_max(5)
            .orphan_grace(Duration::from_millis(50));
        let daemon = Daemon::new(config.validate().unwrap(), 1).unwrap();
        Self { daemon, now: Instant::now(), clients: Vec::new(), answered: 0 }
    }

    fn connect(&mut self) -> bool {
        let Ok(id) = self.daemon.hello(1, "test".into(), 1, 0) else { return false };
        let owner = &self.daemon.contents.registry.owners[&id.slot()];
        let table = TableWriter::map(owner.control.writable()).unwrap();
        let control = owner.control.clone();
        self.clients.push(TestClient { id, table, control, segments: Vec::new() });
        self.collect();
        true
    }

    fn request(&mut self, place: usize, request: Request) {
        let slot = self.clients[place].id.slot();
        self.daemon.request(slot, 0, request, self.now).expect("an honest request");
        self.collect();
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        self.daemon.tick(self.now);
        self.collect();
    }

    fn die(&mut self, place: usize) {
        let client = self.clients.swap_remove(place);
        self.daemon.died(client.id.slot(), self.now);
        self.collect();
    }

    /// Fetches messages as clients do, and follows up on the notices that ask for it.
    fn collect(&mut self) {
        while let outbox @ [_, ..] = &*self.daemon.take_outbox() {
            for message in outbox {
                let Some(place) = self.clients.iter().position(|client| client.id.slot() == message.client)
                else {
                    continue;
                };
                if !is_notice(&message.bytes) {
                    self.answered += 1;
                    if let (_, Reply::Leased { segment, .. }) = Reply::decode(&message.bytes).unwrap() {
                        self.clients[place].segments.push(segment);
                    }
                    continue;
                }
                let follow_up = match Notice::decode(&message.bytes).unwrap().1 {
                    Notice::OwnerForgotten { owner } => Request::Detach { owner },
                    Notice::SegmentRetired { owner, segment } => Request::UnmapSegment { owner, segment },
                    _ => continue,
                };
                let slot = self.clients[place].id.slot();
                self.daemon.request(slot, 0, follow_up, self.now).unwrap();
            }
        }
    }

    fn totals(&self) -> Totals {
        match list::stats(&self.daemon.contents.registry, self.daemon.contents.names.known()) {
            Ok(Answer::Now(Reply::Stats { totals }, _)) => totals,
            _ => unreachable!("statistics are never refused"),
        }
    }

    fn random_step(&mut self, random: &mut Random) {
        if self.clients.is_empty() || (random.below(12) == 0 && (self.clients.len() as u64) < CLIENTS) {
            self.connect();
            return;
        }
        let place = random.below(self.clients.len() as u64) as usize;
        let other = self.clients[random.below(self.clients.len() as u64) as usize].id;
        let own = self.clients[place].id;
        let index = random.below(16) as u32;
        let object = ObjectId::new(other, index, 0);
        let name = vec![b'a' + random.below(4) as u8];
        let timeout_ms = random.below(3) * 40;
        match random.below(16) {
            0 => {
                let bytes = random.below(20) * PAGE_BYTES;
                self.request(place, Request::Lease { bytes, timeout_ms });
            }
            1 if !self.clients[place].segments.is_empty() => {
                let segment = self.clients[place].segments.remove(0);
                self.request(place, Request::Release { segment });
            }
            2 | 3 if other != own => {
                self.request(place, Request::Attach { owner: other });
                let pins = PinWriter::map(self.clients[place].control.writable(), other.slot()).unwrap();
                pins.set(index, HELD * random.below(2) as u32);
            }
            4 if other != own => self.request(place, Request::Detach { owner: other }),
            5 if other != own => {
                let segment = 1 + random.below(4) as u32;
                self.request(place, Request::MapSegment { owner: other, segment });
            }
            6 => self.request(place, Request::Publish { name, object }),
            7 => self.request(place, Request::Unpublish { name }),
            8 => self.request(place, Request::Lookup { name, timeout_ms }),
            9 if other != own => self.request(place, Request::Connect { peer: other }),
            10 => self.request(place, Request::GrowTable { entries: index * 4 }),
            11 => self.die(place),
            12 => self.advance(Duration::from_millis(random.below(80))),
            _ => {
                let client = &self.clients[place];
                let segment = client.segments.first().copied().unwrap_or(random.below(3) as u32);
                let references = random.below(3) as u32;
                let location = Location { segment, offset: 0, length: 64, format: 0, references };
                client.table.fill(index, &location);
                let states = [State::Sealed, State::Promised, State::Dying, State::Deleted, State::Free];
                let state = states[random.below(5) as usize];
                client.table.word(index).store(
                    Word::new(random.below(2) as u32, state).bits(),
                    std::sync::atomic::Ordering::SeqCst,
                );
            }
        }
    }
}

#[test]
fn random_lives_are_accounted_for_and_leave_nothing() {
    for seed in 0..60 {
        let (mut random, mut world) = (Random::new(seed), World::new());
        for step in 0..300 {
            world.random_step(&mut random);
            let totals = world.totals();
            let used = totals.leased_bytes + totals.orphaned_bytes + totals.retired_bytes;
            assert_eq!(used + totals.free_bytes, CAPACITY, "seed {seed}, step {step}");
            assert_eq!(totals.clients as usize, world.clients.len(), "seed {seed}, step {step}");
        }
        for name in [b"a", b"b", b"c", b"d"] {
            world.daemon.remove_name(name, world.now);
        }
        while !world.clients.is_empty() {
            world.die(0);
        }
        for _ in 0..1000 {
            world.advance(Duration::from_millis(300));
        }
        let totals = world.totals();
        assert_eq!((totals.free_bytes, totals.dead_clients), (CAPACITY, 0), "seed {seed}");
        assert_eq!((totals.segments, totals.names, totals.channels), (0, 0, 0), "seed {seed}");
        assert_eq!(
            world.daemon.next_deadline(world.now),
            None,
            "seed {seed}: an empty store has something to do"
        );
        for _ in 0..8 {
            assert!(world.connect(), "seed {seed}: a slot was lost");
        }
    }
}

#[test]
fn every_request_is_answered_once() {
    for seed in 100..130 {
        let (mut random, mut world) = (Random::new(seed), World::new());
        for _ in 0..3 {
            world.connect();
        }
        let before = world.answered;
        let asked = 200;
        for _ in 0..asked {
            let place = random.below(3) as usize;
            let timeout_ms = random.below(3) * 40;
            let request = match random.below(3) {
                0 => Request::Lease { bytes: random.below(40) * PAGE_BYTES, timeout_ms },
                1 => Request::Lookup { name: b"never".to_vec(), timeout_ms },
                _ => Request::Release { segment: 1 + random.below(5) as u32 },
            };
            world.request(place, request);
            world.advance(Duration::from_millis(random.below(10)));
        }
        world.advance(Duration::from_millis(100));
        assert_eq!(world.answered - before, asked, "seed {seed}");
    }
}

#[test]
fn a_store_without_requests_has_nothing_to_do() {
    let mut world = World::new();
    for _ in 0..3 {
        world.connect();
    }
    let peer = world.clients[1].id;
    world.request(0, Request::Attach { owner: peer });
    world.request(1, Request::Lease { bytes: 1, timeout_ms: 1000 });
    world.request(0, Request::Connect { peer });
    assert_eq!(world.daemon.next_deadline(world.now), None);
    world.request(0, Request::Lookup { name: b"later".to_vec(), timeout_ms: 1000 });
    assert!(world.daemon.next_deadline(world.now).is_some());
    world.die(0);
    // Taking over goes in slices of five entries here.
    for _ in 0..16 {
        world.advance(Duration::ZERO);
    }
    assert_eq!(world.daemon.next_deadline(world.now), None);
}

#[test]
fn a_large_lease_does_not_hold_up_others_while_its_pages_come() {
    let config = Config::new("/unused", 1 << 30).clients_max(8);
    let mut world = World::new();
    world.daemon = Daemon::new(config.validate().unwrap(), 1).unwrap();
    for _ in 0..3 {
        world.connect();
    }
    let before = world.answered;
    world.request(0, Request::Lease { bytes: 200 << 20, timeout_ms: 0 });
    assert_eq!((world.answered, world.totals().leased_bytes), (before, 200 << 20));
    world.request(1, Request::Lease { bytes: 1, timeout_ms: 0 });
    assert_eq!(world.answered, before + 1, "a small lease waited behind a large one");
    while world.daemon.next_deadline(world.now).is_some() {
        world.advance(Duration::ZERO);
    }
    assert_eq!(world.clients[0].segments, [1]);
    world.request(2, Request::Lease { bytes: 200 << 20, timeout_ms: 0 });
    world.die(2);
    world.request(0, Request::Release { segment: 1 });
    assert_eq!(world.daemon.next_deadline(world.now), None);
    assert_eq!(world.totals().leased_bytes, PAGE_BYTES);
}

/// Names are removed that were looked up least recently, of objects that nothing but names keeps; as much as is
/// missing, and no name in vain.
#[test]
fn eviction_takes_the_least_recently_used_that_nothing_else_keeps() {
    for seed in 0..200 {
        let (mut random, mut world) = (Random::new(seed), World::new());
        world.connect();
        world.connect();
        let (owner, reader) = (world.clients[0].id, world.clients[1].id);
        world.request(0, Request::Lease { bytes: CAPACITY - PAGE_BYTES, timeout_ms: 0 });
        world.request(1, Request::Attach { owner });
        let pins = PinWriter::map(world.clients[1].control.writable(), owner.slot()).unwrap();
        // Objects, their names by the last use, the least recent first, and what else keeps them.
        let mut names: Vec<(Vec<u8>, u32)> = Vec::new();
        for index in 0..12u32 {
            let location = Location { segment: 1, offset: 0, length: PAGE_BYTES, format: 0, references: 0 };
            let client = &world.clients[0];
            client.table.fill(index, &location);
            let sealed = Word::new(0, State::Sealed).bits();
            client.table.word(index).store(sealed, std::sync::atomic::Ordering::SeqCst);
            for number in 0..1 + random.below(3) {
                let name = format!("{index}.{number}").into_bytes();
                let object = ObjectId::new(owner, index, 0);
                world.request(0, Request::Publish { name: name.clone(), object });
                names.push((name, index));
            }
        }
        for _ in 0..30 {
            let place = random.below(names.len() as u64) as usize;
            let used = names.remove(place);
            world.request(1, Request::Lookup { name: used.0.clone(), timeout_ms: 0 });
            names.push(used);
        }
        let mut kept: Vec<u32> = (0..12).filter(|_| random.below(4) == 0).collect();
        kept.iter().for_each(|index| pins.set(*index, HELD));
        // Holds the entry as a reference of an orphan does.
        let held = random.below(12) as u32;
        assert!(world.daemon.contents.registry.hold(ObjectId::new(owner, held, 0)));
        kept.push(held);

        let missing = 1 + random.below(12);
        let bytes = (missing + 1) * PAGE_BYTES;
        world.request(1, Request::Lease { bytes, timeout_ms: 1000 });
        let (mut left, mut gone) = (missing, Vec::new());
        for (place, (_, index)) in names.iter().enumerate() {
            let is_last = names[place + 1..].iter().all(|(_, other)| other != index);
            if left > 0 && is_last && !kept.contains(index) {
                gone.push(*index);
                left -= 1;
            }
        }
        let expected: Vec<_> = names.iter().filter(|(_, index)| !gone.contains(index)).cloned().collect();
        let names = world
            .daemon
            .contents
            .names
            .known()
            .least_recent()
            .map(|(name, object)| (name.to_vec(), object.index()));
        assert_eq!(names.collect::<Vec<_>>(), expected, "seed {seed}: {missing} missing, kept {kept:?}");
        assert!(world.daemon.contents.registry.owners.contains_key(&reader.slot()));
    }
}

/// Clients that watch are told of each name once, in order; and of thousands that go at once in few messages, because
/// the daemon ends the connection of a client for which too many wait.
#[test]
fn clients_that_watch_are_told_which_names_change() {
    const NAMES: u32 = 3000;
    let mut world = World::new();
    world.connect();
    world.connect();
    world.connect();
    world.request(0, Request::GrowTable { entries: NAMES });
    world.request(0, Request::Lease { bytes: CAPACITY, timeout_ms: 0 });
    world.request(1, Request::WatchNames {});
    let (owner, watcher) = (world.clients[0].id, world.clients[1].id.slot());
    let mut told = Vec::new();
    let mut take = |world: &mut World| {
        let outbox = world.daemon.take_outbox();
        let notices = outbox.iter().filter(|message| is_notice(&message.bytes));
        let changes = notices.map(|message| {
            assert_eq!(message.client, watcher, "a client that does not watch was told");
            match Notice::decode(&message.bytes).unwrap().1 {
                Notice::NamesChanged { changes } => changes,
                notice => panic!("{notice:?}"),
            }
        });
        let pages: Vec<_> = changes.collect();
        let change = |change: NameChange| (change.name, change.object.map(|info| (info.object, info.bytes)));
        let count = pages.len();
        told.extend(pages.into_iter().flatten().map(change));
        count
    };
    let slot = owner.slot();
    for index in 0..NAMES {
        let length = u64::from(index % 7) + 1;
        let location = Location { segment: 1, offset: 0, length, format: 0, references: 0 };
        world.clients[0].table.fill(index, &location);
        let sealed = Word::new(0, State::Sealed).bits();
        world.clients[0].table.word(index).store(sealed, std::sync::atomic::Ordering::SeqCst);
        let object = ObjectId::new(owner, index, 0);
        let publish = Request::Publish { name: index.to_be_bytes().to_vec(), object };
        world.daemon.request(slot, 0, publish, world.now).unwrap();
        assert_eq!(take(&mut world), 1);
    }
    world.daemon.request(slot, 0, Request::Evict { bytes: u64::MAX }, world.now).unwrap();
    assert!(take(&mut world) < 20, "each name was told by itself");
    world.daemon.request(slot, 0, Request::Evict { bytes: u64::MAX }, world.now).unwrap();
    assert_eq!(take(&mut world), 0);
    let given = (0..NAMES).map(|index| Some((ObjectId::new(owner, index, 0), u64::from(index % 7) + 1)));
    let names = || (0..NAMES).map(|index| index.to_be_bytes().to_vec());
    let expected: Vec<_> = names().zip(given).chain(names().zip(std::iter::repeat(None))).collect();
    assert_eq!(told, expected);
}

/// However many names are in use, the ones behind them are found.
#[test]
fn names_in_use_do_not_hide_the_others_from_eviction() {
    const IN_USE: u32 = 10_000;
    let mut world = World::new();
    world.connect();
    world.request(0, Request::GrowTable { entries: IN_USE + 1 });
    world.request(0, Request::Lease { bytes: CAPACITY, timeout_ms: 0 });
    let owner = world.clients[0].id;
    let pins = PinWriter::map(world.clients[0].control.writable(), owner.slot()).unwrap();
    for index in 0..=IN_USE {
        let location = Location { segment: 1, offset: 0, length: PAGE_BYTES, format: 0, references: 0 };
        world.clients[0].table.fill(index, &location);
        let sealed = Word::new(0, State::Sealed).bits();
        world.clients[0].table.word(index).store(sealed, std::sync::atomic::Ordering::SeqCst);
        if index < IN_USE {
            pins.set_own(index, HELD);
        }
        let object = ObjectId::new(owner, index, 0);
        world.request(0, Request::Publish { name: index.to_le_bytes().to_vec(), object });
    }
    world.request(0, Request::Lease { bytes: PAGE_BYTES, timeout_ms: 10_000 });
    for _ in 0..5 {
        world.advance(Duration::from_millis(100));
    }
    assert_eq!(world.totals().names, u64::from(IN_USE));
    assert!(world.daemon.contents.names.known().get(&IN_USE.to_le_bytes()).is_none());
}
