//! The work of a client: every operation, chosen at random, on objects under names that all clients share.
//!
//! It checks as it goes. Each object that it holds must be there with the bytes of its id, and so must the objects that
//! this one refers to. An object that a living client sent must be there until the receiver has taken it. Errors that
//! the death of another client explains are accepted; every other error, and every wrong byte, is a violation.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use mobula_client::{
    Channel, Client, ClientError, Event, Events, Handle, Layout, Object, ObjectId, ObjectWriter, OwnerId,
    Promise, Refusal,
};

use crate::Violation;
use crate::content::{Random, fill, is_content_of};
use crate::message::{Held, Ledger, Load, Room};

/// Formats, by which the supervisor tells the purpose of an object, of which only the owner knows the id;
pub(crate) const PRIVATE: u32 = 1;
/// others may;
const SHARED: u32 = 2;
/// others may, and its owner may delete it.
const DOOMED: u32 = 3;

const NAMES: u64 = 24;
/// Where memory is scarce: objects that are kept without their bytes, how large they are, and what is kept with them.
const HOARD_MAX: usize = 60;
const KEPT_BYTES_MAX: usize = 10_000;
const HOARDED_BYTES_MAX: u64 = 300_000;
const OBJECTS_MAX: usize = 24;
const HANDLES_MAX: usize = 12;
const WRITERS_MAX: usize = 3;
const PROMISES_MAX: usize = 3;
const CHANNELS_MAX: usize = 3;
/// Objects put and dropped in one go: more than a batch of frees, and than a young table has entries.
const BURST: u64 = 80;
/// How long the news of a death or of a channel's end may take.
const NEWS_TIMEOUT: Duration = Duration::from_secs(20);
/// Larger than a lease for small objects.
const LARGE_BYTES: u64 = 1_100_000;

/// A client at work.
pub(crate) struct Worker {
    client: Client,
    events: Events,
    random: Random,
    objects: Vec<Object>,
    handles: Vec<Handle>,
    writers: Vec<ObjectWriter>,
    promises: VecDeque<Promise>,
    channels: Vec<Link>,
    references: HashMap<ObjectId, Vec<ObjectId>>,
    record: Vec<u8>,
    load: Load,
    room: Room,
    /// Objects whose bytes no client uses: a full store spills them.
    hoard: VecDeque<Handle>,
    pub(crate) suspects: HashSet<OwnerId>,
    /// Owners of whom something may be lost, because they have died at the same time as the daemon.
    pub(crate) bereft: HashSet<OwnerId>,
    pub(crate) stalled: Cell<u64>,
}

/// A channel, and what is kept alive until the other end has taken it. Dropped in this order: the other end hears that
/// the channel is closed, then objects go.
struct Link {
    channel: Channel,
    sent: VecDeque<(u64, Handle)>,
}

type Checked<T = ()> = Result<T, Violation>;

impl Worker {
    pub(crate) fn new(client: Client, seed: u64, room: Room) -> Self {
        Self {
            events: client.events(),
            client,
            random: Random::from_seed(seed),
            objects: Vec::new(),
            handles: Vec::new(),
            writers: Vec::new(),
            promises: VecDeque::new(),
            channels: Vec::new(),
            references: HashMap::new(),
            record: Vec::new(),
            load: Load::Everything,
            room,
            hoard: VecDeque::new(),
            suspects: HashSet::new(),
            bereft: HashSet::new(),
            stalled: Cell::new(0),
        }
    }

    /// One operation.
    pub(crate) fn work(&mut self, load: Load) -> Checked {
        self.load = load;
        if self.room == Room::Scarce && self.random.below(4) == 0 {
            self.hoard()?;
        }
        let operation = self.random.below(32);
        match (load, operation) {
            (_, 0..=2) => self.put(PRIVATE)?,
            (_, 3..=5) => self.put(SHARED)?,
            (_, 6) => self.put(DOOMED)?,
            (_, 7) => self.burst()?,
            (_, 8 | 9) => self.write()?,
            (_, 10) => self.again()?,
            (_, 11..=13) => self.send()?,
            (_, 14..=16) => self.receive()?,
            (_, 17) => self.wait()?,
            (_, 18 | 19) => self.promise()?,
            (Load::Everything, 20) => self.put_large()?,
            (Load::Everything, 21) => self.connect()?,
            (Load::Everything, 22) => self.client.release_unused(),
            (Load::Everything, 23..=25) => self.publish()?,
            (Load::Everything, 26..=30) => self.lookup()?,
            _ => self.delete()?,
        }
        while self.objects.len() > OBJECTS_MAX {
            self.drop_one()?;
        }
        self.handles.truncate(HANDLES_MAX);
        Ok(())
    }

    /// The objects that it has now, after all dropped ones are gone.
    pub(crate) fn ledger(&mut self) -> Checked<Ledger> {
        self.take_events(true)?;
        for object in &self.objects {
            self.verify(object)?;
        }
        if self.room == Room::Scarce {
            // The supervisor that now reads everything needs the room.
            self.hoard.extend(self.objects.drain(..).map(|object| object.handle()));
        }
        let mut held: Vec<(ObjectId, Held)> =
            self.objects.iter().map(|object| (object.id(), Held::Sealed)).collect();
        held.extend(self.writers.iter().map(|writer| (writer.id(), Held::Unsealed)));
        held.extend(self.promises.iter().map(|promise| (promise.handle().id(), Held::Promised)));
        for handle in self.handles.iter().chain(&self.hoard) {
            let state = match handle.is_ready() {
                Ok(true) => Held::Sealed,
                Ok(false) => Held::Promised,
                Err(ClientError::Lost { .. }) => Held::Lost,
                Err(error) => {
                    self.excuse_suspects(&error, handle.id(), "held")?;
                    Held::Lost
                }
            };
            held.push((handle.id(), state));
        }
        for link in &mut self.channels {
            link.take_back();
            held.extend(link.sent.iter().map(|(_, handle)| (handle.id(), Held::Sealed)));
        }
        let client = &self.client;
        self.references.retain(|id, _| client.contains(*id).unwrap_or(true));
        self.client.release_unused();
        let references = self.references.iter().map(|(id, kept)| (*id, kept.clone())).collect();
        let channels = self.channels.iter().map(|link| link.channel.id).collect();
        Ok(Ledger { held, references, channels })
    }

    /// Lets go of everything.
    pub(crate) fn let_go(&mut self) -> Checked {
        while !self.objects.is_empty() {
            self.drop_one()?;
        }
        self.handles.clear();
        self.hoard.clear();
        self.writers.clear();
        self.promises.clear();
        self.channels.clear();
        self.references.clear();
        self.suspects.clear();
        self.bereft.clear();
        Ok(())
    }

    // ---- objects ----

    fn length(&mut self) -> u64 {
        // Local work must do with the leased memory.
        let kinds = if self.load == Load::Local { 2 } else { 4 };
        let max = [64, 1000, 20_000, 100_000][self.random.below(kinds) as usize];
        self.random.below(max)
    }

    fn put(&mut self, format: u32) -> Checked {
        let length = self.length();
        self.put_of(format, length)
    }

    fn put_of(&mut self, format: u32, length: u64) -> Checked {
        let count = if format == SHARED { self.random.below(4) } else { 0 };
        let mut references: Vec<Handle> = (0..count).filter_map(|_| self.any_object(SHARED)).collect();
        // Large ones would add up.
        references.retain(|handle| handle.object().is_ok_and(|object| object.len() < LARGE_BYTES as usize));
        let kept: Vec<ObjectId> = references.iter().map(Handle::id).collect();
        let Some(writer) = self.create(Layout::new(length).format(format).references(references))? else {
            return Ok(());
        };
        let id = writer.id();
        let object = seal_written(writer, id);
        if !kept.is_empty() {
            self.references.insert(id, kept);
        }
        self.keep(object);
        Ok(())
    }

    /// Keeps an object in use; where memory is scarce, a larger one without its bytes.
    fn keep(&mut self, object: Object) {
        if self.room == Room::Scarce && object.len() > KEPT_BYTES_MAX {
            self.hoard.push_back(object.handle());
        } else {
            self.objects.push(object);
        }
    }

    /// Memory for an object; `None` where a scribbler's pins have filled the store.
    fn create(&mut self, layout: Layout) -> Checked<Option<ObjectWriter>> {
        match self.client.create(layout) {
            Ok(writer) => Ok(Some(writer)),
            Err(ClientError::Refused(Refusal::StoreFull { .. })) if self.may_be_full() => {
                self.objects.clear();
                Ok(None)
            }
            Err(error) => Err(Violation(format!("create: {error}"))),
        }
    }

    /// A scribbler's pins fill a store, and so does what all clients use at a time in one that is too small.
    fn may_be_full(&self) -> bool {
        !self.suspects.is_empty() || self.room == Room::Scarce
    }

    /// Keeps one more object without its bytes, and looks at the bytes of another.
    fn hoard(&mut self) -> Checked {
        let length = HOARDED_BYTES_MAX / 2 + self.random.below(HOARDED_BYTES_MAX / 2);
        let format = [PRIVATE, SHARED][self.random.below(2) as usize];
        if let Some(writer) = self.create(Layout::new(length).format(format))? {
            let id = writer.id();
            self.hoard.push_back(seal_written(writer, id).handle());
        }
        while self.hoard.len() > HOARD_MAX {
            self.hoard.pop_front();
        }
        let chosen = self.random.below(self.hoard.len() as u64) as usize;
        let Some(handle) = self.hoard.get(chosen).cloned() else { return Ok(()) };
        match handle.object() {
            Ok(object) => {
                self.verify(&object)?;
                self.verify_references(&object)?;
                // Others come to know some of them.
                let format = object.format();
                drop(object);
                if format == SHARED && self.random.below(2) == 0 {
                    self.publish_as(handle.id(), false)
                } else {
                    Ok(())
                }
            }
            Err(error) => self.excuse_suspects(&error, handle.id(), "hoarded"),
        }
    }

    fn put_large(&mut self) -> Checked {
        self.objects.retain(|object| object.len() < LARGE_BYTES as usize);
        let format = [PRIVATE, SHARED][self.random.below(2) as usize];
        self.put_of(format, LARGE_BYTES)
    }

    fn burst(&mut self) -> Checked {
        let mut burst = Vec::new();
        let count = if self.load == Load::Local { BURST / 8 } else { BURST };
        for _ in 0..self.random.below(count) {
            let layout = Layout::new(40).format(PRIVATE);
            let Some(writer) = self.create(layout)? else { return Ok(()) };
            let id = writer.id();
            burst.push(seal_written(writer, id));
        }
        burst.iter().try_for_each(|object| self.verify(object))
    }

    /// Begins to write an object, or ends with one: sealed, or not.
    fn write(&mut self) -> Checked {
        if self.writers.len() >= WRITERS_MAX {
            let writer = self.writers.remove(0);
            if self.random.below(3) > 0 {
                let id = writer.id();
                self.objects.push(seal_written(writer, id));
            }
        }
        let layout = Layout::new(self.length()).format(SHARED);
        let Some(mut writer) = self.create(layout)? else { return Ok(()) };
        // A part of it, which is written again in the end.
        let half = writer.len() / 2;
        for byte in &mut writer[..half] {
            *byte = !*byte;
        }
        self.writers.push(writer);
        Ok(())
    }

    /// Another use of an object that is used already.
    fn again(&mut self) -> Checked {
        let Some(handle) = self.any_object(0) else { return Ok(()) };
        // No client gets a deleted object any more, not even one that has it.
        match self.client.get(handle.id()) {
            Ok(object) => self.verify(&object)?,
            Err(ClientError::Deleted { .. }) => {}
            Err(error) => self.excuse_suspects(&error, handle.id(), "again")?,
        }
        self.handles.insert(0, handle);
        Ok(())
    }

    fn drop_one(&mut self) -> Checked {
        let victim = self.random.below(self.objects.len() as u64) as usize;
        let object = self.objects.swap_remove(victim);
        self.verify(&object)
    }

    fn delete(&mut self) -> Checked {
        let own = self.client.id();
        let doomed = |object: &Object| object.format() == DOOMED && object.id().owner() == own;
        let Some(object) = self.objects.iter().find(|object| doomed(object)) else { return Ok(()) };
        match self.client.delete(object.id()) {
            // The second time it is not there.
            Ok(()) | Err(ClientError::NoSuchObject { .. }) => Ok(()),
            Err(error) => Err(Violation(format!("delete {}: {error}", object.id()))),
        }
    }

    /// A handle of any object in use, of a format or (0) of any.
    fn any_object(&mut self, format: u32) -> Option<Handle> {
        let fits = |object: &&Object| format == 0 || object.format() == format;
        let count = self.objects.iter().filter(fits).count() as u64;
        let chosen = self.random.below(count) as usize;
        self.objects.iter().filter(fits).nth(chosen).map(Object::handle)
    }

    /// Bytes that are held must be those of the id, and what the object refers to must be there.
    fn verify(&self, object: &Object) -> Checked {
        let id = object.id();
        if self.is_suspect(id) {
            // Reading any bytes must do no harm.
            std::hint::black_box(is_content_of(object, id));
            return Ok(());
        }
        if !is_content_of(object, id) {
            return Err(Violation(format!("wrong bytes: object {id} of {} bytes", object.len())));
        }
        Ok(())
    }

    fn verify_references(&self, object: &Object) -> Checked {
        if self.is_suspect(object.id()) {
            return Ok(());
        }
        for id in object.references() {
            match self.client.get(id) {
                Ok(inner) => self.verify(&inner)?,
                Err(error) => {
                    self.excuse_suspects(&error, id, &format!("what {} refers to", object.id()))?;
                }
            }
        }
        Ok(())
    }

    // ---- promises ----

    fn promise(&mut self) -> Checked {
        if self.promises.len() < PROMISES_MAX {
            let promise = self.client.promise().map_err(|error| Violation(format!("promise: {error}")))?;
            self.handles.insert(0, promise.handle().clone());
            self.promises.push_back(promise);
            return Ok(());
        }
        let Some(promise) = self.promises.pop_front() else { return Ok(()) };
        if self.random.below(4) == 0 {
            return Ok(());
        }
        let layout = Layout::new(self.length()).format(SHARED);
        let Some(mut writer) = self.create(layout)? else { return Ok(()) };
        fill(&mut writer, promise.handle().id());
        let handle = promise.handle().clone();
        promise.fulfil(writer);
        let object = handle.object().map_err(|error| Violation(format!("fulfilled: {error}")))?;
        self.keep(object);
        Ok(())
    }

    /// Waits a moment for something promised, as a program does: watch, look once more, sleep.
    fn wait(&mut self) -> Checked {
        let own = self.client.id();
        let promised = self
            .handles
            .iter()
            .position(|handle| handle.id().owner() != own && matches!(handle.is_ready(), Ok(false)));
        // Its bytes may lie where only the daemon can help.
        let promised = promised.filter(|_| self.load == Load::Everything);
        let Some(at) = promised else {
            let channels = &self.channels;
            let ready = || channels.iter().any(|link| !link.channel.receiver.is_empty());
            self.client.sleep(Some(Duration::from_millis(1)), ready);
            return Ok(());
        };
        let handle = self.handles[at].clone();
        let watch = handle.watch()?;
        self.client.sleep(Some(Duration::from_millis(3)), || !matches!(handle.is_ready(), Ok(false)));
        drop(watch);
        match handle.is_ready() {
            Ok(true) => match handle.object() {
                Ok(object) => {
                    self.verify(&object)?;
                    self.keep(object);
                }
                Err(error) => self.excuse_suspects(&error, handle.id(), "promised and there")?,
            },
            Ok(false) | Err(ClientError::Lost { .. }) => {}
            Err(error) => self.excuse_suspects(&error, handle.id(), "promised")?,
        }
        Ok(())
    }

    // ---- names ----

    fn name(&mut self) -> String {
        format!("name-{}", self.random.below(NAMES))
    }

    fn publish(&mut self) -> Checked {
        let promised = self.promises.front().map(|promise| promise.handle().id());
        let format = if self.random.below(4) == 0 { DOOMED } else { SHARED };
        let object = self.any_object(format).map(|handle| handle.id());
        match promised.filter(|_| self.random.below(3) == 0).or(object) {
            Some(id) => self.publish_as(id, format == DOOMED),
            None => Ok(()),
        }
    }

    fn publish_as(&mut self, id: ObjectId, may_be_deleted: bool) -> Checked {
        let name = self.name();
        match self.client.publish(&name, id) {
            Ok(()) => Ok(()),
            Err(ClientError::Refused(Refusal::NameTaken { .. })) => match self.client.unpublish(&name) {
                Ok(()) | Err(ClientError::Refused(Refusal::NoSuchName {})) => Ok(()),
                Err(error) => Err(Violation(format!("unpublish: {error}"))),
            },
            Err(ClientError::Refused(Refusal::NoSuchObject { .. })) if may_be_deleted => Ok(()),
            Err(error) => self.excuse_suspects(&error, id, "publish a held object"),
        }
    }

    fn lookup(&mut self) -> Checked {
        let name = self.name();
        let id = match self.client.lookup(&name) {
            Ok(Some(id)) => id,
            Ok(None) => return Ok(()),
            Err(error) => return Err(Violation(format!("lookup: {error}"))),
        };
        // The name may be taken away before the object is held.
        if self.random.below(3) == 0 {
            match self.client.hold(id) {
                Ok(handle) => self.handles.insert(0, handle),
                Err(error) => return self.excuse(&error, Some(id), "hold by name"),
            }
        }
        match self.client.get(id) {
            Ok(object) => {
                self.verify(&object)?;
                self.verify_references(&object)?;
                self.keep(object);
            }
            Err(error) => self.excuse(&error, Some(id), "get by name")?,
        }
        Ok(())
    }

    // ---- channels ----

    fn connect(&mut self) -> Checked {
        let own = self.client.id();
        let owners = self.objects.iter().map(|object| object.id().owner());
        let mut strangers = owners
            .filter(|owner| *owner != own && !self.channels.iter().any(|link| link.channel.peer == *owner));
        let Some(peer) = strangers.next() else { return Ok(()) };
        if self.channels.len() >= CHANNELS_MAX {
            let closed = self.random.below(self.channels.len() as u64) as usize;
            self.channels.swap_remove(closed);
        }
        match self.client.connect_to(peer) {
            Ok(channel) => self.channels.push(Link { channel, sent: VecDeque::new() }),
            // Its objects may have outlived it.
            Err(ClientError::Refused(Refusal::NoSuchOwner { .. })) => {}
            Err(error) => return Err(Violation(format!("connect to {peer}: {error}"))),
        }
        Ok(())
    }

    /// Sends the id of an object, and keeps the object until the other end has taken it.
    fn send(&mut self) -> Checked {
        let Some(handle) = self.any_object(SHARED) else { return Ok(()) };
        if self.channels.is_empty() {
            return Ok(());
        }
        let chosen = self.random.below(self.channels.len() as u64) as usize;
        let padding = self.random.below(900) as usize;
        let link = &mut self.channels[chosen];
        link.take_back();
        let mut record = handle.id().to_bytes().to_vec();
        record.resize(ObjectId::BYTES + padding, padding as u8);
        // The other end drains a full ring.
        if let Ok(position) = link.channel.sender.send(&record) {
            link.sent.push_back((position, handle));
        }
        Ok(())
    }

    fn receive(&mut self) -> Checked {
        if self.load == Load::Everything {
            self.take_events(false)?;
        }
        for at in 0..self.channels.len() {
            for _ in 0..self.random.below(4) {
                let link = &mut self.channels[at];
                let peer = link.channel.peer;
                let id = match link.channel.receiver.next(&mut self.record) {
                    Ok(true) => self.record.first_chunk().map(|bytes| ObjectId::from_bytes(*bytes)),
                    Ok(false) => break,
                    Err(error) if self.suspects.contains(&peer) => {
                        let _the_channel_is_closed = error;
                        self.channels.swap_remove(at);
                        return Ok(());
                    }
                    Err(error) => return Err(Violation(format!("record from {peer}: {error}"))),
                };
                if self.load == Load::Everything && !self.receive_object(at, id)? {
                    return Ok(());
                }
                self.channels[at].channel.receiver.done();
            }
        }
        Ok(())
    }

    /// An object that a living client sent is there, because it keeps it until it sees that it was taken, or closes the
    /// channel;
    /// `false` when it has, or is dead.
    fn receive_object(&mut self, at: usize, id: Option<ObjectId>) -> Checked<bool> {
        let (channel, peer) = (self.channels[at].channel.id, self.channels[at].channel.peer);
        let padding = self.record.len().saturating_sub(ObjectId::BYTES);
        let whole = self.record.iter().skip(ObjectId::BYTES).all(|byte| *byte == padding as u8);
        let (Some(id), true) = (id, whole) else {
            let excused = self.suspects.contains(&peer);
            return if excused {
                Ok(true)
            } else {
                Err(Violation(format!("a record from {peer} is broken")))
            };
        };
        let error = match self.client.get(id) {
            Ok(object) => {
                self.verify(&object)?;
                self.verify_references(&object)?;
                self.keep(object);
                return Ok(true);
            }
            Err(_) if self.suspects.contains(&peer) || self.is_suspect(id) => return Ok(true),
            Err(_) if self.bereft.contains(&id.owner()) => return Ok(true),
            Err(error) => error,
        };
        self.excuse(&error, Some(id), "received")?;
        // The store knew of its death, or of the channel's end, before the object went, and will say so.
        let began = Instant::now();
        while began.elapsed() < NEWS_TIMEOUT {
            self.take_events(true)?;
            let stats = self.client.stats().map_err(|error| Violation(format!("statistics: {error}")))?;
            let alive = stats.clients.iter().any(|client| client.owner == peer && !client.dead);
            let open = self.channels.iter().any(|link| link.channel.id == channel);
            if !alive || !open {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Violation(format!("sent by {peer}, which is alive: {id}: {error}")))
    }

    fn take_events(&mut self, all: bool) -> Checked {
        while let Some(event) = self.events.try_next() {
            match event {
                Event::ChannelOpened(incoming) => match self.client.accept(incoming) {
                    Ok(channel) => self.channels.push(Link { channel, sent: VecDeque::new() }),
                    Err(error) => self.excuse(&error, None, "accept")?,
                },
                Event::ChannelClosed(closed) => self.channels.retain(|link| link.channel.id != closed),
                Event::StoreLost => return Err(Violation("the store is lost".to_owned())),
                _ => {}
            }
            if !all {
                break;
            }
        }
        while self.channels.len() > 2 * CHANNELS_MAX {
            self.channels.remove(0);
        }
        Ok(())
    }

    // ---- what may go wrong ----

    fn is_suspect(&self, id: ObjectId) -> bool {
        self.suspects.contains(&id.owner())
    }

    /// An outcome that the death of others explains, for an object that was not held.
    fn excuse(&self, error: &ClientError, about: Option<ObjectId>, what: &str) -> Checked {
        match error {
            ClientError::NoSuchObject { .. }
            | ClientError::Deleted { .. }
            | ClientError::NotReady { .. }
            | ClientError::Lost { .. }
            | ClientError::Refused(Refusal::NoSuchOwner { .. }) => Ok(()),
            ClientError::OwnerStalled { .. } => {
                self.stalled.update(|stalled| stalled + 1);
                Ok(())
            }
            error => match about {
                Some(id) => self.excuse_suspects(error, id, what),
                None => Err(Violation(format!("{what}: {error}"))),
            },
        }
    }

    /// Only an object of a scribbler may fail while it is held.
    fn excuse_suspects(&self, error: &ClientError, id: ObjectId, what: &str) -> Checked {
        if let ClientError::OwnerStalled { .. } = error {
            self.stalled.update(|stalled| stalled + 1);
            return Ok(());
        }
        // It is still in its file.
        if let ClientError::Refused(Refusal::NotRestored { .. } | Refusal::StoreFull { .. }) = error
            && self.may_be_full()
        {
            return Ok(());
        }
        let lost = matches!(
            error,
            ClientError::NoSuchObject { .. }
                | ClientError::Refused(
                    Refusal::NoSuchOwner { .. }
                        | Refusal::NoSuchSegment { .. }
                        | Refusal::NoSuchObject { .. }
                )
        );
        if self.is_suspect(id) || lost && self.bereft.contains(&id.owner()) {
            Ok(())
        } else {
            Err(Violation(format!("{what}: {id}: {error}")))
        }
    }
}

impl Link {
    /// Drops the references that the other end has taken over.
    fn take_back(&mut self) {
        let consumed = self.channel.sender.consumed();
        while self.sent.front().is_some_and(|(position, _)| *position <= consumed) {
            self.sent.pop_front();
        }
    }
}

/// Writes the content in a few pieces, and seals.
fn seal_written(mut writer: ObjectWriter, id: ObjectId) -> Object {
    fill(&mut writer, id);
    writer.seal()
}
