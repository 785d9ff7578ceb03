//! The command `mobula`, for the program of that name and for the Python package. `start` and `stop` are for sessions
//! that drivers share, `store` runs a store until it is told to stop, `status` shows what is in one. The others look at
//! a session: what runs and waits in it, and why.
//!
//! Errors are one line on standard error, beginning with `error: `, and exit code 1; words on the command line that
//! make no sense are exit code 2, with an explanation. Commands that name a part of a session have more exit codes,
//! which their help lists.

mod control;
mod exit;
mod explain;
mod help;
mod http;
mod list;
mod live;
mod logs;
mod memory;
mod metrics;
mod rows;
mod session;
mod stack;
mod start;
mod status;
mod stop;
mod table;
mod top;
mod view;

use std::error::Error;
use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use mobula_runtime::Launch;
use mobula_store::command::StoreCommand;

/// Tasks, actors and objects for the processes of one machine, on shared memory.
#[derive(Debug, Parser)]
#[command(name = "mobula", version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(start::StartCommand),
    Stop(stop::StopCommand),
    Status(status::StatusCommand),
    List(list::ListCommand),
    Summary(list::SummaryCommand),
    Memory(memory::MemoryCommand),
    Why(explain::WhyCommand),
    Postmortem(explain::PostmortemCommand),
    Timeline(explain::TimelineCommand),
    View(view::ViewCommand),
    Logs(logs::LogsCommand),
    Stack(stack::StackCommand),
    Top(top::TopCommand),
    Metrics(metrics::MetricsCommand),
    Kill(control::KillCommand),
    Cancel(control::CancelCommand),
    Store(StoreCommand),
}

/// Runs the command that the arguments say; the first of them is the name that the program was called by. Returns the
/// exit code. Errors appear on standard error. `session` starts the process of a session, for `start`: a program that
/// calls [`run_role`](mobula_runtime::run_role) first.
///
/// ```no_run
/// use mobula_runtime::Launch;
///
/// let code = mobula_cli::run(Launch::program("/proc/self/exe"), ["mobula".into(), "status".into()]);
/// assert_eq!(code, 0);
/// ```
///
/// Ends the process after a help text, and when the arguments make no sense.
pub fn run(session: Launch, arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let matches = help::grouped(Options::command()).get_matches_from(arguments);
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run_command(options.command, session) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            exit::code(&*error)
        }
    }
}

fn run_command(command: Command, session: Launch) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Start(start) => start.run(session),
        Command::Stop(stop) => stop.run(),
        Command::Store(store) => store.run(),
        Command::Status(status) => status.run(),
        Command::List(list) => list.run(),
        Command::Summary(summary) => summary.run(),
        Command::Memory(memory) => memory.run(),
        Command::Why(why) => why.run(),
        Command::Postmortem(postmortem) => postmortem.run(),
        Command::Timeline(timeline) => timeline.run(),
        Command::View(view) => view.run(),
        Command::Logs(logs) => logs.run(),
        Command::Stack(stack) => stack.run(),
        Command::Top(top) => top.run(),
        Command::Metrics(metrics) => metrics.run(),
        Command::Kill(kill) => kill.run(),
        Command::Cancel(cancel) => cancel.run(),
    }
}
