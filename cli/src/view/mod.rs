//! `mobula view`: a page in the browser that shows a session while it runs, and its last state afterwards.
//!
//! The command looks at the session by itself ([`live`](crate::live)), and serves one page, which is part of the
//! program: the workers of the session serve nothing and notice nothing. The page only shows; it changes nothing in the
//! session. The [server](crate::http) is one for all commands.
//!
//! | file | owns |
//! |---|---|
//! | [`access`] | who may see the page: the token, the names of this machine, other pages |
//! | [`site`] | the answer at each path |
//! | [`feed`] | the stream of figures to a page |
//! | [`answers`] | what a page asks for beside the stream: calls and a timeline |
//! | [`map`] | the map of the store |
//! | [`logs`] | the last lines that workers print |
//! | `page/` | the page: HTML, CSS and JavaScript as they are served |

mod access;
mod answers;
mod feed;
mod logs;
mod map;
mod site;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use self::access::Token;
use self::answers::Answers;
use self::logs::Tail;
use self::map::Maps;
use self::site::Page;
use crate::http::{Server, listen_address};
use crate::live::Live;
use crate::session::{Look, explain, print};

/// Shows a session in the browser: prints the address of a page with workers, functions, actors, memory, calls and a
/// timeline, and serves it until the command is stopped.
///
/// The address has a random token, and only programs on this machine reach it. From another machine:
/// ssh -L 8000:127.0.0.1:PORT, where PORT is that of the address; then open the address with port 8000.
#[derive(Debug, clap::Args)]
pub(crate) struct ViewCommand {
    /// The address to listen at: a port, or a loopback address and a port. Default: any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0", value_parser = loopback_address)]
    listen: SocketAddr,
    /// Seconds between two looks at the session.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    #[command(flatten)]
    look: Look,
}

impl ViewCommand {
    /// Serves the page until the process is ended.
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let socket = self.look.socket()?;
        let interval = Duration::from_secs_f64(self.interval);
        let live = Live::start(socket.clone(), interval).map_err(|error| explain(&socket, error))?;
        let answers = Answers::new(Maps::new(socket.clone()), Tail::new(&socket));
        let server = Server::bind(self.listen)
            .map_err(|error| format!("cannot listen at {}: {error}", self.listen))?;
        let token = Token::random()?;
        let address = format!("http://{}/{}/", server.address(), token.as_str());
        let found = serde_json::json!({ "address": address, "session": socket });
        if self.look.is_json() {
            print(&format!("{found}\n"))?;
        } else {
            print(&format!("{address}\nCtrl-C ends the page.\n"))?;
        }
        Ok(server.serve(Page::new(token, live, answers))?)
    }
}

/// A loopback address and a port, the address alone being optional.
fn loopback_address(text: &str) -> Result<SocketAddr, String> {
    let address = listen_address(text)?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "{} can be reached from other machines, and the page shows what the session does: listen at 127.0.0.1, and \
             reach that from another machine through ssh -L",
            address.ip()
        ));
    }
    Ok(address)
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds = text.parse().map_err(|_| "expected seconds, such as 0.5".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("expected 0.1 to 3600 seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_listened_at() {
        for (text, expected) in [
            ("8000", "127.0.0.1:8000"),
            (":8000", "127.0.0.1:8000"),
            ("localhost:8000", "127.0.0.1:8000"),
            ("127.0.0.2:0", "127.0.0.2:0"),
            ("[::1]:8000", "[::1]:8000"),
        ] {
            assert_eq!(loopback_address(text).unwrap().to_string(), expected);
        }
        for text in ["", "view", "127.0.0.1", "127.0.0.1:70000"] {
            assert!(loopback_address(text).unwrap_err().contains("expected a port"), "{text}");
        }
        for text in ["0.0.0.0:8000", "[::]:8000", "192.168.0.7:8000"] {
            assert!(loopback_address(text).unwrap_err().contains("ssh -L"), "{text}");
        }
    }

    #[test]
    fn looks_are_neither_all_the_time_nor_never() {
        assert_eq!(interval("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "often", "1e9"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
