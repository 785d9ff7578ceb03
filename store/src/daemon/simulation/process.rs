//! An honest client, one atomic step at a time.
//!
//! It does what `mobula_client` does with its memory and its messages, by the same structures, but in separate steps.
//! Other clients take steps between two steps of a client, and the client may die there. An object is begun, then
//! filled, then sealed. A reader sets a pin, and loads the state word in a later step. An owner stores `Dying`, and
//! looks at the pins in a later step. It notes the place of a spill record, and stores `Spilled` in a later step.
//! Memory that a client wrote stays as it was when the client dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Refusal, Reply, Request};
use mobula_shm::directory::DirectoryReader;
use mobula_shm::mapping::{ReadMapping, WriteMapping};
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::{HELD, MAPPED, PinReader, PinWriter};
use mobula_shm::spill::SpillLocation;
use mobula_shm::table::{Location, State, TableReader, TableWriter, Word};

use self::spill::SpillFile;
use crate::core::random::Random;
use crate::memory::Attachment;

mod mail;
mod owner;
mod reader;
mod spill;

/// The bytes of a place for one object: its stamp, then its references.
const PLACE_BYTES: u64 = 2048;
/// The bytes of every object's payload.
const STAMP_BYTES: u64 = 64;
/// The number of names that the processes give.
const NAMES: u64 = 4;

/// The model's knowledge of the objects: the truth, independent of the reports of processes.
#[derive(Default)]
pub(super) struct Truths {
    /// Sealed objects that have not been freed.
    pub(super) sealed: BTreeMap<ObjectId, Truth>,
    /// Objects that their owners have deleted: a later reader does not find them.
    pub(super) deleted: BTreeSet<ObjectId>,
    /// All ids that ever existed: a process may still have any of them.
    pub(super) ids: Vec<ObjectId>,
    stamps: u64,
    /// How often an object was spilled.
    pub(super) spilled: u64,
}

/// A sealed object.
pub(super) struct Truth {
    /// The number in its bytes.
    pub(super) stamp: u64,
    /// The objects that it keeps alive.
    pub(super) references: Vec<ObjectId>,
}

/// A message of the daemon that the client has not read.
pub(super) enum Mail {
    Reply(u64, Reply, Vec<Attachment>),
    Notice(Notice, Vec<Attachment>),
}

pub(super) struct Process {
    pub(super) id: OwnerId,
    /// Requests that the daemon has not read.
    pub(super) outgoing: VecDeque<(u64, Request)>,
    /// Messages that this process has not read.
    pub(super) inbox: VecDeque<Mail>,
    /// Requests whose replies this process has not read.
    asked: BTreeMap<u64, Request>,
    last_correlation: u64,
    table: TableWriter,
    directory: DirectoryReader,
    control: Attachment,
    own_pins: PinWriter,
    daemon_pins: PinReader,
    readers: BTreeMap<OwnerId, PinReader>,
    readers_heard: u64,
    entries: Vec<Entry>,
    segments: BTreeMap<u32, Segment>,
    files: BTreeMap<u32, SpillFile>,
    /// The bytes that it has spilled since the daemon asked it to spill; `None` while no such request is open.
    spilling: Option<u64>,
    /// Spilled objects that other clients want restored.
    wanted: BTreeSet<ObjectId>,
    pub(super) peers: BTreeMap<OwnerId, Peer>,
    channels: BTreeSet<u64>,
}

/// An entry of the process's own table.
struct Entry {
    stage: Stage,
    generation: u32,
    place: Option<Place>,
    /// The place of its spill record, whether the entry names it yet or not.
    record: Option<SpillLocation>,
    uses: Uses,
    keeps: Vec<ObjectId>,
}

/// The uses for which a process keeps an object.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Uses {
    /// Handles that the program has.
    direct: u32,
    /// Objects that keep it alive, and requests without a reply.
    other: u32,
}

impl Uses {
    const DIRECT: Self = Self { direct: 1, other: 0 };

    const OTHER: Self = Self { direct: 0, other: 1 };

    fn any(self) -> bool {
        self != Self::default()
    }

    fn end(&mut self, uses: Self) {
        self.direct -= uses.direct;
        self.other -= uses.other;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Vacant,
    /// Memory is taken and written; no other process sees it.
    Begun,
    /// `Promised`, or a state that comes after it.
    Visible(State),
    /// The word says `Dying`; the pins are looked at in the next step.
    Dying(State),
    /// Its record is written and the word says `Dying`; the next step looks whether a reader has its bytes mapped.
    Evicting,
    /// No reader has its bytes mapped, and the record's place is noted; the word says `Spilled` in the next step.
    Noted,
    /// It has bytes and a location again; the word says `Sealed` in the next step.
    Restoring,
    /// The word says `Sealed`; the record's place is forgotten in the next step.
    Restored,
}

impl Stage {
    /// Whether the entry has an object that was sealed.
    fn is_sealed(self) -> bool {
        let visible = matches!(self, Self::Visible(State::Sealed | State::Spilled));
        visible || matches!(self, Self::Evicting | Self::Noted | Self::Restoring | Self::Restored)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    segment: u32,
    offset: u64,
}

struct Segment {
    mapping: WriteMapping,
    taken: BTreeSet<u64>,
}

/// Another owner.
pub(super) struct Peer {
    table: TableReader,
    pins: PinWriter,
    segments: BTreeMap<u32, ReadMapping>,
    /// The pins, by entry.
    pub(super) holds: BTreeMap<u32, Hold>,
    forgotten: bool,
}

/// A pin of this process on an object of another.
pub(super) struct Hold {
    object: ObjectId,
    found: Found,
    uses: Uses,
    /// The request that has to be answered before the bytes can be read; one of the uses lasts until then.
    reading: Option<Reading>,
}

/// The reason why a reader cannot read the bytes yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The bytes are in a file.
    Restore,
    /// The segment of the bytes is not mapped.
    Map,
}

/// The state that the reader has found in the word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    NotYet,
    Promised,
    Sealed,
}

impl Process {
    /// A client that was answered by this `Welcome`.
    pub(super) fn new(id: OwnerId, slots: u32, entries: u32, attachments: Vec<Attachment>) -> Self {
        let [control, _bell, of_daemon] =
            <[Attachment; 3]>::try_from(attachments).expect("the descriptors of a Welcome");
        let mut process = Self {
            id,
            outgoing: VecDeque::new(),
            inbox: VecDeque::new(),
            asked: BTreeMap::new(),
            last_correlation: 0,
            table: TableWriter::map(control.as_fd()).unwrap(),
            directory: DirectoryReader::map(of_daemon.as_fd(), slots).unwrap(),
            own_pins: PinWriter::map(control.as_fd(), id.slot()).unwrap(),
            daemon_pins: PinReader::map(of_daemon.as_fd(), id.slot()).unwrap(),
            control,
            readers: BTreeMap::new(),
            readers_heard: 0,
            entries: Vec::new(),
            segments: BTreeMap::new(),
            files: BTreeMap::new(),
            spilling: None,
            wanted: BTreeSet::new(),
            peers: BTreeMap::new(),
            channels: BTreeSet::new(),
        };
        process.add_entries(entries);
        process
    }

    /// Any step that this process can make by itself.
    pub(super) fn act(&mut self, random: &mut Random, truths: &mut Truths, others: &[OwnerId]) {
        let other = others[random.below(others.len() as u64) as usize];
        if (self.spilling.is_some() || !self.wanted.is_empty()) && random.below(4) == 0 {
            return self.answer_wishes(truths);
        }
        match random.below(33) {
            0 | 1 => self.ask_for_memory(random),
            2 => drop(self.begin()),
            3 | 4 => self.seal(random, truths),
            5 => self.promise(truths),
            6 => self.keep_or_break_a_promise(random, truths),
            7..=9 => self.let_go_of_one_of_its_own(random),
            10 | 11 => self.begin_to_free(random),
            12 | 13 => self.end_freeing(random),
            14 => self.delete(random, truths),
            15 => drop(self.release_empty(1)),
            16 | 17 => self.pin(random, truths),
            18 => self.look(random, truths),
            19 => self.unpin(random),
            20 => {
                if let Some((owner, index)) = self.any_hold(random, |hold| hold.found == Found::Sealed) {
                    self.read(owner, index);
                }
            }
            21 => self.detach(random),
            22 => self.publish(random),
            23 => {
                let timeout_ms = random.below(3) * 40;
                self.ask(Request::Lookup { name: name(random), timeout_ms });
            }
            24 if random.below(3) == 0 => self.ask(Request::Unpublish { name: name(random) }),
            24 => self.use_again(random),
            25..=27 => self.begin_to_spill(random),
            28..=30 => self.go_on_spilling(random, truths),
            31 => self.restore_one(random),
            _ => match random.below(8) {
                0 if other != self.id => self.ask(Request::Connect { peer: other }),
                1 => {
                    if let Some(channel) = self.channels.pop_first() {
                        self.ask(Request::Disconnect { channel });
                    }
                }
                2 => self.ask(Request::GrowTable { entries: random.below(40) as u32 }),
                3 => self.ask(Request::ListObjects { cursor: 0 }),
                4 => self.ask(Request::ListSegments { cursor: 0 }),
                5 => self.ask(Request::ListLocations { cursor: 0 }),
                6 => self.ask(Request::ListHolders { cursor: 0 }),
                _ => self.ask(Request::ListClients { cursor: 0 }),
            },
        }
    }

    /// Ends all that it has begun, and lets go of all that it has. This is one round of many; between two rounds the
    /// process reads its mail.
    pub(super) fn wind_up(&mut self, truths: &mut Truths) {
        self.answer_wishes(truths);
        for index in 0..self.entries.len() as u32 {
            self.end_spilling(index, truths);
            match self.entries[index as usize].stage {
                Stage::Vacant => {}
                Stage::Begun => self.vacate(index),
                Stage::Visible(State::Promised) => self.settle(index, State::Lost),
                Stage::Visible(_) => match self.entries[index as usize].uses {
                    Uses { direct: 1.., .. } => self.let_go_of_own(index, Uses::DIRECT),
                    uses if uses.any() => {}
                    _ => self.dying(index),
                },
                Stage::Dying(from) => self.free_or_restore(index, from),
                // An object that is half spilled or half restored goes on in the next round.
                _ => {}
            }
        }
        let owners: Vec<OwnerId> = self.peers.keys().copied().collect();
        for owner in owners {
            let held: Vec<u32> = self.peers[&owner].holds.keys().copied().collect();
            for index in held {
                match self.peers[&owner].holds[&index].found {
                    Found::NotYet => self.look_at(owner, index, truths),
                    Found::Promised => self.give_up(owner, index),
                    Found::Sealed if self.peers[&owner].holds[&index].uses.direct > 0 => {
                        self.let_go_of_peers(owner, index, Uses::DIRECT);
                    }
                    Found::Sealed => {}
                }
            }
            if self.peers[&owner].holds.is_empty() {
                self.leave(owner);
            }
        }
        self.release_empty(usize::MAX);
        self.discard_empty_files();
    }

    /// Whether it has nothing and waits for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.iter().all(|entry| entry.stage == Stage::Vacant)
            && self.segments.is_empty()
            && self.files.is_empty()
            && self.peers.is_empty()
            && self.asked.is_empty()
    }

    /// The objects that this process holds are there, and have not changed.
    pub(super) fn check_holds(&self, truths: &Truths) {
        for (owner, peer) in &self.peers {
            for (index, hold) in &peer.holds {
                if hold.found == Found::NotYet {
                    continue;
                }
                let word = peer.table.word(*index);
                assert_eq!(
                    word.generation(),
                    hold.object.generation(),
                    "{} was freed under {}",
                    hold.object,
                    self.id
                );
                let state = word.state().expect("a state");
                let is_there = [State::Sealed, State::Dying, State::Deleted, State::Spilled].contains(&state);
                let may_come =
                    hold.found == Found::Promised && [State::Promised, State::Lost].contains(&state);
                assert!(is_there || may_come, "{} is {state:?} under {}", hold.object, self.id);
                let is_lent = hold.reading == Some(Reading::Map);
                assert!(!is_lent || state != State::Spilled, "{} was spilled under {}", hold.object, self.id);
                // Only the owner knows whether a dying object is in memory, unless a reader has its bytes mapped.
                let is_in_memory = is_lent || [State::Sealed, State::Deleted].contains(&state);
                let location = peer.table.location(*index);
                if hold.found == Found::Sealed
                    && is_in_memory
                    && let Some(mapping) = peer.segments.get(&location.segment)
                {
                    let stamp = mapping.load64_relaxed(location.offset as usize);
                    let truth = &truths.sealed[&hold.object];
                    assert_eq!(stamp, truth.stamp, "the bytes of {} changed ({owner})", hold.object);
                }
            }
        }
    }

    /// Whether this process keeps an object from being freed.
    pub(super) fn holds(&self, object: ObjectId) -> bool {
        if object.owner() == self.id {
            let entry = &self.entries[object.index() as usize];
            return entry.generation == object.generation() && entry.uses.any() && entry.stage.is_sealed();
        }
        let hold = self.peers.get(&object.owner()).and_then(|peer| peer.holds.get(&object.index()));
        hold.is_some_and(|hold| hold.object == object && hold.found == Found::Sealed)
    }

    /// The segments of other owners that this process has mapped: its id, the owner, the segment.
    pub(super) fn mapped(&self) -> impl Iterator<Item = (OwnerId, OwnerId, u32)> {
        let segments = |(owner, peer): (&OwnerId, &Peer)| {
            let owner = *owner;
            peer.segments.keys().map(move |segment| (owner, *segment)).collect::<Vec<_>>()
        };
        self.peers.iter().flat_map(segments).map(|(owner, segment)| (self.id, owner, segment))
    }

    fn publish(&mut self, random: &mut Random) {
        if let Some(object) = self.any_held(random).filter(|object| self.use_once_more(*object)) {
            self.ask(Request::Publish { name: name(random), object });
        }
    }

    fn use_again(&mut self, random: &mut Random) {
        // Another process can hand an id back to the owner.
        if let Some(index) = self.find(random, |entry| entry.stage == Stage::Visible(State::Sealed)) {
            self.entries[index as usize].uses.direct += 1;
            self.own_pins.set_own(index, HELD);
        }
    }

    fn any_held(&self, random: &mut Random) -> Option<ObjectId> {
        let own = (0..self.entries.len() as u32).map(|index| self.object(index));
        let others = self.peers.values().flat_map(|peer| peer.holds.values()).map(|hold| hold.object);
        let held: Vec<ObjectId> = own.chain(others).filter(|object| self.holds(*object)).collect();
        any(&held, random)
    }

    /// Counts another use of an object that this process holds.
    fn use_once_more(&mut self, object: ObjectId) -> bool {
        if object.owner() == self.id {
            self.entries[object.index() as usize].uses.other += 1;
            return true;
        }
        let peer = self.peers.get_mut(&object.owner());
        let hold = peer.and_then(|peer| peer.holds.get_mut(&object.index()));
        hold.map(|hold| hold.uses.other += 1).is_some()
    }

    fn let_go(&mut self, object: ObjectId) {
        if object.owner() == self.id {
            self.let_go_of_own(object.index(), Uses::OTHER);
        } else {
            self.let_go_of_peers(object.owner(), object.index(), Uses::OTHER);
        }
    }

    fn object(&self, index: u32) -> ObjectId {
        ObjectId::new(self.id, index, self.entries[index as usize].generation)
    }

    fn find(&self, random: &mut Random, is_wanted: impl Fn(&Entry) -> bool) -> Option<u32> {
        let count = self.entries.len() as u64;
        let first = random.below(count);
        (0..count)
            .map(|step| (first + step) % count)
            .find(|index| is_wanted(&self.entries[*index as usize]))
            .map(|index| index as u32)
    }

    fn any_hold(&self, random: &mut Random, is_wanted: impl Fn(&Hold) -> bool) -> Option<(OwnerId, u32)> {
        let holds = self
            .peers
            .iter()
            .flat_map(|(owner, peer)| peer.holds.iter().map(move |(index, hold)| ((*owner, *index), hold)));
        let wanted: Vec<_> = holds.filter(|(_, hold)| is_wanted(hold)).map(|(place, _)| place).collect();
        any(&wanted, random)
    }
}

fn any<T: Copy>(list: &[T], random: &mut Random) -> Option<T> {
    list.get(random.below(list.len().max(1) as u64) as usize).copied()
}

fn name(random: &mut Random) -> Vec<u8> {
    vec![b'a' + random.below(NAMES) as u8]
}

/// All names that the processes give.
pub(super) fn names() -> impl Iterator<Item = Vec<u8>> {
    (0..NAMES).map(|number| vec![b'a' + number as u8])
}

/// The deadline of a request, if it may wait.
pub(super) fn deadline(request: &Request, now: Instant) -> Option<Instant> {
    match request {
        Request::Lease { timeout_ms, .. }
        | Request::Lookup { timeout_ms, .. }
        | Request::Restore { timeout_ms, .. }
            if *timeout_ms > 0 =>
        {
            crate::core::waiters::deadline(now, *timeout_ms)
        }
        _ => None,
    }
}
