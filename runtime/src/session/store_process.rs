//! The process of the embedded store: it serves until the session is over.

use std::path::Path;
use std::time::Duration;

use mobula_client::internal::descriptors::fill_standard;
use mobula_client::internal::explained;

use super::directory;
use crate::process::lifeline::Watched;
use crate::process::output::{self, Stream};
use crate::process::role::StoreRole;

/// How long a restarted store waits for the first client of the previous store. The driver is such a client: while it
/// lives, it comes back, even if it has to wait long for a processor.
const FIRST_RESUME_WINDOW: Duration = Duration::from_secs(60);

/// The main function of the store's process. Returns the exit code.
pub(crate) fn run(role: &StoreRole) -> i32 {
    // SAFETY: the numbers came with the role, which a process has one of, and begins with.
    let lifeline = unsafe { Watched::inherit(role.lifeline) };
    // This process runs the store alone. Its socket is for this user, whatever file modes the driver takes away.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if let Err(error) = mobula_store::prepare_process() {
        output::say(format_args!("the store keeps the usual limits: {error}"));
    }
    let refuse = |reason: &dyn std::fmt::Display| {
        let _ = Stream::Stdout.write_all(format!("{reason}\n").as_bytes());
        1
    };
    let server = match mobula_store::Server::bind(config_of(role)) {
        Ok(server) => server,
        Err(error) => return refuse(&error),
    };
    let stopper = server.stopper();
    let watch = move || {
        lifeline.wait_until_cut();
        stopper.stop();
    };
    let thread = std::thread::Builder::new().name("mobula-lifeline".into()).stack_size(64 << 10);
    if let Err(error) = thread.spawn(watch) {
        return refuse(&format_args!("the store's watch on the driver: {}", explained(&error)));
    }
    let _ = Stream::Stdout.write_all(b"ready\n");
    // The driver has read the line that it waited for. The end of the pipe tells it that there is no more.
    let _ = nix::unistd::close(1);
    fill_standard();
    if let Err(error) = server.run() {
        // The driver starts another store in the same directory.
        output::say(format_args!("the store ended: {error}"));
        return 1;
    }
    // The driver may be gone: then nobody else removes the session's directory.
    if let Some(directory) = Path::new(&role.socket).parent() {
        directory::remove(directory, role.link.as_deref().map(Path::new));
    }
    0
}

fn config_of(role: &StoreRole) -> mobula_store::Config {
    let mut config = mobula_store::Config::new(&role.socket, role.capacity_bytes)
        .clients_max(role.clients_max)
        .first_resume_window(FIRST_RESUME_WINDOW);
    if let Some(directory) = &role.spill_directory {
        config = config.spill_directory(directory);
    }
    if let Some(bytes) = role.spill_bytes_max {
        config = config.spill_bytes_max(bytes);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a busy machine loses the session: its store would start empty before the driver had a processor.
    #[test]
    fn a_store_that_is_started_again_gives_the_driver_time_to_come_back() {
        let lifeline = crate::process::lifeline::Lifeline::new().unwrap();
        let role = StoreRole {
            socket: "/tmp/mobula.sock".into(),
            capacity_bytes: 1 << 20,
            clients_max: 8,
            spill_directory: None,
            spill_bytes_max: None,
            lifeline: lifeline.watched(),
            link: None,
        };
        let expected = mobula_store::Config::new("/tmp/mobula.sock", 1 << 20)
            .clients_max(8)
            .first_resume_window(FIRST_RESUME_WINDOW);
        assert_eq!(config_of(&role), expected);
        assert!(FIRST_RESUME_WINDOW >= Duration::from_secs(10));
    }
}
