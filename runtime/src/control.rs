//! Control of a session from outside, for a person at a terminal: to kill a process or an actor, and to cancel a call.
//! The head carries out the order, and answers when it is done. It takes orders from every client of the session's
//! store. Only processes of the same user can be such clients.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use mobula_client::{Client, ClientError, ClientInfo, OwnerId};
use serde::Serialize;

use crate::mail::ask::ask;
use crate::state::{ActorState, NoSuchTarget, Observer, Snapshot};
use crate::wire::{CancelCall, FromHead, Obeyed, ToHead};

/// The longest wait for the answer of the head, or of the process that made a call.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process, an actor or a call, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A call: the pid of the process that made it, and its number there, as in `4711.12`.
    Task {
        /// The process that made it.
        pid: u32,
        /// Its number there.
        number: u64,
    },
    /// A process, by its pid.
    Process(u32),
    /// An actor, by its name, or by its number as in `actor:3`.
    Actor(String),
}

impl FromStr for Target {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let task =
            text.split_once('.').and_then(|(pid, number)| Some((pid.parse().ok()?, number.parse().ok()?)));
        Ok(match (task, text.parse()) {
            (Some((pid, number)), _) => Self::Task { pid, number },
            (None, Ok(pid)) => Self::Process(pid),
            (None, Err(_)) => Self::Actor(text.to_owned()),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task { pid, number } => write!(f, "{pid}.{number}"),
            Self::Process(pid) => write!(f, "{pid}"),
            Self::Actor(name) => f.write_str(name),
        }
    }
}

/// An order that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Carried {
    /// `process`, `actor` or `task`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// The process that has ended.
    pub pid: Option<u32>,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// There is none.
    #[error(transparent)]
    NoSuchTarget(#[from] NoSuchTarget),
    /// Several living actors have the name, in different namespaces.
    #[error("several actors have the name {name:?}: name one by its number, such as actor:{actor}")]
    Ambiguous {
        /// The name.
        name: String,
        /// The number of one of them.
        actor: u64,
    },
    /// The call or the actor is over.
    #[error("{what} is over, or never existed: there is nothing to do")]
    Over {
        /// The call or the actor.
        what: String,
    },
    /// It is a driver, and its session would end with it.
    #[error("process {pid} is a driver: its workers and actors end with it. To end it, use `kill {pid}`")]
    IsDriver {
        /// Its process.
        pid: u32,
    },
    /// A call of an actor cannot be ended without the actor.
    #[error("call {task} is a call of an actor: cancel it without force, or kill the actor")]
    IsOfActor {
        /// The call.
        task: String,
    },
    /// No answer has come.
    #[error("{what}: {who} has not answered within {} s. The order may still be carried out", .waited.as_secs())]
    NoAnswer {
        /// The order, in words.
        what: String,
        /// The process that was asked.
        who: String,
        /// How long this has waited.
        waited: Duration,
    },
    /// The store cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Kills a process, an actor, or the process that runs a call, and waits until it has ended. Calls that it ran fail or
/// are retried, as when a process dies by itself. If `target` is a call, this call is not retried.
///
/// With `restart`, an actor is restarted if its options allow it; otherwise it has ended for good.
///
/// # Errors
/// See [`ControlError`].
pub fn kill(observer: &Observer, target: &Target, restart: bool) -> Result<Carried, ControlError> {
    match target {
        Target::Task { .. } => cancel(observer, target, true, true),
        Target::Process(pid) => Ok(Orders::of(observer)?.kill_process(*pid, "process", pid.to_string())?),
        Target::Actor(name) => {
            let snapshot = observer.look()?;
            let orders = Orders::of(observer)?;
            let actor = actor(&snapshot, name)?;
            let id = format!("actor:{}", actor.actor);
            match actor.pid.filter(|_| restart) {
                Some(pid) => orders.kill_process(pid, "actor", id),
                None => orders.kill_actor(actor.actor, actor.pid, restart),
            }
        }
    }
}

/// Cancels a call. A call that has not begun never runs; a running call is told that it is cancelled. With `force`, the
/// process that runs it is ended. With `recursive`, the calls that it made are cancelled, too.
///
/// # Errors
/// See [`ControlError`].
pub fn cancel(
    observer: &Observer,
    target: &Target,
    force: bool,
    recursive: bool,
) -> Result<Carried, ControlError> {
    let Target::Task { pid, number } = *target else {
        return Err(NoSuchTarget { target: target.to_string() }.into());
    };
    Orders::of(observer)?.cancel(pid, CancelCall { task: number, force, recursive, by: std::process::id() })
}

/// The living actor with a name, or a number.
fn actor(snapshot: &Snapshot, name: &str) -> Result<ActorState, ControlError> {
    let number = name.strip_prefix("actor:").and_then(|number| number.parse::<u64>().ok());
    let is_it = |actor: &ActorState| match number {
        Some(number) => actor.actor == number,
        None => actor.name.as_deref() == Some(name),
    };
    let (mut living, over): (Vec<_>, Vec<_>) =
        snapshot.actors().into_iter().filter(is_it).partition(|actor| actor.state != "dead");
    match (living.len(), over.is_empty()) {
        (1, _) => Ok(living.remove(0)),
        (0, true) => Err(NoSuchTarget { target: name.to_owned() }.into()),
        (0, false) => Err(ControlError::Over { what: format!("actor {name}") }),
        _ => Err(ControlError::Ambiguous { name: name.to_owned(), actor: living[0].actor }),
    }
}

/// The heads of a session, and its processes.
struct Orders<'a> {
    client: &'a Client,
    clients: Vec<ClientInfo>,
}

impl<'a> Orders<'a> {
    fn of(observer: &'a Observer) -> Result<Self, ControlError> {
        let client = observer.client();
        let clients = client.stats()?.clients.into_iter().filter(|info| !info.dead).collect();
        Ok(Self { client, clients })
    }

    /// Each driver has one.
    fn heads(&self) -> impl Iterator<Item = OwnerId> {
        self.clients.iter().filter(|info| is_head(info)).map(|info| info.owner)
    }

    /// The process with a pid, as a client.
    fn process(&self, pid: u32) -> Option<&ClientInfo> {
        self.clients.iter().find(|info| info.pid == pid && !is_head(info))
    }

    /// Sends an order to one head after the other, until one of them has the process or the actor that it names. The
    /// answer of that head may depend on the answer of a process.
    fn order(
        &self,
        what: &str,
        of: Option<OwnerId>,
        questions: &[ToHead<'_>],
    ) -> Result<Obeyed, ControlError> {
        let take = |record: FromHead<'_>| match record {
            FromHead::Obeyed { outcome, .. } => Some(outcome),
            FromHead::ActorEnded { .. } | FromHead::State(_) => Some(Obeyed::Done),
            _ => None,
        };
        for head in self.heads() {
            match ask(self.client, head, of, questions, PATIENCE, take) {
                Some(Obeyed::NotHere) => {}
                Some(outcome) => return Ok(outcome),
                None => {
                    let (what, who) = (what.to_owned(), "the session".to_owned());
                    return Err(ControlError::NoAnswer { what, who, waited: PATIENCE });
                }
            }
        }
        Ok(Obeyed::NotHere)
    }

    fn kill_process(&self, pid: u32, kind: &'static str, id: String) -> Result<Carried, ControlError> {
        if self.process(pid).is_some_and(|info| info.label.starts_with("driver ")) {
            return Err(ControlError::IsDriver { pid });
        }
        match self.order(
            &format!("killing process {pid}"),
            None,
            &[ToHead::KillProcess { request: 0, pid }],
        )? {
            Obeyed::Done => Ok(Carried { kind, id, pid: Some(pid) }),
            _ => Err(NoSuchTarget { target: pid.to_string() }.into()),
        }
    }

    fn kill_actor(&self, actor: u64, pid: Option<u32>, restarts: bool) -> Result<Carried, ControlError> {
        let carried = Carried { kind: "actor", id: format!("actor:{actor}"), pid };
        let kill = ToHead::KillActor { actor, restarts };
        // Of several heads, each passes it on to the one that has the actor. A head answers in order.
        let then = if restarts { ToHead::AskState } else { ToHead::AwaitActorEnd { request: 0, actor } };
        match self.order(&format!("killing {}", carried.id), None, &[kill, then])? {
            Obeyed::Done => Ok(carried),
            _ => Err(NoSuchTarget { target: carried.id }.into()),
        }
    }

    fn cancel(&self, pid: u32, cancel: CancelCall) -> Result<Carried, ControlError> {
        let task = format!("{pid}.{}", cancel.task);
        let Some(process) = self.process(pid) else {
            return Err(NoSuchTarget { target: task }.into());
        };
        let question = ToHead::CancelCall { request: 0, process: process.owner, cancel };
        match self.order(&format!("cancelling call {task}"), Some(process.owner), &[question]) {
            Ok(Obeyed::Done) => Ok(Carried { kind: "task", id: task, pid: None }),
            Ok(Obeyed::NotHere) => Err(NoSuchTarget { target: task }.into()),
            Ok(Obeyed::NoSuchCall) => Err(ControlError::Over { what: format!("call {task}") }),
            Ok(Obeyed::IsOfActor) => Err(ControlError::IsOfActor { task }),
            Err(ControlError::NoAnswer { what, waited, .. }) => {
                Err(ControlError::NoAnswer { what, who: format!("process {pid}"), waited })
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a client is the head of a driver.
fn is_head(info: &ClientInfo) -> bool {
    info.label.starts_with(crate::state::HEAD_LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_call_a_process_or_an_actor() {
        let check = |text: &str, expected: Target| {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.to_string(), &target), (text.to_owned(), &expected));
        };
        check("4711.12", Target::Task { pid: 4711, number: 12 });
        check("4711", Target::Process(4711));
        check("actor:3", Target::Actor("actor:3".into()));
        check("scores.best", Target::Actor("scores.best".into()));
        check("-1", Target::Actor("-1".into()));
    }
}
