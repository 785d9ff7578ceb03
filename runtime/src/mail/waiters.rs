//! Waiting for mail: which thread of a process looks at it.
//!
//! A thread that waits for something handles the records and events. When there are none, one thread (the *leader*)
//! sleeps on the process's bell, and the others (the *followers*) on a condition variable. A leader that has what it
//! waited for hands over to a follower. When no thread waits, the *background poller* leads while there are calls that
//! have not been sent: they wait for arguments, for a worker, or for room. So a call and its `get` cost no switch
//! between threads of the process, and no call stays behind when no thread waits. The poller also looks when an event
//! comes, such as the end of another process: the memory and descriptors for that process are then released.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mobula_client::Client;
use parking_lot::{Condvar, Mutex};

use crate::mail::link::take_found_asleep;
use crate::mail::spin::Spin;

/// How soon the poller looks after leases and acknowledgements when no thread waits. The time doubles each time that
/// the poller finds nothing to do, up to `TICK_MAX`.
const TICK: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_millis(160);
/// How long the poller sleeps while another thread makes calls one after the other: that thread looks at the mail
/// itself.
const NAP: Duration = Duration::from_micros(300);

/// The poller does not wait, or only for a moment.
const AWAKE: u8 = 0;
/// The poller waits for its next tick.
const DOZING: u8 = 1;
/// The poller waits until it is woken.
const ASLEEP: u8 = 2;

/// The mail that the threads look at, and the work that comes with it.
pub(crate) trait Mail {
    /// Handles everything that has arrived. Returns `true` if there was anything.
    fn look(&self) -> bool;

    /// Whether [`look`](Self::look) would find something, to be asked again and again. New links make themselves known
    /// by an event, or by an arrival.
    fn has_work(&self) -> impl Fn() -> bool + '_;

    /// Whether an event waits.
    fn has_events(&self) -> bool;

    /// Whether a thread must look although none waits: calls have not been sent.
    fn is_busy(&self) -> bool;

    /// The number of calls made so far.
    fn calls(&self) -> u64;

    /// Whether a future waits, which does not look itself.
    fn has_futures(&self) -> bool;

    /// Whether [`tick`](Self::tick) has periodic work, for which no process rings the bell.
    fn needs_ticks(&self) -> bool;

    /// Does the periodic work.
    fn tick(&self);
}

/// The threads of a process that wait for mail; see the module's documentation.
pub(crate) struct Waiters {
    client: Client,
    /// Grows with each arrival, so that no follower sleeps through one.
    arrivals: AtomicU64,
    roles: Mutex<Roles>,
    /// Threads that sleep, or are about to: the leader and the followers.
    sleepers: AtomicUsize,
    followers: Condvar,
    poller: Condvar,
    /// Whether the poller waits to be woken: [`AWAKE`], [`DOZING`] or [`ASLEEP`].
    poller_is: AtomicU8,
    /// The session is over: nothing more will arrive.
    over: AtomicBool,
    stopping: AtomicBool,
    spin: Spin,
}

#[derive(Default)]
struct Roles {
    /// A thread sleeps on the bell.
    leading: bool,
    followers: usize,
}

impl Waiters {
    pub(crate) fn new(client: Client, spin: Duration) -> Arc<Self> {
        Arc::new(Self {
            client,
            arrivals: AtomicU64::new(0),
            roles: Mutex::default(),
            sleepers: AtomicUsize::new(0),
            followers: Condvar::new(),
            poller: Condvar::new(),
            poller_is: AtomicU8::new(AWAKE),
            over: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            spin: Spin::new(spin),
        })
    }

    /// Waits until `look` returns `Some`, and handles the mail meanwhile. Returns `None` when the deadline has passed
    /// or the session is over. Calls `sleeps` each time before the thread sleeps.
    pub(crate) fn wait<R>(
        &self,
        mail: &impl Mail,
        deadline: Option<Instant>,
        sleeps: impl Fn(),
        mut look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let mut has_looked = false;
        let mut asleep_since = None;
        let mut took_part = false;
        let is_vain = || self.is_over() || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let found = loop {
            // SeqCst: before all looks, so that what another thread finds from here on, or the session's end, is
            // noticed.
            let arrivals = self.arrivals.load(Ordering::SeqCst);
            if let Some(found) = look() {
                break Some(found);
            }
            // However much arrives, a wait ends.
            if has_looked && is_vain() {
                break None;
            }
            has_looked = true;
            if mail.look() || self.spin(mail, arrivals) {
                continue;
            }
            // Another thread may have found something since the last `look`.
            if let Some(found) = look() {
                break Some(found);
            }
            if is_vain() {
                break None;
            }
            sleeps();
            asleep_since.get_or_insert_with(Instant::now);
            let mut roles = self.roles.lock();
            let sleeper = Sleeper::new(&self.sleepers);
            if self.has_arrived(arrivals) {
                continue;
            }
            took_part = true;
            if roles.leading {
                roles.followers += 1;
                match deadline {
                    Some(deadline) => _ = self.followers.wait_until(&mut roles, deadline),
                    None => self.followers.wait(&mut roles),
                }
                roles.followers -= 1;
                continue;
            }
            roles.leading = true;
            drop(roles);
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut found = None;
            self.client.sleep(timeout, || {
                found = look();
                found.is_some() || mail.has_work()()
            });
            drop(sleeper);
            self.roles.lock().leading = false;
            if found.is_some() {
                break found;
            }
        };
        if let Some(since) = asleep_since {
            self.spin.slept(since);
        }
        if took_part {
            self.hand_over(mail);
        }
        found
    }

    /// Looks for news for a moment without sleeping. Returns `true` if there are any.
    fn spin(&self, mail: &impl Mail, arrivals: u64) -> bool {
        let has_work = mail.has_work();
        self.spin.until(take_found_asleep(), || has_work() || self.has_arrived(arrivals))
    }

    fn has_arrived(&self, since: u64) -> bool {
        // SeqCst: pairs with `announce`.
        self.arrivals.load(Ordering::SeqCst) != since
    }

    /// Announces a change: all threads that wait look again.
    pub(crate) fn announce(&self) {
        // SeqCst, both: a thread that goes to sleep counts itself first and looks at the arrivals then.
        self.arrivals.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let roles = self.roles.lock();
        if roles.followers > 0 {
            self.followers.notify_all();
        }
        if roles.leading {
            self.client.ring();
        }
    }

    /// Called when the leader leaves: another thread has to sleep on the bell, if any needs to.
    fn hand_over(&self, mail: &impl Mail) {
        let roles = self.roles.lock();
        if roles.leading {
            return;
        }
        if roles.followers > 0 {
            self.followers.notify_one();
        } else if mail.is_busy() {
            self.poller.notify_one();
        }
    }

    // ---- the background poller ----

    pub(crate) fn wake_poller(&self) {
        // The lock makes sure that the poller is either waiting or about to look.
        let _roles = self.roles.lock();
        self.poller.notify_one();
    }

    /// A call begins: the poller must look after the mail that arrives meanwhile. Mostly one load, because the poller
    /// stays awake for a while.
    pub(crate) fn call_begins(&self) {
        if self.poller_is.load(Ordering::SeqCst) == ASLEEP {
            self.wake_poller();
        }
    }

    /// A call could not be sent at once, or an event has come: the poller must look, unless another thread does. Mostly
    /// one load.
    pub(crate) fn call_waits(&self) {
        if self.poller_is.load(Ordering::SeqCst) != AWAKE {
            self.wake_poller();
        }
    }

    /// The poller's thread, until [`stop_poller`](Self::stop_poller).
    pub(crate) fn run_poller(&self, mail: &impl Mail) {
        let mut tick = TICK;
        let mut ticked = Instant::now();
        let mut calls_seen = 0;
        loop {
            let mut roles = self.roles.lock();
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            let alone = !roles.leading && roles.followers == 0;
            if alone && mail.has_events() {
                drop(roles);
                mail.look();
            } else if alone && mail.is_busy() {
                // A thread that makes one call after the other looks at the mail itself.
                let calls = mail.calls();
                if calls != calls_seen && !mail.has_futures() {
                    calls_seen = calls;
                    self.poller.wait_for(&mut roles, NAP);
                    drop(roles);
                    if ticked.elapsed() >= TICK {
                        ticked = Instant::now();
                        mail.look();
                        mail.tick();
                    }
                    continue;
                }
                roles.leading = true;
                let sleeper = Sleeper::new(&self.sleepers);
                drop(roles);
                let timeout = mail.needs_ticks().then_some(tick);
                self.client.sleep(timeout, || {
                    mail.has_work()() || !mail.is_busy() || self.stopping.load(Ordering::Acquire)
                });
                drop(sleeper);
                self.roles.lock().leading = false;
                if mail.look() {
                    tick = TICK;
                } else if timeout.is_some() {
                    tick = (tick * 2).min(TICK_MAX);
                    mail.tick();
                }
                self.hand_over(mail);
            } else {
                let ticks = mail.needs_ticks();
                // SeqCst, and another look: a call or an event that comes now either sees the state or is seen.
                self.poller_is.store(if ticks { DOZING } else { ASLEEP }, Ordering::SeqCst);
                if alone && (mail.is_busy() || mail.has_events()) || mail.needs_ticks() != ticks {
                    self.poller_is.store(AWAKE, Ordering::SeqCst);
                    continue;
                }
                let timed_out = if ticks {
                    self.poller.wait_for(&mut roles, tick).timed_out()
                } else {
                    self.poller.wait(&mut roles);
                    false
                };
                self.poller_is.store(AWAKE, Ordering::SeqCst);
                let leading = roles.leading;
                drop(roles);
                if timed_out {
                    let found = !leading && mail.look();
                    tick = if found { TICK } else { (tick * 2).min(TICK_MAX) };
                    mail.tick();
                } else {
                    tick = TICK;
                }
            }
        }
    }

    // ---- the end ----

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends every wait, from now on.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Ends the poller's thread.
    pub(crate) fn stop_poller(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake_poller();
        self.client.ring();
    }
}

/// Counts a thread that sleeps in `sleepers` until it is dropped.
struct Sleeper<'a>(&'a AtomicUsize);

impl<'a> Sleeper<'a> {
    fn new(sleepers: &'a AtomicUsize) -> Self {
        // SeqCst: pairs with `Waiters::announce`.
        sleepers.fetch_add(1, Ordering::SeqCst);
        Self(sleepers)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
