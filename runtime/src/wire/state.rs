//! The head's answer to an observer: its knowledge of processes, demands and actors, as text.

use serde::{Deserialize, Serialize};

/// The state of a head.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct HeadState {
    /// All resources of the session, and those that this head's processes have.
    pub(crate) resources: Vec<(String, f64)>,
    pub(crate) used: Vec<(String, f64)>,
    pub(crate) processes: Vec<ProcessRecord>,
    pub(crate) wants: Vec<WantRecord>,
    pub(crate) actors: Vec<ActorRecord>,
    /// The processes that actors had, the last one last.
    pub(crate) actor_processes: Vec<ActorProcess>,
}

impl HeadState {
    /// Adds the state of another head of the session. Both have the same resources, those of the session.
    pub(crate) fn and(mut self, other: Self) -> Self {
        for (name, amount) in other.used {
            match self.used.iter_mut().find(|(known, _)| *known == name) {
                Some((_, used)) => *used += amount,
                None => self.used.push((name, amount)),
            }
        }
        self.processes.extend(other.processes);
        self.wants.extend(other.wants);
        self.actors.extend(other.actors);
        self.actor_processes.extend(other.actor_processes);
        self
    }

    /// The resources that no process has.
    pub(crate) fn free(&self) -> Vec<(String, f64)> {
        let used = |name: &str| self.used.iter().find(|(its, _)| its == name).map_or(0.0, |(_, used)| *used);
        let free = self.resources.iter().map(|(name, total)| (name.clone(), (total - used(name)).max(0.0)));
        free.collect()
    }
}

/// A process of the session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) pid: u32,
    /// Its client, once it has registered.
    pub(crate) owner: Option<u64>,
    pub(crate) job: String,
    /// The actor that it is.
    pub(crate) actor: Option<u64>,
    pub(crate) holds: String,
    /// The client whose calls it runs.
    pub(crate) lessee: Option<u64>,
    /// The time since it was leased, or became an actor's.
    pub(crate) given_nanos: Option<u64>,
    /// The wait of its thread, if it has lasted for a while.
    pub(crate) waits: Option<ToldWait>,
}

/// A wait that was reported to the head, because it may be a part of a deadlock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ToldWait {
    /// The function that waits, and the function whose result it waits for; empty if they are not known.
    pub(crate) function: String,
    pub(crate) waits_for: String,
    /// The place in the program.
    pub(crate) at: Option<String>,
}

/// A demand that is not met.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WantRecord {
    /// The client that wants workers; `None` for an actor, which wants a process.
    pub(crate) caller: Option<u64>,
    pub(crate) demand: String,
    /// The demand by names of resources.
    pub(crate) amounts: Vec<(String, f64)>,
    pub(crate) workers: u32,
    pub(crate) waited_nanos: u64,
}

/// An actor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ActorRecord {
    pub(crate) actor: u64,
    pub(crate) class: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) is_detached: bool,
    /// The client that made it.
    pub(crate) creator: u64,
    pub(crate) stage: String,
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u32,
    pub(crate) demand: String,
    pub(crate) failure: Option<String>,
}

/// A process that an actor had: the actor is over, or has another one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ActorProcess {
    pub(crate) pid: u32,
    pub(crate) actor: u64,
    pub(crate) class: String,
    /// The name that the actor had.
    pub(crate) name: Option<String>,
    /// Why the actor is over; `None` if it was restarted.
    pub(crate) failure: Option<String>,
}
