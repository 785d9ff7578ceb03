//! Holds: how many reasons the daemon has to pin an object, one for each name and for each reference of an orphan.
//!
//! The daemon has one pin word for an entry, like every client. This module counts the reasons that share the word. The
//! count belongs to the entry, not to a generation. A hold that comes too late for its object keeps the entry's next
//! object for a moment, until the caller notices and lets go.

use std::collections::HashMap;

use mobula_protocol::id::OwnerId;

/// The counts of all entries that the daemon holds.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    counts: HashMap<(OwnerId, u32), u32>,
}

impl Holds {
    /// Counts one more; `true` for the first, which sets the pin.
    pub(crate) fn add(&mut self, owner: OwnerId, index: u32) -> bool {
        let count = self.counts.entry((owner, index)).or_default();
        *count += 1;
        *count == 1
    }

    /// Counts one less; `true` for the last, which clears the pin. Holds on a forgotten owner are gone already.
    pub(crate) fn remove(&mut self, owner: OwnerId, index: u32) -> bool {
        let Some(count) = self.counts.get_mut(&(owner, index)) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.counts.remove(&(owner, index));
        }
        last
    }

    /// Whether an entry is held.
    pub(crate) fn contains(&self, owner: OwnerId, index: u32) -> bool {
        self.counts.contains_key(&(owner, index))
    }

    /// How often an entry is held.
    pub(crate) fn count(&self, owner: OwnerId, index: u32) -> u32 {
        self.counts.get(&(owner, index)).copied().unwrap_or(0)
    }

    /// Drops every hold on an owner that is forgotten.
    pub(crate) fn forget(&mut self, owner: OwnerId) {
        self.counts.retain(|(held, _), _| *held != owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_and_the_last_touch_the_pin() {
        let (mut holds, owner) = (Holds::default(), OwnerId::new(1, 1));
        assert!(holds.add(owner, 5));
        assert!(!holds.add(owner, 5));
        assert_eq!((holds.count(owner, 5), holds.count(owner, 4)), (2, 0));
        assert!(!holds.remove(owner, 5));
        assert!(holds.contains(owner, 5));
        assert!(holds.remove(owner, 5));
        assert!(!holds.remove(owner, 5), "more let go than held");
        holds.add(owner, 6);
        holds.forget(owner);
        assert!(!holds.contains(owner, 6));
    }
}
