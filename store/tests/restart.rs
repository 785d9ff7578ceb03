//! The clients of a killed store hand their state to the store in its place; these clients hand over nonsense. If these
//! fail, a mistake of one client costs the others their store.
//!
//! The memories are made here, as the store before would have made them.

mod common;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{RawClient, TestStore, eventually};
use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Refusal, Reply, Request};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::directory::{DirectoryWriter, SlotRecord};
use mobula_shm::memory::{PAGE_BYTES, SharedMemory};
use mobula_shm::names::{NameRecords, names_bytes};
use mobula_shm::pins::{HELD, PinReader, PinWriter};
use mobula_shm::table::{Location, State, TableWriter, Word};
use mobula_store::Config;

const CLIENTS: u32 = 4;
const SLOTS: u32 = CLIENTS + 1;
const NAMES: u32 = 16;
const ENTRIES: u32 = 64;

fn limits(config: Config) -> Config {
    // Long enough for a busy machine: only what waits for an end has a short one.
    let window = Duration::from_secs(60);
    let config = config.resume_window(window).first_resume_window(window);
    config.clients_max(CLIENTS).names_max(NAMES as usize)
}

/// The memory that the daemon before has left.
struct Left {
    control: SharedMemory,
}

impl Left {
    fn new() -> Self {
        let bytes = control_bytes(SLOTS) + names_bytes(NAMES);
        Self { control: SharedMemory::create(c"mobula-directory", bytes).unwrap() }
    }

    fn writer(&self) -> DirectoryWriter {
        DirectoryWriter::map(self.control.writable(), SLOTS).unwrap()
    }

    fn names(&self) -> NameRecords {
        NameRecords::map(self.control.writable(), control_bytes(SLOTS), NAMES).unwrap()
    }

    /// A client as the store before had it.
    fn client(&self, slot: u16) -> Before {
        let id = OwnerId::new(slot, 1000 + u64::from(slot));
        let record = SlotRecord {
            epoch: id.epoch(),
            committed: ENTRIES,
            process: std::process::id(),
            serial: u64::from(slot),
        };
        self.writer().set_owner(slot, record);
        let control = SharedMemory::create(c"mobula-control", control_bytes(SLOTS)).unwrap();
        let segment = SharedMemory::create(c"mobula-segment", PAGE_BYTES).unwrap();
        segment.allocate(0..PAGE_BYTES).unwrap();
        Before { id, control, segment, bell: Bell::create().unwrap() }
    }
}

struct Before {
    id: OwnerId,
    control: SharedMemory,
    segment: SharedMemory,
    bell: Bell,
}

impl Before {
    fn seal(&self, index: u32) -> ObjectId {
        let table = TableWriter::map(self.control.writable()).unwrap();
        let location = Location { segment: 7, offset: 0, length: 64, ..Location::default() };
        table.fill(index, &location);
        table.word(index).store(Word::new(3, State::Sealed).bits(), Ordering::SeqCst);
        ObjectId::new(self.id, index, 3)
    }

    fn introduction(&self) -> Request {
        let label = "before".to_owned();
        Request::Resume { owner: self.id, label, slots: SLOTS, segment_last: 7, readers_heard: 0 }
    }

    /// The descriptors of an honest introduction.
    fn descriptors(&self, left: &Left) -> Vec<OwnedFd> {
        let own = [self.control.writable(), self.bell.as_fd()];
        let own = own.map(|descriptor| descriptor.try_clone_to_owned().unwrap());
        own.into_iter().chain([left.control.read_only().unwrap()]).collect()
    }
}

fn tell(client: &RawClient, correlation: u64, request: &Request, descriptors: &[OwnedFd]) {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    client.socket.send(&request.encode(correlation), &descriptors).unwrap();
}

/// Comes back as a client should, with its one segment.
fn come_back(store: &TestStore, left: &Left, before: &Before, more: &[(Request, Vec<OwnedFd>)]) -> RawClient {
    let client = RawClient::new(store.connect());
    tell(&client, 1, &before.introduction(), &before.descriptors(left));
    let segment = before.segment.writable().try_clone_to_owned().unwrap();
    tell(&client, 2, &Request::ResumeSegment { segment: 7, bytes: PAGE_BYTES }, &[segment]);
    for (request, descriptors) in more {
        tell(&client, 3, request, descriptors);
    }
    tell(&client, 9, &Request::Resumed {}, &[]);
    client
}

#[test]
fn what_comes_back_is_the_store_that_it_was() {
    let left = Left::new();
    let (a, b, dead) = (left.client(1), left.client(2), left.client(3));
    let (object, of_the_dead) = (a.seal(5), dead.seal(6));
    // The daemon before had a name, a pin for it, a pin without any reason, and half a group's count.
    left.names().store(2, b"name", object.to_bytes());
    left.names().store(3, b"gone", ObjectId::new(a.id, 40, 1).to_bytes());
    let daemon_pins = PinWriter::map(left.control.writable(), 1).unwrap();
    daemon_pins.set(5, HELD);
    daemon_pins.set(9, HELD);
    PinWriter::map(b.control.writable(), 3).unwrap().set(6, HELD);
    let mut record = left.writer().owner(3).unwrap();
    record.process = u32::MAX >> 1;
    left.writer().set_owner(3, record);
    let store = TestStore::in_place_of_another(limits);
    let mut first =
        come_back(&store, &left, &a, &[(Request::ResumeChannel { channel: 5, peer: b.id }, vec![])]);
    let bell = || b.bell.as_fd().try_clone_to_owned().unwrap();
    let segment = dead.segment.read_only().unwrap();
    let more = [
        (Request::ResumePeer { owner: a.id, attached: true }, vec![a.control.read_only().unwrap(), bell()]),
        (
            Request::ResumePeer { owner: dead.id, attached: true },
            vec![dead.control.read_only().unwrap(), bell()],
        ),
        (Request::ResumeEscrowedSegment { owner: dead.id, segment: 7, bytes: PAGE_BYTES }, vec![segment]),
    ];
    let mut second = come_back(&store, &left, &b, &more);
    assert_eq!(first.reply(9).0, Reply::Resumed {});
    assert_eq!(second.reply(9).0, Reply::Resumed {});
    // The owner did not know its reader, and of the channel only one end was left.
    first.notice(|notice| *notice == Notice::ReaderJoined { reader: b.id });
    first.notice(|notice| *notice == Notice::ChannelClosed { channel: 5 });
    second.notice(|notice| *notice == Notice::OwnerDied { owner: dead.id });
    let Reply::Stats { totals } = first.call(&Request::Stats {}).0 else { panic!("no statistics") };
    assert_eq!((totals.clients, totals.dead_clients, totals.names), (2, 1, 1));
    assert_eq!((totals.leased_bytes, totals.orphaned_bytes), (2 * PAGE_BYTES, PAGE_BYTES));
    let (found, _) = second.call(&Request::Lookup { name: b"name".to_vec(), timeout_ms: 0 });
    assert_eq!(found, Reply::Found { object });
    let pins = PinReader::map(left.control.writable(), 1).unwrap();
    assert_eq!((pins.get(5), pins.get(9)), (HELD, 0));
    let table = TableWriter::map(dead.control.writable()).unwrap();
    assert_eq!(table.word(6).load(Ordering::SeqCst), Word::new(3, State::Sealed).bits(), "{of_the_dead}");
    // Numbers go on behind those of the store before.
    let (leased, _) = first.call(&Request::Lease { bytes: 1, timeout_ms: 0 });
    assert_eq!(leased, Reply::Leased { segment: 8, bytes: PAGE_BYTES });
    PinWriter::map(b.control.writable(), 3).unwrap().clear(6);
    second.notice(|notice| *notice == Notice::OwnerForgotten { owner: dead.id });
}

#[test]
fn who_holds_a_forgotten_owner_in_escrow_is_told() {
    let left = Left::new();
    let (holder, dead) = (left.client(1), left.client(3));
    // The daemon before was killed when it had forgotten the owner, and had not told anybody.
    left.writer().clear_owner(3);
    let store = TestStore::in_place_of_another(limits);
    let bell = dead.bell.as_fd().try_clone_to_owned().unwrap();
    let segment = dead.segment.read_only().unwrap();
    let more = [
        (
            Request::ResumePeer { owner: dead.id, attached: false },
            vec![dead.control.read_only().unwrap(), bell],
        ),
        (Request::ResumeEscrowedSegment { owner: dead.id, segment: 7, bytes: PAGE_BYTES }, vec![segment]),
    ];
    let mut client = come_back(&store, &left, &holder, &more);
    assert_eq!(client.reply(9).0, Reply::Resumed {});
    client.notice(|notice| *notice == Notice::OwnerForgotten { owner: dead.id });
    let Reply::Stats { totals } = client.call(&Request::Stats {}).0 else { panic!("no statistics") };
    assert_eq!((totals.dead_clients, totals.orphaned_bytes, totals.segments), (0, 0, 1));
}

#[test]
fn who_comes_back_with_nonsense_is_told_what_is_wrong_and_the_others_are_served() {
    let left = Left::new();
    let (good, bad) = (left.client(1), left.client(2));
    let object = good.seal(0);
    let foreign = Left::new();
    let store = TestStore::in_place_of_another(limits);
    // The first to come, so that there is something to compare with.
    let mut survivor = come_back(&store, &left, &good, &[]);
    let check = |what: &str, expected: &str, step: &dyn Fn(&RawClient)| {
        let mut client = RawClient::new(store.connect());
        step(&client);
        let mut reason = String::new();
        while let Some((_, reply)) = client.next_reply() {
            if let Reply::Failed {
                refusal: Refusal::CannotResume { reason: given } | Refusal::BadRequest { reason: given },
            } = reply
            {
                reason = given;
            }
        }
        assert!(reason.contains(expected), "{what}: {reason:?} does not say {expected:?}");
    };
    let with = |at: usize, other: OwnedFd| {
        let mut descriptors = bad.descriptors(&left);
        descriptors[at] = other;
        descriptors
    };
    let memory = |bytes: u64| {
        SharedMemory::create(c"another", bytes).unwrap().writable().try_clone_to_owned().unwrap()
    };
    let introduce = |descriptors: Vec<OwnedFd>| {
        let request = bad.introduction();
        move |client: &RawClient| tell(client, 1, &request, &descriptors)
    };
    check("a short control memory", "8192 bytes where", &introduce(with(0, memory(8192))));
    check(
        "a control memory that can only be read",
        "cannot be written",
        &introduce(with(0, bad.control.read_only().unwrap())),
    );
    check(
        "a file as a control memory",
        "no shared memory",
        &introduce(with(0, std::fs::File::open("/dev/null").unwrap().into())),
    );
    let another = foreign.control.read_only().unwrap();
    check("another daemon's memory", "another store", &introduce(with(2, another)));
    check("no descriptors", "0 descriptors where 3", &introduce(Vec::new()));
    let mut four = bad.descriptors(&left);
    four.push(memory(4096));
    check("one descriptor too many", "4 descriptors where 3", &introduce(four));
    let claims = |request: Request| {
        let descriptors = bad.descriptors(&left);
        move |client: &RawClient| tell(client, 1, &request, &descriptors)
    };
    let resume = |owner, slots, label: &str| Request::Resume {
        owner,
        label: label.into(),
        slots,
        segment_last: 0,
        readers_heard: 0,
    };
    check("somebody else", "is here already", &claims(resume(good.id, SLOTS, "x")));
    check("nobody", "there was no client", &claims(resume(OwnerId::new(2, 7), SLOTS, "x")));
    check("the daemon itself", "there was no client", &claims(resume(OwnerId::new(0, 7), SLOTS, "x")));
    check(
        "a slot that does not exist",
        "there was no client",
        &claims(resume(OwnerId::new(999, 7), SLOTS, "x")),
    );
    check("another size", "room for", &claims(resume(bad.id, 77, "x")));
    check("a long label", "a label of", &claims(resume(bad.id, SLOTS, &"x".repeat(300))));
    let after = |request: Request, descriptors: Vec<OwnedFd>| {
        let (introduction, own) = (bad.introduction(), bad.descriptors(&left));
        move |client: &RawClient| {
            tell(client, 1, &introduction, &own);
            tell(client, 2, &request, &descriptors);
        }
    };
    let segment = |bytes| Request::ResumeSegment { segment: 1, bytes };
    check("a segment that lies", "4096 bytes where", &after(segment(1 << 40), vec![memory(4096)]));
    check("a segment without memory", "0 descriptors", &after(segment(4096), vec![]));
    let mapped = Request::ResumeMapped { owner: good.id, segment: 7, bytes: PAGE_BYTES };
    check("a segment of nobody", "not told of", &after(mapped, vec![memory(4096)]));
    check("an ordinary request", "before the answer to Resumed", &after(Request::Stats {}, vec![]));
    check("Resume twice", "before the answer to Resumed", &after(bad.introduction(), vec![]));
    // Its place is still its own, and the store goes on with both.
    let mut back = come_back(&store, &left, &bad, &[]);
    assert_eq!(back.reply(9).0, Reply::Resumed {});
    assert_eq!(survivor.reply(9).0, Reply::Resumed {});
    assert_eq!(survivor.call(&Request::Publish { name: b"n".to_vec(), object }).0, Reply::Done {});
    check("too late", "is over", &introduce(bad.descriptors(&left)));
    assert!(matches!(back.call(&Request::Stats {}).0, Reply::Stats { .. }));
}

#[test]
fn who_is_new_waits_until_the_others_are_back_and_no_longer() {
    let store = TestStore::in_place_of_another(|config| {
        limits(config).first_resume_window(Duration::from_millis(300))
    });
    // Nobody comes back.
    let mut client = store.client();
    assert_eq!(client.totals().clients, 1);
    let before = Left::new().client(1);
    let mut late = RawClient::new(store.connect());
    tell(&late, 1, &before.introduction(), &[]);
    assert!(matches!(late.next_reply(), Some((1, Reply::Failed { refusal: Refusal::CannotResume { .. } }))));
}

#[test]
fn one_that_stops_in_the_middle_is_not_waited_for_without_end() {
    let left = Left::new();
    let (good, bad) = (left.client(1), left.client(2));
    let store = TestStore::in_place_of_another(|config| limits(config).resume_window(Duration::from_secs(2)));
    let mut whole = come_back(&store, &left, &good, &[]);
    let half = RawClient::new(store.connect());
    tell(&half, 1, &bad.introduction(), &bad.descriptors(&left));
    assert_eq!(whole.reply(9).0, Reply::Resumed {});
    eventually("the directory has forgotten the other", || left.writer().owner(2).is_none());
    drop(half);
    let Reply::Stats { totals } = whole.call(&Request::Stats {}).0 else { panic!("no statistics") };
    assert_eq!(totals.clients, 1);
}

/// The daemon may be killed between writing a new client into the directory and answering it. The client's process
/// lives, and the client repeats its hello. If this fails, all others wait for it until the end of the resume window.
#[test]
fn a_client_that_was_never_welcomed_is_not_waited_for() {
    let left = Left::new();
    let (returning, _unwelcomed) = (left.client(1), left.client(2));
    let store = TestStore::in_place_of_another(limits);
    let mut first = come_back(&store, &left, &returning, &[]);
    let mut second = RawClient::new(store.connect());
    let (reply, _) = second.call(&Request::Hello { label: "again".into(), serial: 2 });
    assert!(matches!(reply, Reply::Welcome { owner, .. } if owner.slot() != 1), "{reply:?}");
    assert_eq!(first.reply(9).0, Reply::Resumed {});
}
