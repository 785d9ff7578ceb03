//! The links of this process: one to the head, others to the processes that it calls or that call it.
//!
//! A thread that waits looks at the *active* links only: those that were used lately, or that hold something for the
//! other end. So a wait costs the same with ten links as with a thousand. All other links are *idle*: their other ends
//! ring for the first record (see `mobula_shm::ring`), and the thread that is woken looks at all idle links once.
//!
//! ```text
//! idle ──► active    before a call is sent; when something is held for the other end; when a record has arrived
//! active ──► idle    not used during a number of looks, and nothing is held
//! ```
//!
//! A process that never sleeps does not notice the bell. So it looks at a few of the idle links from time to time, in
//! rotation.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::{ArcSwap, Guard};
use mobula_client::Client;
use parking_lot::Mutex;

use crate::mail::link::Link;

/// The most active links, not counting those that hold something. Each look costs some nanoseconds for each link.
const ACTIVE_MAX: usize = 64;
/// The number of looks after which the links that were not used meanwhile become idle, and the same number of idle
/// links is looked at.
const LOOKS: u32 = 64;

/// The links of this process; see the module's documentation.
pub(crate) struct Links {
    client: Client,
    head: OnceLock<Arc<Link>>,
    /// The links that a waiting thread looks at. A change replaces the list.
    active: ArcSwap<Vec<Arc<Link>>>,
    /// Looks at the active links since the last [`tidy`](Self::tidy). Threads may overwrite each other's counts.
    looks: AtomicU32,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    /// The links that are open, by the numbers of their channels.
    open: BTreeMap<u64, Arc<Link>>,
    /// Channels that were closed before the thread that opened them had added their links.
    closed_early: HashSet<u64>,
    /// The idle link that was looked at last in the rotation.
    looked_at: u64,
}

impl Links {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self {
            client,
            head: OnceLock::new(),
            active: ArcSwap::default(),
            looks: AtomicU32::new(0),
            all: Mutex::default(),
        })
    }

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
    pub(crate) fn add(self: &Arc<Self>, link: &Arc<Link>) -> bool {
        let mut all = self.all.lock();
        if all.closed_early.remove(&link.id) {
            return false;
        }
        link.set_links(Arc::downgrade(self));
        all.open.insert(link.id, link.clone());
        self.add_active(link);
        true
    }

    /// Removes a link. Returns `false` if it was not there.
    pub(crate) fn remove(&self, link: &Arc<Link>) -> bool {
        let mut all = self.all.lock();
        let was_there = all.open.get(&link.id).is_some_and(|open| Arc::ptr_eq(open, link));
        if was_there {
            all.open.remove(&link.id);
        }
        if link.is_active() {
            link.set_active(false);
            let others =
                self.active.load().iter().filter(|other| !Arc::ptr_eq(other, link)).cloned().collect();
            self.active.store(Arc::new(others));
        }
        was_there
    }

    /// The link of a channel that was closed. If the link is not there yet, [`add`](Self::add) will refuse it.
    pub(crate) fn of_closed(&self, channel: u64) -> Option<Arc<Link>> {
        let mut all = self.all.lock();
        let link = all.open.get(&channel).cloned();
        if link.is_none() {
            all.closed_early.insert(channel);
        }
        link
    }

    /// The links to look at.
    pub(crate) fn active(&self) -> Guard<Arc<Vec<Arc<Link>>>> {
        self.active.load()
    }

    /// The idle links in which a record has arrived, if it is time to look for them: the bell was rung for one, or some
    /// are due in the rotation. Mostly one load and one store. Each is [settled](Self::settle) after the look at it.
    pub(crate) fn idle_with_records(&self) -> Vec<Arc<Link>> {
        let is_rung = self.client.take_idle_rung();
        let looks = self.looks.load(Ordering::Relaxed).wrapping_add(1);
        self.looks.store(looks, Ordering::Relaxed);
        if is_rung {
            return self.all_idle_with_records();
        }
        if looks < LOOKS {
            return Vec::new();
        }
        self.looks.store(0, Ordering::Relaxed);
        self.tidy();
        self.some_idle_with_records()
    }

    /// Whether a look at the idle links is due, since the bell was rung for one. Costs one load.
    pub(crate) fn is_idle_rung(&self) -> bool {
        self.client.is_idle_rung()
    }

    /// All idle links in which a record has arrived.
    pub(crate) fn all_idle_with_records(&self) -> Vec<Arc<Link>> {
        let all = self.all.lock();
        all.open.values().filter(|link| !link.is_active() && link.has_mail()).cloned().collect()
    }

    /// Those of a few idle links, in rotation, in which a record has arrived.
    pub(crate) fn some_idle_with_records(&self) -> Vec<Arc<Link>> {
        let mut all = self.all.lock();
        let mut found = Vec::new();
        let mut last = 0;
        for (id, link) in all.open.range((Excluded(all.looked_at), Unbounded)).take(LOOKS as usize) {
            last = *id;
            if !link.is_active() && link.has_mail() {
                found.push(link.clone());
            }
        }
        // 0 is no channel: the rotation begins anew behind the last link.
        all.looked_at = last;
        found
    }

    /// Decides, after a look at an idle link, whether it becomes active.
    pub(crate) fn settle(&self, link: &Arc<Link>) {
        let all = self.all.lock();
        if link.is_active() || !all.open.contains_key(&link.id) {
            return;
        }
        // Its other end rings for the next record, unless one has come meanwhile.
        if self.active.load().len() >= ACTIVE_MAX && link.begin_idle() {
            return;
        }
        self.add_active(link);
    }

    /// A call is about to be sent through the link: makes the link active, so that the answer needs no ring.
    pub(crate) fn expect_answer(&self, link: &Link) {
        if self.active.load().len() < ACTIVE_MAX {
            self.activate(link);
        }
    }

    /// Makes a link active if it is idle. A link that holds something must be active: its other end does not ring when
    /// it has handled a record.
    pub(crate) fn activate(&self, link: &Link) {
        let all = self.all.lock();
        if let Some(link) = all.open.get(&link.id).filter(|link| !link.is_active()) {
            self.add_active(link);
        }
    }

    /// Adds a link to the list. `all` is locked.
    fn add_active(&self, link: &Arc<Link>) {
        link.set_active(true);
        let links = self.active.load().iter().chain([link]).cloned().collect();
        self.active.store(Arc::new(links));
        // A thread that sleeps on the bell may have looked at the old list.
        if link.end_idle() {
            self.client.ring();
        }
    }

    /// Makes the active links idle that were not used since the last call of this function.
    fn tidy(&self) {
        let _all = self.all.lock();
        let links = self.active.load();
        let stays = |link: &&Arc<Link>| {
            let stays = link.take_used() || link.holds_anything() || self.is_head(link) || !link.begin_idle();
            // Set before it leaves the list: a thread that uses it from here on makes it active again.
            link.set_active(stays);
            stays
        };
        let left: Vec<_> = links.iter().filter(stays).cloned().collect();
        if left.len() < links.len() {
            self.active.store(Arc::new(left));
        }
    }
}

/// How a link finds the list that it is in.
pub(crate) type LinksOf = OnceLock<Weak<Links>>;
