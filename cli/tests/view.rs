//! The server of `mobula view` answers the browsers that have the address and no others, and a browser that is slow,
//! stopped or gone holds up no other. If this fails, other users or other pages may look into a session, or a page
//! stands still.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use mobula_cli_support::peers::{self, status};
use mobula_cli_support::watched::{Watched, session};
use mobula_cli_support::{SOON, check_refused, eventually, mobula, run};
use serde_json::Value;

/// A session, and the command that shows it.
struct Viewed {
    command: Child,
    /// Such as `127.0.0.1:4711`.
    host: String,
    token: String,
    watched: Watched,
}

#[mobula::remote]
fn twice(x: i64) -> i64 {
    println!("twice {x}");
    2 * x
}

impl Viewed {
    fn start() -> Self {
        let watched = session(1);
        assert_eq!(twice::remote(4).get().unwrap(), 8);
        let words = ["view", "--json", "--interval", "0.1", "--socket", &watched.socket];
        let mut command = mobula(words, Path::new("/nowhere")).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(command.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let found: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(found["session"], watched.socket.as_str());
        let address = found["address"].as_str().unwrap().strip_prefix("http://").unwrap();
        let (host, token) = address.trim_end_matches('/').split_once('/').unwrap();
        let (host, token) = (host.to_owned(), token.to_owned());
        Self { command, host, token, watched }
    }

    fn answer(&self, request: &[u8]) -> String {
        peers::answer(&self.host, request)
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> String {
        self.answer(format!("{method} {path} HTTP/1.1\r\n{headers}\r\n").as_bytes())
    }

    /// The answer to a browser that has the address.
    fn get(&self, path: &str) -> String {
        self.ask("GET", &format!("/{}/{path}", self.token), &format!("Host: {}\r\n", self.host))
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(status(&answer), 200, "{answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The last lines of the workers, as soon as this one is among them.
    fn printed(&self, text: &str) -> Value {
        let start = Instant::now();
        loop {
            let logs = self.json("logs");
            if logs["lines"].as_array().unwrap().iter().any(|line| line[2] == "out" && line[4] == text) {
                return logs;
            }
            assert!(start.elapsed() < SOON, "{logs}");
        }
    }

    /// A connection to the stream of events, behind the answer's head.
    fn events(&self) -> Events {
        let mut stream = peers::connect(&self.host);
        let (token, host) = (&self.token, &self.host);
        stream.write_all(format!("GET /{token}/events HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        let mut events = Events(BufReader::new(stream));
        while !events.line().is_empty() {}
        events
    }
}

impl Drop for Viewed {
    fn drop(&mut self) {
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

struct Events(BufReader<TcpStream>);

impl Events {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the stream has ended: {line:?}");
        line.trim_end().to_owned()
    }

    /// The next event of a name.
    fn next(&mut self, name: &str) -> Value {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < SOON, "no {name} within {SOON:?}");
            if self.line() == format!("event: {name}") {
                return serde_json::from_str(self.line().strip_prefix("data: ").unwrap()).unwrap();
            }
        }
    }

    /// The next look for which a condition holds.
    fn look_where(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let look = self.next("look");
            if is_it(&look) {
                return look;
            }
            assert!(start.elapsed() < SOON, "{look}");
        }
    }
}

#[test]
fn who_has_the_address_gets_the_page_and_nobody_else_gets_anything() {
    let viewed = Viewed::start();
    let page = viewed.get("");
    assert_eq!(status(&page), 200);
    assert!(page.contains("<title>Mobula</title>"));
    for header in [
        "Content-Security-Policy: default-src 'none'; script-src 'self'",
        "frame-ancestors 'none'",
        "Referrer-Policy: no-referrer",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
    ] {
        assert!(page.contains(header), "{header}");
    }
    // All files that the page names are there, and nothing comes from anywhere else.
    for part in [
        "style.css",
        "main.js",
        "format.js",
        "table.js",
        "chart.js",
        "timeline.js",
        "map.js",
        "graph.js",
        "log.js",
    ] {
        assert_eq!(status(&viewed.get(part)), 200, "{part}");
    }
    let host = format!("Host: {}\r\n", viewed.host);
    let own = format!("/{}/", viewed.token);
    let refused = |method: &str, path: &str, headers: &str, expected: u16| {
        let answer = viewed.ask(method, path, headers);
        assert_eq!(status(&answer), expected, "{method} {path} {headers}: {answer}");
        assert!(!answer.contains("<title>") && !answer.contains("\"workers\""), "{answer}");
    };
    let mut wrong = viewed.token.clone();
    let last = if wrong.ends_with('0') { "1" } else { "0" };
    wrong.replace_range(wrong.len() - 1.., last);
    for path in
        ["/", "/index.html", "/events", &format!("/{wrong}/"), &format!("/{wrong}/events"), "/../", "*"]
    {
        refused("GET", path, &host, 404);
    }
    for headers in ["", "Host: example.com\r\n", "Host: 10.0.0.1\r\n", &format!("{host}{host}")] {
        refused("GET", &own, headers, 403);
    }
    for headers in ["Origin: http://example.com\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        refused("GET", &format!("{own}events"), &format!("{host}{headers}"), 403);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"] {
        refused(method, &own, &host, 405);
    }
    refused("GET", &format!("{own}nothing"), &host, 404);
    let head = viewed.ask("HEAD", &own, &host);
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
    // An answer comes also to who has sent a body.
    let body =
        viewed.answer(format!("POST {own} HTTP/1.1\r\n{host}Content-Length: 9\r\n\r\n123456789").as_bytes());
    assert_eq!(status(&body), 405);
}

#[test]
fn what_is_no_request_is_refused_and_hurts_nobody() {
    let viewed = Viewed::start();
    assert_eq!(status(&viewed.answer(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03 hello\r\n\r\n")), 400);
    assert_eq!(status(&viewed.answer(b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n")), 400);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(1 << 20));
    assert_eq!(status(&viewed.answer(long.as_bytes())), 431);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    assert_eq!(status(&viewed.answer(many.as_bytes())), 431);
    assert_eq!(status(&viewed.get("")), 200);
}

#[test]
fn a_page_gets_looks_calls_a_timeline_a_map_and_what_workers_print() {
    let viewed = Viewed::start();
    let mut events = viewed.events();
    assert!(events.next("history")["points"].is_array());
    let is_full = |look: &Value| {
        let functions = look["sample"]["functions"].as_array();
        functions.is_some_and(|rows| {
            rows.iter().any(|row| row["function"] == "view::twice" && row["finished"] == 1)
        })
    };
    let look = events.look_where(is_full);
    assert_eq!(look["session"]["state"], "running");
    let kinds: Vec<&str> = look["sample"]["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"driver") && kinds.contains(&"worker"), "{kinds:?}");
    let next = events.next("look");
    assert!(next["number"].as_u64() > look["number"].as_u64());

    let tasks = viewed.json("tasks?text=TWICE&state=finished&limit=5");
    let task = &tasks["tasks"][0];
    assert_eq!((&task["function"], &tasks["total"]), (&"view::twice".into(), &1.into()));
    assert_eq!(viewed.json("tasks?state=failed")["total"], 0);
    let id = task["task"].as_str().unwrap();
    let found = viewed.json(&format!("task?id={id}"));
    assert_eq!((&found["task"]["task"], &found["why"]["end"]), (&id.into(), &"over".into()));
    let arguments = &found["task"]["arguments"];
    assert!(arguments["inline_bytes"].as_u64() > Some(0) && arguments["objects"] == 0, "{found}");
    assert_eq!(status(&viewed.get("task?id=1.1")), 404);
    let logs = viewed.printed("twice 4");
    assert_eq!(viewed.json(&format!("logs?after={}", logs["next"]))["lines"], serde_json::json!([]));
    let timeline = viewed.json("timeline?seconds=600");
    let spans = timeline["spans"].as_array().unwrap();
    assert!(spans.iter().any(|span| span[2] == "view::twice" && span[5] == id), "{timeline}");
    let arrows = timeline["arrows"].as_array().unwrap();
    let own = std::process::id();
    assert!(arrows.iter().any(|arrow| arrow[0] == own && arrow[2] != own), "{timeline}");
    assert!(viewed.json("trace.json")["traceEvents"].as_array().unwrap().len() > 3);
    let _kept = mobula::put(&vec![1_u8; 1 << 20]).unwrap();
    let start = Instant::now();
    loop {
        let map = viewed.json("map");
        let segments = map["segments"].as_array().unwrap();
        let bytes: u64 = segments.iter().map(|segment| segment["object_bytes"].as_u64().unwrap()).sum();
        if bytes >= 1 << 20 && segments.iter().any(|segment| !segment["parts"].as_array().unwrap().is_empty())
        {
            break;
        }
        assert!(start.elapsed() < SOON, "{map}");
    }
}

#[test]
fn a_browser_that_stops_reading_holds_up_no_other() {
    let viewed = Viewed::start();
    let _stopped: Vec<Events> = (0..20).map(|_| viewed.events()).collect();
    let mut events = viewed.events();
    let first = events.next("look")["number"].as_u64().unwrap();
    events.look_where(|look| look["number"].as_u64().unwrap() > first + 5);
    assert_eq!(status(&viewed.get("")), 200);
}

#[test]
fn peers_of_any_kind_hold_up_nobody() {
    let viewed = Viewed::start();
    let mut events = viewed.events();
    let request = format!("GET /{}/ HTTP/1.1\r\nHost: {}\r\n\r\n", viewed.token, viewed.host);
    peers::check_they_hold_up_nobody(&viewed.host, &request);
    // One that was there before them goes on.
    let first = events.next("look")["number"].as_u64().unwrap();
    events.look_where(|look| look["number"].as_u64().unwrap() > first + 5);
}

#[test]
fn pages_over_the_limit_are_refused_and_room_comes_back() {
    let viewed = Viewed::start();
    let mut pages: Vec<Events> = (0..64).map(|_| viewed.events()).collect();
    // The connection may be reset before the answer is read.
    let answer = viewed.get("");
    assert!(answer.is_empty() || status(&answer) == 503, "{answer}");
    pages.truncate(32);
    eventually("there is room", || viewed.get("").starts_with("HTTP/1.1 200"));
    pages.iter_mut().for_each(|page| _ = page.next("look"));
}

#[test]
fn the_end_of_the_session_is_told_and_its_last_state_stays() {
    let mut viewed = Viewed::start();
    let mut events = viewed.events();
    events.look_where(|look| look["sample"]["functions"][0]["function"] == "view::twice");
    let printed = viewed.printed("twice 4");
    viewed.watched.end();
    let last = events.look_where(|look| look["session"]["state"] == "ended");
    assert_eq!(last["sample"]["functions"][0]["function"], "view::twice");
    // Also for who comes later.
    let mut later = viewed.events();
    assert!(!later.next("history")["points"].as_array().unwrap().is_empty());
    assert_eq!(later.next("look")["session"]["state"], "ended");
    assert_eq!(viewed.json("tasks")["tasks"][0]["function"], "view::twice");
    assert_eq!(viewed.json("logs")["lines"][0], printed["lines"][0]);
    assert!(viewed.command.try_wait().unwrap().is_none(), "the page stays until the command is ended");
}

#[test]
fn addresses_of_other_machines_and_sessions_that_are_not_there_are_refused() {
    let output = run(["view", "--listen", "0.0.0.0:0"], Path::new("/nowhere"));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("ssh -L"), "{text}");
    check_refused(["view", "--socket", "/nowhere/store.sock"], Path::new("/nowhere"), &["no store"]);
}
