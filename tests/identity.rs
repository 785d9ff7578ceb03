//! The identity of references and handles. If these fail, a program that keeps references in a set or a map, or that
//! compares returned references with those it sent, takes one object for another.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{RefUnwindSafe, UnwindSafe};

use mobula::prelude::*;
use mobula::{ActorOptions, RefId};
use mobula_tests::session;

type Reference = ObjectRef<Vec<u8>>;

/// Answers when `gate` is there.
#[mobula::remote]
fn bytes(length: usize, gate: u8) -> Result<Vec<u8>, String> {
    if gate == 1 { Ok(vec![7; length]) } else { Err("no bytes".to_owned()) }
}

#[mobula::remote]
fn gate(value: u8) -> u8 {
    value
}

/// The same references in another order, and what this process makes of them.
#[mobula::remote]
fn reversed(references: Vec<Reference>) -> (Vec<Reference>, Vec<u64>, Vec<RefId>) {
    let (hashes, ids) = seen(&references);
    (references.into_iter().rev().collect(), hashes, ids)
}

/// By way of a third process.
#[mobula::remote]
fn passed_on(references: Vec<Reference>) -> mobula::Result<(Vec<Reference>, Vec<u64>, Vec<RefId>)> {
    reversed::remote(references).get()
}

/// References that another process has made.
#[mobula::remote]
fn made(count: usize) -> mobula::Result<Vec<Reference>> {
    let mut made: Vec<_> = (0..count).map(|length| bytes::remote(length, 1)).collect();
    made.push(mobula::put(&vec![1])?);
    Ok(made)
}

fn seen<T>(references: &[ObjectRef<T>]) -> (Vec<u64>, Vec<RefId>) {
    let hashes = references.iter().map(hash);
    (hashes.collect(), references.iter().map(ObjectRef::id).collect())
}

fn hash<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

struct Keeper {
    kept: Option<Reference>,
}

#[mobula::remote]
impl Keeper {
    fn new() -> Self {
        Keeper { kept: None }
    }

    fn keep(&mut self, reference: Reference) {
        self.kept = Some(reference);
    }

    fn kept(&self) -> Option<Reference> {
        self.kept.clone()
    }

    fn is_kept(&self, reference: Reference) -> bool {
        self.kept == Some(reference)
    }

    fn same(&self, handle: ActorHandle<Keeper>) -> ActorHandle<Keeper> {
        handle
    }

    fn die(&self) {
        std::process::abort();
    }
}

#[test]
fn a_reference_is_equal_to_its_clones_in_every_process() {
    let _session = session(3);
    let (open, shut) = (gate::remote(1), gate::remote(0));
    mobula::get([&open, &shut]).unwrap();
    let references: Vec<Reference> = vec![
        mobula::put(&vec![1, 2]).unwrap(),
        mobula::put(&vec![1, 2]).unwrap(),
        mobula::put(&vec![3; 100_000]).unwrap(),
        // Inline, and in the worker's memory.
        bytes::remote(3, &open),
        bytes::remote(3, &open),
        bytes::remote(100_000, &open),
        bytes::remote(3, &shut),
    ];
    let check = |references: &[Reference]| {
        let (hashes, ids) = seen(references);
        assert_eq!(references.iter().collect::<HashSet<_>>().len(), references.len(), "{references:?}");
        assert_eq!(
            ids.iter().map(RefId::to_string).collect::<HashSet<_>>().len(),
            references.len(),
            "{ids:?}"
        );
        let clones = references.to_vec();
        assert_eq!(seen(&clones), (hashes.clone(), ids.clone()));
        for way in [reversed::remote, passed_on::remote] as [fn(Vec<Reference>) -> _; 2] {
            let (mut back, their_hashes, their_ids) = way(references.to_vec()).get().unwrap();
            back.reverse();
            assert_eq!(back, references);
            assert_eq!((their_hashes, their_ids), (hashes.clone(), ids.clone()));
            assert_eq!(seen(&back), (hashes.clone(), ids.clone()));
        }
        let within = mobula::put(&references.to_vec()).unwrap().get().unwrap();
        assert_eq!(within, references);
    };
    // Some are not there yet: they travel as promises, and afterwards as objects.
    check(&references);
    assert!(references[6].get().unwrap_err().to_string().contains("no bytes"));
    mobula::get(&references[..6]).unwrap();
    check(&references);
    check(&made::remote(5).get().unwrap());

    // References to one object, but not one reference.
    let ready = bytes::remote(100_000, 1);
    let again = mobula::put(&ready).unwrap().get().unwrap();
    assert_eq!(ready, again);
    assert_ne!(ready, bytes::remote(100_000, 1));

    let keeper = Keeper::remote();
    for reference in &references {
        keeper.keep(reference.clone());
        assert_eq!(keeper.kept().get().unwrap().as_ref(), Some(reference));
        assert!(keeper.is_kept(reference.clone()).get().unwrap());
    }
    assert!(!keeper.is_kept(references[0].clone()).get().unwrap());
}

#[test]
fn processes_do_not_make_equal_references() {
    let _session = session(2);
    let theirs = (0..20).flat_map(|_| made::remote(10).get().unwrap());
    let all: Vec<_> = theirs.chain((0..200).map(|length| bytes::remote(length, 1))).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn a_handle_is_equal_to_all_others_of_its_actor() {
    let _session = session(1);
    let options = || ActorOptions::new().max_restarts(1);
    let one = Keeper::options(options().name("keeper")).remote();
    let other = Keeper::options(options()).remote();
    let found = mobula::get_actor::<Keeper>("keeper").unwrap();
    let back = other.same(one.clone()).get().unwrap();
    for same in [&one.clone(), &found, &back] {
        assert_eq!(*same, one);
        assert_eq!(hash(same), hash(&one));
        assert_ne!(*same, other);
    }
    one.die().get().unwrap_err();
    assert_eq!(one.same(found.clone()).get().unwrap(), one);
    // An actor that could not be made is the same as itself.
    let taken = Keeper::options(options().name("keeper")).remote();
    assert_eq!(taken.clone(), taken);
    assert_eq!(hash(&taken.clone()), hash(&taken));
    assert_ne!(taken, one);
}

#[test]
fn a_panic_can_be_caught_around_everything() {
    fn check<T: UnwindSafe + RefUnwindSafe>() {}
    check::<ObjectRef<std::cell::Cell<u8>>>();
    check::<ActorHandle<Keeper>>();
    check::<mobula::Session>();
    check::<Bytes>();
    check::<Tensor<f64>>();
    check::<mobula_client::Client>();
    check::<mobula_client::Handle>();
    check::<mobula_client::Object>();
    check::<mobula_client::ObjectWriter>();
    check::<mobula_client::Promise>();

    let _session = session(1);
    let (reference, keeper) = (bytes::remote(3, 1), Keeper::remote());
    let caught = std::panic::catch_unwind(|| {
        reference.get().unwrap();
        keeper.keep(reference.clone());
        std::panic::resume_unwind(Box::new(()));
    });
    caught.unwrap_err();
    assert_eq!(keeper.kept().get().unwrap(), Some(reference));
}
