//! Ray, the model of Mobula's programming interface, driven by a small Python program beside this file.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guard;
use crate::peer::{Failure, error};
use crate::side::Side;

const PROGRAM: &str = include_str!("ray_side.py");
const PACKAGES: [&str; 2] = ["ray==2.60.0", "numpy"];
pub(crate) const VERSION: &str = "Ray 2.60.0";

/// Everything that is needed to start it.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    python: PathBuf,
    program: PathBuf,
}

/// Installs Ray under `base`, unless it is there.
pub(crate) fn install(base: &Path) -> Result<Installed, Failure> {
    let venv = venv(&base.join("ray"), &PACKAGES)?;
    let program = base.join("ray_side.py");
    std::fs::write(&program, PROGRAM)?;
    Ok(Installed { python: venv.join("bin/python"), program })
}

/// Starts its driver; Ray itself starts with the first command.
pub(crate) fn start(installed: &Installed, scratch: &Path) -> Result<Side, Failure> {
    // Its sockets' paths would be too long further down.
    let directory = scratch.join("ray");
    std::fs::create_dir_all(&directory)?;
    let mut command = guard::command(&installed.python);
    command.arg(&installed.program).arg(directory);
    // Its sessions write there, and leave things there.
    command.env("TMPDIR", scratch).env("HOME", scratch);
    Side::start("ray", command, Some(scratch))
}

/// A virtual environment with these packages, made once.
pub(crate) fn venv(path: &Path, packages: &[&str]) -> Result<PathBuf, Failure> {
    // Written last: an environment that was left half made is made again.
    let stamp = path.join("complete");
    let wanted = packages.join(" ");
    if std::fs::read_to_string(&stamp).ok().as_deref() == Some(wanted.as_str()) {
        return Ok(path.to_owned());
    }
    let mut python = Command::new("python3");
    python.args(["-m", "venv", "--clear"]).arg(path);
    run(python)?;
    let mut pip = Command::new(path.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    run(pip)?;
    std::fs::write(stamp, wanted)?;
    Ok(path.to_owned())
}

/// Runs a command to its end; its last line is the error.
pub(crate) fn run(mut command: Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(std::process::Stdio::null()).output() {
        Ok(output) => output,
        Err(failure) => return error(format!("{program}: {failure}")),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    error(format!("{program}: {last}"))
}
