//! `mobula metrics`: the figures of a session, and the metrics of its program, as OpenMetrics text.
//!
//! Nothing runs in the session for it: each reading looks at the session as the other commands do. [`exposition`] turns
//! what was found into text, [`server`] serves that.

mod exposition;
mod server;
mod user;

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use mobula_client::ClientError;
use mobula_runtime::metrics::metrics_of_session;

use crate::live::Sampler;
use crate::session::{Look, print};

/// Prints the figures of a session and the metrics of its program in the OpenMetrics format, or serves them to
/// Prometheus.
///
/// Names and units follow the conventions of Prometheus; times are in seconds, sizes in bytes. Metrics of the program
/// are those of `mobula::metrics` and `mobula.util.metrics`. With --listen, each request looks anew, and finds the
/// session that runs then. `mobula_up` is 0 where none does.
#[derive(Debug, clap::Args)]
pub(crate) struct MetricsCommand {
    /// Serve http://ADDRESS/metrics, until this is interrupted. Without it, print once.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "json")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    look: Look,
}

impl MetricsCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let mut source = Source { look: self.look, sampler: None };
        match self.listen {
            None if source.look.is_json() => {
                let (sample, _) = source.read()?;
                source.look.show(&sample, String::new)
            }
            None => print(&source.text()?),
            Some(address) => {
                let listener = TcpListener::bind(address)
                    .map_err(|error| format!("nobody can listen at {address}: {error}"))?;
                print(&format!("http://{}/metrics\n", listener.local_addr()?))?;
                server::serve(&listener, || {
                    source.text().unwrap_or_else(|error| exposition::down(&error.to_string()))
                })
            }
        }
    }
}

/// Where the figures come from: the session that runs.
struct Source {
    look: Look,
    /// That of the session that was looked at last.
    sampler: Option<(PathBuf, Sampler)>,
}

impl Source {
    fn text(&mut self) -> Result<String, Box<dyn Error>> {
        let (sample, socket) = self.read()?;
        Ok(exposition::text(sample, &metrics_of_session(&socket)))
    }

    fn read(&mut self) -> Result<(crate::live::Sample, PathBuf), Box<dyn Error>> {
        if let Some((socket, mut sampler)) = self.sampler.take()
            && let Ok(look) = sampler.look()
        {
            self.sampler = Some((socket.clone(), sampler));
            return Ok((look.sample, socket));
        }
        // The first reading, or the session has ended and another may have begun.
        let socket = self.look.socket()?;
        let mut sampler = Sampler::connect(&socket)?;
        let sample = sampler.look().map_err(|error: ClientError| error.to_string())?.sample;
        self.sampler = Some((socket.clone(), sampler));
        Ok((sample, socket))
    }
}
