//! A worker process, from its start to its end.

mod answer;
mod flight;
mod owned_call;
mod serve;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobula_client::internal::explained;

use crate::environment::Environment;
use crate::error::Error;
use crate::executor::Executor;
use crate::host::Host;
use crate::mail::link::Link;
use crate::process::lifeline::Watched;
use crate::process::output;
use crate::process::overflow::tell_overflow;
use crate::process::role::WorkerRole;
use crate::process::store;
use crate::process::termination::{self, Termination};
use crate::runtime::{ProcessSettings, Runtime, current};
use crate::wire::ToHead;

pub(crate) use self::answer::{fail, reply, say_begun};
pub use self::owned_call::OwnedCall;

/// Serves until the head ends the process or the session is over. Returns the process's exit code.
pub(crate) fn run(role: WorkerRole, host: &'static dyn Host) -> i32 {
    host.started();
    // SAFETY: the numbers came with the role, which a process has one of, and begins with.
    let lifeline = Arc::new(unsafe { Watched::inherit(role.lifeline) });
    lifeline.watch_descriptors();
    end_with(lifeline.clone());
    tell_overflow(role.token, lifeline.number());
    let socket = PathBuf::from(&role.socket);
    match serve(role, host) {
        Ok(Served::UntilExit) => {
            if termination::has_come() {
                termination::end();
            }
            0
        }
        // The head may be gone: then nobody else ends what user code has forked.
        Ok(Served::UntilSessionOver) => {
            end_group();
            0
        }
        // The session ended while this worker started: that is no error.
        Err(_) if lifeline.is_cut() || !socket.parent().is_some_and(Path::exists) => 0,
        Err(error) => {
            output::say(format_args!("this worker could not serve: {error}"));
            1
        }
    }
}

/// Ends the process, and the processes that user code has forked, as soon as the session is over. Ends the actor when
/// the process gets SIGTERM.
fn end_with(lifeline: Arc<Watched>) {
    let watch = move || {
        let ends = |termination: &Termination| {
            if lifeline.wait_until_cut_or(termination) {
                return;
            }
            if let Ok(runtime) = current::runtime() {
                runtime.stop_serving();
            }
            if !lifeline.is_cut_within(termination::PATIENCE) {
                termination::end();
            }
        };
        match Termination::new() {
            Ok(termination) => ends(&termination),
            Err(_) => lifeline.wait_until_cut(),
        }
        end_group();
        // SAFETY: ends the process; nothing of it outlives the session.
        unsafe { libc::_exit(0) };
    };
    let thread = std::thread::Builder::new().name("mobula-lifeline".into()).stack_size(64 << 10);
    if let Err(error) = thread.spawn(watch) {
        let reason = explained(&error);
        output::say(format_args!("a worker without a watch on its driver does not serve: {reason}"));
        // SAFETY: as above.
        unsafe { libc::_exit(1) };
    }
}

/// Ends the process's group, which the head has made for it: this process, and the processes that user code has forked.
/// Does nothing if user code has taken the process to another group.
fn end_group() {
    // SAFETY: signals to this process and its children; nothing of them is needed any more.
    unsafe {
        if libc::getpgrp() == libc::getpid() {
            libc::kill(0, libc::SIGKILL);
        }
    }
}

/// Why a worker ends.
enum Served {
    /// The head no longer needs it.
    UntilExit,
    UntilSessionOver,
}

fn serve(role: WorkerRole, host: &'static dyn Host) -> Result<Served, Error> {
    if role.labels_output {
        output::enable_labels();
    }
    // Before anything of the session's is there: it may set up memory, threads and output.
    let init = host.init();
    let client = store::connect("worker", Path::new(&role.socket))?;
    let environment = Environment::of_this_process(role.environment);
    let executor = Executor::new(Box::new(host), client.recorder().cloned());
    let directory = Path::new(&role.socket).parent().map(Path::to_owned);
    let place = ProcessSettings {
        resources: role.resources,
        environment,
        gpus: role.gpus,
        namespace: role.namespace,
        directory,
    };
    let runtime = Runtime::new(client, Some(executor), role.spin, place);
    current::start(&runtime)?;
    let head = Arc::new(Link::new(runtime.client.connect_to(role.head)?, false));
    runtime.set_head(head.clone());
    let (token, pid, build_id) = (role.token, std::process::id(), host.build_id());
    let record = match init {
        Ok(()) => ToHead::Register { token, pid, build_id },
        Err(error) => ToHead::InitFailed { token, error },
    };
    let _ = head.send(&record, Vec::new());
    let executor = runtime.executor.as_ref().expect("it was just given one");
    serve::serve(&runtime, executor, host);
    Ok(if runtime.is_over() { Served::UntilSessionOver } else { Served::UntilExit })
}
