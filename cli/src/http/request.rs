//! The head of a request. Its size and the time until it is complete are limited.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::answer::Answer;

/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// The head of a request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path, and what follows its `?`.
    pub(crate) path: String,
    query: String,
    headers: Vec<(String, String)>,
}

/// Why there is no request.
#[derive(Debug)]
pub(super) enum Malformed {
    /// The connection is gone, or was too slow: nobody is to be answered.
    Gone,
    /// It is no request.
    Bad(&'static str),
    TooLong,
}

impl Request {
    /// Reads the head of a request.
    pub(super) fn read(mut stream: &TcpStream) -> Result<Self, Malformed> {
        let deadline = Instant::now() + HEAD_TIME;
        let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
                return Err(Malformed::Gone);
            }
            let count = match stream.read(&mut chunk) {
                Ok(0) => return Err(Malformed::Gone),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Malformed::Gone),
            };
            bytes.extend_from_slice(&chunk[..count]);
            match Self::parse(&bytes)? {
                Some(request) => return Ok(request),
                None if bytes.len() > HEAD_BYTES_MAX => return Err(Malformed::TooLong),
                None => {}
            }
        }
    }

    /// `None`: there is more to come.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLong),
            Err(_) => return Err(Malformed::Bad("this is no HTTP/1 request")),
        }
        let (method, target) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut fields = Vec::new();
        for header in head.headers.iter() {
            let value =
                std::str::from_utf8(header.value).map_err(|_| Malformed::Bad("a header is no text"))?;
            fields.push((header.name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: fields,
        }))
    }

    /// A header by its name in lower case; `None` if it is not there, or more than once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all =
            self.headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value.as_str());
        let value = all.next()?;
        all.next().is_none().then_some(value)
    }

    /// A field of the query, such as `limit` of `?state=running&limit=10`, with its `%` and `+` resolved.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let fields = self.query.split('&').filter_map(|field| field.split_once('='));
        fields
            .filter(|(field, _)| *field == name)
            .map(|(_, value)| decoded(value))
            .next()
            .filter(|value| !value.is_empty())
    }
}

/// The text that a part of a query stands for. Bytes that are no text become `�`.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped =
            escaped.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (escaped, first) {
            (Some(byte), _) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (None, b'+') => {
                bytes.push(b' ');
                rest = after;
            }
            (None, byte) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl From<Malformed> for Option<Answer> {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Gone => None,
            Malformed::Bad(why) => Some(Answer::text("400 Bad Request", why)),
            Malformed::TooLong => {
                Some(Answer::text("431 Request Header Fields Too Large", "the request is too long"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        Request::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_request_has_a_method_a_path_fields_and_headers() {
        let head = "GET /token/tasks?function=fit%2A+x&limit=10&state=&odd=%zz%4 HTTP/1.1\r\nHost: localhost:1\r\n\r\n";
        for length in 0..head.len() {
            assert!(Request::parse(&head.as_bytes()[..length]).unwrap().is_none(), "{length}");
        }
        let request = request(head);
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/token/tasks"));
        assert_eq!(request.header("host"), Some("localhost:1"));
        assert_eq!(request.field("function").as_deref(), Some("fit* x"));
        assert_eq!((request.field("limit").as_deref(), request.field("state")), (Some("10"), None));
        assert_eq!((request.field("odd").as_deref(), request.field("none")), (Some("%zz%4"), None));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/9\r\n\r\n", b"G\0T / HTTP/1.1\r\n\r\n"] {
            assert!(matches!(Request::parse(bytes), Err(Malformed::Bad(_))), "{bytes:?}");
        }
        let twice = request("GET / HTTP/1.1\r\nHost: localhost\r\nHost: example.com\r\n\r\n");
        assert_eq!(twice.header("host"), None, "two hosts are none");
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
        assert!(matches!(Request::parse(many.as_bytes()), Err(Malformed::TooLong)));
    }
}
