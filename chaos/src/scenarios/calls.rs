//! SIGKILL of workers at random times, while threads of a driver make calls that are cancelled, retried, detached,
//! limited in time, read in part or not at all. Each result is the right value or one of the errors that are allowed
//! for its options. After each round the session serves, and neither resources nor objects nor processes are left over.
//!
//! In one of four rounds, memory is short at times, as a [pretended machine](machine) says: then the session ends
//! workers, too.
//!
//! A round is one session with its own seed, the scenario's plus the number of the round: a violation names it.

mod driver;
mod machine;
mod tasks;

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mobula::{Error, ExitReason, Failure, Session, TaskOptions, UNLIMITED};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::driver::{Counts, Driver};
use self::machine::Machine;
use super::{Figures, Progress};
use crate::content::Random;
use crate::{Options, Violation, procfs};

const WORKERS: usize = 3;
const DRIVERS: u64 = 3;
/// How long workers live at most before another one is killed.
const WAIT_MS_MAX: u64 = 12;
/// How long memory is short at most. The session asks which calls run before it ends a worker.
const SHORT_MS_MAX: u64 = 1000;
/// How often the session looks whether memory is short.
const MEMORY_INTERVAL: Duration = Duration::from_millis(5);
/// A driver whose step takes longer than this is stuck.
const STARVED: Duration = Duration::from_secs(10);
/// Far longer than anything here takes: what is not so then never will be.
const PATIENCE: Duration = Duration::from_secs(60);

impl From<mobula::Error> for Violation {
    fn from(error: mobula::Error) -> Self {
        Self(format!("the session: {error}"))
    }
}

pub(super) fn run(options: &Options, seed: u64, figures: &mut Figures) -> Result<(), Violation> {
    let (began, mut progress, counts) = (Instant::now(), Progress::new(), Arc::new(Counts::default()));
    let (mut rounds, mut kills, mut kept) = (0, 0, None);
    while rounds == 0 || began.elapsed() < options.duration() {
        let seed_of_round = seed.wrapping_add(rounds);
        kills += round(seed_of_round, &counts).map_err(|Violation(what)| {
            Violation(format!("round {rounds}, with --seed {seed_of_round}: {what}"))
        })?;
        rounds += 1;
        // The first session leaves what this process keeps for others.
        let descriptors = procfs::descriptors(std::process::id());
        let kept = *kept.get_or_insert(descriptors);
        if descriptors > kept {
            return Err(Violation(format!(
                "{descriptors} descriptors are open after round {rounds}, {kept} before"
            )));
        }
        progress.show(|| format!("{rounds} sessions, {kills} kills"));
    }
    figures.add("sessions", rounds);
    figures.add("workers killed", kills);
    counts.add_to(figures);
    Ok(())
}

/// Returns the number of kills.
fn round(seed: u64, counts: &Arc<Counts>) -> Result<u64, Violation> {
    let machine = if seed.is_multiple_of(4) { Some(Machine::new()?) } else { None };
    let mut builder = mobula::Builder::new().workers(WORKERS).capacity_bytes(64 << 20).forward_output(false);
    if let Some(machine) = &machine {
        builder = builder.memory_root(machine.root()).memory_monitor_interval(MEMORY_INTERVAL);
    }
    let session = builder.init()?;
    let socket = session.socket().to_owned();
    serves()?;
    let objects_before = objects(&session)?;

    // When each driver that is at work made its last step.
    let stepped = Arc::new(Mutex::new([Some(Instant::now()); DRIVERS as usize]));
    let is_starved = || lock(&stepped).iter().flatten().any(|at| at.elapsed() > STARVED);
    let (sender, ended) = channel();
    for number in 0..DRIVERS {
        let (sender, counts) = (sender.clone(), counts.clone());
        let random = Random::from_seed(
            seed.wrapping_mul(DRIVERS).wrapping_add(number).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let (is_memory_short, stepped) = (machine.is_some(), stepped.clone());
        std::thread::spawn(move || {
            let outcome = Driver { random, counts, is_memory_short }.run(|| {
                lock(&stepped)[number as usize] = Some(Instant::now());
            });
            lock(&stepped)[number as usize] = None;
            let _ = sender.send(outcome);
        });
    }
    drop(sender);
    let (mut random, mut kills, mut driving) = (Random::from_seed(seed ^ 0x5bd1_e995), 0, DRIVERS);
    let (mut progressed, mut short_until) = (Instant::now(), Instant::now());
    while driving > 0 {
        match ended.recv_timeout(Duration::from_millis(random.below(WAIT_MS_MAX))) {
            Ok(outcome) => {
                outcome?;
                (driving, progressed) = (driving - 1, Instant::now());
            }
            Err(RecvTimeoutError::Disconnected) => return Err(Violation("a driver panicked".to_owned())),
            Err(RecvTimeoutError::Timeout) if progressed.elapsed() > PATIENCE * 2 => {
                return Err(Violation(format!("{driving} drivers wait for ever")));
            }
            // On a busy machine, workers may die faster than calls end. Then a driver is left alone for a while.
            Err(RecvTimeoutError::Timeout) if is_starved() => {}
            Err(RecvTimeoutError::Timeout) => kills += kill_one(&session, &mut random)?,
        }
        if let Some(machine) = &machine {
            if driving > 0 && random.below(8) == 0 && !is_starved() {
                short_until = Instant::now() + Duration::from_millis(random.below(SHORT_MS_MAX));
            }
            machine.set_short(driving > 0 && Instant::now() < short_until)?;
        }
    }

    serves()?;
    let is_free = || Ok(mobula::available_resources()? == mobula::cluster_resources()?);
    eventually("all resources are free", is_free)?;
    eventually("no object is left", || Ok(objects(&session)? <= objects_before)).or_else(|_| {
        let left = objects(&session)?;
        Err(Violation(format!("{left} objects are left, and {objects_before} were there before")))
    })?;
    drop(session);
    eventually("no process of the session is left", || Ok(processes(&socket).is_empty()))?;
    eventually("the session's directory is gone", || Ok(!socket.exists()))?;
    Ok(kills)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls are served: those that a killed worker had are retried.
fn serves() -> Result<(), Violation> {
    let survives = || TaskOptions::new().max_retries(UNLIMITED);
    let doubled = loop {
        let doubled: Vec<_> = (0..50).map(|x| tasks::double::options(survives()).remote(x)).collect();
        match mobula::get_timeout(&doubled, PATIENCE) {
            // The session has looked at the memory just before there was enough again.
            Err(Error::Failed(Failure::WorkerDied { reason: ExitReason::OutOfMemory { .. }, .. })) => {}
            doubled => break doubled?,
        }
    };
    if !doubled.iter().copied().eq((0..50).map(|x| 2 * x)) {
        return Err(Violation(format!("the doubles of 0 to 49 are not {doubled:?}")));
    }
    Ok(())
}

fn objects(session: &Session) -> Result<u64, Violation> {
    Ok(session.client().stats()?.objects())
}

/// Kills a worker or actor at random. Returns how many it killed: none if there is none.
fn kill_one(session: &Session, random: &mut Random) -> Result<u64, Violation> {
    // The store has no client of the store's own process, which is to live.
    let clients = session.client().stats()?.clients;
    let mut victims = processes(session.socket());
    victims.retain(|pid| clients.iter().any(|client| client.pid == *pid));
    victims.sort_unstable();
    if victims.is_empty() {
        return Ok(0);
    }
    let victim = victims[random.below(victims.len() as u64) as usize];
    // It may have ended meanwhile.
    Ok(kill(Pid::from_raw(victim as i32), Signal::SIGKILL).is_ok().into())
}

/// The processes of the session with this socket, which is in their arguments.
fn processes(socket: &Path) -> Vec<u32> {
    use std::os::unix::ffi::OsStrExt;
    let name: String = socket.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let belongs = |pid: &u32| {
        // A process that is only waiting to be reaped has no arguments.
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.windows(name.len()).any(|part| part == name.as_bytes())
    };
    pids.filter(belongs).collect()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool, Violation>) -> Result<(), Violation> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > PATIENCE {
            return Err(Violation(format!("not within {PATIENCE:?}: {what}")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
