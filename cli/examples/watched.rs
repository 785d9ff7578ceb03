//! An example session for the commands: it loads, fits and scores in rounds, and two actors keep the results, until its
//! standard input ends. It prints the path of its store's socket.
//!
//! It records all events, whatever the environment says. `mobula view` and its test show it:
//!
//! ```sh
//! cargo run -p mobula-cli --example watched &
//! cargo run -p mobula-cli -- view
//! ```

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobula::prelude::*;
use mobula::{ActorHandle, ActorOptions, TaskOptions};

/// The results of the last rounds are kept, so that the store has objects.
const KEPT: usize = 12;

static IS_OVER: AtomicBool = AtomicBool::new(false);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: there is no other thread yet.
    unsafe { std::env::set_var("MOBULA_EVENTS", "all") };
    let session = mobula::Builder::new().workers(3).capacity_bytes(256 << 20).init()?;
    println!("{}", session.socket().display());
    std::io::stdout().flush()?;
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        IS_OVER.store(true, Ordering::Relaxed);
    });
    let scores = Scores::options(ActorOptions::new().name("scores")).remote();
    let history = History::options(ActorOptions::new().name("history")).remote(scores.clone());
    let mut kept: VecDeque<ObjectRef<Vec<u8>>> = VecDeque::new();
    let mut round = 0;
    while !IS_OVER.load(Ordering::Relaxed) {
        mobula::mark("round", i64::from(round));
        let shards: Vec<ObjectRef<Vec<u8>>> = (0..6).map(|shard| load_shard::remote(round, shard)).collect();
        let fits: Vec<ObjectRef<f64>> = shards.iter().map(fit::remote).collect();
        let adds: Vec<ObjectRef<u64>> = fits.iter().map(|fitted| scores.add(fitted)).collect();
        mobula::get(&adds)?;
        history.keep().get()?;
        // Some of these fail.
        let checked = check::options(TaskOptions::new().max_retries(0)).remote(round);
        let _ = checked.get();
        kept.extend(shards);
        while kept.len() > KEPT {
            kept.pop_front();
        }
        round += 1;
    }
    Ok(())
}

/// Computes for a time.
fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[mobula::remote]
fn load_shard(round: u32, shard: u32) -> Vec<u8> {
    compute(Duration::from_millis(2));
    vec![(round + shard) as u8; (1 + shard as usize % 3) << 20]
}

#[mobula::remote]
fn fit(shard: Vec<u8>) -> f64 {
    let loss = loss::remote(shard.len() as u64 + u64::from(shard[0]));
    compute(Duration::from_millis(4));
    // A call that waits for another one: its worker releases its CPU meanwhile.
    loss.get().unwrap_or(f64::NAN)
}

#[mobula::remote]
fn loss(seed: u64) -> f64 {
    compute(Duration::from_millis(1 + seed % 3));
    1.0 / (1.0 + seed as f64)
}

#[mobula::remote]
fn check(round: u32) -> Result<(), String> {
    println!("round {round} is checked");
    if round.is_multiple_of(3) { Err(format!("round {round} does not converge")) } else { Ok(()) }
}

struct Scores {
    count: u64,
    sum: f64,
}

#[mobula::remote]
impl Scores {
    fn new() -> Self {
        Self { count: 0, sum: 0.0 }
    }

    fn add(&mut self, score: f64) -> u64 {
        compute(Duration::from_millis(1));
        self.count += 1;
        self.sum += score;
        self.count
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

struct History {
    scores: ActorHandle<Scores>,
    means: VecDeque<f64>,
}

#[mobula::remote]
impl History {
    fn new(scores: ActorHandle<Scores>) -> Self {
        Self { scores, means: VecDeque::new() }
    }

    fn keep(&mut self) -> Result<(), String> {
        let mean = self.scores.mean().get().map_err(|error| error.to_string())?;
        self.means.push_back(mean);
        self.means.truncate(100);
        Ok(())
    }
}
