//! Actors as their users see them: classes, handles, and calls of methods.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use mobula_client::{Handle, ObjectId};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::call::arguments::{ReturnTuple, SlotOf};
use crate::call::object_ref::ObjectRef;
use crate::call::task::{ArgumentList, Slots, Target, TaskOptions, failed, submit};
use crate::error::{Error, Failure, Result};
use crate::registry::{Class, Key};
use crate::session::{self, SessionNumber};
use crate::value::Reference;
use crate::wire::Returns;

/// A class of actors; implemented by `#[mobula::remote]` on an `impl` block.
pub trait Actor: 'static {
    /// What a handle offers: the class's methods, as remote calls.
    type Methods;
    #[doc(hidden)]
    fn class() -> &'static Class;
    #[doc(hidden)]
    fn methods(raw: RawActor) -> Self::Methods;
    #[doc(hidden)]
    fn raw(methods: &Self::Methods) -> &RawActor;
}

/// A handle to an actor: derefs to its methods.
///
/// Calls through one process's handles run in order. A handle can be cloned, given as an argument, or sent inside a
/// value; the actor ends when the last one, anywhere, is gone.
///
/// # How an actor ends
///
/// With its last handle, or with the [session](crate::Session): the call that runs is finished, calls that wait are not
/// begun, and the state is dropped, so its destructor runs; after 2 seconds the process is killed. By [`kill`](fn@kill), or
/// when its process dies, it ends at once, and no destructor runs.
///
/// Handles that actors hold count as any others do. So actors that hold handles to each other, or one that holds its own,
/// live on when nobody else has one: they end with the session, or by [`kill`](fn@kill). Where that is not wanted, let one
/// of them drop what it holds (a method that takes it out of the state does), or look the other up by its name
/// ([`get_actor`]) when it is needed.
pub struct ActorHandle<A: Actor> {
    methods: A::Methods,
}

impl<A: Actor> ActorHandle<A> {
    fn from_raw(raw: RawActor) -> Self {
        Self { methods: A::methods(raw) }
    }

    fn raw(&self) -> &RawActor {
        A::raw(&self.methods)
    }
}

impl<A: Actor> Deref for ActorHandle<A> {
    type Target = A::Methods;

    fn deref(&self) -> &A::Methods {
        &self.methods
    }
}

impl<A: Actor> Clone for ActorHandle<A> {
    fn clone(&self) -> Self {
        Self::from_raw(self.raw().clone())
    }
}

/// A handle is equal to all other handles to the same actor, in every process and after every restart.
impl<A: Actor> PartialEq for ActorHandle<A> {
    fn eq(&self, other: &Self) -> bool {
        self.raw().identity() == other.raw().identity()
    }
}

impl<A: Actor> Eq for ActorHandle<A> {}

impl<A: Actor> Hash for ActorHandle<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw().identity().hash(state);
    }
}

// As of an `ObjectRef`: nothing is half changed while code of users runs that may panic.
impl<A: Actor> UnwindSafe for ActorHandle<A> {}
impl<A: Actor> RefUnwindSafe for ActorHandle<A> {}

impl<A: Actor> fmt::Debug for ActorHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorHandle<{}>({:?})", A::class().name, self.raw())
    }
}

/// Options of an actor.
///
/// ```
/// # use mobula::ActorOptions;
/// let options = ActorOptions::new().name("scores").max_restarts(3);
/// ```
///
/// # When its process dies
///
/// Without options an actor is over when its process dies: calls that were under way, and all later ones, fail with
/// [`Failure::ActorDied`].
///
/// With [`max_restarts`](Self::max_restarts) it is started again: a new process runs the constructor with the same
/// arguments, which are kept for that. The state is a new one; what the old one had become is lost, unless the actor
/// keeps it elsewhere. Handles and the name stay, in whatever process they are, and lead to the new process. Then
///
/// - a call that had begun when the process died, and whose result is not yet there, fails with
///   [`Failure::ActorUnavailable`]: it was carried out **at most once**. With
///   [`max_task_retries`](Self::max_task_retries) it is sent again instead, and is carried out **at least once** if it
///   succeeds, at most once more than there are retries;
/// - a call that had not begun, or is made while the actor starts again, waits for the new process;
/// - the calls of one caller that are carried out are so in the order in which they were made, those that are sent again
///   before those that waited.
///
/// It is not started again when it was ended: with its last handle, by [`kill`](fn@kill), or by a constructor that fails
/// when it runs again. Its calls then fail with what the constructor said.
#[derive(Debug, Clone, Default)]
pub struct ActorOptions {
    pub(crate) name: Option<String>,
    pub(crate) max_restarts: Option<u32>,
    pub(crate) max_task_retries: Option<u32>,
}

impl ActorOptions {
    /// The defaults: no name, no restarts, no retries.
    pub fn new() -> Self {
        Self::default()
    }

    /// A name by which any process of the session finds the actor with [`get_actor`]. It is the actor's as long as it
    /// lives; a name alone does not keep it alive.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How often the actor is started again when its process dies, however that happens but by [`kill`](fn@kill): it
    /// crashed, it was killed from outside, or its own code ended it. [`UNLIMITED`](crate::UNLIMITED) is possible.
    /// Default: 0.
    pub fn max_restarts(mut self, restarts: u32) -> Self {
        self.max_restarts = Some(restarts);
        self
    }

    /// How often a call that was under way when the actor's process died is sent again to the one that takes its place;
    /// [`UNLIMITED`](crate::UNLIMITED) is possible. Default: 0. It takes restarts to be of any use.
    pub fn max_task_retries(mut self, retries: u32) -> Self {
        self.max_task_retries = Some(retries);
        self
    }

    /// What is not set here, as `defaults` has it.
    fn or(self, defaults: Self) -> Self {
        Self {
            name: self.name.or(defaults.name),
            max_restarts: self.max_restarts.or(defaults.max_restarts),
            max_task_retries: self.max_task_retries.or(defaults.max_task_retries),
        }
    }
}

/// The actor of a class that has a name. A round trip to the head.
///
/// # Errors
/// [`Error::NoSuchActor`], [`Error::WrongActorClass`], [`Error::NotInitialized`].
pub fn get_actor<A: Actor>(name: &str) -> Result<ActorHandle<A>> {
    let core = session::core()?;
    let Some((actor, key, class_name, token)) = core.find_actor(name)? else {
        return Err(Error::NoSuchActor { name: name.to_owned() });
    };
    let class = A::class();
    if key != class.key() {
        let (expected, found) = (class.name.to_owned(), class_name);
        return Err(Error::WrongActorClass { name: name.to_owned(), expected, found });
    }
    let (session, token) = (core.session, Token::Held(Arc::new(token)));
    Ok(ActorHandle::from_raw(RawActor { session, actor, class, token }))
}

/// Ends an actor now, and for good: its process is killed, whatever it does; calls that were not finished fail. A round
/// trip to the head.
///
/// # Errors
/// [`Error::NotInitialized`]; [`Failure::SessionOver`] when the handle's session has ended.
pub fn kill<A: Actor>(handle: &ActorHandle<A>) -> Result<()> {
    session::core_of(handle.raw().session)?.kill_actor(handle.raw().actor);
    Ok(())
}

/// What keeps the actor alive, or why there is none.
#[derive(Debug, Clone)]
enum Token {
    Held(Arc<Handle>),
    Failed(Arc<Failure>),
}

/// A handle whose class the type system does not know.
#[derive(Clone)]
pub struct RawActor {
    session: SessionNumber,
    actor: u64,
    class: &'static Class,
    token: Token,
}

impl RawActor {
    /// What tells the actor from all others: its token. One that could not be made has none, and is known by its failure,
    /// which does not leave the process.
    fn identity(&self) -> (u64, Option<ObjectId>, usize) {
        match &self.token {
            Token::Held(token) => (self.actor, Some(token.id()), 0),
            Token::Failed(failure) => (self.actor, None, Arc::as_ptr(failure).addr()),
        }
    }

    /// A call of the method of this index.
    pub fn call(&self, method: usize) -> MethodCall {
        MethodCall { actor: self.clone(), method, arguments: ArgumentList::default() }
    }
}

impl fmt::Debug for RawActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            Token::Held(_) => write!(f, "{:016x}", self.actor),
            Token::Failed(failure) => write!(f, "{failure}"),
        }
    }
}

/// A call of a method, being put together by the macros' code.
#[derive(Debug)]
pub struct MethodCall {
    actor: RawActor,
    method: usize,
    arguments: ArgumentList,
}

impl AsMut<ArgumentList> for MethodCall {
    fn as_mut(&mut self) -> &mut ArgumentList {
        &mut self.arguments
    }
}

impl MethodCall {
    /// Makes the call; its result is one object.
    pub fn submit<T>(self) -> ObjectRef<T> {
        ObjectRef::new(self.make(Returns::One).remove(0))
    }

    /// Makes the call; each element of its result is an object.
    pub fn submit_tuple<T: ReturnTuple>(self) -> T::References {
        T::references(self.make(Returns::Tuple(T::COUNT)).into_iter().map(SlotOf).collect())
    }

    fn make(self, returns: Returns) -> Slots {
        let RawActor { session, actor, class, token } = self.actor;
        if let Err(error) = session::core_of(session) {
            return failed(session, returns, &error.into());
        }
        let token = match token {
            Token::Held(token) => token,
            Token::Failed(failure) => return failed(session, returns, &failure),
        };
        let target = Target::Method {
            actor,
            method: self.method as u32,
            class: class.name,
            name: class.methods[self.method].name,
            token,
        };
        submit(target, self.arguments, returns, TaskOptions::new())
    }
}

/// An actor about to be made, being put together by the macros' code.
#[derive(Debug)]
pub struct Create<A> {
    options: ActorOptions,
    arguments: ArgumentList,
    of: PhantomData<fn() -> A>,
}

impl<A> AsMut<ArgumentList> for Create<A> {
    fn as_mut(&mut self) -> &mut ArgumentList {
        &mut self.arguments
    }
}

impl<A: Actor> Create<A> {
    /// A constructor call without arguments yet, with the options of whoever makes it; what those leave open, the
    /// attribute says.
    pub fn new(options: ActorOptions, defaults: ActorOptions) -> Self {
        Self { options: options.or(defaults), arguments: ArgumentList::default(), of: PhantomData }
    }

    /// Makes the actor. A round trip to the head for its place; its process starts, and its constructor runs, meanwhile.
    /// Whatever goes wrong is reported by its calls.
    pub fn submit(self) -> ActorHandle<A> {
        let (Self { options, arguments, .. }, class) = (self, A::class());
        let reserved = session::core()
            .map_err(Failure::from)
            .and_then(|core| Ok((core.session, core.reserve_actor(class, &options)?)));
        let (session, actor, token) = match reserved {
            Ok((session, (actor, handle))) => (session, actor, Token::Held(Arc::new(handle))),
            Err(failure) => (SessionNumber::NONE, 0, Token::Failed(Arc::new(failure))),
        };
        if let Token::Held(_) = token {
            let target = Target::Constructor { actor, class: class.name };
            let results = submit(target, arguments, Returns::One, TaskOptions::new());
            drop(results);
        }
        ActorHandle::from_raw(RawActor { session, actor, class, token })
    }
}

#[derive(Serialize, Deserialize)]
struct Passed {
    actor: u64,
    class: Key,
    token: Reference,
}

impl<A: Actor> Serialize for ActorHandle<A> {
    /// As the actor's number, and its token's position among the references of the value that is being encoded.
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let raw = self.raw();
        session::core_of(raw.session).map_err(S::Error::custom)?;
        let token = match &raw.token {
            Token::Held(handle) => Reference((**handle).clone()),
            Token::Failed(failure) => return Err(S::Error::custom(failure)),
        };
        Passed { actor: raw.actor, class: raw.class.key(), token }.serialize(serializer)
    }
}

impl<'de, A: Actor> Deserialize<'de> for ActorHandle<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let passed = Passed::deserialize(deserializer)?;
        let class = A::class();
        if passed.class != class.key() {
            return Err(D::Error::custom(format!(
                "expected a handle to an actor of class {}, and this is one to another class",
                class.name
            )));
        }
        let token = Token::Held(Arc::new(passed.token.0));
        let (session, actor) = (session::number(), passed.actor);
        Ok(Self::from_raw(RawActor { session, actor, class, token }))
    }
}
