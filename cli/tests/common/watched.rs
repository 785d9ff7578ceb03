//! A session of this process, and the command that shows it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::run;

/// One session at a time.
static ALONE: Mutex<()> = Mutex::new(());

pub struct Watched {
    pub socket: String,
    _session: mobula::Session,
    _alone: MutexGuard<'static, ()>,
}

/// A session that records all events.
pub fn session(workers: usize) -> Watched {
    session_with(workers, "all")
}

/// A session that records these events, with a store of 64 MiB.
pub fn session_with(workers: usize, events: &str) -> Watched {
    with(events, |builder| builder.workers(workers).capacity_bytes(64 << 20))
}

/// Any session.
pub fn with(events: &str, build: impl FnOnce(mobula::Builder) -> mobula::Builder) -> Watched {
    start(events, "0", build)
}

/// A session that notes where each object is made.
pub fn with_call_sites(build: impl FnOnce(mobula::Builder) -> mobula::Builder) -> Watched {
    start("", "1", build)
}

fn start(events: &str, call_sites: &str, build: impl FnOnce(mobula::Builder) -> mobula::Builder) -> Watched {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the other threads of this program that read the environment wait for the lock that this one has.
    unsafe { std::env::set_var("MOBULA_EVENTS", events) };
    // SAFETY: as before.
    unsafe { std::env::set_var("MOBULA_CALL_SITES", call_sites) };
    let session = build(mobula::Builder::new()).init().unwrap();
    let socket = session.socket().to_str().unwrap().to_owned();
    Watched { socket, _session: session, _alone: alone }
}

impl Watched {
    /// The JSON that the program prints.
    pub fn ask(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json", "--socket", &self.socket]).collect();
        let output = run(words, Path::new("/nowhere"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Prints a command and its output: with `--nocapture`, the outputs in `docs/what-to-type.md`.
    pub fn show(&self, words: &[&str]) {
        println!("$ mobula {}\n{}", words.join(" "), self.text(words));
    }

    /// The output for people.
    pub fn text(&self, words: &[&str]) -> String {
        let words: Vec<&str> = words.iter().copied().chain(["--socket", &self.socket]).collect();
        let output = run(words, Path::new("/nowhere"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A file, and its name. Calls wait until it is dropped.
pub struct Gate(tempfile::NamedTempFile);

impl Gate {
    pub fn new() -> Self {
        Self(tempfile::NamedTempFile::new().unwrap())
    }

    pub fn path(&self) -> String {
        self.0.path().to_str().unwrap().to_owned()
    }
}
