//! Clients of an impostor instead of a daemon. If a case fails, a program that listens where a store should be, by
//! mistake or on purpose, crashes the programs that connect, or keeps them waiting for ever.
//!
//! The impostor speaks the protocol, and in each case something that no daemon says: other descriptors, other lengths,
//! replies that nobody asked for, silence, nonsense. The clients are real ones. Each gets a typed error, or goes on.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use mobula_client::{Client, ClientError, ConnectOptions, ObjectId, OwnerId, Refusal, Totals};
use mobula_protocol::VERSION;
use mobula_protocol::message::{ClientInfo, NameInfo, Notice, Reply, Request};
use mobula_protocol::socket::{MESSAGE_BYTES_MAX, Socket};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::directory::directory_bytes;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::memory::{PAGE_BYTES, SharedMemory};
use mobula_shm::ring::end_bytes;
use mobula_shm::table::{Location, State, TABLE_BYTES, TableWriter, Word};
use mobula_tests::hostile::Raw;
use mobula_tests::{PATIENCE, kind_of};

/// How long clients wait here for answers: on a busy machine, one that comes may take a while.
const SOON: Duration = Duration::from_millis(300);
const SLOTS: u32 = 8;
const CAPACITY: u64 = 1 << 20;
/// The client's slot, and the slot of the owner whose objects it asks for.
const SELF: u16 = 1;
const OTHER: u16 = 2;

fn owner(slot: u16) -> OwnerId {
    OwnerId::new(slot, 77)
}

fn object() -> ObjectId {
    ObjectId::new(owner(OTHER), 3, 0)
}

// ---- the impostor ----

/// The answers of an impostor.
enum Answer {
    Reply(Reply, Vec<OwnedFd>),
    /// Any bytes.
    Bytes(Vec<u8>),
    /// The reply to another request.
    Elsewhere(Reply),
    Silence,
    HangUp,
}

fn reply(reply: Reply) -> Answer {
    Answer::Reply(reply, Vec::new())
}

fn with(reply: Reply, descriptors: Vec<OwnedFd>) -> Answer {
    Answer::Reply(reply, descriptors)
}

/// A connection from the impostor's side.
struct Impostor {
    raw: Raw,
}

impl Impostor {
    fn send(&self, bytes: &[u8], descriptors: &[OwnedFd]) {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        // The client may have had enough.
        let _ = self.raw.send_with(bytes, &descriptors);
    }

    fn notice(&self, notice: &Notice, descriptors: Vec<OwnedFd>) {
        self.send(&notice.encode(0), &descriptors);
    }

    /// Answers until the client, or it itself, hangs up.
    fn serve(&self, mut answer: impl FnMut(Request) -> Answer) {
        while let Ok(Some(packet)) = self.raw.socket.receive() {
            let (correlation, request) = Request::decode(&packet.bytes).expect("the client is honest");
            match answer(request) {
                Answer::Reply(reply, descriptors) => self.send(&reply.encode(correlation), &descriptors),
                Answer::Bytes(mut bytes) => {
                    if let Some(field) = bytes.get_mut(8..16) {
                        field.copy_from_slice(&correlation.to_le_bytes());
                    }
                    self.send(&bytes, &[]);
                }
                Answer::Elsewhere(reply) => self.send(&reply.encode(correlation + 1000), &[]),
                Answer::Silence => {}
                Answer::HangUp => return,
            }
        }
    }
}

/// Lets a client act on an impostor. Returns the outcome.
fn meet(
    play: impl FnOnce(Impostor) + Send,
    act: impl FnOnce(&std::path::Path) -> Result<String, ClientError> + Send + 'static,
) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.sock");
    let listener = Socket::listen(&path, 5).expect("a socket");
    let (sender, said) = channel();
    std::thread::scope(|scope| {
        scope.spawn({
            let path = path.clone();
            move || {
                let result = act(&path);
                let _ = sender.send(result.unwrap_or_else(|error| kind_of(&error)));
            }
        });
        let socket = accept(&listener);
        // A client that connects again finds no listener.
        drop(listener);
        std::fs::remove_file(&path).expect("it was there");
        play(Impostor { raw: Raw::over(socket) });
        said.recv_timeout(PATIENCE).unwrap_or_else(|_| "hangs, or has crashed".to_owned())
    })
}

/// The next connection, which blocks.
fn accept(listener: &Socket) -> Socket {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let socket = loop {
        match listener.accept().expect("somebody comes") {
            Some(socket) => break socket,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty())).expect("a socket");
    socket
}

fn connect(path: &std::path::Path) -> Result<Client, ClientError> {
    ConnectOptions::new().answer_timeout(SOON).lease_timeout(SOON).connect(path)
}

fn memory(bytes: u64) -> OwnedFd {
    owned(&SharedMemory::create(c"impostor", bytes).expect("memory"))
}

fn owned(memory: &SharedMemory) -> OwnedFd {
    memory.writable().try_clone_to_owned().expect("a descriptor")
}

fn read_only(bytes: u64) -> OwnedFd {
    SharedMemory::create(c"impostor", bytes).expect("memory").read_only().expect("a descriptor")
}

fn unsealed(bytes: u64) -> OwnedFd {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let memory = memfd_create(c"impostor", MFdFlags::MFD_CLOEXEC).expect("memory");
    nix::unistd::ftruncate(&memory, bytes as i64).expect("memory");
    memory
}

fn bell() -> OwnedFd {
    Bell::create().expect("a bell").as_fd().try_clone_to_owned().expect("a descriptor")
}

fn file() -> OwnedFd {
    std::fs::File::options().read(true).write(true).open("/dev/null").expect("it is there").into()
}

fn pipe() -> OwnedFd {
    nix::unistd::pipe().expect("a pipe").1
}

/// A daemon's answer to a hello.
struct Welcome {
    owner: OwnerId,
    slots: u32,
    entries: u32,
    capacity_bytes: u64,
    descriptors: Vec<OwnedFd>,
}

impl Welcome {
    fn honest() -> Self {
        let directory = memory(control_bytes(SLOTS));
        let committed = usize::from(OTHER) * 64 + 16;
        let words = WriteMapping::map(directory.as_fd(), 0, PAGE_BYTES as usize).expect("a directory");
        words.word64(committed).store(4096, Ordering::SeqCst);
        Self {
            owner: owner(SELF),
            slots: SLOTS,
            entries: 4096,
            capacity_bytes: CAPACITY,
            descriptors: vec![memory(control_bytes(SLOTS)), bell(), directory],
        }
    }

    fn answer(self) -> Answer {
        let Self { owner, slots, entries, capacity_bytes, descriptors } = self;
        with(Reply::Welcome { owner, slots, entries, capacity_bytes }, descriptors)
    }
}

/// The table of another owner with one sealed object in it.
fn table_of_another() -> OwnedFd {
    let table = memory(TABLE_BYTES);
    let writer = TableWriter::map(table.as_fd()).expect("a table");
    writer.fill(3, &Location { segment: 1, offset: 0, length: 64, format: 0, references: 0 });
    writer.word(3).store(Word::new(0, State::Sealed).bits(), Ordering::SeqCst);
    table
}

/// An answer that an honest daemon might give.
fn honest(request: &Request) -> Answer {
    match request {
        Request::Hello { .. } => Welcome::honest().answer(),
        Request::Lease { bytes, .. } => {
            let bytes = bytes.next_multiple_of(PAGE_BYTES);
            with(Reply::Leased { segment: 1, bytes }, vec![memory(bytes)])
        }
        Request::GrowTable { entries } => reply(Reply::TableGrown { entries: *entries }),
        Request::Attach { .. } => with(Reply::Attached { dead: false }, vec![table_of_another(), bell()]),
        Request::MapSegment { .. } => {
            with(Reply::SegmentMapped { bytes: PAGE_BYTES }, vec![read_only(PAGE_BYTES)])
        }
        Request::Lookup { .. } => reply(Reply::Found { object: object() }),
        Request::ListNames { .. } => reply(Reply::Names { names: Vec::new(), more: false }),
        Request::ListObjects { .. } => reply(Reply::Objects { objects: Vec::new(), next: None }),
        Request::ListClients { .. } => reply(Reply::Clients { clients: Vec::new(), next: None }),
        Request::ListSegments { .. } => reply(Reply::Segments { segments: Vec::new(), next: None }),
        Request::ListLocations { .. } => reply(Reply::Locations { locations: Vec::new(), next: None }),
        Request::Stats {} => reply(Reply::Stats { totals: totals() }),
        Request::Connect { .. } => {
            let end = || end_bytes(4096);
            with(Reply::Connected { channel: 1, data_bytes: 4096 }, vec![memory(end()), read_only(end())])
        }
        _ => reply(Reply::Done {}),
    }
}

fn totals() -> Totals {
    let mut totals = Totals::default();
    totals.capacity_bytes = CAPACITY;
    totals.free_bytes = CAPACITY;
    totals.clients = 1;
    totals
}

// ---- the table ----

/// Cases, and those that failed.
#[derive(Default)]
struct Cases {
    count: usize,
    failures: Vec<String>,
}

impl Cases {
    fn check(&mut self, name: &str, expected: &[&str], said: &str) {
        self.count += 1;
        println!("{name}: {said}");
        if !expected.contains(&said) {
            self.failures.push(format!("{name}: expected {expected:?}, got {said:?}"));
        }
    }

    /// An impostor that answers a hello as it is told.
    fn hello(&mut self, name: &str, expected: &[&str], answer: impl FnOnce() -> Answer + Send) {
        let mut answer = Some(answer);
        let said = meet(
            |impostor| {
                impostor.serve(|request| match answer.take() {
                    Some(answer) => answer(),
                    None => honest(&request),
                });
            },
            |path| connect(path).map(|_| "connected".to_owned()),
        );
        self.check(&format!("hello: {name}"), expected, &said);
    }

    /// An impostor that answers some requests as it is told, and the others as a daemon does.
    fn request(
        &mut self,
        name: &str,
        expected: &[&str],
        answer: impl FnMut(&Request) -> Option<Answer> + Send,
        act: impl FnOnce(&Client) -> Result<String, ClientError> + Send + 'static,
    ) {
        let mut answer = answer;
        let said = meet(
            |impostor| impostor.serve(|request| answer(&request).unwrap_or_else(|| honest(&request))),
            |path| act(&connect(path)?),
        );
        self.check(name, expected, &said);
    }

    /// An impostor that tells something before it answers the next request.
    fn notice(&mut self, name: &str, tell: impl Fn(&Impostor) + Send + Sync) {
        let said = meet(
            |impostor| {
                impostor.serve(|request| {
                    if matches!(request, Request::Stats {}) {
                        tell(&impostor);
                    }
                    honest(&request)
                });
            },
            |path| {
                let client = connect(path)?;
                let events = client.events();
                let before = client.get(object()).map(|object| object.len());
                client.stats()?;
                client.stats()?;
                drop(events);
                _ = client.put(b"bytes")?;
                Ok(format!("served, {} bytes", before?))
            },
        );
        self.check(&format!("notice: {name}"), &["served, 64 bytes"], &said);
    }
}

/// A name, what may be said, and what the impostor does.
type Row<T> = (&'static str, &'static [&'static str], T);

const NONSENSE: &[&str] = &["BadReply", "System"];

fn hellos(cases: &mut Cases) {
    let lies: [Row<fn(&mut Welcome)>; 25] = [
        ("the truth", &["connected"], |_| {}),
        ("no descriptors", NONSENSE, |welcome| welcome.descriptors.clear()),
        ("one too few", NONSENSE, |welcome| drop(welcome.descriptors.pop())),
        ("one too many", NONSENSE, |welcome| welcome.descriptors.push(bell())),
        ("in another order", NONSENSE, |welcome| welcome.descriptors.rotate_left(1)),
        ("files", NONSENSE, |welcome| welcome.descriptors = (0..3).map(|_| file()).collect()),
        ("pipes", NONSENSE, |welcome| welcome.descriptors = (0..3).map(|_| pipe()).collect()),
        ("bells", NONSENSE, |welcome| welcome.descriptors = (0..3).map(|_| bell()).collect()),
        ("a table and no pins", NONSENSE, |welcome| welcome.descriptors[0] = memory(TABLE_BYTES)),
        ("a page too few", NONSENSE, |welcome| {
            welcome.descriptors[0] = memory(control_bytes(SLOTS) - PAGE_BYTES);
        }),
        ("no page at all", NONSENSE, |welcome| welcome.descriptors[0] = memory(0)),
        ("a table that may shrink", NONSENSE, |welcome| {
            welcome.descriptors[0] = unsealed(control_bytes(SLOTS));
        }),
        ("a table to read only", NONSENSE, |welcome| {
            welcome.descriptors[0] = read_only(control_bytes(SLOTS));
        }),
        ("a file for a bell", NONSENSE, |welcome| welcome.descriptors[1] = file()),
        ("a pipe for a bell", NONSENSE, |welcome| welcome.descriptors[1] = pipe()),
        ("memory for a bell", NONSENSE, |welcome| welcome.descriptors[1] = memory(8)),
        ("no directory", NONSENSE, |welcome| welcome.descriptors[2] = memory(0)),
        ("a directory and no pins", NONSENSE, |welcome| {
            welcome.descriptors[2] = memory(directory_bytes(SLOTS));
        }),
        ("a directory that may shrink", NONSENSE, |welcome| {
            welcome.descriptors[2] = unsealed(control_bytes(SLOTS));
        }),
        ("no slots", NONSENSE, |welcome| welcome.slots = 0),
        ("2^32 - 1 slots", NONSENSE, |welcome| {
            welcome.slots = u32::MAX;
            welcome.descriptors[0] = memory(control_bytes(u32::MAX));
            welcome.descriptors[2] = memory(control_bytes(u32::MAX));
        }),
        ("a slot behind the last", NONSENSE, |welcome| welcome.owner = owner(SLOTS as u16)),
        ("the last slot there can be", NONSENSE, |welcome| welcome.owner = owner(u16::MAX)),
        ("the daemon's own slot", NONSENSE, |welcome| welcome.owner = owner(0)),
        ("2^32 - 1 entries", NONSENSE, |welcome| welcome.entries = u32::MAX),
    ];
    for (name, expected, lie) in lies {
        cases.hello(name, expected, || {
            let mut welcome = Welcome::honest();
            lie(&mut welcome);
            welcome.answer()
        });
    }
    cases.hello("done", NONSENSE, || reply(Reply::Done {}));
    cases.hello("a refusal", &["LimitReached"], || {
        reply(Reply::Failed { refusal: Refusal::LimitReached { limit: "clients_max".into(), max: 1 } })
    });
    for (name, expected, answer) in answers() {
        cases.hello(name, expected, answer);
    }
}

/// The wrong answers that can take the place of any reply.
fn answers() -> Vec<Row<fn() -> Answer>> {
    vec![
        ("silence", &["Timeout"], || Answer::Silence),
        ("a hang-up", &["StoreLost", "Timeout"], || Answer::HangUp),
        ("another's reply", &["Timeout"], || Answer::Elsewhere(Reply::Done {})),
        ("zeros", &["Timeout", "BadReply"], || Answer::Bytes(vec![0; 64])),
        ("ones", &["Timeout", "BadReply"], || Answer::Bytes(vec![0xff; 64])),
        ("one byte", &["Timeout"], || Answer::Bytes(vec![7])),
        ("a packet without bytes", &["StoreLost", "Timeout"], || Answer::Bytes(Vec::new())),
        ("a packet over the limit", &["Timeout"], || Answer::Bytes(vec![0; MESSAGE_BYTES_MAX + 1])),
        ("half a reply", NONSENSE, || {
            let refusal = Refusal::StoreFull { requested_bytes: 1, capacity_bytes: 1, free_bytes: 1 };
            let mut bytes = Reply::Failed { refusal }.encode(1);
            bytes.truncate(20);
            Answer::Bytes(bytes)
        }),
        ("a reply and more", NONSENSE, || Answer::Bytes([Reply::Done {}.encode(1), vec![0; 9]].concat())),
        ("another version", NONSENSE, || {
            let mut bytes = Reply::Done {}.encode(1);
            bytes[..2].copy_from_slice(&(VERSION + 1).to_le_bytes());
            Answer::Bytes(bytes)
        }),
        ("a request", NONSENSE, || Answer::Bytes(Request::Stats {}.encode(1))),
        ("a list longer than its message", NONSENSE, || {
            let mut bytes = Reply::Names { names: Vec::new(), more: false }.encode(1);
            bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
            Answer::Bytes(bytes)
        }),
        ("a reply of another kind", NONSENSE, || reply(Reply::Found { object: object() })),
        ("a refusal", &["StoreFull"], || {
            let refusal = Refusal::StoreFull { requested_bytes: 1, capacity_bytes: 1, free_bytes: 1 };
            reply(Reply::Failed { refusal })
        }),
    ]
}

type Act = fn(&Client) -> Result<String, ClientError>;
/// A name, the request that is answered in a wrong way, and what a client does that makes it.
type Operation = (&'static str, fn(&Request) -> bool, Act);

fn put(client: &Client) -> Result<String, ClientError> {
    client.put(&[7; 100]).map(|object| format!("{} bytes", object.len()))
}

fn get(client: &Client) -> Result<String, ClientError> {
    client.get(object()).map(|object| format!("{} bytes", object.iter().map(|_| 1).sum::<u64>()))
}

fn channel_to(client: &Client) -> Result<String, ClientError> {
    let mut channel = client.connect_to(owner(OTHER))?;
    let sent = channel.sender.send(b"record");
    let received = channel.receiver.next(&mut Vec::new());
    Ok(format!("{} {}", sent.is_ok(), received.is_ok()))
}

/// Every request, answered in every wrong way.
fn requests(cases: &mut Cases) {
    let operations: [Operation; 11] = [
        ("put", |request| matches!(request, Request::Lease { .. }), put),
        ("attach", |request| matches!(request, Request::Attach { .. }), get),
        ("map a segment", |request| matches!(request, Request::MapSegment { .. }), get),
        (
            "publish",
            |request| matches!(request, Request::Publish { .. }),
            |client| client.publish("name", object()).map(|()| "published".to_owned()),
        ),
        (
            "names",
            |request| matches!(request, Request::ListNames { .. }),
            |client| client.names().map(|names| names.len().to_string()),
        ),
        (
            "list",
            |request| matches!(request, Request::ListObjects { .. }),
            |client| client.list().map(|objects| objects.len().to_string()),
        ),
        (
            "segments",
            |request| matches!(request, Request::ListSegments { .. }),
            |client| client.segments().map(|segments| segments.len().to_string()),
        ),
        (
            "locations",
            |request| matches!(request, Request::ListLocations { .. }),
            |client| client.locations().map(|locations| locations.len().to_string()),
        ),
        (
            "stats",
            |request| matches!(request, Request::Stats { .. }),
            |client| client.stats().map(|stats| stats.objects().to_string()),
        ),
        (
            "clients",
            |request| matches!(request, Request::ListClients { .. }),
            |client| client.stats().map(|stats| stats.objects().to_string()),
        ),
        ("connect", |request| matches!(request, Request::Connect { .. }), channel_to),
    ];
    for (operation, is_it, act) in operations {
        cases.request(
            &format!("{operation}: the truth"),
            &["100 bytes", "64 bytes", "published", "0", "true true"],
            |_| None,
            act,
        );
        for (name, expected, answer) in answers() {
            let name = format!("{operation}: {name}");
            cases.request(&name, expected, move |request| is_it(request).then(answer), act);
        }
    }
}

/// Replies of the right kind that lie.
fn lies(cases: &mut Cases) {
    let leased = |bytes: u64, descriptors: fn(u64) -> Vec<OwnedFd>| {
        move |request: &Request| {
            let Request::Lease { bytes: asked, .. } = request else { return None };
            let bytes = if bytes == 0 { *asked } else { bytes };
            Some(with(Reply::Leased { segment: 1, bytes }, descriptors(bytes)))
        }
    };
    let one = |bytes| vec![memory(bytes)];
    cases.request("lease: no descriptor", NONSENSE, leased(0, |_| vec![]), put);
    cases.request(
        "lease: two descriptors",
        NONSENSE,
        leased(0, |bytes| vec![memory(bytes), memory(bytes)]),
        put,
    );
    cases.request("lease: short", NONSENSE, leased(0, |_| vec![memory(PAGE_BYTES)]), put);
    cases.request("lease: it may shrink", NONSENSE, leased(0, |bytes| vec![unsealed(bytes)]), put);
    cases.request("lease: to read only", NONSENSE, leased(0, |bytes| vec![read_only(bytes)]), put);
    cases.request("lease: a file", NONSENSE, leased(0, |_| vec![file()]), put);
    cases.request("lease: a bell", NONSENSE, leased(0, |_| vec![bell()]), put);
    cases.request("lease: one byte", NONSENSE, leased(1, one), put);
    cases.request("lease: less than asked for, again and again", NONSENSE, leased(4096, one), |client| {
        client.put(&[7; 100_000]).map(|object| format!("{} bytes", object.len()))
    });
    cases.request("lease: a terabyte", NONSENSE, leased(1 << 40, one), put);
    cases.request("lease: 2^62 bytes", NONSENSE, leased(1 << 62, one), put);
    cases.request(
        "lease: no bytes",
        NONSENSE,
        |request| {
            matches!(request, Request::Lease { .. })
                .then(|| with(Reply::Leased { segment: 1, bytes: 0 }, vec![memory(0)]))
        },
        put,
    );
    let attached = |descriptors: fn() -> Vec<OwnedFd>| {
        move |request: &Request| {
            matches!(request, Request::Attach { .. })
                .then(|| with(Reply::Attached { dead: false }, descriptors()))
        }
    };
    cases.request("attach: no descriptors", NONSENSE, attached(Vec::new), get);
    cases.request("attach: a short table", NONSENSE, attached(|| vec![memory(PAGE_BYTES), bell()]), get);
    cases.request(
        "attach: a table that may shrink",
        NONSENSE,
        attached(|| vec![unsealed(TABLE_BYTES), bell()]),
        get,
    );
    cases.request(
        "attach: the wrong way round",
        NONSENSE,
        attached(|| vec![bell(), table_of_another()]),
        get,
    );
    cases.request("attach: a pipe for a bell", NONSENSE, attached(|| vec![table_of_another(), pipe()]), get);
    cases.request(
        "attach: another reply with the descriptors",
        NONSENSE,
        |request| {
            matches!(request, Request::Attach { .. })
                .then(|| with(Reply::Done {}, vec![table_of_another(), bell()]))
        },
        get,
    );
    let mapped = |bytes: u64, descriptors: fn() -> Vec<OwnedFd>| {
        move |request: &Request| {
            matches!(request, Request::MapSegment { .. })
                .then(|| with(Reply::SegmentMapped { bytes }, descriptors()))
        }
    };
    cases.request("map: no descriptor", NONSENSE, mapped(PAGE_BYTES, Vec::new), get);
    cases.request("map: short", NONSENSE, mapped(2 * PAGE_BYTES, || vec![read_only(PAGE_BYTES)]), get);
    cases.request("map: it may shrink", NONSENSE, mapped(PAGE_BYTES, || vec![unsealed(PAGE_BYTES)]), get);
    cases.request("map: no bytes", NONSENSE, mapped(0, || vec![read_only(PAGE_BYTES)]), get);
    cases.request("map: 2^62 bytes", NONSENSE, mapped(1 << 62, || vec![memory(1 << 62)]), get);
    cases.request("map: less than the object", &["Corrupt"], mapped(8, || vec![read_only(PAGE_BYTES)]), get);
    let connected = |data_bytes: u32, mine: u64, theirs: u64| {
        move |request: &Request| {
            matches!(request, Request::Connect { .. }).then(|| {
                with(Reply::Connected { channel: 1, data_bytes }, vec![memory(mine), read_only(theirs)])
            })
        }
    };
    let end = end_bytes(4096);
    cases.request(
        "connect: a short end of one's own",
        NONSENSE,
        connected(4096, PAGE_BYTES, end),
        channel_to,
    );
    cases.request(
        "connect: a short end of the other",
        NONSENSE,
        connected(4096, end, PAGE_BYTES),
        channel_to,
    );
    cases.request("connect: rings of no bytes", NONSENSE, connected(0, end, end), channel_to);
    cases.request("connect: rings of 12,345 bytes", NONSENSE, connected(12_345, end, end), channel_to);
    cases.request("connect: rings of 2^31 bytes", NONSENSE, connected(1 << 31, end, end), channel_to);
    cases.request(
        "grow: to less",
        NONSENSE,
        |request| match request {
            Request::Hello { .. } => Some(Welcome { entries: 1, ..Welcome::honest() }.answer()),
            Request::GrowTable { .. } => Some(reply(Reply::TableGrown { entries: 1 })),
            _ => None,
        },
        |client| {
            let promises = [client.promise()?, client.promise()?];
            Ok(promises.len().to_string())
        },
    );
    let name = || NameInfo::new("name", object());
    cases.request(
        "names: the same page for ever",
        NONSENSE,
        move |request| {
            matches!(request, Request::ListNames { .. })
                .then(|| reply(Reply::Names { names: vec![name()], more: true }))
        },
        |client| client.names().map(|names| names.len().to_string()),
    );
    cases.request(
        "names: empty pages for ever",
        NONSENSE,
        |request| {
            matches!(request, Request::ListNames { .. })
                .then(|| reply(Reply::Names { names: Vec::new(), more: true }))
        },
        |client| client.names().map(|names| names.len().to_string()),
    );
    cases.request(
        "list: the same page for ever",
        NONSENSE,
        |request| match request {
            Request::ListObjects { .. } => Some(reply(Reply::Objects { objects: Vec::new(), next: Some(1) })),
            _ => None,
        },
        |client| client.list().map(|objects| objects.len().to_string()),
    );
    cases.request(
        "segments: the same page for ever",
        NONSENSE,
        |request| match request {
            Request::ListSegments { .. } => {
                Some(reply(Reply::Segments { segments: Vec::new(), next: Some(1) }))
            }
            _ => None,
        },
        |client| client.segments().map(|segments| segments.len().to_string()),
    );
    cases.request(
        "locations: the same page for ever",
        NONSENSE,
        |request| match request {
            Request::ListLocations { .. } => {
                Some(reply(Reply::Locations { locations: Vec::new(), next: Some(1) }))
            }
            _ => None,
        },
        |client| client.locations().map(|locations| locations.len().to_string()),
    );
    cases.request(
        "clients: the same page for ever",
        NONSENSE,
        |request| match request {
            Request::ListClients { .. } => Some(reply(Reply::Clients { clients: Vec::new(), next: Some(1) })),
            _ => None,
        },
        |client| client.stats().map(|stats| stats.clients.len().to_string()),
    );
    cases.request(
        "clients: numbers without a sum",
        &["18446744073709551615"],
        |request| match request {
            Request::ListClients { .. } => {
                let mut info = ClientInfo::new(owner(OTHER));
                info.pid = 1;
                info.label = "x".into();
                info.leased_bytes = u64::MAX;
                info.segments = u32::MAX;
                info.objects = u64::MAX;
                info.object_bytes = u64::MAX;
                info.pins = u64::MAX;
                info.spilled_bytes = u64::MAX;
                info.spilled_objects = u64::MAX;
                Some(reply(Reply::Clients { clients: vec![info.clone(), info], next: None }))
            }
            _ => None,
        },
        |client| {
            let stats = client.stats()?;
            std::hint::black_box((
                stats.object_bytes(),
                stats.pins(),
                stats.spilled_objects(),
                stats.spilled_bytes(),
            ));
            Ok(stats.objects().to_string())
        },
    );
}

fn notices(cases: &mut Cases) {
    let nobody = OwnerId::new(5, 5);
    let simple = [
        ("a reader without descriptors", Notice::ReaderJoined { reader: nobody }),
        ("a reader that goes and never came", Notice::ReaderGone { reader: nobody }),
        ("the daemon's own pins go", Notice::ReaderGone { reader: OwnerId::new(0, 1) }),
        ("the death of nobody", Notice::OwnerDied { owner: nobody }),
        ("one's own death", Notice::OwnerDied { owner: owner(SELF) }),
        ("an owner forgotten that is in use", Notice::OwnerForgotten { owner: owner(OTHER) }),
        ("an owner forgotten in no slot", Notice::OwnerForgotten { owner: OwnerId::new(u16::MAX, 1) }),
        ("a segment retired of nobody", Notice::SegmentRetired { owner: nobody, segment: 1 }),
        ("a segment retired that is in use", Notice::SegmentRetired { owner: owner(OTHER), segment: 1 }),
        (
            "a segment retired that never was",
            Notice::SegmentRetired { owner: owner(OTHER), segment: u32::MAX },
        ),
        ("a need for 2^64 - 1 bytes", Notice::Reclaim { bytes: u64::MAX }),
        ("a channel without ends", Notice::ChannelOpened { channel: 1, peer: nobody, data_bytes: 4096 }),
        ("a channel closed that never was", Notice::ChannelClosed { channel: u64::MAX }),
    ];
    for (name, notice) in simple {
        cases.notice(name, move |impostor| impostor.notice(&notice, Vec::new()));
    }
    let joined = |slot| Notice::ReaderJoined { reader: OwnerId::new(slot, 5) };
    cases.notice("a reader with a short control memory", |impostor| {
        impostor.notice(&joined(3), vec![memory(PAGE_BYTES), bell()]);
    });
    cases.notice("a reader with pins that may shrink", |impostor| {
        impostor.notice(&joined(3), vec![unsealed(control_bytes(SLOTS)), bell()]);
    });
    cases.notice("a reader with a pipe for a bell", |impostor| {
        impostor.notice(&joined(3), vec![memory(control_bytes(SLOTS)), pipe()]);
    });
    cases.notice("a reader in no slot", |impostor| {
        impostor.notice(&joined(u16::MAX), vec![memory(control_bytes(SLOTS)), bell()]);
    });
    cases.notice("a channel of short memories", |impostor| {
        let opened = Notice::ChannelOpened { channel: 1, peer: nobody, data_bytes: 4096 };
        impostor.notice(&opened, vec![memory(0), memory(0)]);
    });
    cases.notice("more descriptors than a packet may have", |impostor| {
        impostor.notice(&joined(3), (0..9).map(|_| bell()).collect());
    });
    cases.notice("an opcode that is no notice's", |impostor| {
        let mut bytes = Notice::ChannelClosed { channel: 1 }.encode(0);
        bytes[2] = 127;
        impostor.send(&bytes, &[]);
    });
    cases.notice("half a notice", |impostor| {
        impostor.send(&Notice::Reclaim { bytes: 1 }.encode(0)[..18], &[]);
    });
    cases.notice("replies that nobody asked for", |impostor| {
        for correlation in [0, 1, u64::MAX] {
            let leased = Reply::Leased { segment: 9, bytes: 4096 };
            impostor.send(&leased.encode(correlation), &[memory(4096)]);
            impostor.send(&Reply::Done {}.encode(correlation), &[]);
        }
    });
    cases.notice("1,000 of everything", |impostor| {
        for number in 0..1000 {
            impostor.notice(&Notice::OwnerDied { owner: OwnerId::new(5, number) }, Vec::new());
            impostor.notice(&Notice::ChannelClosed { channel: number }, Vec::new());
            impostor.notice(&Notice::Reclaim { bytes: number }, Vec::new());
        }
    });
}

#[test]
fn whoever_a_client_meets_it_gets_a_typed_error_or_goes_on() {
    // Side by side: most of the time, clients wait for answers that do not come.
    let (count, failures) = std::thread::scope(|scope| {
        let groups = [hellos, requests, lies, notices].map(|group| {
            scope.spawn(move || {
                let mut cases = Cases::default();
                group(&mut cases);
                cases
            })
        });
        groups.into_iter().fold((0, Vec::new()), |(count, mut failures), group| {
            let cases = group.join().expect("the cases say how they failed");
            failures.extend(cases.failures);
            (count + cases.count, failures)
        })
    });
    println!("{count} cases of an impostor");
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(count >= 100, "{count} cases");
}
