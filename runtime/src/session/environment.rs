//! Environment variables, which give a session the options that its program leaves open.
//!
//! A variable that is not set, or is empty, gives nothing. A bad variable, with an unknown name or a bad value, is
//! always an error that names it, even if no option needs it.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use super::gpus::Found;
use super::options::SessionOptions;
use crate::call::options::UNLIMITED;
use crate::environment::VISIBLE_GPUS;
use crate::error::{Error, Result};
use crate::process::events;

/// A variable, and the option that it gives.
struct Variable {
    name: &'static str,
    /// The option's name in errors.
    option: &'static str,
    /// The values that can be understood.
    expected: &'static str,
    /// Whether the program has given the option, or one that decides about it.
    is_given: fn(&SessionOptions) -> bool,
    /// Sets the option; `None` if the value cannot be understood.
    set: fn(&mut SessionOptions, &OsStr) -> Option<()>,
}

/// The variable that says which session to join.
pub(super) const ADDRESS: &str = "MOBULA_ADDRESS";

/// All variables. The documentation of `mobula::Builder` has a table of them.
const VARIABLES: [Variable; 21] = [
    Variable {
        name: ADDRESS,
        option: "address",
        expected: "auto, or a session's directory or socket",
        is_given: |options| options.address.is_some(),
        set: |options, value| {
            options.address = Some(value.into());
            Some(())
        },
    },
    Variable {
        name: "MOBULA_NUM_CPUS",
        option: "num_cpus",
        expected: "a number, such as 4 or 0.5",
        // The number of workers is the number of CPUs where nothing else is said.
        is_given: |options| options.amounts.num_cpus.is_some() || options.workers.is_some(),
        set: |options, value| {
            options.amounts.num_cpus = Some(parsed(value)?);
            Some(())
        },
    },
    Variable {
        name: "MOBULA_NUM_GPUS",
        option: "num_gpus",
        expected: "a number of GPUs, such as 2",
        is_given: |options| options.amounts.num_gpus.is_some(),
        set: |options, value| {
            options.amounts.num_gpus = Some(parsed::<u32>(value)?.into());
            Some(())
        },
    },
    Variable {
        name: "MOBULA_WORKERS",
        option: "workers",
        expected: "a number of processes, such as 4",
        is_given: |options| options.workers.is_some(),
        set: |options, value| {
            options.workers = Some(parsed(value)?);
            Some(())
        },
    },
    Variable {
        name: "MOBULA_MEMORY",
        option: "memory",
        expected: BYTES,
        is_given: |options| options.amounts.memory.is_some(),
        set: |options, value| {
            options.amounts.memory = Some(bytes(value)?);
            Some(())
        },
    },
    Variable {
        name: "MOBULA_RESOURCES",
        option: "resources",
        expected: "names and amounts, such as disk=1,licence=2.5",
        is_given: |options| options.amounts.resources.is_some(),
        set: |options, value| {
            let amounts = value.to_str()?.split(',').map(|part| {
                let (name, amount) = part.split_once('=')?;
                Some((name.trim().to_owned(), amount.trim().parse().ok()?))
            });
            options.amounts.resources = Some(amounts.collect::<Option<_>>()?);
            Some(())
        },
    },
    Variable {
        name: "MOBULA_MAX_PROCESSES",
        option: "max_processes",
        expected: "a number of processes, such as 100",
        is_given: |options| options.max_processes.is_some(),
        set: |options, value| {
            options.max_processes = Some(parsed(value)?);
            Some(())
        },
    },
    Variable {
        name: "MOBULA_CAPACITY",
        option: "capacity_bytes",
        expected: BYTES,
        is_given: |options| options.capacity_bytes.is_some(),
        set: |options, value| {
            options.capacity_bytes = Some(bytes(value)?);
            Some(())
        },
    },
    Variable {
        name: "MOBULA_SPILL_DIRECTORY",
        option: "spill_directory",
        expected: "a directory",
        is_given: |options| options.spill_directory.is_some(),
        set: |options, value| {
            options.spill_directory = Some(value.into());
            Some(())
        },
    },
    Variable {
        name: "MOBULA_SPILL_BYTES_MAX",
        option: "spill_bytes_max",
        expected: BYTES,
        is_given: |options| options.spill_bytes_max.is_some(),
        set: |options, value| {
            options.spill_bytes_max = Some(bytes(value)?);
            Some(())
        },
    },
    Variable {
        name: "MOBULA_SESSION_DIR",
        option: "session_dir",
        expected: "a directory",
        is_given: |options| options.session_dir.is_some(),
        set: |options, value| {
            options.session_dir = Some(value.into());
            Some(())
        },
    },
    Variable {
        name: "MOBULA_NAMESPACE",
        option: "namespace",
        expected: "a name",
        is_given: |options| options.namespace.is_some(),
        set: |options, value| {
            options.namespace = Some(value.to_str()?.to_owned());
            Some(())
        },
    },
    Variable {
        name: "MOBULA_FORWARD_OUTPUT",
        option: "forward_output",
        expected: "0 or 1",
        is_given: |options| options.forward_output.is_some(),
        set: |options, value| {
            options.forward_output = Some(match value.to_str()? {
                "0" => false,
                "1" => true,
                _ => return None,
            });
            Some(())
        },
    },
    Variable {
        name: "MOBULA_LOG_DIR",
        option: "log_dir",
        expected: "a directory",
        is_given: |options| options.log_dir.is_some(),
        set: |options, value| {
            options.log_dir = Some(value.into());
            Some(())
        },
    },
    Variable {
        name: "MOBULA_LOG_BYTES_MAX",
        option: "log_bytes_max",
        expected: BYTES,
        is_given: |options| options.log_bytes_max.is_some(),
        set: |options, value| {
            options.log_bytes_max = Some(bytes(value)?);
            Some(())
        },
    },
    Variable {
        name: "MOBULA_SPIN_US",
        option: "spin",
        expected: "a number of microseconds, such as 30",
        is_given: |options| options.spin.is_some(),
        set: |options, value| {
            options.spin = Some(Duration::from_micros(parsed(value)?));
            Some(())
        },
    },
    Variable {
        name: "MOBULA_MEMORY_USAGE_THRESHOLD",
        option: "memory_usage_threshold",
        expected: "a number, such as 0.95",
        is_given: |options| options.memory_usage_threshold.is_some(),
        set: |options, value| {
            options.memory_usage_threshold = Some(parsed(value)?);
            Some(())
        },
    },
    Variable {
        name: "MOBULA_MEMORY_MONITOR_INTERVAL_MS",
        option: "memory_monitor_interval",
        expected: "a number of milliseconds, such as 250",
        is_given: |options| options.memory_monitor_interval.is_some(),
        set: |options, value| {
            options.memory_monitor_interval = Some(Duration::from_millis(parsed(value)?));
            Some(())
        },
    },
    Variable {
        name: "MOBULA_TASK_OOM_RETRIES",
        option: "task_oom_retries",
        expected: "a number of retries, such as 3, or unlimited",
        is_given: |options| options.task_oom_retries.is_some(),
        set: |options, value| {
            let is_unlimited = value.to_str()?.trim() == "unlimited";
            options.task_oom_retries = Some(if is_unlimited { UNLIMITED } else { parsed(value)? });
            Some(())
        },
    },
    // Each process of the session reads these two itself; here they are only checked.
    Variable {
        name: events::EVENTS,
        option: "events",
        expected: events::EXPECTED,
        is_given: |_| false,
        set: |_, value| events::kinds_in(value.to_str()?).map(|_| ()),
    },
    Variable {
        name: events::CALL_SITES,
        option: "call_sites",
        expected: "0 or 1",
        is_given: |_| false,
        set: |_, value| matches!(value.to_str()?.trim(), "0" | "1").then_some(()),
    },
];

const BYTES: &str = "a number of bytes, such as 1073741824, 1024M or 1G";

/// The variables about a driver, and not about the session. The others are not read when a session is joined.
const OF_DRIVERS: [&str; 7] = [
    ADDRESS,
    "MOBULA_WORKERS",
    "MOBULA_MAX_PROCESSES",
    "MOBULA_FORWARD_OUTPUT",
    "MOBULA_SPIN_US",
    events::EVENTS,
    events::CALL_SITES,
];

/// The options, all of them valid. Options that are not set come from the environment.
pub(super) fn complete(
    mut options: SessionOptions,
    value_of: impl Fn(&str) -> Option<OsString>,
) -> Result<SessionOptions> {
    let mut taken: Vec<(&Variable, OsString)> = Vec::new();
    // Decided before any is set: one variable does not count as given by another.
    let joins = options.address.is_some() || value_of(ADDRESS).is_some_and(|value| !value.is_empty());
    // `local` asks for a session of this process, and the environment cannot change that.
    let is_local = options.address.as_deref() == Some("local".as_ref());
    let joins = joins && !is_local;
    if joins {
        options.check_joining()?;
    }
    let is_open = |variable: &&Variable| {
        !(variable.is_given)(&options) && (!joins || OF_DRIVERS.contains(&variable.name))
    };
    let open: Vec<_> = VARIABLES.iter().filter(is_open).collect();
    for variable in open {
        let Some(value) = value_of(variable.name).filter(|value| !value.is_empty()) else { continue };
        if (variable.set)(&mut options, &value).is_none() {
            return Err(variable.error(&value, variable.expected.to_owned()));
        }
        taken.push((variable, value));
    }
    options.address = options.address.filter(|_| !is_local);
    options.gpus = Found::look(value_of(VISIBLE_GPUS).as_deref());
    match options.check() {
        Ok(()) => Ok(options),
        Err(Error::Config { field, value, expected }) => {
            match taken.iter().find(|(variable, _)| variable.option == field) {
                Some((variable, value)) => Err(variable.error(value, expected)),
                None => Err(Error::Config { field, value, expected }),
            }
        }
        Err(error) => Err(error),
    }
}

impl Variable {
    fn error(&self, value: &OsStr, expected: String) -> Error {
        Error::Config { field: self.name, value: format!("{:?}", value.to_string_lossy()), expected }
    }
}

fn parsed<T: std::str::FromStr>(value: &OsStr) -> Option<T> {
    value.to_str()?.trim().parse().ok()
}

/// A number of bytes. `K` stands for 1024 bytes, and each of `M`, `G` and `T` for 1024 times the one before.
fn bytes(value: &OsStr) -> Option<u64> {
    let text = value.to_str()?.trim();
    let shift = "KMGT".find(text.chars().next_back()?).map(|position| 10 * (position as u32 + 1));
    let number: u64 = if shift.is_some() { &text[..text.len() - 1] } else { text }.parse().ok()?;
    number.checked_mul(1 << shift.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::Launch;

    fn open() -> SessionOptions {
        SessionOptions::new(0, Launch::program("program"))
    }

    fn with(variables: &[(&str, &str)], options: SessionOptions) -> Result<SessionOptions, String> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        // Without the GPUs of the machine, unless the test names some.
        let other = |name: &str| (name == VISIBLE_GPUS).then(OsString::new);
        let value_of = |name: &str| find(name).map(|(_, value)| (*value).into()).or_else(|| other(name));
        complete(options, value_of).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_give_what_the_program_leaves_open() {
        let all = [
            ("MOBULA_ADDRESS", ""),
            ("MOBULA_NUM_CPUS", "2.5"),
            ("MOBULA_NUM_GPUS", "2"),
            ("MOBULA_WORKERS", "3"),
            ("MOBULA_MEMORY", "3K"),
            ("MOBULA_RESOURCES", "disk=1, licence = 2.5"),
            ("MOBULA_MAX_PROCESSES", "9"),
            ("MOBULA_CAPACITY", "64M"),
            ("MOBULA_SPILL_DIRECTORY", "/disk"),
            ("MOBULA_SPILL_BYTES_MAX", "0"),
            ("MOBULA_SESSION_DIR", "/run/here"),
            ("MOBULA_NAMESPACE", "mine"),
            ("MOBULA_FORWARD_OUTPUT", "0"),
            ("MOBULA_LOG_DIR", "/logs"),
            ("MOBULA_LOG_BYTES_MAX", "1M"),
            ("MOBULA_SPIN_US", "7"),
            ("MOBULA_MEMORY_USAGE_THRESHOLD", "0.5"),
            ("MOBULA_MEMORY_MONITOR_INTERVAL_MS", "0"),
            ("MOBULA_TASK_OOM_RETRIES", "unlimited"),
            ("MOBULA_EVENTS", "all"),
            ("MOBULA_CALL_SITES", "1"),
        ];
        assert_eq!(all.map(|(name, _)| name), VARIABLES.map(|variable| variable.name));
        let with_gpus = [&[(VISIBLE_GPUS, "4,6,7")], &all[..]].concat();
        let options = with(&with_gpus, open()).unwrap();
        let resources = options.resources(0).unwrap().to_string();
        assert_eq!(resources, "2.5 CPU, 2 GPU, 1 disk, 2.5 licence, 3072 bytes of memory");
        assert_eq!(options.gpu_names().unwrap(), ["4", "6"]);
        assert_eq!((options.workers, options.max_processes), (Some(3), Some(9)));
        assert_eq!((options.capacity_bytes, options.spill_bytes_max), (Some(64 << 20), Some(0)));
        assert_eq!(options.spill_directory.as_deref(), Some("/disk".as_ref()));
        assert_eq!(options.session_dir.as_deref(), Some("/run/here".as_ref()));
        assert_eq!(options.namespace.as_deref(), Some("mine"));
        assert_eq!((options.forward_output, options.spin), (Some(false), Some(Duration::from_micros(7))));
        assert_eq!((options.memory_usage_threshold, options.task_oom_retries), (Some(0.5), Some(UNLIMITED)));
        assert_eq!(options.memory_monitor_interval, Some(Duration::ZERO));
        assert_eq!((options.log_dir, options.log_bytes_max), (Some("/logs".into()), Some(1 << 20)));

        let mut given = open();
        (given.workers, given.capacity_bytes, given.forward_output) = (Some(1), Some(1 << 20), Some(true));
        let options = with(&with_gpus, given).unwrap();
        assert_eq!((options.workers, options.capacity_bytes), (Some(1), Some(1 << 20)));
        assert_eq!(options.forward_output, Some(true));
        assert_eq!(options.resources(0).unwrap().num_cpus(), 1.0, "one for each worker of the program");

        assert!(with(&all.map(|(name, _)| (name, "")), open()).is_ok(), "empty ones give nothing");
    }

    #[test]
    fn a_driver_that_joins_leaves_the_session_as_it_is() {
        let variables = [("MOBULA_ADDRESS", "auto"), ("MOBULA_NUM_CPUS", "many"), ("MOBULA_WORKERS", "3")];
        let options = with(&variables, open()).unwrap();
        assert_eq!(options.address.as_deref(), Some("auto".as_ref()));
        assert_eq!((options.workers, options.amounts.num_cpus), (Some(3), None));
        let mut given = open();
        given.capacity_bytes = Some(1 << 20);
        let error = with(&variables, given).unwrap_err();
        assert!(error.starts_with("capacity_bytes cannot be 1048576: a session that is joined"), "{error}");
    }

    #[test]
    fn a_bad_variable_is_an_error_that_names_it() {
        for (name, value, expected) in [
            ("MOBULA_NUM_CPUS", "many", "a number, such as 4 or 0.5"),
            ("MOBULA_NUM_CPUS", "-1", "0, or a number from 0.0001 on"),
            ("MOBULA_NUM_GPUS", "0.5", "a number of GPUs"),
            ("MOBULA_NUM_GPUS", "1", "at most the 0 that CUDA_VISIBLE_DEVICES names"),
            ("MOBULA_NUM_GPUS", "1001", "a whole number of GPUs, at most 1000"),
            ("MOBULA_WORKERS", "0", "between 1 and 1000 processes"),
            ("MOBULA_WORKERS", "2.5", "a number of processes"),
            ("MOBULA_MEMORY", "1.5G", "a number of bytes, such as"),
            ("MOBULA_MEMORY", "G", "a number of bytes, such as"),
            ("MOBULA_MEMORY", "99999999999T", "a number of bytes, such as"),
            ("MOBULA_RESOURCES", "disk", "names and amounts, such as disk=1"),
            ("MOBULA_RESOURCES", "CPU=1", "names of your own"),
            ("MOBULA_RESOURCES", "disk=-1", "0, or a number from 0.0001 on"),
            ("MOBULA_MAX_PROCESSES", "0", "more than the"),
            ("MOBULA_CAPACITY", "0", "at least 1 byte"),
            ("MOBULA_SPILL_BYTES_MAX", "-1", "a number of bytes"),
            ("MOBULA_FORWARD_OUTPUT", "yes", "0 or 1"),
            ("MOBULA_SPIN_US", "30us", "a number of microseconds"),
            ("MOBULA_MEMORY_USAGE_THRESHOLD", "95%", "a number, such as 0.95"),
            ("MOBULA_MEMORY_USAGE_THRESHOLD", "1.5", "more than 0, at most 1"),
            ("MOBULA_MEMORY_USAGE_THRESHOLD", "NaN", "more than 0, at most 1"),
            ("MOBULA_MEMORY_MONITOR_INTERVAL_MS", "1s", "a number of milliseconds"),
            ("MOBULA_TASK_OOM_RETRIES", "-1", "a number of retries"),
            ("MOBULA_EVENTS", "everything", "usual, all, none, or"),
            ("MOBULA_EVENTS", "waits,nonsense", "usual, all, none, or"),
            ("MOBULA_CALL_SITES", "yes", "0 or 1"),
        ] {
            let error = with(&[(name, value)], open()).unwrap_err();
            assert!(error.starts_with(&format!("{name} cannot be {value:?}: ")), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        // A bad value of the program itself is reported as the program's.
        let mut given = open();
        given.workers = Some(0);
        assert!(with(&[("MOBULA_NUM_CPUS", "2")], given).unwrap_err().starts_with("workers cannot be 0"));
    }
}
