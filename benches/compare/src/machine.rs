//! The page's lines about the machine and about versions.

use std::process::Command;

/// The lock file that this harness was built with.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// Lines of the page, each a name and a value.
pub(crate) fn describe() -> Vec<(String, String)> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let lines = [
        ("processor", format!("{}, {cores} cores", after("/proc/cpuinfo", "model name").unwrap_or_default())),
        ("memory", memory()),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("huge pages", format!("{} (shared memory: {})", chosen("enabled"), chosen("shmem_enabled"))),
        ("compiler", output("rustc", &["--version"])),
        ("load before", load()),
        ("date", output("date", &["-u", "+%Y-%m-%d"])),
    ];
    lines.map(|(name, value)| (name.to_owned(), value)).into()
}

/// How many processes wanted to run in the last minute. More than a few tenths mean that others were at work too.
fn load() -> String {
    read("/proc/loadavg").split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// The version of a crate that this harness is built with.
pub(crate) fn version_of(name: &str) -> String {
    version_in(LOCK, name).unwrap_or("?").to_owned()
}

fn version_in<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("\nname = \"{name}\"\n"))?;
    rest.lines().next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn after(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> String {
    let kilobytes = after("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or(0.0);
    format!("{:.1} GiB", kilobytes / f64::from(1 << 20))
}

/// The choice in brackets of a setting of the kernel's.
fn chosen(setting: &str) -> String {
    let text = read(&format!("/sys/kernel/mm/transparent_hugepage/{setting}"));
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(text.clone(), |(chosen, _)| chosen.to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = "version = 4\n\n\
                    [[package]]\nname = \"heed-types\"\nversion = \"0.21.0\"\n\n\
                    [[package]]\nname = \"heed\"\nversion = \"0.22.1\"\n";
        assert_eq!(version_in(lock, "heed"), Some("0.22.1"));
        assert_eq!(version_in(lock, "lmdb"), None);
        assert_ne!(version_of("iceoryx2"), "?");
    }
}
