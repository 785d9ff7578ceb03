//! A parameter server: some actors keep the weights of a model, others train it, each on samples of its own.
//!
//! Each server keeps a shard of the weights. In a round each trainer reads the weights where they lie in the store, and
//! writes its gradient there; the server reads all gradients where they lie, and writes new weights. The driver only
//! passes references on, for all rounds at once, and waits for the last weights: no array is copied. While a server
//! works on one shard, the trainers work on the next.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use mobula::prelude::*;
use mobula::value::ValueError;
use mobula_examples::compare::{Times, table};
use mobula_examples::output::{Outcome, exit_code, print};
use mobula_protocol::size::ByteSize;
use rayon::prelude::*;

/// Keeps a shard of the weights.
pub(crate) struct ParameterServer {
    weights: Tensor<f32>,
}

#[mobula::remote]
impl ParameterServer {
    /// All weights are zero.
    pub(crate) fn new(count: usize) -> Result<Self, ValueError> {
        Ok(Self { weights: TensorMut::zeros(&[count])?.seal() })
    }

    pub(crate) fn weights(&self) -> Tensor<f32> {
        self.weights.clone()
    }

    /// Makes one step against the mean of the gradients, and returns the new weights.
    fn apply(&mut self, gradients: Vec<ObjectRef<Tensor<f32>>>) -> mobula::Result<Tensor<f32>> {
        let gradients = mobula::get(gradients)?;
        let gradients: Vec<&[f32]> = gradients.iter().map(Tensor::as_slice).collect();
        let mut weights = TensorMut::create(self.weights.shape())?;
        step(weights.as_mut_slice(), self.weights.as_slice(), &gradients);
        self.weights = weights.seal();
        Ok(self.weights.clone())
    }
}

/// Knows some of the samples that the model is to fit.
pub(crate) struct Trainer {
    samples: Samples,
}

#[mobula::remote]
impl Trainer {
    pub(crate) fn new(number: usize) -> Self {
        Self { samples: samples(number) }
    }

    /// The direction in which the error of these weights grows.
    fn gradient(&self, weights: Tensor<f32>) -> Result<Tensor<f32>, ValueError> {
        let mut gradient = TensorMut::create(weights.shape())?;
        write_gradient(gradient.as_mut_slice(), weights.as_slice(), &self.samples);
        Ok(gradient.seal())
    }
}

/// Trains for some rounds, and returns the shards of the last weights.
pub(crate) fn train(
    servers: &[ActorHandle<ParameterServer>],
    trainers: &[ActorHandle<Trainer>],
    rounds: usize,
) -> mobula::Result<Vec<Tensor<f32>>> {
    let mut shards: Vec<_> = servers.iter().map(|server| server.weights()).collect();
    for _ in 0..rounds {
        for (server, weights) in servers.iter().zip(&mut shards) {
            let gradients: Vec<_> = trainers.iter().map(|trainer| trainer.gradient(&*weights)).collect();
            *weights = server.apply(gradients);
        }
    }
    mobula::get(&shards)
}

/// Trains a model of many weights in shared memory, with servers that keep the weights and trainers that change them.
#[derive(Parser)]
struct Options {
    /// The size of all weights together, as in 10MiB.
    #[arg(long, value_name = "SIZE", default_value = "100MB")]
    bytes: ByteSize,

    /// How many servers keep a part of the weights each.
    #[arg(long, value_name = "S", default_value = "2")]
    servers: NonZeroUsize,

    /// How many trainers there are.
    #[arg(long, value_name = "T", default_value = "4")]
    trainers: NonZeroUsize,

    /// How many steps all trainers make together.
    #[arg(long, value_name = "N", default_value_t = 20)]
    rounds: usize,

    /// Compute each weight again in this process, without Mobula, and fail if anything differs.
    #[arg(long)]
    check: bool,

    /// Train N times each with Mobula, with one thread and with rayon, in turn, and print the times.
    #[arg(long, value_name = "N")]
    compare: Option<NonZeroUsize>,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    let _mobula = mobula::init()?;
    let (weights, rounds) = (options.bytes.0 as usize / size_of::<f32>(), options.rounds);
    let trainers: Vec<_> = (0..options.trainers.get()).map(Trainer::remote).collect();

    let servers = serve(weights, options.servers.get())?;
    let started = Instant::now();
    let trained = train(&servers, &trainers, rounds)?;
    let seconds = started.elapsed().as_secs_f64();
    print(&format!("{weights} weights trained in {rounds} rounds in {seconds:.3} s\n"))?;
    if options.check {
        check(trained.iter().map(Tensor::as_slice), trainers.len(), rounds)?;
        print(&format!("check: weights {weights}: ok\n"))?;
    }
    drop((trained, servers));
    if let Some(times) = options.compare {
        print(&compare(times, weights, options.servers.get(), &trainers, rounds)?)?;
    }
    Ok(())
}

/// Starts servers with about as many weights each, and waits until they are there.
pub(crate) fn serve(weights: usize, servers: usize) -> mobula::Result<Vec<ActorHandle<ParameterServer>>> {
    let all = weights.div_ceil(SAMPLES);
    let share = |server: usize| {
        let [first, end] = [server, server + 1].map(|server| weights.min(all * server / servers * SAMPLES));
        end - first
    };
    let servers: Vec<_> = (0..servers).map(|server| ParameterServer::remote(share(server))).collect();
    mobula::get(servers.iter().map(|server| server.weights()))?;
    Ok(servers)
}

// ---- the model: each weight is to be near the mean of its samples ----

/// One for each of so many weights, again and again.
type Samples = [f32; SAMPLES];
const SAMPLES: usize = 16;
/// Weights that are changed together: few enough for the processor's nearest cache.
const CHUNK: usize = SAMPLES * 256;

fn samples(trainer: usize) -> Samples {
    std::array::from_fn(|weight| (trainer * 4 + weight * 8) as f32)
}

/// The gradient of half the squared error.
fn write_gradient(gradient: &mut [f32], weights: &[f32], samples: &Samples) {
    for (gradient, weights) in gradient.chunks_mut(SAMPLES).zip(weights.chunks(SAMPLES)) {
        for ((gradient, weight), sample) in gradient.iter_mut().zip(weights).zip(samples) {
            *gradient = weight - sample;
        }
    }
}

/// Writes the weights after a step.
fn step(weights: &mut [f32], before: &[f32], gradients: &[&[f32]]) {
    let rate = 0.5 / gradients.len() as f32;
    for (number, weights) in weights.chunks_mut(CHUNK).enumerate() {
        let range = number * CHUNK..number * CHUNK + weights.len();
        weights.copy_from_slice(&before[range.clone()]);
        for gradient in gradients {
            weights
                .iter_mut()
                .zip(&gradient[range.clone()])
                .for_each(|(weight, part)| *weight -= rate * part);
        }
    }
}

/// Compares the shards' weights with what a trainer's samples make of them.
pub(crate) fn check<'a>(shards: impl Iterator<Item = &'a [f32]>, trainers: usize, rounds: usize) -> Outcome {
    let mut expected = [0.0; SAMPLES];
    for _ in 0..rounds {
        let before = expected;
        let mut gradients = vec![[0.0; SAMPLES]; trainers];
        for (trainer, gradient) in gradients.iter_mut().enumerate() {
            write_gradient(gradient, &before, &samples(trainer));
        }
        let gradients: Vec<&[f32]> = gradients.iter().map(|gradient| &gradient[..]).collect();
        step(&mut expected, &before, &gradients);
    }
    for shard in shards {
        for (found, expected) in shard.iter().zip(expected.iter().cycle()) {
            if found != expected {
                return Err(format!("check failed: a weight is {found}, {expected} expected").into());
            }
        }
    }
    Ok(())
}

// ---- the same in one process ----

/// The model in the memory of one process.
pub(crate) struct Model {
    weights: Vec<f32>,
    before: Vec<f32>,
    gradients: Vec<Vec<f32>>,
}

impl Model {
    pub(crate) fn new(weights: usize, trainers: usize) -> Self {
        let zeros = || vec![0.0; weights];
        Self { weights: zeros(), before: zeros(), gradients: (0..trainers).map(|_| zeros()).collect() }
    }

    pub(crate) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Trains from the beginning, with this thread alone.
    pub(crate) fn train_one_thread(&mut self, rounds: usize) {
        self.weights.fill(0.0);
        for _ in 0..rounds {
            std::mem::swap(&mut self.weights, &mut self.before);
            for (trainer, gradient) in self.gradients.iter_mut().enumerate() {
                write_gradient(gradient, &self.before, &samples(trainer));
            }
            let gradients: Vec<&[f32]> = self.gradients.iter().map(Vec::as_slice).collect();
            step(&mut self.weights, &self.before, &gradients);
        }
    }

    /// The same with rayon's threads.
    pub(crate) fn train_rayon(&mut self, rounds: usize) {
        self.weights.fill(0.0);
        for _ in 0..rounds {
            std::mem::swap(&mut self.weights, &mut self.before);
            for (trainer, gradient) in self.gradients.iter_mut().enumerate() {
                let samples = samples(trainer);
                let chunks = gradient.par_chunks_mut(CHUNK).zip(self.before.par_chunks(CHUNK));
                chunks.for_each(|(gradient, weights)| write_gradient(gradient, weights, &samples));
            }
            let chunks = self.weights.par_chunks_mut(CHUNK).zip(self.before.par_chunks(CHUNK));
            chunks.enumerate().for_each(|(number, (weights, before))| {
                let range = number * CHUNK..number * CHUNK + weights.len();
                let gradients: Vec<&[f32]> =
                    self.gradients.iter().map(|gradient| &gradient[range.clone()]).collect();
                step(weights, before, &gradients);
            });
        }
    }
}

fn compare(
    times: NonZeroUsize,
    weights: usize,
    servers: usize,
    trainers: &[ActorHandle<Trainer>],
    rounds: usize,
) -> Outcome<String> {
    let mut model = Model::new(weights, trainers.len());
    let mut rows = ["Mobula", "one thread", "rayon"].map(Times::new);
    let [mobula, one_thread, rayon] = &mut rows;
    for _ in 0..times.get() {
        let servers = serve(weights, servers)?;
        let trained = mobula.measure(|| Ok(train(&servers, trainers, rounds)?))?;
        check(trained.iter().map(Tensor::as_slice), trainers.len(), rounds)?;
        drop((trained, servers));
        one_thread.measure(|| {
            model.train_one_thread(rounds);
            Ok(())
        })?;
        check([model.weights()].into_iter(), trainers.len(), rounds)?;
        rayon.measure(|| {
            model.train_rayon(rounds);
            Ok(())
        })?;
        check([model.weights()].into_iter(), trainers.len(), rounds)?;
    }
    Ok(table(&rows, times))
}
