//! Cost that must not grow: a call and its `get` beside more and more actors, the start of the n-th actor, nested
//! calls, gets of many objects, and the memory of calls whose results are pending.
//!
//! `cargo bench -p mobula-benches --bench growth -- [actors|starts|deep|objects|pending]`; with `-- --test` each runs
//! once, with few processes, to check that it works. The first number of each column is the least of many rounds, which
//! a busy machine spoils least; the median follows in brackets.

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
const OBJECTS: [usize; 4] = [1000, 10_000, 100_000, 1_000_000];
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
    let rounds = if is_test { 1 } else { ROUNDS };
    if wants("actors") {
        actors(if is_test { &[1, 2] } else { &BESIDE }, rounds)?;
    }
    if wants("starts") {
        starts(if is_test { &[1, 2] } else { &BESIDE })?;
    }
    if wants("deep") {
        nested(if is_test { &[2] } else { &DEPTHS })?;
    }
    if wants("objects") {
        objects(if is_test { &[100] } else { &OBJECTS }, rounds)?;
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

/// Gets of objects of another client, all of them alive, beside loads from memory of as many cache lines. Each load
/// waits for the one before, so its time is that of one cache miss.
fn objects(counts: &[usize], rounds: usize) -> mobula::Result<()> {
    let session = start();
    let (owner, reader) = (connect(&session)?, connect(&session)?);
    println!("\n| objects alive | get, in order | get, at random | one load at random |");
    println!("|---|---|---|---|");
    let mut handles = Vec::new();
    for &count in counts {
        while handles.len() < count {
            handles.push(owner.put(&[7; 64])?.handle());
        }
        let random = shuffled(count);
        // The ids are in the order in which they are used: they are read ahead.
        let ids = |order: &[usize]| order.iter().map(|at| handles[*at].id()).collect::<Vec<_>>();
        let (in_order, at_random) = (ids(&(0..count).collect::<Vec<_>>()), ids(&random));
        let get_all = |ids: &[mobula::ObjectId]| {
            ids.iter().try_for_each(|id| {
                assert_eq!(reader.get(*id)?[0], 7);
                Ok(())
            })
        };
        let rounds = if count > 100_000 { rounds.min(5) } else { rounds };
        let in_order = measure(rounds, 1, count, || get_all(&in_order))?;
        let at_random = measure(rounds, 1, count, || get_all(&at_random))?;
        // A ring through all lines: each line names the next.
        let mut lines = vec![[0usize; 8]; count];
        for (at, next) in random.iter().zip(random.iter().cycle().skip(1)) {
            lines[*at][0] = *next;
        }
        let load = measure(rounds, 1, count, || {
            let last = (0..count).fold(0, |at, _| lines[at][0]);
            assert_eq!(last, 0);
            Ok(())
        })?;
        println!("| {count} | {in_order} | {at_random} | {load} |");
    }
    Ok(())
}

fn connect(session: &mobula::Session) -> mobula::Result<mobula::Client> {
    Ok(mobula::client::ConnectOptions::new().connect(session.socket())?)
}

/// The numbers below `count`, in an order that is always the same.
fn shuffled(count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..count).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        numbers.swap(at, ((state >> 33) % (at as u64 + 1)) as usize);
    }
    numbers
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
    format!("{:.3} µs", time.as_nanos() as f64 / 1000.0)
}

/// The private memory that this process uses.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux says");
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
}
