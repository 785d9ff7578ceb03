//! A barrier, where processes wait for each other.

use std::fmt;
use std::time::Duration;

use mobula_runtime::{ActorOptions, Error, Failure, Result, UtilFailure};
use serde::{Deserialize, Serialize};

use super::waiting::{PendingCall, next_number};
use crate as mobula;
use crate::actor::ActorHandle;
use crate::{Caller, Reply};

/// A number of callers wait at a barrier until all of them are there, any number of times. The callers can be in any
/// processes, also several in one.
///
/// A handle can be cloned, given as an argument, or sent inside a value.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::util::Barrier;
///
/// #[remote]
/// fn step(barrier: Barrier, _part: u32) -> Result<bool> {
///     // … the first half …
///     let is_leader = barrier.wait()?;
///     // … the second half: all parts have done the first one …
///     Ok(is_leader)
/// }
///
/// let _mobula = mobula::Builder::new().num_cpus(3).init()?;
/// let barrier = Barrier::new(3);
/// let leaders = get((0..3).map(|part| step::remote(barrier.clone(), part)))?;
/// assert_eq!(leaders.iter().filter(|is_leader| **is_leader).count(), 1);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # When one does not come
///
/// If a waiting process dies, or a wait times out, all callers that wait with it get [`BarrierError::Broken`], because
/// the missing one may never come. After that the barrier serves new callers as if it were new. The barrier does not
/// learn of processes that die before their wait, so use a timeout.
///
/// # Cost
///
/// A wait is a call of an actor. Each barrier has an actor process of its own.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Barrier {
    actor: ActorHandle<BarrierActor>,
}

/// The reason why a barrier has not opened.
///
/// ```
/// use std::time::Duration;
/// use mobula::util::{Barrier, BarrierError};
///
/// let _mobula = mobula::init()?;
/// let barrier = Barrier::new(2);
/// assert!(matches!(barrier.wait_timeout(Duration::from_millis(10)), Err(BarrierError::Timeout)));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum BarrierError {
    /// Another waiting caller has died, or its wait has timed out.
    Broken,
    /// The wait has timed out. This breaks the wait of the other callers.
    Timeout,
    /// The barrier's actor cannot be reached.
    Failed(Error),
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken => UtilFailure::BarrierBroken.fmt(f),
            Self::Timeout => UtilFailure::BarrierTimeout.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BarrierError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken => Some(&UtilFailure::BarrierBroken),
            Self::Timeout => Some(&UtilFailure::BarrierTimeout),
            Self::Failed(error) => Some(error),
        }
    }
}

impl From<Error> for BarrierError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<BarrierError> for Error {
    fn from(error: BarrierError) -> Self {
        match error {
            BarrierError::Broken => Failure::Util(UtilFailure::BarrierBroken).into(),
            BarrierError::Timeout => Failure::Util(UtilFailure::BarrierTimeout).into(),
            BarrierError::Failed(error) => error,
        }
    }
}

impl Barrier {
    /// Makes a barrier for this number of callers; 0 means 1.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert!(mobula::util::Barrier::new(1).wait()?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// Costs the start of a process. If the start fails, the calls report it.
    #[must_use]
    pub fn new(callers: usize) -> Self {
        Self::with_options(callers, ActorOptions::new())
    }

    /// Makes a barrier whose process has these options, such as a name.
    ///
    /// ```
    /// use mobula::ActorOptions;
    /// use mobula::util::Barrier;
    ///
    /// let _mobula = mobula::init()?;
    /// let start = || Barrier::with_options(1, ActorOptions::new().name("start").get_if_exists(true));
    /// assert_eq!(start(), start());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn with_options(callers: usize, options: ActorOptions) -> Self {
        Self { actor: BarrierActor::options(options).remote(callers.max(1)) }
    }

    /// Waits until all callers are here. Exactly one of them gets `true`, and can do work that must be done once.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let barrier = mobula::util::Barrier::new(2);
    /// let leaders = std::thread::scope(|scope| {
    ///     let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| barrier.wait())).collect();
    ///     threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<Vec<_>, _>>()
    /// })?;
    /// assert_ne!(leaders[0], leaders[1]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`BarrierError::Broken`], [`BarrierError::Failed`].
    pub fn wait(&self) -> Result<bool, BarrierError> {
        opened(self.begin().wait(None)?)
    }

    /// Waits like [`wait`](Self::wait), with a timeout.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let _mobula = mobula::init()?;
    /// let barrier = mobula::util::Barrier::new(2);
    /// assert!(barrier.wait_timeout(Duration::from_millis(10)).is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`BarrierError::Timeout`], and those of `wait`.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, BarrierError> {
        opened(self.begin().wait(Some(timeout))?)
    }

    /// Waits like [`wait`](Self::wait), for `async` code. Dropping the future before it is ready breaks the others'
    /// wait.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert!(pollster::block_on(mobula::util::Barrier::new(1).wait_async())?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `wait`.
    pub async fn wait_async(&self) -> Result<bool, BarrierError> {
        let mut waiting = self.begin();
        opened(waiting.wait_async().await?)
    }

    /// The number of callers that waited at some moment during this call.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert_eq!(mobula::util::Barrier::new(2).waiting()?, 0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// The barrier's actor cannot be reached.
    pub fn waiting(&self) -> Result<usize> {
        self.actor.waiting().get()
    }

    fn begin(&self) -> PendingCall<Opened, impl FnOnce() + use<'_>> {
        let number = next_number();
        PendingCall::new(self.actor.wait(number), move || _ = self.actor.give_up(number))
    }
}

fn opened(answer: Option<Opened>) -> Result<bool, BarrierError> {
    match answer {
        Some(Opened::Here { is_leader }) => Ok(is_leader),
        Some(Opened::Broken) => Err(BarrierError::Broken),
        None => Err(BarrierError::Timeout),
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Barrier").field(&self.actor).finish()
    }
}

/// The answer to a wait.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Opened {
    Here { is_leader: bool },
    Broken,
}

/// The actor of a barrier: it counts the waiting callers.
struct BarrierActor {
    callers: usize,
    waiting: Vec<((Caller, u64), Reply<Opened>)>,
}

#[mobula::remote(crate = mobula)]
impl BarrierActor {
    fn new(callers: usize) -> Self {
        Self { callers, waiting: Vec::new() }
    }

    fn wait(&mut self, number: u64, reply: Reply<Opened>) {
        let Some(caller) = reply.caller() else { return };
        self.waiting.push(((caller, number), reply));
        if self.waiting.len() >= self.callers {
            for (position, (_, reply)) in self.waiting.drain(..).enumerate() {
                reply.send(Opened::Here { is_leader: position == 0 });
            }
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn give_up(&mut self, number: u64, reply: Reply<()>) {
        if let Some(caller) = reply.caller() {
            self.break_if(|call| call == (caller, number));
        }
        reply.send(());
    }

    #[remote(caller_gone)]
    fn caller_gone(&mut self, gone: Caller) {
        self.break_if(|(caller, _)| caller == gone);
    }

    #[remote(local)]
    fn break_if(&mut self, left: impl Fn((Caller, u64)) -> bool) {
        if self.waiting.iter().any(|(call, _)| left(*call)) {
            self.waiting.drain(..).for_each(|(_, reply)| reply.send(Opened::Broken));
        }
    }
}
