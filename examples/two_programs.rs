//! Two programs that share no code, on one store: one writes measurements, the other reads them.
//!
//! They join a session that `mobula start` has started, and agree only on names. The writer puts each block of
//! measurements into the store and publishes it under a name; the reader waits for the names, and reads the blocks
//! where they lie, with tasks in workers of its own. The bytes are plain numbers, so a program in any language could be
//! at the other end.
//!
//! ```sh
//! mobula start
//! MOBULA_ADDRESS=auto two_programs write &
//! MOBULA_ADDRESS=auto two_programs read
//! mobula stop
//! ```
//!
//! Without a role, the program starts a session, starts itself in both roles, and ends all of them.

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use mobula::client::Layout;
use mobula::prelude::*;
use mobula_examples::output::{Outcome, exit_code, print, progress_bar};

/// How long one program waits for the other.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes measurements in one program, and reads them in another.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    role: Option<Role>,

    #[command(flatten)]
    blocks: Blocks,

    /// Compute all sums again in this process, and fail if anything differs.
    #[arg(long, global = true)]
    check: bool,
}

#[derive(Clone, Copy, Subcommand)]
enum Role {
    /// Joins the session, and publishes blocks of measurements.
    Write,
    /// Joins the session, and sums up the blocks that another program publishes.
    Read,
}

#[derive(Clone, Args)]
struct Blocks {
    /// The number of blocks.
    #[arg(long, global = true, value_name = "N", default_value_t = 16)]
    blocks: u64,

    /// The number of values in a block.
    #[arg(long, global = true, value_name = "N", default_value_t = 1 << 20)]
    numbers: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    exit_code(match options.role {
        Some(Role::Write) => write(&options.blocks),
        Some(Role::Read) => read(&options.blocks, options.check),
        None => both(&options),
    })
}

fn name(block: u64) -> String {
    format!("measurements/{block}")
}

// ---- the first program ----

fn write(Blocks { blocks, numbers }: &Blocks) -> Outcome {
    let session = mobula::init()?;
    let client = session.client();
    for block in 0..*blocks {
        let mut writer = client.create(Layout::new(numbers * 8))?;
        for (position, number) in (0..).zip(writer.as_chunks_mut::<8>().0) {
            *number = measurement(block, position).to_le_bytes();
        }
        let object = writer.seal();
        // The name keeps the object: also when this program has ended.
        client.publish(name(block), object.id())?;
    }
    print(&format!("wrote {blocks} blocks\n"))?;
    Ok(())
}

fn measurement(block: u64, position: u64) -> u64 {
    (block * 1_000_003 + position * 7919) % 10_007
}

// ---- the second program ----

/// The sum of a block, read in place.
#[mobula::remote]
fn sum(block: Bytes) -> u64 {
    block.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number)).sum()
}

fn read(Blocks { blocks, numbers }: &Blocks, checks: bool) -> Outcome {
    let session = mobula::init()?;
    let started = Instant::now();
    let bar = progress_bar(*blocks as usize, "blocks");
    let mut calls = Vec::new();
    for block in 0..*blocks {
        // The call refers to the bytes where the other program has put them.
        calls.push(sum::remote(Bytes::from(session.client().get_named(name(block), PATIENCE)?)));
        bar.inc(1);
    }
    let sums = mobula::get(calls)?;
    let total: u64 = sums.iter().sum();
    let seconds = started.elapsed().as_secs_f64();
    print(&format!("read {blocks} blocks in {seconds:.3} s: the sum is {total}\n"))?;
    for block in 0..*blocks {
        session.client().unpublish(name(block))?;
    }
    if checks {
        for (block, found) in (0..).zip(&sums) {
            let expected: u64 = (0..*numbers).map(|position| measurement(block, position)).sum();
            if *found != expected {
                return Err(format!("check failed: block {block} is {found}, {expected} expected").into());
            }
        }
        print(&format!("check: blocks {blocks}: ok\n"))?;
    }
    Ok(())
}

// ---- both, in a session of their own ----

fn both(options: &Options) -> Outcome {
    // As `mobula start` does.
    let address = mobula::Builder::new().start()?;
    let outcome = both_at(&address, options);
    mobula::stop(&address)?;
    outcome
}

fn both_at(address: &Path, options: &Options) -> Outcome {
    let mut reader = start("read", address, options)?;
    let mut writer = start("write", address, options)?;
    let written = ended("writer", &mut writer);
    if written.is_err() {
        // It would wait for blocks that do not come.
        reader.kill()?;
    }
    let read = ended("reader", &mut reader);
    written.and(read)
}

fn ended(role: &str, program: &mut Child) -> Outcome {
    let status = program.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the {role} ended with {status}").into()) }
}

fn start(role: &str, address: &Path, Options { blocks, check, .. }: &Options) -> Outcome<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role).env("MOBULA_ADDRESS", address).stdin(Stdio::null());
    command.args(["--blocks", &blocks.blocks.to_string(), "--numbers", &blocks.numbers.to_string()]);
    Ok(command.args(check.then_some("--check")).spawn()?)
}
