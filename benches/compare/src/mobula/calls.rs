//! The tasks and the actor that are called, and the measurements of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobula::prelude::*;

use super::session::Running;
use crate::limits::sum_of_numbers;
use crate::peer::{Failure, Figure, check, median_of, median_of_batches};

const AT_ONCE: i64 = 10_000;
/// How long the callee is left alone before each call that is to find it asleep.
const PAUSE: Duration = Duration::from_millis(2);
/// The computation of each task that keeps workers busy.
const BUSY: Duration = Duration::from_micros(200);

#[mobula::remote]
pub(super) fn successor(x: i64) -> i64 {
    x + 1
}

/// Computes for so long, and gives its argument back.
#[mobula::remote]
fn compute(x: i64) -> i64 {
    busy(x);
    x
}

pub(super) fn busy(x: i64) {
    let start = Instant::now();
    while start.elapsed() < BUSY {
        std::hint::black_box(x);
    }
}

/// The actor.
pub(super) struct Total {
    value: i64,
}

#[mobula::remote]
impl Total {
    pub(super) fn new() -> Self {
        Self { value: 0 }
    }

    pub(super) fn add(&mut self, x: i64) -> i64 {
        self.value += x;
        self.value
    }

    fn ends(&mut self, array: Tensor<f64>) -> (usize, f64, f64) {
        let elements = array.as_slice();
        (elements.len(), elements[0], elements[elements.len() - 1])
    }

    /// An array that is filled where it stays.
    fn make(&mut self, elements: usize) -> Tensor<f64> {
        let mut array = TensorMut::create(&[elements]).expect("the store has room");
        array.as_mut_slice().fill(3.0);
        array.seal()
    }
}

impl Running {
    fn actor(&mut self) -> Result<ActorHandle<Total>, Failure> {
        if self.actor.is_none() {
            let actor = Total::remote();
            self.total = actor.add(0).get()?;
            self.actor = Some(actor);
        }
        self.actor.clone().ok_or_else(|| Failure::Error("no actor".into()))
    }

    /// A call and its result, back to back.
    pub(super) fn actor_call(&mut self, budget: Duration) -> Figure {
        const BATCH: usize = 200;
        let actor = self.actor()?;
        median_of_batches(budget, BATCH, || {
            for _ in 0..BATCH {
                self.total += 1;
                check(actor.add(1).get()? == self.total, "an actor's total")?;
            }
            Ok(())
        })
    }

    /// A value that is put and dropped.
    pub(super) fn put(&mut self, budget: Duration) -> Figure {
        const BATCH: u64 = 10_000;
        median_of_batches(budget, BATCH as usize, || {
            for value in 0..BATCH {
                std::hint::black_box(mobula::put(&value)?);
            }
            Ok(())
        })
    }

    /// A call and its result, of an actor that has been left alone.
    pub(super) fn actor_call_asleep(&mut self, pause: Duration, budget: Duration) -> Figure {
        let actor = self.actor()?;
        median_of(budget, || {
            std::thread::sleep(pause);
            self.total += 1;
            let start = Instant::now();
            let total = actor.add(1).get()?;
            let taken = start.elapsed().as_secs_f64();
            check(total == self.total, "an actor's total")?;
            Ok(taken)
        })
    }

    /// Calls a second.
    pub(super) fn actor_many(&mut self, budget: Duration) -> Figure {
        let actor = self.actor()?;
        let seconds = median_of_batches(budget, AT_ONCE as usize, || {
            let results: Vec<_> = (0..AT_ONCE).map(|_| actor.add(1)).collect();
            let results = mobula::get(&results)?;
            let expected = self.total + 1..=self.total + AT_ONCE;
            self.total += AT_ONCE;
            check(results.into_iter().eq(expected), "an actor's totals, in order")
        })?;
        Ok(1.0 / seconds)
    }

    /// A task and its result, back to back.
    pub(super) fn task_call(&mut self, budget: Duration) -> Figure {
        const BATCH: usize = 100;
        median_of_batches(budget, BATCH, || {
            for x in 0..BATCH as i64 {
                check(successor::remote(x).get()? == x + 1, "a task's result")?;
            }
            Ok(())
        })
    }

    /// Tasks a second.
    pub(super) fn task_many(&mut self, budget: Duration) -> Figure {
        let seconds = median_of_batches(budget, AT_ONCE as usize, || {
            let results: Vec<_> = (0..AT_ONCE).map(successor::remote).collect();
            let results = mobula::get(&results)?;
            check(results.into_iter().eq(1..=AT_ONCE), "the tasks' results, in order")
        })?;
        Ok(1.0 / seconds)
    }

    /// A call of an actor and its result, while all workers compute.
    pub(super) fn call_while_busy(&mut self, budget: Duration) -> Figure {
        let actor = self.actor()?;
        let enough = AtomicBool::new(false);
        let batch = self.workers() as i64 * 4;
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| -> Result<(), Failure> {
                while !enough.load(Ordering::Relaxed) {
                    let results = mobula::get((0..batch).map(compute::remote))?;
                    check(results.into_iter().eq(0..batch), "the tasks' results")?;
                }
                Ok(())
            });
            std::thread::sleep(Duration::from_millis(20));
            let figure = median_of(budget, || {
                self.total += 1;
                let start = Instant::now();
                let total = actor.add(1).get()?;
                let taken = start.elapsed().as_secs_f64();
                check(total == self.total, "an actor's total")?;
                std::thread::sleep(Duration::from_millis(1));
                Ok(taken)
            });
            enough.store(true, Ordering::Relaxed);
            busy.join().unwrap_or_else(|_| Err(Failure::Error("the busy thread has failed".into())))?;
            figure
        })
    }

    /// Ray's microbenchmark "single client wait 1k refs", in loops a second.
    pub(super) fn wait_1k(&mut self, budget: Duration) -> Figure {
        let seconds =
            median_of_batches(budget, 1, || wait_for_each((0..1000).map(successor::remote).collect()))?;
        Ok(1.0 / seconds)
    }

    /// The same, with results that are there already.
    pub(super) fn wait_1k_done(&mut self, budget: Duration) -> Figure {
        if self.done.is_empty() {
            self.done = (0..1000).map(successor::remote).collect();
            check(mobula::get(&self.done)?.into_iter().eq(1..=1000), "the tasks' results")?;
        }
        Ok(1.0 / median_of_batches(budget, 1, || wait_for_each(self.done.clone()))?)
    }

    /// Ray's microbenchmark "single client get object containing 10k refs", in gets a second.
    pub(super) fn refs_10k(&mut self, budget: Duration) -> Figure {
        const REFERENCES: usize = 10_000;
        let holder = match &self.holder {
            Some(holder) => holder.clone(),
            None => {
                let inner = (0..REFERENCES as i64).map(|x| mobula::put(&x)).collect::<Result<Vec<_>, _>>()?;
                self.holder.insert(mobula::put(&inner)?).clone()
            }
        };
        check(holder.get()?[REFERENCES - 1].get()? == REFERENCES as i64 - 1, "the last reference's value")?;
        let seconds = median_of_batches(budget, 1, || {
            check(holder.get()?.len() == REFERENCES, "as many references as were put")
        })?;
        Ok(1.0 / seconds)
    }

    /// An array that is in the store goes to the actor, which looks at both ends.
    pub(super) fn pass(&mut self, bytes: usize, asleep: bool, budget: Duration) -> Figure {
        let (actor, elements) = (self.actor()?, bytes / size_of::<f64>());
        let array = match &self.array {
            Some((size, array)) if *size == elements => array.clone(),
            _ => {
                self.array = None;
                let mut array = TensorMut::<f64>::zeros(&[elements])?;
                let ends = array.as_mut_slice();
                (ends[0], ends[elements - 1]) = (1.0, 2.0);
                self.array.insert((elements, mobula::put(&array.seal())?)).1.clone()
            }
        };
        let call = || {
            let start = Instant::now();
            let ends = actor.ends(&array).get()?;
            let taken = start.elapsed().as_secs_f64();
            check(ends == (elements, 1.0, 2.0), "the ends of an array")?;
            Ok(taken)
        };
        call()?;
        median_of(budget, || {
            if asleep {
                std::thread::sleep(PAUSE);
            }
            call()
        })
    }

    /// The actor makes an array, and this process reads all of it.
    pub(super) fn make(&mut self, bytes: usize, budget: Duration) -> Figure {
        let (actor, elements) = (self.actor()?, bytes / size_of::<f64>());
        let one = || {
            let start = Instant::now();
            let array = actor.make(elements).get()?;
            let total = sum_of_numbers(array.as_slice());
            drop(array);
            let taken = start.elapsed().as_secs_f64();
            check(total == 3.0 * elements as f64, "the sum of an array")?;
            Ok(taken)
        };
        // The first array goes into memory that nothing was in for a while.
        one()?;
        median_of(budget, one)
    }
}

/// Waits for one reference at a time until none is left.
fn wait_for_each(refs: Vec<ObjectRef<i64>>) -> Result<(), Failure> {
    let (count, mut seen, mut rest) = (refs.len(), 0, refs);
    while !rest.is_empty() {
        let (ready, others) = mobula::wait(rest, 1, None)?;
        seen += ready.len();
        rest = others;
    }
    check(seen == count, "as many are ready as were waited for")
}
