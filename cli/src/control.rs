//! `mobula kill` and `mobula cancel`: they end processes, actors and calls of a session.

use std::error::Error;

use mobula_runtime::control::{Carried, ControlError, Target, cancel, kill};
use mobula_runtime::state::NoSuchTarget;

use crate::session::Look;

/// The exit codes of commands that name a process, an actor or a call.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  it is done
  1  the session cannot be asked
  2  the words on the command line make no sense
  3  there is no such call, process or actor, or it is over
  4  it cannot be done to this one: the message says what can
  5  nobody has answered in time; it may still be done";

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
        let cancelled = cancel(&self.look.observer()?, &target, self.force, !self.no_recursive)?;
        self.look.show(&cancelled, || said("cancelled", &cancelled))
    }
}

fn said(done: &str, carried: &Carried) -> String {
    let process = match carried.pid {
        Some(pid) if carried.kind != "process" => format!(", process {pid}"),
        _ => String::new(),
    };
    let id = carried.id.strip_prefix("actor:").unwrap_or(&carried.id);
    format!("{done} {} {id}{process}\n", carried.kind)
}

/// The exit code for an error.
pub(crate) fn exit_code(error: &(dyn Error + 'static)) -> u8 {
    match error.downcast_ref::<ControlError>() {
        Some(ControlError::NoSuchTarget(_) | ControlError::Over { .. }) => 3,
        Some(
            ControlError::Ambiguous { .. } | ControlError::IsDriver { .. } | ControlError::IsOfActor { .. },
        ) => 4,
        Some(ControlError::NoAnswer { .. }) => 5,
        None if error.is::<NoSuchTarget>() => 3,
        _ => 1,
    }
}
