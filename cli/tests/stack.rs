//! A person sees where a process hangs. If this fails, a person who waits for a call that computes for ever cannot see
//! what it computes.

use std::hint::black_box;
use std::path::Path;

use mobula_cli_support::{check_fails, eventually, run};
use serde_json::Value;

/// Runs until the file is gone.
#[mobula::remote]
fn spins(path: String) {
    outer_function(&path);
}

#[inline(never)]
fn outer_function(path: &str) {
    inner_function(path);
    black_box(());
}

#[inline(never)]
fn inner_function(path: &str) {
    while Path::new(path).exists() {
        (0..1000u64).for_each(|number| _ = black_box(number));
    }
    black_box(());
}

#[test]
fn the_frames_of_a_running_call_are_named() {
    // SAFETY: no other thread of this program runs yet.
    unsafe { std::env::set_var("MOBULA_EVENTS", "all") };
    let session = mobula::Builder::new().workers(1).capacity_bytes(64 << 20).init().unwrap();
    let socket = session.socket().to_str().unwrap().to_owned();
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .chain(["--socket".into(), socket.clone()])
            .collect::<Vec<_>>()
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let call = spins::remote(file.path().to_str().unwrap().to_owned());
    let mut pid = String::new();
    let mut task = String::new();
    eventually("the call runs", || {
        let output =
            run(words(&["list", "workers", "--json", "--function", "*spins"]), Path::new("/nowhere"));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let worker = &found["workers"][0];
        (pid, task) = (worker["pid"].to_string(), worker["task"].as_str().unwrap_or_default().to_owned());
        !task.is_empty()
    });
    let mut names = Vec::new();
    eventually("the functions are on the stack", || {
        let output = run(words(&["stack", &pid, "--json"]), Path::new("/nowhere"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((found["pid"].to_string(), found["task"].as_str()), (pid.clone(), Some(&*task)));
        let frames = found["threads"][0]["frames"].as_array().unwrap();
        names = frames.iter().map(|frame| frame["function"].as_str().unwrap_or("?").to_owned()).collect();
        let at = |name: &str| names.iter().position(|function| function.contains(name));
        let lines = frames
            .iter()
            .filter(|frame| frame["file"].as_str().is_some_and(|file| file.ends_with("stack.rs")));
        assert!(at("inner_function").is_none() || lines.count() >= 2, "{frames:#?}");
        matches!((at("inner_function"), at("outer_function")), (Some(inner), Some(outer)) if inner < outer)
    });
    // By the call, for people.
    let output = run(words(&["stack", &task]), Path::new("/nowhere"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("which runs stack::spins") && text.contains("inner_function"), "{text}");
    // The process continues, unharmed.
    drop(file);
    call.get().unwrap();
    check_fails(3, words(&["stack", &task]), Path::new("/nowhere"), &["does not run"]);
    check_fails(3, words(&["stack", "1"]), Path::new("/nowhere"), &["\"1\""]);
}
