//! Messages for clients, until the server takes them.

use mobula_protocol::message::{Notice, Reply};

use crate::memory::Attachment;

/// A message for a client.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Slot of the client that gets it.
    pub(crate) client: u16,
    /// The message as bytes.
    pub(crate) bytes: Vec<u8>,
    /// The descriptors that travel beside it.
    pub(crate) attachments: Vec<Attachment>,
    /// Whether the message may be dropped while others wait for the client. Hints are sent again.
    pub(crate) hint: bool,
}

/// The messages that have not been taken yet, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    messages: Vec<Outgoing>,
}

impl Outbox {
    pub(crate) fn reply(
        &mut self,
        client: u16,
        correlation: u64,
        reply: &Reply,
        attachments: Vec<Attachment>,
    ) {
        let bytes = reply.encode(correlation);
        self.messages.push(Outgoing { client, bytes, attachments, hint: false });
    }

    pub(crate) fn notify(&mut self, client: u16, notice: &Notice, attachments: Vec<Attachment>) {
        let hint = matches!(notice, Notice::Reclaim { .. } | Notice::PunchHoles { .. });
        self.messages.push(Outgoing { client, bytes: notice.encode(0), attachments, hint });
    }

    #[cfg(test)]
    pub(crate) fn put_back(&mut self, messages: Vec<Outgoing>) {
        self.messages.splice(0..0, messages);
    }

    pub(crate) fn take(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.messages)
    }
}
