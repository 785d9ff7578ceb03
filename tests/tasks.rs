//! Remote functions: if these fail, a call is lost, runs twice, gets the wrong argument, or never returns.

use std::time::Duration;

use mobula::prelude::*;
use mobula::{Error, Failure, TaskErrorKind};
use mobula_tests::session;

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[mobula::remote]
fn square_u(x: u64) -> u64 {
    x * x
}

#[mobula::remote]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

#[mobula::remote]
fn nothing() {}

#[mobula::remote]
fn pid() -> u32 {
    std::process::id()
}

#[mobula::remote]
fn fails(message: String) -> Result<i64, String> {
    Err(message)
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] Inner);

#[derive(Debug, thiserror::Error)]
#[error("inner")]
struct Inner(#[source] mobula::Error);

#[mobula::remote]
fn fails_with_sources(failed: Vec<ObjectRef<i64>>) -> Result<i64, Outer> {
    Err(Outer(Inner(mobula::get(failed).unwrap_err())))
}

#[mobula::remote]
fn fails_with_a_box(failed: Vec<ObjectRef<i64>>) -> Result<i64, Box<dyn std::error::Error>> {
    Ok(fails_with_sources(failed)?)
}

#[mobula::remote]
fn panics(message: String) -> i64 {
    panic!("{message}")
}

#[mobula::remote]
fn sum_all(refs: Vec<ObjectRef<i64>>) -> mobula::Result<i64> {
    Ok(mobula::get(refs)?.into_iter().sum())
}

#[mobula::remote]
fn fibonacci(n: u64) -> mobula::Result<u64> {
    if n < 2 {
        return Ok(n);
    }
    let (one, two) = (fibonacci::remote(n - 1), fibonacci::remote(n - 2));
    Ok(one.get()? + two.get()?)
}

#[mobula::remote(num_returns = 3)]
fn three(x: i64) -> (i64, String, Vec<i64>) {
    (x, x.to_string(), vec![x; 3])
}

#[mobula::remote]
fn up_to(n: u64) -> Vec<u64> {
    (0..n).collect()
}

#[mobula::remote]
fn waits_for(path: String) -> u32 {
    while !std::path::Path::new(&path).exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::process::id()
}

#[mobula::remote]
fn large(n: usize, fill: u8) -> Vec<u8> {
    vec![fill; n]
}

#[mobula::remote]
fn length(bytes: Vec<u8>) -> usize {
    bytes.len()
}

#[mobula::remote]
fn makes_refs(n: i64) -> Vec<ObjectRef<i64>> {
    (0..n).map(square::remote).collect()
}

#[mobula::remote]
fn dies() {
    std::process::abort();
}

#[mobula::remote]
fn dies_sometimes(x: u64) -> u64 {
    if x % 10 == 3 {
        std::process::abort();
    }
    x
}

#[mobula::remote]
fn dies_once(marker: String) -> u32 {
    if std::fs::File::create_new(&marker).is_ok() {
        std::process::abort();
    }
    std::process::id()
}

#[test]
fn values_and_references_are_arguments_and_the_function_still_works_here() {
    let _session = session(2);
    assert_eq!(square(3), 9);
    let nine = square::remote(3);
    let eighty_one = square::remote(&nine);
    assert_eq!(eighty_one.get().unwrap(), 81);
    assert_eq!(add::remote(nine, mobula::put(&1).unwrap()).get().unwrap(), 10);
    assert_eq!(nothing::remote().get().unwrap(), ());
    assert_ne!(pid::remote().get().unwrap(), std::process::id());
}

#[test]
fn thousands_of_calls_at_once_all_return_their_own_result() {
    let _session = session(2);
    let refs: Vec<_> = (0..5_000).map(square::remote).collect();
    let results = mobula::get(&refs).unwrap();
    assert!(results.iter().zip(0..).all(|(result, x)| *result == x * x));
}

#[test]
fn a_long_chain_of_calls_resolves() {
    let _session = session(2);
    let mut sum = mobula::put(&0).unwrap();
    for _ in 0..500 {
        sum = add::remote(sum, 1);
    }
    assert_eq!(sum.get().unwrap(), 500);
}

#[test]
fn a_failure_passes_through_a_chain_of_any_length() {
    let _session = session(1);
    let mut last = fails::remote("at the start".to_owned());
    for _ in 0..50_000 {
        last = add::remote(last, 1);
    }
    assert!(last.get().unwrap_err().to_string().contains("at the start"));
}

#[test]
fn functions_of_one_name_in_different_bodies_are_different_functions() {
    fn one() -> ObjectRef<i64> {
        #[mobula::remote]
        fn inner() -> i64 {
            1
        }
        inner::remote()
    }
    fn two() -> ObjectRef<i64> {
        #[mobula::remote]
        fn inner() -> i64 {
            2
        }
        inner::remote()
    }
    let _session = session(1);
    assert_eq!((one().get().unwrap(), two().get().unwrap()), (1, 2));
}

#[test]
fn errors_and_panics_say_where_and_what_also_through_chains() {
    let _session = session(2);
    let check = |result: mobula::Result<i64>, kind: TaskErrorKind, function: &str, message: &str| match result
    {
        Err(Error::Task(error)) => {
            assert_eq!((error.kind, error.function.as_str()), (kind, function));
            assert!(error.message.contains(message), "{}", error.message);
            assert_ne!(error.pid, std::process::id());
        }
        other => panic!("{other:?}"),
    };
    let failed = fails::remote("no such luck".to_owned());
    check(failed.get(), TaskErrorKind::Returned, "tasks::fails", "no such luck");
    check(panics::remote("oh no".to_owned()).get(), TaskErrorKind::Panicked, "tasks::panics", "oh no");
    let chained = add::remote(square::remote(failed), 1);
    check(chained.get(), TaskErrorKind::Returned, "tasks::fails", "no such luck");
    // A task that fails with another task's error says both.
    match sum_all::remote(vec![fails::remote("deep".to_owned())]).get() {
        Err(Error::Task(outer)) => {
            let Some(Failure::Task(inner)) = outer.cause.as_deref() else { panic!("{outer:?}") };
            assert_eq!(
                (outer.function.as_str(), inner.function.as_str()),
                ("tasks::sum_all", "tasks::fails")
            );
            assert_eq!(inner.message, "deep");
        }
        other => panic!("{other:?}"),
    }
    // An error's sources are in its message, and a task's failure among them is its cause.
    let deep = || vec![fails::remote("deep".to_owned())];
    for failed in [fails_with_sources::remote(deep()), fails_with_a_box::remote(deep())] {
        match failed.get() {
            Err(Error::Task(outer)) => {
                assert!(
                    outer.message.starts_with("outer: inner: tasks::fails failed in process"),
                    "{}",
                    outer.message
                );
                assert!(outer.message.ends_with(": deep"), "{}", outer.message);
                let Some(Failure::Task(inner)) = outer.cause.as_deref() else { panic!("{outer:?}") };
                assert_eq!(inner.function, "tasks::fails");
            }
            other => panic!("{other:?}"),
        }
    }
    // A worker that saw a panic goes on.
    assert_eq!(square::remote(4).get().unwrap(), 16);
}

#[test]
fn the_first_failure_is_reported_without_waiting_for_the_rest() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let slow = waits_for::remote(gate.to_str().unwrap().to_owned());
    let slow_sum: ObjectRef<i64> = sum_all::remote(vec![square::remote(1)]);
    slow_sum.get().unwrap();
    let failing = fails::remote("now".to_owned());
    let never = add::remote(panics::remote("first".to_owned()), 0);
    let error = mobula::get([&never, &failing]).unwrap_err();
    assert!(matches!(error, Error::Task(_)), "{error}");
    assert!(!slow.is_ready());
    std::fs::write(gate, "").unwrap();
    slow.get().unwrap();
}

#[test]
fn get_with_a_timeout_says_how_many_were_there() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let slow = waits_for::remote(gate.to_str().unwrap().to_owned());
    match slow.get_timeout(Duration::from_millis(20)) {
        Err(Error::Timeout { ready: 0, wanted: 1, .. }) => {}
        other => panic!("{other:?}"),
    }
    std::fs::write(gate, "").unwrap();
    slow.get().unwrap();
}

#[test]
fn wait_keeps_the_order_in_both_halves() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let slow = waits_for::remote(gate.to_str().unwrap().to_owned());
    let quick: Vec<_> = (0..4).map(|_| pid::remote()).collect();
    let mut refs = quick.clone();
    refs.insert(2, slow);
    let (ready, rest) = mobula::wait(refs, 4, None).unwrap();
    assert_eq!((ready.len(), rest.len()), (4, 1));
    assert!(ready.iter().all(ObjectRef::is_ready) && !rest[0].is_ready());
    let (ready, rest) = mobula::wait(rest, 1, Some(Duration::from_millis(10))).unwrap();
    assert_eq!((ready.len(), rest.len()), (0, 1));
    // More are ready than asked for: the first of them, and the rest in order.
    let firsts: Vec<_> = (0..6).map(square::remote).collect();
    mobula::get(&firsts).unwrap();
    let (ready, rest) = mobula::wait(firsts, 2, None).unwrap();
    assert_eq!(mobula::get(ready).unwrap(), [0, 1]);
    assert_eq!(mobula::get(rest.iter()).unwrap(), [4, 9, 16, 25]);
    assert!(matches!(mobula::wait(rest, 5, None), Err(Error::Config { field: "num_ready", .. })));
    std::fs::write(gate, "").unwrap();
}

#[test]
fn several_returns_become_objects_of_their_own() {
    let _session = session(2);
    let (number, text, list) = three::remote(7);
    assert_eq!(text.get().unwrap(), "7");
    assert_eq!(square::remote(number).get().unwrap(), 49);
    assert_eq!(list.get().unwrap(), [7, 7, 7]);
    let parts = up_to::num_returns(300).remote(300);
    assert_eq!(mobula::get(&parts).unwrap(), (0..300).collect::<Vec<u64>>());
    assert_eq!(up_to::remote(3).get().unwrap(), [0, 1, 2]);
    let wrong = up_to::num_returns(2).remote(3);
    let error = wrong[1].get().unwrap_err().to_string();
    assert!(error.contains("3 results, where num_returns asked for 2"), "{error}");
}

#[test]
fn nested_calls_and_recursion_never_deadlock_even_on_one_worker() {
    let _session = session(1);
    assert_eq!(fibonacci::remote(7).get().unwrap(), 13);
    let refs = (0..20).map(square::remote).collect::<Vec<_>>();
    assert_eq!(sum_all::remote(refs).get().unwrap(), 2470);
}

#[test]
fn references_to_calls_that_have_not_begun_outlive_the_call_that_made_them_on_one_worker() {
    let _session = session(1);
    // The process that waits for a worker is the only one.
    let inner = makes_refs::remote(10).get().unwrap();
    assert_eq!(mobula::get(&inner).unwrap(), (0..10).map(|i| i * i).collect::<Vec<i64>>());
}

#[test]
fn references_travel_inside_values_ready_or_not() {
    let _session = session(2);
    let inner = makes_refs::remote(10).get().unwrap();
    assert_eq!(mobula::get(&inner).unwrap(), (0..10).map(|i| i * i).collect::<Vec<i64>>());
    // A reference to a result that is not there yet, inside a value that is.
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let slow = waits_for::remote(gate.to_str().unwrap().to_owned());
    let boxed = mobula::put(&vec![slow]).unwrap();
    let unboxed = boxed.get().unwrap().remove(0);
    assert!(!unboxed.is_ready());
    std::fs::write(gate, "").unwrap();
    assert!(unboxed.get().unwrap() > 0);
    // A failure passes through a promise too.
    let failing: Vec<ObjectRef<i64>> = vec![fails::remote("inner".to_owned())];
    let error = sum_all::remote(failing).get().unwrap_err().to_string();
    assert!(error.contains("inner"), "{error}");
}

#[test]
fn large_arguments_and_results_go_through_the_store() {
    let _session = session(2);
    let bytes = large::remote(3_000_000, 7);
    assert_eq!(length::remote(&bytes).get().unwrap(), 3_000_000);
    assert!(bytes.get().unwrap().iter().all(|byte| *byte == 7));
    assert_eq!(length::remote(vec![1; 100_000]).get().unwrap(), 100_000);
}

#[test]
fn a_long_call_holds_up_no_short_ones() {
    let _session = session(2);
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    // The function is known to be quick, so calls of it are sent ahead to both workers.
    let before: Vec<_> = (0..200).map(square::remote).collect();
    mobula::get(&before).unwrap();
    let slow = waits_for::remote(gate.to_str().unwrap().to_owned());
    let after: Vec<_> = (0..200).map(square::remote).collect();
    mobula::get(&after).unwrap();
    assert!(!slow.is_ready());
    std::fs::write(gate, "").unwrap();
    slow.get().unwrap();
}

#[test]
fn every_call_ends_although_workers_die_all_the_time() {
    let _session = session(2);
    let refs: Vec<_> = (0..300).map(dies_sometimes::remote).collect();
    let mut died = 0;
    for (x, reference) in (0..).zip(&refs) {
        match reference.get_timeout(mobula_tests::PATIENCE) {
            Ok(result) => assert_eq!(result, x),
            // A call may also have been sent to a worker that another call took down.
            Err(Error::Failed(Failure::WorkerDied { .. })) => died += 1,
            other => panic!("call {x}: {other:?}"),
        }
    }
    assert!(died >= 30, "{died} calls failed");
    // With enough retries, calls that only shared a worker with a bad one are retried.
    let options = mobula::TaskOptions::new().max_retries(1000);
    let refs: Vec<_> = (0..200)
        .map(|x| {
            if x % 50 == 7 { dies_sometimes::remote(3) } else { square_u::options(options.clone()).remote(x) }
        })
        .collect();
    for (x, reference) in (0..).zip(&refs).filter(|(x, _)| x % 50 != 7) {
        assert_eq!(reference.get_timeout(mobula_tests::PATIENCE).unwrap(), x * x);
    }
}

#[test]
fn a_worker_that_dies_fails_its_call_and_is_replaced() {
    let _session = session(1);
    match dies::remote().get() {
        Err(Error::Failed(Failure::WorkerDied { function, pid, .. })) => {
            assert_eq!(function, "tasks::dies");
            assert_ne!(pid, 0);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(square::remote(3).get().unwrap(), 9);
    let directory = tempfile::tempdir().unwrap();
    let marker = directory.path().join("marker").to_str().unwrap().to_owned();
    let options = mobula::TaskOptions::new().max_retries(1);
    assert!(dies_once::options(options).remote(marker).get().unwrap() > 0);
}
