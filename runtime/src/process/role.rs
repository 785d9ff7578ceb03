//! The role of a process that a session has started: a worker, or the store.
//!
//! The role is in the first argument, so the environment is left alone, and no process that this one starts takes
//! itself for a worker. The front decides how a program comes to look at that argument: see [`run_role`].

use std::ffi::{CStr, OsString};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::host::Host;
use crate::process::lifeline::WatchedNumbers;
use crate::process::output;
use crate::{session, wire, worker};

/// The prefix of the first argument of a worker and of an embedded store.
pub const ROLE: &str = "mobula-role=";

/// The name of a worker's main thread, which runs the calls.
const WORKER_NAME: &CStr = c"mobula-worker";
const STORE_NAME: &CStr = c"mobula-store";

/// Is what the role says, which stands behind [`ROLE`] in the first argument, until it is done. A worker runs what
/// `host` has.
///
/// The process must be one that has done nothing else: it ends by `_exit`, so no destructor of a static runs, and no
/// function for `atexit`.
pub fn run_role(role: &str, host: &'static dyn Host) -> ! {
    set_signals();
    // So that nothing that the process opens is taken for its input or output.
    mobula_client::descriptors::fill_standard();
    let code = match Role::from_text(role) {
        Some(Role::Worker(worker)) => {
            call_it(WORKER_NAME);
            worker::run(worker, host)
        }
        Some(Role::Store(store)) => {
            call_it(STORE_NAME);
            session::store::run(&store)
        }
        None => {
            output::say(format_args!(
                "the first argument begins with {ROLE}, but is not of this build of mobula"
            ));
            2
        }
    };
    // SAFETY: ends the process without running the program's exit handlers, which belong to its `main`.
    unsafe { libc::_exit(code) };
}

/// Names the process, as `top` and `ps -e` show it: they would show the program's own name for each.
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

/// The role of a started process. It is in the process's first argument, as hexadecimal digits.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Role {
    Worker(WorkerRole),
    Store(StoreRole),
}

/// A worker or actor process.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct WorkerRole {
    pub(crate) socket: OsString,
    pub(crate) head: mobula_client::OwnerId,
    /// The number by which the head knows the process.
    pub(crate) token: u64,
    pub(crate) lifeline: WatchedNumbers,
    pub(crate) forward_output: bool,
    pub(crate) spin: std::time::Duration,
}

/// The embedded store.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct StoreRole {
    pub(crate) socket: OsString,
    pub(crate) capacity_bytes: u64,
    pub(crate) clients_max: u32,
    pub(crate) spill_directory: Option<OsString>,
    /// The most bytes of spill files. `None`: the store's default.
    pub(crate) spill_bytes_max: Option<u64>,
    pub(crate) lifeline: WatchedNumbers,
    /// The link to the session's directory. It is removed with the directory.
    pub(crate) link: Option<OsString>,
}

impl Role {
    fn from_text(text: &str) -> Option<Self> {
        let pairs = text.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> =
            pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        wire::read(&bytes?).ok()
    }

    /// The role as the first argument of the process.
    pub(crate) fn to_argument(&self) -> String {
        let digits: String = wire::to_vec(self).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{ROLE}{digits}")
    }
}

/// Takes over a descriptor that the process was started with.
///
/// # Safety
/// The number came with the role from the process that started this one, which left the descriptor open for just this
/// purpose; and each is taken over once.
pub(crate) unsafe fn inherited(raw: RawFd) -> OwnedFd {
    // SAFETY: the caller says that it is open, and that nothing else in this process owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
    // Processes that this one starts must not inherit it.
    let _ = nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
    descriptor
}
