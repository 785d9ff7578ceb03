//! An HTTP server whose handlers await tasks and actors.
//!
//! Three things end the work of a request early: its time limit, its client that leaves, and the end of the server. In
//! each case the handler's future is dropped, and with it the guard that
//! [`cancel_on_drop`](mobula::ObjectRef::cancel_on_drop) returns, which cancels the call. No thread waits for a result:
//! two threads serve as many requests as there are.

use std::collections::HashMap;
use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use mobula::prelude::*;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serves until it gets SIGTERM, or Ctrl-C, and then ends when the last request is over.
///
/// GET /ping, GET /factor/NUMBER (its smallest factor: a task), GET /pause/MILLISECONDS (a task that sleeps), and
/// POST /visits/PAGE (a method of an actor, which counts). A request may name its own time limit in the header
/// `timeout-ms`.
#[derive(Parser)]
struct Options {
    /// Where it listens; with port 0, at a free port.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How many threads serve requests.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How many worker processes run tasks at most.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// The most seconds that a request may take, and that requests have left when the server is to stop.
    #[arg(long, default_value_t = 60)]
    limit_seconds: u64,
    /// Sends itself requests at a free port, some from clients that leave, and checks the answers and the end.
    #[arg(long)]
    check: bool,
}

// ---- the work ----

/// The smallest factor of a number, apart from 1. A task learns that it was cancelled when it asks.
#[mobula::remote]
fn smallest_factor(number: u128) -> u128 {
    let mut factor = 2;
    while factor * factor <= number {
        if number.is_multiple_of(factor) {
            return factor;
        }
        if factor % 1_000_000 == 0 && mobula::is_cancelled() {
            return 0; // nobody reads it
        }
        factor += 1;
    }
    number
}

/// Work whose length is known.
#[mobula::remote]
fn pause(milliseconds: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(milliseconds));
    milliseconds
}

/// How often each page was visited.
#[derive(Default)]
struct Visits(HashMap<String, u64>);

#[mobula::remote]
impl Visits {
    fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, page: String) -> u64 {
        let visits = self.0.entry(page).or_default();
        *visits += 1;
        *visits
    }
}

// ---- the server ----

/// The state that the handlers share.
#[derive(Clone)]
struct Server {
    visits: ActorHandle<Visits>,
    limit: Duration,
}

impl Server {
    fn router(self) -> Router {
        Router::new()
            .route("/ping", get(async || "pong"))
            .route("/factor/{number}", get(factor))
            .route("/pause/{milliseconds}", get(pause_for))
            .route("/visits/{page}", post(visit))
            .with_state(self)
    }

    /// Awaits a result for as long as the request may take. The call is cancelled when this future is dropped.
    async fn result_of<T>(&self, headers: &HeaderMap, call: ObjectRef<T>) -> Result<T, NoAnswer>
    where
        T: DeserializeOwned,
    {
        let own = headers.get("timeout-ms").and_then(|value| value.to_str().ok()?.parse().ok());
        let limit = own.map_or(self.limit, Duration::from_millis).min(self.limit);
        let call = call.cancel_on_drop();
        match tokio::time::timeout(limit, call.get_async()).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(NoAnswer::TooLate(limit)),
        }
    }
}

async fn factor(
    State(server): State<Server>,
    Path(number): Path<u128>,
    headers: HeaderMap,
) -> Result<String, NoAnswer> {
    let factor = server.result_of(&headers, smallest_factor::remote(number)).await?;
    Ok(factor.to_string())
}

async fn pause_for(
    State(server): State<Server>,
    Path(milliseconds): Path<u64>,
    headers: HeaderMap,
) -> Result<String, NoAnswer> {
    let milliseconds = server.result_of(&headers, pause::remote(milliseconds)).await?;
    Ok(milliseconds.to_string())
}

/// Counts also when the client has left: it was there. So nothing is cancelled.
async fn visit(State(server): State<Server>, Path(page): Path<String>) -> Result<String, NoAnswer> {
    let visits = server.visits.add(page).await?;
    Ok(visits.to_string())
}

/// The reasons why a request has no answer.
enum NoAnswer {
    TooLate(Duration),
    Failed(mobula::Error),
}

impl From<mobula::Error> for NoAnswer {
    fn from(error: mobula::Error) -> Self {
        Self::Failed(error)
    }
}

impl IntoResponse for NoAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::TooLate(limit) => {
                (StatusCode::GATEWAY_TIMEOUT, format!("not done within {limit:?}")).into_response()
            }
            Self::Failed(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

/// Serves until a signal comes. From then on no connection is accepted, and requests have the time limit to end.
async fn serve(listener: TcpListener, server: Server) -> io::Result<()> {
    let limit = server.limit;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (begun, begins) = tokio::sync::oneshot::channel::<()>();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        drop(begun);
    };
    let too_late = async {
        let _ = begins.await;
        tokio::time::sleep(limit).await;
    };
    let serving = axum::serve(listener, server.router()).with_graceful_shutdown(stop).into_future();
    tokio::select! {
        served = serving => served,
        // Requests that are left are dropped with the runtime, which cancels their calls.
        () = too_late => Ok(()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    // Both begin before the runtime, and end after it: what they do may block.
    let _mobula = mobula::Builder::new().workers(options.workers).init()?;
    let server = Server { visits: Visits::remote(), limit: Duration::from_secs(options.limit_seconds) };

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(options.threads).enable_all().build()?;
    let listen = if options.check { SocketAddr::from(([127, 0, 0, 1], 0)) } else { options.listen };
    let listener = runtime.block_on(TcpListener::bind(listen))?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    if options.check {
        let serving = runtime.spawn(serve(listener, server));
        check::requests(address)?;
        check::stop(address)?;
        runtime.block_on(serving)??;
        println!("check: answers, clients that leave, and the end: ok");
    } else {
        runtime.block_on(serve(listener, server))?;
    }
    Ok(())
}

/// Clients of the server, on a thread of their own.
mod check {
    use std::io::{self, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(50);
    const IN_FLIGHT: usize = 200;
    const PINGS: usize = 200;
    /// A prime, 2⁸⁹ − 1: its smallest factor is found in days.
    const PRIME: u128 = (1 << 89) - 1;

    /// A request that was sent.
    struct Request(TcpStream);

    impl Request {
        fn send(address: SocketAddr, request: &str, headers: &str) -> io::Result<Self> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n")?;
            Ok(Self(stream))
        }

        /// The status, and the body.
        fn answer(mut self) -> io::Result<(String, String)> {
            let mut answer = String::new();
            self.0.read_to_string(&mut answer)?;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            Ok((head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned()))
        }

        fn expect(self, status: &str, body: &str) -> io::Result<()> {
            let (its_status, its_body) = self.answer()?;
            if (its_status.as_str(), its_body.as_str()) != (status, body) {
                return wrong(format!("{its_status} {its_body:?} came, not {status} {body:?}"));
            }
            Ok(())
        }
    }

    fn wrong<T>(what: String) -> io::Result<T> {
        Err(io::Error::other(format!("check failed: {what}")))
    }

    fn eventually(what: &str, mut is_so: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
        let begun = Instant::now();
        while !is_so()? {
            if begun.elapsed() > PATIENCE {
                return wrong(format!("{what}: not so after {PATIENCE:?}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether no task has resources of the session.
    fn is_idle() -> io::Result<bool> {
        let free = mobula::available_resources().map_err(io::Error::other)?;
        Ok(free == mobula::cluster_resources().map_err(io::Error::other)?)
    }

    pub(super) fn requests(address: SocketAddr) -> io::Result<()> {
        let get = |path: &str, headers: &str| Request::send(address, &format!("GET {path}"), headers);
        get("/factor/91", "")?.expect("200", "7")?;
        for visits in ["1", "2", "3"] {
            Request::send(address, "POST /visits/index", "content-length: 0\r\n")?.expect("200", visits)?;
        }

        let all: Vec<_> = (0..IN_FLIGHT).map(|_| get("/pause/50", "")).collect::<io::Result<_>>()?;
        let mut pings = Vec::new();
        for _ in 0..PINGS {
            let begun = Instant::now();
            get("/ping", "")?.expect("200", "pong")?;
            pings.push(begun.elapsed());
        }
        all.into_iter().try_for_each(|request| request.expect("200", "50"))?;
        pings.sort_unstable();
        let (median, late) = (pings[PINGS / 2], pings[PINGS * 99 / 100]);
        println!(
            "/ping beside {IN_FLIGHT} requests of 50 ms: median {median:.1?}, 99 of 100 within {late:.1?}"
        );

        // The time limit: nothing of the work is left.
        let path = format!("/factor/{PRIME}");
        get(&path, "timeout-ms: 100\r\n")?.expect("504", "not done within 100ms")?;
        eventually("work that was too late is over", is_idle)?;
        // Clients that leave: the work begins, and ends when they are gone.
        let clients: Vec<_> = (0..3).map(|_| get(&path, "")).collect::<io::Result<_>>()?;
        eventually("the work of three clients has begun", || is_idle().map(|idle| !idle))?;
        drop(clients);
        eventually("the work of clients that left is over", is_idle)
    }

    /// Stops the server while a request is in flight, which still has its answer.
    pub(super) fn stop(address: SocketAddr) -> io::Result<()> {
        let last = Request::send(address, "GET /pause/300", "")?;
        eventually("the last request has begun", || is_idle().map(|idle| !idle))?;
        kill(Pid::this(), Signal::SIGTERM)?;
        last.expect("200", "300")?;
        eventually("no connection is accepted", || Ok(TcpStream::connect(address).is_err()))
    }
}
