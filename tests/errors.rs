//! The error that `get` returns for a failed call. If these fail, a program sees that a task has failed, but the error
//! does not tell that the store was full, that a value could not be encoded, or what became of another task or an
//! actor.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use mobula::prelude::*;
use mobula::{
    ActorEnd, ActorOptions, Builder, Error, Failure, Refusal, StoreFailure, TaskError, TaskErrorKind,
};
use mobula_tests::{TestSession, session, session_with};

const CAPACITY_BYTES: u64 = 16 << 20;

#[mobula::remote]
fn zeros(count: usize) -> Vec<u8> {
    vec![0; count]
}

#[mobula::remote]
fn length(values: Vec<u8>) -> usize {
    values.len()
}

/// Keeps what it puts, until nothing fits any more.
#[mobula::remote]
fn fills_the_store() -> mobula::Result<()> {
    let mut kept = Vec::new();
    loop {
        kept.push(mobula::put(&vec![0u8; 3 << 20])?);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("there is no room for it")]
struct NoRoom(#[from] Error);

#[mobula::remote]
fn puts_too_much() -> Result<(), NoRoom> {
    mobula::put(&vec![0u8; 2 * CAPACITY_BYTES as usize])?;
    Ok(())
}

#[mobula::remote]
fn puts_too_much_and_boxes() -> Result<(), Box<dyn StdError + Send + Sync>> {
    mobula::put(&vec![0u8; 2 * CAPACITY_BYTES as usize])?;
    Ok(())
}

#[mobula::remote]
fn gets(what: Vec<ObjectRef<()>>) -> Result<(), Box<dyn StdError>> {
    Ok(what[0].get()?)
}

/// A time that the standard library's `Serialize` refuses.
fn before_1970() -> SystemTime {
    SystemTime::UNIX_EPOCH - Duration::from_secs(1)
}

#[mobula::remote]
fn returns_what_cannot_be_encoded() -> SystemTime {
    before_1970()
}

#[mobula::remote]
fn takes_a_time(_time: SystemTime) {}

#[mobula::remote]
fn waits_in_vain() -> mobula::Result<()> {
    sleeps::remote().get_timeout(Duration::ZERO)
}

#[mobula::remote]
fn sleeps() {
    std::thread::sleep(Duration::from_secs(1));
}

struct Refuses;

#[mobula::remote]
impl Refuses {
    fn new() -> mobula::Result<Self> {
        mobula::put(&vec![0u8; 2 * CAPACITY_BYTES as usize])?;
        Ok(Self)
    }
    fn call(&self) {}
}

/// A session whose store is soon full, and spills nothing.
fn full_soon() -> TestSession {
    session_with(Builder::new().workers(2).capacity_bytes(CAPACITY_BYTES).spill_bytes_max(0))
}

fn task_error<T: std::fmt::Debug>(result: mobula::Result<T>) -> TaskError {
    match result {
        Err(Error::Task(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn is_too_large(error: &Error) -> bool {
    matches!(
        error.refusal(),
        Some(Refusal::TooLarge { requested_bytes, capacity_bytes: CAPACITY_BYTES })
            if *requested_bytes > CAPACITY_BYTES
    )
}

#[test]
fn a_full_store_is_told_apart_with_its_numbers_wherever_it_was_full() {
    let _session = full_soon();
    // In a result, in a task, under other errors, in a task of a task, and in a constructor.
    let result = zeros::remote(2 * CAPACITY_BYTES as usize).get();
    assert!(result.as_ref().is_err_and(is_too_large), "{result:?}");
    assert_eq!(task_error(result).kind, TaskErrorKind::NotReturned);
    let under_another = puts_too_much::remote();
    let in_a_box = puts_too_much_and_boxes::remote();
    let of_a_task = gets::remote(vec![in_a_box.clone()]);
    let of_a_task_of_a_task = gets::remote(vec![of_a_task.clone()]);
    let in_a_constructor = Refuses::remote().call();
    let of_a_constructor = gets::remote(vec![in_a_constructor.clone()]);
    for reference in
        [under_another, in_a_box, of_a_task, of_a_task_of_a_task, in_a_constructor, of_a_constructor]
    {
        let error = reference.get().unwrap_err();
        assert!(is_too_large(&error), "{error:?}");
    }

    // Where it is this process's own doing, too.
    let too_much = vec![0u8; 2 * CAPACITY_BYTES as usize];
    let error = mobula::put(&too_much).unwrap_err();
    assert!(matches!(error, Error::Store(_)) && is_too_large(&error), "{error:?}");
    let error = length::remote(too_much).get().unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::Store { .. })) && is_too_large(&error), "{error:?}");

    // It waits for room before it fails.
    let error = task_error(fills_the_store::remote().get());
    assert_eq!(error.kind, TaskErrorKind::Returned);
    let refused = match error.cause.as_deref() {
        Some(Failure::Store { kind: StoreFailure::Refused(refused), message }) => {
            assert_eq!(message, &error.message);
            refused
        }
        other => panic!("{other:?}"),
    };
    let Refusal::StoreFull { requested_bytes, capacity_bytes, free_bytes } = refused else {
        panic!("{refused:?}")
    };
    assert!(*requested_bytes > *free_bytes && *capacity_bytes == CAPACITY_BYTES, "{refused:?}");
}

#[test]
fn the_sources_of_an_error_lead_to_what_it_comes_from() {
    let _session = full_soon();
    let error = gets::remote(vec![puts_too_much::remote()]).get().unwrap_err();
    let sources: Vec<_> = std::iter::successors(error.source(), |source| (**source).source()).collect();
    let [of_puts, in_the_store, refusal] = &sources[..] else { panic!("{sources:?}") };
    let Some(Failure::Task(of_puts)) = of_puts.downcast_ref() else { panic!("{sources:?}") };
    assert_eq!(of_puts.function, "errors::puts_too_much");
    assert!(matches!(in_the_store.downcast_ref(), Some(Failure::Store { .. })), "{sources:?}");
    assert!(matches!(refusal.downcast_ref(), Some(Refusal::TooLarge { .. })), "{sources:?}");
    // And the text says all of it.
    assert!(error.to_string().ends_with(&refusal.to_string()), "{error}");
}

#[test]
fn a_value_that_cannot_be_encoded_is_told_apart() {
    let _session = session(1);
    let error = task_error(returns_what_cannot_be_encoded::remote().get());
    assert_eq!(error.kind, TaskErrorKind::NotReturned);
    assert!(matches!(error.cause.as_deref(), Some(Failure::Value { .. })), "{error:?}");
    let error = takes_a_time::remote(before_1970()).get().unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::Value { .. })), "{error:?}");
}

#[test]
fn what_a_task_waited_for_in_vain_is_told_apart() {
    let _session = session(2);
    let error = task_error(waits_in_vain::remote().get());
    assert!(
        matches!(error.cause.as_deref(), Some(Failure::Timeout { ready: 0, wanted: 1, .. })),
        "{error:?}"
    );
    let named = ActorOptions::new().namespace("of a test").name("n".repeat(1 << 24));
    let error = Refuses::options(named).remote().call().get().unwrap_err();
    assert!(matches!(error, Error::Failed(Failure::NameTooLong { bytes: 0x100_0009 })), "{error:?}");
    let actor = Refuses::remote();
    mobula::kill(&actor).unwrap();
    let error = actor.call().get().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Failed(
                Failure::ActorDied { cause: ActorEnd::Killed, .. } | Failure::ConstructorFailed { .. }
            )
        ),
        "{error:?}"
    );
}
