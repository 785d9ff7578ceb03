//! Taking the process over in place of `main`.
//!
//! Workers, and the embedded store, are this same program, started again. They must never run the program's own
//! `main`, also where that is not the user's: under a test harness, criterion, or a host that only links a library.
//! Their first argument says what they are to be; the environment is left alone, so nothing that they start takes itself
//! for a worker.
//!
//! The moment is the last one before `main`: the program's entry code calls the C library's `__libc_start_main`, and finds
//! the one here, which passes a `main` of ours on to the true one. By then the C library is set up, every constructor of
//! the program and its libraries has run (of `ctor`, of C++, whatever they register, also threads that they start), and
//! the loader holds no lock. A library that is loaded while a program runs, by `dlopen`, changes nothing about that
//! program: nobody calls the function here, and the library knows that, so that [`Builder::init`](crate::Builder::init)
//! can say what to do. The same holds for a program that is linked with a static C library, where there is no other
//! `__libc_start_main` to find. Both have [`become_worker`].
//!
//! What runs in a worker: the program's constructors, then this, then the calls. `main` does not run, nor do
//! the destructors of statics, or functions for `atexit`: a worker ends by `_exit`.

#[cfg(not(target_feature = "crt-static"))]
mod entry;

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::process::lifeline::WatchedNumbers;
use crate::process::output;
use crate::value::stream;

/// Before what a process is to be, in its first argument.
const ROLE: &str = "mobula-role=";

/// Whether this program's copies become what their first argument says.
static TAKES_OVER: AtomicBool = AtomicBool::new(false);

/// Whether a worker can be this same program, started again.
pub(crate) fn takes_over() -> bool {
    TAKES_OVER.load(Ordering::Relaxed)
}

/// Makes this process a worker, and does not return, if a session has started it as one; else it does nothing but allow
/// this process to start sessions.
///
/// No program needs this that is linked with mobula in the usual way. Two kinds do, as the first thing in `main`: a program
/// that is linked with a static C library (`-C target-feature=+crt-static`), and one that loads a library with mobula in
/// it while it runs (`dlopen`), as interpreters do. The latter may be the host itself, or a small program that the
/// session's [`worker_program`](crate::Builder::worker_program) names, and that loads the same library.
///
/// ```
/// // In `main`, or in a function of the library that `main` calls:
/// mobula::become_worker();
/// ```
pub fn become_worker() {
    TAKES_OVER.store(true, Ordering::Relaxed);
    if let Some(role) = std::env::args_os().nth(1)
        && let Some(role) = role.to_str().and_then(|argument| argument.strip_prefix(ROLE))
    {
        run(role);
    }
}

/// Is what the role says, until it is done.
fn run(role: &str) -> ! {
    set_signals();
    // So that nothing that the process opens is taken for its input or output.
    mobula_client::descriptors::fill_standard();
    let code = match Role::from_text(role) {
        Some(Role::Worker(worker)) => {
            call_it(crate::worker::panics::MAIN_THREAD);
            crate::worker::run(worker)
        }
        Some(Role::Store(store)) => {
            call_it(c"mobula-store");
            crate::session::store::run(&store)
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

/// What a started process is to be; travels in its first argument, as hexadecimal digits.
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
    /// By which the head knows the process.
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
    /// `None`: what the store takes by itself.
    pub(crate) spill_bytes_max: Option<u64>,
    pub(crate) lifeline: WatchedNumbers,
    /// Leads to the session's directory, and is removed with it.
    pub(crate) link: Option<OsString>,
}

impl Role {
    fn from_text(text: &str) -> Option<Self> {
        let pairs = text.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> =
            pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        stream::read_alone(&bytes?).ok()
    }

    /// As the first argument of the process.
    pub(crate) fn to_argument(&self) -> String {
        let bytes = stream::write_alone(self).expect("a role is plain data");
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{ROLE}{digits}")
    }
}

/// Takes over a descriptor that the process was started with.
///
/// # Safety
/// The number came with the role from the process that started this one, which left the descriptor open for just this purpose;
/// and each is taken over once.
pub(crate) unsafe fn inherited(raw: RawFd) -> OwnedFd {
    // SAFETY: the caller says that it is open, and that nothing else in this process owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
    // Not for processes that this one starts.
    let _ = nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
    descriptor
}
