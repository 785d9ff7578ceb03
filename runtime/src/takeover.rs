//! Taking the process over before `main`.
//!
//! Workers, and the embedded store, are this same program, started again. They must never run the program's own
//! `main`, also where that is not the user's: under a test harness, criterion, or a host that only links a library.
//! So a constructor, which the loader runs before `main`, looks for one environment variable, and if it is there, the
//! process becomes what the variable says and never returns.
//!
//! The constructor does nothing else: in every other process it costs one look at the environment.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::lifeline::WatchedNumbers;
use crate::logs;

/// Says what a process that this program started is to be.
pub(crate) const ROLE: &str = "MOBULA_ROLE";

#[used]
// SAFETY: the section holds pointers to functions without arguments that the loader calls once, which this is. Entries
// without a number come after the standard library's own, so its arguments and environment are there.
#[unsafe(link_section = ".init_array")]
static TAKE_OVER: extern "C" fn() = take_over;

extern "C" fn take_over() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    // SAFETY: before `main` there is no other thread that could read the environment. It is removed so that processes
    // that user code starts do not become workers too.
    unsafe { std::env::remove_var(ROLE) };
    set_signals();
    // So that nothing that the process opens is taken for its input or output.
    mobula_client::descriptors::fill_standard();
    let code = match role.to_str().and_then(Role::from_variable) {
        Some(Role::Worker(worker)) => {
            call_it(crate::panics::MAIN_THREAD);
            crate::worker::run(worker)
        }
        Some(Role::Store(store)) => {
            call_it(c"mobula-store");
            crate::session::store::run(&store)
        }
        None => {
            logs::say(format_args!("{ROLE} is set, but not by this build of mobula: unset it"));
            2
        }
    };
    // SAFETY: ends the process without running the program's exit handlers, which belong to its `main`.
    unsafe { libc::_exit(code) };
}

/// Names the process, as `top` and `ps -e` show it: they would show the program's own name for each.
fn call_it(name: &std::ffi::CStr) {
    // Nothing depends on it.
    let _ = nix::sys::prctl::set_name(name);
}

/// What the driver has done to its own signals is not the process's affair: it hears of its children, and no signal waits.
fn set_signals() {
    // SAFETY: sets dispositions, with no handler among them. That of SIGPIPE is as the standard library has it in every
    // program: a write to a closed pipe is an error.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// What a started process is to be; travels in the environment, as hexadecimal digits.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Role {
    Worker(WorkerRole),
    Store(StoreRole),
}

/// A worker or actor process.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct WorkerRole {
    pub(crate) socket: std::path::PathBuf,
    pub(crate) head: mobula_client::OwnerId,
    /// By which the head knows the process.
    pub(crate) token: u64,
    pub(crate) lifeline: WatchedNumbers,
    pub(crate) forward_output: bool,
    pub(crate) spin: std::time::Duration,
}

/// The embedded store.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct StoreRole {
    pub(crate) socket: std::path::PathBuf,
    pub(crate) capacity_bytes: u64,
    pub(crate) spill_directory: Option<std::path::PathBuf>,
    /// `None`: what the store takes by itself.
    pub(crate) spill_bytes_max: Option<u64>,
    pub(crate) lifeline: WatchedNumbers,
    /// Leads to the session's directory, and is removed with it.
    pub(crate) link: Option<std::path::PathBuf>,
}

impl Role {
    fn from_variable(text: &str) -> Option<Self> {
        let pairs = text.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> =
            pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        postcard::from_bytes(&bytes?).ok()
    }

    pub(crate) fn to_variable(&self) -> String {
        let bytes = postcard::to_stdvec(self).expect("a growing vector takes everything");
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Takes over a descriptor that the process was started with.
pub(crate) fn inherited(raw: RawFd) -> OwnedFd {
    // SAFETY: its number came with the role from the process that started this one, which left it open for just this
    // purpose; nothing else in this process knows it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
    // Not for processes that this one starts.
    let _ = nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
    descriptor
}
