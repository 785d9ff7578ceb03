//! A snapshot: the state of all parts of a session, read at once.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mobula_client::internal::Recorded;
use mobula_client::internal::clock::{Moment, Scale};
use mobula_client::internal::recorder::{Counts, EventBuffer, Queue, Run, Seen, Wait};
use mobula_client::{Client, ClientError, ClientInfo, ConnectOptions, OwnerId, Stats};
use serde::Serialize;

use crate::mail::ask::ask;
use crate::wire::{FromHead, HeadState, ToHead};

/// How long the head may take to answer.
const HEAD_PATIENCE: Duration = Duration::from_secs(2);
/// A scale from a shorter time is not exact enough.
const BASE_MIN: Duration = Duration::from_millis(20);
/// The first part of the label of the head's client.
pub(crate) const HEAD_LABEL: &str = "head ";
const DRIVER_LABEL: &str = "driver ";
const WORKER_LABEL: &str = "worker ";
/// The label of an [`Observer`], which is not a part of the session.
const OBSERVER_LABEL: &str = "observer";

/// Looks at a session from outside: a client of its store that records nothing and puts nothing.
///
/// ```
/// let _mobula = mobula::init()?;
/// let observer = mobula::state::Observer::here()?;
/// let (before, after) = (observer.look()?, observer.look()?);
/// assert_eq!(before.drivers()[0].pid, after.drivers()[0].pid);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug)]
pub struct Observer {
    client: Client,
}

/// The state that only the head knows.
///
/// ```
/// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
/// let head = mobula::state::look()?.head().expect("it has answered");
/// assert!(head.resources.contains(&("CPU".to_owned(), 2.0)));
/// assert!(head.free.contains(&("CPU".to_owned(), 2.0)));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct HeadReport {
    /// All resources of the session, by their names; memory in bytes.
    pub resources: Vec<(String, f64)>,
    /// The resources that are free.
    pub free: Vec<(String, f64)>,
    /// The demands that are not met.
    pub wanted: Vec<Wanted>,
}

/// Workers that a process wants and does not have.
///
/// ```
/// let _mobula = mobula::init()?;
/// let head = mobula::state::look()?.head().expect("it has answered");
/// for wanted in &head.wanted {
///     println!("process {} wants {} × {} for {} s", wanted.pid, wanted.workers, wanted.demand, wanted.waited_s);
/// }
/// assert!(head.wanted.is_empty());
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Wanted {
    /// The process that wants them; 0 for an actor, which wants a process for itself.
    pub pid: u32,
    /// The demand of each call.
    pub demand: String,
    /// How many it wants.
    pub workers: u32,
    /// How long it has waited, in seconds.
    pub waited_s: f64,
}

/// A client of the session's store, as its recorder shows it. A client that records nothing has no events and no known
/// state.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) owner: OwnerId,
    pub(super) pid: u32,
    /// Its kind and its number for people: such as `driver 4711`, `worker 4712`, or `actor 2 Scores`.
    pub(super) label: String,
    /// Whether the head of a driver has started it.
    is_worker: bool,
    pub(super) dead: bool,
    pub(super) began: Moment,
    names: Vec<String>,
    pub(super) made: Seen,
    pub(super) ran: Seen,
    pub(super) other: Seen,
    pub(super) run: Option<Run>,
    pub(super) waits: Vec<Wait>,
    queues: [u64; 3],
    recorded: Option<Recorded>,
    /// Whether it has a recorder.
    pub(super) is_recorded: bool,
    /// The counts of each name, number 0 first.
    pub(super) counts: Vec<Counts>,
}

/// A snapshot of an [`Observer`].
///
/// ```
/// let _mobula = mobula::init()?;
/// let look = mobula::state::look()?;
/// let _kept = mobula::put(&vec![0_u8; 100_000])?;
/// // It shows the session as it was then.
/// assert_eq!(look.overview().store.objects, 0);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug)]
pub struct Snapshot {
    /// The time of the snapshot, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) now: u64,
    /// The time of the snapshot as wall-clock time, since 1970.
    wall: Duration,
    scale: Scale,
    /// In the order in which they have connected.
    pub(super) processes: Vec<Process>,
    pub(super) head: Option<HeadState>,
    pub(super) stats: Stats,
}

impl Observer {
    /// Connects to a session's store. A round trip.
    ///
    /// ```
    /// let session = mobula::init()?;
    /// // In another program, which got the path in any way:
    /// let observer = mobula::state::Observer::connect(session.socket())?;
    /// assert_eq!(observer.look()?.drivers()[0].pid, std::process::id());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`ConnectOptions::connect`].
    pub fn connect(socket: impl AsRef<Path>) -> Result<Self, ClientError> {
        Ok(Self { client: ConnectOptions::new().label(OBSERVER_LABEL).connect(socket)? })
    }

    /// Connects to the store of the session of this process. A round trip.
    ///
    /// ```
    /// use mobula::Error;
    /// use mobula::state::Observer;
    ///
    /// assert!(matches!(Observer::here(), Err(Error::NotInitialized)));
    /// let _mobula = mobula::init()?;
    /// assert!(Observer::here().is_ok());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotInitialized`](crate::Error::NotInitialized): there is none.
    pub fn here() -> crate::Result<Self> {
        let runtime = crate::runtime::current::runtime()?;
        Ok(Self::connect(runtime.client.socket())?)
    }

    /// The client by which it looks.
    ///
    /// ```
    /// let session = mobula::init()?;
    /// let observer = mobula::state::Observer::here()?;
    /// let object = session.client().put(b"blue")?;
    /// assert!(observer.client().contains(object.id())?);
    /// assert_ne!(observer.client().id(), session.client().id());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Looks. A round trip for each process, and a copy of its last events: some milliseconds.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let look = mobula::state::Observer::here()?.look()?;
    /// // From one look, so they agree:
    /// assert_eq!(look.overview().drivers.len(), look.drivers().len());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn look(&self) -> Result<Snapshot, ClientError> {
        let mut stats = self.client.stats()?;
        stats.clients.retain(|info| info.owner != self.client.id());
        stats.totals.clients = stats.totals.clients.saturating_sub(1);
        let recorded = self.client.recorders()?;
        let heads = stats.clients.iter().filter(|info| !info.dead && info.label.starts_with(HEAD_LABEL));
        // Each driver of a session has one.
        let head = heads.filter_map(|info| self.ask_head(info.owner)).reduce(HeadState::and);
        let mut processes: Vec<Process> = recorded.into_iter().map(Process::read).collect();
        let is_recorded = |info: &&ClientInfo| processes.iter().any(|process| process.owner == info.owner);
        let others = stats.clients.iter().filter(|info| !info.dead && !is_recorded(info));
        let others: Vec<Process> = others.map(Process::unrecorded).collect();
        processes.extend(others);
        processes.retain(|process| process.label != OBSERVER_LABEL);
        processes.sort_by_key(|process| process.owner.epoch());
        if let Some(head) = &head {
            processes.iter_mut().for_each(|process| process.name_actor(head));
        }
        let scale = scale(processes.iter().map(|process| process.began));
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Snapshot { now: Moment::now().nanos, wall, scale, processes, head, stats })
    }

    /// The head's answer; `None` if it gives none.
    fn ask_head(&self, head: OwnerId) -> Option<HeadState> {
        ask(&self.client, head, None, &[ToHead::AskState], HEAD_PATIENCE, |record| match record {
            FromHead::State(state) => Some(state),
            _ => None,
        })
    }
}

impl Process {
    fn read(recorded: Recorded) -> Self {
        let Recorded { owner, pid, label, dead, reader, .. } = &recorded;
        // Names last: every event that was read has its name there.
        let [made, ran, other] = EventBuffer::ALL.map(|buffer| reader.events(buffer, 0));
        let (run, waits) = (reader.run(), reader.waits());
        let queues = [Queue::ForWorker, Queue::ForArguments, Queue::Arrived].map(|queue| reader.queue(queue));
        let names = reader.names();
        let counts = (0..=names.len()).filter_map(|name| reader.counts(name)).collect();
        let began = reader.began();
        let (owner, pid, label, dead) = (*owner, *pid, label.clone(), *dead);
        Self {
            owner,
            pid,
            is_worker: label.starts_with(WORKER_LABEL),
            label,
            dead,
            began,
            names,
            made,
            ran,
            other,
            run,
            waits,
            queues,
            is_recorded: true,
            counts,
            recorded: Some(recorded),
        }
    }

    /// A client without a recorder.
    fn unrecorded(info: &ClientInfo) -> Self {
        Self {
            owner: info.owner,
            pid: info.pid,
            label: info.label.clone(),
            is_worker: info.label.starts_with(WORKER_LABEL),
            dead: info.dead,
            began: Moment::default(),
            names: Vec::new(),
            made: Seen::default(),
            ran: Seen::default(),
            other: Seen::default(),
            run: None,
            waits: Vec::new(),
            queues: [0; 3],
            recorded: None,
            is_recorded: false,
            counts: Vec::new(),
        }
    }

    /// The time and place at which the object with this index was made: a tick and a name; `None` if they were not
    /// recorded.
    pub(super) fn origin(&self, index: u32) -> Option<(u64, &str)> {
        let (tick, name) = self.recorded.as_ref()?.origin(index)?;
        Some((tick, self.name(name)))
    }

    /// Whether it is the head's client, which belongs to the process of its driver.
    pub(super) fn is_head(&self) -> bool {
        self.label.starts_with(HEAD_LABEL)
    }

    pub(super) fn is_driver(&self) -> bool {
        self.label.starts_with(DRIVER_LABEL)
    }

    /// Whether the head of a driver has started it.
    pub(super) fn is_worker(&self) -> bool {
        self.is_worker
    }

    /// Takes the number, the class and the name of the actor that it is, or was, as the label.
    fn name_actor(&mut self, head: &HeadState) {
        if !self.is_worker {
            return;
        }
        let owner = Some(self.owner.bits());
        let now = head.processes.iter().find(|known| known.owner == owner).and_then(|known| known.actor);
        let now = now.and_then(|number| head.actors.iter().find(|actor| actor.actor == number));
        let before = || head.actor_processes.iter().rev().find(|known| known.pid == self.pid && self.dead);
        let Some((actor, class, name)) = now
            .map(|actor| (actor.actor, &actor.class, &actor.name))
            .or_else(|| before().map(|actor| (actor.actor, &actor.class, &actor.name)))
        else {
            return;
        };
        let name = name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        self.label = format!("actor {actor} {class}{name}");
    }

    /// The label with the pid.
    pub(super) fn label_and_pid(&self) -> String {
        let pid = self.pid.to_string();
        if self.label.ends_with(&pid) { self.label.clone() } else { format!("{}, pid {pid}", self.label) }
    }

    /// Whether a signal has stopped it.
    pub(super) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The name of the program stands in brackets before the state, and may contain anything.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        matches!(state, Some('T' | 't'))
    }

    /// The number of calls in one of its queues; 0 if it records nothing, or has died.
    pub(super) fn queue(&self, queue: Queue) -> u64 {
        if self.dead { 0 } else { self.queues[queue as usize] }
    }

    /// The name with a number.
    pub(super) fn name(&self, number: u16) -> &str {
        let name = usize::from(number).checked_sub(1).and_then(|at| self.names.get(at));
        name.map_or("?", String::as_str)
    }
}

/// The scale from the oldest plausible moment.
fn scale(began: impl Iterator<Item = Moment>) -> Scale {
    let now = Moment::now();
    let is_past =
        |moment: &Moment| moment.nanos <= now.nanos && moment.ticks <= now.ticks && moment.nanos > 0;
    let from = began.filter(is_past).min_by_key(|moment| moment.nanos).unwrap_or(now);
    let age = Duration::from_nanos(now.nanos - from.nanos);
    if age < BASE_MIN {
        std::thread::sleep(BASE_MIN - age);
    }
    Scale::between(from, Moment::now())
}

impl Snapshot {
    /// The state that the head reported; `None` if it has not answered.
    ///
    /// ```
    /// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
    /// if let Some(head) = mobula::state::look()?.head() {
    ///     assert!(head.resources.contains(&("CPU".to_owned(), 2.0)));
    ///     assert!(head.wanted.is_empty());
    /// }
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn head(&self) -> Option<HeadReport> {
        let head = self.head.as_ref()?;
        let wanted = head.wants.iter().map(|want| Wanted {
            pid: want.caller.map_or(0, |caller| self.pid_of(caller)),
            demand: want.demand.clone(),
            workers: want.workers,
            waited_s: want.waited_nanos as f64 / 1e9,
        });
        Some(HeadReport { resources: head.resources.clone(), free: head.free(), wanted: wanted.collect() })
    }

    /// The store in numbers.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let _kept = mobula::put(&vec![0_u8; 100_000])?;
    /// let look = mobula::state::look()?;
    /// assert!(look.store().object_bytes() >= 100_000);
    /// assert!(look.store().clients.iter().any(|client| client.pid == std::process::id()));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn store(&self) -> &Stats {
        &self.stats
    }

    /// Events of living processes that were overwritten before this look: the oldest events are missing.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let look = mobula::state::look()?;
    /// if look.lost_events() > 0 {
    ///     println!("the timeline begins late");
    /// }
    /// # assert_eq!(look.lost_events(), 0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn lost_events(&self) -> u64 {
        let living = self.processes.iter().filter(|process| !process.dead);
        let lost = living.flat_map(|process| [process.made.lost, process.ran.lost, process.other.lost]);
        // A process may write any numbers there.
        lost.fold(0, u64::saturating_add)
    }

    /// A tick as nanoseconds of `CLOCK_MONOTONIC`, not in the future.
    pub(super) fn nanos(&self, tick: u64) -> u64 {
        self.scale.nanos(tick).min(self.now)
    }

    /// Converts a number of ticks to nanoseconds.
    pub(super) fn length(&self, ticks: u64) -> u64 {
        self.scale.length(ticks)
    }

    /// Seconds since 1970 of a time.
    pub(super) fn seconds(&self, nanos: u64) -> f64 {
        self.wall.as_secs_f64() - self.now.saturating_sub(nanos) as f64 / 1e9
    }

    /// The process with an id, as its bits.
    pub(super) fn process(&self, owner: u64) -> Option<&Process> {
        self.processes.iter().find(|process| process.owner.bits() == owner)
    }

    /// The process that a person means by its pid: the living one, if there is one.
    pub(super) fn process_of_pid(&self, pid: u32) -> Option<&Process> {
        let is_it = |process: &&Process| process.pid == pid && !process.is_head();
        let all = || self.processes.iter().rev().filter(is_it);
        all().find(|process| !process.dead).or_else(|| all().next())
    }

    /// The pid of a client, as the bits of its id; 0 if it is not known.
    pub(super) fn pid_of(&self, owner: u64) -> u32 {
        let known = self.process(owner).map(|process| process.pid);
        let client = || self.stats.clients.iter().find(|info| info.owner.bits() == owner);
        known.or_else(|| client().map(|info| info.pid)).unwrap_or(0)
    }
}
