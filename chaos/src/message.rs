//! The messages between the supervisor and its processes: a line of JSON each, through the processes' standard input
//! and output.

use std::io::Write;

use mobula_client::{ObjectId, OwnerId};
use mobula_shm::failpoints::Failpoint;
use serde::{Deserialize, Serialize};

use crate::scribbler::KINDS;

/// From the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Ends the work for now, also when it has ended: answered with `Paused`.
    Pause,
    /// Lets go of everything; answered with `Paused`.
    LetGo,
    /// Goes on with the work.
    Resume(Load),
    /// Asks how far the work is; answered with `Work`.
    AskWork,
    /// The `nth` time that the process passes a failpoint, `victim` is killed.
    Arm { failpoint: String, nth: u64, victim: u32 },
    /// No more.
    Disarm,
    /// The objects of this owner may be spoilt from now on.
    Suspect(OwnerId),
    /// This owner has died at the same time as the daemon: its objects that others held may be lost, and no others.
    Bereft(OwnerId),
    /// Fills one's own writable pages with random words, for so long; answered with `Scribbled`.
    Scribble { milliseconds: u64 },
}

/// The kind of work of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Load {
    /// Every operation there is.
    Everything,
    /// Work that needs only the client itself and its peers: puts into leased memory, gets, records, drops.
    Local,
}

/// How much memory a store has for the work of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Room {
    /// More than enough.
    Ample,
    /// Too little: held objects go to files, and come back.
    Scarce,
}

impl Room {
    /// As it stands on the command line of a process.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Room::Ample => "ample",
            Room::Scarce => "scarce",
        }
    }
}

/// From a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process is there.
    Ready { owner: Option<OwnerId> },
    /// It works no more, and has this.
    Paused(Ledger),
    /// Its work since the last question.
    Work(Work),
    /// So many words were written, by [kind](KINDS).
    Scribbled { words: [u64; KINDS.len()] },
    /// It has seen a violation.
    Violation(String),
}

/// How much a client has done.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) operations: u64,
    pub(crate) longest_us: u64,
    /// Times that an owner took longer than it should to look at pins.
    pub(crate) stalled: u64,
}

/// The holdings of a client, by its own account.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Every object that it uses in any way, once or more often.
    pub(crate) held: Vec<(ObjectId, Held)>,
    /// Objects that its own objects keep alive, those included that it does not use itself any more.
    pub(crate) references: Vec<(ObjectId, Vec<ObjectId>)>,
    /// Channels of which it has an end.
    pub(crate) channels: Vec<u64>,
}

/// A client's share in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Held {
    /// It is sealed.
    Sealed,
    /// It is being written.
    Unsealed,
    /// It is promised.
    Promised,
    /// It was promised, and never will be there.
    Lost,
}

/// Says a line; a supervisor that is gone ends the process soon.
pub(crate) fn say(report: &Report) {
    let mut line = serde_json::to_vec(report).expect("a report can be written");
    line.push(b'\n');
    let _ = std::io::stdout().lock().write_all(&line);
}

/// The commands that come in, until the supervisor is gone.
pub(crate) fn commands() -> impl Iterator<Item = Command> {
    let lines = std::io::stdin().lines().map_while(Result::ok);
    lines.map_while(|line| serde_json::from_str(&line).ok())
}

/// The failpoint that is called so.
pub(crate) fn failpoint_named(name: &str) -> Option<Failpoint> {
    Failpoint::ALL.iter().copied().find(|failpoint| failpoint.name() == name)
}
