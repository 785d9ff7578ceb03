//! SIGKILL at every failpoint: in the middle of an operation, between the stores that it consists of.
//!
//! At a failpoint that clients pass, the client dies that passes it. At one that the daemon passes, a client dies while
//! the daemon is at work there, for it or for another.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use mobula_shm::failpoints::{Failpoint, PassedBy};

use super::{CLIENTS, Figures, Progress};
use crate::message::{Load, Room};
use crate::world::{Passer, World};
use crate::{Options, Violation};

/// Deaths between two comparisons of the accounts.
const ROUND_DEATHS: u64 = 8;
/// How long a failpoint may take to be passed so often, before it is tried with the first passing of another process.
const PATIENCE: Duration = Duration::from_millis(700);
/// Tries after which a failpoint counts as never reached.
const TRIES_MAX: u32 = 50;
/// The first parts of the names of failpoints that are passed only where memory is scarce.
const SCARCE: [&str; 6] = ["hole.", "compact.", "spill.", "restore.", "orphan-restore.", "takeover.spilled"];

/// Where a failpoint is passed.
pub(super) fn room_of(failpoint: Failpoint) -> Room {
    if SCARCE.iter().any(|name| failpoint.name().starts_with(name)) { Room::Scarce } else { Room::Ample }
}

/// The failpoints at which other clients die while the daemon's failpoints are waited for: they give the daemon work.
pub(super) fn helpers(room: Room) -> &'static [Failpoint] {
    match room {
        Room::Ample => &[
            Failpoint::FreeLooked,
            Failpoint::PromiseStored,
            Failpoint::SealStored,
            Failpoint::AttachGranted,
        ],
        Room::Scarce => &[Failpoint::SpillNoted, Failpoint::SpillStored],
    }
}

/// A death that is still to come.
#[derive(Debug, Clone, Copy)]
struct Job {
    failpoint: Failpoint,
    nth: u64,
    tries: u32,
    since: Instant,
}

impl Job {
    /// Returns a job that was not reached in time, for another try at the first passing.
    fn again(self) -> Result<Self, Violation> {
        if self.tries == TRIES_MAX {
            return Err(Violation(format!("failpoint {} is never reached", self.failpoint.name())));
        }
        Ok(Self { nth: 1, tries: self.tries + 1, ..self })
    }
}

/// The deaths so far.
struct Tally {
    deaths: BTreeMap<&'static str, u64>,
    /// Since the accounts were compared.
    round: u64,
    all: u64,
}

impl Tally {
    fn count(&mut self, failpoint: Failpoint) {
        *self.deaths.entry(failpoint.name()).or_default() += 1;
        self.round += 1;
        self.all += 1;
    }
}

pub(super) fn run(options: &Options, seed: u64, figures: &mut Figures) -> Result<(), Violation> {
    let mut tally = Tally { deaths: BTreeMap::new(), round: 0, all: 0 };
    let mut progress = Progress::new();
    let mut audits = 0;
    for room in [Room::Ample, Room::Scarce] {
        let mut world = World::start(seed, CLIENTS, room)?;
        let clients = jobs(&mut world, room, PassedBy::Client, options.times);
        die_in_clients(&mut world, clients, &mut tally, &mut progress)?;
        let daemon = jobs(&mut world, room, PassedBy::Daemon, options.times);
        die_beside_daemon(&mut world, daemon, &mut tally, &mut progress)?;
        audits += world.end()?;
    }
    let failpoints = || Failpoint::ALL.iter().filter(|failpoint| is_passed_anyway(failpoint.passed_by()));
    for failpoint in failpoints() {
        if tally.deaths.get(failpoint.name()).copied().unwrap_or(0) < options.times {
            return Err(Violation(format!("failpoint {} was not reached often enough", failpoint.name())));
        }
    }
    figures.add("failpoints, all reached", failpoints().count());
    figures.add("deaths", tally.all);
    let least = tally.deaths.iter().min_by_key(|(_, deaths)| **deaths);
    figures.add("deaths at a failpoint, at least", least.map_or(0, |(_, deaths)| *deaths));
    figures.add("comparisons of the accounts, all agreeing", audits);
    Ok(())
}

/// Whether it needs no daemon that is killed: that is another scenario.
fn is_passed_anyway(party: PassedBy) -> bool {
    matches!(party, PassedBy::Client | PassedBy::Daemon)
}

/// Every failpoint of a party's so often, in any order: those that are passed where there is so much room.
fn jobs(world: &mut World, room: Room, party: PassedBy, times: u64) -> VecDeque<Job> {
    let failpoints = Failpoint::ALL
        .iter()
        .filter(|failpoint| failpoint.passed_by() == party && room_of(**failpoint) == room);
    let mut jobs: Vec<Job> = failpoints
        .flat_map(|failpoint| (0..times).map(|_| *failpoint))
        .map(|failpoint| Job { failpoint, nth: nth(world, party), tries: 0, since: Instant::now() })
        .collect();
    for at in (1..jobs.len()).rev() {
        jobs.swap(at, world.random.below(at as u64 + 1) as usize);
    }
    jobs.into()
}

/// The number of the passing at which a process dies. Low numbers are likelier than high ones. Failpoints that follow
/// from a death are seldom passed, so their numbers stay low.
fn nth(world: &mut World, party: PassedBy) -> u64 {
    let max = match party {
        PassedBy::Client => 1 + world.random.below(12),
        PassedBy::Daemon | PassedBy::NextDaemon | PassedBy::ReturningClient => 3,
    };
    1 + world.random.below(max)
}

/// Every client has a failpoint to die at, all the time.
fn die_in_clients(
    world: &mut World,
    mut jobs: VecDeque<Job>,
    tally: &mut Tally,
    progress: &mut Progress,
) -> Result<(), Violation> {
    let mut armed: [Option<Job>; CLIENTS] = [None; CLIENTS];
    while !jobs.is_empty() || armed.iter().any(Option::is_some) {
        for (at, armed) in armed.iter_mut().enumerate() {
            match *armed {
                Some(job) if world.clients[at].process.ended()?.is_some() => {
                    world.bury(at)?;
                    tally.count(job.failpoint);
                    *armed = None;
                }
                Some(job) if job.since.elapsed() > PATIENCE => {
                    // A client does not do again what lasts, such as growing its table.
                    jobs.push_back(job.again()?);
                    world.kill(at)?;
                    *armed = None;
                }
                Some(_) => {}
                None => {
                    if let Some(mut job) = jobs.pop_front() {
                        if job.failpoint == Failpoint::GrowGranted {
                            // A table grows while its client is young.
                            world.kill(at)?;
                            job.nth = 1;
                        }
                        world.arm(Passer::Itself, job.failpoint, job.nth, at);
                        *armed = Some(Job { since: Instant::now(), ..job });
                    }
                }
            }
        }
        world.check()?;
        if tally.round >= ROUND_DEATHS {
            // Comparing the accounts disarms all clients. A client that has died by then has died at its failpoint.
            world.disarm();
            for (at, armed) in armed.iter_mut().enumerate() {
                let Some(job) = armed.take() else { continue };
                if world.clients[at].process.ended()?.is_some() {
                    world.bury(at)?;
                    tally.count(job.failpoint);
                } else {
                    jobs.push_back(job);
                }
            }
            world.audit()?;
            world.resume(Load::Everything);
            tally.round = 0;
        }
        progress.show(|| format!("{} deaths, {} to come", tally.all, jobs.len()));
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// One client dies when the daemon passes a failpoint, while others die of other things.
fn die_beside_daemon(
    world: &mut World,
    mut jobs: VecDeque<Job>,
    tally: &mut Tally,
    progress: &mut Progress,
) -> Result<(), Violation> {
    // Where memory is scarce, most must live long enough to fill it.
    let dying_at_a_time = match world.room() {
        Room::Ample => CLIENTS - 1,
        Room::Scarce => 1,
    };
    let mut armed = [false; CLIENTS];
    while let Some(job) = jobs.pop_front() {
        let victim = world.random.below(CLIENTS as u64) as usize;
        world.arm(Passer::Daemon, job.failpoint, job.nth, victim);
        let since = Instant::now();
        let mut reached = false;
        while !reached && since.elapsed() < PATIENCE {
            for at in (0..CLIENTS).filter(|at| *at != victim) {
                if world.clients[at].process.ended()?.is_some() {
                    world.bury(at)?;
                    armed[at] = false;
                }
            }
            for at in (1..=dying_at_a_time).map(|distance| (victim + distance) % CLIENTS) {
                if !std::mem::replace(&mut armed[at], true) {
                    let helpers = helpers(world.room());
                    let helper = helpers[world.random.below(helpers.len() as u64) as usize];
                    let nth = nth(world, PassedBy::Client);
                    world.arm(Passer::Itself, helper, nth, at);
                }
            }
            reached = world.clients[victim].process.ended()?.is_some();
            world.check()?;
            std::thread::sleep(Duration::from_micros(500));
        }
        if reached {
            tally.count(job.failpoint);
            world.bury(victim)?;
            armed[victim] = false;
        } else {
            jobs.push_back(job.again()?);
        }
        if tally.round >= ROUND_DEATHS || !reached {
            // The comparison disarms all clients.
            world.audit()?;
            armed = [false; CLIENTS];
            world.resume(Load::Everything);
            tally.round = 0;
        }
        progress.show(|| {
            let (name, all, left) = (job.failpoint.name(), tally.all, jobs.len());
            format!("{all} deaths, {left} to come beside the daemon, the last at {name}")
        });
    }
    Ok(())
}
