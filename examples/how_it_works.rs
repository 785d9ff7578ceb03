//! The steps that `docs/how-it-works.md` explains, one after the other, for `strace` to look at.
//!
//! Before each step the program makes one system call that changes nothing, and that a trace shows: it asks for a file
//! whose name is the step's.

use clap::Parser;
use mobula::value::Bytes;

/// Runs each step of docs/how-it-works.md once, with a mark before it that `strace` shows.
#[derive(Parser)]
struct Options {
    /// How often the steps that need no system call are repeated.
    #[arg(long, default_value_t = 1000)]
    times: usize,
}

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[mobula::remote]
fn first_byte(bytes: Bytes) -> u8 {
    step("worker: the bytes are here");
    bytes[0]
}

struct Counter {
    value: i64,
}

#[mobula::remote]
impl Counter {
    fn new() -> Self {
        step("actor: the constructor");
        Self { value: 0 }
    }

    fn increment(&mut self) -> i64 {
        self.value += 1;
        self.value
    }
}

fn main() -> mobula::Result<()> {
    let times = Options::parse().times;
    step("init");
    let session = mobula::Builder::new().workers(1).init()?;

    step("the first put");
    let seven = mobula::put(&7)?;
    step("more puts");
    for number in 0..times {
        drop(mobula::put(&number)?);
    }
    step("gets in the same process");
    for _ in 0..times {
        assert_eq!(seven.get()?, 7);
    }

    step("the first call");
    assert_eq!(square::remote(3).get()?, 9);
    step("more calls");
    for _ in 0..times {
        assert_eq!(square::remote(3).get()?, 9);
    }

    step("a put of 100 MB");
    let large = mobula::put(&Bytes::from(vec![1; 100_000_000]))?;
    step("a call with the 100 MB");
    assert_eq!(first_byte::remote(&large).get()?, 1);
    step("the same call once more");
    assert_eq!(first_byte::remote(&large).get()?, 1);

    step("an actor");
    let counter = Counter::remote();
    step("its first call");
    assert_eq!(counter.increment().get()?, 1);
    step("more calls of the actor");
    for _ in 0..times {
        counter.increment().get()?;
    }
    step("its last handle");
    drop(counter);

    step("the end");
    drop(session);
    step("over");
    Ok(())
}

/// The mark of a step in a trace.
fn step(name: &str) {
    let _ = std::fs::metadata(format!("step: {name}"));
}
