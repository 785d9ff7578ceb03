//! The output of the programs: results to standard output, everything else to standard error.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;

/// The result of a program's work.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The exit code of an outcome. An error is printed on standard error.
pub fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints to standard output. A reader such as `head` may close it early: that is no error.
///
/// # Errors
/// When it cannot be written for another reason.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints one JSON object to standard output.
///
/// # Errors
/// When it cannot be written.
pub fn print_json(value: &impl Serialize) -> Outcome {
    Ok(print(&format!("{}\n", serde_json::to_string(value)?))?)
}

/// Prints a line beside the results: where they are JSON for another program, to standard error.
///
/// # Errors
/// When it cannot be written.
pub fn print_note(note: &str, json: bool) -> io::Result<()> {
    if json {
        eprintln!("{note}");
        return Ok(());
    }
    print(&format!("{note}\n"))
}

/// A progress bar, or none where no one sees it: without a terminal, or with the output in a pipe to a program that may
/// be drawing on the terminal itself.
pub fn progress_bar(steps: usize, of: &'static str) -> ProgressBar {
    if !(io::stdout().is_terminal() && io::stderr().is_terminal()) {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}").expect("the template is correct");
    // Dropped, it is gone, also where an error ended the work early.
    ProgressBar::new(steps as u64).with_style(style).with_message(of).with_finish(ProgressFinish::AndClear)
}
