//! Hostile clients at the socket: if a case fails, one program that sends nonsense, or too much, or nothing at all
//! takes the store of everyone down, holds it up, or makes it lose memory or descriptors.
//!
//! The daemon is a process of its own. After each case it runs, takes in a newcomer, and two clients who work all the
//! time have seen no error and no wrong byte; how much longer they wait is printed.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use mobula_client::{Client, ObjectId, OwnerId};
use mobula_protocol::VERSION;
use mobula_protocol::message::{HEADER_BYTES, LABEL_BYTES_MAX, NAME_BYTES_MAX, Notice, Reply, Request};
use mobula_protocol::socket::{DESCRIPTORS_MAX, MESSAGE_BYTES_MAX};
use mobula_shm::table::ENTRIES_MAX;
use mobula_store::{Config, Server};
use mobula_tests::hostile::{Case, Raw, Said, Suite, as_user, case};
use mobula_tests::{Process, Store, error_kind, eventually};
use nix::sys::signal::Signal;

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const CAPACITY: u64 = 16 << 20;
/// The number of messages of a client that sends too many.
const FLOOD: u64 = 10_000;

#[test]
fn every_hostile_client_is_answered_and_nobody_else_notices() {
    let mut suite = Suite::new(Store::start(PEER, CAPACITY));
    suite.group("bytes that are no message", garbage());
    suite.group("lengths that lie", lengths());
    suite.group("before the hello, and a second one", order());
    suite.group("what is not one's own", ids());
    suite.group("half messages and hang-ups", partial());
    suite.group("silence", silence());
    suite.group("floods", floods());
    suite.group("descriptors", descriptors());
    suite.group("processes", processes());
    suite.end(100);
}

// ---- messages ----

/// Sends bytes as the first of a connection; everything that it is told.
fn first(bytes: &[u8]) -> impl FnMut(&mut Store) -> String + use<> {
    let bytes = bytes.to_vec();
    move |store| {
        let mut raw = Raw::connect(&store.socket());
        raw.send(&bytes).expect("the socket takes it");
        raw.last_words()
    }
}

/// The same of a client that is welcome.
fn then(bytes: Vec<u8>) -> impl FnMut(&mut Store) -> String {
    move |store| {
        let (mut raw, _) = Raw::client(&store.socket());
        raw.send(&bytes).expect("the socket takes it");
        raw.last_words()
    }
}

/// Makes a request, as one that is welcome.
fn ask(request: Request) -> impl FnMut(&mut Store) -> String {
    move |store| Raw::client(&store.socket()).0.answer(&request)
}

fn hello() -> Vec<u8> {
    Request::Hello { label: "hostile".into(), serial: 1 }.encode(1)
}

/// A hello with some of its bytes replaced.
fn hello_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut hello = hello();
    hello[at..at + bytes.len()].copy_from_slice(bytes);
    hello
}

/// A message of which the fields are just these bytes.
fn message(opcode: u16, fields: &[u8]) -> Vec<u8> {
    let mut message = Request::Stats {}.encode(1);
    message[2..4].copy_from_slice(&opcode.to_le_bytes());
    message.extend_from_slice(fields);
    message
}

/// One of each kind but `Hello`.
fn requests() -> Vec<Request> {
    let owner = OwnerId::new(9, 9);
    let object = ObjectId::new(owner, 9, 9);
    let name = || b"name".to_vec();
    vec![
        Request::Lease { bytes: 4096, timeout_ms: 0 },
        Request::Release { segment: 1 },
        Request::GrowTable { entries: 1 },
        Request::Attach { owner },
        Request::Detach { owner },
        Request::MapSegment { owner, segment: 1 },
        Request::UnmapSegment { owner, segment: 1 },
        Request::Publish { name: name(), object },
        Request::Lookup { name: name(), timeout_ms: 0 },
        Request::Unpublish { name: name() },
        Request::ListNames { after: name() },
        Request::ListObjects { cursor: 0 },
        Request::ListSegments { cursor: 0 },
        Request::ListLocations { cursor: 0 },
        Request::Stats {},
        Request::ListClients { cursor: 0 },
        Request::Connect { peer: owner },
        Request::Disconnect { channel: 1 },
    ]
}

/// The name of a request.
fn name_of(request: &Request) -> String {
    format!("{request:?}").chars().take_while(char::is_ascii_alphabetic).collect()
}

// ---- the tables ----

fn garbage() -> Vec<Case<'static>> {
    let header = |at: usize, bytes: &[u8]| first(&hello_with(at, bytes));
    vec![
        case("another protocol", "same build", first(b"GET / HTTP/1.1\r\n\r\n")),
        case("one byte", "shorter", first(&[0xff])),
        case("a header without its last byte", "shorter", first(&hello()[..HEADER_BYTES - 1])),
        case("zeros", "version 0", first(&[0; 64])),
        case("ones", "version 65535", first(&[0xff; 64])),
        case("a page of noise", "same build", first(&[0x55; 4096])),
        case("the longest packet", "same build", first(&[0xaa; MESSAGE_BYTES_MAX])),
        case("one byte more than that", "over the limit", first(&[0xaa; MESSAGE_BYTES_MAX + 1])),
        case("a packet of 128 KiB", "over the limit", first(&[0xaa; 128 << 10])),
        case("a packet without bytes", "hung up", first(&[])),
        case("the version before", "same build", header(0, &(VERSION - 1).to_le_bytes())),
        case("the version after", "same build", header(0, &(VERSION + 1).to_le_bytes())),
        case("the version the wrong way round", "same build", header(0, &VERSION.to_be_bytes())),
        case("opcode 0", "unknown opcode 0", header(2, &[0, 0])),
        case("opcode 65535", "unknown opcode 65535", header(2, &[0xff; 2])),
        case("a notice's opcode", "unknown opcode 64", header(2, &[64, 0])),
        case("a flag", "reserved cannot be 1", header(4, &1u32.to_le_bytes())),
        case("the flag 2^31", "reserved cannot be 2147483648", header(4, &(1u32 << 31).to_le_bytes())),
        case("a byte too many", "1 bytes follow", first(&[hello(), vec![0]].concat())),
        case("two messages in a packet", "bytes follow", first(&[hello(), hello()].concat())),
        case("a reply", "unknown opcode 128", then(Reply::Done {}.encode(1))),
        case(
            "a notice",
            "unknown opcode 67",
            then(Notice::OwnerForgotten { owner: OwnerId::new(1, 1) }.encode(0)),
        ),
        case("each bit of a header flipped", "refused", |store| {
            // The correlation number is the client's own.
            for bit in 0..64 {
                let (mut raw, mut hello) = (Raw::connect(&store.socket()), hello());
                hello[bit / 8] ^= 1 << (bit % 8);
                raw.send(&hello).expect("the socket takes it");
                let words = raw.last_words();
                if !words.contains("BadRequest") {
                    return format!("bit {bit}: {words}");
                }
            }
            "refused".to_owned()
        }),
    ]
}

fn lengths() -> Vec<Case<'static>> {
    let serial = 1u64.to_le_bytes();
    let label = |length: u32| first(&message(1, &[&length.to_le_bytes()[..], b"hostile", &serial].concat()));
    let name = |length: u32| then(message(11, &[&length.to_le_bytes()[..], b"name"].concat()));
    let mut cases = vec![
        case("a label of 0 bytes before its text", "7 bytes follow", label(0)),
        case("a label of one byte more", "shorter", label(8)),
        case("a label of 2^31 bytes", "shorter", label(1 << 31)),
        case("a label of 2^32 - 1 bytes", "shorter", label(u32::MAX)),
        case("a label that is no text", "not UTF-8", first(&message(1, &[2, 0, 0, 0, 0xc3, 0x28]))),
        case(
            "a label over the limit",
            "a label of 257 bytes",
            first(&Request::Hello { label: "x".repeat(LABEL_BYTES_MAX + 1), serial: 1 }.encode(1)),
        ),
        case("a name of 0 bytes before its text", "4 bytes follow", name(0)),
        case("a name of 2^31 bytes", "shorter", name(1 << 31)),
        case("a name over the limit", "name_bytes_max", |store| {
            let (mut raw, pages) = Raw::client(&store.socket());
            let object = ObjectId::new(pages.owner, 0, 0);
            raw.answer(&Request::Publish { name: vec![b'x'; NAME_BYTES_MAX + 1], object })
        }),
        case("a lookup of a name over the limit", "name_bytes_max", {
            ask(Request::Lookup { name: vec![b'x'; NAME_BYTES_MAX + 1], timeout_ms: u64::MAX })
        }),
        case("an empty name", "an empty name", |store| {
            let (mut raw, pages) = Raw::client(&store.socket());
            raw.answer(&Request::Publish { name: Vec::new(), object: ObjectId::new(pages.owner, 0, 0) })
        }),
        case("a lease of 0 bytes", "bytes: 4096", ask(Request::Lease { bytes: 0, timeout_ms: 0 })),
        case("a cursor of 2^62", "not the cursor", ask(Request::ListObjects { cursor: 1 << 62 })),
        case("the last cursor", "next: None", ask(Request::ListObjects { cursor: (1 << 48) - 1 })),
        case("a cursor of segments", "not the cursor", ask(Request::ListSegments { cursor: u64::MAX })),
        case("the last segment", "next: None", ask(Request::ListSegments { cursor: (1 << 48) - 1 })),
        case("a cursor of locations", "not the cursor", ask(Request::ListLocations { cursor: 1 << 62 })),
        case("the last location", "next: None", ask(Request::ListLocations { cursor: (1 << 48) - 1 })),
        case("a client's cursor of 2^31", "not the cursor", ask(Request::ListClients { cursor: 1 << 31 })),
        case("a table of no entries", "TableGrown", ask(Request::GrowTable { entries: 0 })),
    ];
    for bytes in [CAPACITY + 1, 1 << 31, 1 << 62, i64::MAX as u64, u64::MAX - 4095, u64::MAX] {
        let lease = ask(Request::Lease { bytes, timeout_ms: u64::MAX });
        cases.push(case(format!("a lease of {bytes} bytes"), "TooLarge", lease));
    }
    for entries in [ENTRIES_MAX + 1, 1 << 31, u32::MAX] {
        let grow = ask(Request::GrowTable { entries });
        cases.push(case(format!("a table of {entries} entries"), "table_entries_max", grow));
    }
    for request in requests() {
        let name = format!("{} cut short at every length", name_of(&request));
        cases.push(case(name, "refused", move |store| {
            let whole = request.encode(1);
            for length in (1..whole.len()).step_by(3).chain([whole.len() - 1]) {
                let words = then(whole[..length].to_vec())(store);
                if !words.contains("shorter") {
                    return format!("{length} of {} bytes: {words}", whole.len());
                }
            }
            "refused".to_owned()
        }));
    }
    cases
}

fn order() -> Vec<Case<'static>> {
    let mut cases: Vec<_> = requests()
        .into_iter()
        .map(|request| {
            let name = format!("{} before the hello", name_of(&request));
            case(name, "the first request must be Hello", first(&request.encode(1)))
        })
        .collect();
    cases.push(case("a second hello", "a second Hello", then(hello())));
    cases.push(case("two hellos at once", "a second Hello", |store| {
        let mut raw = Raw::connect(&store.socket());
        raw.send(&hello()).expect("the socket takes it");
        raw.send(&hello()).expect("the socket takes it");
        raw.last_words()
    }));
    cases
}

fn ids() -> Vec<Case<'static>> {
    let forged = [
        ("the daemon", OwnerId::new(0, 0)),
        ("nobody", OwnerId::new(60, 1)),
        ("a slot that there is not", OwnerId::new(u16::MAX, 1)),
    ];
    let mut cases = Vec::new();
    for (who, owner) in forged {
        let object = ObjectId::new(owner, 0, 0);
        let row = |name: &str, expected: &str, request: Request| {
            case(format!("{name} {who}"), expected.to_owned(), ask(request))
        };
        cases.push(row("attach to", "NoSuchOwner", Request::Attach { owner }));
        cases.push(row("connect to", "NoSuchOwner", Request::Connect { peer: owner }));
        cases.push(row("map a segment of", "NoSuchOwner", Request::MapSegment { owner, segment: 1 }));
        cases.push(row("name an object of", "NoSuchObject", Request::Publish { name: b"x".into(), object }));
        cases.push(row("detach from", "Done", Request::Detach { owner }));
        cases.push(row("unmap a segment of", "Done", Request::UnmapSegment { owner, segment: 1 }));
    }
    let own = |store: &mut Store, request: fn(OwnerId) -> Request| {
        let (mut raw, pages) = Raw::client(&store.socket());
        raw.answer(&request(pages.owner))
    };
    cases.extend([
        case("attach to oneself", "Attach to oneself", move |store: &mut Store| {
            own(store, |owner| Request::Attach { owner })
        }),
        case("connect to oneself", "Connect to oneself", move |store: &mut Store| {
            own(store, |peer| Request::Connect { peer })
        }),
        case("name an entry that is free", "NoSuchObject", move |store: &mut Store| {
            own(store, |owner| Request::Publish { name: b"x".into(), object: ObjectId::new(owner, 1, 0) })
        }),
        case("name an entry beyond the table", "NoSuchObject", move |store: &mut Store| {
            own(store, |owner| Request::Publish {
                name: b"x".into(),
                object: ObjectId::new(owner, u32::MAX, 0),
            })
        }),
        case("one's own slot with another epoch", "NoSuchOwner", move |store: &mut Store| {
            own(store, |owner| Request::Attach { owner: OwnerId::new(owner.slot(), owner.epoch() ^ 1) })
        }),
        case(
            "release a segment that was never leased",
            "NoSuchSegment",
            ask(Request::Release { segment: 0 }),
        ),
        case("release the last segment there can be", "NoSuchSegment", {
            ask(Request::Release { segment: u32::MAX })
        }),
        case("release a segment twice", "NoSuchSegment", |store| {
            let (mut raw, _) = Raw::client(&store.socket());
            raw.ask(&Request::Lease { bytes: 4096, timeout_ms: 0 });
            raw.ask(&Request::Release { segment: 1 });
            raw.answer(&Request::Release { segment: 1 })
        }),
        case("release, unmap and map segments of somebody else", "NoSuchSegment", |store| {
            let (mut owner, owners) = Raw::client(&store.socket());
            owner.ask(&Request::Lease { bytes: 4096, timeout_ms: 0 });
            let (mut raw, _) = Raw::client(&store.socket());
            let theirs = owners.owner;
            let before = raw.answer(&Request::MapSegment { owner: theirs, segment: 1 });
            if !before.contains("NoSuchOwner") {
                return format!("mapped without having attached: {before}");
            }
            raw.ask(&Request::Attach { owner: theirs });
            raw.ask(&Request::UnmapSegment { owner: theirs, segment: 1 });
            for segment in [0, 2, u32::MAX] {
                let said = raw.answer(&Request::MapSegment { owner: theirs, segment });
                if !said.contains("NoSuchSegment") {
                    return said;
                }
            }
            let said = raw.answer(&Request::Release { segment: 1 });
            match owner.totals().segments {
                // The bystander has one too.
                2.. => said,
                _ => "it was released".to_owned(),
            }
        }),
        case("close the channel of others", "NoSuchChannel", |store| {
            let (mut left, _) = Raw::client(&store.socket());
            let (_right, right) = Raw::client(&store.socket());
            let Said::Reply(_, Reply::Connected { channel, .. }, _) =
                left.ask(&Request::Connect { peer: right.owner })
            else {
                return "not connected".to_owned();
            };
            let (mut raw, _) = Raw::client(&store.socket());
            for channel in [0, u64::MAX] {
                raw.ask(&Request::Disconnect { channel });
            }
            raw.answer(&Request::Disconnect { channel })
        }),
        case(
            "take away a name that nobody gave",
            "NoSuchName",
            ask(Request::Unpublish { name: b"x".into() }),
        ),
        case("take away no name", "NoSuchName", ask(Request::Unpublish { name: Vec::new() })),
        case(
            "ask for no name",
            "NoSuchName",
            ask(Request::Lookup { name: Vec::new(), timeout_ms: u64::MAX }),
        ),
    ]);
    cases
}

fn partial() -> Vec<Case<'static>> {
    use nix::sys::socket::{Shutdown, shutdown};
    use std::os::fd::AsRawFd;
    let silent = |_: Raw| "gone".to_owned();
    vec![
        case("hang up at once", "gone", move |store: &mut Store| silent(Raw::connect(&store.socket()))),
        case("hang up in the middle of a hello", "gone", move |store: &mut Store| {
            let raw = Raw::connect(&store.socket());
            raw.send(&hello()[..10]).expect("the socket takes it");
            silent(raw)
        }),
        case("hang up before the welcome", "gone", move |store: &mut Store| {
            let raw = Raw::connect(&store.socket());
            raw.send(&hello()).expect("the socket takes it");
            silent(raw)
        }),
        case("hang up with every kind of request under way", "gone", move |store: &mut Store| {
            let (mut raw, _) = Raw::client(&store.socket());
            for request in requests() {
                raw.request(&request).expect("the socket takes it");
            }
            silent(raw)
        }),
        case("hang up while a lease waits", "gone", move |store: &mut Store| {
            let (mut raw, _) = Raw::client(&store.socket());
            raw.request(&Request::Lease { bytes: CAPACITY, timeout_ms: u64::MAX }).expect("it is sent");
            raw.totals();
            silent(raw)
        }),
        case("say nothing more, but listen", "hung up", |store| {
            let (mut raw, _) = Raw::client(&store.socket());
            shutdown(raw.socket.as_raw_fd(), Shutdown::Write).expect("a socket");
            raw.last_words()
        }),
        case("ask, but do not listen any more", "gone", move |store: &mut Store| {
            let (mut raw, pages) = Raw::client(&store.socket());
            shutdown(raw.socket.as_raw_fd(), Shutdown::Read).expect("a socket");
            let _ = raw.request(&Request::Stats {});
            let (mut watcher, _) = Raw::client(&store.socket());
            eventually("it is gone", || {
                watcher.answer(&Request::Attach { owner: pages.owner }).contains("NoSuchOwner")
            });
            "gone".to_owned()
        }),
        case("a stream where packets belong", "rotocol wrong type", |store| {
            UnixStream::connect(store.socket()).expect_err("another type of socket").to_string()
        }),
    ]
}

fn silence() -> Vec<Case<'static>> {
    vec![
        case("600 who say nothing", "served", |store| {
            let silent: Vec<Raw> = (0..600).map(|_| Raw::connect(&store.socket())).collect();
            let (mut fresh, _) = Raw::client(&store.socket());
            fresh.totals();
            drop(silent);
            "served".to_owned()
        }),
        case("one byte now and then over 300 connections", "served", |store| {
            let mut slow: Vec<Raw> = (0..300).map(|_| Raw::connect(&store.socket())).collect();
            for round in 0..3 {
                for raw in &mut slow {
                    // A byte is a whole message here, and so the last.
                    let _ = raw.send(&[round]);
                    *raw = Raw::connect(&store.socket());
                }
                Raw::client(&store.socket()).0.totals();
            }
            "served".to_owned()
        }),
        case("clients who ask for something now and then", "served", |store| {
            let mut slow: Vec<Raw> = (0..40).map(|_| Raw::client(&store.socket()).0).collect();
            for _ in 0..3 {
                slow.iter_mut().for_each(|raw| _ = raw.totals());
            }
            "served".to_owned()
        }),
    ]
}

fn floods() -> Vec<Case<'static>> {
    /// Sends requests without reading an answer; how many it could send.
    fn unread(store: &mut Store, request: impl Fn(u64) -> Request) -> String {
        let (raw, _) = Raw::client(&store.socket());
        flood(&raw, request)
    }
    fn flood(raw: &Raw, request: impl Fn(u64) -> Request) -> String {
        let failed = (0..FLOOD).find_map(|number| raw.send(&request(number).encode(number)).err());
        match failed.map(|error| error.kind()) {
            Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => "shown out".to_owned(),
            other => format!("after {FLOOD} requests: {other:?}"),
        }
    }
    vec![
        case("10,000 requests, and no answer read", "shown out", |store| {
            unread(store, |_| Request::Stats {})
        }),
        case("10,000 pages of names of 1,000 bytes, and none read", "shown out", |store| {
            let (mut raw, pages) = Raw::client(&store.socket());
            // A promise can have a name, and needs no memory.
            let table = mobula_shm::table::TableWriter::map(pages.control.as_fd()).expect("a table");
            let promised = mobula_shm::table::Word::new(0, mobula_shm::table::State::Promised);
            table.word(0).store(promised.bits(), std::sync::atomic::Ordering::SeqCst);
            let object = ObjectId::new(pages.owner, 0, 0);
            for number in 0..40 {
                let name = format!("{number:01000}").into_bytes();
                let said = raw.answer(&Request::Publish { name, object });
                if !said.contains("Done") {
                    return said;
                }
            }
            let before = resident_bytes(store);
            let said = flood(&raw, |_| Request::ListNames { after: Vec::new() });
            let grown = resident_bytes(store).saturating_sub(before);
            if grown > 32 << 20 {
                return format!("the daemon kept {grown} bytes");
            }
            said
        }),
        case("10,000 requests that will never be answered", "waiters_max", |store| {
            let (mut raw, _) = Raw::client(&store.socket());
            for number in 0..FLOOD {
                let name = number.to_string().into_bytes();
                raw.request(&Request::Lookup { name, timeout_ms: u64::MAX }).expect("it is sent");
                if number >= 1024
                    && let said = raw.next_reply().to_string()
                    && !said.contains("waiters_max")
                {
                    return said;
                }
            }
            "waiters_max".to_owned()
        }),
        case("2,000 leases that never fit", "waiters_max", |store| {
            let (mut raw, _) = Raw::client(&store.socket());
            for number in 0..2000 {
                raw.request(&Request::Lease { bytes: CAPACITY, timeout_ms: u64::MAX }).expect("it is sent");
                if number >= 1024
                    && let said = raw.next_reply().to_string()
                    && !said.contains("waiters_max")
                {
                    return said;
                }
            }
            "waiters_max".to_owned()
        }),
        case("10,000 second hellos", "a second Hello", |store| {
            let (mut raw, _) = Raw::client(&store.socket());
            for _ in 0..FLOOD {
                if raw.send(&hello()).is_err() {
                    break;
                }
            }
            raw.last_words()
        }),
        case("10,000 packets over the limit", "over the limit", |store| {
            let (mut raw, _) = Raw::client(&store.socket());
            for _ in 0..FLOOD {
                if raw.send(&[0; MESSAGE_BYTES_MAX + 1]).is_err() {
                    break;
                }
            }
            raw.last_words()
        }),
        case("300 channels whose ends nobody fetches", "Connected", |store| {
            let (mut raw, _) = Raw::client(&store.socket());
            let (_deaf, deaf) = Raw::client(&store.socket());
            for _ in 0..300 {
                raw.request(&Request::Connect { peer: deaf.owner }).expect("it is sent");
            }
            raw.next_reply().to_string()
        }),
        case("500 connections that come and go", "gone", |store| {
            (0..500).for_each(|_| drop(Raw::connect(&store.socket())));
            "gone".to_owned()
        }),
        case("more clients than there may be", "clients_max", |store| {
            let mut clients = Vec::new();
            for _ in 0..100 {
                let mut raw = Raw::connect(&store.socket());
                raw.send(&hello()).expect("the socket takes it");
                match raw.next_reply() {
                    Said::Reply(_, Reply::Welcome { .. }, _) => clients.push(raw),
                    said => {
                        drop(clients);
                        until_there_is_room(store);
                        return said.to_string();
                    }
                }
            }
            "all welcome".to_owned()
        }),
    ]
}

/// Waits until the store takes in clients again.
fn until_there_is_room(store: &Store) {
    eventually("there is room for a client", || {
        let mut raw = Raw::connect(&store.socket());
        raw.send(&hello()).expect("the socket takes it");
        matches!(raw.next_reply(), Said::Reply(_, Reply::Welcome { .. }, _))
    });
}

fn resident_bytes(store: &mut Store) -> u64 {
    let pid = store.daemon_process().pid;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    // Anonymous: shared memory is others'.
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("in the status");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}

// ---- descriptors ----

fn descriptors() -> Vec<Case<'static>> {
    /// Sends descriptors with a request, which a kernel may refuse; in both cases the client is served.
    fn served_with(raw: &mut Raw, descriptors: &[BorrowedFd<'_>]) -> String {
        match raw.send_with(&Request::Stats {}.encode(77), descriptors) {
            Ok(()) if descriptors.len() > DESCRIPTORS_MAX => raw.last_words(),
            Ok(()) => raw.next_reply().to_string(),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => raw.answer(&Request::Stats {}),
            Err(error) => error.to_string(),
        }
    }
    /// Connects while the daemon cannot set anything up for the connection, and sends descriptors.
    fn too_early(store: &mut Store, count: usize) -> String {
        let file = File::open("/dev/null").expect("it is there");
        store.daemon_process().signal(Signal::SIGSTOP);
        let mut raw = Raw::connect(&store.socket());
        let sent = raw.send_with(&hello(), &vec![file.as_fd(); count]);
        store.daemon_process().signal(Signal::SIGCONT);
        match sent {
            Ok(()) if count > DESCRIPTORS_MAX => raw.last_words(),
            Ok(()) => raw.next_reply().to_string(),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "refused: over the limit".to_owned()
            }
            Err(error) => error.to_string(),
        }
    }
    vec![
        case("a descriptor that nobody asked for", "Stats", |store| {
            let file = File::open("/dev/null").expect("it is there");
            served_with(&mut Raw::client(&store.socket()).0, &[file.as_fd()])
        }),
        case("the connection through itself", "Stats", |store| {
            let (mut raw, _) = Raw::client(&store.socket());
            let own = raw.socket.as_fd().try_clone_to_owned().expect("a descriptor");
            served_with(&mut raw, &[own.as_fd(), own.as_fd()])
        }),
        case("one's own writable memories", "Stats", |store| {
            let (mut raw, pages) = Raw::client(&store.socket());
            served_with(&mut raw, &[pages.control.as_fd(), pages.bell.as_fd()])
        }),
        case(
            "as many descriptors as the kernel carries, before the daemon looks",
            "over the limit",
            |store| too_early(store, 253),
        ),
        case("one descriptor too many, before the daemon looks", "over the limit", |store| {
            too_early(store, DESCRIPTORS_MAX + 1)
        }),
    ]
}

#[test]
fn a_daemon_without_descriptors_says_so_and_serves_who_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("few-descriptors");
    fs::write(&script, format!("#!/bin/sh\nulimit -n 100\nexec '{PEER}' \"$@\"\n")).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let program: &'static str = script.to_str().unwrap().to_owned().leak();
    let mut suite = Suite::new(Store::start(program, CAPACITY));
    let mut taken = |what: &'static str, request: fn() -> Request| {
        let act = move |store: &mut Store| {
            let (mut raw, _) = Raw::client(&store.socket());
            let (mut other, _) = Raw::client(&store.socket());
            let mut kept = Vec::new();
            let said = loop {
                match raw.ask(&request()) {
                    Said::Reply(_, Reply::Failed { refusal }, _) => break format!("{refusal:?}"),
                    Said::Reply(_, _, descriptors) if kept.len() < 500 => kept.push(descriptors),
                    said => break format!("{said}"),
                }
            };
            // A client that is there already is served as before.
            other.totals();
            drop(raw);
            eventually("what was taken is back", || {
                let totals = other.totals();
                totals.clients == 4 && totals.dead_clients == 0
            });
            said
        };
        suite.group(what, vec![case(what, "errno: 24", act)]);
    };
    taken("descriptors used up by leases", || Request::Lease { bytes: 4096, timeout_ms: 0 });
    suite.end(1);
}

// ---- processes ----

fn processes() -> Vec<Case<'static>> {
    vec![case("a process with the number of one that has died", "another client", |store| {
        reused_number(store).unwrap_or_else(|reason| {
            println!("SKIP: a process id could not be used again: {reason}");
            "another client".to_owned()
        })
    })]
}

/// A client dies while the daemon does not look, and another process gets its number and connects.
fn reused_number(store: &mut Store) -> Result<String, String> {
    let mut dead = store.peer();
    let object = dead.id("put 1000");
    let reader = store.client();
    let kept = reader.get(object).map_err(|error| error.to_string())?;
    store.daemon_process().signal(Signal::SIGSTOP);
    dead.kill();
    let socket = store.socket();
    let started = start_with_number(dead.pid, &socket);
    store.daemon_process().signal(Signal::SIGCONT);
    let mut second = started?;
    second.answer().map_err(|error| format!("it does not connect: {error}"))?;
    let new = second.id("put 1000");
    if new.owner() == object.owner() {
        return Ok("the dead one's client".to_owned());
    }
    // Nothing of the dead one is taken for the living one's, or the other way round.
    if !mobula_tests::is_content_of(&kept, object) || reader.get(new).is_err() {
        return Ok("lost an object".to_owned());
    }
    eventually("the dead client is listed", || {
        let clients = reader.stats().expect("the daemon answers").clients;
        let is_dead = |owner| clients.iter().find(|info| info.owner == owner).map(|info| info.dead);
        is_dead(object.owner()) == Some(true) && is_dead(new.owner()) == Some(false)
    });
    second.kill();
    eventually("the second death is noticed", || {
        let clients = reader.stats().expect("the daemon answers").clients;
        !clients.iter().any(|info| info.owner == new.owner() && !info.dead)
    });
    Ok("another client".to_owned())
}

/// Starts a client whose process has just this number.
fn start_with_number(number: u32, socket: &Path) -> Result<Process, String> {
    const ATTEMPTS: usize = 200;
    for _ in 0..ATTEMPTS {
        fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string())
            .map_err(|error| format!("the next process id cannot be chosen: {error}"))?;
        let mut command = std::process::Command::new(PEER);
        command.arg("client").arg(socket);
        let process = Process::start(command);
        if process.pid == number {
            return Ok(process);
        }
    }
    Err(format!("others were faster {ATTEMPTS} times"))
}

// ---- the socket's place ----

/// The outcome of starting a store at a path.
fn start_at(path: &Path) -> String {
    match Server::bind(Config::new(path, CAPACITY)) {
        Ok(_) => "started".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn what_lies_at_the_socket_s_path_is_left_alone() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sock");
    let mut cases = 0;
    let mut check = |what: &str, expected: &str, put: &dyn Fn(&Path)| {
        cases += 1;
        put(&path);
        let before = fs::symlink_metadata(&path).unwrap();
        let said = start_at(&path);
        assert!(said.contains(expected), "{what}: {said}");
        let after = fs::symlink_metadata(&path).unwrap();
        assert_eq!(before.file_type(), after.file_type(), "{what} was replaced");
        if after.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
    };
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    check("a link to nowhere", "NotASocket", &|path| symlink("/nowhere", path).unwrap());
    check("a link to a file", "NotASocket", &|path| symlink(&file, path).unwrap());
    check("a link to a store that runs", "NotASocket", &|path| symlink(store.socket(), path).unwrap());
    check("a link to itself", "NotASocket", &|path| symlink(path, path).unwrap());
    check("a file", "NotASocket", &|path| fs::write(path, "text").unwrap());
    check("a directory", "NotASocket", &|path| fs::create_dir(path).unwrap());
    check("a pipe", "NotASocket", &|path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    });
    let listener = std::cell::RefCell::new(None);
    check("somebody else's socket", "AlreadyRunning", &|path| {
        listener.replace(Some(UnixListener::bind(path).unwrap()));
    });
    assert_eq!(fs::read(&file).unwrap(), b"text");
    client.stats().unwrap();
    println!("{cases} cases of the socket's place");
}

#[test]
fn another_user_s_places_and_stores_are_refused() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: only root can be another user");
        return;
    }
    let open_to_all = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let theirs = directory.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    let nobody = 65534;
    nix::unistd::chown(&theirs, Some(nix::unistd::Uid::from_raw(nobody)), None).unwrap();
    let link = directory.path().join("link");
    symlink(&theirs, &link).unwrap();
    for place in [&theirs, &link] {
        let said = start_at(&place.join("store.sock"));
        assert!(said.contains("belongs to another user"), "{said}");
    }
    // A store of another user's is nothing to put one's objects in; nor is it for anyone but root to use.
    open_to_all(directory.path());
    open_to_all(&theirs);
    let path = theirs.join("store.sock");
    let listener = as_user(nobody, || mobula_protocol::socket::Socket::listen(&path, 5).unwrap());
    open_to_all(&path);
    let error = as_user(nobody - 1, || Client::connect(&path).unwrap_err().to_string());
    assert!(error.contains("belongs to user 65534"), "{error}");
    drop(listener);
    // A child that another test has just forked has the listener, too, until it runs its own program.
    eventually("nobody listens", || error_kind(Client::connect(&path)) == "NoStore");
}
