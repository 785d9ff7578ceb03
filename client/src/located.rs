//! Where the bytes of an object lie in this process.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use mobula_shm::table::{ALIGNMENT, Location};

/// The bytes of an object: their address here, and the location in its owner's table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    /// Payload and references are mapped here, or copied, for as long as the object is borrowed.
    pub(crate) pointer: NonNull<u8>,
    pub(crate) location: Location,
}

/// Where empty slices point: not null, and aligned as all other objects.
#[inline]
pub(crate) fn dangling() -> NonNull<u8> {
    const ADDRESS: NonZeroUsize = NonZeroUsize::new(ALIGNMENT as usize).expect("not zero");
    NonNull::without_provenance(ADDRESS)
}
