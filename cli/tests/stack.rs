//! A person sees where a process hangs. If this fails, a person who waits for a call that computes for ever cannot see
//! what it computes.

use std::fs::Permissions;
use std::hint::black_box;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mobula_cli_support::watched::{Gate, session};
use mobula_cli_support::{check_fails, eventually, mobula, run};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
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

/// Looks like a Python program: one of its mappings has the name of the interpreter's library.
#[mobula::remote]
fn looks_like_python(library: String, gate: String) {
    use std::fs::File;
    let file = File::open(library).unwrap();
    let length = std::num::NonZeroUsize::new(4096).unwrap();
    // SAFETY: a new mapping at an address that the system chooses. Nobody reads it.
    let _mapped =
        unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, 0) }.unwrap();
    while Path::new(&gate).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn the_frames_of_a_python_program_come_from_py_spy() {
    let watched = session(1);
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("libpython3.13.so.1.0");
    std::fs::write(&library, [0; 4096]).unwrap();
    let gate = Gate::closed();
    let call = looks_like_python::remote(library.to_str().unwrap().to_owned(), gate.path());
    let mut pid = String::new();
    eventually("it looks like one", || {
        pid = watched.ask(&["list", "workers", "--function", "*looks_like_python"])["workers"][0]["pid"]
            .to_string();
        std::fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains("libpython3.13"))
    });
    let ask = |script: Option<&str>, words: &[&str]| -> Value {
        let py_spy = directory.path().join("py-spy");
        let _ = std::fs::remove_file(&py_spy);
        if let Some(script) = script {
            std::fs::write(&py_spy, script).unwrap();
            std::fs::set_permissions(&py_spy, Permissions::from_mode(0o755)).unwrap();
        }
        let words =
            ["stack", &pid, "--json", "--socket", &watched.socket].into_iter().chain(words.iter().copied());
        let output = mobula(words, Path::new("/nowhere")).env("PATH", directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let found = ask(Some("#!/bin/sh\necho \"frames of $*\"\n"), &[]);
    assert_eq!(found["python"], format!("frames of dump --pid {pid}\n"), "{found}");
    assert!(!found["threads"].as_array().unwrap().is_empty(), "native frames are there too");
    assert_eq!(ask(Some("#!/bin/sh\nexit 1\n"), &["--native"])["python"], Value::Null);
    // Without it, or where it fails, a note says so.
    let notes = |found: &Value| found["notes"].to_string();
    let failed = ask(Some("#!/bin/sh\necho no permission; exit 1\n"), &[]);
    assert!(failed["python"].is_null() && notes(&failed).contains("py-spy: no permission"), "{failed}");
    let missing = ask(None, &[]);
    assert!(missing["python"].is_null() && notes(&missing).contains("install py-spy"), "{missing}");
    // Before the frames, which fill the screen.
    let words = ["stack", &pid, "--socket", &watched.socket];
    let output = mobula(words, Path::new("/nowhere")).env("PATH", directory.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().nth(1).unwrap().contains("install py-spy"), "{text}");
    drop(gate);
    call.get().unwrap();
}

#[test]
fn the_frames_of_a_running_call_are_named() {
    let watched = session(1);
    let socket = watched.socket.clone();
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
    check_fails(3, words(&["stack", &task]), Path::new("/nowhere"), &["is over"]);
    let unknown = format!("{}.999999", std::process::id());
    check_fails(3, words(&["stack", &unknown]), Path::new("/nowhere"), &["does not run", "never existed"]);
    // One that waits behind another.
    let gate = Gate::closed();
    let running = spins::remote(gate.path());
    let waiting = spins::remote(gate.path());
    let mut pending = Value::Null;
    eventually("a call waits", || {
        pending = watched.ask(&["list", "tasks", "--state", "pending"])["tasks"][0]["task"].clone();
        pending.is_string()
    });
    let pending = pending.as_str().unwrap();
    check_fails(4, words(&["stack", pending]), Path::new("/nowhere"), &["is pending", "`mobula why"]);
    drop(gate);
    mobula::get([running, waiting]).unwrap();
    check_fails(3, words(&["stack", "1"]), Path::new("/nowhere"), &["\"1\""]);
}
