//! The host of a Rust program: in a worker it runs the functions and classes that the macros have registered.

#[cfg(feature = "tokio")]
pub(crate) mod asynchronous;
pub(crate) mod call_span;
pub(crate) mod concurrent;
pub(crate) mod lanes;
pub(crate) mod user_code;

use std::any::Any;
use std::io::Write;

use mobula_runtime::{Failure, Host, Instance, Invocation, Key, TaskError, TaskErrorKind, label};

use self::call_span::in_span;
use self::concurrent::ConcurrentActor;
use self::user_code::{drop_guarded, guarded, named, not_registered};
use crate::invocation::Arguments;
use crate::panics;
use crate::registry::{self, Caller, Calling, Class, Concurrency, Constructor};
use crate::reply;

/// This program, as a worker runs it.
pub(crate) static RUST: Rust = Rust;

pub(crate) struct Rust;

impl Host for Rust {
    fn build_id(&self) -> u64 {
        registry::fingerprint()
    }

    fn started(&self) {
        panics::install();
        call_span::send_contexts();
    }

    fn init(&self) -> Result<(), TaskError> {
        for init in registry::worker_inits() {
            let run = || {
                label(init.name);
                (init.run)()
            };
            if let Err(failure) = guarded(run) {
                return Err(match named(init.name, failure) {
                    Failure::Task(error) => error,
                    other => TaskError::new(init.name, TaskErrorKind::Returned, other.to_string()),
                });
            }
        }
        Ok(())
    }

    fn call(&self, function: Key, on: &mut Invocation<'_>) -> Result<(), Failure> {
        let runnable = registry::function(function).ok_or_else(|| not_registered("function"))?;
        let function = runnable.function;
        label(function.name);
        on.set_name("", function.name);
        if runnable.is_last_call() {
            on.set_spent();
        }
        let context = on.context();
        let run = || guarded(|| (function.run)(&mut Arguments::new(on)));
        in_span(context, || function.name.into(), run)
    }

    fn construct(&self, class: Key, on: &mut Invocation<'_>) -> Result<Box<dyn Instance>, Failure> {
        let (class, caller) = registry::class(class).ok_or_else(|| not_registered("actor class"))?;
        label(class.name);
        let (context, arguments) = (on.context(), &mut Arguments::new(on));
        let name = || format!("{}::new", class.name).into();
        in_span(context, name, || construct(class, caller, arguments))
    }

    fn function_name(&self, function: Key) -> String {
        registry::function(function).map_or_else(String::new, |runnable| runnable.function.name.to_owned())
    }

    fn method_name(&self, class: Key, method: Option<u32>) -> String {
        let Some((class, _)) = registry::class(class) else { return String::new() };
        let method = method.map_or("new", |method| {
            class.methods.get(method as usize).map_or("a method", |method| method.name)
        });
        format!("{}::{method}", class.name)
    }

    fn idle(&self) {
        let _ = std::io::stdout().flush();
    }
}

/// Makes an instance of a class.
fn construct(
    class: &'static Class,
    caller: Caller,
    arguments: &mut Arguments<'_, '_>,
) -> Result<Box<dyn Instance>, Failure> {
    match (class.construct, caller) {
        (Constructor::OneAtATime(construct), _) => {
            let state = guarded(|| construct(arguments))?;
            Ok(Box::new(Actor { class, caller, state: Some(state) }))
        }
        (Constructor::Concurrent(construct, concurrency), Caller::Rust) => {
            let max = arguments.next::<Option<u32>>()?;
            let concurrency = Concurrency { max: max.or(concurrency.max), ..concurrency };
            let state = || guarded(|| construct(arguments));
            Ok(Box::new(ConcurrentActor::make(class, concurrency, state)?))
        }
        (Constructor::Concurrent(..), Caller::Other) => {
            let message = "a class with several calls at a time is made by Rust programs alone".to_owned();
            Err(TaskError::new("", TaskErrorKind::NotCalled, message).into())
        }
    }
}

/// An actor in its process.
struct Actor {
    class: &'static Class,
    caller: Caller,
    /// `None` once it is dropped.
    state: Option<Box<dyn Any>>,
}

impl Instance for Actor {
    fn call(&mut self, method: u32, on: &mut Invocation<'_>) -> Result<(), Failure> {
        let Self { class, caller, state } = self;
        let method = match caller {
            Caller::Rust => class.methods.get(method as usize).ok_or_else(|| not_registered("method"))?,
            Caller::Other => class.method(&Arguments::new(on).next::<String>()?)?,
        };
        let state = state.as_deref_mut().ok_or_else(|| not_registered("actor"))?;
        on.set_name(class.name, method.name);
        let Calling::OneAtATime(run) = method.call else { return Err(not_registered("method")) };
        let name = || format!("{}::{}", class.name, method.name).into();
        let context = on.context();
        let mut call = || guarded(|| run(state, &mut Arguments::new(on)));
        in_span(context, name, || if class.has_replies { reply::answering_panics(call) } else { call() })
    }

    fn is_concurrent(&self) -> bool {
        self.class.has_replies
    }

    fn watches_callers(&self) -> bool {
        self.class.caller_gone.is_some()
    }

    fn caller_gone(&mut self, caller: u64) {
        if let (Some(caller_gone), Some(state)) = (self.class.caller_gone, self.state.as_deref_mut()) {
            // There is no caller: a panic is printed, and has no other effect.
            let _ = guarded(|| {
                caller_gone(state, crate::Caller(caller));
                Ok(())
            });
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop_guarded(self.state.take());
    }
}
