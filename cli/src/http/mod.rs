//! A small HTTP/1 server, for the commands that serve something: `mobula view` and `mobula metrics`.
//!
//! It is for few peers, and trusts none of them. A connection is closed after one request and its answer. Each has a
//! thread of its own, which reads and writes within limits of size and time. So a peer that is slow, hangs, floods or
//! disconnects delays no other. The command decides on the answers: it is a [`Site`].
//!
//! | file | owns |
//! |---|---|
//! | [`server`] | connections: their number, and which one is closed first |
//! | [`request`] | the head of a request |
//! | [`answer`] | the head and the body of an answer, and streamed answers |

mod answer;
mod request;
mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(crate) use self::answer::{Answer, Response, Sink};
pub(crate) use self::request::Request;
pub(crate) use self::server::{Server, Site};

/// The address of an option `--listen`: a port of this machine, or an address and a port.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").unwrap_or(text);
    match local.trim_start_matches(':').parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => text
            .parse()
            .map_err(|_| "expected a port, or an address and a port, such as 127.0.0.1:8000".to_owned()),
    }
}
