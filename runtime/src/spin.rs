//! How long to look for mail before sleeping.
//!
//! To be woken by another process costs some ten microseconds or two, to see what it wrote less than one. So who waits
//! looks for a moment first, unless that takes from others what they need:
//!
//! * While more threads of the machine want to run than it has processors, nobody spins: whoever is waited for may be
//!   waiting for just the processor that this would take. The kernel counts them (`/proc/loadavg`), and is asked once
//!   a millisecond at most.
//! * Where the last waits have all been long ones, only one in a few spins, to notice when that changes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Long enough to see the answer of a process that has to be woken first.
pub(crate) const SPIN_DEFAULT: Duration = Duration::from_micros(30);
/// So many waits in a row that were not over soon, and only one in [`PROBE_PERIOD`] spins.
const MISSES_MAX: u32 = 16;
const PROBE_PERIOD: u32 = 4;
/// How long a look at the machine's load holds.
const LOAD_PERIOD: Duration = Duration::from_millis(1);
/// Looks between two looks at the clock, which costs as much as some of them.
const LOOKS: u32 = 16;
/// Looks before the first one: a microsecond or two.
const LOOKS_AT_ONCE: u32 = 64;

/// How long the waits of a process spin.
#[derive(Debug)]
pub(crate) struct Spin {
    max: Duration,
    /// Waits in a row that were longer than a spin.
    misses: AtomicU32,
    load: Load,
}

impl Spin {
    /// Up to `max` a wait; on a machine with one processor not at all.
    pub(crate) fn new(max: Duration) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let max = if processors > 1 { max } else { Duration::ZERO };
        Self { max, misses: AtomicU32::new(0), load: Load::new() }
    }

    /// Spins until `found`, or for as long as it is worth; `true` if it was found.
    pub(crate) fn until(&self, found: impl Fn() -> bool) -> bool {
        if self.max.is_zero() || !self.is_worth_it() {
            return false;
        }
        let look = || {
            std::hint::spin_loop();
            found()
        };
        // Who answers at once is not kept waiting by a look at the clock.
        let mut has_come = !self.load.was_full() && (0..LOOKS_AT_ONCE).any(|_| look());
        if !has_come {
            let start = Instant::now();
            if self.load.is_full(start) {
                return false;
            }
            while !has_come && start.elapsed() < self.max {
                has_come = (0..LOOKS).any(|_| look());
            }
        }
        match (has_come, self.misses.load(Ordering::Relaxed)) {
            (true, 0) => {}
            (true, _) => self.misses.store(0, Ordering::Relaxed),
            (false, misses) => self.misses.store(misses.saturating_add(1), Ordering::Relaxed),
        }
        has_come
    }

    /// Threads that ask at the same time may get in each other's way, which does no harm.
    fn is_worth_it(&self) -> bool {
        let misses = self.misses.load(Ordering::Relaxed);
        if misses < MISSES_MAX || misses.is_multiple_of(PROBE_PERIOD) {
            return true;
        }
        self.misses.store(if misses == u32::MAX { MISSES_MAX } else { misses + 1 }, Ordering::Relaxed);
        false
    }
}

/// Whether the machine has processors to spare.
#[derive(Debug)]
struct Load {
    /// `None` where the kernel does not say: then there are always some.
    file: Option<File>,
    processors: u32,
    born: Instant,
    /// When the kernel is to be asked again, in nanoseconds since `born`.
    due_nanos: AtomicU64,
    is_full: AtomicBool,
}

impl Load {
    fn new() -> Self {
        let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
        Self {
            file: File::open("/proc/loadavg").ok(),
            processors: online.ok().flatten().and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
            born: Instant::now(),
            due_nanos: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
        }
    }

    /// What the kernel said last.
    fn was_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Whether more threads want to run than there are processors. A system call once in a while.
    fn is_full(&self, now: Instant) -> bool {
        let Some(file) = &self.file else { return false };
        let now_nanos = now.duration_since(self.born).as_nanos() as u64;
        if now_nanos >= self.due_nanos.load(Ordering::Relaxed) {
            self.due_nanos.store(now_nanos + LOAD_PERIOD.as_nanos() as u64, Ordering::Relaxed);
            let mut text = [0; 128];
            let length = file.read_at(&mut text, 0).unwrap_or(0);
            let runnable = std::str::from_utf8(&text[..length]).ok().and_then(runnable);
            self.is_full.store(runnable.unwrap_or(0) > self.processors, Ordering::Relaxed);
        }
        self.is_full.load(Ordering::Relaxed)
    }
}

/// How many threads run or want to, as `/proc/loadavg` has it: `0.20 0.18 0.12 3/80 11206`.
fn runnable(loadavg: &str) -> Option<u32> {
    loadavg.split_whitespace().nth(3)?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spin on a machine that always has processors to spare.
    fn spin(max: Duration) -> Spin {
        let load = Load { file: None, ..Load::new() };
        Spin { max, misses: AtomicU32::new(0), load }
    }

    #[test]
    fn after_many_long_waits_only_some_spin_and_a_short_one_brings_all_back() {
        let spin = spin(Duration::from_nanos(1));
        let mut looked = Vec::new();
        for wait in 0..MISSES_MAX + 2 * PROBE_PERIOD {
            let looks = AtomicU32::new(0);
            assert!(!spin.until(|| {
                looks.fetch_add(1, Ordering::Relaxed);
                false
            }));
            if looks.into_inner() > 0 {
                looked.push(wait);
            }
        }
        assert_eq!(looked, (0..=MISSES_MAX).chain([MISSES_MAX + PROBE_PERIOD]).collect::<Vec<_>>());
        while !spin.until(|| true) {}
        assert!((0..MISSES_MAX).all(|_| spin.until(|| true)));
    }

    #[test]
    fn a_moment_of_nothing_is_never_spent() {
        assert!(!spin(Duration::ZERO).until(|| panic!("it was looked for")));
    }

    #[test]
    fn the_kernel_says_how_many_want_to_run() {
        assert_eq!(runnable("0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(runnable("nonsense"), None);
        let text = std::fs::read_to_string("/proc/loadavg").unwrap();
        assert!(runnable(&text).unwrap() >= 1, "{text}");
    }

    #[test]
    fn where_more_want_to_run_than_can_nobody_spins() {
        let full = Spin { load: Load { processors: 0, ..Load::new() }, ..spin(Duration::from_secs(1)) };
        // That it is full is noticed at the first look at the clock.
        assert!(!full.until(|| false));
        assert!(!full.until(|| panic!("it was looked for")));
    }
}
