//! A condition that processes wait for.

use std::fmt;
use std::time::Duration;

use mobula_runtime::{ActorOptions, Result};
use serde::{Deserialize, Serialize};

use super::waiting::{PendingCall, next_number};
use crate as mobula;
use crate::actor::ActorHandle;
use crate::{Caller, Reply};

/// A condition that one process sets, and any number of others wait for: data is there, work may begin, work must stop.
///
/// A handle can be cloned, given as an argument, or sent inside a value.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::util::Signal;
///
/// #[remote]
/// fn runner(start: Signal, number: u32) -> Result<u32> {
///     start.wait()?;
///     Ok(number)
/// }
///
/// let _mobula = init()?;
/// let start = Signal::new();
/// let runners: Vec<_> = (0..4).map(|number| runner::remote(start.clone(), number)).collect();
/// start.set()?; // all of them run
/// assert_eq!(get(runners)?, [0, 1, 2, 3]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Cost
///
/// Each method is a call of an actor. Each signal has an actor process of its own.
///
/// # Ray
///
/// This is the `SignalActor` of many Ray programs, with the methods of Python's `threading.Event`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signal {
    actor: ActorHandle<SignalActor>,
}

impl Signal {
    /// Makes a signal that is not set.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert!(!mobula::util::Signal::new().is_set()?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// Costs the start of a process. If that fails, the calls report it.
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(ActorOptions::new())
    }

    /// Makes a signal whose process has these options, such as a name.
    ///
    /// ```
    /// use mobula::ActorOptions;
    /// use mobula::util::Signal;
    ///
    /// let _mobula = mobula::init()?;
    /// let stop = || Signal::with_options(ActorOptions::new().name("stop").get_if_exists(true));
    /// let signal = stop();
    /// signal.set()?;
    /// assert!(stop().is_set()?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn with_options(options: ActorOptions) -> Self {
        Self { actor: SignalActor::options(options).remote() }
    }

    /// Sets the signal: waits end, and later waits return at once. It is set when this returns.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let signal = mobula::util::Signal::new();
    /// signal.set()?;
    /// signal.wait()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// The signal's actor cannot be reached.
    pub fn set(&self) -> Result<()> {
        self.actor.set().get()
    }

    /// Clears the signal: later waits wait for another [`set`](Self::set).
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let signal = mobula::util::Signal::new();
    /// signal.set()?;
    /// signal.clear()?;
    /// assert!(!signal.is_set()?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `set`.
    pub fn clear(&self) -> Result<()> {
        self.actor.clear().get()
    }

    /// Whether the signal was set at some moment during this call.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert!(!mobula::util::Signal::new().is_set()?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn is_set(&self) -> Result<bool> {
        self.actor.is_set().get()
    }

    /// Waits until it is set.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let signal = mobula::util::Signal::new();
    /// let other = signal.clone();
    /// let waiter = std::thread::spawn(move || other.wait());
    /// signal.set()?;
    /// waiter.join().expect("no panic")?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn wait(&self) -> Result<()> {
        self.begin().wait(None).map(drop)
    }

    /// Waits like [`wait`](Self::wait), with a timeout. Returns whether the signal is set.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let _mobula = mobula::init()?;
    /// assert!(!mobula::util::Signal::new().wait_timeout(Duration::from_millis(10))?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        Ok(self.begin().wait(Some(timeout))?.is_some())
    }

    /// Waits like [`wait`](Self::wait), for `async` code.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let signal = mobula::util::Signal::new();
    /// signal.set()?;
    /// pollster::block_on(signal.wait_async())?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn wait_async(&self) -> Result<()> {
        let mut waiting = self.begin();
        waiting.wait_async().await.map(drop)
    }

    fn begin(&self) -> PendingCall<(), impl FnOnce() + use<'_>> {
        let number = next_number();
        PendingCall::new(self.actor.wait(number), move || _ = self.actor.give_up(number))
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signal").field(&self.actor).finish()
    }
}

/// The actor that knows whether the signal is set.
#[derive(Default)]
struct SignalActor {
    is_set: bool,
    waiting: Vec<((Caller, u64), Reply<()>)>,
}

#[mobula::remote(crate = mobula)]
impl SignalActor {
    fn new() -> Self {
        Self::default()
    }

    fn set(&mut self) {
        self.is_set = true;
        self.waiting.drain(..).for_each(|(_, reply)| reply.send(()));
    }

    fn clear(&mut self) {
        self.is_set = false;
    }

    fn is_set(&self) -> bool {
        self.is_set
    }

    fn wait(&mut self, number: u64, reply: Reply<()>) {
        match reply.caller() {
            Some(caller) if !self.is_set => self.waiting.push(((caller, number), reply)),
            _ => reply.send(()),
        }
    }

    fn give_up(&mut self, number: u64, reply: Reply<()>) {
        let caller = reply.caller();
        self.end_waits(|(its, call)| Some(its) == caller && call == number);
        reply.send(());
    }

    #[remote(caller_gone)]
    fn caller_gone(&mut self, gone: Caller) {
        self.end_waits(|(caller, _)| caller == gone);
    }

    #[remote(local)]
    fn end_waits(&mut self, is_over: impl Fn((Caller, u64)) -> bool) {
        for (_, reply) in self.waiting.extract_if(.., |(call, _)| is_over(*call)) {
            // No process waits for this answer.
            reply.send(());
        }
    }
}
