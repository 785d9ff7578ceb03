//! Failing system calls: if these fail, a machine that is short of descriptors, memory or threads for a moment crashes
//! a store or its clients, makes them hang, or costs something that never comes back.
//!
//! A fixed scenario with a store and three clients, each a process of its own, runs once for every call and every N,
//! while the N-th of these calls fails in one of the processes. The process that it hits gets a typed error, or does
//! not notice. No process ends, and none waits for long. Afterwards the same processes go through the same scenario
//! without an error, and have just the descriptors, mappings and memory that they had before.
//!
//! `MOBULA_FAILING_CALLS=all` takes every N; otherwise the printed seed chooses a few for each call. In one more run
//! for each call, the calls from some N on fail ten times in a row. `MOBULA_FAILING_ONLY="the store mmap"` runs some
//! rows.

mod calls;
mod part;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use calls::{CONTROL, Control, DESCRIPTORS_LOST};
use mobula_client::{Client, Totals};
use mobula_tests::{Process, Random};
use part::count_of;

const CAPACITY: u64 = 8 << 20;
/// N that are taken of a call, an error and a process, unless all are.
const SAMPLES: usize = 2;
/// Calls that fail one after the other where a shortage lasts.
const LASTS: u64 = 10;
/// How long the remains of a scenario may take to go.
const SETTLE: Duration = Duration::from_secs(30);

/// The calls that can fail, and their errors.
const FAILURES: &[(&str, &[i32])] = &[
    ("mmap", &[libc::ENOMEM]),
    ("madvise", &[libc::EINVAL]),
    ("memfd_create", &[libc::EMFILE]),
    ("ftruncate", &[libc::ENOMEM]),
    ("fallocate", &[libc::ENOSPC, libc::EINTR]),
    ("fchmod", &[libc::EPERM]),
    ("fstat", &[libc::ENOMEM]),
    ("fcntl", &[libc::ENOMEM]),
    ("open", &[libc::EMFILE]),
    ("open64", &[libc::EMFILE]),
    ("eventfd", &[libc::EMFILE]),
    ("socket", &[libc::EMFILE]),
    ("bind", &[libc::ENOMEM]),
    ("listen", &[libc::ENOMEM]),
    ("connect", &[libc::ECONNREFUSED]),
    ("accept4", &[libc::EMFILE, libc::ECONNABORTED]),
    ("getsockopt", &[libc::EMFILE, libc::ENOPROTOOPT]),
    ("setsockopt", &[libc::ENOPROTOOPT]),
    ("sendmsg", &[libc::ENOBUFS, libc::EINTR, libc::ETOOMANYREFS, libc::EAGAIN]),
    ("recvmsg", &[libc::EINTR, libc::ENOMEM, DESCRIPTORS_LOST]),
    ("poll", &[libc::EINTR, libc::ENOMEM]),
    ("write", &[libc::EINTR]),
    ("read", &[libc::EINTR]),
    ("chmod", &[libc::EPERM]),
    ("flock", &[libc::EINTR]),
    ("pthread_create", &[libc::EAGAIN]),
    ("epoll_create1", &[libc::EMFILE]),
    ("epoll_ctl", &[libc::ENOMEM]),
    ("epoll_wait", &[libc::EINTR, libc::ENOMEM]),
];

fn main() {
    calls::begin();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["store", socket] => part::store(socket, &CAPACITY.to_string()),
        ["client", socket] => part::client(socket),
        // The question that a test harness is asked.
        ["--list", ..] => println!("every_failing_call: test"),
        _ => every_failing_call(),
    }
}

fn every_failing_call() {
    let all = std::env::var("MOBULA_FAILING_CALLS").is_ok_and(|value| value == "all");
    let only = std::env::var("MOBULA_FAILING_ONLY").ok();
    let mut random = Random::from_environment();
    let mut report = Report::default();
    let begun = Instant::now();
    if only.is_none() {
        starts(&mut report);
    }
    let mut world = World::start();
    for (place, process) in PROCESSES.iter().enumerate() {
        for (call, errnos) in FAILURES {
            let row = format!("{process} {call}");
            if only.as_ref().is_some_and(|only| !row.contains(only.as_str())) {
                continue;
            }
            let reached = world.count_calls(place, call);
            for errno in *errnos {
                let mut nths: Vec<u64> = (1..=reached).collect();
                while !all && nths.len() > SAMPLES {
                    nths.swap_remove(random.below(nths.len() as u64) as usize);
                }
                for nth in nths {
                    world.fail(place, call, *errno, nth, 1, &mut report);
                }
                if reached > 0 {
                    world.fail(place, call, *errno, 1 + random.below(reached), LASTS, &mut report);
                }
            }
        }
    }
    println!("{report}in {:?}", begun.elapsed());
    assert!(report.defects.is_empty(), "{:#?}", report.defects);
}

fn name_of(errno: i32) -> String {
    match errno {
        DESCRIPTORS_LOST => "descriptors lost".to_owned(),
        errno => format!("{:?}", nix::errno::Errno::from_raw(errno)),
    }
}

// ---- outcomes ----

#[derive(Default)]
struct Report {
    /// The count of each outcome, by process, call and error.
    rows: BTreeMap<(String, String, String), BTreeMap<String, u32>>,
    defects: Vec<String>,
}

impl Report {
    fn add(&mut self, process: &str, call: &str, errno: i32, outcome: &str) {
        let row = (process.to_owned(), call.to_owned(), name_of(errno));
        *self.rows.entry(row).or_default().entry(outcome.to_owned()).or_default() += 1;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut total = 0;
        writeln!(f, "| fails in | call | with | times | comes to |\n|---|---|---|---|---|")?;
        for ((process, call, errno), outcomes) in &self.rows {
            let times: u32 = outcomes.values().sum();
            let outcomes: Vec<String> =
                outcomes.iter().map(|(what, times)| format!("{times} × {what}")).collect();
            total += times;
            writeln!(f, "| {process} | {call} | {errno} | {times} | {} |", outcomes.join(", "))?;
        }
        writeln!(f, "{total} failures, {} defects", self.defects.len())
    }
}

// ---- a store that does not start ----

/// Every call that a store makes before it is ready fails once: it says why in a line, or starts all the same.
fn starts(report: &mut Report) {
    for (call, errnos) in FAILURES {
        for errno in *errnos {
            for nth in 1.. {
                let directory = tempfile::Builder::new().prefix("mobula-test-").tempdir().unwrap();
                let (socket, control_path) = (directory.path().join("s"), directory.path().join("c"));
                let control = Control::map(&control_path);
                control.arm(call, *errno, nth, 1);
                let mut command = myself(&["store"], &socket, &control_path);
                command.stderr(Stdio::piped()).stdout(Stdio::piped()).stdin(Stdio::piped());
                // Its input ends at once, and with it a store that has started.
                let output = command.spawn().and_then(std::process::Child::wait_with_output).unwrap();
                if control.failed() == 0 {
                    break;
                }
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                let started = String::from_utf8_lossy(&output.stdout).contains("ok ready");
                let says_why =
                    output.status.code() == Some(1) && said.lines().any(|line| line.starts_with("error: "));
                let outcome = match (started, output.status.success(), says_why) {
                    (true, true, _) => "starts",
                    (false, _, true) => "says why it does not start",
                    (true, _, true) => "says why it ends",
                    _ => {
                        report.defects.push(format!(
                            "starting, {call} {nth} {}: {} {said}",
                            name_of(*errno),
                            output.status
                        ));
                        "ends without a word"
                    }
                };
                if socket.exists() {
                    report.defects.push(format!("starting, {call} {nth}: the socket is left behind"));
                }
                report.add("a starting store", call, *errno, outcome);
            }
        }
    }
}

fn myself(role: &[&str], socket: &Path, control: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(role).arg(socket).env(CONTROL, control);
    command
}

// ---- a store and its clients ----

const PROCESSES: [&str; 3] = ["the store", "the owner", "the reader"];

struct World {
    directory: tempfile::TempDir,
    controls: [&'static Control; 3],
    processes: [Process; 3],
    /// Of a process in which nothing fails.
    watcher: Client,
    base: Option<Base>,
}

/// The resources of all processes while nothing happens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Base {
    totals: Totals,
    counts: Vec<(usize, usize)>,
}

impl World {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("mobula-test-").tempdir().unwrap();
        let socket = directory.path().join("store.sock");
        let control = |place: usize| directory.path().join(format!("control-{place}"));
        let start = |place: usize, role| {
            let mut process = Process::start(myself(&[role], &socket, &control(place)));
            process.answer().expect("it starts");
            process
        };
        let processes = [start(0, "store"), start(1, "client"), start(2, "client")];
        let controls = [0, 1, 2].map(|place| Control::map(&control(place)));
        let watcher = Client::connect(&socket).unwrap();
        let mut world = Self { directory, controls, processes, watcher, base: None };
        for _ in 0..2 {
            assert_eq!(world.scenario(), []);
            world.reset();
        }
        // Waits until two looks agree: these resources are the base.
        let start = Instant::now();
        let mut last = world.look().unwrap();
        while world.base.as_ref() != Some(&last) || last.totals.free_bytes < CAPACITY {
            assert!(start.elapsed() < SETTLE, "nothing fails, and yet: {last:?}");
            world.base = Some(last);
            std::thread::sleep(Duration::from_millis(50));
            last = world.look().unwrap();
        }
        world
    }

    /// How many calls of a name a process makes in a scenario.
    fn count_calls(&mut self, place: usize, call: &str) -> u64 {
        self.controls[place].arm(call, 0, u64::MAX, 1);
        let errors = self.scenario();
        assert_eq!(errors, [], "nothing fails");
        let counted = self.controls[place].counted();
        self.controls[place].disarm();
        self.reset();
        counted
    }

    /// Lets one call fail in a scenario, and sees that it has no consequences for the next one.
    fn fail(&mut self, place: usize, call: &str, errno: i32, nth: u64, times: u64, report: &mut Report) {
        let what = format!("{} {call} {nth} ({times} times) {}", PROCESSES[place], name_of(errno));
        self.controls[place].arm(call, errno, nth, times);
        let begun = Instant::now();
        let errors = self.scenario();
        let took = begun.elapsed();
        let failed = self.controls[place].failed();
        self.controls[place].disarm();
        let outcome = match errors.first() {
            None if failed == 0 => "not reached".to_owned(),
            None => "nobody notices".to_owned(),
            Some((step, kind)) => {
                if ["Gone", "Timeout", "BadReply"].contains(&kind.as_str()) {
                    report.defects.push(format!("{what}: {step} {kind} after {took:?}"));
                }
                kind.clone()
            }
        };
        report.add(PROCESSES[place], call, errno, &outcome);
        self.reset();
        if let Err(left) = self.settles() {
            report.defects.push(format!("{what}: it leaves {left}"));
            *self = Self::start();
            return;
        }
        let errors = self.scenario();
        self.reset();
        if !errors.is_empty() {
            report.defects.push(format!("{what}: the next scenario has {errors:?}"));
            *self = Self::start();
        } else if let Err(left) = self.settles() {
            report.defects.push(format!("{what}: the next scenario leaves {left}"));
            *self = Self::start();
        }
    }

    /// Everyone lets go of everything.
    fn reset(&mut self) {
        for process in &mut self.processes[1..] {
            let _ = process.ask("reset");
        }
        for info in self.watcher.names().unwrap_or_default() {
            let _ = self.watcher.unpublish(&info.name);
        }
    }

    fn look(&mut self) -> Result<Base, String> {
        let mut counts = vec![count_of(&self.processes[0].pid.to_string())];
        for process in &mut self.processes[1..] {
            let said = process.ask("count").unwrap_or_default();
            let mut numbers = said.split(' ').map(|word| word.parse().unwrap_or(0));
            counts.push((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)));
        }
        let totals = self.watcher.stats().map_err(|error| format!("no store that answers: {error}"))?.totals;
        Ok(Base { totals, counts })
    }

    /// Waits until the resources are those of the beginning; otherwise returns the present ones.
    fn settles(&mut self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let now = self.look()?;
            let base = self.base.as_ref().expect("taken at the start");
            if now == *base {
                return Ok(());
            }
            if start.elapsed() > SETTLE {
                return Err(format!("{now:?} where there was {base:?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Everything that clients do, once; the steps that failed, and how. A step whose subject is missing is left out.
    fn scenario(&mut self) -> Vec<(String, String)> {
        const ONE: usize = 1;
        const TWO: usize = 2;
        let mut errors = Vec::new();
        let processes = &mut self.processes;
        let mut third = Process::start(myself(
            &["client"],
            &self.directory.path().join("store.sock"),
            &self.directory.path().join("none"),
        ));
        third.answer().expect("it starts");
        macro_rules! ask {
            ($process:expr, $name:expr, $($command:tt)*) => {{
                let command = format!($($command)*);
                match $process.ask(&command) {
                    Ok(answer) => Some(answer),
                    Err(kind) => {
                        errors.push((format!("{}: {command}", $name), kind));
                        None
                    }
                }
            }};
        }
        macro_rules! one { ($($command:tt)*) => { ask!(processes[ONE], "owner", $($command)*) } }
        macro_rules! two { ($($command:tt)*) => { ask!(processes[TWO], "reader", $($command)*) } }
        macro_rules! three { ($($command:tt)*) => { ask!(third, "third", $($command)*) } }

        let connected = (one!("connect").is_some(), two!("connect").is_some(), three!("connect").is_some());
        if connected.0 {
            let small = one!("put 100");
            let large = one!("put 3000000");
            one!("put-many 100 64");
            if connected.1 {
                for object in [&small, &large].into_iter().flatten() {
                    two!("get {object}");
                    two!("hold {object}");
                }
                if let Some(small) = &small {
                    if one!("publish name {small}").is_some() {
                        two!("get-named name");
                        two!("unpublish name");
                    }
                    two!("put-with 100 {small}");
                    // A promise is waited for, and kept.
                    if let Some(promise) = one!("promise") {
                        processes[TWO].send(format_args!("wait {promise}"));
                        one!("fulfil {promise} 2000");
                        if let Err(kind) = processes[TWO].answer() {
                            errors.push((format!("reader: wait {promise}"), kind));
                        }
                    }
                    // Records go both ways.
                    if two!("open {small}").is_some() && one!("accept").is_some() {
                        if two!("send").is_some() {
                            one!("receive");
                        }
                        if one!("send").is_some() {
                            two!("receive");
                        }
                    }
                    two!("close");
                    one!("close");
                }
                two!("verify");
                if let Some(large) = &large {
                    two!("drop {large}");
                }
            }
            if let Some(large) = &large {
                one!("drop {large}");
            }
            // A put that finds the store full of objects that are not needed any more.
            if let Some(most) = one!("put 6000000") {
                one!("drop {most}");
                if connected.1
                    && let Some(most) = two!("put 6000000")
                {
                    two!("drop {most}");
                }
            }
            if connected.2
                && let Some(small) = &small
            {
                // A client dies. Its objects stay, also one to which only its object refers, and its promise is lost.
                let (theirs, promise) = (three!("put-with 1000 {small}"), three!("promise"));
                one!("drop {small}");
                if connected.1 {
                    two!("drop {small}");
                    if let Some(theirs) = &theirs {
                        two!("get {theirs}");
                    }
                    let waits = promise
                        .as_ref()
                        .is_some_and(|promise| processes[TWO].send(format_args!("wait {promise}")));
                    third.kill();
                    if waits {
                        match processes[TWO].answer().expect_err("it was never kept").as_str() {
                            "Lost" | "NoSuchObject" => {}
                            kind => errors.push(("reader: wait for the third's".to_owned(), kind.to_owned())),
                        }
                    }
                    if let Some(theirs) = &theirs {
                        two!("get-inner {theirs}");
                        two!("verify");
                    }
                }
            }
            one!("stats");
            one!("list");
            one!("names");
        }
        errors
    }
}
