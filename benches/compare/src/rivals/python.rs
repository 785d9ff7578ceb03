//! The contenders in Python, each driven by a small program beside this file: Ray, the model of Mobula's programming
//! interface; `multiprocessing.Pool`; Dask; and Mobula's own package.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guard;
use crate::peer::{Failure, error};
use crate::side::Side;

/// The programs, and the modules that they share.
const PROGRAMS: [(&str, &str); 9] = [
    ("side.py", include_str!("side.py")),
    ("work.py", include_str!("work.py")),
    ("ray_side.py", include_str!("ray_side.py")),
    ("ray_join.py", include_str!("ray_join.py")),
    ("ray_jobs.py", include_str!("ray_jobs.py")),
    ("pool_side.py", include_str!("pool_side.py")),
    ("dask_side.py", include_str!("dask_side.py")),
    ("face.py", include_str!("face.py")),
    ("python_side.py", include_str!("python_side.py")),
];

/// A virtual environment: its name and its packages.
pub(crate) type Environment = (&'static str, &'static [&'static str]);
pub(crate) const RAY: Environment = ("ray", &["ray==2.60.0", "numpy==2.4.6", "pyarrow==26.0.1"]);
/// Pool is a part of Python.
pub(crate) const PLAIN: Environment =
    ("python", &["numpy==2.4.6", "pyarrow==26.0.1", "distributed==2026.8.0", "joblib==1.6.0"]);
/// Mobula's own package.
pub(crate) const PACKAGE: Environment = ("package", &["numpy==2.4.6", "joblib==1.6.0"]);
pub(crate) const VERSIONS: &str = "Ray 2.60.0, Dask 2026.8.0, numpy 2.4.6, pyarrow 26.0.1, joblib 1.6.0";
/// The sources of the package.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python");

/// Everything that is needed to start a rival.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    python: PathBuf,
    programs: PathBuf,
}

/// Makes an environment under `base`, unless it is there. Mobula's package is built anew, optimised, which takes
/// minutes the first time.
pub(crate) fn install(base: &Path, environment: &Environment) -> Result<Installed, Failure> {
    let (name, packages) = environment;
    let venv = venv(&base.join(name), packages)?;
    if environment == &PACKAGE {
        pip(&venv, &["--force-reinstall", "--no-deps", SOURCES])?;
        pip(&venv, &["cloudpickle"])?;
    }
    let programs = base.join("programs");
    std::fs::create_dir_all(&programs)?;
    for (name, text) in PROGRAMS {
        std::fs::write(programs.join(name), text)?;
    }
    Ok(Installed { python: venv.join("bin/python"), programs })
}

/// Starts the driver of a rival. Its processes start with the first command.
pub(crate) fn start(installed: &Installed, name: &str, scratch: &Path) -> Result<Side, Failure> {
    let mut command = guard::command(&installed.python);
    command.arg(installed.programs.join(format!("{name}_side.py"))).arg(scratch);
    // They write there, and leave things there.
    command.env("TMPDIR", scratch).env("HOME", scratch);
    Side::start(name, command, Some(scratch))
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
    pip(path, packages)?;
    std::fs::write(stamp, wanted)?;
    Ok(path.to_owned())
}

fn pip(venv: &Path, packages: &[&str]) -> Result<(), Failure> {
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    run(pip)
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
