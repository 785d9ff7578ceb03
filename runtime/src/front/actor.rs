//! References to actors of any class.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use mobula_client::{Handle, ObjectId};

use crate::call::items::Items;
use crate::call::method_options::MethodOptions;
use crate::call::options::TaskOptions;
use crate::call::pending_calls::PendingCalls;
use crate::call::task::{ResultCells, Target};
use crate::definition::{Definition, Key, Name};
use crate::error::{Error, Failure, Result};
use crate::front::actor_options::{ActorOptions, Lifetime};
use crate::front::arguments::ArgumentList;
use crate::front::function::{failed, references, submit};
use crate::front::reference::Ref;
use crate::front::resources::demand_of_actor;
use crate::front::stream::ItemStream;
use crate::mail::waiters::Mail;
use crate::runtime::{Runtime, current};
use crate::session_number::SessionNumber;
use crate::submit::{Answer, Found};
use crate::wire::{Callee, NamedActor, NewActor, Returns, ToHead};

/// A reference to an actor, which keeps it alive.
///
/// Two references are equal if they refer to the same actor, in every process and after every restart.
#[derive(Clone)]
#[must_use]
pub struct ActorRef {
    session: SessionNumber,
    actor: u64,
    class: Definition,
    token: Token,
    /// A call waits for earlier calls of this process whose arguments are not there.
    is_in_order: bool,
    /// The options of its calls, if there are any.
    options: Option<Box<MethodOptions>>,
}

/// The handle that keeps the actor alive, or the reason why there is no actor.
#[derive(Debug, Clone)]
enum Token {
    Held(Held),
    Failed(Arc<Failure>),
}

#[derive(Debug, Clone)]
struct Held {
    handle: Arc<Handle>,
    /// The pending calls of this reference, if their number is limited.
    limit: Option<Arc<PendingCalls>>,
}

impl Held {
    /// With 0 any number of calls may be pending.
    fn new(handle: Handle, max_pending_calls: u32) -> Self {
        Self { handle: Arc::new(handle), limit: PendingCalls::at_most(max_pending_calls) }
    }
}

/// The form of an [`ActorRef`] inside a value.
///
/// Fronts make this themselves, so a new field is a breaking change.
#[derive(Debug, Clone)]
pub struct ExportedActor {
    /// The actor's number.
    pub actor: u64,
    /// Its class.
    pub class: Key,
    /// Keeps it alive.
    pub token: Handle,
    /// Its option `max_pending_calls`; 0: any number.
    pub max_pending_calls: u32,
}

impl ActorRef {
    /// Makes an actor. Costs a round trip to the head, which reserves the actor. The actor's process starts and its
    /// constructor runs meanwhile. An error is reported by the actor's calls.
    pub fn create(class: Definition, options: &ActorOptions, arguments: ArgumentList) -> Self {
        // An actor that was reserved would wait for arguments that never come.
        let reserved = match arguments.failure() {
            Some(failure) => Err(failure.clone()),
            None => arguments
                .runtime()
                .and_then(|runtime| Ok((reserve(runtime, &class, options)?, runtime.session))),
        };
        match reserved {
            Ok((Reserved { actor, token, is_new }, session)) => {
                if is_new {
                    let target = Target::Constructor { actor, class: class.name.clone() };
                    drop(submit(target, arguments, Returns::One, None, TaskOptions::new()));
                }
                Self { session, actor, class, token: Token::Held(token), is_in_order: true, options: None }
            }
            Err(failure) => {
                let (session, token) = (SessionNumber::NONE, Token::Failed(Arc::new(failure)));
                Self { session, actor: 0, class, token, is_in_order: true, options: None }
            }
        }
    }

    /// The actor of a class that has a name in a namespace; `None`: that of the session. A round trip to the head.
    ///
    /// # Errors
    /// [`Error::NoSuchActor`], [`Error::WrongActorClass`], [`Error::NotInitialized`].
    pub fn named(namespace: Option<&str>, name: &str, class: Definition) -> Result<Self> {
        let (found, _) = Self::described(namespace, name, class.clone())?;
        Ok(Self { class, ..found })
    }

    /// As [`named`](Self::named), with the description of the actor: see `ActorOptions::description`. The reference has
    /// the name of the class that the actor was made with.
    // For fronts.
    #[doc(hidden)]
    pub fn described(namespace: Option<&str>, name: &str, class: Definition) -> Result<(Self, String)> {
        let runtime = current::runtime()?;
        let Some(found) = find(&runtime, namespace.unwrap_or(&runtime.namespace), name)? else {
            return Err(Error::NoSuchActor { name: name.to_owned() });
        };
        if found.class != class.key {
            let (expected, found) = (class.name.to_string(), found.class_name);
            return Err(Error::WrongActorClass { name: name.to_owned(), expected, found });
        }
        let token = Token::Held(Held::new(found.token, found.max_pending_calls));
        let class = Definition { name: Name::Shared(found.class_name.into()), ..class };
        let actor = Self {
            session: runtime.session,
            actor: found.actor,
            class,
            token,
            is_in_order: true,
            options: None,
        };
        Ok((actor, found.description))
    }

    /// The name of its class.
    // For fronts.
    #[doc(hidden)]
    #[must_use]
    pub fn class_name(&self) -> &Name {
        &self.class.name
    }

    /// A reference to the same actor. Its calls do not wait for earlier calls whose arguments are not there.
    pub fn out_of_order(self) -> Self {
        Self { is_in_order: false, ..self }
    }

    /// A reference to the same actor. Its calls have these options.
    pub fn with_options(self, options: MethodOptions) -> Self {
        Self { options: Some(options).filter(MethodOptions::is_any).map(Box::new), ..self }
    }

    /// A reference to the same actor. Its calls have these options where those of `self` are not set.
    pub fn or_options(mut self, defaults: MethodOptions) -> Self {
        let own = self.options.take().map(|options| *options).unwrap_or_default();
        self.with_options(own.or(defaults))
    }

    /// Calls a method. Returns a reference to each result. Costs as much as [`call_function`](crate::call_function).
    #[inline]
    pub fn call(
        self,
        method: u32,
        name: Name,
        arguments: ArgumentList,
        returns: Returns,
    ) -> impl Iterator<Item = Ref> {
        references(self.submit(method, name, arguments, returns, None))
    }

    /// Calls a method that makes a stream, as [`call_streaming`](crate::call_streaming) calls a function.
    pub fn call_streaming(
        self,
        method: u32,
        name: Name,
        arguments: ArgumentList,
        in_flight_max: u32,
    ) -> ItemStream {
        let items = Items::new(in_flight_max);
        let returns = Returns::Stream(in_flight_max);
        let cells = self.submit(method, name, arguments, returns, Some(items.clone()));
        ItemStream::new(cells, items)
    }

    fn submit(
        self,
        method: u32,
        name: Name,
        arguments: ArgumentList,
        returns: Returns,
        items: Option<Arc<Items>>,
    ) -> ResultCells {
        let Self { session, actor, class, token, is_in_order, options } = self;
        let Some(runtime) = arguments.runtime().ok().filter(|runtime| runtime.is_of(session)) else {
            let failure = current::runtime_of(session).map_or_else(Failure::from, |_| Failure::SessionOver);
            return failed(session, returns, &failure);
        };
        let Held { handle, limit } = match token {
            Token::Held(held) => held,
            Token::Failed(failure) => return failed(session, returns, &failure),
        };
        if let Some(limit) = &limit {
            // Results may have come that no thread has looked at.
            let begun = limit.begin().or_else(|_| {
                runtime.look();
                limit.begin()
            });
            if let Err(limit) = begun {
                return failed(session, returns, &too_many_pending(&class.name, &name, limit));
            }
        }
        let target = Target::Method { actor, method, class: class.name, name, token: handle, is_in_order };
        let options = options.map(|options| options.of_call()).unwrap_or_default();
        let cells = submit(target, arguments, returns, items, options);
        if let Some(limit) = limit {
            limit.made(cells.first());
        }
        cells
    }

    /// Whether one more call of this handle may be pending.
    ///
    /// # Errors
    /// [`Failure::PendingCallsLimitExceeded`].
    pub fn check_pending(&self, method: &Name) -> Result<(), Failure> {
        let Token::Held(held) = &self.token else { return Ok(()) };
        let Some(limit) = &held.limit else { return Ok(()) };
        let runtime = current::runtime_of(self.session)?;
        let room = limit.check().or_else(|_| {
            runtime.look();
            limit.check()
        });
        room.map_err(|limit| too_many_pending(&self.class.name, method, limit))
    }

    /// Lets the actor end itself after the calls that were made before, and waits until its destructor has run and its
    /// process is gone. The actor is not restarted.
    ///
    /// # Errors
    /// [`Error::Timeout`] when that takes longer: the actor ends later then. The reason why there is no actor;
    /// [`Failure::SessionOver`].
    pub fn terminate(&self, timeout: Duration) -> Result<()> {
        drop(self.begin_to_terminate()?);
        current::runtime_of(self.session)?.await_actor_end(self.actor, timeout)
    }

    /// Lets the actor end itself after the calls that were made before. The result of the returned reference is the
    /// actor's end: [`Failure::ActorDied`].
    ///
    /// # Errors
    /// The reason why there is no actor; [`Failure::SessionOver`].
    pub fn begin_to_terminate(&self) -> Result<Ref> {
        current::runtime_of(self.session)?;
        let token = match &self.token {
            Token::Held(held) => held.handle.clone(),
            Token::Failed(failure) => return Err((**failure).clone().into()),
        };
        let Callee::Method(method) = Callee::TERMINATE else { unreachable!("it is a method") };
        let (actor, class, name) = (self.actor, self.class.name.clone(), Name::Static("terminate"));
        let target = Target::Method { actor, method, class, name, token, is_in_order: true };
        let cells = submit(target, ArgumentList::default(), Returns::One, None, TaskOptions::new());
        let first = references(cells).next();
        first.ok_or_else(|| Failure::Other("a call has no result".into()).into())
    }

    /// Ends the actor now and for good: its process is killed, and its unfinished calls fail. A round trip to the head.
    ///
    /// # Errors
    /// [`Error::NotInitialized`]; [`Failure::SessionOver`] when the reference's session has ended.
    pub fn kill(&self) -> Result<()> {
        let runtime = current::runtime_of(self.session)?;
        runtime.submitter.kill_actor(self.actor, false);
        // When this returns, no call of it succeeds any more.
        runtime.wait_for_head(|| runtime.submitter.actor_failure(self.actor).map(drop));
        Ok(())
    }

    /// Kills the actor's process, as a crash would: the actor is restarted if its options allow it, and is over
    /// otherwise. Returns at once: calls that are made meanwhile may still reach the old process.
    ///
    /// # Errors
    /// As [`kill`](Self::kill).
    pub fn kill_process(&self) -> Result<()> {
        current::runtime_of(self.session)?.submitter.kill_actor(self.actor, true);
        Ok(())
    }

    /// The form of the reference inside a value.
    ///
    /// # Errors
    /// Why there is no actor; [`Failure::SessionOver`].
    pub fn export(&self) -> Result<ExportedActor> {
        current::runtime_of(self.session)?;
        match &self.token {
            Token::Held(held) => {
                let token = (*held.handle).clone();
                let max_pending_calls = held.limit.as_ref().map_or(0, |limit| limit.max());
                Ok(ExportedActor { actor: self.actor, class: self.class.key, token, max_pending_calls })
            }
            Token::Failed(failure) => Err((**failure).clone().into()),
        }
    }

    /// The actor that came inside a value, if it is of this class.
    #[must_use]
    pub fn import(exported: ExportedActor, class: Definition) -> Option<Self> {
        let ExportedActor { actor, class: key, token, max_pending_calls } = exported;
        let token = Token::Held(Held::new(token, max_pending_calls));
        let session = current::number();
        (key == class.key).then_some(Self { session, actor, class, token, is_in_order: true, options: None })
    }

    /// The identity of the actor: its token. An actor that could not be made has none, and is identified by its
    /// failure, which does not leave the process.
    fn identity(&self) -> (u64, Option<ObjectId>, usize) {
        match &self.token {
            Token::Held(held) => (self.actor, Some(held.handle.id()), 0),
            Token::Failed(failure) => (self.actor, None, Arc::as_ptr(failure).addr()),
        }
    }
}

fn too_many_pending(class: &Name, method: &Name, limit: u32) -> Failure {
    Failure::PendingCallsLimitExceeded { class: class.to_string(), method: method.to_string(), limit }
}

/// A place for an actor, or the actor that has the name already.
struct Reserved {
    actor: u64,
    token: Held,
    /// Its constructor is to run.
    is_new: bool,
}

/// How often the head is asked again while the name still belongs to another actor that has just ended.
const RESERVE_TRIES: usize = 1000;

/// A place for an actor, and what keeps it. A round trip to the head.
fn reserve(runtime: &Runtime, class: &Definition, options: &ActorOptions) -> Result<Reserved, Failure> {
    let bad = |option: &str, value: &str, expected: &str| Failure::BadOption {
        option: option.to_owned(),
        value: value.to_owned(),
        expected: expected.to_owned(),
    };
    if options.max_pending_calls == Some(0) {
        return Err(bad("max_pending_calls", "0", "a number of calls, at least 1"));
    }
    let get_if_exists = options.get_if_exists == Some(true);
    if get_if_exists && options.name.is_none() {
        let expected = "for an actor with a name (`ActorOptions::name`), by which it is found";
        return Err(bad("get_if_exists", "true", expected));
    }
    if options.namespace.as_deref() == Some("") {
        return Err(bad("namespace", "\"\"", "text of at least one character"));
    }
    let max_pending_calls = options.max_pending_calls.unwrap_or(0);
    let actor = NewActor {
        class: class.key,
        class_name: &class.name,
        namespace: options.namespace.as_deref().unwrap_or(&runtime.namespace),
        name: options.name.as_deref(),
        get_if_exists,
        is_detached: options.lifetime == Some(Lifetime::Detached),
        max_pending_calls,
        description: options.description.as_deref().unwrap_or_default(),
        max_restarts: options.max_restarts.unwrap_or(0),
        max_task_retries: options.max_task_retries.unwrap_or(0),
        demand: demand_of_actor(runtime, &options.amounts, &options.environment, || {
            format!("{}::new", class.name)
        })?,
    };
    let ask = || runtime.ask(|request| ToHead::ReserveActor { request, actor: actor.clone() });
    let mut answer = ask()?;
    for _ in 0..RESERVE_TRIES {
        // The actor of another driver that had the name has just ended. Now the name is free, or a third actor has it.
        if !matches!(answer, Answer::Found(Ok(None))) {
            break;
        }
        answer = ask()?;
    }
    match answer {
        Answer::Found(Ok(None)) => Err(Failure::NameTaken { name: options.name.clone().unwrap_or_default() }),
        Answer::Reserved(result) => {
            let (actor, handle) = result?;
            Ok(Reserved { actor, token: Held::new(handle, max_pending_calls), is_new: true })
        }
        Answer::Found(Ok(Some(found))) if found.class == class.key => {
            let token = Held::new(found.token, found.max_pending_calls);
            Ok(Reserved { actor: found.actor, token, is_new: false })
        }
        Answer::Found(Err(failure)) => Err(failure),
        Answer::Found(Ok(Some(found))) => Err(Failure::WrongActorClass {
            name: options.name.clone().unwrap_or_default(),
            expected: class.name.to_string(),
            found: found.class_name,
        }),
        _ => Err(another_answer()),
    }
}

/// The actor of a name. A round trip to the head.
fn find(runtime: &Runtime, namespace: &str, name: &str) -> Result<Option<Found>, Failure> {
    match runtime.ask(|request| ToHead::FindActor { request, namespace, name })? {
        Answer::Found(found) => found,
        _ => Err(another_answer()),
    }
}

fn another_answer() -> Failure {
    Failure::Other("the head answered another question".into())
}

/// The names of the living actors: those of this session's namespace, or of all. In order. Costs a round trip to the
/// head.
///
/// ```
/// use mobula::{ActorOptions, list_named_actors};
///
/// struct Cache;
///
/// #[mobula::remote]
/// impl Cache {
///     fn new() -> Self {
///         Cache
///     }
/// }
///
/// let _mobula = mobula::init()?;
/// let _here = Cache::options(ActorOptions::new().name("here")).remote();
/// let _there = Cache::options(ActorOptions::new().name("there").namespace("other")).remote();
/// let names = |all| -> mobula::Result<Vec<String>> {
///     Ok(list_named_actors(all)?.into_iter().map(|named| named.name).collect())
/// };
/// assert_eq!(names(false)?, ["here"]);
/// assert_eq!(names(true)?, ["here", "there"]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotInitialized`]: this process has no session.
pub fn list_named_actors(all_namespaces: bool) -> Result<Vec<NamedActor>> {
    let runtime = current::runtime()?;
    let namespace = (!all_namespaces).then_some(runtime.namespace.as_str());
    match runtime.ask(|request| ToHead::ListActors { request, namespace })? {
        Answer::Names(names) => Ok(names),
        _ => Err(another_answer().into()),
    }
}

/// Ends the actor whose method calls this, after that call, and permanently. The front unwinds the method.
///
/// # Errors
/// [`Error::NotInActor`]: this process is no actor.
pub fn exit_actor() -> Result<()> {
    current::runtime().map_err(|_| Error::NotInActor)?.exit_actor()
}

/// Whether the actor of this process was restarted: its process has died, and this one has taken its place. Always
/// false in a process that is no actor, and in one whose actor was never restarted. Costs two loads.
///
/// ```
/// use mobula::{ActorOptions, restarted};
///
/// struct Index {
///     is_rebuilt: bool,
/// }
///
/// #[mobula::remote]
/// impl Index {
///     fn new() -> Self {
///         Index { is_rebuilt: restarted() } // read what the process before has saved
///     }
///     fn is_rebuilt(&self) -> bool {
///         self.is_rebuilt
///     }
///     fn crash(&self) {
///         std::process::abort()
///     }
/// }
///
/// let _mobula = mobula::init()?;
/// let index = Index::options(ActorOptions::new().max_restarts(1)).remote();
/// assert!(!index.is_rebuilt().get()?);
/// let _ = index.crash().get();
/// assert!(index.is_rebuilt().get()?);
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use]
pub fn restarted() -> bool {
    current::runtime()
        .is_ok_and(|runtime| runtime.executor.as_ref().is_some_and(|executor| executor.restarts() > 0))
}

/// The number of the actor of this process, as in its [`ExportedActor`]; `None` if this process is not an actor.
#[must_use]
pub fn actor_number() -> Option<u64> {
    current::runtime().ok()?.executor.as_ref()?.actor_number()
}

impl PartialEq for ActorRef {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ActorRef {}

impl Hash for ActorRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl fmt::Debug for ActorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            Token::Held(_) => write!(f, "{:016x}", self.actor),
            Token::Failed(failure) => write!(f, "{failure}"),
        }
    }
}
