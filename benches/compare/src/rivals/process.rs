//! One process without any system for others: plain Rust with one thread, or with rayon's.

use std::path::Path;
use std::time::{Duration, Instant};

use mobula::arrow::array::RecordBatch;
use mobula_examples::numbers::scrambled;
use mobula_examples::rivals::{one_thread, rayon as with_rayon};
use rayon::prelude::*;

use crate::jobs::{Digest, PLACES, ROUNDS, WORKERS, check_tasks, spin, task_time};
use crate::peer::{self, Failure, Figure, budget, check, error, median_of_batches};
use crate::programs::arrow_group_by::{all_orders, batches, expected, group_by_one_thread, group_by_rayon};
use crate::programs::{arrow_group_by, parameter_server};
use crate::texts::Texts;

/// The threads that work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    One,
    Rayon,
}

/// Takes commands, each of which ends with its budget.
pub(crate) fn serve(scratch: &Path, threads: Threads) -> Result<(), Failure> {
    if threads == Threads::Rayon {
        rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build_global()?;
    }
    let mut process = Process { threads, numbers: Vec::new(), orders: None, model: None };
    peer::serve(|words| match *words {
        ["rest"] => {
            (process.numbers, process.orders, process.model) = (Vec::new(), None, None);
            Ok(0.0)
        }
        ["job-words", bytes, _] => process.count_words(&Texts::open(scratch, bytes.parse()?)?),
        ["job-sort", bytes, _] => process.sort(bytes.parse::<usize>()? / size_of::<u64>()),
        ["job-groups", bytes, _] => process.group_by(bytes.parse()?),
        ["job-tasks", tasks, _] => process.tasks(tasks.parse()?),
        ["job-server", bytes, _] => process.train(bytes.parse::<usize>()? / size_of::<f32>()),
        ["job-chain", passes, _] => chain(passes.parse()?),
        ["queue", items, time] => queue(items.parse()?, budget(time)?),
        ["spin", microseconds, time] => process.spin(microseconds.parse()?, budget(time)?),
        _ => error("no such work"),
    })
}

struct Process {
    threads: Threads,
    numbers: Vec<u64>,
    orders: Option<(usize, Vec<RecordBatch>)>,
    model: Option<parameter_server::Model>,
}

impl Process {
    fn count_words(&self, texts: &Texts) -> Figure {
        let start = Instant::now();
        let articles = texts.articles()?;
        let counts = match self.threads {
            Threads::One => one_thread(&articles)?,
            Threads::Rayon => with_rayon(&articles)?,
        };
        let taken = start.elapsed().as_secs_f64();
        texts.check(&counts)?;
        Ok(taken)
    }

    fn sort(&mut self, elements: usize) -> Figure {
        self.numbers.resize(elements, 0);
        self.numbers.iter_mut().zip(0..).for_each(|(number, index)| *number = scrambled(index));
        let digest = Digest::of([&self.numbers[..]]);
        let start = Instant::now();
        match self.threads {
            Threads::One => self.numbers.sort_unstable(),
            Threads::Rayon => self.numbers.par_sort_unstable(),
        }
        let taken = start.elapsed().as_secs_f64();
        digest.check_sorted([&self.numbers[..]])?;
        Ok(taken)
    }

    fn group_by(&mut self, bytes: usize) -> Figure {
        let sizes = batches(bytes);
        if self.orders.as_ref().is_none_or(|(of, _)| *of != bytes) {
            self.orders = Some((bytes, all_orders(&sizes)?));
        }
        let Some((_, orders)) = &self.orders else { return error("there are no orders") };
        let start = Instant::now();
        let totals = match self.threads {
            Threads::One => group_by_one_thread(orders),
            Threads::Rayon => group_by_rayon(orders),
        };
        let taken = start.elapsed().as_secs_f64();
        right(arrow_group_by::check(&totals, &expected(&sizes)))?;
        Ok(taken)
    }

    fn tasks(&self, tasks: u64) -> Figure {
        let task = |task| spin(task, task_time(task));
        let start = Instant::now();
        let results: Vec<u64> = match self.threads {
            Threads::One => (0..tasks).map(task).collect(),
            // One by one, as workers take them: halves of a range do not take equally long.
            Threads::Rayon => (0..tasks as usize)
                .into_par_iter()
                .with_max_len(1)
                .map(|number| task(number as u64))
                .collect(),
        };
        let taken = start.elapsed().as_secs_f64();
        check_tasks(results.into_iter(), tasks)?;
        Ok(taken)
    }

    fn train(&mut self, weights: usize) -> Figure {
        let model = match self.model.take() {
            Some(model) if model.weights().len() == weights => model,
            _ => parameter_server::Model::new(weights, WORKERS),
        };
        let model = self.model.insert(model);
        let start = Instant::now();
        match self.threads {
            Threads::One => model.train_one_thread(ROUNDS),
            Threads::Rayon => model.train_rayon(ROUNDS),
        }
        let taken = start.elapsed().as_secs_f64();
        right(parameter_server::check([model.weights()].into_iter(), WORKERS, ROUNDS))?;
        Ok(taken)
    }

    /// Tasks a second, all of which take as long.
    fn spin(&self, microseconds: u64, budget: Duration) -> Figure {
        let (tasks, time) = (tasks_at_once(microseconds), Duration::from_micros(microseconds));
        let seconds = median_of_batches(budget, tasks as usize, || {
            let task = |task| spin(task, time);
            let results: Vec<u64> = match self.threads {
                Threads::One => (0..tasks).map(task).collect(),
                Threads::Rayon => (0..tasks).into_par_iter().map(task).collect(),
            };
            check_tasks(results.into_iter(), tasks)
        })?;
        Ok(1.0 / seconds)
    }
}

/// Items a second from one thread to another, through a bounded channel.
fn queue(items: u64, budget: Duration) -> Figure {
    peer::median_of(budget, || {
        let start = Instant::now();
        let (sender, receiver) = crossbeam::channel::bounded(PLACES);
        let producer = std::thread::spawn(move || (0..items).try_for_each(|item| sender.send(item)));
        check(receiver.iter().eq(0..items), "the items of a channel, in order")?;
        check(producer.join().is_ok_and(|sent| sent.is_ok()), "a channel takes all items")?;
        Ok(items as f64 / start.elapsed().as_secs_f64())
    })
}

/// Tasks of so many microseconds that are under way at once: for about as long as one core computes 0.1 s.
pub(crate) fn tasks_at_once(microseconds: u64) -> u64 {
    (100_000 / microseconds).max(10)
}

/// Three objects one behind the other: in one thread, a call of an actor is a call of a function.
fn chain(passes: u64) -> Figure {
    let mut stages = [0_u64; 3];
    let start = Instant::now();
    for pass in 0..passes {
        let found = stages.iter_mut().fold(pass, |value, calls| {
            *calls += 1;
            std::hint::black_box(value + 1)
        });
        check(found == pass + 3, "what three actors make of a number")?;
    }
    let taken = start.elapsed().as_secs_f64();
    check(stages == [passes; 3], "the calls of each actor")?;
    Ok(taken)
}

/// An example's check, as a result here.
pub(crate) fn right(checked: mobula_examples::output::Outcome) -> Result<(), Failure> {
    checked.map_err(|error| Failure::Wrong(error.to_string()))
}
