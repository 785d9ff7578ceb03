//! The part of the runtime that every process of a session has: its client, its links to others, and the waiting.
//!
//! # Who looks at the mail
//!
//! Records and events are dealt with by whichever thread waits for something: it looks, and when there is nothing, one
//! thread (the *leader*) sleeps on the process's bell, the others (*followers*) on a condition variable. A leader that
//! has what it waited for hands over to a follower. When nobody waits, the *courier*, a thread in the background, leads
//! as long as there are calls that have not been sent: they wait for arguments, for a worker, or for room. So a call
//! and its `get` cost no switch between threads of the process, and nothing stays behind when no thread waits.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use mobula_client::{Client, ClientError, Event, Handle, Layout};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::Failure;
use crate::executor::Executor;
use crate::link::Link;
use crate::slot::{Inline, Slot};
use crate::submitter::Submitter;
use crate::value::{Encoded, format};

/// Bytes of a value that travels in a record; a larger one goes through the store.
const INLINE_BYTES_MAX: usize = 4096;
/// Objects that a value in a record may refer to.
const INLINE_REFERENCES_MAX: usize = 32;
/// How long to look at the mail before sleeping: about what it costs to be woken by another process.
const SPIN: Duration = Duration::from_micros(15);
/// How soon the courier looks after leases and acknowledgements when nobody waits; twice as late each time that it finds
/// nothing to do, up to `TICK_MAX`.
const TICK: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_millis(160);

/// See the module's documentation.
pub(crate) struct Core {
    pub(crate) client: Client,
    pub(crate) submitter: Submitter,
    /// What this process runs for others; none in the driver.
    pub(crate) executor: Option<Executor>,
    head: OnceLock<Arc<Link>>,
    links: RwLock<Links>,
    events: Receiver<Event>,
    turn: Mutex<Turn>,
    followers: Condvar,
    courier: Condvar,
    /// The courier sleeps until it is woken.
    courier_sleeps: AtomicBool,
    /// The session is over: nothing more will arrive.
    over: AtomicBool,
    stopping: AtomicBool,
    /// There is more than one core to run on.
    spins: bool,
}

#[derive(Default)]
struct Links {
    open: Arc<[Arc<Link>]>,
    /// Channels whose end was told before the thread that opened them had added their links.
    closed_early: HashSet<u64>,
}

#[derive(Default)]
struct Turn {
    /// A thread sleeps on the bell.
    leading: bool,
    followers: usize,
    /// Grows whenever something arrived, so that no follower sleeps through it.
    arrivals: u64,
}

impl Core {
    pub(crate) fn new(client: Client, executor: Option<Executor>) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Arc::new(Self {
            events: client.events(),
            client,
            submitter: Submitter::default(),
            executor,
            head: OnceLock::new(),
            links: RwLock::default(),
            turn: Mutex::default(),
            followers: Condvar::new(),
            courier: Condvar::new(),
            courier_sleeps: AtomicBool::new(false),
            over: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            spins: cores > 1,
        })
    }

    /// Takes up the link to the head, which all asking for workers and actors goes through.
    pub(crate) fn set_head(self: &Arc<Self>, link: Arc<Link>) {
        self.add_link(link.clone());
        let _ = self.head.set(link);
    }

    pub(crate) fn head(&self) -> Option<&Arc<Link>> {
        self.head.get()
    }

    /// From here on the link's mail is looked at. It may be closed already.
    pub(crate) fn add_link(self: &Arc<Self>, link: Arc<Link>) {
        let mut links = self.links.write();
        if links.closed_early.remove(&link.id) {
            drop(links);
            return self.drop_link(&link);
        }
        links.open = links.open.iter().cloned().chain([link]).collect();
    }

    fn links(&self) -> Arc<[Arc<Link>]> {
        self.links.read().open.clone()
    }

    // ---- values ----

    /// A small encoded value as it goes into a record; `None` for one that must go through the store.
    pub(crate) fn inline(&self, encoded: &Encoded) -> Option<Inline> {
        (encoded.len() <= INLINE_BYTES_MAX && encoded.references().len() <= INLINE_REFERENCES_MAX)
            .then(|| Inline { bytes: encoded.to_vec().into(), references: encoded.references().to_vec() })
    }

    /// Puts an encoded value into the store.
    pub(crate) fn store(&self, encoded: &Encoded) -> Result<Handle, ClientError> {
        let references = encoded.references().to_vec();
        let layout = Layout { length: encoded.len() as u64, format: format::VALUE, references };
        let mut writer = self.client.create(layout)?;
        encoded.write_into(&mut writer);
        Ok(writer.seal().handle())
    }

    /// An object id for a slot's result, to be passed on inside a value.
    pub(crate) fn escape(&self, slot: &Slot) -> Result<Handle, ClientError> {
        let (handle, promised) = slot.escape(&self.client)?;
        if promised {
            self.submitter.promised(1);
            self.wake_courier();
        }
        Ok(handle)
    }

    // ---- mail ----

    /// Deals with everything that has arrived; `true` if there was anything.
    pub(crate) fn look(self: &Arc<Self>) -> bool {
        let mut any = false;
        while let Ok(event) = self.events.try_recv() {
            self.on_event(event);
            any = true;
        }
        for link in self.links().iter() {
            any |= self.receive(link);
            link.flush();
        }
        any |= self.submit_what_became_ready();
        if any {
            self.announce();
        }
        any
    }

    fn receive(self: &Arc<Self>, link: &Arc<Link>) -> bool {
        if self.head.get().is_some_and(|head| Arc::ptr_eq(head, link)) {
            return link.receive(|record| self.on_head(record));
        }
        if !link.incoming {
            return link.receive(|record| self.on_results(link, record));
        }
        match &self.executor {
            Some(executor) => link.receive(|record| executor.on_call(link, record)),
            None => link.receive(|_| tracing::warn!("a call arrived in a process that runs none")),
        }
    }

    /// Whether [`look`](Self::look) would find something.
    fn has_work(&self) -> bool {
        !self.events.is_empty()
            || self.links.read().open.iter().any(|link| link.has_work())
            || self.submitter.has_ready_foreign()
    }

    fn on_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::ChannelOpened(incoming) => match self.client.accept(incoming) {
                Ok(channel) => self.add_link(Arc::new(Link::new(channel, true))),
                Err(error) => tracing::warn!(%error, "a caller was gone before its channel was opened"),
            },
            Event::ChannelClosed(id) => {
                let mut links = self.links.write();
                let Some(link) = links.open.iter().find(|link| link.id == id).cloned() else {
                    links.closed_early.insert(id);
                    return;
                };
                drop(links);
                // What the other end said before it ended still counts.
                self.receive(&link);
                self.drop_link(&link);
                if self.head.get().is_some_and(|head| Arc::ptr_eq(head, &link)) {
                    self.on_session_over();
                }
            }
            Event::StoreLost => self.on_session_over(),
            // Whoever waits for its promises looks again.
            _ => {}
        }
    }

    fn drop_link(self: &Arc<Self>, link: &Arc<Link>) {
        link.close();
        {
            let mut links = self.links.write();
            links.open = links.open.iter().filter(|other| !Arc::ptr_eq(other, link)).cloned().collect();
        }
        if let Some(executor) = &self.executor {
            executor.on_caller_gone(link);
        }
        self.on_worker_gone(link);
    }

    // ---- waiting ----

    /// Waits until `look` finds what it looks for, dealing with the mail meanwhile; `None` when the deadline has passed,
    /// or the session is over.
    pub(crate) fn wait<R>(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        if let Some(found) = look() {
            return Some(found);
        }
        let mut took_part = false;
        let mut blocked = None;
        let found = loop {
            self.look();
            let arrivals = self.turn.lock().arrivals;
            if let Some(found) = look() {
                break Some(found);
            }
            if self.is_over() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break None;
            }
            if self.spin() {
                continue;
            }
            blocked.get_or_insert_with(|| self.give_place_up());
            let mut turn = self.turn.lock();
            if turn.arrivals != arrivals {
                continue;
            }
            if turn.leading {
                turn.followers += 1;
                match deadline {
                    Some(deadline) => _ = self.followers.wait_until(&mut turn, deadline),
                    None => self.followers.wait(&mut turn),
                }
                turn.followers -= 1;
                took_part = true;
                continue;
            }
            turn.leading = true;
            took_part = true;
            drop(turn);
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut found = None;
            self.client.sleep(timeout, || {
                found = look();
                found.is_some() || self.has_work()
            });
            self.turn.lock().leading = false;
            if found.is_some() {
                break found;
            }
        };
        if took_part {
            self.hand_over();
        }
        found
    }

    /// Looks at the mail for a moment, where another process can be at work meanwhile; `true` if something came.
    fn spin(&self) -> bool {
        if !self.spins {
            return false;
        }
        let start = Instant::now();
        while start.elapsed() < SPIN {
            if self.has_work() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Something is different: whoever waits looks again.
    pub(crate) fn announce(&self) {
        let mut turn = self.turn.lock();
        turn.arrivals += 1;
        if turn.followers > 0 {
            self.followers.notify_all();
        }
        if turn.leading {
            self.client.ring();
        }
    }

    /// The leader leaves: somebody else is to sleep on the bell, if anybody needs to.
    fn hand_over(&self) {
        let turn = self.turn.lock();
        if turn.leading {
            return;
        }
        if turn.followers > 0 {
            self.followers.notify_one();
        } else if self.submitter.is_busy() {
            self.courier.notify_one();
        }
    }

    pub(crate) fn wake_courier(&self) {
        // The lock makes sure that the courier is either waiting or about to look.
        let _turn = self.turn.lock();
        self.courier.notify_one();
    }

    /// A call begins: the courier is to look after what arrives behind it. A load, mostly: it stays awake for a while.
    pub(crate) fn call_begins(&self) {
        if self.courier_sleeps.load(Ordering::SeqCst) {
            self.wake_courier();
        }
    }

    /// The courier's thread; see the module's documentation.
    pub(crate) fn run_courier(self: &Arc<Self>) {
        let mut tick = TICK;
        loop {
            let mut turn = self.turn.lock();
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            let alone = !turn.leading && turn.followers == 0;
            if alone && self.submitter.is_busy() {
                turn.leading = true;
                drop(turn);
                let timeout = self.needs_ticks().then_some(tick);
                self.client.sleep(timeout, || {
                    self.has_work() || !self.submitter.is_busy() || self.stopping.load(Ordering::Acquire)
                });
                self.turn.lock().leading = false;
                if self.look() {
                    tick = TICK;
                } else if timeout.is_some() {
                    tick = (tick * 2).min(TICK_MAX);
                    self.tick();
                }
                self.hand_over();
            } else if self.needs_ticks() {
                let timed_out = self.courier.wait_for(&mut turn, tick).timed_out();
                let leading = turn.leading;
                drop(turn);
                if timed_out {
                    let found = !leading && self.look();
                    tick = if found { TICK } else { (tick * 2).min(TICK_MAX) };
                    self.tick();
                } else {
                    tick = TICK;
                }
            } else {
                // SeqCst, and another look: a call that begins now either sees the flag or is seen.
                self.courier_sleeps.store(true, Ordering::SeqCst);
                if !self.needs_ticks() {
                    self.courier.wait(&mut turn);
                }
                self.courier_sleeps.store(false, Ordering::SeqCst);
                tick = TICK;
            }
        }
    }

    /// Whether something is to be looked after that nobody will ring for.
    fn needs_ticks(&self) -> bool {
        self.submitter.has_leases()
            || self.executor.as_ref().is_some_and(Executor::is_active)
            || self.links.read().open.iter().any(|link| link.holds_anything())
    }

    fn tick(self: &Arc<Self>) {
        self.return_idle_workers();
        if let Some(executor) = &self.executor {
            executor.decline_behind_a_long_call();
        }
        for link in self.links().iter() {
            link.flush();
        }
    }

    /// A worker that waits for others gives its place to them until the guard is dropped.
    fn give_place_up(&self) -> Option<crate::executor::PlaceGivenUp> {
        self.executor.as_ref().and_then(|executor| executor.give_place_up(self.head()?))
    }

    // ---- the end ----

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn on_session_over(self: &Arc<Self>) {
        self.over.store(true, Ordering::Release);
        self.fail_everything(&Failure::SessionOver);
        if let Some(executor) = &self.executor {
            executor.stop();
        }
        self.announce();
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_courier();
        self.client.ring();
    }
}
