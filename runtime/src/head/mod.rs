//! The head: a thread of the driver that owns the processes of a session. It hands out workers, keeps the actors and
//! their names, and ends processes that are no longer needed.
//!
//! The head has a store client of its own, and all processes talk to it through channels, the driver as well as the
//! workers. So it could also be a process. Calls do not pass through it: callers talk to the workers and actors that it
//! names.

mod actors;
mod deadlock;
mod deaths;
mod detached;
mod ends;
mod foreign;
mod groups;
mod memory;
mod names;
mod orders;
mod output;
mod pool;
mod processes;
mod report;
pub(crate) mod share;
mod start_failures;
mod state;
mod watches;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use mobula_client::internal::{Socket, explained};
use mobula_client::{Client, Event, Events, OwnerId};

use self::detached::OnDetached;
pub(crate) use self::detached::{Detached, StartDetached};
pub(crate) use self::memory::MemoryOptions;
use self::memory::Monitor;
pub(crate) use self::pool::EXIT_PATIENCE;
use self::pool::Pool;
use self::processes::Processes;
pub(crate) use self::processes::WorkerOptions;
use self::share::Share;
use self::state::State;
use crate::error::{Error, Result};
use crate::mail::link::Link;
use crate::mail::links::Links;
use crate::process::store;

/// How long a killed process takes to end, in addition to the time in which it may end by itself.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// The options with which the head is started.
#[derive(Debug)]
pub(crate) struct HeadOptions {
    /// The workers that are kept.
    pub(crate) workers: usize,
    /// The most processes: workers and actors together.
    pub(crate) processes_max: usize,
    pub(crate) build_id: u64,
    pub(crate) worker: WorkerOptions,
    pub(crate) memory: MemoryOptions,
    /// Whether other drivers share the session.
    pub(crate) is_shared: bool,
    /// Starts the head of this driver's detached actors, in a session that drivers share.
    pub(crate) starts_detached: Option<StartDetached>,
    /// This head keeps the detached actors of a driver.
    pub(crate) detached: Option<Detached>,
}

/// A message to the head from other threads of its process.
enum Command {
    /// Ends the actors and runs their destructors within this time. The sender gets the number of actors that were
    /// killed.
    EndActors(Sender<usize>, Duration),
    /// There is a connection to the process of the session, which other drivers share.
    Connected(Socket),
    /// The head of the detached actors serves, or has failed to start.
    DetachedStarted(Result<OwnerId, String>),
    Stop,
}

/// The running head. When it is dropped, it ends the processes and then its thread.
#[derive(Debug)]
pub(crate) struct Head {
    client: Client,
    commands: Sender<Command>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Head {
    pub(crate) fn start(options: HeadOptions) -> Result<Self> {
        let client = store::connect(foreign::LABEL, &options.worker.socket)?;
        let events = client.events();
        let (commands, received) = unbounded();
        let pool = Pool::new(options.workers, options.processes_max, options.worker.resources.clone());
        let its_client = client.clone();
        let build_id = options.build_id;
        let monitor = Monitor::new(options.memory);
        let directory = options.worker.socket.parent().filter(|_| options.is_shared).map(Path::to_owned);
        let processes =
            Processes::new(options.worker, client.id()).map_err(|error| Error::Start(explained(&error)))?;
        let (starts_detached, detached) = (options.starts_detached, options.detached);
        let on_detached = on_detached(&commands, &client);
        let thread = std::thread::Builder::new()
            .name("mobula-head".into())
            .spawn(move || {
                let links = Links::new(its_client.clone());
                let mut state = State::new(pool, processes, build_id, monitor);
                if let Some(directory) = directory {
                    state.share(&its_client, &links, directory);
                    state.has_detached(starts_detached.map(|start| (start, on_detached)), detached);
                }
                run(its_client, state, &links, &events, &received);
            })
            .map_err(|error| Error::Start(explained(&error)))?;
        Ok(Self { client, commands, thread: Some(thread) })
    }

    pub(crate) fn id(&self) -> OwnerId {
        self.client.id()
    }

    /// Ends all actors, and waits until the destructors of their states have run. An actor that takes longer than
    /// `timeout` is killed. Returns how many were.
    pub(crate) fn end_actors(&self, timeout: Duration) -> usize {
        let (ends, ended) = bounded(1);
        self.command(Command::EndActors(ends, timeout));
        ended.recv_timeout(timeout.saturating_add(KILL_PATIENCE)).unwrap_or(0)
    }

    /// Tells the head of messages from the session's process.
    pub(crate) fn connector(&self) -> impl Fn(Socket) + Send + 'static {
        let (commands, client) = (self.commands.clone(), self.client.clone());
        move |socket| {
            let _ = commands.send(Command::Connected(socket));
            client.ring();
        }
    }

    fn command(&self, command: Command) {
        let _ = self.commands.send(command);
        self.client.ring();
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tells this head that the head of the detached actors serves.
fn on_detached(commands: &Sender<Command>, client: &Client) -> OnDetached {
    let (commands, client) = (commands.clone(), client.clone());
    Arc::new(move |head| {
        let _ = commands.send(Command::DetachedStarted(head));
        client.ring();
    })
}

fn run(client: Client, mut state: State, links: &Arc<Links>, events: &Events, commands: &Receiver<Command>) {
    state.arrange();
    loop {
        let timeout = state.timeout();
        client.sleep_with(
            || {
                !commands.is_empty()
                    || !events.is_empty()
                    || links.is_idle_rung()
                    || links.active().iter().any(|link| link.has_work())
            },
            |bell| state.processes.wait(bell, state.share.as_ref().and_then(Share::descriptor), timeout),
        );
        match commands.try_recv() {
            Ok(Command::EndActors(ends, timeout)) => state.end_actors(ends, timeout),
            Ok(Command::Connected(socket)) => state.connected(socket),
            Ok(Command::DetachedStarted(head)) => state.detached_started(head),
            Ok(Command::Stop) => break,
            Err(_) => {}
        }
        while let Some(event) = events.try_next() {
            match event {
                Event::ChannelOpened(incoming) => match client.accept(incoming) {
                    Ok(channel) => {
                        let link = Arc::new(Link::new(channel, true));
                        state.on_link_opened(&link);
                        links.add(&link);
                    }
                    Err(error) => tracing::warn!(%error, "a caller ended before its channel was opened"),
                },
                Event::ChannelClosed(id) => {
                    if let Some(link) = links.of_closed(id) {
                        links.remove(&link);
                        link.receive_the_rest(&mut |record| state.on_record(&client, &link, record));
                        link.close();
                        state.on_link_closed(&link);
                    }
                }
                Event::StoreLost => state.store_lost(),
                _ => {}
            }
        }
        let mut look_at = |link: &Arc<Link>| {
            link.flush();
            if link.receive(&mut |record| state.on_record(&client, link, record)) {
                state.something_happened();
            }
            // A link whose records cannot be read is closed.
            if link.is_closed() && links.remove(link) {
                state.on_link_closed(link);
            }
        };
        links.active().iter().for_each(&mut look_at);
        for link in links.idle_with_records() {
            look_at(&link);
            links.settle(&link);
        }
        state.look_after_processes(&client);
        state.look_after_actors();
        state.look_after_groups();
        state.look_after_memory();
        state.look_after_deadlocks();
        state.arrange();
        state.look_after_groups();
        state.look_after_use();
    }
    state.processes.end_all();
}
