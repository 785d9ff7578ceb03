//! Answers that are given later: if these fail, calls of queues, locks and barriers hang, get the answer of another
//! call, or fail without a reason.

use std::collections::VecDeque;
use std::path::PathBuf;

use mobula::prelude::*;
use mobula::{ActorEnd, ActorOptions, Error, Failure, Reply, TaskErrorKind};
use mobula_tests::{eventually, session};

#[derive(Default)]
struct Mailbox {
    letters: VecDeque<String>,
    waiting: VecDeque<Reply<String>>,
}

#[mobula::remote]
impl Mailbox {
    fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, letter: String) {
        while let Some(reply) = self.waiting.pop_front() {
            if reply.is_wanted() {
                return reply.send(letter);
            }
        }
        self.letters.push_back(letter);
    }

    fn pop(&mut self, reply: Reply<String>) {
        match self.letters.pop_front() {
            Some(letter) => reply.send(letter),
            None => self.waiting.push_back(reply),
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn wanted(&self) -> usize {
        self.waiting.iter().filter(|reply| reply.is_wanted()).count()
    }

    fn forget(&mut self) {
        self.waiting.clear();
    }

    fn crash(&self) {
        std::process::abort();
    }

    fn refuse(&mut self) {
        self.waiting.drain(..).for_each(|reply| reply.fail("no letters today"));
    }

    fn parse(&self, _: u8, reply: Reply<i64>, text: String) {
        reply.send_result(text.parse::<i64>());
    }

    fn panic_with(&mut self, message: String, _reply: Reply<()>) {
        // Replies of other calls are lost with it.
        let _lost = std::mem::take(&mut self.waiting);
        panic!("{message}");
    }

    fn wait_for(&self, number: ObjectRef<u64>, reply: Reply<u64>) {
        std::thread::spawn(move || reply.send_result(number.get()));
    }

    fn large(&self, bytes: usize, reply: Reply<Vec<u8>>) {
        reply.send(vec![7; bytes]);
    }

    fn is_cancelled(&self) -> bool {
        mobula::is_cancelled()
    }

    /// Cancelled while it runs, before it has given its reply away.
    fn spin(&mut self, marker: PathBuf, reply: Reply<bool>) {
        std::fs::write(&marker, "").expect("the directory is there");
        while !mobula::is_cancelled() {
            std::thread::yield_now();
        }
        std::fs::write(marker.with_extension("over"), "").expect("the directory is there");
        reply.send(true);
    }

    fn when_unwanted(&self, marker: PathBuf, reply: Reply<()>) {
        std::thread::spawn(move || {
            std::fs::write(&marker, "").expect("the directory is there");
            pollster::block_on(reply.unwanted());
            std::fs::write(marker.with_extension("over"), "").expect("the directory is there");
        });
    }
}

#[mobula::remote]
fn number(of: u64) -> u64 {
    of
}

/// Waits for a letter, in a process of its own.
#[mobula::remote]
fn reader(mailbox: ActorHandle<Mailbox>, pid: PathBuf) -> mobula::Result<String> {
    let letter = mailbox.pop();
    std::fs::write(&pid, std::process::id().to_string()).expect("the directory is there");
    letter.get()
}

#[test]
fn a_call_ends_when_its_reply_is_given() {
    let _session = session(1);
    let mailbox = Mailbox::remote();
    let letters: Vec<_> = (0..100).map(|_| mailbox.pop()).collect();
    // The actor runs other calls meanwhile.
    assert_eq!(mailbox.waiting().get().unwrap(), 100);
    assert!(letters.iter().all(|letter| !letter.is_ready()));
    (0..100).for_each(|number| drop(mailbox.push(number.to_string())));
    let expected: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(mobula::get(&letters).unwrap(), expected);
    assert_eq!(mailbox.large(1 << 20).get().unwrap(), vec![7; 1 << 20]);
    assert_eq!(mailbox.wait_for(put(&number::remote(8)).unwrap()).get().unwrap(), 8);
}

#[test]
fn errors_name_class_and_method() {
    let _session = session(1);
    let mailbox = Mailbox::remote();
    let task_error = |result: mobula::Result<String>| match result {
        Err(Error::Task(error)) => error,
        other => panic!("{other:?}"),
    };
    let letter = mailbox.pop();
    mailbox.refuse();
    let error = task_error(letter.get());
    assert_eq!((error.kind, &*error.message), (TaskErrorKind::Returned, "no letters today"));
    assert_eq!(error.function, "replies::Mailbox::pop");

    let letter = mailbox.pop();
    mailbox.forget();
    let error = task_error(letter.get());
    assert_eq!((error.kind, &*error.function), (TaskErrorKind::NotAnswered, "replies::Mailbox::pop"));

    assert_eq!(mailbox.parse(1, "42".to_owned()).get().unwrap(), 42);
    let error = task_error(mailbox.parse(1, "x".to_owned()).get().map(|_| String::new()));
    assert_eq!((error.kind, &*error.message), (TaskErrorKind::Returned, "invalid digit found in string"));
    assert_eq!(error.function, "replies::Mailbox::parse");
}

#[test]
fn a_panic_is_the_answer_to_each_reply_that_it_drops() {
    let _session = session(1);
    let mailbox = Mailbox::remote();
    let letter = mailbox.pop();
    let panics = mailbox.panic_with("the post office is on fire".to_owned());
    for (result, method) in [(panics.get(), "panic_with"), (letter.get().map(drop), "pop")] {
        let Err(Error::Task(error)) = result else { panic!("{result:?}") };
        assert_eq!((error.kind, &*error.message), (TaskErrorKind::Panicked, "the post office is on fire"));
        assert_eq!(error.function, format!("replies::Mailbox::{method}"));
    }
    // It goes on.
    mailbox.push("a".to_owned());
    assert_eq!(mailbox.pop().get().unwrap(), "a");
}

#[test]
fn a_cancelled_call_shows_on_its_reply_alone() {
    let _session = session(1);
    let mailbox = Mailbox::remote();
    let letters: Vec<_> = (0..3).map(|_| mailbox.pop()).collect();
    assert_eq!(mailbox.wanted().get().unwrap(), 3);
    letters[0].cancel().unwrap();
    assert!(matches!(letters[0].get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    eventually("the cancellation arrives", || mailbox.wanted().get().unwrap() == 2);
    assert!(!mailbox.is_cancelled().get().unwrap());
    mailbox.push("b".to_owned());
    assert_eq!(letters[1].get().unwrap(), "b");
    mailbox.push("c".to_owned());
    assert_eq!(letters[2].get().unwrap(), "c");
}

#[test]
fn a_method_learns_of_its_cancellation_before_and_after_it_has_returned() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let mailbox = Mailbox::remote();
    let spins = directory.path().join("spins");
    let call = mailbox.spin(spins.clone());
    eventually("it runs", || spins.exists());
    call.cancel().unwrap();
    eventually("it ends", || spins.with_extension("over").exists());
    assert!(!mailbox.is_cancelled().get().unwrap());

    let waits = directory.path().join("waits");
    let call = mailbox.when_unwanted(waits.clone());
    eventually("it waits", || waits.exists());
    call.cancel().unwrap();
    eventually("it ends", || waits.with_extension("over").exists());
}

#[test]
fn the_end_of_a_caller_shows_on_its_replies() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let mailbox = Mailbox::remote();
    let pid = directory.path().join("pid");
    let lost = reader::remote(mailbox.clone(), pid.clone());
    eventually("it waits for a letter", || mailbox.wanted().get().unwrap() == 1);
    let pid = std::fs::read_to_string(pid).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("its end shows", || mailbox.wanted().get().unwrap() == 0);
    assert!(lost.get().is_err());
    let letter = mailbox.pop();
    mailbox.push("for the living".to_owned());
    assert_eq!(letter.get().unwrap(), "for the living");
}

#[test]
fn calls_without_an_answer_fail_with_the_actor() {
    let _session = session(1);
    let mailbox = Mailbox::remote();
    let letter = mailbox.pop();
    assert_eq!(mailbox.waiting().get().unwrap(), 1);
    drop(mailbox.crash());
    assert!(matches!(
        letter.get(),
        Err(Error::Failed(Failure::ActorDied { cause: ActorEnd::Process { .. }, .. }))
    ));

    let options = ActorOptions::new().max_restarts(1).max_task_retries(1);
    let mailbox = Mailbox::options(options).remote();
    let letter = mailbox.pop();
    assert_eq!(mailbox.waiting().get().unwrap(), 1);
    assert!(mailbox.crash().get().is_err()); // retried once, and crashed again
    assert!(letter.get().is_err());
}

#[test]
fn a_call_without_an_answer_keeps_its_actor() {
    let _session = session(1);
    let mailbox = Mailbox::remote();
    let letter = mailbox.pop();
    let other = mailbox.pop();
    mailbox.push("last".to_owned());
    drop(mailbox);
    assert_eq!(letter.get().unwrap(), "last");
    assert!(!other.is_ready());
}
