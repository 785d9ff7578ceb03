//! How a caller names a function or an actor class: by a key, which its host knows, and by a name for messages.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Identifies a function or an actor class among those of one [build](crate::Host::build_id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key(u64);

impl Key {
    /// The key with these bits. Every number is a valid key.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The key of a function or class that a program exports to other languages under this name. It is the same in all
    /// builds, and no function that is not exported has it.
    #[must_use]
    pub const fn exported(name: &str) -> Self {
        // FNV-1a (Fowler, Noll, Vo).
        let (bytes, mut hash, mut i) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325u64, 0);
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
            i += 1;
        }
        Self(hash.rotate_left(32) ^ EXPORTED)
    }

    /// The bits of the key.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Makes the keys of exported functions differ from hashes that hosts make in the same way.
const EXPORTED: u64 = 0x6578_706f_7274_6564;

/// A name for messages: a constant of the program, or a string that was made at run time.
///
/// Fronts make this, and the core reads it, so it may get more variants.
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
///
/// Fronts make this themselves, so a new field is a breaking change.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The key by which the host finds it.
    pub key: Key,
    /// The name that errors and output show.
    pub name: Name,
}
