//! The answer at each path of the page.

use std::sync::Arc;

use super::access::{Headers, Token};
use super::answers::Answers;
use super::feed::Feed;
use crate::http::{Answer, Request, Response, Site};
use crate::live::Live;

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

/// The page about one session.
pub(super) struct Page {
    token: Token,
    live: Arc<Live>,
    feed: Feed,
    answers: Answers,
}

impl Site for Page {
    /// Scripts, styles and data come only from the page's own address. Another page cannot show it in a frame, and the
    /// browser stores nothing of it.
    const HEADERS: &'static str = "Cache-Control: no-store\r\n\
        Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
        img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
        Cross-Origin-Opener-Policy: same-origin\r\n\
        Cross-Origin-Resource-Policy: same-origin\r\n\
        Referrer-Policy: no-referrer\r\n\
        X-Content-Type-Options: nosniff\r\n\
        X-Frame-Options: DENY\r\n";

    fn answer(&self, request: &Request) -> Response<'_> {
        if let Some(answer) = self.refused(request) {
            return answer.into();
        }
        match self.token.path_behind(&request.path).unwrap_or_default() {
            "events" => Response::Stream("text/event-stream", Box::new(|sink| self.feed.write_to(sink))),
            path => self.part(path, request).into(),
        }
    }
}

impl Page {
    pub(super) fn new(token: Token, live: Live, answers: Answers) -> Self {
        let live = Arc::new(live);
        let feed = Feed::new(live.clone());
        Self { token, live, feed, answers }
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

    fn part(&self, path: &str, request: &Request) -> Answer {
        if let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path) {
            return Answer::new("200 OK", kind, *text);
        }
        let answer = self.answers.answer(path, request, &self.live);
        answer.unwrap_or_else(|| Answer::text("404 Not Found", "there is no such part of the page"))
    }
}
