//! Channels: the daemon makes the two memories of a channel, hands them out, and remembers which clients it connects.

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Notice, Refusal, Reply};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::ring::end_bytes;

use crate::core::slots::Life;
use crate::daemon::answer::{Answer, Outcome, bad_request, limit_reached, no_memory};
use crate::daemon::client::quota;
use crate::daemon::registry::Registry;
use crate::memory::Memory;

/// Connects a client with another that is alive.
pub(crate) fn connect(registry: &mut Registry, client: u16, peer: OwnerId) -> Outcome {
    if registry.slots.life(peer) != Life::Living {
        return Err(Refusal::NoSuchOwner { owner: peer });
    }
    if peer.slot() == client {
        return Err(bad_request("Connect to oneself"));
    }
    let (all_max, max) = (registry.config.channels_max, registry.config.channels_client_max);
    if registry.channels.count() >= all_max {
        return Err(limit_reached("channels_max", all_max as u64));
    }
    if [client, peer.slot()].into_iter().any(|end| registry.channels.count_of(end) >= max) {
        return Err(limit_reached("channels_client_max", max as u64));
    }
    quota::check_bookkeeping(registry, quota::channel_bytes(registry))?;
    let data_bytes = registry.config.ring_bytes;
    let refuse = |error| no_memory(2 * end_bytes(data_bytes), &error);
    let client_end = Memory::ring_end(data_bytes).map_err(refuse)?;
    let peer_end = Memory::ring_end(data_bytes).map_err(refuse)?;
    let for_client = vec![client_end.to_write(), peer_end.to_read().map_err(refuse)?];
    let for_peer = vec![peer_end.to_write(), client_end.to_read().map_err(refuse)?];
    let channel = registry.channels.open(client, peer.slot());
    failpoint(Failpoint::ConnectOpened);
    let opened = Notice::ChannelOpened { channel, peer: registry.owners[&client].id, data_bytes };
    registry.notify(peer.slot(), &opened, for_peer);
    Ok(Answer::Now(Reply::Connected { channel, data_bytes }, for_client))
}

/// Closes a channel of a client.
pub(crate) fn disconnect(registry: &mut Registry, client: u16, channel: u64) -> Outcome {
    let peer = registry.channels.close(client, channel).ok_or(Refusal::NoSuchChannel { channel })?;
    registry.notify(peer, &Notice::ChannelClosed { channel }, Vec::new());
    Answer::done()
}

/// Closes every channel of a client that has died.
pub(crate) fn disconnect_all(registry: &mut Registry, client: u16) {
    for (channel, peer) in registry.channels.close_all(client) {
        registry.notify(peer, &Notice::ChannelClosed { channel }, Vec::new());
    }
}
