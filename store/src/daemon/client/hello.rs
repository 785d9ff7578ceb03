//! The hello: a new client gets a slot, a control memory and a bell.

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{LABEL_BYTES_MAX, Refusal, Reply};
use mobula_shm::directory::SlotRecord;
use mobula_shm::failpoints::{Failpoint, failpoint};

use crate::daemon::answer::{limit_reached, no_memory};
use crate::daemon::client::quota;
use crate::daemon::orphans::escrow;
use crate::daemon::registry::Registry;

/// Takes in a client that has sent its hello. The reply is in the outbox.
pub(crate) fn hello(
    registry: &mut Registry,
    pid: u32,
    label: String,
    serial: u64,
    correlation: u64,
) -> Result<OwnerId, Refusal> {
    if label.len() > LABEL_BYTES_MAX {
        let reason = format!("a label of {} bytes, over {LABEL_BYTES_MAX}", label.len());
        return Err(Refusal::BadRequest { reason });
    }
    let Some(id) = registry.slots.open() else {
        return Err(limit_reached("clients_max", registry.config.clients_max.into()));
    };
    let (entries, bytes) = (registry.config.table_entries_initial, quota::client_bytes(registry));
    let equipped = quota::check_bookkeeping(registry, bytes)
        .and_then(|()| registry.equip(id, pid, label).map_err(|error| no_memory(bytes, &error)));
    match equipped {
        Ok(attachments) => {
            failpoint(Failpoint::HelloEquipped);
            let record = SlotRecord { epoch: id.epoch(), committed: entries, process: pid, serial };
            registry.directory.set_owner(id.slot(), record);
            failpoint(Failpoint::HelloRecorded);
            let (slots, capacity_bytes) = (registry.config.slots(), registry.config.capacity_bytes);
            let welcome = Reply::Welcome { owner: id, slots, entries, capacity_bytes };
            registry.reply(id.slot(), correlation, &welcome, attachments);
            escrow::find_missing_holders(registry);
            Ok(id)
        }
        Err(refusal) => {
            registry.slots.die(id.slot());
            if registry.slots.forget(id.slot()) {
                registry.vacate(id.slot());
            }
            Err(refusal)
        }
    }
}
