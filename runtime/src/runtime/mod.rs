//! The `Runtime` of a process: its client, its links to other processes, its submitter (the calls that it made) and its
//! executor (the calls that it runs for others).
//!
//! The parts do not know each other. The `Runtime` connects them: it looks at the mail, which is the records and events
//! that have arrived, and hands each of them to its part.

pub(crate) mod current;
pub(crate) mod told;

use std::cell::OnceCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use mobula_client::internal::recorder::{WaitFor, WaitGuard};
use mobula_client::{Client, ClientError, Event, Events, Handle, OwnerId};

use self::told::{Awaits, Told, WaitReporter};
use crate::call::payload::{self, Encoded};
use crate::call::result_cell::ResultCell;
use crate::demand::Demand;
use crate::environment::Environment;
use crate::error::{Error, Failure};
use crate::executor::{Cancelled, Executor, Ordered, Waiting};
use crate::mail::link::Link;
use crate::mail::links::Links;
use crate::mail::waiters::{Awaited, Mail, Waiters};
use crate::process::lifeline::end_if_descriptors_are_gone;
use crate::process::output;
use crate::record;
use crate::resources::Resources;
use crate::session_number::SessionNumber;
use crate::submit::{Answer, Submitter};
use crate::under_way::UnderWay;
use crate::wire::{self, FromHead, ToHead, ToWorker};

/// The parts of one process of a session; see the module's documentation.
pub struct Runtime {
    pub(crate) session: SessionNumber,
    pub(crate) client: Client,
    pub(crate) submitter: Submitter,
    /// The calls that this process runs for others; `None` in the driver.
    pub(crate) executor: Option<Executor>,
    /// The resources of the session.
    pub(crate) resources: Resources,
    /// The environment of this process, which the calls that it makes inherit.
    pub(crate) environment: Environment,
    /// The names of the GPUs of this process.
    pub(crate) gpus: Vec<String>,
    /// The namespace of actors for which none is named.
    pub(crate) namespace: String,
    /// The directory of the session.
    pub(crate) directory: Option<PathBuf>,
    /// The demand of a call without options. `None`: the session cannot meet it.
    pub(crate) usual: Option<Demand>,
    told: Told,
    links: Arc<Links>,
    waiters: Arc<Waiters>,
    events: Events,
}

/// A thread that sleeps in a wait. A worker that waits for other processes gives its place to them, and others can see
/// what it waits for, until this is dropped.
struct BegunWait<'a> {
    _place: Option<Waiting<'a>>,
    _recorded: Option<WaitGuard<'a>>,
}

/// The settings of a session for one of its processes.
pub(crate) struct ProcessSettings {
    /// The resources of the session.
    pub(crate) resources: Resources,
    /// The environment of the process.
    pub(crate) environment: Environment,
    /// The names of the GPUs of the process.
    pub(crate) gpus: Vec<String>,
    /// The namespace of actors for which none is named.
    pub(crate) namespace: String,
    /// The directory of the session.
    pub(crate) directory: Option<PathBuf>,
}

/// The thing that a wait needs, and that is not there yet.
pub(crate) enum Behind {
    /// The wait does not end before this result is there, unless a call fails.
    Surely(Arc<ResultCell>),
    /// The wait is not likely to end before.
    Likely(Arc<ResultCell>),
    /// The next item of the stream of this call.
    Item(u64),
    /// This process must take items of the stream that is made here.
    Reader(OwnerId),
    Unknown,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_worker = self.executor.is_some();
        f.debug_struct("Runtime").field("session", &self.session).field("is_worker", &is_worker).finish()
    }
}

impl Runtime {
    pub(crate) fn new(
        client: Client,
        executor: Option<Executor>,
        spin: Duration,
        settings: ProcessSettings,
    ) -> Arc<Self> {
        let ProcessSettings { resources, environment, gpus, namespace, directory } = settings;
        let session = SessionNumber::next();
        let links = Links::new(client.clone());
        let waiters = Waiters::new(client.clone(), spin);
        let usual = Demand::within(environment.clone(), Resources::clone(&Demand::default()));
        let woken = Arc::downgrade(&waiters);
        let wake = move || {
            if let Some(waiters) = woken.upgrade() {
                waiters.call_waits();
            }
        };
        Arc::new(Self {
            session,
            events: client.events_with(wake),
            submitter: Submitter::new(session, client.clone(), links.clone(), waiters.clone()),
            client,
            executor,
            usual: Some(usual).filter(|usual| usual.is_within(&resources)),
            environment,
            gpus,
            namespace,
            directory,
            resources,
            told: Told::default(),
            links,
            waiters,
        })
    }

    /// Whether a reference or an actor of the session with this number can be used here.
    pub(crate) fn is_of(&self, session: SessionNumber) -> bool {
        session == self.session || session == SessionNumber::NONE
    }

    /// The client of this process.
    #[inline]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Adds the link to the head. The process requests all workers and actors through it.
    pub(crate) fn set_head(&self, link: Arc<Link>) {
        self.add_link(&link);
        self.links.set_head(link);
    }

    /// The number of links that a waiting thread of this process looks at.
    // For tests: a clock cannot say reliably that it does not grow with the number of links.
    #[doc(hidden)]
    #[must_use]
    pub fn active_links(&self) -> usize {
        self.links.active().len()
    }

    pub(crate) fn head(&self) -> Option<&Arc<Link>> {
        self.links.head()
    }

    /// Asks the head a question, and waits for its answer. `question` gets the number of the request.
    pub(crate) fn ask<'a>(&self, question: impl FnOnce(u64) -> ToHead<'a>) -> Result<Answer, Failure> {
        let request = self.submitter.next_id();
        self.submitter.questions.ask(&question(request))?;
        let answer = self.wait_for_head(|| self.submitter.questions.answer(request));
        answer.unwrap_or(Err(Failure::SessionOver))
    }

    /// Waits until the head says that the process of an actor has ended, for at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Failure::SessionOver`]; [`Failure::Cancelled`].
    pub(crate) fn await_actor_end(&self, actor: u64, timeout: Duration) -> Result<(), Error> {
        self.await_end(timeout, |request| ToHead::AwaitActorEnd { request, actor })
    }

    /// Waits until the head reports the end of a wait, for at most `timeout`.
    ///
    /// # Errors
    /// As [`await_actor_end`](Self::await_actor_end).
    pub(crate) fn await_end<'a>(
        &self,
        timeout: Duration,
        question: impl FnOnce(u64) -> ToHead<'a>,
    ) -> Result<(), Error> {
        let request = self.submitter.next_id();
        let _awaits = self.submitter.questions.await_end(request, &question(request))?;
        let deadline = Instant::now().checked_add(timeout);
        match self.wait(deadline, || Behind::Unknown, || self.submitter.questions.has_ended(request)) {
            Some(ended) => Ok(ended?),
            None if self.is_cancelled() => Err(Failure::Cancelled.into()),
            None if self.is_over() => Err(Failure::SessionOver.into()),
            None => Err(Error::Timeout { waited: timeout, ready: 0, wanted: 1 }),
        }
    }

    /// Ends the actor of this process, after the running call and permanently.
    pub(crate) fn exit_actor(&self) -> Result<(), Error> {
        let executor = self.executor.as_ref().ok_or(Error::NotInActor)?;
        let actor = executor.actor().ok_or(Error::NotInActor)?;
        executor.exit();
        if let Some(head) = self.head() {
            let _ = head.send(&ToHead::ActorExits { actor }, Vec::new());
        }
        self.waiters.announce();
        Ok(())
    }

    /// Begins no more calls. The running call continues.
    pub(crate) fn stop_serving(&self) {
        if let Some(executor) = &self.executor {
            executor.stop();
        }
        self.waiters.announce();
    }

    /// Puts an encoded value into the store.
    ///
    /// # Errors
    /// Those of [`Client::create`].
    pub fn store(&self, encoded: &impl Encoded) -> Result<Handle, ClientError> {
        payload::store(&self.client, encoded)
    }

    // ---- mail ----

    /// Handles what has arrived through a link, and sends what waits for room. Returns `true` if there was anything.
    fn look_at(&self, link: &Arc<Link>) -> bool {
        let mut any = self.receive_by(link, Link::receive);
        link.flush();
        // An unreadable record closes its link. The other end is then treated as gone.
        if link.is_closed() && self.links.remove(link) {
            self.lose_link(link);
            self.tell_broken(link);
            any = true;
        }
        any
    }

    fn receive_by(
        &self,
        link: &Arc<Link>,
        receive: impl FnOnce(&Link, &mut dyn FnMut(&mut Vec<u8>)) -> bool,
    ) -> bool {
        if self.links.is_head(link) {
            return receive(link, &mut |record| self.on_head(record));
        }
        if !link.incoming {
            return receive(link, &mut |record| self.submitter.on_results(link, record));
        }
        match &self.executor {
            Some(executor) => {
                receive(link, &mut |record| match executor.on_record(link, record, &self.client, self.head())
                {
                    Some(Ordered::Cancelled(cancelled)) => self.on_cancelled(cancelled),
                    Some(Ordered::CancelPromised(cancel)) => self.submitter.on_cancel_promised(cancel),
                    Some(Ordered::Wake(wakers)) => self.wake_all(wakers),
                    None => {}
                })
            }
            None => receive(link, &mut |record| match ToWorker::read(record) {
                Some(ToWorker::CancelPromised(cancel)) => self.submitter.on_cancel_promised(cancel),
                _ => tracing::warn!("a call arrived in a process that runs none"),
            }),
        }
    }

    /// Handles a record from the head.
    fn on_head(&self, record: &[u8]) {
        let record = match wire::read(record) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, "a record from the head cannot be read");
                if let Some(head) = self.head() {
                    head.close();
                }
                return;
            }
        };
        match (record, &self.executor) {
            (
                FromHead::Construct { actor, class, restarts, arguments, context, payloads },
                Some(executor),
            ) => {
                executor.on_construct(actor, class, restarts, arguments, context, payloads);
            }
            (FromHead::SayWhenFree { is_spent }, Some(executor)) => {
                if let Some(head) = self.head() {
                    executor.say_when_free(head, is_spent);
                }
            }
            (FromHead::Exit, Some(executor)) => executor.stop(),
            (FromHead::AskWaits { round, calls }, _) => self.answer_waits(round, &calls),
            (FromHead::AskPromise { round, object }, _) => self.answer_promise(round, object),
            (FromHead::Deadlocks { cycles }, _) => self.on_deadlocks(cycles),
            (record, _) => self.submitter.on_head(record),
        }
    }

    fn on_event(&self, event: Event) {
        match event {
            Event::ChannelOpened(incoming) => match self.client.accept(incoming) {
                Ok(channel) => self.add_link(&Arc::new(Link::new(channel, true))),
                Err(error) => tracing::warn!(%error, "a caller ended before its channel was opened"),
            },
            Event::ChannelClosed(channel) => {
                if let Some(link) = self.links.of_closed(channel) {
                    link.set_peer_gone();
                    // The records that the other end wrote before it ended still count.
                    self.receive_by(&link, Link::receive_the_rest);
                    self.lose_link(&link);
                }
            }
            Event::StoreLost => self.on_session_over(),
            // Another event may settle promises: `look` announces it, and the threads that wait look again.
            _ => {}
        }
    }

    /// Adds a link, whose records are received from now on. Its channel may be closed already.
    fn add_link(&self, link: &Arc<Link>) {
        if !self.links.add(link) {
            self.drop_link(link);
        }
    }

    fn lose_link(&self, link: &Arc<Link>) {
        self.drop_link(link);
        if self.links.is_head(link) {
            self.on_session_over();
        }
    }

    fn drop_link(&self, link: &Arc<Link>) {
        link.close();
        self.links.remove(link);
        if let Some(executor) = &self.executor
            && let Some(cancelled) = executor.on_caller_gone(link, self.head())
        {
            self.on_cancelled(cancelled);
        }
        self.submitter.on_worker_gone(link);
    }

    /// Reports a worker or actor that wrote an unreadable record. The head ends its process.
    fn tell_broken(&self, link: &Arc<Link>) {
        if let Some(head) = self.head().filter(|head| !link.incoming && !Arc::ptr_eq(head, link)) {
            let _ = head.send(&ToHead::Broken { process: link.peer }, Vec::new());
        }
    }

    /// The running call was cancelled: its waits end, and so do the calls that it made.
    fn on_cancelled(&self, Cancelled { call, recursive, wakers }: Cancelled) {
        if recursive {
            self.submitter.cancel(&|task| task.parent == call, false, true);
        }
        self.wake_all(wakers);
        self.waiters.announce();
    }

    fn wake_all(&self, wakers: Vec<Waker>) {
        wakers.into_iter().for_each(|waker| self.submitter.wake_later(waker));
    }

    /// Whether the call that runs in this process was cancelled. Costs one load.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.executor.as_ref().is_some_and(Executor::is_cancelled)
    }

    // ---- waiting ----

    /// Waits until `look` returns `Some`, and handles the mail meanwhile. Returns `None` when the deadline has passed,
    /// the session is over, or the running call was cancelled. When the thread is about to sleep, `behind` says which
    /// result the wait needs.
    pub(crate) fn wait<R>(
        &self,
        deadline: Option<Instant>,
        behind: impl Fn() -> Behind,
        look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let reporter = WaitReporter::new(self, false, || None);
        self.wait_for_results(deadline, &reporter, behind, look).unwrap_or_default()
    }

    /// Waits for results. `reporter` reports the wait to the head.
    ///
    /// # Errors
    /// [`Failure::Deadlock`]: the results will never come.
    pub(crate) fn wait_for_results<R>(
        &self,
        deadline: Option<Instant>,
        reporter: &WaitReporter<'_, impl Fn() -> Option<Awaits>>,
        behind: impl Fn() -> Behind,
        mut look: impl FnMut() -> Option<R>,
    ) -> Result<Option<R>, Failure> {
        let nap = |result: &ResultCell| self.submitter.nap(result.call, Instant::now());
        let awaited = || match behind() {
            Behind::Surely(result) => Awaited { nap: nap(&result), result: Some(result) },
            Behind::Likely(result) => Awaited { nap: nap(&result), result: None },
            Behind::Item(_) | Behind::Reader(_) | Behind::Unknown => Awaited::default(),
        };
        let what = || match behind() {
            Behind::Surely(result) | Behind::Likely(result) => {
                record::waits_for(&result, |call| self.submitter.wait_for(call))
            }
            Behind::Item(call) => {
                let (what, place) = self.submitter.wait_for(call);
                (what, [call, place])
            }
            Behind::Reader(process) => (WaitFor::Reader, [process.bits(), 0]),
            Behind::Unknown => (WaitFor::Unknown, [0; 2]),
        };
        // A deadlock first: another wait of it may have ended already, so that the result of this one came.
        let found_or_ended = || match reporter.is_deadlocked() {
            true => Some(None),
            false => look().map(Some).or_else(|| self.is_cancelled().then_some(None)),
        };
        let found =
            self.wait_to_the_end(deadline, || reporter.sleeps(what), awaited, found_or_ended).flatten();
        match reporter.deadlock() {
            Some(failure) if found.is_none() => Err(failure),
            _ => Ok(found),
        }
    }

    /// Waits for the head until `look` returns `Some`, and handles the mail meanwhile. Returns `None` when the session
    /// is over. A cancelled call waits too: the head answers at once, and its answer may contain a handle.
    pub(crate) fn wait_for_head<R>(&self, look: impl FnMut() -> Option<R>) -> Option<R> {
        let begun = OnceCell::new();
        let sleeps = || {
            begun.get_or_init(|| self.begin_wait((WaitFor::Head, [0; 2])));
            None
        };
        self.wait_to_the_end(None, sleeps, Awaited::default, look)
    }

    /// Calls `sleeps` each time before the thread sleeps. `sleeps` returns the latest time of its next call.
    fn wait_to_the_end<R>(
        &self,
        deadline: Option<Instant>,
        sleeps: impl Fn() -> Option<Instant>,
        awaited: impl Fn() -> Awaited,
        mut look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let mut found = None;
        self.wait_until(deadline, &sleeps, &awaited, &mut || {
            found = look();
            found.is_some()
        });
        found
    }

    // Not generic: it is compiled here, with all that it calls inlined, and not in each crate that waits.
    fn wait_until(
        &self,
        deadline: Option<Instant>,
        sleeps: &dyn Fn() -> Option<Instant>,
        awaited: &dyn Fn() -> Awaited,
        is_found: &mut dyn FnMut() -> bool,
    ) {
        self.waiters.wait(self, deadline, sleeps, awaited, || is_found().then_some(()));
    }

    /// A thread sleeps for the first time in a wait.
    fn begin_wait(&self, (what, values): (WaitFor, [u64; 2])) -> BegunWait<'_> {
        warn_on_async_thread();
        BegunWait {
            _place: self.executor.as_ref().zip(self.head()).map(|(executor, head)| executor.wait(head)),
            _recorded: self.client.recorder().map(|recorder| recorder.wait(what, values)),
        }
    }

    /// Handles the mail for a future that is about to wait. If no other future waits, it spins for a moment: a result
    /// that comes soon then costs no switch to another thread and back. If several wait, the executor has other tasks
    /// to run.
    pub(crate) fn look_for_future(&self, is_over: impl FnMut() -> bool) {
        if self.submitter.any_future() {
            self.look();
        } else {
            self.waiters.look_for_a_moment(self, is_over);
        }
    }

    /// The wait of a future is over; its results came after this time.
    pub(crate) fn future_waited(&self, took: Duration) {
        self.waiters.future_waited(took);
    }

    /// Waits for the next call of a worker. Calls `idle` each time before the thread sleeps.
    pub(crate) fn wait_for_work<R>(&self, idle: impl Fn(), look: impl FnMut() -> Option<R>) -> Option<R> {
        let idle = || {
            idle();
            None
        };
        self.waiters.wait(self, None, idle, Awaited::default, look)
    }

    /// Waits until the other calls that this actor has taken are answered.
    pub(crate) fn wait_for_answers(&self, is_over: impl Fn() -> bool) {
        self.waiters.wait(self, None, || None, Awaited::default, || is_over().then_some(()));
    }

    /// A call that this actor has taken is answered, on any thread.
    pub(crate) fn answered(&self, executor: &Executor, from: &Link, task: u64, call: &Arc<UnderWay>) {
        executor.answered(from, task, call);
        if executor.terminates() {
            self.wake_waiting();
        }
        // The background poller looks after held objects and records that wait for room, although no other record may
        // come.
        if from.holds_anything() {
            self.call_begins();
        }
    }

    /// Wakes the threads that wait, so that they look again.
    pub(crate) fn wake_waiting(&self) {
        self.waiters.announce();
    }

    /// Tells the background poller that a call begins to run. The poller handles the mail that arrives meanwhile.
    pub(crate) fn call_begins(&self) {
        self.waiters.wake_sleeping_poller();
    }

    /// Runs the background poller; see [`waiters`](crate::mail::waiters).
    pub(crate) fn run_poller(&self) {
        self.waiters.run_poller(self);
    }

    // ---- the end ----

    pub(crate) fn is_over(&self) -> bool {
        self.waiters.is_over()
    }

    /// The number of results of calls that were failures.
    pub(crate) fn failures(&self) -> u64 {
        self.waiters.failures()
    }

    pub(crate) fn on_session_over(&self) {
        self.waiters.end();
        self.submitter.fail_everything(&Failure::SessionOver);
        if let Some(executor) = &self.executor {
            executor.stop();
        }
        self.waiters.announce();
        self.submitter.wake_futures();
    }

    pub(crate) fn stop(&self) {
        self.waiters.stop_poller();
    }
}

/// Logs once what to write instead if a thread of an asynchronous executor blocks. Such threads are recognized by
/// tokio's names.
fn warn_on_async_thread() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let thread = std::thread::current();
    let is_async = thread.name().is_some_and(|name| name.starts_with("tokio-r"));
    if is_async && !WARNED.swap(true, Ordering::Relaxed) {
        output::say(format_args!(
            "a thread of an asynchronous runtime ({}) waits for a result, and runs no other task meanwhile: write \
             `reference.await` instead of `reference.get()`, `get_async` instead of `get`, and `wait_async` instead of \
             `wait`, or call them in `spawn_blocking`",
            thread.name().unwrap_or_default()
        ));
    }
}

impl Mail for Runtime {
    fn look(&self) -> bool {
        let mut any = false;
        while let Some(event) = self.events.try_next() {
            self.on_event(event);
            any = true;
        }
        for link in self.links.active().iter() {
            any |= self.look_at(link);
        }
        for link in self.links.idle_with_records() {
            any |= self.look_at(&link);
            self.links.settle(&link);
        }
        any |= self.submitter.submit_what_became_ready();
        if any {
            self.waiters.announce();
        }
        self.submitter.wake_futures();
        any
    }

    fn has_work(&self) -> impl Fn() -> bool + '_ {
        let links = self.links.active();
        move || {
            links.iter().any(|link| link.has_work())
                || self.links.is_idle_rung()
                || !self.events.is_empty()
                || self.submitter.has_ready_foreign()
                || self.submitter.has_woken()
        }
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    fn is_busy(&self) -> bool {
        self.submitter.is_busy() || self.links.active().iter().any(|link| link.is_backlogged())
    }

    fn calls(&self) -> u64 {
        self.submitter.calls()
    }

    fn has_futures(&self) -> bool {
        self.submitter.any_future()
    }

    fn needs_ticks(&self) -> bool {
        self.submitter.needs_ticks()
            || self.executor.as_ref().is_some_and(Executor::is_active)
            || self.links.active().iter().any(|link| link.holds_anything())
    }

    fn due(&self) -> Option<Instant> {
        self.submitter.due()
    }

    fn tick(&self) -> bool {
        // No thread may have been there to hear a ring for an idle link.
        let idle = self.links.all_idle_with_records();
        for link in &idle {
            self.look_at(link);
            self.links.settle(link);
        }
        if !idle.is_empty() {
            self.waiters.announce();
        }
        self.submitter.return_idle_workers();
        self.submitter.reach_lost_actors();
        self.submitter.look_after_forgotten();
        self.submitter.on_time();
        self.submitter.wake_futures();
        for link in self.links.active().iter() {
            link.flush();
        }
        let Some(executor) = &self.executor else { return false };
        end_if_descriptors_are_gone();
        executor.decline_behind_a_long_call(self.head())
    }
}
