//! A contender's process, as the harness uses it: it starts, asks, stops and ends the process.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::peer::{Failure, Figure, error};
use crate::procfs;

/// How long one command may take, beyond its budget.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a side that has been told to end may take to clear up.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A process that takes commands, a line each; `peer.rs` says how. Ends with this value.
#[derive(Debug)]
pub(crate) struct Side {
    name: String,
    child: Child,
    commands: Option<ChildStdin>,
    lines: Receiver<String>,
    log: Option<PathBuf>,
}

impl Side {
    /// Starts a side of this program's. Its standard error is this process's.
    pub(crate) fn peer(words: &[&str]) -> Result<Self, Failure> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("peer").args(words);
        Self::start(words.first().unwrap_or(&"peer"), command, None)
    }

    /// Starts a side. Its output beside its answers goes to a file in `logs`, if there is such a directory.
    pub(crate) fn start(name: &str, mut command: Command, logs: Option<&Path>) -> Result<Self, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let log = logs.map(|directory| directory.join(format!("{name}.log")));
        if let Some(log) = &log {
            command.stderr(File::create(log)?);
            // Ctrl-C is for the harness, which then ends its sides itself.
            command.process_group(0);
        }
        let mut child = command.spawn()?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { name: name.to_owned(), commands: child.stdin.take(), child, lines, log })
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a command and waits for its figure.
    pub(crate) fn ask(&mut self, command: &str) -> Figure {
        self.send(command)?;
        self.answer()
    }

    /// Sends a command whose answer is waited for later.
    pub(crate) fn send(&mut self, command: &str) -> Result<(), Failure> {
        let sent = self.commands.as_mut().map(|commands| writeln!(commands, "{command}"));
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => error(format!("{} has ended{}", self.name, self.last_words())),
            None => error(format!("{} has not answered before", self.name)),
        }
    }

    /// Waits for the figure of a command that was sent.
    pub(crate) fn answer(&mut self) -> Figure {
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                // It is not asked again: its next line would be taken for the answer to another command.
                self.commands = None;
                return error(format!("{} does not answer within {PATIENCE:?}", self.name));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return error(format!("{} has ended{}", self.name, self.last_words()));
            }
        };
        match line.split_once(' ') {
            Some(("ok", figure)) => match figure.parse::<f64>() {
                Ok(figure) if figure.is_finite() => Ok(figure),
                _ => error(format!("{} answers {line:?}, which is no figure", self.name)),
            },
            Some(("error", text)) => error(text),
            Some(("wrong", text)) => Err(Failure::Wrong(text.to_owned())),
            _ => error(format!("{} answers {line:?}", self.name)),
        }
    }

    /// Stops the side with all its processes, or lets them go on.
    pub(crate) fn stop(&self, stopped: bool) {
        let signal = if stopped { Signal::SIGSTOP } else { Signal::SIGCONT };
        procfs::signal_tree(self.pid(), signal);
    }

    /// The end of the process's own log.
    fn last_words(&self) -> String {
        let text = self.log.as_ref().and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.map(|line| format!(": {line}")).unwrap_or_default()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Without commands it ends by itself, and clears up.
        self.commands = None;
        let children = procfs::descendants(self.pid());
        let mut left = END_PATIENCE;
        let step = Duration::from_millis(2);
        while left > Duration::ZERO && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(step);
            left = left.saturating_sub(step);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        procfs::end(&children);
    }
}
