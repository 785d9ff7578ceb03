//! This client as an owner: its objects, its memory, and the freeing of objects that nobody uses.
//!
//! | file | owns |
//! |---|---|
//! | [`table`] | the entries as every process sees them: words, locations, own pins; and this process's counts |
//! | [`readers`] | the clients that may pin these objects, and the looks at their pins |
//! | [`entries`] | what each entry needs in this process's heap, and which index comes next |
//! | [`kept`] | the references that objects keep |
//! | [`segments`] | the leased memory; [`alloc`] says where in it an object lies |
//! | [`spilled`] | the files of spilled objects |
//! | [`create`] | an object comes to be: reserved, sealed or promised |
//! | [`references`] | references to it begin and end in this process |
//! | [`reclaim`] | it is freed, with others |
//! | [`evict`] | it is evicted and restored |
//! | [`compact`] | it moves to another place |
//! | [`lease`] | memory comes from the daemon, and goes back |
//!
//! # States of an entry
//!
//! | an entry's count | the entry | is left by |
//! |---|---|---|
//! | 0 | is vacant, or a fresh one | `reserve`, which has it to itself |
//! | references | is being made, or an object in use | the last `release` |
//! | `QUEUED` | is an object that waits in exactly one list, or is being freed | `acquire` (it stays in its list) |
//! | references and `QUEUED` | is an object in use again | the next look at the list, which forgets it |
//!
//! # How the client is kept
//!
//! A reference here needs the client's memory and state, although it has no `Arc` of them. So a client that is closed
//! while its objects are in use keeps itself, in `State::keep_alive`, until the last reference ends.
//!
//! Lock order: a [`Busy`](crate::counting::count::Busy) count, then `state`, then the readers. No thread waits for a
//! count while it holds a lock. References that a freed object kept end outside of all locks.

pub(crate) mod alloc;
mod compact;
mod create;
mod entries;
mod evict;
mod kept;
mod lease;
mod readers;
mod reclaim;
mod references;
mod segments;
mod spilled;
mod table;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use mobula_protocol::id::OwnerId;
use mobula_shm::fork::ForkGuard;
use parking_lot::Mutex;

pub(crate) use self::create::Reserved;
use self::entries::{Entries, Retired};
pub(crate) use self::readers::Readers;
pub(crate) use self::segments::HeldSegment;
use self::segments::Segments;
pub(crate) use self::spilled::Spilled;
pub(crate) use self::table::Table;
use crate::counting::keep_alive::{KeepAlive, WeakKeepAlive};
use crate::counting::raw::RawReference;
use crate::daemon::connection::Connection;
use crate::error::ClientError;

/// References that freed objects kept, and that are still to be ended.
pub(crate) type ReferencesToEnd = Vec<RawReference>;

/// Ends a reference. The references of an object that is freed by this join those to end.
pub(crate) type EndReference = fn(RawReference, &mut ReferencesToEnd);

/// This client's own objects.
pub(crate) struct Owner {
    pub(crate) guard: ForkGuard,
    pub(crate) table: Table,
    pub(crate) readers: Readers,
    pub(crate) spilled: Spilled,
    pub(crate) connection: Arc<Connection>,
    pub(crate) capacity_bytes: u64,
    state: Mutex<State>,
    /// Leases that were requested and whose segments are not in the state yet.
    leasing: AtomicUsize,
    end_reference: EndReference,
    client: WeakKeepAlive,
}

/// The entries, the memory and the lists of an owner.
struct State {
    entries: Entries,
    segments: Segments,
    retired: Retired,
    /// Entries that this process uses.
    in_use: u32,
    is_closed: bool,
    /// The client itself, once it is closed and while anything is in use.
    keep_alive: Option<KeepAlive>,
}

impl Owner {
    #[expect(clippy::too_many_arguments, reason = "these are the parts of an owner")]
    pub(crate) fn new(
        guard: ForkGuard,
        table: Table,
        readers: Readers,
        entries_committed: u32,
        capacity_bytes: u64,
        connection: Arc<Connection>,
        end_reference: EndReference,
        client: WeakKeepAlive,
    ) -> Self {
        let state = State {
            entries: Entries::new(entries_committed),
            segments: Segments::new(),
            retired: Retired::default(),
            in_use: 0,
            is_closed: false,
            keep_alive: None,
        };
        Self {
            guard,
            table,
            readers,
            spilled: Spilled::new(connection.clone()),
            connection,
            capacity_bytes,
            state: Mutex::new(state),
            leasing: AtomicUsize::new(0),
            end_reference,
            client,
        }
    }

    pub(crate) fn id(&self) -> OwnerId {
        self.table.id()
    }

    /// # Errors
    /// [`ClientError::ForkedChild`].
    #[inline]
    pub(crate) fn check_process(&self) -> Result<(), ClientError> {
        if self.guard.is_child() { Err(ClientError::ForkedChild) } else { Ok(()) }
    }

    /// For operations that have no error to return.
    ///
    /// # Panics
    /// In a forked child.
    #[inline]
    pub(crate) fn assert_process(&self) {
        if let Err(error) = self.check_process() {
            panic!("{error}");
        }
    }

    /// From now on the client lives only as long as anything of it is in use. The caller frees the
    /// objects that are not in use.
    pub(crate) fn close(&self, client: KeepAlive) {
        let mut state = self.state.lock();
        state.is_closed = true;
        if state.in_use > 0 {
            state.keep_alive = Some(client);
        }
    }

    /// Objects that are alive, those included that are promised or being made.
    pub(crate) fn live(&self) -> u64 {
        self.state.lock().entries.live()
    }

    /// The segments, as another daemon has to know them: each with a descriptor, and the largest number so far.
    pub(crate) fn held_segments(&self) -> io::Result<(Vec<HeldSegment>, u32)> {
        self.state.lock().segments.held()
    }

    /// Whether there is anything to look after: memory, objects to be freed, or a state that has grown too large.
    pub(crate) fn has_work(&self) -> bool {
        let state = self.state.lock();
        state.segments.are_any() || !state.retired.is_empty() || state.entries.are_too_large()
    }

    /// Shrinks the state after many objects were freed; `true` if that was much. Does nothing while objects are made
    /// and freed: it takes two calls without any object in between.
    pub(crate) fn trim(&self) -> bool {
        let mut state = self.state.lock();
        let is_trimmed = state.entries.trim();
        if is_trimmed {
            state.retired.shrink_to_fit();
        }
        is_trimmed
    }

    /// Sets the clock by which a segment has been empty for a while.
    pub(crate) fn set_now(&self, now: u64) {
        self.state.lock().segments.set_now(now);
    }

    /// Ends references, then the references that the freed objects kept, and so on. There is no recursion, because
    /// chains of objects can be long.
    fn end_all(&self, mut to_end: ReferencesToEnd) {
        while let Some(reference) = to_end.pop() {
            (self.end_reference)(reference, &mut to_end);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Objects that other clients use live on, and from here on the daemon keeps what they refer to. The references
        // that they kept here may be those of another client of this process.
        let to_end = self.state.get_mut().entries.take_kept();
        self.end_all(to_end);
    }
}
