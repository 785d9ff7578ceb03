//! The options of a call of a method: its retries, and its time limits. The actor has the demand of its calls.

use std::time::{Duration, Instant};

use crate::call::error_retries::ErrorRetryOptions;
use crate::call::limits::{Deadline, LimitOptions};
use crate::call::options::TaskOptions;
use crate::error::TaskError;

/// Options of the call of an actor's method, given as `handle.options(options).method(arguments)`. Options that are not
/// set have the values of the method's attribute `#[remote]`; options that it does not set either have the defaults.
///
/// ```
/// use std::time::Duration;
/// use mobula::MethodOptions;
/// use mobula::prelude::*;
///
/// struct Squares;
///
/// #[remote]
/// impl Squares {
///     fn new() -> Self {
///         Squares
///     }
///     fn of(&self, x: i64) -> i64 {
///         x * x
///     }
/// }
///
/// let _mobula = init()?;
/// let squares = Squares::remote();
/// let within = MethodOptions::new().deadline(Duration::from_secs(60));
/// assert_eq!(squares.options(within).of(5).get()?, 25);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "options have no effect before a call is made with them"]
pub struct MethodOptions {
    max_task_retries: Option<u32>,
    error_retries: ErrorRetryOptions,
    limits: LimitOptions,
}

impl MethodOptions {
    /// The defaults: the number of retries that the actor has, no retries because of errors, and no limits.
    ///
    /// ```
    /// let options = mobula::MethodOptions::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the call is retried, in place of
    /// [`ActorOptions::max_task_retries`](crate::ActorOptions::max_task_retries) of the actor;
    /// [`UNLIMITED`](crate::UNLIMITED) is possible. It is retried when the actor's process dies and the actor is
    /// restarted, and after errors if [`retry_exceptions`](Self::retry_exceptions) says so. All retries count together.
    /// Default: as often as the actor says, which is 0 where nothing is said.
    ///
    /// ```
    /// use std::path::PathBuf;
    /// use mobula::MethodOptions;
    /// use mobula::prelude::*;
    ///
    /// struct Index;
    ///
    /// #[remote(max_restarts = 2)]
    /// impl Index {
    ///     fn new() -> Self {
    ///         Index
    ///     }
    ///     /// The actor's process dies in the first attempt.
    ///     #[remote(max_task_retries = 1)]
    ///     fn search(&self, marker: PathBuf) -> u32 {
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
    /// let _mobula = init()?;
    /// let index = Index::remote();
    /// assert_eq!(index.search(directory.join("a")).get()?, 7);
    ///
    /// let once = index.options(MethodOptions::new().max_task_retries(0)); // in place of the attribute's
    /// assert!(once.search(directory.join("b")).get().is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// An attempt is not undone, so a method with retries must be able to run twice: on the state as the failed attempt
    /// leaves it, or on a new state after a restart.
    pub fn max_task_retries(mut self, retries: u32) -> Self {
        self.max_task_retries = Some(retries);
        self
    }

    /// Whether the call is also retried after an `Err` that the method returns, and after a panic. The same actor runs
    /// it again, with the state as the failed attempt leaves it. The result is that of the last attempt. The limit is
    /// the number of retries of the call ([`max_task_retries`](Self::max_task_retries)) or of its actor: without such a
    /// number there are none. Default: no.
    ///
    /// ```
    /// use mobula::MethodOptions;
    /// use mobula::prelude::*;
    ///
    /// /// A connection that is there at the third attempt.
    /// struct Client(u32);
    ///
    /// #[remote]
    /// impl Client {
    ///     fn new() -> Self {
    ///         Client(0)
    ///     }
    ///     #[remote(max_task_retries = 3, retry_exceptions = true)]
    ///     fn connect(&mut self) -> Result<u32, String> {
    ///         self.0 += 1;
    ///         if self.0 < 3 { Err(format!("attempt {} failed", self.0)) } else { Ok(self.0) }
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// assert_eq!(Client::remote().connect().get()?, 3);
    ///
    /// let once = MethodOptions::new().retry_exceptions(false); // in place of the attribute's
    /// assert!(Client::remote().options(once).connect().get().is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// The actor runs other calls between two attempts. So a call that is retried runs after later calls of the same
    /// caller that were sent meanwhile: only the first attempts of a caller's calls keep their order. To keep later
    /// calls behind the last attempt, wait for its result, or pass it to them as an argument. A later stream that waits
    /// until its items are taken holds the retry up, as it holds up any call behind it.
    ///
    /// A call is not retried if an argument does not decode, if its result cannot be stored, or if its `Reply` was
    /// dropped without an answer. A stream begins again from its first item, and the items that the caller has are left
    /// out. If the actor ends while the call waits for its retry, the call fails with
    /// [`Failure::ActorDied`](crate::Failure::ActorDied).
    pub fn retry_exceptions(mut self, retry: bool) -> Self {
        self.error_retries.retry_exceptions = Some(retry);
        self
    }

    /// Chooses the [errors](Self::retry_exceptions) after which the call is retried: those for which this function
    /// returns `true`. Setting it implies `retry_exceptions(true)`, unless that is set to `false`. Default: all errors.
    ///
    /// ```
    /// use mobula::prelude::*;
    /// use mobula::{MethodOptions, TaskError};
    ///
    /// fn is_transient(error: &TaskError) -> bool {
    ///     error.message.contains("busy")
    /// }
    ///
    /// /// A server that is busy at first.
    /// struct Server(u32);
    ///
    /// #[remote(max_task_retries = 5)]
    /// impl Server {
    ///     fn new() -> Self {
    ///         Server(0)
    ///     }
    ///     #[remote(retry_if = is_transient)]
    ///     fn fetch(&mut self) -> Result<u32, String> {
    ///         self.0 += 1;
    ///         if self.0 < 3 { Err("the server is busy".to_owned()) } else { Err("no such page".to_owned()) }
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// let error = Server::remote().fetch().get().unwrap_err();
    /// assert!(error.to_string().contains("no such page")); // the third attempt
    ///
    /// let never = MethodOptions::new().retry_if(|_| false); // in place of the attribute's
    /// let error = Server::remote().options(never).fetch().get().unwrap_err();
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
    /// are not retried at the same moment. Default: none, the call is sent again at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::MethodOptions;
    ///
    /// // After about 100, 200, 400 and 800 milliseconds.
    /// let first = Duration::from_millis(100);
    /// let options = MethodOptions::new().max_task_retries(4).retry_exceptions(true).retry_delay(first);
    /// ```
    ///
    /// The actor runs other calls meanwhile. The call keeps the actor alive, and counts as pending
    /// ([`ActorOptions::max_pending_calls`](crate::ActorOptions::max_pending_calls)).
    pub fn retry_delay(mut self, first: Duration) -> Self {
        self.error_retries.retry_delay = Some(first);
        self
    }

    /// The longest time that the call may run, counted for each attempt from its beginning. After that its result is
    /// [`Failure::TaskTimedOut`](crate::Failure::TaskTimedOut), and the call is cancelled as by `cancel`, with the
    /// calls that it made. The time that the call waits for its arguments, for its actor, or for earlier calls of the
    /// actor does not count. Default: no limit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::prelude::*;
    /// use mobula::{Error, Failure, MethodOptions};
    ///
    /// struct Solver;
    ///
    /// #[remote]
    /// impl Solver {
    ///     fn new() -> Self {
    ///         Solver
    ///     }
    ///     /// Computes until its call is cancelled.
    ///     #[remote(timeout = Duration::from_millis(50))]
    ///     fn search(&self) {
    ///         while !mobula::is_cancelled() {
    ///             std::thread::sleep(Duration::from_millis(1));
    ///         }
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// let solver = Solver::remote();
    /// let in_vain = solver.search();
    /// assert!(matches!(in_vain.get(), Err(Error::Failed(Failure::TaskTimedOut { .. }))));
    ///
    /// let longer = MethodOptions::new().timeout(Duration::from_millis(100)); // in place of the attribute's
    /// println!("{}", solver.options(longer).search().get().unwrap_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// A method that is running is not interrupted: `is_cancelled` returns `true` in it from then on. The actor goes on
    /// with its state as the method leaves it, and begins its next call when the method returns. A stream ends with the
    /// error as its last item. A call with a limit costs one more message, and a call without one costs nothing more.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits.timeout = Some(limit);
        self
    }

    /// The longest time from making the call to its end, with the start of the actor and all retries. After that its
    /// result is [`Failure::TaskTimedOut`](crate::Failure::TaskTimedOut), as with a [`timeout`](Self::timeout). A call
    /// that has not begun by then never runs. Default: no limit.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::prelude::*;
    /// use mobula::{Error, Failure, MethodOptions, TimeLimit};
    ///
    /// struct Printer;
    ///
    /// #[remote]
    /// impl Printer {
    ///     fn new() -> Self {
    ///         Printer
    ///     }
    ///     fn print(&self, pages: u64) {
    ///         std::thread::sleep(Duration::from_millis(pages));
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// let printer = Printer::remote();
    /// let many = printer.print(300);
    /// let options = MethodOptions::new().deadline(Duration::from_millis(20));
    /// let late = printer.options(options).print(1); // its turn comes too late
    /// let Err(Error::Failed(Failure::TaskTimedOut { limit, .. })) = late.get() else { panic!("it was in time") };
    /// assert_eq!(limit, TimeLimit::Deadline);
    /// many.get()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.limits.deadline = Some(Deadline::After(limit));
        self
    }

    /// Sets the limit of [`deadline`](Self::deadline) as a moment: for several calls that answer one request.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use mobula::MethodOptions;
    /// use mobula::prelude::*;
    ///
    /// struct Part;
    ///
    /// #[remote]
    /// impl Part {
    ///     fn new() -> Self {
    ///         Part
    ///     }
    ///     fn number(&self, number: u32) -> u32 {
    ///         number
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// let part = Part::remote();
    /// let request_ends = Instant::now() + Duration::from_secs(30);
    /// let in_time = part.options(MethodOptions::new().deadline_at(request_ends)); // for several calls
    /// let numbers: Vec<_> = (0..3).map(|number| in_time.number(number)).collect();
    /// assert_eq!(mobula::get(&numbers)?, [0, 1, 2]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn deadline_at(mut self, limit: Instant) -> Self {
        self.limits.deadline = Some(Deadline::At(limit));
        self
    }

    /// These options, with the values of `defaults` for those that are not set.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mobula::MethodOptions;
    ///
    /// /// The options of every call of a program, where the call itself says nothing.
    /// fn usual(options: MethodOptions) -> MethodOptions {
    ///     options.or(MethodOptions::new().timeout(Duration::from_secs(10)))
    /// }
    ///
    /// let ten_seconds = usual(MethodOptions::new());
    /// let one_second = usual(MethodOptions::new().timeout(Duration::from_secs(1)));
    /// ```
    pub fn or(self, defaults: Self) -> Self {
        Self {
            max_task_retries: self.max_task_retries.or(defaults.max_task_retries),
            error_retries: self.error_retries.or(defaults.error_retries),
            limits: self.limits.or(defaults.limits),
        }
    }

    /// Whether one is set.
    pub(crate) fn is_any(&self) -> bool {
        self.max_task_retries.is_some() || self.error_retries.is_any() || self.limits.is_any()
    }

    /// The same as options of a call.
    pub(crate) fn of_call(self) -> TaskOptions {
        let Self { max_task_retries: max_retries, error_retries, limits } = self;
        let limits = Some(limits).filter(LimitOptions::is_any).map(Box::new);
        TaskOptions { max_retries, error_retries, limits, ..TaskOptions::new() }
    }
}
