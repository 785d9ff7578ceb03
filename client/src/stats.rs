//! A store in numbers.

#[doc(inline)]
pub use mobula_protocol::message::ClientInfo;
#[doc(inline)]
pub use mobula_protocol::message::NameInfo;
#[doc(inline)]
pub use mobula_protocol::message::ObjectInfo;
#[doc(inline)]
pub use mobula_protocol::message::Totals;

/// A store in numbers; see [`Client::stats`](crate::Client::stats). The rows were read one page after the other, so
/// they are not of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The store as a whole.
    pub totals: Totals,
    /// Each client, and each dead one of which objects remain.
    pub clients: Vec<ClientInfo>,
}

impl Stats {
    /// Statistics that consist of these parts: for a program that shows or checks statistics, and its tests.
    #[must_use]
    pub fn new(totals: Totals, clients: Vec<ClientInfo>) -> Self {
        Self { totals, clients }
    }

    /// Objects of all clients.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.sum(|client| client.objects)
    }

    /// Bytes of all objects' payloads.
    #[must_use]
    pub fn object_bytes(&self) -> u64 {
        self.sum(|client| client.object_bytes)
    }

    /// Objects of all clients that are spilled to disk.
    #[must_use]
    pub fn spilled_objects(&self) -> u64 {
        self.sum(|client| client.spilled_objects)
    }

    /// Bytes of the payloads of [spilled objects](Self::spilled_objects).
    #[must_use]
    pub fn spilled_bytes(&self) -> u64 {
        self.sum(|client| client.spilled_bytes)
    }

    /// Objects that clients pin, counted for each client.
    #[must_use]
    pub fn pins(&self) -> u64 {
        self.sum(|client| client.pins)
    }

    /// Lengths come from the owners, and may be anything.
    fn sum(&self, number: impl Fn(&ClientInfo) -> u64) -> u64 {
        self.clients.iter().map(number).fold(0, u64::saturating_add)
    }
}
