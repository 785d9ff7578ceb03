//! The options of a call: its demand, its retries, and its time limits. A [`Task`](crate::call::task::Task) keeps the
//! values that result from them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::call::error_retries::ErrorRetryOptions;
use crate::call::limits::{Deadline, LimitOptions};
use crate::environment::EnvironmentOptions;
use crate::error::TaskError;
use crate::launch::Launch;
use crate::resources::{Amounts, Placement};

/// The number of retries or restarts that stands for no limit.
///
/// ```
/// let options = mobula::TaskOptions::new().max_retries(mobula::UNLIMITED);
/// ```
pub const UNLIMITED: u32 = u32::MAX;

/// The number of retries because of errors, unless the program sets one.
const RETRIES_OF_ERRORS: u32 = 3;

/// Whether a call or an actor that has had `retries` may have one more.
pub(crate) fn is_within(retries: u32, max: u32) -> bool {
    max == UNLIMITED || retries < max
}

/// Options of a call, given as `function::options(options).remote(arguments)`. Options that are not set have the values
/// of the function's attribute `#[remote]`; options that it does not set either have the defaults.
///
/// ```
/// use mobula::TaskOptions;
///
/// #[mobula::remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = mobula::init()?;
/// let options = TaskOptions::new().max_retries(3);
/// assert_eq!(square::options(options).remote(5).get()?, 25);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "options have no effect before a call is made with them"]
pub struct TaskOptions {
    pub(crate) max_retries: Option<u32>,
    pub(crate) error_retries: ErrorRetryOptions,
    /// The time limits, if the program gives any.
    pub(crate) limits: Option<Box<LimitOptions>>,
    pub(crate) detached: Option<bool>,
    /// The demand, if the program gives one. Most calls have none, and store a null pointer.
    pub(crate) amounts: Option<Box<Amounts>>,
    /// The environment of the process, if the program gives one.
    pub(crate) environment: Option<Box<EnvironmentOptions>>,
}

impl TaskOptions {
    /// The defaults: one CPU, no retries.
    ///
    /// ```
    /// let options = mobula::TaskOptions::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the call is retried when the process that runs it dies; [`UNLIMITED`] is possible. An `Err` or a panic
    /// is a result, and not retried, unless [`retry_exceptions`](Self::retry_exceptions) says so.
    ///
    /// Default: 0: the function runs at most once, and a call that may have begun when its process died fails with
    /// [`Failure::WorkerDied`](crate::Failure::WorkerDied). A call that had not begun goes to another process; that is
    /// no retry. With *n* retries the function runs at most *n* + 1 times, and at least once if it succeeds. The
    /// effects of an attempt whose process died are not undone, so such a function must be able to run twice. A retry
    /// also repeats the calls that the function makes.
    ///
    /// ```
    /// use std::path::PathBuf;
    /// use mobula::TaskOptions;
    ///
    /// /// Its process dies in the first attempt.
    /// #[mobula::remote]
    /// fn unlucky(marker: PathBuf) -> u32 {
    ///     if !marker.exists() {
    ///         std::fs::write(&marker, "").expect("the directory is there");
    ///         std::process::abort();
    ///     }
    ///     7
    /// }
    ///
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let directory = directory.path();
    /// let _mobula = mobula::init()?;
    /// let options = TaskOptions::new().max_retries(1);
    /// assert_eq!(unlucky::options(options).remote(directory.join("tried")).get()?, 7);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// If the session ended the process because memory was short, the retries count on their own: see
    /// `Builder::task_oom_retries`.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// Whether the call is also retried after an `Err` that the function returns, and after a panic. All retries count
    /// together: [`max_retries`](Self::max_retries) is the limit, and the default limit is 3. The result is that of the
    /// last attempt. Default: no.
    ///
    /// ```
    /// use std::path::PathBuf;
    /// use mobula::TaskOptions;
    ///
    /// /// Fails twice.
    /// #[mobula::remote(max_retries = 5, retry_exceptions = true)]
    /// fn fetch(tries: PathBuf) -> Result<usize, String> {
    ///     let count = std::fs::read(&tries).map_or(0, |tried| tried.len());
    ///     std::fs::write(&tries, vec![0; count + 1]).expect("the directory is there");
    ///     if count < 2 { Err(format!("attempt {count} failed")) } else { Ok(count) }
    /// }
    ///
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let directory = directory.path();
    /// let _mobula = mobula::init()?;
    /// assert_eq!(fetch::remote(directory.join("a")).get()?, 2);
    ///
    /// let once = TaskOptions::new().retry_exceptions(false); // in place of the attribute's
    /// assert!(fetch::options(once).remote(directory.join("b")).get().is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// A call is not retried if an argument does not decode, or if its result cannot be stored.
    pub fn retry_exceptions(mut self, retry: bool) -> Self {
        self.error_retries.retry_exceptions = Some(retry);
        self
    }

    /// Chooses the [errors](Self::retry_exceptions) after which the call is retried: those for which this function
    /// returns `true`. Setting it implies `retry_exceptions(true)`, unless that is set to `false`. Default: all errors.
    ///
    /// ```
    /// use std::path::PathBuf;
    /// use mobula::{TaskError, TaskOptions};
    ///
    /// fn is_transient(error: &TaskError) -> bool {
    ///     error.message.contains("busy")
    /// }
    ///
    /// /// The server is busy at first.
    /// #[mobula::remote(retry_if = is_transient)]
    /// fn fetch(tries: PathBuf) -> Result<usize, String> {
    ///     let count = std::fs::read(&tries).map_or(0, |tried| tried.len());
    ///     std::fs::write(&tries, vec![0; count + 1]).expect("the directory is there");
    ///     if count < 2 { Err("the server is busy".to_owned()) } else { Err("no such page".to_owned()) }
    /// }
    ///
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let directory = directory.path();
    /// let _mobula = mobula::init()?;
    /// let error = fetch::remote(directory.join("a")).get().unwrap_err();
    /// assert!(error.to_string().contains("no such page")); // the third attempt
    ///
    /// let never = TaskOptions::new().retry_if(|_| false); // in place of the attribute's
    /// let error = fetch::options(never).remote(directory.join("b")).get().unwrap_err();
    /// assert!(error.to_string().contains("busy"));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// The function runs in the process that made the call, on any of its threads, and other results wait for it
    /// meanwhile, so it should only look at the error. It is not called after the last retry, or when the process died.
    /// If it panics, the call is not retried.
    pub fn retry_if(mut self, is_retried: fn(&TaskError) -> bool) -> Self {
        self.error_retries.retry_if = Some(is_retried);
        self
    }

    /// The time before the first retry because of an [error](Self::retry_exceptions). It doubles with each further
    /// retry, up to a minute. A random part of it, less than half, is subtracted, so that calls that failed together
    /// are not retried at the same moment. Default: none, the call is retried at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::TaskOptions;
    ///
    /// // After about 100, 200, 400 and 800 milliseconds.
    /// let options = TaskOptions::new().max_retries(4).retry_exceptions(true).retry_delay(Duration::from_millis(100));
    /// ```
    ///
    /// The call takes no worker and no resources meanwhile.
    pub fn retry_delay(mut self, first: Duration) -> Self {
        self.error_retries.retry_delay = Some(first);
        self
    }

    /// The longest time that the call may run, counted for each attempt from its beginning. After that its result is
    /// [`Failure::TaskTimedOut`](crate::Failure::TaskTimedOut), for each thread that waits for it and each call that
    /// has it as an argument, and the call is cancelled as by `cancel`, with the calls that it made. It is not retried
    /// then. The time that the call waits for its arguments or for a worker does not count. Default: no limit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::{Error, Failure, TaskOptions};
    ///
    /// /// Computes until its call is cancelled.
    /// #[mobula::remote(timeout = Duration::from_millis(50))]
    /// fn search() {
    ///     while !mobula::is_cancelled() {
    ///         std::thread::sleep(Duration::from_millis(1));
    ///     }
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let in_vain = search::remote();
    /// assert!(matches!(in_vain.get(), Err(Error::Failed(Failure::TaskTimedOut { .. }))));
    ///
    /// let longer = TaskOptions::new().timeout(Duration::from_millis(100)); // in place of the attribute's
    /// println!("{}", search::options(longer).remote().get().unwrap_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// A function that is running is not interrupted: `is_cancelled` returns `true` in it from then on, as after
    /// `cancel`, and its worker is free when it returns. A stream ends with the error as its last item. A call with a
    /// limit costs one more message, and a call without one costs nothing more.
    ///
    /// Calls of an actor's methods have such limits too: see [`MethodOptions`](crate::MethodOptions).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits().timeout = Some(limit);
        self
    }

    /// The longest time from making the call to its end, with all retries. After that its result is
    /// [`Failure::TaskTimedOut`](crate::Failure::TaskTimedOut), as with a [`timeout`](Self::timeout). A call that has
    /// not begun by then never runs. Default: no limit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::{Error, Failure, TaskOptions, TimeLimit};
    ///
    /// #[mobula::remote]
    /// fn double(x: u64) -> u64 {
    ///     2 * x
    /// }
    ///
    /// #[mobula::remote]
    /// fn sleeps() -> u64 {
    ///     std::thread::sleep(Duration::from_millis(200));
    ///     1
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let options = TaskOptions::new().deadline(Duration::from_millis(20));
    /// let late = double::options(options).remote(sleeps::remote()); // its argument comes too late
    /// let Err(Error::Failed(Failure::TaskTimedOut { limit, .. })) = late.get() else { panic!("it was in time") };
    /// assert_eq!(limit, TimeLimit::Deadline);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.limits().deadline = Some(Deadline::After(limit));
        self
    }

    /// Sets the limit of [`deadline`](Self::deadline) as a moment: for several calls that answer one request.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use mobula::TaskOptions;
    ///
    /// #[mobula::remote]
    /// fn part(number: u32) -> u32 {
    ///     number
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// let request_ends = Instant::now() + Duration::from_secs(30);
    /// let in_time = TaskOptions::new().deadline_at(request_ends);
    /// let parts: Vec<_> = (0..3).map(|number| part::options(in_time.clone()).remote(number)).collect();
    /// assert_eq!(mobula::get(&parts)?, [0, 1, 2]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn deadline_at(mut self, limit: Instant) -> Self {
        self.limits().deadline = Some(Deadline::At(limit));
        self
    }

    /// Whether the call continues when the call that made it is cancelled, or the process of that call ends. Otherwise
    /// it is cancelled with that call. It can itself be cancelled like any call. Default: no.
    ///
    /// ```
    /// use std::path::PathBuf;
    /// use mobula::TaskOptions;
    ///
    /// #[mobula::remote]
    /// fn log(file: PathBuf, line: String) {
    ///     std::fs::write(file, line).expect("the directory is there");
    /// }
    ///
    /// /// The entry is written also if this call is cancelled, or its process killed, in the next moment.
    /// #[mobula::remote]
    /// fn serve(file: PathBuf) {
    ///     log::options(TaskOptions::new().detached(true)).remote(file, "served".to_owned());
    /// }
    ///
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let file = directory.path().join("log");
    /// let _mobula = mobula::init()?;
    /// serve::remote(file.clone()).get()?;
    /// while std::fs::read_to_string(&file).unwrap_or_default() != "served" {
    ///     std::thread::sleep(std::time::Duration::from_millis(1));
    /// }
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// A call that the dead process had not sent to a worker yet is lost: its arguments were not there, or no worker
    /// was free. The results of a detached call, and its retries, belong to the process that made it, and are lost with
    /// that process.
    pub fn detached(mut self, detached: bool) -> Self {
        self.detached = Some(detached);
        self
    }

    /// The number of CPUs that the call demands. The call begins when that many CPUs are free: the calls that run at
    /// the same time never demand more CPUs than the session has (`Builder::num_cpus`). Fractions down to 0.0001 are
    /// possible; with 0, the call needs no CPU to run. Default: 1.
    ///
    /// ```
    /// use mobula::TaskOptions;
    ///
    /// #[mobula::remote(num_cpus = 2)]
    /// fn invert(x: f64) -> f64 {
    ///     1.0 / x // on two threads
    /// }
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(4).init()?;
    /// let half = invert::remote(2.0);
    /// let quarter = invert::options(TaskOptions::new().num_cpus(0.5)).remote(4.0); // this call demands less
    /// assert_eq!(mobula::get([half, quarter])?, [0.5, 0.25]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// CPUs are only counted: nothing prevents a call from using more. While a call waits for the results of other
    /// calls (in `get`, `get_timeout` or `wait`), those calls can have its CPUs. It does not wait for a CPU when the
    /// results are there.
    ///
    /// Calls that demand the same resources share workers, even if they call different functions. The first call of a
    /// process with a demand costs a message to the head. Later calls with it cost as much as calls without options,
    /// apart from making the options.
    ///
    /// Calls with different demands are served in rotation. Calls that fit are served before a call that demands much;
    /// once that call has waited for a while, it is served first.
    ///
    /// A demand that the session can never meet fails at once with [`Failure::NeverFits`](crate::Failure::NeverFits),
    /// and an invalid amount, such as -1, with [`Failure::BadOption`](crate::Failure::BadOption).
    pub fn num_cpus(mut self, cpus: impl Into<f64>) -> Self {
        self.amounts().num_cpus = Some(cpus.into());
        self
    }

    /// The GPUs that the call demands: a part of one, down to 0.0001, or a whole number. Calls that demand parts share
    /// a GPU, while the sum of the parts is at most 1. A whole GPU belongs to one call at a time. Default: 0.
    ///
    /// ```
    /// use mobula::TaskOptions;
    ///
    /// #[mobula::remote(num_gpus = 1)]
    /// fn train() -> mobula::Result<usize> {
    ///     Ok(mobula::gpu_ids()?.len())
    /// }
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(2).num_gpus(2).init()?; // whatever the machine has
    /// assert_eq!(train::remote().get()?, 1);
    /// assert_eq!(train::options(TaskOptions::new().num_gpus(2)).remote().get()?, 2);
    /// assert_eq!(train::options(TaskOptions::new().num_gpus(0.25)).remote().get()?, 1); // a part of one
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// [`gpu_ids`](crate::gpu_ids) returns them. The process has its GPUs from its start on: its variable
    /// `CUDA_VISIBLE_DEVICES` names them before any code of the program runs, so libraries find them by themselves. In
    /// a session with GPUs, a process without a GPU sees none. Each GPU, and each set of GPUs, has processes of its
    /// own.
    ///
    /// A call that waits for others keeps its GPUs. Parts are only counted: nothing prevents a call from using more of
    /// its GPU. A process may keep memory of a GPU in use until it ends. So a process runs one call of a function whose
    /// attribute has `num_gpus`, unless the attribute has `max_calls` too.
    ///
    /// A number above 1 that is not whole is [`Failure::BadOption`](crate::Failure::BadOption), and more than the
    /// session has (`Builder::num_gpus`) is [`Failure::NeverFits`](crate::Failure::NeverFits).
    pub fn num_gpus(mut self, gpus: impl Into<f64>) -> Self {
        self.amounts().num_gpus = Some(gpus.into());
        self
    }

    /// The part of the session's memory (`Builder::memory`) that the call demands, in bytes. Memory is only counted:
    /// calls that run at the same time demand no more than there is, but nothing prevents a call from using more. A
    /// call that waits for others keeps it. Default: 0.
    ///
    /// ```
    /// use mobula::TaskOptions;
    ///
    /// #[mobula::remote]
    /// fn sum(count: u64) -> u64 {
    ///     (0..count).collect::<Vec<_>>().iter().sum()
    /// }
    ///
    /// let _mobula = mobula::Builder::new().memory(1 << 30).init()?;
    /// let needs_much = || TaskOptions::new().memory(600 << 20); // so one at a time
    /// let sums: Vec<_> = [10, 20].map(|count| sum::options(needs_much()).remote(count)).into();
    /// assert_eq!(mobula::get(&sums)?, [45, 190]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn memory(mut self, bytes: u64) -> Self {
        self.amounts().memory = Some(bytes);
        self
    }

    /// The amounts of the session's own resources (`Builder::resources`) that the call demands, by their names. A call
    /// that waits for others keeps them. Default: none.
    ///
    /// ```
    /// use mobula::TaskOptions;
    ///
    /// #[mobula::remote(resources = [("licence", 1)])]
    /// fn render(frame: u32) -> u32 {
    ///     frame
    /// }
    ///
    /// let _mobula = mobula::Builder::new().resources([("licence", 2), ("disk", 1)]).init()?;
    /// // Two at a time, whatever the number of CPUs.
    /// let frames: Vec<_> = (0..4).map(render::remote).collect();
    /// assert_eq!(mobula::get(&frames)?, [0, 1, 2, 3]);
    ///
    /// let other = TaskOptions::new().resources([("licence", 0.5), ("disk", 1.0)]); // in place of the attribute's
    /// assert_eq!(render::options(other).remote(4).get()?, 4);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn resources(
        mut self,
        amounts: impl IntoIterator<Item = (impl Into<String>, impl Into<f64>)>,
    ) -> Self {
        self.amounts().resources = Some(Amounts::named(amounts));
        self
    }

    /// Environment variables of the process that runs the call, in addition to those of the driver. A variable that the
    /// driver has too gets this value. They are set before any code of the program runs. Default: none.
    ///
    /// ```
    /// use mobula::TaskOptions;
    ///
    /// #[mobula::remote(env_vars = [("GREETING", "hello")])]
    /// fn greet() -> String {
    ///     std::env::var("GREETING").expect("it is set")
    /// }
    ///
    /// let _mobula = mobula::init()?;
    /// assert_eq!(greet::remote().get()?, "hello");
    /// let other = TaskOptions::new().env_vars([("GREETING", "good morning")]); // in place of the attribute's
    /// assert_eq!(greet::options(other).remote().get()?, "good morning");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// Calls with the same variables and the same [`working_dir`](Self::working_dir) share processes; calls with other
    /// variables never run in these processes. So the first call with new variables waits until a process has started.
    /// Such a process ends after an idle second.
    ///
    /// Calls and actors that the call makes inherit its variables, and can have more of their own.
    ///
    /// An invalid name, such as an empty one, is [`Failure::BadOption`](crate::Failure::BadOption).
    pub fn env_vars(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        self.environment().env_vars = Some(EnvironmentOptions::variables(variables));
        self
    }

    /// The working directory of the process that runs the call. A relative path begins in the working directory of the
    /// process that makes the call. Default: the driver's directory at the start of the session; for a call that
    /// another call makes, the directory of that call.
    ///
    /// ```
    /// use mobula::TaskOptions;
    ///
    /// #[mobula::remote]
    /// fn read(name: String) -> std::io::Result<String> {
    ///     std::fs::read_to_string(name)
    /// }
    ///
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let directory = directory.path();
    /// std::fs::write(directory.join("poem.txt"), "Roses are red").expect("the directory is there");
    /// let _mobula = mobula::init()?;
    /// let there = TaskOptions::new().working_dir(directory);
    /// assert_eq!(read::options(there).remote("poem.txt".to_owned()).get()?, "Roses are red");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// A directory that does not exist is an error at once: [`Failure::BadOption`](crate::Failure::BadOption). Nothing
    /// is copied: the call sees the directory as it is.
    pub fn working_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.environment().working_dir = Some(directory.into());
        self
    }

    /// The program whose processes run the call, in place of the session's own program. It is written in another
    /// language, and the call names a function that it [exports](crate::Key::exported).
    // For fronts.
    #[doc(hidden)]
    pub fn program(mut self, program: Launch) -> Self {
        self.environment().program = Some(program);
        self
    }

    /// The place of the call in a placement group: the call demands resources of the group. See
    /// [`PlacementGroup`](crate::PlacementGroup).
    ///
    /// ```
    /// use mobula::{Bundle, PlacementGroup, TaskOptions};
    ///
    /// #[mobula::remote]
    /// fn square(x: u64) -> u64 {
    ///     x * x
    /// }
    ///
    /// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
    /// let group = PlacementGroup::new([Bundle::new().num_cpus(1)])?;
    /// assert_eq!(square::options(TaskOptions::new().placement(group.bundle(0)?)).remote(3).get()?, 9);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn placement(mut self, placement: Placement) -> Self {
        self.amounts().placement = Some(placement);
        self
    }

    fn environment(&mut self) -> &mut EnvironmentOptions {
        self.environment.get_or_insert_default()
    }

    fn limits(&mut self) -> &mut LimitOptions {
        self.limits.get_or_insert_default()
    }

    fn amounts(&mut self) -> &mut Amounts {
        self.amounts.get_or_insert_default()
    }

    /// These options, with the values of `defaults` for those that are not set.
    ///
    /// ```
    /// use mobula::TaskOptions;
    ///
    /// /// The options of every call of a program, where the call itself says nothing.
    /// fn usual(options: TaskOptions) -> TaskOptions {
    ///     options.or(TaskOptions::new().max_retries(2))
    /// }
    ///
    /// let twice = usual(TaskOptions::new());
    /// let never = usual(TaskOptions::new().max_retries(0));
    /// ```
    pub fn or(self, defaults: Self) -> Self {
        let amounts = match (self.amounts, defaults.amounts) {
            (Some(amounts), Some(defaults)) => Some(Box::new(amounts.or(*defaults))),
            (amounts, defaults) => amounts.or(defaults),
        };
        let environment = match (self.environment, defaults.environment) {
            (Some(given), Some(defaults)) => Some(Box::new(given.or(*defaults))),
            (given, defaults) => given.or(defaults),
        };
        let limits = match (self.limits, defaults.limits) {
            (Some(limits), Some(defaults)) => Some(Box::new(limits.or(*defaults))),
            (limits, defaults) => limits.or(defaults),
        };
        Self {
            limits,
            max_retries: self.max_retries.or(defaults.max_retries),
            detached: self.detached.or(defaults.detached),
            error_retries: self.error_retries.or(defaults.error_retries),
            amounts,
            environment,
        }
    }

    /// How often the call is retried.
    pub(crate) fn retries(&self) -> u32 {
        let default = || if self.error_retries.is_wanted() { RETRIES_OF_ERRORS } else { 0 };
        self.max_retries.unwrap_or_else(default)
    }
}
