//! Small objects move together, so that pages come free.
//!
//! A small object can be moved while no process borrows its bytes. When memory is short, such objects move, each while
//! its count is busy and by the handshake of [`mobula_shm::pins`], into the places that the
//! [allocator](crate::owner::alloc::compaction) finds for them.

use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::try_compact;
use mobula_shm::table::{Location, State as ObjectState};

use crate::counting::count::{Count, Kind};
use crate::owner::Owner;
use crate::owner::alloc::Compaction;

/// Objects that are moved in one go.
const MOVES_MAX: usize = 1 << 15;

impl Owner {
    /// Moves small objects together.
    pub(crate) fn compact(&self) {
        let state = self.state.lock();
        let Some(mut compaction) = state.segments.allocator.begin_compaction() else { return };
        let ranked = |(index, place)| Some((state.segments.allocator.rank(&compaction, place)?, index));
        let mut order: Vec<_> = state.entries.allocated().filter_map(ranked).collect();
        drop(state);
        // The last ones first, into the first places that are free.
        order.sort_unstable();
        let moved = order.into_iter().rev().filter(|(_, index)| self.move_object(*index, &mut compaction));
        let _objects = moved.take(MOVES_MAX).count();
    }

    /// Moves an object to a better place, if there is one, it is sealed, and its bytes are not borrowed.
    fn move_object(&self, index: u32, compaction: &mut Compaction) -> bool {
        // Busy: no thread here borrows the bytes meanwhile, and the object is not being freed.
        let Some(busy) = self.table.count(index).and_then(Count::lock_known) else { return false };
        let word = self.table.word(index);
        if word.state() != Some(ObjectState::Sealed)
            || !busy.is_without(Kind::Borrow)
            || self.readers.borrow(index)
        {
            return false;
        }
        let location = self.table.location(index);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Some(from), Some(bytes)) =
            (state.entries.allocation(index), Location::extent(location.length, location.references))
        else {
            return false;
        };
        let Some(to) = state.segments.allocator.take_better(compaction, from) else { return false };
        let [(_, source), (segment, target)] = [from, to].map(|place| state.segments.address(place, bytes));
        // SAFETY: both ranges lie inside mappings, which stay while the state is locked. They are different cells, so
        // they do not overlap. The source is sealed, so nobody writes it; the target was free until now, so nobody uses
        // it.
        unsafe { target.copy_from_nonoverlapping(source, bytes as usize) };
        let is_moved = try_compact(
            self.table.atomic_word(index),
            word.generation(),
            || self.readers.borrow(index),
            || self.table.set_place(index, segment, to.offset()),
        );
        if is_moved {
            failpoint(Failpoint::CompactStored);
            state.entries.set_allocation(index, to);
        }
        state.segments.allocator.free(if is_moved { from } else { to });
        drop(guard);
        busy.finish();
        is_moved
    }
}
