//! Traces of OpenTelemetry: if these fail, the trace of a request ends at the first call, has a span in a wrong place,
//! or does not show which call has failed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula::opentelemetry::trace::{SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use mobula::opentelemetry::{Context, global};
use mobula::prelude::*;
use mobula::{Reply, TaskOptions};
use mobula_tests::session;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tempfile::TempDir;

/// The variable of calls with the file to which their processes, and those of the calls that they make, export spans.
const SPANS: &str = "MOBULA_TEST_SPANS";

#[mobula::worker_init]
fn set_tracer_provider() {
    if let Some(path) = std::env::var_os(SPANS) {
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        let provider = SdkTracerProvider::builder().with_simple_exporter(Exporter(file)).build();
        global::set_tracer_provider(provider);
    }
}

/// Writes a line for each span.
#[derive(Debug)]
struct Exporter(File);

impl SpanExporter for Exporter {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        for span in spans {
            let context = &span.span_context;
            let (trace, id, parent) = (context.trace_id(), context.span_id(), span.parent_span_id);
            let is_of_a_call = span.span_kind == SpanKind::Consumer && span.parent_span_is_remote;
            let error = match &span.status {
                Status::Error { description } => description.escape_default().to_string(),
                _ => String::new(),
            };
            let line = format!("{}\t{trace}\t{id}\t{parent}\t{is_of_a_call}\t{error}\n", span.name);
            (&self.0).write_all(line.as_bytes()).unwrap();
        }
        Ok(())
    }
}

/// A span of a worker.
#[derive(Debug)]
struct Ended {
    name: String,
    trace: String,
    span: String,
    parent: String,
    is_of_a_call: bool,
    error: String,
}

/// The file with the spans of a test.
struct Spans(TempDir);

impl Spans {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("spans")
    }

    /// Options of calls whose spans go to the file.
    fn options(&self) -> TaskOptions {
        TaskOptions::new().env_vars([(SPANS, self.path().to_str().unwrap())])
    }

    /// The spans that have ended. Those of calls whose results are there are among them.
    fn ended(&self) -> Vec<Ended> {
        let text = std::fs::read_to_string(self.path()).unwrap();
        let fields = text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
        let ended = fields.map(|fields| {
            let [name, trace, span, parent, is_of_a_call, error] = fields.try_into().unwrap();
            Ended { name, trace, span, parent, is_of_a_call: is_of_a_call == "true", error }
        });
        ended.collect()
    }
}

/// Runs a part of the driver in a span, which is sampled as the sampler says. Returns the ids of trace and span.
fn in_span(sampler: Sampler, run: impl FnOnce()) -> [String; 2] {
    let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
    provider.tracer("test").in_span("request", |context| {
        run();
        let span = context.span();
        let span = span.span_context();
        [span.trace_id().to_string(), span.span_id().to_string()]
    })
}

/// The span of a call of this file, of which there is one.
fn check<'a>(ended: &'a [Ended], name: &str, trace: &str, parent: &str) -> &'a Ended {
    let named: Vec<_> = ended.iter().filter(|span| span.name == format!("opentelemetry::{name}")).collect();
    let [span] = named[..] else { panic!("{name}: {ended:#?}") };
    assert_eq!((&*span.trace, &*span.parent), (trace, parent), "{span:?}");
    assert!(span.is_of_a_call, "{span:?}");
    span
}

#[mobula::remote]
fn outer() {
    inner::remote().get().unwrap();
}

#[mobula::remote]
fn inner() {
    Middle::remote().ask().get().unwrap();
}

struct Middle;

#[mobula::remote]
impl Middle {
    fn new() -> Self {
        Middle
    }

    fn ask(&self) {
        let service = Service::remote();
        let (answer, other) = (service.answer(), service.answer_at_once());
        mobula::get([answer, other]).unwrap();
        service.block().get().unwrap();
    }
}

struct Service;

fn active_span() -> SpanContext {
    Context::map_current(|context| context.span().span_context().clone())
}

#[mobula::remote]
impl Service {
    fn new() -> Self {
        Service
    }

    async fn answer(&self) {
        let span = active_span();
        assert!(span.is_valid());
        // Other calls are polled meanwhile.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_micros(10)).await;
            assert_eq!(active_span(), span);
        }
        after_answer::remote().await.unwrap();
    }

    async fn answer_at_once(&self) {}

    fn block(&self) {
        global::tracer("the program's").in_span("work", |_| after_block::remote().get().unwrap());
    }
}

#[mobula::remote]
fn after_answer() {}

#[mobula::remote]
fn after_block() {}

#[test]
fn a_trace_goes_from_the_driver_through_tasks_and_actors() {
    let (_session, spans) = (session(2), Spans::new());
    let [trace, root] =
        in_span(Sampler::AlwaysOn, || outer::options(spans.options()).remote().get().unwrap());
    let ended = spans.ended();
    let check = |name, parent: &str| check(&ended, name, &trace, parent);
    let outer = check("outer", &root);
    let inner = check("inner", &outer.span);
    check("Middle::new", &inner.span);
    let ask = check("Middle::ask", &inner.span);
    check("Service::new", &ask.span);
    let answer = check("Service::answer", &ask.span);
    check("after_answer", &answer.span);
    check("Service::answer_at_once", &ask.span);
    let block = check("Service::block", &ask.span);
    // A span of the program's own.
    let work = ended.iter().find(|span| span.name == "work").unwrap();
    assert_eq!((&work.parent, work.is_of_a_call), (&block.span, false));
    check("after_block", &work.span);
    assert_eq!(ended.len(), 11, "{ended:#?}");
    assert!(ended.iter().all(|span| span.error.is_empty()), "{ended:#?}");
}

#[mobula::remote(retry_exceptions = true)]
fn unlucky(tries: PathBuf) -> Result<usize, String> {
    let tried = attempts(&tries);
    std::fs::write(&tries, vec![0; tried + 1]).unwrap();
    match tried {
        0 => std::process::abort(),
        1 => Err("no luck".to_owned()),
        _ => Ok(tried),
    }
}

fn attempts(tries: &Path) -> usize {
    std::fs::read(tries).map_or(0, |tried| tried.len())
}

#[test]
fn each_attempt_has_a_span_with_the_same_parent() {
    let (_session, spans) = (session(2), Spans::new());
    let tries = spans.0.path().join("tries");
    let call = || unlucky::options(spans.options()).remote(tries).get().unwrap();
    let [trace, root] = in_span(Sampler::AlwaysOn, || assert_eq!(call(), 2));
    // The process of the first attempt has died, and its span with it.
    let ended = spans.ended();
    let [failed, last] = &ended[..] else { panic!("{ended:#?}") };
    for span in [failed, last] {
        assert_eq!((&*span.name, span.is_of_a_call), ("opentelemetry::unlucky", true));
        assert_eq!((&span.trace, &span.parent), (&trace, &root));
    }
    assert_ne!(failed.span, last.span);
    assert!(failed.error.contains("no luck") && last.error.is_empty(), "{ended:#?}");
}

#[mobula::remote]
fn broken() {
    panic!("all is lost");
}

#[mobula::remote(streaming)]
fn count() -> impl Iterator<Item = u32> {
    0..3
}

struct Broken;

#[mobula::remote]
impl Broken {
    fn new() -> Result<Self, String> {
        Err("no state".to_owned())
    }

    fn get(&self) {}
}

struct Later(Vec<Reply<u32>>);

#[mobula::remote]
impl Later {
    fn new() -> Self {
        Later(Vec::new())
    }

    fn ask(&mut self, reply: Reply<u32>) {
        self.0.push(reply);
    }

    fn answer(&mut self) -> Result<(), String> {
        self.0.drain(..).for_each(|reply| reply.send(7));
        Err("not again".to_owned())
    }
}

struct Awaits;

#[mobula::remote]
impl Awaits {
    fn new() -> Self {
        Awaits
    }

    async fn fail(&self) {
        tokio::task::yield_now().await;
        panic!("no future");
    }
}

/// Its process has the variable, and so have those of the calls that it makes.
#[mobula::remote]
fn call_all() {
    broken::remote().get().unwrap_err();
    assert_eq!(count::remote().count(), 3);
    Broken::remote().get().get().unwrap_err();
    let later = Later::remote();
    let asked = later.ask();
    later.answer().get().unwrap_err();
    assert_eq!(asked.get().unwrap(), 7);
    Awaits::remote().fail().get().unwrap_err();
}

#[test]
fn a_span_shows_how_its_call_has_ended() {
    let (_session, spans) = (session(2), Spans::new());
    let [trace, root] =
        in_span(Sampler::AlwaysOn, || call_all::options(spans.options()).remote().get().unwrap());
    let ended = spans.ended();
    let all = check(&ended, "call_all", &trace, &root);
    for (name, error) in [
        ("broken", "all is lost"),
        ("count", ""),
        ("Broken::new", "no state"),
        ("Later::new", ""),
        ("Later::ask", ""),
        ("Later::answer", "not again"),
        ("Awaits::fail", "no future"),
    ] {
        let span = check(&ended, name, &trace, &all.span);
        assert_eq!(span.error.is_empty(), error.is_empty(), "{span:?}");
        assert!(span.error.contains(error), "{span:?}");
    }
}

#[mobula::remote]
fn is_in_span() -> bool {
    active_span().is_valid()
}

#[test]
fn calls_outside_a_sampled_span_have_none() {
    let (_session, spans) = (session(1), Spans::new());
    // With and without what stands beside a context in a record.
    let limited = spans.options().timeout(Duration::from_secs(600));
    for (options, ended) in [(spans.options(), 0), (limited, 1)] {
        let call = || is_in_span::options(options.clone()).remote().get().unwrap();
        assert!(!call());
        in_span(Sampler::AlwaysOff, || assert!(!call()));
        assert_eq!(spans.ended().len(), ended);
        in_span(Sampler::AlwaysOn, || assert!(call()));
        // The thread has left the span.
        assert!(!call());
        assert_eq!(spans.ended().len(), ended + 1);
    }
}
