//! Client slots: the slot of each client, and the clients that are attached to each other.
//!
//! A slot is an index into the directory and into the pins of all clients, so it outlives its client:
//!
//! | life | means | left when |
//! |---|---|---|
//! | `Vacant` | no owner | a client comes: `Living` |
//! | `Living` | a connected client's | it dies: `Dead` |
//! | `Dead` | a dead client's of which objects may remain | none remains: `Forgotten` |
//! | `Forgotten` | readers may still have its table mapped | the last reader detaches or dies: `Vacant` |
//!
//! Vacant slots are taken round-robin, and each client gets an epoch of its own, so that a stale id is noticed.

use std::collections::BTreeSet;

use mobula_protocol::id::OwnerId;

/// The life of a slot; the module's documentation has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Vacant,
    Living,
    Dead,
    Forgotten,
}

#[derive(Debug)]
struct Slot {
    life: Life,
    owner: OwnerId,
    /// Clients that may pin this one's objects.
    readers: BTreeSet<u16>,
    /// Clients that could pin them at any time.
    readers_ever: BTreeSet<u16>,
    /// Clients whose objects this one may pin.
    attached: BTreeSet<u16>,
}

/// All slots. Number 0 is the daemon's own and never given to a client.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    last: usize,
    epoch: u64,
}

impl Slots {
    /// `count` slots; epochs are counted from `epoch` on.
    pub(crate) fn new(count: u32, epoch: u64) -> Self {
        let vacant = || Slot {
            life: Life::Vacant,
            owner: OwnerId::from_bits(0),
            readers: BTreeSet::new(),
            readers_ever: BTreeSet::new(),
            attached: BTreeSet::new(),
        };
        Self { slots: (0..count).map(|_| vacant()).collect(), last: 0, epoch }
    }

    /// Gives a client the next vacant slot; `None` when all are taken.
    pub(crate) fn open(&mut self) -> Option<OwnerId> {
        let clients = self.slots.len() - 1;
        let slot = (0..clients)
            .map(|step| 1 + (self.last + step) % clients)
            .find(|slot| self.slots[*slot].life == Life::Vacant)?;
        self.last = slot;
        let mut owner = OwnerId::new(slot as u16, self.epoch);
        while owner.epoch() == 0 {
            self.epoch += 1;
            owner = OwnerId::new(slot as u16, self.epoch);
        }
        self.epoch = self.epoch.wrapping_add(1);
        self.slots[slot].life = Life::Living;
        self.slots[slot].owner = owner;
        Some(owner)
    }

    /// Puts an owner of another store into its slot; `false` when the slot is taken, or there is no such slot.
    pub(crate) fn resume(&mut self, owner: OwnerId, life: Life) -> bool {
        let Some(slot) = self.slots.get_mut(usize::from(owner.slot())) else { return false };
        if owner.slot() == 0 || slot.life != Life::Vacant {
            return false;
        }
        slot.life = life;
        slot.owner = owner;
        true
    }

    /// The life of an owner; `Vacant` for one that this store does not know.
    pub(crate) fn life(&self, owner: OwnerId) -> Life {
        match self.slots.get(usize::from(owner.slot())) {
            Some(slot) if slot.owner == owner => slot.life,
            _ => Life::Vacant,
        }
    }

    /// Lets `reader` pin the objects of `owner`; `false` when it could already.
    pub(crate) fn attach(&mut self, reader: u16, owner: u16) -> bool {
        self.slots[usize::from(reader)].attached.insert(owner);
        self.slots[usize::from(owner)].readers_ever.insert(reader);
        self.slots[usize::from(owner)].readers.insert(reader)
    }

    /// Whether `reader` may pin the objects of `owner`.
    pub(crate) fn is_attached(&self, reader: u16, owner: u16) -> bool {
        self.slots[usize::from(owner)].readers.contains(&reader)
    }

    /// Ends what `attach` began; `true` when that made the owner's slot vacant.
    pub(crate) fn detach(&mut self, reader: u16, owner: u16) -> bool {
        self.slots[usize::from(reader)].attached.remove(&owner);
        self.slots[usize::from(owner)].readers.remove(&reader) && self.vacate(owner)
    }

    /// A living client has died. It stays attached to other owners until it is [detached](Self::detach) from each.
    pub(crate) fn die(&mut self, owner: u16) {
        let slot = &mut self.slots[usize::from(owner)];
        assert_eq!(slot.life, Life::Living, "died twice");
        slot.life = Life::Dead;
    }

    /// No object of a dead client remains; `true` when that made its slot vacant.
    pub(crate) fn forget(&mut self, owner: u16) -> bool {
        let slot = &mut self.slots[usize::from(owner)];
        assert_eq!(slot.life, Life::Dead, "only the dead are forgotten");
        assert!(slot.attached.is_empty(), "forgotten while it counts as a reader");
        slot.life = Life::Forgotten;
        self.vacate(owner)
    }

    /// Clients that may pin objects of `owner`.
    pub(crate) fn readers(&self, owner: u16) -> Vec<u16> {
        self.slots[usize::from(owner)].readers.iter().copied().collect()
    }

    /// Clients that could pin the objects of the last owner of a slot that is now vacant.
    pub(crate) fn take_readers_ever(&mut self, owner: u16) -> BTreeSet<u16> {
        std::mem::take(&mut self.slots[usize::from(owner)].readers_ever)
    }

    /// How many clients may pin objects of `owner`.
    pub(crate) fn reader_count(&self, owner: u16) -> usize {
        self.slots[usize::from(owner)].readers.len()
    }

    /// How many owners' objects `reader` may pin.
    pub(crate) fn attached_count(&self, reader: u16) -> usize {
        self.slots[usize::from(reader)].attached.len()
    }

    /// Owners whose objects `reader` may pin.
    pub(crate) fn attached(&self, reader: u16) -> Vec<u16> {
        self.slots[usize::from(reader)].attached.iter().copied().collect()
    }

    fn vacate(&mut self, owner: u16) -> bool {
        let slot = &mut self.slots[usize::from(owner)];
        let vacant = slot.life == Life::Forgotten && slot.readers.is_empty();
        if vacant {
            slot.life = Life::Vacant;
        }
        vacant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_only_when_forgotten_by_the_store_and_by_every_reader() {
        let mut slots = Slots::new(3, 7);
        let (a, b) = (slots.open().unwrap(), slots.open().unwrap());
        assert_eq!((a.slot(), b.slot()), (1, 2));
        assert_eq!(slots.open(), None);
        assert!(slots.attach(b.slot(), a.slot()));
        assert!(!slots.attach(b.slot(), a.slot()), "attached twice");
        slots.die(a.slot());
        assert_eq!((slots.life(a), slots.open()), (Life::Dead, None));
        assert!(!slots.forget(a.slot()));
        assert_eq!((slots.life(a), slots.open()), (Life::Forgotten, None));
        assert!(slots.detach(b.slot(), a.slot()));
        assert_eq!(slots.take_readers_ever(a.slot()), BTreeSet::from([b.slot()]));
        let c = slots.open().unwrap();
        assert_eq!(c.slot(), a.slot());
        assert_ne!(c.epoch(), a.epoch());
        assert_eq!((slots.life(a), slots.life(c)), (Life::Vacant, Life::Living));
    }

    #[test]
    fn slots_go_round_and_epochs_are_never_zero() {
        let mut slots = Slots::new(4, (1 << 48) - 2);
        let mut seen = Vec::new();
        for _ in 0..6 {
            let owner = slots.open().unwrap();
            assert_ne!(owner.epoch(), 0);
            seen.push(owner.slot());
            slots.die(owner.slot());
            assert!(slots.forget(owner.slot()));
        }
        assert_eq!(seen, [1, 2, 3, 1, 2, 3]);
    }
}
