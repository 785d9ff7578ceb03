//! A store in a thread of this process, and clients that speak its protocol message by message.

#![allow(dead_code, unreachable_pub, reason = "a part of each test file, which uses what it needs")]

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Refusal, Reply, Request, Totals, is_notice};
use mobula_protocol::socket::Socket;
use mobula_shm::bell::Bell;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::pins::PinWriter;
use mobula_shm::table::{Location, State, TableReader, TableWriter, Word};
use mobula_store::{Config, RunError, Server, Stopper};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

/// How long anything that must happen may take. Nothing waits this long unless the test fails.
pub const SOON: Duration = Duration::from_secs(20);
pub const MIB: u64 = 1 << 20;

/// A running store; it ends when dropped.
pub struct TestStore {
    pub socket: PathBuf,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), RunError>>>,
    _directory: TempDir,
}

impl TestStore {
    pub fn start() -> Self {
        Self::with(|config| config)
    }

    /// Sixteen MiB, and no grace, so that nothing is kept without a reason.
    pub fn with(adjust: impl FnOnce(Config) -> Config) -> Self {
        Self::start_in(TempDir::new().unwrap(), adjust)
    }

    /// One that finds the socket of a store that was killed.
    pub fn in_place_of_another(adjust: impl FnOnce(Config) -> Config) -> Self {
        let directory = TempDir::new().unwrap();
        drop(Socket::listen(&directory.path().join("store.sock"), 1).unwrap());
        Self::start_in(directory, adjust)
    }

    fn start_in(directory: TempDir, adjust: impl FnOnce(Config) -> Config) -> Self {
        let socket = directory.path().join("store.sock");
        let config = adjust(Config::new(&socket, 16 * MIB).orphan_grace(Duration::ZERO));
        let server = Server::bind(config).unwrap();
        let stopper = server.stopper();
        let thread = Some(std::thread::spawn(move || server.run()));
        Self { socket, stopper, thread, _directory: directory }
    }

    pub fn connect(&self) -> Socket {
        Socket::connect(&self.socket).unwrap()
    }

    pub fn client(&self) -> Client {
        let mut raw = RawClient::new(self.connect());
        let (reply, descriptors) = raw.call(&Request::Hello { label: "test".into(), serial: 1 });
        let Reply::Welcome { owner, entries, slots, .. } = reply else { panic!("{reply:?}") };
        let [control, bell, daemon_control] = descriptors.try_into().unwrap();
        let table = TableWriter::map(control.as_fd()).unwrap();
        let bell = Bell::from_descriptor(bell);
        Client { raw, owner, entries, slots, table, control, bell, daemon_control }
    }

    pub fn stop(mut self) {
        self.end();
        assert!(!self.socket.exists(), "the socket was left behind");
    }

    fn end(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the store panicked").unwrap();
        }
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

/// One connection, whose messages can be anything.
pub struct RawClient {
    pub socket: Socket,
    notices: VecDeque<(Notice, Vec<OwnedFd>)>,
    replies: VecDeque<(u64, Reply, Vec<OwnedFd>)>,
    correlation: u64,
}

impl RawClient {
    pub fn new(socket: Socket) -> Self {
        Self { socket, notices: VecDeque::new(), replies: VecDeque::new(), correlation: 0 }
    }

    pub fn send(&mut self, request: &Request) -> u64 {
        self.correlation += 1;
        self.socket.send(&request.encode(self.correlation), &[]).unwrap();
        self.correlation
    }

    pub fn call(&mut self, request: &Request) -> (Reply, Vec<OwnedFd>) {
        let correlation = self.send(request);
        self.reply(correlation)
    }

    /// The reply to a request, whenever it comes.
    pub fn reply(&mut self, correlation: u64) -> (Reply, Vec<OwnedFd>) {
        loop {
            if let Some(place) = self.replies.iter().position(|(number, ..)| *number == correlation) {
                let (_, reply, descriptors) = self.replies.remove(place).unwrap();
                return (reply, descriptors);
            }
            assert!(self.fetch(), "hung up instead of replying");
        }
    }

    /// Whether a reply has come already.
    pub fn has_reply(&self, correlation: u64) -> bool {
        self.replies.iter().any(|(number, ..)| *number == correlation)
    }

    /// The next notice that `wanted` wants; others are dropped.
    pub fn notice(&mut self, mut wanted: impl FnMut(&Notice) -> bool) -> (Notice, Vec<OwnedFd>) {
        loop {
            while let Some((notice, descriptors)) = self.notices.pop_front() {
                if wanted(&notice) {
                    return (notice, descriptors);
                }
            }
            assert!(self.fetch(), "hung up instead of telling");
        }
    }

    /// The next reply to anything; `None` when the store has hung up.
    pub fn next_reply(&mut self) -> Option<(u64, Reply)> {
        while self.replies.is_empty() && self.fetch() {}
        self.replies.pop_front().map(|(correlation, reply, _)| (correlation, reply))
    }

    /// Drops the notices that have come so far, with their descriptors.
    pub fn forget_notices(&mut self) {
        self.notices.clear();
    }

    /// Takes in one message; `false` when the store has hung up.
    pub fn fetch(&mut self) -> bool {
        let mut descriptors = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut descriptors, PollTimeout::try_from(SOON).unwrap()).unwrap();
        assert_eq!(ready, 1, "the store says nothing");
        let packet = match self.socket.receive() {
            Ok(Some(packet)) => packet,
            Ok(None) | Err(_) => return false,
        };
        if is_notice(&packet.bytes) {
            let (_, notice) = Notice::decode(&packet.bytes).unwrap();
            self.notices.push_back((notice, packet.descriptors));
        } else {
            let (correlation, reply) = Reply::decode(&packet.bytes).unwrap();
            self.replies.push_back((correlation, reply, packet.descriptors));
        }
        true
    }

    /// Sees the store refuse something as nonsense, and hang up.
    pub fn expect_refusal_and_end(&mut self, expected: &str) {
        let mut reason = None;
        while self.fetch() {
            while let Some((_, reply, _)) = self.replies.pop_front() {
                if let Reply::Failed { refusal: Refusal::BadRequest { reason: given } } = reply {
                    reason = Some(given);
                }
            }
        }
        let reason = reason.expect("hung up without a reason");
        assert!(reason.contains(expected), "{reason:?} does not say {expected:?}");
    }
}

/// A client that is welcome.
pub struct Client {
    pub raw: RawClient,
    pub owner: OwnerId,
    pub entries: u32,
    pub slots: u32,
    pub table: TableWriter,
    pub control: OwnedFd,
    pub bell: Bell,
    pub daemon_control: OwnedFd,
}

/// A segment of a client's own.
pub struct Segment {
    pub number: u32,
    pub bytes: u64,
    pub mapping: WriteMapping,
}

impl Client {
    pub fn call(&mut self, request: &Request) -> (Reply, Vec<OwnedFd>) {
        self.raw.call(request)
    }

    pub fn done(&mut self, request: &Request) {
        assert_eq!(self.call(request).0, Reply::Done {}, "{request:?}");
    }

    pub fn refusal(&mut self, request: &Request) -> Refusal {
        match self.call(request).0 {
            Reply::Failed { refusal } => refusal,
            reply => panic!("{request:?} was answered by {reply:?}"),
        }
    }

    pub fn totals(&mut self) -> Totals {
        match self.call(&Request::Stats {}).0 {
            Reply::Stats { totals } => totals,
            reply => panic!("{reply:?}"),
        }
    }

    pub fn lease(&mut self, bytes: u64) -> Segment {
        let (reply, descriptors) = self.call(&Request::Lease { bytes, timeout_ms: 0 });
        segment(reply, &descriptors)
    }

    pub fn lease_within(&mut self, bytes: u64, timeout_ms: u64) -> Segment {
        let (reply, descriptors) = self.call(&Request::Lease { bytes, timeout_ms });
        segment(reply, &descriptors)
    }

    /// Writes an entry as an owner does that seals an object of 64 bytes with some references.
    pub fn seal(&self, index: u32, segment: &Segment, offset: u64, references: &[ObjectId]) -> ObjectId {
        let length = 64;
        let location = Location {
            segment: segment.number,
            offset,
            length,
            format: 7,
            references: references.len() as u32,
        };
        let mut place = location.references_offset().unwrap() as usize;
        for word in references.iter().flat_map(|reference| {
            let bytes = reference.to_bytes();
            [
                u64::from_le_bytes(bytes[..8].try_into().unwrap()),
                u64::from_le_bytes(bytes[8..].try_into().unwrap()),
            ]
        }) {
            segment.mapping.word64(place).store(word, Ordering::Relaxed);
            place += 8;
        }
        self.table.fill(index, &location);
        self.set(index, 0, State::Sealed)
    }

    /// Stores an entry's word.
    pub fn set(&self, index: u32, generation: u32, state: State) -> ObjectId {
        self.table.word(index).store(Word::new(generation, state).bits(), Ordering::SeqCst);
        ObjectId::new(self.owner, index, generation)
    }

    /// This client's pins on an owner that it has attached to.
    pub fn pins_on(&self, owner: OwnerId) -> PinWriter {
        PinWriter::map(self.control.as_fd(), owner.slot()).unwrap()
    }

    /// Attaches to an owner; its table.
    pub fn attach(&mut self, owner: OwnerId) -> TableReader {
        let (reply, descriptors) = self.call(&Request::Attach { owner });
        assert!(matches!(reply, Reply::Attached { .. }), "{reply:?}");
        TableReader::map(descriptors[0].as_fd()).unwrap()
    }

    pub fn lookup(&mut self, name: &[u8]) -> Reply {
        self.call(&Request::Lookup { name: name.to_vec(), timeout_ms: 0 }).0
    }

    pub fn publish(&mut self, name: &[u8], object: ObjectId) -> Reply {
        self.call(&Request::Publish { name: name.to_vec(), object }).0
    }
}

/// The segment in the reply to a lease.
pub fn segment(reply: Reply, descriptors: &[OwnedFd]) -> Segment {
    let Reply::Leased { segment: number, bytes } = reply else { panic!("{reply:?}") };
    let mapping = WriteMapping::map(descriptors[0].as_fd(), 0, bytes as usize).unwrap();
    Segment { number, bytes, mapping }
}

/// Waits until something is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let give_up = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < give_up, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
