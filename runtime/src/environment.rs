//! The environment of worker processes: variables beside those of the driver, a directory to work in, and a program in
//! place of the session's own. That program may be of another language: the calls name its functions by their exported
//! names.
//!
//! A process has its environment from its start on: any of its threads may read a variable at any time, so no variable
//! is changed later. The head therefore keeps workers by their environments. The usual one, which is the driver's,
//! costs nothing: no allocation, no lookup.
//!
//! A process that can use GPUs is of another environment, too: their number is a part of it, and the process's variable
//! `CUDA_VISIBLE_DEVICES` says which ones they are.
//!
//! Calls that a call makes inherit the environment of its process. A call's own variables are added to these, and
//! replace those with the same names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::launch::Launch;

/// The most bytes of an environment. A record to the head has room for them.
const BYTES_MAX: usize = 16 << 10;

/// The variable by which CUDA, and what builds on it, finds the GPUs that a process can use.
pub(crate) const VISIBLE_GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// The environment of a process; see the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Parts", into = "Parts")]
pub(crate) struct Environment(Option<Arc<Parts>>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Parts {
    env_vars: BTreeMap<String, String>,
    /// An absolute path.
    working_dir: Option<OsString>,
    /// `None`: the session's own.
    program: Option<Launch>,
    /// How many GPUs the process can use. Each process of the environment may have different GPUs.
    gpus: usize,
}

/// The options of a call or an actor about the environment of its process. One that was not given is `None`.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnvironmentOptions {
    pub(crate) env_vars: Option<Vec<(String, String)>>,
    pub(crate) working_dir: Option<PathBuf>,
    pub(crate) program: Option<Launch>,
}

/// The description of an environment for a process: the names of the variables, the directory, and the program. It has
/// no values of variables: the process has them already, and other users can read its arguments.
pub(crate) type Told = (Vec<String>, Option<OsString>, Option<Launch>);

impl EnvironmentOptions {
    /// Names and values, in the form in which they are kept.
    pub(crate) fn variables(
        variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Vec<(String, String)> {
        variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// These options. Those that are not set are taken from `defaults`.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self {
            env_vars: self.env_vars.or(defaults.env_vars),
            working_dir: self.working_dir.or(defaults.working_dir),
            program: self.program.or(defaults.program),
        }
    }
}

impl Environment {
    /// The driver's.
    pub(crate) const USUAL: Self = Self(None);

    /// Whether it is the driver's.
    pub(crate) fn is_usual(&self) -> bool {
        self.0.is_none()
    }

    /// The environment of a call that is made in this one.
    ///
    /// # Errors
    /// [`Failure::BadOption`]: an invalid variable, or a directory that is not there.
    pub(crate) fn with(&self, options: &EnvironmentOptions) -> Result<Self, Failure> {
        let mut parts = self.parts();
        for (name, value) in options.env_vars.iter().flatten() {
            check_variable(name, value)?;
            parts.env_vars.insert(name.clone(), value.clone());
        }
        if let Some(directory) = &options.working_dir {
            parts.working_dir = Some(existing(directory)?.into());
        }
        if let Some(program) = &options.program {
            if program.program.to_str().is_none() {
                return Err(bad(
                    "program",
                    format!("{:?}", program.program),
                    "a path that is UTF-8".to_owned(),
                ));
            }
            parts.program = Some(program.clone());
        }
        let directory_bytes = parts.working_dir.as_ref().map_or(0, |directory| directory.len());
        let bytes = parts.env_vars.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if bytes + directory_bytes > BYTES_MAX {
            let expected = format!("at most {BYTES_MAX} bytes of names and values: write more to a file");
            return Err(bad("env_vars", format!("{bytes} bytes"), expected));
        }
        Ok(parts.into())
    }

    /// This environment for processes that can use so many GPUs.
    pub(crate) fn for_gpus(self, gpus: usize) -> Self {
        match &self.0 {
            None if gpus == 0 => self,
            Some(parts) if parts.gpus == gpus => self,
            _ => Parts { gpus, ..self.parts() }.into(),
        }
    }

    /// Whether it gives this variable a value.
    pub(crate) fn sets(&self, variable: &str) -> bool {
        self.0.as_ref().is_some_and(|parts| parts.env_vars.contains_key(variable))
    }

    /// The program of its processes; `None`: the session's own.
    pub(crate) fn program(&self) -> Option<&Launch> {
        self.0.as_ref()?.program.as_ref()
    }

    /// The description for a process.
    pub(crate) fn told(&self) -> Told {
        let Parts { env_vars, working_dir, program, .. } = self.parts();
        (env_vars.into_keys().collect(), working_dir, program)
    }

    /// The environment that this process was started in, from the options that it was [told](Self::told), without GPUs:
    /// calls that a call makes demand their own.
    pub(crate) fn of_this_process((names, working_dir, program): Told) -> Self {
        let value = |name: String| Some((name.clone(), std::env::var(name).ok()?));
        let env_vars = names.into_iter().filter_map(value).collect();
        Parts { env_vars, working_dir, program, gpus: 0 }.into()
    }

    /// Has a process start in it.
    pub(crate) fn apply(&self, command: &mut Command) {
        if let Some(parts) = &self.0 {
            command.envs(&parts.env_vars);
            if let Some(directory) = &parts.working_dir {
                command.current_dir(directory);
            }
        }
    }

    fn parts(&self) -> Parts {
        self.0.as_deref().cloned().unwrap_or_default()
    }
}

impl From<Parts> for Environment {
    fn from(parts: Parts) -> Self {
        Self((parts != Parts::default()).then(|| Arc::new(parts)))
    }
}

impl From<Environment> for Parts {
    fn from(environment: Environment) -> Self {
        environment.parts()
    }
}

impl fmt::Display for Environment {
    /// Leaves out the values of the variables, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, directory, program) = self.told();
        if let Some(program) = program {
            write!(f, " of the program {}", program.program.display())?;
        }
        match self.parts().gpus {
            0 => {}
            1 => f.write_str(" with a GPU")?,
            gpus => write!(f, " with {gpus} GPUs")?,
        }
        if !names.is_empty() {
            write!(f, " with env_vars {}", names.join(", "))?;
        }
        match directory {
            Some(directory) => write!(f, " in working_dir {directory:?}"),
            None => Ok(()),
        }
    }
}

fn check_variable(name: &str, value: &str) -> Result<(), Failure> {
    if name.is_empty() || name.contains(['=', '\0']) {
        let expected = "names that are not empty and have no `=` and no NUL in them".to_owned();
        return Err(bad("env_vars", format!("the name {name:?}"), expected));
    }
    if value.contains('\0') {
        let expected = "values without NUL in them".to_owned();
        return Err(bad("env_vars", format!("{value:?} as the value of {name}"), expected));
    }
    Ok(())
}

/// The absolute path of a directory that is there.
fn existing(directory: &Path) -> Result<PathBuf, Failure> {
    let cannot = |reason: String| {
        bad("working_dir", format!("{directory:?}"), format!("a directory that exists ({reason})"))
    };
    let absolute = std::path::absolute(directory).map_err(|error| cannot(error.to_string()))?;
    match std::fs::metadata(&absolute) {
        Ok(found) if found.is_dir() => Ok(absolute),
        Ok(_) => Err(cannot("it is a file".to_owned())),
        Err(error) => Err(cannot(error.to_string())),
    }
}

fn bad(option: &str, value: String, expected: String) -> Failure {
    Failure::BadOption { option: option.to_owned(), value, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_vars(environment: &Environment, variables: &[(&str, &str)]) -> Result<Environment, Failure> {
        let env_vars = Some(EnvironmentOptions::variables(variables.iter().copied()));
        environment.with(&EnvironmentOptions { env_vars, ..Default::default() })
    }

    #[test]
    fn variables_are_added_and_replaced_and_nothing_is_the_usual_environment() {
        let usual = Environment::default();
        assert!(with_vars(&usual, &[]).unwrap().is_usual());
        let outer = with_vars(&usual, &[("A", "1"), ("B", "2")]).unwrap();
        let inner = with_vars(&outer, &[("B", "3"), ("C", "4")]).unwrap();
        assert_eq!(inner, with_vars(&usual, &[("C", "4"), ("B", "3"), ("A", "1")]).unwrap());
        assert_ne!(inner, outer);
        assert_eq!(outer.to_string(), " with env_vars A, B");
    }

    #[test]
    fn an_invalid_option_is_an_error_that_names_it() {
        let usual = Environment::default();
        for (name, value) in [("", "1"), ("A=B", "1"), ("A\0", "1"), ("NAME", "\0")] {
            let failure = with_vars(&usual, &[(name, value)]).unwrap_err();
            assert!(
                matches!(&failure, Failure::BadOption { option, .. } if option == "env_vars"),
                "{failure}"
            );
            assert!(failure.to_string().contains(&name.escape_debug().to_string()), "{failure}");
        }
        assert!(with_vars(&usual, &[("A", &"x".repeat(BYTES_MAX))]).is_err());
        let file = std::env::current_exe().unwrap();
        for directory in [PathBuf::from("/does/not/exist"), file] {
            let options = EnvironmentOptions { working_dir: Some(directory.clone()), ..Default::default() };
            let failure = usual.with(&options).unwrap_err().to_string();
            assert!(failure.starts_with(&format!("working_dir cannot be {directory:?}: ")), "{failure}");
        }
    }
}
