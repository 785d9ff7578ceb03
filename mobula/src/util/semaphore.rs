//! Permits that processes take and give back.

use std::fmt;
use std::time::Duration;

use mobula_runtime::{ActorOptions, Failure, Result};
use serde::{Deserialize, Serialize};

use super::permits::{Held, PermitsActor};
use crate::actor::ActorHandle;

/// A number of permits that processes share. It limits the number of processes that do something at a time, such as
/// reading a disk or asking a server.
///
/// A handle can be cloned, given as an argument, or sent inside a value. Permits are given in the order of the
/// requests.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::util::Semaphore;
///
/// #[remote]
/// fn ask_server(connections: Semaphore, question: u32) -> Result<u32> {
///     let _permit = connections.acquire()?; // at most two at a time, in all processes
///     Ok(question + 1)
/// }
///
/// let _mobula = init()?;
/// let connections = Semaphore::new(2);
/// let answers: Vec<_> = (0..8).map(|question| ask_server::remote(connections.clone(), question)).collect();
/// assert_eq!(get(answers)?, [1, 2, 3, 4, 5, 6, 7, 8]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # When a process dies
///
/// The permits of a process that dies come back, and its waits end. An actor with a process of its own keeps the
/// permits. If that process dies, each call fails with [`Failure::ActorDied`](crate::Failure::ActorDied), and permits
/// that are held have no effect any more.
///
/// # Cost
///
/// Taking a permit is a call of an actor, for which the caller waits. Returning it is another call, which is not waited
/// for. No system call while both processes are awake.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Semaphore {
    actor: ActorHandle<PermitsActor>,
}

impl Semaphore {
    /// Makes a semaphore with this number of permits.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let semaphore = mobula::util::Semaphore::new(3);
    /// assert_eq!(semaphore.available_permits()?, 3);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// Costs the start of a process. If that fails, the calls report it.
    #[must_use]
    pub fn new(permits: u32) -> Self {
        Self::with_options(permits, ActorOptions::new())
    }

    /// Makes a semaphore whose process has these options, such as a name. With
    /// [`get_if_exists`](ActorOptions::get_if_exists), the first process makes the semaphore, and the others find it.
    ///
    /// ```
    /// use mobula::ActorOptions;
    /// use mobula::util::Semaphore;
    ///
    /// let _mobula = mobula::init()?;
    /// let disk = || Semaphore::with_options(1, ActorOptions::new().name("disk").get_if_exists(true));
    /// let (one, other) = (disk(), disk());
    /// let _permit = one.acquire()?;
    /// assert!(other.try_acquire()?.is_none());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn with_options(permits: u32, options: ActorOptions) -> Self {
        Self { actor: PermitsActor::options(options).remote(permits) }
    }

    /// Waits for a permit. It goes back when it is dropped.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let semaphore = mobula::util::Semaphore::new(1);
    /// let permit = semaphore.acquire()?;
    /// assert_eq!(semaphore.available_permits()?, 0);
    /// drop(permit);
    /// assert_eq!(semaphore.available_permits()?, 1);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// The semaphore's actor cannot be reached, or there are no permits at all.
    pub fn acquire(&self) -> Result<Permit> {
        self.acquire_many(1)
    }

    /// Waits for this number of permits, and takes them together.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let semaphore = mobula::util::Semaphore::new(3);
    /// let _two = semaphore.acquire_many(2)?;
    /// assert_eq!(semaphore.available_permits()?, 1);
    /// assert!(semaphore.acquire_many(4).is_err()); // there are never so many
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// The semaphore's actor cannot be reached, or there are fewer permits.
    pub fn acquire_many(&self, permits: u32) -> Result<Permit> {
        granted(Held::get(&self.actor, permits, true, None)?)
    }

    /// Takes permits like [`acquire_many`](Self::acquire_many), with a timeout; then the result is `None`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let _mobula = mobula::init()?;
    /// let semaphore = mobula::util::Semaphore::new(1);
    /// let _permit = semaphore.acquire()?;
    /// assert!(semaphore.acquire_timeout(1, Duration::from_millis(10))?.is_none());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `acquire_many`.
    pub fn acquire_timeout(&self, permits: u32, timeout: Duration) -> Result<Option<Permit>> {
        Ok(Held::get(&self.actor, permits, true, Some(timeout))?.map(Permit))
    }

    /// Takes a permit if one is free and no other call waits for it.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let semaphore = mobula::util::Semaphore::new(1);
    /// let permit = semaphore.try_acquire()?.expect("one is there");
    /// assert!(semaphore.try_acquire()?.is_none());
    /// # drop(permit);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub fn try_acquire(&self) -> Result<Option<Permit>> {
        Ok(Held::get(&self.actor, 1, false, None)?.map(Permit))
    }

    /// Takes permits like [`acquire_many`](Self::acquire_many), for `async` code. A future that is dropped before it is
    /// ready takes nothing.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let semaphore = mobula::util::Semaphore::new(1);
    /// let permit = pollster::block_on(semaphore.acquire_async(1))?;
    /// # drop(permit);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `acquire_many`.
    pub async fn acquire_async(&self, permits: u32) -> Result<Permit> {
        granted(Held::get_async(&self.actor, permits).await?)
    }

    /// The number of permits that were free at some moment during this call.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert_eq!(mobula::util::Semaphore::new(2).available_permits()?, 2);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// The semaphore's actor cannot be reached.
    pub fn available_permits(&self) -> Result<u32> {
        self.actor.free().get()
    }

    /// Adds permits, up to 2³² − 1 in all.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let semaphore = mobula::util::Semaphore::new(0);
    /// semaphore.add_permits(2)?;
    /// assert_eq!(semaphore.available_permits()?, 2);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// The semaphore's actor cannot be reached.
    pub fn add_permits(&self, permits: u32) -> Result<()> {
        self.actor.add(permits).get()
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Semaphore").field(&self.actor).finish()
    }
}

/// Permits of a [`Semaphore`]. The process has them until this is dropped, or until the process dies.
///
/// ```
/// use mobula::util::{Permit, Semaphore};
///
/// let _mobula = mobula::init()?;
/// let permit: Permit = Semaphore::new(1).acquire()?;
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "the permit goes back when it is dropped"]
pub struct Permit(Held);

impl Permit {
    /// Removes the permits for ever: the semaphore has fewer permits from now on.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let semaphore = mobula::util::Semaphore::new(2);
    /// semaphore.acquire()?.forget();
    /// assert!(semaphore.acquire_many(2).is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn forget(self) {
        self.0.forget();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.0.actor).finish()
    }
}

/// The permits from a wait without a timeout.
fn granted(held: Option<Held>) -> Result<Permit> {
    let lost = || Failure::Other("the semaphore ended the wait without permits".to_owned()).into();
    held.map(Permit).ok_or_else(lost)
}
