//! The answer to a call of a method, given later: by the method itself, by a later call, or by another thread.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;

use mobula_runtime::{Failure, TaskError, TaskErrorKind};

use crate::host::user_code::named;
use crate::invocation::{Arguments, EachEncoder};
use crate::portable::Portable;

/// The place of the answer to a call of an actor's method. A method that has an argument of this type answers through
/// it, and not by returning.
///
/// The call ends when the reply is given, by [`send`](Self::send), [`fail`](Self::fail) or
/// [`send_result`](Self::send_result). Until then the actor can keep it anywhere: in its state, with another thread, in
/// a future. The actor runs other calls meanwhile. So bounded queues, locks, barriers and rate limits need no polling.
///
/// ```
/// use std::collections::VecDeque;
/// use mobula::Reply;
/// use mobula::prelude::*;
///
/// #[derive(Default)]
/// struct Jobs {
///     jobs: VecDeque<String>,
///     waiting: VecDeque<Reply<String>>,
/// }
///
/// #[remote]
/// impl Jobs {
///     fn new() -> Self {
///         Self::default()
///     }
///     fn push(&mut self, job: String) {
///         // A consumer may have died, or cancelled its call, while it waited.
///         while let Some(reply) = self.waiting.pop_front() {
///             if reply.is_wanted() {
///                 return reply.send(job);
///             }
///         }
///         self.jobs.push_back(job);
///     }
///     /// Waits for a job, if there is none.
///     fn pop(&mut self, reply: Reply<String>) {
///         match self.jobs.pop_front() {
///             Some(job) => reply.send(job),
///             None => self.waiting.push_back(reply),
///         }
///     }
/// }
///
/// let _mobula = init()?;
/// let jobs = Jobs::remote();
/// let job: ObjectRef<String> = jobs.pop();
/// jobs.push("paint".to_owned());
/// assert_eq!(job.get()?, "paint");
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// The handle's method has no such argument, and returns an [`ObjectRef<T>`](crate::ObjectRef). The method itself
/// returns nothing. The macro knows the argument by its type's name, `Reply`, written with one generic argument.
///
/// # When it is dropped
///
/// A reply that is dropped without an answer ends the call with a [`TaskError`](crate::TaskError) of the kind
/// [`NotAnswered`](crate::TaskErrorKind::NotAnswered), which names class and method; after a panic of the method, with
/// one of the kind [`Panicked`](crate::TaskErrorKind::Panicked). The error of a call cannot be lost: when the actor
/// ends, its state is dropped, and so are the replies in it.
///
/// ```
/// use mobula::prelude::*;
/// use mobula::{Error, Reply, TaskErrorKind};
///
/// struct Careless;
///
/// #[remote]
/// impl Careless {
///     fn new() -> Self {
///         Careless
///     }
///     fn ask(&self, question: u32, _reply: Reply<u32>) {
///         println!("the answer to {question} is lost");
///     }
/// }
///
/// let _mobula = init()?;
/// let Err(Error::Task(error)) = Careless::remote().ask(6).get() else { panic!("there was no answer") };
/// assert_eq!(error.kind, TaskErrorKind::NotAnswered);
/// assert!(error.function.ends_with("Careless::ask"));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Cost
///
/// A call that is answered later costs as much as another one, and a few small allocations in the actor's process.
#[must_use = "the call fails when its reply is dropped"]
pub struct Reply<T> {
    /// `None` once it is given.
    place: Option<Place>,
    of: PhantomData<fn(T)>,
}

/// Identifies a process that calls an actor; see [`Reply::caller`].
///
/// It is valid only within one process of the actor: after a restart of the actor, the same callers have other values.
///
/// ```
/// use std::collections::HashMap;
/// use mobula::Caller;
///
/// /// What each process has borrowed.
/// fn returned(loans: &mut HashMap<Caller, u32>, caller: Caller) -> u32 {
///     loans.remove(&caller).unwrap_or_default()
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller(pub(crate) u64);

struct Place {
    reply: mobula_runtime::Reply,
    /// `Class::method`, with its module.
    method: &'static str,
}

impl Place {
    fn finish(self, outcome: Result<(), Failure>) {
        self.reply.finish(outcome.map_err(|failure| named(self.method, failure)));
    }
}

impl<T: Portable> Reply<T> {
    /// Answers the call with a value. If the value cannot be encoded or stored, the caller gets the error.
    ///
    /// ```
    /// use mobula::Reply;
    /// use mobula::prelude::*;
    ///
    /// struct Tester;
    ///
    /// #[remote]
    /// impl Tester {
    ///     fn new() -> Self {
    ///         Tester
    ///     }
    ///     fn is_prime(&self, number: u64, reply: Reply<bool>) {
    ///         // Other calls are answered while this thread computes.
    ///         std::thread::spawn(move || reply.send((2..number).all(|divisor| number % divisor != 0)));
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// assert!(Tester::remote().is_prime(8191).get()?);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn send(mut self, value: T) {
        // If the encoding panics, the reply is dropped with its place.
        if let Some(place) = &mut self.place {
            let outcome = value.encode(&mut EachEncoder::of_reply(&mut place.reply));
            self.finish(outcome);
        }
    }

    /// Answers the call with a value or an error.
    ///
    /// ```
    /// use mobula::Reply;
    /// use mobula::prelude::*;
    ///
    /// struct Parser;
    ///
    /// #[remote]
    /// impl Parser {
    ///     fn new() -> Self {
    ///         Parser
    ///     }
    ///     fn parse(&self, text: String, reply: Reply<i64>) {
    ///         reply.send_result(text.parse::<i64>());
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// let parser = Parser::remote();
    /// assert_eq!(parser.parse("42".to_owned()).get()?, 42);
    /// assert!(parser.parse("forty-two".to_owned()).get().is_err());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn send_result<E: Into<Box<dyn Error + Send + Sync>>>(self, result: Result<T, E>) {
        match result {
            Ok(value) => self.send(value),
            Err(error) => self.fail(error),
        }
    }
}

impl<T> Reply<T> {
    /// Answers the call with an error: one with sources, or a text. The caller gets a
    /// [`TaskError`](crate::TaskError), as if the method had returned the error.
    ///
    /// ```
    /// use mobula::Reply;
    /// use mobula::prelude::*;
    ///
    /// struct Locked;
    ///
    /// #[remote]
    /// impl Locked {
    ///     fn new() -> Self {
    ///         Locked
    ///     }
    ///     fn open(&self, reply: Reply<()>) {
    ///         reply.fail("the door is locked");
    ///     }
    /// }
    ///
    /// let _mobula = init()?;
    /// let Err(mobula::Error::Task(error)) = Locked::remote().open().get() else { panic!("it is locked") };
    /// assert_eq!(error.message, "the door is locked");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn fail(mut self, error: impl Into<Box<dyn Error + Send + Sync>>) {
        let error = error.into();
        self.finish(Err(TaskError::returned(&error, Some(&*error)).into()));
    }

    /// Whether the caller still wants the answer: it has not cancelled the call, and its process is there. An answer
    /// that is not wanted is ignored. Two loads.
    ///
    /// ```
    /// # use mobula::Reply;
    /// /// Gives a permit to the first caller that still wants one.
    /// fn release(waiting: &mut Vec<Reply<()>>) {
    ///     waiting.retain(Reply::is_wanted);
    ///     if !waiting.is_empty() {
    ///         waiting.remove(0).send(());
    ///     }
    /// }
    /// ```
    pub fn is_wanted(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.reply.is_wanted())
    }

    /// The process that made the call. An actor with a method `#[remote(caller_gone)]` is told of the end of the
    /// process, and can give its locks or items to others.
    ///
    /// ```
    /// use mobula::prelude::*;
    /// use mobula::{Caller, Reply};
    ///
    /// /// One process at a time has the key, until it gives it back or dies.
    /// #[derive(Default)]
    /// struct Key {
    ///     owner: Option<Caller>,
    ///     waiting: Vec<Reply<()>>,
    /// }
    ///
    /// #[remote]
    /// impl Key {
    ///     fn new() -> Self {
    ///         Self::default()
    ///     }
    ///     fn take(&mut self, reply: Reply<()>) {
    ///         self.waiting.push(reply);
    ///         self.lend();
    ///     }
    ///     fn give_back(&mut self) {
    ///         self.owner = None;
    ///         self.lend();
    ///     }
    ///     #[remote(caller_gone)]
    ///     fn caller_gone(&mut self, caller: Caller) {
    ///         self.waiting.retain(|reply| reply.caller() != Some(caller));
    ///         if self.owner == Some(caller) {
    ///             self.give_back();
    ///         }
    ///     }
    ///     #[remote(local)]
    ///     fn lend(&mut self) {
    ///         if self.owner.is_none() && !self.waiting.is_empty() {
    ///             let reply = self.waiting.remove(0);
    ///             self.owner = reply.caller();
    ///             reply.send(());
    ///         }
    ///     }
    /// }
    ///
    /// #[remote]
    /// fn dies_with(key: ActorHandle<Key>) -> Result<()> {
    ///     key.take().get()?;
    ///     std::process::abort()
    /// }
    ///
    /// let _mobula = init()?;
    /// let key = Key::remote();
    /// let died = dies_with::options(mobula::TaskOptions::new().max_retries(0)).remote(key.clone());
    /// key.take().get()?; // at the latest when that process is gone
    /// # drop(died);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// `None` once the reply is sent.
    pub fn caller(&self) -> Option<Caller> {
        self.place.as_ref().map(|place| Caller(place.reply.caller()))
    }

    /// Waits as a future until the caller no longer wants the answer: one side of a `select!`.
    ///
    /// ```
    /// use mobula::Reply;
    ///
    /// # async fn request() -> u32 { 7 }
    /// async fn answer(reply: Reply<u32>) {
    ///     tokio::select! {
    ///         answer = request() => reply.send(answer),
    ///         () = reply.unwanted() => drop(reply),
    ///     }
    /// }
    /// ```
    pub fn unwanted(&self) -> impl Future<Output = ()> + use<'_, T> {
        poll_fn(|context| match &self.place {
            Some(place) => place.reply.poll_unwanted(context),
            None => std::task::Poll::Ready(()),
        })
    }

    fn finish(&mut self, outcome: Result<(), Failure>) {
        if let Some(place) = self.place.take() {
            place.finish(outcome);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        if std::thread::panicking() {
            return lose(place);
        }
        place.finish(Err(not_answered()));
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&self.place.as_ref().map(|place| place.method)).finish()
    }
}

/// The reply to a call of this method, which is about to run.
///
/// # Errors
/// When the answer of the call cannot be given later.
pub fn take_reply<T: Portable>(
    arguments: &mut Arguments<'_, '_>,
    method: &'static str,
) -> Result<Reply<T>, Failure> {
    let Some(reply) = arguments.reply() else {
        let message = "its answer cannot be given later".to_owned();
        return Err(TaskError::new("", TaskErrorKind::NotCalled, message).into());
    };
    Ok(Reply { place: Some(Place { reply, method }), of: PhantomData })
}

thread_local! {
    /// The replies that a panic has dropped while this thread runs a method. They are answered later, because the
    /// panic's text is known only after the unwinding.
    static LOST: RefCell<Option<Vec<Place>>> = const { RefCell::new(None) };
}

/// Runs a method, whose panic is caught and becomes a failure. The replies that the panic drops get the failure, too.
pub(crate) fn answering_panics(method: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let before = LOST.replace(Some(Vec::new()));
    let outcome = method();
    for place in LOST.replace(before).unwrap_or_default() {
        place.finish(Err(outcome.clone().err().unwrap_or_else(not_answered)));
    }
    outcome
}

fn lose(place: Place) {
    // A thread that is about to end has no list any more: then the place answers by itself when it is dropped.
    let not_lost = LOST.try_with(|lost| match &mut *lost.borrow_mut() {
        Some(lost) => {
            lost.push(place);
            None
        }
        None => Some(place),
    });
    if let Ok(Some(place)) = not_lost {
        place.finish(Err(not_answered()));
    }
}

fn not_answered() -> Failure {
    let message = "its reply was dropped without an answer".to_owned();
    TaskError::new("", TaskErrorKind::NotAnswered, message).into()
}
