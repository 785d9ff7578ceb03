//! Prometheus reads a session's figures, and a program's own. If this fails, a dashboard shows nothing, or wrong sums.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mobula::metrics::{Counter, Gauge, Histogram};
use mobula::{ObjectRef, TaskOptions};
use mobula_cli_support::watched::{Watched, session};
use mobula_cli_support::{eventually, mobula, peers, run};
use mobula_client::Client;
use serde_json::Value;

/// The values of OpenMetrics text, by name and labels. Checks the grammar.
fn parse(text: &str) -> HashMap<String, f64> {
    let (mut values, mut family, mut kind) = (HashMap::new(), String::new(), String::new());
    let mut families = Vec::new();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines().take_while(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let (what, rest) = rest.split_once(' ').unwrap();
            let (name, value) = rest.split_once(' ').unwrap();
            if name != family {
                assert!(!families.contains(&name.to_owned()), "{name} is there twice");
                families.push(name.to_owned());
                (family, kind) = (name.to_owned(), String::new());
            }
            match what {
                "TYPE" => kind = value.to_owned(),
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                "HELP" => {}
                other => panic!("{other}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let suffixes: &[&str] = match &*kind {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            other => panic!("{other}: {line}"),
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line} in {family}");
        let before = values.insert(series.to_owned(), value.parse().unwrap());
        assert!(before.is_none(), "{series} is there twice");
    }
    values
}

/// Checks text by the parser of Python's prometheus_client, where there is one.
fn check_by_python(text: &str) {
    let program = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        assert len(list(parse(sys.stdin.read()))) > 10";
    let import =
        Command::new("python3").args(["-c", "import prometheus_client"]).stderr(Stdio::null()).status();
    if !import.is_ok_and(|status| status.success()) {
        return;
    }
    let mut child = Command::new("python3").args(["-c", program]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[mobula::remote]
fn counts(path: String) -> u32 {
    let items = Counter::new("test_items", "Items").unwrap();
    items.tagged([("path", path.as_str())]).unwrap().inc();
    Histogram::new("test_sizes", "Sizes", [1.0, 10.0]).unwrap().observe(path.len() as f64);
    Gauge::new("test_level", "Level").unwrap().set(7.0);
    std::process::id()
}

/// Its process ends after the call.
#[mobula::remote(max_calls = 1)]
fn counts_once(path: String) -> u32 {
    counts(path)
}

#[mobula::remote]
fn fails() -> Result<(), String> {
    Err("on purpose".to_owned())
}

#[mobula::remote]
fn ends() {
    std::process::abort();
}

#[test]
fn calls_processes_and_the_store_are_exported() {
    let watched = session(2);
    // A process that has connected to the store more than once is one process.
    let _clients = [(); 2].map(|()| Client::connect(&watched.socket).unwrap());
    let calls: Vec<ObjectRef<u32>> = (0..5).map(|_| counts::remote("a".to_owned())).collect();
    mobula::get(&calls).unwrap();
    fails::remote().get().unwrap_err();
    let text = watched.text(&["metrics"]);
    check_by_python(&text);
    let values = parse(&text);
    assert_eq!(values["mobula_up"], 1.0);
    assert_eq!(values["mobula_tasks_finished_total{function=\"metrics::counts\"}"], 5.0);
    assert_eq!(values["mobula_tasks_failed_total{function=\"metrics::fails\"}"], 1.0);
    assert_eq!(values["mobula_store_capacity_bytes"], (64 << 20) as f64);
    assert!(values.keys().any(|key| key.starts_with("mobula_process_memory_bytes{")), "{text}");
    assert!(
        values.keys().any(|key| key.starts_with("mobula_task_duration_seconds{") && key.contains("quantile"))
    );
    assert_eq!(values["mobula_resource_capacity{resource=\"CPU\"}"], 2.0);
}

struct Idle;

#[mobula::remote]
impl Idle {
    fn new() -> Self {
        Self
    }

    fn is_there(&self) -> bool {
        true
    }
}

/// The names of metrics in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    words.filter(|word| word.starts_with("mobula_")).map(str::to_owned).collect()
}

#[test]
fn the_board_and_the_page_name_metrics_that_there_are() {
    let watched = session(2);
    counts::remote("a".to_owned()).get().unwrap();
    fails::remote().get().unwrap_err();
    let actor = Idle::remote();
    assert!(actor.is_there().get().unwrap());
    // Some figures are those since the last reading.
    let served = Served::start(&watched);
    let read = || parse(served.ask(GET).split_once("\r\n\r\n").unwrap().1);
    let mut values = read();
    eventually("there are figures of two readings", || {
        values = read();
        values.keys().any(|key| key.starts_with("mobula_process_cpu_ratio"))
    });
    let exported: BTreeSet<&str> = values.keys().map(|key| key.split('{').next().unwrap()).collect();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let board: Value = serde_json::from_slice(&std::fs::read(docs.join("grafana.json")).unwrap()).unwrap();
    let expressions: Vec<&str> = board["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    let in_board = names_in(&expressions.join("\n"));
    assert!(in_board.len() > 10, "{in_board:?}");
    let page = std::fs::read_to_string(docs.join("metrics.md")).unwrap();
    let table: String = page.lines().filter(|line| line.starts_with("| `mobula_")).collect();
    let in_page = names_in(&table);
    assert!(in_page.len() > 10, "{in_page:?}");
    for name in in_board.union(&in_page) {
        assert!(exported.contains(&**name), "{name} is not exported: {exported:?}");
    }
}

#[test]
fn a_person_who_serves_other_machines_is_told_who_may_read() {
    let watched = session(1);
    for (address, is_warned) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let words = ["metrics", "--listen", address, "--socket", &watched.socket];
        let mut command = mobula(words, Path::new("/nowhere"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The warning comes before the address.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("http://"), "{line}");
        child.kill().unwrap();
        let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
        assert_eq!(said.contains("anybody who can reach"), is_warned, "{said}");
    }
}

#[test]
fn metrics_of_the_program_are_added_up_over_processes_dead_ones_too() {
    let watched = session(2);
    for path in ["/users", "/users", "a \"quoted\\ one\n"] {
        counts::remote(path.to_owned()).get().unwrap();
    }
    // In the driver, too.
    Counter::new("test_items", "Items").unwrap().tagged([("path", "/users")]).unwrap().add(0.5);
    let quoted = "test_items_total{path=\"a \\\"quoted\\\\ one\\n\"}";
    let check = |text: &str| {
        let values = parse(text);
        assert_eq!(values["test_items_total{path=\"/users\"}"], 2.5, "{text}");
        assert_eq!(values[quoted], 1.0, "{text}");
        let bucket = |le: &str| values[&format!("test_sizes_bucket{{le=\"{le}\"}}")];
        assert_eq!((bucket("1.0"), bucket("10.0"), bucket("+Inf")), (0.0, 2.0, 3.0), "{text}");
        assert_eq!((values["test_sizes_count"], values["test_sizes_sum"]), (3.0, 27.0));
    };
    let text = watched.text(&["metrics"]);
    check(&text);
    check_by_python(&text);
    let gauges =
        || parse(&watched.text(&["metrics"])).keys().filter(|key| key.starts_with("test_level{pid=")).count();
    assert!(gauges() >= 1);
    // All workers die.
    for _ in 0..4 {
        ends::options(TaskOptions::new().max_retries(0)).remote().get().unwrap_err();
    }
    eventually("gauges of the dead are gone", || gauges() == 0);
    check(&watched.text(&["metrics"]));
}

#[test]
fn processes_that_end_one_after_the_other_leave_few_files() {
    let watched = session(2);
    let pids: BTreeSet<u32> =
        (0..20).map(|_| counts_once::remote("/users".to_owned()).get().unwrap()).collect();
    assert_eq!(pids.len(), 20);
    let values = parse(&watched.text(&["metrics"]));
    assert_eq!((values["test_items_total{path=\"/users\"}"], values["test_sizes_sum"]), (20.0, 120.0));
    let directory = Path::new(&watched.socket).parent().unwrap().join("metrics");
    let files = std::fs::read_dir(directory).unwrap().count();
    // Of those that are about to end, too.
    assert!(files <= 10, "{files} files");
}

/// A command that serves the metrics of a session. It ends when this is dropped.
struct Served {
    command: Child,
    /// Such as `127.0.0.1:4711`.
    address: String,
}

impl Served {
    fn start(watched: &Watched) -> Self {
        let words = ["metrics", "--listen", "127.0.0.1:0", "--socket", &watched.socket];
        let mut command = mobula(words, Path::new("/nowhere"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(command.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics"));
        Self { command, address: address.unwrap().to_owned() }
    }

    fn ask(&self, request: &str) -> String {
        peers::answer(&self.address, request.as_bytes())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

#[test]
fn without_a_session_the_only_figure_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(["metrics", "--socket", "/nowhere/store.sock"], directory.path());
    assert_eq!(output.status.code(), Some(1));
    let (text, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(parse(&text)["mobula_up"], 0.0, "{text}");
    assert!(error.starts_with("error: ") && error.contains("`mobula store --socket"), "{error}");
}

#[test]
fn nothing_waits_in_an_idle_session() {
    let watched = session(1);
    let text = watched.text(&["metrics"]);
    assert!(text.contains("mobula_workers_wanted 0"), "{text}");
    // A port alone is an address, too.
    for address in ["70000", "127.0.0.1"] {
        let words = ["metrics", "--listen", address, "--socket", &watched.socket];
        let output = run(words, Path::new("/nowhere"));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && error.contains("expected a port, or an address"),
            "{error}"
        );
    }
}

/// What Prometheus sends.
const GET: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn prometheus_is_served_and_hears_of_the_end() {
    let mut watched = session(2);
    let served = Served::start(&watched);
    let answer = served.ask(GET);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert_eq!(parse(body)["mobula_up"], 1.0);
    let status = |request: &str| peers::status(&served.ask(request));
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 200);
    assert_eq!(status("GET /metrics?name[]=mobula_up HTTP/1.0\r\n\r\n"), 200);
    assert_eq!(status("GET /other HTTP/1.1\r\n\r\n"), 404);
    assert_eq!(status("DELETE /metrics HTTP/1.1\r\n\r\n"), 405);
    assert_eq!(status("\0\r\n\r\n"), 400);
    let head = served.ask("HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(peers::status(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
    watched.end();
    eventually("the end is seen", || {
        let answer = served.ask(GET);
        parse(answer.split_once("\r\n\r\n").unwrap().1)["mobula_up"] == 0.0
    });
}

#[test]
fn peers_of_any_kind_hold_up_nobody() {
    let watched = session(1);
    peers::check_they_hold_up_nobody(&Served::start(&watched).address, GET);
}
