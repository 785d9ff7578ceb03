//! Pages: the sizes in which the kernel hands out memory.

/// Bytes of a page; every length and offset of a mapping is a multiple of it.
pub const PAGE_BYTES: u64 = 4096;

/// Rounds up to whole pages; `None` where that would not fit 63 bits.
pub fn round_up_to_pages(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(PAGE_BYTES).filter(|rounded| *rounded <= i64::MAX as u64)
}

/// Bytes of a huge page, to which large mappings are aligned.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;
