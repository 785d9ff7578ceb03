//! The clock of events: one for all processes of a machine, and cheap to read.
//!
//! Where the kernel itself keeps time by the processor's counter (`tsc`), the counter runs at one rate on all
//! processors, and reading it takes half the time of `CLOCK_MONOTONIC` (12 and 24 ns where this was measured).
//! Elsewhere the clock is `CLOCK_MONOTONIC`. Either way its unit is called a *tick*.
//!
//! Two [moments](Moment) convert ticks into times. In each moment both clocks were read. The longer the time between
//! the moments, the more exact the rate is. Each process notes one moment when it begins.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits behind the point of a rate.
const RATE_BITS: u32 = 32;
/// A rate from a shorter time is not exact enough to be kept.
const BASE_NANOS_MIN: u64 = 50_000_000;

/// Both clocks, read at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// The clock of events.
    pub ticks: u64,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub nanos: u64,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        // The first reading brings the clock's page into the cache; of the others, the shortest is the most exact.
        let read = || {
            let before = ticks();
            let nanos = monotonic_nanos();
            let after = ticks();
            (after.wrapping_sub(before), Self { ticks: before + after.wrapping_sub(before) / 2, nanos })
        };
        (0..3).map(|_| read()).min_by_key(|(took, _)| *took).map(|(_, moment)| moment).unwrap_or_default()
    }
}

/// Whether ticks are those of the processor's counter, and not nanoseconds.
pub fn is_counter() -> bool {
    static IS_COUNTER: OnceLock<bool> = OnceLock::new();
    *IS_COUNTER.get_or_init(|| {
        const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        cfg!(target_arch = "x86_64")
            && std::fs::read_to_string(SOURCE).is_ok_and(|source| source.trim() == "tsc")
    })
}

/// The clock of events, now.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_counter() {
        // SAFETY: every x86_64 processor has the instruction, and the kernel lets processes use it: it says itself that
        // it keeps time by it.
        return unsafe { std::arch::x86_64::_rdtsc() };
    }
    monotonic_nanos()
}

/// `CLOCK_MONOTONIC`, in nanoseconds: the clock behind `Instant`, the same in all processes of a machine.
pub fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `clock_gettime` writes one `timespec`, to which the pointer is valid. Every kernel has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// How ticks become nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    from: Moment,
    /// Nanoseconds of a tick, with [`RATE_BITS`] behind the point.
    rate: u64,
}

impl Scale {
    /// The scale between two moments. If they are no moments of this machine, the rate is that of nanoseconds.
    pub fn between(from: Moment, to: Moment) -> Self {
        let (ticks, nanos) = (to.ticks.wrapping_sub(from.ticks), to.nanos.wrapping_sub(from.nanos));
        let rate = (u128::from(nanos) << RATE_BITS).checked_div(u128::from(ticks)).unwrap_or(0);
        // A counter of 100 MHz has ticks of 10 ns, one of 10 GHz has ticks of 0.1 ns.
        let is_plausible = ((1 << RATE_BITS) / 10..=10 << RATE_BITS).contains(&rate);
        Self { from, rate: if is_plausible { rate as u64 } else { 1 << RATE_BITS } }
    }

    /// The time of a tick, as nanoseconds of `CLOCK_MONOTONIC`. Any number is a tick.
    pub fn nanos(&self, ticks: u64) -> u64 {
        let since = ticks.wrapping_sub(self.from.ticks).cast_signed();
        let nanos = (i128::from(since) * i128::from(self.rate)) >> RATE_BITS;
        self.from.nanos.saturating_add_signed(nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }

    /// Converts a number of ticks to nanoseconds.
    pub fn length(&self, ticks: u64) -> u64 {
        u64::try_from((u128::from(ticks) * u128::from(self.rate)) >> RATE_BITS).unwrap_or(u64::MAX)
    }
}

/// Lengths of time in the process that measures them. The rate is found once the process is old enough.
#[derive(Debug)]
pub struct Stopwatch {
    from: Moment,
    rate: AtomicU64,
}

impl Stopwatch {
    /// Begins to find the rate.
    pub fn new(from: Moment) -> Self {
        Self { from, rate: AtomicU64::new(if is_counter() { 0 } else { 1 << RATE_BITS }) }
    }

    /// Converts a number of ticks to nanoseconds. A multiplication; in the first moments of a process, two looks at
    /// both clocks.
    #[inline]
    pub fn nanos(&self, ticks: u64) -> u64 {
        match self.rate.load(Ordering::Relaxed) {
            0 => self.measured().length(ticks),
            rate => Scale { from: self.from, rate }.length(ticks),
        }
    }

    #[cold]
    fn measured(&self) -> Scale {
        let now = Moment::now();
        let scale = Scale::between(self.from, now);
        if now.nanos.saturating_sub(self.from.nanos) >= BASE_NANOS_MIN {
            self.rate.store(scale.rate, Ordering::Relaxed);
        }
        scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_becomes_the_time_at_which_it_was_read() {
        let from = Moment::now();
        let before = monotonic_nanos();
        let tick = ticks();
        let after = monotonic_nanos();
        while monotonic_nanos() - before < 20_000_000 {
            std::hint::spin_loop();
        }
        let scale = Scale::between(from, Moment::now());
        // The counter and the kernel's clock may differ by a rounding, and by what a correction of time does.
        let slack = 20_000;
        let nanos = scale.nanos(tick);
        assert!(before.saturating_sub(slack) <= nanos && nanos <= after + slack, "{before} {nanos} {after}");
    }

    #[test]
    fn no_number_is_too_large_for_a_scale() {
        let moments = [0, 1, u64::MAX / 2, u64::MAX].map(|number| Moment { ticks: number, nanos: !number });
        for from in moments {
            for to in moments {
                let scale = Scale::between(from, to);
                for ticks in [0, 1, u64::MAX / 2, u64::MAX] {
                    let _ = (scale.nanos(ticks), scale.length(ticks));
                }
            }
        }
        let same = Scale::between(Moment { ticks: 5, nanos: 5 }, Moment { ticks: 5, nanos: 9 });
        assert_eq!((same.nanos(7), same.length(3)), (7, 3));
    }

    #[test]
    fn a_stopwatch_measures_what_passes() {
        let watch = Stopwatch::new(Moment::now());
        let (began, before) = (ticks(), monotonic_nanos());
        while monotonic_nanos() - before < 5_000_000 {
            std::hint::spin_loop();
        }
        let measured = watch.nanos(ticks() - began);
        assert!((4_900_000..2_000_000_000).contains(&measured), "{measured}");
    }
}
