//! A thread that makes calls at random, and checks each result against what its options allow.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mobula::{
    ActorEnd, ActorHandle, ActorOptions, CancelOptions, Error, ExitReason, Failure, ObjectRef, TaskErrorKind,
    TaskOptions, UNLIMITED,
};

use super::tasks::{self, Echo};
use super::{Figures, PATIENCE};
use crate::Violation;
use crate::content::Random;

/// Calls, or groups of calls, of a driver.
const STEPS: u64 = 25;
/// The method of the actor, whose calls cannot be cancelled by force.
const METHOD: &str = "Echo::double";

/// The outcomes of all calls whose results were looked at.
#[derive(Debug, Default)]
pub(super) struct Counts {
    values: AtomicU64,
    items: AtomicU64,
    cancelled: AtomicU64,
    died: AtomicU64,
    lost: AtomicU64,
    unlucky: AtomicU64,
    late: AtomicU64,
    short_of_memory: AtomicU64,
}

impl Counts {
    pub(super) fn add_to(&self, figures: &mut Figures) {
        for (what, count) in [
            ("results that were right", &self.values),
            ("of these, items of streams", &self.items),
            ("calls cancelled", &self.cancelled),
            ("calls whose worker or actor died", &self.died),
            ("results lost with their worker", &self.lost),
            ("calls that failed in all attempts", &self.unlucky),
            ("calls that reached a time limit", &self.late),
            ("calls whose worker was ended for memory", &self.short_of_memory),
        ] {
            figures.add(what, count.load(Ordering::Relaxed));
        }
    }
}

/// The errors that a result may be in place of the right value.
#[derive(Debug, Clone, Copy, Default)]
struct Allowed {
    /// The call was cancelled.
    cancelled: bool,
    /// It is not retried for ever, or runs in an actor.
    died: bool,
    /// The result, or an argument, is an object of a process that may die.
    lost: bool,
    /// The function may fail in all attempts.
    unlucky: bool,
    /// The call has a time limit.
    late: bool,
}

/// See the module's documentation.
pub(super) struct Driver {
    pub(super) random: Random,
    pub(super) counts: Arc<Counts>,
    /// The session may end any worker because memory is short.
    pub(super) is_memory_short: bool,
}

impl Driver {
    /// Says of each step that it is made.
    pub(super) fn run(mut self, has_stepped: impl Fn()) -> Result<(), Violation> {
        let echo = Echo::options(ActorOptions::new().max_restarts(UNLIMITED)).remote();
        for _ in 0..STEPS {
            match self.random.below(11) {
                0 => self.doubles()?,
                1 => self.naps()?,
                2 => self.tree()?,
                3 => self.flaky()?,
                4 => self.pages()?,
                5 => self.stream_of_numbers()?,
                6 => self.stream_of_pages()?,
                7 => self.limited()?,
                8 => self.hopeless()?,
                9 => self.detached()?,
                _ => self.methods(&echo)?,
            }
            has_stepped();
        }
        Ok(())
    }

    fn is_one_of(&mut self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    fn retries(&mut self) -> (TaskOptions, Allowed) {
        let max = [0, 1, UNLIMITED][self.random.below(3) as usize];
        (TaskOptions::new().max_retries(max), Allowed { died: max != UNLIMITED, ..Allowed::default() })
    }

    /// Cancels some of these calls, or none; at times by force, where it may. Returns which.
    fn cancel_some<T>(&mut self, refs: &[ObjectRef<T>], force: bool) -> Result<Vec<bool>, Violation> {
        let which = match self.random.below(3) {
            0 => vec![true; refs.len()],
            1 => refs.iter().map(|_| self.is_one_of(2)).collect(),
            _ => vec![false; refs.len()],
        };
        if which.contains(&true) {
            std::thread::sleep(Duration::from_micros(self.random.below(3000)));
            let chosen =
                refs.iter().zip(&which).filter(|(_, chosen)| **chosen).map(|(reference, _)| reference);
            let force = force && self.is_one_of(3);
            let options = CancelOptions::new().force(force).recursive(!self.is_one_of(3));
            mobula::cancel_with(chosen, options)?;
        }
        Ok(which)
    }

    /// Cancels some calls, drops some references, and checks the results of the rest.
    fn end(
        &mut self,
        what: &str,
        refs: Vec<ObjectRef<u64>>,
        expected: &[u64],
        allowed: Allowed,
    ) -> Result<(), Violation> {
        let which = self.cancel_some(&refs, what != METHOD)?;
        for ((reference, cancelled), expected) in refs.into_iter().zip(which).zip(expected) {
            if !self.is_one_of(5) {
                self.check(
                    what,
                    reference.get_timeout(PATIENCE),
                    expected,
                    Allowed { cancelled, ..allowed },
                )?;
            }
        }
        Ok(())
    }

    fn doubles(&mut self) -> Result<(), Violation> {
        let ((options, allowed), count) = (self.retries(), self.random.below(100));
        let refs = (0..count).map(|x| tasks::double::options(options.clone()).remote(x)).collect();
        self.end("double", refs, &(0..count).map(|x| 2 * x).collect::<Vec<_>>(), allowed)
    }

    /// Also calls that wait for others: an error of one is theirs.
    fn naps(&mut self) -> Result<(), Violation> {
        let ((options, allowed), count) = (self.retries(), self.random.below(8));
        let naps: Vec<_> = (0..count)
            .map(|x| tasks::nap::options(options.clone()).remote(x, self.random.below(20)))
            .collect();
        let behind: Vec<_> =
            naps.iter().map(|nap| tasks::double::options(options.clone()).remote(nap)).collect();
        let which = self.cancel_some(&naps, true)?;
        for (x, (behind, cancelled)) in behind.into_iter().zip(which).enumerate() {
            let allowed = Allowed { cancelled, ..allowed };
            self.check("double of a nap", behind.get_timeout(PATIENCE), &(4 * x as u64), allowed)?;
        }
        Ok(())
    }

    /// Calls that may end in time or not.
    fn limited(&mut self) -> Result<(), Violation> {
        let ((mut options, allowed), count) = (self.retries(), self.random.below(20));
        if self.is_one_of(2) {
            options = options.timeout(Duration::from_millis(self.random.below(10)));
        } else {
            options = options.deadline(Duration::from_millis(self.random.below(40)));
        }
        let naps = (0..count).map(|x| tasks::nap::options(options.clone()).remote(x, self.random.below(10)));
        let naps = naps.collect();
        let allowed = Allowed { late: true, ..allowed };
        self.end("nap in time", naps, &(0..count).map(|x| 2 * x).collect::<Vec<_>>(), allowed)
    }

    /// A call that would run for far longer than it may, and one behind it: both end with its time.
    fn hopeless(&mut self) -> Result<(), Violation> {
        let (options, allowed) = self.retries();
        let limit = Duration::from_millis(self.random.below(20));
        let limited =
            if self.is_one_of(2) { options.clone().timeout(limit) } else { options.clone().deadline(limit) };
        let nap = tasks::nap::options(limited).remote(0, 4 * PATIENCE.as_millis() as u64);
        let behind = tasks::double::options(options).remote(&nap);
        for reference in [nap, behind] {
            match reference.get_timeout(PATIENCE) {
                Ok(value) => return Err(Violation(format!("a call that must be late returned {value}"))),
                result => self.check("nap for ever", result, &0, Allowed { late: true, ..allowed })?,
            };
        }
        Ok(())
    }

    /// Calls that go on without the call that made them, which is cancelled, or has handed them on.
    fn detached(&mut self) -> Result<(), Violation> {
        let (x, milliseconds) = (self.random.below(1000), self.random.below(20));
        let options = TaskOptions::new().max_retries(UNLIMITED);
        let made = tasks::hands_on::options(options.clone()).remote(x, milliseconds);
        let left = tasks::leaves_behind::options(options).remote(x, milliseconds);
        let is_cancelled = self.is_one_of(2);
        if is_cancelled {
            std::thread::sleep(Duration::from_micros(self.random.below(3000)));
            left.cancel()?;
        }
        let allowed = Allowed { cancelled: is_cancelled, ..Allowed::default() };
        self.check("call that leaves others behind", left.get_timeout(PATIENCE), &x, allowed)?;
        // The process that made the inner call may die.
        let allowed = Allowed { lost: true, died: true, ..Allowed::default() };
        match made.get_timeout(PATIENCE) {
            Ok(inner) => self.check("detached call", inner.get_timeout(PATIENCE), &(2 * x), allowed)?,
            Err(error) => self.check("call that hands on", Err(error), &0, allowed)?,
        };
        Ok(())
    }

    fn tree(&mut self) -> Result<(), Violation> {
        let max = if self.is_one_of(2) { UNLIMITED } else { 0 };
        let (depth, x) = (self.random.below(4) as u32, self.random.below(1000));
        let tree = tasks::tree::options(TaskOptions::new().max_retries(max)).remote(x, depth, max);
        let allowed = Allowed { died: max != UNLIMITED, ..Allowed::default() };
        self.end("tree", vec![tree], &[x << depth], allowed)
    }

    fn flaky(&mut self) -> Result<(), Violation> {
        let options = TaskOptions::new()
            .max_retries(self.random.below(4) as u32)
            .retry_exceptions(true)
            .retry_delay(Duration::from_millis(self.random.below(3)));
        let refs = (0..10).map(|x| tasks::flaky::options(options.clone()).remote(x)).collect();
        let allowed = Allowed { died: true, unlucky: true, ..Allowed::default() };
        self.end("flaky", refs, &(0..10).map(|x| 2 * x).collect::<Vec<_>>(), allowed)
    }

    fn pages(&mut self) -> Result<(), Violation> {
        let (options, allowed) = self.retries();
        let pages: Vec<_> = (0..4).map(|first| tasks::page::options(options.clone()).remote(first)).collect();
        let sums = pages.iter().map(|page| tasks::sum::options(options.clone()).remote(page)).collect();
        let which = self.cancel_some(&pages, true)?;
        let allowed = Allowed { lost: true, cancelled: which.contains(&true), ..allowed };
        self.end_of_sums(sums, allowed)
    }

    fn end_of_sums(&mut self, sums: Vec<ObjectRef<u64>>, allowed: Allowed) -> Result<(), Violation> {
        for (first, sum) in sums.into_iter().enumerate() {
            let expected = tasks::sum_of_page(first as u64);
            self.check("sum of a page", sum.get_timeout(PATIENCE), &expected, allowed)?;
        }
        Ok(())
    }

    fn stream_of_numbers(&mut self) -> Result<(), Violation> {
        let ((options, allowed), first, count) =
            (self.retries(), self.random.below(1000), self.random.below(60));
        let stream = tasks::numbers::options(options).remote(first, count);
        self.read_stream("numbers", stream, count, allowed, |position| first + position)
    }

    fn stream_of_pages(&mut self) -> Result<(), Violation> {
        let ((options, allowed), first, count) =
            (self.retries(), self.random.below(1000), self.random.below(12));
        let stream = tasks::pages::options(options).remote(first, count);
        let allowed = Allowed { lost: true, ..allowed };
        self.read_stream("pages", stream, count, allowed, |position| {
            (first + position..first + position + tasks::page_elements()).collect::<Vec<_>>()
        })
    }

    /// Reads a stream to its end, or in part, and cancels it at times. Items come in order, and none is left out.
    fn read_stream<T: serde::de::DeserializeOwned + PartialEq + Debug>(
        &mut self,
        what: &str,
        mut stream: mobula::ObjectRefStream<T>,
        count: u64,
        mut allowed: Allowed,
        expected: impl Fn(u64) -> T,
    ) -> Result<(), Violation> {
        let stop = if self.is_one_of(2) { UNLIMITED.into() } else { self.random.below(count + 1) };
        let cancel_at = if self.is_one_of(3) { self.random.below(count + 1) } else { u64::MAX };
        let (mut position, mut has_failed) = (0, false);
        while position < stop {
            if position == cancel_at {
                stream.cancel()?;
                allowed.cancelled = true;
            }
            let Some(item) = stream.next() else {
                if position < count && !has_failed {
                    return Err(Violation(format!("{what} ended after {position} items of {count}")));
                }
                return Ok(());
            };
            // A failure is the last item, unless an item was lost after it had arrived.
            if has_failed && !allowed.lost || position > count {
                return Err(Violation(format!("an item too many of {what}, at {position} of {count}")));
            }
            let is_right = self.check(what, item.get_timeout(PATIENCE), &expected(position), allowed)?;
            if is_right && position == count {
                return Err(Violation(format!("more than {count} items of {what}")));
            }
            self.counts.items.fetch_add(is_right.into(), Ordering::Relaxed);
            (position, has_failed) = (position + 1, !is_right);
        }
        Ok(())
    }

    fn methods(&mut self, echo: &ActorHandle<Echo>) -> Result<(), Violation> {
        let count = self.random.below(30);
        let refs = (0..count).map(|x| echo.double(x)).collect();
        let allowed = Allowed { died: true, ..Allowed::default() };
        self.end(METHOD, refs, &(0..count).map(|x| 2 * x).collect::<Vec<_>>(), allowed)
    }

    /// Whether the result is the right value. An error that is not allowed is a violation.
    fn check<T: PartialEq + Debug>(
        &self,
        what: &str,
        result: mobula::Result<T>,
        expected: &T,
        allowed: Allowed,
    ) -> Result<bool, Violation> {
        let count = match &result {
            Ok(value) if value == expected => &self.counts.values,
            Err(Error::Failed(failure)) => self
                .kind_of(failure, allowed)
                .ok_or_else(|| Violation(format!("{what}: {failure:?}, where {allowed:?}")))?,
            Err(Error::Task(error)) => {
                let failure = Failure::Task(error.clone());
                self.kind_of(&failure, allowed)
                    .ok_or_else(|| Violation(format!("{what}: {failure:?}, where {allowed:?}")))?
            }
            Ok(_) => return Err(Violation(format!("{what}: another value than {expected:?}: {result:?}"))),
            Err(error) => return Err(Violation(format!("{what}: {error:?}"))),
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(result.is_ok())
    }

    /// The count of a failure that is allowed.
    fn kind_of(&self, failure: &Failure, allowed: Allowed) -> Option<&AtomicU64> {
        let Counts { cancelled, died, lost, unlucky, late, short_of_memory, .. } = &*self.counts;
        match failure {
            // If it was the only one that could be retried, it is not.
            Failure::WorkerDied { reason: ExitReason::OutOfMemory { .. }, .. }
            | Failure::ActorDied {
                cause: ActorEnd::Process { reason: ExitReason::OutOfMemory { .. }, .. },
                ..
            } if self.is_memory_short => Some(short_of_memory),
            Failure::TaskTimedOut { .. } if allowed.late => Some(late),
            Failure::TaskCancelled { .. } | Failure::Cancelled if allowed.cancelled => Some(cancelled),
            Failure::WorkerDied { .. } | Failure::ActorDied { .. } | Failure::ActorUnavailable { .. }
                if allowed.died =>
            {
                Some(died)
            }
            Failure::ObjectLost { .. } if allowed.lost => Some(lost),
            Failure::ItemsLost { .. } if allowed.lost => Some(lost),
            // Each process that is started is killed before it can serve.
            Failure::NoWorkers { .. } => Some(died),
            Failure::Task(error) if error.kind == TaskErrorKind::Returned => match error.cause.as_deref() {
                Some(cause) => self.kind_of(cause, allowed),
                None if error.message == tasks::NO_LUCK && allowed.unlucky => Some(unlucky),
                None => None,
            },
            _ => None,
        }
    }
}
