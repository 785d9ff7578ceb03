//! References to objects of any type, and waiting for them.

use std::cell::Cell;
use std::ops::Deref;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_client::{Client, ClientError, Handle, Object};
use smallvec::SmallVec;

use crate::call::inline::Inline;
use crate::call::outcome::{Settled, stored};
use crate::call::ref_id::RefId;
use crate::call::result_cell::ResultCell;
use crate::call::task_id::TaskId;
use crate::error::{Error, Failure, Result};
use crate::runtime::told::{Awaits, RESULTS_MAX, WaitReporter};
use crate::runtime::{Behind, Runtime, current};
use crate::session_number::SessionNumber;
use crate::submit::{Awaited, awaited};

/// A reference to an object: a value that was put, or the result of a call, which need not be there yet.
///
/// A reference is equal to its clones, in all processes, and to no other.
#[derive(Debug, Clone)]
#[must_use]
pub struct Ref {
    to: Referent,
    id: RefId,
}

// For functions that take references with or without a type.
impl AsRef<Ref> for Ref {
    fn as_ref(&self) -> &Ref {
        self
    }
}

/// The target of a reference.
#[derive(Debug, Clone)]
enum Referent {
    /// The result of a call, by the cell in which it arrives.
    Result(CellRef),
    /// An object that was put, or whose id came inside a value. It may be a promise of another process.
    Held(Handle, SessionNumber),
}

/// A counted pointer to a cell. After the last reference to a result is gone, perhaps no thread looks at the mail for
/// it. Then the background poller looks, so that the result is not kept.
#[derive(Debug, Clone)]
struct CellRef(Arc<ResultCell>);

impl Deref for CellRef {
    type Target = Arc<ResultCell>;

    #[inline]
    fn deref(&self) -> &Arc<ResultCell> {
        &self.0
    }
}

impl Drop for CellRef {
    #[inline]
    fn drop(&mut self) {
        // The call has the cell, too.
        if self.is_pending()
            && Arc::strong_count(&self.0) <= 2
            && let Ok(runtime) = current::runtime_of(self.session)
        {
            runtime.submitter.result_is_forgotten();
        }
    }
}

/// The value of a reference that is ready.
///
/// This is exhaustive on purpose: a front handles each variant, so a new one must be an error of its compiler.
#[derive(Debug)]
#[must_use]
pub enum Resolved {
    /// A small value, in this process's heap.
    Inline(Inline),
    /// A value in the store.
    Stored(Object),
}

impl Ref {
    /// Makes the first reference to the result of a call.
    #[inline]
    pub(crate) fn to_result(cell: Arc<ResultCell>) -> Self {
        Self { id: RefId::unique(), to: Referent::Result(CellRef(cell)) }
    }

    /// Makes a reference to an object of this process's session. The object was put, or its handle came inside a value.
    /// `id` is the reference's own id; `None` means the id of the object.
    pub fn to_object(handle: Handle, id: Option<RefId>) -> Self {
        let id = id.unwrap_or_else(|| RefId::of(handle.id()));
        Self { id, to: Referent::Held(handle, current::number()) }
    }

    /// The id of the reference and of its clones in all processes. No other reference has it, and it never changes.
    #[must_use]
    #[inline]
    pub fn id(&self) -> RefId {
        self.id
    }

    /// The session that the reference belongs to.
    #[must_use]
    #[inline]
    pub fn session(&self) -> SessionNumber {
        match &self.to {
            Referent::Result(cell) => cell.session,
            Referent::Held(_, session) => *session,
        }
    }

    /// Whether the value or the error is there. Does not receive new results: see [`wait`]. Costs one or two loads.
    #[must_use]
    #[inline]
    pub fn is_ready(&self) -> bool {
        match &self.to {
            Referent::Result(cell) => cell.is_ready(),
            // An error is a result too.
            Referent::Held(handle, _) => !matches!(handle.is_ready(), Ok(false)),
        }
    }

    /// Whether this process knows that the value is, or will be, an object of the store: then
    /// [`resolve`](Self::resolve) may have to wait for the disk.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !matches!(&self.to, Referent::Result(cell) if matches!(cell.outcome(), Some(Settled::Inline(_))))
    }

    /// The value, or the error in its place. The reference must be ready.
    ///
    /// # Errors
    /// The failure of the call, or the reason why the object cannot be read.
    pub fn resolve(&self, client: &Client) -> Result<Resolved, Failure> {
        match self.outcome() {
            Some(Settled::Inline(inline)) => Ok(Resolved::Inline(inline)),
            Some(Settled::Stored(handle)) => Ok(Resolved::Stored(stored(client, handle)?)),
            Some(Settled::Failed(failure)) => Err(*failure),
            None => Err(Failure::Other("the result is not there yet".into())),
        }
    }

    /// Exports the reference, so that another value can contain it. Returns a handle to the object that holds or will
    /// hold the value, and the reference's id if it differs from the object's. A result that exists only in this
    /// process becomes an object of the store.
    ///
    /// # Errors
    /// Those of the store; [`Failure::SessionOver`].
    pub fn export(&self) -> Result<(Handle, Option<RefId>)> {
        let runtime = current::runtime_of(self.session())?;
        let handle = match &self.to {
            Referent::Result(cell) => runtime.submitter.export(cell)?,
            Referent::Held(handle, _) => handle.clone(),
        };
        let id = (self.id != RefId::of(handle.id())).then_some(self.id);
        Ok((handle, id))
    }

    /// The outcome, if it has arrived here. A stored object may still be a promise.
    pub(crate) fn outcome(&self) -> Option<Settled> {
        match &self.to {
            Referent::Result(cell) => cell.outcome(),
            Referent::Held(handle, _) => Some(Settled::Stored(handle.clone())),
        }
    }

    /// The id of references to the store's object with the value; `None` if there is none, as for a small result, or
    /// none yet.
    #[must_use]
    pub fn object(&self) -> Option<RefId> {
        match self.outcome()? {
            Settled::Stored(handle) => Some(RefId::of(handle.id())),
            _ => None,
        }
    }

    /// The id of the call of this process whose result it is.
    pub(crate) fn task(&self) -> Option<u64> {
        match &self.to {
            Referent::Result(cell) => Some(cell.call).filter(|call| *call != 0),
            Referent::Held(..) => None,
        }
    }

    /// The id of the call whose result this is; `None` if another process made the call, and for an object that was
    /// put.
    #[must_use]
    pub fn task_id(&self) -> Option<TaskId> {
        let runtime = current::runtime_of(self.session()).ok()?;
        Some(TaskId::new(runtime.client.id(), self.task()?))
    }

    /// A result cell that a task can wait for.
    pub(crate) fn to_cell(&self) -> Arc<ResultCell> {
        match &self.to {
            Referent::Result(cell) => Arc::clone(cell),
            Referent::Held(handle, session) => ResultCell::settled(*session, Settled::Stored(handle.clone())),
        }
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        match &self.to {
            Referent::Result(cell) => cell.failure(),
            Referent::Held(..) => None,
        }
    }

    /// The cell, while its call is not over.
    fn pending_cell(&self) -> Option<Arc<ResultCell>> {
        match &self.to {
            Referent::Result(cell) if cell.is_pending() => Some(Arc::clone(cell)),
            _ => None,
        }
    }

    /// The things that the value waits for, while it is not there.
    fn awaited(&self) -> Option<Awaited> {
        match &self.to {
            Referent::Result(cell) => awaited(cell),
            Referent::Held(handle, _) => (!self.is_ready()).then(|| Awaited::Promise(handle.id())),
        }
    }

    /// The promise that will hold the value, while that is not there and no cell of this process waits for it.
    pub(crate) fn foreign_promise(&self) -> Option<Handle> {
        match &self.to {
            Referent::Result(cell) => cell.foreign_promise(),
            Referent::Held(handle, _) => (!self.is_ready()).then(|| handle.clone()),
        }
    }
}

/// Waits until all references are ready or one has failed, for at most `timeout` (`None`: without limit).
///
/// # Errors
/// The failure of the first reference that failed; [`Error::Timeout`]; [`Failure::SessionOver`] when a reference
/// belongs to a session that has ended, or the session ends meanwhile; [`Failure::Deadlock`].
#[track_caller]
pub fn wait_all<R: AsRef<Ref>>(runtime: &Runtime, refs: &[R], timeout: Option<Duration>) -> Result<()> {
    let at = Location::caller();
    let reporter = WaitReporter::new(runtime, timeout.is_none(), || awaits_all(refs, at));
    wait_all_with(runtime, refs, timeout, &reporter)
}

/// A wait that is split into slices, between which a front does other work. For observers it is one wait.
pub struct WaitInSlices<'a, R> {
    runtime: &'a Runtime,
    refs: &'a [R],
    /// `None`: all of them, or a failure.
    num_ready: Option<usize>,
    reporter: WaitReporter<'a, Box<dyn Fn() -> Option<Awaits> + 'a>>,
}

impl<'a, R: AsRef<Ref>> WaitInSlices<'a, R> {
    /// A wait for all references, as [`wait_all`], or for `num_ready` of them, as [`wait()`]. It `is_endless` if
    /// nothing but the results ends it.
    #[track_caller]
    pub fn new(runtime: &'a Runtime, refs: &'a [R], num_ready: Option<usize>, is_endless: bool) -> Self {
        let at = Location::caller();
        let awaits = move || match num_ready {
            None => awaits_all(refs, at),
            Some(num_ready) => awaits_some(refs, num_ready, at),
        };
        let reporter = WaitReporter::new(runtime, is_endless, Box::new(awaits) as Box<_>);
        Self { runtime, refs, num_ready, reporter }
    }

    /// Waits for one slice. Returns whether the wait is over: the references are ready.
    ///
    /// # Errors
    /// As [`wait_all`] and [`wait()`], but for [`Error::Timeout`].
    pub fn wait(&self, slice: Duration) -> Result<bool> {
        let slice = Some(slice);
        let Some(num_ready) = self.num_ready else {
            return match wait_all_with(self.runtime, self.refs, slice, &self.reporter) {
                Err(Error::Timeout { .. }) => Ok(false),
                done => done.map(|()| true),
            };
        };
        let ready = wait_some_with(self.runtime, self.refs, num_ready, slice, &self.reporter)?;
        Ok(ready.len() == num_ready)
    }
}

impl<R> std::fmt::Debug for WaitInSlices<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitInSlices").field("refs", &self.refs.len()).finish()
    }
}

/// The reason of a wait for all references. A failure of any of them ends it, so one of those that are missing could.
fn awaits_all<R: AsRef<Ref>>(refs: &[R], at: &'static Location<'static>) -> Option<Awaits> {
    let results = refs.iter().filter_map(|reference| reference.as_ref().awaited());
    let results: Vec<_> = results.take(RESULTS_MAX + 1).collect();
    (results.len() <= RESULTS_MAX).then_some(Awaits { needed: 1, results, at })
}

/// The reason of a wait for so many of the references.
fn awaits_some<R: AsRef<Ref>>(
    refs: &[R],
    num_ready: usize,
    at: &'static Location<'static>,
) -> Option<Awaits> {
    let results: Vec<_> = refs.iter().filter_map(|reference| reference.as_ref().awaited()).collect();
    let needed = num_ready.checked_sub(refs.len() - results.len())?;
    (results.len() <= RESULTS_MAX).then_some(Awaits { needed, results, at })
}

fn wait_all_with<R: AsRef<Ref>>(
    runtime: &Runtime,
    refs: &[R],
    timeout: Option<Duration>,
    reporter: &WaitReporter<'_, impl Fn() -> Option<Awaits>>,
) -> Result<()> {
    check_session(runtime, refs)?;
    let _watches = watches(refs)?;
    let mut next = 0;
    let mut failures_seen = None;
    let mut failed = None;
    // The results come more or less in the order of the references, so that of the last one comes late.
    let pending = Cell::new(refs.len());
    let last_pending = || {
        while let Some(last) = pending.get().checked_sub(1) {
            match refs[last].as_ref().pending_cell() {
                Some(cell) => return Behind::Surely(cell),
                None => pending.set(last),
            }
        }
        Behind::Unknown
    };
    let done = runtime.wait_for_results(deadline(timeout), reporter, last_pending, || {
        while next < refs.len() && refs[next].as_ref().is_ready() {
            next += 1;
        }
        if next == refs.len() {
            return Some(());
        }
        // A later failure ends the wait for an earlier result that is not there yet.
        let failures = runtime.failures();
        if failures_seen.replace(failures) != Some(failures) {
            failed = refs[next..].iter().find_map(|reference| reference.as_ref().failure());
        }
        failed.is_some().then_some(())
    })?;
    if let Some(failure) = failed {
        return Err(failure.into());
    }
    match done {
        Some(()) => Ok(()),
        None if runtime.is_cancelled() => Err(Failure::Cancelled.into()),
        None if runtime.is_over() => Err(Failure::SessionOver.into()),
        None => Err(Error::Timeout {
            waited: timeout.unwrap_or_default(),
            ready: refs.iter().filter(|reference| reference.as_ref().is_ready()).count(),
            wanted: refs.len(),
        }),
    }
}

/// Waits until `num_ready` of the references are ready, or `timeout` has passed (`None`: without end). Returns those
/// that are ready, at most `num_ready` of them, and all others, both in the order in which they came.
///
/// # Errors
/// [`Error::Config`] when `num_ready` is more than there are; [`Error::NotInitialized`]; [`Failure::SessionOver`] when
/// one of them is of a session that has ended, and not enough before it are ready; [`Failure::Deadlock`].
#[track_caller]
pub fn wait<R: AsRef<Ref>>(
    runtime: &Runtime,
    mut rest: Vec<R>,
    num_ready: usize,
    timeout: Option<Duration>,
) -> Result<(Vec<R>, Vec<R>)> {
    let at = Location::caller();
    let reporter = WaitReporter::new(runtime, timeout.is_none(), || awaits_some(&rest, num_ready, at));
    let positions = wait_some_with(runtime, &rest, num_ready, timeout, &reporter)?;
    drop(reporter);
    let ready = match positions[..] {
        // Most loops wait for one reference at a time.
        [position] => vec![rest.remove(position)],
        _ => {
            let (mut at, mut next) = (0, positions.iter().peekable());
            let is_ready = |_: &mut R| {
                at += 1;
                next.next_if(|position| **position == at - 1).is_some()
            };
            rest.extract_if(.., is_ready).collect()
        }
    };
    Ok((ready, rest))
}

/// The positions of the first references that are ready, at most `num_ready` of them.
fn wait_some_with<R: AsRef<Ref>>(
    runtime: &Runtime,
    refs: &[R],
    num_ready: usize,
    timeout: Option<Duration>,
    reporter: &WaitReporter<'_, impl Fn() -> Option<Awaits>>,
) -> Result<SmallVec<[usize; 8]>> {
    if num_ready > refs.len() {
        let expected = format!("at most the {} references that were given", refs.len());
        return Err(Error::Config { field: "num_ready", value: num_ready.to_string(), expected });
    }
    // References that are not ready are checked again. The session is checked with each, not beforehand: that would
    // cost as much for all as the wait for one that is ready.
    let mut positions = SmallVec::new();
    let mut has_ended = false;
    let mut enough = || {
        positions.clear();
        for (position, reference) in refs.iter().map(AsRef::as_ref).enumerate() {
            if positions.len() == num_ready {
                break;
            }
            has_ended |= !runtime.is_of(reference.session());
            if reference.is_ready() {
                positions.push(position);
            }
        }
        (has_ended || positions.len() == num_ready).then_some(())
    };
    if enough().is_none() {
        let _watches = watches(refs)?;
        // As likely as not, the results come in the order of the references.
        let behind = || {
            let ready = refs.iter().filter(|reference| reference.as_ref().is_ready()).count();
            let missing = num_ready.saturating_sub(ready + 1);
            let mut pending = refs.iter().filter_map(|reference| reference.as_ref().pending_cell());
            pending.nth(missing).map_or(Behind::Unknown, Behind::Likely)
        };
        let found = runtime.wait_for_results(deadline(timeout), reporter, behind, enough)?;
        if found.is_none() && runtime.is_cancelled() {
            return Err(Failure::Cancelled.into());
        }
    }
    if has_ended {
        return Err(Failure::SessionOver.into());
    }
    Ok(positions)
}

/// Waits until one of the references is ready.
///
/// # Errors
/// [`Failure::SessionOver`] when one of them is of a session that has ended, or the session ends meanwhile;
/// [`Failure::Deadlock`].
#[track_caller]
pub fn wait_any<R: AsRef<Ref>>(runtime: &Runtime, refs: &[R]) -> Result<()> {
    let at = Location::caller();
    check_session(runtime, refs)?;
    let any = || refs.iter().any(|reference| reference.as_ref().is_ready()).then_some(());
    if any().is_none() {
        let _watches = watches(refs)?;
        let failure = || if runtime.is_cancelled() { Failure::Cancelled } else { Failure::SessionOver };
        let awaits = || {
            let results: Vec<_> = refs.iter().filter_map(|reference| reference.as_ref().awaited()).collect();
            (results.len() <= RESULTS_MAX).then_some(Awaits { needed: 1, results, at })
        };
        let reporter = WaitReporter::new(runtime, true, awaits);
        let found = runtime.wait_for_results(None, &reporter, || Behind::Unknown, any)?;
        found.ok_or_else(failure)?;
    }
    Ok(())
}

/// Refuses references of a session that has ended.
pub(crate) fn check_session<R: AsRef<Ref>>(runtime: &Runtime, refs: &[R]) -> Result<()> {
    if refs.iter().all(|reference| runtime.is_of(reference.as_ref().session())) {
        Ok(())
    } else {
        Err(Failure::SessionOver.into())
    }
}

fn watches<R: AsRef<Ref>>(refs: &[R]) -> Result<Vec<mobula_client::Watch>> {
    let promises = refs.iter().filter_map(|reference| reference.as_ref().foreign_promise());
    Ok(promises.map(|handle| handle.watch()).collect::<Result<_, ClientError>>()?)
}

fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}
