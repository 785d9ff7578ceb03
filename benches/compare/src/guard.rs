//! The parent of a rival's processes, for as long as they live.
//!
//! Rivals start processes that outlive their parents. Ray, for example, waits at its shutdown for these processes to
//! end, and so for a reaper, and no other process here reaps them. When the rival has ended, the processes that it has
//! left behind are ended too.

use std::process::Command;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::peer::Failure;
use crate::procfs;

/// The command line that starts a program under a guard, to which its arguments are still to be added.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["peer", "--", "guard"]).arg(program);
    command
}

/// Runs a program with this process's input and output, and reaps all its descendants.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), Failure> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let child = Command::new(program).args(arguments).spawn()?;
    let main = Pid::from_raw(child.id() as i32);
    loop {
        match waitpid(None, None)? {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == main => break,
            _ => {}
        }
    }
    // The loop runs until there are no more, because each may have started another meanwhile.
    loop {
        procfs::end(&procfs::descendants(std::process::id()));
        match waitpid(None, None) {
            Ok(_) => {}
            Err(_) => return Ok(()),
        }
    }
}
