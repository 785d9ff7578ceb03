//! A call on its way: its options, its encoded arguments, and the slots that its results go to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use mobula_client::Handle;
use parking_lot::Mutex;
use serde::Serialize;
use smallvec::{SmallVec, smallvec};

use crate::call::arguments::{Arg, IntoArg, ReturnTuple, SlotOf};
use crate::call::object_ref::{ObjectRef, Referent};
use crate::call::payload::{self, Payload, Payloads};
use crate::call::result_cell::{Inline, InlineBytes, Settled, Slot};
use crate::error::{Failure, Result};
use crate::mail::Core;
use crate::registry::{Function, Key};
use crate::session::{self, SessionNumber};
use crate::wire::Returns;

/// In place of a number of retries or restarts: as often as it takes.
pub const UNLIMITED: u32 = u32::MAX;

/// Whether something that has been begun again so often may be begun again once more.
pub(crate) fn is_within(begun_again: u32, max: u32) -> bool {
    max == UNLIMITED || begun_again < max
}

/// Options of a call.
///
/// ```
/// # use mobula::TaskOptions;
/// let options = TaskOptions::new().max_retries(3);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TaskOptions {
    pub(crate) max_retries: Option<u32>,
}

impl TaskOptions {
    /// The defaults: no retries.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the call is begun again when the process that runs it dies; [`UNLIMITED`] is possible. An `Err` or a
    /// panic is a result, and not retried.
    ///
    /// Default: 0. Then the function runs at most once, and a call that may have begun when its process died is
    /// [`Failure::WorkerDied`]. One that had not begun goes to another process, which is no retry. With *n* retries it runs at most *n* + 1 times, and at least
    /// once if it succeeds; what an attempt had already done to the world when its process died is not undone, so such
    /// a function should be one that may run twice. An attempt that runs again also makes the calls again that the
    /// function makes.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// What is not set here, as `defaults` has it.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self { max_retries: self.max_retries.or(defaults.max_retries) }
    }
}

/// The options of a call, where the caller left them open as the attribute has them.
#[doc(hidden)]
pub fn with_defaults(options: TaskOptions, defaults: TaskOptions) -> TaskOptions {
    options.or(defaults)
}

/// What a task runs.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Function {
        key: Key,
        name: &'static str,
    },
    Method {
        actor: u64,
        method: u32,
        class: &'static str,
        name: &'static str,
        /// Keeps the actor alive until the call is over.
        #[expect(dead_code, reason = "held, not read")]
        token: Arc<Handle>,
    },
    /// The start of an actor: its arguments go to the head.
    Constructor {
        actor: u64,
        class: &'static str,
    },
}

impl Target {
    /// As people read it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Function { name, .. } => (*name).to_owned(),
            Self::Method { class, name, .. } => format!("{class}::{name}"),
            Self::Constructor { class, .. } => format!("{class}::new"),
        }
    }
}

/// Slots of a call's results; nearly always one.
pub(crate) type Slots = SmallVec<[Arc<Slot>; 1]>;

/// A call that was made.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) target: Target,
    pub(crate) arguments: TaskArguments,
    pub(crate) returns: Returns,
    pub(crate) results: Slots,
    /// Arguments that are still pending, and one more while the task is being submitted.
    pub(crate) unready: AtomicUsize,
    /// How often the call may be begun again; of a method, the head says so when it matters.
    pub(crate) max_retries: u32,
    pub(crate) begun_again: AtomicU32,
    /// How often it was sent to a process that died before it began.
    pub(crate) sent_in_vain: AtomicU32,
}

/// So often a call is sent to processes that die before they begin it: by then it is no accident.
const SENT_IN_VAIN_MAX: u32 = 100;

impl Task {
    /// Whether the call, which has not begun in a process that died, goes to another one; if so, that is counted.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        self.sent_in_vain.fetch_add(1, Ordering::Relaxed) < SENT_IN_VAIN_MAX
    }

    /// Whether the call may be begun again after the process that had it died; if so, that is counted.
    pub(crate) fn may_begin_again(&self, max: u32) -> bool {
        // Only whoever took the call off the books asks, so nobody counts at the same time.
        let begun_again = self.begun_again.load(Ordering::Relaxed);
        let may = is_within(begun_again, max);
        if may {
            self.begun_again.store(begun_again.saturating_add(1), Ordering::Relaxed);
        }
        may
    }
}

/// The arguments of a call. They keep the objects that they name alive.
#[derive(Debug, Default)]
pub(crate) struct TaskArguments {
    /// The values, with nothing in the places of results.
    values: Payloads,
    /// By their positions: the results of other calls, resolved before this one is sent.
    results: SmallVec<[(u32, Arc<Slot>); 1]>,
    /// Objects that values were moved to because they were too large for one record together.
    moved: Mutex<Vec<Handle>>,
}

impl TaskArguments {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.values.count()
    }

    /// Those that are the results of other calls.
    pub(crate) fn results(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.results.iter().map(|(_, slot)| slot)
    }

    /// What keeps the objects that the arguments name, all results being there.
    pub(crate) fn held(&self) -> Vec<Handle> {
        let mut held = self.values.held().to_vec();
        held.extend(self.moved.lock().iter().cloned());
        for slot in self.results() {
            match slot.outcome() {
                Some(Settled::Inline(inline)) => held.extend(inline.references),
                Some(Settled::Stored(handle)) => held.push(handle),
                _ => {}
            }
        }
        held
    }

    /// All payloads, if they are as they were given: there is nothing to resolve.
    pub(crate) fn as_given(&self) -> Option<&[u8]> {
        self.results.is_empty().then(|| self.values.bytes())
    }

    /// All payloads, with the results in their places, which must be there; with `all_stored`, nothing is inline.
    pub(crate) fn resolve(&self, core: &Core, all_stored: bool) -> Result<Vec<u8>, Failure> {
        let mut resolved = Vec::new();
        let mut results = self.results.iter().peekable();
        for position in 0..self.count() {
            match results.next_if(|(at, _)| *at as usize == position) {
                Some((_, slot)) => match slot.outcome() {
                    Some(Settled::Failed(failure)) => return Err(*failure),
                    Some(Settled::Inline(Inline { format, value, references })) if !all_stored => {
                        payload::append_inline(&mut resolved, format, &value, &references);
                    }
                    Some(Settled::Stored(handle)) => payload::append_stored(&mut resolved, handle.id()),
                    _ => payload::append_stored(&mut resolved, slot.escape(&core.client)?.0.id()),
                },
                None => {
                    let mut given = self.values.bytes_of(position..position + 1);
                    match payload::take(&mut given) {
                        Ok(Payload::Inline { format, value, references }) if all_stored => {
                            let references = references.iter().map(|object| core.client.hold(object));
                            let references = references.collect::<Result<_, _>>()?;
                            let inline = Inline { format, value: InlineBytes::copy_of(value), references };
                            let moved =
                                Slot::settled(core.session, Settled::Inline(inline)).escape(&core.client)?.0;
                            payload::append_stored(&mut resolved, moved.id());
                            self.moved.lock().push(moved);
                        }
                        _ => resolved.extend_from_slice(self.values.bytes_of(position..position + 1)),
                    }
                }
            }
        }
        Ok(resolved)
    }
}

/// Arguments being collected; what the macros' code builds calls with.
#[derive(Debug, Default)]
pub struct ArgumentList {
    arguments: TaskArguments,
    failure: Option<Box<Failure>>,
}

impl ArgumentList {
    /// Encodes the next argument: one copy of what is not in the store, into a record if it is small, else into the
    /// store.
    pub(crate) fn push<T: Serialize>(&mut self, argument: impl IntoArg<T>) {
        let pushed = match argument.into_arg() {
            Arg::Reference(reference) => self.push_reference(reference.0),
            Arg::Value(value) => self.push_value(&value),
        };
        if let Err(failure) = pushed
            && self.failure.is_none()
        {
            self.failure = Some(Box::new(failure));
        }
    }

    /// What is there already goes along like a value; what is not is waited for, and a failure is found then.
    fn push_reference(&mut self, referent: Referent) -> Result<(), Failure> {
        session::core_of(referent.session())?;
        let TaskArguments { values, results, .. } = &mut self.arguments;
        match referent.is_ready().then(|| referent.outcome()).flatten() {
            Some(Settled::Inline(inline)) => values.push_inline(&inline),
            Some(Settled::Stored(handle)) => values.push_stored(handle),
            Some(Settled::Failed(_)) | None => {
                results.push((values.count() as u32, referent.into_slot()));
                values.push_nothing();
            }
        }
        Ok(())
    }

    fn push_value<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let core = session::core()?;
        Ok(self.arguments.values.push(&core, value)?)
    }
}

/// A call of a remote function, being put together by the macros' code.
#[derive(Debug)]
pub struct Call {
    function: &'static Function,
    options: TaskOptions,
    arguments: ArgumentList,
}

impl AsMut<ArgumentList> for Call {
    fn as_mut(&mut self) -> &mut ArgumentList {
        &mut self.arguments
    }
}

impl Call {
    /// A call without arguments yet.
    pub fn new(function: &'static Function, options: TaskOptions) -> Self {
        Self { function, options, arguments: ArgumentList::default() }
    }

    /// Makes the call; its result is one object.
    pub fn submit<T>(self) -> ObjectRef<T> {
        ObjectRef::new(self.make(Returns::One).remove(0))
    }

    /// Makes the call; each element of its result is an object.
    pub fn submit_tuple<T: ReturnTuple>(self) -> T::References {
        T::references(self.make(Returns::Tuple(T::COUNT)).into_iter().map(SlotOf).collect())
    }

    /// Makes the call; each of the `count` elements of its result is an object.
    pub fn submit_list<T>(self, count: usize) -> Vec<ObjectRef<T>> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.make(Returns::List(count)).into_iter().map(ObjectRef::new).collect()
    }

    fn make(self, returns: Returns) -> Slots {
        let target = Target::Function { key: self.function.key(), name: self.function.name };
        submit(target, self.arguments, returns, self.options)
    }
}

/// Makes a call; the slots of its results.
pub(crate) fn submit(
    target: Target,
    arguments: ArgumentList,
    returns: Returns,
    options: TaskOptions,
) -> Slots {
    let core = match session::core() {
        Ok(core) => core,
        Err(error) => return failed(SessionNumber::NONE, returns, &error.into()),
    };
    let ArgumentList { arguments, failure } = arguments;
    if let Some(failure) = failure {
        return failed(SessionNumber::NONE, returns, &failure);
    }
    let results: Slots = match returns.count() {
        1 => smallvec![Slot::pending(core.session)],
        count => (0..count).map(|_| Slot::pending(core.session)).collect(),
    };
    let task = Task {
        id: core.submitter.next_id(),
        target,
        arguments,
        returns,
        results: results.clone(),
        unready: AtomicUsize::new(1),
        max_retries: options.max_retries.unwrap_or(0),
        begun_again: AtomicU32::new(0),
        sent_in_vain: AtomicU32::new(0),
    };
    core.submit(Arc::new(task));
    results
}

/// The slots of a call that failed before it was made.
pub(crate) fn failed(session: SessionNumber, returns: Returns, failure: &Failure) -> Slots {
    (0..returns.count()).map(|_| Slot::settled(session, Settled::failed(failure.clone()))).collect()
}
