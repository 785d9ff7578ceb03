//! The options of an actor.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::environment::EnvironmentOptions;
use crate::launch::Launch;
use crate::resources::{Amounts, Placement};

/// Options of an actor, given as `Class::options(options).remote(arguments)`. Options that are not set have the values
/// of the class's attribute `#[remote]`; options that it does not set either have the defaults.
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
///   calls that waited. Calls that are retried because of errors leave that order: see
///   [`MethodOptions::retry_exceptions`](crate::MethodOptions::retry_exceptions).
///
/// It is not started again when it was ended: with its last handle, by `mobula::kill`, or by a constructor that fails
/// when it runs again. Its calls then fail with the constructor's error.
///
/// [`Failure::ActorDied`]: crate::Failure::ActorDied
/// [`Failure::ActorUnavailable`]: crate::Failure::ActorUnavailable
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
    /// For the front: the head keeps it, and gives it to those that find the actor by its name.
    pub(crate) description: Option<String>,
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
    /// calls fail with [`Failure::NameTaken`](crate::Failure::NameTaken).
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
    ///
    /// In a session that drivers share, a detached actor outlives its driver: a process of its own keeps the driver's
    /// detached actors. The first of them waits until that process has started. Their output goes to the file `log` in
    /// the session's directory.
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// How many calls of one handle may be pending: calls that were made and have no result yet. A further call is not
    /// made, and fails at once with [`Failure::PendingCallsLimitExceeded`](crate::Failure::PendingCallsLimitExceeded).
    /// The clones of a handle count together. Handles that came inside values, or were found by a name, count
    /// separately. Default: any number.
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
    ///
    /// A method, or one call, may have another number: see
    /// [`MethodOptions::max_task_retries`](crate::MethodOptions::max_task_retries). The same number is the limit of
    /// [retries because of errors](crate::MethodOptions::retry_exceptions).
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

    /// The number of CPUs that the actor demands, for as long as it lives. It is placed when they are free; a restarted
    /// actor is placed again. Default: 0; with [`resources`](Self::resources) or [`num_gpus`](Self::num_gpus), 1.
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
    /// An actor keeps its CPUs also while it has no call, and while it waits for results of others. An actor that
    /// demands no CPU is placed, and its calls run, even if other calls have all CPUs. Calls of methods demand nothing:
    /// they use the resources of the actor.
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

    /// The place of the actor in a placement group: as long as it lives, it has resources of the group. See
    /// [`PlacementGroup`](crate::PlacementGroup).
    ///
    /// ```
    /// use mobula::{ActorOptions, Bundle, PlacementGroup};
    ///
    /// struct Index;
    ///
    /// #[mobula::remote]
    /// impl Index {
    ///     fn new() -> Self {
    ///         Index
    ///     }
    ///     fn len(&self) -> usize {
    ///         0
    ///     }
    /// }
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
    /// let group = PlacementGroup::new([Bundle::new().num_cpus(1), Bundle::new().num_cpus(1)])?;
    /// let index = Index::options(ActorOptions::new().num_cpus(1).placement(group.any())).remote();
    /// assert_eq!(index.len().get()?, 0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn placement(mut self, placement: Placement) -> Self {
        self.amounts.placement = Some(placement);
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

    /// A text of the front about the actor, which [`ActorRef::described`](crate::ActorRef::described) returns in every
    /// process. It travels in one record with the name, so it is short: some KiB at most.
    // For fronts.
    #[doc(hidden)]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
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
            description: self.description.or(defaults.description),
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
