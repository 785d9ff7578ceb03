//! A client as a process of its own: it works, and does what the supervisor says.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{TryRecvError, unbounded};
use mobula_client::{ClientError, ConnectOptions};
use mobula_shm::failpoints;

use crate::load::Worker;
use crate::message::{Command, Load, Report, Room, Work, commands, failpoint_named, say};
use crate::process::PATIENCE;
use crate::{Violation, scribbler};

static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static LONGEST_US: AtomicU64 = AtomicU64::new(0);
static STALLED: AtomicU64 = AtomicU64::new(0);

/// Works until its commands end.
pub(crate) fn run(socket: &Path, seed: u64, room: Room) -> Result<(), Violation> {
    let (sender, for_worker) = unbounded();
    std::thread::spawn(move || {
        for command in commands() {
            match command {
                // Answered also while the work hangs.
                Command::AskWork => say(&Report::Work(Work {
                    operations: OPERATIONS.swap(0, Ordering::Relaxed),
                    longest_us: LONGEST_US.swap(0, Ordering::Relaxed),
                    stalled: STALLED.swap(0, Ordering::Relaxed),
                })),
                Command::Arm { failpoint, nth, victim } => {
                    let victim = if victim == 0 { std::process::id() } else { victim };
                    failpoints::arm(
                        failpoint_named(&failpoint).expect("the same program has named it"),
                        nth,
                        victim,
                    );
                }
                Command::Disarm => failpoints::disarm(),
                command => drop(sender.send(command)),
            }
        }
        // SAFETY: ends the process without running what others are in the middle of.
        unsafe { libc::_exit(0) }
    });
    // No client gives up because the machine has no processor for another.
    let options = ConnectOptions::new().label("chaos").lease_timeout(Duration::from_secs(5));
    let options = options.answer_timeout(PATIENCE).resume_timeout(PATIENCE);
    let began = Instant::now();
    let client = loop {
        match options.clone().connect(socket) {
            Ok(client) => break client,
            // The daemon was killed, and the next one does not listen yet.
            Err(ClientError::NoStore { .. }) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(Violation(format!("connect: {error}"))),
        }
    };
    say(&Report::Ready { owner: Some(client.id()) });
    let mut worker = Worker::new(client, seed, room);
    let mut load = Some(Load::Everything);
    loop {
        let command = match load {
            Some(_) => for_worker.try_recv(),
            None => for_worker.recv().map_err(|_| TryRecvError::Disconnected),
        };
        match command {
            Ok(Command::Pause) => {
                load = None;
                say(&Report::Paused(worker.ledger()?));
            }
            Ok(Command::LetGo) => {
                load = None;
                worker.let_go()?;
                say(&Report::Paused(worker.ledger()?));
            }
            Ok(Command::Resume(next)) => load = Some(next),
            Ok(Command::Suspect(owner)) => _ = worker.suspects.insert(owner),
            Ok(Command::Bereft(owner)) => _ = worker.bereft.insert(owner),
            Ok(Command::Scribble { milliseconds }) => {
                load = None;
                let words = scribbler::scribble(seed, Duration::from_millis(milliseconds));
                say(&Report::Scribbled { words });
            }
            Ok(_) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {
                let began = Instant::now();
                worker.work(load.expect("it works"))?;
                LONGEST_US.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                OPERATIONS.fetch_add(1, Ordering::Relaxed);
                STALLED.fetch_add(worker.stalled.take(), Ordering::Relaxed);
            }
        }
    }
}
