//! The daemon without its sockets: requests, deaths and the time come in, messages for clients go out.
//!
//! It joins the [decisions](crate::core) with the [memory](crate::memory) that they are about. Nothing here waits: a
//! request is answered at once, or kept and answered by a later call. What clients wrote, into messages or into
//! shared memory, is checked before it is used and never a reason to panic.
//!
//! | module | has |
//! |---|---|
//! | [`client::record`] | one client, alive or adopted, and the views of its memory |
//! | [`client::attach`] | attaching, detaching, mapping segments |
//! | [`memory::lease`] | leases, the requests that wait for room, making room, growing tables |
//! | [`client::quota`] | what a client, or a user, may have at a time |
//! | [`memory::prefault`] | allocating the pages of a lease, a slice at a time |
//! | [`spill::files`] | files for spilled objects, whom to ask to spill, waiting for objects to come back |
//! | [`orphans::restore`] | bringing back what the dead have spilled |
//! | [`orphans::evict`] | spilling what the dead have left in memory |
//! | [`names`] | names, and the daemon's own pins that they are made of |
//! | [`orphans::takeover`] | what becomes of the objects of the dead |
//! | [`orphans::escrow`] | who keeps the memory of the dead, beside the daemon |
//! | [`restart::rebuild`] | going on in the place of a daemon that was killed |
//! | [`client::channels`] | channels |
//! | [`client::list`] | what `status` and `list` show |

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{LABEL_BYTES_MAX, Notice, Refusal, Reply, Request};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::directory::{DirectoryWriter, Record};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::names::NameRecords;
use mobula_shm::pins::PinWriter;
use mobula_shm::table::TableWriter;

use crate::config::Config;
use crate::core::channels::Channels;
use crate::core::holds::Holds;
use crate::core::names::Names;
use crate::core::segments::Segments;
use crate::core::slots::Slots;
use crate::core::turns::Turns;
use crate::core::waiters::Waiters;
use crate::memory::{Memory, Parcel, no_memory};

mod client;
mod memory;
mod names;
mod orphans;
pub(crate) mod restart;
#[cfg(test)]
mod simulation;
pub(crate) mod spill;
#[cfg(test)]
mod tests;

use client::record::Owner;
use memory::lease::{Pressure, Wanted};
use memory::prefault::Filling;
use names::Lookups;
use orphans::takeover::SweepTimer;
use spill::files::Spilling;

/// A message for a client.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// To whom.
    pub(crate) client: u16,
    /// The message as bytes.
    pub(crate) bytes: Vec<u8>,
    /// Its descriptors.
    pub(crate) parcels: Vec<Parcel>,
    /// Whether the message may be dropped when others already wait for the client, because it will be sent again.
    pub(crate) hint: bool,
}

/// Why a client must go: what it sent makes no sense where it stands.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

/// What a request comes to.
pub(crate) enum Answer {
    Now(Reply, Vec<Parcel>),
    /// The request waits; a later call answers it.
    Later,
}

impl Answer {
    pub(crate) fn done() -> Outcome {
        Ok(Self::Now(Reply::Done {}, Vec::new()))
    }
}

pub(crate) type Outcome = Result<Answer, Refusal>;

/// The store's state.
pub(crate) struct Daemon {
    config: Config,
    /// The daemon's own, in slot 0's name: directory, pins and names.
    control: Memory,
    directory_writer: DirectoryWriter,
    /// The names, for the daemon after this one.
    name_records: NameRecords,
    slots: Slots,
    /// Everyone who lives or is adopted, by slot.
    owners: BTreeMap<u16, Owner>,
    segments: Segments<Memory>,
    names: Names,
    holds: Holds,
    channels: Channels,
    leases: Waiters<Wanted>,
    turns: Turns,
    /// Segments that are being allocated, in order.
    fillings: VecDeque<Filling>,
    lookups: Lookups,
    pressure: Pressure,
    spilling: Spilling,
    sweep: SweepTimer,
    outbox: Vec<Outgoing>,
}

impl Daemon {
    /// A store without clients; `epoch` tells its owners from those of stores before it.
    pub(crate) fn new(config: Config, epoch: u64) -> io::Result<Self> {
        let slots = config.slots();
        let control = Memory::daemon_control(slots, config.names_max as u32)?;
        Self::with(config, epoch, control)
    }

    /// The same, with a control memory that exists.
    fn with(config: Config, epoch: u64, control: Memory) -> io::Result<Self> {
        let slots = config.slots();
        let directory_writer = DirectoryWriter::map(control.writable(), slots)?;
        let name_records =
            NameRecords::map(control.writable(), control_bytes(slots), config.names_max as u32)?;
        Ok(Self {
            control,
            directory_writer,
            name_records,
            slots: Slots::new(slots, epoch),
            owners: BTreeMap::new(),
            segments: Segments::new(config.capacity_bytes),
            names: Names::default(),
            holds: Holds::default(),
            // Other numbers than those of the stores before.
            channels: Channels::new(epoch << 16),
            leases: Waiters::new(),
            turns: Turns::new(config.lease_turn),
            fillings: VecDeque::new(),
            lookups: Lookups::new(),
            pressure: Pressure::default(),
            spilling: Spilling::new(),
            sweep: SweepTimer::default(),
            outbox: Vec::new(),
            config,
        })
    }

    /// Takes in a client that has introduced itself; the reply is in the outbox.
    pub(crate) fn hello(&mut self, pid: u32, label: String, correlation: u64) -> Result<OwnerId, Refusal> {
        if label.len() > LABEL_BYTES_MAX {
            let reason = format!("a label of {} bytes, over {LABEL_BYTES_MAX}", label.len());
            return Err(Refusal::BadRequest { reason });
        }
        let Some(id) = self.slots.open() else {
            return Err(limit_reached("clients_max", self.config.clients_max.into()));
        };
        let entries = self.config.table_entries_initial;
        let checked = self.check_bookkeeping(self.client_bytes());
        let equipped = checked.and_then(|()| {
            self.equip(id, pid, label).map_err(|error| no_memory(self.client_bytes(), &error))
        });
        match equipped {
            Ok(parcels) => {
                failpoint(Failpoint::HelloEquipped);
                let record = Record { epoch: id.epoch(), committed: entries, process: pid };
                self.directory_writer.set_owner(id.slot(), record);
                let (slots, capacity_bytes) = (self.config.slots(), self.config.capacity_bytes);
                let welcome = Reply::Welcome { owner: id, slots, entries, capacity_bytes };
                self.reply(id.slot(), correlation, &welcome, parcels);
                self.entrust_the_unkept();
                Ok(id)
            }
            Err(refusal) => {
                self.slots.die(id.slot());
                if self.slots.forget(id.slot()) {
                    self.vacate(id.slot());
                }
                Err(refusal)
            }
        }
    }

    /// A client that has been taken in belongs to this user; to the daemon's own, unless that is said.
    pub(crate) fn belongs_to(&mut self, client: u16, user: u32) {
        if let Some(owner) = self.owners.get_mut(&client) {
            owner.user = user;
        }
    }

    /// Carries out a client's request, or lets it wait.
    pub(crate) fn request(
        &mut self,
        client: u16,
        correlation: u64,
        request: Request,
        now: Instant,
    ) -> Result<(), Violation> {
        let outcome = match request {
            Request::Hello { .. } => Err(bad_request("a second Hello")),
            Request::Lease { bytes, timeout_ms } => self.lease(client, correlation, bytes, timeout_ms, now),
            Request::Withdraw { correlation } => self.withdraw(client, correlation, now),
            Request::Release { segment } => self.release(client, segment),
            Request::HolesPunched { segment } => self.shrunk(client, segment),
            Request::GrowTable { entries } => self.grow_table(client, entries),
            Request::Attach { owner } => self.attach(client, owner),
            Request::RepeatReader { reader } => self.introduce(client, reader),
            Request::Detach { owner } => self.detach(client, owner, now),
            Request::MapSegment { owner, segment } => self.map_segment(client, owner, segment),
            Request::UnmapSegment { owner, segment } => self.unmap_segment(client, owner, segment),
            Request::Publish { name, object } => self.publish(name, object, now),
            Request::Lookup { name, timeout_ms } => self.lookup(client, correlation, name, timeout_ms, now),
            Request::Unpublish { name } => self.unpublish(&name, now),
            Request::ListNames { after } => self.list_names(&after),
            Request::ListObjects { cursor } => self.list_objects(cursor),
            Request::Stats {} => self.stats(),
            Request::ListClients { cursor } => self.list_clients(cursor),
            Request::Connect { peer } => self.connect(client, peer),
            Request::Disconnect { channel } => self.disconnect(client, channel),
            Request::SpillFile { bytes } => self.spill_file(client, bytes),
            Request::DiscardSpillFile { file } => self.discard_spill_file(client, file),
            Request::Spilled { bytes, failure } => self.spilled(client, bytes, failure, now),
            Request::Restore { object, timeout_ms } => {
                self.restore(client, correlation, object, timeout_ms, now)
            }
            Request::OpenSpilled { object } => self.open_spilled(client, object),
            Request::Restored { object, refusal } => self.restored(client, object, refusal),
            _ => Err(bad_request("a request that this store does not know")),
        };
        match outcome {
            Ok(Answer::Now(reply, parcels)) => self.reply(client, correlation, &reply, parcels),
            Ok(Answer::Later) => {}
            Err(Refusal::BadRequest { reason }) => return Err(Violation(reason)),
            Err(refusal) => self.reply(client, correlation, &Reply::Failed { refusal }, Vec::new()),
        }
        self.serve_leases(now);
        Ok(())
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.fill_next();
        self.go_on_emptying(now);
        self.bring_next(now);
        self.expire_leases(now);
        self.expire_restores(now);
        self.expire_lookups(now);
        if self.pressure.is_due(now) {
            self.relieve(now);
        }
        if self.sweep.is_due(now) {
            self.sweep(now);
        }
        self.serve_leases(now);
    }

    /// When [`tick`](Self::tick) has something to do; `None` while nobody waits and nothing is adopted.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if !self.fillings.is_empty() || self.can_bring() {
            return Some(now);
        }
        let turn = self.turns.ends().filter(|_| !self.leases.is_empty());
        let waits =
            [self.leases.next_deadline(), self.lookups.next_deadline(), self.spilling.next_deadline()];
        let deadlines = waits.into_iter().chain([turn]);
        deadlines.chain([self.pressure.due(), self.sweep.due()]).flatten().min()
    }

    /// The messages that clients are to get, in order.
    pub(crate) fn take_outbox(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outbox)
    }

    /// How many clients are connected.
    pub(crate) fn clients(&self) -> usize {
        self.owners.values().filter(|owner| owner.is_alive()).count()
    }

    /// Makes everything that a new client needs; the descriptors of its `Welcome`.
    fn equip(&mut self, id: OwnerId, pid: u32, label: String) -> io::Result<Vec<Parcel>> {
        let (slot, entries) = (id.slot(), self.config.table_entries_initial);
        let control = Memory::control(self.config.slots(), entries)?;
        control.allocate_pins(slot, 0..entries)?;
        self.control.allocate_pins(slot, 0..entries)?;
        let bell = Arc::new(Bell::create()?);
        let parcels = vec![control.to_write(), Parcel::Bell(bell.clone()), self.control.to_read()?];
        // Mapped now, so that adopting the client's objects needs nothing that the machine could refuse.
        let view = TableWriter::map(control.writable())?;
        let daemon_pins = PinWriter::map(self.control.writable(), slot)?;
        let owner = Owner::new(id, pid, label, entries, control, view, bell, daemon_pins);
        self.owners.insert(slot, owner);
        Ok(parcels)
    }

    /// Nobody knows the last owner of a slot any more: what was allocated for it goes back.
    fn vacate(&mut self, slot: u16) {
        self.control.free_pins(slot);
        // Only who was attached has pins there: when thousands end at once, it is not for each to go through all others.
        let readers = self.slots.take_readers_ever(slot);
        for reader in readers.iter().filter_map(|reader| self.owners.get(reader)) {
            reader.control.free_pins(slot);
        }
        self.segments.vacate(slot);
    }

    fn reply(&mut self, client: u16, correlation: u64, reply: &Reply, parcels: Vec<Parcel>) {
        self.outbox.push(Outgoing { client, bytes: reply.encode(correlation), parcels, hint: false });
    }

    fn notify(&mut self, client: u16, notice: &Notice, parcels: Vec<Parcel>) {
        let hint = matches!(notice, Notice::Reclaim { .. } | Notice::PunchHoles { .. });
        self.outbox.push(Outgoing { client, bytes: notice.encode(0), parcels, hint });
    }
}

pub(crate) fn bad_request(reason: &str) -> Refusal {
    Refusal::BadRequest { reason: reason.to_owned() }
}

pub(crate) fn limit_reached(limit: &str, max: u64) -> Refusal {
    Refusal::LimitReached { limit: limit.to_owned(), max }
}
