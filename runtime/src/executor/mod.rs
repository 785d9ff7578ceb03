//! The serving side: calls that arrived, run one after the other by the process's main thread.
//!
//! A call that has not begun is not bound to this process. When the running call waits for results of other calls, or
//! runs for long, this process declines the calls of functions behind it, and their callers send them elsewhere. So a
//! call never queues behind a call that waits for it, and a long call delays no short ones. Calls of an actor stay:
//! they are bound to its state and its order.
//!
//! The running call counts as waiting while any thread of the process waits, whichever call has started that thread:
//! the thread of the running call may be waiting for that thread, which nobody can see from outside. If the running
//! call computes meanwhile, one processor too many is in use for a while. The opposite assumption could be a deadlock.
//!
//! When a caller is gone, its calls that have not begun are removed, and its running call is cancelled. Its detached
//! calls stay, and are not declined any more: no process would send them elsewhere, and no process waits for them.

mod deadlocks;
pub(crate) mod places;
mod progress;
mod queue;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread::ThreadId;

use mobula_client::Client;
use mobula_client::internal::recorder::{self, Recorder};

use crate::call::payload;
use crate::definition::Key;
pub(crate) use crate::executor::deadlocks::WaitingCall;
use crate::executor::places::Places;
use crate::executor::queue::Calls;
pub(crate) use crate::executor::work::{Cancelled, Ordered, Work};
use crate::executor::work::{Taken, decline, may_be_declined};
use crate::mail::link::Link;
use crate::record;
use crate::under_way::UnderWay;
use crate::wire::{Call, CallContext, Callee, Cancel, NoResults, ToHead, ToWorker};

/// The most records whose memory is kept for reuse.
const SPARE_MAX: usize = 64;

/// The questions that the executor asks about the functions that run. A [host](crate::host::Host) answers them.
pub(crate) trait Language: Send + Sync {
    /// The function that runs was cancelled. The queue is locked.
    fn interrupt(&self);

    /// The name of a function; empty if it is not known.
    fn function_name(&self, function: Key) -> String;

    /// The name of a method of a class; `None`: of its constructor.
    fn method_name(&self, class: Key, method: Option<u32>) -> String;

    /// Whether places in the program are those of the language.
    fn has_places(&self) -> bool;
}

/// The calls that this process runs for others.
pub(crate) struct Executor {
    language: Box<dyn Language>,
    calls: Calls<Work>,
    /// Whether there may be work in the queue. Written with the queue locked.
    has_work: AtomicBool,
    /// Observers read the length of the queue here.
    recorder: Option<Arc<Recorder>>,
    /// The process is, or becomes, an actor.
    is_actor: AtomicBool,
    /// The actor, and how often it was restarted.
    actor: OnceLock<(u64, u32, Key)>,
    /// The host's rules for when a call of an actor with several at a time begins.
    places: OnceLock<Arc<dyn Places>>,
    /// The thread that runs the calls.
    serving: OnceLock<ThreadId>,
    /// The actor ends itself behind the running call, which is not answered.
    exits: AtomicBool,
    /// The actor ends itself when the calls are answered that have begun.
    terminates: AtomicBool,
    /// The actor must be told of callers that are gone.
    watches_callers: AtomicBool,
    stopping: AtomicBool,
}

type Queue = queue::Queue<Work>;

impl Executor {
    /// Records the length of the queue.
    pub(crate) fn new(language: Box<dyn Language>, recorder: Option<Arc<Recorder>>) -> Self {
        Self {
            language,
            calls: Calls::new(),
            has_work: AtomicBool::new(false),
            recorder,
            is_actor: AtomicBool::new(false),
            actor: OnceLock::new(),
            places: OnceLock::new(),
            serving: OnceLock::new(),
            exits: AtomicBool::new(false),
            terminates: AtomicBool::new(false),
            watches_callers: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// The length of the queue has changed. The queue is locked.
    #[inline]
    fn queue_changed(&self, queue: &Queue) {
        self.has_work.store(!queue.work.is_empty(), Ordering::Release);
        record::queue(self.recorder.as_ref(), recorder::Queue::Arrived, queue.work.len());
    }

    // ---- arriving, on any thread that deals with the mail ----

    /// Handles a record from a caller, or from a process that has a reference to a result of this one's.
    pub(crate) fn on_record(
        &self,
        from: &Arc<Link>,
        record: &mut Vec<u8>,
        client: &Client,
        head: Option<&Arc<Link>>,
    ) -> Option<Ordered> {
        match ToWorker::read(record) {
            Some(ToWorker::Call(call)) => self.on_call(from, call, record, client),
            Some(ToWorker::Cancel(cancel)) => {
                return self.on_cancel(from, cancel, head).map(Ordered::Cancelled);
            }
            Some(ToWorker::CancelPromised(cancel)) => return Some(Ordered::CancelPromised(cancel)),
            Some(ToWorker::Taken(taken)) => {
                let wakers = self.calls.items_taken(from.call_id(taken.task), taken.items);
                return (!wakers.is_empty()).then_some(Ordered::Wake(wakers));
            }
            None => {
                tracing::error!(peer = %from.peer, "a call that cannot be read");
                from.close();
            }
        }
        None
    }

    fn on_call(&self, from: &Arc<Link>, call: Call, record: &mut Vec<u8>, client: &Client) {
        let held = if call.is_detached {
            payload::hold_all(client, &record[call.bytes()..], call.arguments)
        } else {
            Vec::new()
        };
        let mut queue = self.calls.lock();
        if may_be_declined(from, &call) && self.calls.progress.declines() {
            drop(queue);
            return decline(from, call.task);
        }
        let record = std::mem::replace(record, queue.spare.pop().unwrap_or_default());
        queue.work.push_back(Work::Call { from: from.clone(), number: from.received(), call, record, held });
        self.queue_changed(&queue);
    }

    /// Removes a call that has not begun, and marks one that runs. By force, the process ends.
    fn on_cancel(&self, from: &Link, cancel: Cancel, head: Option<&Arc<Link>>) -> Option<Cancelled> {
        let Cancel { task, force, recursive } = cancel;
        let mut queue = self.calls.lock();
        let is_removed = queue.remove(from.call_id(task));
        self.queue_changed(&queue);
        let cancelled = self.calls.find(&queue, from.call_id(task)).map(|call| {
            // With the queue locked, so that no other call begins meanwhile.
            if force && !self.is_actor() {
                // SAFETY: ends the process, and runs nothing of it, as a signal would. Its links tell the others.
                unsafe { libc::_exit(1) };
            }
            Cancelled { call: call.number(), recursive, wakers: call.cancel() }
        });
        drop(queue);
        if cancelled.is_some() {
            self.interrupt();
        }
        if is_removed {
            let removed = NoResults::Removed { task };
            let _ = from.send_with(Vec::new(), |record| removed.append_to(record));
            // It may have been the last call.
            self.say_if_free(head);
        }
        cancelled
    }

    /// The running call of a process that runs one at a time.
    pub(crate) fn only(&self) -> &UnderWay {
        self.calls.only()
    }

    /// Has the host interrupt the function that was marked as cancelled. No lock is held, so the next call may have
    /// begun: the host asks whether the running call is the cancelled one.
    fn interrupt(&self) {
        if !self.is_actor() {
            self.language.interrupt();
        }
    }

    /// Whether the running call was cancelled: of several, the one that this thread runs. Costs two loads, if it is the
    /// only one.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.calls.with_running(UnderWay::is_cancelled).unwrap_or_default()
    }

    /// Has a future woken when the running call is cancelled. The caller checks afterwards whether it is.
    pub(crate) fn wake_when_cancelled(&self, waker: &Waker) {
        self.calls.with_running(|call| call.wake_when_changed(waker));
    }

    /// The number of the call that a call of this process is made by; 0 where nobody knows, because several are under
    /// way, and this thread runs none of them.
    pub(crate) fn parent(&self) -> u64 {
        self.calls.with_running(UnderWay::number).unwrap_or_default()
    }

    /// From now on, calls may be answered later. `places` decides when each begins; `None`: that is not known.
    pub(crate) fn set_concurrent(&self, places: Option<Arc<dyn Places>>) {
        if let Some(places) = places {
            let _ = self.places.set(places);
        }
        self.calls.set_concurrent();
    }

    /// Whether the answer to a call may be given later.
    pub(crate) fn is_concurrent(&self) -> bool {
        self.calls.is_concurrent()
    }

    /// From now on, the actor is told of each caller that is gone, after the last call of that caller.
    pub(crate) fn set_watches_callers(&self) {
        self.watches_callers.store(true, Ordering::Release);
    }

    /// Whether the actor is told of callers that are gone. Such an actor runs all calls of these callers.
    pub(crate) fn watches_callers(&self) -> bool {
        self.watches_callers.load(Ordering::Acquire)
    }

    /// A call of an actor that may have several under way. It has been taken, and is not answered.
    pub(crate) fn under_way(&self, from: &Link, task: u64) -> Arc<UnderWay> {
        self.calls.under_way(from.call_id(task)).unwrap_or_else(|| Arc::new(UnderWay::new(0)))
    }

    /// A call that may be answered later is answered.
    pub(crate) fn answered(&self, from: &Link, task: u64, call: &Arc<UnderWay>) {
        self.calls.answered(from.call_id(task), call);
    }

    /// The actor is to end itself when the other calls are answered.
    pub(crate) fn begin_to_terminate(&self) {
        self.terminates.store(true, Ordering::SeqCst);
    }

    /// Whether the actor is to end itself. Costs one load.
    pub(crate) fn terminates(&self) -> bool {
        self.terminates.load(Ordering::SeqCst)
    }

    pub(crate) fn on_construct(
        &self,
        actor: u64,
        class: Key,
        restarts: u32,
        arguments: u32,
        context: Option<CallContext>,
        payloads: &[u8],
    ) {
        let _ = self.actor.set((actor, restarts, class));
        self.is_actor.store(true, Ordering::Release);
        let work = Work::Construct { actor, class, arguments, context, payloads: payloads.to_vec() };
        let mut queue = self.calls.lock();
        queue.work.push_front(work);
        self.queue_changed(&queue);
    }

    /// Removes the calls of a caller that is gone and that have not begun. If it made the running call, of a function,
    /// that call is cancelled and returned. Detached calls stay as they are. The calls of an actor go on; the wakers of
    /// futures that hold their replies are returned. An actor that watches its callers runs all of their calls, and is
    /// then told that the caller is gone.
    pub(crate) fn on_caller_gone(&self, link: &Arc<Link>, head: Option<&Arc<Link>>) -> Option<Cancelled> {
        let is_its = |work: &Work| match work {
            Work::Call { from, call, .. } => Arc::ptr_eq(from, link) && !call.is_detached,
            Work::Construct { .. } | Work::AwaitCalls | Work::CallerGone(_) => false,
        };
        let is_watched = self.watches_callers() && link.incoming;
        let mut queue = self.calls.lock();
        if is_watched {
            queue.work.push_back(Work::CallerGone(link.id));
        } else {
            queue.work.retain(|work| !is_its(work));
        }
        self.queue_changed(&queue);
        let is_its = |taken: &&Taken| taken.id.link == link.id && !taken.is_detached && !self.is_actor();
        let running = queue.taken().filter(is_its).and_then(|taken| self.calls.find(&queue, taken.id));
        let mut cancelled =
            running.map(|call| Cancelled { call: call.number(), recursive: true, wakers: call.cancel() });
        let wakers = self.calls.wakers_of(&queue, link.id);
        drop(queue);
        if cancelled.is_some() {
            self.interrupt();
        }
        // The thread that runs the calls is woken.
        if is_watched || !wakers.is_empty() {
            cancelled.get_or_insert_default().wakers.extend(wakers);
        }
        self.say_if_free(head);
        cancelled
    }

    /// The head wants to know when no call is left here; and none that this process made, if it `is_spent` from now on.
    pub(crate) fn say_when_free(&self, head: &Arc<Link>, is_spent: bool) {
        if is_spent && !self.calls.progress.set_spent() {
            self.decline_waiting();
            let mut queue = self.calls.lock();
            queue.work.push_back(Work::AwaitCalls);
            self.queue_changed(&queue);
        }
        self.calls.progress.ask();
        self.say_if_free(Some(head));
    }

    fn say_if_free(&self, head: Option<&Arc<Link>>) {
        let Some(head) = head.filter(|_| self.calls.progress.is_asked()) else { return };
        let queue = self.calls.lock();
        let is_free = queue.work.is_empty() && self.calls.progress.take_asked();
        drop(queue);
        if is_free {
            let _ = head.send(&ToHead::Free, Vec::new());
        }
    }

    /// Ends the process when the running call is over.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The actor that this process is, or becomes.
    pub(crate) fn actor(&self) -> Option<u64> {
        self.actor.get().map(|(actor, ..)| *actor)
    }

    /// The number of the actor of this process, if it is one.
    pub(crate) fn actor_number(&self) -> Option<u64> {
        self.actor.get().map(|(number, ..)| *number)
    }

    /// How often the actor of this process was restarted; 0 where there is none.
    pub(crate) fn restarts(&self) -> u32 {
        self.actor.get().map_or(0, |(_, restarts, _)| *restarts)
    }

    /// The actor ends itself: as [`stop`](Self::stop), and the running call is not answered. The head answers it.
    pub(crate) fn exit(&self) {
        self.exits.store(true, Ordering::Release);
        self.stop();
    }

    /// Whether the actor ends itself.
    pub(crate) fn exits(&self) -> bool {
        self.exits.load(Ordering::Acquire)
    }

    /// Whether calls have begun that are not answered, beside the one that was taken last.
    pub(crate) fn has_others(&self) -> bool {
        self.calls.lock().count_under_way() > 1
    }

    // ---- for the search for deadlocks: see `deadlocks` ----

    /// From now on, this thread runs the calls.
    pub(crate) fn set_serving(&self) {
        let _ = self.serving.set(std::thread::current().id());
    }

    /// The name of a function, or of a method of this actor; empty if the host does not know.
    pub(crate) fn name_of(&self, callee: Callee) -> String {
        match (callee, self.actor.get()) {
            (Callee::Function(function), _) => self.language.function_name(function),
            (Callee::Method(method), Some((_, _, class))) => self.language.method_name(*class, Some(method)),
            (Callee::Method(_), None) => String::new(),
        }
    }

    /// Whether the process is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    // ---- not holding others up ----

    /// This process begins no more calls of functions: those that wait, and those that still come, are declined. The
    /// head ends it when the running call is over, and those that it `waits` for.
    pub(crate) fn set_spent(&self, waits: bool, head: Option<&Arc<Link>>) {
        self.calls.progress.set_spent();
        self.decline_waiting();
        if let Some(head) = head {
            let _ = head.send(&ToHead::Spent { waits }, Vec::new());
        }
    }

    /// Whether a call runs, or ran since the last look of the background poller. Then other calls may wait behind it,
    /// or be cancelled, and the thread that runs it does not look.
    pub(crate) fn is_active(&self) -> bool {
        self.calls.progress.is_active()
    }

    /// Declines the calls that wait, if the running call ran already when this was last called. Returns whether calls
    /// have begun since: the one that runs now may turn out to be long.
    pub(crate) fn decline_behind_a_long_call(&self, head: Option<&Arc<Link>>) -> bool {
        let (has_begun, runs) = self.calls.progress.look();
        if !has_begun && runs {
            self.decline_waiting();
            // The call may be over by now, and no call begins that would say it at its end.
            self.say_if_free(head);
        }
        has_begun
    }

    fn decline_waiting(&self) {
        let mut declined = Vec::new();
        let mut queue = self.calls.lock();
        queue.work.retain(|work| match work {
            Work::Call { from, call, .. } if may_be_declined(from, call) => {
                declined.push((from.clone(), call.task));
                false
            }
            _ => true,
        });
        self.queue_changed(&queue);
        drop(queue);
        declined.iter().for_each(|(from, task)| decline(from, *task));
    }

    /// Says that a thread of this process is about to wait. While a call runs, other calls may use this process's place
    /// until the guard is dropped. Actors have no place among the workers.
    pub(crate) fn wait<'a>(&'a self, head: &'a Arc<Link>) -> Waiting<'a> {
        self.begin_wait(head);
        Waiting { executor: self, head }
    }

    /// Begins a wait of a future, without a guard: [`end_wait`](Self::end_wait) follows.
    pub(crate) fn begin_wait(&self, head: &Link) {
        self.calls.progress.begin_wait();
        self.tell_whether_blocked(head);
    }

    /// A wait is over.
    pub(crate) fn end_wait(&self, head: &Link) {
        self.calls.progress.end_wait();
        self.tell_whether_blocked(head);
    }

    fn tell_whether_blocked(&self, head: &Link) {
        if self.is_actor() {
            return;
        }
        self.calls.progress.tell_whether_blocked(|is_blocked| {
            if is_blocked {
                self.decline_waiting();
            }
            let message = if is_blocked { ToHead::Blocked } else { ToHead::Unblocked };
            let _ = head.send(&message, Vec::new());
        });
    }

    /// A call has begun, or is over.
    pub(crate) fn call_changed(&self, head: Option<&Arc<Link>>) {
        if let Some(head) = head.filter(|_| self.calls.progress.is_of_interest()) {
            self.tell_whether_blocked(head);
            self.say_if_free(Some(head));
        }
    }

    // ---- what the thread that runs calls does ----

    /// The next call, if one waits; `Some(None)` when no more calls will run. `spare` is memory for reuse. Costs two
    /// loads while no call waits.
    pub(crate) fn next(&self, spare: &mut Option<Vec<u8>>) -> Option<Option<Work>> {
        if self.stopping.load(Ordering::Acquire) {
            return Some(None);
        }
        if !self.has_work.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.calls.lock();
        if let Some(record) = spare.take()
            && queue.spare.len() < SPARE_MAX
        {
            queue.spare.push(record);
        }
        let taken = self.calls.take(&mut queue);
        self.queue_changed(&queue);
        drop(queue);
        let (work, of_last_call) = taken?;
        drop(of_last_call);
        Some(Some(work))
    }

    /// The call that was taken last is over.
    pub(crate) fn call_over(&self) {
        self.calls.over();
    }

    /// Whether places in the program are those of the language that runs here.
    pub(crate) fn has_places(&self) -> bool {
        self.language.has_places()
    }

    pub(crate) fn is_actor(&self) -> bool {
        self.is_actor.load(Ordering::Acquire)
    }
}

/// A thread that waits; see [`Executor::wait`].
pub(crate) struct Waiting<'a> {
    executor: &'a Executor,
    head: &'a Arc<Link>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.executor.end_wait(self.head);
    }
}
