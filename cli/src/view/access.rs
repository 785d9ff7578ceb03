//! Access to the page: every client that has its address may see it. The first part of the path is a random token.
//! Other users of the machine, and pages of other sites, do not know it.
//!
//! A page of another site can make the browser send a request to this server in two ways. It can name this server: then
//! the browser does not give it the answer, since it has another origin, and it does not know the token. Or it can make
//! its own name point to this machine (DNS rebinding): then the request has that name in `Host`, and is refused.

use std::hint::black_box;
use std::io;

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 24;

/// The random part of the page's address.
pub(super) struct Token {
    text: String,
}

impl Token {
    /// A new token, from the kernel's random numbers.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self { text: bytes.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The part of a path after the token: `rest` of `/TOKEN/rest`. `None` if the path has another token. Takes the
    /// same time for every wrong token of this length.
    pub(super) fn path_behind<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (token, rest) = path.strip_prefix('/')?.split_once('/')?;
        is_same(token.as_bytes(), self.text.as_bytes()).then_some(rest)
    }
}

/// Whether two texts are the same. The time does not depend on where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |seen, (one, other)| black_box(seen | (one ^ other)));
    one.len() == other.len() && differences == 0
}

/// The headers that name the origin of a request.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Headers<'a> {
    pub(super) host: Option<&'a str>,
    pub(super) origin: Option<&'a str>,
    pub(super) fetch_site: Option<&'a str>,
    pub(super) fetch_mode: Option<&'a str>,
}

impl Headers<'_> {
    /// The reason to refuse a request with these headers.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        let Some(host) = self.host else { return Some("the request does not say which host it is for") };
        if !is_this_machine(host) {
            return Some("this page is served to localhost, 127.0.0.1 and [::1], and under no other name");
        }
        let is_own =
            |origin: &str| origin.strip_prefix("http://").is_some_and(|name| name.eq_ignore_ascii_case(host));
        if self.origin.is_some_and(|origin| !is_own(origin)) {
            return Some("this page answers no page of another origin");
        }
        // A link on another page may lead here; its scripts and pictures may not.
        let is_foreign = matches!(self.fetch_site, Some("cross-site" | "same-site"));
        if is_foreign && self.fetch_mode != Some("navigate") {
            return Some("this page answers no page of another origin");
        }
        None
    }
}

/// Whether a `Host` is a name of this machine that another site cannot have. Any port is allowed, because it may be
/// forwarded.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let is_address =
        |name: &str| name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    name.eq_ignore_ascii_case("localhost") || name == "[::1]" || is_address(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_needs_the_whole_token() {
        let token = Token::random().unwrap();
        let text = token.as_str().to_owned();
        assert_eq!(text.len(), 48);
        assert_ne!(text, Token::random().unwrap().as_str());
        assert_eq!(token.path_behind(&format!("/{text}/")), Some(""));
        assert_eq!(token.path_behind(&format!("/{text}/tasks/1")), Some("tasks/1"));
        let (most, other) = (&text[..47], if text.ends_with('0') { '1' } else { '0' });
        for wrong in [
            String::new(),
            "/".to_owned(),
            "//".to_owned(),
            text.clone(),
            format!("/{text}"),
            format!("/{most}/"),
            format!("/{most}{other}/"),
            format!("/{text}{other}/"),
            format!("/x{text}/"),
        ] {
            assert_eq!(token.path_behind(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_this_machine_by_its_own_names_is_answered() {
        for host in ["localhost", "LocalHost:80", "127.0.0.1:4711", "127.0.0.2", "[::1]", "[::1]:4711"] {
            assert_eq!(Headers { host: Some(host), ..Headers::default() }.refusal(), None, "{host}");
        }
        for host in [
            "",
            "example.com",
            "example.com:4711",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1",
            "0.0.0.0:4711",
            "::1",
            "localhost:port",
            "localhost:80:80",
        ] {
            assert!(Headers { host: Some(host), ..Headers::default() }.refusal().is_some(), "{host}");
        }
        assert!(Headers::default().refusal().is_some());
    }

    #[test]
    fn pages_of_other_origins_are_not_answered() {
        let own = Headers { host: Some("127.0.0.1:4711"), ..Headers::default() };
        let with_origin = |origin| Headers { origin: Some(origin), ..own }.refusal();
        assert_eq!(with_origin("http://127.0.0.1:4711"), None);
        for origin in ["http://127.0.0.1:4712", "https://127.0.0.1:4711", "http://example.com", "null"] {
            assert!(with_origin(origin).is_some(), "{origin}");
        }
        let with_fetch =
            |site, mode| Headers { fetch_site: Some(site), fetch_mode: Some(mode), ..own }.refusal();
        assert_eq!(with_fetch("same-origin", "cors"), None);
        assert_eq!(with_fetch("none", "navigate"), None);
        assert_eq!(with_fetch("cross-site", "navigate"), None, "a link leads here");
        assert!(with_fetch("cross-site", "no-cors").is_some());
        assert!(with_fetch("same-site", "cors").is_some(), "another port of this machine");
    }
}
