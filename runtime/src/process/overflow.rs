//! Reports a stack overflow of a worker.
//!
//! The standard library's own handler is set before a program's `main`, which a worker never runs. This one prints the
//! same text in the worker's output and reports it to the head. Then the signal ends the process, as it would have
//! without this handler. It covers the thread that runs calls. Threads that user code starts have no separate stack for
//! a handler, so for them only the signal is known.

use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::OnceLock;

use crate::process::lifeline::last_words;
use crate::process::stack;

/// The handler's stack.
const HANDLER_STACK_BYTES: usize = 64 << 10;
/// The greatest distance below the stack of a fault that the growth of the stack causes. A function touches its frame
/// page by page, and the kernel keeps a gap of this size.
const BELOW_BYTES: usize = 1 << 20;

/// The data of the handler. It is made in advance, because a handler must not request anything from the system.
#[derive(Debug)]
struct Known {
    /// The lowest address of the stack.
    low: usize,
    pid: libc::pid_t,
    token: u64,
    socket: RawFd,
}

static KNOWN: OnceLock<Known> = OnceLock::new();

/// Makes an overflow of this thread's stack be reported from now on.
pub(crate) fn tell_overflow(token: u64, socket: RawFd) {
    let Some(Range { start: low, .. }) = stack::bounds() else { return };
    // SAFETY: asks for a number.
    let pid = unsafe { libc::getpid() };
    if KNOWN.set(Known { low, pid, token, socket }).is_err() {
        return;
    }
    let memory = Box::leak(vec![0u8; HANDLER_STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the handler's stack is never freed, and used for nothing else; the handler only makes system calls; and
    // the structures outlive the calls that read them.
    unsafe {
        if libc::sigaltstack(&raw const stack, std::ptr::null_mut()) != 0 {
            return;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        action.sa_sigaction = on_fault as *const () as usize;
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn on_fault(signal: libc::c_int, info: *const libc::siginfo_t, _context: *const libc::c_void) {
    // SAFETY: the kernel gives a handler with `SA_SIGINFO` valid information. The functions called are allowed in a
    // handler.
    unsafe {
        // Back from here the instruction faults again, and ends the process; a signal that was sent is sent again.
        libc::signal(signal, libc::SIG_DFL);
        if (*info).si_code <= 0 {
            libc::raise(signal);
            return;
        }
        let address = (*info).si_addr() as usize;
        let Some(known) = KNOWN.get() else { return };
        let is_overflow = address < known.low && known.low - address <= BELOW_BYTES;
        // A forked child is not the worker.
        if is_overflow && libc::getpid() == known.pid {
            const TEXT: &[u8] = b"mobula: the stack of this worker has overflowed: it ends\n";
            libc::write(2, TEXT.as_ptr().cast(), TEXT.len());
            last_words(known.socket, known.token);
        }
    }
}
