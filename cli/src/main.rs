//! The program `mobula`. The process of a session that `mobula start` has started is this program, too.

use std::process::ExitCode;

use mobula_runtime::{Failure, Host, Instance, Invocation, Key, Launch, ROLE, run_role};

/// The functions and classes of this program: none.
struct Nothing;

impl Host for Nothing {
    fn build_id(&self) -> u64 {
        0
    }

    fn call(&self, _: Key, _: &mut Invocation<'_>) -> Result<(), Failure> {
        Err(Failure::Other("the command `mobula` has no functions".into()))
    }

    fn construct(&self, _: Key, _: &mut Invocation<'_>) -> Result<Box<dyn Instance>, Failure> {
        Err(Failure::Other("the command `mobula` has no classes".into()))
    }

    fn idle(&self) {}
}

fn main() -> ExitCode {
    if let Some(argument) = std::env::args_os().nth(1)
        && let Some(role) = argument.to_str().and_then(|argument| argument.strip_prefix(ROLE))
    {
        run_role(role, &Nothing);
    }
    mobula_cli::run(Launch::program("/proc/self/exe"), std::env::args_os()).into()
}
