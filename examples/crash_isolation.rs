//! An unsafe C library behind tasks: if it crashes, the call fails with a typed error, and the program lives.
//!
//! The library here is the C library itself: `strlen` trusts the address that it is given. Some records of the input
//! have invalid addresses, like records of broken files. Each record is a task. A task that crashes ends only its
//! worker: the other calls continue, and a new worker takes the place of the dead one. The error tells the driver which
//! record it was, and which signal.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use mobula::{Error, ExitReason, Failure};
use mobula_examples::output::{Outcome, exit_code, print, progress_bar};
use nix::libc;
use serde::{Deserialize, Serialize};

/// A text as a C program would keep it in a file: its bytes, and where it begins.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    /// A zero byte follows each text.
    bytes: Vec<u8>,
    /// The offset from the first byte; a broken record has any number here.
    begin: usize,
}

/// The length of the text, by the C library. The call is not retried: it would crash in another worker, too.
#[mobula::remote(max_retries = 0)]
fn length(record: Record) -> usize {
    let begin = record.bytes.as_ptr().wrapping_add(record.begin);
    // SAFETY: none for a broken record, and that is the point of this program: the library reads where it is told, as
    // libraries in C do. It gets a process of its own, in which nothing else can be spoiled.
    unsafe { libc::strlen(begin.cast()) }
}

/// Measures texts with an unsafe C library, some of them broken.
#[derive(Parser)]
struct Options {
    /// The number of records.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    records: usize,

    /// One of this many records is broken.
    #[arg(long, value_name = "N", default_value_t = 250)]
    broken: usize,

    /// Measure the texts again in this process, with safe code, and fail if anything differs.
    #[arg(long)]
    check: bool,
}

/// The outcome of a record.
#[derive(Debug, PartialEq, Eq)]
enum Measured {
    Length(usize),
    /// The library was ended by this signal.
    Crashed(i32),
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    let _mobula = mobula::init()?;
    let records: Vec<_> = (0..options.records).map(|number| record(number, options.broken)).collect();
    let started = Instant::now();
    let found = measure(&records)?;
    let seconds = started.elapsed().as_secs_f64();
    let crashed: Vec<usize> =
        (0..found.len()).filter(|number| matches!(found[*number], Measured::Crashed(_))).collect();
    let measured = found.len() - crashed.len();
    print(&format!("{measured} texts measured, {} crashes survived, in {seconds:.3} s\n", crashed.len()))?;
    if !crashed.is_empty() {
        print(&format!("broken records: {crashed:?}\n"))?;
    }
    if options.check {
        check(&records, &found)?;
        print(&format!("check: records {}: ok\n", records.len()))?;
    }
    Ok(())
}

fn measure(records: &[Record]) -> mobula::Result<Vec<Measured>> {
    let calls: Vec<_> = records.iter().map(|record| length::remote(record.clone())).collect();
    let bar = progress_bar(calls.len(), "records");
    let results = calls.iter().map(|call| {
        bar.inc(1);
        match call.get() {
            Ok(length) => Ok(Measured::Length(length)),
            // The only expected error. Any other error ends the program.
            Err(Error::Failed(Failure::WorkerDied { reason: ExitReason::Killed { signal }, .. })) => {
                Ok(Measured::Crashed(signal))
            }
            Err(error) => Err(error),
        }
    });
    results.collect()
}

fn record(number: usize, broken: usize) -> Record {
    let mut bytes = format!("header of record {number}\0").into_bytes();
    let begin = bytes.len();
    bytes.extend(std::iter::repeat_n(b'x', number % 97));
    bytes.push(0);
    let is_broken = broken > 0 && number % broken == broken - 1;
    // No program has memory at this address.
    Record { bytes, begin: if is_broken { usize::MAX / 4 } else { begin } }
}

fn check(records: &[Record], found: &[Measured]) -> Outcome {
    for (number, (record, found)) in records.iter().zip(found).enumerate() {
        let text = record.bytes.get(record.begin..);
        let expected = match text.and_then(|text| text.iter().position(|byte| *byte == 0)) {
            Some(length) => Measured::Length(length),
            None => Measured::Crashed(libc::SIGSEGV),
        };
        if *found != expected {
            return Err(format!("check failed: record {number} is {found:?}, {expected:?} expected").into());
        }
    }
    Ok(())
}
