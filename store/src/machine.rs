//! The resources of the machine that this process may use: all of its memory, or what its control group (a container's,
//! a service's) allows.
//!
//! Both versions of control groups are read, nested ones included: the lowest limit on the way to the root counts. Only
//! mounted groups can be seen: in a container, these are its own group and the groups inside it. A crate for control
//! groups would bring their whole management, and this module reads only a few files.
//!
//! Shared memory is charged to the group of the process that touches a page first. The store's process allocates
//! segments before any other process has them, so the limit of the store's group counts. The number of processors needs
//! no code here: [`std::thread::available_parallelism`] reads the affinity mask, which includes cpusets, and the quotas
//! of both versions.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Bytes of memory that this process may use at most; `None` where the system does not say.
pub fn memory_bytes() -> Option<u64> {
    memory_bytes_in(Path::new("/"))
}

/// Bytes of memory that this process may use at most, by the files under `root`.
fn memory_bytes_in(root: &Path) -> Option<u64> {
    [total_bytes(root), group_limit(root, MEMORY)].into_iter().flatten().min()
}

/// The machine's memory.
fn total_bytes(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// How many processes and threads the control groups that this process is in allow.
pub fn group_tasks_max() -> Option<u64> {
    group_limit(Path::new("/"), TASKS)
}

/// The resources that control groups limit: by which controller, and by which files in each version.
#[derive(Clone, Copy)]
struct Limited {
    controller: &'static str,
    one: &'static [&'static str],
    two: &'static [&'static str],
}

const MEMORY: Limited =
    Limited { controller: "memory", one: &["memory.limit_in_bytes"], two: &["memory.max", "memory.high"] };
const TASKS: Limited = Limited { controller: "pids", one: &["pids.max"], two: &["pids.max"] };

/// A version of control groups.
///
/// This is exhaustive: no other version exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tree for each controller.
    One,
    /// One tree for all.
    Two,
}

/// A control group that this process is in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// The version, which decides the names of its files.
    pub version: Version,
    /// The directory of its files.
    pub directory: PathBuf,
}

/// The visible control groups that this process is in and that may limit its memory. The files lie under `root`, which
/// is `/` except in tests.
#[must_use]
pub fn memory_groups(root: &Path) -> Vec<Group> {
    groups(root, MEMORY.controller)
}

/// The lowest limit of the control groups that this process is in.
fn group_limit(root: &Path, limited: Limited) -> Option<u64> {
    let groups = groups(root, limited.controller);
    let limits = groups.iter().flat_map(|group| {
        let files = match group.version {
            Version::One => limited.one,
            Version::Two => limited.two,
        };
        files.iter().map(|file| group.directory.join(file))
    });
    limits.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()).min()
}

/// The control groups of a controller that this process is in, each before those that it is in itself.
fn groups(root: &Path, controller: &str) -> Vec<Group> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = std::fs::read(root.join("proc/self/mountinfo")).unwrap_or_default();
    let mounts: Vec<_> =
        mounts.split(|byte| *byte == b'\n').filter_map(|line| Mount::parse(line, controller)).collect();
    let groups = groups.lines().filter_map(|line| {
        // Number, controllers, and the path of the group.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, Path::new(parts.next()?));
        let version = match controllers {
            "" => Version::Two,
            names if names.split(',').any(|name| name == controller) => Version::One,
            _ => return None,
        };
        Some((version, group))
    });
    let directories = groups.flat_map(|(version, group)| {
        let of_version = mounts.iter().filter(move |mount| mount.version == version);
        of_version.flat_map(move |mount| mount.groups(root, group))
    });
    directories.collect()
}

/// Where control groups are mounted.
#[derive(Debug)]
struct Mount {
    version: Version,
    /// The group that is visible at the mount point.
    group: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// From a line of `/proc/self/mountinfo`: `30 23 0:26 /group /sys/fs/cgroup rw - cgroup2 none rw`.
    fn parse(line: &[u8], controller: &str) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let options = fields.get(dash + 3).copied().unwrap_or_default();
        let version = match *fields.get(dash + 1)? {
            b"cgroup2" => Version::Two,
            b"cgroup"
                if options.split(|byte| *byte == b',').any(|option| option == controller.as_bytes()) =>
            {
                Version::One
            }
            _ => return None,
        };
        Some(Self { version, group: unescape(fields.get(3)?), point: unescape(fields.get(4)?) })
    }

    /// A group and the groups around it that are visible here.
    fn groups(&self, root: &Path, group: &Path) -> Vec<Group> {
        let Ok(point) = self.point.strip_prefix("/") else { return Vec::new() };
        let point = root.join(point);
        // A group that is not to be seen has what the mount point says, at least.
        let inside = group.strip_prefix(&self.group).unwrap_or(Path::new(""));
        let is_plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let group = if is_plain { point.join(inside) } else { point.clone() };
        let groups = group.ancestors().take_while(|ancestor| ancestor.starts_with(&point));
        groups.map(|group| Group { version: self.version, directory: group.to_owned() }).collect()
    }
}

/// Paths in `mountinfo` have blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, more)) = rest.split_first() {
        let code = match rest {
            [b'\\', digits @ ..] => digits.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()),
            _ => None,
        };
        let byte = code.and_then(|code| u8::from_str_radix(code, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &rest[4..] } else { more };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\n");
    const TOTAL: u64 = 16_000_000 * 1024;
    const UNLIMITED_V1: &str = "9223372036854771712\n";

    /// The value that is read where there are just these files.
    fn check(files: &[(&str, &str)], expected: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(memory_bytes_in(root.path()), expected, "{files:?}");
    }

    #[test]
    fn the_lowest_limit_of_tasks_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(group_limit(root.path(), TASKS), None);
        write(V2.0, V2.1);
        write("proc/self/cgroup", "0::/user.slice/app.service\n");
        write("sys/fs/cgroup/user.slice/pids.max", "500\n");
        write("sys/fs/cgroup/user.slice/app.service/pids.max", "max\n");
        assert_eq!(group_limit(root.path(), TASKS), Some(500));
        write("sys/fs/cgroup/user.slice/app.service/pids.max", "40\n");
        assert_eq!(group_limit(root.path(), TASKS), Some(40));
    }

    #[test]
    fn without_control_groups_it_is_the_machines_memory() {
        check(&[MEMINFO], Some(TOTAL));
        check(&[MEMINFO, ("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", "")], Some(TOTAL));
        check(&[], None);
        let nonsense = ("proc/self/cgroup", "\n:\n0::\n1:memory\nx:memory:..\n0::/../..\n");
        let mounts =
            ("proc/self/mountinfo", "\n- cgroup2\n1 2 3 - cgroup2\n1 2 3 / relative rw - cgroup2 x rw\n");
        check(&[MEMINFO, nonsense, mounts], Some(TOTAL));
    }

    const V2: (&str, &str) = (
        "proc/self/mountinfo",
        "23 1 0:22 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
    );

    #[test]
    fn of_version_two_the_lowest_limit_on_the_way_to_the_root_counts() {
        let group = ("proc/self/cgroup", "0::/user.slice/app.service\n");
        let own = "sys/fs/cgroup/user.slice/app.service/memory.max";
        let outer = "sys/fs/cgroup/user.slice/memory.max";
        check(&[MEMINFO, V2, group], Some(TOTAL));
        check(&[MEMINFO, V2, group, (own, "max\n"), (outer, "max\n")], Some(TOTAL));
        check(&[MEMINFO, V2, group, (own, "314572800\n"), (outer, "max\n")], Some(314_572_800));
        check(&[MEMINFO, V2, group, (own, "max\n"), (outer, "1073741824\n")], Some(1 << 30));
        check(&[MEMINFO, V2, group, (own, "2147483648\n"), (outer, "1073741824\n")], Some(1 << 30));
        let high = "sys/fs/cgroup/user.slice/app.service/memory.high";
        check(&[MEMINFO, V2, group, (own, "2147483648\n"), (high, "1073741824\n")], Some(1 << 30));
        // More than the machine has.
        check(&[MEMINFO, V2, group, (own, "99999999999999\n")], Some(TOTAL));
        check(&[MEMINFO, V2, group, (own, "nonsense\n")], Some(TOTAL));
    }

    #[test]
    fn in_a_container_the_mount_point_is_its_own_group() {
        let limit = ("sys/fs/cgroup/memory.max", "314572800\n");
        // With a namespace for control groups, and without.
        check(&[MEMINFO, V2, ("proc/self/cgroup", "0::/\n"), limit], Some(314_572_800));
        let mounted = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let mounted = ("proc/self/mountinfo", mounted);
        check(&[MEMINFO, mounted, ("proc/self/cgroup", "0::/docker/abc\n"), limit], Some(314_572_800));
        // A group of the host's, which is not to be seen here.
        check(&[MEMINFO, mounted, ("proc/self/cgroup", "0::/system.slice\n"), limit], Some(314_572_800));
        check(&[MEMINFO, V2, ("proc/self/cgroup", "0::/../other\n"), limit], Some(314_572_800));
    }

    #[test]
    fn of_version_one_the_controllers_mount_counts() {
        let groups =
            ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/outer/my group\n1:cpuset:/\n0::/\n");
        let mounts = (
            "proc/self/mountinfo",
            "32 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
             35 31 0:32 / /sys/fs/cgroup/with\\040blank rw - cgroup cgroup rw,cpu,memory\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let (own, outer) = (
            "sys/fs/cgroup/with blank/outer/my group/memory.limit_in_bytes",
            "sys/fs/cgroup/with blank/outer/memory.limit_in_bytes",
        );
        let root = ("sys/fs/cgroup/with blank/memory.limit_in_bytes", UNLIMITED_V1);
        check(&[MEMINFO, groups, mounts, root], Some(TOTAL));
        check(&[MEMINFO, groups, mounts, root, (own, "314572800\n")], Some(314_572_800));
        check(&[MEMINFO, groups, mounts, root, (own, UNLIMITED_V1), (outer, "1073741824\n")], Some(1 << 30));
    }

    #[test]
    fn the_paths_of_mounts_are_unescaped() {
        let check = |field: &str, expected: &str| assert_eq!(unescape(field.as_bytes()), Path::new(expected));
        check("/plain", "/plain");
        check("/a\\040b\\134c", "/a b\\c");
        check("/cut\\04", "/cut\\04");
        check("\\999", "\\999");
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_bytes().unwrap() > 1 << 20);
    }
}
