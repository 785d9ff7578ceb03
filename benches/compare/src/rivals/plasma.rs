//! Plasma, the store that Ray grew out of, as the last pyarrow brings it that still has it: its server, and its own C++
//! client, for which there is a small program beside this file.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guard;
use crate::peer::Failure;
use crate::rivals::python::{run, venv};
use crate::side::Side;

const PROGRAM: &str = include_str!("plasma.cpp");
const PACKAGES: [&str; 2] = ["pyarrow==11.0.0", "numpy<2"];
pub(crate) const VERSION: &str = "Plasma of pyarrow 11.0.0, C++ client";
/// The capacity of its store: a few of the largest objects.
const STORE_BYTES: u64 = 1536 << 20;

/// Everything that is needed to start it.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    server: PathBuf,
    program: PathBuf,
}

/// Installs Plasma under `base` and compiles its side, unless both are there.
pub(crate) fn install(base: &Path) -> Result<Installed, Failure> {
    let venv = venv(&base.join("plasma"), &PACKAGES)?;
    let libraries = find_pyarrow(&venv)?;
    let (source, program) = (base.join("plasma.cpp"), base.join("plasma-side"));
    if !program.exists() || std::fs::read_to_string(&source).ok().as_deref() != Some(PROGRAM) {
        std::fs::write(&source, PROGRAM)?;
        let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
        // The wheel was built for the old layout of the standard library's strings.
        compiler.args(["-std=c++17", "-O2", "-Wno-cpp", "-D_GLIBCXX_USE_CXX11_ABI=0"]);
        compiler.arg("-I").arg(libraries.join("include")).arg(&source).arg("-o").arg(&program);
        compiler.arg("-L").arg(&libraries).args(["-l:libplasma.so.1100", "-l:libarrow.so.1100"]);
        compiler.arg(format!("-Wl,-rpath,{}", libraries.display()));
        run(compiler)?;
    }
    Ok(Installed { server: libraries.join("plasma-store-server"), program })
}

/// Starts its side.
pub(crate) fn start(installed: &Installed, scratch: &Path) -> Result<Side, Failure> {
    let mut command = guard::command(&installed.program);
    command.arg(&installed.server).arg(scratch).arg(STORE_BYTES.to_string());
    Side::start("plasma", command, Some(scratch))
}

/// The place where this version of Python has put it.
fn find_pyarrow(venv: &Path) -> Result<PathBuf, Failure> {
    let mut found = std::fs::read_dir(venv.join("lib"))?
        .flatten()
        .map(|entry| entry.path().join("site-packages/pyarrow"))
        .filter(|path| path.is_dir());
    found.next().ok_or_else(|| Failure::Error(format!("there is no pyarrow in {}", venv.display())))
}
