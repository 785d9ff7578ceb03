//! The head: a thread of the driver that owns the processes of a session. It hands out workers, keeps the actors and
//! their names, and ends what is not needed any more.
//!
//! It is a client of the store of its own, and whoever needs it talks to it through a channel, the driver like the
//! workers: so it could as well be a process of its own. Calls do not pass through it: callers talk to the workers and
//! actors that it names.

mod actors;
mod deaths;
mod output;
mod pool;
mod processes;
mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use mobula_client::{Client, ConnectOptions, Event, OwnerId};

use self::pool::Pool;
use self::processes::Processes;
use self::state::State;
use crate::error::{Error, Result};
use crate::mail::link::Link;
use crate::process::lifeline::Lifeline;
use crate::session::Launch;

/// How much longer than it may take a process takes to end when it is killed.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// What the head is started with.
#[derive(Debug)]
pub(crate) struct HeadOptions {
    pub(crate) socket: PathBuf,
    pub(crate) workers: usize,
    /// Workers and actors together.
    pub(crate) processes_max: usize,
    pub(crate) forward_output: bool,
    pub(crate) spin: Duration,
    /// What workers run.
    pub(crate) launch: Launch,
    pub(crate) build_id: u64,
    pub(crate) lifeline: Arc<Lifeline>,
}

/// What the driver wants of it at the end.
enum Command {
    /// Actors are to end, and with them their state; the sender is dropped when they have.
    EndActors(Sender<()>),
    Stop,
}

/// The running head. Dropped, it sees its processes off and ends.
#[derive(Debug)]
pub(crate) struct Head {
    client: Client,
    commands: Sender<Command>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Head {
    pub(crate) fn start(options: HeadOptions) -> Result<Self> {
        let label = format!("head {}", std::process::id());
        let client = ConnectOptions::new().label(label).connect(&options.socket)?;
        let events = client.events();
        let (commands, received) = unbounded();
        let pool = Pool::new(options.workers, options.processes_max);
        let its_client = client.clone();
        let build_id = options.build_id;
        let processes = Processes::new(options, client.id());
        let thread = std::thread::Builder::new()
            .name("mobula-head".into())
            .spawn(move || run(its_client, State::new(pool, processes, build_id), &events, &received))
            .map_err(|error| Error::Start(error.to_string()))?;
        Ok(Self { client, commands, thread: Some(thread) })
    }

    pub(crate) fn id(&self) -> OwnerId {
        self.client.id()
    }

    /// Ends all actors, and waits until they have: until the destructors of their state have run. One that takes too
    /// long is killed, as it would be when its last handle is gone.
    pub(crate) fn end_actors(&self) {
        let (ends, ended) = bounded(0);
        self.command(Command::EndActors(ends));
        let _ = ended.recv_timeout(pool::EXIT_PATIENCE + KILL_PATIENCE);
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

fn run(client: Client, mut state: State, events: &Receiver<Event>, commands: &Receiver<Command>) {
    let mut links: Vec<Arc<Link>> = Vec::new();
    state.arrange();
    loop {
        let timeout = state.timeout();
        client.sleep_with(
            || !commands.is_empty() || !events.is_empty() || links.iter().any(|link| link.has_work()),
            |bell| state.processes.wait(bell, timeout),
        );
        match commands.try_recv() {
            Ok(Command::EndActors(ends)) => state.end_actors(ends),
            Ok(Command::Stop) => break,
            Err(_) => {}
        }
        while let Ok(event) = events.try_recv() {
            match event {
                Event::ChannelOpened(incoming) => match client.accept(incoming) {
                    Ok(channel) => links.push(Arc::new(Link::new(channel, true))),
                    Err(error) => tracing::warn!(%error, "a caller ended before its channel was opened"),
                },
                Event::ChannelClosed(id) => {
                    if let Some(position) = links.iter().position(|link| link.id == id) {
                        let link = links.swap_remove(position);
                        link.receive_the_rest(&mut |record| state.on_record(&client, &link, record));
                        link.close();
                        state.on_link_closed(&link);
                    }
                }
                Event::StoreLost => state.store_lost(),
                _ => {}
            }
        }
        for link in &links {
            link.flush();
            if link.receive(&mut |record| state.on_record(&client, link, record)) {
                state.something_happened();
            }
        }
        // Those whose other end wrote what cannot be read.
        for link in links.extract_if(.., |link| link.is_closed()) {
            state.on_link_closed(&link);
        }
        state.look_after_processes(&client);
        state.look_after_actors();
        state.arrange();
    }
    state.processes.end_all();
}
