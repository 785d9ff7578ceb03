//! Actors of any class: their options, and references to them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mobula_client::{Handle, ObjectId};
use serde::{Deserialize, Serialize};

use crate::call::actor_token::ActorToken;
use crate::call::items::Items;
use crate::call::task::{ResultCells, Target, TaskOptions};
use crate::definition::{Definition, Key, Name};
use crate::environment::EnvironmentOptions;
use crate::error::{Error, Failure, Result};
use crate::front::arguments::ArgumentList;
use crate::front::function::{failed, references, submit};
use crate::front::reference::Ref;
use crate::front::resources::demand_of_actor;
use crate::front::stream::ItemStream;
use crate::mail::waiters::Mail;
use crate::process::launch::Launch;
use crate::resources::Amounts;
use crate::runtime::{Runtime, current};
use crate::session_number::SessionNumber;
use crate::submit::{Answer, Found};
use crate::wire::{Callee, NamedActor, NewActor, Returns, ToHead};

/// Options of an actor, given as `Class::options(options).remote(arguments)`. Options that are not set have the values
/// that the attribute `#[remote]` of the class gives them, and these the defaults.
///
/// ```
/// use mobula::{ActorHandle, ActorOptions};
///
/// struct Scores(Vec<u32>);
///
/// #[mobula::remote]
/// impl Scores {
///     fn new() -> Self {
///         Scores(Vec::new())
///     }
///     fn add(&mut self, score: u32) -> usize {
///         self.0.push(score);
///         self.0.len()
///     }
/// }
///
/// let _mobula = mobula::init()?;
/// let options = ActorOptions::new().name("scores").max_restarts(3);
/// let scores: ActorHandle<Scores> = Scores::options(options).remote();
/// assert_eq!(scores.add(10).get()?, 1);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # When its process dies
///
/// Without options an actor is over when its process dies: calls that were under way, and all later ones, fail with
/// [`Failure::ActorDied`].
///
/// With [`max_restarts`](Self::max_restarts) it is restarted: a new process runs the constructor with the same
/// arguments, which are kept for that. The state is a new one; the old state is lost, unless the actor keeps it
/// elsewhere. Handles in all processes, and the name, stay valid and lead to the new process. Then
///
/// - a call that had begun when the process died, and whose result is not yet there, fails with
///   [`Failure::ActorUnavailable`]: it was carried out **at most once**. With
///   [`max_task_retries`](Self::max_task_retries) it is sent again instead, and is carried out **at least once** if it
///   succeeds, at most once more than there are retries;
/// - a call that had not begun, or is made while the actor starts again, waits for the new process;
/// - the calls of one caller that are carried out keep the order in which they were made: retried calls come before
///   calls that waited.
///
/// It is not started again when it was ended: with its last handle, by `mobula::kill`, or by a constructor that fails
/// when it runs again. Its calls then fail with the constructor's error.
#[derive(Debug, Clone, Default)]
#[must_use = "options have no effect before an actor is made with them"]
pub struct ActorOptions {
    pub(crate) name: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) get_if_exists: Option<bool>,
    pub(crate) lifetime: Option<Lifetime>,
    pub(crate) max_pending_calls: Option<u32>,
    pub(crate) max_restarts: Option<u32>,
    pub(crate) max_task_retries: Option<u32>,
    /// For the front: the core leaves it to the actor's instance.
    pub(crate) max_concurrency: Option<u32>,
    pub(crate) amounts: Amounts,
    pub(crate) environment: EnvironmentOptions,
}

impl ActorOptions {
    /// The defaults: no name, no restarts, no retries, and no resources.
    ///
    /// ```
    /// let options = mobula::ActorOptions::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// A name by which any process of the session finds the actor, by `mobula::get_actor`. It is the actor's as long as
    /// it lives; a name alone does not keep it alive. If a living actor has the name, this one is not made, and its
    /// calls fail with [`Failure::NameTaken`].
    ///
    /// ```
    /// use mobula::{ActorOptions, get_actor};
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
    /// let cache = Cache::options(ActorOptions::new().name("cache")).remote();
    /// assert_eq!(get_actor::<Cache>("cache")?, cache);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The namespace of the actor's [name](Self::name): actors of different namespaces may have the same name. Default:
    /// that of the session, `Builder::namespace`.
    ///
    /// ```
    /// use mobula::{ActorOptions, get_actor, get_actor_in};
    ///
    /// struct Cache(u32);
    ///
    /// #[mobula::remote]
    /// impl Cache {
    ///     fn new(pages: u32) -> Self {
    ///         Cache(pages)
    ///     }
    ///     fn pages(&self) -> u32 {
    ///         self.0
    ///     }
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let (small, large) = (ActorOptions::new().name("cache"), ActorOptions::new().name("cache").namespace("large"));
    /// let _caches = (Cache::options(small).remote(1), Cache::options(large).remote(1000));
    /// assert_eq!(get_actor::<Cache>("cache")?.pages().get()?, 1);
    /// assert_eq!(get_actor_in::<Cache>("cache", "large")?.pages().get()?, 1000);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Whether a living actor that has the [name](Self::name) is taken instead of a new one. The constructor does not
    /// run then, and the options have no effect. Of several processes that ask at the same time, one makes the actor.
    /// Default: no; then the name is taken, and that is an error.
    ///
    /// ```
    /// use mobula::ActorOptions;
    ///
    /// struct Counter(u32);
    ///
    /// #[mobula::remote]
    /// impl Counter {
    ///     fn new() -> Self {
    ///         Counter(0)
    ///     }
    ///     fn increment(&mut self) -> u32 {
    ///         self.0 += 1;
    ///         self.0
    ///     }
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let options = || ActorOptions::new().name("counter").get_if_exists(true);
    /// let (first, second) = (Counter::options(options()).remote(), Counter::options(options()).remote());
    /// assert_eq!((first.increment().get()?, second.increment().get()?), (1, 2));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// An actor of another class that has the name is an error of the calls:
    /// [`Failure::WrongActorClass`](crate::Failure::WrongActorClass).
    pub fn get_if_exists(mut self, get_if_exists: bool) -> Self {
        self.get_if_exists = Some(get_if_exists);
        self
    }

    /// How long the actor lives. Default: as long as there is a handle.
    ///
    /// ```
    /// use mobula::{ActorOptions, Lifetime, get_actor, kill};
    ///
    /// struct Log(Vec<String>);
    ///
    /// #[mobula::remote]
    /// impl Log {
    ///     fn new() -> Self {
    ///         Log(Vec::new())
    ///     }
    ///     fn add(&mut self, line: String) -> usize {
    ///         self.0.push(line);
    ///         self.0.len()
    ///     }
    /// }
    ///
    /// #[mobula::remote]
    /// fn make() -> mobula::Result<usize> {
    ///     let options = ActorOptions::new().name("log").lifetime(Lifetime::Detached);
    ///     Log::options(options).remote().add("made".to_owned()).get() // and the handle is dropped
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// assert_eq!(make::remote().get()?, 1);
    /// let log = get_actor::<Log>("log")?;
    /// assert_eq!(log.add("found".to_owned()).get()?, 2);
    /// kill(&log)?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// How many calls of one handle may be pending: made, and their results not there. A call beyond that is not made,
    /// and fails at once with [`Failure::PendingCallsLimitExceeded`]. The clones of a handle count together, and those
    /// that came inside values, or were found by a name, each for itself. Default: any number.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::{ActorOptions, Error, Failure};
    ///
    /// struct Slow;
    ///
    /// #[mobula::remote]
    /// impl Slow {
    ///     fn new() -> Self {
    ///         Slow
    ///     }
    ///     fn work(&self, millis: u64) {
    ///         std::thread::sleep(Duration::from_millis(millis));
    ///     }
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let slow = Slow::options(ActorOptions::new().max_pending_calls(2)).remote();
    /// let (first, second, third) = (slow.work(200), slow.work(0), slow.work(0));
    /// let error = third.get().unwrap_err();
    /// assert!(matches!(error, Error::Failed(Failure::PendingCallsLimitExceeded { limit: 2, .. })));
    /// mobula::get([first, second])?;
    /// slow.work(0).get()?; // there is room again
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn max_pending_calls(mut self, calls: u32) -> Self {
        self.max_pending_calls = Some(calls);
        self
    }

    /// How often the actor is restarted when its process dies, in any way but by `mobula::kill`: it crashed, it was
    /// killed from outside, or its own code ended it. [`UNLIMITED`](crate::UNLIMITED) is possible. Default: 0.
    ///
    /// ```
    /// use mobula::{ActorOptions, Error, Failure};
    ///
    /// struct Counter(u32);
    ///
    /// #[mobula::remote]
    /// impl Counter {
    ///     fn new() -> Self {
    ///         Counter(0)
    ///     }
    ///     fn increment(&mut self) -> u32 {
    ///         self.0 += 1;
    ///         self.0
    ///     }
    ///     fn crash(&self) {
    ///         std::process::abort()
    ///     }
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let counter = Counter::options(ActorOptions::new().max_restarts(1)).remote();
    /// assert_eq!(counter.increment().get()?, 1);
    /// assert!(matches!(counter.crash().get(), Err(Error::Failed(Failure::ActorUnavailable { .. }))));
    /// assert_eq!(counter.increment().get()?, 1); // another process, with a new state
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn max_restarts(mut self, restarts: u32) -> Self {
        self.max_restarts = Some(restarts);
        self
    }

    /// How often a call that had begun when the actor's process died is retried on the process that takes its place;
    /// [`UNLIMITED`](crate::UNLIMITED) is possible. Default: 0. It has an effect only with restarts. Such a method must
    /// be able to run twice.
    ///
    /// ```
    /// use std::path::PathBuf;
    /// use mobula::ActorOptions;
    ///
    /// struct Unlucky;
    ///
    /// #[mobula::remote]
    /// impl Unlucky {
    ///     fn new() -> Self {
    ///         Unlucky
    ///     }
    ///     /// The actor's process dies in the first attempt.
    ///     fn seven(&self, marker: PathBuf) -> u32 {
    ///         if !marker.exists() {
    ///             std::fs::write(&marker, "").expect("the directory is there");
    ///             std::process::abort();
    ///         }
    ///         7
    ///     }
    /// }
    ///
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let directory = directory.path();
    /// let _mobula = mobula::init()?;
    /// let options = ActorOptions::new().max_restarts(1).max_task_retries(1);
    /// let unlucky = Unlucky::options(options).remote();
    /// assert_eq!(unlucky.seven(directory.join("tried")).get()?, 7);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn max_task_retries(mut self, retries: u32) -> Self {
        self.max_task_retries = Some(retries);
        self
    }

    /// How many calls of the actor run at a time, in place of the number in its attribute. Only for a class whose
    /// attribute has `max_concurrency` or `concurrency_groups`, or that has `async` methods: the compiler has checked
    /// that threads can share its state. The calls of an actor of another class fail, and say so. Default: as the
    /// attribute says.
    ///
    /// ```
    /// use std::sync::Barrier;
    /// use mobula::ActorOptions;
    ///
    /// struct Meeting(Barrier);
    ///
    /// #[mobula::remote(max_concurrency = 2)]
    /// impl Meeting {
    ///     fn new(of: usize) -> Self {
    ///         Meeting(Barrier::new(of))
    ///     }
    ///     fn meet(&self) {
    ///         self.0.wait();
    ///     }
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let meeting = Meeting::options(ActorOptions::new().max_concurrency(3)).remote(3);
    /// mobula::get([meeting.meet(), meeting.meet(), meeting.meet()])?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn max_concurrency(mut self, calls: u32) -> Self {
        self.max_concurrency = Some(calls);
        self
    }

    /// The value of [`max_concurrency`](Self::max_concurrency), for fronts.
    #[doc(hidden)]
    #[must_use]
    pub fn concurrency(&self) -> Option<u32> {
        self.max_concurrency
    }

    /// The number of CPUs that the actor demands, for as long as it lives. It is placed when so many are free, and
    /// again when it is restarted. Default: 0; with [`resources`](Self::resources) or [`num_gpus`](Self::num_gpus), 1.
    ///
    /// ```
    /// use mobula::prelude::*;
    /// use mobula::{ActorOptions, available_resources};
    ///
    /// struct Index(Vec<String>);
    ///
    /// #[remote(num_cpus = 1)]
    /// impl Index {
    ///     fn new() -> Self {
    ///         Index(Vec::new())
    ///     }
    ///     fn add(&mut self, word: String) -> usize {
    ///         self.0.push(word);
    ///         self.0.len()
    ///     }
    /// }
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(4).init()?;
    /// let index = Index::remote();
    /// let large = Index::options(ActorOptions::new().num_cpus(2)).remote();
    /// assert_eq!(mobula::get([index.add("a".to_owned()), large.add("b".to_owned())])?, [1, 1]);
    /// assert_eq!(available_resources()?.num_cpus(), 1.0); // for calls of functions, and for other actors
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// An actor keeps its CPUs also while it has no call, and while it waits for results of others. An actor without
    /// any is placed, and its calls run, whatever other calls have. Calls of methods demand nothing: they have what the
    /// actor has.
    ///
    /// A demand that the session can never meet is an error of the actor's calls:
    /// [`Failure::NeverFits`](crate::Failure::NeverFits).
    pub fn num_cpus(mut self, cpus: impl Into<f64>) -> Self {
        self.amounts.num_cpus = Some(cpus.into());
        self
    }

    /// The GPUs that the actor demands: a part of one, or a whole number; as
    /// [`TaskOptions::num_gpus`](crate::TaskOptions::num_gpus). They are the same for as long as its process lives; one
    /// that is restarted may get others. Default: 0.
    ///
    /// ```
    /// use mobula::prelude::*;
    ///
    /// struct Model;
    ///
    /// #[remote(num_gpus = 0.5)]
    /// impl Model {
    ///     fn new() -> Self {
    ///         Model
    ///     }
    ///     fn gpus(&self) -> mobula::Result<Vec<String>> {
    ///         mobula::gpu_ids()
    ///     }
    /// }
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(2).num_gpus(1).init()?; // whatever the machine has
    /// let (a, b) = (Model::remote(), Model::remote());
    /// assert_eq!(a.gpus().get()?, b.gpus().get()?); // they share one
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn num_gpus(mut self, gpus: impl Into<f64>) -> Self {
        self.amounts.num_gpus = Some(gpus.into());
        self
    }

    /// The memory that the actor demands for as long as it lives, in bytes; as
    /// [`TaskOptions::memory`](crate::TaskOptions::memory). Default: 0.
    ///
    /// ```
    /// let options = mobula::ActorOptions::new().memory(4 << 30);
    /// ```
    pub fn memory(mut self, bytes: u64) -> Self {
        self.amounts.memory = Some(bytes);
        self
    }

    /// Amounts that the actor demands of the session's own resources for as long as it lives, by their names; as
    /// [`TaskOptions::resources`](crate::TaskOptions::resources). Default: none.
    ///
    /// ```
    /// let options = mobula::ActorOptions::new().num_cpus(0).resources([("licence", 1)]);
    /// ```
    pub fn resources(
        mut self,
        amounts: impl IntoIterator<Item = (impl Into<String>, impl Into<f64>)>,
    ) -> Self {
        self.amounts.resources = Some(Amounts::named(amounts));
        self
    }

    /// Environment variables of the actor's process, beside those of the driver; as
    /// [`TaskOptions::env_vars`](crate::TaskOptions::env_vars). The calls that the actor makes inherit them. Default:
    /// none.
    ///
    /// ```
    /// use mobula::ActorOptions;
    ///
    /// struct Worker;
    ///
    /// #[mobula::remote]
    /// impl Worker {
    ///     fn new() -> Self {
    ///         Worker
    ///     }
    ///     fn threads(&self) -> Option<String> {
    ///         std::env::var("OMP_NUM_THREADS").ok()
    ///     }
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let worker = Worker::options(ActorOptions::new().env_vars([("OMP_NUM_THREADS", "2")])).remote();
    /// assert_eq!(worker.threads().get()?.as_deref(), Some("2"));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn env_vars(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        self.environment.env_vars = Some(EnvironmentOptions::variables(variables));
        self
    }

    /// The directory that the actor's process works in; as
    /// [`TaskOptions::working_dir`](crate::TaskOptions::working_dir). Default: the driver's.
    ///
    /// ```
    /// let options = mobula::ActorOptions::new().working_dir("/var/lib/scores");
    /// ```
    pub fn working_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.environment.working_dir = Some(directory.into());
        self
    }

    /// The program whose process is the actor's, as in [`TaskOptions::program`](crate::TaskOptions::program).
    // For fronts.
    #[doc(hidden)]
    pub fn program(mut self, program: Launch) -> Self {
        self.environment.program = Some(program);
        self
    }

    /// These options, with the values of `defaults` for those that are not set.
    ///
    /// ```
    /// use mobula::ActorOptions;
    ///
    /// let usual = ActorOptions::new().max_restarts(3);
    /// let options = ActorOptions::new().name("scores").or(usual); // both of them
    /// ```
    pub fn or(self, defaults: Self) -> Self {
        Self {
            name: self.name.or(defaults.name),
            namespace: self.namespace.or(defaults.namespace),
            get_if_exists: self.get_if_exists.or(defaults.get_if_exists),
            lifetime: self.lifetime.or(defaults.lifetime),
            max_pending_calls: self.max_pending_calls.or(defaults.max_pending_calls),
            max_restarts: self.max_restarts.or(defaults.max_restarts),
            max_task_retries: self.max_task_retries.or(defaults.max_task_retries),
            max_concurrency: self.max_concurrency.or(defaults.max_concurrency),
            amounts: self.amounts.or(defaults.amounts),
            environment: self.environment.or(defaults.environment),
        }
    }
}

/// How long an actor lives.
///
/// ```
/// use mobula::{ActorOptions, Lifetime};
///
/// let options = ActorOptions::new().name("log").lifetime(Lifetime::Detached);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Lifetime {
    /// As long as there is a handle to it, anywhere.
    #[default]
    Scoped,
    /// Until it is killed, ends itself or dies, or the session ends; also without any handle, and when the process that
    /// made it is gone. It is found by its name.
    Detached,
}

/// A reference to an actor, which keeps it alive.
///
/// Two references are equal if they refer to the same actor, in every process and after every restart.
#[derive(Clone)]
pub struct ActorRef {
    session: SessionNumber,
    actor: u64,
    class: Definition,
    token: Token,
    /// A call waits for earlier calls of this process whose arguments are not there.
    is_in_order: bool,
}

/// The handle that keeps the actor alive, or the reason why there is no actor.
#[derive(Debug, Clone)]
enum Token {
    Held(Arc<ActorToken>),
    Failed(Arc<Failure>),
}

/// The form of an [`ActorRef`] inside a value.
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
                Self { session, actor, class, token: Token::Held(token), is_in_order: true }
            }
            Err(failure) => {
                let (session, token) = (SessionNumber::NONE, Token::Failed(Arc::new(failure)));
                Self { session, actor: 0, class, token, is_in_order: true }
            }
        }
    }

    /// The actor of a class that has a name in a namespace; `None`: that of the session. A round trip to the head.
    ///
    /// # Errors
    /// [`Error::NoSuchActor`], [`Error::WrongActorClass`], [`Error::NotInitialized`].
    pub fn named(namespace: Option<&str>, name: &str, class: Definition) -> Result<Self> {
        let runtime = current::runtime()?;
        let Some(found) = find(&runtime, namespace.unwrap_or(&runtime.namespace), name)? else {
            return Err(Error::NoSuchActor { name: name.to_owned() });
        };
        if found.class != class.key {
            let (expected, found) = (class.name.to_string(), found.class_name);
            return Err(Error::WrongActorClass { name: name.to_owned(), expected, found });
        }
        let token = Token::Held(ActorToken::new(found.token, found.max_pending_calls));
        Ok(Self { session: runtime.session, actor: found.actor, class, token, is_in_order: true })
    }

    /// The same actor, whose calls by this reference do not wait for earlier ones whose arguments are not there.
    #[must_use]
    pub fn out_of_order(self) -> Self {
        Self { is_in_order: false, ..self }
    }

    /// Calls a method. Returns a reference to each result. Costs as much as [`call_function`](crate::call_function).
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
        let Self { session, actor, class, token, is_in_order } = self;
        let Some(runtime) = arguments.runtime().ok().filter(|runtime| runtime.is_of(session)) else {
            let failure = current::runtime_of(session).map_or_else(Failure::from, |_| Failure::SessionOver);
            return failed(session, returns, &failure);
        };
        let token = match token {
            Token::Held(token) => token,
            Token::Failed(failure) => return failed(session, returns, &failure),
        };
        let limited = token.limit.is_some().then(|| token.clone());
        if let Some(limit) = &token.limit {
            // Results may have come that no thread has looked at.
            let begun = limit.begin().or_else(|_| {
                runtime.look();
                limit.begin()
            });
            if let Err(limit) = begun {
                return failed(session, returns, &too_many_pending(&class.name, &name, limit));
            }
        }
        let target = Target::Method { actor, method, class: class.name, name, token, is_in_order };
        let cells = submit(target, arguments, returns, items, TaskOptions::new());
        if let Some(limit) = limited.as_ref().and_then(|token| token.limit.as_ref()) {
            limit.made(cells.first());
        }
        cells
    }

    /// Whether one more call of this handle may be pending.
    ///
    /// # Errors
    /// [`Failure::PendingCallsLimitExceeded`].
    pub fn check_pending(&self, method: &Name) -> Result<(), Failure> {
        let Token::Held(token) = &self.token else { return Ok(()) };
        let Some(limit) = &token.limit else { return Ok(()) };
        let runtime = current::runtime_of(self.session)?;
        let room = limit.check().or_else(|_| {
            runtime.look();
            limit.check()
        });
        room.map_err(|limit| too_many_pending(&self.class.name, method, limit))
    }

    /// Has the actor end itself behind the calls that were made before, and waits until it has: its destructor has run,
    /// and its process is gone. It is not restarted.
    ///
    /// # Errors
    /// [`Error::Timeout`] when that takes longer: the actor ends later then. The reason why there is no actor;
    /// [`Failure::SessionOver`].
    pub fn terminate(&self, timeout: Duration) -> Result<()> {
        self.begin_to_terminate()?;
        current::runtime_of(self.session)?.await_actor_end(self.actor, timeout)
    }

    /// Has the actor end itself behind the calls that were made before. Returns a reference to a result that is the
    /// actor's end: [`Failure::ActorDied`].
    ///
    /// # Errors
    /// The reason why there is no actor; [`Failure::SessionOver`].
    pub fn begin_to_terminate(&self) -> Result<Ref> {
        current::runtime_of(self.session)?;
        let token = match &self.token {
            Token::Held(token) => token.clone(),
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

    /// Kills the actor's process, as a crash ends it: the actor is restarted if its options allow it, and is over
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
            Token::Held(token) => {
                let (token, max_pending_calls) = (token.handle.clone(), token.max_pending_calls());
                Ok(ExportedActor { actor: self.actor, class: self.class.key, token, max_pending_calls })
            }
            Token::Failed(failure) => Err((**failure).clone().into()),
        }
    }

    /// The actor that came inside a value, if it is of this class.
    #[must_use]
    pub fn import(exported: ExportedActor, class: Definition) -> Option<Self> {
        let ExportedActor { actor, class: key, token, max_pending_calls } = exported;
        let token = Token::Held(ActorToken::new(token, max_pending_calls));
        let session = current::number();
        (key == class.key).then_some(Self { session, actor, class, token, is_in_order: true })
    }

    /// The identity of the actor: its token. An actor that could not be made has none, and is identified by its
    /// failure, which does not leave the process.
    fn identity(&self) -> (u64, Option<ObjectId>, usize) {
        match &self.token {
            Token::Held(token) => (self.actor, Some(token.handle.id()), 0),
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
    token: Arc<ActorToken>,
    /// Its constructor is to run.
    is_new: bool,
}

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
        max_restarts: options.max_restarts.unwrap_or(0),
        max_task_retries: options.max_task_retries.unwrap_or(0),
        demand: demand_of_actor(runtime, &options.amounts, &options.environment, || {
            format!("{}::new", class.name)
        })?,
    };
    match runtime.ask(|request| ToHead::ReserveActor { request, actor })? {
        Answer::Reserved(result) => {
            let (actor, handle) = result?;
            Ok(Reserved { actor, token: ActorToken::new(handle, max_pending_calls), is_new: true })
        }
        Answer::Found(Ok(Some(found))) if found.class == class.key => {
            let token = ActorToken::new(found.token, found.max_pending_calls);
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

/// Ends the actor whose method calls this, behind that call, and for good. The front unwinds the method.
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
