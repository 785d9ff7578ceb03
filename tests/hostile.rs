//! Code that the tests with hostile clients share: a connection that sends anything, a bystander that must not notice,
//! and the table of cases with the checks after each of them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;
use mobula_protocol::message::{Notice, Reply, Request, Totals, is_notice};
use mobula_protocol::socket::{Packet, Socket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use bystander::{Bystander, Latency};

use crate::{PATIENCE, Store, eventually, is_running};

pub mod bystander;

// ---- a client that says anything ----

/// One connection to a daemon, by hand.
pub struct Raw {
    /// The socket itself.
    pub socket: Socket,
    correlation: u64,
    notices: VecDeque<(Notice, Vec<OwnedFd>)>,
}

/// A message of the daemon, or the end of the connection.
#[derive(Debug)]
pub enum Said {
    /// A reply, its correlation number, and its descriptors.
    Reply(u64, Reply, Vec<OwnedFd>),
    /// Nothing more: it has hung up.
    HungUp,
}

impl Raw {
    /// Connects, and says nothing.
    pub fn connect(path: &Path) -> Self {
        Self::over(Socket::connect(path).expect("the daemon listens"))
    }

    /// The same over a socket that is connected already.
    pub fn over(socket: Socket) -> Self {
        Self { socket, correlation: 0, notices: VecDeque::new() }
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.send_with(bytes, &[])
    }

    /// The same with descriptors, which may be more than an honest client could send.
    ///
    /// # Errors
    /// The system's.
    pub fn send_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        use std::os::fd::AsRawFd;
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let bytes = [io::IoSlice::new(bytes)];
        sendmsg::<()>(self.socket.as_raw_fd(), &bytes, control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Sends a request; its correlation number.
    ///
    /// # Errors
    /// The system's.
    pub fn request(&mut self, request: &Request) -> io::Result<u64> {
        self.correlation += 1;
        self.send(&request.encode(self.correlation))?;
        Ok(self.correlation)
    }

    /// Sends a request, and waits for its reply.
    pub fn ask(&mut self, request: &Request) -> Said {
        if self.request(request).is_err() {
            return Said::HungUp;
        }
        loop {
            match self.next_reply() {
                Said::Reply(correlation, ..) if correlation != self.correlation && correlation != 0 => {}
                said => return said,
            }
        }
    }

    /// The same for a request that is answered without descriptors, as text.
    pub fn answer(&mut self, request: &Request) -> String {
        self.ask(request).to_string()
    }

    /// The next reply. Notices are kept.
    pub fn next_reply(&mut self) -> Said {
        loop {
            let Some(packet) = self.packet() else { return Said::HungUp };
            if is_notice(&packet.bytes) {
                let (_, notice) = Notice::decode(&packet.bytes).expect("a daemon's notice");
                self.notices.push_back((notice, packet.descriptors));
            } else {
                let (correlation, reply) = Reply::decode(&packet.bytes).expect("a daemon's reply");
                return Said::Reply(correlation, reply, packet.descriptors);
            }
        }
    }

    /// The next notice that is wanted, and its descriptors; others are dropped.
    pub fn notice(&mut self, wanted: impl Fn(&Notice) -> bool) -> (Notice, Vec<OwnedFd>) {
        loop {
            while let Some(notice) = self.notices.pop_front() {
                if wanted(&notice.0) {
                    return notice;
                }
            }
            let packet = self.packet().expect("the daemon hung up instead of telling");
            if is_notice(&packet.bytes) {
                let (_, notice) = Notice::decode(&packet.bytes).expect("a daemon's notice");
                self.notices.push_back((notice, packet.descriptors));
            }
        }
    }

    /// Everything that the daemon says until it hangs up, as text.
    pub fn last_words(&mut self) -> String {
        let mut words = String::new();
        loop {
            let said = self.next_reply();
            words += &format!("{said}; ");
            if matches!(said, Said::HungUp) {
                return words;
            }
        }
    }

    fn packet(&self) -> Option<Packet> {
        let mut descriptors = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut descriptors, PollTimeout::try_from(PATIENCE).expect("a minute"));
        assert_ne!(ready, Ok(0), "the daemon says nothing, and does not hang up");
        match self.socket.receive() {
            // The message was sent into a connection that was just closed. The system says so once, before it hands out
            // the messages that had come.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.socket.receive(),
            received => received,
        }
        .ok()
        .flatten()
    }

    /// Introduces itself. Returns the memory that it gets.
    ///
    /// # Panics
    /// Unless it is welcome.
    pub fn welcome(mut self) -> (Self, Pages) {
        match self.ask(&Request::Hello { label: "hostile".into(), serial: 1 }) {
            Said::Reply(_, Reply::Welcome { owner, slots, entries, .. }, descriptors) => {
                let [control, bell, daemon_control] = descriptors.try_into().expect("three descriptors");
                (self, Pages { owner, slots, entries, control, bell, daemon_control })
            }
            said => panic!("not welcome: {said}"),
        }
    }

    /// A connection that is welcome.
    pub fn client(path: &Path) -> (Self, Pages) {
        Self::connect(path).welcome()
    }

    /// The store's totals.
    ///
    /// # Panics
    /// Where it gets none.
    pub fn totals(&mut self) -> Totals {
        match self.ask(&Request::Stats {}) {
            Said::Reply(_, Reply::Stats { totals }, _) => totals,
            said => panic!("no totals: {said}"),
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply(_, Reply::Failed { refusal }, _) => write!(f, "{refusal:?}"),
            Self::Reply(_, reply, _) => write!(f, "{reply:?}"),
            Self::HungUp => f.write_str("hung up"),
        }
    }
}

/// The memory that a client gets with its welcome.
pub struct Pages {
    /// The client's own id.
    pub owner: OwnerId,
    /// Slots of every control memory.
    pub slots: u32,
    /// Entries that have memory.
    pub entries: u32,
    /// Its control memory, to write.
    pub control: OwnedFd,
    /// Its bell.
    pub bell: OwnedFd,
    /// The daemon's control memory, to read.
    pub daemon_control: OwnedFd,
}

// ---- the cases ----

/// One thing that somebody hostile does, and the answer that it must get.
pub struct Case<'a> {
    name: String,
    /// A part of the answer as text.
    expected: String,
    act: Box<dyn FnMut(&mut Store) -> String + 'a>,
}

/// A row of a table of cases.
pub fn case<'a>(
    name: impl Into<String>,
    expected: impl Into<String>,
    act: impl FnMut(&mut Store) -> String + 'a,
) -> Case<'a> {
    Case { name: name.into(), expected: expected.into(), act: Box::new(act) }
}

/// A store, its bystander, and the count of the cases that it has gone through.
pub struct Suite {
    /// Stands before the store, so that it ends first: a bystander that loses its store waits for another one.
    bystander: Bystander,
    /// The store.
    pub store: Store,
    watcher: Raw,
    cases: usize,
    worst: f64,
    failures: Vec<String>,
}

/// Bystanders of a store: two clients.
const BYSTANDERS: u32 = 2;
/// How much longer a bystander may wait. The aim is 2. The machine may have other things to do, so a test fails only at
/// this ratio, only when every attempt was so slow, and only when it took so many microseconds.
const RATIO_MAX: f64 = 10.0;
const BEARABLE_US: f64 = 5000.0;
const TRIES: usize = 4;

impl Suite {
    /// Of a store that has just started.
    pub fn new(store: Store) -> Self {
        let bystander = Bystander::start(store.program(), &store.socket());
        let (watcher, _) = Raw::client(&store.socket());
        Self { store, bystander, watcher, cases: 0, worst: 0.0, failures: Vec::new() }
    }

    /// Goes through cases once, with a look at everything after each, and then again and again, one after the other,
    /// until the bystander has been timed.
    pub fn group(&mut self, name: &str, mut cases: Vec<Case<'_>>) {
        self.settle(name);
        // Also, the bystander has met everyone by now.
        self.time_alone();
        let descriptors = self.daemon_descriptors();
        self.cases += cases.len();
        for case in &mut cases {
            self.act(name, case);
            self.look(name, case);
        }
        for attempt in 1..=TRIES {
            self.settle(name);
            let before = self.time_alone();
            self.bystander.time();
            while !self.bystander.has_enough() && self.failures.is_empty() {
                for case in &mut cases {
                    self.act(name, case);
                }
            }
            let during = self.bystander.latency();
            self.look(name, &cases[0]);
            let ratio = (during.round_trip / before.round_trip).max(during.object / before.object);
            println!(
                "{name}: {} cases, bystander {ratio:.2} × (round trip {:.0} → {:.0} µs, put and get {:.1} → {:.1} µs)",
                cases.len(),
                before.round_trip,
                during.round_trip,
                before.object,
                during.object,
            );
            let is_borne = ratio <= RATIO_MAX || during.round_trip.max(during.object) < BEARABLE_US;
            if is_borne || !self.failures.is_empty() {
                self.worst = self.worst.max(ratio);
                break;
            }
            assert!(attempt < TRIES, "{name}: a bystander waits {ratio:.1} times as long");
        }
        self.settle(name);
        let start = Instant::now();
        loop {
            let now = self.daemon_descriptors();
            if now == descriptors {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{name}: the daemon had {descriptors:#?}, and has {now:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn act(&mut self, group: &str, case: &mut Case<'_>) {
        let said = (case.act)(&mut self.store);
        if !said.contains(&case.expected) {
            let failure = format!("{group}: {}: expected {:?}, got {said:?}", case.name, case.expected);
            println!("{failure}");
            self.failures.push(failure);
        }
    }

    /// The daemon runs and serves newcomers, and the bystander is well.
    fn look(&mut self, group: &str, case: &Case<'_>) {
        let place = format!("{group}: {}", case.name);
        assert!(is_running(self.store.daemon_process().pid), "{place}: the daemon has died");
        let (mut fresh, _) = Raw::client(&self.store.socket());
        fresh.totals();
        assert_eq!(self.bystander.is_well(), Ok(()), "{place}: a bystander has failed");
    }

    fn time_alone(&mut self) -> Latency {
        self.bystander.time();
        self.bystander.timed()
    }

    /// Waits until everyone hostile is gone, and everything that was theirs.
    fn settle(&mut self, name: &str) {
        eventually(&format!("{name}: everyone hostile is gone"), || {
            let totals = self.watcher.totals();
            totals.clients == BYSTANDERS + 1 && totals.dead_clients == 0 && totals.channels == 0
        });
    }

    /// The daemon's open descriptors, in order, without those of the segments that living clients lease: a bystander
    /// that found the store full may have leased another one, and keep it.
    fn daemon_descriptors(&mut self) -> Vec<String> {
        /// A segment's memory is open for writing, and for reading alone.
        const PER_SEGMENT: usize = 2;
        let pid = self.store.daemon_process().pid;
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the daemon runs");
        let target = |entry: io::Result<std::fs::DirEntry>| {
            let target = std::fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().into_owned();
            // Each socket has a number of its own.
            Some(match target.strip_prefix("/memfd:") {
                Some(memory) => memory.to_owned(),
                None => target.split(':').next().unwrap_or_default().to_owned(),
            })
        };
        let mut targets: Vec<String> = open.filter_map(target).collect();
        targets.sort_unstable();
        let totals = self.watcher.totals();
        let (mut leased, is_nothing_else) =
            (PER_SEGMENT * totals.segments as usize, totals.orphaned_bytes == 0 && totals.retired_bytes == 0);
        targets.retain(|target| {
            let is_of_a_lease = is_nothing_else && leased > 0 && target.contains("mobula-segment");
            leased -= usize::from(is_of_a_lease);
            !is_of_a_lease
        });
        targets
    }

    /// Prints the outcome.
    ///
    /// # Panics
    /// Where a case was answered in another way, or there were fewer than `at_least`.
    pub fn end(self, at_least: usize) {
        println!("{} hostile cases, bystander {:.2} × at worst", self.cases, self.worst);
        assert!(self.failures.is_empty(), "{:#?}", self.failures);
        assert!(self.cases >= at_least, "{} cases, fewer than {at_least}", self.cases);
    }
}

/// Does something as another user: on a thread of its own, whose user alone is changed, and with it its powers.
///
/// # Panics
/// Unless this process is root.
pub fn as_user<T: Send>(user: libc::uid_t, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: takes three numbers. The system call itself, unlike libc's function, is about this thread only.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, -1, user, -1) };
            assert_eq!(result, 0, "cannot become user {user}");
            act()
        });
        thread.join().expect("it has not panicked")
    })
}
