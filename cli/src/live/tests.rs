//! Samples of real sessions: with and without recorded events, and at the end of a session.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::*;

/// The longest wait for an expected event.
const SOON: Duration = Duration::from_secs(60);
const OFTEN: Duration = Duration::from_millis(50);

/// One session at a time, since each reads the environment.
static ALONE: Mutex<()> = Mutex::new(());

/// The session goes before the lock.
fn session(events: Option<&str>) -> (MutexGuard<'static, ()>, mobula::Session) {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match events {
        // SAFETY: the other threads of this program that read the environment wait for the lock that this one has.
        Some(events) => unsafe { std::env::set_var("MOBULA_EVENTS", events) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var("MOBULA_EVENTS") },
    }
    (alone, mobula::Builder::new().workers(2).capacity_bytes(64 << 20).init().unwrap())
}

/// The first sample for which a condition holds.
fn sample_where(live: &Live, what: &str, mut is_it: impl FnMut(&Sample) -> bool) -> Sample {
    let (start, mut seen) = (Instant::now(), 0);
    loop {
        if let Some(update) = live.wait(seen, OFTEN) {
            seen = update.number;
            if let Some(look) = update.look.filter(|look| is_it(&look.sample)) {
                return look.sample.clone();
            }
        }
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
    }
}

#[mobula::remote]
fn spins(millis: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(millis) {}
    millis
}

#[mobula::remote]
fn fails() -> Result<(), String> {
    Err("on purpose".to_owned())
}

struct Sum(u64);

#[mobula::remote]
impl Sum {
    fn new() -> Self {
        Self(0)
    }

    fn add(&mut self, more: u64) -> u64 {
        self.0 += more;
        self.0
    }
}

#[test]
fn a_busy_session_is_seen_in_rows_and_rates() {
    let (_alone, session) = session(Some("all"));
    let live = Live::start(session.socket().to_owned(), OFTEN).unwrap();
    let kept = mobula::put(&vec![7_u8; 1 << 20]).unwrap();
    let sum = Sum::remote();
    let mut ended = 0;
    let is_seen = |sample: &Sample| {
        let rate = |name: &str| {
            sample.functions.iter().find(|row| row.function.ends_with(name)).and_then(|row| row.calls_per_s)
        };
        rate("spins") > Some(0.0)
            && sample.functions.iter().any(|row| row.function.ends_with("fails") && row.failed > 0)
            && sample.actors.iter().any(|row| row.pid.is_some())
            && sample.figures.cpu_percent > Some(0.0)
            && sample
                .workers
                .iter()
                .any(|row| row.function.as_deref().is_some_and(|name| name.ends_with("spins")))
    };
    let (start, mut found, mut seen) = (Instant::now(), None, 0);
    while found.is_none() {
        mobula::get((0..4).map(|_| spins::remote(20))).unwrap();
        fails::remote().get().unwrap_err();
        sum.add(1).get().unwrap();
        ended += 6;
        if let Some(update) = live.wait(seen, Duration::ZERO) {
            seen = update.number;
            found = update.look.filter(|look| is_seen(&look.sample)).map(|look| look.sample.clone());
        }
        assert!(start.elapsed() < SOON, "no look has seen it all");
    }
    let sample = found.unwrap();
    let of = |name: &str| sample.functions.iter().find(|row| row.function.ends_with(name)).unwrap().clone();
    let spins = of("spins");
    assert!(spins.p50_s >= Some(0.015) && spins.p99_s >= spins.p50_s, "{spins:?}");
    assert!(spins.finished <= ended && of("fails").failed > 0 && of("fails").finished == 0);
    assert!(
        sample.workers[0].kind == "driver" && sample.workers.iter().all(|row| row.memory_bytes.is_some())
    );
    assert!(sample.workers.iter().any(|row| row.kind == "actor"));
    assert!(sample.store.object_bytes >= 1 << 20 && sample.store.used_bytes >= sample.store.object_bytes);
    assert_eq!(sample.store.used_bytes + sample.store.free_bytes, sample.store.capacity_bytes);
    assert!(
        sample.resources.iter().any(|row| row.name == "CPU" && row.total == 2.0),
        "{:?}",
        sample.resources
    );
    assert_eq!(sample.unknown, [], "all is known where all is recorded");
    assert!(live.history().points().any(|point| point.calls_per_s > Some(0.0)));
    // Screens get plain data.
    let json = serde_json::to_value(&sample).unwrap();
    assert!(json["workers"][0]["pid"].is_u64() && json["figures"]["calls_per_s"].is_f64());
    drop(kept);
}

#[test]
fn where_nothing_is_recorded_the_rest_is_seen_and_the_gap_is_explained() {
    let (_alone, session) = session(Some("none"));
    let live = Live::start(session.socket().to_owned(), OFTEN).unwrap();
    mobula::get((0..4).map(|_| spins::remote(5))).unwrap();
    let sample = sample_where(&live, "the processes", |sample| {
        sample.workers.iter().filter(|row| row.kind != "driver").count() >= 1
            && sample.workers.iter().all(|row| row.memory_bytes.is_some() && row.cpu_percent.is_some())
            && !sample.resources.is_empty()
    });
    assert!(sample.workers.iter().all(|row| !row.recorded && row.function.is_none() && row.calls.is_none()));
    assert_eq!((sample.figures.calls_per_s, sample.figures.running), (None, None));
    assert!(sample.functions.is_empty());
    let unknown = &sample.unknown[0];
    assert!(
        unknown.why.contains("record nothing") && unknown.remedy.contains("MOBULA_EVENTS=all"),
        "{unknown:?}"
    );
}

#[test]
fn the_end_of_the_session_is_told_and_the_last_look_stays() {
    let (_alone, session) = session(Some("all"));
    let live = Live::start(session.socket().to_owned(), OFTEN).unwrap();
    sample_where(&live, "a look", |sample| sample.number > 0);
    drop(session);
    let (start, mut update) = (Instant::now(), live.latest());
    while !matches!(update.session, Session::Ended(_)) {
        assert!(start.elapsed() < SOON, "{:?}", update.session);
        update = live.wait(update.number, OFTEN).unwrap_or(update);
    }
    assert!(update.look.is_some() && live.history().points().len() > 0);
}
