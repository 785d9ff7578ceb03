//! Messages. A client sends [`Request`]s. The daemon answers each with one [`Reply`] of the same correlation number, in
//! the order in which the replies are ready. It sends [`Notice`]s on its own account.
//!
//! All messages have the layout of `layout.rs`. The documentation of a message lists the descriptors that travel beside
//! it, in order.

mod error;
mod field;
mod info;
mod layout;
mod notice;
mod refusal;
mod reply;
mod request;

pub use error::DecodeError;
pub use info::{
    ClientInfo, HolderInfo, LocationInfo, NameChange, NameInfo, ObjectInfo, ReferenceInfo, SegmentInfo,
    Totals,
};
pub use layout::{HEADER_BYTES, is_notice};
pub use notice::Notice;
pub use refusal::Refusal;
pub use reply::Reply;
pub use request::Request;

/// Bytes of the longest name of an object.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of the longest label of a client.
pub const LABEL_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ObjectId, OwnerId};

    fn requests() -> Vec<Request> {
        let owner = OwnerId::new(3, 99);
        let object = ObjectId::new(owner, 5, 6);
        vec![
            Request::Hello { label: "wörker".into(), serial: 1 },
            Request::Lease { bytes: u64::MAX, timeout_ms: 0 },
            Request::Attach { owner },
            Request::Publish { name: vec![0, 255], object },
            Request::Stats {},
            Request::WatchNames {},
            Request::Evict { bytes: 1 },
            Request::ListHolders { cursor: 1 },
            Request::Connect { peer: owner },
            Request::Resume { owner, label: "wörker".into(), slots: 9, segment_last: 8, readers_heard: 7 },
            Request::ResumeMapped { owner, segment: 1, bytes: 4096 },
            Request::Resumed {},
            Request::Spilled { bytes: 1, failure: Some("no space left".into()) },
            Request::Restored { object, refusal: Some(Refusal::SpillDamaged { object }) },
        ]
    }

    #[test]
    fn names_are_shown_as_text() {
        let object = ObjectId::new(OwnerId::new(3, 99), 5, 6);
        let info = |name: &[u8]| NameInfo { name: name.to_vec(), object };
        let shown = |name: &[u8]| format!("{:?}", info(name));
        assert_eq!(
            shown("wörter \"1\"".as_bytes()),
            format!(r#"NameInfo {{ name: "wörter \"1\"", object: {object} }}"#)
        );
        assert_eq!(shown(b"a\xff\n"), format!(r#"NameInfo {{ name: b"a\xff\n", object: {object} }}"#));
        let names = Reply::Names { names: vec![info(b"one")], more: false };
        assert_eq!(
            format!("{names:?}"),
            format!(r#"Names {{ names: [NameInfo {{ name: "one", object: {object} }}], more: false }}"#)
        );
        let lookup = Request::Lookup { name: b"two".to_vec(), timeout_ms: 3 };
        assert_eq!(format!("{lookup:?}"), r#"Lookup { name: "two", timeout_ms: 3 }"#);
    }

    #[test]
    fn requests_survive_the_wire() {
        for (correlation, request) in requests().into_iter().enumerate() {
            let bytes = request.encode(correlation as u64);
            assert_eq!(Request::decode(&bytes), Ok((correlation as u64, request)));
            assert!(!is_notice(&bytes));
        }
    }

    #[test]
    fn replies_and_notices_survive_the_wire() {
        let owner = OwnerId::new(3, 99);
        let refusal = Refusal::StoreFull { requested_bytes: 1, capacity_bytes: 2, free_bytes: 3 };
        let object = ObjectId::new(owner, 1, 2);
        let info = ObjectInfo {
            object,
            bytes: 1,
            format: 2,
            holders: 3,
            named: true,
            promised: false,
            spilled: true,
        };
        for reply in [
            Reply::Failed { refusal },
            Reply::Failed { refusal: Refusal::LimitReached { limit: "clients_max".into(), max: 3 } },
            Reply::Objects { objects: vec![info.clone()], next: Some(4) },
            Reply::Evicted { bytes: 5 },
            Reply::Holders {
                holders: vec![HolderInfo::new(object, owner, true)],
                references: vec![ReferenceInfo::new(object, object)],
                next: None,
            },
            Reply::Found { object },
        ] {
            let bytes = reply.encode(7);
            assert!(!is_notice(&bytes));
            assert_eq!(Reply::decode(&bytes), Ok((7, reply)));
        }
        let changes = vec![
            NameChange { name: b"given".to_vec(), object: Some(info) },
            NameChange { name: b"removed".to_vec(), object: None },
        ];
        for notice in [
            Notice::ChannelOpened { channel: 1, peer: owner, data_bytes: 4096 },
            Notice::NamesChanged { changes },
        ] {
            let bytes = notice.encode(0);
            assert!(is_notice(&bytes));
            assert_eq!(Notice::decode(&bytes), Ok((0, notice)));
        }
    }

    #[test]
    fn every_cut_and_every_extension_of_a_message_is_an_error() {
        for request in requests() {
            let bytes = request.encode(1);
            for cut in 0..bytes.len() {
                assert!(Request::decode(&bytes[..cut]).is_err(), "{request:?} cut at {cut}");
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert_eq!(Request::decode(&longer), Err(DecodeError::Trailing(1)));
        }
    }

    #[test]
    fn a_length_that_lies_reserves_nothing() {
        let mut bytes = Request::Lookup { name: vec![], timeout_ms: 0 }.encode(1);
        bytes[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Request::decode(&bytes), Err(DecodeError::Truncated));
    }
}
