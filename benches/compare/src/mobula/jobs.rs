//! The whole jobs. Where an example program does one, it is that program's code.

use std::time::{Duration, Instant};

use clap::Parser;
use mobula::arrow::array::RecordBatch;
use mobula::prelude::*;

use super::session::Running;
use crate::jobs::{self, Digest, ROUNDS, WORKERS, check_tasks, task_time};
use crate::peer::{Failure, Figure, check, median_of_batches};
use crate::programs::parameter_server::Trainer;
use crate::programs::{arrow_group_by, parameter_server, sample_sort, streaming_mapreduce};
use crate::rivals::process::{right, tasks_at_once};
use crate::texts::Texts;

/// The blocks that numbers to be sorted lie in.
const BLOCKS: usize = 16;

#[mobula::remote]
fn spin(x: u64, time: Duration) -> u64 {
    jobs::spin(x, time)
}

/// One of three actors that pass a number on.
pub(super) struct Stage {
    calls: u64,
}

#[mobula::remote]
impl Stage {
    fn new() -> Self {
        Self { calls: 0 }
    }

    fn step(&mut self, value: u64) -> u64 {
        self.calls += 1;
        value + 1
    }

    fn calls(&self) -> u64 {
        self.calls
    }
}

/// The data that jobs keep between their rounds.
#[derive(Default)]
pub(super) struct Kept {
    numbers: Option<Numbers>,
    orders: Option<(usize, Vec<ObjectRef<Arrow<RecordBatch>>>)>,
    trainers: Vec<ActorHandle<Trainer>>,
    stages: Vec<ActorHandle<Stage>>,
}

struct Numbers {
    elements: usize,
    blocks: Vec<ObjectRef<Tensor<u64>>>,
    tensors: Vec<Tensor<u64>>,
    digest: Digest,
}

impl Running {
    /// From files to totals, with the start of the actors.
    pub(super) fn count_words(&mut self, texts: &Texts) -> Figure {
        let workers = WORKERS.to_string();
        let files = texts.files.to_string_lossy();
        let arguments =
            ["count", "--mappers", &workers, "--reducers", &workers, "--articles", files.as_ref()];
        let options = streaming_mapreduce::Options::try_parse_from(arguments)?;
        let start = Instant::now();
        let parts = options.words.articles.in_parts(&options.words.articles.find()?);
        let counts = streaming_mapreduce::count(&parts, &options, drop)?;
        let taken = start.elapsed().as_secs_f64();
        texts.check(&counts)?;
        Ok(taken)
    }

    pub(super) fn sort(&mut self, elements: usize) -> Figure {
        let numbers = match self.kept.numbers.take() {
            Some(numbers) if numbers.elements == elements => numbers,
            _ => {
                let blocks = sample_sort::blocks(elements, BLOCKS);
                let tensors = mobula::get(&blocks)?;
                let digest = Digest::of(tensors.iter().map(Tensor::as_slice));
                Numbers { elements, blocks, tensors, digest }
            }
        };
        let Numbers { blocks, tensors, digest, .. } = self.kept.numbers.insert(numbers);
        let start = Instant::now();
        let sorted = sample_sort::sort(blocks, tensors, WORKERS)?;
        let taken = start.elapsed().as_secs_f64();
        digest.check_sorted(sorted.iter().map(Tensor::as_slice))?;
        Ok(taken)
    }

    pub(super) fn group_by(&mut self, bytes: usize) -> Figure {
        let sizes = arrow_group_by::batches(bytes);
        let orders = match self.kept.orders.take() {
            Some((of, orders)) if of == bytes => orders,
            _ => {
                let numbered = sizes.iter().enumerate();
                let orders: Vec<_> =
                    numbered.map(|(batch, &rows)| arrow_group_by::make_orders::remote(batch, rows)).collect();
                mobula::wait(orders.clone(), orders.len(), None)?;
                orders
            }
        };
        let (_, orders) = self.kept.orders.insert((bytes, orders));
        let start = Instant::now();
        let totals = arrow_group_by::group_by(orders)?;
        let taken = start.elapsed().as_secs_f64();
        right(arrow_group_by::check(&totals, &arrow_group_by::expected(&sizes)))?;
        Ok(taken)
    }

    pub(super) fn tasks(&mut self, tasks: u64) -> Figure {
        let start = Instant::now();
        let results = mobula::get((0..tasks).map(|task| spin::remote(task, task_time(task))))?;
        let taken = start.elapsed().as_secs_f64();
        check_tasks(results.into_iter(), tasks)?;
        Ok(taken)
    }

    pub(super) fn train(&mut self, weights: usize) -> Figure {
        if self.kept.trainers.is_empty() {
            self.kept.trainers = (0..WORKERS).map(Trainer::remote).collect();
        }
        let servers = parameter_server::serve(weights, WORKERS)?;
        // A step before makes the memory that all further steps use; the others have theirs already.
        drop(parameter_server::train(&servers, &self.kept.trainers, 1)?);
        let start = Instant::now();
        let shards = parameter_server::train(&servers, &self.kept.trainers, ROUNDS)?;
        let taken = start.elapsed().as_secs_f64();
        right(parameter_server::check(shards.iter().map(Tensor::as_slice), WORKERS, 1 + ROUNDS))?;
        Ok(taken)
    }

    pub(super) fn chain(&mut self, passes: u64) -> Figure {
        if self.kept.stages.is_empty() {
            self.kept.stages = (0..3).map(|_| Stage::remote()).collect();
        }
        let stages = &self.kept.stages;
        let calls = || mobula::get(stages.iter().map(|stage| stage.calls()));
        let before = calls()?;
        let start = Instant::now();
        for pass in 0..passes {
            let [first, second, third] = &stages[..] else { break };
            let value = third.step(second.step(first.step(pass))).get()?;
            check(value == pass + 3, "what three actors make of a number")?;
        }
        let taken = start.elapsed().as_secs_f64();
        let all = calls()?.iter().zip(&before).all(|(after, before)| after - before == passes);
        check(all, "the calls of each actor")?;
        Ok(taken)
    }

    /// Tasks a second, all of which take as long.
    pub(super) fn spin(&mut self, microseconds: u64, budget: Duration) -> Figure {
        let (tasks, time) = (tasks_at_once(microseconds), Duration::from_micros(microseconds));
        let seconds = median_of_batches(budget, tasks as usize, || -> Result<(), Failure> {
            let results = mobula::get((0..tasks).map(|task| spin::remote(task, time)))?;
            check_tasks(results.into_iter(), tasks)
        })?;
        Ok(1.0 / seconds)
    }
}
