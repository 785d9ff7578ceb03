//! Hostile clients of a store that was killed: if a case fails, one of them that hands back something else than it was
//! given takes the new daemon down, or the memory, objects and channels of the others with it.
//!
//! In each case a daemon dies and another takes its place. An honest client, with an object and one of the hostile
//! client's attached, comes back as it does by itself; the hostile one by hand.

use std::os::fd::{AsFd, OwnedFd};

use mobula_client::{Client, OwnerId};
use mobula_protocol::message::{LABEL_BYTES_MAX, Request};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::memory::{PAGE_BYTES, SharedMemory};
use mobula_shm::table::{State, TableWriter, Word};
use mobula_tests::hostile::{Pages, Raw};
use mobula_tests::{Store, eventually, is_content_of, put_content};

const PEER: &str = env!("CARGO_BIN_EXE_mobula-test-peer");
const CAPACITY: u64 = 16 << 20;

/// A hostile client, before and after its daemon has died.
struct Returning {
    pages: Pages,
    raw: Raw,
    honest: OwnerId,
}

fn memory(bytes: u64) -> OwnedFd {
    let memory = SharedMemory::create(c"hostile", bytes).expect("memory");
    memory.writable().try_clone_to_owned().expect("a descriptor")
}

fn bell() -> OwnedFd {
    Bell::create().expect("a bell").as_fd().try_clone_to_owned().expect("a descriptor")
}

impl Returning {
    fn send(&mut self, request: &Request, descriptors: &[OwnedFd]) {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        // It may have been shown out already.
        let _ = self.raw.send_with(&request.encode(9), &descriptors);
    }

    fn introduction(&self) -> Request {
        Request::Resume {
            owner: self.pages.owner,
            label: "hostile".into(),
            slots: self.pages.slots,
            segment_last: 0,
            readers_heard: 0,
        }
    }

    fn own(&self) -> Vec<OwnedFd> {
        let Pages { control, bell, daemon_control, .. } = &self.pages;
        let copy = |descriptor: &OwnedFd| descriptor.try_clone().expect("a descriptor");
        [control, bell, daemon_control].map(copy).into()
    }

    /// Introduces itself as it should.
    fn introduce(&mut self) {
        let (request, descriptors) = (self.introduction(), self.own());
        self.send(&request, &descriptors);
    }

    /// Says that this was all. Returns the daemon's reply.
    fn end(&mut self) -> String {
        self.send(&Request::Resumed {}, &[]);
        self.raw.next_reply().to_string()
    }
}

/// Lets a hostile client act when it comes back; the reply must contain `expected`.
fn check(name: &str, expected: &str, act: Act) {
    let mut store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let kept = put_content(&client, 5000).expect("room");
    let (raw, pages) = Raw::client(&store.socket());
    // The honest one is a reader of the hostile one, which that may conceal.
    let table = TableWriter::map(pages.control.as_fd()).expect("a table");
    table.word(0).store(Word::new(0, State::Promised).bits(), std::sync::atomic::Ordering::SeqCst);
    let promised = client.hold(mobula_client::ObjectId::new(pages.owner, 0, 0)).expect("it is promised");
    store.daemon_process().kill();
    drop(raw);
    store.start_again();
    let raw = Raw::connect(&store.socket());
    let said = act(&mut Returning { pages, raw, honest: client.id() });
    println!("{name}: {said:.60}");
    assert!(said.contains(expected), "{name}: expected {expected:?}, got {said:?}");
    is_well(name, &store, &client, &kept);
    drop(promised);
}

/// The honest client has all its objects, and all its operations work; so do those of a new client.
fn is_well(name: &str, store: &Store, client: &Client, kept: &mobula_client::Object) {
    assert!(is_content_of(kept, kept.id()), "{name}");
    let fresh = store.client();
    assert!(is_content_of(&fresh.get(kept.id()).expect("it is there"), kept.id()), "{name}");
    for client in [client, &fresh] {
        eventually(&format!("{name}: there is room again"), || {
            put_content(client, 100_000).is_ok_and(|object| is_content_of(&object, object.id()))
        });
    }
    drop(client.connect_to(fresh.id()).expect("both are alive"));
    client.stats().expect("the daemon counts");
}

#[test]
fn who_hands_back_something_else_than_it_was_given_is_answered_and_harms_itself_alone() {
    // Runs the cases side by side: a daemon waits some seconds for the clients that it has turned away.
    std::thread::scope(|scope| {
        let cases = std::cell::Cell::new(0);
        all(|name, expected, act| {
            cases.set(cases.get() + 1);
            scope.spawn(move || check(name, expected, act));
        });
        println!("{} cases of clients that come back", cases.get());
        assert!(cases.get() >= 20);
    });
}

type Act = fn(&mut Returning) -> String;

/// The table of cases.
fn all(check: impl Fn(&'static str, &'static str, Act)) {
    check("the truth", "Resumed", |it| {
        it.introduce();
        it.end()
    });

    // ---- introductions ----
    fn introduced(it: &mut Returning, descriptors: Vec<OwnedFd>) -> String {
        let request = it.introduction();
        it.send(&request, &descriptors);
        it.raw.next_reply().to_string()
    }
    check("no descriptors", "CannotResume", |it| introduced(it, Vec::new()));
    check("one too many", "CannotResume", |it| {
        let descriptors = it.own().into_iter().chain([bell()]).collect();
        introduced(it, descriptors)
    });
    check("in another order", "CannotResume", |it| {
        let descriptors = it.own().into_iter().rev().collect();
        introduced(it, descriptors)
    });
    check("a short control memory", "CannotResume", |it| {
        let mut descriptors = it.own();
        descriptors[0] = memory(control_bytes(it.pages.slots) - PAGE_BYTES);
        introduced(it, descriptors)
    });
    check("a pipe for a bell", "CannotResume", |it| {
        let mut descriptors = it.own();
        descriptors[1] = nix::unistd::pipe().expect("a pipe").1;
        introduced(it, descriptors)
    });
    fn as_another(it: &mut Returning, change: fn(&mut Request)) -> String {
        let (mut request, descriptors) = (it.introduction(), it.own());
        change(&mut request);
        it.send(&request, &descriptors);
        it.raw.next_reply().to_string()
    }
    check("somebody who never was", "CannotResume", |it| {
        as_another(it, |request| {
            if let Request::Resume { owner, .. } = request {
                *owner = OwnerId::new(owner.slot(), owner.epoch() ^ 1);
            }
        })
    });
    check("the daemon itself", "CannotResume", |it| {
        as_another(it, |request| {
            if let Request::Resume { owner, .. } = request {
                *owner = OwnerId::new(0, 0);
            }
        })
    });
    check("another number of slots", "CannotResume", |it| {
        as_another(it, |request| {
            if let Request::Resume { slots, .. } = request {
                *slots = u32::MAX;
            }
        })
    });
    check("a label over the limit", "CannotResume", |it| {
        as_another(it, |request| {
            if let Request::Resume { label, .. } = request {
                *label = "x".repeat(LABEL_BYTES_MAX + 1);
            }
        })
    });

    // ---- after the introduction ----
    check("twice", "CannotResume", |it| {
        it.introduce();
        it.introduce();
        it.raw.next_reply().to_string()
    });
    check("a request in between", "CannotResume", |it| {
        it.introduce();
        it.send(&Request::Stats {}, &[]);
        it.raw.next_reply().to_string()
    });
    check("a hang-up in between", "gone", |it| {
        it.introduce();
        it.raw.socket.shutdown();
        "gone".to_owned()
    });
    check("segments of 2^63 - 1 bytes", "CannotResume", |it| {
        it.introduce();
        let bytes = i64::MAX as u64 / PAGE_BYTES * PAGE_BYTES;
        for segment in 1..=4 {
            it.send(&Request::ResumeSegment { segment, bytes }, &[memory(bytes)]);
        }
        it.end()
    });
    check("segments of 2^45 bytes", "CannotResume", |it| {
        it.introduce();
        for segment in 1..=4 {
            it.send(&Request::ResumeSegment { segment, bytes: 1 << 45 }, &[memory(1 << 45)]);
        }
        it.end()
    });
    check("a segment of other bytes than it says", "CannotResume", |it| {
        it.introduce();
        it.send(&Request::ResumeSegment { segment: 1, bytes: 8192 }, &[memory(4096)]);
        it.end()
    });
    check("the last number of a segment, and leases behind it", "Leased", |it| {
        let (mut request, descriptors) = (it.introduction(), it.own());
        if let Request::Resume { segment_last, .. } = &mut request {
            *segment_last = u32::MAX;
        }
        it.send(&request, &descriptors);
        it.send(&Request::ResumeSegment { segment: 1, bytes: 4096 }, &[memory(4096)]);
        it.end();
        it.raw.answer(&Request::Lease { bytes: 4096, timeout_ms: 0 })
            + &it.raw.answer(&Request::Release { segment: 1 })
    });
    check("2^64 - 1 readers heard of, and one concealed", "Resumed", |it| {
        let (mut request, descriptors) = (it.introduction(), it.own());
        if let Request::Resume { readers_heard, .. } = &mut request {
            *readers_heard = u64::MAX;
        }
        it.send(&request, &descriptors);
        it.end()
    });
    check("a channel with the last number, to itself", "Connected", |it| {
        it.introduce();
        let peer = it.pages.owner;
        it.send(&Request::ResumeChannel { channel: u64::MAX, peer }, &[]);
        it.end();
        let peer = it.honest;
        it.raw.answer(&Request::Connect { peer })
    });
    check("owners in no slot, in its own, in the daemon's", "Resumed", |it| {
        it.introduce();
        let own = it.pages.owner;
        for owner in [OwnerId::new(u16::MAX, 1), own, OwnerId::new(0, 0), OwnerId::new(40, 7)] {
            it.send(
                &Request::ResumePeer { owner, attached: true },
                &[memory(control_bytes(it.pages.slots)), bell()],
            );
            it.send(&Request::ResumeMapped { owner, segment: 1, bytes: 4096 }, &[memory(4096)]);
            it.send(&Request::ResumeEscrowedSegment { owner, segment: 2, bytes: 4096 }, &[memory(4096)]);
        }
        it.end()
    });
    check("segments of the honest one, that it never had", "Resumed", |it| {
        it.introduce();
        let owner = it.honest;
        it.send(
            &Request::ResumePeer { owner, attached: true },
            &[memory(control_bytes(it.pages.slots)), bell()],
        );
        it.send(&Request::ResumeMapped { owner, segment: 1, bytes: 4096 }, &[memory(4096)]);
        it.send(&Request::ResumeMapped { owner, segment: u32::MAX, bytes: 4096 }, &[memory(4096)]);
        it.end()
    });
    check("a segment of an owner that it has not told of", "CannotResume", |it| {
        it.introduce();
        let owner = it.honest;
        it.send(&Request::ResumeMapped { owner, segment: 1, bytes: 4096 }, &[memory(4096)]);
        it.end()
    });
}

#[test]
fn who_comes_back_although_nothing_has_happened_is_turned_away() {
    let store = Store::start(PEER, CAPACITY);
    let client = store.client();
    let (raw, pages) = Raw::client(&store.socket());
    let mut it = Returning { pages, raw: Raw::connect(&store.socket()), honest: client.id() };
    let introduction = it.introduction();
    it.send(&introduction, &[]);
    let said = it.raw.last_words();
    assert!(said.contains("CannotResume"), "{said}");
    // A client that is there already cannot come back either.
    it.raw = raw;
    it.send(&introduction, &[]);
    let said = it.raw.last_words();
    assert!(said.contains("BadRequest"), "{said}");
    client.stats().unwrap();
}
