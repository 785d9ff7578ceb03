//! Streams: the items of a call on their way to its caller, which takes them by the product's own code ([`Items`]).
//!
//! The worker waits while too many items are in flight, and its CPUs are free meanwhile. Every attempt begins with the
//! first item again. An item in the memory of a worker that has died is lost, unless another attempt makes it again.

use std::sync::Arc;

use super::*;
use crate::call::inline::{Inline, InlineBytes};
use crate::call::items::Items;
use crate::call::outcome::Settled;
use crate::format;

/// The most items of a stream.
const LENGTH_MAX: usize = 6;
/// The most items that are in flight.
const IN_FLIGHT_MAX: usize = 3;

/// The stream that a call makes, as its caller knows it.
pub(super) struct Stream {
    items: Arc<Items>,
    length: u64,
    in_flight_max: u64,
    /// How many items have been taken.
    taken: u64,
    /// An item of the last attempt was lost with its worker.
    has_lost: bool,
    /// The call was over without an error.
    has_ended: bool,
    /// Its caller wants no more items.
    is_dropped: bool,
}

impl Stream {
    pub(super) fn random(random: &mut Random) -> Self {
        let in_flight_max = 1 + random.below(IN_FLIGHT_MAX);
        Self {
            items: Items::new(in_flight_max as u32),
            length: random.below(LENGTH_MAX + 1) as u64,
            in_flight_max: in_flight_max as u64,
            taken: 0,
            has_lost: false,
            has_ended: false,
            is_dropped: false,
        }
    }

    /// Takes an item, which must be the next one. Returns the number of taken items that the worker is told.
    fn take(&mut self, call: u64) -> Option<u64> {
        let (item, tell) = self.items.take()?;
        assert_eq!(number_of(&item), self.taken, "an item of {call} out of order");
        self.taken += 1;
        tell
    }

    /// Checks the end: a stream that has ended without an error has brought every item.
    pub(super) fn check(&mut self, call: u64) {
        while self.items.is_any_there() {
            self.take(call);
        }
        if self.has_ended && !self.has_lost && !self.is_dropped {
            self.items.check_length().unwrap_or_else(|failure| panic!("{call}: {failure}"));
            assert_eq!(self.taken, self.length, "items of {call} that were taken");
        }
    }
}

impl Life {
    // ---- the caller ----

    /// A process takes an item of one of its streams.
    pub(super) fn take_item(&mut self, call: u64) {
        let Some(stream) = &mut self.made(call).stream else { return };
        if let Some(taken) = stream.take(call) {
            self.tell_taken(call, taken);
        }
    }

    /// Drops a stream: the call is cancelled, unless it is over.
    pub(super) fn drop_stream(&mut self, call: u64) {
        let stream = self.made(call).stream.as_mut().expect("it makes one");
        stream.items.drop_all();
        stream.is_dropped = true;
        if !self.calls[&call].is_over {
            self.cancel(call, How::USUAL);
        }
    }

    fn tell_taken(&mut self, call: u64, taken: u64) {
        let caller = self.calls[&call].caller;
        if let Some(worker) = self.callers.get(&caller).and_then(|its| its.sent.get(&call)).copied() {
            self.send(caller, worker, Record::Taken(call, taken));
        }
    }

    pub(super) fn on_item(&mut self, caller: u64, worker: u64, call: u64, position: u64, is_stored: bool) {
        if self.callers[&caller].sent.get(&call) != Some(&worker) {
            return;
        }
        let is_lost = is_stored && !self.servers.contains_key(&worker);
        let stream = self.made(call).stream.as_mut().expect("it makes one");
        stream.has_lost = is_lost || position > 0 && stream.has_lost;
        let arrival = stream.items.arrive(position, || (!is_lost).then(|| item(position)));
        let arrival = arrival.unwrap_or_else(|_| panic!("more items of {call} in flight than may be"));
        if let Some(taken) = arrival.tell {
            self.tell_taken(call, taken);
        }
    }

    pub(super) fn on_stream_end(&mut self, caller: u64, worker: u64, call: u64, length: u64) {
        if self.callers[&caller].sent.get(&call) == Some(&worker) {
            let stream = self.made(call).stream.as_mut().expect("it makes one");
            stream.items.end(length);
            stream.has_ended = true;
        }
    }

    // ---- the worker ----

    /// Whether the running call of a worker is a stream that still has items to send.
    pub(super) fn has_items_left(&self, token: u64, call: u64) -> bool {
        let server = &self.servers[&token];
        let is_wanted = !server.cancelled && self.callers.contains_key(&self.calls[&call].caller);
        is_wanted && self.calls[&call].stream.as_ref().is_some_and(|stream| server.items_sent < stream.length)
    }

    /// Sends the next item. After it, the worker waits if there is no room for another one.
    pub(super) fn produce(&mut self, token: u64, caller: u64, call: u64) {
        let is_stored = self.random.below(3) == 0;
        let server = self.server(token);
        let position = server.items_sent;
        server.items_sent += 1;
        self.send(token, caller, Record::Item(call, position, is_stored));
        if !self.has_room(token, call) {
            self.server(token).waits_for_room = true;
            self.block(token);
        }
    }

    /// Whether a stream may continue: there is room in flight, or its caller takes no more items.
    pub(super) fn has_room(&self, token: u64, call: u64) -> bool {
        let (server, its) = (&self.servers[&token], &self.calls[&call]);
        let in_flight_max = its.stream.as_ref().expect("it makes one").in_flight_max;
        let is_within = server.items_sent.saturating_sub(server.items_taken) < in_flight_max;
        is_within || server.cancelled || !self.callers.contains_key(&its.caller)
    }

    pub(super) fn on_taken(&mut self, token: u64, caller: u64, call: u64, taken: u64) {
        let server = self.server(token);
        if server.running == Some((caller, call)) {
            server.items_taken = server.items_taken.max(taken);
        }
    }

    /// The last record of a call whose function has not failed: a stream that was not cut short reports its number of
    /// items.
    pub(super) fn end_record(&self, token: u64, call: u64) -> Option<Record> {
        let stream = self.calls[&call].stream.as_ref()?;
        let is_whole = self.servers[&token].items_sent == stream.length;
        is_whole.then_some(Record::StreamEnd(call, stream.length))
    }
}

fn item(number: u64) -> Settled {
    let value = InlineBytes::copy_of(&number.to_le_bytes());
    Settled::Inline(Inline { format: format::PLAIN, value, references: Vec::new() })
}

fn number_of(settled: &Settled) -> u64 {
    match settled {
        Settled::Inline(inline) => u64::from_le_bytes(inline.value[..].try_into().expect("eight bytes")),
        other => panic!("{other:?} is no item"),
    }
}
