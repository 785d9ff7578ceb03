//! The program's entry: the function here takes the place of the C library's `__libc_start_main`, so that a worker
//! begins instead of the program's `main`. A program with a static C library does not contain this function.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use mobula_runtime::{ROLE, run_role};

use super::TAKES_OVER;
use crate::host::RUST;

type Main = extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) -> c_int;

/// The program's `main`, while the C library starts the program.
static MAIN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Stands in place of the C library's function of this name.
///
/// # Safety
/// Called by the program's entry code alone, with the arguments of the C library's own function.
// SAFETY: the name is the C library's. The function here does what that function does, by calling it.
#[unsafe(no_mangle)]
unsafe extern "C" fn __libc_start_main(
    main: Main,
    argument_count: c_int,
    arguments: *mut *mut c_char,
    init: *mut c_void,
    fini: *mut c_void,
    loader_fini: *mut c_void,
    stack_end: *mut c_void,
) -> c_int {
    type Start = unsafe extern "C" fn(
        Main,
        c_int,
        *mut *mut c_char,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
    ) -> c_int;
    MAIN.store(main as *mut c_void, Ordering::Relaxed);
    TAKES_OVER.store(true, Ordering::Relaxed);
    // SAFETY: the loader is done, and the next function of this name is the C library's, which takes what this one was
    // given. Nothing of the standard library's is used before that has run.
    unsafe {
        let next = libc::dlsym(libc::RTLD_NEXT, c"__libc_start_main".as_ptr());
        if next.is_null() {
            const TEXT: &[u8] =
                b"mobula: the C library has no __libc_start_main: call mobula::become_worker instead\n";
            libc::write(2, TEXT.as_ptr().cast(), TEXT.len());
            libc::abort();
        }
        let next = std::mem::transmute::<*mut c_void, Start>(next);
        next(main_or_role, argument_count, arguments, init, fini, loader_fini, stack_end)
    }
}

/// The function that the C library calls as `main`.
extern "C" fn main_or_role(
    argument_count: c_int,
    arguments: *mut *mut c_char,
    environment: *mut *mut c_char,
) -> c_int {
    if argument_count > 1 {
        // SAFETY: so many arguments are there, each ended by a zero, as `main` is given them.
        let argument = unsafe { CStr::from_ptr(*arguments.add(1)) };
        if let Ok(argument) = argument.to_str()
            && let Some(role) = argument.strip_prefix(ROLE)
        {
            run_role(role, &RUST);
        }
    }
    // SAFETY: a function of this type was put there before this one was passed on.
    let main = unsafe { std::mem::transmute::<*mut c_void, Main>(MAIN.load(Ordering::Relaxed)) };
    main(argument_count, arguments, environment)
}
