//! SIGKILL for the daemon: at random times under load, at every failpoint that it passes, and while the next daemon
//! takes everything up. SIGKILL also for clients while they hand over their state. Another daemon takes its place each
//! time.
//!
//! Held objects must be there afterwards, byte for byte. A client that dies at the same time as the daemon is an
//! exception: its objects that others held without having mapped them may be lost. A lost object is an error and never
//! wrong bytes.

use std::time::{Duration, Instant};

use mobula_shm::failpoints::{Failpoint, PassedBy};

use super::failpoints::{helpers, room_of};
use super::{CLIENTS, Figures, Progress, percentile_ms};
use crate::message::{Load, Room};
use crate::world::{Passer, World};
use crate::{Options, Violation};

/// Deaths between two comparisons of the accounts.
const ROUND_KILLS: u64 = 4;
/// How long a daemon lives at most after it has taken everything up.
const WAIT_US_MAX: u64 = 30_000;
/// How long a failpoint may take to be passed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Tries after which a failpoint counts as never reached.
const TRIES_MAX: u32 = 50;

pub(super) fn run(options: &Options, seed: u64, figures: &mut Figures) -> Result<(), Violation> {
    let mut world = World::start(seed, CLIENTS, Room::Ample)?;
    let mut progress = Progress::new();
    let mut away = Vec::new();
    for kill in 0..options.daemon_kills {
        std::thread::sleep(Duration::from_micros(world.random.below(WAIT_US_MAX)));
        let killed = Instant::now();
        world.kill_store()?;
        world.start_store(None)?;
        // The supervisor is a client like the others, and answered when all are taken up.
        world.client.stats()?;
        away.push(killed.elapsed());
        if (kill + 1) % ROUND_KILLS == 0 {
            audit(&mut world)?;
        }
        progress.show(|| format!("{kill} kills"));
    }
    audit(&mut world)?;
    let mut audits = world.end()?;
    let mut deaths = 0;
    let failpoints = Failpoint::ALL.iter().filter(|failpoint| failpoint.passed_by() != PassedBy::Client);
    for room in [Room::Ample, Room::Scarce] {
        let mut world = World::start(seed, CLIENTS, room)?;
        for failpoint in failpoints.clone().filter(|failpoint| room_of(**failpoint) == room) {
            for _ in 0..options.times {
                die_at(&mut world, *failpoint)?;
                deaths += 1;
                if deaths % ROUND_KILLS == 0 {
                    let after = |error: Violation| {
                        Violation(format!("{} (the last death was at {})", error.0, failpoint.name()))
                    };
                    audit(&mut world).map_err(after)?;
                }
                progress.show(|| format!("{deaths} deaths at failpoints"));
            }
        }
        audit(&mut world)?;
        audits += world.end()?;
    }
    figures.add("daemons killed at random times", options.daemon_kills);
    figures.add("until the next one served, p50", format!("{:.2} ms", percentile_ms(&mut away, 0.5)));
    figures.add("until the next one served, at most", format!("{:.2} ms", percentile_ms(&mut away, 1.0)));
    figures.add("failpoints, all reached", failpoints.count());
    figures.add("deaths at failpoints", deaths);
    figures.add("comparisons of the accounts, all agreeing", audits);
    Ok(())
}

fn audit(world: &mut World) -> Result<(), Violation> {
    world.check()?;
    world.audit()?;
    world.resume(Load::Everything);
    Ok(())
}

/// One death at a failpoint, whosever it is, and everything goes on.
fn die_at(world: &mut World, failpoint: Failpoint) -> Result<(), Violation> {
    for _ in 0..TRIES_MAX {
        let nth = 1 + world.random.below(3);
        let reached = match failpoint.passed_by() {
            PassedBy::Daemon => daemon_dies(world, failpoint, nth)?,
            PassedBy::NextDaemon => next_daemon_dies(world, failpoint, nth)?,
            PassedBy::Client | PassedBy::ReturningClient => client_dies(world, failpoint)?,
        };
        world.disarm();
        if reached {
            return Ok(());
        }
        audit(world)?;
    }
    Err(Violation(format!("failpoint {} is never reached", failpoint.name())))
}

/// The daemon dies at a failpoint, while clients die of other things, so that it has something to do.
fn daemon_dies(world: &mut World, failpoint: Failpoint, nth: u64) -> Result<bool, Violation> {
    world.arm_store(failpoint, nth);
    let (since, mut armed) = (Instant::now(), [false; CLIENTS]);
    while !world.store_is_dead()? {
        if since.elapsed() > PATIENCE {
            return Ok(false);
        }
        keep_dying(world, &mut armed)?;
        std::thread::sleep(Duration::from_micros(500));
    }
    world.disarm();
    world.kill_store()?;
    world.start_store(None)?;
    bury_the_dead(world)?;
    Ok(true)
}

/// The daemon is killed, and the next one dies while it takes everything up.
fn next_daemon_dies(world: &mut World, failpoint: Failpoint, nth: u64) -> Result<bool, Violation> {
    if failpoint == Failpoint::RestartDead {
        // There must be a dead owner of which other clients hold objects.
        let victim = world.random.below(CLIENTS as u64) as usize;
        world.kill(victim)?;
    }
    world.kill_store()?;
    world.start_store(Some((failpoint, nth)))?;
    let since = Instant::now();
    while !world.store_is_dead()? {
        if since.elapsed() > PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    world.kill_store()?;
    world.start_store(None)?;
    Ok(true)
}

/// The daemon is killed, and a client dies while it hands over what it has.
fn client_dies(world: &mut World, failpoint: Failpoint) -> Result<bool, Violation> {
    let victim = world.random.below(CLIENTS as u64) as usize;
    world.arm(Passer::Itself, failpoint, 1, victim);
    world.kill_store()?;
    world.start_store(None)?;
    let since = Instant::now();
    while world.clients[victim].process.ended()?.is_none() {
        if since.elapsed() > PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    bury_the_dead(world)?;
    Ok(true)
}

/// Puts others in the place of the dead, and has the living die soon.
fn keep_dying(world: &mut World, armed: &mut [bool; CLIENTS]) -> Result<(), Violation> {
    for (at, armed) in armed.iter_mut().enumerate() {
        if world.clients[at].process.ended()?.is_some() {
            world.bury(at)?;
            *armed = false;
        }
        if !*armed {
            let helpers = helpers(world.room());
            let helper = helpers[world.random.below(helpers.len() as u64) as usize];
            let nth = 1 + world.random.below(12);
            world.arm(Passer::Itself, helper, nth, at);
            *armed = true;
        }
    }
    Ok(())
}

fn bury_the_dead(world: &mut World) -> Result<(), Violation> {
    for at in 0..CLIENTS {
        if world.clients[at].process.ended()?.is_some() {
            world.bury(at)?;
        }
    }
    Ok(())
}
