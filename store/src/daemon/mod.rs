//! The daemon without its sockets: requests, deaths and the time come in, messages for clients go out.
//!
//! It joins the [decisions](crate::core) with the [memory](crate::memory) that they are about. Nothing here waits: a
//! request is answered at once, or kept and answered by a later call. Data from clients, in messages or in shared
//! memory, is checked before it is used, and never causes a panic.
//!
//! A request goes through the parts in one direction: [`Daemon::request`] hands it to the part that it is for, the part
//! works on the registry, and the reply goes into the registry's outbox. The parts, from the ground up; each uses those
//! above it in this table:
//!
//! | part | has |
//! |---|---|
//! | [`registry`] | clients, alive and dead, with all that belongs to them; the daemon's own pins; the outbox |
//! | [`client`] | hello, attach, channels, quotas, listings: functions on the registry |
//! | [`names`] | names, and clients that wait for one |
//! | [`spill`] | spill files, the owner that is asked to spill, clients that wait for spilled objects |
//! | [`orphans`] | the objects of the dead: takeover, sweep, eviction, restoring, descriptor escrow |
//! | [`contents`] | all of these together |
//! | [`memory`] | leases, the queue for them, prefaulting, making room |
//! | [`restart`] | going on in the place of a daemon that was killed |

use std::io;
use std::time::Instant;

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Refusal, Reply, Request};

use crate::config::Config;
use crate::memory::Memory;

pub(crate) mod answer;
mod client;
mod contents;
mod memory;
mod names;
mod orphans;
pub(crate) mod registry;
pub(crate) mod restart;
#[cfg(test)]
mod simulation;
pub(crate) mod spill;
#[cfg(test)]
mod tests;

use answer::{Answer, Patient, bad_request, limit_reached};
use client::quota::Scope;
use client::{attach, channels, hello, list};
use contents::Contents;
use memory::lease::Leases;
use memory::pressure::remove_names;
use memory::table;
use registry::outbox::Outgoing;
use restart::collect::Returned;
use restart::rebuild::{Resumed, rebuild};
use spill::disk::Disk;
use spill::waiting;

/// Why a connection must end: its request is not valid in this state of the connection.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

/// The daemon.
pub(crate) struct Daemon {
    contents: Contents,
    leases: Leases,
}

impl Daemon {
    /// A daemon without clients. `epoch` tells its owners from those of stores before it.
    pub(crate) fn new(config: Config, epoch: u64) -> io::Result<Self> {
        let control = Memory::daemon_control(config.slots(), config.names_max as u32)?;
        Ok(Self { leases: Leases::new(&config), contents: Contents::new(config, epoch, control)? })
    }

    /// A daemon that continues with the memory that the clients of a killed one handed back. The replies to these
    /// clients are in the outbox.
    pub(crate) fn resume(
        config: Config,
        epoch: u64,
        returned: Returned,
        now: Instant,
    ) -> io::Result<(Self, Vec<Resumed>)> {
        let leases = Leases::new(&config);
        let (contents, resumed) = rebuild(config, epoch, returned, now)?;
        let mut daemon = Self { contents, leases };
        daemon.settle(now);
        Ok((daemon, resumed))
    }

    /// From now on objects are spilled, if there is a disk for them.
    pub(crate) fn spill_into(&mut self, disk: Option<Disk>) {
        self.contents.registry.spill_files.set_disk(disk);
    }

    /// The disk for spilled objects, for another daemon of this store.
    pub(crate) fn take_disk(&mut self) -> Option<Disk> {
        self.contents.registry.spill_files.take_disk()
    }

    /// Takes in a client that has sent its hello. The reply is in the outbox.
    pub(crate) fn hello(
        &mut self,
        pid: u32,
        label: String,
        serial: u64,
        correlation: u64,
    ) -> Result<OwnerId, Refusal> {
        hello::hello(&mut self.contents.registry, pid, label, serial, correlation)
    }

    /// A client belongs to this user. Without that, it belongs to the daemon's own user.
    pub(crate) fn belongs_to(&mut self, client: u16, user: u32) {
        if let Some(owner) = self.contents.registry.owners.get_mut(&client) {
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
        let may_wait = self.check_waiting(client);
        let patient = |timeout_ms| Patient { client, correlation, timeout_ms, now, may_wait };
        let Self { contents, leases } = self;
        let Contents { registry, names, spill_policy, .. } = &mut *contents;
        let outcome = match request {
            Request::Hello { .. } => Err(bad_request("a second Hello")),
            Request::Attach { owner } => attach::attach(registry, client, owner),
            Request::RepeatReader { reader } => attach::repeat_reader(registry, client, reader),
            Request::Detach { owner } => attach::detach(registry, client, owner),
            Request::MapSegment { owner, segment } => attach::map_segment(registry, client, owner, segment),
            Request::UnmapSegment { owner, segment } => {
                attach::unmap_segment(registry, client, owner, segment)
            }
            Request::Connect { peer } => channels::connect(registry, client, peer),
            Request::Disconnect { channel } => channels::disconnect(registry, client, channel),
            Request::ListNames { after } => list::list_names(names.known(), &after),
            Request::ListObjects { cursor } => list::list_objects(registry, names.known(), cursor),
            Request::ListHolders { cursor } => list::list_holders(registry, cursor),
            Request::ListClients { cursor } => list::list_clients(registry, cursor),
            Request::ListSegments { cursor } => list::list_segments(registry, cursor),
            Request::ListLocations { cursor } => list::list_locations(registry, cursor),
            Request::NextRecorder { after } => list::next_recorder(registry, after),
            Request::Stats {} => list::stats(registry, names.known()),

            Request::Publish { name, object } => names.publish(registry, name, object),
            Request::Lookup { name, timeout_ms } => names.lookup(registry, patient(timeout_ms), name),
            Request::Unpublish { name } => names.unpublish(registry, &name),
            Request::WatchNames {} => names.watch(client),
            Request::Evict { bytes } => {
                let bytes = remove_names(contents, Scope::Store, bytes);
                Ok(Answer::Now(Reply::Evicted { bytes }, Vec::new()))
            }

            Request::SpillFile { bytes } => spill::make_file(registry, client, bytes),
            Request::DiscardSpillFile { file } => spill::discard_file(registry, client, file),
            Request::OpenSpilled { object } => waiting::open(registry, client, object),
            Request::Restore { object, timeout_ms } => contents.restore(patient(timeout_ms), object),
            Request::Restored { object, refusal } => contents.restored(client, object, refusal),
            Request::Spilled { bytes, failure } => {
                spill_policy.answered(client, bytes, failure, now);
                leases.serve(contents, now);
                leases.ask_to_spill(contents, now);
                Answer::done()
            }

            Request::GrowTable { entries } => table::grow(registry, client, entries),
            Request::Lease { bytes, timeout_ms } => leases.lease(contents, patient(timeout_ms), bytes),
            Request::Withdraw { correlation } => leases.withdraw(contents, client, correlation, now),
            Request::Release { segment } => leases.release(registry, client, segment),
            Request::HolesPunched { segment } => leases.holes_punched(registry, client, segment),
            _ => Err(bad_request("a request that this store does not know")),
        };
        let registry = &mut self.contents.registry;
        match outcome {
            Ok(Answer::Now(reply, attachments)) => registry.reply(client, correlation, &reply, attachments),
            Ok(Answer::Later) => {}
            Err(Refusal::BadRequest { reason }) => return Err(Violation(reason)),
            Err(refusal) => registry.reply(client, correlation, &Reply::Failed { refusal }, Vec::new()),
        }
        self.settle(now);
        Ok(())
    }

    /// A client's process or its connection is gone.
    pub(crate) fn died(&mut self, slot: u16, now: Instant) {
        if self.contents.registry.owners.get(&slot).is_some_and(|owner| owner.is_alive()) {
            self.leases.client_died(slot);
            self.contents.client_died(slot, now);
            self.settle(now);
        }
    }

    /// Does the work that is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        let Self { contents, leases } = self;
        leases.go_on_prefaulting(&mut contents.registry);
        if contents.go_on_evicting(now) && leases.missing_bytes(contents, now) > 0 {
            contents.evict_orphans(now);
        }
        contents.go_on_restoring();
        leases.expire(contents, now);
        contents.restore_requests.expire(&mut contents.registry, now);
        contents.names.expire(&mut contents.registry, now);
        if leases.pressure_is_due(now) {
            leases.make_room(contents, now);
        }
        if contents.orphans.sweep_is_due(now) {
            contents.sweep(now);
        }
        self.settle(now);
    }

    /// When [`tick`](Self::tick) has something to do; `None` while nothing waits and no client is dead.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let contents = &self.contents;
        let deadlines = [
            contents.can_restore().then_some(now),
            self.leases.next_deadline(now),
            contents.names.next_deadline(),
            contents.restore_requests.next_deadline(),
            contents.orphans.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The messages that clients are to get, in order.
    pub(crate) fn take_outbox(&mut self) -> Vec<Outgoing> {
        self.contents.registry.take_outbox()
    }

    /// Removes a name, as making room does.
    #[cfg(test)]
    fn remove_name(&mut self, name: &[u8], now: Instant) {
        let Contents { registry, names, .. } = &mut self.contents;
        names.remove(registry, name);
        self.settle(now);
    }

    /// Does the work that an event leads to: makes room for an orphan that is to be restored, starts a look at orphans
    /// that may be free, serves the queue for memory, and tells clients which names have changed.
    fn settle(&mut self, now: Instant) {
        let Self { contents, leases } = self;
        if contents.orphans.restores().take_lack_of_memory() {
            leases.make_room_to_restore(contents, now);
        }
        if contents.registry.take_orphans_changed() {
            contents.orphans.sweep_soon(now);
        }
        leases.serve(contents, now);
        contents.names.tell_watchers(&mut contents.registry);
    }

    /// The refusal of a request that would wait, if too many requests of the client wait already.
    fn check_waiting(&self, client: u16) -> Result<(), Refusal> {
        let Contents { registry, names, restore_requests, .. } = &self.contents;
        let waiting = self.leases.waiting(client) + names.waiting(client) + restore_requests.count(client);
        let max = registry.config.waiters_max;
        if waiting < max { Ok(()) } else { Err(limit_reached("waiters_max", max as u64)) }
    }
}
