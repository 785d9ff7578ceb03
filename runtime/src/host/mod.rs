//! The parts that a front gives to the core: the names and keys of functions and actor classes, and the [`Host`] that
//! runs them.

pub(crate) mod invocation;

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::invocation::Invocation;
use crate::error::Failure;

/// Identifies a function or an actor class among those of one [build](Host::build_id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key(u64);

impl Key {
    /// The key with these bits. Every number is a valid key.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits of the key.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// A name for messages: a constant of the program, or a string that was made at run time.
#[derive(Clone)]
pub enum Name {
    /// A constant of the program.
    Static(&'static str),
    /// A string that was made at run time. Clones of the name share it.
    Shared(Arc<str>),
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Static(name) => name,
            Self::Shared(name) => name,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A function or an actor class, as a caller names it.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The key by which the host finds it.
    pub key: Key,
    /// The name that errors and output show.
    pub name: Name,
}

/// Runs functions and actors in a worker process: those of one language, in one build.
///
/// A worker calls its host on the one thread that runs the process's calls, and holds no lock meanwhile. The host must
/// not unwind: it turns a panic of user code into an error.
pub trait Host: Send + Sync + 'static {
    /// The number of this build. A worker serves only drivers with the same number, because a key has a meaning only
    /// within one build.
    fn build_id(&self) -> u64;

    /// Called once when the process has become a worker, before it runs its first call.
    fn started(&self) {}

    /// Runs a function. The host passes the results to [`Invocation::give`].
    ///
    /// # Errors
    /// The failure that the caller gets in place of the results. Results that were already given are dropped.
    fn call(&self, function: Key, on: &mut Invocation) -> Result<(), Failure>;

    /// Runs a constructor.
    ///
    /// # Errors
    /// Why the actor could not be constructed.
    fn construct(&self, class: Key, on: &mut Invocation) -> Result<Box<dyn Instance>, Failure>;

    /// Called when no call waits. The host writes out buffered output.
    fn idle(&self);
}

/// The state of an actor in its process. Dropping it runs the actor's destructor, which must not unwind either.
pub trait Instance: Any {
    /// Runs a method.
    ///
    /// # Errors
    /// As [`Host::call`].
    fn call(&mut self, method: u32, on: &mut Invocation) -> Result<(), Failure>;
}
