//! Marks and spans that a program records in the timeline.

use mobula_client::internal::clock;

use crate::record;
use crate::runtime::current;

/// Records a mark with a number, such as a position in the program's work, to be found in the timeline of the session
/// and in the postmortem of a process. Does nothing where there is no session. Takes a lock for a moment; no message.
///
/// ```
/// let _mobula = mobula::init()?;
/// for epoch in 0..3 {
///     mobula::mark("epoch", epoch);
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
pub fn mark(name: &str, value: i64) {
    if let Ok(runtime) = current::runtime() {
        record::mark(&runtime.client, name, value);
    }
}

/// Begins a span: a part of the program's time that has a name in the timeline. It ends when the returned guard is
/// dropped.
///
/// ```
/// let _mobula = mobula::init()?;
/// {
///     let _span = mobula::span("load");
///     // The work that the timeline shows as `load`.
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
pub fn span(name: impl Into<String>) -> SpanGuard {
    SpanGuard { name: name.into(), since: clock::ticks() }
}

/// A part of a program's time that has a name, from [`span`] on. It ends, and is recorded, when this is dropped.
///
/// ```
/// # let _mobula = mobula::init()?;
/// let whole: mobula::SpanGuard = mobula::span("whole");
/// drop(whole);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the span ends when this is dropped: bind it, as in `let _span = mobula::span(\"load\")`"]
pub struct SpanGuard {
    name: String,
    since: u64,
}

impl Drop for SpanGuard {
    fn drop(&mut self) {
        if let Ok(runtime) = current::runtime() {
            record::span(&runtime.client, &self.name, self.since);
        }
    }
}
