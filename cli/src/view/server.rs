//! Connections, and what is answered at which address.
//!
//! Each connection has a thread, which writes within a time; there are [`CONNECTIONS_MAX`] at most. So a browser that
//! is slow, stopped or gone holds up neither other browsers nor the looks at the session.

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::access::{Headers, Token};
use super::answers::Answers;
use super::feed::Feed;
use super::http::{Answer, Request};
use crate::live::Live;

/// Connections at one time. A page has one for its figures, and some for a moment each.
const CONNECTIONS_MAX: usize = 64;
/// How long, and how much, a client may still send that was answered before it had sent everything.
const REST_TIME: Duration = Duration::from_millis(500);
const REST_BYTES_MAX: usize = 64 << 10;
/// The pause when the system has no descriptors left.
const PAUSE: Duration = Duration::from_millis(50);

/// The files of the page: its name in the address, its kind, its text.
const FILES: [(&str, &str, &str); 10] = [
    ("", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("main.js", SCRIPT, include_str!("page/main.js")),
    ("format.js", SCRIPT, include_str!("page/format.js")),
    ("table.js", SCRIPT, include_str!("page/table.js")),
    ("chart.js", SCRIPT, include_str!("page/chart.js")),
    ("timeline.js", SCRIPT, include_str!("page/timeline.js")),
    ("map.js", SCRIPT, include_str!("page/map.js")),
    ("graph.js", SCRIPT, include_str!("page/graph.js")),
    ("log.js", SCRIPT, include_str!("page/log.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A server of one page about one session.
#[derive(Debug)]
pub(super) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    token: Token,
    live: Arc<Live>,
    feed: Feed,
    answers: Answers,
    open: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out of logs.
        f.debug_struct("Shared").field("open", &self.open).finish_non_exhaustive()
    }
}

/// A connection that counts.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    pub(super) fn bind(address: SocketAddr, token: Token, live: Live, answers: Answers) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let live = Arc::new(live);
        let feed = Feed::new(live.clone());
        let shared = Arc::new(Shared { token, live, feed, answers, open: AtomicUsize::new(0) });
        Ok(Self { listener, address, shared })
    }

    /// Where the page is.
    pub(super) fn page_address(&self) -> String {
        format!("http://{}/{}/", self.address, self.shared.token.as_str())
    }

    /// Serves until the process ends.
    pub(super) fn serve(self) -> Result<(), Box<dyn Error>> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.shared.clone().take(stream),
                // The client has gone already, or descriptors are short.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error.into()),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}

impl Shared {
    fn take(self: Arc<Self>, mut stream: TcpStream) {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let counted = Open(self.clone());
        if open >= CONNECTIONS_MAX {
            // As much as fits the socket: nobody waits for this client.
            let _ = stream.set_nonblocking(true);
            let _ = stream
                .write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        let thread = std::thread::Builder::new().name("connection".to_owned());
        // Without a thread, the connection is closed.
        let _ = thread.spawn(move || counted.0.serve(&mut stream));
    }

    fn serve(&self, stream: &mut TcpStream) {
        let _ = stream.set_nodelay(true);
        let request = match Request::read(stream) {
            Ok(request) => request,
            Err(malformed) => {
                if let Some(answer) = Option::<Answer>::from(malformed) {
                    let _ = answer.write(stream, true);
                    take_rest(stream);
                }
                return;
            }
        };
        let is_head = request.method == "HEAD";
        match self.refused(&request) {
            Some(answer) => {
                let _ = answer.write(stream, !is_head);
                take_rest(stream);
            }
            None => {
                let path = self.token.path_behind(&request.path).unwrap_or_default();
                if path == "events" && !is_head {
                    // It ends when the browser goes, or is too slow.
                    let _ = self.feed.write_to(stream);
                } else {
                    let _ = self.answer(path, &request).write(stream, !is_head);
                }
            }
        }
    }

    /// The answer to a request that is not allowed.
    fn refused(&self, request: &Request) -> Option<Answer> {
        let headers = Headers {
            host: request.header("host"),
            origin: request.header("origin"),
            fetch_site: request.header("sec-fetch-site"),
            fetch_mode: request.header("sec-fetch-mode"),
        };
        if let Some(why) = headers.refusal() {
            return Some(Answer::text("403 Forbidden", why));
        }
        if self.token.path_behind(&request.path).is_none() {
            let why = "there is no such page: open the whole address that `mobula view` has printed";
            return Some(Answer::text("404 Not Found", why));
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            let why = "this page can be read, and nothing can be sent to it";
            return Some(Answer::text("405 Method Not Allowed", why).with("Allow: GET, HEAD\r\n"));
        }
        None
    }

    fn answer(&self, path: &str, request: &Request) -> Answer {
        if let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path) {
            return Answer::new("200 OK", kind, *text);
        }
        let answer = self.answers.answer(path, request, &self.live);
        answer.unwrap_or_else(|| Answer::text("404 Not Found", "there is no such part of the page"))
    }
}

/// Reads what a client still sends, so that it gets the answer before the connection is reset.
fn take_rest(stream: &mut TcpStream) {
    let mut chunk = [0; 4096];
    let mut bytes = 0;
    if stream.shutdown(Shutdown::Write).is_err() || stream.set_read_timeout(Some(REST_TIME)).is_err() {
        return;
    }
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        bytes += count;
        if bytes > REST_BYTES_MAX {
            return;
        }
    }
}
