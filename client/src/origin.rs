//! Where an object was made: a number that a thread says beforehand, and that goes into the entries of the objects that
//! it makes, where the [recorder](mobula_shm::recorder::ORIGINS) was asked for that.

use std::cell::Cell;

use mobula_shm::clock::ticks;

use crate::owner::Owner;

thread_local! {
    static PLACE: Cell<u16> = const { Cell::new(0) };
}

/// The objects that this thread makes from now on are made at the place with this number, of a name in its recorder.
/// Returns the number before.
pub fn set_place(number: u16) -> u16 {
    PLACE.try_with(|place| place.replace(number)).unwrap_or(0)
}

impl Owner {
    /// Notes when and where the object of an entry is made, if that is wanted. One load if it is not.
    #[inline]
    pub(crate) fn note_origin(&self, index: u32) {
        if self.connection.recorder().is_some_and(|recorder| recorder.notes_origins()) {
            let place = PLACE.try_with(Cell::get).unwrap_or(0);
            self.table.set_origin(index, ticks(), place);
        }
    }
}
