//! Attaching to an owner, mapping its segments, and the end of both.

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Notice, Refusal, Reply};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::PIN_BYTES;

use crate::core::slots::Life;
use crate::daemon::answer::{Answer, Outcome, bad_request, limit_reached, no_memory};
use crate::daemon::client::quota;
use crate::daemon::orphans::escrow;
use crate::daemon::registry::Registry;
use crate::memory::Attachment;

/// Lets a client pin the objects of an owner.
///
/// The handshake of pins depends on this order: memory for the pins, then the count in the directory, then the notice
/// to the owner, and only then the reply to the reader. The reader pins nothing before the reply.
pub(crate) fn attach(registry: &mut Registry, reader: u16, owner: OwnerId) -> Outcome {
    let slot = owner.slot();
    let target = registry.owner(owner).ok_or(Refusal::NoSuchOwner { owner })?;
    if slot == reader {
        return Err(bad_request("Attach to oneself"));
    }
    let (dead, entries) = (!target.is_alive(), target.entries);
    let refuse = |error| no_memory(u64::from(entries) * PIN_BYTES, &error);
    let attachments = vec![target.control.to_read().map_err(refuse)?, Attachment::Bell(target.bell.clone())];
    if !registry.slots.is_attached(reader, slot) {
        let max = registry.config.attached_client_max;
        if registry.slots.attached_count(reader) >= max {
            return Err(limit_reached("attached_client_max", max as u64));
        }
        quota::check_bookkeeping(registry, u64::from(entries) * PIN_BYTES)?;
        let client = &registry.owners[&reader];
        let control = client.control.clone();
        let joined = Notice::ReaderJoined { reader: client.id };
        let pins = control.allocate_pins(slot, 0..entries).and_then(|()| control.to_read());
        let pins = pins.inspect_err(|_| control.free_pins(slot)).map_err(refuse)?;
        failpoint(Failpoint::AttachAllocated);
        let for_owner = vec![pins, Attachment::Bell(client.bell.clone())];
        registry.slots.attach(reader, slot);
        if let Some(target) = registry.owners.get_mut(&slot) {
            target.add_reader(reader, control);
        }
        registry.directory.count_reader(slot);
        failpoint(Failpoint::AttachCounted);
        if dead {
            escrow::add_holder(registry, reader, slot);
        } else {
            registry.notify(slot, &joined, for_owner);
        }
    }
    Ok(Answer::Now(Reply::Attached { dead }, attachments))
}

/// Tells an owner once more of a reader whose descriptors it could not take up. The reader is not counted again.
pub(crate) fn repeat_reader(registry: &mut Registry, owner: u16, reader: OwnerId) -> Outcome {
    let known = registry.owner(reader);
    if let Some(known) = known.filter(|_| registry.slots.is_attached(reader.slot(), owner)) {
        let pins = known.control.to_read().map_err(|error| no_memory(0, &error))?;
        let attachments = vec![pins, Attachment::Bell(known.bell.clone())];
        registry.notify(owner, &Notice::ReaderJoined { reader }, attachments);
    }
    Answer::done()
}

/// A client has no pins and no mappings of an owner any more.
pub(crate) fn detach(registry: &mut Registry, reader: u16, owner: OwnerId) -> Outcome {
    // Life, not `owners`: the last reader that detaches from a forgotten owner makes its slot vacant.
    if registry.slots.life(owner) != Life::Vacant {
        end_attachment(registry, reader, owner.slot());
    }
    Answer::done()
}

/// Ends what [`attach`] began, for a client that asked for it or is dead.
pub(crate) fn end_attachment(registry: &mut Registry, reader: u16, owner: u16) {
    if !registry.slots.is_attached(reader, owner) {
        return;
    }
    registry.segments.unmap_owner(reader, owner);
    let gone = Notice::ReaderGone { reader: registry.owners[&reader].id };
    if let Some(target) = registry.owners.get_mut(&owner) {
        target.remove_reader(reader);
        failpoint(Failpoint::DetachUnpinned);
        if target.is_alive() {
            registry.notify(owner, &gone, Vec::new());
        } else {
            registry.note_orphans_changed();
        }
    }
    if registry.slots.detach(reader, owner) {
        registry.vacate(owner);
    }
    escrow::find_missing_holders(registry);
}

/// Lets a client read a segment of an owner to which it is attached.
pub(crate) fn map_segment(registry: &mut Registry, reader: u16, owner: OwnerId, number: u32) -> Outcome {
    let slot = owner.slot();
    let known = matches!(registry.slots.life(owner), Life::Living | Life::Dead);
    if !known || !registry.slots.is_attached(reader, slot) {
        return Err(Refusal::NoSuchOwner { owner });
    }
    let no_such_segment = Refusal::NoSuchSegment { owner, segment: number };
    let segment = registry.segments.get(slot, number).ok_or(no_such_segment)?;
    let bytes = segment.bytes;
    let attachment = segment.memory.to_read().map_err(|error| no_memory(bytes, &error))?;
    registry.segments.map(reader, slot, number);
    Ok(Answer::Now(Reply::SegmentMapped { bytes }, vec![attachment]))
}

/// A client no longer has a segment mapped.
pub(crate) fn unmap_segment(registry: &mut Registry, reader: u16, owner: OwnerId, number: u32) -> Outcome {
    if registry.slots.life(owner) != Life::Vacant {
        registry.segments.unmap(reader, owner.slot(), number);
    }
    Answer::done()
}
