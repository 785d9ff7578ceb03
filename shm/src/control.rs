//! The control memory. Each process has one, which it alone writes and others read. Two processes need only the
//! descriptors of these memories to use each other's objects.
//!
//! | from | of a client | of the daemon, which has slot 0 |
//! |---|---|---|
//! | 0 | its [object table](crate::table) | the [directory](crate::directory) |
//! | [`TABLE_BYTES`] | its [events](crate::recorder) | |
//! | [`pin_extent_offset`] | its [pins](crate::pins) on the owner in slot 0, in slot 1, … | the same |
//! | [`control_bytes`] | | the [names](crate::names) |
//!
//! It is sparse: the daemon allocates only the pages that are in use.

use crate::recorder::RECORDER_BYTES;
use crate::table::{ENTRIES_MAX, TABLE_BYTES};

/// Bytes of one pin word.
pub const PIN_BYTES: u64 = 4;
/// Bytes of one client's pins on one owner.
pub const PIN_EXTENT_BYTES: u64 = ENTRIES_MAX as u64 * PIN_BYTES;

/// Bytes of the control memory of a client where there are `slots` owners.
pub fn control_bytes(slots: u32) -> u64 {
    TABLE_BYTES + RECORDER_BYTES + u64::from(slots) * PIN_EXTENT_BYTES
}

/// Where the pins on the owner in a slot begin.
pub fn pin_extent_offset(slot: u16) -> u64 {
    control_bytes(u32::from(slot))
}
