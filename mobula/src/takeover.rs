//! Taking the process over in place of `main`.
//!
//! Workers, and the embedded store, are this same program, started again. They must never run the program's own `main`,
//! even if it is not the user's: it may be that of a test harness, of criterion, or of a host that only links a
//! library. Their last argument gives their role. The environment does not, so a process that they start does not
//! inherit it.
//!
//! This happens at the last moment before `main`. The program's entry code calls the C library's `__libc_start_main`,
//! and finds the function here, which passes a `main` of ours on to the true one. By then the C library is set up,
//! every constructor of the program and its libraries has run (of `ctor`, of C++, and all that they register, also
//! threads that they start), and the loader holds no lock. A library that is loaded while a program runs, by `dlopen`,
//! changes nothing about that program: the function here is never called. The library knows that, so that
//! [`Builder::init`](crate::Builder::init) can say what to do. The same holds for a program that is linked with a
//! static C library, where there is no other `__libc_start_main` to find. Both kinds of program call [`become_worker`].
//!
//! In a worker, the program's constructors run, then this, then the calls. `main` does not run, and neither do the
//! destructors of statics, or functions for `atexit`: a worker ends by `_exit`.

#[cfg(not(target_feature = "crt-static"))]
mod entry;

use std::sync::atomic::{AtomicBool, Ordering};

use mobula_runtime::{ROLE, run_role};

use crate::host::RUST;

/// Whether copies of this program take the role in their first argument.
static TAKES_OVER: AtomicBool = AtomicBool::new(false);

/// Whether a worker can be this same program, started again.
pub(crate) fn takes_over() -> bool {
    TAKES_OVER.load(Ordering::Relaxed)
}

/// Makes this process a worker, and does not return, if a session has started it as one. Otherwise it only allows this
/// process to start sessions.
///
/// A program that is linked with mobula in the usual way does not need this. Two kinds of programs do, as the first
/// thing in `main`: a program that is linked with a static C library (`-C target-feature=+crt-static`), and a program
/// that loads a library with mobula in it while it runs (`dlopen`), as interpreters do. The latter may be the host
/// itself, or a small program that the session's [`worker_program`](crate::Builder::worker_program) names, and that
/// loads the same library.
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
        run_role(role, &RUST);
    }
}
