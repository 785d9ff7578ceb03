//! `mobula status` shows who uses a store and for how much, to people and to programs. If this fails, a full store
//! cannot be explained, and scripts that read the JSON break.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mobula_cli_support::{MIB, Store, check_refused, entries, eventually, run};
use mobula_client::Client;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use tempfile::TempDir;

fn status(words: &[&str], runtime_directory: &Path) -> String {
    let output = run(["status"].iter().chain(words), runtime_directory);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn status_json(words: &[&str], runtime_directory: &Path) -> Value {
    let words: Vec<_> = words.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&status(&words, runtime_directory)).unwrap()
}

/// The row of a client, by what it calls itself.
fn client_row<'a>(status: &'a Value, label: &str) -> &'a Value {
    let clients = status["clients"].as_array().unwrap();
    clients.iter().find(|row| row["label"] == label).unwrap_or_else(|| panic!("no {label:?} in {clients:?}"))
}

/// Waits until the store has noticed that all but `clients` clients have left.
fn settle(client: &Client, clients: usize) {
    eventually("clients that left are forgotten", || client.stats().unwrap().clients.len() == clients);
}

#[test]
fn clients_and_named_objects_are_shown() {
    let store = Store::start();
    let socket = store.socket.to_str().unwrap();
    let (owner, reader) = (store.client("the owner"), store.client("a \u{1b}[31mreader"));
    let objects = [owner.put(&vec![1; MIB as usize]).unwrap(), owner.put(b"small").unwrap()];
    let _read = reader.get(objects[0].id()).unwrap();
    owner.publish("scores", objects[0].id()).unwrap();
    owner.publish([0xff, 0x00], objects[1].id()).unwrap();
    settle(&owner, 2);

    let shown = status_json(&["--socket", socket], store.directory.path());
    assert_eq!(shown["socket"], socket);
    let totals = &shown["totals"];
    assert_eq!(totals["capacity_bytes"], 16 * MIB);
    assert_eq!(totals["clients"], 2, "{totals}");
    assert_eq!(totals["names"], 2);
    assert_eq!(totals["orphaned_bytes"], 0);
    assert_eq!(totals["dead_clients"], 0);
    assert_eq!(totals["channels"], 0);
    let bytes = |key: &str| totals[key].as_u64().unwrap_or_else(|| panic!("no {key} in {totals}"));
    assert_eq!(bytes("leased_bytes") + bytes("retired_bytes") + bytes("free_bytes"), 16 * MIB);

    assert_eq!(shown["clients"].as_array().unwrap().len(), 2, "it shows itself");
    let row = client_row(&shown, "the owner");
    assert_eq!(row["id"], owner.id().to_string());
    assert_eq!(row["pid"], std::process::id());
    assert_eq!(row["dead"], false);
    assert_eq!(row["leased_bytes"], totals["leased_bytes"]);
    assert!(row["segments"].as_u64().unwrap() >= 1);
    assert_eq!(row["objects"], 2);
    assert_eq!(row["object_bytes"], MIB + 5);
    assert_eq!(row["pins"], 2);
    let row = client_row(&shown, "a \u{1b}[31mreader");
    assert_eq!(row["leased_bytes"], 0);
    assert_eq!(row["objects"], 0);
    assert_eq!(row["pins"], 1);

    let names = shown["names"].as_array().unwrap();
    let [scores, bytes] = &names[..] else { panic!("{names:?}") };
    let holders = scores["holders"].as_u64().unwrap();
    assert!(holders >= 2, "{scores}");
    let id = objects[0].id().to_string();
    let expected = json!({
        "name": "scores", "name_hex": "73636f726573", "object": id, "bytes": MIB, "holders": holders
    });
    assert_eq!(*scores, expected);
    assert_eq!(bytes["name"], Value::Null);
    assert_eq!(bytes["name_hex"], "ff00");
    assert_eq!(bytes["bytes"], 5);

    settle(&owner, 2);
    let text = status(&["--socket", socket], store.directory.path());
    for expected in [
        "capacity  16 MiB",
        "to 2 clients",
        "names     2",
        "the owner",
        "a \u{fffd}[31mreader",
        "1 MiB",
        "scores",
        "0xff00",
        &id,
    ] {
        assert!(text.contains(expected), "{text} does not say {expected:?}");
    }
    assert!(!text.contains("mobula status"), "it shows itself: {text}");
}

#[test]
fn a_dead_client_whose_object_is_held_is_shown_as_dead() {
    let store = Store::start();
    let socket = store.socket.to_str().unwrap();
    let (owner, reader) = (store.client("short-lived"), store.client("reader"));
    let object = reader.get(owner.put(&vec![1; MIB as usize]).unwrap().id());
    drop(owner);
    let object = object.unwrap();
    eventually("the owner is dead", || {
        reader.stats().unwrap().clients.iter().any(|info| info.dead && info.owner == object.id().owner())
    });
    settle(&reader, 2);
    let shown = status_json(&["--socket", socket], store.directory.path());
    assert_eq!(client_row(&shown, "short-lived")["dead"], true);
    assert_eq!(shown["totals"]["clients"], 1);
    assert_eq!(shown["totals"]["dead_clients"], 1);
    let text = status(&["--socket", socket], store.directory.path());
    assert!(text.contains("short-lived (dead)") && text.contains("from 1 dead client\n"), "{text}");
}

#[test]
fn an_empty_store() {
    let store = Store::start();
    let text = status(&["--socket", store.socket.to_str().unwrap()], store.directory.path());
    assert!(text.contains("to 0 clients") && !text.contains("named objects"), "{text}");
}

#[test]
fn sockets_without_a_store() {
    let directory = TempDir::new().unwrap();
    let check = |socket: &Path, expected: &[&str]| {
        for more in [&[][..], &["--json"]] {
            let socket = socket.to_str().unwrap();
            let words = [&["status", "--socket", socket], more].concat();
            check_refused(words, directory.path(), expected);
        }
    };
    let nothing = directory.path().join("store.sock");
    check(&nothing, &["no store at", nothing.to_str().unwrap()]);
    check(&directory.path().join("x".repeat(200)), &["200 bytes", "xxx"]);
    check(directory.path(), &["is not a socket"]);
    let file = directory.path().join("precious");
    fs::write(&file, b"data").unwrap();
    check(&file, &["precious is not a socket"]);
    assert_eq!(fs::read(&file).unwrap(), b"data");
    let left_over = directory.path().join("left");
    drop(std::os::unix::net::UnixListener::bind(&left_over).unwrap());
    check(&left_over, &["no store at", "left"]);
}

/// A process has one session at a time.
static ONE_SESSION: Mutex<()> = Mutex::new(());

fn session_lock() -> MutexGuard<'static, ()> {
    ONE_SESSION.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sessions among those listed whose sockets are in a directory. Others of this user's may run meanwhile.
fn sessions_in<'a>(listed: &'a Value, directory: &Path) -> Vec<&'a Value> {
    let sessions = listed["sessions"].as_array().unwrap().iter();
    sessions.filter(|session| Path::new(session["socket"].as_str().unwrap()).starts_with(directory)).collect()
}

#[test]
fn looking_for_sessions_finds_none_in_an_empty_directory_and_leaves_nothing_there() {
    let directory = TempDir::new().unwrap();
    assert!(!status(&[], directory.path()).contains(directory.path().to_str().unwrap()));
    assert!(sessions_in(&status_json(&[], directory.path()), directory.path()).is_empty());
    assert_eq!(entries(directory.path()), [""; 0]);
}

#[test]
fn running_sessions_are_listed_and_those_that_end_meanwhile_are_not() {
    let directory = TempDir::new().unwrap();
    let base = directory.path().join("mobula");
    let _lock = session_lock();
    let builder = mobula::Builder::new().workers(1).capacity_bytes(32 * MIB).session_dir(&base);
    let session = builder.init().unwrap();
    // Locked as a living session's, but its store does not listen any more.
    let (ending, _lock) = locked_directory(&base, "session-1-0");

    let shown = status_json(&[], directory.path());
    let sessions = sessions_in(&shown, directory.path());
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!(sessions[0]["socket"], session.socket().to_str().unwrap());
    assert_eq!(sessions[0]["totals"]["capacity_bytes"], 32 * MIB);
    assert!(sessions[0]["totals"]["clients"].as_u64().unwrap() >= 2, "a driver and its head");
    let text = status(&[], directory.path());
    let head = format!("session at {}\n", session.socket().display());
    let own = text.split_once(&head).unwrap_or_else(|| panic!("no {head:?} in {text}")).1;
    for expected in ["  drivers   ", "  workers   ", " CPU used\n", "of 32 MiB used"] {
        assert!(own.contains(expected), "{text} does not say {expected:?}");
    }
    assert!(!text.contains(ending.to_str().unwrap()), "{text}");

    let shown = status_json(&["--socket", session.socket().to_str().unwrap()], directory.path());
    assert!(shown["clients"].to_string().contains("driver"), "{shown}");
}

/// A directory that is locked as one of a living session.
fn locked_directory(base: &Path, name: &str) -> (PathBuf, Flock<File>) {
    let directory = base.join(name);
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join("lock")).unwrap();
    (directory, Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap())
}

#[test]
fn a_session_whose_store_speaks_nonsense_hides_no_other() {
    let directory = TempDir::new().unwrap();
    let base = directory.path().join("mobula");
    let (odd, _lock) = locked_directory(&base, "session-1-0");
    let listener = UnixListener::bind(odd.join("store.sock")).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let _ = connection.unwrap().write_all(&[0xff; 1000]);
        }
    });
    let _lock = session_lock();
    let builder = mobula::Builder::new().workers(1).capacity_bytes(32 * MIB).session_dir(&base);
    let session = builder.init().unwrap();

    let shown = status_json(&[], directory.path());
    let sessions = sessions_in(&shown, directory.path());
    let row = |socket: &Path| {
        sessions.iter().find(|row| row["socket"] == socket.to_str().unwrap()).expect("it is listed")
    };
    assert_eq!(row(session.socket())["totals"]["capacity_bytes"], 32 * MIB);
    assert_eq!(row(session.socket()).get("error"), None);
    let row = row(&odd.join("store.sock"));
    assert_eq!(row["totals"], Value::Null);
    let error = row["error"].as_str().unwrap();
    let text = status(&[], directory.path());
    assert!(text.contains(error) && text.contains(session.socket().to_str().unwrap()), "{text}");
}
