//! Channels: the daemon makes the two memories, hands them out and keeps only who is connected with whom.

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Notice, Refusal, Reply};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::ring::end_bytes;

use crate::core::slots::Life;
use crate::daemon::{Answer, Daemon, Outcome, bad_request, limit_reached};
use crate::memory::{Memory, no_memory};

impl Daemon {
    /// Connects a client with another that is alive.
    pub(crate) fn connect(&mut self, asker: u16, peer: OwnerId) -> Outcome {
        if self.slots.life(peer) != Life::Living {
            return Err(Refusal::NoSuchOwner { owner: peer });
        }
        if peer.slot() == asker {
            return Err(bad_request("Connect to oneself"));
        }
        if self.channels.count() >= self.config.channels_max {
            return Err(limit_reached("channels_max", self.config.channels_max as u64));
        }
        let max = self.config.channels_client_max;
        if [asker, peer.slot()].into_iter().any(|end| self.channels.count_of(end) >= max) {
            return Err(limit_reached("channels_client_max", max as u64));
        }
        self.check_bookkeeping(self.channel_bytes())?;
        let data_bytes = self.config.ring_bytes;
        let refuse = |error| no_memory(2 * end_bytes(data_bytes), &error);
        let asker_end = Memory::ring_end(data_bytes).map_err(refuse)?;
        let peer_end = Memory::ring_end(data_bytes).map_err(refuse)?;
        let for_asker = vec![asker_end.to_write(), peer_end.to_read().map_err(refuse)?];
        let for_peer = vec![peer_end.to_write(), asker_end.to_read().map_err(refuse)?];
        let channel = self.channels.open(asker, peer.slot());
        failpoint(Failpoint::ConnectOpened);
        let opened = Notice::ChannelOpened { channel, peer: self.owners[&asker].id, data_bytes };
        self.notify(peer.slot(), &opened, for_peer);
        Ok(Answer::Now(Reply::Connected { channel, data_bytes }, for_asker))
    }

    /// Closes a channel of a client's.
    pub(crate) fn disconnect(&mut self, client: u16, channel: u64) -> Outcome {
        let peer = self.channels.close(client, channel).ok_or(Refusal::NoSuchChannel { channel })?;
        self.notify(peer, &Notice::ChannelClosed { channel }, Vec::new());
        Answer::done()
    }

    /// Closes every channel of a client that has died.
    pub(crate) fn disconnect_all(&mut self, client: u16) {
        for (channel, peer) in self.channels.close_all(client) {
            self.notify(peer, &Notice::ChannelClosed { channel }, Vec::new());
        }
    }
}
