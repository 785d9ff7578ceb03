//! A process as the kernel shows it: processor time, memory and threads, from `/proc`.

use std::fs;

/// The kernel reports processor time in hundredths of a second, on every machine that Mobula supports.
const TICK_NANOS: u64 = 10_000_000;

/// The kernel's figures of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProcessFigures {
    /// Its start time in the kernel's own unit. It distinguishes two processes that had the same pid.
    pub(super) began: u64,
    /// Processor time of all its threads, in nanoseconds.
    pub(super) cpu_nanos: u64,
    /// Memory of its own: resident, and neither of the store nor of mapped files such as programs and libraries, which
    /// processes share.
    pub(super) memory_bytes: u64,
    /// Resident shared memory: pages of the store.
    pub(super) shared_bytes: u64,
    pub(super) threads: u32,
}

/// The figures of a process; `None` if it has ended, or belongs to another user.
pub(super) fn figures(pid: u32) -> Option<ProcessFigures> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse(&stat, &status)
}

fn parse(stat: &str, status: &str) -> Option<ProcessFigures> {
    // The name in parentheses can contain any characters, also parentheses and spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Field 3 of the manual page is the first here.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)?.saturating_add(field(15)?);
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Some(ProcessFigures {
        began: field(22)?,
        cpu_nanos: ticks.saturating_mul(TICK_NANOS),
        memory_bytes: kib("RssAnon") << 10,
        shared_bytes: kib("RssShmem") << 10,
        threads: field(20)? as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_time_memory_and_threads() {
        let mut before = figures(std::process::id()).unwrap();
        assert!(before.memory_bytes > 0 && before.threads >= 1 && before.began > 0);
        // The count grows with work, but slowly.
        let start = std::time::Instant::now();
        while before.cpu_nanos == 0 || figures(std::process::id()).unwrap().cpu_nanos == before.cpu_nanos {
            before.cpu_nanos = before.cpu_nanos.max(figures(std::process::id()).unwrap().cpu_nanos);
            assert!(start.elapsed().as_secs() < 60, "no processor time is counted");
        }
        assert_eq!(figures(u32::MAX), None);
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_confuses_nothing() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 9000 1 2";
        let status = "Name:\ta) (b c\nVmRSS:\t 30 kB\nRssAnon:\t 10 kB\nRssFile:\t 5 kB\nRssShmem:\t 15 kB\n";
        let expected = ProcessFigures {
            began: 9000,
            cpu_nanos: 3_000_000_000,
            memory_bytes: 10 << 10,
            shared_bytes: 15 << 10,
            threads: 3,
        };
        assert_eq!(parse(stat, status), Some(expected));
        for broken in ["", "7 (a", "7 (a) S 1"] {
            assert_eq!(parse(broken, status), None);
        }
    }
}
