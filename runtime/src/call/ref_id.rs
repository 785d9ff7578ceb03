//! What tells references apart: a number that a reference has from its birth on, and takes along wherever it goes.
//!
//! A reference to a result cannot have the id of an object: most results never become one, those that do become one when
//! they are there, and in whatever process. So it has a number of its own, which stands in a value beside the object's.
//! It is of the form of an object's id, in a place where no object ever is, so that the two do not mix. A reference to
//! what was put has the object's own.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mobula_client::{ObjectId, OwnerId};
use serde::{Deserialize, Serialize};

/// Identifies an [`ObjectRef`](crate::ObjectRef) and its clones, in every process, for good.
///
/// Shown as 32 hexadecimal digits in groups. That of a value that was [`put`](crate::put) is the id that the command
/// `mobula` shows for the object.
///
/// ```no_run
/// # use mobula::prelude::*;
/// # #[mobula::remote]
/// # fn square(x: i64) -> i64 { x * x }
/// # fn main() -> mobula::Result<()> {
/// # let _mobula = mobula::init()?;
/// let nine = square::remote(3);
/// let same = mobula::put(&nine)?.get()?; // a reference inside a value
/// assert_eq!(nine.id(), same.id());
/// println!("{}", nine.id()); // 5a83-80000000-00000001-1f6c03b1d2e4
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "(u64, u64)", from = "(u64, u64)")]
pub struct RefId(ObjectId);

/// Objects have smaller indices.
const NOT_AN_OBJECT: u32 = 1 << 31;

impl RefId {
    /// A number that no other reference has. Costs an addition to a counter that all threads share.
    pub(crate) fn unique() -> Self {
        /// Tells this process from all others, of other sessions too.
        static ORIGIN: LazyLock<OwnerId> =
            LazyLock::new(|| OwnerId::from_bits(RandomState::new().hash_one(std::process::id())));
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        Self(ObjectId::new(*ORIGIN, (number >> 32) as u32 | NOT_AN_OBJECT, number as u32))
    }

    /// That of a reference to an object that was put.
    pub(crate) fn of(object: ObjectId) -> Self {
        Self(object)
    }
}

impl From<RefId> for (u64, u64) {
    fn from(id: RefId) -> Self {
        (id.0.owner().bits(), u64::from(id.0.index()) << 32 | u64::from(id.0.generation()))
    }
}

impl From<(u64, u64)> for RefId {
    fn from((owner, number): (u64, u64)) -> Self {
        Self(ObjectId::new(OwnerId::from_bits(owner), (number >> 32) as u32, number as u32))
    }
}

impl fmt::Display for RefId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RefId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_survive_being_sent() {
        let (one, other) = (RefId::unique(), RefId::unique());
        assert_ne!(one, other);
        let object = RefId::of(ObjectId::new(OwnerId::new(3, 7), 5, u32::MAX));
        for id in [one, other, object] {
            assert_eq!(RefId::from(<(u64, u64)>::from(id)), id);
        }
        assert_eq!(object.to_string(), "0003-00000005-ffffffff-000000000007");
    }
}
