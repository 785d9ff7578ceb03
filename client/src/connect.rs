//! The start of a client: it says hello to the daemon, checks the memory that the daemon sends, and maps it.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use mobula_protocol::message::{Notice, Reply, Request};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::directory::DirectoryReader;
use mobula_shm::fork::ForkGuard;
use mobula_shm::memory::check_received;
use mobula_shm::pins::{PinReader, PinWriter};
use mobula_shm::table::{ENTRIES_MAX, TableWriter};

use crate::background::{self, reconnect};
use crate::channel::Channels;
use crate::counting::keep_alive::WeakKeepAlive;
use crate::daemon::connection::{Answer, Connection, Received};
use crate::daemon::escrow::Escrow;
use crate::error::ClientError;
use crate::event::EventSource;
use crate::options::ConnectOptions;
use crate::owner::{Owner, Readers, Table};
use crate::reader::peers::Peers;
use crate::recorders;
use crate::reference::Reference;
use crate::shared::Shared;
use crate::spill::jobs::SpillJobs;

/// The number of the next client of this process.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Connects to the store that listens at `path`, and starts the background thread.
pub(crate) fn connect(path: &Path, options: ConnectOptions) -> Result<Arc<Shared>, ClientError> {
    let ConnectOptions { label, timeouts, events } = options;
    let guard = ForkGuard::new()?;
    let no_store = |reason| ClientError::NoStore { path: path.to_owned(), reason };
    let connection = Arc::new(Connection::open(path, guard, timeouts).map_err(no_store)?);
    let welcome = say_hello(&connection, label.clone())?;
    let shared = make(guard, connection.clone(), label, events, welcome)?;
    let weak = Arc::downgrade(&shared);
    std::thread::Builder::new()
        .name("mobula-client".into())
        .stack_size(256 << 10)
        .spawn(move || background::run(&connection, &weak))?;
    Ok(shared)
}

/// The first request, before there is a background thread. If the daemon is killed meanwhile, the hello goes to the
/// next one.
fn say_hello(connection: &Connection, label: String) -> Result<Answer, ClientError> {
    std::thread::scope(|scope| {
        let receiver = std::thread::Builder::new().name("mobula-hello".into()).spawn_scoped(scope, || {
            let mut daemon = connection.daemon_process();
            loop {
                match connection.receive(None) {
                    Received::Notice(Notice::Closing {}, _) => connection.end_with_daemon(),
                    Received::Notice(..) => {}
                    // The daemon was killed, or has refused this client.
                    Received::HungUp
                        if connection.is_ending() || !reconnect::repeat_hello(connection, daemon) =>
                    {
                        return connection.lose();
                    }
                    Received::HungUp => daemon = connection.daemon_process(),
                    Received::Nothing | Received::Unclaimed(_) => return,
                }
            }
        })?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let answer = connection.request("say hello", &Request::Hello { label, serial });
        if answer.is_err() {
            connection.close();
        }
        let _ = receiver.join();
        match answer {
            Err(ClientError::StoreLost) => {
                Err(connection.goodbye().map_or(ClientError::StoreLost, ClientError::Refused))
            }
            answer => answer,
        }
    })
}

/// Checks and maps what the daemon's welcome brings, and makes the client's parts of it.
fn make(
    guard: ForkGuard,
    connection: Arc<Connection>,
    label: String,
    events: u32,
    welcome: Answer,
) -> Result<Arc<Shared>, ClientError> {
    let Reply::Welcome { owner: id, slots, entries, capacity_bytes } = welcome.reply else {
        return Err(ClientError::unexpected(&welcome.reply));
    };
    // Slot 0 is the daemon's. A slot has 16 bits, and a place in every control memory.
    if id.slot() == 0 || u32::from(id.slot()) >= slots || slots > u32::from(u16::MAX) + 1 {
        return Err(ClientError::BadReply(format!("slot {} of {slots}", id.slot())));
    }
    if entries > ENTRIES_MAX {
        return Err(ClientError::BadReply(format!("a table of {entries} entries")));
    }
    let [control, bell, daemon_control] = welcome.descriptors()?;
    for descriptor in [&control, &daemon_control] {
        check_received(descriptor.as_fd(), control_bytes(slots))?;
    }
    let bell = Bell::check_received(bell)?;
    let directory = Arc::new(DirectoryReader::map(daemon_control.as_fd(), slots)?);
    let daemon_pins = PinReader::map(daemon_control.as_fd(), id.slot())?;
    let (words, pins) = (TableWriter::map(control.as_fd())?, PinWriter::map(control.as_fd(), id.slot())?);
    let (table, readers) = (Table::new(id, words, pins), Readers::new(id, directory.clone(), daemon_pins));
    connection.record(recorders::begin(control.as_fd(), events));
    Ok(Arc::new_cyclic(|client: &Weak<Shared>| {
        let client: WeakKeepAlive = client.clone();
        Shared {
            label,
            owner: Owner::new(
                guard,
                table,
                readers,
                entries,
                capacity_bytes,
                connection.clone(),
                Reference::end_raw,
                client.clone(),
            ),
            peers: Peers::new(id, slots, control, directory, guard, connection.clone(), client),
            channels: Arc::new(Channels::new(connection.clone())),
            events: EventSource::new(bell),
            spill_jobs: SpillJobs::default(),
            escrow: Escrow::new(),
            daemon_control,
            watches_names: false.into(),
            connection,
        }
    }))
}
