//! Answers. Each write has a time limit, and the connection is closed when it is reached. So a stopped peer occupies
//! one thread for that time, and nothing else.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long it may take to write an answer, or a part of a streamed one.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// A response to a request.
pub(crate) enum Response<'a> {
    /// An answer of a known length.
    Whole(Answer),
    /// A streamed answer with this content type. It ends when the function returns.
    Stream(&'static str, Box<dyn FnOnce(Sink<'_>) -> io::Result<()> + 'a>),
}

impl From<Answer> for Response<'_> {
    fn from(answer: Answer) -> Self {
        Self::Whole(answer)
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    status: &'static str,
    kind: &'static str,
    /// More lines of the head.
    more: &'static str,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: &'static str, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, kind, more: "", body: body.into() }
    }

    pub(crate) fn text(status: &'static str, text: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{text}\n"))
    }

    pub(crate) fn json(body: String) -> Self {
        Self::new("200 OK", "application/json", body)
    }

    /// Adds lines to the head, each with its end.
    pub(crate) fn with(mut self, more: &'static str) -> Self {
        self.more = more;
        self
    }

    pub(super) fn is_ok(&self) -> bool {
        self.status.starts_with("200")
    }

    /// Writes it with these lines in its head, and the body only if it is wanted.
    pub(super) fn write(&self, stream: &TcpStream, headers: &str, with_body: bool) -> io::Result<()> {
        let length = format!("Content-Length: {}\r\n", self.body.len());
        let mut bytes = head(self.status, self.kind, &[&length, self.more, headers]).into_bytes();
        if with_body {
            bytes.extend_from_slice(&self.body);
        }
        write(stream, &bytes)
    }
}

/// Takes the parts of a streamed answer.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    stream: &'a TcpStream,
}

impl<'a> Sink<'a> {
    /// Writes the head of the answer.
    pub(super) fn begin(stream: &'a TcpStream, kind: &str, headers: &str) -> io::Result<Self> {
        write(stream, head("200 OK", kind, &[headers]).as_bytes())?;
        Ok(Self { stream })
    }

    /// Writes a part. It fails if the peer has disconnected, or is too slow.
    pub(crate) fn send(&mut self, part: &str) -> io::Result<()> {
        write(self.stream, part.as_bytes())
    }
}

/// The head of an answer. `more` has lines with their ends.
fn head(status: &str, kind: &str, more: &[&str]) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{}Connection: close\r\n\r\n", more.concat())
}

/// Writes all of it in time.
fn write(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + WRITE_TIME;
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
