//! A client writes arbitrary words into its object table, its segment and its pins while an honest client reads them,
//! and dies. No process may panic, the bytes that the honest client borrows must lie in memory that it has mapped, and
//! nothing may remain of the dead client.
#![no_main]

use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mobula_client::{Client, Handle, Object, ObjectId};
use mobula_fuzz::store::{Peer, observer, socket};
use mobula_protocol::message::{Reply, Request};
use mobula_shm::control::pin_extent_offset;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::PinWriter;
use mobula_shm::table::{Location, State, TableWriter, Word};

const ENTRIES: u32 = 32;
const SEGMENT_BYTES: u64 = 2 * PAGE_BYTES;

// `seeds.rs` knows these in their order, with the bytes of their fields.
#[derive(Debug, Arbitrary)]
enum Step {
    /// Any word for an entry.
    Word {
        entry: u8,
        bits: u64,
    },
    /// Any place for an object.
    Fill {
        entry: u8,
        segment: u8,
        offset: u64,
        length: u64,
        references: u32,
    },
    /// An object that could be one, or nearly.
    Seal {
        entry: u8,
        generation: u8,
        offset: i8,
        length: i16,
        references: u8,
        state: u8,
    },
    /// Any bytes in the segment: the references of objects are read from there.
    Scribble {
        word: u16,
        value: u64,
    },
    /// In the segment, the id of one of its own objects, or of the honest client's.
    Refer {
        place: u8,
        entry: u8,
        honest: bool,
    },
    /// Any pin on an object of the honest client's.
    Pin {
        entry: u8,
        bits: u32,
    },
    /// The honest client looks.
    Get {
        entry: u8,
        generation: u8,
    },
    Hold {
        entry: u8,
        generation: u8,
    },
    Name {
        entry: u8,
        generation: u8,
    },
    List,
}

/// The honest client, which lives as long as the store.
fn honest() -> &'static Client {
    static HONEST: OnceLock<Client> = OnceLock::new();
    HONEST.get_or_init(|| Client::connect(socket()).expect("a client"))
}

fuzz_target!(|steps: Vec<Step>| {
    let (_, honest) = (observer(), honest());
    let kept = honest.put(b"kept by the honest").expect("room");
    let mut uses = Uses::default();
    live(honest, &kept, &steps, &mut uses);
    // The daemon has the objects that the client left; those in use stay as they are.
    observer().settle("the daemon has noticed the death", |totals| totals.clients == 2);
    uses.look();
    drop(uses);
    let _ = honest.unpublish("name");
    observer().settle("nothing is left of the dead", |totals| {
        totals.dead_clients == 0 && totals.orphaned_bytes == 0 && totals.names == 0
    });
    assert_eq!(&kept[..], b"kept by the honest");
});

/// The objects and handles that the honest client has.
#[derive(Default)]
struct Uses {
    objects: Vec<Object>,
    handles: Vec<Handle>,
}

impl Uses {
    fn look(&self) {
        for object in &self.objects {
            let sum: u64 = object.iter().map(|byte| u64::from(*byte)).sum();
            std::hint::black_box((sum, object.references(), object.format()));
        }
        for handle in &self.handles {
            let _ = std::hint::black_box((handle.is_ready(), handle.is_held_elsewhere(0)));
        }
    }
}

fn live(honest: &Client, kept: &Object, steps: &[Step], uses: &mut Uses) {
    let peer = Peer::connect();
    let (reply, descriptors) = peer.call(&Request::Hello { label: "hostile".into(), serial: 1 });
    let Reply::Welcome { owner, .. } = reply else { panic!("{reply:?}") };
    let table = TableWriter::map(descriptors[0].as_fd()).expect("a mapping");
    let (reply, leased) = peer.call(&Request::Lease { bytes: SEGMENT_BYTES, timeout_ms: 0 });
    let Reply::Leased { segment: number, bytes } = reply else { panic!("{reply:?}") };
    let segment = WriteMapping::map(leased[0].as_fd(), 0, bytes as usize).expect("a mapping");
    let (reply, _) = peer.call(&Request::Attach { owner: honest.id() });
    assert!(matches!(reply, Reply::Attached { .. }), "{reply:?}");
    let pins = WriteMapping::map(descriptors[0].as_fd(), pin_extent_offset(honest.id().slot()), 4096);
    let pins = pins.expect("a mapping");
    let own_pins = PinWriter::map(descriptors[0].as_fd(), owner.slot()).expect("a mapping");
    let id = |entry: u8, generation: u8| ObjectId::new(owner, u32::from(entry) % ENTRIES, generation.into());
    for step in steps {
        match *step {
            Step::Word { entry, bits } => {
                table.word(u32::from(entry) % ENTRIES).store(bits, Ordering::SeqCst);
                own_pins.set_own(u32::from(entry) % ENTRIES, bits as u32);
            }
            Step::Fill { entry, segment, offset, length, references } => {
                let location = Location { segment: segment.into(), offset, length, format: 0, references };
                table.fill(u32::from(entry) % ENTRIES, &location);
            }
            Step::Seal { entry, generation, offset, length, references, state } => {
                let location = Location {
                    segment: number,
                    // Around the ends of the segment, aligned mostly.
                    offset: SEGMENT_BYTES.wrapping_add_signed(i64::from(offset) * 64),
                    length: (length as u64).wrapping_mul(4),
                    format: 7,
                    references: references.into(),
                };
                table.fill(u32::from(entry) % ENTRIES, &location);
                let states = [State::Sealed, State::Promised, State::Dying, State::Deleted, State::Lost];
                let word = Word::new(generation.into(), states[usize::from(state) % states.len()]);
                table.word(u32::from(entry) % ENTRIES).store(word.bits(), Ordering::SeqCst);
            }
            Step::Scribble { word, value } => {
                let offset = usize::from(word) * 8 % SEGMENT_BYTES as usize;
                segment.word64(offset).store(value, Ordering::SeqCst);
            }
            Step::Refer { place, entry, honest } => {
                let object = if honest { kept.id() } else { id(entry, 0) };
                let offset = usize::from(place) * 16 % SEGMENT_BYTES as usize;
                segment.store_words(offset, &object.to_bytes());
            }
            Step::Pin { entry, bits } => {
                pins.word32(usize::from(entry) * 4).store(bits, Ordering::SeqCst);
            }
            // A reader that finds an entry dying waits a second for its owner.
            Step::Get { entry, .. } | Step::Hold { entry, .. } if is_dying(&table, entry) => {}
            Step::Get { entry, generation } => uses.objects.extend(honest.get(id(entry, generation)).ok()),
            Step::Hold { entry, generation } => uses.handles.extend(honest.hold(id(entry, generation)).ok()),
            Step::Name { entry, generation } => drop(honest.publish("name", id(entry, generation))),
            Step::List => {
                honest.list().expect("the store answers");
                honest.stats().expect("the store answers");
            }
        }
    }
    uses.objects.extend(honest.lookup("name").expect("the store answers").and_then(|object| {
        (!is_dying(&table, object.index() as u8)).then(|| honest.get(object).ok()).flatten()
    }));
    uses.look();
}

fn is_dying(table: &TableWriter, entry: u8) -> bool {
    let bits = table.word(u32::from(entry) % ENTRIES).load(Ordering::SeqCst);
    Word::from_bits(bits).state() == Some(State::Dying)
}
