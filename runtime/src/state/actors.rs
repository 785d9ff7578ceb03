//! The actors of a session, as the head knows them.

use mobula_client::internal::recorder::Queue;
use serde::Serialize;

use super::snapshot::{Process, Snapshot};
use crate::wire::ActorRecord;

/// An actor.
///
/// ```
/// # struct Counter(u64);
/// # #[mobula::remote]
/// # impl Counter {
/// #     fn new() -> Self { Counter(0) }
/// #     fn process(&self) -> u32 { std::process::id() }
/// # }
/// let _mobula = mobula::init()?;
/// let options = mobula::ActorOptions::new().name("visitors");
/// let counter = Counter::options(options).remote();
/// let process = counter.process().get()?;
/// let actor = &mobula::state::actors()?[0];
/// assert_eq!((actor.name.as_deref(), actor.pid, actor.restarts), (Some("visitors"), Some(process), 0));
/// assert_eq!(actor.creator_pid, std::process::id());
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ActorState {
    /// Its number.
    pub actor: u64,
    /// Its class.
    pub class: String,
    /// Its namespace, if it has a name.
    pub namespace: Option<String>,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whether it lives on without handles.
    pub is_detached: bool,
    /// The process that made it; 0 if that is not known any more.
    pub creator_pid: u32,
    /// `reserved`, `waiting`, `constructing`, `alive` or `dead`.
    pub state: String,
    /// Its process.
    pub pid: Option<u32>,
    /// How often it was restarted.
    pub restarts: u32,
    /// The resources that it has.
    pub demand: String,
    /// How it ended.
    pub death: Option<String>,
    /// The number of calls that have arrived at its process and have not begun; `None` if that is not recorded.
    pub queued: Option<u64>,
    /// The number of calls that run: of an actor with several at a time, it may be more than one.
    pub running: u64,
    /// The method that runs; of several, the one that began first.
    pub function: Option<String>,
}

impl Snapshot {
    /// The actor with a name, or with a number after `actor:`. If several actors have had the name: the living one, or
    /// the last.
    pub(super) fn actor_meant(&self, target: &str) -> Option<&ActorRecord> {
        let number = target.strip_prefix("actor:").and_then(|number| number.parse::<u64>().ok());
        let is_it = |actor: &&ActorRecord| match number {
            Some(number) => actor.actor == number,
            None => actor.name.as_deref() == Some(target),
        };
        let its = self.head.as_ref()?.actors.iter().filter(is_it);
        its.max_by_key(|actor| (actor.stage != "dead", actor.actor))
    }

    /// The processes of an actor: those that have ended, then the one that it has. By its number after `actor:`, or by
    /// its name. If several actors have had the name: the living one, or the last.
    ///
    /// ```
    /// # struct Counter(u64);
    /// # #[mobula::remote]
    /// # impl Counter {
    /// #     fn new() -> Self { Counter(0) }
    /// #     fn process(&self) -> u32 { std::process::id() }
    /// # }
    /// let _mobula = mobula::init()?;
    /// let options = mobula::ActorOptions::new().name("visitors");
    /// let counter = Counter::options(options).remote();
    /// let process = counter.process().get()?;
    /// assert_eq!(mobula::state::look()?.actor_pids("visitors"), [process]);
    /// assert!(mobula::state::look()?.actor_pids("nobody").is_empty());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn actor_pids(&self, target: &str) -> Vec<u32> {
        let known = self.actor_meant(target);
        let mut pids = match known {
            Some(actor) if actor.stage != "dead" => self.former_pids(&format!("actor:{}", actor.actor)),
            _ => self.former_pids(target),
        };
        if let Some(pid) = known.and_then(|actor| actor.pid)
            && !pids.contains(&pid)
        {
            pids.push(pid);
        }
        pids
    }

    /// The actors; none if the head has not answered.
    ///
    /// ```
    /// # struct Counter(u64);
    /// # #[mobula::remote]
    /// # impl Counter {
    /// #     fn new() -> Self { Counter(0) }
    /// #     fn process(&self) -> u32 { std::process::id() }
    /// # }
    /// let _mobula = mobula::init()?;
    /// let _counters = [Counter::remote(), Counter::remote()];
    /// let look = mobula::state::look()?;
    /// for actor in look.actors().iter().filter(|actor| actor.state != "dead") {
    ///     println!("{} {} has {}", actor.actor, actor.class, actor.demand);
    /// }
    /// assert!(look.actors().iter().all(|actor| actor.name.is_none() && !actor.is_detached));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn actors(&self) -> Vec<ActorState> {
        let Some(head) = &self.head else { return Vec::new() };
        let mut actors: Vec<ActorState> = head
            .actors
            .iter()
            .map(|actor| {
                let process =
                    actor.pid.and_then(|pid| self.process_of_pid(pid)).filter(|process| !process.dead);
                let runs = process.map_or_else(Vec::new, Process::running);
                let run = process.zip(runs.first());
                ActorState {
                    actor: actor.actor,
                    class: actor.class.clone(),
                    namespace: actor.namespace.clone(),
                    name: actor.name.clone(),
                    is_detached: actor.is_detached,
                    creator_pid: self.pid_of(actor.creator),
                    state: actor.stage.clone(),
                    pid: actor.pid,
                    restarts: actor.restarts,
                    demand: actor.demand.clone(),
                    death: actor.failure.clone(),
                    queued: process.map(|process| process.queue(Queue::Arrived)),
                    running: runs.len() as u64,
                    function: run.map(|(process, run)| process.name(run.name).to_owned()),
                }
            })
            .collect();
        actors.sort_by_key(|actor| actor.actor);
        actors
    }
}
