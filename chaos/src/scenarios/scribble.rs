//! A client goes mad and fills its own writable pages with random words, while others work: they may lose what it
//! owned, and nothing else. Then it is killed, and everything is as it should be.

use std::time::{Duration, Instant};

use super::{CLIENTS, Figures, Progress};
use crate::message::{Command, Load, Report, Room};
use crate::scribbler::KINDS;
use crate::world::World;
use crate::{Options, Violation};

/// How long clients work before one goes mad.
const WARM_UP_MS: u64 = 150;
/// How long it scribbles at most.
const SCRIBBLE_MS_MAX: u64 = 300;
/// Rounds in which everything must have been scribbled into.
const ROUNDS_MIN: u64 = 5;

pub(super) fn run(options: &Options, seed: u64, figures: &mut Figures) -> Result<(), Violation> {
    let mut world = World::start(seed, CLIENTS, Room::Ample)?;
    let (began, mut progress) = (Instant::now(), Progress::new());
    let (mut rounds, mut words, mut crashed, mut work) = (0u64, [0; KINDS.len()], 0u64, 0);
    while began.elapsed() < options.duration() {
        let victim = world.random.below(CLIENTS as u64) as usize;
        let Some(owner) = world.clients[victim].owner()? else {
            return Err(Violation("a client does not connect".to_owned()));
        };
        std::thread::sleep(Duration::from_millis(world.random.below(WARM_UP_MS)));
        // All clients know before it begins, so that none trusts its objects.
        world.suspect(owner)?;
        let milliseconds = 1 + world.random.below(SCRIBBLE_MS_MAX);
        world.clients[victim].may_die = true;
        world.clients[victim].process.send(&Command::Scribble { milliseconds });
        // It may well harm itself.
        loop {
            match world.clients[victim].process.report()? {
                Some(Report::Scribbled { words: written }) => {
                    words.iter_mut().zip(written).for_each(|(words, more)| *words += more);
                    break;
                }
                Some(_) => {}
                None => {
                    crashed += 1;
                    break;
                }
            }
        }
        for at in (0..CLIENTS).filter(|at| *at != victim) {
            let Some(done) = world.work(at)? else {
                return Err(Violation(format!("client {at} has ended while another scribbled")));
            };
            work += done.operations;
        }
        world.check()?;
        world.clients[victim].process.signal(nix::sys::signal::Signal::SIGKILL);
        world.bury(victim)?;
        world.check()?;
        world.audit()?;
        world.audit_empty()?;
        world.resume(Load::Everything);
        rounds += 1;
        progress.show(|| format!("{rounds} scribblers, {} words", words.iter().sum::<u64>()));
    }
    let audits = world.end()?;
    figures.add("scribblers", rounds);
    for (kind, words) in KINDS.iter().zip(words) {
        figures.add(format!("random words written into {kind}"), words);
        if words == 0 && rounds >= ROUNDS_MIN {
            return Err(Violation(format!("no client has scribbled into {kind}")));
        }
    }
    figures.add("scribblers that harmed themselves", crashed);
    figures.add("operations of the others meanwhile", work);
    figures.add("comparisons of the accounts, all agreeing", audits);
    Ok(())
}
