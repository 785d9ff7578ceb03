//! The requests of a page other than the stream: calls and one call, a timeline, and the map of the store. Each answer
//! is made from the last look, or, for the map, from a look of its own; all are of bounded size.

use mobula_runtime::state::{Snapshot, TaskState};
use serde_json::{Value, json};

use super::logs::Tail;
use super::map::Maps;
use crate::http::{Answer, Request};
use crate::live::Live;
use crate::live::sample::Look;

/// Rows of calls in an answer.
const TASKS_MAX: usize = 500;
/// Parts of a timeline in an answer: beyond that, only the last ones are drawn.
const SPANS_MAX: usize = 4000;
const SECONDS_MAX: f64 = 3600.0;

/// The parts that answer requests.
#[derive(Debug)]
pub(super) struct Answers {
    maps: Maps,
    tail: Tail,
}

impl Answers {
    pub(super) fn new(maps: Maps, tail: Tail) -> Self {
        Self { maps, tail }
    }

    /// The answer at a path; `None`: there is none.
    pub(super) fn answer(&self, path: &str, request: &Request, live: &Live) -> Option<Answer> {
        if path == "logs" {
            let after = request.field("after").and_then(|after| after.parse().ok()).unwrap_or(0);
            return Some(Answer::json(self.tail.json(after).to_string()));
        }
        if !matches!(path, "tasks" | "task" | "timeline" | "trace.json" | "map") {
            return None;
        }
        let Some(look) = live.latest().look else {
            return Some(Answer::text("503 Service Unavailable", "nothing was seen of the session so far"));
        };
        Some(match path {
            "tasks" => Answer::json(tasks(&look.snapshot, request).to_string()),
            "task" => match task(&look.snapshot, &request.field("id").unwrap_or_default()) {
                Ok(task) => Answer::json(task.to_string()),
                Err(error) => Answer::text("404 Not Found", &error),
            },
            "timeline" => Answer::json(timeline(&look, request).to_string()),
            "trace.json" => Answer::json(look.snapshot.timeline_json(&look.snapshot.timeline()))
                .with("Content-Disposition: attachment; filename=\"mobula-trace.json\"\r\n"),
            _ => match self.maps.json() {
                Ok(map) => Answer::json(map.as_ref().clone()),
                Err(error) => Answer::text("503 Service Unavailable", &error),
            },
        })
    }
}

/// The calls that were made lately, the latest first, as far as they are wanted.
fn tasks(snapshot: &Snapshot, request: &Request) -> Value {
    let (state, text) = (request.field("state"), request.field("text").map(|text| text.to_lowercase()));
    let limit = request.field("limit").and_then(|limit| limit.parse().ok()).unwrap_or(100).min(TASKS_MAX);
    let is_wanted = |task: &TaskState| {
        let has = |text: &String| task.function.to_lowercase().contains(text) || task.task.starts_with(text);
        state.as_ref().is_none_or(|state| task.state.to_string() == *state) && text.as_ref().is_none_or(has)
    };
    let mut tasks = snapshot.tasks();
    tasks.retain(is_wanted);
    let total = tasks.len();
    if request.field("sort").as_deref() == Some("time") {
        tasks.sort_by(|one, other| other.ran_s.unwrap_or(0.0).total_cmp(&one.ran_s.unwrap_or(0.0)));
    }
    tasks.truncate(limit);
    json!({ "tasks": tasks, "total": total, "overwritten_events": snapshot.lost_events() })
}

/// A call, what it waits for, and the calls that it has made.
fn task(snapshot: &Snapshot, id: &str) -> Result<Value, String> {
    let tasks = snapshot.tasks();
    let found = tasks.iter().find(|task| task.task == id);
    let found = found.ok_or_else(|| format!("nothing is known of call {id:?} any more"))?;
    let number = id.split_once('.').and_then(|(_, number)| number.parse::<u64>().ok()).unwrap_or(0);
    let is_child =
        |task: &&TaskState| number != 0 && task.parent == number && Some(task.caller_pid) == found.worker_pid;
    let made: Vec<&TaskState> = tasks.iter().filter(is_child).take(TASKS_MAX).collect();
    Ok(json!({ "task": found, "why": snapshot.why(id).ok(), "made": made }))
}

/// The spans of the last seconds, by process: what it ran, what it waited for.
fn timeline(look: &Look, request: &Request) -> Value {
    let seconds = request.field("seconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(30.0_f64);
    let now = look.snapshot.now_s() * 1e6;
    let from = now - seconds.clamp(0.1, SECONDS_MAX) * 1e6;
    let events = look.snapshot.timeline();
    let names: Vec<Value> = events
        .iter()
        .filter(|event| event.ph == "M" && event.name == "process_name")
        .map(|event| json!({ "pid": event.pid, "label": event.args.get("name") }))
        .collect();
    let is_shown = |event: &&mobula_runtime::state::TraceEvent| match event.ph {
        // A call that was made is the beginning of an arrow.
        "X" => event.cat != "made" && event.ts + event.dur.unwrap_or(0.0) >= from,
        "i" => event.ts >= from,
        _ => false,
    };
    let shown: Vec<_> = events.iter().filter(is_shown).collect();
    let left_out = shown.len().saturating_sub(SPANS_MAX);
    // Seconds before now, so that the numbers are short.
    let ago = |at: f64| ((at - now) / 1e6).max(from / 1e6 - now / 1e6 - 3600.0);
    let spans: Vec<Value> = shown[left_out..]
        .iter()
        .map(|event| {
            let text = |name: &str| event.args.get(name).cloned().unwrap_or(Value::Null);
            let length = event.dur.map(|length| length / 1e6);
            json!([event.pid, event.cat, event.name, ago(event.ts), length, text("task"), text("state")])
        })
        .collect();
    let arrows = arrows(&events, from, ago);
    json!({
        "at": look.sample.at, "seconds": seconds, "tracks": names, "spans": spans, "left_out": left_out,
        "arrows": arrows,
    })
}

/// Where each call was made and where it ran, and where that was waited for: `[pid, when, pid, when]`.
fn arrows(events: &[mobula_runtime::state::TraceEvent], from: f64, ago: impl Fn(f64) -> f64) -> Vec<Value> {
    let mut begun = std::collections::HashMap::new();
    let mut arrows = Vec::new();
    // In the order of time: a beginning comes before its end.
    for event in events {
        match (event.ph, &event.id) {
            ("s", Some(id)) => {
                begun.insert(id, (event.pid, event.ts));
            }
            ("f", Some(id)) if event.ts >= from => {
                if let Some((pid, at)) = begun.get(id) {
                    arrows.push(json!([pid, ago(*at), event.pid, ago(event.ts)]));
                }
            }
            _ => {}
        }
    }
    let left_out = arrows.len().saturating_sub(SPANS_MAX);
    arrows.split_off(left_out)
}
