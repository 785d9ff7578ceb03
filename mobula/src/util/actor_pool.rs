//! Calls that go to any idle actor of several.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::time::Duration;

use mobula_runtime::{Error, Failure, Result, UtilFailure};
use serde::de::DeserializeOwned;

use crate::actor::{Actor, ActorHandle};
use crate::object_ref::{ObjectRef, runtime};

/// [`PoolMap`] makes at most this many calls for each actor whose results are not taken. So a fast actor can continue
/// while a slow one still has the next result.
const AHEAD: usize = 4;

type Call<A, T> = Box<dyn FnOnce(&ActorHandle<A>) -> ObjectRef<T> + Send>;

/// Actors of one class that share calls: each call goes to one that is idle. All their results have one type.
///
/// [`map`](Self::map) and [`map_unordered`](Self::map_unordered) make a call for each of many values.
/// [`submit`](Self::submit) makes one, and [`next`](Self::next) or [`next_unordered`](Self::next_unordered) waits for a
/// result.
///
/// An actor that has died and is not restarted gets no more calls. When all have died, the remaining calls fail with
/// [`Failure::ActorDied`](crate::Failure::ActorDied).
///
/// ```
/// use mobula::prelude::*;
/// use mobula::util::ActorPool;
///
/// struct Model {
///     weight: f64,
/// }
///
/// #[remote]
/// impl Model {
///     fn new() -> Self {
///         Model { weight: 0.5 } // large, and slow to load: once for each actor
///     }
///     fn predict(&self, x: f64) -> f64 {
///         self.weight * x
///     }
/// }
///
/// let _mobula = init()?;
/// let mut pool = ActorPool::new((0..2).map(|_| Model::remote()));
/// let predictions: Vec<f64> =
///     pool.map(0..100, |model, x| model.predict(f64::from(x))).collect::<Result<_>>()?;
/// assert_eq!(predictions[10], 5.0);
/// # Ok::<(), mobula::Error>(())
/// ```
pub struct ActorPool<A: Actor, T> {
    idle: VecDeque<ActorHandle<A>>,
    /// The number of actors that are idle or have a call, and have not died.
    actors: usize,
    /// An actor that has died: it gets the calls when there is no other.
    dead: Option<ActorHandle<A>>,
    /// Calls that were made and whose results were not taken, in their order.
    made: VecDeque<Made<A, T>>,
    /// Calls that wait for an idle actor.
    waiting: VecDeque<Call<A, T>>,
}

struct Made<A: Actor, T> {
    /// The actor, while it has the call.
    actor: Option<ActorHandle<A>>,
    result: ObjectRef<T>,
    is_wanted: bool,
}

impl<A: Actor, T> ActorPool<A, T> {
    /// A pool of these actors.
    ///
    /// ```
    /// use mobula::prelude::*;
    /// use mobula::util::ActorPool;
    ///
    /// struct Doubler;
    ///
    /// #[remote]
    /// impl Doubler {
    ///     fn new() -> Self {
    ///         Doubler
    ///     }
    ///     fn double(&self, x: u64) -> u64 {
    ///         2 * x
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// let mut pool = ActorPool::new((0..2).map(|_| Doubler::remote()));
    /// let doubled: Vec<u64> = pool.map(0..10, |doubler, x| doubler.double(x)).collect::<Result<_>>()?;
    /// assert_eq!(doubled[9], 18);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn new(actors: impl IntoIterator<Item = ActorHandle<A>>) -> Self {
        let idle: VecDeque<_> = actors.into_iter().collect();
        let actors = idle.len();
        Self { idle, actors, dead: None, made: VecDeque::new(), waiting: VecDeque::new() }
    }

    /// Makes a call: at once if an actor is idle, otherwise when one is idle, which the pool notices when a result is
    /// taken.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// let _mobula = init()?;
    /// let mut pool = ActorPool::new([Doubler::remote()]);
    /// pool.submit(|doubler| doubler.double(1));
    /// pool.submit(|doubler| doubler.double(2)); // behind the first one
    /// assert_eq!(pool.next().expect("there are two")?, 2);
    /// assert_eq!(pool.next().expect("there is another")?, 4);
    /// assert!(pool.next().is_none());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn submit(&mut self, call: impl FnOnce(&ActorHandle<A>) -> ObjectRef<T> + Send + 'static) {
        self.waiting.push_back(Box::new(call));
        self.make_calls();
    }

    /// Adds an actor, which is idle.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// let _mobula = init()?;
    /// let mut pool = ActorPool::new([]);
    /// pool.submit(|doubler: &ActorHandle<Doubler>| doubler.double(1)); // waits
    /// pool.push(Doubler::remote());
    /// assert_eq!(pool.next().expect("there is one")?, 2);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn push(&mut self, actor: ActorHandle<A>) {
        self.idle.push_back(actor);
        self.actors += 1;
        self.make_calls();
    }

    /// Takes an idle actor out of the pool; `None` if all have calls.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// let _mobula = init()?;
    /// let mut pool: ActorPool<Doubler, u64> = ActorPool::new([Doubler::remote()]);
    /// let doubler = pool.pop_idle().expect("it is idle");
    /// assert_eq!(doubler.double(4).get()?, 8);
    /// assert!(pool.pop_idle().is_none());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn pop_idle(&mut self) -> Option<ActorHandle<A>> {
        self.look();
        let actor = self.idle.pop_front()?;
        self.actors -= 1;
        Some(actor)
    }

    /// Whether an actor is idle, so that a call would begin at once.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// let _mobula = init()?;
    /// let mut pool: ActorPool<Doubler, u64> = ActorPool::new([Doubler::remote()]);
    /// assert!(pool.has_idle());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn has_idle(&mut self) -> bool {
        self.look();
        !self.idle.is_empty()
    }

    /// The number of calls that were submitted and whose results were not taken.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// let _mobula = init()?;
    /// let mut pool = ActorPool::new([Doubler::remote()]);
    /// pool.submit(|doubler| doubler.double(1));
    /// assert_eq!(pool.pending(), 1);
    /// # pool.next();
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn pending(&self) -> usize {
        self.made.iter().filter(|made| made.is_wanted).count() + self.waiting.len()
    }

    // ---- actors ----

    /// Receives the results that have come, and sees which actors are idle.
    fn look(&mut self) {
        // An error is the result of each call.
        let _ = self.wait(Some(Duration::ZERO));
        self.see_ready();
    }

    /// Actors whose calls are over are idle again, and get the calls that wait.
    fn see_ready(&mut self) {
        let Ok(runtime) = runtime() else { return };
        for made in &mut self.made {
            let Some(actor) = made.actor.take_if(|_| made.result.is_ready()) else { continue };
            match made.result.to.resolve(runtime.client()).err() {
                Some(Failure::ActorDied { .. }) => (self.dead, self.actors) = (Some(actor), self.actors - 1),
                _ => self.idle.push_back(actor),
            }
        }
        self.made.retain(|made| made.is_wanted || made.actor.is_some());
        self.make_calls();
    }

    fn make_calls(&mut self) {
        while !self.waiting.is_empty() {
            let Some(actor) = self.take_idle() else { return };
            let Some(call) = self.waiting.pop_front() else { return };
            let result = call(&actor);
            self.made.push_back(Made { actor: Some(actor), result, is_wanted: true });
        }
    }

    /// An actor for the next call: an idle one, or one that has died if there is no other.
    fn take_idle(&mut self) -> Option<ActorHandle<A>> {
        if let Some(actor) = self.idle.pop_front() {
            return Some(actor);
        }
        let dead = self.dead.take_if(|_| self.actors == 0)?;
        // It is counted like another one, until its call has failed.
        self.actors += 1;
        Some(dead)
    }

    /// Whether an actor can have a call now.
    fn has_actor(&self) -> bool {
        !self.idle.is_empty() || self.actors == 0 && self.dead.is_some()
    }

    // ---- results ----

    /// The position of the result that is next, if it is there.
    fn ready(&self, is_ordered: bool) -> Option<usize> {
        let mut wanted = self.made.iter().enumerate().filter(|(_, made)| made.is_wanted);
        let is_ready = |(_, made): &(usize, &Made<A, T>)| made.result.is_ready();
        let ready = if is_ordered { wanted.next().filter(is_ready) } else { wanted.find(is_ready) };
        ready.map(|(position, _)| position)
    }

    /// Waits until another call is over; `false` when there is none.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let under_way = self.made.iter().filter(|made| made.actor.is_some()).map(|made| &made.result);
        let under_way: Vec<_> = under_way.cloned().collect();
        if under_way.is_empty() {
            return Ok(false);
        }
        let (ready, _) = crate::wait(under_way, 1, timeout)?;
        match timeout {
            Some(waited) if ready.is_empty() => Err(Error::Timeout { waited, ready: 0, wanted: 1 }),
            _ => Ok(true),
        }
    }

    /// Drops the calls so far: their results are not wanted. Those that have not begun are not made.
    fn abandon(&mut self) {
        self.waiting.clear();
        for made in &mut self.made {
            made.is_wanted = false;
        }
        self.see_ready();
    }
}

impl<A: Actor, T: DeserializeOwned> ActorPool<A, T> {
    /// Waits for the result of the call that was submitted first; `None` if there is no call.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// let _mobula = init()?;
    /// let mut pool = ActorPool::new([Doubler::remote(), Doubler::remote()]);
    /// (0..10).for_each(|x| pool.submit(move |doubler| doubler.double(x)));
    /// for x in 0..10 {
    ///     assert_eq!(pool.next().expect("there are ten")?, 2 * x);
    /// }
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[expect(clippy::should_implement_trait, reason = "another call after the last one goes on with it")]
    pub fn next(&mut self) -> Option<Result<T>> {
        self.take(true, None)
    }

    /// Waits for the result of the call that is over first; `None` if there is no call.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// let _mobula = init()?;
    /// let mut pool = ActorPool::new([Doubler::remote(), Doubler::remote()]);
    /// (0..10).for_each(|x| pool.submit(move |doubler| doubler.double(x)));
    /// let mut sum = 0;
    /// while let Some(doubled) = pool.next_unordered() {
    ///     sum += doubled?;
    /// }
    /// assert_eq!(sum, 90);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn next_unordered(&mut self) -> Option<Result<T>> {
        self.take(false, None)
    }

    /// Waits for the next result like [`next`](Self::next), with a timeout. After
    /// [`Error::Timeout`](crate::Error::Timeout) the call continues, and a later call can wait for its result.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// use std::time::Duration;
    ///
    /// let _mobula = init()?;
    /// let mut pool = ActorPool::new([Doubler::remote()]);
    /// pool.submit(|doubler| doubler.double(1));
    /// let doubled = pool.next_timeout(Duration::from_secs(60)).expect("there is one");
    /// assert_eq!(doubled?, 2);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<T>> {
        self.take(true, Some(timeout))
    }

    fn take(&mut self, is_ordered: bool, timeout: Option<Duration>) -> Option<Result<T>> {
        let began = std::time::Instant::now();
        loop {
            self.see_ready();
            if let Some(position) = self.ready(is_ordered) {
                return Some(self.made.remove(position)?.result.get());
            }
            let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
            match self.wait(left) {
                Ok(true) => {}
                Ok(false) if self.waiting.is_empty() => return None,
                Ok(false) => return Some(Err(no_actors())),
                Err(Error::Timeout { ready, wanted, .. }) => {
                    let waited = timeout.unwrap_or_default();
                    return Some(Err(Error::Timeout { waited, ready, wanted }));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Makes a call for each value, and returns the results in the order of the values. Calls are made as results are
    /// taken, so only few calls are ahead, even with many values. A call that fails is an error among the results, and
    /// the others continue.
    ///
    /// Results of calls that were submitted before, and those that are not taken before the iterator is dropped, are
    /// left out.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// let _mobula = init()?;
    /// let mut pool = ActorPool::new([Doubler::remote(), Doubler::remote()]);
    /// let doubled: Vec<u64> = pool.map(0..10, |doubler, x| doubler.double(x)).collect::<Result<_>>()?;
    /// assert!(doubled.into_iter().eq((0..10).map(|x| 2 * x)));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn map<I, F>(&mut self, values: I, call: F) -> PoolMap<'_, A, T, I::IntoIter, F>
    where
        I: IntoIterator,
        F: FnMut(&ActorHandle<A>, I::Item) -> ObjectRef<T>,
    {
        self.abandon();
        PoolMap { pool: self, values: values.into_iter(), call, is_ordered: true, has_values: true }
    }

    /// Calls the actors like [`map`](Self::map), and gives the results as the calls end.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// # use mobula::util::ActorPool;
    /// # struct Doubler;
    /// # #[remote]
    /// # impl Doubler {
    /// #     fn new() -> Self {
    /// #         Doubler
    /// #     }
    /// #     fn double(&self, x: u64) -> u64 {
    /// #         2 * x
    /// #     }
    /// # }
    /// let _mobula = init()?;
    /// let mut pool = ActorPool::new([Doubler::remote(), Doubler::remote()]);
    /// let doubled = pool.map_unordered(0..10, |doubler, x| doubler.double(x));
    /// assert_eq!(doubled.sum::<Result<u64>>()?, 90);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn map_unordered<I, F>(&mut self, values: I, call: F) -> PoolMap<'_, A, T, I::IntoIter, F>
    where
        I: IntoIterator,
        F: FnMut(&ActorHandle<A>, I::Item) -> ObjectRef<T>,
    {
        let mut map = self.map(values, call);
        map.is_ordered = false;
        map
    }
}

fn no_actors() -> Error {
    Failure::Util(UtilFailure::PoolEmpty).into()
}

impl<A: Actor, T> fmt::Debug for ActorPool<A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorPool").field("actors", &self.actors).field("pending", &self.pending()).finish()
    }
}

/// The results of a call for each value; see [`ActorPool::map`].
///
/// ```
/// use mobula::prelude::*;
/// use mobula::util::{ActorPool, PoolMap};
///
/// struct Doubler;
///
/// #[remote]
/// impl Doubler {
///     fn new() -> Self {
///         Doubler
///     }
///     fn double(&self, x: u64) -> u64 {
///         2 * x
///     }
/// }
///
/// let _mobula = init()?;
/// let mut pool = ActorPool::new([Doubler::remote()]);
/// let mut doubled: PoolMap<'_, _, u64, _, _> = pool.map(1.., |doubler, x| doubler.double(x));
/// assert_eq!(doubled.next().expect("it has no end")?, 2);
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "no call is made before a result is taken"]
pub struct PoolMap<'a, A: Actor, T, I, F>
where
    T: DeserializeOwned,
{
    pool: &'a mut ActorPool<A, T>,
    values: I,
    call: F,
    is_ordered: bool,
    has_values: bool,
}

impl<A, T, I, F> PoolMap<'_, A, T, I, F>
where
    A: Actor,
    T: DeserializeOwned,
    I: Iterator,
    F: FnMut(&ActorHandle<A>, I::Item) -> ObjectRef<T>,
{
    /// Gives idle actors calls.
    fn fill(&mut self) {
        let pool = &mut *self.pool;
        pool.see_ready();
        while self.has_values && pool.made.len() < AHEAD * pool.actors.max(1) && pool.has_actor() {
            let Some(value) = self.values.next() else {
                self.has_values = false;
                return;
            };
            let Some(actor) = pool.take_idle() else { return };
            let result = (self.call)(&actor, value);
            pool.made.push_back(Made { actor: Some(actor), result, is_wanted: true });
        }
    }
}

impl<A, T, I, F> Iterator for PoolMap<'_, A, T, I, F>
where
    A: Actor,
    T: DeserializeOwned,
    I: Iterator,
    F: FnMut(&ActorHandle<A>, I::Item) -> ObjectRef<T>,
{
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            self.fill();
            if let Some(position) = self.pool.ready(self.is_ordered) {
                return Some(self.pool.made.remove(position)?.result.get());
            }
            match self.pool.wait(None) {
                Ok(true) => {}
                Ok(false) if !self.has_values => return None,
                waited => {
                    // There is no actor, or no session: no call can follow.
                    self.has_values = false;
                    return Some(Err(waited.err().unwrap_or_else(no_actors)));
                }
            }
        }
    }
}

impl<A, T, I, F> FusedIterator for PoolMap<'_, A, T, I, F>
where
    A: Actor,
    T: DeserializeOwned,
    I: FusedIterator,
    F: FnMut(&ActorHandle<A>, I::Item) -> ObjectRef<T>,
{
}

impl<A: Actor, T: DeserializeOwned, I, F> Drop for PoolMap<'_, A, T, I, F> {
    fn drop(&mut self) {
        self.pool.abandon();
    }
}

impl<A: Actor, T: DeserializeOwned, I, F> fmt::Debug for PoolMap<'_, A, T, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolMap").field("pool", &self.pool).finish_non_exhaustive()
    }
}
