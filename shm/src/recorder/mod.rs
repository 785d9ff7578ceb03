//! The flight recorder: what each process has done lately, in memory that it writes and all other processes may read.
//!
//! It is a part of the client's [control memory](crate::control). So it needs no message, it lives as long as any
//! process has its descriptor, and the daemon can keep the recorder of a process that was killed. A reader maps it
//! read-only, so a reader cannot disturb the process that writes.
//!
//! # Layout
//!
//! | from | what | written by |
//! |---|---|---|
//! | 0 | the header: layout, clock, numbers of events and names, the running call, queues, waits | see there |
//! | `EVENT_BUFFERS` | three [event buffers](event_buffer) | one thread at a time each |
//! | `NAMES` | names of functions and of anything else that events name by a number | under a lock, once each |
//! | `COUNTS` | for each name, numbers of calls and a histogram of their times | the buffers' threads |
//!
//! Each buffer keeps its writers apart in another way: [`EventBuffer::Made`] is written where calls are made and end,
//! with the submitter's lock held; [`EventBuffer::Ran`] by the thread that runs calls; [`EventBuffer::Other`] by any
//! thread, under a lock of its own. So the events of calls cost no atomic operation but plain stores.
//!
//! Counts are exact even if events were overwritten. Memory is bounded: [`RECORDER_BYTES`], most of it never touched.
//! The pages of a buffer are allocated before its first event.
//!
//! # Trust
//!
//! A reader copies each word once, and checks what it has copied before it uses it.

pub mod event_buffer;
mod kind;
mod layout;
mod reader;
mod writer;

pub use kind::{Cause, Kind, WaitFor};
pub use layout::{
    Counter, EVENT_VALUES, EVENT_WORDS, HISTOGRAM, NAME_BYTES_MAX, Queue, RECORDER_BYTES, bucket_start,
};
pub use reader::{Counts, Event, Reader, Run, Seen, Wait};
pub use writer::{Recorder, WaitGuard};

/// A bit among the recorded kinds that stands for no event: each object's entry contains the time and the place at
/// which it was made.
pub const ORIGINS: u32 = 1 << 31;

/// One of the three buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventBuffer {
    /// Calls that this process has made, and their ends.
    Made = 0,
    /// Calls that this process has run.
    Ran = 1,
    /// Everything else.
    Other = 2,
}

impl EventBuffer {
    /// All buffers.
    pub const ALL: [Self; 3] = [Self::Made, Self::Ran, Self::Other];
}

#[cfg(all(test, not(mobula_loom)))]
mod tests;
