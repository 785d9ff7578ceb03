//! A worker process, from its start to its end.

use std::io::Read;
use std::os::fd::RawFd;
use std::sync::Arc;

use mobula_client::ConnectOptions;

use crate::core::Core;
use crate::error::Error;
use crate::executor::Executor;
use crate::link::Link;
use crate::message::ToHead;
use crate::takeover::{WorkerRole, inherited};
use crate::{logs, registry, session};

/// Serves until the head says that it is enough, or the session is over. The process's exit code.
pub(crate) fn run(role: WorkerRole) -> i32 {
    let lifeline = role.lifeline;
    watch_lifeline(lifeline);
    match serve(role) {
        Ok(()) => 0,
        // A session that ends while its workers start has nothing to complain about.
        Err(_) if is_cut(lifeline) => 0,
        Err(error) => {
            eprintln!("mobula: this worker could not serve: {error}");
            1
        }
    }
}

/// Whether the driver is gone, or its session over.
fn is_cut(lifeline: RawFd) -> bool {
    let mut descriptor = libc::pollfd { fd: lifeline, events: 0, revents: 0 };
    // SAFETY: one descriptor, which the lifeline's thread keeps open, and no waiting.
    unsafe { libc::poll(&raw mut descriptor, 1, 0) };
    descriptor.revents & libc::POLLHUP != 0
}

/// Ends the process at once when the driver is gone, however that happened.
fn watch_lifeline(raw: RawFd) {
    let mut lifeline = std::fs::File::from(inherited(raw));
    let watch = move || {
        // Nothing is ever written: this returns when the last writer, the driver, is gone.
        let _ = lifeline.read(&mut [0]);
        // SAFETY: ends the process; nothing of it outlives the session.
        unsafe { libc::_exit(0) };
    };
    let thread = std::thread::Builder::new().name("mobula-lifeline".into()).stack_size(64 << 10);
    if let Err(error) = thread.spawn(watch) {
        eprintln!("mobula: a worker without a watch on its driver does not serve: {error}");
        // SAFETY: as above.
        unsafe { libc::_exit(1) };
    }
}

fn serve(role: WorkerRole) -> Result<(), Error> {
    if role.forward_output {
        logs::enable_labels();
    }
    let client =
        ConnectOptions::new().label(format!("worker {}", std::process::id())).connect(&role.socket)?;
    let core = Core::new(client, Some(Executor::default()), role.spin);
    session::start_core(&core)?;
    let head = Arc::new(Link::new(core.client.connect_to(role.head)?, false));
    core.set_head(head.clone());
    let (token, pid, fingerprint) = (role.token, std::process::id(), registry::fingerprint());
    let _ = head.send(&ToHead::Register { token, pid, fingerprint }, Vec::new());
    let executor = core.executor.as_ref().expect("it was just given one");
    executor.serve(&core);
    Ok(())
}
