//! A call for each item of an iterator, and their results.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;

use mobula_runtime::Result;
use serde::de::DeserializeOwned;

use super::progress::Progress;
use crate::object_ref::{ObjectRef, runtime};

/// The default number of calls in flight for each CPU of the session, and the least default.
const IN_FLIGHT_PER_CPU: usize = 16;
const IN_FLIGHT_MIN: usize = 32;

/// Makes a call for each item, and returns the results as they come: an iterator of them, in the order of the items.
///
/// Calls are made as results are taken, so that only a bounded number is [in flight](Map::in_flight), even with many
/// items. When a result is taken, the next call is made. `items` can be any iterator, also one without an end; `call`
/// makes one call of any function, or of an actor's method.
///
/// The first error ends the iterator: it is the last result, and calls that are in flight are cancelled. So are those
/// of an iterator that is dropped before its end.
///
/// ```
/// use mobula::prelude::*;
///
/// #[remote]
/// fn length(line: String) -> usize {
///     line.len()
/// }
///
/// let _mobula = init()?;
/// let text = "one line\nand another\n";
/// let lengths = mobula::map(text.lines(), |line| length::remote(line.to_owned()));
/// assert_eq!(lengths.collect::<Result<Vec<_>>>()?, [8, 11]);
/// # Ok::<(), mobula::Error>(())
/// ```
pub fn map<I, T, F>(items: I, call: F) -> Map<I::IntoIter, F, T>
where
    I: IntoIterator,
    F: FnMut(I::Item) -> ObjectRef<T>,
{
    Map {
        items: items.into_iter(),
        call,
        in_flight_max: None,
        in_flight: VecDeque::new(),
        is_ordered: true,
        has_items: true,
        progress: None,
    }
}

/// The results of a call for each item; see [`map`].
///
/// ```
/// use mobula::prelude::*;
/// use mobula::{map, util::Map};
///
/// #[remote]
/// fn double(x: u64) -> u64 {
///     2 * x
/// }
///
/// let _mobula = init()?;
/// let mut doubled: Map<_, _, u64> = map(1.., |x| double::remote(x));
/// assert_eq!(doubled.next().expect("it has no end")?, 2);
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "no call is made before a result is taken"]
pub struct Map<I, F, T> {
    items: I,
    call: F,
    in_flight_max: Option<usize>,
    /// Calls whose results were not taken, in the order of the items.
    in_flight: VecDeque<ObjectRef<T>>,
    is_ordered: bool,
    /// There may be more items, and a call is made for them.
    has_items: bool,
    progress: Option<Progress>,
}

impl<I: Iterator, F, T> Map<I, F, T> {
    /// Sets the most calls that are made and whose results are not taken. Default: 16 for each CPU of the session, and
    /// at least 32. Fewer are better for large results, and more for calls shorter than 10 microseconds.
    ///
    /// ```
    /// use mobula::prelude::*;
    ///
    /// #[remote]
    /// fn frame(number: usize) -> Vec<u8> {
    ///     vec![number as u8; 1 << 20]
    /// }
    ///
    /// let _mobula = init()?;
    /// // At most four frames are in memory.
    /// for (number, frame) in mobula::map(0..20, |n| frame::remote(n)).in_flight(4).enumerate() {
    ///     assert_eq!(frame?[0], number as u8);
    /// }
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Panics
    /// If `calls` is zero.
    pub fn in_flight(mut self, calls: usize) -> Self {
        assert!(calls > 0, "`in_flight` is a number of calls from 1 on: with none there are no results");
        self.in_flight_max = Some(calls);
        self
    }

    /// Returns the results as the calls end, and not in the order of the items. So no result waits for an earlier item.
    ///
    /// ```
    /// use mobula::prelude::*;
    ///
    /// #[remote]
    /// fn double(x: u64) -> u64 {
    ///     2 * x
    /// }
    ///
    /// let _mobula = init()?;
    /// let mut doubled: Vec<u64> =
    ///     mobula::map(0..100, |x| double::remote(x)).unordered().collect::<Result<_>>()?;
    /// doubled.sort();
    /// assert!(doubled.into_iter().eq((0..100).map(|x| 2 * x)));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn unordered(mut self) -> Self {
        self.is_ordered = false;
        self
    }

    /// Shows on standard error how many results there are, if that is a terminal: `frames 450/1000, 45 %, 123.4/s, 4 s
    /// left`. The total is there if `items` know it exactly.
    ///
    /// ```
    /// use mobula::prelude::*;
    ///
    /// #[remote]
    /// fn render(frame: u64) -> u64 {
    ///     frame
    /// }
    ///
    /// let _mobula = init()?;
    /// let frames = mobula::map(0..100, |frame| render::remote(frame)).progress("frames");
    /// assert_eq!(frames.count(), 100);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn progress(mut self, what: impl Into<String>) -> Self {
        let total = match self.items.size_hint() {
            (least, Some(most)) if least == most => Some(least as u64),
            _ => None,
        };
        self.progress = Progress::on_terminal(what.into(), total);
        self
    }
}

impl<I, F, T> Map<I, F, T> {
    /// Makes no more calls, and cancels those in flight.
    fn end(&mut self) {
        self.has_items = false;
        if let Some(progress) = self.progress.take() {
            progress.end();
        }
        if !self.in_flight.is_empty() {
            // If the session is over, so are the calls.
            let _ = crate::cancel(self.in_flight.drain(..));
        }
    }
}

impl<I: Iterator, T, F: FnMut(I::Item) -> ObjectRef<T>> Map<I, F, T> {
    fn fill(&mut self) {
        let max = *self.in_flight_max.get_or_insert_with(default_in_flight);
        while self.has_items && self.in_flight.len() < max {
            match self.items.next() {
                Some(item) => self.in_flight.push_back((self.call)(item)),
                None => self.has_items = false,
            }
        }
    }

    /// Removes the call whose result is next.
    fn take_next(&mut self) -> Option<ObjectRef<T>> {
        if self.is_ordered || self.in_flight.is_empty() {
            return self.in_flight.pop_front();
        }
        let refs = self.in_flight.make_contiguous();
        if let Ok(runtime) = runtime() {
            // An error is the result of each call.
            let _ = mobula_runtime::wait_any(&runtime, refs);
        }
        let ready = refs.iter().position(ObjectRef::is_ready).unwrap_or(0);
        self.in_flight.remove(ready)
    }
}

fn default_in_flight() -> usize {
    let cpus = crate::cluster_resources().map_or(0.0, |resources| resources.num_cpus());
    (IN_FLIGHT_PER_CPU * cpus.ceil() as usize).max(IN_FLIGHT_MIN)
}

impl<I, T, F> Iterator for Map<I, F, T>
where
    I: Iterator,
    T: DeserializeOwned,
    F: FnMut(I::Item) -> ObjectRef<T>,
{
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        self.fill();
        let Some(next) = self.take_next() else {
            self.end();
            return None;
        };
        let result = next.get();
        if result.is_err() {
            self.end();
        } else if let Some(progress) = &mut self.progress {
            progress.one_more();
        }
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (_, most) = if self.has_items { self.items.size_hint() } else { (0, Some(0)) };
        // It may end early, with an error.
        let least = usize::from(!self.in_flight.is_empty());
        (least, most.and_then(|most| most.checked_add(self.in_flight.len())))
    }
}

impl<I, T, F> FusedIterator for Map<I, F, T>
where
    I: Iterator,
    T: DeserializeOwned,
    F: FnMut(I::Item) -> ObjectRef<T>,
{
}

impl<I, F, T> Drop for Map<I, F, T> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<I, F, T> fmt::Debug for Map<I, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("in_flight", &self.in_flight.len())
            .field("is_ordered", &self.is_ordered)
            .finish_non_exhaustive()
    }
}
