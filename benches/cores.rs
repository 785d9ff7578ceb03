//! Many tasks that compute, on all cores.
//!
//! `cargo bench -p mobula-benches --bench cores`; with `--test` it runs once and briefly. The same loops of arithmetic
//! run as tasks of two workers and as closures of two threads of one process (by rayon), in turn. The last columns do
//! not depend on what else the machine does: context switches for 1,000 tasks, and processor time for each task beyond
//! the loop itself. `mobula-compare` has the rates of workers and of calling threads.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;

const CORES: usize = 2;

/// A loop that no compiler shortens. Its length is a count, not a time: a loop that is interrupted takes longer.
fn spin(rounds: u64) -> u64 {
    (0..rounds).fold(rounds, |x, _| black_box(x.wrapping_mul(0x5851_f42d_4c95_7f2d).rotate_left(23)))
}

#[mobula::remote]
fn job(rounds: u64) -> u64 {
    spin(rounds)
}

#[mobula::remote]
fn pid(milliseconds: u64) -> u32 {
    std::thread::sleep(Duration::from_millis(milliseconds));
    std::process::id()
}

fn main() -> mobula::Result<()> {
    let is_test = std::env::args().any(|word| word == "--test");
    jobs(&if is_test { Effort { rounds: 1, part: 0.02 } } else { Effort { rounds: 7, part: 1.0 } })
}

/// How much is measured.
struct Effort {
    rounds: usize,
    /// The part of the usual number of calls.
    part: f64,
}

impl Effort {
    fn of(&self, count: usize) -> usize {
        ((count as f64 * self.part) as usize).max(8)
    }
}

fn session(workers: usize) -> mobula::Session {
    mobula::Builder::new().workers(workers).capacity_bytes(256 << 20).init().expect("a session starts")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(values: &[f64]) -> String {
    let (least, most) = values.iter().fold((f64::MAX, 0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
    format!("[{least:.2}–{most:.2}]")
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// How the results of many tasks are waited for.
#[derive(Clone, Copy)]
enum Wait {
    /// One `get` of all.
    All,
    /// One `get` after the other.
    Each,
    /// `wait` for a few, again and again.
    Some(usize),
}

fn run_tasks(count: usize, rounds: u64, wait: Wait) {
    let mut results: Vec<_> = (0..count).map(|_| job::remote(rounds)).collect();
    let expected = spin(rounds);
    match wait {
        Wait::All => assert!(mobula::get(&results).expect("they run").iter().all(|x| *x == expected)),
        Wait::Each => results.iter().for_each(|x| assert_eq!(x.get().expect("it runs"), expected)),
        Wait::Some(some) => {
            while !results.is_empty() {
                let some = some.min(results.len());
                let (ready, rest) = mobula::wait(results, some, None).expect("they run");
                assert!(ready.iter().all(|x| x.get().expect("it ran") == expected));
                results = rest;
            }
        }
    }
}

fn jobs(effort: &Effort) -> mobula::Result<()> {
    let _session = session(CORES);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(CORES).build().expect("threads start");
    // The best of some: nothing else ran.
    let probe = 1_000_000;
    let nanos_a_round =
        (0..20).map(|_| seconds(|| _ = black_box(spin(probe)))).fold(f64::MAX, f64::min) / probe as f64 * 1e9;
    let pids: Vec<_> = (0..CORES).map(|_| pid::remote(200)).collect();
    let mut processes = mobula::get(&pids)?;
    processes.sort_unstable();
    processes.dedup();
    processes.insert(0, std::process::id());
    println!(
        "{:>8} {:>6} {:>7} {:>14} {:>10} {:>24} {:>28}",
        "task", "wait", "of one", "", "processors", "switches/1000 (driver)", "µs of processors (driver)"
    );
    let rows = [
        (10, Wait::All, 20_000),
        (10, Wait::Each, 20_000),
        (10, Wait::Some(1000), 20_000),
        (30, Wait::All, 10_000),
        (100, Wait::All, 4_000),
        (100, Wait::Each, 4_000),
        (1000, Wait::All, 500),
        (5000, Wait::All, 100),
        (20_000, Wait::All, 30),
    ];
    for (micros, wait, count) in rows {
        let count = effort.of(count);
        let rounds = (f64::from(micros) * 1e3 / nanos_a_round) as u64;
        run_tasks(count.min(1000), rounds, wait);
        let (mut ratios, mut switches, mut switches_driver) = (Vec::new(), Vec::new(), Vec::new());
        let (mut processors, mut beyond, mut beyond_driver) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            let own = Used::of(processes[0]);
            let one = seconds(|| {
                pool.install(|| {
                    (0..count).into_par_iter().with_max_len(1).for_each(|_| _ = black_box(spin(rounds)))
                });
            });
            let own = Used::of(processes[0]).since(&own);
            let before: Vec<Used> = processes.iter().map(|pid| Used::of(*pid)).collect();
            ratios.push(one / seconds(|| run_tasks(count, rounds, wait)));
            let used: Vec<Used> =
                processes.iter().zip(&before).map(|(pid, before)| Used::of(*pid).since(before)).collect();
            let all = |of: fn(&Used) -> f64| used.iter().map(of).sum::<f64>() / count as f64;
            let drivers = |of: fn(&Used) -> f64| of(&used[0]) / count as f64;
            switches.push(all(|used| used.switches) * 1e3);
            switches_driver.push(drivers(|used| used.switches) * 1e3);
            processors.push(own.micros / used.iter().map(|used| used.micros).sum::<f64>());
            beyond.push(all(|used| used.micros));
            beyond_driver.push(drivers(|used| used.micros));
        }
        let wait = match wait {
            Wait::All => "all".to_owned(),
            Wait::Each => "each".to_owned(),
            Wait::Some(some) => some.to_string(),
        };
        println!(
            "{micros:>5} µs {wait:>6} {:>7.2} {:>14} {:>10.2} {:>12.0} ({:>5.0}) {:>16.2} ({:.2})",
            median(ratios.clone()),
            spread(&ratios),
            median(processors),
            median(switches),
            median(switches_driver),
            median(beyond),
            median(beyond_driver)
        );
    }
    Ok(())
}

/// The use of a process, all its threads together. Switches are those of threads that had nothing to do.
#[derive(Default)]
struct Used {
    switches: f64,
    micros: f64,
}

impl Used {
    fn of(pid: u32) -> Self {
        let mut used = Self::default();
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let read = |name| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let number = |text: &str| text.trim().parse::<f64>().unwrap_or_default();
            used.switches += read("status")
                .lines()
                .filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
                .map(number)
                .sum::<f64>();
            // The first number of `schedstat` is the time on a processor, in nanoseconds.
            used.micros += read("schedstat").split(' ').next().map_or(0.0, number) / 1e3;
        }
        used
    }

    fn since(&self, before: &Self) -> Self {
        Self { switches: self.switches - before.switches, micros: self.micros - before.micros }
    }
}
