//! Actors with many calls at a time, many callers, and a queue between processes.

use std::time::{Duration, Instant};

use mobula::prelude::*;
use mobula::util::Queue;

use super::session::Running;
use crate::jobs::PLACES;
use crate::peer::{Figure, check, median_of, median_of_batches};

/// Calls of the actor with `async` methods, and how long each waits.
const ASYNC_CALLS: u64 = 10_000;
const ASYNC_WAIT: Duration = Duration::from_millis(1);
/// Longer than a caller looks for mail before it sleeps.
const ANSWER_WAIT: Duration = Duration::from_micros(500);
/// Calls of each caller.
const CALLS: i64 = 5_000;

/// Waits, and answers with its argument.
pub(super) struct Waiter;

#[mobula::remote]
impl Waiter {
    fn new() -> Self {
        Self
    }

    async fn later(&self, x: u64) -> u64 {
        tokio::time::sleep(ASYNC_WAIT).await;
        x
    }
}

/// An actor of several callers.
pub(super) struct Adder;

#[mobula::remote]
impl Adder {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn successor(&self, x: i64) -> i64 {
        x + 1
    }

    /// Answers when its caller sleeps.
    pub(super) fn successor_later(&self, x: i64) -> i64 {
        std::thread::sleep(ANSWER_WAIT);
        x + 1
    }
}

/// Calls each of the actors in turn, and returns the sum of the results.
#[mobula::remote]
fn call_all(actors: Vec<ActorHandle<Adder>>, calls: i64) -> mobula::Result<i64> {
    let results: Vec<_> =
        (0..calls).map(|call| actors[call as usize % actors.len()].successor(call)).collect();
    Ok(mobula::get(results)?.iter().sum())
}

/// Puts numbers into a queue, so many at a time.
#[mobula::remote]
fn produce(queue: Queue<u64>, items: u64, batch: usize) -> mobula::Result<()> {
    if batch == 1 {
        for item in 0..items {
            queue.put(item)?;
        }
        return Ok(());
    }
    let items: Vec<u64> = (0..items).collect();
    for part in items.chunks(batch) {
        queue.put_many(part.to_vec())?;
    }
    Ok(())
}

impl Running {
    /// Calls a second of an `async` method, 1,000 of which wait at a time.
    pub(super) fn async_calls(&mut self, budget: Duration) -> Figure {
        let waiter = Waiter::remote();
        let seconds = median_of_batches(budget, ASYNC_CALLS as usize, || {
            let results: Vec<_> = (0..ASYNC_CALLS).map(|call| waiter.later(call)).collect();
            check(mobula::get(&results)?.into_iter().eq(0..ASYNC_CALLS), "an actor's answers")
        })?;
        Ok(1.0 / seconds)
    }

    /// Calls a second of all callers together.
    pub(super) fn many_to_many(&mut self, count: usize, budget: Duration) -> Figure {
        let actors: Vec<_> = (0..count).map(|_| Adder::remote()).collect();
        let expected = CALLS * (CALLS + 1) / 2;
        let seconds = median_of_batches(budget, count * CALLS as usize, || {
            let sums = mobula::get((0..count).map(|_| call_all::remote(actors.clone(), CALLS)))?;
            check(sums.iter().all(|sum| *sum == expected), "the sums of the callers")
        })?;
        Ok(1.0 / seconds)
    }

    /// Items a second from a producer's process to this one.
    pub(super) fn queue(&mut self, items: u64, batch: usize, budget: Duration) -> Figure {
        let queue = Queue::<u64>::new(PLACES);
        let transfer = || {
            let start = Instant::now();
            let producer = produce::remote(queue.clone(), items, batch);
            let mut next = 0;
            while next < items {
                let part = if batch == 1 { vec![queue.get()?] } else { queue.get_many(batch)? };
                for item in part {
                    check(item == next, "the items of a queue, in order")?;
                    next += 1;
                }
            }
            producer.get()?;
            Ok(items as f64 / start.elapsed().as_secs_f64())
        };
        transfer()?;
        median_of(budget, transfer)
    }
}
