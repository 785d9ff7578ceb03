//! A simulation of the daemon among honest clients. A seed decides what the clients do and when they die.
//!
//! A schedule is the life of one store. Clients lease, seal, pin, spill, restore, publish, connect, let go and detach,
//! [one atomic step](process) at a time. Their requests wait until the daemon reads them; the daemon's messages wait
//! until the clients read them. Time passes when the schedule says so. After each step the store must agree with a
//! simple model, and at the end nothing of any client may be left. Memory is real: each client maps the same memory as
//! it would in a process of its own.
//!
//! A schedule that fails prints the line that replays it. `MOBULA_SCHEDULES=10000` runs more schedules, from the seed
//! `MOBULA_SEED` on.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Refusal, Reply, Request, Totals, is_notice};
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::table::State;

use self::process::{Mail, Process, Truths, deadline, names};
use super::Daemon;
use super::answer::Answer;
use super::client::list;
use super::registry::outbox::Outgoing;
use crate::config::Config;
use crate::core::random::Random;
use crate::core::slots::Life;
use crate::daemon::spill::disk::Disk;

mod process;

/// The number of schedules of an ordinary run.
const SCHEDULES: u64 = 1000;
/// The number of steps of a schedule before everything ends.
const STEPS: u64 = 300;
const PROCESSES_MAX: usize = 4;

#[test]
fn every_schedule_leaves_the_store_as_the_model_says() {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse().expect("a number"));
    let first = number("MOBULA_SEED");
    let count = number("MOBULA_SCHEDULES").unwrap_or(if first.is_some() { 1 } else { SCHEDULES });
    let (next, began) = (AtomicU64::new(first.unwrap_or(0)), Instant::now());
    let end = next.load(Ordering::Relaxed) + count;
    // The directory is in memory: there are many schedules, and other tests cover the behaviour of a disk.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let counts: [AtomicU64; 4] = Default::default();
    let run = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end) {
            let _replay = Replay { seed };
            let happened = Schedule::new(seed, directory.path()).run();
            counts
                .iter()
                .zip(happened)
                .for_each(|(count, more)| _ = count.fetch_add(more, Ordering::Relaxed));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
    });
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!("{count} schedules of the store, {:.0} a minute", count as f64 / minutes);
    let [spilled, evicted, restored, restored_of_the_dead] = counts.map(AtomicU64::into_inner);
    println!(
        "spilled {spilled} times, segments of the dead {evicted}; for others restored {restored}, of the dead \
         {restored_of_the_dead}"
    );
    let least = spilled.min(evicted).min(restored).min(restored_of_the_dead);
    assert!(least > 0 || count < SCHEDULES, "something is never tried");
}

/// Prints the command that replays a failure.
struct Replay {
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.seed;
            eprintln!("replay: MOBULA_SEED={seed} cargo test -p mobula-store simulation -- --nocapture");
        }
    }
}

/// A store, its clients, a clock, and the model.
struct Schedule {
    seed: u64,
    random: Random,
    daemon: Daemon,
    now: Instant,
    processes: Vec<Process>,
    truths: Truths,
    /// Requests that the daemon has read and not answered, by client and correlation number.
    waiting: BTreeMap<(OwnerId, u64), (Request, Option<Instant>)>,
    /// The bytes of each segment of a living client.
    leases: BTreeMap<(OwnerId, u32), u64>,
    /// The inodes of all memories that were ever leased.
    memories: BTreeSet<u64>,
    /// Pairs of a living reader and an owner whose objects it may pin.
    attached: BTreeSet<(OwnerId, OwnerId)>,
    channels: BTreeMap<u64, [OwnerId; 2]>,
    /// The object of each name, and whether it was sealed when it got the name.
    names: BTreeMap<Vec<u8>, (ObjectId, bool)>,
    owners: BTreeSet<OwnerId>,
    /// The number of segments of dead clients that the daemon has begun to spill.
    evictions: u64,
    is_evicting: bool,
    /// How often a client had an object of another restored: of a living owner, of a dead owner.
    restored: [u64; 2],
}

impl Schedule {
    fn new(seed: u64, directory: &Path) -> Self {
        let mut random = Random::new(seed);
        let mut config = Config::new("/unused", (4 + random.below(24)) * PAGE_BYTES)
            .clients_max(6)
            .ring_bytes(PAGE_BYTES as u32)
            .table_entries_initial(16)
            .sweep_entries_max(3 + random.below(20) as u32)
            .orphan_grace(Duration::from_millis(random.below(2) * 50))
            .waiters_max(3)
            .names_max(3);
        if random.below(3) == 0 {
            let half = config.capacity_bytes / 2;
            config = config.client_bytes_max(half);
        }
        let disk = (random.below(2) == 0).then(|| Disk::open(directory).unwrap());
        let mut daemon = Daemon::new(config.validate().unwrap(), 1 + seed).unwrap();
        daemon.spill_into(disk);
        Self {
            seed,
            random,
            daemon,
            now: Instant::now(),
            processes: Vec::new(),
            truths: Truths::default(),
            waiting: BTreeMap::new(),
            leases: BTreeMap::new(),
            memories: BTreeSet::new(),
            attached: BTreeSet::new(),
            channels: BTreeMap::new(),
            names: BTreeMap::new(),
            owners: BTreeSet::new(),
            evictions: 0,
            is_evicting: false,
            restored: [0; 2],
        }
    }

    /// Runs the schedule; returns the counts that the test adds up.
    fn run(mut self) -> [u64; 4] {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        if self.seed.is_multiple_of(2) {
            self.wind_up();
        }
        while !self.processes.is_empty() {
            self.die();
            self.check();
        }
        self.end();
        [self.truths.spilled, self.evictions, self.restored[0], self.restored[1]]
    }

    fn step(&mut self) {
        let count = self.processes.len();
        if count == 0 || (count < PROCESSES_MAX && self.random.below(12) == 0) {
            return self.arrive();
        }
        let first = self.random.below(count as u64) as usize;
        let find = |is_wanted: &dyn Fn(&Process) -> bool| {
            (0..count).map(|step| (first + step) % count).find(|place| is_wanted(&self.processes[*place]))
        };
        let writes = find(&|process| !process.outgoing.is_empty());
        let reads = find(&|process| !process.inbox.is_empty());
        match (self.random.below(20), writes, reads) {
            (0, ..) => {
                let time = Duration::from_millis(self.random.below(60));
                self.pass(time);
            }
            (1, ..) if self.random.below(5) == 0 => self.die(),
            (2..=6, Some(place), _) => self.serve(place),
            (7..=11, _, Some(place)) => self.processes[place].receive(&self.truths),
            _ => {
                let others: Vec<OwnerId> = self.processes.iter().map(|process| process.id).collect();
                for _ in 0..=self.random.below(4) {
                    self.processes[first].act(&mut self.random, &mut self.truths, &others);
                }
            }
        }
    }

    // ---- events ----

    fn arrive(&mut self) {
        let Ok(id) = self.daemon.hello(1, "simulated".into(), 1, 0) else {
            let taken = self.daemon.contents.registry.owners.len();
            assert!(taken >= PROCESSES_MAX - 1 || !self.attached.is_empty(), "no room with {taken} owners");
            return self.pass(Duration::from_millis(100));
        };
        assert!(self.owners.insert(id), "{id} was there before");
        for (reader, owner) in &self.attached {
            assert_ne!(owner.slot(), id.slot(), "{id} got the slot of {owner}, which {reader} knows");
        }
        let mut messages = self.daemon.take_outbox();
        let Outgoing { client, bytes, attachments, .. } = messages.remove(0);
        let (0, Reply::Welcome { owner, slots, entries, .. }) = Reply::decode(&bytes).unwrap() else {
            panic!("not a Welcome");
        };
        assert_eq!((client, owner), (id.slot(), id));
        self.processes.push(Process::new(id, slots, entries, attachments));
        // The daemon may ask a new client at once to keep the deposit of a dead owner.
        self.daemon.contents.registry.put_back(messages);
        self.collect(None);
    }

    /// A client dies. The daemon may have read the client's requests before.
    fn die(&mut self) {
        let place = self.random.below(self.processes.len() as u64) as usize;
        if self.random.below(2) == 0 {
            while !self.processes[place].outgoing.is_empty() {
                self.serve(place);
            }
        }
        let id = self.processes.swap_remove(place).id;
        self.daemon.died(id.slot(), self.now);
        self.waiting.retain(|(owner, _), _| *owner != id);
        self.leases.retain(|(owner, _), _| *owner != id);
        self.attached.retain(|(reader, _)| *reader != id);
        self.channels.retain(|_, ends| !ends.contains(&id));
        self.collect(None);
    }

    /// The daemon reads a client's next request.
    fn serve(&mut self, place: usize) {
        let Some((correlation, request)) = self.processes[place].outgoing.pop_front() else { return };
        let id = self.processes[place].id;
        let deadline = deadline(&request, self.now);
        self.waiting.insert((id, correlation), (request.clone(), deadline));
        self.daemon.request(id.slot(), correlation, request, self.now).expect("an honest request");
        self.collect(Some((id, correlation)));
        let unanswered = self.waiting.get(&(id, correlation));
        assert!(unanswered.is_none() || deadline.is_some(), "not answered: {unanswered:?}");
        if self.random.below(2) == 0 {
            self.pass(Duration::ZERO);
        }
    }

    /// Time passes, and the daemon does what is due. As in its event loop, it wakes at its own deadlines.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.daemon.next_deadline(self.now).filter(|due| *due < end);
            self.now = due.map_or(end, |due| due.max(self.now));
            self.daemon.tick(self.now);
            self.collect(None);
            let late =
                self.waiting.values().find(|(_, deadline)| deadline.is_some_and(|due| due <= self.now));
            assert!(late.is_none(), "late: {late:?}");
            if due.is_none() {
                return;
            }
        }
    }

    /// Brings the daemon's messages to the clients. The model takes note of the reply to the current request first.
    fn collect(&mut self, current: Option<(OwnerId, u64)>) {
        // Waits for the thread that writes, so that the seed alone decides the schedule.
        let now = self.now;
        while self.daemon.contents.orphans.eviction().is_some_and(|eviction| !eviction.is_written(now)) {
            std::thread::yield_now();
        }
        let is_evicting = self.daemon.contents.orphans.eviction().is_some();
        let was_evicting = std::mem::replace(&mut self.is_evicting, is_evicting);
        self.evictions += u64::from(is_evicting && !was_evicting);
        let mut messages = self.daemon.take_outbox();
        if let Some((id, correlation)) = current {
            let is_current = |message: &Outgoing| {
                message.client == id.slot()
                    && !is_notice(&message.bytes)
                    && Reply::decode(&message.bytes).unwrap().0 == correlation
            };
            messages.sort_by_key(|message| !is_current(message));
        }
        for Outgoing { client, bytes, attachments, .. } in messages {
            let Some(place) = self.processes.iter().position(|process| process.id.slot() == client) else {
                continue;
            };
            let mail = if is_notice(&bytes) {
                Mail::Notice(Notice::decode(&bytes).unwrap().1, attachments)
            } else {
                let (correlation, reply) = Reply::decode(&bytes).unwrap();
                let id = self.processes[place].id;
                let (request, _) =
                    self.waiting.remove(&(id, correlation)).expect("an answer to one question");
                self.answered(id, &request, &reply);
                if let Reply::Leased { .. } = reply {
                    let inode = nix::sys::stat::fstat(attachments[0].as_fd()).unwrap().st_ino;
                    assert!(self.memories.insert(inode), "memory was leased twice");
                }
                Mail::Reply(correlation, reply, attachments)
            };
            self.processes[place].inbox.push_back(mail);
        }
    }

    /// Updates the model by a reply.
    fn answered(&mut self, id: OwnerId, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Lease { .. }, Reply::Leased { segment, bytes }) => {
                let before = self.leases.insert((id, *segment), *bytes);
                assert!(before.is_none(), "segment {segment} of {id} was leased twice");
            }
            (Request::Release { segment }, reply) => {
                assert_eq!(*reply, Reply::Done {});
                self.leases.remove(&(id, *segment)).expect("it was leased");
            }
            (Request::Attach { owner }, Reply::Attached { dead }) => {
                let lives = self.processes.iter().any(|process| process.id == *owner);
                assert_eq!(*dead, !lives, "{owner}");
                self.attached.insert((id, *owner));
            }
            (Request::Detach { owner }, _) => drop(self.attached.remove(&(id, *owner))),
            (Request::Publish { name, object }, Reply::Done {}) => {
                let is_sealed = self.truths.sealed.contains_key(object);
                self.names.insert(name.clone(), (*object, is_sealed));
            }
            (Request::Publish { name, .. }, Reply::Failed { refusal: Refusal::NameTaken { object } })
            | (Request::Lookup { name, .. }, Reply::Found { object }) => {
                assert!(
                    self.daemon.contents.registry.exists(*object),
                    "{name:?} is of {object}, which is gone"
                );
                assert_eq!(self.names.get(name).map(|named| named.0), Some(*object), "{name:?}");
            }
            (Request::Restore { object, .. }, Reply::Done {}) => {
                let is_dead = self.processes.iter().all(|process| process.id != object.owner());
                self.restored[usize::from(is_dead)] += 1;
            }
            (Request::Unpublish { name }, _) => drop(self.names.remove(name)),
            (Request::Connect { peer }, Reply::Connected { channel, .. }) => {
                let before = self.channels.insert(*channel, [id, *peer]);
                assert!(before.is_none(), "channel {channel} was opened twice");
            }
            (Request::Disconnect { channel }, Reply::Done {}) => {
                self.channels.remove(channel).expect("it was open");
            }
            _ => {}
        }
    }

    // ---- checks ----

    fn check(&mut self) {
        let totals = self.totals();
        let used = totals.leased_bytes + totals.orphaned_bytes + totals.retired_bytes;
        assert_eq!(used + totals.free_bytes, totals.capacity_bytes);
        assert_eq!(totals.leased_bytes, self.leases.values().sum::<u64>());
        for process in &self.processes {
            let leased = self.leases.range((process.id, 0)..=(process.id, u32::MAX)).map(|(_, bytes)| bytes);
            assert!(
                leased.sum::<u64>() <= self.daemon.contents.registry.config.client_bytes_max,
                "{} is over its quota",
                process.id
            );
        }
        assert_eq!(totals.clients as usize, self.processes.len());
        assert_eq!(totals.channels as usize, self.channels.len());
        self.check_waiting(&totals);
        self.check_names();
        self.processes.iter().for_each(|process| process.check_holds(&self.truths));
        self.check_objects();
        self.check_mappings();
    }

    /// No request waits for memory that is free, unless another request has a reservation. The daemon wakes before
    /// every deadline.
    fn check_waiting(&self, totals: &Totals) {
        let wakes = self.daemon.next_deadline(self.now);
        for ((id, _), (request, deadline)) in &self.waiting {
            assert!(wakes.is_some_and(|wakes| deadline.is_none_or(|due| wakes <= due)), "{request:?}");
            match request {
                Request::Lease { bytes, .. } => {
                    let is_reserved =
                        self.daemon.leases.reservation_ends().is_some_and(|ends| ends > self.now);
                    let charged = self.daemon.contents.registry.segments.charged(id.slot()).1;
                    let is_at_quota = charged + bytes > self.daemon.contents.registry.config.client_bytes_max;
                    assert!(
                        *bytes > totals.free_bytes || is_reserved || is_at_quota,
                        "{bytes} bytes are free, and somebody waits for them"
                    )
                }
                Request::Lookup { name, .. } => {
                    assert!(
                        self.daemon.contents.names.known().get(name).is_none(),
                        "{name:?} is there, and somebody waits"
                    )
                }
                Request::Restore { .. } => {}
                other => panic!("{other:?} waits"),
            }
        }
    }

    /// Each name leads to the object that was published last. The daemon may have removed a name only if no process
    /// holds its object.
    fn check_names(&mut self) {
        let known: BTreeMap<Vec<u8>, ObjectId> = self
            .daemon
            .contents
            .names
            .known()
            .after(b"")
            .map(|(name, object)| (name.to_vec(), object))
            .collect();
        for (name, object) in &known {
            let (expected, was_sealed) = self.names.get(name).expect("it was published");
            assert_eq!(object, expected, "{name:?}");
            assert!(!was_sealed || self.exists(*object), "{object} was freed under its name");
        }
        let (processes, truths) = (&self.processes, &self.truths);
        self.names.retain(|name, (object, was_sealed)| {
            let is_held = processes.iter().any(|process| process.holds(*object));
            let is_known = known.contains_key(name);
            assert!(
                is_known || !*was_sealed || !is_held || truths.deleted.contains(object),
                "{name:?} was taken from {object}, which is in use"
            );
            is_known
        });
    }

    /// Memory that a process has mapped does not count as free.
    fn check_mappings(&self) {
        for (process, owner, segment) in self.processes.iter().flat_map(Process::mapped) {
            let is_counted = self.daemon.contents.registry.slots.life(owner) != Life::Vacant
                && self.daemon.contents.registry.segments.numbers(owner.slot()).contains(&segment);
            assert!(is_counted, "segment {segment} of {owner} counts as free, and {process} has it mapped");
        }
    }

    /// An object keeps the objects that it refers to.
    fn check_objects(&mut self) {
        let gone = |object: &&ObjectId| !self.exists(**object);
        let gone: Vec<ObjectId> = self.truths.sealed.keys().filter(gone).copied().collect();
        for object in gone {
            self.truths.sealed.remove(&object);
        }
        for (object, truth) in &self.truths.sealed {
            for reference in &truth.references {
                let is_there =
                    self.truths.sealed.contains_key(reference) || self.truths.deleted.contains(reference);
                assert!(is_there, "{reference} was freed, and {object} refers to it");
            }
        }
    }

    /// Whether a sealed object has not been freed.
    fn exists(&self, object: ObjectId) -> bool {
        let owner = self.daemon.contents.registry.owners.get(&object.owner().slot());
        let owner = owner.filter(|owner| owner.id == object.owner());
        let state = owner.and_then(|owner| owner.state_of(object.index(), object.generation()));
        matches!(state, Some(State::Sealed | State::Dying | State::Deleted | State::Spilled))
    }

    fn totals(&self) -> Totals {
        match list::stats(&self.daemon.contents.registry, self.daemon.contents.names.known()) {
            Ok(Answer::Now(Reply::Stats { totals }, _)) => totals,
            _ => unreachable!("statistics are never refused"),
        }
    }

    // ---- the end ----

    /// All clients let go of everything and stay alive: the store must be as empty as before the first client.
    fn wind_up(&mut self) {
        for _ in 0..200 {
            self.drop_names();
            for place in 0..self.processes.len() {
                while !self.processes[place].inbox.is_empty() {
                    self.processes[place].receive(&self.truths);
                }
                self.processes[place].wind_up(&mut self.truths);
                while !self.processes[place].outgoing.is_empty() {
                    self.serve(place);
                }
            }
            self.check();
            let totals = self.totals();
            let is_empty = totals.free_bytes == totals.capacity_bytes && totals.dead_clients == 0;
            if is_empty && self.processes.iter().all(Process::is_idle) {
                assert_eq!((totals.segments, totals.names), (0, 0));
                assert_eq!((totals.spill_files, totals.spill_bytes), (0, 0));
                return;
            }
            self.pass(Duration::from_millis(100));
        }
        panic!("something is left that nobody uses: {:?}", self.totals());
    }

    fn drop_names(&mut self) {
        for name in names() {
            self.daemon.remove_name(&name, self.now);
            self.names.remove(&name);
        }
    }

    /// No client is alive any more: the store must be empty.
    fn end(&mut self) {
        self.drop_names();
        self.pass(Duration::from_secs(60));
        let totals = self.totals();
        assert_eq!((totals.free_bytes, totals.dead_clients), (totals.capacity_bytes, 0));
        assert_eq!((totals.segments, totals.names, totals.channels), (0, 0, 0));
        assert_eq!((totals.spill_files, totals.spill_bytes), (0, 0));
        assert_eq!(self.daemon.next_deadline(self.now), None, "an empty store has something to do");
        for owner in &self.owners {
            assert_eq!(
                self.daemon.contents.registry.slots.life(*owner),
                Life::Vacant,
                "{owner} is not forgotten"
            );
        }
    }
}
