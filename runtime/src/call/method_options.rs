//! The options of a call of a method. The actor has the demand and the retries of its calls.

use std::time::{Duration, Instant};

use crate::call::limits::{Deadline, LimitOptions};

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
    pub(crate) limits: LimitOptions,
}

impl MethodOptions {
    /// The defaults: no limits.
    ///
    /// ```
    /// let options = mobula::MethodOptions::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
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
        Self { limits: self.limits.or(defaults.limits) }
    }
}
