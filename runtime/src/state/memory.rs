//! The processes that hold the objects of a store. They explain why a store is full.
//!
//! The pins of a process show which objects it holds. They do not show whether a handle is in a variable, in an
//! argument of a waiting call, or in the state of an actor. The report derives this from the process: it is an actor,
//! runs a call, or has calls that wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mobula_client::internal::recorder::Queue;
use mobula_client::{ClientError, HolderInfo, ObjectId};
use serde::Serialize;

use super::objects::ObjectState;
use super::snapshot::{Observer, Process, Snapshot};

/// The memory of a store's objects, and their holders.
///
/// ```
/// let _mobula = mobula::init()?;
/// let kept = [mobula::put(&vec![1_u8; 100_000])?, mobula::put(&vec![2_u8; 200_000])?];
/// let report = mobula::state::memory()?;
/// assert_eq!(report.objects, kept.len() as u64);
/// assert_eq!(report.bytes, report.held.iter().map(|held| held.object.bytes).sum::<u64>());
/// assert!(report.held[0].object.bytes > report.held[1].object.bytes);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct MemoryReport {
    /// The number of objects. Objects that stand for actors do not count. A buffer that only one other object holds
    /// counts as a part of that object, as in a large value with its bytes.
    pub objects: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The objects, the largest first.
    pub held: Vec<HeldObject>,
    /// The objects grouped by their holders, the most bytes first.
    pub groups: Vec<MemoryGroup>,
    /// The objects grouped by the place that made them, the most bytes first; empty unless programs were started with
    /// `MOBULA_CALL_SITES=1`.
    pub sites: Vec<SiteGroup>,
    /// Circles of objects that keep each other alive, and have no other visible holder.
    pub circles: Vec<Circle>,
}

/// An object and its holders.
///
/// ```
/// let _mobula = mobula::init()?;
/// let _kept = mobula::put(&vec![0_u8; 100_000])?;
/// for held in mobula::state::memory()?.held {
///     let holders: Vec<u32> = held.holds.iter().map(|hold| hold.pid).collect();
///     println!("{} has {} bytes, held by {holders:?}", held.object.object, held.object.bytes);
///     assert_eq!(holders, [std::process::id()]);
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct HeldObject {
    /// The object.
    #[serde(flatten)]
    pub object: ObjectState,
    /// Its holders.
    pub holds: Vec<Hold>,
}

/// A holder of an object.
///
/// ```
/// let session = mobula::init()?;
/// let object = session.client().put(b"blue")?;
/// session.client().publish("colour", object.id())?;
/// let held = &mobula::state::memory()?.held[0];
/// let name = held.holds.iter().find(|hold| hold.kind == "name").and_then(|hold| hold.by.as_deref());
/// assert_eq!(name, Some("colour"));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Hold {
    /// `name`; `object`: another object has a reference to it; `bytes_in_use`: a process uses its bytes, for example by
    /// an array. The other kinds are handles: `actor_state`, of an actor; `running_call`, of a process that runs a
    /// call; `pending_argument`, of a process with waiting calls, one of which may have the object as an argument;
    /// `handle`, of any other process.
    pub kind: &'static str,
    /// The process; 0 for names, and for the objects of processes that have ended.
    pub pid: u32,
    /// The name, the object, the actor or the function.
    pub by: Option<String>,
}

/// Objects with the same holder and the same kind of hold.
///
/// ```
/// let _mobula = mobula::init()?;
/// let kept: Vec<_> = (0..3).map(|_| mobula::put(&vec![0_u8; 100_000])).collect::<Result<_, _>>()?;
/// let group = &mobula::state::memory()?.groups[0];
/// assert_eq!((group.kind, group.objects), ("handle", 3));
/// // No other process holds any of them: all would be free if this one dropped its handles.
/// assert_eq!(group.alone_bytes, group.bytes);
/// # drop(kept);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct MemoryGroup {
    /// The kind of the [`Hold`].
    pub kind: &'static str,
    /// The process.
    pub pid: u32,
    /// The function, the actor's class, or the command of a driver.
    pub holder: String,
    /// The number of objects.
    pub objects: u64,
    /// Bytes of their payloads. An object with several holders counts for each.
    pub bytes: u64,
    /// Bytes of the objects without another holder: they would be free without this one.
    pub alone_bytes: u64,
}

/// Objects that were made at the same place.
///
/// In a program that was started with `MOBULA_CALL_SITES=1`:
/// ```
/// # // SAFETY: no other thread reads the environment yet.
/// # unsafe { std::env::set_var("MOBULA_CALL_SITES", "1") };
/// let _mobula = mobula::init()?;
/// let kept: Vec<_> = (0..3).map(|_| mobula::put(&vec![0_u8; 100_000])).collect::<Result<_, _>>()?;
/// let site = &mobula::state::memory()?.sites[0];
/// println!("{} made {} objects, the oldest {} s ago", site.made_at, site.objects, site.oldest_s);
/// assert!(site.objects == 3 && site.bytes >= 300_000);
/// # drop(kept);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct SiteGroup {
    /// The line that put them, or the function that returned them.
    pub made_at: String,
    /// The number of objects.
    pub objects: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The age of the oldest, in seconds.
    pub oldest_s: f64,
}

/// Objects that keep each other alive.
///
/// ```
/// let _mobula = mobula::init()?;
/// let _kept = mobula::put(&"refers to nothing")?;
/// let report = mobula::state::memory()?;
/// for circle in &report.circles {
///     println!("{} bytes are not free because of {:?}", circle.bytes, circle.objects);
/// }
/// assert!(report.circles.is_empty());
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Circle {
    /// The ids of the objects.
    pub objects: Vec<String>,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The processes that made them. Handles in these processes are not visible to others.
    pub pids: Vec<u32>,
}

impl Snapshot {
    /// The objects of the store with their holders. One round trip to the store for each thousand objects.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let observer = mobula::state::Observer::here()?;
    /// let _kept = mobula::put(&vec![0_u8; 100_000])?;
    /// let report = observer.look()?.memory(&observer)?;
    /// assert!(report.objects == 1 && report.bytes >= 100_000);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn memory(&self, observer: &Observer) -> Result<MemoryReport, ClientError> {
        let objects = self.objects_by_id(observer)?;
        let (holders, references) = observer.client().holders()?;
        let mut keeps: HashMap<ObjectId, Vec<ObjectId>> = HashMap::new();
        for reference in &references {
            keeps.entry(reference.refers_to).or_default().push(reference.object);
        }
        let mut holds: HashMap<ObjectId, BTreeSet<Hold>> = HashMap::new();
        for info in &holders {
            let outer = keeps.get(&info.object).map_or(&[][..], Vec::as_slice);
            holds.entry(info.object).or_default().extend(self.hold(info, outer));
        }
        let mut report = MemoryReport::default();
        let mut groups: BTreeMap<(&'static str, u32, String), MemoryGroup> = BTreeMap::new();
        let mut sites: BTreeMap<String, SiteGroup> = BTreeMap::new();
        let held = objects
            .into_iter()
            .filter(|(id, _)| !self.process(id.owner().bits()).is_some_and(Process::is_head));
        let held = held.map(|(id, object)| {
            let mut holds = holds.remove(&id).unwrap_or_default();
            let names = object.names.iter();
            holds.extend(names.map(|name| Hold { kind: "name", pid: 0, by: Some(name.clone()) }));
            HeldObject { object, holds: holds.into_iter().collect() }
        });
        let held = without_parts(held.collect());
        let by_id: HashMap<&str, &[Hold]> =
            held.iter().map(|held| (held.object.object.as_str(), held.holds.as_slice())).collect();
        for HeldObject { object, holds } in &held {
            if let Some(made_at) = &object.made_at {
                let site = sites.entry(made_at.clone()).or_default();
                site.objects += 1;
                site.bytes = site.bytes.saturating_add(object.bytes);
                site.oldest_s = site.oldest_s.max(object.age_s.unwrap_or(0.0));
            }
            report.objects += 1;
            report.bytes = report.bytes.saturating_add(object.bytes);
            let holds = outermost(holds, &by_id);
            for hold in &holds {
                let key = self.group_of(hold);
                let group = groups.entry(key).or_insert_with_key(|&(kind, pid, ref holder)| MemoryGroup {
                    kind,
                    pid,
                    holder: holder.clone(),
                    objects: 0,
                    bytes: 0,
                    alone_bytes: 0,
                });
                group.objects += 1;
                group.bytes = group.bytes.saturating_add(object.bytes);
                if holds.len() == 1 {
                    group.alone_bytes = group.alone_bytes.saturating_add(object.bytes);
                }
            }
        }
        report.held = held;
        report.held.sort_by_key(|held| std::cmp::Reverse(held.object.bytes));
        report.groups = groups.into_values().collect();
        report.groups.sort_by_key(|group| std::cmp::Reverse((group.alone_bytes, group.bytes)));
        report.sites = sites.into_iter().map(|(made_at, site)| SiteGroup { made_at, ..site }).collect();
        report.sites.sort_by_key(|site| std::cmp::Reverse(site.bytes));
        report.circles = self.circles(&report.held, &references);
        Ok(report)
    }

    /// The hold of a client on an object that these other objects refer to.
    fn hold(&self, info: &HolderInfo, outer: &[ObjectId]) -> Vec<Hold> {
        let owner = info.client.bits();
        let pid = self.pid_of(owner);
        if info.mapped {
            let by = self.process(owner).and_then(|process| self.holder_name(process).1);
            return vec![Hold { kind: "bytes_in_use", pid, by }];
        }
        // A reference inside an object is a pin of the object's owner, or of the store once the owner has died.
        let captured: Vec<Hold> = outer
            .iter()
            .filter(|outer| outer.owner() == info.client)
            .map(|outer| Hold { kind: "object", pid, by: Some(outer.to_string()) })
            .collect();
        if !captured.is_empty() {
            return captured;
        }
        let (kind, by) = match self.process(owner) {
            Some(process) => self.holder_name(process),
            None => ("handle", None),
        };
        vec![Hold { kind, pid, by }]
    }

    /// The likely kind of a handle in a process, and the actor or function that has it.
    fn holder_name(&self, process: &Process) -> (&'static str, Option<String>) {
        let mut known = self.head.iter().flat_map(|head| &head.processes);
        let known = known.find(|known| known.owner == Some(process.owner.bits()));
        if let Some(actor) = known.and_then(|known| known.actor) {
            let mut actors = self.head.iter().flat_map(|head| &head.actors);
            let class = actors.find(|its| its.actor == actor).map_or("?", |its| its.class.as_str());
            return ("actor_state", Some(format!("actor:{actor} {class}")));
        }
        let waiting = process.queue(Queue::ForWorker).saturating_add(process.queue(Queue::ForArguments));
        match process.run.filter(|_| !process.dead) {
            Some(run) => ("running_call", Some(process.name(run.name).to_owned())),
            None if waiting > 0 => ("pending_argument", None),
            None => ("handle", None),
        }
    }

    fn group_of(&self, hold: &Hold) -> (&'static str, u32, String) {
        let holder = match (hold.kind, &hold.by) {
            // Each name and each object would be a group of its own.
            ("name" | "object", _) | (_, None) => {
                let process = self.process_of_pid(hold.pid);
                process.map_or_else(String::new, |process| process.label.clone())
            }
            (_, Some(by)) => by.clone(),
        };
        (hold.kind, hold.pid, holder)
    }

    /// The reference cycles of objects that have no visible holder outside the cycle.
    fn circles(&self, held: &[HeldObject], references: &[mobula_client::ReferenceInfo]) -> Vec<Circle> {
        let mut refers: HashMap<String, Vec<String>> = HashMap::new();
        for reference in references {
            let (from, to) = (reference.object.to_string(), reference.refers_to.to_string());
            refers.entry(from).or_default().push(to);
        }
        let by_id: HashMap<&str, &HeldObject> =
            held.iter().map(|held| (held.object.object.as_str(), held)).collect();
        let mut circles = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        for start in refers.keys() {
            if seen.contains(start.as_str()) {
                continue;
            }
            let Some(circle) = circle_from(start, &refers) else { continue };
            let members: Vec<&HeldObject> =
                circle.iter().filter_map(|id| by_id.get(id.as_str()).copied()).collect();
            seen.extend(members.iter().map(|held| held.object.object.as_str()));
            let is_within =
                |hold: &Hold| hold.kind == "object" && hold.by.as_ref().is_some_and(|by| circle.contains(by));
            if members.len() == circle.len() && members.iter().all(|held| held.holds.iter().all(is_within)) {
                let mut pids: Vec<u32> = members.iter().map(|held| held.object.owner_pid).collect();
                pids.sort_unstable();
                pids.dedup();
                let bytes = members.iter().fold(0, |sum: u64, held| sum.saturating_add(held.object.bytes));
                let mut objects: Vec<String> = circle.into_iter().collect();
                objects.sort();
                circles.push(Circle { objects, bytes, pids });
            }
        }
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.bytes));
        circles
    }
}

/// Counts each buffer that only one other object holds as a part of that object.
fn without_parts(held: Vec<HeldObject>) -> Vec<HeldObject> {
    let ids: HashSet<String> = held.iter().map(|held| held.object.object.clone()).collect();
    let outer_of = |held: &HeldObject| match held.holds.as_slice() {
        [Hold { kind: "object", by: Some(outer), .. }] if held.object.format == "raw" => {
            ids.get(outer).filter(|outer| **outer != held.object.object).cloned()
        }
        _ => None,
    };
    let mut whole = Vec::new();
    let mut parts: HashMap<String, (u64, bool)> = HashMap::new();
    for held in held {
        let Some(outer) = outer_of(&held) else {
            whole.push(held);
            continue;
        };
        let (bytes, is_spilled) = parts.entry(outer).or_default();
        *bytes = bytes.saturating_add(held.object.bytes);
        *is_spilled |= held.object.state == "spilled";
    }
    for HeldObject { object, .. } in &mut whole {
        if let Some((bytes, is_spilled)) = parts.get(&object.object) {
            object.bytes = object.bytes.saturating_add(*bytes);
            object.state = if *is_spilled { "spilled" } else { object.state };
        }
    }
    whole
}

/// The last holders of an object: each object that refers to it is replaced by the holders of that object. If only a
/// cycle of objects holds it, these objects stay its holders.
fn outermost(holds: &[Hold], by_id: &HashMap<&str, &[Hold]>) -> BTreeSet<Hold> {
    let mut found = BTreeSet::new();
    let mut seen: HashSet<&str> = HashSet::new();
    let mut next: Vec<&Hold> = holds.iter().collect();
    while let Some(hold) = next.pop() {
        match (hold.kind, &hold.by) {
            ("object", Some(outer)) => match by_id.get(outer.as_str()) {
                Some(outer_holds) if seen.insert(outer) => next.extend(outer_holds.iter()),
                Some(_) => {}
                None => _ = found.insert(hold.clone()),
            },
            _ => _ = found.insert(hold.clone()),
        }
    }
    if found.is_empty() { holds.iter().cloned().collect() } else { found }
}

/// All objects on cycles through this one: those that it refers to, directly or not, and that refer back to it.
fn circle_from(start: &str, refers: &HashMap<String, Vec<String>>) -> Option<BTreeSet<String>> {
    /// The most objects that are followed.
    const STEPS_MAX: usize = 100_000;
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut back: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut next = vec![start];
    while let Some(object) = next.pop() {
        for inner in refers.get(object).into_iter().flatten() {
            back.entry(inner).or_default().push(object);
            if reached.len() < STEPS_MAX && reached.insert(inner.clone()) {
                next.push(inner);
            }
        }
    }
    if !reached.contains(start) {
        return None;
    }
    let mut circle = BTreeSet::from([start.to_owned()]);
    let mut next = vec![start];
    while let Some(object) = next.pop() {
        for outer in back.get(object).into_iter().flatten() {
            if circle.insert((*outer).to_owned()) {
                next.push(outer);
            }
        }
    }
    Some(circle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_all_that_leads_back() {
        let edges = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a"), ("f", "f")];
        let mut refers: HashMap<String, Vec<String>> = HashMap::new();
        for (from, to) in edges {
            refers.entry(from.to_owned()).or_default().push(to.to_owned());
        }
        let circle = |start| circle_from(start, &refers).map(|found| found.into_iter().collect::<String>());
        assert_eq!(circle("a").as_deref(), Some("abc"));
        assert_eq!(circle("c").as_deref(), Some("abc"));
        assert_eq!(circle("f").as_deref(), Some("f"));
        assert_eq!((circle("d"), circle("e")), (None, None));
    }
}
