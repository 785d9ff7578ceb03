//! The part of the runtime that every process of a session has: its client, its links to others, and the waiting.
//!
//! # Who looks at the mail
//!
//! Records and events are dealt with by whichever thread waits for something: it looks, and when there is nothing, one
//! thread (the *leader*) sleeps on the process's bell, the others (*followers*) on a condition variable. A leader that
//! has what it waited for hands over to a follower. When nobody waits, the *courier*, a thread in the background, leads
//! as long as there are calls that have not been sent: they wait for arguments, for a worker, or for room. So a call
//! and its `get` cost no switch between threads of the process, and nothing stays behind when no thread waits.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam::channel::Receiver;
use mobula_client::{Client, ClientError, Event, Handle, Layout};
use parking_lot::{Condvar, Mutex};

use crate::call::payload::Encoded;
use crate::call::result_cell::ResultCell;
use crate::error::Failure;
use crate::mail::link::{Link, take_found_asleep};
use crate::mail::spin::Spin;
use crate::session::SessionNumber;
use crate::submit::Submitter;
use crate::wire::ToHead;
use crate::worker;
use crate::worker::executor::Executor;

/// How soon the courier looks after leases and acknowledgements when nobody waits; twice as late each time that it finds
/// nothing to do, up to `TICK_MAX`.
const TICK: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_millis(160);
/// How long the courier leaves the mail to a thread that makes one call after the other, and looks at it meanwhile.
const NAP: Duration = Duration::from_micros(300);

/// The courier does not wait, or only for a moment.
const AWAKE: u8 = 0;
/// The courier waits for its next tick.
const DOZING: u8 = 1;
/// The courier waits until it is woken.
const ASLEEP: u8 = 2;

/// See the module's documentation.
pub struct Runtime {
    pub(crate) session: SessionNumber,
    pub(crate) client: Client,
    pub(crate) submitter: Submitter,
    /// What this process runs for others; none in the driver.
    pub(crate) executor: Option<Executor>,
    head: OnceLock<Arc<Link>>,
    links: ArcSwap<Vec<Arc<Link>>>,
    /// Held while the links change: channels whose end was told before the thread that opened them had added their
    /// links.
    closed_early: Mutex<HashSet<u64>>,
    events: Receiver<Event>,
    /// Grows whenever something arrived, so that no follower sleeps through it.
    arrivals: AtomicU64,
    /// How many calls have failed, so that a wait for many results can tell that one has failed without checking each.
    pub(crate) failures: AtomicU64,
    turn: Mutex<Turn>,
    /// Threads that sleep, or are about to: the leader and the followers.
    sleepers: AtomicUsize,
    followers: Condvar,
    courier: Condvar,
    /// Whether the courier waits to be woken: [`AWAKE`], [`DOZING`] or [`ASLEEP`].
    courier_is: AtomicU8,
    /// The session is over: nothing more will arrive.
    over: AtomicBool,
    stopping: AtomicBool,
    spin: Spin,
}

#[derive(Default)]
struct Turn {
    /// A thread sleeps on the bell.
    leading: bool,
    followers: usize,
}

impl Runtime {
    pub(crate) fn new(client: Client, executor: Option<Executor>, spin: Duration) -> Arc<Self> {
        Arc::new(Self {
            session: SessionNumber::next(),
            events: client.events(),
            client,
            submitter: Submitter::default(),
            executor,
            head: OnceLock::new(),
            links: ArcSwap::default(),
            closed_early: Mutex::default(),
            arrivals: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            turn: Mutex::default(),
            sleepers: AtomicUsize::new(0),
            followers: Condvar::new(),
            courier: Condvar::new(),
            courier_is: AtomicU8::new(AWAKE),
            over: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            spin: Spin::new(spin),
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
        let mut closed_early = self.closed_early.lock();
        if closed_early.remove(&link.id) {
            drop(closed_early);
            return self.drop_link(&link);
        }
        let links = self.links.load().iter().cloned().chain([link]).collect();
        self.links.store(Arc::new(links));
    }

    /// The client of this process.
    pub fn client(&self) -> &Client {
        &self.client
    }

    // ---- values ----

    /// Puts an encoded value into the store.
    ///
    /// # Errors
    /// Those of [`Client::create`].
    pub fn store(&self, encoded: &impl Encoded) -> Result<Handle, ClientError> {
        let references = encoded.references().to_vec();
        let layout = Layout { length: encoded.payload_bytes() as u64, format: encoded.format(), references };
        let mut writer = self.client.create(layout)?;
        encoded.write_into(&mut writer);
        Ok(writer.seal().handle())
    }

    /// Puts a payload that refers to no objects into the store.
    pub(crate) fn store_payload(&self, format: u32, payload: &[u8]) -> Result<Handle, ClientError> {
        let layout = Layout { length: payload.len() as u64, format, references: Vec::new() };
        let mut writer = self.client.create(layout)?;
        writer.copy_from_slice(payload);
        Ok(writer.seal().handle())
    }

    /// An object for a call's result, to be passed on inside a value.
    pub(crate) fn export(&self, cell: &ResultCell) -> Result<Handle, ClientError> {
        let (handle, promised) = cell.export(&self.client)?;
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
        for link in self.links.load().iter() {
            any |= self.receive(link);
            link.flush();
            // What the other end wrote cannot be read: it is as good as gone.
            if link.is_closed() && self.links.load().iter().any(|open| Arc::ptr_eq(open, link)) {
                self.lose_link(link);
                self.tell_broken(link);
                any = true;
            }
        }
        any |= self.submit_what_became_ready();
        if any {
            self.announce();
        }
        any
    }

    fn receive(self: &Arc<Self>, link: &Arc<Link>) -> bool {
        self.receive_by(link, Link::receive)
    }

    /// Deals with all that the other end of a link has said, when it says no more.
    pub(crate) fn receive_the_rest(self: &Arc<Self>, link: &Arc<Link>) {
        self.receive_by(link, Link::receive_the_rest);
    }

    fn receive_by(
        self: &Arc<Self>,
        link: &Arc<Link>,
        receive: impl FnOnce(&Link, &mut dyn FnMut(&mut Vec<u8>)) -> bool,
    ) -> bool {
        if self.is_head(link) {
            return receive(link, &mut |record| self.on_head(record));
        }
        if !link.incoming {
            return receive(link, &mut |record| self.on_results(link, record));
        }
        match &self.executor {
            Some(executor) => receive(link, &mut |record| executor.on_call(link, record)),
            None => receive(link, &mut |_| tracing::warn!("a call arrived in a process that runs none")),
        }
    }

    /// Whether [`look`](Self::look) would find something.
    fn has_work(&self) -> bool {
        self.has_work_in(&self.links.load())
    }

    fn has_work_in(&self, links: &[Arc<Link>]) -> bool {
        links.iter().any(|link| link.has_work())
            || !self.events.is_empty()
            || self.submitter.has_ready_foreign()
    }

    fn on_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::ChannelOpened(incoming) => match self.client.accept(incoming) {
                Ok(channel) => self.add_link(Arc::new(Link::new(channel, true))),
                Err(error) => tracing::warn!(%error, "a caller was gone before its channel was opened"),
            },
            Event::ChannelClosed(id) => {
                let mut closed_early = self.closed_early.lock();
                let Some(link) = self.links.load().iter().find(|link| link.id == id).cloned() else {
                    closed_early.insert(id);
                    return;
                };
                drop(closed_early);
                // What the other end said before it ended still counts.
                self.receive_the_rest(&link);
                self.lose_link(&link);
            }
            Event::StoreLost => self.on_session_over(),
            // Whoever waits for its promises looks again.
            _ => {}
        }
    }

    fn lose_link(self: &Arc<Self>, link: &Arc<Link>) {
        self.drop_link(link);
        if self.is_head(link) {
            self.on_session_over();
        }
    }

    /// The head ends a process that serves others and writes nonsense.
    fn tell_broken(&self, link: &Arc<Link>) {
        if let Some(head) = self.head().filter(|head| !link.incoming && !Arc::ptr_eq(head, link)) {
            let _ = head.send(&ToHead::Broken { process: link.peer }, Vec::new());
        }
    }

    fn is_head(&self, link: &Arc<Link>) -> bool {
        self.head.get().is_some_and(|head| Arc::ptr_eq(head, link))
    }

    fn drop_link(self: &Arc<Self>, link: &Arc<Link>) {
        link.close();
        {
            let _changing = self.closed_early.lock();
            let links = self.links.load();
            let others = links.iter().filter(|other| !Arc::ptr_eq(other, link)).cloned().collect();
            self.links.store(Arc::new(others));
        }
        if let Some(executor) = &self.executor {
            executor.on_caller_gone(link, self.head());
        }
        self.on_worker_gone(link);
    }

    // ---- waiting ----

    /// Waits until `look` finds what it looks for, dealing with the mail meanwhile; `None` when the deadline has passed,
    /// or the session is over.
    pub(crate) fn wait<R>(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        // A worker that waits for others gives its place to them, from when it really sleeps.
        let waiting = OnceCell::new();
        let sleeps = || {
            waiting.get_or_init(|| Some(self.executor.as_ref()?.begin_wait(self.head()?)));
        };
        self.wait_calling(deadline, sleeps, look)
    }

    /// The wait of a worker between its calls, which has `idle` called each time before it really sleeps.
    pub(crate) fn wait_for_work<R>(
        self: &Arc<Self>,
        idle: impl Fn(),
        look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        self.wait_calling(None, idle, look)
    }

    fn wait_calling<R>(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        sleeps: impl Fn(),
        mut look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let mut has_looked = false;
        let mut asleep_since = None;
        let mut took_part = false;
        let is_vain = || self.is_over() || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let found = loop {
            // SeqCst: before all looks, so that what another thread finds from here on, or the session's end, is noticed.
            let arrivals = self.arrivals.load(Ordering::SeqCst);
            if let Some(found) = look() {
                break Some(found);
            }
            // However much arrives, a wait ends.
            if has_looked && is_vain() {
                break None;
            }
            has_looked = true;
            if self.look() || self.spin(arrivals) {
                continue;
            }
            // What another thread has found since the last look, this one has not seen.
            if let Some(found) = look() {
                break Some(found);
            }
            if is_vain() {
                break None;
            }
            sleeps();
            asleep_since.get_or_insert_with(Instant::now);
            let mut turn = self.turn.lock();
            let sleeper = Sleeper::new(&self.sleepers);
            if self.has_arrived(arrivals) {
                continue;
            }
            took_part = true;
            if turn.leading {
                turn.followers += 1;
                match deadline {
                    Some(deadline) => _ = self.followers.wait_until(&mut turn, deadline),
                    None => self.followers.wait(&mut turn),
                }
                turn.followers -= 1;
                continue;
            }
            turn.leading = true;
            drop(turn);
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut found = None;
            self.client.sleep(timeout, || {
                found = look();
                found.is_some() || self.has_work()
            });
            drop(sleeper);
            self.turn.lock().leading = false;
            if found.is_some() {
                break found;
            }
        };
        if let Some(since) = asleep_since {
            self.spin.slept(since);
        }
        if took_part {
            self.hand_over();
        }
        found
    }

    /// Looks for something new for a moment; `true` if there is.
    fn spin(&self, arrivals: u64) -> bool {
        // New links make themselves known by an event, or by an arrival.
        let links = self.links.load();
        self.spin.until(take_found_asleep(), || self.has_work_in(&links) || self.has_arrived(arrivals))
    }

    fn has_arrived(&self, since: u64) -> bool {
        // SeqCst: pairs with `announce`.
        self.arrivals.load(Ordering::SeqCst) != since
    }

    /// Something is different: whoever waits looks again.
    pub(crate) fn announce(&self) {
        // SeqCst, both: who goes to sleep counts itself first and looks at the arrivals then.
        self.arrivals.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let turn = self.turn.lock();
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
        } else if self.is_busy() {
            self.courier.notify_one();
        }
    }

    /// Whether somebody must look at the mail although nobody waits: calls have not been sent.
    fn is_busy(&self) -> bool {
        self.submitter.is_busy() || self.links.load().iter().any(|link| link.is_backlogged())
    }

    pub(crate) fn wake_courier(&self) {
        // The lock makes sure that the courier is either waiting or about to look.
        let _turn = self.turn.lock();
        self.courier.notify_one();
    }

    /// A call begins: the courier is to look after what arrives behind it. A load, mostly: it stays awake for a while.
    pub(crate) fn call_begins(&self) {
        if self.courier_is.load(Ordering::SeqCst) == ASLEEP {
            self.wake_courier();
        }
    }

    /// A call could not be sent at once: if nobody else does, the courier is to look for what it waits for. A load,
    /// mostly.
    pub(crate) fn call_waits(&self) {
        if self.courier_is.load(Ordering::SeqCst) != AWAKE {
            self.wake_courier();
        }
    }

    /// The courier's thread; see the module's documentation.
    pub(crate) fn run_courier(self: &Arc<Self>) {
        let mut tick = TICK;
        let mut ticked = Instant::now();
        let mut calls_seen = 0;
        loop {
            let mut turn = self.turn.lock();
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            let alone = !turn.leading && turn.followers == 0;
            if alone && self.is_busy() {
                // A thread that makes one call after the other looks at the mail itself.
                let calls = self.submitter.calls();
                if calls != calls_seen {
                    calls_seen = calls;
                    self.courier.wait_for(&mut turn, NAP);
                    drop(turn);
                    if ticked.elapsed() >= TICK {
                        ticked = Instant::now();
                        self.look();
                        self.tick();
                    }
                    continue;
                }
                turn.leading = true;
                let sleeper = Sleeper::new(&self.sleepers);
                drop(turn);
                let timeout = self.needs_ticks().then_some(tick);
                self.client.sleep(timeout, || {
                    self.has_work() || !self.is_busy() || self.stopping.load(Ordering::Acquire)
                });
                drop(sleeper);
                self.turn.lock().leading = false;
                if self.look() {
                    tick = TICK;
                } else if timeout.is_some() {
                    tick = (tick * 2).min(TICK_MAX);
                    self.tick();
                }
                self.hand_over();
            } else {
                let ticks = self.needs_ticks();
                // SeqCst, and another look: a call that begins now either sees the state or is seen.
                self.courier_is.store(if ticks { DOZING } else { ASLEEP }, Ordering::SeqCst);
                if alone && self.is_busy() || self.needs_ticks() != ticks {
                    self.courier_is.store(AWAKE, Ordering::SeqCst);
                    continue;
                }
                let timed_out = if ticks {
                    self.courier.wait_for(&mut turn, tick).timed_out()
                } else {
                    self.courier.wait(&mut turn);
                    false
                };
                self.courier_is.store(AWAKE, Ordering::SeqCst);
                let leading = turn.leading;
                drop(turn);
                if timed_out {
                    let found = !leading && self.look();
                    tick = if found { TICK } else { (tick * 2).min(TICK_MAX) };
                    self.tick();
                } else {
                    tick = TICK;
                }
            }
        }
    }

    /// Whether something is to be looked after that nobody will ring for.
    fn needs_ticks(&self) -> bool {
        self.submitter.has_leases()
            || self.has_lost_actors()
            || self.executor.as_ref().is_some_and(Executor::is_active)
            || self.links.load().iter().any(|link| link.holds_anything())
    }

    fn tick(self: &Arc<Self>) {
        self.return_idle_workers();
        self.reach_lost_actors();
        if let Some(executor) = &self.executor {
            executor.decline_behind_a_long_call();
            worker::end_if_descriptors_are_gone();
        }
        for link in self.links.load().iter() {
            link.flush();
        }
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

/// Counts a thread among those that sleep.
struct Sleeper<'a>(&'a AtomicUsize);

impl<'a> Sleeper<'a> {
    fn new(sleepers: &'a AtomicUsize) -> Self {
        // SeqCst: pairs with `Runtime::announce`.
        sleepers.fetch_add(1, Ordering::SeqCst);
        Self(sleepers)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
