//! Combines many results into one.

use crate::object_ref::{IntoRef, ObjectRef};

/// Combines results two by two, until one is left: calls `combine` for neighbours, then for the results of these calls,
/// and so on. Returns `None` if there are none.
///
/// All calls are made at once, and run as soon as their arguments are there. Those of one level run beside each other,
/// so that *n* results take about log₂ *n* times as long as one combination, if there are processors enough. The order
/// is kept: the left argument comes from earlier results than the right one. So the combination need not be
/// commutative, but it has to be associative. Results that are combined are freed.
///
/// ```
/// use mobula::prelude::*;
///
/// #[remote]
/// fn word(number: usize) -> String {
///     ["to ", "be ", "or ", "not ", "to ", "be"][number].to_owned()
/// }
///
/// #[remote]
/// fn join(left: String, right: String) -> String {
///     left + &right
/// }
///
/// let _mobula = init()?;
/// let words = (0..6).map(|number| word::remote(number));
/// let text = mobula::util::reduce(words, |left, right| join::remote(left, right));
/// assert_eq!(text.expect("there are words").get()?, "to be or not to be");
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// If a call fails, so do those that depend on it, and the last one.
pub fn reduce<T>(
    refs: impl IntoIterator<Item = impl IntoRef<T>>,
    mut combine: impl FnMut(ObjectRef<T>, ObjectRef<T>) -> ObjectRef<T>,
) -> Option<ObjectRef<T>> {
    // As in a binary number, there is at most one of each level, and the highest is the first.
    let mut levels: Vec<(u32, ObjectRef<T>)> = Vec::new();
    for reference in refs {
        let (mut level, mut right) = (0, reference.into_ref());
        while let Some((_, left)) = levels.pop_if(|(other, _)| *other == level) {
            (level, right) = (level + 1, combine(left, right));
        }
        levels.push((level, right));
    }
    levels.into_iter().map(|(_, reference)| reference).rev().reduce(|right, left| combine(left, right))
}
