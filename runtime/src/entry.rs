//! The entry of a process that a session has started: from here it does the work of its [role](crate::process::role).
//! The front decides when the program reads its arguments, and calls [`run_role`].

use std::ffi::CStr;

use crate::host::Host;
use crate::process::output;
use crate::process::role::{ROLE, Role};
use crate::{session, worker};

/// The name of a worker's main thread, which runs the calls.
const WORKER_NAME: &CStr = c"mobula-worker";
const STORE_NAME: &CStr = c"mobula-store";
const SESSION_NAME: &CStr = c"mobula-session";
const HEAD_NAME: &CStr = c"mobula-head";

/// Does the work of a role until it is done. `role` is the text behind [`ROLE`] in an argument. A worker runs the
/// functions of `host`.
///
/// The process must be one that has done nothing else: it ends by `_exit`, so no destructor of a static runs, and no
/// function for `atexit`.
pub fn run_role(role: &str, host: &'static dyn Host) -> ! {
    set_signals();
    // So that nothing that the process opens is taken for its input or output.
    mobula_client::internal::descriptors::fill_standard();
    let code = match Role::from_text(role) {
        Some(Role::Worker(worker)) => {
            call_it(WORKER_NAME);
            worker::run(worker, host)
        }
        Some(Role::Store(store)) => {
            call_it(STORE_NAME);
            session::store_process::run(&store)
        }
        Some(Role::Session(session)) => {
            call_it(SESSION_NAME);
            session::shared::process::run(&session)
        }
        Some(Role::Head(head)) => {
            call_it(HEAD_NAME);
            session::shared::detached::run(head)
        }
        None => {
            output::say(format_args!("an argument begins with {ROLE}, but is not of this build of mobula"));
            2
        }
    };
    // SAFETY: ends the process without running the program's exit handlers, which belong to its `main`.
    unsafe { libc::_exit(code) };
}

/// Sets the name of the process in `top` and `ps -e`. Otherwise every process would have the program's name there.
fn call_it(name: &CStr) {
    // Nothing depends on it.
    let _ = nix::sys::prctl::set_name(name);
}

/// Resets the signals that the driver may have changed: this process hears of its children, and blocks no signal.
fn set_signals() {
    // SAFETY: sets dispositions, with no handler among them. That of SIGPIPE is as the standard library has it in every
    // program: a write to a closed pipe is an error.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}
