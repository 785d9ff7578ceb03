//! The queue of a process, and the calls that have begun: which call a cancel or a report of taken items is for.
//!
//! A call is in one of four states. All changes but the last one are made with the queue locked, and so is each search
//! for a call. So a cancel either removes a call, which then never begins; or marks the call that runs, and no other;
//! or comes too late and changes nothing.
//!
//! | state | where the call is | a cancel | the change to the next state |
//! |---|---|---|---|
//! | waiting | `work` | removes it | [`take`](Calls::take) |
//! | running, the only one | `taken`, and a call [runs](Progress::runs) | marks `only` | [`over`](Calls::over) |
//! | running, one of several | `under_way` | marks the call's own [`UnderWay`] | [`answered`](Calls::answered) |
//! | over | nowhere | does nothing | – |
//!
//! `only` is the [`UnderWay`] of one call after the other. `take` restarts it, so that nothing of the last call counts
//! for the next one. This file knows no links and no messages. `shm/tests/loom/cancel.rs` and `stream.rs` explore it.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::task::Waker;

use rustc_hash::FxHashMap;

use crate::executor::progress::Progress;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};
use crate::under_way::{self, UnderWay};

/// The address of a call in the process that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CallId {
    /// The number of the link through which it came.
    pub(crate) link: u64,
    /// Its number, as its caller counts.
    pub(crate) task: u64,
}

/// A piece of work that waits in the queue.
pub(crate) trait Waits {
    /// The facts about a call that are wanted while it runs.
    type Taken;

    /// The call, if it is one.
    fn call(&self) -> Option<CallId>;

    /// The facts about the call, if it is one.
    fn taken(&self) -> Option<Self::Taken>;
}

/// See the module's documentation. The executor locks it, and changes `work` for reasons of its own.
pub(crate) struct Queue<W: Waits> {
    pub(crate) work: VecDeque<W>,
    /// Memory for later records.
    pub(crate) spare: Vec<Vec<u8>>,
    /// The call that was taken last, which may be over, and the facts about it.
    taken: Option<(CallId, W::Taken)>,
    /// The calls under way in an actor that may have several.
    under_way: FxHashMap<CallId, (Arc<UnderWay>, W::Taken)>,
}

/// The calls of a process, from their arrival to their end.
pub(crate) struct Calls<W: Waits> {
    queue: Mutex<Queue<W>>,
    /// The call that runs, of a process that runs one at a time.
    only: UnderWay,
    /// The actor answers calls later, so that several may be under way.
    is_concurrent: AtomicBool,
    pub(crate) progress: Progress,
}

impl<W: Waits> Queue<W> {
    /// The facts about the call that was taken last, which may be over.
    pub(crate) fn taken(&self) -> Option<&W::Taken> {
        self.taken.as_ref().map(|(_, taken)| taken)
    }

    /// Removes a call that has not begun. Returns whether it was there.
    pub(crate) fn remove(&mut self, call: CallId) -> bool {
        let before = self.work.len();
        self.work.retain(|work| work.call() != Some(call));
        self.work.len() < before
    }

    /// The calls that are under way in an actor that may have several, with the facts about them.
    pub(crate) fn all_under_way(&self) -> impl Iterator<Item = (&Arc<UnderWay>, &W::Taken)> {
        self.under_way.values().map(|(call, taken)| (call, taken))
    }

    /// How many calls are under way in an actor that may have several.
    pub(crate) fn count_under_way(&self) -> usize {
        self.under_way.len()
    }
}

impl<W: Waits> Calls<W> {
    pub(crate) fn new() -> Self {
        let (work, spare) = (VecDeque::new(), Vec::new());
        Self {
            queue: Mutex::new(Queue { work, spare, taken: None, under_way: FxHashMap::default() }),
            only: UnderWay::new(0),
            is_concurrent: AtomicBool::new(false),
            progress: Progress::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue<W>> {
        self.queue.lock()
    }

    /// From now on, calls may be answered later.
    pub(crate) fn set_concurrent(&self) {
        self.is_concurrent.store(true, Ordering::Release);
    }

    /// Whether the answer to a call may be given later.
    pub(crate) fn is_concurrent(&self) -> bool {
        // Acquire: pairs with `set_concurrent`, before which the actor was constructed.
        self.is_concurrent.load(Ordering::Acquire)
    }

    // ---- the thread that runs calls ----

    /// Takes the first of what waits. If it is a call, it runs from now on. The wakers are those of the last call: the
    /// caller drops them with nothing locked, because their destructors are an executor's code.
    pub(crate) fn take(&self, queue: &mut Queue<W>) -> Option<(W, Vec<Waker>)> {
        let work = queue.work.pop_front()?;
        let number = self.progress.begun() + 1;
        queue.taken = work.call().zip(work.taken());
        if self.is_concurrent()
            && let Some((call, taken)) = work.call().zip(work.taken())
        {
            queue.under_way.insert(call, (Arc::new(UnderWay::new(number)), taken));
        }
        let of_last_call = self.only.restart(number);
        self.progress.begin();
        Some((work, of_last_call))
    }

    /// The call that was taken last is over, or runs elsewhere.
    pub(crate) fn over(&self) {
        self.progress.end();
    }

    /// A call of an actor that may have several under way. It has been taken, and is not answered.
    pub(crate) fn under_way(&self, call: CallId) -> Option<Arc<UnderWay>> {
        self.queue.lock().under_way.get(&call).map(|(state, _)| state.clone())
    }

    /// A call that may be answered later is answered. Its caller may have sent it again by now, because it failed: the
    /// state of that attempt stays.
    pub(crate) fn answered(&self, call: CallId, state: &Arc<UnderWay>) {
        let mut queue = self.queue.lock();
        let answered = match queue.under_way.entry(call) {
            Entry::Occupied(known) if Arc::ptr_eq(&known.get().0, state) => Some(known.remove()),
            _ => None,
        };
        drop(queue);
        // Its wakers have destructors of executors, so the queue is not locked.
        drop(answered);
    }

    // ---- the thread that handles the mail ----

    /// The call, if it runs. The queue is locked, so it is not mistaken for the next call.
    pub(crate) fn find<'a>(&'a self, queue: &'a Queue<W>, call: CallId) -> Option<&'a UnderWay> {
        if self.is_concurrent() {
            return queue.under_way.get(&call).map(|(state, _)| state.as_ref());
        }
        let is_taken = queue.taken.as_ref().is_some_and(|(taken, _)| *taken == call);
        (is_taken && self.progress.runs()).then_some(&self.only)
    }

    /// The caller of a call has taken items of its stream. A report about a call that is over comes too late. Returns
    /// the wakers of futures that wait for room in the stream.
    #[must_use]
    pub(crate) fn items_taken(&self, call: CallId, items: u64) -> Vec<Waker> {
        let queue = self.queue.lock();
        self.find(&queue, call).map(|call| call.set_items_taken(items)).unwrap_or_default()
    }

    /// The running calls that came through a link, which is closed: their futures are to look again. The queue is
    /// locked. Returns their wakers.
    #[must_use]
    pub(crate) fn wakers_of(&self, queue: &Queue<W>, link: u64) -> Vec<Waker> {
        let of_link = queue
            .under_way
            .iter()
            .filter(|(call, _)| call.link == link)
            .map(|(_, (state, _))| state.as_ref());
        let only = queue.taken.as_ref().filter(|(call, _)| call.link == link).map(|_| &self.only);
        of_link.chain(only).flat_map(UnderWay::take_wakers).collect()
    }

    // ---- the threads of a running call ----

    /// The call that runs, of a process that runs one at a time.
    pub(crate) fn only(&self) -> &UnderWay {
        &self.only
    }

    /// Asks the running call: of several, the one that this thread runs, if it runs one.
    pub(crate) fn with_running<T>(&self, ask: impl FnOnce(&UnderWay) -> T) -> Option<T> {
        // Relaxed: the threads of a call begin after it was set.
        match self.is_concurrent.load(Ordering::Relaxed) {
            false => Some(ask(&self.only)),
            true => under_way::with_current(ask),
        }
    }
}
