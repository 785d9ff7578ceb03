//! Misbehaving peers of a server, and the answers that other peers get meanwhile.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::SOON;

/// More than a server has connections at one time.
const MANY: usize = 200;

/// A connection to an address such as `127.0.0.1:4711`.
pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// The whole answer to a request of these bytes, as far as the server lets it be read.
pub fn answer(address: &str, request: &[u8]) -> String {
    let mut stream = connect(address);
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.unwrap_or_else(|| panic!("no answer: {answer:?}")).parse().unwrap()
}

/// Checks that a request gets its answer while peers say nothing, stop in the middle of a request, send without an end,
/// or do not read, more of them than the server has connections.
pub fn check_they_hold_up_nobody(address: &str, request: &str) {
    let check = |meanwhile: &str| {
        let answer = answer(address, request.as_bytes());
        assert_eq!(status(&answer), 200, "{meanwhile}: {answer}");
    };
    let with = |bytes: &[u8]| -> Vec<TcpStream> {
        let send = |mut stream: TcpStream| {
            // The server may have closed it in favour of later ones.
            let _ = stream.write_all(bytes);
            stream
        };
        (0..MANY).map(|_| send(connect(address))).collect()
    };
    let silent = with(b"");
    check("peers say nothing");
    let _begun = with(&request.as_bytes()[..request.len() / 2]);
    check("peers stop in the middle of a request");
    drop(silent);
    let _asked = with(request.as_bytes());
    check("peers do not read");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..8 {
                    // Until the server has had enough of it.
                    let mut stream = connect(address);
                    while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
                }
            });
        }
        for _ in 0..8 {
            check("peers send without an end");
        }
    });
    check("peers are gone");
}
