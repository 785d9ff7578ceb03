//! `mobula kill` and `mobula cancel`: they end processes, actors and calls of a session.

use std::error::Error;

use mobula_runtime::control::{Carried, Target, cancel, kill};
use mobula_runtime::state::{Observer, Snapshot};

use crate::exit::{EXIT_CODES, Exit};
use crate::session::Look;

/// Kills a process, an actor, or the process that runs a call, and waits until it has ended.
///
/// Calls that the process ran fail, or are retried, as when it dies by itself. A killed actor is not restarted, and a
/// call that is named is not retried.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct KillCommand {
    /// A worker (4711); an actor's name, or its number (actor:3); a call, as `mobula list tasks` shows it (4711.12).
    target: String,
    /// Restart the actor, if its options allow it.
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    look: Look,
}

/// Cancels a call: if it has not begun, it never runs; if it runs, it is told.
///
/// Waits for its result end with an error at once. A running Rust function continues until it asks whether it was
/// cancelled, or waits; a Python function is interrupted. With --force, its process ends.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct CancelCommand {
    /// The call, as `mobula list tasks` shows it (4711.12).
    task: String,
    /// End the process that runs it. Not for calls of actors.
    #[arg(long)]
    force: bool,
    /// Do not cancel the calls that it has made.
    #[arg(long)]
    no_recursive: bool,
    #[command(flatten)]
    look: Look,
}

impl KillCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let Ok(target) = self.target.parse::<Target>();
        let killed = kill(&self.look.observer()?, &target, self.restart)?;
        self.look.show(&killed, || said("killed", &killed))
    }
}

impl CancelCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let Ok(target) = self.task.parse::<Target>();
        let observer = self.look.observer()?;
        check_is_call(&observer, &target)?;
        let cancelled = cancel(&observer, &target, self.force, !self.no_recursive)?;
        self.look.show(&cancelled, || said("cancelled", &cancelled))
    }
}

/// Only calls are cancelled. A person who names an actor or a process learns what ends it.
fn check_is_call(observer: &Observer, target: &Target) -> Result<(), Box<dyn Error>> {
    let is_process =
        |look: &Snapshot, pid| look.workers().iter().any(|it| it.pid == pid && it.state != "dead");
    let what = match target {
        Target::Actor(name) if !observer.look()?.actor_pids(name).is_empty() => {
            format!("{name:?} is an actor")
        }
        Target::Process(pid) if is_process(&observer.look()?, *pid) => format!("{pid} is a process"),
        _ => return Ok(()),
    };
    let text =
        format!("{what}: `mobula kill {target}` ends it, and `mobula cancel` ends a call, such as 4711.12");
    Err(Exit::impossible(text).into())
}

fn said(done: &str, carried: &Carried) -> String {
    let process = match carried.pid {
        Some(pid) if carried.kind != "process" => format!(", process {pid}"),
        _ => String::new(),
    };
    let id = carried.id.strip_prefix("actor:").unwrap_or(&carried.id);
    format!("{done} {} {id}{process}\n", carried.kind)
}
