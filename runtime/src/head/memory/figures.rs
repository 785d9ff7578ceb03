//! How much memory is in use, and how much there may be: on the machine, and in each control group that the session is
//! in.
//!
//! The files stay open, and each look reads them again, with one system call for each file. A look reads
//! `/proc/meminfo`, the limits of each group, and the use of groups that have one. Only where the use is near the
//! limit, it also reads how much of it is file cache, and how long tasks have stalled for lack of memory (PSI).
//!
//! Memory is in use if the kernel cannot take it back: file cache does not count, and shared memory, where the store
//! has its objects, does. No content of the files makes anything here fail: a figure that cannot be read is unknown.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mobula_client::internal::descriptors::above_standard;
use mobula_store::machine::{Group, Version, memory_groups};

use crate::error::{Bytes, MemoryLimit};

/// Use above this share of the threshold is near it.
const NEAR: f64 = 0.9;
/// Memory is short if all tasks stall for this share of the time and its use is near the threshold.
const STALLED_SHORT: f64 = 0.5;
/// A limit of at least this means no limit. Version 1 has no other way to say it.
const UNLIMITED_BYTES: u64 = 1 << 60;
/// The most bytes of a file that are read. The longest of them, `memory.stat`, has about 2 KiB.
const FILE_BYTES_MAX: usize = 16 << 10;

/// The memory that is in use where it is closest to the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    pub(crate) limit: MemoryLimit,
    pub(crate) used_bytes: u64,
    pub(crate) limit_bytes: u64,
    /// The part of the use that is shared memory.
    pub(crate) shared_bytes: u64,
    /// The share of the time since the last look in which all tasks stalled for lack of memory. 0 if the use is not
    /// near the threshold, or if the kernel does not report it.
    pub(crate) stalled: f64,
}

impl Figures {
    /// The share of the limit that is in use.
    pub(super) fn share(&self) -> f64 {
        self.used_bytes as f64 / self.limit_bytes as f64
    }

    /// Whether memory is short: more than the threshold, a share of the limit, is in use, or all tasks stall.
    pub(super) fn is_short(&self, threshold: f64) -> bool {
        self.share() >= threshold || self.is_near(threshold) && self.stalled >= STALLED_SHORT
    }

    /// Whether the use is near the threshold.
    fn is_near(&self, threshold: f64) -> bool {
        self.share() >= threshold * NEAR
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, used_bytes, limit_bytes, shared_bytes, .. } = *self;
        let (used, of, shared) = (Bytes(used_bytes), Bytes(limit_bytes), Bytes(shared_bytes));
        write!(f, "{used} of {of} of {limit} are in use, {shared} of them for shared memory such as objects")
    }
}

/// The open files; see the module's documentation.
#[derive(Debug)]
pub(super) struct Sources {
    scopes: Vec<Scope>,
    buffer: Box<[u8]>,
    /// The system calls so far.
    reads: u64,
}

/// One limit: of the machine, or of a group.
#[derive(Debug)]
struct Scope {
    files: Files,
    /// The file with the time in which all tasks stalled, by the kernel's count.
    pressure: Option<File>,
    /// The last value of that time, and when it was read.
    stalled_before: Option<(Instant, Duration)>,
}

#[derive(Debug)]
enum Files {
    Machine { meminfo: File },
    Group { version: Version, limits: Vec<File>, usage: File, stat: Option<File> },
}

/// Bytes of memory in use, and of their limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    used: u64,
    limit: u64,
    shared: u64,
}

impl Sources {
    /// Opens the files that exist under `root`, which is `/` except in tests.
    pub(super) fn open(root: &Path) -> Self {
        let meminfo = open(&root.join("proc/meminfo"));
        let machine = meminfo.map(|meminfo| Scope {
            files: Files::Machine { meminfo },
            pressure: open(&root.join("proc/pressure/memory")),
            stalled_before: None,
        });
        let groups = memory_groups(root).into_iter().filter_map(Scope::of_group);
        let scopes = machine.into_iter().chain(groups).collect();
        Self { scopes, buffer: vec![0; FILE_BYTES_MAX].into(), reads: 0 }
    }

    /// Whether no file shows how much memory is in use.
    pub(super) fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }

    /// Reads the figures where the use is closest to the limit. `threshold` is the share of the limit that may be in
    /// use.
    pub(super) fn look(&mut self, threshold: f64, now: Instant) -> Option<Figures> {
        let Self { scopes, buffer, reads } = self;
        let mut reader = Reader { buffer, reads };
        let figures = scopes.iter_mut().filter_map(|scope| scope.look(&mut reader, threshold, now));
        figures.max_by(|one, other| {
            let is_short = |figures: &Figures| figures.is_short(threshold);
            is_short(one).cmp(&is_short(other)).then(one.share().total_cmp(&other.share()))
        })
    }

    /// The number of system calls that all looks together have made.
    #[cfg(test)]
    fn reads(&self) -> u64 {
        self.reads
    }
}

impl Scope {
    fn of_group(group: Group) -> Option<Self> {
        let file = |name: &str| open(&group.directory.join(name));
        let (limits, usage, pressure): (&[&str], _, _) = match group.version {
            Version::One => (&["memory.limit_in_bytes"], "memory.usage_in_bytes", None),
            Version::Two => (&["memory.max", "memory.high"], "memory.current", file("memory.pressure")),
        };
        let limits: Vec<File> = limits.iter().filter_map(|name| file(name)).collect();
        let usage = file(usage).filter(|_| !limits.is_empty())?;
        let files = Files::Group { version: group.version, limits, usage, stat: file("memory.stat") };
        Some(Self { files, pressure, stalled_before: None })
    }

    fn look(&mut self, reader: &mut Reader<'_>, threshold: f64, now: Instant) -> Option<Figures> {
        let (limit, usage) = match &self.files {
            Files::Machine { meminfo } => (MemoryLimit::Machine, of_machine(reader.read(meminfo)?)?),
            Files::Group { version, limits, usage, stat } => {
                let limits = limits.iter().filter_map(|file| number(reader.read(file)?));
                let limit = limits.min().filter(|limit| (1..UNLIMITED_BYTES).contains(limit))?;
                let all = Usage { used: number(reader.read(usage)?)?, limit, shared: 0 };
                let is_near = all.used as f64 >= limit as f64 * threshold * NEAR;
                let stat = stat.as_ref().filter(|_| is_near).and_then(|file| reader.read(file));
                let usage = stat.map_or(all, |stat| without_cache(all, stat, *version));
                (MemoryLimit::ControlGroup, usage)
            }
        };
        let Usage { used: used_bytes, limit: limit_bytes, shared: shared_bytes } = usage;
        let mut figures = Figures { limit, used_bytes, limit_bytes, shared_bytes, stalled: 0.0 };
        if figures.is_near(threshold) {
            figures.stalled = self.stalled(reader, now);
        } else {
            self.stalled_before = None;
        }
        Some(figures)
    }

    /// The share of the time since the last call in which all tasks stalled.
    fn stalled(&mut self, reader: &mut Reader<'_>, now: Instant) -> f64 {
        let total = self.pressure.as_ref().and_then(|file| full_stalls(reader.read(file)?));
        let Some(total) = total else { return 0.0 };
        let Some((at, before)) = self.stalled_before.replace((now, total)) else { return 0.0 };
        let passed = now.saturating_duration_since(at);
        if passed.is_zero() {
            return 0.0;
        }
        total.saturating_sub(before).as_secs_f64() / passed.as_secs_f64()
    }
}

/// Opens a file that stays open. Its descriptor is never a standard one, even if the program has closed those.
fn open(path: &Path) -> Option<File> {
    Some(above_standard(File::open(path).ok()?.into()).ok()?.into())
}

/// Reads files from their beginning.
struct Reader<'a> {
    buffer: &'a mut [u8],
    reads: &'a mut u64,
}

impl Reader<'_> {
    fn read(&mut self, file: &File) -> Option<&str> {
        *self.reads += 1;
        let bytes = file.read_at(self.buffer, 0).ok()?;
        std::str::from_utf8(&self.buffer[..bytes]).ok()
    }
}

/// Bytes that a process has in memory, without memory that it shares with others.
pub(crate) fn own_bytes(pid: u32) -> Option<u64> {
    of_process(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

// ---- the texts of the files ----

/// Bytes by the line of a `/proc` file that begins with a name, as in `MemTotal:   24684084 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// From `/proc/meminfo`.
fn of_machine(text: &str) -> Option<Usage> {
    let limit = kilobytes(text, "MemTotal:").filter(|total| *total > 0)?;
    let used = limit.saturating_sub(kilobytes(text, "MemAvailable:")?);
    Some(Usage { used, limit, shared: kilobytes(text, "Shmem:").unwrap_or(0) })
}

/// The number in a file that has only one. `max` means that there is no limit.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The usage of a group without its file cache, by its `memory.stat`.
fn without_cache(all: Usage, text: &str, version: Version) -> Usage {
    // Of version 1, the numbers without the groups inside have the same names.
    let prefix = match version {
        Version::One => "total_",
        Version::Two => "",
    };
    let value = |name: &str| {
        let values = text.lines().filter_map(|line| {
            let (key, value) = line.strip_prefix(prefix)?.split_once(' ')?;
            (key == name).then(|| value.trim().parse().ok())?
        });
        values.max().unwrap_or(0u64)
    };
    let cache = value("inactive_file").saturating_add(value("active_file"));
    Usage { used: all.used.saturating_sub(cache), shared: value("shmem").min(all.used), ..all }
}

/// The time in which all tasks stalled, from a pressure file's line `full avg10=0.00 avg60=0.00 avg300=0.00
/// total=13534624`.
fn full_stalls(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let total = line.split(' ').find_map(|field| field.strip_prefix("total="))?;
    Some(Duration::from_micros(total.trim().parse().ok()?))
}

/// From `/proc/PID/status`. Old kernels give only the sum.
fn of_process(text: &str) -> Option<u64> {
    kilobytes(text, "RssAnon:").or_else(|| kilobytes(text, "VmRSS:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLD: f64 = 0.95;
    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const MB: u64 = 1 << 20;

    /// Files under a root.
    struct Root(tempfile::TempDir);

    impl Root {
        fn new(files: &[(&str, &str)]) -> Self {
            let root = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(path, text)| root.write(path, text));
            root
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn machine(&self, total: u64, available: u64, shared: u64) {
            let [total, available, shared] = [total, available, shared].map(|bytes| bytes / 1024);
            let text = format!(
                "MemTotal: {total:>10} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\nShmem: {shared} kB\n"
            );
            self.write("proc/meminfo", &text);
        }

        fn open(&self) -> Sources {
            Sources::open(self.0.path())
        }

        fn look(&self) -> Option<Figures> {
            self.open().look(THRESHOLD, Instant::now())
        }
    }

    fn figures(limit: MemoryLimit, used: u64, of: u64, shared: u64) -> Option<Figures> {
        Some(Figures { limit, used_bytes: used, limit_bytes: of, shared_bytes: shared, stalled: 0.0 })
    }

    #[test]
    fn of_the_machine_what_is_not_available_is_in_use() {
        let root = Root::new(&[]);
        root.machine(1000 * MB, 300 * MB, 20 * MB);
        assert_eq!(root.look(), figures(MemoryLimit::Machine, 700 * MB, 1000 * MB, 20 * MB));
        let mut sources = root.open();
        root.machine(1000 * MB, 10 * MB, 0);
        let figures = sources.look(THRESHOLD, Instant::now()).unwrap();
        assert_eq!(figures.used_bytes, 990 * MB, "the open file is read anew");
        assert!(figures.is_short(THRESHOLD) && !figures.is_short(0.995));
    }

    #[test]
    fn of_nested_groups_the_one_closest_to_its_limit_counts() {
        let root = Root::new(&[
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "1000\n"),
            ("sys/fs/cgroup/outer/memory.current", "600\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/inner/memory.high", "max\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "500\n"),
        ]);
        root.machine(1000 * MB, 900 * MB, 0);
        assert_eq!(root.look(), figures(MemoryLimit::ControlGroup, 600, 1000, 0));
        root.write("sys/fs/cgroup/outer/inner/memory.high", "800\n");
        assert_eq!(root.look(), figures(MemoryLimit::ControlGroup, 500, 800, 0));
        root.machine(1000 * MB, 100 * MB, 0);
        assert_eq!(root.look(), figures(MemoryLimit::Machine, 900 * MB, 1000 * MB, 0));
    }

    #[test]
    fn file_cache_is_not_in_use() {
        let own = "sys/fs/cgroup/memory/my group/";
        let stat = "cache 700\nshmem 1\ninactive_file 1\nactive_file 1\ntotal_shmem 50\ntotal_inactive_file 400\n\
                    total_active_file 200\n";
        let root = Root::new(&[
            ("proc/self/mountinfo", V1),
            ("proc/self/cgroup", "4:memory:/my group\n"),
            (&format!("{own}memory.limit_in_bytes"), "1000\n"),
            (&format!("{own}memory.usage_in_bytes"), "980\n"),
            (&format!("{own}memory.stat"), stat),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "12345\n"),
        ]);
        assert_eq!(root.look(), figures(MemoryLimit::ControlGroup, 380, 1000, 50));

        let root = Root::new(&[
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "1000\n"),
            ("sys/fs/cgroup/memory.current", "990\n"),
            ("sys/fs/cgroup/memory.stat", "anon 5\nshmem 50\ninactive_file 10\nactive_file 5\n"),
        ]);
        assert_eq!(root.look(), figures(MemoryLimit::ControlGroup, 975, 1000, 50));
        assert!(root.look().unwrap().is_short(THRESHOLD));
    }

    #[test]
    fn memory_is_short_where_nothing_goes_on_near_the_threshold() {
        let pressure =
            |micros: u64| format!("some avg10=0.00 total=9\nfull avg10=0.00 avg60=0.00 total={micros}\n");
        let root = Root::new(&[("proc/pressure/memory", &pressure(1_000_000))]);
        root.machine(1000 * MB, 100 * MB, 0);
        let (mut sources, begin) = (root.open(), Instant::now());
        let mut look = |at: u64| {
            let figures = sources.look(THRESHOLD, begin + Duration::from_millis(at)).unwrap();
            (figures.stalled, figures.is_short(THRESHOLD))
        };
        assert_eq!(look(0), (0.0, false), "the first count says nothing");
        root.write("proc/pressure/memory", &pressure(1_100_000));
        assert_eq!(look(1000), (0.1, false));
        root.write("proc/pressure/memory", &pressure(1_700_000));
        assert_eq!(look(2000), (0.6, true));
        root.machine(1000 * MB, 200 * MB, 0);
        assert_eq!(look(3000), (0.0, false), "too far from the threshold");
        root.machine(1000 * MB, 100 * MB, 0);
        root.write("proc/pressure/memory", &pressure(90_000_000));
        assert_eq!(look(4000), (0.0, false), "the time in between is not known");
    }

    /// The cost of a session that has memory enough.
    #[test]
    fn a_look_makes_few_system_calls() {
        let root = Root::new(&[
            ("proc/pressure/memory", ""),
            ("proc/self/mountinfo", V2),
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/memory.max", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory.current", "7\n"),
            ("sys/fs/cgroup/outer/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/memory.current", "600\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "1000\n"),
            ("sys/fs/cgroup/outer/inner/memory.high", "max\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "500\n"),
            ("sys/fs/cgroup/outer/inner/memory.stat", ""),
        ]);
        root.machine(1000 * MB, 900 * MB, 0);
        let mut sources = root.open();
        for _ in 0..10 {
            sources.look(THRESHOLD, Instant::now()).unwrap();
        }
        // The machine's file, the limits of the outer groups, and three files of the inner one.
        assert_eq!(sources.reads(), 10 * 6);
    }

    #[test]
    fn files_that_are_missing_or_make_no_sense_say_nothing() {
        assert!(Root::new(&[]).open().is_empty());
        let texts =
            ["", "\n", "max", "-1", "18446744073709551616", "9e9", "kB", "MemTotal: kB\n", "\u{fffd}\0"];
        for text in texts {
            let file = |name| (name, text);
            let root = Root::new(&[
                ("proc/self/mountinfo", V2),
                ("proc/self/cgroup", "0::/\n"),
                file("proc/meminfo"),
                file("proc/pressure/memory"),
                file("sys/fs/cgroup/memory.max"),
                file("sys/fs/cgroup/memory.current"),
                file("sys/fs/cgroup/memory.stat"),
            ]);
            assert_eq!(root.look(), None, "{text:?}");
        }
        for (limit, used) in [("0", "5"), ("18446744073709551615", "18446744073709551615"), ("1", "0")] {
            let root = Root::new(&[
                ("proc/self/mountinfo", V2),
                ("proc/self/cgroup", "0::/\n"),
                ("proc/meminfo", "MemTotal: 18014398509481983 kB\nMemAvailable: 18446744073709551615 kB\n"),
                ("sys/fs/cgroup/memory.max", limit),
                ("sys/fs/cgroup/memory.current", used),
                (
                    "sys/fs/cgroup/memory.stat",
                    "inactive_file 18446744073709551615\nactive_file 1\nshmem 7 7\n",
                ),
                ("sys/fs/cgroup/memory.pressure", "full total=18446744073709551615\n"),
            ]);
            let mut sources = root.open();
            let _ = sources.look(0.0, Instant::now());
            let _ = sources.look(0.0, Instant::now());
        }
        // The directory of a group is gone: its open files cannot be read any more.
        let root = Root::new(&[("proc/meminfo", "")]);
        std::fs::create_dir(root.0.path().join("proc/pressure")).unwrap();
        std::fs::create_dir(root.0.path().join("proc/pressure/memory")).unwrap();
        assert_eq!(root.look(), None);
    }

    #[test]
    fn a_process_has_memory_of_its_own() {
        assert_eq!(of_process("VmRSS:\t    1728 kB\nRssAnon:\t     112 kB\n"), Some(112 * 1024));
        assert_eq!(of_process("VmRSS:\t    1728 kB\n"), Some(1728 * 1024));
        assert_eq!(of_process("Name:\tRssAnon: 7 kB\n"), None);
        let grown = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(own_bytes(std::process::id()).unwrap() >= grown.len() as u64);
        assert_eq!(own_bytes(u32::MAX), None);
    }

    #[test]
    fn this_machine_says_how_much_memory_is_in_use() {
        let figures = Sources::open(Path::new("/")).look(THRESHOLD, Instant::now()).unwrap();
        assert!(figures.used_bytes > 0 && figures.share() < 2.0, "{figures:?}");
    }
}
