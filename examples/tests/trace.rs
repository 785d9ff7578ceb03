//! The messages of each step that `docs/how-it-works.md` explains. If this fails, a step sends more or fewer messages
//! to the daemon than the page says.

use std::path::Path;
use std::process::{Command, Stdio};

/// The repetitions of the steps that send no message.
const TIMES: &str = "50";

#[test]
fn each_step_sends_the_messages_that_the_page_names() {
    let Some(trace) = Trace::of_the_program() else { return };
    // The worker starts while the driver goes on: its 4 messages belong to any of these steps.
    let [init, put, channel, worker] = [5, 1, 3, 4];
    assert_eq!(trace.messages("init", "more calls"), init + put + channel + worker);
    assert_eq!(trace.messages("more calls", "a put of 100 MB"), 0);
    assert_eq!(trace.messages("a put of 100 MB", "a call with the 100 MB"), 1, "a segment");
    assert_eq!(trace.messages("a call with the 100 MB", "the same call once more"), 1, "to map it");
    assert_eq!(trace.messages("the same call once more", "an actor"), 0);
    // If the worker's lease has ended meanwhile, the actor gets its process, and its channel.
    let [step, next] = ["an actor", "more calls of the actor"];
    let expected = if trace.starts_a_process(step, next) { worker + channel } else { 0 };
    assert_eq!(trace.messages(step, next), expected);
    assert_eq!(trace.messages("more calls of the actor", "the end"), 0);
}

/// The lines that `strace` wrote.
struct Trace(Vec<String>);

impl Trace {
    /// `None`, with a line that says so, where tracing does not work.
    fn of_the_program() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("trace");
        let strace = |program: &Path| {
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-s", "64", "-e", "trace=execve,sendmsg,%file", "-o"]).arg(&file);
            command.arg(program).stdout(Stdio::null());
            command
        };
        if !strace(Path::new("true")).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            println!("SKIP: strace does not work here, so no messages were counted");
            return None;
        }
        let test = std::env::current_exe().unwrap();
        let program = test.parent().and_then(Path::parent).unwrap().join("examples/how_it_works");
        let status = strace(&program).args(["--times", TIMES]).status().unwrap();
        assert!(status.success(), "{}: {status}", program.display());
        Some(Self(std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect()))
    }

    /// The lines from one step to another.
    fn between(&self, from: &str, to: &str) -> &[String] {
        let position = |step: &str| {
            let mark = format!("\"step: {step}\"");
            self.0.iter().position(|line| line.contains(&mark)).unwrap_or_else(|| panic!("no step {step:?}"))
        };
        &self.0[position(from)..position(to)]
    }

    /// Whether a process is started from one step to another.
    fn starts_a_process(&self, from: &str, to: &str) -> bool {
        self.between(from, to).iter().any(|line| line.contains("execve("))
    }

    /// The number of messages to the daemon from one step to another.
    fn messages(&self, from: &str, to: &str) -> usize {
        let thread = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        let starts = |line: &&String| line.contains("execve(") && line.contains("\"mobula-store\"");
        let store = thread(self.0.iter().find(starts).expect("the store starts"));
        // A descriptor that one process of the session gives to another comes with one byte.
        let is_message = |line: &&String| {
            line.contains(" sendmsg(") && !line.contains("iov_len=1}") && thread(line) != store
        };
        self.between(from, to).iter().filter(is_message).count()
    }
}
