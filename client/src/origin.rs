//! The place in the program where an object was made. A thread first sets the number of the place. If the
//! [recorder](mobula_shm::recorder::ORIGINS) is configured for it, the number goes into the entries of the objects that
//! the thread makes.

use std::cell::Cell;

use mobula_shm::clock::ticks;

use crate::owner::Owner;

thread_local! {
    static PLACE: Cell<u16> = const { Cell::new(0) };
}

/// Sets the place of the objects that this thread makes from now on: the number of a name in the recorder. Returns the
/// number before.
pub fn set_place(number: u16) -> u16 {
    PLACE.try_with(|place| place.replace(number)).unwrap_or(0)
}

impl Owner {
    /// Records the time and the place at which the object of an entry is made, if that is configured. Otherwise one
    /// load.
    #[inline]
    pub(crate) fn note_origin(&self, index: u32) {
        if self.connection.recorder().is_some_and(|recorder| recorder.notes_origins()) {
            let place = PLACE.try_with(Cell::get).unwrap_or(0);
            self.table.set_origin(index, ticks(), place);
        }
    }
}
