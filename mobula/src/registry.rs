//! The functions and actor classes that this program can run remotely: the macros registered them at link time.
//!
//! Functions go over the wire as a hash of their name. That is safe because driver and workers are one program: a
//! worker proves with [`fingerprint`] that it is the same build before it serves.

use std::any::Any;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mobula_runtime::{Definition, Failure, Key, Name, TaskError, TaskErrorKind, UNLIMITED};
use rustc_hash::FxHashMap;

use crate::host::lanes::Access;
use crate::invocation::Arguments;

/// All remote functions of the program.
#[linkme::distributed_slice]
pub static FUNCTIONS: [Function];

/// All actor classes of the program.
#[linkme::distributed_slice]
pub static CLASSES: [Class];

/// All functions of the program that run in each worker before its first call.
#[linkme::distributed_slice]
pub static WORKER_INITS: [WorkerInit];

/// The key that identifies a registered function: its name, and its place in the program, because functions in
/// different bodies may share a name.
const PLACE: u64 = 0x9e37_79b9_7f4a_7c15;

fn placed(name: u64, place: usize) -> Key {
    Key::from_bits(name ^ offset(place).wrapping_mul(PLACE))
}

/// FNV-1a (Fowler, Noll, Vo) of the name.
const fn hash_of(name: &str) -> u64 {
    let (bytes, mut hash, mut i) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325u64, 0);
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

/// A registered remote function.
#[derive(Debug)]
pub struct Function {
    pub(crate) name: &'static str,
    named: u64,
    pub(crate) run: fn(&mut Arguments<'_, '_>) -> Outcome,
    /// How often one worker runs it.
    max_calls: u32,
    /// The name by which programs of other languages call it.
    export: Option<&'static str>,
}

impl Function {
    /// Made by the macro.
    pub const fn new(name: &'static str, run: fn(&mut Arguments<'_, '_>) -> Outcome) -> Self {
        Self { name, named: hash_of(name), run, max_calls: UNLIMITED, export: None }
    }

    /// Adds a limit for the calls that one worker runs.
    pub const fn max_calls(self, max_calls: u32) -> Self {
        Self { max_calls, ..self }
    }

    /// Exports it under a name, for callers in other languages too.
    pub const fn export(self, name: &'static str) -> Self {
        Self { export: Some(name), ..self }
    }

    pub(crate) fn key(&self) -> Key {
        placed(self.named, self.run as *const () as usize)
    }

    /// The function as the core knows it.
    pub(crate) fn definition(&self) -> Definition {
        Definition { key: self.key(), name: Name::Static(self.name) }
    }
}

/// A function that runs in each worker before its first call.
#[derive(Debug)]
pub struct WorkerInit {
    pub(crate) name: &'static str,
    pub(crate) run: fn() -> Outcome,
}

impl WorkerInit {
    /// Made by the macro.
    pub const fn new(name: &'static str, run: fn() -> Outcome) -> Self {
        Self { name, run }
    }
}

/// The default number of calls that a worker runs of a function with this demand of GPUs.
pub const fn max_calls_with_gpus(gpus: f64) -> u32 {
    if gpus > 0.0 { 1 } else { UNLIMITED }
}

/// Whether a function has run, and its results were given as the caller wants them.
pub type Outcome = Result<(), Failure>;

/// The result of a constructor: the actor's state.
pub type Construction = Result<Box<dyn Any>, Failure>;

/// The state of an actor with several calls at a time, which threads share.
pub type SharedState = dyn Any + Send + Sync;

/// The result of such an actor's constructor.
pub type SharedConstruction = Result<Box<SharedState>, Failure>;

/// A registered actor class.
#[derive(Debug)]
pub struct Class {
    pub(crate) name: &'static str,
    named: u64,
    pub(crate) construct: Constructor,
    pub(crate) methods: &'static [Method],
    /// Some methods answer through a [`Reply`](crate::Reply).
    pub(crate) has_replies: bool,
    /// The name by which programs of other languages create it.
    export: Option<&'static str>,
    /// A call does not wait for earlier ones whose arguments are not there.
    pub(crate) allow_out_of_order: bool,
    /// Runs when a process that has called the actor is gone.
    pub(crate) caller_gone: Option<CallerGone>,
}

/// The method of an actor that is called for each caller that is gone.
pub(crate) type CallerGone = fn(&mut dyn Any, crate::Caller);

/// How the state of an actor is made, and how many of its calls run at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Constructor {
    OneAtATime(fn(&mut Arguments<'_, '_>) -> Construction),
    Concurrent(fn(&mut Arguments<'_, '_>) -> SharedConstruction, Concurrency),
}

/// How many calls of an actor run at a time.
#[derive(Debug, Clone, Copy)]
pub struct Concurrency {
    /// Outside all groups. `None`: the default for the kind of method.
    pub max: Option<u32>,
    /// In each group, by its name.
    pub groups: &'static [(&'static str, u32)],
}

impl Class {
    /// Made by the macro.
    pub const fn new(
        name: &'static str,
        construct: fn(&mut Arguments<'_, '_>) -> Construction,
        methods: &'static [Method],
    ) -> Self {
        Self::made_by(name, Constructor::OneAtATime(construct), methods)
    }

    /// Made by the macro, for actors with several calls at a time.
    pub const fn concurrent(
        name: &'static str,
        construct: fn(&mut Arguments<'_, '_>) -> SharedConstruction,
        methods: &'static [Method],
        concurrency: Concurrency,
    ) -> Self {
        Self::made_by(name, Constructor::Concurrent(construct, concurrency), methods)
    }

    const fn made_by(name: &'static str, construct: Constructor, methods: &'static [Method]) -> Self {
        let named = hash_of(name);
        let (has_replies, allow_out_of_order, export) = (false, false, None);
        let caller_gone = None;
        Self { name, named, construct, methods, has_replies, allow_out_of_order, export, caller_gone }
    }

    /// Adds methods that answer later.
    pub const fn with_replies(self) -> Self {
        Self { has_replies: true, ..self }
    }

    /// Adds a method that is called for each caller that is gone.
    pub const fn with_caller_gone(self, caller_gone: CallerGone) -> Self {
        Self { caller_gone: Some(caller_gone), ..self }
    }

    /// Exports it under a name, for callers in other languages too.
    pub const fn export(self, name: &'static str) -> Self {
        Self { export: Some(name), ..self }
    }

    /// Lets a call run before earlier ones whose arguments are not there.
    pub const fn allow_out_of_order(self) -> Self {
        Self { allow_out_of_order: true, ..self }
    }

    /// Whether several calls may run at a time.
    pub(crate) fn is_concurrent(&self) -> bool {
        matches!(self.construct, Constructor::Concurrent(..))
    }

    /// The number of concurrency groups.
    pub(crate) fn groups(&self) -> usize {
        match self.construct {
            Constructor::OneAtATime(_) => 0,
            Constructor::Concurrent(_, concurrency) => concurrency.groups.len(),
        }
    }

    /// Whether calls of some methods are futures.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_futures(&self) -> bool {
        self.methods.iter().any(|method| method.call.is_future())
    }

    pub(crate) fn key(&self) -> Key {
        let place = match self.construct {
            Constructor::OneAtATime(construct) => construct as *const () as usize,
            Constructor::Concurrent(construct, _) => construct as *const () as usize,
        };
        placed(self.named, place)
    }

    /// The method of this name, for a caller in another language.
    ///
    /// # Errors
    /// The class has none.
    pub(crate) fn method(&self, name: &str) -> Result<&'static Method, Failure> {
        self.methods.iter().find(|method| method.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.methods.iter().map(|method| method.name).collect();
            let message = format!("{} has no method {name:?}: it has {}", self.name, names.join(", "));
            TaskError::new(&format!("{}::{name}", self.name), TaskErrorKind::NotCalled, message).into()
        })
    }

    /// The class as the core knows it.
    pub(crate) fn definition(&self) -> Definition {
        Definition { key: self.key(), name: Name::Static(self.name) }
    }
}

/// A method of an actor class.
#[derive(Debug)]
pub struct Method {
    pub(crate) name: &'static str,
    pub(crate) call: Calling,
    /// Its concurrency group, from 1 on; 0: none.
    group: usize,
}

/// How a method is called.
#[derive(Debug, Clone, Copy)]
pub enum Calling {
    /// In an actor with one call at a time.
    OneAtATime(fn(&mut dyn Any, &mut Arguments<'_, '_>) -> Outcome),
    /// With `&self`, on a thread.
    Beside(fn(&SharedState, &mut Arguments<'_, '_>) -> Outcome),
    /// With `&mut self`, on a thread.
    Alone(fn(&mut SharedState, &mut Arguments<'_, '_>) -> Outcome),
    /// With `&self`, as a future.
    FutureBeside(for<'a> fn(&'a SharedState, &'a mut Arguments<'_, '_>) -> BoxedOutcome<'a>),
    /// With `&mut self`, as a future.
    FutureAlone(for<'a> fn(&'a mut SharedState, &'a mut Arguments<'_, '_>) -> BoxedOutcome<'a>),
}

/// The future of a call.
pub type BoxedOutcome<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

impl Calling {
    pub(crate) fn is_future(self) -> bool {
        matches!(self, Self::FutureBeside(_) | Self::FutureAlone(_))
    }

    fn address(self) -> usize {
        match self {
            Self::OneAtATime(call) => call as *const () as usize,
            Self::Beside(call) => call as *const () as usize,
            Self::Alone(call) => call as *const () as usize,
            Self::FutureBeside(call) => call as *const () as usize,
            Self::FutureAlone(call) => call as *const () as usize,
        }
    }
}

impl Method {
    /// Made by the macro.
    pub const fn new(name: &'static str, call: Calling) -> Self {
        Self { name, call, group: 0 }
    }

    /// Puts the method into a concurrency group, by its number from 1 on.
    pub const fn in_group(self, group: usize) -> Self {
        Self { group, ..self }
    }

    /// Each group has a lane for threads, and one for futures behind it.
    pub(crate) fn lane(&self) -> usize {
        2 * self.group + usize::from(self.call.is_future())
    }

    pub(crate) fn access(&self) -> Access {
        match self.call {
            Calling::Beside(_) | Calling::FutureBeside(_) => Access::Beside,
            Calling::OneAtATime(_) | Calling::Alone(_) | Calling::FutureAlone(_) => Access::Alone,
        }
    }
}

/// A function as a worker runs it.
pub(crate) struct Runnable {
    pub(crate) function: &'static Function,
    /// How often this process has run it, if there is a limit.
    calls: AtomicU32,
}

impl Runnable {
    /// Counts a call. Returns whether it is the last that this process may run.
    pub(crate) fn is_last_call(&self) -> bool {
        let max = self.function.max_calls;
        max != UNLIMITED && self.calls.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= max
    }
}

struct Registry {
    runnables: Vec<Runnable>,
    /// Positions among the runnables.
    functions: FxHashMap<Key, usize>,
    classes: FxHashMap<Key, (&'static Class, Caller)>,
}

/// The language of an actor's callers, which name methods in their own ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// This program: a method is a number.
    Rust,
    /// A program of another language: a method is a name, in front of the arguments.
    Other,
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let (mut functions, mut classes) = (FxHashMap::default(), FxHashMap::default());
        for (position, function) in FUNCTIONS.iter().enumerate() {
            functions.insert(function.key(), position);
            functions.extend(function.export.map(|name| (Key::exported(name), position)));
        }
        for class in CLASSES {
            classes.insert(class.key(), (class, Caller::Rust));
            classes.extend(class.export.map(|name| (Key::exported(name), (class, Caller::Other))));
        }
        let runnables = FUNCTIONS.iter().map(|function| Runnable { function, calls: AtomicU32::new(0) });
        Registry { runnables: runnables.collect(), functions, classes }
    })
}

pub(crate) fn function(key: Key) -> Option<&'static Runnable> {
    let Registry { runnables, functions, .. } = registry();
    functions.get(&key).map(|position| &runnables[*position])
}

/// The functions that run before the first call, in the order in which they run: that of their names.
pub(crate) fn worker_inits() -> Vec<&'static WorkerInit> {
    let mut inits: Vec<_> = WORKER_INITS.iter().collect();
    inits.sort_by_key(|init| init.name);
    inits
}

pub(crate) fn class(key: Key) -> Option<(&'static Class, Caller)> {
    registry().classes.get(&key).copied()
}

/// A number that two builds of a program (practically) never share: made from every registered name, and from where
/// the linker placed each function relative to this one.
///
/// Any change of code moves the code after it. Relative places do not depend on the address at which the program was
/// loaded.
pub(crate) fn fingerprint() -> u64 {
    let mut hash = hash_of(concat!(env!("CARGO_PKG_VERSION"), "/", module_path!()));
    let mut mix = |value: u64| hash = (hash ^ value).wrapping_mul(PLACE).rotate_left(29);
    for function in FUNCTIONS {
        mix(function.key().bits());
    }
    for init in WORKER_INITS {
        mix(hash_of(init.name) ^ offset(init.run as *const () as usize));
    }
    for class in CLASSES {
        mix(class.key().bits());
        class.methods.iter().for_each(|method| mix(offset(method.call.address())));
    }
    hash
}

/// Where in the program an address lies, wherever the program was loaded.
fn offset(address: usize) -> u64 {
    address.wrapping_sub(fingerprint as *const () as usize) as u64
}
