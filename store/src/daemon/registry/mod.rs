//! The registry: all clients, alive or dead, with their belongings, and the messages for them.
//!
//! Every other part of the daemon uses it. It knows the memory, the segments and the spill files of each owner, the
//! clients that are attached to each other, the open channels, and the objects that the daemon itself pins. It decides
//! nothing.
//!
//! # The daemon's own pins
//!
//! A name keeps its object, and an orphan keeps the objects that it refers to. For both, the daemon pins the object in
//! its own control memory ([`hold`](Registry::hold)) and counts how many reasons it has.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Reply};
use mobula_shm::bell::Bell;
use mobula_shm::directory::DirectoryWriter;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::{HELD, PinWriter};
use mobula_shm::table::{State, TableWriter};

use crate::config::Config;
use crate::core::bookkeeping::Bookkeeping;
use crate::core::channels::Channels;
use crate::core::holds::Holds;
use crate::core::segments::Segments;
use crate::core::slots::Slots;
use crate::daemon::spill::files::SpillFiles;
use crate::memory::{Attachment, Memory};

pub(crate) mod outbox;
pub(crate) mod owner;
pub(crate) mod recorders;
pub(crate) mod remaining;

use outbox::{Outbox, Outgoing};
use owner::Owner;
use recorders::Recorders;
use remaining::RemainingObjects;

/// The daemon's knowledge of its clients.
pub(crate) struct Registry {
    pub(crate) config: Config,
    /// The daemon's own control memory, in the name of slot 0: directory, pins and names.
    pub(crate) control: Memory,
    pub(crate) directory: DirectoryWriter,
    pub(crate) slots: Slots,
    /// Every owner, alive or dead, by slot.
    pub(crate) owners: BTreeMap<u16, Owner>,
    pub(crate) segments: Segments<Memory>,
    pub(crate) spill_files: SpillFiles,
    pub(crate) channels: Channels,
    /// How many reasons the daemon has for each of its pins.
    pub(crate) holds: Holds,
    pub(crate) bookkeeping: Bookkeeping,
    pub(crate) recorders: Recorders,
    outbox: Outbox,
    /// Whether something has happened that may free an orphan, since this was last asked.
    orphans_changed: bool,
    owners_forgotten: u64,
}

impl Registry {
    /// A registry without clients. `epoch` tells its owners from those of stores before it.
    pub(crate) fn new(config: Config, epoch: u64, control: Memory) -> io::Result<Self> {
        let slots = config.slots();
        Ok(Self {
            directory: DirectoryWriter::map(control.writable(), slots)?,
            control,
            slots: Slots::new(slots, epoch),
            owners: BTreeMap::new(),
            segments: Segments::new(config.capacity_bytes),
            spill_files: SpillFiles::default(),
            // Other numbers than those of the stores before.
            channels: Channels::new(epoch << 16),
            holds: Holds::default(),
            bookkeeping: Bookkeeping::default(),
            recorders: Recorders::default(),
            outbox: Outbox::default(),
            orphans_changed: false,
            owners_forgotten: 0,
            config,
        })
    }

    /// An owner that is alive, or dead and not forgotten.
    pub(crate) fn owner(&self, id: OwnerId) -> Option<&Owner> {
        self.owners.get(&id.slot()).filter(|owner| owner.id == id)
    }

    /// The slots of the living.
    pub(crate) fn living(&self) -> impl Iterator<Item = u16> {
        self.owners.iter().filter(|(_, owner)| owner.is_alive()).map(|(slot, _)| *slot)
    }

    /// The slots of the dead.
    pub(crate) fn dead(&self) -> Vec<u16> {
        self.owners.iter().filter(|(_, owner)| !owner.is_alive()).map(|(slot, _)| *slot).collect()
    }

    /// The remaining objects of a dead owner.
    pub(crate) fn remaining(&self, slot: u16) -> Option<&RemainingObjects> {
        self.owners.get(&slot)?.remaining.as_ref()
    }

    pub(crate) fn remaining_mut(&mut self, slot: u16) -> Option<&mut RemainingObjects> {
        self.owners.get_mut(&slot)?.remaining.as_mut()
    }

    // ---- messages ----

    pub(crate) fn reply(
        &mut self,
        client: u16,
        correlation: u64,
        reply: &Reply,
        attachments: Vec<Attachment>,
    ) {
        self.outbox.reply(client, correlation, reply, attachments);
    }

    pub(crate) fn notify(&mut self, client: u16, notice: &Notice, attachments: Vec<Attachment>) {
        self.outbox.notify(client, notice, attachments);
    }

    /// The messages for clients, in order.
    pub(crate) fn take_outbox(&mut self) -> Vec<Outgoing> {
        self.outbox.take()
    }

    /// Makes messages the next to be taken.
    #[cfg(test)]
    pub(crate) fn put_back(&mut self, messages: Vec<Outgoing>) {
        self.outbox.put_back(messages);
    }

    // ---- coming and going ----

    /// Makes everything that a new client needs; returns the descriptors of its `Welcome`.
    pub(crate) fn equip(&mut self, id: OwnerId, pid: u32, label: String) -> io::Result<Vec<Attachment>> {
        let (slot, entries) = (id.slot(), self.config.table_entries_initial);
        let control = Memory::control(self.config.slots(), entries)?;
        control.allocate_pins(slot, 0..entries)?;
        self.control.allocate_pins(slot, 0..entries)?;
        let bell = Arc::new(Bell::create()?);
        let attachments = vec![control.to_write(), Attachment::Bell(bell.clone()), self.control.to_read()?];
        // Mapped now, so that the takeover of the client's objects needs nothing that the machine could refuse.
        let view = TableWriter::map(control.writable())?;
        let daemon_pins = PinWriter::map(self.control.writable(), slot)?;
        let owner = Owner::new(id, pid, label, entries, control, view, bell, daemon_pins);
        self.owners.insert(slot, owner);
        Ok(attachments)
    }

    /// Removes a dead owner without objects. Its slot stays taken until the last reader has detached.
    pub(crate) fn forget(&mut self, slot: u16) -> Option<OwnerId> {
        self.spill_files.discard_all_but(slot, |_| false);
        let owner = self.owners.remove(&slot)?;
        self.owners_forgotten += 1;
        self.holds.forget(owner.id);
        self.directory.clear_owner(slot);
        let id = owner.id;
        self.recorders.keep(owner, self.config.recorders_max);
        failpoint(Failpoint::SweepForgotten);
        Some(id)
    }

    /// Gives back what was allocated for the last owner of a slot that is vacant now.
    pub(crate) fn vacate(&mut self, slot: u16) {
        self.control.free_pins(slot);
        // Only clients that were attached have pins there. When thousands end at once, none of them walks through all
        // others.
        let readers = self.slots.take_readers_ever(slot);
        for reader in readers.iter().filter_map(|reader| self.owners.get(reader)) {
            reader.control.free_pins(slot);
        }
        self.segments.vacate(slot);
    }

    // ---- segments ----

    /// Retires a segment in which no object lies any more, and tells the clients that have it mapped or hold it in
    /// escrow.
    /// `false` when there is no such segment.
    pub(crate) fn retire(&mut self, owner: u16, number: u32) -> bool {
        let Some(mappers) = self.segments.release(owner, number) else { return false };
        failpoint(Failpoint::RetireReleased);
        let in_escrow = self.remaining_mut(owner).is_some_and(|remaining| remaining.escrowed.remove(&number));
        let holders = if in_escrow { self.escrow_holders(owner) } else { Vec::new() };
        let retired = Notice::SegmentRetired { owner: self.owners[&owner].id, segment: number };
        let told: BTreeSet<u16> = mappers.into_iter().chain(holders).collect();
        for client in told {
            self.notify(client, &retired, Vec::new());
        }
        true
    }

    /// The clients that hold a dead owner's descriptors in escrow: its readers, and the one that is no reader.
    pub(crate) fn escrow_holders(&self, slot: u16) -> Vec<u16> {
        let mut holders = self.slots.readers(slot);
        let holder = self.remaining(slot).and_then(|remaining| remaining.escrow_holder);
        holders.extend(holder.filter(|holder| !holders.contains(holder)));
        holders
    }

    /// Asks the kernel how many pages a segment has.
    pub(crate) fn count_pages(&mut self, owner: u16, number: u32) {
        let Some(segment) = self.segments.get(owner, number) else { return };
        match segment.memory.allocated_bytes() {
            Ok(allocated) => self.segments.count_anew(owner, number, allocated),
            Err(error) => tracing::warn!(owner, number, %error, "cannot count the pages of a segment"),
        }
    }

    /// Grows whenever the bytes that count as used become fewer. While it stays the same, a request that did not fit
    /// still does not fit.
    pub(crate) fn relief_count(&self) -> u64 {
        self.segments.lessened() + self.owners_forgotten
    }

    // ---- the daemon's own pins ----

    /// Whether an object can be read now, or is promised.
    pub(crate) fn exists(&self, object: ObjectId) -> bool {
        let owner = self.owner(object.owner());
        let state = owner.and_then(|owner| owner.state_of(object.index(), object.generation()));
        // `Dying`: its owner is looking for pins. If it has looked already, then no client held the object when the
        // daemon pinned it, and the next lookup notices that the object is gone. Else it finds the daemon's pin and
        // puts `Sealed` back.
        matches!(state, Some(State::Sealed | State::Promised | State::Spilled | State::Dying))
    }

    /// Pins an object in the daemon's own name: a reader's side of the handshake. `false` when it does not exist.
    pub(crate) fn hold(&mut self, object: ObjectId) -> bool {
        let (id, index) = (object.owner(), object.index());
        let Some(owner) = self.owners.get(&id.slot()).filter(|owner| owner.id == id) else { return false };
        if index >= owner.entries {
            return false;
        }
        if self.holds.add(id, index) {
            owner.daemon_pins.set(index, HELD);
            failpoint(Failpoint::HoldPinned);
        }
        let exists = self.exists(object);
        if !exists {
            self.unpin(object);
        }
        exists
    }

    /// Takes back one [`hold`](Self::hold).
    pub(crate) fn let_go(&mut self, object: ObjectId) {
        self.unpin(object);
        if self.owner(object.owner()).is_some_and(|owner| !owner.is_alive()) {
            self.orphans_changed = true;
        }
    }

    fn unpin(&mut self, object: ObjectId) {
        let (id, index) = (object.owner(), object.index());
        if self.holds.remove(id, index)
            && let Some(owner) = self.owner(id)
        {
            owner.daemon_pins.clear(index);
            failpoint(Failpoint::HoldCleared);
        }
    }

    /// Something has happened that may free an orphan.
    pub(crate) fn note_orphans_changed(&mut self) {
        self.orphans_changed = true;
    }

    /// Whether something has happened that may free an orphan, since the last call.
    pub(crate) fn take_orphans_changed(&mut self) -> bool {
        std::mem::take(&mut self.orphans_changed)
    }
}
