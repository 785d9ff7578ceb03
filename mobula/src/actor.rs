//! Actors as their users see them: classes, handles, and calls of methods.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe, resume_unwind};
use std::time::Duration;

use mobula_runtime::{
    ActorOptions, ActorRef, ArgumentList, ExportedActor, Failure, Key, MethodOptions, Name, Ref, Result,
    Returns,
};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::object_ref::ObjectRef;
use crate::ref_stream::ObjectRefStream;
use crate::registry::Class;
use crate::results::ReturnTuple;
use crate::value::{self, Reference};

/// A class of actors. `#[mobula::remote]` on an `impl` block implements it; do not implement it by hand.
///
/// It is the bound of code that takes actors of any class:
///
/// ```
/// use mobula::prelude::*;
///
/// struct Greeter;
///
/// #[remote]
/// impl Greeter {
///     fn new() -> Self {
///         Greeter
///     }
///     fn greet(&self, name: String) -> String {
///         format!("hello, {name}")
///     }
/// }
///
/// /// The actors of a name and a number, made elsewhere.
/// fn pool<A: Actor>(name: &str, size: usize) -> Result<Vec<ActorHandle<A>>> {
///     (0..size).map(|number| get_actor(&format!("{name}-{number}"))).collect()
/// }
///
/// let _mobula = init()?;
/// let options = mobula::ActorOptions::new().name("greeter-0");
/// let _greeter = Greeter::options(options).remote();
/// let greeters: Vec<ActorHandle<Greeter>> = pool("greeter", 1)?;
/// assert_eq!(greeters[0].greet("Mobula".to_owned()).get()?, "hello, Mobula");
/// # Ok::<(), mobula::Error>(())
/// ```
pub trait Actor: 'static {
    /// The methods that a handle offers: those of the class, as remote calls. A handle derefs to this type; programs
    /// need not name it.
    type Methods;
    #[doc(hidden)]
    fn class() -> &'static Class;
    #[doc(hidden)]
    fn methods(raw: RawActor) -> Self::Methods;
    #[doc(hidden)]
    fn raw(methods: &Self::Methods) -> &RawActor;
}

/// A handle to an actor: derefs to its methods, each as a remote call that returns an [`ObjectRef`] at once.
///
/// Calls through one process's handles run in order, one at a time unless the class
/// [says otherwise](macro@crate::remote#several-calls-at-a-time). A handle can be cloned, given as an argument, or sent
/// inside a value; the actor ends when the last one, anywhere, is gone.
///
/// ```
/// use mobula::prelude::*;
///
/// struct Counter {
///     value: i64,
/// }
///
/// #[remote]
/// impl Counter {
///     fn new(start: i64) -> Self {
///         Counter { value: start }
///     }
///     fn add(&mut self, by: i64) -> i64 {
///         self.value += by;
///         self.value
///     }
/// }
///
/// #[remote]
/// fn count(counter: ActorHandle<Counter>) -> Result<i64> {
///     counter.add(1).get() // a task calls the actor, too
/// }
///
/// let _mobula = init()?;
/// let counter: ActorHandle<Counter> = Counter::remote(40); // a process of its own, which runs `Counter::new(40)`
/// assert_eq!(counter.add(1).get()?, 41);
/// assert_eq!(count::remote(counter.clone()).get()?, 42);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// A call costs as much as a call of a function: one record in shared memory, and no system call while the actor's
/// process is awake. The drop of a handle waits for nothing.
///
/// # How an actor ends
///
/// | by | the running call | calls that wait | the state's destructor | restarted |
/// |---|---|---|---|---|
/// | its last handle is dropped | is finished | do not begin | runs | no |
/// | the [session](crate::Session) ends | is finished | do not begin | runs | no |
/// | [`terminate`] | is finished | those before it run | runs | no |
/// | [`exit_actor`], in a method | is that method | do not begin | runs | no |
/// | SIGTERM | is finished | wait for the restart | runs | if it may |
/// | [`kill`](fn@kill) | is broken off | do not begin | does not run | no |
/// | its process dies | is broken off | wait for the restart | does not run | if it may |
///
/// A call of an `async` method that runs is finished by [`terminate`]. Where the table says so for other ends, it is
/// dropped where it awaits, so that the destructor can run. With [`terminate`], a call whose
/// [`Reply`](crate::Reply) is kept is a running one: it is waited for.
///
/// The running calls and the destructor have 2 seconds together; then the process is killed. [`terminate`] and
/// [`exit_actor`] give the destructor a minute, and [`Session::shutdown`](crate::Session::shutdown) what it is told.
///
/// A [detached](crate::Lifetime::Detached) actor needs no handle.
///
/// Handles that actors hold count like all others. So actors that hold handles to each other, or an actor that holds
/// its own, stay alive when no other handle is left: they end with the session, or by [`kill`](fn@kill). To avoid that,
/// let one of them drop its handle (in a method that takes it out of the state), or look the other actor up by its name
/// ([`get_actor`]) when it is needed.
#[must_use = "the actor ends when its last handle is dropped"]
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

    /// The methods of the actor. Their calls have these options, in place of those of the methods' attributes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::prelude::*;
    /// use mobula::{Error, Failure, MethodOptions};
    ///
    /// struct Searcher;
    ///
    /// #[remote]
    /// impl Searcher {
    ///     fn new() -> Self {
    ///         Searcher
    ///     }
    ///     fn search(&self, rounds: u64) -> u64 {
    ///         let one = |_: &u64| std::thread::sleep(Duration::from_millis(1));
    ///         (0..rounds).take_while(|_| !mobula::is_cancelled()).inspect(one).count() as u64
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// let searcher = Searcher::remote();
    /// let briefly = MethodOptions::new().timeout(Duration::from_millis(50));
    /// let in_vain = searcher.options(briefly).search(1_000_000);
    /// assert!(matches!(in_vain.get(), Err(Error::Failed(Failure::TaskTimedOut { .. }))));
    /// assert_eq!(searcher.search(3).get()?, 3); // the actor goes on, and this call has no limit
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// No method of an actor can have this name. The returned value keeps the actor alive, as a handle does.
    #[must_use = "options have no effect before a call is made with them"]
    pub fn options(&self, options: MethodOptions) -> A::Methods {
        let RawActor { actor, class } = self.raw().clone();
        A::methods(RawActor { actor: actor.with_options(options), class })
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
        self.raw().actor == other.raw().actor
    }
}

impl<A: Actor> Eq for ActorHandle<A> {}

impl<A: Actor> Hash for ActorHandle<A> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw().actor.hash(state);
    }
}

// As for an `ObjectRef`: no state is half changed while user code runs, which may panic.
impl<A: Actor> UnwindSafe for ActorHandle<A> {}
impl<A: Actor> RefUnwindSafe for ActorHandle<A> {}

impl<A: Actor> fmt::Debug for ActorHandle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorHandle<{}>({:?})", A::class().name, self.raw())
    }
}

/// The actor of this class with a name, as [`ActorOptions::name`](crate::ActorOptions::name) gave it. Any process of
/// the session can ask. Costs a round trip to the head, which is a thread of the driver.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::{ActorOptions, Error};
///
/// struct Settings(String);
///
/// #[remote]
/// impl Settings {
///     fn new(text: String) -> Self {
///         Settings(text)
///     }
///     fn text(&self) -> String {
///         self.0.clone()
///     }
/// }
///
/// #[remote]
/// fn read() -> Result<String> {
///     get_actor::<Settings>("settings")?.text().get()
/// }
///
/// let _mobula = init()?;
/// let settings = Settings::options(ActorOptions::new().name("settings")).remote("blue".to_owned());
/// assert_eq!(read::remote().get()?, "blue");
/// assert_eq!(get_actor::<Settings>("settings")?, settings);
/// assert!(matches!(get_actor::<Settings>("setings"), Err(Error::NoSuchActor { .. })));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// - [`Error::NoSuchActor`](crate::Error::NoSuchActor): no living actor has the name.
/// - [`Error::WrongActorClass`](crate::Error::WrongActorClass): the actor of that name is of another class.
/// - [`Error::NotInitialized`](crate::Error::NotInitialized): this process has no session.
pub fn get_actor<A: Actor>(name: &str) -> Result<ActorHandle<A>> {
    let class = A::class();
    let actor = ActorRef::named(None, name, class.definition())?;
    Ok(ActorHandle::from_raw(RawActor::new(actor, class)))
}

/// Finds an actor like [`get_actor`], in another namespace than the session's: see
/// [`ActorOptions::namespace`](crate::ActorOptions::namespace).
///
/// ```
/// use mobula::prelude::*;
/// use mobula::{ActorOptions, Error, get_actor_in};
///
/// struct Settings;
///
/// #[remote]
/// impl Settings {
///     fn new() -> Self {
///         Settings
///     }
/// }
///
/// let _mobula = init()?;
/// let options = ActorOptions::new().name("settings").namespace("tests");
/// let settings = Settings::options(options).remote();
/// assert_eq!(get_actor_in::<Settings>("settings", "tests")?, settings);
/// assert!(matches!(get_actor::<Settings>("settings"), Err(Error::NoSuchActor { .. })));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// As [`get_actor`].
pub fn get_actor_in<A: Actor>(name: &str, namespace: &str) -> Result<ActorHandle<A>> {
    let class = A::class();
    let actor = ActorRef::named(Some(namespace), name, class.definition())?;
    Ok(ActorHandle::from_raw(RawActor::new(actor, class)))
}

/// Ends an actor now and permanently: its process is killed, even during a call, and unfinished calls fail. No
/// destructor of its state runs, and it is not restarted. Costs a round trip to the head. When this returns, no call of
/// the actor succeeds any more.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::{ActorEnd, Error, Failure};
///
/// struct Sleeper;
///
/// #[remote]
/// impl Sleeper {
///     fn new() -> Self {
///         Sleeper
///     }
///     fn sleep(&self) {
///         std::thread::sleep(std::time::Duration::from_secs(3600));
///     }
/// }
///
/// let _mobula = init()?;
/// let sleeper = Sleeper::remote();
/// let asleep = sleeper.sleep();
/// mobula::kill(&sleeper)?;
/// let error = asleep.get().unwrap_err();
/// assert!(matches!(error, Error::Failed(Failure::ActorDied { cause: ActorEnd::Killed, .. })));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// - [`Error::NotInitialized`](crate::Error::NotInitialized): this process has no session.
/// - [`Failure::SessionOver`](crate::Failure::SessionOver): the handle's session has ended.
pub fn kill<A: Actor>(handle: &ActorHandle<A>) -> Result<()> {
    handle.raw().actor.kill()
}

/// Kills the process of an actor, as a crash would: the actor is restarted if its options allow it, and is over
/// otherwise. Killing an actor that has no process yet, or is between two, counts as a restart, too. Returns at once;
/// calls that are made meanwhile may still reach the old process.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::ActorOptions;
///
/// struct Cache;
///
/// #[remote]
/// impl Cache {
///     fn new() -> Self {
///         Cache
///     }
///     fn process(&self) -> u32 {
///         std::process::id()
///     }
/// }
///
/// let _mobula = init()?;
/// let cache = Cache::options(ActorOptions::new().max_restarts(1)).remote();
/// let before = cache.process().get()?;
/// mobula::kill_process(&cache)?;
/// // A call that the old process has begun fails: the actor is unavailable for a moment.
/// let after = loop {
///     match cache.process().get() {
///         Ok(process) if process == before => {}
///         Ok(process) => break process,
///         Err(error) => assert!(matches!(error, mobula::Error::Failed(_)), "{error}"),
///     }
/// };
/// assert_ne!(after, before);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// This is Ray's `kill(actor, no_restart=False)`.
///
/// # Errors
/// As [`kill`].
pub fn kill_process<A: Actor>(handle: &ActorHandle<A>) -> Result<()> {
    handle.raw().actor.kill_process()
}

/// Lets an actor end itself, and waits until it has ended, for at most `timeout`: the calls that this process made
/// before are finished, its destructor has run, and its process is gone. It is not restarted. Calls that come later
/// fail with [`ActorEnd::Exited`](crate::ActorEnd::Exited), and so do calls with a [`Reply`](crate::Reply) that have
/// begun and are not answered within ten seconds.
///
/// ```
/// use std::time::Duration;
/// use mobula::{ActorEnd, Error, Failure};
///
/// struct Log(std::path::PathBuf, Vec<String>);
///
/// #[mobula::remote]
/// impl Log {
///     fn new(file: std::path::PathBuf) -> Self {
///         Log(file, Vec::new())
///     }
///     fn add(&mut self, line: String) {
///         self.1.push(line);
///     }
/// }
///
/// impl Drop for Log {
///     fn drop(&mut self) {
///         let _ = std::fs::write(&self.0, self.1.join("\n"));
///     }
/// }
///
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let file = directory.path().join("log");
/// let _mobula = mobula::init()?;
/// let log = Log::remote(file.clone());
/// (log.add("one".to_owned()), log.add("two".to_owned()));
/// mobula::terminate(&log, Duration::from_secs(30))?;
/// assert_eq!(std::fs::read_to_string(&file).expect("the destructor has run"), "one\ntwo");
/// let error = log.add("three".to_owned()).get().unwrap_err();
/// assert!(matches!(error, Error::Failed(Failure::ActorDied { cause: ActorEnd::Exited, .. })));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// This is Ray's `actor.__ray_terminate__.remote()`, with a wait for the end.
///
/// # Errors
/// - [`Error::Timeout`](crate::Error::Timeout): it takes longer. The actor ends later, unless it is
///   [killed](fn@kill).
/// - [`Error::NotInitialized`](crate::Error::NotInitialized): this process has no session.
/// - [`Failure::SessionOver`](crate::Failure::SessionOver): the handle's session has ended.
pub fn terminate<A: Actor>(handle: &ActorHandle<A>, timeout: Duration) -> Result<()> {
    handle.raw().actor.terminate(timeout)
}

/// Ends the actor whose method calls this, permanently. The method is left at once, as by a panic, but nothing is
/// printed: destructors of its values run, and then that of the state. Its call, calls that wait, and later ones fail
/// with [`ActorEnd::Exited`](crate::ActorEnd::Exited).
///
/// ```
/// use mobula::{ActorEnd, Error, Failure};
///
/// struct Worker;
///
/// #[mobula::remote(max_restarts = unlimited)]
/// impl Worker {
///     fn new() -> Self {
///         Worker
///     }
///     fn retire(&mut self) {
///         mobula::exit_actor()
///     }
/// }
///
/// let _mobula = mobula::init()?;
/// let error = Worker::remote().retire().get().unwrap_err();
/// assert!(matches!(error, Error::Failed(Failure::ActorDied { cause: ActorEnd::Exited, .. })));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// A program that is built with `panic = "abort"` ends the process here, so destructors do not run; the actor is not
/// restarted all the same.
///
/// # Panics
/// Always: this is how the method is left. Outside a method of an actor, the text of the panic is that of
/// [`Error::NotInActor`](crate::Error::NotInActor).
pub fn exit_actor() -> ! {
    match mobula_runtime::exit_actor() {
        Ok(()) => resume_unwind(Box::new("the actor ends itself")),
        Err(error) => panic!("{error}"),
    }
}

/// A handle whose class the type system does not know.
#[derive(Clone)]
pub struct RawActor {
    actor: ActorRef,
    class: &'static Class,
}

impl RawActor {
    fn new(actor: ActorRef, class: &'static Class) -> Self {
        Self { actor: if class.allow_out_of_order { actor.out_of_order() } else { actor }, class }
    }

    /// Returns the handle with these options for its calls, where it has none itself.
    #[must_use]
    pub fn or(&self, defaults: MethodOptions) -> Self {
        Self { actor: self.actor.clone().or_options(defaults), class: self.class }
    }

    /// Calls the method of this index; its result is one object.
    #[inline]
    pub fn call<T>(&self, method: usize, arguments: ArgumentList) -> ObjectRef<T> {
        ObjectRef::first_of(self.make(method, arguments, Returns::One))
    }

    /// Calls the method of this index; each element of its result is an object.
    pub fn call_tuple<T: ReturnTuple>(&self, method: usize, arguments: ArgumentList) -> T::References {
        T::references(&mut self.make(method, arguments, Returns::Tuple(T::COUNT)))
    }

    /// Calls the method of this index; its items are objects that come while it runs.
    pub fn call_streaming<T>(
        &self,
        method: usize,
        arguments: ArgumentList,
        max_in_flight: u32,
    ) -> ObjectRefStream<T> {
        let (number, name) = (method as u32, self.name_of(method));
        ObjectRefStream::new(self.actor.clone().call_streaming(number, name, arguments, max_in_flight))
    }

    #[inline]
    fn make(&self, method: usize, arguments: ArgumentList, returns: Returns) -> impl Iterator<Item = Ref> {
        self.actor.clone().call(method as u32, self.name_of(method), arguments, returns)
    }

    fn name_of(&self, method: usize) -> Name {
        Name::Static(self.class.methods[method].name)
    }
}

impl fmt::Debug for RawActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.actor.fmt(f)
    }
}

/// The arguments of a constructor, before the program's own.
pub fn constructor_arguments<A: Actor>(options: &ActorOptions) -> ArgumentList {
    let (class, wanted) = (A::class(), options.concurrency());
    let mut arguments = ArgumentList::default();
    if class.is_concurrent() {
        // The constructor's first argument, which the host takes.
        arguments.push_value(|out| value::append(&wanted, out));
    }
    let expected = match wanted {
        Some(0) => Some("1 or more"),
        Some(_) if !class.is_concurrent() => Some(
            "not given, because calls of the class run one at a time: put `max_concurrency` into the attribute \
             `#[remote]` of the class",
        ),
        _ => None,
    };
    if let Some((value, expected)) = wanted.zip(expected) {
        let option = format!("max_concurrency of {}", class.name);
        arguments.fail(Failure::BadOption { option, value: value.to_string(), expected: expected.into() });
    }
    arguments
}

/// Makes an actor. Costs a round trip to the head, which reserves the actor. The process starts and the constructor
/// runs meanwhile; the actor's calls report every error.
pub fn create<A: Actor>(options: &ActorOptions, arguments: ArgumentList) -> ActorHandle<A> {
    let class = A::class();
    let actor = ActorRef::create(class.definition(), options, arguments);
    ActorHandle::from_raw(RawActor::new(actor, class))
}

#[derive(Serialize, Deserialize)]
struct Passed {
    actor: u64,
    class: Key,
    token: Reference,
    max_pending_calls: u32,
}

impl<A: Actor> Serialize for ActorHandle<A> {
    /// Writes the actor's number, and its token's position among the references of the value that is being encoded.
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let ExportedActor { actor, class, token, max_pending_calls } =
            self.raw().actor.export().map_err(S::Error::custom)?;
        Passed { actor, class, token: Reference(token), max_pending_calls }.serialize(serializer)
    }
}

impl<'de, A: Actor> Deserialize<'de> for ActorHandle<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let Passed { actor, class: key, token, max_pending_calls } = Passed::deserialize(deserializer)?;
        let class = A::class();
        let exported = ExportedActor { actor, class: key, token: token.0, max_pending_calls };
        let Some(actor) = ActorRef::import(exported, class.definition()) else {
            return Err(D::Error::custom(format!(
                "expected a handle to an actor of class {}, and this is one to another class",
                class.name
            )));
        };
        Ok(Self::from_raw(RawActor::new(actor, class)))
    }
}
