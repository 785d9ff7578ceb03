//! The links of this process: one to the head, others to the processes that it calls or that call it.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::mail::link::Link;

/// The links of this process; see the module's documentation.
#[derive(Default)]
pub(crate) struct Links {
    head: OnceLock<Arc<Link>>,
    /// The links that are open. A change replaces the list.
    open: ArcSwap<Vec<Arc<Link>>>,
    /// Channels that were closed before the thread that opened them had added their links. Locked while `open` changes.
    closed_early: Mutex<HashSet<u64>>,
}

impl Links {
    /// Sets the link to the head.
    pub(crate) fn set_head(&self, link: Arc<Link>) {
        let _ = self.head.set(link);
    }

    /// The link to the head. The process requests all workers and actors through it.
    pub(crate) fn head(&self) -> Option<&Arc<Link>> {
        self.head.get()
    }

    pub(crate) fn is_head(&self, link: &Arc<Link>) -> bool {
        self.head.get().is_some_and(|head| Arc::ptr_eq(head, link))
    }

    /// Adds a link, whose records are received from now on. Returns `false` if its channel has been closed already.
    pub(crate) fn add(&self, link: &Arc<Link>) -> bool {
        let mut closed_early = self.closed_early.lock();
        if closed_early.remove(&link.id) {
            return false;
        }
        let links = self.open.load().iter().chain([link]).cloned().collect();
        self.open.store(Arc::new(links));
        true
    }

    /// Removes a link. Returns `false` if it was not there.
    pub(crate) fn remove(&self, link: &Arc<Link>) -> bool {
        let _changing = self.closed_early.lock();
        let links = self.open.load();
        let others: Vec<_> = links.iter().filter(|other| !Arc::ptr_eq(other, link)).cloned().collect();
        let was_there = others.len() < links.len();
        self.open.store(Arc::new(others));
        was_there
    }

    /// The link of a channel that was closed. If the link is not there yet, [`add`](Self::add) will refuse it.
    pub(crate) fn of_closed(&self, channel: u64) -> Option<Arc<Link>> {
        let mut closed_early = self.closed_early.lock();
        let link = self.open.load().iter().find(|link| link.id == channel).cloned();
        if link.is_none() {
            closed_early.insert(channel);
        }
        link
    }

    /// The links that are open now.
    pub(crate) fn open(&self) -> Guard<Arc<Vec<Arc<Link>>>> {
        self.open.load()
    }
}
