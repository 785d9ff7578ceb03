//! The parts of the whole jobs that all contenders have in common: how many do the work, how long a task computes, how
//! much a queue holds, and what the results must be. `rivals/work.py` has the same for the contenders in Python.

use std::time::Duration;

use mobula_examples::numbers::scrambled;

use crate::peer::{Failure, check};

/// Workers, threads or processes of each contender but the one thread.
pub(crate) const WORKERS: usize = 2;
/// Steps that the trainers of the parameter server make.
pub(crate) const ROUNDS: usize = 20;
/// Places in the queue between two processes.
pub(crate) const PLACES: usize = 1000;

/// Computes until the thread has used so much processor time, and returns a number that is made of `x`. A thread that
/// has to wait for a processor makes no progress meanwhile, as with any work.
pub(crate) fn spin(x: u64, time: Duration) -> u64 {
    let end = thread_time() + time;
    while thread_time() < end {
        std::hint::spin_loop();
    }
    scrambled(x)
}

/// The processor time that this thread has used.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` that lives here. Nothing is written where the call fails.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The processor time of a task of the job of many: 1 to 20 ms.
pub(crate) fn task_time(task: u64) -> Duration {
    Duration::from_micros(1000 + scrambled(task + 1) % 19_001)
}

/// Compares the sum of many tasks' results.
pub(crate) fn check_tasks(results: impl Iterator<Item = u64>, tasks: u64) -> Result<(), Failure> {
    let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::wrapping_add);
    let expected = sum(&mut (0..tasks).map(scrambled));
    check(sum(&mut { results }) == expected, "the sum of the tasks' results")
}

/// A sum of numbers that does not depend on their order: other numbers have another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    count: usize,
    sum: u64,
    scrambled_sum: u64,
}

impl Digest {
    pub(crate) fn of<'a>(numbers: impl IntoIterator<Item = &'a [u64]>) -> Self {
        let mut digest = Self::default();
        for numbers in numbers {
            digest.count += numbers.len();
            for &number in numbers {
                digest.sum = digest.sum.wrapping_add(number);
                digest.scrambled_sum = digest.scrambled_sum.wrapping_add(scrambled(number));
            }
        }
        digest
    }

    /// Checks that ranges of numbers are in order, and are the numbers of this digest.
    pub(crate) fn check_sorted<'a>(
        &self,
        ranges: impl IntoIterator<Item = &'a [u64]> + Clone,
    ) -> Result<(), Failure> {
        let mut last = 0;
        for numbers in ranges.clone() {
            check(
                numbers.is_sorted() && numbers.first().is_none_or(|first| last <= *first),
                "sorted numbers",
            )?;
            last = numbers.last().copied().unwrap_or(last);
        }
        check(Self::of(ranges) == *self, "the numbers that were to be sorted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_finds_other_numbers_and_another_order() {
        let digest = Digest::of([&[3, 1][..], &[2]]);
        assert!(digest.check_sorted([&[1, 2][..], &[], &[3]]).is_ok());
        assert!(digest.check_sorted([&[1, 3][..], &[2]]).is_err());
        assert!(digest.check_sorted([&[1, 2][..]]).is_err());
        assert!(digest.check_sorted([&[2, 2, 2][..]]).is_err());
        assert!(digest.check_sorted([&[0, 2, 4][..]]).is_err());
    }

    #[test]
    fn tasks_take_from_1_to_20_ms() {
        let times: Vec<_> = (0..5000).map(task_time).collect();
        assert!(times.iter().all(|time| (1000..=20_000).contains(&time.as_micros())));
        let mean = times.iter().sum::<Duration>() / 5000;
        assert!((10.0..11.0).contains(&(mean.as_secs_f64() * 1e3)), "{mean:?}");
        assert!(check_tasks((0..9).map(scrambled), 9).is_ok());
        assert!(check_tasks((0..9).map(scrambled), 10).is_err());
    }
}
