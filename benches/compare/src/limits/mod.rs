//! The limits of this machine, measured as everything else is: the rows' figures stand beside these.

pub(crate) mod copy;
pub(crate) mod line;
pub(crate) mod wake;

use std::process::Command;
use std::time::{Duration, Instant};

use crate::peer::{self, Failure, Figure, budget, check, error, median_of, median_of_batches, pattern, sum};

/// The side that measures limits. Each command ends with its budget.
pub(crate) fn serve() -> Result<(), Failure> {
    let mut copy = None;
    let mut heap: Option<(Vec<u8>, u64)> = None;
    let mut chain: Option<Vec<Line>> = None;
    let mut wake = None;
    let mut line = None;
    peer::serve(|words| match *words {
        ["copy", bytes, time] => {
            let bytes = bytes.parse()?;
            let copy = match &mut copy {
                Some(copy) => copy,
                none => none.insert(copy::Copy::new(bytes)?),
            };
            copy.measure(budget(time)?)
        }
        ["huge"] => Ok(copy.as_ref().map_or(0.0, |copy: &copy::Copy| f64::from(u8::from(copy.is_huge())))),
        ["read", bytes, time] => {
            let bytes = bytes.parse()?;
            let (heap, expected) = heap.get_or_insert_with(|| {
                let heap = huge_pattern(bytes);
                let expected = sum(&heap);
                (heap, expected)
            });
            median_of(budget(time)?, || {
                let start = Instant::now();
                let total = sum(heap);
                let taken = start.elapsed().as_secs_f64();
                check(total == *expected, "the sum of one's own heap")?;
                Ok(taken)
            })
        }
        ["make", bytes, time] => make(bytes.parse::<usize>()? / 8, budget(time)?),
        ["random-load", lines, time] => {
            let lines = lines.parse()?;
            if chain.as_ref().is_some_and(|chain| chain.len() != lines) {
                chain = None;
            }
            let chain = chain.get_or_insert_with(|| random_chain(lines));
            follow(chain, budget(time)?)
        }
        ["wake", pause_us, time] => {
            let wake = match &mut wake {
                Some(wake) => wake,
                none => none.insert(wake::Wake::new()?),
            };
            wake.measure(Duration::from_micros(pause_us.parse()?), budget(time)?)
        }
        ["line", time] => {
            let line = match &mut line {
                Some(line) => line,
                none => none.insert(line::Line::new()?),
            };
            line.measure(budget(time)?)
        }
        ["process", time] => median_of(budget(time)?, process),
        ["rest"] => {
            (copy, heap, chain) = (None, None, None);
            Ok(0.0)
        }
        _ => error("no such limit"),
    })
}

/// A process of this program that does nothing.
fn process() -> Figure {
    let start = Instant::now();
    let status = Command::new("/proc/self/exe").args(["peer", "nothing"]).status()?;
    let taken = start.elapsed().as_secs_f64();
    check(status.success(), "the end of a process that does nothing")?;
    Ok(taken)
}

/// The pattern, in huge pages where the kernel gives them.
fn huge_pattern(bytes: usize) -> Vec<u8> {
    let mut heap: Vec<u8> = Vec::with_capacity(bytes);
    let start = heap.as_ptr().addr().next_multiple_of(4096);
    let length = bytes.saturating_sub(start - heap.as_ptr().addr());
    // SAFETY: the range lies in the vector's own memory, of which the advice changes nothing but the size of pages.
    unsafe { libc::madvise(start as *mut _, length, libc::MADV_HUGEPAGE) };
    heap.extend_from_slice(&pattern(bytes));
    heap
}

/// An array that is made and read in one process, as a program would: on the heap, anew each time.
fn make(elements: usize, budget: Duration) -> Figure {
    let one = || {
        let start = Instant::now();
        let mut array = vec![0.0_f64; elements];
        array.fill(3.0);
        let total = sum_of_numbers(std::hint::black_box(&array));
        drop(array);
        let taken = start.elapsed().as_secs_f64();
        check(total == 3.0 * elements as f64, "the sum of one's own array")?;
        Ok(taken)
    };
    one()?;
    median_of(budget, one)
}

/// The sum of numbers, in eight strands that do not wait for each other.
pub(crate) fn sum_of_numbers(numbers: &[f64]) -> f64 {
    let (chunks, rest) = numbers.as_chunks::<8>();
    let mut strands = [0.0; 8];
    for chunk in chunks {
        for (strand, number) in strands.iter_mut().zip(chunk) {
            *strand += number;
        }
    }
    strands.iter().chain(rest).sum()
}

/// A cache line that says which is the next.
#[repr(align(64))]
#[derive(Clone)]
struct Line(usize);

/// Lines in one cycle through all of them, in random order.
fn random_chain(lines: usize) -> Vec<Line> {
    let order = shuffled(lines);
    let mut chain = vec![Line(0); lines];
    for (position, &line) in order.iter().enumerate() {
        chain[line].0 = order[(position + 1) % lines];
    }
    chain
}

/// The numbers below `count` in an order that is the same in every run.
pub(crate) fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..count).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(at, (state % (at as u64 + 1)) as usize);
    }
    order
}

/// The time of a load of which the next one's address depends.
fn follow(chain: &[Line], budget: Duration) -> Figure {
    const STEPS: usize = 20_000;
    let mut at = 0;
    median_of_batches(budget, STEPS, || {
        for _ in 0..STEPS {
            at = chain[at].0;
        }
        check(std::hint::black_box(at) < chain.len(), "a chain of lines")
    })
}
