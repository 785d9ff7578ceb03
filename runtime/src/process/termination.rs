//! SIGTERM in the process of an actor: the actor ends, and its destructor runs.
//!
//! The signal's handler only makes a descriptor readable, which the thread that watches the [lifeline](super::lifeline)
//! looks at. That thread lets the running call finish and the actor be dropped, for at most [`PATIENCE`]. Then the
//! process ends by the same signal, so its parent sees the usual exit status. A program that has a handler of its own
//! keeps it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

/// How long the running call and the destructor may take after the signal.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// The descriptor that the handler makes readable. It stays open as long as the process lives.
static EVENT: AtomicI32 = AtomicI32::new(-1);
/// The process that catches the signal. A child that it forks has the same handler.
static PROCESS: AtomicU32 = AtomicU32::new(0);
static HAS_COME: AtomicBool = AtomicBool::new(false);

/// Becomes readable when this process is told to end.
#[derive(Debug)]
pub(crate) struct Termination(BorrowedFd<'static>);

impl Termination {
    /// For the one thread that watches it. Nothing is caught before [`catch`].
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: makes a new descriptor, and touches no memory.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was just made, and nothing else owns it.
        let event = unsafe { OwnedFd::from_raw_fd(event) }.into_raw_fd();
        EVENT.store(event, Ordering::Release);
        // SAFETY: `into_raw_fd` has given the descriptor up, and nothing closes it.
        Ok(Self(unsafe { BorrowedFd::borrow_raw(event) }))
    }
}

impl AsFd for Termination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

/// Catches SIGTERM from now on, unless the program does so itself.
pub(crate) fn catch() {
    PROCESS.store(std::process::id(), Ordering::Release);
    // SAFETY: all zeros are a valid value of this C struct, with an empty mask and no flags.
    let (mut action, mut before) = unsafe { (std::mem::zeroed::<libc::sigaction>(), std::mem::zeroed()) };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: both point to values of the type that the function wants, and the handler does only what a handler may.
    unsafe {
        if libc::sigaction(libc::SIGTERM, std::ptr::null(), &mut before) == 0
            && before.sa_sigaction == libc::SIG_DFL
        {
            libc::sigaction(libc::SIGTERM, &action, std::ptr::null_mut());
        }
    }
}

extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: `getpid`, `write` and what `end` calls may be called by a handler; the number that is written lives on
    // the stack. The error number of the interrupted thread is put back.
    unsafe {
        if libc::getpid() as u32 != PROCESS.load(Ordering::Acquire) {
            return end();
        }
        let errno = *libc::__errno_location();
        HAS_COME.store(true, Ordering::Release);
        let one = 1_u64;
        libc::write(EVENT.load(Ordering::Acquire), (&raw const one).cast(), size_of::<u64>());
        *libc::__errno_location() = errno;
    }
}

/// Whether this process was told to end.
pub(crate) fn has_come() -> bool {
    HAS_COME.load(Ordering::Acquire)
}

/// Ends the process by the signal. In its handler, the process ends when the handler returns.
pub(crate) fn end() {
    // SAFETY: sets the default action and sends this process the signal; nothing of it is needed any more.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_DFL);
        libc::kill(libc::getpid(), libc::SIGTERM);
    }
}
