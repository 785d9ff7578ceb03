//! A store starts where it may, says clearly why it does not elsewhere, and leaves nothing behind. If this fails, a
//! user's file is deleted, a running store is cut off, or the next start finds the way blocked.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{MIB, TestStore, eventually};
use mobula_protocol::message::Notice;
use mobula_protocol::socket::Socket;
use mobula_store::{Config, Server, StartError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe};
use tempfile::TempDir;

fn refusal(path: &Path, expected: &str) -> StartError {
    let error = Server::bind(Config::new(path, MIB)).map(drop).unwrap_err();
    assert!(error.to_string().contains(expected), "{error} does not say {expected:?}");
    error
}

#[test]
fn a_path_that_is_too_long() {
    let directory = TempDir::new().unwrap();
    let error = refusal(&directory.path().join("x".repeat(200)), "has 200 bytes");
    assert!(matches!(error, StartError::NameTooLong { .. }));
}

#[test]
fn a_file_that_is_not_a_socket_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, b"data").unwrap();
    assert!(matches!(refusal(&path, "not a socket"), StartError::NotASocket { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"data");
    assert!(matches!(refusal(&path.join("x"), "not a directory"), StartError::DirectoryNotSafe { .. }));
}

#[test]
fn a_running_store_is_not_disturbed() {
    let store = TestStore::start();
    let mut client = store.client();
    assert!(matches!(refusal(&store.socket, "already running"), StartError::AlreadyRunning { .. }));
    client.totals();
    store.client().totals();
    store.stop();
}

#[test]
fn a_socket_that_a_dead_store_left_is_taken_over() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sock");
    drop(Socket::listen(&path, 1).unwrap());
    assert!(path.exists());
    let server = Server::bind(Config::new(&path, MIB)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(server);
    assert!(!path.exists(), "a store that never ran left its socket");
}

#[test]
fn what_somebody_else_put_at_the_path_is_not_removed_at_the_end() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sock");
    let server = Server::bind(Config::new(&path, MIB)).unwrap();
    fs::rename(&path, directory.path().join("elsewhere")).unwrap();
    let _other = Socket::listen(&path, 1).unwrap();
    drop(server);
    assert!(path.exists());
}

#[test]
fn directories_that_cannot_be_trusted() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("nowhere/store.sock");
    assert!(matches!(refusal(&missing, "nowhere"), StartError::NoDirectory { .. }));
    let open = directory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(refusal(&open.join("store.sock"), "open"), StartError::DirectoryNotSafe { .. }));
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    Server::bind(Config::new(open.join("store.sock"), MIB)).unwrap();
}

#[test]
fn capacities_that_cannot_be() {
    let directory = TempDir::new().unwrap();
    let bind = |capacity| Server::bind(Config::new(directory.path().join("x"), capacity)).map(drop);
    assert!(matches!(bind(0), Err(StartError::CapacityZero)));
    let error = bind(1 << 50).unwrap_err();
    assert!(matches!(error, StartError::CapacityAboveMemory { .. }));
    let text = error.to_string();
    assert!(text.contains("1024 TiB") && text.contains("GiB"), "{text}");
    assert!(!directory.path().join("x").exists());
}

#[test]
fn a_store_ends_with_its_lifeline() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store.sock");
    let server = Server::bind(Config::new(&path, MIB)).unwrap();
    let (lifeline, held) = pipe().unwrap();
    let thread = std::thread::spawn(move || server.run_while_open(lifeline));
    nix::unistd::write(&held, b"bytes mean nothing").unwrap();
    let client = Socket::connect(&path).unwrap();
    assert!(!thread.is_finished());
    drop(held);
    thread.join().unwrap().unwrap();
    assert!(!path.exists());
    // If the store ended before it accepted, the connection is reset without a goodbye.
    let mut seen = client.receive();
    if let Ok(Some(goodbye)) = &seen {
        assert_eq!(goodbye.bytes, Notice::Closing {}.encode(0));
        seen = client.receive();
    }
    assert!(!matches!(seen, Ok(Some(_))), "the client does not see the end");
}

#[test]
fn two_stores_that_start_at_once_do_not_both_win() {
    for round in 0..200 {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.sock");
        drop(Socket::listen(&path, 1).unwrap());
        let bind = || Server::bind(Config::new(&path, MIB));
        let (a, b) = std::thread::scope(|scope| {
            let (a, b) = (scope.spawn(bind), scope.spawn(bind));
            (a.join().unwrap(), b.join().unwrap())
        });
        assert_eq!(u32::from(a.is_ok()) + u32::from(b.is_ok()), 1, "round {round}");
        Socket::connect(&path).unwrap();
    }
}

#[test]
fn the_program_serves_until_it_is_told_to_stop() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store.sock");
        let mut child = Command::new(env!("CARGO_BIN_EXE_mobula-store"))
            .args(["--capacity", "1MiB", "--socket"])
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the program listens", || match Socket::connect(&path) {
            Ok(_) => true,
            Err(error) => {
                let early = [ErrorKind::NotFound, ErrorKind::ConnectionRefused];
                assert!(early.contains(&error.kind()), "{error}");
                false
            }
        });
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(!path.exists(), "{signal} left the socket");
    }
}

#[test]
fn the_program_says_what_a_size_looks_like() {
    let output = Command::new(env!("CARGO_BIN_EXE_mobula-store"))
        .args(["--socket", "/nowhere/store.sock", "--capacity", "2GiBB"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("2GiBB") && text.contains("512MiB"), "{text}");
}
