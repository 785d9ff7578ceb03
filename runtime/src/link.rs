//! One end of a channel in the runtime: records never get lost for want of room, and what a record names stays alive
//! until the other end has dealt with it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use mobula_client::{Channel, Handle, OwnerId};
use parking_lot::Mutex;
use serde::Serialize;

/// A channel with its backlog.
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) peer: OwnerId,
    /// Whether the other end opened it: it calls, this process serves.
    pub(crate) incoming: bool,
    receiver: Mutex<mobula_client::Receiver>,
    peek: mobula_client::Peek,
    outgoing: Mutex<Outgoing>,
    record_bytes_max: usize,
    is_backlogged: AtomicBool,
    closed: AtomicBool,
}

struct Outgoing {
    sender: mobula_client::Sender,
    /// Records that found no room, in order.
    backlog: VecDeque<(Vec<u8>, Vec<Handle>)>,
    /// Positions behind records, and what they named.
    held: VecDeque<(u64, Vec<Handle>)>,
    scratch: Vec<u8>,
}

/// The record does not fit a ring; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Link {
    pub(crate) fn new(channel: Channel, incoming: bool) -> Self {
        let record_bytes_max = channel.sender.record_bytes_max();
        let outgoing = Outgoing {
            sender: channel.sender,
            backlog: VecDeque::new(),
            held: VecDeque::new(),
            scratch: Vec::new(),
        };
        Self {
            id: channel.id,
            peer: channel.peer,
            incoming,
            peek: channel.receiver.peek(),
            receiver: Mutex::new(channel.receiver),
            is_backlogged: AtomicBool::new(false),
            outgoing: Mutex::new(outgoing),
            record_bytes_max,
            closed: AtomicBool::new(false),
        }
    }

    /// Sends a record (now, or when there is room), and keeps `held` until the other end has dealt with it.
    pub(crate) fn send(&self, record: &impl Serialize, held: Vec<Handle>) -> Result<(), TooLarge> {
        let mut outgoing = self.outgoing.lock();
        let outgoing = &mut *outgoing;
        outgoing.scratch.clear();
        outgoing.scratch = postcard::to_extend(record, std::mem::take(&mut outgoing.scratch))
            .expect("a growing vector takes every record");
        if outgoing.scratch.len() > self.record_bytes_max {
            return Err(TooLarge);
        }
        outgoing.release_dealt_with();
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        if outgoing.backlog.is_empty()
            && let Ok(position) = outgoing.sender.send(&outgoing.scratch)
        {
            outgoing.hold(position, held);
            return Ok(());
        }
        outgoing.backlog.push_back((outgoing.scratch.clone(), held));
        self.is_backlogged.store(true, Ordering::Release);
        Ok(())
    }

    /// Sends what found no room before, as far as there is room now.
    pub(crate) fn flush(&self) {
        let mut outgoing = self.outgoing.lock();
        let outgoing = &mut *outgoing;
        outgoing.release_dealt_with();
        while let Some((record, _)) = outgoing.backlog.front() {
            let Ok(position) = outgoing.sender.send(record) else { return };
            let (_, held) = outgoing.backlog.pop_front().expect("just looked at");
            outgoing.hold(position, held);
        }
        self.is_backlogged.store(false, Ordering::Release);
    }

    /// Whether something is kept alive for the other end, or waits for room.
    pub(crate) fn holds_anything(&self) -> bool {
        let outgoing = self.outgoing.lock();
        !outgoing.backlog.is_empty() || !outgoing.held.is_empty()
    }

    /// Whether there is something to do: a record has arrived, or there is room for one that waits. A few loads.
    ///
    /// A record that another thread is dealing with counts for that thread, which announces what it found.
    pub(crate) fn has_work(&self) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        let has_mail = || !self.peek.is_empty() && !self.receiver.is_locked();
        let has_room = || {
            let outgoing = &mut *self.outgoing.lock();
            outgoing.backlog.front().is_some_and(|(record, _)| outgoing.sender.has_room_for(record.len()))
        };
        has_mail() || self.is_backlogged.load(Ordering::Acquire) && has_room()
    }

    /// Deals with all records that have arrived; `true` if there were any. One thread at a time: a second one finds
    /// nothing.
    ///
    /// Each record is acknowledged after `deal` returns, so `deal` holds what it is to keep.
    pub(crate) fn receive(&self, mut deal: impl FnMut(&[u8])) -> bool {
        let (mut record, mut any) = (Vec::new(), false);
        // Looked at again after unlocking: a thread that is about to sleep relies on whoever has the lock.
        while !self.peek.is_empty() && !self.closed.load(Ordering::Acquire) {
            let Some(mut receiver) = self.receiver.try_lock() else { break };
            match receiver.next(&mut record) {
                Ok(true) => {
                    deal(&record);
                    receiver.done();
                    any = true;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(peer = %self.peer, %error, "closing a channel");
                    drop(receiver);
                    self.close();
                }
            }
        }
        any
    }

    /// Nothing is sent or received any more; what was held for the other end goes.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut outgoing = self.outgoing.lock();
        let garbage = (std::mem::take(&mut outgoing.backlog), std::mem::take(&mut outgoing.held));
        drop(outgoing);
        drop(garbage);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Outgoing {
    fn hold(&mut self, position: u64, held: Vec<Handle>) {
        if !held.is_empty() {
            self.held.push_back((position, held));
        }
    }

    fn release_dealt_with(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let consumed = self.sender.consumed();
        while self.held.front().is_some_and(|(position, _)| *position <= consumed) {
            self.held.pop_front();
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("id", &self.id).field("peer", &self.peer).finish()
    }
}
