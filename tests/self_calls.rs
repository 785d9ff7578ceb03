//! Calls of an actor to itself: if these fail, such a call is never run, or the actor hangs without a word.

use mobula::prelude::*;
use mobula::{Error, Failure, Reply};
use mobula_tests::{PATIENCE, eventually, session};

#[derive(Default)]
struct Chain {
    own: Option<ActorHandle<Chain>>,
    steps: Vec<u32>,
}

#[mobula::remote]
impl Chain {
    fn new() -> Self {
        Self::default()
    }

    fn know(&mut self, own: ActorHandle<Chain>) {
        self.own = Some(own);
    }

    fn own(&self) -> Option<ActorHandle<Chain>> {
        self.own.clone()
    }

    fn forget(&mut self) {
        self.own = None;
    }

    /// Continues later, after the waiting calls.
    fn step(&mut self, left: u32) {
        self.steps.push(left);
        if let (Some(own), 1..) = (&self.own, left) {
            own.step(left - 1);
        }
    }

    fn steps(&self) -> Vec<u32> {
        self.steps.clone()
    }

    fn waits(&self) -> Result<Vec<u32>> {
        self.own.as_ref().expect("it is known").steps().get()
    }

    fn large(&self, bytes: Vec<u8>) -> usize {
        bytes.len()
    }

    /// A call that is not waited for, whose argument and result do not fit a record.
    fn gives_itself_much(&self) -> ObjectRef<usize> {
        self.own.as_ref().expect("it is known").large(vec![7; 1 << 20])
    }
}

/// With several calls at a time.
struct Wide;

#[mobula::remote(max_concurrency = 4)]
impl Wide {
    fn new() -> Self {
        Self
    }

    fn sum(&self, own: ActorHandle<Wide>, to: u64) -> Result<u64> {
        if to == 0 { Ok(0) } else { Ok(to + own.sum(own.clone(), to - 1).get()?) }
    }

    fn bytes(&self, own: ActorHandle<Wide>, count: usize) -> Result<usize> {
        Ok(own.echo(vec![1; count]).get()?.len())
    }

    fn echo(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
}

struct Polled;

#[mobula::remote]
impl Polled {
    fn new() -> Self {
        Self
    }

    async fn sum(&self, own: ActorHandle<Polled>, to: u64) -> Result<u64> {
        if to == 0 { Ok(0) } else { Ok(to + own.sum(own.clone(), to - 1).get_async().await?) }
    }
}

/// Answers by a call to itself.
struct Later;

#[mobula::remote]
impl Later {
    fn new() -> Self {
        Self
    }

    fn ask(&self, own: ActorHandle<Later>, reply: Reply<u32>) {
        std::thread::spawn(move || reply.send_result(own.answer().get()));
    }

    fn answer(&self) -> u32 {
        42
    }
}

#[test]
fn a_call_to_itself_runs_behind_the_calls_that_wait() {
    let _session = session(1);
    let chain = Chain::remote();
    chain.know(chain.clone()).get().unwrap();
    chain.step(3).get().unwrap();
    eventually("the chain ends", || chain.steps().get().unwrap() == [3, 2, 1, 0]);
    // Many at once: more than a ring has room for.
    chain.step(2000);
    eventually("the chain ends", || chain.steps().get().unwrap().len() == 4 + 2001);
    assert!(chain.own().get().unwrap() == Some(chain.clone()));
    chain.forget().get().unwrap();
}

#[test]
fn a_wait_for_itself_is_a_deadlock() {
    let _session = session(1);
    let chain = Chain::remote();
    chain.know(chain.clone()).get().unwrap();
    let error = chain.waits().get_timeout(PATIENCE).unwrap_err();
    let Error::Task(error) = error else { panic!("{error}") };
    let Some(Failure::Deadlock { cycle }) = error.cause.map(|cause| *cause) else { panic!("no deadlock") };
    assert_eq!(cycle.len(), 1, "{cycle:?}");
    // The actor continues.
    assert!(chain.steps().get().unwrap().is_empty());
    chain.forget().get().unwrap();
}

#[test]
fn a_call_to_itself_runs_beside_the_call_that_made_it() {
    let _session = session(1);
    let wide = Wide::remote();
    assert_eq!(wide.sum(wide.clone(), 3).get_timeout(PATIENCE).unwrap(), 6);
    for bytes in [10, 5000, 3 << 20] {
        assert_eq!(wide.bytes(wide.clone(), bytes).get_timeout(PATIENCE).unwrap(), bytes);
    }
    let polled = Polled::remote();
    assert_eq!(polled.sum(polled.clone(), 100).get_timeout(PATIENCE).unwrap(), 5050);
    let later = Later::remote();
    let answers: Vec<_> = (0..50).map(|_| later.ask(later.clone())).collect();
    assert_eq!(mobula::get_timeout(answers, PATIENCE).unwrap(), [42; 50]);
}

#[test]
fn too_deep_a_wait_has_no_place() {
    let _session = session(1);
    let wide = Wide::remote();
    // Four places, five calls: none of the places comes free.
    let error = wide.sum(wide.clone(), 4).get_timeout(PATIENCE).unwrap_err();
    assert!(error.to_string().contains("a deadlock"), "{error}");
    // Afterwards all of them are.
    assert_eq!(wide.sum(wide.clone(), 3).get_timeout(PATIENCE).unwrap(), 6);
}

#[test]
fn results_of_calls_to_itself_can_go_elsewhere() {
    let _session = session(1);
    let chain = Chain::remote();
    chain.know(chain.clone()).get().unwrap();
    let inner = chain.gives_itself_much().get().unwrap();
    assert_eq!(inner.get_timeout(PATIENCE).unwrap(), 1 << 20);
    chain.forget().get().unwrap();
}
