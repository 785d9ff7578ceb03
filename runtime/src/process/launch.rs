//! How a process of a session is started: its program, and its role as the first argument.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::process::role::Role;

/// How to start a process that becomes what its first argument says: one that calls [`run_role`](crate::run_role)
/// before it does anything else.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Launch {
    /// The program. A bare name is looked up in `PATH`.
    pub program: PathBuf,
    /// The arguments behind the first.
    pub arguments: Vec<OsString>,
    /// Environment variables in addition to those of this process.
    pub environment: Vec<(OsString, OsString)>,
}

impl Launch {
    /// A program without further arguments.
    pub fn program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), environment: Vec::new() }
    }

    /// The command. Lists of processes show `shown` as its name.
    pub(crate) fn command(&self, shown: &str, role: &Role) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(shown).arg(role.to_argument()).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
