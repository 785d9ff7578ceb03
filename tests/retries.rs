//! Retries because of errors: if these fail, a call is retried too often, not often enough, or never comes to its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobula::{
    ActorHandle, ActorOptions, Builder, CancelOptions, Error, Failure, MethodOptions, ObjectRef,
    ObjectRefStream, Reply, TaskError, TaskErrorKind, TaskOptions, TimeLimit, UNLIMITED,
};
use mobula_tests::{eventually, session, session_with};

/// Counts an attempt in a file, and returns its number, from 1 on.
fn attempt(tries: &Path) -> usize {
    let number = attempts(tries) + 1;
    std::fs::write(tries, vec![0; number]).expect("the directory is there");
    number
}

fn attempts(tries: &Path) -> usize {
    std::fs::read(tries).map_or(0, |tried| tried.len())
}

/// Each attempt but the last does what a letter of `plan` says.
#[mobula::remote(retry_exceptions = true)]
fn follow(plan: String, tries: PathBuf) -> Result<usize, String> {
    follow_plan(&plan, &tries)
}

fn follow_plan(plan: &str, tries: &Path) -> Result<usize, String> {
    let number = attempt(tries);
    match plan.as_bytes().get(number - 1) {
        Some(b'e') => Err(format!("error of attempt {number}")),
        Some(b'p') => panic!("panic of attempt {number}"),
        Some(b'd') => std::process::abort(),
        _ => Ok(number),
    }
}

#[mobula::remote(num_returns = 2, max_retries = unlimited, retry_exceptions = true)]
fn pair(tries: PathBuf) -> Result<(usize, usize), String> {
    match attempt(&tries) {
        number @ 1..6 => Err(format!("error of attempt {number}")),
        number => Ok((number, number)),
    }
}

#[mobula::remote(max_retries = 9, retry_exceptions = true)]
fn too_large(tries: PathBuf) -> Vec<u8> {
    attempt(&tries);
    vec![1; 64 << 20]
}

#[mobula::remote]
fn one() -> u32 {
    1
}

#[test]
fn errors_and_panics_and_deaths_are_retried_together_up_to_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(2).capacity_bytes(64 << 20));
    let usual = TaskOptions::new;
    for (number, (plan, options, expected, tried)) in [
        ("", usual(), Ok(1), 1),
        ("epe", usual(), Ok(4), 4), // 3 retries, where nothing is said
        ("eeee", usual(), Err("error of attempt 4"), 4),
        ("eeep", usual(), Err("panic of attempt 4"), 4),
        ("e", usual().max_retries(0), Err("error of attempt 1"), 1),
        ("pp", usual().max_retries(1), Err("panic of attempt 2"), 2),
        ("ede", usual(), Ok(4), 4),
        ("dde", usual().max_retries(2), Err("error of attempt 3"), 3),
        ("eeeeeeeeee", usual().max_retries(mobula::UNLIMITED), Ok(11), 11),
        ("e", usual().retry_exceptions(false), Err("error of attempt 1"), 1),
        ("e", usual().retry_exceptions(false).max_retries(5), Err("error of attempt 1"), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let tries = directory.path().join(number.to_string());
        let result = follow::options(options).remote(plan.to_owned(), tries.clone()).get();
        match (result, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{plan}"),
            (Err(Error::Task(error)), Err(expected)) => assert_eq!(error.message, expected, "{plan}"),
            (result, _) => panic!("{plan}: {result:?}"),
        }
        assert_eq!(attempts(&tries), tried, "{plan}");
    }
}

fn is_of_first_two_attempts(error: &TaskError) -> bool {
    error.message.ends_with("attempt 1") || error.message.ends_with("attempt 2")
}

/// As `follow`, without another word about errors.
#[mobula::remote(retry_if = is_of_first_two_attempts)]
fn follow_if(plan: String, tries: PathBuf) -> Result<usize, String> {
    follow_plan(&plan, &tries)
}

#[test]
fn the_program_says_which_errors_are_retried() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(2).capacity_bytes(64 << 20));
    let usual = TaskOptions::new;
    for (number, (plan, options, expected, tried)) in [
        ("e", usual(), Ok(2), 2),
        ("ep", usual(), Ok(3), 3),
        ("eee", usual(), Err("error of attempt 3"), 3),
        ("ee", usual().max_retries(1), Err("error of attempt 2"), 2),
        ("ee", usual().retry_delay(Duration::from_millis(5)), Ok(3), 3),
        ("e", usual().retry_exceptions(false), Err("error of attempt 1"), 1),
        ("ee", usual().retry_if(|_| false), Err("error of attempt 1"), 1),
        ("pe", usual().retry_if(|error| error.kind == TaskErrorKind::Panicked), Err("error of attempt 2"), 2),
        // The function is not asked when a process dies.
        ("de", usual().retry_if(|_| false), Err("error of attempt 2"), 2),
        (
            "ee",
            usual().retry_if(|error| panic!("it panics because of {error}")),
            Err("error of attempt 1"),
            1,
        ),
        // Nor when there is no retry left.
        ("e", usual().max_retries(0).retry_if(|_| std::process::abort()), Err("error of attempt 1"), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let tries = directory.path().join(number.to_string());
        let result = follow_if::options(options).remote(plan.to_owned(), tries.clone()).get();
        match (result, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{plan}"),
            (Err(Error::Task(error)), Err(expected)) => assert_eq!(error.message, expected, "{plan}"),
            (result, _) => panic!("{plan}: {result:?}"),
        }
        assert_eq!(attempts(&tries), tried, "{plan}");
    }
    let awaited = follow_if::remote("ee".to_owned(), directory.path().join("awaited"));
    assert_eq!(pollster::block_on(awaited.get_async()).unwrap(), 3);
    // Calls of other functions may be made, and waited for, where the program is asked.
    let asks = usual().retry_if(|_| one::remote().get().is_ok_and(|one| one == 1));
    assert_eq!(
        follow_if::options(asks).remote("eee".to_owned(), directory.path().join("asks")).get().unwrap(),
        4
    );
}

static IS_ASKED: AtomicBool = AtomicBool::new(false);
static MAY_ANSWER: AtomicBool = AtomicBool::new(false);

fn answers_late(_: &TaskError) -> bool {
    IS_ASKED.store(true, Ordering::SeqCst);
    mobula_tests::eventually("it may answer", || MAY_ANSWER.load(Ordering::SeqCst));
    true
}

#[test]
fn a_call_that_is_cancelled_while_the_program_decides_is_not_retried() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    let tries = directory.path().join("tries");
    let options = TaskOptions::new().retry_if(answers_late);
    let call = follow_if::options(options).remote("e".to_owned(), tries.clone());
    let other = call.clone();
    let waits = std::thread::spawn(move || other.get());
    mobula_tests::eventually("the program is asked", || IS_ASKED.load(Ordering::SeqCst));
    call.cancel().unwrap();
    assert!(matches!(call.get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    MAY_ANSWER.store(true, Ordering::SeqCst);
    assert!(matches!(waits.join().unwrap(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
    assert_eq!((one::remote().get().unwrap(), attempts(&tries)), (1, 1));
}

#[test]
fn all_results_of_a_call_are_those_of_its_last_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    let (first, second): (ObjectRef<usize>, ObjectRef<usize>) = pair::remote(directory.path().join("tries"));
    assert_eq!((first.get().unwrap(), second.get().unwrap()), (6, 6));
}

#[test]
fn a_result_that_cannot_be_stored_is_no_reason_to_run_again() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(16 << 20).spill_bytes_max(0));
    let tries = directory.path().join("tries");
    match too_large::remote(tries.clone()).get() {
        Err(Error::Task(error)) => assert_eq!(error.kind, TaskErrorKind::NotReturned),
        other => panic!("{other:?}"),
    }
    assert_eq!(attempts(&tries), 1);
}

#[test]
fn retries_wait_longer_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    let begin = Instant::now();
    let options = TaskOptions::new().retry_delay(Duration::from_millis(40));
    let result = follow::options(options).remote("eee".to_owned(), directory.path().join("tries")).get();
    assert_eq!(result.unwrap(), 4);
    // At least half of 40, 80 and 160.
    assert!(begin.elapsed() >= Duration::from_millis(140), "{:?}", begin.elapsed());
}

#[test]
fn a_call_that_is_cancelled_is_not_retried() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    for (number, delay) in [Duration::from_millis(20), Duration::from_secs(3600)].into_iter().enumerate() {
        let tries = directory.path().join(number.to_string());
        let options = TaskOptions::new().max_retries(mobula::UNLIMITED).retry_delay(delay);
        let waits = follow::options(options).remote("e".repeat(10_000), tries.clone());
        mobula_tests::eventually("it has failed once", || attempts(&tries) > 0);
        waits.cancel().unwrap();
        assert!(matches!(waits.get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));
        // At most the attempt that ran ends: it is behind this call.
        one::remote().get().unwrap();
        let tried = attempts(&tries);
        // A retry would come within this time.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(attempts(&tries), tried);
    }
}

#[test]
fn a_call_that_waits_for_its_retry_takes_no_worker_and_ends_with_the_session() {
    let directory = tempfile::tempdir().unwrap();
    let session = session_with(Builder::new().workers(1).capacity_bytes(64 << 20));
    let tries = directory.path().join("tries");
    let options = TaskOptions::new().retry_delay(Duration::from_secs(3600));
    let waits = follow::options(options).remote("e".to_owned(), tries.clone());
    mobula_tests::eventually("it has failed once", || attempts(&tries) == 1);
    for _ in 0..10 {
        assert_eq!(one::remote().get().unwrap(), 1);
    }
    assert!(matches!(waits.get_timeout(Duration::from_millis(10)), Err(Error::Timeout { .. })));
    let _lock = session.end();
    assert!(matches!(waits.get(), Err(Error::Failed(Failure::SessionOver))));
    assert_eq!(attempts(&tries), 1);
}

/// Runs one call at a time.
struct Single {
    /// The calls that have begun.
    begun: Vec<String>,
}

#[mobula::remote(max_restarts = unlimited, max_task_retries = 2)]
impl Single {
    fn new() -> Self {
        Self { begun: Vec::new() }
    }

    /// Errors are not retried.
    fn plain(&self, plan: String, tries: PathBuf) -> Result<usize, String> {
        follow_plan(&plan, &tries)
    }

    #[remote(retry_exceptions = true)]
    fn follow(&self, plan: String, tries: PathBuf) -> Result<usize, String> {
        follow_plan(&plan, &tries)
    }

    #[remote(max_task_retries = 4, retry_if = is_of_first_two_attempts)]
    fn follow_if(&mut self, plan: String, tries: PathBuf) -> Result<usize, String> {
        follow_plan(&plan, &tries)
    }

    #[remote(num_returns = 2, max_task_retries = unlimited, retry_exceptions = true)]
    fn pair(&self, plan: String, tries: PathBuf) -> Result<(usize, usize), String> {
        follow_plan(&plan, &tries).map(|number| (number, number))
    }

    #[remote(streaming, max_in_flight = 2, max_task_retries = unlimited, retry_exceptions = true)]
    fn items(&self, plan: String, tries: PathBuf) -> impl Iterator<Item = Result<usize, String>> {
        items_of(plan, tries)
    }

    /// Fails in its first attempts, when the gate is there.
    #[remote(retry_exceptions = true)]
    fn begins(&mut self, name: String, failures: usize, gate: PathBuf) -> Result<(), String> {
        self.begun.push(name.clone());
        if self.begun.iter().filter(|begun| **begun == name).count() > failures {
            return Ok(());
        }
        eventually("the gate is there", || gate.exists());
        Err("as planned".to_owned())
    }

    fn begun(&self) -> Vec<String> {
        self.begun.clone()
    }
}

/// Each attempt makes one more item before it fails, and the last one makes all of them.
fn items_of(plan: String, tries: PathBuf) -> impl Iterator<Item = Result<usize, String>> {
    let number = attempt(&tries);
    (0..10).map(move |item| match plan.as_bytes().get(number - 1).filter(|_| item >= number) {
        Some(b'p') => panic!("panic of attempt {number}"),
        Some(b'd') => std::process::abort(),
        Some(_) => Err(format!("error of attempt {number}")),
        None => Ok(item),
    })
}

/// Runs several calls at a time: on threads, as futures, in a group, and with replies.
struct Several;

#[mobula::remote(max_restarts = unlimited, max_concurrency = 2, concurrency_groups(others = 1))]
impl Several {
    fn new() -> Self {
        Self
    }

    #[remote(max_task_retries = 5, retry_exceptions = true)]
    fn on_thread(&self, plan: String, tries: PathBuf) -> Result<usize, String> {
        follow_plan(&plan, &tries)
    }

    #[remote(max_task_retries = 5, retry_exceptions = true)]
    fn alone(&mut self, plan: String, tries: PathBuf) -> Result<usize, String> {
        follow_plan(&plan, &tries)
    }

    #[remote(max_task_retries = 5, retry_exceptions = true, group = "others")]
    fn in_group(&self, plan: String, tries: PathBuf) -> Result<usize, String> {
        follow_plan(&plan, &tries)
    }

    #[remote(max_task_retries = 5, retry_exceptions = true)]
    async fn as_future(&self, plan: String, tries: PathBuf) -> Result<usize, String> {
        follow_plan(&plan, &tries)
    }

    /// Another thread answers.
    #[remote(max_task_retries = 5, retry_exceptions = true)]
    fn with_reply(&self, plan: String, tries: PathBuf, reply: Reply<usize>) {
        std::thread::spawn(move || reply.send_result(follow_plan(&plan, &tries)));
    }

    #[remote(max_task_retries = unlimited, retry_exceptions = true)]
    fn without_answer(&self, tries: PathBuf, reply: Reply<usize>) {
        attempt(&tries);
        drop(reply);
    }

    #[remote(streaming, max_in_flight = 1, max_task_retries = 5, retry_exceptions = true)]
    fn items(&self, plan: String, tries: PathBuf) -> impl Iterator<Item = Result<usize, String>> {
        items_of(plan, tries)
    }

    /// Runs until it is cancelled, after many attempts that fail at once.
    #[remote(max_task_retries = unlimited, retry_exceptions = true)]
    fn until_cancelled(&self, failures: usize, tries: PathBuf) -> Result<(), String> {
        let number = attempt(&tries);
        if number <= failures {
            return Err(format!("error of attempt {number}"));
        }
        eventually("it is cancelled", mobula::is_cancelled);
        std::fs::write(tries.with_extension("cancelled"), "").expect("the directory is there");
        Ok(())
    }
}

/// The handle came in a value.
#[mobula::remote]
fn calls_follow(handle: ActorHandle<Single>, plan: String, tries: PathBuf) -> mobula::Result<usize> {
    handle.follow(plan, tries).get()
}

fn check_result(plan: &str, result: mobula::Result<usize>, expected: Result<usize, &str>) {
    match (result, expected) {
        (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{plan}"),
        (Err(Error::Task(error)), Err(expected)) => assert_eq!(error.message, expected, "{plan}"),
        (Err(Error::Failed(Failure::ActorUnavailable { .. })), Err("unavailable")) => {}
        (result, _) => panic!("{plan}: {result:?}"),
    }
}

#[test]
fn a_call_of_a_method_has_the_retries_of_its_options_then_of_its_method_then_of_its_actor() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let single = Single::remote();
    let usual = MethodOptions::new;
    let retried = || usual().retry_exceptions(true);
    let plain = |options, plan, tries| single.options(options).plain(plan, tries);
    let follow = |options, plan, tries| single.options(options).follow(plan, tries);
    let follow_if = |options, plan, tries| single.options(options).follow_if(plan, tries);
    let methods: [&dyn Fn(MethodOptions, String, PathBuf) -> ObjectRef<usize>; 3] =
        [&plain, &follow, &follow_if];
    for (number, (method, plan, options, expected, tried)) in [
        // The actor has two retries, and errors are not retried.
        (0, "dd", usual(), Ok(3), 3),
        (0, "ddd", usual(), Err("unavailable"), 3),
        (0, "d", usual().max_task_retries(0), Err("unavailable"), 1),
        (0, "ddd", usual().max_task_retries(UNLIMITED), Ok(4), 4),
        (0, "de", usual(), Err("error of attempt 2"), 2),
        (0, "e", retried(), Ok(2), 2),
        (
            0,
            "ep",
            usual().retry_if(|error| error.kind == TaskErrorKind::Returned),
            Err("panic of attempt 2"),
            2,
        ),
        // Errors are retried, too, and all retries count together.
        (1, "", usual(), Ok(1), 1),
        (1, "ep", usual(), Ok(3), 3),
        (1, "eep", usual(), Err("panic of attempt 3"), 3),
        (1, "ede", usual(), Err("error of attempt 3"), 3),
        (1, "eed", usual(), Err("unavailable"), 3),
        (1, "e", usual().max_task_retries(0), Err("error of attempt 1"), 1),
        (1, "epep", usual().max_task_retries(4), Ok(5), 5),
        (1, "e", usual().retry_exceptions(false), Err("error of attempt 1"), 1),
        (1, "ee", usual().retry_delay(Duration::from_millis(5)), Ok(3), 3),
        // Some errors, and four retries.
        (2, "ep", usual(), Ok(3), 3),
        (2, "eee", usual(), Err("error of attempt 3"), 3),
        (2, "ddddd", usual(), Err("unavailable"), 5),
        (2, "eeeee", usual().retry_if(|_| true), Err("error of attempt 5"), 5),
        (2, "ee", usual().max_task_retries(1), Err("error of attempt 2"), 2),
        (
            2,
            "e",
            usual().max_task_retries(0).retry_if(|_| std::process::abort()),
            Err("error of attempt 1"),
            1,
        ),
        (
            2,
            "e",
            usual().retry_if(|error| panic!("it panics because of {error}")),
            Err("error of attempt 1"),
            1,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let tries = directory.path().join(number.to_string());
        let result = methods[method](options, plan.to_owned(), tries.clone()).get();
        check_result(&format!("{number}: {plan}"), result, expected);
        assert_eq!(attempts(&tries), tried, "{number}: {plan}");
    }
    // The attribute of the block is only the default.
    let often = Single::options(ActorOptions::new().max_task_retries(5)).remote();
    let tries = directory.path().join("often");
    check_result("often", often.follow("epepe".to_owned(), tries).get(), Ok(6));
    // A handle that came in a value knows the number, too.
    for (plan, expected) in [("epepd", Ok(6)), ("eeeeee", Err("error of attempt 6"))] {
        let result = calls_follow::remote(often.clone(), plan.to_owned(), directory.path().join(plan)).get();
        match (result, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (result, _) => panic!("{result:?}"),
        }
    }
}

#[test]
fn a_call_is_not_retried_when_its_actor_ends() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let is_dead = |result| matches!(result, Err(Error::Failed(Failure::ActorDied { .. })));
    // Its process dies, and it is not restarted.
    let single = Single::options(ActorOptions::new().max_restarts(0)).remote();
    let tries = directory.path().join("dies");
    let options = MethodOptions::new().max_task_retries(UNLIMITED);
    assert!(is_dead(single.options(options.clone()).follow("d".to_owned(), tries.clone()).get()));
    assert_eq!(attempts(&tries), 1);
    // It is killed while the call waits for its retry.
    let single = Single::remote();
    let tries = directory.path().join("waits");
    let later = options.retry_delay(Duration::from_secs(3600));
    let waits = single.options(later.clone()).follow("e".to_owned(), tries.clone());
    let cell = waits.clone();
    let waiting = std::thread::spawn(move || cell.get());
    eventually("it has failed once", || attempts(&tries) == 1);
    assert!(single.begun().get().unwrap().is_empty());
    mobula::kill(&single).unwrap();
    assert!(is_dead(waiting.join().unwrap()));
    assert_eq!(attempts(&tries), 1);
    // It lives while such a call waits, without another handle.
    let single = Single::remote();
    let tries = directory.path().join("alone");
    let soon = MethodOptions::new().retry_delay(Duration::from_millis(50));
    let call = single.options(soon).follow("ee".to_owned(), tries);
    drop(single);
    check_result("alone", call.get(), Ok(3));
}

#[test]
fn a_call_that_waits_for_its_retry_goes_to_the_restarted_actor() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let single = Single::remote();
    let tries = directory.path().join("tries");
    let options = MethodOptions::new().retry_delay(Duration::from_millis(100));
    let waits = single.options(options).follow("e".to_owned(), tries.clone());
    eventually("it has failed once", || attempts(&tries) == 1);
    // It is not the running call, whose retry this would be: this one runs behind it.
    let deaths = directory.path().join("deaths");
    check_result("d", single.plain("d".to_owned(), deaths).get(), Ok(2));
    check_result("e", waits.get(), Ok(2));
    assert_eq!(attempts(&tries), 2);
}

#[test]
fn a_retried_call_runs_behind_the_calls_that_were_sent_meanwhile_and_before_those_that_were_not() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(2);
    let single = Single::remote();
    single.begun().get().unwrap();
    let gate = directory.path().join("gate");
    let begins = |name: &str, failures| single.begins(name.to_owned(), failures, gate.clone());
    let calls = [begins("a", 1), begins("b", 0), begins("c", 2), begins("d", 0)];
    std::fs::write(&gate, "").unwrap();
    mobula::get(&calls).unwrap();
    assert_eq!(single.begun().get().unwrap(), ["a", "b", "c", "d", "a", "c", "c"]);

    // The argument of `f` comes later, and `g` waits behind `f`.
    let promised = directory.path().join("promised");
    let waits = [
        begins("e", 1),
        single.begins("f".to_owned(), 0, path_when_there::remote(promised.clone())),
        begins("g", 0),
    ];
    waits[0].get().unwrap();
    std::fs::write(&promised, "").unwrap();
    mobula::get(&waits).unwrap();
    assert_eq!(single.begun().get().unwrap()[7..], ["e", "e", "f", "g"]);
}

#[mobula::remote]
fn path_when_there(path: PathBuf) -> PathBuf {
    eventually("the file is there", || path.exists());
    path
}

#[test]
fn methods_of_every_kind_are_retried() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let several = Several::remote();
    let on_thread = |plan, tries| several.on_thread(plan, tries);
    let alone = |plan, tries| several.alone(plan, tries);
    let in_group = |plan, tries| several.in_group(plan, tries);
    let as_future = |plan, tries| several.as_future(plan, tries);
    let with_reply = |plan, tries| several.with_reply(plan, tries);
    type Method<'a> = &'a dyn Fn(String, PathBuf) -> ObjectRef<usize>;
    let methods: [Method<'_>; 5] = [&on_thread, &alone, &in_group, &as_future, &with_reply];
    for (plan, expected, tried) in [
        ("", Ok(1), 1),
        ("eee", Ok(4), 4),
        ("ppepe", Ok(6), 6),
        ("ede", Ok(4), 4),
        ("eeeeeee", Err("error of attempt 6"), 6),
    ] {
        let tries = |kind: usize| directory.path().join(format!("{plan}{kind}"));
        // The reply's thread has no call that a panic could end.
        let kinds = if plan.contains('p') { &methods[..4] } else { &methods };
        let mut calls = Vec::new();
        for (kind, method) in kinds.iter().enumerate() {
            calls.push(method(plan.to_owned(), tries(kind)));
            if plan.contains('d') {
                // Its death would end attempts of the others, too.
                calls[kind].get().unwrap();
            }
        }
        for (kind, call) in calls.iter().enumerate() {
            check_result(&format!("{plan} of {kind}"), call.get(), expected);
            assert_eq!(attempts(&tries(kind)), tried, "{plan} of {kind}");
        }
    }
    let tries = directory.path().join("dropped");
    match several.without_answer(tries.clone()).get() {
        Err(Error::Task(error)) => assert_eq!(error.kind, TaskErrorKind::NotAnswered),
        other => panic!("{other:?}"),
    }
    assert_eq!(attempts(&tries), 1);
}

#[test]
fn calls_are_retried_although_no_thread_waits_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let single = Single::remote();
    // From here on, calls are sent at once. Mostly no thread of this process is awake when the next ones are made.
    single.begun().get().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let options = MethodOptions::new().max_task_retries(UNLIMITED);
    let tries = |name: &str| directory.path().join(name);
    let plan = || "e".repeat(100);
    let all_begun = |name: &str| eventually("each attempt has begun", || attempts(&tries(name)) == 101);
    let call = single.options(options.clone()).follow(plan(), tries("kept"));
    all_begun("kept");
    drop(single.options(options).follow(plan(), tries("forgotten")));
    let options = TaskOptions::new().max_retries(UNLIMITED);
    drop(follow::options(options).remote(plan(), tries("of a function")));
    all_begun("forgotten");
    all_begun("of a function");
    assert!(call.is_ready() || call.get().is_ok());
}

#[test]
fn results_of_a_retried_method_are_those_of_its_last_attempt_and_items_come_once() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let (single, several) = (Single::remote(), Several::remote());
    let (first, second) = single.pair("eeepde".to_owned(), directory.path().join("pair"));
    assert_eq!((first.get().unwrap(), second.get().unwrap()), (7, 7));
    let all: Vec<_> = (0..10).collect();
    let values =
        |stream: ObjectRefStream<usize>| stream.map(|item| item.get()).collect::<mobula::Result<Vec<_>>>();
    for plan in ["", "e", "epe", "epdep"] {
        let tries = |kind: &str| directory.path().join(format!("{kind}{plan}"));
        assert_eq!(values(single.items(plan.to_owned(), tries("single"))).unwrap(), all, "{plan}");
        assert_eq!(values(several.items(plan.to_owned(), tries("several"))).unwrap(), all, "{plan}");
    }
    // The items of the last attempt come before its error.
    let mut items: Vec<_> = several.items("e".repeat(9), directory.path().join("fails")).collect();
    check_result("items", items.pop().unwrap().get(), Err("error of attempt 6"));
    assert_eq!(mobula::get(&items).unwrap(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_cancellation_and_a_limit_end_the_retries_of_a_method() {
    let directory = tempfile::tempdir().unwrap();
    let _session = session(1);
    let (single, several) = (Single::remote(), Several::remote());
    let unlimited = MethodOptions::new().max_task_retries(UNLIMITED);
    for (number, delay) in [Duration::ZERO, Duration::from_secs(3600)].into_iter().enumerate() {
        let tries = |kind: &str| directory.path().join(format!("{kind}{number}"));
        let options = unlimited.clone().retry_delay(delay);
        let call = single.options(options.clone()).follow("e".repeat(1_000_000), tries("cancelled"));
        eventually("it has failed once", || attempts(&tries("cancelled")) > 0);
        // As for any call of a method.
        let by_force = mobula::cancel_with([&call], CancelOptions::new().force(true));
        assert!(matches!(by_force, Err(Error::Config { .. })), "{by_force:?}");
        call.cancel().unwrap();
        assert!(matches!(call.get(), Err(Error::Failed(Failure::TaskCancelled { .. }))));

        let limited = options.deadline(Duration::from_millis(50));
        let call = single.options(limited).follow("e".repeat(1_000_000), tries("limited"));
        let Err(Error::Failed(Failure::TaskTimedOut { limit, .. })) = call.get() else {
            panic!("it was in time")
        };
        assert_eq!(limit, TimeLimit::Deadline);
        // The last attempts of both are over.
        single.begun().get().unwrap();
        let tried = [attempts(&tries("cancelled")), attempts(&tries("limited"))];
        single.begun().get().unwrap();
        assert_eq!([attempts(&tries("cancelled")), attempts(&tries("limited"))], tried);
    }
    // A timeout ends the call. It counts for each attempt.
    let tries = directory.path().join("attempts");
    let options = unlimited.timeout(Duration::from_secs(3600));
    check_result("e", single.options(options).follow("e".repeat(50), tries.clone()).get(), Ok(51));

    // A call that failed often is found at once, in the attempt that runs.
    let calls = [("first", 1), ("second", 1000)].map(|(name, failures)| {
        let tries = directory.path().join(name);
        (several.until_cancelled(failures, tries.clone()), failures, tries)
    });
    for (call, failures, tries) in calls {
        eventually("the last attempt runs", || attempts(&tries) > failures);
        call.cancel().unwrap();
        eventually("it learns of that", || tries.with_extension("cancelled").exists());
    }
}
