//! The start of a process of a session: its program, and its [role](crate::process::role) as the last argument.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// How to start a process that takes the role in its last argument. The program must call [`run_role`](crate::run_role)
/// before it does anything else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Launch {
    /// The program. A bare name is looked up in `PATH`.
    pub program: PathBuf,
    /// The arguments in front of the role.
    pub arguments: Vec<OsString>,
    /// Whether lists of processes show the role of the process in place of the program's name. An interpreter must keep
    /// its name, because it finds its libraries by it.
    pub is_renamed: bool,
    /// Environment variables in addition to those of this process.
    pub environment: Vec<(OsString, OsString)>,
}

impl Launch {
    /// A program without further arguments.
    pub fn program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), is_renamed: true, environment: Vec::new() }
    }

    /// The command, with a role as its last argument. Lists of processes show `shown` as its name.
    pub(crate) fn command(&self, shown: &str, role: &str) -> Command {
        let mut command = Command::new(&self.program);
        if self.is_renamed {
            command.arg0(shown);
        }
        command.args(&self.arguments).arg(role);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
