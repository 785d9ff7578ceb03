//! The part of a thread's stack that is still free. With it, reading or writing a value that nests too deep is an
//! error, and does not end the process.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

/// The stack that is left for the functions that are called between two checks: mostly user code.
const RESERVE_BYTES: usize = 64 << 10;

thread_local! {
    /// The bounds of the thread's stack, once they were asked for.
    static BOUNDS: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// The address beyond which the stack of this thread must not grow.
#[derive(Debug, Clone, Copy)]
pub struct StackLimit(usize);

impl StackLimit {
    /// No limit, for work that is known to need little.
    pub const NONE: Self = Self(0);

    /// The limit of the current stack. The first call in each thread asks the kernel.
    #[must_use]
    pub fn here() -> Self {
        let (start, end) = BOUNDS.get().unwrap_or_else(|| {
            let Range { start, end } = bounds().unwrap_or_default();
            BOUNDS.set(Some((start, end)));
            (start, end)
        });
        // Nothing is known of a stack that another library made.
        if !(start..end).contains(&address()) {
            return Self::NONE;
        }
        Self(start + RESERVE_BYTES.min((end - start) / 4))
    }

    /// Whether the stack has grown beyond the limit. An addition and a comparison.
    #[inline(always)]
    #[must_use]
    pub fn is_reached(self) -> bool {
        address() < self.0
    }

    /// Whether at most `bytes` are left before the limit.
    #[inline(always)]
    #[must_use]
    pub fn is_within(self, bytes: usize) -> bool {
        address() < self.0.saturating_add(bytes)
    }
}

/// The approximate end of the stack now. Stacks grow downwards.
#[inline(always)]
fn address() -> usize {
    let here = 0u8;
    (&raw const here).addr()
}

/// The bounds of this thread's stack, if the system knows them.
pub(crate) fn bounds() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: the thread asks about itself; the attributes are initialized by the first call, when it succeeds, and
    // given back after the second, which writes to two locals.
    let known = unsafe {
        libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 && {
            let known = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut bytes) == 0;
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            known
        }
    };
    known.then(|| start.addr()..start.addr() + bytes)
}

/// Runs `work` with little stack left: half of the reserve that a limit keeps.
#[cfg(test)]
pub(crate) fn near_the_end<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    #[inline(never)]
    fn descend<R>(work: impl FnOnce() -> R, level: u64) -> R {
        let frame = std::hint::black_box([level; 64]);
        let limit = StackLimit::here();
        if address() < limit.0 - RESERVE_BYTES / 2 { work() } else { descend(work, frame[0] + 1) }
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        thread.spawn_scoped(scope, || descend(work, 0)).unwrap().join().unwrap()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(limit: StackLimit, level: u64) -> u64 {
        let frame = std::hint::black_box([level; 64]);
        if limit.is_reached() { frame[0] } else { depth(limit, level + 1) }
    }

    #[test]
    fn a_recursion_that_looks_ends_before_the_stack_does() {
        for bytes in [128 << 10, 1 << 20, 8 << 20] {
            let thread = std::thread::Builder::new().stack_size(bytes);
            let levels = thread.spawn(|| depth(StackLimit::here(), 0)).unwrap().join().unwrap();
            // A frame of 512 bytes at least, on at least half of the stack.
            assert!(levels > 0 && levels < bytes as u64 / 512, "{levels} in {bytes} bytes");
        }
    }
}
