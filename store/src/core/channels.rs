//! Channels: the pairs of connected clients. The rings themselves belong to the two clients.

use std::collections::{BTreeMap, BTreeSet};

/// All open channels.
#[derive(Debug)]
pub(crate) struct Channels {
    open: BTreeMap<u64, [u16; 2]>,
    /// The channels of each client that has some.
    of: BTreeMap<u16, BTreeSet<u64>>,
    last: u64,
}

impl Channels {
    /// No channels. Numbers begin after `last`.
    pub(crate) fn new(last: u64) -> Self {
        Self { open: BTreeMap::new(), of: BTreeMap::new(), last }
    }

    /// Adds a channel that another store opened, as both ends report.
    pub(crate) fn resume(&mut self, channel: u64, ends: [u16; 2]) {
        self.last = self.last.max(channel);
        self.remove(channel);
        self.add(channel, ends);
    }

    /// Opens a channel between two clients; returns its number, which is never used again.
    pub(crate) fn open(&mut self, asker: u16, peer: u16) -> u64 {
        // Clients can claim any numbers from another store.
        self.last = self.last.wrapping_add(1);
        while self.open.contains_key(&self.last) {
            self.last = self.last.wrapping_add(1);
        }
        self.add(self.last, [asker, peer]);
        self.last
    }

    /// Closes a channel of `client`'s; returns the other end, or `None` when the client has no such channel.
    pub(crate) fn close(&mut self, client: u16, channel: u64) -> Option<u16> {
        let peer = other_end(*self.open.get(&channel)?, client)?;
        self.remove(channel);
        Some(peer)
    }

    /// Closes every channel of `client`'s; returns them with their other ends.
    pub(crate) fn close_all(&mut self, client: u16) -> Vec<(u64, u16)> {
        let channels = self.of.get(&client).into_iter().flatten();
        let end = |channel: &u64| Some((*channel, other_end(*self.open.get(channel)?, client)?));
        let closed: Vec<_> = channels.filter_map(end).collect();
        for (channel, _) in &closed {
            self.remove(*channel);
        }
        closed
    }

    /// The number of open channels of a client.
    pub(crate) fn count_of(&self, client: u16) -> usize {
        self.of.get(&client).map_or(0, BTreeSet::len)
    }

    /// The number of open channels.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    fn add(&mut self, channel: u64, ends: [u16; 2]) {
        self.open.insert(channel, ends);
        for client in ends {
            self.of.entry(client).or_default().insert(channel);
        }
    }

    fn remove(&mut self, channel: u64) {
        for client in self.open.remove(&channel).into_iter().flatten() {
            if let Some(channels) = self.of.get_mut(&client) {
                channels.remove(&channel);
                if channels.is_empty() {
                    self.of.remove(&client);
                }
            }
        }
    }
}

fn other_end(ends: [u16; 2], client: u16) -> Option<u16> {
    match ends {
        [asker, peer] if asker == client => Some(peer),
        [asker, peer] if peer == client => Some(asker),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_end_closes_once_and_nobody_else_does() {
        let mut channels = Channels::new(0);
        let (a, b, c) = (channels.open(1, 2), channels.open(2, 3), channels.open(3, 1));
        assert_eq!((channels.count_of(1), channels.count_of(4)), (2, 0));
        assert_eq!(channels.close(3, a), None);
        assert_eq!(channels.close(2, a), Some(1));
        assert_eq!(channels.close(1, a), None);
        assert_eq!(channels.close_all(3), [(b, 2), (c, 1)]);
        assert_eq!(channels.count(), 0);
    }

    #[test]
    fn a_channel_goes_on_and_its_number_is_not_used_again() {
        let mut channels = Channels::new(3);
        channels.resume(7, [1, 2]);
        assert_eq!((channels.open(1, 3), channels.count()), (8, 2));
        assert_eq!(channels.close(1, 7), Some(2));
    }
}
