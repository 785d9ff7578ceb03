//! The heap after a spike: freed memory goes back to the system.
//!
//! The C library keeps memory that is freed in the middle of its heap for good: a program that once had a hundred
//! thousand calls under way holds their memory until it ends. It gives whole free pages back on request ([`trim`]). The
//! request walks through all free pieces and locks the heap meanwhile, so it is made only when much memory was freed,
//! and when the program has become quiet.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Frees after which trimming pays: some megabytes.
const MANY: u32 = 1 << 14;
/// It is quiet when fewer than [`MANY`] things were freed for this long.
const QUIET: Duration = Duration::from_secs(1);

static FREED: AtomicU32 = AtomicU32::new(0);
/// Whether a thread waits for quiet.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// Gives the heap's free pages back to the system, where it is the GNU C library's.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number; the C library's heap may be trimmed by any thread at any time, and stays as it was for
    // the code that has allocated in it.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Call this for each freed allocation of a kind that can be very numerous. After many calls a thread waits until it is
/// quiet, trims the heap once, and ends. Usually one atomic addition.
#[inline]
pub fn freed() {
    // Relaxed: it is only a number.
    if FREED.fetch_add(1, Ordering::Relaxed) % MANY == MANY - 1 {
        watch();
    }
}

#[cold]
fn watch() {
    if IS_WATCHED.swap(true, Ordering::AcqRel) {
        return;
    }
    let thread = std::thread::Builder::new().name("mobula-heap".into()).stack_size(64 << 10);
    if thread.spawn(trim_when_quiet).is_err() {
        // There can be no more threads now; the next time there may.
        IS_WATCHED.store(false, Ordering::Release);
    }
}

fn trim_when_quiet() {
    loop {
        let seen = FREED.load(Ordering::Relaxed);
        std::thread::sleep(QUIET);
        let freed = FREED.load(Ordering::Relaxed);
        if freed.wrapping_sub(seen) >= MANY {
            continue;
        }
        trim();
        IS_WATCHED.store(false, Ordering::Release);
        // Threads that freed as many things meanwhile have found the heap watched.
        let passed_by = FREED.load(Ordering::Relaxed) / MANY != freed / MANY;
        if !passed_by || IS_WATCHED.swap(true, Ordering::AcqRel) {
            return;
        }
    }
}
