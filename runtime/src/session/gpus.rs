//! The GPUs of a session: their number, and the names by which processes see them.
//!
//! The driver's `CUDA_VISIBLE_DEVICES` says which GPUs it may use, as numbers or as other names. If it is not set, the
//! files of the NVIDIA driver say how many the machine has. A program may also say how many there are, for GPUs that
//! are found in neither way, and for tests.

use std::ffi::OsStr;
use std::path::Path;

/// The most GPUs of a session.
pub(super) const GPUS_MAX: u32 = 1000;

/// The GPUs that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing looked for them.
    #[default]
    Nothing,
    /// The GPUs that `CUDA_VISIBLE_DEVICES` names; no others may be used.
    Named(Vec<String>),
    /// The number of GPUs in the machine.
    Machine(u32),
}

impl Found {
    /// Looks for GPUs. `visible` is the value of `CUDA_VISIBLE_DEVICES`.
    pub(super) fn look(visible: Option<&OsStr>) -> Self {
        match visible {
            Some(visible) => Self::Named(named(&visible.to_string_lossy())),
            None => Self::Machine(on_machine(Path::new("/proc/driver/nvidia/gpus"), Path::new("/dev"))),
        }
    }

    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Named(names) => u32::try_from(names.len()).unwrap_or(u32::MAX).min(GPUS_MAX),
            Self::Machine(count) => *count,
        }
    }

    /// The names of the first `count` GPUs; `None` if there are fewer.
    pub(super) fn names(&self, count: u32) -> Option<Vec<String>> {
        match self {
            Self::Named(names) => names.get(..count as usize).map(<[String]>::to_vec),
            _ => Some((0..count).map(|gpu| gpu.to_string()).collect()),
        }
    }
}

/// The names in `CUDA_VISIBLE_DEVICES`. As in CUDA, an invalid name and all names after it are ignored.
fn named(visible: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let possible = |name: &&str| !(name.is_empty() || name.starts_with('-') || *name == "NoDevFiles");
    for name in visible.split(',').map(str::trim).take_while(possible) {
        // A GPU is given out once, however often it is named.
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// How many GPUs the driver's files show: a directory for each, or a device for each.
fn on_machine(driver: &Path, devices: &Path) -> u32 {
    let count = |directory: &Path, is_one: &dyn Fn(&str) -> bool| {
        let entries = std::fs::read_dir(directory).ok()?.flatten();
        let count = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_one)).count();
        u32::try_from(count).ok().map(|count| count.min(GPUS_MAX))
    };
    let is_device = |name: &str| {
        let number = name.strip_prefix("nvidia");
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    count(driver, &|_| true).or_else(|| count(devices, &is_device)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_those_that_may_be_used() {
        let found = |visible: &str| Found::look(Some(OsStr::new(visible)));
        for (visible, names) in [
            ("", vec![]),
            ("-1", vec![]),
            ("NoDevFiles", vec![]),
            ("0", vec!["0"]),
            ("3, 5", vec!["3", "5"]),
            ("1,-1,2", vec!["1"]),
            ("2,2,0", vec!["2", "0"]),
            ("GPU-7d1f,MIG-22", vec!["GPU-7d1f", "MIG-22"]),
        ] {
            let found = found(visible);
            assert_eq!(
                found,
                Found::Named(names.iter().map(|name| (*name).to_owned()).collect()),
                "{visible:?}"
            );
            assert_eq!(found.count() as usize, names.len());
        }
        assert_eq!(found("3,5").names(1), Some(vec!["3".to_owned()]));
        assert_eq!(found("3,5").names(3), None);
    }

    #[test]
    fn otherwise_the_files_of_the_driver_say_how_many_there_are() {
        let root = tempfile::tempdir().unwrap();
        let (driver, devices) = (root.path().join("gpus"), root.path().join("dev"));
        assert_eq!(on_machine(&driver, &devices), 0);
        std::fs::create_dir(&devices).unwrap();
        for name in ["nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm", "null"] {
            std::fs::write(devices.join(name), "").unwrap();
        }
        assert_eq!(on_machine(&driver, &devices), 3);
        std::fs::create_dir_all(driver.join("0000:01:00.0")).unwrap();
        assert_eq!(on_machine(&driver, &devices), 1);
        assert_eq!(Found::Machine(2).names(4).unwrap(), ["0", "1", "2", "3"], "as many as the program says");
    }
}
