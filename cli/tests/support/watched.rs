//! A session of this process, and the command that shows it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::run;

/// One session at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A session. There is one at a time in a test program.
#[derive(Debug)]
pub struct Watched {
    /// The path of its store's socket.
    pub socket: String,
    session: Option<mobula::Session>,
    _alone: MutexGuard<'static, ()>,
}

/// A session that records all events.
pub fn session(workers: usize) -> Watched {
    session_with(workers, Some("all"))
}

/// A session that records these events, or what it does by default, with a store of 64 MiB.
pub fn session_with(workers: usize, events: Option<&str>) -> Watched {
    with(events, |builder| builder.workers(workers).capacity_bytes(64 << 20))
}

/// Any session.
pub fn with(events: Option<&str>, build: impl FnOnce(mobula::Builder) -> mobula::Builder) -> Watched {
    start(events, "0", build)
}

/// A session that notes where each object is made.
pub fn with_call_sites(build: impl FnOnce(mobula::Builder) -> mobula::Builder) -> Watched {
    start(Some("none"), "1", build)
}

fn start(
    events: Option<&str>,
    call_sites: &str,
    build: impl FnOnce(mobula::Builder) -> mobula::Builder,
) -> Watched {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match events {
        // SAFETY: the other threads of this program that read the environment wait for the lock that this one has.
        Some(events) => unsafe { std::env::set_var("MOBULA_EVENTS", events) },
        // SAFETY: as before.
        None => unsafe { std::env::remove_var("MOBULA_EVENTS") },
    }
    // SAFETY: as before.
    unsafe { std::env::set_var("MOBULA_CALL_SITES", call_sites) };
    let session = build(mobula::Builder::new()).init().unwrap();
    let socket = session.socket().to_str().unwrap().to_owned();
    Watched { socket, session: Some(session), _alone: alone }
}

impl Watched {
    /// Ends the session.
    pub fn end(&mut self) {
        drop(self.session.take());
    }

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
#[derive(Debug)]
pub struct Gate(tempfile::NamedTempFile);

impl Gate {
    /// A new one.
    pub fn closed() -> Self {
        Self(tempfile::NamedTempFile::new().unwrap())
    }

    /// Its name.
    pub fn path(&self) -> String {
        self.0.path().to_str().unwrap().to_owned()
    }
}
