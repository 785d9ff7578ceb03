//! Values that are made once, and read by all processes of a session.

use std::fmt;
use std::ops::Deref;

use mobula_runtime::{ActorOptions, Error, Failure, Result};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::waiting::{PendingCall, next_number};
use crate as mobula;
use crate::actor::ActorHandle;
use crate::object_ref::ObjectRef;
use crate::registry;
use crate::{Caller, Reply};

/// The name of the actor that knows the shared values of this program. Drivers of other programs may be in the session,
/// which could not call it.
fn actor_name() -> String {
    format!("mobula.util.shared.{:016x}", registry::fingerprint())
}

/// The most times that the actor is asked. It ends with its last handle, perhaps while another process asks it.
const ATTEMPTS: usize = 100;

/// Returns the value of this name. If no process of the session has made it yet, `make` makes it. All processes read
/// one copy in the store: so a data set is loaded once on a machine, for any number of processes.
///
/// If several processes ask at once, one of them makes the value, and the others wait. If `make` fails or panics, or if
/// its process dies, the next one of them makes it.
///
/// The value lives while any process has the [`Shared`] that this returns. After that the name is free again. If the
/// existing value has another type than `T`, [`get`](ObjectRef::get) fails. Where drivers of several programs share a
/// session, each program has values of its own.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::util;
///
/// #[remote]
/// fn element(index: usize) -> Result<f64> {
///     // Each worker asks, and one of them makes it.
///     let table = util::shared("table", || Ok((0..1000).map(f64::from).collect::<Vec<f64>>()))?;
///     Ok(table.get()?[index])
/// }
///
/// let _mobula = init()?;
/// assert_eq!(get((0..4).map(|index| element::remote(index)))?, [0.0, 1.0, 2.0, 3.0]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Cost
///
/// A call of an actor, which the session has for all shared values, and a [`put`](crate::put()) in the process that
/// makes the value. Keep the result instead of asking again. A [`Tensor`](crate::value::Tensor),
/// [`Bytes`](crate::value::Bytes) or `Arrow` is read in place; other types are decoded by each `get`.
///
/// # Errors
/// The error of `make`, those of `put`, and [`Error::NotInitialized`](crate::Error::NotInitialized).
pub fn shared<T: Serialize>(name: &str, make: impl FnOnce() -> Result<T>) -> Result<Shared<T>> {
    let mut attempts = 0;
    let (actor, number, claim) = loop {
        let options = ActorOptions::new().name(actor_name()).get_if_exists(true);
        let actor = SharedValues::options(options).remote();
        let number = next_number();
        let mut waiting =
            PendingCall::new(actor.claim(number, name.to_owned()), || _ = actor.give_up(number));
        match waiting.wait(None) {
            Ok(claim) => {
                drop(waiting);
                break (actor, number, claim);
            }
            Err(Error::Failed(Failure::ActorDied { .. })) if attempts < ATTEMPTS => attempts += 1,
            Err(error) => return Err(error),
        }
    };
    let object = match claim {
        Some(Claim::Made(object)) => object,
        _ => {
            let task = MakeTask { actor: &actor, number };
            let object = ObjectRef::<Opaque>::new(crate::put(&make()?)?.to);
            actor.made(number, Made(object.clone())).get()?;
            std::mem::forget(task);
            object
        }
    };
    Ok(Shared { object: ObjectRef::new(object.to), actor })
}

/// A value that [`shared`] has made or found. It dereferences to the [`ObjectRef`] of the value, which can be given as
/// an argument. While any process has a `Shared`, the value keeps its name.
///
/// ```
/// use mobula::util::{Shared, shared};
///
/// let _mobula = mobula::init()?;
/// let words: Shared<Vec<String>> = shared("words", || Ok(vec!["manta".to_owned()]))?;
/// assert_eq!(words.get()?, ["manta"]);
/// # Ok::<(), mobula::Error>(())
/// ```
pub struct Shared<T> {
    object: ObjectRef<T>,
    actor: ActorHandle<SharedValues>,
}

impl<T> Deref for Shared<T> {
    type Target = ObjectRef<T>;

    fn deref(&self) -> &ObjectRef<T> {
        &self.object
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), actor: self.actor.clone() }
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.object).finish()
    }
}

/// The task of this process to make a value. If it is dropped before the value is made, another process gets the task.
struct MakeTask<'a> {
    actor: &'a ActorHandle<SharedValues>,
    number: u64,
}

impl Drop for MakeTask<'_> {
    fn drop(&mut self) {
        self.actor.give_up(self.number);
    }
}

/// Stands for the type of a value that is not decoded.
struct Opaque;

/// Wraps a reference, so that the actor gets the reference itself, and not its value.
#[derive(Serialize, Deserialize)]
struct Made(ObjectRef<Opaque>);

#[derive(Serialize, Deserialize)]
enum Claim {
    Made(ObjectRef<Opaque>),
    /// The caller must make it.
    Make,
}

/// The actor that knows the shared values.
#[derive(Default)]
struct SharedValues {
    values: FxHashMap<String, Value>,
}

enum Value {
    Made(ObjectRef<Opaque>),
    Awaited { maker: (Caller, u64), waiting: Vec<((Caller, u64), Reply<Claim>)> },
}

#[mobula::remote(crate = mobula)]
impl SharedValues {
    fn new() -> Self {
        Self::default()
    }

    fn claim(&mut self, number: u64, name: String, reply: Reply<Claim>) {
        let Some(caller) = reply.caller() else { return };
        let call = (caller, number);
        match self.values.get_mut(&name) {
            Some(Value::Made(object)) => reply.send(Claim::Made(object.clone())),
            Some(Value::Awaited { waiting, .. }) => waiting.push((call, reply)),
            None => {
                self.values.insert(name, Value::Awaited { maker: call, waiting: Vec::new() });
                reply.send(Claim::Make);
            }
        }
    }

    fn made(&mut self, number: u64, object: Made, reply: Reply<()>) {
        let caller = reply.caller();
        let is_it = |value: &&mut Value| match value {
            Value::Awaited { maker, .. } => caller == Some(maker.0) && maker.1 == number,
            Value::Made(_) => false,
        };
        if let Some(value) = self.values.values_mut().find(is_it)
            && let Value::Awaited { waiting, .. } = std::mem::replace(value, Value::Made(object.0.clone()))
        {
            waiting.into_iter().for_each(|(_, reply)| reply.send(Claim::Made(object.0.clone())));
        }
        reply.send(());
    }

    fn give_up(&mut self, number: u64, reply: Reply<()>) {
        let caller = reply.caller();
        self.leave(|(its, call)| Some(its) == caller && call == number);
        reply.send(());
    }

    #[remote(caller_gone)]
    fn caller_gone(&mut self, gone: Caller) {
        self.leave(|(caller, _)| caller == gone);
    }

    /// Gives calls up: waiting calls, and calls that were to make a value. The next waiting call makes it instead.
    #[remote(local)]
    fn leave(&mut self, leaves: impl Fn((Caller, u64)) -> bool) {
        self.values.retain(|_, value| {
            let Value::Awaited { maker, waiting } = value else { return true };
            waiting.retain(|(call, _)| !leaves(*call));
            if !leaves(*maker) {
                return true;
            }
            if waiting.is_empty() {
                return false;
            }
            let (call, reply) = waiting.remove(0);
            *maker = call;
            reply.send(Claim::Make);
            true
        });
    }
}
