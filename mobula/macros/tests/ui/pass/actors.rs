//! Every kind of method: what the handle has, and what stays local.

#![deny(warnings)]

use mobula::{ActorHandle, ActorOptions, ObjectRef};

struct Counter {
    value: i64,
}

#[mobula::remote]
impl Counter {
    /// Stays local.
    const STEP: i64 = 1;
    /// Of a method.
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

    fn new(
        /// Where to start.
        start: i64,
    ) -> Self {
        Self { value: start }
    }

    /// Adds to the value.
    fn increment(&mut self, by: i64) -> i64 {
        self.value += by;
        self.value
    }

    fn get(&self) -> i64 {
        self.value
    }

    fn reset(&mut self) {
        self.value = Self::STEP - 1;
    }

    fn checked(&mut self, by: i64) -> Result<i64, String> {
        self.value = self.value.checked_add(by).ok_or("too large")?;
        Ok(self.value)
    }

    #[remote(num_returns = 2)]
    fn split(&self) -> (i64, String) {
        (self.value, self.value.to_string())
    }

    #[mobula::remote(num_returns = 2)]
    fn split_checked(&self) -> Result<(i64, u8), std::num::TryFromIntError> {
        Ok((self.value, u8::try_from(self.value)?))
    }

    #[remote(timeout = Self::LIMIT, deadline = 2 * Self::LIMIT)]
    fn limited(&self) -> i64 {
        self.value
    }

    fn list(&self) -> Vec<i64> {
        vec![self.value]
    }

    fn typed(self: &mut Self, (a, b): (i64, i64), _: u8, mut c: i64, _d: i64) -> i64 {
        c += a + b;
        self.value += c;
        self.value
    }

    fn peer(&self, peer: ActorHandle<Self>) -> Option<ActorHandle<Self>> {
        Some(peer)
    }

    fn array(&self, array: [u8; Self::STEP as usize]) -> [u8; Self::STEP as usize] {
        array
    }

    #[cfg(any())]
    fn absent(&self, x: Missing) -> Missing {
        x
    }

    #[cfg(all())]
    fn r#match(&self) -> String {
        self.value.to_string()
    }

    fn after_absent(&self) -> i64 {
        self.value
    }

    #[remote(local)]
    fn value_mut(&mut self) -> &mut i64 {
        &mut self.value
    }

    #[remote(local)]
    fn map<T>(self, with: impl FnOnce(i64) -> T) -> T {
        with(self.value)
    }

    fn stays_local<T>(value: &T) -> &T {
        value
    }
}

// A second block adds functions that stay local.
impl Counter {
    fn also_local(&self) -> &i64 {
        &self.value
    }
}

struct Fallible;

#[mobula::remote]
impl Fallible {
    fn new(succeed: bool) -> Result<Self, String> {
        if succeed { Ok(Fallible) } else { Err("refused".to_owned()) }
    }
}

struct Named;

#[mobula::remote()]
impl Named {
    fn new() -> Named {
        Named
    }
    fn nothing(&self) {}
}

// Names of traits' methods that a handle does not have, and of functions that take one.
struct Namesake;

#[mobula::remote]
impl Namesake {
    fn new() -> Self {
        Namesake
    }
    fn drop(&self) {}
    fn max(&self) {}
    fn cmp(&self) {}
    fn lt(&self) {}
    fn next(&mut self) {}
    fn into_iter(&self) {}
    fn as_ref(&self) {}
    fn as_mut(&mut self) {}
    fn to_string(&self) {}
    fn call(&self) {}
    fn index(&self) {}
    fn add(&self) {}
    fn poll(&self) {}
    fn write(&self) {}
    fn kill(&self) {}
    fn get(&self) {}
    fn wait(&self) {}
    fn id(&self) {}
    fn name(&self) {}
    fn raw(&self) {}
    fn from_raw(&self) {}
    fn methods(&self) {}
    fn class(&self) {}
    #[remote(local)]
    fn clone(&self) -> Self {
        Namesake
    }
}

fn namesakes() -> [ObjectRef<()>; 23] {
    #[allow(unused_imports)]
    use std::{
        any::Any, borrow::*, cmp::*, convert::*, error::Error, fmt::*, future::*, hash::*, io::Read, io::Write as _,
        iter::*, ops::*,
    };
    #[allow(unused_imports)]
    use {mobula::Actor, mobula::prelude::*, serde::Deserialize, serde::Serialize};
    let it: ActorHandle<Namesake> = Namesake::remote().clone();
    [
        it.drop(),
        it.max(),
        it.cmp(),
        it.lt(),
        it.next(),
        it.into_iter(),
        it.as_ref(),
        it.as_mut(),
        it.to_string(),
        it.call(),
        it.index(),
        it.add(),
        it.poll(),
        it.write(),
        it.kill(),
        it.get(),
        it.wait(),
        it.id(),
        it.name(),
        it.raw(),
        it.from_raw(),
        it.methods(),
        it.class(),
    ]
}

fn remotely() {
    let _: fn() -> _ = namesakes;
    let counter: ActorHandle<Counter> = Counter::remote(5);
    let six: ObjectRef<i64> = counter.increment(1);
    let _: ObjectRef<i64> = counter.increment(&six);
    let _: ObjectRef<i64> = counter.increment(six);
    let _: ObjectRef<i64> = counter.get();
    let _: ObjectRef<()> = counter.reset();
    let _: ObjectRef<i64> = counter.checked(1);
    let _: (ObjectRef<i64>, ObjectRef<String>) = counter.split();
    let _: (ObjectRef<i64>, ObjectRef<u8>) = counter.split_checked();
    let _: ObjectRef<Vec<i64>> = counter.list();
    let _: ObjectRef<i64> = counter.typed((1, 2), 3, 4, 5);
    let _: ObjectRef<Option<ActorHandle<Counter>>> = counter.peer(counter.clone());
    let _: ObjectRef<[u8; 1]> = counter.array([1]);
    let _: ObjectRef<String> = counter.r#match();
    let _: ObjectRef<i64> = counter.after_absent();
    let _: ActorHandle<Counter> = Counter::options(ActorOptions::new()).remote(counter.get());
    let _: ActorHandle<Fallible> = Fallible::remote(true);
    let retried: ActorHandle<Retried> = Retried::remote();
    let _: ObjectRef<u8> = retried.some_errors();
    let never = retried.options(mobula::MethodOptions::new().max_task_retries(0).retry_exceptions(false));
    let _: ObjectRef<()> = never.all_errors();
    let named: ActorHandle<Named> = Named::remote();
    let _: ObjectRef<()> = named.nothing();
}

struct Patient;

#[mobula::remote(max_restarts = 3, max_task_retries = unlimited)]
impl Patient {
    fn new() -> Self {
        Self
    }
}

struct Retried;

#[mobula::remote]
impl Retried {
    const FIRST: std::time::Duration = std::time::Duration::from_millis(1);

    fn new() -> Self {
        Self
    }

    fn is_transient(error: &mobula::TaskError) -> bool {
        error.message.is_empty()
    }

    #[remote(max_task_retries = unlimited, retry_if = Self::is_transient, retry_delay = Self::FIRST)]
    fn some_errors(&self) -> Result<u8, String> {
        Ok(1)
    }

    #[remote(retry_exceptions = true, max_task_retries = 2, timeout = Self::FIRST)]
    fn all_errors(&self) {}

    #[remote(max_task_retries = 2)]
    fn deaths(&self) {}

    #[remote(retry_exceptions = false, retry_if = |_| true)]
    fn no_errors(&self) {}
}

struct Eternal;

#[mobula::remote(max_restarts = unlimited)]
impl Eternal {
    fn new(_from: u8) -> Self {
        Self
    }
}

#[mobula::remote(max_retries = unlimited)]
fn tireless() {}

fn main() {
    // Compiled, but not run: there is no store here.
    let _: fn() = remotely;

    let mut counter = Counter::new(1);
    assert_eq!(counter.increment(1), 2);
    assert_eq!(counter.checked(1), Ok(3));
    assert_eq!(counter.split(), (3, "3".to_owned()));
    assert_eq!(counter.split_checked().unwrap(), (3, 3));
    assert_eq!(counter.list(), [3]);
    assert_eq!(counter.typed((1, 2), 3, 4, 5), 10);
    assert_eq!(counter.array([1]), [1]);
    assert_eq!(counter.r#match(), "10");
    assert_eq!(counter.after_absent(), *counter.also_local());
    counter.reset();
    assert_eq!((counter.get(), *counter.value_mut()), (0, 0));
    let _ = Counter::peer;
    assert_eq!(*Counter::stays_local(&1), 1);
    assert_eq!(counter.map(|value| value + 1), 1);
    assert!(Fallible::new(false).is_err());
    Named::new().nothing();
    Namesake::new().clone().drop();
}
