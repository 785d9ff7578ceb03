//! Objects that keep each other alive are found. If this fails, a person whose store is full of them sees objects that
//! nothing holds, and no reason.

use mobula::ObjectRef;
use mobula_cli_support::eventually;
use mobula_cli_support::watched::session;
use serde::{Deserialize, Serialize};

/// Bytes, and references to others of its kind.
#[derive(Serialize, Deserialize)]
struct Node {
    bytes: Vec<u8>,
    next: Vec<ObjectRef<Node>>,
}

#[derive(Default)]
struct Mailbox(Vec<ObjectRef<Node>>);

#[mobula::remote]
impl Mailbox {
    fn new() -> Self {
        Self::default()
    }

    fn give(&mut self, nodes: Vec<ObjectRef<Node>>) {
        self.0 = nodes;
    }

    fn take(&mut self) -> Vec<ObjectRef<Node>> {
        std::mem::take(&mut self.0)
    }
}

/// A node that refers to the one in the mailbox.
#[mobula::remote]
fn refers(mailbox: mobula::ActorHandle<Mailbox>) -> mobula::Result<Node> {
    loop {
        let next = mailbox.take().get()?;
        if !next.is_empty() {
            return Ok(Node { bytes: vec![1; 100_000], next });
        }
    }
}

#[test]
fn objects_that_hold_each_other_are_unreachable_but_held() {
    let watched = session(1);
    let mailbox = Mailbox::remote();
    // The first refers to the second by a reference that the second's function gets while it runs.
    let second = refers::remote(mailbox.clone());
    let first = mobula::put(&Node { bytes: vec![2; 100_000], next: vec![second.clone()] }).unwrap();
    mailbox.give(vec![first.clone()]).get().unwrap();
    assert_eq!(second.get().unwrap().bytes.len(), 100_000);
    let circles = || watched.ask(&["memory"])["circles"].clone();
    let other = mobula::put(&Node { bytes: vec![3; 100_000], next: Vec::new() }).unwrap();
    drop((first, second));
    let mut found = serde_json::Value::Null;
    eventually("nothing else holds them", || {
        found = circles();
        found[0]["objects"].as_array().is_some_and(|objects| objects.len() == 2)
    });
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    assert!(found[0]["bytes"].as_u64().unwrap() >= 200_000, "{found}");
    let text = watched.text(&["memory"]);
    let pid = std::process::id();
    let expected =
        format!("unreachable but held (unless process {pid}, which made them, has handles): 2 objects of ");
    assert!(text.contains(&expected), "{text}");
    drop(other);
}
