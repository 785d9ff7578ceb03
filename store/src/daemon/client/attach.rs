//! Who may see whose memory: attaching to an owner, mapping its segments, and the end of both.

use std::time::Instant;

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Notice, Refusal, Reply};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::PIN_BYTES;

use crate::core::slots::Life;
use crate::daemon::{Answer, Daemon, Outcome, bad_request, limit_reached};
use crate::memory::{Parcel, no_memory};

impl Daemon {
    /// Lets a client pin the objects of an owner.
    ///
    /// The order is what the handshake of pins stands on: memory for the pins, then the count in the directory, then
    /// the owner is told, and only then the reader, who pins nothing before.
    pub(crate) fn attach(&mut self, reader: u16, owner: OwnerId) -> Outcome {
        let slot = owner.slot();
        let Some(target) = self.owners.get(&slot).filter(|target| target.id == owner) else {
            return Err(Refusal::NoSuchOwner { owner });
        };
        if slot == reader {
            return Err(bad_request("Attach to oneself"));
        }
        let (dead, entries) = (!target.is_alive(), target.entries);
        let refuse = |error| no_memory(u64::from(entries) * PIN_BYTES, &error);
        let parcels = vec![target.control.to_read().map_err(refuse)?, Parcel::Bell(target.bell.clone())];
        if !self.slots.is_attached(reader, slot) {
            if self.slots.attached_count(reader) >= self.config.attached_client_max {
                let max = self.config.attached_client_max as u64;
                return Err(limit_reached("attached_client_max", max));
            }
            self.check_bookkeeping(u64::from(entries) * PIN_BYTES)?;
            let client = &self.owners[&reader];
            let control = client.control.clone();
            let joined = Notice::ReaderJoined { reader: client.id };
            let pins = control.allocate_pins(slot, 0..entries).and_then(|()| control.to_read());
            let pins = pins.inspect_err(|_| control.free_pins(slot)).map_err(refuse)?;
            failpoint(Failpoint::AttachAllocated);
            let introduction = vec![pins, Parcel::Bell(client.bell.clone())];
            self.slots.attach(reader, slot);
            if let Some(target) = self.owners.get_mut(&slot) {
                target.add_reader(reader, control);
            }
            self.directory_writer.count_reader(slot);
            failpoint(Failpoint::AttachCounted);
            if dead {
                self.entrust_reader(reader, slot);
            } else {
                self.notify(slot, &joined, introduction);
            }
        }
        Ok(Answer::Now(Reply::Attached { dead }, parcels))
    }

    /// Tells an owner once more of a reader that it knows by name only. It is no new one, so nothing is counted.
    pub(crate) fn introduce(&mut self, owner: u16, reader: OwnerId) -> Outcome {
        let known = self.owners.get(&reader.slot()).filter(|known| known.id == reader);
        if let Some(known) = known.filter(|_| self.slots.is_attached(reader.slot(), owner)) {
            let pins = known.control.to_read().map_err(|error| no_memory(0, &error))?;
            let introduction = vec![pins, Parcel::Bell(known.bell.clone())];
            self.notify(owner, &Notice::ReaderJoined { reader }, introduction);
        }
        Answer::done()
    }

    /// A client keeps nothing of an owner any more.
    pub(crate) fn detach(&mut self, reader: u16, owner: OwnerId, now: Instant) -> Outcome {
        // Life, not `owners`: the last to leave a forgotten owner makes its slot vacant.
        if self.slots.life(owner) != Life::Vacant {
            self.part(reader, owner.slot(), now);
        }
        Answer::done()
    }

    /// Ends what `attach` began, for a client that asked for it or is dead.
    pub(crate) fn part(&mut self, reader: u16, owner: u16, now: Instant) {
        if !self.slots.is_attached(reader, owner) {
            return;
        }
        self.segments.unmap_owner(reader, owner);
        let gone = Notice::ReaderGone { reader: self.owners[&reader].id };
        if let Some(target) = self.owners.get_mut(&owner) {
            target.remove_reader(reader);
            failpoint(Failpoint::DetachUnpinned);
            if target.is_alive() {
                self.notify(owner, &gone, Vec::new());
            } else {
                self.sweep.run_soon(now);
            }
        }
        if self.slots.detach(reader, owner) {
            self.vacate(owner);
        }
        self.entrust_the_unkept();
    }

    /// Lets a client read a segment of an owner that it is attached to.
    pub(crate) fn map_segment(&mut self, reader: u16, owner: OwnerId, number: u32) -> Outcome {
        let slot = owner.slot();
        let known = matches!(self.slots.life(owner), Life::Living | Life::Adopted);
        if !known || !self.slots.is_attached(reader, slot) {
            return Err(Refusal::NoSuchOwner { owner });
        }
        let no_such_segment = Refusal::NoSuchSegment { owner, segment: number };
        let segment = self.segments.get(slot, number).ok_or(no_such_segment)?;
        let bytes = segment.bytes;
        let parcel = segment.memory.to_read().map_err(|error| no_memory(bytes, &error))?;
        self.segments.map(reader, slot, number);
        Ok(Answer::Now(Reply::SegmentMapped { bytes }, vec![parcel]))
    }

    /// A client no longer has a segment mapped.
    pub(crate) fn unmap_segment(&mut self, reader: u16, owner: OwnerId, number: u32) -> Outcome {
        if self.slots.life(owner) != Life::Vacant {
            self.segments.unmap(reader, owner.slot(), number);
        }
        Answer::done()
    }
}
