//! Descriptor escrow: clients, too, hold the descriptors of the memory and the files of dead owners.
//!
//! A living client has the descriptors of its own memory, and hands them to the next daemon if this one is killed. Only
//! the daemon would have those of a dead owner. So it deposits a segment of a dead owner, if a client holds an object
//! in it, with all of the owner's readers: a client that may hold an object can also pass it on. Where there is no
//! reader, because only a name or another orphan holds the object, it deposits them with one client that is no reader,
//! the *escrow holder* of that owner.
//!
//! A segment in escrow does not count as mapped. Its holders close it when they are told that it is retired, but the
//! daemon does not wait for them: its bytes count as free at once, although a stopped client may still keep the memory.
//! Spill files of dead owners are in escrow with the same clients, all of them from the beginning.

use std::collections::BTreeSet;

use mobula_protocol::message::Notice;
use mobula_shm::failpoints::{Failpoint, failpoint};

use crate::daemon::registry::Registry;
use crate::memory::Attachment;

/// Deposits segments of a dead owner.
pub(crate) fn deposit_segments(registry: &mut Registry, slot: u16, segments: BTreeSet<u32>) {
    let Some(remaining) = registry.remaining_mut(slot).filter(|_| !segments.is_empty()) else { return };
    remaining.escrowed.extend(&segments);
    failpoint(Failpoint::EscrowBegun);
    for holder in registry.escrow_holders(slot) {
        send_segments(registry, holder, slot, &segments);
    }
    find_missing_holders(registry);
}

/// Deposits the spill files of a dead owner.
pub(crate) fn deposit_spill_files(registry: &mut Registry, slot: u16) {
    for holder in registry.escrow_holders(slot) {
        send_spill_files(registry, holder, slot);
    }
    find_missing_holders(registry);
}

/// Discards a spill file of a dead owner in which no object is any more, here and with its escrow holders.
pub(crate) fn discard_spill_file(registry: &mut Registry, slot: u16, file: u32) {
    let Some(owner) = registry.owners.get(&slot).map(|owner| owner.id) else { return };
    registry.spill_files.discard(slot, file);
    for holder in registry.escrow_holders(slot) {
        registry.notify(holder, &Notice::SpillFileRetired { owner, file }, Vec::new());
    }
}

/// Gives one more client what the other escrow holders of a dead owner have.
pub(crate) fn add_holder(registry: &mut Registry, client: u16, slot: u16) {
    if let Some(escrowed) = registry.remaining(slot).map(|remaining| remaining.escrowed.clone()) {
        send_segments(registry, client, slot, &escrowed);
        send_spill_files(registry, client, slot);
    }
}

/// Finds an escrow holder for every dead owner that has none.
pub(crate) fn find_missing_holders(registry: &mut Registry) {
    let Some(client) = registry.living().next() else { return };
    let is_missing = |slot: &u16| {
        let to_deposit = registry
            .remaining(*slot)
            .is_some_and(|remaining| !remaining.escrowed.is_empty() || !remaining.spill_files().is_empty());
        to_deposit && registry.escrow_holders(*slot).is_empty()
    };
    let missing: Vec<u16> = registry.owners.keys().copied().filter(is_missing).collect();
    for slot in missing {
        let Some(remaining) = registry.remaining_mut(slot) else { continue };
        remaining.escrow_holder = Some(client);
        add_holder(registry, client, slot);
    }
}

/// A client has died: owners of which it was the only escrow holder need another.
pub(crate) fn holder_died(registry: &mut Registry, client: u16) {
    for remaining in registry.owners.values_mut().filter_map(|owner| owner.remaining.as_mut()) {
        remaining.escrow_holder.take_if(|holder| *holder == client);
    }
    find_missing_holders(registry);
}

fn send_segments(registry: &mut Registry, holder: u16, slot: u16, segments: &BTreeSet<u32>) {
    let Some(owner) = registry.owners.get(&slot) else { return };
    let (id, bell) = (owner.id, owner.bell.clone());
    let Ok(control) = owner.control.to_read() else { return };
    let mut told = false;
    for number in segments {
        let Some(segment) = registry.segments.get(slot, *number) else { continue };
        let bytes = segment.bytes;
        // Without a descriptor to send there is no escrow: the object lives as long as the daemon.
        let Ok(attachment) = segment.memory.to_read() else { continue };
        if !std::mem::replace(&mut told, true) {
            let attachments = vec![control.clone(), Attachment::Bell(bell.clone())];
            registry.notify(holder, &Notice::EscrowOwner { owner: id }, attachments);
        }
        let notice = Notice::EscrowSegment { owner: id, segment: *number, bytes };
        registry.notify(holder, &notice, vec![attachment]);
    }
}

fn send_spill_files(registry: &mut Registry, holder: u16, slot: u16) {
    let Some(owner) = registry.owners.get(&slot) else { return };
    let Some(remaining) = owner.remaining.as_ref().filter(|remaining| remaining.is_taken_over()) else {
        return;
    };
    let (id, bell, files) = (owner.id, owner.bell.clone(), remaining.spill_files());
    let Ok(control) = owner.control.to_read() else { return };
    if files.is_empty() {
        return;
    }
    registry.notify(holder, &Notice::EscrowOwner { owner: id }, vec![control, Attachment::Bell(bell)]);
    for file in files {
        let Some((attachment, bytes)) = registry.spill_files.to_read(slot, file) else { continue };
        let notice = Notice::EscrowSpillFile { owner: id, file, bytes };
        registry.notify(holder, &notice, vec![attachment]);
    }
}
