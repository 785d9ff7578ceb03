//! The attribute `#[mobula::remote]`: makes a function callable in a worker process, and a type an actor.
//!
//! A macro can only see the text it stands on, so the work is split accordingly. This crate reads signatures. It
//! refuses everything that cannot cross a process boundary, with an error at the user's own tokens. It writes thin
//! glue: code that decodes arguments and hands results back, and typed `remote` functions that collect arguments.
//! Everything with a decision in it (encoding, scheduling, retries, the actors' processes) lives in the crate `mobula`,
//! behind the paths `mobula::__private::…`, which exist for this glue only.
//!
//! - `function`: the expansion for a function; `actor`: the expansion for an `impl` block;
//! - `worker_init`: the expansion of the other attribute, for a function that runs before the first call;
//! - `signature`: the shared part of both, arguments and return types;
//! - `options`: the options inside the attribute's parentheses.
//!
//! The output keeps its items in an anonymous constant, imports the crate `mobula` there under a name of its own, and
//! names everything else by absolute path. So it works in any module and any function body, with any names and imports
//! of the user's. It contains no unsafe code of its own.

mod actor;
mod function;
mod options;
mod signature;
mod worker_init;

use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as TokenStream2};
use quote::{ToTokens, quote};
use syn::{Error, Item, ItemFn};

/// Makes a function callable in a worker process, or a type an actor.
///
/// # On a function
///
/// ```
/// use mobula::prelude::*;
///
/// #[remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// let _mobula = init()?;
/// let nine = square(3); // a call as ever, in this process
/// assert_eq!(nine, 9);
/// let nine: ObjectRef<i64> = square::remote(3); // a call in a worker, returns at once
/// let eighty_one = square::remote(&nine); // an argument is a value or a reference to one
/// assert_eq!(eighty_one.get()?, 81);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// The function stays as it is. Beside it appears an empty type with the same name (types and functions do not get in
/// each other's way) and the same visibility, so `use` imports both at once. The type has these functions:
///
/// - `remote(…)` takes the function's arguments, each a value or an `ObjectRef` to one, and returns an `ObjectRef<T>`
///   for a function that returns `T` or `Result<T, E>`. An `Err` becomes an error of the result's `get`, with its text.
/// - `options(TaskOptions)` sets the options of one call: `square::options(options).remote(3)`.
/// - `num_returns(n)`, only where the function returns a `Vec<T>`: its elements become `n` objects of their own, and
///   `.remote(…)` returns a `Vec<ObjectRef<T>>`.
///
/// A dropped `ObjectRef` does not cancel its call, so a function may be called for its effect alone.
///
/// ```
/// use mobula::TaskOptions;
/// use mobula::prelude::*;
///
/// #[remote]
/// fn chunks(text: String) -> Vec<String> {
///     text.split(' ').map(str::to_owned).collect()
/// }
///
/// let _mobula = init()?;
/// let text = put(&"one two".to_owned())?;
/// let whole: ObjectRef<Vec<String>> = chunks::options(TaskOptions::new().max_retries(2)).remote(&text);
/// assert_eq!(whole.get()?.len(), 2);
/// let parts: Vec<ObjectRef<String>> = chunks::num_returns(2).remote(&text); // for two other calls, for example
/// assert_eq!(parts[1].get()?, "two");
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// The attribute takes these options:
///
/// - `#[remote(num_returns = 2)]`: the function returns a tuple of that many elements (or a `Result` of one), from 1 to
///   8, and each becomes an object of its own: `remote(…)` returns `(ObjectRef<A>, ObjectRef<B>)`.
/// - `#[remote(num_returns = dynamic)]`: the function returns a `Vec<T>` (or a `Result` of one), and the call an
///   `ObjectRef<Vec<ObjectRef<T>>>`: each element is an object of its own, however many there are.
/// - `#[remote(streaming)]`: the function returns an `impl Iterator<Item = T>`, and the call an `ObjectRefStream<T>`,
///   whose items come while the function runs. With `max_in_flight = 8` it is never more than 8 items ahead.
/// - `#[remote(max_retries = 3)]`: how often a call is retried when its worker dies, unless the call's own options say
///   otherwise: a number, or `unlimited`. Default: 0.
/// - `#[remote(retry_exceptions = true)]`, `#[remote(retry_delay = Duration::from_millis(100))]`: whether errors and
///   panics are reasons to retry a call, too, and how long after the first. Default: no, and at once.
/// - `#[remote(retry_if = is_transient)]`: a function that says of an error whether it is a reason. Default: each is.
/// - `#[remote(timeout = Duration::from_secs(2))]`, `#[remote(deadline = Duration::from_secs(10))]`: how long a call
///   may run, and how long after its making it must be over. Default: no limits.
/// - `#[remote(max_calls = 100)]`: a worker process ends after so many calls of the function, for one that leaks memory
///   or must begin afresh: a number, or `unlimited`. Calls that wait at the process go to another one. Default:
///   `unlimited`; for a function with `num_gpus`, 1.
/// - `#[remote(detached)]`: a call goes on when the call that made it is cancelled or killed.
/// - `#[remote(num_cpus = 2)]`, `#[remote(num_gpus = 0.5)]`, `#[remote(memory = 1 << 30)]`,
///   `#[remote(resources = [("disk", 1)])]`: the resources that a call demands, each unless the call's own options say
///   otherwise. Default: one CPU.
/// - `#[remote(env_vars = [("NAME", "value")])]`, `#[remote(working_dir = "/data")]`: the environment variables and
///   the directory of the process that runs a call, each unless the call's own options say otherwise. Default: the
///   driver's.
/// - `#[remote(name = "square")]`: the name that the function is registered under, and that errors show, instead of
///   its path.
/// - `#[remote(export = "square")]`: the name by which Python calls the function too. See `python::function` for the
///   other way round, and the Python package's `mobula.rust`.
///
/// ```
/// use mobula::prelude::*;
///
/// #[remote(num_returns = 2, max_retries = 3, name = "divide")]
/// fn quotient_and_rest(a: i64, b: i64) -> (i64, i64) {
///     (a / b, a % b)
/// }
///
/// let _mobula = init()?;
/// let (quotient, rest): (ObjectRef<i64>, ObjectRef<i64>) = quotient_and_rest::remote(17, 5);
/// assert_eq!((quotient.get()?, rest.get()?), (3, 2));
/// let (quotient, _) = quotient_and_rest::remote(1, 0);
/// assert!(quotient.get().unwrap_err().to_string().starts_with("divide panicked in process"));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// A call takes each argument as a value or as a reference, so it does not tell an expression its type: where nothing
/// else does, name it, as in `square::remote(text.parse::<i64>()?)`.
///
/// # On an `impl` block
///
/// ```
/// use mobula::prelude::*;
///
/// struct Counter {
///     value: i64,
/// }
///
/// #[remote]
/// impl Counter {
///     fn new(start: i64) -> Self {
///         Counter { value: start }
///     }
///
///     fn increment(&mut self, by: i64) -> i64 {
///         self.value += by;
///         self.value
///     }
/// }
///
/// let _mobula = init()?;
/// let counter: ActorHandle<Counter> = Counter::remote(5); // a process of its own, which runs `Counter::new(5)`
/// let six: ObjectRef<i64> = counter.increment(1); // calls of one caller run in order
/// assert_eq!(six.get()?, 6);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// The block stays as it is. The type gains `remote(…)`, with the arguments of `new`, and `options(ActorOptions)`. The
/// handle has every method of the block that takes `&self` or `&mut self`, with its visibility and its documentation,
/// and `options(MethodOptions)`, whose result has them too.
/// `new` returns `Self`, or `Result<Self, E>`. Functions without `self`, constants and types stay local. A method
/// cannot have the name of one that every handle has, such as `clone` or `eq`: a call of it would mean the handle's.
///
/// The attribute takes these options, which `ActorOptions` may leave open:
///
/// - `#[remote(max_restarts = 3)]`: how often an actor is started again when its process dies: a number, or
///   `unlimited`. Default: 0.
/// - `#[remote(max_task_retries = 3)]`: how often a call is sent again to an actor that died meanwhile and was started
///   again, unless its method says otherwise: a number, or `unlimited`. Default: 0.
/// - `#[remote(num_cpus = 1)]`, `num_gpus`, `memory` and `resources`, as on a function: the resources that an actor has
///   for life. Default: none.
/// - `#[remote(env_vars = [("NAME", "value")])]` and `working_dir`, as on a function: the environment of an actor's
///   process. Default: the driver's.
/// - `#[remote(export = "Counter")]`: the name by which Python makes such actors too.
/// - `#[remote(max_concurrency = 4)]`, `#[remote(concurrency_groups(io = 2, compute = 4))]`: how many calls run at a
///   time, see below. Default: one.
/// - `#[remote(instances(i32, String))]`, on a block with a parameter, `impl<T: …> Stack<T>`: the types of the
///   parameter. Each instance is a class of its own, `Stack::<i32>::remote(…)`. With several parameters, each instance
///   is in parentheses: `instances((i32, 4), (String, 8))`. A block for one type, `impl Stack<i32>`, needs no option.
/// - `#[remote(allow_out_of_order)]`: a call does not wait for earlier calls of its caller whose arguments are not
///   there yet. Without it, the calls of one caller begin in the order in which they were made.
///
/// Methods take options too:
///
/// - `#[remote(num_returns = 2)]`, `#[remote(num_returns = dynamic)]`, `#[remote(streaming)]`: as on a function.
/// - `#[remote(group = "io")]`: the method's concurrency group.
/// - `#[remote(max_task_retries = 3)]`: how often a call of the method is retried, in place of the number on the block:
///   a number, or `unlimited`. This option and the following ones hold unless the call's own options say otherwise: see
///   `mobula::MethodOptions`.
/// - `#[remote(retry_exceptions = true)]`, `#[remote(retry_if = is_transient)]`,
///   `#[remote(retry_delay = Duration::from_millis(100))]`: whether errors and panics are reasons to retry a call, too;
///   which errors; and how long after the first. The method or the block has `max_task_retries`. Default: no.
/// - `#[remote(timeout = Duration::from_secs(2))]`, `#[remote(deadline = Duration::from_secs(10))]`: how long a call of
///   the method may run, and how long after its making it must be over. Default: no limits.
/// - `#[remote(local)]`: the handle does not have this method, so it may take and return anything.
/// - `#[remote(caller_gone)]`: a local method `fn(&mut self, caller: Caller)`. It runs when a process that has called
///   the actor is gone: see `mobula::Reply::caller`. Only for actors with one call at a time.
///
/// A method with an argument `Reply<T>` answers through it, later: see `mobula::Reply`.
///
/// ```
/// use mobula::ActorOptions;
/// use mobula::prelude::*;
///
/// struct Statistics(Vec<f64>);
///
/// #[remote(max_restarts = 3, max_task_retries = unlimited)]
/// impl Statistics {
///     fn new(samples: Vec<f64>) -> Self {
///         Statistics(samples)
///     }
///
///     #[remote(num_returns = 2)]
///     fn extremes(&self) -> (f64, f64) {
///         (self.extreme(f64::min), self.extreme(f64::max))
///     }
///
///     #[remote(local)]
///     fn extreme(&self, of: fn(f64, f64) -> f64) -> f64 {
///         self.0.iter().copied().reduce(of).unwrap_or(f64::NAN)
///     }
/// }
///
/// let _mobula = init()?;
/// let options = ActorOptions::new().name("samples"); // the restarts are those of the attribute
/// let statistics = Statistics::options(options).remote(vec![2.0, 1.0, 3.0]);
/// let (least, most) = statistics.extremes();
/// assert_eq!((least.get()?, most.get()?), (1.0, 3.0));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Several calls at a time
///
/// With `max_concurrency = n`, up to `n` calls run at a time, on threads of the actor's process: methods with `&self`
/// side by side, a method with `&mut self` alone. A method that runs alone waits for the calls that run, and the calls
/// behind it wait for it; so new calls do not starve it. The state must be `Send` and `Sync`, which the compiler
/// checks. `ActorOptions::max_concurrency` gives one actor another number.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use mobula::prelude::*;
///
/// struct Index {
///     words: Vec<String>,
///     searches: AtomicU64,
/// }
///
/// #[remote(max_concurrency = 4)]
/// impl Index {
///     fn new() -> Self {
///         Index { words: Vec::new(), searches: AtomicU64::new(0) }
///     }
///     /// Up to four side by side.
///     fn contains(&self, word: String) -> bool {
///         self.searches.fetch_add(1, Ordering::Relaxed);
///         self.words.contains(&word)
///     }
///     /// Alone.
///     fn add(&mut self, word: String) {
///         self.words.push(word);
///     }
/// }
///
/// let _mobula = init()?;
/// let index = Index::remote();
/// index.add("ray".to_owned());
/// let found = ["ray", "skate"].map(|word| index.contains(word.to_owned()));
/// assert_eq!(mobula::get(found)?, [true, false]);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// `async` methods run as futures on one thread of the actor's process, 1,000 at a time unless `max_concurrency` says
/// otherwise. They need the feature `tokio` of the crate `mobula`: the thread is a runtime of tokio, so its timers and
/// sockets work in them, as far as the program's own dependency on tokio has them. Arguments and futures need not be
/// `Send`; the state must be `Send` and `Sync`. A method that is not `async` blocks a thread of its own and none of the
/// futures: one at a time, or `max_concurrency`. A method that computes for a long time should not be `async`.
///
/// ```
/// use std::time::Duration;
/// use mobula::prelude::*;
/// use tokio::sync::watch;
///
/// struct Door(watch::Sender<bool>);
///
/// #[remote]
/// impl Door {
///     fn new() -> Self {
///         Door(watch::channel(false).0)
///     }
///     async fn pass(&self) {
///         let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
///     }
///     async fn open(&self, after: Duration) {
///         tokio::time::sleep(after).await;
///         self.0.send_replace(true);
///     }
/// }
///
/// let _mobula = init()?;
/// let door = Door::remote();
/// let passing: Vec<_> = (0..100).map(|_| door.pass()).collect();
/// door.open(Duration::from_millis(10));
/// mobula::get(&passing)?;
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// A call that is cancelled goes on until its method returns, as that of a function does: `mobula::cancelled()` is one
/// side of a `select!`, and each `await` of a reference ends with `Failure::Cancelled`. When the actor ends, calls on
/// threads are finished, and futures are dropped.
///
/// Concurrency groups have places of their own, for threads and for futures: `concurrency_groups(io = 2, compute = 4)`,
/// with `#[remote(group = "io")]` on a method. A group that is full holds up no other one.
///
/// The order of one caller's calls is kept within a group, for the methods that block and for the `async` ones each. A
/// stream (`streaming`) has a place as any call has, and holds up no other call. An `async` method may return the
/// iterator of a stream; a method that returns an `impl Stream<Item = T>` is polled with the futures.
///
/// # Under another name
///
/// The code that the attribute adds finds the crate as `::mobula`. If the crate has another name, the option `crate`
/// gives it, on functions and on `impl` blocks: after `mb = { package = "mobula", … }` in `Cargo.toml` write
/// `#[mb::remote(crate = "mb")]`; where a facade passes it on, `#[facade::mobula::remote(crate = "facade::mobula")]`.
/// The path may stand without quotes, so that a `macro_rules!` of the facade can write `crate = $crate::mobula`.
///
/// ```
/// mod facade {
///     pub use mobula;
/// }
///
/// #[facade::mobula::remote(crate = "facade::mobula")]
/// fn double(x: i64) -> i64 {
///     2 * x
/// }
///
/// # fn main() -> mobula::Result<()> {
/// let _mobula = facade::mobula::init()?;
/// assert_eq!(double::remote(4).get()?, 8);
/// # Ok(())
/// # }
/// ```
///
/// # Cost
///
/// A call costs the encoding of its arguments: one copy, of small ones into the request and of large ones into the
/// store. Buffers of carriers (`Bytes`, `Tensor`, Arrow arrays) that already lie in the store are not copied again, and
/// neither are values that are given by reference. Making an actor also costs a round trip to the head. The attribute
/// itself costs nothing where a function is called locally.
///
/// # Errors
///
/// Another process must be able to make the arguments from bytes, and to find the function by name. So these do not
/// compile: generic parameters of functions and methods, `impl Trait`, references in arguments and results, `async`
/// functions that are no methods, and `unsafe`, `extern` and variadic functions. Arguments and results need serde's
/// `Serialize` and `Deserialize`. Each error stands at the tokens that cause it.
///
/// ```compile_fail
/// #[mobula::remote]
/// fn length(text: &str) -> usize { // take a `String`
///     text.len()
/// }
/// ```
#[proc_macro_attribute]
pub fn remote(options: TokenStream, item: TokenStream) -> TokenStream {
    let original = TokenStream2::from(item.clone());
    let expansion = match syn::parse::<Item>(item) {
        Ok(Item::Fn(function)) => function::expand(options.into(), function),
        Ok(Item::Impl(block)) => actor::expand(options.into(), block),
        Ok(other) => with_error(original, misplaced(&other)),
        Err(error) => with_error(original, error),
    };
    expansion.into()
}

/// Has a function run once in each worker process, before the worker's first call: for setup that each process needs,
/// such as a subscriber of `tracing`, a panic hook, a pool of threads, or a limit of memory.
///
/// ```
/// use std::sync::OnceLock;
///
/// static TABLE: OnceLock<Vec<u64>> = OnceLock::new();
///
/// #[mobula::worker_init]
/// fn make_table() -> Result<(), String> {
///     let squares = (0..100_u64).map(|x| x * x).collect();
///     TABLE.set(squares).map_err(|_| "the table is there already".to_owned())
/// }
///
/// #[mobula::remote]
/// fn square(x: usize) -> u64 {
///     TABLE.get().expect("it was made before the first call")[x]
/// }
///
/// let _mobula = mobula::init()?;
/// assert_eq!(square::remote(7).get()?, 49);
/// assert!(TABLE.get().is_none()); // this process is the driver, and no worker
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// The function takes no arguments, and returns nothing or a `Result<(), E>`, where `E` can be shown. It stays as it
/// is, and can be called, too. It runs in the processes of actors as well, and again in each process that takes the
/// place of another; it does not run in the driver.
///
/// Several are possible, in any module and any crate of the program. They run one after the other, in the order of
/// their paths as text: `app::a`, `app::net::b`, `library::a`.
///
/// The process is not a part of its session yet, so the function can neither make calls nor use objects. Its output
/// appears in the driver's output. It must return within 30 seconds.
///
/// The option `crate` is that of [`remote`](macro@remote).
///
/// # Errors
/// After an error or a panic no other function runs, and the process ends. The calls that wait for a worker, while none
/// is there, fail with `Failure::WorkerInitFailed`, which names the function and has its message; so do actors. Nothing
/// is tried again by itself: the next call tries once more.
#[proc_macro_attribute]
pub fn worker_init(options: TokenStream, item: TokenStream) -> TokenStream {
    let original = TokenStream2::from(item.clone());
    let expansion = match syn::parse::<ItemFn>(item) {
        Ok(function) => worker_init::expand(options.into(), &function),
        Err(_) => {
            let message = "`#[mobula::worker_init]` stands on a function without `self`";
            with_error(original, Error::new(Span::call_site(), message))
        }
    };
    expansion.into()
}

/// The errors that were found, so that the user sees all of them at once.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    /// Notes an error at `tokens`.
    fn push(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.add(Error::new_spanned(tokens, message));
    }

    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// The value, or its default after noting the error.
    fn take<T: Default>(&mut self, result: syn::Result<T>) -> T {
        result.unwrap_or_else(|error| {
            self.add(error);
            T::default()
        })
    }
}

/// The user's item as it was, and the errors: so that the item's other uses do not become errors as well.
fn with_error(item: TokenStream2, error: Error) -> TokenStream2 {
    let error = error.into_compile_error();
    quote!(#item #error)
}

fn misplaced(item: &Item) -> Error {
    let (found, tokens) = match item {
        Item::Struct(item) => ("a struct", item.struct_token.to_token_stream()),
        Item::Enum(item) => ("an enum", item.enum_token.to_token_stream()),
        Item::Union(item) => ("a union", item.union_token.to_token_stream()),
        Item::Trait(item) => ("a trait", item.trait_token.to_token_stream()),
        Item::Mod(item) => ("a module", item.mod_token.to_token_stream()),
        other => ("this item", other.to_token_stream()),
    };
    let instead = match item {
        Item::Struct(_) | Item::Enum(_) | Item::Union(_) => {
            ": for an actor, put it on the type's `impl` block"
        }
        _ => "",
    };
    Error::new_spanned(
        tokens,
        format!("`#[mobula::remote]` stands on a function or an `impl` block, not on {found}{instead}"),
    )
}
