//! `mobula`: the command line. `start` and `stop` are for sessions that drivers share, `store` runs a store until it is
//! told to stop, `status` shows what is in one. The others look at a session: what runs and waits in it, and why.
//!
//! Errors are one line on standard error, beginning with `error: `, and exit code 1; words on the command line that
//! make no sense are exit code 2, with an explanation.

mod explain;
mod list;
mod live;
mod session;
mod start;
mod status;
mod stop;
mod table;
mod view;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
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
    Why(explain::WhyCommand),
    Postmortem(explain::PostmortemCommand),
    Timeline(explain::TimelineCommand),
    View(view::ViewCommand),
    Store(StoreCommand),
}

fn main() -> ExitCode {
    match run(Options::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Start(start) => start.run(),
        Command::Stop(stop) => stop.run(),
        Command::Store(store) => store.run(),
        Command::Status(status) => status.run(),
        Command::List(list) => list.run(),
        Command::Summary(summary) => summary.run(),
        Command::Why(why) => why.run(),
        Command::Postmortem(postmortem) => postmortem.run(),
        Command::Timeline(timeline) => timeline.run(),
        Command::View(view) => view.run(),
    }
}
