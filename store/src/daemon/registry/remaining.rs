//! The remaining objects of a dead owner: which they are, the places of their bytes, and the other objects that they
//! keep.
//!
//! Pure state: the [takeover](crate::daemon::orphans::takeover) fills it in, the [sweep](crate::daemon::orphans::sweep)
//! empties it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use mobula_protocol::id::ObjectId;

use crate::memory::Memory;

/// The objects of a dead owner.
#[derive(Debug)]
pub(crate) struct RemainingObjects {
    /// Nothing is freed before this moment.
    pub(crate) grace_ends: Instant,
    /// Entries below this have been taken over; `None` once all have.
    pub(crate) next_to_take: Option<u32>,
    /// Whether the sweep has looked at every entry since the takeover: only then does it wait for the end of the grace.
    pub(crate) looked_at_all: bool,
    /// Segments whose descriptors are in escrow, because a client holds an object in them.
    pub(crate) escrowed: BTreeSet<u32>,
    /// The escrow holder that is no reader of the owner.
    pub(crate) escrow_holder: Option<u16>,
    live: Vec<LiveEntry>,
    /// Place in `live` where the sweep goes on.
    cursor: usize,
    /// Live entries by segment.
    segments: HashMap<u32, u32>,
    /// Live entries by spill file.
    files: HashMap<u32, u32>,
    /// Where the bytes of the entries lie that have any.
    homes: HashMap<u32, Home>,
    /// Entries that have been restored from files and may be evicted again, in the order in which they were restored.
    /// Some of them may be free by now.
    restored: VecDeque<u32>,
    /// The segment into which small objects are restored.
    pub(crate) shared_segment: Option<SharedSegment>,
    /// Objects that the daemon holds on behalf of an entry.
    references: HashMap<u32, Vec<ObjectId>>,
    /// How many more references are followed.
    pub(crate) references_left: usize,
}

/// An entry that is not free.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LiveEntry {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Where the bytes of an entry lie: nowhere, if it is a lost promise or an empty object; in a segment; in a file; or in
/// both, once it has been restored.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Home {
    pub(crate) segment: Option<u32>,
    pub(crate) file: Option<u32>,
}

/// A segment that small objects share, and how much of it is used.
#[derive(Debug)]
pub(crate) struct SharedSegment {
    pub(crate) number: u32,
    pub(crate) memory: Memory,
    pub(crate) bytes: u64,
    pub(crate) used: u64,
}

impl RemainingObjects {
    /// No object has been taken over yet. Nothing is freed before `grace_ends`.
    pub(crate) fn new(grace_ends: Instant, references_max: usize) -> Self {
        Self {
            grace_ends,
            next_to_take: Some(0),
            looked_at_all: false,
            escrowed: BTreeSet::new(),
            escrow_holder: None,
            live: Vec::new(),
            cursor: 0,
            segments: HashMap::new(),
            files: HashMap::new(),
            homes: HashMap::new(),
            restored: VecDeque::new(),
            shared_segment: None,
            references: HashMap::new(),
            references_left: references_max,
        }
    }

    /// Whether the whole table has been taken over.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.next_to_take.is_none()
    }

    /// Whether an entry has been taken over.
    pub(crate) fn has_taken(&self, index: u32) -> bool {
        self.next_to_take.is_none_or(|next| index < next)
    }

    // ---- live entries ----

    /// Adds an entry that is not free.
    pub(crate) fn add(&mut self, index: u32, generation: u32, home: Home) {
        self.live.push(LiveEntry { index, generation });
        if let Some(segment) = home.segment {
            self.count_segment(segment);
        }
        if let Some(file) = home.file {
            self.count_file(file);
        }
        if home.segment.is_some() || home.file.is_some() {
            self.homes.insert(index, home);
        }
    }

    /// How many entries are not free.
    pub(crate) fn count(&self) -> usize {
        self.live.len()
    }

    /// Begins the sweep at the first entry if it had come to the last.
    pub(crate) fn rewind(&mut self) {
        if self.cursor >= self.live.len() {
            self.cursor = 0;
        }
    }

    /// The entry at which the sweep is; `None` after the last.
    pub(crate) fn current(&self) -> Option<LiveEntry> {
        self.live.get(self.cursor).copied()
    }

    /// The sweep goes on to the next entry.
    pub(crate) fn advance(&mut self) {
        self.cursor += 1;
    }

    /// Drops the entry at which the sweep is; returns the segment and the file in which no object is any more.
    pub(crate) fn remove_current(&mut self) -> Home {
        let entry = self.live.swap_remove(self.cursor);
        let home = self.homes.remove(&entry.index).unwrap_or_default();
        let segment = home.segment.and_then(|segment| self.uncount_segment(segment));
        let file = home.file.and_then(|file| self.uncount_file(file));
        Home { segment, file }
    }

    // ---- references ----

    /// The objects that the daemon holds on behalf of an entry.
    pub(crate) fn references(&self, index: u32) -> &[ObjectId] {
        self.references.get(&index).map_or(&[], Vec::as_slice)
    }

    /// Notes the objects that the daemon holds on behalf of an entry.
    pub(crate) fn set_references(&mut self, index: u32, held: Vec<ObjectId>) {
        if !held.is_empty() {
            self.references.insert(index, held);
        }
    }

    /// The daemon no longer holds anything on behalf of an entry; returns what it held.
    pub(crate) fn take_references(&mut self, index: u32) -> Vec<ObjectId> {
        self.references.remove(&index).unwrap_or_default()
    }

    // ---- segments and files ----

    /// The segment in which an entry's bytes are.
    pub(crate) fn segment_of(&self, index: u32) -> Option<u32> {
        self.homes.get(&index)?.segment
    }

    /// Whether any object lies in a segment.
    pub(crate) fn uses_segment(&self, segment: u32) -> bool {
        self.segments.contains_key(&segment)
    }

    /// Whether any object is in a spill file.
    pub(crate) fn uses_file(&self, file: u32) -> bool {
        self.files.contains_key(&file)
    }

    /// The spill files in which there are objects.
    pub(crate) fn spill_files(&self) -> Vec<u32> {
        self.files.keys().copied().collect()
    }

    /// Whether an entry is in memory and has no spill record.
    pub(crate) fn is_only_in_memory(&self, index: u32) -> bool {
        self.homes.get(&index).is_some_and(|home| home.segment.is_some() && home.file.is_none())
    }

    /// The entries without a spill record by their segments, of those segments in which there are no others.
    pub(crate) fn unspilled_segments(&self) -> BTreeMap<u32, Vec<u32>> {
        let mut segments: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (index, home) in &self.homes {
            if let (Some(segment), None) = (home.segment, home.file) {
                segments.entry(segment).or_default().push(*index);
            }
        }
        segments.retain(|segment, entries| self.segments.get(segment) == Some(&(entries.len() as u32)));
        segments
    }

    /// One more object lies in a segment, or is being restored into it.
    pub(crate) fn count_segment(&mut self, segment: u32) {
        *self.segments.entry(segment).or_default() += 1;
    }

    /// One object less; returns the segment if that was the last object in it.
    pub(crate) fn uncount_segment(&mut self, segment: u32) -> Option<u32> {
        let emptied = uncount(&mut self.segments, segment)?;
        if self.shared_segment.as_ref().is_some_and(|shared| shared.number == emptied) {
            self.shared_segment = None;
        }
        Some(emptied)
    }

    /// One more object is in a file, or is being written into it.
    pub(crate) fn count_file(&mut self, file: u32) {
        *self.files.entry(file).or_default() += 1;
    }

    /// One object less; returns the file if that was the last object in it.
    pub(crate) fn uncount_file(&mut self, file: u32) -> Option<u32> {
        uncount(&mut self.files, file)
    }

    // ---- eviction and restoring ----

    /// An entry with a spill record is in a segment too, in which it is counted already.
    pub(crate) fn restored(&mut self, index: u32, segment: u32) {
        if let Some(home) = self.homes.get_mut(&index) {
            home.segment = Some(segment);
            self.restored.push_back(index);
        }
    }

    /// How many entries [`next_restored`](Self::next_restored) goes through.
    pub(crate) fn restored_count(&self) -> usize {
        self.restored.len()
    }

    /// The restored entry that was not looked at for longest.
    pub(crate) fn next_restored(&mut self) -> Option<u32> {
        loop {
            let index = self.restored.pop_front()?;
            if self.homes.get(&index).is_some_and(|home| home.segment.is_some()) {
                return Some(index);
            }
        }
    }

    /// A restored entry stays in memory for now.
    pub(crate) fn keep_restored(&mut self, index: u32) {
        self.restored.push_back(index);
    }

    /// An entry with a spill record is in memory no more; returns its segment if that was the last object in it.
    pub(crate) fn evicted(&mut self, index: u32) -> Option<u32> {
        let segment = self.homes.get_mut(&index)?.segment.take()?;
        self.uncount_segment(segment)
    }

    /// An entry has a spill record in a file and is in memory no more; returns its segment if that was the last object
    /// in it.
    pub(crate) fn evicted_into(&mut self, index: u32, file: u32) -> Option<u32> {
        let home = self.homes.get_mut(&index)?;
        home.file = Some(file);
        self.count_file(file);
        self.evicted(index)
    }
}

/// Counts one less; returns the key when that was the last.
fn uncount(counts: &mut HashMap<u32, u32>, key: u32) -> Option<u32> {
    let count = counts.get_mut(&key)?;
    *count -= 1;
    if *count > 0 {
        return None;
    }
    counts.remove(&key);
    Some(key)
}
