//! SIGKILL at random times to the processes of a session that ten drivers share: drivers, their workers, the session's
//! own process, and the heads of detached actors. Another driver follows each killed one.
//!
//! Calls of a living driver are answered, whatever else is killed. All drivers find the detached actors; the result of
//! a call to one is the next number, or one of the errors for a killed process. Named objects have the bytes that
//! belong to their name. At the end all resources are free, and a stop leaves neither processes nor files.
//!
//! A round is one session with its own seed, the scenario's plus the number of the round: a violation names it.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobula::{ActorOptions, Builder, Error, Failure, Lifetime, TaskOptions, UNLIMITED};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Figures, Progress};
use crate::content::Random;
use crate::{Options, Violation};

const DRIVERS: usize = 10;
const CPUS: u32 = 4;
/// The names of detached actors, and of objects.
const NAMES: u64 = 3;
/// Kills in a round, and the longest time between two.
const KILLS: u64 = 40;
const PAUSE_MS_MAX: u64 = 120;
/// Far longer than anything here takes: a condition that does not hold by then never will.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn run(options: &Options, seed: u64, figures: &mut Figures) -> Result<(), Violation> {
    let (began, mut progress) = (Instant::now(), Progress::new());
    let (mut rounds, mut kills) = (0, Kills::default());
    while rounds == 0 || began.elapsed() < options.duration() {
        let seed_of_round = seed.wrapping_add(rounds);
        round(seed_of_round, &mut kills).map_err(|Violation(what)| {
            Violation(format!("round {rounds}, with --seed {seed_of_round}: {what}"))
        })?;
        rounds += 1;
        progress.show(|| format!("{rounds} sessions, {} drivers killed", kills.drivers));
    }
    figures.add("sessions", rounds);
    figures.add("drivers killed", kills.drivers);
    figures.add("the session's process killed", kills.sessions);
    figures.add("heads of detached actors killed", kills.heads);
    figures.add("workers and actors killed", kills.workers);
    Ok(())
}

#[derive(Default)]
struct Kills {
    drivers: u64,
    sessions: u64,
    heads: u64,
    workers: u64,
}

// ---- the supervisor ----

fn round(seed: u64, kills: &mut Kills) -> Result<(), Violation> {
    let directory = tempfile::tempdir()?;
    let builder = Builder::new().num_cpus(CPUS).capacity_bytes(64 << 20).session_dir(directory.path());
    let address = builder.start()?;
    let outcome = with_drivers(&address, seed, kills);
    // A session with a violation ends, too.
    let stopped = mobula::stop(&address);
    outcome?;
    stopped?;
    eventually("no process of the session is left", || Ok(processes(&address).is_empty()))?;
    match std::fs::read_dir(directory.path())?.count() {
        0 => Ok(()),
        left => Err(Violation(format!("{left} files are left of the session"))),
    }
}

fn with_drivers(address: &Path, seed: u64, kills: &mut Kills) -> Result<(), Violation> {
    let mut random = Random::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut drivers = Vec::new();
    for _ in 0..DRIVERS {
        drivers.push(Driver::start(address, random.below(u64::MAX))?);
    }
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.below(PAUSE_MS_MAX)));
        for driver in &mut drivers {
            driver.check()?;
        }
        if random.below(3) == 0 {
            let victim = random.below(DRIVERS as u64) as usize;
            drivers[victim].kill()?;
            drivers[victim] = Driver::start(address, random.below(u64::MAX))?;
            kills.drivers += 1;
            continue;
        }
        let processes = processes(address);
        let Some((pid, role)) = processes.get(random.below(processes.len().max(1) as u64) as usize) else {
            continue;
        };
        // The drivers have to start it again, which takes a while.
        if *role == ROLE_SESSION && random.below(2) == 0 {
            continue;
        }
        let count = match role.as_str() {
            ROLE_SESSION => &mut kills.sessions,
            ROLE_HEAD => &mut kills.heads,
            _ => &mut kills.workers,
        };
        // It may have ended meanwhile.
        *count += u64::from(kill(Pid::from_raw(*pid as i32), Signal::SIGKILL).is_ok());
    }
    for driver in drivers {
        driver.end()?;
    }
    // The remaining processes serve, and nothing is lost.
    let session = Builder::new().address(address).workers(1).forward_output(false).init()?;
    doubles(&mut random)?;
    for named in mobula::list_named_actors(true)? {
        if let Ok(counter) = mobula::get_actor::<Counter>(&named.name) {
            mobula::kill(&counter)?;
        }
    }
    eventually("the heads of detached actors end", || {
        Ok(!processes(address).iter().any(|(_, role)| role == ROLE_HEAD))
    })?;
    eventually("all resources are free", || {
        Ok(mobula::available_resources()? == mobula::cluster_resources()?)
    })?;
    drop(session);
    Ok(())
}

/// A driver, as a child of this process. It ends when its input does.
struct Driver(Child);

impl Driver {
    fn start(address: &Path, seed: u64) -> Result<Self, Violation> {
        let mut program = Command::new("/proc/self/exe");
        program.arg("driver").arg(address).arg(seed.to_string());
        Ok(Self(program.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?))
    }

    /// A driver that has ended by itself has found a violation, and has printed it.
    fn check(&mut self) -> Result<(), Violation> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Violation(format!("a driver has ended: {status}"))),
        }
    }

    fn kill(&mut self) -> Result<(), Violation> {
        self.check()?;
        self.0.kill()?;
        match self.0.wait()?.signal() {
            Some(libc::SIGKILL) => Ok(()),
            _ => Err(Violation("a driver has ended by itself".to_owned())),
        }
    }

    fn end(mut self) -> Result<(), Violation> {
        drop(self.0.stdin.take());
        let mut status = None;
        eventually("a driver ends", || {
            status = self.0.try_wait()?;
            Ok(status.is_some())
        })?;
        match status.filter(|status| !status.success()) {
            Some(status) => Err(Violation(format!("a driver has ended: {status}"))),
            None => Ok(()),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ROLE_SESSION: &str = "mobula-session";
const ROLE_HEAD: &str = "mobula-head";

/// The processes of a session apart from its drivers, with the names that they are shown by. The session's directory is
/// in their arguments.
fn processes(address: &Path) -> Vec<(u32, String)> {
    let directory = address.parent().unwrap_or(address).as_os_str().as_bytes();
    let name: String = directory.iter().map(|byte| format!("{byte:02x}")).collect();
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let role = |pid: u32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let is_of_it = arguments.windows(name.len()).any(|part| part == name.as_bytes());
        let shown = arguments.split(|byte| *byte == 0).next()?;
        is_of_it.then(|| (pid, String::from_utf8_lossy(shown).into_owned()))
    };
    pids.filter_map(role).collect()
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

// ---- a driver ----

#[mobula::remote]
fn double(x: u64) -> u64 {
    2 * x
}

/// Counts; a restart begins anew.
struct Counter(u64);

#[mobula::remote(max_restarts = unlimited)]
impl Counter {
    fn new() -> Self {
        Self(0)
    }

    fn next(&mut self) -> (u32, u64) {
        self.0 += 1;
        (std::process::id(), self.0)
    }
}

/// The main function of a driver.
pub(crate) fn drive(address: &Path, seed: u64) -> Result<(), Violation> {
    let outcome = drive_until_end(address, seed);
    if let Err(Violation(what)) = &outcome {
        // The supervisor passes on that it has ended.
        eprintln!("driver {}: {what}", std::process::id());
    }
    outcome
}

fn drive_until_end(address: &Path, seed: u64) -> Result<(), Violation> {
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = is_over.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ends.store(true, Ordering::Relaxed);
    });
    let mut random = Random::from_seed(seed);
    let session = Builder::new().address(address).workers(1).forward_output(false).init()?;
    let mut counted = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        match random.below(4) {
            0 | 1 => doubles(&mut random)?,
            2 => count(&mut random, &mut counted)?,
            _ => exchange(&session, &mut random)?,
        }
    }
    Ok(())
}

fn doubles(random: &mut Random) -> Result<(), Violation> {
    let first = random.below(1000);
    let options = || TaskOptions::new().max_retries(UNLIMITED);
    let calls: Vec<_> = (first..first + 20).map(|x| double::options(options()).remote(x)).collect();
    let doubled = mobula::get_timeout(&calls, PATIENCE)?;
    match doubled.iter().copied().eq((first..first + 20).map(|x| 2 * x)) {
        true => Ok(()),
        false => Err(Violation(format!("the doubles from {first} on are not {doubled:?}"))),
    }
}

/// Calls one of the detached actors that the drivers share, and makes it if it does not exist. `counted` has the last
/// number that this driver got from each process.
fn count(random: &mut Random, counted: &mut Vec<(u32, u64)>) -> Result<(), Violation> {
    let name = format!("counter{}", random.below(NAMES));
    let options = ActorOptions::new().name(name).get_if_exists(true).lifetime(Lifetime::Detached);
    let (pid, number) = match Counter::options(options).remote().next().get_timeout(PATIENCE) {
        Ok(next) => next,
        // Its process, or its head, was killed, before the call or during it. Or two drivers made the actor at the same
        // time.
        Err(Error::Failed(
            Failure::ActorDied { .. }
            | Failure::ActorUnavailable { .. }
            | Failure::NameTaken { .. }
            | Failure::NoWorkers { .. }
            | Failure::ObjectLost { .. },
        )) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match counted.iter_mut().find(|(process, _)| *process == pid) {
        Some((_, last)) if *last >= number => {
            Err(Violation(format!("the counter in process {pid} said {number} after {last}")))
        }
        Some((_, last)) => {
            *last = number;
            Ok(())
        }
        None => {
            counted.push((pid, number));
            Ok(())
        }
    }
}

/// Gives an object a name, and reads one that some driver has given.
fn exchange(session: &mobula::Session, random: &mut Random) -> Result<(), Violation> {
    let client = session.client();
    let content = |name: &str| name.repeat(1000);
    let name = format!("object{}", random.below(NAMES));
    let object = client.put(content(&name).as_bytes())?;
    // Another driver may have given it.
    let _ = client.publish(&name, object.id());
    let name = format!("object{}", random.below(NAMES));
    // There may be no such object, or its owner was killed before this driver held it.
    match client.get_named(&name, Duration::ZERO) {
        Ok(object) if object[..] == *content(&name).as_bytes() => Ok(()),
        Ok(object) => Err(Violation(format!("{name} has other {} bytes", object.len()))),
        Err(_) => Ok(()),
    }
}
