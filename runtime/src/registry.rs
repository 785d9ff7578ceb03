//! What this program can do remotely: the functions and actor classes that the macros registered at link time.
//!
//! Functions go over the wire as a hash of their name. That is safe because driver and workers are one program: a
//! worker proves with [`fingerprint`] that it is the same build before it serves.

use std::any::Any;
use std::collections::HashMap;
use std::sync::OnceLock;

use crate::arguments::{Arguments, Outcome};
use crate::error::Failure;

/// All remote functions of the program.
#[linkme::distributed_slice]
pub static FUNCTIONS: [Function];

/// All actor classes of the program.
#[linkme::distributed_slice]
pub static CLASSES: [Class];

/// Identifies a function or a class within one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct Key(u64);

impl Key {
    /// FNV-1a (Fowler, Noll, Vo) of the name.
    const fn of(name: &str) -> Self {
        let (bytes, mut hash, mut i) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325u64, 0);
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
            i += 1;
        }
        Self(hash)
    }
}

/// A registered remote function.
#[derive(Debug)]
pub struct Function {
    pub(crate) name: &'static str,
    pub(crate) key: Key,
    pub(crate) call: fn(&mut Arguments) -> Outcome,
}

impl Function {
    /// Made by the macro.
    pub const fn new(name: &'static str, call: fn(&mut Arguments) -> Outcome) -> Self {
        Self { name, key: Key::of(name), call }
    }
}

/// What a constructor gives: the actor's state.
pub type Construction = Result<Box<dyn Any>, Failure>;

/// A registered actor class.
#[derive(Debug)]
pub struct Class {
    pub(crate) name: &'static str,
    pub(crate) key: Key,
    pub(crate) construct: fn(&mut Arguments) -> Construction,
    pub(crate) methods: &'static [Method],
}

impl Class {
    /// Made by the macro.
    pub const fn new(
        name: &'static str,
        construct: fn(&mut Arguments) -> Construction,
        methods: &'static [Method],
    ) -> Self {
        Self { name, key: Key::of(name), construct, methods }
    }
}

/// A method of an actor class.
#[derive(Debug)]
pub struct Method {
    pub(crate) name: &'static str,
    pub(crate) call: fn(&mut dyn Any, &mut Arguments) -> Outcome,
}

impl Method {
    /// Made by the macro.
    pub const fn new(name: &'static str, call: fn(&mut dyn Any, &mut Arguments) -> Outcome) -> Self {
        Self { name, call }
    }
}

struct Registry {
    functions: HashMap<Key, &'static Function>,
    classes: HashMap<Key, &'static Class>,
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| Registry {
        functions: FUNCTIONS.iter().map(|function| (function.key, function)).collect(),
        classes: CLASSES.iter().map(|class| (class.key, class)).collect(),
    })
}

pub(crate) fn function(key: Key) -> Option<&'static Function> {
    registry().functions.get(&key).copied()
}

pub(crate) fn class(key: Key) -> Option<&'static Class> {
    registry().classes.get(&key).copied()
}

/// Two functions (or classes) that cannot be told apart, if there are any.
pub(crate) fn ambiguous() -> Option<(&'static str, &'static str)> {
    let mut seen = HashMap::new();
    let functions = FUNCTIONS.iter().map(|function| (function.key, function.name));
    let classes = CLASSES.iter().map(|class| (class.key, class.name));
    functions.chain(classes).find_map(|(key, name)| seen.insert(key, name).map(|other| (other, name)))
}

/// A number that two builds of a program (practically) never share: made from every registered name, and from where
/// the linker placed each function relative to this one.
///
/// Any change of code moves what lies behind it, and relative places do not depend on where the program was loaded.
pub(crate) fn fingerprint() -> u64 {
    let anchor = fingerprint as *const () as usize;
    let mut hash = Key::of(concat!(env!("CARGO_PKG_VERSION"), "/", module_path!())).0;
    let mut mix = |value: u64| hash = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    for function in FUNCTIONS {
        mix(function.key.0);
        mix((function.call as *const () as usize).wrapping_sub(anchor) as u64);
    }
    for class in CLASSES {
        mix(class.key.0);
        mix((class.construct as *const () as usize).wrapping_sub(anchor) as u64);
        for method in class.methods {
            mix((method.call as *const () as usize).wrapping_sub(anchor) as u64);
        }
    }
    hash
}
