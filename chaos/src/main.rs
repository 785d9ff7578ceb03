//! Breaks Mobula on purpose, and shows that nothing is lost:
//!
//! ```console
//! $ cargo run --release -p mobula-chaos -- --seconds 60 --seed 7
//! ```
//!
//! A supervisor runs a store and clients as processes of their own (this program in other roles), lets them work, and
//! kills, stops or spoils them. After every round, when all work has been ended for a moment, an oracle compares the
//! store's own figures with those of the clients and of the kernel. A violation ends the run, with an exit code and the
//! seed that replays its choices. A run that goes well prints figures.
//!
//! * [`scenarios`] has the table of all scenarios, with a module for each;
//! * [`world`] is a store with its clients, [`oracle`] the comparison of accounts, [`procfs`] the kernel's figures;
//! * [`client`], [`load`] and [`scribbler`] are the work of a client, [`store`] is the daemon;
//! * by [`process`] and [`message`] the supervisor talks to them.

mod client;
#[path = "../../tests/content.rs"]
#[allow(unreachable_pub, reason = "public in the tests' library, which this is a part of")]
mod content;
mod load;
mod message;
mod oracle;
mod process;
mod procfs;
mod scenarios;
mod scribbler;
mod store;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use mobula_client::ClientError;

use crate::message::{Report, Room, failpoint_named, say};
use crate::scenarios::{Figures, SCENARIOS, Scenario};

/// Kills, stops and spoils the processes of a store, and checks that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "mobula-chaos", version)]
pub(crate) struct Options {
    /// The scenarios to run, in this order; all by default.
    #[arg(value_name = "SCENARIO", value_parser = scenario)]
    scenarios: Vec<&'static Scenario>,
    /// How long each scenario goes on that has no other end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    seconds: u64,
    /// Replays the choices of another run. Default: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Kills this many clients, however long it takes.
    #[arg(long, value_name = "COUNT")]
    kills: Option<u64>,
    /// Kills the daemon this often at random times.
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    daemon_kills: u64,
    /// Kills at each failpoint this often.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    times: u64,
    /// How long a process is stopped.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5000)]
    stop_ms: u64,
    #[command(subcommand)]
    role: Option<Role>,
}

impl Options {
    /// How long a scenario goes on that has no other end.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// The role of this program when the supervisor starts it.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Store { socket: PathBuf, room: Room, failpoint: Option<String>, nth: Option<u64> },
    #[command(hide = true)]
    Client { socket: PathBuf, seed: u64, room: Room },
    #[command(hide = true)]
    Driver { address: PathBuf, seed: u64 },
}

/// A broken promise, or an obstacle to the run.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

impl From<std::io::Error> for Violation {
    fn from(error: std::io::Error) -> Self {
        Self(format!("the system refused: {error}"))
    }
}

impl From<ClientError> for Violation {
    fn from(error: ClientError) -> Self {
        Self(format!("the supervisor's client: {error}"))
    }
}

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    SCENARIOS.iter().find(|scenario| scenario.name == name).ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("there are: {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.role {
        None => return supervise(&options),
        Some(Role::Store { socket, room, failpoint, nth }) => {
            let failpoint = failpoint
                .as_deref()
                .map(|name| failpoint_named(name).expect("the same program has named it"));
            as_child(|| store::run(socket, *room, failpoint.zip(*nth)))
        }
        Some(Role::Driver { address, seed }) => as_child(|| scenarios::sharing::drive(address, *seed)),
        Some(Role::Client { socket, seed, room }) => as_child(|| client::run(socket, *seed, *room)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Violation(what)) => {
            say(&Report::Violation(what));
            ExitCode::FAILURE
        }
    }
}

/// Runs a role in a process that ends with the supervisor, however that ends.
fn as_child(role: impl FnOnce() -> Result<(), Violation>) -> Result<(), Violation> {
    // A process that is meant to crash leaves no file behind.
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    // The supervisor's first thread starts all processes, so its end is the supervisor's.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from)?;
    role()
}

fn supervise(options: &Options) -> ExitCode {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    let seed = options.seed.unwrap_or_else(now);
    println!("seed {seed}");
    let chosen: Vec<&Scenario> = match &options.scenarios[..] {
        [] => SCENARIOS.iter().collect(),
        some => some.to_vec(),
    };
    let mut figures = Figures::default();
    for scenario in chosen {
        println!("==> {}: {}", scenario.name, scenario.about);
        let began = Instant::now();
        figures.scenario = scenario.name;
        if let Err(Violation(what)) = (scenario.run)(options, seed, &mut figures) {
            print!("{figures}");
            println!("VIOLATION in {}: {what}", scenario.name);
            println!("replay: mobula-chaos {} --seed {seed}", scenario.name);
            return ExitCode::FAILURE;
        }
        figures.add("seconds", format!("{:.1}", began.elapsed().as_secs_f64()));
    }
    print!("{figures}");
    println!("no violation; seed {seed}");
    ExitCode::SUCCESS
}
