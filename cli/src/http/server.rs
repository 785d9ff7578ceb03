//! Connections. There are [`CONNECTIONS_MAX`] at most. If there are as many, a new connection takes the place of the
//! oldest one that has sent no request so far. If all have sent their requests, the new connection waits until one is
//! answered. If none is answered in time, it is refused.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::answer::{Answer, Response, Sink};
use super::request::Request;

/// Connections at one time. A page has one for its figures, and some for a moment each.
const CONNECTIONS_MAX: usize = 64;
/// How long a new connection waits until another one ends. Later connections wait behind it.
const ROOM_TIME: Duration = Duration::from_secs(2);
/// How long, and how many bytes, a peer may still send after an answer that came before the end of its request.
const REST_TIME: Duration = Duration::from_millis(500);
const REST_BYTES_MAX: usize = 64 << 10;
/// The pause when the system has no descriptors left.
const PAUSE: Duration = Duration::from_millis(50);

/// The answers of a server.
pub(crate) trait Site: Send + Sync + 'static {
    /// Lines of the head of each answer, each with its end.
    const HEADERS: &'static str;

    /// The answer to a request. Several threads call this at the same time. The server omits the body if the method is
    /// `HEAD`.
    fn answer(&self, request: &Request) -> Response<'_>;
}

/// A server that listens.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens; connections are taken from [`serve`](Self::serve) on.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens, with the port that it has got.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends.
    pub(crate) fn serve(self, site: impl Site) -> io::Result<()> {
        let connections = Arc::new(Connections::default());
        let site = Arc::new(site);
        for number in 0.. {
            match self.listener.accept() {
                Ok((stream, _)) => connections.take(number, stream, site.clone()),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                // The peer has disconnected already, or there are no descriptors left.
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Connections {
    state: Mutex<State>,
    /// Notified when a connection has ended.
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    /// Connections that have sent no request so far, by their numbers: the oldest first.
    silent: BTreeMap<u64, Arc<TcpStream>>,
}

/// A connection that is counted.
struct Open {
    number: u64,
    all: Arc<Connections>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.all.state.lock();
        state.silent.remove(&self.number);
        state.open -= 1;
        self.all.left.notify_one();
    }
}

impl Connections {
    /// Serves a connection on a thread of its own, or refuses it.
    fn take(self: &Arc<Self>, number: u64, stream: TcpStream, site: Arc<impl Site>) {
        if !self.make_room() {
            refuse(stream);
            return;
        }
        let stream = Arc::new(stream);
        let open = self.enter(number, stream.clone());
        let thread = std::thread::Builder::new().name("connection".to_owned());
        // Without a thread, the connection is closed.
        let _ = thread.spawn(move || open.serve(&stream, &*site));
    }

    /// Waits until there is room for one more, and returns whether there is. One thread accepts, so no other connection
    /// takes the room.
    fn make_room(&self) -> bool {
        let deadline = Instant::now() + ROOM_TIME;
        let mut state = self.state.lock();
        while state.open >= CONNECTIONS_MAX {
            if let Some((_, oldest)) = state.silent.pop_first() {
                // Its thread gets an end of file, and ends.
                let _ = oldest.shutdown(Shutdown::Both);
            }
            let is_late = self.left.wait_until(&mut state, deadline).timed_out();
            if is_late && state.open >= CONNECTIONS_MAX {
                return false;
            }
        }
        true
    }

    fn enter(self: &Arc<Self>, number: u64, stream: Arc<TcpStream>) -> Open {
        let mut state = self.state.lock();
        state.open += 1;
        state.silent.insert(number, stream);
        Open { number, all: self.clone() }
    }
}

impl Open {
    fn has_asked(&self) {
        self.all.state.lock().silent.remove(&self.number);
    }

    fn serve<S: Site>(self, stream: &TcpStream, site: &S) {
        let _ = stream.set_nodelay(true);
        let request = Request::read(stream);
        self.has_asked();
        let (answer, with_body) = match request {
            Ok(request) => match (site.answer(&request), request.method == "HEAD") {
                (Response::Whole(answer), is_head) => (answer, !is_head),
                (Response::Stream(kind, write), is_head) => {
                    // It ends when the peer disconnects, or is too slow.
                    let begun = Sink::begin(stream, kind, S::HEADERS);
                    let _ = begun.and_then(|sink| if is_head { Ok(()) } else { write(sink) });
                    return;
                }
            },
            Err(malformed) => match Option::<Answer>::from(malformed) {
                Some(answer) => (answer, true),
                None => return,
            },
        };
        let _ = answer.write(stream, S::HEADERS, with_body);
        if !answer.is_ok() {
            take_rest(stream);
        }
    }
}

/// Answers that there are too many connections, without waiting for the peer.
fn refuse(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(true);
    let _ =
        stream.write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
}

/// Reads the rest of a request, so that the peer gets the answer before the connection is reset.
fn take_rest(mut stream: &TcpStream) {
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
