//! Waiting for mail: which thread of a process looks at it.
//!
//! A thread that waits for something handles the records and events. When there are none, one thread (the *leader*)
//! sleeps on the process's bell, and the others (the *followers*) on a condition variable. A leader whose wait is over
//! hands its role to a follower. A thread that has handled records wakes only those sleeping threads whose results may
//! have arrived. When no thread waits, the *background poller* leads while there are calls that have not been sent:
//! they wait for arguments, for a worker, or for room. It also leads while there are calls with time limits, or with
//! retries because of errors. So a call and its `get` need no switch between threads of the process, and each call is
//! sent even when no thread waits. The poller also looks when an event comes, such as the end of another process: the
//! memory and descriptors for that process are then released.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::result_cell::ResultCell;
use crate::mail::Bell;
use crate::mail::link::take_found_asleep;
use crate::mail::spin::Spin;
use crate::sync::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering};

/// How soon the poller looks after leases and acknowledgements when no thread waits. The time doubles each time that
/// the poller finds nothing to do, up to `TICK_MAX`.
const TICK: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_millis(160);
/// How long the poller pauses while another thread makes calls or waits again and again: that thread looks at the mail
/// itself. Longer than a nap.
const PAUSE: Duration = Duration::from_micros(600);

/// The most spins of a thread in which only other threads find something.
const SPINS_IN_VAIN_MAX: u32 = 16;

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

    /// Returns a function that says whether [`look`](Self::look) would find something. It is cheap to call repeatedly.
    /// New links announce themselves by an event or an arrival.
    fn has_work(&self) -> impl Fn() -> bool + '_;

    /// Whether an event waits.
    fn has_events(&self) -> bool;

    /// Whether a thread must look although none waits: calls have not been sent, or have limits or retries.
    fn is_busy(&self) -> bool;

    /// The number of calls made so far.
    fn calls(&self) -> u64;

    /// Whether a future waits, which does not look itself.
    fn has_futures(&self) -> bool;

    /// Whether [`tick`](Self::tick) has periodic work, for which no process rings the bell.
    fn needs_ticks(&self) -> bool;

    /// The time at which [`tick`](Self::tick) has work, if there is such a time. No process rings the bell for it. One
    /// load.
    fn due(&self) -> Option<Instant>;

    /// Does the periodic work, and what is due. Returns `true` if there is likely to be more soon.
    fn tick(&self) -> bool;
}

/// The threads of a process that wait for mail; see the module's documentation.
pub(crate) struct Waiters {
    bell: Bell,
    /// Grows with each arrival, so that no follower sleeps through one.
    arrivals: AtomicU64,
    roles: Mutex<Roles>,
    /// Threads that sleep, or are about to: the leader and the followers.
    sleepers: AtomicUsize,
    /// The number of results that were failures. From it, a wait for many results knows that one has failed without
    /// checking each.
    failures: AtomicU64,
    /// The number of waits that are over and in which a thread slept while calls had not been sent.
    waits: AtomicU64,
    poller: Condvar,
    /// Whether the poller waits to be woken: [`AWAKE`], [`DOZING`] or [`ASLEEP`].
    poller_is: AtomicU8,
    /// The session is over: nothing more will arrive.
    over: AtomicBool,
    stopping: AtomicBool,
    spin: Spin,
}

/// The result that a wait needs, as it is known when its thread is about to sleep.
#[derive(Default)]
pub(crate) struct Awaited {
    /// The wait does not end before this result is there, unless a call fails.
    pub(crate) result: Option<Arc<ResultCell>>,
    /// How long the thread may [nap](crate::mail::pace) instead of sleeping until another process wakes it.
    pub(crate) nap: Option<Duration>,
}

#[derive(Default)]
struct Roles {
    /// The thread that sleeps on the bell.
    leader: Option<Sleep>,
    /// That thread naps: other processes do not ring for it.
    napping: bool,
    /// The other threads that sleep, in the order in which they came. A thread that is woken is taken out.
    followers: Vec<(Sleep, Arc<Condvar>)>,
    /// Threads that have slept and are awake, in the middle of a wait. Each of them sleeps again or hands over.
    awake: usize,
}

/// The reason why a thread sleeps.
#[derive(Default)]
struct Sleep {
    /// As in [`Awaited`].
    result: Option<Arc<ResultCell>>,
    /// The number of failed results that the thread has already considered.
    failures: u64,
}

impl Roles {
    /// Wakes a follower, which is awake from now on.
    fn wake(&mut self, follower: usize) {
        let (_, woken) = self.followers.remove(follower);
        woken.notify_one();
        self.awake += 1;
    }
}

impl Waiters {
    pub(crate) fn new(bell: Bell, spin: Duration) -> Arc<Self> {
        Arc::new(Self {
            bell,
            arrivals: AtomicU64::new(0),
            roles: Mutex::default(),
            sleepers: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            poller: Condvar::new(),
            poller_is: AtomicU8::new(AWAKE),
            over: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            spin: Spin::new(spin),
        })
    }

    /// Waits until `look` returns `Some`, and handles the mail meanwhile. Returns `None` when the deadline has passed
    /// or the session is over. Calls `sleeps` each time before the thread sleeps. `sleeps` returns the latest time of
    /// its next call, and the reason of the wait.
    pub(crate) fn wait<R>(
        &self,
        mail: &impl Mail,
        deadline: Option<Instant>,
        sleeps: impl Fn() -> Option<Instant>,
        awaited: impl Fn() -> Awaited,
        mut look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let mut has_looked = false;
        let mut has_napped = false;
        let mut asleep_since = None;
        // Whether this thread is one of the `awake`.
        let mut has_slept = false;
        let mut spins_in_vain = 0;
        let is_vain = || self.is_over() || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let found = loop {
            // SeqCst: before all looks, so that what another thread finds from here on, or the session's end, is
            // noticed.
            let arrivals = self.arrivals.load(Ordering::SeqCst);
            let failures = self.failures();
            if let Some(found) = look() {
                break Some(found);
            }
            // However much arrives, a wait ends.
            if has_looked && is_vain() {
                break None;
            }
            has_looked = true;
            if mail.look() {
                spins_in_vain = 0;
                continue;
            }
            // A thread that naps has time, and the results of other threads may come without end.
            if !has_napped && spins_in_vain < SPINS_IN_VAIN_MAX && self.spin(mail, arrivals, 0) {
                spins_in_vain += 1;
                continue;
            }
            // Another thread may have found something since the last `look`.
            if let Some(found) = look() {
                break Some(found);
            }
            if is_vain() {
                break None;
            }
            let until = [deadline, sleeps()].into_iter().flatten().min();
            asleep_since.get_or_insert_with(Instant::now);
            let Awaited { result, nap } = awaited();
            let sleep = Sleep { result, failures };
            has_napped = nap.is_some();
            let mut roles = self.roles.lock();
            let sleeper = Sleeper::new(&self.sleepers);
            if self.has_arrived(arrivals) && self.may_be_over(&sleep) {
                continue;
            }
            if std::mem::replace(&mut has_slept, true) {
                roles.awake -= 1;
            }
            if roles.leader.is_some() {
                // This thread may wait for a result that comes sooner.
                if std::mem::take(&mut roles.napping) {
                    self.bell.ring();
                }
                let woken = Arc::new(Condvar::new());
                roles.followers.push((sleep, woken.clone()));
                match until {
                    Some(until) => _ = woken.wait_until(&mut roles, until),
                    None => woken.wait(&mut roles),
                }
                // It is in the list only if no thread has woken it.
                let own = roles.followers.iter().position(|(_, other)| Arc::ptr_eq(other, &woken));
                if let Some(own) = own {
                    roles.wake(own);
                }
                continue;
            }
            let nap = nap.filter(|_| roles.followers.is_empty());
            (roles.leader, roles.napping) = (Some(sleep), nap.is_some());
            drop(roles);
            let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
            let mut found = None;
            match nap {
                Some(nap) => self.bell.nap(timeout.map_or(nap, |timeout| nap.min(timeout))),
                None => self.bell.sleep(timeout, || {
                    found = look();
                    found.is_some() || mail.has_work()()
                }),
            }
            drop(sleeper);
            let mut roles = self.roles.lock();
            let sleep = roles.leader.take();
            roles.napping = false;
            roles.awake += 1;
            // The bell may have been rung for a result of another thread that no record announces: a promise.
            self.wake_followers(&mut roles);
            drop(roles);
            drop(sleep);
            if found.is_some() {
                break found;
            }
        };
        if let Some(since) = asleep_since {
            self.spin.slept(since);
        }
        if has_slept {
            let mut roles = self.roles.lock();
            roles.awake -= 1;
            self.hand_over(mail, roles);
        }
        found
    }

    /// Handles the mail for a moment, as a thread does before it sleeps, until `is_over`. A future does this; otherwise
    /// another thread would have to wake it.
    ///
    /// The poller may have woken this future just now, and sleeps in the next moment. So it does not count as a thread
    /// that wants to run. If it did, a machine with two processors would seem full: the poller, this thread and the
    /// worker. The future would not spin, the poller would have to wake it again, and so on for each result.
    pub(crate) fn look_for_a_moment(&self, mail: &impl Mail, mut is_over: impl FnMut() -> bool) {
        let about_to_sleep = u32::from(self.poller_is.load(Ordering::Relaxed) == AWAKE);
        // The number of looks is limited, so that mail for others does not keep the thread from its other tasks.
        for _ in 0..SPINS_IN_VAIN_MAX {
            // SeqCst: before all looks, as in `wait`.
            let arrivals = self.arrivals.load(Ordering::SeqCst);
            if is_over() {
                return;
            }
            let has_work = mail.has_work()();
            if !has_work && !self.spin(mail, arrivals, about_to_sleep) {
                return;
            }
            mail.look();
        }
    }

    /// The wait of a future is over; its results came after this time.
    pub(crate) fn future_waited(&self, took: Duration) {
        self.spin.waited(took);
    }

    /// Looks for news for a moment without sleeping. Returns `true` if there are any.
    fn spin(&self, mail: &impl Mail, arrivals: u64, about_to_sleep: u32) -> bool {
        let has_work = mail.has_work();
        self.spin.until(take_found_asleep(), about_to_sleep, || has_work() || self.has_arrived(arrivals))
    }

    fn has_arrived(&self, since: u64) -> bool {
        // SeqCst: pairs with `announce`.
        self.arrivals.load(Ordering::SeqCst) != since
    }

    /// How many results were failures, ever.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Counts a result that is a failure and is already visible. The caller announces it afterwards.
    pub(crate) fn add_failure(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
    }

    /// Announces a change: the threads that wait look again if their results may be there.
    pub(crate) fn announce(&self) {
        // SeqCst, both: a thread that goes to sleep counts itself first and looks at the arrivals then.
        self.arrivals.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut roles = self.roles.lock();
        self.wake_followers(&mut roles);
        if roles.leader.as_ref().is_some_and(|sleep| self.may_be_over(sleep)) {
            self.bell.ring();
        }
    }

    fn wake_followers(&self, roles: &mut Roles) {
        let mut at = 0;
        while let Some((sleep, _)) = roles.followers.get(at) {
            if self.may_be_over(sleep) {
                roles.wake(at);
            } else {
                at += 1;
            }
        }
    }

    /// Whether the wait of a thread that sleeps may be over.
    fn may_be_over(&self, sleep: &Sleep) -> bool {
        let is_ready = sleep.result.as_ref().is_none_or(|result| result.is_ready());
        is_ready || sleep.failures != self.failures() || self.is_over()
    }

    /// Called when a thread leaves that may have led: another thread has to sleep on the bell, if any needs to.
    fn hand_over(&self, mail: &impl Mail, mut roles: MutexGuard<'_, Roles>) {
        if roles.leader.is_some() || roles.awake > 0 {
            return;
        }
        if !roles.followers.is_empty() {
            roles.wake(0);
        } else if mail.is_busy() {
            self.waits.fetch_add(1, Ordering::Relaxed);
            // A poller that is awake looks soon. Its state changes while the roles are locked.
            if self.poller_is.load(Ordering::Relaxed) != AWAKE {
                self.poller.notify_one();
            }
        }
    }

    // ---- the background poller ----

    pub(crate) fn wake_poller(&self) {
        // The lock makes sure that the poller is either waiting or about to look.
        let _roles = self.roles.lock();
        self.poller.notify_one();
    }

    /// Something is [due](Mail::due) sooner than the poller knew.
    pub(crate) fn tick_sooner(&self) {
        self.wake_poller();
        // The poller may be the leader.
        self.bell.ring();
    }

    /// A call begins, or a result was forgotten: the poller must handle the mail that arrives meanwhile. Mostly one
    /// load, because the poller stays awake for a while.
    pub(crate) fn wake_sleeping_poller(&self) {
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
        let mut seen = (0, 0);
        loop {
            let mut roles = self.roles.lock();
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            let alone = roles.leader.is_none() && roles.followers.is_empty();
            if alone && mail.has_events() {
                drop(roles);
                mail.look();
                continue;
            }
            // A thread that makes one call after the other, or gets one result after the other, looks at the mail
            // itself.
            let now = (mail.calls(), self.waits.load(Ordering::Relaxed));
            if mail.is_busy() && now != seen && !mail.has_futures() {
                seen = now;
                self.poller.wait_for(&mut roles, PAUSE);
                drop(roles);
                if ticked.elapsed() >= TICK || is_due(mail) {
                    ticked = Instant::now();
                    mail.look();
                    mail.tick();
                }
            } else if alone && mail.is_busy() {
                roles.leader = Some(Sleep::default());
                let sleeper = Sleeper::new(&self.sleepers);
                drop(roles);
                let timeout = until_due(mail, mail.needs_ticks().then_some(tick));
                self.bell.sleep(timeout, || {
                    mail.has_work()() || !mail.is_busy() || self.stopping.load(Ordering::Acquire)
                });
                drop(sleeper);
                let mut roles = self.roles.lock();
                roles.leader = None;
                self.wake_followers(&mut roles);
                drop(roles);
                if mail.look() {
                    tick = TICK;
                    if is_due(mail) {
                        mail.tick();
                    }
                } else if timeout.is_some() {
                    tick = if mail.tick() { TICK } else { (tick * 2).min(TICK_MAX) };
                }
                self.hand_over(mail, self.roles.lock());
            } else {
                let ticks = mail.needs_ticks();
                // SeqCst, and another look: a call or an event that comes now either sees the state or is seen.
                self.poller_is.store(if ticks { DOZING } else { ASLEEP }, Ordering::SeqCst);
                if alone && (mail.is_busy() || mail.has_events()) || mail.needs_ticks() != ticks {
                    self.poller_is.store(AWAKE, Ordering::SeqCst);
                    continue;
                }
                let timed_out = match until_due(mail, ticks.then_some(tick)) {
                    Some(timeout) => self.poller.wait_for(&mut roles, timeout).timed_out() || is_due(mail),
                    None => {
                        self.poller.wait(&mut roles);
                        false
                    }
                };
                self.poller_is.store(AWAKE, Ordering::SeqCst);
                let leading = roles.leader.is_some();
                drop(roles);
                if timed_out {
                    let found = !leading && mail.look();
                    tick = if mail.tick() || found { TICK } else { (tick * 2).min(TICK_MAX) };
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
        self.bell.ring();
    }
}

/// The shorter of `tick` and the time until something is due.
fn until_due(mail: &impl Mail, tick: Option<Duration>) -> Option<Duration> {
    let left = mail.due().map(|due| due.saturating_duration_since(Instant::now()));
    tick.into_iter().chain(left).min()
}

/// Whether something is due.
fn is_due(mail: &impl Mail) -> bool {
    mail.due().is_some_and(|due| due <= Instant::now())
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

// The models of `shm/tests/loom` include this file, and have no store.
#[cfg(all(test, not(mobula_loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::call::with_store;

    /// Mail for this thread. It arrives after some looks.
    struct Arriving {
        looks_before: Cell<u32>,
        handled: Cell<u32>,
        /// The most records.
        count: u32,
    }

    impl Mail for Arriving {
        fn look(&self) -> bool {
            self.handled.set(self.handled.get() + 1);
            true
        }

        fn has_work(&self) -> impl Fn() -> bool + '_ {
            move || match self.looks_before.get() {
                0 => self.handled.get() < self.count,
                left => {
                    self.looks_before.set(left - 1);
                    false
                }
            }
        }

        fn has_events(&self) -> bool {
            false
        }

        fn is_busy(&self) -> bool {
            false
        }

        fn calls(&self) -> u64 {
            0
        }

        fn has_futures(&self) -> bool {
            false
        }

        fn needs_ticks(&self) -> bool {
            false
        }

        fn due(&self) -> Option<Instant> {
            None
        }

        fn tick(&self) -> bool {
            false
        }
    }

    fn arriving(looks_before: u32, count: u32) -> Arriving {
        Arriving { looks_before: Cell::new(looks_before), handled: Cell::new(0), count }
    }

    /// Otherwise each awaited result costs two switches between threads.
    #[test]
    fn a_future_handles_mail_that_comes_soon_itself() {
        with_store(|client| {
            let waiters = Waiters::new(client.clone(), Duration::ZERO);
            let mail = arriving(0, u32::MAX);
            waiters.look_for_a_moment(&mail, || mail.handled.get() == 3);
            assert_eq!(mail.handled.get(), 3, "it looks until its own result is there");
            // With time to spin, it also finds a result that is not there yet. On a busy machine, there is time for a
            // few looks.
            let waiters = Waiters::new(client.clone(), Duration::from_secs(60));
            let mail = arriving(3, u32::MAX);
            waiters.look_for_a_moment(&mail, || mail.handled.get() == 1);
            assert!(mail.handled.get() == 1 || std::thread::available_parallelism().unwrap().get() == 1);
        });
    }

    #[test]
    fn a_future_gives_its_thread_back_however_much_arrives_for_others() {
        with_store(|client| {
            let waiters = Waiters::new(client.clone(), Duration::ZERO);
            let mail = arriving(0, u32::MAX);
            waiters.look_for_a_moment(&mail, || false);
            assert_eq!(mail.handled.get(), SPINS_IN_VAIN_MAX);
            let nothing = arriving(0, 0);
            waiters.look_for_a_moment(&nothing, || false);
            assert_eq!(nothing.handled.get(), 0);
        });
    }
}
