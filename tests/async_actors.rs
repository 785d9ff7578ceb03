//! `async` methods of actors: if these fail, calls that wait for something hold up others, or lose what they wait for.

use std::cell::Cell;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use mobula::prelude::*;
use mobula::{ActorOptions, Error, Failure, Reply, TaskErrorKind};
use mobula_tests::{eventually, session};
use tokio::sync::{Barrier, Notify};

struct Service {
    barrier: Barrier,
    news: Notify,
    sender: Mutex<Sender<u32>>,
    receiver: Mutex<Receiver<u32>>,
    log: Mutex<Vec<u32>>,
    last_words: Option<PathBuf>,
}

/// Says when it is dropped.
struct Witness(PathBuf);

impl Drop for Witness {
    fn drop(&mut self) {
        std::fs::write(&self.0, "dropped").unwrap();
    }
}

#[mobula::remote]
impl Service {
    fn new(people: usize, last_words: Option<PathBuf>) -> Self {
        // It runs where the futures will: timers can be made.
        drop(tokio::time::sleep(Duration::ZERO));
        let (sender, receiver) = channel();
        let (barrier, news, log) = (Barrier::new(people), Notify::new(), Mutex::default());
        let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
        Service { barrier, news, sender, receiver, log, last_words }
    }

    async fn meet(&self) -> bool {
        // Futures need not be `Send`.
        let rc = Rc::new(Cell::new(false));
        rc.set(self.barrier.wait().await.is_leader());
        rc.get()
    }

    async fn note(&self, number: u32) {
        self.log.lock().unwrap().push(number);
        tokio::time::sleep(Duration::from_millis(u64::from(number % 3))).await;
    }

    async fn log(&self) -> Vec<u32> {
        self.log.lock().unwrap().clone()
    }

    /// Blocks a thread until an `async` method has sent something.
    fn receive(&self) -> u32 {
        self.receiver.lock().unwrap().recv().unwrap()
    }

    async fn send(&self, number: u32) -> u32 {
        self.sender.lock().unwrap().send(number).unwrap();
        number
    }

    /// Alone, with the others before it and behind it.
    async fn alone(&mut self, number: u32) -> usize {
        tokio::task::yield_now().await;
        self.log.get_mut().unwrap().push(number);
        tokio::task::yield_now().await;
        self.log.get_mut().unwrap().len()
    }

    async fn add(&self, a: Vec<ObjectRef<u32>>) -> mobula::Result<u32> {
        let mut sum = 0;
        for reference in &a {
            sum += reference.get_async().await?;
        }
        Ok(sum)
    }

    async fn checked(&self, number: u32) -> Result<u32, String> {
        tokio::task::yield_now().await;
        if number < 10 { Ok(number) } else { Err(format!("{number} is too large")) }
    }

    async fn panic_with(&self, message: String) {
        tokio::task::yield_now().await;
        panic!("{message}");
    }

    /// Learns of its cancellation, and of no other's.
    async fn until_cancelled(&self, marker: PathBuf) {
        std::fs::write(&marker, "").unwrap();
        mobula::cancelled().await;
        std::fs::write(marker.with_extension("over"), mobula::is_cancelled().to_string()).unwrap();
    }

    async fn until_waited(&self, marker: PathBuf, never: Vec<ObjectRef<()>>) {
        std::fs::write(&marker, "").unwrap();
        let result = never[0].get_async().await;
        std::fs::write(marker.with_extension("over"), format!("{result:?}")).unwrap();
    }

    async fn for_ever(&self, marker: PathBuf, dropped: PathBuf) {
        let _witness = Witness(dropped);
        std::fs::write(&marker, "").unwrap();
        std::future::pending().await
    }

    async fn later(&self, reply: Reply<u32>) {
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            reply.send(9);
        });
    }

    #[remote(streaming, max_in_flight = 2)]
    async fn numbers(&self, count: u32) -> Vec<u32> {
        tokio::task::yield_now().await;
        (0..count).collect()
    }

    /// Each item waits for news.
    #[remote(streaming, max_in_flight = 3)]
    fn news(&self) -> impl Stream<Item = Result<u32, String>> {
        let mut next = 0;
        let mut waiting = Box::pin(self.news.notified());
        poll_fn(move |context| {
            ready!(waiting.as_mut().poll(context));
            waiting = Box::pin(self.news.notified());
            next += 1;
            Poll::Ready(Some(if next < 5 { Ok(next) } else { Err("no more".to_owned()) }))
        })
    }

    async fn publish(&self) {
        self.news.notify_one();
    }
}

/// A stream of the function that polls it.
struct PollFn<F>(F);

fn poll_fn<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin>(poll: F) -> PollFn<F> {
    PollFn(poll)
}

impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin> Stream for PollFn<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(context)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(path) = &self.last_words {
            std::fs::write(path, "").unwrap();
        }
    }
}

#[mobula::remote]
fn never() {
    loop {
        std::thread::park();
    }
}

#[mobula::remote]
fn number(of: u32) -> u32 {
    of
}

#[test]
fn a_thousand_calls_are_under_way() {
    let _session = session(1);
    let service = Service::remote(1000, None);
    let calls: Vec<_> = (0..1000).map(|_| service.meet()).collect();
    let leaders = mobula::get(&calls).unwrap();
    assert_eq!(leaders.iter().filter(|is_leader| **is_leader).count(), 1);

    // With two places, the third waits for a place.
    let service = Service::options(ActorOptions::new().max_concurrency(2)).remote(3, None);
    let calls: Vec<_> = (0..3).map(|_| service.meet()).collect();
    let (ready, _) = mobula::wait(&calls, 1, Some(Duration::from_millis(50))).unwrap();
    assert!(ready.is_empty());
}

#[test]
fn blocking_calls_do_not_stop_them_and_they_begin_in_order() {
    let _session = session(1);
    let service = Service::remote(1, None);
    let received = service.receive();
    let expected: Vec<u32> = (0..300).collect();
    let noted: Vec<_> = expected.iter().map(|number| service.note(*number)).collect();
    mobula::get(&noted).unwrap();
    assert_eq!(service.log().get().unwrap(), expected);
    service.send(4).get().unwrap();
    assert_eq!(received.get().unwrap(), 4);
    let alone: Vec<_> = (0..5).map(|number| service.alone(number)).collect();
    assert_eq!(mobula::get(&alone).unwrap(), [301, 302, 303, 304, 305]);
}

#[test]
fn futures_await_results_timers_and_replies() {
    let _session = session(2);
    let service = Service::remote(1, None);
    let numbers: Vec<_> = (0..10).map(number::remote).collect();
    let sums: Vec<_> = (0..20).map(|_| service.add(put(&numbers).unwrap())).collect();
    assert_eq!(mobula::get(&sums).unwrap(), vec![45; 20]);
    assert_eq!(service.later().get().unwrap(), 9);
    let items: Vec<_> = service.numbers(100).map(|item| item.get().unwrap()).collect();
    assert_eq!(items, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_stream_that_waits_holds_up_no_other_call() {
    let _session = session(1);
    let service = Service::remote(1, None);
    // A subscriber, and the publisher that it waits for: on one thread.
    let mut news = service.news();
    for number in 1..5 {
        service.publish().get().unwrap();
        assert_eq!(news.next().unwrap().get().unwrap(), number);
    }
    service.publish().get().unwrap();
    assert!(news.next().unwrap().get().unwrap_err().to_string().contains("no more"));
    assert!(news.next().is_none());
    // One that is dropped while it is full gives its place back.
    let service = Service::options(ActorOptions::new().max_concurrency(1)).remote(1, None);
    let mut full = service.numbers(1000);
    drop((full.next(), full));
    service.meet().get().unwrap();
}

#[test]
fn an_error_or_a_panic_is_the_answer_of_its_call_alone() {
    let _session = session(1);
    let service = Service::remote(2, None);
    let met = service.meet();
    assert_eq!(service.checked(3).get().unwrap(), 3);
    let Err(Error::Task(error)) = service.checked(30).get() else { panic!("it is too large") };
    assert_eq!((error.kind, &*error.message), (TaskErrorKind::Returned, "30 is too large"));
    for _ in 0..10 {
        let Err(Error::Task(error)) = service.panic_with("no".to_owned()).get() else { panic!() };
        assert_eq!((error.kind, &*error.message), (TaskErrorKind::Panicked, "no"));
        assert_eq!(error.function, "async_actors::Service::panic_with");
    }
    mobula::get([met, service.meet()]).unwrap();
}

#[test]
fn a_future_learns_of_its_own_cancellation() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let service = Service::remote(1, None);
    let never = never::remote();
    let path = |name: &str| directory.path().join(name);
    let over = |name: &str| std::fs::read_to_string(path(name).with_extension("over")).unwrap_or_default();
    let calls = [
        service.until_cancelled(path("a")),
        service.until_cancelled(path("b")),
        service.until_waited(path("c"), vec![never.clone()]),
        service.until_waited(path("d"), vec![never.clone()]),
    ];
    eventually("all wait", || ["a", "b", "c", "d"].iter().all(|name| path(name).exists()));
    calls[0].cancel().unwrap();
    calls[2].cancel().unwrap();
    assert!(matches!(calls[0].get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    eventually("one learns of it", || over("a") == "true");
    eventually("the other learns of it", || over("c").contains("Cancelled"));
    service.send(1).get().unwrap();
    assert_eq!((over("b"), over("d")), (String::new(), String::new()));
}

#[test]
fn what_waits_for_ever_is_dropped_with_the_actor() {
    let session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let service = Service::remote(1, Some(path("state")));
    let call = service.for_ever(path("begun"), path("future"));
    eventually("it has begun", || path("begun").exists());
    let _lock = session.end();
    assert!(call.get().is_err());
    eventually("the future is dropped", || path("future").exists());
    eventually("the state is dropped", || path("state").exists());
}
