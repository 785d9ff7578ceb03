//! Results in the order in which they come.

use std::collections::VecDeque;
use std::fmt;

use mobula_runtime::Ref;

use crate::object_ref::{IntoRef, ObjectRef};

/// References in the order in which they become ready; see [`as_completed`].
///
/// ```
/// let _mobula = mobula::init()?;
/// let mut completed: mobula::AsCompleted<i64> = mobula::as_completed([mobula::put(&7)?]);
/// let (index, reference) = completed.next().expect("there is one");
/// assert_eq!((index, reference.get()?), (0, 7));
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "an iterator does nothing before it is asked for items"]
pub struct AsCompleted<T> {
    pending: Vec<Numbered<T>>,
    /// The references that are known to be ready.
    ready: VecDeque<Numbered<T>>,
}

/// A reference and its position.
struct Numbered<T>(usize, ObjectRef<T>);

impl<T> AsRef<Ref> for Numbered<T> {
    fn as_ref(&self) -> &Ref {
        &self.1.to
    }
}

/// Iterates over the references in the order in which they become ready, each with its position among those that were
/// given. Each step waits until one more is ready.
///
/// A failed task is ready: its `get` returns the error at once. When the session ends, every remaining reference is
/// ready, too.
///
/// ```
/// #[mobula::remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = mobula::init()?;
/// let squares: Vec<_> = (0..8).map(|x| square::remote(x)).collect();
/// for (x, square) in mobula::as_completed(&squares) {
///     assert_eq!(square.get()?, (x * x) as i64);
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Cost
/// A step costs almost nothing if a reference is already known to be ready. Otherwise it looks at each remaining
/// reference (one or two loads), and makes a system call only if this thread has to sleep. No value is read.
pub fn as_completed<T>(refs: impl IntoIterator<Item = impl IntoRef<T>>) -> AsCompleted<T> {
    let numbered =
        refs.into_iter().enumerate().map(|(index, reference)| Numbered(index, reference.into_ref()));
    AsCompleted { pending: numbered.collect(), ready: VecDeque::new() }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = (usize, ObjectRef<T>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() && !self.pending.is_empty() {
            let waited = mobula_runtime::runtime()
                .and_then(|runtime| mobula_runtime::wait_any(&runtime, &self.pending));
            let is_ready = |numbered: &mut Numbered<T>| waited.is_err() || numbered.1.is_ready();
            self.ready.extend(self.pending.extract_if(.., is_ready));
        }
        let Numbered(index, reference) = self.ready.pop_front()?;
        Some((index, reference))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.pending.len() + self.ready.len();
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for AsCompleted<T> {}

impl<T> std::iter::FusedIterator for AsCompleted<T> {}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.len()).finish()
    }
}
