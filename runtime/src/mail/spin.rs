//! How long a thread looks for mail before it sleeps.
//!
//! A wake-up by another process costs ten to twenty microseconds; a look at the words that the process wrote costs less
//! than one. So a thread that waits looks first: for a microsecond or two, which costs less than to sleep and to be
//! woken, and then for longer. There are three exceptions:
//!
//! * The last wait was a long one: the next one will probably be long too. Then the first look is the only one.
//! * It waits for the answer of a process that was asleep, and its own last wait did not end just before. Then it does
//!   not look at all. Two processes that exchange records from time to time are faster when they alternate on one
//!   processor than when a second processor must wake up. Two processes that exchange records all the time are both
//!   awake from the second or third record on.
//! * More threads of the machine want to run than it has processors: the other process may need the processor that the
//!   look would use. Then it looks only a few times. The kernel counts these threads (`/proc/loadavg`); the thread asks
//!   it at most once a millisecond.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula_client::internal::descriptors::above_standard;

/// Long enough to see the answer of a process that has to be woken first.
pub(crate) const SPIN_DEFAULT: Duration = Duration::from_micros(30);
/// The longest wait that counts as a short one.
const SHORT: Duration = Duration::from_micros(100);
/// How long an answer of the kernel about the machine's load is used.
const LOAD_PERIOD: Duration = Duration::from_millis(1);
/// The looks between two looks at the clock. One look at the clock costs as much as some of them.
const LOOKS: u32 = 16;
/// The looks before the first look at the clock: a microsecond or two.
const LOOKS_AT_ONCE: u32 = 64;
/// These looks where more threads want to run than there are processors: two processes that alternate on one processor
/// look in vain.
const LOOKS_WHEN_FULL: u32 = 4;

/// Decides how long the waits of a process spin.
#[derive(Debug)]
pub(crate) struct Spin {
    max: Duration,
    /// The last wait was a short one.
    is_short: AtomicBool,
    /// The end of the last wait in which a thread slept, in nanoseconds since `born`.
    ended_nanos: AtomicU64,
    born: Instant,
    load: Load,
}

impl Spin {
    /// Spins for at most `max` in each wait; on a machine with one processor, not at all.
    pub(crate) fn new(max: Duration) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self::with(if processors > 1 { max } else { Duration::ZERO }, Load::new())
    }

    fn with(max: Duration, load: Load) -> Self {
        let (is_short, ended_nanos) = (AtomicBool::new(true), AtomicU64::new(0));
        Self { max, is_short, ended_nanos, born: Instant::now(), load }
    }

    /// Spins until `found`, or as long as it is worthwhile. Returns `true` if `found` did. `asleep` says that the
    /// thread waits for the answer of a process that was found asleep. `about_to_sleep` threads of this process still
    /// run, but not for long. A thread that sleeps afterwards calls [`slept`](Self::slept).
    pub(crate) fn until(&self, asleep: bool, about_to_sleep: u32, found: impl Fn() -> bool) -> bool {
        // Threads that wait at the same time may overwrite each other's values here, which does no harm.
        if self.max.is_zero() {
            return false;
        }
        if asleep && self.since_last_end() > SHORT {
            return false;
        }
        let look = || {
            std::hint::spin_loop();
            found()
        };
        // A process that answers at once is not kept waiting by a look at the clock.
        let looks = if self.load.was_full(about_to_sleep) { LOOKS_WHEN_FULL } else { LOOKS_AT_ONCE };
        if (0..looks).any(|_| look()) {
            return true;
        }
        if !self.is_short.load(Ordering::Relaxed) {
            return false;
        }
        let start = Instant::now();
        if self.load.is_full(about_to_sleep, start) {
            return false;
        }
        loop {
            if (0..LOOKS).any(|_| look()) {
                return true;
            }
            if start.elapsed() >= self.max {
                return false;
            }
        }
    }

    /// A wait is over in which the thread slept, for the first time at `since`.
    pub(crate) fn slept(&self, since: Instant) {
        self.waited(since.elapsed());
    }

    /// Notes the length of a wait in which the thread could not look for its result itself.
    pub(crate) fn waited(&self, took: Duration) {
        self.is_short.store(took < SHORT, Ordering::Relaxed);
        self.ended_nanos.store(self.born.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    fn since_last_end(&self) -> Duration {
        let ended = Duration::from_nanos(self.ended_nanos.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(ended)
    }
}

/// Whether the machine has processors to spare.
#[derive(Debug)]
struct Load {
    /// The kernel's file; `None` if there is none: then there are always processors to spare.
    file: Option<File>,
    processors: u32,
    born: Instant,
    /// When the kernel is to be asked again, in nanoseconds since `born`.
    due_nanos: AtomicU64,
    /// How many threads wanted to run, by the last answer of the kernel.
    runnable: AtomicU32,
}

impl Load {
    fn new() -> Self {
        let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
        Self {
            file: File::open("/proc/loadavg")
                .ok()
                .and_then(|file| above_standard(file.into()).ok())
                .map(File::from),
            processors: online.ok().flatten().and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
            born: Instant::now(),
            due_nanos: AtomicU64::new(0),
            runnable: AtomicU32::new(0),
        }
    }

    /// Whether the machine was full, by the last answer of the kernel.
    fn was_full(&self, about_to_sleep: u32) -> bool {
        self.runnable.load(Ordering::Relaxed) > self.processors.saturating_add(about_to_sleep)
    }

    /// Whether more threads want to run than there are processors, besides those that are about to sleep. A system call
    /// once in a while.
    fn is_full(&self, about_to_sleep: u32, now: Instant) -> bool {
        let Some(file) = &self.file else { return false };
        let now_nanos = now.duration_since(self.born).as_nanos() as u64;
        if now_nanos >= self.due_nanos.load(Ordering::Relaxed) {
            self.due_nanos.store(now_nanos + LOAD_PERIOD.as_nanos() as u64, Ordering::Relaxed);
            let mut text = [0; 128];
            let length = file.read_at(&mut text, 0).unwrap_or(0);
            let runnable = std::str::from_utf8(&text[..length]).ok().and_then(runnable);
            self.runnable.store(runnable.unwrap_or(0), Ordering::Relaxed);
        }
        self.was_full(about_to_sleep)
    }
}

/// The number of threads that run or want to run, from the content of `/proc/loadavg`: `0.20 0.18 0.12 3/80 11206`.
fn runnable(loadavg: &str) -> Option<u32> {
    loadavg.split_whitespace().nth(3)?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spin on a machine that always has processors to spare.
    fn spin(max: Duration) -> Spin {
        Spin::with(max, Load { file: None, ..Load::new() })
    }

    const LONG: Duration = Duration::from_secs(3600);

    fn ago(duration: Duration) -> Instant {
        Instant::now().checked_sub(duration).expect("the machine has run for that long")
    }

    /// The number of looks of a thread that finds nothing.
    fn looks(spin: &Spin, about_to_sleep: u32) -> u32 {
        let looks = std::cell::Cell::new(0);
        assert!(!spin.until(false, about_to_sleep, || {
            looks.set(looks.get() + 1);
            false
        }));
        looks.get()
    }

    #[test]
    fn after_a_long_wait_nobody_spins_until_one_was_short_again() {
        let spin = spin(LONG);
        assert!(spin.until(false, 0, || true));
        spin.slept(ago(Duration::from_millis(1)));
        assert_eq!(looks(&spin, 0), LOOKS_AT_ONCE);
        // A moment ago.
        spin.slept(Instant::now());
        assert!(spin.until(false, 0, || true));
    }

    #[test]
    fn the_answer_of_a_sleeper_is_spun_for_only_in_a_conversation() {
        let mut spin = spin(LONG);
        // Long ago, as far as this one knows.
        spin.born = ago(Duration::from_millis(1));
        assert!(!spin.until(true, 0, || panic!("it was looked for")));
        assert!(spin.until(false, 0, || true));
        spin.ended_nanos.store(u64::MAX, Ordering::Relaxed);
        assert!(spin.until(true, 0, || true));
    }

    #[test]
    fn a_moment_of_nothing_is_never_spent() {
        assert!(!spin(Duration::ZERO).until(false, 0, || panic!("it was looked for")));
    }

    #[test]
    fn what_does_not_come_is_given_up() {
        assert!(!spin(Duration::from_nanos(1)).until(false, 0, || false));
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
        let full = Spin::with(LONG, Load { processors: 0, ..Load::new() });
        // That it is full is noticed at the first look at the clock.
        assert_eq!(looks(&full, 0), LOOKS_AT_ONCE);
        assert_eq!(looks(&full, 0), LOOKS_WHEN_FULL);
    }

    #[test]
    fn threads_that_are_about_to_sleep_take_no_processor() {
        let full = Spin::with(Duration::from_nanos(1), Load { processors: 0, ..Load::new() });
        assert_eq!(looks(&full, 0), LOOKS_AT_ONCE);
        assert_eq!(looks(&full, 0), LOOKS_WHEN_FULL);
        // All that run are about to sleep: the thread looks until its time is over.
        assert_eq!(looks(&full, u32::MAX), LOOKS_AT_ONCE + LOOKS);
    }
}
