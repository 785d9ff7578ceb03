//! References of a session that has ended, used in the next session or in none. If these fail, an old reference is
//! taken for one of the new session, hangs, or gives a misleading error.

use std::time::Duration;

use mobula::prelude::*;
use mobula::{Error, Failure};
use mobula_tests::{PATIENCE, session};

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[mobula::remote]
fn sum(values: Vec<f64>) -> f64 {
    values.iter().sum()
}

#[mobula::remote]
fn sum_of_tensor(tensor: Tensor<f64>) -> f64 {
    tensor.as_slice().iter().sum()
}

#[mobula::remote]
fn get_all(references: Vec<ObjectRef<i64>>) -> mobula::Result<i64> {
    Ok(mobula::get(&references)?.into_iter().sum())
}

#[mobula::remote]
fn ask(counter: ActorHandle<Counter>) -> mobula::Result<u64> {
    counter.count().get()
}

#[mobula::remote]
fn sleep_forever() -> i64 {
    loop {
        std::thread::park();
    }
}

struct Counter {
    count: u64,
}

#[mobula::remote]
impl Counter {
    fn new() -> Self {
        Self { count: 0 }
    }

    fn count(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn add(&mut self, x: i64) -> i64 {
        x + self.count as i64
    }
}

#[track_caller]
fn is_ended<T: std::fmt::Debug>(result: mobula::Result<T>) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains("of a session that has ended"), "{error}");
    assert!(matches!(error, Error::Failed(Failure::SessionOver)), "{error:?}");
}

/// A value with such a reference in it cannot be encoded.
#[track_caller]
fn cannot_be_written<T: std::fmt::Debug>(result: mobula::Result<T>) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains("cannot write") || error.contains("of a session that has ended"), "{error}");
}

#[test]
fn references_and_handles_of_a_session_that_has_ended_say_so_wherever_they_are_used() {
    let first = session(1);
    let inline = square::remote(3);
    assert_eq!(inline.get().unwrap(), 9);
    let references = [
        inline,
        // In the store, there and not.
        mobula::put(&16).unwrap(),
        mobula::put(&vec![sleep_forever::remote()]).unwrap().get().unwrap().remove(0),
        // Its result does not exist, and nobody has asked for it.
        sleep_forever::remote(),
        square::remote(5),
    ];
    let counter = Counter::remote();
    assert_eq!(counter.count().get().unwrap(), 1);
    let failed = square::remote(&references[3]);
    let check_without_arguments = || {
        for reference in references.iter().chain([&failed]) {
            is_ended(reference.get());
            is_ended(reference.get_timeout(PATIENCE));
            is_ended(reference.get_timeout(Duration::ZERO));
        }
    };
    let _lock = first.end();
    check_without_arguments();
    is_ended(counter.count().get());
    is_ended(mobula::kill(&counter));
    drop(_lock);

    let second = session(1);
    let new = square::remote(7);
    check_without_arguments();
    for reference in &references {
        is_ended(mobula::get([reference.clone()]));
        is_ended(mobula::get([new.clone(), reference.clone()]));
        is_ended(mobula::wait([reference.clone(), new.clone()], 2, Some(PATIENCE)));
        is_ended(square::remote(reference).get_timeout(PATIENCE));
        is_ended(square::remote(square::remote(reference)).get_timeout(PATIENCE));
        cannot_be_written(get_all::remote(vec![new.clone(), reference.clone()]).get_timeout(PATIENCE));
        cannot_be_written(mobula::put(&vec![reference.clone()]));
        let other = Counter::remote();
        is_ended(other.add(reference).get_timeout(PATIENCE));
        assert_eq!(other.count().get_timeout(PATIENCE).unwrap(), 1);
    }
    is_ended(counter.count().get_timeout(PATIENCE));
    is_ended(mobula::kill(&counter));
    cannot_be_written(ask::remote(counter.clone()).get_timeout(PATIENCE));
    assert_eq!(new.get_timeout(PATIENCE).unwrap(), 49);
    // And dropping them harms nobody.
    drop((references, failed, counter));
    let counter = Counter::remote();
    assert_eq!(ask::remote(counter).get_timeout(PATIENCE).unwrap(), 1);
    drop(second);
}

#[test]
fn values_of_a_session_that_has_ended_are_values_in_the_next_one() {
    let first = session(1);
    let numbers: Vec<f64> = (0..50_000).map(f64::from).collect();
    let expected: f64 = numbers.iter().sum();
    let tensor = Tensor::from_shape_vec(&[numbers.len()], numbers.clone()).unwrap();
    let (tensor, bytes) =
        (mobula::put(&tensor).unwrap(), mobula::put(&Bytes::from(vec![7; 200_000])).unwrap());
    // Both lie in the store of that session.
    let (tensor, bytes) = (tensor.get().unwrap(), bytes.get().unwrap());
    drop(first);
    let _second = session(1);
    assert_eq!(sum_of_tensor::remote(tensor.clone()).get_timeout(PATIENCE).unwrap(), expected);
    assert_eq!(mobula::put(&tensor).unwrap().get().unwrap().as_slice(), tensor.as_slice());
    assert_eq!(
        mobula::put(&vec![bytes.clone(), bytes.slice(1..)]).unwrap().get().unwrap()[1],
        bytes.slice(1..)
    );
    assert_eq!(sum::remote(numbers).get_timeout(PATIENCE).unwrap(), expected);
}
