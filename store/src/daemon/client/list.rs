//! Listings, for `status` and `list`: pages of names, objects and clients, and totals.
//!
//! Objects and pins are counted from their owners' tables and their holders' pins. One page looks at a bounded number
//! of entries, so it may be empty although more pages follow. Nothing is locked meanwhile: a listing is no snapshot.

use std::collections::HashMap;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::{
    ClientInfo, HolderInfo, LocationInfo, NameInfo, ObjectInfo, ReferenceInfo, Refusal, Reply, SegmentInfo,
    Totals,
};
use mobula_protocol::socket::MESSAGE_BYTES_MAX;
use mobula_shm::pins::MAPPED;
use mobula_shm::table::State;

use crate::core::names::Names;
use crate::core::segments::Phase;
use crate::daemon::answer::{Answer, Outcome, no_memory};
use crate::daemon::orphans::references::references_in_memory;
use crate::daemon::registry::Registry;
use crate::daemon::registry::owner::Owner;
use crate::daemon::registry::recorders::Recorded;

/// Bytes of a page's rows. The rest is for the header and the fields around them.
const PAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 64;
/// Bytes of an object's row, at most.
const OBJECT_INFO_BYTES: usize = 16 + 8 + 4 + 4 + 3;
/// Bytes of a segment's row.
const SEGMENT_INFO_BYTES: usize = 8 + 4 + 8 + 8 + 4 + 2;
/// Bytes of a location's row.
const LOCATION_INFO_BYTES: usize = 8 + 4 + 8 + 8;
/// Bytes of the row of a holder, and of a reference.
const HOLDER_INFO_BYTES: usize = 16 + 8 + 1;
const REFERENCE_INFO_BYTES: usize = 16 + 16;
/// The most holders, and the most references, of one object that are listed.
const HOLDERS_MAX: usize = 128;
const REFERENCES_MAX: usize = 256;
/// Bytes of the rows of one object, at most.
const HELD_BYTES_MAX: usize = HOLDERS_MAX * HOLDER_INFO_BYTES + REFERENCES_MAX * REFERENCE_INFO_BYTES;
const _: () = assert!(HELD_BYTES_MAX < PAGE_BYTES_MAX);
/// Bytes of a client's row without its label.
const CLIENT_INFO_BYTES: usize = 8 + 4 + 4 + 1 + 8 + 4 + 8 + 8 + 8 + 8 + 8;
/// Entries that one page looks at.
const LOOKS_MAX: u64 = 1 << 16;
/// Entries and pins that one client's row looks at. Beyond them, pins on further owners are not counted.
const CLIENT_LOOKS_MAX: u64 = 1 << 23;

/// A page of names, behind `after`.
pub(crate) fn list_names(names: &Names, after: &[u8]) -> Outcome {
    let (mut page, mut bytes, mut more) = (Vec::new(), 0, false);
    for (name, object) in names.after(after) {
        bytes += 4 + name.len() + ObjectId::BYTES;
        if bytes > PAGE_BYTES_MAX {
            more = true;
            break;
        }
        page.push(NameInfo::new(name, object));
    }
    Ok(Answer::Now(Reply::Names { names: page, more }, Vec::new()))
}

/// A page of objects. The cursor is the slot and the entry to go on with.
pub(crate) fn list_objects(registry: &Registry, names: &Names, cursor: u64) -> Outcome {
    let (mut objects, mut looks) = (Vec::new(), 0);
    let first_slot = u16::try_from(cursor >> 32).map_err(|_| bad_cursor(cursor))?;
    for (slot, owner) in registry.owners.range(first_slot..) {
        let first = if *slot == first_slot { cursor as u32 } else { 0 };
        for index in first..owner.entries.max(first) {
            if looks == LOOKS_MAX || (objects.len() + 1) * OBJECT_INFO_BYTES > PAGE_BYTES_MAX {
                let next = Some(u64::from(*slot) << 32 | u64::from(index));
                return Ok(Answer::Now(Reply::Objects { objects, next }, Vec::new()));
            }
            looks += 1;
            objects.extend(object_info(names, owner, index));
        }
    }
    Ok(Answer::Now(Reply::Objects { objects, next: None }, Vec::new()))
}

/// A page of segments. The cursor is the slot and the number of the next row.
pub(crate) fn list_segments(registry: &Registry, cursor: u64) -> Outcome {
    let mut segments = Vec::new();
    let first = (u16::try_from(cursor >> 32).map_err(|_| bad_cursor(cursor))?, cursor as u32);
    for ((slot, number), segment) in registry.segments.from(first) {
        if (segments.len() + 1) * SEGMENT_INFO_BYTES > PAGE_BYTES_MAX {
            let next = Some(u64::from(slot) << 32 | u64::from(number));
            return Ok(Answer::Now(Reply::Segments { segments, next }, Vec::new()));
        }
        // The owner of a segment is there as long as its segments are.
        let Some(owner) = registry.owners.get(&slot) else { continue };
        let mut info = SegmentInfo::new(owner.id, number);
        info.bytes = segment.bytes;
        info.page_bytes = segment.counted();
        info.readers = segment.readers() as u32;
        info.orphaned = segment.phase == Phase::Orphaned;
        info.retired = segment.phase == Phase::Retired;
        segments.push(info);
    }
    Ok(Answer::Now(Reply::Segments { segments, next: None }, Vec::new()))
}

/// A page of the places of objects. The cursor is the slot and the entry of the next row.
pub(crate) fn list_locations(registry: &Registry, cursor: u64) -> Outcome {
    let (mut locations, mut looks) = (Vec::new(), 0);
    let first_slot = u16::try_from(cursor >> 32).map_err(|_| bad_cursor(cursor))?;
    for (slot, owner) in registry.owners.range(first_slot..) {
        let first = if *slot == first_slot { cursor as u32 } else { 0 };
        for index in first..owner.entries.max(first) {
            if looks == LOOKS_MAX || (locations.len() + 1) * LOCATION_INFO_BYTES > PAGE_BYTES_MAX {
                let next = Some(u64::from(*slot) << 32 | u64::from(index));
                return Ok(Answer::Now(Reply::Locations { locations, next }, Vec::new()));
            }
            looks += 1;
            if let Some(State::Sealed | State::Dying | State::Deleted) = owner.word(index).state() {
                let location = owner.location(index);
                let (segment, offset, bytes) = (location.segment, location.offset, location.length);
                locations.push(LocationInfo::new(owner.id, segment, offset, bytes));
            }
        }
    }
    Ok(Answer::Now(Reply::Locations { locations, next: None }, Vec::new()))
}

/// A page of the clients that hold objects, and of the references between objects. The cursor is that of
/// [`list_objects`].
pub(crate) fn list_holders(registry: &Registry, cursor: u64) -> Outcome {
    let (mut holders, mut references) = (Vec::new(), Vec::new());
    let (mut looks, mut mapped) = (0, HashMap::new());
    let first_slot = u16::try_from(cursor >> 32).map_err(|_| bad_cursor(cursor))?;
    for (slot, owner) in registry.owners.range(first_slot..) {
        let first = if *slot == first_slot { cursor as u32 } else { 0 };
        for index in first..owner.entries.max(first) {
            let bytes = holders.len() * HOLDER_INFO_BYTES + references.len() * REFERENCE_INFO_BYTES;
            if looks >= LOOKS_MAX || bytes + HELD_BYTES_MAX > PAGE_BYTES_MAX {
                let next = Some(u64::from(*slot) << 32 | u64::from(index));
                return Ok(Answer::Now(Reply::Holders { holders, references, next }, Vec::new()));
            }
            looks += 1;
            let word = owner.word(index);
            if matches!(word.state(), None | Some(State::Free | State::Lost)) {
                continue;
            }
            let object = ObjectId::new(owner.id, index, word.generation());
            for (client, pin) in owner.pins_on(index).take(HOLDERS_MAX) {
                looks += 1;
                let client = registry.owners.get(&client).map(|client| client.id);
                holders.extend(client.map(|client| HolderInfo::new(object, client, pin & MAPPED != 0)));
            }
            let inner = references_in_memory(registry, object, &mut mapped);
            let inner = inner.into_iter().take(REFERENCES_MAX);
            references.extend(inner.map(|refers_to| ReferenceInfo::new(object, refers_to)));
        }
    }
    Ok(Answer::Now(Reply::Holders { holders, references, next: None }, Vec::new()))
}

/// Totals of the store.
pub(crate) fn stats(registry: &Registry, names: &Names) -> Outcome {
    let usage = registry.segments.usage();
    let clients = registry.living().count();
    let (spill_bytes, spill_files) = registry.spill_files.usage();
    let mut totals = Totals::default();
    totals.capacity_bytes = registry.config.capacity_bytes;
    totals.leased_bytes = usage.leased;
    totals.orphaned_bytes = usage.orphaned;
    totals.retired_bytes = usage.retired;
    totals.free_bytes = registry.segments.free();
    totals.clients = clients as u32;
    totals.dead_clients = (registry.owners.len() - clients) as u32;
    totals.segments = registry.segments.count() as u32;
    totals.names = names.count() as u64;
    totals.channels = registry.channels.count() as u32;
    totals.spill_bytes = spill_bytes;
    totals.spill_files = spill_files as u32;
    Ok(Answer::Now(Reply::Stats { totals }, Vec::new()))
}

/// A page of clients. The cursor is the slot to go on with.
pub(crate) fn list_clients(registry: &Registry, cursor: u32) -> Outcome {
    let (mut clients, mut bytes, mut looks) = (Vec::new(), 0, 0);
    let first_slot = u16::try_from(cursor).map_err(|_| bad_cursor(cursor.into()))?;
    for (slot, owner) in registry.owners.range(first_slot..) {
        bytes += CLIENT_INFO_BYTES + owner.label.len();
        // One client is always counted to the end, at any cost: otherwise a large client would never be shown.
        if bytes > PAGE_BYTES_MAX || looks > LOOKS_MAX {
            let next = Some(u32::from(*slot));
            return Ok(Answer::Now(Reply::Clients { clients, next }, Vec::new()));
        }
        clients.push(client_info(registry, *slot, owner, &mut looks));
    }
    Ok(Answer::Now(Reply::Clients { clients, next: None }, Vec::new()))
}

/// The client with events whose epoch is the next one.
pub(crate) fn next_recorder(registry: &Registry, after: u64) -> Outcome {
    let all = registry.owners.values().map(Recorded::from).chain(registry.recorders.all());
    let later = all.filter(|recorded| recorded.id.epoch() > after && recorded.control.has_events());
    let Some(next) = later.min_by_key(|recorded| recorded.id.epoch()) else { return Answer::done() };
    let control = next.control.to_read().map_err(|error| no_memory(0, &error))?;
    let (pid, label) = (next.pid, next.label.to_owned());
    Ok(Answer::Now(Reply::Recorder { owner: next.id, pid, label, dead: next.is_dead }, vec![control]))
}

/// The row of an object; `None`: there is no object at this index.
pub(crate) fn object_info(names: &Names, owner: &Owner, index: u32) -> Option<ObjectInfo> {
    let word = owner.word(index);
    let promised = match word.state()? {
        State::Free | State::Lost => return None,
        State::Promised => true,
        State::Sealed | State::Dying | State::Deleted | State::Spilled => false,
    };
    let location = owner.location(index);
    let object = ObjectId::new(owner.id, index, word.generation());
    let mut info = ObjectInfo::new(object);
    if !promised {
        info.bytes = location.length;
        info.format = location.format;
    }
    info.holders = owner.holders(index);
    info.named = names.has_name(object);
    info.promised = promised;
    info.spilled = word.state() == Some(State::Spilled);
    Some(info)
}

fn client_info(registry: &Registry, slot: u16, owner: &Owner, looks: &mut u64) -> ClientInfo {
    let mut info = ClientInfo::new(owner.id);
    info.pid = owner.pid;
    info.label = owner.label.clone();
    info.dead = !owner.is_alive();
    (info.segments, info.leased_bytes) = registry.segments.held_by(slot);
    for index in 0..owner.entries {
        match owner.word(index).state() {
            Some(state @ (State::Sealed | State::Dying | State::Deleted | State::Spilled)) => {
                let length = owner.location(index).length;
                info.objects += 1;
                info.object_bytes = info.object_bytes.saturating_add(length);
                if state == State::Spilled {
                    info.spilled_objects += 1;
                    info.spilled_bytes = info.spilled_bytes.saturating_add(length);
                }
            }
            Some(State::Promised) => info.objects += 1,
            Some(State::Free | State::Lost) | None => {}
        }
    }
    let last_look = *looks + CLIENT_LOOKS_MAX;
    *looks += u64::from(owner.entries);
    let pinned = registry.slots.attached(slot).into_iter().chain([slot]);
    for pinned in pinned.filter_map(|pinned| registry.owners.get(&pinned)) {
        *looks += u64::from(pinned.entries);
        if *looks > last_look {
            break;
        }
        info.pins += pinned.pins_of(slot);
    }
    info
}

fn bad_cursor(cursor: u64) -> Refusal {
    Refusal::BadRequest { reason: format!("{cursor} is not the cursor of a page") }
}
