//! The memory of this process that is an object of the store, or a copy of a part of one.
//!
//! A [`Region`] is memory that carriers borrow. While any of them lives, the region is listed by its address. So
//! memory that has been through another crate's types (an Arrow array, a `bytes::Bytes`) is still recognised when it is
//! encoded again, and passed by reference instead of being written into the store once more. That holds for copies too:
//! text is read from a copy, and a table that was read goes on as a reference to the object it came from.
//!
//! Rules: a region is listed exactly while it can be upgraded, and it leaves the list before its memory is freed, so an
//! address found in the list belongs to that region. No `Arc<Region>` is dropped while the list is locked, since
//! dropping the last one locks it.

use std::collections::BTreeMap;
use std::panic::RefUnwindSafe;
use std::sync::{Arc, Weak};

use mobula_client::{Handle, Object, ObjectId};
use mobula_runtime::SessionNumber;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use super::copied::{Copied, Form};

/// Memory of this process that holds bytes of an object.
pub(super) struct Region {
    memory: Memory,
    /// Where in the object its bytes begin.
    offset: u64,
    /// The session of its store. In another session these are ordinary bytes.
    session: SessionNumber,
    copies: Mutex<Copies>,
}

enum Memory {
    /// The object's own memory, which a faulty owner can still write.
    Mapped(Object),
    /// Memory of this process's own.
    Copied(Copied, Handle),
}

// Nothing unwinds while the list of copies is locked.
impl RefUnwindSafe for Region {}

/// The live copies of parts of a region. A part that several arrays refer to, such as a dictionary, is copied once.
#[derive(Default)]
struct Copies {
    by_part: FxHashMap<Part, Weak<Region>>,
    /// The number of listed copies at which dead ones are taken out.
    prune_at: usize,
}

/// Offset in the object, length, and form.
type Part = (u64, usize, Form);

impl Region {
    /// The region of `object`: the one that is listed, or a new one.
    pub(super) fn of(object: Object) -> Arc<Self> {
        let mut regions = REGIONS.write();
        // The memory of a listed region is pinned, so an object that starts at its address is the same one.
        let listed = regions.get(&span(&object).0).and_then(|listed| listed.region.upgrade());
        listed.unwrap_or_else(|| {
            Self::new(Memory::Mapped(object), 0, mobula_runtime::number()).list(&mut regions)
        })
    }

    /// A copy of `part`, which must lie in this region, in memory that no other process can write.
    pub(super) fn copy_of(&self, part: &[u8], form: Form) -> Arc<Self> {
        let offset = self.offset_of(part);
        let key = (offset, part.len(), form);
        let listed = self.copies.lock().by_part.get(&key).and_then(Weak::upgrade);
        listed.unwrap_or_else(|| {
            let memory = Memory::Copied(Copied::of(part, form), self.handle());
            let copy = Self::new(memory, offset, self.session).list(&mut REGIONS.write());
            self.copies.lock().insert(key, &copy);
            copy
        })
    }

    /// Whether it lies in the store of the session that this process has now.
    pub(super) fn is_current(&self) -> bool {
        self.session == mobula_runtime::number()
    }

    /// How its bytes differ from the object's.
    fn form(&self) -> Form {
        match &self.memory {
            Memory::Mapped(_) => Form::Unchanged,
            Memory::Copied(copy, _) => copy.form(),
        }
    }

    /// Whether another process could write it: a faulty owner.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.memory, Memory::Mapped(_))
    }

    fn new(memory: Memory, offset: u64, session: SessionNumber) -> Self {
        Self { memory, offset, session, copies: Mutex::default() }
    }

    fn list(self, regions: &mut BTreeMap<usize, Listed>) -> Arc<Self> {
        let (start, end) = span(self.memory());
        let region = Arc::new(self);
        if start < end {
            regions.insert(start, Listed { end, region: Arc::downgrade(&region) });
        }
        region
    }

    /// The region that all of `bytes` lies in, if they are the object's bytes, or those in `form`.
    pub(super) fn find(bytes: &[u8], form: Form) -> Option<Arc<Self>> {
        let (start, end) = span(bytes);
        if start == end {
            return None;
        }
        let region = {
            let regions = REGIONS.read();
            let (_, listed) = regions.range(..=start).next_back()?;
            if end <= listed.end { listed.region.upgrade()? } else { return None }
        };
        // Offsets that were changed stand for the object's bytes only where they are used as offsets.
        [Form::Unchanged, form].contains(&region.form()).then_some(region)
    }

    /// All of its bytes. They keep the region alive; nothing is copied.
    pub(super) fn bytes(self: &Arc<Self>) -> bytes::Bytes {
        bytes::Bytes::from_owner(Borrowed(self.clone()))
    }

    /// Where in the object `part`, which must lie in this region, begins.
    pub(super) fn offset_of(&self, part: &[u8]) -> u64 {
        let (start, end) = span(self.memory());
        let (part_start, part_end) = span(part);
        assert!(start <= part_start && part_end <= end, "the bytes lie in another region");
        self.offset + (part_start - start) as u64
    }

    /// The object's id.
    pub(super) fn id(&self) -> ObjectId {
        match &self.memory {
            Memory::Mapped(object) => object.id(),
            Memory::Copied(_, object) => object.id(),
        }
    }

    /// The handle that keeps the object alive without mapping it.
    pub(super) fn handle(&self) -> Handle {
        match &self.memory {
            Memory::Mapped(object) => object.handle(),
            Memory::Copied(_, object) => object.clone(),
        }
    }

    fn memory(&self) -> &[u8] {
        match &self.memory {
            Memory::Mapped(object) => object,
            Memory::Copied(copy, _) => copy.as_ref(),
        }
    }
}

impl Copies {
    fn insert(&mut self, part: Part, copy: &Arc<Region>) {
        if self.by_part.len() >= self.prune_at {
            self.by_part.retain(|_, copy| copy.strong_count() > 0);
            self.prune_at = (self.by_part.len() * 2).max(16);
        }
        self.by_part.insert(part, Arc::downgrade(copy));
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let (start, _) = span(self.memory());
        let mut regions = REGIONS.write();
        // Another region of the same object may have taken the place after this one's count fell to zero.
        if regions.get(&start).is_some_and(|listed| std::ptr::eq(listed.region.as_ptr(), self)) {
            regions.remove(&start);
        }
    }
}

/// By address of the first byte.
static REGIONS: RwLock<BTreeMap<usize, Listed>> = RwLock::new(BTreeMap::new());

struct Listed {
    end: usize,
    region: Weak<Region>,
}

struct Borrowed(Arc<Region>);

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        self.0.memory()
    }
}

fn span(bytes: &[u8]) -> (usize, usize) {
    let range = bytes.as_ptr_range();
    (range.start.addr(), range.end.addr())
}

/// How many regions are listed within `bytes`.
#[cfg(test)]
pub(super) fn listed_within(bytes: std::ops::Range<usize>) -> usize {
    REGIONS.read().range(bytes).count()
}
