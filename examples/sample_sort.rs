//! A sample sort: blocks of numbers lie in the store, and each task sorts the numbers of one range of all blocks.
//!
//! The driver looks at a sample of the numbers, in the store, and picks the ends of the ranges by it, so that all tasks
//! get about as many. A task reads the blocks where they lie, writes its numbers into new memory of the store, and
//! sorts them there. So each number is copied once, and none goes through the driver. Each task looks at all numbers,
//! which takes little time beside sorting as long as there are as few tasks as processors.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use clap::Parser;
use mobula::prelude::*;
use mobula::value::ValueError;
use mobula_examples::compare::{Times, table};
use mobula_examples::numbers::scrambled;
use mobula_examples::output::{Outcome, exit_code, print};
use mobula_protocol::size::ByteSize;
use rayon::slice::ParallelSliceMut;

/// The first and the last number of a range.
type Range = [u64; 2];

/// A block of numbers in no order.
#[mobula::remote]
pub(crate) fn fill(block: u64, elements: usize) -> Result<Tensor<u64>, ValueError> {
    let mut numbers = TensorMut::create(&[elements])?;
    for (number, index) in numbers.as_mut_slice().iter_mut().zip(block << 32..) {
        *number = scrambled(index);
    }
    Ok(numbers.seal())
}

/// The numbers of a range, sorted, of all blocks.
#[mobula::remote]
fn sort_range(blocks: Vec<ObjectRef<Tensor<u64>>>, [first, last]: Range) -> mobula::Result<Tensor<u64>> {
    let blocks = mobula::get(blocks)?;
    let is_in_range = |number: u64| (first..=last).contains(&number);
    let count = |block: &Tensor<u64>| block.as_slice().iter().filter(|&&number| is_in_range(number)).count();
    let mut sorted = TensorMut::create(&[blocks.iter().map(count).sum()])?;
    let mut rest = sorted.as_mut_slice();
    for numbers in blocks.iter().flat_map(|block| block.as_slice().chunks(CHUNK)) {
        let mut chosen = [0; CHUNK];
        let mut count = 0;
        for &number in numbers {
            // Without a branch, which would be predicted wrongly for half of the numbers.
            chosen[count] = number;
            count += usize::from(is_in_range(number));
        }
        let (chunk, behind) = rest.split_at_mut(count);
        chunk.copy_from_slice(&chosen[..count]);
        rest = behind;
    }
    sorted.as_mut_slice().sort_unstable();
    Ok(sorted.seal())
}

/// Numbers that are looked at together: few enough for the processor's nearest cache.
const CHUNK: usize = 2048;

/// Sorts 64-bit numbers that lie in the store, with one task for each processor.
#[derive(Parser)]
struct Options {
    /// The size of all numbers together, as in 256MiB.
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    bytes: ByteSize,

    /// How many blocks the numbers lie in.
    #[arg(long, value_name = "B", default_value = "16")]
    blocks: NonZeroUsize,

    /// How many tasks sort, each a range of the numbers. Default: one for each processor.
    #[arg(long, value_name = "N")]
    sorters: Option<NonZeroUsize>,

    /// Sort everything again in this process, without Mobula, and fail if anything differs.
    #[arg(long)]
    check: bool,

    /// Sort the numbers N times each with Mobula, with one thread and with rayon, in turn, and print the times.
    #[arg(long, value_name = "N")]
    compare: Option<NonZeroUsize>,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    let _mobula = mobula::init()?;
    let elements = options.bytes.0 as usize / size_of::<u64>();
    let blocks = blocks(elements, options.blocks.get());
    let numbers = mobula::get(&blocks)?;
    let sorters = options.sorters.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get);

    let started = Instant::now();
    let sorted = sort(&blocks, &numbers, sorters)?;
    let seconds = started.elapsed().as_secs_f64();
    print(&format!("{elements} numbers sorted in {seconds:.3} s, by {} tasks\n", sorted.len()))?;
    if options.check || options.compare.is_some() {
        let mut expected = joined(&numbers);
        expected.sort_unstable();
        check(&sorted, &expected)?;
        print(&format!("check: numbers {elements}: ok\n"))?;
    }
    drop(sorted);
    if let Some(times) = options.compare {
        print(&compare(times, &blocks, &numbers, sorters)?)?;
    }
    Ok(())
}

/// So many numbers, in blocks of about the same length.
pub(crate) fn blocks(elements: usize, blocks: usize) -> Vec<ObjectRef<Tensor<u64>>> {
    let share = |block: usize| (block + 1) * elements / blocks - block * elements / blocks;
    (0..blocks).map(|block| fill::remote(block as u64, share(block))).collect()
}

/// The numbers of all blocks, sorted: those of each range after those of the range before.
pub(crate) fn sort(
    blocks: &[ObjectRef<Tensor<u64>>],
    numbers: &[Tensor<u64>],
    sorters: usize,
) -> mobula::Result<Vec<Tensor<u64>>> {
    let ranges = ranges(numbers, sorters).into_iter();
    let sorted: Vec<_> = ranges.map(|range| sort_range::remote(blocks.to_vec(), range)).collect();
    mobula::get(&sorted)
}

/// As many ranges as there are sorters, which have about as many numbers each; together they have all.
fn ranges(numbers: &[Tensor<u64>], sorters: usize) -> Vec<Range> {
    const SAMPLES: usize = 1 << 16;
    let elements: usize = numbers.iter().map(|block| block.as_slice().len()).sum();
    let each = (elements / SAMPLES).max(1);
    let sample = numbers.iter().flat_map(|block| block.as_slice().iter().step_by(each).copied());
    let mut sample: Vec<u64> = sample.collect();
    sample.sort_unstable();
    // Equal ends are one: no number may be in two ranges.
    let mut starts: Vec<u64> =
        (1..sorters).filter_map(|range| sample.get(range * sample.len() / sorters).copied()).collect();
    starts.retain(|&start| start > 0);
    starts.insert(0, 0);
    starts.dedup();
    let lasts = starts.iter().skip(1).map(|next| next - 1).chain([u64::MAX]);
    starts.iter().zip(lasts).map(|(&first, last)| [first, last]).collect()
}

fn joined(numbers: &[Tensor<u64>]) -> Vec<u64> {
    numbers.iter().flat_map(|block| block.as_slice()).copied().collect()
}

/// Compares with the same numbers, sorted in this process.
fn check(sorted: &[Tensor<u64>], expected: &[u64]) -> Outcome {
    let found = sorted.iter().flat_map(|range| range.as_slice());
    match found.clone().count() == expected.len()
        && found.zip(expected).all(|(found, expected)| found == expected)
    {
        true => Ok(()),
        false => Err("check failed: these are not the same numbers, or they are in another order".into()),
    }
}

/// The times of sorting numbers that are in memory: in the store, or in one piece of this process. Mobula sorts twice:
/// first its results get new memory, which the system fills with zeros before; then they get the memory that the
/// results of the first sort had, as rayon sorts where the numbers were before.
fn compare(
    times: NonZeroUsize,
    blocks: &[ObjectRef<Tensor<u64>>],
    numbers: &[Tensor<u64>],
    sorters: usize,
) -> Outcome<String> {
    let mut rows = ["Mobula", "new memory", "one thread", "rayon"].map(Times::new);
    let [mobula, new_memory, one_thread, rayon] = &mut rows;
    let mut copy = joined(numbers);
    for _ in 0..times.get() {
        drop(new_memory.measure(|| Ok(sort(blocks, numbers, sorters)?))?);
        mobula.measure(|| Ok(sort(blocks, numbers, sorters)?))?;
        restore(&mut copy, numbers);
        one_thread.measure(|| {
            copy.sort_unstable();
            Ok(())
        })?;
        restore(&mut copy, numbers);
        rayon.measure(|| {
            copy.par_sort_unstable();
            Ok(())
        })?;
    }
    Ok(table(&rows, times))
}

/// Brings the numbers back into the order in which they lie in the blocks.
fn restore(copy: &mut [u64], numbers: &[Tensor<u64>]) {
    let mut rest = copy;
    for block in numbers {
        let (part, behind) = rest.split_at_mut(block.as_slice().len());
        part.copy_from_slice(block.as_slice());
        rest = behind;
    }
}
