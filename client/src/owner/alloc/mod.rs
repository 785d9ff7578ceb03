//! The positions of objects in the leased segments: pure bookkeeping in the owner's own heap. This part never touches
//! the segments.
//!
//! | file | owns |
//! |---|---|
//! | [`allocation`] | a place, as an entry notes it |
//! | [`allocator`] | all segments and size classes: to allocate and to free |
//! | [`runs`] | the free runs of a segment |
//! | [`slab`], [`cells`] | runs that are cut into cells, and which cells are free |
//! | [`compaction`] | better places for small objects |
//! | [`unused`] | pages that can go back to the system |
//!
//! Small objects come from *slabs*: runs of 64 KiB cut into cells of one size class, four classes to each doubling.
//! Larger objects are *runs* of whole pages. In both, memory that was freed last is used first, because its pages are
//! warm. Everything is aligned to 64 bytes.
//!
//! Free memory is kept in two stages, so that a loop of put and drop costs neither a tree nor a heap allocation:
//!
//! | free | is kept | becomes the next stage |
//! |---|---|---|
//! | a cell | in its slab; the one freed last is used first | with the last object of the slab: a spare slab |
//! | an empty slab | as its class's spare, at most one | with a second one, or when memory is short: a run |
//! | a run | as it is, for the next one of its size | with too many of them, or when memory is short: joined runs |
//! | joined runs | joined with their neighbours; the smallest that fits is used | |
//!
//! A segment is empty when nothing but spare slabs and warm runs is left in it. Unused pages of a segment that is not
//! empty can still go back to the system. After small objects have been compacted, there are more of them.

mod allocation;
mod allocator;
mod cells;
pub(super) mod compaction;
mod runs;
mod slab;
#[cfg(test)]
mod tests;
mod unused;

pub(crate) use self::allocation::Allocation;
pub(crate) use self::allocator::Allocator;
pub(crate) use self::compaction::Compaction;
pub(crate) use self::unused::UnusedPages;
