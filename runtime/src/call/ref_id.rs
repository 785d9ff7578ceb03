//! The id of a reference: a number that the reference gets when it is made, and keeps in every process.
//!
//! A reference to a result cannot use the id of an object: most results never become an object, and the others become
//! one later, in any process. So the reference has a number of its own, which a value contains beside the object's id.
//! The number has the form of an object id, with an entry index that no object has, so the two never collide. A
//! reference to a value that was put has the id of its object.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mobula_client::{ObjectId, OwnerId};
use serde::{Deserialize, Serialize};

/// Identifies an `ObjectRef` and its clones in every process, for good.
///
/// It is shown as 32 hexadecimal digits in groups. For a value that was `put`, it is the id that the command `mobula`
/// shows for the object.
///
/// ```
/// # #[mobula::remote]
/// # fn square(x: i64) -> i64 { x * x }
/// # let _mobula = mobula::init()?;
/// let nine = square::remote(3);
/// let same = mobula::put(&nine)?.get()?; // a reference inside a value
/// assert_eq!(nine.id(), same.id());
/// println!("{}", nine.id()); // 5a83-80000000-00000001-1f6c03b1d2e4
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "(u64, u64)", from = "(u64, u64)")]
pub struct RefId(ObjectId);

/// A bit that no entry index of an object has.
const NOT_AN_OBJECT: u32 = 1 << 31;

impl RefId {
    /// A number that no other reference has. Costs an addition to a counter that all threads share.
    #[inline]
    pub(crate) fn unique() -> Self {
        /// Distinguishes this process from all others, also from those of other sessions.
        static ORIGIN: LazyLock<OwnerId> =
            LazyLock::new(|| OwnerId::from_bits(RandomState::new().hash_one(std::process::id())));
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        Self(ObjectId::new(*ORIGIN, (number >> 32) as u32 | NOT_AN_OBJECT, number as u32))
    }

    /// The id of a reference to an object that was put.
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
