//! Mixed load for a long time: memory, descriptors and mappings of every process return to where they began.
//!
//! At quiet points, when everyone has let go of everything, the processes are looked at: those of the clients that
//! stay, and the daemon's. Another client comes and goes in between, in order or killed.

use std::time::{Duration, Instant};

use super::{CLIENTS, Figures, Progress};
use crate::message::{Load, Room};
use crate::process::PATIENCE;
use crate::world::World;
use crate::{Options, Violation, procfs};

/// Looks at the processes. So many that those who come and go have had all slots of the store before it counts: a
/// client keeps a little memory for each slot to which it was ever attached.
const SAMPLES: u32 = 600;
/// Part of the time that does not count: caches fill, and everyone has to meet everyone.
const WARM_UP: f64 = 0.2;
/// Bytes by which memory may grow.
const SLOPE_MAX_BYTES: f64 = (1 << 20) as f64;
const SLOPE_SECONDS: f64 = 600.0;
/// A shorter run says nothing about the slope: one page more or less, extrapolated to ten minutes, is above the limit.
const SLOPE_RUN_MIN: Duration = Duration::from_secs(240);

/// The resources of a process at a quiet point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Things {
    descriptors: usize,
    mappings: usize,
}

/// One process over time.
struct Series {
    name: String,
    pid: u32,
    base: Option<Things>,
    private: Vec<(f64, f64)>,
}

pub(super) fn run(options: &Options, seed: u64, figures: &mut Figures) -> Result<(), Violation> {
    let mut world = World::start(seed, CLIENTS, Room::Ample)?;
    let (began, mut progress) = (Instant::now(), Progress::new());
    let mut processes = vec![Series::new("daemon", world.store.pid)];
    for at in 0..CLIENTS {
        processes.push(Series::new(&format!("client {at}"), world.clients[at].process.pid));
    }
    let (mut shared, mut samples, mut visitors) = (Vec::new(), 0, 0);
    while began.elapsed() < options.duration() {
        world.add()?;
        world.resume(Load::Everything);
        std::thread::sleep((options.duration() / SAMPLES).max(Duration::from_millis(100)));
        world.take_away(visitors % 2 == 0)?;
        visitors += 1;
        world.check()?;
        world.audit_empty()?;
        let counts = began.elapsed() > options.duration().mul_f64(WARM_UP);
        if counts {
            let now = began.elapsed().as_secs_f64();
            samples += 1;
            shared.push((now, procfs::memory_bytes(world.store.pid) as f64));
            for process in &mut processes {
                process.private.push((now, procfs::private_bytes(process.pid) as f64));
                process.compare()?;
            }
        }
        let elapsed = began.elapsed().as_secs();
        progress.show(|| format!("{elapsed} s, {samples} quiet points"));
    }
    let audits = world.end()?;
    figures.add("quiet points that count", samples);
    figures.add("clients that came and went", visitors);
    figures.add("comparisons of the accounts, all agreeing", audits);
    let long_enough = options.duration() >= SLOPE_RUN_MIN;
    let mut worst: Option<String> = None;
    let series = processes.iter().map(|process| (format!("{}, private", process.name), &process.private));
    for (name, points) in series.chain([("all shared memory".to_owned(), &shared)]) {
        let slope = slope(points) * SLOPE_SECONDS;
        let last = points.last().map_or(0.0, |(_, bytes)| *bytes);
        figures.add(
            format!("{name}: at the end, and slope"),
            format!("{:.0} KiB, {:+.0} KiB in 10 min", last / 1024.0, slope / 1024.0),
        );
        if long_enough && slope > SLOPE_MAX_BYTES {
            worst = Some(format!("{name} grows by {:.0} KiB in 10 min", slope / 1024.0));
        }
    }
    for process in &processes {
        if let Some(base) = process.base {
            figures.add(
                format!("{}: at every quiet point", process.name),
                format!("{} descriptors, {} mappings", base.descriptors, base.mappings),
            );
        }
    }
    if !long_enough {
        figures.add("slopes", format!("not judged in less than {} s", SLOPE_RUN_MIN.as_secs()));
    }
    worst.map_or(Ok(()), |what| Err(Violation(what)))
}

impl Series {
    fn new(name: &str, pid: u32) -> Self {
        Self { name: name.to_owned(), pid, base: None, private: Vec::new() }
    }

    /// The resources of a process must be those of the first quiet point, within a moment.
    fn compare(&mut self) -> Result<(), Violation> {
        let began = Instant::now();
        loop {
            let descriptors = procfs::descriptors(self.pid);
            let things = Things { descriptors, mappings: procfs::mappings(&self.pid.to_string()).len() };
            let base = *self.base.get_or_insert(things);
            if things == base {
                return Ok(());
            }
            if began.elapsed() > PATIENCE / 4 {
                return Err(Violation(format!("{} had {base:?}, and has {things:?}", self.name)));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The slope of the line that has the least squares of distances from the points, in y for each x.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line_through_the_points() {
        let line: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 3.0 + 2.0 * f64::from(x))).collect();
        assert!((slope(&line) - 2.0).abs() < 1e-9);
        let zigzag: Vec<(f64, f64)> =
            (0..10).map(|x| (f64::from(x), f64::from([1, 2, 2, 1, 1][x as usize % 5]))).collect();
        assert!(slope(&zigzag).abs() < 0.1);
        assert_eq!(slope(&[]), 0.0);
    }
}
