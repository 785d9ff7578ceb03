//! Making calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicUsize};

use smallvec::smallvec;

use crate::call::items::Items;
use crate::call::limits::CallLimits;
use crate::call::options::TaskOptions;
use crate::call::outcome::Settled;
use crate::call::result_cell::ResultCell;
use crate::call::task::{Extras, ResultCells, Target, Task};
use crate::definition::Definition;
use crate::demand::Demand;
use crate::error::Failure;
use crate::executor::Executor;
use crate::front::arguments::ArgumentList;
use crate::front::context;
use crate::front::reference::Ref;
use crate::front::resources::demand_of_call;
use crate::mail::waiters::Mail;
use crate::session_number::SessionNumber;
use crate::wire::Returns;

/// Calls a function. Returns a reference to each result.
///
/// A call with small arguments costs no message to the daemon, and no system call while the worker is awake. An error
/// becomes the result.
#[inline]
pub fn call_function(
    function: Definition,
    arguments: ArgumentList,
    returns: Returns,
    options: TaskOptions,
) -> impl Iterator<Item = Ref> {
    let Definition { key, name } = function;
    references(submit(Target::Function { key, name }, arguments, returns, None, options))
}

/// Makes the first reference to each cell.
#[inline]
pub(crate) fn references(cells: ResultCells) -> impl Iterator<Item = Ref> {
    cells.into_iter().map(Ref::to_result)
}

/// Makes a call. Returns the cells of its results. The items of a stream go to `items`.
// Always: otherwise the arguments would be copied once more.
#[inline(always)]
pub(crate) fn submit(
    target: Target,
    arguments: ArgumentList,
    returns: Returns,
    items: Option<Arc<Items>>,
    options: TaskOptions,
) -> ResultCells {
    let (runtime, arguments) = match arguments.into_parts() {
        Ok(parts) => parts,
        Err(failure) => return failed(SessionNumber::NONE, returns, &failure),
    };
    let demand = match &target {
        Target::Function { name, .. } => match demand_of_call(&runtime, &options, || name.to_string()) {
            Ok(demand) => demand,
            Err(failure) => return failed(SessionNumber::NONE, returns, &failure),
        },
        // An actor has what it demands for life.
        Target::Method { .. } | Target::Constructor { .. } => Demand::default(),
    };
    let is_detached = options.detached == Some(true);
    let id = runtime.submitter.next_id();
    // Nearly always there is one.
    let (results, own): (ResultCells, ResultCells) = match returns.count() {
        1 => {
            let cell = ResultCell::pending(runtime.session, id);
            (smallvec![cell.clone()], smallvec![cell])
        }
        count => {
            let cells: ResultCells = (0..count).map(|_| ResultCell::pending(runtime.session, id)).collect();
            (cells.clone(), cells)
        }
    };
    let parent = if is_detached { 0 } else { runtime.executor.as_ref().map_or(0, Executor::parent) };
    let (limits, context) = (options.limits.as_deref(), context::current());
    let error_retries = options.error_retries.retries();
    let max_task_retries = options.max_retries.filter(|_| matches!(target, Target::Method { .. }));
    let is_watched = limits.is_some() || error_retries.is_some();
    let extras = (is_watched || context.is_some() || max_task_retries.is_some()).then(|| {
        let limits = limits.map(CallLimits::new);
        let watched = is_watched.then(|| runtime.submitter.watch_call());
        Box::new(Extras { limits, context, error_retries, max_task_retries, watched })
    });
    // Made where it stays: it is large.
    let task = Arc::new(Task {
        id,
        parent,
        is_detached,
        target,
        arguments,
        returns,
        results: own,
        items,
        unready: AtomicUsize::new(1),
        is_cancelled: AtomicBool::new(false),
        demand,
        max_retries: options.retries(),
        extras,
        retries: AtomicU32::new(0),
        sent_in_vain: AtomicU32::new(0),
        memory_retries: AtomicU16::new(0),
    });
    if runtime.submitter.submit(task) {
        runtime.look();
    }
    results
}

/// The result cells of a call that could not be made.
pub(crate) fn failed(session: SessionNumber, returns: Returns, failure: &Failure) -> ResultCells {
    (0..returns.count()).map(|_| ResultCell::settled(session, Settled::failed(failure.clone()))).collect()
}
