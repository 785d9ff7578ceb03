//! Advice on errors of the system: a number, or a text such as "Too many open files", does not say which limit to
//! raise.

use std::io;

/// The system's text, and which limit to raise where it is one.
pub fn explained(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EMFILE) => "raise the process's limit of open descriptors (RLIMIT_NOFILE, `ulimit -n`)",
        Some(libc::ENFILE) => "raise the machine's limit of open files (the sysctl fs.file-max)",
        Some(libc::EFBIG) => {
            "raise the process's limit of file sizes (RLIMIT_FSIZE, `ulimit -f`), which counts for shared memory too"
        }
        Some(libc::EAGAIN) => {
            "raise the limit of processes and threads (RLIMIT_NPROC, `ulimit -u`, or pids.max of a control group), or \
             that of address space, where their stacks lie (RLIMIT_AS, `ulimit -v`), if that is what this is about"
        }
        Some(libc::ENOMEM) => {
            "the memory is used up, or a limit of it is reached: of the process's address space (RLIMIT_AS, `ulimit \
             -v`), or of its control group (memory.max)"
        }
        _ => return error.to_string(),
    };
    format!("{error}: {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named() {
        let check = |errno, expected: &str| {
            let text = explained(&io::Error::from_raw_os_error(errno));
            assert!(text.contains(expected) && text.contains("os error"), "{text}");
        };
        check(libc::EMFILE, "RLIMIT_NOFILE");
        check(libc::ENFILE, "fs.file-max");
        check(libc::EFBIG, "RLIMIT_FSIZE");
        check(libc::EAGAIN, "RLIMIT_NPROC");
        check(libc::ENOMEM, "RLIMIT_AS");
        assert_eq!(explained(&io::Error::other("else")), "else");
    }
}
