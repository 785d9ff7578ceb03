//! Channels: the pairs of connected clients. The rings themselves belong to the two clients.

use std::collections::BTreeMap;

/// All open channels.
#[derive(Debug)]
pub(crate) struct Channels {
    open: BTreeMap<u64, [u16; 2]>,
    last: u64,
}

impl Channels {
    /// None yet; numbers go on behind `last`.
    pub(crate) fn new(last: u64) -> Self {
        Self { open: BTreeMap::new(), last }
    }

    /// A channel that was opened by another store, as both ends say.
    pub(crate) fn resume(&mut self, channel: u64, ends: [u16; 2]) {
        self.last = self.last.max(channel);
        self.open.insert(channel, ends);
    }

    /// Opens a channel between two clients; returns its number, which is never used again.
    pub(crate) fn open(&mut self, asker: u16, peer: u16) -> u64 {
        // Clients can claim any numbers from another store.
        self.last = self.last.wrapping_add(1);
        while self.open.contains_key(&self.last) {
            self.last = self.last.wrapping_add(1);
        }
        self.open.insert(self.last, [asker, peer]);
        self.last
    }

    /// Closes a channel of `client`'s; returns the other end, or `None` when the client has no such channel.
    pub(crate) fn close(&mut self, client: u16, channel: u64) -> Option<u16> {
        let peer = other_end(*self.open.get(&channel)?, client)?;
        self.open.remove(&channel);
        Some(peer)
    }

    /// Closes every channel of `client`'s; returns them with their other ends.
    pub(crate) fn close_all(&mut self, client: u16) -> Vec<(u64, u16)> {
        let end = |(channel, ends): (&u64, &[u16; 2])| Some((*channel, other_end(*ends, client)?));
        let closed: Vec<_> = self.open.iter().filter_map(end).collect();
        for (channel, _) in &closed {
            self.open.remove(channel);
        }
        closed
    }

    /// The number of open channels of a client.
    pub(crate) fn count_of(&self, client: u16) -> usize {
        self.open.values().filter(|ends| ends.contains(&client)).count()
    }

    /// The number of open channels.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
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
