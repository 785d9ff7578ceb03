//! `mobula store` starts, serves and ends, or says in one line why it does not. If this fails, a user's file is
//! deleted, a running store is cut off, or somebody is left without a word about what was wrong.

use std::fs;

use mobula_cli_support::{Store, check_refused, entries, program, run};
use nix::sys::signal::Signal;
use tempfile::TempDir;

#[test]
fn it_serves_until_it_is_told_to_stop_and_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let store = Store::start();
        let client = store.client("test");
        let object = client.put(b"bytes").unwrap();
        client.publish("name", object.id()).unwrap();
        let directory = store.end(signal);
        assert_eq!(entries(directory.path()), [""; 0], "{signal} left something behind");
        assert_eq!(&object[..], b"bytes", "an object in use outlives its store");
    }
}

#[test]
fn it_serves_on_when_nobody_can_read_its_log() {
    let (reader, writer) = std::io::pipe().unwrap();
    let store = Store::start_logging_to(writer.into(), "trace");
    drop(reader);
    for _ in 0..3 {
        let client = store.client("test");
        assert_eq!(&client.put(b"bytes").unwrap()[..], b"bytes");
    }
    store.end(Signal::SIGTERM);
}

#[test]
fn a_limit_of_file_sizes_is_raised_or_named() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    // Of this process, which writes no files: all tests' stores raise it.
    setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, hard).unwrap();
    let store = Store::start();
    let object = store.client("test").put(&[7; 5 << 20]).unwrap();
    assert_eq!(object[1000], 7);
    drop(object);
    store.end(Signal::SIGTERM);
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("store.sock");
    let script = "ulimit -f 1024; exec \"$0\" store --capacity 1MiB --socket \"$1\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(program()).arg(socket);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("RLIMIT_FSIZE") && text.contains("ulimit -f"), "{text}");
}

#[test]
fn capacities_that_cannot_be() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("store.sock");
    let socket = socket.to_str().unwrap();
    let check = |capacity: &str, expected: &[&str]| {
        check_refused(["store", "--socket", socket, "--capacity", capacity], directory.path(), expected);
    };
    check("0", &["capacity of 0 bytes"]);
    check("0GiB", &["capacity of 0 bytes"]);
    check("1024TiB", &["1024 TiB", "control group"]);
    for (nonsense, expected) in [("2GiBB", "2GiBB"), ("lots", "lots"), ("", "expected a number")] {
        let output = run(["store", "--socket", socket, "--capacity", nonsense], directory.path());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(expected) && text.contains("512MiB"), "{text}");
    }
    assert_eq!(entries(directory.path()), [""; 0]);
}

#[test]
fn sockets_that_cannot_be() {
    let directory = TempDir::new().unwrap();
    let check = |socket: &std::path::Path, expected: &[&str]| {
        let socket = socket.to_str().unwrap();
        check_refused(["store", "--capacity", "1MiB", "--socket", socket], directory.path(), expected);
    };
    let long = directory.path().join("x".repeat(200));
    check(&long, &["the name of the socket has 200 bytes", "82"]);
    check(&directory.path().join("nowhere/store.sock"), &["does not exist", "nowhere"]);
    assert_eq!(entries(directory.path()), [""; 0]);

    let precious = directory.path().join("precious");
    fs::write(&precious, b"data").unwrap();
    check(&precious, &["not a socket", "left alone"]);
    assert_eq!(fs::read(&precious).unwrap(), b"data");
}

#[test]
fn a_running_store_is_not_disturbed() {
    let store = Store::start();
    let client = store.client("test");
    let object = client.put(b"bytes").unwrap();
    let socket = store.socket.to_str().unwrap();
    check_refused(
        ["store", "--capacity", "1MiB", "--socket", socket],
        store.directory.path(),
        &["already running", "not disturbed"],
    );
    assert_eq!(store.client("another").get(object.id()).unwrap().len(), 5);
}
