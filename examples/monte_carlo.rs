//! A Monte Carlo sweep with an early stop: how probable is it that water finds a way through a porous stone?
//!
//! The stone is a grid, and each cell is open with some probability. For each probability of the sweep, batches of
//! random stones are tried, each batch as a task. As soon as the result of a probability is certain enough, its
//! remaining batches are cancelled: waiting ones never run, and running ones stop. So the time is spent on the
//! probabilities with an uncertain result, near the threshold of 0.59.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use mobula_examples::output::{Outcome, exit_code, print, progress_bar};

/// The stones of one batch.
const BATCH: u32 = 64;

/// The number of stones with a way for water; `None` if the batch was cancelled.
#[mobula::remote]
fn batch(open: f64, side: usize, seed: u64) -> Option<u32> {
    let mut percolates = 0;
    for stone in 0..BATCH {
        if mobula::is_cancelled() {
            return None;
        }
        percolates += u32::from(has_way(&make_stone(open, side, seed + u64::from(stone))));
    }
    Some(percolates)
}

/// Estimates the probability that water finds a way through porous stones, for many porosities.
#[derive(Parser)]
struct Options {
    /// The number of probabilities of an open cell, between 0.5 and 0.7.
    #[arg(long, value_name = "N", default_value_t = 21)]
    points: usize,

    /// Cells on each side of a stone.
    #[arg(long, value_name = "CELLS", default_value_t = 128)]
    side: usize,

    /// The most batches of 64 stones for each probability.
    #[arg(long, value_name = "N", default_value_t = 64)]
    batches: usize,

    /// The standard error at which a result is certain enough.
    #[arg(long, value_name = "ERROR", default_value_t = 0.02)]
    tolerance: f64,

    /// Compute the batches that were used again in this process, without Mobula, and fail if anything differs.
    #[arg(long)]
    check: bool,
}

/// The result of one probability so far.
struct Point {
    open: f64,
    /// The seeds of the counted batches, with their results.
    used: Vec<(u64, u32)>,
    is_certain: bool,
}

impl Point {
    /// The part of the stones with a way, and its standard error. A little is added to both outcomes, so that a few
    /// equal outcomes do not count as certainty.
    fn estimate(&self) -> (f64, f64) {
        let stones = self.used.len() as f64 * f64::from(BATCH) + 2.0;
        let found = self.used.iter().map(|(_, found)| f64::from(*found)).sum::<f64>() + 1.0;
        let part = found / stones;
        (part, (part * (1.0 - part) / stones).sqrt())
    }
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    let _mobula = mobula::init()?;
    let started = Instant::now();
    let points = sweep(options)?;
    let seconds = started.elapsed().as_secs_f64();
    let mut text = "   open  with a way   ± error  batches\n".to_owned();
    for point in &points {
        let (part, error) = point.estimate();
        text += &format!("{:7.3}  {part:10.3}  {error:8.3}  {:7}\n", point.open, point.used.len());
    }
    let used: usize = points.iter().map(|point| point.used.len()).sum();
    text += &format!("{used} of {} batches used in {seconds:.3} s\n", points.len() * options.batches);
    print(&text)?;
    if options.check {
        check(&points, options)?;
        print(&format!("check: batches {used}: ok\n"))?;
    }
    Ok(())
}

fn sweep(options: &Options) -> mobula::Result<Vec<Point>> {
    let open = |point: usize| 0.5 + 0.2 * point as f64 / (options.points.max(2) - 1) as f64;
    let mut points: Vec<_> = (0..options.points)
        .map(|point| Point { open: open(point), used: Vec::new(), is_certain: false })
        .collect();
    // The batches of all points in turn, so that every point has a result soon.
    let batches: Vec<(usize, u64)> = (0..options.batches)
        .flat_map(|number| (0..options.points).map(move |p| (p, seed(p, number))))
        .collect();
    let calls: Vec<_> =
        batches.iter().map(|(point, seed)| batch::remote(points[*point].open, options.side, *seed)).collect();
    let bar = progress_bar(calls.len(), "batches");
    for (position, call) in mobula::as_completed(&calls) {
        bar.inc(1);
        let (number, seed) = batches[position];
        let point = &mut points[number];
        if point.is_certain {
            continue;
        }
        if let Some(found) = call.get()? {
            point.used.push((seed, found));
        }
        point.is_certain = point.estimate().1 < options.tolerance;
        if point.is_certain {
            let of_point = batches.iter().zip(&calls).filter(|((other, _), _)| *other == number);
            mobula::cancel(of_point.map(|(_, call)| call).filter(|call| !call.is_ready()))?;
        }
    }
    Ok(points)
}

fn seed(point: usize, batch: usize) -> u64 {
    ((point as u64) << 40) + (batch as u64) * u64::from(BATCH) + 1
}

// ---- stones ----

/// The cells of a stone that are open.
fn make_stone(open: f64, side: usize, seed: u64) -> Vec<Vec<bool>> {
    // SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..side).map(|_| (0..side).map(|_| next() < open).collect()).collect()
}

/// Whether open cells that touch lead from the top to the bottom.
fn has_way(stone: &[Vec<bool>]) -> bool {
    let side = stone.len();
    let mut is_wet = vec![vec![false; side]; side];
    let mut next: Vec<(usize, usize)> = (0..side).map(|column| (0, column)).collect();
    while let Some((row, column)) = next.pop() {
        if !stone[row][column] || std::mem::replace(&mut is_wet[row][column], true) {
            continue;
        }
        if row + 1 == side {
            return true;
        }
        next.push((row + 1, column));
        next.extend(row.checked_sub(1).map(|row| (row, column)));
        next.extend(column.checked_sub(1).map(|column| (row, column)));
        next.extend(Some((row, column + 1)).filter(|_| column + 1 < side));
    }
    false
}

/// Tries the stones of the counted batches again, with another algorithm: row by row, until nothing changes.
fn check(points: &[Point], options: &Options) -> Outcome {
    for point in points {
        let is_done = point.is_certain || point.used.len() == options.batches;
        if !is_done {
            return Err(format!("check failed: {} has only {} batches", point.open, point.used.len()).into());
        }
        for (seed, found) in &point.used {
            let stones =
                (0..BATCH).map(|stone| make_stone(point.open, options.side, seed + u64::from(stone)));
            let expected = stones.filter(|stone| has_way_plainly(stone)).count();
            if expected != *found as usize {
                return Err(format!("check failed: {found} stones with a way, {expected} expected").into());
            }
        }
    }
    Ok(())
}

fn has_way_plainly(stone: &[Vec<bool>]) -> bool {
    let side = stone.len();
    let mut is_wet = vec![vec![false; side]; side];
    is_wet[0].clone_from(&stone[0]);
    loop {
        let mut changed = false;
        for row in 0..side {
            for column in 0..side {
                let wet = |row: usize, column: usize| {
                    is_wet.get(row).and_then(|cells| cells.get(column)) == Some(&true)
                };
                let is_reached = wet(row.wrapping_sub(1), column)
                    || wet(row + 1, column)
                    || wet(row, column.wrapping_sub(1))
                    || wet(row, column + 1);
                if stone[row][column] && !is_wet[row][column] && is_reached {
                    is_wet[row][column] = true;
                    changed = true;
                }
            }
        }
        if !changed {
            return is_wet[side - 1].contains(&true);
        }
    }
}
