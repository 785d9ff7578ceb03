//! Hostile clients in shared memory. If a case fails, the bytes that one client writes into its own pages crash a
//! reader or the daemon, make it read bytes of no object, hold it up, or keep the store's memory for ever.
//!
//! The pages are those that a daemon gave: the hostile client writes its table, its segment, its pins and its rings by
//! hand. All readers are honest: clients of this process, a bystander among them, and the daemon.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobula_client::{Client, ConnectOptions, ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Reply, Request};
use mobula_shm::control::pin_extent_offset;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::{HELD, PIN_BYTES, PIN_EXTENT_BYTES, PinWriter, WAITING};
use mobula_shm::ring::{self, end_bytes};
use mobula_shm::table::{ENTRIES_MAX, Location, State, TABLE_BYTES, TableWriter, Word};
use mobula_tests::hostile::{Case, Pages, Raw, Said, Suite, as_user, case};
use mobula_tests::{Random, Store, error_kind, eventually, is_content_of, kind_of, put_content};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl};
use nix::unistd::ftruncate;

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const CAPACITY: u64 = 64 << 20;
/// Bytes of a hostile owner's segment.
const SEGMENT_BYTES: u64 = 64 << 10;
const LENGTH: u64 = 64;
/// The byte that fills its segment.
const BYTE: u8 = 0xab;

#[test]
fn whatever_a_client_writes_into_its_pages_harms_itself_alone() {
    let mut suite = Suite::new(Store::start(PEER, CAPACITY));
    suite.group("states of an entry", states());
    suite.group("locations that lie", locations());
    suite.group("flipped bits, and words that change while they are read", flips());
    suite.group("references", references());
    suite.group("entries left half written by the dead", half_written());
    suite.group("pins", pins());
    suite.group("rings and bells", rings());
    suite.group("descriptors of memory", memory());
    suite.end(100);
}

// ---- a hostile owner and its readers ----

/// A client that writes its pages by hand.
struct Owner {
    raw: Raw,
    pages: Pages,
    table: TableWriter,
    segment: WriteMapping,
    segment_descriptor: OwnedFd,
}

impl Owner {
    fn new(store: &Store) -> Self {
        Self::with(store, SEGMENT_BYTES)
    }

    fn with(store: &Store, segment_bytes: u64) -> Self {
        let (mut raw, pages) = Raw::client(&store.socket());
        let table = TableWriter::map(pages.control.as_fd()).expect("a table");
        let leased = raw.ask(&Request::Lease { bytes: segment_bytes, timeout_ms: 10_000 });
        let Said::Reply(_, Reply::Leased { segment: 1, bytes }, mut descriptors) = leased else {
            panic!("no lease: {leased}");
        };
        assert_eq!(bytes, segment_bytes);
        let segment_descriptor = descriptors.remove(0);
        let segment = WriteMapping::map(segment_descriptor.as_fd(), 0, bytes as usize).expect("a segment");
        segment.store_words(0, &vec![BYTE; bytes as usize]);
        Self { raw, pages, table, segment, segment_descriptor }
    }

    fn id(&self, index: u32) -> ObjectId {
        ObjectId::new(self.pages.owner, index, 0)
    }

    /// Writes an entry as it is told; the id of its first object.
    fn write(&self, index: u32, word: u64, location: Location) -> ObjectId {
        self.table.fill(index, &location);
        self.table.word(index).store(word, Ordering::SeqCst);
        self.id(index)
    }

    fn seal(&self, index: u32, location: Location) -> ObjectId {
        self.write(index, Word::new(0, State::Sealed).bits(), location)
    }

    /// Seals an object that refers to others.
    fn seal_with(&self, index: u32, references: &[ObjectId]) -> ObjectId {
        let offset = u64::from(index) * 1024;
        let bytes: Vec<u8> = references.iter().flat_map(|id| id.to_bytes()).collect();
        self.segment.store_words((offset + LENGTH) as usize, &bytes);
        self.seal(index, Location { offset, references: references.len() as u32, ..sound() })
    }

    fn publish(&mut self, name: &str, object: ObjectId) -> String {
        self.raw.answer(&Request::Publish { name: name.into(), object })
    }
}

/// A location in which there is an object.
fn sound() -> Location {
    Location { segment: 1, offset: 0, length: LENGTH, format: 7, references: 0 }
}

/// Gets an object, and uses all of it.
fn read(client: &Client, id: ObjectId) -> String {
    match client.get(id) {
        Ok(object) => {
            let sum: u64 = object.iter().map(|byte| u64::from(*byte)).sum();
            std::hint::black_box((sum, object.references(), object.format()));
            format!("{} bytes", object.len())
        }
        Err(error) => kind_of(&error),
    }
}

/// A reader of one's own, so that each case begins with one that knows nobody.
fn reader(store: &Store) -> Client {
    store.client()
}

/// Everything that looks at all tables.
fn list(store: &Store) -> String {
    let client = reader(store);
    let objects = client.list().expect("the daemon lists");
    let stats = client.stats().expect("the daemon counts");
    std::hint::black_box((objects.len(), stats.objects(), stats.object_bytes(), stats.pins()));
    "listed".to_owned()
}

// ---- the table ----

fn states() -> Vec<Case<'static>> {
    let state = |word: u64| {
        move |store: &mut Store| {
            let owner = Owner::new(store);
            read(&reader(store), owner.write(3, word, sound()))
        }
    };
    let of = |state: State| Word::new(0, state).bits();
    let mut cases = vec![
        case("free", "NoSuchObject", state(of(State::Free))),
        case("promised", "NotReady", state(of(State::Promised))),
        case("sealed", "64 bytes", state(of(State::Sealed))),
        case("deleted", "Deleted", state(of(State::Deleted))),
        case("lost", "Lost", state(of(State::Lost))),
        case("dying for ever", "OwnerStalled", state(of(State::Dying))),
        case("spilled, into no file", "NotRestored", |store| {
            let owner = Owner::new(store);
            let client = store.client_with(ConnectOptions::new().lease_timeout(Duration::from_millis(50)));
            read(&client, owner.write(3, Word::new(0, State::Spilled).bits(), sound()))
        }),
        case("the generation before", "NoSuchObject", state(Word::new(u32::MAX, State::Sealed).bits())),
        case("the generation after", "NoSuchObject", state(Word::new(1, State::Sealed).bits())),
        case("ones", "NoSuchObject", state(u64::MAX)),
    ];
    cases.push(case("each number that is no state", "NoSuchObject", |store| {
        let (owner, reader) = (Owner::new(store), reader(store));
        let bits = (7..=255u64).chain((8..32).map(|bit| State::Sealed as u64 | 1 << bit));
        for bits in bits {
            let said = read(&reader, owner.write(3, bits, sound()));
            if said != "NoSuchObject" {
                return format!("{bits:#x}: {said}");
            }
        }
        "NoSuchObject".to_owned()
    }));
    for (name, index) in [("the first entry without memory", 512), ("the last index", ENTRIES_MAX - 1)] {
        cases.push(case(name, "NoSuchObject", move |store: &mut Store| {
            let owner = Owner::new(store);
            read(&reader(store), owner.id(index))
        }));
    }
    for (name, index) in [("an index beyond the table", ENTRIES_MAX), ("index 2^32 - 1", u32::MAX)] {
        cases.push(case(name, "NoSuchObject", move |store: &mut Store| {
            let owner = Owner::new(store);
            read(&reader(store), owner.id(index))
        }));
    }
    cases.push(case("a table full of noise, listed and taken over", "listed", |store| {
        let owner = Owner::new(store);
        let mut random = Random::from_seed(7);
        let mut word = || random.below(u64::MAX);
        for index in 0..owner.pages.entries {
            let location = Location {
                segment: (word() % 3) as u32,
                offset: word(),
                length: word(),
                format: word() as u32,
                references: word() as u32,
            };
            owner.write(index, word() & 0xffff_ffff_0000_0007, location);
        }
        list(store)
    }));
    cases.push(case("lengths of 2^64 - 1 in two tables, and their sum", "listed", |store| {
        let owners = [Owner::new(store), Owner::new(store)];
        for owner in &owners {
            owner.seal(0, Location { length: u64::MAX, ..sound() });
        }
        list(store)
    }));
    cases
}

fn locations() -> Vec<Case<'static>> {
    let end = SEGMENT_BYTES;
    let rows = [
        ("an offset of 2^64 - 1", "Corrupt", Location { offset: u64::MAX, ..sound() }),
        ("an offset of 2^64 - 64", "Corrupt", Location { offset: u64::MAX - 63, ..sound() }),
        ("an offset of 2^62", "Corrupt", Location { offset: 1 << 62, ..sound() }),
        ("an offset of 2^31", "Corrupt", Location { offset: 1 << 31, ..sound() }),
        ("an offset at the end", "Corrupt", Location { offset: end, ..sound() }),
        ("the last 64 bytes", "64 bytes", Location { offset: end - 64, ..sound() }),
        ("one byte beyond the end", "Corrupt", Location { offset: end - 64, length: 65, ..sound() }),
        ("a length of 0", "0 bytes", Location { length: 0, ..sound() }),
        ("the whole segment", "65536 bytes", Location { length: end, ..sound() }),
        ("a length of one more", "Corrupt", Location { length: end + 1, ..sound() }),
        ("a length of 2^31", "Corrupt", Location { length: 1 << 31, ..sound() }),
        ("a length of 2^62", "Corrupt", Location { length: 1 << 62, ..sound() }),
        ("a length of 2^63", "Corrupt", Location { length: 1 << 63, ..sound() }),
        ("a length of 2^64 - 1", "Corrupt", Location { length: u64::MAX, ..sound() }),
        ("an end of 2^64", "Corrupt", Location { offset: u64::MAX - 63, length: 64, ..sound() }),
        ("2^32 - 1 references", "Corrupt", Location { references: u32::MAX, ..sound() }),
        ("as many references as fit", "64 bytes", Location { references: 4092, ..sound() }),
        ("one reference more", "Corrupt", Location { references: 4093, ..sound() }),
        (
            "references behind a length of 2^64 - 1",
            "Corrupt",
            Location { length: u64::MAX, references: 1, ..sound() },
        ),
        ("segment 0", "NoSuchSegment", Location { segment: 0, ..sound() }),
        ("a segment that is not there", "NoSuchSegment", Location { segment: 2, ..sound() }),
        ("the last segment", "NoSuchSegment", Location { segment: u32::MAX, ..sound() }),
        (
            "no bytes, in no segment",
            "0 bytes",
            Location { segment: 9, offset: u64::MAX, length: 0, ..sound() },
        ),
    ];
    let mut cases: Vec<_> = rows
        .into_iter()
        .map(|(name, expected, location)| {
            case(name, expected, move |store: &mut Store| {
                let mut owner = Owner::new(store);
                let (id, reader) = (owner.seal(3, location), reader(store));
                // Publishing it, listing it, or holding it without its bytes finds nothing wrong with it.
                let named = owner.publish(name, id);
                if !named.contains("Done") || reader.hold(id).is_err() || list(store) != "listed" {
                    return named;
                }
                let said = read(&reader, id);
                reader.unpublish(name).expect("it has its name");
                said
            })
        })
        .collect();
    cases.push(case("an object in a segment that was given back", "NoSuchSegment", |store| {
        let mut owner = Owner::new(store);
        let id = owner.seal(3, sound());
        owner.raw.ask(&Request::Release { segment: 1 });
        read(&reader(store), id)
    }));
    cases.push(case("a segment given back under a reader", "64 bytes", |store| {
        let mut owner = Owner::new(store);
        let (id, reader) = (owner.seal(3, sound()), reader(store));
        let object = reader.get(id).expect("it is there");
        owner.raw.ask(&Request::Release { segment: 1 });
        reader.stats().expect("the notice has come");
        assert!(object.iter().all(|byte| *byte == BYTE), "memory that is still mapped was freed");
        read(&reader, id)
    }));
    cases
}

/// Whether an answer is one that getting an object with a nonsensical entry may give.
fn is_typed(said: &str) -> bool {
    const KINDS: [&str; 9] = [
        "NoSuchObject",
        "NotReady",
        "Deleted",
        "Lost",
        "OwnerStalled",
        "Corrupt",
        "NoSuchSegment",
        "NoSuchOwner",
        "NotRestored",
    ];
    let length = said.strip_suffix(" bytes").and_then(|length| length.parse::<u64>().ok());
    length.is_some_and(|length| length <= SEGMENT_BYTES) || KINDS.contains(&said)
}

fn flips() -> Vec<Case<'static>> {
    let words = ["the state", "segment and format", "the offset", "the length", "the references"];
    let mut cases = Vec::new();
    for (at, name) in words.into_iter().enumerate() {
        cases.push(case(format!("each bit of {name} flipped"), "typed", move |store: &mut Store| {
            let (owner, reader) = (Owner::new(store), reader(store));
            let id = owner.seal(3, sound());
            // The state last: every other word is read only behind a sealed one.
            let mapping =
                WriteMapping::map(owner.pages.control.as_fd(), 0, TABLE_BYTES as usize).expect("a table");
            let word = mapping.word64((PAGE_BYTES + 3 * 64) as usize + 8 * at);
            for bit in 0..64 {
                // Dying or spilled, which a reader waits for.
                if at == 0 && (bit == 0 || bit == 2) {
                    continue;
                }
                let before = word.fetch_xor(1 << bit, Ordering::SeqCst);
                let said = read(&reader, id);
                word.store(before, Ordering::SeqCst);
                if !is_typed(&said) {
                    return format!("bit {bit}: {said}");
                }
            }
            let said = read(&reader, id);
            if said == "64 bytes" { "typed".to_owned() } else { said }
        }));
    }
    cases.push(case("an entry that changes while it is read", "typed", |store| {
        let (owner, reader) = (Owner::new(store), reader(store));
        let id = owner.seal(3, sound());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let lies = [
                    sound(),
                    Location { offset: u64::MAX - 63, ..sound() },
                    Location { length: u64::MAX, ..sound() },
                    Location { length: SEGMENT_BYTES, ..sound() },
                    Location { segment: 7, ..sound() },
                    Location { references: u32::MAX, ..sound() },
                ];
                let sealed = Word::new(0, State::Sealed).bits();
                let words = [sealed, Word::new(0, State::Promised).bits(), sealed, u64::MAX, sealed];
                for turn in 0.. {
                    owner.write(3, words[turn % words.len()], lies[turn % lies.len()]);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            let gets = (0..5000).map(|_| read(&reader, id)).find(|said| !is_typed(said));
            stop.store(true, Ordering::Relaxed);
            gets.unwrap_or_else(|| "typed".to_owned())
        })
    }));
    cases.push(case("an entry that changes while it is taken over", "gone", |store| {
        // Its writer outlives its connection: the mapping is still there when the daemon has taken the table over.
        let owner = Owner::new(store);
        let client = reader(store);
        let id = owner.seal(3, sound());
        let held = client.hold(id).expect("it is there");
        let Owner { raw, table, pages, .. } = owner;
        drop(raw);
        let mut random = Random::from_seed(3);
        for _ in 0..2000 {
            let location = Location { offset: random.below(u64::MAX), ..sound() };
            table.fill(3, &location);
            // Any state but dying, for which a reader waits.
            let state = [State::Free, State::Promised, State::Sealed, State::Deleted, State::Lost];
            let word = Word::new(random.below(2) as u32, state[random.below(5) as usize]).bits();
            table.word(3).store(word | random.below(2) << 8, Ordering::SeqCst);
            let said = read(&client, id);
            if !is_typed(&said) {
                return said;
            }
        }
        table.word(3).store(Word::new(0, State::Free).bits(), Ordering::SeqCst);
        drop((held, pages));
        "gone".to_owned()
    }));
    cases
}

// ---- references ----

fn references() -> Vec<Case<'static>> {
    vec![
        case("an object that refers to itself", "64 bytes", |store| {
            let owner = Owner::new(store);
            let id = owner.seal_with(1, &[owner.id(1)]);
            read(&reader(store), id)
        }),
        case("two that refer to each other", "64 bytes", |store| {
            let owner = Owner::new(store);
            owner.seal_with(2, &[owner.id(1)]);
            let id = owner.seal_with(1, &[owner.id(2)]);
            read(&reader(store), id)
        }),
        case("a circle through two clients, kept until its last reader goes", "64 bytes", |store| {
            let (left, right) = (Owner::new(store), Owner::new(store));
            let (a, b) = (left.id(1), right.id(1));
            left.seal_with(1, &[b]);
            right.seal_with(1, &[a]);
            let client = reader(store);
            let kept = client.get(a).expect("it is there");
            drop((left, right));
            eventually("its owner is dead", || client.stats().expect("counted").totals.dead_clients > 0);
            // The object in use stays, whatever happens to the other.
            let other = read(&client, b);
            if !is_typed(&other) || kept.iter().any(|byte| *byte != BYTE) {
                return other;
            }
            format!("{} bytes", kept.len())
        }),
        case("a circle that a name keeps", "64 bytes", |store| {
            let mut owner = Owner::new(store);
            let id = owner.seal_with(1, &[owner.id(1), owner.id(2)]);
            owner.seal_with(2, &[owner.id(1)]);
            owner.publish("circle", id);
            drop(owner);
            let client = reader(store);
            eventually("its owner is dead", || client.stats().expect("counted").totals.dead_clients == 1);
            std::thread::sleep(Duration::from_millis(300));
            let said = read(&client, client.lookup("circle").expect("answered").expect("it has its name"));
            client.unpublish("circle").expect("it has its name");
            said
        }),
        case("references to what never was", "NoSuchObject", |store| {
            let owner = Owner::new(store);
            let nobody = OwnerId::new(50, 9);
            let forged = [
                ObjectId::new(nobody, 0, 0),
                ObjectId::new(OwnerId::new(0, 0), 0, 0),
                ObjectId::new(OwnerId::new(u16::MAX, u64::MAX), u32::MAX, u32::MAX),
                ObjectId::new(owner.pages.owner, u32::MAX, 0),
                ObjectId::new(owner.pages.owner, 9, 9),
            ];
            let id = owner.seal_with(1, &forged);
            let client = reader(store);
            let object = client.get(id).expect("it is there");
            assert_eq!(object.references(), forged);
            forged.iter().map(|id| read(&client, *id)).find(|said| said != "NoSuchObject").unwrap_or_default()
                + "NoSuchObject"
        }),
        case("65,000 references of one to itself, taken over", "gone", |store| {
            let mut owner = Owner::with(store, 1 << 20);
            let own = owner.id(1).to_bytes();
            let count = (1 << 20) / 16 - 64;
            let bytes: Vec<u8> = own.iter().copied().cycle().take(count * 16).collect();
            owner.segment.store_words(64, &bytes);
            let id = owner.seal(1, Location { references: count as u32, ..sound() });
            owner.publish("many", id);
            drop(owner);
            let client = reader(store);
            eventually("its owner is dead", || client.stats().expect("counted").totals.dead_clients == 1);
            client.unpublish("many").expect("it has its name");
            "gone".to_owned()
        }),
    ]
}

// ---- remains of the dead ----

fn half_written() -> Vec<Case<'static>> {
    /// An owner dies with the given entry while another client holds the object. Returns the answer that this client
    /// gets afterwards.
    fn left(store: &mut Store, word: u64, location: Location) -> String {
        let owner = Owner::new(store);
        let id = owner.write(1, word, location);
        let client = reader(store);
        let handle = client.hold(id);
        let (mut watcher, _) = Raw::client(&store.socket());
        let dead = owner.pages.owner;
        drop(owner);
        eventually("its death is noticed", || {
            let said = watcher.answer(&Request::Attach { owner: dead });
            said.contains("dead: true") || said.contains("NoSuchOwner")
        });
        match handle {
            Ok(handle) => match handle.object() {
                Ok(object) => format!("{} bytes", object.len()),
                Err(error) => kind_of(&error),
            },
            Err(error) => kind_of(&error),
        }
    }
    let word = |state: State| Word::new(0, state).bits();
    vec![
        case("filled, and not sealed", "NoSuchObject", move |store: &mut Store| {
            left(store, word(State::Free), sound())
        }),
        case("promised, with a location", "Lost", move |store: &mut Store| {
            left(store, word(State::Promised), sound())
        }),
        case("deleted", "Deleted", move |store: &mut Store| left(store, word(State::Deleted), sound())),
        case("spilled, into no file", "NoSuchObject", move |store: &mut Store| {
            left(store, word(State::Spilled), sound())
        }),
        case("sealed, where there is nothing", "NoSuchObject", move |store: &mut Store| {
            left(store, word(State::Sealed), Location { segment: 9, ..sound() })
        }),
        case("sealed, half of it beyond the end", "NoSuchObject", move |store: &mut Store| {
            left(store, word(State::Sealed), Location { offset: SEGMENT_BYTES - 64, length: 128, ..sound() })
        }),
        case("a number that is no state", "NoSuchObject", move |store: &mut Store| left(store, 77, sound())),
        case("pins and counts of groups that fit nothing", "64 bytes", |store| {
            let client = reader(store);
            let object = put_content(&client, LENGTH).expect("room");
            let (mut raw, pages) = Raw::client(&store.socket());
            raw.ask(&Request::Attach { owner: client.id() });
            let words = pin_words(&pages, client.id());
            words.word32(0).store(u32::MAX, Ordering::SeqCst);
            words.word32(4096).store(1 << 8, Ordering::SeqCst);
            drop((raw, pages));
            let said = read(&client, object.id());
            drop(object);
            eventually("it is freed", || client.live_objects() == 0);
            said
        }),
    ]
}

// ---- pins ----

/// The words of a client's pins on an owner.
fn pin_words(pages: &Pages, owner: OwnerId) -> WriteMapping {
    let offset = pin_extent_offset(owner.slot());
    WriteMapping::map(pages.control.as_fd(), offset, PIN_EXTENT_BYTES as usize).expect("pins")
}

fn pins() -> Vec<Case<'static>> {
    /// An honest owner puts and drops while a reader has written its pins on it; and again when that is gone.
    fn freed_with(store: &mut Store, write: impl Fn(&WriteMapping)) -> String {
        let client = reader(store);
        let objects: Vec<_> = (0..200).map(|_| put_content(&client, LENGTH).expect("room")).collect();
        let (mut raw, pages) = Raw::client(&store.socket());
        raw.ask(&Request::Attach { owner: client.id() });
        let words = pin_words(&pages, client.id());
        write(&words);
        assert!(objects.iter().all(|object| is_content_of(object, object.id())));
        drop(objects);
        for _ in 0..500 {
            let object = put_content(&client, LENGTH).expect("room");
            assert!(is_content_of(&object, object.id()));
        }
        assert_eq!(list(store), "listed");
        drop((raw, pages));
        eventually("everything is freed", || {
            client.release_unused();
            client.live_objects() == 0
        });
        "freed".to_owned()
    }
    let words = 4096;
    let all = move |value: u32| {
        move |store: &mut Store| {
            freed_with(store, |pins| {
                for index in 0..words {
                    pins.word32(index * PIN_BYTES as usize).store(value, Ordering::SeqCst);
                }
            })
        }
    };
    vec![
        case("every pin set", "freed", all(HELD)),
        case("every bit of every pin set", "freed", all(u32::MAX)),
        case("only bits that mean nothing", "freed", all(0xf8)),
        case("only the highest bit", "freed", all(1 << 31)),
        case("a group's count below zero", "freed", |store| {
            freed_with(store, |pins| {
                pins.word32(0).fetch_sub(1 << 8, Ordering::SeqCst);
            })
        }),
        case("pins that no group counts", "freed", |store| {
            freed_with(store, |pins| {
                (1..1024).for_each(|index| pins.word32(index * 4).store(HELD, Ordering::SeqCst));
                pins.word32(0).store(0, Ordering::SeqCst);
            })
        }),
        case("pins taken back that were never set", "freed", |store| {
            freed_with(store, |pins| {
                (0..1024).for_each(|index| {
                    pins.word32(index * 4).fetch_sub(1, Ordering::SeqCst);
                });
            })
        }),
        case("pins on somebody it is not attached to", "refused", |store| {
            // There may be no page, and no process looks there: a writer fills such a hole for itself.
            let client = reader(store);
            let object = put_content(&client, LENGTH).expect("room");
            let (_raw, pages) = Raw::client(&store.socket());
            let words = pin_words(&pages, client.id());
            words.word32(object.id().index() as usize * 4).store(HELD, Ordering::SeqCst);
            drop(object);
            eventually("it is freed all the same", || client.live_objects() == 0);
            "refused".to_owned()
        }),
        case("pins that change all the time", "freed", |store| {
            let stop = AtomicBool::new(false);
            let client = reader(store);
            let (mut raw, pages) = Raw::client(&store.socket());
            raw.ask(&Request::Attach { owner: client.id() });
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let words = pin_words(&pages, client.id());
                    let mut random = Random::from_seed(5);
                    while !stop.load(Ordering::Relaxed) {
                        let place = random.below(4096) as usize * 4;
                        words.word32(place).store(random.below(1 << 32) as u32, Ordering::SeqCst);
                    }
                });
                for _ in 0..3000 {
                    let object = put_content(&client, LENGTH).expect("room");
                    assert!(is_content_of(&object, object.id()));
                }
                stop.store(true, Ordering::Relaxed);
            });
            drop((raw, pages));
            eventually("everything is freed", || {
                client.release_unused();
                client.live_objects() == 0
            });
            "freed".to_owned()
        }),
    ]
}

// ---- rings and bells ----

/// An honest client connected with a hostile one that writes its end by hand.
struct Connected {
    channel: mobula_client::Channel,
    /// The hostile end.
    end: WriteMapping,
    owner: Owner,
    _client: Client,
}

impl Connected {
    fn new(store: &Store) -> Self {
        let (client, mut owner) = (reader(store), Owner::new(store));
        let channel = client.connect_to(owner.pages.owner).expect("it is alive");
        let (notice, descriptors) = owner.raw.notice(|notice| matches!(notice, Notice::ChannelOpened { .. }));
        let Notice::ChannelOpened { data_bytes, .. } = notice else { unreachable!("it was waited for") };
        let end =
            WriteMapping::map(descriptors[0].as_fd(), 0, end_bytes(data_bytes) as usize).expect("its end");
        Self { channel, end, owner, _client: client }
    }
}

const TAIL: usize = 0;
const HEAD: usize = 64;
const STARVED: usize = 128;
const DATA: usize = PAGE_BYTES as usize;
const RING_BYTES: u64 = 64 << 10;

fn rings() -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    for (name, tail, length) in [
        ("a tail that is no multiple of a word", 4, 0),
        ("a record longer than what was published", 8, 1),
        ("a record of 2^64 - 1 bytes", 64, u64::MAX),
        ("a record of 2^62 bytes", 64, 1 << 62),
        ("a record longer than any may be", RING_BYTES, RING_BYTES / 2),
        ("a tail beyond the ring", RING_BYTES + 8, 8),
        ("a tail of 2^62", 1 << 62, 8),
        ("a tail of 2^64 - 1", u64::MAX, 8),
    ] {
        cases.push(case(name, "impossible", move |store: &mut Store| {
            let mut connected = Connected::new(store);
            connected.end.word64(DATA).store(length, Ordering::SeqCst);
            connected.end.word64(TAIL).store(tail, Ordering::SeqCst);
            match connected.channel.receiver.next(&mut Vec::new()) {
                Ok(there) => format!("a record: {there}"),
                Err(corrupt) => corrupt.to_string(),
            }
        }));
    }
    cases.push(case("a tail that goes back", "impossible", |store| {
        let mut connected = Connected::new(store);
        connected.end.word64(TAIL).store(16, Ordering::SeqCst);
        let mut record = Vec::new();
        while connected.channel.receiver.next(&mut record) == Ok(true) {
            connected.channel.receiver.done();
        }
        connected.end.word64(TAIL).store(8, Ordering::SeqCst);
        match connected.channel.receiver.next(&mut record) {
            Ok(there) => format!("a record: {there}"),
            Err(corrupt) => corrupt.to_string(),
        }
    }));
    for (name, head) in
        [("ahead of everything", 1 << 40), ("at 2^64 - 1", u64::MAX), ("in the middle of a word", 3)]
    {
        cases.push(case(format!("a head {name}"), "full", move |store: &mut Store| {
            let mut connected = Connected::new(store);
            let sender = &mut connected.channel.sender;
            let mut sent = 0;
            while sender.send(&[7; 1000]).is_ok() {
                connected.end.word64(HEAD).store(head, Ordering::SeqCst);
                sent += 1;
                if sent > 1000 {
                    return "a ring without an end".to_owned();
                }
            }
            "full".to_owned()
        }));
    }
    cases.push(case("a ring that changes while it is read", "survived", |store| {
        let mut connected = Connected::new(store);
        let stop = AtomicBool::new(false);
        let (end, channel) = (&connected.end, &mut connected.channel);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random::from_seed(11);
                while !stop.load(Ordering::Relaxed) {
                    end.word64(DATA + random.below(1024) as usize * 8)
                        .store(random.below(64), Ordering::SeqCst);
                    end.word64(TAIL).store(random.below(4096) * 8, Ordering::SeqCst);
                    end.word64(STARVED).store(random.below(2), Ordering::SeqCst);
                }
            });
            let mut record = Vec::new();
            for _ in 0..20_000 {
                if channel.receiver.next(&mut record) == Ok(true) {
                    assert!(record.len() as u64 <= RING_BYTES / 4);
                    channel.receiver.done();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        "survived".to_owned()
    }));
    cases.push(case("sleeps that change all the time", "sent", |store| {
        let mut connected = Connected::new(store);
        let table = WriteMapping::map(connected.owner.pages.control.as_fd(), 0, PAGE_BYTES as usize)
            .expect("a table");
        for sleeps in [1, u32::MAX, 0, 2, 1, 3, 5, u32::MAX - 1] {
            table.word32(64).store(sleeps, Ordering::SeqCst);
            if connected.channel.sender.send(b"record").is_err() {
                return "not sent".to_owned();
            }
        }
        "sent".to_owned()
    }));
    cases.push(case("a bell that is emptied by others, and blocks", "woke", |store| {
        let client = reader(store);
        let (_raw, bell) = bell_of(store, client.id());
        fcntl(&bell, FcntlArg::F_SETFL(OFlag::empty())).expect("a bell");
        client.ring();
        nix::unistd::read(&bell, &mut [0; 8]).expect("it was rung");
        client.sleep(Some(Duration::from_millis(10)), || false);
        "woke".to_owned()
    }));
    cases.push(case("a full bell that blocks who rings, of one who waits for the dead", "Lost", |store| {
        let owner = Owner::new(store);
        let id = owner.write(1, Word::new(0, State::Promised).bits(), Location::default());
        let (mut raw, pages) = Raw::client(&store.socket());
        raw.ask(&Request::Attach { owner: owner.pages.owner });
        let pins = PinWriter::map(pages.control.as_fd(), owner.pages.owner.slot()).expect("pins");
        pins.set(1, HELD | WAITING);
        nix::unistd::write(&pages.bell, &(u64::MAX - 1).to_ne_bytes()).expect("a bell");
        fcntl(&pages.bell, FcntlArg::F_SETFL(OFlag::empty())).expect("a bell");
        let client = reader(store);
        let handle = client.hold(id).expect("it is promised");
        drop(owner);
        eventually("the promise is lost", || handle.is_ready().is_err());
        error_kind(handle.object())
    }));
    cases
}

/// The bell of a client, as a client that attaches to it gets it.
fn bell_of(store: &Store, owner: OwnerId) -> (Raw, OwnedFd) {
    let (mut raw, _) = Raw::client(&store.socket());
    let Said::Reply(_, Reply::Attached { .. }, mut descriptors) = raw.ask(&Request::Attach { owner }) else {
        panic!("not attached");
    };
    (raw, descriptors.remove(1))
}

// ---- descriptors of memory ----

/// Descriptors that a hostile client has, each to read only: a table and a segment of somebody else, the directory, the
/// daemon's pins.
struct ReadOnly {
    _raw: Raw,
    descriptors: Vec<OwnedFd>,
    object: mobula_client::Object,
}

impl ReadOnly {
    fn new(store: &Store) -> Self {
        let client = reader(store);
        let object = put_content(&client, LENGTH).expect("room");
        let owner = client.id();
        let (mut raw, pages) = Raw::client(&store.socket());
        let mut descriptors = vec![pages.daemon_control];
        for request in [Request::Attach { owner }, Request::MapSegment { owner, segment: 1 }] {
            match raw.ask(&request) {
                Said::Reply(_, Reply::Attached { .. } | Reply::SegmentMapped { .. }, mut theirs) => {
                    descriptors.push(theirs.remove(0));
                }
                said => panic!("{request:?}: {said}"),
            }
        }
        Self { _raw: raw, descriptors, object }
    }
}

fn memory() -> Vec<Case<'static>> {
    /// Acts on each read-only descriptor. Returns the results of all of them.
    fn read_only(
        expected: Errno,
        act: impl Fn(BorrowedFd<'_>) -> nix::Result<()> + 'static,
    ) -> impl FnMut(&mut Store) -> String {
        move |store| {
            let theirs = ReadOnly::new(store);
            for (place, descriptor) in theirs.descriptors.iter().enumerate() {
                match act(descriptor.as_fd()) {
                    Err(error) if error == expected => {}
                    result => return format!("descriptor {place}: {result:?}"),
                }
            }
            assert!(is_content_of(&theirs.object, theirs.object.id()));
            format!("{expected:?}")
        }
    }
    /// Does something with each descriptor that one may write oneself.
    fn own(act: impl Fn(BorrowedFd<'_>) -> nix::Result<()> + 'static) -> impl FnMut(&mut Store) -> String {
        move |store| {
            let owner = Owner::new(store);
            for descriptor in [&owner.pages.control, &owner.segment_descriptor] {
                match act(descriptor.as_fd()) {
                    Err(Errno::EPERM) => {}
                    result => return format!("{result:?}"),
                }
            }
            "EPERM".to_owned()
        }
    }
    fn map(descriptor: BorrowedFd<'_>) -> nix::Result<()> {
        WriteMapping::map(descriptor, 0, PAGE_BYTES as usize)
            .map(drop)
            .map_err(|error| Errno::from_raw(error.raw_os_error().expect("the system's")))
    }
    fn make_writable(descriptor: BorrowedFd<'_>) -> nix::Result<()> {
        let page = PAGE_BYTES as usize;
        // SAFETY: a new mapping, of which nothing is used; what the kernel might let through is not touched.
        unsafe {
            let (raw, flags) = (descriptor.as_raw_fd(), libc::MAP_SHARED);
            let base = libc::mmap(std::ptr::null_mut(), page, libc::PROT_READ, flags, raw, 0);
            assert_ne!(base, libc::MAP_FAILED);
            let result = libc::mprotect(base, page, libc::PROT_READ | libc::PROT_WRITE);
            let result = Errno::result(result).map(drop);
            libc::munmap(base, page);
            result
        }
    }
    fn seal(descriptor: BorrowedFd<'_>) -> nix::Result<()> {
        fcntl(descriptor, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).map(drop)
    }
    fn hole(descriptor: BorrowedFd<'_>, from: u64, to: u64) -> nix::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(descriptor, flags, from as i64, (to - from) as i64)
    }
    let mut cases = vec![
        case("write through a reader's descriptor", "EBADF", {
            read_only(Errno::EBADF, |descriptor| nix::unistd::write(descriptor, b"x").map(drop))
        }),
        case("truncate through a reader's descriptor", "EINVAL", {
            read_only(Errno::EINVAL, |descriptor| ftruncate(descriptor, 0))
        }),
        case("punch a hole through a reader's descriptor", "EBADF", {
            read_only(Errno::EBADF, |descriptor| hole(descriptor, 0, PAGE_BYTES))
        }),
        case("map a reader's descriptor to write", "EACCES", read_only(Errno::EACCES, map)),
        case("make a reader's mapping writable", "EACCES", read_only(Errno::EACCES, make_writable)),
        case("seal what one may only read", "EPERM", read_only(Errno::EPERM, seal)),
        case("shrink one's own memory", "EPERM", own(|descriptor| ftruncate(descriptor, 0))),
        case("grow one's own memory", "EPERM", own(|descriptor| ftruncate(descriptor, 1 << 50))),
        case("seal one's own memory", "EPERM", own(seal)),
        case("allocate beyond one's own memory", "EPERM", {
            own(|descriptor| fallocate(descriptor, FallocateFlags::empty(), 1 << 50, 4096))
        }),
        case("a hole in one's own segment, under a reader", "zeros", |store| {
            let (owner, client) = (Owner::new(store), reader(store));
            let object = client.get(owner.seal(3, sound())).expect("it is there");
            assert!(object.iter().all(|byte| *byte == BYTE));
            hole(owner.segment_descriptor.as_fd(), 0, SEGMENT_BYTES).expect("it is its own");
            if object.iter().all(|byte| *byte == 0) { "zeros" } else { "something else" }.to_owned()
        }),
        case("a hole in one's own table", "NoSuchObject", |store| {
            let (owner, client) = (Owner::new(store), reader(store));
            let id = owner.seal(3, sound());
            let held = client.hold(id).expect("it is there");
            hole(owner.pages.control.as_fd(), 0, TABLE_BYTES).expect("it is its own");
            assert_eq!(list(store), "listed");
            let said = read(&client, id);
            drop(held);
            // And written again where there is no page.
            owner.seal(3, sound());
            said
        }),
        case("a hole in one's own pins", "freed", |store| {
            let client = reader(store);
            let object = put_content(&client, LENGTH).expect("room");
            let (mut raw, pages) = Raw::client(&store.socket());
            raw.ask(&Request::Attach { owner: client.id() });
            let start = pin_extent_offset(client.id().slot());
            hole(pages.control.as_fd(), start, start + PIN_EXTENT_BYTES).expect("it is its own");
            assert_eq!(list(store), "listed");
            drop(object);
            eventually("it is freed", || client.live_objects() == 0);
            "freed".to_owned()
        }),
        case("a hole in one's own ring, and a look at it", "nothing", |store| {
            let (client, mut owner) = (reader(store), Owner::new(store));
            let mut channel = client.connect_to(owner.pages.owner).expect("it is alive");
            let (_, descriptors) = owner.raw.notice(|notice| matches!(notice, Notice::ChannelOpened { .. }));
            let (mut producer, _) =
                ring::open(descriptors[0].as_fd(), descriptors[1].as_fd(), RING_BYTES as u32)
                    .expect("a ring");
            producer.push(b"record").expect("room");
            hole(descriptors[0].as_fd(), 0, end_bytes(RING_BYTES as u32)).expect("it is its own");
            match channel.receiver.next(&mut Vec::new()) {
                Ok(false) => "nothing".to_owned(),
                other => format!("{other:?}"),
            }
        }),
    ];
    if nix::unistd::geteuid().is_root() {
        cases.push(case("reopen a reader's descriptor to write, as another user", "EACCES", |store| {
            let theirs = ReadOnly::new(store);
            for descriptor in &theirs.descriptors {
                let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
                let open = || nix::fcntl::open(path.as_str(), OFlag::O_RDWR, nix::sys::stat::Mode::empty());
                match as_user(65534, || open().map(drop)) {
                    Err(Errno::EACCES) => {}
                    result => return format!("{result:?}"),
                }
            }
            "EACCES".to_owned()
        }));
        cases.push(case("change a reader's descriptor's mode, as another user", "EPERM", |store| {
            let theirs = ReadOnly::new(store);
            for descriptor in &theirs.descriptors {
                let change = || nix::sys::stat::fchmod(descriptor, nix::sys::stat::Mode::S_IRWXU);
                match as_user(65534, change) {
                    Err(Errno::EPERM) => {}
                    result => return format!("{result:?}"),
                }
            }
            "EPERM".to_owned()
        }));
    } else {
        println!("SKIP: only root can be another user");
    }
    cases
}

#[test]
fn a_client_whose_owner_stalls_gives_up_alone() {
    // A whole second for each look, so not among the cases that are timed.
    let store = Store::start(PEER, CAPACITY);
    let owner = Owner::new(&store);
    let id = owner.write(3, Word::new(0, State::Dying).bits(), sound());
    let client = store.client();
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| read(&client, id));
        // Meanwhile the same client works on.
        let object = put_content(&client, LENGTH).expect("room");
        assert!(is_content_of(&object, object.id()));
        assert_eq!(stalled.join().expect("it ends"), "OwnerStalled");
    });
}
