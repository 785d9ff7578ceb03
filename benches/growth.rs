//! Cost that must not grow: a call and its `get` beside more and more actors, the start of the n-th actor, nested
//! calls, and the memory of calls whose results are pending.
//!
//! `cargo bench -p mobula-benches --bench growth -- [actors|starts|deep|pending]`; with `-- --test` each runs once,
//! with few processes, to check that it works. The first number of each column is the least of many rounds, which a
//! busy machine spoils least; the median follows in brackets.

use std::time::{Duration, Instant};

use mobula::prelude::*;

/// The numbers of actors beside which calls are measured.
const BESIDE: [usize; 6] = [10, 100, 300, 500, 700, 1000];
/// Rounds beside each number of actors.
const ROUNDS: usize = 25;
/// Calls in a round.
const CALLS: usize = 1000;
const AT_ONCE: usize = 1000;
const CALLS_SLEEPING: usize = 50;
const SLOW: Duration = Duration::from_micros(200);
const DEPTHS: [u32; 5] = [10, 100, 300, 600, 900];
const PENDING: [usize; 3] = [10_000, 100_000, 1_000_000];

struct Counter {
    value: i64,
}

#[mobula::remote]
impl Counter {
    fn new() -> Self {
        Self { value: 0 }
    }

    fn add(&mut self, x: i64) -> i64 {
        self.value += x;
        self.value
    }

    /// A call after which the caller sleeps.
    fn add_slowly(&mut self, x: i64) -> i64 {
        let start = Instant::now();
        while start.elapsed() < SLOW {
            std::thread::sleep(SLOW.saturating_sub(start.elapsed()));
        }
        self.add(x)
    }

    fn pause(&mut self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

#[mobula::remote]
fn successor(x: i64) -> i64 {
    x + 1
}

#[mobula::remote]
fn deep(n: u32) -> mobula::Result<u32> {
    if n == 0 { Ok(0) } else { Ok(deep::remote(n - 1).get()? + 1) }
}

fn main() -> mobula::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // As criterion does it: without `--bench`, which `cargo bench` passes, this is a test.
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let is_test = has("--test") || !has("--bench");
    let wants = |part: &str| {
        let parts: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
        parts.is_empty() || parts.iter().any(|wanted| *wanted == part)
    };
    if wants("actors") {
        let beside = if is_test { &[1, 2] } else { &BESIDE[..] };
        actors(beside, if is_test { 1 } else { ROUNDS })?;
    }
    if wants("starts") {
        starts(if is_test { &[1, 2] } else { &BESIDE })?;
    }
    if wants("deep") {
        nested(if is_test { &[2] } else { &DEPTHS })?;
    }
    if wants("pending") {
        pending(if is_test { &[100] } else { &PENDING })?;
    }
    Ok(())
}

fn start() -> mobula::Session {
    let builder = mobula::Builder::new().workers(2).capacity_bytes(256 << 20).max_processes(1200);
    builder.init().expect("a session starts")
}

/// The start of actors, and calls beside them.
fn actors(beside: &[usize], rounds: usize) -> mobula::Result<()> {
    let _session = start();
    let mut actors = vec![Counter::remote()];
    actors[0].add(1).get()?;
    println!(
        "\n| actors | start of one | call and get | at once, each | task and get | sleeping call and get |"
    );
    println!("|---|---|---|---|---|---|");
    for &count in beside {
        let start = start_until(&mut actors, count + 1)?;
        let Measured { call, at_once, task, sleeping } = Measured::beside(&actors[0], rounds)?;
        println!("| {count} | {start} | {call} | {at_once} | {task} | {sleeping} |");
    }
    Ok(())
}

/// The start of one actor after the other.
fn starts(beside: &[usize]) -> mobula::Result<()> {
    let _session = start();
    let mut actors = vec![Counter::remote()];
    actors[0].add(1).get()?;
    println!("\n| actors | start of one |\n|---|---|");
    for &count in beside {
        println!("| {count} | {} |", start_until(&mut actors, count + 1)?);
    }
    Ok(())
}

fn start_until(actors: &mut Vec<ActorHandle<Counter>>, count: usize) -> mobula::Result<Spread> {
    let mut times = Vec::new();
    while actors.len() < count {
        let began = Instant::now();
        let actor = Counter::remote();
        assert_eq!(actor.add(1).get()?, 1);
        times.push(began.elapsed());
        actors.push(actor);
    }
    Ok(Spread::of(times))
}

struct Measured {
    call: Spread,
    at_once: Spread,
    task: Spread,
    sleeping: Spread,
}

impl Measured {
    fn beside(actor: &ActorHandle<Counter>, rounds: usize) -> mobula::Result<Self> {
        Ok(Self {
            call: measure(rounds, CALLS, 1, || actor.add(1).get().map(drop))?,
            at_once: measure(rounds, CALLS / AT_ONCE, AT_ONCE, || {
                let results: Vec<_> = (0..AT_ONCE).map(|_| actor.add(1)).collect();
                results.iter().try_for_each(|result| result.get().map(drop))
            })?,
            task: measure(rounds, CALLS, 1, || successor::remote(1).get().map(drop))?,
            sleeping: measure(rounds, CALLS_SLEEPING, 1, || actor.add_slowly(1).get().map(drop))?,
        })
    }
}

/// The mean time of one of the `size` calls that `call` makes, in each round.
fn measure(
    rounds: usize,
    times: usize,
    size: usize,
    mut call: impl FnMut() -> mobula::Result<()>,
) -> mobula::Result<Spread> {
    let mut round = || {
        let start = Instant::now();
        (0..times).try_for_each(|_| call())?;
        Ok(start.elapsed() / (times * size) as u32)
    };
    (0..rounds).map(|_| round()).collect::<mobula::Result<_>>().map(Spread::of)
}

/// The least of some times and their median. On a busy machine the least says more.
struct Spread {
    least: Duration,
    median: Duration,
}

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |position: usize| times.get(position).copied().unwrap_or_default();
        Self { least: at(0), median: at(times.len() / 2) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", micros(self.least), micros(self.median))
    }
}

/// Nested calls: each level starts a process, because the one before waits.
fn nested(depths: &[u32]) -> mobula::Result<()> {
    println!("\n| nested calls | each level |\n|---|---|");
    for &depth in depths {
        let _session = start();
        assert_eq!(successor::remote(1).get()?, 2);
        let began = Instant::now();
        assert_eq!(deep::remote(depth).get()?, depth);
        println!("| {depth} | {} |", micros(began.elapsed() / depth));
    }
    Ok(())
}

/// The memory of calls whose results are pending.
fn pending(counts: &[usize]) -> mobula::Result<()> {
    println!("\n| pending calls | bytes of this process, each | submitted in |\n|---|---|---|");
    for &count in counts {
        let _session = start();
        let actor = Counter::remote();
        actor.add(1).get()?;
        let mut results = Vec::with_capacity(count);
        // Longer than it takes to make the calls.
        let _ = actor.pause(Duration::from_secs(1) + Duration::from_micros(15) * count as u32);
        let (before, began) = (memory_bytes(), Instant::now());
        results.extend((0..count).map(|_| actor.add(1)));
        let (took, bytes) = (began.elapsed(), memory_bytes() - before);
        println!("| {count} | {} | {} |", bytes / count as u64, micros(took / count as u32));
        assert_eq!(results.last().expect("there are some").get()?, count as i64 + 1);
    }
    Ok(())
}

fn micros(time: Duration) -> String {
    format!("{:.2} µs", time.as_nanos() as f64 / 1000.0)
}

/// The private memory that this process uses.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux says");
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
}
