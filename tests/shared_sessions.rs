//! Sessions that drivers share: if these fail, a driver disturbs another one, takes what is another's, or leaves
//! something behind; or the death of a process that all need ends more than it must.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use mobula::{
    ActorHandle, ActorOptions, Builder, Bundle, Error, Failure, Lifetime, PlacementGroup, TaskOptions,
    get_actor,
};
use mobula_tests::{eventually, is_running, session_lock};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

// ---- what drivers do ----

#[mobula::remote]
fn square(x: u64) -> u64 {
    x * x
}

#[mobula::remote]
fn say(what: String) -> u32 {
    println!("{what}");
    std::process::id()
}

/// Makes a file when it begins, and ends when that is gone.
#[mobula::remote]
fn last_as_long_as(file: PathBuf) {
    std::fs::write(&file, "").unwrap();
    while file.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Counts, as an actor with a name.
struct Counter(u32);

#[mobula::remote(max_restarts = 1, max_task_retries = 2)]
impl Counter {
    fn new() -> Self {
        Self(0)
    }

    fn increment(&mut self) -> u32 {
        self.0 += 1;
        self.0
    }

    /// Counts again until there are so many, as often as the actor says.
    #[remote(retry_exceptions = true)]
    fn count_to(&mut self, least: u32) -> Result<u32, String> {
        self.0 += 1;
        if self.0 < least { Err(format!("only {}", self.0)) } else { Ok(self.0) }
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Calls of a function, from within the actor.
    fn squares(&self, count: u64) -> mobula::Result<u64> {
        Ok(mobula::get((0..count).map(square::remote))?.iter().sum())
    }
}

#[mobula::remote]
fn keep(name: String) -> mobula::Result<u32> {
    Counter::options(ActorOptions::new().name(name).lifetime(Lifetime::Detached)).remote().pid().get()
}

#[mobula::remote]
fn increment(counter: ActorHandle<Counter>) -> mobula::Result<u32> {
    counter.increment().get()
}

struct Holder;

#[mobula::remote(num_cpus = 1)]
impl Holder {
    fn new() -> Self {
        Self
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// A result, as an answer.
fn text(result: mobula::Result<impl ToString>) -> String {
    result.map_or_else(|error| error.to_string().replace('\n', " "), |value| value.to_string())
}

/// A driver's loop: a line on standard input is a command, and a line that begins with `= ` the answer.
#[test]
#[ignore = "the other tests start it as a process"]
fn child_driver() {
    if std::env::var_os("MOBULA_TEST_CHILD").is_none() {
        return;
    }
    let session = Builder::new().init().unwrap();
    let client = session.client();
    let (mut pending, mut actors, mut counters) = (Vec::new(), Vec::new(), Vec::new());
    let (mut shared, mut groups) = (Vec::new(), Vec::new());
    println!("= joined");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["squares", count] => {
                let refs: Vec<_> = (0..count.parse().unwrap()).map(|x: u64| square::remote(x)).collect();
                match mobula::get(&refs) {
                    Ok(squares) => squares.iter().sum::<u64>().to_string(),
                    Err(Error::Failed(Failure::SessionOver)) => "over".to_owned(),
                    Err(error) => error.to_string(),
                }
            }
            ["say", what] => say::remote(what.to_owned()).get().unwrap().to_string(),
            ["begin", count, directory] => {
                for task in 0..count.parse::<u32>().unwrap() {
                    let file = Path::new(directory).join(format!("{}-{task}", std::process::id()));
                    pending.push(last_as_long_as::remote(file));
                }
                "begun".to_owned()
            }
            ["end"] => {
                let results = mobula::get(std::mem::take(&mut pending));
                results.map_or_else(|error| error.to_string(), |pids| pids.len().to_string())
            }
            ["actor"] => {
                actors.push(Holder::remote());
                actors.last().unwrap().pid().get().unwrap().to_string()
            }
            ["serve", name] => {
                let counter = Counter::options(ActorOptions::new().name(name)).remote();
                let pid = text(counter.pid().get());
                counters.push(counter);
                pid
            }
            ["keep", name] => {
                let options = ActorOptions::new().name(name).lifetime(Lifetime::Detached);
                let counter = Counter::options(options).remote();
                let pid = text(counter.pid().get());
                counters.push(counter);
                pid
            }
            ["keep_in_a_task", name] => text(keep::remote(name.to_owned()).get()),
            ["keep_if_none", name] => {
                let options = ActorOptions::new().name(name).lifetime(Lifetime::Detached).get_if_exists(true);
                text(Counter::options(options).remote().pid().get())
            }
            ["squares_within", count] => {
                text(counters.last().unwrap().squares(count.parse::<u64>().unwrap()).get())
            }
            ["names"] => {
                let names = mobula::list_named_actors(true).unwrap();
                format!("[{}]", names.into_iter().map(|named| named.name).collect::<Vec<_>>().join(","))
            }
            ["count", name] => match get_actor::<Counter>(name) {
                Ok(counter) => {
                    let count = text(counter.increment().get());
                    counters.push(counter);
                    count
                }
                Err(error) => error.to_string(),
            },
            ["count_to", least] => {
                text(counters.last().unwrap().count_to(least.parse::<u32>().unwrap()).get())
            }
            ["count_again"] => text(counters.last().unwrap().increment().get()),
            ["count_in_a_task"] => text(increment::remote(counters.last().unwrap().clone()).get()),
            ["kill"] => text(mobula::kill(counters.last().unwrap()).map(|()| "killed")),
            ["drop"] => {
                counters.clear();
                "dropped".to_owned()
            }
            ["publish", name, what] => {
                let object = client.put(what.as_bytes()).unwrap();
                client.publish(name, object.id()).unwrap();
                std::mem::forget(object);
                "published".to_owned()
            }
            ["find", name] => match client.get_named(name, Duration::ZERO) {
                Ok(object) => String::from_utf8_lossy(&object).into_owned(),
                Err(error) => error.to_string(),
            },
            ["share", name, what] => {
                let value = mobula::util::shared(name, || Ok(what.to_owned())).unwrap();
                shared.push(value);
                shared.last().unwrap().get().unwrap()
            }
            ["group"] => {
                let group = PlacementGroup::new([Bundle::new().num_cpus(1)]).unwrap();
                assert!(group.wait(Duration::from_secs(60)).unwrap());
                groups.push(group);
                groups.last().unwrap().number().to_string()
            }
            ["square_in_the_group", x] => {
                let options = TaskOptions::new().placement(groups.last().unwrap().any());
                text(square::options(options).remote(x.parse::<u64>().unwrap()).get())
            }
            ["keep_in_the_group"] => {
                let options = ActorOptions::new().lifetime(Lifetime::Detached);
                text(Counter::options(options.placement(groups.last().unwrap().any())).remote().pid().get())
            }
            ["remove_the_group"] => text(groups.pop().unwrap().remove().map(|()| "removed")),
            ["free"] => mobula::available_resources().unwrap().num_cpus().to_string(),
            _ => panic!("{line}"),
        };
        println!("= {answer}");
    }
}

// ---- the drivers from outside ----

/// A session with a directory that is empty again at the end.
struct Shared {
    address: PathBuf,
    directory: TempDir,
}

impl Shared {
    fn start(cpus: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let builder = Builder::new().num_cpus(cpus).capacity_bytes(64 << 20).session_dir(directory.path());
        Self { address: builder.start().unwrap(), directory }
    }

    fn driver(&self) -> Driver {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_driver", "--nocapture", "--ignored"])
            .env("MOBULA_TEST_CHILD", "1")
            .env("MOBULA_ADDRESS", &self.address)
            .env("MOBULA_WORKERS", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut driver = Driver { process, input: Some(input), output, printed: Vec::new() };
        assert_eq!(driver.answer(), "joined");
        driver
    }

    /// The pids of the processes that use the store, by a part of their labels.
    fn pids(&self, of: &str) -> Vec<u32> {
        let client = mobula_client::Client::connect(&self.address).unwrap();
        let clients = client.stats().unwrap().clients;
        let chosen = clients.iter().filter(|client| client.label.starts_with(of) && !client.dead);
        chosen.map(|client| client.pid).collect()
    }

    /// The session's own process: it listens at the socket.
    fn process(&self) -> Pid {
        let socket = mobula_client::internal::Socket::connect(&self.address).unwrap();
        let credentials =
            nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials).unwrap();
        Pid::from_raw(credentials.pid())
    }

    fn stop(self) {
        let process = self.process();
        mobula::stop(&self.address).unwrap();
        eventually("the session's process ends", || !is_running(process.as_raw() as u32));
        let left: Vec<_> = std::fs::read_dir(self.directory.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let linked = mobula::sessions();
        assert!(!linked.contains(&self.address));
    }
}

impl Drop for Shared {
    /// Also the session of a test that fails ends.
    fn drop(&mut self) {
        let _ = mobula::stop(&self.address);
    }
}

struct Driver {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// The lines that were no answers.
    printed: Vec<String>,
}

impl Driver {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    fn send(&mut self, command: &str) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the driver has ended: {:?}",
                self.printed
            );
            let line = line.trim_end();
            match line.strip_prefix("= ").or_else(|| line.split_once("... = ").map(|(_, answer)| answer)) {
                Some(answer) => return answer.to_owned(),
                None => self.printed.push(line.to_owned()),
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.answer()
    }

    fn end(mut self) {
        drop(self.input.take());
        assert!(self.process.wait().unwrap().success());
    }

    fn kill(mut self) {
        kill(self.pid(), Signal::SIGKILL).unwrap();
        assert_eq!(self.process.wait().unwrap().signal(), Some(9));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn squares(count: u64) -> String {
    (0..count).map(|x| x * x).sum::<u64>().to_string()
}

// ---- the tests ----

#[test]
fn a_driver_joins_and_has_workers_of_its_own_program() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let mut driver = shared.driver();
    assert_eq!(driver.ask("squares 100"), squares(100));
    let worker: u32 = driver.ask("say heard").parse().unwrap();
    assert!(shared.pids("worker").contains(&worker));
    // Its workers print to its output.
    let line = format!("(say pid={worker}) heard");
    while !driver.printed.contains(&line) {
        driver.ask("squares 1");
    }
    driver.end();
    assert!(!is_running(worker));
    shared.stop();
}

#[test]
fn the_end_of_a_driver_ends_its_own_work_and_nothing_else() {
    let _lock = session_lock();
    let shared = Shared::start(4);
    let (mut one, mut other) = (shared.driver(), shared.driver());
    let (actor, its) = (one.ask("actor"), other.ask("actor"));
    assert_eq!(one.ask("publish ours bytes"), "published");
    let workers = shared.pids("worker");
    one.kill();
    eventually("its processes end", || !is_running(actor.parse().unwrap()));
    assert!(is_running(its.parse().unwrap()));
    assert_eq!(other.ask("find ours"), "bytes", "a name keeps an object");
    assert_eq!(other.ask("squares 100"), squares(100));
    other.end();
    eventually("all workers end", || !workers.iter().any(|pid| is_running(*pid)));
    // A session without drivers stays.
    let mut third = shared.driver();
    assert_eq!(third.ask("find ours"), "bytes");
    assert_eq!(third.ask("squares 10"), squares(10));
    third.end();
    shared.stop();
}

#[test]
fn resources_are_divided_and_go_to_the_driver_that_has_fewest() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let (mut rich, mut poor) = (shared.driver(), shared.driver());
    let directory = tempfile::tempdir().unwrap();
    let begin = |count: u32| format!("begin {count} {}", directory.path().display());
    // The tasks of a driver that run. Each ends when its file is removed.
    let running = |driver: &Driver| -> Vec<PathBuf> {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let prefix = format!("{}-", driver.pid());
        files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(&prefix)).collect()
    };
    let let_end = |driver: &Driver| running(driver).into_iter().map(std::fs::remove_file).count();
    assert_eq!(rich.ask(&begin(100)), "begun");
    eventually("it has both CPUs", || running(&rich).len() == 2);
    assert_eq!(poor.ask(&begin(100)), "begun");
    let mut ended = 0;
    eventually("the other one gets a CPU", || {
        ended += let_end(&rich);
        running(&poor).len() == 1
    });
    assert!(ended < 100, "not only when the first one is done");
    eventually("each has one", || running(&rich).len() == 1 && running(&poor).len() == 1);
    for driver in [&mut rich, &mut poor] {
        driver.send("end");
    }
    let both = [&rich, &poor];
    eventually("all have run", || {
        both.iter().for_each(|driver| _ = let_end(driver));
        both.iter().all(|driver| {
            // Its answer is there.
            let mut answered = [PollFd::new(driver.output.get_ref().as_fd(), PollFlags::POLLIN)];
            poll(&mut answered, PollTimeout::ZERO) == Ok(1)
        })
    });
    assert_eq!((rich.answer(), poor.answer()), ("100".to_owned(), "100".to_owned()));
    // An actor keeps its CPU; the other one goes round.
    rich.ask("actor");
    assert_eq!(poor.ask("squares 50"), squares(50));
    assert_eq!(rich.ask("squares 50"), squares(50));
    rich.kill();
    assert_eq!(poor.ask(&begin(2)), "begun");
    eventually("it has both CPUs", || running(&poor).len() == 2);
    let_end(&poor);
    assert_eq!(poor.ask("end"), "2");
    poor.end();
    shared.stop();
}

#[test]
fn drivers_go_on_when_the_process_of_the_session_is_killed() {
    let _lock = session_lock();
    let shared = Shared::start(3);
    let mut drivers: Vec<Driver> = (0..10).map(|_| shared.driver()).collect();
    assert_eq!(drivers[0].ask("publish ours bytes"), "published");
    let actor = drivers[1].ask("actor");
    for round in 0..3 {
        for driver in &mut drivers {
            driver.send("squares 20");
        }
        let process = shared.process();
        kill(process, Signal::SIGKILL).unwrap();
        for driver in &mut drivers {
            assert_eq!(driver.answer(), squares(20), "round {round}");
        }
        assert_ne!(shared.process(), process);
    }
    assert!(is_running(actor.parse().unwrap()));
    for driver in &mut drivers {
        assert_eq!(driver.ask("find ours"), "bytes");
    }
    // One that joins now finds it, and the driver that has started the process is of no importance.
    drivers.drain(..5).for_each(Driver::kill);
    drivers.drain(..).for_each(Driver::end);
    let mut last = shared.driver();
    assert_eq!(last.ask("squares 10"), squares(10));
    last.end();
    shared.stop();
}

#[test]
fn actors_with_names_are_called_by_all_drivers_and_end_with_their_own() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let (mut one, mut other) = (shared.driver(), shared.driver());
    let pid = one.ask("serve counter");
    assert_eq!(other.ask("count counter"), "1");
    assert_eq!(one.ask("count counter"), "2");
    assert_eq!(other.ask("count_in_a_task"), "3");
    // Its calls are retried as often from every driver.
    for driver in [&mut one, &mut other] {
        let least: u32 = driver.ask("count counter").parse::<u32>().unwrap() + 3;
        assert_eq!(driver.ask(&format!("count_to {least}")), least.to_string());
        let answer = driver.ask(&format!("count_to {}", least + 4));
        assert!(answer.contains(&format!("only {}", least + 3)), "{answer}");
    }
    assert!(other.ask("serve counter").contains("\"counter\""), "the name is taken");
    // It is restarted by its own driver, and found again by the other one.
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    eventually("it is there again", || other.ask("count counter") == "1");
    // A handle of any driver keeps it alive.
    assert_eq!(one.ask("drop"), "dropped");
    assert_eq!(other.ask("count counter"), "2");
    eventually("it ends with its last handle", || {
        other.ask("drop");
        other.ask("count counter").contains("no actor")
    });
    // Any driver kills it.
    one.ask("serve second");
    assert_eq!(other.ask("count second"), "1");
    assert_eq!(other.ask("kill"), "killed");
    let answer = one.ask("count_again");
    assert!(answer.contains("killed"), "{answer}");
    // Its driver dies: then it is gone, and the name is free.
    one.ask("serve third");
    assert_eq!(other.ask("count third"), "1");
    one.kill();
    eventually("it is over", || other.ask("count_again").contains("its driver has ended"));
    let answer = other.ask("count third");
    assert!(answer.contains("no actor"), "{answer}");
    assert!(other.ask("serve third").parse::<u32>().is_ok());
    assert_eq!(shared.driver().ask("count third"), "1");
    other.end();
    shared.stop();
}

#[test]
fn a_detached_actor_outlives_its_driver() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let mut one = shared.driver();
    let pid = one.ask("keep counter");
    let in_a_task = one.ask("keep_in_a_task second");
    assert_eq!(one.ask("count counter"), "1");
    one.end();
    assert!(is_running(pid.parse().unwrap()) && is_running(in_a_task.parse().unwrap()));
    // A driver that comes later finds it by its name, and so does the actor's own head after a restart.
    let mut other = shared.driver();
    assert_eq!(other.ask("names"), "[counter,second]");
    assert_eq!(other.ask("count counter"), "2");
    assert_eq!(other.ask("count_in_a_task"), "3");
    assert_eq!(other.ask("squares_within 20"), squares(20), "it has workers of its own");
    assert!(other.ask("keep counter").contains("\"counter\""), "the name is taken");
    assert_eq!(other.ask("keep_if_none counter"), pid);
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    eventually("it is there again", || other.ask("count counter") == "1");
    other.kill();
    let mut third = shared.driver();
    assert_eq!(third.ask("count counter"), "2");
    // It ends when it is killed, and its head after the last one.
    assert_eq!(third.ask("kill"), "killed");
    assert!(third.ask("count counter").contains("no actor"));
    assert_eq!(third.ask("count second"), "1");
    assert_eq!(third.ask("kill"), "killed");
    eventually("its head ends", || shared.pids("head") == [third.process.id()]);
    assert_eq!(third.ask("names"), "[]");
    assert!(third.ask("keep counter").parse::<u32>().is_ok());
    third.end();
    let heads = shared.pids("head");
    shared.stop();
    eventually("all end with the session", || !heads.iter().any(|pid| is_running(*pid)));
}

#[test]
fn a_detached_actor_survives_the_kill_of_its_driver_and_of_the_process_of_the_session() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let mut drivers: Vec<Driver> = (0..3).map(|_| shared.driver()).collect();
    let pids: Vec<u32> =
        (0..3).map(|number| drivers[number].ask(&format!("keep counter{number}")).parse().unwrap()).collect();
    assert_eq!(drivers[0].ask("count counter2"), "1");
    drivers.drain(..).for_each(Driver::kill);
    // Only the heads of the actors are left, and they start the process again.
    for _ in 0..2 {
        let process = shared.process();
        kill(process, Signal::SIGKILL).unwrap();
        eventually("there is another process", || {
            mobula_client::internal::Socket::connect(&shared.address).is_ok() && shared.process() != process
        });
    }
    assert!(pids.iter().all(|pid| is_running(*pid)));
    let mut last = shared.driver();
    assert_eq!(last.ask("count counter2"), "2");
    assert_eq!(last.ask("count counter0"), "1");
    assert_eq!(last.ask("squares_within 10"), squares(10));
    last.end();
    shared.stop();
    eventually("all end with the session", || !pids.iter().any(|pid| is_running(*pid)));
}

#[test]
fn detached_actors_end_with_their_head_and_leave_their_names() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let (mut one, mut other) = (shared.driver(), shared.driver());
    let pid: u32 = one.ask("keep counter").parse().unwrap();
    assert_eq!(other.ask("count counter"), "1");
    let drivers = [one.process.id(), other.process.id()];
    let head = shared.pids("head").into_iter().find(|pid| !drivers.contains(pid)).unwrap();
    kill(Pid::from_raw(head as i32), Signal::SIGKILL).unwrap();
    eventually("it ends with its head", || !is_running(pid));
    eventually("it is over", || other.ask("count_again").contains("has ended"));
    assert!(other.ask("count counter").contains("no actor"));
    // Its driver starts another head.
    assert!(one.ask("keep counter").parse::<u32>().is_ok());
    assert_eq!(other.ask("count counter"), "1");
    // SIGTERM ends the next one, too.
    let head = shared.pids("head").into_iter().find(|pid| !drivers.contains(pid)).unwrap();
    kill(Pid::from_raw(head as i32), Signal::SIGTERM).unwrap();
    eventually("it ends", || !is_running(head));
    assert!(other.ask("keep counter").parse::<u32>().is_ok());
    one.end();
    other.end();
    shared.stop();
}

#[test]
fn a_detached_actor_of_another_build_is_an_error_that_says_so() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let mut driver = shared.driver();
    driver.ask("keep counter");
    driver.end();
    let other = Command::new(env!("CARGO_BIN_EXE_mobula-test-other-build"))
        .env("MOBULA_ADDRESS", &shared.address)
        .env("MOBULA_TEST_FIND", "counter")
        .output()
        .unwrap();
    let printed = String::from_utf8(other.stdout).unwrap();
    assert!(printed.contains("is one of a driver of another build"), "{printed}");
    shared.stop();
}

#[test]
fn placement_groups_of_several_drivers_are_several() {
    let _lock = session_lock();
    let shared = Shared::start(3);
    let (mut one, mut other) = (shared.driver(), shared.driver());
    assert_ne!(one.ask("group"), other.ask("group"));
    assert_eq!(one.ask("square_in_the_group 3"), "9");
    assert_eq!(one.ask("remove_the_group"), "removed");
    assert_eq!(other.ask("square_in_the_group 4"), "16");
    // The process of a detached actor belongs to no driver.
    let answer = other.ask("keep_in_the_group");
    assert!(answer.contains("placement cannot be a placement group of this driver"), "{answer}");
    one.end();
    other.end();
    shared.stop();
}

#[test]
fn each_program_has_shared_values_of_its_own() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let (mut one, mut other) = (shared.driver(), shared.driver());
    assert_eq!(one.ask("share table made"), "made");
    assert_eq!(other.ask("share table another"), "made");
    let of_another_build = Command::new(env!("CARGO_BIN_EXE_mobula-test-other-build"))
        .env("MOBULA_ADDRESS", &shared.address)
        .env("MOBULA_TEST_SHARE", "table")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&of_another_build.stdout), "made by another build\n");
    one.end();
    other.end();
    shared.stop();
}

#[test]
fn names_of_actors_survive_the_process_of_the_session() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let (mut one, mut other) = (shared.driver(), shared.driver());
    one.ask("serve counter");
    assert_eq!(other.ask("count counter"), "1");
    kill(shared.process(), Signal::SIGKILL).unwrap();
    assert_eq!(other.ask("count_again"), "2");
    assert_eq!(shared.driver().ask("count counter"), "3");
    assert!(other.ask("serve counter").contains("\"counter\""), "the name is taken");
    shared.stop();
}

#[test]
fn an_actor_of_another_build_is_an_error_that_says_so() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let mut driver = shared.driver();
    driver.ask("serve counter");
    let other = Command::new(env!("CARGO_BIN_EXE_mobula-test-other-build"))
        .env("MOBULA_ADDRESS", &shared.address)
        .env("MOBULA_TEST_FIND", "counter")
        .output()
        .unwrap();
    let printed = String::from_utf8(other.stdout).unwrap();
    assert!(printed.contains("is one of a driver of another build"), "{printed}");
    assert_eq!(driver.ask("count counter"), "1");
    driver.end();
    shared.stop();
}

#[test]
fn what_is_free_is_free_in_the_whole_session() {
    let _lock = session_lock();
    let shared = Shared::start(3);
    let (mut one, mut other) = (shared.driver(), shared.driver());
    assert_eq!((one.ask("free"), other.ask("free")), ("3".to_owned(), "3".to_owned()));
    one.ask("actor");
    assert_eq!(other.ask("free"), "2");
    one.end();
    eventually("all is free", || other.ask("free") == "3");
    other.end();
    shared.stop();
}

#[test]
fn a_session_that_is_stopped_is_over_for_its_drivers() {
    let _lock = session_lock();
    let shared = Shared::start(2);
    let mut driver = shared.driver();
    assert_eq!(driver.ask("squares 10"), squares(10));
    let workers = shared.pids("worker");
    shared.stop();
    assert_eq!(driver.ask("squares 10"), "over");
    eventually("its workers end", || !workers.iter().any(|pid| is_running(*pid)));
    driver.end();
}

#[test]
fn a_session_whose_processes_are_all_killed_is_removed_by_the_next_one() {
    let _lock = session_lock();
    let shared = Shared::start(1);
    kill(shared.process(), Signal::SIGKILL).unwrap();
    eventually("it is over", || !mobula::sessions().contains(&shared.address));
    let error = Builder::new().address(&shared.address).init().unwrap_err();
    assert!(matches!(error, Error::Config { field: "address", .. }), "{error}");
    let next = Builder::new().capacity_bytes(64 << 20).session_dir(shared.directory.path()).init().unwrap();
    // The new one may have its name.
    assert!(!shared.address.with_file_name("drivers.sock").exists());
    drop(next);
}
