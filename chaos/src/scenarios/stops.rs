//! SIGSTOP of any one process for a while: everyone else goes on, and afterwards all is right.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{CLIENTS, Figures, Progress};
use crate::message::{Load, Room, Work};
use crate::world::World;
use crate::{Options, Violation};

/// How long clients work before a process is stopped.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long an operation may take that finds an object which the stopped one was just about to free: it waits a second
/// for it, and then gives up.
const STALL_MAX: Duration = Duration::from_secs(10);

pub(super) fn run(options: &Options, seed: u64, figures: &mut Figures) -> Result<(), Violation> {
    let stop = Duration::from_millis(options.stop_ms);
    let mut world = World::start(seed, CLIENTS, Room::Ample)?;
    let mut progress = Progress::new();
    let (mut least, mut longest, mut stalled) = (u64::MAX, 0, 0);
    let mut least_local = u64::MAX;
    // One client after the other, and then the daemon.
    for stopped in 0..=CLIENTS {
        world.resume(Load::Everything);
        std::thread::sleep(WARM_UP);
        let is_daemon = stopped == CLIENTS;
        if is_daemon {
            // Only work that does not need the daemon has to go on.
            world.resume(Load::Local);
            std::thread::sleep(WARM_UP);
        }
        for at in 0..CLIENTS {
            world.work(at)?;
        }
        world.stop(stopped, Signal::SIGSTOP);
        progress.show(|| format!("process {stopped} of {CLIENTS} is stopped"));
        std::thread::sleep(stop);
        for at in (0..CLIENTS).filter(|at| *at != stopped) {
            let work = going_on(&mut world, at)?;
            longest = longest.max(work.longest_us);
            stalled += work.stalled;
            let of = if is_daemon { &mut least_local } else { &mut least };
            *of = work.operations.min(*of);
        }
        world.stop(stopped, Signal::SIGCONT);
        world.check()?;
        world.audit()?;
    }
    world.resume(Load::Everything);
    std::thread::sleep(WARM_UP);
    let audits = world.end()?;
    figures.add("processes stopped, one after the other", CLIENTS + 1);
    figures.add("each for", format!("{} ms", options.stop_ms));
    figures.add("operations of another client meanwhile, at least", least);
    figures.add("local operations without the daemon, at least", least_local);
    figures.add("longest operation of another", format!("{:.1} ms", longest as f64 / 1e3));
    figures.add("times that who stood was waited for, and left", stalled);
    figures.add("comparisons of the accounts, all agreeing", audits);
    Ok(())
}

/// The work of a client while another process is stopped.
fn going_on(world: &mut World, at: usize) -> Result<Work, Violation> {
    let since = Instant::now();
    loop {
        let Some(work) = world.work(at)? else {
            return Err(Violation(format!("client {at} has ended while another process was stopped")));
        };
        if work.operations > 0 {
            return Ok(work);
        }
        if since.elapsed() > STALL_MAX {
            return Err(Violation(format!("client {at} stands still while another process is stopped")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
