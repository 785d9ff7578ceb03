//! A lock between processes: its leases to read and to write end with their processes.

use std::fmt;
use std::time::Duration;

use mobula_runtime::{ActorOptions, Failure, Result};
use serde::{Deserialize, Serialize};

use super::permits::{Held, PermitsActor};
use crate::actor::ActorHandle;

/// The most processes that read at a time. A writer takes all of the permits.
const READERS_MAX: u32 = 1 << 20;

/// A lock between processes: many have a lease to read, or one has a lease to write. The program decides what it
/// protects: a file, a device, a table on a server.
///
/// A lease ends when it is dropped, or when its process dies. If a writer dies, the next lease reports it, because its
/// work may be incomplete. Leases are given in the order of the requests, so readers do not starve a writer.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::util::RwLock;
///
/// #[remote]
/// fn append(lock: RwLock, file: std::path::PathBuf, line: u32) -> Result<()> {
///     let lease = lock.write()?;
///     if lease.is_after_death() {
///         // … check the file, and mend it …
///         lease.clear_death()?;
///     }
///     let text = std::fs::read_to_string(&file).unwrap_or_default();
///     std::fs::write(&file, format!("{text}{line}\n")).expect("the disk has room");
///     Ok(())
/// }
///
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let file = directory.path().join("lines");
/// let _mobula = init()?;
/// let lock = RwLock::new();
/// get((0..10).map(|line| append::remote(lock.clone(), file.clone(), line)))?;
/// let lease = lock.read()?;
/// assert_eq!(std::fs::read_to_string(&file).expect("it is there").lines().count(), 10);
/// # drop(lease);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// Its process, and the cost of a lease, are as for a [`Semaphore`](super::Semaphore).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RwLock {
    actor: ActorHandle<PermitsActor>,
}

impl RwLock {
    /// Makes a lock without leases.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let lock = mobula::util::RwLock::new();
    /// let (_one, _other) = (lock.read()?, lock.read()?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// Costs the start of a process. If that fails, the calls report it.
    #[expect(clippy::new_without_default, reason = "it starts a process")]
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(ActorOptions::new())
    }

    /// Makes a lock whose process has these options, such as a name. With
    /// [`get_if_exists`](ActorOptions::get_if_exists), the first process makes the lock, and the others find it.
    ///
    /// ```
    /// use mobula::ActorOptions;
    /// use mobula::util::RwLock;
    ///
    /// let _mobula = mobula::init()?;
    /// let lock = || RwLock::with_options(ActorOptions::new().name("scanner").get_if_exists(true));
    /// let lease = lock().write()?;
    /// assert!(lock().try_read()?.is_none());
    /// # drop(lease);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn with_options(options: ActorOptions) -> Self {
        Self { actor: PermitsActor::options(options).remote(READERS_MAX) }
    }

    /// Waits for a lease to read: no process writes meanwhile.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let lock = mobula::util::RwLock::new();
    /// let lease = lock.read()?;
    /// # drop(lease);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock's actor cannot be reached.
    pub fn read(&self) -> Result<Lease> {
        leased(self.lease(1, true, None)?)
    }

    /// Locks for reading like [`read`](Self::read), with a timeout; then the result is `None`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let _mobula = mobula::init()?;
    /// let lock = mobula::util::RwLock::new();
    /// let lease = lock.write()?;
    /// assert!(lock.read_timeout(Duration::from_millis(10))?.is_none());
    /// # drop(lease);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `read`.
    pub fn read_timeout(&self, timeout: Duration) -> Result<Option<Lease>> {
        self.lease(1, true, Some(timeout))
    }

    /// A lease to read, if it is free at once.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert!(mobula::util::RwLock::new().try_read()?.is_some());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn try_read(&self) -> Result<Option<Lease>> {
        self.lease(1, false, None)
    }

    /// Locks for reading like [`read`](Self::read), for `async` code. A future that is dropped before it is ready takes
    /// nothing.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let lock = mobula::util::RwLock::new();
    /// let lease = pollster::block_on(lock.read_async())?;
    /// # drop(lease);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `read`.
    pub async fn read_async(&self) -> Result<Lease> {
        leased(Held::get_async(&self.actor, 1).await?.map(|held| Lease { held }))
    }

    /// Waits for a lease to write: no other process has a lease meanwhile.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let lock = mobula::util::RwLock::new();
    /// let lease = lock.write()?;
    /// assert!(lock.try_write()?.is_none());
    /// # drop(lease);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self) -> Result<Lease> {
        leased(self.lease(READERS_MAX, true, None)?)
    }

    /// Locks for writing like [`write`](Self::write), with a timeout; then the result is `None`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let _mobula = mobula::init()?;
    /// let lock = mobula::util::RwLock::new();
    /// let lease = lock.read()?;
    /// assert!(lock.write_timeout(Duration::from_millis(10))?.is_none());
    /// # drop(lease);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_timeout(&self, timeout: Duration) -> Result<Option<Lease>> {
        self.lease(READERS_MAX, true, Some(timeout))
    }

    /// A lease to write, if it is free at once.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert!(mobula::util::RwLock::new().try_write()?.is_some());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn try_write(&self) -> Result<Option<Lease>> {
        self.lease(READERS_MAX, false, None)
    }

    /// Locks for writing like [`write`](Self::write), for `async` code. A future that is dropped before it is ready
    /// takes nothing.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let lock = mobula::util::RwLock::new();
    /// let lease = pollster::block_on(lock.write_async())?;
    /// # drop(lease);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn write_async(&self) -> Result<Lease> {
        leased(Held::get_async(&self.actor, READERS_MAX).await?.map(|held| Lease { held }))
    }

    fn lease(&self, permits: u32, waits: bool, timeout: Option<Duration>) -> Result<Option<Lease>> {
        Ok(Held::get(&self.actor, permits, waits, timeout)?.map(|held| Lease { held }))
    }
}

impl fmt::Debug for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RwLock").field(&self.actor).finish()
    }
}

/// A lease of an [`RwLock`]. The process has it until this is dropped, or until the process dies.
///
/// ```
/// use mobula::util::{Lease, RwLock};
///
/// let _mobula = mobula::init()?;
/// let lease: Lease = RwLock::new().write()?;
/// assert!(!lease.is_after_death());
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "the lease ends when it is dropped"]
pub struct Lease {
    held: Held,
}

impl Lease {
    /// Whether a process died with a lease to write, and no process had called [`clear_death`](Self::clear_death) when
    /// this lease began.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert!(!mobula::util::RwLock::new().read()?.is_after_death());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn is_after_death(&self) -> bool {
        self.held.after_death
    }

    /// Reports that the work of the dead process was checked or repaired. Later leases do not report its death.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// mobula::util::RwLock::new().write()?.clear_death()?;
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock's actor cannot be reached.
    pub fn clear_death(&self) -> Result<()> {
        self.held.actor.clear_death().get()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("is_after_death", &self.is_after_death()).finish_non_exhaustive()
    }
}

/// The lease from a wait without a timeout.
fn leased(lease: Option<Lease>) -> Result<Lease> {
    lease.ok_or_else(|| Failure::Other("the lock ended the wait without a lease".to_owned()).into())
}
