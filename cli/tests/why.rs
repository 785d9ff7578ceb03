//! The chain of waits of an object, and chains that end at memory, at a disk and at a lock. If this fails, a person who
//! asks why something hangs is told that nothing is known.

use std::path::Path;
use std::time::Duration;

use mobula::ObjectRef;
use mobula::util::Semaphore;
use mobula::value::Bytes;
use mobula_cli_support::eventually;
use mobula_cli_support::watched::{Gate, Watched, session, session_with, with};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const MIB: usize = 1 << 20;

/// Runs until the file is gone.
#[mobula::remote]
fn runs_while(path: String) -> u32 {
    while Path::new(&path).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    1
}

#[mobula::remote]
fn makes(bytes: usize) -> mobula::Result<usize> {
    Ok(mobula::put(&Bytes::from(vec![1_u8; bytes]))?.get()?.len())
}

/// Takes a permit, and keeps it until the file is gone.
#[mobula::remote]
fn locks(semaphore: Semaphore, path: String) -> mobula::Result<()> {
    let _permit = semaphore.acquire()?;
    while Path::new(&path).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

struct Keeper(Vec<ObjectRef<u32>>);

#[mobula::remote]
impl Keeper {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn keep(&mut self, results: Vec<ObjectRef<u32>>) {
        self.0.extend(results);
    }

    /// Makes objects, whose owner is this process.
    fn make(&self, count: usize) -> mobula::Result<(u32, Vec<ObjectRef<Bytes>>)> {
        let made = (0..count).map(|_| mobula::put(&Bytes::from(vec![1_u8; 4 * MIB])));
        Ok((std::process::id(), made.collect::<mobula::Result<_>>()?))
    }
}

/// The answer once the chain has this end.
fn why(watched: &Watched, target: &str, end: &str) -> Value {
    let mut found = Value::Null;
    eventually(&format!("{target} leads to {end}"), || {
        found = watched.ask(&["why", target]);
        found["end"] == end
    });
    watched.show(&["why", target]);
    found
}

/// The kinds of the links of a chain.
fn kinds(found: &Value) -> Vec<&str> {
    found["chain"].as_array().unwrap().iter().map(|link| link["kind"].as_str().unwrap()).collect()
}

#[test]
fn an_object_that_is_not_there_leads_to_the_call_that_makes_it() {
    let watched = session(2);
    let gate = Gate::closed();
    let running = runs_while::remote(gate.path());
    // Another process gets the result before it is there, so it is an object that is promised.
    let keeper = Keeper::remote();
    keeper.keep(vec![running.clone()]).get().unwrap();
    let promised = watched.ask(&["list", "objects", "--state", "promised"])["objects"][0]["object"].clone();
    let found = why(&watched, promised.as_str().unwrap(), "computes");
    assert_eq!(kinds(&found), ["object", "task", "process"], "{found}");
    assert!(found["text"].as_str().unwrap().contains("why::runs_while"), "{found}");
    // An object that is there waits for nothing, and its owner is named.
    let kept = mobula::put(&vec![1_u8; 100_000]).unwrap();
    let all = watched.ask(&["list", "objects", "--state", "sealed"]);
    let all = all["objects"].as_array().unwrap();
    let sealed =
        all.iter().find(|object| object["bytes"].as_u64().unwrap() >= 100_000).unwrap()["object"].clone();
    let found = watched.ask(&["why", sealed.as_str().unwrap()]);
    assert_eq!(kinds(&found)[..2], ["object", "process"], "{found}");
    assert_eq!(found["chain"][1]["id"], *std::process::id().to_string(), "{found}");
    drop((gate, kept));
    assert_eq!(running.get().unwrap(), 1);
}

#[test]
fn a_full_store_is_the_end_of_the_chain() {
    let watched = session(1);
    // The bytes are in use, so that they cannot be spilled.
    let in_use: Vec<Bytes> =
        (0..14).map(|_| mobula::put(&Bytes::from(vec![1_u8; 4 * MIB])).unwrap().get().unwrap()).collect();
    let waiting = makes::remote(32 * MIB);
    let mut pid = Value::Null;
    eventually("it runs", || {
        pid = watched.ask(&["list", "workers", "--function", "*makes"])["workers"][0]["pid"].clone();
        !pid.is_null()
    });
    let found = why(&watched, &pid.to_string(), "memory");
    let text = found["text"].as_str().unwrap();
    assert!(text.contains(&format!("driver {}", std::process::id())), "the holder is named: {text}");
    drop(in_use);
    assert_eq!(waiting.get().unwrap(), 32 * MIB);
}

#[test]
fn a_disk_is_the_end_of_the_chain() {
    let directory = tempfile::Builder::new().prefix("mobula-spill-test-").tempdir_in("/var/tmp").unwrap();
    let watched = with(Some("all"), |builder| {
        builder.workers(1).capacity_bytes(64 << 20).spill_directory(directory.path())
    });
    let keeper = Keeper::remote();
    let (owner, made) = keeper.make(10).get().unwrap();
    let _more: Vec<ObjectRef<Bytes>> =
        (0..12).map(|_| mobula::put(&Bytes::from(vec![2_u8; 4 * MIB])).unwrap()).collect();
    let mut spilled = String::new();
    eventually("an object of the actor is spilled", || {
        let all =
            watched.ask(&["list", "objects", "--state", "spilled", "--where", &format!("owner_pid={owner}")]);
        let object = all["objects"][0]["object"].as_str();
        object.inspect(|object| spilled = (*object).to_owned()).is_some()
    });
    // The owner has to restore it, and cannot.
    let owner = Pid::from_raw(owner as i32);
    kill(owner, Signal::SIGSTOP).unwrap();
    let getting: Vec<_> = made
        .into_iter()
        .map(|made| std::thread::spawn(move || made.get().map(|bytes| bytes.len())))
        .collect();
    let found = why(&watched, &std::process::id().to_string(), "disk");
    assert!(found["text"].as_str().unwrap().contains("restored"), "{found}");
    kill(owner, Signal::SIGCONT).unwrap();
    for getting in getting {
        assert_eq!(getting.join().unwrap().unwrap(), 4 * MIB);
    }
}

/// A process waits for a permit that another one has.
fn a_lock_leads_to(watched: &Watched, last: &[&str]) {
    let gate = Gate::closed();
    let semaphore = Semaphore::new(1);
    let holding = locks::remote(semaphore.clone(), gate.path());
    eventually("it has the permit", || semaphore.available_permits().unwrap() == 0);
    let waiting = locks::remote(semaphore, gate.path());
    let mut found = Value::Null;
    eventually("one of the two waits for the lock", || {
        let workers = watched.ask(&["list", "workers", "--function", "*locks"]);
        let all = workers["workers"].as_array().unwrap();
        all.iter().any(|worker| {
            found = watched.ask(&["why", &worker["pid"].to_string()]);
            found["end"] == "lock"
        })
    });
    assert!(last.contains(kinds(&found).last().unwrap()), "{found}");
    assert!(found["text"].as_str().unwrap().contains("is not recorded"), "{found}");
    drop(gate);
    holding.get().unwrap();
    waiting.get().unwrap();
}

#[test]
fn a_lock_says_that_its_holder_is_not_known() {
    a_lock_leads_to(&session(3), &["task"]);
    // Without the events of calls, it depends on the moment whether the caller knows the actor or its process.
    a_lock_leads_to(&session_with(3, None), &["actor", "process"]);
}
