//! The parent of a rival's processes, for as long as they live.
//!
//! Rivals start processes that outlive those who started them. Whoever waits for their end, as Ray does when it shuts down,
//! waits for somebody to reap them, which nobody else here does; and when the rival has ended, what it has left behind is
//! ended too.

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

/// Runs a program with this process's input and output, and reaps whatever descends from it.
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
    // Until there are no more, since each may have started another meanwhile.
    loop {
        procfs::end(&procfs::descendants(std::process::id()));
        match waitpid(None, None) {
            Ok(_) => {}
            Err(_) => return Ok(()),
        }
    }
}
