//! The runtime's end of a channel. A record that finds no room waits in a backlog, and the objects that a record names
//! stay alive until the other end has handled it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mobula_client::{Channel, Handle, OwnerId};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use crate::mail::backlog::Backlog;
use crate::mail::links::{Links, LinksOf};
use crate::mail::pace::{Pace, Progress};
use crate::wire;

/// A channel with its backlog.
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) peer: OwnerId,
    /// Whether the other end opened the channel: then it calls, and this process serves.
    pub(crate) incoming: bool,
    receiver: Mutex<Receiving>,
    peek: mobula_client::internal::Peek,
    marker: mobula_client::internal::Marker,
    /// The number of records that this process has handled or is handling.
    received: AtomicU64,
    outgoing: Mutex<Outgoing>,
    record_bytes_max: usize,
    /// Whether objects are held for the other end, or records wait for room. Read without the lock.
    wants_flush: AtomicBool,
    closed: AtomicBool,
    /// Whether the other end is gone. Records that it sent before may still be handled.
    is_peer_gone: AtomicBool,
    /// The list that the link is in, which decides whether it is active.
    links: LinksOf,
    /// Whether waiting threads look at the link. Changed by `links` alone.
    active: AtomicBool,
    /// A record was sent or received since [`take_used`](Self::take_used).
    used: AtomicBool,
}

struct Receiving {
    receiver: mobula_client::Receiver,
    /// The record that is being handled. Its memory serves the next one too.
    record: Vec<u8>,
}

struct Outgoing {
    sender: mobula_client::Sender,
    /// The number of the last record that was sent or waits for room.
    number: u64,
    /// Records that found no room, in order.
    backlog: Backlog,
    /// The objects that sent records named, with the position behind each record.
    held: VecDeque<(u64, Vec<Handle>)>,
    /// Memory in which records are written before they are sent.
    scratch: Vec<u8>,
    /// How fast the other end works through the calls.
    pace: Pace,
}

thread_local! {
    /// Whether this thread has sent a record to a process that slept; see [`take_found_asleep`].
    static FOUND_ASLEEP: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread has sent a record to a process that slept, since the last call of this function.
pub(crate) fn take_found_asleep() -> bool {
    FOUND_ASLEEP.take()
}

/// The record does not fit a ring; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Link {
    pub(crate) fn new(channel: Channel, incoming: bool) -> Self {
        let record_bytes_max = channel.sender.record_bytes_max();
        let outgoing = Outgoing {
            sender: channel.sender,
            number: 0,
            backlog: Backlog::default(),
            held: VecDeque::new(),
            scratch: Vec::new(),
            pace: Pace::default(),
        };
        Self {
            id: channel.id,
            peer: channel.peer,
            incoming,
            peek: channel.receiver.peek(),
            marker: channel.receiver.marker(),
            received: AtomicU64::new(0),
            receiver: Mutex::new(Receiving { receiver: channel.receiver, record: Vec::new() }),
            wants_flush: AtomicBool::new(false),
            outgoing: Mutex::new(outgoing),
            record_bytes_max,
            closed: AtomicBool::new(false),
            is_peer_gone: AtomicBool::new(false),
            links: LinksOf::new(),
            active: AtomicBool::new(false),
            used: AtomicBool::new(true),
        }
    }

    /// Sends a record now, or when there is room. Keeps `held` until the other end has handled the record.
    pub(crate) fn send(&self, record: &impl Serialize, held: Vec<Handle>) -> Result<(), TooLarge> {
        let sent = self.send_with(held, |scratch| {
            wire::append(record, scratch);
        });
        sent.map(drop)
    }

    /// As [`send`](Self::send), with a record that `write` appends to memory that is reused. Returns the record's
    /// number: the count of records sent through the link, this one included.
    pub(crate) fn send_with(
        &self,
        held: Vec<Handle>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, TooLarge> {
        self.use_for_call();
        let mut outgoing = self.outgoing.lock();
        let outgoing = &mut *outgoing;
        outgoing.scratch.clear();
        write(&mut outgoing.scratch);
        if outgoing.scratch.len() > self.record_bytes_max {
            return Err(TooLarge);
        }
        outgoing.release_dealt_with();
        outgoing.number += 1;
        if self.closed.load(Ordering::Acquire) {
            return Ok(outgoing.number);
        }
        if outgoing.backlog.is_empty()
            && let Ok(position) = outgoing.sender.send(&outgoing.scratch)
        {
            if outgoing.sender.found_asleep() {
                FOUND_ASLEEP.set(true);
            }
            self.hold(outgoing, position, held);
            return Ok(outgoing.number);
        }
        outgoing.backlog.push(&outgoing.scratch, held);
        self.want_flush();
        Ok(outgoing.number)
    }

    fn hold(&self, outgoing: &mut Outgoing, position: u64, held: Vec<Handle>) {
        if !held.is_empty() {
            outgoing.held.push_back((position, held));
            self.want_flush();
        }
    }

    fn want_flush(&self) {
        // SeqCst: before the look at what the background poller does, and before the look whether the link is idle.
        if !self.wants_flush.swap(true, Ordering::SeqCst)
            && let Some(links) = self.links()
        {
            links.activate(self);
        }
    }

    /// Sends the records of the backlog, as far as there is room, and releases the objects of records that the other
    /// end has handled. Mostly one load.
    pub(crate) fn flush(&self) {
        if !self.holds_anything() {
            return;
        }
        let mut outgoing = self.outgoing.lock();
        let outgoing = &mut *outgoing;
        outgoing.release_dealt_with();
        while let Some(record) = outgoing.backlog.first() {
            let Ok(position) = outgoing.sender.send(record) else { return };
            let held = outgoing.backlog.pop();
            self.hold(outgoing, position, held);
        }
        self.wants_flush.store(!outgoing.held.is_empty(), Ordering::Release);
    }

    /// Whether objects are held for the other end, or records wait for room. Costs one load.
    pub(crate) fn holds_anything(&self) -> bool {
        // SeqCst: pairs with the thread that sets it, which checks afterwards whether the background poller sleeps.
        self.wants_flush.load(Ordering::SeqCst)
    }

    /// Whether records wait for room.
    pub(crate) fn is_backlogged(&self) -> bool {
        self.holds_anything() && !self.outgoing.lock().backlog.is_empty()
    }

    /// Whether there is something to do: a record has arrived, or there is room for one that waits. A few loads.
    ///
    /// A record that another thread is handling does not count: that thread announces what it found.
    pub(crate) fn has_work(&self) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        let has_mail = || !self.peek.is_empty() && !self.receiver.is_locked();
        let has_room = || {
            let outgoing = &mut *self.outgoing.lock();
            outgoing.backlog.first().is_some_and(|record| outgoing.sender.has_room_for(record.len()))
        };
        has_mail() || self.holds_anything() && has_room()
    }

    /// Whether a record has arrived that is not handled. Two loads.
    pub(crate) fn has_mail(&self) -> bool {
        !self.peek.is_empty()
    }

    /// Handles all records that have arrived. Returns `true` if there were any. Only one thread at a time handles
    /// records: a second thread finds none.
    ///
    /// Each record is acknowledged after `deal` returns, so `deal` must hold the objects that it needs. It may take the
    /// record, if it leaves other memory for the next one.
    pub(crate) fn receive(&self, deal: &mut dyn FnMut(&mut Vec<u8>)) -> bool {
        let mut any = false;
        // This is checked again after unlocking: a thread that is about to sleep relies on the thread that has the
        // lock.
        while !self.peek.is_empty() && !self.is_closed() {
            let Some(receiving) = self.receiver.try_lock() else { break };
            any |= self.receive_locked(receiving, deal);
        }
        any
    }

    /// Handles all records when the other end is gone: waits for a thread that is handling records, and handles the
    /// rest.
    pub(crate) fn receive_the_rest(&self, deal: &mut dyn FnMut(&mut Vec<u8>)) -> bool {
        self.receive_locked(self.receiver.lock(), deal)
    }

    fn receive_locked(
        &self,
        mut receiving: MutexGuard<'_, Receiving>,
        deal: &mut dyn FnMut(&mut Vec<u8>),
    ) -> bool {
        let Receiving { receiver, record } = &mut *receiving;
        let mut any = false;
        self.set_used();
        while !self.is_closed() {
            match receiver.next(record) {
                Ok(true) => {
                    // Relaxed, and not one atomic step: only the thread that has locked the receiver writes and reads
                    // it.
                    self.received.store(self.received() + 1, Ordering::Relaxed);
                    deal(record);
                    receiver.done();
                    any = true;
                }
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(peer = %self.peer, %error, "closing a channel");
                    self.close();
                }
            }
        }
        any
    }

    // ---- active and idle ----

    pub(crate) fn set_links(&self, links: Weak<Links>) {
        let _ = self.links.set(links);
    }

    fn links(&self) -> Option<Arc<Links>> {
        self.links.get()?.upgrade()
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    pub(crate) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }

    /// From now on the other end rings for its next record. Returns `false` if a record is there.
    pub(crate) fn begin_idle(&self) -> bool {
        self.peek.begin_idle()
    }

    /// From now on the other end rings only while this process sleeps. Returns `true` if a record is there.
    pub(crate) fn end_idle(&self) -> bool {
        self.peek.end_idle()
    }

    /// Makes a link that opens for calls of this process active before a call. Mostly two loads.
    fn use_for_call(&self) {
        self.set_used();
        if !self.incoming
            && !self.is_active()
            && let Some(links) = self.links()
        {
            links.expect_answer(self);
        }
    }

    fn set_used(&self) {
        // Read first: the line stays with all threads that use the link.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a record was sent or received since the last call of this function.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    // ---- what has begun ----

    /// The number of the record that is being handled, as the other end counts.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Tells the other end that the call in the record of this number begins now. One store.
    pub(crate) fn begin(&self, number: u64) {
        self.marker.set(number);
    }

    /// As [`begin`](Self::begin), for calls that begin on several threads: all up to this number count as begun.
    pub(crate) fn begin_beside(&self, number: u64) {
        self.marker.raise(number);
    }

    /// The number of the last record whose call the other end has begun. It is final when its process has ended or has
    /// dropped the channel.
    pub(crate) fn begun(&self) -> u64 {
        self.outgoing.lock().sender.mark()
    }

    /// How long the other end is busy with the calls before the call in the record of this number (`None`: the last
    /// one), if the other end is quick and its [pace](Pace) is known.
    pub(crate) fn calls_before(&self, number: Option<u64>, at: Instant) -> Option<Duration> {
        let outgoing = &mut *self.outgoing.lock();
        let (sent, begun) = (outgoing.number, outgoing.sender.mark());
        outgoing.pace.until(number.unwrap_or(sent), Progress { at, sent, begun })
    }

    /// Closes the link: from now on no record is sent or received, and the objects held for the other end are released.
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

    /// The other end is gone: nothing that is sent reaches it.
    pub(crate) fn set_peer_gone(&self) {
        self.is_peer_gone.store(true, Ordering::Release);
    }

    /// Whether nothing that is sent reaches the other end.
    pub(crate) fn is_peer_gone(&self) -> bool {
        self.is_closed() || self.is_peer_gone.load(Ordering::Acquire)
    }
}

impl Outgoing {
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
