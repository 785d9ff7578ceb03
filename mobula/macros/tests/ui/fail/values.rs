//! Arguments and results that serde cannot write or read: one error for each, at the type.

use serde::{Deserialize, Serialize};

struct Neither;

#[derive(Serialize)]
struct OnlyWritten;

#[derive(Deserialize)]
struct OnlyRead;

#[mobula::remote]
fn takes_neither(x: Neither) {
    drop(x);
}

#[mobula::remote]
fn takes_written(x: u8, y: OnlyWritten) {
    drop((x, y));
}

#[mobula::remote]
fn takes_read(x: OnlyRead) -> u8 {
    drop(x);
    1
}

#[mobula::remote]
fn takes_nested(x: Vec<(u8, Neither)>) {
    drop(x);
}

#[mobula::remote]
fn returns_neither() -> Neither {
    Neither
}

#[mobula::remote]
fn returns_written() -> OnlyWritten {
    OnlyWritten
}

#[mobula::remote]
fn returns_read() -> Result<OnlyRead, String> {
    Ok(OnlyRead)
}

#[mobula::remote]
fn returns_list() -> Vec<Neither> {
    vec![]
}

#[mobula::remote(num_returns = 2)]
fn returns_tuple() -> (u8, Neither) {
    (1, Neither)
}

struct Silent;

#[mobula::remote]
fn fails_silently() -> Result<u8, Silent> {
    Err(Silent)
}

struct Actor;

#[mobula::remote]
impl Actor {
    fn new(x: Neither) -> Self {
        drop(x);
        Actor
    }

    fn takes(&self, x: Neither) {
        drop(x);
    }

    fn returns(&self) -> Neither {
        Neither
    }
}

struct NotNew;

#[mobula::remote]
impl NotNew {
    fn new() -> Result<Self, Silent> {
        Ok(NotNew)
    }
}

fn main() {}
