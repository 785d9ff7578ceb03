//! A pipeline of three stages that run at different speeds, with queues between them that have limits.
//!
//! Frames are made, blurred and summed up: one process makes them, several blur them, and the driver sums them up. A
//! stage that is faster than the next one waits for room in the queue, so the store never has more frames than the
//! queues have places, however many go through. The frames stay in the store; the queues pass references on.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use mobula::prelude::*;
use mobula::util::Queue;
use mobula::value::ValueError;
use mobula_examples::output::{Outcome, exit_code, print, progress_bar};
use serde::{Deserialize, Serialize};

/// A picture, and its number.
#[derive(Serialize, Deserialize)]
struct Frame {
    number: u64,
    pixels: Tensor<f32>,
}

/// The first stage: it is the fastest, and waits most of the time.
#[mobula::remote]
fn make(frames: Queue<Frame>, count: u64, side: usize) -> mobula::Result<()> {
    for number in 0..count {
        let mut pixels = TensorMut::create(&[side, side])?;
        draw(pixels.as_mut_slice(), number);
        frames.put(Frame { number, pixels: pixels.seal() })?;
    }
    // The next stage ends when the queue is empty.
    frames.close()
}

/// The second stage. Several processes run it.
#[mobula::remote]
fn blur_all(frames: Queue<Frame>, blurred: Queue<Frame>, rounds: u32) -> mobula::Result<u64> {
    let mut count = 0;
    for frame in frames.iter() {
        let Frame { number, pixels } = frame?;
        blurred.put(Frame { number, pixels: blur(&pixels, rounds)? })?;
        count += 1;
    }
    Ok(count)
}

/// Sends frames through a pipeline of processes, and holds each stage back by the next.
#[derive(Parser)]
struct Options {
    /// The number of frames.
    #[arg(long, value_name = "N", default_value_t = 400)]
    frames: u64,

    /// Pixels on each side of a frame.
    #[arg(long, value_name = "PIXELS", default_value_t = 512)]
    side: usize,

    /// The number of processes that blur.
    #[arg(long, value_name = "N", default_value = "2")]
    workers: NonZeroUsize,

    /// The most frames in each queue.
    #[arg(long, value_name = "N", default_value = "8")]
    room: NonZeroUsize,

    /// The number of times that each frame is blurred: more makes the second stage slower.
    #[arg(long, value_name = "N", default_value_t = 4)]
    rounds: u32,

    /// Compute each frame again in this process, without Mobula, and fail if anything differs.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    // A CPU for each stage: they run at the same time.
    let _mobula = mobula::Builder::new().num_cpus((options.workers.get() + 1) as f64).init()?;
    let (frames, blurred) = (Queue::new(options.room.get()), Queue::new(options.room.get()));
    let started = Instant::now();
    let maker = make::remote(frames.clone(), options.frames, options.side);
    let blurrers: Vec<_> = (0..options.workers.get())
        .map(|_| blur_all::remote(frames.clone(), blurred.clone(), options.rounds))
        .collect();
    let (mut sums, mut longest) = (vec![0.0; options.frames as usize], 0);
    let bar = progress_bar(sums.len(), "frames");
    for _ in 0..options.frames {
        let Frame { number, pixels } = blurred.get()?;
        sums[number as usize] = sum(pixels.as_slice());
        if number % 16 == 0 {
            longest = longest.max(frames.size()?);
        }
        bar.inc(1);
    }
    maker.get()?;
    let counts = mobula::get(blurrers)?;
    let seconds = started.elapsed().as_secs_f64();
    print(&format!(
        "{} frames in {seconds:.3} s, blurred by processes in parts of {counts:?}; at most {longest} waited\n",
        options.frames
    ))?;
    if longest > options.room.get() {
        return Err(
            format!("check failed: {longest} frames in a queue with room for {}", options.room).into()
        );
    }
    if options.check {
        check(&sums, options)?;
        print(&format!("check: frames {}: ok\n", sums.len()))?;
    }
    Ok(())
}

// ---- pictures ----

fn draw(pixels: &mut [f32], number: u64) {
    for (position, pixel) in pixels.iter_mut().enumerate() {
        *pixel = ((position as u64 * 31 + number * 17) % 256) as f32;
    }
}

/// Each pixel becomes the mean of three neighbours in its row, several times.
fn blur(pixels: &Tensor<f32>, rounds: u32) -> Result<Tensor<f32>, ValueError> {
    let mut result = TensorMut::create(pixels.shape())?;
    let side = pixels.shape()[1];
    let mut row_before = vec![0.0; side];
    for (row, source) in result.as_mut_slice().chunks_mut(side).zip(pixels.as_slice().chunks(side)) {
        row.copy_from_slice(source);
        for _ in 0..rounds {
            row_before.copy_from_slice(row);
            for column in 1..side.saturating_sub(1) {
                row[column] = (row_before[column - 1] + row_before[column] + row_before[column + 1]) / 3.0;
            }
        }
    }
    Ok(result.seal())
}

fn sum(pixels: &[f32]) -> f64 {
    pixels.iter().map(|pixel| f64::from(*pixel)).sum()
}

/// Makes, blurs and sums each frame once more, pixel by pixel.
fn check(sums: &[f64], options: &Options) -> Outcome {
    for (number, found) in sums.iter().enumerate() {
        let mut pixels = vec![0.0; options.side * options.side];
        draw(&mut pixels, number as u64);
        for _ in 0..options.rounds {
            let before = pixels.clone();
            for position in 0..pixels.len() {
                let column = position % options.side;
                if column > 0 && column + 1 < options.side {
                    pixels[position] = (before[position - 1] + before[position] + before[position + 1]) / 3.0;
                }
            }
        }
        let expected = sum(&pixels);
        if *found != expected {
            return Err(
                format!("check failed: frame {number} has the sum {found}, {expected} expected").into()
            );
        }
    }
    Ok(())
}
