//! SIGKILL at random times, also while a client is still connecting. Another client takes the place of each.

use std::time::{Duration, Instant};

use super::{CLIENTS, Figures, Progress, percentile_ms};
use crate::message::{Load, Room};
use crate::world::World;
use crate::{Options, Violation};

/// Kills between two comparisons of the accounts.
const ROUND_KILLS: u64 = 8;
/// How long a client lives at most after the last one was killed.
const WAIT_US_MAX: u64 = 12_000;
/// The wanted number of kills, and the number below which the run fails: the machine may be busy.
const RECLAIM_MS_GOAL: f64 = 50.0;
const RECLAIM_MS_MAX: f64 = 1000.0;

pub(super) fn run(options: &Options, seed: u64, figures: &mut Figures) -> Result<(), Violation> {
    let is_over = |kills: u64, taken: Duration| match options.kills {
        Some(wanted) => kills >= wanted,
        None => taken >= options.duration(),
    };
    kill(seed, Room::Ample, figures, is_over)
}

/// Runs the scenario in a store that has too little memory, and spills what is held.
pub(super) fn run_spilling(options: &Options, seed: u64, figures: &mut Figures) -> Result<(), Violation> {
    kill(seed, Room::Scarce, figures, |_, taken| taken >= options.duration())
}

fn kill(
    seed: u64,
    room: Room,
    figures: &mut Figures,
    is_over: impl Fn(u64, Duration) -> bool,
) -> Result<(), Violation> {
    let mut world = World::start(seed, CLIENTS, room)?;
    let (began, mut progress) = (Instant::now(), Progress::new());
    let (mut kills, mut reclaimed, mut work) = (0, Vec::new(), 0);
    while !is_over(kills, began.elapsed()) {
        for _ in 0..ROUND_KILLS {
            std::thread::sleep(Duration::from_micros(world.random.below(WAIT_US_MAX)));
            let victim = world.random.below(CLIENTS as u64) as usize;
            reclaimed.push(world.kill(victim)?);
            kills += 1;
        }
        world.check()?;
        world.audit()?;
        for at in 0..CLIENTS {
            work += world.work(at)?.map_or(0, |work| work.operations);
        }
        world.resume(Load::Everything);
        progress.show(|| format!("{kills} kills"));
    }
    let spilled_bytes = world.spilled_bytes;
    let audits = world.end()?;
    let p99 = percentile_ms(&mut reclaimed, 0.99);
    figures.add("kills", kills);
    figures.add("comparisons of the accounts, all agreeing", audits);
    if room == Room::Scarce {
        figures.add("in files at a quiet point, at most", format!("{} MiB", spilled_bytes >> 20));
        if spilled_bytes == 0 {
            return Err(Violation("nothing was spilled".to_owned()));
        }
    }
    figures.add("operations of those that lived on", work);
    figures.add("memory reclaimed, p50", format!("{:.2} ms", percentile_ms(&mut reclaimed, 0.5)));
    figures.add("memory reclaimed, p99", format!("{p99:.2} ms (goal: {RECLAIM_MS_GOAL} ms)"));
    figures.add("memory reclaimed, at most", format!("{:.2} ms", percentile_ms(&mut reclaimed, 1.0)));
    if p99 > RECLAIM_MS_MAX {
        return Err(Violation(format!("memory is reclaimed within {p99:.2} ms (p99), not {RECLAIM_MS_MAX}")));
    }
    Ok(())
}
