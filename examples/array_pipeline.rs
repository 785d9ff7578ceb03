//! A large array on its way through a chain of actors: written once, where it stays, and passed on by reference.
//!
//! That nothing is copied is measured in three ways. Each actor reports the object of the store that it saw the array
//! in: a copy would be another object. The store says how many bytes all of its objects have together: copies in the
//! store would show there. And each actor reports by how much the memory that only it has grew: a copy on its heap
//! would show there.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mobula::Session;
use mobula::prelude::*;
use mobula_examples::output::{Outcome, exit_code, print, print_json, print_note, progress_bar};
use mobula_protocol::size::ByteSize;
use serde::{Deserialize, Serialize};

/// The array's elements count from 0 to one less than this, over and over. They are whole numbers, so sums are exact in
/// any order of addition.
const PERIOD: u64 = 1024;

/// Fills an array in the store's memory.
struct Producer;

#[mobula::remote]
impl Producer {
    fn new() -> Self {
        Self
    }

    /// Returns when the process is there.
    fn ready(&self) {}

    #[remote(num_returns = 2)]
    fn fill(&self, elements: usize) -> Result<(Filled, Tensor<f64>), mobula::value::ValueError> {
        let started = Instant::now();
        let mut array = TensorMut::create(&[elements])?;
        let create_seconds = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let period: Vec<f64> = (0..PERIOD).map(|element| element as f64).collect();
        for elements in array.as_mut_slice().chunks_mut(period.len()) {
            elements.copy_from_slice(&period[..elements.len()]);
        }
        let array = array.seal();
        let write_seconds = started.elapsed().as_secs_f64();
        Ok((Filled { create_seconds, write_seconds }, array))
    }
}

/// How long the producer took.
#[derive(Debug, Serialize, Deserialize)]
struct Filled {
    /// The time to get the memory from the store, which gets it from the system.
    create_seconds: f64,
    /// The time to write all elements, and to seal.
    write_seconds: f64,
}

/// Looks at an array and passes it on.
struct Stage {
    statistic: Statistic,
    private_bytes_before: u64,
}

#[mobula::remote]
impl Stage {
    fn new(statistic: Statistic) -> Self {
        Self { statistic, private_bytes_before: private_bytes() }
    }

    /// Returns when the process is there.
    fn ready(&self) {}

    /// Takes the array and gives it back as it came, without looking at an element.
    #[remote(num_returns = 2)]
    fn pass(&self, array: Tensor<f64>) -> (Option<String>, Tensor<f64>) {
        (array.object_id().map(|object| object.to_string()), array)
    }

    /// Computes this stage's statistic over all elements.
    fn compute(&self, array: Tensor<f64>) -> Computed {
        let started = Instant::now();
        let value = self.statistic.of(&array);
        let seconds = started.elapsed().as_secs_f64();
        let private_bytes_grown = private_bytes().saturating_sub(self.private_bytes_before);
        Computed { pid: std::process::id(), value, seconds, private_bytes_grown }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Computed {
    pid: u32,
    value: f64,
    seconds: f64,
    private_bytes_grown: u64,
}

/// The statistic that a stage computes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Statistic {
    Sum,
    Max,
    Mean,
}

impl Statistic {
    const ALL: [Self; 3] = [Self::Sum, Self::Max, Self::Mean];

    fn of(self, array: &Tensor<f64>) -> f64 {
        let view = array.view();
        match self {
            Self::Sum => view.sum(),
            Self::Max => max(array.as_slice()),
            Self::Mean => view.mean().unwrap_or(f64::NAN),
        }
    }

    /// The statistic of the numbers that the producer writes, computed without writing them.
    fn expected(self, elements: u64) -> f64 {
        let (periods, rest) = (elements / PERIOD, elements % PERIOD);
        let sum_below = |end: u64| end * end.saturating_sub(1) / 2;
        let sum = (periods * sum_below(PERIOD) + sum_below(rest)) as f64;
        match self {
            Self::Sum => sum,
            Self::Max => (elements.min(PERIOD) - 1) as f64,
            Self::Mean => sum / elements as f64,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Mean => "mean",
        }
    }
}

/// The largest element, found as memory delivers them: of eight neighbours no comparison waits for another.
fn max(elements: &[f64]) -> f64 {
    let (neighbours, rest) = elements.as_chunks::<8>();
    let mut largest = [f64::NEG_INFINITY; 8];
    for elements in neighbours {
        for (largest, element) in largest.iter_mut().zip(elements) {
            *largest = largest.max(*element);
        }
    }
    largest.iter().chain(rest).copied().fold(f64::NEG_INFINITY, f64::max)
}

/// The memory that this process shares with no other, as far as it is in use.
fn private_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse().ok());
    kilobytes.map_or(0, |kilobytes: u64| kilobytes << 10)
}

/// Fills a large array in shared memory once, and passes it through a chain of actors without copying it.
///
/// The first actor computes the array's sum, the second its maximum, the third its mean, the fourth again the sum, and
/// so on.
#[derive(Parser)]
struct Options {
    /// The size of the array, as in 256MiB: rounded down to whole numbers of 8 bytes. Default: 1 GiB, but at most a
    /// quarter of what the store may hold and of the machine's available memory.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    bytes: Option<ByteSize>,

    /// How many actors the array passes through.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = parse_actors)]
    actors: usize,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,

    /// Compare what the actors computed with what it must be, and fail if it differs or if anything was copied.
    #[arg(long)]
    check: bool,
}

const ELEMENT_BYTES: u64 = size_of::<f64>() as u64;
/// Processes are not for free: a machine of today bears about this many.
const ACTORS_MAX: usize = 256;
/// How much the store may hold, and how much a process's own memory may grow, beside the array: results, and the
/// allocator's stock.
const SLACK_BYTES: u64 = 4 << 20;

fn parse_bytes(text: &str) -> Result<ByteSize, String> {
    match text.parse().map_err(|error| format!("{error}"))? {
        ByteSize(0..ELEMENT_BYTES) => Err(format!("one number has {ELEMENT_BYTES} bytes")),
        bytes => Ok(bytes),
    }
}

fn parse_actors(text: &str) -> Result<usize, String> {
    match text.parse().map_err(|error| format!("{error}"))? {
        actors @ 1..=ACTORS_MAX => Ok(actors),
        _ => Err(format!("there can be 1 to {ACTORS_MAX} actors, each of which is a process")),
    }
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    let session = mobula::init()?;
    let report = pipeline(&session, options)?;
    drop(session);

    match options.json {
        true => print_json(&report)?,
        false => print(&report.to_text())?,
    }
    if options.check {
        report.check()?;
        let actors = report.actors.len();
        print_note(&format!("check: actors {actors}, values as expected, nothing copied: ok"), options.json)?;
    }
    Ok(())
}

/// All measurements.
#[derive(Debug, Serialize)]
struct Report {
    bytes: u64,
    elements: u64,
    /// The object that the producer wrote.
    object_id: Option<String>,
    producer: Filled,
    actors: Vec<Hop>,
    store: StoreUse,
}

/// One actor's part.
#[derive(Debug, Serialize)]
struct Hop {
    actor: usize,
    pid: u32,
    /// The object that it got the array in.
    object_id: Option<String>,
    /// From the call to the answer of a method that takes the array and only gives it back. The actor maps the array's
    /// memory meanwhile, and touches none of it.
    first_pass_seconds: f64,
    /// The same once more, with the memory mapped.
    pass_seconds: f64,
    statistic: Statistic,
    value: f64,
    /// The computation alone, as the actor timed it; it includes the actor's first look at the memory.
    compute_seconds: f64,
    /// By how much the memory that only the actor has grew since it was constructed.
    private_bytes_grown: u64,
}

/// The store's contents when the array had passed through all actors, and all of them still had it.
#[derive(Debug, Serialize)]
struct StoreUse {
    objects: u64,
    object_bytes: u64,
}

fn pipeline(session: &Session, options: &Options) -> Outcome<Report> {
    let elements = array_bytes(session, options)? / ELEMENT_BYTES;
    let statistics = Statistic::ALL.into_iter().cycle().take(options.actors);
    let producer = Producer::remote();
    let stages: Vec<_> = statistics.map(|statistic| (statistic, Stage::remote(statistic))).collect();
    // Wait, so that no starting of processes is measured below.
    producer.ready().get()?;
    mobula::get(stages.iter().map(|(_, stage)| stage.ready()))?;

    let progress = progress_bar(options.actors, "actors");
    let (filled, mut array) = producer.fill(elements as usize);
    let filled = filled.get()?;
    let object_id = array.get()?.object_id().map(|object| object.to_string());

    let mut actors = Vec::new();
    // Every actor's reference to the array is kept, so that all of them are there when the store is asked.
    let mut passed_on = Vec::new();
    for (actor, (statistic, stage)) in stages.iter().enumerate() {
        let started = Instant::now();
        let (seen, _) = stage.pass(&array);
        seen.get()?;
        let first_pass_seconds = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let (seen, passed) = stage.pass(&array);
        let object_id = seen.get()?;
        let pass_seconds = started.elapsed().as_secs_f64();
        let Computed { pid, value, seconds: compute_seconds, private_bytes_grown } =
            stage.compute(&passed).get()?;
        let statistic = *statistic;
        actors.push(Hop {
            actor,
            pid,
            object_id,
            first_pass_seconds,
            pass_seconds,
            statistic,
            value,
            compute_seconds,
            private_bytes_grown,
        });
        // The next actor gets the array that this one gave back.
        passed_on.push(std::mem::replace(&mut array, passed));
        progress.inc(1);
    }
    drop(progress);

    let stats = session.client().stats()?;
    let store = StoreUse { objects: stats.objects(), object_bytes: stats.object_bytes() };
    drop(passed_on);
    let bytes = elements * ELEMENT_BYTES;
    Ok(Report { bytes, elements, object_id, producer: filled, actors, store })
}

/// How large the array is to be.
fn array_bytes(session: &Session, options: &Options) -> Outcome<u64> {
    let capacity = session.client().capacity_bytes();
    match options.bytes {
        Some(bytes) if bytes.0 > capacity => {
            let capacity = ByteSize(capacity);
            Err(format!("{bytes} do not fit into the store, which holds {capacity}: give fewer --bytes")
                .into())
        }
        Some(bytes) => Ok(bytes.0),
        None => Ok([1 << 30, capacity / 4, available_bytes().unwrap_or(u64::MAX) / 4]
            .into_iter()
            .fold(u64::MAX, u64::min)),
    }
}

/// The memory that the machine could give to programs now, where it says so.
fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

/// The meaning of the table's columns.
const LEGEND: &str = "
pass: the call, and the answer, of a method that takes the array and gives it back, and touches no element;
      during the first the actor maps the array's memory
compute: over all elements, as the actor timed it; it touches their memory for the first time
own memory: by how much that grew in the actor which it shares with no other process
";

impl Report {
    fn to_text(&self) -> String {
        let Self { bytes, elements, object_id, producer, actors, store } = self;
        let Filled { create_seconds, write_seconds } = producer;
        let object = |id: &Option<String>| id.clone().unwrap_or_else(|| "none: a copy".to_owned());
        let time = |seconds: f64| format!("{:.2?}", Duration::from_secs_f64(seconds));
        let rate = |seconds: f64| format!("{:.1} GB/s", *bytes as f64 / seconds / 1e9);
        let mut lines = vec![
            format!("array: {elements} numbers, {}, in object {}", ByteSize(*bytes), object(object_id)),
            format!("producer, memory for it from the store: {}", time(*create_seconds)),
            format!("producer, written in place, once: {} ({})", time(*write_seconds), rate(*write_seconds)),
            format!(
                "{:>5} {:>10} {:>10} {:>10} {:>10} {:>24} {:>10}  array's object",
                "actor", "first pass", "pass", "compute", "", "value", "own memory"
            ),
        ];
        lines.extend(actors.iter().map(|hop| {
            format!(
                "{:>5} {:>10} {:>10} {:>10} {:>10} {:>24} {:>10}  {}",
                hop.actor,
                time(hop.first_pass_seconds),
                time(hop.pass_seconds),
                time(hop.compute_seconds),
                rate(hop.compute_seconds),
                format!("{} = {}", hop.statistic.name(), hop.value),
                format!("+{}", ByteSize(hop.private_bytes_grown)),
                object(&hop.object_id),
            )
        }));
        lines.push(LEGEND.to_owned());
        let copied = self.copies().map_or_else(|copy| copy, |()| "none".to_owned());
        lines.push(format!(
            "copies: {copied} (all objects in the store together: {} bytes)",
            store.object_bytes
        ));
        lines.join("\n") + "\n"
    }

    /// Compares everything with its expected value.
    fn check(&self) -> Outcome {
        for hop in &self.actors {
            let (expected, name) = (hop.statistic.expected(self.elements), hop.statistic.name());
            if hop.value != expected {
                let message =
                    format!("check failed: actor {}: {name} = {}, {expected} expected", hop.actor, hop.value);
                return Err(message.into());
            }
        }
        self.copies().map_err(|copy| format!("check failed: {copy}").into())
    }

    /// The first sign of a copy of the array.
    fn copies(&self) -> Result<(), String> {
        if self.object_id.is_none() {
            return Err("the array does not lie in the store".to_owned());
        }
        for Hop { actor, object_id, private_bytes_grown, .. } in &self.actors {
            if *object_id != self.object_id {
                return Err(format!("actor {actor} got the array in another object, {object_id:?}"));
            }
            if *private_bytes_grown > SLACK_BYTES + self.bytes / 2 {
                return Err(format!("actor {actor}'s own memory grew by {private_bytes_grown} bytes"));
            }
        }
        let (bytes, in_store) = (self.bytes, self.store.object_bytes);
        if !(bytes..=bytes.saturating_add(SLACK_BYTES.min(bytes / 2 + 4096))).contains(&in_store) {
            return Err(format!("the store holds {in_store} bytes of objects, where the array has {bytes}"));
        }
        Ok(())
    }
}
