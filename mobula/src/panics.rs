//! The text that a worker prints when user code panics.
//!
//! The standard library's own text begins with an empty line, which gets a prefix of its own among the driver's output.
//! It also calls the main thread of a worker unnamed, because a worker never comes to the runtime start-up that names
//! it. User code may set another hook at any time.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name of a worker's main thread, which runs the calls.
const MAIN_THREAD: &str = "mobula-worker";

/// Installs the hook that reports panics from here on.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    static ADVISED: AtomicBool = AtomicBool::new(false);
    let thread = std::thread::current();
    let is_main = nix::unistd::gettid() == nix::unistd::getpid();
    let name = if is_main { Some(MAIN_THREAD) } else { thread.name() };
    // The panic's own text has its place and its message.
    let mut text = format!("thread '{}' {panic}\n", name.unwrap_or("<unnamed>"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        let (all, is_full) =
            (backtrace.to_string(), std::env::var_os("RUST_BACKTRACE").is_some_and(|set| set == "full"));
        text.push_str("stack backtrace:\n");
        text.push_str(if is_full { &all } else { of_user_code(&all) });
    } else if !ADVISED.swap(true, Ordering::Relaxed) {
        text.push_str(
            "note: set `RUST_BACKTRACE=1` for the program that calls `mobula::init()` to see a backtrace\n",
        );
    }
    // One write, so that lines of other threads do not come in between. It may fail when no process reads the output
    // any more.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// The frames between the panic's own and those of the runtime that made the call. Each begins with its number. If the
/// two ends are not found, all frames are shown.
fn of_user_code(backtrace: &str) -> &str {
    let (mut start, mut end, mut at) = (0, backtrace.len(), 0);
    for line in backtrace.split_inclusive('\n') {
        let begins_frame = line.trim_start().starts_with(|first: char| first.is_ascii_digit());
        if begins_frame && PANICKING.iter().any(|part| line.contains(part)) {
            start = usize::MAX;
        } else if begins_frame && start == usize::MAX {
            start = at;
        } else if begins_frame && line.contains(CALLED_BY) {
            end = at;
            break;
        }
        at += line.len();
    }
    backtrace.get(start..end).unwrap_or(backtrace)
}

/// Names of functions between a `panic!` and the hook.
const PANICKING: &[&str] =
    &["rust_begin_unwind", "panicking::", "begin_panic", "panics::report", "Backtrace"];
/// The part of a function's name by which the caller of user code is known.
const CALLED_BY: &str = "mobula::host::";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_shows_user_code_alone() {
        let frame =
            |number: u32, name: &str| format!("{number:>4}: {name}\n             at ./src/main.rs:7:5\n");
        let of = |names: &[&str]| -> String {
            (0..).zip(names).map(|(number, name)| frame(number, name)).collect()
        };
        let all = of(&[
            "mobula::panics::report",
            "core::panicking::panic_fmt",
            "my::task",
            "mobula::host::user_code::guarded",
        ]);
        assert_eq!(of_user_code(&all), frame(2, "my::task"));
        let thread = of(&["core::panicking::panic_fmt", "my::thread", "std::sys::thread_start"]);
        assert_eq!(of_user_code(&thread), frame(1, "my::thread") + &frame(2, "std::sys::thread_start"));
        let unknown = of(&["core::panicking::panic_fmt"]);
        assert_eq!(of_user_code(&unknown), unknown);
        assert_eq!(of_user_code(""), "");
    }
}
