//! Calls that are awaited, cancelled, read as a stream, or held back by what they demand.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mobula::{Error, Failure as CallFailure, ObjectRef, TaskOptions};

use super::calls::{busy, successor};
use super::session::{LICENCE, Running};
use crate::peer::{Figure, check, median_of, median_of_batches};

/// Calls that are cancelled together, and how long each would run.
const CANCELLED: u64 = 4_000;
const CANCELLED_RUN: Duration = Duration::from_millis(4);
/// Calls of which one fits at a time.
const LIMITED: i64 = 500;

#[mobula::remote]
fn pause(x: u64) -> u64 {
    std::thread::sleep(CANCELLED_RUN);
    x
}

#[mobula::remote(streaming)]
fn numbers(count: u64) -> impl Iterator<Item = u64> {
    0..count
}

/// Computes while it alone has a file of this name; fails if another call has it.
#[mobula::remote]
fn alone(file: PathBuf, x: i64) -> std::io::Result<i64> {
    std::fs::File::create_new(&file)?;
    busy(x);
    std::fs::remove_file(&file)?;
    Ok(x)
}

impl Running {
    /// A task and its result, awaited, back to back.
    pub(super) fn task_await(&mut self, budget: Duration) -> Figure {
        const BATCH: usize = 100;
        median_of_batches(budget, BATCH, || {
            pollster::block_on(async {
                for x in 0..BATCH as i64 {
                    check(successor::remote(x).await? == x + 1, "a task's result")?;
                }
                Ok(())
            })
        })
    }

    /// Cancels calls, nearly all of which wait. `next`: the call that is made then, and its result.
    pub(super) fn cancel_many(&mut self, next: bool, budget: Duration) -> Figure {
        median_of(budget, || {
            let refs: Vec<ObjectRef<u64>> = (0..CANCELLED).map(pause::remote).collect();
            // Now some run.
            check(refs[0].get()? == 0, "a task's result")?;
            let start = Instant::now();
            mobula::cancel(&refs)?;
            let cancelled = start.elapsed();
            let start = Instant::now();
            check(successor::remote(1).get()? == 2, "the next task's result")?;
            let delayed = start.elapsed();
            let mut count = 0;
            for (x, reference) in (0..).zip(&refs) {
                match reference.get() {
                    Ok(value) => check(value == x, "a task's result")?,
                    Err(Error::Failed(CallFailure::TaskCancelled { .. })) => count += 1,
                    Err(error) => return Err(error.into()),
                }
            }
            check(count > CANCELLED / 2, "most calls had not ended when they were cancelled")?;
            Ok(if next { delayed } else { cancelled }.as_secs_f64())
        })
    }

    /// Items a second, of a stream of so many.
    pub(super) fn stream(&mut self, items: u64, budget: Duration) -> Figure {
        let seconds = median_of_batches(budget, items as usize, || {
            let mut expected = 0..items;
            for item in numbers::remote(items) {
                check(Some(item.get()?) == expected.next(), "the items, in order")?;
            }
            check(expected.is_empty(), "all items")
        })?;
        Ok(1.0 / seconds)
    }

    /// Calls a second, of which one fits at a time.
    pub(super) fn limited(&mut self, budget: Duration) -> Figure {
        let file = self.scratch().join("licence");
        let options = TaskOptions::new().resources([(LICENCE, 1)]);
        let seconds = median_of_batches(budget, LIMITED as usize, || {
            let call = |x| alone::options(options.clone()).remote(file.clone(), x);
            let results = mobula::get((0..LIMITED).map(call))?;
            check(results.into_iter().eq(0..LIMITED), "the tasks' results, one at a time")
        })?;
        Ok(1.0 / seconds)
    }
}
