//! A connection sends wrong bytes, or sends nothing, or does not read. The daemon disconnects this connection alone,
//! with a reason where there is one, and serves all others as before. If this fails, one broken program takes a user's
//! store down.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::{RawClient, TestStore};
use mobula_protocol::VERSION;
use mobula_protocol::message::{LABEL_BYTES_MAX, Reply, Request};

fn check(first: &[u8], expected: &str) {
    let store = TestStore::start();
    let mut bystander = store.client();
    let mut raw = RawClient::new(store.connect());
    raw.socket.send(first, &[]).unwrap();
    raw.expect_refusal_and_end(expected);
    bystander.totals();
    store.stop();
}

#[test]
fn bytes_that_are_no_message() {
    check(b"GET / HTTP/1.1\r\n\r\n", "version");
    check(&[0xff], "shorter");
    check(&[0x55; 4096], "version");
    let mut unknown = Request::Stats {}.encode(1);
    unknown[2] = 0xee;
    check(&unknown, "opcode");
    let mut longer = Request::Hello { label: "x".into(), serial: 1 }.encode(1);
    longer.push(0);
    check(&longer, "follow");
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let mut hello = Request::Hello { label: "old".into(), serial: 1 }.encode(1);
    hello[..2].copy_from_slice(&(VERSION + 1).to_le_bytes());
    check(&hello, "same build");
}

#[test]
fn a_request_before_hello() {
    check(&Request::Stats {}.encode(1), "Hello");
}

#[test]
fn a_label_that_is_too_long() {
    check(&Request::Hello { label: "x".repeat(LABEL_BYTES_MAX + 1), serial: 1 }.encode(1), "label");
}

#[test]
fn a_second_hello() {
    let store = TestStore::start();
    let mut client = store.client();
    client.raw.send(&Request::Hello { label: "again".into(), serial: 1 });
    client.raw.expect_refusal_and_end("second Hello");
    let mut other = store.client();
    common::eventually("the client is gone", || other.totals().clients == 1);
}

#[test]
fn a_reply_where_a_request_belongs() {
    let store = TestStore::start();
    let mut client = store.client();
    client.raw.socket.send(&Reply::Done {}.encode(1), &[]).unwrap();
    client.raw.expect_refusal_and_end("opcode");
}

#[test]
fn descriptors_that_nobody_asked_for() {
    let store = TestStore::start();
    let mut client = store.client();
    let file = std::fs::File::open("/dev/null").unwrap();
    let request = Request::Stats {}.encode(77);
    // A kernel that refuses descriptors says so here; elsewhere they are dropped.
    match client.raw.socket.send(&request, &[std::os::fd::AsFd::as_fd(&file)]) {
        Ok(()) => assert!(matches!(client.raw.reply(77).0, Reply::Stats { .. })),
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}"),
    }
    client.totals();
}

/// Short for those that say nothing, and long enough for the hello of a client on a busy machine.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

#[test]
fn silence_ends_at_the_deadline() {
    let store = TestStore::with(|config| config.hello_timeout(HELLO_TIMEOUT));
    let mut client = store.client();
    let mut silent = RawClient::new(store.connect());
    assert!(!silent.fetch(), "the store spoke first");
    client.totals();
}

#[test]
fn the_silent_do_not_keep_others_out() {
    let store = TestStore::with(|config| config.greetings_max(3).hello_timeout(HELLO_TIMEOUT));
    let silent: Vec<_> = (0..10).map(|_| store.connect()).collect();
    store.client().totals();
    drop(silent);
}

#[test]
fn who_does_not_read_is_disconnected_and_nobody_else_notices() {
    let store = TestStore::with(|config| config.out_queue_messages_max(100));
    let mut bystander = store.client();
    let deaf = store.client();
    let mut sent = 0;
    for correlation in 0..10_000 {
        if deaf.raw.socket.send(&Request::Stats {}.encode(correlation), &[]).is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent < 10_000, "replies are kept without a limit");
    common::eventually("the deaf client is gone", || bystander.totals().clients == 1);
}

#[test]
fn requests_may_be_sent_ahead_while_replies_are_read() {
    let store = TestStore::start();
    let mut client = store.client();
    for _ in 0..100 {
        let sent: Vec<u64> = (0..100).map(|_| client.raw.send(&Request::Stats {})).collect();
        for correlation in sent {
            assert!(matches!(client.raw.reply(correlation).0, Reply::Stats { .. }));
        }
    }
}

#[test]
fn random_requests_leave_the_store_standing() {
    // Well-formed headers before random fields reach further than plain noise does.
    let store = TestStore::start();
    let mut bystander = store.client();
    let seed: u64 = 0x6d6f_6275_6c61;
    let mut state = seed;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let client = store.client();
        for _ in 0..20 {
            let mut message = Request::Stats {}.encode(random());
            message[2] = (1 + random() % 18) as u8;
            let fields = random() % 40;
            message.extend((0..fields).map(|_| if random() % 3 == 0 { random() as u8 } else { 0 }));
            if client.raw.socket.send(&message, &[]).is_err() {
                break;
            }
        }
        drop(client);
        assert!(bystander.totals().capacity_bytes > 0, "seed {seed:#x}, round {round}");
    }
    common::eventually("everything random is gone", || {
        let totals = bystander.totals();
        totals.clients == 1 && totals.segments == 0 && totals.free_bytes == totals.capacity_bytes
    });
}
