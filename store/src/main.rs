//! `mobula-store`: a program that is only a store, and runs until `SIGTERM` or `SIGINT`.

use std::process::ExitCode;

use clap::Parser;
use mobula_store::command::StoreCommand;

#[derive(Debug, Parser)]
#[command(name = "mobula-store", version)]
struct Options {
    #[command(flatten)]
    store: StoreCommand,
}

fn main() -> ExitCode {
    match Options::parse().store.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
