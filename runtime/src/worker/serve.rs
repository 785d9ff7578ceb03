//! Running calls, one after the other, on the process's main thread.

use crate::call::task_id::TaskId;
use crate::error::Failure;
use crate::executor::{Executor, Work};
use crate::host::invocation::Invocation;
use crate::host::{Host, Instance};
use crate::mail::waiters::Mail;
use crate::process::lifeline::end_if_descriptors_are_gone;
use crate::process::termination;
use crate::record::{self, Run, Runs};
use crate::runtime::Runtime;
use crate::wire::{Call, Callee, NoResults, Returns, StreamEnd, ToHead};
use crate::worker::answer::{fail, reply, reply_with_end, say_begun};
use crate::worker::owned_call::OwnedCall;
use crate::worker::stream::Items;

/// After a call that took this long, the thread looks at the mail before it begins the next one. The time of a look
/// does not matter then.
const LONG_NANOS: u64 = 50_000;

/// Runs the calls that arrive, until the session is over or the head ends the process.
pub(super) fn serve(runtime: &Runtime, executor: &Executor, host: &'static dyn Host) {
    executor.set_serving();
    let mut actor: Option<Box<dyn Instance>> = None;
    let mut used = None;
    // When the last call was over, if the next one has followed at once.
    let mut over = None;
    let runs = Runs::of(&runtime.client);
    loop {
        // Printed output appears at the latest when no call waits.
        let idle = || {
            host.idle();
            end_if_descriptors_are_gone();
        };
        let next = executor.next(&mut used).or_else(|| {
            over = None;
            runtime.wait_for_work(idle, || executor.next(&mut used))
        });
        let Some(Some(work)) = next else { break };
        executor.call_changed(runtime.head());
        runtime.call_begins();
        // A spent process does this last: it waits for its own calls, because other processes may need their results.
        let await_calls = || {
            let is_over = || executor.is_stopping() || !runtime.submitter.has_calls();
            runtime.wait_for_work(idle, || is_over().then_some(()))
        };
        match work {
            Work::AwaitCalls => _ = await_calls(),
            Work::CallerGone(caller) => {
                if let Some(actor) = actor.as_deref_mut() {
                    actor.caller_gone(caller);
                }
            }
            Work::Construct { actor: id, class, arguments, context, payloads } => {
                termination::catch();
                let mut on = Invocation::new(&runtime.client, payloads, 0, arguments, Returns::One);
                on.set_context(context);
                let result = host.construct(class, &mut on).map(|made| {
                    if made.is_concurrent() {
                        executor.set_concurrent(made.places());
                    }
                    if made.watches_callers() {
                        executor.set_watches_callers();
                    }
                    actor = Some(made);
                });
                end_forked_child(runtime);
                if let Some(head) = runtime.head() {
                    let _ = head.send(&ToHead::Constructed { actor: id, result }, Vec::new());
                }
            }
            // The actor decides which thread runs the call, and when.
            Work::Call { from, number, call, record, held }
                if executor.is_concurrent() && call.callee != Callee::TERMINATE =>
            {
                let call = OwnedCall::new(executor, from, number, call, record, held);
                if let (Some(Callee::Method(method)), Some(actor)) = (call.callee(), actor.as_deref_mut()) {
                    actor.begin(method, call);
                }
            }
            Work::Call { from, number, call, record, held } => {
                if call.limits.is_some_and(|limits| limits.is_past()) {
                    let removed = NoResults::Removed { task: call.task };
                    let _ = from.send_with(Vec::new(), |record| removed.append_to(record));
                    used = Some(record);
                    executor.call_over();
                    executor.call_changed(runtime.head());
                    continue;
                }
                // If this process dies, the caller knows by this mark which calls had not begun.
                from.begin(number);
                if call.callee == Callee::TERMINATE {
                    executor.begin_to_terminate();
                    runtime.wait_for_answers(|| executor.is_stopping() || !executor.has_others());
                    let _ = runtime.exit_actor();
                    executor.call_over();
                    break;
                }
                let Call { task, callee, returns, arguments: count, limits, attempt, .. } = call;
                if limits.is_some() {
                    say_begun(&from, task);
                }
                let items = match returns {
                    Returns::Stream(in_flight_max) => {
                        Some(Items::new(runtime, &from, task, in_flight_max, executor.only()))
                    }
                    _ => None,
                };
                // One look at the clock serves the end of a call and the beginning of the next.
                let since = over.unwrap_or_else(record::now);
                let run = Run { task, caller: from.peer, since };
                runs.begin(run);
                let context = call.context(&record);
                let mut on = Invocation::new(&runtime.client, record, call.bytes(), count, returns);
                on.set_runs(&runs);
                on.set_call(TaskId::new(from.peer, task), attempt);
                on.set_context(context);
                if let Some(items) = &items {
                    on.set_items(items);
                }
                let outcome = match (callee, actor.as_deref_mut()) {
                    (Callee::Function(key), _) => host.call(key, &mut on),
                    (Callee::Method(method), Some(actor)) => actor.call(method, &mut on),
                    (Callee::Method(_), None) => Err(Failure::Other(
                        "a method was called before the actor of this process was constructed".into(),
                    )),
                };
                end_forked_child(runtime);
                let now = record::now();
                over = Some(now);
                let ran_nanos = runs.nanos(now.saturating_sub(since));
                let is_spent = on.is_spent();
                let (results, record) = on.into_parts();
                // Before the caller can give the process back: until it ends, it keeps what the call demanded.
                if is_spent {
                    executor.set_spent(runtime.submitter.has_calls(), runtime.head());
                }
                runs.over(run, now, outcome.is_err(), matches!(callee, Callee::Function(_)));
                match (outcome, &items) {
                    // The head answers it: the actor has ended.
                    _ if executor.exits() => {}
                    (Ok(()), None) => reply(&from, task, results, ran_nanos),
                    (Ok(()), Some(items)) => {
                        let end = StreamEnd { task, items: items.sent(), ran_nanos };
                        reply_with_end(&from, end, results);
                    }
                    (Err(failure), _) => fail(&from, task, failure, ran_nanos),
                }
                drop(held);
                // The poller looks after held objects and records that wait for room, although no other record may
                // come.
                if from.holds_anything() {
                    runtime.call_begins();
                }
                // The next call may have been cancelled meanwhile.
                if ran_nanos >= LONG_NANOS {
                    runtime.look();
                }
                used = Some(record);
                if is_spent {
                    await_calls();
                }
            }
        }
        executor.call_over();
        executor.call_changed(runtime.head());
    }
    // The destructor of the actor's state runs, like that of any value.
    drop(actor);
    host.idle();
}

/// Ends a child that user code has forked and that returned from the call as well. The child is no worker: the rings
/// and the connection to the store are its parent's. Costs one load.
pub(super) fn end_forked_child(runtime: &Runtime) {
    if runtime.client.is_forked_child() {
        // SAFETY: ends the process, and runs no exit handlers of its parent.
        unsafe { libc::_exit(0) };
    }
}
