//! A store in numbers.

use mobula_protocol::message::{ClientInfo, Totals};

/// A store in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The store as a whole.
    pub totals: Totals,
    /// Each client, and each dead one of which objects remain.
    pub clients: Vec<ClientInfo>,
}

impl Stats {
    /// Objects of all clients.
    pub fn objects(&self) -> u64 {
        self.sum(|client| client.objects)
    }

    /// Bytes of all objects' payloads.
    pub fn object_bytes(&self) -> u64 {
        self.sum(|client| client.object_bytes)
    }

    /// Objects of all clients that are spilled to disk.
    pub fn spilled_objects(&self) -> u64 {
        self.clients.iter().map(|client| client.spilled_objects).sum()
    }

    /// Bytes of their payloads.
    pub fn spilled_bytes(&self) -> u64 {
        self.clients.iter().map(|client| client.spilled_bytes).sum()
    }

    /// Objects that clients pin, counted for each client.
    pub fn pins(&self) -> u64 {
        self.sum(|client| client.pins)
    }

    /// Lengths come from the owners, and may be anything.
    fn sum(&self, number: impl Fn(&ClientInfo) -> u64) -> u64 {
        self.clients.iter().map(number).fold(0, u64::saturating_add)
    }
}
