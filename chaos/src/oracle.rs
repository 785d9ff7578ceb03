//! The accounting oracle: it compares the store's own figures with the objects that clients hold and with the kernel's
//! figures.
//!
//! [`disagreements`] compares two accounts and knows nothing of their origin. The supervisor asks for them at a quiet
//! point, again and again, until they agree or its patience ends: memory that is freed in the background takes a
//! moment.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mobula_client::{Client, ClientError, NameInfo, ObjectId, ObjectInfo, OwnerId, Stats};

use crate::Violation;
use crate::content::is_content_of;
use crate::message::{Held, Ledger};

/// The accounts of the store and of the kernel.
pub(crate) struct Seen {
    pub(crate) stats: Stats,
    pub(crate) objects: Vec<ObjectInfo>,
    pub(crate) names: Vec<NameInfo>,
    /// Memories that the daemon has open, by kind.
    pub(crate) daemon_memories: BTreeMap<String, usize>,
    /// Files with spilled objects that the daemon has open.
    pub(crate) daemon_spill_files: usize,
    /// Segments that each client has mapped for writing.
    pub(crate) written_segments: HashMap<OwnerId, usize>,
}

/// The accounts as they must be.
pub(crate) struct Known {
    /// The client that asks, which holds nothing.
    pub(crate) asker: OwnerId,
    pub(crate) living: Vec<(OwnerId, Ledger)>,
    /// Every sealed or promised object that a client, another object or a name keeps.
    pub(crate) alive: HashSet<ObjectId>,
    /// Owners that have scribbled: any figure of theirs may be wrong.
    pub(crate) suspects: HashSet<OwnerId>,
    /// Owners that have died at the same time as the daemon: of theirs something may be lost.
    pub(crate) bereft: HashSet<OwnerId>,
}

/// The objects that can be reached from held ones and from names: all are read, and must have their bytes.
pub(crate) fn reach(
    client: &Client,
    living: &[(OwnerId, Ledger)],
    names: &[NameInfo],
    suspects: &HashSet<OwnerId>,
    bereft: &HashSet<OwnerId>,
) -> Result<HashSet<ObjectId>, Violation> {
    let (mut alive, mut next) = (HashSet::new(), Vec::new());
    // An object that keeps others alive must not be dropped before they have been read.
    let mut kept = Vec::new();
    for (owner, ledger) in living {
        for (id, held) in &ledger.held {
            match held {
                Held::Sealed => next.push((*id, format!("held by {owner}"))),
                Held::Promised => _ = alive.insert(*id),
                Held::Unsealed | Held::Lost => {}
            }
        }
    }
    next.extend(
        names.iter().map(|name| (name.object, format!("named {}", String::from_utf8_lossy(&name.name)))),
    );
    while let Some((id, why)) = next.pop() {
        if suspects.contains(&id.owner()) || !alive.insert(id) {
            continue;
        }
        match client.get(id) {
            Ok(object) => {
                if !is_content_of(&object, id) {
                    return Err(Violation(format!("wrong bytes: {id}, {why}")));
                }
                next.extend(object.references().into_iter().map(|inner| (inner, format!("kept by {id}"))));
                kept.push(object.handle());
            }
            // A client that has it keeps it, and no other client gets it.
            Err(ClientError::Deleted { .. } | ClientError::NotReady { .. }) => {}
            Err(ClientError::NoSuchObject { .. } | ClientError::Lost { .. } | ClientError::Refused(_))
                if bereft.contains(&id.owner()) =>
            {
                alive.remove(&id);
            }
            // A name of a promise that its living owner has broken.
            Err(ClientError::Lost { .. }) if why.starts_with("named") => _ = alive.remove(&id),
            // A name that was removed since it was listed, to make room.
            Err(ClientError::NoSuchObject { .. })
                if why.starts_with("named") && !client.names()?.iter().any(|name| name.object == id) =>
            {
                alive.remove(&id);
            }
            Err(error) => return Err(Violation(format!("lost: {id}, {why}: {error}"))),
        }
    }
    Ok(alive)
}

/// The disagreements of the two accounts, in words.
pub(crate) fn disagreements(seen: &Seen, known: &Known) -> Vec<String> {
    let mut found = Found::default();
    let totals = &seen.stats.totals;
    let is_suspect = |owner: OwnerId| known.suspects.contains(&owner) || known.bereft.contains(&owner);
    let living: HashSet<OwnerId> = known.living.iter().map(|(owner, _)| *owner).collect();

    // Bytes: each byte of the capacity belongs to a client, or is free.
    let used = totals.leased_bytes + totals.orphaned_bytes + totals.retired_bytes;
    found.equal(
        "leased + orphaned + retired + free",
        used + totals.free_bytes,
        "capacity",
        totals.capacity_bytes,
    );
    let bytes_of = |dead: bool| -> u64 {
        let rows = seen.stats.clients.iter().filter(|client| client.dead == dead);
        rows.map(|client| client.leased_bytes).sum()
    };
    found.equal("leased bytes", totals.leased_bytes, "those of all clients", bytes_of(false));
    found.equal("orphaned bytes", totals.orphaned_bytes, "those of all the dead", bytes_of(true));

    if known.suspects.is_empty() {
        found.equal("retired bytes", totals.retired_bytes, "needed by no client", 0);
    }

    // Clients.
    let rows = |dead: bool| -> BTreeSet<OwnerId> {
        let rows = seen.stats.clients.iter().filter(|client| client.dead == dead);
        rows.map(|client| client.owner).collect()
    };
    let expected: BTreeSet<OwnerId> = living.iter().copied().chain([known.asker]).collect();
    found.equal("clients", rows(false), "those that live", expected.clone());
    found.equal("clients in the totals", totals.clients as usize, "those that live", expected.len());
    let dead = rows(true);
    found.equal("the dead in the totals", totals.dead_clients as usize, "those listed", dead.len());

    // Objects: those that are kept are there, and no others.
    let listed: HashSet<ObjectId> = seen.objects.iter().map(|info| info.object).collect();
    for id in known.alive.difference(&listed).filter(|id| !is_suspect(id.owner())) {
        found.say(format!("object {id} is lost"));
    }
    // An object of a client that has scribbled may refer to anything, and keeps it as long as the object is kept.
    let spoilt = seen.stats.clients.iter().any(|row| is_suspect(row.owner));
    for id in listed.difference(&known.alive).filter(|id| !is_suspect(id.owner()) && !spoilt) {
        let info = seen.objects.iter().find(|info| info.object == *id);
        let row = seen.stats.clients.iter().find(|row| row.owner == id.owner());
        found.say(format!("object {id} is leaked: nothing keeps it: {info:?} of {row:?}"));
    }

    // Pins: exactly the handles of the living.
    let pins: HashMap<OwnerId, HashSet<ObjectId>> =
        known.living.iter().map(|(owner, ledger)| (*owner, pins_of(*owner, ledger, &listed))).collect();
    let mut kept_alive = HashSet::new();
    for row in seen.stats.clients.iter().filter(|row| !row.dead) {
        let Some(pins) = pins.get(&row.owner) else {
            found.equal("pins of the one that asks", row.pins, "none", 0);
            continue;
        };
        kept_alive.extend(pins.iter().map(|id| id.owner()));
        let certain = pins.iter().filter(|id| !is_suspect(id.owner())).count() as u64;
        // Of an owner that has scribbled, entries may be forgotten that others still pin.
        if row.pins < certain || row.pins > pins.len() as u64 {
            found.say(format!("client {} has {} pins, and {} handles", row.owner, row.pins, pins.len()));
        }
    }
    for info in seen.objects.iter().filter(|info| !is_suspect(info.object.owner())) {
        let holders = pins.values().filter(|pins| pins.contains(&info.object)).count();
        found.equal(&format!("holders of {}", info.object), info.holders as usize, "handles", holders);
    }

    // The dead are remembered as long as anything of theirs is kept.
    for owner in dead.iter().filter(|owner| !is_suspect(**owner)) {
        if !kept_alive.contains(owner) && !known.alive.iter().any(|id| id.owner() == *owner) {
            found.say(format!("client {owner} is dead, remembered, and nothing of it is kept"));
        }
    }

    // Memory is only where objects are.
    for row in seen.stats.clients.iter().filter(|row| !is_suspect(row.owner)) {
        let objects = known.alive.iter().filter(|id| id.owner() == row.owner).count();
        let ledger = known.living.iter().find(|(owner, _)| *owner == row.owner).map(|(_, ledger)| ledger);
        let unsealed =
            ledger.map_or(0, |ledger| ledger.held.iter().filter(|(_, held)| *held == Held::Unsealed).count());
        if row.segments as usize > objects + unsealed {
            found.say(format!(
                "client {} has {} segments for {objects} objects and {unsealed} unsealed",
                row.owner, row.segments
            ));
        }
        if let Some(written) = seen.written_segments.get(&row.owner) {
            found.equal(
                &format!("segments of {}", row.owner),
                row.segments as usize,
                "mapped by it",
                *written,
            );
        }
    }

    // Names and channels.
    found.equal("names", totals.names as usize, "those listed", seen.names.len());
    let mut ends: HashMap<u64, usize> = HashMap::new();
    for channel in known.living.iter().flat_map(|(_, ledger)| &ledger.channels) {
        *ends.entry(*channel).or_default() += 1;
    }
    let channels = ends.values().filter(|ends| **ends == 2).count();
    found.equal("channels", totals.channels as usize, "those with both ends", channels);

    // The daemon has as many descriptors open as its accounts explain.
    let open = |kind: &str| seen.daemon_memories.get(kind).copied().unwrap_or(0);
    found.equal("segments", totals.segments as usize, "open in the daemon", open("segment"));
    let owners = expected.len() + dead.len();
    found.equal("owners", owners, "control memories open in the daemon", open("control"));
    found.equal("the daemon's own memory", 1, "open in the daemon", open("directory"));
    found.equal("spill files", totals.spill_files as usize, "open in the daemon", seen.daemon_spill_files);
    found.equal("rings", 0, "open in the daemon", open("ring"));
    found.0
}

/// The pins of a client: on objects that it uses, and on objects that its own used objects keep.
fn pins_of(owner: OwnerId, ledger: &Ledger, listed: &HashSet<ObjectId>) -> HashSet<ObjectId> {
    let used = ledger.held.iter().map(|(id, _)| *id);
    let alive = ledger.references.iter().filter(|(id, _)| id.owner() == owner && listed.contains(id));
    used.chain(alive.flat_map(|(_, kept)| kept.iter().copied())).collect()
}

#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn say(&mut self, what: String) {
        self.0.push(what);
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, value: T, other: &str, expected: T) {
        if value != expected {
            self.say(format!("{what}: {value:?}, but {other}: {expected:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobula_client::{ClientInfo, Totals};

    const ASKER: u16 = 1;
    const HOLDER: u16 = 2;
    const DEAD: u16 = 3;

    fn owner(slot: u16) -> OwnerId {
        OwnerId::new(slot, 7)
    }

    fn object(slot: u16) -> ObjectId {
        ObjectId::new(owner(slot), 5, 1)
    }

    fn row(slot: u16, dead: bool, bytes: u64, objects: u64, pins: u64) -> ClientInfo {
        let mut row = ClientInfo::new(owner(slot));
        row.pid = 1;
        row.dead = dead;
        row.leased_bytes = bytes;
        row.segments = u32::from(bytes > 0);
        row.objects = objects;
        row.object_bytes = 9;
        row.pins = pins;
        row
    }

    /// A client that holds an object of its own, which is named, and one of a dead client's.
    fn agreeing() -> (Seen, Known) {
        let mut totals = Totals::default();
        totals.capacity_bytes = 100;
        totals.leased_bytes = 20;
        totals.orphaned_bytes = 30;
        totals.free_bytes = 50;
        totals.clients = 2;
        totals.dead_clients = 1;
        totals.segments = 2;
        totals.names = 1;
        let clients =
            vec![row(ASKER, false, 0, 0, 0), row(HOLDER, false, 20, 1, 2), row(DEAD, true, 30, 1, 0)];
        let info = |slot| {
            let mut info = ObjectInfo::new(object(slot));
            info.bytes = 9;
            info.holders = 1;
            info.named = slot == HOLDER;
            info
        };
        let seen = Seen {
            stats: Stats::new(totals, clients),
            objects: vec![info(HOLDER), info(DEAD)],
            names: vec![NameInfo::new("name", object(HOLDER))],
            daemon_memories: [("segment", 2), ("control", 3), ("directory", 1)]
                .map(|(kind, count)| (kind.to_owned(), count))
                .into(),
            daemon_spill_files: 0,
            written_segments: HashMap::from([(owner(HOLDER), 1)]),
        };
        let held = vec![(object(HOLDER), Held::Sealed), (object(DEAD), Held::Sealed)];
        let known = Known {
            asker: owner(ASKER),
            living: vec![(owner(HOLDER), Ledger { held, ..Ledger::default() })],
            alive: HashSet::from([object(HOLDER), object(DEAD)]),
            suspects: HashSet::new(),
            bereft: HashSet::new(),
        };
        (seen, known)
    }

    #[test]
    fn accounts_that_agree_are_let_pass() {
        let (seen, known) = agreeing();
        assert_eq!(disagreements(&seen, &known), [] as [&str; 0]);
    }

    #[test]
    fn every_kind_of_loss_and_leak_is_found() {
        let check = |what: &str, spoil: &dyn Fn(&mut Seen, &mut Known)| {
            let (mut seen, mut known) = agreeing();
            spoil(&mut seen, &mut known);
            let found = disagreements(&seen, &known);
            assert!(found.iter().any(|text| text.contains(what)), "{what:?} is not in {found:?}");
        };
        check("capacity", &|seen, _| seen.stats.totals.free_bytes -= 1);
        check("leased bytes", &|seen, _| seen.stats.clients[1].leased_bytes += 1);
        check("retired", &|seen, _| seen.stats.totals.retired_bytes += 1);
        check("is lost", &|seen, _| seen.objects.truncate(1));
        check("is leaked", &|_, known| known.alive.retain(|id| *id != object(HOLDER)));
        check("has 3 pins", &|seen, _| seen.stats.clients[1].pins += 1);
        check("holders", &|seen, _| seen.objects[0].holders = 2);
        check("pins of the one that asks", &|seen, _| seen.stats.clients[0].pins = 1);
        check("clients", &|seen, _| seen.stats.clients[2].dead = false);
        check("nothing of it is kept", &|_, known| {
            known.alive.remove(&object(DEAD));
            known.living[0].1.held.pop();
        });
        check("segments for", &|seen, _| seen.stats.clients[1].segments = 2);
        check("mapped by it", &|seen, _| {
            seen.written_segments.clone_from(&HashMap::from([(owner(HOLDER), 2)]))
        });
        check("names", &|seen, _| seen.names.clear());
        check("channels", &|seen, _| seen.stats.totals.channels = 1);
        check("spill files", &|seen, _| seen.daemon_spill_files = 1);
        for kind in ["segment", "control", "directory", "ring"] {
            check("open in the daemon", &|seen, _| {
                *seen.daemon_memories.entry(kind.to_owned()).or_default() += 1;
            });
        }
    }

    #[test]
    fn what_an_object_keeps_counts_as_a_pin_while_the_object_is_there() {
        let kept = object(DEAD);
        let references = vec![(object(HOLDER), vec![kept])];
        let ledger = Ledger { references, ..Ledger::default() };
        assert_eq!(pins_of(owner(HOLDER), &ledger, &HashSet::new()), HashSet::new());
        let listed = HashSet::from([object(HOLDER)]);
        assert_eq!(pins_of(owner(HOLDER), &ledger, &listed), HashSet::from([kept]));
    }
}
