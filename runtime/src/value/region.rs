//! Which memory of this process is an object of the store.
//!
//! A [`Region`] is an object whose bytes carriers lend out. While any of them lives, the region is listed by its
//! address, so that memory which has been through somebody else's types (an Arrow array, a `bytes::Bytes`) is still
//! recognised when it is encoded again, and passed by reference instead of being copied.
//!
//! Rules: a region is listed exactly while it can be upgraded, and it leaves the list before its object lets the
//! memory go, so an address found in the list is that object's. No `Arc<Region>` is dropped while the list is locked,
//! since dropping the last one locks it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use mobula_client::{Handle, Object, ObjectId};
use parking_lot::RwLock;

/// An object of the store whose memory is lent to carriers.
pub(super) struct Region {
    object: Object,
}

impl Region {
    /// The region of `object`: the one that is listed, or a new one.
    pub(super) fn of(object: Object) -> Arc<Self> {
        let (start, end) = span(&object);
        let mut regions = REGIONS.write();
        // The memory of a listed region is pinned, so what starts at its address is the same object.
        if let Some(region) = regions.get(&start).and_then(|listed| listed.region.upgrade()) {
            return region;
        }
        let region = Arc::new(Self { object });
        if start < end {
            regions.insert(start, Listed { end, region: Arc::downgrade(&region) });
        }
        region
    }

    /// The region that all of `bytes` lies in.
    pub(super) fn find(bytes: &[u8]) -> Option<Arc<Self>> {
        let (start, end) = span(bytes);
        if start == end {
            return None;
        }
        let regions = REGIONS.read();
        let (_, listed) = regions.range(..=start).next_back()?;
        if end <= listed.end { listed.region.upgrade() } else { None }
    }

    /// All of the object's bytes. They keep it mapped; nothing is copied.
    pub(super) fn bytes(self: &Arc<Self>) -> bytes::Bytes {
        bytes::Bytes::from_owner(Lent(self.clone()))
    }

    /// Where `part`, which must lie in this region, begins.
    pub(super) fn offset_of(&self, part: &[u8]) -> u64 {
        let (start, end) = span(&self.object);
        let (part_start, part_end) = span(part);
        assert!(start <= part_start && part_end <= end, "the bytes lie in another region");
        (part_start - start) as u64
    }

    /// The object's id.
    pub(super) fn id(&self) -> ObjectId {
        self.object.id()
    }

    /// What keeps the object alive without mapping it.
    pub(super) fn handle(&self) -> Handle {
        self.object.handle()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let (start, _) = span(&self.object);
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

struct Lent(Arc<Region>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0.object
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
