//! The [`Host`], which a front gives to the core: it runs the functions and actors of one language. It gets each call
//! as an [`Invocation`].

pub(crate) mod invocation;
pub(crate) mod reply;

use std::any::Any;
use std::sync::Arc;

use self::invocation::Invocation;
use crate::definition::Key;
use crate::error::{Failure, TaskError};
use crate::executor::Language;
use crate::executor::places::Places;
use crate::worker::OwnedCall;

/// Runs functions and actors in a worker process: those of one language, in one build.
///
/// A worker calls its host on the one thread that runs the process's calls, and holds no lock meanwhile. The host must
/// not unwind: it turns a panic of user code into an error.
pub trait Host: Send + Sync + 'static {
    /// The number of this build. A worker serves only drivers with the same number, because a key has a meaning only
    /// within one build.
    fn build_id(&self) -> u64;

    /// Called once when the process has become a worker, before it runs its first call.
    fn started(&self) {}

    /// Called once after [`started`](Self::started), before the process is a part of its session: runs what the program
    /// wants to run in each worker before its first call.
    ///
    /// # Errors
    /// Why the process cannot serve. The calls that would run there fail with it, and the process ends.
    fn init(&self) -> Result<(), TaskError> {
        Ok(())
    }

    /// Runs a function. The host passes the results to [`Invocation::give`].
    ///
    /// # Errors
    /// The failure that the caller gets in place of the results. Results that were already given are dropped.
    fn call(&self, function: Key, on: &mut Invocation<'_>) -> Result<(), Failure>;

    /// Runs a constructor.
    ///
    /// # Errors
    /// Why the actor could not be constructed.
    fn construct(&self, class: Key, on: &mut Invocation<'_>) -> Result<Box<dyn Instance>, Failure>;

    /// The function that runs was cancelled. The host may make it stop. Called by any thread, and perhaps when the next
    /// call has begun, so what the host does must ask [`is_cancelled`](crate::is_cancelled) first. It must not wait.
    fn interrupt(&self) {}

    /// The name of a function, for reports about it; empty if it is not known. Called by the thread that runs it.
    fn function_name(&self, function: Key) -> String {
        let _ = function;
        String::new()
    }

    /// The name of a method of a class; `None`: of its constructor.
    fn method_name(&self, class: Key, method: Option<u32>) -> String {
        let _ = (class, method);
        String::new()
    }

    /// Whether places in the program are those of the host's language.
    fn has_places(&self) -> bool {
        true
    }

    /// Called when no call waits. The host writes out buffered output.
    fn idle(&self);
}

impl Language for &'static dyn Host {
    fn interrupt(&self) {
        (**self).interrupt();
    }

    fn function_name(&self, function: Key) -> String {
        (**self).function_name(function)
    }

    fn method_name(&self, class: Key, method: Option<u32>) -> String {
        (**self).method_name(class, method)
    }

    fn has_places(&self) -> bool {
        (**self).has_places()
    }
}

/// The state of an actor in its process. Dropping it runs the actor's destructor, which must not unwind either.
pub trait Instance: Any {
    /// Runs a method.
    ///
    /// # Errors
    /// As [`Host::call`].
    fn call(&mut self, method: u32, on: &mut Invocation<'_>) -> Result<(), Failure>;

    /// Whether several calls may be under way: because they run on other threads, or because they are answered later,
    /// by [`Invocation::later`]. Asked once.
    fn is_concurrent(&self) -> bool {
        false
    }

    /// For the search for deadlocks: what decides when a call of a concurrent instance begins; `None`: calls may begin
    /// at any time. Asked once.
    fn places(&self) -> Option<Arc<dyn Places>> {
        None
    }

    /// Whether the instance wants to be told of callers that are gone. Then all calls of a process run, also those that
    /// were waiting when it died, and [`caller_gone`](Self::caller_gone) is called after the last one. Asked once.
    fn watches_callers(&self) -> bool {
        false
    }

    /// The process with this [number](crate::Reply::caller) is gone, and its last call has run.
    fn caller_gone(&mut self, caller: u64) {
        let _ = caller;
    }

    /// Begins a call of an instance that is concurrent. The next call of the actor begins when this returns.
    fn begin(&mut self, method: u32, call: OwnedCall) {
        call.run(|on| self.call(method, on));
    }
}
