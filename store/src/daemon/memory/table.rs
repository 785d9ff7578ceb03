//! Memory for more entries of a client's object table.

use mobula_protocol::message::Reply;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::PIN_BYTES;
use mobula_shm::table::ENTRY_BYTES;

use crate::daemon::answer::{Answer, Outcome, limit_reached, no_memory};
use crate::daemon::client::quota;
use crate::daemon::registry::Registry;

/// Gives a client's table, and all pins on it, memory for more entries: at least twice as many as before, so that
/// growing costs little for each entry.
pub(crate) fn grow(registry: &mut Registry, client: u16, needed: u32) -> Outcome {
    let max = registry.config.table_entries_max;
    if needed > max {
        return Err(limit_reached("table_entries_max", max.into()));
    }
    let owner = &registry.owners[&client];
    let before = owner.entries;
    let entries = if needed <= before { before } else { needed.max(before.saturating_mul(2)).min(max) };
    let pinned_by = 2 + registry.slots.reader_count(client) as u64;
    let added = u64::from(entries - before);
    quota::check_bookkeeping(registry, added * (ENTRY_BYTES + pinned_by * PIN_BYTES))?;
    let new = before..entries;
    let allocate = || {
        owner.control.allocate_entries(new.clone())?;
        registry.control.allocate_pins(client, new.clone())?;
        let readers = registry.slots.readers(client);
        let readers = readers.iter().chain([&client]).filter_map(|reader| registry.owners.get(reader));
        readers.map(|reader| &reader.control).try_for_each(|pins| pins.allocate_pins(client, new.clone()))
    };
    allocate().map_err(|error| no_memory(added * (ENTRY_BYTES + 2 * PIN_BYTES), &error))?;
    failpoint(Failpoint::GrowAllocated);
    if let Some(owner) = registry.owners.get_mut(&client) {
        owner.entries = entries;
    }
    registry.directory.set_committed(client, entries);
    Ok(Answer::Now(Reply::TableGrown { entries }, Vec::new()))
}
