//! `mobula store` starts, serves and ends, or says in one line why it does not. If this fails, a user's file is deleted,
//! a running store is cut off, or somebody is left without a word about what was wrong.

mod common;

use std::fs;

use common::{Store, check_refused, entries, run};
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
fn capacities_that_cannot_be() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("store.sock");
    let socket = socket.to_str().unwrap();
    let check = |capacity: &str, expected: &[&str]| {
        check_refused(["store", "--socket", socket, "--capacity", capacity], directory.path(), expected);
    };
    check("0", &["capacity of 0 bytes"]);
    check("0GiB", &["capacity of 0 bytes"]);
    check("1024TiB", &["1024 TiB", "more than the machine's memory"]);
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
