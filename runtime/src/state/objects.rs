//! The objects of a session's store, and the names of objects and actors.

use std::collections::HashMap;

use mobula_client::{ClientError, ObjectId, ObjectInfo};
use serde::Serialize;

use super::snapshot::{Observer, Snapshot};
use crate::format;

/// An object of the store.
///
/// ```
/// let session = mobula::init()?;
/// let _promise = session.client().promise()?;
/// let object = &mobula::state::objects()?[0];
/// assert_eq!((object.state, object.bytes, object.format), ("promised", 0, "-"));
/// assert_eq!(object.owner_pid, std::process::id());
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ObjectState {
    /// Its id.
    pub object: String,
    /// Bytes of its payload; 0 for a promise.
    pub bytes: u64,
    /// The format of its payload, such as `plain`, `tensor`, `arrow`, `python` or `raw`; `-` for a promise.
    pub format: &'static str,
    /// `sealed`, `promised` or `spilled`.
    pub state: &'static str,
    /// The process that made it; 0 if that is not known any more.
    pub owner_pid: u32,
    /// Whether that process has ended, and the store keeps the object for others.
    pub is_orphan: bool,
    /// The number of clients that hold it, its owner included.
    pub holders: u32,
    /// Its names. Invalid UTF-8 becomes `�`.
    pub names: Vec<String>,
    /// Its age in seconds; `None` unless its program was started with `MOBULA_CALL_SITES=1`.
    pub age_s: Option<f64>,
    /// The place that made it, if it is known: the line that put it, or the function that returned it.
    pub made_at: Option<String>,
}

/// A name of an object or of an actor.
///
/// ```
/// let session = mobula::init()?;
/// let object = session.client().put(b"blue")?;
/// session.client().publish("colour", object.id())?;
/// let name = &mobula::state::names()?[0];
/// assert_eq!((name.name.as_str(), name.kind, name.bytes), ("colour", "object", Some(4)));
/// assert_eq!(name.of, object.id().to_string());
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct NameState {
    /// The name. Invalid UTF-8 becomes `�`.
    pub name: String,
    /// The namespace, of an actor.
    pub namespace: Option<String>,
    /// `object` or `actor`.
    pub kind: &'static str,
    /// The object's id, or the actor's class.
    pub of: String,
    /// The state of the object, or of the actor.
    pub state: String,
    /// The object's owner, or the actor's process.
    pub pid: Option<u32>,
    /// Bytes of the object's payload.
    pub bytes: Option<u64>,
}

impl Snapshot {
    /// The objects of the store, the largest first. One round trip to the store for each thousand.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let kept = [mobula::put(&vec![1_u8; 100_000])?, mobula::put(&vec![2_u8; 200_000])?];
    /// let observer = mobula::state::Observer::here()?;
    /// let objects = observer.look()?.objects(&observer)?;
    /// assert!(objects.is_sorted_by(|one, next| one.bytes >= next.bytes));
    /// # drop(kept);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn objects(&self, observer: &Observer) -> Result<Vec<ObjectState>, ClientError> {
        let objects = self.objects_by_id(observer)?;
        let mut objects: Vec<ObjectState> = objects.into_iter().map(|(_, object)| object).collect();
        objects.sort_by_key(|object| std::cmp::Reverse(object.bytes));
        Ok(objects)
    }

    /// The objects of the store with their ids, in no order.
    pub(super) fn objects_by_id(
        &self,
        observer: &Observer,
    ) -> Result<Vec<(ObjectId, ObjectState)>, ClientError> {
        let mut names: HashMap<ObjectId, Vec<String>> = HashMap::new();
        for info in observer.client().names()? {
            let name = String::from_utf8_lossy(&info.name).into_owned();
            names.entry(info.object).or_default().push(name);
        }
        let owners: HashMap<u64, (u32, bool)> =
            self.stats.clients.iter().map(|info| (info.owner.bits(), (info.pid, info.dead))).collect();
        let row = |info: ObjectInfo| {
            let (owner_pid, is_orphan) = owners.get(&info.object.owner().bits()).copied().unwrap_or_default();
            let process = self.process(info.object.owner().bits());
            let origin = process.and_then(|process| process.origin(info.object.index()));
            let object = ObjectState {
                object: info.object.to_string(),
                bytes: info.bytes,
                format: if info.promised { "-" } else { format_name(info.format) },
                state: match (info.promised, info.spilled) {
                    (true, _) => "promised",
                    (false, true) => "spilled",
                    (false, false) => "sealed",
                },
                owner_pid,
                is_orphan,
                holders: info.holders,
                names: names.remove(&info.object).unwrap_or_default(),
                age_s: origin.map(|(tick, _)| self.for_s(tick)),
                made_at: origin.map(|(_, place)| place.to_owned()).filter(|place| place != "?"),
            };
            (info.object, object)
        };
        Ok(observer.client().list()?.into_iter().map(row).collect())
    }

    /// The names of objects and actors, in their order.
    ///
    /// ```
    /// # struct Counter(u64);
    /// # #[mobula::remote]
    /// # impl Counter {
    /// #     fn new() -> Self { Counter(0) }
    /// #     fn process(&self) -> u32 { std::process::id() }
    /// # }
    /// let _mobula = mobula::init()?;
    /// let options = mobula::ActorOptions::new().name("visitors");
    /// let counter = Counter::options(options).remote();
    /// let process = counter.process().get()?;
    /// let observer = mobula::state::Observer::here()?;
    /// let name = &observer.look()?.names(&observer)?[0];
    /// assert_eq!((name.name.as_str(), name.kind, name.pid), ("visitors", "actor", Some(process)));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn names(&self, observer: &Observer) -> Result<Vec<NameState>, ClientError> {
        let objects = self.objects(observer)?;
        let of_objects = objects.iter().flat_map(|object| {
            object.names.iter().map(|name| NameState {
                name: name.clone(),
                namespace: None,
                kind: "object",
                of: object.object.clone(),
                state: object.state.to_owned(),
                pid: Some(object.owner_pid),
                bytes: Some(object.bytes),
            })
        });
        let actors = self.head.iter().flat_map(|head| &head.actors).filter(|actor| actor.stage != "dead");
        let of_actors = actors.filter_map(|actor| {
            Some(NameState {
                name: actor.name.clone()?,
                namespace: actor.namespace.clone(),
                kind: "actor",
                of: actor.class.clone(),
                state: actor.stage.clone(),
                pid: actor.pid,
                bytes: None,
            })
        });
        let mut names: Vec<NameState> = of_objects.chain(of_actors).collect();
        names.sort_by(|one, other| (&one.name, one.kind).cmp(&(&other.name, other.kind)));
        Ok(names)
    }
}

/// A format tag in a word.
pub(super) fn format_name(tag: u32) -> &'static str {
    match tag {
        format::RAW => "raw",
        format::PLAIN => "plain",
        format::RAISED => "error",
        format::FORWARD => "forward",
        format::TENSOR => "tensor",
        format::ARROW => "arrow",
        format::PYTHON => "python",
        _ if tag >> 31 == 1 => "plasma",
        _ => "unknown",
    }
}
