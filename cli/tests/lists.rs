//! Lists say which words they know, and what they leave out. If this fails, a person takes an empty list for the truth
//! although a word was wrong, or calls were forgotten.

use std::path::Path;

use mobula::ActorOptions;
use mobula_cli_support::watched::{Watched, session};
use mobula_cli_support::{check_fails, eventually, mobula};
use serde_json::Value;

#[mobula::remote]
fn quick() {}

#[mobula::remote]
fn other() {}

struct Scores;

#[mobula::remote]
impl Scores {
    fn new() -> Self {
        Self
    }

    fn one(&self) -> u32 {
        1
    }
}

const KINDS: [&str; 6] = ["tasks", "actors", "workers", "objects", "names", "drivers"];

fn fails(watched: &Watched, words: &[&str], expected: &[&str]) {
    let words: Vec<&str> = words.iter().copied().chain(["--socket", &watched.socket]).collect();
    check_fails(2, words, Path::new("/nowhere"), expected);
}

#[test]
fn a_wrong_word_is_an_error_that_names_the_right_ones() {
    let watched = session(1);
    for (kind, state) in KINDS.iter().zip(["running", "alive", "idle", "sealed", "alive", "driver"]) {
        fails(&watched, &["list", kind, "--state", "bogus"], &["bogus", state]);
        watched.ask(&["list", kind, "--state", &state.to_uppercase()]);
        fails(&watched, &["list", kind, "--sort", "colour"], &["colour", "their keys are "]);
        fails(&watched, &["list", kind, "--where", "colour=red"], &["colour", "their keys are "]);
        let help = mobula(["list", kind, "--help"], Path::new("/nowhere")).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains("States: ") && help.contains(state) && help.contains("Keys: "), "{help}");
    }
    for limit in ["0", "-1", "all"] {
        let words = ["list", "tasks", "--limit", limit];
        let output = mobula(words, Path::new("/nowhere")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains("at least 1"), "{text}");
    }
}

#[test]
fn rows_are_sorted_by_each_key_and_each_head() {
    let watched = session(1);
    quick::remote().get().unwrap();
    let actor = Scores::options(ActorOptions::new().name("sy")).remote();
    actor.one().get().unwrap();
    let _object = mobula::put(&vec![1_u8; 100_000]).unwrap();
    let lists = KINDS.map(|kind| vec!["list", kind]);
    for list in lists.into_iter().chain([vec!["summary", "tasks"]]) {
        let found = watched.ask(&list);
        let rows = found.as_object().unwrap().values().find_map(Value::as_array).unwrap();
        let row = rows.first().unwrap_or_else(|| panic!("{list:?} has no rows"));
        for key in row.as_object().unwrap().keys() {
            watched.ask(&[&list[..], &["--sort", key]].concat());
        }
        // Two blanks stand between two heads.
        let text = watched.text(&list);
        let heads = text.lines().next().unwrap().split("  ").map(str::trim).filter(|head| !head.is_empty());
        for head in heads {
            watched.ask(&[&list[..], &["--sort", head]].concat());
        }
    }
}

#[test]
fn forgotten_calls_are_mentioned() {
    let watched = session(2);
    let list = || watched.text(&["list", "tasks", "--limit", "2"]);
    assert!(!list().contains("overwritten"));
    eventually("older events are overwritten", || {
        let calls: Vec<_> = (0..4000).map(|_| quick::remote()).collect();
        mobula::get(&calls).unwrap();
        watched.ask(&["list", "tasks", "--limit", "1"])["overwritten_events"].as_u64().unwrap() > 0
    });
    let text = list();
    assert!(text.contains("--limit shows more\n") && text.contains(" overwritten, and the calls"), "{text}");
}

#[test]
fn a_summary_is_filtered_sorted_and_limited() {
    let watched = session(1);
    (0..3).for_each(|_| quick::remote().get().unwrap());
    other::remote().get().unwrap();
    let functions = |words: &[&str]| {
        let found = watched.ask(&[&["summary", "tasks"], words].concat());
        let rows = found["functions"].as_array().unwrap().clone();
        rows.iter().map(|row| row["function"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(functions(&["--function", "*other"]), ["lists::other"]);
    assert_eq!(functions(&["--sort", "made"]), ["lists::quick", "lists::other"]);
    assert_eq!(functions(&["--sort", "FUNCTION"]), ["lists::other", "lists::quick"]);
    assert_eq!(functions(&["--sort", "made", "--reverse", "--limit", "1"]), ["lists::other"]);
    fails(&watched, &["summary", "tasks", "--sort", "colour"], &["colour", "p50_s"]);
}
