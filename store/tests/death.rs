//! A client's process is killed while a child of it still has the socket open: the connection never hangs up, and the
//! death is noticed all the same. If this fails, the objects that the dead client held are held for as long as the
//! child lives.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{RawClient, TestStore, eventually};
use mobula_protocol::message::{Reply, Request};
use mobula_protocol::socket::Socket;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SOCKET: &str = "MOBULA_TEST_SOCKET";

/// The code of the process that dies; not a test of its own.
#[test]
fn helper_that_dies() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let mut raw = RawClient::new(Socket::connect(path.as_ref()).unwrap());
    assert!(matches!(
        raw.call(&Request::Hello { label: "doomed".into(), serial: 1 }).0,
        Reply::Welcome { .. }
    ));
    fcntl(&raw.socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let mut heir = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
    println!("\nheir {}", heir.id());
    let _ = heir.wait();
}

#[test]
fn a_death_is_noticed_while_a_child_keeps_the_socket_open() {
    let store = TestStore::start();
    let mut watcher = store.client();
    let mut doomed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_dies", "--nocapture"])
        .env(SOCKET, &store.socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(doomed.stdout.take().unwrap());
    let heir = output.lines().map_while(Result::ok).find_map(|line| line.strip_prefix("heir ")?.parse().ok());
    let heir = Pid::from_raw(heir.expect("the helper has connected"));
    assert_eq!(watcher.totals().clients, 2);
    doomed.kill().unwrap();
    eventually("the death is noticed", || watcher.totals().clients == 1);
    kill(heir, None).expect("the heir ended before the death was noticed");
    kill(heir, Signal::SIGKILL).unwrap();
    doomed.wait().unwrap();
}
