//! What a front gives to the core: what can be called, and who runs it.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::worker::invocation::Invocation;

/// Identifies a function or an actor class among those of one [build](Host::build_id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key(u64);

impl Key {
    /// The key with these bits; every word is some key.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// A name that people read: one that the program has, or one that was made while it ran.
#[derive(Clone)]
pub enum Name {
    /// Part of the program.
    Static(&'static str),
    /// Shared by all that have it.
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

/// A function or an actor class, as its callers know it.
#[derive(Debug, Clone)]
pub struct Definition {
    /// What the host finds it by.
    pub key: Key,
    /// What errors and output call it.
    pub name: Name,
}

/// What a worker process runs for others: the functions and actor classes of one language, in one build.
///
/// A worker calls its host on the thread that runs the process's calls, one after the other, and holds no lock meanwhile.
/// The host must not unwind: it makes an error of whatever its user code does.
pub trait Host: Send + Sync + 'static {
    /// Tells builds apart: a worker serves only drivers with the same number, because keys mean something within one build
    /// alone.
    fn build_id(&self) -> u64;

    /// The process has become a worker, and has not run anything yet.
    fn started(&self) {}

    /// Runs a function. What it returns goes to [`Invocation::give`].
    ///
    /// # Errors
    /// What the caller gets in place of a result; what was given is dropped then.
    fn call(&self, function: Key, on: &mut Invocation) -> Result<(), Failure>;

    /// Runs a constructor.
    ///
    /// # Errors
    /// Why there is no actor.
    fn construct(&self, class: Key, on: &mut Invocation) -> Result<Box<dyn Instance>, Failure>;

    /// Nothing is there to run: output that was buffered is written out.
    fn idle(&self);
}

/// An actor in its process. When it is dropped, its destructor runs; that must not unwind either.
pub trait Instance: Any {
    /// Runs a method.
    ///
    /// # Errors
    /// As [`Host::call`].
    fn call(&mut self, method: u32, on: &mut Invocation) -> Result<(), Failure>;
}
