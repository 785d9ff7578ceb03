//! Who keeps the memory of the dead, beside the daemon.
//!
//! A living client has its own memory, and hands it to the next daemon if this one is killed. What the dead have left,
//! only the daemon would have. So it entrusts every segment of a dead owner in which somebody holds an object to all the
//! owner's readers: who may hold an object can also hand it on. Where there is no reader, because only a name or
//! another dead one's object holds it, it entrusts one client that has nothing to do with it, the *custodian*.
//!
//! What is entrusted does not count as mapped. A client that is told that a segment is retired closes it, but nobody
//! waits for one that does not get to it: its bytes count as free, although a stopped client keeps them from the machine.
//! Spill files of the dead are kept by the same clients, all of them from the beginning.

use std::collections::BTreeSet;

use mobula_protocol::message::Notice;
use mobula_shm::failpoints::{Failpoint, failpoint};

use crate::daemon::Daemon;
use crate::daemon::orphans::takeover::Adoption;
use crate::memory::Parcel;

impl Daemon {
    /// Has segments of a dead owner kept by whoever keeps the others.
    pub(crate) fn entrust(&mut self, slot: u16, segments: BTreeSet<u32>) {
        let Some(adoption) = self.adoption_of(slot).filter(|_| !segments.is_empty()) else { return };
        adoption.entrusted.extend(&segments);
        failpoint(Failpoint::EscrowBegun);
        for keeper in self.keepers(slot) {
            self.keep(keeper, slot, &segments);
        }
        self.entrust_the_unkept();
    }

    /// Has the spill files of a dead owner kept.
    pub(crate) fn entrust_spill_files(&mut self, slot: u16) {
        for keeper in self.keepers(slot) {
            self.keep_spill_files(keeper, slot);
        }
        self.entrust_the_unkept();
    }

    /// No object of a dead owner's is in a spill file any more.
    pub(crate) fn discard_adopted_file(&mut self, slot: u16, file: u32) {
        let Some(owner) = self.owners.get(&slot).map(|owner| owner.id) else { return };
        self.spilling.discard(slot, file);
        for keeper in self.keepers(slot) {
            self.notify(keeper, &Notice::SpillFileRetired { owner, file }, Vec::new());
        }
    }

    /// Entrusts a new reader with what the others have.
    pub(crate) fn entrust_reader(&mut self, reader: u16, slot: u16) {
        if let Some(entrusted) = self.adoption_of(slot).map(|adoption| adoption.entrusted.clone()) {
            self.keep(reader, slot, &entrusted);
            self.keep_spill_files(reader, slot);
        }
    }

    /// Finds a custodian for what nobody keeps.
    pub(crate) fn entrust_the_unkept(&mut self) {
        let Some(client) = self.owners.iter().find(|(_, owner)| owner.is_alive()).map(|(slot, _)| *slot)
        else {
            return;
        };
        let unkept = self.owners.iter().filter(|(slot, owner)| {
            let entrusted = owner
                .adoption
                .as_ref()
                .is_some_and(|adoption| !adoption.entrusted.is_empty() || !adoption.spill_files().is_empty());
            entrusted && self.keepers(**slot).is_empty()
        });
        let unkept: Vec<u16> = unkept.map(|(slot, _)| *slot).collect();
        for slot in unkept {
            let Some(adoption) = self.adoption_of(slot) else { continue };
            adoption.custodian = Some(client);
            self.entrust_reader(client, slot);
        }
    }

    /// A client that keeps something has died, and what only it kept needs another.
    pub(crate) fn lose_custodian(&mut self, client: u16) {
        for adoption in self.owners.values_mut().filter_map(|owner| owner.adoption.as_mut()) {
            adoption.custodian.take_if(|custodian| *custodian == client);
        }
        self.entrust_the_unkept();
    }

    /// A segment need not be kept any more; returns who has kept it.
    pub(crate) fn end_custody(&mut self, slot: u16, number: u32) -> Vec<u16> {
        let entrusted = self.adoption_of(slot).is_some_and(|adoption| adoption.entrusted.remove(&number));
        if entrusted { self.keepers(slot) } else { Vec::new() }
    }

    /// Who keeps what a dead owner has left: its readers, and its custodian.
    pub(crate) fn keepers(&self, slot: u16) -> Vec<u16> {
        let mut keepers = self.slots.readers(slot);
        let adoption = self.owners.get(&slot).and_then(|owner| owner.adoption.as_ref());
        let custodian = adoption.and_then(|adoption| adoption.custodian);
        keepers.extend(custodian.filter(|custodian| !keepers.contains(custodian)));
        keepers
    }

    fn adoption_of(&mut self, slot: u16) -> Option<&mut Adoption> {
        self.owners.get_mut(&slot)?.adoption.as_mut()
    }

    fn keep_spill_files(&mut self, reader: u16, slot: u16) {
        let Some(owner) = self.owners.get(&slot) else { return };
        let Some(adoption) = owner.adoption.as_ref().filter(|adoption| adoption.is_taken_over()) else {
            return;
        };
        let (id, bell, files) = (owner.id, owner.bell.clone(), adoption.spill_files());
        let Ok(control) = owner.control.to_read() else { return };
        if files.is_empty() {
            return;
        }
        self.notify(reader, &Notice::EscrowOwner { owner: id }, vec![control, Parcel::Bell(bell)]);
        for file in files {
            let Some((parcel, bytes)) = self.spilling.to_keep(slot, file) else { continue };
            self.notify(reader, &Notice::EscrowSpillFile { owner: id, file, bytes }, vec![parcel]);
        }
    }

    fn keep(&mut self, reader: u16, slot: u16, segments: &BTreeSet<u32>) {
        let Some(owner) = self.owners.get(&slot) else { return };
        let (id, bell) = (owner.id, owner.bell.clone());
        let Ok(control) = owner.control.to_read() else { return };
        let mut told = false;
        for number in segments {
            let Some(segment) = self.segments.get(slot, *number) else { continue };
            let bytes = segment.bytes;
            // Without a descriptor to send it is as if there were no custody: the object lives as long as the daemon.
            let Ok(parcel) = segment.memory.to_read() else { continue };
            if !std::mem::replace(&mut told, true) {
                let parcels = vec![control.clone(), Parcel::Bell(bell.clone())];
                self.notify(reader, &Notice::EscrowOwner { owner: id }, parcels);
            }
            let notice = Notice::EscrowSegment { owner: id, segment: *number, bytes };
            self.notify(reader, &notice, vec![parcel]);
        }
    }
}
