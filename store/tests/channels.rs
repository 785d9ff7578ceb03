//! Channels join two clients and end with either. If this fails, a task waits on a worker that cannot answer.

mod common;

use std::os::fd::AsFd;

use common::{TestStore, eventually};
use mobula_protocol::message::{Notice, Refusal, Reply, Request};
use mobula_shm::ring;

#[test]
fn two_ends_carry_records_both_ways_until_one_disconnects() {
    let store = TestStore::start();
    let (mut asker, mut peer) = (store.client(), store.client());
    let (reply, asker_ends) = asker.call(&Request::Connect { peer: peer.owner });
    let Reply::Connected { channel, data_bytes } = reply else { panic!("{reply:?}") };
    let (notice, peer_ends) = peer.raw.notice(|notice| matches!(notice, Notice::ChannelOpened { .. }));
    assert_eq!(notice, Notice::ChannelOpened { channel, peer: asker.owner, data_bytes });

    let (mut to_peer, mut from_peer) =
        ring::open(asker_ends[0].as_fd(), asker_ends[1].as_fd(), data_bytes).unwrap();
    let (mut to_asker, mut from_asker) =
        ring::open(peer_ends[0].as_fd(), peer_ends[1].as_fd(), data_bytes).unwrap();
    let mut record = Vec::new();
    to_peer.push(b"task").unwrap();
    assert!(from_asker.next(&mut record).unwrap());
    assert_eq!(record, b"task");
    to_asker.push(b"result").unwrap();
    assert!(from_peer.next(&mut record).unwrap());
    assert_eq!(record, b"result");

    assert_eq!(asker.totals().channels, 1);
    peer.done(&Request::Disconnect { channel });
    asker.raw.notice(|notice| *notice == Notice::ChannelClosed { channel });
    assert_eq!(asker.refusal(&Request::Disconnect { channel }), Refusal::NoSuchChannel { channel });
    assert_eq!(asker.totals().channels, 0);
}

#[test]
fn a_channel_ends_with_its_client() {
    let store = TestStore::start();
    let (mut asker, peer) = (store.client(), store.client());
    let (reply, _) = asker.call(&Request::Connect { peer: peer.owner });
    let Reply::Connected { channel, .. } = reply else { panic!("{reply:?}") };
    let id = peer.owner;
    drop(peer);
    asker.raw.notice(|notice| *notice == Notice::ChannelClosed { channel });
    eventually("the peer is forgotten", || {
        asker.refusal(&Request::Connect { peer: id }) == Refusal::NoSuchOwner { owner: id }
    });
}

#[test]
fn nobody_closes_the_channel_of_others_or_opens_too_many() {
    let store = TestStore::with(|config| config.channels_max(1));
    let (mut asker, peer, mut stranger) = (store.client(), store.client(), store.client());
    let (reply, _) = asker.call(&Request::Connect { peer: peer.owner });
    let Reply::Connected { channel, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(stranger.refusal(&Request::Disconnect { channel }), Refusal::NoSuchChannel { channel });
    let limit = Refusal::LimitReached { limit: "channels_max".into(), max: 1 };
    assert_eq!(stranger.refusal(&Request::Connect { peer: peer.owner }), limit);
    let own = stranger.owner;
    stranger.raw.send(&Request::Connect { peer: own });
    stranger.raw.expect_refusal_and_end("oneself");
}
