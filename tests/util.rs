//! The helpers of `mobula::util`. If these fail:
//!
//! - a map leaves out results, makes too many calls ahead, or goes on after an error;
//! - a reduction mixes up its operands;
//! - a pool gives calls to an actor that is dead or busy, or forgets some.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula::prelude::*;
use mobula::util::{self, ActorPool};
use mobula::{Error, Failure, UtilFailure};
use mobula_tests::{Random, eventually, session};

#[mobula::remote]
fn double(x: u64) -> u64 {
    2 * x
}

/// Ends when its file is there.
#[mobula::remote]
fn gated(directory: PathBuf, number: u64) -> u64 {
    eventually("the gate opens", || mobula::is_cancelled() || directory.join(number.to_string()).exists());
    number
}

#[mobula::remote]
fn fails_at(number: u64, position: u64) -> Result<u64, String> {
    if number == position { Err("no".to_owned()) } else { Ok(number) }
}

#[mobula::remote]
fn join(left: String, right: String) -> String {
    format!("({left}{right})")
}

struct Echo;

#[mobula::remote]
impl Echo {
    fn new() -> Self {
        Self
    }

    fn pid(&self, x: u64) -> (u32, u64) {
        (std::process::id(), x)
    }

    fn gated(&self, directory: PathBuf, number: u64) -> (u32, u64) {
        eventually("the gate opens", || directory.join(number.to_string()).exists());
        (std::process::id(), number)
    }

    fn dies(&self) -> (u32, u64) {
        std::process::abort()
    }
}

fn open(directory: &Path, number: u64) {
    std::fs::write(directory.join(number.to_string()), "").unwrap();
}

#[test]
fn a_map_has_every_result_and_few_calls_ahead() {
    let _session = session(2);
    for (ordered, in_flight) in [(true, 1), (true, 7), (false, 1), (false, 7)] {
        let made = Cell::new(0);
        let items = (0..500).inspect(|_| made.set(made.get() + 1));
        let map = util::map(items, double::remote).in_flight(in_flight);
        let map = if ordered { map } else { map.unordered() };
        let mut results = Vec::new();
        for result in map {
            results.push(result.unwrap());
            assert!(made.get() <= results.len() + in_flight);
        }
        if !ordered {
            results.sort_unstable();
        }
        assert!(results.into_iter().eq((0..500).map(|x| 2 * x)));
    }
    assert_eq!(util::map(Vec::new(), |x: u64| double::remote(x)).count(), 0);
}

#[test]
fn a_map_returns_results_in_the_order_of_their_items_or_as_they_come() {
    let _session = session(2);
    let gates = tempfile::tempdir().unwrap();
    let directory = gates.path().to_owned();
    let mut map = util::map(0..2, |x| gated::remote(directory.clone(), x)).unordered();
    open(gates.path(), 1);
    assert_eq!(map.next().unwrap().unwrap(), 1);
    open(gates.path(), 0);
    assert_eq!(map.next().unwrap().unwrap(), 0);
    assert!(map.next().is_none());
    // Results that come early wait.
    let gates = tempfile::tempdir().unwrap();
    let directory = gates.path().to_owned();
    let mut map = util::map(0..2, |x| gated::remote(directory.clone(), x));
    open(gates.path(), 1);
    open(gates.path(), 0);
    assert_eq!(map.next().unwrap().unwrap(), 0);
    assert_eq!(map.next().unwrap().unwrap(), 1);
}

#[test]
fn the_first_error_ends_a_map_and_its_calls() {
    let _session = session(2);
    let results: Vec<_> = util::map(0.., |x| fails_at::remote(x, 20)).collect();
    assert_eq!(results.len(), 21);
    assert!(results[..20].iter().zip(0..).all(|(result, x)| *result.as_ref().unwrap() == x));
    assert!(matches!(results[20], Err(Error::Task(_))));
    // The others would run for ever.
    let gates = tempfile::tempdir().unwrap();
    let directory = gates.path().to_owned();
    let mut map = util::map(0.., |x| gated::remote(directory.clone(), x)).in_flight(10);
    open(gates.path(), 0);
    assert_eq!(map.next().unwrap().unwrap(), 0);
    drop(map);
    let is_free = || mobula::available_resources().unwrap() == mobula::cluster_resources().unwrap();
    eventually("no call runs", is_free);
}

#[test]
fn a_reduction_keeps_the_order_and_is_no_deeper_than_it_must_be() {
    let _session = session(2);
    assert!(util::reduce(Vec::<ObjectRef<String>>::new(), join::remote).is_none());
    for count in [1, 2, 3, 7, 8, 13, 40] {
        let words: Vec<_> =
            (0..count).map(|n| mobula::put(&char::from(b'A' + n).to_string()).unwrap()).collect();
        let joined = util::reduce(&words, join::remote).unwrap().get().unwrap();
        let text: String = joined.chars().filter(|c| !"()".contains(*c)).collect();
        assert!(text.bytes().eq((0..count).map(|n| b'A' + n)), "{joined}");
        let mut depth = 0_i32;
        let depths = joined.chars().map(|c| {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth
        });
        let deepest = depths.max().unwrap();
        assert!(deepest <= f64::from(count).log2().ceil() as i32 + 1, "{joined}");
    }
}

#[test]
fn a_pool_shares_calls_and_returns_each_result_once() {
    let _session = session(2);
    let mut random = Random::from_environment();
    let mut pool = ActorPool::new((0..3).map(|_| Echo::remote()));
    let results: Vec<_> = pool.map(0..200, |echo, x| echo.pid(x)).map(Result::unwrap).collect();
    assert!(results.iter().map(|(_, x)| *x).eq(0..200));
    let (mut submitted, mut taken) = (0, Vec::new());
    for _ in 0..300 {
        match random.below(4) {
            0 | 1 => {
                pool.submit(move |echo| echo.pid(submitted));
                submitted += 1;
            }
            2 => taken.extend(pool.next().map(|result| result.unwrap().1)),
            _ => taken.extend(pool.next_unordered().map(|result| result.unwrap().1)),
        }
        assert_eq!(pool.pending(), submitted as usize - taken.len());
    }
    while let Some(result) = pool.next() {
        taken.push(result.unwrap().1);
    }
    taken.sort_unstable();
    assert!(taken.into_iter().eq(0..submitted));
    let mut unordered: Vec<_> =
        pool.map_unordered(0..200, |echo, x| echo.pid(x)).map(|result| result.unwrap().1).collect();
    unordered.sort_unstable();
    assert!(unordered.into_iter().eq(0..200));
}

#[test]
fn a_slow_actor_holds_up_no_other_and_a_timeout_loses_nothing() {
    let _session = session(2);
    let gates = tempfile::tempdir().unwrap();
    let directory = gates.path().to_owned();
    let mut pool = ActorPool::new((0..2).map(|_| Echo::remote()));
    let slow = directory.clone();
    pool.submit(move |echo| echo.gated(slow, 0));
    (1..10).for_each(|x| pool.submit(move |echo| echo.pid(x)));
    let others: Vec<_> = (1..10).map(|_| pool.next_unordered().unwrap().unwrap()).collect();
    assert!(others.iter().map(|(_, x)| *x).eq(1..10), "one actor has run them, in their order");
    assert!(matches!(pool.next_timeout(Duration::from_millis(1)), Some(Err(Error::Timeout { .. }))));
    open(gates.path(), 0);
    assert_eq!(pool.next().unwrap().unwrap().1, 0);
    assert!(pool.next().is_none() && pool.has_idle());
    // A map that ends early leaves a call behind, whose actor comes back.
    let mut map = pool.map_unordered(1..3, |echo, x| echo.gated(directory.clone(), x));
    open(gates.path(), 1);
    assert_eq!(map.next().unwrap().unwrap().1, 1);
    drop(map);
    open(gates.path(), 2);
    eventually("both are idle", || {
        let both = [pool.pop_idle(), pool.pop_idle()];
        let are_idle = both.iter().all(Option::is_some);
        both.into_iter().flatten().for_each(|actor| pool.push(actor));
        are_idle
    });
    assert_eq!(pool.pending(), 0);
}

#[test]
fn a_dead_actor_gets_no_more_calls_and_a_pool_of_dead_ones_ends_them() {
    let _session = session(2);
    let died = |result: &mobula::Result<_>| {
        matches!(result, Err(Error::Failed(Failure::ActorDied { .. } | Failure::ActorUnavailable { .. })))
    };
    let mut pool = ActorPool::new((0..2).map(|_| Echo::remote()));
    let call = |echo: &ActorHandle<Echo>, x| if x == 3 { echo.dies() } else { echo.pid(x) };
    let results: Vec<_> = pool.map(0..50, call).collect();
    assert_eq!(results.iter().filter(|result| died(result)).count(), 1, "{results:?}");
    assert!(died(&results[3]));
    let results: Vec<_> = pool.map(0..20, |echo, _| echo.dies()).collect();
    // Once the pool knows that the last actor is dead, it makes no more calls.
    let (last, before) = results.split_last().unwrap();
    let ends = matches!(last, Err(Error::Failed(Failure::Util(UtilFailure::PoolEmpty))));
    assert!(!before.is_empty() && before.iter().all(died), "{results:?}");
    assert!(ends || results.len() == 20 && died(last), "{results:?}");
    pool.push(Echo::remote());
    let results: Vec<_> = pool.map(0..20, |echo, x| echo.pid(x)).collect();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let mut empty: ActorPool<Echo, (u32, u64)> = ActorPool::new([]);
    empty.submit(|echo| echo.pid(1));
    assert!(empty.next().unwrap().unwrap_err().to_string().contains("push"));
}
