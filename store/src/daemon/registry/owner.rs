//! An owner: one client as the daemon sees it, from its hello until the last of its objects is gone.
//!
//! The daemon maps the client's table writable from the beginning, but writes to it only after the client's death:
//! until then the client is its one writer. The daemon maps pins when it looks at them first.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mobula_protocol::id::OwnerId;
use mobula_shm::bell::Bell;
use mobula_shm::pins::{HELD, MAPPED, PinReader, PinWriter};
use mobula_shm::table::{Location, State, TableWriter, Word};
use nix::unistd::geteuid;

use crate::daemon::registry::remaining::RemainingObjects;
use crate::memory::Memory;

/// A client, alive or dead.
pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    pub(crate) pid: u32,
    /// The user whose quota it counts for.
    pub(crate) user: u32,
    pub(crate) label: String,
    /// Entries of the table, and of all pins on it, that have memory behind them.
    pub(crate) entries: u32,
    /// Its control memory: object table and pins.
    pub(crate) control: Memory,
    /// Its object table, mapped.
    pub(crate) view: TableWriter,
    pub(crate) bell: Arc<Bell>,
    /// The daemon's pins on this owner.
    pub(crate) daemon_pins: PinWriter,
    /// Its objects, from its death on.
    pub(crate) remaining: Option<RemainingObjects>,
    /// Its readers' pins on it, by their slots, and its own while it lives.
    pins: BTreeMap<u16, Pins>,
}

impl Owner {
    #[expect(
        clippy::too_many_arguments,
        reason = "all of it is made before there is an owner, and each can fail"
    )]
    pub(crate) fn new(
        id: OwnerId,
        pid: u32,
        label: String,
        entries: u32,
        control: Memory,
        view: TableWriter,
        bell: Arc<Bell>,
        daemon_pins: PinWriter,
    ) -> Self {
        let mut owner = Self {
            id,
            pid,
            user: geteuid().as_raw(),
            label,
            entries,
            control: control.clone(),
            view,
            bell,
            daemon_pins,
            remaining: None,
            pins: BTreeMap::new(),
        };
        owner.add_reader(id.slot(), control);
        owner
    }

    /// Whether its process is connected.
    pub(crate) fn is_alive(&self) -> bool {
        self.remaining.is_none()
    }

    /// From now on the pins in the control memory of `reader` count.
    pub(crate) fn add_reader(&mut self, reader: u16, control: Memory) {
        self.pins.insert(reader, Pins { control, slot: self.id.slot(), mapping: OnceCell::new() });
    }

    /// The pins of `reader` count no more.
    pub(crate) fn remove_reader(&mut self, reader: u16) {
        self.pins.remove(&reader);
    }

    /// The state word of an entry.
    pub(crate) fn word(&self, index: u32) -> Word {
        // Acquire: for the daemon's own pins, the second half of the reader's side of the handshake (see
        // `mobula_shm::pins`).
        Word::from_bits(self.view.word(index).load(Ordering::Acquire))
    }

    /// The state of an entry, if it is in that generation.
    pub(crate) fn state_of(&self, index: u32, generation: u32) -> Option<State> {
        if index >= self.entries {
            return None;
        }
        let word = self.word(index);
        word.state().filter(|_| word.generation() == generation)
    }

    /// Where the object of an entry lies, as the owner has written it.
    pub(crate) fn location(&self, index: u32) -> Location {
        self.view.location(index)
    }

    /// Whether any client pins an entry.
    pub(crate) fn is_pinned(&self, index: u32) -> bool {
        self.pins.values().any(|pins| pins.get(index) != 0)
    }

    /// Whether any client may use the bytes of an entry.
    pub(crate) fn is_mapped(&self, index: u32) -> bool {
        self.pins.values().any(|pins| pins.get(index) & MAPPED != 0)
    }

    /// How many clients pin an entry.
    pub(crate) fn holders(&self, index: u32) -> u32 {
        self.pins.values().filter(|pins| pins.get(index) != 0).count() as u32
    }

    /// The clients that pin an entry, by their slots, with the pins.
    pub(crate) fn pins_on(&self, index: u32) -> impl Iterator<Item = (u16, u32)> {
        let pins = self.pins.iter().map(move |(reader, pins)| (*reader, pins.get(index)));
        pins.filter(|(_, pin)| *pin != 0)
    }

    /// How many entries a client pins.
    pub(crate) fn pins_of(&self, reader: u16) -> u64 {
        let Some(pins) = self.pins.get(&reader) else { return 0 };
        (0..self.entries).filter(|index| pins.get(*index) != 0).count() as u64
    }
}

/// The value of a pin that cannot be read.
const UNKNOWN: u32 = HELD | MAPPED;

/// The pins of one client on one owner.
struct Pins {
    control: Memory,
    slot: u16,
    mapping: OnceCell<PinReader>,
}

impl Pins {
    /// The pin word of an entry. A pin that cannot be read counts as set, so no object is freed by mistake.
    fn get(&self, index: u32) -> u32 {
        if self.mapping.get().is_none() {
            match PinReader::map(self.control.writable(), self.slot) {
                Ok(mapping) => drop(self.mapping.set(mapping)),
                Err(error) => {
                    tracing::warn!(owner = self.slot, %error, "cannot map the pins of a reader");
                    return UNKNOWN;
                }
            }
        }
        self.mapping.get().map_or(UNKNOWN, |mapping| mapping.get(index))
    }
}
