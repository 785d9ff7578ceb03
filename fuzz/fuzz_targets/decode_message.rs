//! Any bytes as a message: they decode or are refused, without a panic, and what decodes is encoded to the same bytes
//! again. So there is one way to say a thing, and nothing in a message goes unread.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mobula_protocol::message::{Notice, Reply, Request, is_notice};

fuzz_target!(|bytes: &[u8]| {
    let mut kinds = 0;
    if let Ok((correlation, request)) = Request::decode(bytes) {
        kinds += 1;
        assert_eq!(request.encode(correlation), bytes, "{request:?}");
    }
    if let Ok((correlation, reply)) = Reply::decode(bytes) {
        kinds += 1;
        assert!(!is_notice(bytes), "a client takes {reply:?} for a notice");
        assert_eq!(reply.encode(correlation), bytes, "{reply:?}");
    }
    if let Ok((correlation, notice)) = Notice::decode(bytes) {
        kinds += 1;
        assert!(is_notice(bytes), "a client takes {notice:?} for a reply");
        assert_eq!(notice.encode(correlation), bytes, "{notice:?}");
    }
    assert!(kinds <= 1, "the bytes are messages of several kinds");
});
