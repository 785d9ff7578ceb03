//! The head of a driver's detached actors: a process of the driver's program. The driver starts it for its first
//! detached actor, and it outlives the driver.
//!
//! It joins the session as a driver does, and has leases of resources, workers and actors like a driver, but makes no
//! calls. It ends when the driver and all its actors have ended, or when the session is stopped. The output of its
//! actors goes to the file `log` in the session's directory, because the driver's output may be gone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, bounded};
use mobula_client::OwnerId;
use mobula_client::internal::{descriptors::fill_standard, explained};
use nix::sys::signal::{SigSet, Signal};

use super::STORE_SOCKET;
use super::joined::Joined;
use super::launch::{self, READY};
use crate::error::{Error, Result};
use crate::head::{Detached, EXIT_PATIENCE, Head, HeadOptions, WorkerOptions};
use crate::process::lifeline::{Lifeline, Watched};
use crate::process::output::{self, Stream};
use crate::process::role::{HeadRole, Role};
use crate::session::surroundings;

/// The idle workers that it keeps: one, so that the next actor, or a restart, finds a process.
const WORKERS: usize = 1;
/// The longest time until the driver opens its link to this head.
const DRIVER_PATIENCE: Duration = Duration::from_secs(30);

/// Starts the head of the detached actors of the driver whose head is `role.driver`. Blocks until it serves.
pub(in crate::session) fn start(role: HeadRole) -> Result<OwnerId, String> {
    let (launch, directory) = (role.launch.clone(), PathBuf::from(&role.directory));
    let said = launch::start_apart(&launch, "mobula-head", &Role::Head(role), &directory)?;
    let bits = said.parse().map_err(|_| format!("it says {said:?}"))?;
    Ok(OwnerId::from_bits(bits))
}

/// The main function of the process. Returns the exit code.
pub(crate) fn run(role: HeadRole) -> i32 {
    // SAFETY: the numbers came with the role, which a process has one of, and begins with.
    drop(unsafe { Watched::inherit(role.lifeline) });
    match serve(role) {
        Ok(()) => 0,
        Err(error) => {
            let _ = Stream::Stdout.write_all(format!("{error}\n").as_bytes());
            1
        }
    }
}

fn serve(role: HeadRole) -> Result<()> {
    // Signals to the terminal's or the driver's process group do not end this process.
    let _ = nix::unistd::setsid();
    let failed = |error: &std::io::Error| Error::Start(explained(error));
    // These signals end the actors. They are blocked before there is a second thread; workers unblock them.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().map_err(|error| failed(&error.into()))?;
    surroundings::prepare()?;
    let directory = Path::new(&role.directory);
    let mut joined = Joined::join(directory, role.store_launch)?;
    let lifeline = Arc::new(Lifeline::new().map_err(|error| failed(&error))?);
    let (over, ended) = bounded(1);
    let head = Head::start(HeadOptions {
        workers: WORKERS,
        processes_max: role.processes_max,
        build_id: role.build_id,
        worker: WorkerOptions {
            socket: joined.directory.join(STORE_SOCKET),
            launch: role.launch,
            forward_output: role.forward_output,
            output: None,
            log_dir: role.log_dir.map(PathBuf::from),
            log_bytes_max: role.log_bytes_max,
            spin: role.spin,
            resources: joined.resources.clone(),
            gpus: joined.gpus.clone(),
            namespace: role.namespace,
            lifeline: lifeline.clone(),
        },
        memory: joined.memory.clone(),
        is_shared: true,
        starts_detached: None,
        detached: Some(Detached::new(role.driver, DRIVER_PATIENCE, over.clone())),
    })?;
    joined.watch(head.connector())?;
    let wait = move || {
        let _ = signals.wait();
        let _ = over.try_send(());
    };
    let thread = std::thread::Builder::new().name("mobula-signals".into()).stack_size(64 << 10).spawn(wait);
    thread.map_err(|error| failed(&error))?;
    let _ = Stream::Stdout.write_all(format!("{READY} {}\n", head.id().bits()).as_bytes());
    // From now on, the output of the actors goes where the messages of this process go. The driver sees the end of its
    // pipe.
    let _ = nix::unistd::dup2_stdout(std::io::stderr());
    fill_standard();
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_secs(3600)) {}
    let killed = head.end_actors(EXIT_PATIENCE);
    if killed > 0 {
        output::say(format_args!("{killed} detached actors did not end in time, and were killed"));
    }
    lifeline.cut();
    drop(head);
    drop(joined);
    Ok(())
}
