//! The output of `mobula timeline` follows the Trace Event Format, so that trace viewers draw all of it. They silently
//! leave out events that break its rules: slices of one row that overlap, and arrows without a slice at both ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use mobula::ActorOptions;
use mobula::prelude::*;
use mobula::value::Bytes;
use mobula_cli_support::watched::{session, session_with, with};
use mobula_cli_support::{SOON, eventually, run};
use serde_json::Value;

/// Times are microseconds with three decimal places.
const EXACT: f64 = 2e-3;

#[mobula::remote]
fn computes(millis: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(millis) {}
    millis
}

#[mobula::remote]
fn asks(millis: u64) -> u64 {
    computes::remote(millis).get().unwrap()
}

struct Many;

#[mobula::remote(max_concurrency = 4)]
impl Many {
    fn new() -> Self {
        Self
    }

    fn naps(&self, millis: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(millis));
        millis
    }
}

/// Checks the rules of the format for each event, and between events.
fn check_format(trace: &Value) {
    let unit = trace["displayTimeUnit"].as_str();
    assert!(matches!(unit, Some("ms" | "ns")), "{unit:?}");
    let events = trace["traceEvents"].as_array().expect("a list of events");
    let mut parts: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    let mut arrows: HashMap<u64, [Vec<&Value>; 2]> = HashMap::new();
    let (mut named, mut used) = (HashSet::new(), HashSet::new());
    for event in events {
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("no {name}: {event}"));
        let number = |name: &str| event[name].as_f64().unwrap_or_else(|| panic!("no {name}: {event}"));
        // Perfetto reads no other ids.
        let id = || event["id"].as_u64().filter(|id| *id > 0).unwrap_or_else(|| panic!("no number: {event}"));
        let (pid, tid) = (event["pid"].as_u64().expect("a pid"), event["tid"].as_u64().expect("a tid"));
        assert!(number("ts") >= 0.0 && !text("name").is_empty() && !text("cat").is_empty(), "{event}");
        assert!(event.get("args").is_none_or(Value::is_object), "{event}");
        match text("ph") {
            "X" => {
                assert!(number("dur") >= 0.0, "{event}");
                parts.entry((pid, tid)).or_default().push((number("ts"), number("ts") + number("dur")));
                used.insert((pid, tid));
            }
            "i" => assert!(matches!(text("s"), "g" | "p" | "t"), "{event}"),
            "s" => arrows.entry(id()).or_default()[0].push(event),
            "f" => {
                assert_eq!(text("bp"), "e", "{event}");
                arrows.entry(id()).or_default()[1].push(event);
            }
            "C" => {
                let numbers = event["args"].as_object().expect("its numbers");
                assert!(!numbers.is_empty() && numbers.values().all(Value::is_number), "{event}");
            }
            "M" => {
                assert!(matches!(text("name"), "process_name" | "thread_name"), "{event}");
                assert!(event["args"]["name"].as_str().is_some_and(|name| !name.is_empty()), "{event}");
                if text("name") == "thread_name" {
                    assert!(named.insert((pid, tid)), "named twice: {event}");
                }
            }
            other => panic!("no kind of the format that is used: {other}"),
        }
    }
    assert!(used.is_subset(&named), "rows without names: {:?}", used.difference(&named));
    for (row, parts) in &mut parts {
        check_row(parts).unwrap_or_else(|error| panic!("row {row:?}: {error}"));
    }
    for (id, [begins, ends]) in &arrows {
        assert_eq!((begins.len(), ends.len()), (1, 1), "arrow {id}");
        let (begin, end) = (begins[0], ends[0]);
        assert!(begin["ts"].as_f64() <= end["ts"].as_f64(), "{begin} {end}");
        assert_eq!((&begin["name"], &begin["cat"]), (&end["name"], &end["cat"]), "an arrow is one thing");
        for end in [begin, end] {
            let (at, row) =
                (end["ts"].as_f64().unwrap(), (end["pid"].as_u64().unwrap(), end["tid"].as_u64().unwrap()));
            let holds = |part: &&(f64, f64)| part.0 - EXACT <= at && at <= part.1 + EXACT;
            assert!(
                parts.get(&row).is_some_and(|parts| parts.iter().any(|part| holds(&part))),
                "in no part: {end}"
            );
        }
    }
}

/// The parts of a row lie apart, or one within the other.
fn check_row(parts: &mut [(f64, f64)]) -> Result<(), String> {
    parts.sort_by(|one, other| one.0.total_cmp(&other.0).then(other.1.total_cmp(&one.1)));
    let mut open: Vec<f64> = Vec::new();
    for (begins, ends) in parts.iter() {
        while open.last().is_some_and(|end| *end <= begins + EXACT) {
            open.pop();
        }
        if open.last().is_some_and(|end| *ends > end + EXACT) {
            return Err(format!("{begins} to {ends} is partly in {open:?}"));
        }
        open.push(*ends);
    }
    Ok(())
}

#[test]
fn the_trace_keeps_the_rules_of_its_format() {
    assert!(check_row(&mut [(0.0, 10.0), (5.0, 12.0)]).is_err(), "the check finds what overlaps");
    let watched = session(2);
    let socket = watched.socket.as_str();
    mobula::mark("epoch", 7);
    let span = mobula::span("load");
    let many = Many::remote();
    let naps: Vec<ObjectRef<u64>> = (0..12).map(|number| many.naps(5 + number)).collect();
    // Threads of one process that wait at the same time.
    std::thread::scope(|scope| {
        for millis in 1..=4 {
            scope.spawn(move || mobula::get((0..3).map(|_| asks::remote(5 * millis))).unwrap());
        }
    });
    mobula::get(&naps).unwrap();
    drop(span);
    let start = Instant::now();
    let trace = loop {
        let output = run(["timeline", "--json", "--socket", socket], Path::new("/nowhere"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let trace: Value = serde_json::from_slice(&output.stdout).unwrap();
        check_format(&trace);
        let events = trace["traceEvents"].as_array().unwrap();
        let count = |ph: &str, name: &str| {
            events.iter().filter(|event| event["ph"] == ph && event["name"] == name).count()
        };
        if count("X", "timeline::computes") == 12
            && count("X", "timeline::asks") == 12
            && count("f", "result") > 0
        {
            break trace;
        }
        assert!(start.elapsed() < SOON, "{trace}");
    };
    let events = trace["traceEvents"].as_array().unwrap();
    assert!(events.iter().any(|event| event["ph"] == "C" && event["name"] == "calls under way"));
}

#[test]
fn what_is_written_and_what_is_missing_is_said() {
    let watched = session_with(1, None);
    let many = Many::options(ActorOptions::new().name("scores")).remote();
    assert_eq!(many.naps(1).get().unwrap(), 1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace.json");
    let words = ["timeline", "-o", path.to_str().unwrap(), "--socket", &watched.socket];
    let output = run(words, Path::new("/nowhere"));
    let (text, note) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(text.starts_with("wrote ") && text.contains(" events of "), "{text}");
    assert!(text.contains(path.to_str().unwrap()) && note.contains("MOBULA_EVENTS=all"), "{text} {note}");
    // The track of an actor has its class and its name.
    let trace: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let is_actor = |event: &&Value| {
        let name = event["args"]["name"].as_str().unwrap_or_default();
        event["name"] == "process_name" && name.starts_with("actor 1 timeline::Many scores, pid ")
    };
    assert!(trace["traceEvents"].as_array().unwrap().iter().any(|event| is_actor(&event)), "{trace}");
    // With the JSON on standard output, nothing else stands there.
    let output = run(["timeline", "--socket", &watched.socket], Path::new("/nowhere"));
    serde_json::from_slice::<Value>(&output.stdout).unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("mobula: wrote "));
}

#[test]
fn memory_and_disk_are_seen() {
    const MIB: usize = 1 << 20;
    let directory = tempfile::Builder::new().prefix("mobula-spill-test-").tempdir_in("/var/tmp").unwrap();
    let watched =
        with(None, |builder| builder.workers(1).capacity_bytes(32 << 20).spill_directory(directory.path()));
    let kept: Vec<ObjectRef<Bytes>> =
        (0..16).map(|_| mobula::put(&Bytes::from(vec![1_u8; 4 * MIB])).unwrap()).collect();
    kept.iter().for_each(|kept| assert_eq!(kept.get().unwrap().len(), 4 * MIB));
    // All bytes are in use, so a thread has to wait.
    let in_use: Vec<Bytes> = kept.iter().take(5).map(|kept| kept.get().unwrap()).collect();
    let waiting = std::thread::spawn(|| mobula::put(&Bytes::from(vec![1_u8; 20 * MIB])).map(drop));
    let named = |trace: &Value, ph: &str, name: &str| -> Vec<Value> {
        let events = trace["traceEvents"].as_array().unwrap().iter();
        let found =
            events.filter(|event| event["ph"] == ph && event["name"].as_str().unwrap().starts_with(name));
        found.cloned().collect()
    };
    let mut trace = Value::Null;
    eventually("a thread waits for memory", || {
        trace = watched.ask(&["timeline"]);
        check_format(&trace);
        named(&trace, "X", "wait for 2")
            .iter()
            .any(|wait| wait["name"].as_str().unwrap().ends_with("bytes of memory"))
    });
    drop(in_use);
    waiting.join().unwrap().unwrap();
    for (ph, name) in [("i", "spill"), ("i", "restore"), ("X", "lease"), ("C", "store")] {
        assert!(!named(&trace, ph, name).is_empty(), "no {name}: {trace}");
    }
    let numbers = named(&trace, "C", "store");
    let most = |key: &str| numbers.iter().map(|number| number["args"][key].as_u64().unwrap()).max().unwrap();
    assert!((16 * MIB as u64..=32 * MIB as u64).contains(&most("leased_bytes")), "{numbers:?}");
    assert!((16 * MIB as u64..=64 * MIB as u64).contains(&most("spilled_bytes")), "{numbers:?}");
    eventually("the last number is that of the store", || {
        let numbers = named(&watched.ask(&["timeline"]), "C", "store");
        let status = watched.ask(&["status"]);
        let is_own = |client: &&Value| client["label"].as_str().unwrap().starts_with("driver ");
        let own = status["clients"].as_array().unwrap().iter().find(is_own).unwrap();
        let last = &numbers.last().unwrap()["args"];
        ["leased_bytes", "spilled_bytes"].iter().all(|key| last[key] == own[key]) && own["spilled_bytes"] != 0
    });
}
