//! A person reads the output of workers. If this fails, the line that explains an error is missing, or appears for
//! another process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use mobula::{ActorOptions, Builder};
use mobula_cli_support::watched::{Watched, with};
use mobula_cli_support::{check_fails, eventually, mobula, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn session(change: impl FnOnce(Builder) -> Builder) -> Watched {
    with(Some("all"), |builder| change(builder.workers(2).capacity_bytes(64 << 20).forward_output(false)))
}

/// Output that these tests read again and again.
trait Logged {
    fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str>;

    fn logs(&self, words: &[&str]) -> String;

    /// The output once it contains this.
    fn logs_with(&self, words: &[&str], expected: &str) -> String;
}

impl Logged for Watched {
    fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        ["logs"].into_iter().chain(words.iter().copied()).chain(["--socket", &self.socket]).collect()
    }

    fn logs(&self, words: &[&str]) -> String {
        self.text(&[&["logs"], words].concat())
    }

    fn logs_with(&self, words: &[&str], expected: &str) -> String {
        let mut text = String::new();
        eventually(expected, || {
            text = self.logs(words);
            text.contains(expected)
        });
        text
    }
}

#[mobula::remote]
fn says(text: String) -> u32 {
    println!("{text}");
    std::process::id()
}

#[mobula::remote]
fn repeats(times: u32) {
    for _ in 0..times {
        println!("again");
    }
    eprintln!("done");
}

/// Leaves a process that prints when the file is there.
#[mobula::remote]
fn says_later(gate: String, text: String) {
    let script = "(while [ ! -e \"$1\" ]; do sleep 0.01; done; echo \"$2\") &";
    assert!(Command::new("/bin/sh").args(["-c", script, "sh", &gate, &text]).status().unwrap().success());
}

struct Talker;

#[mobula::remote]
impl Talker {
    fn new() -> Self {
        println!("a talker begins");
        Self
    }

    fn say(&self, text: String) -> u32 {
        println!("{text}");
        std::process::id()
    }
}

#[test]
fn lines_are_found_by_process_by_actor_and_by_call() {
    let watched = session(|builder| builder);
    let pid = says::remote("from a function".to_owned()).get().unwrap();
    let talker = Talker::options(ActorOptions::new().name("talker")).remote();
    let talkers = talker.say("from an actor".to_owned()).get().unwrap();
    let all = watched.logs_with(&[], "from an actor");
    assert!(all.contains(&format!("(says pid={pid}) from a function\n")), "{all}");
    assert!(all.contains(&format!("(Talker pid={talkers}) a talker begins\n")), "{all}");
    assert_eq!(watched.logs(&[&pid.to_string()]), format!("(says pid={pid}) from a function\n"));
    assert_eq!(watched.logs(&["talker", "--raw"]), "a talker begins\nfrom an actor\n");
    assert_eq!(watched.logs(&["talker", "--raw", "-n", "1"]), "from an actor\n");
    let line: Value = serde_json::from_str(watched.logs(&[&pid.to_string(), "--json"]).trim_end()).unwrap();
    assert_eq!(
        (&line["pid"], &line["stream"], &line["function"]),
        (&pid.into(), &"out".into(), &"says".into())
    );
    assert_eq!(line["text"], "from a function");
    let with_times = watched.logs(&["talker", "-t"]);
    assert!(with_times.starts_with("20") && with_times.contains("Z (Talker"), "{with_times}");
}

/// The calls of a function, in the order in which they were made.
fn calls(watched: &Watched, function: &str) -> Vec<String> {
    let found = watched.ask(&["list", "tasks", "--function", &format!("logs::{function}")]);
    let tasks = found["tasks"].as_array().unwrap().iter().rev();
    tasks.map(|task| task["task"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_lines_of_a_call_are_those_of_no_other_function_and_of_no_later_call() {
    let watched = session(|builder| builder.workers(1).num_cpus(1));
    repeats::remote(3).get().unwrap();
    for text in ["one", "two"] {
        says::remote(text.to_owned()).get().unwrap();
        repeats::remote(3).get().unwrap();
        // From here on nothing of it is late.
        watched.logs_with(&["--raw"], text);
    }
    let of_says = calls(&watched, "says");
    eventually("all lines are read", || watched.logs(&["--raw"]).matches("done\n").count() == 3);
    assert_eq!(of_says.len(), 2);
    assert_eq!(watched.logs(&[&of_says[0], "--raw"]), "one\n");
    assert_eq!(watched.logs(&[&of_says[1], "--raw"]), "two\n");
    let last = calls(&watched, "repeats").pop().unwrap();
    eventually("the last one's are there", || {
        let mut lines: Vec<String> = watched.logs(&[&last, "--raw"]).lines().map(str::to_owned).collect();
        lines.sort();
        lines == ["again", "again", "again", "done"]
    });
}

#[test]
fn a_line_that_is_read_long_after_the_end_of_its_call_counts() {
    let watched = session(|builder| builder.workers(1).num_cpus(1));
    let read = tempfile::tempdir().unwrap();
    let gate = read.path().join("gate");
    says_later::remote(gate.to_str().unwrap().to_owned(), "late".to_owned()).get().unwrap();
    let call = calls(&watched, "says_later").pop().unwrap();
    let age_s = || {
        let found = watched.ask(&["list", "tasks", "--function", "logs::says_later"]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        now - found["tasks"][0]["ended"].as_f64().unwrap_or(now)
    };
    eventually("no allowance for the time between printing and reading is as long", || age_s() > 0.3);
    std::fs::write(&gate, b"").unwrap();
    watched.logs_with(&["--raw"], "late");
    assert_eq!(watched.logs(&[&call, "--raw"]), "late\n");
}

#[test]
fn the_lines_of_a_method_are_those_of_its_call() {
    let watched = session(|builder| builder);
    let talker = Talker::remote();
    for text in ["one", "two"] {
        talker.say(text.to_owned()).get().unwrap();
        watched.logs_with(&["--raw"], text);
    }
    let of_say = calls(&watched, "Talker::say");
    assert_eq!(watched.logs(&[&of_say[0], "--raw"]), "one\n");
    assert_eq!(watched.logs(&[&of_say[1], "--raw"]), "two\n");
}

#[test]
fn repeated_lines_are_all_there_and_so_is_the_error_output() {
    let watched = session(|builder| builder);
    repeats::remote(1000).get().unwrap();
    let text = watched.logs_with(&["--raw"], "done\n");
    eventually("all lines", || {
        watched.logs(&["--raw"]).lines().filter(|line| *line == "again").count() == 1000
    });
    assert_eq!(text.lines().filter(|line| *line == "done").count(), 1);
}

#[test]
fn a_reader_that_follows_gets_lines_until_the_session_ends() {
    let mut watched = session(|builder| builder);
    says::remote("before".to_owned()).get().unwrap();
    watched.logs_with(&[], "before");
    let mut child = mobula(watched.words(&["-f", "--raw"]), Path::new("/nowhere"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "before");
    for number in 0..20 {
        says::remote(number.to_string()).get().unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), number.to_string());
    }
    watched.end();
    assert!(lines.next().is_none());
    assert!(child.wait().unwrap().success());
    check_fails(1, watched.words(&[]), Path::new("/nowhere"), &[&watched.socket]);
}

#[test]
fn the_lines_of_a_killed_process_stay() {
    let watched = session(|builder| builder);
    let pid = says::remote("last words".to_owned()).get().unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    watched.logs_with(&[&pid.to_string()], "last words");
    eventually("the postmortem has them", || {
        let words = ["postmortem", "--json", "--socket", &watched.socket];
        let all: Value = serde_json::from_slice(&run(words, Path::new("/nowhere")).stdout).unwrap();
        let processes = all["processes"].as_array().unwrap();
        processes.iter().any(|process| process["pid"] == pid && process["output"][0] == "last words")
    });
}

#[test]
fn kept_files_outlive_the_session_and_others_do_not() {
    let kept = tempfile::tempdir().unwrap();
    let mut watched = session(|builder| builder.log_dir(kept.path()));
    says::remote("kept".to_owned()).get().unwrap();
    watched.logs_with(&[], "kept");
    let directory = Path::new(&watched.socket).parent().unwrap().to_owned();
    watched.end();
    assert!(!directory.exists());
    let of_session = kept.path().join(directory.file_name().unwrap());
    let output = run(["logs", "--raw", "--dir", of_session.to_str().unwrap()], Path::new("/nowhere"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "kept\n");
}

#[test]
fn removed_lines_are_said_to_be_missing() {
    let watched = session(|builder| builder.log_bytes_max(64 << 10));
    repeats::remote(100_000).get().unwrap();
    // The last line comes by another pipe: it may be removed before the lines that were printed earlier arrive.
    eventually("older output was removed", || {
        let output = run(watched.words(&["--raw"]), Path::new("/nowhere"));
        String::from_utf8_lossy(&output.stderr).contains("bytes of older output were removed")
    });
    let directory = Path::new(&watched.socket).parent().unwrap().join("logs");
    // A file may be replaced meanwhile.
    let files = std::fs::read_dir(directory).unwrap().filter_map(|entry| entry.unwrap().metadata().ok());
    let bytes: u64 = files.map(|file| file.len()).sum();
    assert!(bytes < 70 << 10, "{bytes}");
}

#[test]
fn a_target_without_output_is_told_from_one_that_is_unknown() {
    let watched = session(|builder| builder);
    let talker = Talker::options(ActorOptions::new().name("talker")).remote();
    talker.say("hello".to_owned()).get().unwrap();
    watched.logs_with(&["talker"], "hello");
    check_fails(3, watched.words(&["99999999"]), Path::new("/nowhere"), &["99999999"]);
    let own = std::process::id().to_string();
    check_fails(4, watched.words(&[&own]), Path::new("/nowhere"), &["is a driver", "is not kept"]);
    // A worker that has printed nothing.
    let workers = watched.ask(&["list", "workers", "--state", "idle"]);
    if let Some(idle) = workers["workers"].as_array().unwrap().first() {
        assert_eq!(watched.logs(&[&idle["pid"].to_string()]), "");
    }
}

#[test]
fn a_directory_of_kept_files_is_named_exactly() {
    let kept = tempfile::tempdir().unwrap();
    let watched = session(|builder| builder.log_dir(kept.path()));
    says::remote("kept".to_owned()).get().unwrap();
    watched.logs_with(&[], "kept");
    let parent = kept.path().to_str().unwrap();
    let session = Path::new(&watched.socket).parent().unwrap().file_name().unwrap().to_str().unwrap();
    check_fails(1, ["logs", "--dir", parent], Path::new("/nowhere"), &["no log files", session]);
    let of_session = format!("{parent}/{session}");
    let words = ["logs", "nosuch", "--dir", &of_session];
    check_fails(3, words, Path::new("/nowhere"), &["\"nosuch\" is no pid", "--dir"]);
    check_fails(3, ["logs", "99999999", "--dir", &of_session], Path::new("/nowhere"), &["99999999"]);
}

#[test]
fn without_log_files_the_error_says_why() {
    let watched = session(|builder| builder.log_bytes_max(0));
    says::remote("nowhere".to_owned()).get().unwrap();
    check_fails(1, watched.words(&[]), Path::new("/nowhere"), &["MOBULA_LOG_BYTES_MAX"]);
    check_fails(3, watched.words(&["nobody"]), Path::new("/nowhere"), &["nobody"]);
}
