//! The error that `get` returns for a failed call. If these fail, a program sees that a task has failed, but the error
//! does not tell that the store was full, that a value could not be encoded, or what became of another task or an
//! actor.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use mobula::prelude::*;
use mobula::util::{Barrier, BarrierError, GetError, PutError, Queue, Semaphore};
use mobula::{
    ActorEnd, ActorOptions, Builder, ClientError, Error, Failure, ObjectId, ObjectProblem, Refusal,
    StoreFailure, TaskError, TaskErrorKind, UtilFailure,
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

/// Puts into a queue that is full, and into one that is closed.
#[mobula::remote]
fn puts_into(queue: Queue<u32>) -> mobula::Result<()> {
    Ok(queue.put_nowait(2)?)
}

#[mobula::remote]
fn puts_into_and_boxes(queue: Queue<u32>) -> Result<(), Box<dyn StdError + Send + Sync>> {
    Ok(queue.put_nowait(2)?)
}

#[mobula::remote]
fn gets_from(queue: Queue<u32>) -> mobula::Result<u32> {
    Ok(queue.get_nowait()?)
}

#[mobula::remote]
fn gets_from_and_boxes(queue: Queue<u32>) -> Result<u32, Box<dyn StdError + Send + Sync>> {
    Ok(queue.get_nowait()?)
}

#[mobula::remote]
fn waits_alone(barrier: Barrier) -> mobula::Result<bool> {
    Ok(barrier.wait_timeout(Duration::from_millis(1))?)
}

#[mobula::remote]
fn waits_alone_and_boxes(barrier: Barrier) -> Result<bool, Box<dyn StdError + Send + Sync>> {
    Ok(barrier.wait_timeout(Duration::from_millis(1))?)
}

#[mobula::remote]
fn breaks_off() -> mobula::Result<()> {
    Ok(Err(BarrierError::Broken)?)
}

#[mobula::remote]
fn acquires_too_many(semaphore: Semaphore) -> mobula::Result<()> {
    drop(semaphore.acquire_many(3)?);
    Ok(())
}

#[mobula::remote]
fn waits_for_too_many() -> mobula::Result<()> {
    mobula::wait(Vec::<ObjectRef<()>>::new(), 1, None)?;
    Ok(())
}

/// Errors that are hard to cause in a task.
#[mobula::remote]
fn fails_with(which: usize) -> mobula::Result<()> {
    let object = ObjectId::from_bytes([7; ObjectId::BYTES]);
    Err(match which {
        0 => Error::AlreadyInitialized,
        1 => Error::NotInActor,
        2 => Error::Start("no descriptors".to_owned()),
        3 => ClientError::Deleted { object }.into(),
        4 => ClientError::NotReady { object }.into(),
        5 => ClientError::OwnerStalled { object }.into(),
        6 => ClientError::Corrupt { object }.into(),
        7 => ClientError::TooManyReferences { object, kind: "handles", max: 5 }.into(),
        8 => ClientError::NotOwner { object, owner: object.owner(), operation: "delete" }.into(),
        _ => ClientError::System(std::io::Error::from_raw_os_error(24)).into(),
    })
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

fn cause_of<T: std::fmt::Debug>(result: mobula::Result<T>) -> Failure {
    *task_error(result).cause.expect("it has a cause")
}

#[test]
fn errors_of_tools_can_be_matched_after_they_have_left_a_task() {
    let _session = session(2);
    let (full, empty, closed) = (Queue::new(1), Queue::<u32>::new(1), Queue::<u32>::new(1));
    full.put(1).unwrap();
    closed.close().unwrap();
    let (barrier, semaphore) = (Barrier::new(2), Semaphore::new(2));
    let causes = [
        (cause_of(puts_into::remote(full.clone()).get()), UtilFailure::QueueFull),
        (cause_of(puts_into_and_boxes::remote(full).get()), UtilFailure::QueueFull),
        (cause_of(puts_into::remote(closed.clone()).get()), UtilFailure::QueueClosed),
        (cause_of(puts_into_and_boxes::remote(closed.clone()).get()), UtilFailure::QueueClosed),
        (cause_of(gets_from::remote(closed.clone()).get()), UtilFailure::QueueClosed),
        (cause_of(gets_from_and_boxes::remote(closed).get()), UtilFailure::QueueClosed),
        (cause_of(gets_from::remote(empty.clone()).get()), UtilFailure::QueueEmpty),
        (cause_of(gets_from_and_boxes::remote(empty).get()), UtilFailure::QueueEmpty),
        (cause_of(waits_alone::remote(barrier.clone()).get()), UtilFailure::BarrierTimeout),
        (cause_of(waits_alone_and_boxes::remote(barrier).get()), UtilFailure::BarrierTimeout),
        (cause_of(breaks_off::remote().get()), UtilFailure::BarrierBroken),
        (
            cause_of(acquires_too_many::remote(semaphore).get()),
            UtilFailure::TooFewPermits { requested: 3, permits: 2 },
        ),
    ];
    for (cause, expected) in causes {
        let Failure::Util(found) = cause else { panic!("{cause:?} is not {expected:?}") };
        assert_eq!(found, expected);
    }
}

#[test]
fn errors_of_sessions_and_objects_can_be_matched_after_they_have_left_a_task() {
    let _session = session(1);
    let Failure::Config { field, value, .. } = cause_of(waits_for_too_many::remote().get()) else {
        panic!("it is no error of an option")
    };
    assert_eq!((field.as_str(), value.as_str()), ("num_ready", "1"));
    let fails = |which| cause_of(fails_with::remote(which).get());
    assert!(matches!(fails(0), Failure::AlreadyInitialized));
    assert!(matches!(fails(1), Failure::NotInActor));
    assert!(matches!(fails(2), Failure::Start { reason } if reason == "no descriptors"));
    let problems = [
        ObjectProblem::Deleted,
        ObjectProblem::NotReady,
        ObjectProblem::OwnerStalled,
        ObjectProblem::Corrupt,
        ObjectProblem::TooManyReferences { max: 5 },
        ObjectProblem::NotOwner { owner: ObjectId::from_bytes([7; ObjectId::BYTES]).owner().bits() },
    ];
    for (number, expected) in problems.into_iter().enumerate() {
        let Failure::Store { kind: StoreFailure::Object { problem, .. }, .. } = fails(3 + number) else {
            panic!("{expected:?} is lost")
        };
        assert_eq!(problem, expected);
    }
    let system = fails(9);
    let source = system.source().expect("the system's error is the source");
    assert!(matches!(source.downcast_ref(), Some(StoreFailure::System { errno: Some(24) })), "{source:?}");
}

#[test]
fn errors_of_tools_have_the_error_of_their_actor_as_their_source() {
    let unreachable = || Error::NotInitialized;
    let sources = [
        BarrierError::Failed(unreachable()).source().map(ToString::to_string),
        GetError::Failed(unreachable()).source().map(ToString::to_string),
        PutError::Failed { item: 1, error: Box::new(unreachable()) }.source().map(ToString::to_string),
    ];
    assert_eq!(
        sources,
        [Some(unreachable().to_string()), Some(unreachable().to_string()), Some(unreachable().to_string())]
    );
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
