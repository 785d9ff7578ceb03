//! Ten counters: actors that keep a value, each in a process of its own.

use clap::Parser;
use mobula::prelude::*;

struct Counter {
    value: i64,
}

#[mobula::remote]
impl Counter {
    fn new() -> Self {
        Self { value: 0 }
    }

    fn increment(&mut self) -> i64 {
        self.value += 1;
        self.value
    }
}

/// Increments each of ten counters once, all at the same time, and then the first one five times more.
#[derive(Parser)]
struct Options {
    /// How many counters to make.
    #[arg(long, default_value_t = 10)]
    counters: usize,
}

fn main() -> mobula::Result<()> {
    let options = Options::parse();
    let _mobula = mobula::init()?;

    let counters: Vec<ActorHandle<Counter>> = (0..options.counters).map(|_| Counter::remote()).collect();
    // All of these run in parallel.
    let results = mobula::get(counters.iter().map(|counter| counter.increment()))?;
    println!("{results:?}");

    // These run one after the other, and share the first counter's state.
    if let Some(first) = counters.first() {
        let results = mobula::get((0..5).map(|_| first.increment()))?;
        println!("{results:?}");
    }
    Ok(())
}
