//! Actors with several calls at a time, on threads. If these fail:
//!
//! - calls that can run at the same time wait for each other;
//! - two calls change the same state at once;
//! - calls are lost when one of them fails.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex};
use std::time::Duration;

use mobula::prelude::*;
use mobula::{ActorEnd, ActorOptions, Error, Failure, Reply, TaskErrorKind};
use mobula_tests::{PATIENCE, eventually, session};

/// Opens once, for all that wait.
#[derive(Default)]
struct Door {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Door {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let is_open = self.is_open.lock().unwrap();
        drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
    }
}

struct Hall {
    barrier: Barrier,
    door: Door,
    inside: AtomicUsize,
    log: Mutex<Vec<u32>>,
    last_words: Option<PathBuf>,
}

#[mobula::remote(max_concurrency = 3)]
impl Hall {
    fn new(people: usize, last_words: Option<PathBuf>) -> Self {
        let (door, inside, log) = (Door::default(), AtomicUsize::new(0), Mutex::default());
        Hall { barrier: Barrier::new(people), door, inside, log, last_words }
    }

    fn meet(&self) -> bool {
        self.barrier.wait().is_leader()
    }

    /// Waits inside for the door.
    fn enter(&self, number: u32) {
        self.inside.fetch_add(1, Ordering::SeqCst);
        self.log.lock().unwrap().push(number);
        self.door.wait();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    fn open(&self) {
        self.door.open();
    }

    fn note(&self, number: u32) {
        self.log.lock().unwrap().push(number);
    }

    /// Nobody is inside meanwhile.
    fn alone(&mut self, number: u32) -> usize {
        self.log.get_mut().unwrap().push(number);
        let inside = *self.inside.get_mut();
        std::thread::yield_now();
        inside
    }

    fn log(&self) -> Vec<u32> {
        self.log.lock().unwrap().clone()
    }

    fn panic_with(&self, message: String) {
        panic!("{message}");
    }

    fn crash(&self) {
        std::process::abort();
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Waits for a call that never ends, until it is cancelled.
    fn waits(&self, marker: PathBuf, never: Vec<ObjectRef<()>>) -> mobula::Result<()> {
        std::fs::write(&marker, "").unwrap();
        let result = never[0].get();
        std::fs::write(marker.with_extension("over"), format!("{result:?} {}", mobula::is_cancelled()))
            .unwrap();
        result
    }

    /// A stream that ends when the door is open.
    #[remote(streaming, max_in_flight = 2)]
    fn numbers(&self) -> impl Iterator<Item = u32> {
        (0..).take_while(|_| !*self.door.is_open.lock().unwrap())
    }

    fn later(&self, reply: Reply<u32>) {
        std::thread::spawn(move || reply.send(5));
    }

    #[remote(num_returns = 2)]
    fn both(&self) -> (u32, String) {
        (1, "two".to_owned())
    }

    fn large(&self, bytes: Bytes) -> Bytes {
        bytes
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        if let Some(path) = &self.last_words {
            std::fs::write(path, self.inside.load(Ordering::SeqCst).to_string()).unwrap();
        }
    }
}

#[mobula::remote]
fn never() {
    loop {
        std::thread::park();
    }
}

#[test]
fn calls_run_side_by_side_up_to_the_limit() {
    let _session = session(1);
    let hall = Hall::remote(3, None);
    let leaders = mobula::get([hall.meet(), hall.meet(), hall.meet()]).unwrap();
    assert_eq!(leaders.iter().filter(|is_leader| **is_leader).count(), 1);

    // Three are inside, and no call begins any more.
    let entered: Vec<_> = (0..3).map(|number| hall.enter(number)).collect();
    let fourth = hall.inside();
    let (ready, _) =
        mobula::wait(std::slice::from_ref(&fourth), 1, Some(std::time::Duration::from_millis(50))).unwrap();
    assert!(ready.is_empty());
    drop((entered, fourth));
    mobula::kill(&hall).unwrap();

    // Another limit when it is made.
    let hall = Hall::options(ActorOptions::new().max_concurrency(5)).remote(5, None);
    mobula::get((0..5).map(|_| hall.meet())).unwrap();
    let (one, two) = hall.both();
    assert_eq!((one.get().unwrap(), two.get().unwrap()), (1, "two".to_owned()));
    assert_eq!(hall.later().get().unwrap(), 5);
    let bytes = Bytes::from(vec![3; 1 << 20]);
    assert_eq!(hall.large(bytes.clone()).get().unwrap(), bytes);
}

#[test]
fn a_method_with_mut_self_runs_alone_and_in_its_turn() {
    let _session = session(1);
    let hall = Hall::remote(1, None);
    let entered: Vec<_> = (0..2).map(|number| hall.enter(number)).collect();
    eventually("two are inside", || hall.inside().get().unwrap() == 2);
    // It waits for the two; the calls behind it wait for it, though they could run beside the two.
    let alone = hall.alone(10);
    let notes: Vec<_> = (11..20).map(|number| hall.note(number)).collect();
    let second = hall.alone(20);
    let (ready, _) = mobula::wait(&notes, 1, Some(std::time::Duration::from_millis(50))).unwrap();
    assert!(ready.is_empty());
    mobula::kill(&hall).unwrap();
    drop((entered, alone, second));

    let hall = Hall::options(ActorOptions::new().max_concurrency(8)).remote(1, None);
    let entered: Vec<_> = (0..2).map(|number| hall.enter(number)).collect();
    hall.open();
    let alone = hall.alone(10);
    let notes: Vec<_> = (11..14).map(|number| hall.note(number)).collect();
    let second = hall.alone(20);
    mobula::get(&entered).unwrap();
    mobula::get(&notes).unwrap();
    assert_eq!((alone.get().unwrap(), second.get().unwrap()), (0, 0));
    let log = hall.log().get().unwrap();
    let position = |number| log.iter().position(|other| *other == number).unwrap();
    assert!((0..2).all(|number| position(number) < position(10)), "{log:?}");
    assert!(
        (11..14).all(|number| position(10) < position(number) && position(number) < position(20)),
        "{log:?}"
    );
}

#[test]
fn one_place_keeps_the_order() {
    let _session = session(1);
    let hall = Hall::options(ActorOptions::new().max_concurrency(1)).remote(1, None);
    (0..500).for_each(|number| drop(if number % 3 == 0 { hall.alone(number).cancel() } else { Ok(()) }));
    let expected: Vec<u32> = (1000..1500).collect();
    let noted: Vec<_> = expected.iter().map(|number| hall.note(*number)).collect();
    mobula::get(&noted).unwrap();
    let log = hall.log().get().unwrap();
    assert_eq!(log.into_iter().filter(|number| *number >= 1000).collect::<Vec<_>>(), expected);
}

#[test]
fn a_panic_is_the_answer_of_its_call_alone() {
    let _session = session(1);
    let hall = Hall::remote(1, None);
    let entered = hall.enter(1);
    for _ in 0..10 {
        let Err(Error::Task(error)) = hall.panic_with("mind the step".to_owned()).get() else { panic!() };
        assert_eq!((error.kind, &*error.message), (TaskErrorKind::Panicked, "mind the step"));
        assert_eq!(error.function, "concurrency::Hall::panic_with");
    }
    hall.open();
    entered.get().unwrap();
}

#[test]
fn a_cancelled_call_ends_beside_others() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let hall = Hall::remote(1, None);
    let never = never::remote();
    let markers: Vec<_> = (0..2).map(|number| directory.path().join(number.to_string())).collect();
    let waits: Vec<_> =
        markers.iter().map(|marker| hall.waits(marker.clone(), vec![never.clone()])).collect();
    eventually("both wait", || markers.iter().all(|marker| marker.exists()));
    waits[0].cancel().unwrap();
    let over = markers[0].with_extension("over");
    eventually("one learns of it", || {
        std::fs::read_to_string(&over).is_ok_and(|text| text.ends_with("true"))
    });
    assert_eq!(hall.inside().get().unwrap(), 0);
    assert!(!markers[1].with_extension("over").exists());
    // One that has not begun never does.
    let entered: Vec<_> = (0..2).map(|number| hall.enter(number)).collect();
    let (gone, other) = (hall.note(7), hall.note(8));
    gone.cancel().unwrap();
    hall.waits(directory.path().join("later"), vec![never.clone()]);
    drop(waits);
    mobula::cancel([&never]).unwrap();
    hall.open();
    mobula::get(&entered).unwrap();
    other.get().unwrap();
    assert!(!hall.log().get().unwrap().contains(&7));
}

#[test]
fn a_stream_holds_up_no_other_call() {
    let _session = session(1);
    let hall = Hall::remote(2, None);
    let mut streams: Vec<_> = (0..2).map(|_| hall.numbers()).collect();
    // Both are full, and the third place is left.
    assert_eq!(hall.inside().get().unwrap(), 0);
    for number in 0..10 {
        for stream in &mut streams {
            assert_eq!(stream.next().unwrap().get().unwrap(), number);
        }
    }
    drop(streams.pop());
    hall.open().get().unwrap();
    // Items that were made before that still come, and then the end.
    for (number, item) in (10..).zip(streams.pop().unwrap()) {
        assert_eq!(item.get().unwrap(), number);
    }
}

#[test]
fn calls_under_way_fail_when_the_process_dies_and_run_again_if_they_may() {
    let _session = session(1);
    let hall = Hall::remote(1, None);
    let entered: Vec<_> = (0..5).map(|number| hall.enter(number)).collect();
    drop(hall.crash());
    mobula::kill(&hall).unwrap();
    for call in entered {
        assert!(matches!(call.get(), Err(Error::Failed(Failure::ActorDied { cause: ActorEnd::Killed, .. }))));
    }

    let options = ActorOptions::new().max_restarts(1).max_task_retries(3);
    let hall = Hall::options(options).remote(2, None);
    let pid = hall.pid().get().unwrap();
    let met = hall.meet();
    eventually("it has begun", || hall.inside().get().is_ok());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    // The retried call meets this one.
    mobula::get([met, hall.meet()]).unwrap();
    assert_ne!(hall.pid().get().unwrap(), pid);
}

#[test]
fn an_actor_finishes_what_runs_and_drops_its_state() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("last");
    let hall = Hall::remote(1, Some(path.clone()));
    let entered = hall.enter(1);
    let opened = hall.open();
    drop(hall);
    mobula::get([entered, opened]).unwrap();
    eventually("its destructor runs", || std::fs::read_to_string(&path).is_ok_and(|text| text == "0"));
}

struct Office {
    door: Door,
}

#[mobula::remote(concurrency_groups(io = 1, compute = 2))]
impl Office {
    fn new() -> Self {
        Office { door: Door::default() }
    }

    #[remote(group = "io")]
    fn wait(&self) {
        self.door.wait();
    }

    #[remote(group = "compute")]
    fn open(&self) {
        self.door.open();
    }

    fn without_group(&self) -> u32 {
        3
    }
}

#[test]
fn groups_do_not_hold_each_other_up() {
    let _session = session(1);
    let office = Office::remote();
    let waiting = [office.wait(), office.wait()];
    assert_eq!(office.without_group().get().unwrap(), 3);
    office.open().get().unwrap();
    mobula::get(waiting).unwrap();
}

struct Impatient(Vec<u32>);

#[mobula::remote(allow_out_of_order)]
impl Impatient {
    fn new() -> Self {
        Impatient(Vec::new())
    }
    fn add(&mut self, number: u32) -> Vec<u32> {
        self.0.push(number);
        self.0.clone()
    }
}

/// Waits until there is a file.
#[mobula::remote]
fn after(path: PathBuf, number: u32) -> u32 {
    eventually("there is a file", || path.exists());
    number
}

#[test]
fn a_call_overtakes_one_whose_arguments_are_not_there_where_that_is_allowed() {
    let _session = session(1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("now");
    let actor = Impatient::remote();
    let late = actor.add(after::remote(path.clone(), 1));
    let second = actor.add(2);
    assert_eq!(second.get().unwrap(), [2]);
    let third = actor.add(3);
    std::fs::write(&path, "").unwrap();
    assert_eq!(third.get().unwrap(), [2, 3]);
    assert_eq!(late.get().unwrap(), [2, 3, 1]);
}

struct Single;

#[mobula::remote]
impl Single {
    fn new() -> Self {
        Single
    }
    fn one(&self) -> u32 {
        1
    }
}

#[test]
fn a_limit_that_cannot_be_is_an_error() {
    let _session = session(1);
    let single = Single::options(ActorOptions::new().max_concurrency(2)).remote();
    let error = single.one().get().unwrap_err().to_string();
    assert!(error.contains("concurrency::Single") && error.contains("max_concurrency"), "{error}");
    let hall = Hall::options(ActorOptions::new().max_concurrency(0)).remote(1, None);
    let error = hall.inside().get().unwrap_err().to_string();
    assert!(error.contains("1 or more"), "{error}");
}

/// Calls that wait for a file, on threads and as futures.
struct Waits(PathBuf);

#[mobula::remote(max_concurrency = 2)]
impl Waits {
    fn new(directory: PathBuf) -> Self {
        Waits(directory)
    }

    /// Names the process that it runs in.
    fn on_a_thread(&self, number: u32) -> u32 {
        self.begin(number);
        while !self.0.join("open").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::process::id()
    }

    async fn as_a_future(&self, number: u32) -> u32 {
        self.begin(number);
        while !self.0.join("open").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::process::id()
    }
}

impl Waits {
    fn begin(&self, number: u32) {
        std::fs::write(self.0.join(format!("{number} began")), "").unwrap();
    }
}

/// A way to call [`Waits`].
type Way = fn(&ActorHandle<Waits>, u32) -> ObjectRef<u32>;

const WAYS: [Way; 2] = [|waits, n| waits.on_a_thread(n), |waits, n| waits.as_a_future(n)];

fn began(directory: &tempfile::TempDir, number: u32) -> bool {
    directory.path().join(format!("{number} began")).exists()
}

#[test]
fn calls_that_waited_for_a_place_wait_for_the_restart() {
    for way in WAYS {
        let directory = tempfile::tempdir().unwrap();
        let _session = session(1);
        let waits = Waits::options(ActorOptions::new().max_restarts(1)).remote(directory.path().to_owned());
        let calls: Vec<_> = (0..6).map(|number| way(&waits, number)).collect();
        eventually("two begin", || began(&directory, 0) && began(&directory, 1));
        mobula::kill_process(&waits).unwrap();
        let (begun, waiting) = calls.split_at(2);
        for call in begun {
            match call.get() {
                Err(Error::Failed(Failure::ActorUnavailable { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
        std::fs::write(directory.path().join("open"), "").unwrap();
        let processes = mobula::get(waiting).unwrap();
        assert!(processes.windows(2).all(|pair| pair[0] == pair[1]), "{processes:?}");
    }
}

#[test]
fn an_actor_that_is_terminated_finishes_the_calls_that_wait_for_a_place() {
    for way in WAYS {
        let directory = tempfile::tempdir().unwrap();
        let _session = session(1);
        let waits = Waits::remote(directory.path().to_owned());
        let calls: Vec<_> = (0..6).map(|number| way(&waits, number)).collect();
        eventually("two begin", || began(&directory, 0) && began(&directory, 1));
        match mobula::terminate(&waits, Duration::from_millis(1)) {
            Err(Error::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        let late = way(&waits, 6);
        std::fs::write(directory.path().join("open"), "").unwrap();
        mobula::terminate(&waits, PATIENCE).unwrap();
        assert_eq!(mobula::get(&calls).unwrap().len(), 6);
        match late.get() {
            Err(Error::Failed(Failure::ActorDied { cause: ActorEnd::Exited, .. })) => {}
            other => panic!("{other:?}"),
        }
    }
}
