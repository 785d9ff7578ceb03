//! The threads that spill, and that restore what other clients want.
//!
//! Both take their time, and need the daemon's answers, which the background thread receives. So they have threads of
//! their own, which exist while there is something to do.

use std::io;
use std::sync::Arc;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::{Refusal, Request};
use nix::sys::signal::{SigSet, Signal};

use crate::error::ClientError;
use crate::object::Handle;
use crate::shared::Shared;
use crate::spill::out::spill;
use crate::spill::restore::restore_own;

/// Has bytes spilled, and tells the daemon the outcome.
pub(crate) fn spill_soon(shared: &Arc<Shared>, bytes: u64) {
    if !shared.spill_jobs.add_spill(bytes) {
        return;
    }
    let spiller = shared.clone();
    if let Err(error) = spawn("mobula-spill", move || run_spiller(&spiller)) {
        while shared.spill_jobs.next_spill().is_some() {}
        let failure = Some(format!("no thread to spill with: {error}"));
        shared.connection.tell(&Request::Spilled { bytes: 0, failure });
    }
}

/// Has an object restored that another client wants, and tells the daemon the outcome.
pub(crate) fn restore_soon(shared: &Arc<Shared>, object: ObjectId) {
    if !shared.spill_jobs.add_restore(object) {
        return;
    }
    let restorer = shared.clone();
    if let Err(error) = spawn("mobula-restore", move || run_restorer(&restorer)) {
        for object in shared.spill_jobs.give_up_restorer() {
            let reason = format!("no thread for it: {error}");
            let refusal = Some(Refusal::NotRestored { object, reason });
            shared.connection.tell(&Request::Restored { object, refusal });
        }
    }
}

fn run_spiller(shared: &Shared) {
    // A file over the process's limit is an error in this thread, and no signal that ends the program.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    let _ = signals.thread_block();
    while let Some(wanted) = shared.spill_jobs.next_spill() {
        let (bytes, result) = spill(&shared.owner, &shared.peers, wanted);
        let failure = result.err().map(|error| match error {
            // The daemon's own reason.
            ClientError::Refused(Refusal::SpillFailed { reason, .. }) => reason,
            error => error.to_string(),
        });
        shared.connection.tell(&Request::Spilled { bytes, failure });
    }
}

fn run_restorer(shared: &Shared) {
    while let Some(object) = shared.spill_jobs.next_restore() {
        // The handle keeps it from being freed meanwhile.
        let restored = Handle::hold(&shared.owner, &shared.peers, object)
            .and_then(|_handle| restore_own(&shared.owner, object));
        let refusal = restored.err().map(|error| match error {
            ClientError::Refused(refusal) => refusal,
            ClientError::NoSuchObject { .. } => Refusal::NoSuchObject { object },
            error => Refusal::NotRestored { object, reason: error.to_string() },
        });
        shared.connection.tell(&Request::Restored { object, refusal });
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(work).map(drop)
}
