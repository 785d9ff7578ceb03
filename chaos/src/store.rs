//! The daemon as a process of its own, with small limits, so that everything grows, fills and ends soon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula_shm::failpoints::{self, Failpoint};
use mobula_store::{Config, Server};

use crate::Violation;
use crate::message::{Command, Report, Room, commands, failpoint_named, say};
use crate::process::PATIENCE;

/// Capacity of the store.
const AMPLE_BYTES: u64 = 96 << 20;
/// Capacity of a store where objects have to be spilled: the clients hold several times as much.
const SCARCE_BYTES: u64 = 24 << 20;

/// Where a store that listens at `socket` spills.
pub(crate) fn spill_directory(socket: &Path) -> PathBuf {
    socket.with_file_name("spill")
}

/// Serves until its commands end, or until it passes a failpoint so often.
pub(crate) fn run(socket: &Path, room: Room, die: Option<(Failpoint, u64)>) -> Result<(), Violation> {
    mobula_store::raise_descriptor_limit()?;
    let config = match room {
        Room::Ample => Config::new(socket, AMPLE_BYTES),
        Room::Scarce => Config::new(socket, SCARCE_BYTES).spill_directory(spill_directory(socket)),
    };
    let config = config
        .clients_max(64)
        // No grace: the measurement is how soon memory is free, not how long it is kept.
        .orphan_grace(Duration::ZERO)
        // Clients come back as soon as the machine has a processor for them.
        .resume_window(PATIENCE)
        .first_resume_window(PATIENCE)
        .table_entries_initial(64)
        .ring_bytes(4096);
    if let Some((failpoint, nth)) = die {
        failpoints::arm(failpoint, nth, std::process::id());
    }
    let server = Server::bind(config).map_err(|error| Violation(format!("the store: {error}")))?;
    let stopper = server.stopper();
    std::thread::spawn(move || {
        for command in commands() {
            match command {
                Command::Arm { failpoint, nth, victim } => {
                    let victim = if victim == 0 { std::process::id() } else { victim };
                    failpoints::arm(
                        failpoint_named(&failpoint).expect("the same program has named it"),
                        nth,
                        victim,
                    );
                }
                Command::Disarm => failpoints::disarm(),
                _ => {}
            }
        }
        stopper.stop();
    });
    say(&Report::Ready { owner: None });
    server.run().map_err(|error| Violation(format!("the store: {error}")))
}
