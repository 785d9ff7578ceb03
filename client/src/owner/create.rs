//! Making an object: an entry and memory are reserved for it. Then it is sealed at once, or promised and sealed later.

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Refusal;
use mobula_shm::table::Location;

use crate::counting::count::Kind;
use crate::counting::raw::RawReference;
use crate::error::ClientError;
use crate::located::{Located, dangling};
use crate::owner::entries::TableFull;
use crate::owner::{Owner, State};

/// An entry and memory, reserved for an object that no process sees yet, with one reference counted.
pub(crate) struct Reserved {
    pub(crate) id: ObjectId,
    pub(crate) reference: RawReference,
    /// The memory, and the object's location. It is mapped for as long as the entry is not vacant.
    pub(crate) located: Located,
}

/// The memory or the entries that are missing for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Memory,
    Entries(TableFull),
}

impl Owner {
    /// Reserves an entry and memory for an object. `what` gives its length, format and number of references. The memory
    /// comes from the leases if they have room, otherwise from the daemon.
    #[inline]
    pub(crate) fn reserve(&self, what: Location, kind: Kind) -> Result<Reserved, ClientError> {
        self.check_process()?;
        let bytes = self.extent(&what)?;
        let reserved = self.state.lock().reserve(bytes, what);
        let (index, located) = match reserved {
            Ok(reserved) => reserved,
            Err(missing) => self.make_room(missing, bytes, |state| state.reserve(bytes, what))?,
        };
        let (count, generation) = self.table.take(index, kind);
        self.note_origin(index);
        let id = ObjectId::new(self.id(), index, generation);
        // SAFETY: `take` has just counted it.
        let reference = unsafe { self.reference(count, id, kind) };
        Ok(Reserved { id, reference, located })
    }

    /// Lets a reserved object keep references, until it is freed.
    pub(crate) fn keep(&self, object: ObjectId, references: Vec<RawReference>) {
        self.state.lock().entries.keep(object.index(), references);
    }

    /// Fulfils a promise with the content of another id. The entry of that id becomes vacant when its last reference
    /// ends. Wakes the readers that wait.
    pub(crate) fn fulfil(&self, promised: ObjectId, written: ObjectId, location: &Location) {
        self.state.lock().entries.move_content(written.index(), promised.index());
        self.table.settle(promised, Some(location));
        self.readers.ring_waiting(promised);
    }

    /// Ends a promise that will not be kept. Wakes the readers that wait.
    pub(crate) fn break_promise(&self, promised: ObjectId) {
        self.table.settle(promised, None);
        self.readers.ring_waiting(promised);
    }

    /// Bytes of memory for an object.
    #[inline]
    fn extent(&self, what: &Location) -> Result<u64, ClientError> {
        let extent = Location::extent(what.length, what.references);
        extent.filter(|bytes| *bytes <= self.capacity_bytes).ok_or_else(|| {
            let (requested_bytes, capacity_bytes) = (what.length, self.capacity_bytes);
            Refusal::TooLarge { requested_bytes, capacity_bytes }.into()
        })
    }
}

impl State {
    fn reserve(&mut self, bytes: u64, what: Location) -> Result<(u32, Located), Missing> {
        let index = self.entries.next().map_err(Missing::Entries)?;
        let (mut allocation, mut located) = (None, Located { pointer: dangling(), location: what });
        if bytes > 0 {
            let found = self.segments.allocator.allocate(bytes).ok_or(Missing::Memory)?;
            let (segment, pointer) = self.segments.address(found, bytes);
            located = Located { pointer, location: Location { segment, offset: found.offset(), ..what } };
            allocation = Some(found);
        }
        self.entries.take(index, allocation);
        self.in_use += 1;
        Ok((index, located))
    }
}
