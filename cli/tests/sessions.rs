//! Each command takes the session that a person names, and prints JSON for programs. If this fails, a script that
//! watches one of several sessions gets an error, or sees another session.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mobula_cli_support::watched::session;
use mobula_cli_support::{mobula, run};
use serde_json::Value;

/// Runs until it is cancelled.
#[mobula::remote]
fn looks() {
    while !mobula::is_cancelled() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The JSON that a command prints; of several lines the first.
fn json(command: &mut Command) -> Value {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let found = serde_json::Deserializer::from_slice(&output.stdout).into_iter().next();
    found.unwrap_or_else(|| panic!("{command:?} printed nothing")).unwrap()
}

#[test]
fn each_command_takes_the_session_and_prints_json() {
    let watched = session(1);
    let directory = Path::new(&watched.socket).parent().unwrap();
    let name = directory.file_name().unwrap().to_str().unwrap();
    let runtime_directory = std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_default();
    let ask = |words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let by_socket =
            json(&mut mobula(words.iter().chain(&["--socket", &watched.socket]), Path::new("/nowhere")));
        let by_name =
            json(&mut mobula(words.iter().chain(&["--session", name]), Path::new(&runtime_directory)));
        let keys = |value: &Value| {
            value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
        };
        assert_eq!(keys(&by_socket), keys(&by_name), "{words:?}");
        by_name
    };
    let running = [looks::remote(), looks::remote()];
    let own = std::process::id().to_string();
    let status = ask(&["status"]);
    assert_eq!(status["socket"].as_str(), Some(watched.socket.as_str()));
    assert!(status["clients"].is_array(), "{status}");
    for what in ["tasks", "actors", "objects", "workers", "names", "drivers"] {
        assert!(ask(&["list", what])[what].is_array(), "{what}");
    }
    assert!(ask(&["summary", "tasks"])["functions"].is_array());
    assert!(ask(&["memory"])["groups"].is_array());
    assert!(ask(&["why", &own])["chain"].is_array());
    assert!(ask(&["postmortem"])["processes"].is_array());
    assert!(ask(&["timeline"])["traceEvents"].is_array());
    assert!(ask(&["stack", &own])["threads"].is_array());
    assert!(ask(&["top", "--interval", "0.1"]).is_object());
    assert!(ask(&["metrics"]).is_object());
    let mut tasks = Value::Null;
    mobula_cli_support::eventually("a call runs", || {
        tasks = ask(&["list", "tasks", "--function", "sessions::looks"]);
        tasks["total"] == 2
    });
    let mut ids = tasks["tasks"].as_array().unwrap().iter().map(|task| task["task"].as_str().unwrap());
    let cancel = |id: &str, words: [&str; 2]| {
        let cancelled =
            json(&mut mobula(["cancel", id, "--json", words[0], words[1]], Path::new(&runtime_directory)));
        assert_eq!(cancelled["id"], *id);
    };
    cancel(ids.next().unwrap(), ["--session", name]);
    cancel(ids.next().unwrap(), ["--socket", &watched.socket]);
    running.iter().for_each(|running| _ = running.get().unwrap_err());
    // A name that no session has is an error of one line.
    let nobody = run(["status", "--session", "nobody-has-this-name"], Path::new("/nowhere"));
    assert_eq!(nobody.status.code(), Some(1));
    let both = run(["status", "--session", name, "--socket", &watched.socket], Path::new("/nowhere"));
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn a_session_is_started_and_stopped_by_a_program() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = directory.path();
    let start = || {
        let words = ["start", "--num-cpus", "1", "--capacity", "32MiB", "--spill-capacity", "0", "--json"];
        let started = json(mobula(words, runtime).arg("--session-dir").arg(runtime.join("mobula")));
        started["address"].as_str().unwrap().to_owned()
    };
    let address = start();
    let name = Path::new(&address).parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(json(&mut mobula(["status", "--session", &name, "--json"], runtime))["socket"], *address);
    assert_eq!(json(&mut mobula(["stop", "--session", &name, "--json"], runtime))["stopped"], *address);
    assert!(!Path::new(&address).exists(), "it is stopped");
    for words in [vec!["stop", "--json", "--socket"], vec!["stop", "--json"]] {
        let address = start();
        assert_eq!(json(mobula(words, runtime).arg(&address))["stopped"], *address);
        assert!(!Path::new(&address).exists(), "it is stopped");
    }
}
