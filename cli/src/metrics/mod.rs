//! `mobula metrics`: the figures of a session, and the metrics of its program, as OpenMetrics text.
//!
//! Nothing runs in the session for it: each reading looks at the session as the other commands do. [`exposition`] turns
//! what was found into text.

mod exposition;
mod user;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use mobula_client::ClientError;
use mobula_runtime::metrics::metrics_of_session;
use parking_lot::Mutex;

use crate::http::{Answer, Request, Response, Server, Site, listen_address};
use crate::live::{Sample, Sampler};
use crate::session::{Look, explain, print};

/// Prints the figures of a session and the metrics of its program in the OpenMetrics format, or serves them to
/// Prometheus.
///
/// Names and units follow the conventions of Prometheus; times are in seconds, sizes in bytes. Metrics of the program
/// are those of `mobula::metrics` and `mobula.util.metrics`. With --listen, each request looks anew, and finds the
/// session that runs then. If no session runs, or it does not answer, the only figure is `mobula_up 0`; without
/// --listen, the exit code is then 1.
#[derive(Debug, clap::Args)]
pub(crate) struct MetricsCommand {
    /// Serve http://ADDRESS/metrics, until this is interrupted: a port, or an address and a port. Without it, print
    /// once.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "json", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    look: Look,
}

impl MetricsCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let mut source = Source { look: self.look, sampler: None, last: None };
        match self.listen {
            None if source.look.is_json() => {
                let (sample, _) = source.read()?;
                source.look.show(&sample, String::new)
            }
            None => match source.text() {
                Ok(text) => print(&text),
                Err(error) => {
                    print(&exposition::down())?;
                    Err(error)
                }
            },
            Some(address) => {
                let server = Server::bind(address)
                    .map_err(|error| format!("nobody can listen at {address}: {error}"))?;
                if !server.address().ip().is_loopback() {
                    eprintln!(
                        "mobula: {} is not a loopback address: anybody who can reach it reads the metrics, with the \
                         names of functions and actors; nothing is asked for and nothing is encrypted",
                        server.address()
                    );
                }
                print(&format!("http://{}/metrics\n", server.address()))?;
                Ok(server.serve(Mutex::new(source))?)
            }
        }
    }
}

/// The content type of OpenMetrics text.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Site for Mutex<Source> {
    const HEADERS: &'static str = "";

    fn answer(&self, request: &Request) -> Response<'_> {
        let answer = match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", "/metrics") => {
                // One reading at a time, and without the lock while the answer is written.
                let asked = Instant::now();
                let text = self.lock().text_since(asked);
                Answer::new("200 OK", CONTENT_TYPE, &*text)
            }
            ("GET" | "HEAD", "/") => Answer::text("200 OK", "the metrics are at /metrics"),
            ("GET" | "HEAD", _) => Answer::text("404 Not Found", "only /metrics is here"),
            _ => Answer::text("405 Method Not Allowed", "only GET").with("Allow: GET, HEAD\r\n"),
        };
        answer.into()
    }
}

/// Where the figures come from: the session that runs.
struct Source {
    look: Look,
    /// That of the session that was looked at last.
    sampler: Option<(PathBuf, Sampler)>,
    /// The last text that was served, and when its reading began.
    last: Option<(Instant, Arc<str>)>,
}

impl Source {
    /// A text that was read after this moment. Requests that have waited for the same reading share it, so that many of
    /// them ask the session no more often than a few.
    fn text_since(&mut self, asked: Instant) -> Arc<str> {
        if let Some((began, text)) = &self.last
            && *began >= asked
        {
            return text.clone();
        }
        let began = Instant::now();
        let text = self.text().unwrap_or_else(|error| {
            eprintln!("mobula: {error}");
            exposition::down()
        });
        let text: Arc<str> = text.into();
        self.last = Some((began, text.clone()));
        text
    }

    fn text(&mut self) -> Result<String, Box<dyn Error>> {
        let (sample, socket) = self.read()?;
        Ok(exposition::text(sample, &metrics_of_session(&socket)))
    }

    fn read(&mut self) -> Result<(Sample, PathBuf), Box<dyn Error>> {
        if let Some((socket, mut sampler)) = self.sampler.take()
            && let Ok(look) = sampler.look()
        {
            self.sampler = Some((socket.clone(), sampler));
            return Ok((look.sample, socket));
        }
        // The first reading, or the session has ended and another may have begun.
        let socket = self.look.socket()?;
        let mut sampler = Sampler::connect(&socket).map_err(|error| explain(&socket, error))?;
        let sample = sampler.look().map_err(|error: ClientError| error.to_string())?.sample;
        self.sampler = Some((socket.clone(), sampler));
        Ok((sample, socket))
    }
}
