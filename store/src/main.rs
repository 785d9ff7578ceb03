//! `mobula-store`: a store by itself, until `SIGTERM` or `SIGINT`.

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
